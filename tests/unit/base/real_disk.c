/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/base/real_disk.h"

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tests/harness.h"

static void settle(struct disk_suite *suite)
{
    suite->disk->ops->wait(suite->disk, 100 * NS_PER_MS);
}

static int make_link(struct disk_suite *suite, const char *target, const char *name)
{
    struct real_disk *real = CONTAINER_OF(suite, struct real_disk, suite);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", real->path, name);
    return symlink(target, path) != 0 ? -errno : 0;
}

static int make_fifo(struct disk_suite *suite, const char *name)
{
    struct real_disk *real = CONTAINER_OF(suite, struct real_disk, suite);
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", real->path, name);
    return mkfifo(path, 0600) != 0 ? -errno : 0;
}

bool real_disk_begin(struct real_disk *real, disk_create create)
{
    *real = (struct real_disk){.path = "/tmp/ramjet-disk-XXXXXX"};
    CU_ASSERT_EQUAL_FATAL(waker_init(&real->waker, true), 0);
    int error = 0;
    struct disk *disk = create(&real->waker, &error);
    if (disk == NULL) {
        CU_ASSERT(error == -ENOSYS || error == -EPERM);
        waker_deinit(&real->waker);
        return false;
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(real->path));
    int dir = disk_open(disk, DISK_ROOT, real->path, DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(dir >= 0);
    real->suite = (struct disk_suite){
        .disk = disk, .dir = dir, .settle = settle, .make_link = make_link, .make_fifo = make_fifo};
    return true;
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)type;
    (void)walk;
    return remove(path);
}

void real_disk_end(struct real_disk *real)
{
    disk_close(real->suite.disk, real->suite.dir);
    disk_destroy(real->suite.disk);
    waker_deinit(&real->waker);
    CU_ASSERT_EQUAL(nftw(real->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void *signal_waker(void *context)
{
    waker_signal_xcore(context);
    return NULL;
}

/* Sleeps without a deadline: only the other thread ends it, before or during the sleep. */
static void check_wait_waker(struct real_disk *real)
{
    struct disk *disk = real->suite.disk;
    for (size_t i = 0; i < 200; i++) {
        pthread_t thread;
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, signal_waker, &real->waker), 0);
        if (waker_sleep(&real->waker)) {
            do {
                disk->ops->wait(disk, -1);
            } while (!waker_is_signalled(&real->waker));
            waker_awake(&real->waker);
        }
        CU_ASSERT_EQUAL(pthread_join(thread, NULL), 0);
        CHECK_ROW(i, !waker_is_signalled(&real->waker));
    }
}

static void check_wait_deadline(struct real_disk *real)
{
    struct disk *disk = real->suite.disk;
    struct mono_time start = clock_mono(clock_system());
    struct mono_time end = mono_add_ms(start, 20);
    do { /* it may come back early, but it may not take the processor all the time */
        disk->ops->wait(disk, 20 * NS_PER_MS);
    } while (mono_before(clock_mono(clock_system()), end));
    disk->ops->wait(disk, 0);
    CU_ASSERT(waker_sleep(&real->waker));
    waker_awake(&real->waker);
}

/* Without a deadline again: were the completion or the change missed, the test would hang. */
static void check_wait_events(struct real_disk *real)
{
    struct disk *disk = real->suite.disk;
    struct disk_op op = {.verb = DISK_SYNC, .fd = real->suite.dir};
    CU_ASSERT_EQUAL_FATAL(disk_submit(disk, &op), 0);
    struct disk_op *reaped;
    while ((reaped = disk_reap(disk)) == NULL) {
        disk->ops->wait(disk, -1);
    }
    CU_ASSERT_PTR_EQUAL(reaped, &op);

    CU_ASSERT_EQUAL_FATAL(disk->ops->watch(disk, real->suite.dir), 0);
    for (size_t i = 0; i < 20; i++) {
        CHECK_ROW(i, disk_write_file(disk, real->suite.dir, "seen", SPAN("x"), false) == 0);
        while (!disk->ops->watch_fired(disk)) {
            disk->ops->wait(disk, -1);
        }
    }
    CU_ASSERT_EQUAL(disk->ops->watch(disk, -1), 0);
}

/* What was there before the sleep began ends it too: an op that is complete and not reaped, a
 * change that came to light while something else was reaped. */
static void check_wait_is_too_late(struct real_disk *real)
{
    struct disk *disk = real->suite.disk;
    struct disk_op op = {.verb = DISK_STAT, .path = "", .fd = real->suite.dir};
    CU_ASSERT_EQUAL_FATAL(disk_submit(disk, &op), 0);
    disk->ops->wait(disk, -1);
    CU_ASSERT_PTR_EQUAL(disk_reap(disk), &op);

    CU_ASSERT_EQUAL_FATAL(disk->ops->watch(disk, real->suite.dir), 0);
    CU_ASSERT(!disk->ops->watch_fired(disk));
    CU_ASSERT_EQUAL(disk_write_file(disk, real->suite.dir, "early", SPAN("x"), false), 0);
    op = (struct disk_op){.verb = DISK_DATASYNC, .fd = real->suite.dir};
    CU_ASSERT_EQUAL_FATAL(disk_submit(disk, &op), 0);
    while (disk_reap(disk) == NULL) {
        disk->ops->wait(disk, -1);
    }
    disk->ops->wait(disk, -1);
    CU_ASSERT(disk->ops->watch_fired(disk));
    CU_ASSERT(!disk->ops->watch_fired(disk));
    CU_ASSERT_EQUAL(disk->ops->watch(disk, -1), 0);
}

void real_disk_check_wait(struct real_disk *real)
{
    check_wait_waker(real);
    check_wait_deadline(real);
    check_wait_events(real);
    check_wait_is_too_late(real);
}
