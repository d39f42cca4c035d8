/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/dot.h"

#include "tests/harness.h"

static const struct {
    const char *wire;
    const char *content;
    const char *rest; /* behind the end; NULL: there is no end */
} ROWS[] = {
    {".\r\n", "", ""},
    {"a\r\n.\r\n", "a\r\n", ""},
    {"a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"},
    {"..\r\n.\r\n", ".\r\n", ""},
    {"..a\r\n...\r\n.\r\n", ".a\r\n..\r\n", ""},
    {".a\r\n.\r\n", "a\r\n", ""},
    {"\r\n.\r\n", "\r\n", ""},
    {"a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", ""},
    {"a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", ""},
    {"a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", ""},
    {"a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", ""},
    {"a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", ""},
    {"a\r.\r\n.\r\n", "a\r.\r\n", ""},
    {"a\r\r\n.\r\nb", "a\r\r\n", "b"},
    {"a.\r\n.b.\r\n.\r\n", "a.\r\nb.\r\n", ""},
    {"0123456789abcdefghijklmnop\r\n0123456789abc\r\n.\r\n.\r\n",
     "0123456789abcdefghijklmnop\r\n0123456789abc\r\n", ".\r\n"},
    {"0123456789abc\r\n..23456789abcdef\n.\r\n0123456789\r\n.\r\nx",
     "0123456789abc\r\n.23456789abcdef\n.\r\n0123456789\r\n", "x"},
    {"no end\r\n.", "no end\r\n", NULL},
    {"no end\r\n.\r", "no end\r\n", NULL},
    {"no end\n.\n", "no end\n.\n", NULL},
};

struct run {
    struct dot_finder finder;
    char content[256];
    struct writer writer;
    bool is_ended;
};

static void run_init(struct run *run)
{
    dot_finder_init(&run->finder);
    run->writer = writer_of(run->content, sizeof(run->content));
    run->is_ended = false;
}

/* Feeds one chunk; returns how many bytes were taken. */
static size_t run_feed(struct run *run, struct span chunk)
{
    struct cursor cursor = cursor_of(chunk);
    enum dot_step step;
    do {
        struct span piece;
        step = dot_finder_next(&run->finder, &cursor, &piece);
        writer_put(&run->writer, piece);
    } while (step == DOT_PIECE);
    run->is_ended = step == DOT_END;
    return chunk.size - cursor_left(&cursor);
}

static bool run_is_right(const struct run *run, size_t row, size_t taken)
{
    size_t size = strlen(ROWS[row].wire);
    size_t rest_size = ROWS[row].rest ? strlen(ROWS[row].rest) : 0;
    return run->is_ended == (ROWS[row].rest != NULL) && taken == size - rest_size &&
           span_equal(writer_span(&run->writer), span_of_text(ROWS[row].content));
}

static void test_whole(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct run run;
        run_init(&run);
        size_t taken = run_feed(&run, span_of_text(ROWS[i].wire));
        CHECK_ROW(i, run_is_right(&run, i, taken));
    }
}

static void test_every_split(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t size = strlen(ROWS[i].wire);
        for (size_t split = 1; split < size; split++) {
            struct run run;
            run_init(&run);
            size_t taken = run_feed(&run, span_of(ROWS[i].wire, split));
            if (!run.is_ended) {
                taken += run_feed(&run, span_of(ROWS[i].wire + split, size - split));
            }
            CHECK_ROW(i, run_is_right(&run, i, taken));
        }
    }
}

static void test_byte_by_byte(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct run run;
        run_init(&run);
        size_t taken = 0;
        while (taken < strlen(ROWS[i].wire) && !run.is_ended) {
            taken += run_feed(&run, span_of(ROWS[i].wire + taken, 1));
        }
        CHECK_ROW(i, run_is_right(&run, i, taken));
    }
}

SUITE(dot, test_whole, test_every_split, test_byte_by_byte)
