/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what they wait for, and what happens at the bound. */
#include <errno.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

/* A checkpoint took the records of lines that were written and not synced: after a loss of power
 * nobody could make them again. */
static void test_checkpoints_wait_for_results(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig *rig = rig_create(seed);
        rig->disk->is_shuffled = seed % 2 == 0;
        rig->segments_max = 1;
        rig->segment_size = 4096;
        ensure(rig_start(rig, NULL) == 0);
        struct rig_batch *first = rig_accepted(rig, 40);
        int active =
            disk_open(&rig->disk->disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
        ensure(disk_sync(&rig->disk->disk, active) == 0); /* as intake does */
        size_t sent = 0;
        for (uint32_t i = 0; i < 39; i++) {
            sent += rig_entry(rig, first, i, JOURNAL_DELIVERED) != NULL; /* some were rejected */
            rig_step(rig, i % 3 == 0 ? 4 : 0);
        }
        rig_settle_down(rig);
        uint64_t before = stat_read_xcore(&rig->journal.stats.checkpoints);
        while (stat_read_xcore(&rig->journal.stats.checkpoints) < before + 2) {
            struct rig_batch *batch = rig_accepted(rig, 20);
            for (uint32_t i = 0; i < 20; i++) {
                (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
            }
            rig_settle_down(rig);
            rig_end(rig, batch);
            rig_settle_down(rig);
        }
        rig_crash(rig, 0);
        CHECK_ROW(seed, sent > 0);
        CHECK_ROW(seed, rig_lines_count(rig, "active/batch-1-/results.ndjson") == sent);
        rig_destroy(rig);
    }
}

/* Lines that are synced in a file whose name is not: a batch's end may be about to sync it. */
static void test_checkpoints_wait_for_names(void)
{
    struct rig *rig = rig_started(8);
    struct rig_batch *batch = rig_accepted(rig, 10);
    for (uint32_t i = 0; i < 9; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig_settle_down(rig);
    struct journal_core *core = rig->journal.core;
    struct journal_batch *known = core->batches[batch->batch.index];
    journal_results_mark(core);
    rig_settle_down(rig);
    CU_ASSERT(journal_results_is_past_mark(core));
    CU_ASSERT_FALSE(known->is_unsynced);
    CU_ASSERT(known->is_name_durable);
    known->is_name_durable = false;
    journal_results_mark(core);
    CU_ASSERT_FALSE(journal_results_is_past_mark(core));
    rig_settle_down(rig);
    CU_ASSERT(journal_results_is_past_mark(core));
    CU_ASSERT(known->is_name_durable);
    rig_destroy(rig);
}

/* The bound of segments holds however long it runs, and what was deferred long ago is known. */
static void test_checkpoints_bound_the_journal(void)
{
    struct rig *rig = rig_create(9);
    rig->segments_max = 2;
    rig->segment_size = 4096;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *old = rig_accepted(rig, 100);
    for (uint32_t i = 0; i < 50; i++) {
        (void)rig_entry(rig, old, i, i % 2 == 0 ? JOURNAL_DEFERRED : JOURNAL_BOUNCED);
    }
    for (int round = 0; round < 200; round++) {
        struct rig_batch *batch = rig_accepted(rig, 20);
        for (uint32_t i = 0; i < 20; i++) {
            (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
        }
        rig_settle_down(rig);
        rig_end(rig, batch);
        rig_settle_down(rig);
        CHECK_ROW((size_t)round, stat_read_xcore(&rig->journal.stats.segments) <= 8);
    }
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 10);
    size_t files = 0;
    for (size_t i = 0; i < rig->disk->seen.count; i++) {
        enum journal_file file;
        uint32_t number;
        files += journal_name_get(rig->disk->seen.rows[i].text, &file, &number);
    }
    CU_ASSERT(files <= 12);
    rig_check_copy(rig, 0, 0);
    rig_check_copy(rig, CRASH_PROGRAM, 0);
    rig_destroy(rig);
}

static void fail_checkpoints(void *context, const struct disk_op *op, bool is_complete)
{
    (void)context;
    if (is_complete && op->verb == DISK_OPEN && strcmp(op->path, "checkpoint-spare") == 0) {
        ((struct disk_op *)(uintptr_t)op)->result = -EIO;
    }
}

/* The last checkpoint was long, and so many segments may live; the one behind it is short, and
 * there are at once too many. The journal took that for a checkpoint that cannot be written. */
static void test_a_bound_that_shrinks_is_no_failure(void)
{
    struct rig *rig = rig_create(31);
    rig->segments_max = 1;
    rig->segment_size = JOURNAL_SEGMENT_SIZE_MIN;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accepted(rig, 100);
    struct journal_core *core = rig->journal.core;
    core->checkpoint.last_size = 20 * JOURNAL_SEGMENT_SIZE_MIN;
    while (core->segments.live_count < 8 ||
           core->segments.cells_max - core->segments.next_cell >= 2 * JOURNAL_SECTOR_CELLS) {
        (void)rig_entry(rig, batch, 0, JOURNAL_DEFERRED);
        rig_settle_down(rig);
    }
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.checkpoints), 0);
    core->checkpoint.last_size = 0;
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_settle_down(rig);
    CU_ASSERT_EQUAL(rig_has_failed(rig), 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DELIVERED]), 1);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 0);
    rig_destroy(rig);
}

/* No checkpoint can be written: it is tried again and again, and in the end the journal stops
 * rather than grow without bound. */
static void test_no_checkpoint_is_a_failure(void)
{
    struct rig *rig = rig_create(10);
    rig->segments_max = 2;
    rig->segment_size = 4096;
    ensure(rig_start(rig, NULL) == 0);
    rig->disk->on_op = fail_checkpoints;
    struct rig_batch *batch = rig_accepted(rig, 100);
    for (int round = 0; round < 1000 && rig_has_failed(rig) == 0; round++) {
        (void)rig_entry(rig, batch, 0, JOURNAL_DEFERRED);
        rig_settle_down(rig);
    }
    CU_ASSERT_EQUAL(rig_has_failed(rig), 1);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoint_failures) >= 5);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.segments) <= 9);
    rig->disk->on_op = NULL;
    rig_check_copy(rig, 0, 0);
    rig_destroy(rig);
}

SUITE(journal_checkpoint, test_checkpoints_wait_for_results, test_checkpoints_wait_for_names,
      test_checkpoints_bound_the_journal, test_a_bound_that_shrinks_is_no_failure,
      test_no_checkpoint_is_a_failure)
