/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/delivery.h"

#include <errno.h>

#include "engine/base/planted.h"
#include "engine/delivery_priv.h"
#include "engine/dispatch.h"
#include "engine/load.h"
#include "engine/worker_priv.h"

/*
 * Stages, and who moves:
 *
 *   delivery_open       -> CONNECTING
 *   CONNECTING -> BUSY     on_connected (greeting, EHLO)
 *   BUSY       -> IDLE     event READY or DONE
 *   IDLE       -> BUSY     delivery_begin
 *   IDLE       -> ENDING   delivery_quit
 *   any        -> ENDING   event OVER: the connection is closed
 *   CLOSED from the transport: whatever the stage, everything is given back and the slot is free.
 */
static const uint8_t ALLOWED[DELIVERY_STAGES_COUNT] = {
    [DELIVERY_CONNECTING] = 1u << DELIVERY_BUSY | 1u << DELIVERY_ENDING,
    [DELIVERY_BUSY] = 1u << DELIVERY_IDLE | 1u << DELIVERY_ENDING,
    [DELIVERY_IDLE] = 1u << DELIVERY_BUSY | 1u << DELIVERY_ENDING,
    [DELIVERY_ENDING] = 1u << DELIVERY_ENDING,
};

static void delivery_enter(struct delivery *delivery, enum delivery_stage stage)
{
    ensure((unsigned)stage < DELIVERY_STAGES_COUNT);
    ensure((ALLOWED[delivery->stage] & 1u << stage) != 0);
    struct lane *lane = delivery->lane;
    if (delivery->stage == DELIVERY_IDLE) {
        list_remove(&delivery->idle);
        list_remove(&delivery->idle_all);
    }
    if (stage == DELIVERY_ENDING && delivery->stage != DELIVERY_ENDING) {
        lane->ending_count++;
        delivery->worker->ending_count++;
    }
    delivery->stage = stage;
    if (stage == DELIVERY_IDLE) {
        list_add_first(&lane->idle, &delivery->idle);
        list_add_last(&delivery->worker->idle, &delivery->idle_all);
    }
}

static void set_timer(struct delivery *delivery, struct mono_time now)
{
    struct worker *worker = delivery->worker;
    struct mono_time deadline = smtp_session_deadline(&delivery->smtp);
    const struct config_route *route = delivery->lane->site->route;
    if (delivery->is_close_asked) {
        /* A server that reads nothing would keep what is queued, and the connection, for ever. */
        deadline = mono_add_ms(now, route->timeouts.quit_ms);
    } else if (delivery->stage == DELIVERY_IDLE) {
        deadline = mono_earlier(deadline, mono_add_ms(now, route->connection_idle_ms));
    }
    if (deadline.ns == MONO_NEVER.ns) {
        timer_cancel(&worker->timers, &delivery->timer);
    } else if (delivery->timer.expires.ns != deadline.ns || !timer_is_set(&delivery->timer)) {
        timer_set(&worker->timers, &delivery->timer, deadline);
    }
}

static void set_fresh(struct delivery *delivery, bool is_fresh)
{
    if (delivery->is_fresh != is_fresh) {
        delivery->is_fresh = is_fresh;
        site_count_fresh_xcore(delivery->lane->site, is_fresh);
    }
}

static void on_over(struct delivery *delivery, const struct smtp_event *event, struct mono_time now)
{
    struct lane *lane = delivery->lane;
    ensure(delivery->undecided_count == 0);
    delivery->is_over = true;
    delivery->is_body_due = false;
    if (!delivery->has_reached && policy_is_host_bad(&event->result)) {
        struct policy_verdict verdict = policy_of_host(&event->result);
        lane_host_failed(lane, &delivery->host, delivery->opened, &verdict, now);
        stat_add(&delivery->worker->stats.connects_failed, 1);
    }
    delivery_enter(delivery, DELIVERY_ENDING);
}

static void on_ready(struct delivery *delivery, struct mono_time now)
{
    struct lane *lane = delivery->lane;
    if (!delivery->has_reached) {
        ensure(lane->connecting_count > 0);
        delivery->has_reached = true;
        lane->connecting_count--;
        site_reached_xcore(lane->site);
    }
    if (delivery->is_declined || dispatch_is_session_spent(lane, delivery, now)) {
        delivery_enter(delivery, DELIVERY_ENDING);
        smtp_session_quit(&delivery->smtp, now);
        return; /* who called pumps */
    }
    delivery_enter(delivery, DELIVERY_IDLE);
    lane_mark_dirty(lane);
}

static void on_smtp_event(struct delivery *delivery, const struct smtp_event *event,
                          struct mono_time now)
{
    switch (event->kind) {
    case SMTP_EVENT_READY:
        on_ready(delivery, now);
        return;
    case SMTP_EVENT_BODY:
        delivery->is_body_due = true;
        return;
    case SMTP_EVENT_RECIPIENT:
        delivery_on_recipient(delivery, event, now);
        return;
    case SMTP_EVENT_DONE:
        ensure(delivery->undecided_count == 0);
        delivery->transactions_count++;
        stat_add(&delivery->worker->stats.transactions, 1);
        /* The transport is done with our bytes: an acceptance waits for that, and behind a refusal
         * RSET does. */
        ensure(delivery->body_out == 0);
        delivery_release_message(delivery);
        on_ready(delivery, now);
        return;
    case SMTP_EVENT_OVER:
        on_over(delivery, event, now);
        return;
    }
    ensure(false);
}

/* Sends what the machine wants to say, then the body; closes when the machine is done. */
static void pump(struct delivery *delivery, struct mono_time now)
{
    struct worker *worker = delivery->worker;
    if (delivery->is_body_due) {
        delivery_send_body(delivery, now);
    }
    /* Never behind a body: on_txdone counts commands before it. */
    if (delivery->commands_out == 0 && delivery->body_out == 0 && !delivery->is_close_asked) {
        struct writer writer = writer_of(delivery->commands, sizeof(delivery->commands));
        (void)smtp_session_output(&delivery->smtp, &writer);
        struct net_segment segment = {
            .at = delivery->commands,
            .size = (uint32_t)writer_size(&writer),
        };
        if (segment.size > 0) {
            /* -EAGAIN cannot be: at most the body's segments are queued; -ESTALE: CLOSED is on its
             * way. */
            if (net_send(worker->net, delivery->conn, &segment, 1, 0) == 0) {
                delivery->commands_out = segment.size;
            }
        }
    }
    if (delivery->is_over && !delivery->is_close_asked) {
        delivery->is_close_asked = true;
        bool is_graceful = delivery->body_out == 0;
        (void)net_close(worker->net, delivery->conn, !is_graceful);
    }
    set_timer(delivery, now);
}

static void on_timer(struct timer *timer, struct mono_time now)
{
    struct delivery *delivery = CONTAINER_OF(timer, struct delivery, timer);
    if (delivery->stage == DELIVERY_IDLE) {
        if (dispatch_may_session_idle(delivery->lane, delivery, now)) {
            set_timer(delivery, now);
        } else {
            delivery_quit(delivery, now);
        }
        return;
    }
    if (delivery->is_close_asked) {
        (void)net_close(delivery->worker->net, delivery->conn, true);
        return;
    }
    struct smtp_event event;
    while (smtp_session_on_timeout(&delivery->smtp, now, &event)) {
        on_smtp_event(delivery, &event, now);
    }
    pump(delivery, now);
}

int delivery_open(struct lane *lane, const struct lane_host *host, struct mono_time now)
{
    ensure(lane->site != NULL);
    ensure(host->addr.family != NET_NONE);
    struct worker *worker = lane->worker;
    struct delivery *delivery = slab_take(&worker->deliveries);
    if (delivery == NULL) {
        return -ENOBUFS;
    }
    const struct config_source *source = lane->source;
    const struct config_route *route = lane->site->route;
    memset(delivery, 0, offsetof(struct delivery, commands));
    delivery->worker = worker;
    delivery->lane = lane;
    delivery->host = *host;
    struct writer addr = writer_of(delivery->addr_text, sizeof(delivery->addr_text));
    net_addr_put(&addr, &host->addr);
    delivery->addr_size = (uint8_t)writer_size(&addr);
    delivery->number = worker->sessions_next;
    delivery->opened = now;
    delivery->record_body = SPAN_NONE;
    delivery->is_record = false;
    delivery->rcpts = NULL;
    delivery->buf = NULL;
    delivery->plan = NULL;
    delivery->load = NULL;
    delivery->undecided_count = 0;
    delivery->smtp_config = (struct smtp_session_config){
        .ehlo_name = span_of_text(source->ehlo),
        .timeouts = route->timeouts,
        .capabilities_off = route->capabilities_off,
    };
    timer_init(&delivery->timer, on_timer);
    list_init(&delivery->idle);
    list_init(&delivery->idle_all);
    smtp_session_init(&delivery->smtp, &delivery->smtp_config, now);
    const struct net_addr *from = config_source_address(source, host->addr.family);
    ensure(from != NULL); /* else the host would not have been picked */
    int result = net_connect(worker->net, from, &host->addr, route->connect_timeout_ms, delivery,
                             &delivery->conn);
    if (result != 0) {
        slab_give(&worker->deliveries, delivery);
        return result;
    }
    set_fresh(delivery, route->rate_per_hour != 0);
    worker->sessions_next += worker->engine->workers_count;
    list_add_last(&lane->sessions, &delivery->link);
    lane->sessions_count++;
    lane->connecting_count++;
    if (lane->sessions_count == 1 && !lane->is_aside) {
        site_hold_xcore(lane->site, worker->index, true);
    }
    stat_add(&worker->stats.sessions, 1);
    stat_add(&worker->stats.sessions_opened, 1);
    return 0;
}

/* The transport is gone: everything is given back. */
static void delivery_end(struct delivery *delivery, struct mono_time now)
{
    struct worker *worker = delivery->worker;
    struct lane *lane = delivery->lane;
    ensure(delivery->undecided_count == 0);
    ensure(lane->sessions_count > 0);
    ensure(delivery->has_reached || lane->connecting_count > 0);
    ensure(lane->ending_count <= lane->sessions_count);
    ensure(lane->ending_count <= worker->ending_count);
    timer_cancel(&worker->timers, &delivery->timer);
    list_remove(&delivery->idle);
    list_remove(&delivery->idle_all);
    list_remove(&delivery->link);
    set_fresh(delivery, false);
    delivery_release_message(delivery);
    if (!delivery->has_reached) {
        lane->connecting_count--;
    }
    if (delivery->stage == DELIVERY_ENDING) {
        lane->ending_count--;
        worker->ending_count--;
    }
    lane->sessions_count--;
    if (lane->sessions_count == 0 && !lane->is_aside) {
        site_hold_xcore(lane->site, worker->index, false);
    }
    limit_give_xcore(lane->source_limit);
    if (!PLANTED(LIMIT_NOT_GIVEN)) {
        limit_give_xcore(&lane->site->connections);
    }
    stat_sub(&worker->stats.sessions, 1);
    worker_give(worker, &worker->deliveries, delivery);
    worker_take_kicks(worker); /* before this lane: it may have made room for them */
    lane_mark_dirty(lane);
    (void)now;
}

static void on_connect_failed(struct delivery *delivery, enum net_error error, struct mono_time now)
{
    struct lane *lane = delivery->lane;
    const struct net_addr *from = config_source_address(lane->source, delivery->host.addr.family);
    /* A machine without any address of IPv6 says of it what another says of its ports. */
    bool is_no_address =
        error == NET_NO_PORT && from->family == NET_NONE && delivery->host.addr.family == NET_IP6;
    error = is_no_address ? NET_UNREACHABLE : error;
    struct policy_verdict verdict = policy_of_connect(error);
    if (error == NET_NO_PORT) {
        lane_ports_missing(lane, &verdict, now);
    } else if (error == NET_NO_SOURCE) {
        lane_source_failed(lane, &verdict, now);
    } else {
        lane_host_failed(lane, &delivery->host, delivery->opened, &verdict, now);
    }
}

static void on_closed(struct delivery *delivery, enum net_error error, struct mono_time now)
{
    if (delivery->stage == DELIVERY_CONNECTING && !delivery->is_over) {
        on_connect_failed(delivery, error, now);
        stat_add(&delivery->worker->stats.connects_failed, 1);
        delivery->has_reached = false;
    }
    bool was_connecting = delivery->stage == DELIVERY_CONNECTING;
    struct smtp_event event;
    while (!delivery->is_over && smtp_session_on_closed(&delivery->smtp, now, &event)) {
        if (event.kind == SMTP_EVENT_OVER && was_connecting) {
            delivery->is_over = true; /* the transport's error has been noted: it says more */
            continue;
        }
        on_smtp_event(delivery, &event, now);
    }
    delivery_end(delivery, now);
}

static void on_peer_fin(struct delivery *delivery, struct mono_time now)
{
    /* The acceptance was read before our last bytes were known to be out: it counts when they are,
     * or the connection ends and it does not. */
    delivery->is_fin_due = smtp_session_is_accept_held(&delivery->smtp);
    struct smtp_event event;
    while (!delivery->is_fin_due && !delivery->is_over &&
           smtp_session_on_closed(&delivery->smtp, now, &event)) {
        on_smtp_event(delivery, &event, now);
    }
}

static void on_body_taken(struct delivery *delivery, struct mono_time now)
{
    /* Not with the answer, which may take minutes. */
    delivery_release_body(delivery);
    smtp_session_body_taken(&delivery->smtp, now);
    struct smtp_event event;
    while (!delivery->is_over && smtp_session_next(&delivery->smtp, now, &event)) {
        on_smtp_event(delivery, &event, now);
    }
    if (delivery->is_fin_due) {
        on_peer_fin(delivery, now);
    }
}

static void on_txdone(struct delivery *delivery, size_t size, struct mono_time now)
{
    size_t commands = size < delivery->commands_out ? size : delivery->commands_out;
    delivery->commands_out -= (uint32_t)commands;
    size -= commands;
    if (size == 0) {
        return;
    }
    ensure(size <= delivery->body_out);
    delivery->body_out -= size;
    if (delivery->body_out == 0 && !delivery->is_body_due) {
        on_body_taken(delivery, now);
    } else {
        smtp_session_body_progress(&delivery->smtp, now);
    }
}

static void on_rx(struct delivery *delivery, struct span bytes, struct mono_time now)
{
    struct smtp_event event;
    while (!delivery->is_over && smtp_session_on_bytes(&delivery->smtp, &bytes, now, &event)) {
        on_smtp_event(delivery, &event, now);
    }
}

void delivery_on_event(void *context, const struct net_event *event)
{
    struct worker *worker = context;
    struct delivery *delivery = event->user;
    struct mono_time now = worker->now;
    switch (event->kind) {
    case NET_CONNECTED:
        delivery_enter(delivery, DELIVERY_BUSY);
        delivery->lane->ports_rest_ms = 0;
        smtp_session_on_connected(&delivery->smtp, now);
        break;
    case NET_RX:
        on_rx(delivery, event->rx, now);
        break;
    case NET_TXDONE:
        on_txdone(delivery, event->txdone_size, now);
        break;
    case NET_PEER_FIN:
        on_peer_fin(delivery, now);
        break;
    case NET_CLOSED:
        on_closed(delivery, event->error, now);
        return;
    case NET_ACCEPTED:
        ensure(false);
        return;
    }
    pump(delivery, now);
}

void delivery_begin(struct delivery *delivery, struct load *load, struct attempt *const *attempts,
                    uint32_t count, struct mono_time now)
{
    ensure(count > 0);
    ensure(count <= SMTP_RCPTS_MAX);
    ensure(delivery->undecided_count == 0);
    ensure(delivery->body_out == 0);
    ensure(delivery->load == NULL);
    ensure(delivery->stage == DELIVERY_IDLE);
    ensure(load->batch != NULL);
    if (delivery->plan != NULL || delivery->is_record) {
        load->holds++;
        delivery->load = load;
    }
    struct span *paths = delivery->paths_inline;
    if (count > DELIVERY_RCPTS_INLINE) {
        delivery->rcpts = slab_take(&delivery->worker->rcpts_blocks);
        ensure(delivery->rcpts != NULL); /* one for each session that can be open */
        paths = delivery->rcpts->paths;
    }
    struct attempt **slots = delivery_attempts(delivery);
    for (uint32_t i = 0; i < count; i++) {
        ensure(attempts[i]->load == load);
        ensure(attempts[i]->address_size > 0);
        slots[i] = attempts[i];
        paths[i] = span_of(attempts[i]->address, attempts[i]->address_size);
    }
    delivery->transaction.rcpts = paths;
    delivery->transaction.rcpts_count = (uint16_t)count;
    delivery->undecided_count = (uint16_t)count;
    delivery->refused_count = 0;
    set_fresh(delivery, false);
    delivery_enter(delivery, DELIVERY_BUSY);
    smtp_session_begin(&delivery->smtp, &delivery->transaction, now);
    struct smtp_event event;
    while (smtp_session_next(&delivery->smtp, now, &event)) {
        on_smtp_event(delivery, &event, now);
    }
    pump(delivery, now);
}

void delivery_quit(struct delivery *delivery, struct mono_time now)
{
    ensure(delivery->stage == DELIVERY_IDLE);
    delivery_enter(delivery, DELIVERY_ENDING);
    smtp_session_quit(&delivery->smtp, now);
    pump(delivery, now);
}

void delivery_give_up(struct delivery *delivery)
{
    delivery->is_given_up = true;
    (void)net_close(delivery->worker->net, delivery->conn, true);
}
