/* SPDX-License-Identifier: Apache-2.0 */
/*
 * results_file: results.ndjson of a batch as the engine before has left it (docs/JOURNAL.md 8).
 *
 * Lines lay in buffers or in the page cache when that engine ended, so the file may end in the
 * middle of a line, hold pages of zeros, or lines of outcomes whose records were lost.
 * results_file_read takes out all that is no whole line of a recipient who is settled, and makes
 * the rest durable: written again as it was read, since its pages may have been called clean by a
 * sync that failed. An engine that could still say so has given the file its second name.
 *
 * Intake's, at a start and where a batch is looked at again. Blocks on the disk; memory 512 KiB
 * while it runs.
 */
#pragma once

#include "engine/base/disk.h"
#include "queue/journal_replay.h"

/* Clears the bits of `missing` (one an ordinal) of those who have a line in the directory `dir`. No
 * file is an empty one. 0 or -errno: what the file holds is not known, and `missing` neither. */
int results_file_read(struct disk *disk, int dir, const struct journal_known_batch *known,
                      uint64_t *missing) __attribute__((warn_unused_result));
/* The file cannot be read, and nobody waits for it: it becomes results.ndjson.unread. 0 or -errno.
 */
int results_file_set_aside(struct disk *disk, int dir) __attribute__((warn_unused_result));
/* A sync of the file has failed: it gets its second name, which lives as long as the pages that are
 * in doubt, and needs no sync. */
void results_file_doubt(struct disk *disk, int dir);
