/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/ready.h"

#include <stdlib.h>

#include "engine/base/random.h"
#include "queue/manifest.h"
#include "tests/harness.h"

enum { BATCHES = 64, RECIPIENTS = 4096 };

struct rig {
    struct ready_pool pool;
    struct ready lane;
    struct manifest manifests[BATCHES];
    struct batch batches[BATCHES];
    struct recipient recipients[RECIPIENTS];
    uint32_t recipients_used;
};

static struct rig *rig_create(uint32_t queues_max)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    ensure(rig != NULL);
    ensure(ready_pool_init(&rig->pool, queues_max) == 0);
    ready_init(&rig->lane, &rig->pool);
    for (uint32_t i = 0; i < BATCHES; i++) {
        rig->manifests[i].priority = 5;
        rig->batches[i].index = i;
        rig->batches[i].manifest = &rig->manifests[i];
    }
    return rig;
}

static struct recipient *rig_push(struct rig *rig, uint32_t batch)
{
    ensure(rig->recipients_used < RECIPIENTS);
    struct recipient *recipient = &rig->recipients[rig->recipients_used++];
    recipient->batch = batch;
    recipient->ordinal = rig->recipients_used;
    ready_push(&rig->lane, recipient, &rig->batches[batch]);
    return recipient;
}

/* Index of the batch that had the turn, or -1. */
static int rig_take(struct rig *rig, uint32_t count_max)
{
    struct recipient *recipients[RECIPIENTS];
    const struct batch *batch;
    uint32_t count = ready_take(&rig->lane, count_max, recipients, &batch);
    return count == 0 ? -1 : (int)recipients[0]->batch;
}

static void rig_destroy(struct rig *rig)
{
    ready_check(&rig->lane);
    ready_resume(&rig->lane);
    for (uint32_t i = 0; i < BATCHES; i++) {
        stat_set(&rig->batches[i].orders, 0);
    }
    while (rig_take(rig, 100) >= 0) {
    }
    ready_deinit(&rig->lane);
    ready_pool_deinit(&rig->pool);
    free(rig);
}

static void rig_order(struct rig *rig, uint32_t batch, uint32_t orders)
{
    stat_set(&rig->batches[batch].orders, orders);
}

static void test_order_in_one_batch(void)
{
    struct rig *rig = rig_create(8);
    struct recipient *pushed[5], *taken[8];
    for (int i = 0; i < 4; i++) {
        pushed[i] = rig_push(rig, 3);
    }
    const struct batch *batch = NULL;
    CU_ASSERT_EQUAL(ready_take(&rig->lane, 2, taken, &batch), 2);
    CU_ASSERT_PTR_EQUAL(batch, &rig->batches[3]);
    CU_ASSERT(taken[0] == pushed[0] && taken[1] == pushed[1]);
    ready_push_front(&rig->lane, taken[1], batch);
    ready_push_front(&rig->lane, taken[0], batch);
    pushed[4] = rig_push(rig, 3);
    CU_ASSERT_EQUAL(rig->lane.count, 5);
    ready_check(&rig->lane);
    CU_ASSERT_EQUAL(ready_take(&rig->lane, 8, taken, &batch), 5);
    for (int i = 0; i < 5; i++) {
        CHECK_ROW((size_t)i, taken[i] == pushed[i]);
    }
    CU_ASSERT_EQUAL(ready_take(&rig->lane, 8, taken, &batch), 0);
    CU_ASSERT_EQUAL(rig->pool.queues.count_out, 0);
    rig_destroy(rig);
}

static void test_batches_go_round(void)
{
    struct rig *rig = rig_create(8);
    for (int i = 0; i < 12; i++) {
        (void)rig_push(rig, (uint32_t)i % 3);
    }
    for (int i = 0; i < 12; i++) {
        CHECK_ROW((size_t)i, rig_take(rig, 1) == i % 3);
    }
    CU_ASSERT_FALSE(ready_has_work(&rig->lane));
    rig_destroy(rig);
}

/* Turns of 730: priority 9 against priority 0, then 9 against 5, then a crowd of 5 against one 9.
 */
static void test_priority_and_ageing(void)
{
    static const struct {
        uint8_t low;
        int want_low, slack;
    } ROWS[] = {{0, 10, 0}, {5, 22, 1}, {8, 81, 1}, {9, 365, 1}};
    for (size_t row = 0; row < COUNT_OF(ROWS); row++) {
        struct rig *rig = rig_create(8);
        rig->manifests[0].priority = ROWS[row].low;
        rig->manifests[1].priority = 9;
        int low_turns = 0;
        for (int turn = 0; turn < 1460; turn++) {
            (void)rig_push(rig, (uint32_t)turn % 2);
        }
        for (int turn = 0; turn < 730; turn++) {
            low_turns += rig_take(rig, 1) == 0;
        }
        CHECK_ROW(row, abs(low_turns - ROWS[row].want_low) <= ROWS[row].slack);
        rig_destroy(rig);
    }
}

static void test_crowd_does_not_delay_urgent(void)
{
    struct rig *rig = rig_create(BATCHES);
    for (uint32_t i = 0; i < BATCHES - 1; i++) {
        (void)rig_push(rig, i);
        (void)rig_push(rig, i);
    }
    for (int i = 0; i < 20; i++) {
        (void)rig_take(rig, 1);
    }
    rig->manifests[BATCHES - 1].priority = 9;
    (void)rig_push(rig, BATCHES - 1);
    CU_ASSERT_EQUAL(rig_take(rig, 1), BATCHES - 1);
    rig_destroy(rig);
}

static void test_paused_are_set_aside(void)
{
    struct rig *rig = rig_create(8);
    for (uint32_t i = 0; i < 3; i++) {
        (void)rig_push(rig, i);
        (void)rig_push(rig, i);
    }
    rig_order(rig, 0, BATCH_PAUSED);
    rig_order(rig, 1, BATCH_PAUSED);
    CU_ASSERT_EQUAL(rig_take(rig, 1), 2);
    CU_ASSERT_EQUAL(rig_take(rig, 1), 2);
    CU_ASSERT_EQUAL(rig_take(rig, 1), -1);
    CU_ASSERT_FALSE(ready_has_work(&rig->lane));
    CU_ASSERT_EQUAL(rig->lane.count, 4);
    (void)rig_push(rig, 0);
    CU_ASSERT_EQUAL(rig_take(rig, 1), -1);
    rig_order(rig, 0, 0);
    CU_ASSERT_EQUAL(rig_take(rig, 1), -1);
    ready_resume(&rig->lane);
    CU_ASSERT(ready_has_work(&rig->lane));
    ready_check(&rig->lane);
    CU_ASSERT_EQUAL(rig_take(rig, 9), 0);
    CU_ASSERT_EQUAL(rig_take(rig, 9), -1);
    CU_ASSERT_EQUAL(rig->lane.count, 2);
    rig_destroy(rig);
}

/* A batch that cannot write its results: not even what was cancelled goes. */
static void test_held_are_set_aside(void)
{
    struct rig *rig = rig_create(8);
    for (uint32_t i = 0; i < 3; i++) {
        (void)rig_push(rig, i);
        (void)rig_push(rig, i);
    }
    stat_set(&rig->batches[0].results_held, 1);
    stat_set(&rig->batches[1].results_held, 1);
    rig_order(rig, 1, BATCH_CANCELLED);
    ready_cancel(&rig->lane, &rig->batches[1]);
    CU_ASSERT_EQUAL(rig_take(rig, 9), 2);
    CU_ASSERT_FALSE(ready_has_work(&rig->lane));
    CU_ASSERT_EQUAL(rig_take(rig, 9), -1);
    ready_check(&rig->lane);
    stat_set(&rig->batches[0].results_held, 0);
    stat_set(&rig->batches[1].results_held, 0);
    ready_resume(&rig->lane);
    CU_ASSERT(ready_has_work(&rig->lane));
    CU_ASSERT_EQUAL(rig_take(rig, 9), 1);
    CU_ASSERT_EQUAL(rig_take(rig, 9), 0);
    CU_ASSERT_EQUAL(rig->lane.count, 0);
    ready_check(&rig->lane);
    rig_destroy(rig);
}

/* Paused queues that no turn has come to yet: has_work does not count them. */
static void test_has_work_sees_fresh_pause(void)
{
    struct rig *rig = rig_create(8);
    (void)rig_push(rig, 0);
    rig_order(rig, 0, BATCH_PAUSED);
    CU_ASSERT_FALSE(ready_has_work(&rig->lane));
    (void)rig_push(rig, 1);
    CU_ASSERT(ready_has_work(&rig->lane));
    rig_destroy(rig);
}

static void test_cancelled_go_first(void)
{
    struct rig *rig = rig_create(8);
    for (uint32_t i = 0; i < 6; i++) {
        (void)rig_push(rig, i);
        (void)rig_push(rig, i);
    }
    /* 4: in turn; 3: while set aside; 5: paused and cancelled, found by its turn. */
    rig_order(rig, 4, BATCH_CANCELLED);
    ready_cancel(&rig->lane, &rig->batches[4]);
    CU_ASSERT_EQUAL(rig_take(rig, 1), 4);
    CU_ASSERT_EQUAL(rig_take(rig, 1), 4);
    rig_order(rig, 3, BATCH_PAUSED);
    for (int i = 0; i < 4; i++) {
        (void)rig_take(rig, 1);
    }
    rig_order(rig, 3, BATCH_PAUSED | BATCH_CANCELLED);
    ready_cancel(&rig->lane, &rig->batches[3]);
    ready_check(&rig->lane);
    CU_ASSERT_EQUAL(rig_take(rig, 9), 3);
    rig_order(rig, 5, BATCH_PAUSED | BATCH_CANCELLED);
    while (rig_take(rig, 9) >= 0) {
    }
    CU_ASSERT_EQUAL(rig->lane.count, 0);
    (void)rig_push(rig, 0);
    (void)rig_push(rig, 5);
    CU_ASSERT_EQUAL(rig_take(rig, 1), 5);
    ready_cancel(&rig->lane, &rig->batches[4]);
    rig_destroy(rig);
}

/* Lanes share the pool's hash: the same batch in two lanes is two queues. */
static void test_lanes_are_apart(void)
{
    struct rig *rig = rig_create(2);
    struct ready other;
    ready_init(&other, &rig->pool);
    struct recipient stranger = {.batch = 1};
    (void)rig_push(rig, 1);
    ready_push(&other, &stranger, &rig->batches[1]);
    ready_check(&rig->lane);
    ready_check(&other);
    struct recipient *taken[4];
    const struct batch *batch;
    CU_ASSERT_EQUAL(ready_take(&other, 4, taken, &batch), 1);
    CU_ASSERT_PTR_EQUAL(taken[0], &stranger);
    CU_ASSERT_EQUAL(rig->lane.count, 1);
    ready_deinit(&other);
    rig_destroy(rig);
}

/* Random pushes, takes, gives back and orders: each recipient comes out once, in its batch's order,
 * and never while its batch is known as paused. */
static void test_against_model(void)
{
    struct random random;
    random_init_seed(&random, 23);
    for (int round = 0; round < 40; round++) {
        struct rig *rig = rig_create(BATCHES);
        uint32_t last_ordinal[BATCHES] = {0};
        uint64_t inside = 0;
        for (uint32_t i = 0; i < BATCHES; i++) {
            rig->manifests[i].priority = (uint8_t)random_below(&random, 10);
        }
        while (rig->recipients_used < RECIPIENTS) {
            uint32_t what = random_below(&random, 100);
            uint32_t i = random_below(&random, BATCHES);
            if (what < 60) {
                (void)rig_push(rig, i);
                inside++;
            } else if (what < 66) {
                /* A cancelled batch stays cancelled. */
                uint32_t orders = (uint32_t)stat_read_xcore(&rig->batches[i].orders);
                rig_order(rig, i, orders ^ BATCH_PAUSED);
                ready_resume(&rig->lane);
            } else if (what < 68) {
                rig_order(rig, i, BATCH_CANCELLED);
                ready_cancel(&rig->lane, &rig->batches[i]);
            } else {
                struct recipient *taken[16];
                const struct batch *batch;
                bool has_work = ready_has_work(&rig->lane);
                uint32_t count =
                    ready_take(&rig->lane, 1 + random_below(&random, 16), taken, &batch);
                CHECK_ROW((size_t)round, has_work == (count > 0));
                uint32_t back = count > 0 ? random_below(&random, count + 1) : 0;
                for (uint32_t at = count; at-- > count - back;) {
                    ready_push_front(&rig->lane, taken[at], &rig->batches[taken[at]->batch]);
                }
                inside -= count - back;
                for (uint32_t at = 0; at < count - back; at++) {
                    uint32_t index = taken[at]->batch;
                    CHECK_ROW((size_t)round, taken[at]->ordinal > last_ordinal[index]);
                    last_ordinal[index] = taken[at]->ordinal;
                    CHECK_ROW((size_t)round,
                              stat_read_xcore(&rig->batches[index].orders) != BATCH_PAUSED);
                }
            }
            CHECK_ROW((size_t)round, rig->lane.count == inside);
            if (rig->recipients_used % 256 == 0) {
                ready_check(&rig->lane);
            }
        }
        rig_destroy(rig);
    }
}

/* A hundred thousand batches in one lane, half of them paused: the whole is a matter of
 * milliseconds when each operation is O(1), and of minutes when one of them walks. */
static void test_many_batches(void)
{
    enum { MANY = 100000 };
    struct ready_pool pool;
    ensure(ready_pool_init(&pool, MANY) == 0);
    struct ready lane;
    ready_init(&lane, &pool);
    struct batch *batches = calloc(MANY, sizeof(*batches));
    struct recipient *recipients = calloc(4 * MANY, sizeof(*recipients));
    ensure(batches != NULL && recipients != NULL);
    for (uint32_t i = 0; i < 4 * MANY; i++) {
        struct batch *batch = &batches[i % MANY];
        batch->index = i % MANY;
        stat_set(&batch->orders, i % 2 == 0 ? BATCH_PAUSED : 0);
        recipients[i].batch = batch->index;
        ready_push(&lane, &recipients[i], batch);
    }
    struct recipient *taken[4];
    const struct batch *batch;
    uint32_t total = 0, count;
    while ((count = ready_take(&lane, 1, taken, &batch)) > 0) {
        total += count;
        CHECK_ROW(total, ready_has_work(&lane) == (total < 2 * MANY));
    }
    CU_ASSERT_EQUAL(total, 2 * MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        stat_set(&batches[i].orders, 0);
    }
    ready_resume(&lane);
    while ((count = ready_take(&lane, 4, taken, &batch)) > 0) {
        total += count;
    }
    CU_ASSERT_EQUAL(total, 4 * MANY);
    ready_deinit(&lane);
    ready_pool_deinit(&pool);
    free(batches);
    free(recipients);
}

static void test_bugs_panic(void)
{
    struct rig *rig = rig_create(1);
    struct recipient *recipient = rig_push(rig, 1);
    struct recipient *taken[1];
    const struct batch *batch;
    CHECK_PANICS(ready_deinit(&rig->lane));
    CHECK_PANICS(ready_push(&rig->lane, recipient, &rig->batches[0]));
    CHECK_PANICS((void)rig_push(rig, 2)); /* more queues than recipients */
    CHECK_PANICS((void)ready_take(&rig->lane, 0, taken, &batch));
    CHECK_PANICS(ready_cancel(&rig->lane, &rig->batches[1]));
    CHECK_PANICS(ready_pool_deinit(&rig->pool));
    rig_destroy(rig);
}

SUITE(ready, test_order_in_one_batch, test_batches_go_round, test_priority_and_ageing,
      test_crowd_does_not_delay_urgent, test_paused_are_set_aside, test_held_are_set_aside,
      test_has_work_sees_fresh_pause, test_cancelled_go_first, test_lanes_are_apart,
      test_against_model, test_many_batches, test_bugs_panic)
