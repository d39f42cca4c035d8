/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink_thread: one thread of the sink: a net loop, its listener and its sessions.
 *
 * Each thread listens on the same address (SO_REUSEPORT), so connections spread by the kernel's
 * hash and threads share nothing but counters and, when asked for, the record file and the table of
 * attempts. Replies to one read are one send. They are held back while a latency or a script says
 * so, and while the record of a message is not yet written.
 *
 * Owner: main makes the thread, starts it and joins it; all else is the thread's own. Totals may be
 * read by anybody at any time.
 *
 * Bounds: conns_max connections (more are reset), SINK_HELD_MAX bytes of replies held a session and
 * what the transport queues for a client that does not read; beyond that the connection is reset
 * and counted as overrun. A record that cannot be written ends the program: nothing is accepted
 * unrecorded.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/program.h"
#include "bench/sink_attempts.h"
#include "bench/sink_smtp.h"
#include "engine/base/stat.h"

enum { SINK_HELD_MAX = 8192 };

struct sink_config {
    struct sink_policy policy;
    struct program_cores cores;
    bool is_blind; /* bench/sink_blind.h */
    bool is_record_sync;
    int record_fd; /* -1: no record */
    uint32_t latency_ms;
    uint32_t conns_max;
    uint64_t seed;
    struct sink_attempts *attempts;
};

struct sink_totals {
    struct stat_counter messages;
    struct stat_counter recipients;
    struct stat_counter bytes;
    struct stat_counter refused;
    struct stat_counter bad;
    struct stat_counter connections;
    struct stat_counter open; /* connections now */
    struct stat_counter open_peak;
    struct stat_counter overruns;
    struct stat_counter
        first_ns; /* monotonic time of the first and last turn that took a message */
    struct stat_counter last_ns;
};

struct sink_thread;

/* `config` is kept. `listen` with port 0: the port is chosen; `ret_bound` tells it. 0 or -errno. */
int sink_thread_create(const struct sink_config *config, uint32_t index,
                       const struct net_addr *listen, struct sink_thread **ret_thread)
    __attribute__((warn_unused_result));
/* Listens, then runs until stopped. 0 or -errno; ret_bound holds the address bound. */
int sink_thread_start(struct sink_thread *thread, struct net_addr *ret_bound)
    __attribute__((warn_unused_result));
/* Any thread: asks the thread to end soon, once nothing is left to say to anybody. */
void sink_thread_stop_xcore(struct sink_thread *thread);
/* Joins. NULL-safe. */
void sink_thread_destroy(struct sink_thread *thread);
const struct sink_totals *sink_thread_totals(const struct sink_thread *thread);
