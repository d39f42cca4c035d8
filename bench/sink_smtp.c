/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_smtp.h"

/*
 *            EHLO/HELO         MAIL           RCPT          DATA
 *     START ----------> READY ------> MAIL --------> RCPT ------> BODY
 *                         ^            |              |            |
 *                         +-- EHLO, HELO, RSET -------+---- dot ---+
 *
 * From every state but OVER: MUTE (a script said so) and OVER (QUIT, 421, drop, reset); OVER is for
 * good, MUTE ends with the connection. EHLO in the middle of a transaction is a RSET (RFC 5321
 * 4.1.4). A greeting script may lead from START to MUTE or OVER.
 */
static const uint8_t ALLOWED[SINK_SMTP_STATES_COUNT] = {
    [SINK_SMTP_START] = 1u << SINK_SMTP_READY | 1u << SINK_SMTP_MUTE | 1u << SINK_SMTP_OVER,
    [SINK_SMTP_READY] =
        1u << SINK_SMTP_READY | 1u << SINK_SMTP_MAIL | 1u << SINK_SMTP_MUTE | 1u << SINK_SMTP_OVER,
    [SINK_SMTP_MAIL] =
        1u << SINK_SMTP_READY | 1u << SINK_SMTP_RCPT | 1u << SINK_SMTP_MUTE | 1u << SINK_SMTP_OVER,
    [SINK_SMTP_RCPT] = 1u << SINK_SMTP_READY | 1u << SINK_SMTP_RCPT | 1u << SINK_SMTP_BODY |
                       1u << SINK_SMTP_MUTE | 1u << SINK_SMTP_OVER,
    [SINK_SMTP_BODY] = 1u << SINK_SMTP_READY | 1u << SINK_SMTP_MUTE | 1u << SINK_SMTP_OVER,
    [SINK_SMTP_MUTE] = 0,
    [SINK_SMTP_OVER] = 0,
};

#define SAY(text) writer_put(out, SPAN(text "\r\n"))

static void sink_smtp_enter(struct sink_smtp *session, enum sink_smtp_state state)
{
    ensure(ALLOWED[session->state] & 1u << state);
    session->state = state;
}

static void session_over(struct sink_smtp *session, enum sink_end end)
{
    session->end = end;
    sink_smtp_enter(session, SINK_SMTP_OVER);
}

static void transaction_clear(struct sink_smtp *session)
{
    session->rcpts_count = 0;
    session->body_size = 0;
    session->is_early = false;
    session->at_data = (struct sink_script){.act = SINK_ACT_NONE};
    session->at_dot = (struct sink_script){.act = SINK_ACT_NONE};
    sink_smtp_enter(session, SINK_SMTP_READY);
}

void sink_smtp_init(struct sink_smtp *session, const struct sink_policy *policy,
                    const struct sink_hooks *hooks, void *context, struct random *random,
                    struct sink_counts *counts)
{
    ensure(policy->shares_count <= SINK_SHARES_MAX);
    ensure(policy->name.size <= 255);
    session->policy = policy;
    session->hooks = hooks;
    session->context = context;
    session->random = random;
    session->counts = counts;
    session->state = SINK_SMTP_START;
    session->end = SINK_END_OPEN;
    dot_finder_init(&session->dot);
    session->delay_ms = 0;
    session->rcpts_count = 0;
    session->body_size = 0;
    session->manner = SINK_ACT_NONE;
    session->said = 0;
    session->is_early = false;
    session->is_endless = false;
    session->at_data = (struct sink_script){.act = SINK_ACT_NONE};
    session->at_dot = (struct sink_script){.act = SINK_ACT_NONE};
    session->is_skipping = false;
    session->line_size = 0;
}

/* What a share decides for one verb; the first rule that hits wins. */
static struct sink_script share_draw(struct sink_smtp *session, enum sink_verb verb)
{
    const struct sink_policy *policy = session->policy;
    for (size_t i = 0; i < policy->shares_count; i++) {
        const struct sink_share *share = &policy->shares[i];
        if (share->script.verb == verb &&
            random_below(session->random, 1000000) < share->share_ppm) {
            return share->script;
        }
    }
    return (struct sink_script){.act = SINK_ACT_NONE};
}

/* The script of an address, unless it was only for its first times. */
static struct sink_script address_script(struct sink_smtp *session, struct span address)
{
    struct sink_script script = sink_script_of_address(address);
    if (script.times > 0 && session->hooks->on_attempt &&
        session->hooks->on_attempt(session->context, address) >= script.times) {
        script.act = SINK_ACT_NONE;
    }
    return script;
}

/* What is to happen at `verb`: by the address when it speaks of this verb, else by share. */
static struct sink_script script_choose(struct sink_smtp *session, enum sink_verb verb,
                                        const struct sink_script *own)
{
    bool is_own = own->act == SINK_ACT_SLOW || (own->act != SINK_ACT_NONE && own->verb == verb);
    return is_own ? *own : share_draw(session, verb);
}

/* Does what the script says. True when it took the place of the ordinary answer; SLOW, NONE and
 * manners do not. A code below 400 is an answer of its own, but the command counts as done. */
static bool script_play(struct sink_smtp *session, const struct sink_script *script,
                        struct writer *out, bool *ret_is_done)
{
    *ret_is_done = false;
    switch (script->act) {
    case SINK_ACT_NONE:
    case SINK_ACT_LOST:
    case SINK_ACT_TOOK:
    case SINK_ACT_EARLY:
        return false;
    case SINK_ACT_SHUT:
    case SINK_ACT_TWICE:
    case SINK_ACT_SKIP:
    case SINK_ACT_JUNK:
    case SINK_ACT_ENDLESS:
        session->manner = script->act;
        return false;
    case SINK_ACT_SLOW:
        session->delay_ms =
            script->delay_ms > session->delay_ms ? script->delay_ms : session->delay_ms;
        return false;
    case SINK_ACT_REPLY:
        sink_script_put_reply(out, script);
        *ret_is_done = script->code < 400;
        session->counts->refused += *ret_is_done ? 0 : 1;
        if (script->code == 421) {
            session_over(session, SINK_END_CLOSE);
        }
        return true;
    case SINK_ACT_DROP:
    case SINK_ACT_RESET:
        session->counts->refused++;
        session_over(session, script->act == SINK_ACT_DROP ? SINK_END_CLOSE : SINK_END_RESET);
        return true;
    case SINK_ACT_MUTE:
        session->counts->refused++;
        sink_smtp_enter(session, SINK_SMTP_MUTE);
        return true;
    }
    ensure(false);
    return false;
}

/* The ordinary reply stands from `start` on: it is said in its manner. */
static void reply_finish(struct sink_smtp *session, char *start, struct writer *out)
{
    enum sink_act manner = session->manner;
    session->manner = SINK_ACT_NONE;
    if (manner == SINK_ACT_TWICE) {
        writer_put(out, span_of(start, (size_t)(out->at - start)));
    } else if (manner == SINK_ACT_SKIP || manner == SINK_ACT_JUNK || manner == SINK_ACT_ENDLESS) {
        out->at = start;
    }
    if (manner == SINK_ACT_JUNK) {
        SAY("All is well that ends well.");
    }
    bool is_over = session->state == SINK_SMTP_OVER;
    if (manner == SINK_ACT_SHUT && !is_over) {
        session_over(session, SINK_END_CLOSE);
    } else if (manner == SINK_ACT_ENDLESS && !is_over) {
        writer_put(out, SPAN("250-And so on and so on"));
        session->is_endless = true;
        sink_smtp_enter(session, SINK_SMTP_MUTE);
    }
}

static void greet(struct sink_smtp *session, struct writer *out)
{
    ensure(session->state == SINK_SMTP_START);
    struct sink_script script = share_draw(session, SINK_VERB_CONNECT);
    bool is_done;
    if (script_play(session, &script, out, &is_done)) {
        if (session->state == SINK_SMTP_START && !is_done) {
            session_over(session, SINK_END_CLOSE);
        }
        return;
    }
    writer_put(out, SPAN("220 "));
    writer_put(out, session->policy->name);
    SAY(" ESMTP ready");
}

void sink_smtp_open(struct sink_smtp *session, struct writer *out)
{
    char *start = out->at;
    greet(session, out);
    reply_finish(session, start, out);
}

static void on_hello(struct sink_smtp *session, bool is_extended, struct writer *out)
{
    if (is_extended && session->policy->is_old) {
        SAY("502 5.5.1 What is EHLO?");
        return;
    }
    struct sink_script script = share_draw(session, SINK_VERB_EHLO);
    bool is_done;
    if (script_play(session, &script, out, &is_done) && !is_done) {
        return;
    }
    transaction_clear(session);
    if (is_done) {
        return;
    }
    writer_put(out, is_extended ? SPAN("250-") : SPAN("250 "));
    writer_put(out, session->policy->name);
    if (!is_extended) {
        SAY("");
        return;
    }
    writer_put(out, session->policy->is_stepwise ? SPAN_NONE : SPAN("\r\n250-PIPELINING"));
    writer_put(out, SPAN("\r\n250-8BITMIME\r\n250-SIZE "));
    writer_put_uint(out, session->policy->size_max);
    SAY("\r\n250 ENHANCEDSTATUSCODES");
}

/* The path between "<" and ">" after the verb's keyword; false when there is none. Quoted local
 * parts may hold ">". What follows the path are parameters. */
static bool path_take(struct cursor *cursor, struct span *ret_path)
{
    while (cursor_take_byte(cursor, ' ')) {
    }
    if (!cursor_take_byte(cursor, '<')) {
        return false;
    }
    const char *start = cursor->at;
    bool is_quoted = false;
    for (const char *at = start; at < cursor->end; at++) {
        if (*at == '"') {
            is_quoted = !is_quoted;
        } else if (*at == '\\' && is_quoted) {
            at++;
        } else if (*at == '>' && !is_quoted) {
            *ret_path = span_of(start, (size_t)(at - start));
            cursor->at = at + 1;
            return true;
        }
    }
    return false;
}

/* The number of a SIZE parameter, 0 when there is none (RFC 1870). */
static uint64_t size_param(struct cursor cursor)
{
    while (cursor_take_byte(&cursor, ' ')) {
        struct span param = cursor_take_until(&cursor, ' ');
        uint64_t size;
        struct cursor value = cursor_of(param);
        if (span_starts_nocase(param, SPAN("SIZE="))) {
            value.at += 5;
            return cursor_take_uint(&value, UINT64_MAX, &size) ? size : 0;
        }
    }
    return 0;
}

static void on_mail(struct sink_smtp *session, struct span arguments, struct writer *out)
{
    struct cursor cursor = cursor_of(arguments);
    struct span sender;
    if (session->state != SINK_SMTP_READY) {
        session->counts->bad++;
        SAY("503 5.5.1 Out of order");
        return;
    }
    if (!path_take(&cursor, &sender)) {
        session->counts->bad++;
        SAY("501 5.1.7 Bad sender");
        return;
    }
    uint64_t size_max = session->policy->size_max;
    if (size_max > 0 && size_param(cursor) > size_max) {
        SAY("552 5.3.4 Too big");
        return;
    }
    struct sink_script script = {.act = SINK_ACT_NONE};
    if (session->policy->is_scripted) {
        script = address_script(session, sender);
    }
    struct sink_script now = script_choose(session, SINK_VERB_MAIL, &script);
    bool is_done;
    bool is_answered = script_play(session, &now, out, &is_done);
    if (is_answered && !is_done) {
        return;
    }
    if (!is_answered) {
        SAY("250 2.1.0 Ok");
    }
    sink_smtp_enter(session, SINK_SMTP_MAIL);
    if (session->hooks->on_mail) {
        session->hooks->on_mail(session->context, sender);
    }
}

/* What an address says about a later verb is kept for it. */
static void script_keep(struct sink_smtp *session, const struct sink_script *script)
{
    bool is_data = script->verb == SINK_VERB_DATA;
    struct sink_script *place = is_data ? &session->at_data : &session->at_dot;
    if (script->verb >= SINK_VERB_DATA && place->act == SINK_ACT_NONE) {
        *place = *script;
    }
}

static void on_rcpt(struct sink_smtp *session, struct span arguments, struct writer *out)
{
    struct cursor cursor = cursor_of(arguments);
    struct span recipient;
    if (session->state != SINK_SMTP_MAIL && session->state != SINK_SMTP_RCPT) {
        session->counts->bad++;
        SAY("503 5.5.1 Out of order");
        return;
    }
    if (!path_take(&cursor, &recipient) || recipient.size == 0) {
        session->counts->bad++;
        SAY("501 5.1.3 Bad recipient");
        return;
    }
    struct sink_script script = {.act = SINK_ACT_NONE};
    if (session->policy->is_scripted) {
        script = address_script(session, recipient);
    }
    struct sink_script now = script_choose(session, SINK_VERB_RCPT, &script);
    bool is_done;
    bool is_answered = script_play(session, &now, out, &is_done);
    if (is_answered && !is_done) {
        return;
    }
    if (!is_answered) {
        SAY("250 2.1.5 Ok");
    }
    script_keep(session, &script);
    session->rcpts_count++;
    sink_smtp_enter(session, SINK_SMTP_RCPT);
    if (session->hooks->on_rcpt) {
        session->hooks->on_rcpt(session->context, recipient);
    }
}

static void on_data(struct sink_smtp *session, struct writer *out)
{
    if (session->state == SINK_SMTP_MAIL) {
        SAY("554 5.5.1 No valid recipients");
        return;
    }
    if (session->state != SINK_SMTP_RCPT) {
        session->counts->bad++;
        SAY("503 5.5.1 Out of order");
        return;
    }
    struct sink_script script = script_choose(session, SINK_VERB_DATA, &session->at_data);
    bool is_done;
    bool is_answered = script_play(session, &script, out, &is_done);
    if (is_answered && script.code != 354) {
        if (session->state == SINK_SMTP_RCPT) {
            transaction_clear(session);
        }
        return;
    }
    if (!is_answered) {
        SAY("354 End with <CR><LF>.<CR><LF>");
    }
    dot_finder_init(&session->dot);
    sink_smtp_enter(session, SINK_SMTP_BODY);
    if (script.act == SINK_ACT_EARLY) {
        sink_script_put_reply(out, &script);
        session->is_early = true;
        session->said = script.code;
        if (script.code >= 400) {
            session_over(session, SINK_END_CLOSE);
        }
    }
}

static void message_accept(struct sink_smtp *session)
{
    session->counts->messages++;
    session->counts->recipients += session->rcpts_count;
    session->counts->bytes += session->body_size;
    if (session->hooks->on_message) {
        session->hooks->on_message(session->context, session->body_size);
    }
}

/* The code of an ordinary 250, as it comes out. */
static uint16_t code_in_manner(enum sink_act manner)
{
    bool is_said = manner != SINK_ACT_SKIP && manner != SINK_ACT_JUNK && manner != SINK_ACT_ENDLESS;
    return is_said ? 250 : 0;
}

static void on_dot(struct sink_smtp *session, struct writer *out)
{
    struct sink_script script = script_choose(session, SINK_VERB_DOT, &session->at_dot);
    if (session->is_early) {
        message_accept(session);
        transaction_clear(session);
        return;
    }
    if (script.act == SINK_ACT_LOST) {
        session->said = 0;
        message_accept(session);
        session_over(session, SINK_END_CLOSE);
        return;
    }
    bool is_done;
    bool is_answered = script_play(session, &script, out, &is_done);
    bool is_took = script.act == SINK_ACT_TOOK;
    session->said = is_answered || is_took ? script.code : code_in_manner(session->manner);
    if (!is_answered || is_done) {
        message_accept(session);
    }
    if (is_took) {
        sink_script_put_reply(out, &script);
    } else if (!is_answered) {
        SAY("250 2.0.0 Ok");
    }
    if (session->state == SINK_SMTP_BODY) {
        transaction_clear(session);
    }
}

/* RSET and QUIT do what they do, whatever is said. */
static void on_plain(struct sink_smtp *session, enum sink_verb verb, struct span words,
                     struct writer *out)
{
    struct sink_script script = share_draw(session, verb);
    bool is_done;
    if (!script_play(session, &script, out, &is_done)) {
        writer_put(out, words);
    }
}

static void on_other(struct sink_smtp *session, struct span line, struct writer *out)
{
    if (span_equal_nocase(line, SPAN("NOOP")) || span_starts_nocase(line, SPAN("NOOP "))) {
        SAY("250 2.0.0 Ok");
    } else if (span_starts_nocase(line, SPAN("VRFY "))) {
        SAY("252 2.5.2 Will take mail for it");
    } else if (span_equal_nocase(line, SPAN("RSET"))) {
        if (session->state != SINK_SMTP_START) {
            transaction_clear(session);
        }
        on_plain(session, SINK_VERB_RSET, SPAN("250 2.0.0 Ok\r\n"), out);
    } else if (span_equal_nocase(line, SPAN("QUIT"))) {
        on_plain(session, SINK_VERB_QUIT, SPAN("221 2.0.0 Bye\r\n"), out);
        if (session->state < SINK_SMTP_MUTE) {
            session_over(session, SINK_END_CLOSE);
        }
    } else if (span_starts_nocase(line, SPAN("EHLO "))) {
        on_hello(session, true, out);
    } else if (span_starts_nocase(line, SPAN("HELO "))) {
        on_hello(session, false, out);
    } else {
        session->counts->bad++;
        SAY("500 5.5.2 What?");
    }
}

static void on_line(struct sink_smtp *session, struct span line, struct writer *out)
{
    if (line.size > 0 && line.at[line.size - 1] == '\r') {
        line.size--;
    }
    if (span_starts_nocase(line, SPAN("RCPT TO:"))) {
        on_rcpt(session, span_of(line.at + 8, line.size - 8), out);
    } else if (span_starts_nocase(line, SPAN("MAIL FROM:"))) {
        on_mail(session, span_of(line.at + 10, line.size - 10), out);
    } else if (span_equal_nocase(line, SPAN("DATA"))) {
        on_data(session, out);
    } else {
        on_other(session, line, out);
    }
}

/* Keeps the start of a line whose end has not come. */
static void line_keep(struct sink_smtp *session, struct span part)
{
    if (session->line_size + part.size > sizeof(session->line)) {
        session->is_skipping = true;
        session->line_size = 0;
    }
    if (!session->is_skipping) {
        memcpy(session->line + session->line_size, part.at, part.size);
        session->line_size = (uint16_t)(session->line_size + part.size);
    }
}

static void command_take(struct sink_smtp *session, struct cursor *cursor, struct writer *out)
{
    const char *lf = memchr(cursor->at, '\n', cursor_left(cursor));
    struct span part = span_of(cursor->at, lf ? (size_t)(lf - cursor->at) : cursor_left(cursor));
    cursor->at += part.size + (lf ? 1 : 0);
    bool is_kept = !lf || session->line_size > 0 || session->is_skipping;
    if (is_kept) {
        line_keep(session, part);
        part = span_of(session->line, session->line_size);
    }
    if (!lf) {
        return;
    }
    session->line_size = 0;
    if (session->is_skipping || part.size > SINK_SMTP_LINE_MAX) {
        session->is_skipping = false;
        session->counts->bad++;
        SAY("500 5.5.2 Line too long");
        return;
    }
    char *start = out->at;
    on_line(session, part, out);
    reply_finish(session, start, out);
}

static void body_take(struct sink_smtp *session, struct cursor *cursor, struct writer *out)
{
    const char *start = cursor->at;
    enum dot_step step;
    do {
        struct span piece;
        step = dot_finder_next(&session->dot, cursor, &piece);
        if (session->hooks->on_body && piece.size > 0) {
            session->hooks->on_body(session->context, piece);
        }
    } while (step == DOT_PIECE);
    session->body_size += (uint64_t)(cursor->at - start);
    if (step == DOT_END) {
        char *reply = out->at;
        on_dot(session, out);
        reply_finish(session, reply, out);
    }
}

size_t sink_smtp_take(struct sink_smtp *session, struct span in, struct writer *out)
{
    struct cursor cursor = cursor_of(in);
    while (cursor_left(&cursor) > 0) {
        if (session->state >= SINK_SMTP_MUTE) {
            return in.size;
        }
        if ((size_t)(out->end - out->at) < SINK_SMTP_REPLY_MAX) {
            break;
        }
        if (session->state == SINK_SMTP_BODY) {
            body_take(session, &cursor, out);
        } else {
            command_take(session, &cursor, out);
        }
    }
    ensure(!out->is_full);
    return in.size - cursor_left(&cursor);
}
