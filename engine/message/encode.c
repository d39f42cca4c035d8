/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/encode.h"

#include <errno.h>

#include "engine/message/value.h"

static const char HEX[] = "0123456789ABCDEF";
static const char BASE64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum {
    WORD_FRAME = 12,      /* =?UTF-8?Q? and ?= */
    WORD_MAX = 75,        /* RFC 2047 2 */
    WORD_PHRASE_MAX = 60, /* leaves room for the field's name on the first line */
    WORD_ROOM_MIN = 32,   /* less room on a line is not worth an encoded word */
    WORD_PLAIN_MAX = 900, /* a longer word can only be sent encoded, in pieces */
};

static struct span span_part(struct span whole, size_t at, size_t end)
{
    return span_of(whole.at + at, end - at);
}

static void qp_soft_break(struct encode_qp *state, struct writer *writer)
{
    writer_put(writer, SPAN("=\r\n"));
    *state = (struct encode_qp){0};
}

void encode_qp_end(struct encode_qp *state, struct writer *writer)
{
    if (state->is_blank) {
        qp_soft_break(state, writer);
    }
}

/* RFC 2045 6.7 (2) and (3): what stands for itself, line ends aside. */
static bool qp_is_literal(unsigned char byte)
{
    return (byte >= ' ' && byte < 127 && byte != '=') || byte == '\t';
}

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

/* How many bytes from `at` on can stand as they are on the current line, with one octet kept for
 * the "=" of a soft break. */
static size_t qp_literal_run(const struct encode_qp *state, struct span text, size_t at)
{
    size_t room = state->column < ENCODE_WIDTH ? ENCODE_WIDTH - 1 - state->column : 0;
    size_t left = text.size - at;
    size_t size_max = left < room ? left : room;
    const char *from = text.at + at;
    size_t size = 0;
    while (size < size_max && qp_is_literal((unsigned char)from[size])) {
        if (from[size] == '-' && state->column + size <= 1) {
            break;
        }
        size++;
    }
    if (size > 0 && is_blank(from[size - 1]) && size < left && from[size] == '\r') {
        size--;
    }
    return size;
}

static void qp_put_escape(struct encode_qp *state, struct writer *writer, unsigned char byte)
{
    char escape[3] = {'=', HEX[byte >> 4], HEX[byte & 15]};
    writer_put(writer, span_of(escape, sizeof(escape)));
    state->column += sizeof(escape);
    state->is_blank = false;
}

/* Whether the byte, which ended a run of literals, did so for want of room only. */
static bool qp_is_full(const struct encode_qp *state, unsigned char byte)
{
    bool is_literal = qp_is_literal(byte) && state->column + 2 > ENCODE_WIDTH;
    return is_literal || state->column + 4 > ENCODE_WIDTH;
}

void encode_qp_put(struct encode_qp *state, struct writer *writer, struct span text)
{
    size_t at = 0;
    while (at < text.size) {
        size_t run = qp_literal_run(state, text, at);
        if (run > 0) {
            writer_put(writer, span_of(text.at + at, run));
            state->column += run;
            at += run;
            state->is_blank = is_blank(text.at[at - 1]);
            continue;
        }
        unsigned char byte = (unsigned char)text.at[at];
        if (byte == '\r' && at + 1 < text.size && text.at[at + 1] == '\n') {
            encode_qp_end(state, writer);
            writer_put(writer, SPAN("\r\n"));
            *state = (struct encode_qp){0};
            at += 2;
        } else if (qp_is_full(state, byte)) {
            qp_soft_break(state, writer);
        } else {
            qp_put_escape(state, writer, byte);
            at++;
        }
    }
}

void encode_qp_join(struct encode_qp *state, struct writer *writer, struct encode_qp_piece piece)
{
    /* A piece of one line may be followed by a soft break. */
    size_t room = piece.head + (piece.has_break ? 0 : 1);
    bool is_over = state->column > 0 && state->column + room > ENCODE_WIDTH;
    if (is_over || (state->is_blank && piece.has_break && piece.head == 0)) {
        qp_soft_break(state, writer);
    }
    state->column = piece.has_break ? piece.tail : state->column + piece.tail;
    state->is_blank = piece.is_blank;
}

static void base64_group(char *at, const unsigned char *in)
{
    at[0] = BASE64[in[0] >> 2];
    at[1] = BASE64[(in[0] & 3) << 4 | in[1] >> 4];
    at[2] = BASE64[(in[1] & 15) << 2 | in[2] >> 6];
    at[3] = BASE64[in[2] & 63];
}

static void base64_put_group(struct encode_base64 *state, struct writer *writer,
                             const unsigned char *in)
{
    if (state->column == ENCODE_WIDTH) {
        writer_put(writer, SPAN("\r\n"));
        state->column = 0;
    }
    char group[4];
    base64_group(group, in);
    writer_put(writer, span_of(group, sizeof(group)));
    state->column += sizeof(group);
}

void encode_base64_put(struct encode_base64 *state, struct writer *writer, struct span bytes)
{
    const unsigned char *at = (const unsigned char *)bytes.at;
    const unsigned char *end = at + bytes.size;
    while (at < end) {
        if (state->held_count == 0 && end - at >= 3) {
            base64_put_group(state, writer, at);
            at += 3;
            continue;
        }
        state->held[state->held_count++] = *at++;
        if (state->held_count == 3) {
            base64_put_group(state, writer, state->held);
            state->held_count = 0;
        }
    }
}

void encode_base64_end(struct encode_base64 *state, struct writer *writer)
{
    if (state->held_count == 0) {
        return;
    }
    if (state->column == ENCODE_WIDTH) {
        writer_put(writer, SPAN("\r\n"));
    }
    unsigned char in[3] = {state->held[0], state->held_count == 2 ? state->held[1] : 0, 0};
    char group[4];
    base64_group(group, in);
    group[3] = '=';
    if (state->held_count == 1) {
        group[2] = '=';
    }
    writer_put(writer, span_of(group, sizeof(group)));
    *state = (struct encode_base64){0};
}

static bool word_q_is_literal(unsigned char byte)
{
    /* RFC 2047 5 (3): what may stand as it is even in a phrase. */
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '!' || byte == '*' || byte == '+' ||
           byte == '-' || byte == '/';
}

static size_t word_q_size(struct span text)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        size += word_q_is_literal(byte) || byte == ' ' ? 1 : 3;
    }
    return size;
}

static size_t word_b_size(struct span text)
{
    return (text.size + 2) / 3 * 4;
}

static size_t utf8_size(struct span text, size_t at)
{
    size_t size = 1;
    while (at + size < text.size && ((unsigned char)text.at[at + size] & 0xC0) == 0x80) {
        size++;
    }
    return size;
}

/*
 * How many bytes of `text`, in whole characters, fit an encoded word of `room` octets. Base64 words
 * that are not the last avoid padding: some readers (GMime among them) join neighbours before they
 * decode, and lose what stands behind it.
 */
static size_t word_fit(struct span text, bool is_q, size_t room)
{
    ensure(room >= WORD_ROOM_MIN);
    size_t fit = 0;
    size_t fit_whole = 0;
    while (fit < text.size) {
        size_t next = fit + utf8_size(text, fit);
        struct span piece = span_part(text, 0, next);
        if ((is_q ? word_q_size(piece) : word_b_size(piece)) + WORD_FRAME > room) {
            break;
        }
        fit = next;
        if (is_q || fit % 3 == 0 || fit == text.size) {
            fit_whole = fit;
        }
    }
    if (fit_whole > 0) {
        return fit_whole;
    }
    /* Bytes that only look like one endless character are cut anywhere. */
    return fit > 0 ? fit : (text.size < 6 ? text.size : 6);
}

static void word_put(struct writer *writer, bool is_q, struct span text)
{
    writer_put(writer, is_q ? SPAN("=?UTF-8?Q?") : SPAN("=?UTF-8?B?"));
    if (is_q) {
        for (size_t i = 0; i < text.size; i++) {
            unsigned char byte = (unsigned char)text.at[i];
            if (word_q_is_literal(byte)) {
                writer_put_byte(writer, (char)byte);
            } else if (byte == ' ') {
                writer_put_byte(writer, '_');
            } else {
                char escape[3] = {'=', HEX[byte >> 4], HEX[byte & 15]};
                writer_put(writer, span_of(escape, sizeof(escape)));
            }
        }
    } else {
        struct encode_base64 state = {0};
        encode_base64_put(&state, writer, text);
        encode_base64_end(&state, writer);
    }
    writer_put(writer, SPAN("?="));
}

static bool word_needs_encoding(struct span word)
{
    unsigned classes = value_classes(word);
    return (classes & (VALUE_HIGH | VALUE_CONTROL | VALUE_BREAK | VALUE_NUL)) != 0 ||
           ((classes & VALUE_QUESTION) != 0 && value_has_encoded_word(word)) ||
           word.size > WORD_PLAIN_MAX;
}

struct folder {
    struct writer *writer;
    size_t column;
    bool is_long;
};

static void fold_put(struct folder *folder, struct span blanks, struct span word)
{
    writer_put(folder->writer, blanks);
    writer_put(folder->writer, word);
    folder->column += blanks.size + word.size;
    folder->is_long |= folder->column > ENCODE_LINE_MAX;
}

static void fold_break(struct folder *folder)
{
    writer_put(folder->writer, SPAN("\r\n"));
    folder->column = 0;
}

/* Words that need encoding, with the blanks between them: into as many encoded words as the lines
 * demand. */
static void fold_put_encoded(struct folder *folder, struct span blanks, struct span run)
{
    bool is_q = word_q_size(run) <= word_b_size(run);
    size_t used = folder->column + blanks.size;
    if (used + WORD_ROOM_MIN > ENCODE_WIDTH && blanks.size > 0) {
        fold_break(folder);
        used = blanks.size;
    }
    size_t room = used + WORD_ROOM_MIN > ENCODE_WIDTH ? WORD_ROOM_MIN : ENCODE_WIDTH - used;
    if (room > WORD_MAX) {
        room = WORD_MAX;
    }
    while (run.size > 0) {
        size_t fit = word_fit(run, is_q, room);
        struct writer *writer = folder->writer;
        fold_put(folder, blanks, SPAN_NONE);
        size_t before = writer_size(writer);
        word_put(writer, is_q, span_part(run, 0, fit));
        folder->column += writer_size(writer) - before;
        run = span_part(run, fit, run.size);
        if (run.size > 0) {
            fold_break(folder);
            blanks = SPAN(" ");
            room = WORD_MAX;
        }
    }
    folder->is_long |= folder->column > ENCODE_LINE_MAX;
}

static size_t blanks_end(struct span text, size_t at)
{
    while (at < text.size && (text.at[at] == ' ' || text.at[at] == '\t')) {
        at++;
    }
    return at;
}

static size_t word_end(struct span text, size_t at)
{
    while (at < text.size && text.at[at] != ' ' && text.at[at] != '\t') {
        at++;
    }
    return at;
}

int encode_header(struct writer *writer, size_t column, struct span text, bool may_encode)
{
    struct folder folder = {.writer = writer, .column = column};
    size_t at = 0;
    while (at < text.size) {
        size_t start = blanks_end(text, at);
        size_t end = word_end(text, start);
        struct span blanks = span_part(text, at, start);
        struct span word = span_part(text, start, end);
        at = end;
        if (may_encode && word_needs_encoding(word)) {
            for (size_t next = blanks_end(text, end); next < text.size;
                 next = blanks_end(text, end)) {
                size_t next_end = word_end(text, next);
                if (!word_needs_encoding(span_part(text, next, next_end))) {
                    break;
                }
                end = next_end;
            }
            fold_put_encoded(&folder, blanks, span_part(text, start, end));
            at = end;
            continue;
        }
        bool is_over = folder.column + blanks.size + word.size > ENCODE_WIDTH;
        if (is_over && blanks.size > 0 && word.size > 0) {
            fold_break(&folder);
        }
        fold_put(&folder, blanks, word);
    }
    return folder.is_long ? -EINVAL : 0;
}

bool encode_phrase_is_atoms(struct span text, unsigned classes)
{
    unsigned not_atoms =
        VALUE_SPECIAL | VALUE_DOT | VALUE_AT | VALUE_HIGH | VALUE_CONTROL | VALUE_BREAK | VALUE_NUL;
    if ((classes & not_atoms) != 0 || text.size > ENCODE_PHRASE_MAX) {
        return false;
    }
    if ((classes & VALUE_QUESTION) != 0 && value_has_encoded_word(text)) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        bool is_blank = text.at[i] == ' ' || text.at[i] == '\t';
        bool is_edge = i == 0 || i + 1 == text.size;
        if (is_blank && (is_edge || text.at[i] == '\t' || text.at[i + 1] == ' ')) {
            return false;
        }
    }
    return true;
}

void encode_phrase(struct writer *writer, struct span text)
{
    text = span_trim(text);
    unsigned classes = value_classes(text);
    if (word_needs_encoding(text) || text.size > ENCODE_PHRASE_MAX) {
        bool is_q = word_q_size(text) <= word_b_size(text);
        while (text.size > 0) {
            size_t fit = word_fit(text, is_q, WORD_PHRASE_MAX);
            word_put(writer, is_q, span_part(text, 0, fit));
            text = span_part(text, fit, text.size);
            if (text.size > 0) {
                writer_put_byte(writer, ' ');
            }
        }
        return;
    }
    if (encode_phrase_is_atoms(text, classes)) {
        writer_put(writer, text);
        return;
    }
    writer_put_byte(writer, '"');
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] == '"' || text.at[i] == '\\') {
            writer_put_byte(writer, '\\');
        }
        writer_put_byte(writer, text.at[i]);
    }
    writer_put_byte(writer, '"');
}
