/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/bytes.h"

#include "tests/harness.h"

static void test_compare(void)
{
    static const struct {
        struct span a;
        struct span b;
        bool equal;
        bool equal_nocase;
        bool starts;
        bool starts_nocase;
    } rows[] = {
        {SPAN(""), SPAN(""), true, true, true, true},
        {SPAN("a"), SPAN(""), false, false, true, true},
        {SPAN(""), SPAN("a"), false, false, false, false},
        {SPAN("EHLO"), SPAN("ehlo"), false, true, false, true},
        {SPAN("Ehlo there"), SPAN("EHLO"), false, false, false, true},
        {SPAN("abc"), SPAN("abc"), true, true, true, true},
        {SPAN("abc"), SPAN("abd"), false, false, false, false},
        /* Neighbours of the letters, and letters outside ASCII, have no case. */
        {SPAN("@[`{"), SPAN("`{@["), false, false, false, false},
        {SPAN("\xc3\x84"), SPAN("\xc3\xa4"), false, false, false, false},
        {SPAN("a\0b"), SPAN("a\0B"), false, true, false, true},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        CHECK_ROW(i, span_equal(rows[i].a, rows[i].b) == rows[i].equal);
        CHECK_ROW(i, span_equal_nocase(rows[i].a, rows[i].b) == rows[i].equal_nocase);
        CHECK_ROW(i, span_starts(rows[i].a, rows[i].b) == rows[i].starts);
        CHECK_ROW(i, span_starts_nocase(rows[i].a, rows[i].b) == rows[i].starts_nocase);
    }
    CU_ASSERT(span_equal((struct span){0}, SPAN_NONE));
    CU_ASSERT(span_equal(span_of_text("abc"), SPAN("abc")));
}

static void test_find_and_trim(void)
{
    CU_ASSERT_EQUAL(span_find(SPAN("a@b@c"), '@'), 1);
    CU_ASSERT_EQUAL(span_find(SPAN("abc"), '@'), 3);
    CU_ASSERT_EQUAL(span_find((struct span){0}, '@'), 0);
    CU_ASSERT_EQUAL(span_find(SPAN("ab\0c"), '\0'), 2);

    CU_ASSERT_EQUAL(span_find_break(SPAN("plain")), 5);
    CU_ASSERT_EQUAL(span_find_break(SPAN("a\rb\n")), 1);
    CU_ASSERT_EQUAL(span_find_break(SPAN("ab\ncd")), 2);
    CU_ASSERT_EQUAL(span_find_break(SPAN("abc\0")), 3);

    CU_ASSERT(span_equal(span_trim(SPAN(" \t a b\t ")), SPAN("a b")));
    CU_ASSERT(span_equal(span_trim(SPAN(" \t ")), SPAN("")));
    CU_ASSERT(span_equal(span_trim(SPAN("")), SPAN("")));
    CU_ASSERT(span_equal(span_trim(SPAN("\n")), SPAN("\n")));
}

static void test_cursor_takes(void)
{
    struct cursor cursor = cursor_of(SPAN("MAIL FROM:<a@b> x"));
    struct span piece;
    char byte;
    CU_ASSERT_EQUAL(cursor_peek(&cursor), 'M');
    CU_ASSERT(!cursor_take_text(&cursor, SPAN("mail")));
    CU_ASSERT(cursor_take_text(&cursor, SPAN("MAIL")));
    CU_ASSERT(!cursor_take_byte(&cursor, '!'));
    CU_ASSERT(cursor_take_byte(&cursor, ' '));
    piece = cursor_take_until(&cursor, ':');
    CU_ASSERT(span_equal(piece, SPAN("FROM")));
    CU_ASSERT(cursor_take(&cursor, &byte));
    CU_ASSERT_EQUAL(byte, ':');
    CU_ASSERT(cursor_take_span(&cursor, 5, &piece));
    CU_ASSERT(span_equal(piece, SPAN("<a@b>")));
    CU_ASSERT(!cursor_take_span(&cursor, 3, &piece));
    CU_ASSERT(!cursor_take_span(&cursor, SIZE_MAX, &piece));
    CU_ASSERT(span_equal(piece, SPAN("<a@b>")));
    CU_ASSERT(span_equal(cursor_take_until(&cursor, ';'), SPAN(" x")));
    CU_ASSERT_EQUAL(cursor_left(&cursor), 0);
    CU_ASSERT_EQUAL(cursor_peek(&cursor), -1);
    CU_ASSERT(!cursor_take(&cursor, &byte));
    CU_ASSERT(!cursor_take_byte(&cursor, 'x'));
    CU_ASSERT(!cursor_take_text(&cursor, SPAN("x")));
    CU_ASSERT(cursor_take_text(&cursor, SPAN("")));
    CU_ASSERT(span_equal(cursor_take_until(&cursor, ';'), SPAN("")));
}

static void test_peek_high_byte(void)
{
    struct cursor cursor = cursor_of(SPAN("\xff"));
    CU_ASSERT_EQUAL(cursor_peek(&cursor), 255);
}

static void test_uint(void)
{
    static const struct {
        struct span text;
        uint64_t max;
        bool is_taken;
        uint64_t value;
        size_t left;
    } rows[] = {
        {SPAN("0"), 0, true, 0, 0},
        {SPAN("7x"), 9, true, 7, 1},
        {SPAN("250-"), 999, true, 250, 1},
        {SPAN("000250"), 999, true, 250, 0},
        {SPAN("1000"), 999, false, 0, 4},
        {SPAN("10"), 9, false, 0, 2},
        {SPAN("5"), 4, false, 0, 1},
        {SPAN("65535"), 65535, true, 65535, 0},
        {SPAN("65536"), 65535, false, 0, 5},
        {SPAN("18446744073709551615"), UINT64_MAX, true, UINT64_MAX, 0},
        {SPAN("18446744073709551616"), UINT64_MAX, false, 0, 20},
        {SPAN("99999999999999999999999999"), UINT64_MAX, false, 0, 26},
        {SPAN(""), UINT64_MAX, false, 0, 0},
        {SPAN("-1"), UINT64_MAX, false, 0, 2},
        {SPAN(" 1"), UINT64_MAX, false, 0, 2},
        {SPAN("\xb1"), UINT64_MAX, false, 0, 1},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct cursor cursor = cursor_of(rows[i].text);
        uint64_t value = 0;
        CHECK_ROW(i, cursor_take_uint(&cursor, rows[i].max, &value) == rows[i].is_taken);
        CHECK_ROW(i, value == rows[i].value);
        CHECK_ROW(i, cursor_left(&cursor) == rows[i].left);
    }
}

static void test_lines(void)
{
    struct cursor cursor = cursor_of(SPAN("one\r\n\r\n\ntwo\r\r\nthree\n\rrest"));
    static const struct span want[] = {SPAN("one"), SPAN(""), SPAN(""), SPAN("two\r"),
                                       SPAN("three")};
    struct span line = SPAN_NONE;
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        CHECK_ROW(i, cursor_take_line(&cursor, &line));
        CHECK_ROW(i, span_equal(line, want[i]));
    }
    CU_ASSERT(!cursor_take_line(&cursor, &line));
    CU_ASSERT_EQUAL(cursor_left(&cursor), 5);
}

/* At each split point: a line is there exactly when its LF is. */
static void test_line_dribble(void)
{
    struct span text = SPAN("250 ok\r\n");
    for (size_t size = 0; size <= text.size; size++) {
        struct cursor cursor = cursor_of(span_of(text.at, size));
        struct span line = SPAN_NONE;
        CHECK_ROW(size, cursor_take_line(&cursor, &line) == (size == text.size));
        CHECK_ROW(size, cursor_left(&cursor) == (size == text.size ? 0 : size));
    }
}

static void test_little_endian(void)
{
    char bytes[15];
    struct writer writer = writer_of(bytes, sizeof(bytes));
    writer_put_u8(&writer, 0x81);
    writer_put_u16(&writer, 0x9392);
    writer_put_u32(&writer, 0xa7a6a5a4);
    writer_put_u64(&writer, UINT64_C(0xf8f7f6f5f4f3f2f1));
    CU_ASSERT(!writer.is_full);
    CU_ASSERT(span_equal(writer_span(&writer),
                         SPAN("\x81\x92\x93\xa4\xa5\xa6\xa7\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8")));

    struct cursor cursor = cursor_of(writer_span(&writer));
    uint8_t u8 = 0;
    uint16_t u16 = 0;
    uint32_t u32 = 0;
    uint64_t u64 = 0;
    CU_ASSERT(cursor_take_u8(&cursor, &u8));
    CU_ASSERT(cursor_take_u16(&cursor, &u16));
    CU_ASSERT(cursor_take_u32(&cursor, &u32));
    CU_ASSERT(cursor_take_u64(&cursor, &u64));
    CU_ASSERT_EQUAL(u8, 0x81);
    CU_ASSERT_EQUAL(u16, 0x9392);
    CU_ASSERT_EQUAL(u32, 0xa7a6a5a4);
    CU_ASSERT_EQUAL(u64, UINT64_C(0xf8f7f6f5f4f3f2f1));
    CU_ASSERT(!cursor_take_u8(&cursor, &u8));
    CU_ASSERT_EQUAL(u8, 0x81);
}

static void test_little_endian_too_short(void)
{
    uint16_t u16 = 7;
    uint32_t u32 = 7;
    uint64_t u64 = 7;
    struct cursor cursor = cursor_of(SPAN("\1"));
    CU_ASSERT(!cursor_take_u16(&cursor, &u16));
    cursor = cursor_of(SPAN("\1\2\3"));
    CU_ASSERT(!cursor_take_u32(&cursor, &u32));
    cursor = cursor_of(SPAN("\1\2\3\4\5\6\7"));
    CU_ASSERT(!cursor_take_u64(&cursor, &u64));
    CU_ASSERT_EQUAL(u16, 7);
    CU_ASSERT_EQUAL(u32, 7);
    CU_ASSERT_EQUAL(u64, 7);
    CU_ASSERT_EQUAL(cursor_left(&cursor), 7);
}

static void test_writer_numbers(void)
{
    char text[64];
    struct writer writer = writer_of(text, sizeof(text));
    writer_put_uint(&writer, 0);
    writer_put_byte(&writer, ' ');
    writer_put_uint(&writer, UINT64_MAX);
    writer_put_byte(&writer, ' ');
    writer_put_uint_padded(&writer, 7, 3);
    writer_put_byte(&writer, ' ');
    writer_put_uint_padded(&writer, 12345, 3);
    writer_put_format(&writer, " %s=%d", "x", -3);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("0 18446744073709551615 007 12345 x=-3")));
    CU_ASSERT(!writer.is_full);
    CHECK_PANICS(writer_put_uint_padded(&writer, 1, 0));
    CHECK_PANICS(writer_put_uint_padded(&writer, 1, 21));
}

/* One put is whole or not at all, later and smaller ones still fit, and the flag stays. */
static void test_writer_full(void)
{
    char text[6] = "......";
    struct writer writer = writer_of(text, 5);
    writer_put(&writer, SPAN("abc"));
    writer_put(&writer, SPAN("def"));
    CU_ASSERT(writer.is_full);
    CU_ASSERT_EQUAL(writer_size(&writer), 3);
    writer_put(&writer, SPAN("de"));
    CU_ASSERT(writer.is_full);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("abcde")));
    writer_put_byte(&writer, 'x');
    writer_put(&writer, (struct span){0});
    CU_ASSERT_EQUAL(text[5], '.');
}

static void test_writer_full_numbers(void)
{
    char text[4] = "....";
    struct writer writer = writer_of(text, 3);
    writer_put_u32(&writer, 1);
    CU_ASSERT(writer.is_full);
    writer = writer_of(text, 3);
    writer_put_uint(&writer, 1000);
    CU_ASSERT(writer.is_full);
    CU_ASSERT_EQUAL(writer_size(&writer), 0);
    writer = writer_of(text, 3);
    writer_put_format(&writer, "%d", 12);
    CU_ASSERT(!writer.is_full);
    writer_put_format(&writer, "%d", 34);
    CU_ASSERT(writer.is_full);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("12")));
    CU_ASSERT_EQUAL(text[3], '.');
}

/* A text of exactly the room left fits, though vsnprintf wants a byte more for its NUL. */
static void test_format_fills_exactly(void)
{
    char text[4] = "....";
    struct writer writer = writer_of(text, 3);
    writer_put_format(&writer, "%d", 123);
    CU_ASSERT(!writer.is_full);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("123")));
    CU_ASSERT_EQUAL(text[3], '.');
    writer_put_format(&writer, "%s", "");
    CU_ASSERT(!writer.is_full);
    writer_put_format(&writer, "%s", "x");
    CU_ASSERT(writer.is_full);
}

SUITE(bytes, test_compare, test_find_and_trim, test_cursor_takes, test_peek_high_byte, test_uint,
      test_lines, test_line_dribble, test_little_endian, test_little_endian_too_short,
      test_writer_numbers, test_writer_full, test_writer_full_numbers, test_format_fills_exactly)
