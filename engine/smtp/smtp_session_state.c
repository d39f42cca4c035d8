/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states themselves: which may follow which, what each counts and awaits and for how long, and
 * how it comes out for its recipients. The diagram is in smtp_session.h.
 */
#include "engine/smtp/smtp_session_priv.h"

static const uint32_t ALLOWED[] = {
    [SMTP_STATE_CONNECTING] = SMTP_STATE_BIT(SMTP_STATE_GREETING) | SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_GREETING] = SMTP_STATE_BIT(SMTP_STATE_EHLO) | SMTP_STATE_BIT(SMTP_STATE_HELO) |
                            SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_EHLO] = SMTP_STATE_BIT(SMTP_STATE_HELO) | SMTP_STATE_BIT(SMTP_STATE_READY) |
                        SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_HELO] = SMTP_STATE_BIT(SMTP_STATE_READY) | SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_READY] = SMTP_STATE_BIT(SMTP_STATE_ENVELOPE) | SMTP_STATE_BIT(SMTP_STATE_QUIT) |
                         SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_ENVELOPE] = SMTP_STATE_BIT(SMTP_STATE_BODY) |
                            SMTP_STATE_BIT(SMTP_STATE_END_OF_DATA) |
                            SMTP_STATE_BIT(SMTP_STATE_RSET) | SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_BODY] = SMTP_STATE_BIT(SMTP_STATE_END_OF_DATA) | SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_END_OF_DATA] = SMTP_STATE_BIT(SMTP_STATE_READY) | SMTP_STATE_BIT(SMTP_STATE_RSET) |
                               SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_RSET] = SMTP_STATE_BIT(SMTP_STATE_READY) | SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_QUIT] = SMTP_STATE_BIT(SMTP_STATE_OVER),
    [SMTP_STATE_OVER] = 0,
};
_Static_assert(COUNT_OF(ALLOWED) == SMTP_STATES_COUNT, "one row a state");

enum smtp_stage smtp_session_stage(const struct smtp_session *session)
{
    switch (session->state) {
    case SMTP_STATE_CONNECTING:
        return SMTP_STAGE_CONNECT;
    case SMTP_STATE_GREETING:
        return SMTP_STAGE_GREETING;
    case SMTP_STATE_EHLO:
    case SMTP_STATE_HELO:
        return SMTP_STAGE_EHLO;
    case SMTP_STATE_READY:
        return session->transactions_count == 0 ? SMTP_STAGE_EHLO : SMTP_STAGE_RSET;
    case SMTP_STATE_ENVELOPE:
        if (session->answered_count == 0) {
            return SMTP_STAGE_MAIL;
        }
        return session->answered_count <= session->transaction->rcpts_count ? SMTP_STAGE_RCPT
                                                                            : SMTP_STAGE_DATA;
    case SMTP_STATE_BODY:
        return SMTP_STAGE_BODY;
    case SMTP_STATE_END_OF_DATA:
        return SMTP_STAGE_END_OF_DATA;
    case SMTP_STATE_RSET:
        return SMTP_STAGE_RSET;
    case SMTP_STATE_QUIT:
        return SMTP_STAGE_QUIT;
    case SMTP_STATE_OVER:
        return session->result_stage;
    }
    ensure(false);
    return SMTP_STAGE_CONNECT;
}

enum smtp_verb smtp_session_verb(const struct smtp_session *session, unsigned index)
{
    ensure(index < session->commands_count);
    switch (session->state) {
    case SMTP_STATE_EHLO:
        return SMTP_VERB_EHLO;
    case SMTP_STATE_HELO:
        return SMTP_VERB_HELO;
    case SMTP_STATE_ENVELOPE:
        if (index == 0) {
            return SMTP_VERB_MAIL;
        }
        return index <= session->transaction->rcpts_count ? SMTP_VERB_RCPT : SMTP_VERB_DATA;
    case SMTP_STATE_END_OF_DATA:
        return SMTP_VERB_DOT;
    case SMTP_STATE_RSET:
        return SMTP_VERB_RSET;
    case SMTP_STATE_QUIT:
    case SMTP_STATE_OVER:
        return SMTP_VERB_QUIT;
    case SMTP_STATE_CONNECTING:
    case SMTP_STATE_GREETING:
    case SMTP_STATE_READY:
    case SMTP_STATE_BODY:
        break;
    }
    ensure(false);
    return SMTP_VERB_QUIT;
}

/* 0 = without limit. */
static uint32_t stage_timeout_ms(const struct smtp_timeouts *timeouts, enum smtp_stage stage)
{
    switch (stage) {
    case SMTP_STAGE_CONNECT:
        return 0;
    case SMTP_STAGE_GREETING:
        return timeouts->greeting_ms;
    case SMTP_STAGE_EHLO:
        return timeouts->ehlo_ms;
    case SMTP_STAGE_MAIL:
        return timeouts->mail_ms;
    case SMTP_STAGE_RCPT:
        return timeouts->rcpt_ms;
    case SMTP_STAGE_DATA:
        return timeouts->data_ms;
    case SMTP_STAGE_BODY:
        return timeouts->body_ms;
    case SMTP_STAGE_END_OF_DATA:
        return timeouts->end_of_data_ms;
    case SMTP_STAGE_RSET:
        return timeouts->rset_ms;
    case SMTP_STAGE_QUIT:
        return timeouts->quit_ms;
    }
    ensure(false);
    return 0;
}

void smtp_session_arm(struct smtp_session *session, struct mono_time now)
{
    ensure(session->state != SMTP_STATE_CONNECTING);
    ensure(session->state != SMTP_STATE_OVER);
    enum smtp_stage stage =
        session->state == SMTP_STATE_READY ? SMTP_STAGE_RSET : smtp_session_stage(session);
    if (session->state == SMTP_STATE_END_OF_DATA && session->is_body_sent &&
        !session->is_body_taken) {
        stage = SMTP_STAGE_BODY; /* a large one on its way to a slow server */
    }
    session->deadline = mono_add_ms(now, stage_timeout_ms(&session->config->timeouts, stage));
}

/* How many commands the state has, and how many of them are on their way without us: the greeting
 * answers the connect, the reply to the end of data answers the caller's dot. */
static void count_commands(struct smtp_session *session)
{
    session->answered_count = 0;
    session->sent_count = 0;
    session->commands_count = 0;
    switch (session->state) {
    case SMTP_STATE_GREETING:
        session->commands_count = 1;
        session->sent_count = 1;
        return;
    case SMTP_STATE_EHLO:
    case SMTP_STATE_HELO:
    case SMTP_STATE_RSET:
    case SMTP_STATE_QUIT:
        session->commands_count = 1;
        return;
    case SMTP_STATE_ENVELOPE:
        session->commands_count = (uint16_t)(session->transaction->rcpts_count + 2u);
        return;
    case SMTP_STATE_END_OF_DATA:
        session->commands_count = 1;
        session->sent_count = session->is_body_sent;
        return;
    case SMTP_STATE_CONNECTING:
    case SMTP_STATE_READY:
    case SMTP_STATE_BODY:
    case SMTP_STATE_OVER:
        return;
    }
    ensure(false);
}

void smtp_session_enter(struct smtp_session *session, enum smtp_state state, struct mono_time now)
{
    ensure((unsigned)state < SMTP_STATES_COUNT);
    ensure((ALLOWED[session->state] & SMTP_STATE_BIT(state)) != 0);
    session->state = state;
    session->is_accept_held = false;
    count_commands(session);
    if (state == SMTP_STATE_OVER) {
        session->deadline = MONO_NEVER;
    } else {
        smtp_session_arm(session, now);
    }
}

static void set_result(struct smtp_session *session, enum smtp_stage stage, enum smtp_cause cause)
{
    ensure(session->sweep_end == 0);
    session->result_stage = stage;
    session->result_cause = cause;
    session->result_is_ambiguous = session->state == SMTP_STATE_END_OF_DATA &&
                                   session->is_body_sent && cause != SMTP_CAUSE_REPLY;
}

void smtp_session_refuse_rcpt(struct smtp_session *session, unsigned index)
{
    ensure(session->undecided_count > 0);
    set_result(session, SMTP_STAGE_RCPT, SMTP_CAUSE_REPLY);
    session->sweep_at = (uint16_t)index;
    session->sweep_end = (uint16_t)(index + 1);
    session->undecided_count--;
}

void smtp_session_decide(struct smtp_session *session, enum smtp_stage stage, enum smtp_cause cause)
{
    set_result(session, stage, cause);
    session->sweep_at = 0;
    session->sweep_end = session->transaction != NULL ? session->transaction->rcpts_count : 0;
    session->undecided_count = 0;
}

void smtp_session_fail(struct smtp_session *session, enum smtp_cause cause, struct mono_time now)
{
    smtp_session_decide(session, smtp_session_stage(session), cause);
    session->tell = SMTP_TELL_OVER;
    smtp_session_enter(session, SMTP_STATE_OVER, now);
}
