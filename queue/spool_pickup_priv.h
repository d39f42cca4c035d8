/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_pickup_priv: what the files of spool_pickup share: spool_pickup.c (batches made of files),
 * spool_pickup_watch.c (which files are ready), spool_pickup_sources.c (what a batch was made of),
 * spool_pickup_message.c (one file as a BSMTP message; sans-I/O). Visible inside queue/ only.
 */
#pragma once

#include "engine/base/list.h"
#include "queue/spool.h"

enum {
    PICKUP_RCPTS_MAX = SCAN_RCPTS_MAX,
    PICKUP_HEADER_MAX = 256 * 1024,
    PICKUP_TAKEN_MAX = 65536,
    PICKUP_TAKEN_SLOTS = 2 * PICKUP_TAKEN_MAX,
    PICKUP_STRANGERS_MAX = 16,
    PICKUP_SOURCES_SIZE_MAX = SPOOL_PICKUP_FILES_MAX * (SPOOL_NAME_MAX + 80),
};

#define PICKUP_SOURCES_FILE "sources.list"
#define PICKUP_MAKING_END ".making"
#define PICKUP_BATCH_BEGIN "pickup-"

struct watched; /* spool_pickup_watch.c */

/* What a name is, by which it waits. */
enum pickup_kind {
    PICKUP_MAIL,
    PICKUP_NO_MAIL, /* a file of another name than .eml */
    PICKUP_NO_FILE, /* no regular file, or a name that cannot be told: it need not wait */
};
enum { PICKUP_KINDS_COUNT = PICKUP_NO_FILE + 1 };

/* A file as it was seen. */
struct pickup_source {
    char name[SPOOL_NAME_MAX + 1];
    struct disk_stat stat;
    struct watched *watched; /* of those ready: until it is forgotten */
};

struct spool_pickup {
    uint32_t serial; /* of batches made in this life */
    /* The batch of active/ whose sources are not known, one of them when there are several, "" when
     * there is none; and why. */
    char unread[SPOOL_NAME_MAX + 1];
    int unread_error;
    uint32_t taken_count;
    uint64_t taken[PICKUP_TAKEN_SLOTS]; /* 0: free */
    struct watched **buckets;           /* those under watch, by name */
    uint32_t watched_count;
    struct list queues[PICKUP_KINDS_COUNT];
    struct list taking;  /* those ready, until they are forgotten, or back in their queue */
    uint64_t left_count; /* names of the last listing that found no room */
    /* Of one look: */
    struct wall_time now;
    struct mono_time mono; /* files rest by it */
    uint64_t waiting_count;
    uint32_t files_max;
    uint32_t ready_count;
    bool has_more;
    struct pickup_source ready[SPOOL_PICKUP_FILES_MAX];
    uint32_t strangers_count;
    struct {
        char name[SPOOL_NAME_MAX + 1];
        const char *reason;
    } strangers[PICKUP_STRANGERS_MAX];
};

/* What stands in pickup/ now: who is ready, who waits, who has no business there. */
int spool_pickup_look(struct spool *spool, struct wall_time now, struct mono_time mono,
                      uint32_t files_max) __attribute__((warn_unused_result));
/* Behind a look: who is ready and was not forgotten is under watch again, in front. */
void spool_pickup_look_end(struct spool_pickup *pickup);
/* It is in a batch, or put aside. */
void spool_pickup_forget(struct spool_pickup *pickup, struct pickup_source *source);
/* The same file, untouched: inode, size and time. */
bool spool_pickup_is_same(const struct disk_stat *a, const struct disk_stat *b);
/* Keeps the file from being ready again; there must be room (PICKUP_TAKEN_MAX). */
void spool_pickup_add_taken(struct spool_pickup *pickup, const struct pickup_source *source);
void spool_pickup_remove_taken(struct spool_pickup *pickup, const struct pickup_source *source);
/* Whether the sources of all batches in active/ count as taken; looks again when they did not: an
 * open, as long as the same one cannot be read. */
bool spool_pickup_is_known(struct spool *spool);
/* A line of sources.list. */
void spool_pickup_put_source(struct writer *list, const struct pickup_source *source);
/* in/tmp/NAME with the files in it. What cannot be removed is left to spool_sweep_tmp. */
void spool_pickup_remove_making(struct spool *spool, const char *name);

/* Room that spool_pickup_convert needs at most for a file of that size. */
#define PICKUP_RECORD_MAX(size) (4 * (size_t)(size) + 64 * 1024)

/*
 * The envelope from x-sender / x-receiver lines, else from the header; those lines, Bcc and
 * Return-Path are left out; dots doubled, line ends CRLF. -EINVAL with the problem (without the
 * file's name) when nobody could rightly mail it.
 */
int spool_pickup_convert(struct span content, struct writer *ret_record,
                         struct spool_problem *ret_problem) __attribute__((warn_unused_result));
