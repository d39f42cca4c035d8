/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a batch is: a look at the places in the order of its way, so that one that moves on during
 * the look is met further on.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/spool_priv.h"
#include "queue/submit_priv.h"

enum {
    DAYS_MAX = 64,
    STATUS_FILE_MAX = 256 * 1024,
    NUMBERS_LOOKED_AT = 16,
    NUMBER_MAX = 1 << 24, /* about what spool_free_name gives */
};

struct days {
    uint32_t count;
    char names[DAYS_MAX][16];
};

/* Keeps the latest. */
static void on_day_name(void *context, const char *name, enum disk_kind kind)
{
    struct days *days = context;
    if (kind != DISK_KIND_DIRECTORY || strlen(name) != sizeof("YYYY-MM-DD") - 1) {
        return;
    }
    uint32_t least = 0;
    if (days->count < DAYS_MAX) {
        least = days->count++;
    } else {
        for (uint32_t i = 1; i < days->count; i++) {
            least = strcmp(days->names[i], days->names[least]) < 0 ? i : least;
        }
        if (strcmp(name, days->names[least]) < 0) {
            return;
        }
    }
    (void)snprintf(days->names[least], sizeof(days->names[least]), "%s", name);
}

static int day_compare(const void *a, const void *b)
{
    return strcmp(b, a);
}

/* 1: the directory ID.batch is there, or ID~N.batch for a greater number; 0: not; or -errno. */
static int is_there(struct submit *submit, int dir, const char *id, uint32_t number, char *ret_name)
{
    char suffix[16] = "";
    struct disk_stat stat;
    if (number > 1) {
        (void)snprintf(suffix, sizeof(suffix), "~%u", (unsigned)number);
    }
    (void)snprintf(ret_name, SPOOL_NAME_MAX + 1, "%s%s.batch", id, suffix);
    int result = disk_stat_at(submit->disk, dir, ret_name, &stat);
    return result == 0 ? stat.kind == DISK_KIND_DIRECTORY : result == -ENOENT ? 0 : result;
}

/* The greatest number of ID~N.batch in the directory; 0: none; or -errno. By names alone: a day may
 * have a million of them. Numbers are given in turn (spool_free_name); people, who remove some,
 * leave one of the first few, or those that follow are taken for gone too. */
static int64_t number_of(struct submit *submit, int dir, const char *id)
{
    char name[SPOOL_NAME_MAX + 1];
    uint32_t best = 0;
    int result = 0;
    for (uint32_t i = 1; i <= NUMBERS_LOOKED_AT && result >= 0; i++) {
        result = is_there(submit, dir, id, i, name);
        best = result > 0 ? i : best;
    }
    uint32_t stride = best == NUMBERS_LOOKED_AT ? 1 : 0;
    while (stride > 0 && stride < NUMBER_MAX && result >= 0 &&
           (result = is_there(submit, dir, id, best + stride, name)) > 0) {
        best += stride;
        stride *= 2;
    }
    for (stride /= 2; stride > 0 && result >= 0; stride /= 2) {
        result = is_there(submit, dir, id, best + stride, name);
        best += result > 0 ? stride : 0;
    }
    return result < 0 ? result : (int64_t)best;
}

/* 1: found, path filled in; 0: not there; or -errno. */
static int find_in(struct submit *submit, const char *place, const char *id, char *ret_path)
{
    char name[SPOOL_NAME_MAX + 1];
    int dir = disk_open(submit->disk, submit->root, place, DISK_READONLY | DISK_DIRECTORY);
    if (dir < 0) {
        return dir == -ENOENT ? 0 : dir;
    }
    int64_t number = number_of(submit, dir, id);
    int result = number > 0 ? is_there(submit, dir, id, (uint32_t)number, name) : (int)number;
    disk_close(submit->disk, dir);
    if (result > 0) {
        (void)snprintf(ret_path, SPOOL_PATH_MAX, "%s/%s", place, name);
    }
    return result;
}

/* The same for a place that is divided by days, the latest first. */
static int find_in_days(struct submit *submit, const char *place, const char *id, char *ret_path)
{
    struct days days = {.count = 0};
    int dir = disk_open(submit->disk, submit->root, place, DISK_READONLY | DISK_DIRECTORY);
    if (dir < 0) {
        return dir == -ENOENT ? 0 : dir;
    }
    int result = disk_list(submit->disk, dir, on_day_name, &days);
    disk_close(submit->disk, dir);
    qsort(days.names, days.count, sizeof(days.names[0]), day_compare);
    for (uint32_t i = 0; i < days.count && result == 0; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s/%s", place, days.names[i]);
        result = find_in(submit, path, id, ret_path);
    }
    return result;
}

/* Up to room bytes of PATH/NAME; 0 when there is none. */
static size_t read_file(struct submit *submit, const char *path, const char *name, char *bytes,
                        size_t room)
{
    char whole[SPOOL_PATH_MAX + 32];
    (void)snprintf(whole, sizeof(whole), "%s/%s", path, name);
    int fd = disk_open(submit->disk, submit->root, whole, DISK_READONLY);
    if (fd < 0) {
        return 0;
    }
    int64_t size = disk_read(submit->disk, fd, bytes, room, 0);
    disk_close(submit->disk, fd);
    return size > 0 ? (size_t)size : 0;
}

static uint64_t member(const json_t *root, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(root, name));
    return value > 0 ? (uint64_t)value : 0;
}

static void read_counts(struct submit *submit, const char *name, struct submit_status *status)
{
    char *bytes = malloc(STATUS_FILE_MAX);
    json_t *root = NULL;
    if (bytes != NULL) {
        size_t size = read_file(submit, status->path, name, bytes, STATUS_FILE_MAX);
        root = json_loadb(bytes, size, 0, NULL);
    }
    free(bytes);
    if (json_is_object(root)) {
        json_t *eta = json_object_get(root, "eta_s");
        status->has_counts = true;
        status->records = member(root, "total");
        status->accepted = member(root, "accepted");
        status->rejected = member(root, "rejected");
        status->pending = member(root, "pending");
        status->in_flight = member(root, "in_flight");
        status->deferred = member(root, "deferred");
        status->delivered = member(root, "delivered");
        status->bounced = member(root, "bounced");
        status->expired = member(root, "expired");
        status->cancelled = member(root, "cancelled");
        status->possible_duplicates = member(root, "possible_duplicates");
        status->rate_1m = json_number_value(json_object_get(root, "rate_1m"));
        status->eta_s = json_is_integer(eta) ? (int64_t)json_integer_value(eta) : -1;
    }
    json_decref(root);
}

static void read_reason(struct submit *submit, struct submit_status *status)
{
    size_t size =
        read_file(submit, status->path, "reason.txt", status->reason, sizeof(status->reason) - 1);
    while (size > 0 && status->reason[size - 1] == '\n') {
        size--;
    }
    status->reason[size] = '\0';
}

static const struct {
    enum submit_state state;
    const char *place;
    bool has_days;
    const char *counts; /* file, or NULL */
    bool has_reason;
} PLACES[] = {
    {SUBMIT_WAITING, "in/new", false, NULL, false},
    {SUBMIT_ACTIVE, "active", false, "progress.json", false},
    {SUBMIT_HELD, "hold", false, "summary.json", true},
    {SUBMIT_DONE, "done", true, "summary.json", false},
    {SUBMIT_FAILED, "failed", true, "summary.json", true},
};

int submit_status_read(struct submit *submit, const char *id, struct submit_status *ret_status)
{
    struct submit_status status = {.state = SUBMIT_UNKNOWN, .eta_s = -1};
    if (!manifest_id_is_good(span_of_text(id))) {
        return -EINVAL;
    }
    for (size_t i = 0; i < COUNT_OF(PLACES) && status.state == SUBMIT_UNKNOWN; i++) {
        int found = PLACES[i].has_days ? find_in_days(submit, PLACES[i].place, id, status.path)
                                       : find_in(submit, PLACES[i].place, id, status.path);
        if (found < 0) {
            return found;
        }
        if (found > 0) {
            status.state = PLACES[i].state;
            if (PLACES[i].counts != NULL) {
                read_counts(submit, PLACES[i].counts, &status);
            }
            if (PLACES[i].has_reason) {
                read_reason(submit, &status);
            }
        }
    }
    *ret_status = status;
    return 0;
}
