/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker_priv.h"

#include "engine/steady.h"

enum { STEP_DUE = 1024, DEAL_CHUNK = 256, RETRY_LOOK_MS = 50 };

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
                retry_push_xcore(worker->engine->retry, recipient);
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

bool worker_retry_step(struct worker *worker, struct mono_time now)
{
    uint32_t now_s = steady_now_s(worker->engine);
    if (worker->due.count == 0 && worker->sweep_slot != UINT32_MAX) {
        /* A batch was cancelled: its recipients are looked for wherever they wait, one slot a step.
         */
        (void)retry_sweep_xcore(worker->engine->retry, worker->sweep_slot++, &worker->due);
        if (worker->sweep_slot == RETRY_FINE_SLOTS + RETRY_COARSE_SLOTS) {
            worker->sweep_slot = UINT32_MAX;
        }
    }
    if (worker->due.count == 0) {
        (void)retry_take_xcore(worker->engine->retry, now_s, &worker->due);
    }
    deal(worker, now_s, now);
    return worker->due.count > 0 || worker->sweep_slot != UINT32_MAX;
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
