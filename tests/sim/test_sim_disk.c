/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "tests/harness.h"
#include "tests/sim/sim_disk.h"
#include "tests/unit/base/disk_suite.h"

enum { DELAY_MAX_NS = 3 * 1000 * 1000, SEEDS = 400, SECTOR = 512 };

struct rig {
    struct disk_suite suite; /* first */
    struct clock_manual clock;
    struct waker waker;
    struct sim_disk *world;
    struct disk *disk;
};

static void rig_init(struct rig *rig, uint64_t seed)
{
    *rig = (struct rig){.disk = NULL};
    clock_manual_init(&rig->clock, (struct mono_time){.ns = 1000},
                      (struct wall_time){.ns = 1700000000 * NS_PER_S});
    CU_ASSERT_EQUAL_FATAL(waker_init(&rig->waker, false), 0);
    rig->world = sim_disk_create(&rig->clock.clock, seed, DELAY_MAX_NS);
    rig->disk = sim_disk_view(rig->world, &rig->waker);
}

static void rig_deinit(struct rig *rig)
{
    disk_destroy(rig->disk);
    sim_disk_destroy(rig->world);
    waker_deinit(&rig->waker);
}

/* The program comes up again on what is left. */
static void rig_reboot(struct rig *rig)
{
    disk_destroy(rig->disk);
    rig->disk = sim_disk_view(rig->world, &rig->waker);
}

static void settle(struct disk_suite *suite)
{
    struct rig *rig = (struct rig *)suite;
    struct mono_time next = sim_disk_next(rig->world);
    if (next.ns != MONO_NEVER.ns && next.ns > rig->clock.mono.ns) {
        clock_manual_advance(&rig->clock, next.ns - rig->clock.mono.ns);
    }
}

static int make_odd(struct disk_suite *suite, const char *name, enum disk_kind kind)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "suite/%s", name);
    return sim_disk_put_odd(((struct rig *)suite)->world, path, kind);
}

static int make_link(struct disk_suite *suite, const char *target, const char *name)
{
    (void)target;
    return make_odd(suite, name, DISK_KIND_LINK);
}

static int make_fifo(struct disk_suite *suite, const char *name)
{
    return make_odd(suite, name, DISK_KIND_OTHER);
}

static void test_suite(void)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        CU_ASSERT_EQUAL_FATAL(disk_mkdir(rig.disk, DISK_ROOT, "suite"), 0);
        rig.suite = (struct disk_suite){
            .disk = rig.disk,
            .dir = disk_open(rig.disk, DISK_ROOT, "suite", DISK_READONLY | DISK_DIRECTORY),
            .settle = settle,
            .make_link = make_link,
            .make_fifo = make_fifo,
        };
        CU_ASSERT_FATAL(rig.suite.dir >= 0);
        disk_suite_run(&rig.suite);
        rig_deinit(&rig);
    }
}

static int put(struct disk *disk, const char *path, const char *text, bool is_synced)
{
    int fd = disk_open(disk, DISK_ROOT, path, DISK_READWRITE | DISK_CREATE);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_write(disk, fd, text, strlen(text), 0), (int64_t)strlen(text));
    if (is_synced) {
        CU_ASSERT_EQUAL(disk_datasync(disk, fd), 0);
    }
    return fd;
}

static void sync_dir(struct disk *disk, const char *path)
{
    int fd = disk_open(disk, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(disk_sync(disk, fd), 0);
    disk_close(disk, fd);
}

static bool is_there(struct rig *rig, const char *path)
{
    struct span content;
    return sim_disk_peek(rig->world, path, &content) == 0;
}

static bool is_content(struct rig *rig, const char *path, const char *want)
{
    struct span content;
    return sim_disk_peek(rig->world, path, &content) == 0 &&
           span_equal(content, span_of_text(want));
}

/* What was synced, its name too, is there after every crash; what was not, is there in some. */
static void test_crash_keeps_what_was_synced(void)
{
    unsigned kept = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        (void)put(rig.disk, "synced", "whole", true);
        sync_dir(rig.disk, "/");
        (void)put(rig.disk, "nameless", "whole", true);
        (void)put(rig.disk, "synced", "other", false);
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        CHECK_ROW(seed, is_content(&rig, "synced", "whole") || is_content(&rig, "synced", "other"));
        CHECK_ROW(seed, !is_there(&rig, "nameless") || is_content(&rig, "nameless", "whole"));
        kept += is_there(&rig, "nameless") ? 1 : 0;
        rig_deinit(&rig);
    }
    CU_ASSERT(kept > SEEDS / 5);
    CU_ASSERT(kept < SEEDS * 4 / 5);
}

/* A write is torn at the sectors of the file, and only there. */
static void test_crash_tears_sectors(void)
{
    unsigned torn = 0;
    static char before[4 * SECTOR + 1];
    static char after[4 * SECTOR + 1];
    memset(before, 'b', 4 * SECTOR);
    memset(after, 'a', 4 * SECTOR);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        (void)put(rig.disk, "file", before, true);
        sync_dir(rig.disk, "/");
        (void)put(rig.disk, "file", after, false);
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        struct span content = SPAN_NONE;
        CHECK_ROW(seed, sim_disk_peek(rig.world, "file", &content) == 0);
        CU_ASSERT_EQUAL_FATAL(content.size, 4 * SECTOR);
        unsigned news = 0;
        for (size_t i = 0; i < 4; i++) {
            const char *sector = content.at + i * SECTOR;
            CHECK_ROW(seed,
                      memcmp(sector, before, SECTOR) == 0 || memcmp(sector, after, SECTOR) == 0);
            news += sector[0] == 'a' ? 1 : 0;
        }
        torn += news > 0 && news < 4 ? 1 : 0;
        rig_deinit(&rig);
    }
    CU_ASSERT(torn > SEEDS / 5);
}

/* What is moved is in one of its places after a crash, never in both or in none. */
static void test_crash_renames_whole(void)
{
    unsigned moved = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "a"), 0);
        CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "b"), 0);
        (void)put(rig.disk, "a/file", "text", true);
        (void)put(rig.disk, "b/old", "old", true);
        sync_dir(rig.disk, "/");
        sync_dir(rig.disk, "a");
        sync_dir(rig.disk, "b");
        CU_ASSERT_EQUAL(disk_rename(rig.disk, DISK_ROOT, "a/file", DISK_ROOT, "b/mid"), 0);
        CU_ASSERT_EQUAL(disk_rename(rig.disk, DISK_ROOT, "b/mid", DISK_ROOT, "b/old"), 0);
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        bool is_first = is_content(&rig, "a/file", "text") && is_content(&rig, "b/old", "old") &&
                        !is_there(&rig, "b/mid");
        bool is_middle = !is_there(&rig, "a/file") && is_content(&rig, "b/mid", "text") &&
                         is_content(&rig, "b/old", "old");
        bool is_last = !is_there(&rig, "a/file") && !is_there(&rig, "b/mid") &&
                       is_content(&rig, "b/old", "text");
        CHECK_ROW(seed, is_first + is_middle + is_last == 1);
        moved += is_last ? 1 : 0;
        rig_deinit(&rig);
    }
    CU_ASSERT(moved > SEEDS / 8);
    CU_ASSERT(moved < SEEDS * 7 / 8);
}

/* A sync speaks of what was written before it was submitted. */
static void test_sync_covers_what_was_before(void)
{
    unsigned lost = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        int fd = put(rig.disk, "file", "first", true);
        sync_dir(rig.disk, "/");
        CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "other", 5, 0), 5);
        struct disk_op op = {.verb = DISK_DATASYNC, .fd = fd};
        CU_ASSERT_EQUAL(disk_submit(rig.disk, &op), 0);
        CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "third", 5, 0), 5);
        clock_manual_advance(&rig.clock, DELAY_MAX_NS);
        CU_ASSERT_PTR_EQUAL(disk_reap(rig.disk), &op);
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        CHECK_ROW(seed, is_content(&rig, "file", "other") || is_content(&rig, "file", "third"));
        lost += is_content(&rig, "file", "other") ? 1 : 0;
        rig_deinit(&rig);
    }
    CU_ASSERT(lost > SEEDS / 5);
}

static void test_kill_loses_nothing(void)
{
    struct rig rig;
    rig_init(&rig, 7);
    int fd = put(rig.disk, "file", "text", false);
    sim_disk_kill(rig.world);
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "more", 4, 0), -EIO);
    CU_ASSERT_EQUAL(disk_open(rig.disk, DISK_ROOT, "file", DISK_READONLY), -EIO);
    rig_reboot(&rig);
    CU_ASSERT(is_content(&rig, "file", "text"));
    rig_deinit(&rig);
}

/* A sync that was under way when the program died has not failed: what it was to cover is still to
 * be synced by the next program. */
static void test_kill_in_sync_leaves_pages_dirty(void)
{
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        int fd = put(rig.disk, "file", "first", true);
        sync_dir(rig.disk, "/");
        CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "other", 5, 0), 5);
        struct disk_op op = {.verb = DISK_DATASYNC, .fd = fd};
        CU_ASSERT_EQUAL(disk_submit(rig.disk, &op), 0);
        sim_disk_kill(rig.world);
        rig_reboot(&rig);
        fd = disk_open(rig.disk, DISK_ROOT, "file", DISK_READWRITE);
        CU_ASSERT_EQUAL(disk_datasync(rig.disk, fd), 0);
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        CHECK_ROW(seed, is_content(&rig, "file", "other"));
        rig_deinit(&rig);
    }
}

static void test_faults(void)
{
    struct rig rig;
    rig_init(&rig, 8);
    struct disk *test = sim_disk_view(rig.world, NULL);
    uint64_t before = sim_disk_ops_count(rig.world);
    sim_disk_fail_at(rig.world, 2, -EIO, false);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "a"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(test, DISK_ROOT, "t"), 0);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "b"), -EIO);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "b"), 0);
    CU_ASSERT_EQUAL(sim_disk_ops_count(rig.world), before + 3);
    sim_disk_fail_at(rig.world, 1, -ENOSPC, true);
    struct disk_stat stat;
    CU_ASSERT_EQUAL(disk_stat_at(rig.disk, DISK_ROOT, "a", &stat), 0);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "c"), -ENOSPC);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "c"), -ENOSPC);
    sim_disk_fail_at(rig.world, 0, 0, false);
    CU_ASSERT_EQUAL(disk_mkdir(rig.disk, DISK_ROOT, "c"), 0);
    CU_ASSERT_EQUAL(sim_disk_failures_count(rig.world), 3);
    disk_destroy(test);
    rig_deinit(&rig);
}

/* An op that was under way when it stopped had its chance. */
static void test_stop(void)
{
    struct rig rig;
    rig_init(&rig, 10);
    sim_disk_stop_at(rig.world, 2);
    int fd = disk_open(rig.disk, DISK_ROOT, "file", DISK_READWRITE | DISK_CREATE);
    CU_ASSERT(fd >= 0);
    CU_ASSERT(!sim_disk_is_stopped(rig.world));
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "text", 4, 0), 4);
    CU_ASSERT(sim_disk_is_stopped(rig.world));
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "more", 4, 0), -EIO);
    CU_ASSERT_EQUAL(disk_unlink(rig.disk, DISK_ROOT, "file"), -EIO);
    sim_disk_kill(rig.world);
    CU_ASSERT(!sim_disk_is_stopped(rig.world));
    rig_reboot(&rig);
    CU_ASSERT(is_content(&rig, "file", "text"));
    rig_deinit(&rig);
}

/* After a failed sync a later one that succeeds promises nothing for what came before. */
static void test_failed_sync_drops(void)
{
    unsigned lost = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rig rig;
        rig_init(&rig, seed);
        int fd = put(rig.disk, "file", "first", true);
        sync_dir(rig.disk, "/");
        CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "other", 5, 0), 5);
        sim_disk_fail_at(rig.world, 1, -EIO, false);
        CU_ASSERT_EQUAL(disk_datasync(rig.disk, fd), -EIO);
        CU_ASSERT_EQUAL(disk_datasync(rig.disk, fd), 0);
        CHECK_ROW(seed, is_content(&rig, "file", "other"));
        sim_disk_crash(rig.world);
        rig_reboot(&rig);
        lost += is_content(&rig, "file", "first") ? 1 : 0;
        rig_deinit(&rig);
    }
    CU_ASSERT(lost > SEEDS / 5);
    CU_ASSERT(lost < SEEDS * 4 / 5);
}

static void test_space(void)
{
    struct rig rig;
    rig_init(&rig, 9);
    int fd = put(rig.disk, "file", "12345", false);
    sim_disk_set_free(rig.world, 5);
    struct disk_op op = {.verb = DISK_FREE_SPACE, .fd = fd};
    CU_ASSERT_EQUAL(disk_run(rig.disk, &op), 0);
    CU_ASSERT_EQUAL(op.stat.size, 5);
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "123456", 6, 5), -ENOSPC);
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "12345", 5, 5), 5);
    CU_ASSERT_EQUAL(disk_unlink(rig.disk, DISK_ROOT, "file"), 0);
    disk_close(rig.disk, fd);
    (void)put(rig.disk, "small", "1", false);
    fd = disk_open(rig.disk, DISK_ROOT, "small", DISK_READWRITE);
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "12345", 5, 0), 5);
    CU_ASSERT_EQUAL(disk_write(rig.disk, fd, "123456", 6, 5), -ENOSPC);
    rig_deinit(&rig);
}

SUITE(sim_disk, test_suite, test_crash_keeps_what_was_synced, test_crash_tears_sectors,
      test_crash_renames_whole, test_sync_covers_what_was_before, test_kill_loses_nothing,
      test_kill_in_sync_leaves_pages_dirty, test_faults, test_stop, test_failed_sync_drops,
      test_space)
