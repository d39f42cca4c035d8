/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/delivery_priv.h"

#include "engine/base/planted.h"
#include "engine/compose.h"
#include "engine/dispatch.h"

static void release_buf(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    struct slab *slab = &worker->bufs[delivery->buf_class];
    if (delivery->buf_class == COMPOSE_BUF_CLASSES - 1) {
        worker->wholes[slab_index(slab, delivery->buf)].delivery = NULL;
    }
    worker_give(worker, slab, delivery->buf);
    delivery->buf = NULL;
}

void delivery_release_body(struct delivery *delivery)
{
    struct worker *worker = delivery->worker;
    if (delivery->buf != NULL) {
        release_buf(delivery);
    }
    if (delivery->plan != NULL) {
        worker_give(worker, &worker->plans, delivery->plan);
        delivery->plan = NULL;
    }
    if (delivery->load != NULL) {
        dispatch_drop_load(worker, delivery->load);
        delivery->load = NULL;
    }
    delivery->record_body = SPAN_NONE;
    delivery->is_record = false;
}

void delivery_release_message(struct delivery *delivery)
{
    delivery_release_body(delivery);
    if (delivery->rcpts != NULL) {
        slab_give(&delivery->worker->rcpts_blocks, delivery->rcpts);
        delivery->rcpts = NULL;
    }
}

/* What the engine's counters and the log need of where this went. */
static struct outcome_place place_of(const struct delivery *delivery)
{
    const struct lane *lane = delivery->lane;
    return (struct outcome_place){
        .site = span_of(lane->site->name, lane->site->name_size),
        .source_name = span_of_text(lane->source->name),
        .source = *config_source_address(lane->source, delivery->host.addr.family),
        .peer_name = span_of(delivery->host.name, delivery->host.name_size),
        .peer_addr = span_of(delivery->addr_text, delivery->addr_size),
        .session = delivery->number,
        .size = delivery->transaction.size,
        .sender = delivery->transaction.sender,
    };
}

static void settle(struct delivery *delivery, struct attempt *attempt,
                   const struct policy_verdict *verdict, bool is_ambiguous, struct mono_time now)
{
    ensure((verdict->action == POLICY_DELIVERED) ==
           (verdict->reason == REASON_DELIVERED)); /* LAW 5 */
    struct lane *lane = delivery->lane;
    struct outcome outcome = {
        .reason = verdict->reason,
        .response = verdict->response,
        .is_ambiguous = is_ambiguous,
        .place = place_of(delivery),
    };
    switch (verdict->action) {
    case POLICY_DELIVERED:
        outcome.class = OUTCOME_DELIVERED;
        stat_add(&lane->delivered, 1);
        break;
    case POLICY_DEFER:
        outcome.class = OUTCOME_DEFERRED;
        if (delivery->is_given_up) {
            outcome.response.content = SPAN("given up: too slow while others wait for the memory "
                                            "that a message of this size takes");
        }
        stat_add(&lane->deferred, 1);
        lane_note_error(lane, &outcome.response);
        break;
    case POLICY_BOUNCE:
        outcome.class = OUTCOME_BOUNCED;
        stat_add(&lane->bounced, 1);
        lane_note_error(lane, &verdict->response);
        break;
    case POLICY_AGAIN:
        dispatch_put_back(delivery->worker, lane, attempt);
        return;
    }
    outcome_settle(delivery->worker, attempt, &outcome, now);
}

void delivery_on_recipient(struct delivery *delivery, const struct smtp_event *event,
                           struct mono_time now)
{
    ensure(event->index < delivery->transaction.rcpts_count);
    ensure(delivery->undecided_count > 0);
    struct attempt **slot = &delivery_attempts(delivery)[event->index];
    struct attempt *attempt = *slot;
    ensure(attempt != NULL);
    *slot = NULL;
    delivery->undecided_count--;
    /* Some recipient before this one was not refused (A15): refusals at RCPT are told in order,
     * acceptance later. */
    bool is_behind_accepted = event->index > delivery->refused_count;
    struct policy_verdict verdict = policy_of_result(&event->result, is_behind_accepted);
    if (event->result.stage == SMTP_STAGE_RCPT) {
        delivery->refused_count++;
    }
    bool is_declined = verdict.reason == PERM_SIZE || verdict.reason == PERM_8BIT;
    const struct lane_need need = {
        .size = delivery->transaction.size,
        .is_8bit = delivery->transaction.is_8bit,
    };
    if (is_declined && dispatch_put_aside(delivery, attempt, &need, now)) {
        return;
    }
    settle(delivery, attempt, &verdict, event->result.is_ambiguous, now);
}

static bool send_plan(struct delivery *delivery)
{
    struct plan *plan = delivery->plan;
    while (!plan->stuffing.is_done) {
        struct smtp_body before = plan->stuffing;
        struct span wire[DELIVERY_SEGMENTS_MAX];
        struct net_segment segments[DELIVERY_SEGMENTS_MAX];
        size_t count = smtp_body_stuff(&plan->stuffing, plan->pieces, plan->pieces_count, wire,
                                       DELIVERY_SEGMENTS_MAX);
        uint64_t size = 0;
        for (size_t i = 0; i < count; i++) {
            segments[i] = (struct net_segment){.at = wire[i].at, .size = (uint32_t)wire[i].size};
            size += wire[i].size;
        }
        unsigned flags = plan->stuffing.is_done ? 0 : NET_MORE;
        if (net_send(delivery->worker->net, delivery->conn, segments, count, flags) != 0) {
            plan->stuffing = before;
            return false;
        }
        delivery->body_out += size;
    }
    return true;
}

static bool send_buf_or_record(struct delivery *delivery)
{
    struct net_segment segments[3];
    size_t count = 0;
    if (delivery->buf != NULL) {
        segments[count++] = (struct net_segment){.at = delivery->buf, .size = delivery->buf_size};
    }
    if (delivery->is_record) {
        segments[count++] = (struct net_segment){
            .at = delivery->record_body.at,
            .size = (uint32_t)delivery->record_body.size,
        };
        segments[count++] = (struct net_segment){.at = ".\r\n", .size = 3};
    }
    if (net_send(delivery->worker->net, delivery->conn, segments, count, 0) != 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        delivery->body_out += segments[i].size;
    }
    return true;
}

void delivery_send_body(struct delivery *delivery, struct mono_time now)
{
    ensure(delivery->is_body_due);
    bool is_sent = delivery->plan != NULL ? send_plan(delivery) : send_buf_or_record(delivery);
    if (is_sent) {
        delivery->is_body_due = false;
        stat_add(&delivery->worker->stats.bytes_sent, delivery->transaction.size);
        smtp_session_body_sent(&delivery->smtp, now);
        if (PLANTED(BYTES_GIVEN_EARLY)) {
            delivery_release_message(delivery);
        }
    }
}
