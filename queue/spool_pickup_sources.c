/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sources.list: of which files of pickup/ a batch was made, a line each: inode, size, time of the
 * last change in ns, name. It keeps them from being taken again until they are gone.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/spool_pickup_priv.h"
#include "queue/spool_priv.h"

void spool_pickup_put_source(struct writer *list, const struct pickup_source *source)
{
    writer_put_format(list, "%llu %llu %llu %s\n", (unsigned long long)source->stat.inode,
                      (unsigned long long)source->stat.size,
                      (unsigned long long)source->stat.mtime_ns, source->name);
}

/* False: it is no line of ours. A batch's directory is its writer's, who may put a list there: what
 * it names must lie in pickup/. */
static bool take_line(struct span line, struct pickup_source *ret_source)
{
    struct cursor cursor = cursor_of(line);
    struct disk_stat stat = {.size = 0};
    uint64_t mtime_ns;
    bool is_good =
        cursor_take_uint(&cursor, UINT64_MAX, &stat.inode) && cursor_take_byte(&cursor, ' ') &&
        cursor_take_uint(&cursor, UINT64_MAX, &stat.size) && cursor_take_byte(&cursor, ' ') &&
        cursor_take_uint(&cursor, UINT64_MAX, &mtime_ns) && cursor_take_byte(&cursor, ' ');
    size_t size = is_good ? cursor_left(&cursor) : 0;
    if (size == 0 || size > SPOOL_NAME_MAX || memchr(cursor.at, '/', size) != NULL ||
        memchr(cursor.at, '\0', size) != NULL || cursor.at[0] == '.') {
        return false;
    }
    stat.mtime_ns = (int64_t)mtime_ns;
    *ret_source = (struct pickup_source){.stat = stat};
    memcpy(ret_source->name, cursor.at, size);
    return true;
}

/* The sources of a batch, one call each. -ENOENT: it has none. A line that is damaged holds up
 * neither the others nor the batch: its file may be taken again. */
static int each_source(struct spool *spool, int batch_fd,
                       int (*on_source)(struct spool *spool, const struct pickup_source *source,
                                        void *context),
                       void *context)
{
    struct disk_stat stat;
    char *bytes = NULL;
    int result = disk_stat_at(spool->disk, batch_fd, PICKUP_SOURCES_FILE, &stat);
    if (result == 0 && (stat.kind != DISK_KIND_FILE || stat.size > PICKUP_SOURCES_SIZE_MAX)) {
        odd(pickup_list_not_ours);
        return -ENOENT;
    }
    int fd =
        result != 0 ? result : disk_open(spool->disk, batch_fd, PICKUP_SOURCES_FILE, DISK_READONLY);
    if (fd < 0) {
        return fd;
    }
    result = spool_read_whole(spool, fd, stat.size, &bytes);
    disk_close(spool->disk, fd);
    struct cursor cursor = cursor_of(span_of(bytes, result == 0 ? stat.size : 0));
    struct span line;
    while (result == 0 && cursor_take_line(&cursor, &line)) {
        struct pickup_source source;
        if (take_line(line, &source)) {
            result = on_source(spool, &source, context);
        } else {
            odd(pickup_source_damaged);
        }
    }
    free(bytes);
    return result;
}

static int adopt_source(struct spool *spool, const struct pickup_source *source, void *context)
{
    (void)context;
    if (spool->pickup->taken_count == PICKUP_TAKEN_MAX) {
        return -ENOBUFS;
    }
    spool_pickup_add_taken(spool->pickup, source);
    return 0;
}

static bool is_of_pickup(const char *name)
{
    return strncmp(name, PICKUP_BATCH_BEGIN, sizeof(PICKUP_BATCH_BEGIN) - 1) == 0;
}

/* 0: its sources count as taken, or it has none, or it is not there any more. */
static int adopt_batch(struct spool *spool, const char *directory)
{
    int batch_fd = spool_batch_open(spool, directory);
    int result = batch_fd < 0 ? batch_fd : each_source(spool, batch_fd, adopt_source, NULL);
    if (batch_fd >= 0) {
        disk_close(spool->disk, batch_fd);
    }
    return result == -ENOENT ? 0 : result;
}

/* Whose list cannot be read holds up no start, and none of the other batches. */
static int adopt_all(struct spool *spool, struct spool_names *names)
{
    struct spool_pickup *pickup = spool->pickup;
    char after[SPOOL_NAME_MAX + 1] = "";
    int result;
    pickup->unread[0] = '\0';
    do {
        result = spool_list_active(spool, after, names);
        for (uint32_t i = 0; i < names->count && (result == 0 || result == -E2BIG); i++) {
            int error = is_of_pickup(names->names[i]) ? adopt_batch(spool, names->names[i]) : 0;
            if (error != 0) {
                odd(pickup_list_not_read);
                (void)snprintf(pickup->unread, sizeof(pickup->unread), "%s", names->names[i]);
                pickup->unread_error = error;
            }
            (void)snprintf(after, sizeof(after), "%s", names->names[i]);
        }
    } while (result == -E2BIG);
    return result;
}

bool spool_pickup_is_known(struct spool *spool)
{
    struct spool_pickup *pickup = spool->pickup;
    if (pickup->unread[0] == '\0') {
        return true;
    }
    int result = adopt_batch(spool, pickup->unread);
    pickup->unread_error = result;
    if (result != 0) {
        return false;
    }
    /* There may be others: this one was the last of them. */
    char unread[sizeof(pickup->unread)];
    memcpy(unread, pickup->unread, sizeof(unread));
    struct spool_names *names = malloc(sizeof(*names));
    result = names == NULL ? -ENOMEM : adopt_all(spool, names);
    free(names);
    if (result != 0) {
        memcpy(pickup->unread, unread, sizeof(unread));
        pickup->unread_error = result;
    }
    return pickup->unread[0] == '\0';
}

static void on_making_name(void *context, const char *name, enum disk_kind kind)
{
    struct spool_names *names = context;
    bool is_making = kind == DISK_KIND_DIRECTORY && is_of_pickup(name) &&
                     spool_name_ends(name, PICKUP_MAKING_END);
    if (is_making && names->count < SPOOL_NAMES_MAX) {
        (void)snprintf(names->names[names->count++], SPOOL_NAME_MAX + 1, "%s", name);
    }
}

int spool_pickup_recover(struct spool *spool)
{
    struct spool_names *names = malloc(sizeof(*names));
    if (names == NULL) {
        return -ENOMEM;
    }
    names->count = 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_IN_TMP], on_making_name, names);
    for (uint32_t i = 0; i < names->count && result == 0; i++) {
        spool_pickup_remove_making(spool, names->names[i]);
    }
    result = result == 0 ? adopt_all(spool, names) : result;
    free(names);
    return result;
}

/* What becomes of one original: removed when it is as it was taken; put aside when its writer went
 * on; left when it is another file by now. With a reason: put aside in any case. */
static int release_source(struct spool *spool, const struct pickup_source *source, void *context)
{
    const char *reason = context;
    int dir = spool->places[SPOOL_PICKUP];
    struct disk_stat stat;
    int result = disk_stat_at(spool->disk, dir, source->name, &stat);
    if (result != 0 || stat.inode != source->stat.inode) {
        return result == -ENOENT ? 0 : result;
    }
    if (reason == NULL && spool_pickup_is_same(&stat, &source->stat)) {
        return disk_unlink(spool->disk, dir, source->name);
    }
    reason = reason != NULL ? reason
                            : "was written to after it had stood still and was taken: what stood "
                              "in it then is on its way";
    return spool_refuse(spool, SPOOL_PICKUP, source->name, reason, spool->pickup->now);
}

static int forget_source(struct spool *spool, const struct pickup_source *source, void *context)
{
    (void)context;
    spool_pickup_remove_taken(spool->pickup, source);
    return 0;
}

/* The originals' end is durable before the list goes that keeps them from being taken again. */
static int release_batch(struct spool *spool, int batch_fd, char *reason)
{
    int result = each_source(spool, batch_fd, release_source, reason);
    if (result != 0) {
        return result == -ENOENT ? 0 : result;
    }
    result = disk_sync(spool->disk, spool->places[SPOOL_PICKUP]);
    if (result == 0) {
        result = each_source(spool, batch_fd, forget_source, NULL);
    }
    return result == 0 ? disk_unlink(spool->disk, batch_fd, PICKUP_SOURCES_FILE) : result;
}

int spool_pickup_release(struct spool *spool, const char *directory)
{
    int batch_fd = spool_batch_open(spool, directory);
    if (batch_fd < 0) {
        return batch_fd;
    }
    int result = release_batch(spool, batch_fd, NULL);
    disk_close(spool->disk, batch_fd);
    return result;
}

int spool_pickup_fail(struct spool *spool, int batch_fd, const char *reason, struct wall_time now)
{
    char words[512];
    spool->pickup->now = now;
    (void)snprintf(words, sizeof(words), "%s", reason);
    return release_batch(spool, batch_fd, words);
}
