/* SPDX-License-Identifier: Apache-2.0 */
/*
 * badfs: a file system that says no when it is told to. FUSE, everything goes through to DIRECTORY,
 * but for what a rule refuses or delays.
 *
 * badfs MOUNTPOINT DIRECTORY    runs until it is unmounted
 *
 * What is written to the file `.faults` in its root are the rules from then on, all of them:
 *
 *     KIND PART ERROR        ops of this kind on paths that hold PART (- = any) fail
 *     KIND PART slow MS      they take so much longer
 *
 * KIND: read write create open rename remove mkdir list fsync fsyncdir (fsync: of a file),
 * allocate truncate change (whatever changes something, syncs left out). ERROR: EIO ENOSPC EROFS
 * EMFILE EDQUOT. Who reads `.faults` gets the number of ops refused so far. Without the kernel's
 * cache: each read and write comes here.
 */
#define FUSE_USE_VERSION 31

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { RULES_MAX = 16, WORD_MAX = 64, TEXT_MAX = 4096 };

enum kind {
    KIND_READ,
    KIND_WRITE,
    KIND_CREATE,
    KIND_OPEN,
    KIND_RENAME,
    KIND_REMOVE,
    KIND_MKDIR,
    KIND_LIST,
    KIND_FSYNC,
    KIND_FSYNCDIR,
    KIND_ALLOCATE,
    KIND_TRUNCATE,
    KIND_CHANGE,
};

static const char *const KINDS[] = {"read",     "write",    "create", "open",  "rename",
                                    "remove",   "mkdir",    "list",   "fsync", "fsyncdir",
                                    "allocate", "truncate", "change"};

static const struct {
    const char *name;
    int value;
} ERRORS[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EROFS", EROFS},
              {"EMFILE", EMFILE}, {"EDQUOT", EDQUOT}, {"slow", 0}};

struct rule {
    enum kind kind;
    char part[WORD_MAX];
    int error; /* 0: slow */
    int delay_ms;
};

/* Never changed once it is in `rules`, and never freed: a reader may hold it. */
struct rules {
    size_t count;
    struct rule rows[RULES_MAX];
};

static const char FAULTS[] = "/.faults";
static const struct rules NONE;
static _Atomic(const struct rules *) rules = &NONE;
static _Atomic unsigned long refused_count;
static int root;

static int index_of(const char *word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(word, words[i]) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static int rule_parse(const char *line, struct rule *ret_rule)
{
    char kind[WORD_MAX], part[WORD_MAX], error[WORD_MAX];
    int delay_ms = 0;
    if (sscanf(line, "%63s %63s %63s %d", kind, part, error, &delay_ms) < 3) {
        return -EINVAL;
    }
    int which = index_of(kind, KINDS, sizeof(KINDS) / sizeof(KINDS[0]));
    for (size_t i = 0; which >= 0 && i < sizeof(ERRORS) / sizeof(ERRORS[0]); i++) {
        if (strcmp(error, ERRORS[i].name) == 0) {
            *ret_rule = (struct rule){
                .kind = (enum kind)which, .error = ERRORS[i].value, .delay_ms = delay_ms};
            (void)snprintf(ret_rule->part, WORD_MAX, "%s", strcmp(part, "-") == 0 ? "" : part);
            return 0;
        }
    }
    return -EINVAL;
}

static int rules_take(const char *bytes, size_t size)
{
    char text[TEXT_MAX + 1];
    struct rules *next = calloc(1, sizeof(*next));
    if (next == NULL || size > TEXT_MAX) {
        free(next);
        return -ENOMEM;
    }
    memcpy(text, bytes, size);
    text[size] = '\0';
    for (const char *line = text; line[0] != '\0'; line += strcspn(line, "\n")) {
        line += strspn(line, "\n");
        if (line[0] == '\0') {
            break;
        }
        if (next->count == RULES_MAX || rule_parse(line, &next->rows[next->count++]) != 0) {
            free(next);
            return -EINVAL;
        }
    }
    atomic_store(&rules, next);
    return (int)size;
}

/* 0, or what the op is to fail with. */
static int judge(enum kind kind, const char *path)
{
    const struct rules *now = atomic_load(&rules);
    bool is_sync = kind == KIND_FSYNC || kind == KIND_FSYNCDIR;
    bool is_change = !is_sync && kind != KIND_READ && kind != KIND_OPEN && kind != KIND_LIST;
    for (size_t i = 0; i < now->count; i++) {
        const struct rule *rule = &now->rows[i];
        bool is_kind = rule->kind == kind || (rule->kind == KIND_CHANGE && is_change);
        if (!is_kind || strstr(path == NULL ? "" : path, rule->part) == NULL) {
            continue;
        }
        if (rule->error == 0) {
            (void)poll(NULL, 0, rule->delay_ms);
            continue;
        }
        atomic_fetch_add(&refused_count, 1);
        return -rule->error;
    }
    return 0;
}

static const char *below(const char *path)
{
    return path[1] == '\0' ? "." : path + 1;
}

static int outcome(int result)
{
    return result < 0 ? -errno : 0;
}

static int on_getattr(const char *path, struct stat *stat, struct fuse_file_info *info)
{
    if (path != NULL && strcmp(path, FAULTS) == 0) {
        *stat = (struct stat){.st_mode = S_IFREG | 0600, .st_nlink = 1};
        return 0;
    }
    if (info != NULL && info->fh != 0) {
        return outcome(fstat((int)info->fh, stat));
    }
    return outcome(fstatat(root, below(path), stat, AT_SYMLINK_NOFOLLOW));
}

static int on_open(const char *path, struct fuse_file_info *info)
{
    info->direct_io = 1;
    if (strcmp(path, FAULTS) == 0) {
        info->fh = 0;
        return 0;
    }
    int result = judge((info->flags & O_TRUNC) != 0 ? KIND_TRUNCATE : KIND_OPEN, path);
    if (result != 0) {
        return result;
    }
    int fd = openat(root, below(path), info->flags & ~O_NOFOLLOW);
    info->fh = fd < 0 ? 0 : (uint64_t)fd;
    return fd < 0 ? -errno : 0;
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *info)
{
    info->direct_io = 1;
    int result = judge(KIND_CREATE, path);
    if (result != 0) {
        return result;
    }
    int fd = openat(root, below(path), info->flags | O_CREAT, mode);
    info->fh = fd < 0 ? 0 : (uint64_t)fd;
    return fd < 0 ? -errno : 0;
}

static int on_read(const char *path, char *bytes, size_t size, off_t offset,
                   struct fuse_file_info *info)
{
    if (info->fh == 0) {
        char text[32];
        int length = snprintf(text, sizeof(text), "%lu\n", atomic_load(&refused_count));
        size_t left = offset < length ? (size_t)(length - offset) : 0;
        left = left < size ? left : size;
        memcpy(bytes, text + (left == 0 ? 0 : offset), left);
        return (int)left;
    }
    int result = judge(KIND_READ, path);
    if (result != 0) {
        return result;
    }
    ssize_t got = pread((int)info->fh, bytes, size, offset);
    return got < 0 ? -errno : (int)got;
}

static int on_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *info)
{
    if (info->fh == 0) {
        return rules_take(bytes, size);
    }
    int result = judge(KIND_WRITE, path);
    if (result != 0) {
        return result;
    }
    ssize_t done = pwrite((int)info->fh, bytes, size, offset);
    return done < 0 ? -errno : (int)done;
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *info)
{
    if (path != NULL && strcmp(path, FAULTS) == 0) {
        return 0;
    }
    int result = judge(KIND_TRUNCATE, path);
    if (result != 0) {
        return result;
    }
    int fd = info != NULL ? (int)info->fh : openat(root, below(path), O_WRONLY | O_CLOEXEC);
    result = fd < 0 ? -errno : outcome(ftruncate(fd, size));
    if (info == NULL && fd >= 0) {
        (void)close(fd);
    }
    return result;
}

static int on_fallocate(const char *path, int mode, off_t offset, off_t size,
                        struct fuse_file_info *info)
{
    int result = judge(KIND_ALLOCATE, path);
    return result != 0 ? result : outcome(fallocate((int)info->fh, mode, offset, size));
}

static int on_release(const char *path, struct fuse_file_info *info)
{
    (void)path;
    return info->fh == 0 ? 0 : outcome(close((int)info->fh));
}

static int on_fsync(const char *path, int is_datasync, struct fuse_file_info *info)
{
    int result = info->fh == 0 ? 0 : judge(KIND_FSYNC, path);
    if (result != 0 || info->fh == 0) {
        return result;
    }
    return outcome(is_datasync ? fdatasync((int)info->fh) : fsync((int)info->fh));
}

static int on_opendir(const char *path, struct fuse_file_info *info)
{
    int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    info->fh = fd < 0 ? 0 : (uint64_t)fd;
    return fd < 0 ? -errno : 0;
}

static int on_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *info, enum fuse_readdir_flags flags)
{
    (void)offset;
    (void)flags;
    int result = judge(KIND_LIST, path);
    int fd = result == 0 ? openat((int)info->fh, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    DIR *names = fd < 0 ? NULL : fdopendir(fd);
    if (names == NULL) {
        return result != 0 ? result : -errno;
    }
    const struct dirent *entry;
    while ((entry = readdir(names)) != NULL) {
        const struct stat stat = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
        if (fill(buffer, entry->d_name, &stat, 0, 0) != 0) {
            break;
        }
    }
    (void)closedir(names);
    return 0;
}

static int on_fsyncdir(const char *path, int is_datasync, struct fuse_file_info *info)
{
    (void)is_datasync;
    int result = judge(KIND_FSYNCDIR, path);
    return result != 0 ? result : outcome(fsync((int)info->fh));
}

static int on_mkdir(const char *path, mode_t mode)
{
    int result = judge(KIND_MKDIR, path);
    return result != 0 ? result : outcome(mkdirat(root, below(path), mode));
}

static int on_mknod(const char *path, mode_t mode, dev_t device)
{
    int result = judge(KIND_CREATE, path);
    return result != 0 ? result : outcome(mknodat(root, below(path), mode, device));
}

static int on_unlink(const char *path)
{
    int result = judge(KIND_REMOVE, path);
    return result != 0 ? result : outcome(unlinkat(root, below(path), 0));
}

static int on_rmdir(const char *path)
{
    int result = judge(KIND_REMOVE, path);
    return result != 0 ? result : outcome(unlinkat(root, below(path), AT_REMOVEDIR));
}

static int on_rename(const char *from, const char *to, unsigned flags)
{
    int result = judge(KIND_RENAME, to);
    return result != 0 ? result : outcome(renameat2(root, below(from), root, below(to), flags));
}

static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *info)
{
    (void)info;
    return outcome(fchmodat(root, below(path), mode, 0));
}

static int on_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info)
{
    (void)info;
    return outcome(utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int on_statfs(const char *path, struct statvfs *space)
{
    (void)path;
    return outcome(fstatvfs(root, space));
}

static void *on_init(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection;
    config->hard_remove = 1;
    config->use_ino = 1;
    config->nullpath_ok = 0;
    config->entry_timeout = 0;
    config->attr_timeout = 0;
    config->negative_timeout = 0;
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct fuse_operations OPERATIONS = {
        .init = on_init,
        .getattr = on_getattr,
        .open = on_open,
        .create = on_create,
        .read = on_read,
        .write = on_write,
        .truncate = on_truncate,
        .fallocate = on_fallocate,
        .release = on_release,
        .fsync = on_fsync,
        .opendir = on_opendir,
        .releasedir = on_release,
        .readdir = on_readdir,
        .fsyncdir = on_fsyncdir,
        .mkdir = on_mkdir,
        .mknod = on_mknod,
        .unlink = on_unlink,
        .rmdir = on_rmdir,
        .rename = on_rename,
        .chmod = on_chmod,
        .utimens = on_utimens,
        .statfs = on_statfs,
    };
    if (argc != 3) {
        (void)fprintf(stderr, "usage: badfs MOUNTPOINT DIRECTORY\n");
        return 2;
    }
    root = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        perror(argv[2]);
        return 1;
    }
    (void)umask(0);
    char *arguments[] = {argv[0], argv[1], (char[]){"-f"}, NULL};
    return fuse_main(3, arguments, &OPERATIONS, NULL);
}
