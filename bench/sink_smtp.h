/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink_smtp: one server-side SMTP session, sans-I/O: bytes in; bytes, counts and facts out.
 *
 * Owner: one connection of the sink (bench/sink.c) or of a test. It takes mail and throws it away;
 * what is of interest about it is told by hooks. EHLO offers PIPELINING, 8BITMIME, SIZE and
 * ENHANCEDSTATUSCODES; commands may come in any grouping, cut at any byte. It answers otherwise
 * where an address or a share says so (bench/sink_script.h).
 *
 * How to drive it
 *   init, then open for the greeting, then take with what came. take consumes all bytes, unless
 *   `out` has less than SINK_SMTP_REPLY_MAX bytes left: then write `out` and call it again with the
 *   rest. What take left in `out` is one group of replies: one write. Afterwards look at
 *   `delay_ms` (the group is to be held back that long; reset by the caller) and sink_smtp_end:
 * when it is not SINK_END_OPEN, write what is in `out`, then close as told.
 *
 * Bounds: a command line of SINK_SMTP_LINE_MAX bytes (longer ones are answered 500 and skipped), no
 * allocation, about 1.2 KB a session.
 *
 * Errors of the client are answered as RFC 5321 says; nothing here can fail.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/dot.h"
#include "bench/sink_script.h"
#include "engine/base/bytes.h"
#include "engine/base/random.h"

enum {
    SINK_SMTP_LINE_MAX = 1024,
    SINK_SMTP_REPLY_MAX = 800, /* no single reply is longer */
    SINK_SHARES_MAX = 16,
};

/* Read-only, shared by all sessions. */
struct sink_policy {
    struct span name;  /* host name of greeting and EHLO */
    uint64_t size_max; /* told by SIZE and enforced at MAIL; 0 = none */
    bool is_scripted;  /* look for scripts in addresses */
    bool is_stepwise;  /* does not offer PIPELINING */
    bool is_old;       /* knows HELO only */
    struct sink_share shares[SINK_SHARES_MAX];
    size_t shares_count;
};

/* Any member may be NULL. Spans are lent for the call. */
struct sink_hooks {
    /* An accepted sender begins a transaction, an accepted recipient joins it. */
    void (*on_mail)(void *context, struct span sender);
    void (*on_rcpt)(void *context, struct span recipient);
    /* The content, without the transparency dots, in pieces. */
    void (*on_body)(void *context, struct span piece);
    /* The message is whole and about to be accepted: called before its 250 is in `out`. `size` is
     * that of the content on the wire with the lone dot. */
    void (*on_message)(void *context, uint64_t size);
    /* How many times this address came with a script "xN" before; counts this time too. */
    uint32_t (*on_attempt)(void *context, struct span address);
};

struct sink_counts {
    uint64_t messages;   /* accepted: the 250 was said, or lost on purpose */
    uint64_t recipients; /* of those messages */
    uint64_t bytes;      /* of those messages, as on the wire */
    uint64_t refused;    /* scripted replies, drops, resets and mutes */
    uint64_t bad;        /* commands that were wrong in form, order or length */
};

enum sink_smtp_state {
    SINK_SMTP_START, /* no EHLO or HELO yet */
    SINK_SMTP_READY,
    SINK_SMTP_MAIL, /* a sender stands */
    SINK_SMTP_RCPT, /* at least one recipient stands */
    SINK_SMTP_BODY,
    SINK_SMTP_MUTE, /* takes everything, says nothing */
    SINK_SMTP_OVER,
};
enum { SINK_SMTP_STATES_COUNT = SINK_SMTP_OVER + 1 };

enum sink_end { SINK_END_OPEN, SINK_END_CLOSE, SINK_END_RESET };

struct sink_smtp {
    const struct sink_policy *policy;
    const struct sink_hooks *hooks;
    void *context;
    struct random *random; /* for shares; of the owner */
    struct sink_counts *counts;
    enum sink_smtp_state state;
    enum sink_end end;
    struct dot_finder dot;
    uint32_t delay_ms;
    uint32_t rcpts_count;
    uint64_t body_size;
    enum sink_act manner; /* of the reply under way */
    uint16_t said;   /* for on_message: the code that the end of data is answered with; 0: none */
    bool is_early;   /* ... has been answered with already, before the message came */
    bool is_endless; /* the last reply has begun and will not end: the owner may go on with it */
    struct sink_script at_data; /* what a recipient said about DATA and the end of data */
    struct sink_script at_dot;
    bool is_skipping; /* the rest of a line that was too long */
    uint16_t line_size;
    char line[SINK_SMTP_LINE_MAX]; /* the start of a line cut by the end of the bytes */
};

/* All pointers are kept. */
void sink_smtp_init(struct sink_smtp *session, const struct sink_policy *policy,
                    const struct sink_hooks *hooks, void *context, struct random *random,
                    struct sink_counts *counts);
/* The greeting. */
void sink_smtp_open(struct sink_smtp *session, struct writer *out);
/* Returns how many bytes were taken. */
size_t sink_smtp_take(struct sink_smtp *session, struct span in, struct writer *out);
static inline enum sink_end sink_smtp_end(const struct sink_smtp *session)
{
    return session->end;
}
