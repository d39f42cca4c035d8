/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/base/disk_suite.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/harness.h"

/* How often the suite lets time pass before it gives up on an op. */
enum { SETTLES_MAX = 1000, BLOCK_SIZE = 4096 };

static int make_file(struct disk_suite *suite, const char *path, const char *content)
{
    int fd = disk_open(suite->disk, suite->dir, path, DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    CU_ASSERT_FATAL(fd >= 0);
    size_t size = strlen(content);
    CU_ASSERT_EQUAL(disk_write(suite->disk, fd, content, size, 0), (int64_t)size);
    return fd;
}

static void make_closed_file(struct disk_suite *suite, const char *path, const char *content)
{
    disk_close(suite->disk, make_file(suite, path, content));
}

static bool content_is(struct disk_suite *suite, const char *path, const char *want)
{
    char content[256];
    int fd = disk_open(suite->disk, suite->dir, path, DISK_READONLY);
    CU_ASSERT_FATAL(fd >= 0);
    int64_t size = disk_read(suite->disk, fd, content, sizeof(content), 0);
    disk_close(suite->disk, fd);
    return size == (int64_t)strlen(want) && memcmp(content, want, (size_t)size) == 0;
}

/* The next completed op; NULL when none came for a very long time. */
static struct disk_op *reap_one(struct disk_suite *suite)
{
    for (size_t i = 0; i < SETTLES_MAX; i++) {
        struct disk_op *op = disk_reap(suite->disk);
        if (op != NULL) {
            return op;
        }
        suite->settle(suite);
    }
    return NULL;
}

static int64_t submit_and_reap(struct disk_suite *suite, struct disk_op *op)
{
    CU_ASSERT_EQUAL_FATAL(disk_submit(suite->disk, op), 0);
    CU_ASSERT_PTR_EQUAL_FATAL(reap_one(suite), op);
    return op->result;
}

static void check_open(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "none", DISK_READONLY), -ENOENT);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "none", DISK_READWRITE), -ENOENT);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "no/ne", DISK_READONLY), -ENOENT);
    unsigned create = DISK_READWRITE | DISK_CREATE;
    int fd = disk_open(disk, suite->dir, "opened", create | DISK_EXCLUSIVE);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "opened", create | DISK_EXCLUSIVE), -EEXIST);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "hello", 5, 0), 5);
    disk_close(disk, fd);

    fd = disk_open(disk, suite->dir, "opened", create);
    CU_ASSERT_FATAL(fd >= 0);
    disk_close(disk, fd);
    CU_ASSERT(content_is(suite, "opened", "hello"));
    fd = disk_open(disk, suite->dir, "opened", DISK_READWRITE | DISK_EMPTY);
    CU_ASSERT_FATAL(fd >= 0);
    disk_close(disk, fd);
    CU_ASSERT(content_is(suite, "opened", ""));

    fd = disk_open(disk, suite->dir, "opened", DISK_READONLY);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "x", 1, 0), -EBADF);
    disk_close(disk, fd);
}

static void check_open_directory(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "sub"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "sub"), -EEXIST);
    make_closed_file(suite, "sub/inner", "in sub");
    int sub = disk_open(disk, suite->dir, "sub", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(sub >= 0);
    int fd = disk_open(disk, sub, "inner", DISK_READONLY);
    CU_ASSERT(fd >= 0);
    CU_ASSERT_EQUAL(disk_open(disk, sub, "inner", DISK_READONLY | DISK_DIRECTORY), -ENOTDIR);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "sub/inner/x", DISK_READONLY), -ENOTDIR);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "sub", DISK_READWRITE), -EISDIR);
    CU_ASSERT_EQUAL(disk_sync(disk, sub), 0);
    disk_close(disk, fd);
    disk_close(disk, sub);
    struct disk_stat stat;
    sub = disk_open(disk, suite->dir, "sub", DISK_PASSAGE | DISK_DIRECTORY);
    CU_ASSERT_FATAL(sub >= 0);
    CU_ASSERT_EQUAL(disk_stat_at(disk, sub, "inner", &stat), 0);
    fd = disk_open(disk, sub, "inner", DISK_READONLY);
    CU_ASSERT(fd >= 0);
    disk_close(disk, fd);
    disk_close(disk, sub);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "sub/inner", DISK_PASSAGE | DISK_DIRECTORY),
                    -ENOTDIR);
}

/* Nothing below a directory leads out of it. */
static void check_escape(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    struct disk_stat stat;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "cage"), 0);
    make_closed_file(suite, "outside", "secret");
    int cage = disk_open(disk, suite->dir, "cage", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(cage >= 0);
    CU_ASSERT_EQUAL(disk_open(disk, cage, "../outside", DISK_READONLY), -EXDEV);
    CU_ASSERT_EQUAL(disk_open(disk, cage, "..", DISK_READONLY | DISK_DIRECTORY), -EXDEV);
    CU_ASSERT_EQUAL(disk_open(disk, cage, "/", DISK_READONLY | DISK_DIRECTORY), -EXDEV);
    CU_ASSERT_EQUAL(disk_stat_at(disk, cage, "..", &stat), -EXDEV);
    CU_ASSERT_EQUAL(disk_stat_at(disk, cage, "../outside", &stat), -EXDEV);
    CU_ASSERT_EQUAL(disk_unlink(disk, cage, "../outside"), -EXDEV);
    CU_ASSERT_EQUAL(disk_mkdir(disk, cage, "../dug"), -EXDEV);
    CU_ASSERT_EQUAL(disk_rename(disk, suite->dir, "outside", cage, "../moved"), -EXDEV);
    CU_ASSERT_EQUAL(disk_rename(disk, cage, "../outside", cage, "mine"), -EXDEV);
    CU_ASSERT(content_is(suite, "outside", "secret"));
    disk_close(disk, cage);
}

static void check_links(struct disk_suite *suite)
{
    if (suite->make_link == NULL) {
        return;
    }
    struct disk *disk = suite->disk;
    struct disk_stat stat;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "real"), 0);
    make_closed_file(suite, "real/file", "linked");
    CU_ASSERT_EQUAL_FATAL(suite->make_link(suite, "real/file", "link"), 0);
    CU_ASSERT_EQUAL_FATAL(suite->make_link(suite, "real", "link_dir"), 0);
    CU_ASSERT_EQUAL_FATAL(suite->make_link(suite, "nowhere", "dangling"), 0);

    unsigned create = DISK_READWRITE | DISK_CREATE;
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "link", DISK_READONLY), -ELOOP);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "link", create | DISK_EMPTY), -ELOOP);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "dangling", create), -ELOOP);
    CU_ASSERT_EQUAL(disk_open(disk, suite->dir, "link_dir/file", DISK_READONLY), -ELOOP);
    CU_ASSERT_EQUAL(disk_stat_at(disk, suite->dir, "link_dir/file", &stat), -ELOOP);
    CU_ASSERT_EQUAL(disk_unlink(disk, suite->dir, "link_dir/file"), -ELOOP);
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "link_dir/new"), -ELOOP);
    CU_ASSERT_EQUAL(disk_rename(disk, suite->dir, "link_dir/file", suite->dir, "got"), -ELOOP);
    CU_ASSERT(content_is(suite, "real/file", "linked"));

    CU_ASSERT_EQUAL(disk_stat_at(disk, suite->dir, "link", &stat), 0);
    CU_ASSERT_EQUAL(stat.kind, DISK_KIND_LINK);
    make_closed_file(suite, "replacement", "new");
    CU_ASSERT_EQUAL(disk_rename(disk, suite->dir, "replacement", suite->dir, "link"), 0);
    CU_ASSERT(content_is(suite, "link", "new"));
    CU_ASSERT(content_is(suite, "real/file", "linked"));
    CU_ASSERT_EQUAL(disk_unlink(disk, suite->dir, "dangling"), 0);
}

/* A FIFO in the spool must not hang the one who opens it; by its kind it is then turned away. */
static void check_fifo(struct disk_suite *suite)
{
    if (suite->make_fifo == NULL) {
        return;
    }
    struct disk *disk = suite->disk;
    struct disk_stat stat;
    CU_ASSERT_EQUAL_FATAL(suite->make_fifo(suite, "fifo"), 0);
    int fd = disk_open(disk, suite->dir, "fifo", DISK_READONLY);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.kind, DISK_KIND_OTHER);
    disk_close(disk, fd);
}

static void check_stat(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    struct disk_stat by_name = {0};
    struct disk_stat by_fd = {0};
    int fd = make_file(suite, "known", "12345");
    CU_ASSERT_EQUAL(disk_stat_at(disk, suite->dir, "known", &by_name), 0);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &by_fd), 0);
    CU_ASSERT_EQUAL(by_name.kind, DISK_KIND_FILE);
    CU_ASSERT_EQUAL(by_name.size, 5);
    CU_ASSERT_EQUAL(by_name.links_count, 1);
    CU_ASSERT_EQUAL(by_name.inode, by_fd.inode);
    CU_ASSERT_EQUAL(by_name.mtime_ns, by_fd.mtime_ns);
    CU_ASSERT_EQUAL(by_name.mode & 0600, 0600);
    CU_ASSERT_EQUAL(by_name.mode & 0007, 0);
    disk_close(disk, fd);

    CU_ASSERT_EQUAL(disk_stat_fd(disk, suite->dir, &by_fd), 0);
    CU_ASSERT_EQUAL(by_fd.kind, DISK_KIND_DIRECTORY);
    CU_ASSERT_NOT_EQUAL(by_name.inode, by_fd.inode);
    CU_ASSERT_EQUAL(disk_stat_at(disk, suite->dir, "unknown", &by_name), -ENOENT);
    CU_ASSERT_EQUAL(by_name.size, 5);
}

enum { LISTED_COUNT = 700 };

struct listed {
    bool seen[LISTED_COUNT];
    uint32_t files_count;
    uint32_t directories_count;
    uint32_t strangers_count;
};

static void on_listed(void *context, const char *name, enum disk_kind kind)
{
    struct listed *listed = context;
    unsigned number;
    if (strcmp(name, "directory") == 0 && kind == DISK_KIND_DIRECTORY) {
        listed->directories_count++;
    } else if (kind == DISK_KIND_FILE && sscanf(name, "a-rather-long-name-%u", &number) == 1 &&
               number < LISTED_COUNT && !listed->seen[number]) {
        listed->seen[number] = true;
        listed->files_count++;
    } else {
        listed->strangers_count++;
    }
}

static void check_list(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "many"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "many/directory"), 0);
    for (unsigned i = 0; i < LISTED_COUNT; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "many/a-rather-long-name-%u", i);
        make_closed_file(suite, name, "");
    }
    int fd = disk_open(disk, suite->dir, "many", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(fd >= 0);
    for (size_t round = 0; round < 2; round++) { /* the second one starts at the first name again */
        struct listed listed = {0};
        CHECK_ROW(round, disk_list(disk, fd, on_listed, &listed) == 0);
        CHECK_ROW(round, listed.files_count == LISTED_COUNT);
        CHECK_ROW(round, listed.directories_count == 1);
        CHECK_ROW(round, listed.strangers_count == 0);
    }
    disk_close(disk, fd);

    struct listed listed = {0};
    fd = make_file(suite, "no_directory", "");
    CU_ASSERT_EQUAL(disk_list(disk, fd, on_listed, &listed), -ENOTDIR);
    disk_close(disk, fd);
}

static void check_rename(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    int dir = suite->dir;
    CU_ASSERT_EQUAL(disk_mkdir(disk, dir, "empty"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, dir, "full"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, dir, "moving"), 0);
    make_closed_file(suite, "full/inner", "kept");
    make_closed_file(suite, "old", "old");
    make_closed_file(suite, "new", "new");
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "nothing", dir, "old"), -ENOENT);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "new", dir, "no/where"), -ENOENT);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "new", dir, "old"), 0);
    CU_ASSERT(content_is(suite, "old", "new"));
    CU_ASSERT_EQUAL(disk_open(disk, dir, "new", DISK_READONLY), -ENOENT);

    CU_ASSERT_EQUAL(disk_rename(disk, dir, "moving", dir, "empty"), -EEXIST);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "moving", dir, "full"), -EEXIST);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "old", dir, "empty"), -EEXIST);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "moving", dir, "old"), -ENOTDIR);
    CU_ASSERT(content_is(suite, "full/inner", "kept"));

    int full = disk_open(disk, dir, "full", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(full >= 0);
    CU_ASSERT_EQUAL(disk_rename(disk, dir, "moving", full, "moved"), 0);
    CU_ASSERT_EQUAL(disk_rename(disk, full, "inner", dir, "full/moved/inner"), 0);
    CU_ASSERT(content_is(suite, "full/moved/inner", "kept"));
    disk_close(disk, full);
}

static int64_t run_rmdir(struct disk_suite *suite, const char *path)
{
    struct disk_op op = {.verb = DISK_RMDIR, .dir = suite->dir, .path = path};
    return disk_run(suite->disk, &op);
}

static void check_unlink(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "doomed"), 0);
    int fd = make_file(suite, "doomed/file", "still there");
    CU_ASSERT_EQUAL(run_rmdir(suite, "doomed"), -ENOTEMPTY);
    CU_ASSERT_EQUAL(disk_unlink(disk, suite->dir, "doomed"), -EISDIR);
    CU_ASSERT_EQUAL(run_rmdir(suite, "doomed/file"), -ENOTDIR);
    CU_ASSERT_EQUAL(disk_unlink(disk, suite->dir, "doomed/file"), 0);
    CU_ASSERT_EQUAL(disk_unlink(disk, suite->dir, "doomed/file"), -ENOENT);
    CU_ASSERT_EQUAL(run_rmdir(suite, "doomed"), 0);
    CU_ASSERT_EQUAL(run_rmdir(suite, "doomed"), -ENOENT);

    char content[32]; /* an open file outlives its name */
    struct disk_stat stat;
    CU_ASSERT_EQUAL(disk_read(disk, fd, content, sizeof(content), 0), 11);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.links_count, 0);
    disk_close(disk, fd);
}

static void check_read(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    int fd = make_file(suite, "ten", "0123456789");
    static const struct {
        size_t size;
        uint64_t offset;
        int64_t want;
    } rows[] = {
        {10, 0, 10}, {20, 0, 10}, {4, 3, 4}, {4, 8, 2}, {4, 10, 0}, {4, 1000, 0}, {0, 0, 0},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char now[32] = {0};
        char later[32] = {0};
        CHECK_ROW(i, disk_read(disk, fd, now, rows[i].size, rows[i].offset) == rows[i].want);
        struct disk_op op = {.verb = DISK_READ,
                             .fd = fd,
                             .at = later,
                             .size = rows[i].size,
                             .offset = rows[i].offset};
        CHECK_ROW(i, submit_and_reap(suite, &op) == rows[i].want);
        CHECK_ROW(i, memcmp(now, later, sizeof(now)) == 0);
        CHECK_ROW(i, memcmp(now, &"0123456789"[rows[i].want > 0 ? rows[i].offset : 10],
                            (size_t)rows[i].want) == 0);
    }
    disk_close(disk, fd);
    char byte;
    CU_ASSERT_EQUAL(disk_read(disk, suite->dir, &byte, 1, 0), -EISDIR);
    struct disk_op op = {.verb = DISK_READ, .fd = suite->dir, .at = &byte, .size = 1};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), -EISDIR);
}

static void check_write(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    struct disk_stat stat;
    int fd = make_file(suite, "written", "aaaa");
    CU_ASSERT_EQUAL(disk_write(disk, fd, "bb", 2, 1), 2);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "cc", 2, 4), 2);
    CU_ASSERT(content_is(suite, "written", "abbacc"));
    CU_ASSERT_EQUAL(disk_write(disk, fd, "z", 1, 8), 1); /* a hole reads as zero */
    char content[16] = "................";
    CU_ASSERT_EQUAL(disk_read(disk, fd, content, sizeof(content), 0), 9);
    CU_ASSERT(memcmp(content, "abbacc\0\0z", 9) == 0);

    struct disk_op op = {.verb = DISK_WRITE, .fd = fd, .at = content, .size = 3, .offset = 9};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 3);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.size, 12);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "", 0, 100), 0);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.size, 12);
    disk_close(disk, fd);
}

static void check_sizes(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    struct disk_stat stat;
    int fd = make_file(suite, "sized", "0123456789");
    struct disk_op op = {.verb = DISK_TRUNCATE, .fd = fd, .size = 4};
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    CU_ASSERT(content_is(suite, "sized", "0123"));
    op = (struct disk_op){.verb = DISK_ALLOCATE, .fd = fd, .size = 3 * BLOCK_SIZE};
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.size, 3 * BLOCK_SIZE);
    char content[8];
    CU_ASSERT_EQUAL(disk_read(disk, fd, content, sizeof(content), 0), 8);
    CU_ASSERT(memcmp(content, "0123\0\0\0\0", 8) == 0);
    op = (struct disk_op){.verb = DISK_ALLOCATE, .fd = fd, .size = BLOCK_SIZE};
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    CU_ASSERT_EQUAL(disk_stat_fd(disk, fd, &stat), 0);
    CU_ASSERT_EQUAL(stat.size, 3 * BLOCK_SIZE);

    op = (struct disk_op){.verb = DISK_FREE_SPACE, .fd = suite->dir};
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    CU_ASSERT(op.stat.size > 0);
    disk_close(disk, fd);
}

static void check_sync(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    int fd = make_file(suite, "synced", "data");
    CU_ASSERT_EQUAL(disk_datasync(disk, fd), 0);
    CU_ASSERT_EQUAL(disk_sync(disk, fd), 0);
    CU_ASSERT_EQUAL(disk_sync(disk, suite->dir), 0);
    struct disk_op op = {.verb = DISK_DATASYNC, .fd = fd};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
    op = (struct disk_op){.verb = DISK_SYNC, .fd = suite->dir};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
    disk_close(disk, fd);
}

/* Side by side, one of them of a descriptor that is closed; an op of somebody else's that is under
 * way meanwhile is handed out by reap, as ever. */
static void check_sync_together(struct disk_suite *suite)
{
    char bytes[4];
    int fd = make_file(suite, "together", "data");
    int closed = make_file(suite, "apart", "data");
    disk_close(suite->disk, closed);
    struct disk_op read = {.verb = DISK_READ, .fd = fd, .at = bytes, .size = sizeof(bytes)};
    CU_ASSERT_EQUAL(disk_submit(suite->disk, &read), 0);
    struct disk_op ops[DISK_FILES_MAX];
    for (size_t i = 0; i < COUNT_OF(ops); i++) {
        ops[i] = (struct disk_op){.verb = i % 2 == 0 ? DISK_DATASYNC : DISK_SYNC,
                                  .fd = i == 7       ? closed
                                        : i % 2 == 0 ? fd
                                                     : suite->dir};
    }
    disk_run_all(suite->disk, ops, COUNT_OF(ops));
    for (size_t i = 0; i < COUNT_OF(ops); i++) {
        CHECK_ROW(i, ops[i].result == (i == 7 ? -EBADF : 0));
    }
    CU_ASSERT_PTR_EQUAL(reap_one(suite), &read);
    CU_ASSERT_EQUAL(read.result, sizeof(bytes));
    CU_ASSERT_PTR_NULL(disk_reap(suite->disk));
    disk_close(suite->disk, fd);
}

/* The descriptor is closed already: every verb that takes one says so, run and submitted. */
static void check_bad_fd(struct disk_suite *suite)
{
    static const enum disk_verb verbs[] = {DISK_READ,  DISK_WRITE,    DISK_DATASYNC,
                                           DISK_SYNC,  DISK_TRUNCATE, DISK_LOCK,
                                           DISK_CLOSE, DISK_STAT,     DISK_ALLOCATE};
    int fd = make_file(suite, "closed", "data");
    disk_close(suite->disk, fd);
    for (size_t i = 0; i < COUNT_OF(verbs); i++) {
        char byte = 'x';
        struct disk_op op = {.verb = verbs[i], .fd = fd, .at = &byte, .size = 1};
        CHECK_ROW(i, disk_run(suite->disk, &op) == -EBADF);
        op.result = 0;
        CHECK_ROW(i, submit_and_reap(suite, &op) == -EBADF);
    }
}

static void check_lock(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    int first = make_file(suite, "locked", "");
    int second = disk_open(disk, suite->dir, "locked", DISK_READWRITE);
    CU_ASSERT_FATAL(second >= 0);
    struct disk_op op = {.verb = DISK_LOCK, .fd = first};
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0); /* one's own lock is no conflict */
    op = (struct disk_op){.verb = DISK_LOCK, .fd = second};
    CU_ASSERT_EQUAL(disk_run(disk, &op), -EWOULDBLOCK);
    disk_close(disk, first);
    CU_ASSERT_EQUAL(disk_run(disk, &op), 0);
    disk_close(disk, second);
}

/* As many as there may be, reads and writes mixed over one file, each on its own block. */
static void check_many_in_flight(struct disk_suite *suite)
{
    static char blocks[DISK_OPS_MAX][BLOCK_SIZE];
    static struct disk_op ops[DISK_OPS_MAX];
    static bool is_reaped[DISK_OPS_MAX];
    int fd = make_file(suite, "busy", "");
    for (size_t round = 0; round < 4; round++) {
        for (size_t i = 0; i < DISK_OPS_MAX; i++) {
            bool is_write = round % 2 == 0;
            memset(blocks[i], is_write ? (int)('a' + (i + round) % 26) : 0, BLOCK_SIZE);
            is_reaped[i] = false;
            ops[i] = (struct disk_op){.verb = is_write ? DISK_WRITE : DISK_READ,
                                      .fd = fd,
                                      .at = blocks[i],
                                      .size = BLOCK_SIZE,
                                      .offset = i * BLOCK_SIZE,
                                      .user = &is_reaped[i]};
            CHECK_ROW(i, disk_submit(suite->disk, &ops[i]) == 0);
        }
        struct disk_op extra = {.verb = DISK_DATASYNC, .fd = fd};
        CHECK_ROW(round, disk_submit(suite->disk, &extra) == -EAGAIN);
        for (size_t i = 0; i < DISK_OPS_MAX; i++) {
            struct disk_op *op = reap_one(suite);
            CU_ASSERT_PTR_NOT_NULL_FATAL(op);
            bool *reaped = op->user;
            CHECK_ROW(i, !*reaped);
            CHECK_ROW(i, op->result == BLOCK_SIZE);
            *reaped = true;
        }
        CHECK_ROW(round, disk_reap(suite->disk) == NULL);
        CHECK_ROW(round, submit_and_reap(suite, &extra) == 0);
        for (size_t i = 0; i < DISK_OPS_MAX; i++) {
            char want = (char)('a' + (i + round / 2 * 2) % 26);
            CHECK_ROW(i, blocks[i][0] == want && blocks[i][BLOCK_SIZE - 1] == want);
        }
    }
    disk_close(suite->disk, fd);
}

/* The verbs on names go through submit too. */
static void check_submit_names(struct disk_suite *suite)
{
    struct disk_op op = {.verb = DISK_MKDIR, .dir = suite->dir, .path = "submitted"};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), -EEXIST);
    op = (struct disk_op){.verb = DISK_STAT, .dir = suite->dir, .path = "submitted"};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
    CU_ASSERT_EQUAL(op.stat.kind, DISK_KIND_DIRECTORY);
    op = (struct disk_op){.verb = DISK_OPEN, .dir = suite->dir, .path = "submitted"};
    op.flags = DISK_READONLY | DISK_DIRECTORY;
    CU_ASSERT_FATAL(submit_and_reap(suite, &op) >= 0);
    op = (struct disk_op){.verb = DISK_CLOSE, .fd = (int)op.result};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
    op = (struct disk_op){.verb = DISK_RMDIR, .dir = suite->dir, .path = "submitted"};
    CU_ASSERT_EQUAL(submit_and_reap(suite, &op), 0);
}

static void check_write_file(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "whole"), 0);
    CU_ASSERT_EQUAL(disk_write_file(disk, suite->dir, "whole/a", SPAN("one"), false), 0);
    CU_ASSERT(content_is(suite, "whole/a", "one"));
    CU_ASSERT_EQUAL(disk_write_file(disk, suite->dir, "whole/a", SPAN("2"), true), 0);
    CU_ASSERT(content_is(suite, "whole/a", "2"));
    CU_ASSERT_EQUAL(disk_write_file(disk, suite->dir, "top", SPAN(""), true), 0);
    CU_ASSERT(content_is(suite, "top", ""));
    CU_ASSERT_EQUAL(disk_write_file(disk, suite->dir, "gone/a", SPAN("x"), true), -ENOENT);
    CU_ASSERT_EQUAL(disk_write_file(disk, suite->dir, "whole", SPAN("x"), true), -EEXIST);

    struct listed listed = {0}; /* no temporary file is left: only "a" is a stranger */
    int fd = disk_open(disk, suite->dir, "whole", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_list(disk, fd, on_listed, &listed), 0);
    CU_ASSERT_EQUAL(listed.strangers_count, 1);
    disk_close(disk, fd);
    struct disk_stat stat;
    CU_ASSERT_EQUAL(disk_stat_at(disk, suite->dir, ".whole.tmp", &stat), -ENOENT);
}

static bool watch_fires(struct disk_suite *suite)
{
    for (size_t i = 0; i < SETTLES_MAX; i++) {
        if (suite->disk->ops->watch_fired(suite->disk)) {
            return true;
        }
        suite->settle(suite);
    }
    return false;
}

/* Reads away what is left of the change before, so that the next one can be told from it. */
static void watch_quiesce(struct disk_suite *suite)
{
    while (suite->disk->ops->watch_fired(suite->disk)) {
    }
}

static void check_watch(struct disk_suite *suite)
{
    struct disk *disk = suite->disk;
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "watched"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(disk, suite->dir, "other"), 0);
    int watched = disk_open(disk, suite->dir, "watched", DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(watched >= 0);
    CU_ASSERT_EQUAL_FATAL(disk->ops->watch(disk, watched), 0);
    CU_ASSERT(!disk->ops->watch_fired(disk));

    make_closed_file(suite, "watched/a", "new");
    CU_ASSERT(watch_fires(suite));
    watch_quiesce(suite);
    make_closed_file(suite, "other/b", "new");
    CU_ASSERT(!disk->ops->watch_fired(disk));
    CU_ASSERT_EQUAL(disk_rename(disk, suite->dir, "other/b", watched, "b"), 0);
    CU_ASSERT(watch_fires(suite));
    watch_quiesce(suite);
    CU_ASSERT_EQUAL(disk_mkdir(disk, watched, "c"), 0);
    CU_ASSERT(watch_fires(suite));
    watch_quiesce(suite);
    int fd = disk_open(disk, watched, "a", DISK_READWRITE);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "more", 4, 0), 4);
    disk_close(disk, fd);
    CU_ASSERT(watch_fires(suite));
    watch_quiesce(suite);

    CU_ASSERT_EQUAL(disk->ops->watch(disk, -1), 0);
    make_closed_file(suite, "watched/d", "new");
    CU_ASSERT(!disk->ops->watch_fired(disk));
    CU_ASSERT_EQUAL_FATAL(disk->ops->watch(disk, watched), 0); /* and once more */
    make_closed_file(suite, "watched/e", "new");
    CU_ASSERT(watch_fires(suite));
    CU_ASSERT_EQUAL(disk->ops->watch(disk, -1), 0);
    disk_close(disk, watched);
}

void disk_suite_run(struct disk_suite *suite)
{
    static void (*const checks[])(struct disk_suite * suite) = {
        check_open,   check_open_directory, check_escape,       check_links,
        check_fifo,   check_stat,           check_list,         check_rename,
        check_unlink, check_read,           check_write,        check_sizes,
        check_sync,   check_sync_together,  check_bad_fd,       check_lock,
        check_watch,  check_many_in_flight, check_submit_names, check_write_file,
    };
    for (size_t i = 0; i < COUNT_OF(checks); i++) {
        checks[i](suite);
    }
    CU_ASSERT_PTR_NULL(disk_reap(suite->disk));
}
