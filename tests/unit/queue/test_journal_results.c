/* SPDX-License-Identifier: Apache-2.0 */
/* results.ndjson while the disk says no: no batch is handed back without its lines. */
#include <errno.h>
#include <stdio.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

enum { RECORDS = 10 };

static const char PATH[] = "active/batch-1-/" JOURNAL_RESULTS_NAME;
static const char DOUBTED[] = "active/batch-1-/" JOURNAL_RESULTS_DOUBTED_NAME;

/* Which ops on which file fail, and how often they did. */
struct refusal {
    struct rig *rig;
    enum disk_verb verb;
    const char *path; /* of OPEN: a part of it; else the file's own */
    int error;
    uint64_t count;
};

static bool is_its_file(const struct refusal *refusal, const struct disk_op *op)
{
    const struct crash_disk *disk = refusal->rig->disk;
    if (op->verb == DISK_OPEN) {
        return strstr(op->path, refusal->path) != NULL;
    }
    const struct crash_node *node = &disk->nodes[disk->fds[op->fd] - 1];
    if (op->verb == DISK_SYNC) {
        return node->is_directory;
    }
    return &node->seen == crash_disk_file(refusal->rig->disk, refusal->path);
}

static void refuse(void *context, const struct disk_op *op, bool is_complete)
{
    struct refusal *refusal = context;
    if (is_complete && op->verb == refusal->verb && is_its_file(refusal, op)) {
        ((struct disk_op *)(uintptr_t)op)->result = refusal->error;
        refusal->count++;
    }
}

static struct rig *started(uint64_t seed)
{
    struct rig *rig = rig_create(seed);
    ensure(rig_start(rig, NULL) == 0);
    return rig;
}

/* Its directory's name is durable, as intake makes it. */
static struct rig_batch *accepted(struct rig *rig, uint32_t records_count)
{
    struct disk *disk = &rig->disk->disk;
    struct rig_batch *batch = rig_accept(rig, records_count);
    int active = disk_open(disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
    ensure(disk_sync(disk, active) == 0);
    disk_close(disk, active);
    rig_settle_down(rig);
    return batch;
}

static void begin_refusing(struct rig *rig, struct refusal *refusal)
{
    refusal->rig = rig;
    rig->disk->on_op = refuse;
    rig->disk->context = refusal;
}

/* Seconds in which nothing may come back. */
static void run_s(struct rig *rig, int seconds)
{
    for (int i = 0; i < seconds * 10; i++) {
        rig_step(rig, 1);
        clock_manual_advance(&rig->clock, NS_PER_MS * 100);
    }
}

static size_t lines_count(struct rig *rig)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, PATH);
    size_t lines = 0;
    for (size_t i = 0; bytes != NULL && i < bytes->size; i++) {
        lines += bytes->at[i] == '\n';
    }
    return lines;
}

static size_t settle_all(struct rig *rig, struct rig_batch *batch)
{
    size_t sent = 0;
    for (uint32_t i = 0; i < RECORDS; i++) {
        sent += rig_entry(rig, batch, i, JOURNAL_DELIVERED) != NULL;
    }
    return sent;
}

/* Opening and writing: tried again each second, and the batch waits for it. */
static void test_a_batch_waits_for_its_lines(void)
{
    static const struct {
        enum disk_verb verb;
        const char *path;
        int error;
    } ROWS[] = {
        {DISK_OPEN, "/" JOURNAL_RESULTS_NAME, -ENOSPC},
        {DISK_OPEN, "/" JOURNAL_RESULTS_NAME, -EMFILE},
        {DISK_WRITE, PATH, -ENOSPC},
        {DISK_WRITE, PATH, -EIO},
        {DISK_OPEN, "batch-1-", -EMFILE},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = started(6);
        struct rig_batch *batch = accepted(rig, RECORDS);
        struct refusal refusal = {
            .verb = ROWS[i].verb, .path = ROWS[i].path, .error = ROWS[i].error};
        begin_refusing(rig, &refusal);
        size_t sent = settle_all(rig, batch);
        run_s(rig, 10);
        const struct journal_stats *stats = &rig->journal.stats;
        CHECK_ROW(i, rig->acked_count == sent); /* the records are durable, and mail goes on */
        CHECK_ROW(i, !batch->is_settled);
        CHECK_ROW(i, !journal_is_idle(&rig->journal));
        CHECK_ROW(i, stat_read_xcore(&stats->results_waiting) == 1);
        CHECK_ROW(i, stat_read_xcore(&stats->results_error) == (uint64_t)-ROWS[i].error);
        CHECK_ROW(i, refusal.count >= 5 && refusal.count <= 12);
        rig->disk->on_op = NULL;
        rig_settle_down(rig);
        CHECK_ROW(i, batch->is_settled);
        CHECK_ROW(i, stat_read_xcore(&stats->results_waiting) == 0);
        CHECK_ROW(i, stat_read_xcore(&stats->has_failed) == 0);
        rig_crash(rig, 0);
        CHECK_ROW(i, lines_count(rig) == sent);
        rig_destroy(rig);
    }
}

/* What a failed sync leaves nobody knows: the journal ends, the batch is not handed back, and the
 * file has a name by which the next start knows. That of the directory, too: asked again it might
 * tell nothing. */
static void test_a_failed_sync_of_results_is_final(void)
{
    static const enum disk_verb VERBS[] = {DISK_DATASYNC, DISK_SYNC};
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        struct rig *rig = started(6);
        struct rig_batch *batch = accepted(rig, RECORDS);
        struct refusal refusal = {.verb = VERBS[i], .path = PATH, .error = -EIO};
        begin_refusing(rig, &refusal);
        (void)settle_all(rig, batch);
        run_s(rig, 3);
        const struct journal_stats *stats = &rig->journal.stats;
        CHECK_ROW(i, stat_read_xcore(&stats->has_failed) == 1);
        CHECK_ROW(i, stat_read_xcore(&stats->failure) == JOURNAL_FAILURE_RESULTS);
        CHECK_ROW(i, stat_read_xcore(&stats->failure_error) == EIO);
        CHECK_ROW(i, stat_read_xcore(&stats->failure_number) == batch->batch.number);
        CHECK_ROW(i, refusal.count == 1);
        CHECK_ROW(i, !batch->is_settled);
        CHECK_ROW(i, crash_disk_file(rig->disk, PATH) == NULL);
        CHECK_ROW(i, crash_disk_file(rig->disk, DOUBTED) != NULL);
        rig->disk->on_op = NULL;
        run_s(rig, 3);
        CHECK_ROW(i, !batch->is_settled);
        rig_destroy(rig);
    }
}

/* Lines that cannot be written keep a checkpoint from taking their records away. */
static void test_no_checkpoint_over_lines_that_wait(void)
{
    struct rig *rig = rig_create(9);
    rig->segments_max = 1;
    rig->segment_size = 8192;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct rig_batch *other = accepted(rig, 100);
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -ENOSPC};
    begin_refusing(rig, &refusal);
    size_t sent = settle_all(rig, batch);
    run_s(rig, 2);
    uint64_t before = stat_read_xcore(&rig->journal.stats.checkpoints);
    for (int i = 0; i < 300; i++) {
        (void)rig_entry(rig, other, 0, JOURNAL_DEFERRED);
        rig_step(rig, 4);
    }
    run_s(rig, 2);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.checkpoints), before);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.segments) > 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 0);
    rig->disk->on_op = NULL;
    rig_settle_down(rig);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > before);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(lines_count(rig), sent);
    rig_destroy(rig);
}

/* An end with lines that cannot be written is not in order: the next start must look for them. */
static void test_a_stop_with_lines_left_is_no_clean_one(void)
{
    struct rig *rig = started(6);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -ENOSPC};
    begin_refusing(rig, &refusal);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    run_s(rig, 3);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 0);
    journal_deinit(&rig->journal);
    rig->has_journal = false;
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.failure), JOURNAL_FAILURE_STOP);
    rig->disk->on_op = NULL;
    rig_destroy(rig);
}

/* People took the batch away: there is nobody to be told, and nothing waits for it. */
static void test_a_batch_that_is_gone_holds_nothing(void)
{
    struct rig *rig = started(6);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct refusal refusal = {.verb = DISK_OPEN, .path = "batch-1-", .error = -ENOENT};
    begin_refusing(rig, &refusal);
    (void)settle_all(rig, batch);
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.results_waiting), 0);
    rig->disk->on_op = NULL;
    rig_destroy(rig);
}

SUITE(journal_results, test_a_batch_waits_for_its_lines, test_a_failed_sync_of_results_is_final,
      test_no_checkpoint_over_lines_that_wait, test_a_stop_with_lines_left_is_no_clean_one,
      test_a_batch_that_is_gone_holds_nothing)
