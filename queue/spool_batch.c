/* SPDX-License-Identifier: Apache-2.0 */
/* How a batch comes into active/ and how it leaves. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/planted.h"
#include "engine/base/text.h"
#include "queue/spool_priv.h"

#define BATCH_END ".batch"

/* A submitter may not lay out what the engine will write (conformance.md 4: hard links, FIFOs). */
struct entries {
    char bad[SPOOL_NAME_MAX + 1];
};

static void on_entry(void *context, const char *name, enum disk_kind kind)
{
    struct entries *entries = context;
    (void)kind;
    bool is_ours = manifest_file_is_reserved(name) && strcmp(name, "batch.json") != 0;
    bool is_temporary = name[0] == '.' && spool_name_ends(name, ".tmp");
    if (is_ours || is_temporary) {
        (void)snprintf(entries->bad, sizeof(entries->bad), "%s", name);
    }
}

static int entries_check(struct spool *spool, const char *name, const char *path,
                         struct spool_problem *ret_problem)
{
    struct entries entries = {.bad = ""};
    int fd =
        disk_open(spool->disk, spool->places[SPOOL_IN_NEW], name, DISK_READONLY | DISK_DIRECTORY);
    if (fd < 0) {
        return fd;
    }
    int result = disk_list(spool->disk, fd, on_entry, &entries);
    disk_close(spool->disk, fd);
    if (result == 0 && entries.bad[0] != '\0') {
        spool_problem_set(ret_problem, "%s/%s: a name that the engine keeps for itself: remove it",
                          path, spool_show(entries.bad).text);
        result = -EINVAL;
    }
    return result;
}

/* 0, -EINVAL with the problem, or another -errno. */
static int claim_check(struct spool *spool, const char *name, struct spool_problem *ret_problem)
{
    char path[SPOOL_PATH_MAX];
    (void)snprintf(path, sizeof(path), "in/new/%.*s", SPOOL_PATH_MAX - 16, spool_show(name).text);
    struct disk_stat stat;
    int result = disk_stat_at(spool->disk, spool->places[SPOOL_IN_NEW], name, &stat);
    if (result != 0) {
        return result;
    }
    if (!spool_name_ends(name, BATCH_END) ||
        !manifest_id_is_good(span_of(name, strlen(name) - strlen(BATCH_END)))) {
        spool_problem_set(ret_problem,
                          "%s: name it NAME.batch, NAME of 1 to %d letters, digits, . _ - "
                          "(no . or - in front)",
                          path, MANIFEST_ID_MAX);
        return -EINVAL;
    }
    result = spool_stat_check(spool, &stat, true, 0, path, ret_problem);
    return result != 0 ? result : entries_check(spool, name, path, ret_problem);
}

/* The name is durable in its new place before it may be missing in the old one. When it cannot be
 * made so it goes back, so that who asked can ask again; -ENOTRECOVERABLE: not even that. */
static int move_durably(struct spool *spool, int dir, const char *name, int dir_to,
                        const char *name_to)
{
    int result = disk_rename(spool->disk, dir, name, dir_to, name_to);
    if (result != 0 || PLANTED(DIR_SYNC_SKIPPED)) {
        return result;
    }
    result = disk_sync(spool->disk, dir_to);
    result = result == 0 ? disk_sync(spool->disk, dir) : result;
    if (result != 0 && disk_rename(spool->disk, dir_to, name_to, dir, name) != 0) {
        result = -ENOTRECOVERABLE;
    }
    return result;
}

int spool_claim(struct spool *spool, const char *name, struct wall_time now, char *ret_directory,
                struct spool_problem *ret_problem)
{
    int result = claim_check(spool, name, ret_problem);
    if (result == -EINVAL) {
        (void)spool_refuse(spool, SPOOL_IN_NEW, name, ret_problem->text, now);
        return result;
    }
    char directory[SPOOL_NAME_MAX + 1];
    int active = spool->places[SPOOL_ACTIVE];
    if (result == 0) {
        char stem[MANIFEST_ID_MAX + 1];
        (void)snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(name) - strlen(BATCH_END)), name);
        result = spool_free_name(spool, active, stem, BATCH_END, directory);
    }
    if (result == 0) {
        result = move_durably(spool, spool->places[SPOOL_IN_NEW], name, active, directory);
    }
    if (result != 0) {
        spool_problem_set(ret_problem, "in/new/%s: %s", spool_show(name).text,
                          spool_errno_words(result));
        spool_mute(spool, SPOOL_IN_NEW, name, now);
        return result;
    }
    ensure(strlen(directory) <= SPOOL_DIRECTORY_MAX);
    memcpy(ret_directory, directory, strlen(directory) + 1);
    return 0;
}

int spool_batch_open(struct spool *spool, const char *directory)
{
    return disk_open(spool->disk, spool->places[SPOOL_ACTIVE], directory,
                     DISK_READONLY | DISK_DIRECTORY);
}

static void put_member(struct writer *writer, const char *name, uint64_t value)
{
    writer_put_format(writer, ",\"%s\":%llu", name, (unsigned long long)value);
}

static void put_progress(struct writer *writer, const struct spool_progress *progress)
{
    writer_put(writer, SPAN("{\"v\":1,\"id\":"));
    text_put_json(writer, span_of_text(progress->id));
    writer_put(writer, SPAN(",\"state\":"));
    text_put_json(writer, span_of_text(progress->state));
    writer_put(writer, SPAN(",\"at\":\""));
    text_put_rfc3339(writer, progress->at);
    writer_put_byte(writer, '"');
    put_member(writer, "total", progress->records);
    put_member(writer, "accepted", progress->accepted);
    put_member(writer, "rejected", progress->rejected);
    put_member(writer, "pending", progress->pending);
    put_member(writer, "in_flight", progress->in_flight);
    put_member(writer, "deferred", progress->deferred);
    put_member(writer, "delivered", progress->delivered);
    put_member(writer, "bounced", progress->bounced);
    put_member(writer, "expired", progress->expired);
    put_member(writer, "cancelled", progress->cancelled);
    put_member(writer, "possible_duplicates", progress->possible_duplicates);
    writer_put_format(writer, ",\"rate_1m\":%.1f,\"eta_s\":", progress->rate_1m);
    if (progress->eta_s >= 0) {
        writer_put_uint(writer, (uint64_t)progress->eta_s);
    } else {
        writer_put(writer, SPAN("null"));
    }
}

/* What does not fit is the extra part, which then is left out as a whole. */
static int write_progress(struct spool *spool, int batch_fd, const char *name,
                          const struct spool_progress *progress, bool is_durable)
{
    char text[64 * 1024];
    struct writer writer = writer_of(text, sizeof(text) - 2);
    put_progress(&writer, progress);
    ensure(!writer.is_full);
    writer_put(&writer, progress->extra);
    writer.end += 2;
    memcpy(writer.at, "}\n", 2);
    writer.at += 2;
    return disk_write_file(spool->disk, batch_fd, name, writer_span(&writer), is_durable);
}

int spool_write_progress(struct spool *spool, int batch_fd, const struct spool_progress *progress)
{
    return write_progress(spool, batch_fd, "progress.json", progress, false);
}

/* done/YYYY-MM-DD, made and durable, opened. One that is there may be of an engine that died before
 * it could make it durable. */
static int day_open(struct spool *spool, enum spool_place place, struct wall_time now,
                    char *ret_day)
{
    char text[32];
    struct writer writer = writer_of(text, sizeof(text));
    text_put_rfc3339(&writer, now);
    (void)snprintf(ret_day, sizeof("YYYY-MM-DD"), "%.10s", text);
    int dir = spool->places[place];
    int result = disk_mkdir(spool->disk, dir, ret_day);
    char *durable = spool->days[place == SPOOL_FAILED];
    if ((result == 0 || result == -EEXIST) && strcmp(durable, ret_day) != 0) {
        result = disk_sync(spool->disk, dir);
        if (result == 0) {
            (void)snprintf(durable, sizeof(spool->days[0]), "%s", ret_day);
        }
    }
    return result != 0 && result != -EEXIST
               ? result
               : disk_open(spool->disk, dir, ret_day, DISK_READONLY | DISK_DIRECTORY);
}

/* What the batch's directory must hold before it goes. */
static int finish_files(struct spool *spool, int batch_fd, enum spool_end end,
                        const struct spool_progress *summary, struct span reason,
                        struct wall_time now)
{
    int result = 0;
    char words[512];
    (void)snprintf(words, sizeof(words), "%.*s", (int)(reason.size < 500 ? reason.size : 500),
                   reason.at);
    if (summary != NULL) {
        result = write_progress(spool, batch_fd, "summary.json", summary, true);
    }
    if (result == 0 && reason.size > 0) {
        result = disk_write_file(spool->disk, batch_fd, "reason.txt", reason, true);
    }
    if (result == 0 && end == SPOOL_END_FAILED) {
        result = spool_pickup_fail(spool, batch_fd, words, now);
    }
    return result;
}

static int finish_move(struct spool *spool, const char *directory, enum spool_end end,
                       struct wall_time now, char *ret_path)
{
    static const enum spool_place places[] = {SPOOL_DONE, SPOOL_FAILED, SPOOL_HOLD};
    enum spool_place place = places[end];
    bool has_day = end != SPOOL_END_HELD;
    char day[sizeof("YYYY-MM-DD")] = "";
    char name[SPOOL_NAME_MAX + 1];
    int dir = has_day ? day_open(spool, place, now, day) : spool->places[place];
    if (dir < 0) {
        return dir;
    }
    char stem[SPOOL_DIRECTORY_MAX + 1];
    (void)snprintf(stem, sizeof(stem), "%.*s", (int)(strlen(directory) - strlen(BATCH_END)),
                   directory);
    int result = spool_free_name(spool, dir, stem, BATCH_END, name);
    if (result == 0) {
        result = move_durably(spool, spool->places[SPOOL_ACTIVE], directory, dir, name);
    }
    if (has_day) {
        disk_close(spool->disk, dir);
    }
    if (result == 0 && ret_path != NULL) {
        (void)snprintf(ret_path, SPOOL_PATH_MAX, "%s/%s%s%s", spool_place_name(place), day,
                       has_day ? "/" : "", name);
    }
    return result;
}

int spool_finish(struct spool *spool, const char *directory, enum spool_end end,
                 const struct spool_progress *summary, struct span reason, struct wall_time now,
                 char *ret_path)
{
    ensure(spool_name_ends(directory, BATCH_END));
    ensure(strlen(directory) <= SPOOL_DIRECTORY_MAX);
    int batch_fd = spool_batch_open(spool, directory);
    if (batch_fd < 0) {
        return batch_fd;
    }
    int result = finish_files(spool, batch_fd, end, summary, reason, now);
    disk_close(spool->disk, batch_fd);
    if (result == 0 && end != SPOOL_END_FAILED) {
        /* Done or held: the batch is the durable copy of its mail. */
        result = spool_pickup_release(spool, directory);
    }
    return result != 0 ? result : finish_move(spool, directory, end, now, ret_path);
}

static void on_tmp_name(void *context, const char *name, enum disk_kind kind)
{
    struct spool_names *names = context;
    (void)kind;
    if (names->count == SPOOL_NAMES_MAX) {
        names->left_count++;
        return;
    }
    (void)snprintf(names->names[names->count++], SPOOL_NAME_MAX + 1, "%s", name);
}

int spool_sweep_tmp(struct spool *spool, struct wall_time now)
{
    struct spool_names *names = malloc(sizeof(*names));
    if (names == NULL) {
        return -ENOMEM;
    }
    names->count = 0;
    names->left_count = 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_IN_TMP], on_tmp_name, names);
    int moved_count = 0;
    for (uint32_t i = 0; i < names->count && result == 0; i++) {
        const char *name = names->names[i];
        struct disk_stat stat;
        bool is_old = disk_stat_at(spool->disk, spool->places[SPOOL_IN_TMP], name, &stat) == 0 &&
                      stat.mtime_ns < now.ns - SPOOL_TMP_AGE_S * NS_PER_S;
        if (is_old && !spool_is_muted(spool, SPOOL_IN_TMP, name, now)) {
            moved_count += spool_refuse(spool, SPOOL_IN_TMP, name,
                                        "was not finished by its writer within a day", now) == 0;
        }
    }
    free(names);
    return result != 0 ? result : moved_count;
}
