/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker_priv.h"

#include "engine/steady.h"

enum { STEP_SITES = 4096, STEP_DUE = 1024, DEAL_CHUNK = 256, RETRY_LOOK_MS = 50 };

/* Whose first attempt is still to come waits for the time that his batch gives, not for a retry. */
static bool is_retried(const struct worker *worker, const struct recipient *recipient)
{
    const struct worker_order *order = worker->retry_order;
    return order != NULL && recipient->batch == order->batch->index &&
           recipient->attempts_count > 0;
}

/* What has come out of the wheel is dealt out to all workers, so that a second with a million
 * recipients uses all cores. */
static void deal(struct worker *worker, uint32_t now_s, struct mono_time now)
{
    for (uint32_t i = 0; i < STEP_DUE && worker->due.count > 0;) {
        uint32_t to = worker->deal_next++ % worker->engine->workers_count;
        struct inbox_chain chain;
        inbox_chain_init(&chain);
        for (uint32_t j = 0; j < DEAL_CHUNK && worker->due.count > 0; j++, i++) {
            struct inbox_node *node = inbox_chain_take(&worker->due);
            struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
            bool is_cancelled =
                (stat_read_xcore(&worker_batch(worker, recipient)->orders) & BATCH_CANCELLED) != 0;
            if (recipient->due_s != 0 && recipient->attempts_count == 0) {
                const struct batch *batch = worker_batch(worker, recipient);
                recipient->due_s = steady_due_s(worker->engine, batch, recipient);
            }
            if (recipient->due_s > now_s && !is_cancelled) {
                if (is_retried(worker, recipient)) {
                    recipient->due_s = now_s;
                    inbox_chain_add(&worker->retried, node);
                } else {
                    retry_push_xcore(worker->engine->retry, recipient);
                }
                continue;
            }
            if (to != worker->index) {
                inbox_chain_add(&chain, node);
                continue;
            }
            stat_add(&worker->stats.received, 1);
            worker_place_recipient(worker, recipient, now);
        }
        inbox_push_chain_xcore(&worker->engine->workers[to]->recipients, &chain);
    }
}

void worker_retry_begin(struct worker *worker, struct worker_order *order)
{
    ensure(worker->index == 0);
    ensure(worker->retry_order == NULL);
    worker->retry_order = order;
    worker->rests_next = 0;
}

/* No site rests, a part of them a step; then the wheel is swept. */
static void end_rests(struct worker *worker)
{
    const struct site_table *sites = worker->engine->sites;
    uint32_t count = site_table_count_xcore(sites);
    for (uint32_t i = 0; i < STEP_SITES && worker->rests_next < count; i++) {
        site_rest_end_xcore(site_at_xcore(sites, worker->rests_next++));
    }
    if (worker->rests_next >= count) {
        worker->rests_next = UINT32_MAX;
        worker->sweep_slot = 0;
    }
}

/* Recipients of a batch are looked for wherever they wait, one slot a step: the last one first, as
 * time moves them to the front. */
static void sweep(struct worker *worker)
{
    uint32_t last = RETRY_FINE_SLOTS + RETRY_COARSE_SLOTS - 1;
    uint32_t slot = last - worker->sweep_slot;
    worker->sweep_slot = slot > 0 ? worker->sweep_slot + 1 : UINT32_MAX;
    (void)retry_sweep_xcore(worker->engine->retry, slot, &worker->due);
}

/* All of them are found. */
static void give_retried(struct worker *worker)
{
    while (worker->retried.count > 0 && worker->due.count < STEP_DUE) {
        inbox_chain_add(&worker->due, inbox_chain_take(&worker->retried));
    }
    if (worker->retry_order != NULL && worker->retried.count == 0) {
        inbox_push_xcore(worker->retry_order->reply_to, &worker->retry_order->node);
        worker->retry_order = NULL;
    }
}

bool worker_retry_step(struct worker *worker, struct mono_time now)
{
    uint32_t now_s = steady_now_s(worker->engine);
    if (worker->rests_next != UINT32_MAX) {
        end_rests(worker);
    } else if (worker->due.count == 0 && worker->sweep_slot != UINT32_MAX) {
        sweep(worker);
    } else if (worker->due.count == 0 && worker->retry_order != NULL) {
        give_retried(worker);
    }
    if (worker->due.count == 0) {
        (void)retry_take_xcore(worker->engine->retry, now_s, &worker->due);
    }
    deal(worker, now_s, now);
    return worker->due.count > 0 || worker->sweep_slot != UINT32_MAX || worker->retry_order != NULL;
}

/* Looking through the wheel costs a microsecond or two: a busy worker does it now and then. What
 * another worker pushes meanwhile that one will take; what intake pushes after a restart is seen at
 * the next look. */
struct mono_time worker_retry_wake(struct worker *worker, struct mono_time now)
{
    struct mono_time look_at = mono_add_ms(worker->retry_looked, RETRY_LOOK_MS);
    /* What was due then has been taken by now, by this worker or another. */
    if (mono_before(now, look_at) && mono_before(now, worker->retry_due)) {
        return mono_earlier(worker->retry_due, look_at);
    }
    worker->retry_looked = now;
    worker->retry_due = MONO_NEVER;
    const struct engine *engine = worker->engine;
    uint32_t next_s = retry_next_due_xcore(engine->retry, steady_now_s(engine));
    if (next_s != UINT32_MAX) {
        int64_t at_ns = (int64_t)next_s * NS_PER_S - engine->steady_ahead_ns;
        worker->retry_due = at_ns > now.ns ? (struct mono_time){.ns = at_ns} : now;
    }
    return worker->retry_due;
}
