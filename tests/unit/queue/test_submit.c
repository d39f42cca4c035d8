/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/submit.h"

#include "tests/unit/queue/spool_check.h"
#include "tests/unit/queue/spool_one.h"

enum { NOW = 1796112000 };

static struct check_disk check;
static struct check_disk engine_disk;
static struct spool spool; /* the engine's side */
static struct submit submit;
static struct clock_manual manual;
static struct random random_source;
static struct spool_problem problem;
static struct submit_id id;
static struct submit_status status;

static void begin(void)
{
    base_begin();
    check_disk_begin(&check, -1);
    check_disk_begin(&engine_disk, -1);
    clock_manual_init(&manual, (struct mono_time){.ns = 0}, wall_s(NOW));
    random_init_seed(&random_source, 1);
    struct spool_config config = spool_config_of(&engine_disk);
    CU_ASSERT_EQUAL_FATAL(spool_open(&spool, &config, &problem), 0);
    CU_ASSERT_EQUAL_FATAL(
        submit_open(&submit, &check.disk, &manual.clock, &random_source, base, &problem), 0);
}

static void end(void)
{
    submit_close(&submit);
    spool_close(&spool);
    check_disk_end(&check);
    check_disk_end(&engine_disk);
    base_end();
}

/* The file of the batch that was submitted last. */
static const char *submitted(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "in/new/%s.batch/%s", id.text, name);
    return text_of(path);
}

static struct manifest *submitted_manifest(void)
{
    struct writer errors = writer_of(problem.text, sizeof(problem.text));
    return manifest_parse(span_of_text(submitted("batch.json")), span_of_text(id.text), &errors);
}

static void test_no_spool(void)
{
    begin();
    struct submit other;
    CU_ASSERT_EQUAL(submit_open(&other, &check.disk, &manual.clock, &random_source,
                                "/nonexistent/spool", &problem),
                    -ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "/nonexistent/spool: is not there"));
    submit_close(&other);
    end();
}

static void test_directory(void)
{
    begin();
    make_directory("mine.batch");
    put_text("mine.batch/batch.json", "{\"v\":1,\"from\":\"s@x\"}");
    put_text("mine.batch/message.eml", "Subject: x\n\nhi\n");
    put_text("mine.batch/recipients.ndjson", "{\"to\":\"a@b\"}\n");
    put_text("mine.batch/.backup", "");
    char path[256];
    (void)snprintf(path, sizeof(path), "%s//", at("mine.batch"));
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), 0);
    CU_ASSERT_STRING_EQUAL(id.text, "mine");
    CU_ASSERT_STRING_EQUAL(submitted("recipients.ndjson"), "{\"to\":\"a@b\"}\n");
    CU_ASSERT_EQUAL(names_count("in/new/mine.batch"), 3);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);

    /* The same id while the first waits. */
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), -EEXIST);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "waits already"));
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);

    /* What the engine would refuse comes back at once. */
    put_text("mine.batch/batch.json", "{\"v\":1,\"id\":\"other\",\"from\":\"s@x\",\"prio\":1}");
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "unknown key \"prio\""));
    put_text("mine.batch/batch.json", "{\"v\":1,\"id\":\"other\",\"from\":\"s@x\"}");
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), 0);
    CU_ASSERT_STRING_EQUAL(id.text, "other");
    put_text("mine.batch/results.ndjson", "");
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "results.ndjson: not a file that a batch"));
    ensure(unlink(at("mine.batch/results.ndjson")) == 0);
    make_directory("mine.batch/sub");
    CU_ASSERT_EQUAL(submit_directory(&submit, path, &id, &problem), -EINVAL);
    CU_ASSERT_EQUAL(submit_directory(&submit, at("missing"), &id, &problem), -ENOENT);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    CU_ASSERT_EQUAL(names_count("in/new"), 2);
    end();
}

static void test_files(void)
{
    begin();
    put_text("m.eml", "Subject: x\n\nhi {{name}}\n");
    put_text("list.csv", "to,name\na@b,Ann\n");
    char message[256];
    char list[256];
    (void)snprintf(message, sizeof(message), "%s", at("m.eml"));
    (void)snprintf(list, sizeof(list), "%s", at("list.csv"));
    struct submit_files files = {
        .from = "b-{{_vid}}@\"x\"", .message_path = message, .recipients_path = list};
    CU_ASSERT_EQUAL(submit_files(&submit, &files, &id, &problem), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(id.text, "b-1796112000000-"));
    CU_ASSERT_STRING_EQUAL(submitted("message.eml"), "Subject: x\n\nhi {{name}}\n");
    CU_ASSERT_STRING_EQUAL(submitted("recipients.csv"), "to,name\na@b,Ann\n");
    struct manifest *manifest = submitted_manifest();
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT_EQUAL(manifest->format, SCAN_CSV);
    CU_ASSERT_STRING_EQUAL(manifest->from, "b-{{_vid}}@\"x\"");
    manifest_destroy(manifest);

    files.id = "a b";
    CU_ASSERT_EQUAL(submit_files(&submit, &files, &id, &problem), -EINVAL);
    files.id = "spring";
    files.from = "\xff";
    CU_ASSERT_EQUAL(submit_files(&submit, &files, &id, &problem), -EINVAL);
    files.from = "s@x";
    files.recipients_path = "/nonexistent.csv";
    CU_ASSERT_EQUAL(submit_files(&submit, &files, &id, &problem), -ENOENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "/nonexistent.csv: is not there"));
    files.recipients_path = list;
    files.message_path = base;
    CU_ASSERT_NOT_EQUAL(submit_files(&submit, &files, &id, &problem), 0);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    CU_ASSERT_EQUAL(names_count("in/new"), 1);
    end();
}

static const char STREAM[] =
    "{\"v\":1,\"id\":\"s1\",\"from\":\"s@x\",\"message\":\"Subject: x\\n\\nh\\u00e9\\n\"}\n"
    "{\"to\":\"a@b\"}\n{\"to\":\"c@d\"}\n";

static int submit_text(const char *text, size_t step)
{
    struct submit_stream stream;
    int result = submit_stream_begin(&submit, &stream, &problem);
    if (result != 0) {
        return result;
    }
    for (size_t i = 0; text[i] != '\0' && result == 0;) {
        size_t left = strlen(text) - i;
        size_t size = left < step ? left : step;
        result = submit_stream_feed(&stream, span_of(text + i, size), &problem);
        i += size;
    }
    if (result != 0) {
        submit_stream_abandon(&stream);
        return result;
    }
    return submit_stream_end(&stream, &id, &problem);
}

static void test_stream(void)
{
    static const size_t steps[] = {1, 2, 7, 50, 1000};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        begin();
        CHECK_ROW(i, submit_text(STREAM, steps[i]) == 0);
        CHECK_ROW(i, strcmp(id.text, "s1") == 0);
        CHECK_ROW(i, strcmp(submitted("message.eml"), "Subject: x\n\nh\xc3\xa9\n") == 0);
        CHECK_ROW(
            i, strcmp(submitted("recipients.ndjson"), "{\"to\":\"a@b\"}\n{\"to\":\"c@d\"}\n") == 0);
        struct manifest *manifest = submitted_manifest();
        CHECK_ROW(i, manifest != NULL && strcmp(manifest->message, "message.eml") == 0);
        manifest_destroy(manifest);
        end();
    }
}

static void test_stream_forms(void)
{
    begin();
    CU_ASSERT_EQUAL(submit_text("{\"v\":1,\"kind\":\"bsmtp\"}\nMAIL FROM:<s@x>\n", 10), 0);
    CU_ASSERT_STRING_EQUAL(submitted("messages-0.bsmtp"), "MAIL FROM:<s@x>\n");
    CU_ASSERT_EQUAL(
        submit_text("{\"v\":1,\"from\":\"s@x\",\"message\":\"\",\"recipients\":\"my.csv\"}\n"
                    "to\na@b\n",
                    10),
        0);
    CU_ASSERT_STRING_EQUAL(submitted("recipients.csv"), "to\na@b\n");
    /* No line end, no recipients: a batch all the same, which the engine will judge. */
    CU_ASSERT_EQUAL(submit_text("{\"v\":1,\"from\":\"s@x\",\"message\":\"\"}", 10), 0);
    CU_ASSERT_STRING_EQUAL(submitted("recipients.ndjson"), "");

    static const struct {
        const char *text, *words;
    } bad[] = {
        {"", "line 1: not the object"},
        {"[]\n", "line 1: not the object"},
        {"{\"v\":1,\"from\":\"s@x\"}\n", "\"message\" is not the text"},
        {"{\"v\":1,\"from\":\"s@x\",\"message\":7}\n", "\"message\" is not the text"},
        {"{\"v\":1,\"message\":\"\"}\n", "\"from\" is missing"},
        {"{\"v\":1,\"v\":1,\"from\":\"s@x\",\"message\":\"\"}\n", "line 1: not the object"},
        {"{\"v\":1,\"kind\":\"bsmtp\",\"message\":\"x\"}\n", "\"message\" has no meaning"},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        CHECK_ROW(i, submit_text(bad[i].text, 3) == -EINVAL);
        CHECK_ROW(i, strstr(problem.text, bad[i].words) != NULL);
    }
    struct submit_stream stream;
    CU_ASSERT_EQUAL(submit_stream_begin(&submit, &stream, &problem), 0);
    CU_ASSERT_EQUAL(submit_stream_feed(&stream, span_of_text(STREAM), &problem), 0);
    submit_stream_abandon(&stream);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    CU_ASSERT_EQUAL(names_count("in/new"), 3);
    end();
}

static void test_mail(void)
{
    begin();
    const char *to[] = {"a@b, Bea <c@d>", "e@f"};
    struct submit_mail mail = {.from = "Ann <s@x>",
                               .to = to,
                               .to_count = COUNT_OF(to),
                               .subject = "Hello",
                               .text = SPAN("hi {{name}}\r\n.\n.x\nend")};
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), 0);
    CU_ASSERT_STRING_EQUAL(
        submitted("messages-0.bsmtp"),
        "MAIL FROM:<s@x>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"
        "From: Ann <s@x>\r\nTo: a@b,\r\n c@d,\r\n e@f\r\nSubject: Hello\r\n"
        "Date: Tue, 01 Dec 2026 08:00:00 +0000\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        "hi {{name}}\r\n..\r\n..x\r\nend\r\n.\r\n");
    struct manifest *manifest = submitted_manifest();
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT_EQUAL(manifest->kind, MANIFEST_BSMTP);
    manifest_destroy(manifest);

    mail.subject = "Gr\xc3\xbc\xc3\x9f"
                   "e aus M\xc3\xbcnchen, und zwar sehr sch\xc3\xb6ne";
    mail.text = SPAN("\xc3\xa9\n");
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), 0);
    const char *text = submitted("messages-0.bsmtp");
    CU_ASSERT_PTR_NOT_NULL(strstr(text,
                                  "\r\nSubject: =?UTF-8?B?R3LDvMOfZSBhdXMgTcO8bmNoZW4sIHVuZCB6"
                                  "d2FyIHNlaHIgc2No?=\r\n =?UTF-8?B?w7ZuZQ==?=\r\n"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text, "\r\nContent-Transfer-Encoding: base64\r\n\r\nw6kK\r\n.\r\n"));

    static struct scan_message message;
    struct scan_problem scan_problem;
    CU_ASSERT_EQUAL(scan_record_message(span_of_text(text), NULL, &message, &scan_problem), 0);
    end();
}

static void test_mail_is_checked(void)
{
    begin();
    static char long_line[3000];
    memset(long_line, 'x', sizeof(long_line) - 1);
    const char *to[] = {"a@b"};
    struct submit_mail good = {
        .from = "s@x", .to = to, .to_count = 1, .subject = "x", .text = SPAN("x")};
    struct submit_mail mail = good;
    mail.from = "s@x\r\nBcc: e@f";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    mail.from = "s@x, t@x";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    mail.from = "<>";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    mail = good;
    mail.subject = "x\r\nBcc: e@f";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    mail.subject = "\xff";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    mail = good;
    to[0] = "a@b\r\nDATA";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    to[0] = "Ann";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "\"Ann\": not an address"));
    to[0] = "";
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    to[0] = long_line;
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), -EINVAL);
    to[0] = "a@b";
    mail.text = span_of(long_line, sizeof(long_line) - 1);
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(submitted("messages-0.bsmtp"), "Encoding: base64"));
    mail.text = SPAN("a\rb");
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(submitted("messages-0.bsmtp"), "YQ1i\r\n"));
    mail.text = SPAN("");
    CU_ASSERT_EQUAL(submit_mail(&submit, &mail, &id, &problem), 0);
    CU_ASSERT_EQUAL(names_count("in/new"), 3);
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    end();
}

/* Stopped anywhere, with or without what no sync made stable: in/new has the whole batch or nothing
 * of it; what was submitted is there. */
static void check_after_stop(int64_t left, int loss, bool *is_done)
{
    begin();
    const char *to[] = {"a@b"};
    struct submit_mail mail = {
        .id = "m", .from = "s@x", .to = to, .to_count = 1, .subject = "x", .text = SPAN("x")};
    check.left = left;
    *is_done = submit_mail(&submit, &mail, &id, &problem) == 0;
    check.left = -1;
    check_disk_settle(&check, loss);
    bool is_there = names_count("in/new") == 1;
    (void)snprintf(id.text, sizeof(id.text), "m");
    CHECK_ROW((size_t)left, !*is_done || is_there);
    CHECK_ROW((size_t)left, !is_there || strstr(submitted("batch.json"), "}\n") != NULL);
    CHECK_ROW((size_t)left,
              !is_there || strstr(submitted("messages-0.bsmtp"), "\r\n.\r\n") != NULL);
    end();
}

static void test_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        for (int64_t left = 0; !is_done && left < 100; left++) {
            check_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
    }
}

/* A full disk at any step leaves nothing behind. */
static void test_failures_leave_nothing(void)
{
    static const enum disk_verb verbs[] = {DISK_MKDIR, DISK_WRITE, DISK_DATASYNC, DISK_RENAME};
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        begin();
        const char *to[] = {"a@b"};
        struct submit_mail mail = {
            .from = "s@x", .to = to, .to_count = 1, .subject = "x", .text = SPAN("x")};
        check.failing = (int)verbs[i];
        check.error = -ENOSPC;
        CHECK_ROW(i, submit_mail(&submit, &mail, &id, &problem) == -ENOSPC);
        CHECK_ROW(i, strstr(problem.text, "no space is left") != NULL);
        CHECK_ROW(i, submit_text(STREAM, 50) == -ENOSPC);
        CHECK_ROW(i, names_count("in/new") == 0 && names_count("in/tmp") == 0);
        end();
    }
}

static void check_status(const char *of, enum submit_state want)
{
    CU_ASSERT_EQUAL(submit_status_read(&submit, of, &status), 0);
    CU_ASSERT_EQUAL(status.state, want);
}

/* A batch on its whole way, seen by its sender. */
static void test_status(void)
{
    begin();
    char directory[SPOOL_DIRECTORY_MAX + 1];
    check_status("s1", SUBMIT_UNKNOWN);
    CU_ASSERT_EQUAL(submit_text(STREAM, 1000), 0);
    check_status("s1", SUBMIT_WAITING);
    check_status("s", SUBMIT_UNKNOWN);
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "s1.batch", wall_s(NOW), directory, &problem), 0);
    check_status("s1", SUBMIT_ACTIVE);
    CU_ASSERT(!status.has_counts);
    struct spool_progress progress = {.id = "s1",
                                      .state = "active",
                                      .records = 9,
                                      .accepted = 8,
                                      .rejected = 1,
                                      .pending = 2,
                                      .in_flight = 1,
                                      .deferred = 1,
                                      .delivered = 4,
                                      .rate_1m = 2.5,
                                      .eta_s = 17};
    int batch_fd = spool_batch_open(&spool, directory);
    CU_ASSERT_EQUAL(spool_write_progress(&spool, batch_fd, &progress), 0);
    disk_close(&engine_disk.disk, batch_fd);
    check_status("s1", SUBMIT_ACTIVE);
    CU_ASSERT(status.has_counts);
    CU_ASSERT_EQUAL(status.records, 9);
    CU_ASSERT_EQUAL(status.delivered, 4);
    CU_ASSERT_EQUAL(status.deferred, 1);
    CU_ASSERT_EQUAL(status.eta_s, 17);
    CU_ASSERT_DOUBLE_EQUAL(status.rate_1m, 2.5, 0.001);
    progress.delivered = 8;
    CU_ASSERT_EQUAL(
        spool_one_finish(&spool, directory, SPOOL_END_DONE, &progress, SPAN(""), wall_s(NOW), NULL),
        0);
    check_status("s1", SUBMIT_DONE);
    CU_ASSERT_EQUAL(status.delivered, 8);
    CU_ASSERT_STRING_EQUAL(status.path, "done/2026-12-01/s1.batch");

    /* The same id within 30 days would be told of the first one. */
    CU_ASSERT_EQUAL(submit_text(STREAM, 1000), -EEXIST);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "done/2026-12-01/s1.batch"));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "30 days"));
    CU_ASSERT_EQUAL(names_count("in/tmp"), 0);
    CU_ASSERT_EQUAL(names_count("in/new"), 0);

    /* The same id later: the one that is on its way is told first, then the last. */
    clock_manual_advance(&manual, INT64_C(31) * 86400 * NS_PER_S);
    CU_ASSERT_EQUAL(submit_text(STREAM, 1000), 0);
    check_status("s1", SUBMIT_WAITING);
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "s1.batch", wall_s(NOW), directory, &problem), 0);
    CU_ASSERT_EQUAL(spool_one_finish(&spool, directory, SPOOL_END_DONE, NULL, SPAN(""),
                                     wall_s(NOW + 86400), NULL),
                    0);
    check_status("s1", SUBMIT_DONE);
    CU_ASSERT_STRING_EQUAL(status.path, "done/2026-12-02/s1.batch");
    CU_ASSERT(!status.has_counts);
    end();
}

/* A batch of its name ended before, and again and again: the last one counts, and is found without
 * a list of all that has ended. */
static void test_status_among_many(void)
{
    begin();
    make_directory("done/2026-12-01");
    for (int i = 1; i <= 300; i++) {
        char path[64];
        char want[64];
        (void)snprintf(want, sizeof(want),
                       i == 1 ? "done/2026-12-01/a.batch" : "done/2026-12-01/a~%d.batch", i);
        make_directory(want);
        (void)snprintf(path, sizeof(path), "done/2026-12-01/a%d.batch", i);
        make_directory(path);
        check.failing = DISK_LIST;
        check.error = -EIO;
        CU_ASSERT_EQUAL(submit_status_read(&submit, "a", &status), -EIO); /* of the days alone */
        check.failing = -1;
        CU_ASSERT_EQUAL_FATAL(submit_status_read(&submit, "a", &status), 0);
        CU_ASSERT_EQUAL(status.state, SUBMIT_DONE);
        CU_ASSERT_STRING_EQUAL_FATAL(status.path, want);
    }
    /* People have removed the first. */
    ensure(rmdir(at("done/2026-12-01/a.batch")) == 0);
    CU_ASSERT_EQUAL_FATAL(submit_status_read(&submit, "a", &status), 0);
    CU_ASSERT_STRING_EQUAL(status.path, "done/2026-12-01/a~300.batch");
    end();
}

static void test_status_of_failure(void)
{
    begin();
    char directory[SPOOL_DIRECTORY_MAX + 1];
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(submit_text(STREAM, 1000), 0);
        CU_ASSERT_EQUAL(spool_one_claim(&spool, "s1.batch", wall_s(NOW), directory, &problem), 0);
        CU_ASSERT_EQUAL(spool_one_finish(&spool, directory,
                                         i == 0 ? SPOOL_END_FAILED : SPOOL_END_HELD, NULL,
                                         SPAN("no good\n"), wall_s(NOW), NULL),
                        0);
        check_status("s1", i == 0 ? SUBMIT_FAILED : SUBMIT_HELD);
        CU_ASSERT_STRING_EQUAL(status.reason, "no good");
    }
    CU_ASSERT_EQUAL(submit_status_read(&submit, "../x", &status), -EINVAL);
    end();
}

SUITE(submit, test_no_spool, test_directory, test_files, test_stream, test_stream_forms, test_mail,
      test_mail_is_checked, test_after_any_stop, test_failures_leave_nothing, test_status,
      test_status_among_many, test_status_of_failure)
