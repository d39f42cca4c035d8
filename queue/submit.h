/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit: the writer's side of the spool: how a batch gets into in/new/ whole or not at all.
 *
 * Used by `ramjet submit` and by front ends, from any process that may write to in/; never by the
 * engine's own actors. A batch is built in in/tmp/, its files and its directory are synced, then it
 * is renamed to in/new/ID.batch and that name is synced: when a call returns 0 the batch is on
 * stable storage and the engine will find it. On any failure nothing is left behind but, after a
 * crash, a directory in in/tmp/ that the engine sweeps after a day.
 *
 * batch.json is checked as the engine will check it, so that its errors come back at once; the
 * recipients are not.
 *
 * The engine takes a batch by the rights of its group: in/tmp is set-group-id where writers are
 * other users, and the caller's umask must leave the group all rights (0007).
 *
 * Blocking calls, on a disk of the caller's own (disk_plain). Errors: 0 or -errno, with a problem
 * for people. Bounds: SUBMIT_FIRST_LINE_MAX for the first line of a stream, SUBMIT_RCPTS_MAX
 * recipients of a single mail.
 */
#pragma once

#include "engine/base/clock.h"
#include "engine/base/disk.h"
#include "engine/base/random.h"
#include "queue/manifest.h"
#include "queue/spool.h"

enum { SUBMIT_FIRST_LINE_MAX = 64 * 1024 * 1024, SUBMIT_RCPTS_MAX = 1000 };

/* One open spool of a writer. */
struct submit {
    struct disk *disk;
    const struct clock *clock;
    struct random *random; /* for names; the caller's */
    int root;
    int tmp;
    int fresh; /* in/new */
};

/* The engine must have made the spool. */
int submit_open(struct submit *submit, struct disk *disk, const struct clock *clock,
                struct random *random, const char *root, struct spool_problem *ret_problem)
    __attribute__((warn_unused_result));
void submit_close(struct submit *submit);

/* The id under which the batch can be asked for. */
struct submit_id {
    char text[MANIFEST_ID_MAX + 1];
};

/* From a directory that holds what a batch holds. It is copied, and may be removed afterwards. */
int submit_directory(struct submit *submit, const char *path, struct submit_id *ret_id,
                     struct spool_problem *ret_problem) __attribute__((warn_unused_result));

/* From a message and a list of recipients (NAME.ndjson or NAME.csv). */
struct submit_files {
    const char *id; /* NULL: one is made */
    const char *from;
    const char *message_path;
    const char *recipients_path;
    const struct manifest_var *vars; /* for all recipients; UTF-8 */
    size_t vars_count;
    const char *max_reject; /* a number, or a share ("1%"); NULL: as batch.json's default */
    const char *missing;    /* NULL: likewise */
};
int submit_files(struct submit *submit, const struct submit_files *files, struct submit_id *ret_id,
                 struct spool_problem *ret_problem) __attribute__((warn_unused_result));

/* One mail, from flags. Not a template: "{{" stays as it is. */
struct submit_mail {
    const char *id;        /* NULL: one is made */
    const char *from;      /* "ann@example.org" or "Ann <ann@example.org>" */
    const char *const *to; /* one or more addresses each */
    size_t to_count;
    const char *subject; /* UTF-8 */
    struct span text;    /* UTF-8, LF or CRLF */
};
int submit_mail(struct submit *submit, const struct submit_mail *mail, struct submit_id *ret_id,
                struct spool_problem *ret_problem) __attribute__((warn_unused_result));

/*
 * The single-file form: the first line is batch.json with the message's text inline as "message";
 * what follows are recipient records (or, for kind "bsmtp", the messages). Fed as it comes. Ended
 * or abandoned exactly once after a begin that returned 0, whatever feed said.
 */
struct submit_stream {
    struct submit *submit;
    char making[64]; /* name in in/tmp */
    int dir;
    int file; /* -1 while the first line is gathered */
    uint64_t size;
    char *line;
    size_t line_size;
    size_t line_room;
};
int submit_stream_begin(struct submit *submit, struct submit_stream *stream,
                        struct spool_problem *ret_problem) __attribute__((warn_unused_result));
int submit_stream_feed(struct submit_stream *stream, struct span bytes,
                       struct spool_problem *ret_problem) __attribute__((warn_unused_result));
int submit_stream_end(struct submit_stream *stream, struct submit_id *ret_id,
                      struct spool_problem *ret_problem) __attribute__((warn_unused_result));
void submit_stream_abandon(struct submit_stream *stream);

/* Where a batch is, and how far. */
enum submit_state {
    SUBMIT_UNKNOWN, /* not in the spool (any more) */
    SUBMIT_WAITING, /* in in/new: not claimed yet */
    SUBMIT_ACTIVE,
    SUBMIT_HELD,
    SUBMIT_DONE,
    SUBMIT_FAILED,
};
struct submit_status {
    enum submit_state state;
    char path[SPOOL_PATH_MAX]; /* below the root */
    bool has_counts;
    uint64_t records, accepted, rejected;
    uint64_t pending, in_flight, deferred;
    uint64_t delivered, bounced, expired, cancelled, possible_duplicates;
    double rate_1m;
    int64_t eta_s;    /* -1: not known */
    char reason[768]; /* of FAILED and HELD */
};
/* One look, without waiting: call again when in/, active/ or time says so. The batch of that id
 * that is furthest back on its way; of several that are done, the last one. */
int submit_status_read(struct submit *submit, const char *id, struct submit_status *ret_status)
    __attribute__((warn_unused_result));
