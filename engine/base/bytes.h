/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes: views of memory, a bounded cursor to read and a bounded writer to write.
 *
 * A span is borrowed memory: (pointer, size); it owns nothing and need not end in NUL. All parsing
 * of foreign bytes goes through `struct cursor`, all building of bounded text through `struct
 * writer`; neither can leave its bounds. Pure functions, any actor.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/ensure.h"

struct span {
    const char *at;
    size_t size;
};

/* Of a string literal, without its NUL. */
#define SPAN(literal) ((struct span){.at = "" literal, .size = sizeof(literal) - 1})
#define SPAN_NONE ((struct span){.at = "", .size = 0})

static inline struct span span_of(const void *at, size_t size)
{
    return (struct span){.at = at, .size = size};
}

static inline struct span span_of_text(const char *text)
{
    return (struct span){.at = text, .size = strlen(text)};
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.at, b.at, a.size) == 0);
}

/* ASCII letters only, RFC 5321 2.4 and RFC 4343. */
bool span_equal_nocase(struct span a, struct span b);
bool span_starts(struct span whole, struct span start);
bool span_starts_nocase(struct span whole, struct span start);
/* Index of the first `byte`, or whole.size. */
size_t span_find(struct span whole, char byte);
/* Without blanks and tabs at both ends. */
struct span span_trim(struct span whole);
/* Index of the first CR, LF or NUL, or whole.size: such bytes never reach the wire from input
 * (conformance A22, 4). */
size_t span_find_break(struct span whole);

/* The bounded cursor: reads forward, never behind `end`; every take says whether it could. */
struct cursor {
    const char *at;
    const char *end;
};

static inline struct cursor cursor_of(struct span whole)
{
    ensure(whole.at != NULL || whole.size == 0);
    return (struct cursor){.at = whole.at, .end = whole.at + whole.size};
}

static inline size_t cursor_left(const struct cursor *cursor)
{
    ensure(cursor->at <= cursor->end);
    return (size_t)(cursor->end - cursor->at);
}

/* The next byte as 0..255 without taking it, or -1 at the end. */
static inline int cursor_peek(const struct cursor *cursor)
{
    return cursor->at < cursor->end ? (unsigned char)*cursor->at : -1;
}

static inline bool cursor_take(struct cursor *cursor, char *ret_byte)
{
    if (cursor->at == cursor->end) {
        return false;
    }
    *ret_byte = *cursor->at++;
    return true;
}

/* Takes exactly `size` bytes, or nothing. */
bool cursor_take_span(struct cursor *cursor, size_t size, struct span *ret_span);
/* Takes `want` when it is next. */
bool cursor_take_byte(struct cursor *cursor, char want);
bool cursor_take_text(struct cursor *cursor, struct span want);
/* Takes up to the first `stop` (which stays) or all there is. */
struct span cursor_take_until(struct cursor *cursor, char stop);
/* Takes one or more decimal digits with a value <= max; nothing is taken on failure. */
bool cursor_take_uint(struct cursor *cursor, uint64_t max, uint64_t *ret_value);
/* Takes a line that ends in LF, without its LF or CRLF; false (nothing taken) when no LF is left.
 */
bool cursor_take_line(struct cursor *cursor, struct span *ret_line);
/* Fixed-width little-endian numbers of our own records. */
bool cursor_take_u8(struct cursor *cursor, uint8_t *ret_value);
bool cursor_take_u16(struct cursor *cursor, uint16_t *ret_value);
bool cursor_take_u32(struct cursor *cursor, uint32_t *ret_value);
bool cursor_take_u64(struct cursor *cursor, uint64_t *ret_value);

/* The bounded writer: what does not fit is dropped whole (one put at a time) and `is_full` is set
 * for good. */
struct writer {
    char *start;
    char *at;
    char *end;
    bool is_full;
};

static inline struct writer writer_of(void *start, size_t size)
{
    ensure(start != NULL || size == 0);
    return (struct writer){.start = start, .at = start, .end = (char *)start + size};
}

static inline size_t writer_size(const struct writer *writer)
{
    ensure(writer->at >= writer->start);
    ensure(writer->at <= writer->end);
    return (size_t)(writer->at - writer->start);
}

static inline struct span writer_span(const struct writer *writer)
{
    return span_of(writer->start, writer_size(writer));
}

static inline void writer_put(struct writer *writer, struct span piece)
{
    ensure(writer->at <= writer->end);
    if ((size_t)(writer->end - writer->at) < piece.size) {
        writer->is_full = true;
        return;
    }
    if (piece.size > 0) {
        memcpy(writer->at, piece.at, piece.size);
        writer->at += piece.size;
    }
}

static inline void writer_put_byte(struct writer *writer, char byte)
{
    ensure(writer->at <= writer->end);
    if (writer->at == writer->end) {
        writer->is_full = true;
        return;
    }
    *writer->at++ = byte;
}

void writer_put_uint(struct writer *writer, uint64_t value);
/* Zero-padded to `digits`. */
void writer_put_uint_padded(struct writer *writer, uint64_t value, unsigned digits);
void writer_put_u8(struct writer *writer, uint8_t value);
void writer_put_u16(struct writer *writer, uint16_t value);
void writer_put_u32(struct writer *writer, uint32_t value);
void writer_put_u64(struct writer *writer, uint64_t value);
/* printf into the writer; whole or not at all (1 KiB and more: with one byte to spare). For cold
 * paths. */
__attribute__((format(printf, 2, 3))) void writer_put_format(struct writer *writer,
                                                             const char *format, ...);
