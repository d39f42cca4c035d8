/* SPDX-License-Identifier: Apache-2.0 */
/* Orders that the worker's places obey: cancel, retry, pause, resume. */
#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

static const char *defer_all(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)conn;
    (void)line;
    return moment == RIG_RCPT ? "451 4.2.1 later\r\n" : NULL;
}

/* Taking a slot of the wheel and putting back what is not cancelled filled it again: the sweep
 * never went on to the next slot. */
static void test_a_cancel_finds_what_is_deferred_beside_other_batches(void)
{
    struct rig *rig = rig_create();
    rig->config->workers_count = 2;
    rig->on_moment = defer_all;
    rig_start(rig);
    uint32_t stays = rig_batch_merge(rig, RIG_LETTER, "");
    uint32_t goes = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, stays, "example.org", 500);
    rig_add_many(rig, goes, "example.org", 500);
    rig_deal(rig, stays, 0);
    rig_deal(rig, goes, 1);
    rig_run(rig, 120000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 1000);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 1000);
    rig_order(rig, goes, BATCH_CANCELLED);
    CU_ASSERT(rig_run_until_returned(rig, 500, 10000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), 500);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 500);
    rig_settle(rig);
    rig_destroy(rig);
}

/* The record of its deferral was on its way to the journal when the sweep went through the wheel.
 */
static void test_a_cancel_finds_what_is_with_the_journal(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = defer_all;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 5);
    rig_deal(rig, batch, 0);
    rig->is_journal_held = true;
    rig_run(rig, 10000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_JOURNAL), 5);
    rig_order(rig, batch, BATCH_CANCELLED);
    rig_run(rig, 10000);
    rig->is_journal_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 5, 10000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), 5);
    rig_destroy(rig);
}

/* All of a batch and nobody else, and none before the sweep's end: one who failed again while it
 * lasts would be met once more, and tried without a pause. */
static void test_a_retry_finds_its_batch_before_it_tries(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = defer_all;
    rig_start(rig);
    uint32_t stays = rig_batch_merge(rig, RIG_LETTER, "");
    uint32_t goes = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, stays, "example.org", 500);
    rig_add_many(rig, goes, "example.org", 3000);
    rig_deal(rig, stays, 0);
    rig_deal(rig, goes, 0);
    rig_run(rig, 120000);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 3500);
    struct worker *worker = rig->workers[0];
    struct inbox back;
    inbox_init(&back, &rig->waker);
    struct worker_order order = {.reply_to = &back, .batch = &rig->batches[goes], .is_retry = true};
    inbox_push_xcore(&worker->orders, &order.node);
    bool is_home = false;
    for (uint32_t i = 0; i < 10000 && !is_home; i++) {
        (void)worker->actor.step(&worker->actor, clock_mono(&rig->clock.clock));
        bool is_sweeping = worker->sweep_slot != UINT32_MAX;
        CHECK_ROW(i, !is_sweeping || rig_place(rig, PLACE_READY) == 0);
        is_home = inbox_take(&back) == &order.node;
    }
    CU_ASSERT(is_home);
    CU_ASSERT_EQUAL(worker->retried.count, 0);
    rig_run(rig, 60000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 6500);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 3500);
    rig_destroy(rig);
}

static void test_a_pause_holds_and_a_resume_lets_go(void)
{
    struct rig *rig = rig_create();
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 500);
    stat_set(&rig->batches[batch].orders, BATCH_PAUSED);
    rig_deal(rig, batch, 0);
    rig_run(rig, 120000);
    CU_ASSERT_EQUAL(rig->messages, 0);
    rig_order(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 500, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 500);
    rig_destroy(rig);
}

/* What was loaded for a site with a rate went out for as long as the rate took. */
static void test_a_pause_takes_back_what_is_loaded(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].rate_per_hour = 18000;
    rig->config->routes[0].rate_burst = 1;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 200);
    rig_deal(rig, batch, 0);
    rig_run(rig, 3000);
    CU_ASSERT(rig->messages > 0);
    CU_ASSERT(rig_place(rig, PLACE_LOADING) > 0);
    uint64_t before = rig->messages;
    stat_set(&rig->batches[batch].orders, BATCH_PAUSED);
    rig_run(rig, 120000);
    CU_ASSERT(rig->messages <= before + 1);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_LOADING), 0);
    CU_ASSERT_EQUAL(rig_sessions(rig), 0);
    rig_order(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 200, 120000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 200);
    rig_destroy(rig);
}

SUITE(worker_orders, test_a_cancel_finds_what_is_deferred_beside_other_batches,
      test_a_cancel_finds_what_is_with_the_journal, test_a_retry_finds_its_batch_before_it_tries,
      test_a_pause_holds_and_a_resume_lets_go, test_a_pause_takes_back_what_is_loaded)
