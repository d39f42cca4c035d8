/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch_priv.h"

#include "engine/delivery.h"

enum {
    IDLE_LOOKS_MAX = 8,
    /* A session that has sent so many messages makes room when another lane waits for its site and
     * there are more lanes than connections. */
    TURN_MESSAGES = 20,
    /* The transport took no connection although we have a slot for it: looked at again after so
     * long. */
    CONNECT_AGAIN_MS = 100,
    RELIEF_MS = 1000,
    /* A connection is opened so long before the site's rate has a message for it. */
    RATE_LEAD_MS = 1000,
    RATE_YIELD_MS = RATE_LEAD_MS + 500,
};

/* What each lane of the site may hold when all want more; at least one. */
static uint32_t share_of(const struct lane *lane)
{
    uint32_t lanes = site_lanes_xcore(lane->site);
    uint32_t max = lane->site->connections.max;
    return lanes > 1 ? (max + lanes - 1) / lanes : max;
}

/* Beyond its share a lane takes only what leaves half a share free for one that begins later: they
 * would have to be given up again. */
static bool may_take_more(const struct lane *lane)
{
    uint32_t share = share_of(lane);
    const struct limit *limit = &lane->site->connections;
    return lane->sessions_count < share || limit_count_xcore(limit) + share / 2 < limit->max;
}

/* More sessions than others that wait for the same site leave to this lane; those that end already
 * will make room in a moment. */
static bool is_share_exceeded(const struct lane *lane)
{
    ensure(lane->ending_count <= lane->sessions_count);
    uint32_t staying = lane->sessions_count - lane->ending_count;
    return limit_is_wanted_xcore(&lane->site->connections) &&
           (staying > share_of(lane) || lane_backlog(lane) == 0);
}

/* A lane without a session waits for one: of this worker, or of the source. */
static bool is_session_wanted(const struct lane *lane)
{
    return lane->worker->sessionless_count > 0 || limit_is_wanted_xcore(lane->source_limit);
}

bool dispatch_is_session_spent(const struct lane *lane, const struct delivery *delivery,
                               struct mono_time now)
{
    const struct config_route *route = lane->site->route;
    const struct limit *limit = &lane->site->connections;
    bool is_crowded = site_lanes_xcore(lane->site) > limit->max;
    /* A first message it always carries: else a server that is slow to greet would get none. */
    bool is_old = delivery->transactions_count > 0 &&
                  now.ns - delivery->opened.ns > (int64_t)route->connection_age_max_s * NS_PER_S;
    return delivery->transactions_count >= route->connection_messages_max || is_old ||
           dispatch_is_draining(lane) || is_share_exceeded(lane) ||
           (is_crowded && delivery->transactions_count >= TURN_MESSAGES &&
            limit_is_wanted_xcore(limit)) ||
           (is_session_wanted(lane) &&
            (delivery->transactions_count >= TURN_MESSAGES || lane_backlog(lane) == 0));
}

bool dispatch_may_session_idle(const struct lane *lane, const struct delivery *delivery,
                               struct mono_time now)
{
    bool is_last = lane->sessions_count - lane->ending_count == 1;
    return lane->is_held_up && is_last && !is_session_wanted(lane) &&
           !limit_is_wanted_xcore(&lane->site->connections) &&
           !dispatch_is_session_spent(lane, delivery, now);
}

void dispatch_retire_idle(struct lane *lane, struct mono_time now)
{
    while (!list_is_empty(&lane->idle) && (dispatch_is_draining(lane) || is_share_exceeded(lane))) {
        delivery_quit(CONTAINER_OF(lane->idle.next, struct delivery, idle), now);
    }
}

/* For lanes that have no session: those that have been idle for longest and are not needed end
 * now, as many as are wanted and not ending already. source NULL: whatever their source is. */
static void make_room(struct worker *worker, const struct config_source *source,
                      uint32_t wanted_count, struct mono_time now)
{
    struct list *node = worker->idle.next;
    for (uint32_t i = 0; i < IDLE_LOOKS_MAX && node != &worker->idle; i++) {
        struct delivery *delivery = CONTAINER_OF(node, struct delivery, idle_all);
        node = node->next;
        bool is_one = source == NULL || delivery->lane->source == source;
        if (is_one && worker->ending_count < wanted_count && lane_backlog(delivery->lane) == 0) {
            delivery_quit(delivery, now);
        }
    }
}

/* All ready recipients go to a worker that has connections of this full site. */
static void hand_over(struct lane *lane)
{
    ensure(lane->site != NULL);
    struct worker *worker = lane->worker;
    uint32_t holder = site_holder_xcore(lane->site, worker->index);
    if (worker->engine->config->sources_count != 1 || holder >= worker->engine->workers_count) {
        return;
    }
    /* What holders have is not the lane aside's: among themselves they would hand it to and fro. */
    if (lane->is_aside && site_is_holder_xcore(lane->site, worker->index)) {
        return;
    }
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    struct recipient *recipient;
    const struct batch *batch;
    while (chain.count < DISPATCH_STEP_MAX &&
           ready_take(&lane->ready, 1, &recipient, &batch) == 1) {
        inbox_chain_add(&chain, &recipient->node);
    }
    worker_move(worker, PLACE_READY, PLACE_NONE, chain.count);
    stat_add(&worker->stats.handed, chain.count);
    inbox_push_chain_xcore(&worker->engine->workers[holder]->recipients, &chain);
}

/* A few recipients of a full site go to its connections, which may be idle; many wait for a share
 * of them. */
static bool is_better_elsewhere(const struct lane *lane)
{
    return lane->site != NULL && lane->sessions_count == 0 && lane->ready.count > 0 &&
           lane->ready.count <= LOAD_MIXED_MAX && !lane_is_in_review(lane) &&
           limit_count_xcore(&lane->site->connections) >= lane->site->connections.max;
}

void dispatch_hand_over_few(struct lane *lane)
{
    if (is_better_elsewhere(lane)) {
        hand_over(lane);
    }
}

/* True when a connection of the site and of the source was taken; else who refused. */
static bool limits_take(struct lane *lane, enum lane_limit *ret_refused)
{
    ensure(lane->site != NULL);
    if (!limit_take_xcore(&lane->site->connections)) {
        *ret_refused = LANE_LIMIT_SITE;
        return false;
    }
    if (limit_take_xcore(lane->source_limit)) {
        return true;
    }
    limit_give_xcore(&lane->site->connections);
    *ret_refused = LANE_LIMIT_SOURCE;
    return false;
}

/* False: refused, and the lane is on the stack of who refused, or has sessions whose end brings it
 * back. */
static bool limits_take_or_wait(struct lane *lane, struct mono_time now)
{
    enum lane_limit refused;
    if (limits_take(lane, &refused)) {
        return true;
    }
    /* Only who has less than its share may make others give up theirs: else two would drive each
     * other out for ever. */
    if (lane->sessions_count >= share_of(lane)) {
        return false;
    }
    if (refused == LANE_LIMIT_SITE && lane->sessions_count == 0 && !lane->waits[refused].is_away) {
        hand_over(lane);
    }
    if (refused == LANE_LIMIT_SOURCE && lane->sessions_count > 0) {
        return false; /* those who have none come first */
    }
    while (!lane->waits[refused].is_away) {
        struct limit *limit =
            refused == LANE_LIMIT_SITE ? &lane->site->connections : lane->source_limit;
        lane->waits[refused].is_away = true;
        limit_wait_xcore(limit, &lane->waits[refused].waiter);
        if (limits_take(lane, &refused)) {
            return true;
        }
    }
    if (refused == LANE_LIMIT_SOURCE) {
        make_room(lane->worker, lane->source, 1, now);
    }
    return false;
}

static uint32_t sessions_wanted(const struct lane *lane)
{
    ensure(lane->site->route->backlog_per_connection > 0);
    const struct config_route *route = lane->site->route;
    uint64_t backlog = (uint64_t)lane->loading_count + lane->loaded_count;
    if (ready_has_work(&lane->ready)) {
        backlog += lane->ready.count;
    }
    uint64_t wanted = (backlog + route->backlog_per_connection - 1) / route->backlog_per_connection;
    return wanted < route->connections_max ? (uint32_t)wanted : route->connections_max;
}

/* False: no more connections now. */
static bool connect_one(struct lane *lane, struct mono_time now)
{
    struct worker *worker = lane->worker;
    if (slab_left(&worker->deliveries) == 0) {
        if (lane->sessions_count == 0) {
            lane_set_sessionless(lane, true);
            worker_starve(lane, WANT_SESSION);
            make_room(worker, NULL, worker->sessionless_count, now);
        }
        return false;
    }
    struct lane_host host;
    switch (lane_pick_host(lane, now, &host)) {
    case LANE_PICK_HOST:
        break;
    case LANE_PICK_WAIT:
        return false;
    case LANE_PICK_NONE:
        if (lane->sessions_count == 0) {
            lane_hosts_failed(lane, now);
            lane_mark_dirty(lane);
        }
        return false;
    case LANE_PICK_NO_MAIL:
        if (lane->sessions_count == 0) {
            lane_set_no_mail(lane, now);
            lane_mark_dirty(lane);
        }
        return false;
    case LANE_PICK_REST: {
        struct policy_verdict verdict = policy_of_reason(TEMP_NO_CONNECT);
        verdict.response.command = "CONNECT";
        verdict.response.content = SPAN("no host has an address of our source's family");
        lane_source_failed(lane, &verdict, now);
        lane_mark_dirty(lane);
        return false;
    }
    case LANE_PICK_MOVED:
        dispatch_load_displace(lane, now);
        return false;
    }
    if (!may_take_more(lane) || !limits_take_or_wait(lane, now)) {
        return false;
    }
    if (delivery_open(lane, &host, now) != 0) {
        limit_give_xcore(lane->source_limit);
        limit_give_xcore(&lane->site->connections);
        lane_wake_at(lane, mono_add_ms(now, CONNECT_AGAIN_MS));
        return false;
    }
    lane->served_at = now;
    return true;
}

/* Some wait behind sessions that are busy, and too few for another connection by their number. When
 * none of these has come free for a while, its server may be one that takes minutes for an answer:
 * one more connection, and again one behind the next while, but only one at a time. Answers with
 * the sessions wanted. */
static uint32_t relieved(struct lane *lane, uint32_t wanted, struct mono_time now)
{
    if (lane->sessions_count >= lane->site->route->connections_max || lane->connecting_count > 0) {
        return wanted;
    }
    struct mono_time due = mono_add_ms(lane->served_at, RELIEF_MS);
    if (!mono_before(now, due)) {
        return lane->sessions_count + 1;
    }
    lane_wake_at(lane, due);
    return wanted;
}

/* How many more connections the site's rate leaves work for. Beyond these they would be opened,
 * stand idle and end, again and again, for as long as a slow site's backlog takes. Those that were
 * opened elsewhere count as well, unless they take so long that their message could have gone. */
static uint32_t rate_room(struct lane *lane, struct mono_time now)
{
    struct mono_time next;
    uint32_t room = site_rate_room_xcore(lane->site, mono_add_ms(now, RATE_LEAD_MS), &next);
    uint32_t fresh = site_fresh_xcore(lane->site);
    if (room == 0 || fresh < room) {
        lane->yielded_at.ns = 0;
        if (room > 0) {
            return room - fresh;
        }
        lane_wake_at(lane, mono_add_ms(next, -RATE_LEAD_MS));
        return 0;
    }
    if (lane->connecting_count > 0) {
        return 0; /* they bring it back */
    }
    lane->yielded_at = lane->yielded_at.ns == 0 ? now : lane->yielded_at;
    struct mono_time late = mono_add_ms(lane->yielded_at, RATE_YIELD_MS);
    if (mono_before(now, late)) {
        lane_wake_at(lane, late);
        return 0;
    }
    lane->yielded_at.ns = 0;
    return 1;
}

void dispatch_connect_more(struct lane *lane, struct mono_time now)
{
    /* Behind 521 from all hosts what is still loading bounces when it comes. */
    if (lane_rest_until(lane, now).ns != 0 || lane_is_no_mail(lane, now) ||
        !list_is_empty(&lane->idle)) {
        return;
    }
    if (mono_before(now, lane->ports_at)) {
        lane_wake_at(lane, lane->ports_at);
        return;
    }
    uint32_t wanted = sessions_wanted(lane);
    if (wanted > 0 && wanted <= lane->sessions_count) {
        wanted = relieved(lane, wanted, now);
    }
    uint32_t more = wanted > lane->sessions_count ? wanted - lane->sessions_count : 0;
    uint32_t room = more > 0 ? rate_room(lane, now) : 0;
    more = more < room ? more : room;
    for (uint32_t i = 0; i < more; i++) {
        if (i == DISPATCH_CONNECTS_STEP_MAX) {
            lane_mark_dirty(lane);
            return;
        }
        if (!connect_one(lane, now)) {
            return;
        }
    }
}
