/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/ensure.h"
#include "queue/journal_walk.h"

enum { SETTLED_ORDINALS = JOURNAL_MORE_CELLS_MAX * JOURNAL_MORE_SIZE * 8 };

/*
 * A group is written whole and synced before the next one is written, and groups are numbered
 * without gaps from 1 in each run of the engine. So:
 *
 * - a broken record in a group is corruption when another group of the same run comes behind it,
 *   and a torn write otherwise; until that is known it is a suspect;
 * - where a group should begin and none does, either nothing more was written to this file, or a
 *   group was lost: the number of the next one found tells. The end of a run is told by the next
 *   run's headers, as replay found it then.
 *
 * Each cell proves itself, by its place and its group's number. So neither a broken header nor a
 * broken first cell of a group takes more with it than what it says itself: without a header the
 * run is guessed by the groups' numbers; without its first cell a group is read up to the next one.
 */
static struct journal_damage damage_here(const struct journal_reader *reader,
                                         enum journal_damage_kind kind, uint32_t from, uint32_t to)
{
    ensure(from <= to);
    struct journal_damage damage = reader->tally->at;
    damage.kind = kind;
    damage.offset = (uint64_t)from * JOURNAL_CELL_SIZE;
    damage.size = (uint64_t)(to - from) * JOURNAL_CELL_SIZE;
    damage.count = 1;
    damage.ordinal_first = 1;
    return damage;
}

static void suspects_forget(struct journal_reader *reader)
{
    reader->suspects = 0;
    reader->suspected.count = 0;
    reader->suspected.left_count = 0;
}

static void suspect_put(struct journal_reader *reader, const struct journal_damage *damage)
{
    reader->suspects += damage->count;
    journal_damages_put(&reader->suspected, damage);
}

/* Groups that are not there, between what was read last and here. */
static void groups_miss(struct journal_reader *reader, uint32_t count, uint32_t from, uint32_t to)
{
    if (count > 0) {
        struct journal_damage damage = damage_here(reader, JOURNAL_DAMAGE_GROUPS, from, to);
        damage.count = count;
        journal_tally_damage(reader->tally, &damage);
    }
}

/* Of a run that ended in order nothing is torn, and no group may be missing. */
static void run_end(struct journal_reader *reader)
{
    const struct journal_place *ended = reader->ended;
    if (ended != NULL && reader->run == ended->run && reader->group <= ended->group) {
        journal_reader_convict(reader);
        groups_miss(reader, ended->group - reader->group, reader->end, reader->end);
        reader->group = ended->group;
    }
}

static void run_begin(struct journal_reader *reader, uint32_t run)
{
    run_end(reader);
    suspects_forget(reader);
    reader->group = 0;
    reader->run = run;
}

/* The file has ended in front of them. */
static void suspect_left(struct journal_reader *reader)
{
    if (reader->group_left > 0) {
        struct journal_damage damage = damage_here(reader, JOURNAL_DAMAGE_RECORDS, reader->index,
                                                   reader->index + reader->group_left);
        damage.count = reader->group_left;
        suspect_put(reader, &damage);
    }
}

void journal_reader_begin_file(struct journal_reader *reader, const struct journal_header *header,
                               bool is_headless)
{
    suspect_left(reader);
    if (header->run != reader->run || header->file == JOURNAL_FILE_CHECKPOINT) {
        run_end(reader);
        if (header->before_run == reader->run && header->before_group > reader->group) {
            groups_miss(reader, header->before_group - reader->group, reader->end, reader->end);
        }
        run_begin(reader, header->run);
    }
    reader->tally->at =
        (struct journal_damage){.file = (uint8_t)header->file, .number = header->number};
    reader->is_headless = is_headless;
    reader->is_beheaded = false;
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
    suspects_forget(reader);
    reader->group_left = 0;
    reader->is_beheaded = false;
    reader->run = header->run;
    reader->group = header->group;
    reader->is_group_unknown = reader->is_headless;
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

/* Whom a record speaks of; the batch is left open when it is not one that is known. */
static void damage_attribute(const struct journal_reader *reader,
                             const struct journal_record *record, struct journal_damage *damage)
{
    const struct journal_tally_batch *row = journal_tally_find(reader->tally, record->batch);
    uint64_t records_count = row == NULL ? 0 : row->known.records_count;
    bool is_of_batch = record->kind == JOURNAL_KIND_ACCEPTED ||
                       record->kind == JOURNAL_KIND_COUNTS || record->kind == JOURNAL_KIND_ENDED;
    if (is_of_batch || record->ordinal < records_count) {
        damage->batch = record->batch;
    }
    if (!is_of_batch && record->ordinal < records_count) {
        uint64_t last = record->ordinal;
        last += record->kind == JOURNAL_KIND_SETTLED ? SETTLED_ORDINALS - 1 : 0;
        damage->ordinal_first = record->ordinal;
        damage->ordinal_last = (uint32_t)(last < records_count ? last : records_count - 1);
    }
}

/* `record`: what it is a part of; NULL: only the cell itself may tell, when it can be mended for
 * sure. A number that merely stands in a broken cell may be the wrong one: its batch would be
 * marked, and the right one not. */
static void suspect(struct journal_reader *reader, const struct journal_cell *cell,
                    const struct journal_record *record)
{
    struct journal_damage damage =
        damage_here(reader, JOURNAL_DAMAGE_RECORDS, reader->index, reader->index + 1);
    struct journal_record mended;
    if (record == NULL && journal_cell_mend(cell, reader->seed + reader->index, &mended) &&
        mended.group == reader->group && kind_is_of_file(mended.kind, reader->file)) {
        record = &mended;
    }
    if (record != NULL) {
        damage_attribute(reader, record, &damage);
    }
    suspect_put(reader, &damage);
}

void journal_reader_convict(struct journal_reader *reader)
{
    struct journal_damages *suspected = &reader->suspected;
    for (uint32_t i = 0; i < suspected->count; i++) {
        journal_tally_damage(reader->tally, &suspected->rows[i]);
    }
    if (suspected->left_count > 0) {
        struct journal_damage damage = damage_here(reader, JOURNAL_DAMAGE_RECORDS, 0, 0);
        damage.count = suspected->left_count;
        journal_tally_damage(reader->tally, &damage);
    }
    suspects_forget(reader);
}

void journal_reader_end(struct journal_reader *reader)
{
    const struct journal_place *ended = reader->ended;
    suspect_left(reader);
    reader->group_left = 0;
    if (ended == NULL || (reader->run > ended->run && !reader->is_headless)) {
        return;
    }
    /* Nothing of that run is here; but which one a file without a header is of was guessed. */
    if (reader->run != ended->run && !reader->is_headless) {
        run_begin(reader, ended->run);
    }
    reader->run = ended->run;
    run_end(reader);
}

/* A group of this number begins, or is found without its beginning. False: it cannot be. */
static bool group_begin(struct journal_reader *reader, uint32_t group)
{
    bool is_first = reader->end == 0;
    if (reader->is_headless && (group < reader->group || (group == reader->group && is_first))) {
        run_begin(reader, reader->tally->at.number);
    }
    if (group <= reader->group) {
        return false;
    }
    /* Another one of the same run: what was suspect before had been synced. */
    journal_reader_convict(reader);
    uint32_t missing = reader->is_group_unknown ? 0 : group - reader->group - 1;
    uint32_t at = reader->index / JOURNAL_SECTOR_CELLS * JOURNAL_SECTOR_CELLS;
    uint32_t from = reader->end == 0 ? JOURNAL_SECTOR_CELLS : reader->end;
    groups_miss(reader, missing, from < at ? from : at, at);
    reader->is_group_unknown = false;
    reader->group = group;
    reader->group_at = at;
    reader->is_in_long = false;
    return true;
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
            suspect(reader, cell, NULL);
        }
        return;
    }
    if (is_good && !reader->is_long_broken && index == reader->more_taken) {
        ensure(reader->payload_size + size <= sizeof(reader->payload));
        memcpy(reader->payload + reader->payload_size, bytes, size);
        reader->payload_size += size;
    } else if (!reader->is_long_broken) {
        reader->is_long_broken = true;
        suspect(reader, cell, &reader->record);
    }
    reader->more_taken++;
    if (reader->more_taken == reader->record.code) {
        long_end(reader);
    }
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

/* Whole, but not what is written here, whoever made its checksum right. */
static bool is_misplaced(const struct journal_reader *reader, const struct journal_record *record)
{
    bool is_long = record->kind == JOURNAL_KIND_ACCEPTED || record->kind == JOURNAL_KIND_COUNTS ||
                   record->kind == JOURNAL_KIND_SETTLED;
    return record->group != reader->group || !kind_is_of_file(record->kind, reader->file) ||
           (is_long && record->code > JOURNAL_MORE_CELLS_MAX);
}

static void feed_inside(struct journal_reader *reader, const struct journal_cell *cell)
{
    struct journal_record record;
    reader->end = reader->index + 1;
    if (!journal_record_get(cell, reader->seed + reader->index, &record)) {
        feed_more(reader, cell);
        return;
    }
    if (reader->is_in_long) {
        /* Its rest is missing. */
        reader->is_in_long = false;
        if (!reader->is_long_broken) {
            suspect(reader, cell, &reader->record);
        }
    }
    if (is_misplaced(reader, &record)) {
        suspect(reader, cell, NULL);
        return;
    }
    reader->tally->at.offset = (uint64_t)reader->index * JOURNAL_CELL_SIZE;
    feed_record(reader, &record);
}

/* Between groups: the first cell of a sector begins the next one. A whole record elsewhere is of a
 * group that lost its first cell, and so is what follows. */
static void feed_between(struct journal_reader *reader, const struct journal_cell *cell)
{
    ensure(reader->group_left == 0);
    struct journal_record record;
    bool is_good = journal_record_get(cell, reader->seed + reader->index, &record);
    bool is_head = is_good && record.kind == JOURNAL_KIND_GROUP;
    if (is_head && reader->index % JOURNAL_SECTOR_CELLS == 0 && record.ordinal > 0 &&
        record.ordinal <= JOURNAL_GROUP_BEHIND_MAX && group_begin(reader, record.group)) {
        reader->group_left = record.ordinal;
        reader->is_beheaded = false;
        return;
    }
    if (is_good && kind_is_of_file(record.kind, reader->file) &&
        group_begin(reader, record.group)) {
        reader->is_beheaded = true;
        struct journal_damage damage =
            damage_here(reader, JOURNAL_DAMAGE_RECORDS, reader->group_at, reader->index);
        suspect_put(reader, &damage);
    }
    if (reader->is_beheaded && !journal_cell_is_empty(cell)) {
        feed_inside(reader, cell);
    }
}

void journal_reader_feed(struct journal_reader *reader, const struct journal_cell *cells,
                         size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (reader->group_left > 0) {
            reader->group_left--;
            feed_inside(reader, &cells[i]);
        } else {
            feed_between(reader, &cells[i]);
        }
        reader->index++;
    }
}
