/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_body.h"

#include "engine/base/random.h"
#include "tests/harness.h"

enum { TEXT_MAX = 512, SPANS_MAX = 64 };

static const struct {
    const char *text;
    const char *want;
} STUFF_ROWS[] = {
    /* A21 */
    {"", ".\r\n"},
    {"a", "a\r\n.\r\n"},
    {"a\r\n", "a\r\n.\r\n"},
    {"\r\n", "\r\n.\r\n"},
    {".", "..\r\n.\r\n"},
    {".\r\n", "..\r\n.\r\n"},
    {"..", "...\r\n.\r\n"},
    {".a\r\n.\r\n..b\r\nc.d\r\n", "..a\r\n..\r\n...b\r\nc.d\r\n.\r\n"},
    {"a\r\n.", "a\r\n..\r\n.\r\n"},
    {"\r\n.\r\n", "\r\n..\r\n.\r\n"},
    {"a\r\n.\r\nQUIT\r\n", "a\r\n..\r\nQUIT\r\n.\r\n"},
    {"a.\r\n.b", "a.\r\n..b\r\n.\r\n"},
    /* What the check refuses is still terminated, and cannot end the data early. */
    {"a\r", "a\r\r\n.\r\n"},
    {"a\n", "a\n\r\n.\r\n"},
    {"a\n.\nb", "a\n..\nb\r\n.\r\n"},
    {"\n.\r\n", "\n..\r\n.\r\n"},
};

/* Stuffs the spans with room for `pieces_max` pieces a call. */
static struct span stuff(const struct span *spans, size_t spans_count, size_t pieces_max)
{
    static char room[3 * TEXT_MAX];
    struct span pieces[SPANS_MAX];
    struct writer writer = writer_of(room, sizeof(room));
    struct smtp_body body = {0};
    while (!body.is_done) {
        size_t count = smtp_body_stuff(&body, spans, spans_count, pieces, pieces_max);
        ensure(count > 0 && count <= pieces_max);
        for (size_t i = 0; i < count; i++) {
            CU_ASSERT(pieces[i].size > 0);
            writer_put(&writer, pieces[i]);
        }
    }
    CU_ASSERT_EQUAL(smtp_body_stuff(&body, spans, spans_count, pieces, pieces_max), 0);
    ensure(!writer.is_full);
    return writer_span(&writer);
}

static bool is_stuffed(struct span text, struct span want, size_t cut, size_t pieces_max)
{
    const struct span spans[] = {
        SPAN_NONE,
        span_of(text.at, cut),
        SPAN_NONE,
        span_of(text.at + cut, text.size - cut),
    };
    return span_equal(stuff(spans, COUNT_OF(spans), pieces_max), want);
}

static void test_A21_rows_at_each_cut(void)
{
    for (size_t i = 0; i < COUNT_OF(STUFF_ROWS); i++) {
        struct span text = span_of_text(STUFF_ROWS[i].text);
        struct span want = span_of_text(STUFF_ROWS[i].want);
        for (size_t cut = 0; cut <= text.size; cut++) {
            CHECK_ROW(i, is_stuffed(text, want, cut, SPANS_MAX));
            CHECK_ROW(i, is_stuffed(text, want, cut, 1));
        }
        struct span bytes[SPANS_MAX];
        for (size_t at = 0; at < text.size; at++) {
            bytes[at] = span_of(text.at + at, 1);
        }
        CHECK_ROW(i, span_equal(stuff(bytes, text.size, 3), want));
    }
}

/* The search goes in blocks: a dotted line at every place of a text longer than some of them, also
 * where the span is cut. */
static void test_A21_at_each_place_of_a_block(void)
{
    static char text[TEXT_MAX / 2];
    static char want[TEXT_MAX];
    for (size_t at = 0; at + 3 <= sizeof(text); at++) {
        memset(text, 'x', sizeof(text));
        memcpy(text + at, "\r\n.", 3);
        memcpy(want, text, at + 2);
        want[at + 2] = '.';
        memcpy(want + at + 3, text + at + 2, sizeof(text) - at - 2);
        memcpy(want + sizeof(text) + 1, "\r\n.\r\n", 5);
        struct span stuffed = span_of(want, sizeof(text) + 6);
        struct span whole = span_of(text, sizeof(text));
        CHECK_ROW(at, is_stuffed(whole, stuffed, 0, 2));
        CHECK_ROW(at, is_stuffed(whole, stuffed, at + 1, 2));
        CHECK_ROW(at, is_stuffed(whole, stuffed, at + 2, 2));
        CHECK_ROW(at, is_stuffed(whole, stuffed, at + 3, 2));
    }
}

/* A clean text goes out as it lies there: one piece a span, not copied. */
static void test_clean_text_is_not_copied(void)
{
    const struct span spans[] = {SPAN("Subject: x\r\n\r\n"), SPAN("a.b\r\n"), SPAN("c\r\n")};
    struct span pieces[8];
    struct smtp_body body = {0};
    CU_ASSERT_EQUAL(smtp_body_stuff(&body, spans, 3, pieces, 8), 4);
    for (size_t i = 0; i < 3; i++) {
        CHECK_ROW(i, pieces[i].at == spans[i].at && pieces[i].size == spans[i].size);
    }
    CU_ASSERT(span_equal(pieces[3], SPAN(".\r\n")));
    CHECK_PANICS((void)smtp_body_stuff(&body, spans, 3, pieces, 0));
}

#define OK 0
static const struct {
    const char *text;
    size_t size;
    uint32_t flags;
} CHECK_ROWS[] = {
#define ROW(text) text, sizeof(text) - 1
    {ROW(""), OK},
    {ROW("a"), OK},
    {ROW("a\r\nb\r\n"), OK},
    {ROW("\r\n\r\n"), OK},
    {ROW("\r"), SMTP_BODY_BARE_CR},
    {ROW("\n"), SMTP_BODY_BARE_LF},
    {ROW("\r\r\n"), SMTP_BODY_BARE_CR},
    {ROW("\r\n\r"), SMTP_BODY_BARE_CR},
    {ROW("\n\r"), SMTP_BODY_BARE_CR | SMTP_BODY_BARE_LF},
    {ROW("a\rb\r\n"), SMTP_BODY_BARE_CR},
    {ROW("a\nb\r\n"), SMTP_BODY_BARE_LF},
    {ROW("a\r\n\n"), SMTP_BODY_BARE_LF},
    {ROW("a\0b\r\n"), SMTP_BODY_NUL},
    {ROW("\0"), SMTP_BODY_NUL},
    {ROW("a\xe4z\r\n"), SMTP_BODY_8BIT},
    {ROW("\x80"), SMTP_BODY_8BIT},
    {ROW("\x7f\r\n"), OK},
    {ROW("0123456789abcdef0123456789abcdef\xe4\r\n"), SMTP_BODY_8BIT},
    {ROW("0123456789abcde\xe4"), SMTP_BODY_8BIT},
    {ROW("0123456789\0abcdefghi\r\n"), SMTP_BODY_NUL},
    {ROW("0123456789\rabcdefghi\r\n"), SMTP_BODY_BARE_CR},
    {ROW("\r\0\n\xff"), SMTP_BODY_BARE_CR | SMTP_BODY_NUL | SMTP_BODY_BARE_LF | SMTP_BODY_8BIT},
};

static uint32_t check(struct span text, size_t cut, size_t step)
{
    struct smtp_body_checker checker = {0};
    smtp_body_check(&checker, span_of(text.at, cut));
    for (size_t at = cut; at < text.size; at += step) {
        size_t left = text.size - at;
        smtp_body_check(&checker, span_of(text.at + at, left < step ? left : step));
    }
    return smtp_body_check_end(&checker);
}

static void test_check_rows_at_each_cut(void)
{
    for (size_t i = 0; i < COUNT_OF(CHECK_ROWS); i++) {
        struct span text = span_of(CHECK_ROWS[i].text, CHECK_ROWS[i].size);
        for (size_t cut = 0; cut <= text.size; cut++) {
            CHECK_ROW(i, check(text, cut, TEXT_MAX) == CHECK_ROWS[i].flags);
        }
        CHECK_ROW(i, check(text, 0, 1) == CHECK_ROWS[i].flags);
    }
}

/* A23: 998 bytes and CRLF are a line, one more is too long, wherever the text is cut. */
static void test_A23_long_lines(void)
{
    static char text[SMTP_BODY_LINE_MAX + 8];
    for (size_t extra = 0; extra < 2; extra++) {
        memset(text, 'x', sizeof(text));
        size_t line = SMTP_BODY_LINE_MAX + extra;
        memcpy(text + line, "\r\nab", 4);
        uint32_t want = extra == 0 ? 0 : SMTP_BODY_LONG_LINE;
        for (size_t cut = 0; cut <= line + 4; cut++) {
            CHECK_ROW(cut, check(span_of(text, line + 4), cut, TEXT_MAX) == want);
        }
        CU_ASSERT_EQUAL(check(span_of(text, line), 0, 100), want);
    }
}

/* The plain meaning of the flags, byte by byte, for random texts. */
static uint32_t check_plainly(struct span text)
{
    uint32_t flags = 0;
    for (size_t i = 0; i < text.size; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        bool is_before_lf = i + 1 < text.size && text.at[i + 1] == '\n';
        bool is_behind_cr = i > 0 && text.at[i - 1] == '\r';
        flags |= byte == '\r' && !is_before_lf ? SMTP_BODY_BARE_CR : 0u;
        flags |= byte == '\n' && !is_behind_cr ? SMTP_BODY_BARE_LF : 0u;
        flags |= byte == '\0' ? SMTP_BODY_NUL : 0u;
        flags |= byte > 127 ? SMTP_BODY_8BIT : 0u;
    }
    return flags;
}

static void test_check_against_the_plain_meaning(void)
{
    static const char ALPHABET[] = "\r\n\r\n\0\xe4";
    struct random random;
    random_init_seed(&random, 23);
    for (unsigned round = 0; round < 20000; round++) {
        char text[100];
        size_t size = random_below(&random, sizeof(text) + 1);
        memset(text, 'x', sizeof(text));
        for (unsigned i = 0; i < 3 && size > 1; i++) {
            text[random_below(&random, (uint32_t)size)] = ALPHABET[random_below(&random, 6)];
            memcpy(text + random_below(&random, (uint32_t)size - 1), "\r\n", 2);
        }
        uint32_t want = check_plainly(span_of(text, size));
        size_t step = 1 + random_below(&random, 40);
        CHECK_ROW(round, check(span_of(text, size), 0, step) == want);
    }
}

SUITE(smtp_body, test_A21_rows_at_each_cut, test_A21_at_each_place_of_a_block,
      test_clean_text_is_not_copied, test_check_rows_at_each_cut, test_A23_long_lines,
      test_check_against_the_plain_meaning)
