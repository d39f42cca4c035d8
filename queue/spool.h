/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool: the spool directory: what is in it, who may claim it, how a batch comes and goes.
 * docs/formats/SPOOL.md has the layout, the table of what exists when, and what a crash leaves.
 *
 * Owner: intake, through its own disk; one engine a spool (a lock that dies with the process). All
 * calls are small operations on names (disk_run) but the reads of pickup files and the appends of
 * rejects; none is on a delivery path. Never follows a link; never trusts a name.
 *
 * Durability: what a call made durable its comment says. A directory's name that was synced stays;
 * a rename that was not may be undone by a crash, and every step is such that doing it again is
 * right.
 *
 * Errors: 0 or -errno; where people must act, a problem with file and remedy. -EINVAL: the input is
 * at fault and was put aside as the call says; anything else: the disk is. What cannot even be put
 * aside, or read (pickup), is passed over for SPOOL_MUTE_S: told once, and not in a loop. Want of
 * descriptors or memory is nobody's fault: it is tried again at the next look.
 * -ENOTRECOVERABLE of spool_claim_group, spool_finish_group and spool_pickup_collect: a batch was
 * moved, and can neither be made to stay nor moved back: only the next start can tell where it is.
 *
 * Bounds: SPOOL_NAMES_MAX names a listing, SPOOL_STREAM_FILES_MAX files a stream,
 * SPOOL_PICKUP_WATCHED_MAX pickup files under watch; what does not fit waits for the next call.
 * SPOOL_MUTED_MAX names are passed over at once; beyond, some of them are tried before their time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/disk.h"
#include "queue/manifest.h"

enum {
    SPOOL_NAME_MAX = 255,
    SPOOL_DIRECTORY_MAX =
        MANIFEST_ID_MAX + 31, /* of a batch in active/, as struct batch holds it */
    SPOOL_NAMES_MAX = 2048,
    SPOOL_STREAM_FILES_MAX = 64,
    SPOOL_PICKUP_WATCHED_MAX = 65536,
    SPOOL_PICKUP_FILES_MAX = 1000,
    SPOOL_PICKUP_STABLE_MS = 2000,
    SPOOL_MUTE_S = 300,
    SPOOL_MUTED_MAX = 4096,
    SPOOL_TMP_AGE_S = 86400,
    SPOOL_REJECTS_BUFFER = 64 * 1024,
    SPOOL_RECORD_SHOWN_MAX = 512,
};

enum spool_place {
    SPOOL_IN_TMP,
    SPOOL_IN_NEW,
    SPOOL_IN_CTL,
    SPOOL_PICKUP,
    SPOOL_BADMAIL,
    SPOOL_ACTIVE,
    SPOOL_HOLD,
    SPOOL_DONE,
    SPOOL_FAILED,
    SPOOL_JOURNAL,
    SPOOL_LOG,
};
enum { SPOOL_PLACES_COUNT = SPOOL_LOG + 1 };

struct spool_problem {
    char text[512]; /* for people: what is wrong with which file, and what to do */
};

struct spool_config {
    struct disk *disk;
    const char *root;
    uint32_t process_id;        /* written into the lock file, for people */
    const uint32_t *owner_uids; /* who may own batches and their files */
    size_t owner_uids_count;    /* 0 = anybody who could write into in/tmp */
    uint64_t file_size_max;     /* of each file of a batch */
    uint64_t message_size_max;  /* of a pickup file */
};

struct spool_pickup;

struct spool {
    struct disk *disk;
    struct spool_config config;
    int root;
    int lock;
    int places[SPOOL_PLACES_COUNT];
    char days[2][sizeof("YYYY-MM-DD")]; /* made durable last: in done/, in failed/ */
    struct spool_pickup *pickup;
    struct {
        uint64_t hash;
        int64_t until_ns;
    } muted[SPOOL_MUTED_MAX]; /* by hash: a name takes the place of the one before it there */
    uint64_t new_after;       /* so many names of in/new are before those listed next */
};

struct spool_names {
    uint32_t count;
    uint64_t left_count; /* names that did not fit */
    bool is_part;        /* of in/new: there are others, before these or behind */
    char names[SPOOL_NAMES_MAX][SPOOL_NAME_MAX + 1];
};

/* Creates what is missing (mode 0770; set-group-id of in/ is inherited), takes the lock:
 * -EWOULDBLOCK when another engine has it. The layout is durable. `config` is copied; its pointers
 * stay. */
int spool_open(struct spool *spool, const struct spool_config *config,
               struct spool_problem *ret_problem) __attribute__((warn_unused_result));
/* Half-built safe; gives the lock back. */
void spool_close(struct spool *spool);

/* People may have removed done/, failed/, hold/ or badmail/ under the engine: what is not there any
 * more is made anew, durable, and all four are opened anew. */
int spool_places_renew(struct spool *spool) __attribute__((warn_unused_result));

/* "in/new". */
const char *spool_place_name(enum spool_place place);
/* The same of what writers write to: in/tmp, in/new, in/ctl and pickup/; those that are there, and
 * are others, are opened instead. Returns how many are new, or -errno; `ret_place`: one of them, or
 * of which the error is. */
int spool_inputs_renew(struct spool *spool, enum spool_place *ret_place)
    __attribute__((warn_unused_result));

/* What lies in in/new, in the directory's order, for spool_claim_group. What does not fit comes in
 * the next call, behind what this one has listed and nobody took; behind the last name the first is
 * next. So a name comes up in each round, whatever lies before it. */
int spool_list_new(struct spool *spool, struct wall_time now, struct spool_names *ret_names)
    __attribute__((warn_unused_result));
/* The batches in active/, for recovery. -E2BIG when they do not fit: call with `after` (the
 * greatest name of the last call, "" at first; names come in order). */
int spool_list_active(struct spool *spool, const char *after, struct spool_names *ret_names)
    __attribute__((warn_unused_result));

/*
 * in/new/NAME -> active/NAME (or NAME~2.batch ... when that is there), durable. Checks: a directory
 * and no link, NAME.batch with NAME as an id may be, an owner that may submit, not writable for
 * others. -EINVAL: it is none; it lies in badmail/ now, with a reason beside it. Several at once
 * share their syncs, which cost as much as for one: at most SPOOL_GROUP_MAX.
 */
enum { SPOOL_GROUP_MAX = 32 };
struct spool_claimed {
    const char *name;
    int result;
    bool is_gone; /* from in/new: claimed, or in badmail/ */
    char directory[SPOOL_DIRECTORY_MAX + 1];
    struct spool_problem problem; /* empty: nobody need act */
};
void spool_claim_group(struct spool *spool, struct spool_claimed *claims, uint32_t count,
                       struct wall_time now);

/* A file of a batch, checked: regular, one link, size, owner; read-only. */
struct spool_file {
    int fd; /* of spool->disk; -1: none */
    struct disk_stat stat;
};

/* The directory active/DIRECTORY: a descriptor, for disk_close; or -errno. */
int spool_batch_open(struct spool *spool, const char *directory)
    __attribute__((warn_unused_result));
int spool_file_open(struct spool *spool, int batch_fd, const char *name, uint64_t size_max,
                    struct spool_file *ret_file, struct spool_problem *ret_problem)
    __attribute__((warn_unused_result));
/* Whole, into the writer (which must have room for size_max bytes). */
int spool_file_read(struct spool *spool, int batch_fd, const char *name, uint64_t size_max,
                    struct writer *ret_content, struct spool_problem *ret_problem)
    __attribute__((warn_unused_result));
/* 0, or -ESTALE when it is not the file any more that was opened: its owner may still write. */
int spool_file_check(struct spool *spool, const struct spool_file *file)
    __attribute__((warn_unused_result));
void spool_file_close(struct spool *spool, struct spool_file *file);

/* The recipient stream of a batch: its recipients' file, or all messages-*.bsmtp in the order of
 * their names, one behind the other. A record never goes over a file's end. */
struct spool_stream_file {
    struct spool_file file;
    uint64_t start; /* offset of its first byte in the stream */
    char name[MANIFEST_FILE_NAME_MAX + 1];
};
struct spool_stream {
    uint64_t size;
    uint32_t files_count;
    struct spool_stream_file *files;
};
/* -EMFILE: more than files_max files: nothing was opened. */
int spool_stream_open(struct spool *spool, int batch_fd, const struct manifest *manifest,
                      uint32_t files_max, struct spool_stream *ret_stream,
                      struct spool_problem *ret_problem) __attribute__((warn_unused_result));
/* The file in which the byte lies; offset < size. */
const struct spool_stream_file *spool_stream_find(const struct spool_stream *stream,
                                                  uint64_t offset);
void spool_stream_close(struct spool *spool, struct spool_stream *stream);

/* rejects.ndjson: one line a rejected record. Begins empty at each scan before the batch is
 * accepted. Errors stick and are told by sync; behind that the caller syncs the directory. */
struct spool_rejects {
    struct disk *disk;
    int fd;
    int error;
    uint64_t offset;
    uint64_t count;
    size_t used;
    char buffer[SPOOL_REJECTS_BUFFER];
};
struct spool_reject {
    struct span file;
    uint64_t line;
    struct span reason;
    struct span remedy; /* may be empty */
    struct span record; /* as it stands in the file; clipped */
};
int spool_rejects_open(struct spool *spool, int batch_fd, struct spool_rejects *rejects)
    __attribute__((warn_unused_result));
void spool_rejects_add(struct spool_rejects *rejects, const struct spool_reject *reject);
/* Writes and syncs: before the batch is accepted. */
int spool_rejects_sync(struct spool_rejects *rejects) __attribute__((warn_unused_result));
void spool_rejects_close(struct spool_rejects *rejects);

/* progress.json (each second, not durable) and summary.json have the same members. */
struct spool_progress {
    const char *id;
    const char *state; /* scanning, active, paused, cancelled; done, failed, held */
    struct wall_time at;
    uint64_t records, accepted, rejected;
    uint64_t pending, in_flight, deferred; /* not settled */
    uint64_t delivered, bounced, expired, cancelled, possible_duplicates;
    double rate_1m;    /* settled a second */
    int64_t eta_s;     /* -1: not known */
    struct span extra; /* further members, each with a comma in front: ,"by_provider":{..} */
};
int spool_write_progress(struct spool *spool, int batch_fd, const struct spool_progress *progress)
    __attribute__((warn_unused_result));

enum spool_end { SPOOL_END_DONE, SPOOL_END_FAILED, SPOOL_END_HELD };
enum { SPOOL_PATH_MAX = 512 };
/*
 * Batches leave active/: summary.json (when given) and reason.txt (when not empty) are written,
 * then the directory goes to done/YYYY-MM-DD/, failed/YYYY-MM-DD/ (UTC) or hold/, all durable, in
 * this order. A pickup batch that fails takes its sources to badmail/ with it. May be called again
 * after a crash. -ENOENT: it is not in active/, or the place that it goes to is gone
 * (spool_places_renew). Several share their syncs: at most SPOOL_GROUP_MAX.
 */
struct spool_leaving {
    const char *directory;
    int batch_fd; /* it, open, of the caller's; -1: opened for the summary, and closed */
    enum spool_end end;
    const struct spool_progress *summary; /* NULL: none is written */
    struct span reason;
    int result;
    char name[SPOOL_NAME_MAX + 1]; /* where it went to */
    struct spool_problem problem;  /* of a result that is not 0 */
};
void spool_finish_group(struct spool *spool, struct spool_leaving *leavings, uint32_t count,
                        struct wall_time now);

/* Orders: empty files in in/ctl/: ID.pause, ID.resume, ID.cancel, ID.retry. */
enum spool_verb { SPOOL_PAUSE, SPOOL_RESUME, SPOOL_CANCEL, SPOOL_RETRY };
enum { SPOOL_VERBS_COUNT = SPOOL_RETRY + 1, SPOOL_ORDERS_MAX = 64, SPOOL_ORDER_WAIT_S = 10 };
struct spool_order {
    enum spool_verb verb;
    char id[MANIFEST_ID_MAX + 1];
};
/* What is to become of an order for this id. */
enum spool_order_fate {
    SPOOL_ORDER_TAKE,
    SPOOL_ORDER_LEAVE, /* its batch may still come: it stays, and takes no room in the list */
    SPOOL_ORDER_ENDED, /* its batch is gone: the order is removed */
    /* There was no such batch. SPOOL_ORDER_WAIT_S from when it was made (the batch may be behind
     * it) it goes to badmail/, with a reason. */
    SPOOL_ORDER_NOBODY,
};
struct spool_order_judge {
    enum spool_order_fate (*fate)(void *context, const char *id);
    void *context;
};
/* Zeroed before the first call. */
struct spool_orders {
    uint32_t count;
    uint32_t next; /* the caller's: how many of them it has looked at */
    struct spool_order orders[SPOOL_ORDERS_MAX];
    struct spool_order after;     /* last of a full list: the next call goes on behind it */
    uint32_t unknown_count;       /* moved to badmail/ by this call */
    struct spool_problem unknown; /* the last of them */
};
/* The least SPOOL_ORDERS_MAX orders to be taken, by id and verb, so that none is hidden by others
 * that stay; behind a full list the next ones, then from the front again. At most as many orders
 * for batches that are no more are dropped. `judge` NULL: all are taken. */
int spool_list_orders(struct spool *spool, struct wall_time now,
                      const struct spool_order_judge *judge, struct spool_orders *orders)
    __attribute__((warn_unused_result));
/* Removes the file: after the order was obeyed (or its batch is not known). */
int spool_order_remove(struct spool *spool, const struct spool_order *order)
    __attribute__((warn_unused_result));
/* Keeps PAUSE or CANCEL in the batch's directory (file "order"), RESUME removes it; durable, so
 * that a restart does not start what people stopped. RETRY leaves the file "retried". */
int spool_order_keep(struct spool *spool, int batch_fd, enum spool_verb verb)
    __attribute__((warn_unused_result));
/* SPOOL_RESUME when none is kept, SPOOL_PAUSE when it says nothing that is known. */
int spool_order_kept(struct spool *spool, int batch_fd, enum spool_verb *ret_verb)
    __attribute__((warn_unused_result));
/* 1: RETRY was kept once. 0: never. -errno: that cannot be seen. */
int spool_order_was_retried(struct spool *spool, int batch_fd) __attribute__((warn_unused_result));

/* What was left in in/tmp by writers that died, older than SPOOL_TMP_AGE_S, goes to badmail/.
 * Returns how many, or -errno. */
int spool_sweep_tmp(struct spool *spool, struct wall_time now) __attribute__((warn_unused_result));

/*
 * pickup/: files of writers that know nothing of batches (x-sender/x-receiver .eml, or plain .eml
 * with the envelope in its header). Collected into batches of kind bsmtp.
 *
 * spool_pickup_recover once, after spool_open: the sources of batches that are in active/ count as
 * taken. Of which files a batch was made may not be readable: nobody can say then which of those in
 * pickup/ are sent already, so nothing is collected (is_held) until it can be read, or is gone.
 * spool_pickup_collect at each rescan (some seconds) and whenever the watch fired: a file is
 * taken when its size and time stood still between two calls at least SPOOL_PICKUP_STABLE_MS apart
 * by `mono`: who sets the wall clock (`now`: of names, and of what is passed over) does not shorten
 * that.
 * Up to files_max (<= SPOOL_PICKUP_FILES_MAX) of them become active/pickup-MS-N.batch, complete and
 * durable when the call returns. Bad ones go to badmail/NAME.bad with a reason.
 * spool_pickup_release after the batch's accept record is durable: removes the originals. Doing it
 * again, or for a batch without sources, does nothing. Nothing is taken twice: a file is forgotten
 * only when it is gone, and its sources.list only after that is durable.
 */
struct spool_collected {
    uint32_t files_count;  /* 0: nothing was ready, no batch */
    uint32_t bad_count;    /* files moved to badmail/ */
    uint32_t unread_count; /* files that stay, and are looked at again in SPOOL_MUTE_S */
    bool has_more;         /* more files are ready now */
    bool is_held;          /* nothing is collected: `held` */
    uint64_t waiting_count;
    char directory[SPOOL_DIRECTORY_MAX + 1];
    struct spool_problem bad;    /* the last of the bad ones */
    struct spool_problem unread; /* the last of those unread */
    struct spool_problem held;
};
int spool_pickup_recover(struct spool *spool) __attribute__((warn_unused_result));
int spool_pickup_collect(struct spool *spool, struct wall_time now, struct mono_time mono,
                         uint32_t files_max, struct spool_collected *ret_collected)
    __attribute__((warn_unused_result));
int spool_pickup_release(struct spool *spool, const char *directory)
    __attribute__((warn_unused_result));
