/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "engine/base/planted.h"
#include "queue/journal_priv.h"

/*
 * The pipe. One group gathers while the one before it is written and synced; the next is written
 * only when the last is synced. That is slower than two writes in flight only by the time of a copy
 * into the page cache, and it is what replay builds upon: of a run of the engine at most the last
 * group can be torn.
 *
 *                 journal_launch          written               synced: durable
 *          IDLE ----------------> WRITING -------> SYNCING ----------------------> IDLE
 *            |                       |                |
 *            +-----------------------+----------------+---- a write or sync failed ----> FAILED
 *
 * An object is in an inbox, held, in `gathering`, or in `flying`, and goes back from `flying`
 * alone.
 */
static const uint32_t PIPE_ALLOWED[JOURNAL_PIPES_COUNT] = {
    [JOURNAL_PIPE_IDLE] = 1u << JOURNAL_PIPE_WRITING | 1u << JOURNAL_PIPE_FAILED,
    [JOURNAL_PIPE_WRITING] = 1u << JOURNAL_PIPE_SYNCING | 1u << JOURNAL_PIPE_FAILED,
    [JOURNAL_PIPE_SYNCING] = 1u << JOURNAL_PIPE_IDLE | 1u << JOURNAL_PIPE_FAILED,
    [JOURNAL_PIPE_FAILED] = 0,
};

enum { BATCHES_FIRST = 64, BITS = 64, PACE_RECORDS = 16, PACE_NS = 2000000 };

/* What may come through an inbox begins alike, so that a reply needs not know its kind. */
struct reply_head {
    struct inbox_node node;
    struct inbox *reply_to;
};

_Static_assert(offsetof(struct journal_accept, reply_to) == offsetof(struct reply_head, reply_to),
               "accepts begin with the head");
_Static_assert(offsetof(struct journal_entry, reply_to) == offsetof(struct reply_head, reply_to),
               "entries begin with the head");
_Static_assert(offsetof(struct journal_end, reply_to) == offsetof(struct reply_head, reply_to),
               "ends begin with the head");

static void pipe_enter(struct journal_core *core, enum journal_pipe pipe)
{
    ensure((PIPE_ALLOWED[core->pipe] >> pipe & 1) != 0);
    core->pipe = pipe;
}

void journal_fail(struct journal_core *core, enum journal_failure failure, int error,
                  uint32_t number)
{
    if (core->pipe != JOURNAL_PIPE_FAILED) {
        pipe_enter(core, JOURNAL_PIPE_FAILED);
        stat_set(&core->journal->stats.failure, failure);
        stat_set(&core->journal->stats.failure_error, (uint64_t)-error);
        stat_set(&core->journal->stats.failure_number, number);
        stat_publish(&core->journal->stats.has_failed, 1);
    }
}

int journal_groups_init(struct journal_core *core)
{
    size_t cells_size = (JOURNAL_GROUP_CELLS_MAX + JOURNAL_SECTOR_CELLS) * JOURNAL_CELL_SIZE;
    for (size_t i = 0; i < COUNT_OF(core->groups); i++) {
        struct journal_group *group = &core->groups[i];
        group->cells = aligned_alloc(JOURNAL_SECTOR_SIZE,
                                     (cells_size / JOURNAL_SECTOR_SIZE + 1) * JOURNAL_SECTOR_SIZE);
        group->log = malloc(JOURNAL_LOG_BUFFER_SIZE);
        group->rows = malloc(JOURNAL_GROUP_CELLS_MAX * sizeof(struct journal_row));
        if (group->cells == NULL || group->log == NULL || group->rows == NULL) {
            return -ENOMEM;
        }
        inbox_chain_init(&group->others);
        for (size_t at = 0; at < COUNT_OF(group->replies); at++) {
            inbox_chain_init(&group->replies[at].chain);
        }
    }
    core->gathering = &core->groups[0];
    return 0;
}

void journal_groups_deinit(struct journal_core *core)
{
    for (size_t i = 0; i < COUNT_OF(core->groups); i++) {
        free(core->groups[i].cells);
        free(core->groups[i].log);
        free(core->groups[i].rows);
    }
    for (uint32_t i = 0; i < core->batches_room; i++) {
        if (core->batches[i] != NULL) {
            journal_batch_free(core, core->batches[i]);
        }
    }
    free(core->batches);
}

static struct journal_batch *batch_find(const struct journal_core *core, const struct batch *batch)
{
    if (batch->index >= core->batches_room) {
        return NULL;
    }
    struct journal_batch *found = core->batches[batch->index];
    return found != NULL && found->number == batch->number ? found : NULL;
}

static int batches_grow(struct journal_core *core, uint32_t index)
{
    uint32_t room = core->batches_room == 0 ? BATCHES_FIRST : core->batches_room;
    while (room <= index) {
        room *= 2;
    }
    if (room == core->batches_room) {
        return 0;
    }
    struct journal_batch **batches = realloc(core->batches, room * sizeof(struct journal_batch *));
    if (batches == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = core->batches_room; i < room; i++) {
        batches[i] = NULL;
    }
    core->batches = batches;
    core->batches_room = room;
    return 0;
}

/* Of a recovered batch: copies what is settled. */
static void batch_settle_known(struct journal_batch *known, const struct journal_accept *accept)
{
    size_t words = (size_t)((known->records_count + BITS - 1) / BITS);
    for (size_t i = 0; accept->settled != NULL && i < words; i++) {
        known->settled[i] = accept->settled[i];
        known->settled_count += (uint64_t)__builtin_popcountll(accept->settled[i]);
    }
    /* Intake has told the batch what replay counted (LAW 3). */
    ensure(known->settled_count == batch_settled_xcore(known->batch));
}

static int batch_create(struct journal_core *core, const struct journal_accept *accept)
{
    struct batch *batch = accept->batch;
    ensure(batch->number != 0);
    ensure(batch->records_count <= UINT32_MAX);
    ensure(batch->recipients_count <= batch->records_count);
    if (batches_grow(core, batch->index) != 0) {
        return -ENOMEM;
    }
    ensure(core->batches[batch->index] == NULL);
    struct journal_batch *known = calloc(1, sizeof(*known));
    uint64_t *settled = calloc((size_t)(batch->records_count / BITS) + 1, sizeof(uint64_t));
    if (known == NULL || settled == NULL) {
        free(known);
        free(settled);
        return -ENOMEM;
    }
    *known = (struct journal_batch){.batch = batch,
                                    .number = batch->number,
                                    .settled = settled,
                                    .records_count = batch->records_count,
                                    .recipients_count = batch->recipients_count,
                                    .fd = -1,
                                    .directory = -1};
    memcpy(known->name, batch->directory, sizeof(known->name));
    list_init(&known->full);
    list_init(&known->wants);
    list_init(&known->open);
    if (accept->is_recovered) {
        batch_settle_known(known, accept);
    }
    core->batches[batch->index] = known;
    return 0;
}

void journal_batch_free(struct journal_core *core, struct journal_batch *batch)
{
    ensure(core->batches[batch->batch->index] == batch);
    core->batches[batch->batch->index] = NULL;
    journal_mark_end(core, batch, false);
    free(batch->settled);
    free(batch);
}

void journal_batch_finished(struct journal_core *core, struct journal_batch *batch)
{
    ensure(!batch->is_finished);
    batch->is_finished = true;
    inbox_push_xcore(core->settled, &batch->batch->node);
}

static void batch_finish_if_settled(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->settled_count >= batch->recipients_count && !batch->is_finishing) {
        batch->is_finishing = true;
        journal_results_finish(core, batch);
    }
}

static void group_reply(struct journal_group *group, struct inbox_node *node)
{
    struct inbox *inbox = CONTAINER_OF(node, struct reply_head, node)->reply_to;
    struct journal_reply *reply = &group->replies[group->reply_last];
    if (group->replies_count == 0 || reply->inbox != inbox) {
        uint32_t at = 0;
        while (at < group->replies_count && group->replies[at].inbox != inbox) {
            at++;
        }
        if (at == JOURNAL_REPLIES_MAX) {
            inbox_chain_add(&group->others, node);
            return;
        }
        if (at == group->replies_count) {
            group->replies[at].inbox = inbox;
            group->replies_count++;
        }
        group->reply_last = at;
        reply = &group->replies[at];
    }
    inbox_chain_add(&reply->chain, node);
}

static struct journal_row *group_row(struct journal_group *group, struct journal_batch *batch)
{
    if (batch->row_group != group->number) {
        ensure(group->rows_count < JOURNAL_GROUP_CELLS_MAX);
        batch->row_group = group->number;
        batch->row = group->rows_count++;
        group->rows[batch->row] = (struct journal_row){.batch = batch};
    }
    ensure(batch->row < group->rows_count);
    return &group->rows[batch->row];
}

static uint64_t cell_seed(const struct journal_core *core, const struct journal_group *group)
{
    return journal_seed(JOURNAL_FILE_SEGMENT, core->segments.number) + group->first +
           group->cells_count;
}

/* False: it must wait for the next group. */
static bool put_accept(struct journal_core *core, struct journal_group *group,
                       struct journal_accept *accept)
{
    if (group->cells_count + JOURNAL_ACCEPTED_CELLS_MAX > group->cells_limit) {
        return false;
    }
    const struct batch *batch = accept->batch;
    accept->result = batch_create(core, accept);
    if (accept->result != 0 || accept->is_recovered) {
        inbox_push_xcore(accept->reply_to, &accept->node);
        struct journal_batch *known = batch_find(core, batch);
        if (known != NULL) {
            batch_finish_if_settled(core, known);
        }
        return true;
    }
    struct journal_accepted accepted = {
        .number = batch->number,
        .recipients_count = batch->recipients_count,
        .records_count = batch->records_count,
        .rejected_count = batch->rejected_count,
        .content_hash = accept->content_hash,
        .content_size = accept->content_size,
        .accepted_at = batch->accepted_at,
        .directory = span_of(batch->directory, strnlen(batch->directory, sizeof(batch->directory))),
    };
    group->cells_count += journal_accepted_put(&group->cells[group->cells_count], &accepted,
                                               group->number, cell_seed(core, group));
    group->records_count++;
    (void)group_row(group, core->batches[batch->index]);
    if (PLANTED(DEAL_EARLY)) {
        inbox_push_xcore(accept->reply_to, &accept->node);
    } else {
        group_reply(group, &accept->node);
    }
    return true;
}

static enum batch_count count_of(uint8_t what)
{
    switch ((enum journal_what)what) {
    case JOURNAL_DELIVERED:
        return BATCH_DELIVERED;
    case JOURNAL_BOUNCED:
        return BATCH_BOUNCED;
    case JOURNAL_EXPIRED:
        return BATCH_EXPIRED;
    case JOURNAL_CANCELLED:
        return BATCH_CANCELLED_COUNT;
    case JOURNAL_DEFERRED:
        return BATCH_DEFERRALS;
    case JOURNAL_ACCEPTED:
    case JOURNAL_ENDED:
        break;
    }
    ensure(false); /* no outcome of a recipient */
    return BATCH_DELIVERED;
}

/* LAW 2: whatever comes for an ordinal comes before its one settle. */
static void entry_settle(struct journal_batch *batch, const struct journal_entry *entry)
{
    ensure(entry->ordinal < batch->records_count);
    uint64_t *word = &batch->settled[entry->ordinal / BITS];
    uint64_t bit = UINT64_C(1) << entry->ordinal % BITS;
    ensure((*word & bit) == 0);
    if (entry->what != JOURNAL_DEFERRED) {
        *word |= bit;
    }
}

static void entry_encode(const struct journal_core *core, struct journal_group *group,
                         const struct journal_entry *entry)
{
    ensure(group->cells_count < group->cells_limit);
    uint32_t border = core->segments.cells_max - JOURNAL_SECTOR_CELLS;
    if (PLANTED(BORDER_RECORD_LOST) && group->first + group->cells_count >= border) {
        group->records_count++;
        return;
    }
    uint8_t flags = (uint8_t)((entry->is_ambiguous ? JOURNAL_FLAG_AMBIGUOUS : 0) |
                              (entry->is_possible_duplicate ? JOURNAL_FLAG_POSSIBLE_DUPLICATE : 0));
    struct journal_record record = {
        .kind = entry->what + 1,
        .flags = flags,
        .code = entry->code,
        .batch = entry->batch->number,
        .ordinal = entry->ordinal,
        .at_s = entry->at_s,
        .due_s = entry->due_s,
        .attempts_count = entry->attempts_count,
        .group = group->number,
    };
    journal_record_put(&group->cells[group->cells_count], &record, cell_seed(core, group));
    group->cells_count++;
    group->records_count++;
}

static bool put_entry(struct journal_core *core, struct journal_group *group,
                      struct journal_entry *entry)
{
    ensure(entry->line_size <= JOURNAL_LINE_MAX);
    struct span line = span_of(entry->line, entry->line_size);
    if (group->cells_count == group->cells_limit ||
        group->log_size + line.size > JOURNAL_LOG_BUFFER_SIZE) {
        return false;
    }
    struct journal_batch *batch = batch_find(core, entry->batch);
    ensure(batch != NULL);
    enum batch_count count = count_of(entry->what);
    if (entry->is_result && line.size > 0 &&
        !journal_results_add(core, batch, entry->ordinal, line)) {
        return false;
    }
    entry_settle(batch, entry);
    entry_encode(core, group, entry);
    if (core->log.dir >= 0 && line.size > 0) {
        memcpy(group->log + group->log_size, line.at, line.size);
        group->log_size += (uint32_t)line.size;
        group->log_lines++;
    }
    struct journal_row *row = group_row(group, batch);
    row->counts[count] += PLANTED(SETTLED_TWICE) && entry->ordinal % 8 == 5 ? 2 : 1;
    row->counts[BATCH_POSSIBLE_DUPLICATES] += entry->is_possible_duplicate != 0;
    group_reply(group, &entry->node);
    return true;
}

static void put_end(struct journal_core *core, struct journal_group *group, struct journal_end *end)
{
    ensure(group->cells_count < group->cells_limit);
    struct journal_batch *batch = batch_find(core, end->batch);
    struct journal_record record = {
        .kind = JOURNAL_KIND_ENDED, .batch = end->batch->number, .group = group->number};
    journal_record_put(&group->cells[group->cells_count], &record, cell_seed(core, group));
    group->cells_count++;
    group->records_count++;
    group_reply(group, &end->node);
    if (batch != NULL) {
        ensure(batch->is_finished);
        journal_batch_free(core, batch);
    }
}

static bool has_work(const struct journal_core *core)
{
    const struct journal *journal = core->journal;
    return core->held_accept != NULL || core->held_entry != NULL ||
           !inbox_is_empty(&journal->accepts) || !inbox_is_empty(&journal->entries) ||
           !inbox_is_empty(&journal->ends);
}

/* Gives the gathering group its place in the file; false: there is none yet. */
static bool group_place(struct journal_core *core, struct journal_group *group)
{
    ensure(group->cells_count == 0);
    ensure(group->records_count == 0);
    if (!journal_segment_has_room(core)) {
        return false;
    }
    uint32_t room = core->segments.cells_max - core->segments.next_cell;
    group->number = ++core->group_number;
    group->first = core->segments.next_cell;
    group->cells_count = 1;
    group->cells_limit = room < JOURNAL_GROUP_CELLS_MAX ? room : JOURNAL_GROUP_CELLS_MAX;
    return true;
}

static void gather_accepts(struct journal_core *core, struct journal_group *group)
{
    for (;;) {
        struct journal_accept *accept = core->held_accept;
        if (accept == NULL) {
            struct inbox_node *node = inbox_take(&core->journal->accepts);
            if (node == NULL) {
                return;
            }
            accept = CONTAINER_OF(node, struct journal_accept, node);
        }
        bool is_put = put_accept(core, group, accept);
        core->held_accept = is_put ? NULL : accept;
        if (!is_put) {
            return;
        }
    }
}

static void gather_entries(struct journal_core *core, struct journal_group *group)
{
    for (;;) {
        struct journal_entry *entry = core->held_entry;
        if (entry == NULL) {
            struct inbox_node *node = inbox_take(&core->journal->entries);
            if (node == NULL) {
                return;
            }
            entry = CONTAINER_OF(node, struct journal_entry, node);
        }
        bool is_put = put_entry(core, group, entry);
        core->held_entry = is_put ? NULL : entry;
        if (!is_put) {
            return;
        }
    }
}

void journal_gather(struct journal_core *core)
{
    struct journal_group *group = core->gathering;
    if (!has_work(core) || (group->cells_count == 0 && !group_place(core, group))) {
        return;
    }
    gather_accepts(core, group);
    gather_entries(core, group);
    struct inbox_node *node;
    while (group->cells_count < group->cells_limit &&
           (node = inbox_take(&core->journal->ends)) != NULL) {
        put_end(core, group, CONTAINER_OF(node, struct journal_end, node));
    }
}

/* The group's own cell, and zeros to the end of the sector. Returns the cells to write. */
static uint32_t group_close(const struct journal_core *core, struct journal_group *group)
{
    ensure(group->cells_count > 1);
    ensure(group->cells_count <= group->cells_limit);
    uint32_t records_cells = group->cells_count - 1;
    struct journal_record record = {
        .kind = JOURNAL_KIND_GROUP, .ordinal = records_cells, .group = group->number};
    journal_record_put(&group->cells[0], &record,
                       journal_seed(JOURNAL_FILE_SEGMENT, core->segments.number) + group->first);
    uint32_t padded = (group->cells_count + JOURNAL_SECTOR_CELLS - 1) / JOURNAL_SECTOR_CELLS *
                      JOURNAL_SECTOR_CELLS;
    memset(&group->cells[group->cells_count], 0,
           (size_t)(padded - group->cells_count) * JOURNAL_CELL_SIZE);
    return padded;
}

/* After a group of some size the next one gathers for a moment: under load each group costs the
 * same handful of system calls and kernel threads' work, whatever it holds. An idle journal, and a
 * lone recipient, never wait. */
static bool is_pacing(const struct journal_core *core)
{
    return core->launched_count > PACE_RECORDS &&
           core->gathering->records_count < JOURNAL_GROUP_MAX / 2 &&
           mono_before(core->now, core->pace_until);
}

struct mono_time journal_launch_deadline(const struct journal_core *core)
{
    bool is_waiting = core->pipe == JOURNAL_PIPE_IDLE && core->gathering->records_count > 0;
    return is_waiting ? core->pace_until : MONO_NEVER;
}

void journal_launch(struct journal_core *core)
{
    struct journal_group *group = core->gathering;
    if (core->pipe != JOURNAL_PIPE_IDLE || group->records_count == 0 || is_pacing(core)) {
        return;
    }
    ensure(core->flying == NULL);
    core->launched_count = group->records_count;
    core->pace_until = mono_add_ns(core->now, PACE_NS);
    uint32_t cells = group_close(core, group);
    core->segments.next_cell += cells;
    ensure(core->segments.next_cell <= core->segments.cells_max);
    core->flying = group;
    core->gathering = group == &core->groups[0] ? &core->groups[1] : &core->groups[0];
    ensure(core->gathering->cells_count == 0);
    pipe_enter(core, JOURNAL_PIPE_WRITING);
    core->write_error = 0;
    core->writes_left = 1;
    core->writes_left += journal_log_write(core, group) ? 1 : 0;
    core->group_io.op = (struct disk_op){.verb = DISK_WRITE,
                                         .fd = core->segments.fd,
                                         .at = group->cells,
                                         .size = (size_t)cells * JOURNAL_CELL_SIZE,
                                         .offset = (uint64_t)group->first * JOURNAL_CELL_SIZE};
    stat_add(&core->journal->stats.bytes, core->group_io.op.size);
    journal_submit(core, &core->group_io, JOURNAL_IO_GROUP);
}

static void group_empty(struct journal_group *group)
{
    group->cells_count = 0;
    group->records_count = 0;
    group->log_size = 0;
    group->log_lines = 0;
    group->rows_count = 0;
    group->replies_count = 0;
    group->reply_last = 0;
}

static void row_apply(const struct journal_row *row)
{
    struct journal_batch *batch = row->batch;
    for (size_t i = 0; i < BATCH_COUNTS_COUNT; i++) {
        if (row->counts[i] > 0) {
            stat_add(&batch->batch->counts[i], row->counts[i]);
        }
    }
    batch->settled_count += (uint64_t)row->counts[BATCH_DELIVERED] + row->counts[BATCH_BOUNCED] +
                            row->counts[BATCH_EXPIRED] + row->counts[BATCH_CANCELLED_COUNT];
    ensure(batch->settled_count <= batch->records_count);
}

/* The group is on stable storage: what it says is true now, and its objects go back. Counts first:
 * who gets an object back finds it counted. */
static void group_durable(struct journal_core *core)
{
    struct journal_group *group = core->flying;
    ensure(group != NULL);
    ensure(core->pipe == JOURNAL_PIPE_IDLE);
    struct journal_stats *stats = &core->journal->stats;
    stat_add(&stats->groups, 1);
    stat_add(&stats->records, group->records_count);
    core->group_durable = group->number;
    for (uint32_t i = 0; i < group->rows_count; i++) {
        row_apply(&group->rows[i]);
    }
    for (uint32_t i = 0; i < group->replies_count; i++) {
        inbox_push_chain_xcore(group->replies[i].inbox, &group->replies[i].chain);
    }
    struct inbox_node *node;
    while ((node = inbox_chain_take(&group->others)) != NULL) {
        inbox_push_xcore(CONTAINER_OF(node, struct reply_head, node)->reply_to, node);
    }
    for (uint32_t i = 0; i < group->rows_count; i++) {
        batch_finish_if_settled(core, group->rows[i].batch);
    }
    group_empty(group);
    core->flying = NULL;
}

static void group_sync(struct journal_core *core)
{
    ensure(core->flying != NULL);
    pipe_enter(core, JOURNAL_PIPE_SYNCING);
    core->sync_began = clock_mono(core->clock);
    core->group_io.op = (struct disk_op){.verb = PLANTED(SYNC_SKIPPED) ? DISK_WRITE : DISK_DATASYNC,
                                         .fd = core->segments.fd};
    journal_submit(core, &core->group_io, JOURNAL_IO_GROUP);
}

/* One of the group's two writes, or its sync. A failed write of the log stops nothing. */
void journal_group_on_io(struct journal_core *core, const struct journal_io *io)
{
    switch (core->pipe) {
    case JOURNAL_PIPE_WRITING:
        ensure(core->writes_left > 0);
        core->writes_left--;
        if (io->kind == JOURNAL_IO_GROUP && io->op.result < 0) {
            core->write_error = (int)io->op.result;
        }
        if (core->writes_left > 0) {
            return;
        }
        if (core->write_error != 0) {
            journal_fail(core, JOURNAL_FAILURE_WRITE, core->write_error, core->segments.number);
        } else {
            group_sync(core);
        }
        return;
    case JOURNAL_PIPE_SYNCING:
        if (io->op.result < 0) {
            journal_fail(core, JOURNAL_FAILURE_SYNC, (int)io->op.result, core->segments.number);
            return;
        }
        stat_add(&core->journal->stats.syncs, 1);
        stat_add(&core->journal->stats.sync_ns_sum,
                 (uint64_t)(clock_mono(core->clock).ns - core->sync_began.ns));
        pipe_enter(core, JOURNAL_PIPE_IDLE);
        group_durable(core);
        return;
    case JOURNAL_PIPE_FAILED:
        return;
    case JOURNAL_PIPE_IDLE:
        break;
    }
    ensure(false); /* nothing was in flight */
}
