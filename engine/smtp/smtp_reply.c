/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammar (RFC 5321 4.2), with what is tolerated in brackets:
 *
 *   reply   = *( code "-" [text] eol ) code [ SP [text] ] eol
 *   code    = "2".."5" DIGIT DIGIT
 *   text    = [ class "." 1*3DIGIT "." 1*3DIGIT [SP] ] any bytes but LF     (RFC 2034 4)
 *   eol     = *CR LF                                                        [CR LF alone is legal]
 *
 * One function looks at lines, one collects them. A line that came whole is looked at where it
 * lies; only what was cut is copied to `held`.
 */
#include "engine/smtp/smtp_reply.h"

#include "engine/base/planted.h"
#include "engine/base/vector.h"

void smtp_reply_init(struct smtp_reply_parser *parser)
{
    parser->reply.code = 0;
    parser->reply.enhanced = (struct smtp_enhanced){0};
    parser->reply.text_size = 0;
    parser->line = SPAN_NONE;
    parser->size = 0;
    parser->lines_count = 0;
    parser->is_mixed = false;
    parser->held_size = 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void text_copy_bytes(char *to, struct span from)
{
    for (size_t i = 0; i < from.size; i++) {
        char c = from.at[i];
        to[i] = c >= ' ' && c <= '~' ? c : (c == '\t' ? ' ' : '?');
    }
}

static void text_copy_vector(char *to, const char *from)
{
    vector bytes = vector_at(from);
    if (vector_any(vector_unprintable(bytes, ' '))) {
        text_copy_bytes(to, span_of(from, VECTOR_SIZE));
    } else {
        memcpy(to, &bytes, sizeof(bytes));
    }
}

/* Nearly all text is clean; only a vector that is not is looked at byte by byte. The last one may
 * overlap the one before it. */
static void text_copy(char *to, struct span from)
{
    if (from.size < VECTOR_SIZE) {
        text_copy_bytes(to, from);
        return;
    }
    for (size_t i = 0; i + VECTOR_SIZE < from.size; i += VECTOR_SIZE) {
        text_copy_vector(to + i, from.at + i);
    }
    size_t last = from.size - VECTOR_SIZE;
    text_copy_vector(to + last, from.at + last);
}

/* The text keeps the last SMTP_REPLY_TEXT_MAX bytes: what is oldest goes first. */
static __attribute__((noinline)) void text_append_slow(struct smtp_reply *reply, struct span piece)
{
    if (piece.size >= SMTP_REPLY_TEXT_MAX) {
        text_copy(reply->text, span_of(piece.at, SMTP_REPLY_TEXT_MAX));
        reply->text_size = SMTP_REPLY_TEXT_MAX;
        return;
    }
    size_t keep = reply->text_size;
    if (keep > SMTP_REPLY_TEXT_MAX - 1 - piece.size) {
        keep = SMTP_REPLY_TEXT_MAX - 1 - piece.size;
    }
    memmove(reply->text, reply->text + reply->text_size - keep, keep);
    if (keep > 0) {
        reply->text[keep++] = ' ';
    }
    text_copy(reply->text + keep, piece);
    reply->text_size = (uint16_t)(keep + piece.size);
    ensure(reply->text_size <= SMTP_REPLY_TEXT_MAX);
}

/* Most replies are one short line. */
static void text_append(struct smtp_reply *reply, struct span piece)
{
    if (reply->text_size > 0 || piece.size > SMTP_REPLY_TEXT_MAX) {
        if (piece.size > 0) {
            text_append_slow(reply, piece);
        }
        return;
    }
    text_copy(reply->text, piece);
    reply->text_size = (uint16_t)piece.size;
}

/* One to three digits (RFC 3463 2). */
static bool take_number(struct cursor *cursor, uint16_t *ret_value)
{
    unsigned value = 0;
    unsigned digits = 0;
    while (digits < 3 && cursor->at < cursor->end && is_digit(*cursor->at)) {
        value = value * 10 + (unsigned)(*cursor->at++ - '0');
        digits++;
    }
    if (digits == 0) {
        return false;
    }
    *ret_value = (uint16_t)value;
    return true;
}

static bool take_point(struct cursor *cursor)
{
    if (cursor->at == cursor->end || *cursor->at != '.') {
        return false;
    }
    cursor->at++;
    return true;
}

/* Any enhanced code with the blank behind it. */
static __attribute__((noinline)) bool take_enhanced_slow(struct span *text,
                                                         struct smtp_enhanced *ret_enhanced)
{
    struct cursor cursor = cursor_of(*text);
    struct smtp_enhanced found = {.class = (uint8_t)(*cursor.at++ - '0')};
    if (!take_point(&cursor) || !take_number(&cursor, &found.subject) || !take_point(&cursor) ||
        !take_number(&cursor, &found.detail)) {
        return false;
    }
    if (cursor.at < cursor.end) {
        if (*cursor.at != ' ' && *cursor.at != '\t') {
            return false;
        }
        cursor.at++;
    }
    *text = span_of(cursor.at, cursor_left(&cursor));
    *ret_enhanced = found;
    return true;
}

/* Takes the code and the blank behind it from `*text`; nothing when there is none to be believed
 * (G6). Nearly all are d.d.d and a blank. */
static bool take_enhanced(struct span *text, char class, struct smtp_enhanced *ret_enhanced)
{
    const char *at = text->at;
    if (text->size < 5 || at[0] != class || class == '3' || at[1] != '.') {
        return false;
    }
    bool is_short = text->size > 5 && at[3] == '.' && at[5] == ' ';
    if (!is_short || !is_digit(at[2]) || !is_digit(at[4])) {
        return take_enhanced_slow(text, ret_enhanced);
    }
    *ret_enhanced = (struct smtp_enhanced){
        .class = (uint8_t)(class - '0'),
        .subject = (uint16_t)(at[2] - '0'),
        .detail = (uint16_t)(at[4] - '0'),
    };
    *text = span_of(at + 6, text->size - 6);
    return true;
}

static bool enhanced_equal(struct smtp_enhanced a, struct smtp_enhanced b)
{
    return a.class == b.class && a.subject == b.subject && a.detail == b.detail;
}

/* The lines differ in their enhanced codes (G7): the code that was taken out of the text so far
 * goes back to its front. */
static __attribute__((noinline)) void text_restore_code(struct smtp_reply *reply)
{
    char copy[SMTP_REPLY_TEXT_MAX];
    struct span text = span_of(copy, reply->text_size);
    memcpy(copy, reply->text, reply->text_size);
    char code[16];
    struct writer writer = writer_of(code, sizeof(code));
    writer_put_uint(&writer, reply->enhanced.class);
    writer_put_byte(&writer, '.');
    writer_put_uint(&writer, reply->enhanced.subject);
    writer_put_byte(&writer, '.');
    writer_put_uint(&writer, reply->enhanced.detail);
    ensure(!writer.is_full);
    reply->text_size = 0;
    text_append(reply, writer_span(&writer));
    text_append(reply, text);
}

static void line_take_text(struct smtp_reply_parser *parser, struct span text, char class)
{
    struct smtp_reply *reply = &parser->reply;
    struct span rest = text;
    struct smtp_enhanced enhanced;
    if (take_enhanced(&rest, class, &enhanced)) {
        bool is_first = reply->enhanced.class == 0;
        if (!is_first && !parser->is_mixed && !enhanced_equal(reply->enhanced, enhanced)) {
            parser->is_mixed = true;
            text_restore_code(reply);
        }
        reply->enhanced = enhanced;
        if (!parser->is_mixed) {
            text = rest;
        }
    }
    text_append(reply, text);
}

static enum smtp_reply_step line_bad(struct smtp_reply_parser *parser, struct span line)
{
    parser->reply.code = 0;
    parser->reply.enhanced = (struct smtp_enhanced){0};
    parser->line = SPAN_NONE;
    text_append(&parser->reply, line);
    return SMTP_REPLY_BAD;
}

/* `line` without its LF. */
static enum smtp_reply_step line_take(struct smtp_reply_parser *parser, struct span line)
{
    const char *at = line.at;
    while (line.size > 0 && at[line.size - 1] == '\r') {
        line.size--;
    }
    if (line.size < 3 || at[0] < '2' || at[0] > '5' || !is_digit(at[1]) || !is_digit(at[2])) {
        return line_bad(parser, line);
    }
    unsigned code = (unsigned)((at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0'));
    char separator = line.size > 3 ? at[3] : ' ';
    if (separator != ' ' && separator != '-') {
        return line_bad(parser, line);
    }
    if (parser->lines_count > 0 && code != parser->reply.code) { /* A7 */
        return line_bad(parser, line);
    }
    parser->reply.code = (uint16_t)code;
    parser->lines_count++;
    parser->line = line.size > 4 ? span_of(at + 4, line.size - 4) : SPAN_NONE;
    line_take_text(parser, parser->line, at[0]);
    if (separator == '-') {
        return SMTP_REPLY_LINE;
    }
    parser->size = 0;
    return SMTP_REPLY_DONE;
}

static void hold(struct smtp_reply_parser *parser, struct span piece)
{
    size_t room = SMTP_REPLY_LINE_MAX - parser->held_size;
    size_t size = piece.size < room ? piece.size : room;
    memcpy(parser->held + parser->held_size, piece.at, size);
    parser->held_size = (uint16_t)(parser->held_size + size);
}

enum smtp_reply_step smtp_reply_take(struct smtp_reply_parser *parser, struct span *bytes)
{
    if (bytes->size == 0) {
        return SMTP_REPLY_MORE;
    }
    if (parser->size == 0) {
        smtp_reply_init(parser);
    }
    const char *lf = memchr(bytes->at, '\n', bytes->size);
    size_t taken = lf != NULL ? (size_t)(lf - bytes->at) + 1 : bytes->size;
    struct span line = span_of(bytes->at, lf != NULL ? taken - 1 : taken);
    *bytes = span_of(bytes->at + taken, bytes->size - taken);
    parser->size =
        taken > SMTP_REPLY_SIZE_MAX ? SMTP_REPLY_SIZE_MAX + 1 : parser->size + (uint32_t)taken;
    if (lf == NULL || parser->held_size > 0) {
        hold(parser, line);
        line = span_of(parser->held, parser->held_size);
    }
    if (line.size > SMTP_REPLY_LINE_MAX) {
        line.size = SMTP_REPLY_LINE_MAX;
    }
    uint32_t size_max = PLANTED(LONG_REPLY_REFUSED) ? SMTP_REPLY_LINE_MAX : SMTP_REPLY_SIZE_MAX;
    if (parser->size > size_max) {
        return line_bad(parser, line);
    }
    if (lf == NULL) {
        return SMTP_REPLY_MORE;
    }
    parser->held_size = 0;
    return line_take(parser, line);
}

void smtp_reply_abandon(struct smtp_reply_parser *parser)
{
    struct smtp_reply *reply = &parser->reply;
    reply->code = 0;
    reply->enhanced = (struct smtp_enhanced){0};
    if (!smtp_reply_is_started(parser)) {
        reply->text_size = 0;
        return;
    }
    text_append(reply, span_of(parser->held, parser->held_size));
    parser->size = 0;
    parser->held_size = 0;
}
