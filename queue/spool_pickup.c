/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickup/: which files stand still, and how they become a batch without being lost or taken twice.
 *
 * A file's way (docs/formats/SPOOL.md 6 has what a crash leaves at each step):
 *   seen      in the table `watched`, with the look it had; a changed look starts the wait anew
 *   taken     in a batch that is complete in active/ and durable; in the table `taken`
 *   released  the batch was accepted: the original goes, pickup/ is synced, then sources.list goes
 *
 * spool_pickup_watch.c has the tables, spool_pickup_sources.c the list of what a batch was made
 * from and what becomes of the originals, spool_pickup_message.c makes a message of a file.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/spool_pickup_priv.h"
#include "queue/spool_priv.h"

enum { BATCH_BYTES_MAX = 32 * 1024 * 1024 }; /* read and written in one call */

static const char BATCH_JSON[] = "{\"v\":1,\"kind\":\"bsmtp\",\"max_reject\":\"100%\"}\n";

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
        (void)snprintf(stem, sizeof(stem), PICKUP_BATCH_BEGIN "%lld-%u",
                       (long long)(pickup->now.ns / NS_PER_MS), (unsigned)pickup->serial++);
        (void)snprintf(making->directory, sizeof(making->directory), "%s.batch", stem);
    } while (disk_stat_at(spool->disk, spool->places[SPOOL_ACTIVE], making->directory, &stat) == 0);
    (void)snprintf(making->making_name, sizeof(making->making_name), "%s%s", stem,
                   PICKUP_MAKING_END);
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

void spool_pickup_remove_making(struct spool *spool, const char *name)
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
    spool_pickup_remove_making(spool, making->making_name);
}

/* All of it durable before its name is in active/: the last durable file syncs the directory. */
static int making_end(struct spool *spool, struct making *making)
{
    struct disk *disk = spool->disk;
    int tmp = spool->places[SPOOL_IN_TMP];
    int active = spool->places[SPOOL_ACTIVE];
    int result = disk_datasync(disk, making->file);
    if (result == 0) {
        result = disk_write_file(disk, making->dir, "batch.json", span_of_text(BATCH_JSON), true);
    }
    if (result == 0) {
        result = disk_write_file(disk, making->dir, PICKUP_SOURCES_FILE,
                                 writer_span(&making->sources), true);
    }
    if (result == 0) {
        result = disk_rename(disk, tmp, making->making_name, active, making->directory);
    }
    if (result != 0) {
        return result;
    }
    result = disk_sync(disk, active);
    if (result != 0) {
        result =
            spool_move_back(spool, tmp, making->making_name, active, making->directory, result);
    }
    making->is_moved = result == 0 || result == -ENOTRECOVERABLE;
    return result;
}

/* UNREAD: the file is at fault, or the disk below it; FAILED: what is made is, or the engine. */
enum take { TAKE_DONE, TAKE_LATER, TAKE_BAD, TAKE_UNREAD, TAKE_FAILED };

/* It stays, and the others go on without it. */
static void pass_over(struct spool *spool, struct pickup_source *source, int error,
                      struct spool_collected *collected)
{
    struct spool_pickup *pickup = spool->pickup;
    spool_problem_set(&collected->unread,
                      "pickup/%.200s: cannot be read: %s; it is tried again in %d minutes",
                      spool_show(source->name).text, spool_errno_words(error), SPOOL_MUTE_S / 60);
    collected->unread_count++;
    spool_mute(spool, SPOOL_PICKUP, source->name, pickup->now);
    spool_pickup_forget(pickup, source);
}

/* The bytes of the file as it was seen; -ESTALE when it has moved on meanwhile. */
static int read_source(struct spool *spool, const struct pickup_source *source, char **ret_bytes,
                       struct spool_problem *ret_problem)
{
    struct spool_file file;
    int result = spool_file_open(spool, spool->places[SPOOL_PICKUP], source->name,
                                 spool->config.message_size_max, &file, ret_problem);
    if (result != 0) {
        return result;
    }
    result = spool_pickup_is_same(&file.stat, &source->stat) ? 0 : -ESTALE;
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

static int append_source(struct spool *spool, struct making *making,
                         const struct pickup_source *source, struct span record)
{
    int64_t written = disk_write(spool->disk, making->file, record.at, record.size, making->size);
    if (written < 0) {
        return (int)written;
    }
    making->size += record.size;
    spool_pickup_put_source(&making->sources, source);
    ensure(!making->sources.is_full);
    return 0;
}

static enum take take_source(struct spool *spool, struct making *making,
                             const struct pickup_source *source, int *ret_error,
                             struct spool_problem *ret_problem)
{
    char *bytes;
    int result = read_source(spool, source, &bytes, ret_problem);
    if (result == -ESTALE || result == -ENOENT) {
        return TAKE_LATER;
    }
    if (result != 0 && result != -EINVAL && !spool_is_want(result)) {
        *ret_error = result;
        return TAKE_UNREAD;
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
        bool is_full = pickup->taken_count + i >= PICKUP_TAKEN_MAX; /* until batches are released */
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
            spool_pickup_forget(pickup, &pickup->ready[i]);
            break;
        case TAKE_UNREAD:
            pass_over(spool, &pickup->ready[i], error, collected);
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
    char *sources = malloc(PICKUP_SOURCES_SIZE_MAX);
    if (sources == NULL) {
        return -ENOMEM;
    }
    making.sources = writer_of(sources, PICKUP_SOURCES_SIZE_MAX);
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
            spool_pickup_add_taken(pickup, &pickup->ready[i]);
            spool_pickup_forget(pickup, &pickup->ready[i]);
        }
        (void)snprintf(collected->directory, sizeof(collected->directory), "%s", making.directory);
    } else {
        making_abandon(spool, &making);
        collected->files_count = 0;
    }
    free(sources);
    return result;
}

static void hold(const struct spool_pickup *pickup, struct spool_collected *ret_collected)
{
    ret_collected->is_held = true;
    spool_problem_set(
        &ret_collected->held,
        "active/%s/sources.list: cannot be read: %s; it names the files of pickup/ that are in "
        "the batch: nothing is collected there until it can be read (tried each second). When it "
        "is lost, move away those files that messages-0.bsmtp beside it holds, and then it",
        pickup->unread, spool_errno_words(pickup->unread_error));
}

int spool_pickup_collect(struct spool *spool, struct wall_time now, struct mono_time mono,
                         uint32_t files_max, struct spool_collected *ret_collected)
{
    ensure(files_max > 0);
    ensure(files_max <= SPOOL_PICKUP_FILES_MAX);
    struct spool_pickup *pickup = spool->pickup;
    *ret_collected = (struct spool_collected){.files_count = 0};
    if (!spool_pickup_is_known(spool)) {
        hold(pickup, ret_collected);
        return 0;
    }
    int result = spool_pickup_look(spool, now, mono, files_max);
    for (uint32_t i = 0; i < pickup->strangers_count && result == 0; i++) {
        refuse_file(spool, pickup->strangers[i].name, pickup->strangers[i].reason, ret_collected);
    }
    ret_collected->has_more = pickup->has_more;
    ret_collected->waiting_count = pickup->waiting_count;
    if (result == 0 && pickup->ready_count > 0) {
        result = make_batch(spool, ret_collected);
    }
    spool_pickup_look_end(pickup);
    return result;
}
