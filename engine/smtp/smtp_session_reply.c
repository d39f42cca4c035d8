/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The await cursor. Replies are counted, never matched by code or text (C2): each belongs to the
 * oldest command without one.
 */
#include "engine/base/planted.h"
#include "engine/smtp/smtp_session_priv.h"

enum {
    CODE_GREETING = 220,
    CODE_CLOSING = 221,
    CODE_UNAVAILABLE = 421,
};

enum answer {
    ANSWER_GOOD,
    ANSWER_REFUSED,
    ANSWER_WRONG,
};

static struct span first_word(struct span line)
{
    line = span_trim(line);
    return span_of(line.at, span_find(line, ' '));
}

/* A Cisco PIX hides greeting and capabilities behind stars: "220 **2**0***" (3.1). */
static bool is_masked_greeting(struct span line)
{
    size_t stars = 0;
    for (size_t i = 0; i < line.size; i++) {
        char c = line.at[i];
        if (c != '*' && c != '0' && c != '2' && c != ' ') {
            return false;
        }
        stars += c == '*';
    }
    return stars > 2;
}

void smtp_session_on_line(struct smtp_session *session)
{
    struct span line = session->parser.line;
    if (session->parser.lines_count == 1) {
        session->is_own_name = span_equal_nocase(first_word(line), session->config->ehlo_name);
        session->is_masked = is_masked_greeting(line);
    } else if (session->state == SMTP_STATE_EHLO) {
        smtp_capability_take_line(&session->capabilities, line);
    }
}

/* A5: the first digit decides, but 220 and 221 mean one thing only. Out of their place they are a
 * shift of replies, and the next one would be taken for another command's (C9: a QUIT's 221 once
 * passed for the end of data). */
static enum answer answer_of(const struct smtp_session *session)
{
    unsigned code = session->parser.reply.code;
    bool is_to_data = session->state == SMTP_STATE_ENVELOPE &&
                      session->answered_count > session->transaction->rcpts_count;
    unsigned good_class = is_to_data ? 3 : 2;
    if (code >= 400) {
        return ANSWER_REFUSED;
    }
    if (PLANTED(WRONG_IS_DELIVERED) && session->state == SMTP_STATE_END_OF_DATA) {
        return ANSWER_GOOD;
    }
    if (code / 100 != good_class ||
        (code == CODE_GREETING && session->state != SMTP_STATE_GREETING) ||
        (code == CODE_CLOSING && session->state != SMTP_STATE_QUIT)) {
        return ANSWER_WRONG;
    }
    return ANSWER_GOOD;
}

/* The server refused us in good order: it is told QUIT, whose answer nobody awaits (A28). */
static void fail_with_farewell(struct smtp_session *session, enum smtp_cause cause,
                               struct mono_time now)
{
    smtp_session_fail(session, cause, now);
    session->commands_count = 1;
}

/* Nothing was asked (C11). 421 is honoured anywhere (A14), a refusal also before the end of data
 * was sent (3.6); an acceptance never. */
static void on_early_reply(struct smtp_session *session, struct mono_time now)
{
    unsigned code = session->parser.reply.code;
    bool is_in_data = session->state == SMTP_STATE_BODY || session->state == SMTP_STATE_END_OF_DATA;
    if (PLANTED(EARLY_IS_DELIVERED) && session->state == SMTP_STATE_BODY && code < 300) {
        smtp_session_decide(session, SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY);
        session->tell = SMTP_TELL_OVER;
        smtp_session_enter(session, SMTP_STATE_OVER, now);
        return;
    }
    /* Behind an acceptance that waits, nobody knows any more. */
    bool is_honoured =
        !session->is_accept_held && (code == CODE_UNAVAILABLE || (is_in_data && code >= 400));
    smtp_session_fail(session, is_honoured ? SMTP_CAUSE_REPLY : SMTP_CAUSE_PROTOCOL, now);
}

static void on_greeting(struct smtp_session *session, enum answer answer, struct mono_time now)
{
    if (answer == ANSWER_REFUSED) { /* A29 */
        fail_with_farewell(session, SMTP_CAUSE_REPLY, now);
    } else if (session->is_own_name) { /* A27 */
        fail_with_farewell(session, SMTP_CAUSE_LOOP, now);
    } else {
        smtp_session_enter(session, session->is_masked ? SMTP_STATE_HELO : SMTP_STATE_EHLO, now);
    }
}

/* To EHLO or HELO. */
static void on_hello(struct smtp_session *session, enum answer answer, struct mono_time now)
{
    bool is_ehlo = session->state == SMTP_STATE_EHLO;
    if (answer == ANSWER_REFUSED) {
        session->capabilities = (struct smtp_capabilities){0};
        if (is_ehlo && session->parser.reply.code >= 500) { /* A10 */
            smtp_session_enter(session, SMTP_STATE_HELO, now);
        } else {
            fail_with_farewell(session, SMTP_CAUSE_REPLY, now);
        }
    } else if (session->is_own_name) {
        fail_with_farewell(session, SMTP_CAUSE_LOOP, now);
    } else {
        session->capabilities.bits &= ~session->config->capabilities_off;
        smtp_session_enter(session, SMTP_STATE_READY, now);
        session->tell = SMTP_TELL_READY;
    }
}

/* 3xx to DATA. Without an accepted recipient there is no text to send: a lone dot, whose answer
 * decides nothing (C3). */
static void on_data_go(struct smtp_session *session, struct mono_time now)
{
    if (session->undecided_count > 0) {
        smtp_session_enter(session, SMTP_STATE_BODY, now);
        session->tell = SMTP_TELL_BODY;
    } else {
        smtp_session_enter(session, SMTP_STATE_END_OF_DATA, now);
    }
}

/* `answered_count` is still on the command that this answers. */
static void on_envelope(struct smtp_session *session, enum answer answer, struct mono_time now)
{
    unsigned rcpts_count = session->transaction->rcpts_count;
    unsigned index = session->answered_count;
    if (answer == ANSWER_REFUSED) {
        if (index ==
            0) { /* C5: this is the fate of all, whatever the commands behind it are told */
            session->is_mail_refused = true;
            session->commands_count = session->sent_count;
            smtp_session_decide(session, SMTP_STAGE_MAIL, SMTP_CAUSE_REPLY);
        } else if (index > rcpts_count) { /* C4, C7 */
            smtp_session_decide(session, SMTP_STAGE_DATA, SMTP_CAUSE_REPLY);
        } else if (!session->is_mail_refused) { /* C6 */
            smtp_session_refuse_rcpt(session, index - 1);
        }
    } else if (index > rcpts_count) {
        on_data_go(session, now);
        return;
    }
    session->answered_count++;
    if (session->undecided_count == 0 && index == rcpts_count) {
        session->commands_count =
            session->sent_count; /* no DATA for nobody, if it is not out yet */
    }
    if (session->answered_count == session->commands_count) {
        smtp_session_enter(session, SMTP_STATE_RSET, now);
    } else {
        smtp_session_arm(session, now);
    }
}

/* A12. A refusal may leave a careless server in the middle of the transaction: RSET, or its 503 to
 * the next MAIL would bounce mail. */
static void on_end_of_data(struct smtp_session *session, enum answer answer, struct mono_time now)
{
    bool is_lone_dot = !session->is_body_sent;
    if (!is_lone_dot && !session->is_body_taken && answer == ANSWER_GOOD) {
        session->is_accept_held = true;
        return;
    }
    if (!is_lone_dot) {
        smtp_session_decide(session, SMTP_STAGE_END_OF_DATA, SMTP_CAUSE_REPLY);
    }
    if (is_lone_dot || answer == ANSWER_REFUSED) {
        smtp_session_enter(session, SMTP_STATE_RSET, now);
    } else {
        smtp_session_enter(session, SMTP_STATE_READY, now);
        session->tell = SMTP_TELL_DONE;
    }
}

static void on_rset(struct smtp_session *session, enum answer answer, struct mono_time now)
{
    if (answer == ANSWER_REFUSED) { /* 3.3, 3.11 */
        fail_with_farewell(session, SMTP_CAUSE_REPLY, now);
    } else {
        smtp_session_enter(session, SMTP_STATE_READY, now);
        session->tell = SMTP_TELL_DONE;
    }
}

void smtp_session_on_reply(struct smtp_session *session, struct mono_time now)
{
    if (session->is_early) {
        on_early_reply(session, now);
        return;
    }
    ensure(smtp_session_is_outstanding(session));
    if (session->parser.reply.code == CODE_UNAVAILABLE || session->state == SMTP_STATE_QUIT) {
        smtp_session_fail(session, SMTP_CAUSE_REPLY, now);
        return;
    }
    enum answer answer = answer_of(session);
    if (answer == ANSWER_WRONG) {
        smtp_session_fail(session, SMTP_CAUSE_PROTOCOL, now);
        return;
    }
    switch (session->state) {
    case SMTP_STATE_GREETING:
        on_greeting(session, answer, now);
        return;
    case SMTP_STATE_EHLO:
    case SMTP_STATE_HELO:
        on_hello(session, answer, now);
        return;
    case SMTP_STATE_ENVELOPE:
        on_envelope(session, answer, now);
        return;
    case SMTP_STATE_END_OF_DATA:
        on_end_of_data(session, answer, now);
        return;
    case SMTP_STATE_RSET:
        on_rset(session, answer, now);
        return;
    case SMTP_STATE_CONNECTING:
    case SMTP_STATE_READY:
    case SMTP_STATE_BODY:
    case SMTP_STATE_QUIT:
    case SMTP_STATE_OVER:
        break;
    }
    ensure(false);
}
