/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch.h"

#include "engine/compose.h"
#include "engine/delivery.h"
#include "engine/intake.h"

/* A session that has sent so many messages makes room when another lane waits for its site and
 * there are more lanes than connections. */
enum { IDLE_LOOKS_MAX = 8, LOAD_EACH = 8, TURN_MESSAGES = 20 };
/* The transport took no connection although we have a slot for it: looked at again after so long.
 */
enum { CONNECT_AGAIN_MS = 100 };
enum { RELIEF_MS = 1000 };

static bool is_cancelled(const struct batch *batch)
{
    return (stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0;
}

/* Nothing new is begun: the engine stops, or what would be sent could not be recorded. */
static bool is_draining(const struct lane *lane)
{
    const struct engine *engine = lane->worker->engine;
    return stat_read_xcore(&engine->is_draining) != 0 || stat_read_xcore(&engine->must_stop) != 0 ||
           stat_read_xcore(&engine->journal->stats.has_failed) != 0;
}

/* 1: bytes. */

/* Recipients for one session where they share transactions: whole ones. */
static uint32_t same_count(const struct lane *lane)
{
    uint32_t rcpts_max = lane->site == NULL ? LOAD_EACH : lane->site->route->rcpts_max;
    return rcpts_max < LOAD_EACH ? LOAD_EACH / rcpts_max * rcpts_max : rcpts_max;
}

static uint32_t load_take(struct lane *lane, struct load *load)
{
    ensure(load->count == 0);
    uint32_t sessions = lane->sessions_count > 0 ? lane->sessions_count : 1;
    uint32_t each = lane->is_load_same ? same_count(lane) : LOAD_EACH;
    uint32_t most = lane->is_load_same ? LOAD_RECIPIENTS_MAX / each * each : LOAD_MIXED_MAX;
    uint32_t count_max = sessions * each < most ? sessions * each : most;
    const struct batch *batch;
    uint32_t taken = ready_take(&lane->ready, count_max, load->recipients, &batch);
    if (taken == 0) {
        return 0;
    }
    load->batch = worker_batch(lane->worker, load->recipients[0]);
    uint64_t size = 0;
    uint64_t last_offset = UINT64_MAX;
    while (load->count < taken && size < LOAD_SIZE_MAX) {
        const struct recipient *recipient = load->recipients[load->count++];
        size += recipient->record_offset == last_offset ? 0 : recipient->record_size;
        last_offset = recipient->record_offset;
    }
    while (taken > load->count) {
        ready_push_front(&lane->ready, load->recipients[--taken], load->batch);
    }
    ensure(load->count > 0);
    ensure(load->count <= LOAD_RECIPIENTS_MAX);
    lane->is_load_same = load->count > 1 && compose_is_same(load, 0, load->count - 1);
    return load->count;
}

static void load_ask(struct lane *lane)
{
    struct worker *worker = lane->worker;
    uint32_t loads_max = 1 + lane->sessions_count / 8;
    loads_max = loads_max < 2 ? 2 : loads_max > LANE_LOADS_MAX ? LANE_LOADS_MAX : loads_max;
    while (lane->loads_asked + lane->loads_filled < loads_max && ready_has_work(&lane->ready)) {
        struct load *load = slab_take(&worker->loads_free);
        if (load == NULL) {
            lane_mark_starved(lane);
            return;
        }
        *load = (struct load){.reply_to = &worker->loads, .lane = lane};
        if (load_take(lane, load) == 0) {
            slab_give(&worker->loads_free, load);
            return;
        }
        struct span name = domain_name_xcore(worker->engine->domains, load->recipients[0]->domain);
        lane->domain_size = (uint8_t)name.size;
        memcpy(lane->domain, name.at, name.size);
        lane->loads_asked++;
        lane->loading_count += load->count;
        worker_move(worker, PLACE_READY, PLACE_LOADING, load->count);
        inbox_push_xcore(&worker->engine->intake->loads, &load->node);
    }
}

void dispatch_on_load(struct worker *worker, struct load *load)
{
    ensure(load->next == 0);
    ensure(load->count > 0);
    struct lane *lane = load->lane;
    ensure(lane->loads_asked > 0);
    ensure(lane->loading_count >= load->count);
    lane->loads_asked--;
    lane->loading_count -= load->count;
    lane->loads_filled++;
    lane->loaded_count += load->count;
    list_add_last(&lane->loads, &load->link);
    lane_mark_dirty(lane);
    (void)worker;
}

void dispatch_drop_load(struct worker *worker, struct load *load)
{
    ensure(load->holds > 0);
    if (--load->holds > 0 || load->next < load->count) {
        return;
    }
    if (worker->parsed_load == load) {
        worker->parsed_load = NULL;
    }
    if (load->block != NULL) {
        inbox_push_xcore(&worker->engine->intake->blocks, &load->block->node);
    }
    worker_give(worker, &worker->loads_free, load);
}

/* The load at the head of the lane, or NULL; one that is used up has left the list already. */
static struct load *load_head(struct lane *lane)
{
    return list_is_empty(&lane->loads) ? NULL : CONTAINER_OF(lane->loads.next, struct load, link);
}

/* The next recipient of the load becomes an attempt; NULL when the worker has none free. */
static struct attempt *attempt_take(struct lane *lane, struct load *load)
{
    struct worker *worker = lane->worker;
    struct attempt *attempt = worker_may_attempt(worker) ? slab_take(&worker->attempts) : NULL;
    if (attempt == NULL) {
        lane_mark_starved(lane);
        return NULL;
    }
    ensure(load->next < load->count);
    ensure(lane->loaded_count > 0);
    attempt->recipient = load->recipients[load->next++];
    attempt->batch = load->batch;
    attempt->load = load;
    attempt->place = PLACE_FLIGHT;
    attempt->address_size = 0;
    attempt->id_size = 0;
    load->holds++;
    lane->loaded_count--;
    worker_move(worker, PLACE_LOADING, PLACE_FLIGHT, 1);
    if (load->next == load->count) {
        lane->loads_filled--;
        list_remove(&load->link);
    }
    return attempt;
}

void dispatch_put_back(struct worker *worker, struct lane *lane, struct attempt *attempt)
{
    ensure(attempt->place == PLACE_FLIGHT);
    ensure(attempt->load != NULL);
    worker_move(worker, PLACE_FLIGHT, PLACE_READY, 1);
    ready_push_front(&lane->ready, attempt->recipient, attempt->batch);
    dispatch_drop_load(worker, attempt->load);
    worker_give(worker, &worker->attempts, attempt);
    lane_mark_dirty(lane);
}

/* 2: no attempt. */

static void settle_by(struct lane *lane, struct attempt *attempt, enum outcome_class class,
                      const struct policy_verdict *verdict, uint32_t delay_min_s,
                      struct mono_time now)
{
    ensure(class != OUTCOME_DELIVERED); /* LAW 5: nothing was sent */
    struct outcome outcome = {
        .class = class,
        .reason = verdict->reason,
        .response = verdict->response,
        .delay_min_s = delay_min_s,
        .place.source_name = span_of_text(lane->source->name),
    };
    if (lane->site != NULL) {
        outcome.place.site = span_of(lane->site->name, lane->site->name_size);
    }
    outcome_settle(lane->worker, attempt, &outcome, now);
}

static void settle_reason(struct lane *lane, struct attempt *attempt, enum outcome_class class,
                          enum policy_reason reason, struct mono_time now)
{
    struct policy_verdict verdict = policy_of_reason(reason);
    settle_by(lane, attempt, class, &verdict, 0, now);
}

/* The recipient's text could not be used: its own bounce, in words. */
static void settle_problem(struct lane *lane, struct attempt *attempt, struct span words,
                           struct mono_time now)
{
    struct policy_verdict verdict = policy_of_reason(PERM_CONTENT);
    verdict.response.content = words;
    settle_by(lane, attempt, OUTCOME_BOUNCED, &verdict, 0, now);
}

static bool is_expired(const struct lane *lane, const struct load *load)
{
    const struct worker *worker = lane->worker;
    ensure(load->next < load->count);
    const struct config_route *route = outcome_route(worker, load->recipients[load->next]);
    return wall_seconds(clock_wall(worker->engine->clock)) > outcome_expiry_s(load->batch, route);
}

static enum outcome_class class_of(enum policy_action action)
{
    return action == POLICY_BOUNCE ? OUTCOME_BOUNCED : OUTCOME_DEFERRED;
}

/* Recipients of a domain without hosts: their domain's answer decides, as it is now. */
static void settle_nowhere(struct lane *lane, struct attempt *attempt, struct mono_time now)
{
    ensure(lane->site == NULL);
    struct worker *worker = lane->worker;
    struct span name = domain_name_xcore(worker->engine->domains, attempt->recipient->domain);
    const struct mx_answer *answer;
    enum mx_freshness freshness =
        mx_cache_find_xcore(worker->engine->mx_cache, MX_KIND_MAIL, name, now, &answer);
    enum mx_outcome outcome = freshness == MX_MISSING ? MX_TEMPORARY : answer->outcome;
    struct policy_verdict verdict = policy_of_mx(outcome == MX_OK ? MX_TEMPORARY : outcome);
    settle_by(lane, attempt, class_of(verdict.action), &verdict, 0, now);
}

/* The reasons not to try the lane's next recipient at all; NULL-terminated by falling through:
 * false = it may be tried. */
static bool settle_untried(struct lane *lane, struct load *load, struct mono_time now)
{
    const struct batch *batch = load->batch;
    bool cancelled = is_cancelled(batch);
    bool expired = !cancelled && is_expired(lane, load);
    bool unreadable = !cancelled && !expired && load->result != 0;
    bool nowhere = lane->site == NULL;
    bool no_mail = !nowhere && lane_is_no_mail(lane, now);
    struct mono_time until = {.ns = 0};
    if (!nowhere && lane->sessions_count == 0) {
        until = lane_rest_until(lane, now);
    }
    if (!cancelled && !expired && !unreadable && !nowhere && !no_mail && until.ns == 0) {
        return false;
    }
    struct attempt *attempt = attempt_take(lane, load);
    if (attempt == NULL) {
        return true;
    }
    char words[256];
    struct writer problem = writer_of(words, sizeof(words));
    if (load->result == 0) {
        (void)compose_attempt(lane->worker, load, load->next - 1, attempt, &problem);
    }
    if (cancelled) {
        settle_reason(lane, attempt, OUTCOME_CANCELLED, PERM_CANCELLED, now);
    } else if (expired) {
        settle_reason(lane, attempt, OUTCOME_EXPIRED, PERM_EXPIRED, now);
    } else if (unreadable) {
        settle_reason(lane, attempt, OUTCOME_DEFERRED, TEMP_CONTENT, now);
    } else if (nowhere) {
        settle_nowhere(lane, attempt, now);
    } else if (no_mail) {
        struct policy_verdict verdict = lane_no_mail(lane);
        settle_by(lane, attempt, OUTCOME_BOUNCED, &verdict, 0, now);
    } else {
        struct policy_verdict verdict = lane_failure(lane);
        uint32_t rest_s = (uint32_t)((until.ns - now.ns) / NS_PER_S) + 1;
        settle_by(lane, attempt, OUTCOME_DEFERRED, &verdict, rest_s, now);
    }
    return true;
}

/* 3: sessions. */

static uint32_t group_size(const struct lane *lane, const struct load *load)
{
    ensure(load->next < load->count);
    uint32_t rcpts_max = lane->site->route->rcpts_max;
    rcpts_max = rcpts_max < SMTP_RCPTS_MAX ? rcpts_max : SMTP_RCPTS_MAX;
    uint32_t count = 1;
    while (count < rcpts_max && load->next + count < load->count &&
           compose_is_same(load, load->next, load->next + count)) {
        count++;
    }
    return count;
}

/* Attempts of the group, those that cannot be served settled; returns how many are left. The
 * message is made from the record of the first of them, `*ret_index`. */
static uint32_t group_take(struct lane *lane, struct load *load, uint32_t count,
                           struct attempt **ret_attempts, uint32_t *ret_index, struct mono_time now)
{
    ensure(count > 0);
    ensure(count <= SMTP_RCPTS_MAX);
    uint32_t taken = 0;
    *ret_index = load->next;
    for (uint32_t i = 0; i < count; i++) {
        struct attempt *attempt = attempt_take(lane, load);
        if (attempt == NULL) {
            break;
        }
        char words[256];
        struct writer problem = writer_of(words, sizeof(words));
        if (compose_attempt(lane->worker, load, load->next - 1, attempt, &problem) != COMPOSE_OK) {
            settle_problem(lane, attempt, writer_span(&problem), now);
            continue;
        }
        *ret_index = taken == 0 ? load->next - 1 : *ret_index;
        ret_attempts[taken++] = attempt;
    }
    return taken;
}

/* False: nothing more can be begun now; the lane comes back by its timer or as a starved one. */
static bool begin_one(struct lane *lane, struct load *load, struct mono_time now)
{
    ensure(!list_is_empty(&lane->idle));
    uint32_t count = group_size(lane, load);
    if (!worker_may_attempt(lane->worker)) {
        lane_mark_starved(lane);
        return false;
    }
    struct mono_time next;
    if (!site_rate_take_xcore(lane->site, count, now, &next)) {
        timer_set(&lane->worker->timers, &lane->timer, next);
        return false;
    }
    struct attempt *attempts[SMTP_RCPTS_MAX];
    load->holds++; /* the message is composed from it below, whatever becomes of the attempts */
    uint32_t index;
    uint32_t taken = group_take(lane, load, count, attempts, &index, now);
    struct delivery *delivery = CONTAINER_OF(lane->idle.next, struct delivery, idle);
    char words[256];
    struct writer problem = writer_of(words, sizeof(words));
    enum compose_result result =
        taken == 0 ? COMPOSE_OK : compose_message(delivery, load, index, &problem);
    switch (result) {
    case COMPOSE_OK:
        if (taken > 0) {
            delivery_begin(delivery, load, attempts, taken, now);
        }
        break;
    case COMPOSE_BAD:
        for (uint32_t i = 0; i < taken; i++) {
            settle_problem(lane, attempts[i], writer_span(&problem), now);
        }
        break;
    case COMPOSE_WAIT:
        for (uint32_t i = taken; i > 0; i--) {
            dispatch_put_back(lane->worker, lane, attempts[i - 1]);
        }
        lane_mark_starved(lane);
        break;
    }
    dispatch_drop_load(lane->worker, load);
    return result != COMPOSE_WAIT;
}

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
           is_draining(lane) || is_share_exceeded(lane) ||
           (is_crowded && delivery->transactions_count >= TURN_MESSAGES &&
            limit_is_wanted_xcore(limit)) ||
           (is_session_wanted(lane) &&
            (delivery->transactions_count >= TURN_MESSAGES || lane_backlog(lane) == 0));
}

/* Idle sessions that nobody here needs while others wait; all of them when the engine stops. */
static void retire_idle(struct lane *lane, struct mono_time now)
{
    while (!list_is_empty(&lane->idle) && (is_draining(lane) || is_share_exceeded(lane))) {
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

/* 4: connect. */

/* All ready recipients go to a worker that has connections of this full site. */
static void hand_over(struct lane *lane)
{
    ensure(lane->site != NULL);
    struct worker *worker = lane->worker;
    uint32_t holder = site_holder_xcore(lane->site, worker->index);
    if (worker->engine->config->sources_count != 1 || holder >= worker->engine->workers_count) {
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
           lane->ready.count <= LOAD_MIXED_MAX &&
           limit_count_xcore(&lane->site->connections) >= lane->site->connections.max;
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

/* What is loaded belongs to other sites by now: it is placed anew. */
static void displace(struct lane *lane, struct mono_time now)
{
    ensure(lane->loads_asked == 0 || lane->loading_count > 0);
    struct worker *worker = lane->worker;
    struct load *load;
    while ((load = load_head(lane)) != NULL) {
        load->holds++;
        while (load->next < load->count) {
            struct recipient *recipient = load->recipients[load->next++];
            ensure(lane->loaded_count > 0);
            lane->loaded_count--;
            worker_move(worker, PLACE_LOADING, PLACE_NONE, 1);
            worker_forget_site(worker, recipient);
            worker_place_recipient(worker, recipient, now);
        }
        lane->loads_filled--;
        list_remove(&load->link);
        dispatch_drop_load(worker, load);
    }
    ensure(lane->loaded_count == 0);
    lane_mark_dirty(lane);
}

/* False: no more connections now. */
static bool connect_one(struct lane *lane, struct mono_time now)
{
    struct worker *worker = lane->worker;
    if (slab_left(&worker->deliveries) == 0) {
        if (lane->sessions_count == 0) {
            lane_set_sessionless(lane, true);
            lane_mark_starved(lane);
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
            site_suspend_xcore(lane->site, now, &worker->random);
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
        verdict.response.content = SPAN("no host has an address of our source's family");
        lane_source_failed(lane, &verdict, now);
        lane_mark_dirty(lane);
        return false;
    }
    case LANE_PICK_MOVED:
        displace(lane, now);
        return false;
    }
    if (!may_take_more(lane) || !limits_take_or_wait(lane, now)) {
        return false;
    }
    if (delivery_open(lane, &host, now) != 0) {
        limit_give_xcore(lane->source_limit);
        limit_give_xcore(&lane->site->connections);
        timer_set(&worker->timers, &lane->timer, mono_add_ms(now, CONNECT_AGAIN_MS));
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
    if (!timer_is_set(&lane->timer) || mono_before(due, lane->timer.expires)) {
        timer_set(&lane->worker->timers, &lane->timer, due);
    }
    return wanted;
}

static void connect_more(struct lane *lane, struct mono_time now)
{
    if (lane_rest_until(lane, now).ns != 0 || !list_is_empty(&lane->idle)) {
        return;
    }
    uint32_t wanted = sessions_wanted(lane);
    if (wanted > 0 && wanted <= lane->sessions_count) {
        wanted = relieved(lane, wanted, now);
    }
    for (uint32_t i = 0; i < DISPATCH_CONNECTS_STEP_MAX && lane->sessions_count < wanted; i++) {
        if (!connect_one(lane, now)) {
            return;
        }
    }
    if (lane->sessions_count < wanted) {
        lane_mark_dirty(lane);
    }
}

static void linger(struct lane *lane, struct mono_time now)
{
    bool is_unused = lane_backlog(lane) == 0 && lane->sessions_count == 0;
    lane_set_busy(lane, !is_unused);
    if (lane->site != NULL && is_unused && !timer_is_set(&lane->timer)) {
        timer_set(&lane->worker->timers, &lane->timer, mono_add_ms(now, LANE_LINGER_MS));
    }
}

void dispatch_lane(struct lane *lane, struct mono_time now)
{
    if (lane->site != NULL) {
        retire_idle(lane, now);
    }
    if (is_draining(lane)) {
        return;
    }
    lane_set_sessionless(lane, false);
    if (is_better_elsewhere(lane)) {
        hand_over(lane);
    }
    load_ask(lane);
    uint32_t done = 0;
    struct load *load;
    while ((load = load_head(lane)) != NULL && done < DISPATCH_STEP_MAX) {
        uint32_t before = load->next;
        if (settle_untried(lane, load, now)) {
            if (load_head(lane) == load && load->next == before) {
                return; /* starved of attempts */
            }
        } else if (list_is_empty(&lane->idle) || !begin_one(lane, load, now)) {
            break;
        }
        done++;
    }
    if (done > 0) {
        lane->served_at = now;
        load_ask(lane);
    }
    if (done >= DISPATCH_STEP_MAX) {
        lane_mark_dirty(lane);
    }
    if (lane->site != NULL) {
        connect_more(lane, now);
    }
    linger(lane, now);
}
