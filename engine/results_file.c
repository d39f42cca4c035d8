/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/results_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/bitmap.h"
#include "engine/base/ensure.h"
#include "engine/base/text.h"
#include "engine/results_file_trust.h"
#include "queue/journal.h"

static const char RESULTS_NAME[] = JOURNAL_RESULTS_NAME;
static const char DOUBTED_NAME[] = JOURNAL_RESULTS_DOUBTED_NAME;
static const char MENDED_NAME[] = ".results.tmp";
static const char ASIDE_NAME[] = "results.ndjson.unread";

enum { CHUNK_SIZE = 256 * 1024 };

/* The ordinal of whom the line speaks: "id":"<batch number>-<ordinal>" in front of all that people
 * have written. */
static bool line_ordinal(struct span line, uint32_t number, uint64_t records_count,
                         uint32_t *ret_ordinal)
{
    struct cursor cursor = cursor_of(line);
    uint64_t value;
    if (!cursor_take_text(&cursor, SPAN("{\"type\":\""))) {
        return false;
    }
    (void)cursor_take_until(&cursor, '"');
    if (!cursor_take_text(&cursor, SPAN("\",\"id\":\"")) ||
        !cursor_take_uint(&cursor, UINT32_MAX, &value) || value != number ||
        !cursor_take_byte(&cursor, '-') || !cursor_take_uint(&cursor, UINT32_MAX, &value) ||
        value >= records_count) {
        return false;
    }
    *ret_ordinal = (uint32_t)value;
    return true;
}

/* What stands between a good beginning and a good end was perhaps written over. */
static bool is_text(struct span line)
{
    bool has_control = false;
    unsigned char high = 0;
    for (size_t i = 0; i < line.size; i++) {
        unsigned char byte = (unsigned char)line.at[i];
        has_control |= byte < ' ';
        high |= byte;
    }
    return !has_control && (high < 0x80 || text_is_utf8(line));
}

/* One reading of results.ndjson. */
struct reading {
    const struct journal_known_batch *known;
    uint64_t *missing; /* bits of those who have a line are cleared */
    /* Lines that nobody can read, of a file whose pages were written in part; lines of outcomes
     * whose record was lost: these recipients will get another. */
    bool is_broken;
    uint64_t broken_at;   /* the first of them */
    bool is_good_behind;  /* not all that is behind it is broken, too */
    uint64_t chunk_begin; /* where the bytes being looked at stand */
    const struct results_trust *trust;
};

static void broken_at(struct reading *reading, uint64_t offset)
{
    if (!reading->is_broken) {
        reading->is_broken = true;
        reading->broken_at = offset;
    }
}

/* Takes the whole lines out of `bytes`, and moves those that are good to its front; returns how
 * many bytes all of them are. */
static size_t lines_take(struct reading *reading, char *bytes, size_t size, size_t *ret_kept)
{
    struct cursor cursor = cursor_of(span_of(bytes, size));
    size_t kept = 0;
    struct span line;
    const char *start = bytes;
    while (cursor_take_line(&cursor, &line)) {
        uint32_t ordinal;
        size_t whole = (size_t)(cursor.at - start);
        if (line.size > 0 && line.at[line.size - 1] == '}' && is_text(line) &&
            line_ordinal(line, reading->known->number, reading->known->records_count, &ordinal) &&
            bitmap_has(reading->known->settled, ordinal)) {
            reading->missing[ordinal / 64] &= ~(UINT64_C(1) << (ordinal % 64));
            reading->is_good_behind |= reading->is_broken;
            memmove(bytes + kept, start, whole);
            kept += whole;
        } else {
            broken_at(reading, reading->chunk_begin + (uint64_t)(start - bytes));
        }
        start = cursor.at;
    }
    *ret_kept = kept;
    return size - cursor_left(&cursor);
}

/* From one end to the other, but for what can be trusted; `out` >= 0: good lines are written there.
 * What is behind the last whole line was torn. 0 or -errno. */
static int results_pass(struct disk *disk, int fd, int out, struct reading *reading)
{
    char *chunk = malloc(CHUNK_SIZE);
    uint64_t offset = 0;
    uint64_t written = 0;
    int64_t got = chunk == NULL ? -ENOMEM : 1;
    while (got > 0) {
        uint64_t before = offset;
        size_t room = results_trust_next(reading->trust, &offset, CHUNK_SIZE);
        reading->is_good_behind |= reading->is_broken && offset != before;
        reading->chunk_begin = offset;
        got = disk_read(disk, fd, chunk, room, offset);
        size_t kept = 0;
        size_t taken = got > 0 ? lines_take(reading, chunk, (size_t)got, &kept) : 0;
        if (got > 0 && taken == 0) {
            broken_at(reading, offset); /* no line of ours is so long */
            taken = (size_t)got;
        }
        int64_t result = kept > 0 && out >= 0 ? disk_write(disk, out, chunk, kept, written) : 0;
        got = result < 0 ? result : got;
        offset += taken;
        written += kept;
    }
    free(chunk);
    return (int)got;
}

/* The good lines only, under the same name. */
static int results_copy(struct disk *disk, int dir, int fd, struct reading *reading)
{
    int out = disk_open(disk, dir, MENDED_NAME, DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    if (out < 0) {
        return out;
    }
    reading->trust = NULL;
    int result = results_pass(disk, fd, out, reading);
    result = result == 0 ? disk_datasync(disk, out) : result;
    disk_close(disk, out);
    if (result == 0) {
        result = disk_rename(disk, dir, MENDED_NAME, dir, RESULTS_NAME);
    }
    return result == 0 ? disk_sync(disk, dir) : result;
}

void results_file_doubt(struct disk *disk, int dir)
{
    odd(results_in_doubt);
    (void)disk_rename(disk, dir, RESULTS_NAME, dir, DOUBTED_NAME);
}

int results_file_set_aside(struct disk *disk, int dir)
{
    int result = disk_rename(disk, dir, RESULTS_NAME, dir, ASIDE_NAME);
    return result == -ENOENT ? disk_rename(disk, dir, DOUBTED_NAME, dir, ASIDE_NAME) : result;
}

/* The engine that wrote the lines may have died before they were synced; or its sync has failed,
 * after which the kernel calls the pages clean: they would pass a sync now and still be lost. So
 * they are written again as they were read (as the journal's last group is: journal_replay.c). */
static int results_make_durable(struct disk *disk, int fd, const struct results_trust *trust)
{
    char *chunk = malloc(CHUNK_SIZE);
    uint64_t offset = 0;
    int64_t got = chunk == NULL ? -ENOMEM : 1;
    while (got > 0) {
        size_t room = results_trust_next(trust, &offset, CHUNK_SIZE);
        got = disk_read(disk, fd, chunk, room, offset);
        if (got > 0) {
            int64_t result = disk_write(disk, fd, chunk, (size_t)got, offset);
            offset += (uint64_t)got;
            got = result < 0 ? result : got;
        }
    }
    free(chunk);
    return got < 0 ? (int)got : disk_datasync(disk, fd);
}

/* What is left of it is made durable. */
static int results_finish(struct disk *disk, int dir, int fd, const struct results_trust *trust)
{
    int result = results_make_durable(disk, fd, trust);
    if (result != 0) {
        results_file_doubt(disk, dir);
        return result;
    }
    return disk_sync(disk, dir);
}

/* Of what a crash has torn only the end is broken, as a rule, and is cut off. */
static int results_mend(struct disk *disk, int dir, int fd, bool is_doubted,
                        struct reading *reading)
{
    bool is_cut = !is_doubted && !reading->is_good_behind;
    int result = 0;
    if (!is_cut || results_trust_end(reading->trust) > reading->broken_at) {
        result = results_trust_drop(disk, dir);
    }
    if (result != 0 || !is_cut) {
        return result != 0 ? result : results_copy(disk, dir, fd, reading);
    }
    struct disk_op op = {.verb = DISK_TRUNCATE, .fd = fd, .size = (size_t)reading->broken_at};
    result = (int)disk_run(disk, &op);
    return result != 0 ? result : results_finish(disk, dir, fd, reading->trust);
}

/* The file in doubt is read when it has not been copied to its end. */
static int results_open(struct disk *disk, int dir, bool *ret_is_doubted)
{
    int fd = disk_open(disk, dir, RESULTS_NAME, DISK_READWRITE);
    *ret_is_doubted = fd == -ENOENT;
    return fd == -ENOENT ? disk_open(disk, dir, DOUBTED_NAME, DISK_READONLY) : fd;
}

int results_file_read(struct disk *disk, int dir, const struct journal_known_batch *known,
                      uint64_t *missing)
{
    struct results_trust trust = {.count = 0};
    struct reading reading = {.known = known, .missing = missing, .trust = &trust};
    bool is_doubted;
    int fd = results_open(disk, dir, &is_doubted);
    if (fd < 0) { /* a new file may have the number of the one that the index speaks of */
        return fd == -ENOENT ? results_trust_drop(disk, dir) : fd;
    }
    int result = is_doubted ? 0 : results_trust_read(&trust, disk, dir, fd, known, missing);
    result = result == 0 ? results_pass(disk, fd, -1, &reading) : result;
    if (result == 0 && (reading.is_broken || is_doubted)) {
        result = results_mend(disk, dir, fd, is_doubted, &reading);
    } else if (result == 0) {
        result = results_finish(disk, dir, fd, &trust);
    }
    disk_close(disk, fd);
    results_trust_free(&trust);
    if (result == 0) {
        (void)disk_unlink(disk, dir, DOUBTED_NAME);
    }
    return result;
}
