/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include <errno.h>
#include <string.h>

#include "tests/harness.h"

enum { OPS_MAX = 32, NEVER = OPS_MAX };

/* A disk that only writes down what it is asked, and fails the op it is told to fail. */
struct spy {
    struct disk disk;
    struct disk_op ops[OPS_MAX];
    char paths[OPS_MAX][64];
    size_t count;
    size_t fail_index;
    int open_count;
};

static int64_t spy_run(struct disk *disk, struct disk_op *op)
{
    struct spy *spy = CONTAINER_OF(disk, struct spy, disk);
    ensure(spy->count < OPS_MAX);
    size_t index = spy->count++;
    spy->ops[index] = *op;
    if (op->path != NULL) {
        size_t size = strlen(op->path);
        ensure(size < sizeof(spy->paths[index]));
        memcpy(spy->paths[index], op->path, size + 1);
    }
    if (op->verb == DISK_CLOSE) {
        spy->open_count--;
    }
    if (index == spy->fail_index) {
        op->result = -EIO;
    } else if (op->verb == DISK_OPEN) {
        spy->open_count++;
        op->result = 40 + (int)index;
    } else {
        op->result = op->verb == DISK_WRITE || op->verb == DISK_READ ? (int64_t)op->size : 0;
    }
    op->stat.size = 77;
    return op->result;
}

static void spy_destroy(struct disk *disk)
{
    CONTAINER_OF(disk, struct spy, disk)->count = 0;
}

static void spy_init(struct spy *spy, size_t fail_index)
{
    static const struct disk_ops ops = {.run = spy_run, .destroy = spy_destroy};
    *spy = (struct spy){.disk = {.ops = &ops}, .fail_index = fail_index};
}

static bool verbs_are(const struct spy *spy, const enum disk_verb *verbs, size_t count)
{
    for (size_t i = 0; i < count && i < spy->count; i++) {
        if (spy->ops[i].verb != verbs[i]) {
            return false;
        }
    }
    return spy->count == count;
}

/* The order is the durability: content before name, name before the word that it is done. */
static void test_write_file_durable(void)
{
    static const enum disk_verb want[] = {DISK_OPEN,   DISK_WRITE, DISK_DATASYNC, DISK_CLOSE,
                                          DISK_RENAME, DISK_OPEN,  DISK_SYNC,     DISK_CLOSE};
    struct spy spy;
    spy_init(&spy, NEVER);
    CU_ASSERT_EQUAL(disk_write_file(&spy.disk, 5, "sub/name", SPAN("content"), true), 0);
    CU_ASSERT(verbs_are(&spy, want, COUNT_OF(want)));
    CU_ASSERT_STRING_EQUAL(spy.paths[0], "sub/.name.tmp");
    CU_ASSERT_EQUAL(spy.ops[0].dir, 5);
    CU_ASSERT_EQUAL(spy.ops[0].flags, DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    CU_ASSERT_EQUAL(spy.ops[1].size, 7);
    CU_ASSERT_EQUAL(spy.ops[2].fd, spy.ops[1].fd);
    CU_ASSERT_STRING_EQUAL(spy.paths[4], "sub/.name.tmp");
    CU_ASSERT_EQUAL(spy.ops[4].dir_to, 5);
    CU_ASSERT_STRING_EQUAL(spy.paths[5], "sub/");
    CU_ASSERT_EQUAL(spy.ops[5].flags, DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_EQUAL(spy.ops[6].fd, 45);

    spy_init(&spy, NEVER);
    CU_ASSERT_EQUAL(disk_write_file(&spy.disk, DISK_ROOT, "name", SPAN("content"), true), 0);
    CU_ASSERT(verbs_are(&spy, want, COUNT_OF(want)));
    CU_ASSERT_STRING_EQUAL(spy.paths[0], ".name.tmp");
    CU_ASSERT_STRING_EQUAL(spy.paths[5], ".");
}

static void test_write_file_quick(void)
{
    static const enum disk_verb want[] = {DISK_OPEN, DISK_WRITE, DISK_CLOSE, DISK_RENAME};
    struct spy spy;
    spy_init(&spy, NEVER);
    CU_ASSERT_EQUAL(disk_write_file(&spy.disk, 5, "name", SPAN("content"), false), 0);
    CU_ASSERT(verbs_are(&spy, want, COUNT_OF(want)));
}

/* Each op fails once: the caller learns of it, nothing stays open, and no temporary file stays when
 * the name was not reached. A failed close loses nothing: the content is synced. */
static void test_write_file_fails_at_each_op(void)
{
    static const bool wants_unlink[] = {true, true, true, false, true, false, false, false};
    struct spy spy;
    for (size_t i = 0; i < COUNT_OF(wants_unlink); i++) {
        spy_init(&spy, i);
        int result = disk_write_file(&spy.disk, 5, "name", SPAN("content"), true);
        bool is_close = spy.ops[i].verb == DISK_CLOSE;
        CHECK_ROW(i, result == (is_close ? 0 : -EIO));
        CHECK_ROW(i, spy.open_count == 0);
        const struct disk_op *last = &spy.ops[spy.count - 1];
        CHECK_ROW(i, (last->verb == DISK_UNLINK) == wants_unlink[i]);
        CHECK_ROW(i, !wants_unlink[i] || strcmp(spy.paths[spy.count - 1], ".name.tmp") == 0);
    }
}

static void test_write_file_name_too_long(void)
{
    static char path[5000];
    struct spy spy;
    spy_init(&spy, NEVER);
    memset(path, 'a', sizeof(path) - 1);
    CU_ASSERT_EQUAL(disk_write_file(&spy.disk, 5, path, SPAN("content"), true), -ENAMETOOLONG);
    CU_ASSERT_EQUAL(spy.count, 0);
}

/* Contents before names, names before the word: for all of them. One whose directory is not there
 * does not hold up the other. */
static void test_write_files(void)
{
    static const enum disk_verb want[] = {DISK_OPEN,     DISK_WRITE,    DISK_OPEN,  DISK_WRITE,
                                          DISK_DATASYNC, DISK_DATASYNC, DISK_CLOSE, DISK_RENAME,
                                          DISK_CLOSE,    DISK_RENAME,   DISK_SYNC,  DISK_SYNC};
    for (size_t fail = 0; fail <= COUNT_OF(want); fail++) {
        struct spy spy;
        spy_init(&spy, fail == COUNT_OF(want) ? NEVER : fail);
        struct disk_file files[] = {{.dir = 5, .path = "one", .content = SPAN("content")},
                                    {.dir = 6, .path = "two", .content = SPAN("content")}};
        disk_write_files(&spy.disk, files, COUNT_OF(files));
        bool is_close = fail < COUNT_OF(want) && want[fail] == DISK_CLOSE;
        int failed_count = (files[0].result == -EIO) + (files[1].result == -EIO);
        CHECK_ROW(fail, failed_count == (fail < COUNT_OF(want) && !is_close));
        CHECK_ROW(fail, is_close || spy.open_count == 0);
        CHECK_ROW(fail, fail < COUNT_OF(want) || verbs_are(&spy, want, COUNT_OF(want)));
        CHECK_ROW(fail, spy.ops[0].dir == 5 && strcmp(spy.paths[0], ".one.tmp") == 0);
    }
}

static void on_name(void *context, const char *name, enum disk_kind kind)
{
    (void)context;
    (void)name;
    (void)kind;
}

static void test_shorthands_ask_rightly(void)
{
    struct spy spy;
    struct disk_stat stat = {0};
    char bytes[4];
    spy_init(&spy, NEVER);
    struct disk *disk = &spy.disk;
    CU_ASSERT_EQUAL(disk_open(disk, 3, "a", DISK_READONLY), 40);
    disk_close(disk, 40);
    CU_ASSERT_EQUAL(disk_stat_at(disk, 3, "b", &stat), 0);
    CU_ASSERT_EQUAL(stat.size, 77);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, 8, &stat), 0);
    CU_ASSERT_EQUAL(disk_list(disk, 9, on_name, &spy), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, 3, "c"), 0);
    CU_ASSERT_EQUAL(disk_rename(disk, 3, "d", 4, "e"), 0);
    CU_ASSERT_EQUAL(disk_unlink(disk, 3, "f"), 0);
    CU_ASSERT_EQUAL(disk_read(disk, 7, bytes, 4, 100), 4);
    CU_ASSERT_EQUAL(disk_write(disk, 7, bytes, 3, 200), 3);
    CU_ASSERT_EQUAL(disk_datasync(disk, 7), 0);
    CU_ASSERT_EQUAL(disk_sync(disk, 7), 0);
    static const enum disk_verb want[] = {DISK_OPEN, DISK_CLOSE, DISK_STAT,     DISK_STAT,
                                          DISK_LIST, DISK_MKDIR, DISK_RENAME,   DISK_UNLINK,
                                          DISK_READ, DISK_WRITE, DISK_DATASYNC, DISK_SYNC};
    CU_ASSERT(verbs_are(&spy, want, COUNT_OF(want)));
    CU_ASSERT_EQUAL(spy.ops[1].fd, 40);
    CU_ASSERT_STRING_EQUAL(spy.paths[3], "");
    CU_ASSERT_EQUAL(spy.ops[3].fd, 8);
    CU_ASSERT_PTR_EQUAL(spy.ops[4].context, &spy);
    CU_ASSERT_EQUAL(spy.ops[6].dir_to, 4);
    CU_ASSERT_STRING_EQUAL(spy.ops[6].path_to, "e");
    CU_ASSERT_EQUAL(spy.ops[8].offset, 100);
    CU_ASSERT_EQUAL(spy.ops[9].offset, 200);
    disk_destroy(disk);
    CU_ASSERT_EQUAL(spy.count, 0);
}

/* What is asked for stays untouched when it cannot be had. */
static void test_stat_failure(void)
{
    struct spy spy;
    struct disk_stat stat = {.size = 1};
    spy_init(&spy, 0);
    CU_ASSERT_EQUAL(disk_stat_at(&spy.disk, 3, "a", &stat), -EIO);
    spy_init(&spy, 0);
    CU_ASSERT_EQUAL(disk_stat_fd(&spy.disk, 3, &stat), -EIO);
    CU_ASSERT_EQUAL(stat.size, 1);
    CHECK_PANICS(disk_stat_at(&spy.disk, 3, "", &stat));
}

SUITE(disk, test_write_file_durable, test_write_file_quick, test_write_file_fails_at_each_op,
      test_write_file_name_too_long, test_write_files, test_shorthands_ask_rightly,
      test_stat_failure)
