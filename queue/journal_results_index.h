/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_results_index: the bytes of `.results.index`, which stands beside results.ndjson of a
 * large batch: blocks, each of which says that a stretch of that file is on stable storage, and of
 * whom its lines speak (docs/JOURNAL.md 8). Without it a start behind a crash would read the whole
 * file, and write it again.
 *
 * A block begins on a sector and is written behind the sync of its stretch, so what it says is true
 * whether the block itself is durable or not. It proves itself by its checksum, seeded with the
 * batch's number. Nothing is lost with it but time.
 *
 * Functions over bytes; no state, no errors but "this is no block".
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"

enum {
    JOURNAL_INDEX_SECTOR = 512,
    JOURNAL_INDEX_HEADER_SIZE = 40,
    JOURNAL_INDEX_LINES_MAX = 32768,
    JOURNAL_INDEX_SIZE_MAX =
        (JOURNAL_INDEX_HEADER_SIZE + 4 * JOURNAL_INDEX_LINES_MAX + JOURNAL_INDEX_SECTOR - 1) /
        JOURNAL_INDEX_SECTOR * JOURNAL_INDEX_SECTOR,
};

struct journal_index_block {
    uint64_t begin; /* of the stretch, in results.ndjson */
    uint64_t end;
    uint64_t inode; /* of results.ndjson: another file of that name is not meant */
    uint32_t count; /* lines */
};

/* The ordinals lie in `bytes` while the block grows. */
void journal_index_ordinal_put(char *bytes, uint32_t at, uint32_t ordinal);
uint32_t journal_index_ordinal_get(const char *bytes, uint32_t at);
/* The header in front of them, and zeros to the end of the sector; returns the block's size. */
size_t journal_index_close(char *bytes, const struct journal_index_block *block, uint32_t number);
/* The size of the block that begins here, by the first JOURNAL_INDEX_HEADER_SIZE bytes; 0: none
 * does. */
size_t journal_index_size(struct span header);
/* False: it is not whole, or of another batch. `block` has the size that its header says. */
bool journal_index_get(struct span block, uint32_t number, struct journal_index_block *ret_block);
