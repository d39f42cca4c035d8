/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_check: what the spool tests share: a directory that goes away, files by path, and a disk
 * that stops working after so many operations.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/disk.h"
#include "engine/base/list.h"
#include "queue/spool.h"
#include "tests/harness.h"

/* One test's directory; all paths below are relative to it. */
static char base[64];

static inline const char *at(const char *path)
{
    static char whole[4][1024];
    static unsigned turn;
    char *text = whole[turn++ % 4];
    (void)snprintf(text, sizeof(whole[0]), "%s/%s", base, path);
    return text;
}

static inline void base_begin(void)
{
    /* In memory where that is possible: what is tested is order, not the disk. */
    const char *parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    (void)snprintf(base, sizeof(base), "%s/ramjet-test-XXXXXX", parent);
    ensure(mkdtemp(base) != NULL);
    (void)umask(022);
}

static inline int remove_entry(const char *path, const struct stat *stat, int kind, struct FTW *ftw)
{
    (void)stat;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static inline void base_end(void)
{
    (void)nftw(base, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void put_file(const char *path, struct span content)
{
    int fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0640);
    ensure(fd >= 0);
    ensure(write(fd, content.at, content.size) == (ssize_t)content.size);
    (void)close(fd);
}

static inline void put_text(const char *path, const char *text)
{
    put_file(path, span_of_text(text));
}

static inline void make_directory(const char *path)
{
    ensure(mkdir(at(path), 0750) == 0);
}

static inline bool exists(const char *path)
{
    struct stat stat;
    return lstat(at(path), &stat) == 0;
}

/* The file's text, or "" when it is not there. */
static inline const char *text_of(const char *path)
{
    static char text[4][256 * 1024];
    static unsigned turn;
    char *content = text[turn++ % 4];
    int fd = open(at(path), O_RDONLY);
    ssize_t size = fd < 0 ? 0 : read(fd, content, sizeof(text[0]) - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    content[size > 0 ? size : 0] = '\0';
    return content;
}

static inline uint32_t names_count(const char *path)
{
    DIR *directory = opendir(at(path));
    uint32_t count = 0;
    ensure(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    (void)closedir(directory);
    return count - 2;
}

/*
 * A disk of plain calls that fails every operation but close once `left` of them were done: what is
 * there then is what a crash of the program leaves. check_disk_settle takes back what no sync made
 * stable, as a loss of power may: names by the sync of their directory (a rename by that of either:
 * it is one step of the file system's journal), bytes by the sync of their file. Bytes whose sync
 * has failed no later one makes stable, until they are written again. `failing` fails that verb
 * alone.
 */
enum { CHANGES_MAX = 512, LOSSES_COUNT = 8 };

struct check_change {
    enum disk_verb verb; /* OPEN: created; WRITE: first write since the last sync */
    bool is_stable;
    bool is_lost; /* of WRITE: a sync of it has failed */
    int dir;      /* our own descriptors; they stay right whatever is renamed above them */
    int dir_to;
    ino_t inode; /* of dir, or of the file that was written */
    ino_t inode_to;
    uint64_t place; /* hash of where it was, to choose by */
    off_t size;     /* of WRITE: before it */
    char name[SPOOL_NAME_MAX + 1];
    char name_to[SPOOL_NAME_MAX + 1];
};

struct check_disk {
    struct disk disk;
    struct disk *inner;
    int64_t left; /* -1: never fails */
    int failing;  /* enum disk_verb, -1: none */
    int error;
    uint64_t done;
    int kept; /* directory of links to what was unlinked */
    uint32_t changes_count;
    struct check_change changes[CHANGES_MAX];
};

static inline ino_t inode_of(int fd)
{
    struct stat stat;
    return fstat(fd, &stat) == 0 ? stat.st_ino : 0;
}

/* The directory in which the path's last part lies, opened, with that part. */
static inline int parent_of(int dir, const char *path, char *ret_name, uint64_t *ret_place)
{
    char parent[600];
    const char *slash = strrchr(path, '/');
    (void)snprintf(ret_name, SPOOL_NAME_MAX + 1, "%s", slash != NULL ? slash + 1 : path);
    (void)snprintf(parent, sizeof(parent), "%.*s", slash != NULL ? (int)(slash - path) : 1,
                   slash != NULL ? path : ".");
    int fd = openat(dir == DISK_ROOT ? AT_FDCWD : dir, parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    char link[64];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, parent, sizeof(parent) - 1);
    *ret_place = 1469598103934665603u; /* FNV-1a of the last part of the directory's path */
    for (ssize_t i = size; i > 0 && parent[i - 1] != '/'; i--) {
        *ret_place = (*ret_place ^ (unsigned char)parent[i - 1]) * 1099511628211u;
    }
    return fd;
}

static inline void change_add(struct check_disk *check, const struct check_change *change)
{
    ensure(check->changes_count < CHANGES_MAX);
    check->changes[check->changes_count++] = *change;
}

static inline void change_note_write(struct check_disk *check, const struct disk_op *op)
{
    struct stat stat;
    ensure(fstat(op->fd, &stat) == 0);
    for (uint32_t i = 0; i < check->changes_count; i++) {
        struct check_change *change = &check->changes[i];
        if (change->verb == DISK_WRITE && change->inode == stat.st_ino && !change->is_stable) {
            change->is_lost = change->is_lost && op->offset > (uint64_t)change->size;
            return;
        }
    }
    struct check_change change = {.verb = DISK_WRITE,
                                  .dir = dup(op->fd),
                                  .dir_to = -1,
                                  .inode = stat.st_ino,
                                  .place = check->changes_count,
                                  .size = stat.st_size};
    change_add(check, &change);
}

/* Before the operation: what it takes to undo it. */
static inline void change_note(struct check_disk *check, const struct disk_op *op)
{
    bool is_create = op->verb == DISK_OPEN && (op->flags & DISK_CREATE) != 0;
    if (op->verb == DISK_WRITE) {
        change_note_write(check, op);
        return;
    }
    if (!is_create && op->verb != DISK_RENAME && op->verb != DISK_UNLINK &&
        op->verb != DISK_MKDIR) {
        return;
    }
    struct stat stat;
    struct check_change change = {.verb = op->verb, .dir_to = -1};
    change.dir = parent_of(op->dir, op->path, change.name, &change.place);
    change.inode = inode_of(change.dir);
    bool is_there = fstatat(change.dir, change.name, &stat, AT_SYMLINK_NOFOLLOW) == 0;
    if ((op->verb == DISK_OPEN || op->verb == DISK_MKDIR) == is_there) {
        (void)close(change.dir);
        return; /* nothing will change */
    }
    if (op->verb == DISK_RENAME) {
        uint64_t place;
        change.dir_to = parent_of(op->dir_to, op->path_to, change.name_to, &place);
        change.inode_to = inode_of(change.dir_to);
    }
    if (op->verb == DISK_UNLINK) {
        change.dir_to = dup(check->kept);
        (void)snprintf(change.name_to, sizeof(change.name_to), "%u",
                       (unsigned)check->changes_count);
        ensure(linkat(change.dir, change.name, change.dir_to, change.name_to, 0) == 0);
    }
    change_add(check, &change);
}

static inline void changes_lose(struct check_disk *check, const struct disk_op *op)
{
    for (uint32_t i = 0; op->verb == DISK_DATASYNC && i < check->changes_count; i++) {
        struct check_change *change = &check->changes[i];
        change->is_lost |= change->verb == DISK_WRITE && change->inode == inode_of(op->fd);
    }
}

static inline void changes_sync(struct check_disk *check, const struct disk_op *op)
{
    if (op->verb == DISK_SYNC || op->verb == DISK_DATASYNC) {
        ino_t inode = inode_of(op->fd);
        for (uint32_t i = 0; i < check->changes_count; i++) {
            struct check_change *change = &check->changes[i];
            change->is_stable |=
                !change->is_lost && (change->inode == inode || change->inode_to == inode);
        }
    }
}

static inline void change_undo(const struct check_change *change)
{
    if (change->verb == DISK_WRITE) {
        ensure(ftruncate(change->dir, change->size) == 0);
    } else if (change->verb == DISK_RENAME || change->verb == DISK_UNLINK) {
        (void)renameat(change->dir_to, change->name_to, change->dir, change->name);
    } else {
        (void)unlinkat(change->dir, change->name, change->verb == DISK_MKDIR ? AT_REMOVEDIR : 0);
    }
}

/*
 * Forgets how to undo, but first undoes, the latest change first, what is not stable and `loss`
 * chooses: 0 nothing, 1 everything, above (< LOSSES_COUNT) some directories and files and others
 * not.
 */
static inline void check_disk_settle(struct check_disk *check, int loss)
{
    while (check->changes_count > 0) {
        const struct check_change *change = &check->changes[--check->changes_count];
        bool is_chosen = loss == 1 || (loss > 1 && (change->place >> (7 * loss) & 1) != 0);
        if (!change->is_stable && is_chosen) {
            change_undo(change);
        }
        (void)close(change->dir);
        if (change->verb == DISK_UNLINK) {
            (void)unlinkat(change->dir_to, change->name_to, 0);
        }
        if (change->dir_to >= 0) {
            (void)close(change->dir_to);
        }
    }
}

static inline int64_t check_disk_run(struct disk *disk, struct disk_op *op)
{
    struct check_disk *check = CONTAINER_OF(disk, struct check_disk, disk);
    bool is_dead = op->verb != DISK_CLOSE && check->left == 0;
    if (is_dead || (int)op->verb == check->failing) {
        changes_lose(check, op);
        op->result = is_dead ? -EIO : check->error;
        return op->result;
    }
    if (op->verb != DISK_CLOSE) {
        check->left -= check->left > 0;
        check->done++;
    }
    if (check->left >= 0) {
        change_note(check, op);
    }
    int64_t result = disk_run(check->inner, op);
    changes_sync(check, op);
    return result;
}

static const struct disk_ops CHECK_DISK_OPS = {.run = check_disk_run};

static inline void check_disk_begin(struct check_disk *check, int64_t left)
{
    int error = 0;
    memset(check, 0, sizeof(*check));
    check->disk.ops = &CHECK_DISK_OPS;
    check->left = left;
    check->failing = -1;
    (void)mkdir(at("kept"), 0750);
    check->kept = open(at("kept"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check->inner = disk_plain_create(NULL, &error);
    ensure(check->inner != NULL);
}

static inline void check_disk_end(struct check_disk *check)
{
    check_disk_settle(check, 0);
    (void)close(check->kept);
    disk_destroy(check->inner);
}

static inline struct wall_time wall_s(int64_t seconds)
{
    return (struct wall_time){.ns = seconds * NS_PER_S};
}

static inline struct spool_config spool_config_of(struct check_disk *check)
{
    return (struct spool_config){.disk = &check->disk,
                                 .root = base,
                                 .process_id = 4711,
                                 .file_size_max = UINT64_C(1) << 40,
                                 .message_size_max = 1u << 20};
}
