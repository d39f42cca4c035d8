/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders and reports are for all lanes, and there may be hundreds of thousands: a part of them a
 * step, one order and one report at a time. Lanes that are new stand at the end of the list; what
 * comes into a lane that was passed finds the order in its batch (queue/ready.c).
 */
#include "engine/worker_priv.h"

enum { STEP_WALK = 2048 };

static void order_begin(struct worker *worker, struct worker_order *order)
{
    worker->order = order;
    worker->order_next = worker->lanes_all.next;
    worker->has_cancelled |= order->is_cancel;
    if (order->is_cancel && worker->index == 0) {
        worker->sweep_slot = 0; /* the others know already: none puts more into the wheel */
    }
}

static void order_end(struct worker *worker)
{
    struct worker_order *order = worker->order;
    worker->order = NULL;
    if (order->is_retry && worker->index == 0) {
        worker_retry_begin(worker, order);
        return;
    }
    struct inbox *next =
        worker->index == 0 ? order->reply_to : &worker->engine->workers[worker->index - 1]->orders;
    inbox_push_xcore(next, &order->node);
}

/* What was paused may have waited for days. */
static void resume_lane(struct worker *worker, struct lane *lane)
{
    if (!list_is_empty(&lane->ready.paused)) {
        lane->review_at = worker->now;
    }
    ready_resume(&lane->ready);
}

static void order_lane(struct worker *worker, const struct worker_order *order, struct lane *lane)
{
    if (order->is_cancel) {
        ready_cancel(&lane->ready, order->batch);
    } else if (order->is_retry) {
        lane_rest_end(lane);
    } else {
        resume_lane(worker, lane);
    }
    if (lane_backlog(lane) > 0) {
        lane_mark_dirty(lane);
    }
}

bool worker_orders_step(struct worker *worker)
{
    for (uint32_t i = 0; i < STEP_WALK; i++) {
        if (worker->order == NULL) {
            struct inbox_node *node = inbox_take(&worker->orders);
            if (node == NULL) {
                return false;
            }
            order_begin(worker, CONTAINER_OF(node, struct worker_order, node));
        }
        if (worker->order_next == &worker->lanes_all) {
            order_end(worker);
            continue;
        }
        struct lane *lane = CONTAINER_OF(worker->order_next, struct lane, link);
        worker->order_next = worker->order_next->next;
        order_lane(worker, worker->order, lane);
    }
    return true;
}

bool worker_reports_step(struct worker *worker, struct mono_time now)
{
    for (uint32_t i = 0; i < STEP_WALK; i++) {
        if (worker->reporting == NULL) {
            struct inbox_node *node = inbox_take(&worker->reports);
            if (node == NULL) {
                return false;
            }
            worker->reporting = CONTAINER_OF(node, struct worker_report, node);
            worker->reporting->rows_count = 0;
            worker->reporting_next = worker->lanes_all.next;
        }
        if (worker->reporting_next == &worker->lanes_all) {
            struct worker_report *report = worker->reporting;
            worker->reporting = NULL;
            inbox_push_xcore(report->reply_to, &report->node);
            continue;
        }
        const struct lane *lane = CONTAINER_OF(worker->reporting_next, struct lane, link);
        worker->reporting_next = worker->reporting_next->next;
        if (lane->site != NULL) {
            worker_report_add(worker->reporting, lane, now);
        }
    }
    return true;
}

void worker_walk_leave(struct worker *worker, const struct lane *lane)
{
    if (worker->order_next == &lane->link) {
        worker->order_next = lane->link.next;
    }
    if (worker->reporting_next == &lane->link) {
        worker->reporting_next = lane->link.next;
    }
}
