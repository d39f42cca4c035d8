/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash_disk: the disk seam over a small file system in memory that loses what was not synced.
 *
 * Each file has the bytes that programs see and those on stable storage; each directory likewise
 * for its names. DATASYNC and SYNC of a file make stable what was in it when the sync was
 * submitted; SYNC of a directory its names. Submitted ops take effect when they are reaped, in the
 * order of the seed
 * (`is_shuffled`) or of submission.
 *
 * crash_disk_crash: of what was written and not synced, and of each name that was changed, each
 * 512-byte sector and each name is kept by chance; descriptors and ops in flight are gone. With
 * CRASH_PROGRAM only the program dies: all that was written is seen, and still not stable.
 *
 * For one thread. Bounds: CRASH_NODES_MAX files, CRASH_NAMES_MAX names; beyond is a bug of the
 * test.
 */
#pragma once

#include "engine/base/disk.h"
#include "engine/base/random.h"

enum {
    CRASH_NODES_MAX = 512,
    CRASH_NAMES_MAX = 512,
    CRASH_FDS_MAX = 1024,
    CRASH_TEXT_SIZE = 192,
    CRASH_ROOT = 0, /* node of the root directory */
    CRASH_PROGRAM = 1000,
};

struct crash_bytes {
    char *at;
    size_t size;
    size_t room;
};

struct crash_node {
    bool is_used;
    bool is_directory;
    struct crash_bytes seen;
    struct crash_bytes stable;
    uint64_t stable_at; /* submission of the sync that made it so */
};

struct crash_name {
    int directory; /* node */
    int node;
    char text[CRASH_TEXT_SIZE];
};

struct crash_names {
    struct crash_name rows[CRASH_NAMES_MAX];
    size_t count;
};

struct crash_disk {
    struct disk disk; /* first */
    struct random random;
    bool is_shuffled;
    uint32_t reaps_left; /* so many ops complete before the disk stalls */
    struct crash_node nodes[CRASH_NODES_MAX];
    struct crash_names seen;
    struct crash_names stable;
    int fds[CRASH_FDS_MAX]; /* node + 1, 0 = free */
    struct list in_flight;
    uint32_t in_flight_count;
    uint64_t submits_count;
    uint64_t ops_count; /* that change something */
    uint64_t fail_at;   /* this op and, when sticky, all later ones fail; 0 = none */
    bool is_sticky;
    int error;
    /* Told of each op that is run, or submitted and later complete. */
    void (*on_op)(void *context, const struct disk_op *op, bool is_complete);
    void *context;
};

void crash_disk_init(struct crash_disk *disk, uint64_t seed);
void crash_disk_deinit(struct crash_disk *disk);
/* `keep_percent`: 0 loses all that was not synced, 100 nothing; or CRASH_PROGRAM. */
void crash_disk_crash(struct crash_disk *disk, uint32_t keep_percent);
/* The content of a file as programs see it, for tests to look at and to damage. NULL: not there. */
struct crash_bytes *crash_disk_file(struct crash_disk *disk, const char *path);
/* A file to be read by others: made, or emptied and filled; stable. */
void crash_disk_put(struct crash_disk *disk, const char *path, struct span content);
void crash_disk_remove(struct crash_disk *disk, const char *path);
/* What a crash would leave, in another disk; this one goes on as if nothing had happened. */
void crash_disk_crash_copy(struct crash_disk *to, const struct crash_disk *from, uint64_t seed,
                           uint32_t keep_percent);
