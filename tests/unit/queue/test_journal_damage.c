/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What replay makes of files that were damaged while no engine ran, held against what it made of
 * them before: nothing is invented, whoever lost something is marked and told, and one broken
 * place costs no more than what stood there.
 */
#include "queue/journal_damage.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "queue/journal_record.h"
#include "queue/journal_walk.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

enum { FILES_MAX = 32, PATH_SIZE = 64 };

/* A journal, its files as they were, and what they say. */
struct bench {
    struct rig *rig;
    struct journal_known truth;
    struct journal_known known; /* of the last replay */
    char paths[FILES_MAX][PATH_SIZE];
    char *contents[FILES_MAX];
    size_t sizes[FILES_MAX];
    size_t files_count;
    char last_path[PATH_SIZE];
    size_t last_at; /* of the last group, in it: damage behind may be a torn write */
};

/* The older of two checkpoints goes when nothing is to be there that can take the newer one's
 * place. */
static void bench_init(struct bench *bench, bool has_older)
{
    *bench = (struct bench){.rig = rig_aged()};
    struct crash_disk *disk = bench->rig->disk;
    size_t checkpoints = 0;
    char oldest[PATH_SIZE] = "";
    for (size_t i = 0; i < disk->seen.count; i++) {
        char path[PATH_SIZE];
        (void)snprintf(path, sizeof(path), "journal/%.40s", disk->seen.rows[i].text);
        if (strncmp(path, "journal/checkpoint-0", 20) == 0) {
            checkpoints++;
            if (oldest[0] == '\0' || strcmp(path, oldest) < 0) {
                memcpy(oldest, path, sizeof(path));
            }
        }
    }
    CU_ASSERT_EQUAL(checkpoints, 2);
    if (!has_older) {
        crash_disk_remove(disk, oldest);
    }
    bench->last_at = rig_last_group_at(bench->rig, bench->last_path);
    ensure(journal_replay(&disk->disk, "journal", NULL, &bench->truth) == 0);
    for (size_t i = 0; i < disk->seen.count; i++) {
        if (!rig_name_is_of_journal(&disk->seen.rows[i])) {
            continue;
        }
        size_t at = bench->files_count++;
        ensure(at < FILES_MAX);
        (void)snprintf(bench->paths[at], PATH_SIZE, "journal/%.40s", disk->seen.rows[i].text);
        const struct crash_bytes *bytes = crash_disk_file(disk, bench->paths[at]);
        bench->sizes[at] = bytes->size;
        bench->contents[at] = malloc(bytes->size);
        ensure(bench->contents[at] != NULL);
        memcpy(bench->contents[at], bytes->at, bytes->size);
    }
    ensure(bench->files_count > 4);
    CU_ASSERT(bench->truth.batches_count > 3);
    CU_ASSERT_EQUAL(bench->truth.damages.count, 0);
}

static void bench_deinit(struct bench *bench)
{
    for (size_t i = 0; i < bench->files_count; i++) {
        free(bench->contents[i]);
    }
    journal_known_free(&bench->truth);
    journal_known_free(&bench->known);
    rig_destroy(bench->rig);
}

static void put(struct bench *bench, size_t file)
{
    crash_disk_put(bench->rig->disk, bench->paths[file],
                   span_of(bench->contents[file], bench->sizes[file]));
}

static char *bytes_of(struct bench *bench, size_t file)
{
    return crash_disk_file(bench->rig->disk, bench->paths[file])->at;
}

static void replay(struct bench *bench, size_t row)
{
    journal_known_free(&bench->known);
    CHECK_ROW(row, journal_replay(&bench->rig->disk->disk, "journal", NULL, &bench->known) == 0);
}

static const struct journal_deferral *deferral_of(const struct journal_known_batch *batch,
                                                  uint32_t ordinal)
{
    for (uint32_t i = 0; i < batch->deferrals_count; i++) {
        if (batch->deferrals[i].ordinal == ordinal) {
            return &batch->deferrals[i];
        }
    }
    return NULL;
}

static bool is_settled(const struct journal_known_batch *batch, uint32_t ordinal)
{
    return (batch->settled[ordinal / 64] >> (ordinal % 64) & 1) != 0;
}

/* Some row speaks of the recipient, or of anybody. */
static bool is_told(const struct journal_known *known, uint32_t batch, uint32_t ordinal)
{
    for (uint32_t i = 0; i < known->damages.count; i++) {
        const struct journal_damage *row = &known->damages.rows[i];
        bool is_any = row->ordinal_last < row->ordinal_first;
        if (row->batch == 0 ||
            (row->batch == batch &&
             (is_any || (ordinal >= row->ordinal_first && ordinal <= row->ordinal_last)))) {
            return true;
        }
    }
    return known->damages.left_count > 0;
}

/* How many recipients lost something; each must be told. */
static uint32_t batch_losses(const struct bench *bench, const struct journal_known_batch *was,
                             const struct journal_known_batch *is, size_t row)
{
    uint32_t losses = 0;
    CHECK_ROW(row, is->records_count == was->records_count && is->number == was->number &&
                       is->content_hash == was->content_hash);
    for (uint32_t i = 0; i < was->records_count; i++) {
        const struct journal_deferral *before = deferral_of(was, i), *now = deferral_of(is, i);
        CHECK_ROW(row, !is_settled(is, i) || is_settled(was, i));
        CHECK_ROW(row,
                  now == NULL || before == NULL || now->attempts_count <= before->attempts_count);
        bool is_less = is_settled(was, i) && !is_settled(is, i);
        if (before != NULL) {
            is_less = now == NULL || now->attempts_count != before->attempts_count ||
                      now->is_ambiguous != before->is_ambiguous || now->due_s != before->due_s;
        }
        losses += is_less;
        CHECK_ROW(row, !is_less || (is->is_damaged && is_told(&bench->known, was->number, i)));
    }
    return losses;
}

/* Recipients that lost something in all; batches that are gone count as many as they have. */
static uint32_t losses_of(struct bench *bench, size_t row, uint32_t *ret_gone)
{
    uint32_t losses = 0, gone = 0;
    bool is_found = bench->known.damages.count > 0;
    for (uint32_t i = 0; i < bench->truth.batches_count; i++) {
        const struct journal_known_batch *was = &bench->truth.batches[i];
        const struct journal_known_batch *is = journal_known_find(&bench->known, was->directory);
        if (is == NULL) {
            gone++;
            CHECK_ROW(row, is_found);
            continue;
        }
        losses += batch_losses(bench, was, is, row);
    }
    /* One that had ended may come back, and is marked then. */
    for (uint32_t i = 0; i < bench->known.batches_count; i++) {
        struct journal_known_batch *is = &bench->known.batches[i];
        CHECK_ROW(row, is->is_damaged || !is_found ||
                           journal_known_find(&bench->truth, is->directory) != NULL);
    }
    *ret_gone = gone;
    return losses;
}

/* Whether what is broken from `at` on may be taken for the end of a torn write. */
static bool may_be_torn(const struct bench *bench, size_t file, size_t at)
{
    return strcmp(bench->paths[file], bench->last_path) == 0 && at >= bench->last_at;
}

static bool is_checkpoint(const struct bench *bench, size_t file)
{
    return strstr(bench->paths[file], "checkpoint") != NULL;
}

/* Not one that the checkpoint stands for, and that waits to be used again. */
static bool is_read(const struct bench *bench, size_t file)
{
    enum journal_file kind;
    uint32_t number;
    ensure(journal_name_get(bench->paths[file] + strlen("journal/"), &kind, &number));
    return kind == JOURNAL_FILE_CHECKPOINT || number >= bench->truth.first_segment;
}

/* A row for a place in this file that reaches over `offset`. */
static bool is_place_told(const struct bench *bench, size_t file, size_t offset)
{
    for (uint32_t i = 0; i < bench->known.damages.count; i++) {
        const struct journal_damage *row = &bench->known.damages.rows[i];
        char name[JOURNAL_NAME_SIZE];
        if (row->file == 0) {
            continue;
        }
        journal_name_put(name, row->file, row->number);
        bool is_here = row->kind == JOURNAL_DAMAGE_PASSED ||
                       (offset >= row->offset && offset < row->offset + row->size);
        if (strcmp(bench->paths[file] + strlen("journal/"), name) == 0 && is_here) {
            return true;
        }
    }
    return false;
}

/* One byte of each cell, with that mask. What stood there is lost, and nothing else; who lost
 * something is marked, whatever number stands in the broken cell. */
static void one_cell(bool has_older, size_t byte, unsigned mask)
{
    struct bench bench;
    bench_init(&bench, has_older);
    for (size_t file = 0; file < bench.files_count; file++) {
        for (size_t at = 0; at < bench.sizes[file]; at += JOURNAL_CELL_SIZE) {
            size_t row = file * 1000000 + at;
            put(&bench, file);
            bytes_of(&bench, file)[at + byte] ^= (char)mask;
            replay(&bench, row);
            uint32_t gone = 0;
            uint32_t losses = losses_of(&bench, row, &gone);
            bool is_found = bench.known.damages.count > 0;
            CHECK_ROW(row, losses + gone == 0 || is_found || may_be_torn(&bench, file, at));
            CHECK_ROW(row, !is_found || is_place_told(&bench, file, at));
            for (uint32_t i = 0; i < bench.known.damages.count; i++) {
                CHECK_ROW(row, bench.known.damages.rows[i].kind != JOURNAL_DAMAGE_GROUPS);
            }
            if (!is_checkpoint(&bench, file)) {
                CHECK_ROW(row, losses + gone <= 1);
            } else {
                CHECK_ROW(row, gone <= 1 && losses <= RIG_RECORDS_MAX);
            }
        }
        put(&bench, file);
    }
    bench_deinit(&bench);
}

static void test_one_cell(void)
{
    static const struct {
        size_t byte;
        unsigned mask;
    } ROWS[] = {
        {17, 0x20},                                              /* the time */
        {8, 0x01},  {8, 0x02},  {8, 0x04}, {8, 0x08}, {8, 0x10}, /* the batch */
        {8, 0x03},  {8, 0x06},  {8, 0x0c},                       /* not by one bit */
        {12, 0x01}, {12, 0x03},                                  /* the ordinal */
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        one_cell(true, ROWS[i].byte, ROWS[i].mask);
        one_cell(false, ROWS[i].byte, ROWS[i].mask);
    }
}

/* Each sector of each file zeroed, put in the place of the next one, and filled with that of
 * another file. */
static void test_sectors(void)
{
    struct bench bench;
    bench_init(&bench, false);
    for (size_t file = 0; file < bench.files_count; file++) {
        size_t other = (file + 1) % bench.files_count;
        for (size_t at = 0; at < bench.sizes[file]; at += JOURNAL_SECTOR_SIZE) {
            for (size_t how = 0; how < 3; how++) {
                size_t row = file * 1000000 + at * 10 + how;
                put(&bench, file);
                char *bytes = bytes_of(&bench, file);
                const char *whole = bench.contents[file];
                size_t next = at + JOURNAL_SECTOR_SIZE;
                if (how == 0) {
                    memset(bytes + at, 0, JOURNAL_SECTOR_SIZE);
                } else if (how == 1 && next < bench.sizes[file]) {
                    memcpy(bytes + at, whole + next, JOURNAL_SECTOR_SIZE);
                    memcpy(bytes + next, whole + at, JOURNAL_SECTOR_SIZE);
                } else if (at < bench.sizes[other]) {
                    memcpy(bytes + at, bench.contents[other] + at, JOURNAL_SECTOR_SIZE);
                }
                replay(&bench, row);
                uint32_t gone = 0;
                if (!may_be_torn(&bench, file, how == 1 ? next : at)) {
                    uint32_t losses = losses_of(&bench, row, &gone);
                    CHECK_ROW(row, losses + gone == 0 || bench.known.damages.count > 0);
                    CHECK_ROW(row, is_checkpoint(&bench, file) ||
                                       losses + gone <= 2 * JOURNAL_SECTOR_CELLS);
                }
            }
        }
        put(&bench, file);
    }
    bench_deinit(&bench);
}

/* A file is gone, another one lies under its name, it lies there twice, its first half or its last
 * is of another time. */
static void test_files(void)
{
    struct bench bench;
    bench_init(&bench, false);
    for (size_t file = 0; file < bench.files_count; file++) {
        for (size_t other = 0; other < bench.files_count; other++) {
            bool is_last = strcmp(bench.paths[file], bench.last_path) >= 0;
            size_t row = file * 1000 + other;
            uint32_t gone = 0;
            if (file == other) {
                crash_disk_remove(bench.rig->disk, bench.paths[file]);
            } else {
                crash_disk_put(bench.rig->disk, bench.paths[file],
                               span_of(bench.contents[other], bench.sizes[other]));
            }
            replay(&bench, row);
            /* Of the newest file nothing says that it was there. */
            if (file != other || (!is_last && !is_checkpoint(&bench, file))) {
                (void)losses_of(&bench, row, &gone);
                CHECK_ROW(row, bench.known.damages.count > 0 || !is_read(&bench, file));
            }
            put(&bench, file);
        }
    }
    replay(&bench, 0);
    uint32_t gone = 0;
    CU_ASSERT_EQUAL(losses_of(&bench, 0, &gone) + gone, 0);
    CU_ASSERT_EQUAL(bench.known.damages.count, 0);
    bench_deinit(&bench);
}

/* Where the last group of this segment begins. */
static size_t last_group_of(struct rig *rig, uint32_t number)
{
    char path[PATH_SIZE] = "journal/";
    journal_name_put(path + strlen(path), JOURNAL_FILE_SEGMENT, number);
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    size_t found = 0;
    for (size_t at = JOURNAL_SECTOR_SIZE; at < bytes->size; at += JOURNAL_SECTOR_SIZE) {
        struct journal_record record;
        uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, number) + at / JOURNAL_CELL_SIZE;
        if (journal_record_get((const void *)(bytes->at + at), seed, &record)) {
            found = at;
        }
    }
    return found;
}

/* The last group of a closed segment was synced: a checkpoint that is made of it tells what is
 * broken there, although it reads no group behind it, and marks who lost something. */
static void test_end_of_a_closed_segment(void)
{
    struct rig *rig = rig_create(31);
    rig->segment_size = 4096;
    rig->segments_max = 1;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accept(rig, 100);
    struct rig_batch *other = rig_accept(rig, 1);
    rig_settle_down(rig);
    /* Whichever is the last group of the segment at the moment is broken. */
    char *bytes = crash_disk_file(rig->disk, "journal/journal-00000001.log")->at;
    size_t broken = 0;
    for (uint32_t i = 0; stat_read_xcore(&rig->journal.stats.checkpoints) == 0; i++) {
        size_t at = last_group_of(rig, 1) + JOURNAL_CELL_SIZE + 17;
        if (at != broken) {
            bytes[broken] ^= (char)(broken != 0);
            bytes[at] ^= 1;
            broken = at;
        }
        (void)rig_entry(rig, batch, i % 100, JOURNAL_DEFERRED); /* some have none */
        rig_settle_down(rig);
    }
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.corrupt_records), 1);
    rig_stop(rig);
    struct journal_known known = {0};
    ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
    CU_ASSERT_EQUAL(known.corrupt_records, 1);
    CU_ASSERT_EQUAL_FATAL(known.batches_count, 2);
    CU_ASSERT(journal_known_find(&known, batch->batch.directory)->is_damaged);
    CU_ASSERT_FALSE(journal_known_find(&known, other->batch.directory)->is_damaged);
    journal_known_free(&known);
    rig_destroy(rig);
}

/* The run in front ended with the same number of a group with which a segment without a header
 * begins: it is another group all the same. */
static void test_headless_run_behind_a_short_one(void)
{
    for (size_t is_beheaded = 0; is_beheaded < 2; is_beheaded++) {
        struct rig *rig = rig_create(32);
        ensure(rig_start(rig, NULL) == 0);
        (void)rig_accept(rig, 1);
        rig_settle_down(rig);
        rig_stop(rig);
        struct journal_known known = {0};
        ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        CU_ASSERT_EQUAL(known.last_group, 1);
        ensure(rig_start(rig, &known) == 0);
        rig_adopt(rig, &known);
        rig_step(rig, 1);
        journal_known_free(&known);
        struct rig_batch *batch = rig_accept(rig, 2);
        rig_settle_down(rig);
        ensure(rig_entry(rig, batch, 0, JOURNAL_DELIVERED) != NULL);
        rig_settle_down(rig);
        rig_stop(rig);
        char path[PATH_SIZE];
        (void)rig_last_group_at(rig, path);
        char *bytes = crash_disk_file(rig->disk, path)->at;
        bytes[100] ^= 1;
        bytes[JOURNAL_SECTOR_SIZE] ^= (char)is_beheaded;
        ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        CHECK_ROW(is_beheaded, known.corrupt_records == 1 + is_beheaded);
        const struct journal_known_batch *found =
            journal_known_find(&known, batch->batch.directory);
        CHECK_ROW(is_beheaded, found != NULL && is_settled(found, 0) && !is_settled(found, 1));
        journal_known_free(&known);
        rig_destroy(rig);
    }
}

enum end_harm {
    END_WHOLE,
    END_RECORD,
    END_GROUP_CELL,
    END_ZEROS,
    END_CUT,
    END_ALL_ZEROS,
    END_GONE
};

static void end_harm(struct rig *rig, enum end_harm harm)
{
    char path[PATH_SIZE];
    size_t at = rig_last_group_at(rig, path);
    struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    switch (harm) {
    case END_WHOLE:
        return;
    case END_RECORD:
        bytes->at[at + JOURNAL_CELL_SIZE + 17] ^= 1;
        return;
    case END_GROUP_CELL:
        bytes->at[at + 17] ^= 1;
        return;
    case END_ZEROS:
        memset(bytes->at + at, 0, JOURNAL_SECTOR_SIZE);
        return;
    case END_CUT:
        bytes->size = at + JOURNAL_CELL_SIZE;
        return;
    case END_ALL_ZEROS:
        memset(bytes->at + JOURNAL_SECTOR_SIZE, 0, bytes->size - JOURNAL_SECTOR_SIZE);
        return;
    case END_GONE:
        crash_disk_remove(rig->disk, path);
        return;
    }
}

/* Behind an orderly stop nothing is torn: what is broken at the end is damage, and what is not
 * there is missed. */
static void test_end_of_an_orderly_run(void)
{
    static const struct {
        enum end_harm harm;
        uint32_t corrupt; /* with the place where the run ended, and without it */
        uint32_t corrupt_else;
        bool is_known; /* the batch, still */
    } ROWS[] = {
        {END_WHOLE, 0, 0, true},      {END_RECORD, 1, 0, true}, {END_GROUP_CELL, 1, 0, true},
        {END_ZEROS, 1, 0, true},      {END_CUT, 2, 1, true},   /* the file's size is told, too */
        {END_ALL_ZEROS, 3, 0, false}, {END_GONE, 4, 1, false}, /* and the file */
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_started(33);
        struct rig_batch *batch = rig_accepted(rig, 3);
        for (uint32_t ordinal = 0; ordinal < 2; ordinal++) {
            ensure(rig_entry(rig, batch, ordinal, JOURNAL_DELIVERED) != NULL);
            rig_settle_down(rig);
        }
        rig_stop(rig);
        CHECK_ROW(i, rig->journal.end.run == 1 && rig->journal.end.group == 3);
        end_harm(rig, ROWS[i].harm);
        struct journal_known known = {0};
        ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        CHECK_ROW(i, known.corrupt_records == ROWS[i].corrupt_else);
        journal_known_free(&known);
        ensure(journal_replay(&rig->disk->disk, "journal", &rig->journal.end, &known) == 0);
        CHECK_ROW(i, known.corrupt_records == ROWS[i].corrupt);
        CHECK_ROW(i, known.last_run == 1 && known.last_group == 3);
        const struct journal_known_batch *found =
            journal_known_find(&known, batch->batch.directory);
        CHECK_ROW(i, (found != NULL) == ROWS[i].is_known);
        CHECK_ROW(i, found == NULL || found->is_damaged == (ROWS[i].corrupt > 0));
        CHECK_ROW(i, (ROWS[i].corrupt > 0) == is_told(&known, batch->batch.number, 1));
        CHECK_ROW(i, ROWS[i].harm == END_RECORD ||
                         !is_told(&known, batch->batch.number, 0) == (ROWS[i].corrupt == 0));
        journal_known_free(&known);
        rig_destroy(rig);
    }
}

/* A start that came to nothing has begun a run of its own: the end of the one before is still told.
 */
static void test_end_behind_a_start_in_vain(void)
{
    static const enum end_harm HARMS[] = {END_WHOLE, END_RECORD, END_ZEROS};
    for (size_t i = 0; i < COUNT_OF(HARMS); i++) {
        struct rig *rig = rig_started(35);
        struct rig_batch *batch = rig_accepted(rig, 3);
        ensure(rig_entry(rig, batch, 0, JOURNAL_DELIVERED) != NULL);
        rig_settle_down(rig);
        rig_stop(rig);
        const struct journal_place end = rig->journal.end;
        end_harm(rig, HARMS[i]);
        for (uint32_t starts = 0; starts < 3; starts++) {
            struct journal_known known = {0};
            ensure(journal_replay(&rig->disk->disk, "journal", &end, &known) == 0);
            CHECK_ROW(i, known.corrupt_records == (HARMS[i] == END_WHOLE ? 0 : 1));
            CHECK_ROW(i, known.batches[0].is_damaged == (HARMS[i] != END_WHOLE));
            ensure(rig_start(rig, &known) == 0);
            journal_known_free(&known);
            rig_stop(rig);
        }
        rig_destroy(rig);
    }
}

/* Groups that a start misses it has its own run's header tell, to the next one. */
static void test_end_that_is_missed_stays_so(void)
{
    struct rig *rig = rig_started(34);
    struct rig_batch *batch = rig_accepted(rig, 3);
    ensure(rig_entry(rig, batch, 0, JOURNAL_DELIVERED) != NULL);
    rig_settle_down(rig);
    rig_stop(rig);
    end_harm(rig, END_ZEROS);
    struct journal_known known = {0};
    ensure(journal_replay(&rig->disk->disk, "journal", &rig->journal.end, &known) == 0);
    CU_ASSERT_EQUAL(known.corrupt_records, 1);
    ensure(rig_start(rig, &known) == 0);
    journal_known_free(&known);
    rig_stop(rig);
    CU_ASSERT_EQUAL(rig->journal.end.group, 0);
    ensure(journal_replay(&rig->disk->disk, "journal", &rig->journal.end, &known) == 0);
    CU_ASSERT_EQUAL(known.corrupt_records, 1);
    CU_ASSERT_EQUAL(known.damages.count, 1);
    journal_known_free(&known);
    rig_destroy(rig);
}

/* Memory that is short while a checkpoint is read says nothing about the checkpoint. */
static void test_no_memory_is_no_damage(void)
{
    struct bench bench;
    bench_init(&bench, true);
    struct disk *disk = &bench.rig->disk->disk;
    int dir = disk_open(disk, DISK_ROOT, "journal", DISK_READONLY | DISK_DIRECTORY);
    struct journal_walk *walk = malloc(sizeof(*walk));
    struct disk_op op;
    ensure(walk != NULL && journal_walk_init(walk, disk, dir, JOURNAL_NUMBER_MAX) == 0);
    ensure(journal_walk_next(walk, &op));
    CU_ASSERT_EQUAL(walk->listing.files[walk->at].file, JOURNAL_FILE_CHECKPOINT);
    (void)disk_run(disk, &op);
    walk->tally.error = -ENOMEM;
    journal_walk_feed(walk, &op);
    CU_ASSERT_FALSE(journal_walk_next(walk, &op));
    CU_ASSERT_EQUAL(walk->error, -ENOMEM);
    CU_ASSERT_EQUAL(walk->passed.count, 0);
    journal_walk_deinit(walk);
    free(walk);
    disk_close(disk, dir);
    bench_deinit(&bench);
}

static void cell_put(char *bytes, uint32_t index, const struct journal_record *record)
{
    struct journal_cell cell;
    journal_record_put(&cell, record, journal_seed(JOURNAL_FILE_SEGMENT, 1) + index);
    memcpy(bytes + (size_t)index * JOURNAL_CELL_SIZE, &cell, sizeof(cell));
}

/* Bytes that this engine would never write, with checksums that are right, and an empty segment
 * behind: told, and no more. */
static void test_crafted_cells(void)
{
    enum { CELLS = 512, FIRST = JOURNAL_SECTOR_CELLS };
    static const struct {
        uint32_t behind, next_number, batch;
        uint16_t more_count;
    } ROWS[] = {
        {UINT32_MAX - 5, 0, 1, 3}, /* the group */
        {CELLS - FIRST - 1, 0, 1, 256},
        {CELLS - FIRST - 1, 0, 1, 300},
        {CELLS - FIRST - 1, 0, 1, UINT16_MAX},
        {CELLS - FIRST - 1, UINT32_MAX, 1, 3},
        {CELLS - FIRST - 1, 0, UINT32_MAX - 1, 3},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_create(33);
        static char bytes[CELLS * JOURNAL_CELL_SIZE];
        memset(bytes, 0, sizeof(bytes));
        cell_put(bytes, FIRST,
                 &(struct journal_record){
                     .kind = JOURNAL_KIND_GROUP, .ordinal = ROWS[i].behind, .group = 1});
        struct journal_cell cells[1 + JOURNAL_MORE_CELLS_MAX];
        char payload[JOURNAL_MORE_CELLS_MAX * JOURNAL_MORE_SIZE] = "";
        struct journal_record record = {
            .kind = JOURNAL_KIND_ACCEPTED, .batch = ROWS[i].batch, .group = 1};
        uint32_t count = journal_long_put(cells, record, span_of(payload, sizeof(payload)),
                                          journal_seed(JOURNAL_FILE_SEGMENT, 1) + FIRST + 1);
        memcpy(bytes + (FIRST + 1) * JOURNAL_CELL_SIZE, cells, count * JOURNAL_CELL_SIZE);
        record.code = ROWS[i].more_count;
        cell_put(bytes, FIRST + 1, &record);
        /* One more of them, as if the record went on. */
        struct journal_cell *more = &cells[count - 1];
        more->flags = JOURNAL_MORE_CELLS_MAX; /* its place, in a cell of this kind */
        uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, 1) + FIRST + 1 + count;
        more->checksum = htole32((uint32_t)XXH3_64bits_withSeed(
            &more->kind, JOURNAL_CELL_SIZE - sizeof(more->checksum), seed));
        memcpy(bytes + (FIRST + 1 + count) * JOURNAL_CELL_SIZE, more, JOURNAL_CELL_SIZE);
        struct journal_header header = {.file = JOURNAL_FILE_SEGMENT,
                                        .number = 1,
                                        .run = 1,
                                        .size = sizeof(bytes),
                                        .next_number = ROWS[i].next_number};
        journal_header_put(bytes, &header);
        crash_disk_put(rig->disk, "journal/journal-00000001.log", span_of(bytes, sizeof(bytes)));
        header = (struct journal_header){
            .file = JOURNAL_FILE_SEGMENT, .number = 2, .run = 1, .size = JOURNAL_SECTOR_SIZE};
        journal_header_put(bytes, &header);
        crash_disk_put(rig->disk, "journal/journal-00000002.log",
                       span_of(bytes, JOURNAL_SECTOR_SIZE));
        struct journal_known known = {0};
        CHECK_ROW(i, journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        CHECK_ROW(i, known.batches_count == 0);
        CHECK_ROW(i, known.next_number > 0 && known.next_number <= JOURNAL_BATCH_NUMBER_MAX);
        journal_known_free(&known);
        rig_destroy(rig);
    }
}

/* The list: neighbours become one, what is beyond its end is counted. */
static void test_list(void)
{
    struct journal_damages list = {.count = 0};
    struct journal_damage damage = {.kind = JOURNAL_DAMAGE_RECORDS,
                                    .file = JOURNAL_FILE_SEGMENT,
                                    .number = 3,
                                    .offset = 512,
                                    .size = 32,
                                    .count = 1,
                                    .batch = 9,
                                    .ordinal_first = 5,
                                    .ordinal_last = 5};
    journal_damages_put(&list, &damage);
    damage.offset += 32;
    damage.ordinal_first = damage.ordinal_last = 2;
    journal_damages_put(&list, &damage);
    CU_ASSERT(list.count == 1 && list.rows[0].size == 64 && list.rows[0].count == 2 &&
              list.rows[0].ordinal_first == 2 && list.rows[0].ordinal_last == 5);
    damage.offset += 32;
    damage.ordinal_first = 1;
    damage.ordinal_last = 0;
    journal_damages_put(&list, &damage);
    CU_ASSERT(list.count == 1 && list.rows[0].ordinal_last < list.rows[0].ordinal_first);
    damage.offset += 64; /* not beside it */
    journal_damages_put(&list, &damage);
    damage.batch = 0;
    damage.offset += 32; /* another batch */
    journal_damages_put(&list, &damage);
    CU_ASSERT_EQUAL(list.count, 3);
    for (int i = 0; i < 100; i++) {
        damage.offset += 1000;
        journal_damages_put(&list, &damage);
    }
    CU_ASSERT(list.count == JOURNAL_DAMAGES_MAX &&
              list.left_count == 100 + 3 - JOURNAL_DAMAGES_MAX);
}

SUITE(journal_damage, test_list, test_one_cell, test_sectors, test_files,
      test_end_of_a_closed_segment, test_end_of_an_orderly_run, test_end_behind_a_start_in_vain,
      test_end_that_is_missed_stays_so, test_headless_run_behind_a_short_one,
      test_no_memory_is_no_damage, test_crafted_cells)
