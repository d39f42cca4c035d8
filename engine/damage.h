/* SPDX-License-Identifier: Apache-2.0 */
/*
 * damage: what replay found broken in the journal, for people: which file, where, which batch, who
 * of it, and what became of them (docs/JOURNAL.md 7).
 *
 * At a start, once: lines for standard error, and a line `Damage` each for the event log
 * (docs/formats/LOG.md). Nothing fails: a line that cannot be written is counted by the journal.
 */
#pragma once

#include "engine/engine.h"
#include "queue/journal_replay.h"

enum { DAMAGE_TEXT_SIZE = 64 * 1024, DAMAGE_BATCHES_MAX = 64 };

/* `words`: room for DAMAGE_TEXT_SIZE; nothing was damaged: nothing is put. Behind journal_init, in
 * front of the journal's first step. */
void damage_tell(const struct engine *engine, const struct journal_known *known,
                 struct writer *words);
/* So many cells of results-missing are broken. */
void damage_tell_kept(const struct engine *engine, uint64_t count, struct writer *words);
/* A file of ids could not be read, or so many bytes of it (0: all). `file`: "": journal/ itself. */
void damage_tell_ids(const struct engine *engine, const char *file, int error, uint64_t lost_size,
                     struct writer *words);
/* So many of the batch have no line in results.ndjson, and none can be made. */
void damage_tell_lines(const struct engine *engine, const struct journal_known_batch *batch,
                       uint64_t count, uint32_t ordinal_first, uint32_t ordinal_last,
                       struct writer *words);
