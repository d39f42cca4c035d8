/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_script.h"

#include <assert.h>

enum { SLOW_MAX_MS = 3600 * 1000, TIMES_MAX = 1000, PPM_ALL = 1000000 };

static const char *const VERB_NAMES[] = {"connect", "ehlo", "mail", "rcpt",
                                         "data",    "dot",  "rset", "quit"};
static_assert(COUNT_OF(VERB_NAMES) == SINK_VERBS_COUNT, "one name a verb");

static bool take_verb(struct cursor *cursor, enum sink_verb first, enum sink_verb last,
                      enum sink_verb *ret_verb)
{
    for (unsigned verb = first; verb <= last; verb++) {
        if (cursor_take_text(cursor, span_of_text(VERB_NAMES[verb]))) {
            *ret_verb = (enum sink_verb)verb;
            return true;
        }
    }
    return false;
}

/* CODE [_ENHANCED]: an enhanced code of another class than the code's is no script. */
static bool take_code(struct cursor *cursor, struct sink_script *script)
{
    uint64_t code, class, subject = 0, detail = 0;
    if (!cursor_take_uint(cursor, 999, &code) || code < 100) {
        return false;
    }
    if (cursor_take_byte(cursor, '_')) {
        bool is_whole = cursor_take_uint(cursor, 9, &class) && class == code / 100 &&
                        cursor_take_byte(cursor, '.') && cursor_take_uint(cursor, 999, &subject) &&
                        cursor_take_byte(cursor, '.') && cursor_take_uint(cursor, 999, &detail);
        if (!is_whole) {
            return false;
        }
    }
    script->act = SINK_ACT_REPLY;
    script->code = (uint16_t)code;
    script->subject = (uint16_t)subject;
    script->detail = (uint16_t)detail;
    return true;
}

static bool take_slow(struct cursor *cursor, struct sink_script *script)
{
    uint64_t delay_ms;
    if (!cursor_take_text(cursor, SPAN("slow")) ||
        !cursor_take_uint(cursor, SLOW_MAX_MS, &delay_ms)) {
        return false;
    }
    script->act = SINK_ACT_SLOW;
    script->delay_ms = (uint32_t)delay_ms;
    return true;
}

/* What to do instead of a reply, or how to give it. */
static bool take_manner(struct cursor *cursor, struct sink_script *script)
{
    static const struct {
        struct span word;
        enum sink_act act;
    } WORDS[] = {
        {SPAN("drop"), SINK_ACT_DROP},   {SPAN("reset"), SINK_ACT_RESET},
        {SPAN("mute"), SINK_ACT_MUTE},   {SPAN("shut"), SINK_ACT_SHUT},
        {SPAN("twice"), SINK_ACT_TWICE}, {SPAN("skip"), SINK_ACT_SKIP},
        {SPAN("junk"), SINK_ACT_JUNK},   {SPAN("endless"), SINK_ACT_ENDLESS},
    };
    for (size_t i = 0; i < COUNT_OF(WORDS); i++) {
        if (cursor_take_text(cursor, WORDS[i].word)) {
            script->act = WORDS[i].act;
            return true;
        }
    }
    return false;
}

/* tookCODE, earlyCODE: `script` gets the verb that they speak of. */
static bool take_lie(struct cursor *cursor, struct sink_script *script)
{
    struct sink_script said = {.act = SINK_ACT_NONE};
    bool is_early = cursor_take_text(cursor, SPAN("early"));
    if ((!is_early && !cursor_take_text(cursor, SPAN("took"))) || !take_code(cursor, &said)) {
        return false;
    }
    *script = said;
    script->act = is_early ? SINK_ACT_EARLY : SINK_ACT_TOOK;
    script->verb = is_early ? SINK_VERB_DATA : SINK_VERB_DOT;
    return true;
}

static bool take_verb_and_code(struct cursor *cursor, struct sink_script *script)
{
    uint64_t times = 0;
    bool is_script = take_lie(cursor, script) ||
                     (take_verb(cursor, SINK_VERB_MAIL, SINK_VERB_DOT, &script->verb) &&
                      take_code(cursor, script));
    if (!is_script) {
        return false;
    }
    if (cursor_take_byte(cursor, 'x') && !cursor_take_uint(cursor, TIMES_MAX, &times)) {
        return false;
    }
    script->times = (uint16_t)times;
    return true;
}

static bool take_word(struct cursor *cursor, struct sink_script *script)
{
    struct cursor start = *cursor;
    if (take_verb_and_code(cursor, script)) {
        return true;
    }
    *cursor = start;
    if (take_manner(cursor, script)) {
        return cursor_take_byte(cursor, '-') &&
               take_verb(cursor, SINK_VERB_MAIL, SINK_VERB_DOT, &script->verb);
    }
    if (cursor_take_text(cursor, SPAN("lost250"))) {
        script->act = SINK_ACT_LOST;
        script->verb = SINK_VERB_DOT;
        return true;
    }
    script->verb = SINK_VERB_RCPT;
    return take_slow(cursor, script);
}

struct sink_script sink_script_of_address(struct span address)
{
    struct sink_script script = {.act = SINK_ACT_NONE};
    struct cursor cursor = cursor_of(address);
    if (!take_word(&cursor, &script)) {
        return (struct sink_script){.act = SINK_ACT_NONE};
    }
    int next = cursor_peek(&cursor);
    if (next != -1 && next != '-' && next != '@') {
        return (struct sink_script){.act = SINK_ACT_NONE};
    }
    return script;
}

/* Percent with up to four decimals, as millionths. */
static bool take_ppm(struct cursor *cursor, uint32_t *ret_ppm)
{
    uint64_t whole;
    uint32_t parts = 0;
    if (!cursor_take_uint(cursor, 100, &whole)) {
        return false;
    }
    if (cursor_take_byte(cursor, '.')) {
        for (uint32_t unit = 1000; unit > 0; unit /= 10) {
            int digit = cursor_peek(cursor);
            if (digit < '0' || digit > '9') {
                break;
            }
            parts += unit * (uint32_t)(digit - '0');
            cursor->at++;
        }
    }
    uint32_t ppm = (uint32_t)whole * 10000 + parts;
    if (ppm > PPM_ALL || !cursor_take_byte(cursor, '%')) {
        return false;
    }
    *ret_ppm = ppm;
    return true;
}

static bool take_share_action(struct cursor *cursor, struct sink_script *script)
{
    if (cursor_take_text(cursor, SPAN("lost"))) {
        script->act = SINK_ACT_LOST;
        return script->verb == SINK_VERB_DOT;
    }
    enum sink_verb verb = script->verb;
    if (take_lie(cursor, script)) {
        return script->verb == verb;
    }
    return take_manner(cursor, script) || take_slow(cursor, script) || take_code(cursor, script);
}

bool sink_share_parse(struct span text, struct sink_share *ret_share)
{
    struct cursor cursor = cursor_of(text);
    struct sink_share share = {.share_ppm = 0};
    bool is_share = take_verb(&cursor, SINK_VERB_CONNECT, SINK_VERB_QUIT, &share.script.verb) &&
                    cursor_take_byte(&cursor, '=') && take_share_action(&cursor, &share.script) &&
                    cursor_take_byte(&cursor, ':') && take_ppm(&cursor, &share.share_ppm) &&
                    cursor_left(&cursor) == 0;
    if (is_share) {
        *ret_share = share;
    }
    return is_share;
}

void sink_script_put_reply(struct writer *writer, const struct sink_script *script)
{
    ensure(script->code > 0);
    writer_put_format(writer, "%u %u.%u.%u Scripted\r\n", script->code, script->code / 100u,
                      script->subject, script->detail);
}
