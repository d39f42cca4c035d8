/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/bytes.h"

#include <stdarg.h>
#include <stdio.h>

enum { UINT64_DIGITS_MAX = 20, FORMAT_SIZE_MAX = 1024 };

static unsigned char byte_lower(char byte)
{
    unsigned char value = (unsigned char)byte;
    return value >= 'A' && value <= 'Z' ? (unsigned char)(value | 0x20) : value;
}

bool span_equal_nocase(struct span a, struct span b)
{
    if (a.size != b.size) {
        return false;
    }
    for (size_t i = 0; i < a.size; i++) {
        if (byte_lower(a.at[i]) != byte_lower(b.at[i])) {
            return false;
        }
    }
    return true;
}

bool span_starts(struct span whole, struct span start)
{
    return whole.size >= start.size && span_equal(span_of(whole.at, start.size), start);
}

bool span_starts_nocase(struct span whole, struct span start)
{
    return whole.size >= start.size && span_equal_nocase(span_of(whole.at, start.size), start);
}

size_t span_find(struct span whole, char byte)
{
    ensure(whole.at != NULL || whole.size == 0);
    const char *found = whole.size > 0 ? memchr(whole.at, byte, whole.size) : NULL;
    return found != NULL ? (size_t)(found - whole.at) : whole.size;
}

static bool byte_is_blank(char byte)
{
    return byte == ' ' || byte == '\t';
}

struct span span_trim(struct span whole)
{
    while (whole.size > 0 && byte_is_blank(whole.at[0])) {
        whole = span_of(whole.at + 1, whole.size - 1);
    }
    while (whole.size > 0 && byte_is_blank(whole.at[whole.size - 1])) {
        whole.size--;
    }
    return whole;
}

size_t span_find_break(struct span whole)
{
    size_t index = 0;
    while (index < whole.size && whole.at[index] != '\r' && whole.at[index] != '\n' &&
           whole.at[index] != '\0') {
        index++;
    }
    return index;
}

bool cursor_take_span(struct cursor *cursor, size_t size, struct span *ret_span)
{
    if (cursor_left(cursor) < size) {
        return false;
    }
    *ret_span = span_of(cursor->at, size);
    cursor->at += size;
    return true;
}

bool cursor_take_byte(struct cursor *cursor, char want)
{
    if (cursor_left(cursor) == 0 || *cursor->at != want) {
        return false;
    }
    cursor->at++;
    return true;
}

bool cursor_take_text(struct cursor *cursor, struct span want)
{
    if (!span_starts(span_of(cursor->at, cursor_left(cursor)), want)) {
        return false;
    }
    cursor->at += want.size;
    return true;
}

struct span cursor_take_until(struct cursor *cursor, char stop)
{
    struct span left = span_of(cursor->at, cursor_left(cursor));
    left.size = span_find(left, stop);
    cursor->at += left.size;
    return left;
}

bool cursor_take_uint(struct cursor *cursor, uint64_t max, uint64_t *ret_value)
{
    ensure(cursor->at <= cursor->end);
    const char *at = cursor->at;
    uint64_t value = 0;
    while (at < cursor->end && *at >= '0' && *at <= '9') {
        uint64_t digit = (uint64_t)(*at - '0');
        if (digit > max || value > (max - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
        at++;
    }
    if (at == cursor->at) {
        return false;
    }
    cursor->at = at;
    *ret_value = value;
    return true;
}

bool cursor_take_line(struct cursor *cursor, struct span *ret_line)
{
    struct span left = span_of(cursor->at, cursor_left(cursor));
    size_t size = span_find(left, '\n');
    if (size == left.size) {
        return false;
    }
    cursor->at += size + 1;
    if (size > 0 && left.at[size - 1] == '\r') {
        size--;
    }
    *ret_line = span_of(left.at, size);
    return true;
}

/* Little-endian whatever the machine is; the compiler makes one load of it. */
static bool take_little(struct cursor *cursor, size_t size, uint64_t *ret_value)
{
    ensure(size <= sizeof(*ret_value));
    struct span bytes;
    if (!cursor_take_span(cursor, size, &bytes)) {
        return false;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)(unsigned char)bytes.at[i] << (8 * i);
    }
    *ret_value = value;
    return true;
}

bool cursor_take_u8(struct cursor *cursor, uint8_t *ret_value)
{
    uint64_t value;
    if (!take_little(cursor, sizeof(*ret_value), &value)) {
        return false;
    }
    *ret_value = (uint8_t)value;
    return true;
}

bool cursor_take_u16(struct cursor *cursor, uint16_t *ret_value)
{
    uint64_t value;
    if (!take_little(cursor, sizeof(*ret_value), &value)) {
        return false;
    }
    *ret_value = (uint16_t)value;
    return true;
}

bool cursor_take_u32(struct cursor *cursor, uint32_t *ret_value)
{
    uint64_t value;
    if (!take_little(cursor, sizeof(*ret_value), &value)) {
        return false;
    }
    *ret_value = (uint32_t)value;
    return true;
}

bool cursor_take_u64(struct cursor *cursor, uint64_t *ret_value)
{
    return take_little(cursor, sizeof(*ret_value), ret_value);
}

void writer_put_uint(struct writer *writer, uint64_t value)
{
    writer_put_uint_padded(writer, value, 1);
}

void writer_put_uint_padded(struct writer *writer, uint64_t value, unsigned digits)
{
    ensure(digits > 0);
    ensure(digits <= UINT64_DIGITS_MAX);

    char text[UINT64_DIGITS_MAX];
    size_t size = 0;
    while (value > 0 || size < digits) {
        size++;
        text[sizeof(text) - size] = (char)('0' + value % 10);
        value /= 10;
    }
    writer_put(writer, span_of(text + sizeof(text) - size, size));
}

static void put_little(struct writer *writer, uint64_t value, size_t size)
{
    char bytes[sizeof(value)];
    ensure(size <= sizeof(bytes));
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (char)(value >> (8 * i));
    }
    writer_put(writer, span_of(bytes, size));
}

void writer_put_u8(struct writer *writer, uint8_t value)
{
    put_little(writer, value, sizeof(value));
}

void writer_put_u16(struct writer *writer, uint16_t value)
{
    put_little(writer, value, sizeof(value));
}

void writer_put_u32(struct writer *writer, uint32_t value)
{
    put_little(writer, value, sizeof(value));
}

void writer_put_u64(struct writer *writer, uint64_t value)
{
    put_little(writer, value, sizeof(value));
}

/* vsnprintf ends in a NUL that the writer does not keep. When just that one does not fit, the text
 * is made once more where it does. */
void writer_put_format(struct writer *writer, const char *format, ...)
{
    ensure(writer->at <= writer->end);
    size_t left = (size_t)(writer->end - writer->at);
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int size = vsnprintf(left > 0 ? writer->at : NULL, left, format, arguments);
    ensure(size >= 0);
    if ((size_t)size < left) {
        writer->at += size;
    } else if ((size_t)size == left && size < FORMAT_SIZE_MAX) {
        char text[FORMAT_SIZE_MAX];
        (void)vsnprintf(text, sizeof(text), format, again);
        writer_put(writer, span_of(text, (size_t)size));
    } else {
        writer->is_full = true;
    }
    va_end(again);
    va_end(arguments);
}
