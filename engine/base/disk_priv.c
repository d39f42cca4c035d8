/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/base/clock.h"

enum { FILE_MODE = 0660, DIRECTORY_MODE = 0770, LIST_BUFFER_SIZE = 16384 };

/* One call's share of a read or write: what every kernel takes in one go. */
enum { CALL_SIZE_MAX = 1 << 30 };

/* Below a directory of ours no component may be a link and none may lead out again: the spool is
 * written by others. Under DISK_ROOT the path comes from the configuration and is trusted. */
static int open_guarded(int dir, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve =
            dir == DISK_ROOT ? 0 : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd;
    do {
        fd = syscall(SYS_openat2, dir == DISK_ROOT ? AT_FDCWD : dir, path, &how, sizeof(how));
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : (int)fd;
}

/* O_NONBLOCK is for the open alone, which must not wait for the other end of a FIFO. On a regular
 * file it would make io_uring give back -EAGAIN on file systems that cannot try without blocking.
 */
static int clear_nonblock(int fd)
{
    struct stat stat;
    if (fstat(fd, &stat) != 0) {
        return -errno;
    }
    if (!S_ISREG(stat.st_mode)) {
        return 0;
    }
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0 ? -errno : 0;
}

static int64_t run_open(const struct disk_op *op)
{
    static const struct {
        unsigned disk;
        int system;
    } flags[] = {
        {DISK_CREATE, O_CREAT},
        {DISK_EXCLUSIVE, O_EXCL},
        {DISK_DIRECTORY, O_DIRECTORY},
        {DISK_EMPTY, O_TRUNC},
    };
    bool is_write = (op->flags & DISK_READWRITE) != 0;
    ensure(op->path != NULL);
    ensure(is_write || (op->flags & (DISK_CREATE | DISK_EMPTY)) == 0);
    ensure((op->flags & DISK_CREATE) != 0 || (op->flags & DISK_EXCLUSIVE) == 0);

    ensure((op->flags & DISK_PASSAGE) == 0 || op->flags == (DISK_PASSAGE | DISK_DIRECTORY));

    int system = O_NONBLOCK | O_NOCTTY | (is_write ? O_RDWR : O_RDONLY);
    system = (op->flags & DISK_PASSAGE) != 0 ? O_PATH : system;
    for (size_t i = 0; i < COUNT_OF(flags); i++) {
        system |= (op->flags & flags[i].disk) != 0 ? flags[i].system : 0;
    }
    int fd = open_guarded(op->dir, op->path, system, (system & O_CREAT) != 0 ? FILE_MODE : 0);
    if (fd < 0) {
        return fd;
    }
    int error = clear_nonblock(fd);
    if (error != 0) {
        (void)close(fd);
        return error;
    }
    return fd;
}

/*
 * Where a name lives. The calls on names follow links in every component but the last, so a path of
 * several components below a directory of ours is opened up to the last one under guard first.
 */
struct place {
    int dir;
    const char *name;
    bool is_opened;
};

static int place_find(int dir, const char *path, struct place *ret_place)
{
    ensure(path != NULL);
    const char *slash = strrchr(path, '/');
    if (dir == DISK_ROOT || slash == NULL) {
        if (dir != DISK_ROOT && strcmp(path, "..") == 0) {
            return -EXDEV;
        }
        *ret_place = (struct place){.dir = dir == DISK_ROOT ? AT_FDCWD : dir, .name = path};
        return 0;
    }
    char parent[PATH_MAX];
    size_t size = (size_t)(slash - path);
    if (size >= sizeof(parent)) {
        return -ENAMETOOLONG;
    }
    if (size == 0 || strcmp(slash + 1, "..") == 0) {
        return -EXDEV;
    }
    memcpy(parent, path, size);
    parent[size] = '\0';
    int fd = open_guarded(dir, parent, O_PATH | O_DIRECTORY, 0);
    if (fd < 0) {
        return fd;
    }
    *ret_place = (struct place){.dir = fd, .name = slash + 1, .is_opened = true};
    return 0;
}

static void place_leave(struct place *place)
{
    if (place->is_opened) {
        (void)close(place->dir);
    }
}

static enum disk_kind kind_of_mode(mode_t mode)
{
    if (S_ISREG(mode)) {
        return DISK_KIND_FILE;
    }
    if (S_ISDIR(mode)) {
        return DISK_KIND_DIRECTORY;
    }
    return S_ISLNK(mode) ? DISK_KIND_LINK : DISK_KIND_OTHER;
}

static int64_t run_stat(struct disk_op *op)
{
    struct stat stat;
    int result;
    if (op->path == NULL || op->path[0] == '\0') {
        result = fstat(op->fd, &stat) != 0 ? -errno : 0;
    } else {
        struct place place;
        result = place_find(op->dir, op->path, &place);
        if (result == 0) {
            result = fstatat(place.dir, place.name, &stat, AT_SYMLINK_NOFOLLOW) != 0 ? -errno : 0;
            place_leave(&place);
        }
    }
    if (result != 0) {
        return result;
    }
    op->stat = (struct disk_stat){
        .kind = kind_of_mode(stat.st_mode),
        .size = (uint64_t)stat.st_size,
        .mtime_ns = stat.st_mtim.tv_sec * NS_PER_S + stat.st_mtim.tv_nsec,
        .inode = stat.st_ino,
        .links_count = (uint32_t)stat.st_nlink,
        .owner_uid = stat.st_uid,
        .mode = stat.st_mode & 07777,
    };
    return 0;
}

static enum disk_kind kind_of_entry(int fd, const struct dirent64 *entry)
{
    switch (entry->d_type) {
    case DT_REG:
        return DISK_KIND_FILE;
    case DT_DIR:
        return DISK_KIND_DIRECTORY;
    case DT_LNK:
        return DISK_KIND_LINK;
    case DT_UNKNOWN: {
        struct stat stat;
        bool is_known = fstatat(fd, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW) == 0;
        return is_known ? kind_of_mode(stat.st_mode) : DISK_KIND_OTHER;
    }
    default:
        return DISK_KIND_OTHER;
    }
}

static int64_t run_list(const struct disk_op *op)
{
    ensure(op->on_name != NULL);
    if (lseek(op->fd, 0, SEEK_SET) < 0) {
        return -errno;
    }
    for (;;) {
        _Alignas(struct dirent64) char buffer[LIST_BUFFER_SIZE];
        ssize_t size = getdents64(op->fd, buffer, sizeof(buffer));
        if (size <= 0) {
            return size < 0 ? -errno : 0;
        }
        for (ssize_t at = 0; at < size;) {
            const struct dirent64 *entry = (const struct dirent64 *)(const void *)(buffer + at);
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
                op->on_name(op->context, entry->d_name, kind_of_entry(op->fd, entry));
            }
            at += entry->d_reclen;
        }
    }
}

static int64_t run_mkdir(const struct disk_op *op)
{
    struct place place;
    int result = place_find(op->dir, op->path, &place);
    if (result == 0) {
        result = mkdirat(place.dir, place.name, DIRECTORY_MODE) != 0 ? -errno : 0;
        place_leave(&place);
    }
    return result;
}

static int64_t run_unlink(const struct disk_op *op, int flags)
{
    struct place place;
    int result = place_find(op->dir, op->path, &place);
    if (result == 0) {
        result = unlinkat(place.dir, place.name, flags) != 0 ? -errno : 0;
        place_leave(&place);
    }
    return result;
}

/* rename(2) would replace an empty directory silently. So the first try replaces nothing; the
 * second, which may, is made only when a look says that no directory is there. */
static int rename_between(const struct place *from, const struct place *to)
{
    if (renameat2(from->dir, from->name, to->dir, to->name, RENAME_NOREPLACE) == 0) {
        return 0;
    }
    if (errno != EEXIST && errno != EINVAL) {
        return -errno;
    }
    struct stat stat;
    if (fstatat(to->dir, to->name, &stat, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(stat.st_mode)) {
        return -EEXIST;
    }
    return renameat(from->dir, from->name, to->dir, to->name) != 0 ? -errno : 0;
}

static int64_t run_rename(const struct disk_op *op)
{
    struct place from;
    struct place to;
    int result = place_find(op->dir, op->path, &from);
    if (result != 0) {
        return result;
    }
    result = place_find(op->dir_to, op->path_to, &to);
    if (result == 0) {
        result = rename_between(&from, &to);
        place_leave(&to);
    }
    place_leave(&from);
    return result;
}

static size_t call_size(size_t left)
{
    return left < CALL_SIZE_MAX ? left : CALL_SIZE_MAX;
}

static int64_t run_read(const struct disk_op *op)
{
    ensure(op->at != NULL || op->size == 0);
    size_t done = 0;
    while (done < op->size) {
        ssize_t size = pread(op->fd, (char *)op->at + done, call_size(op->size - done),
                             (off_t)(op->offset + done));
        if (size == 0) {
            break;
        }
        if (size > 0) {
            done += (size_t)size;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return (int64_t)done;
}

static int64_t run_write(const struct disk_op *op)
{
    ensure(op->at != NULL || op->size == 0);
    size_t done = 0;
    while (done < op->size) {
        ssize_t size = pwrite(op->fd, (const char *)op->at + done, call_size(op->size - done),
                              (off_t)(op->offset + done));
        if (size > 0) {
            done += (size_t)size;
        } else if (size == 0) {
            return -EIO; /* no progress and no reason: not a file we can use */
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return (int64_t)done;
}

/* A signal during the call says nothing about the data; any other error does, and is never retried:
 * the kernel may have dropped the pages and would report success the second time. */
static int64_t run_sync(int fd, int (*sync)(int fd))
{
    int result;
    do {
        result = sync(fd);
    } while (result != 0 && errno == EINTR);
    return result != 0 ? -errno : 0;
}

/* Where the file system has no fallocate, zeros are written behind the end. */
static int64_t run_allocate(const struct disk_op *op)
{
    int result;
    do {
        result = fallocate(op->fd, 0, 0, (off_t)op->size);
    } while (result != 0 && errno == EINTR);
    if (result == 0 || errno != EOPNOTSUPP) {
        return result != 0 ? -errno : 0;
    }
    struct stat stat;
    if (fstat(op->fd, &stat) != 0) {
        return -errno;
    }
    static char zeros[64 * 1024];
    for (uint64_t at = (uint64_t)stat.st_size; at < op->size;) {
        uint64_t left = op->size - at;
        struct disk_op write = {.fd = op->fd, .at = zeros, .offset = at};
        write.size = left < sizeof(zeros) ? (size_t)left : sizeof(zeros);
        int64_t written = run_write(&write);
        if (written < 0) {
            return written;
        }
        at += (uint64_t)written;
    }
    return 0;
}

static int64_t run_truncate(const struct disk_op *op)
{
    int result;
    do {
        result = ftruncate(op->fd, (off_t)op->size);
    } while (result != 0 && errno == EINTR);
    return result != 0 ? -errno : 0;
}

static int64_t run_free_space(struct disk_op *op)
{
    struct statvfs space;
    if (fstatvfs(op->fd, &space) != 0) {
        return -errno;
    }
    op->stat = (struct disk_stat){.size = (uint64_t)space.f_bavail * space.f_frsize};
    return 0;
}

static int64_t run_verb(struct disk_op *op)
{
    switch (op->verb) {
    case DISK_OPEN:
        return run_open(op);
    case DISK_CLOSE: /* on Linux the descriptor is gone whatever close says */
        return close(op->fd) != 0 && errno != EINTR ? -errno : 0;
    case DISK_STAT:
        return run_stat(op);
    case DISK_LIST:
        return run_list(op);
    case DISK_MKDIR:
        return run_mkdir(op);
    case DISK_RENAME:
        return run_rename(op);
    case DISK_UNLINK:
        return run_unlink(op, 0);
    case DISK_RMDIR:
        return run_unlink(op, AT_REMOVEDIR);
    case DISK_READ:
        return run_read(op);
    case DISK_WRITE:
        return run_write(op);
    case DISK_DATASYNC:
        return run_sync(op->fd, fdatasync);
    case DISK_SYNC:
        return run_sync(op->fd, fsync);
    case DISK_TRUNCATE:
        return run_truncate(op);
    case DISK_ALLOCATE:
        return run_allocate(op);
    case DISK_LOCK: /* flock, because it also keeps two descriptors of one process apart */
        return flock(op->fd, LOCK_EX | LOCK_NB) != 0 ? -errno : 0;
    case DISK_FREE_SPACE:
        return run_free_space(op);
    }
    ensure(false);
    return -EINVAL;
}

int64_t disk_priv_run(struct disk_op *op)
{
    op->result = run_verb(op);
    return op->result;
}

void disk_watch_init(struct disk_watch *watch)
{
    *watch = (struct disk_watch){.inotify_fd = -1};
}

void disk_watch_deinit(struct disk_watch *watch)
{
    if (watch->inotify_fd >= 0) {
        (void)close(watch->inotify_fd);
    }
    disk_watch_init(watch);
}

/* A directory that is gone took its watch along: then there is nothing to remove. */
static void watch_stop(struct disk_watch *watch)
{
    for (uint32_t i = 0; i < watch->count; i++) {
        (void)inotify_rm_watch(watch->inotify_fd, watch->ids[i]);
    }
    watch->count = 0;
    (void)disk_watch_drain(watch);
}

static int watch_add(struct disk_watch *watch, int dir_fd)
{
    ensure(watch->inotify_fd >= 0);
    ensure(watch->count <= DISK_WATCHES_MAX);
    char path[sizeof("/proc/self/fd/-2147483648")];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", dir_fd);
    uint32_t events = IN_MOVED_TO | IN_CLOSE_WRITE | IN_CREATE | IN_ONLYDIR;
    int id = inotify_add_watch(watch->inotify_fd, path, events);
    if (id < 0) {
        return -errno;
    }
    for (uint32_t i = 0; i < watch->count; i++) {
        if (watch->ids[i] == id) {
            return 0;
        }
    }
    if (watch->count == DISK_WATCHES_MAX) {
        (void)inotify_rm_watch(watch->inotify_fd, id);
        return -ENOSPC;
    }
    watch->ids[watch->count++] = id;
    return 0;
}

int disk_watch_set(struct disk_watch *watch, int dir_fd)
{
    if (dir_fd < 0) {
        watch_stop(watch);
        return 0;
    }
    if (watch->inotify_fd < 0) {
        watch->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (watch->inotify_fd < 0) {
            return -errno;
        }
    }
    return watch_add(watch, dir_fd);
}

/* What happened does not matter, not even an overflow: the reader scans the directory anyway. */
bool disk_watch_drain(struct disk_watch *watch)
{
    bool has_fired = false;
    while (watch->inotify_fd >= 0) {
        _Alignas(struct inotify_event) char events[4096];
        ssize_t size = read(watch->inotify_fd, events, sizeof(events));
        if (size > 0) {
            has_fired = true;
        } else if (size == 0 || errno != EINTR) {
            break;
        }
    }
    return has_fired;
}
