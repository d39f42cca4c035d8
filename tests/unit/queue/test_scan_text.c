/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan_text.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "queue/scan.h"
#include "tests/harness.h"

#define ENVELOPE "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nDATA\r\n"
#define ENVELOPE_LF "MAIL FROM:<s@x>\nRCPT TO:<a@b>\nDATA\n"

enum { TEXT_SIZE_MAX = 32 * 1024, VECTOR_SIZE = 16, BLOCK_SIZE = 64 * VECTOR_SIZE };

static struct scan_message fast;
static struct scan_message slow;
static uint32_t good_count;
static uint32_t bad_count;

static bool messages_are_same(void)
{
    return fast.body.at == slow.body.at && fast.body.size == slow.body.size &&
           fast.size == slow.size && fast.is_8bit == slow.is_8bit && fast.is_lf == slow.is_lf &&
           fast.rcpts_count == slow.rcpts_count && span_equal(fast.sender, slow.sender);
}

/* Shown `step` more bytes each time, in memory of its own. */
static struct scan_text measure_by(struct span text, size_t step)
{
    struct scan_text measured = {0};
    for (size_t shown = 0; shown < text.size;) {
        shown = text.size - shown < step ? text.size : shown + step;
        size_t size = shown - measured.size;
        char *exact = malloc(size + 1);
        ensure(exact != NULL);
        memcpy(exact, text.at + measured.size, size);
        uint64_t before = measured.size;
        size_t taken = scan_text_take(&measured, span_of(exact, size));
        ensure(measured.size == before + taken && taken <= size);
        ensure(taken == 0 || exact[taken - 1] == '\n');
        free(exact);
    }
    return measured;
}

static struct scan_text measure(struct span text)
{
    return measure_by(text, text.size);
}

static bool measures_are_right(struct span text, const struct scan_text *measured)
{
    uint64_t lines_count = 0;
    for (size_t i = 0; i < text.size; i++) {
        lines_count += text.at[i] == '\n';
    }
    return measured->lines_count + 1 == lines_count &&
           measured->dots_count == slow.body.size - slow.size &&
           measured->is_8bit == slow.is_8bit && measured->size == slow.body.size;
}

/* One record, read with the measure and by its lines, in memory of its own: the same answers, the
 * same words; and the measure of a CRLF text is whole exactly when the lines are good. */
static bool record_is_same(struct span envelope, struct span text, bool is_lf)
{
    size_t size = envelope.size + text.size;
    char *exact = malloc(size);
    ensure(exact != NULL);
    memcpy(exact, envelope.at, envelope.size);
    if (text.size > 0) {
        memcpy(exact + envelope.size, text.at, text.size);
    }
    struct scan_text measured = measure(text);
    struct scan_problem problems[2] = {0};
    int result = scan_record_message(span_of(exact, size), &measured, &fast, &problems[0]);
    int want = scan_record_message(span_of(exact, size), NULL, &slow, &problems[1]);
    bool is_same = result == want;
    if (is_same && want == 0) {
        is_same = messages_are_same() && (is_lf || measures_are_right(text, &measured));
    } else if (is_same) {
        is_same = problems[0].line_offset == problems[1].line_offset &&
                  strcmp(problems[0].text, problems[1].text) == 0;
    }
    is_same = is_same && (is_lf || scan_text_is_whole(&measured, text) == (want == 0));
    free(exact);
    good_count += want == 0;
    bad_count += want != 0;
    return is_same;
}

static bool text_is_same(struct span text)
{
    bool is_same_lf = record_is_same(SPAN(ENVELOPE_LF), text, true);
    return record_is_same(SPAN(ENVELOPE), text, false) && is_same_lf;
}

static void counts_reset(void)
{
    good_count = 0;
    bad_count = 0;
}

static void put_run(struct writer *writer, char byte, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        writer_put_byte(writer, byte);
    }
}

static const struct {
    struct span text;
    bool is_good;
    uint64_t lines_count, dots_count;
    bool is_8bit;
} ROWS[] = {
    {SPAN(".\r\n"), true, 0, 0, false},
    {SPAN("\r\n.\r\n"), true, 1, 0, false},
    {SPAN("a\r\n.\r\n"), true, 1, 0, false},
    {SPAN("..\r\n.\r\n"), true, 1, 1, false},
    {SPAN("...\r\n..a\r\nb..\r\n.\r\n"), true, 3, 2, false},
    {SPAN("\x80\r\n.\r\n"), true, 1, 0, true},
    {SPAN("a.\r\n\xff.\r\n\r\n..\r\n.\r\n"), true, 4, 1, true},
    {SPAN(""), false, 0, 0, false},
    {SPAN(".\n"), false, 0, 0, false},
    {SPAN("\r\n"), false, 0, 0, false},
    {SPAN("a.\r\n"), false, 0, 0, false},
    {SPAN("\n.\r\n"), false, 0, 0, false},
    {SPAN("\n\r\n.\r\n"), false, 0, 0, false},
    {SPAN("\r\r\n.\r\n"), false, 0, 0, false},
    {SPAN(".\r\n.\r\n"), false, 0, 0, false},
    {SPAN(".a\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\r\n.b\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\r\n.\r\nb\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\r\n.\nb\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\rb\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\0b\r\n.\r\n"), false, 0, 0, false},
    {SPAN("a\r\n.\r\n\r\n"), false, 0, 0, false},
    {SPAN("a\r\n.\r\n "), false, 0, 0, false},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct scan_text measured = measure(ROWS[i].text);
        CHECK_ROW(i, scan_text_is_whole(&measured, ROWS[i].text) == ROWS[i].is_good);
        if (ROWS[i].is_good) {
            CHECK_ROW(i, measured.lines_count == ROWS[i].lines_count);
            CHECK_ROW(i, measured.dots_count == ROWS[i].dots_count);
            CHECK_ROW(i, measured.is_8bit == ROWS[i].is_8bit);
        }
        CHECK_ROW(i, text_is_same(ROWS[i].text));
    }
}

/* Each byte of each small text is once each of the bytes that matter: wherever it lies in a vector
 * or behind the last one. */
static void test_each_place(void)
{
    static const struct span lines[] = {SPAN("\r\n"), SPAN("a\r\n"), SPAN("..\r\n"),
                                        SPAN("0123456789abcdef012\r\n"), SPAN("..........\r\n")};
    static const char bytes[] = {'\r', '\n', '.', '\0', 'a', '\x80'};
    counts_reset();
    char text[96];
    for (size_t kind = 0; kind < COUNT_OF(lines); kind++) {
        for (size_t size = 0; size < 3 * VECTOR_SIZE + 4; size += lines[kind].size) {
            struct writer writer = writer_of(text, sizeof(text));
            while (writer_size(&writer) < size) {
                writer_put(&writer, lines[kind]);
            }
            writer_put(&writer, SPAN(".\r\n"));
            struct span whole = writer_span(&writer);
            CHECK_ROW(size, text_is_same(whole));
            for (size_t i = 0; i < whole.size * COUNT_OF(bytes); i++) {
                char was = text[i / COUNT_OF(bytes)];
                text[i / COUNT_OF(bytes)] = bytes[i % COUNT_OF(bytes)];
                CHECK_ROW(i, text_is_same(whole));
                text[i / COUNT_OF(bytes)] = was;
            }
        }
    }
    CU_ASSERT(good_count > 1000);
    CU_ASSERT(bad_count > 1000);
}

/* As many line ends and doubled dots as can be, around the sizes at which the counters are full. */
static void test_counters(void)
{
    static const struct span lines[] = {SPAN("\r\n"), SPAN("..\r\n"), SPAN("..34567\x80\r\n")};
    static char text[TEXT_SIZE_MAX];
    for (size_t kind = 0; kind < COUNT_OF(lines); kind++) {
        struct writer writer = writer_of(text, sizeof(text));
        while (writer_size(&writer) < 3 * BLOCK_SIZE) {
            writer_put(&writer, lines[kind]);
            char *end = writer.at;
            writer_put(&writer, SPAN(".\r\n"));
            size_t beside = (writer_size(&writer) + 40) % BLOCK_SIZE;
            if (beside < 80) {
                CHECK_ROW(kind, text_is_same(writer_span(&writer)));
                struct scan_text measured = measure(writer_span(&writer));
                CHECK_ROW(kind, scan_text_is_whole(&measured, writer_span(&writer)));
            }
            writer.at = end;
        }
    }
}

/* Lines about as long as they may be, in every order of short, long and dotted ones. */
static void test_long_lines(void)
{
    static const size_t sizes[] = {0, 1, 3, 500, 996, 997, 998, 999};
    static char text[TEXT_SIZE_MAX];
    const uint32_t kinds = 2 * COUNT_OF(sizes);
    counts_reset();
    for (uint32_t code = 0; code < kinds * kinds * kinds; code++) {
        struct writer writer = writer_of(text, sizeof(text));
        bool is_good = true;
        for (uint32_t rest = code, i = 0; i < 3; i++, rest /= kinds) {
            size_t size = sizes[rest % kinds / 2];
            bool has_dot = rest % 2 != 0 && size > 0;
            put_run(&writer, '.', 2 * has_dot);
            put_run(&writer, 'x', size - has_dot);
            writer_put(&writer, SPAN("\r\n"));
            is_good = is_good && size <= SCAN_TEXT_LINE_MAX;
        }
        writer_put(&writer, SPAN(".\r\n"));
        struct scan_text measured = measure(writer_span(&writer));
        CHECK_ROW(code, scan_text_is_whole(&measured, writer_span(&writer)) == is_good);
        CHECK_ROW(code, text_is_same(writer_span(&writer)));
    }
    CU_ASSERT(good_count > 1000);
    CU_ASSERT(bad_count > 1000);
}

static void test_random_texts(void)
{
    static const struct span pieces[] = {
        SPAN("\r"),   SPAN("\n"),      SPAN("\r\n"),      SPAN("\r\n"), SPAN("."),
        SPAN(".."),   SPAN("\r\n.."),  SPAN("\r\n.\r\n"), SPAN("a"),    SPAN("abcdefghijklmnopq"),
        SPAN("\x80"), SPAN("..a\r\n"), SPAN("a\r\n"),
    };
    static char text[TEXT_SIZE_MAX];
    struct random random;
    random_init_seed(&random, 998);
    counts_reset();
    for (uint32_t round = 0; round < 40000; round++) {
        struct writer writer = writer_of(text, sizeof(text));
        /* From all pieces, or from those behind the bare CR and LF: then many are good. */
        uint32_t first = 2 * random_below(&random, 2);
        for (uint32_t count = random_below(&random, 14); count > 0; count--) {
            uint32_t piece = first + random_below(&random, COUNT_OF(pieces) - first);
            writer_put(&writer, pieces[piece]);
            if (random_below(&random, 40) == 0) {
                put_run(&writer, 'a', 990 + random_below(&random, 16));
            }
            if (random_below(&random, 100) == 0) {
                writer_put_byte(&writer, '\0');
            }
        }
        if (random_below(&random, 8) != 0) {
            writer_put(&writer, SPAN("\r\n.\r\n"));
        }
        CHECK_ROW(round, text_is_same(writer_span(&writer)));
    }
    CU_ASSERT(good_count > 1000);
    CU_ASSERT(bad_count > 1000);
}

static void put_good_text(struct writer *writer, struct random *random)
{
    for (uint32_t count = random_below(random, 60); count > 0; count--) {
        uint32_t size = random_below(random, 8) == 0 ? 980 + random_below(random, 19)
                                                     : random_below(random, 80);
        if (random_below(random, 5) == 0) {
            writer_put(writer, size == 0 ? SPAN("..a") : SPAN(".."));
            size -= size > 0;
        }
        put_run(writer, random_below(random, 20) == 0 ? '\xc3' : 'x', size);
        writer_put(writer, SPAN("\r\n"));
    }
    writer_put(writer, SPAN(".\r\n"));
}

/* Puts a byte in, takes one out, or makes one of another. */
static size_t text_mutate(char *text, size_t size, struct random *random)
{
    size_t at = random_below(random, (uint32_t)size);
    char byte = "\r\n.a\0\x80"[random_below(random, 6)];
    switch (random_below(random, 3)) {
    case 0:
        text[at] = byte;
        return size;
    case 1:
        memmove(text + at, text + at + 1, size - at - 1);
        return size - 1;
    default:
        memmove(text + at + 1, text + at, size - at);
        text[at] = byte;
        return size + 1;
    }
}

static void test_mutated_texts(void)
{
    static char text[3 * TEXT_SIZE_MAX];
    struct random random;
    random_init_seed(&random, 5322);
    counts_reset();
    for (uint32_t round = 0; round < 4000; round++) {
        struct writer writer = writer_of(text, sizeof(text) - 4);
        put_good_text(&writer, &random);
        ensure(!writer.is_full);
        size_t size = writer_size(&writer);
        struct scan_text measured = measure(span_of(text, size));
        CHECK_ROW(round, scan_text_is_whole(&measured, span_of(text, size)));
        CHECK_ROW(round, text_is_same(span_of(text, size)));
        for (uint32_t count = 1 + random_below(&random, 3); count > 0; count--) {
            size = text_mutate(text, size, &random);
            CHECK_ROW(round, text_is_same(span_of(text, size)));
        }
    }
    CU_ASSERT(good_count > 1000);
    CU_ASSERT(bad_count > 1000);
}

/* Wherever it is cut, the same is taken and counted. */
static void test_pieces(void)
{
    static char text[TEXT_SIZE_MAX];
    struct random random;
    random_init_seed(&random, 2442);
    for (uint32_t round = 0; round < 400; round++) {
        struct writer writer = writer_of(text, sizeof(text) - 4);
        put_good_text(&writer, &random);
        size_t size = text_mutate(text, writer_size(&writer), &random);
        struct scan_text whole = measure(span_of(text, size));
        for (uint32_t i = 0; i < 4; i++) {
            struct scan_text parts =
                measure_by(span_of(text, size), 1 + random_below(&random, i < 2 ? 40 : 3000));
            CHECK_ROW(round, parts.size == whole.size);
            CHECK_ROW(round, parts.lines_count == whole.lines_count);
            CHECK_ROW(round, parts.dots_count == whole.dots_count);
            CHECK_ROW(round, scan_text_is_whole(&parts, span_of(text, size)) ==
                                 scan_text_is_whole(&whole, span_of(text, size)));
        }
    }
}

SUITE(scan_text, test_rows, test_each_place, test_counters, test_long_lines, test_random_texts,
      test_mutated_texts, test_pieces)
