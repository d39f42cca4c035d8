/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool.h"

#include <sys/sysmacros.h>

#include "queue/spool_priv.h"
#include "tests/unit/queue/spool_begin.h"

static struct spool_names names;

static void put_batch(const char *path)
{
    char file[256];
    make_directory(path);
    (void)snprintf(file, sizeof(file), "%s/batch.json", path);
    put_text(file, "{\"v\":1,\"kind\":\"bsmtp\"}");
    (void)snprintf(file, sizeof(file), "%s/messages-0.bsmtp", path);
    put_text(file, "QUIT\n");
}

static void test_layout_and_lock(void)
{
    begin();
    static const char *const places[] = {"in/tmp",  "in/new",  "in/ctl", "pickup",
                                         "badmail", "active",  "hold",   "done",
                                         "failed",  "journal", "log"};
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        CHECK_ROW(i, exists(places[i]));
    }
    CU_ASSERT_STRING_EQUAL(text_of("lock"), "4711                \n");

    struct check_disk other_disk;
    struct spool other;
    check_disk_begin(&other_disk, -1);
    struct spool_config config = spool_config_of(&other_disk);
    CU_ASSERT_EQUAL(spool_open(&other, &config, &problem), -EWOULDBLOCK);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "(process 4711) works in this spool"));
    spool_close(&spool);
    CU_ASSERT_EQUAL(spool_open(&other, &config, &problem), 0);
    spool_close(&other);
    spool_close(&other);
    check_disk_end(&other_disk);
    end();
}

/* Stopped after any number of operations, the next start finds or makes what is missing. */
static void test_open_after_any_stop(void)
{
    uint64_t operations = 0;
    for (int64_t left = 0; left == 0 || (uint64_t)left < operations; left++) {
        base_begin();
        check_disk_begin(&check, left);
        struct spool_config config = spool_config_of(&check);
        CHECK_ROW((size_t)left, spool_open(&spool, &config, &problem) == -EIO);
        CHECK_ROW((size_t)left, strstr(problem.text, "the disk failed") != NULL);
        check.left = -1;
        check_disk_settle(&check, (int)(left % LOSSES_COUNT));
        check.done = 0;
        CHECK_ROW((size_t)left, spool_open(&spool, &config, &problem) == 0);
        operations = check.done > operations ? check.done : operations;
        CHECK_ROW((size_t)left, exists("log"));
        end();
    }
    CU_ASSERT(operations > 20);
}

static void test_claim(void)
{
    begin();
    char directory[SPOOL_DIRECTORY_MAX + 1];
    put_batch("in/new/spring-07.batch");
    CU_ASSERT_EQUAL(spool_list_new(&spool, wall_s(NOW), &names), 0);
    CU_ASSERT_EQUAL_FATAL(names.count, 1);
    CU_ASSERT_STRING_EQUAL(names.names[0], "spring-07.batch");
    CU_ASSERT_EQUAL(spool_one_claim(&spool, names.names[0], wall_s(NOW), directory, &problem), 0);
    CU_ASSERT_STRING_EQUAL(directory, "spring-07.batch");
    CU_ASSERT(exists("active/spring-07.batch/batch.json"));
    CU_ASSERT(!exists("in/new/spring-07.batch"));

    /* The same name again, while the first is active. */
    for (int i = 2; i <= 3; i++) {
        char want[64];
        put_batch("in/new/spring-07.batch");
        CU_ASSERT_EQUAL(
            spool_one_claim(&spool, "spring-07.batch", wall_s(NOW), directory, &problem), 0);
        (void)snprintf(want, sizeof(want), "spring-07~%d.batch", i);
        CU_ASSERT_STRING_EQUAL(directory, want);
    }
    CU_ASSERT_EQUAL(spool_list_active(&spool, "", &names), 0);
    CU_ASSERT_EQUAL_FATAL(names.count, 3);
    CU_ASSERT_STRING_EQUAL(names.names[0], "spring-07.batch");
    CU_ASSERT_STRING_EQUAL(names.names[2], "spring-07~3.batch");
    CU_ASSERT_EQUAL(spool_list_active(&spool, "spring-07~2.batch", &names), 0);
    CU_ASSERT_EQUAL(names.count, 1);

    /* Gone between list and claim. */
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "gone.batch", wall_s(NOW), directory, &problem),
                    -ENOENT);
    end();
}

/* conformance.md 4: what is no batch leaves in/new, with a reason, and nothing of it is followed.
 */
static void test_claim_refuses(void)
{
    begin();
    make_directory("outside");
    static const char *const bad_names[] = {
        "x",         "x.tmp",           ".x.batch",   "-x.batch",       "a b.batch",
        "a~2.batch", "new\nline.batch", "\xff.batch", "\xc3\xa9.batch", ".batch",
    };
    size_t rows = 0;
    for (size_t i = 0; i < COUNT_OF(bad_names); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "in/new/%s", bad_names[i]);
        put_batch(path);
    }
    put_text("in/new/file.batch", "");
    ensure(symlink(at("outside"), at("in/new/link.batch")) == 0);
    ensure(mkfifo(at("in/new/fifo.batch"), 0600) == 0);
    put_batch("in/new/open.batch");
    ensure(chmod(at("in/new/open.batch"), 0777) == 0);
    put_batch("in/new/reserved.batch");
    put_text("in/new/reserved.batch/results.ndjson", "");
    put_batch("in/new/trap.batch");
    put_text("in/new/trap.batch/.summary.json.tmp", "");

    CU_ASSERT_EQUAL(spool_list_new(&spool, wall_s(NOW), &names), 0);
    CU_ASSERT_EQUAL(names.count, COUNT_OF(bad_names) + 6);
    for (uint32_t i = 0; i < names.count; i++, rows++) {
        char directory[SPOOL_DIRECTORY_MAX + 1];
        problem.text[0] = '\0';
        int result = spool_one_claim(&spool, names.names[i], wall_s(NOW), directory, &problem);
        CHECK_ROW(i, result == -EINVAL);
        CHECK_ROW(i, strncmp(problem.text, "in/new/", 7) == 0);
        CHECK_ROW(i, strchr(problem.text, '\n') == NULL);
    }
    CU_ASSERT_EQUAL(names_count("in/new"), 0);
    CU_ASSERT_EQUAL(names_count("active"), 0);
    CU_ASSERT_EQUAL(names_count("badmail"), 2 * rows);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/link.batch.bad.reason"), "a link"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/fifo.batch.bad.reason"), "not a directory"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/open.batch.bad.reason"), "chmod o-w"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text_of("badmail/reserved.batch.bad.reason"), "results.ndjson: a name that"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/new_line.batch.bad.reason"), "new\\x0aline"));
    CU_ASSERT(exists("badmail/x.bad"));
    end();
}

static void test_owner(void)
{
    begin();
    uint32_t uids[] = {(uint32_t)getuid() + 1, (uint32_t)getuid() + 2};
    char directory[SPOOL_DIRECTORY_MAX + 1];
    spool.config.owner_uids = uids;
    spool.config.owner_uids_count = COUNT_OF(uids);
    put_batch("in/new/a.batch");
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "a.batch", wall_s(NOW), directory, &problem), -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "who may not submit"));
    uids[1] = (uint32_t)getuid();
    put_batch("in/new/a.batch");
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "a.batch", wall_s(NOW), directory, &problem), 0);
    end();
}

/* What cannot even be moved away is told once, then passed over for a while. */
static void test_mute(void)
{
    begin();
    char directory[SPOOL_DIRECTORY_MAX + 1];
    put_batch("in/new/a.batch");
    put_batch("in/new/a b.batch");
    check.failing = DISK_RENAME;
    check.error = -EACCES;
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "a.batch", wall_s(NOW), directory, &problem), -EACCES);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "chmod g+rwX"));
    CU_ASSERT_EQUAL(spool_one_claim(&spool, "a b.batch", wall_s(NOW), directory, &problem),
                    -EINVAL);
    check.failing = -1;
    CU_ASSERT_EQUAL(spool_list_new(&spool, wall_s(NOW + SPOOL_MUTE_S - 1), &names), 0);
    CU_ASSERT_EQUAL(names.count, 0);
    CU_ASSERT_EQUAL(spool_list_new(&spool, wall_s(NOW + SPOOL_MUTE_S), &names), 0);
    CU_ASSERT_EQUAL(names.count, 2);
    /* Descriptors or memory that were short for a moment are no reason to pass it over. */
    static const int wants[] = {-EMFILE, -ENFILE, -ENOMEM};
    put_batch("in/new/c.batch");
    for (size_t i = 0; i < COUNT_OF(wants); i++) {
        check.failing = DISK_RENAME;
        check.error = wants[i];
        CHECK_ROW(i,
                  spool_one_claim(&spool, "c.batch", wall_s(NOW), directory, &problem) == wants[i]);
        CHECK_ROW(i, problem.text[0] == '\0');
    }
    check.failing = -1;
    CU_ASSERT_EQUAL(spool_list_new(&spool, wall_s(NOW), &names), 0);
    CU_ASSERT_EQUAL(names.count, 1);
    end();
}

/* More names than a listing holds: they come in turn, none is lost. */
static void test_many_names(void)
{
    enum { BATCHES = SPOOL_NAMES_MAX + 300 };
    begin();
    for (int i = 0; i < BATCHES; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "in/new/b%d.batch", i);
        make_directory(path);
    }
    uint32_t claimed = 0;
    do {
        CU_ASSERT_EQUAL_FATAL(spool_list_new(&spool, wall_s(NOW), &names), 0);
        CU_ASSERT_EQUAL(names.count + names.left_count, BATCHES - claimed);
        for (uint32_t i = 0; i < names.count; i++) {
            char directory[SPOOL_DIRECTORY_MAX + 1];
            claimed +=
                spool_one_claim(&spool, names.names[i], wall_s(NOW), directory, &problem) == 0;
        }
    } while (names.count > 0);
    CU_ASSERT_EQUAL(claimed, BATCHES);
    char after[SPOOL_NAME_MAX + 1] = "";
    uint32_t seen = 0;
    for (int result = -E2BIG; result == -E2BIG;) {
        result = spool_list_active(&spool, after, &names);
        CU_ASSERT(strcmp(names.names[0], after) > 0);
        seen += names.count;
        memcpy(after, names.names[names.count - 1], sizeof(after));
    }
    CU_ASSERT_EQUAL(seen, BATCHES);
    end();
}

static int64_t stuck_run(struct disk *disk, struct disk_op *op)
{
    if (op->verb == DISK_RENAME && strncmp(op->path, "stuck", strlen("stuck")) == 0) {
        op->result = -EACCES;
        return op->result;
    }
    return check_disk_run(disk, op);
}

/* More names that cannot be claimed than one listing holds, and than can be passed over: the others
 * are found within two rounds. */
static void test_many_names_that_stay(void)
{
    enum { STUCK = SPOOL_MUTED_MAX + 2 * SPOOL_NAMES_MAX, GOOD = 50 };
    static const struct disk_ops ops = {.run = stuck_run};
    begin();
    check.disk.ops = &ops;
    for (int i = 0; i < STUCK + GOOD; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "in/new/%s%d.batch", i % 100 == 7 ? "good" : "stuck", i);
        make_directory(path);
    }
    uint32_t good_count = 0;
    uint32_t rounds_count = 0;
    uint32_t tries_count = 0;
    while (rounds_count < 2) {
        CU_ASSERT_EQUAL_FATAL(spool_list_new(&spool, wall_s(NOW), &names), 0);
        CU_ASSERT(names.is_part || names.left_count == 0);
        rounds_count += names.left_count == 0;
        tries_count += names.count;
        for (uint32_t i = 0; i < names.count; i++) {
            struct spool_claimed claim = {.name = names.names[i]};
            spool_claim_group(&spool, &claim, 1, wall_s(NOW));
            CHECK_ROW(i, claim.is_gone == (claim.result == 0));
            good_count += claim.is_gone;
        }
    }
    CU_ASSERT_EQUAL(good_count, (STUCK + GOOD + 92) / 100);
    CU_ASSERT(tries_count < 2 * STUCK); /* some of them were passed over */
    end();
}

/* Stopped after any number of operations, with or without what no sync made stable: the batch is in
 * one place, whole, and the claim can be done again. What was claimed stays claimed. */
static void check_claim_after_stop(int64_t left, int loss, bool *is_done)
{
    begin();
    char directory[SPOOL_DIRECTORY_MAX + 1];
    put_batch("in/new/a.batch");
    check.left = left;
    *is_done = spool_one_claim(&spool, "a.batch", wall_s(NOW), directory, &problem) == 0;
    check.left = -1;
    check_disk_settle(&check, loss);
    bool is_new = exists("in/new/a.batch/batch.json");
    bool is_active = exists("active/a.batch/batch.json");
    CHECK_ROW((size_t)left, is_new != is_active);
    CHECK_ROW((size_t)left, !*is_done || is_active);
    CHECK_ROW((size_t)left,
              !is_new || spool_one_claim(&spool, "a.batch", wall_s(NOW), directory, &problem) == 0);
    CHECK_ROW((size_t)left, exists("active/a.batch/batch.json"));
    CHECK_ROW((size_t)left, names_count("badmail") == 0);
    end();
}

static void test_claim_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        for (int64_t left = 0; !is_done && left < 100; left++) {
            check_claim_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
    }
}

/* The same for several at once, one of which is no batch. */
static void check_claims_after_stop(int64_t left, int loss, bool *is_done)
{
    static const char *const NAMES[] = {"a.batch", "no batch", "b.batch", "c.batch"};
    begin();
    struct spool_claimed claims[COUNT_OF(NAMES)];
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        char path[64];
        claims[i].name = NAMES[i];
        (void)snprintf(path, sizeof(path), "in/new/%s", NAMES[i]);
        put_batch(path);
    }
    check.left = left;
    spool_claim_group(&spool, claims, COUNT_OF(NAMES), wall_s(NOW));
    check.left = -1;
    check_disk_settle(&check, loss);
    *is_done = true;
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        bool is_bad = i == 1;
        char path[64];
        (void)snprintf(path, sizeof(path), "active/%s", NAMES[i]);
        bool is_active = exists(path);
        (void)snprintf(path, sizeof(path), "in/new/%s", NAMES[i]);
        CHECK_ROW((size_t)left, is_bad ? !is_active : is_active != exists(path));
        CHECK_ROW((size_t)left, claims[i].result != 0 || is_active);
        *is_done &= claims[i].result == (is_bad ? -EINVAL : 0);
    }
    end();
}

static void test_claims_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        for (int64_t left = 0; !is_done && left < 200; left++) {
            check_claims_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
    }
}

/* A file of a batch is opened only when it is what it should be (conformance.md 4). */
static void test_file_checks(void)
{
    begin();
    put_batch("active/a.batch");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    CU_ASSERT_FATAL(batch_fd >= 0);
    struct spool_file file;
    put_text("active/a.batch/good", "12345");
    CU_ASSERT_EQUAL(spool_file_open(&spool, batch_fd, "good", 5, &file, &problem), 0);
    CU_ASSERT_EQUAL(file.stat.size, 5);
    CU_ASSERT_EQUAL(spool_file_check(&spool, &file), 0);
    spool_file_close(&spool, &file);
    spool_file_close(&spool, &file);

    put_text("active/a.batch/open", "");
    ensure(chmod(at("active/a.batch/open"), 0666) == 0);
    ensure(link(at("active/a.batch/batch.json"), at("active/a.batch/linked")) == 0);
    ensure(symlink("good", at("active/a.batch/link")) == 0);
    ensure(symlink("/etc/passwd", at("active/a.batch/outside")) == 0);
    ensure(symlink("..", at("active/a.batch/up")) == 0);
    ensure(mkfifo(at("active/a.batch/fifo"), 0600) == 0);
    make_directory("active/a.batch/directory");
    put_text("active/a.batch/sparse", "");
    ensure(truncate(at("active/a.batch/sparse"), INT64_C(1) << 40) == 0);
    static const struct {
        const char *name, *words;
    } rows[] = {
        {"missing", "missing: is not there"},
        {"open", "open: anybody may write to it: chmod o-w"},
        {"linked", "linked: has 2 links: copy the file"},
        {"link", "link: is a link"},
        {"outside", "outside: is a link"},
        {"up/a.batch/good", "is a link"},
        {"../../in", "is on another file system"},
        {"fifo", "fifo: not a regular file"},
        {"directory", "directory: not a regular file"},
        {"sparse", "sparse: 1099511627776 bytes, at most 1000000"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        problem.text[0] = '\0';
        int result = spool_file_open(&spool, batch_fd, rows[i].name, 1000000, &file, &problem);
        bool is_right = result == -EINVAL && strstr(problem.text, rows[i].words) != NULL;
        if (!is_right) {
            printf("row %zu: %d %s\n", i, result, problem.text);
        }
        CHECK_ROW(i, is_right);
    }
    if (getuid() == 0 && mknod(at("active/a.batch/device"), S_IFCHR | 0600, makedev(1, 3)) == 0) {
        CU_ASSERT_EQUAL(spool_file_open(&spool, batch_fd, "device", 1, &file, &problem), -EINVAL);
    }
    /* The disk's failures are not the input's. */
    check.failing = DISK_OPEN;
    check.error = -EMFILE;
    CU_ASSERT_EQUAL(spool_file_open(&spool, batch_fd, "good", 5, &file, &problem), -EMFILE);
    check.failing = -1;
    disk_close(&check.disk, batch_fd);
    end();
}

static void test_file_read_and_change(void)
{
    begin();
    put_batch("active/a.batch");
    put_text("active/a.batch/x", "hello");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    char content[16];
    struct writer writer = writer_of(content, sizeof(content));
    CU_ASSERT_EQUAL(spool_file_read(&spool, batch_fd, "x", 10, &writer, &problem), 0);
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("hello")));
    CU_ASSERT_EQUAL(spool_file_read(&spool, batch_fd, "x", 4, &writer, &problem), -EINVAL);

    /* Its owner still has it open and writes. */
    struct spool_file file;
    CU_ASSERT_EQUAL(spool_file_open(&spool, batch_fd, "x", 100, &file, &problem), 0);
    put_text("active/a.batch/x", "hello, later");
    CU_ASSERT_EQUAL(spool_file_check(&spool, &file), -ESTALE);
    spool_file_close(&spool, &file);
    disk_close(&check.disk, batch_fd);
    end();
}

static void test_stream(void)
{
    begin();
    make_directory("active/a.batch");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    static struct spool_stream stream;
    struct manifest bsmtp = {.kind = MANIFEST_BSMTP};
    char list_name[] = "list.csv";
    struct manifest merge = {.kind = MANIFEST_MERGE, .recipients = list_name};
    CU_ASSERT_EQUAL(
        spool_stream_open(&spool, batch_fd, &bsmtp, SPOOL_STREAM_FILES_MAX, &stream, &problem),
        -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "no file messages-*.bsmtp"));
    CU_ASSERT_EQUAL(
        spool_stream_open(&spool, batch_fd, &merge, SPOOL_STREAM_FILES_MAX, &stream, &problem),
        -EINVAL);
    CU_ASSERT_STRING_EQUAL(problem.text, "list.csv: is not there");

    put_text("active/a.batch/list.csv", "to\n");
    CU_ASSERT_EQUAL(
        spool_stream_open(&spool, batch_fd, &merge, SPOOL_STREAM_FILES_MAX, &stream, &problem), 0);
    CU_ASSERT_EQUAL(stream.size, 3);
    CU_ASSERT_STRING_EQUAL(spool_stream_find(&stream, 2)->name, "list.csv");
    spool_stream_close(&spool, &stream);

    /* In the order of their names; an empty file has no byte of the stream. */
    put_text("active/a.batch/messages-b.bsmtp", "22");
    put_text("active/a.batch/messages-c.bsmtp", "");
    put_text("active/a.batch/messages-d.bsmtp", "4");
    put_text("active/a.batch/messages-a.bsmtp", "111");
    put_text("active/a.batch/messages-e.txt", "other");
    CU_ASSERT_EQUAL(
        spool_stream_open(&spool, batch_fd, &bsmtp, SPOOL_STREAM_FILES_MAX, &stream, &problem), 0);
    CU_ASSERT_EQUAL(stream.size, 6);
    CU_ASSERT_EQUAL(stream.files_count, 4);
    static const char want[] = "aaabbd";
    for (uint64_t offset = 0; offset < stream.size; offset++) {
        const struct spool_stream_file *file = spool_stream_find(&stream, offset);
        CHECK_ROW(offset, file->name[sizeof("messages-") - 1] == want[offset]);
        CHECK_ROW(offset, file->start <= offset);
    }
    spool_stream_close(&spool, &stream);
    for (int i = 0; i < SPOOL_STREAM_FILES_MAX; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "active/a.batch/messages-%d.bsmtp", i);
        put_text(path, "x");
    }
    CU_ASSERT_EQUAL(
        spool_stream_open(&spool, batch_fd, &bsmtp, SPOOL_STREAM_FILES_MAX, &stream, &problem),
        -EINVAL);
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "more than 64 files"));
    disk_close(&check.disk, batch_fd);
    end();
}

static void test_rejects(void)
{
    static struct spool_rejects rejects;
    begin();
    make_directory("active/a.batch");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    CU_ASSERT_EQUAL(spool_rejects_open(&spool, batch_fd, &rejects), 0);
    struct spool_reject reject = {.file = SPAN("recipients.csv"),
                                  .line = 7,
                                  .reason = SPAN("no address"),
                                  .remedy = SPAN(""),
                                  .record = SPAN("a\"b\xff\n")};
    spool_rejects_add(&rejects, &reject);
    CU_ASSERT_EQUAL(spool_rejects_sync(&rejects), 0);
    CU_ASSERT_STRING_EQUAL(text_of("active/a.batch/rejects.ndjson"),
                           "{\"file\":\"recipients.csv\",\"line\":7,\"reason\":\"no address\","
                           "\"record\":\"a\\\"b\xef\xbf\xbd\\n\"}\n");
    spool_rejects_close(&rejects);

    /* A new scan begins anew; long records are clipped; more than a buffer of lines arrives. */
    enum { LINES = 1000 };
    char record[2000];
    memset(record, '\x01', sizeof(record));
    CU_ASSERT_EQUAL(spool_rejects_open(&spool, batch_fd, &rejects), 0);
    reject.remedy = SPAN("write it");
    reject.record = span_of(record, sizeof(record));
    for (int i = 0; i < LINES; i++) {
        spool_rejects_add(&rejects, &reject);
    }
    CU_ASSERT_EQUAL(spool_rejects_sync(&rejects), 0);
    CU_ASSERT_EQUAL(rejects.count, LINES);
    spool_rejects_close(&rejects);
    struct stat stat;
    ensure(lstat(at("active/a.batch/rejects.ndjson"), &stat) == 0);
    const char *text = text_of("active/a.batch/rejects.ndjson");
    size_t line_size = strcspn(text, "\n") + 1;
    CU_ASSERT_EQUAL((size_t)stat.st_size, line_size * LINES);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\"remedy\":\"write it\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "\\u0001\",\"is_clipped\":true}\n"));

    /* A full disk sticks, and is told by sync. */
    CU_ASSERT_EQUAL(spool_rejects_open(&spool, batch_fd, &rejects), 0);
    check.failing = DISK_WRITE;
    check.error = -ENOSPC;
    for (int i = 0; i < LINES; i++) {
        spool_rejects_add(&rejects, &reject);
    }
    check.failing = -1;
    CU_ASSERT_EQUAL(spool_rejects_sync(&rejects), -ENOSPC);
    spool_rejects_close(&rejects);
    spool_rejects_close(&rejects);
    disk_close(&check.disk, batch_fd);
    end();
}

static const struct spool_progress SUMMARY = {.id = "a",
                                              .state = "done",
                                              .at = {.ns = NOW * NS_PER_S},
                                              .records = 10,
                                              .accepted = 9,
                                              .rejected = 1,
                                              .delivered = 7,
                                              .bounced = 2,
                                              .rate_1m = 12.34,
                                              .eta_s = -1};

static void test_progress(void)
{
    begin();
    make_directory("active/a.batch");
    int batch_fd = spool_batch_open(&spool, "a.batch");
    struct spool_progress progress = SUMMARY;
    progress.state = "active";
    progress.in_flight = 3;
    progress.eta_s = 60;
    progress.extra = SPAN(",\"by_provider\":{}");
    CU_ASSERT_EQUAL(spool_write_progress(&spool, batch_fd, &progress), 0);
    CU_ASSERT_STRING_EQUAL(
        text_of("active/a.batch/progress.json"),
        "{\"v\":1,\"id\":\"a\",\"state\":\"active\",\"at\":\"2026-12-01T08:00:00.000Z\","
        "\"total\":10,\"accepted\":9,\"rejected\":1,\"pending\":0,\"in_flight\":3,\"deferred\":0,"
        "\"delivered\":7,\"bounced\":2,\"expired\":0,\"cancelled\":0,\"possible_duplicates\":0,"
        "\"rate_1m\":12.3,\"eta_s\":60,\"by_provider\":{}}\n");
    /* What is too much is left out, the rest stays JSON. */
    static char much[128 * 1024];
    memset(much, 'x', sizeof(much));
    progress.extra = span_of(much, sizeof(much));
    CU_ASSERT_EQUAL(spool_write_progress(&spool, batch_fd, &progress), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("active/a.batch/progress.json"), "\"eta_s\":60}\n"));
    disk_close(&check.disk, batch_fd);
    end();
}

static uint64_t stats_count;

static int64_t counting_run(struct disk *disk, struct disk_op *op)
{
    stats_count += op->verb == DISK_STAT;
    return check_disk_run(disk, op);
}

/* Many batches of one name in one day: the number of the next is found in a few looks. */
static void test_free_names(void)
{
    static const struct disk_ops ops = {.run = counting_run};
    begin();
    char path[SPOOL_NAME_MAX + 16];
    char name[SPOOL_NAME_MAX + 1];
    int hold = spool.places[SPOOL_HOLD];
    check.disk.ops = &ops;
    for (int i = 1; i <= 1500; i++) {
        char want[64];
        (void)snprintf(want, sizeof(want), i == 1 ? "a.batch" : "a~%d.batch", i);
        stats_count = 0;
        CU_ASSERT_EQUAL_FATAL(spool_free_name(&spool, hold, "a", ".batch", name), 0);
        CU_ASSERT_STRING_EQUAL_FATAL(name, want);
        CU_ASSERT(stats_count <= 24);
        (void)snprintf(path, sizeof(path), "hold/%s", name);
        make_directory(path);
    }
    ensure(rmdir(at("hold/a~700.batch")) == 0); /* any that is free will do */
    CU_ASSERT_EQUAL(spool_free_name(&spool, hold, "a", ".batch", name), 0);
    (void)snprintf(path, sizeof(path), "hold/%s", name);
    CU_ASSERT_FALSE(exists(path));
    check.disk.ops = &CHECK_DISK_OPS;
    end();
}

static void test_finish(void)
{
    begin();
    char path[SPOOL_PATH_MAX];
    put_batch("active/a.batch");
    put_text("active/a.batch/progress.json", "{}");
    CU_ASSERT_EQUAL(
        spool_one_finish(&spool, "a.batch", SPOOL_END_DONE, &SUMMARY, SPAN(""), wall_s(NOW), path),
        0);
    CU_ASSERT_STRING_EQUAL(path, "done/2026-12-01/a.batch");
    CU_ASSERT(!exists("done/2026-12-01/a.batch/progress.json"));
    CU_ASSERT(exists("done/2026-12-01/a.batch/messages-0.bsmtp"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(text_of("done/2026-12-01/a.batch/summary.json"), "\"eta_s\":null}"));
    CU_ASSERT(!exists("done/2026-12-01/a.batch/reason.txt"));
    CU_ASSERT_EQUAL(
        spool_one_finish(&spool, "a.batch", SPOOL_END_DONE, &SUMMARY, SPAN(""), wall_s(NOW), path),
        -ENOENT);
    put_batch("active/a.batch");
    CU_ASSERT_EQUAL(
        spool_one_finish(&spool, "a.batch", SPOOL_END_DONE, NULL, SPAN(""), wall_s(NOW), path), 0);
    CU_ASSERT_STRING_EQUAL(path, "done/2026-12-01/a~2.batch");
    put_batch("active/a.batch");
    CU_ASSERT_EQUAL(spool_one_finish(&spool, "a.batch", SPOOL_END_FAILED, NULL, SPAN("no sender\n"),
                                     wall_s(NOW + 86400), path),
                    0);
    CU_ASSERT_STRING_EQUAL(path, "failed/2026-12-02/a.batch");
    CU_ASSERT_STRING_EQUAL(text_of("failed/2026-12-02/a.batch/reason.txt"), "no sender\n");
    put_batch("active/a.batch");
    CU_ASSERT_EQUAL(spool_one_finish(&spool, "a.batch", SPOOL_END_HELD, &SUMMARY,
                                     SPAN("2 % rejected\n"), wall_s(NOW), NULL),
                    0);
    CU_ASSERT(exists("hold/a.batch/reason.txt"));
    CU_ASSERT_EQUAL(names_count("active"), 0);
    CHECK_PANICS(CU_ASSERT(
        spool_one_finish(&spool, "a", SPOOL_END_DONE, NULL, SPAN(""), wall_s(NOW), NULL)));
    end();
}

/* The same for the end: the batch is in active/ or in done/, never in both or nowhere; in done/ it
 * has its summary and reason, whole; and finishing again finishes. */
static void check_finish_after_stop(int64_t left, int loss, bool *is_done)
{
    begin();
    put_batch("active/a.batch");
    check.left = left;
    *is_done = spool_one_finish(&spool, "a.batch", SPOOL_END_DONE, &SUMMARY, SPAN("x"), wall_s(NOW),
                                NULL) == 0;
    check.left = -1;
    check_disk_settle(&check, loss);
    bool is_active = exists("active/a.batch/batch.json");
    bool is_there = exists("done/2026-12-01/a.batch/batch.json");
    CHECK_ROW((size_t)left, is_active != is_there);
    CHECK_ROW((size_t)left, !*is_done || is_there);
    CHECK_ROW((size_t)left,
              !is_active || spool_one_finish(&spool, "a.batch", SPOOL_END_DONE, &SUMMARY, SPAN("x"),
                                             wall_s(NOW), NULL) == 0);
    const char *summary = text_of("done/2026-12-01/a.batch/summary.json");
    CHECK_ROW((size_t)left, strstr(summary, "\"eta_s\":null}\n") != NULL);
    CHECK_ROW((size_t)left, strcmp(text_of("done/2026-12-01/a.batch/reason.txt"), "x") == 0);
    end();
}

static void test_finish_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        for (int64_t left = 0; !is_done && left < 100; left++) {
            check_finish_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
    }
}

/* The same for several that end in different ways; one of them is not there. */
static void check_finishes_after_stop(int64_t left, int loss, bool *is_done)
{
    static const struct {
        const char *name;
        enum spool_end end;
        const char *path;
    } ROWS[] = {
        {"a.batch", SPOOL_END_DONE, "done/2026-12-01/a.batch"},
        {"b.batch", SPOOL_END_FAILED, "failed/2026-12-01/b.batch"},
        {"gone.batch", SPOOL_END_DONE, NULL},
        {"c.batch", SPOOL_END_DONE, "done/2026-12-01/c.batch"},
        {"d.batch", SPOOL_END_HELD, "hold/d.batch"},
    };
    begin();
    struct spool_leaving leavings[COUNT_OF(ROWS)];
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char path[64];
        leavings[i].directory = ROWS[i].name;
        leavings[i].batch_fd = -1;
        leavings[i].end = ROWS[i].end;
        leavings[i].summary = &SUMMARY;
        leavings[i].reason = ROWS[i].end == SPOOL_END_DONE ? SPAN("") : SPAN("x");
        (void)snprintf(path, sizeof(path), "active/%s", ROWS[i].name);
        if (ROWS[i].path != NULL) {
            put_batch(path);
        }
    }
    check.left = left;
    spool_finish_group(&spool, leavings, COUNT_OF(ROWS), wall_s(NOW));
    check.left = -1;
    check_disk_settle(&check, loss);
    *is_done = true;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char path[96];
        bool is_there = ROWS[i].path != NULL && exists(ROWS[i].path);
        (void)snprintf(path, sizeof(path), "active/%s/batch.json", ROWS[i].name);
        CHECK_ROW((size_t)left, ROWS[i].path == NULL || exists(path) != is_there);
        CHECK_ROW((size_t)left, leavings[i].result != 0 || is_there);
        if (is_there) {
            (void)snprintf(path, sizeof(path), "%s/summary.json", ROWS[i].path);
            CHECK_ROW((size_t)left, strstr(text_of(path), "\"eta_s\":null}\n") != NULL);
        }
        *is_done &= leavings[i].result == (ROWS[i].path != NULL ? 0 : -ENOENT);
    }
    end();
}

static void test_finishes_after_any_stop(void)
{
    for (int loss = 0; loss < LOSSES_COUNT; loss++) {
        bool is_done = false;
        for (int64_t left = 0; !is_done && left < 200; left++) {
            check_finishes_after_stop(left, loss, &is_done);
        }
        CU_ASSERT(is_done);
    }
}

static void test_sweep_tmp(void)
{
    begin();
    make_directory("in/tmp/fresh");
    make_directory("in/tmp/stale");
    put_text("in/tmp/stale/message.eml", "x");
    struct timespec old[2] = {{.tv_sec = NOW - 100000}, {.tv_sec = NOW - 100000}};
    struct timespec now[2] = {{.tv_sec = NOW - 10}, {.tv_sec = NOW - 10}};
    ensure(utimensat(AT_FDCWD, at("in/tmp/stale"), old, 0) == 0);
    ensure(utimensat(AT_FDCWD, at("in/tmp/fresh"), now, 0) == 0);
    CU_ASSERT_EQUAL(spool_sweep_tmp(&spool, wall_s(NOW)), 1);
    CU_ASSERT_EQUAL(spool_sweep_tmp(&spool, wall_s(NOW)), 0);
    CU_ASSERT(exists("in/tmp/fresh"));
    CU_ASSERT(exists("badmail/stale.bad/message.eml"));
    end();
}

SUITE(spool, test_layout_and_lock, test_open_after_any_stop, test_claim, test_claim_refuses,
      test_owner, test_mute, test_many_names, test_many_names_that_stay, test_claim_after_any_stop,
      test_claims_after_any_stop, test_file_checks, test_file_read_and_change, test_stream,
      test_rejects, test_progress, test_free_names, test_finish, test_finish_after_any_stop,
      test_finishes_after_any_stop, test_sweep_tmp)
