/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/planted.h"
#include "engine/intake_priv.h"

enum { INTAKE_END_WAIT_NS = 100 * 1000 * 1000 };

/*
 * A load's records are read with as few operations as their places allow: neighbours (with small
 * gaps) in one piece. The block is one piece of memory; each run of neighbours has its place in it.
 */

/* LF becomes CRLF for the wire: room for a record of nothing but line ends. */
static size_t room_of(const struct intake_batch *ib, uint64_t size)
{
    return ib->is_bsmtp_lf ? 2 * (size_t)size : (size_t)size;
}

/* Bytes of the runs, counted as plan_runs will lay them out, and at most how many runs. */
static uint64_t runs_size(const struct load *load, uint32_t files_count, uint32_t *ret_runs)
{
    uint64_t size = 0;
    uint64_t runs = files_count - 1; /* a run does not go over a file's end */
    uint64_t end = UINT64_MAX;
    for (uint32_t i = 0; i < load->count; i++) {
        const struct recipient *recipient = load->recipients[i];
        uint64_t start = recipient->record_offset;
        uint64_t stop = start + recipient->record_size;
        if (end != UINT64_MAX && start >= end && start - end <= INTAKE_GAP_MAX) {
            size += stop - end;
        } else if (end == UINT64_MAX || start != load->recipients[i - 1]->record_offset) {
            size += recipient->record_size;
            runs++;
        }
        end = stop;
    }
    *ret_runs = runs < load->count ? (uint32_t)runs : load->count;
    return size;
}

static void add_op(struct intake_core *core, struct intake_read *read, struct disk_op **ret_op,
                   int fd, char *at, uint64_t offset)
{
    struct disk_op *op = &read->ops[read->ops_left++];
    *op = (struct disk_op){.verb = DISK_READ, .fd = fd, .at = at, .offset = offset, .user = read};
    core->ops_away++;
    *ret_op = op;
}

/* Fills read->ops and load->records. Runs never go over a file's end. */
static void plan_runs(struct intake_core *core, const struct intake_batch *ib,
                      struct intake_read *read)
{
    struct load *load = read->load;
    char *at = load->block->bytes;
    uint64_t end = UINT64_MAX;
    const struct spool_stream_file *file = NULL;
    struct disk_op *op = NULL;
    for (uint32_t i = 0; i < load->count; i++) {
        const struct recipient *recipient = load->recipients[i];
        uint64_t start = recipient->record_offset;
        uint64_t stop = start + recipient->record_size;
        if (i > 0 && start == load->recipients[i - 1]->record_offset) {
            load->records[i] = load->records[i - 1];
            continue;
        }
        const struct spool_stream_file *here = spool_stream_find(ib->stream, start);
        bool is_neighbour =
            op != NULL && here == file && start >= end && start - end <= INTAKE_GAP_MAX;
        if (is_neighbour) {
            op->size += stop - end;
            at += start - end;
        } else {
            file = here;
            add_op(core, read, &op, file->file.fd, at, start - file->start);
            op->size = recipient->record_size;
        }
        load->records[i] = span_of(at, recipient->record_size);
        at += recipient->record_size;
        end = stop;
    }
}

/* In place cannot be: the text grows. The second half of the block is free for it. */
static void to_crlf(struct load *load)
{
    char *out = load->block->bytes + (load->block->size / 2);
    for (uint32_t i = 0; i < load->count; i++) {
        if (i > 0 && load->recipients[i]->record_offset == load->recipients[i - 1]->record_offset) {
            load->records[i] = load->records[i - 1];
            continue;
        }
        struct cursor cursor = cursor_of(load->records[i]);
        char *start = out;
        struct span line;
        while (cursor_take_line(&cursor, &line)) {
            memcpy(out, line.at, line.size);
            out += line.size;
            *out++ = '\r';
            *out++ = '\n';
        }
        load->records[i] = span_of(start, (size_t)(out - start));
    }
}

static void load_done(struct intake_core *core, struct intake_read *read)
{
    struct load *load = read->load;
    struct intake_batch *ib = intake_batch_of(core, load->batch->index);
    load->result = read->result;
    if (load->result == 0 && ib->is_bsmtp_lf) {
        to_crlf(load);
    }
    stat_add(&core->intake->stats.loads, 1);
    stat_add(&core->intake->stats.load_bytes, load->block->size);
    slab_give(&core->reads, read);
    inbox_push_xcore(load->reply_to, &load->node);
}

/* Something needed always gets through, however much lies ahead. */
static bool is_over_budget(const struct intake_core *core, const struct load *load, uint64_t room)
{
    uint64_t budget = core->engine->config->readahead_bytes_max;
    uint64_t ahead_bytes = core->block_bytes - core->needed_bytes;
    bool is_over = core->block_bytes + room > budget;
    if (load->is_needed) {
        return is_over && core->needed_bytes > 0;
    }
    return ahead_bytes > 0 && (is_over || ahead_bytes + room > budget / 2);
}

/* False: no room now. */
static bool load_start(struct intake_core *core, struct load *load)
{
    struct intake_batch *ib = intake_batch_of(core, load->batch->index);
    uint32_t runs;
    uint64_t room = room_of(ib, runs_size(load, ib->stream->files_count, &runs));
    room = ib->is_bsmtp_lf ? 2 * room : room;
    bool is_over = is_over_budget(core, load, room);
    if (is_over && !load->is_needed) {
        load->result = -ENOBUFS;
        odd(readahead_full);
        inbox_push_xcore(load->reply_to, &load->node);
        return true;
    }
    if (is_over || core->ops_away + runs > INTAKE_READS_MAX) {
        return false;
    }
    /* The files must be those that were scanned: their owners may still hold them open (conformance
     * 4). */
    int result = intake_changed_check(core, ib);
    if (result == -ESTALE && intake_changed_take(core, ib, load)) {
        return true;
    }
    struct intake_read *read = slab_take(&core->reads);
    struct load_block *block = read == NULL ? NULL : malloc(sizeof(*block) + room);
    if (block == NULL) {
        if (read != NULL) {
            slab_give(&core->reads, read);
        }
        return false;
    }
    block->size = room;
    block->batch = ib->batch->index;
    ib->blocks_count++;
    block->is_needed = load->is_needed;
    core->block_bytes += room;
    core->needed_bytes += load->is_needed ? room : 0;
    list_init(&block->link);
    list_add_last(&core->blocks, &block->link);
    load->block = block;
    read->load = load;
    read->ops_left = 0;
    read->result = result;
    if (read->result != 0) {
        load_done(core, read);
        return true;
    }
    plan_runs(core, ib, read);
    /* The count may reach nought while ops are still being handed in: one more keeps the read open.
     */
    uint32_t ops_count = read->ops_left++;
    ensure(ops_count <= runs);
    for (uint32_t i = 0; i < ops_count; i++) {
        ensure(disk_submit(core->disk, &read->ops[i]) == 0);
    }
    if (--read->ops_left == 0) {
        load_done(core, read);
    }
    return true;
}

void intake_load_take(struct intake_core *core)
{
    inbox_take_all(&core->intake->loads, &core->loads_waiting);
    if (core->load_held != NULL && !load_start(core, core->load_held)) {
        return; /* in their order: a large one is not passed by small ones for ever */
    }
    core->load_held = NULL;
    for (uint32_t i = 0; i < INTAKE_LOADS_STEP_MAX && core->loads_waiting.count > 0; i++) {
        struct inbox_node *node = inbox_chain_take(&core->loads_waiting);
        struct load *load = CONTAINER_OF(node, struct load, node);
        if (!load_start(core, load)) {
            core->load_held = load;
            break;
        }
    }
    stat_set(&core->intake->stats.loads_waiting, core->loads_waiting.count);
}

uint32_t intake_load_reap(struct intake_core *core)
{
    uint32_t count = 0;
    struct disk_op *op;
    while ((op = disk_reap(core->disk)) != NULL) {
        struct intake_read *read = op->user;
        core->ops_away--;
        count++;
        if (op->result < 0) {
            read->result = (int)op->result;
        } else if ((size_t)op->result != op->size) {
            read->result = -ESTALE; /* the file is shorter than it was */
        }
        if (--read->ops_left == 0) {
            load_done(core, read);
        }
    }
    return count;
}

void intake_load_blocks(struct intake_core *core)
{
    struct inbox_node *node;
    while ((node = inbox_take(&core->intake->blocks)) != NULL) {
        struct load_block *block = CONTAINER_OF(node, struct load_block, node);
        struct intake_batch *ib = intake_batch_of(core, block->batch);
        ensure(core->block_bytes >= block->size);
        ensure(!block->is_needed || core->needed_bytes >= block->size);
        ensure(ib->blocks_count > 0);
        core->block_bytes -= block->size;
        core->needed_bytes -= block->is_needed ? block->size : 0;
        ib->blocks_count--;
        if (PLANTED(BLOCKS_KEPT)) {
            continue;
        }
        list_remove(&block->link);
        free(block);
    }
}

/* The disk writes into blocks, and into ops, as long as they are with it. */
void intake_load_end(struct intake_core *core)
{
    while (core->ops_away > 0) {
        if (disk_reap(core->disk) != NULL) {
            core->ops_away--;
        } else {
            core->disk->ops->wait(core->disk, INTAKE_END_WAIT_NS);
        }
    }
    struct list *link;
    while ((link = list_take_first(&core->blocks)) != NULL) {
        free(CONTAINER_OF(link, struct load_block, link));
    }
}
