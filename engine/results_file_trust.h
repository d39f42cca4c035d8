/* SPDX-License-Identifier: Apache-2.0 */
/*
 * results_file_trust: what of results.ndjson needs not be looked at behind a crash: stretches that
 * the index says are durable (queue/journal_results_index.h), all of whose lines are of recipients
 * who are settled.
 *
 * A block is believed when the next one begins where it ends. Its last page was written once more
 * for that one, and synced without an error; behind the last block lines may have been added to a
 * page that holds the end of it. None is believed of a batch that damage of the journal touches:
 * all of its file is read.
 *
 * For results_file.c. Memory: 32 bytes a block of 8 MiB, and 128 KiB while it is read.
 */
#pragma once

#include "engine/base/disk.h"
#include "queue/journal_replay.h"

struct results_stretch {
    uint64_t begin;
    uint64_t end;
    uint64_t at;     /* of its block in the index */
    bool is_good;    /* all of its lines are of settled recipients */
};

struct results_trust {
    struct results_stretch *rows; /* ascending */
    uint32_t count;
    uint32_t room;
    uint64_t end;    /* of all whole blocks */
    bool is_strange; /* somebody has put another file there, or cut it: the index goes */
};

/* Clears the bits of `missing` of those whose lines are trusted. 0 or -errno; what cannot be read
 * is not trusted. `fd`: of results.ndjson. */
int results_trust_read(struct results_trust *trust, struct disk *disk, int dir, int fd,
                       const struct journal_known_batch *known, uint64_t *missing)
    __attribute__((warn_unused_result));
void results_trust_free(struct results_trust *trust);
/* Moves the offset behind what is trusted; returns how many bytes from there are not, `most` at
 * most. NULL: nothing is trusted. */
size_t results_trust_next(const struct results_trust *trust, uint64_t *offset, size_t most);
/* Where the last stretch ends that any whole block speaks of. */
uint64_t results_trust_end(const struct results_trust *trust);
/* The file is to change: its index goes first, durably. 0 or -errno. */
int results_trust_drop(struct disk *disk, int dir) __attribute__((warn_unused_result));
