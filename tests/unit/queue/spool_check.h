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

/* A disk of plain calls that fails every operation but close once `left` of them were done: what a
 * crash leaves, when what was done is on stable storage. `failing` fails that verb alone. */
struct check_disk {
    struct disk disk;
    struct disk *inner;
    int64_t left; /* -1: never fails */
    int failing;  /* enum disk_verb, -1: none */
    int error;
    uint64_t done;
};

static inline int64_t check_disk_run(struct disk *disk, struct disk_op *op)
{
    struct check_disk *check = CONTAINER_OF(disk, struct check_disk, disk);
    bool is_dead = op->verb != DISK_CLOSE && check->left == 0;
    if (is_dead || (int)op->verb == check->failing) {
        op->result = is_dead ? -EIO : check->error;
        return op->result;
    }
    if (op->verb != DISK_CLOSE) {
        check->left -= check->left > 0;
        check->done++;
    }
    return disk_run(check->inner, op);
}

static const struct disk_ops CHECK_DISK_OPS = {.run = check_disk_run};

static inline void check_disk_begin(struct check_disk *check, int64_t left)
{
    int error = 0;
    *check = (struct check_disk){.disk = {.ops = &CHECK_DISK_OPS}, .left = left, .failing = -1};
    check->inner = disk_plain_create(NULL, &error);
    ensure(check->inner != NULL);
}

static inline void check_disk_end(struct check_disk *check)
{
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
