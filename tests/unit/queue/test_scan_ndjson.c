/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan.h"

#include "engine/base/random.h"
#include "engine/base/text.h"
#include "tests/unit/queue/scan_check.h"

static struct scan_parser *parser;
static struct scan_recipient recipient;
static struct scan_problem problem;

static int parse(struct span record)
{
    memset(&recipient, 0x5a, sizeof(recipient));
    problem.text[0] = '\0';
    return scan_record_recipient(parser, SCAN_NDJSON, NULL, record, &recipient, &problem);
}

/* to|id|name=value|name=value, or the problem's text. */
static const char *shown(int result)
{
    static char text[4096];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    if (result != 0) {
        return problem.text;
    }
    writer_put(&writer, recipient.to);
    writer_put_byte(&writer, '|');
    writer_put(&writer, recipient.id);
    for (uint32_t i = 0; i < recipient.vars_count; i++) {
        writer_put_byte(&writer, '|');
        writer_put(&writer, recipient.vars[i].name);
        writer_put_byte(&writer, '=');
        writer_put(&writer, recipient.vars[i].value);
    }
    *writer.at = '\0';
    return text;
}

/* What is accepted, and as what. */
static const struct {
    const char *record, *want;
} GOOD[] = {
    {"{\"to\":\"a@b.c\"}", "a@b.c|"},
    {"{\"to\":\"a@b.c\"}\n", "a@b.c|"},
    {"{\"to\":\"a@b.c\"}\r\n", "a@b.c|"},
    {" { \"to\" : \"a@b.c\" , \"id\" : \"u1\" } ", "a@b.c|u1"},
    {"{\"email\":\"a@b.c\",\"substitutions\":{\"x\":\"1\"}}", "a@b.c||x=1"},
    {"{\"recipient\":\"a@b.c\",\"data\":{\"x\":\"1\"}}", "a@b.c||x=1"},
    {"{\"email\":\"a@b.c\",\"name\":\"Ann\",\"metadata\":{\"k\":[1,{\"to\":2}]}}",
     "a@b.c||name=Ann"},
    {"{\"to\":\"a@b.c\",\"name\":\"Ann\",\"vars\":{\"name\":\"Bea\"}}", "a@b.c||name=Bea"},
    {"{\"vars\":{\"name\":\"Bea\"},\"name\":\"Ann\",\"to\":\"a@b.c\"}", "a@b.c||name=Bea"},
    {"{\"to\":\"a@b.c\",\"name\":null}", "a@b.c||name="},
    {"{\"to\":\"a@b.c\",\"id\":17}", "a@b.c|17"},
    {"{\"to\":\"a@b.c\",\"vars\":null}", "a@b.c|"},
    {"{\"to\":\"a@b.c\",\"vars\":{}}", "a@b.c|"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"a\":1,\"b\":-0.5e+7,\"c\":true,\"d\":false,\"e\":null}}",
     "a@b.c||a=1|b=-0.5e+7|c=true|d=false|e="},
    {"{\"to\":\"a@b.c\",\"vars\":{\"n\":123456789012345678901234567890}}",
     "a@b.c||n=123456789012345678901234567890"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"user\":{\"city\":\"Rom\",\"zip\":{\"a\":1}},\"z\":2}}",
     "a@b.c||user.city=Rom|user.zip.a=1|z=2"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"items\":[{\"sku\":\"x\"},{\"sku\":\"y\"},[7,8]],\"n\":1}}",
     "a@b.c||items.0.sku=x|items.1.sku=y|items.2.0=7|items.2.1=8|n=1"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"e\":[],\"o\":{},\"z\":[[],{},3]}}", "a@b.c||z.2=3"},
    {"{\"to\":\"a\\u0040b.c\",\"vars\":{\"a\\\"b\":\"\\n\\t\\\\\"}}", "a@b.c||a\"b=\n\t\\"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"\\u00e9\":{\"\\u00e8\":\"\\u20ac\"}}}",
     "a@b.c||\xc3\xa9.\xc3\xa8=\xe2\x82\xac"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\ud83d\\ude00\"}}", "a@b.c||x=\xf0\x9f\x98\x80"},
    {"{\"to\":\"j\xc3\xb6rg@b.c\",\"vars\":{\"n\":\"Jos\xc3\xa9\"}}",
     "j\xc3\xb6rg@b.c||n=Jos\xc3\xa9"},
    {"{\"to\":\"\"}", "|"},
    {"{\"to\":\"a@b.c\\r\\nRCPT TO:<x>\"}", "a@b.c\r\nRCPT TO:<x>|"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"{{y}}\",\"longer than eight bytes\":\"12345678\"}}",
     "a@b.c||x={{y}}|longer than eight bytes=12345678"},
};

/* What is refused, and words of the reason. */
static const struct {
    const char *record, *words;
} BAD[] = {
    {"[]", "not an object"},
    {"\"a@b.c\"", "not an object"},
    {"17", "not an object"},
    {"{}", "no address"},
    {"{\"id\":\"u1\"}", "no address"},
    {"{\"to\":17}", "not a text"},
    {"{\"to\":null}", "not a text"},
    {"{\"to\":[\"a@b.c\"]}", "not a text"},
    {"{\"to\":{\"a\":1}}", "not a text"},
    {"{\"to\":\"a@b.c\",\"to\":\"b@b.c\"}", "\"to\" is given twice"},
    {"{\"to\":\"a@b.c\",\"email\":\"b@b.c\"}", "\"email\" is given twice, or under two names"},
    {"{\"to\":\"a@b.c\",\"vars\":{},\"data\":{}}", "\"data\" is given twice"},
    {"{\"to\":\"a@b.c\",\"id\":{}}", "\"id\" is neither"},
    {"{\"to\":\"a@b.c\",\"id\":true}", "\"id\" is neither"},
    {"{\"to\":\"a@b.c\",\"name\":7}", "\"name\" is not a text"},
    {"{\"to\":\"a@b.c\",\"vars\":[1]}", "not an object: write \"vars\""},
    {"{\"to\":\"a@b.c\",\"vars\":\"x\"}", "not an object: write \"vars\""},
    {"{\"to\":\"a@b.c\",\"vras\":{}}", "unknown key \"vras\""},
    {"{\"to\":\"a@b.c\",\"\\n\":{}}", "unknown key \"\\x0a\""},
    {"{\"to\":\"a@b.c\",\"not_before\":\"2026-12-01T08:00:00Z\"}", "unknown key"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":1,\"x\":2}}", "\"x\" is given twice"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x.y\":1,\"x\":{\"y\":2}}}", "\"x.y\" is given twice"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"\":1}}", "empty name"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"a\":[[[[[[[1]]]]]]]}}", "nested deeper"},
    {"{\"to\":\"a@b.c\"}{\"to\":\"b@b.c\"}", "more than one object"},
    {"{\"to\":\"a@b.c\"} 7", "not an object"},
    {"{\"to\":\"a@b.c\"} x", "column"},
    {"{\"to\":\"a@b.c\"}\"", "column 16"}, /* once left its quote open for the next record */
    {"{\"to\":\"a@b.c\"}\"x", "column"},
    {"\"", "column"},
    {"{\"to\":\"a@b.c\",}", "column"},
    {"{\"to\":\"a@b.c\"", "cut off"},
    {"{\"to\":\"a@b.c", "not one JSON object"},
    {"{'to':'a@b.c'}", "column"},
    {"{to:\"a@b.c\"}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":01}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":1.}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":tru}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\t\"}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\q\"}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\u12g4\"}}", "column"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\ud83d\"}}", "stands alone"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\ud83dabc\"}}", "stands alone"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\ude00\\ud83d\"}}", "stands alone"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\ud83d\\u0041\"}}", "stands alone"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\xff\"}}", "UTF-8"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\xc0\xaf\"}}", "UTF-8"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\xed\xa0\x80\"}}", "UTF-8"},
    {"{\"to\":\"a@b.c\",\"vars\":{\"x\":\"12345678\xc3\"}}", "UTF-8"},
    {"{\"to\":\"a\xe9@b.c\"}", "UTF-8"},
    {"to,name", "column 2"},
    {"", "not an object"},
    {" ", "not an object"},
    {"{", "cut off"},
};

static void test_good_records(void)
{
    for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
        const char *got = shown(parse(span_of_text(GOOD[i].record)));
        CHECK_ROW(i, strcmp(got, GOOD[i].want) == 0);
    }
}

/* A bad record leaves nothing behind: the good one after it is read as ever. */
static void test_bad_records(void)
{
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        int result = parse(span_of_text(BAD[i].record));
        CHECK_ROW(i, result != 0);
        CHECK_ROW(i, strstr(problem.text, BAD[i].words) != NULL);
        CHECK_ROW(i, !problem.is_fatal);
        CHECK_ROW(i, strcmp(shown(parse(SPAN("{\"to\":\"a@b.c\"}"))), "a@b.c|") == 0);
    }
}

/* NUL in any form is kept or refused, never a silent end of the address. */
static void test_nul_is_faithful(void)
{
    CU_ASSERT_EQUAL(parse(SPAN("{\"to\":\"a@b.c\\u0000.evil\"}")), 0);
    CU_ASSERT(span_equal(recipient.to, SPAN("a@b.c\0.evil")));
    CU_ASSERT_NOT_EQUAL(parse(SPAN("{\"to\":\"a@b.c\0.evil\"}")), 0);
}

static void test_bounds(void)
{
    static char record[SCAN_LINE_MAX + 1];
    struct writer writer = writer_of(record, sizeof(record));
    for (int count = SCAN_VARS_MAX; count <= SCAN_VARS_MAX + 1; count++) {
        writer = writer_of(record, sizeof(record));
        writer_put(&writer, SPAN("{\"to\":\"a@b.c\",\"vars\":{\"v\":1"));
        for (int i = 1; i < count; i++) {
            writer_put_format(&writer, ",\"v%d\":\"\\u0041\"", i);
        }
        writer_put(&writer, SPAN("}}"));
        CU_ASSERT_EQUAL(parse(writer_span(&writer)) == 0, count <= SCAN_VARS_MAX);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "more than 128 variables"));

    for (size_t size = SCAN_NAME_MAX; size <= SCAN_NAME_MAX + 1; size++) {
        writer = writer_of(record, sizeof(record));
        writer_put(&writer, SPAN("{\"to\":\"a@b.c\",\"vars\":{\""));
        memset(writer.at, 'n', size);
        writer.at += size;
        writer_put(&writer, SPAN("\":1}}"));
        CU_ASSERT_EQUAL(parse(writer_span(&writer)) == 0, size == SCAN_NAME_MAX);
    }
    /* One long value in escapes fills the scratch as far as it goes. */
    memset(record, ' ', sizeof(record));
    const struct span start = SPAN("{\"to\":\"a@b.c\",\"vars\":{\"x\":\"\\u00e9");
    memset(record + start.size, 'v', SCAN_LINE_MAX - start.size);
    memcpy(record, start.at, start.size);
    memcpy(record + SCAN_LINE_MAX - 3, "\"}}", 3);
    CU_ASSERT_EQUAL(parse(span_of(record, SCAN_LINE_MAX)), 0);
    CU_ASSERT_EQUAL(recipient.vars[0].value.size, SCAN_LINE_MAX - 3 - start.size + 2);
    CU_ASSERT_NOT_EQUAL(parse(span_of(record, SCAN_LINE_MAX + 1)), 0);
}

/* 128 nested names of 255 bytes each are the most that the scratch must hold. */
static void test_longest_paths(void)
{
    static char record[SCAN_LINE_MAX];
    struct writer writer = writer_of(record, sizeof(record));
    writer_put(&writer, SPAN("{\"to\":\"a@b.c\",\"vars\":{\""));
    memset(writer.at, 'n', SCAN_NAME_MAX - 4);
    writer.at += SCAN_NAME_MAX - 4;
    writer_put(&writer, SPAN("\":{"));
    for (int i = 100; i < 100 + SCAN_VARS_MAX; i++) {
        writer_put_format(&writer, "%s\"%d\":\"\\n\"", i == 100 ? "" : ",", i);
    }
    writer_put(&writer, SPAN("}}}"));
    CU_ASSERT_EQUAL(parse(writer_span(&writer)), 0);
    CU_ASSERT_EQUAL(recipient.vars_count, SCAN_VARS_MAX);
    CU_ASSERT_EQUAL(recipient.vars[SCAN_VARS_MAX - 1].name.size, SCAN_NAME_MAX);
}

/* Streams, and what the splitter says of them. */
static const struct {
    const char *stream;
    const char *want;
} STREAMS[] = {
    {"", "end line 0 at 0 size 0\n"},
    {"\n\n \t\r\n", "end line 0 at 6 size 0\n"},
    {"a\nbb\n", "record line 1 at 0 size 2\nrecord line 2 at 2 size 3\nend line 0 at 5 size 0\n"},
    {"a\r\n\r\n\nb",
     "record line 1 at 0 size 3\nrecord line 4 at 6 size 1\nend line 0 at 7 size 0\n"},
    {"\xef\xbb\xbf{}\n", "record line 1 at 3 size 3\nend line 0 at 6 size 0\n"},
    {"\xef\xbbx\n", "record line 1 at 0 size 4\nend line 0 at 4 size 0\n"},
    {"0123456789abcdef\n0123456789abcde\nx\n",
     "bad line 1+0 at 0 size 16: longer than 16 bytes\nrecord line 2 at 17 size 16\n"
     "record line 3 at 33 size 2\nend line 0 at 35 size 0\n"},
    {"0123456789abcdef0123456789abcdef",
     "bad line 1+0 at 0 size 16: longer than 16 bytes\nend line 0 at 32 size 0\n"},
    {"0123456789abcdefgh\n\nx",
     "bad line 1+0 at 0 size 16: longer than 16 bytes\nrecord line 3 at 20 size 1\n"
     "end line 0 at 21 size 0\n"},
};

static void test_streams(void)
{
    static struct told told;
    for (size_t i = 0; i < COUNT_OF(STREAMS); i++) {
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_NDJSON, 16);
        struct span stream = span_of_text(STREAMS[i].stream);
        split_all(&splitter, stream, stream.size, 1, &told);
        CHECK_ROW(i, strcmp(told.text, STREAMS[i].want) == 0);
        check_dribble(i, SCAN_NDJSON, 16, stream);
        check_dribble(i, SCAN_NDJSON, SCAN_LINE_MAX, stream);
    }
}

static bool recipients_equal(const struct scan_recipient *a, const struct scan_recipient *b)
{
    if (!span_equal(a->to, b->to) || !span_equal(a->id, b->id) || a->vars_count != b->vars_count) {
        return false;
    }
    for (uint32_t i = 0; i < a->vars_count; i++) {
        if (!span_equal(a->vars[i].name, b->vars[i].name) ||
            !span_equal(a->vars[i].value, b->vars[i].value)) {
            return false;
        }
    }
    return true;
}

/* A record that is often plain, often not: members in random order, odd values, blanks. */
static size_t make_record(struct random *random, char *record, size_t size)
{
    static const char *const members[] = {
        "\"to\":\"user@d1.example\"",
        "\"email\":\"j\xc3\xb6rg@x\"",
        "\"id\":\"u123\"",
        "\"id\" : 5",
        "\"name\":\"Ann Bea\"",
        "\"name\":null",
        "\"metadata\":{}",
        "\"x\":1",
        "\"vars\":{\"name\":\"Ann\",\"code\":\"X1Y2\"}",
        "\"vars\":{\"a\":1,\"b\":tru\\u0065}",
        "\"vars\":{}",
        "\"vars\":null",
        "\"data\":{\"a\":true,\"b\":null,\"c\":-1.5e3}",
        "\"vars\":{\"long name of this\":\"and a longer value here \xe2\x82\xac\"}",
        "\"vars\":{\"a\":{\"b\":1}}",
        "\"vars\":{\"a\":\"\\\"\"}",
        "\"to\":\"t@x\",\"id\":\"\"",
    };
    struct writer writer = writer_of(record, size);
    writer_put_byte(&writer, '{');
    uint32_t count = 1 + random_below(random, 4);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t which = i == 0 ? 0 : random_below(random, COUNT_OF(members));
        writer_put_format(&writer, "%s%s%s", i == 0 ? "" : ",",
                          random_below(random, 4) == 0 ? " " : "", members[which]);
    }
    writer_put(&writer, SPAN("}\n"));
    return writer_size(&writer);
}

/* The fast reader and yajl give the same answer to the same bytes, good or mutated. */
static void test_fast_path_agrees(void)
{
    enum { ROUNDS = 60000 };
    static const char odd_bytes[] = "\"\\{}[]:,tfn0-.eE+ \t\r\x01\x7f\x80\xc3\xff";
    struct random random;
    random_init_seed(&random, 20261122);
    struct scan_parser *slow = scan_parser_create();
    scan_parser_set_fast_path(slow, false);
    static struct scan_recipient want;
    uint32_t good_count = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        char made[1024];
        size_t size = make_record(&random, made, sizeof(made));
        for (uint32_t flips = random_below(&random, 3); flips > 0; flips--) {
            made[random_below(&random, (uint32_t)size)] =
                odd_bytes[random_below(&random, sizeof(odd_bytes))];
        }
        size -= random_below(&random, 8) == 0 ? random_below(&random, (uint32_t)size) : 0;
        char *record = malloc(size); /* exact, for the sanitizer */
        memcpy(record, made, size);
        struct scan_problem slow_problem = {0};
        int want_result = scan_record_recipient(slow, SCAN_NDJSON, NULL, span_of(record, size),
                                                &want, &slow_problem);
        int result = parse(span_of(record, size));
        bool is_same =
            result == want_result && (result != 0 ? strcmp(problem.text, slow_problem.text) == 0
                                                  : recipients_equal(&recipient, &want));
        if (!is_same) {
            printf("round %u: %.*s\n", round, (int)size, record);
        }
        CHECK_ROW(round, is_same);
        CHECK_ROW(round, text_is_ascii(span_of_text(problem.text)));
        good_count += result == 0;
        free(record);
    }
    CU_ASSERT(good_count > ROUNDS / 10);
    CU_ASSERT(good_count < ROUNDS - ROUNDS / 10);
    scan_parser_destroy(slow);
}

/* A record found by the splitter is the same record when it is read again at its offset. */
static void test_split_and_read_again(void)
{
    enum { RECORDS = 20000 };
    char *stream = malloc(RECORDS * 128);
    size_t size = 0;
    for (uint32_t i = 0; i < RECORDS; i++) {
        size += (size_t)snprintf(stream + size, 128, "%s{\"to\":\"u%u@x\",\"vars\":{\"n\":%u}}%s",
                                 i % 7 == 0 ? "\n" : "", i, i, i % 3 == 0 ? "\r\n" : "\n");
    }
    struct scan_splitter splitter;
    scan_splitter_init(&splitter, SCAN_NDJSON, SCAN_LINE_MAX);
    size_t at = 0;
    uint32_t count = 0;
    for (;; count++) {
        size_t skip;
        size_t record_size;
        uint64_t line;
        enum scan_split split = scan_split_next(&splitter, span_of(stream + at, size - at), true,
                                                &skip, &record_size, &line, &problem);
        if (split != SCAN_SPLIT_RECORD) {
            CU_ASSERT_EQUAL(split, SCAN_SPLIT_END);
            break;
        }
        char want[32];
        (void)snprintf(want, sizeof(want), "u%u@x||n=%u", count, count);
        CHECK_ROW(count, line == count + count / 7 + 2);
        CHECK_ROW(count, strcmp(shown(parse(span_of(stream + at + skip, record_size))), want) == 0);
        at += skip + record_size;
    }
    CU_ASSERT_EQUAL(count, RECORDS);
    free(stream);
}

static void test_start(void)
{
    parser = scan_parser_create();
    CU_ASSERT_PTR_NOT_NULL_FATAL(parser);
}

static void test_again_without_fast_path(void)
{
    scan_parser_set_fast_path(parser, false);
    test_good_records();
    test_bad_records();
    test_bounds();
    scan_parser_set_fast_path(parser, true);
}

static void test_stop(void)
{
    scan_parser_destroy(parser);
    scan_parser_destroy(NULL);
}

SUITE(scan_ndjson, test_start, test_good_records, test_bad_records, test_nul_is_faithful,
      test_bounds, test_longest_paths, test_again_without_fast_path, test_streams,
      test_fast_path_agrees, test_split_and_read_again, test_stop)
