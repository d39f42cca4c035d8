/* SPDX-License-Identifier: Apache-2.0 */
/* How a batch comes into active/ and how it leaves. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/planted.h"
#include "engine/base/text.h"
#include "queue/spool_priv.h"

#define BATCH_END ".batch"

static const char SOURCES_PLACE[] = "/sources.list, or a file of pickup/ that it names";

/* SUMMARY: without the extra part; an id may be written with six bytes for each of its own. */
enum { PROGRESS_SIZE_MAX = 64 * 1024, SUMMARY_SIZE_MAX = 1536 };
_Static_assert((SPOOL_GROUP_MAX + 1) * SUMMARY_SIZE_MAX <= PROGRESS_SIZE_MAX, "room for a group");

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

/* Names move from one directory to another, many with the same syncs: a name is durable in its new
 * place before it may be missing in the old one. 0 or -errno of the sync. */
static int moves_sync(struct spool *spool, int dir, int dir_to)
{
    if (PLANTED(DIR_SYNC_SKIPPED)) {
        return 0;
    }
    int result = disk_sync(spool->disk, dir_to);
    return result == 0 ? disk_sync(spool->disk, dir) : result;
}

int spool_move_back(struct spool *spool, int dir, const char *name, int dir_to, const char *name_to,
                    int error)
{
    ensure(error < 0);
    return disk_rename(spool->disk, dir_to, name_to, dir, name) == 0 ? error : -ENOTRECOVERABLE;
}

/* Into active/, not durable yet. */
static int claim_move(struct spool *spool, struct spool_claimed *claim, struct wall_time now)
{
    const char *name = claim->name;
    int result = claim_check(spool, name, &claim->problem);
    if (result == -EINVAL) {
        claim->is_gone = spool_refuse(spool, SPOOL_IN_NEW, name, claim->problem.text, now) == 0;
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
        result = disk_rename(spool->disk, spool->places[SPOOL_IN_NEW], name, active, directory);
    }
    if (result == 0) {
        ensure(strlen(directory) <= SPOOL_DIRECTORY_MAX);
        memcpy(claim->directory, directory, strlen(directory) + 1);
        claim->is_gone = true;
    }
    return result;
}

/* Told, unless its writer took it back. */
static void pass_over(struct spool *spool, struct spool_claimed *claim, struct wall_time now)
{
    if (claim->result != -ENOENT) {
        spool_problem_set(
            &claim->problem, "in/new/%.200s: not claimed: %s; it is tried again in %d minutes",
            spool_show(claim->name).text, spool_errno_words(claim->result), SPOOL_MUTE_S / 60);
    }
    spool_mute(spool, SPOOL_IN_NEW, claim->name, now);
}

void spool_claim_group(struct spool *spool, struct spool_claimed *claims, uint32_t count,
                       struct wall_time now)
{
    ensure(count <= SPOOL_GROUP_MAX);
    int in_new = spool->places[SPOOL_IN_NEW];
    int active = spool->places[SPOOL_ACTIVE];
    bool is_any = false;
    for (uint32_t i = 0; i < count; i++) {
        claims[i].is_gone = false;
        claims[i].problem.text[0] = '\0';
        claims[i].result = claim_move(spool, &claims[i], now);
        is_any |= claims[i].result == 0;
    }
    int result = is_any ? moves_sync(spool, in_new, active) : 0;
    for (uint32_t i = count; i-- > 0;) {
        struct spool_claimed *claim = &claims[i];
        if (claim->result == 0 && result != 0) {
            claim->result =
                spool_move_back(spool, in_new, claim->name, active, claim->directory, result);
        }
        claim->is_gone &= claim->result == 0 || claim->result == -EINVAL;
        if (claim->is_gone) {
            spool_new_gone(spool);
        }
        if (claim->result != 0 && claim->result != -EINVAL && !spool_is_want(claim->result)) {
            pass_over(spool, claim, now);
        }
    }
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
static struct span progress_text(char *text, size_t size, const struct spool_progress *progress)
{
    struct writer writer = writer_of(text, size - 2);
    put_progress(&writer, progress);
    ensure(!writer.is_full);
    writer_put(&writer, progress->extra);
    writer.end += 2;
    memcpy(writer.at, "}\n", 2);
    writer.at += 2;
    return writer_span(&writer);
}

int spool_write_progress(struct spool *spool, int batch_fd, const struct spool_progress *progress)
{
    char text[PROGRESS_SIZE_MAX];
    struct span content = progress_text(text, sizeof(text), progress);
    return disk_write_file(spool->disk, batch_fd, "progress.json", content, false);
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
    if (result == 0 || (result == -EEXIST && strcmp(durable, ret_day) != 0)) {
        result = disk_sync(spool->disk, dir);
        if (result == 0) {
            (void)snprintf(durable, sizeof(spool->days[0]), "%s", ret_day);
        }
    }
    return result != 0 && result != -EEXIST
               ? result
               : disk_open(spool->disk, dir, ret_day, DISK_READONLY | DISK_DIRECTORY);
}

/* `name` in the batch's directory, with a slash in front; "": that directory. */
static int leaving_fail(struct spool_leaving *leaving, const char *name, int error)
{
    ensure(error < 0);
    spool_problem_set(&leaving->problem, "active/%s%s: %s", leaving->directory, name,
                      spool_errno_words(error));
    return error;
}

/* What the batches' directories must hold before they go, and what no more: behind its move nothing
 * in a batch changes, as people may take it away at once. */
static void summaries_write(struct spool *spool, struct spool_leaving *leavings, uint32_t count)
{
    char text[PROGRESS_SIZE_MAX];
    size_t used = 0;
    struct disk_file files[SPOOL_GROUP_MAX];
    struct spool_leaving *leaving_of[SPOOL_GROUP_MAX];
    uint32_t files_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct spool_leaving *leaving = &leavings[i];
        leaving->result = 0;
        leaving->problem.text[0] = '\0';
        if (leaving->summary == NULL) {
            continue; /* whether it is there, the next steps see */
        }
        int fd = leaving->batch_fd;
        fd = fd >= 0 ? fd : spool_batch_open(spool, leaving->directory);
        leaving->result = fd < 0 ? leaving_fail(leaving, "", fd) : 0;
        if (fd >= 0) {
            /* The first ones may be long; there is room for all that can be in the others. */
            size_t size = sizeof(text) - used - (count - 1 - i) * SUMMARY_SIZE_MAX;
            struct span content = progress_text(text + used, size, leaving->summary);
            used += content.size;
            leaving_of[files_count] = leaving;
            files[files_count++] =
                (struct disk_file){.dir = fd, .path = "summary.json", .content = content};
        }
    }
    disk_write_files(spool->disk, files, files_count);
    for (uint32_t i = 0; i < files_count; i++) {
        if (files[i].result == 0) {
            /* The summary says all now. It may be of an earlier run, or not be there. */
            (void)disk_unlink(spool->disk, files[i].dir, "progress.json");
        }
        if (leaving_of[i]->batch_fd < 0) {
            disk_close(spool->disk, files[i].dir);
        }
        int result = files[i].result;
        leaving_of[i]->result =
            result == 0 ? 0 : leaving_fail(leaving_of[i], "/summary.json", result);
    }
}

/* Done or held: the batch is the durable copy of its mail. */
static int finish_sources(struct spool *spool, struct spool_leaving *leaving)
{
    int result = spool_pickup_release(spool, leaving->directory);
    return result == 0 ? 0 : leaving_fail(leaving, SOURCES_PLACE, result);
}

/* The reason, and the sources of a pickup batch. */
static int finish_rest(struct spool *spool, struct spool_leaving *leaving, struct wall_time now)
{
    struct span reason = leaving->reason;
    bool is_failed = leaving->end == SPOOL_END_FAILED;
    if (reason.size == 0 && !is_failed) {
        return finish_sources(spool, leaving);
    }
    int batch_fd = spool_batch_open(spool, leaving->directory);
    if (batch_fd < 0) {
        return leaving_fail(leaving, "", batch_fd);
    }
    char words[512];
    (void)snprintf(words, sizeof(words), "%.*s", (int)(reason.size < 500 ? reason.size : 500),
                   reason.at);
    size_t size = strlen(words);
    while (size > 0 && words[size - 1] == '\n') {
        words[--size] = '\0';
    }
    int result =
        reason.size > 0 ? disk_write_file(spool->disk, batch_fd, "reason.txt", reason, true) : 0;
    if (result != 0) {
        result = leaving_fail(leaving, "/reason.txt", result);
    } else if (is_failed) {
        result = spool_pickup_fail(spool, batch_fd, words, now);
        result = result == 0 ? 0 : leaving_fail(leaving, SOURCES_PLACE, result);
    }
    disk_close(spool->disk, batch_fd);
    return result == 0 && !is_failed ? finish_sources(spool, leaving) : result;
}

static const enum spool_place END_PLACES[] = {[SPOOL_END_DONE] = SPOOL_DONE,
                                              [SPOOL_END_FAILED] = SPOOL_FAILED,
                                              [SPOOL_END_HELD] = SPOOL_HOLD};

/* Those that end so: into their new place, not durable yet. Returns whether any has moved. */
static bool moves_begin(struct spool *spool, struct spool_leaving *leavings, uint32_t count,
                        enum spool_end end, int dir)
{
    bool is_any = false;
    for (uint32_t i = 0; i < count; i++) {
        struct spool_leaving *leaving = &leavings[i];
        if (leaving->end != end || leaving->result != 0) {
            continue;
        }
        char stem[SPOOL_DIRECTORY_MAX + 1];
        (void)snprintf(stem, sizeof(stem), "%.*s",
                       (int)(strlen(leaving->directory) - strlen(BATCH_END)), leaving->directory);
        leaving->result =
            dir < 0 ? dir : spool_free_name(spool, dir, stem, BATCH_END, leaving->name);
        if (leaving->result == 0) {
            leaving->result = disk_rename(spool->disk, spool->places[SPOOL_ACTIVE],
                                          leaving->directory, dir, leaving->name);
        }
        is_any |= leaving->result == 0;
    }
    return is_any;
}

static void finish_moves(struct spool *spool, struct spool_leaving *leavings, uint32_t count,
                         enum spool_end end, struct wall_time now)
{
    bool is_any = false;
    for (uint32_t i = 0; i < count; i++) {
        is_any |= leavings[i].end == end && leavings[i].result == 0;
    }
    if (!is_any) {
        return;
    }
    char day[sizeof("YYYY-MM-DD")];
    bool has_day = end != SPOOL_END_HELD;
    int active = spool->places[SPOOL_ACTIVE];
    int dir = has_day ? day_open(spool, END_PLACES[end], now, day) : spool->places[SPOOL_HOLD];
    bool has_moved = moves_begin(spool, leavings, count, end, dir);
    int result = has_moved ? moves_sync(spool, active, dir) : 0;
    for (uint32_t i = count; result != 0 && i-- > 0;) {
        struct spool_leaving *leaving = &leavings[i];
        if (leaving->end == end && leaving->result == 0) {
            leaving->result =
                spool_move_back(spool, active, leaving->directory, dir, leaving->name, result);
        }
    }
    if (has_day && dir >= 0) {
        disk_close(spool->disk, dir);
    }
}

void spool_finish_group(struct spool *spool, struct spool_leaving *leavings, uint32_t count,
                        struct wall_time now)
{
    ensure(count <= SPOOL_GROUP_MAX);
    for (uint32_t i = 0; i < count; i++) {
        ensure(spool_name_ends(leavings[i].directory, BATCH_END));
        ensure(strlen(leavings[i].directory) <= SPOOL_DIRECTORY_MAX);
    }
    summaries_write(spool, leavings, count);
    for (uint32_t i = 0; i < count; i++) {
        if (leavings[i].result == 0) {
            leavings[i].result = finish_rest(spool, &leavings[i], now);
        }
    }
    finish_moves(spool, leavings, count, SPOOL_END_DONE, now);
    finish_moves(spool, leavings, count, SPOOL_END_FAILED, now);
    finish_moves(spool, leavings, count, SPOOL_END_HELD, now);
    for (uint32_t i = 0; i < count; i++) {
        struct spool_leaving *leaving = &leavings[i];
        if (leaving->result != 0 && leaving->problem.text[0] == '\0') {
            spool_problem_set(&leaving->problem, "active/%s: cannot be moved to %s/: %s",
                              leaving->directory, spool_place_name(END_PLACES[leaving->end]),
                              spool_errno_words(leaving->result));
        }
    }
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
