/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

void disk_destroy(struct disk *disk)
{
    if (disk != NULL) {
        disk->ops->destroy(disk);
    }
}

int disk_open(struct disk *disk, int dir, const char *path, unsigned flags)
{
    ensure(path != NULL);
    struct disk_op op = {.verb = DISK_OPEN, .dir = dir, .path = path, .flags = flags};
    return (int)disk_run(disk, &op);
}

void disk_close(struct disk *disk, int fd)
{
    ensure(fd >= 0);
    struct disk_op op = {.verb = DISK_CLOSE, .fd = fd};
    (void)disk_run(disk, &op);
}

int disk_stat_at(struct disk *disk, int dir, const char *path, struct disk_stat *ret_stat)
{
    ensure(path != NULL && path[0] != '\0');
    struct disk_op op = {.verb = DISK_STAT, .dir = dir, .path = path};
    int result = (int)disk_run(disk, &op);
    if (result == 0) {
        *ret_stat = op.stat;
    }
    return result;
}

int disk_stat_fd(struct disk *disk, int fd, struct disk_stat *ret_stat)
{
    struct disk_op op = {.verb = DISK_STAT, .path = "", .fd = fd};
    int result = (int)disk_run(disk, &op);
    if (result == 0) {
        *ret_stat = op.stat;
    }
    return result;
}

int disk_list(struct disk *disk, int fd,
              void (*on_name)(void *context, const char *name, enum disk_kind kind), void *context)
{
    ensure(on_name != NULL);
    struct disk_op op = {.verb = DISK_LIST, .fd = fd, .on_name = on_name, .context = context};
    return (int)disk_run(disk, &op);
}

int disk_mkdir(struct disk *disk, int dir, const char *path)
{
    ensure(path != NULL);
    struct disk_op op = {.verb = DISK_MKDIR, .dir = dir, .path = path};
    return (int)disk_run(disk, &op);
}

int disk_rename(struct disk *disk, int dir, const char *path, int dir_to, const char *path_to)
{
    ensure(path != NULL);
    ensure(path_to != NULL);
    struct disk_op op = {
        .verb = DISK_RENAME, .dir = dir, .path = path, .dir_to = dir_to, .path_to = path_to};
    return (int)disk_run(disk, &op);
}

int disk_unlink(struct disk *disk, int dir, const char *path)
{
    ensure(path != NULL);
    struct disk_op op = {.verb = DISK_UNLINK, .dir = dir, .path = path};
    return (int)disk_run(disk, &op);
}

int64_t disk_read(struct disk *disk, int fd, void *at, size_t size, uint64_t offset)
{
    struct disk_op op = {.verb = DISK_READ, .fd = fd, .at = at, .size = size, .offset = offset};
    return disk_run(disk, &op);
}

/* A write does not touch the bytes; the op has one pointer for both directions. */
int64_t disk_write(struct disk *disk, int fd, const void *at, size_t size, uint64_t offset)
{
    struct disk_op op = {
        .verb = DISK_WRITE, .fd = fd, .at = (void *)(uintptr_t)at, .size = size, .offset = offset};
    return disk_run(disk, &op);
}

int disk_datasync(struct disk *disk, int fd)
{
    struct disk_op op = {.verb = DISK_DATASYNC, .fd = fd};
    return (int)disk_run(disk, &op);
}

int disk_sync(struct disk *disk, int fd)
{
    struct disk_op op = {.verb = DISK_SYNC, .fd = fd};
    return (int)disk_run(disk, &op);
}

/* Of "a/b" the place of "a" with its slash: 2. */
static size_t parent_size(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash - path) + 1 : 0;
}

/* "a/b" -> "a/.b.tmp": hidden from those who list the directory, and on the same file system. */
static int temporary_name(const char *path, char *ret_name, size_t size)
{
    size_t parent = parent_size(path);
    int length = snprintf(ret_name, size, "%.*s.%s.tmp", (int)parent, path, path + parent);
    return length < 0 || (size_t)length >= size ? -ENAMETOOLONG : 0;
}

/* Returns the descriptor, or -errno. */
static int content_put(struct disk *disk, int dir, const char *name, struct span content)
{
    int fd = disk_open(disk, dir, name, DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    if (fd < 0) {
        return fd;
    }
    int64_t written = disk_write(disk, fd, content.at, content.size, 0);
    ensure(written < 0 || (size_t)written == content.size);
    if (written < 0) {
        disk_close(disk, fd);
    }
    return written < 0 ? (int)written : fd;
}

static int content_write(struct disk *disk, int dir, const char *name, struct span content,
                         bool is_durable)
{
    int fd = content_put(disk, dir, name, content);
    if (fd < 0) {
        return fd;
    }
    int result = is_durable ? disk_datasync(disk, fd) : 0;
    disk_close(disk, fd);
    return result;
}

/* Syncs the directory in which the name lies, which need not be `dir` itself. */
static int parent_sync(struct disk *disk, int dir, const char *path)
{
    char parent[PATH_MAX];
    size_t size = parent_size(path);
    ensure(size + 1 < sizeof(parent)); /* the temporary name was longer */
    (void)snprintf(parent, sizeof(parent), "%.*s", size > 0 ? (int)size : 1, size > 0 ? path : ".");
    int fd = disk_open(disk, dir, parent, DISK_READONLY | DISK_DIRECTORY);
    if (fd < 0) {
        return fd;
    }
    int result = disk_sync(disk, fd);
    disk_close(disk, fd);
    return result;
}

int disk_write_file(struct disk *disk, int dir, const char *path, struct span content,
                    bool is_durable)
{
    char name[PATH_MAX];
    int result = temporary_name(path, name, sizeof(name));
    if (result != 0) {
        return result;
    }
    result = content_write(disk, dir, name, content, is_durable);
    if (result == 0) {
        result = disk_rename(disk, dir, name, dir, path);
    }
    if (result != 0) {
        (void)disk_unlink(disk, dir, name);
        return result;
    }
    return is_durable ? parent_sync(disk, dir, path) : 0;
}

static int file_put(struct disk *disk, struct disk_file *file)
{
    char name[NAME_MAX + 1];
    ensure(parent_size(file->path) == 0);
    int result = temporary_name(file->path, name, sizeof(name));
    if (result != 0) {
        return result;
    }
    file->fd = content_put(disk, file->dir, name, file->content);
    if (file->fd < 0) {
        (void)disk_unlink(disk, file->dir, name);
    }
    return file->fd < 0 ? file->fd : 0;
}

/* Its bytes are durable, or not: it gets its name, or goes. */
static int file_name(struct disk *disk, struct disk_file *file, int result)
{
    char name[NAME_MAX + 1];
    ensure(temporary_name(file->path, name, sizeof(name)) == 0);
    disk_close(disk, file->fd);
    if (result == 0) {
        result = disk_rename(disk, file->dir, name, file->dir, file->path);
    }
    if (result != 0) {
        (void)disk_unlink(disk, file->dir, name);
    }
    return result;
}

/* One sync for each file that has not failed: of itself, or of its directory. */
static void files_sync(struct disk *disk, struct disk_file *files, size_t count, bool is_of_names)
{
    struct disk_op ops[DISK_FILES_MAX];
    size_t ops_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (files[i].result == 0) {
            ops[ops_count++] = (struct disk_op){.verb = is_of_names ? DISK_SYNC : DISK_DATASYNC,
                                                .fd = is_of_names ? files[i].dir : files[i].fd,
                                                .user = &files[i]};
        }
    }
    disk_run_all(disk, ops, ops_count);
    for (size_t i = 0; i < ops_count; i++) {
        struct disk_file *file = ops[i].user;
        file->result = is_of_names ? (int)ops[i].result : file_name(disk, file, (int)ops[i].result);
    }
}

void disk_write_files(struct disk *disk, struct disk_file *files, size_t count)
{
    ensure(count <= DISK_FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        files[i].result = file_put(disk, &files[i]);
    }
    files_sync(disk, files, count, false);
    files_sync(disk, files, count, true);
}
