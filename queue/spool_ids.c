/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool_ids.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/base/text.h"

enum {
    SLOTS_MIN = 1024,
    READ_SIZE = 64 * 1024,
    LINE_MAX_SIZE = MANIFEST_ID_MAX + 32,
    SUM_SIZE = 8,   /* digits */
    FILES_MAX = 64, /* in one listing: what is beyond goes the next time */
    LINES_MIN = 4096,
    TIDY_S = 3600,       /* between two looks for old files, by the engine's own seconds */
    FULL_S = 60,         /* a full table is not looked through again so long */
    BLOCK_SIZE = 4096,   /* what cannot be read is passed over in blocks ... */
    BLOCKS_BAD_MAX = 64, /* ... so many a file: a dying disk takes seconds for each */
};

#define FILE_PREFIX "ids-"
#define SUM_BEGIN " ="
#define CUT_END " (cut)" /* of a last line that was found, whole or not, when more was written */
#define DAY_SIZE sizeof("YYYY-MM-DD")

struct slot {
    uint64_t hash; /* 0: free */
    uint32_t at_s;
    bool is_read; /* from a file: what the page cache knows may never have been synced */
};

struct spool_ids {
    struct spool *spool;
    uint64_t secret;
    struct slot *slots;
    uint32_t slots_count; /* a power of two, more than 4/3 of used_count unless memory is short */
    uint32_t used_count;
    bool is_full;
    uint32_t full_at_s; /* when that was found */
    uint32_t own_s;     /* the engine's own second; UINT32_MAX: it was never told */
    uint32_t tidy_at_s; /* by it */
    char day[DAY_SIZE]; /* of the file that is open, "" none */
    int fd;
    bool is_cut;     /* CUT_END and "\n" come in front of `lines` */
    uint64_t synced; /* of the open file; lines are written behind it */
    char *lines;     /* that no sync has made durable: a page whose sync has failed may be lost */
    size_t lines_room;
    size_t lines_size;
    size_t written;       /* of them, into the open file since a sync of it has failed */
    bool is_memory_short; /* an id was not kept for want of memory */
    uint32_t damages_count;
    struct spool_ids_damage damages[FILES_MAX + 1];
};
_Static_assert(SPOOL_IDS_NAME_SIZE >= sizeof(FILE_PREFIX) + DAY_SIZE, "room for a file's name");

static void put_day(char *ret_day, int64_t at_s)
{
    char text[40];
    struct writer writer = writer_of(text, sizeof(text));
    text_put_rfc3339(&writer, (struct wall_time){.ns = at_s * NS_PER_S});
    ensure(writer_size(&writer) >= DAY_SIZE);
    memcpy(ret_day, text, DAY_SIZE - 1);
    ret_day[DAY_SIZE - 1] = '\0';
}

static uint64_t hash_of(const struct spool_ids *ids, struct span id)
{
    uint64_t hash = XXH3_64bits_withSeed(id.at, id.size, ids->secret);
    return hash == 0 ? 1 : hash;
}

static bool is_old(const struct spool_ids *ids, uint32_t at_s, uint32_t now_s)
{
    uint32_t least_s = now_s < ids->own_s ? now_s : ids->own_s;
    return (uint64_t)at_s + SPOOL_IDS_AGE_S <= least_s;
}

/* The slot of the hash, or the free one where it would be. */
static struct slot *slot_of(const struct spool_ids *ids, uint64_t hash)
{
    uint32_t mask = ids->slots_count - 1;
    uint32_t at = (uint32_t)hash & mask;
    while (ids->slots[at].hash != 0 && ids->slots[at].hash != hash) {
        at = (at + 1) & mask;
    }
    return &ids->slots[at];
}

/* Into a table twice as large, or as large when the old ones have left enough room. 0, -ENOSPC or
 * -ENOMEM. */
static int grow(struct spool_ids *ids, uint32_t now_s)
{
    struct slot *slots = ids->slots;
    uint32_t count = ids->slots_count;
    uint32_t live = 0;
    for (uint32_t i = 0; i < count; i++) {
        live += slots[i].hash != 0 && !is_old(ids, slots[i].at_s, now_s);
    }
    uint32_t wanted = count == 0 ? SLOTS_MIN : live > count / 2 ? 2 * count : count;
    ids->is_full = live >= SPOOL_IDS_MAX;
    ids->full_at_s = now_s;
    if (ids->is_full) {
        return -ENOSPC;
    }
    struct slot *more = calloc(wanted, sizeof(*more));
    if (more == NULL) {
        return -ENOMEM;
    }
    ids->slots = more;
    ids->slots_count = wanted;
    ids->used_count = live;
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i].hash != 0 && !is_old(ids, slots[i].at_s, now_s)) {
            *slot_of(ids, slots[i].hash) = slots[i];
        }
    }
    free(slots);
    return 0;
}

/* For one more hash. While memory is short the table is filled beyond what is good for its speed,
 * but for one slot: a search ends there. */
static bool has_room(struct spool_ids *ids, uint32_t now_s)
{
    if (ids->is_full && now_s - ids->full_at_s < FULL_S) {
        return false;
    }
    int result = ids->used_count >= ids->slots_count / 4 * 3 ? grow(ids, now_s) : 0;
    bool has_slot = result != -ENOSPC && ids->used_count + 1 < ids->slots_count;
    ids->is_memory_short |= !has_slot && result == -ENOMEM;
    return has_slot;
}

static void keep(struct spool_ids *ids, struct slot slot, uint32_t now_s)
{
    if (slot_of(ids, slot.hash)->hash == 0) {
        if (!has_room(ids, now_s)) {
            odd(batch_id_not_kept);
            return;
        }
        ids->used_count++;
    }
    *slot_of(ids, slot.hash) = slot;
}

/* Of "ID SECONDS". */
static uint32_t sum_of(struct span text)
{
    return (uint32_t)XXH3_64bits(text.at, text.size);
}

static void put_sum(struct writer *writer, struct span text)
{
    writer_put_format(writer, SUM_BEGIN "%08x", (unsigned)sum_of(text));
}

/* What of a line says `id` and `at_s`; behind it lies the sum, or nothing in a line of an engine
 * that wrote none, or of one that was cut. */
static bool take_entry(struct cursor *cursor, struct span *ret_id, uint64_t *ret_at_s)
{
    *ret_id = cursor_take_until(cursor, ' ');
    *ret_at_s = 0; /* a cut line is one of 1970 */
    bool is_cut = !cursor_take_byte(cursor, ' ') || cursor_left(cursor) == 0;
    return manifest_id_is_good(*ret_id) &&
           (is_cut || cursor_take_uint(cursor, UINT32_MAX, ret_at_s));
}

/* False: it is not what was written. */
static bool take_whole_line(struct spool_ids *ids, struct span line, uint32_t now_s)
{
    struct cursor cursor = cursor_of(line);
    struct span id;
    uint64_t at_s;
    char want[sizeof(SUM_BEGIN) + SUM_SIZE];
    struct writer sum = writer_of(want, sizeof(want));
    if (!take_entry(&cursor, &id, &at_s)) {
        return false;
    }
    size_t left = cursor_left(&cursor);
    put_sum(&sum, span_of(line.at, line.size - left));
    if (left > 0 && !span_equal(span_of(line.at + line.size - left, left), writer_span(&sum))) {
        return false;
    }
    if (!is_old(ids, (uint32_t)at_s, now_s)) {
        uint64_t hash = hash_of(ids, id);
        keep(ids, (struct slot){.hash = hash, .at_s = (uint32_t)at_s, .is_read = true}, now_s);
    }
    return true;
}

static bool take_line(struct spool_ids *ids, struct span line, bool is_last, uint32_t now_s)
{
    struct span end = SPAN(CUT_END);
    bool is_cut = is_last;
    if (line.size >= end.size &&
        span_equal(span_of(line.at + line.size - end.size, end.size), end)) {
        line.size -= end.size;
        is_cut = true;
    }
    if (line.size == 0 || take_whole_line(ids, line, now_s)) {
        return true;
    }
    /* Nothing cuts a line behind its end. */
    const char *sum = memmem(line.at, line.size, SUM_BEGIN, strlen(SUM_BEGIN));
    size_t sum_size = strlen(SUM_BEGIN) + SUM_SIZE;
    return is_cut && (sum == NULL || (size_t)(line.at + line.size - sum) < sum_size);
}

static void note_damage(struct spool_ids *ids, const char *file, int error, uint64_t lost_size)
{
    ensure(error < 0);
    ensure(ids->damages_count < COUNT_OF(ids->damages));
    struct spool_ids_damage *damage = &ids->damages[ids->damages_count++];
    odd(batch_ids_not_read);
    (void)snprintf(damage->file, sizeof(damage->file), "%s", file);
    damage->error = error;
    damage->lost_size = lost_size;
}

/* A file on its way through the buffer. */
struct reading {
    struct disk *disk;
    int fd;
    uint64_t size;        /* of the file */
    uint64_t offset;      /* of the next read */
    uint64_t small_until; /* block by block as far as here: there is a bad one among them */
    size_t held;          /* in `bytes`: the beginning of a line */
    bool is_torn;         /* the line that comes next has lost its beginning */
    uint32_t bad_count;
    uint64_t lost_size;
    int error;
    uint64_t wrong_size; /* of lines that are not what was written */
    char *bytes;         /* READ_SIZE */
};

/* More of the file into the buffer. 1; 0: that was all. */
static int read_more(struct reading *reading)
{
    while (reading->offset < reading->size) {
        uint64_t size = READ_SIZE - reading->held;
        uint64_t to_border = BLOCK_SIZE - reading->offset % BLOCK_SIZE;
        bool is_small = reading->offset < reading->small_until;
        size = is_small && to_border < size ? to_border : size;
        int64_t got = disk_read(reading->disk, reading->fd, reading->bytes + reading->held, size,
                                reading->offset);
        if (got > 0) {
            reading->held += (size_t)got;
            reading->offset += (uint64_t)got;
            return 1;
        }
        if (got == 0) {
            return 0; /* it is shorter than it was */
        }
        reading->error = (int)got;
        if (!is_small) {
            reading->small_until = reading->offset + size;
            continue;
        }
        uint64_t left = reading->size - reading->offset;
        bool is_given_up = ++reading->bad_count == BLOCKS_BAD_MAX;
        uint64_t lost = is_given_up || to_border > left ? left : to_border;
        reading->lost_size += lost;
        reading->offset += lost;
        reading->held = 0;
        reading->is_torn = true;
    }
    return 0;
}

/* What a crash leaves of bytes that no sync made durable. */
static bool is_hole(struct span text)
{
    return text.size > 0 && (text.at[0] == '\0' || memmem(text.at, text.size, "\0\0", 2) != NULL);
}

static void take_next(struct spool_ids *ids, struct reading *reading, struct span line,
                      bool is_last, uint32_t now_s)
{
    if (!reading->is_torn && !take_line(ids, line, is_last, now_s) && !is_hole(line)) {
        reading->wrong_size += line.size + !is_last;
    }
    reading->is_torn = false;
}

/* The whole lines in the buffer; what is behind them stays. */
static void take_lines(struct spool_ids *ids, struct reading *reading, uint32_t now_s)
{
    char *bytes = reading->bytes;
    const char *end = memrchr(bytes, '\n', reading->held);
    size_t whole = end == NULL ? 0 : (size_t)(end - bytes) + 1;
    struct cursor cursor = cursor_of(span_of(bytes, whole));
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        take_next(ids, reading, line, false, now_s);
    }
    reading->held -= whole;
    memmove(bytes, bytes + whole, reading->held);
    if (reading->held >= READ_SIZE / 2) { /* no line of ours is so long */
        reading->wrong_size += is_hole(span_of(bytes, reading->held)) ? 0 : reading->held;
        reading->held = 0;
        reading->is_torn = true;
    }
}

static void read_file(struct spool_ids *ids, const char *name, uint32_t now_s)
{
    struct disk_stat stat = {.size = 0};
    struct reading reading = {.disk = ids->spool->disk, .bytes = malloc(READ_SIZE)};
    ids->is_memory_short |= reading.bytes == NULL;
    if (reading.bytes == NULL) {
        return;
    }
    reading.fd = disk_open(reading.disk, ids->spool->places[SPOOL_JOURNAL], name, DISK_READONLY);
    reading.error = reading.fd < 0 ? reading.fd : disk_stat_fd(reading.disk, reading.fd, &stat);
    reading.size = reading.error == 0 ? stat.size : 0;
    while (read_more(&reading) != 0) {
        take_lines(ids, &reading, now_s);
    }
    take_next(ids, &reading, span_of(reading.bytes, reading.held), true, now_s);
    if (reading.error != 0 && (reading.lost_size > 0 || reading.size == 0)) {
        note_damage(ids, name, reading.error, reading.lost_size + reading.wrong_size);
    } else if (reading.wrong_size > 0) {
        note_damage(ids, name, -EBADMSG, reading.wrong_size);
    }
    if (reading.fd >= 0) {
        disk_close(reading.disk, reading.fd);
    }
    free(reading.bytes);
}

struct listing {
    bool is_oldest; /* of more than there is room for, the oldest are kept; else the youngest */
    uint32_t count;
    char names[FILES_MAX][sizeof(FILE_PREFIX) + DAY_SIZE];
};

static void on_name(void *context, const char *name, enum disk_kind kind)
{
    struct listing *listing = context;
    size_t prefix = strlen(FILE_PREFIX);
    (void)kind;
    if (strncmp(name, FILE_PREFIX, prefix) != 0 || strlen(name) != prefix + DAY_SIZE - 1) {
        return;
    }
    if (listing->count < FILES_MAX) {
        memcpy(listing->names[listing->count++], name, prefix + DAY_SIZE);
        return;
    }
    /* The one that is kept last makes room, when it is further away than this one. */
    uint32_t last = 0;
    for (uint32_t i = 1; i < FILES_MAX; i++) {
        int order = strcmp(listing->names[i], listing->names[last]);
        last = (listing->is_oldest ? order > 0 : order < 0) ? i : last;
    }
    int order = strcmp(name, listing->names[last]);
    if (listing->is_oldest ? order < 0 : order > 0) {
        memcpy(listing->names[last], name, prefix + DAY_SIZE);
    }
}

static void day_before(uint32_t now_s, char *ret_day)
{
    put_day(ret_day, now_s > SPOOL_IDS_AGE_S ? (int64_t)now_s - SPOOL_IDS_AGE_S : 0);
}

static void read_files(struct spool_ids *ids, uint32_t now_s)
{
    struct listing listing = {.count = 0};
    char oldest[DAY_SIZE];
    day_before(now_s, oldest);
    int dir = ids->spool->places[SPOOL_JOURNAL];
    int result = disk_list(ids->spool->disk, dir, on_name, &listing);
    if (result != 0) {
        note_damage(ids, "", result, 0);
    }
    for (uint32_t i = 0; i < listing.count; i++) {
        if (strcmp(listing.names[i] + strlen(FILE_PREFIX), oldest) >= 0) {
            read_file(ids, listing.names[i], now_s);
        }
    }
}

/* The engine may have been started with a wrong clock: what is on the disk must be as young as it
 * says. */
static void remove_old(struct spool_ids *ids, uint32_t now_s)
{
    struct listing youngest = {.is_oldest = false};
    struct listing listing = {.is_oldest = true};
    char oldest[DAY_SIZE];
    day_before(now_s, oldest);
    int dir = ids->spool->places[SPOOL_JOURNAL];
    bool has_younger = false;
    (void)disk_list(ids->spool->disk, dir, on_name, &youngest);
    (void)disk_list(ids->spool->disk, dir, on_name, &listing);
    for (uint32_t i = 0; i < youngest.count; i++) {
        has_younger |= strcmp(youngest.names[i] + strlen(FILE_PREFIX), oldest) >= 0;
    }
    for (uint32_t i = 0; i < listing.count && has_younger; i++) {
        if (strcmp(listing.names[i] + strlen(FILE_PREFIX), oldest) < 0) {
            (void)disk_unlink(ids->spool->disk, dir, listing.names[i]);
        }
    }
}

void spool_ids_tidy(struct spool_ids *ids, struct wall_time now, uint32_t own_s)
{
    uint32_t now_s = wall_seconds(now);
    if (ids->own_s == UINT32_MAX) {
        ids->tidy_at_s = own_s + TIDY_S;
    }
    ids->own_s = own_s;
    if (own_s >= ids->tidy_at_s) {
        ids->tidy_at_s = own_s + TIDY_S;
        remove_old(ids, now_s < own_s ? now_s : own_s);
    }
}

struct spool_ids *spool_ids_create(struct spool *spool, uint64_t secret, struct wall_time now)
{
    struct spool_ids *ids = calloc(1, sizeof(*ids));
    if (ids == NULL) {
        return NULL;
    }
    ids->spool = spool;
    ids->secret = secret;
    ids->fd = -1;
    ids->own_s = UINT32_MAX;
    ids->lines = malloc(LINES_MIN);
    ids->lines_room = LINES_MIN;
    ids->is_memory_short = ids->lines == NULL || grow(ids, wall_seconds(now)) != 0;
    if (!ids->is_memory_short) {
        read_files(ids, wall_seconds(now));
    }
    if (ids->is_memory_short) {
        spool_ids_destroy(ids);
        return NULL;
    }
    return ids;
}

static void file_close(struct spool_ids *ids)
{
    if (ids->fd >= 0) {
        disk_close(ids->spool->disk, ids->fd);
        ids->fd = -1;
    }
}

void spool_ids_destroy(struct spool_ids *ids)
{
    if (ids != NULL) {
        file_close(ids);
        free(ids->lines);
        free(ids->slots);
        free(ids);
    }
}

uint32_t spool_ids_damages_count(const struct spool_ids *ids)
{
    return ids->damages_count;
}

const struct spool_ids_damage *spool_ids_damage(const struct spool_ids *ids, uint32_t index)
{
    ensure(index < ids->damages_count);
    return &ids->damages[index];
}

bool spool_ids_find(const struct spool_ids *ids, const char *id, struct wall_time now,
                    struct wall_time *ret_at)
{
    ensure(id[0] != '\0');
    const struct slot *slot = slot_of(ids, hash_of(ids, span_of_text(id)));
    if (slot->hash == 0 || is_old(ids, slot->at_s, wall_seconds(now))) {
        return false;
    }
    ret_at->ns = (int64_t)slot->at_s * NS_PER_S;
    return true;
}

/* The file itself is spoiled, whatever the disk says of others. */
static bool is_spoiled(int error)
{
    return error == -EIO || error == -ELOOP || error == -EISDIR || error == -EACCES ||
           error == -EPERM;
}

/* One that cannot be opened is put aside: no batch could leave before the day is over. */
static int file_open(struct spool_ids *ids, const char *name)
{
    int dir = ids->spool->places[SPOOL_JOURNAL];
    int fd = disk_open(ids->spool->disk, dir, name, DISK_READWRITE | DISK_CREATE);
    if (!is_spoiled(fd)) {
        return fd;
    }
    char aside[SPOOL_IDS_NAME_SIZE + sizeof(".bad")];
    (void)snprintf(aside, sizeof(aside), "%s.bad", name);
    odd(batch_ids_put_aside);
    int result = disk_rename(ids->spool->disk, dir, name, dir, aside);
    return result != 0 ? fd : disk_open(ids->spool->disk, dir, name, DISK_READWRITE | DISK_CREATE);
}

/* The file of this day. Lines that are not durable in the one before go into this one as well. */
static int file_of_day(struct spool_ids *ids, struct wall_time now)
{
    char day[DAY_SIZE];
    put_day(day, wall_seconds(now));
    if (ids->fd >= 0 && strcmp(day, ids->day) == 0) {
        return 0;
    }
    file_close(ids);
    char name[sizeof(FILE_PREFIX) + DAY_SIZE];
    (void)snprintf(name, sizeof(name), FILE_PREFIX "%s", day);
    int dir = ids->spool->places[SPOOL_JOURNAL];
    int fd = file_open(ids, name);
    if (fd < 0) {
        return fd;
    }
    struct disk_stat stat;
    int result = disk_stat_fd(ids->spool->disk, fd, &stat);
    result = result == 0 ? disk_sync(ids->spool->disk, dir) : result;
    if (result != 0) {
        disk_close(ids->spool->disk, fd);
        return result;
    }
    ids->fd = fd;
    ids->synced = stat.size;
    ids->is_cut = stat.size > 0;
    ids->written = 0;
    memcpy(ids->day, day, sizeof(day));
    return 0;
}

/* What comes in front of the lines. */
static size_t cut_size(const struct spool_ids *ids)
{
    return ids->is_cut ? sizeof(CUT_END "\n") - 1 : 0;
}

/* Into the page cache, where they outlive this process. */
static int lines_write(struct spool_ids *ids, struct wall_time now)
{
    int result = file_of_day(ids, now);
    if (result != 0) {
        return result;
    }
    struct disk *disk = ids->spool->disk;
    size_t size = ids->lines_size - ids->written;
    if (size == 0) {
        return 0;
    }
    size_t cut = cut_size(ids);
    int64_t done = 0;
    if (cut > 0 && ids->written == 0) {
        done = disk_write(disk, ids->fd, CUT_END "\n", cut, ids->synced);
    }
    if (done >= 0) {
        done = disk_write(disk, ids->fd, ids->lines + ids->written, size,
                          ids->synced + cut + ids->written);
    }
    if (done != (int64_t)size) {
        return done < 0 ? (int)done : -EIO;
    }
    ids->written = ids->lines_size;
    return 0;
}

static int lines_sync(struct spool_ids *ids, struct wall_time now)
{
    int result = ids->lines_size > 0 ? lines_write(ids, now) : 0;
    if (ids->lines_size == 0 || result != 0) {
        return result;
    }
    result = disk_datasync(ids->spool->disk, ids->fd);
    ids->written = 0;
    if (result == 0) {
        ids->synced += ids->lines_size + cut_size(ids);
        ids->is_cut = false;
        ids->lines_size = 0;
    }
    return result;
}

/* Room for one more line; without memory, by a sync. */
static int lines_room(struct spool_ids *ids, struct wall_time now)
{
    if (ids->lines_room - ids->lines_size >= LINE_MAX_SIZE) {
        return 0;
    }
    char *lines = realloc(ids->lines, 2 * ids->lines_room);
    if (lines == NULL) {
        return lines_sync(ids, now);
    }
    ids->lines = lines;
    ids->lines_room *= 2;
    return 0;
}

void spool_ids_add(struct spool_ids *ids, const char *id, struct wall_time now)
{
    uint32_t now_s = wall_seconds(now);
    uint64_t hash = hash_of(ids, span_of_text(id));
    struct slot *slot = slot_of(ids, hash);
    struct wall_time at = {.ns = (int64_t)now_s * NS_PER_S};
    if (!spool_ids_find(ids, id, now, &at)) {
        keep(ids, (struct slot){.hash = hash, .at_s = now_s}, now_s);
    } else if (!slot->is_read) {
        return;
    } else {
        slot->is_read = false; /* with its old time, once more */
    }
    if (lines_room(ids, now) != 0) {
        odd(batch_id_not_kept);
        return;
    }
    struct writer writer = writer_of(ids->lines + ids->lines_size, LINE_MAX_SIZE);
    writer_put_format(&writer, "%s %u", id, (unsigned)wall_seconds(at));
    put_sum(&writer, writer_span(&writer));
    writer_put_byte(&writer, '\n');
    ensure(!writer.is_full);
    ids->lines_size += writer_size(&writer);
    if (lines_write(ids, now) != 0) {
        odd(batch_id_waits);
    }
}

int spool_ids_sync(struct spool_ids *ids, struct wall_time now)
{
    int result = lines_sync(ids, now);
    if (result != 0) {
        odd(batch_id_waits);
    }
    return result;
}
