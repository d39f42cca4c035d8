/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/results_file_trust.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/bitmap.h"
#include "queue/journal.h"
#include "queue/journal_results_index.h"

static const char INDEX_NAME[] = JOURNAL_RESULTS_INDEX_NAME;

/* One reading of the index. */
struct index {
    struct disk *disk;
    int fd;
    const struct journal_known_batch *known;
    char *bytes; /* JOURNAL_INDEX_SIZE_MAX */
};

/* True: a whole block stands there; its size with what is behind it to the end of the sector. */
static bool block_read(const struct index *index, uint64_t at,
                       struct journal_index_block *ret_block, size_t *ret_size)
{
    int64_t got = disk_read(index->disk, index->fd, index->bytes, JOURNAL_INDEX_SIZE_MAX, at);
    if (got < JOURNAL_INDEX_HEADER_SIZE) {
        return false;
    }
    size_t size = journal_index_size(span_of(index->bytes, JOURNAL_INDEX_HEADER_SIZE));
    *ret_size = (size + JOURNAL_INDEX_SECTOR - 1) / JOURNAL_INDEX_SECTOR * JOURNAL_INDEX_SECTOR;
    return size > 0 && size <= (size_t)got &&
           journal_index_get(span_of(index->bytes, size), index->known->number, ret_block);
}

static bool is_settled(const struct index *index, uint32_t count)
{
    bool is_good = true;
    for (uint32_t i = 0; i < count && is_good; i++) {
        uint32_t ordinal = journal_index_ordinal_get(index->bytes, i);
        is_good =
            ordinal < index->known->records_count && bitmap_has(index->known->settled, ordinal);
    }
    return is_good;
}

static int row_add(struct results_trust *trust, const struct results_stretch *stretch)
{
    if (trust->count == trust->room) {
        uint32_t room = trust->room == 0 ? 64 : 2 * trust->room;
        struct results_stretch *rows = realloc(trust->rows, room * sizeof(*rows));
        if (rows == NULL) {
            return -ENOMEM;
        }
        trust->rows = rows;
        trust->room = room;
    }
    trust->rows[trust->count++] = *stretch;
    return 0;
}

/* All whole blocks. Where one was torn the next begins on a later sector. */
static int rows_read(struct results_trust *trust, const struct index *index,
                     const struct disk_stat *index_stat, const struct disk_stat *stat)
{
    uint64_t at = 0;
    int result = 0;
    while (at < index_stat->size && result == 0) {
        struct journal_index_block block;
        size_t size = 0;
        if (!block_read(index, at, &block, &size)) {
            at += JOURNAL_INDEX_SECTOR;
            continue;
        }
        bool is_other = block.inode != stat->inode || block.end > stat->size;
        trust->is_strange |= is_other || block.begin < trust->end;
        trust->end = block.end > trust->end ? block.end : trust->end;
        result =
            row_add(trust, &(struct results_stretch){.begin = block.begin,
                                                     .end = block.end,
                                                     .at = at,
                                                     .is_good = is_settled(index, block.count)});
        at += size;
    }
    return result;
}

/* Leaves the rows that are trusted. */
static void rows_judge(struct results_trust *trust, const struct index *index, uint64_t *missing)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i + 1 < trust->count; i++) {
        struct results_stretch *row = &trust->rows[i];
        const struct results_stretch *next = &trust->rows[i + 1];
        struct journal_index_block block;
        size_t size;
        bool is_trusted = row->is_good && next->is_good && next->begin == row->end &&
                          block_read(index, row->at, &block, &size) && block.begin == row->begin &&
                          block.end == row->end && is_settled(index, block.count);
        for (uint32_t n = 0; is_trusted && n < block.count; n++) {
            uint32_t ordinal = journal_index_ordinal_get(index->bytes, n);
            missing[ordinal / 64] &= ~(UINT64_C(1) << (ordinal % 64));
        }
        if (is_trusted) {
            trust->rows[kept++] = *row;
        }
    }
    trust->count = kept;
}

static int index_read(struct results_trust *trust, struct index *index, int fd, uint64_t *missing)
{
    struct disk_stat stat, index_stat;
    if (disk_stat_fd(index->disk, fd, &stat) != 0 ||
        disk_stat_fd(index->disk, index->fd, &index_stat) != 0) {
        return 0;
    }
    index->bytes = malloc(JOURNAL_INDEX_SIZE_MAX);
    int result = index->bytes == NULL ? -ENOMEM : rows_read(trust, index, &index_stat, &stat);
    if (result == 0 && !trust->is_strange) {
        rows_judge(trust, index, missing);
    } else {
        trust->count = 0;
    }
    free(index->bytes);
    return result;
}

int results_trust_drop(struct disk *disk, int dir)
{
    int result = disk_unlink(disk, dir, INDEX_NAME);
    if (result == -ENOENT) {
        return 0;
    }
    return result == 0 ? disk_sync(disk, dir) : result;
}

int results_trust_read(struct results_trust *trust, struct disk *disk, int dir, int fd,
                       const struct journal_known_batch *known, uint64_t *missing)
{
    *trust = (struct results_trust){.rows = NULL};
    struct index index = {.disk = disk, .known = known};
    if (known->is_damaged) {
        trust->end = UINT64_MAX; /* what it says is not known */
        return 0;
    }
    index.fd = disk_open(disk, dir, INDEX_NAME, DISK_READONLY);
    if (index.fd < 0) {
        trust->end = index.fd == -ENOENT ? 0 : UINT64_MAX;
        return 0;
    }
    int result = index_read(trust, &index, fd, missing);
    disk_close(disk, index.fd);
    return result == 0 && trust->is_strange ? results_trust_drop(disk, dir) : result;
}

void results_trust_free(struct results_trust *trust)
{
    free(trust->rows);
    *trust = (struct results_trust){.rows = NULL};
}

size_t results_trust_next(const struct results_trust *trust, uint64_t *offset, size_t most)
{
    uint32_t low = 0;
    uint32_t high = trust == NULL ? 0 : trust->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (trust->rows[middle].end <= *offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    for (; trust != NULL && low < trust->count && trust->rows[low].begin == *offset; low++) {
        *offset = trust->rows[low].end;
    }
    if (trust == NULL || low == trust->count) {
        return most;
    }
    ensure(trust->rows[low].begin > *offset);
    uint64_t left = trust->rows[low].begin - *offset;
    return left < most ? (size_t)left : most;
}

uint64_t results_trust_end(const struct results_trust *trust)
{
    return trust->end;
}
