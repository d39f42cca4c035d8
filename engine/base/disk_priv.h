/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_priv: what the two disks of the real world share: the plain system calls behind every verb,
 * and the watch on a directory. Inside engine/base only.
 *
 * Owner: the disk that calls, hence its actor. Errors are -errno in the op's result.
 */
#pragma once

#include "engine/base/disk.h"

/* Runs the op to its end with plain calls; returns and stores its result. */
int64_t disk_priv_run(struct disk_op *op);

enum { DISK_WATCHES_MAX = 64 };

/* One inotify descriptor, -1 until the first watch; it then stays, because a ring may poll it. */
struct disk_watch {
    int inotify_fd;
    uint32_t count;
    int ids[DISK_WATCHES_MAX];
};

void disk_watch_init(struct disk_watch *watch);
void disk_watch_deinit(struct disk_watch *watch);
/* Adds a directory, -ENOSPC beyond the bound; -1 stops all watches. 0 or -errno. */
int disk_watch_set(struct disk_watch *watch, int dir_fd) __attribute__((warn_unused_result));
/* True when something happened since the last call; reads all there is. */
bool disk_watch_drain(struct disk_watch *watch);
