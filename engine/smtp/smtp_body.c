/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies are most of the bytes the engine touches, and few of them start a line with a dot. So the
 * text is searched 64 bytes at a time with vectors of the compiler (any machine it knows), and only
 * a block with a find in it is looked at byte by byte.
 */
#include "engine/smtp/smtp_body.h"

#include "engine/base/vector.h"

enum { BLOCK_SIZE = 4 * VECTOR_SIZE };

/* Not 0 where `byte` follows `before`. */
static vector pair_at(const char *at, vector before, vector byte)
{
    return (vector_at(at - 1) == before) & (vector_at(at) == byte);
}

/* Index of the first "." behind LF, not counting index 0; or text.size. */
static size_t find_dotted_line(struct span text)
{
    const vector lf = vector_of('\n');
    const vector dot = vector_of('.');
    size_t i = 1;
    for (; i + BLOCK_SIZE <= text.size; i += BLOCK_SIZE) {
        const char *at = text.at + i;
        vector found = pair_at(at, lf, dot) | pair_at(at + VECTOR_SIZE, lf, dot) |
                       pair_at(at + 2 * VECTOR_SIZE, lf, dot) |
                       pair_at(at + 3 * VECTOR_SIZE, lf, dot);
        if (vector_any(found)) {
            break;
        }
    }
    for (; i < text.size; i++) {
        if (text.at[i] == '.' && text.at[i - 1] == '\n') {
            return i;
        }
    }
    return text.size;
}

static struct span body_terminator(const struct smtp_body *body)
{
    bool has_line_end = body->last == '\n' && body->last_but_one == '\r';
    return !body->is_begun || has_line_end ? SPAN(".\r\n") : SPAN("\r\n.\r\n");
}

static void body_advance(struct smtp_body *body, struct span piece)
{
    body->last_but_one = piece.size > 1 ? piece.at[piece.size - 2] : body->last;
    body->last = piece.at[piece.size - 1];
    body->offset += piece.size;
    body->is_begun = true;
    body->is_dotted = false;
}

size_t smtp_body_stuff(struct smtp_body *body, const struct span *spans, size_t spans_count,
                       struct span *ret_pieces, size_t pieces_max)
{
    ensure(pieces_max > 0);
    ensure(body->span_index <= spans_count);
    size_t count = 0;
    while (count < pieces_max && !body->is_done) {
        if (body->span_index == spans_count) {
            ret_pieces[count++] = body_terminator(body);
            body->is_done = true;
            break;
        }
        struct span span = spans[body->span_index];
        ensure(body->offset <= span.size);
        struct span rest = span_of(span.at + body->offset, span.size - body->offset);
        if (rest.size == 0) {
            body->span_index++;
            body->offset = 0;
            continue;
        }
        bool is_line_start = !body->is_begun || body->last == '\n';
        if (is_line_start && rest.at[0] == '.' && !body->is_dotted) {
            ret_pieces[count++] = SPAN(".");
            body->is_dotted = true;
            continue;
        }
        rest.size = find_dotted_line(rest);
        ret_pieces[count++] = rest;
        body_advance(body, rest);
    }
    return count;
}

/* Flags of the inside of a line: its bytes but the LF at its end and the CR before that. */
static uint32_t flags_of_bytes(struct span text)
{
    uint32_t flags = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        flags |= byte > 127 ? SMTP_BODY_8BIT : 0u;
        flags |= byte == '\r' ? SMTP_BODY_BARE_CR : 0u;
        flags |= byte == '\0' ? SMTP_BODY_NUL : 0u;
    }
    return flags;
}

static vector refused_at(const char *at)
{
    vector bytes = vector_at(at);
    return (bytes == vector_of('\r')) | (bytes < vector_of('\x01'));
}

/* The last vector may overlap the one before it. */
static uint32_t flags_of_inside(struct span text)
{
    if (text.size < VECTOR_SIZE) {
        return flags_of_bytes(text);
    }
    vector found = refused_at(text.at + text.size - VECTOR_SIZE);
    for (size_t i = 0; i + VECTOR_SIZE < text.size; i += VECTOR_SIZE) {
        found |= refused_at(text.at + i);
    }
    return vector_any(found) ? flags_of_bytes(text) : 0;
}

static void check_inside(struct smtp_body_checker *check, struct span text)
{
    check->flags |= flags_of_inside(text);
    check->line_size += text.size;
    if (check->line_size > SMTP_BODY_LINE_MAX) {
        check->flags |= SMTP_BODY_LONG_LINE;
    }
}

/* A CR at the end of the span before: part of CRLF, or bare and a byte of its line like any other.
 * Returns the bytes taken. */
static size_t check_behind_cr(struct smtp_body_checker *check, char next)
{
    check->is_behind_cr = false;
    if (next == '\n') {
        check->line_size = 0;
        return 1;
    }
    check_inside(check, SPAN("\r"));
    return 0;
}

void smtp_body_check(struct smtp_body_checker *check, struct span piece)
{
    const char *at = piece.at;
    const char *end = at + piece.size;
    if (at < end && check->is_behind_cr) {
        at += check_behind_cr(check, *at);
    }
    while (at < end) {
        const char *lf = memchr(at, '\n', (size_t)(end - at));
        const char *stop = lf != NULL ? lf : end;
        bool has_cr = stop > at && stop[-1] == '\r';
        check_inside(check, span_of(at, (size_t)(stop - at) - has_cr));
        if (lf == NULL) {
            check->is_behind_cr = has_cr;
            return;
        }
        check->flags |= has_cr ? 0u : SMTP_BODY_BARE_LF;
        check->line_size = 0;
        at = lf + 1;
    }
}

uint32_t smtp_body_check_end(struct smtp_body_checker *check)
{
    if (check->is_behind_cr) {
        check->is_behind_cr = false;
        check_inside(check, SPAN("\r"));
    }
    return check->flags;
}
