/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_priv: what the files of spool share; visible inside queue/ only.
 */
#pragma once

#include "queue/spool.h"

struct spool_text {
    char text[SPOOL_PATH_MAX];
};

__attribute__((format(printf, 2, 3))) void spool_problem_set(struct spool_problem *problem,
                                                             const char *format, ...);
/* A foreign name for people: printable, whole. */
struct spool_text spool_show(const char *name);
/* What an errno means for somebody who must act. */
const char *spool_errno_words(int error);

/* Of the engine's own: it passes, and the thing that was looked at has no part in it. */
bool spool_is_want(int error);
/* True while the name is passed over. */
bool spool_is_muted(const struct spool *spool, enum spool_place place, const char *name,
                    struct wall_time now);
void spool_mute(struct spool *spool, enum spool_place place, const char *name,
                struct wall_time now);
/* A name that was listed is in in/new no more. */
void spool_new_gone(struct spool *spool);

/* A name that is free in the place: STEM + END, or STEM~2 + END ... ret_name has SPOOL_NAME_MAX + 1
 * bytes. */
int spool_free_name(struct spool *spool, int dir, const char *stem, const char *end, char *ret_name)
    __attribute__((warn_unused_result));
/* place/NAME -> badmail/NAME.bad (odd bytes of the name as _), with NAME.bad.reason beside it. What
 * cannot be moved is muted. Not durable: a crash brings the file back, to be refused again. */
int spool_refuse(struct spool *spool, enum spool_place place, const char *name, const char *reason,
                 struct wall_time now);
/* 0, or -EINVAL with the problem: kind, links, owner, mode, size. `path` is for people. */
int spool_stat_check(const struct spool *spool, const struct disk_stat *stat, bool is_directory,
                     uint64_t size_max, const char *path, struct spool_problem *ret_problem)
    __attribute__((warn_unused_result));
/* dir/NAME became dir_to/NAME_TO and cannot be made durable there: it goes back, so that who asked
 * can ask again. `error`, or -ENOTRECOVERABLE: not even that. */
int spool_move_back(struct spool *spool, int dir, const char *name, int dir_to, const char *name_to,
                    int error) __attribute__((warn_unused_result));
bool spool_name_ends(const char *name, const char *end);
/* Sorts names by their bytes. */
void spool_names_sort(struct spool_names *names);
/* Whole file into memory from malloc (at least one byte), at most size_max bytes: else -EFBIG. */
int spool_read_whole(struct spool *spool, int fd, uint64_t size, char **ret_bytes)
    __attribute__((warn_unused_result));

struct spool_pickup *spool_pickup_create(void);         /* NULL when there is no memory */
void spool_pickup_destroy(struct spool_pickup *pickup); /* NULL-safe */
/* The batch failed: its sources go to badmail/ with the reason; sources.list goes. */
int spool_pickup_fail(struct spool *spool, int batch_fd, const char *reason, struct wall_time now)
    __attribute__((warn_unused_result));
