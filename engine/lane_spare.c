/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker lets go of when sites or lanes run short. A lane that lingers keeps its site, and
 * an idle session its lane: they are there for the mail that may come next, while other mail waits.
 * A part a step, the longest unused first; sessions only when somebody has found no room already.
 */
#include "engine/lane.h"

#include "engine/delivery.h"
#include "engine/worker_priv.h"

enum { SPARE_LANES_STEP = 64, SPARE_SESSIONS_STEP = 16 };

/* Ends up to `count` of the first that linger. Those that wait for something stay, and go behind
 * the others: they may wait for long. */
static uint32_t retire_some(struct worker *worker, uint32_t count)
{
    uint32_t retired = 0;
    const struct list *stayed = NULL;
    for (uint32_t i = 0; i < SPARE_LANES_STEP && retired < count; i++) {
        struct list *node = worker->lanes_unused.next;
        if (node == &worker->lanes_unused || node == stayed) {
            break;
        }
        struct lane *lane = CONTAINER_OF(node, struct lane, unused);
        if (lane_may_retire(lane)) {
            lane_retire(lane);
            retired++;
            continue;
        }
        stayed = stayed == NULL ? node : stayed;
        list_remove(node);
        list_add_last(&worker->lanes_unused, node);
    }
    return retired;
}

bool lane_spare_one(struct worker *worker)
{
    bool is_retired = retire_some(worker, 1) > 0;
    worker->is_short_of_lanes |= !is_retired;
    return is_retired;
}

static void quit_some(struct worker *worker, struct mono_time now)
{
    struct list *node = worker->idle.next;
    for (uint32_t i = 0; i < SPARE_SESSIONS_STEP && node != &worker->idle; i++) {
        struct delivery *delivery = CONTAINER_OF(node, struct delivery, idle_all);
        node = node->next;
        if (lane_backlog(delivery->lane) == 0) {
            delivery_quit(delivery, now);
        }
    }
}

void lane_spare_step(struct worker *worker, struct mono_time now)
{
    enum site_need need = site_table_need_xcore(worker->engine->sites);
    if (need != SITE_NEED_NONE) {
        (void)retire_some(worker, SPARE_LANES_STEP);
    }
    if (need == SITE_NEED_SESSIONS || worker->is_short_of_lanes) {
        quit_some(worker, now);
        worker->is_short_of_lanes = false;
    }
}
