/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_replay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/journal_record.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

static const uint32_t KEEPS[] = {0, 10, 50, 90, 100, CRASH_PROGRAM};

static void test_empty_directory(void)
{
    struct rig *rig = rig_create(1);
    struct journal_known known;
    CU_ASSERT_EQUAL(journal_replay(&rig->disk->disk, "journal", NULL, &known), 0);
    CU_ASSERT_EQUAL(known.batches_count, 0);
    CU_ASSERT_EQUAL(known.next_number, 1);
    CU_ASSERT_EQUAL(known.next_segment, 1);
    CU_ASSERT_EQUAL(known.corrupt_records, 0);
    CU_ASSERT_PTR_NULL(journal_known_find(&known, "x"));
    journal_known_free(&known);
    journal_known_free(NULL);
    CU_ASSERT_EQUAL(journal_replay(&rig->disk->disk, "nowhere", NULL, &known), -ENOENT);
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

/* The disk dies in the middle of a replay or of the start behind it: the next replay says the same.
 */
static void crash_in_recovery(struct rig *rig, struct journal_known *known, size_t row)
{
    rig->disk->fail_at = rig->disk->ops_count + 1 + random_below(&rig->random, 12);
    rig->disk->is_sticky = true;
    rig->disk->error = -EIO;
    struct journal_known half = {0};
    if (journal_replay(&rig->disk->disk, "journal", NULL, &half) == 0) {
        (void)rig_start(rig, &half);
    }
    journal_known_free(&half);
    rig_crash(rig, KEEPS[random_below(&rig->random, COUNT_OF(KEEPS))]);
    struct journal_known again = {0};
    CHECK_ROW(row, journal_replay(&rig->disk->disk, "journal", NULL, &again) == 0);
    CHECK_ROW(row, known_equal(&again, known));
    journal_known_free(known);
    *known = again;
}

/* Crash at a random moment, replay, check, go on; over and over on one disk. */
static void crash_rounds(uint64_t seed, bool is_shuffled)
{
    struct rig *rig = rig_create(seed);
    rig->disk->is_shuffled = is_shuffled;
    rig->segment_size = seed % 3 == 0 ? 4096 : 16384;
    rig->segments_max = 1 + (uint32_t)(seed % 4);
    ensure(rig_start(rig, NULL) == 0);
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
        CHECK_ROW(seed, journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        rig_check_known(rig, &known, seed);
        /* What replay believed is durable: all that is not synced may go now. */
        if (random_below(&rig->random, 2) == 0) {
            crash_disk_crash(rig->disk, 0);
            struct journal_known again = {0};
            CHECK_ROW(seed, journal_replay(&rig->disk->disk, "journal", NULL, &again) == 0);
            CHECK_ROW(seed, known_equal(&again, &known));
            journal_known_free(&again);
        }
        if (random_below(&rig->random, 3) == 0) {
            crash_in_recovery(rig, &known, seed);
        }
        ensure(rig_start(rig, &known) == 0);
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

/* Replays; what is wrong must have been noticed, unless it may be taken for a torn write. */
static void check_damaged(struct rig *rig, size_t row, bool may_be_torn)
{
    struct journal_known known = {0};
    int error = journal_replay(&rig->disk->disk, "journal", NULL, &known);
    CHECK_ROW(row, error == 0 || error == -EPROTONOSUPPORT);
    if (error == 0) {
        CHECK_ROW(row, may_be_torn || known.corrupt_records > 0 || rig_known_is_right(rig, &known));
    }
    journal_known_free(&known);
}

/* T7: each byte of each file, one at a time. */
static void test_flipped_bytes(void)
{
    struct rig *rig = rig_aged();
    char last_path[64];
    size_t last_at = rig_last_group_at(rig, last_path);
    CU_ASSERT(last_at > 0);
    for (size_t n = 0; n < rig->disk->seen.count; n++) {
        if (!rig_name_is_of_journal(&rig->disk->seen.rows[n])) {
            continue;
        }
        char path[64];
        (void)snprintf(path, sizeof(path), "journal/%.40s", rig->disk->seen.rows[n].text);
        struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
        for (size_t i = 0; i < bytes->size; i++) {
            bytes->at[i] ^= 0x04;
            check_damaged(rig, i, strcmp(path, last_path) == 0 && i >= last_at);
            bytes->at[i] ^= 0x04;
        }
    }
    struct journal_known known;
    ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
    rig_check_known(rig, &known, 0);
    journal_known_free(&known);
    rig_destroy(rig);
}

/* Each file cut short at each cell, zeroed from each sector on, or gone. */
static void test_cut_files(void)
{
    struct rig *rig = rig_aged();
    char last_path[64];
    size_t last_at = rig_last_group_at(rig, last_path);
    for (size_t n = 0; n < rig->disk->seen.count; n++) {
        struct crash_name name = rig->disk->seen.rows[n];
        if (!rig_name_is_of_journal(&name)) {
            continue;
        }
        char path[64];
        (void)snprintf(path, sizeof(path), "journal/%.40s", name.text);
        struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
        size_t whole = bytes->size;
        for (size_t size = 0; size < whole; size += 32) {
            bytes->size = size;
            check_damaged(rig, size, strcmp(path, last_path) == 0 && size >= last_at);
        }
        bytes->size = whole;
        char *content = malloc(whole);
        ensure(content != NULL);
        memcpy(content, bytes->at, whole);
        for (size_t size = 512; size < whole; size += 512) {
            memset(bytes->at + size, 0, whole - size);
            /* Of the last file that is the same as if it had never been written. */
            check_damaged(rig, size, strcmp(path, last_path) == 0);
            memcpy(bytes->at, content, whole);
        }
        free(content);
        /* The last files may be gone without a trace: nothing says that they were there. */
        rig->disk->seen.rows[n].text[0] = '#';
        check_damaged(rig, n, strcmp(path, last_path) >= 0);
        rig->disk->seen.rows[n].text[0] = name.text[0];
    }
    rig_destroy(rig);
}

/* The newest checkpoint is broken, but what it stands for has not been removed yet. */
static void test_older_checkpoint_takes_over(void)
{
    struct rig *rig = rig_create(21);
    rig->disk->is_shuffled = true;
    rig->segment_size = 4096;
    rig->segments_max = 2;
    ensure(rig_start(rig, NULL) == 0);
    size_t found = 0;
    struct crash_disk *copy = malloc(sizeof(*copy));
    ensure(copy != NULL);
    for (int i = 0; i < 5000 && found < 5; i++) {
        rig_act(rig);
        uint32_t checkpoints = 0, newest = 0;
        for (size_t n = 0; n < rig->disk->seen.count; n++) {
            enum journal_file file;
            uint32_t number;
            if (journal_name_get(rig->disk->seen.rows[n].text, &file, &number) &&
                file == JOURNAL_FILE_CHECKPOINT) {
                checkpoints++;
                newest = number > newest ? number : newest;
            }
        }
        /* Before its first removal: the directory is as it was named. */
        if (checkpoints != 2) {
            continue;
        }
        found++;
        char path[64], name[JOURNAL_NAME_SIZE];
        journal_name_put(name, JOURNAL_FILE_CHECKPOINT, newest);
        (void)snprintf(path, sizeof(path), "journal/%s", name);
        for (size_t at = 0; at < crash_disk_file(rig->disk, path)->size; at += 97) {
            crash_disk_crash_copy(copy, rig->disk, 1, CRASH_PROGRAM);
            crash_disk_file(copy, path)->at[at] ^= 1;
            struct journal_known known = {0};
            int error = journal_replay(&copy->disk, "journal", NULL, &known);
            CHECK_ROW(at, error == 0 || (error == -EPROTONOSUPPORT && at >= 8 && at < 12));
            if (error == 0) {
                rig_check_known(rig, &known, at);
            }
            journal_known_free(&known);
            crash_disk_deinit(copy);
        }
    }
    CU_ASSERT(found > 0);
    free(copy);
    rig_destroy(rig);
}

/* Numbers are never used twice, although no record of the old batches is left. */
static void test_numbers_outlive_batches(void)
{
    struct rig *rig = rig_create(22);
    rig->segment_size = 4096;
    rig->segments_max = 1;
    ensure(rig_start(rig, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        struct rig_batch *batch = rig_accept(rig, 0);
        rig_settle_down(rig);
        rig_end(rig, batch);
        rig_settle_down(rig);
    }
    /* Deferrals of one batch push everything else out of the segments. */
    struct rig_batch *batch = rig_accept(rig, 20);
    rig_settle_down(rig);
    for (int i = 0; i < 300; i++) {
        (void)rig_entry(rig, batch, (uint32_t)i % 3, JOURNAL_DEFERRED);
        rig_settle_down(rig);
    }
    for (uint32_t i = 0; i < 20; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig_settle_down(rig);
    rig_end(rig, batch);
    rig_settle_down(rig);
    uint64_t checkpoints = stat_read_xcore(&rig->journal.stats.checkpoints);
    for (uint32_t i = 0; stat_read_xcore(&rig->journal.stats.checkpoints) < checkpoints + 2; i++) {
        batch = rig_accept(rig, 0);
        rig_settle_down(rig);
        rig_end(rig, batch);
        rig_settle_down(rig);
    }
    rig_crash(rig, 0);
    struct journal_known known;
    ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
    CU_ASSERT_EQUAL(known.batches_count, 0);
    CU_ASSERT_EQUAL(known.next_number, rig->next_number);
    journal_known_free(&known);
    rig_destroy(rig);
}

SUITE(journal_replay, test_empty_directory, test_crashes, test_flipped_bytes, test_cut_files,
      test_older_checkpoint_takes_over, test_numbers_outlive_batches)
