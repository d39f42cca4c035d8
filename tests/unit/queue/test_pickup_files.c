/* SPDX-License-Identifier: Apache-2.0 */
/* What a file in pickup/ must be, and the message that becomes of it. */
#include "queue/spool.h"

#include "engine/base/random.h"
#include "tests/unit/queue/pickup_begin.h"

/* A file, and the message it becomes. */
static const struct {
    const char *file, *want;
} GOOD[] = {
    {"x-sender: s@x\r\nx-receiver: a@b\r\nx-receiver: <c@d>\r\nSubject: x\r\nTo: "
     "other@y\r\n\r\nhi\r\n",
     "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\nTo: other@y\r\n"
     "\r\nhi\r\n.\r\n"},
    {"X-Sender:\nX-Receiver: a@b\nSubject: x\n\nhi\n",
     "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n\r\nhi\r\n.\r\n"},
    {"From: Ann <s@x>\nTo: a@b,\n c@d\nCc: e@f, a@b\nBcc: g@h,\n i@j\nSubject: x\n\nhi",
     "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nRCPT TO:<g@h>\r\n"
     "RCPT TO:<i@j>\r\nDATA\r\nFrom: Ann <s@x>\r\nTo: a@b,\r\n c@d\r\nCc: e@f, a@b\r\nSubject: "
     "x\r\n"
     "\r\nhi\r\n.\r\n"},
    {"Return-Path: <r@x>\nSender: t@x\nFrom: s@x\nTo: a@b\n\n",
     "MAIL FROM:<r@x>\r\nRCPT TO:<a@b>\r\nDATA\r\nSender: t@x\r\nFrom: s@x\r\nTo: "
     "a@b\r\n\r\n.\r\n"},
    {"Return-Path: <>\nFrom: s@x\nTo: a@b\n\n",
     "MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nFrom: s@x\r\nTo: a@b\r\n\r\n.\r\n"},
    {"Sender: t@x\nFrom: s@x, u@x\nTo: a@b\n\n",
     "MAIL FROM:<t@x>\r\nRCPT TO:<a@b>\r\nDATA\r\nSender: t@x\r\nFrom: s@x, u@x\r\nTo: a@b\r\n\r\n"
     ".\r\n"},
    {"From: s@x\nTo: a@b\n",
     "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nDATA\r\nFrom: s@x\r\nTo: a@b\r\n.\r\n"},
    {"From: s@x\nTo: a@b\n\n.\n..\n.x\nend.",
     "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nDATA\r\nFrom: s@x\r\nTo: a@b\r\n\r\n..\r\n...\r\n..x\r\n"
     "end.\r\n.\r\n"},
    {"From: s@x\nTo: \"a>b\"@c\n\n",
     "MAIL FROM:<s@x>\r\nRCPT TO:<\"a>b\"@c>\r\nDATA\r\nFrom: s@x\r\nTo: \"a>b\"@c\r\n\r\n.\r\n"},
    {"From: s@x\nTo: a@b\n\nMAIL FROM:<evil@x>\n\x80\n",
     "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nDATA\r\nFrom: s@x\r\nTo: a@b\r\n\r\nMAIL "
     "FROM:<evil@x>\r\n"
     "\x80\r\n.\r\n"},
};

static void test_good_files(void)
{
    for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
        pickup_begin();
        put_text("pickup/x.eml", GOOD[i].file);
        CHECK_ROW(i, collect(NOW) == 0 && collected.files_count == 1);
        if (strcmp(messages(), GOOD[i].want) != 0) {
            printf("row %zu: %s\n%s\n", i, messages(), collected.bad.text);
            CHECK_ROW(i, false);
        }
        /* What was made is what the scan takes. */
        static struct scan_message message;
        struct scan_problem scan_problem;
        CHECK_ROW(i, scan_record_message(span_of_text(messages()), NULL, &message, &scan_problem) ==
                         0);
        end();
    }
}

static const struct {
    const char *file;
    size_t size; /* 0: up to the NUL */
    const char *words;
} BAD[] = {
    {"", 0, "the file is empty"},
    {"x", 0, "x: not a header field"},
    {"\n", 0, "no sender"},
    {"\nbody only\n", 0, "no sender"},
    {"Subject: x\n\nhi\n", 0, "no sender"},
    {"From: s@x\n\nhi\n", 0, "no recipient"},
    {"From: s@x\nTo: undisclosed-recipients:;\n\nhi\n", 0, "no recipient"},
    {"From: s@x\nTo: Ann\n\nhi\n", 0, "To: not a list of addresses"},
    {"From: s@x\nTo: a@b, <>\n\nhi\n", 0, "To: not a list of addresses"},
    {"From: Ann\nTo: a@b\n\nhi\n", 0, "the sender cannot be read"},
    {"From: <>\nTo: a@b\n\nhi\n", 0, "the sender cannot be read"},
    {"From: s@x\nFrom: t@x\nTo: a@b\n\nhi\n", 0, "two from fields"},
    {"x-sender: s@x\nx-sender: t@x\nx-receiver: a@b\n\nhi\n", 0, "two x-sender fields"},
    {"From ann Mon Dec  1\nFrom: s@x\nTo: a@b\n\nhi\n", 0, "From ann Mon Dec  1: not a header"},
    {"From: s@x\n: empty\nTo: a@b\n\nhi\n", 0, ": empty: not a header field"},
    {" From: s@x\nTo: a@b\n\nhi\n", 0, "not a header field"},
    {"From: s@x\nTo: a@b\nno header line\n\nhi\n", 0, "no header line: not a header field"},
    {"From: s@x\nTo: a@b\n\na\0b\n", 24, "line 4: a NUL byte"},
    {"From: s@x\nTo: a@b\n\na\rb\n", 0, "line 4: a carriage return inside"},
    {"From: s@x\nTo: a@b\n\na\r\n", 0, "line 4: line ends are mixed"},
    {"From: s@x\r\nTo: a@b\r\n\r\na\n", 0, "line 4: line ends are mixed"},
    {"From: s@x\r\nTo: a@b\r\n\r\na\r", 0, "line 4: a carriage return inside"},
    {"From: s@x\r\nTo: a@b\r\n\r\na\n.\r\nb\r\n", 0, "line 4: line ends are mixed"},
};

static void test_bad_files(void)
{
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        pickup_begin();
        put_file("pickup/x.eml",
                 span_of(BAD[i].file, BAD[i].size > 0 ? BAD[i].size : strlen(BAD[i].file)));
        CHECK_ROW(i, collect(NOW) == 0);
        CHECK_ROW(i, collected.files_count == 0 && collected.bad_count == 1);
        bool is_told = strstr(collected.bad.text, BAD[i].words) != NULL &&
                       strstr(text_of("badmail/x.eml.bad.reason"), BAD[i].words) != NULL;
        if (!is_told) {
            printf("row %zu: %s\n", i, collected.bad.text);
        }
        CHECK_ROW(i, is_told);
        CHECK_ROW(i, exists("badmail/x.eml.bad") && !exists("pickup/x.eml"));
        CHECK_ROW(i, names_count("active") == 0 && names_count("in/tmp") == 0);
        end();
    }
}

/* Who may write into pickup/ may submit, whoever the directory belongs to. */
static void test_owner(void)
{
    if (geteuid() != 0) {
        return; /* nobody else can give a file away */
    }
    pickup_begin();
    put_text("pickup/other.eml", "x-sender: a@b\nx-receiver: c@d\nSubject: x\n\nhi\n");
    CU_ASSERT_EQUAL_FATAL(chown(at("pickup/other.eml"), 65003, 65003), 0);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_EQUAL(collected.bad_count, 0);
    end();
}

/* The long ones: a line, a header, a list, a file. */
static void test_bounds(void)
{
    static char text[1u << 21];
    pickup_begin();
    struct writer writer = writer_of(text, sizeof(text));
    writer_put(&writer, SPAN("From: s@x\nTo: a@b\n\n"));
    memset(writer.at, 'x', 999);
    writer.at += 999;
    put_file("pickup/line.eml", writer_span(&writer));
    writer = writer_of(text, sizeof(text));
    writer_put(&writer, SPAN("From: s@x\nTo: a@b\n"));
    while (writer_size(&writer) <= 256 * 1024) {
        writer_put(&writer, SPAN("X: y\n"));
    }
    put_file("pickup/header.eml", writer_span(&writer));
    for (int count = 1000; count <= 1001; count++) {
        writer = writer_of(text, sizeof(text));
        writer_put(&writer, SPAN("From: s@x\n"));
        for (int i = 0; i < count; i++) {
            writer_put_format(&writer, "x-receiver: u%d@b\n", i);
        }
        put_file(count == 1000 ? "pickup/ok.eml" : "pickup/list.eml", writer_span(&writer));
    }
    memset(text, '\n', sizeof(text));
    put_file("pickup/large.eml", span_of(text, sizeof(text)));
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_EQUAL(collected.bad_count, 4);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/line.eml.bad.reason"), "longer than 998"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/header.eml.bad.reason"), "a header of more"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/list.eml.bad.reason"), "more than 1000 rec"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/large.eml.bad.reason"), "at most 1048576"));
    end();
}

/* Good files with bytes changed: what is taken is a stream of whole messages, one a file, in which
 * no line tells who else got it; the rest is refused. */
static void test_mutated_files(void)
{
    enum { FILES = 300, ROUNDS = 10 };
    static const char bytes[] = "\r\n.:<>@,; \t\"(x\0\xff";
    static struct scan_message message;
    struct random random;
    random_init_seed(&random, 822);
    uint32_t taken = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pickup_begin();
        for (int i = 0; i < FILES; i++) {
            char path[32];
            char file[512];
            const char *good = GOOD[random_below(&random, COUNT_OF(GOOD))].file;
            size_t size = strlen(good);
            memcpy(file, good, size);
            for (uint32_t flips = random_below(&random, 3); flips > 0; flips--) {
                file[random_below(&random, (uint32_t)size)] =
                    bytes[random_below(&random, sizeof(bytes) - 1)];
            }
            (void)snprintf(path, sizeof(path), "pickup/%d.eml", i);
            put_file(path, span_of(file, size));
        }
        CU_ASSERT_EQUAL(look(NOW, FILES), 0);
        CU_ASSERT_EQUAL(look(NOW + 2, FILES), 0);
        CU_ASSERT_EQUAL(collected.files_count + collected.bad_count, FILES);
        struct span stream = span_of_text(messages());
        struct scan_splitter splitter;
        scan_splitter_init(&splitter, SCAN_BSMTP, 1u << 20);
        uint32_t records = 0;
        for (size_t at = 0;; records++) {
            struct scan_problem scan_problem;
            size_t skip;
            size_t size;
            uint64_t line;
            enum scan_split split =
                scan_split_next(&splitter, span_of(stream.at + at, stream.size - at), true, &skip,
                                &size, &line, &scan_problem);
            if (split != SCAN_SPLIT_RECORD) {
                CHECK_ROW(records, split == SCAN_SPLIT_END);
                break;
            }
            struct span record = span_of(stream.at + at + skip, size);
            at += skip + size;
            CHECK_ROW(records, scan_record_message(record, NULL, &message, &scan_problem) == 0);
            CHECK_ROW(records, !span_starts_nocase(message.body, SPAN("x-receiver:")));
        }
        CU_ASSERT_EQUAL(records, collected.files_count);
        taken += records;
        end();
    }
    CU_ASSERT(taken > FILES * ROUNDS / 4);
    CU_ASSERT(taken < FILES * ROUNDS);
}

static void test_names_and_kinds(void)
{
    pickup_begin();
    put_text("outside", MAIL);
    put_text("pickup/.hidden.eml", MAIL);
    put_text("pickup/x.eml.tmp", MAIL);
    put_text("pickup/x.PART", MAIL);
    put_text("pickup/upper.EML", MAIL);
    put_text("pickup/later.txt", MAIL);
    put_text("pickup/new\nline.eml", MAIL);
    put_text("pickup/\xff.eml", MAIL);
    ensure(symlink(at("outside"), at("pickup/link.eml")) == 0);
    ensure(mkfifo(at("pickup/fifo.eml"), 0600) == 0);
    make_directory("pickup/directory.eml");
    put_text("pickup/linked.eml", MAIL);
    ensure(link(at("pickup/linked.eml"), at("linked")) == 0);
    CU_ASSERT_EQUAL(look(NOW, 100), 0);
    CU_ASSERT_EQUAL(collected.bad_count, 5); /* the names and kinds, at once */
    CU_ASSERT_EQUAL(look(NOW + 2, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_EQUAL(collected.bad_count, 1); /* linked.eml, when it was opened */
    CU_ASSERT(exists("pickup/later.txt"));
    CU_ASSERT_EQUAL(look(NOW + 60, 100), 0);
    CU_ASSERT_EQUAL(collected.bad_count, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/later.txt.bad.reason"), "name it NAME.eml"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/link.eml.bad.reason"), "a link"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/fifo.eml.bad.reason"), "not a regular file"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/linked.eml.bad.reason"), "has 2 links"));
    CU_ASSERT_EQUAL(names_count("badmail"), 2 * 7);
    CU_ASSERT_EQUAL(names_count("pickup"), 4);
    CU_ASSERT_STRING_EQUAL(text_of("outside"), MAIL);
    end();
}

SUITE(pickup_files, test_good_files, test_bad_files, test_owner, test_bounds, test_mutated_files,
      test_names_and_kinds)
