/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files of pickup/ stand still. Both tables hold hashes only: 8192 names are 256 KiB whatever
 * their length. The one of the taken is keyed by name and inode, so that a writer who goes on
 * writing into a taken file does not get it mailed a second time: it is told (badmail/) when the
 * batch is released.
 */
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/text.h"
#include "queue/spool_pickup_priv.h"
#include "queue/spool_priv.h"

enum {
    WATCH_SLOTS = 2 * SPOOL_PICKUP_WATCHED_MAX,
    STRANGER_STABLE_MS = 60000, /* a name that is not .eml may still be renamed by its writer */
};
_Static_assert((WATCH_SLOTS & (WATCH_SLOTS - 1)) == 0, "probing masks");
_Static_assert((PICKUP_TAKEN_SLOTS & (PICKUP_TAKEN_SLOTS - 1)) == 0, "probing masks");

struct watched {
    uint64_t name_hash; /* 0: free */
    uint64_t look;      /* hash of inode, size, time */
    int64_t since_ns;   /* first seen with this look */
};

struct watch_table {
    uint32_t count;
    struct watched slots[WATCH_SLOTS];
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
    if (pickup->strangers_count == PICKUP_STRANGERS_MAX) {
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
        struct pickup_source *source = &pickup->ready[pickup->ready_count++];
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

int spool_pickup_look(struct spool *spool, struct wall_time now, uint32_t files_max)
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
