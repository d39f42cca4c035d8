/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blocklog: a disk that remembers. A FUSE directory with one file, `disk`, kept in IMAGE; what is
 * written to it, and each flush, is also appended to LOG, in one order. A file system on a loop
 * device over `disk` is thus recorded at the level of blocks: powerloss.py makes of the log what a
 * power failure could have left at any moment.
 *
 * blocklog MOUNTPOINT IMAGE LOG    runs until it is unmounted
 *
 * A log entry, little-endian: u64 monotonic nanoseconds, u64 offset, u32 kind, u32 size; of a write
 * its bytes. One thread: an entry in front of a flush was written when that flush came. (A device
 * promises that only for what was finished before the flush was sent: this one is a little kinder.)
 */
#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/clock.h"

enum entry_kind { ENTRY_WRITE = 1, ENTRY_FLUSH = 2 };

struct entry {
    uint64_t at_ns;
    uint64_t offset;
    uint32_t kind;
    uint32_t size;
};

static const char DISK_PATH[] = "/disk";
static int image_fd;
static FILE *log_file;

static int entry_add(enum entry_kind kind, uint64_t offset, const char *bytes, size_t size)
{
    const struct entry entry = {
        .at_ns = (uint64_t)clock_mono(clock_system()).ns,
        .offset = offset,
        .kind = kind,
        .size = (uint32_t)size,
    };
    bool is_whole = fwrite(&entry, sizeof(entry), 1, log_file) == 1 &&
                    (size == 0 || fwrite(bytes, size, 1, log_file) == 1);
    /* Whoever reads along sees whole epochs. */
    return is_whole && (kind != ENTRY_FLUSH || fflush(log_file) == 0) ? 0 : -EIO;
}

static int on_getattr(const char *path, struct stat *stat, struct fuse_file_info *info)
{
    (void)info;
    memset(stat, 0, sizeof(*stat));
    if (strcmp(path, "/") == 0) {
        stat->st_mode = S_IFDIR | 0755;
        stat->st_nlink = 2;
        return 0;
    }
    if (strcmp(path, DISK_PATH) != 0) {
        return -ENOENT;
    }
    return fstat(image_fd, stat) == 0 ? 0 : -errno;
}

static int on_open(const char *path, struct fuse_file_info *info)
{
    info->direct_io = 1; /* every write comes here at once, and in the size it was made */
    return strcmp(path, DISK_PATH) == 0 ? 0 : -ENOENT;
}

static int on_read(const char *path, char *bytes, size_t size, off_t offset,
                   struct fuse_file_info *info)
{
    (void)path;
    (void)info;
    ssize_t got = pread(image_fd, bytes, size, offset);
    return got < 0 ? -errno : (int)got;
}

static int on_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    (void)path;
    (void)info;
    if (pwrite(image_fd, bytes, size, offset) != (ssize_t)size) {
        return -EIO;
    }
    int result = entry_add(ENTRY_WRITE, (uint64_t)offset, bytes, size);
    return result == 0 ? (int)size : result;
}

static int on_fsync(const char *path, int is_datasync, struct fuse_file_info *info)
{
    (void)path;
    (void)is_datasync;
    (void)info;
    return entry_add(ENTRY_FLUSH, 0, NULL, 0);
}

int main(int argc, char **argv)
{
    static const struct fuse_operations OPERATIONS = {
        .getattr = on_getattr,
        .open = on_open,
        .read = on_read,
        .write = on_write,
        .fsync = on_fsync,
    };
    if (argc != 4) {
        (void)fprintf(stderr, "usage: blocklog MOUNTPOINT IMAGE LOG\n");
        return 2;
    }
    image_fd = open(argv[2], O_RDWR | O_CLOEXEC);
    log_file = fopen(argv[3], "wbe");
    if (image_fd < 0 || log_file == NULL) {
        perror(image_fd < 0 ? argv[2] : argv[3]);
        return 1;
    }
    char *arguments[] = {argv[0], argv[1], (char[]){"-f"}, (char[]){"-s"}, NULL};
    int status = fuse_main(4, arguments, &OPERATIONS, NULL);
    return fclose(log_file) == 0 ? status : 1;
}
