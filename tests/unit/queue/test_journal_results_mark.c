/* SPDX-License-Identifier: Apache-2.0 */
/* The index of results.ndjson: it says nothing that is not so, whatever crash comes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

enum { SYNC_SIZE = 512, RECORDS = 120 };

static const char RESULTS[] = "active/batch-1-/" JOURNAL_RESULTS_NAME;
static const char INDEX[] = "active/batch-1-/" JOURNAL_RESULTS_INDEX_NAME;

static const struct crash_node *node_of(const struct rig *rig, const char *path)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    return bytes == NULL ? NULL : CONTAINER_OF(bytes, struct crash_node, seen);
}

/* The lines of the stretch, on stable storage, are those of its ordinals. */
static bool block_is_true(const struct crash_bytes *stable, const char *bytes,
                          const struct journal_index_block *block, uint32_t number)
{
    if (block->end > stable->size) {
        return false;
    }
    struct cursor cursor =
        cursor_of(span_of(stable->at + block->begin, (size_t)(block->end - block->begin)));
    struct span line;
    uint32_t count = 0;
    while (cursor_take_line(&cursor, &line)) {
        char want[64];
        if (count < block->count) {
            (void)snprintf(want, sizeof(want), "{\"batch\":%u,\"ordinal\":%u,", number,
                           journal_index_ordinal_get(bytes, count));
        }
        count++;
        if (count > block->count || line.size < strlen(want) ||
            memcmp(line.at, want, strlen(want)) != 0) {
            return false;
        }
    }
    return count == block->count && cursor_left(&cursor) == 0;
}

/* How many blocks of the index as programs see it are whole; each must be true, unless the name of
 * the file they speak of was lost. */
static uint32_t blocks_check(const struct rig *rig, size_t row)
{
    const struct crash_node *index = node_of(rig, INDEX);
    const struct crash_node *results = node_of(rig, RESULTS);
    uint32_t count = 0;
    size_t at = 0;
    while (index != NULL && at + JOURNAL_INDEX_HEADER_SIZE <= index->seen.size) {
        char *bytes = index->seen.at + at;
        struct journal_index_block block;
        size_t size = journal_index_size(span_of(bytes, JOURNAL_INDEX_HEADER_SIZE));
        if (size == 0 || size > index->seen.size - at ||
            !journal_index_get(span_of(bytes, size), 1, &block)) {
            at += JOURNAL_INDEX_SECTOR;
            continue;
        }
        CHECK_ROW(row, results == NULL || block_is_true(&results->stable, bytes, &block, 1));
        at += (size + JOURNAL_INDEX_SECTOR - 1) / JOURNAL_INDEX_SECTOR * JOURNAL_INDEX_SECTOR;
        count++;
    }
    return count;
}

static struct rig *rig_with_large_batch(uint64_t seed, struct rig_batch **ret_batch)
{
    struct rig *rig = rig_create(seed);
    rig->disk->is_shuffled = seed % 2 == 0;
    rig->results_sync_size = SYNC_SIZE;
    ensure(rig_start(rig, NULL) == 0);
    *ret_batch = rig_accepted(rig, RECORDS);
    struct disk *disk = &rig->disk->disk;
    int active = disk_open(disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
    ensure(disk_sync(disk, active) == 0);
    disk_close(disk, active);
    return rig;
}

static size_t run(struct rig *rig, struct rig_batch *batch, uint32_t from, uint32_t to)
{
    size_t sent = 0;
    for (uint32_t i = from; i < to; i++) {
        sent += rig_entry(rig, batch, i, JOURNAL_DELIVERED) != NULL;
        if (i % 5 == 0) {
            rig_step(rig, 3);
            clock_manual_advance(&rig->clock, NS_PER_S);
            rig_step(rig, 3);
        }
    }
    return sent;
}

static void test_blocks_are_true_at_any_crash(void)
{
    uint32_t most = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rig_batch *batch;
        struct rig *rig = rig_with_large_batch(seed, &batch);
        (void)run(rig, batch, 0, (uint32_t)seed % (RECORDS - 1));
        static const uint32_t KEEPS[] = {0, 50, 100, CRASH_PROGRAM};
        (void)blocks_check(rig, seed);
        rig_crash(rig, KEEPS[seed % COUNT_OF(KEEPS)]);
        uint32_t count = blocks_check(rig, seed);
        most = count > most ? count : most;
        rig_destroy(rig);
    }
    CU_ASSERT(most > 2);
}

/* The index goes with the batch's end, and small batches have none. */
static void test_the_index_goes_at_the_end(void)
{
    struct rig_batch *batch;
    struct rig *rig = rig_with_large_batch(7, &batch);
    (void)run(rig, batch, 0, RECORDS - 10);
    CU_ASSERT(blocks_check(rig, 0) > 1);
    (void)run(rig, batch, 0, RECORDS);
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_PTR_NULL(crash_disk_file(rig->disk, INDEX));
    rig_destroy(rig);
    rig = rig_create(8);
    ensure(rig_start(rig, NULL) == 0);
    batch = rig_accepted(rig, RECORDS);
    (void)run(rig, batch, 0, RECORDS - 10);
    CU_ASSERT_PTR_NOT_NULL(crash_disk_file(rig->disk, RESULTS));
    CU_ASSERT_PTR_NULL(crash_disk_file(rig->disk, INDEX));
    rig_destroy(rig);
}

struct refusal {
    struct rig *rig;
    enum disk_verb verb;
    uint64_t count;
};

static void refuse_index(void *context, const struct disk_op *op, bool is_complete)
{
    struct refusal *refusal = context;
    if (!is_complete || op->verb != refusal->verb) {
        return;
    }
    const struct crash_disk *disk = refusal->rig->disk;
    bool is_its = op->verb == DISK_OPEN
                      ? strstr(op->path, JOURNAL_RESULTS_INDEX_NAME) != NULL
                      : &disk->nodes[disk->fds[op->fd] - 1] == node_of(refusal->rig, INDEX);
    if (is_its) {
        ((struct disk_op *)(uintptr_t)op)->result = -ENOSPC;
        refusal->count++;
    }
}

/* It is a help: without it the batch goes on, and nothing is told. */
static void test_an_index_that_cannot_be_written_stops_nothing(void)
{
    static const enum disk_verb VERBS[] = {DISK_OPEN, DISK_WRITE, DISK_DATASYNC};
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        struct rig_batch *batch;
        struct rig *rig = rig_with_large_batch(9, &batch);
        struct refusal refusal = {.rig = rig, .verb = VERBS[i]};
        rig->disk->on_op = refuse_index;
        rig->disk->context = &refusal;
        size_t sent = run(rig, batch, 0, RECORDS);
        rig_settle_down(rig);
        CHECK_ROW(i, refusal.count > 1);
        CHECK_ROW(i, batch->is_settled);
        CHECK_ROW(i, rig_has_failed(rig) == 0);
        CHECK_ROW(i, stat_read_xcore(&rig->journal.stats.results_waiting) == 0);
        CHECK_ROW(i, rig_lines_count(rig, RESULTS) == sent);
        rig->disk->on_op = NULL;
        rig_destroy(rig);
    }
}

SUITE(journal_results_mark, test_blocks_are_true_at_any_crash, test_the_index_goes_at_the_end,
      test_an_index_that_cannot_be_written_stops_nothing)
