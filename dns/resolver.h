/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resolver: the resolver actor: owns the DNS channel and the writing side of the MX cache.
 *
 * A worker that misses in the cache pushes a struct mx_query; the resolver asks once per (kind,
 * name) however many wait, stores the answer (or the failure) in the cache, and pushes every
 * waiting query back to its reply_to inbox; the worker then looks into the cache again. A query is
 * always answered, within timeout_ms in all; a lookup that is not complete by then ends with the
 * addresses it has, or as MX_TEMPORARY. A query for a stale answer is answered when the refresh is
 * done; one for a fresh answer (another query was faster) at once.
 *
 * The questions go through struct dns_source (dns_source.h): c-ares in production, seeded answers
 * in the simulator.
 *
 * Bounds: questions in flight to the network <= questions_max, names being looked up as well;
 * further names wait in order; waiting queries are bounded by the workers' slabs. A step takes at
 * most RESOLVER_QUERIES_A_STEP queries.
 * questions_max is also the guard against losing questions in a burst: the usual socket buffer of a
 * name server (212992 bytes) holds about 250 of them; 200 in flight to one that answers at once
 * make 25000 domains/s, 1000 lose some, each of which costs a timeout.
 *
 * Owner and actor: resolver. It is the one actor that may wait for an RCU grace period: in `wait`
 * (at most once a second), or in a step when mx_cache.c has gathered too much; in an actor without
 * event fd (the simulator) at the end of every step, so that a pointer kept too long is found. Its
 * thread must be registered with RCU (QSBR), like that of every reader of the cache.
 *
 * Errors: none to the caller; a broken answer (compression loops, RDATA too short, > 100 MX: B8)
 * counts as MX_TEMPORARY or drops the record. Without memory for an answer, the query comes back
 * and the cache has nothing (MX_MISSING: as MX_TEMPORARY).
 */
#pragma once

#include <stdint.h>

#include "dns/dns_source.h"
#include "dns/mx_cache.h"
#include "engine/base/actor.h"
#include "engine/base/stat.h"

enum { RESOLVER_QUERIES_A_STEP = 1024, RESOLVER_TIMEOUT_DEFAULT_MS = 30000 };

struct mx_query {
    struct inbox_node node;
    struct inbox *reply_to;
    enum mx_kind kind;
    uint16_t name_size;
    char name[MX_NAME_MAX + 1]; /* as it is looked up in the cache: lower case, no trailing dot */
    uint64_t user;              /* the worker's */
    struct mono_time came;      /* the resolver's */
};

struct resolver_config {
    struct dns_source *source; /* owned by the resolver from init on, also when init fails */
    const struct clock *clock;
    uint64_t secret; /* key of the hash tables */
    uint32_t answers_max;
    uint32_t questions_max;
    uint32_t ttl_min_s, ttl_max_s, negative_ttl_max_s, temporary_ttl_s, stale_max_s;
    uint32_t timeout_ms; /* of a query in all; 0: RESOLVER_TIMEOUT_DEFAULT_MS */
    bool use_ip4, use_ip6;
    /* Addresses of net_addr_is_special are used; otherwise dropped (3.10). Those of MX_KIND_HOST
     * are used in any case: the configuration names them, not a stranger's zone. */
    bool allow_special;
    const char *own_names; /* comma-separated host names that are ourselves (B6); may be NULL; must
                              outlive the resolver */
};

struct resolver_stats {
    struct stat_counter queries;    /* of workers */
    struct stat_counter questions;  /* to name servers */
    struct stat_counter answers;    /* lookups ended with anything but MX_TEMPORARY */
    struct stat_counter failures;   /* lookups ended as MX_TEMPORARY, or without memory */
    struct stat_counter is_failing; /* 1: the last lookup that ended was a failure */
    struct stat_counter evictions;  /* answers that left the cache for want of room */
};

struct resolver {
    struct actor actor; /* first */
    struct inbox queries;
    struct resolver_stats stats;
    struct mx_cache *cache;
    struct resolver_core *core; /* the room's own */
};

/* 0, or -errno with nothing left behind. */
int resolver_init(struct resolver *resolver, const struct resolver_config *config,
                  bool with_event_fd) __attribute__((warn_unused_result));
/* NULL-safe, half-built safe; every actor that reads the cache has stopped. Waiting queries are
 * dropped (their owners are gone). */
void resolver_deinit(struct resolver *resolver);
