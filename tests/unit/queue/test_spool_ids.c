/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool_ids.h"

#include <stdlib.h>
#include <xxhash.h>

#include "tests/unit/queue/spool_check.h"

enum { NOW = 1796112000, DAY_S = 86400 }; /* 2026-12-01T08:00:00Z */

static struct check_disk check;
static struct spool spool;
static struct spool_problem problem;
static struct spool_ids *ids;

static struct wall_time at_s(int64_t seconds)
{
    return (struct wall_time){.ns = seconds * NS_PER_S};
}

static void start(int64_t now_s)
{
    struct spool_config config = spool_config_of(&check);
    CU_ASSERT_EQUAL_FATAL(spool_open(&spool, &config, &problem), 0);
    ids = spool_ids_create(&spool, 0x5eed + (uint64_t)now_s, at_s(now_s));
    CU_ASSERT_PTR_NOT_NULL_FATAL(ids);
}

static void stop(void)
{
    spool_ids_destroy(ids);
    spool_close(&spool);
}

static void begin(void)
{
    base_begin();
    check_disk_begin(&check, -1);
    start(NOW);
}

static void end(void)
{
    stop();
    check_disk_end(&check);
    base_end();
}

static bool is_known(const char *id, int64_t now_s)
{
    struct wall_time at = {.ns = -1};
    bool is_found = spool_ids_find(ids, id, at_s(now_s), &at);
    CU_ASSERT(is_found == (at.ns > 0));
    return is_found;
}

/* An engine that has run for an hour, by its own seconds and the wall clock. */
static void tidy_twice(int64_t now_s)
{
    spool_ids_tidy(ids, at_s(now_s), (uint32_t)now_s);
    spool_ids_tidy(ids, at_s(now_s + 3600), (uint32_t)now_s + 3600);
}

/* A line as the engine writes it. */
struct line {
    char text[64];
};
static struct line line_of(const char *id, int64_t seconds)
{
    struct line line;
    (void)snprintf(line.text, sizeof(line.text), "%s %lld", id, (long long)seconds);
    size_t size = strlen(line.text);
    (void)snprintf(line.text + size, sizeof(line.text) - size, " =%08x\n",
                   (unsigned)XXH3_64bits(line.text, size));
    return line;
}

static bool is_file(const char *path, const char *first, const char *second, const char *third)
{
    char want[256];
    (void)snprintf(want, sizeof(want), "%s%s%s", first, second, third);
    return strcmp(text_of(path), want) == 0;
}

static void test_an_id_is_known_for_30_days(void)
{
    begin();
    CU_ASSERT_FALSE(is_known("spring-07", NOW));
    spool_ids_add(ids, "spring-07", at_s(NOW));
    struct wall_time at;
    CU_ASSERT(spool_ids_find(ids, "spring-07", at_s(NOW + 5), &at));
    CU_ASSERT_EQUAL(at.ns, NOW * NS_PER_S);
    CU_ASSERT_FALSE(is_known("spring-0", NOW));
    CU_ASSERT_FALSE(is_known("spring-077", NOW));
    CU_ASSERT(is_known("spring-07", NOW + 30 * DAY_S - 1));
    CU_ASSERT_FALSE(is_known("spring-07", NOW + 30 * DAY_S));
    end();
}

static void test_a_restart_remembers(void)
{
    begin();
    spool_ids_add(ids, "one", at_s(NOW));
    spool_ids_add(ids, "one", at_s(NOW + 7)); /* again: no second line */
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
    spool_ids_add(ids, "two", at_s(NOW + DAY_S));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW + DAY_S)), 0);
    CU_ASSERT_STRING_EQUAL(text_of("journal/ids-2026-12-01"), "one 1796112000 =8914dca8\n");
    CU_ASSERT(is_file("journal/ids-2026-12-02", line_of("two", NOW + DAY_S).text, "", ""));
    stop();
    start(NOW + 2 * DAY_S);
    CU_ASSERT(is_known("one", NOW + 2 * DAY_S));
    CU_ASSERT(is_known("two", NOW + 2 * DAY_S));
    spool_ids_add(ids, "three", at_s(NOW + DAY_S));
    stop();
    start(NOW + 30 * DAY_S + DAY_S / 2);
    CU_ASSERT_FALSE(is_known("one", NOW + 30 * DAY_S + DAY_S / 2));
    CU_ASSERT(is_known("two", NOW + 30 * DAY_S + DAY_S / 2));
    CU_ASSERT(is_known("three", NOW + 30 * DAY_S + DAY_S / 2));
    CU_ASSERT(exists("journal/ids-2026-12-01"));
    spool_ids_add(ids, "four", at_s(NOW + 31 * DAY_S));
    tidy_twice(NOW + 31 * DAY_S); /* a new day: old files go */
    CU_ASSERT_FALSE(exists("journal/ids-2026-12-01"));
    CU_ASSERT(exists("journal/ids-2026-12-02"));
    end();
}

/* The clock is 40 days ahead: for a moment, for hours, at a start; then it is right again. */
static void test_a_clock_that_is_ahead_forgets_nothing(void)
{
    const int64_t far = NOW + 40 * DAY_S;
    begin();
    spool_ids_add(ids, "one", at_s(NOW));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
    for (uint32_t hour = 0; hour < 30; hour++) {
        spool_ids_tidy(ids, at_s(far + 3600 * hour), NOW + 3600 * hour);
        CHECK_ROW(hour, is_known("one", far + 3600 * hour));
        char id[16];
        (void)snprintf(id, sizeof(id), "far-%u", (unsigned)hour);
        spool_ids_add(ids, id, at_s(far + 3600 * hour)); /* a new file; and its day changes */
        CHECK_ROW(hour, spool_ids_sync(ids, at_s(far + 3600 * hour)) == 0);
    }
    CU_ASSERT(exists("journal/ids-2027-01-10"));
    stop();
    start(far); /* it cannot know better */
    CU_ASSERT_FALSE(is_known("one", far));
    spool_ids_tidy(ids, at_s(far), (uint32_t)far);
    spool_ids_tidy(ids, at_s(far + 3599), (uint32_t)far + 3599);
    spool_ids_tidy(ids, at_s(NOW + 7200), (uint32_t)far + 7200); /* set right within the hour */
    CU_ASSERT(exists("journal/ids-2026-12-01"));
    stop();
    start(NOW + 7300);
    CU_ASSERT(is_known("one", NOW + 7300));
    CU_ASSERT(is_known("far-0", NOW + 7300));
    stop();
    check_disk_settle(&check, 0);
    ensure(unlink(at("journal/ids-2027-01-10")) == 0);
    ensure(unlink(at("journal/ids-2027-01-11")) == 0);
    start(far); /* nothing on the disk is so young */
    tidy_twice(far);
    CU_ASSERT(exists("journal/ids-2026-12-01"));
    end();
}

/* What a crash cuts, or somebody writes, harms its own line at most. */
static void test_odd_lines(void)
{
    begin();
    stop();
    static const char LINES[] = "one 1796112000\n\n \nx\ny 99999999999999999999\n 1796112000\n"
                                "z 17961120x0\ntwo 1796112001\nthree 17961";
    put_text("journal/ids-2026-12-01", LINES);
    put_text("journal/ids-2026-12-x1", "not ours");
    put_text("journal/ids-notes", "nor this");
    start(NOW + 10);
    CU_ASSERT(is_known("one", NOW + 10));
    CU_ASSERT(is_known("two", NOW + 10));
    CU_ASSERT_FALSE(is_known("x", NOW + 10));
    CU_ASSERT_FALSE(is_known("y", NOW + 10));
    CU_ASSERT_FALSE(is_known("z", NOW + 10));
    CU_ASSERT_FALSE(is_known("three", NOW + 10));
    CU_ASSERT_EQUAL_FATAL(spool_ids_damages_count(ids), 1);
    CU_ASSERT_EQUAL(spool_ids_damage(ids, 0)->error, -EBADMSG);
    spool_ids_add(ids, "four", at_s(NOW + 10));
    stop();
    start(NOW + 11);
    CU_ASSERT(is_known("two", NOW + 11));
    CU_ASSERT(is_known("four", NOW + 11));
    CU_ASSERT(exists("journal/ids-notes"));
    end();
}

static const char *const USED[] = {"spring-07", "J0", "aJb.0", "z"};

static bool is_used(struct span id)
{
    for (size_t i = 0; i < COUNT_OF(USED); i++) {
        if (span_equal(id, span_of_text(USED[i]))) {
            return true;
        }
    }
    return false;
}

/* No id is known that was not used, whatever part of the file is taken for one. */
static bool has_false_ids(struct span bytes)
{
    for (size_t from = 0; from < bytes.size; from++) {
        for (size_t size = 1; size <= 24 && from + size <= bytes.size; size++) {
            struct span id = span_of(bytes.at + from, size);
            char text[32];
            if (!manifest_id_is_good(id)) {
                break;
            }
            (void)snprintf(text, sizeof(text), "%.*s", (int)size, id.at);
            if (!is_used(id) && is_known(text, NOW + 10)) {
                return true;
            }
        }
    }
    return false;
}

/* Any bit of the file turns over: that is told, and costs two ids at most; only of the mark in the
 * middle, which costs none, one may pass for a crash. */
static void test_a_bit_that_turned_over(void)
{
    begin();
    spool_ids_add(ids, USED[0], at_s(NOW));
    spool_ids_add(ids, USED[1], at_s(NOW));
    stop();
    start(NOW + 1);
    spool_ids_add(ids, USED[2], at_s(NOW));
    spool_ids_add(ids, USED[3], at_s(NOW));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
    char bytes[256];
    size_t size = strlen(text_of("journal/ids-2026-12-01"));
    ensure(size < sizeof(bytes));
    memcpy(bytes, text_of("journal/ids-2026-12-01"), size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        put_file("journal/ids-2026-12-01", span_of(bytes, size));
        spool_ids_destroy(ids);
        ids = spool_ids_create(&spool, bit, at_s(NOW + 10));
        uint32_t known = 0;
        for (size_t i = 0; i < COUNT_OF(USED); i++) {
            struct wall_time at = {.ns = NOW * NS_PER_S};
            known += spool_ids_find(ids, USED[i], at_s(NOW + 10), &at);
            CHECK_ROW(bit, at.ns == NOW * NS_PER_S);
        }
        CHECK_ROW(bit, known + 2 >= COUNT_OF(USED));
        CHECK_ROW(bit, spool_ids_damages_count(ids) == 1 || known == COUNT_OF(USED));
        if (spool_ids_damages_count(ids) == 1) {
            CHECK_ROW(bit, spool_ids_damage(ids, 0)->error == -EBADMSG);
            CHECK_ROW(bit, spool_ids_damage(ids, 0)->lost_size > 0);
        }
        CHECK_ROW(bit, !has_false_ids(span_of(bytes, size)));
        bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
    }
    end();
}

/* With its sum, or as earlier engines wrote it. */
static bool is_entry_whole(size_t cut, size_t from)
{
    return cut + 1 >= from + strlen(line_of("one", NOW).text) ||
           cut == from + strlen("one 1796112000");
}

/* Wherever a crash cuts the file: that is no damage, and harms no line but the last. */
static void test_a_file_that_is_cut(void)
{
    begin();
    spool_ids_add(ids, "one", at_s(NOW));
    spool_ids_add(ids, "two", at_s(NOW));
    char bytes[256];
    size_t size = strlen(text_of("journal/ids-2026-12-01"));
    memcpy(bytes, text_of("journal/ids-2026-12-01"), size);
    for (size_t cut = 0; cut <= size; cut++) {
        put_file("journal/ids-2026-12-01", span_of(bytes, cut));
        for (int64_t i = 0; i < 3; i++) {
            stop();
            start(NOW + 10 + i);
            char id[8];
            (void)snprintf(id, sizeof(id), "new-%d", (int)i);
            spool_ids_add(ids, id, at_s(NOW + 10));
            CHECK_ROW(cut, spool_ids_damages_count(ids) == 0);
            CHECK_ROW(cut, is_known("one", NOW + 10) == is_entry_whole(cut, 0));
            CHECK_ROW(cut, is_known("two", NOW + 10) == is_entry_whole(cut, size / 2));
            CHECK_ROW(cut, is_known("new-0", NOW + 10));
        }
    }
    end();
}

/* Files that nobody has removed for months are in nobody's way. */
static void test_more_files_than_are_read(void)
{
    begin();
    spool_ids_add(ids, "one", at_s(NOW));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
    stop();
    for (unsigned month = 1; month <= 6; month++) {
        for (unsigned day = 1; day <= 28; day++) {
            char name[64];
            (void)snprintf(name, sizeof(name), "journal/ids-2026-%02u-%02u", month, day);
            put_text(name, "old 1780000000\n");
        }
    }
    start(NOW + 10);
    CU_ASSERT(is_known("one", NOW + 10));
    for (int i = 0; i < 3; i++) {
        tidy_twice(NOW + 10 + i * 7200);
    }
    CU_ASSERT_FALSE(exists("journal/ids-2026-01-01"));
    CU_ASSERT_FALSE(exists("journal/ids-2026-06-28"));
    CU_ASSERT(exists("journal/ids-2026-12-01"));
    end();
}

static void test_many(void)
{
    begin();
    enum { MANY = 20000 };
    char id[32];
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(id, sizeof(id), "batch-%u", i);
        spool_ids_add(ids, id, at_s(NOW + i % DAY_S));
    }
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW + DAY_S)), 0);
    stop();
    start(NOW + DAY_S);
    uint32_t known = 0;
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(id, sizeof(id), "batch-%u", i);
        known += is_known(id, NOW + DAY_S);
    }
    CU_ASSERT_EQUAL(known, MANY);
    CU_ASSERT_FALSE(is_known("batch-20000", NOW + DAY_S));
    end();
}

/* What the disk refuses waits, and is not called durable; once it is, it survives a loss of power,
 * also when a sync has failed before. */
static void test_after_any_failure(void)
{
    uint64_t operations = 1;
    for (int64_t left = 0; (uint64_t)left < operations; left++) {
        begin();
        check.done = 0;
        check.left = left;
        spool_ids_add(ids, "one", at_s(NOW));
        bool is_synced = spool_ids_sync(ids, at_s(NOW)) == 0;
        operations = check.left != 0 ? check.done : operations + 1;
        CHECK_ROW((size_t)left, is_synced || check.left == 0);
        CHECK_ROW((size_t)left, is_known("one", NOW));
        check.left = INT64_MAX; /* the disk is whole again */
        is_synced = spool_ids_sync(ids, at_s(NOW)) == 0;
        CHECK_ROW((size_t)left, is_synced);
        check.left = -1;
        stop();
        check_disk_settle(&check, 1);
        start(NOW + 1);
        CHECK_ROW((size_t)left, is_known("one", NOW + 1));
        end();
    }
}

/* What the page cache knew of the file beyond the first `kept` bytes was never written, and is gone
 * from there too: bytes that no longer count are zeros. */
static void lose_pages(const char *path, size_t kept, size_t end)
{
    const char *text = text_of(path);
    size_t size = strlen(text);
    char bytes[256] = {0};
    ensure(size <= sizeof(bytes) && end <= size);
    memcpy(bytes, text, kept);
    memcpy(bytes + end, text + end, size - end);
    put_file(path, span_of(bytes, size));
}

#define FILE_NAME "journal/ids-2026-12-01"

/* An engine that was killed, or stopped after a failed sync, leaves an id in the page cache. The
 * next one has its batch accepted again, and lets it leave. */
static void test_read_ids_are_made_durable(void)
{
    for (int is_sync_failing = 0; is_sync_failing < 2; is_sync_failing++) {
        begin();
        check.left = INT64_MAX;
        spool_ids_add(ids, "one", at_s(NOW));
        if (is_sync_failing != 0) {
            check.failing = DISK_DATASYNC;
            check.error = -EIO;
            CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), -EIO);
            check.failing = -1;
        }
        size_t unsynced = strlen(text_of(FILE_NAME));
        check.left = -1; /* what it remembers would hold the lock of the spool */
        stop();
        start(NOW + 5);
        check.left = INT64_MAX;
        CU_ASSERT(is_known("one", NOW + 5));
        spool_ids_add(ids, "one", at_s(NOW + 5));
        spool_ids_add(ids, "one", at_s(NOW + 6)); /* no third line */
        CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW + 6)), 0);
        check.left = -1;
        stop();
        if (is_sync_failing != 0) {
            struct line line = line_of("one", NOW);
            CU_ASSERT(is_file(FILE_NAME, line.text, " (cut)\n", line.text));
            lose_pages(FILE_NAME, 0, unsynced);
        } else {
            check_disk_settle(&check, 1);
        }
        start(NOW + 7);
        CU_ASSERT(is_known("one", NOW + 7));
        CU_ASSERT_FALSE(is_known("one", NOW + 30 * DAY_S));
        end();
    }
}

/* All that a failed sync may have lost is written again, and not from what the page cache has. */
static void test_a_failed_sync_counts_for_nothing(void)
{
    static const char CUT[] = "three 17961";
    for (int is_evicted = 0; is_evicted < 2; is_evicted++) {
        begin();
        stop();
        put_text(FILE_NAME, CUT);
        start(NOW);
        check.left = INT64_MAX;
        spool_ids_add(ids, "four", at_s(NOW));
        check.failing = DISK_DATASYNC;
        check.error = -EIO;
        CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), -EIO);
        check.failing = -1;
        if (is_evicted != 0) {
            lose_pages(FILE_NAME, strlen(CUT), strlen(text_of(FILE_NAME)));
        }
        spool_ids_add(ids, "five", at_s(NOW));
        CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
        CU_ASSERT(is_file(FILE_NAME, "three 17961 (cut)\n", line_of("four", NOW).text,
                          line_of("five", NOW).text));
        stop();
        check_disk_settle(&check, 1);
        check.left = -1;
        start(NOW + 1);
        CHECK_ROW((size_t)is_evicted, is_known("four", NOW + 1));
        CHECK_ROW((size_t)is_evicted, is_known("five", NOW + 1));
        end();
    }
}

/* Lines of one day that no sync made durable go to the next day's file as well. */
static void test_a_sync_that_fails_over_midnight(void)
{
    begin();
    check.left = INT64_MAX;
    spool_ids_add(ids, "one", at_s(NOW));
    check.failing = DISK_DATASYNC;
    check.error = -EIO;
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), -EIO);
    spool_ids_add(ids, "two", at_s(NOW + DAY_S));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW + DAY_S)), -EIO);
    check.failing = -1;
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW + DAY_S)), 0);
    CU_ASSERT(is_file("journal/ids-2026-12-02", line_of("one", NOW).text,
                      line_of("two", NOW + DAY_S).text, ""));
    stop();
    check_disk_settle(&check, 1);
    check.left = -1;
    start(NOW + DAY_S);
    CU_ASSERT(is_known("one", NOW + DAY_S));
    CU_ASSERT(is_known("two", NOW + DAY_S));
    end();
}

/* Reads that touch these bytes of a file fail. */
static struct {
    uint64_t from, to, reads;
} bad;

static int64_t bad_run(struct disk *disk, struct disk_op *op)
{
    if (op->verb == DISK_READ && op->offset < bad.to && op->offset + op->size > bad.from) {
        bad.reads++;
        op->result = -EIO;
        return op->result;
    }
    return check_disk_run(disk, op);
}

/* What cannot be read is told, and takes no more with it than the lines that stand in it; what is
 * left of a line there is no id. */
static void test_unreadable_bytes(void)
{
    enum { COUNT = 20000 };
    static const struct {
        uint64_t from, to, lost_most, lost_bytes; /* the last: 0 = not looked at */
    } ROWS[] = {
        {0, 1, 200, 4096},         {4095, 4096, 200, 4096},        {100000, 100001, 200, 4096},
        {65530, 65540, 400, 8192}, {300000, 420000, 6000, 122880}, {4096, 600000, COUNT, 0},
        {0, 600000, COUNT, 0},
    };
    static const struct disk_ops ops = {.run = bad_run};
    for (size_t row = 0; row < COUNT_OF(ROWS); row++) {
        begin();
        char id[32];
        for (uint32_t i = 0; i < COUNT; i++) {
            (void)snprintf(id, sizeof(id), "%05u-batch", i);
            spool_ids_add(ids, id, at_s(NOW));
        }
        CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
        spool_ids_add(ids, "other-day", at_s(NOW + DAY_S));
        spool_ids_destroy(ids);
        check.disk.ops = &ops;
        bad.from = ROWS[row].from;
        bad.to = ROWS[row].to;
        bad.reads = 0;
        ids = spool_ids_create(&spool, 4711, at_s(NOW + DAY_S));
        check.disk.ops = &CHECK_DISK_OPS;
        CU_ASSERT_PTR_NOT_NULL_FATAL(ids);
        uint32_t lost = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            (void)snprintf(id, sizeof(id), "%05u-batch", i);
            lost += !is_known(id, NOW + DAY_S);
            for (size_t j = 1; j < 11 && lost > 0; j++) {
                CHECK_ROW(row, !is_known(id + j, NOW + DAY_S));
            }
        }
        CHECK_ROW(row, lost > 0);
        CHECK_ROW(row, lost <= ROWS[row].lost_most);
        CHECK_ROW(row, bad.reads <= 80);
        CU_ASSERT(spool_ids_damages_count(ids) >= 1);
        bool has_told = false;
        for (uint32_t i = 0; i < spool_ids_damages_count(ids); i++) {
            const struct spool_ids_damage *damage = spool_ids_damage(ids, i);
            has_told |= strcmp(damage->file, "ids-2026-12-01") == 0 && damage->error == -EIO &&
                        (ROWS[row].lost_bytes == 0 || damage->lost_size == ROWS[row].lost_bytes);
        }
        CHECK_ROW(row, has_told);
        end();
    }
}

/* A file that cannot be opened is told, and put aside when it is the turn of its day. */
static void test_a_spoiled_file(void)
{
    begin();
    CU_ASSERT_EQUAL(spool_ids_damages_count(ids), 0);
    stop();
    ensure(symlink("elsewhere", at("journal/ids-2026-12-01")) == 0);
    ensure(symlink("elsewhere", at("journal/ids-2026-11-30")) == 0);
    start(NOW);
    CU_ASSERT_EQUAL_FATAL(spool_ids_damages_count(ids), 2);
    CU_ASSERT_EQUAL(spool_ids_damage(ids, 0)->error, -ELOOP);
    CU_ASSERT_EQUAL(spool_ids_damage(ids, 0)->lost_size, 0);
    spool_ids_add(ids, "one", at_s(NOW));
    CU_ASSERT_EQUAL(spool_ids_sync(ids, at_s(NOW)), 0);
    stop();
    start(NOW + 1);
    CU_ASSERT(is_known("one", NOW + 1));
    CU_ASSERT_EQUAL(spool_ids_damages_count(ids), 1);
    end();
}

static uint64_t not_kept_count(void)
{
    const char *name;
    uint64_t count;
    for (size_t i = 0; odd_row(i, &name, &count); i++) {
        if (strcmp(name, "batch_id_not_kept") == 0) {
            return count;
        }
    }
    return 0;
}

/* A full table says so at once, and is not looked through for each id it cannot keep. */
static void test_a_full_table(void)
{
    enum { FULL = (1u << 21) / 4 * 3, MORE = 20, LINE = 32 };
    begin();
    stop();
    char *lines = malloc((size_t)(FULL + MORE) * LINE);
    ensure(lines != NULL);
    struct writer writer = writer_of(lines, (size_t)(FULL + MORE) * LINE);
    for (uint32_t i = 0; i < FULL + MORE; i++) { /* 30 days ago in 10 s */
        writer_put_uint(&writer, i);
        writer_put_byte(&writer, ' ');
        writer_put_uint(&writer, NOW + 10 - 30 * DAY_S);
        writer_put_byte(&writer, '\n');
    }
    ensure(!writer.is_full);
    put_file("journal/ids-2026-11-01", writer_span(&writer));
    free(lines);
    uint64_t before = not_kept_count();
    start(NOW);
    CU_ASSERT_EQUAL(not_kept_count() - before, MORE);
    CU_ASSERT(is_known("0", NOW));
    spool_ids_add(ids, "new", at_s(NOW));
    CU_ASSERT_FALSE(is_known("new", NOW));
    spool_ids_add(ids, "newer", at_s(NOW + 59));
    CU_ASSERT_FALSE(is_known("newer", NOW + 59)); /* though all others are old now */
    CU_ASSERT_EQUAL(not_kept_count() - before, MORE + 2);
    spool_ids_add(ids, "newest", at_s(NOW + 60));
    CU_ASSERT(is_known("newest", NOW + 60));
    spool_ids_add(ids, "last", at_s(NOW + 60));
    CU_ASSERT(is_known("last", NOW + 60));
    CU_ASSERT_EQUAL(not_kept_count() - before, MORE + 2);
    end();
}

SUITE(spool_ids, test_an_id_is_known_for_30_days, test_a_restart_remembers,
      test_a_clock_that_is_ahead_forgets_nothing, test_odd_lines, test_a_bit_that_turned_over,
      test_a_file_that_is_cut, test_more_files_than_are_read, test_many, test_after_any_failure,
      test_read_ids_are_made_durable, test_a_failed_sync_counts_for_nothing,
      test_a_sync_that_fails_over_midnight, test_unreadable_bytes, test_a_spoiled_file,
      test_a_full_table)
