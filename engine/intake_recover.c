/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/intake_priv.h"
#include "engine/report.h"

/*
 * What an earlier engine left: batches in active/, what the journal knows of them, and results that
 * are not complete.
 *
 * The marker. An engine that stopped in order leaves the file `clean` in the spool, and the next
 * one removes it before anything is sent. Where it is missing, transactions may have been under way
 * at the end whose answers nobody has recorded: each recipient that could have been in one is
 * marked (LAW 6), and what results.ndjson lost with the page cache or with the journal's buffers is
 * made from the journal's records. The journal cannot say who was in flight, so all who are not
 * settled and were not put off beyond now are marked; the mark goes into each record of theirs. Who
 * has none when the engine stops again is still in doubt: his batch's number goes into `clean`.
 *
 * A batch that the journal knows and that is not in active/ has left it before its end was
 * recorded: the journal is told now. One that lies in hold/ is kept in mind: people may put it back
 * into active/. No new batch is claimed before all that, since a new one may have an old one's
 * name.
 */
static const char CLEAN_NAME[] = "clean";
static const char RESULTS_NAME[] = "results.ndjson";
static const char MENDED_NAME[] = ".results.tmp";

enum {
    MARKER_SIZE_MAX = 1 << 28,
    CHUNK_SIZE = 256 * 1024,
    LINES_SIZE = 64 * 1024,
    HEADER_CELLS = JOURNAL_SECTOR_CELLS
};

/* Those behind the words: numbers of batches some of whose recipients were in doubt already when
 * this engine began, and may not have been tried since. */
static int suspects_read(struct intake_core *core, uint64_t size)
{
    if (size > MARKER_SIZE_MAX) {
        return -EFBIG;
    }
    int fd = disk_open(core->disk, core->spool.root, CLEAN_NAME, DISK_READONLY);
    char *text = fd < 0 ? NULL : malloc((size_t)size + 1);
    core->suspects = text == NULL ? NULL : calloc((size_t)size + 1, sizeof(*core->suspects));
    int64_t got = fd < 0 ? fd : -ENOMEM;
    if (core->suspects != NULL) {
        got = disk_read(core->disk, fd, text, (size_t)size, 0);
        struct cursor cursor = cursor_of(span_of(text, got > 0 ? (size_t)got : 0));
        struct span line;
        while (cursor_take_line(&cursor, &line)) {
            struct cursor number = cursor_of(line);
            uint64_t value;
            if (cursor_take_uint(&number, UINT32_MAX, &value)) {
                core->suspects[core->suspects_count++] = (uint32_t)value;
            }
        }
    }
    free(text);
    if (fd >= 0) {
        disk_close(core->disk, fd);
    }
    return got < 0 ? (int)got : 0;
}

int intake_marker_take(struct intake_core *core)
{
    struct disk_stat stat;
    int result = disk_stat_at(core->disk, core->spool.root, CLEAN_NAME, &stat);
    if (result != 0) {
        core->is_unclean = true;
        return result == -ENOENT ? 0 : result;
    }
    core->is_unclean = suspects_read(core, stat.size) != 0;
    result = disk_unlink(core->disk, core->spool.root, CLEAN_NAME);
    return result == 0 ? disk_sync(core->disk, core->spool.root) : result;
}

int intake_mark_clean(struct intake *intake)
{
    struct intake_core *core = intake->core;
    size_t size = 256 + (size_t)core->known.batches_count * 11;
    char *text = malloc(size);
    if (text == NULL) {
        return -ENOMEM;
    }
    struct writer writer = writer_of(text, size);
    writer_put(&writer, SPAN("The engine stopped in order: nothing was in flight. What follows are "
                             "the numbers of batches\nin which recipients may still have been in "
                             "flight when an engine before it ended.\n"));
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        const struct intake_known *row = &core->known_rows[i];
        if (row->is_suspect && row->state != INTAKE_KNOWN_ENDED) {
            writer_put_uint(&writer, row->number);
            writer_put_byte(&writer, '\n');
        }
    }
    ensure(!writer.is_full);
    int result =
        disk_write_file(core->disk, core->spool.root, CLEAN_NAME, writer_span(&writer), true);
    free(text);
    return result;
}

static struct intake_known *known_of(struct intake_core *core, const struct intake_batch *ib)
{
    return ib->known == NULL ? NULL : &core->known_rows[ib->known - core->known.batches];
}

bool intake_may_be_repeated(struct intake_core *core, const struct intake_batch *ib,
                            const struct recipient *recipient)
{
    const struct intake_known *row = known_of(core, ib);
    if (row == NULL || !row->is_suspect) {
        return false;
    }
    if (ib->known->is_damaged) {
        return true; /* its record may be one of those that were lost */
    }
    /* Who was deferred since has the doubt in his record. Who was to wait longer than until now was
     * not in flight. */
    bool was_tried_since = recipient->attempts_count > 0 && !core->is_unclean;
    uint32_t now_s = wall_seconds(clock_wall(core->engine->clock));
    return !was_tried_since && recipient->due_s <= now_s;
}

/* Results. */

static bool bit_is_set(const uint64_t *bitmap, uint32_t ordinal)
{
    return (bitmap[ordinal / 64] >> (ordinal % 64) & 1) != 0;
}

/* Which outcomes the batch wants to have in results.ndjson. */
static unsigned results_wanted(struct intake_core *core, int dir, const char *directory)
{
    struct spool_problem problem;
    unsigned wanted = 0;
    char *json = malloc(MANIFEST_SIZE_MAX);
    struct writer content = writer_of(json, json == NULL ? 0 : MANIFEST_SIZE_MAX);
    if (json != NULL && spool_file_read(&core->spool, dir, "batch.json", MANIFEST_SIZE_MAX,
                                        &content, &problem) == 0) {
        struct writer errors = writer_of(core->reason_text, INTAKE_REASON_MAX - 1);
        struct manifest *manifest =
            manifest_parse(writer_span(&content), span_of_text(directory), &errors);
        wanted = manifest == NULL ? 0 : manifest->results;
        manifest_destroy(manifest);
    }
    free(json);
    return wanted;
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

/* Clears the bits of those who have a line, and takes out what is no line. 0 or -errno. */
static int results_read(struct intake_core *core, int dir, const struct journal_known_batch *known,
                        uint64_t *missing)
{
    struct reading reading = {.known = known, .missing = missing};
    int fd = disk_open(core->disk, dir, RESULTS_NAME, DISK_READONLY);
    if (fd < 0) {
        return fd == -ENOENT ? 0 : fd;
    }
    int result = results_pass(core, fd, -1, &reading);
    if (result == 0 && reading.is_broken) {
        result = results_mend(core, dir, fd, &reading);
    }
    disk_close(core->disk, fd);
    return result;
}

/* Finds out whose lines are missing; none or no memory: row->missing stays NULL. */
static void results_look(struct intake_core *core, struct intake_known *row,
                         const struct journal_known_batch *known)
{
    int dir = spool_batch_open(&core->spool, known->directory);
    if (dir < 0) {
        return;
    }
    size_t words = (size_t)((known->records_count + 63) / 64);
    row->wanted = results_wanted(core, dir, known->directory);
    uint64_t *missing = row->wanted == 0 ? NULL : malloc(words * sizeof(*missing));
    if (missing != NULL) {
        memcpy(missing, known->settled, words * sizeof(*missing));
        if (results_read(core, dir, known, missing) == 0) {
            uint64_t any = 0;
            for (size_t i = 0; i < words; i++) {
                any |= missing[i];
            }
            row->missing = any == 0 ? NULL : missing;
        } else {
            odd(results_not_read);
        }
        if (row->missing == NULL) {
            free(missing);
        }
    }
    disk_close(core->disk, dir);
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

static void record_take(struct intake_core *core, const struct journal_record *record)
{
    unsigned result = result_of(record->kind);
    struct intake_known *row = result == 0 ? NULL : row_of_number(core, record->batch);
    if (row == NULL || row->missing == NULL || (row->wanted & result) == 0 ||
        record->ordinal >= row->records_count || !bit_is_set(row->missing, record->ordinal)) {
        return;
    }
    if (row->finals_count == row->finals_room) {
        uint32_t room = row->finals_room == 0 ? 64 : 2 * row->finals_room;
        struct intake_final *finals = realloc(row->finals, room * sizeof(*finals));
        if (finals == NULL) {
            odd(results_not_completed);
            return;
        }
        row->finals = finals;
        row->finals_room = room;
    }
    row->missing[record->ordinal / 64] &= ~(UINT64_C(1) << (record->ordinal % 64));
    row->finals[row->finals_count++] = (struct intake_final){
        .ordinal = record->ordinal,
        .at_s = record->at_s,
        .code = record->code,
        .attempts_count = record->attempts_count,
        .result = (uint8_t)result,
        .is_possible_duplicate = (record->flags & JOURNAL_FLAG_POSSIBLE_DUPLICATE) != 0,
    };
}

/* All records of one segment. Replay has judged its groups already: what is looked for is settled
 * by its word. An older segment may hold another record of the same recipient, of a group that was
 * torn: the newest is the one that was believed, and segments are read from new to old. */
static void segment_read(struct intake_core *core, int dir, uint32_t number,
                         struct journal_cell *chunk)
{
    char name[JOURNAL_NAME_SIZE];
    journal_name_put(name, JOURNAL_FILE_SEGMENT, number);
    int fd = disk_open(core->disk, dir, name, DISK_READONLY);
    uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, number);
    uint64_t index = HEADER_CELLS;
    int64_t got = fd < 0 ? 0 : 1;
    while (got > 0) {
        got = disk_read(core->disk, fd, chunk, CHUNK_SIZE, index * JOURNAL_CELL_SIZE);
        uint64_t count = got > 0 ? (uint64_t)got / JOURNAL_CELL_SIZE : 0;
        for (uint64_t i = 0; i < count; i++) {
            struct journal_record record;
            if (journal_record_get(&chunk[i], seed + index + i, &record)) {
                record_take(core, &record);
            }
        }
        index += count;
        got = count == 0 ? 0 : got;
    }
    if (fd >= 0) {
        disk_close(core->disk, fd);
    }
}

static int by_ordinal(const void *a, const void *b)
{
    const struct intake_final *one = a, *other = b;
    return one->ordinal < other->ordinal ? -1 : one->ordinal > other->ordinal;
}

/* Segments that a checkpoint stands for may have come back by a crash: replay does not look at them
 * either. */
static uint32_t newest_checkpoint(const struct journal_listing *listing)
{
    uint32_t newest = 0;
    for (uint32_t i = 0; i < listing->count; i++) {
        const struct journal_walk_file *file = &listing->files[i];
        if (file->file == JOURNAL_FILE_CHECKPOINT && file->number > newest) {
            newest = file->number;
        }
    }
    return newest;
}

/* The records of those whose lines are missing. What only a checkpoint knows is too old for that:
 * its line was on the disk long before the record's segment could go. */
static void finals_find(struct intake_core *core)
{
    int dir = core->spool.places[SPOOL_JOURNAL];
    struct journal_listing listing = {.files = NULL};
    struct journal_cell *chunk = malloc(CHUNK_SIZE);
    if (chunk == NULL || journal_listing_read(&listing, core->disk, dir) != 0) {
        odd(results_not_completed);
    } else {
        uint32_t checkpoint = newest_checkpoint(&listing);
        for (uint32_t i = listing.count; i-- > 0;) {
            if (listing.files[i].file == JOURNAL_FILE_SEGMENT &&
                listing.files[i].number > checkpoint) {
                segment_read(core, dir, listing.files[i].number, chunk);
            }
        }
    }
    journal_listing_free(&listing);
    free(chunk);
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        struct intake_known *row = &core->known_rows[i];
        if (row->finals_count > 1) {
            qsort(row->finals, row->finals_count, sizeof(row->finals[0]), by_ordinal);
        }
        free(row->missing);
        row->missing = NULL;
    }
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
    memcpy(attempt.id, result->id.at, size);
    attempt.id_size = (uint8_t)size;
    struct policy_verdict verdict = policy_of_reason(ROWS[final->result].reason);
    struct outcome outcome = {
        .class = ROWS[final->result].class,
        .reason = ROWS[final->result].reason,
        .response = verdict.response,
        .place.sender = result->sender,
    };
    outcome.response.code = final->code != 0 ? final->code : outcome.response.code;
    outcome.response.content = SPAN("from the journal: the line was lost in a crash");
    struct report_cache cache = {.second = INT64_MIN};
    report_put_line(line, core->engine, &cache, &attempt, &outcome, final->attempts_count,
                    final->is_possible_duplicate,
                    (struct wall_time){.ns = (int64_t) final->at_s * NS_PER_S});
}

static void lines_flush(struct intake_core *core, struct intake_known *row)
{
    if (row->lines_size > 0 && row->fd >= 0 &&
        disk_write(core->disk, row->fd, row->lines, row->lines_size, row->offset) < 0) {
        odd(results_not_completed);
    }
    row->offset += row->lines_size;
    row->lines_size = 0;
}

static void lines_open(struct intake_core *core, struct intake_batch *ib, struct intake_known *row)
{
    struct disk_stat stat;
    row->lines = malloc(LINES_SIZE);
    row->fd = disk_open(core->disk, ib->fd, RESULTS_NAME, DISK_READWRITE | DISK_CREATE);
    if (row->lines == NULL || row->fd < 0 || disk_stat_fd(core->disk, row->fd, &stat) != 0) {
        odd(results_not_completed);
        row->finals_next = row->finals_count; /* the batch goes on without these lines */
        return;
    }
    row->offset = stat.size;
}

void intake_result_complete(struct intake_core *core, struct intake_batch *ib, uint32_t ordinal,
                            const struct intake_result *result)
{
    struct intake_known *row = known_of(core, ib);
    if (row == NULL || row->finals_next == row->finals_count ||
        row->finals[row->finals_next].ordinal != ordinal) {
        return;
    }
    if (row->lines == NULL) {
        lines_open(core, ib, row);
        if (row->finals_next == row->finals_count) {
            return;
        }
    }
    if (LINES_SIZE - row->lines_size < JOURNAL_LINE_MAX) {
        lines_flush(core, row);
    }
    struct writer line = writer_of(row->lines + row->lines_size, JOURNAL_LINE_MAX);
    final_put(core, ib, &row->finals[row->finals_next++], result, &line);
    row->lines_size += writer_size(&line);
}

void intake_results_end(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_known *row = known_of(core, ib);
    if (row == NULL || row->lines == NULL) {
        return;
    }
    lines_flush(core, row);
    if (row->fd >= 0) {
        /* The name, too: it may be new. */
        if (disk_datasync(core->disk, row->fd) != 0 || disk_sync(core->disk, ib->fd) != 0) {
            odd(results_not_completed);
        }
        disk_close(core->disk, row->fd);
        row->fd = -1;
    }
    free(row->lines);
    row->lines = NULL;
}

/* What is known. */

static int number_compare(const void *a, const void *b)
{
    uint32_t one = *(const uint32_t *)a;
    uint32_t other = *(const uint32_t *)b;
    return one < other ? -1 : one > other;
}

static int by_number(const void *a, const void *b, void *context)
{
    const struct intake_known *rows = context;
    uint32_t one = rows[*(const uint32_t *)a].number;
    uint32_t other = rows[*(const uint32_t *)b].number;
    return one < other ? -1 : one > other;
}

int intake_recover(struct intake *intake, struct journal_known *known)
{
    struct intake_core *core = intake->core;
    core->known = *known;
    *known = (struct journal_known){.batches = NULL};
    core->is_recovering = true;
    if (core->known.next_number > core->next_number) {
        core->next_number = core->known.next_number;
    }
    uint32_t count = core->known.batches_count;
    if (core->suspects_count > 1) {
        qsort(core->suspects, core->suspects_count, sizeof(*core->suspects), number_compare);
    }
    core->known_rows = calloc(count + 1u, sizeof(*core->known_rows));
    core->known_by_number = calloc(count + 1u, sizeof(*core->known_by_number));
    if (core->known_rows == NULL || core->known_by_number == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        core->known_rows[i].number = core->known.batches[i].number;
        core->known_rows[i].records_count = core->known.batches[i].records_count;
        core->known_rows[i].fd = -1;
        core->known_by_number[i] = i;
        core->known_rows[i].is_suspect =
            core->is_unclean || core->known.batches[i].is_damaged ||
            (core->suspects_count > 0 &&
             bsearch(&core->known_rows[i].number, core->suspects, core->suspects_count,
                     sizeof(*core->suspects), number_compare) != NULL);
    }
    qsort_r(core->known_by_number, count, sizeof(*core->known_by_number), by_number,
            core->known_rows);
    for (uint32_t i = 0; i < count && core->is_unclean; i++) {
        results_look(core, &core->known_rows[i], &core->known.batches[i]);
    }
    if (core->is_unclean && count > 0) {
        finals_find(core);
    }
    return 0;
}

void intake_known_free(struct intake_core *core)
{
    for (uint32_t i = 0; core->known_rows != NULL && i < core->known.batches_count; i++) {
        struct intake_known *row = &core->known_rows[i];
        if (row->fd >= 0) {
            disk_close(core->disk, row->fd);
        }
        free(row->lines);
        free(row->finals);
        free(row->missing);
    }
    free(core->known_rows);
    free(core->known_by_number);
    free(core->suspects);
    core->suspects = NULL;
    core->known_rows = NULL;
    core->known_by_number = NULL;
    journal_known_free(&core->known);
}

static bool is_in_hold(struct intake_core *core, const char *directory)
{
    struct disk_stat stat;
    return disk_stat_at(core->disk, core->spool.places[SPOOL_HOLD], directory, &stat) == 0;
}

struct journal_known_batch *intake_known_take(struct intake_core *core, const char *directory)
{
    struct journal_known_batch *known = journal_known_find(&core->known, directory);
    if (known == NULL) {
        return NULL;
    }
    struct intake_known *row = &core->known_rows[known - core->known.batches];
    ensure(row->state == INTAKE_KNOWN_UNSEEN);
    /* The one that the journal knows lies in hold/: this is another of the same name. */
    if (is_in_hold(core, directory)) {
        row->state = INTAKE_KNOWN_HELD;
        return NULL;
    }
    row->state = INTAKE_KNOWN_TAKEN;
    return known;
}

void intake_known_held(struct intake_core *core, const struct intake_batch *ib)
{
    struct intake_known *row = known_of(core, ib);
    ensure(row != NULL);
    row->state = INTAKE_KNOWN_HELD;
}

void intake_known_ended(struct intake_core *core, const struct intake_batch *ib)
{
    struct intake_known *row = known_of(core, ib);
    if (row != NULL) {
        ensure(row->state == INTAKE_KNOWN_TAKEN);
        row->state = INTAKE_KNOWN_ENDED;
    }
}

bool intake_is_name_held(struct intake_core *core, const char *directory)
{
    const struct journal_known_batch *known = journal_known_find(&core->known, directory);
    return known != NULL &&
           core->known_rows[known - core->known.batches].state == INTAKE_KNOWN_HELD;
}

/* Those that have left active/ without the journal's knowing it, some at a time. True: all are
 * told, and their ends are durable. */
static bool ghosts_end(struct intake_core *core)
{
    while (inbox_take(&core->ghosts_back) != NULL) {
        ensure(core->ghosts_away > 0);
        core->ghosts_away--;
    }
    if (core->ghosts_away > 0) {
        return false;
    }
    while (core->ghosts_next < core->known.batches_count && core->ghosts_away < INTAKE_GHOSTS_MAX) {
        uint32_t at = core->ghosts_next++;
        struct intake_known *row = &core->known_rows[at];
        if (row->state != INTAKE_KNOWN_UNSEEN) {
            continue;
        }
        if (is_in_hold(core, core->known.batches[at].directory)) {
            row->state = INTAKE_KNOWN_HELD;
            continue;
        }
        struct intake_ghost *ghost = &core->ghosts[core->ghosts_away++];
        row->state = INTAKE_KNOWN_ENDED;
        ghost->batch.number = row->number;
        ghost->batch.index = UINT32_MAX; /* no slot of the table */
        ghost->end = (struct journal_end){.reply_to = &core->ghosts_back, .batch = &ghost->batch};
        inbox_push_xcore(&core->engine->journal->ends, &ghost->end.node);
    }
    return core->ghosts_away == 0;
}

/* What lay in active/ at the start, a few a step. */
static void recover_listed(struct intake_core *core)
{
    if (!intake_has_slot(core)) {
        return; /* batches must leave first */
    }
    int result = spool_list_active(&core->spool, core->recover_after, core->names);
    if (result != 0 && result != -E2BIG) {
        stat_set(&core->engine->must_stop, 1);
        return;
    }
    uint32_t at = 0;
    while (at < core->names->count && at < INTAKE_RECOVERS_STEP_MAX && intake_has_slot(core)) {
        intake_open_recovered(core, core->names->names[at++]);
    }
    core->is_listed = result != -E2BIG && at == core->names->count;
    if (at > 0) {
        (void)snprintf(core->recover_after, sizeof(core->recover_after), "%s",
                       core->names->names[at - 1]);
    }
}

void intake_recover_some(struct intake_core *core)
{
    ensure(core->is_recovering);
    if (!core->is_listed) {
        recover_listed(core);
    } else if (ghosts_end(core) && core->ghosts_next == core->known.batches_count) {
        core->is_recovering = false;
        core->names->count = 0; /* they were those of active/ */
        ensure(core->names_next == 0);
    }
}
