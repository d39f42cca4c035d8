/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_disk: the disk seam over a file system in memory, with what a crash does to it.
 *
 * One `struct sim_disk` is one file system; any number of `struct disk` (one an actor) see it. Each
 * file has what programs see and what is on stable storage; each directory likewise for its names.
 * DATASYNC and SYNC of a file make its bytes and size stable, as they were when the sync was
 * submitted; SYNC of a directory its names. A new file's existence is stable only when its
 * directory was synced.
 *
 * sim_disk_crash (power loss): everything falls back to what is stable; of what was written since,
 * each 512-byte sector of a file and each change of a name survives by the seed's chance. A rename
 * survives whole or not at all, and not without the creation of what it moves; otherwise changes of
 * names survive in any order: no journalling file system is that bad, some are nearly so.
 * sim_disk_kill (the program dies): nothing is lost, and nothing becomes stable by it. After both
 * the disks made before are dead: their descriptors are gone, their ops fail, they must be
 * destroyed.
 *
 * Faults: sim_disk_fail_at makes the n-th operation from now fail with an error, once or from then
 * on. A write that fails may have written a part; of what a failed sync of a file should have
 * made stable each part is made so, or is never going to be (what Linux does after EIO); names that
 * a failed sync of a directory leaves behind can be synced again. -ENOSPC meets only what needs
 * space. Views without a waker are the test's own: their ops neither count nor fail.
 *
 * Completion: ops submitted complete at virtual times drawn from the seed (up to delay_max_ns
 * later), in any order; they take effect then; disk_reap hands out what is due by the clock.
 * sim_disk_next tells the earliest. `wait` lets all that is under way in its view complete at once.
 *
 * Bounds: SIM_DISK_NODES_MAX files and directories, SIM_DISK_FDS_MAX descriptors a view (a bug of
 * the test beyond); memory is the heap's, this is test code. One thread.
 */
#pragma once

#include "engine/base/clock.h"
#include "engine/base/disk.h"
#include "engine/base/random.h"

enum { SIM_DISK_NODES_MAX = 65536, SIM_DISK_FDS_MAX = 65536 };

struct sim_disk;

struct sim_disk *sim_disk_create(const struct clock *clock, uint64_t seed, int64_t delay_max_ns);
/* After all its views. NULL-safe. */
void sim_disk_destroy(struct sim_disk *world);
/* A view for one actor; destroyed by disk_destroy. */
struct disk *sim_disk_view(struct sim_disk *world, struct waker *waker);
void sim_disk_crash(struct sim_disk *world);
void sim_disk_kill(struct sim_disk *world);
/* The n-th operation from now (n >= 1) returns `error` (-EIO ...); n 0 = none does any more. */
void sim_disk_fail_at(struct sim_disk *world, uint64_t n, int error, bool is_sticky);
/* Behind the n-th operation from now nothing works any more (n 0: takes it back), until a crash or
 * a kill: so an engine dies between two operations of one step. */
void sim_disk_stop_at(struct sim_disk *world, uint64_t n);
bool sim_disk_is_stopped(const struct sim_disk *world);
/* Operations of views with a waker so far. */
uint64_t sim_disk_ops_count(const struct sim_disk *world);
/* Operations that have failed by sim_disk_fail_at. */
uint64_t sim_disk_failures_count(const struct sim_disk *world);
/* Earliest completion under way in any view, in one; MONO_NEVER when none. */
struct mono_time sim_disk_next(const struct sim_disk *world);
struct mono_time sim_disk_view_next(const struct disk *view);
/* Bytes that FREE_SPACE tells and that writes may still take. */
void sim_disk_set_free(struct sim_disk *world, uint64_t bytes);
/* For tests: a whole file by path from the root; -errno when it is not there. Valid until the next
 * operation. */
int sim_disk_peek(struct sim_disk *world, const char *path, struct span *ret_content);
/* What a disk cannot be asked for through the seam: a link or a special file, stable at once. 0 or
 * -errno. */
int sim_disk_put_odd(struct sim_disk *world, const char *path, enum disk_kind kind);
