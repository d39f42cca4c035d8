/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker.h"

#include <errno.h>
#include <stdlib.h>

#include "dns/resolver.h"
#include "engine/compose.h"
#include "engine/delivery.h"
#include "engine/dispatch.h"
#include "engine/intake.h"
#include "engine/load.h"
#include "queue/journal.h"

/* Budgets of one step, so that none of the inboxes starves the others. */
enum {
    STEP_RECIPIENTS = 1024,
    STEP_ENTRIES = 4096,
    STEP_LANES = 256,
    STEP_TIMERS = 1024,
    STEP_DUE = 1024,
    STEP_PENDING = 1024,
    STEP_DOMAINS = 16384,
    DEAL_CHUNK = 256,
    RETRY_LOOK_MS = 50,
    PUSH_RECORDS = 128,
    PUSH_NS = 500000,
};

/* Marks a query whose `user` names a lane; otherwise it names a domain. */
static const uint64_t QUERY_OF_LANE = UINT64_C(1) << 63;

struct batch *worker_batch(const struct worker *worker, const struct recipient *recipient)
{
    ensure(recipient->batch < worker->engine->config->batches_max);
    return &worker->engine->batches[recipient->batch];
}

bool worker_may_attempt(const struct worker *worker)
{
    return slab_left(&worker->attempts) > 0 &&
           slab_left(&worker->entries_free) > worker->attempts.count_out;
}

void worker_give(struct worker *worker, struct slab *slab, void *slot)
{
    bool had_none = slab_left(slab) == 0;
    bool is_of_attempts = slab == &worker->attempts || slab == &worker->entries_free;
    had_none |= is_of_attempts && !worker_may_attempt(worker);
    slab_give(slab, slot);
    worker->has_room |= had_none;
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

/* Placing: domain -> route -> site -> lane. */

static struct worker_domain *domain_of(struct worker *worker, const struct recipient *recipient)
{
    struct worker_domain *domain = &worker->domains[recipient->domain];
    uint32_t generation = domain_generation_xcore(worker->engine->domains, recipient->domain);
    if (domain->generation != generation) {
        ensure(domain->pending_count == 0);
        /* The place in the queue stays: others stand behind it. */
        *domain = (struct worker_domain){.generation = generation,
                                         .wait_next = domain->wait_next,
                                         .is_waiting = domain->is_waiting};
    }
    return domain;
}

/* The same source for all attempts of a recipient (greylisting looks at it): by its place in the
 * batch. */
static uint32_t source_of(const struct worker *worker, const struct recipient *recipient)
{
    return (recipient->ordinal / LOAD_MIXED_MAX) % worker->engine->config->sources_count;
}

static void pend(struct worker_domain *domain, struct recipient *recipient)
{
    recipient->node.link.next = NULL;
    if (domain->pending_last == NULL) {
        domain->pending_first = &recipient->node;
    } else {
        domain->pending_last->link.next = &recipient->node.link;
    }
    domain->pending_last = &recipient->node;
    domain->pending_count++;
}

static struct recipient *unpend(struct worker_domain *domain)
{
    struct inbox_node *node = domain->pending_first;
    if (node == NULL) {
        return NULL;
    }
    domain->pending_first = (struct inbox_node *)(void *)node->link.next;
    if (domain->pending_first == NULL) {
        domain->pending_last = NULL;
    }
    domain->pending_count--;
    return CONTAINER_OF(node, struct recipient, node);
}

static bool domain_ask(struct worker *worker, struct worker_domain *domain, uint32_t index)
{
    if (domain->is_asked) {
        return true;
    }
    if (slab_left(&worker->queries) <= WORKER_QUERIES_OF_LANES) {
        return false;
    }
    struct mx_query *query = slab_take(&worker->queries);
    ensure(query != NULL);
    struct span name = domain_name_xcore(worker->engine->domains, index);
    ensure(name.size <= MX_NAME_MAX);
    query->reply_to = &worker->answers;
    query->kind = MX_KIND_MAIL;
    query->name_size = (uint16_t)name.size;
    memcpy(query->name, name.at, name.size);
    query->name[name.size] = '\0';
    query->user = (uint64_t)(domain->generation & 0x7fffffffu) << 32 | index;
    domain->is_asked = true;
    inbox_push_xcore(&worker->engine->resolver->queries, &query->node);
    return true;
}

/* No query is free: the domain is asked for when its turn comes. */
static void domain_wait(struct worker *worker, struct worker_domain *domain, uint32_t index)
{
    if (domain->is_waiting) {
        return;
    }
    odd(worker_queries_full);
    domain->is_waiting = true;
    domain->wait_next = 0;
    if (worker->wait_last == 0) {
        worker->wait_first = index + 1;
    } else {
        worker->domains[worker->wait_last - 1].wait_next = index + 1;
    }
    worker->wait_last = index + 1;
}

/* Queries have come back: the next domains are asked for. */
static void ask_waiting(struct worker *worker)
{
    while (worker->wait_first != 0 && slab_left(&worker->queries) > WORKER_QUERIES_OF_LANES) {
        uint32_t index = worker->wait_first - 1;
        struct worker_domain *domain = &worker->domains[index];
        ensure(domain->is_waiting);
        domain->is_waiting = false;
        worker->wait_first = domain->wait_next;
        worker->wait_last = worker->wait_first == 0 ? 0 : worker->wait_last;
        if (domain->pending_count > 0) {
            ensure(domain_ask(worker, domain, index));
        }
    }
}

static const struct config_route *domain_route(struct worker *worker, struct worker_domain *domain,
                                               uint32_t index)
{
    const struct config *config = worker->engine->config;
    if (domain->route == 0) {
        uint32_t route;
        (void)config_route_of(config, domain_name_xcore(worker->engine->domains, index), &route);
        domain->route = route + 1;
    }
    return &config->routes[domain->route - 1];
}

/* The site of a route with hosts of its own: one for all its domains. */
static struct site *route_site(struct worker *worker, const struct config_route *route)
{
    uint64_t number = (uint64_t)(route - worker->engine->config->routes);
    char name[SITE_NAME_MAX];
    struct writer writer = writer_of(name, sizeof(name));
    writer_put(&writer, SPAN("route:"));
    struct span pattern = span_of_text(route->pattern);
    writer_put(&writer, span_of(pattern.at, pattern.size < 200 ? pattern.size : 200));
    return site_obtain_xcore(worker->engine->sites, UINT64_C(0x7261726f75746500) + number,
                             writer_span(&writer), route);
}

/* Two routes over the same MX set have limits of their own: they are two sites. */
uint64_t worker_site_key(const struct worker *worker, const struct mx_answer *answer,
                         const struct config_route *route)
{
    uint64_t number = (uint64_t)(route - worker->engine->config->routes) + 1;
    return answer->site_key ^ number << 48;
}

bool worker_may_use_stale(const struct worker *worker)
{
    return stat_read_xcore(&worker->engine->resolver->stats.is_failing) != 0;
}

/* The domain's site, from its route or the MX cache. NULL: not known yet (asked), or no room;
 * *ret_is_nowhere: it has no hosts. */
static struct site *domain_site(struct worker *worker, struct worker_domain *domain, uint32_t index,
                                struct mono_time now, bool *ret_is_nowhere)
{
    *ret_is_nowhere = false;
    if (domain->site != NULL && domain->site_until_ns > now.ns) {
        return domain->site;
    }
    const struct config_route *route = domain_route(worker, domain, index);
    if (route->hosts_count > 0) {
        domain->site = route_site(worker, route);
        domain->site_until_ns = INT64_MAX;
        return domain->site;
    }
    const struct mx_answer *answer;
    struct span name = domain_name_xcore(worker->engine->domains, index);
    enum mx_freshness freshness =
        mx_cache_find_xcore(worker->engine->mx_cache, MX_KIND_MAIL, name, now, &answer);
    if (freshness == MX_MISSING && domain->is_answered) {
        *ret_is_nowhere = true;
        return NULL;
    }
    bool is_wanted = freshness == MX_MISSING || (freshness == MX_STALE && !domain->is_answered);
    if (is_wanted && !domain_ask(worker, domain, index)) {
        domain_wait(worker, domain, index);
    }
    if (freshness == MX_MISSING) {
        return NULL;
    }
    if (freshness == MX_STALE && domain->is_asked && !worker_may_use_stale(worker)) {
        return NULL;
    }
    if (answer->outcome != MX_OK) {
        *ret_is_nowhere = true;
        return NULL;
    }
    domain->site = site_obtain_xcore(worker->engine->sites, worker_site_key(worker, answer, route),
                                     span_of(answer->site_name, answer->site_name_size), route);
    domain->site_until_ns = freshness == MX_FRESH ? answer->expires.ns : 0;
    return domain->site;
}

void worker_forget_site(struct worker *worker, const struct recipient *recipient)
{
    domain_of(worker, recipient)->site_until_ns = 0;
}

/* Cancelled or expired: it needs no host to be settled. */
static bool is_over(struct worker *worker, const struct recipient *recipient,
                    struct worker_domain *domain)
{
    const struct batch *batch = worker_batch(worker, recipient);
    const struct config_route *route = domain_route(worker, domain, recipient->domain);
    return (stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0 ||
           wall_seconds(clock_wall(worker->engine->clock)) > outcome_expiry_s(batch, route);
}

void worker_place_recipient(struct worker *worker, struct recipient *recipient,
                            struct mono_time now)
{
    ensure(recipient->domain != DOMAIN_NONE);
    struct worker_domain *domain = domain_of(worker, recipient);
    bool is_nowhere;
    struct site *site = domain_site(worker, domain, recipient->domain, now, &is_nowhere);
    struct lane *lane = is_nowhere ? worker->nowhere : NULL;
    if (site != NULL) {
        lane = lane_obtain(worker, site, source_of(worker, recipient));
    }
    if (lane == NULL && is_over(worker, recipient, domain)) {
        lane = worker->nowhere;
    }
    if (lane == NULL) {
        pend(domain, recipient);
        worker_move(worker, PLACE_NONE, PLACE_DOMAIN, 1);
        if (site != NULL || !domain->is_asked) {
            worker->has_homeless = true; /* no lane, site or query was free: tried again */
        }
        return;
    }
    worker_move(worker, PLACE_NONE, PLACE_READY, 1);
    lane_push(lane, recipient);
}

/* What waits on a domain now is to be placed again: a part a step, in release_some. The domain
 * stays what it is meanwhile: those who wait hold it. */
static void domain_release(struct worker *worker, struct worker_domain *domain)
{
    if (domain->pending_count == 0 || domain->release_left > 0) {
        return;
    }
    uint32_t place = (uint32_t)(domain - worker->domains) + 1;
    domain->release_left = domain->pending_count;
    domain->release_next = 0;
    if (worker->release_last == 0) {
        worker->release_first = place;
    } else {
        worker->domains[worker->release_last - 1].release_next = place;
    }
    worker->release_last = place;
}

/* True when there is more to do at once. */
static bool release_some(struct worker *worker, struct mono_time now)
{
    for (uint32_t i = 0; i < STEP_PENDING && worker->release_first != 0; i++) {
        struct worker_domain *domain = &worker->domains[worker->release_first - 1];
        ensure(domain->release_left > 0);
        ensure(domain->release_left <= domain->pending_count);
        struct recipient *recipient = unpend(domain);
        worker_move(worker, PLACE_DOMAIN, PLACE_NONE, 1);
        worker_place_recipient(worker, recipient, now);
        if (--domain->release_left == 0) {
            domain->is_answered = false;
            worker->release_first = domain->release_next;
            worker->release_last = worker->release_first == 0 ? 0 : worker->release_last;
        }
    }
    return worker->release_first != 0;
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

static void take_answers(struct worker *worker)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->answers)) != NULL) {
        struct mx_query *query = CONTAINER_OF(node, struct mx_query, node);
        uint64_t user = query->user;
        worker_give(worker, &worker->queries, query);
        if ((user & QUERY_OF_LANE) != 0) {
            struct lane *lane =
                slab_at_handle(&worker->lanes, handle_of_u64(user & ~QUERY_OF_LANE));
            if (lane != NULL) {
                lane->is_asked = false;
                lane->is_answered = true;
                lane_mark_dirty(lane);
            }
            continue;
        }
        struct worker_domain *domain = &worker->domains[(uint32_t)user];
        if ((domain->generation & 0x7fffffffu) == user >> 32) {
            domain->is_asked = false;
            domain_release(worker, domain);
            /* An answer that is not in the cache now was not kept: no asking for ever. */
            domain->is_answered = domain->release_left > 0;
        }
    }
}

static void take_kicks(struct worker *worker)
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

static void take_orders(struct worker *worker)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->orders)) != NULL) {
        struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
        if (order->is_cancel && worker->index == 0) {
            worker->sweep_slot = 0; /* the others know already: none puts more into the wheel */
        }
        for (struct list *link = worker->lanes_all.next; link != &worker->lanes_all;
             link = link->next) {
            struct lane *lane = CONTAINER_OF(link, struct lane, link);
            if (order->is_cancel) {
                ready_cancel(&lane->ready, order->batch);
            } else {
                ready_resume(&lane->ready);
            }
            lane_mark_dirty(lane);
        }
        struct inbox *next = worker->index == 0
                                 ? order->reply_to
                                 : &worker->engine->workers[worker->index - 1]->orders;
        inbox_push_xcore(next, &order->node);
    }
}

static void report_row(struct worker_report *report, const struct lane *lane, struct mono_time now)
{
    uint64_t backlog = lane_backlog(lane);
    uint32_t at = report->rows_count;
    while (at > 0 && report->rows[at - 1].backlog < backlog) {
        at--;
    }
    if (at == WORKER_REPORT_ROWS) {
        return;
    }
    if (report->rows_count < WORKER_REPORT_ROWS) {
        report->rows_count++;
    }
    struct worker_report_row *row = &report->rows[at];
    memmove(row + 1, row, (report->rows_count - at - 1) * sizeof(*row));
    memset(row, 0, sizeof(*row));
    memcpy(row->site, lane->site->name, lane->site->name_size);
    row->backlog = backlog;
    row->sessions = lane->sessions_count;
    row->delivered = stat_read_xcore(&lane->delivered);
    row->deferred = stat_read_xcore(&lane->deferred);
    row->bounced = stat_read_xcore(&lane->bounced);
    struct mono_time until = site_suspended_until_xcore(lane->site, now);
    row->suspended_ms = until.ns == 0 ? 0 : (until.ns - now.ns) / NS_PER_MS;
    size_t size = lane->error_size < WORKER_REPORT_TEXT ? lane->error_size : WORKER_REPORT_TEXT - 1;
    memcpy(row->last_error, lane->error_text, size);
}

static void take_reports(struct worker *worker, struct mono_time now)
{
    struct inbox_node *node;
    while ((node = inbox_take(&worker->reports)) != NULL) {
        struct worker_report *report = CONTAINER_OF(node, struct worker_report, node);
        report->rows_count = 0;
        for (struct list *link = worker->lanes_all.next; link != &worker->lanes_all;
             link = link->next) {
            const struct lane *lane = CONTAINER_OF(link, struct lane, link);
            if (lane->site != NULL) {
                report_row(report, lane, now);
            }
        }
        inbox_push_xcore(report->reply_to, &report->node);
    }
}

/* The retry wheel. */

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

/* True when there is more to do at once. */
static bool take_due(struct worker *worker, struct mono_time now)
{
    uint32_t now_s = wall_seconds(clock_wall(worker->engine->clock));
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
static struct mono_time retry_wake(struct worker *worker, struct mono_time now)
{
    struct mono_time look_at = mono_add_ms(worker->retry_looked, RETRY_LOOK_MS);
    /* What was due then has been taken by now, by this worker or another. */
    if (mono_before(now, look_at) && mono_before(now, worker->retry_due)) {
        return mono_earlier(worker->retry_due, look_at);
    }
    worker->retry_looked = now;
    worker->retry_due = MONO_NEVER;
    struct wall_time wall = clock_wall(worker->engine->clock);
    uint32_t next_s = retry_next_due_xcore(worker->engine->retry, wall_seconds(wall));
    if (next_s != UINT32_MAX) {
        int64_t in_ns = (int64_t)next_s * NS_PER_S - wall.ns;
        worker->retry_due = mono_add_ns(now, in_ns > 0 ? in_ns : 0);
    }
    return worker->retry_due;
}

/* Lanes. */

/* Whether some of everything is free that a lane may wait for on the list of starved ones. */
static bool has_some_of_all(const struct worker *worker)
{
    const struct slab *const slabs[] = {
        &worker->deliveries, &worker->loads_free, &worker->queries, &worker->plans,
        &worker->bufs[0],    &worker->bufs[1],    &worker->bufs[2], &worker->bufs[3],
    };
    for (size_t i = 0; i < COUNT_OF(slabs); i++) {
        if (slab_left(slabs[i]) == 0) {
            return false;
        }
    }
    return worker_may_attempt(worker);
}

/* Something came back of which there was none: some of the starved lanes are looked at again,
 * before the lane that gave it back, which would take it again. The others as well, a part a step,
 * unless something runs out: its coming back is the next sign. */
static void feed_starved(struct worker *worker)
{
    if (!worker->has_room) {
        return;
    }
    struct list fed;
    struct list *node;
    list_init(&fed);
    for (uint32_t i = 0; i < STEP_LANES && (node = list_take_first(&worker->lanes_starved)); i++) {
        list_add_first(&fed, node);
    }
    while ((node = list_take_first(&fed)) != NULL) {
        list_add_first(&worker->lanes_dirty, node);
    }
    worker->has_room = !list_is_empty(&worker->lanes_starved) && has_some_of_all(worker);
}

static bool dispatch_dirty(struct worker *worker, struct mono_time now)
{
    feed_starved(worker);
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

/* Whether the domain is to be looked at again. One that waits for its turn to be asked for need not
 * be, unless who waits there is over. */
static bool is_homeless(struct worker *worker, struct worker_domain *domain)
{
    if (!domain->is_waiting || domain->pending_count == 0) {
        return !domain->is_asked;
    }
    const struct recipient *recipient = CONTAINER_OF(domain->pending_first, struct recipient, node);
    return is_over(worker, recipient, domain);
}

/* Recipients that found no lane, site or query free: all domains are looked at again, a part a
 * step. True when there is more to do at once. */
static bool rehouse(struct worker *worker, struct mono_time now)
{
    if (worker->rehouse_next == 0) {
        if (!worker->has_homeless || mono_before(now, worker->rehouse_at)) {
            return false;
        }
        worker->has_homeless = false;
        worker->rehouse_at = mono_add_ms(now, 1000);
    }
    uint32_t domains_max = worker->engine->config->domains_max;
    for (uint32_t i = 0; i < STEP_DOMAINS && worker->rehouse_next < domains_max; i++) {
        struct worker_domain *domain = &worker->domains[worker->rehouse_next++];
        if (is_homeless(worker, domain)) {
            domain_release(worker, domain);
        }
    }
    if (worker->rehouse_next < domains_max) {
        return true;
    }
    worker->rehouse_next = 0;
    return false;
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
    ask_waiting(worker);
    take_kicks(worker);
    take_orders(worker);
    take_reports(worker, now);
    begin_drain(worker);
    is_more |= take_recipients(worker, now);
    is_more |= take_due(worker, now);
    is_more |= rehouse(worker, now);
    is_more |= release_some(worker, now);
    is_more |= dispatch_dirty(worker, now);
    next = mono_earlier(next, push_decided(worker, now));
    inbox_push_chain_xcore(&worker->engine->intake->recipients, &worker->settled);
    worker_check(worker);
    if (is_more || worker->has_room) {
        return now;
    }
    next = mono_earlier(next, timer_wheel_next(&worker->timers));
    if (worker->has_homeless) {
        next = mono_earlier(next, worker->rehouse_at);
    }
    return mono_earlier(next, retry_wake(worker, now));
}

static void worker_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct worker *worker = (struct worker *)actor;
    net_wait(worker->net, now, deadline);
}

/* Start and stop. */

static int init_slabs(struct worker *worker)
{
    static const char *const BUFS[COMPOSE_BUF_CLASSES] = {"bufs 2K", "bufs 16K", "bufs 128K",
                                                          "bufs 2M"};
    const struct config *config = worker->engine->config;
    uint32_t sessions = worker->sessions_max;
    uint32_t lanes = config->sites_max < 1u << 20 ? config->sites_max : 1u << 20;
    const struct {
        struct slab *slab;
        const char *name;
        size_t size;
        uint32_t count;
    } rows[] = {
        {&worker->lanes, "lanes", sizeof(struct lane), lanes + 1},
        {&worker->deliveries, "deliveries", sizeof(struct delivery), sessions},
        {&worker->attempts, "attempts", sizeof(struct attempt), WORKER_ATTEMPTS_MAX},
        {&worker->entries_free, "entries", sizeof(struct journal_entry), 2 * WORKER_ATTEMPTS_MAX},
        {&worker->loads_free, "loads", sizeof(struct load), WORKER_LOADS_MAX},
        {&worker->queries, "queries", sizeof(struct mx_query), WORKER_QUERIES_MAX},
        {&worker->rcpts_blocks, "rcpts", sizeof(struct rcpts_block), sessions},
        {&worker->plans, "plans", sizeof(struct plan), sessions},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        int result =
            slab_init(rows[i].slab, rows[i].name, (rows[i].size + 7) & ~(size_t)7, rows[i].count);
        if (result != 0) {
            return result;
        }
    }
    for (uint32_t i = 0; i < COMPOSE_BUF_CLASSES; i++) {
        uint32_t count = i < 2 ? sessions : i == 2 ? (sessions / 4) + 16 : (sessions / 64) + 16;
        int result = slab_init(&worker->bufs[i], BUFS[i], COMPOSE_BUF_SIZES[i], count);
        if (result != 0) {
            return result;
        }
    }
    return ready_pool_init(&worker->ready_pool, lanes + 65536);
}

static int init_tables(struct worker *worker)
{
    uint32_t lanes = 1;
    while (lanes < worker->lanes.count_max && lanes < 1u << 20) {
        lanes *= 2;
    }
    worker->lanes_mask = lanes - 1;
    worker->lanes_by_key = calloc(lanes, sizeof(struct lane *));
    worker->domains = calloc(worker->engine->config->domains_max, sizeof(struct worker_domain));
    worker->record = calloc(1, sizeof(*worker->record));
    worker->scratch = malloc(COMPOSE_SCRATCH_SIZE);
    worker->parser = scan_parser_create();
    bool is_complete = worker->lanes_by_key != NULL && worker->domains != NULL &&
                       worker->record != NULL && worker->scratch != NULL && worker->parser != NULL;
    return is_complete ? 0 : -ENOMEM;
}

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
    worker->retry_due = MONO_NEVER;
    worker->retry_looked.ns = INT64_MIN / 2;
    uint32_t share = config->engine->config->sessions_max / config->engine->workers_count;
    worker->sessions_max = share > 0 ? share : 1;
    list_init(&worker->lanes_all);
    list_init(&worker->lanes_dirty);
    list_init(&worker->lanes_starved);
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
    result = init_slabs(worker);
    if (result == 0) {
        result = init_tables(worker);
    }
    if (result != 0) {
        return result;
    }
    worker->nowhere = slab_take(&worker->lanes);
    lane_init(worker->nowhere, worker, NULL, 0);
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
    struct slab *const slabs[] = {
        &worker->lanes,   &worker->deliveries,   &worker->attempts, &worker->entries_free,
        &worker->queries, &worker->rcpts_blocks, &worker->plans,    &worker->loads_free,
        &worker->bufs[0], &worker->bufs[1],      &worker->bufs[2],  &worker->bufs[3],
    };
    for (size_t i = 0; i < COUNT_OF(slabs); i++) {
        slab_abandon(slabs[i]); /* recipients may be anywhere: the journal knows them */
    }
    ready_pool_abandon(&worker->ready_pool);
    scan_parser_destroy(worker->parser);
    free(worker->scratch);
    free(worker->record);
    free(worker->domains);
    free(worker->lanes_by_key);
    waker_deinit(&worker->actor.waker);
    memset(worker, 0, sizeof(*worker));
}
