/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan_text.h"

#include "engine/base/vector.h"

enum {
    ROUNDS_MAX = 64, /* a byte of a vector counts up to 127; a stop costs a second look at them */
    LINE_SIZE_MAX = SCAN_TEXT_LINE_MAX + 2,
    LOOK_AHEAD = 2, /* each byte is judged with those behind it */
};

/* `wrong` is not 0 where a byte is NUL, a CR without LF or an LF without CR. */
struct marks {
    vector wrong;
    vector bits;
    uint64_t lines_count;
    uint64_t dots_count;
};

static uint64_t sum_of(vector counts)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < VECTOR_SIZE; i++) {
        sum += (uint8_t)counts[i];
    }
    return sum;
}

/* `rounds` times sixteen bytes. True when there is an LF before a dot that is not doubled. */
static bool mark_vectors(struct marks *marks, const char *at, size_t rounds)
{
    ensure(rounds <= ROUNDS_MAX);
    vector wrong = marks->wrong;
    vector bits = marks->bits;
    vector lines = {0};
    vector dots = {0};
    vector stops = {0};
    for (const char *end = at + rounds * VECTOR_SIZE; at < end; at += VECTOR_SIZE) {
        vector here = vector_at(at);
        vector next = vector_at(at + 1);
        vector second = vector_at(at + 2);
        vector is_lf = here == vector_of('\n');
        vector is_dot = is_lf & (next == vector_of('.'));
        wrong |= here == vector_of('\0');
        wrong |= (here == vector_of('\r')) ^ (next == vector_of('\n'));
        stops |= is_dot & (second != vector_of('.'));
        bits |= here;
        lines -= is_lf; /* where it is one: -1 */
        dots -= is_dot;
    }
    marks->wrong = wrong;
    marks->bits = bits;
    marks->lines_count += sum_of(lines);
    marks->dots_count += sum_of(dots);
    return vector_any(stops);
}

static bool is_stop(const char *at)
{
    return at[0] == '\n' && at[1] == '.' && at[2] != '.';
}

/* The same for one byte, in the vectors' first place. */
static bool mark_byte(struct marks *marks, const char *at)
{
    bool is_lf = at[0] == '\n';
    marks->wrong[0] |= at[0] == '\0' || (at[0] == '\r') != (at[1] == '\n');
    marks->bits[0] |= (int8_t)at[0];
    marks->lines_count += is_lf;
    marks->dots_count += is_lf && at[1] == '.';
    return is_stop(at);
}

/* Judges `size` bytes at `at`, or those up to the LF of a stop, which is the last one then; returns
 * how many. LOOK_AHEAD more can be read. */
static size_t mark_bytes(struct marks *marks, const char *at, size_t size, bool *ret_has_stop)
{
    size_t done = 0;
    *ret_has_stop = false;
    while (size - done >= VECTOR_SIZE) {
        size_t rounds = (size - done) / VECTOR_SIZE;
        rounds = rounds < ROUNDS_MAX ? rounds : ROUNDS_MAX;
        struct marks before = *marks;
        if (mark_vectors(marks, at + done, rounds) && !*ret_has_stop) {
            *marks = before;
            *ret_has_stop = true;
            for (size = done + 1; !is_stop(at + size - 1); size++) {
            }
            continue;
        }
        done += rounds * VECTOR_SIZE;
    }
    for (; done < size; done++) {
        if (mark_byte(marks, at + done)) {
            *ret_has_stop = true;
            return done + 1;
        }
    }
    return size;
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

size_t scan_text_take(struct scan_text *text, struct span bytes)
{
    if (bytes.size <= LOOK_AHEAD || (bytes.at[0] == '.' && bytes.at[1] != '.')) {
        return 0;
    }
    struct marks marks = {.lines_count = 0};
    bool has_stop;
    size_t size = mark_bytes(&marks, bytes.at, bytes.size - LOOK_AHEAD, &has_stop);
    text->is_bad = text->is_bad || vector_any(marks.wrong) || bytes.at[0] == '\n';
    const char *last = memrchr(bytes.at, '\n', size);
    if (last == NULL) {
        return 0;
    }
    size = (size_t)(last + 1 - bytes.at);
    /* Each dot was counted with the LF before it: the stop's is not doubled, and the text's first
     * line has none before it. */
    marks.dots_count -= has_stop;
    marks.dots_count += text->size == 0 && bytes.at[0] == '.';
    text->is_bad = text->is_bad || !lines_are_short(span_of(bytes.at, size));
    text->is_8bit = text->is_8bit || vector_any_8bit(marks.bits);
    text->lines_count += marks.lines_count;
    text->dots_count += marks.dots_count;
    text->size += size;
    return size;
}

bool scan_text_is_whole(const struct scan_text *text, struct span whole)
{
    return !text->is_bad && whole.size == text->size + SCAN_TEXT_END_SIZE &&
           span_equal(span_of(whole.at + text->size, SCAN_TEXT_END_SIZE), SPAN(".\r\n"));
}
