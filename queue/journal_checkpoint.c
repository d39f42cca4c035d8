/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "engine/base/planted.h"
#include "queue/journal_priv.h"

/*
 * A checkpoint says in one file what an older checkpoint and the closed segments behind it say
 * together. It is made from the files, not from the journal's memory: so it is right for batches
 * that intake has not accepted again yet, it needs no copy of a moving state, and every record is
 * proved once more before its segment is removed. Read newest to oldest in the second pass, a
 * deferral is the latest of its ordinal when no bit says otherwise, so the memory needed is two
 * bits a recipient.
 *
 *     checkpoint_begin                         tally made            all batches written
 *   NONE -------------> FORWARD (reads) ------------> BATCHES (writes) ------------> BACK (reads,
 *     ^                    |                                                          writes)
 *     |                    | any failure: the file is dropped, tried again when one      |
 *     +<-------------------+ more segment is full; for want of memory, a second later   v
 *     |                                                                               TAIL
 *     +--- REMOVING <--- NAMING (directory synced) <--- WAITING <--- SYNCING <--- HEADING
 *
 * WAITING: with its name it takes the place of the records that name each outcome; lines of results
 * that are not on stable storage by then could not be made again from it.
 *
 * A crash leaves: "checkpoint-spare", which the next one removes; or the named checkpoint beside
 * the files that it stands for, which replay passes over and the next checkpoint removes.
 */
static const uint32_t CHECK_ALLOWED[JOURNAL_CHECKS_COUNT] = {
    [JOURNAL_CHECK_NONE] = 1u << JOURNAL_CHECK_FORWARD,
    [JOURNAL_CHECK_FORWARD] = 1u << JOURNAL_CHECK_BATCHES | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_BATCHES] = 1u << JOURNAL_CHECK_BACK | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_BACK] = 1u << JOURNAL_CHECK_TAIL | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_TAIL] = 1u << JOURNAL_CHECK_HEADING | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_HEADING] = 1u << JOURNAL_CHECK_SYNCING | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_SYNCING] = 1u << JOURNAL_CHECK_WAITING | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_WAITING] = 1u << JOURNAL_CHECK_NAMING | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_NAMING] = 1u << JOURNAL_CHECK_REMOVING | 1u << JOURNAL_CHECK_NONE,
    [JOURNAL_CHECK_REMOVING] = 1u << JOURNAL_CHECK_NONE,
};

static const char SPARE_NAME[] = "checkpoint-spare";

enum {
    SETTLED_PAYLOAD_SIZE = JOURNAL_MORE_CELLS_MAX * JOURNAL_MORE_SIZE,
    SETTLED_WORDS = SETTLED_PAYLOAD_SIZE / 8,
    SETTLED_CELLS = 1 + JOURNAL_MORE_CELLS_MAX,
    MEMORY_RETRY_MS = 1000,
    HEAD_CELLS = JOURNAL_ACCEPTED_CELLS_MAX + 1 + BATCH_COUNTS_COUNT * 8 / JOURNAL_MORE_SIZE,
    /* What a chunk that is read may make to be written, beside as much that waits. */
    OUT_CELLS = 2 * JOURNAL_CHUNK_CELLS,
};

_Static_assert(OUT_CELLS - 1 <= (int)JOURNAL_GROUP_BEHIND_MAX, "replay believes its groups");
_Static_assert(SETTLED_PAYLOAD_SIZE % 8 == 0, "a record carries whole words");

static void check_enter(struct journal_checkpoint *check, enum journal_check state)
{
    ensure((CHECK_ALLOWED[check->state] >> state & 1) != 0);
    check->state = state;
}

int journal_checkpoint_init(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    check->out = aligned_alloc(JOURNAL_SECTOR_SIZE, (size_t)OUT_CELLS * JOURNAL_CELL_SIZE);
    return check->out == NULL ? -ENOMEM : 0;
}

static void remove_end(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (check->remove_fd >= 0) {
        disk_close(core->disk, check->remove_fd);
        check->remove_fd = -1;
    }
}

static void check_drop(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    remove_end(core);
    journal_walk_deinit(&check->walk);
    if (check->fd >= 0) {
        disk_close(core->disk, check->fd);
        check->fd = -1;
    }
}

void journal_checkpoint_deinit(struct journal_core *core)
{
    check_drop(core);
    free(core->checkpoint.out);
}

static void check_failed(struct journal_core *core, int error)
{
    struct journal_checkpoint *check = &core->checkpoint;
    check->is_memory_short = error == -ENOMEM;
    check->retry_at = mono_add_ms(core->now, MEMORY_RETRY_MS);
    check_drop(core);
    (void)disk_unlink(core->disk, core->dir, SPARE_NAME);
    check->failed_at_count = core->segments.live_count;
    stat_add(&core->journal->stats.checkpoint_failures, 1);
    check_enter(check, JOURNAL_CHECK_NONE);
}

static uint32_t out_room(const struct journal_checkpoint *check)
{
    return OUT_CELLS - check->out_count;
}

static uint64_t out_seed(const struct journal_checkpoint *check)
{
    return journal_seed(JOURNAL_FILE_CHECKPOINT, check->number) + check->out_first +
           check->out_count;
}

/* The next record's place, behind the group's own cell. */
static struct journal_cell *out_next(struct journal_checkpoint *check)
{
    if (check->out_count == 0) {
        check->out_count = 1;
        check->group++;
    }
    ensure(check->out_count < OUT_CELLS);
    return &check->out[check->out_count];
}

static void out_record(struct journal_checkpoint *check, struct journal_record record)
{
    struct journal_cell *cell = out_next(check);
    record.group = check->group;
    journal_record_put(cell, &record, out_seed(check));
    check->out_count++;
}

static void out_submit(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    ensure(check->out_count > 1);
    struct journal_record record = {
        .kind = JOURNAL_KIND_GROUP, .ordinal = check->out_count - 1, .group = check->group};
    journal_record_put(&check->out[0], &record,
                       journal_seed(JOURNAL_FILE_CHECKPOINT, check->number) + check->out_first);
    uint32_t padded =
        (check->out_count + JOURNAL_SECTOR_CELLS - 1) / JOURNAL_SECTOR_CELLS * JOURNAL_SECTOR_CELLS;
    memset(&check->out[check->out_count], 0,
           (size_t)(padded - check->out_count) * JOURNAL_CELL_SIZE);
    check->io.op = (struct disk_op){.verb = DISK_WRITE,
                                    .fd = check->fd,
                                    .at = check->out,
                                    .size = (size_t)padded * JOURNAL_CELL_SIZE,
                                    .offset = (uint64_t)check->out_first * JOURNAL_CELL_SIZE};
    check->out_first += padded;
    check->out_count = 0;
    journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
}

/* Synced as it grows, so that the last sync is short. */
static void out_written(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    uint64_t size = (uint64_t)check->out_first * JOURNAL_CELL_SIZE;
    if (check->io.op.verb == DISK_WRITE && size - check->synced_size >= JOURNAL_SYNC_SIZE) {
        check->synced_size = size;
        check->io.op = (struct disk_op){.verb = DISK_DATASYNC, .fd = check->fd};
        journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
    }
}

/* Called by the walk; there is room, or the chunk would not have been read. */
static void on_deferral(void *context, struct journal_tally_batch *batch,
                        const struct journal_record *record)
{
    (void)batch;
    if (PLANTED(CHECKPOINT_FORGETS)) {
        return;
    }
    out_record(context, *record);
}

static void check_begin(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    ensure(check->fd < 0);
    ensure(core->segments.number > 1);
    check_enter(check, JOURNAL_CHECK_FORWARD);
    journal_results_mark(core);
    check->number = core->segments.number - 1;
    check->out_first = JOURNAL_SECTOR_CELLS;
    check->out_count = 0;
    check->group = 0;
    check->row = 0;
    check->row_word = 0;
    check->has_row_head = false;
    check->remove_at = 0;
    check->synced_size = 0;
    /* Not emptied and used again: whatever the name stood for stays untouched. */
    (void)disk_unlink(core->disk, core->dir, SPARE_NAME);
    check->fd =
        disk_open(core->disk, core->dir, SPARE_NAME, DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
    int error = check->fd < 0
                    ? check->fd
                    : journal_walk_init(&check->walk, core->disk, core->dir, check->number);
    if (error != 0) {
        check_failed(core, error);
        return;
    }
    journal_walk_ended(&check->walk, &core->segments.ended);
    check->walk.on_deferral = on_deferral;
    check->walk.context = check;
}

/* True: a read was submitted. False: the pass is over, or has failed. */
static bool walk_submit(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (!journal_walk_next(&check->walk, &check->io.op)) {
        return false;
    }
    journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
    return true;
}

static void row_head_put(struct journal_checkpoint *check, const struct journal_known_batch *known)
{
    ensure(known->number != 0);
    const struct journal_accepted accepted = {
        .number = known->number,
        .is_damaged = known->is_damaged,
        .recipients_count = known->recipients_count,
        .records_count = known->records_count,
        .rejected_count = known->rejected_count,
        .content_hash = known->content_hash,
        .content_size = known->content_size,
        .accepted_at = known->accepted_at,
        .directory = span_of_text(known->directory),
    };
    struct journal_cell *cell = out_next(check);
    check->out_count += journal_accepted_put(cell, &accepted, check->group, out_seed(check));
    cell = out_next(check);
    check->out_count +=
        journal_counts_put(cell, known->number, known->counts, check->group, out_seed(check));
}

/* Words from `first` on, up to one record's; nothing is written when all are zero. */
static void row_words_put(struct journal_checkpoint *check, const struct journal_known_batch *known,
                          uint32_t first, uint32_t count)
{
    ensure(count <= SETTLED_WORDS);
    char payload[SETTLED_PAYLOAD_SIZE];
    struct writer writer = writer_of(payload, sizeof(payload));
    uint64_t any = 0;
    for (uint32_t i = 0; i < count; i++) {
        writer_put_u64(&writer, known->settled[first + i]);
        any |= known->settled[first + i];
    }
    ensure(!writer.is_full);
    if (any == 0) {
        return;
    }
    struct journal_cell *cell = out_next(check);
    struct journal_record record = {.kind = JOURNAL_KIND_SETTLED,
                                    .batch = known->number,
                                    .ordinal = first * 64,
                                    .group = check->group};
    check->out_count += journal_long_put(cell, record, writer_span(&writer), out_seed(check));
}

/* Writes batches until the buffer is full or all are written; true: all are. */
static bool rows_put(struct journal_checkpoint *check)
{
    const struct journal_tally *tally = &check->walk.tally;
    while (check->row < tally->rows_count) {
        const struct journal_tally_batch *row = &tally->rows[check->row];
        uint32_t words = row->is_live ? (uint32_t)((row->known.records_count + 63) / 64) : 0;
        if (row->is_live && !check->has_row_head) {
            if (out_room(check) <= HEAD_CELLS) {
                return false;
            }
            row_head_put(check, &row->known);
            check->has_row_head = true;
        }
        while (check->row_word < words) {
            if (out_room(check) <= SETTLED_CELLS) {
                return false;
            }
            uint32_t left = words - check->row_word;
            uint32_t count = left < SETTLED_WORDS ? left : SETTLED_WORDS;
            row_words_put(check, &row->known, check->row_word, count);
            check->row_word += count;
        }
        check->row++;
        check->row_word = 0;
        check->has_row_head = false;
    }
    return true;
}

static void op_header(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    const struct journal_tally *tally = &check->walk.tally;
    const struct journal_header header = {
        .file = JOURNAL_FILE_CHECKPOINT,
        .number = check->number,
        .run = check->walk.reader.run,
        .group = check->walk.reader.group,
        .created_at = clock_wall(core->clock),
        .size = (uint64_t)check->out_first * JOURNAL_CELL_SIZE,
        .next_number = tally->next_number,
        .corrupt_records = tally->corrupt_records,
    };
    journal_header_put(check->out, &header);
    check->io.op = (struct disk_op){
        .verb = DISK_WRITE, .fd = check->fd, .at = check->out, .size = JOURNAL_SECTOR_SIZE};
    journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
}

static void check_name(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    ensure(journal_results_is_past_mark(core));
    char name[JOURNAL_NAME_SIZE];
    journal_name_put(name, JOURNAL_FILE_CHECKPOINT, check->number);
    int error = disk_rename(core->disk, core->dir, SPARE_NAME, core->dir, name);
    if (error != 0) {
        check_failed(core, error);
        return;
    }
    check_enter(check, JOURNAL_CHECK_NAMING);
    check->io.op = (struct disk_op){.verb = DISK_SYNC, .fd = core->dir};
    journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
}

/* The checkpoint is on stable storage under its name: it counts from here on. */
static void check_durable(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    ensure(core->segments.number > check->number);
    check_enter(check, JOURNAL_CHECK_REMOVING);
    core->segments.live_count = core->segments.number - check->number;
    stat_set(&core->journal->stats.segments, core->segments.live_count);
    stat_add(&core->journal->stats.checkpoints, 1);
    check->last_size = (uint64_t)check->out_first * JOURNAL_CELL_SIZE;
    check->failed_at_count = 0;
    check->is_memory_short = false;
}

/* Kept for a later segment, now or from an earlier checkpoint on. */
static bool file_is_kept(struct journal_core *core, uint32_t number)
{
    const struct journal_segments *segments = &core->segments;
    for (uint32_t i = 0; i < segments->retired_count; i++) {
        if (segments->retired[i] == number) {
            return true;
        }
    }
    return journal_segment_retire(core, number);
}

/* One file that the checkpoint stands for: kept for a later segment, or removed. To free a large
 * file takes long, and others wait meanwhile: it is cut down piece by piece first. */
static void file_remove(struct journal_core *core, const char *name)
{
    struct journal_checkpoint *check = &core->checkpoint;
    struct disk_stat stat;
    if (check->remove_fd < 0) {
        check->remove_fd = disk_open(core->disk, core->dir, name, DISK_READWRITE);
        bool is_open =
            check->remove_fd >= 0 && disk_stat_fd(core->disk, check->remove_fd, &stat) == 0;
        check->remove_size = is_open ? stat.size : 0;
    }
    if (check->remove_fd >= 0 && check->remove_size > JOURNAL_SYNC_SIZE) {
        check->remove_size -= JOURNAL_SYNC_SIZE;
        struct disk_op op = {
            .verb = DISK_TRUNCATE, .fd = check->remove_fd, .size = (size_t)check->remove_size};
        if (disk_run(core->disk, &op) == 0) {
            return;
        }
    }
    remove_end(core);
    if (disk_unlink(core->disk, core->dir, name) != 0) {
        odd(journal_file_not_removed);
    }
    check->remove_at++;
}

static void check_remove(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    const struct journal_listing *listing = &check->walk.listing;
    for (; check->remove_at < listing->count; check->remove_at++) {
        const struct journal_walk_file *file = &listing->files[check->remove_at];
        bool is_segment = file->file == JOURNAL_FILE_SEGMENT;
        if (file->number > check->number || (!is_segment && file->number == check->number) ||
            (is_segment && check->remove_fd < 0 && file_is_kept(core, file->number))) {
            continue;
        }
        char name[JOURNAL_NAME_SIZE];
        journal_name_put(name, file->file, file->number);
        file_remove(core, name);
        return;
    }
    check_drop(core);
    check_enter(check, JOURNAL_CHECK_NONE);
}

static bool check_is_due(const struct journal_core *core)
{
    uint32_t live = core->segments.live_count;
    const struct journal_checkpoint *check = &core->checkpoint;
    bool has_failed = live == check->failed_at_count;
    bool is_time = check->is_memory_short && !mono_before(core->now, check->retry_at);
    return live > journal_checkpoint_due(core) && (!has_failed || is_time);
}

struct mono_time journal_checkpoint_deadline(const struct journal_core *core)
{
    const struct journal_checkpoint *check = &core->checkpoint;
    if (check->state == JOURNAL_CHECK_REMOVING) {
        return core->now; /* a piece a step, and nothing else need be going on */
    }
    bool is_wanted = core->segments.live_count > journal_checkpoint_due(core);
    bool is_waiting = check->state == JOURNAL_CHECK_NONE && check->is_memory_short && is_wanted;
    return is_waiting ? check->retry_at : MONO_NEVER;
}

/* FORWARD is over: what was read is proved before anything is built on it. The last group of a
 * closed segment was synced before one went to the next segment: broken cells in it are no torn
 * write, although the group behind it is not read. (That of a run before this one may be torn.) */
static void forward_end(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (check->walk.error != 0) {
        check_failed(core, check->walk.error);
        return;
    }
    if (check->number + 1 >= core->segments.run) {
        journal_reader_end(&check->walk.reader); /* all of the runs before was read */
    }
    if (check->walk.reader.run == core->segments.run) {
        journal_reader_convict(&check->walk.reader);
    }
    journal_tally_prove(&check->walk.tally);
    stat_set(&core->journal->stats.corrupt_records, check->walk.tally.corrupt_records);
    check_enter(check, JOURNAL_CHECK_BATCHES);
}

static void batches_step(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    bool is_last = rows_put(check);
    if (is_last) {
        journal_walk_turn(&check->walk);
        check_enter(check, JOURNAL_CHECK_BACK);
    }
    if (check->out_count > 0) {
        out_submit(core);
    }
}

static void back_step(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (out_room(check) <= JOURNAL_CHUNK_CELLS) {
        out_submit(core);
        return;
    }
    if (walk_submit(core)) {
        return;
    }
    if (check->walk.error != 0) {
        check_failed(core, check->walk.error);
        return;
    }
    check_enter(check, JOURNAL_CHECK_TAIL);
    out_record(check, (struct journal_record){.kind = JOURNAL_KIND_WHOLE,
                                              .ordinal = check->walk.tally.live_count});
    out_submit(core);
}

/* Bounded: one chunk, one buffer, or one file. */
void journal_checkpoint_step(struct journal_core *core)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (check->io.is_busy) {
        return;
    }
    switch (check->state) {
    case JOURNAL_CHECK_NONE:
        if (check_is_due(core)) {
            check_begin(core);
        }
        return;
    case JOURNAL_CHECK_FORWARD:
        if (!walk_submit(core)) {
            forward_end(core);
        }
        return;
    case JOURNAL_CHECK_BATCHES:
        batches_step(core);
        return;
    case JOURNAL_CHECK_BACK:
        back_step(core);
        return;
    case JOURNAL_CHECK_WAITING:
        if (journal_results_is_past_mark(core)) {
            check_name(core);
        }
        return;
    case JOURNAL_CHECK_REMOVING:
        check_remove(core);
        return;
    case JOURNAL_CHECK_TAIL:
    case JOURNAL_CHECK_HEADING:
    case JOURNAL_CHECK_SYNCING:
    case JOURNAL_CHECK_NAMING:
        break;
    }
    ensure(false); /* these have an op in flight */
}

void journal_checkpoint_on_io(struct journal_core *core, const struct journal_io *io)
{
    struct journal_checkpoint *check = &core->checkpoint;
    if (core->pipe == JOURNAL_PIPE_FAILED) {
        return;
    }
    if (io->op.verb == DISK_READ) {
        journal_walk_feed(&check->walk, &io->op);
        return;
    }
    if (io->op.result < 0) {
        check_failed(core, (int)io->op.result);
        return;
    }
    switch (check->state) {
    case JOURNAL_CHECK_BATCHES:
    case JOURNAL_CHECK_BACK:
        out_written(core);
        return;
    case JOURNAL_CHECK_TAIL:
        check_enter(check, JOURNAL_CHECK_HEADING);
        op_header(core);
        return;
    case JOURNAL_CHECK_HEADING:
        check_enter(check, JOURNAL_CHECK_SYNCING);
        check->io.op = (struct disk_op){.verb = DISK_SYNC, .fd = check->fd};
        journal_submit(core, &check->io, JOURNAL_IO_CHECKPOINT);
        return;
    case JOURNAL_CHECK_SYNCING:
        check_enter(check, JOURNAL_CHECK_WAITING);
        return;
    case JOURNAL_CHECK_NAMING:
        check_durable(core);
        return;
    case JOURNAL_CHECK_NONE:
    case JOURNAL_CHECK_FORWARD:
    case JOURNAL_CHECK_WAITING:
    case JOURNAL_CHECK_REMOVING:
        break;
    }
    ensure(false); /* these write nothing */
}
