/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan.h"

#include "engine/base/random.h"
#include "engine/base/text.h"
#include "tests/unit/queue/scan_check.h"

static struct scan_parser *parser;
static struct scan_recipient recipient;
static struct scan_problem problem;

/* to|id|name=value.., or the problem's text, of a record under a header row. */
static const char *shown(const char *header, struct span record)
{
    static char text[8192];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    struct scan_columns *columns = scan_columns_create(span_of_text(header), &problem);
    if (columns == NULL) {
        return problem.text;
    }
    char *exact = malloc(record.size > 0 ? record.size : 1);
    memcpy(exact, record.at, record.size);
    int result = scan_record_recipient(parser, SCAN_CSV, columns, span_of(exact, record.size),
                                       &recipient, &problem);
    if (result != 0) {
        writer_put(&writer, span_of_text(problem.text));
    } else {
        writer_put(&writer, recipient.to);
        writer_put_byte(&writer, '|');
        writer_put(&writer, recipient.id);
        for (uint32_t i = 0; i < recipient.vars_count; i++) {
            writer_put_byte(&writer, '|');
            writer_put(&writer, recipient.vars[i].name);
            writer_put_byte(&writer, '=');
            writer_put(&writer, recipient.vars[i].value);
        }
    }
    *writer.at = '\0';
    free(exact);
    scan_columns_destroy(columns);
    return text;
}

/* Header row, record, what comes of it (or words of the problem). */
static const struct {
    const char *header, *record, *want;
    bool is_bad;
} RECORDS[] = {
    {"to\n", "a@b.c\n", "a@b.c|", false},
    {"to", "a@b.c", "a@b.c|", false},
    {"email,id,name\r\n", "a@b.c,7,Ann\r\n", "a@b.c|7|name=Ann", false},
    {"Name,ID,Email\n", "Ann,7,a@b.c\n", "a@b.c|7|Name=Ann", false},
    {"to,name\n", "a@b.c,\n", "a@b.c||name=", false},
    {"to,name\n", "\"a@b.c\",\"\"\n", "a@b.c||name=", false},
    {"to,name\n", "a@b.c,\"Ann, Bea\"\n", "a@b.c||name=Ann, Bea", false},
    {"to,name\n", "a@b.c,\"line 1\r\nline 2\nline 3\"\r\n", "a@b.c||name=line 1\r\nline 2\nline 3",
     false},
    {"to,name\n", "a@b.c,\"say \"\"hi\"\"\"\n", "a@b.c||name=say \"hi\"", false},
    {"to,a,b\n", "a@b.c,\"\"\"\",\"\"\"x\"\"\"\n", "a@b.c||a=\"|b=\"x\"", false},
    {"to,name\n", "a@b.c, Ann \n", "a@b.c||name= Ann ", false},
    {"\"to\",\"my \"\"x\"\"\"\n", "a@b.c,1\n", "a@b.c||my \"x\"=1", false},
    {"to,name\n", "a@b.c,Jos\xc3\xa9\n", "a@b.c||name=Jos\xc3\xa9", false},
    {"to,name\n", "a@b.c\n", "1 fields, but the header row has 2", true},
    {"to,name\n", "a@b.c,x,y\n", "3 fields, but the header row has 2", true},
    {"to,name\n", "a@b.c,5\" disk\n", "a quote inside a field", true},
    {"to,name\n", "a@b.c,\"x\"y\n", "between a closing quote", true},
    {"to,name\n", "a@b.c,\"x\" \n", "between a closing quote", true},
    {"to,name\n", "a@b.c,\"x\n", "not closed", true},
    {"to,name\n", "a@b.c,x\ry\n", "carriage return", true},
    {"to,name\n", "a@b.c,\xff\n", "UTF-8", true},
    {"name\n", "x\n", "no column \"to\"", true},
    {"to;name\n", "x\n", "not semicolons", true},
    {"to,email\n", "x\n", "two columns for the address", true},
    {"to,id,ID\n", "x\n", "two columns for the id", true},
    {"to,x,x\n", "x\n", "two columns are named \"x\"", true},
    {"to,,x\n", "x\n", "column 2 has an empty name", true},
    {"to,\xff\n", "x\n", "UTF-8", true},
    {"to,\"x\n", "x\n", "not closed", true},
};

static void test_records(void)
{
    for (size_t i = 0; i < COUNT_OF(RECORDS); i++) {
        const char *got = shown(RECORDS[i].header, span_of_text(RECORDS[i].record));
        bool is_right = RECORDS[i].is_bad ? strstr(got, RECORDS[i].want) != NULL
                                          : strcmp(got, RECORDS[i].want) == 0;
        if (!is_right) {
            printf("row %zu: %s\n", i, got);
        }
        CHECK_ROW(i, is_right);
    }
    /* A NUL is a file in UTF-16, hardly ever a name. */
    CU_ASSERT_PTR_NOT_NULL(strstr(shown("to,name", SPAN("a@b.c,\0x")), "UTF-16"));
}

static void test_bounds(void)
{
    static char header[SCAN_LINE_MAX + 1];
    for (uint32_t count = SCAN_COLUMNS_MAX; count <= SCAN_COLUMNS_MAX + 1; count++) {
        struct writer writer = writer_of(header, sizeof(header));
        writer_put(&writer, SPAN("to"));
        for (uint32_t i = 1; i < count; i++) {
            writer_put_format(&writer, ",v%u", i);
        }
        struct scan_columns *columns = scan_columns_create(writer_span(&writer), &problem);
        CU_ASSERT_EQUAL(columns != NULL, count == SCAN_COLUMNS_MAX);
        scan_columns_destroy(columns);
    }
    memset(header, 'x', sizeof(header));
    CU_ASSERT_PTR_NULL(scan_columns_create(span_of(header, sizeof(header)), &problem));
    scan_columns_destroy(NULL);

    /* A field that is nothing but doubled quotes uses the scratch most. */
    memset(header, '"', SCAN_LINE_MAX);
    struct scan_columns *columns = scan_columns_create(SPAN("to"), &problem);
    CU_ASSERT_EQUAL(scan_record_recipient(parser, SCAN_CSV, columns, span_of(header, SCAN_LINE_MAX),
                                          &recipient, &problem),
                    0);
    CU_ASSERT_EQUAL(recipient.to.size, SCAN_LINE_MAX / 2 - 1);
    CU_ASSERT_NOT_EQUAL(scan_record_recipient(parser, SCAN_CSV, columns,
                                              span_of(header, SCAN_LINE_MAX + 1), &recipient,
                                              &problem),
                        0);
    scan_columns_destroy(columns);
}

static const struct {
    const char *stream, *want;
} STREAMS[] = {
    {"", "end line 0 at 0 size 0\n"},
    {"\r\n \n", "end line 0 at 4 size 0\n"},
    {"a,b\r\n\"x\ny\",z\nq",
     "record line 1 at 0 size 5\nrecord line 2 at 5 size 8\nrecord line 4 at 13 size 1\n"
     "end line 0 at 14 size 0\n"},
    {"\xef\xbb\xbfto\nx\n",
     "record line 1 at 3 size 3\nrecord line 2 at 6 size 2\nend line 0 at 8 size 0\n"},
    {"\"a\"\"\n\",b\nx\n",
     "record line 1 at 0 size 9\nrecord line 3 at 9 size 2\nend line 0 at 11 size 0\n"},
    {"\"a\"x,\"b\nc\n",
     "bad line 1+0 at 0 size 8: something stands between a closing quote and the comma: double "
     "the quotes inside a field\nrecord line 2 at 8 size 2\nend line 0 at 10 size 0\n"},
    {"a,\"b\nc,d\ne,f\n",
     "fatal line 1+0 at 0 size 0: the quote opened on line 1 is not closed where a field ends: "
     "double the quotes inside a field, and close it\n"},
    {"x\na,\"b\nc,d\ne,\"f\"\n",
     "record line 1 at 0 size 2\nfatal line 2+0 at 0 size 0: the quote opened on line 2 is not "
     "closed where a field ends: double the quotes inside a field, and close it\n"},
    {"01234567890123456789012345678901234567890\n\"q\"\n",
     "bad line 1+0 at 0 size 32: longer than 32 bytes\nrecord line 2 at 42 size 4\n"
     "end line 0 at 46 size 0\n"},
    {"\"0123456789\n01234567890123456789\n01234567890\"\n\"q\"\n",
     "bad line 1+0 at 0 size 32: longer than 32 bytes\nrecord line 4 at 46 size 4\n"
     "end line 0 at 50 size 0\n"},
    {"\"0123456789\n01234567890123456789\n01234567890\nx,y\n",
     "bad line 1+0 at 0 size 32: longer than 32 bytes\nfatal line 1+0 at 0 size 0: the quote "
     "opened on line 1 is not closed where a field ends: double the quotes inside a field, and "
     "close it\n"},
};

static void test_streams(void)
{
    static struct told told;
    for (size_t i = 0; i < COUNT_OF(STREAMS); i++) {
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_CSV, 32);
        struct span stream = span_of_text(STREAMS[i].stream);
        split_all(&splitter, stream, stream.size, 1, &told);
        if (strcmp(told.text, STREAMS[i].want) != 0) {
            printf("row %zu:\n%s", i, told.text);
            CHECK_ROW(i, false);
        }
        check_dribble(i, SCAN_CSV, 32, stream);
        check_dribble(i, SCAN_CSV, SCAN_LINE_MAX, stream);
    }
}

/* Whatever the bytes: every window gives the same answers, and a record found is one record when it
 * is split again by itself, with the same reading. */
static void test_mutated_streams(void)
{
    static const char alphabet[] = "aab,,\"\"\n\n\r \xc3\xa9\x01";
    static struct told told;
    struct random random;
    random_init_seed(&random, 4180);
    struct scan_columns *columns = scan_columns_create(SPAN("to,name"), &problem);
    for (uint32_t round = 0; round < 3000; round++) {
        char stream[48];
        uint32_t size = random_below(&random, sizeof(stream));
        for (uint32_t i = 0; i < size; i++) {
            stream[i] = alphabet[random_below(&random, sizeof(alphabet) - 1)];
        }
        check_dribble(round, SCAN_CSV, 12, span_of(stream, size));
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_CSV, SCAN_LINE_MAX);
        size_t at = 0;
        for (;;) {
            size_t skip;
            size_t record_size;
            uint64_t line;
            enum scan_split split = scan_split_next(&splitter, span_of(stream + at, size - at),
                                                    true, &skip, &record_size, &line, &problem);
            if (split != SCAN_SPLIT_RECORD && split != SCAN_SPLIT_BAD) {
                break;
            }
            struct span record = span_of(stream + at + skip, record_size);
            int result =
                scan_record_recipient(parser, SCAN_CSV, columns, record, &recipient, &problem);
            CHECK_ROW(round, split != SCAN_SPLIT_BAD || result != 0);
            CHECK_ROW(round, result == 0 || text_is_ascii(span_of_text(problem.text)));
            scan_splitter_init(&splitter, SCAN_CSV, SCAN_LINE_MAX);
            splitter.is_begun = true;
            split_all(&splitter, record, record_size, 1, &told);
            CHECK_ROW(round, told.answers_count == 2 && told.last == SCAN_SPLIT_END);
            at += skip + record_size;
            scan_splitter_init(&splitter, SCAN_CSV, SCAN_LINE_MAX);
            splitter.is_begun = true;
        }
    }
    scan_columns_destroy(columns);
}

static void test_start(void)
{
    parser = scan_parser_create();
    CU_ASSERT_PTR_NOT_NULL_FATAL(parser);
}

static void test_stop(void)
{
    scan_parser_destroy(parser);
}

SUITE(scan_csv, test_start, test_records, test_bounds, test_streams, test_mutated_streams,
      test_stop)
