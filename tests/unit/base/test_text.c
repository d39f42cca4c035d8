/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/text.h"

#include "engine/base/random.h"
#include "tests/harness.h"

#define REPLACED "\xef\xbf\xbd"

static const struct {
    struct span value;
    struct span want;
} JSON_ROWS[] = {
    {SPAN(""), SPAN("\"\"")},
    {SPAN("plain"), SPAN("\"plain\"")},
    {SPAN("a longer text, of several words"), SPAN("\"a longer text, of several words\"")},
    {SPAN("say \"hi\""), SPAN("\"say \\\"hi\\\"\"")},
    {SPAN("C:\\temp"), SPAN("\"C:\\\\temp\"")},
    {SPAN("\b\f\n\r\t"), SPAN("\"\\b\\f\\n\\r\\t\"")},
    {SPAN("\0\1\v\x1f\x7f"), SPAN("\"\\u0000\\u0001\\u000b\\u001f\x7f\"")},
    {SPAN("12345678\"12345678\n"), SPAN("\"12345678\\\"12345678\\n\"")},
    {SPAN("Gr\xc3\xbc\xc3\x9f"), SPAN("\"Gr\xc3\xbc\xc3\x9f\"")},
    {SPAN("\xe2\x82\xac"), SPAN("\"\xe2\x82\xac\"")},
    {SPAN("\xf0\x9f\x9a\x80"), SPAN("\"\xf0\x9f\x9a\x80\"")},
    {SPAN("\xff"), SPAN("\"" REPLACED "\"")},
    {SPAN("a\x80z"), SPAN("\"a" REPLACED "z\"")},
    {SPAN("\xc3"), SPAN("\"" REPLACED "\"")},
    {SPAN("\xc3("), SPAN("\"" REPLACED "(\"")},
    {SPAN("\xc0\xaf"), SPAN("\"" REPLACED REPLACED "\"")},              /* overlong */
    {SPAN("\xe0\x9f\xbf"), SPAN("\"" REPLACED REPLACED REPLACED "\"")}, /* overlong */
    {SPAN("\xed\xa0\x80"), SPAN("\"" REPLACED REPLACED REPLACED "\"")}, /* surrogate */
    {SPAN("\xf4\x90\x80\x80"), SPAN("\"" REPLACED REPLACED REPLACED REPLACED "\"")},
    {SPAN("\xf0\x9f\x9a"), SPAN("\"" REPLACED REPLACED REPLACED "\"")},
};

static void test_json(void)
{
    for (size_t i = 0; i < COUNT_OF(JSON_ROWS); i++) {
        char text[128];
        struct writer writer = writer_of(text, sizeof(text));
        text_put_json(&writer, JSON_ROWS[i].value);
        CHECK_ROW(i, !writer.is_full);
        CHECK_ROW(i, span_equal(writer_span(&writer), JSON_ROWS[i].want));
    }
}

/* Too small by any number of bytes: nothing is put, and nothing behind the end is touched. */
static void test_json_whole_or_not(void)
{
    for (size_t i = 0; i < COUNT_OF(JSON_ROWS); i++) {
        for (size_t room = 0; room < JSON_ROWS[i].want.size; room++) {
            char text[128];
            memset(text, '.', sizeof(text));
            struct writer writer = writer_of(text, room + 1);
            writer_put_byte(&writer, '>');
            text_put_json(&writer, JSON_ROWS[i].value);
            CHECK_ROW(i, writer.is_full);
            CHECK_ROW(i, writer_size(&writer) == 1);
            CHECK_ROW(i, text[room + 1] == '.');
        }
    }
}

/* A writer that was full before stays so, and takes what fits, like every other put. */
static void test_json_after_full(void)
{
    char text[8];
    struct writer writer = writer_of(text, sizeof(text));
    writer_put(&writer, SPAN("far too long"));
    text_put_json(&writer, SPAN("a"));
    text_put_escaped(&writer, SPAN("b"));
    CU_ASSERT(writer.is_full);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("\"a\"b")));
}

/* The slow and obvious way, to hold the fast one against. */
static void json_put_slowly(struct writer *writer, struct span value)
{
    writer_put_byte(writer, '"');
    for (size_t i = 0; i < value.size; i++) {
        unsigned char byte = (unsigned char)value.at[i];
        if (byte == '"' || byte == '\\') {
            writer_put_format(writer, "\\%c", byte);
        } else if (byte < 0x20) {
            writer_put_format(writer, "\\u%04x", byte);
        } else {
            writer_put_byte(writer, (char)byte);
        }
    }
    writer_put_byte(writer, '"');
}

/* Every byte that has no short form, at every offset against the words of eight. */
static void test_json_at_every_offset(void)
{
    static const char specials[] = "\"\\\x01\x1f\x20\x21\x23\x5b\x5d\x7e\x7f";
    for (size_t i = 0; i < sizeof(specials) - 1; i++) {
        for (size_t size = 1; size <= 20; size++) {
            for (size_t at = 0; at < size; at++) {
                char value[20];
                char got[64];
                char want[64];
                memset(value, 'a', size);
                value[at] = specials[i];
                struct writer fast = writer_of(got, sizeof(got));
                struct writer slow = writer_of(want, sizeof(want));
                text_put_json(&fast, span_of(value, size));
                json_put_slowly(&slow, span_of(value, size));
                CHECK_ROW(i, span_equal(writer_span(&fast), writer_span(&slow)));
            }
        }
    }
}

/* Whatever comes in, what goes out is UTF-8 without control characters between two quotes. */
static void test_json_random_bytes(void)
{
    struct random random;
    random_init_seed(&random, 4);
    for (size_t i = 0; i < 2000; i++) {
        char value[40];
        char text[6 * sizeof(value) + 2];
        size_t size = random_below(&random, sizeof(value) + 1);
        for (size_t k = 0; k < size; k++) {
            value[k] = (char)random_u32(&random);
        }
        struct writer writer = writer_of(text, sizeof(text));
        text_put_json(&writer, span_of(value, size));
        struct span out = writer_span(&writer);
        CHECK_ROW(i, !writer.is_full);
        CHECK_ROW(i, text_is_utf8(out));
        CHECK_ROW(i, out.size >= 2 && out.at[0] == '"' && out.at[out.size - 1] == '"');
        for (size_t k = 0; k < out.size; k++) {
            CU_ASSERT_FATAL((unsigned char)out.at[k] >= 0x20);
        }
    }
}

static void test_escaped(void)
{
    char text[64];
    struct writer writer = writer_of(text, sizeof(text));
    text_put_escaped(&writer, SPAN("250 ok\r\n\\\xff\x7f~"));
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("250 ok\\x0d\\x0a\\x5c\\xff\\x7f~")));
    writer = writer_of(text, 5);
    text_put_escaped(&writer, SPAN("ab\n"));
    CU_ASSERT(writer.is_full);
    CU_ASSERT_EQUAL(writer_size(&writer), 0);
}

static const struct {
    int64_t ns;
    struct span rfc3339;
    struct span rfc5322;
} TIME_ROWS[] = {
    {0, SPAN("1970-01-01T00:00:00.000Z"), SPAN("Thu, 01 Jan 1970 00:00:00 +0000")},
    {1796112000 * NS_PER_S + 123 * NS_PER_MS, SPAN("2026-12-01T08:00:00.123Z"),
     SPAN("Tue, 01 Dec 2026 08:00:00 +0000")},
    {951782399 * NS_PER_S, SPAN("2000-02-28T23:59:59.000Z"),
     SPAN("Mon, 28 Feb 2000 23:59:59 +0000")},
    {951782400 * NS_PER_S, SPAN("2000-02-29T00:00:00.000Z"),
     SPAN("Tue, 29 Feb 2000 00:00:00 +0000")},
    {951868800 * NS_PER_S, SPAN("2000-03-01T00:00:00.000Z"),
     SPAN("Wed, 01 Mar 2000 00:00:00 +0000")},
    {4107542400 * NS_PER_S, SPAN("2100-03-01T00:00:00.000Z"),
     SPAN("Mon, 01 Mar 2100 00:00:00 +0000")},
    {-1 * NS_PER_MS, SPAN("1969-12-31T23:59:59.999Z"), SPAN("Wed, 31 Dec 1969 23:59:59 +0000")},
    {INT64_MAX / NS_PER_MS * NS_PER_MS, SPAN("2262-04-11T23:47:16.854Z"),
     SPAN("Fri, 11 Apr 2262 23:47:16 +0000")},
};

static void test_times(void)
{
    for (size_t i = 0; i < COUNT_OF(TIME_ROWS); i++) {
        char text[64];
        struct wall_time at = {.ns = TIME_ROWS[i].ns};
        struct writer writer = writer_of(text, sizeof(text));
        text_put_rfc3339(&writer, at);
        CHECK_ROW(i, span_equal(writer_span(&writer), TIME_ROWS[i].rfc3339));
        writer = writer_of(text, sizeof(text));
        text_put_rfc5322(&writer, at);
        CHECK_ROW(i, span_equal(writer_span(&writer), TIME_ROWS[i].rfc5322));
        struct wall_time back = {0};
        if (text_take_rfc3339(TIME_ROWS[i].rfc3339, &back)) {
            CHECK_ROW(i, back.ns == at.ns);
        } else {
            CHECK_ROW(i, at.ns > 9000000000 * NS_PER_S); /* 2262 is not taken */
        }
    }
}

/* Every day of 400 years comes back as itself. */
static void test_calendar_round_trip(void)
{
    for (int64_t day = -100000; day < 100000; day++) {
        char text[32];
        struct writer writer = writer_of(text, sizeof(text));
        struct wall_time at = {.ns = day * 86400 * NS_PER_S};
        struct wall_time back = {0};
        text_put_rfc3339(&writer, at);
        CU_ASSERT_FATAL(text_take_rfc3339(writer_span(&writer), &back));
        CU_ASSERT_FATAL(back.ns == at.ns);
    }
}

static void test_take_rfc3339(void)
{
    static const struct {
        struct span text;
        bool is_taken;
        int64_t ns;
    } rows[] = {
        {SPAN("1970-01-01T00:00:01Z"), true, NS_PER_S},
        {SPAN("1970-01-01t00:00:01z"), true, NS_PER_S},
        {SPAN("1970-01-01T01:00:01+01:00"), true, NS_PER_S},
        {SPAN("1969-12-31T18:30:01-05:30"), true, NS_PER_S},
        {SPAN("1970-01-01T00:00:00.5Z"), true, NS_PER_S / 2},
        {SPAN("1970-01-01T00:00:00.000000001Z"), true, 1},
        {SPAN("1970-01-01T00:00:00.0000000019Z"), true, 1},
        {SPAN("1970-01-01T00:00:60Z"), true, 60 * NS_PER_S},
        {SPAN("1970-01-01T00:00:00-00:00"), true, 0},
        {SPAN("2000-02-29T00:00:00Z"), true, 951782400 * NS_PER_S},
        {SPAN("1900-02-29T00:00:00Z"), false, 0},
        {SPAN("2001-02-29T00:00:00Z"), false, 0},
        {SPAN("2001-04-31T00:00:00Z"), false, 0},
        {SPAN("2001-00-01T00:00:00Z"), false, 0},
        {SPAN("2001-13-01T00:00:00Z"), false, 0},
        {SPAN("2001-01-00T00:00:00Z"), false, 0},
        {SPAN("2001-01-01T24:00:00Z"), false, 0},
        {SPAN("2001-01-01T00:60:00Z"), false, 0},
        {SPAN("2001-01-01T00:00:61Z"), false, 0},
        {SPAN("2001-01-01T00:00:00.Z"), false, 0},
        {SPAN("2001-01-01T00:00:00"), false, 0},
        {SPAN("2001-01-01T00:00:00Z "), false, 0},
        {SPAN("2001-01-01 00:00:00Z"), false, 0},
        {SPAN("2001-01-01T00:00:00+24:00"), false, 0},
        {SPAN("2001-01-01T00:00:00+0100"), false, 0},
        {SPAN("+001-01-01T00:00:00Z"), false, 0},
        {SPAN("1500-01-01T00:00:00Z"), false, 0},
        {SPAN("9999-01-01T00:00:00Z"), false, 0},
        {SPAN(""), false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct wall_time at = {.ns = 0};
        CHECK_ROW(i, text_take_rfc3339(rows[i].text, &at) == rows[i].is_taken);
        CHECK_ROW(i, at.ns == rows[i].ns);
    }
}

/* No prefix of a date is a date, except the fraction that may end after any digit before the Z. */
static void test_take_rfc3339_dribble(void)
{
    struct span text = SPAN("2026-12-01T08:00:00.123+01:00");
    for (size_t size = 0; size < text.size; size++) {
        struct wall_time at;
        CHECK_ROW(size, !text_take_rfc3339(span_of(text.at, size), &at));
    }
}

static void test_hex64(void)
{
    char text[40];
    struct writer writer = writer_of(text, sizeof(text));
    text_put_hex64(&writer, UINT64_C(0x0123456789abcdef));
    text_put_hex64(&writer, 0);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("0123456789abcdef0000000000000000")));
}

static void test_character_sets(void)
{
    CU_ASSERT(text_is_utf8(SPAN("")));
    CU_ASSERT(text_is_utf8(SPAN("ab\xc3\xbc\xe2\x82\xac\xf0\x9f\x9a\x80")));
    CU_ASSERT(text_is_utf8(SPAN("\xef\xbf\xbf\xf4\x8f\xbf\xbf")));
    CU_ASSERT(!text_is_utf8(SPAN("ab\xc3")));
    CU_ASSERT(!text_is_utf8(SPAN("\xc1\xbf")));
    CU_ASSERT(!text_is_utf8(SPAN("\xed\xbf\xbf")));
    CU_ASSERT(!text_is_utf8(SPAN("\xf5\x80\x80\x80")));
    CU_ASSERT(text_is_ascii(SPAN("")));
    CU_ASSERT(text_is_ascii(SPAN("a\0\x7f")));
    CU_ASSERT(!text_is_ascii(SPAN("ab\x80")));
}

SUITE(text, test_json, test_json_whole_or_not, test_json_after_full, test_json_at_every_offset,
      test_json_random_bytes, test_escaped, test_times, test_calendar_round_trip, test_take_rfc3339,
      test_take_rfc3339_dribble, test_hex64, test_character_sets)
