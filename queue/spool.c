/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/text.h"
#include "queue/spool_priv.h"

enum { SUFFIX_MAX = 1 << 24, OTHERS_MAY_WRITE = 0002 };

#define BATCH_END ".batch"
#define BAD_END ".bad"

static const char *const PLACE_NAMES[] = {
    [SPOOL_IN_TMP] = "in/tmp",   [SPOOL_IN_NEW] = "in/new",   [SPOOL_IN_CTL] = "in/ctl",
    [SPOOL_PICKUP] = "pickup",   [SPOOL_BADMAIL] = "badmail", [SPOOL_ACTIVE] = "active",
    [SPOOL_HOLD] = "hold",       [SPOOL_DONE] = "done",       [SPOOL_FAILED] = "failed",
    [SPOOL_JOURNAL] = "journal", [SPOOL_LOG] = "log",
};
_Static_assert(COUNT_OF(PLACE_NAMES) == SPOOL_PLACES_COUNT, "a name for every place");

const char *spool_place_name(enum spool_place place)
{
    return PLACE_NAMES[place];
}

void spool_problem_set(struct spool_problem *problem, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(problem->text, sizeof(problem->text), format, arguments);
    va_end(arguments);
}

struct spool_text spool_show(const char *name)
{
    struct spool_text shown;
    struct writer writer = writer_of(shown.text, sizeof(shown.text) - 1);
    for (const char *at = name; *at != '\0'; at++) {
        text_put_escaped(&writer, span_of(at, 1));
    }
    *writer.at = '\0';
    return shown;
}

const char *spool_errno_words(int error)
{
    switch (-error) {
    case ENOENT:
        return "is not there";
    case EACCES:
    case EPERM:
        return "the engine may not read or move it: chmod g+rwX (umask 0007), with a group that "
               "the engine is in";
    case ELOOP:
        return "is a link: links are not followed";
    case ENOTDIR:
        return "is not a directory";
    case ENXIO:
    case ENODEV:
        return "is not a regular file";
    case ENOSPC:
    case EDQUOT:
        return "no space is left on the disk";
    case EXDEV:
        return "is on another file system";
    case EISDIR:
    case EEXIST:
    case ENOTEMPTY:
        return "a directory, or another thing, of that name is in the way: move it away";
    case EIO:
        return "the disk failed: see dmesg";
    default:
        return strerror(-error);
    }
}

static int mkdir_if_missing(struct disk *disk, int dir, const char *path)
{
    int result = disk_mkdir(disk, dir, path);
    return result == -EEXIST ? 0 : result;
}

/* The directories, opened. Their names are durable when it returns 0. */
static int layout_open(struct spool *spool, const char **ret_path)
{
    struct disk *disk = spool->disk;
    *ret_path = "in";
    int result = mkdir_if_missing(disk, spool->root, "in");
    for (size_t i = 0; i < SPOOL_PLACES_COUNT && result == 0; i++) {
        *ret_path = PLACE_NAMES[i];
        result = mkdir_if_missing(disk, spool->root, PLACE_NAMES[i]);
        if (result == 0) {
            spool->places[i] =
                disk_open(disk, spool->root, PLACE_NAMES[i], DISK_READONLY | DISK_DIRECTORY);
            result = spool->places[i] < 0 ? spool->places[i] : 0;
        }
    }
    if (result != 0) {
        return result;
    }
    *ret_path = "in";
    int in = disk_open(disk, spool->root, "in", DISK_READONLY | DISK_DIRECTORY);
    if (in < 0) {
        return in;
    }
    result = disk_sync(disk, in);
    disk_close(disk, in);
    result = result == 0 ? disk_sync(disk, spool->root) : result;
    /* What an engine that was killed has moved must not come back when the power fails later: its
     * going, or its coming, is what the journal is told next. */
    result = result == 0 ? disk_sync(disk, spool->places[SPOOL_IN_NEW]) : result;
    return result == 0 ? disk_sync(disk, spool->places[SPOOL_ACTIVE]) : result;
}

/* The number of who has the lock stands in the file, for people. */
static int lock_take(struct spool *spool, struct spool_problem *ret_problem)
{
    struct disk *disk = spool->disk;
    char holder[24] = "";
    spool->lock = disk_open(disk, spool->root, "lock", DISK_READWRITE | DISK_CREATE);
    if (spool->lock < 0) {
        return spool->lock;
    }
    struct disk_op op = {.verb = DISK_LOCK, .fd = spool->lock};
    int result = (int)disk_run(disk, &op);
    if (result == -EWOULDBLOCK) {
        (void)disk_read(disk, spool->lock, holder, sizeof(holder) - 1, 0);
        holder[strcspn(holder, " \n")] = '\0';
        spool_problem_set(ret_problem,
                          "%s: another engine (process %s) works in this spool: stop it first, or "
                          "give this one a spool of its own",
                          spool->config.root, spool_show(holder).text);
    }
    if (result != 0) {
        return result;
    }
    (void)snprintf(holder, sizeof(holder), "%-20u\n", (unsigned)spool->config.process_id);
    int64_t written = disk_write(disk, spool->lock, holder, strlen(holder), 0);
    return written < 0 ? (int)written : 0;
}

static int spool_open_parts(struct spool *spool, struct spool_problem *ret_problem)
{
    const char *path = "";
    int result = mkdir_if_missing(spool->disk, DISK_ROOT, spool->config.root);
    if (result == 0) {
        spool->root =
            disk_open(spool->disk, DISK_ROOT, spool->config.root, DISK_READONLY | DISK_DIRECTORY);
        result = spool->root < 0 ? spool->root : 0;
    }
    if (result == 0) {
        path = "lock";
        result = lock_take(spool, ret_problem);
        if (result == -EWOULDBLOCK) {
            return result;
        }
    }
    if (result == 0) {
        result = layout_open(spool, &path);
    }
    if (result == 0) {
        spool->pickup = spool_pickup_create();
        result = spool->pickup == NULL ? -ENOMEM : 0;
    }
    if (result != 0) {
        spool_problem_set(ret_problem, "%s/%s: %s", spool->config.root, path,
                          spool_errno_words(result));
    }
    return result;
}

int spool_open(struct spool *spool, const struct spool_config *config,
               struct spool_problem *ret_problem)
{
    ensure(config->file_size_max > 0);
    ensure(config->message_size_max > 0);
    *spool = (struct spool){.disk = config->disk, .config = *config, .root = -1, .lock = -1};
    for (size_t i = 0; i < SPOOL_PLACES_COUNT; i++) {
        spool->places[i] = -1;
    }
    int result = spool_open_parts(spool, ret_problem);
    if (result != 0) {
        spool_close(spool);
    }
    return result;
}

static void close_if_open(struct spool *spool, int *fd)
{
    if (*fd >= 0) {
        disk_close(spool->disk, *fd);
        *fd = -1;
    }
}

void spool_close(struct spool *spool)
{
    spool_pickup_destroy(spool->pickup);
    spool->pickup = NULL;
    for (size_t i = 0; i < SPOOL_PLACES_COUNT; i++) {
        close_if_open(spool, &spool->places[i]);
    }
    close_if_open(spool, &spool->lock);
    close_if_open(spool, &spool->root);
}

int spool_places_renew(struct spool *spool)
{
    static const enum spool_place PLACES[] = {SPOOL_DONE, SPOOL_FAILED, SPOOL_HOLD, SPOOL_BADMAIL};
    int result = 0;
    for (size_t i = 0; i < COUNT_OF(PLACES) && result == 0; i++) {
        result = mkdir_if_missing(spool->disk, spool->root, PLACE_NAMES[PLACES[i]]);
    }
    result = result == 0 ? disk_sync(spool->disk, spool->root) : result;
    for (size_t i = 0; i < COUNT_OF(PLACES) && result == 0; i++) {
        int fd = disk_open(spool->disk, spool->root, PLACE_NAMES[PLACES[i]],
                           DISK_READONLY | DISK_DIRECTORY);
        if (fd < 0) {
            return fd;
        }
        disk_close(spool->disk, spool->places[PLACES[i]]);
        spool->places[PLACES[i]] = fd;
    }
    memset(spool->days, 0, sizeof(spool->days));
    return result;
}

/* 1: it is another now. */
static int input_renew(struct spool *spool, enum spool_place place)
{
    struct disk *disk = spool->disk;
    struct disk_stat named;
    struct disk_stat ours;
    int result = disk_stat_at(disk, spool->root, PLACE_NAMES[place], &named);
    if (result == 0 &&
        (disk_stat_fd(disk, spool->places[place], &ours) != 0 || named.inode == ours.inode)) {
        return 0;
    }
    if (result == -ENOENT) {
        result = mkdir_if_missing(disk, spool->root, "in");
        result = result == 0 ? mkdir_if_missing(disk, spool->root, PLACE_NAMES[place]) : result;
    }
    int fd = result != 0
                 ? result
                 : disk_open(disk, spool->root, PLACE_NAMES[place], DISK_READONLY | DISK_DIRECTORY);
    if (fd < 0) {
        return fd;
    }
    disk_close(disk, spool->places[place]);
    spool->places[place] = fd;
    return 1;
}

int spool_inputs_renew(struct spool *spool, enum spool_place *ret_place)
{
    static const enum spool_place PLACES[] = {SPOOL_IN_TMP, SPOOL_IN_NEW, SPOOL_IN_CTL,
                                              SPOOL_PICKUP};
    int count = 0;
    for (size_t i = 0; i < COUNT_OF(PLACES); i++) {
        int result = input_renew(spool, PLACES[i]);
        if (result != 0) {
            *ret_place = PLACES[i];
        }
        if (result < 0) {
            return result;
        }
        count += result;
    }
    return count;
}

bool spool_is_want(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

static uint64_t mute_hash(enum spool_place place, const char *name)
{
    return XXH3_64bits_withSeed(name, strlen(name), (uint64_t)place);
}

bool spool_is_muted(const struct spool *spool, enum spool_place place, const char *name,
                    struct wall_time now)
{
    uint64_t hash = mute_hash(place, name);
    uint64_t index = hash % COUNT_OF(spool->muted);
    /* Further off than it was set: the clock was set back since. */
    int64_t left_ns = spool->muted[index].until_ns - now.ns;
    return spool->muted[index].hash == hash && left_ns > 0 && left_ns <= SPOOL_MUTE_S * NS_PER_S;
}

void spool_mute(struct spool *spool, enum spool_place place, const char *name, struct wall_time now)
{
    uint64_t hash = mute_hash(place, name);
    uint64_t index = hash % COUNT_OF(spool->muted);
    spool->muted[index].hash = hash;
    spool->muted[index].until_ns = now.ns + SPOOL_MUTE_S * NS_PER_S;
}

bool spool_name_ends(const char *name, const char *end)
{
    size_t size = strlen(name);
    size_t end_size = strlen(end);
    return size > end_size && strcmp(name + size - end_size, end) == 0;
}

/* One listing: names go where the caller wants them, in order of the directory. */
struct listing {
    struct spool *spool;
    enum spool_place place;
    struct wall_time now;
    const char *after;    /* NULL: any */
    uint64_t seen;        /* names of in/new ... */
    uint64_t after_count; /* ... as far as the last one listed */
    struct spool_names *names;
};

static void names_put(struct spool_names *names, uint32_t index, const char *name)
{
    (void)snprintf(names->names[index], sizeof(names->names[index]), "%s", name);
}

static void on_new_name(void *context, const char *name, enum disk_kind kind)
{
    struct listing *listing = context;
    struct spool_names *names = listing->names;
    (void)kind;
    bool is_before = listing->seen++ < listing->spool->new_after;
    if (is_before || spool_is_muted(listing->spool, listing->place, name, listing->now)) {
        return;
    }
    if (names->count == SPOOL_NAMES_MAX) {
        names->left_count++;
        return;
    }
    names_put(names, names->count++, name);
    listing->after_count = listing->seen;
}

int spool_list_new(struct spool *spool, struct wall_time now, struct spool_names *ret_names)
{
    struct listing listing = {
        .spool = spool, .place = SPOOL_IN_NEW, .now = now, .names = ret_names};
    ret_names->count = 0;
    ret_names->left_count = 0;
    ret_names->is_part = spool->new_after > 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_IN_NEW], on_new_name, &listing);
    bool is_last = result != 0 || ret_names->left_count == 0;
    ret_names->is_part |= !is_last;
    spool->new_after = is_last ? 0 : listing.after_count;
    return result;
}

void spool_new_gone(struct spool *spool)
{
    spool->new_after -= spool->new_after > 0;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

void spool_names_sort(struct spool_names *names)
{
    qsort(names->names, names->count, sizeof(names->names[0]), name_compare);
}

/* A heap with the greatest name in front: `at` has got another name. */
static void names_sift(struct spool_names *names, uint32_t at)
{
    char name[SPOOL_NAME_MAX + 1];
    (void)snprintf(name, sizeof(name), "%s", names->names[at]);
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child + 1 < names->count && strcmp(names->names[child + 1], names->names[child]) > 0) {
            child++;
        }
        if (child >= names->count || strcmp(names->names[child], name) <= 0) {
            break;
        }
        memcpy(names->names[at], names->names[child], sizeof(names->names[at]));
        at = child;
    }
    names_put(names, at, name);
}

/* Keeps the least SPOOL_NAMES_MAX names greater than `after`. */
static void on_active_name(void *context, const char *name, enum disk_kind kind)
{
    struct listing *listing = context;
    struct spool_names *names = listing->names;
    if (kind != DISK_KIND_DIRECTORY || !spool_name_ends(name, BATCH_END) ||
        strcmp(name, listing->after) <= 0) {
        return;
    }
    if (names->count < SPOOL_NAMES_MAX) {
        names_put(names, names->count++, name);
        for (uint32_t i = names->count == SPOOL_NAMES_MAX ? SPOOL_NAMES_MAX / 2 : 0; i-- > 0;) {
            names_sift(names, i);
        }
        return;
    }
    names->left_count++;
    if (strcmp(name, names->names[0]) < 0) {
        names_put(names, 0, name);
        names_sift(names, 0);
    }
}

int spool_list_active(struct spool *spool, const char *after, struct spool_names *ret_names)
{
    struct listing listing = {.spool = spool, .after = after, .names = ret_names};
    ret_names->count = 0;
    ret_names->left_count = 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_ACTIVE], on_active_name, &listing);
    spool_names_sort(ret_names);
    return result != 0 ? result : ret_names->left_count > 0 ? -E2BIG : 0;
}

/* 0: STEM~N + END, or STEM + END for 1, is free; -EEXIST, or another -errno. */
static int name_try(struct spool *spool, int dir, const char *stem, const char *end, uint32_t n,
                    char *ret_name)
{
    char suffix[16] = "";
    if (n > 1) {
        (void)snprintf(suffix, sizeof(suffix), "~%u", (unsigned)n);
    }
    int size = snprintf(ret_name, SPOOL_NAME_MAX + 1, "%s%s%s", stem, suffix, end);
    if (size < 0 || size > SPOOL_NAME_MAX) {
        return -ENAMETOOLONG;
    }
    struct disk_stat stat;
    int result = disk_stat_at(spool->disk, dir, ret_name, &stat);
    return result == -ENOENT ? 0 : result == 0 ? -EEXIST : result;
}

/* In long strides to one that is free, then back by halves: numbers are given in turn, and a look
 * at each would cost more with every batch of the same name. */
int spool_free_name(struct spool *spool, int dir, const char *stem, const char *end, char *ret_name)
{
    uint32_t taken = 0;
    uint32_t vacant = 1;
    int result;
    while ((result = name_try(spool, dir, stem, end, vacant, ret_name)) == -EEXIST) {
        if (vacant > SUFFIX_MAX / 2) {
            return -EEXIST;
        }
        taken = vacant;
        vacant *= 2;
    }
    if (result != 0 || vacant - taken == 1) {
        return result;
    }
    while (vacant - taken > 1) {
        uint32_t middle = taken + (vacant - taken) / 2;
        result = name_try(spool, dir, stem, end, middle, ret_name);
        if (result != 0 && result != -EEXIST) {
            return result;
        }
        vacant = result == 0 ? middle : vacant;
        taken = result == 0 ? taken : middle;
    }
    return name_try(spool, dir, stem, end, vacant, ret_name);
}

/* The name that a refused file gets: what a shell and a terminal take without harm, clipped. */
static void bad_stem(const char *name, char *ret_stem, size_t size)
{
    size_t index = 0;
    for (; name[index] != '\0' && index < size - 1; index++) {
        char byte = name[index];
        bool is_plain = (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
                        (byte >= '0' && byte <= '9') || strchr("._-+=@,~", byte) != NULL;
        ret_stem[index] = is_plain && (index > 0 || byte != '.') ? byte : '_';
    }
    ret_stem[index] = '\0';
}

static int refuse_now(struct spool *spool, enum spool_place place, const char *name,
                      const char *reason)
{
    int badmail = spool->places[SPOOL_BADMAIL];
    char stem[128];
    char bad[SPOOL_NAME_MAX + 1];
    char beside[SPOOL_NAME_MAX + 16];
    bad_stem(name, stem, sizeof(stem));
    int result = spool_free_name(spool, badmail, stem, BAD_END, bad);
    if (result != 0) {
        return result;
    }
    (void)snprintf(beside, sizeof(beside), "%s.reason", bad);
    char text[1024];
    struct writer writer = writer_of(text, sizeof(text));
    writer_put_format(&writer, "%s/%s\n%s\n", PLACE_NAMES[place], spool_show(name).text, reason);
    result = disk_write_file(spool->disk, badmail, beside, writer_span(&writer), false);
    return result != 0 ? result
                       : disk_rename(spool->disk, spool->places[place], name, badmail, bad);
}

int spool_refuse(struct spool *spool, enum spool_place place, const char *name, const char *reason,
                 struct wall_time now)
{
    int result = refuse_now(spool, place, name, reason);
    if (result != 0) {
        spool_mute(spool, place, name, now);
    }
    return result;
}

int spool_stat_check(const struct spool *spool, const struct disk_stat *stat, bool is_directory,
                     uint64_t size_max, const char *path, struct spool_problem *ret_problem)
{
    if (stat->kind == DISK_KIND_LINK) {
        spool_problem_set(ret_problem, "%s: a link: put the thing itself there", path);
        return -EINVAL;
    }
    if (stat->kind != (is_directory ? DISK_KIND_DIRECTORY : DISK_KIND_FILE)) {
        spool_problem_set(ret_problem, "%s: not a %s", path,
                          is_directory ? "directory" : "regular file");
        return -EINVAL;
    }
    if (!is_directory && stat->links_count != 1) {
        spool_problem_set(ret_problem, "%s: has %u links: copy the file instead", path,
                          (unsigned)stat->links_count);
        return -EINVAL;
    }
    if ((stat->mode & OTHERS_MAY_WRITE) != 0) {
        spool_problem_set(ret_problem, "%s: anybody may write to it: chmod o-w", path);
        return -EINVAL;
    }
    if (!is_directory && stat->size > size_max) {
        spool_problem_set(ret_problem, "%s: %llu bytes, at most %llu are taken: split it", path,
                          (unsigned long long)stat->size, (unsigned long long)size_max);
        return -EINVAL;
    }
    bool is_owner_good = spool->config.owner_uids_count == 0;
    for (size_t i = 0; i < spool->config.owner_uids_count; i++) {
        is_owner_good |= spool->config.owner_uids[i] == stat->owner_uid;
    }
    if (!is_owner_good) {
        spool_problem_set(ret_problem, "%s: belongs to user %u, who may not submit", path,
                          (unsigned)stat->owner_uid);
        return -EINVAL;
    }
    return 0;
}
