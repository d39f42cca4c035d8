/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool.h"

#include "engine/base/random.h"
#include "queue/mailbox_list.h"
#include "tests/unit/queue/spool_check.h"
#include "tests/unit/queue/spool_one.h"

enum { NOW = 1796112000 };

static struct check_disk check;
static struct spool spool;
static struct spool_problem problem;
static struct spool_collected collected;

static void start(void)
{
    struct spool_config config = spool_config_of(&check);
    CU_ASSERT_EQUAL_FATAL(spool_open(&spool, &config, &problem), 0);
    CU_ASSERT_EQUAL(spool_pickup_recover(&spool), 0);
}

static void begin(void)
{
    base_begin();
    check_disk_begin(&check, -1);
    start();
}

static void end(void)
{
    spool_close(&spool);
    check_disk_end(&check);
    base_end();
}

/* Both clocks show the same second. */
static int look(int64_t at_s, uint32_t files_max)
{
    struct mono_time mono = {.ns = at_s * NS_PER_S};
    return spool_pickup_collect(&spool, wall_s(at_s), mono, files_max, &collected);
}

/* Looks twice, far enough apart that what stands still is taken. */
static int collect(int64_t at_s)
{
    int result = look(at_s, 100);
    return result != 0 ? result : look(at_s + 2, 100);
}

static const char *messages(void)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "active/%s/messages-0.bsmtp", collected.directory);
    return text_of(path);
}

/* Fields of To and the like, and the addresses in them; "!" where it is no list. */
static const struct {
    const char *field, *want;
} LISTS[] = {
    {"a@b", "a@b;"},
    {" a@b , c@d ", "a@b;c@d;"},
    {"", ""},
    {" , ,a@b,,", "a@b;"},
    {"<a@b>", "a@b;"},
    {"Ann <a@b>", "a@b;"},
    {"Ann Bea X. <a@b>, \"Doe, John\" <c@d>", "a@b;c@d;"},
    {"=?UTF-8?B?w4k=?= <a@b>", "a@b;"},
    {"J\xc3\xb6rg <a@b>", "a@b;"},
    {"a@b (comment, with (nested) \\) comma), c@d", "a@b;c@d;"},
    {"(before) a . b (in) @ (of) c . d (after)", "a.b@c.d;"},
    {"\"a b\"@c", "\"a b\"@c;"},
    {"\"a\\\"@\"@c", "\"a\\\"@\"@c;"},
    {"Pete <\"p q\".r@s>", "\"p q\".r@s;"},
    {"a@[192.0.2.1], b@[IPv6:::1]", "a@[192.0.2.1];b@[IPv6:::1];"},
    {"<@x,@y:a@b>", "a@b;"},
    {"<>", ";"},
    {"undisclosed-recipients:;", ""},
    {"Team: a@b, Bea <c@d>; , e@f", "a@b;c@d;e@f;"},
    {"a@b,\r\n c@d,\r\n\tE\r\n <e@f>\r\n", "a@b;c@d;e@f;"},
    {"a..b@c, .d@e", "a..b@c;.d@e;"},
    {"a@b.", "a@b.;"},
    {"a", "!"},
    {"Ann Bea", "!"},
    {"a b@c", "!"},
    {"a@b c@d", "!"},
    {"a@b@c", "!"},
    {"a@", "!"},
    {"@b", "!"},
    {"<a@b", "!"},
    {"<a@b> c", "!"},
    {"<a>", "!"},
    {"a@b, (open", "a@b;!"},
    {"\"open@b", "!"},
    {"a@[1.2", "!"},
    {"a\\@b", "!"},
    {"a@b>", "!"},
    {"a\x01@b", "!"},
    {"\"a\x01\"@b", "!"},
};

static const char *addresses_of(struct span field)
{
    static char text[4096];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    struct cursor cursor = cursor_of(field);
    for (;;) {
        char address[SCAN_PATH_MAX];
        struct writer one = writer_of(address, sizeof(address));
        enum mailbox_take take = mailbox_list_take(&cursor, &one);
        if (take == MAILBOX_TAKEN) {
            writer_put(&writer, writer_span(&one));
            writer_put_byte(&writer, ';');
            continue;
        }
        writer_put(&writer, take == MAILBOX_BAD ? SPAN("!") : SPAN(""));
        *writer.at = '\0';
        return text;
    }
}

static void test_mailbox_lists(void)
{
    for (size_t i = 0; i < COUNT_OF(LISTS); i++) {
        const char *got = addresses_of(span_of_text(LISTS[i].field));
        if (strcmp(got, LISTS[i].want) != 0) {
            printf("row %zu: %s\n", i, got);
            CHECK_ROW(i, false);
        }
    }
    char text[SCAN_PATH_MAX + 16];
    memset(text, 'a', sizeof(text));
    memcpy(text + SCAN_PATH_MAX - 2, "@b,c", 4);
    struct span field = span_of(text, SCAN_PATH_MAX);
    CU_ASSERT_EQUAL(strlen(addresses_of(field)), SCAN_PATH_MAX + 1);
    text[SCAN_PATH_MAX] = 'b';
    field.size++;
    CU_ASSERT_STRING_EQUAL(addresses_of(field), "!");
}

/* Any bytes: it ends, stays inside, and gives no control characters. */
static void test_mailbox_mutations(void)
{
    static const char alphabet[] = "ab@@<>(),;:.\"\\[] \t\r\n\x01\x80";
    struct random random;
    random_init_seed(&random, 5322);
    for (uint32_t round = 0; round < 50000; round++) {
        uint32_t size = random_below(&random, 24);
        char *field = malloc(size > 0 ? size : 1);
        for (uint32_t i = 0; i < size; i++) {
            field[i] = alphabet[random_below(&random, sizeof(alphabet) - 1)];
        }
        const char *got = addresses_of(span_of(field, size));
        CHECK_ROW(round, strpbrk(got, "\r\n\x01") == NULL);
        CHECK_ROW(round, strlen(got) <= 2 * size + 1);
        free(field);
    }
}

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
        begin();
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
        begin();
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
    begin();
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
    begin();
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
        begin();
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

#define MAIL "x-sender: s@x\nx-receiver: a@b\n\nhi\n"

static void set_time(const char *path, int64_t at_s)
{
    struct timespec times[2] = {{.tv_sec = at_s}, {.tv_sec = at_s}};
    ensure(utimensat(AT_FDCWD, at(path), times, 0) == 0);
}

/* Writers that know nothing of rename: a file is taken only when it has stood still for 2 s between
 * looks, whatever its own time says. */
static void test_stands_still(void)
{
    begin();
    put_text("pickup/x.eml", "x-sender: s@x\n");
    set_time("pickup/x.eml", NOW - 1000000);
    CU_ASSERT_EQUAL(look(NOW, 100), 0);
    CU_ASSERT_EQUAL(collected.waiting_count, 1);
    CU_ASSERT_EQUAL(look(NOW + 1, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    put_text("pickup/x.eml", MAIL); /* it goes on: other size */
    set_time("pickup/x.eml", NOW - 1000000);
    CU_ASSERT_EQUAL(look(NOW + 2, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    set_time("pickup/x.eml", NOW + 1000000); /* other time, in the future */
    CU_ASSERT_EQUAL(look(NOW + 4, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(look(NOW + 6, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    end();
}

/* The wall clock is set, by an hour forward or back: the rest is as long as it was. */
static void test_a_set_clock_shortens_no_rest(void)
{
    for (int i = 0; i < 2; i++) {
        int64_t shift_s = i == 0 ? 3600 : -3600;
        static const struct {
            int64_t mono_ms;
            uint32_t want;
        } LOOKS[] = {{1000, 0}, {1999, 0}, {2000, 1}};
        begin();
        put_text("pickup/x.eml", MAIL);
        CU_ASSERT_EQUAL(look(NOW, 100), 0);
        for (size_t j = 0; j < COUNT_OF(LOOKS); j++) {
            struct mono_time mono = {.ns = NOW * NS_PER_S + LOOKS[j].mono_ms * NS_PER_MS};
            CU_ASSERT_EQUAL(
                spool_pickup_collect(&spool, wall_s(NOW + shift_s), mono, 100, &collected), 0);
            CHECK_ROW(j, collected.files_count == LOOKS[j].want);
        }
        end();
    }
}

static void test_names_and_kinds(void)
{
    begin();
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

static void test_batch_and_release(void)
{
    begin();
    char path[256];
    char directory[SPOOL_DIRECTORY_MAX + 1];
    put_text("pickup/a.eml", MAIL);
    put_text("pickup/b.eml", MAIL);
    put_text("pickup/c.eml", MAIL);
    CU_ASSERT_EQUAL(look(NOW, 2), 0);
    CU_ASSERT_EQUAL(look(NOW + 2, 2), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    CU_ASSERT(collected.has_more);
    CU_ASSERT_STRING_EQUAL(collected.directory, "pickup-1796112002000-0.batch");
    memcpy(directory, collected.directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "active/%s/batch.json", directory);
    struct writer errors = writer_of(problem.text, sizeof(problem.text));
    struct manifest *manifest =
        manifest_parse(span_of_text(text_of(path)), SPAN("pickup-1"), &errors);
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT(manifest_allows_rejects(manifest, 7, 7));
    manifest_destroy(manifest);

    /* The rest comes next; what was taken stays where it is, and is not taken again. */
    CU_ASSERT_EQUAL(look(NOW + 3, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_EQUAL(look(NOW + 9, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 3);

    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 1);
    (void)snprintf(path, sizeof(path), "active/%s/sources.list", directory);
    CU_ASSERT(!exists(path));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, "gone.batch"), -ENOENT);

    /* The same names once more are other mail. */
    static const char *const names[] = {"pickup/a.eml", "pickup/b.eml", "pickup/c.eml"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (!exists(names[i])) {
            put_text(names[i], MAIL);
        }
    }
    CU_ASSERT_EQUAL(collect(NOW + 20), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    end();
}

/* Between taking and release: a writer goes on, another replaces the file, somebody removes it. */
static void test_sources_change(void)
{
    begin();
    put_text("pickup/appended.eml", MAIL);
    put_text("pickup/replaced.eml", MAIL);
    put_text("pickup/removed.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 3);
    char directory[SPOOL_DIRECTORY_MAX + 1];
    memcpy(directory, collected.directory, sizeof(directory));
    put_text("pickup/appended.eml", MAIL "more\n");
    put_text("pickup/new.tmp", MAIL "new\n");
    ensure(rename(at("pickup/new.tmp"), at("pickup/replaced.eml")) == 0);
    ensure(unlink(at("pickup/removed.eml")) == 0);
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1); /* the replaced one is new mail */
    CU_ASSERT_PTR_NOT_NULL(strstr(messages(), "new\r\n"));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT(exists("pickup/replaced.eml"));
    CU_ASSERT(!exists("pickup/appended.eml"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/appended.eml.bad.reason"), "was written to"));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    end();
}

/* A list that is damaged, or that a writer put into a batch of his own: what it can name lies in
 * pickup/, and the engine starts, and lets the batch go on. */
static void test_odd_lists(void)
{
    char text[4096], path[256], directory[SPOOL_DIRECTORY_MAX + 1];
    begin();
    put_text("journal/journal-1", "precious\n");
    put_text("pickup/a.eml", MAIL);
    put_text("pickup/b.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    memcpy(directory, collected.directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "active/%s/sources.list", directory);
    struct stat stat;
    ensure(lstat(at("journal/journal-1"), &stat) == 0);
    (void)snprintf(text, sizeof(text), "%llu 1 1 ../journal/journal-1\n\nx\n1 2\n1 2 3\n1 2 3 \n%s",
                   (unsigned long long)stat.st_ino, text_of(path));
    put_text(path, text);
    spool_close(&spool);
    start();
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0); /* they are taken still */
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT(!exists(path));
    CU_ASSERT_STRING_EQUAL(text_of("journal/journal-1"), "precious\n");
    CU_ASSERT_EQUAL(names_count("badmail"), 0);
    for (int i = 0; i < 3; i++) {
        ensure(i != 0 || mkdir(at(path), 0700) == 0);
        ensure(i != 1 || mkfifo(at(path), 0600) == 0);
        ensure(i != 2 || symlink("batch.json", at(path)) == 0);
        spool_close(&spool);
        start();
        CHECK_ROW((size_t)i, spool_pickup_release(&spool, directory) == 0);
        ensure(remove(at(path)) == 0);
    }
    end();
}

static void test_failed_batch(void)
{
    begin();
    put_text("pickup/a.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(spool_one_finish(&spool, collected.directory, SPOOL_END_FAILED, NULL,
                                     SPAN("nobody may relay"), wall_s(NOW), NULL),
                    0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/a.eml.bad.reason"), "nobody may relay"));
    put_text("pickup/b.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(spool_one_finish(&spool, collected.directory, SPOOL_END_HELD, NULL,
                                     SPAN("later"), wall_s(NOW), NULL),
                    0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0); /* hold/ has the mail */
    end();
}

/* How often each of the three files is in some batch of active/. */
static bool each_is_taken_once(void)
{
    uint32_t counts[3] = {0};
    DIR *directory = opendir(at("active"));
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[512];
        (void)snprintf(path, sizeof(path), "active/%s/messages-0.bsmtp", entry->d_name);
        const char *text = entry->d_name[0] == '.' ? "" : text_of(path);
        for (size_t i = 0; i < COUNT_OF(counts); i++) {
            char subject[] = {'S', ':', ' ', (char)('0' + i), '\0'};
            counts[i] += strstr(text, subject) != NULL;
        }
    }
    (void)closedir(directory);
    return counts[0] == 1 && counts[1] == 1 && counts[2] == 1;
}

/*
 * The engine stops after any number of operations, at first while it collects, then while it
 * releases, with or without what no sync made stable; it starts again, recovers as intake does
 * (every batch in active/ becomes accepted and is released before anything new is collected), and
 * goes on. Each file was mailed exactly once.
 */
static void check_after_stop(int64_t left, int loss, bool *is_done)
{
    static struct spool_names names;
    begin();
    put_text("pickup/0.eml", "S: 0\n" MAIL);
    put_text("pickup/1.eml", "S: 1\n" MAIL);
    put_text("pickup/2.eml", "S: 2\n" MAIL);
    check.left = left;
    *is_done = collect(NOW) == 0 && collected.files_count == 3 &&
               spool_pickup_release(&spool, collected.directory) == 0;
    check.left = -1;
    spool_close(&spool);
    check_disk_settle(&check, loss);
    start();
    CHECK_ROW((size_t)left, names_count("in/tmp") == 0);
    for (int round = 0; round < 2; round++) {
        CHECK_ROW((size_t)left, collect(NOW + 10 + 10 * round) == 0);
        CHECK_ROW((size_t)left, spool_list_active(&spool, "", &names) == 0);
        for (uint32_t i = 0; i < names.count; i++) {
            CHECK_ROW((size_t)left, spool_pickup_release(&spool, names.names[i]) == 0);
        }
    }
    CHECK_ROW((size_t)left, each_is_taken_once());
    CHECK_ROW((size_t)left, names_count("pickup") == 0);
    CHECK_ROW((size_t)left, names_count("badmail") == 0);
    end();
}

static void test_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        int64_t left = 0;
        for (; !is_done && left < 500; left++) {
            check_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
        CU_ASSERT(left > 40);
    }
}

/* The disk fails at any one operation, once; the engine goes on without a restart. */
static void test_goes_on_after_failure(void)
{
    static const enum disk_verb verbs[] = {DISK_OPEN,     DISK_MKDIR, DISK_RENAME, DISK_WRITE,
                                           DISK_DATASYNC, DISK_SYNC,  DISK_READ,   DISK_STAT};
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        begin();
        put_text("pickup/0.eml", "S: 0\n" MAIL);
        put_text("pickup/1.eml", "S: 1\n" MAIL);
        put_text("pickup/2.eml", "S: 2\n" MAIL);
        CHECK_ROW(i, look(NOW, 100) == 0);
        check.failing = (int)verbs[i];
        check.error = -ENOSPC;
        int result = look(NOW + 2, 100);
        bool is_read = verbs[i] == DISK_READ;
        CHECK_ROW(i, result == (is_read ? 0 : -ENOSPC) || verbs[i] == DISK_STAT);
        CHECK_ROW(i, collected.unread_count == (is_read ? 3 : 0));
        check.failing = -1;
        CHECK_ROW(i, collect(NOW + 10) == 0);
        CHECK_ROW(i, collected.files_count == 0 || !is_read);
        CHECK_ROW(i, collect(NOW + 2 + SPOOL_MUTE_S) == 0);
        CHECK_ROW(i, collect(NOW + 20 + SPOOL_MUTE_S) == 0);
        CHECK_ROW(i, each_is_taken_once());
        CHECK_ROW(i, names_count("in/tmp") == 0);
        end();
    }
}

/* Files on bad sectors: all reads of their inodes fail. */
static ino_t bad_inodes[2];

static void bad_file_set(size_t index, const char *path)
{
    struct stat stat = {.st_ino = 0};
    ensure(path == NULL || lstat(at(path), &stat) == 0);
    bad_inodes[index] = stat.st_ino;
}

static int64_t bad_file_run(struct disk *disk, struct disk_op *op)
{
    struct stat stat;
    bool is_it = op->verb == DISK_READ && fstat(op->fd, &stat) == 0 &&
                 (stat.st_ino == bad_inodes[0] || stat.st_ino == bad_inodes[1]);
    if (is_it) {
        op->result = -EIO;
        return op->result;
    }
    return check_disk_run(disk, op);
}

static void test_a_file_that_cannot_be_read_holds_up_no_other(void)
{
    static const struct disk_ops ops = {.run = bad_file_run};
    begin();
    check.disk.ops = &ops;
    put_text("pickup/1.eml", "S: bad file\n" MAIL);
    bad_file_set(0, "pickup/1.eml");
    put_text("pickup/0.eml", "S: 0\n" MAIL);
    put_text("pickup/2.eml", "S: 2\n" MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    CU_ASSERT_EQUAL(collected.unread_count, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(collected.unread.text, "pickup/1.eml: cannot be read: "));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
    for (uint32_t i = 1; i < SPOOL_MUTE_S / 10; i++) { /* in the meantime it is not touched */
        CHECK_ROW(i, collect(NOW + 10 * i) == 0);
        CHECK_ROW(i, collected.files_count + collected.unread_count == 0);
    }
    CU_ASSERT_EQUAL(collect(NOW + 2 + SPOOL_MUTE_S), 0);
    CU_ASSERT_EQUAL(collected.unread_count, 1);
    bad_file_set(0, NULL);
    CU_ASSERT_EQUAL(collect(NOW + 4 + 2 * SPOOL_MUTE_S), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(messages(), "S: bad file"));
    CU_ASSERT_EQUAL(names_count("badmail"), 0);
    end();
}

/* Nobody can say which files of pickup/ the batch has: the engine starts, the batch goes on, and
 * nothing is collected, old or new, until each list can be read, or somebody took it away. */
static void test_sources_that_cannot_be_read_hold_pickup(void)
{
    enum { READ_AGAIN, BOTH_READ_AGAIN, REMOVED, ROWS_COUNT };
    static const struct disk_ops ops = {.run = bad_file_run};
    for (size_t row = 0; row < ROWS_COUNT; row++) {
        char directories[2][SPOOL_DIRECTORY_MAX + 1];
        char paths[2][SPOOL_PATH_MAX];
        begin();
        for (size_t i = 0; i < 2; i++) {
            put_text(i == 0 ? "pickup/0.eml" : "pickup/1.eml",
                     i == 0 ? "S: 0\n" MAIL : "S: 1\n" MAIL);
            CU_ASSERT_EQUAL(collect(NOW + 10 * (int64_t)i), 0);
            memcpy(directories[i], collected.directory, sizeof(directories[i]));
            (void)snprintf(paths[i], sizeof(paths[i]), "active/%s/sources.list", directories[i]);
        }
        put_text("pickup/2.eml", "S: 2\n" MAIL);
        spool_close(&spool);
        check.disk.ops = &ops;
        bad_file_set(0, paths[0]);
        bad_file_set(1, row == BOTH_READ_AGAIN ? paths[1] : NULL);
        start();
        for (int64_t i = 0; i < 6; i++) {
            CHECK_ROW(row, look(NOW + 100 + 5 * i, 100) == 0);
            CHECK_ROW(row, collected.is_held && collected.files_count == 0);
            CHECK_ROW(row, strstr(collected.held.text, "/sources.list: cannot be read: ") != NULL);
            CHECK_ROW(row, strstr(collected.held.text, "and then it") != NULL);
            if (row == BOTH_READ_AGAIN && i == 2) {
                bad_file_set(1, NULL);
            }
        }
        CHECK_ROW(row, spool_pickup_release(&spool, directories[0]) == -EIO);
        CHECK_ROW(row, names_count("pickup") == 3);
        if (row == REMOVED) {
            ensure(unlink(at("pickup/0.eml")) == 0);
            ensure(unlink(at(paths[0])) == 0);
        } else {
            bad_file_set(0, NULL);
        }
        CHECK_ROW(row, collect(NOW + 200) == 0);
        CHECK_ROW(row, !collected.is_held);
        CHECK_ROW(row, collected.files_count == 1);
        CHECK_ROW(row, each_is_taken_once());
        CHECK_ROW(row, spool_pickup_release(&spool, directories[0]) == 0);
        CHECK_ROW(row, spool_pickup_release(&spool, directories[1]) == 0);
        CHECK_ROW(row, names_count("pickup") == 1);
        bad_file_set(0, NULL);
        end();
    }
}

/* Moves into active/ that cannot be made durable: 1 they go back; 2 not even that. */
static int stuck;

static int64_t stuck_run(struct disk *disk, struct disk_op *op)
{
    int active = spool.places[SPOOL_ACTIVE];
    bool is_it = (op->verb == DISK_SYNC && op->fd == active && stuck > 0) ||
                 (op->verb == DISK_RENAME && op->dir == active && stuck > 1);
    if (is_it) {
        op->result = -EIO;
        return op->result;
    }
    return check_disk_run(disk, op);
}

static void test_what_cannot_be_made_durable_goes_back(void)
{
    static const struct disk_ops ops = {.run = stuck_run};
    begin();
    check.disk.ops = &ops;
    put_text("pickup/0.eml", "S: 0\n" MAIL);
    put_text("pickup/1.eml", "S: 1\n" MAIL);
    put_text("pickup/2.eml", "S: 2\n" MAIL);
    stuck = 1;
    CU_ASSERT_EQUAL(collect(NOW), -EIO);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(names_count("active"), 0);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    stuck = 0;
    CU_ASSERT_EQUAL(look(NOW + 4, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 3);
    CU_ASSERT(each_is_taken_once());
    put_text("pickup/3.eml", "S: 3\n" MAIL);
    stuck = 2;
    CU_ASSERT_EQUAL(collect(NOW + 10), -ENOTRECOVERABLE);
    stuck = 0;
    CU_ASSERT_EQUAL(names_count("active"), 2);
    CU_ASSERT_EQUAL(collect(NOW + 20), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0); /* taken, wherever it is */
    end();
}

/* Listings, and looks at files, since this was cleared. */
static struct {
    uint64_t lists, stats;
} counted;

static int64_t counting_run(struct disk *disk, struct disk_op *op)
{
    counted.lists += op->verb == DISK_LIST;
    counted.stats += op->verb == DISK_STAT;
    return check_disk_run(disk, op);
}

/* More files than are watched at once: all come in turn, each is looked at a few times, and pickup/
 * is not listed for each batch. */
static void test_many_files(void)
{
    enum { FILES = SPOOL_PICKUP_WATCHED_MAX + 500 };
    static const struct disk_ops ops = {.run = counting_run};
    begin();
    for (int i = 0; i < FILES; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "pickup/%d.eml", i);
        put_text(path, MAIL);
    }
    uint32_t taken = 0;
    uint32_t calls = 0;
    check.disk.ops = &ops;
    counted.lists = 0;
    counted.stats = 0;
    for (int64_t now = NOW; taken < FILES && calls < 300; now += collected.has_more ? 0 : 1) {
        CU_ASSERT_EQUAL_FATAL(look(now, SPOOL_PICKUP_FILES_MAX), 0);
        taken += collected.files_count;
        calls++;
        if (collected.files_count > 0) {
            CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
        }
    }
    CU_ASSERT_EQUAL(taken, FILES);
    CU_ASSERT(counted.lists <= 8);
    CU_ASSERT(counted.stats <= 8 * (uint64_t)FILES);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT_EQUAL(look(NOW + 1000, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(collected.waiting_count, 0);
    end();
}

/* Others write on and on, come, go, and stand in the way: none keeps a file from its turn. */
static void test_files_among_restless_ones(void)
{
    begin();
    for (int64_t i = 0; i < 20; i++) {
        char path[64];
        for (int j = 0; j < 3; j++) {
            (void)snprintf(path, sizeof(path), "pickup/restless%d.eml", j);
            put_text(path, MAIL);
            set_time(path, NOW + 100 + i);
        }
        (void)snprintf(path, sizeof(path), "pickup/gone%d.eml", (int)i);
        put_text(path, MAIL);
        (void)snprintf(path, sizeof(path), "pickup/n%d.eml", (int)i);
        put_text(path, MAIL);
        CU_ASSERT_EQUAL(look(NOW + i, 2), 0);
        CU_ASSERT(i < 2 || collected.files_count == 1);
        if (collected.files_count > 0) {
            CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
        }
        (void)snprintf(path, sizeof(path), "pickup/gone%d.eml", (int)i);
        ensure(unlink(at(path)) == 0);
    }
    CU_ASSERT_EQUAL(names_count("pickup"), 3 + 2);
    end();
}

SUITE(pickup, test_mailbox_lists, test_mailbox_mutations, test_good_files, test_bad_files,
      test_mutated_files, test_owner, test_bounds, test_stands_still,
      test_a_set_clock_shortens_no_rest, test_names_and_kinds, test_batch_and_release,
      test_sources_change, test_odd_lists, test_failed_batch, test_after_any_stop,
      test_goes_on_after_failure, test_a_file_that_cannot_be_read_holds_up_no_other,
      test_sources_that_cannot_be_read_hold_pickup, test_what_cannot_be_made_durable_goes_back,
      test_many_files, test_files_among_restless_ones)
