/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx_cache.h"

#include <pthread.h>
#include <stdatomic.h>
#include <urcu/urcu-qsbr.h>

#include "dns/mx_cache_writer.h"
#include "engine/base/order.h"
#include "engine/base/random.h"
#include "tests/harness.h"

enum { SECRET = 7, STALE_MAX_S = 100 };

static struct mono_time at_s(int64_t s)
{
    return (struct mono_time){.ns = s * NS_PER_S};
}

static struct mx_cache *create(uint32_t answers_max)
{
    int error = 0;
    struct mx_cache *cache = mx_cache_create(answers_max, STALE_MAX_S, SECRET, &error);
    CU_ASSERT_FATAL(cache != NULL);
    CU_ASSERT(error == 0);
    return cache;
}

/* One host per unit of `hosts_count`, 192.5.2.`number` each, all of one name. */
static struct mx_result *make_result(enum mx_outcome outcome, unsigned number, unsigned hosts_count)
{
    static struct mx_result result;
    result = (struct mx_result){.outcome = outcome, .hosts_count = (uint16_t)hosts_count};
    if (outcome == MX_OK) {
        struct writer writer = writer_of(result.names, sizeof(result.names));
        writer_put_format(&writer, "mx%u.example", number);
        result.names_size = (uint16_t)writer_size(&writer);
        memcpy(result.site.name, result.names, result.names_size);
        result.site.name_size = result.names_size;
        result.site.key = number;
        for (unsigned i = 0; i < hosts_count; i++) {
            result.hosts[i] = (struct mx_host){
                .addr = {.family = NET_IP4, .bytes = {192, 0, 2, (uint8_t)number}},
                .preference = 10,
                .name_size = (uint8_t)result.names_size,
            };
        }
    }
    return &result;
}

static void put(struct mx_cache *cache, struct span name, unsigned number, int64_t now_s,
                int64_t expires_s)
{
    CU_ASSERT(mx_cache_put(cache, MX_KIND_MAIL, name, make_result(MX_OK, number, 2), at_s(now_s),
                           at_s(expires_s)) == 0);
}

static enum mx_freshness find(struct mx_cache *cache, struct span name, int64_t now_s,
                              const struct mx_answer **ret_answer)
{
    return mx_cache_find_xcore(cache, MX_KIND_MAIL, name, at_s(now_s), ret_answer);
}

static void test_put_find(void)
{
    struct mx_cache *cache = create(10);
    const struct mx_answer *answer;
    CU_ASSERT(find(cache, SPAN("a.example"), 0, &answer) == MX_MISSING);
    CU_ASSERT(answer == NULL);
    put(cache, SPAN("a.example"), 1, 0, 60);
    CU_ASSERT_FATAL(find(cache, SPAN("a.example"), 0, &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_OK);
    CU_ASSERT(answer->hosts_count == 2);
    CU_ASSERT(answer->site_key == 1);
    CU_ASSERT(answer->expires.ns == 60 * NS_PER_S);
    CU_ASSERT(span_equal(mx_host_name(answer, &answer->hosts[1]), SPAN("mx1.example")));
    CU_ASSERT(span_equal(span_of(answer->site_name, answer->site_name_size), SPAN("mx1.example")));
    CU_ASSERT(find(cache, SPAN("b.example"), 0, &answer) == MX_MISSING);
    CU_ASSERT(mx_cache_find_xcore(cache, MX_KIND_HOST, SPAN("a.example"), at_s(0), &answer) ==
              MX_MISSING);
    CU_ASSERT(mx_cache_count_xcore(cache) == 1);
    mx_cache_destroy(cache);
}

/* The old answer stays readable until it is reclaimed, and is given back then (address sanitizer).
 */
static void test_replace(void)
{
    struct mx_cache *cache = create(10);
    const struct mx_answer *old, *new;
    put(cache, SPAN("a.example"), 1, 0, 60);
    (void)find(cache, SPAN("a.example"), 0, &old);
    put(cache, SPAN("a.example"), 2, 0, 90);
    (void)find(cache, SPAN("a.example"), 0, &new);
    CU_ASSERT(old != new);
    CU_ASSERT(old->site_key == 1);
    CU_ASSERT(new->site_key == 2);
    CU_ASSERT(mx_cache_count_xcore(cache) == 1);
    CU_ASSERT(mx_cache_retired_count(cache) == 1);
    mx_cache_reclaim(cache);
    CU_ASSERT(mx_cache_retired_count(cache) == 0);
    CU_ASSERT(new->site_key == 2);
    mx_cache_destroy(cache);
}

static void test_life(void)
{
    struct mx_cache *cache = create(10);
    const struct mx_answer *answer;
    put(cache, SPAN("a.example"), 1, 0, 60);
    CU_ASSERT(mx_cache_put(cache, MX_KIND_MAIL, SPAN("no.example"), make_result(MX_NO_DOMAIN, 0, 0),
                           at_s(0), at_s(60)) == 0);
    CU_ASSERT(find(cache, SPAN("a.example"), 59, &answer) == MX_FRESH);
    CU_ASSERT(find(cache, SPAN("a.example"), 60, &answer) == MX_STALE);
    CU_ASSERT(answer != NULL);
    CU_ASSERT(find(cache, SPAN("a.example"), 60 + STALE_MAX_S - 1, &answer) == MX_STALE);
    CU_ASSERT(find(cache, SPAN("a.example"), 60 + STALE_MAX_S, &answer) == MX_MISSING);
    CU_ASSERT(find(cache, SPAN("no.example"), 59, &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_NO_DOMAIN);
    CU_ASSERT(find(cache, SPAN("no.example"), 60, &answer) == MX_MISSING);
    mx_cache_trim(cache, at_s(60 + STALE_MAX_S - 1), 10);
    CU_ASSERT(mx_cache_count_xcore(cache) == 2 || mx_cache_count_xcore(cache) == 1);
    mx_cache_trim(cache, at_s(60 + STALE_MAX_S), 10);
    CU_ASSERT(mx_cache_count_xcore(cache) == 0);
    mx_cache_destroy(cache);
}

/* A failed refresh keeps the old answer in use for its time, but not beyond. */
static void test_failures(void)
{
    struct mx_cache *cache = create(10);
    const struct mx_answer *answer;
    struct span name = SPAN("a.example");
    put(cache, name, 1, 0, 60);
    CU_ASSERT(mx_cache_put_failure(cache, MX_KIND_MAIL, name, at_s(70), at_s(80)) == 0);
    CU_ASSERT(find(cache, name, 79, &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_OK);
    CU_ASSERT(answer->hosts_count == 2);
    CU_ASSERT(span_equal(mx_host_name(answer, &answer->hosts[0]), SPAN("mx1.example")));
    CU_ASSERT(find(cache, name, 80, &answer) == MX_STALE);
    CU_ASSERT(mx_cache_put_failure(cache, MX_KIND_MAIL, name, at_s(155), at_s(165)) == 0);
    CU_ASSERT_FATAL(find(cache, name, 159, &answer) == MX_FRESH);
    CU_ASSERT(answer->expires.ns == 160 * NS_PER_S);
    CU_ASSERT(find(cache, name, 160, &answer) == MX_MISSING);
    CU_ASSERT(mx_cache_put_failure(cache, MX_KIND_MAIL, name, at_s(160), at_s(170)) == 0);
    CU_ASSERT(find(cache, name, 160, &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_TEMPORARY);
    CU_ASSERT(answer->hosts_count == 0);
    CU_ASSERT(find(cache, name, 170, &answer) == MX_MISSING);
    put(cache, name, 2, 170, 200);
    CU_ASSERT(find(cache, name, 170, &answer) == MX_FRESH);
    CU_ASSERT(answer->site_key == 2);
    mx_cache_destroy(cache);
}

/* The oldest expiry leaves first; the newcomer never; a replacement pushes nobody out. */
static void test_eviction(void)
{
    struct mx_cache *cache = create(3);
    const struct mx_answer *answer;
    put(cache, SPAN("b"), 2, 0, 200);
    put(cache, SPAN("a"), 1, 0, 100);
    put(cache, SPAN("c"), 3, 0, 300);
    put(cache, SPAN("b"), 4, 0, 50);
    CU_ASSERT(mx_cache_evictions_count(cache) == 0);
    put(cache, SPAN("d"), 5, 0, 10);
    CU_ASSERT(mx_cache_evictions_count(cache) == 1);
    CU_ASSERT(find(cache, SPAN("b"), 0, &answer) == MX_MISSING);
    CU_ASSERT(find(cache, SPAN("d"), 0, &answer) == MX_FRESH);
    put(cache, SPAN("e"), 6, 0, 20);
    CU_ASSERT(find(cache, SPAN("d"), 0, &answer) == MX_MISSING);
    CU_ASSERT(find(cache, SPAN("a"), 0, &answer) == MX_FRESH);
    CU_ASSERT(find(cache, SPAN("c"), 0, &answer) == MX_FRESH);
    CU_ASSERT(mx_cache_count_xcore(cache) == 3);
    mx_cache_destroy(cache);
}

/* Against a plain array: what is evicted is always a minimum of the expiries. */
static void test_eviction_seeded(void)
{
    enum { NAMES = 64, PLACES = 20 };
    struct mx_cache *cache = create(PLACES);
    int64_t expires_s[NAMES] = {0}; /* 0: not there */
    struct random random;
    random_init_seed(&random, 3);
    for (unsigned round = 0; round < 5000; round++) {
        char text[8];
        struct writer writer = writer_of(text, sizeof(text));
        unsigned index = random_below(&random, NAMES);
        writer_put_format(&writer, "n%u", index);
        int64_t until_s = 1 + random_below(&random, 1000);
        uint64_t evictions_before = mx_cache_evictions_count(cache);
        put(cache, writer_span(&writer), index, 0, until_s);
        int64_t least_s = INT64_MAX, gone_s = 0;
        for (unsigned i = 0; i < NAMES; i++) {
            if (expires_s[i] > 0 && i != index && expires_s[i] < least_s) {
                least_s = expires_s[i];
            }
        }
        bool is_known = expires_s[index] > 0;
        expires_s[index] = until_s;
        for (unsigned i = 0; i < NAMES; i++) {
            const struct mx_answer *answer;
            struct writer other = writer_of(text, sizeof(text));
            writer_put_format(&other, "n%u", i);
            if (expires_s[i] > 0 && find(cache, writer_span(&other), 0, &answer) == MX_MISSING) {
                ensure(gone_s == 0);
                gone_s = expires_s[i];
                expires_s[i] = 0;
            }
        }
        bool has_evicted = mx_cache_evictions_count(cache) > evictions_before;
        ensure(has_evicted == (gone_s > 0));
        ensure(!has_evicted || (gone_s == least_s && !is_known));
        ensure(mx_cache_count_xcore(cache) <= PLACES);
        mx_cache_reclaim(cache);
    }
    CU_ASSERT(mx_cache_evictions_count(cache) > 1000);
    mx_cache_destroy(cache);
}

static void test_outcome_names(void)
{
    for (unsigned i = 0; i < MX_OUTCOMES_COUNT; i++) {
        CHECK_ROW(i, mx_outcome_name((enum mx_outcome)i) != NULL);
        for (unsigned j = 0; j < i; j++) {
            CHECK_ROW(i, strcmp(mx_outcome_name((enum mx_outcome)i),
                                mx_outcome_name((enum mx_outcome)j)) != 0);
        }
    }
    CHECK_PANICS((void)mx_outcome_name((enum mx_outcome)MX_OUTCOMES_COUNT));
    CHECK_PANICS((void)mx_cache_create(0, 0, 0, NULL));
}

enum { THREAD_NAMES = 16, THREAD_ROUNDS = 3000, READERS = 2 };

static struct mx_cache *shared;
static _Atomic bool is_over;
static _Atomic unsigned reads_count;

static struct span thread_name(unsigned index)
{
    static const char NAMES[THREAD_NAMES][2] = {"a", "b", "c", "d", "e", "f", "g", "h",
                                                "i", "j", "k", "l", "m", "n", "o", "p"};
    return span_of(NAMES[index], 1);
}

/* An answer must be whole: every host carries the number that the site key has. */
static void check_answer(const struct mx_answer *answer)
{
    for (unsigned i = 0; i < answer->hosts_count; i++) {
        ensure(answer->hosts[i].addr.bytes[3] == (uint8_t)answer->site_key);
    }
    ensure(answer->names_size == answer->site_name_size);
    ensure(memcmp(answer->names, answer->site_name, answer->names_size) == 0);
}

/* A reader's step looks several answers up and uses them all at its end. */
static void *read_answers(void *argument)
{
    struct random random;
    random_init_seed(&random, (uint64_t)(uintptr_t)argument);
    urcu_qsbr_register_thread();
    while (!atomic_load(&is_over)) {
        const struct mx_answer *answers[4];
        for (unsigned i = 0; i < 4; i++) {
            (void)mx_cache_find_xcore(shared, MX_KIND_MAIL,
                                      thread_name(random_below(&random, THREAD_NAMES)), at_s(0),
                                      &answers[i]);
        }
        for (unsigned i = 0; i < 4; i++) {
            if (answers[i] != NULL) {
                check_answer(answers[i]);
                (void)atomic_fetch_add(&reads_count, 1);
            }
        }
        ORDER_RELEASE(shared); /* P2 of mx_cache.c: the report is inside liburcu */
        urcu_qsbr_quiescent_state();
    }
    urcu_qsbr_unregister_thread();
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[READERS];
    struct random random;
    random_init_seed(&random, 4);
    shared = create(THREAD_NAMES - 4);
    urcu_qsbr_register_thread();
    for (uintptr_t i = 0; i < READERS; i++) {
        CU_ASSERT_FATAL(pthread_create(&threads[i], NULL, read_answers, (void *)(i + 10)) == 0);
    }
    /* Both sides must have had their turn, whatever the scheduler does. */
    for (unsigned round = 0; round < THREAD_ROUNDS || atomic_load(&reads_count) < 1000; round++) {
        put(shared, thread_name(random_below(&random, THREAD_NAMES)), random_below(&random, 255), 0,
            1 + random_below(&random, 1000));
        if (mx_cache_retired_count(shared) >= 32) {
            mx_cache_reclaim(shared);
        }
        urcu_qsbr_quiescent_state();
    }
    atomic_store(&is_over, true);
    urcu_qsbr_thread_offline();
    for (unsigned i = 0; i < READERS; i++) {
        CU_ASSERT(pthread_join(threads[i], NULL) == 0);
    }
    urcu_qsbr_thread_online();
    mx_cache_destroy(shared);
    urcu_qsbr_unregister_thread();
}

SUITE(mx_cache, test_put_find, test_replace, test_life, test_failures, test_eviction,
      test_eviction_seeded, test_outcome_names, test_threads)
