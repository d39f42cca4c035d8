/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_session_priv: what the files of the session machine share. smtp_session.c holds its life and
 * tells its events, smtp_session_state.c its states, smtp_session_send.c the send cursor,
 * smtp_session_reply.c the await cursor, smtp_session_check.c its looks. Nobody else includes this
 * but tests.
 */
#pragma once

#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_session.h"

/* Sets of states are masks of these. */
#define SMTP_STATE_BIT(state) (1u << (state))

/* The only writer of session->state; cursors and deadline start anew. */
void smtp_session_enter(struct smtp_session *session, enum smtp_state state, struct mono_time now);
/* Of what is awaited now; in READY and CONNECTING of what the state follows. */
enum smtp_stage smtp_session_stage(const struct smtp_session *session);
/* Of the command at `index` of the present state. */
enum smtp_verb smtp_session_verb(const struct smtp_session *session, unsigned index);
/* The limit of what is awaited now starts at `now`. */
void smtp_session_arm(struct smtp_session *session, struct mono_time now);

/* RCPT number `index` was refused by the present reply: it will be told so. */
void smtp_session_refuse_rcpt(struct smtp_session *session, unsigned index);
/* The stage has come out by `cause`: all recipients not told yet will be told so. */
void smtp_session_decide(struct smtp_session *session, enum smtp_stage stage,
                         enum smtp_cause cause);
/* The session ends at its present stage by `cause`: all recipients not told yet, then OVER. */
void smtp_session_fail(struct smtp_session *session, enum smtp_cause cause, struct mono_time now);

/* A line of the reply to connect, EHLO or HELO ended; a whole reply came: smtp_session_reply.c. */
void smtp_session_on_line(struct smtp_session *session);
void smtp_session_on_reply(struct smtp_session *session, struct mono_time now);

static inline bool smtp_session_is_outstanding(const struct smtp_session *session)
{
    return session->sent_count > session->answered_count;
}
