/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session looks like: to people (names, text) and to itself (check).
 */
#include "engine/smtp/smtp_session_priv.h"

static const char *const STAGE_NAMES[] = {
    [SMTP_STAGE_CONNECT] = "CONNECT", [SMTP_STAGE_GREETING] = "GREETING",
    [SMTP_STAGE_EHLO] = "EHLO",       [SMTP_STAGE_MAIL] = "MAIL FROM",
    [SMTP_STAGE_RCPT] = "RCPT TO",    [SMTP_STAGE_DATA] = "DATA",
    [SMTP_STAGE_BODY] = "BODY",       [SMTP_STAGE_END_OF_DATA] = "END OF DATA",
    [SMTP_STAGE_RSET] = "RSET",       [SMTP_STAGE_QUIT] = "QUIT",
};
_Static_assert(COUNT_OF(STAGE_NAMES) == SMTP_STAGES_COUNT, "one name a stage");

static const char *const CAUSE_NAMES[] = {
    [SMTP_CAUSE_REPLY] = "reply",     [SMTP_CAUSE_LOST] = "lost",
    [SMTP_CAUSE_TIMEOUT] = "timeout", [SMTP_CAUSE_PROTOCOL] = "protocol",
    [SMTP_CAUSE_SIZE] = "size",       [SMTP_CAUSE_8BIT] = "8bit",
    [SMTP_CAUSE_LOOP] = "loop",
};
_Static_assert(COUNT_OF(CAUSE_NAMES) == SMTP_CAUSES_COUNT, "one name a cause");

static const char *const STATE_NAMES[] = {
    [SMTP_STATE_CONNECTING] = "connecting",
    [SMTP_STATE_GREETING] = "greeting",
    [SMTP_STATE_EHLO] = "ehlo",
    [SMTP_STATE_HELO] = "helo",
    [SMTP_STATE_READY] = "ready",
    [SMTP_STATE_ENVELOPE] = "envelope",
    [SMTP_STATE_BODY] = "body",
    [SMTP_STATE_END_OF_DATA] = "end_of_data",
    [SMTP_STATE_RSET] = "rset",
    [SMTP_STATE_QUIT] = "quit",
    [SMTP_STATE_OVER] = "over",
};
_Static_assert(COUNT_OF(STATE_NAMES) == SMTP_STATES_COUNT, "one name a state");

const char *smtp_stage_name(enum smtp_stage stage)
{
    ensure((unsigned)stage < SMTP_STAGES_COUNT);
    return STAGE_NAMES[stage];
}

const char *smtp_cause_name(enum smtp_cause cause)
{
    ensure((unsigned)cause < SMTP_CAUSES_COUNT);
    return CAUSE_NAMES[cause];
}

const char *smtp_state_name(enum smtp_state state)
{
    ensure((unsigned)state < SMTP_STATES_COUNT);
    return STATE_NAMES[state];
}

void smtp_session_to_text(const struct smtp_session *session, struct writer *writer)
{
    unsigned rcpts_count = session->transaction != NULL ? session->transaction->rcpts_count : 0;
    writer_put_format(
        writer, "state=%s transactions=%u commands=%u sent=%u answered=%u rcpts=%u undecided=%u",
        smtp_state_name(session->state), session->transactions_count, session->commands_count,
        session->sent_count, session->answered_count, rcpts_count, session->undecided_count);
}

/* Recipients that were not told their fate: those without one, and those of the sweep. */
static void check_recipients(const struct smtp_session *session)
{
    unsigned rcpts_count = session->transaction != NULL ? session->transaction->rcpts_count : 0;
    unsigned untold = 0;
    unsigned in_sweep = 0;
    for (unsigned i = 0; i < SMTP_RCPTS_MAX; i++) {
        bool is_told = (session->told[i / 64] >> (i % 64) & 1) != 0;
        untold += !is_told;
        in_sweep += !is_told && i >= session->sweep_at && i < session->sweep_end;
        if (i >= rcpts_count)
            ensure(is_told);
    }
    ensure(session->sweep_at <= session->sweep_end);
    ensure(session->sweep_end <= rcpts_count);
    ensure(untold == session->undecided_count + in_sweep);
}

/* By state: is there a transaction, can a recipient be undecided, are commands counted. */
static void check_state(const struct smtp_session *session)
{
    switch (session->state) {
    case SMTP_STATE_CONNECTING:
    case SMTP_STATE_GREETING:
    case SMTP_STATE_EHLO:
    case SMTP_STATE_HELO:
    case SMTP_STATE_QUIT:
        ensure(session->transaction == NULL);
        ensure(session->tell == SMTP_TELL_NOTHING);
        return;
    case SMTP_STATE_READY:
        ensure(session->commands_count == 0);
        ensure(session->undecided_count == 0);
        ensure((session->transaction != NULL) == (session->tell == SMTP_TELL_DONE));
        return;
    case SMTP_STATE_ENVELOPE:
        ensure(session->transaction != NULL);
        ensure(session->answered_count < session->commands_count);
        ensure(session->commands_count <= session->transaction->rcpts_count + 2u);
        return;
    case SMTP_STATE_BODY:
        ensure(session->undecided_count > 0);
        ensure(session->commands_count == 0);
        return;
    case SMTP_STATE_END_OF_DATA:
        ensure((session->undecided_count > 0) == session->is_body_sent);
        ensure(!session->is_accept_held || !session->is_body_taken);
        ensure(session->commands_count == 1);
        return;
    case SMTP_STATE_RSET:
        ensure(session->transaction != NULL);
        ensure(session->undecided_count == 0);
        return;
    case SMTP_STATE_OVER:
        ensure(session->undecided_count == 0);
        ensure(session->deadline.ns == INT64_MAX);
        ensure(session->tell == SMTP_TELL_OVER || session->transaction == NULL);
        return;
    }
    ensure(false);
}

void smtp_session_check(const struct smtp_session *session)
{
    ensure((unsigned)session->state < SMTP_STATES_COUNT);
    ensure(session->answered_count <= session->sent_count);
    ensure(session->sent_count <= session->commands_count);
    check_recipients(session);
    check_state(session);
}
