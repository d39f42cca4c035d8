/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of pickup/ stand still. A listing serves until what it has brought is used up: its
 * names stand in queues, a queue for each kind of file, in the order in which they were found; so
 * they fall due in that order, and a look costs as much as it takes, however many wait. pickup/ is
 * listed again when nothing more is due, or when half a table is free for those that did not fit.
 *
 *   found     in the listing: its look, and the time                          -> watched
 *   watched   it is due, and its look is another: it waits anew, behind all   -> watched
 *   watched   it is due, and looks as it did                                  -> ready, or refused
 *   ready     in a batch, or put aside: forgotten; otherwise                  -> watched, in front
 *
 * The table of the taken is keyed by name and inode, so that a writer who goes on writing into a
 * taken file does not get it mailed a second time: it is told (badmail/) when the batch is
 * released.
 */
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/text.h"
#include "queue/spool_pickup_priv.h"
#include "queue/spool_priv.h"

enum {
    WATCH_BUCKETS = SPOOL_PICKUP_WATCHED_MAX,
    STRANGER_STABLE_MS = 60000, /* a name that is not .eml may still be renamed by its writer */
    VISITS_MAX = 8192,          /* of watched files in one look */
};
_Static_assert((WATCH_BUCKETS & (WATCH_BUCKETS - 1)) == 0, "buckets are chosen by a mask");
_Static_assert((PICKUP_TAKEN_SLOTS & (PICKUP_TAKEN_SLOTS - 1)) == 0, "probing masks");

static const int64_t WAITS_MS[] = {
    [PICKUP_MAIL] = SPOOL_PICKUP_STABLE_MS,
    [PICKUP_NO_MAIL] = STRANGER_STABLE_MS,
    [PICKUP_NO_FILE] = 0,
};
_Static_assert(COUNT_OF(WAITS_MS) == PICKUP_KINDS_COUNT, "a wait for each kind");

/* A name under watch. */
struct watched {
    struct list link; /* in the queue of its kind, or in pickup->taking */
    struct watched *next_in_bucket;
    uint64_t look; /* hash of inode, size, time */
    struct mono_time since;
    enum pickup_kind kind;
    char name[];
};

static uint64_t never_zero(uint64_t hash)
{
    return hash != 0 ? hash : 1;
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

bool spool_pickup_is_same(const struct disk_stat *a, const struct disk_stat *b)
{
    return a->inode == b->inode && a->size == b->size && a->mtime_ns == b->mtime_ns;
}

struct spool_pickup *spool_pickup_create(void)
{
    struct spool_pickup *pickup = calloc(1, sizeof(*pickup));
    if (pickup == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < PICKUP_KINDS_COUNT; i++) {
        list_init(&pickup->queues[i]);
    }
    list_init(&pickup->taking);
    pickup->buckets = calloc(WATCH_BUCKETS, sizeof(struct watched *));
    if (pickup->buckets == NULL) {
        spool_pickup_destroy(pickup);
        return NULL;
    }
    return pickup;
}

static void queue_free(struct list *queue)
{
    struct list *link;
    while ((link = list_take_first(queue)) != NULL) {
        free(CONTAINER_OF(link, struct watched, link));
    }
}

void spool_pickup_destroy(struct spool_pickup *pickup)
{
    if (pickup != NULL) {
        for (size_t i = 0; i < PICKUP_KINDS_COUNT; i++) {
            queue_free(&pickup->queues[i]);
        }
        queue_free(&pickup->taking);
        free(pickup->buckets);
        free(pickup);
    }
}

/* The slot of the key, or the free one where it would be: at most half of the slots are used. */
static uint32_t taken_slot(const struct spool_pickup *pickup, uint64_t key)
{
    uint32_t slot = (uint32_t)key & (PICKUP_TAKEN_SLOTS - 1);
    while (pickup->taken[slot] != 0 && pickup->taken[slot] != key) {
        slot = (slot + 1) & (PICKUP_TAKEN_SLOTS - 1);
    }
    return slot;
}

static bool taken_has(const struct spool_pickup *pickup, uint64_t key)
{
    return pickup->taken[taken_slot(pickup, key)] == key;
}

void spool_pickup_add_taken(struct spool_pickup *pickup, const struct pickup_source *source)
{
    uint64_t key = taken_key(source->name, source->stat.inode);
    uint32_t slot = taken_slot(pickup, key);
    if (pickup->taken[slot] == 0) {
        ensure(pickup->taken_count < PICKUP_TAKEN_MAX);
        pickup->taken[slot] = key;
        pickup->taken_count++;
    }
}

/* Closes the gap, so that no probe ends early (Knuth 6.4, algorithm R). */
void spool_pickup_remove_taken(struct spool_pickup *pickup, const struct pickup_source *source)
{
    uint64_t key = taken_key(source->name, source->stat.inode);
    uint32_t gap = taken_slot(pickup, key);
    if (pickup->taken[gap] != key) {
        return;
    }
    uint32_t slot = gap;
    for (;;) {
        slot = (slot + 1) & (PICKUP_TAKEN_SLOTS - 1);
        uint64_t there = pickup->taken[slot];
        if (there == 0) {
            break;
        }
        uint32_t home = (uint32_t)there & (PICKUP_TAKEN_SLOTS - 1);
        if (((slot - home) & (PICKUP_TAKEN_SLOTS - 1)) >=
            ((slot - gap) & (PICKUP_TAKEN_SLOTS - 1))) {
            pickup->taken[gap] = there;
            gap = slot;
        }
    }
    pickup->taken[gap] = 0;
    pickup->taken_count--;
}

static struct watched **bucket_of(struct spool_pickup *pickup, const char *name)
{
    return &pickup->buckets[XXH3_64bits(name, strlen(name)) & (WATCH_BUCKETS - 1)];
}

static bool is_watched(struct spool_pickup *pickup, const char *name)
{
    struct watched *watched = *bucket_of(pickup, name);
    while (watched != NULL && strcmp(watched->name, name) != 0) {
        watched = watched->next_in_bucket;
    }
    return watched != NULL;
}

/* False: there is no room for it. */
static bool watch(struct spool_pickup *pickup, const char *name, enum pickup_kind kind,
                  const struct disk_stat *stat)
{
    size_t size = strlen(name) + 1;
    struct watched *watched = malloc(sizeof(*watched) + size);
    if (watched == NULL) {
        return false;
    }
    struct watched **bucket = bucket_of(pickup, name);
    watched->next_in_bucket = *bucket;
    watched->look = look_of(stat);
    watched->since = pickup->mono;
    watched->kind = kind;
    memcpy(watched->name, name, size);
    *bucket = watched;
    list_init(&watched->link);
    list_add_last(&pickup->queues[kind], &watched->link);
    pickup->watched_count++;
    return true;
}

static void unwatch(struct spool_pickup *pickup, struct watched *watched)
{
    struct watched **at = bucket_of(pickup, watched->name);
    while (*at != watched) {
        at = &(*at)->next_in_bucket;
    }
    *at = watched->next_in_bucket;
    list_remove(&watched->link);
    ensure(pickup->watched_count > 0);
    pickup->watched_count--;
    free(watched);
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

static enum pickup_kind kind_of(const char *name, enum disk_kind kind)
{
    if (kind != DISK_KIND_FILE || !name_is_plain(name)) {
        return PICKUP_NO_FILE;
    }
    return name_ends_nocase(name, ".eml") ? PICKUP_MAIL : PICKUP_NO_MAIL;
}

static const char *reason_of(const char *name, enum disk_kind kind)
{
    if (kind == DISK_KIND_LINK) {
        return "a link: put the file itself there";
    }
    if (kind != DISK_KIND_FILE) {
        return "not a regular file";
    }
    return name_is_plain(name) ? "not a mail: name it NAME.eml"
                               : "its name holds control characters or is not UTF-8";
}

/* A name in the listing: under watch from now on, unless it is so already. */
static void on_pickup_name(void *context, const char *name, enum disk_kind kind)
{
    struct spool *spool = context;
    struct spool_pickup *pickup = spool->pickup;
    struct disk_stat stat;
    (void)kind;
    if (name[0] == '.' || name_ends_nocase(name, ".tmp") || name_ends_nocase(name, ".part") ||
        is_watched(pickup, name) || spool_is_muted(spool, SPOOL_PICKUP, name, pickup->now)) {
        return;
    }
    if (pickup->watched_count == SPOOL_PICKUP_WATCHED_MAX) {
        pickup->left_count++;
        return;
    }
    if (disk_stat_at(spool->disk, spool->places[SPOOL_PICKUP], name, &stat) == 0 &&
        !taken_has(pickup, taken_key(name, stat.inode)) &&
        !watch(pickup, name, kind_of(name, stat.kind), &stat)) {
        pickup->left_count++;
    }
}

/* The first of the queue when it has waited long enough. */
static struct watched *due_first(struct spool_pickup *pickup, enum pickup_kind kind)
{
    struct list *queue = &pickup->queues[kind];
    if (list_is_empty(queue)) {
        return NULL;
    }
    struct watched *watched = CONTAINER_OF(queue->next, struct watched, link);
    struct mono_time due = mono_add_ms(watched->since, WAITS_MS[kind]);
    return mono_before(pickup->mono, due) ? NULL : watched;
}

static bool has_due(struct spool_pickup *pickup)
{
    return due_first(pickup, PICKUP_MAIL) != NULL || due_first(pickup, PICKUP_NO_MAIL) != NULL ||
           due_first(pickup, PICKUP_NO_FILE) != NULL;
}

/* Looks at it once more. Still the same: `ret_stat`. Otherwise it waits anew, or is forgotten. */
static bool stands_still(struct spool *spool, struct watched *watched, struct disk_stat *ret_stat)
{
    struct spool_pickup *pickup = spool->pickup;
    int dir = spool->places[SPOOL_PICKUP];
    if (disk_stat_at(spool->disk, dir, watched->name, ret_stat) != 0 ||
        taken_has(pickup, taken_key(watched->name, ret_stat->inode)) ||
        kind_of(watched->name, ret_stat->kind) != watched->kind) {
        unwatch(pickup, watched);
        return false;
    }
    uint64_t look = look_of(ret_stat);
    if (look == watched->look) {
        return true;
    }
    watched->look = look;
    watched->since = pickup->mono;
    list_remove(&watched->link);
    list_add_last(&pickup->queues[watched->kind], &watched->link);
    return false;
}

static void add_ready(struct spool_pickup *pickup, struct watched *watched,
                      const struct disk_stat *stat)
{
    struct pickup_source *source = &pickup->ready[pickup->ready_count++];
    (void)snprintf(source->name, sizeof(source->name), "%s", watched->name);
    source->stat = *stat;
    source->watched = watched;
    list_remove(&watched->link);
    list_add_last(&pickup->taking, &watched->link);
}

static void add_stranger(struct spool_pickup *pickup, struct watched *watched,
                         const struct disk_stat *stat)
{
    uint32_t index = pickup->strangers_count++;
    (void)snprintf(pickup->strangers[index].name, sizeof(pickup->strangers[index].name), "%s",
                   watched->name);
    pickup->strangers[index].reason = reason_of(watched->name, stat->kind);
    unwatch(pickup, watched);
}

/* Those that are due, as many as one call takes. */
static void visit(struct spool *spool, enum pickup_kind kind)
{
    struct spool_pickup *pickup = spool->pickup;
    struct watched *watched;
    for (uint32_t i = 0; i < VISITS_MAX && (watched = due_first(pickup, kind)) != NULL; i++) {
        struct disk_stat stat;
        bool is_mail = kind == PICKUP_MAIL;
        if (is_mail ? pickup->ready_count == pickup->files_max
                    : pickup->strangers_count == PICKUP_STRANGERS_MAX) {
            break;
        }
        if (!stands_still(spool, watched, &stat)) {
            continue;
        }
        if (is_mail) {
            add_ready(pickup, watched, &stat);
        } else {
            add_stranger(pickup, watched, &stat);
        }
    }
}

void spool_pickup_forget(struct spool_pickup *pickup, struct pickup_source *source)
{
    unwatch(pickup, source->watched);
    source->watched = NULL;
}

void spool_pickup_look_end(struct spool_pickup *pickup)
{
    while (!list_is_empty(&pickup->taking)) {
        struct list *last = pickup->taking.prev;
        list_remove(last);
        list_add_first(&pickup->queues[PICKUP_MAIL], last);
    }
}

int spool_pickup_look(struct spool *spool, struct wall_time now, struct mono_time mono,
                      uint32_t files_max)
{
    struct spool_pickup *pickup = spool->pickup;
    ensure(list_is_empty(&pickup->taking));
    pickup->now = now;
    pickup->mono = mono;
    pickup->files_max = files_max;
    pickup->ready_count = 0;
    pickup->strangers_count = 0;
    visit(spool, PICKUP_MAIL);
    visit(spool, PICKUP_NO_MAIL);
    visit(spool, PICKUP_NO_FILE);
    bool has_room = pickup->watched_count <= SPOOL_PICKUP_WATCHED_MAX / 2;
    if (!has_due(pickup) || (has_room && pickup->left_count > 0)) {
        pickup->left_count = 0;
        int result = disk_list(spool->disk, spool->places[SPOOL_PICKUP], on_pickup_name, spool);
        if (result != 0) {
            return result;
        }
        visit(spool, PICKUP_NO_FILE);
    }
    pickup->has_more = has_due(pickup);
    pickup->waiting_count = pickup->watched_count - pickup->ready_count + pickup->left_count;
    return 0;
}
