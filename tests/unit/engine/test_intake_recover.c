/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier engine left behind: who is marked, and whose batch it is. */
#include "engine/intake.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/engine/intake_rig.h"

/* The mark of an orderly stop, LAW 6. */

static void test_after_a_crash_all_who_may_have_been_in_flight_are_marked(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    uint32_t now_s = wall_seconds(clock_wall(&rig->clock.clock));
    for (uint32_t i = 0; i < 5; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
        rig_end(rig, 5 + i, JOURNAL_DEFERRED, now_s + 3600);
    }
    rig_run(rig);
    rig_down(rig, false);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 10);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 10);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 5);
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    CU_ASSERT(retry_take_xcore(rig->engine.retry, now_s + 4000, &chain));
    struct inbox_node *node;
    while ((node = inbox_chain_take(&chain)) != NULL) {
        const struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        CU_ASSERT_EQUAL(recipient->flags & RECIPIENT_AMBIGUOUS, 0);
        CU_ASSERT_EQUAL(recipient->attempts_count, 1);
    }
    rig_destroy(rig);
}

static void test_after_an_orderly_stop_nobody_is_marked(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    rig_down(rig, true);
    CU_ASSERT(rig_is_there(rig, "clean"));
    rig_boot(rig);
    CU_ASSERT(rig_is_there(rig, "clean")); /* until something may be sent */
    rig_run(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, "clean"));
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 0);
    rig_destroy(rig);
}

/* In doubt since the crash, and not tried before the orderly stop behind it. */
static void test_a_doubt_outlives_an_orderly_stop(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_submit(rig, "two", 5);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 25);
    rig_down(rig, false);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 25);
    rig_submit(rig, "three", 7);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 25);
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        const struct batch *batch = &rig->engine.batches[rig->taken[i]->batch];
        if (strcmp(batch->manifest->id, "two") == 0) {
            rig_end(rig, i, JOURNAL_DELIVERED, 0);
        }
    }
    rig_run(rig);
    CU_ASSERT(rig_is_in(rig, "done", "two"));
    rig_down(rig, true);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 27);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 20); /* "one" */
    rig_destroy(rig);
}

/* Tried before the crash, under way again at the crash, and not tried before an orderly stop behind
 * it: the earlier attempt was taken for one that had come since, and the doubt was gone. */
static void test_who_was_tried_before_a_crash_stays_in_doubt(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    uint32_t first_s = wall_seconds(clock_wall(&rig->clock.clock));
    for (uint32_t i = 0; i < 5; i++) {
        rig_end(rig, i, JOURNAL_DEFERRED, first_s + 1);
        rig_end(rig, 5 + i, JOURNAL_DEFERRED, first_s + 900);
    }
    rig_run(rig);
    for (uint32_t stops = 0; stops < 3; stops++) {
        rig_down(rig, stops > 0);
        rig_boot(rig);
        rig_run(rig); /* later, whoever was not due at the crash is, and was not in flight then */
    }
    CU_ASSERT_EQUAL(rig->taken_count, 10);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 10);
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    while (retry_take_xcore(rig->engine.retry, first_s + 1000, &chain)) {
    }
    CU_ASSERT_EQUAL(chain.count, 10);
    struct inbox_node *node;
    while ((node = inbox_chain_take(&chain)) != NULL) {
        const struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        bool is_marked = (recipient->flags & RECIPIENT_AMBIGUOUS) != 0;
        CU_ASSERT_EQUAL(is_marked, recipient->due_s == first_s + 1);
    }
    rig_destroy(rig);
}

/* Batches that the journal knows. */

static uint32_t journal_knows(struct rig *rig)
{
    char path[RIG_PATH_SIZE];
    struct journal_known known;
    rig_path(rig, "journal", path);
    int error = 0;
    struct disk *disk = disk_plain_create(NULL, &error);
    ensure(disk != NULL);
    ensure(journal_replay(disk, path, NULL, &known) == 0);
    uint32_t count = known.batches_count;
    journal_known_free(&known);
    disk_destroy(disk);
    return count;
}

/* It went to done/, and the engine died before the journal was told. A new batch of the same name
 * was taken for the old one: none of its recipients was sent to. */
static void test_a_batch_that_left_is_not_taken_for_a_new_one(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
    }
    /* Durable, but the folder is still in active/. */
    for (uint32_t i = 0; i < 10; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
        clock_manual_advance(&rig->clock, 10 * NS_PER_MS);
    }
    rig_down(rig, false);
    CU_ASSERT_EQUAL(journal_knows(rig), 1);
    rig_move(rig, "active/one.batch", "done/one.batch");
    rig_move(rig, "journal/ids-2027-01-15", "journal/forgotten"); /* as if it had been long ago */
    rig_submit(rig, "one", 20);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(rig_marked_count(rig), 0);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_down(rig, false);
    CU_ASSERT_EQUAL(journal_knows(rig), 0);
    rig_boot(rig);
    rig_destroy(rig);
}

static void test_a_batch_on_hold_keeps_its_name(void)
{
    struct rig *rig = rig_create();
    char text[4096];
    rig_submit(rig, "one", 20);
    rig_run(rig);
    rig_end(rig, 0, JOURNAL_DELIVERED, 0);
    rig_run(rig);
    rig_down(rig, true);
    rig_file_read(rig, "active/one.batch/recipients.ndjson", text, sizeof(text));
    text[strlen(text) - 3] = ' ';
    rig_file_write(rig, "active/one.batch/recipients.ndjson", text);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT(rig_is_there(rig, "hold/one.batch/reason.txt"));
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    rig_submit(rig, "one", 3);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    CU_ASSERT(rig_is_in(rig, "failed", "one"));
    /* The file is mended and the batch put back: it goes on where it was. */
    rig_down(rig, true);
    CU_ASSERT_EQUAL(journal_knows(rig), 1);
    text[strlen(text) - 3] = '"';
    rig_file_write(rig, "hold/one.batch/recipients.ndjson", text);
    rig_move(rig, "hold/one.batch", "active/one.batch");
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 19);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* What was accepted is sent with the bytes it was accepted with, or not at all. */
static void test_a_changed_file_holds_its_batch(void)
{
    static const char *const FILES[] = {"message.eml", "batch.json", "recipients.ndjson"};
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        struct rig *rig = rig_create();
        char name[64];
        char text[4096];
        rig_submit(rig, "one", 20);
        rig_run(rig);
        rig_down(rig, true);
        (void)snprintf(name, sizeof(name), "active/one.batch/%s", FILES[i]);
        rig_file_read(rig, name, text, sizeof(text));
        size_t size = strlen(text);
        ensure(size + 1 < sizeof(text));
        memcpy(text + size, "\n", 2);
        rig_file_write(rig, name, text);
        rig->taken_count = 0;
        rig_boot(rig);
        rig_run(rig);
        CHECK_ROW(i, rig_is_there(rig, "hold/one.batch/reason.txt"));
        CHECK_ROW(i, rig->taken_count == 0);
        rig_destroy(rig);
    }
}

/* People emptied journal/. */

static void journal_empty(const struct rig *rig)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, "journal", path);
    DIR *dir = opendir(path);
    ensure(dir != NULL);
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') {
            ensure(unlinkat(dirfd(dir), entry->d_name, 0) == 0);
        }
    }
    ensure(closedir(dir) == 0);
}

/* Nothing says any more that it was accepted, or who has it: no damage is seen where no file is. */
static void test_beside_an_emptied_journal_all_are_marked(void)
{
    for (uint32_t row = 0; row < 2; row++) {
        struct rig *rig = rig_create();
        rig_submit(rig, "one", 20);
        rig_run(rig);
        CHECK_ROW(row, rig->taken_count == 20);
        rig_down(rig, row == 1);
        journal_empty(rig);
        rig_boot(rig);
        rig_submit(rig, "two", 5);
        rig_run(rig);
        CHECK_ROW(row, rig->taken_count == 25);
        CHECK_ROW(row, rig_marked_count(rig) == 20);
        rig_destroy(rig);
    }
}

/* Whether it was accepted anew by the orderly stop, or not even looked at. */
static void test_the_doubt_about_an_emptied_journal_outlives_an_orderly_stop(void)
{
    for (uint32_t row = 0; row < 2; row++) {
        struct rig *rig = rig_create();
        rig_submit(rig, "one", 20);
        rig_run(rig);
        rig_down(rig, false);
        journal_empty(rig);
        rig_boot(rig);
        if (row == 1) {
            rig_submit(rig, "two", 5);
            rig_run(rig);
        }
        for (uint32_t stops = 0; stops < 2; stops++) {
            rig_down(rig, true);
            rig_boot(rig);
            rig_run(rig);
            CHECK_ROW(row, rig->taken_count == (row == 1 ? 25 : 20));
            CHECK_ROW(row, rig_marked_count(rig) == 20);
        }
        rig_submit(rig, "three", 7);
        rig_end_rest(rig, 0);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        rig_down(rig, true);
        rig_boot(rig);
        rig_run(rig);
        CHECK_ROW(row, rig->taken_count == 7);
        CHECK_ROW(row, rig_marked_count(rig) == 0);
        rig_destroy(rig);
    }
}

/* Lines tell that it was accepted, by whichever name their file has. */
static void test_beside_an_emptied_journal_results_hold_a_batch(void)
{
    static const char *const NAMES[] = {"results.ndjson", ".results.doubted"};
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        struct rig *rig = rig_create();
        char name[64];
        rig_submit(rig, "one", 20);
        rig_run(rig);
        rig_end(rig, 0, JOURNAL_DELIVERED, 0);
        rig_run(rig);
        rig_down(rig, false);
        (void)snprintf(name, sizeof(name), "active/one.batch/%s", NAMES[i]);
        rig_move(rig, "active/one.batch/results.ndjson", name);
        journal_empty(rig);
        rig_boot(rig);
        rig_run(rig);
        CHECK_ROW(i, rig->taken_count == 0);
        CHECK_ROW(i, rig_is_there(rig, "hold/one.batch/reason.txt"));
        rig_destroy(rig);
    }
}

SUITE(intake_recover, test_after_a_crash_all_who_may_have_been_in_flight_are_marked,
      test_after_an_orderly_stop_nobody_is_marked, test_a_doubt_outlives_an_orderly_stop,
      test_who_was_tried_before_a_crash_stays_in_doubt,
      test_a_batch_that_left_is_not_taken_for_a_new_one, test_a_batch_on_hold_keeps_its_name,
      test_a_changed_file_holds_its_batch, test_beside_an_emptied_journal_all_are_marked,
      test_the_doubt_about_an_emptied_journal_outlives_an_orderly_stop,
      test_beside_an_emptied_journal_results_hold_a_batch)
