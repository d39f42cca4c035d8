/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_replay: what the journal says after a restart, per batch that has not ended. Runs at
 * start, single-threaded, before journal_init.
 *
 * Reads the newest whole checkpoint and the segments behind it, record by record, checksums
 * checked. A torn tail (the end of the last segment that was written) is cut off silently; a broken
 * record before valid ones is corruption: `corrupt_records` counts, `damages` tells where, and the
 * record's batch is marked, or all that lived then when it cannot be told. Result: for each live
 * batch its accept record, a bitmap of settled ordinals, counts by outcome, and for deferred
 * ordinals the attempts so far, the due time and the flags. Memory: 1 bit a recipient and 12 bytes
 * a deferred recipient, while intake recovers.
 */
#pragma once

#include <stdint.h>

#include "engine/base/disk.h"
#include "queue/journal.h"
#include "queue/journal_damage.h"

struct journal_deferral {
    uint32_t ordinal;
    uint32_t due_s;
    uint16_t attempts_count;
    uint16_t is_ambiguous; /* this attempt or an earlier one ended so (LAW 6) */
};

struct journal_known_batch {
    uint32_t number;
    bool is_damaged; /* records of it may be lost to corruption: some may be sent again */
    char directory[MANIFEST_ID_MAX + 32];
    uint64_t recipients_count;
    uint64_t records_count;
    uint64_t rejected_count;
    uint64_t content_hash;
    uint64_t content_size;
    struct wall_time accepted_at;
    uint64_t counts[BATCH_COUNTS_COUNT];
    uint64_t *settled;                  /* bitmap over ordinals 0..records_count-1 */
    struct journal_deferral *deferrals; /* the latest of each unsettled ordinal, ascending */
    uint32_t deferrals_count;
};

struct journal_known {
    struct journal_known_batch *batches; /* ascending by directory */
    uint32_t batches_count;
    uint32_t next_number;           /* first batch number never used; numbers begin with 1 */
    uint32_t latest_s;              /* wall: the latest time of a record */
    uint64_t records_count;         /* that were read */
    uint64_t corrupt_records;       /* ever found in this journal */
    struct journal_damages damages; /* in the files that are there now */
    uint32_t next_segment;
    uint32_t first_segment;     /* older ones are stood for by the checkpoint that was believed */
    struct journal_place ended; /* as it was given; run 0: it was not */
    uint32_t last_run; /* of the engine, and the last group that it wrote: the journal's own */
    uint32_t last_group;
};

/* `end`: where the journal of an engine that stopped in order said that it ended: nothing of that
 * run can be torn, so what is broken or missing is damage; NULL: not known. 0 or -errno;
 * -EPROTONOSUPPORT: written by another version. Writes nothing but the last group over itself: what
 * is believed must be on stable storage. */
int journal_replay(struct disk *disk, const char *directory, const struct journal_place *end,
                   struct journal_known *ret_known) __attribute__((warn_unused_result));
/* Good as long as `batches` is not reordered. */
struct journal_known_batch *journal_known_find(struct journal_known *known, const char *directory);
void journal_known_free(struct journal_known *known); /* NULL-safe */
