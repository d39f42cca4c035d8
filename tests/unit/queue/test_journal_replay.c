/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

static const uint32_t KEEPS[] = {0, 10, 50, 90, 100, CRASH_PROGRAM};

static void test_empty_directory(void)
{
    struct rig *rig = rig_create(1);
    struct journal_known known;
    CU_ASSERT_EQUAL(journal_replay(&rig->disk->disk, "journal", &known), 0);
    CU_ASSERT_EQUAL(known.batches_count, 0);
    CU_ASSERT_EQUAL(known.next_number, 1);
    CU_ASSERT_EQUAL(known.next_segment, 1);
    CU_ASSERT_EQUAL(known.corrupt_records, 0);
    CU_ASSERT_PTR_NULL(journal_known_find(&known, "x"));
    journal_known_free(&known);
    journal_known_free(NULL);
    CU_ASSERT_EQUAL(journal_replay(&rig->disk->disk, "nowhere", &known), -ENOENT);
    rig_destroy(rig);
}

static bool batch_equal(const struct journal_known_batch *a, const struct journal_known_batch *b)
{
    size_t words = (size_t)((a->records_count + 63) / 64);
    return a->number == b->number && a->is_damaged == b->is_damaged &&
           strcmp(a->directory, b->directory) == 0 && a->records_count == b->records_count &&
           memcmp(a->counts, b->counts, sizeof(a->counts)) == 0 &&
           memcmp(a->settled, b->settled, words * sizeof(uint64_t)) == 0 &&
           a->deferrals_count == b->deferrals_count &&
           (a->deferrals_count == 0 ||
            memcmp(a->deferrals, b->deferrals, a->deferrals_count * sizeof(*a->deferrals)) == 0);
}

static bool known_equal(const struct journal_known *a, const struct journal_known *b)
{
    bool is_equal = a->batches_count == b->batches_count && a->next_number == b->next_number &&
                    a->corrupt_records == b->corrupt_records;
    for (uint32_t i = 0; is_equal && i < a->batches_count; i++) {
        is_equal = batch_equal(&a->batches[i], &b->batches[i]);
    }
    return is_equal;
}

/* Crash at a random moment, replay, check, go on; over and over on one disk. */
static void crash_rounds(uint64_t seed, bool is_shuffled)
{
    struct rig *rig = rig_create(seed);
    rig->disk->is_shuffled = is_shuffled;
    rig->segment_size = seed % 3 == 0 ? 4096 : 16384;
    rig->segments_max = 1 + (uint32_t)(seed % 4);
    ensure(rig_start(rig) == 0);
    for (size_t round = 0; round < 12; round++) {
        uint32_t acts = random_below(&rig->random, 300);
        for (uint32_t i = 0; i < acts; i++) {
            rig_act(rig);
        }
        /* More often than chance would have it, a group is in flight. */
        if (random_below(&rig->random, 2) == 0) {
            rig->disk->reaps_left = random_below(&rig->random, 4);
            for (uint32_t i = 0; i < 60; i++) {
                rig_act(rig);
            }
        }
        uint32_t keep = KEEPS[random_below(&rig->random, COUNT_OF(KEEPS))];
        rig_crash(rig, keep);
        struct journal_known known = {0};
        CHECK_ROW(seed, journal_replay(&rig->disk->disk, "journal", &known) == 0);
        rig_check_known(rig, &known, seed);
        /* What replay believed is durable: all that is not synced may go now. */
        if (random_below(&rig->random, 2) == 0) {
            crash_disk_crash(rig->disk, 0);
            struct journal_known again = {0};
            CHECK_ROW(seed, journal_replay(&rig->disk->disk, "journal", &again) == 0);
            CHECK_ROW(seed, known_equal(&again, &known));
            journal_known_free(&again);
        }
        ensure(rig_start(rig) == 0);
        rig_adopt(rig, &known);
        rig_step(rig, 1);
        journal_known_free(&known);
    }
    rig_destroy(rig);
}

static void test_crashes(void)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        crash_rounds(seed, seed % 2 == 0);
    }
}

SUITE(journal_replay, test_empty_directory, test_crashes)
