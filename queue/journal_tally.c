/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_walk.h"

/*
 * Rows of batches that ended are used again, so that a journal of millions of small batches that
 * came and went is read in the memory of those that live. The hash is open addressing with linear
 * probing, at most half full; removal shifts back (queue/domain.c).
 */
enum { ROWS_FIRST = 64, BITS = 64 };

static const uint32_t HASH_MULTIPLIER = 0x9e3779b1u;

static size_t bitmap_words(uint64_t records_count)
{
    return (size_t)((records_count + BITS - 1) / BITS);
}

static bool bit_is_set(const uint64_t *bitmap, uint32_t ordinal)
{
    return (bitmap[ordinal / BITS] >> ordinal % BITS & 1) != 0;
}

static void bit_set(uint64_t *bitmap, uint32_t ordinal)
{
    bitmap[ordinal / BITS] |= UINT64_C(1) << ordinal % BITS;
}

void journal_tally_init(struct journal_tally *tally)
{
    *tally = (struct journal_tally){.next_number = 1};
}

static void row_free(struct journal_tally_batch *row)
{
    free(row->known.settled);
    free(row->known.deferrals);
    free(row->seen);
    *row = (struct journal_tally_batch){.is_live = false};
}

void journal_tally_deinit(struct journal_tally *tally)
{
    for (uint32_t i = 0; i < tally->rows_count; i++) {
        row_free(&tally->rows[i]);
    }
    free(tally->rows);
    free(tally->places);
    *tally = (struct journal_tally){0};
}

static uint32_t number_home(const struct journal_tally *tally, uint32_t number)
{
    return (number * HASH_MULTIPLIER >> 7) & tally->places_mask;
}

/* Where the number is, or would be. */
static uint32_t place_find(const struct journal_tally *tally, uint32_t number)
{
    ensure(tally->places != NULL);
    uint32_t at = number_home(tally, number);
    while (tally->places[at] != 0 && tally->rows[tally->places[at] - 1].known.number != number) {
        at = (at + 1) & tally->places_mask;
    }
    return at;
}

static void place_remove(struct journal_tally *tally, uint32_t hole)
{
    uint32_t mask = tally->places_mask;
    for (uint32_t at = (hole + 1) & mask; tally->places[at] != 0; at = (at + 1) & mask) {
        uint32_t home = number_home(tally, tally->rows[tally->places[at] - 1].known.number);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            tally->places[hole] = tally->places[at];
            hole = at;
        }
    }
    tally->places[hole] = 0;
}

struct journal_tally_batch *journal_tally_find(const struct journal_tally *tally, uint32_t number)
{
    if (tally->places == NULL) {
        return NULL;
    }
    uint32_t place = tally->places[place_find(tally, number)];
    return place == 0 ? NULL : &tally->rows[place - 1];
}

/* Twice the rows, and a hash of twice as many places. */
static bool tally_grow(struct journal_tally *tally)
{
    uint32_t room = tally->rows_room == 0 ? ROWS_FIRST : tally->rows_room * 2;
    uint32_t *places = calloc((size_t)room * 2, sizeof(*places));
    struct journal_tally_batch *rows = realloc(tally->rows, room * sizeof(*rows));
    if (rows != NULL) {
        tally->rows = rows;
    }
    if (rows == NULL || places == NULL) {
        free(places);
        tally->error = -ENOMEM;
        return false;
    }
    free(tally->places);
    tally->places = places;
    tally->places_mask = room * 2 - 1;
    tally->rows_room = room;
    for (uint32_t i = 0; i < tally->rows_count; i++) {
        if (rows[i].is_live) {
            places[place_find(tally, rows[i].known.number)] = i + 1;
        }
    }
    return true;
}

static struct journal_tally_batch *row_take(struct journal_tally *tally, uint32_t number)
{
    if (tally->free_head == 0 && tally->rows_count == tally->rows_room && !tally_grow(tally)) {
        return NULL;
    }
    uint32_t index;
    if (tally->free_head != 0) {
        index = tally->free_head - 1;
        tally->free_head = tally->rows[index].next_free;
    } else {
        index = tally->rows_count++;
    }
    ensure(tally->rows_count <= tally->rows_room);
    struct journal_tally_batch *row = &tally->rows[index];
    *row = (struct journal_tally_batch){.known.number = number, .is_live = true};
    uint32_t place = place_find(tally, number);
    ensure(tally->places[place] == 0);
    tally->places[place] = index + 1;
    tally->live_count++;
    return row;
}

static void row_give(struct journal_tally *tally, struct journal_tally_batch *row)
{
    ensure(row->is_live);
    ensure(tally->live_count > 0);
    place_remove(tally, place_find(tally, row->known.number));
    row_free(row);
    row->next_free = tally->free_head;
    tally->free_head = (uint32_t)(row - tally->rows) + 1;
    tally->live_count--;
}

void journal_tally_damage(struct journal_tally *tally, const struct journal_damage *damage)
{
    tally->corrupt_records += damage->kind == JOURNAL_DAMAGE_PASSED ? 0 : damage->count;
    journal_damages_put(&tally->damages, damage);
    struct journal_tally_batch *row = journal_tally_find(tally, damage->batch);
    if (row != NULL) {
        row->known.is_damaged = true;
    }
    for (uint32_t i = 0; damage->batch == 0 && i < tally->rows_count; i++) {
        tally->rows[i].known.is_damaged = tally->rows[i].is_live;
    }
}

/* A whole record that cannot have been written as it is, by what is known of its batch. */
static void strange(struct journal_tally *tally, const struct journal_record *record)
{
    struct journal_damage damage = tally->at;
    damage.kind = JOURNAL_DAMAGE_STRANGE;
    damage.size = JOURNAL_CELL_SIZE;
    damage.count = 1;
    damage.batch = record->batch;
    damage.ordinal_first = record->kind == JOURNAL_KIND_ACCEPTED ? 1 : record->ordinal;
    damage.ordinal_last = record->kind == JOURNAL_KIND_ACCEPTED ? 0 : record->ordinal;
    journal_tally_damage(tally, &damage);
}

static void number_seen(struct journal_tally *tally, uint32_t number)
{
    if (number >= tally->next_number && number < JOURNAL_BATCH_NUMBER_MAX) {
        tally->next_number = number + 1;
    }
}

static void add_accepted(struct journal_tally *tally, const struct journal_record *record,
                         const struct journal_accepted *accepted)
{
    number_seen(tally, accepted->number);
    struct journal_tally_batch *row = journal_tally_find(tally, accepted->number);
    if (row != NULL) {
        strange(tally, record);
        return;
    }
    row = row_take(tally, accepted->number);
    if (row == NULL) {
        return;
    }
    struct journal_known_batch *known = &row->known;
    known->is_damaged = accepted->is_damaged;
    known->recipients_count = accepted->recipients_count;
    known->records_count = accepted->records_count;
    known->rejected_count = accepted->rejected_count;
    known->content_hash = accepted->content_hash;
    known->content_size = accepted->content_size;
    known->accepted_at = accepted->accepted_at;
    ensure(accepted->directory.size < sizeof(known->directory));
    memcpy(known->directory, accepted->directory.at, accepted->directory.size);
    /* One word more than none, so that NULL always means no memory. */
    known->settled = calloc(bitmap_words(known->records_count) + 1, sizeof(uint64_t));
    if (known->settled == NULL) {
        tally->error = -ENOMEM;
    }
}

static enum batch_count count_of(enum journal_kind kind)
{
    switch (kind) {
    case JOURNAL_KIND_DELIVERED:
        return BATCH_DELIVERED;
    case JOURNAL_KIND_BOUNCED:
        return BATCH_BOUNCED;
    case JOURNAL_KIND_EXPIRED:
        return BATCH_EXPIRED;
    case JOURNAL_KIND_CANCELLED:
        return BATCH_CANCELLED_COUNT;
    case JOURNAL_KIND_DEFERRED:
        return BATCH_DEFERRALS;
    case JOURNAL_KIND_ACCEPTED:
    case JOURNAL_KIND_ENDED:
    case JOURNAL_KIND_GROUP:
    case JOURNAL_KIND_MORE:
    case JOURNAL_KIND_COUNTS:
    case JOURNAL_KIND_SETTLED:
    case JOURNAL_KIND_WHOLE:
        break;
    }
    ensure(false);
    return BATCH_DELIVERED;
}

static void count(struct journal_tally *tally, const struct journal_record *record)
{
    tally->records_count++;
    tally->latest_s = record->at_s > tally->latest_s ? record->at_s : tally->latest_s;
}

void journal_tally_add(struct journal_tally *tally, const struct journal_record *record)
{
    if (tally->error != 0) {
        return;
    }
    count(tally, record);
    struct journal_tally_batch *row = journal_tally_find(tally, record->batch);
    if (record->kind == JOURNAL_KIND_ENDED && row != NULL) {
        row_give(tally, row);
        return;
    }
    /* After its end, twice, or beyond the batch: such a record cannot have been written. */
    if (record->kind == JOURNAL_KIND_ENDED || row == NULL ||
        record->ordinal >= row->known.records_count ||
        bit_is_set(row->known.settled, record->ordinal)) {
        number_seen(tally, record->batch);
        strange(tally, record);
        return;
    }
    row->known.counts[count_of(record->kind)]++;
    if (record->kind != JOURNAL_KIND_DEFERRED) {
        bit_set(row->known.settled, record->ordinal);
    }
    if ((record->flags & JOURNAL_FLAG_POSSIBLE_DUPLICATE) != 0) {
        row->known.counts[BATCH_POSSIBLE_DUPLICATES]++;
    }
}

static bool settled_merge(struct journal_tally_batch *row, uint32_t first, struct span payload)
{
    size_t words = bitmap_words(row->known.records_count);
    size_t at = first / BITS;
    if (first % BITS != 0 || payload.size % sizeof(uint64_t) != 0 || at > words ||
        payload.size / sizeof(uint64_t) > words - at) {
        return false;
    }
    struct cursor cursor = cursor_of(payload);
    uint64_t word;
    while (cursor_take_u64(&cursor, &word)) {
        row->known.settled[at++] |= word;
    }
    return true;
}

void journal_tally_add_long(struct journal_tally *tally, const struct journal_record *record,
                            struct span payload)
{
    if (tally->error != 0) {
        return;
    }
    count(tally, record);
    struct journal_accepted accepted;
    if (record->kind == JOURNAL_KIND_ACCEPTED) {
        if (journal_accepted_get(record, payload, &accepted)) {
            add_accepted(tally, record, &accepted);
        } else {
            strange(tally, record);
        }
        return;
    }
    struct journal_tally_batch *row = journal_tally_find(tally, record->batch);
    bool is_good = row != NULL;
    if (is_good && record->kind == JOURNAL_KIND_COUNTS) {
        is_good = journal_counts_get(payload, row->known.counts);
    } else if (is_good) {
        ensure(record->kind == JOURNAL_KIND_SETTLED);
        is_good = settled_merge(row, record->ordinal, payload);
    }
    if (!is_good) {
        strange(tally, record);
    }
}

struct journal_tally_batch *journal_tally_defer(struct journal_tally *tally,
                                                const struct journal_record *record)
{
    struct journal_tally_batch *row = journal_tally_find(tally, record->batch);
    if (tally->error != 0 || row == NULL || record->ordinal >= row->known.records_count ||
        bit_is_set(row->known.settled, record->ordinal)) {
        return NULL;
    }
    if (row->seen == NULL) {
        row->seen = calloc(bitmap_words(row->known.records_count), sizeof(uint64_t));
        if (row->seen == NULL) {
            tally->error = -ENOMEM;
            return NULL;
        }
    }
    if (bit_is_set(row->seen, record->ordinal)) {
        return NULL;
    }
    bit_set(row->seen, record->ordinal);
    return row;
}

static uint64_t settled_count(const struct journal_known_batch *known)
{
    uint64_t count = 0;
    size_t words = bitmap_words(known->records_count);
    for (size_t i = 0; i < words; i++) {
        count += (uint64_t)__builtin_popcountll(known->settled[i]);
    }
    return count;
}

static bool row_is_proved(const struct journal_known_batch *known, uint64_t count)
{
    uint64_t counted = known->counts[BATCH_DELIVERED] + known->counts[BATCH_BOUNCED] +
                       known->counts[BATCH_EXPIRED] + known->counts[BATCH_CANCELLED_COUNT];
    size_t words = bitmap_words(known->records_count);
    bool is_inside = known->records_count % BITS == 0 ||
                     known->settled[words - 1] >> known->records_count % BITS == 0;
    return is_inside && count == counted && count <= known->recipients_count;
}

/* Of a batch that breaks the law the bitmap is believed: a recipient that was settled is not sent
 * again. What its outcomes were is not known any more; they count as cancelled, never as delivered
 * (LAW 5). */
void journal_tally_prove(struct journal_tally *tally)
{
    for (uint32_t i = 0; i < tally->rows_count && tally->error == 0; i++) {
        struct journal_tally_batch *row = &tally->rows[i];
        if (!row->is_live) {
            continue;
        }
        struct journal_known_batch *known = &row->known;
        uint64_t count = settled_count(known);
        if (!row_is_proved(known, count)) {
            journal_tally_damage(tally, &(struct journal_damage){.kind = JOURNAL_DAMAGE_SUMS,
                                                                 .count = 1,
                                                                 .batch = known->number,
                                                                 .ordinal_first = 1});
            known->counts[BATCH_DELIVERED] = 0;
            known->counts[BATCH_BOUNCED] = 0;
            known->counts[BATCH_EXPIRED] = 0;
            known->counts[BATCH_CANCELLED_COUNT] = count;
        }
    }
}
