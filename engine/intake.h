/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intake: the intake actor: spool -> claimed -> scanned -> accepted -> recipients with the workers;
 * read-ahead; completion.
 *
 * Owns the spool directory, the batch table, the domain table's writing side, the recipients' slab,
 * the read-ahead blocks.
 *
 * What comes in                                  what goes out
 *   watch of in/new, in/ctl, pickup
 *   accepts     journal_accept back              journal_accept
 *                                                recipients in chains to the workers' inboxes,
 *                                                dealt out in turn in chunks of INTAKE_CHUNK
 *   settled     batches that are done            journal_end
 *   ends        journal_end back
 *   loads       requests for bytes               the same loads, filled
 *   blocks      bytes given back
 *   recipients  settled recipients given back
 *   words       room for what people must be told   the same, filled
 *
 * Steps are bounded (INTAKE_RECORDS_STEP_MAX records, INTAKE_LOADS_STEP_MAX loads); several batches
 * are scanned in turn, so that a small one does not wait for a huge one. Acceptance of a batch is
 * all or nothing: its recipients go to the workers only after its accept record is durable.
 *
 * When full: no free batch slot, descriptor, recipient entry or domain: intake pauses that scan
 * (claims nothing more) until some come back; below free_space_min it claims nothing; read-ahead
 * over its budget: loads wait. All told in progress.json and in the counters.
 */
#pragma once

#include <stdint.h>

#include "engine/base/actor.h"
#include "engine/base/disk.h"
#include "engine/engine.h"
#include "engine/load.h"
#include "queue/journal_replay.h"

enum { INTAKE_CHUNK = 64, INTAKE_RECORDS_STEP_MAX = 4096, INTAKE_LOADS_STEP_MAX = 64 };

struct intake_stats {
    struct stat_counter batches_claimed, batches_accepted, batches_done, batches_failed;
    struct stat_counter batches_held; /* of those that failed */
    struct stat_counter recipients_accepted, recipients_rejected, recipients_returned;
    struct stat_counter loads, load_bytes, loads_waiting;
    struct stat_counter scan_records, scan_ns; /* time spent scanning: records per second of scan */
    struct stat_counter is_short_of_space;
    /* Batches that wait because what their results.ndjson holds cannot be read, or completed. */
    struct stat_counter results_unread;
};

enum { INTAKE_WORDS_SIZE = 2048 };

/* What people must be told of the spool: control's, which lends it; intake's until there is
 * something to tell. */
struct intake_words {
    struct inbox_node node;
    struct inbox *reply_to;
    size_t size;
    char text[INTAKE_WORDS_SIZE];
};

struct intake {
    struct actor actor; /* first */
    struct inbox accepts, settled, ends, loads, blocks, recipients, words;
    struct intake_stats stats;
    struct intake_core *core; /* its own */
};

struct intake_config {
    struct engine *engine;
    struct disk *disk; /* its own */
    /* Descriptors that batches under way may have open; nothing more is claimed beyond. 0 = any
     * number. */
    uint32_t fds_max;
};

/* Opens and locks the spool. 0; -EWOULDBLOCK when another engine has it; -errno. `ret_errors`: for
 * people. */
int intake_init(struct intake *intake, const struct intake_config *config, bool with_event_fd,
                struct writer *ret_errors) __attribute__((warn_unused_result));
/*
 * What the journal knows of earlier starts (after journal_replay, before the first step): the
 * batches in active/ are taken up again from it in the first steps: those with an accept record go
 * on where they were, those without one are scanned anew. The tables of `known` go to intake; the
 * caller's struct is left empty. After an engine that did not stop in order, whoever may have been
 * in flight is marked (LAW 6), and results.ndjson is completed. 0 or -ENOMEM.
 */
int intake_recover(struct intake *intake, struct journal_known *known)
    __attribute__((warn_unused_result));
/* What intake_recover found broken beside the journal, for people: engine/damage.h. */
void intake_tell_damage(const struct intake *intake, struct writer *words);
/* Where the journal ended, as an engine that stopped in order has left word; NULL: it is not known.
 * For journal_replay. */
const struct journal_place *intake_journal_end(const struct intake *intake);
/* The end of an orderly stop: all workers are drained, the journal has written all. 0 or -errno;
 * without the mark the next start takes this one for a crash. */
int intake_mark_clean(struct intake *intake) __attribute__((warn_unused_result));
void intake_deinit(struct intake *intake); /* NULL-safe, half-built safe */
/* True when nothing is claimed, scanned, loading or active. */
bool intake_is_idle(const struct intake *intake);
