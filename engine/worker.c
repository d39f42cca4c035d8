/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker.h"

#include "dns/resolver.h"
#include "engine/delivery.h"
#include "engine/dispatch.h"
#include "engine/intake.h"
#include "engine/load.h"
#include "engine/worker_priv.h"
#include "queue/journal.h"

/* Budgets of one step, so that none of the inboxes starves the others. */
enum {
    STEP_RECIPIENTS = 1024,
    STEP_ENTRIES = 4096,
    STEP_LANES = 256,
    STEP_TIMERS = 1024,
    PUSH_RECORDS = 128,
    PUSH_NS = 500000,
};

struct batch *worker_batch(const struct worker *worker, const struct recipient *recipient)
{
    ensure(recipient->batch < worker->engine->config->batches_max);
    return &worker->engine->batches[recipient->batch];
}

bool worker_may_attempt(const struct worker *worker)
{
    return slab_left(&worker->attempts) > 0 &&
           worker->entries_free.count_out < WORKER_UNWRITTEN_MAX;
}

void worker_move(struct worker *worker, unsigned from, unsigned to, uint64_t count)
{
    ensure(from != to);
    ensure(from <= PLACE_NONE);
    ensure(to <= PLACE_NONE);
    ensure(from == PLACE_NONE || stat_read_xcore(&worker->stats.places[from]) >= count); /* LAW 1 */
    if (from != PLACE_NONE) {
        stat_sub(&worker->stats.places[from], count);
    }
    if (to != PLACE_NONE) {
        stat_add(&worker->stats.places[to], count);
    }
}

void worker_check(const struct worker *worker)
{
    const struct worker_stats *stats = &worker->stats;
    uint64_t here = 0;
    for (unsigned i = 0; i < WORKER_PLACES_COUNT; i++) {
        uint64_t place = stat_read_xcore(&stats->places[i]);
        ensure(place < UINT64_MAX / 2); /* never below zero */
        here += place;
    }
    uint64_t away = stat_read_xcore(&stats->returned) + stat_read_xcore(&stats->wheeled) +
                    stat_read_xcore(&stats->handed);
    ensure(stat_read_xcore(&stats->received) == here + away); /* LAW 3 */
    /* One attempt a recipient in flight, one entry a record under way, one more for each attempt.
     */
    ensure(stat_read_xcore(&stats->places[PLACE_FLIGHT]) == worker->attempts.count_out);
    ensure(stat_read_xcore(&stats->places[PLACE_JOURNAL]) == worker->entries_free.count_out);
    ensure(slab_left(&worker->entries_free) >= worker->attempts.count_out);
    ensure(worker->ending_count <= worker->deliveries.count_out);
    ensure(worker->sessionless_count <= worker->lanes.count_out);
    ensure(stat_read_xcore(&stats->sessions) == worker->deliveries.count_out);
}

bool worker_is_drained(const struct worker *worker)
{
    return stat_read_xcore(&worker->stats.sessions) == 0 &&
           stat_read_xcore(&worker->stats.places[PLACE_FLIGHT]) == 0 &&
           stat_read_xcore(&worker->stats.places[PLACE_JOURNAL]) == 0;
}

/* Inboxes. */

static bool take_recipients(struct worker *worker, struct mono_time now)
{
    for (uint32_t i = 0; i < STEP_RECIPIENTS; i++) {
        struct inbox_node *node = inbox_take(&worker->recipients);
        if (node == NULL) {
            return false;
        }
        stat_add(&worker->stats.received, 1);
        worker_place_recipient(worker, CONTAINER_OF(node, struct recipient, node), now);
    }
    return true;
}

static bool take_entries(struct worker *worker)
{
    for (uint32_t i = 0; i < STEP_ENTRIES; i++) {
        struct inbox_node *node = inbox_take(&worker->entries);
        if (node == NULL) {
            return false;
        }
        outcome_on_durable(worker, CONTAINER_OF(node, struct journal_entry, node));
    }
    return true;
}

static void take_loads(struct worker *worker)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->loads)) != NULL) {
        dispatch_on_load(worker, CONTAINER_OF(node, struct load, node));
    }
}

bool worker_ask(struct worker *worker, enum mx_kind kind, struct span name, uint64_t user)
{
    ensure(name.size > 0);
    ensure(name.size <= MX_NAME_MAX);
    struct mx_query *query = slab_take(&worker->queries);
    if (query == NULL) {
        return false;
    }
    query->reply_to = &worker->answers;
    query->kind = kind;
    query->name_size = (uint16_t)name.size;
    memcpy(query->name, name.at, name.size);
    query->name[name.size] = '\0';
    query->user = user;
    inbox_push_xcore(&worker->engine->resolver->queries, &query->node);
    return true;
}

static void take_answers(struct worker *worker)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->answers)) != NULL) {
        struct mx_query *query = CONTAINER_OF(node, struct mx_query, node);
        uint64_t user = query->user;
        worker_give(worker, &worker->queries, query);
        if ((user & WORKER_QUERY_OF_LANE) == 0) {
            worker_domain_on_answer(worker, user);
            continue;
        }
        struct lane *lane =
            slab_at_handle(&worker->lanes, handle_of_u64(user & ~WORKER_QUERY_OF_LANE));
        if (lane != NULL) {
            lane->is_asked = false;
            lane->is_answered = true;
            lane_mark_dirty(lane);
        }
    }
}

void worker_take_kicks(struct worker *worker)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->kicks)) != NULL) {
        struct limit_waiter *waiter = CONTAINER_OF(node, struct limit_waiter, node);
        struct lane_wait *wait = CONTAINER_OF(waiter, struct lane_wait, waiter);
        ensure(wait->is_away);
        wait->is_away = false;
        lane_mark_dirty(wait->lane);
    }
}

/* Lanes. */

static bool dispatch_dirty(struct worker *worker, struct mono_time now)
{
    worker_starved_feed(worker);
    struct list *node;
    for (uint32_t i = 0; i < STEP_LANES; i++) {
        node = list_take_first(&worker->lanes_dirty);
        if (node == NULL) {
            return false;
        }
        dispatch_lane(CONTAINER_OF(node, struct lane, dirty), now);
    }
    return !list_is_empty(&worker->lanes_dirty);
}

/* The engine stops: idle sessions end now, those that are not up yet, or wait for a greeting, are
 * given up; the others end behind their transaction. */
static void begin_drain(struct worker *worker)
{
    if (worker->is_draining || stat_read_xcore(&worker->engine->is_draining) == 0) {
        return;
    }
    worker->is_draining = true;
    for (struct list *link = worker->lanes_all.next; link != &worker->lanes_all;
         link = link->next) {
        struct lane *lane = CONTAINER_OF(link, struct lane, link);
        lane_mark_dirty(lane);
        for (struct list *node = lane->sessions.next; node != &lane->sessions; node = node->next) {
            const struct delivery *delivery = CONTAINER_OF(node, struct delivery, link);
            if (!delivery->has_reached) {
                (void)net_close(worker->net, delivery->conn, true);
            }
        }
    }
}

/* Records go to the journal in heaps while more are on their way: each push wakes it. Returns when
 * what stays is due. */
static struct mono_time push_decided(struct worker *worker, struct mono_time now)
{
    if (worker->decided.count == 0) {
        return MONO_NEVER;
    }
    if (worker->decided_since.ns == 0) {
        worker->decided_since = now;
    }
    struct mono_time due = mono_add_ns(worker->decided_since, PUSH_NS);
    bool is_last = stat_read_xcore(&worker->stats.places[PLACE_FLIGHT]) == 0;
    if (!is_last && worker->decided.count < PUSH_RECORDS && mono_before(now, due)) {
        return due;
    }
    worker->decided_since.ns = 0;
    inbox_push_chain_xcore(&worker->engine->journal->entries, &worker->decided);
    return MONO_NEVER;
}

static struct mono_time worker_step(struct actor *actor, struct mono_time now)
{
    struct worker *worker = (struct worker *)actor;
    worker->now = now;
    stat_add(&worker->stats.steps, 1);
    struct mono_time next = net_run_once(worker->net, now);
    bool is_more = timer_wheel_expire(&worker->timers, now, STEP_TIMERS) == STEP_TIMERS;
    is_more |= take_entries(worker);
    take_loads(worker);
    take_answers(worker);
    is_more |= worker_domain_ask_step(worker);
    worker_take_kicks(worker);
    is_more |= worker_orders_step(worker);
    is_more |= worker_reports_step(worker, now);
    lane_spare_step(worker, now);
    begin_drain(worker);
    is_more |= take_recipients(worker, now);
    is_more |= worker_retry_step(worker, now);
    is_more |= worker_domain_rehouse_step(worker, now);
    is_more |= worker_domain_release_step(worker, now);
    is_more |= dispatch_dirty(worker, now);
    next = mono_earlier(next, worker_starved_hurry(worker, now));
    next = mono_earlier(next, push_decided(worker, now));
    inbox_push_chain_xcore(&worker->engine->intake->recipients, &worker->settled);
    worker_check(worker);
    if (is_more || worker->has_room) {
        return now;
    }
    next = mono_earlier(next, timer_wheel_next(&worker->timers));
    next = mono_earlier(next, worker_domain_wake(worker));
    return mono_earlier(next, worker_retry_wake(worker, now));
}

static void worker_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct worker *worker = (struct worker *)actor;
    net_wait(worker->net, now, deadline);
}

/* Start and stop. */

static void init_inboxes(struct worker *worker)
{
    struct inbox *const inboxes[] = {
        &worker->recipients, &worker->loads,   &worker->entries, &worker->answers,
        &worker->kicks,      &worker->reports, &worker->orders,
    };
    for (size_t i = 0; i < COUNT_OF(inboxes); i++) {
        inbox_init(inboxes[i], &worker->actor.waker);
    }
    inbox_chain_init(&worker->due);
    inbox_chain_init(&worker->retried);
    inbox_chain_init(&worker->settled);
    inbox_chain_init(&worker->decided);
}

int worker_init(struct worker *worker, const struct worker_config *config, bool with_event_fd)
{
    memset(worker, 0, sizeof(*worker));
    worker->engine = config->engine;
    worker->index = config->index;
    worker->actor = (struct actor){.name = "worker", .step = worker_step, .wait = worker_wait};
    worker->sessions_next = config->index;
    worker->deal_next = config->index;
    worker->sweep_slot = UINT32_MAX;
    worker->rests_next = UINT32_MAX;
    worker->retry_due = MONO_NEVER;
    worker->retry_looked.ns = INT64_MIN / 2;
    uint32_t share = config->engine->config->sessions_max / config->engine->workers_count;
    worker->sessions_max = share > 0 ? share : 1;
    list_init(&worker->lanes_all);
    list_init(&worker->lanes_dirty);
    worker_starved_init(worker);
    list_init(&worker->lanes_unused);
    list_init(&worker->idle);
    int result = waker_init(&worker->actor.waker, with_event_fd);
    if (result != 0) {
        return result;
    }
    init_inboxes(worker);
    timer_wheel_init(&worker->timers, clock_mono(config->engine->clock));
    if (config->seed == 0) {
        random_init_system(&worker->random);
    } else {
        random_init_seed(&worker->random, config->seed);
    }
    result = worker_tables_init(worker);
    if (result != 0) {
        return result;
    }
    worker->nowhere = slab_take(&worker->lanes);
    lane_init(worker->nowhere, worker, NULL, 0, false);
    list_add_last(&worker->lanes_all, &worker->nowhere->link);
    const struct net_config net = {
        .conns_max = worker->sessions_max,
        .clock = config->engine->clock,
        .waker = &worker->actor.waker,
        .on_event = delivery_on_event,
        .context = worker,
    };
    worker->net = config->net_create(config->net_context, &net, &result);
    return worker->net != NULL ? 0 : result;
}

void worker_end(struct worker *worker)
{
    inbox_push_chain_xcore(&worker->engine->journal->entries, &worker->decided);
}

void worker_deinit(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    net_loop_destroy(worker->net);
    worker_tables_deinit(worker);
    waker_deinit(&worker->actor.waker);
    memset(worker, 0, sizeof(*worker));
}
