/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_damage: which parts of the journal's files are not what was written, and whom they speak
 * of, as replay found it (docs/JOURNAL.md 7).
 *
 * A list of JOURNAL_DAMAGES_MAX rows; pieces that lie side by side and say the same are one row, so
 * a hole in a file is one, whatever its size. Beyond the last row `left_count` counts.
 * Owner: whoever holds the struct. No allocation.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { JOURNAL_DAMAGES_MAX = 64 };

enum journal_damage_kind {
    JOURNAL_DAMAGE_HEADER,     /* the file's header: its records are read without it */
    JOURNAL_DAMAGE_RECORDS,    /* `count` records are broken */
    JOURNAL_DAMAGE_GROUPS,     /* `count` groups are not there */
    JOURNAL_DAMAGE_FILES,      /* `count` segments from `number` on are not there */
    JOURNAL_DAMAGE_SIZE,       /* the file is shorter than it was */
    JOURNAL_DAMAGE_CHECKPOINT, /* not whole, and the only one: believed as far as it goes */
    JOURNAL_DAMAGE_PASSED,     /* a checkpoint is not whole: an older one, without loss */
    JOURNAL_DAMAGE_STRANGE,    /* `count` whole records, of a batch that is not known, or twice */
    JOURNAL_DAMAGE_SUMS,       /* the batch's records do not add up */
};
enum { JOURNAL_DAMAGE_KINDS_COUNT = JOURNAL_DAMAGE_SUMS + 1 };

struct journal_damage {
    enum journal_damage_kind kind;
    uint8_t file;    /* enum journal_file; 0: no file in particular */
    uint32_t number; /* of it */
    uint64_t offset; /* bytes in it ... */
    uint64_t size;   /* ... 0: no place in particular */
    uint64_t count;
    uint32_t batch; /* number, when it can be told for sure; 0: not known, it may be any */
    uint32_t ordinal_first;
    uint32_t ordinal_last; /* smaller than the first: not known, it may be any of the batch */
};

struct journal_damages {
    struct journal_damage rows[JOURNAL_DAMAGES_MAX];
    uint32_t count;
    uint64_t left_count;
};

void journal_damages_put(struct journal_damages *damages, const struct journal_damage *damage);
