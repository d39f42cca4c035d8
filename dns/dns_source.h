/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dns_source: where the resolver's questions go: c-ares in production (resolver_ares.c), seeded
 * answers in the simulator, a table of zones in the tests. The seam exists because c-ares reads its
 * own clock (DESIGN 6).
 *
 * Owner and actor: the resolver, alone. A question belongs to the source from `ask` until its
 * on_answer; the resolver asks at most questions_max at a time, never twice with one question, and
 * never from within on_answer.
 *
 * Errors: every question is answered exactly once, with a status; only `destroy` ends questions
 * without an answer.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/inbox.h"

enum { DNS_NAME_MAX = 255 };

enum dns_type { DNS_A = 1, DNS_CNAME = 5, DNS_SOA = 6, DNS_MX = 15, DNS_AAAA = 28 };

enum dns_status { DNS_OK, DNS_NO_NAME, DNS_NO_DATA, DNS_FAILED, DNS_TIMED_OUT };

/* One question to a name server. The source calls on_answer exactly once, from within source->step,
 * with the raw message (RFC 1035) when status is DNS_OK, DNS_NO_NAME or DNS_NO_DATA (SOA for the
 * negative TTL), else an empty span. The message is lent until on_answer returns. */
struct dns_question {
    enum dns_type type;
    char name[DNS_NAME_MAX + 1]; /* letters, digits, '-', '_' and dots only; no trailing dot */
    void (*on_answer)(struct dns_question *question, enum dns_status status, struct span message);
    void *user;
    /* The source's own while it has the question. */
    struct dns_source *source;
    struct dns_question *next;
    uint64_t source_data;
};

struct dns_source {
    void (*ask)(struct dns_source *source, struct dns_question *question);
    /* Processes what has come; returns when it wants to be called again. */
    struct mono_time (*step)(struct dns_source *source, struct mono_time now);
    /* Production: sleeps until an answer, the waker or the deadline. NULL in the simulator. */
    void (*wait)(struct dns_source *source, struct mono_time now, struct mono_time deadline);
    void (*destroy)(struct dns_source *source);
};

/* c-ares. `servers`: "127.0.0.1:5353,[::1]" or NULL = resolv.conf. `timeout_ms` is that of the
 * first try, a later round of tries waits twice as long. `waker` may be NULL. NULL + *ret_error
 * (-errno) on failure.
 *
 * c-ares sends all questions for one server from one port while any is open, so its guard against
 * forged answers is 16 bits of query id: name servers should be on loopback or a trusted network (a
 * caching resolver on the same host is what a bulk sender wants anyway). */
struct dns_source *dns_ares_create(const char *servers, uint32_t timeout_ms, uint32_t tries,
                                   struct waker *waker, int *ret_error);
