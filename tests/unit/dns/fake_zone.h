/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_zone: a name server made of a table of rows, for tests: answers single questions as raw
 * messages, and is a dns_source that can be held back.
 *
 * A name without any row does not exist (NXDOMAIN with a SOA). Aliases are followed inside the
 * table, as a recursive name server does. The special types below make a name misbehave.
 */
#pragma once

#include "dns/dns_source.h"
#include "engine/base/bytes.h"
#include "engine/base/clock.h"

enum {
    /* `data`: the type that fails ("A", "AAAA", "MX"), or NULL for all. */
    FAKE_SERVFAIL = 1001, /* DNS_FAILED */
    FAKE_TIMEOUT,         /* DNS_TIMED_OUT */
    FAKE_SILENT,          /* never answered */
    FAKE_EMPTY,           /* the name exists, without records of any type asked */
    FAKE_HALF_CNAME,      /* an alias whose target the server leaves out, without a SOA */
    FAKE_RAW_MX,          /* `data`: hexadecimal RDATA of an MX record */
    FAKE_MANY_MX,         /* `data`: how many records, "10 mxNNNN.many.example", counting down */
};

enum { FAKE_SOA_TTL_S = 900, FAKE_SOA_MINIMUM_S = 600 };

struct fake_row {
    const char *name;
    int type;
    uint32_t ttl_s;
    const char *data; /* "10 mx.example.com", "192.5.2.1", "2a00:db8::1", "target.example" */
};

/* The status and message of one answer. `memory` must hold DNS_BUILD_MESSAGE_MAX bytes.
 * FAKE_SILENT comes out as DNS_TIMED_OUT. */
enum dns_status fake_zone_answer(const struct fake_row *rows, struct span name, enum dns_type type,
                                 void *memory, struct span *ret_message);
/* Whether the question is one that is never answered. */
bool fake_zone_is_silent(const struct fake_row *rows, struct span name, enum dns_type type);

struct fake_zone {
    struct dns_source source;    /* first */
    const struct fake_row *rows; /* ends with a NULL name; may be changed between steps */
    bool is_held;                /* answers nothing for now */
    bool is_backwards;           /* answers the last question first */
    bool is_destroyed;
    unsigned questions_count;
    unsigned waits_count;
    unsigned open_count;
    unsigned open_peak;
    struct dns_question *open;
    char message[65536];
};

void fake_zone_init(struct fake_zone *zone, const struct fake_row *rows);
