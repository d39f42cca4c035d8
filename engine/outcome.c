/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/outcome.h"

#include "engine/base/planted.h"
#include "engine/dispatch.h"
#include "engine/intake.h"
#include "engine/report.h"
#include "engine/steady.h"
#include "engine/worker.h"
#include "queue/backoff.h"
#include "queue/journal.h"

static const uint8_t WHAT[] = {
    [OUTCOME_DELIVERED] = JOURNAL_DELIVERED, [OUTCOME_DEFERRED] = JOURNAL_DEFERRED,
    [OUTCOME_BOUNCED] = JOURNAL_BOUNCED,     [OUTCOME_EXPIRED] = JOURNAL_EXPIRED,
    [OUTCOME_CANCELLED] = JOURNAL_CANCELLED,
};
_Static_assert(COUNT_OF(WHAT) == OUTCOME_CLASSES_COUNT, "a record for each class");

static const unsigned RESULTS[] = {
    [OUTCOME_DELIVERED] = MANIFEST_RESULT_DELIVERED, [OUTCOME_DEFERRED] = 0,
    [OUTCOME_BOUNCED] = MANIFEST_RESULT_BOUNCED,     [OUTCOME_EXPIRED] = MANIFEST_RESULT_EXPIRED,
    [OUTCOME_CANCELLED] = MANIFEST_RESULT_CANCELLED,
};

uint64_t outcome_expiry_s(const struct engine *engine, const struct batch *batch,
                          const struct config_route *route)
{
    ensure(batch->start_s > 0);
    uint64_t by_schedule_s = (uint64_t)batch->start_s + route->schedule.expire_s;
    uint32_t expires_s = wall_seconds(batch->manifest->expires);
    if (expires_s == 0) {
        return by_schedule_s;
    }
    uint32_t by_batch_s = steady_of_wall_s(engine, expires_s);
    return by_batch_s < by_schedule_s ? by_batch_s : by_schedule_s;
}

const struct config_route *outcome_route(const struct worker *worker,
                                         const struct recipient *recipient)
{
    const struct config *config = worker->engine->config;
    uint32_t route = worker->domains[recipient->domain].route;
    return &config->routes[route > 0 ? route - 1 : config->routes_count - 1];
}

/* Seconds until the next attempt; 0: there is none, the recipient has expired. */
static uint32_t delay_s(struct worker *worker, const struct recipient *recipient,
                        const struct batch *batch, const struct outcome *outcome, uint32_t now_s)
{
    const struct config_route *route = outcome_route(worker, recipient);
    uint64_t expiry_s = outcome_expiry_s(worker->engine, batch, route);
    if (now_s >= expiry_s) {
        return 0;
    }
    uint32_t age_s = now_s > batch->start_s ? now_s - batch->start_s : 0;
    uint32_t delay =
        outcome->is_ambiguous
            ? backoff_delay_ambiguous_s(&route->schedule, recipient->attempts_count, age_s)
            : backoff_delay_s(&route->schedule, recipient->attempts_count, age_s,
                              random_u32(&worker->random));
    uint64_t left_s = expiry_s - now_s;
    if (delay != 0 && delay < outcome->delay_min_s) {
        delay = outcome->delay_min_s;
    }
    return delay < left_s ? delay : (uint32_t)left_s;
}

static void count(struct worker *worker, const struct outcome *outcome, bool is_possible_duplicate)
{
    stat_add(&worker->stats.classes[outcome->class], 1);
    stat_add(&worker->stats.possible_duplicates, is_possible_duplicate ? 1 : 0);
}

void outcome_settle(struct worker *worker, struct attempt *attempt, const struct outcome *outcome,
                    struct mono_time now)
{
    (void)now;
    struct recipient *recipient = attempt->recipient;
    const struct batch *batch = attempt->batch;
    struct journal_entry *entry = slab_take(&worker->entries_free);
    ensure(entry != NULL); /* none is attempted without one: worker_may_attempt */
    ensure(attempt->place == PLACE_FLIGHT);
    ensure(recipient->batch == batch->index);
    ensure(recipient->ordinal < batch->records_count);
    struct wall_time at = clock_wall(worker->engine->clock);
    struct outcome final = *outcome;
    /* LAW 6: this attempt repeats one whose end of data was sent and whose answer was not read. */
    bool is_possible_duplicate =
        (recipient->flags & RECIPIENT_AMBIGUOUS) != 0 && !PLANTED(DUPLICATE_UNMARKED);
    bool is_untried = final.class == OUTCOME_CANCELLED || final.class == OUTCOME_EXPIRED;
    if (!is_untried && recipient->attempts_count < UINT16_MAX) {
        recipient->attempts_count++;
    }
    recipient->asides_count = 0;
    if (final.is_ambiguous) {
        recipient->flags |= RECIPIENT_AMBIGUOUS;
    }
    entry->due_s = 0;
    if (final.class == OUTCOME_DEFERRED) {
        uint32_t now_s = steady_now_s(worker->engine);
        uint32_t delay = delay_s(worker, recipient, batch, &final, now_s);
        if (delay == 0) {
            final.class = OUTCOME_EXPIRED;
        } else {
            recipient->due_s = now_s + delay;
            entry->due_s = wall_seconds(at) + delay;
        }
    }
    entry->reply_to = &worker->entries;
    entry->batch = worker_batch(worker, recipient);
    entry->ordinal = recipient->ordinal;
    entry->what = WHAT[final.class];
    entry->is_ambiguous = final.is_ambiguous;
    entry->is_possible_duplicate = is_possible_duplicate;
    entry->is_result = (batch->manifest->results & RESULTS[final.class]) != 0;
    entry->code = final.response.code;
    entry->attempts_count = recipient->attempts_count;
    entry->at_s = wall_seconds(at);
    entry->user = recipient;
    struct writer line = writer_of(entry->line, sizeof(entry->line));
    report_put_line(&line, worker->engine, &worker->report, attempt, &final,
                    recipient->attempts_count, is_possible_duplicate, at);
    entry->line_size = (uint16_t)writer_size(&line);
    count(worker, &final, is_possible_duplicate);
    worker_move(worker, PLACE_FLIGHT, PLACE_JOURNAL, 1);
    dispatch_drop_load(worker, attempt->load);
    worker_give(worker, &worker->attempts, attempt);
    inbox_chain_add(&worker->decided, &entry->node);
}

void outcome_on_durable(struct worker *worker, struct journal_entry *entry)
{
    struct recipient *recipient = entry->user;
    ensure(recipient->ordinal == entry->ordinal);
    ensure(recipient->attempts_count == entry->attempts_count);
    worker_move(worker, PLACE_JOURNAL, PLACE_NONE, 1);
    if (entry->what == JOURNAL_DEFERRED) {
        stat_add(&worker->stats.wheeled, 1);
        if ((stat_read_xcore(&worker_batch(worker, recipient)->orders) & BATCH_CANCELLED) != 0) {
            /* The sweep for it may be over: as if it had been found there. */
            if (!PLANTED(CANCEL_LOSES_ONE)) {
                inbox_chain_add(&worker->due, &recipient->node);
            }
        } else if (!PLANTED(RETRY_FORGOTTEN) || recipient->ordinal % 8 != 5) {
            retry_push_xcore(worker->engine->retry, recipient);
        }
    } else {
        stat_add(&worker->stats.returned, 1);
        inbox_chain_add(&worker->settled, &recipient->node);
    }
    worker_give(worker, &worker->entries_free, entry);
}
