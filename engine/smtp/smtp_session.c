/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a session and how its events are told. Events are not queued: a recipient's fate is a
 * result, a range to sweep and one bit per recipient; what follows the sweep is one word. Every
 * entry point first tells what is pending, so that a result (and the reply it points to) stays as
 * it is until all have heard it.
 */
#include "engine/smtp/smtp_session.h"

#include "engine/smtp/smtp_session_priv.h"

void smtp_timeouts_default(struct smtp_timeouts *timeouts)
{
    enum { MINUTE_MS = 60 * 1000 };
    *timeouts = (struct smtp_timeouts){
        .greeting_ms = 5 * MINUTE_MS,
        .ehlo_ms = 5 * MINUTE_MS,
        .mail_ms = 5 * MINUTE_MS,
        .rcpt_ms = 5 * MINUTE_MS,
        .data_ms = 2 * MINUTE_MS,
        .body_ms = 3 * MINUTE_MS,
        .end_of_data_ms = 10 * MINUTE_MS,
        .rset_ms = 20 * 1000, /* not in the RFC; nothing is lost with the session (3.9) */
        .quit_ms = 5 * 1000,
    };
}

void smtp_session_init(struct smtp_session *session, const struct smtp_session_config *config,
                       struct mono_time now)
{
    (void)now;
    ensure(config->ehlo_name.size > 0);
    ensure(config->ehlo_name.size <= SMTP_GREETING_NAME_MAX);
    session->config = config;
    session->state = SMTP_STATE_CONNECTING;
    session->transactions_count = 0;
    session->transaction = NULL;
    session->deadline = MONO_NEVER;
    session->capabilities = (struct smtp_capabilities){0};
    session->commands_count = 0;
    session->sent_count = 0;
    session->answered_count = 0;
    session->undecided_count = 0;
    session->sweep_at = 0;
    session->sweep_end = 0;
    session->tell = SMTP_TELL_NOTHING;
    session->result_stage = SMTP_STAGE_CONNECT;
    session->result_cause = SMTP_CAUSE_LOST;
    session->result_is_ambiguous = false;
    session->is_mail_refused = false;
    session->is_body_sent = false;
    session->is_body_taken = false;
    session->is_accept_held = false;
    session->is_early = false;
    session->is_own_name = false;
    session->is_masked = false;
    memset(session->told, 0xff, sizeof(session->told));
    smtp_reply_init(&session->parser);
}

/* The next recipient of the sweep that was not told yet, or false at its end. */
static bool sweep_next(struct smtp_session *session, uint16_t *ret_index)
{
    unsigned at = session->sweep_at;
    while (at < session->sweep_end) {
        uint64_t left = ~session->told[at / 64] >> (at % 64);
        if (left == 0) {
            at = (at / 64 + 1) * 64;
            continue;
        }
        at += (unsigned)__builtin_ctzll(left);
        ensure(at < session->sweep_end);
        session->told[at / 64] |= UINT64_C(1) << (at % 64);
        session->sweep_at = (uint16_t)(at + 1);
        *ret_index = (uint16_t)at;
        return true;
    }
    session->sweep_at = 0;
    session->sweep_end = 0;
    return false;
}

static void event_set(const struct smtp_session *session, enum smtp_event_kind kind,
                      struct smtp_event *ret_event)
{
    *ret_event = (struct smtp_event){
        .kind = kind,
        .result = {.stage = session->result_stage,
                   .cause = session->result_cause,
                   .is_ambiguous = session->result_is_ambiguous,
                   .is_reused = session->transactions_count > 1,
                   .reply = &session->parser.reply},
    };
}

/* READY and DONE: from here on nothing is awaited, so nothing is late. */
static void tell_idle(struct smtp_session *session, enum smtp_event_kind kind,
                      struct smtp_event *ret_event)
{
    session->tell = SMTP_TELL_NOTHING;
    session->transaction = NULL;
    session->deadline = MONO_NEVER;
    event_set(session, kind, ret_event);
}

static bool has_news(const struct smtp_session *session)
{
    return session->sweep_end > 0 || session->tell != SMTP_TELL_NOTHING;
}

/* One pending event. READY, BODY and DONE, which invite the caller to go on, only when nothing
 * unread stands behind them (C11). */
static bool tell(struct smtp_session *session, bool may_invite, struct smtp_event *ret_event)
{
    uint16_t index;
    if (session->sweep_end > 0 && sweep_next(session, &index)) {
        event_set(session, SMTP_EVENT_RECIPIENT, ret_event);
        ret_event->index = index;
        return true;
    }
    if (session->tell == SMTP_TELL_NOTHING || (session->tell != SMTP_TELL_OVER && !may_invite)) {
        return false;
    }
    switch (session->tell) {
    case SMTP_TELL_READY:
        tell_idle(session, SMTP_EVENT_READY, ret_event);
        return true;
    case SMTP_TELL_BODY:
        session->tell = SMTP_TELL_NOTHING;
        event_set(session, SMTP_EVENT_BODY, ret_event);
        return true;
    case SMTP_TELL_DONE:
        tell_idle(session, SMTP_EVENT_DONE, ret_event);
        return true;
    case SMTP_TELL_OVER:
        session->tell = SMTP_TELL_NOTHING;
        session->transaction = NULL;
        event_set(session, SMTP_EVENT_OVER, ret_event);
        return true;
    case SMTP_TELL_NOTHING:
        break;
    }
    ensure(false);
    return false;
}

void smtp_session_on_connected(struct smtp_session *session, struct mono_time now)
{
    smtp_session_enter(session, SMTP_STATE_GREETING, now);
}

static void begin_reply(struct smtp_session *session, struct mono_time now)
{
    session->is_early = session->is_accept_held || !smtp_session_is_outstanding(session);
    if (session->is_early && session->state == SMTP_STATE_READY) {
        smtp_session_arm(session, now);
    }
}

/* Lines matter in the greeting and in the answers to EHLO and HELO; elsewhere only whole replies.
 */
static bool wants_lines(const struct smtp_session *session)
{
    return (SMTP_STATE_BIT(session->state) &
            (SMTP_STATE_BIT(SMTP_STATE_GREETING) | SMTP_STATE_BIT(SMTP_STATE_EHLO) |
             SMTP_STATE_BIT(SMTP_STATE_HELO))) != 0;
}

static void take_line(struct smtp_session *session, struct span *bytes, struct mono_time now)
{
    if (!smtp_reply_is_started(&session->parser)) {
        begin_reply(session, now);
    }
    enum smtp_reply_step step = smtp_reply_take(&session->parser, bytes);
    if (wants_lines(session) && (step == SMTP_REPLY_LINE || step == SMTP_REPLY_DONE)) {
        smtp_session_on_line(session);
    }
    if (step == SMTP_REPLY_DONE) {
        smtp_session_on_reply(session, now);
    } else if (step == SMTP_REPLY_BAD) { /* C9 */
        smtp_session_fail(session, SMTP_CAUSE_PROTOCOL, now);
    }
}

bool smtp_session_on_bytes(struct smtp_session *session, struct span *bytes, struct mono_time now,
                           struct smtp_event *ret_event)
{
    ensure(session->state != SMTP_STATE_CONNECTING);
    for (;;) {
        if (has_news(session)) {
            bool is_all_read = bytes->size == 0 && !smtp_reply_is_started(&session->parser);
            if (tell(session, is_all_read, ret_event)) {
                return true;
            }
        }
        if (bytes->size == 0) {
            return false;
        }
        if (session->state == SMTP_STATE_OVER) {
            *bytes = span_of(bytes->at + bytes->size, 0);
            return false;
        }
        take_line(session, bytes, now);
    }
}

bool smtp_session_on_timeout(struct smtp_session *session, struct mono_time now,
                             struct smtp_event *ret_event)
{
    if (tell(session, false, ret_event)) {
        return true;
    }
    if (session->state == SMTP_STATE_OVER || mono_before(now, session->deadline)) {
        return false;
    }
    smtp_reply_abandon(&session->parser);
    smtp_session_fail(session, SMTP_CAUSE_TIMEOUT, now);
    return tell(session, false, ret_event);
}

bool smtp_session_on_closed(struct smtp_session *session, struct mono_time now,
                            struct smtp_event *ret_event)
{
    if (tell(session, false, ret_event)) {
        return true;
    }
    if (session->state == SMTP_STATE_OVER) {
        return false;
    }
    /* EHLO was refused and then the connection closed: the refusal is the news, HELO only our
     * attempt to go on (C8). */
    bool is_after_refusal = session->state == SMTP_STATE_HELO &&
                            !smtp_reply_is_started(&session->parser) &&
                            session->parser.reply.code >= 500;
    if (is_after_refusal) {
        smtp_session_fail(session, SMTP_CAUSE_REPLY, now);
    } else {
        smtp_reply_abandon(&session->parser);
        smtp_session_fail(session, SMTP_CAUSE_LOST, now);
    }
    return tell(session, false, ret_event);
}

static void take_transaction(struct smtp_session *session,
                             const struct smtp_transaction *transaction)
{
    session->transaction = transaction;
    session->undecided_count = transaction->rcpts_count;
    session->is_mail_refused = false;
    session->is_body_sent = false;
    session->is_body_taken = false;
    for (unsigned i = 0; i < COUNT_OF(session->told); i++) {
        unsigned first = i * 64;
        unsigned count = transaction->rcpts_count > first ? transaction->rcpts_count - first : 0;
        session->told[i] = count >= 64 ? 0 : ~UINT64_C(0) << count;
    }
}

/* A transaction that this server cannot be given at all: nothing is sent. */
static void decline(struct smtp_session *session, enum smtp_cause cause)
{
    smtp_reply_abandon(&session->parser);
    smtp_session_decide(session, SMTP_STAGE_MAIL, cause);
    session->tell = SMTP_TELL_DONE;
}

static bool is_too_large(const struct smtp_capabilities *can, uint64_t size) /* E2 */
{
    return (can->bits & SMTP_CAN_SIZE) != 0 && can->size_max > 0 && size > can->size_max;
}

static bool is_too_8bit(const struct smtp_capabilities *can, bool is_8bit) /* E4 */
{
    return is_8bit && (can->bits & SMTP_CAN_8BIT) == 0;
}

bool smtp_session_may_carry(const struct smtp_session *session,
                            const struct smtp_transaction *transaction)
{
    const struct smtp_capabilities *can = &session->capabilities;
    return !is_too_large(can, transaction->size) && !is_too_8bit(can, transaction->is_8bit);
}

void smtp_session_begin(struct smtp_session *session, const struct smtp_transaction *transaction,
                        struct mono_time now)
{
    ensure(session->state == SMTP_STATE_READY);
    ensure(session->tell == SMTP_TELL_NOTHING);
    ensure(session->transaction == NULL);
    ensure(transaction->rcpts_count > 0);
    ensure(transaction->rcpts_count <= SMTP_RCPTS_MAX);
    const struct smtp_capabilities *can = &session->capabilities;
    take_transaction(session, transaction);
    if (is_too_large(can, transaction->size)) {
        decline(session, SMTP_CAUSE_SIZE);
        return;
    }
    if (is_too_8bit(can, transaction->is_8bit)) {
        decline(session, SMTP_CAUSE_8BIT);
        return;
    }
    smtp_session_enter(session, SMTP_STATE_ENVELOPE, now);
    session->transactions_count++;
    /* C11: the server has begun to speak before us. */
    if (smtp_reply_is_started(&session->parser)) {
        smtp_session_fail(session, SMTP_CAUSE_PROTOCOL, now);
    }
}

bool smtp_session_next(struct smtp_session *session, struct mono_time now,
                       struct smtp_event *ret_event)
{
    (void)now;
    return tell(session, !smtp_reply_is_started(&session->parser), ret_event);
}

void smtp_session_body_progress(struct smtp_session *session, struct mono_time now)
{
    bool is_leaving = session->state == SMTP_STATE_END_OF_DATA && session->is_body_sent &&
                      !session->is_body_taken;
    if (session->state == SMTP_STATE_BODY || is_leaving) {
        smtp_session_arm(session, now);
    }
}

void smtp_session_body_sent(struct smtp_session *session, struct mono_time now)
{
    ensure(session->state == SMTP_STATE_BODY);
    ensure(session->tell == SMTP_TELL_NOTHING);
    session->is_body_sent = true;
    smtp_session_enter(session, SMTP_STATE_END_OF_DATA, now);
}

void smtp_session_body_taken(struct smtp_session *session, struct mono_time now)
{
    if (session->state != SMTP_STATE_END_OF_DATA || !session->is_body_sent) {
        return;
    }
    ensure(!session->is_body_taken);
    session->is_body_taken = true;
    if (!session->is_accept_held) {
        smtp_session_arm(session, now);
    } else if (smtp_reply_is_started(&session->parser)) {
        smtp_session_fail(session, SMTP_CAUSE_PROTOCOL, now);
    } else {
        session->is_accept_held = false;
        smtp_session_on_reply(session, now);
    }
}

bool smtp_session_is_accept_held(const struct smtp_session *session)
{
    return session->is_accept_held;
}

void smtp_session_quit(struct smtp_session *session, struct mono_time now)
{
    ensure(session->state == SMTP_STATE_READY);
    ensure(session->tell == SMTP_TELL_NOTHING);
    smtp_session_enter(session, SMTP_STATE_QUIT, now);
}

struct mono_time smtp_session_deadline(const struct smtp_session *session)
{
    return session->deadline;
}

const struct smtp_capabilities *smtp_session_capabilities(const struct smtp_session *session)
{
    return &session->capabilities;
}
