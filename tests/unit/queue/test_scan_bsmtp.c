/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan.h"

#include "engine/base/random.h"
#include "engine/base/text.h"
#include "tests/unit/queue/scan_check.h"

static struct scan_message message;
static struct scan_problem problem;

/* sender>rcpt,rcpt|size|flags|body, or +line: the problem's text. */
static const char *shown(struct span record)
{
    static char text[4096];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    char *exact = malloc(record.size > 0 ? record.size : 1);
    memcpy(exact, record.at, record.size);
    if (scan_record_message(span_of(exact, record.size), NULL, &message, &problem) != 0) {
        writer_put_format(&writer, "+%llu: %s", (unsigned long long)problem.line_offset,
                          problem.text);
    } else {
        writer_put(&writer, message.sender);
        for (uint32_t i = 0; i < message.rcpts_count; i++) {
            writer_put_byte(&writer, i == 0 ? '>' : ',');
            writer_put(&writer, message.rcpts[i]);
        }
        writer_put_format(&writer, "|%llu|%s%s|", (unsigned long long)message.size,
                          message.is_lf ? "lf" : "crlf", message.is_8bit ? " 8bit" : "");
        writer_put(&writer, message.body);
    }
    *writer.at = '\0';
    free(exact);
    return text;
}

#define ENVELOPE "MAIL FROM:<s@x>\nRCPT TO:<a@b>\nDATA\n"
#define ENVELOPE_CRLF "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nDATA\r\n"

static const struct {
    const char *record, *want;
} GOOD[] = {
    {ENVELOPE "hi\n.\n", "s@x>a@b|4|lf|hi\n"},
    {ENVELOPE_CRLF "hi\r\n.\r\n", "s@x>a@b|4|crlf|hi\r\n"},
    {ENVELOPE ".\n", "s@x>a@b|0|lf|"},
    {ENVELOPE "\n.\n", "s@x>a@b|2|lf|\n"},
    {"mail from:<>\nrcpt to:<a@b>\nrcpt to:<c@d>\ndata\nx\n.\n", ">a@b,c@d|3|lf|x\n"},
    {"MAIL FROM: <s@x> SIZE=123 BODY=8BITMIME\nRCPT  TO: <a@b>\nDATA\nx\n.\n", "s@x>a@b|3|lf|x\n"},
    {"MAIL FROM:<s@x> body=7bit size=0 \nRCPT TO:<a@b>\nDATA\nx\n.\n", "s@x>a@b|3|lf|x\n"},
    {"MAIL FROM:<\"a>b \\\" c\"@x>\nRCPT TO:<@r,@q:\"\\\\\"@b>\nDATA\nx\n.\n",
     "\"a>b \\\" c\"@x>@r,@q:\"\\\\\"@b|3|lf|x\n"},
    {ENVELOPE "..\n..a\n...\n.\n", "s@x>a@b|11|lf|..\n..a\n...\n"},
    {ENVELOPE "\xc3\xa9\n.\n", "s@x>a@b|4|lf 8bit|\xc3\xa9\n"},
    {ENVELOPE "MAIL FROM:<t@x>\nRCPT TO:<e@f>\nDATA\n.\n",
     "s@x>a@b|38|lf|MAIL FROM:<t@x>\nRCPT TO:<e@f>\nDATA\n"},
};

/* conformance.md 4: bare CR, bare LF, NUL, lone dots in each mixture; the envelope; the bounds. */
static const struct {
    const char *record;
    size_t size; /* 0: up to the NUL */
    const char *want;
} BAD[] = {
    {"", 0, "+0: the line has no end"},
    {"MAIL FROM:<s@x>", 0, "+0: the line has no end"},
    {"RCPT TO:<a@b>\nDATA\n.\n", 0, "+0: out of order: MAIL must come first"},
    {"DATA\nx\n.\n", 0, "+0: out of order: MAIL must come first"},
    {"MAIL FROM:<s@x>\nDATA\nx\n.\n", 0, "+1: no RCPT"},
    {"MAIL FROM:<s@x>\n\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+1: out of order: only RCPT"},
    {"MAIL FROM:<s@x>\nNOOP\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+1: out of order: only RCPT"},
    {"MAIL FROM:<s@x>\nRCPT TO:<>\nDATA\n.\n", 0, "+1: <> is no recipient"},
    {"MAIL FROM:s@x\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: no address between"},
    {"MAIL FROM:<s@x\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: no address between"},
    {"MAIL FROM:<\"s@x>\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: no address between"},
    {"MAIL TO:<s@x>\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: write MAIL FROM:"},
    {"MAIL FROM:<s@x>\nRCPT FROM:<a@b>\nDATA\n.\n", 0, "+1: write MAIL FROM:"},
    {"MAIL FROM:<s@x>SIZE=1\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: no blank between >"},
    {"MAIL FROM:<s@x> SIZE=x\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: the parameter \"SIZE=x\""},
    {"MAIL FROM:<s@x> BODY=BINARYMIME\nRCPT TO:<a@b>\nDATA\n.\n", 0,
     "+0: the parameter \"BODY=BINARYMIME\""},
    {"MAIL FROM:<s@x>\nRCPT TO:<a@b> NOTIFY=NEVER\nDATA\n.\n", 0,
     "+1: the parameter \"NOTIFY=NEVER\""},
    {"MAIL FROM:<s@x>\nRCPT TO:<a@b> \x01\nDATA\n.\n", 0, "+1: the parameter \"\\x01\""},
    {"MAIL FROM:<s@x>\nRCPT TO:<a@b>\nDATA now\nx\n.\n", 0, "+2: DATA takes nothing"},
    {"MAIL FROM:<s\r@x>\nRCPT TO:<a@b>\nDATA\n.\n", 0, "+0: a carriage return inside"},
    {"MAIL FROM:<s@x>\nRCPT TO:<a\0@b>\nDATA\n.\n", 38, "+1: a NUL byte"},
    {ENVELOPE "x\0y\n.\n", sizeof(ENVELOPE) + 5, "+3: a NUL byte"},
    {ENVELOPE "a\rb\n.\n", 0, "+3: a carriage return inside"},
    {ENVELOPE_CRLF "a\rb\r\n.\r\n", 0, "+3: a carriage return inside"},
    {ENVELOPE_CRLF "a\r\r\n.\r\n", 0, "+3: a carriage return inside"},
    {ENVELOPE "a\r\n.\n", 0, "+3: ends in CRLF, where the message began with LF"},
    {ENVELOPE_CRLF "a\n.\r\n.\r\n", 0, "+3: ends in LF, where the message began with CRLF"},
    {ENVELOPE_CRLF "a\r\n.\n.\r\n", 0, "+4: ends in LF, where the message began with CRLF"},
    {"MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\nDATA\r\n.\r\n", 0, "+1: ends in LF"},
    {ENVELOPE "a\n.b\n.\n", 0, "+4: begins with one dot"},
    {ENVELOPE "a\n.\nb\n.\n", 0, "+5: text behind the lone dot"},
    {ENVELOPE "a\n", 0, "+4: the line has no end"},
};

static void test_records(void)
{
    for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
        const char *got = shown(span_of_text(GOOD[i].record));
        if (strcmp(got, GOOD[i].want) != 0) {
            printf("row %zu: %s\n", i, got);
            CHECK_ROW(i, false);
        }
    }
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        size_t size = BAD[i].size > 0 ? BAD[i].size : strlen(BAD[i].record);
        const char *got = shown(span_of(BAD[i].record, size));
        if (strncmp(got, BAD[i].want, strlen(BAD[i].want)) != 0) {
            printf("row %zu: %s\n", i, got);
            CHECK_ROW(i, false);
        }
        CHECK_ROW(i, text_is_ascii(span_of_text(problem.text)));
    }
}

static void test_bounds(void)
{
    static char record[SCAN_RCPTS_MAX * 32];
    for (size_t count = SCAN_RCPTS_MAX; count <= SCAN_RCPTS_MAX + 1; count++) {
        struct writer writer = writer_of(record, sizeof(record));
        writer_put(&writer, SPAN("MAIL FROM:<s@x>\n"));
        for (size_t i = 0; i < count; i++) {
            writer_put_format(&writer, "RCPT TO:<u%zu@b>\n", i);
        }
        writer_put(&writer, SPAN("DATA\nx\n.\n"));
        int result = scan_record_message(writer_span(&writer), NULL, &message, &problem);
        CU_ASSERT_EQUAL(result == 0, count == SCAN_RCPTS_MAX);
    }
    /* 998 bytes a line, a doubled dot not counted; 1024 bytes a path. */
    static const char *const starts[] = {"", ".."};
    for (size_t i = 0; i < 4; i++) {
        struct writer writer = writer_of(record, sizeof(record));
        writer_put(&writer, SPAN(ENVELOPE));
        writer_put(&writer, span_of_text(starts[i / 2]));
        size_t size = 998 - i / 2 + i % 2;
        memset(writer.at, 'x', size);
        writer.at += size;
        writer_put(&writer, SPAN("\n.\n"));
        CHECK_ROW(i, (scan_record_message(writer_span(&writer), NULL, &message, &problem) == 0) ==
                         (i % 2 == 0));
    }
    for (size_t size = SCAN_PATH_MAX; size <= SCAN_PATH_MAX + 1; size++) {
        struct writer writer = writer_of(record, sizeof(record));
        writer_put(&writer, SPAN("MAIL FROM:<"));
        memset(writer.at, 'x', size);
        writer.at += size;
        writer_put(&writer, SPAN(">\nRCPT TO:<a@b>\nDATA\n.\n"));
        CU_ASSERT_EQUAL(scan_record_message(writer_span(&writer), NULL, &message, &problem) == 0,
                        size == SCAN_PATH_MAX);
    }
}

#define LOST                                                                                       \
    "not an SMTP command: is a dot at the start of a line in the text above not doubled, or DATA " \
    "missing?\n"
#define CUT "the file is cut off: the last message does not end in a line with one dot\n"

static const struct {
    const char *stream, *want;
} STREAMS[] = {
    {"", "end line 0 at 0 size 0\n"},
    {"HELO x\n\nrset\nNOOP\r\nquit", "end line 0 at 23 size 0\n"},
    {"EHLO x\n" ENVELOPE "x\n.\n" ENVELOPE "y\n.\nQUIT\nHELO\n" ENVELOPE_CRLF "z\r\n.\r\n",
     "record line 2 at 7 size 39\nrecord line 7 at 46 size 39\nrecord line 14 at 95 size 44\n"
     "end line 0 at 139 size 0\n"},
    {ENVELOPE "x\n", "fatal line 1+4 at 0 size 0: " CUT},
    {ENVELOPE "x\n.", "fatal line 1+4 at 0 size 0: " CUT},
    {"MAIL FROM:<s@x>\n", "fatal line 1+1 at 0 size 0: " CUT},
    {"\nMAIL", "fatal line 2+0 at 0 size 0: the last line has no end: the file is cut off\n"},
    {"From: x\n", "fatal line 1+0 at 0 size 0: " LOST},
    {"MAILBOX\n", "fatal line 1+0 at 0 size 0: " LOST},
    {".\n", "fatal line 1+0 at 0 size 0: " LOST},
    {"MAIL FROM:<s@x>\nRCPT TO:<a@b>\nSubject: x\n", "fatal line 1+2 at 0 size 0: " LOST},
    {ENVELOPE "x\n.\nmore\n.\n", "record line 1 at 0 size 39\nfatal line 6+0 at 0 size 0: " LOST},
    /* What begins out of order is left to the record's reader. */
    {"RCPT TO:<a@b>\nDATA\nx\n.\nDATA\n.\nQUIT\n",
     "record line 1 at 0 size 23\nrecord line 5 at 23 size 7\nend line 0 at 35 size 0\n"},
    {"MAIL FROM:<s@x>\nRSET\nMAIL FROM:<t@x>\n.\n",
     "bad line 1+1 at 0 size 16: a message without DATA\n"
     "bad line 3+1 at 21 size 18: a message without DATA\nend line 0 at 39 size 0\n"},
    {"MAIL FROM:<s@x>\n" ENVELOPE "x\n.\n",
     "bad line 1+1 at 0 size 16: a message without DATA\nrecord line 2 at 16 size 39\n"
     "end line 0 at 55 size 0\n"},
    /* A lone dot of another form does not end a message. */
    {ENVELOPE_CRLF "a\n.\r\nMAIL FROM:<e@x>\r\n.\r\n",
     "record line 1 at 0 size 63\nend line 0 at 63 size 0\n"},
    {ENVELOPE_CRLF "a\r\n.\nMAIL FROM:<e@x>\r\n.\r\n",
     "record line 1 at 0 size 63\nend line 0 at 63 size 0\n"},
    {ENVELOPE "a\n.\r\nMAIL FROM:<e@x>\n.\n",
     "record line 1 at 0 size 58\nend line 0 at 58 size 0\n"},
    /* 64 bytes at most: cut at a line, the rest is skipped through its lone dot. */
    {ENVELOPE "0123456789\n0123456789\n0123456789\n0123456789\n.\n" ENVELOPE "y\n.\n",
     "bad line 1+0 at 0 size 57: longer than 64 bytes\nrecord line 9 at 81 size 39\n"
     "end line 0 at 120 size 0\n"},
    {ENVELOPE "0123456789012345678901234567890123456789012345678901234567890123456789\n.\nQUIT\n",
     "bad line 1+0 at 0 size 35: longer than 64 bytes\nend line 0 at 113 size 0\n"},
    {ENVELOPE_CRLF "012345678901234567890123456789012345678901234567890123456789\r.\r\n.\r\n..\r\n",
     "bad line 1+0 at 0 size 38: longer than 64 bytes\n"
     "fatal line 6+0 at 0 size 0: " LOST},
    {"MAIL 012345678901234567890123456789012345678901234567890123456789\n",
     "fatal line 1+0 at 0 size 0: a command line without end: is this a BSMTP file?\n"},
};

static void test_streams(void)
{
    static struct told told;
    for (size_t i = 0; i < COUNT_OF(STREAMS); i++) {
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_BSMTP, 64);
        struct span stream = span_of_text(STREAMS[i].stream);
        split_all(&splitter, stream, stream.size, 1, &told);
        if (strcmp(told.text, STREAMS[i].want) != 0) {
            printf("row %zu:\n%s", i, told.text);
            CHECK_ROW(i, false);
        }
        check_dribble(i, SCAN_BSMTP, 64, stream);
        check_dribble(i, SCAN_BSMTP, 1u << 20, stream);
    }
}

/* Whatever the lines: every window gives the same answers, and a record that reads well is one
 * whole record when it is split by itself: no lone dot inside, nothing behind. */
/* The same answer with the splitter's measure and without. */
static bool record_is_good(uint32_t round, struct span record, const struct scan_text *measured)
{
    struct scan_problem problems[2];
    int result = scan_record_message(record, measured, &message, &problems[0]);
    CHECK_ROW(round, scan_record_message(record, NULL, &message, &problems[1]) == result);
    CHECK_ROW(round, result == 0 || strcmp(problems[0].text, problems[1].text) == 0);
    return result == 0;
}

static void test_mutated_streams(void)
{
    static const char *const lines[] = {
        "MAIL FROM:<s@x>\n",
        "MAIL FROM:<s@x>\r\n",
        "RCPT TO:<a@b>\n",
        "RCPT TO:<a@b>\r\n",
        "DATA\n",
        "DATA\r\n",
        "text\n",
        "text\r\n",
        ".\n",
        ".\r\n",
        "..\n",
        "\r",
        "\n",
        "QUIT\n",
        ENVELOPE,
        ENVELOPE_CRLF,
        ENVELOPE "x\n.\n",
        "\r\n.\r\n",
        "\n.\n",
    };
    static struct told told;
    struct random random;
    random_init_seed(&random, 2442);
    uint32_t good_count = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        char stream[1024];
        struct writer writer = writer_of(stream, sizeof(stream));
        for (uint32_t count = random_below(&random, 12); count > 0; count--) {
            writer_put(&writer, span_of_text(lines[random_below(&random, COUNT_OF(lines))]));
        }
        struct span whole = writer_span(&writer);
        if (whole.size > 0 && random_below(&random, 3) == 0) {
            stream[random_below(&random, (uint32_t)whole.size)] =
                "\r\n.x\0"[random_below(&random, 5)];
        }
        check_dribble(round, SCAN_BSMTP, 40 + random_below(&random, 60), whole);
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_BSMTP, sizeof(stream));
        for (size_t at = 0;;) {
            size_t skip;
            size_t size;
            uint64_t line;
            enum scan_split split =
                scan_split_next(&splitter, span_of(stream + at, whole.size - at), true, &skip,
                                &size, &line, &problem);
            if (split != SCAN_SPLIT_RECORD && split != SCAN_SPLIT_BAD) {
                break;
            }
            struct span record = span_of(stream + at + skip, size);
            at += skip + size;
            if (!record_is_good(round, record, &splitter.text)) {
                continue;
            }
            good_count++;
            CHECK_ROW(round, split == SCAN_SPLIT_RECORD);
            struct scan_splitter again;
            scan_splitter_init(&again, SCAN_BSMTP, sizeof(stream));
            split_all(&again, record, record.size, 1, &told);
            CHECK_ROW(round, told.answers_count == 2 && told.last == SCAN_SPLIT_END);
        }
    }
    CU_ASSERT(good_count > 100);
}

SUITE(scan_bsmtp, test_records, test_bounds, test_streams, test_mutated_streams)
