/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send cursor. It never looks at replies: what they forbid, the await cursor has taken out of
 * commands_count.
 */
#include <errno.h>

#include "engine/base/planted.h"
#include "engine/smtp/smtp_command.h"
#include "engine/smtp/smtp_session_priv.h"

/* Parameters only when the present EHLO offered them (A25, E1, E5): begin has declined an 8-bit
 * message where 8BITMIME is not. */
static int write_mail(const struct smtp_session *session, struct writer *writer)
{
    const struct smtp_mail_parameters parameters = {
        .has_size = (session->capabilities.bits & SMTP_CAN_SIZE) != 0,
        .is_8bit = session->transaction->is_8bit,
        .size = session->transaction->size,
    };
    return smtp_command_mail(writer, session->transaction->sender, &parameters);
}

static int write_command(const struct smtp_session *session, struct writer *writer)
{
    unsigned index = session->sent_count;
    enum smtp_verb verb = smtp_session_verb(session, index);
    switch (verb) {
    case SMTP_VERB_EHLO:
    case SMTP_VERB_HELO:
        return smtp_command_greeting(writer, verb, session->config->ehlo_name);
    case SMTP_VERB_MAIL:
        return write_mail(session, writer);
    case SMTP_VERB_RCPT:
        return smtp_command_rcpt(writer, session->transaction->rcpts[index - 1]);
    case SMTP_VERB_DATA:
    case SMTP_VERB_DOT:
    case SMTP_VERB_RSET:
    case SMTP_VERB_QUIT:
        return smtp_command_plain(writer, verb);
    }
    ensure(false);
    return -EINVAL;
}

/* C1: behind an unanswered command only when PIPELINING is offered. No state has a command behind a
 * sync point. */
static bool may_send(const struct smtp_session *session)
{
    if (session->sent_count == session->commands_count) {
        return false;
    }
    if (!smtp_session_is_outstanding(session)) {
        return true;
    }
    ensure(!SMTP_VERBS[smtp_session_verb(session, session->sent_count - 1u)].is_sync_point);
    return (session->capabilities.bits & SMTP_CAN_PIPELINE) != 0 || PLANTED(PIPELINES_ALWAYS);
}

bool smtp_session_output(struct smtp_session *session, struct writer *writer)
{
    /* What comes too early must not look like the answer to a command that is sent now. */
    if (session->is_early && smtp_reply_is_started(&session->parser)) {
        return false;
    }
    while (may_send(session)) {
        int error = write_command(session, writer);
        if (error == -ENOBUFS) {
            return true;
        }
        ensure(error == 0);
        session->sent_count++;
    }
    return false;
}
