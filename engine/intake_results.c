/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"
#include "engine/intake_priv.h"
#include "engine/results_file.h"

/*
 * Results that are not complete after a crash. Lines lay in the journal's buffers or in the page
 * cache when the engine before ended; what they said is in the journal's records, but only until a
 * checkpoint stands for these: it knows who is settled, and not by what. And what a line needs
 * besides, the address and the name that people gave the recipient, is in the batch's own files. So
 * it goes in four moves:
 *
 * 1. look: each known batch's results.ndjson is read, in active/ or in hold/. Who is settled and
 *    has no line is missing (results_file.h).
 * 2. find: the records of those who are missing, in the segments that replay believed, from new to
 *    old, and in what an earlier start has kept.
 * 3. keep: all that was found goes into the file `results-missing` beside the journal, durable
 *    before this engine's journal takes its first step. From here on a checkpoint may take any
 *    record away, and the engine may die or stop at any time and as often as it likes.
 * 4. complete (intake_results_lines.c): lines are added as the scan of the batch comes by, and
 *    synced before the journal hears of the batch. What fails in that is tried again: the batch
 *    waits, OPENING, and another look finds out what the file holds.
 *
 * A start that finds `results-missing`, or damage in the journal, goes the same way, whether the
 * one before was a crash or not: those who have a line by then are left out of the new file, and
 * nobody left means no file. A batch that could not be read keeps the file there, if without a
 * cell. Held batches keep their place in it. Nothing has to be taken back when a batch is complete,
 * and the journal waits for nothing: only the batch itself does, in move 4.
 */
static const char KEPT_NAME[] = "results-missing";

enum {
    CHUNK_SIZE = 256 * 1024,
    HEADER_CELLS = JOURNAL_SECTOR_CELLS,
    WANTED_ALL = MANIFEST_RESULT_DELIVERED | MANIFEST_RESULT_BOUNCED | MANIFEST_RESULT_EXPIRED |
                 MANIFEST_RESULT_CANCELLED,
};

/* Which outcomes the batch wants to have in results.ndjson; all, when it cannot be asked now: of
 * what is kept too much is left out later. 0 or -ENOMEM. */
static int results_wanted(struct intake_core *core, int dir, const char *directory,
                          unsigned *ret_wanted)
{
    struct spool_problem problem;
    char *json = malloc(MANIFEST_SIZE_MAX);
    if (json == NULL) {
        return -ENOMEM;
    }
    struct writer content = writer_of(json, MANIFEST_SIZE_MAX);
    bool is_short = false;
    *ret_wanted = WANTED_ALL;
    if (spool_file_read(&core->spool, dir, "batch.json", MANIFEST_SIZE_MAX, &content, &problem) ==
        0) {
        struct writer errors = writer_of(core->reason_text, INTAKE_REASON_MAX - 1);
        struct manifest *manifest =
            manifest_parse(writer_span(&content), span_of_text(directory), &errors);
        *ret_wanted = manifest == NULL ? WANTED_ALL : manifest->results;
        is_short = manifest == NULL && writer_size(&errors) == 0;
        manifest_destroy(manifest);
    }
    free(json);
    return is_short ? -ENOMEM : 0;
}

/* The journal's batch is the one in hold/ when there are two of the name. */
static int batch_open(struct intake_core *core, const char *directory)
{
    int dir = disk_open(core->disk, core->spool.places[SPOOL_HOLD], directory,
                        DISK_READONLY | DISK_DIRECTORY);
    return dir >= 0 ? dir : spool_batch_open(&core->spool, directory);
}

static uint64_t bits_count(const uint64_t *bitmap, size_t words)
{
    uint64_t count = 0;
    for (size_t i = 0; i < words; i++) {
        count += (uint64_t)__builtin_popcountll(bitmap[i]);
    }
    return count;
}

/* Finds out whose lines are missing, and how many they are; none: row->missing stays NULL. When it
 * cannot be seen now (`dir` may be an error) all are, and it is looked at again. 0 or -ENOMEM. */
static int missing_find(struct intake_core *core, int dir, struct intake_known *row,
                        const struct journal_known_batch *known, uint64_t *ret_count)
{
    size_t words = (size_t)((known->records_count + 63) / 64);
    row->wanted = WANTED_ALL;
    int result = dir < 0 ? 0 : results_wanted(core, dir, known->directory, &row->wanted);
    if (result != 0 || row->wanted == 0) {
        return result;
    }
    uint64_t *missing = malloc((words + 1) * sizeof(*missing));
    if (missing == NULL) {
        return -ENOMEM;
    }
    memcpy(missing, known->settled, words * sizeof(*missing));
    result = dir < 0 ? dir : results_file_read(core->disk, dir, known, missing);
    if (result == -ENOMEM) {
        free(missing);
        return result;
    }
    if (result != 0) {
        odd(results_not_read);
        row->must_look = true;
        memcpy(missing, known->settled, words * sizeof(*missing));
    }
    *ret_count = bits_count(missing, words);
    row->missing = *ret_count == 0 ? NULL : missing;
    if (row->missing == NULL) {
        free(missing);
    }
    return 0;
}

static int results_look(struct intake_core *core, struct intake_known *row,
                        const struct journal_known_batch *known, uint64_t *ret_count)
{
    *ret_count = 0;
    int dir = batch_open(core, known->directory);
    if (dir == -ENOENT) {
        return 0;
    }
    int result = missing_find(core, dir, row, known, ret_count);
    if (dir >= 0) {
        disk_close(core->disk, dir);
    }
    return result;
}

unsigned intake_result_of(enum journal_kind kind)
{
    switch (kind) {
    case JOURNAL_KIND_DELIVERED:
        return MANIFEST_RESULT_DELIVERED;
    case JOURNAL_KIND_BOUNCED:
        return MANIFEST_RESULT_BOUNCED;
    case JOURNAL_KIND_EXPIRED:
        return MANIFEST_RESULT_EXPIRED;
    case JOURNAL_KIND_CANCELLED:
        return MANIFEST_RESULT_CANCELLED;
    case JOURNAL_KIND_ACCEPTED:
    case JOURNAL_KIND_DEFERRED:
    case JOURNAL_KIND_ENDED:
    case JOURNAL_KIND_GROUP:
    case JOURNAL_KIND_MORE:
    case JOURNAL_KIND_COUNTS:
    case JOURNAL_KIND_SETTLED:
    case JOURNAL_KIND_WHOLE:
        return 0;
    }
    ensure(false);
    return 0;
}

static struct intake_known *row_of_number(struct intake_core *core, uint32_t number)
{
    ensure(core->known_by_number != NULL);
    uint32_t low = 0;
    uint32_t high = core->known.batches_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        struct intake_known *row = &core->known_rows[core->known_by_number[middle]];
        if (row->number == number) {
            return row;
        }
        if (row->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

/* What is looked for. */
struct search {
    struct intake_core *core;
    uint64_t left; /* missing lines whose record has not been met */
    struct journal_cell *chunk;
    int error; /* the last; 0: none */
};

static void record_take(struct search *search, const struct journal_record *record)
{
    unsigned result = intake_result_of(record->kind);
    struct intake_known *row = result == 0 ? NULL : row_of_number(search->core, record->batch);
    if (row == NULL || row->missing == NULL || record->ordinal >= row->records_count ||
        !bitmap_has(row->missing, record->ordinal)) {
        return;
    }
    ensure(search->left > 0);
    search->left--;
    row->missing[record->ordinal / 64] &= ~(UINT64_C(1) << (record->ordinal % 64));
    if ((row->wanted & result) == 0) {
        return;
    }
    if (row->finals_count == row->finals_room) {
        uint32_t room = row->finals_room == 0 ? 64 : 2 * row->finals_room;
        struct intake_final *finals = realloc(row->finals, room * sizeof(*finals));
        if (finals == NULL) {
            search->error = -ENOMEM;
            return;
        }
        row->finals = finals;
        row->finals_room = room;
    }
    row->finals[row->finals_count++] = (struct intake_final){
        .ordinal = record->ordinal,
        .at_s = record->at_s,
        .code = record->code,
        .attempts_count = record->attempts_count,
        .kind = (uint8_t)record->kind,
        .flags = record->flags,
    };
}

/* All records of one file. Replay has judged its groups already: what is looked for is settled by
 * its word. An older file may hold another record of the same recipient, of a group that was torn:
 * the newest is the one that was believed, and files are read from new to old. */
static void file_read(struct search *search, int dir, const char *name, enum journal_file file,
                      uint32_t number)
{
    struct disk *disk = search->core->disk;
    int fd = disk_open(disk, dir, name, DISK_READONLY);
    uint64_t seed = journal_seed(file, number);
    uint64_t index = HEADER_CELLS;
    int64_t got = fd < 0 ? fd : 1;
    while (got > 0 && search->left > 0) {
        got = disk_read(disk, fd, search->chunk, CHUNK_SIZE, index * JOURNAL_CELL_SIZE);
        uint64_t count = got > 0 ? (uint64_t)got / JOURNAL_CELL_SIZE : 0;
        for (uint64_t i = 0; i < count; i++) {
            struct journal_record record;
            if (journal_record_get(&search->chunk[i], seed + index + i, &record)) {
                record_take(search, &record);
            } else if (file == JOURNAL_FILE_RESULTS) {
                search->core->kept_broken++; /* in segments replay has told them */
            }
        }
        index += count;
        got = count == 0 && got > 0 ? 0 : got;
    }
    if (fd >= 0) {
        disk_close(disk, fd);
    }
    search->error = got < 0 ? (int)got : search->error;
}

/* Segments that a checkpoint stands for may have come back by a crash, with records that were not
 * believed: replay does not look at them, nor does this. What only a checkpoint knows is too old:
 * its line was on the disk, or kept, before its record's segment could go. */
static void segments_read(struct search *search, int dir)
{
    struct journal_listing listing = {.files = NULL};
    int result = journal_listing_read(&listing, search->core->disk, dir);
    search->error = result == 0 ? search->error : result;
    for (uint32_t i = listing.count; i-- > 0 && search->left > 0;) {
        const struct journal_walk_file *file = &listing.files[i];
        char name[JOURNAL_NAME_SIZE];
        journal_name_put(name, file->file, file->number);
        if (file->file == JOURNAL_FILE_SEGMENT &&
            file->number >= search->core->known.first_segment) {
            file_read(search, dir, name, file->file, file->number);
        }
    }
    journal_listing_free(&listing);
}

static int by_ordinal(const void *a, const void *b)
{
    const struct intake_final *one = a, *other = b;
    return one->ordinal < other->ordinal ? -1 : one->ordinal > other->ordinal;
}

/* The search is over: what is missing still is lost, when it was wanted at all. */
static void row_settle(struct intake_known *row)
{
    bool is_wanted = !row->must_look && (row->wanted & WANTED_ALL) == WANTED_ALL;
    for (uint32_t i = 0; row->missing != NULL && is_wanted && i < row->records_count; i++) {
        if (bitmap_has(row->missing, i)) {
            row->lost_first = row->lost_count++ == 0 ? i : row->lost_first;
            row->lost_last = i;
        }
    }
    if (row->lost_count > 0) {
        odd(results_lost);
    }
    if (row->finals_count > 1) {
        qsort(row->finals, row->finals_count, sizeof(row->finals[0]), by_ordinal);
    }
    free(row->missing);
    row->missing = NULL;
}

/* The header and a cell for each line that is to be made. */
static void kept_put(const struct intake_core *core, struct journal_cell *cells, uint64_t count)
{
    const struct journal_header header = {
        .file = JOURNAL_FILE_RESULTS,
        .created_at = clock_wall(core->engine->clock),
        .size = (HEADER_CELLS + count) * JOURNAL_CELL_SIZE,
    };
    journal_header_put(cells, &header);
    uint64_t seed = journal_seed(JOURNAL_FILE_RESULTS, 0);
    uint64_t at = HEADER_CELLS;
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        const struct intake_known *row = &core->known_rows[i];
        for (uint32_t n = 0; n < row->finals_count; n++) {
            const struct intake_final *final = &row->finals[n];
            const struct journal_record record = {
                .kind = final->kind,
                .flags = final->flags,
                .code = final->code,
                .batch = row->number,
                .ordinal = final->ordinal,
                .at_s = final->at_s,
                .attempts_count = final->attempts_count,
            };
            journal_record_put(&cells[at], &record, seed + at);
            at++;
        }
    }
    ensure(at == HEADER_CELLS + count);
}

static int kept_write(struct intake_core *core, int dir, uint64_t count)
{
    struct journal_cell *cells = malloc((size_t)(HEADER_CELLS + count) * JOURNAL_CELL_SIZE);
    if (cells == NULL) {
        return -ENOMEM;
    }
    kept_put(core, cells, count);
    struct span content = span_of(cells, (size_t)(HEADER_CELLS + count) * JOURNAL_CELL_SIZE);
    int result = disk_write_file(core->disk, dir, KEPT_NAME, content, true);
    free(cells);
    return result;
}

/* 1 when the file is there and not of another version, 0 when not, -errno. */
static int kept_look(struct intake_core *core, int dir)
{
    char sector[JOURNAL_SECTOR_SIZE];
    struct journal_header header;
    int fd = disk_open(core->disk, dir, KEPT_NAME, DISK_READONLY);
    if (fd < 0) {
        return fd == -ENOENT ? 0 : fd;
    }
    int64_t got = disk_read(core->disk, fd, sector, sizeof(sector), 0);
    disk_close(core->disk, fd);
    if (got < 0) {
        return (int)got;
    }
    int result = -EBADMSG;
    if (got == sizeof(sector)) {
        result = journal_header_get(span_of(sector, sizeof(sector)), &header);
    }
    if (result == -EBADMSG || (result == 0 && header.file != JOURNAL_FILE_RESULTS)) {
        core->kept_broken++; /* its cells are good without it */
        result = 0;
    }
    return result == 0 ? 1 : result;
}

/* Of a batch that could not be read the file may have no cell: it is there for the next start,
 * which has to look whatever stop comes before it. 0 or -errno. */
static int finals_keep(struct intake_core *core, int dir, bool is_kept)
{
    uint64_t count = 0;
    bool must_look = false;
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        row_settle(&core->known_rows[i]);
        count += core->known_rows[i].finals_count;
        must_look = must_look || core->known_rows[i].must_look;
    }
    if (count > 0 || must_look) {
        return kept_write(core, dir, count);
    }
    if (is_kept && disk_unlink(core->disk, dir, KEPT_NAME) != 0) {
        odd(results_kept_too_long); /* the next start looks once more */
    }
    return 0;
}

/* A recipient whose record was lost is sent to again, and his line must not stay beside the new
 * one; a checkpoint may have lost it while the engine ran, and then only the batch's mark tells. */
static bool has_damage(const struct intake_core *core)
{
    bool is_damaged = core->known.damages.count > 0;
    for (uint32_t i = 0; i < core->known.batches_count && !is_damaged; i++) {
        is_damaged = core->known.batches[i].is_damaged;
    }
    return is_damaged;
}

int intake_results_recover(struct intake_core *core)
{
    ensure(core->known_rows != NULL);
    int dir = core->spool.places[SPOOL_JOURNAL];
    int kept = kept_look(core, dir);
    if (kept < 0) {
        return kept;
    }
    if (!core->is_unclean && kept == 0 && !has_damage(core)) {
        return 0;
    }
    struct search search = {.core = core, .chunk = malloc(CHUNK_SIZE)};
    int result = search.chunk == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; i < core->known.batches_count && result == 0; i++) {
        uint64_t count;
        result = results_look(core, &core->known_rows[i], &core->known.batches[i], &count);
        search.left += count;
    }
    if (result == 0) {
        segments_read(&search, dir);
        if (kept > 0) {
            file_read(&search, dir, KEPT_NAME, JOURNAL_FILE_RESULTS, 0);
        }
        result = search.error != 0 ? search.error : finals_keep(core, dir, kept > 0);
    }
    free(search.chunk);
    return result;
}
