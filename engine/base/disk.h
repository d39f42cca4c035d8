/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk: the disk seam. All file work of the engine goes through a `struct disk` that one actor owns
 * (intake and journal have one each; workers have none: DESIGN 2).
 *
 * One operation is one `struct disk_op`: the caller fills in the question, the disk fills in
 * `result` (>= 0, or -errno). Two ways to run it:
 *
 * - disk_run, now: returns with the result. For the small operations on names (open, stat, list,
 *   rename, unlink, mkdir) whose cost is bounded and mostly in memory, for writes of small files,
 *   and at start and stop.
 * - disk_submit, completion style: the op belongs to the disk until disk_reap hands it back. For
 *   what may take milliseconds: reads of message bytes, appends and syncs of the journal. Ops
 *   complete in any order; a sync covers only appends completed before it was submitted.
 *
 * Bound: ops in flight (submitted and not yet reaped) <= DISK_OPS_MAX a disk; disk_submit returns
 * -EAGAIN beyond (reap first).
 *
 * Paths: relative to a directory descriptor that an earlier open returned (DISK_ROOT = the working
 * directory or an absolute path). Opens never follow a symbolic link in any component below the
 * given directory (openat2 RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH when `dir` is not DISK_ROOT) and
 * are O_CLOEXEC | O_NONBLOCK.
 *
 * Implementations: disk_uring_create (production), disk_plain_create (fallback; submit runs at
 * once), tests/sim/sim_disk (simulated, with crashes). One conformance suite runs against all.
 *
 * Files are named by small integers (`fd`) that mean something only to the disk that opened them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/inbox.h"
#include "engine/base/list.h"

enum disk_verb {
    DISK_OPEN,  /* dir, path, flags -> fd */
    DISK_CLOSE, /* fd */
    /* dir, path (empty or NULL: fd itself, given in `fd`) -> fills stat; never follows a link */
    DISK_STAT,
    /* fd of a directory: calls on_name for each entry but . and .., always from the first */
    DISK_LIST,
    DISK_MKDIR, /* dir, path; mode 0770 */
    /* dir, path -> dir_to, path_to; replaces a file or a link; a directory that is there, even an
     * empty one, is -EEXIST, whatever is renamed onto it */
    DISK_RENAME,
    DISK_UNLINK, /* dir, path: a file */
    DISK_RMDIR,  /* dir, path: an empty directory */
    DISK_READ,   /* fd, at, size, offset -> bytes read; short only at the end of file */
    /* fd, at, size, offset -> bytes written; all or -errno (a short write is finished or failed) */
    DISK_WRITE,
    DISK_DATASYNC, /* fd: data and the size are on stable storage (fdatasync) */
    DISK_SYNC,     /* fd: with metadata; of a directory: its names (fsync) */
    DISK_TRUNCATE, /* fd, size */
    /* fd, size: the first `size` bytes have their blocks; the file grows to `size` when it is
     * shorter; bytes never written read as zero, written ones stay */
    DISK_ALLOCATE,
    DISK_LOCK,       /* fd: an exclusive lock that dies with the fd; else -EWOULDBLOCK */
    DISK_FREE_SPACE, /* fd: bytes free on its file system, in `stat.size` */
};
enum { DISK_VERBS_COUNT = DISK_FREE_SPACE + 1 };

enum disk_flags {
    DISK_READONLY = 1u << 0,
    DISK_READWRITE = 1u << 1,
    DISK_CREATE = 1u << 2,    /* with READWRITE; mode 0660 */
    DISK_EXCLUSIVE = 1u << 3, /* with CREATE: -EEXIST when it is there */
    DISK_DIRECTORY = 1u << 4,
    DISK_EMPTY = 1u << 5, /* O_TRUNC */
    /* With DIRECTORY: only a way to the names below it, which takes no right to read it; it can be
     * neither listed nor synced. */
    DISK_PASSAGE = 1u << 6,
};

enum disk_kind { DISK_KIND_FILE, DISK_KIND_DIRECTORY, DISK_KIND_LINK, DISK_KIND_OTHER };

struct disk_stat {
    enum disk_kind kind;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t inode;
    uint32_t links_count;
    uint32_t owner_uid;
    uint32_t mode; /* permission bits */
};

enum { DISK_ROOT = -100, DISK_OPS_MAX = 256, DISK_FILES_MAX = 32 };

struct disk_op {
    enum disk_verb verb;
    int dir;
    const char *path;
    int dir_to;
    const char *path_to;
    unsigned flags; /* enum disk_flags */
    int fd;
    void *at;
    size_t size;
    uint64_t offset;
    void (*on_name)(void *context, const char *name, enum disk_kind kind);
    void *context; /* of on_name */
    struct disk_stat stat;
    int64_t result;   /* out */
    struct list link; /* the disk's while submitted, the caller's otherwise */
    void *user;       /* the caller's */
};

struct disk;

struct disk_ops {
    int64_t (*run)(struct disk *disk, struct disk_op *op);
    /* Side by side, and returns when all are done; NULL: one behind the other. Syncs only. */
    void (*run_all)(struct disk *disk, struct disk_op *ops, size_t count);
    int (*submit)(struct disk *disk, struct disk_op *op);
    struct disk_op *(*reap)(struct disk *disk); /* NULL when none is complete */
    /* Starts telling of new and written names in the directory (-1: stops all telling): `wait` is
     * woken (simulated: the waker is signalled) and `watch_fired` set. 0 or -errno. */
    int (*watch)(struct disk *disk, int dir_fd);
    /* True once after each change; always true once after the watch overflowed. */
    bool (*watch_fired)(struct disk *disk);
    /* Production only: sleeps until a completion, a watch, the waker (of the owning actor) or the
     * deadline (ns from now, -1 = none). */
    void (*wait)(struct disk *disk, int64_t timeout_ns);
    void (*destroy)(struct disk *disk);
};

struct disk {
    const struct disk_ops *ops;
};

/* `waker`: of the owning actor; may be NULL in tests. NULL + *ret_error (-errno) on failure. */
struct disk *disk_uring_create(struct waker *waker, int *ret_error);
struct disk *disk_plain_create(struct waker *waker, int *ret_error);

static inline int64_t disk_run(struct disk *disk, struct disk_op *op)
{
    ensure((unsigned)op->verb < DISK_VERBS_COUNT);
    return disk->ops->run(disk, op);
}

/* Syncs (DISK_SYNC, DISK_DATASYNC) that are waited for together: file systems do many at once for
 * little more than one costs. At most DISK_FILES_MAX; each op has its own result. */
static inline void disk_run_all(struct disk *disk, struct disk_op *ops, size_t count)
{
    if (disk->ops->run_all != NULL) {
        disk->ops->run_all(disk, ops, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        (void)disk_run(disk, &ops[i]);
    }
}

static inline int disk_submit(struct disk *disk, struct disk_op *op)
{
    ensure((unsigned)op->verb < DISK_VERBS_COUNT);
    return disk->ops->submit(disk, op);
}

static inline struct disk_op *disk_reap(struct disk *disk)
{
    return disk->ops->reap(disk);
}

/* NULL-safe. Waits for the ops in flight, which stay the caller's. Not before the owner is done. */
void disk_destroy(struct disk *disk);

/* Shorthands over disk_run; each returns the op's result. */
int disk_open(struct disk *disk, int dir, const char *path, unsigned flags);
void disk_close(struct disk *disk, int fd);
int disk_stat_at(struct disk *disk, int dir, const char *path, struct disk_stat *ret_stat);
int disk_stat_fd(struct disk *disk, int fd, struct disk_stat *ret_stat);
int disk_list(struct disk *disk, int fd,
              void (*on_name)(void *context, const char *name, enum disk_kind kind), void *context);
int disk_mkdir(struct disk *disk, int dir, const char *path);
int disk_rename(struct disk *disk, int dir, const char *path, int dir_to, const char *path_to);
int disk_unlink(struct disk *disk, int dir, const char *path);
int64_t disk_read(struct disk *disk, int fd, void *at, size_t size, uint64_t offset);
int64_t disk_write(struct disk *disk, int fd, const void *at, size_t size, uint64_t offset);
int disk_datasync(struct disk *disk, int fd);
int disk_sync(struct disk *disk, int fd);
/* Writes a whole small file atomically: temporary name, write, datasync when `is_durable`, rename,
 * sync of `dir` when `is_durable`. */
int disk_write_file(struct disk *disk, int dir, const char *path, struct span content,
                    bool is_durable);
/* One of several small files that are written together. */
struct disk_file {
    int dir;
    const char *path; /* a name in `dir` */
    struct span content;
    int fd;     /* while it is written */
    int result; /* out: 0 or -errno */
};
/* Each as disk_write_file does it, durably; the syncs run side by side. At most DISK_FILES_MAX. */
void disk_write_files(struct disk *disk, struct disk_file *files, size_t count);
