/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_ids: the ids of the batches that were accepted in the last 30 days, so that one that is
 * submitted again (a script that ran twice, a retry after a lost answer) is not sent again.
 *
 * Owner: intake. In memory a hash of 16 bytes an id; on disk a line an id, "ID SECONDS =SUM", in
 * journal/ids-YYYY-MM-DD (UTC). SUM is the lower half of the XXH3 (64 bits) of what stands before
 * " =", in 8 hexadecimal digits; earlier engines wrote lines without it, which still count. An
 * engine that finds a file of its day ends the last line of it, whole or cut, with " (cut)". Cut
 * lines, and those with zeros in them, are what a crash leaves of what was not synced: no damage.
 *
 * A clock that is far ahead for a moment must not make old what is young: an id is old when the
 * wall clock says so and the engine's own seconds do (spool_ids_tidy). A file is removed when both
 * say so and the newest file is 30 days younger, too, and not in the first hour of an engine.
 *
 * An id counts from spool_ids_add; it is durable with the next spool_ids_sync, which must come
 * before the journal forgets the batch: until then the batch itself is found at a start, and its id
 * added again. What was read at a start may stand in the page cache alone: such an id is known, and
 * written anew, with its old time, when it is added.
 *
 * Bound: SPOOL_IDS_MAX are kept for sure, and up to half as many more, in a table of at most
 * 32 MiB; ids beyond are not kept: counted (odd), and such a batch may be sent again; so are those
 * for whom no memory can be had, once the table is full to the last slots. A full table is looked
 * through for old ids once a minute.
 * Lines are written when they are added, and stay in memory as well until a sync has made them
 * durable: while the disk refuses, one a batch. After a failed sync all are written again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "queue/spool.h"

enum { SPOOL_IDS_MAX = 1 << 20, SPOOL_IDS_AGE_S = 30 * 86400, SPOOL_IDS_NAME_SIZE = 32 };

struct spool_ids;

/* Reads what there is; NULL only when there is no memory for all of it. `spool` stays the caller's;
 * `secret` is mixed into the hashes. */
struct spool_ids *spool_ids_create(struct spool *spool, uint64_t secret, struct wall_time now);
void spool_ids_destroy(struct spool_ids *ids); /* NULL-safe */
/* What of the files could not be read: ids that stood there are not known, and their batches would
 * be sent again when they are submitted again. All around it was read. */
struct spool_ids_damage {
    char file[SPOOL_IDS_NAME_SIZE]; /* in journal/; "": journal/ could not be listed */
    int error; /* -errno; -EBADMSG: it could be read, and lines in it are not what was written */
    uint64_t lost_size; /* bytes; 0: all of the file */
};
uint32_t spool_ids_damages_count(const struct spool_ids *ids);
const struct spool_ids_damage *spool_ids_damage(const struct spool_ids *ids, uint32_t index);
/* Whether the id was added in the last 30 days, and when. */
bool spool_ids_find(const struct spool_ids *ids, const char *id, struct wall_time now,
                    struct wall_time *ret_at);
/* Idempotent. Of a batch that was accepted: by this engine, or by one before it. */
void spool_ids_add(struct spool_ids *ids, const char *id, struct wall_time now);
/* Now and then: `own_s` are the engine's own seconds (engine/steady.h). Once an hour, behind the
 * first, the files of ids that are old are removed. Never called: age counts by `now` alone, and
 * all files stay. */
void spool_ids_tidy(struct spool_ids *ids, struct wall_time now, uint32_t own_s);
/* 0: what was added is on stable storage; -errno: not yet, ask again. Costs nothing when nothing
 * was added. */
int spool_ids_sync(struct spool_ids *ids, struct wall_time now) __attribute__((warn_unused_result));
