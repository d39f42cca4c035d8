/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_results_index.h"

#include <string.h>
#include <xxhash.h>

#include "engine/base/ensure.h"

/*
 * Little-endian: magic (4 bytes), lines (4), XXH3-64 of all behind it and of the lines' number (8),
 * begin (8), end (8), inode (8), ordinals (4 each).
 */
static const char MAGIC[4] = {'R', 'j', 'R', 'i'};

enum { CHECKED_AT = 16, COUNT_SIZE = 4, ORDINAL_SIZE = 4 };

static size_t bytes_size(uint32_t count)
{
    return JOURNAL_INDEX_HEADER_SIZE + (size_t)ORDINAL_SIZE * count;
}

static uint64_t checksum_of(const char *bytes, uint32_t count, uint32_t number)
{
    uint64_t seed = (uint64_t)number << 32 | count;
    return XXH3_64bits_withSeed(bytes + CHECKED_AT, bytes_size(count) - CHECKED_AT, seed);
}

void journal_index_ordinal_put(char *bytes, uint32_t at, uint32_t ordinal)
{
    ensure(at < JOURNAL_INDEX_LINES_MAX);
    struct writer writer = writer_of(bytes + bytes_size(at), ORDINAL_SIZE);
    writer_put_u32(&writer, ordinal);
}

uint32_t journal_index_ordinal_get(const char *bytes, uint32_t at)
{
    ensure(at < JOURNAL_INDEX_LINES_MAX);
    struct cursor cursor = cursor_of(span_of(bytes + bytes_size(at), ORDINAL_SIZE));
    uint32_t ordinal = 0;
    (void)cursor_take_u32(&cursor, &ordinal);
    return ordinal;
}

size_t journal_index_close(char *bytes, const struct journal_index_block *block, uint32_t number)
{
    ensure(block->count <= JOURNAL_INDEX_LINES_MAX);
    ensure(block->begin < block->end);
    struct writer writer = writer_of(bytes + CHECKED_AT, JOURNAL_INDEX_HEADER_SIZE - CHECKED_AT);
    writer_put_u64(&writer, block->begin);
    writer_put_u64(&writer, block->end);
    writer_put_u64(&writer, block->inode);
    struct writer head = writer_of(bytes, CHECKED_AT);
    writer_put(&head, span_of(MAGIC, sizeof(MAGIC)));
    writer_put_u32(&head, block->count);
    writer_put_u64(&head, checksum_of(bytes, block->count, number));
    ensure(!writer.is_full && !head.is_full);
    size_t size = bytes_size(block->count);
    size_t padded = (size + JOURNAL_INDEX_SECTOR - 1) / JOURNAL_INDEX_SECTOR * JOURNAL_INDEX_SECTOR;
    memset(bytes + size, 0, padded - size);
    return padded;
}

size_t journal_index_size(struct span header)
{
    struct cursor cursor = cursor_of(header);
    uint32_t count;
    if (!cursor_take_text(&cursor, span_of(MAGIC, sizeof(MAGIC))) ||
        !cursor_take_u32(&cursor, &count) || count > JOURNAL_INDEX_LINES_MAX) {
        return 0;
    }
    return bytes_size(count);
}

bool journal_index_get(struct span block, uint32_t number, struct journal_index_block *ret_block)
{
    struct cursor cursor = cursor_of(block);
    struct journal_index_block got;
    uint64_t checksum;
    bool is_whole = cursor_take_text(&cursor, span_of(MAGIC, sizeof(MAGIC))) &&
                    cursor_take_u32(&cursor, &got.count) && got.count <= JOURNAL_INDEX_LINES_MAX &&
                    block.size == bytes_size(got.count) && cursor_take_u64(&cursor, &checksum) &&
                    cursor_take_u64(&cursor, &got.begin) && cursor_take_u64(&cursor, &got.end) &&
                    cursor_take_u64(&cursor, &got.inode);
    if (!is_whole || checksum != checksum_of(block.at, got.count, number) || got.begin >= got.end) {
        return false;
    }
    *ret_block = got;
    return true;
}
