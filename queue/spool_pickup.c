/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickup/: which files stand still, and how they become a batch without being lost or taken twice.
 *
 * A file's way (docs/formats/SPOOL.md 6 has what a crash leaves at each step):
 *   seen      in the table `watched`, with the look it had; a changed look starts the wait anew
 *   taken     in a batch that is complete in active/ and durable; in the table `taken`
 *   released  the batch was accepted: the original is removed, pickup/ synced, then sources.list
 * goes
 *
 * Both tables hold hashes only: 8192 names are 256 KiB whatever their length. The one of the taken
 * is keyed by name and inode, so that a writer who goes on writing into a taken file does not get
 * it mailed a second time: it is told (badmail/) when the batch is released.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/text.h"
#include "queue/spool_pickup_priv.h"
#include "queue/spool_priv.h"

enum {
    WATCH_SLOTS = 2 * SPOOL_PICKUP_WATCHED_MAX,
    TAKEN_MAX = 65536,
    TAKEN_SLOTS = 2 * TAKEN_MAX,
    STRANGERS_MAX = 16,
    STRANGER_STABLE_MS = 60000, /* a name that is not .eml may still be renamed by its writer */
    SOURCES_SIZE_MAX = SPOOL_PICKUP_FILES_MAX * (SPOOL_NAME_MAX + 80),
    BATCH_BYTES_MAX = 32 * 1024 * 1024, /* read and written in one call */
};
_Static_assert((WATCH_SLOTS & (WATCH_SLOTS - 1)) == 0, "probing masks");
_Static_assert((TAKEN_SLOTS & (TAKEN_SLOTS - 1)) == 0, "probing masks");

static const char SOURCES_FILE[] = "sources.list";
static const char MAKING_END[] = ".making";
static const char BATCH_JSON[] = "{\"v\":1,\"kind\":\"bsmtp\",\"max_reject\":\"100%\"}\n";

struct watched {
    uint64_t name_hash; /* 0: free */
    uint64_t look;      /* hash of inode, size, time */
    int64_t since_ns;   /* first seen with this look */
};

struct watch_table {
    uint32_t count;
    struct watched slots[WATCH_SLOTS];
};

struct source {
    char name[SPOOL_NAME_MAX + 1];
    struct disk_stat stat;
};

struct spool_pickup {
    uint32_t serial; /* of batches made in this life */
    uint32_t taken_count;
    uint64_t taken[TAKEN_SLOTS]; /* 0: free */
    /* Of one listing: */
    struct watch_table *before; /* what the last one saw */
    struct watch_table *seen;
    struct wall_time now;
    uint64_t waiting_count;
    uint32_t files_max;
    uint32_t ready_count;
    bool has_more;
    struct source ready[SPOOL_PICKUP_FILES_MAX];
    uint32_t strangers_count;
    struct {
        char name[SPOOL_NAME_MAX + 1];
        const char *reason;
    } strangers[STRANGERS_MAX];
};

static uint64_t never_zero(uint64_t hash)
{
    return hash != 0 ? hash : 1;
}

static uint64_t name_hash_of(const char *name)
{
    return never_zero(XXH3_64bits(name, strlen(name)));
}

static uint64_t look_of(const struct disk_stat *stat)
{
    uint64_t look[] = {stat->inode, stat->size, (uint64_t)stat->mtime_ns};
    return XXH3_64bits(look, sizeof(look));
}

static uint64_t taken_key(const char *name, uint64_t inode)
{
    return never_zero(XXH3_64bits_withSeed(name, strlen(name), inode));
}

static bool look_is_equal(const struct disk_stat *a, const struct disk_stat *b)
{
    return a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

struct spool_pickup *spool_pickup_create(void)
{
    struct spool_pickup *pickup = calloc(1, sizeof(*pickup));
    if (pickup == NULL) {
        return NULL;
    }
    pickup->before = calloc(1, sizeof(*pickup->before));
    pickup->seen = calloc(1, sizeof(*pickup->seen));
    if (pickup->before == NULL || pickup->seen == NULL) {
        spool_pickup_destroy(pickup);
        return NULL;
    }
    return pickup;
}

void spool_pickup_destroy(struct spool_pickup *pickup)
{
    if (pickup != NULL) {
        free(pickup->before);
        free(pickup->seen);
        free(pickup);
    }
}

/* The slot of the key, or the free one where it would be: at most half of the slots are used. */
static uint32_t taken_slot(const struct spool_pickup *pickup, uint64_t key)
{
    uint32_t slot = (uint32_t)key & (TAKEN_SLOTS - 1);
    while (pickup->taken[slot] != 0 && pickup->taken[slot] != key) {
        slot = (slot + 1) & (TAKEN_SLOTS - 1);
    }
    return slot;
}

static bool taken_has(const struct spool_pickup *pickup, uint64_t key)
{
    return pickup->taken[taken_slot(pickup, key)] == key;
}

static void taken_put(struct spool_pickup *pickup, uint64_t key)
{
    uint32_t slot = taken_slot(pickup, key);
    if (pickup->taken[slot] == 0) {
        ensure(pickup->taken_count < TAKEN_MAX);
        pickup->taken[slot] = key;
        pickup->taken_count++;
    }
}

/* Closes the gap, so that no probe ends early (Knuth 6.4, algorithm R). */
static void taken_remove(struct spool_pickup *pickup, uint64_t key)
{
    uint32_t gap = taken_slot(pickup, key);
    if (pickup->taken[gap] != key) {
        return;
    }
    uint32_t slot = gap;
    for (;;) {
        slot = (slot + 1) & (TAKEN_SLOTS - 1);
        uint64_t there = pickup->taken[slot];
        if (there == 0) {
            break;
        }
        uint32_t home = (uint32_t)there & (TAKEN_SLOTS - 1);
        if (((slot - home) & (TAKEN_SLOTS - 1)) >= ((slot - gap) & (TAKEN_SLOTS - 1))) {
            pickup->taken[gap] = there;
            gap = slot;
        }
    }
    pickup->taken[gap] = 0;
    pickup->taken_count--;
}

static struct watched *watch_slot(struct watch_table *table, uint64_t name_hash)
{
    uint32_t slot = (uint32_t)name_hash & (WATCH_SLOTS - 1);
    while (table->slots[slot].name_hash != 0 && table->slots[slot].name_hash != name_hash) {
        slot = (slot + 1) & (WATCH_SLOTS - 1);
    }
    return &table->slots[slot];
}

/* How long the file has had this look; keeps it under watch. -1: there is no room to watch it. */
static int64_t watch(struct spool_pickup *pickup, const char *name, const struct disk_stat *stat)
{
    uint64_t hash = name_hash_of(name);
    uint64_t look = look_of(stat);
    if (pickup->seen->count == SPOOL_PICKUP_WATCHED_MAX) {
        return -1;
    }
    const struct watched *before = watch_slot(pickup->before, hash);
    bool is_same = before->name_hash == hash && before->look == look;
    int64_t since_ns = is_same ? before->since_ns : pickup->now.ns;
    since_ns = since_ns <= pickup->now.ns ? since_ns : pickup->now.ns; /* the clock was set back */
    struct watched *seen = watch_slot(pickup->seen, hash);
    pickup->seen->count += seen->name_hash == 0;
    *seen = (struct watched){.name_hash = hash, .look = look, .since_ns = since_ns};
    return pickup->now.ns - since_ns;
}

static bool name_is_plain(const char *name)
{
    for (const char *at = name; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            return false;
        }
    }
    return text_is_utf8(span_of_text(name));
}

static bool name_ends_nocase(const char *name, const char *end)
{
    size_t size = strlen(name);
    size_t end_size = strlen(end);
    return size > end_size &&
           span_equal_nocase(span_of(name + size - end_size, end_size), span_of_text(end));
}

static void add_stranger(struct spool_pickup *pickup, const char *name, const char *reason)
{
    if (pickup->strangers_count == STRANGERS_MAX) {
        pickup->has_more = true;
        return;
    }
    uint32_t index = pickup->strangers_count++;
    (void)snprintf(pickup->strangers[index].name, sizeof(pickup->strangers[index].name), "%s",
                   name);
    pickup->strangers[index].reason = reason;
}

static void on_pickup_file(struct spool *spool, const char *name)
{
    struct spool_pickup *pickup = spool->pickup;
    struct disk_stat stat;
    if (disk_stat_at(spool->disk, spool->places[SPOOL_PICKUP], name, &stat) != 0 ||
        taken_has(pickup, taken_key(name, stat.inode))) {
        return;
    }
    int64_t still_ns = watch(pickup, name, &stat);
    bool is_mail = name_ends_nocase(name, ".eml");
    int64_t wanted_ns = (is_mail ? SPOOL_PICKUP_STABLE_MS : STRANGER_STABLE_MS) * NS_PER_MS;
    if (still_ns < wanted_ns) {
        pickup->waiting_count++;
    } else if (!is_mail) {
        add_stranger(pickup, name, "not a mail: name it NAME.eml");
    } else if (pickup->ready_count == pickup->files_max) {
        pickup->has_more = true;
        pickup->waiting_count++;
    } else {
        struct source *source = &pickup->ready[pickup->ready_count++];
        (void)snprintf(source->name, sizeof(source->name), "%s", name);
        source->stat = stat;
    }
}

static void on_pickup_name(void *context, const char *name, enum disk_kind kind)
{
    struct spool *spool = context;
    struct spool_pickup *pickup = spool->pickup;
    if (name[0] == '.' || name_ends_nocase(name, ".tmp") || name_ends_nocase(name, ".part") ||
        spool_is_muted(spool, SPOOL_PICKUP, name, pickup->now)) {
        return;
    }
    if (kind == DISK_KIND_LINK) {
        add_stranger(pickup, name, "a link: put the file itself there");
    } else if (kind != DISK_KIND_FILE) {
        add_stranger(pickup, name, "not a regular file");
    } else if (!name_is_plain(name)) {
        add_stranger(pickup, name, "its name holds control characters or is not UTF-8");
    } else {
        on_pickup_file(spool, name);
    }
}

/* What stands in pickup/ now: who is ready, who waits, who has no business there. */
static int look_around(struct spool *spool, struct wall_time now, uint32_t files_max)
{
    struct spool_pickup *pickup = spool->pickup;
    struct watch_table *older = pickup->before;
    pickup->before = pickup->seen;
    pickup->seen = older;
    if (older->count > 0) {
        memset(older, 0, sizeof(*older));
    }
    pickup->now = now;
    pickup->waiting_count = 0;
    pickup->files_max = files_max;
    pickup->ready_count = 0;
    pickup->has_more = false;
    pickup->strangers_count = 0;
    return disk_list(spool->disk, spool->places[SPOOL_PICKUP], on_pickup_name, spool);
}

static void refuse_file(struct spool *spool, const char *name, const char *reason,
                        struct spool_collected *collected)
{
    spool_problem_set(&collected->bad, "pickup/%s: %.200s", spool_show(name).text, reason);
    collected->bad_count++;
    (void)spool_refuse(spool, SPOOL_PICKUP, name, reason, spool->pickup->now);
}

/* A batch under way: a directory in in/tmp that becomes one of active/ when it is complete. */
struct making {
    char making_name[64];
    char directory[64];
    int dir;
    int file;
    uint64_t size;
    struct writer sources;
    bool is_moved; /* it is in active/: its sources are taken, whatever follows */
};

static int making_begin(struct spool *spool, struct making *making)
{
    struct spool_pickup *pickup = spool->pickup;
    struct disk_stat stat;
    char stem[48];
    do {
        (void)snprintf(stem, sizeof(stem), "pickup-%lld-%u",
                       (long long)(pickup->now.ns / NS_PER_MS), (unsigned)pickup->serial++);
        (void)snprintf(making->directory, sizeof(making->directory), "%s.batch", stem);
    } while (disk_stat_at(spool->disk, spool->places[SPOOL_ACTIVE], making->directory, &stat) == 0);
    (void)snprintf(making->making_name, sizeof(making->making_name), "%s%s", stem, MAKING_END);
    int tmp = spool->places[SPOOL_IN_TMP];
    int result = disk_mkdir(spool->disk, tmp, making->making_name);
    if (result == 0) {
        making->dir =
            disk_open(spool->disk, tmp, making->making_name, DISK_READONLY | DISK_DIRECTORY);
        result = making->dir < 0 ? making->dir : 0;
    }
    if (result == 0) {
        making->file = disk_open(spool->disk, making->dir, "messages-0.bsmtp",
                                 DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
        result = making->file < 0 ? making->file : 0;
    }
    return result;
}

/* in/tmp/NAME with the files in it. What cannot be removed is left to spool_sweep_tmp. */
static void remove_making(struct spool *spool, const char *name)
{
    static const char *const files[] = {"messages-0.bsmtp", "batch.json", ".batch.json.tmp",
                                        "sources.list", ".sources.list.tmp"};
    int tmp = spool->places[SPOOL_IN_TMP];
    int dir = disk_open(spool->disk, tmp, name, DISK_READONLY | DISK_DIRECTORY);
    if (dir >= 0) {
        for (size_t i = 0; i < COUNT_OF(files); i++) {
            (void)disk_unlink(spool->disk, dir, files[i]);
        }
        disk_close(spool->disk, dir);
    }
    struct disk_op op = {.verb = DISK_RMDIR, .dir = tmp, .path = name};
    (void)disk_run(spool->disk, &op);
}

static void making_abandon(struct spool *spool, struct making *making)
{
    if (making->file >= 0) {
        disk_close(spool->disk, making->file);
    }
    if (making->dir >= 0) {
        disk_close(spool->disk, making->dir);
    }
    remove_making(spool, making->making_name);
}

/* All of it durable before its name is in active/: the last durable file syncs the directory. */
static int making_end(struct spool *spool, struct making *making)
{
    struct disk *disk = spool->disk;
    int active = spool->places[SPOOL_ACTIVE];
    int result = disk_datasync(disk, making->file);
    if (result == 0) {
        result = disk_write_file(disk, making->dir, "batch.json", span_of_text(BATCH_JSON), true);
    }
    if (result == 0) {
        result =
            disk_write_file(disk, making->dir, SOURCES_FILE, writer_span(&making->sources), true);
    }
    if (result == 0) {
        result = disk_rename(disk, spool->places[SPOOL_IN_TMP], making->making_name, active,
                             making->directory);
        making->is_moved = result == 0;
    }
    return result == 0 ? disk_sync(disk, active) : result;
}

enum take { TAKE_DONE, TAKE_LATER, TAKE_BAD, TAKE_FAILED };

/* The bytes of the file as it was seen; -ESTALE when it has moved on meanwhile. */
static int read_source(struct spool *spool, const struct source *source, char **ret_bytes,
                       struct spool_problem *ret_problem)
{
    struct spool_file file;
    int result = spool_file_open(spool, spool->places[SPOOL_PICKUP], source->name,
                                 spool->config.message_size_max, &file, ret_problem);
    if (result != 0) {
        return result;
    }
    result = look_is_equal(&file.stat, &source->stat) ? 0 : -ESTALE;
    char *bytes = NULL;
    if (result == 0) {
        result = spool_read_whole(spool, file.fd, file.stat.size, &bytes);
    }
    if (result == 0) {
        result = spool_file_check(spool, &file);
    }
    spool_file_close(spool, &file);
    if (result != 0) {
        free(bytes);
        return result;
    }
    *ret_bytes = bytes;
    return 0;
}

static int append_source(struct spool *spool, struct making *making, const struct source *source,
                         struct span record)
{
    int64_t written = disk_write(spool->disk, making->file, record.at, record.size, making->size);
    if (written < 0) {
        return (int)written;
    }
    making->size += record.size;
    writer_put_format(&making->sources, "%llu %llu %llu %s\n",
                      (unsigned long long)source->stat.inode, (unsigned long long)source->stat.size,
                      (unsigned long long)source->stat.mtime_ns, source->name);
    ensure(!making->sources.is_full);
    return 0;
}

static enum take take_source(struct spool *spool, struct making *making,
                             const struct source *source, int *ret_error,
                             struct spool_problem *ret_problem)
{
    char *bytes;
    int result = read_source(spool, source, &bytes, ret_problem);
    if (result == -ESTALE || result == -ENOENT) {
        return TAKE_LATER;
    }
    if (result == 0) {
        size_t room = PICKUP_RECORD_MAX(source->stat.size);
        char *record = malloc(room);
        result = -ENOMEM;
        if (record != NULL) {
            struct writer writer = writer_of(record, room);
            result = spool_pickup_convert(span_of(bytes, source->stat.size), &writer, ret_problem);
            if (result == 0) {
                result = append_source(spool, making, source, writer_span(&writer));
                *ret_error = result;
                result = result == 0 ? 0 : -EIO;
            }
        }
        free(record);
        free(bytes);
    }
    if (result == -EINVAL) {
        return TAKE_BAD;
    }
    *ret_error = result != 0 && *ret_error == 0 ? result : *ret_error;
    return result == 0 ? TAKE_DONE : TAKE_FAILED;
}

/* The ready files, one after the other, into the batch under way. Those that were taken move to the
 * front of `ready`. */
static int take_ready(struct spool *spool, struct making *making, struct spool_collected *collected)
{
    struct spool_pickup *pickup = spool->pickup;
    for (uint32_t i = 0; i < pickup->ready_count; i++) {
        struct spool_problem problem = {.text = ""};
        int error = 0;
        bool is_full = pickup->taken_count + i >= TAKEN_MAX; /* until batches are released */
        if (making->size > BATCH_BYTES_MAX || is_full) {
            collected->has_more = !is_full;
            return 0;
        }
        switch (take_source(spool, making, &pickup->ready[i], &error, &problem)) {
        case TAKE_DONE:
            pickup->ready[collected->files_count++] = pickup->ready[i];
            break;
        case TAKE_LATER:
            collected->waiting_count++;
            break;
        case TAKE_BAD:
            refuse_file(spool, pickup->ready[i].name, problem.text, collected);
            break;
        case TAKE_FAILED:
            ensure(error < 0);
            return error;
        }
    }
    return 0;
}

/* Makes a batch of the ready files. files_count 0: all of them turned out bad or busy. */
static int make_batch(struct spool *spool, struct spool_collected *collected)
{
    struct spool_pickup *pickup = spool->pickup;
    struct making making = {.dir = -1, .file = -1};
    char *sources = malloc(SOURCES_SIZE_MAX);
    if (sources == NULL) {
        return -ENOMEM;
    }
    making.sources = writer_of(sources, SOURCES_SIZE_MAX);
    int result = making_begin(spool, &making);
    if (result == 0) {
        result = take_ready(spool, &making, collected);
    }
    if (result == 0 && collected->files_count > 0) {
        result = making_end(spool, &making);
    }
    if (making.is_moved) {
        disk_close(spool->disk, making.file);
        disk_close(spool->disk, making.dir);
        for (uint32_t i = 0; i < collected->files_count; i++) {
            const struct source *source = &pickup->ready[i];
            taken_put(pickup, taken_key(source->name, source->stat.inode));
        }
        (void)snprintf(collected->directory, sizeof(collected->directory), "%s", making.directory);
    } else {
        making_abandon(spool, &making);
        collected->files_count = 0;
    }
    free(sources);
    return result;
}

int spool_pickup_collect(struct spool *spool, struct wall_time now, uint32_t files_max,
                         struct spool_collected *ret_collected)
{
    ensure(files_max > 0);
    ensure(files_max <= SPOOL_PICKUP_FILES_MAX);
    struct spool_pickup *pickup = spool->pickup;
    *ret_collected = (struct spool_collected){.files_count = 0};
    int result = look_around(spool, now, files_max);
    for (uint32_t i = 0; i < pickup->strangers_count && result == 0; i++) {
        refuse_file(spool, pickup->strangers[i].name, pickup->strangers[i].reason, ret_collected);
    }
    ret_collected->has_more = pickup->has_more;
    ret_collected->waiting_count = pickup->waiting_count;
    if (result == 0 && pickup->ready_count > 0) {
        result = make_batch(spool, ret_collected);
    }
    return result;
}

/* The sources of a batch, one call each. -ENOENT: it has none. */
static int each_source(struct spool *spool, int batch_fd,
                       int (*on_source)(struct spool *spool, const struct source *source,
                                        void *context),
                       void *context)
{
    int fd = disk_open(spool->disk, batch_fd, SOURCES_FILE, DISK_READONLY);
    if (fd < 0) {
        return fd;
    }
    struct disk_stat stat;
    char *bytes = NULL;
    int result = disk_stat_fd(spool->disk, fd, &stat);
    if (result == 0) {
        result =
            stat.size > SOURCES_SIZE_MAX ? -EFBIG : spool_read_whole(spool, fd, stat.size, &bytes);
    }
    disk_close(spool->disk, fd);
    struct cursor cursor = cursor_of(span_of(bytes, result == 0 ? stat.size : 0));
    while (result == 0 && cursor_left(&cursor) > 0) {
        struct source source = {.name = ""};
        uint64_t mtime_ns;
        struct span name;
        bool is_good = cursor_take_uint(&cursor, UINT64_MAX, &source.stat.inode) &&
                       cursor_take_byte(&cursor, ' ') &&
                       cursor_take_uint(&cursor, UINT64_MAX, &source.stat.size) &&
                       cursor_take_byte(&cursor, ' ') &&
                       cursor_take_uint(&cursor, UINT64_MAX, &mtime_ns) &&
                       cursor_take_byte(&cursor, ' ') && cursor_take_line(&cursor, &name) &&
                       name.size <= SPOOL_NAME_MAX;
        if (!is_good) {
            result = -EBADMSG;
            break;
        }
        source.stat.mtime_ns = (int64_t)mtime_ns;
        memcpy(source.name, name.at, name.size);
        result = on_source(spool, &source, context);
    }
    free(bytes);
    return result;
}

static int adopt_source(struct spool *spool, const struct source *source, void *context)
{
    (void)context;
    if (spool->pickup->taken_count == TAKEN_MAX) {
        return -ENOSPC;
    }
    taken_put(spool->pickup, taken_key(source->name, source->stat.inode));
    return 0;
}

static int adopt_batch(struct spool *spool, const char *directory)
{
    int batch_fd = spool_batch_open(spool, directory);
    if (batch_fd < 0) {
        return batch_fd;
    }
    int result = each_source(spool, batch_fd, adopt_source, NULL);
    disk_close(spool->disk, batch_fd);
    return result == -ENOENT ? 0 : result;
}

static void on_making_name(void *context, const char *name, enum disk_kind kind)
{
    struct spool_names *names = context;
    bool is_making = kind == DISK_KIND_DIRECTORY && strncmp(name, "pickup-", 7) == 0 &&
                     spool_name_ends(name, MAKING_END);
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
        remove_making(spool, names->names[i]);
    }
    char after[SPOOL_NAME_MAX + 1] = "";
    bool has_more = result == 0;
    while (has_more && result == 0) {
        result = spool_list_active(spool, after, names);
        has_more = result == -E2BIG;
        result = has_more ? 0 : result;
        for (uint32_t i = 0; i < names->count && result == 0; i++) {
            result = adopt_batch(spool, names->names[i]);
            (void)snprintf(after, sizeof(after), "%s", names->names[i]);
        }
    }
    free(names);
    return result;
}

/* What becomes of one original: removed when it is as it was taken; put aside when its writer went
 * on; left when it is another file by now. With a reason: put aside in any case. */
static int release_source(struct spool *spool, const struct source *source, void *context)
{
    const char *reason = context;
    int dir = spool->places[SPOOL_PICKUP];
    struct disk_stat stat;
    int result = disk_stat_at(spool->disk, dir, source->name, &stat);
    if (result != 0 || stat.inode != source->stat.inode) {
        return result == -ENOENT ? 0 : result;
    }
    if (reason == NULL && look_is_equal(&stat, &source->stat)) {
        return disk_unlink(spool->disk, dir, source->name);
    }
    reason = reason != NULL ? reason
                            : "was written to after it had stood still and was taken: what stood "
                              "in it then is on its way";
    return spool_refuse(spool, SPOOL_PICKUP, source->name, reason, spool->pickup->now);
}

static int forget_source(struct spool *spool, const struct source *source, void *context)
{
    (void)context;
    taken_remove(spool->pickup, taken_key(source->name, source->stat.inode));
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
    return result == 0 ? disk_unlink(spool->disk, batch_fd, SOURCES_FILE) : result;
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
