/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes of a worker: their place in the list of those to be dispatched, and which are ended when
 * they run short. */
#include <stdio.h>

#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { DAY_MS = 86400 * 1000 };

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

/* One recipient for each of so many sites. */
static struct rig *lanes_rig(uint32_t count)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->sites_max = 2 * count;
    rig->config->domains_max = 2 * count;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < count; i++) {
        char domain[32];
        char host[32];
        (void)snprintf(domain, sizeof(domain), "d%u.example", i);
        (void)snprintf(host, sizeof(host), "mx%u.example", i);
        rig_mx_put(rig, domain, MX_OK, host, &rig->server_addr, INT64_C(30) * DAY_MS);
        rig_add_many(rig, batch, domain, 1);
    }
    rig_deal(rig, batch, 0);
    return rig;
}

static void test_who_is_to_be_dispatched_keeps_his_place(void)
{
    struct rig *rig = lanes_rig(8);
    rig->is_intake_held = true;
    rig_settle(rig);
    struct worker *worker = rig->workers[0];
    struct lane *second = CONTAINER_OF(worker->lanes_all.prev, struct lane, link);
    struct lane *first = CONTAINER_OF(second->link.prev, struct lane, link);
    CU_ASSERT(list_is_empty(&worker->lanes_dirty));
    lane_mark_dirty(first);
    lane_mark_dirty(second);
    lane_mark_dirty(first);
    CU_ASSERT_PTR_EQUAL(worker->lanes_dirty.next, &first->dirty);
    worker_starve(first, WANT_SESSION);
    CU_ASSERT_PTR_EQUAL(worker->lanes_dirty.next, &second->dirty);
    lane_mark_dirty(first);
    CU_ASSERT(list_is_empty(&worker->lanes_starved[WANT_SESSION]));
    CU_ASSERT_PTR_EQUAL(worker->lanes_dirty.prev, &first->dirty);
    rig->is_intake_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 8, 10000));
    rig_destroy(rig);
}

/* Many of those that linger longest wait for something, and may do so for hours. */
static void test_a_lane_is_spared_behind_those_that_may_not_end(void)
{
    enum { LANES = 150, WAITING = 140 };
    struct rig *rig = lanes_rig(LANES);
    struct worker *worker = rig->workers[0];
    CU_ASSERT(rig_run_until_returned(rig, LANES, 30000));
    rig_run(rig, 10000);
    struct lane *waiting[WAITING];
    struct list *node = worker->lanes_unused.next;
    for (uint32_t i = 0; i < WAITING; i++, node = node->next) {
        CU_ASSERT_FATAL(node != &worker->lanes_unused);
        waiting[i] = CONTAINER_OF(node, struct lane, unused);
        waiting[i]->is_asked = true;
    }
    uint32_t before = worker->lanes.count_out;
    for (uint32_t i = 0; i < 3; i++) {
        (void)lane_spare_one(worker);
    }
    CU_ASSERT_EQUAL(worker->lanes.count_out, before - 1);
    CU_ASSERT(lane_spare_one(worker));
    for (uint32_t i = 0; i < WAITING; i++) {
        waiting[i]->is_asked = false;
    }
    rig_run(rig, 120000);
    CU_ASSERT_EQUAL(worker->lanes.count_out, 1);
    rig_destroy(rig);
}

enum { MANY = 5000 };

/* A step has an order for a part of the lanes; what comes in between finds it in its batch. */
static void test_an_order_is_carried_out_in_parts(void)
{
    struct rig *rig = lanes_rig(MANY);
    struct worker *worker = rig->workers[0];
    rig->is_intake_held = true;
    rig_run(rig, 100);
    CU_ASSERT(worker->lanes.count_out > MANY);
    struct inbox back;
    inbox_init(&back, &rig->waker);
    struct worker_order order = {.reply_to = &back, .batch = &rig->batches[0], .is_cancel = true};
    stat_set(&rig->batches[0].orders, BATCH_CANCELLED);
    inbox_push_xcore(&worker->orders, &order.node);
    CU_ASSERT(worker_orders_step(worker));
    CU_ASSERT_PTR_EQUAL(worker->order, &order);
    CU_ASSERT_PTR_NULL(inbox_take(&back));
    rig_add_many(rig, 0, "d1.example", 1);
    rig_add_many(rig, 0, "d4999.example", 1);
    rig_deal(rig, 0, 0);
    rig->is_intake_held = false;
    CU_ASSERT(rig_run_until_returned(rig, MANY + 2, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), MANY + 2);
    CU_ASSERT_PTR_EQUAL(inbox_take(&back), &order.node);
    rig_destroy(rig);
}

/* Lanes end while an order and a report are under way, the one that is next among them. */
static void test_a_lane_ends_under_a_walk(void)
{
    struct rig *rig = lanes_rig(MANY);
    struct worker *worker = rig->workers[0];
    CU_ASSERT(rig_run_until_returned(rig, MANY, 3600 * 1000));
    rig_run(rig, 3000);
    struct inbox back;
    inbox_init(&back, &rig->waker);
    struct worker_order order = {.reply_to = &back, .batch = &rig->batches[0]};
    struct worker_report report = {.reply_to = &back};
    inbox_push_xcore(&worker->orders, &order.node);
    inbox_push_xcore(&worker->reports, &report.node);
    CU_ASSERT(worker_orders_step(worker));
    CU_ASSERT(worker_reports_step(worker, worker->now));
    CU_ASSERT_PTR_NOT_NULL_FATAL(worker->order);
    CU_ASSERT_PTR_NOT_NULL_FATAL(worker->reporting);
    CU_ASSERT_PTR_EQUAL(worker->order_next, worker->reporting_next);
    uint32_t before = worker->lanes.count_out;
    for (uint32_t i = 0; i < 100; i++) {
        lane_retire(CONTAINER_OF(worker->order_next, struct lane, link));
    }
    CU_ASSERT_EQUAL(worker->lanes.count_out, before - 100);
    rig_run(rig, 100);
    CU_ASSERT_PTR_EQUAL(inbox_take(&back), &order.node);
    CU_ASSERT_PTR_EQUAL(inbox_take(&back), &report.node);
    CU_ASSERT_EQUAL(report.rows_count, WORKER_REPORT_ROWS);
    CU_ASSERT_EQUAL(report.rows[0].delivered, 1);
    rig_destroy(rig);
}

SUITE(worker_lanes, test_who_is_to_be_dispatched_keeps_his_place,
      test_a_lane_is_spared_behind_those_that_may_not_end, test_an_order_is_carried_out_in_parts,
      test_a_lane_ends_under_a_walk)
