/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_priv: the inside of the journal actor, shared by its files:
 *
 *   journal.c             the actor: start, step, stop; which completion goes where
 *   journal_group.c       gathers records into groups, writes and syncs them, gives back
 *   journal_segment.c     the file being written and the one prepared behind it
 *   journal_checkpoint.c  bounds replay: writes a checkpoint, removes what it stands for
 *   journal_log.c         the event log
 *   journal_results.c     results.ndjson of each batch
 *   journal_results_mark.c   how far that of a large batch is durable
 *
 * Everything here belongs to the journal actor. Each part has at most one disk op in flight
 * (results: RESULT_WRITES_MAX), embedded in it, and goes on when that comes back.
 */
#pragma once

#include "engine/base/list.h"
#include "engine/base/slab.h"
#include "queue/journal.h"
#include "queue/journal_record.h"
#include "queue/journal_results_index.h"
#include "queue/journal_walk.h"

enum {
    JOURNAL_LOG_BUFFER_SIZE = 4 * 1024 * 1024,
    JOURNAL_GROUP_CELLS_MAX = 1 + JOURNAL_GROUP_MAX,
    JOURNAL_REPLIES_MAX = 64, /* inboxes answered with one push each; beyond: a push an object */
    JOURNAL_RESULT_BUFFERS = 1024,
    JOURNAL_RESULT_BUFFER_SIZE = 64 * 1024,
    JOURNAL_RESULT_LINES_MAX = 512, /* in one buffer */
    JOURNAL_RESULT_FILES_MAX = 512,
    JOURNAL_RESULT_SPARE_SHARE = 8,  /* of them: when fewer are left some are made ready to close */
    JOURNAL_RESULT_CLOSINGS_MAX = 4, /* synced at a time, to be closed */
    JOURNAL_RESULT_HOLD_BUFFERS = 64, /* of a batch that cannot write them: it is held */
    JOURNAL_RESULT_WRITES_MAX = 32,
    JOURNAL_RESULT_SYNCS_MAX = 4, /* for a checkpoint: groups sync at the same time */
    JOURNAL_RETIRED_MAX = 64,
    /* What a background file may have unsynced, and what is freed at once: the groups' syncs have
     * to wait for that. */
    JOURNAL_SYNC_SIZE = 8 * 1024 * 1024,
    JOURNAL_HOLD_FACTOR = 4, /* live segments, in checkpoint intervals, at which intake is held */
};

_Static_assert((int)JOURNAL_GROUP_MAX <= (int)JOURNAL_GROUP_BEHIND_MAX, "replay believes it");
_Static_assert((int)JOURNAL_RESULT_WRITES_MAX + 8 <= (int)DISK_OPS_MAX, "every op finds room");
_Static_assert((int)JOURNAL_LINE_MAX <= (int)JOURNAL_RESULT_BUFFER_SIZE, "a line fits");

enum journal_io_kind {
    JOURNAL_IO_GROUP,
    JOURNAL_IO_LOG,
    JOURNAL_IO_SEGMENT,
    JOURNAL_IO_CHECKPOINT,
    JOURNAL_IO_RESULTS,
};

struct journal_io {
    struct disk_op op; /* first */
    enum journal_io_kind kind;
    bool is_busy;                /* in flight */
    struct journal_batch *batch; /* of RESULTS */
};

/* Lines of one batch on their way to its results.ndjson. */
struct result_buffer {
    struct list link; /* in results.filling, oldest first, or in the batch's `full` */
    struct journal_batch *batch;
    struct mono_time since;
    uint32_t mark; /* results.mark when it was begun */
    uint32_t size;
    uint32_t lines_count;
    uint32_t ordinals[JOURNAL_RESULT_LINES_MAX]; /* of the lines */
    char bytes[JOURNAL_RESULT_BUFFER_SIZE];
};

enum result_mark_state {
    RESULT_MARK_OPEN,    /* gathers the ordinals of lines that were written */
    RESULT_MARK_DUE,     /* the lines are to be synced, then their block is to be written */
    RESULT_MARK_WRITING, /* the block is being written ... */
    RESULT_MARK_SYNCING, /* ... is being synced */
};

/* The block of the index that is being made (journal_results_index.h). */
struct result_mark {
    enum result_mark_state state;
    struct journal_index_block block;
    int fd;          /* of the index, while a block is written; -1 */
    uint64_t offset; /* of the next block; 0: not known yet, and perhaps 0 */
    char bytes[JOURNAL_INDEX_SIZE_MAX];
};

/* A batch that was accepted and has not ended. */
struct journal_batch {
    struct batch *batch;
    char name[sizeof(((struct batch *)0)->directory)]; /* its directory's: known to the last op */
    uint32_t number;
    uint64_t *settled; /* with what is in groups not yet durable */
    uint64_t records_count;
    uint64_t recipients_count;
    uint64_t settled_count; /* durable */
    uint32_t row_group;     /* the group in which `row` is its row */
    uint32_t row;
    bool is_finishing; /* all is settled durably: what is left is to write its results */
    bool is_finished;  /* its node was sent */
    /* results.ndjson */
    struct journal_io io;
    struct result_buffer *filling;
    struct list full;
    struct list wants; /* in results.wanting, or in results.stalled */
    struct list open;  /* in results.open, while fd >= 0 */
    int fd;
    bool has_results;          /* its file was opened */
    bool is_unsynced;          /* lines were written since its last sync */
    bool is_syncing;           /* for a checkpoint: its file, then once its directory */
    bool is_stalled;           /* its last op failed: counted in results_waiting */
    struct mono_time again_at; /* in results.stalled: then */
    bool is_name_durable;
    bool is_closing; /* its file is to be synced and closed: others need the room */
    bool is_held;    /* as the batch is told: results_held */
    int directory;   /* open while it is synced; -1 */
    uint64_t offset;
    uint64_t inode; /* of its file, once that was opened */
    struct mono_time
        look_at;            /* whether it still is the one of that name: then, or at its opening */
    uint32_t buffers_count; /* it has */
    struct result_mark *mark; /* of a large batch, once its file was opened; NULL */
};

struct journal_results {
    int active; /* -1: no results are written */
    struct slab buffers;
    struct list filling;
    struct list wanting; /* batches with something to write and no op in flight */
    struct list stalled; /* those whose last op failed, in the order in which they are due again */
    struct list open;    /* batches with an open file, least recently used first */
    struct list crowded; /* those that wait until their file may be opened */
    uint32_t open_count;
    uint32_t files_max;
    uint32_t closings_count;
    uint64_t sync_size;
    uint32_t writes_count;
    uint32_t unfinished_count; /* batches that are finishing */
    uint32_t mark;             /* counts journal_results_mark */
    uint32_t marked_count;     /* buffers not written that were begun before the last mark ... */
    uint32_t sync_next;        /* ... and, when there are none, the next batch to be synced ... */
    uint32_t sync_end;         /* ... of those that were there at the mark */
    uint32_t syncs_count;      /* batches that are syncing */
};

/* What a group does to one batch when it is durable. */
struct journal_row {
    struct journal_batch *batch;
    uint32_t counts[BATCH_COUNTS_COUNT];
};

struct journal_reply {
    struct inbox *inbox;
    struct inbox_chain chain;
};

struct journal_group {
    uint32_t number;
    uint32_t first; /* cell of its file; valid while cells_count > 0 */
    uint32_t cells_count;
    uint32_t cells_limit;
    uint32_t records_count;
    struct journal_cell *cells;
    char *log;
    uint32_t log_size;
    uint32_t log_lines;
    struct journal_row *rows;
    uint32_t rows_count;
    struct journal_reply replies[JOURNAL_REPLIES_MAX];
    uint32_t replies_count;
    uint32_t reply_last;       /* most objects go where the last one goes */
    struct inbox_chain others; /* beyond JOURNAL_REPLIES_MAX */
};

enum journal_pipe {
    JOURNAL_PIPE_IDLE,    /* no group is in flight */
    JOURNAL_PIPE_WRITING, /* `flying` is being written, its lines too */
    JOURNAL_PIPE_SYNCING, /* `flying` is written; its sync is under way */
    JOURNAL_PIPE_FAILED,  /* nothing is written or given back any more */
};
enum { JOURNAL_PIPES_COUNT = JOURNAL_PIPE_FAILED + 1 };

enum journal_spare {
    JOURNAL_SPARE_NONE,
    JOURNAL_SPARE_ALLOCATING,
    JOURNAL_SPARE_FILLING, /* zeros, so that a later sync has no blocks to convert */
    JOURNAL_SPARE_HEADING,
    JOURNAL_SPARE_SYNCING,
    JOURNAL_SPARE_NAMING, /* has its name; the directory is being synced */
    JOURNAL_SPARE_READY,
};
enum { JOURNAL_SPARES_COUNT = JOURNAL_SPARE_READY + 1 };

struct journal_segments {
    uint64_t size;
    uint32_t cells_max;
    uint32_t run;
    struct journal_place ended; /* as replay was told; run 0: it was not */
    uint32_t before_run;        /* what replay said of the run in front of this one */
    uint32_t before_group;
    uint32_t number; /* the one being written; 0 before the first */
    int fd;
    uint32_t next_cell;
    uint32_t live_count; /* behind the last checkpoint, the one being written included */
    enum journal_spare spare;
    int spare_fd;
    uint64_t spare_filled;
    uint64_t spare_synced;                 /* of it; the rest is at most JOURNAL_SYNC_SIZE */
    uint32_t retired[JOURNAL_RETIRED_MAX]; /* numbers of files that may be used again */
    uint32_t retired_count;
    struct journal_io io;
    char *block; /* JOURNAL_CHUNK_SIZE: zeros, or the header in front */
    struct mono_time retry_at;
    int error; /* of the last attempt to prepare one */
};

enum journal_check {
    JOURNAL_CHECK_NONE,
    JOURNAL_CHECK_FORWARD, /* reads segments, makes the tally */
    JOURNAL_CHECK_BATCHES, /* writes what the tally says */
    JOURNAL_CHECK_BACK,    /* reads backward, writes deferrals */
    JOURNAL_CHECK_TAIL,    /* writes the last group */
    JOURNAL_CHECK_HEADING,
    JOURNAL_CHECK_SYNCING,
    JOURNAL_CHECK_WAITING,  /* for results of what it stands for to be written */
    JOURNAL_CHECK_NAMING,   /* has its name; the directory is being synced */
    JOURNAL_CHECK_REMOVING, /* of what it stands for, a piece a step */
};
enum { JOURNAL_CHECKS_COUNT = JOURNAL_CHECK_REMOVING + 1 };

struct journal_checkpoint {
    enum journal_check state;
    uint32_t number; /* the last segment it stands for */
    int fd;
    struct journal_walk walk;
    struct journal_io io;
    uint32_t row; /* BATCHES: the next one, and how far it is written */
    bool has_row_head;
    uint32_t row_word;
    struct journal_cell *out;
    uint32_t out_first; /* cell of the file */
    uint32_t out_count; /* its group's own cell included; 0 = empty */
    uint32_t group;
    uint64_t synced_size;
    uint32_t remove_at; /* index in the walk's listing */
    int remove_fd;      /* of a file that is being cut down; -1: none */
    uint64_t remove_size;
    uint64_t last_size;       /* bytes of the last checkpoint */
    uint32_t failed_at_count; /* live segments when the last attempt failed; 0 = it did not */
    bool is_memory_short;     /* ... for want of memory: tried again */
    struct mono_time retry_at;
};

struct journal_log {
    int dir;                  /* -1: no event log */
    const char *directory;    /* its name; the config's */
    struct mono_time look_at; /* whether both are there still */
    int fd;
    uint64_t offset;
    uint64_t size_max;
    struct journal_io io;
    uint64_t rotations_seen; /* of those asked for */
};

struct journal_core {
    struct journal *journal;
    struct disk *disk;
    const struct clock *clock;
    struct inbox *settled;
    int dir;
    struct mono_time now;
    uint32_t ios_count; /* in flight */
    enum journal_pipe pipe;
    bool is_abandoned;
    uint32_t writes_left; /* of the group that is being written */
    int write_error;      /* its own; 0: none */
    struct journal_group groups[2];
    struct journal_group *gathering;
    struct mono_time pace_until; /* the next group is not launched before, unless it is large */
    uint32_t launched_count;     /* records of the last group */
    struct journal_group *flying;
    uint32_t group_number;  /* of the last group */
    uint32_t group_durable; /* of the last one that is on stable storage */
    struct journal_io group_io;
    struct mono_time sync_began;
    struct journal_accept *held_accept; /* taken from its inbox, and no room for it yet */
    struct journal_entry *held_entry;
    struct journal_batch **batches; /* by batch index */
    uint32_t batches_room;
    uint32_t segments_max;
    struct journal_segments segments;
    struct journal_checkpoint checkpoint;
    struct journal_log log;
    struct journal_results results;
    struct stat_counter is_at_work; /* for journal_is_idle */
};

/* journal.c */
void journal_submit(struct journal_core *core, struct journal_io *io, enum journal_io_kind kind);
/* Nothing is written or given back any more. `number`: of the file or batch that it happened to. */
void journal_fail(struct journal_core *core, enum journal_failure failure, int error,
                  uint32_t number);

/* journal_group.c */
int journal_groups_init(struct journal_core *core);
void journal_groups_deinit(struct journal_core *core);
/* Takes from the inboxes what there is room for. */
void journal_gather(struct journal_core *core);
/* Writes what was gathered, when nothing is in flight. */
void journal_launch(struct journal_core *core);
/* When a group that is held back for a moment is due. */
struct mono_time journal_launch_deadline(const struct journal_core *core);
void journal_group_on_io(struct journal_core *core, const struct journal_io *io);
void journal_batch_free(struct journal_core *core, struct journal_batch *batch);
/* The batch's node goes to intake. */
void journal_batch_finished(struct journal_core *core, struct journal_batch *batch);

/* journal_segment.c */
int journal_segments_init(struct journal_core *core, const struct journal_config *config);
void journal_segments_deinit(struct journal_core *core);
/* True when a group can be placed in the current segment, perhaps a new one. */
bool journal_segment_has_room(struct journal_core *core);
void journal_segments_step(struct journal_core *core);
void journal_segment_on_io(struct journal_core *core, const struct journal_io *io);
/* The file is of no more use as it is; false: it is not kept, and may be removed. */
bool journal_segment_retire(struct journal_core *core, uint32_t number);
/* Live segments at which the next checkpoint is due. */
uint32_t journal_checkpoint_due(const struct journal_core *core);

/* journal_checkpoint.c */
int journal_checkpoint_init(struct journal_core *core);
void journal_checkpoint_deinit(struct journal_core *core);
/* Begins one when it is due, goes on with it when it is not waiting for its op. */
void journal_checkpoint_step(struct journal_core *core);
/* When it wants to be called again, whatever else goes on. */
struct mono_time journal_checkpoint_deadline(const struct journal_core *core);
void journal_checkpoint_on_io(struct journal_core *core, const struct journal_io *io);

/* journal_log.c */
int journal_log_init(struct journal_core *core, const struct journal_config *config);
void journal_log_deinit(struct journal_core *core);
/* True: the group's lines are being written, log.io comes back. */
bool journal_log_write(struct journal_core *core, struct journal_group *group);
void journal_log_on_io(struct journal_core *core, const struct journal_io *io);

/* journal_results.c */
int journal_results_init(struct journal_core *core, const struct journal_config *config);
void journal_results_deinit(struct journal_core *core);
/* False: no buffer is free, ask again. */
bool journal_results_add(struct journal_core *core, struct journal_batch *batch, uint32_t ordinal,
                         struct span line);
/* All of the batch is settled durably: writes and syncs its results, then journal_batch_finished.
 */
void journal_results_finish(struct journal_core *core, struct journal_batch *batch);
/* Writes what has waited for a second, or everything. */
void journal_results_step(struct journal_core *core, bool is_all);
void journal_results_on_io(struct journal_core *core, struct journal_io *io);
/* What was added until now is written soon and synced; are those of the last mark? (A checkpoint
 * is to stand for their records, from which lost lines are made again.) */
void journal_results_mark(struct journal_core *core);
bool journal_results_is_past_mark(const struct journal_core *core);
struct mono_time journal_results_deadline(const struct journal_core *core);
/* No line waits, and no batch's end. */
bool journal_results_are_written(const struct journal_core *core);
/* The batch's next op, which its other parts wait for as well. */
void journal_results_submit(struct journal_core *core, struct journal_batch *batch,
                            const struct disk_op *op);

/* journal_results_mark.c */
/* Its results.ndjson was opened for the first time. Without memory there is no index. */
void journal_mark_begin(struct journal_core *core, struct journal_batch *batch, uint64_t inode);
/* Safe without one. With `is_over` the index goes from the disk, too. */
void journal_mark_end(struct journal_core *core, struct journal_batch *batch, bool is_over);
/* The buffer's lines were written, from `begin` on. */
void journal_mark_add(struct journal_core *core, struct journal_batch *batch,
                      const struct result_buffer *buffer, uint64_t begin);
bool journal_mark_is_due(const struct journal_batch *batch);
/* Its lines are synced: the next op for the block. False: there is none, the block is done. */
bool journal_mark_go_on(struct journal_core *core, struct journal_batch *batch);
/* True: the op was the mark's. */
bool journal_mark_on_io(struct journal_core *core, struct journal_batch *batch);
