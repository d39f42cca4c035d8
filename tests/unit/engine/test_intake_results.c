/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of results that a crash has taken are made again from the journal, once. */
#include "engine/intake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/engine/intake_rig.h"

static uint32_t lines_with(const char *text, const char *words)
{
    uint32_t count = 0;
    while ((text = strstr(text, words)) != NULL) {
        count++;
        text++;
    }
    return count;
}

/* Lines were lost, one was torn in the middle and one at the end; two were written over. */
static void test_lost_results_are_made_from_the_journal(void)
{
    struct rig *rig = rig_create();
    char text[64 * 1024];
    rig_submit(rig, "one", 20);
    rig_run(rig);
    for (uint32_t i = 0; i < 12; i++) {
        rig_end(rig, i, i % 4 == 0 ? JOURNAL_BOUNCED : JOURNAL_DELIVERED, 0);
    }
    rig_run(rig);
    rig_file_read(rig, "active/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), 12);
    rig_down(rig, false);
    rig_file_write(rig, "active/one.batch/results.ndjson",
                   "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\"\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-6\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-9\",\"b\x93\xfe\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-10\",\"b\x1b\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-7\",\"ba");
    rig_boot(rig);
    rig_run(rig);
    rig_file_read(rig, "active/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), 12);
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), 12);
    CU_ASSERT_EQUAL(lines_with(text, "\"type\":\"Bounce\""), 3);
    CU_ASSERT_EQUAL(lines_with(text, "\"id\":\"1-7\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient_id\":\"n9\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient_id\":\"n10\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient\":\"u7@d1.example\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient_id\":\"n7\""), 1);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_file_read(rig, "done/2027-01-15/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), 20);
    rig_destroy(rig);
}

static uint32_t results_count(const struct rig *rig, const char *name)
{
    char text[64 * 1024];
    rig_file_read(rig, name, text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), lines_with(text, "}\n"));
    return lines_with(text, "}\n");
}

/* A start that comes as far as the journal's checkpoint, and no further: no batch is scanned. */
static void boot_until_checkpoint(struct rig *rig)
{
    rig->segments_max = 1;
    rig_boot(rig);
    for (uint32_t i = 0; i < 60; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
    }
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 0);
}

/* Twelve of twenty are settled, and three of them have lines. */
static struct rig *rig_with_lost_results(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    for (uint32_t i = 0; i < 12; i++) {
        rig_end(rig, i, i % 4 == 0 ? JOURNAL_BOUNCED : JOURNAL_DELIVERED, 0);
    }
    rig_run(rig);
    rig_down(rig, false);
    rig_file_write(rig, "active/one.batch/results.ndjson",
                   "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Bounce\",\"id\":\"1-8\",\"batch\":\"x\"}\n");
    return rig;
}

/* What the start after a crash had found was kept in memory only, and the journal's checkpoint took
 * the records: a second crash, or an orderly stop, in front of the scan lost the lines for good. */
static void test_found_results_outlive_what_comes_next(void)
{
    for (uint32_t row = 0; row < 8; row++) {
        struct rig *rig = rig_with_lost_results();
        for (uint32_t stops = 0; stops < 3; stops++) {
            boot_until_checkpoint(rig);
            CHECK_ROW(row, rig_is_there(rig, "journal/results-missing"));
            CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 3);
            rig_down(rig, (row >> stops & 1) != 0);
        }
        rig_boot(rig);
        rig_run(rig);
        CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 12);
        rig_end_rest(rig, 0);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        CHECK_ROW(row, results_count(rig, "done/2027-01-15/one.batch/results.ndjson") == 20);
        rig_down(rig, true);
        rig_boot(rig);
        CHECK_ROW(row, !rig_is_there(rig, "journal/results-missing"));
        rig_destroy(rig);
    }
}

/* Those who have a line by the next start are not given another one. */
static void test_completed_results_are_not_completed_again(void)
{
    struct rig *rig = rig_with_lost_results();
    boot_until_checkpoint(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    CU_ASSERT(rig_is_there(rig, "journal/results-missing"));
    rig_down(rig, false);
    rig_boot(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, "journal/results-missing"));
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_destroy(rig);
}

/* Crash upon crash, each with other lines lost: what was kept and what is new go together. */
static void test_kept_results_are_joined_by_new_ones(void)
{
    struct rig *rig = rig_with_lost_results();
    boot_until_checkpoint(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 8);
    rig_end_rest(rig, 4);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 16);
    rig_down(rig, false);
    /* All but one line of the first run, and all of this one: their pages were never written. */
    rig_file_write(rig, "active/one.batch/results.ndjson",
                   "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\":\"x\"}\n"
                   "{\"type\":\"Bounce\",\"id\":\"1-8\",\"batch\":\"x\"}\n");
    for (uint32_t stops = 0; stops < 2; stops++) {
        boot_until_checkpoint(rig);
        rig_down(rig, false);
    }
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 16);
    rig_destroy(rig);
}

/* A file of that name with other things in it stops nothing and makes no lines. */
static void test_a_strange_file_of_kept_results_is_passed_over(void)
{
    struct rig *rig = rig_with_lost_results();
    rig_file_write(rig, "journal/results-missing",
                   "RamjetJ\nis what this begins with, and no more.");
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_destroy(rig);
}

/* Its lines were lost when it came to hold/, and the journal's records went while it lay there. */
static void test_a_batch_on_hold_keeps_its_missing_results(void)
{
    struct rig *rig = rig_with_lost_results();
    char text[4096];
    rig_file_read(rig, "active/one.batch/recipients.ndjson", text, sizeof(text));
    text[strlen(text) - 3] = ' ';
    rig_file_write(rig, "active/one.batch/recipients.ndjson", text);
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT(rig_is_there(rig, "hold/one.batch/reason.txt"));
    rig_down(rig, false);
    rig_file_write(rig, "hold/one.batch/results.ndjson", "");
    for (uint32_t stops = 0; stops < 3; stops++) {
        boot_until_checkpoint(rig);
        rig_run(rig);
        rig_down(rig, stops == 1);
    }
    text[strlen(text) - 3] = '"';
    rig_file_write(rig, "hold/one.batch/recipients.ndjson", text);
    rig_move(rig, "hold/one.batch", "active/one.batch");
    rig_boot(rig);
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* Twelve of twenty are settled, in two groups of the journal, and all have their lines. */
static struct rig *rig_with_whole_results(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 20);
    rig_run(rig);
    for (uint32_t i = 0; i < 12; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
        if (i == 5 || i == 11) {
            rig_run(rig);
        }
    }
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_down(rig, true);
    return rig;
}

/* A file in doubt that could not be copied, and no record left that it misses: nothing told the
 * start behind an orderly stop of it, the journal began a new file, and the old lines were gone. */
static void test_results_in_doubt_outlive_an_orderly_stop(void)
{
    struct rig *rig = rig_with_whole_results();
    char path[RIG_PATH_SIZE];
    boot_until_checkpoint(rig);
    rig_down(rig, false);
    rig_move(rig, "active/one.batch/results.ndjson", "active/one.batch/.results.doubted");
    rig_path(rig, "active/one.batch/.results.tmp", path);
    CU_ASSERT_EQUAL(mkdir(path, 0770), 0); /* where the copy would be */
    for (uint32_t stops = 0; stops < 3; stops++) {
        rig_boot(rig);
        CU_ASSERT(rig_is_there(rig, "journal/results-missing"));
        rig_run(rig);
        CU_ASSERT_EQUAL(rig->taken_count, 0);
        rig_down(rig, true);
    }
    CU_ASSERT_EQUAL(rmdir(path), 0);
    rig_boot(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, "journal/results-missing"));
    rig_run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    CU_ASSERT_EQUAL(rig->taken_count, 8);
    rig_end_rest(rig, 0);
    CU_ASSERT_EQUAL(results_count(rig, "done/2027-01-15/one.batch/results.ndjson"), 20);
    rig_destroy(rig);
}

/* The cell in the first segment that says who was delivered. */
static void record_break(const struct rig *rig, uint32_t ordinal)
{
    char path[RIG_PATH_SIZE];
    struct journal_cell cell;
    struct journal_record record = {.ordinal = UINT32_MAX};
    rig_path(rig, "journal/journal-00000001.log", path);
    FILE *file = fopen(path, "r+");
    ensure(file != NULL);
    uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, 1);
    long index = JOURNAL_SECTOR_CELLS;
    ensure(fseek(file, index * JOURNAL_CELL_SIZE, SEEK_SET) == 0);
    while (fread(&cell, sizeof(cell), 1, file) == 1 &&
           !(journal_record_get(&cell, seed + (uint64_t)index, &record) &&
             record.kind == JOURNAL_KIND_DELIVERED && record.ordinal == ordinal)) {
        index++;
    }
    ensure(record.ordinal == ordinal);
    ensure(fseek(file, index * JOURNAL_CELL_SIZE, SEEK_SET) == 0);
    ensure(fputs("broken", file) >= 0);
    ensure(fclose(file) == 0);
}

/* Damage while no engine ran, or seen by a checkpoint while one did: whoever is sent to again had
 * two lines in the end, since a start behind an orderly stop did not look at the file. */
static void test_who_is_sent_to_again_has_one_line(void)
{
    for (uint32_t row = 0; row < 2; row++) {
        struct rig *rig = rig_with_whole_results();
        char text[64 * 1024];
        if (row == 0) {
            record_break(rig, 3);
            rig_boot(rig);
            CHECK_ROW(row, rig->intake.core->known.damages.count == 1);
        } else {
            rig->segments_max = 1;
            rig_boot(rig);
            record_break(rig, 3);
            for (uint32_t i = 0; i < 60; i++) {
                (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
            }
            CHECK_ROW(row, stat_read_xcore(&rig->journal.stats.checkpoints) > 0);
            rig_down(rig, true);
            rig_boot(rig);
            CHECK_ROW(row, rig->intake.core->known.damages.count == 0);
        }
        CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 11);
        rig_run(rig);
        CHECK_ROW(row, rig->taken_count == 9);
        CHECK_ROW(row, rig_marked_count(rig) == 9);
        rig_end_rest(rig, 0);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        rig_file_read(rig, "done/2027-01-15/one.batch/results.ndjson", text, sizeof(text));
        CHECK_ROW(row, lines_with(text, "}\n") == 20);
        CHECK_ROW(row, lines_with(text, "\"id\":\"1-3\"") == 1);
        rig_destroy(rig);
    }
}

/* A disk on which one operation on results-missing fails. */
struct broken_disk {
    struct disk disk;
    struct disk *under;
    enum disk_verb verb;
    int fd;
};

static int64_t broken_run(struct disk *disk, struct disk_op *op)
{
    struct broken_disk *broken = CONTAINER_OF(disk, struct broken_disk, disk);
    bool is_open = op->verb == DISK_OPEN && strcmp(op->path, "results-missing") == 0;
    if ((is_open && broken->verb == DISK_OPEN) ||
        (op->verb == DISK_READ && broken->verb == DISK_READ && op->fd == broken->fd)) {
        op->result = -EBADMSG;
        return op->result;
    }
    int64_t result = disk_run(broken->under, op);
    broken->fd = is_open ? (int)result : broken->fd;
    return result;
}

/* What is kept was taken for another file's content, and written over. */
static void test_kept_results_that_cannot_be_read_stay(void)
{
    static const enum disk_verb VERBS[] = {DISK_OPEN, DISK_READ};
    static const struct disk_ops OPS = {.run = broken_run};
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        struct rig *rig = rig_with_lost_results();
        char before[4096];
        char after[4096];
        boot_until_checkpoint(rig);
        rig_file_read(rig, "journal/results-missing", before, sizeof(before));
        struct broken_disk broken = {
            .disk = {.ops = &OPS}, .under = rig->intake_disk, .verb = VERBS[i], .fd = -1};
        rig->intake.core->disk = &broken.disk;
        CHECK_ROW(i, intake_results_recover(rig->intake.core) == -EBADMSG);
        rig->intake.core->disk = rig->intake_disk;
        CHECK_ROW(i, rig_is_there(rig, "journal/results-missing"));
        rig_file_read(rig, "journal/results-missing", after, sizeof(after));
        CHECK_ROW(i, memcmp(before, after, 512 + 9 * 32) == 0);
        rig_destroy(rig);
    }
}

/* A disk that does not give results.ndjson of the batch, while it is there. */
static struct {
    struct rig *rig;
    struct disk_ops ops;
    const struct disk_ops *under;
} unreadable;

static int64_t unreadable_run(struct disk *disk, struct disk_op *op)
{
    if (op->verb == DISK_OPEN && strcmp(op->path, "results.ndjson") == 0 &&
        rig_is_there(unreadable.rig, "active/one.batch/results.ndjson")) {
        op->result = -EIO;
        return op->result;
    }
    return unreadable.under->run(disk, op);
}

/* The start cannot read the file, nor can the steps behind it. */
static struct rig *rig_with_unread_results(void)
{
    struct rig *rig = rig_with_whole_results();
    char path[RIG_PATH_SIZE];
    rig_boot(rig);
    rig_down(rig, false);
    rig_move(rig, "active/one.batch/results.ndjson", "active/one.batch/away");
    rig_path(rig, "active/one.batch/results.ndjson", path);
    ensure(mkdir(path, 0770) == 0);
    rig_boot(rig);
    ensure(rmdir(path) == 0);
    rig_move(rig, "active/one.batch/away", "active/one.batch/results.ndjson");
    unreadable.rig = rig;
    unreadable.under = rig->intake_disk->ops;
    unreadable.ops = *unreadable.under;
    unreadable.ops.run = unreadable_run;
    rig->intake_disk->ops = &unreadable.ops;
    rig_run(rig);
    return rig;
}

/* People see it, and the batch goes on when the file can be read, is taken away, or the batch is
 * cancelled. */
static void test_results_that_cannot_be_read(void)
{
    enum { READABLE, AWAY, CANCELLED, ROWS };
    for (uint32_t row = 0; row < ROWS; row++) {
        struct rig *rig = rig_with_unread_results();
        const struct intake_stats *stats = &rig->intake.stats;
        CHECK_ROW(row, rig->taken_count == 0);
        CHECK_ROW(row, stat_read_xcore(&stats->results_unread) == 1);
        struct span words = writer_span(&rig->intake.core->words_waiting);
        static const char NAME[] = "/active/one.batch/results.ndjson: cannot be read, ";
        CHECK_ROW(row, memmem(words.at, words.size, NAME, sizeof(NAME) - 1) != NULL);
        CHECK_ROW(row, memmem(words.at, words.size, strerror(EIO), strlen(strerror(EIO))) != NULL);
        if (row == READABLE) {
            rig->intake_disk->ops = unreadable.under;
        } else if (row == AWAY) {
            rig_move(rig, "active/one.batch/results.ndjson", "active/one.batch/away");
        } else {
            rig_file_write(rig, "in/ctl/one.cancel", "");
        }
        rig_run(rig);
        CHECK_ROW(row, rig->taken_count == 8);
        CHECK_ROW(row, stat_read_xcore(&stats->results_unread) == 0);
        CHECK_ROW(row, !rig_is_there(rig, "in/ctl/one.cancel"));
        CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 12);
        uint32_t slot = rig->taken[0]->batch;
        uint64_t orders = stat_read_xcore(&rig->engine.batches[slot].orders);
        CHECK_ROW(row, orders == (row == CANCELLED ? BATCH_CANCELLED : 0));
        CHECK_ROW(row, rig_is_there(rig, "active/one.batch/results.ndjson.unread") ==
                           (row == CANCELLED));
        rig_end_rest(rig, 0);
        CHECK_ROW(row, rig_is_in(rig, "done", "one"));
        CHECK_ROW(row, results_count(rig, "done/2027-01-15/one.batch/results.ndjson") == 20);
        rig_destroy(rig);
    }
}

/* What the journal held goes on: the workers hear of it once. */
static void test_workers_hear_of_releases(void)
{
    struct rig *rig = rig_create();
    stat_add(&rig->journal.stats.results_releases, 2);
    rig_run(rig);
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    CU_ASSERT_PTR_NOT_NULL(node);
    if (node != NULL) {
        struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
        CU_ASSERT_FALSE(order->is_cancel);
        inbox_push_xcore(order->reply_to, node);
    }
    rig_run(rig);
    CU_ASSERT_PTR_NULL(inbox_take(&rig->worker->orders));
    rig_destroy(rig);
}

SUITE(intake_results, test_results_that_cannot_be_read, test_workers_hear_of_releases,
      test_lost_results_are_made_from_the_journal, test_found_results_outlive_what_comes_next,
      test_completed_results_are_not_completed_again, test_kept_results_are_joined_by_new_ones,
      test_a_strange_file_of_kept_results_is_passed_over,
      test_a_batch_on_hold_keeps_its_missing_results, test_results_in_doubt_outlive_an_orderly_stop,
      test_who_is_sent_to_again_has_one_line, test_kept_results_that_cannot_be_read_stay)
