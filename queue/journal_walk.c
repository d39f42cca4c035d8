/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_walk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/ensure.h"

/*
 * Which files: the newest checkpoint that proves whole and the segments with higher numbers. A
 * checkpoint that does not prove whole is passed over when an older one is there (its segments then
 * are, too: they are removed only after the newer one was synced); the only one is believed as far
 * as it goes, and what it lost is counted.
 */
static int file_compare(const void *a, const void *b)
{
    const struct journal_walk_file *one = a, *other = b;
    if (one->file != other->file) {
        return one->file == JOURNAL_FILE_CHECKPOINT ? -1 : 1;
    }
    return one->number < other->number ? -1 : one->number > other->number;
}

static void listing_on_name(void *context, const char *name, enum disk_kind kind)
{
    struct journal_listing *listing = context;
    struct journal_walk_file file = {0};
    if (kind != DISK_KIND_FILE || !journal_name_get(name, &file.file, &file.number)) {
        return;
    }
    if (listing->count == listing->room) {
        uint32_t room = listing->room == 0 ? 32 : listing->room * 2;
        struct journal_walk_file *files = realloc(listing->files, room * sizeof(*files));
        if (files == NULL) {
            listing->error = -ENOMEM;
            return;
        }
        listing->files = files;
        listing->room = room;
    }
    listing->files[listing->count++] = file;
}

/* Checkpoints first, then segments, each kind from old to new. */
int journal_listing_read(struct journal_listing *listing, struct disk *disk, int dir)
{
    *listing = (struct journal_listing){0};
    int error = disk_list(disk, dir, listing_on_name, listing);
    if (error == 0) {
        error = listing->error;
    }
    if (error != 0) {
        journal_listing_free(listing);
        return error;
    }
    if (listing->count > 0) {
        qsort(listing->files, listing->count, sizeof(*listing->files), file_compare);
    }
    return 0;
}

void journal_listing_free(struct journal_listing *listing)
{
    free(listing->files);
    *listing = (struct journal_listing){0};
}

/* The newest checkpoint in front of `below` that may be used; listing.count when there is none. */
static uint32_t checkpoint_below(const struct journal_walk *walk, uint32_t below)
{
    for (uint32_t i = below; i-- > 0;) {
        const struct journal_walk_file *file = &walk->listing.files[i];
        if (file->file == JOURNAL_FILE_CHECKPOINT && file->number <= walk->cut) {
            return i;
        }
    }
    return walk->listing.count;
}

static bool file_is_wanted(const struct journal_walk *walk, uint32_t at)
{
    const struct journal_walk_file *file = &walk->listing.files[at];
    if (file->file == JOURNAL_FILE_CHECKPOINT) {
        return at == walk->checkpoint;
    }
    bool is_covered = walk->checkpoint < walk->listing.count &&
                      file->number <= walk->listing.files[walk->checkpoint].number;
    return !is_covered && file->number <= walk->cut;
}

/* From the first file that is wanted, with an empty tally. */
static void walk_restart(struct journal_walk *walk)
{
    journal_tally_deinit(&walk->tally);
    journal_tally_init(&walk->tally);
    memset(&walk->reader, 0, sizeof(walk->reader));
    walk->reader.tally = &walk->tally;
    walk->reader.ended = walk->ended;
    walk->at = 0;
    walk->corrupt_before = 0;
    walk->next_segment = 1;
    walk->header = (struct journal_header){0};
}

int journal_walk_init(struct journal_walk *walk, struct disk *disk, int dir, uint32_t cut)
{
    *walk = (struct journal_walk){.disk = disk, .dir = dir, .cut = cut, .fd = -1};
    int error = journal_listing_read(&walk->listing, disk, dir);
    if (error != 0) {
        return error;
    }
    walk->chunk = malloc(JOURNAL_CHUNK_SIZE);
    if (walk->chunk == NULL) {
        journal_listing_free(&walk->listing);
        return -ENOMEM;
    }
    walk->checkpoint = checkpoint_below(walk, walk->listing.count);
    walk_restart(walk);
    return 0;
}

void journal_walk_ended(struct journal_walk *walk, const struct journal_place *ended)
{
    walk->ended = ended->run == 0 ? NULL : ended;
    walk->reader.ended = walk->ended;
}

static void file_close(struct journal_walk *walk)
{
    if (walk->fd >= 0) {
        disk_close(walk->disk, walk->fd);
        walk->fd = -1;
    }
}

void journal_walk_deinit(struct journal_walk *walk)
{
    if (walk->chunk == NULL) {
        return;
    }
    file_close(walk);
    journal_tally_deinit(&walk->tally);
    journal_listing_free(&walk->listing);
    free(walk->chunk);
    *walk = (struct journal_walk){.fd = -1};
}

/* In the file that is being read, at no place in particular. */
static struct journal_damage damage_of(const struct journal_walk *walk,
                                       enum journal_damage_kind kind)
{
    const struct journal_walk_file *file = &walk->listing.files[walk->at];
    return (struct journal_damage){.kind = kind,
                                   .file = (uint8_t)file->file,
                                   .number = file->number,
                                   .count = 1,
                                   .ordinal_first = 1};
}

/* Another checkpoint is tried when this one, just read or found unreadable, is not whole. True: the
 * walk has begun anew. */
static bool checkpoint_refused(struct journal_walk *walk)
{
    struct journal_reader *reader = &walk->reader;
    if (walk->tally.error != 0) {
        return false; /* what was not added for want of memory says nothing about the file */
    }
    bool is_whole = reader->is_whole && reader->suspects == 0 && reader->group_left == 0 &&
                    walk->tally.corrupt_records == walk->corrupt_before;
    if (is_whole) {
        return false;
    }
    struct journal_damage damage = damage_of(walk, JOURNAL_DAMAGE_PASSED);
    uint32_t older = checkpoint_below(walk, walk->checkpoint);
    if (older < walk->listing.count) {
        journal_damages_put(&walk->passed, &damage);
        walk->checkpoint = older;
        walk_restart(walk);
        return true;
    }
    /* The only one: its own end vouches for nothing, so what is suspect in it counts as lost. */
    journal_reader_convict(reader);
    damage.kind = JOURNAL_DAMAGE_CHECKPOINT;
    journal_tally_damage(&walk->tally, &damage);
    return false;
}

static void file_end(struct journal_walk *walk)
{
    ensure(walk->at < walk->listing.count);
    struct journal_walk_file *file = &walk->listing.files[walk->at];
    file_close(walk);
    if (!walk->is_back) {
        /* A file has its size before it has its name: it can only have been cut since. */
        if (walk->has_header && (uint64_t)walk->index * JOURNAL_CELL_SIZE < walk->header.size) {
            struct journal_damage damage = damage_of(walk, JOURNAL_DAMAGE_SIZE);
            damage.offset = (uint64_t)walk->index * JOURNAL_CELL_SIZE;
            damage.size = walk->header.size - damage.offset;
            journal_tally_damage(&walk->tally, &damage);
        }
        file->end = walk->has_header ? walk->reader.end : 0;
        file->group_at = walk->has_header ? walk->reader.group_at : 0;
        file->deferred_count = walk->has_header ? walk->reader.deferred_count : 0;
        if (file->file == JOURNAL_FILE_CHECKPOINT) {
            if (checkpoint_refused(walk)) {
                return;
            }
            journal_reader_end_checkpoint(&walk->reader, &walk->header);
            walk->next_segment = file->number + 1;
        }
        walk->at++;
    } else if (walk->at == 0) {
        walk->is_done = true;
    } else {
        walk->at--;
    }
}

static void file_open(struct journal_walk *walk)
{
    ensure(walk->fd < 0);
    const struct journal_walk_file *file = &walk->listing.files[walk->at];
    char name[JOURNAL_NAME_SIZE];
    journal_name_put(name, file->file, file->number);
    walk->fd = disk_open(walk->disk, walk->dir, name, DISK_READONLY);
    if (walk->fd < 0) {
        walk->error = walk->fd;
        return;
    }
    walk->has_header = walk->is_back;
    walk->index = walk->is_back ? file->end : 0;
    if (!walk->is_back && file->file == JOURNAL_FILE_SEGMENT) {
        if (file->number > walk->next_segment) {
            struct journal_damage damage = damage_of(walk, JOURNAL_DAMAGE_FILES);
            damage.number = walk->next_segment;
            damage.count = file->number - walk->next_segment;
            journal_tally_damage(&walk->tally, &damage);
        }
        walk->next_segment = file->number + 1;
    }
    walk->reader.is_whole = false;
}

/* Goes to the next file that is wanted in this direction; false: there is none. */
static bool file_seek(struct journal_walk *walk)
{
    if (!walk->is_back) {
        while (walk->at < walk->listing.count && !file_is_wanted(walk, walk->at)) {
            walk->at++;
        }
        walk->is_done = walk->at == walk->listing.count;
    } else {
        while (!walk->is_done && (!file_is_wanted(walk, walk->at) ||
                                  walk->listing.files[walk->at].deferred_count == 0)) {
            walk->is_done = walk->at == 0;
            walk->at -= walk->is_done ? 0 : 1;
        }
    }
    return !walk->is_done;
}

/* The cells of one read: forward up to a chunk, backward down to the header's sector. */
static void op_fill(struct journal_walk *walk, struct disk_op *op)
{
    ensure(walk->fd >= 0);
    uint32_t first = walk->index, count = JOURNAL_CHUNK_CELLS;
    if (walk->is_back) {
        count = walk->index - JOURNAL_SECTOR_CELLS;
        count = count < JOURNAL_CHUNK_CELLS ? count : JOURNAL_CHUNK_CELLS;
        first = walk->index - count;
    }
    *op = (struct disk_op){.verb = DISK_READ,
                           .fd = walk->fd,
                           .at = walk->chunk,
                           .size = (size_t)count * JOURNAL_CELL_SIZE,
                           .offset = (uint64_t)first * JOURNAL_CELL_SIZE};
}

bool journal_walk_next(struct journal_walk *walk, struct disk_op *op)
{
    while (walk->error == 0 && walk->tally.error == 0 && !walk->is_done) {
        if (walk->fd < 0) {
            if (file_seek(walk)) {
                file_open(walk);
            }
            continue;
        }
        if (walk->is_back && walk->index <= JOURNAL_SECTOR_CELLS) {
            file_end(walk);
            continue;
        }
        op_fill(walk, op);
        return true;
    }
    walk->error = walk->error != 0 ? walk->error : walk->tally.error;
    file_close(walk);
    return false;
}

/* False: the file says nothing (it is counted), or the walk has failed. */
static bool feed_header(struct journal_walk *walk, size_t size)
{
    const struct journal_walk_file *file = &walk->listing.files[walk->at];
    struct journal_header header;
    int error = -EBADMSG;
    if (size >= JOURNAL_SECTOR_SIZE) {
        error = journal_header_get(span_of(walk->chunk, JOURNAL_SECTOR_SIZE), &header);
    }
    if (error == -EPROTONOSUPPORT) {
        walk->error = error;
        return false;
    }
    bool is_broken = error != 0 || header.file != file->file || header.number != file->number;
    if (is_broken) {
        header = (struct journal_header){
            .file = file->file, .number = file->number, .run = walk->reader.run};
    }
    walk->tally.corrupt_records += header.corrupt_records;
    walk->corrupt_before = walk->tally.corrupt_records;
    if (header.next_number > walk->tally.next_number) {
        walk->tally.next_number = header.next_number;
    }
    if (is_broken) {
        struct journal_damage damage = damage_of(walk, JOURNAL_DAMAGE_HEADER);
        damage.size = JOURNAL_SECTOR_SIZE;
        journal_tally_damage(&walk->tally, &damage);
    }
    if (size < JOURNAL_SECTOR_SIZE) {
        return false;
    }
    journal_reader_begin_file(&walk->reader, &header, is_broken);
    walk->header = header;
    walk->has_header = true;
    return true;
}

static void feed_forward(struct journal_walk *walk, size_t size)
{
    const struct journal_cell *cells = walk->chunk;
    size_t count = size / JOURNAL_CELL_SIZE;
    if (!walk->has_header) {
        if (!feed_header(walk, size)) {
            file_end(walk);
            return;
        }
        cells += JOURNAL_SECTOR_CELLS;
        count -= JOURNAL_SECTOR_CELLS;
    }
    journal_reader_feed(&walk->reader, cells, count);
    walk->index += (uint32_t)(size / JOURNAL_CELL_SIZE);
    if (size < JOURNAL_CHUNK_SIZE) {
        file_end(walk);
    }
}

static void feed_back(struct journal_walk *walk, uint32_t first, size_t size)
{
    ensure(first >= JOURNAL_SECTOR_CELLS);
    const struct journal_walk_file *file = &walk->listing.files[walk->at];
    uint64_t seed = journal_seed(file->file, file->number);
    for (size_t i = size / JOURNAL_CELL_SIZE; i-- > 0;) {
        struct journal_record record;
        if (!journal_record_get(&walk->chunk[i], seed + first + i, &record) ||
            record.kind != JOURNAL_KIND_DEFERRED) {
            continue;
        }
        struct journal_tally_batch *batch = journal_tally_defer(&walk->tally, &record);
        if (batch != NULL) {
            walk->on_deferral(walk->context, batch, &record);
        }
    }
    walk->index = first;
}

void journal_walk_feed(struct journal_walk *walk, const struct disk_op *op)
{
    ensure(walk->fd >= 0);
    if (op->result < 0) {
        walk->error = (int)op->result;
        return;
    }
    size_t size = (size_t)op->result;
    ensure(size <= op->size);
    if (walk->is_back) {
        feed_back(walk, (uint32_t)(op->offset / JOURNAL_CELL_SIZE), size);
    } else {
        feed_forward(walk, size);
    }
}

void journal_walk_turn(struct journal_walk *walk)
{
    ensure(walk->is_done && !walk->is_back && walk->fd < 0);
    walk->is_back = true;
    walk->is_done = walk->listing.count == 0;
    walk->at = walk->listing.count - (walk->is_done ? 0 : 1);
}
