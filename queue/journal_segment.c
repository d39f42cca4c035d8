/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_priv.h"

/*
 * One segment is written, the next one is prepared behind it: blocks allocated and filled with
 * zeros (a sync then has no file size to change and no blocks to convert), its header written,
 * synced, then named, then the directory synced. Only then may a record go there. A file that a
 * checkpoint has made superfluous is used again instead of a new one: what it held is broken under
 * the new number's checksums.
 *
 *            spare_begin
 *     NONE ----------------> ALLOCATING -> FILLING -> HEADING -> SYNCING -> NAMING -> READY
 *      ^  \                                              ^                              |
 *      |   `------- a retired file is used again --------'                              |
 *      |                                                                                |
 *      +---- an op failed (tried again after a second; any state) ----------------------+
 *            segment_switch
 *
 * A crash leaves: "journal-spare", which the next preparation removes; or the named segment without
 * a record in it, which replay reads as empty.
 */
static const uint32_t SPARE_ALLOWED[JOURNAL_SPARES_COUNT] = {
    [JOURNAL_SPARE_NONE] = 1u << JOURNAL_SPARE_ALLOCATING | 1u << JOURNAL_SPARE_HEADING,
    [JOURNAL_SPARE_ALLOCATING] = 1u << JOURNAL_SPARE_FILLING | 1u << JOURNAL_SPARE_NONE,
    [JOURNAL_SPARE_FILLING] = 1u << JOURNAL_SPARE_HEADING | 1u << JOURNAL_SPARE_NONE,
    [JOURNAL_SPARE_HEADING] = 1u << JOURNAL_SPARE_SYNCING | 1u << JOURNAL_SPARE_NONE,
    [JOURNAL_SPARE_SYNCING] = 1u << JOURNAL_SPARE_NAMING | 1u << JOURNAL_SPARE_NONE,
    [JOURNAL_SPARE_NAMING] = 1u << JOURNAL_SPARE_READY | 1u << JOURNAL_SPARE_NONE,
    [JOURNAL_SPARE_READY] = 1u << JOURNAL_SPARE_NONE,
};

static const char SPARE_NAME[] = "journal-spare";

enum {
    ROOM_CELLS_MIN = 2 * JOURNAL_SECTOR_CELLS, /* less is not worth a group */
    RETRY_MS = 1000,
};

_Static_assert((int)ROOM_CELLS_MIN > (int)JOURNAL_ACCEPTED_CELLS_MAX,
               "an accept finds room in any group");
_Static_assert(JOURNAL_SEGMENT_SIZE_MIN / JOURNAL_CELL_SIZE >=
                   JOURNAL_SECTOR_CELLS + ROOM_CELLS_MIN,
               "a new segment has room for a group");

static void spare_enter(struct journal_segments *segments, enum journal_spare spare)
{
    ensure((SPARE_ALLOWED[segments->spare] >> spare & 1) != 0);
    segments->spare = spare;
}

static uint32_t spare_number(const struct journal_segments *segments)
{
    return segments->number + 1;
}

static void spare_close(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    if (segments->spare_fd >= 0) {
        disk_close(core->disk, segments->spare_fd);
        segments->spare_fd = -1;
    }
}

static void spare_failed(struct journal_core *core, int error)
{
    struct journal_segments *segments = &core->segments;
    spare_close(core);
    if (segments->spare != JOURNAL_SPARE_NONE) {
        spare_enter(segments, JOURNAL_SPARE_NONE);
    }
    segments->error = error;
    segments->retry_at = mono_add_ms(core->now, RETRY_MS);
}

/* A retired file may be written over only when it still is what its name says. */
static bool retired_is_good(struct journal_core *core, int fd, uint32_t number)
{
    struct journal_segments *segments = &core->segments;
    struct journal_header header;
    struct disk_stat stat;
    return disk_stat_fd(core->disk, fd, &stat) == 0 && stat.kind == DISK_KIND_FILE &&
           stat.size == segments->size &&
           disk_read(core->disk, fd, segments->block, JOURNAL_SECTOR_SIZE, 0) ==
               JOURNAL_SECTOR_SIZE &&
           journal_header_get(span_of(segments->block, JOURNAL_SECTOR_SIZE), &header) == 0 &&
           header.file == JOURNAL_FILE_SEGMENT && header.number == number;
}

/* As many are kept as will be needed until the next checkpoint: in the long run no segment is
 * filled with zeros and none is removed. */
bool journal_segment_retire(struct journal_core *core, uint32_t number)
{
    struct journal_segments *segments = &core->segments;
    ensure(number < segments->number);
    if (segments->retired_count == JOURNAL_RETIRED_MAX ||
        segments->retired_count >= journal_checkpoint_due(core)) {
        return false;
    }
    segments->retired[segments->retired_count++] = number;
    return true;
}

/* A retired file under the spare's name; false: there is none. */
static bool spare_reuse(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    while (segments->retired_count > 0) {
        uint32_t number = segments->retired[--segments->retired_count];
        char name[JOURNAL_NAME_SIZE];
        journal_name_put(name, JOURNAL_FILE_SEGMENT, number);
        int fd = disk_open(core->disk, core->dir, name, DISK_READWRITE);
        if (fd < 0) {
            continue;
        }
        if (retired_is_good(core, fd, number) &&
            disk_rename(core->disk, core->dir, name, core->dir, SPARE_NAME) == 0) {
            segments->spare_fd = fd;
            return true;
        }
        disk_close(core->disk, fd);
        (void)disk_unlink(core->disk, core->dir, name);
    }
    return false;
}

static void spare_begin(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    ensure(segments->spare == JOURNAL_SPARE_NONE);
    ensure(segments->spare_fd < 0);
    segments->error = 0;
    if (spare_reuse(core)) {
        spare_enter(segments, JOURNAL_SPARE_HEADING);
        return;
    }
    (void)disk_unlink(core->disk, core->dir, SPARE_NAME);
    segments->spare_fd =
        disk_open(core->disk, core->dir, SPARE_NAME, DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
    if (segments->spare_fd < 0) {
        spare_failed(core, segments->spare_fd);
        return;
    }
    segments->spare_filled = 0;
    segments->spare_synced = 0;
    spare_enter(segments, JOURNAL_SPARE_ALLOCATING);
}

static void op_header(struct journal_core *core, struct disk_op *op)
{
    struct journal_segments *segments = &core->segments;
    const struct journal_header header = {
        .file = JOURNAL_FILE_SEGMENT,
        .number = spare_number(segments),
        .run = segments->run,
        .before_run = segments->before_run,
        .before_group = segments->before_group,
        .created_at = clock_wall(core->clock),
        .size = segments->size,
    };
    journal_header_put(segments->block, &header);
    op->verb = DISK_WRITE;
    op->at = segments->block;
    op->size = JOURNAL_SECTOR_SIZE;
}

static void op_fill(struct journal_core *core, struct disk_op *op)
{
    struct journal_segments *segments = &core->segments;
    ensure(segments->spare_filled < segments->size);
    uint64_t left = segments->size - segments->spare_filled;
    if (segments->spare_filled - segments->spare_synced >= JOURNAL_SYNC_SIZE) {
        op->verb = DISK_DATASYNC;
        return;
    }
    memset(segments->block, 0, JOURNAL_SECTOR_SIZE);
    op->verb = DISK_WRITE;
    op->at = segments->block;
    op->size = left < JOURNAL_CHUNK_SIZE ? (size_t)left : JOURNAL_CHUNK_SIZE;
    op->offset = segments->spare_filled;
}

/* The op that this state waits for; false: none. */
static bool spare_op(struct journal_core *core, struct disk_op *op)
{
    struct journal_segments *segments = &core->segments;
    *op = (struct disk_op){.fd = segments->spare_fd};
    switch (segments->spare) {
    case JOURNAL_SPARE_ALLOCATING:
        op->verb = DISK_ALLOCATE;
        op->size = (size_t)segments->size;
        return true;
    case JOURNAL_SPARE_FILLING:
        op_fill(core, op);
        return true;
    case JOURNAL_SPARE_HEADING:
        op_header(core, op);
        return true;
    case JOURNAL_SPARE_SYNCING:
        op->verb = DISK_SYNC;
        return true;
    case JOURNAL_SPARE_NAMING:
        op->verb = DISK_SYNC;
        op->fd = core->dir;
        return true;
    case JOURNAL_SPARE_NONE:
    case JOURNAL_SPARE_READY:
        return false;
    }
    ensure(false);
    return false;
}

static void spare_name(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    ensure(segments->spare_fd >= 0);
    char name[JOURNAL_NAME_SIZE];
    journal_name_put(name, JOURNAL_FILE_SEGMENT, spare_number(segments));
    int error = disk_rename(core->disk, core->dir, SPARE_NAME, core->dir, name);
    if (error != 0) {
        spare_failed(core, error);
    } else {
        spare_enter(segments, JOURNAL_SPARE_NAMING);
    }
}

/* After NAMING failed the file keeps its name: the next attempt makes another one and renames it
 * over the first. */
static void spare_on_result(struct journal_core *core, const struct disk_op *op)
{
    struct journal_segments *segments = &core->segments;
    if (op->result < 0) {
        spare_failed(core, (int)op->result);
        return;
    }
    switch (segments->spare) {
    case JOURNAL_SPARE_ALLOCATING:
        spare_enter(segments, JOURNAL_SPARE_FILLING);
        return;
    case JOURNAL_SPARE_FILLING:
        if (op->verb == DISK_DATASYNC) {
            segments->spare_synced = segments->spare_filled;
            return;
        }
        segments->spare_filled += op->size;
        if (segments->spare_filled == segments->size) {
            spare_enter(segments, JOURNAL_SPARE_HEADING);
        }
        return;
    case JOURNAL_SPARE_HEADING:
        spare_enter(segments, JOURNAL_SPARE_SYNCING);
        return;
    case JOURNAL_SPARE_SYNCING:
        spare_name(core);
        return;
    case JOURNAL_SPARE_NAMING:
        spare_enter(segments, JOURNAL_SPARE_READY);
        return;
    case JOURNAL_SPARE_NONE:
    case JOURNAL_SPARE_READY:
        break;
    }
    ensure(false); /* nothing was in flight */
}

void journal_segment_on_io(struct journal_core *core, const struct journal_io *io)
{
    if (core->pipe != JOURNAL_PIPE_FAILED) {
        spare_on_result(core, &io->op);
    }
}

void journal_segments_step(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    if (segments->io.is_busy) {
        return;
    }
    if (segments->spare == JOURNAL_SPARE_NONE &&
        (segments->error == 0 || !mono_before(core->now, segments->retry_at))) {
        spare_begin(core);
    }
    if (spare_op(core, &segments->io.op)) {
        journal_submit(core, &segments->io, JOURNAL_IO_SEGMENT);
    }
}

static void segment_switch(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    ensure(core->flying == NULL);
    ensure(segments->spare == JOURNAL_SPARE_READY);
    ensure(core->gathering->cells_count == 0);
    if (segments->fd >= 0) {
        disk_close(core->disk, segments->fd);
    }
    segments->number = spare_number(segments);
    segments->fd = segments->spare_fd;
    segments->spare_fd = -1;
    segments->next_cell = JOURNAL_SECTOR_CELLS;
    segments->live_count++;
    stat_set(&core->journal->stats.segments, segments->live_count);
    spare_enter(segments, JOURNAL_SPARE_NONE);
}

uint32_t journal_checkpoint_due(const struct journal_core *core)
{
    uint64_t as_long = core->checkpoint.last_size / core->segments.size;
    return as_long > core->segments_max ? (uint32_t)as_long : core->segments_max;
}

bool journal_segment_has_room(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    if (segments->cells_max - segments->next_cell >= ROOM_CELLS_MIN) {
        return true;
    }
    if (core->pipe != JOURNAL_PIPE_IDLE) {
        return false;
    }
    if (segments->spare != JOURNAL_SPARE_READY) {
        if (segments->spare == JOURNAL_SPARE_NONE && segments->error != 0) {
            journal_fail(core, JOURNAL_FAILURE_SEGMENT, segments->error, spare_number(segments));
        }
        return false;
    }
    if (segments->live_count >= (uint64_t)JOURNAL_HOLD_FACTOR * journal_checkpoint_due(core)) {
        /* Between two checkpoints the next one begins in this step. Behind one that failed none
         * does, and replay would grow without bound. */
        if (core->checkpoint.state == JOURNAL_CHECK_NONE && !core->checkpoint.is_memory_short &&
            core->checkpoint.failed_at_count == segments->live_count) {
            journal_fail(core, JOURNAL_FAILURE_CHECKPOINT, 0, segments->number);
        }
        return false;
    }
    segment_switch(core);
    return true;
}

/* Numbers go on behind everything that was ever here; what a checkpoint stands for is not live. */
static int numbers_find(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    struct journal_listing listing;
    int error = journal_listing_read(&listing, core->disk, core->dir);
    if (error != 0) {
        return error;
    }
    uint32_t covered = 0;
    for (uint32_t i = 0; i < listing.count; i++) {
        const struct journal_walk_file *file = &listing.files[i];
        if (file->number > segments->number) {
            segments->number = file->number;
        }
        if (file->file == JOURNAL_FILE_CHECKPOINT) {
            covered = file->number;
        } else {
            segments->live_count += file->number > covered;
        }
    }
    journal_listing_free(&listing);
    /* Eight digits last for 380 years of one segment every two minutes. */
    return segments->number > JOURNAL_NUMBER_MAX - 1000 ? -EOVERFLOW : 0;
}

int journal_segments_init(struct journal_core *core, const struct journal_config *config)
{
    struct journal_segments *segments = &core->segments;
    segments->size = config->segment_size / JOURNAL_SECTOR_SIZE * JOURNAL_SECTOR_SIZE;
    segments->cells_max = (uint32_t)(segments->size / JOURNAL_CELL_SIZE);
    segments->next_cell = segments->cells_max;
    segments->block = calloc(1, JOURNAL_CHUNK_SIZE);
    if (segments->block == NULL) {
        return -ENOMEM;
    }
    int error = numbers_find(core);
    if (error != 0) {
        return error;
    }
    segments->run = spare_number(segments);
    if (config->known != NULL) {
        segments->ended = config->known->ended;
        segments->before_run = config->known->last_run;
        segments->before_group = config->known->last_group;
    }
    spare_begin(core);
    while (segments->error == 0 && segments->spare != JOURNAL_SPARE_READY) {
        struct disk_op op;
        ensure(spare_op(core, &op));
        (void)disk_run(core->disk, &op);
        spare_on_result(core, &op);
    }
    if (segments->error == 0) {
        segment_switch(core);
    }
    return segments->error;
}

void journal_segments_deinit(struct journal_core *core)
{
    struct journal_segments *segments = &core->segments;
    spare_close(core);
    if (segments->fd >= 0) {
        disk_close(core->disk, segments->fd);
    }
    free(segments->block);
}
