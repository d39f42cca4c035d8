/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/site.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include "engine/base/list.h"
#include "engine/config.h"
#include "tests/harness.h"

enum { THREADS = 4 };

static const int64_t HOUR_NS = 3600 * NS_PER_S;

static const struct mono_time NOW = {.ns = INT64_C(1000) * 1000000000};

static struct mono_time later(int64_t seconds)
{
    return (struct mono_time){.ns = NOW.ns + seconds * NS_PER_S};
}

static void run_threads(void *(*run)(void *), void *arguments, size_t argument_size)
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        void *argument = (char *)arguments + i * argument_size;
        ensure(pthread_create(&threads[i], NULL, run, argument) == 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        ensure(pthread_join(threads[i], NULL) == 0);
    }
}

/* Limits. */

static void test_limit_counts(void)
{
    struct limit limit;
    limit_init(&limit, 3);
    for (uint32_t i = 0; i < 3; i++) {
        CHECK_ROW(i, limit_take_xcore(&limit));
        CHECK_ROW(i, limit_count_xcore(&limit) == i + 1);
    }
    CU_ASSERT_FALSE(limit_take_xcore(&limit));
    CU_ASSERT_EQUAL(limit_count_xcore(&limit), 3);
    limit_give_xcore(&limit);
    CU_ASSERT(limit_take_xcore(&limit));
    for (uint32_t i = 0; i < 3; i++) {
        limit_give_xcore(&limit);
    }
    CU_ASSERT_EQUAL(limit_count_xcore(&limit), 0);
    CHECK_PANICS(limit_give_xcore(&limit));
    CHECK_PANICS(limit_init(&limit, 0));
}

static void test_waiters_come_home_at_the_next_give(void)
{
    struct limit limit;
    struct waker waker;
    struct inbox homes[2];
    struct limit_waiter waiters[2];
    ensure(waker_init(&waker, false) == 0);
    limit_init(&limit, 1);
    CU_ASSERT(limit_take_xcore(&limit));
    CU_ASSERT_FALSE(limit_is_wanted_xcore(&limit));
    for (size_t i = 0; i < 2; i++) {
        inbox_init(&homes[i], &waker);
        waiters[i].home = &homes[i];
        limit_wait_xcore(&limit, &waiters[i]);
    }
    CU_ASSERT(limit_is_wanted_xcore(&limit));
    CU_ASSERT(inbox_is_empty(&homes[0]));
    limit_give_xcore(&limit);
    CU_ASSERT_FALSE(limit_is_wanted_xcore(&limit));
    for (size_t i = 0; i < 2; i++) {
        CHECK_ROW(i, inbox_take(&homes[i]) == &waiters[i].node);
        CHECK_ROW(i, inbox_take(&homes[i]) == NULL);
    }
}

/* One worker of the crowd below: takes, holds, gives; waits when refused, and goes on only when its
 * waiter has come home. */
struct crowd {
    struct limit limit;
    _Atomic uint32_t held;
    _Atomic uint32_t held_max;
    _Atomic uint32_t refused;
};

struct member {
    struct crowd *crowd;
    struct waker waker;
    struct inbox home;
    struct limit_waiter waiter;
    uint64_t rounds;
};

enum { CROWD_MAX = 2, CROWD_ROUNDS = 20000 };

static void hold_one(struct crowd *crowd)
{
    uint32_t held = atomic_fetch_add(&crowd->held, 1) + 1;
    uint32_t most = atomic_load(&crowd->held_max);
    while (held > most && !atomic_compare_exchange_weak(&crowd->held_max, &most, held)) {
    }
    (void)atomic_fetch_sub(&crowd->held, 1);
    limit_give_xcore(&crowd->limit);
}

static void *member_run(void *argument)
{
    struct member *member = argument;
    struct crowd *crowd = member->crowd;
    bool is_away = false;
    while (member->rounds < CROWD_ROUNDS) {
        bool is_taken = limit_take_xcore(&crowd->limit);
        if (!is_taken && !is_away) {
            is_away = true;
            limit_wait_xcore(&crowd->limit, &member->waiter);
            is_taken = limit_take_xcore(&crowd->limit);
        }
        if (is_taken) {
            hold_one(crowd);
            member->rounds++;
        } else {
            (void)atomic_fetch_add(&crowd->refused, 1);
            while (inbox_is_empty(&member->home)) {
                (void)sched_yield(); /* a waiter that never came home would hang the test here */
            }
        }
        struct inbox_node *node = inbox_take(&member->home);
        ensure(node == NULL || node == &member->waiter.node);
        is_away = is_away && node == NULL;
    }
    while (is_away && inbox_take(&member->home) == NULL) {
        (void)sched_yield();
    }
    return NULL;
}

static void test_limit_is_exact_and_waiters_come_home_over_threads(void)
{
    struct crowd crowd = {.held = 0};
    struct member members[THREADS] = {0};
    limit_init(&crowd.limit, CROWD_MAX);
    for (size_t i = 0; i < THREADS; i++) {
        members[i].crowd = &crowd;
        ensure(waker_init(&members[i].waker, false) == 0);
        inbox_init(&members[i].home, &members[i].waker);
        members[i].waiter.home = &members[i].home;
    }
    run_threads(member_run, members, sizeof(members[0]));
    CU_ASSERT(atomic_load(&crowd.held_max) <= CROWD_MAX);
    CU_ASSERT_EQUAL(limit_count_xcore(&crowd.limit), 0);
    CU_ASSERT_FALSE(limit_is_wanted_xcore(&crowd.limit));
    for (size_t i = 0; i < THREADS; i++) {
        CHECK_ROW(i, members[i].rounds == CROWD_ROUNDS);
    }
}

/* Rate. */

static struct config_route route_with_rate(uint64_t rate_per_hour, uint32_t burst)
{
    return (struct config_route){.connections_max = 20,
                                 .rate_per_hour = rate_per_hour,
                                 .rate_burst = burst,
                                 .suspend_first_s = 60,
                                 .suspend_max_s = 900};
}

static void test_no_rate_is_no_limit(void)
{
    struct config_route route = route_with_rate(0, 1);
    struct site site = {.route = &route};
    struct mono_time next = {.ns = 5};
    for (uint32_t i = 0; i < 100000; i++) {
        ensure(site_rate_room_xcore(&site, (struct mono_time){.ns = 1}, &next) == UINT32_MAX);
        ensure(site_rate_take_xcore(&site, 100, (struct mono_time){.ns = 1}, &next));
    }
    CU_ASSERT_EQUAL(next.ns, 5);
}

/* At once: the burst; then one each interval; the time told is the very first at which one may go.
 */
static void test_rate_by_hand(void)
{
    static const struct {
        uint64_t rate_per_hour;
        uint32_t burst;
    } ROWS[] = {{1, 1}, {3600, 1}, {3600, 10}, {400000, 100}, {3600000000, 5}, {7, 3}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct config_route route = route_with_rate(ROWS[i].rate_per_hour, ROWS[i].burst);
        struct site site = {.route = &route};
        struct mono_time now = {.ns = 12345678}, next;
        for (uint32_t taken = 0; taken < ROWS[i].burst; taken++) {
            CHECK_ROW(i, site_rate_room_xcore(&site, now, &next) == ROWS[i].burst - taken);
            CHECK_ROW(i, site_rate_take_xcore(&site, 1, now, &next));
        }
        for (uint32_t round = 0; round < 50; round++) {
            CHECK_ROW(i, !site_rate_take_xcore(&site, 1, now, &next));
            CHECK_ROW(i, next.ns > now.ns);
            struct mono_time before = {.ns = next.ns - 1}, unused, told;
            CHECK_ROW(i, !site_rate_take_xcore(&site, 1, before, &unused));
            CHECK_ROW(i, site_rate_room_xcore(&site, before, &told) == 0);
            CHECK_ROW(i, told.ns == next.ns);
            now = next;
            CHECK_ROW(i, site_rate_room_xcore(&site, now, &told) == 1);
            CHECK_ROW(i, site_rate_take_xcore(&site, 1, now, &next));
        }
    }
}

/* An idle hour saves up the burst and no more. */
static void test_idle_rate_saves_the_burst_only(void)
{
    struct config_route route = route_with_rate(3600, 10);
    struct site site = {.route = &route};
    struct mono_time now = {.ns = 1}, next;
    for (uint32_t hour = 0; hour < 3; hour++) {
        uint32_t taken = 0;
        while (site_rate_take_xcore(&site, 1, now, &next)) {
            taken++;
        }
        CHECK_ROW(hour, taken == 10);
        now.ns += HOUR_NS;
    }
}

/* A transaction of many recipients goes whole and is paid for afterwards. */
static void test_rate_of_groups(void)
{
    struct config_route route = route_with_rate(3600, 1);
    struct site site = {.route = &route};
    struct mono_time now = {.ns = 1000}, next;
    CU_ASSERT(site_rate_take_xcore(&site, 50, now, &next));
    CU_ASSERT_FALSE(site_rate_take_xcore(&site, 1, now, &next));
    CU_ASSERT_EQUAL(next.ns, now.ns + 50 * NS_PER_S);
    CU_ASSERT(site_rate_take_xcore(&site, 1, next, &next));
}

/* However odd the rate: never more than it in any span from the start. */
static void test_rate_never_exceeded(void)
{
    static const uint64_t RATES[] = {3500000001, 3599999999, 2999999999, 700000, 999983};
    for (size_t i = 0; i < COUNT_OF(RATES); i++) {
        struct config_route route = route_with_rate(RATES[i], 1);
        struct site site = {.route = &route};
        struct mono_time now = {.ns = 0}, next = {.ns = 0};
        uint64_t taken = 0;
        while (taken < 200000) {
            now = next;
            ensure(site_rate_take_xcore(&site, 1, now, &next));
            taken++;
            ensure(!site_rate_take_xcore(&site, 1, now, &next));
        }
        __int128 allowed = (__int128)RATES[i] * now.ns / HOUR_NS + 1;
        CHECK_ROW(i, (__int128)taken <= allowed);
        CHECK_ROW(i, (__int128)taken * 1001 >= allowed * 999); /* and nearly all of it is given */
    }
}

enum { RATE_ROUNDS = 300, RATE_BURST = 20 };

struct spender {
    struct site *site;
    const _Atomic int64_t *now_ns;
    pthread_barrier_t *barrier;
    uint64_t taken;
};

static void *spender_run(void *argument)
{
    struct spender *spender = argument;
    for (uint32_t round = 0; round < RATE_ROUNDS; round++) {
        (void)pthread_barrier_wait(spender->barrier);
        struct mono_time now = {.ns = atomic_load(spender->now_ns)}, next;
        while (site_rate_take_xcore(spender->site, 1, now, &next)) {
            spender->taken++;
        }
        (void)pthread_barrier_wait(spender->barrier);
    }
    return NULL;
}

/* N takes in T seconds of virtual time <= rate * T + burst, and exactly that when all is asked for.
 */
static void test_rate_is_exact_over_threads(void)
{
    enum { RATE_PER_S = 1000 };
    struct config_route route = route_with_rate(3600 * RATE_PER_S, RATE_BURST);
    struct site site = {.route = &route};
    _Atomic int64_t now_ns = NS_PER_S;
    pthread_barrier_t barrier;
    pthread_t threads[THREADS];
    struct spender spenders[THREADS];
    ensure(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
    for (size_t i = 0; i < THREADS; i++) {
        spenders[i] = (struct spender){.site = &site, .now_ns = &now_ns, .barrier = &barrier};
        ensure(pthread_create(&threads[i], NULL, spender_run, &spenders[i]) == 0);
    }
    struct random random;
    random_init_seed(&random, 7);
    for (uint32_t round = 0; round < RATE_ROUNDS; round++) {
        (void)pthread_barrier_wait(&barrier);
        (void)pthread_barrier_wait(&barrier);
        uint64_t sum = 0;
        for (size_t i = 0; i < THREADS; i++) {
            sum += spenders[i].taken;
        }
        int64_t past_ns = atomic_load(&now_ns) - NS_PER_S;
        CHECK_ROW(round, sum == RATE_BURST + (uint64_t)(past_ns * RATE_PER_S / NS_PER_S));
        /* Less than what fills the bucket: nothing is lost to idleness. */
        atomic_fetch_add(&now_ns, random_below(&random, 19) * NS_PER_MS + 12345);
    }
    for (size_t i = 0; i < THREADS; i++) {
        ensure(pthread_join(threads[i], NULL) == 0);
    }
    (void)pthread_barrier_destroy(&barrier);
}

/* Suspension. */

static void test_suspension_doubles_up_to_its_end(void)
{
    struct config_route route = route_with_rate(0, 1);
    struct site site = {.route = &route};
    struct random random;
    random_init_seed(&random, 3);
    struct mono_time now = {.ns = NS_PER_S};
    static const int64_t RESTS_S[] = {60, 120, 240, 480, 900, 900, 900};
    CU_ASSERT_EQUAL(site_suspended_until_xcore(&site, now).ns, 0);
    for (size_t i = 0; i < COUNT_OF(RESTS_S); i++) {
        site_suspend_xcore(&site, now, &random);
        int64_t until_ns = site_suspended_until_xcore(&site, now).ns;
        CHECK_ROW(i, until_ns <= now.ns + RESTS_S[i] * NS_PER_S);
        CHECK_ROW(i, until_ns >= now.ns + RESTS_S[i] * NS_PER_S * 4 / 5);
        site_suspend_xcore(&site, now, &random); /* of the same failure */
        CHECK_ROW(i, site_suspended_until_xcore(&site, now).ns == until_ns);
        now.ns = until_ns;
        CHECK_ROW(i, site_suspended_until_xcore(&site, now).ns == 0);
    }
    site_suspend_xcore(&site, now, &random);
    site_reached_xcore(&site);
    CU_ASSERT_EQUAL(site_suspended_until_xcore(&site, now).ns, 0);
    site_suspend_xcore(&site, now, &random);
    CU_ASSERT(site_suspended_until_xcore(&site, now).ns <= now.ns + 60 * NS_PER_S);
}

static void test_suspension_many_times(void)
{
    struct config_route route = route_with_rate(0, 1);
    route.suspend_first_s = 86400;
    route.suspend_max_s = 86400;
    struct site site = {.route = &route};
    struct random random;
    random_init_seed(&random, 4);
    struct mono_time now = {.ns = NS_PER_S};
    for (uint32_t i = 0; i < 100; i++) {
        site_suspend_xcore(&site, now, &random);
        struct mono_time until = site_suspended_until_xcore(&site, now);
        CHECK_ROW(i, until.ns > now.ns && until.ns <= now.ns + 86400 * NS_PER_S);
        now = until;
    }
}

struct failing {
    struct site *site;
    pthread_barrier_t *barrier;
    struct mono_time now;
    uint64_t seed;
};

static void *failing_run(void *argument)
{
    struct failing *failing = argument;
    struct random random;
    random_init_seed(&random, failing->seed);
    (void)pthread_barrier_wait(failing->barrier);
    site_suspend_xcore(failing->site, failing->now, &random);
    return NULL;
}

/* All workers that meet the same failure count as one. */
static void test_suspension_counts_once_over_threads(void)
{
    struct config_route route = route_with_rate(0, 1);
    for (uint64_t round = 0; round < 50; round++) {
        struct site site = {.route = &route};
        pthread_barrier_t barrier;
        ensure(pthread_barrier_init(&barrier, NULL, THREADS) == 0);
        struct failing failing[THREADS];
        for (size_t i = 0; i < THREADS; i++) {
            failing[i] = (struct failing){&site, &barrier, {.ns = 1}, round * THREADS + i + 1};
        }
        run_threads(failing_run, failing, sizeof(failing[0]));
        CHECK_ROW(round, atomic_load(&site.suspensions_count) == 1);
        (void)pthread_barrier_destroy(&barrier);
    }
}

/* Holders. */

static void test_holders(void)
{
    struct config_route route = route_with_rate(0, 1);
    struct site site = {.route = &route};
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 0), UINT32_MAX);
    site_hold_xcore(&site, 5, true);
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 0), 5);
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 5), UINT32_MAX);
    site_hold_xcore(&site, 63, true);
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 5), 63);
    site_hold_xcore(&site, 5, false);
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 0), 63);
    site_hold_xcore(&site, 63, false);
    CU_ASSERT_EQUAL(site_holder_xcore(&site, 0), UINT32_MAX);
}

/* The table. */

static void test_table_is_found_made_and_full(void)
{
    struct config_route route = route_with_rate(0, 1);
    int error = 0;
    struct site_table *table = site_table_create(3, &error);
    ensure(table != NULL);
    struct site *sites[3];
    char name[SITE_NAME_MAX + 100];
    memset(name, 'n', sizeof(name));
    for (uint64_t key = 0; key < 3; key++) {
        sites[key] = site_obtain_xcore(table, key, span_of(name, 100 + key * 100), &route, NOW);
        CHECK_ROW(key, sites[key] != NULL && sites[key]->key == key);
        CHECK_ROW(key, sites[key]->name_size == (key < 2 ? 100 + key * 100 : SITE_NAME_MAX));
        CHECK_ROW(key, sites[key]->name[sites[key]->name_size] == '\0');
        CHECK_ROW(key, site_at_xcore(table, sites[key]->index) == sites[key]);
    }
    CU_ASSERT_EQUAL(site_table_count_xcore(table), 3);
    CU_ASSERT_PTR_NULL(site_obtain_xcore(table, 3, SPAN("x"), &route, NOW));
    CU_ASSERT_PTR_NULL(site_obtain_xcore(table, 4, SPAN("x"), &route, NOW));
    CU_ASSERT_EQUAL(site_table_count_xcore(table), 3);
    for (uint64_t key = 0; key < 3; key++) {
        struct span same = span_of(name, 100 + key * 100);
        CHECK_ROW(key, site_obtain_xcore(table, key, same, &route, NOW) == sites[key]);
        /* A key that somebody made for other hosts is not enough. */
        CHECK_ROW(key, site_obtain_xcore(table, key, SPAN("y"), &route, NOW) == NULL);
        CHECK_ROW(key, site_is_of(sites[key], key, same));
        CHECK_ROW(key, !site_is_of(sites[key], key, SPAN("y")));
    }
    CHECK_PANICS((void)site_at_xcore(table, 3));
    site_table_destroy(table);
    site_table_destroy(NULL);
}

enum { KEYS = 2000 };

struct finder {
    struct site_table *table;
    const struct config_route *route;
    uint32_t start;
    struct site *found[KEYS];
};

static void *finder_run(void *argument)
{
    struct finder *finder = argument;
    urcu_qsbr_register_thread();
    for (uint32_t i = 0; i < KEYS; i++) {
        uint64_t key = (finder->start + i) % KEYS;
        finder->found[key] = site_obtain_xcore(finder->table, key * 0x9E3779B97F4A7C15u,
                                               SPAN("site"), finder->route, NOW);
        urcu_qsbr_quiescent_state();
    }
    urcu_qsbr_unregister_thread();
    return NULL;
}

static void test_all_threads_find_the_same_site(void)
{
    struct config_route route = route_with_rate(0, 1);
    int error = 0;
    /* Room for what each lost race leaves unused. */
    struct site_table *table = site_table_create(KEYS * THREADS, &error);
    struct finder *finders = calloc(THREADS, sizeof(*finders));
    ensure(table != NULL);
    ensure(finders != NULL);
    for (size_t i = 0; i < THREADS; i++) {
        finders[i].table = table;
        finders[i].route = &route;
        finders[i].start = (uint32_t)(i / 2 * KEYS / 2); /* two and two run side by side */
    }
    run_threads(finder_run, finders, sizeof(finders[0]));
    for (size_t key = 0; key < KEYS; key++) {
        for (size_t i = 0; i < THREADS; i++) {
            CHECK_ROW(key, finders[i].found[key] != NULL);
            CHECK_ROW(key, finders[i].found[key] == finders[0].found[key]);
        }
    }
    CU_ASSERT(site_table_count_xcore(table) >= KEYS);
    free(finders);
    site_table_destroy(table);
}

/* Sites come back. */

enum { ALL = 1 << 20 }; /* one look is at the whole table */

static struct site_table *table_of(uint32_t sites_max)
{
    int error = 0;
    struct site_table *table = site_table_create(sites_max, &error);
    ensure(table != NULL);
    return table;
}

static struct site *site_of(struct site_table *table, uint64_t key,
                            const struct config_route *route, struct mono_time now)
{
    char name[32];
    int size = snprintf(name, sizeof(name), "mx%llu", (unsigned long long)key);
    return site_obtain_xcore(table, key, span_of(name, (size_t)size), route, now);
}

/* Closed by the first, given by the second. */
static void reclaim(struct site_table *table, struct mono_time now)
{
    site_table_reclaim(table, ALL, now);
    urcu_qsbr_quiescent_state();
    site_table_reclaim(table, ALL, now);
}

static void test_more_sites_than_slots_over_time(void)
{
    struct config_route route = route_with_rate(0, 1);
    struct site_table *table = table_of(16);
    for (uint64_t key = 0; key < 1000; key++) {
        struct mono_time now = later((int64_t)key);
        struct site *site = site_of(table, key, &route, now);
        ensure(site != NULL);
        CHECK_ROW(key, site->key == key);
        CHECK_ROW(key, site_holder_xcore(site, 9) == UINT32_MAX);
        uint32_t generation = site_generation_xcore(site);
        CHECK_ROW(key, site_keep_xcore(site, generation));
        CHECK_ROW(key, site_of(table, key, &route, now) == site);
        site_hold_xcore(site, 2, true);
        site_leave_xcore(site, now);
        CHECK_ROW(key, !site_keep_xcore(site, generation)); /* remembered for too long */
        CHECK_ROW(key, site_of(table, key, &route, now) == site);
        reclaim(table, now);
        CHECK_ROW(key, site_table_used_xcore(table) <= 14);
        CHECK_ROW(key, site_table_need_xcore(table) == SITE_NEED_NONE);
        if (key == 999) {
            CHECK_PANICS(site_leave_xcore(site, now));
        }
    }
    CU_ASSERT_EQUAL(site_table_count_xcore(table), 16);
    site_table_destroy(table);
}

static bool is_known(const struct site *site, uint64_t key)
{
    return site_generation_xcore(site) % 2 == 1 && site->key == key;
}

/* Eight of eight; who was left longest goes first, one at a time. */
static void test_the_longest_left_go_first(void)
{
    struct config_route route = route_with_rate(60, 1);
    struct site_table *table = table_of(8);
    struct site *sites[8];
    struct random random;
    struct mono_time next;
    random_init_seed(&random, 1);
    for (uint64_t key = 0; key < 8; key++) {
        sites[key] = site_of(table, key, &route, later(key == 4 ? 0 : 1 << key));
        ensure(sites[key] != NULL);
    }
    uint32_t generation = site_generation_xcore(sites[2]);
    ensure(site_keep_xcore(sites[2], generation));
    CU_ASSERT(site_rate_take_xcore(sites[3], 60, later(1 << 12), &next));
    site_suspend_xcore(sites[1], later(1 << 12), &random);
    CU_ASSERT_PTR_NULL(site_of(table, 8, &route, later(1 << 12)));
    reclaim(table, later(1 << 12)); /* two of eight are to be free */
    CU_ASSERT_FALSE(is_known(sites[0], 0));
    CU_ASSERT_FALSE(is_known(sites[4], 4));
    for (uint64_t key = 1; key < 8; key++) {
        CHECK_ROW(key, key == 4 || is_known(sites[key], key));
    }
    struct site *kept[2];
    for (uint64_t i = 0; i < 2; i++) {
        kept[i] = site_of(table, 10 + i, &route, later(1 << 12));
        ensure(site_keep_xcore(kept[i], site_generation_xcore(kept[i])));
    }
    for (uint64_t i = 0; i < 2; i++) {
        reclaim(table, later(1 << 12));
        for (uint64_t j = 0; j < 2 && site_table_used_xcore(table) < 8; j++) {
            struct site *site = site_of(table, 20 + 2 * i + j, &route, later(1 << 12));
            ensure(site_keep_xcore(site, site_generation_xcore(site)));
        }
        CHECK_ROW(i, is_known(sites[1], 1) == (i == 0));
    }
    /* All are kept now, but for one: mail is still to be paid for there. */
    CU_ASSERT_PTR_NULL(site_of(table, 30, &route, later(1 << 12)));
    reclaim(table, later(1 << 12));
    CU_ASSERT(is_known(sites[2], 2));
    CU_ASSERT(is_known(sites[3], 3));
    CU_ASSERT_EQUAL(site_table_need_xcore(table), SITE_NEED_LANES);
    CU_ASSERT_PTR_NULL(site_of(table, 30, &route, later(1 << 12)));
    site_table_reclaim(table, ALL, later(1 << 12));
    CU_ASSERT_EQUAL(site_table_need_xcore(table), SITE_NEED_SESSIONS);
    reclaim(table, later((1 << 12) + 3700));
    CU_ASSERT_FALSE(is_known(sites[3], 3));
    CU_ASSERT_PTR_NOT_NULL(site_of(table, 30, &route, later(1 << 13)));
    site_table_destroy(table);
}

/* A part at a time: each closes its share, the longest left of it; and all that is wanted when
 * somebody was refused. The workers are asked for nothing before all have been looked at. */
static void test_a_look_is_at_a_part(void)
{
    enum { SLOTS = 64, PART = 16 };
    struct config_route route = route_with_rate(0, 1);
    struct site_table *table = table_of(SLOTS);
    struct site *sites[SLOTS];
    for (uint64_t key = 0; key < SLOTS; key++) {
        sites[key] = site_of(table, key, &route, later(key % PART == 3 ? 0 : 1 << 12));
        ensure(sites[key] != NULL);
    }
    for (uint64_t part = 0; part < SLOTS / PART; part++) {
        uint32_t used = site_table_used_xcore(table);
        site_table_reclaim(table, PART, later(1 << 13));
        CHECK_ROW(part, !is_known(sites[part * PART + 3], part * PART + 3));
        CHECK_ROW(part, site_table_used_xcore(table) + 3 >= used); /* those of the look before */
        CHECK_ROW(part, site_table_need_xcore(table) == SITE_NEED_NONE);
    }
    for (uint32_t i = 0; i < 4 * SLOTS / PART; i++) {
        site_table_reclaim(table, PART, later(1 << 13));
    }
    CU_ASSERT_EQUAL(site_table_used_xcore(table), SLOTS - SLOTS / 8 - 1);
    /* All are kept. */
    uint64_t key = 1000;
    struct site *site;
    while ((site = site_of(table, key++, &route, later(1 << 13))) != NULL) {
        ensure(site_keep_xcore(site, site_generation_xcore(site)));
    }
    for (uint32_t i = 0; i < SLOTS; i++) {
        uint32_t generation = site_generation_xcore(sites[i]);
        (void)(is_known(sites[i], i) && site_keep_xcore(sites[i], generation));
    }
    while (site_table_need_xcore(table) == SITE_NEED_NONE) {
        site_table_reclaim(table, PART, later(1 << 13));
    }
    CU_ASSERT_EQUAL(site_table_need_xcore(table), SITE_NEED_SESSIONS);
    /* One is left, and it is wanted. */
    site_leave_xcore(sites[SLOTS - 1], later(1 << 13));
    CU_ASSERT_PTR_NULL(site_of(table, key, &route, later(1 << 13)));
    for (uint32_t i = 0; i < SLOTS / PART + 1; i++) {
        site_table_reclaim(table, PART, later(1 << 13));
    }
    CU_ASSERT_FALSE(is_known(sites[SLOTS - 1], SLOTS - 1));
    CU_ASSERT_PTR_NOT_NULL(site_of(table, key, &route, later(1 << 13)));
    site_table_destroy(table);
}

enum { TURNOVER_KEYS = 200, TURNOVER_SLOTS = 24, TURNOVER_ROUNDS = 20000 };

struct turnover {
    struct site_table *table;
    const struct config_route *route;
    _Atomic uint32_t *running;
    uint32_t index;
    uint32_t served;
};

static void turnover_use(struct turnover *turnover, uint64_t key)
{
    struct site *site = site_of(turnover->table, key, turnover->route, NOW);
    if (site == NULL || !site_keep_xcore(site, site_generation_xcore(site))) {
        return;
    }
    /* It may have been closed, and not be known by its key, before it was kept, but not since. */
    urcu_qsbr_quiescent_state();
    ensure(site->key == key);
    ensure(site_of(turnover->table, key, turnover->route, NOW) == site);
    site_count_lane_xcore(site, true);
    if (limit_take_xcore(&site->connections)) {
        ensure(limit_count_xcore(&site->connections) <= turnover->route->connections_max);
        limit_give_xcore(&site->connections);
    }
    site_count_lane_xcore(site, false);
    site_leave_xcore(site, NOW);
    turnover->served++;
}

static void *turnover_run(void *argument)
{
    struct turnover *turnover = argument;
    struct random random;
    random_init_seed(&random, turnover->index + 1);
    urcu_qsbr_register_thread();
    if (turnover->index == 0) {
        while (atomic_load(turnover->running) > 0) {
            site_table_reclaim(turnover->table, TURNOVER_SLOTS / 3, later(100));
            urcu_qsbr_synchronize_rcu();
        }
    } else {
        for (uint32_t i = 0; i < TURNOVER_ROUNDS || turnover->served < TURNOVER_KEYS; i++) {
            turnover_use(turnover, random_below(&random, TURNOVER_KEYS));
            urcu_qsbr_quiescent_state();
        }
        atomic_fetch_sub(turnover->running, 1);
    }
    urcu_qsbr_unregister_thread();
    return NULL;
}

/* One reclaims while the others use many more sites than there are slots. */
static void test_sites_turn_over_between_threads(void)
{
    struct config_route route = route_with_rate(0, 1);
    struct site_table *table = table_of(TURNOVER_SLOTS);
    _Atomic uint32_t running = THREADS - 1;
    struct turnover turnovers[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        turnovers[i] = (struct turnover){table, &route, &running, i, 0};
    }
    urcu_qsbr_thread_offline();
    run_threads(turnover_run, turnovers, sizeof(turnovers[0]));
    urcu_qsbr_thread_online();
    /* None was lost: all can be had at once. */
    for (uint64_t round = 0; round < TURNOVER_SLOTS; round++) {
        reclaim(table, later(200));
        for (uint64_t i = 0; i < 2; i++) {
            struct site *site = site_of(table, 1000 + 2 * round + i, &route, later(300));
            CHECK_ROW(round, (site != NULL) == (2 * round + i < TURNOVER_SLOTS));
            ensure(site == NULL || site_keep_xcore(site, site_generation_xcore(site)));
        }
    }
    site_table_destroy(table);
}

/* liburcu's tables are called from registered threads only. */
static void test_begin(void)
{
    urcu_qsbr_register_thread();
}

static void test_end(void)
{
    urcu_qsbr_unregister_thread();
}

SUITE(site, test_limit_counts, test_waiters_come_home_at_the_next_give,
      test_limit_is_exact_and_waiters_come_home_over_threads, test_no_rate_is_no_limit,
      test_rate_by_hand, test_idle_rate_saves_the_burst_only, test_rate_of_groups,
      test_rate_never_exceeded, test_rate_is_exact_over_threads,
      test_suspension_doubles_up_to_its_end, test_suspension_many_times,
      test_suspension_counts_once_over_threads, test_holders, test_begin,
      test_table_is_found_made_and_full, test_all_threads_find_the_same_site,
      test_more_sites_than_slots_over_time, test_the_longest_left_go_first,
      test_a_look_is_at_a_part, test_sites_turn_over_between_threads, test_end)
