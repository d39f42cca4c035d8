/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_priv.h"

/*
 * A step goes round over its parts as long as one of them makes progress, but not more often than
 * ROUNDS_MAX: each part does a bounded piece of work and then waits for its disk op.
 */
enum { ROUNDS_MAX = 8, DEINIT_WAIT_NS = 1000000 };

void journal_submit(struct journal_core *core, struct journal_io *io, enum journal_io_kind kind)
{
    ensure(!io->is_busy);
    io->kind = kind;
    io->is_busy = true;
    io->op.user = io;
    list_init(&io->op.link);
    /* The ops that the journal can have in flight are fewer than a disk takes. */
    ensure(disk_submit(core->disk, &io->op) == 0);
    core->ios_count++;
}

static void io_done(struct journal_core *core, struct journal_io *io)
{
    switch (io->kind) {
    case JOURNAL_IO_LOG:
        journal_log_on_io(core, io);
        journal_group_on_io(core, io);
        return;
    case JOURNAL_IO_GROUP:
        journal_group_on_io(core, io);
        return;
    case JOURNAL_IO_SEGMENT:
        journal_segment_on_io(core, io);
        return;
    case JOURNAL_IO_CHECKPOINT:
        journal_checkpoint_on_io(core, io);
        return;
    case JOURNAL_IO_RESULTS:
        journal_results_on_io(core, io);
        return;
    }
    ensure(false);
}

/* Returns how many ops came back; they are bounded by those in flight. */
static uint32_t ios_reap(struct journal_core *core)
{
    uint32_t count = 0;
    uint32_t count_max = core->ios_count;
    while (count < count_max) {
        struct disk_op *op = disk_reap(core->disk);
        if (op == NULL) {
            break;
        }
        struct journal_io *io = op->user;
        ensure(io->is_busy);
        io->is_busy = false;
        core->ios_count--;
        count++;
        io_done(core, io);
    }
    return count;
}

/* Something is on its way to disk that an orderly stop has to wait for. */
static bool is_at_work(const struct journal_core *core)
{
    return core->ios_count > 0 || core->pipe == JOURNAL_PIPE_FAILED || core->flying != NULL ||
           core->gathering->records_count > 0 || core->held_accept != NULL ||
           core->held_entry != NULL || !journal_results_are_written(core);
}

static bool has_input(const struct journal *journal)
{
    return !inbox_is_empty(&journal->accepts) || !inbox_is_empty(&journal->entries) ||
           !inbox_is_empty(&journal->ends);
}

/* One look at every part; true when something moved. */
static bool parts_step(struct journal_core *core, bool is_all)
{
    uint32_t reaped = ios_reap(core);
    if (core->pipe == JOURNAL_PIPE_FAILED) {
        return reaped > 0;
    }
    uint32_t ios_count = core->ios_count;
    uint32_t records_count = core->gathering->records_count;
    enum journal_check check = core->checkpoint.state;
    journal_segments_step(core);
    journal_gather(core);
    bool has_gathered = core->gathering->records_count != records_count;
    if (core->pipe != JOURNAL_PIPE_FAILED) {
        journal_launch(core);
        journal_results_step(core, is_all);
        journal_checkpoint_step(core);
    }
    return reaped > 0 || has_gathered || core->ios_count != ios_count ||
           core->checkpoint.state != check;
}

static struct mono_time core_deadline(const struct journal_core *core)
{
    if (core->pipe == JOURNAL_PIPE_FAILED) {
        return MONO_NEVER;
    }
    struct mono_time deadline =
        mono_earlier(journal_results_deadline(core), journal_launch_deadline(core));
    deadline = mono_earlier(deadline, journal_checkpoint_deadline(core));
    if (core->segments.spare == JOURNAL_SPARE_NONE && core->segments.error != 0) {
        deadline = mono_earlier(deadline, core->segments.retry_at);
    }
    return deadline;
}

static struct mono_time journal_step(struct actor *actor, struct mono_time now)
{
    struct journal *journal = CONTAINER_OF(actor, struct journal, actor);
    struct journal_core *core = journal->core;
    core->now = now;
    /* Before anything is taken: who sees an empty inbox sees the journal at work. */
    stat_set(&core->is_at_work, 1);
    bool has_moved = true;
    for (int round = 0; round < ROUNDS_MAX && has_moved; round++) {
        has_moved = parts_step(core, false);
    }
    stat_publish(&core->is_at_work, is_at_work(core));
    return has_moved ? now : core_deadline(core);
}

static void journal_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct journal *journal = CONTAINER_OF(actor, struct journal, actor);
    struct disk *disk = journal->core->disk;
    int64_t timeout_ns = -1;
    if (deadline.ns != MONO_NEVER.ns) {
        timeout_ns = deadline.ns > now.ns ? deadline.ns - now.ns : 0;
    }
    disk->ops->wait(disk, timeout_ns);
}

static int core_open(struct journal_core *core, const struct journal_config *config)
{
    core->dir = disk_open(core->disk, DISK_ROOT, config->directory, DISK_READONLY | DISK_DIRECTORY);
    int error = core->dir < 0 ? core->dir : journal_groups_init(core);
    if (error == 0) {
        error = journal_results_init(core, config);
    }
    if (error == 0) {
        error = journal_log_init(core, config);
    }
    if (error == 0) {
        error = journal_checkpoint_init(core);
    }
    if (error == 0) {
        error = journal_segments_init(core, config);
    }
    return error;
}

int journal_init(struct journal *journal, const struct journal_config *config, bool with_event_fd)
{
    ensure(config->segment_size >= JOURNAL_SEGMENT_SIZE_MIN);
    ensure(config->segment_size <= JOURNAL_SEGMENT_SIZE_MAX);
    ensure(config->segments_max >= 1);
    *journal =
        (struct journal){.actor = {.name = "journal", .step = journal_step, .wait = journal_wait}};
    int error = waker_init(&journal->actor.waker, with_event_fd);
    if (error != 0) {
        return error;
    }
    inbox_init(&journal->accepts, &journal->actor.waker);
    inbox_init(&journal->entries, &journal->actor.waker);
    inbox_init(&journal->ends, &journal->actor.waker);
    struct journal_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        waker_deinit(&journal->actor.waker);
        return -ENOMEM;
    }
    core->journal = journal;
    core->disk = config->disk;
    core->clock = config->clock;
    core->settled = config->settled;
    core->segments_max = config->segments_max;
    core->now = clock_mono(config->clock);
    core->dir = core->log.dir = core->log.fd = core->results.active = -1;
    core->segments.fd = core->segments.spare_fd = -1;
    core->checkpoint.fd = core->checkpoint.remove_fd = -1;
    journal->core = core;
    if (config->known != NULL) {
        stat_set(&journal->stats.corrupt_records, config->known->corrupt_records);
    }
    error = core_open(core, config);
    if (error != 0) {
        journal_deinit(journal);
    }
    return error;
}

void journal_abandon(struct journal *journal)
{
    journal->core->is_abandoned = true;
    journal_fail(journal->core, JOURNAL_FAILURE_ABANDONED, 0, 0);
}

/* Until nothing moves and every op is back. */
static void core_run_down(struct journal_core *core)
{
    for (;;) {
        core->launched_count = 0; /* no group waits for company now */
        bool has_moved = parts_step(core, true);
        if (core->ios_count > 0 && !has_moved) {
            core->disk->ops->wait(core->disk, DEINIT_WAIT_NS);
        } else if (core->ios_count == 0 && !has_moved) {
            return;
        }
    }
}

/* What is pending is written as far as it can be; every op must be back before its memory goes. The
 * next start does not look for missing lines behind an orderly stop: those of results are synced,
 * too, or the stop was none. */
static void core_drain(struct journal_core *core)
{
    core->now = clock_mono(core->clock);
    core_run_down(core);
    if (core->pipe != JOURNAL_PIPE_FAILED) {
        journal_results_mark(core);
        core_run_down(core);
    }
    bool is_whole = journal_results_is_past_mark(core) && journal_results_are_written(core);
    if (core->pipe != JOURNAL_PIPE_FAILED && !is_whole) {
        journal_fail(core, JOURNAL_FAILURE_STOP, 0, 0);
    }
}

void journal_deinit(struct journal *journal)
{
    if (journal == NULL || journal->core == NULL) {
        return;
    }
    struct journal_core *core = journal->core;
    if (core->segments.fd >= 0) {
        core_drain(core);
    }
    journal->end = (struct journal_place){.run = core->segments.run, .group = core->group_durable};
    journal_checkpoint_deinit(core);
    journal_segments_deinit(core);
    journal_log_deinit(core);
    journal_results_deinit(core);
    journal_groups_deinit(core);
    if (core->dir >= 0) {
        disk_close(core->disk, core->dir);
    }
    free(core);
    journal->core = NULL;
    waker_deinit(&journal->actor.waker);
}

bool journal_is_idle(const struct journal *journal)
{
    return !has_input(journal) && stat_observe_xcore(&journal->core->is_at_work) == 0;
}
