/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment of the journal: the input is its cells without their checksums, which are made right
 * here, so that replay believes them. Bits of the first byte: 1 makes it a checkpoint, 2 breaks its
 * header, 4: its next batch number is the highest. An empty segment comes behind it. Whatever they
 * say, replay ends, and what it tells of a batch agrees with itself.
 */
#include <errno.h>
#include <xxhash.h>

#include "queue/journal_record.h"
#include "queue/journal_replay.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/queue/crash_disk.h"

enum { CELLS_MAX = 2048, CONTENT_SIZE = JOURNAL_CELL_SIZE - sizeof(uint32_t) };

static bool bit_is_set(const uint64_t *bits, uint64_t index)
{
    return (bits[index / 64] >> (index % 64) & 1) != 0;
}

static void check_batch(const struct journal_known_batch *batch)
{
    uint64_t settled = 0;
    ensure(batch->directory[0] != '\0' && batch->number > 0);
    ensure(batch->recipients_count <= batch->records_count);
    for (uint64_t i = 0; i < (batch->records_count + 63) / 64; i++) {
        settled += (uint64_t)__builtin_popcountll(batch->settled[i]);
    }
    ensure(batch->is_damaged || settled <= batch->recipients_count);
    for (uint32_t i = 0; i < batch->deferrals_count; i++) {
        ensure(batch->deferrals[i].ordinal < batch->records_count);
        ensure(!bit_is_set(batch->settled, batch->deferrals[i].ordinal));
        ensure(i == 0 || batch->deferrals[i - 1].ordinal < batch->deferrals[i].ordinal);
    }
}

static size_t make_file(struct cursor *cursor, enum journal_file file, uint32_t next_number,
                        char *bytes)
{
    size_t size = JOURNAL_SECTOR_SIZE;
    struct span content;
    uint64_t index = JOURNAL_SECTOR_CELLS;
    for (; index < CELLS_MAX && cursor_take_span(cursor, CONTENT_SIZE, &content); index++) {
        uint64_t seed = journal_seed(file, 1) + index;
        uint32_t checksum = (uint32_t)XXH3_64bits_withSeed(content.at, content.size, seed);
        memcpy(bytes + size, &checksum, sizeof(checksum));
        memcpy(bytes + size + sizeof(checksum), content.at, content.size);
        size += JOURNAL_CELL_SIZE;
    }
    size = (size + JOURNAL_SECTOR_SIZE - 1) / JOURNAL_SECTOR_SIZE * JOURNAL_SECTOR_SIZE;
    const struct journal_header header = {
        .file = file, .number = 1, .run = 1, .size = size, .next_number = next_number};
    journal_header_put(bytes, &header);
    return size;
}

static void put_behind(struct crash_disk *disk)
{
    char sector[JOURNAL_SECTOR_SIZE];
    const struct journal_header header = {
        .file = JOURNAL_FILE_SEGMENT, .number = 2, .run = 1, .size = sizeof(sector)};
    journal_header_put(sector, &header);
    char path[64] = "journal/";
    journal_name_put(path + strlen(path), JOURNAL_FILE_SEGMENT, 2);
    crash_disk_put(disk, path, span_of(sector, sizeof(sector)));
}

void fuzz_one(struct span input)
{
    static struct crash_disk disk;
    static char bytes[CELLS_MAX * JOURNAL_CELL_SIZE + JOURNAL_SECTOR_SIZE];
    struct cursor cursor = cursor_of(input);
    unsigned form = fuzz_take(&cursor);
    enum journal_file file = (form & 1) != 0 ? JOURNAL_FILE_CHECKPOINT : JOURNAL_FILE_SEGMENT;
    memset(bytes, 0, sizeof(bytes));
    size_t size = make_file(&cursor, file, (form & 4) != 0 ? UINT32_MAX : 1000, bytes);
    bytes[0] ^= (char)(form & 2);
    char path[64] = "journal/";
    journal_name_put(path + strlen(path), file, 1);
    crash_disk_init(&disk, 1);
    ensure(disk_mkdir(&disk.disk, DISK_ROOT, "journal") == 0);
    crash_disk_put(&disk, path, span_of(bytes, size));
    put_behind(&disk);
    struct journal_known known = {0};
    const struct journal_place end = {.run = 1, .group = form >> 4};
    if (journal_replay(&disk.disk, "journal", (form & 8) != 0 ? &end : NULL, &known) == 0) {
        ensure(known.next_number > 0 && known.next_number < UINT32_MAX);
        for (uint32_t i = 0; i < known.batches_count; i++) {
            check_batch(&known.batches[i]);
            ensure(journal_known_find(&known, known.batches[i].directory) != NULL);
        }
    }
    journal_known_free(&known);
    crash_disk_deinit(&disk);
}
