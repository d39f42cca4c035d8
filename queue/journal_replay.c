/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_replay.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_walk.h"

static void on_deferral(void *context, struct journal_tally_batch *batch,
                        const struct journal_record *record)
{
    struct journal_walk *walk = context;
    struct journal_known_batch *known = &batch->known;
    if (known->deferrals_count == batch->deferrals_room) {
        uint32_t room = batch->deferrals_room == 0 ? 16 : batch->deferrals_room * 2;
        struct journal_deferral *deferrals =
            realloc(known->deferrals, (size_t)room * sizeof(*deferrals));
        if (deferrals == NULL) {
            walk->error = -ENOMEM;
            return;
        }
        known->deferrals = deferrals;
        batch->deferrals_room = room;
    }
    uint8_t ambiguous = JOURNAL_FLAG_AMBIGUOUS | JOURNAL_FLAG_POSSIBLE_DUPLICATE;
    known->deferrals[known->deferrals_count++] =
        (struct journal_deferral){.ordinal = record->ordinal,
                                  .due_s = record->due_s,
                                  .attempts_count = record->attempts_count,
                                  .is_ambiguous = (record->flags & ambiguous) != 0};
}

/* By ordinal: `seen` has the bit of each, so the bits below it are its place. Into exactly the
 * memory that they need: what on_deferral has made room for is up to twice as much. */
static int deferrals_sort(struct journal_tally_batch *row)
{
    struct journal_known_batch *known = &row->known;
    if (known->deferrals_count == 0) {
        return 0;
    }
    size_t words = (size_t)((known->records_count + 63) / 64);
    uint32_t *before = malloc(words * sizeof(*before)); /* bits in the words in front of each */
    struct journal_deferral *sorted = malloc((size_t)known->deferrals_count * sizeof(*sorted));
    if (before == NULL || sorted == NULL) {
        free(before);
        free(sorted);
        return -ENOMEM;
    }
    uint32_t sum = 0;
    for (size_t i = 0; i < words; i++) {
        before[i] = sum;
        sum += (uint32_t)__builtin_popcountll(row->seen[i]);
    }
    ensure(sum == known->deferrals_count);
    for (uint32_t i = 0; i < known->deferrals_count; i++) {
        const struct journal_deferral *deferral = &known->deferrals[i];
        uint32_t word = deferral->ordinal / 64;
        uint64_t below = (UINT64_C(1) << (deferral->ordinal % 64)) - 1;
        sorted[before[word] + (uint32_t)__builtin_popcountll(row->seen[word] & below)] = *deferral;
    }
    free(before);
    free(known->deferrals);
    known->deferrals = sorted;
    return 0;
}

/* Both passes. */
static int walk_run(struct journal_walk *walk)
{
    struct disk_op op;
    walk->on_deferral = on_deferral;
    walk->context = walk;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            journal_walk_turn(walk);
        }
        while (journal_walk_next(walk, &op)) {
            (void)disk_run(walk->disk, &op);
            journal_walk_feed(walk, &op);
        }
        if (walk->error != 0) {
            return walk->error;
        }
        if (pass == 0) {
            journal_reader_end(&walk->reader);
        }
    }
    journal_tally_prove(&walk->tally);
    return 0;
}

/*
 * What was read may lie in the page cache only: the last group was perhaps never synced, or its
 * sync failed, after which the kernel calls the pages clean (they would pass a sync now and still
 * be lost). So the last group is written again as it was read, and synced. Those before it were
 * synced before it was written.
 */
static int tail_make_durable(struct journal_walk *walk)
{
    const struct journal_walk_file *file = NULL;
    for (uint32_t i = 0; i < walk->listing.count; i++) {
        const struct journal_walk_file *at = &walk->listing.files[i];
        if (at->file == JOURNAL_FILE_SEGMENT && at->group_at != 0) {
            file = at;
        }
    }
    if (file == NULL) {
        return 0;
    }
    char name[JOURNAL_NAME_SIZE];
    journal_name_put(name, file->file, file->number);
    int fd = disk_open(walk->disk, walk->dir, name, DISK_READWRITE);
    if (fd < 0) {
        return fd;
    }
    uint64_t at = (uint64_t)file->group_at * JOURNAL_CELL_SIZE;
    uint64_t end = (uint64_t)file->end * JOURNAL_CELL_SIZE;
    int64_t result = 0;
    while (at < end && result >= 0) {
        uint64_t left = end - at;
        size_t size = left < JOURNAL_CHUNK_SIZE ? (size_t)left : JOURNAL_CHUNK_SIZE;
        result = disk_read(walk->disk, fd, walk->chunk, size, at);
        if (result == 0) {
            result = -EIO; /* it was read a moment ago */
        }
        if (result > 0) {
            size = (size_t)result;
            result = disk_write(walk->disk, fd, walk->chunk, size, at);
            at += size;
        }
    }
    if (result >= 0) {
        result = disk_datasync(walk->disk, fd);
    }
    disk_close(walk->disk, fd);
    return result < 0 ? (int)result : 0;
}

static uint32_t next_segment(const struct journal_walk *walk)
{
    uint32_t next = 1;
    for (uint32_t i = 0; i < walk->listing.count; i++) {
        if (walk->listing.files[i].number >= next) {
            next = walk->listing.files[i].number + 1;
        }
    }
    return next;
}

static int directory_compare(const void *a, const void *b)
{
    const struct journal_known_batch *one = a, *other = b;
    return strcmp(one->directory, other->directory);
}

/* The live rows' tables go over to `known`. */
static int known_fill(struct journal_walk *walk, struct journal_known *known)
{
    struct journal_tally *tally = &walk->tally;
    known->next_number = tally->next_number;
    known->latest_s = tally->latest_s;
    known->records_count = tally->records_count;
    known->corrupt_records = tally->corrupt_records;
    known->damages = tally->damages;
    for (uint32_t i = 0; i < walk->passed.count; i++) {
        journal_damages_put(&known->damages, &walk->passed.rows[i]);
    }
    known->next_segment = next_segment(walk);
    known->first_segment = walk->checkpoint < walk->listing.count
                               ? walk->listing.files[walk->checkpoint].number + 1
                               : 1;
    known->last_run = walk->reader.run;
    known->last_group = walk->reader.group;
    known->batches = calloc((size_t)tally->live_count + 1, sizeof(*known->batches));
    if (known->batches == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < tally->rows_count; i++) {
        struct journal_tally_batch *row = &tally->rows[i];
        if (!row->is_live) {
            continue;
        }
        int error = deferrals_sort(row);
        if (error != 0) {
            return error;
        }
        known->batches[known->batches_count++] = row->known;
        row->known.settled = NULL;
        row->known.deferrals = NULL;
    }
    ensure(known->batches_count == tally->live_count);
    if (known->batches_count > 1) {
        qsort(known->batches, known->batches_count, sizeof(*known->batches), directory_compare);
    }
    return 0;
}

int journal_replay(struct disk *disk, const char *directory, const struct journal_place *end,
                   struct journal_known *ret_known)
{
    int dir = disk_open(disk, DISK_ROOT, directory, DISK_READONLY | DISK_DIRECTORY);
    if (dir < 0) {
        return dir;
    }
    struct journal_walk *walk = malloc(sizeof(*walk));
    struct journal_known known = {0};
    int error = -ENOMEM;
    if (walk != NULL) {
        error = journal_walk_init(walk, disk, dir, JOURNAL_NUMBER_MAX);
    }
    if (error == 0) {
        known.ended = end == NULL ? known.ended : *end;
        journal_walk_ended(walk, &known.ended);
        error = walk_run(walk);
        if (error == 0) {
            error = tail_make_durable(walk);
        }
        if (error == 0) {
            error = known_fill(walk, &known);
        }
        journal_walk_deinit(walk);
    }
    free(walk);
    disk_close(disk, dir);
    if (error == 0) {
        *ret_known = known;
    } else {
        journal_known_free(&known);
    }
    return error;
}

struct journal_known_batch *journal_known_find(struct journal_known *known, const char *directory)
{
    struct journal_known_batch key = {0};
    size_t size = strlen(directory);
    if (known->batches_count == 0 || size >= sizeof(key.directory)) {
        return NULL;
    }
    memcpy(key.directory, directory, size);
    return bsearch(&key, known->batches, known->batches_count, sizeof(key), directory_compare);
}

void journal_known_free(struct journal_known *known)
{
    if (known == NULL) {
        return;
    }
    for (uint32_t i = 0; i < known->batches_count; i++) {
        free(known->batches[i].settled);
        free(known->batches[i].deferrals);
    }
    free(known->batches);
    *known = (struct journal_known){0};
}
