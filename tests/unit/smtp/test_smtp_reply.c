/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_reply.h"

#include "engine/base/random.h"
#include "tests/harness.h"

#define BAD 0

/* Each row: bytes, then code (BAD when it is no reply), enhanced code, text. Rows 0.. are legal,
 * then tolerated, then refused. */
static const struct {
    const char *bytes;
    size_t size;
    unsigned code;
    struct smtp_enhanced enhanced;
    const char *text;
} ROWS[] = {
#define ROW(bytes) bytes, sizeof(bytes) - 1
    {ROW("250 ok\r\n"), 250, {0}, "ok"},
    {ROW("250\r\n"), 250, {0}, ""},  /* A4 */
    {ROW("250 \r\n"), 250, {0}, ""}, /* A4 */
    {ROW("250-\r\n250-\r\n250\r\n"), 250, {0}, ""},
    {ROW("250-one\r\n250-two\r\n250 three\r\n"), 250, {0}, "one two three"},
    {ROW("250 2.1.0 Ok\r\n"), 250, {2, 1, 0}, "Ok"},
    {ROW("250 2.1.0\r\n"), 250, {2, 1, 0}, ""},
    {ROW("550 5.7.26 unauthenticated\r\n"), 550, {5, 7, 26}, "unauthenticated"},
    {ROW("421 4.999.999 x\r\n"), 421, {4, 999, 999}, "x"},
    {ROW("599 a\r\n"), 599, {0}, "a"},
    /* G6: believed only when the class is the code's */
    {ROW("550 4.2.1 x\r\n"), 550, {0}, "4.2.1 x"},
    {ROW("250 5.1.1 x\r\n"), 250, {0}, "5.1.1 x"},
    {ROW("354 3.0.0 x\r\n"), 354, {0}, "3.0.0 x"},
    {ROW("550 5.1 x\r\n"), 550, {0}, "5.1 x"},
    {ROW("550 5.1.1.1 x\r\n"), 550, {0}, "5.1.1.1 x"},
    {ROW("550 999.1.1 x\r\n"), 550, {0}, "999.1.1 x"},
    {ROW("550 5.1.1000 x\r\n"), 550, {0}, "5.1.1000 x"},
    {ROW("550 5..1 xx\r\n"), 550, {0}, "5..1 xx"},
    {ROW("550 5.x.1 x\r\n"), 550, {0}, "5.x.1 x"},
    {ROW("550 5.1.x x\r\n"), 550, {0}, "5.1.x x"},
    {ROW("550 5.1.1: x\r\n"), 550, {0}, "5.1.1: x"},
    {ROW("550 5.1.1x\r\n"), 550, {0}, "5.1.1x"},
    /* G7: equal codes go out of every line, different ones stay; the last decides */
    {ROW("550-5.7.1 a\r\n550-5.7.1 b\r\n550 5.7.1 c\r\n"), 550, {5, 7, 1}, "a b c"},
    {ROW("550-5.7.1 a\r\n550 5.1.1 b\r\n"), 550, {5, 1, 1}, "5.7.1 a 5.1.1 b"},
    {ROW("550-5.7.1\r\n550-a\r\n550 5.1.1 b\r\n"), 550, {5, 1, 1}, "5.7.1 a 5.1.1 b"},
    {ROW("550-5.7.1 a\r\n550-5.1.1 b\r\n550 5.2.2 c\r\n"),
     550,
     {5, 2, 2},
     "5.7.1 a 5.1.1 b 5.2.2 c"},
    {ROW("550-5.7.1 a\r\n550 see\r\n"), 550, {5, 7, 1}, "a see"},
    {ROW("550-see\r\n550 5.7.1 a\r\n"), 550, {5, 7, 1}, "see a"},
    /* 3.3 */
    {ROW("250 ok\n"), 250, {0}, "ok"},
    {ROW("250\n"), 250, {0}, ""},
    {ROW("250-a\n250 ok\r\r\n"), 250, {0}, "a ok"},
    {ROW("250 a\rb\0c\x01\x7f\xff\td\r\n"), 250, {0}, "a?b?c??? d"},
    {ROW("250 12345678\x1f"
         "123456789abcdef\x80\r\n"),
     250,
     {0},
     "12345678?123456789abcdef?"},
    {ROW("250 -x\r\n"), 250, {0}, "-x"},
    {ROW("\r\n"), BAD, {0}, ""}, /* C9 */
    {ROW("\n"), BAD, {0}, ""},
    {ROW(" 250 x\r\n"), BAD, {0}, " 250 x"},
    {ROW("850 x\r\n"), BAD, {0}, "850 x"}, /* A6 */
    {ROW("666 x\r\n"), BAD, {0}, "666 x"},
    {ROW("199 x\r\n"), BAD, {0}, "199 x"},
    {ROW("25\r\n"), BAD, {0}, "25"},
    {ROW("2200 x\r\n"), BAD, {0}, "2200 x"},
    {ROW("250=SIZE\r\n"), BAD, {0}, "250=SIZE"},
    {ROW("250\tx\r\n"), BAD, {0}, "250 x"},
    {ROW("2x0 x\r\n"), BAD, {0}, "2x0 x"},
    {ROW("250-a\r\n550 b\r\n"), BAD, {0}, "a 550 b"}, /* A7 */
    {ROW("250-a\r\n251 b\r\n"), BAD, {0}, "a 251 b"},
    {ROW("250-2.0.0 a\r\n\r\n"), BAD, {0}, "a"},
    {ROW("GET / HTTP/1.0\r\n"), BAD, {0}, "GET / HTTP/1.0"},
};

/* Feeds pieces of the row: [0, cut), then [cut, cut + step) ... */
static enum smtp_reply_step feed(struct smtp_reply_parser *parser, struct span bytes, size_t cut,
                                 size_t step)
{
    enum smtp_reply_step result = SMTP_REPLY_MORE;
    size_t at = 0;
    while (at < bytes.size) {
        size_t size = at < cut ? cut - at : step;
        if (size > bytes.size - at) {
            size = bytes.size - at;
        }
        struct span piece = span_of(bytes.at + at, size);
        while (piece.size > 0) {
            ensure(result == SMTP_REPLY_MORE || result == SMTP_REPLY_LINE);
            result = smtp_reply_take(parser, &piece);
        }
        at += size;
    }
    return result;
}

static bool is_row(size_t i, const struct smtp_reply_parser *parser, enum smtp_reply_step step)
{
    const struct smtp_reply *reply = &parser->reply;
    bool is_step = step == (ROWS[i].code == BAD ? SMTP_REPLY_BAD : SMTP_REPLY_DONE);
    return is_step && reply->code == ROWS[i].code &&
           reply->enhanced.class == ROWS[i].enhanced.class &&
           reply->enhanced.subject == ROWS[i].enhanced.subject &&
           reply->enhanced.detail == ROWS[i].enhanced.detail &&
           span_equal(smtp_reply_text(reply), span_of_text(ROWS[i].text));
}

static void test_rows_whole_at_each_cut_and_by_byte(void)
{
    static struct smtp_reply_parser parser;
    smtp_reply_init(&parser);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct span bytes = span_of(ROWS[i].bytes, ROWS[i].size);
        for (size_t cut = 0; cut <= bytes.size; cut++) {
            smtp_reply_init(&parser);
            CHECK_ROW(i, is_row(i, &parser, feed(&parser, bytes, cut, bytes.size)));
        }
        smtp_reply_init(&parser);
        CHECK_ROW(i, is_row(i, &parser, feed(&parser, bytes, 0, 1)));
    }
}

static void test_two_replies_in_one_piece(void)
{
    struct smtp_reply_parser parser;
    smtp_reply_init(&parser);
    struct span bytes = SPAN("250-a\r\n250 b\r\n354 go\r\n55");
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_LINE);
    CU_ASSERT(span_equal(parser.line, SPAN("a")));
    CU_ASSERT_EQUAL(parser.lines_count, 1);
    CU_ASSERT(smtp_reply_is_started(&parser));
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_DONE);
    CU_ASSERT(span_equal(parser.line, SPAN("b")));
    CU_ASSERT_EQUAL(parser.lines_count, 2);
    CU_ASSERT(!smtp_reply_is_started(&parser));
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_DONE);
    CU_ASSERT_EQUAL(parser.reply.code, 354);
    CU_ASSERT_EQUAL(parser.lines_count, 1);
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_MORE);
    CU_ASSERT(smtp_reply_is_started(&parser));
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_MORE);
    smtp_reply_abandon(&parser);
    CU_ASSERT_EQUAL(parser.reply.code, 0);
    CU_ASSERT(span_equal(smtp_reply_text(&parser.reply), SPAN("55")));
    CU_ASSERT(!smtp_reply_is_started(&parser));
    smtp_reply_abandon(&parser);
    CU_ASSERT_EQUAL(parser.reply.text_size, 0);
    bytes = SPAN("550-5.1.1 half\r\n550");
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_LINE);
    CU_ASSERT_EQUAL(smtp_reply_take(&parser, &bytes), SMTP_REPLY_MORE);
    smtp_reply_abandon(&parser);
    CU_ASSERT_EQUAL(parser.reply.code, 0);
    CU_ASSERT_EQUAL(parser.reply.enhanced.class, 0);
    CU_ASSERT(span_equal(smtp_reply_text(&parser.reply), SPAN("half 550")));
}

/* A8: of a long line the start is kept, whole or by the byte; the end of the line still counts. */
static void test_A8_long_line(void)
{
    static char bytes[8192];
    memset(bytes, 'x', sizeof(bytes));
    memcpy(bytes, "550 5.1.1 first", 15);
    memcpy(bytes + sizeof(bytes) - 2, "\r\n", 2);
    for (size_t step = 1; step <= sizeof(bytes); step *= 2) {
        struct smtp_reply_parser parser;
        smtp_reply_init(&parser);
        enum smtp_reply_step result = feed(&parser, span_of(bytes, sizeof(bytes)), 0, step);
        CU_ASSERT_EQUAL(result, SMTP_REPLY_DONE);
        CU_ASSERT_EQUAL(parser.reply.code, 550);
        CU_ASSERT_EQUAL(parser.reply.text_size, SMTP_REPLY_TEXT_MAX);
        CU_ASSERT(span_starts(smtp_reply_text(&parser.reply), SPAN("firstxxx")));
    }
}

/* A9: of many lines the last are kept. */
static void test_A9_many_lines(void)
{
    for (size_t lines = 1; lines < 300; lines++) {
        struct smtp_reply_parser parser;
        smtp_reply_init(&parser);
        char line[64];
        for (size_t i = 0; i < lines; i++) {
            struct writer writer = writer_of(line, sizeof(line));
            writer_put_format(&writer, "250-line %zu\r\n", i * i);
            CU_ASSERT_EQUAL(feed(&parser, writer_span(&writer), 0, 64), SMTP_REPLY_LINE);
        }
        CU_ASSERT_EQUAL(feed(&parser, SPAN("250 last\r\n"), 0, 64), SMTP_REPLY_DONE);
        struct span text = smtp_reply_text(&parser.reply);
        CU_ASSERT(text.size <= SMTP_REPLY_TEXT_MAX);
        CU_ASSERT(text.size >= 5 && memcmp(text.at + text.size - 5, " last", 5) == 0);
        CU_ASSERT(lines < 100 || text.size == SMTP_REPLY_TEXT_MAX);
    }
}

/* The bound is the same however it is cut: 64 KiB are a reply, one byte more is none. */
static void test_A8_bound(void)
{
    static char bytes[SMTP_REPLY_SIZE_MAX + 1];
    static const size_t STEPS[] = {1, 1000, SMTP_REPLY_SIZE_MAX + 1};
    for (size_t i = 0; i < COUNT_OF(STEPS); i++) {
        for (size_t extra = 0; extra < 2; extra++) {
            size_t size = SMTP_REPLY_SIZE_MAX + extra;
            memset(bytes, 'y', size);
            memcpy(bytes, "250 ", 4);
            bytes[size - 1] = '\n';
            struct smtp_reply_parser parser;
            smtp_reply_init(&parser);
            enum smtp_reply_step want = extra == 0 ? SMTP_REPLY_DONE : SMTP_REPLY_BAD;
            CHECK_ROW(i, feed(&parser, span_of(bytes, size), 0, STEPS[i]) == want);
        }
    }
}

/* The plain meaning of the text that is kept of lines without enhanced codes (A9, 3.3). */
static size_t keep_plainly(char *text, size_t size, struct span line)
{
    char piece[SMTP_REPLY_LINE_MAX];
    for (size_t i = 0; i < line.size; i++) {
        char c = line.at[i];
        piece[i] = c >= ' ' && c <= '~' ? c : (c == '\t' ? ' ' : '?');
    }
    if (line.size == 0) {
        return size;
    }
    if (line.size >= SMTP_REPLY_TEXT_MAX) {
        memcpy(text, piece, SMTP_REPLY_TEXT_MAX);
        return SMTP_REPLY_TEXT_MAX;
    }
    while (size > 0 && size + 1 + line.size > SMTP_REPLY_TEXT_MAX) {
        memmove(text, text + 1, --size);
    }
    if (size > 0) {
        text[size++] = ' ';
    }
    memcpy(text + size, piece, line.size);
    return size + line.size;
}

/* A line of printable bytes with a few others among them, no code at its start. */
static struct span random_line(struct random *random, char *room)
{
    static const char OTHERS[] = "\t\r\x01\x1f\x7f\x80\xff\0~ ";
    static const uint32_t SIZES[] = {1, 4, 33, 100, 399, 400, 401, SMTP_REPLY_LINE_MAX - 4};
    size_t size = random_below(random, SIZES[random_below(random, COUNT_OF(SIZES))] + 1);
    for (size_t i = 0; i < size; i++) {
        room[i] = (char)('!' + random_below(random, '~' - '!' + 1));
    }
    for (unsigned i = 0; size > 0 && i < random_below(random, 4); i++) {
        room[random_below(random, (uint32_t)size)] = OTHERS[random_below(random, 10)];
    }
    if (size > 0) {
        room[0] = 'x';
        room[size - 1] = 'y'; /* CRs at the end are the line's end */
    }
    return span_of(room, size);
}

static void test_A9_random_texts_against_the_plain_meaning(void)
{
    static char bytes[16 * SMTP_REPLY_LINE_MAX];
    struct random random;
    random_init_seed(&random, 9);
    for (unsigned round = 0; round < 5000; round++) {
        char want[SMTP_REPLY_TEXT_MAX];
        size_t want_size = 0;
        struct writer writer = writer_of(bytes, sizeof(bytes));
        for (unsigned left = random_below(&random, 8) + 1; left > 0; left--) {
            char room[SMTP_REPLY_LINE_MAX];
            struct span line = random_line(&random, room);
            want_size = keep_plainly(want, want_size, line);
            writer_put(&writer, left > 1 ? SPAN("250-") : SPAN("250 "));
            writer_put(&writer, line);
            writer_put(&writer, SPAN("\r\n"));
        }
        ensure(!writer.is_full);
        struct smtp_reply_parser parser;
        smtp_reply_init(&parser);
        size_t step = round % 2 == 0 ? sizeof(bytes) : 1 + random_below(&random, 600);
        CHECK_ROW(round, feed(&parser, writer_span(&writer), 0, step) == SMTP_REPLY_DONE);
        CHECK_ROW(round, span_equal(smtp_reply_text(&parser.reply), span_of(want, want_size)));
    }
}

SUITE(smtp_reply, test_rows_whole_at_each_cut_and_by_byte, test_two_replies_in_one_piece,
      test_A8_long_line, test_A9_many_lines, test_A8_bound,
      test_A9_random_texts_against_the_plain_meaning)
