/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mx_cache_writer: the writing side of the MX cache, for the resolver alone.
 *
 * Every function here is called by one thread, registered with RCU and online, but mx_cache_create,
 * mx_cache_destroy (no readers any more) and mx_cache_reclaim (online or not, registered or not).
 *
 * Errors: -ENOMEM from a put: the cache is then as it was before.
 */
#pragma once

#include "dns/mx.h"
#include "dns/mx_cache.h"

/* At so many, replaced answers are given back even if no sleep came meanwhile. */
enum { MX_CACHE_RETIRED_MAX = 1024 };

struct mx_cache *mx_cache_create(uint32_t answers_max, uint32_t stale_max_s, uint64_t secret,
                                 int *ret_error);
void mx_cache_destroy(struct mx_cache *cache);
/* Publishes the result, in place of an older one for (kind, name). */
int mx_cache_put(struct mx_cache *cache, enum mx_kind kind, struct span name,
                 const struct mx_result *result, struct mono_time now, struct mono_time expires)
    __attribute__((warn_unused_result));
/* Publishes that the name could not be asked for: keeps an old answer that may still be used fresh
 * until `expires`, else stores MX_TEMPORARY. */
int mx_cache_put_failure(struct mx_cache *cache, enum mx_kind kind, struct span name,
                         struct mono_time now, struct mono_time expires)
    __attribute__((warn_unused_result));
/* Takes out what is of no use any more, oldest first, at most `budget`. */
void mx_cache_trim(struct mx_cache *cache, struct mono_time now, unsigned budget);
/* Waits until no reader can hold a retired answer, and gives them all back. */
void mx_cache_reclaim(struct mx_cache *cache);
uint32_t mx_cache_retired_count(const struct mx_cache *cache);
uint64_t mx_cache_evictions_count(const struct mx_cache *cache);
