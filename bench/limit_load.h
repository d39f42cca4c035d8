/* SPDX-License-Identifier: Apache-2.0 */
/*
 * limit_load: the bytes that the blaster sends, rendered once, and what it shares with its threads.
 *
 * Per message two round trips, as the engine makes them with a server that offers PIPELINING:
 * MAIL, RCPT and DATA in one write, three replies; the message with its lone dot in one write, one
 * reply. Replies are counted by their line ends and not read. No logic: a server that refuses
 * breaks the dialogue, and the run fails on its deadline.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "bench/program.h"
#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/stat.h"

struct limit_load {
    struct span hello;    /* one reply line */
    struct span envelope; /* three */
    struct span message;  /* one */
};

struct limit_config {
    struct limit_load load;
    struct net_addr to;
    struct program_cores cores;
    uint32_t connections_count; /* a thread */
    struct mono_time deadline;
    pthread_barrier_t ready; /* all connections of all threads are up */
};

/* One thread's part. `started`, `ended`, `error` are set by the thread and read after the join. */
struct limit_part {
    struct limit_config *config;
    uint32_t index;
    uint64_t messages_count;
    pthread_t id;
    struct mono_time started;
    struct mono_time ended;
    const char *error; /* NULL: all messages were taken */
};

enum { LIMIT_MESSAGE_MIN = 256 };

/* `message_size`: bytes of the message without the lone dot, at least LIMIT_MESSAGE_MIN. Exits when
 * there is no memory. */
struct limit_load limit_load_render(size_t message_size);
void limit_load_deinit(struct limit_load *load);
/* Bodies of the threads: through the engine's transport, or over a bare ring of their own. */
void *limit_net_main(void *part);
void *limit_raw_main(void *part);

static inline uint32_t limit_lines_count(struct span bytes)
{
    uint32_t count = 0;
    const char *end = bytes.at + bytes.size;
    const char *at = bytes.at;
    while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        at++;
        count++;
    }
    return count;
}
