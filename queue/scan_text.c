/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan_text.h"

#include "queue/scan_vector.h"

/* A byte of a vector counts up to 255. */
enum { ROUNDS_MAX = UINT8_MAX, LINE_SIZE_MAX = SCAN_TEXT_LINE_MAX + 2 };

/* What has been seen from the text's start on. `wrong` is not 0 where a byte is NUL, a CR without
 * LF or an LF without CR, or the LF before a dot that is not doubled. */
struct marks {
    scan_vector wrong;
    scan_vector bits;
    uint64_t lines_count;
    uint64_t dots_count;
};

static uint64_t vector_sum(scan_vector counts)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < SCAN_VECTOR_SIZE; i++) {
        sum += counts[i];
    }
    return sum;
}

/* `rounds` times sixteen bytes, each judged with the two bytes behind it. */
static void mark_vectors(struct marks *marks, const char *at, size_t rounds)
{
    ensure(rounds <= ROUNDS_MAX);
    scan_vector wrong = marks->wrong;
    scan_vector bits = marks->bits;
    scan_vector lines = {0};
    scan_vector dots = {0};
    for (const char *end = at + rounds * SCAN_VECTOR_SIZE; at < end; at += SCAN_VECTOR_SIZE) {
        scan_vector here = scan_vector_at(at);
        scan_vector next = scan_vector_at(at + 1);
        scan_vector second = scan_vector_at(at + 2);
        scan_vector is_lf = scan_vector_equal(here, '\n');
        scan_vector is_dot = is_lf & scan_vector_equal(next, '.');
        wrong |= scan_vector_equal(here, '\0');
        wrong |= scan_vector_equal(here, '\r') ^ scan_vector_equal(next, '\n');
        wrong |= is_dot & ~scan_vector_equal(second, '.');
        bits |= here;
        lines -= is_lf; /* 0xff is -1 */
        dots -= is_dot;
    }
    marks->wrong = wrong;
    marks->bits = bits;
    marks->lines_count += vector_sum(lines);
    marks->dots_count += vector_sum(dots);
}

/* The same for one byte, in the vectors' first place. */
static void mark_byte(struct marks *marks, const char *at)
{
    bool is_lf = at[0] == '\n';
    bool is_dot = is_lf && at[1] == '.';
    bool is_wrong = at[0] == '\0' || (at[0] == '\r') != (at[1] == '\n') || (is_dot && at[2] != '.');
    marks->wrong[0] |= is_wrong;
    marks->bits[0] |= (uint8_t)at[0];
    marks->lines_count += is_lf;
    marks->dots_count += is_dot;
}

/* Judges the first `size` bytes at `at`; two more can be read. False when any is wrong. */
static bool mark_bytes(struct marks *marks, const char *at, size_t size)
{
    while (size >= SCAN_VECTOR_SIZE && !scan_vector_any(marks->wrong)) {
        size_t rounds = size / SCAN_VECTOR_SIZE;
        rounds = rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
        mark_vectors(marks, at, rounds);
        at += rounds * SCAN_VECTOR_SIZE;
        size -= rounds * SCAN_VECTOR_SIZE;
    }
    for (; size > 0 && size < SCAN_VECTOR_SIZE; size--) {
        mark_byte(marks, at++);
    }
    return !scan_vector_any(marks->wrong);
}

/* `body` is whole lines. Each jump goes from a line's start to the last one that is near enough for
 * all lines between to be short enough: one look at a few bytes for each thousand. */
static bool lines_are_short(struct span body)
{
    const char *end = body.at + body.size;
    for (const char *at = body.at; at < end;) {
        size_t window = LINE_SIZE_MAX + (*at == '.');
        if ((size_t)(end - at) <= window) {
            return true;
        }
        const char *last = memrchr(at, '\n', window);
        if (last == NULL) {
            return false;
        }
        at = last + 1;
    }
    return true;
}

bool scan_text_measure(struct span text, struct scan_text *ret_text)
{
    if (span_equal(text, SPAN(".\r\n"))) {
        *ret_text = (struct scan_text){.lines_count = 1};
        return true;
    }
    const struct span end = SPAN("\r\n.\r\n");
    if (text.size < end.size ||
        !span_equal(span_of(text.at + text.size - end.size, end.size), end)) {
        return false;
    }
    struct span body = span_of(text.at, text.size - SCAN_TEXT_END_SIZE);
    /* The text's start is a line's start, too. The body's last LF is left out: the dot behind it is
     * the one that is not doubled. */
    struct marks marks = {.lines_count = 0};
    bool has_dot = body.at[0] == '.';
    if (body.at[0] == '\n' || (has_dot && body.at[1] != '.') ||
        !mark_bytes(&marks, body.at, body.size - 1) || !lines_are_short(body)) {
        return false;
    }
    ret_text->lines_count = marks.lines_count + 2; /* that LF's, the lone dot's */
    ret_text->dots_count = marks.dots_count + has_dot;
    ret_text->is_8bit = scan_vector_any_8bit(marks.bits);
    return true;
}
