/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_record.h"

#include <endian.h>
#include <errno.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/ensure.h"
#include "engine/base/planted.h"

/* A MORE cell: what it carries stands where other cells have their numbers. */
struct more_cell {
    uint32_t checksum;
    uint8_t kind;
    uint8_t index;
    uint16_t size;
    char bytes[JOURNAL_MORE_SIZE];
};

_Static_assert(sizeof(struct more_cell) == JOURNAL_CELL_SIZE, "a cell is 32 bytes");
_Static_assert(offsetof(struct more_cell, kind) == offsetof(struct journal_cell, kind),
               "every cell says what it is in the same byte");

static const char MAGIC[8] = {'R', 'a', 'm', 'j', 'e', 't', 'J', '\n'};

enum { HEADER_CHECKED_SIZE = JOURNAL_SECTOR_SIZE - 8, ACCEPTED_FIXED_SIZE = 6 * 8 + 2 };

_Static_assert(1 + (ACCEPTED_FIXED_SIZE + JOURNAL_DIRECTORY_MAX + JOURNAL_MORE_SIZE - 1) /
                           JOURNAL_MORE_SIZE <=
                   JOURNAL_ACCEPTED_CELLS_MAX,
               "an ACCEPTED record has room for the longest directory");

/* The file's number needs 27 bits, an index at most 32: the kind fits between. */
uint64_t journal_seed(enum journal_file file, uint32_t number)
{
    ensure(number <= JOURNAL_NUMBER_MAX);
    return (uint64_t)file << 60 | (uint64_t)number << 32;
}

/* What stands behind the checksum, in any kind of cell. */
static uint32_t cell_checksum(const void *cell, uint64_t seed)
{
    const char *checked = (const char *)cell + sizeof(uint32_t);
    return (uint32_t)XXH3_64bits_withSeed(checked, JOURNAL_CELL_SIZE - sizeof(uint32_t), seed);
}

/* `checksum`: as the cell has it on disk. */
static bool cell_is_whole(const void *cell, uint32_t checksum, uint64_t seed)
{
    return PLANTED(CELL_UNCHECKED) || le32toh(checksum) == cell_checksum(cell, seed);
}

void journal_record_put(struct journal_cell *cell, const struct journal_record *record,
                        uint64_t seed)
{
    ensure((record->flags & ~JOURNAL_FLAGS_ALL) == 0);
    *cell = (struct journal_cell){
        .kind = (uint8_t)record->kind,
        .flags = record->flags,
        .code = htole16(record->code),
        .batch = htole32(record->batch),
        .ordinal = htole32(record->ordinal),
        .at_s = htole32(record->at_s),
        .due_s = htole32(record->due_s),
        .attempts_count = htole16(record->attempts_count),
        .group = htole32(record->group),
    };
    cell->checksum = htole32(cell_checksum(cell, seed));
}

static bool kind_is_record(uint8_t kind)
{
    return (kind >= JOURNAL_KIND_ACCEPTED && kind <= JOURNAL_KIND_ENDED) ||
           kind == JOURNAL_KIND_GROUP ||
           (kind >= JOURNAL_KIND_COUNTS && kind <= JOURNAL_KIND_WHOLE);
}

static void record_fill(const struct journal_cell *cell, struct journal_record *ret_record)
{
    *ret_record = (struct journal_record){
        .kind = cell->kind,
        .flags = cell->flags,
        .code = le16toh(cell->code),
        .batch = le32toh(cell->batch),
        .ordinal = le32toh(cell->ordinal),
        .at_s = le32toh(cell->at_s),
        .due_s = le32toh(cell->due_s),
        .attempts_count = le16toh(cell->attempts_count),
        .group = le32toh(cell->group),
    };
}

bool journal_record_get(const struct journal_cell *cell, uint64_t seed,
                        struct journal_record *ret_record)
{
    if (!kind_is_record(cell->kind) || !cell_is_whole(cell, cell->checksum, seed) ||
        cell->reserved != 0 || (cell->flags & ~JOURNAL_FLAGS_ALL) != 0) {
        return false;
    }
    record_fill(cell, ret_record);
    return true;
}

/* The checksum is tried under each flip: that it fits by chance is as good as impossible. */
bool journal_cell_mend(const struct journal_cell *cell, uint64_t seed,
                       struct journal_record *ret_record)
{
    uint32_t wrong = le32toh(cell->checksum) ^ cell_checksum(cell, seed);
    if ((wrong & (wrong - 1)) == 0) {
        struct journal_cell whole = *cell;
        whole.checksum ^= htole32(wrong);
        return wrong != 0 && journal_record_get(&whole, seed, ret_record);
    }
    for (uint32_t bit = sizeof(uint32_t) * 8; bit < JOURNAL_CELL_SIZE * 8; bit++) {
        struct journal_cell whole = *cell;
        ((uint8_t *)&whole)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (journal_record_get(&whole, seed, ret_record)) {
            return true;
        }
    }
    return false;
}

bool journal_cell_is_empty(const struct journal_cell *cell)
{
    static const struct journal_cell EMPTY;
    return memcmp(cell, &EMPTY, sizeof(EMPTY)) == 0;
}

static void more_put(struct journal_cell *cell, uint32_t index, struct span piece, uint64_t seed)
{
    ensure(piece.size <= JOURNAL_MORE_SIZE);
    struct more_cell more = {
        .kind = JOURNAL_KIND_MORE, .index = (uint8_t)index, .size = htole16((uint16_t)piece.size)};
    memcpy(more.bytes, piece.at, piece.size);
    more.checksum = htole32(cell_checksum(&more, seed));
    memcpy(cell, &more, sizeof(more));
}

uint32_t journal_long_put(struct journal_cell *cells, struct journal_record record,
                          struct span payload, uint64_t seed)
{
    size_t more_count = (payload.size + JOURNAL_MORE_SIZE - 1) / JOURNAL_MORE_SIZE;
    ensure(more_count <= JOURNAL_MORE_CELLS_MAX);
    record.code = (uint16_t)more_count;
    journal_record_put(&cells[0], &record, seed);
    for (uint32_t i = 0; i < more_count; i++) {
        size_t offset = (size_t)i * JOURNAL_MORE_SIZE;
        size_t left = payload.size - offset;
        struct span piece =
            span_of(payload.at + offset, left < JOURNAL_MORE_SIZE ? left : JOURNAL_MORE_SIZE);
        more_put(&cells[1 + i], i, piece, seed + 1 + i);
    }
    return 1 + (uint32_t)more_count;
}

bool journal_more_get(const struct journal_cell *cell, uint64_t seed, void *to, uint32_t *ret_size,
                      uint32_t *ret_index)
{
    struct more_cell more;
    memcpy(&more, cell, sizeof(more));
    if (more.kind != JOURNAL_KIND_MORE || !cell_is_whole(cell, more.checksum, seed) ||
        le16toh(more.size) > JOURNAL_MORE_SIZE) {
        return false;
    }
    memcpy(to, more.bytes, sizeof(more.bytes));
    *ret_size = le16toh(more.size);
    *ret_index = more.index;
    return true;
}

uint32_t journal_accepted_put(struct journal_cell *cells, const struct journal_accepted *accepted,
                              uint32_t group, uint64_t seed)
{
    ensure(accepted->directory.size > 0);
    ensure(accepted->directory.size <= JOURNAL_DIRECTORY_MAX);
    char payload[ACCEPTED_FIXED_SIZE + JOURNAL_DIRECTORY_MAX];
    struct writer writer = writer_of(payload, sizeof(payload));
    writer_put_u64(&writer, accepted->recipients_count);
    writer_put_u64(&writer, accepted->records_count);
    writer_put_u64(&writer, accepted->rejected_count);
    writer_put_u64(&writer, accepted->content_hash);
    writer_put_u64(&writer, accepted->content_size);
    writer_put_u64(&writer, (uint64_t)accepted->accepted_at.ns);
    writer_put_u16(&writer, (uint16_t)accepted->directory.size);
    writer_put(&writer, accepted->directory);
    ensure(!writer.is_full);
    struct journal_record record = {
        .kind = JOURNAL_KIND_ACCEPTED,
        .flags = accepted->is_damaged ? JOURNAL_FLAG_DAMAGED : 0,
        .batch = accepted->number,
        .at_s = wall_seconds(accepted->accepted_at),
        .group = group,
    };
    return journal_long_put(cells, record, writer_span(&writer), seed);
}

bool journal_accepted_get(const struct journal_record *record, struct span payload,
                          struct journal_accepted *ret_accepted)
{
    struct journal_accepted accepted = {.number = record->batch,
                                        .is_damaged = (record->flags & JOURNAL_FLAG_DAMAGED) != 0};
    struct cursor cursor = cursor_of(payload);
    uint64_t accepted_at;
    uint16_t directory_size;
    if (!cursor_take_u64(&cursor, &accepted.recipients_count) ||
        !cursor_take_u64(&cursor, &accepted.records_count) ||
        !cursor_take_u64(&cursor, &accepted.rejected_count) ||
        !cursor_take_u64(&cursor, &accepted.content_hash) ||
        !cursor_take_u64(&cursor, &accepted.content_size) ||
        !cursor_take_u64(&cursor, &accepted_at) || !cursor_take_u16(&cursor, &directory_size) ||
        !cursor_take_span(&cursor, directory_size, &accepted.directory)) {
        return false;
    }
    accepted.accepted_at.ns = (int64_t)accepted_at;
    /* Ordinals are 32 bits wide; batches are numbered from 1. */
    if (record->batch == 0 || cursor_left(&cursor) != 0 || directory_size == 0 ||
        directory_size > JOURNAL_DIRECTORY_MAX || accepted.records_count > UINT32_MAX ||
        accepted.recipients_count > accepted.records_count ||
        span_find(accepted.directory, '\0') != directory_size) {
        return false;
    }
    *ret_accepted = accepted;
    return true;
}

uint32_t journal_counts_put(struct journal_cell *cells, uint32_t batch,
                            const uint64_t counts[BATCH_COUNTS_COUNT], uint32_t group,
                            uint64_t seed)
{
    char payload[BATCH_COUNTS_COUNT * 8];
    struct writer writer = writer_of(payload, sizeof(payload));
    for (size_t i = 0; i < BATCH_COUNTS_COUNT; i++) {
        writer_put_u64(&writer, counts[i]);
    }
    struct journal_record record = {.kind = JOURNAL_KIND_COUNTS, .batch = batch, .group = group};
    return journal_long_put(cells, record, writer_span(&writer), seed);
}

bool journal_counts_get(struct span payload, uint64_t ret_counts[BATCH_COUNTS_COUNT])
{
    if (payload.size != BATCH_COUNTS_COUNT * 8) {
        return false;
    }
    struct cursor cursor = cursor_of(payload);
    for (size_t i = 0; i < BATCH_COUNTS_COUNT; i++) {
        ensure(cursor_take_u64(&cursor, &ret_counts[i]));
    }
    return true;
}

void journal_header_put(void *sector, const struct journal_header *header)
{
    memset(sector, 0, JOURNAL_SECTOR_SIZE);
    struct writer writer = writer_of(sector, HEADER_CHECKED_SIZE);
    writer_put(&writer, span_of(MAGIC, sizeof(MAGIC)));
    writer_put_u32(&writer, JOURNAL_VERSION);
    writer_put_u32(&writer, header->file);
    writer_put_u32(&writer, header->number);
    writer_put_u32(&writer, header->run);
    writer_put_u32(&writer, header->group);
    writer_put_u32(&writer, header->before_run);
    writer_put_u32(&writer, header->before_group);
    writer_put_u64(&writer, (uint64_t)header->created_at.ns);
    writer_put_u64(&writer, header->size);
    writer_put_u32(&writer, header->next_number);
    writer_put_u64(&writer, header->corrupt_records);
    ensure(!writer.is_full);
    struct writer tail = writer_of((char *)sector + HEADER_CHECKED_SIZE, 8);
    writer_put_u64(&tail, XXH3_64bits(sector, HEADER_CHECKED_SIZE));
}

/* Magic, version and checksum stand where they do in every version: so another one is told from a
 * broken header, and refused. */
int journal_header_get(struct span sector, struct journal_header *ret_header)
{
    struct cursor cursor = cursor_of(sector);
    struct span magic;
    uint32_t version;
    if (sector.size != JOURNAL_SECTOR_SIZE || !cursor_take_span(&cursor, sizeof(MAGIC), &magic) ||
        memcmp(magic.at, MAGIC, sizeof(MAGIC)) != 0 || !cursor_take_u32(&cursor, &version)) {
        return -EBADMSG;
    }
    struct cursor tail = cursor_of(span_of(sector.at + HEADER_CHECKED_SIZE, 8));
    struct journal_header header;
    uint64_t checksum, created_at;
    uint32_t file;
    bool is_read =
        cursor_take_u64(&tail, &checksum) && cursor_take_u32(&cursor, &file) &&
        cursor_take_u32(&cursor, &header.number) && cursor_take_u32(&cursor, &header.run) &&
        cursor_take_u32(&cursor, &header.group) && cursor_take_u32(&cursor, &header.before_run) &&
        cursor_take_u32(&cursor, &header.before_group) && cursor_take_u64(&cursor, &created_at) &&
        cursor_take_u64(&cursor, &header.size) && cursor_take_u32(&cursor, &header.next_number) &&
        cursor_take_u64(&cursor, &header.corrupt_records);
    ensure(is_read);
    if (checksum != XXH3_64bits(sector.at, HEADER_CHECKED_SIZE)) {
        return -EBADMSG;
    }
    if (version != JOURNAL_VERSION) {
        return -EPROTONOSUPPORT;
    }
    if (file < JOURNAL_FILE_SEGMENT || file > JOURNAL_FILE_RESULTS ||
        header.number > JOURNAL_NUMBER_MAX || header.next_number > JOURNAL_BATCH_NUMBER_MAX) {
        return -EBADMSG;
    }
    header.file = file;
    header.created_at.ns = (int64_t)created_at;
    *ret_header = header;
    return 0;
}

static const struct {
    struct span before, behind;
} NAMES[] = {
    [JOURNAL_FILE_SEGMENT] = {SPAN("journal-"), SPAN(".log")},
    [JOURNAL_FILE_CHECKPOINT] = {SPAN("checkpoint-"), SPAN("")},
};

enum { NAME_DIGITS = 8 };

void journal_name_put(char ret_name[JOURNAL_NAME_SIZE], enum journal_file file, uint32_t number)
{
    ensure(number <= JOURNAL_NUMBER_MAX);
    ensure(file == JOURNAL_FILE_SEGMENT || file == JOURNAL_FILE_CHECKPOINT);
    struct writer writer = writer_of(ret_name, JOURNAL_NAME_SIZE);
    writer_put(&writer, NAMES[file].before);
    writer_put_uint_padded(&writer, number, NAME_DIGITS);
    writer_put(&writer, NAMES[file].behind);
    writer_put_byte(&writer, '\0');
    ensure(!writer.is_full);
}

bool journal_name_get(const char *name, enum journal_file *ret_file, uint32_t *ret_number)
{
    for (enum journal_file file = JOURNAL_FILE_SEGMENT; file <= JOURNAL_FILE_CHECKPOINT; file++) {
        struct cursor cursor = cursor_of(span_of_text(name));
        struct span digits;
        uint64_t number;
        if (!cursor_take_text(&cursor, NAMES[file].before) ||
            !cursor_take_span(&cursor, NAME_DIGITS, &digits) ||
            !cursor_take_text(&cursor, NAMES[file].behind) || cursor_left(&cursor) != 0) {
            continue;
        }
        struct cursor number_cursor = cursor_of(digits);
        if (cursor_take_uint(&number_cursor, JOURNAL_NUMBER_MAX, &number) &&
            cursor_left(&number_cursor) == 0) {
            *ret_file = file;
            *ret_number = (uint32_t)number;
            return true;
        }
    }
    return false;
}
