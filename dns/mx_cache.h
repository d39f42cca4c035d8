/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mx_cache: domain -> where its mail goes, shared: workers read without waiting, the resolver
 * writes.
 *
 * A liburcu hash table (cds_lfht, fixed size, QSBR). An answer is immutable once published: it is
 * replaced, never edited, and given back after a grace period (the resolver's thread waits for it
 * in batches; workers never do). A pointer from mx_cache_find_xcore is valid until the reading
 * actor's step ends (its quiescent state): copy what must live longer.
 *
 * Life of an answer: FRESH until its TTL (bounded by ttl_min_s .. ttl_max_s), then, if it is MX_OK,
 * STALE for at most stale_max_s: still usable while the resolver asks again. When that fails, the
 * stale answer is published anew as FRESH for temporary_ttl_s, never beyond the end of its
 * stale_max_s; so the name servers are asked once per temporary_ttl_s and not for every mail. Then
 * it is MISSING. Other outcomes are never stale: nobody is refused on old news. Negative ones (RFC
 * 2308) live for their TTL up to negative_ttl_max_s, temporary failures for temporary_ttl_s.
 *
 * Bound: answers_max; the answer with the oldest expiry leaves first. So an answer may be MISSING
 * again right after its query came back: to be treated as MX_TEMPORARY, not asked in a loop.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "net/addr.h"

enum { MX_HOSTS_MAX = 32, MX_NAME_MAX = 255 };

enum mx_outcome {
    MX_OK,
    MX_TEMPORARY, /* SERVFAIL, timeout, refused: defer 4.4.3 (B2) */
    MX_NO_DOMAIN, /* NXDOMAIN: bounce 5.1.2 (B2) */
    MX_NULL,      /* null MX, RFC 7505: bounce 5.1.10 (B7) */
    MX_NO_HOST,   /* MX records, but none leads to a usable address: defer, at the end 5.4.4 (B3) */
    MX_NO_ADDRESS, /* no MX and no address that may be used: bounce 5.1.2 */
    MX_LOOP,       /* CNAME loop or chain too long, or the best MX is ourselves: 5.4.6 (B1, B6) */
    MX_BAD_NAME,   /* label > 63, total > 253, empty label, a byte no host name has, an address
                      without brackets: no query was made (B10) */
};
enum { MX_OUTCOMES_COUNT = MX_BAD_NAME + 1 };

struct mx_host {
    struct net_addr addr; /* port 0: the caller's default */
    uint16_t preference;
    uint16_t name_at; /* in names */
    uint8_t name_size;
    uint8_t rank; /* hosts of one MX name share it; for B4, B5 */
};

struct mx_answer {
    enum mx_outcome outcome;
    uint32_t hosts_count;
    uint64_t site_key; /* hash of the MX set: equal sets are one site (mx_site.h); 0 unless MX_OK */
    uint16_t site_name_size;
    uint16_t names_size;
    struct mono_time expires;
    const char *site_name; /* "(mx1|mx2).example.com" (mx_site.h), at most 255 bytes */
    const char *names;
    /* By preference; equal preference in the order of the answer: the caller shuffles the ranks per
     * attempt (B4). Addresses of one rank stand together, in the order to try them in (B5). */
    struct mx_host hosts[];
};

enum mx_kind {
    MX_KIND_MAIL, /* the mail hosts of a domain: MX, else address (implicit MX) */
    MX_KIND_HOST, /* the addresses of a host name, or an address itself (a route's host) */
};

enum mx_freshness { MX_MISSING, MX_STALE, MX_FRESH };

struct mx_cache;

/* Any worker, from within its step. MX_STALE: use it and send a query as well. *ret_answer is NULL
 * with MX_MISSING. */
enum mx_freshness mx_cache_find_xcore(struct mx_cache *cache, enum mx_kind kind, struct span name,
                                      struct mono_time now, const struct mx_answer **ret_answer);
uint64_t mx_cache_count_xcore(const struct mx_cache *cache);
/* "ok", "temporary", ... */
const char *mx_outcome_name(enum mx_outcome outcome);

static inline struct span mx_host_name(const struct mx_answer *answer, const struct mx_host *host)
{
    return span_of(answer->names + host->name_at, host->name_size);
}
