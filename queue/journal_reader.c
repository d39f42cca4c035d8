/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/ensure.h"
#include "queue/journal_walk.h"

/*
 * A group is written whole and synced before the next one is written, and groups are numbered
 * without gaps from 1 in each run of the engine. So:
 *
 * - a broken record in a group is corruption when another group of the same run comes behind it,
 *   and a torn write otherwise; until that is known it is a suspect;
 * - where a group should begin and none does, either nothing more was written to this file, or a
 *   group was lost: the number of the next one found tells. The end of a run is told by the next
 *   run's headers, as replay found it then.
 */
void journal_reader_begin_file(struct journal_reader *reader, const struct journal_header *header)
{
    reader->suspects += reader->group_left;
    if (header->run != reader->run || header->file == JOURNAL_FILE_CHECKPOINT) {
        if (header->before_run == reader->run && header->before_group > reader->group) {
            reader->tally->corrupt_records += header->before_group - reader->group;
        }
        reader->suspects = 0;
        reader->group = 0;
        reader->run = header->run;
    }
    reader->file = header->file;
    reader->seed = journal_seed(header->file, header->number);
    reader->index = JOURNAL_SECTOR_CELLS;
    reader->group_left = 0;
    reader->group_at = 0;
    reader->end = 0;
    reader->deferred_count = 0;
    reader->is_whole = false;
    reader->is_in_long = false;
}

void journal_reader_end_checkpoint(struct journal_reader *reader,
                                   const struct journal_header *header)
{
    reader->suspects = 0;
    reader->group_left = 0;
    reader->run = header->run;
    reader->group = header->group;
}

static void suspect(struct journal_reader *reader, const struct journal_cell *cell)
{
    if (reader->suspects < COUNT_OF(reader->suspect_batches)) {
        reader->suspect_batches[reader->suspects] = journal_cell_guess_batch(cell);
    }
    reader->suspects++;
}

/* A later group of the same run was found: what was suspect had been synced. */
static void suspects_convict(struct journal_reader *reader)
{
    struct journal_tally *tally = reader->tally;
    tally->corrupt_records += reader->suspects;
    for (size_t i = 0; i < COUNT_OF(reader->suspect_batches) && i < reader->suspects; i++) {
        journal_tally_damage(tally, reader->suspect_batches[i]);
    }
    reader->suspects = 0;
}

/* Between groups: the first cell of a sector begins the next one, or the sector is passed over. */
static void feed_between(struct journal_reader *reader, const struct journal_cell *cell)
{
    ensure(reader->group_left == 0);
    struct journal_record record;
    if (reader->index % JOURNAL_SECTOR_CELLS != 0 ||
        !journal_record_get(cell, reader->seed + reader->index, &record) ||
        record.kind != JOURNAL_KIND_GROUP || record.group <= reader->group || record.ordinal == 0) {
        return;
    }
    suspects_convict(reader);
    reader->tally->corrupt_records += record.group - reader->group - 1;
    reader->group = record.group;
    reader->group_at = reader->index;
    reader->group_left = record.ordinal;
    reader->is_in_long = false;
}

static void long_end(struct journal_reader *reader)
{
    ensure(reader->more_taken == reader->record.code);
    reader->is_in_long = false;
    if (!reader->is_long_broken) {
        journal_tally_add_long(reader->tally, &reader->record,
                               span_of(reader->payload, reader->payload_size));
    }
}

/* A record that lost a part is one suspect, whatever its size; MORE cells without a record in front
 * of them are part of one that was counted when its first cell was found broken. */
static void feed_more(struct journal_reader *reader, const struct journal_cell *cell)
{
    char bytes[JOURNAL_MORE_SIZE];
    uint32_t size, index;
    bool is_good = journal_more_get(cell, reader->seed + reader->index, bytes, &size, &index);
    if (!reader->is_in_long) {
        if (!is_good) {
            suspect(reader, cell);
        }
        return;
    }
    if (is_good && !reader->is_long_broken && index == reader->more_taken) {
        ensure(reader->payload_size + size <= sizeof(reader->payload));
        memcpy(reader->payload + reader->payload_size, bytes, size);
        reader->payload_size += size;
    } else if (!reader->is_long_broken) {
        reader->is_long_broken = true;
        suspect(reader, cell);
    }
    reader->more_taken++;
    if (reader->more_taken == reader->record.code) {
        long_end(reader);
    }
}

static bool kind_is_of_file(enum journal_kind kind, enum journal_file file)
{
    switch (kind) {
    case JOURNAL_KIND_ACCEPTED:
    case JOURNAL_KIND_DEFERRED:
        return true;
    case JOURNAL_KIND_DELIVERED:
    case JOURNAL_KIND_BOUNCED:
    case JOURNAL_KIND_EXPIRED:
    case JOURNAL_KIND_CANCELLED:
    case JOURNAL_KIND_ENDED:
        return file == JOURNAL_FILE_SEGMENT;
    case JOURNAL_KIND_COUNTS:
    case JOURNAL_KIND_SETTLED:
    case JOURNAL_KIND_WHOLE:
        return file == JOURNAL_FILE_CHECKPOINT;
    case JOURNAL_KIND_GROUP:
    case JOURNAL_KIND_MORE:
        return false;
    }
    ensure(false);
    return false;
}

static void feed_record(struct journal_reader *reader, const struct journal_record *record)
{
    switch (record->kind) {
    case JOURNAL_KIND_ACCEPTED:
    case JOURNAL_KIND_COUNTS:
    case JOURNAL_KIND_SETTLED:
        reader->record = *record;
        reader->is_in_long = record->code > 0;
        reader->is_long_broken = false;
        reader->more_taken = 0;
        reader->payload_size = 0;
        if (record->code == 0) {
            journal_tally_add_long(reader->tally, record, SPAN_NONE);
        }
        return;
    case JOURNAL_KIND_WHOLE:
        reader->is_whole = record->ordinal == reader->tally->live_count;
        return;
    case JOURNAL_KIND_DEFERRED:
        reader->deferred_count++;
        if (reader->file == JOURNAL_FILE_CHECKPOINT) {
            return; /* its counts are in COUNTS */
        }
        journal_tally_add(reader->tally, record);
        return;
    case JOURNAL_KIND_DELIVERED:
    case JOURNAL_KIND_BOUNCED:
    case JOURNAL_KIND_EXPIRED:
    case JOURNAL_KIND_CANCELLED:
    case JOURNAL_KIND_ENDED:
        journal_tally_add(reader->tally, record);
        return;
    case JOURNAL_KIND_GROUP:
    case JOURNAL_KIND_MORE:
        break;
    }
    ensure(false);
}

static void feed_inside(struct journal_reader *reader, const struct journal_cell *cell)
{
    ensure(reader->group_left > 0);
    struct journal_record record;
    reader->group_left--;
    reader->end = reader->index + 1;
    if (!journal_record_get(cell, reader->seed + reader->index, &record)) {
        feed_more(reader, cell);
        return;
    }
    if (reader->is_in_long) {
        /* Its rest is missing. */
        reader->is_in_long = false;
        if (!reader->is_long_broken) {
            suspect(reader, cell);
        }
    }
    if (record.group != reader->group || !kind_is_of_file(record.kind, reader->file)) {
        suspect(reader, cell);
        return;
    }
    feed_record(reader, &record);
}

void journal_reader_feed(struct journal_reader *reader, const struct journal_cell *cells,
                         size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (reader->group_left > 0) {
            feed_inside(reader, &cells[i]);
        } else {
            feed_between(reader, &cells[i]);
        }
        reader->index++;
    }
}
