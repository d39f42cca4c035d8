/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/intake_priv.h"
#include "engine/report.h"

/*
 * Results that are not complete after a crash. Lines lay in the journal's buffers or in the page
 * cache when the engine before ended; what they said is in the journal's records, but only until a
 * checkpoint stands for these: it knows who is settled, and not by what. And what a line needs
 * besides, the address and the name that people gave the recipient, is in the batch's own files. So
 * it goes in four moves:
 *
 * 1. look: each known batch's results.ndjson is read, in active/ or in hold/. Who is settled and
 *    has no line is missing; what is no line of somebody settled is taken out of the file, and what
 *    is good in it is written again as it was read, and synced: the pages may have been called
 *    clean by a sync that failed. An engine that could still say so has given it another name.
 * 2. find: the records of those who are missing, in the segments that replay believed, from new to
 *    old, and in what an earlier start has kept.
 * 3. keep: all that was found goes into the file `results-missing` beside the journal, durable
 *    before this engine's journal takes its first step. From here on a checkpoint may take any
 *    record away, and the engine may die or stop at any time and as often as it likes.
 * 4. complete: lines are added as the scan of the batch comes by, and synced before the journal
 *    hears of the batch. What fails in that is tried again: the batch waits, OPENING, and another
 *    look finds out what the file holds.
 *
 * A start that finds `results-missing` goes the same way, whether the one before was a crash or
 * not: those who have a line by then are left out of the new file, and nobody left means no file.
 * Held batches keep their place in it. Nothing has to be taken back when a batch is complete, and
 * neither journal nor scan waits for anything.
 */
static const char RESULTS_NAME[] = JOURNAL_RESULTS_NAME;
static const char DOUBTED_NAME[] = JOURNAL_RESULTS_DOUBTED_NAME;
static const char MENDED_NAME[] = ".results.tmp";
static const char KEPT_NAME[] = "results-missing";

enum {
    CHUNK_SIZE = 256 * 1024,
    LINES_SIZE = 64 * 1024,
    HEADER_CELLS = JOURNAL_SECTOR_CELLS,
    WANTED_ALL = MANIFEST_RESULT_DELIVERED | MANIFEST_RESULT_BOUNCED | MANIFEST_RESULT_EXPIRED |
                 MANIFEST_RESULT_CANCELLED,
};

static bool bit_is_set(const uint64_t *bitmap, uint32_t ordinal)
{
    return (bitmap[ordinal / 64] >> (ordinal % 64) & 1) != 0;
}

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

/* The ordinal of whom the line speaks: "id":"<batch number>-<ordinal>" in front of all that people
 * have written. */
static bool line_ordinal(struct span line, uint32_t number, uint64_t records_count,
                         uint32_t *ret_ordinal)
{
    struct cursor cursor = cursor_of(line);
    uint64_t value;
    if (!cursor_take_text(&cursor, SPAN("{\"type\":\""))) {
        return false;
    }
    (void)cursor_take_until(&cursor, '"');
    if (!cursor_take_text(&cursor, SPAN("\",\"id\":\"")) ||
        !cursor_take_uint(&cursor, UINT32_MAX, &value) || value != number ||
        !cursor_take_byte(&cursor, '-') || !cursor_take_uint(&cursor, UINT32_MAX, &value) ||
        value >= records_count) {
        return false;
    }
    *ret_ordinal = (uint32_t)value;
    return true;
}

/* One reading of results.ndjson. */
struct reading {
    const struct journal_known_batch *known;
    uint64_t *missing; /* bits of those who have a line are cleared */
    /* Lines that nobody can read, of a file whose pages were written in part; lines of outcomes
     * whose record was lost: these recipients will get another. */
    bool is_broken;
};

/* Takes the whole lines out of `bytes`, and moves those that are good to its front; returns how
 * many bytes all of them are. */
static size_t lines_take(struct reading *reading, char *bytes, size_t size, size_t *ret_kept)
{
    struct cursor cursor = cursor_of(span_of(bytes, size));
    size_t kept = 0;
    struct span line;
    const char *start = bytes;
    while (cursor_take_line(&cursor, &line)) {
        uint32_t ordinal;
        size_t whole = (size_t)(cursor.at - start);
        if (line.size > 0 && line.at[line.size - 1] == '}' &&
            memchr(line.at, '\0', line.size) == NULL &&
            line_ordinal(line, reading->known->number, reading->known->records_count, &ordinal) &&
            bit_is_set(reading->known->settled, ordinal)) {
            reading->missing[ordinal / 64] &= ~(UINT64_C(1) << (ordinal % 64));
            memmove(bytes + kept, start, whole);
            kept += whole;
        } else {
            reading->is_broken = true;
        }
        start = cursor.at;
    }
    *ret_kept = kept;
    return size - cursor_left(&cursor);
}

/* From one end to the other; `out` >= 0: good lines are written there. What is behind the last
 * whole line was torn. 0 or -errno. */
static int results_pass(struct intake_core *core, int fd, int out, struct reading *reading)
{
    char *chunk = malloc(CHUNK_SIZE);
    uint64_t offset = 0;
    uint64_t written = 0;
    int64_t got = chunk == NULL ? -ENOMEM : 1;
    while (got > 0) {
        got = disk_read(core->disk, fd, chunk, CHUNK_SIZE, offset);
        size_t kept = 0;
        size_t taken = got > 0 ? lines_take(reading, chunk, (size_t)got, &kept) : 0;
        if (got > 0 && taken == 0) {
            reading->is_broken = true; /* no line of ours is so long */
            taken = (size_t)got;
        }
        int64_t result =
            kept > 0 && out >= 0 ? disk_write(core->disk, out, chunk, kept, written) : 0;
        got = result < 0 ? result : got;
        offset += taken;
        written += kept;
    }
    free(chunk);
    return (int)got;
}

/* The good lines only, under the same name. */
static int results_mend(struct intake_core *core, int dir, int fd, struct reading *reading)
{
    int out = disk_open(core->disk, dir, MENDED_NAME, DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    if (out < 0) {
        return out;
    }
    int result = results_pass(core, fd, out, reading);
    result = result == 0 ? disk_datasync(core->disk, out) : result;
    disk_close(core->disk, out);
    if (result == 0) {
        result = disk_rename(core->disk, dir, MENDED_NAME, dir, RESULTS_NAME);
    }
    return result == 0 ? disk_sync(core->disk, dir) : result;
}

/* Lives as long as the pages that are in doubt: no sync. */
static void results_doubt(struct intake_core *core, int dir)
{
    odd(results_in_doubt);
    (void)disk_rename(core->disk, dir, RESULTS_NAME, dir, DOUBTED_NAME);
}

/* The engine that wrote the lines may have died before they were synced; or its sync has failed,
 * after which the kernel calls the pages clean: they would pass a sync now and still be lost. So
 * they are written again as they were read (as the journal's last group is: journal_replay.c). */
static int results_make_durable(struct intake_core *core, int fd)
{
    char *chunk = malloc(CHUNK_SIZE);
    uint64_t offset = 0;
    int64_t got = chunk == NULL ? -ENOMEM : 1;
    while (got > 0) {
        got = disk_read(core->disk, fd, chunk, CHUNK_SIZE, offset);
        if (got > 0) {
            int64_t result = disk_write(core->disk, fd, chunk, (size_t)got, offset);
            offset += (uint64_t)got;
            got = result < 0 ? result : got;
        }
    }
    free(chunk);
    return got < 0 ? (int)got : disk_datasync(core->disk, fd);
}

/* The file in doubt is read when it has not been copied to its end. */
static int results_open(struct intake_core *core, int dir, bool *ret_is_doubted)
{
    int fd = disk_open(core->disk, dir, RESULTS_NAME, DISK_READWRITE);
    *ret_is_doubted = fd == -ENOENT;
    return fd == -ENOENT ? disk_open(core->disk, dir, DOUBTED_NAME, DISK_READONLY) : fd;
}

/* Clears the bits of those who have a line, and takes out what is no line. 0 or -errno. */
static int results_read(struct intake_core *core, int dir, const struct journal_known_batch *known,
                        uint64_t *missing)
{
    struct reading reading = {.known = known, .missing = missing};
    bool is_doubted;
    int fd = results_open(core, dir, &is_doubted);
    if (fd < 0) {
        return fd == -ENOENT ? 0 : fd;
    }
    int result = results_pass(core, fd, -1, &reading);
    if (result == 0 && (reading.is_broken || is_doubted)) {
        result = results_mend(core, dir, fd, &reading);
    } else if (result == 0) {
        result = results_make_durable(core, fd);
        if (result != 0) {
            results_doubt(core, dir);
        } else {
            result = disk_sync(core->disk, dir);
        }
    }
    disk_close(core->disk, fd);
    if (result == 0) {
        (void)disk_unlink(core->disk, dir, DOUBTED_NAME);
    }
    return result;
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
    result = dir < 0 ? dir : results_read(core, dir, known, missing);
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

static unsigned result_of(enum journal_kind kind)
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
    unsigned result = result_of(record->kind);
    struct intake_known *row = result == 0 ? NULL : row_of_number(search->core, record->batch);
    if (row == NULL || row->missing == NULL || record->ordinal >= row->records_count ||
        !bit_is_set(row->missing, record->ordinal)) {
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
        if (bit_is_set(row->missing, i)) {
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
    int result = got < 0 ? (int)got : -EBADMSG;
    if (got == sizeof(sector)) {
        result = journal_header_get(span_of(sector, sizeof(sector)), &header);
    }
    if (result == -EBADMSG || (result == 0 && header.file != JOURNAL_FILE_RESULTS)) {
        core->kept_broken++; /* its cells are good without it */
        result = 0;
    }
    return result == 0 ? 1 : result;
}

/* 0 or -errno. */
static int finals_keep(struct intake_core *core, int dir, bool is_kept)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        row_settle(&core->known_rows[i]);
        count += core->known_rows[i].finals_count;
    }
    if (count == 0 && is_kept && disk_unlink(core->disk, dir, KEPT_NAME) != 0) {
        odd(results_kept_too_long); /* the next start looks once more */
    }
    return count == 0 ? 0 : kept_write(core, dir, count);
}

int intake_results_recover(struct intake_core *core)
{
    ensure(core->known_rows != NULL);
    int dir = core->spool.places[SPOOL_JOURNAL];
    int kept = kept_look(core, dir);
    if (kept == -EBADMSG) {
        odd(results_not_kept); /* none of ours */
    } else if (kept < 0) {
        return kept;
    }
    if (!core->is_unclean && kept == 0) {
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
        result = search.error != 0 ? search.error : finals_keep(core, dir, kept != 0);
    }
    free(search.chunk);
    return result;
}

static void final_put(struct intake_core *core, const struct intake_batch *ib,
                      const struct intake_final *final, const struct intake_result *result,
                      struct writer *line)
{
    static const struct {
        enum outcome_class class;
        enum policy_reason reason;
    } ROWS[] = {
        [MANIFEST_RESULT_DELIVERED] = {OUTCOME_DELIVERED, REASON_DELIVERED},
        [MANIFEST_RESULT_BOUNCED] = {OUTCOME_BOUNCED, PERM_REPLY},
        [MANIFEST_RESULT_EXPIRED] = {OUTCOME_EXPIRED, PERM_EXPIRED},
        [MANIFEST_RESULT_CANCELLED] = {OUTCOME_CANCELLED, PERM_CANCELLED},
    };
    struct recipient recipient = {.ordinal = final->ordinal, .domain = result->domain};
    struct attempt attempt = {.recipient = &recipient, .batch = ib->batch};
    size_t size = result->address.size < sizeof(attempt.address) ? result->address.size
                                                                 : sizeof(attempt.address);
    memcpy(attempt.address, result->address.at, size);
    attempt.address_size = (uint16_t)size;
    size = result->id.size < ATTEMPT_ID_MAX ? result->id.size : ATTEMPT_ID_MAX;
    if (size > 0) {
        memcpy(attempt.id, result->id.at, size);
    }
    attempt.id_size = (uint8_t)size;
    unsigned row = result_of(final->kind);
    struct policy_verdict verdict = policy_of_reason(ROWS[row].reason);
    struct outcome outcome = {
        .class = ROWS[row].class,
        .reason = ROWS[row].reason,
        .response = verdict.response,
        .place.sender = result->sender,
    };
    outcome.response.code = final->code != 0 ? final->code : outcome.response.code;
    outcome.response.content = SPAN("from the journal: the line was lost in a crash");
    struct report_cache cache = {.second = INT64_MIN};
    report_put_line(line, core->engine, &cache, &attempt, &outcome, final->attempts_count,
                    (final->flags & JOURNAL_FLAG_POSSIBLE_DUPLICATE) != 0,
                    (struct wall_time){.ns = (int64_t) final->at_s * NS_PER_S});
}

/* What is in the file is not known any more: the scan begins anew, with another look at it. */
static void lines_failed(struct intake_known *row)
{
    odd(results_not_completed);
    row->must_look = true;
    row->lines_size = 0;
}

static void lines_flush(struct intake_core *core, struct intake_known *row)
{
    if (row->lines_size == 0) {
        return;
    }
    ensure(row->fd >= 0);
    if (disk_write(core->disk, row->fd, row->lines, row->lines_size, row->offset) < 0) {
        lines_failed(row);
        return;
    }
    row->offset += row->lines_size;
    row->lines_size = 0;
}

static void lines_open(struct intake_core *core, struct intake_batch *ib, struct intake_known *row)
{
    struct disk_stat stat;
    row->fd = disk_open(core->disk, ib->fd, RESULTS_NAME, DISK_READWRITE | DISK_CREATE);
    if (row->fd < 0 || disk_stat_fd(core->disk, row->fd, &stat) != 0) {
        lines_failed(row);
        return;
    }
    row->offset = stat.size;
}

/* Of what is kept, those who have a line by now are left out. 0 or -errno. */
static int results_look_again(struct intake_core *core, struct intake_batch *ib,
                              struct intake_known *row)
{
    size_t words = (size_t)((ib->known->records_count + 63) / 64);
    uint64_t *missing = malloc((words + 1) * sizeof(*missing));
    if (missing == NULL) {
        return -ENOMEM;
    }
    memcpy(missing, ib->known->settled, words * sizeof(*missing));
    int result = results_read(core, ib->fd, ib->known, missing);
    if (result == 0) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < row->finals_count; i++) {
            const struct intake_final final = row->finals[i];
            if (bit_is_set(missing, final.ordinal) &&
                (ib->batch->manifest->results & result_of(final.kind)) != 0) {
                row->finals[count++] = final;
            }
        }
        row->finals_count = count;
        row->finals_next = 0;
        row->must_look = false;
    }
    free(missing);
    return result;
}

int intake_results_begin(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    int result = row != NULL && row->must_look ? results_look_again(core, ib, row) : 0;
    if (result != 0 && result != -ENOMEM) {
        odd(results_not_read);
    }
    if (result != 0 || row == NULL || row->finals_next == row->finals_count) {
        return result;
    }
    ensure(row->lines == NULL);
    row->lines = malloc(LINES_SIZE);
    return row->lines == NULL ? -ENOMEM : 0;
}

void intake_result_complete(struct intake_core *core, struct intake_batch *ib, uint32_t ordinal,
                            const struct intake_result *result)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL || row->must_look) {
        return;
    }
    /* Of a damaged journal an ordinal may be that of a record that was rejected. */
    while (row->finals_next < row->finals_count &&
           row->finals[row->finals_next].ordinal < ordinal) {
        row->finals_next++;
    }
    if (row->finals_next == row->finals_count || row->finals[row->finals_next].ordinal != ordinal) {
        return;
    }
    if (row->fd < 0) {
        lines_open(core, ib, row);
    }
    if (LINES_SIZE - row->lines_size < JOURNAL_LINE_MAX) {
        lines_flush(core, row);
    }
    if (row->must_look) {
        return;
    }
    struct writer line = writer_of(row->lines + row->lines_size, JOURNAL_LINE_MAX);
    final_put(core, ib, &row->finals[row->finals_next++], result, &line);
    row->lines_size += writer_size(&line);
}

/* The name, too: it may be new. */
static void lines_sync(struct intake_core *core, const struct intake_batch *ib,
                       struct intake_known *row)
{
    if (disk_datasync(core->disk, row->fd) != 0) {
        results_doubt(core, ib->fd);
        lines_failed(row);
    } else if (disk_sync(core->disk, ib->fd) != 0) {
        lines_failed(row);
    }
}

int intake_results_end(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL || row->lines == NULL) {
        return 0;
    }
    ensure(row->finals_next <= row->finals_count);
    lines_flush(core, row);
    if (row->fd >= 0 && !row->must_look) {
        lines_sync(core, ib, row);
    }
    if (row->fd >= 0) {
        disk_close(core->disk, row->fd);
        row->fd = -1;
    }
    free(row->lines);
    row->lines = NULL;
    return row->must_look ? -EAGAIN : 0;
}
