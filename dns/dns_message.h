/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dns_message: reads the answer of a name server (RFC 1035 4.1): input from strangers.
 *
 * Pure functions, any actor; nothing is copied but names. Records come out as spans into the
 * message, which must outlive them.
 *
 * Bounds: DNS_RECORDS_MAX records of the type asked are kept, the rest is counted in dropped_count
 * (conformance B8); of the answer section DNS_SECTION_MAX records are looked at; an alias chain has
 * at most DNS_ALIASES_MAX links, in one message and over several together (B1); a compression
 * pointer leads strictly backwards and a name has at most DNS_JUMPS_MAX of them.
 *
 * Errors: -EBADMSG when the message is not a whole, untruncated answer to the question; -ELOOP when
 * the alias chain is too long or closed. A record whose data is too short for its type is dropped,
 * not the message.
 */
#pragma once

#include <stdint.h>

#include "dns/dns_source.h"

enum {
    DNS_RECORDS_MAX = 100,
    DNS_SECTION_MAX = 512,
    DNS_ALIASES_MAX = 16,
    DNS_JUMPS_MAX = 64,
    DNS_NAME_TEXT_MAX = 253, /* what 255 octets on the wire can hold */
};

enum dns_rcode { DNS_RCODE_OK = 0, DNS_RCODE_NO_NAME = 3 };

/* Lower case, without a trailing dot; the root has size 0. */
struct dns_name {
    uint8_t size;
    bool is_plain; /* every label has letters, digits, '-' and '_' only: fit for a host (B10) */
    char text[DNS_NAME_TEXT_MAX + 1]; /* NUL-terminated */
};

struct dns_reply {
    uint8_t rcode;         /* enum dns_rcode; other codes do not get this far */
    bool has_negative_ttl; /* the authority section has a SOA (RFC 2308) */
    uint16_t aliases_count;
    uint16_t records_count;
    uint16_t dropped_count;
    uint16_t id;    /* random: the question's */
    uint32_t ttl_s; /* the least of the aliases and the records kept; UINT32_MAX when none */
    uint32_t negative_ttl_s;
    struct dns_name name;                 /* where the chain of aliases ended */
    struct span records[DNS_RECORDS_MAX]; /* RDATA of the type asked at `name`, in the order sent */
};

static inline struct span dns_name_span(const struct dns_name *name)
{
    return span_of(name->text, name->size);
}

/* Reads `message` as the answer to (type, name), `aliases_before` links into the chain. */
int dns_reply_parse(struct span message, enum dns_type type, struct span name,
                    unsigned aliases_before, struct dns_reply *ret_reply)
    __attribute__((warn_unused_result));
/* The two fields of an MX record; false when the data is too short, malformed, or longer than its
 * fields. */
bool dns_mx_parse(struct span message, struct span rdata, uint16_t *ret_preference,
                  struct dns_name *ret_name);
/* A name at the cursor, which must point into `message`; the cursor is moved behind it. */
bool dns_name_take(struct span message, struct cursor *cursor, struct dns_name *ret_name);
/* True for a name that may be asked for: labels of 1..63 letters, digits, '-' and '_', at most 253
 * bytes in all, no trailing dot (B10). */
bool dns_name_is_plain(struct span text);
