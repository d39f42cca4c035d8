/* SPDX-License-Identifier: Apache-2.0 */
/* Collecting from pickup/ beside stops and a disk that fails: each file is mailed exactly once. */
#include "queue/spool.h"

#include "tests/unit/queue/pickup_begin.h"

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
    pickup_begin();
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
        pickup_begin();
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
    pickup_begin();
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
        pickup_begin();
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
    pickup_begin();
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

SUITE(pickup_broken, test_after_any_stop, test_goes_on_after_failure,
      test_a_file_that_cannot_be_read_holds_up_no_other,
      test_sources_that_cannot_be_read_hold_pickup, test_what_cannot_be_made_durable_goes_back)
