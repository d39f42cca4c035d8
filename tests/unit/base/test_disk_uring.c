/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/unit/base/real_disk.h"

static void begin_or_skip(struct real_disk *real)
{
    if (!real_disk_begin(real, disk_uring_create)) {
        test_skip("io_uring is not permitted here");
    }
}

static void test_suite(void)
{
    struct real_disk real;
    begin_or_skip(&real);
    disk_suite_run(&real.suite);
    real_disk_end(&real);
}

static void test_wait(void)
{
    struct real_disk real;
    begin_or_skip(&real);
    real_disk_check_wait(&real);
    real_disk_end(&real);
}

/* Boot makes the disk, another thread owns it. */
static void *own_disk(void *context)
{
    struct real_disk *real = context;
    disk_suite_run(&real->suite);
    real_disk_check_wait(real);
    return NULL;
}

static void test_owner_is_another_thread(void)
{
    struct real_disk real;
    pthread_t thread;
    begin_or_skip(&real);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, own_disk, &real), 0);
    CU_ASSERT_EQUAL(pthread_join(thread, NULL), 0);
    real_disk_end(&real);
}

/* At a stop the owner's thread ends first: what it polled for is cancelled, what it had not flushed
 * yet goes out with the next call, and the disk serves the one who is left. */
struct ended_owner {
    struct disk *disk;
    int dir;
    struct disk_op op;
};

static void *own_and_end(void *context)
{
    struct ended_owner *owner = context;
    struct disk *disk = owner->disk;
    CU_ASSERT_EQUAL(disk->ops->watch(disk, owner->dir), 0);
    disk->ops->wait(disk, 0);
    owner->op = (struct disk_op){.verb = DISK_SYNC, .fd = owner->dir};
    CU_ASSERT_EQUAL(disk_submit(disk, &owner->op), 0);
    return NULL;
}

static void test_owner_has_ended(void)
{
    struct real_disk real;
    pthread_t thread;
    begin_or_skip(&real);
    struct disk *disk = real.suite.disk;
    struct ended_owner owner = {.disk = disk, .dir = real.suite.dir};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, own_and_end, &owner), 0);
    CU_ASSERT_EQUAL(pthread_join(thread, NULL), 0);
    struct disk_op *op;
    while ((op = disk_reap(disk)) == NULL) {
        disk->ops->wait(disk, -1);
    }
    CU_ASSERT_PTR_EQUAL(op, &owner.op);
    CU_ASSERT_EQUAL(op->result, 0);
    real_disk_check_wait(&real);
    real_disk_end(&real);
}

static struct disk_op *wait_one(struct disk *disk)
{
    struct disk_op *op;
    while ((op = disk_reap(disk)) == NULL) {
        disk->ops->wait(disk, -1);
    }
    return op;
}

/* A pipe gives what it has: the op goes back into the ring for the rest, and ends with the writer.
 * The op is the disk's meanwhile; only this test peeks into it. */
static void test_short_reads_are_continued(void)
{
    static const struct {
        const char *piece;
        int64_t sum;
    } rows[] = {{"abc", 3}, {"defg", 7}};
    struct real_disk real;
    int ends[2];
    char content[16] = {0};
    begin_or_skip(&real);
    struct disk *disk = real.suite.disk;
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    struct disk_op op = {.verb = DISK_READ, .fd = ends[0], .at = content, .size = 10};
    CU_ASSERT_EQUAL(disk_submit(disk, &op), 0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        size_t size = strlen(rows[i].piece);
        CHECK_ROW(i, write(ends[1], rows[i].piece, size) == (ssize_t)size);
        CU_ASSERT_PTR_NULL_FATAL(disk_reap(disk));
        while (op.result < rows[i].sum) {
            disk->ops->wait(disk, -1);
            CU_ASSERT_PTR_NULL_FATAL(disk_reap(disk));
        }
    }
    CU_ASSERT_EQUAL(close(ends[1]), 0);
    CU_ASSERT_PTR_EQUAL(wait_one(disk), &op);
    CU_ASSERT_EQUAL(op.result, 7);
    CU_ASSERT_STRING_EQUAL(content, "abcdefg");
    CU_ASSERT_EQUAL(close(ends[0]), 0);
    real_disk_end(&real);
}

/* A pipe takes what it has room for: the write goes on as the reader makes room. */
static void *read_all(void *context)
{
    static char content[65536];
    int fd = *(int *)context;
    size_t sum = 0;
    ssize_t size;
    while ((size = read(fd, content, sizeof(content))) > 0) {
        sum += (size_t)size;
    }
    return (void *)sum;
}

static void test_short_writes_are_continued(void)
{
    enum { CONTENT_SIZE = 1 << 20 };
    struct real_disk real;
    int ends[2];
    pthread_t thread;
    void *sum;
    begin_or_skip(&real);
    struct disk *disk = real.suite.disk;
    char *content = calloc(1, CONTENT_SIZE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(content);
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    struct disk_op op = {.verb = DISK_WRITE, .fd = ends[1], .at = content, .size = CONTENT_SIZE};
    CU_ASSERT_EQUAL(disk_submit(disk, &op), 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, read_all, &ends[0]), 0);
    CU_ASSERT_PTR_EQUAL(wait_one(disk), &op);
    CU_ASSERT_EQUAL(op.result, CONTENT_SIZE);
    CU_ASSERT_EQUAL(close(ends[1]), 0);
    CU_ASSERT_EQUAL(pthread_join(thread, &sum), 0);
    CU_ASSERT_EQUAL((size_t)sum, CONTENT_SIZE);
    CU_ASSERT_EQUAL(close(ends[0]), 0);
    free(content);
    real_disk_end(&real);
}

/* Under O_NONBLOCK, which our own open would have taken off, some kernels give -EAGAIN: never seen
 * by the caller. */
static void test_nonblock_is_read(void)
{
    struct real_disk real;
    char byte = 0;
    begin_or_skip(&real);
    struct disk *disk = real.suite.disk;
    int fd = open("/proc/self/status", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0);
    struct disk_op op = {.verb = DISK_READ, .fd = fd, .at = &byte, .size = 1};
    CU_ASSERT_EQUAL(disk_submit(disk, &op), 0);
    CU_ASSERT_PTR_EQUAL(wait_one(disk), &op);
    CU_ASSERT_EQUAL(op.result, 1);
    CU_ASSERT_EQUAL(byte, 'N'); /* "Name:" */
    CU_ASSERT_EQUAL(close(fd), 0);
    real_disk_end(&real);
}

static void test_disk_full(void)
{
    struct real_disk real;
    begin_or_skip(&real);
    struct disk *disk = real.suite.disk;
    int fd = disk_open(disk, DISK_ROOT, "/dev/full", DISK_READWRITE);
    CU_ASSERT_FATAL(fd >= 0);
    struct disk_op op = {.verb = DISK_WRITE, .fd = fd, .at = "x", .size = 1};
    CU_ASSERT_EQUAL(disk_submit(disk, &op), 0);
    CU_ASSERT_PTR_EQUAL(wait_one(disk), &op);
    CU_ASSERT_EQUAL(op.result, -ENOSPC);
    CU_ASSERT_EQUAL(disk_write(disk, fd, "x", 1, 0), -ENOSPC);
    disk_close(disk, fd);
    real_disk_end(&real);
}

/* What was submitted and never reaped is done before the disk is gone. */
static void test_destroy_waits(void)
{
    struct real_disk real;
    char content[8] = {0};
    int ends[2];
    begin_or_skip(&real);
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    CU_ASSERT_EQUAL(write(ends[1], "late", 4), 4);
    struct disk_op op = {.verb = DISK_READ, .fd = ends[0], .at = content, .size = 4};
    CU_ASSERT_EQUAL(disk_submit(real.suite.disk, &op), 0);
    real_disk_end(&real);
    CU_ASSERT_EQUAL(op.result, 4);
    CU_ASSERT_STRING_EQUAL(content, "late");
    CU_ASSERT_EQUAL(close(ends[0]), 0);
    CU_ASSERT_EQUAL(close(ends[1]), 0);
}

/* No descriptor is to be had: the disk says so and leaves nothing behind. */
static void test_refused(void)
{
    struct rlimit before;
    CU_ASSERT_EQUAL_FATAL(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {.rlim_cur = 0, .rlim_max = before.rlim_max};
    CU_ASSERT_EQUAL_FATAL(setrlimit(RLIMIT_NOFILE, &none), 0);
    int error = 0;
    struct disk *disk = disk_uring_create(NULL, &error);
    struct waker waker;
    int waker_error = waker_init(&waker, true);
    CU_ASSERT_EQUAL(setrlimit(RLIMIT_NOFILE, &before), 0);
    CU_ASSERT_PTR_NULL(disk);
    CU_ASSERT_EQUAL(error, -EMFILE);
    CU_ASSERT_EQUAL(waker_error, -EMFILE);
}

SUITE(disk_uring, test_refused, test_suite, test_wait, test_owner_is_another_thread,
      test_owner_has_ended, test_short_reads_are_continued, test_short_writes_are_continued,
      test_nonblock_is_read, test_disk_full, test_destroy_waits)
