/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/intake_priv.h"

/* Orders of people: files in in/ctl. */

/* False: it would be forgotten in a crash, and is to be obeyed again. */
static bool order_obey(struct intake_core *core, const struct spool_order *order,
                       struct intake_batch *ib)
{
    ensure(core->orders_left == 0);
    struct engine *engine = core->engine;
    uint64_t orders = stat_read_xcore(&ib->batch->orders);
    if ((orders & BATCH_CANCELLED) != 0) {
        /* For good; and the first time it may not have been kept. */
        return spool_order_keep(&core->spool, ib->fd, SPOOL_CANCEL) == 0;
    }
    static const uint64_t NEXT[SPOOL_VERBS_COUNT] = {
        [SPOOL_PAUSE] = BATCH_PAUSED, [SPOOL_RESUME] = 0, [SPOOL_CANCEL] = BATCH_CANCELLED};
    stat_set(&ib->batch->orders, NEXT[order->verb]);
    bool is_kept = spool_order_keep(&core->spool, ib->fd, order->verb) == 0;
    if (!is_kept) {
        odd(order_not_kept);
    }
    if (order->verb == SPOOL_PAUSE) {
        return is_kept; /* workers look at it at each turn */
    }
    core->worker_orders[0] = (struct worker_order){
        .reply_to = &core->orders_back,
        .batch = ib->batch,
        .is_cancel = order->verb == SPOOL_CANCEL,
    };
    core->orders_left++;
    inbox_push_xcore(&engine->workers[engine->workers_count - 1]->orders,
                     &core->worker_orders[0].node);
    return is_kept;
}

void intake_take_orders(struct intake_core *core)
{
    if (core->orders_left > 0) {
        return; /* one order at a time */
    }
    if (spool_list_orders(&core->spool, clock_wall(core->engine->clock), core->orders) != 0) {
        return;
    }
    for (uint32_t i = 0; i < core->orders->count && core->orders_left == 0; i++) {
        const struct spool_order *order = &core->orders->orders[i];
        struct intake_batch *ib = intake_id_find(core, order->id);
        bool may_come = core->is_recovering || core->has_more_new || !list_is_empty(&core->opening);
        if (ib == NULL && may_come) {
            continue; /* its batch may not have been claimed, or opened, yet */
        }
        if (ib != NULL && ib->fd >= 0 && ib->stage != INTAKE_LEAVING &&
            !order_obey(core, order, ib)) {
            continue;
        }
        if (spool_order_remove(&core->spool, order) != 0) {
            odd(order_not_removed); /* obeyed again at the next look: orders are idempotent */
        }
    }
}
