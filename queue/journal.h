/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal: the journal actor: what changed, on stable storage, in groups; and the event log.
 *
 * Promise (LAW 2, 4; DESIGN 5): an entry comes back to its sender only after its record is on
 * stable storage. Records are fixed-size and checksummed (journal_record.h), appended in groups,
 * one fdatasync a group: an idle journal syncs at once; while a sync is under way the next group
 * gathers. After a write or sync failed nothing is given back any more and `has_failed` is set: the
 * engine stops and recovers at its next start.
 *
 * What comes in (one inbox a kind; any actor pushes):
 *   accepts   struct journal_accept from intake: a batch is accepted when it comes back (result 0)
 *   entries   struct journal_entry from workers: settled, deferred; with a finished line of text
 *             for the event log
 *   ends      struct journal_end from intake: the batch's folder has left active/: its records are
 *             of no more use
 * What goes out: the same objects, to the inbox each names; and a batch's node to intake's inbox
 * when all its recipients are settled, durably, and its results are written. A batch without
 * recipients, or recovered with all of them settled, comes that way at once.
 *
 * A recovered batch (known from replay) is accepted again with is_recovered and the settled bitmap;
 * batch->counts then holds what replay counted, before the push. A batch that replay knows but
 * whose folder is gone is ended without having been accepted again.
 *
 * What is a bug: a record for a batch that was not accepted or has ended, an ordinal beyond its
 * records, a second settle of an ordinal or a deferral after it (LAW 2), an end before the batch's
 * node was sent.
 *
 * The event log (one line an event, plain text, rotated by size) and the results.ndjson of each
 * batch are derived: appended before the group's sync, and not synced, but for results at the
 * batch's end and before a checkpoint; those are completed after a crash by intake. A line of the
 * log that cannot be written is counted (log_failures) and stops nothing. Lines of results are
 * never given up: while they cannot be written (results_waiting batches; results_error says why)
 * they are tried again each second, their batch is not handed back, and no checkpoint is written.
 *
 * Bounds: entries and accepts are bounded by their senders' slabs; one group <= JOURNAL_GROUP_MAX
 * records; segments of segment_size bytes. When more than segments_max segments are live (or as
 * many as the last checkpoint was long, if that is more) a checkpoint is written (one
 * settled-bitmap and the deferrals of each live batch) and older segments are removed. When four
 * times as many are live the journal takes no more until the checkpoint is done, and fails when
 * none can be written; when memory is short it waits for it. A full disk is a failure when the next
 * segment is needed and is not there.
 * Lines of results wait in 64 MiB of buffers. A batch whose lines cannot be written is held when 4
 * MiB of them wait, or when half of the buffers are taken: batch->results_held tells the workers to
 * send nothing more of it. When all are full all the same the journal takes no more entries until
 * some can be written, and so no more is sent. At most 512 files of results are open: others wait
 * until one of these is synced and closed.
 *
 * On disk: <dir>/journal-NNNNNNNN.log, <dir>/checkpoint-NNNNNNNN; docs/JOURNAL.md.
 */
#pragma once

#include <stdint.h>

#include "engine/base/actor.h"
#include "engine/base/clock.h"
#include "engine/base/disk.h"
#include "engine/base/inbox.h"
#include "engine/base/stat.h"
#include "queue/batch.h"

enum { JOURNAL_GROUP_MAX = 8192, JOURNAL_LINE_MAX = 2800 };

enum journal_what {
    JOURNAL_ACCEPTED, /* a batch: counts, time */
    JOURNAL_DELIVERED,
    JOURNAL_BOUNCED,
    JOURNAL_EXPIRED,
    JOURNAL_CANCELLED,
    JOURNAL_DEFERRED,
    JOURNAL_ENDED, /* a batch has left the spool */
};
enum { JOURNAL_WHATS_COUNT = JOURNAL_ENDED + 1 };

/* A batch is to be accepted. Owner: intake until pushed, and again when it comes back. */
struct journal_accept {
    struct inbox_node node;
    struct inbox *reply_to;
    struct batch *batch;   /* number, directory, counts are read; kept until the batch ends */
    uint64_t content_hash; /* of all the batch's files: recovery refuses other bytes */
    uint64_t content_size;
    bool is_recovered;       /* known from replay: no new record is written */
    const uint64_t *settled; /* with is_recovered: bitmap by ordinal, copied; NULL: none */
    int result;              /* 0 or -errno */
};

/* One recipient's attempt has an outcome. Owner: the worker until pushed, and again when it comes
 * back. */
struct journal_entry {
    struct inbox_node node;
    struct inbox *reply_to;
    struct batch *batch;
    uint32_t ordinal;
    uint8_t what;         /* enum journal_what */
    uint8_t is_ambiguous; /* end of data was sent, no answer read */
    uint8_t is_possible_duplicate;
    uint8_t is_result; /* the line goes to results.ndjson as well */
    uint16_t code;     /* SMTP reply code, 0 = none */
    uint16_t attempts_count;
    uint32_t at_s;               /* wall seconds */
    uint32_t due_s;              /* of DEFERRED */
    void *user;                  /* the worker's */
    uint16_t line_size;          /* 0: nothing to log */
    char line[JOURNAL_LINE_MAX]; /* one JSON object and LF */
};

struct journal_end {
    struct inbox_node node;
    struct inbox *reply_to;
    struct batch *batch;
};

struct journal_known;

struct journal_config {
    struct disk *disk; /* its own; made with the waker of journal->actor */
    const struct clock *clock;
    const char *directory;      /* of journal and checkpoints; exists */
    const char *active;         /* <active>/<batch->directory>/results.ndjson; NULL = no results */
    const char *log_directory;  /* of events.ndjson; NULL = no event log */
    uint64_t segment_size;      /* JOURNAL_SEGMENT_SIZE_MIN .. MAX, rounded down to sectors */
    uint32_t segments_max;      /* at least 1 */
    uint64_t log_size_max;      /* rotation: events.ndjson -> events-<wall seconds>.ndjson */
    uint32_t results_files_max; /* open at once; 0: 512 */
    uint64_t results_sync_size; /* results of large batches are synced so often; 0: 8 MiB */
    struct inbox *settled;      /* intake's: batches whose last recipient is settled durably */
    /* What replay has just said, for a later replay to hold the end of that run to; NULL: nothing
     * was read. Not kept. */
    const struct journal_known *known;
};

#define JOURNAL_SEGMENT_SIZE_MIN UINT64_C(4096)
#define JOURNAL_SEGMENT_SIZE_MAX (UINT64_C(1) << 32)

/* What has ended the journal. */
enum journal_failure {
    JOURNAL_FAILURE_NONE,
    JOURNAL_FAILURE_WRITE,      /* of a group; number: of the segment */
    JOURNAL_FAILURE_SYNC,       /* of a group */
    JOURNAL_FAILURE_SEGMENT,    /* the segment of this number cannot be prepared */
    JOURNAL_FAILURE_CHECKPOINT, /* none can be written; number: of the segment */
    JOURNAL_FAILURE_RESULTS,    /* the sync of results; number: of the batch */
    JOURNAL_FAILURE_STOP,       /* what was pending at the end could not be written */
    JOURNAL_FAILURE_ABANDONED,
};

struct journal_stats {
    struct stat_counter groups, records, syncs, bytes, log_lines, sync_ns_sum;
    struct stat_counter
        log_failures; /* writes of the log that failed; lines of batches that are gone */
    struct stat_counter log_removals;    /* it was removed while it was written: lines are lost */
    struct stat_counter results_waiting; /* batches whose results cannot be written now */
    struct stat_counter results_error;   /* errno of the last time */
    struct stat_counter results_held;    /* of them: so many lines wait that nothing more is sent */
    /* How often one was held no more: it is to be resumed. Published behind the batch's own. */
    struct stat_counter results_releases;
    struct stat_counter segments; /* live */
    struct stat_counter checkpoints, checkpoint_failures;
    struct stat_counter corrupt_records; /* found in the life of the spool */
    struct stat_counter has_failed;      /* published; and why, set before: */
    struct stat_counter failure, failure_error, failure_number; /* errno; 0: of no one op */
};

/* In a batch's directory. Under the second name the first is found by the start behind a failed
 * sync: what it says may be in the kernel's memory only. */
#define JOURNAL_RESULTS_NAME "results.ndjson"
#define JOURNAL_RESULTS_DOUBTED_NAME ".results.doubted"
/* How far the first is durable, and whose lines that part holds: journal_results_index.h. */
#define JOURNAL_RESULTS_INDEX_NAME ".results.index"

/* An engine's run, and the last group that it has made durable; groups count from 1 in each run. */
struct journal_place {
    uint32_t run;
    uint32_t group;
};

struct journal_core;

struct journal {
    struct actor actor; /* first */
    struct inbox accepts;
    struct inbox entries;
    struct inbox ends;
    struct journal_stats stats;
    struct stat_counter rotations_asked; /* control adds: the event log gets a new file */
    struct journal_place end;            /* behind journal_deinit: for the next replay */
    struct journal_core *core;           /* the room's own */
};

/* Opens (after journal_replay has read what is there) and starts a new segment. 0 or -errno.
 * Single-threaded start. */
int journal_init(struct journal *journal, const struct journal_config *config, bool with_event_fd)
    __attribute__((warn_unused_result));
/* A line of the event log that is no outcome, with its LF. Before the first step; one that cannot
 * be written is counted. */
void journal_log_line(struct journal *journal, struct span line);
/* As a crash would: what is pending is neither written nor given back, no object of others is
 * touched any more. Only journal_deinit may follow. */
void journal_abandon(struct journal *journal);
/* Writes, syncs and gives back what is pending, then closes: senders' objects and inboxes must
 * still be there, unless the journal is idle, has failed or was abandoned. NULL-safe, half-built
 * safe. */
void journal_deinit(struct journal *journal);
/* True when nothing is waiting, unsynced or unflushed: for an orderly stop. Any thread. A failed
 * journal never is: look at has_failed. */
bool journal_is_idle(const struct journal *journal);
