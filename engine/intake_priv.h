/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intake_priv: what the parts of intake share: intake.c (the actor), intake_batch.c (a batch's
 * life), intake_open.c (its manifest and content), intake_scan.c (its records), intake_load.c
 * (read-ahead), intake_changed.c (files that changed), intake_orders.c (what people order),
 * intake_leave.c (progress, and its way out), intake_recover.c (what an earlier engine left),
 * intake_results.c, intake_results_lines.c (lines that it owed).
 *
 * A batch's stages (struct intake_batch, one a slot of the batch table):
 *
 *   FREE -> OPENING         claimed, or found in active/ at a start
 *   OPENING -> SCANNING     manifest, message and stream are open and legal
 *   SCANNING -> OPENING     memory is short, or the disk does not take its rejects or the lines
 *                           that it owes: it is opened from the beginning a little later
 *   SCANNING -> ACCEPTING   every record was checked; rejects are on stable storage; the accept
 *                           record is with the journal
 *   ACCEPTING -> DEALING    the accept record is durable: the batch is accepted (LAW 1)
 *   DEALING -> ACTIVE       all recipients are with the workers, or in the retry wheel (recovered
 *                           ones)
 *   ACTIVE -> LEAVING       the journal says: all settled durably (LAW 4); or the batch was
 *                           cancelled before any was dealt
 *   OPENING, SCANNING, ACCEPTING -> LEAVING   the batch cannot run: failed/
 *   LEAVING -> ENDING       its folder has left active/, all recipients have come back; the
 *                           journal is told
 *   ENDING -> FREE          the journal has let go of it
 */
#pragma once

#include "engine/base/slab.h"
#include "engine/intake.h"
#include "engine/worker.h"
#include "queue/journal.h"
#include "queue/journal_walk.h"
#include "queue/spool.h"
#include "queue/spool_ids.h"

enum {
    INTAKE_BLOCK_SIZE = 1 << 18, /* of the stream, read at a time */
    INTAKE_CLAIMS_STEP_MAX = 16,
    INTAKE_DEALS_STEP_MAX = 256, /* chunks */
    INTAKE_READS_MAX = 192,      /* disk operations of read-ahead under way */
    INTAKE_OPENS_STEP_MAX = 16,  /* of batches that are opened again */
    INTAKE_RESCAN_MS = 1000,     /* looks at in/; and the least rest in front of an opening */
    INTAKE_REST_FACTOR = 8,      /* such a rest is so much longer than the scan that was in vain */
    INTAKE_PICKUP_RESCAN_MS = 1000,
    INTAKE_SWEEP_MS = 3600 * 1000, /* looks at in/tmp; the first one, too, is so late */
    INTAKE_REASON_MAX = 8192,
    INTAKE_SCANS_MAX = 64,           /* batches among which the nearest to its end is looked for */
    INTAKE_BYTES_STEP_MAX = 1 << 20, /* of streams, scanned in one step */
    INTAKE_GAP_MAX = 4096, /* bytes between two records that are read along rather than around */
    INTAKE_PROGRESS_MS = 1000,
    INTAKE_PROGRESS_STEP_MAX = 64, /* progress.json files ... */
    INTAKE_PROGRESS_REST_MS = 50,  /* ... and the rest behind so many */
    INTAKE_LEAVE_AGAIN_MS = 1000,
    INTAKE_RECOVERS_STEP_MAX = 64,
    INTAKE_GHOSTS_MAX = 64,
    INTAKE_BATCH_FDS = 2, /* open for most batches: the directory and one file */
};

enum intake_stage {
    INTAKE_FREE,
    INTAKE_OPENING,
    INTAKE_SCANNING,
    INTAKE_ACCEPTING,
    INTAKE_DEALING,
    INTAKE_ACTIVE,
    INTAKE_LEAVING,
    INTAKE_ENDING,
};
enum { INTAKE_STAGES_COUNT = INTAKE_ENDING + 1 };

/* What a scan needs while it runs; freed when it ends. */
struct intake_scan {
    struct scan_splitter splitter;
    uint32_t file_index;
    uint64_t file_offset; /* of window[0] in that file */
    char *window;         /* INTAKE_BLOCK_SIZE + what a record may need */
    size_t window_size;   /* room */
    size_t filled;
    size_t taken;     /* bytes of the window that are behind us */
    bool is_file_end; /* the window reaches the end of the file */
    bool has_header;  /* CSV: the header record was taken */
    struct XXH3_state_s *hash;
    struct spool_rejects rejects;
    char first_reject[192]; /* for the reason of a batch that fails by them */
    uint32_t ordinal;       /* of the next recipient or record */
    uint32_t next_deferral;
    struct mono_time turn_at; /* its turn has begun */
    int64_t busy_ns;          /* of the turns before */
};

struct intake_batch {
    struct batch *batch;
    enum intake_stage stage;
    int fd;                      /* of active/DIRECTORY; -1 */
    struct spool_stream *stream; /* NULL: not open */
    uint32_t next_by_id;         /* slot + 1 of the next batch in the same bucket */
    struct intake_scan *scan;
    struct journal_known_batch *known; /* recovered from the journal; NULL otherwise */
    struct inbox_chain recipients;     /* accepted, waiting for the accept record */
    struct journal_accept accept;
    struct journal_end end;
    bool is_settled;       /* the journal has said so */
    bool is_bsmtp_lf;      /* stream with LF line ends: turned into CRLF when loaded */
    uint64_t live_count;   /* recipient entries that have not come back */
    uint32_t blocks_count; /* lent: workers may still send from them and from the template */
    struct list link;      /* in one of the core's lists by stage */
    struct list touched;   /* in core->touched: its files are to be looked at */
    bool is_pause_own;     /* it is paused for that only: no person has ordered it */
    struct mono_time progress_at;
    uint64_t progress_sum; /* of the counts last written: unchanged = not written again */
    enum spool_end leaving_to;
    struct span reason; /* why it failed; owned when has_reason */
    bool has_reason;
    struct mono_time open_at;  /* OPENING: it could not be opened, or scanned: tried again then */
    struct mono_time leave_at; /* it could not leave: tried again then */
    uint32_t leave_failures;   /* so often; the second one is told */
    bool has_id;               /* it is in core->by_id */
    uint64_t files_hash;       /* of batch.json and the message: the seed of the content's hash */
    uint64_t message_size;     /* as it was read */
    bool is_accepted;          /* its accept record is durable: the journal knows it */
    bool is_new;               /* it was claimed by this engine, not found in active/ */
    bool is_forgotten;         /* it had been accepted, and the journal has lost that */
};

/* One load being read. */
struct intake_read {
    struct list link;
    struct load *load;
    uint32_t ops_left;
    int result;
    struct disk_op ops[LOAD_RECIPIENTS_MAX];
};

/* What became of a batch that the journal knew at the start. */
enum intake_known_state {
    INTAKE_KNOWN_UNSEEN,
    INTAKE_KNOWN_TAKEN, /* it lies in active/ and goes on */
    INTAKE_KNOWN_HELD,  /* it lies in hold/: the journal keeps it in mind */
    INTAKE_KNOWN_ENDED, /* it has left: the journal was told */
};

/* A settled recipient whose line in results.ndjson is missing, as the journal has it. */
struct intake_final {
    uint32_t ordinal;
    uint32_t at_s;
    uint16_t code;
    uint16_t attempts_count;
    uint8_t kind;  /* enum journal_kind */
    uint8_t flags; /* enum journal_flags */
};

/* A batch that the marker of an orderly stop names. */
struct intake_suspect {
    uint32_t number;
    uint32_t until_s; /* wall: recipients due until then are in doubt */
};

/* Beside core->known.batches. */
struct intake_known {
    enum intake_known_state state;
    bool is_suspect; /* recipients of it may have been in flight when some engine ended ... */
    uint32_t doubt_until_s; /* ... namely those that were due until then, wall seconds */
    uint32_t number;
    uint64_t records_count;
    unsigned wanted;             /* enum manifest_results */
    uint64_t *missing;           /* while the start looks for their records */
    bool must_look;              /* what results.ndjson holds is not known (any more) */
    char *waiting_id;            /* the batch waits for that: its id, for orders; owned; or NULL */
    struct intake_final *finals; /* by ordinal; on disk too; written as the scan comes by */
    uint32_t finals_count;
    uint32_t finals_room;
    uint32_t finals_next;
    uint64_t lost_count; /* lines that no record is left for ... */
    uint32_t lost_first; /* ... from this ordinal on ... */
    uint32_t lost_last;  /* ... to this one */
    int fd;              /* of results.ndjson while lines are added */
    uint64_t offset;
    char *lines;
    size_t lines_size;
    int lines_error; /* why they could not be written, with must_look */
};

/* The end of a batch that left before its end was recorded. */
struct intake_ghost {
    struct batch batch; /* only its number counts */
    struct journal_end end;
};

/* What a line of results.ndjson needs of the recipient's record. */
struct intake_result {
    struct span sender;
    struct span address;
    struct span id;
    uint32_t domain;
};

struct intake_core {
    struct intake *intake;
    struct engine *engine;
    struct disk *disk;
    struct spool spool;
    bool has_spool;
    struct spool_ids *ids; /* of batches accepted lately */
    struct spool_names *names;
    struct spool_orders *orders;
    struct slab recipients;
    struct intake_batch *batches; /* beside engine->batches */
    uint32_t *by_id;              /* hash of the ids under way: slot + 1; by_id_mask + 1 buckets */
    uint32_t by_id_mask;
    uint32_t *free_slots;
    uint32_t free_count;
    struct list opening;  /* OPENING: tried again, as they are due */
    struct list refused;  /* ACCEPTING: the journal had no memory, asked again */
    struct list scanning; /* SCANNING, in turn */
    uint32_t fds_max;     /* 0 = any number */
    uint32_t fds_open;    /* by batches */
    struct list dealing;
    struct list active; /* ACTIVE: progress.json */
    struct list leaving;
    uint32_t next_number;
    struct journal_known known;
    struct intake_known *known_rows; /* beside known.batches */
    uint32_t *known_by_number;       /* indices of them */
    struct intake_suspect *suspects; /* as the marker had them */
    uint32_t suspects_count;
    struct journal_place journal_end; /* as the marker had it; run 0: it is not known */
    uint64_t kept_broken;             /* cells of results-missing, its header counted */
    bool is_unclean;                  /* the engine before did not stop in order */
    bool has_marker;                  /* it did, and its marker is still there */
    bool is_recovering; /* active/ is still being read, or ghosts are ended: nothing is claimed */
    bool is_listed;     /* all of active/ has been taken up */
    char recover_after[SPOOL_NAME_MAX + 1];
    uint32_t ghosts_next; /* row to be looked at */
    uint32_t ghosts_away;
    struct inbox ghosts_back;
    struct intake_ghost ghosts[INTAKE_GHOSTS_MAX];
    uint32_t deal_next; /* worker */
    struct scan_parser *parser;
    struct scan_recipient *record;
    struct scan_message *message;
    uint8_t hints[TEMPLATE_VARS_MAX];
    struct slab reads;
    struct inbox_chain loads_waiting; /* no read slot or no budget */
    struct load *load_held;           /* found no room: the next to be read */
    struct list touched;              /* batches whose files are not what they were */
    struct mono_time changed_at;      /* none of them is looked at before */
    struct intake_check *check;       /* of the first of them; NULL: it is not looked at yet */
    uint32_t ops_away;
    uint64_t block_bytes;  /* lent or being filled ... */
    uint64_t needed_bytes; /* ... of them, for loads that were needed at once */
    struct list blocks;    /* they */
    struct mono_time rescan_at;
    struct mono_time pickup_at;
    struct mono_time sweep_at;
    struct mono_time inputs_at;   /* whether what writers write to is there still */
    bool has_told_inputs;         /* that it is not, and cannot be made */
    bool has_told_held;           /* that nothing is collected from pickup/ */
    struct mono_time progress_at; /* no progress.json is written before */
    uint32_t names_next;          /* of `names`: the next to be claimed */
    bool has_names_left;          /* in/new held more than `names` */
    bool has_claimed;             /* some of `names` are in in/new no more */
    bool has_more_new;            /* in/new held more than one listing, or claiming was held back */
    struct worker_order *worker_orders; /* one a worker ... */
    struct inbox orders_back;
    uint32_t orders_left;        /* ... of the order under way */
    uint64_t releases_seen;      /* of batches that the journal held: workers were told */
    bool is_resume_due;          /* workers are still to be told that some batch goes on */
    char *reason_text;           /* INTAKE_REASON_MAX, for problems on their way into `reason` */
    struct intake_words *words;  /* of control; NULL: away */
    struct writer words_waiting; /* into words_text: lines that wait for it */
    uint32_t words_left_out;     /* lines that found no room there */
    char words_text[INTAKE_WORDS_SIZE - 128];
};

/* intake_words.c: for people, by control. One line without its end; what finds no room until
 * control comes for it is counted. */
void intake_words_begin(struct intake_core *core);
void intake_words_add(struct intake_core *core, const char *line);
void intake_words_send(struct intake_core *core);

/* intake_batch.c: slots, ids, and the stages between claim and end */
struct intake_batch *intake_batch_of(struct intake_core *core, uint32_t index);
void intake_enter(struct intake_core *core, struct intake_batch *ib, enum intake_stage stage);
/* Batches under way by their ids: NULL when there is none. An id is there once. */
struct intake_batch *intake_id_find(struct intake_core *core, const char *id);
void intake_id_add(struct intake_core *core, struct intake_batch *ib);
void intake_id_remove(struct intake_core *core, struct intake_batch *ib);
/* Safe when they are closed. */
void intake_stream_close(struct intake_core *core, struct intake_batch *ib);
void intake_directory_close(struct intake_core *core, struct intake_batch *ib);
/* What opening has brought: everything but the slot. */
void intake_batch_close(struct intake_core *core, struct intake_batch *ib);
/* Nothing of it is out any more: the slot is free. */
void intake_batch_free(struct intake_core *core, struct intake_batch *ib);
/* The engine stops: what the batch holds in memory is freed, its files stay. */
void intake_abandon(struct intake_core *core, struct intake_batch *ib);
void intake_drop_recipients(struct intake_core *core, struct intake_batch *ib);
/* The batch cannot run: words for people; it leaves for failed/. */
void intake_fail(struct intake_core *core, struct intake_batch *ib, const char *words);
void intake_claim_new(struct intake_core *core);
/* A batch that pickup made lies in active/. */
void intake_take_collected(struct intake_core *core, const char *directory);
/* Takes up a batch that lay in active/ at the start. */
void intake_open_recovered(struct intake_core *core, const char *directory);
/* Whether one more batch, or so many, can be taken: slots of the table, descriptors. */
bool intake_has_slot(const struct intake_core *core);
bool intake_has_slots(const struct intake_core *core, uint32_t count);
/* Whether the journal has numbers left for new batches; those that lie in active/ already have what
 * is beyond JOURNAL_BATCH_NUMBER_MAX. At the bound nothing new is claimed or collected. */
bool intake_has_number(const struct intake_core *core);
/* Scanned: the journal is asked to accept it, as of now. */
void intake_accept(struct intake_core *core, struct intake_batch *ib);
void intake_on_accepted(struct intake_core *core, struct intake_batch *ib);
/* Those for which the journal had no memory. */
void intake_accept_again(struct intake_core *core);
void intake_deal(struct intake_core *core, struct intake_batch *ib, struct mono_time now);
void intake_on_settled(struct intake_core *core, struct intake_batch *ib);

/* intake_open.c */
void intake_open(struct intake_core *core, struct intake_batch *ib);
/* What another moment may mend: nothing that speaks against the batch. */
bool intake_is_want(int error);
/* A scan cannot go on for want of memory, or what it writes the disk does not take: what it has
 * brought is given back, and the batch is opened from the beginning a little later: the longer the
 * scan took, the later. The scan is gone behind this. */
void intake_open_again(struct intake_core *core, struct intake_batch *ib);
/* Its rest ends now. */
void intake_open_soon(struct intake_core *core, struct intake_batch *ib);
/* Those OPENING that have rested, a part a step. True: there may be more to do at once. */
bool intake_open_waiting(struct intake_core *core, struct mono_time now);

/* intake_leave.c */
void intake_write_progress(struct intake_core *core, struct intake_batch *ib, struct mono_time now);
/* Batches that may leave, as many as share their syncs; true: there may be more. */
bool intake_leave_some(struct intake_core *core, struct mono_time now);
void intake_on_ended(struct intake_core *core, struct intake_batch *ib);

/* intake_orders.c */
void intake_take_orders(struct intake_core *core);
/* Some batch is not paused any more: workers are told. */
void intake_orders_resume(struct intake_core *core);

/* intake_scan.c */
int intake_scan_begin(struct intake_core *core, struct intake_batch *ib);
/* Up to `records_max` records; returns how many were taken, 0 when it has to wait for room. Ends in
 * ACCEPTING or LEAVING. */
uint32_t intake_scan_some(struct intake_core *core, struct intake_batch *ib, uint32_t records_max,
                          uint64_t bytes_max);
/* Bytes that are still to be scanned; UINT64_MAX when it is not being scanned. */
uint64_t intake_scan_left(const struct intake_batch *ib);
void intake_scan_end(struct intake_core *core, struct intake_batch *ib);
/* Gives back what the scan has taken so far; it begins anew. */
void intake_scan_restart(struct intake_core *core, struct intake_batch *ib);

/* intake_recover.c */
/* Whether the engine before stopped in order; the mark is removed, durably. 0 or -errno. */
int intake_marker_take(struct intake_core *core) __attribute__((warn_unused_result));
void intake_recover_some(struct intake_core *core);
void intake_known_free(struct intake_core *core);
/* What the journal knows of a batch in active/ at the start; NULL: nothing. */
struct journal_known_batch *intake_known_take(struct intake_core *core, const char *directory);
/* The journal has let go of the batch; it may not be a recovered one. */
void intake_known_ended(struct intake_core *core, const struct intake_batch *ib);
/* The recovered batch goes to hold/. */
void intake_known_held(struct intake_core *core, const struct intake_batch *ib);
/* A batch of this name lies in hold/, and the journal keeps it in mind. */
bool intake_is_name_held(struct intake_core *core, const char *directory);
/* Whether an attempt for the recipient may have been under way when the engine before ended (LAW
 * 6).
 */
bool intake_may_be_repeated(struct intake_core *core, const struct intake_batch *ib,
                            const struct recipient *recipient);
/* Of a batch that is being opened: who was put off may have been tried before his time, when people
 * ordered it. 0, or -errno: that cannot be seen. */
int intake_doubt_retried(struct intake_core *core, const struct intake_batch *ib)
    __attribute__((warn_unused_result));
/* Its row beside core->known.batches; NULL: the batch is no recovered one. */
struct intake_known *intake_known_of(struct intake_core *core, const struct intake_batch *ib);

/* intake_results.c */
/* Finds the lines that results.ndjson of the known batches lack, and makes sure that they can be
 * written whatever becomes of the journal's segments and of this engine. Before the journal's first
 * step. Memory and disk: 16 and 32 bytes a line. 0 or -errno: another start must do it. A
 * results.ndjson that cannot be read now is looked at when its batch is opened. */
int intake_results_recover(struct intake_core *core) __attribute__((warn_unused_result));
/* enum manifest_results of an outcome's record; 0: it is none. */
unsigned intake_result_of(enum journal_kind kind);

/* intake_results_lines.c */
/* Of a scan that begins: the memory for its lines, and another look where one is needed. 0 or
 * -errno: the batch waits, and is opened again. */
int intake_results_begin(struct intake_core *core, struct intake_batch *ib)
    __attribute__((warn_unused_result));
/* Writes the line that results.ndjson lacks for this settled recipient, if it does. Ordinals
 * ascend. */
void intake_result_complete(struct intake_core *core, struct intake_batch *ib, uint32_t ordinal,
                            const struct intake_result *result);
/* The batch waits for its results with this id; NULL: none does. */
struct intake_batch *intake_results_find_waiting(struct intake_core *core, const char *id);
/* It waits no more. */
void intake_results_go_on(struct intake_core *core, struct intake_known *row);
/* 0: the lines so written are on stable storage; -errno: not all, and the scan must begin anew. */
int intake_results_end(struct intake_core *core, struct intake_batch *ib);

/* intake_changed.c */
/* 0; -ESTALE: a file is not the one that was scanned; -errno: that cannot be seen. */
int intake_changed_check(struct intake_core *core, const struct intake_batch *ib)
    __attribute__((warn_unused_result));
/* A load of such a batch. False: it goes its way, since the batch is cancelled; else it is refused,
 * and the batch is paused until its files were looked at. */
bool intake_changed_take(struct intake_core *core, struct intake_batch *ib, struct load *load);
/* Looks at such files, INTAKE_BYTES_STEP_MAX a step. True: there is more to do. */
bool intake_changed_some(struct intake_core *core);
/* Its stream is about to be closed: its files are not looked at any more. */
void intake_changed_drop(struct intake_core *core, struct intake_batch *ib);

/* intake_load.c */
void intake_load_take(struct intake_core *core);
/* Completed reads; returns how many. */
uint32_t intake_load_reap(struct intake_core *core);
void intake_load_blocks(struct intake_core *core);
/* The engine stops: waits for the reads that are under way, and frees what is lent. */
void intake_load_end(struct intake_core *core);
