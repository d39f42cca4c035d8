/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/intake_priv.h"

/* Orders of people: files in in/ctl. */

static void order_send(struct intake_core *core, struct worker_order order)
{
    ensure(core->orders_left == 0);
    struct engine *engine = core->engine;
    core->worker_orders[0] = order;
    core->orders_left++;
    inbox_push_xcore(&engine->workers[engine->workers_count - 1]->orders,
                     &core->worker_orders[0].node);
}

/* False: to be obeyed later. Not before it is durable that there was such an order: a start behind
 * a kill tells by it that people were tried who were not due (LAW 6). And not while its file stays:
 * they would be tried at each look. */
static bool retry_obey(struct intake_core *core, const struct spool_order *order,
                       struct intake_batch *ib)
{
    if (ib->stage != INTAKE_ACTIVE) {
        return false; /* not everybody is in the wheel yet */
    }
    if (spool_order_keep(&core->spool, ib->fd, SPOOL_RETRY) != 0) {
        odd(order_not_kept);
        return false;
    }
    if (spool_order_remove(&core->spool, order) != 0) {
        odd(order_not_removed);
        return false;
    }
    order_send(core, (struct worker_order){
                         .reply_to = &core->orders_back, .batch = ib->batch, .is_retry = true});
    return true;
}

/* False: it would be forgotten in a crash, and is to be obeyed again. */
static bool order_obey(struct intake_core *core, const struct spool_order *order,
                       struct intake_batch *ib)
{
    uint64_t orders = stat_read_xcore(&ib->batch->orders);
    if ((orders & BATCH_CANCELLED) != 0) {
        /* For good; and the first time it may not have been kept. */
        return spool_order_keep(&core->spool, ib->fd, SPOOL_CANCEL) == 0;
    }
    if (order->verb == SPOOL_RETRY) {
        return retry_obey(core, order, ib);
    }
    static const uint64_t NEXT[SPOOL_VERBS_COUNT] = {
        [SPOOL_PAUSE] = BATCH_PAUSED, [SPOOL_RESUME] = 0, [SPOOL_CANCEL] = BATCH_CANCELLED};
    stat_set(&ib->batch->orders, NEXT[order->verb]);
    ib->is_pause_own = false;
    bool is_kept = spool_order_keep(&core->spool, ib->fd, order->verb) == 0;
    if (!is_kept) {
        odd(order_not_kept);
    }
    if (order->verb == SPOOL_PAUSE) {
        return is_kept; /* workers look at it at each turn */
    }
    order_send(core, (struct worker_order){
                         .reply_to = &core->orders_back,
                         .batch = ib->batch,
                         .is_cancel = order->verb == SPOOL_CANCEL,
                     });
    return is_kept;
}

/* Of a batch that waits for its results: it is obeyed when the batch is opened, soon. True: it is
 * kept. None to try again: that stays until then. */
static bool order_keep(struct intake_core *core, const struct spool_order *order,
                       struct intake_batch *ib)
{
    if (order->verb == SPOOL_RETRY) {
        return false;
    }
    int fd = spool_batch_open(&core->spool, ib->batch->directory);
    bool is_kept = fd >= 0 && spool_order_keep(&core->spool, fd, order->verb) == 0;
    if (fd >= 0) {
        disk_close(core->disk, fd);
    }
    if (is_kept) {
        intake_open_soon(core, ib);
    } else {
        odd(order_not_kept);
    }
    return is_kept;
}

/* Workers have set aside what the journal held, and it writes those results again; or what waited
 * for its files to be looked at. True: they are being told. */
static bool tell_releases(struct intake_core *core)
{
    struct engine *engine = core->engine;
    uint64_t releases = stat_observe_xcore(&engine->journal->stats.results_releases);
    if (releases == core->releases_seen && !core->is_resume_due) {
        return false;
    }
    core->releases_seen = releases;
    core->is_resume_due = false;
    order_send(core, (struct worker_order){.reply_to = &core->orders_back});
    return true;
}

void intake_orders_resume(struct intake_core *core)
{
    core->is_resume_due = true;
    if (core->orders_left == 0) {
        (void)tell_releases(core);
    }
}

static struct intake_batch *find_waiting(struct intake_core *core, const char *id)
{
    bool has_some = stat_read_xcore(&core->intake->stats.results_unread) > 0;
    return has_some ? intake_results_find_waiting(core, id) : NULL;
}

static enum spool_order_fate fate(void *context, const char *id)
{
    struct intake_core *core = context;
    struct wall_time at;
    if (intake_id_find(core, id) != NULL || find_waiting(core, id) != NULL) {
        return SPOOL_ORDER_TAKE;
    }
    if (core->is_recovering || core->has_more_new || !list_is_empty(&core->opening)) {
        return SPOOL_ORDER_LEAVE; /* its batch may not have been claimed, or opened, yet */
    }
    bool was_here = spool_ids_find(core->ids, id, clock_wall(core->engine->clock), &at);
    return was_here ? SPOOL_ORDER_ENDED : SPOOL_ORDER_NOBODY;
}

/* Of those listed, until one goes around the workers: its coming back brings us here again. */
static void take_listed(struct intake_core *core)
{
    struct spool_orders *orders = core->orders;
    while (core->orders_left == 0 && orders->next < orders->count) {
        const struct spool_order *order = &orders->orders[orders->next++];
        struct intake_batch *ib = intake_id_find(core, order->id);
        struct intake_batch *waiting = ib == NULL ? find_waiting(core, order->id) : NULL;
        if (ib == NULL && waiting == NULL) {
            continue; /* it has ended since: the next listing drops its orders */
        }
        if (waiting != NULL && !order_keep(core, order, waiting)) {
            continue;
        }
        if (ib != NULL && ib->fd >= 0 && ib->stage != INTAKE_LEAVING &&
            !order_obey(core, order, ib)) {
            continue;
        }
        if (spool_order_remove(&core->spool, order) != 0) {
            odd(order_not_removed); /* obeyed again at a later look: orders are idempotent */
        }
    }
}

void intake_take_orders(struct intake_core *core)
{
    if (core->orders_left > 0 || tell_releases(core)) {
        return; /* one order at a time */
    }
    take_listed(core);
    if (core->orders_left > 0) {
        return;
    }
    const struct spool_order_judge judge = {.fate = fate, .context = core};
    if (spool_list_orders(&core->spool, clock_wall(core->engine->clock), &judge, core->orders) !=
        0) {
        odd(orders_not_listed);
        return;
    }
    take_listed(core);
}
