/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/retry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/base/list.h"
#include "engine/base/random.h"
#include "tests/harness.h"

enum { START_S = 1800000000, DAY_S = 86400 };

static struct recipient *chain_take(struct inbox_chain *chain)
{
    struct inbox_node *node = inbox_chain_take(chain);
    return node == NULL ? NULL : CONTAINER_OF(node, struct recipient, node);
}

static void push_due(struct retry_wheel *wheel, struct recipient *recipient, uint32_t due_s)
{
    recipient->due_s = due_s;
    retry_push_xcore(wheel, recipient);
}

/* What a worker does: takes until nothing is due, pushes again what came too early. Returns how
 * many were due; `ret_last` is one of them. */
static uint32_t take_due(struct retry_wheel *wheel, uint32_t now_s, struct recipient **ret_last)
{
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    uint32_t count = 0;
    while (retry_take_xcore(wheel, now_s, &chain)) {
        struct recipient *recipient;
        while ((recipient = chain_take(&chain)) != NULL) {
            if (recipient->due_s > now_s) {
                retry_push_xcore(wheel, recipient);
            } else {
                *ret_last = recipient;
                count++;
            }
        }
    }
    return count;
}

/* Offsets at and around each edge of the wheel: found in their second, not before. */
static void test_each_distance(void)
{
    static const uint32_t OFFSETS[] = {
        1,         2,          1023,        1024,        1025,        2047,
        2048,      2049,       3071,        3072,        DAY_S,       5 * DAY_S,
        7 * DAY_S, 12 * DAY_S, 1025 * 1024, 1026 * 1024, 1027 * 1024, 40 * DAY_S,
    };
    for (size_t i = 0; i < COUNT_OF(OFFSETS); i++) {
        for (uint32_t shift = 0; shift < 3; shift++) {
            uint32_t start_s = START_S / 1024 * 1024 + shift * 1023 / 2;
            struct retry_wheel *wheel = retry_wheel_create(start_s);
            struct recipient recipient = {0}, *got = NULL;
            push_due(wheel, &recipient, start_s + OFFSETS[i]);
            uint32_t next_s, rounds = 0;
            while ((next_s = retry_next_due_xcore(wheel, start_s)) < start_s + OFFSETS[i]) {
                CHECK_ROW(i, take_due(wheel, next_s, &got) == 0);
                ensure(++rounds < 100);
            }
            CHECK_ROW(i, next_s == start_s + OFFSETS[i]);
            CHECK_ROW(i, take_due(wheel, start_s + OFFSETS[i] - 1, &got) == 0);
            CHECK_ROW(i, take_due(wheel, start_s + OFFSETS[i], &got) == 1);
            CHECK_ROW(i, got == &recipient);
            CHECK_ROW(i, retry_next_due_xcore(wheel, start_s) == UINT32_MAX);
            retry_wheel_destroy(wheel, false);
        }
    }
}

static void test_past_is_taken_at_once(void)
{
    struct retry_wheel *wheel = retry_wheel_create(START_S);
    struct recipient recipients[3] = {0}, *got;
    push_due(wheel, &recipients[0], 0);
    push_due(wheel, &recipients[1], START_S - 1);
    push_due(wheel, &recipients[2], START_S);
    CU_ASSERT_EQUAL(retry_count_xcore(wheel), 3);
    CU_ASSERT_EQUAL(retry_next_due_xcore(wheel, START_S), START_S);
    CU_ASSERT_EQUAL(take_due(wheel, START_S, &got), 3);
    CU_ASSERT_EQUAL(retry_count_xcore(wheel), 0);
    retry_wheel_destroy(wheel, false);
}

/* One take hands out a bounded number, behind what the chain holds; the rest is not forgotten. */
static void test_big_slot_comes_in_parts(void)
{
    enum { MANY = 3 * RETRY_TAKE_MAX + 7 };
    struct retry_wheel *wheel = retry_wheel_create(START_S);
    struct recipient *recipients = calloc(MANY, sizeof(*recipients));
    ensure(recipients != NULL);
    for (size_t i = 0; i < MANY; i++) {
        push_due(wheel, &recipients[i], START_S + 5);
    }
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    CU_ASSERT_FALSE(retry_take_xcore(wheel, START_S + 4, &chain));
    for (uint32_t part = 1; part <= 4; part++) {
        CU_ASSERT(retry_take_xcore(wheel, START_S + 5, &chain));
        uint32_t want = part * RETRY_TAKE_MAX < MANY ? part * RETRY_TAKE_MAX : MANY;
        CHECK_ROW(part, chain.count == want);
        CHECK_ROW(part, retry_count_xcore(wheel) == MANY - want);
        CHECK_ROW(part, retry_next_due_xcore(wheel, START_S + 5) ==
                            (part < 4 ? START_S + 5 : UINT32_MAX));
    }
    CU_ASSERT_FALSE(retry_take_xcore(wheel, START_S + 5, &chain));
    retry_wheel_destroy(wheel, false);
    free(recipients);
}

static void test_sweep_finds_all(void)
{
    enum { MANY = 20000 };
    struct retry_wheel *wheel = retry_wheel_create(START_S);
    struct recipient *recipients = calloc(MANY, sizeof(*recipients));
    ensure(recipients != NULL);
    struct random random;
    random_init_seed(&random, 31);
    for (size_t i = 0; i < MANY; i++) {
        push_due(wheel, &recipients[i], START_S - 5 + random_below(&random, 14 * DAY_S));
    }
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    /* Leaves rests behind. */
    CU_ASSERT(retry_take_xcore(wheel, START_S + 3 * DAY_S, &chain));
    for (uint32_t slot = 0; slot < RETRY_SLOTS; slot++) {
        uint32_t before = chain.count;
        bool has_any = retry_sweep_xcore(wheel, slot, &chain);
        CHECK_ROW(slot, has_any == (chain.count > before));
    }
    CU_ASSERT_EQUAL(chain.count, MANY);
    CU_ASSERT_EQUAL(retry_next_due_xcore(wheel, START_S), UINT32_MAX);
    retry_wheel_destroy(wheel, false);
    free(recipients);
}

static void test_clock_set_back(void)
{
    struct retry_wheel *wheel = retry_wheel_create(START_S);
    struct recipient recipient = {0}, *got;
    CU_ASSERT_EQUAL(take_due(wheel, START_S - 1, &got), 0);
    push_due(wheel, &recipient, START_S - 3000);
    /* A little behind: waits; far behind: the hand follows, and the wheel counts from there. */
    CU_ASSERT_EQUAL(take_due(wheel, START_S - RETRY_CLOCK_SLACK_S, &got), 0);
    CU_ASSERT_EQUAL(take_due(wheel, START_S - 4000, &got), 0);
    CU_ASSERT_EQUAL(take_due(wheel, START_S - 3001, &got), 0);
    CU_ASSERT_EQUAL(take_due(wheel, START_S - 3000, &got), 1);
    push_due(wheel, &recipient, START_S + 1);
    CU_ASSERT_EQUAL(take_due(wheel, START_S - 20 * DAY_S, &got), 0);
    CU_ASSERT_EQUAL(take_due(wheel, START_S, &got), 0);
    CU_ASSERT_EQUAL(take_due(wheel, START_S + 1, &got), 1);
    retry_wheel_destroy(wheel, false);
}

/* Random pushes and steps of the clock, some of them long, against a list of due times: at every
 * look exactly those are handed out that are due. */
static void model_round(uint64_t seed)
{
    enum { MANY = 400 };
    struct random random;
    random_init_seed(&random, seed);
    uint32_t now_s = START_S + random_below(&random, 5000);
    struct retry_wheel *wheel = retry_wheel_create(now_s);
    struct recipient recipients[MANY] = {0};
    bool is_in[MANY] = {false};
    static const uint32_t REACH[] = {3, 100, 1100, 2100, 5000, DAY_S, 13 * DAY_S, 30 * DAY_S};
    for (int step = 0; step < 3000; step++) {
        for (uint32_t n = random_below(&random, 5); n > 0; n--) {
            uint32_t i = random_below(&random, MANY);
            if (!is_in[i]) {
                uint32_t reach = REACH[random_below(&random, COUNT_OF(REACH))];
                push_due(wheel, &recipients[i], now_s - 2 + random_below(&random, reach));
                is_in[i] = true;
            }
        }
        uint32_t next_s = retry_next_due_xcore(wheel, now_s);
        uint32_t kind = random_below(&random, 1000);
        if (kind < 600) {
            now_s += 1;
        } else if (kind < 900) {
            now_s += random_below(&random, REACH[random_below(&random, 6)]);
        } else if (kind < 901) {
            now_s += random_below(&random, 20 * DAY_S);
        } else if (next_s != UINT32_MAX && next_s > now_s) {
            now_s = next_s;
        }
        uint32_t want = 0, inside = 0, earliest_s = UINT32_MAX;
        for (size_t i = 0; i < MANY; i++) {
            want += is_in[i] && recipients[i].due_s <= now_s;
            inside += is_in[i] && recipients[i].due_s > now_s;
            if (is_in[i] && recipients[i].due_s > now_s && recipients[i].due_s < earliest_s) {
                earliest_s = recipients[i].due_s;
            }
            is_in[i] = is_in[i] && recipients[i].due_s > now_s;
        }
        struct recipient *got;
        CHECK_ROW((size_t)step, take_due(wheel, now_s, &got) == want);
        CHECK_ROW((size_t)step, retry_count_xcore(wheel) == inside);
        next_s = retry_next_due_xcore(wheel, now_s);
        CHECK_ROW((size_t)step, next_s <= earliest_s);
        CHECK_ROW((size_t)step, (next_s == UINT32_MAX) == (inside == 0));
        CHECK_ROW((size_t)step, next_s > now_s);
    }
    retry_wheel_destroy(wheel, true);
}

static void test_against_model(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        model_round(seed);
    }
}

/*
 * Four workers on one wheel whose clock runs as fast as they do, so that pushes meet the moving
 * hand all the time. Each recipient is deferred TURNS times; none may be lost, doubled, or early.
 */
enum { WORKERS = 4, CROWD = 4000, TURNS = 40 };

struct crowd {
    struct retry_wheel *wheel;
    _Atomic uint32_t now_s;
    _Atomic uint64_t left;
    struct recipient recipients[CROWD];
    _Atomic uint32_t holders[CROWD];
};

struct crowd_worker {
    struct crowd *crowd;
    struct random random;
    uint64_t early;
};

static uint32_t crowd_delay_s(struct random *random)
{
    uint32_t kind = random_below(random, 100);
    return kind < 70   ? random_below(random, 4)
           : kind < 95 ? random_below(random, 3000)
                       : random_below(random, DAY_S);
}

static void crowd_got(struct crowd_worker *worker, struct recipient *recipient, uint32_t now_s)
{
    struct crowd *crowd = worker->crowd;
    size_t i = (size_t)(recipient - crowd->recipients);
    /* Only its owner may hold it (LAW 7). */
    ensure(atomic_fetch_add(&crowd->holders[i], 1) == 0);
    if (recipient->due_s > now_s) {
        worker->early++;
    } else if (++recipient->attempts_count == TURNS) {
        atomic_fetch_sub(&crowd->left, 1);
        return;
    } else {
        recipient->due_s = now_s + crowd_delay_s(&worker->random);
    }
    ensure(atomic_fetch_sub(&crowd->holders[i], 1) == 1);
    retry_push_xcore(crowd->wheel, recipient);
}

static void *crowd_run(void *context)
{
    struct crowd_worker *worker = context;
    struct crowd *crowd = worker->crowd;
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    while (atomic_load(&crowd->left) > 0) {
        if (retry_count_xcore(crowd->wheel) == 0) {
            (void)sched_yield(); /* all are with the others: were they asleep, time would run out */
            continue;
        }
        uint32_t step_s = random_below(&worker->random, 100) == 0 ? 3000 : 1;
        uint32_t now_s = atomic_fetch_add(&crowd->now_s, step_s) + step_s;
        for (int i = 0; i < 8 && retry_take_xcore(crowd->wheel, now_s, &chain); i++) {
            struct recipient *recipient;
            while ((recipient = chain_take(&chain)) != NULL) {
                crowd_got(worker, recipient, now_s);
            }
        }
    }
    return NULL;
}

static void test_workers_share_the_wheel(void)
{
    struct crowd *crowd = calloc(1, sizeof(*crowd));
    ensure(crowd != NULL);
    crowd->wheel = retry_wheel_create(START_S);
    atomic_store(&crowd->now_s, START_S);
    atomic_store(&crowd->left, CROWD);
    for (uint32_t i = 0; i < CROWD; i++) {
        push_due(crowd->wheel, &crowd->recipients[i], START_S + i % 700);
    }
    struct crowd_worker workers[WORKERS];
    pthread_t threads[WORKERS];
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = (struct crowd_worker){.crowd = crowd};
        random_init_seed(&workers[i].random, 100 + i);
        ensure(pthread_create(&threads[i], NULL, crowd_run, &workers[i]) == 0);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        ensure(pthread_join(threads[i], NULL) == 0);
    }
    for (size_t i = 0; i < CROWD; i++) {
        CHECK_ROW(i, crowd->recipients[i].attempts_count == TURNS);
        CHECK_ROW(i, atomic_load(&crowd->holders[i]) == 1);
    }
    CU_ASSERT_EQUAL(retry_count_xcore(crowd->wheel), 0);
    retry_wheel_destroy(crowd->wheel, false);
    free(crowd);
}

/* DESIGN 4: deferred recipients fit in 64 bytes each, all told. */
static void test_memory(void)
{
    uint64_t wheel_size = (uint64_t)RETRY_SLOTS * 16 + 8192;
    CU_ASSERT(sizeof(struct recipient) + (wheel_size + 9999999) / 10000000 <= 64);
}

static void test_bugs_panic(void)
{
    struct retry_wheel *wheel = retry_wheel_create(START_S);
    struct recipient recipient = {0};
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    push_due(wheel, &recipient, START_S + 1);
    CHECK_PANICS(retry_wheel_destroy(wheel, false));
    CHECK_PANICS((void)retry_sweep_xcore(wheel, RETRY_SLOTS, &chain));
    retry_wheel_destroy(wheel, true);
    retry_wheel_destroy(NULL, false);
}

SUITE(retry, test_each_distance, test_past_is_taken_at_once, test_big_slot_comes_in_parts,
      test_sweep_finds_all, test_clock_set_back, test_against_model, test_workers_share_the_wheel,
      test_memory, test_bugs_panic)
