/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "queue/journal_priv.h"

/*
 * How far results.ndjson of a large batch is durable. Each results_sync_size bytes its lines are
 * synced, and a block of the index is written that says so; it is synced, too, so that what the
 * power's failure costs is bounded: the start reads the lines behind the last block but one.
 *
 *            a stretch is full     it is synced      written           synced, or any failure
 *      OPEN ------------------> DUE ----------> WRITING -----> SYNCING -----------------> OPEN
 *
 * A block that cannot be written is dropped: its stretch is read by the next start. The lines of a
 * block are those that were written since the one before, in the order of the file.
 */
enum { LINE_SIZE = 128, PATH_SIZE = JOURNAL_DIRECTORY_MAX + 32 };

static const uint32_t ALLOWED[] = {
    [RESULT_MARK_OPEN] = 1u << RESULT_MARK_DUE,
    [RESULT_MARK_DUE] = 1u << RESULT_MARK_WRITING | 1u << RESULT_MARK_OPEN,
    [RESULT_MARK_WRITING] = 1u << RESULT_MARK_SYNCING | 1u << RESULT_MARK_OPEN,
    [RESULT_MARK_SYNCING] = 1u << RESULT_MARK_OPEN,
};

static void mark_enter(struct result_mark *mark, enum result_mark_state state)
{
    ensure((ALLOWED[mark->state] >> state & 1) != 0);
    mark->state = state;
}

/* Its lines will be two stretches and more: less is of no use. */
static bool is_large(const struct journal_core *core, const struct journal_batch *batch)
{
    return batch->records_count >= core->results.sync_size / LINE_SIZE;
}

void journal_mark_begin(struct journal_core *core, struct journal_batch *batch, uint64_t inode)
{
    ensure(batch->mark == NULL);
    batch->mark = is_large(core, batch) ? malloc(sizeof(*batch->mark)) : NULL;
    if (batch->mark != NULL) {
        batch->mark->state = RESULT_MARK_OPEN;
        batch->mark->block = (struct journal_index_block){.inode = inode};
        batch->mark->fd = -1;
        batch->mark->offset = 0;
    }
}

static void path_put(char *path, const struct journal_batch *batch)
{
    struct writer writer = writer_of(path, PATH_SIZE);
    writer_put(&writer, span_of_text(batch->name));
    writer_put(&writer, SPAN("/" JOURNAL_RESULTS_INDEX_NAME));
    writer_put_byte(&writer, '\0');
    ensure(!writer.is_full);
}

static void index_close(struct journal_core *core, struct result_mark *mark)
{
    if (mark->fd >= 0) {
        disk_close(core->disk, mark->fd);
        mark->fd = -1;
    }
}

void journal_mark_end(struct journal_core *core, struct journal_batch *batch, bool is_over)
{
    if (batch->mark != NULL) {
        index_close(core, batch->mark);
        free(batch->mark);
        batch->mark = NULL;
    }
    if (is_over && core->results.active >= 0 && is_large(core, batch)) {
        char path[PATH_SIZE];
        path_put(path, batch);
        (void)disk_unlink(core->disk, core->results.active, path);
    }
}

void journal_mark_add(struct journal_core *core, struct journal_batch *batch,
                      const struct result_buffer *buffer, uint64_t begin)
{
    struct result_mark *mark = batch->mark;
    if (mark == NULL) {
        return;
    }
    struct journal_index_block *block = &mark->block;
    ensure(mark->state == RESULT_MARK_OPEN);
    if (block->count == 0) {
        block->begin = begin;
    }
    for (uint32_t i = 0; i < buffer->lines_count; i++) {
        journal_index_ordinal_put(mark->bytes, block->count++, buffer->ordinals[i]);
    }
    block->end = begin + buffer->size;
    if (block->end - block->begin >= core->results.sync_size ||
        block->count > JOURNAL_INDEX_LINES_MAX - JOURNAL_RESULT_LINES_MAX) {
        mark_enter(mark, RESULT_MARK_DUE);
    }
}

bool journal_mark_is_due(const struct journal_batch *batch)
{
    return batch->mark != NULL && batch->mark->state != RESULT_MARK_OPEN;
}

static void block_end(struct journal_core *core, struct result_mark *mark)
{
    index_close(core, mark);
    mark->block.count = 0;
    mark_enter(mark, RESULT_MARK_OPEN);
}

/* Behind what an engine before has left, of which the last block may be torn. */
static bool index_open(struct journal_core *core, const struct journal_batch *batch)
{
    struct result_mark *mark = batch->mark;
    char path[PATH_SIZE];
    struct disk_stat stat = {.size = 0};
    path_put(path, batch);
    mark->fd = disk_open(core->disk, core->results.active, path, DISK_READWRITE | DISK_CREATE);
    /* Somebody else's pipe would hold up a write for ever, and a link would lead it elsewhere. */
    if (mark->fd >= 0 && (disk_stat_fd(core->disk, mark->fd, &stat) != 0 ||
                          stat.kind != DISK_KIND_FILE || stat.links_count != 1)) {
        index_close(core, mark);
    }
    if (mark->offset == 0) {
        mark->offset =
            (stat.size + JOURNAL_INDEX_SECTOR - 1) / JOURNAL_INDEX_SECTOR * JOURNAL_INDEX_SECTOR;
    }
    return mark->fd >= 0;
}

bool journal_mark_go_on(struct journal_core *core, struct journal_batch *batch)
{
    struct result_mark *mark = batch->mark;
    ensure(mark->state == RESULT_MARK_DUE || mark->state == RESULT_MARK_SYNCING);
    struct disk_op op = {.verb = DISK_DATASYNC};
    if (mark->state == RESULT_MARK_DUE) {
        ensure(!batch->is_unsynced);
        if (!index_open(core, batch)) {
            block_end(core, mark);
            return false;
        }
        size_t size = journal_index_close(mark->bytes, &mark->block, batch->number);
        op = (struct disk_op){
            .verb = DISK_WRITE, .at = mark->bytes, .size = size, .offset = mark->offset};
        mark_enter(mark, RESULT_MARK_WRITING);
    }
    op.fd = mark->fd;
    journal_results_submit(core, batch, &op);
    return true;
}

bool journal_mark_on_io(struct journal_core *core, struct journal_batch *batch)
{
    struct result_mark *mark = batch->mark;
    if (mark == NULL || mark->state < RESULT_MARK_WRITING) {
        return false;
    }
    bool is_written = mark->state == RESULT_MARK_WRITING && batch->io.op.result >= 0;
    if (is_written) {
        mark->offset += batch->io.op.size;
        mark_enter(mark, RESULT_MARK_SYNCING);
    } else {
        block_end(core, mark);
    }
    return true;
}
