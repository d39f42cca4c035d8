/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include <urcu/rculfhash.h>
#include <xxhash.h>

#include "dns/mx_cache_writer.h"
#include "engine/base/ensure.h"
#include "engine/base/order.h"
#include "engine/base/planted.h"
#include "engine/base/stat.h"

/*
 * Why workers never wait. A lookup walks a chain of the hash table and takes no lock; with QSBR its
 * read-side section is the whole step of the actor and costs nothing. The one who waits is the
 * resolver's thread, in mx_cache_reclaim, until every worker has ended the step it was in (they
 * report after each step, and count as quiet while they sleep). It does so where the thread would
 * sleep anyway (resolver.c), or when MX_CACHE_RETIRED_MAX answers have gathered, for all of them at
 * once: so the wait is as long as the longest step, and rare. A single thread that steps all actors
 * (the simulator) is between steps of workers by then, and the wait ends at once.
 *
 * call_rcu would not make anybody wait, but it brings a thread of its own, which neither boot.c nor
 * the simulator could know; an epoch of our own would be a second thing for every actor to report.
 * liburcu 0.13 has no way to ask whether a grace period has passed.
 *
 * The table has a bucket for every answer and never resizes (resizing brings a thread as well). The
 * heap orders the writer's view by expiry; readers never look at it.
 */

enum { BUCKETS_MIN = 64, BUCKETS_MAX = 1 << 24 };

struct mx_entry {
    struct cds_lfht_node node;
    uint64_t hash;
    struct mono_time stale_until;
    struct mx_entry *next_retired; /* writer only, once it left the table */
    uint32_t heap_at;              /* writer only */
    enum mx_kind kind;
    struct span name;
    struct mx_answer answer; /* last: hosts, then names, site name and name follow it */
};

struct mx_cache {
    struct cds_lfht *table;
    struct mx_entry **heap; /* the oldest expiry first */
    uint32_t heap_count;
    uint32_t answers_max;
    uint32_t retired_count;
    uint64_t secret;
    int64_t stale_max_ns;
    struct mx_entry *retired;
    struct stat_counter count;
    struct stat_counter evictions;
};

struct mx_key {
    struct mx_cache *cache;
    enum mx_kind kind;
    struct span name;
};

/* What an entry is made of. */
struct mx_content {
    enum mx_outcome outcome;
    uint32_t hosts_count;
    const struct mx_host *hosts;
    struct span names, site_name;
    uint64_t site_key;
    struct mono_time expires, stale_until;
};

static const char *const OUTCOME_NAMES[] = {
    [MX_OK] = "ok",        [MX_TEMPORARY] = "temporary", [MX_NO_DOMAIN] = "no_domain",
    [MX_NULL] = "null_mx", [MX_NO_HOST] = "no_host",     [MX_NO_ADDRESS] = "no_address",
    [MX_LOOP] = "loop",    [MX_BAD_NAME] = "bad_name",
};
static_assert(COUNT_OF(OUTCOME_NAMES) == MX_OUTCOMES_COUNT, "a name for every outcome");

/* What ORDER_ tells the sanitizer here: what the table publishes (P1, C1) and what a grace period
 * ends (C2; its partner P2 is with the thread that reports quiescent states). */

const char *mx_outcome_name(enum mx_outcome outcome)
{
    ensure((unsigned)outcome < MX_OUTCOMES_COUNT);
    return OUTCOME_NAMES[outcome];
}

struct mx_cache *mx_cache_create(uint32_t answers_max, uint32_t stale_max_s, uint64_t secret,
                                 int *ret_error)
{
    ensure(answers_max > 0);
    unsigned long buckets_count = BUCKETS_MIN;
    while (buckets_count < answers_max && buckets_count < BUCKETS_MAX) {
        buckets_count *= 2;
    }
    struct mx_cache *cache = calloc(1, sizeof(*cache));
    if (cache == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    cache->answers_max = answers_max;
    cache->secret = secret;
    cache->stale_max_ns = stale_max_s * NS_PER_S;
    cache->heap = calloc(answers_max, sizeof(struct mx_entry *));
    cache->table = cds_lfht_new_flavor(buckets_count, buckets_count, buckets_count, 0,
                                       &urcu_qsbr_flavor, NULL);
    if (cache->heap == NULL || cache->table == NULL) {
        mx_cache_destroy(cache);
        *ret_error = -ENOMEM;
        return NULL;
    }
    return cache;
}

static uint64_t hash_key(const struct mx_key *key)
{
    return XXH3_64bits_withSeed(key->name.at, key->name.size, key->cache->secret + key->kind);
}

static int match_key(struct cds_lfht_node *node, const void *key)
{
    const struct mx_key *wanted = key;
    ORDER_ACQUIRE(wanted->cache); /* C1 */
    const struct mx_entry *entry = caa_container_of(node, struct mx_entry, node);
    return entry->kind == wanted->kind && span_equal(entry->name, wanted->name);
}

static struct mx_entry *find_entry(const struct mx_key *key)
{
    struct cds_lfht_iter iter;
    urcu_qsbr_read_lock();
    cds_lfht_lookup(key->cache->table, hash_key(key), match_key, key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    urcu_qsbr_read_unlock();
    return node != NULL ? caa_container_of(node, struct mx_entry, node) : NULL;
}

enum mx_freshness mx_cache_find_xcore(struct mx_cache *cache, enum mx_kind kind, struct span name,
                                      struct mono_time now, const struct mx_answer **ret_answer)
{
    struct mx_key key = {.cache = cache, .kind = kind, .name = name};
    const struct mx_entry *entry = find_entry(&key);
    *ret_answer = NULL;
    if (PLANTED(ANSWER_KEPT) && entry != NULL) {
        *ret_answer = &entry->answer;
        return MX_FRESH;
    }
    if (entry == NULL || !mono_before(now, entry->stale_until)) {
        return MX_MISSING;
    }
    *ret_answer = &entry->answer;
    return mono_before(now, entry->answer.expires) ? MX_FRESH : MX_STALE;
}

uint64_t mx_cache_count_xcore(const struct mx_cache *cache)
{
    return stat_read_xcore(&cache->count);
}

static void heap_set(struct mx_cache *cache, uint32_t at, struct mx_entry *entry)
{
    cache->heap[at] = entry;
    entry->heap_at = at;
}

static bool is_earlier(const struct mx_entry *a, const struct mx_entry *b)
{
    return mono_before(a->answer.expires, b->answer.expires);
}

/* Puts `entry` where it belongs, from the free place `at` upwards or downwards. */
static void heap_settle(struct mx_cache *cache, uint32_t at, struct mx_entry *entry)
{
    while (at > 0 && is_earlier(entry, cache->heap[(at - 1) / 2])) {
        heap_set(cache, at, cache->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        uint64_t child = 2 * (uint64_t)at + 1;
        if (child + 1 < cache->heap_count &&
            is_earlier(cache->heap[child + 1], cache->heap[child])) {
            child++;
        }
        if (child >= cache->heap_count || !is_earlier(cache->heap[child], entry)) {
            break;
        }
        heap_set(cache, at, cache->heap[child]);
        at = (uint32_t)child;
    }
    heap_set(cache, at, entry);
}

static void heap_remove(struct mx_cache *cache, struct mx_entry *entry)
{
    ensure(cache->heap_count > 0);
    ensure(cache->heap[entry->heap_at] == entry);
    struct mx_entry *last = cache->heap[--cache->heap_count];
    if (last != entry) {
        heap_settle(cache, entry->heap_at, last);
    }
}

static void retire(struct mx_cache *cache, struct mx_entry *entry)
{
    heap_remove(cache, entry);
    entry->next_retired = cache->retired;
    cache->retired = entry;
    cache->retired_count++;
    stat_set(&cache->count, cache->heap_count);
}

static void remove_first(struct mx_cache *cache)
{
    ensure(cache->heap_count > 0);
    struct mx_entry *entry = cache->heap[0];
    urcu_qsbr_read_lock();
    int error = cds_lfht_del(cache->table, &entry->node);
    urcu_qsbr_read_unlock();
    ensure(error == 0);
    retire(cache, entry);
}

static struct span copy_behind(char **end, struct span bytes)
{
    char *copy = *end;
    memcpy(copy, bytes.at, bytes.size);
    *end += bytes.size;
    return span_of(copy, bytes.size);
}

static struct mx_entry *entry_create(const struct mx_key *key, const struct mx_content *content)
{
    size_t hosts_size = content->hosts_count * sizeof(struct mx_host);
    size_t text_size = content->names.size + content->site_name.size + key->name.size;
    struct mx_entry *entry = malloc(sizeof(*entry) + hosts_size + text_size);
    if (entry == NULL) {
        return NULL;
    }
    *entry = (struct mx_entry){
        .hash = hash_key(key),
        .stale_until = content->stale_until,
        .kind = key->kind,
        .answer =
            {
                .outcome = content->outcome,
                .hosts_count = content->hosts_count,
                .site_key = content->site_key,
                .site_name_size = (uint16_t)content->site_name.size,
                .names_size = (uint16_t)content->names.size,
                .expires = content->expires,
            },
    };
    cds_lfht_node_init(&entry->node);
    if (hosts_size > 0) {
        memcpy(entry->answer.hosts, content->hosts, hosts_size);
    }
    char *end = (char *)entry->answer.hosts + hosts_size;
    entry->answer.names = copy_behind(&end, content->names).at;
    entry->answer.site_name = copy_behind(&end, content->site_name).at;
    entry->name = copy_behind(&end, key->name);
    return entry;
}

/* The place is made before the new answer comes, so that it cannot be its own victim. */
static int publish(const struct mx_key *key, const struct mx_content *content)
{
    struct mx_cache *cache = key->cache;
    struct mx_entry *entry = entry_create(key, content);
    if (entry == NULL) {
        return -ENOMEM;
    }
    if (cache->heap_count == cache->answers_max && find_entry(key) == NULL) {
        remove_first(cache);
        stat_add(&cache->evictions, 1);
    }
    ORDER_RELEASE(cache); /* P1 */
    urcu_qsbr_read_lock();
    struct cds_lfht_node *old =
        cds_lfht_add_replace(cache->table, entry->hash, match_key, key, &entry->node);
    urcu_qsbr_read_unlock();
    if (old != NULL) {
        retire(cache, caa_container_of(old, struct mx_entry, node));
    }
    ensure(cache->heap_count < cache->answers_max);
    cache->heap_count++;
    heap_settle(cache, cache->heap_count - 1, entry);
    stat_set(&cache->count, cache->heap_count);
    return 0;
}

int mx_cache_put(struct mx_cache *cache, enum mx_kind kind, struct span name,
                 const struct mx_result *result, struct mono_time now, struct mono_time expires)
{
    ensure(mono_before(now, expires));
    ensure((result->outcome == MX_OK) == (result->hosts_count > 0));
    struct mx_key key = {.cache = cache, .kind = kind, .name = name};
    int64_t stale_ns = result->outcome == MX_OK ? cache->stale_max_ns : 0;
    struct mx_content content = {
        .outcome = result->outcome,
        .hosts_count = result->hosts_count,
        .hosts = result->hosts,
        .names = span_of(result->names, result->names_size),
        .site_name = span_of(result->site.name, result->site.name_size),
        .site_key = result->site.key,
        .expires = expires,
        .stale_until = mono_add_ns(expires, stale_ns),
    };
    return publish(&key, &content);
}

int mx_cache_put_failure(struct mx_cache *cache, enum mx_kind kind, struct span name,
                         struct mono_time now, struct mono_time expires)
{
    ensure(mono_before(now, expires));
    struct mx_key key = {.cache = cache, .kind = kind, .name = name};
    struct mx_content content = {
        .outcome = MX_TEMPORARY,
        .names = SPAN_NONE,
        .site_name = SPAN_NONE,
        .expires = expires,
        .stale_until = expires,
    };
    const struct mx_entry *old = find_entry(&key);
    if (old != NULL && old->answer.outcome == MX_OK && mono_before(now, old->stale_until)) {
        const struct mx_answer *answer = &old->answer;
        content = (struct mx_content){
            .outcome = MX_OK,
            .hosts_count = answer->hosts_count,
            .hosts = answer->hosts,
            .names = span_of(answer->names, answer->names_size),
            .site_name = span_of(answer->site_name, answer->site_name_size),
            .site_key = answer->site_key,
            .expires = mono_earlier(expires, old->stale_until),
            .stale_until = old->stale_until,
        };
    }
    return publish(&key, &content);
}

/* What is at the top may still be usable while others behind it are not: they stay until their
 * turn, which answers_max bounds. */
void mx_cache_trim(struct mx_cache *cache, struct mono_time now, unsigned budget)
{
    while (budget-- > 0 && cache->heap_count > 0 &&
           !mono_before(now, cache->heap[0]->stale_until)) {
        remove_first(cache);
    }
}

void mx_cache_reclaim(struct mx_cache *cache)
{
    struct mx_entry *retired = cache->retired;
    if (retired == NULL) {
        ensure(cache->retired_count == 0);
        return;
    }
    urcu_qsbr_synchronize_rcu();
    ORDER_ACQUIRE(cache); /* C2 */
    while (retired != NULL) {
        struct mx_entry *next = retired->next_retired;
        free(retired);
        retired = next;
    }
    cache->retired = NULL;
    cache->retired_count = 0;
}

uint32_t mx_cache_retired_count(const struct mx_cache *cache)
{
    return cache->retired_count;
}

uint64_t mx_cache_evictions_count(const struct mx_cache *cache)
{
    return stat_read_xcore(&cache->evictions);
}

void mx_cache_destroy(struct mx_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    while (cache->heap_count > 0) {
        remove_first(cache);
    }
    mx_cache_reclaim(cache);
    if (cache->table != NULL) {
        ensure(cds_lfht_destroy(cache->table, NULL) == 0);
    }
    free(cache->heap);
    free(cache);
}
