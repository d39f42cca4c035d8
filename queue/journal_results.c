/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "engine/base/ensure.h"
#include "engine/base/planted.h"
#include "queue/journal_priv.h"

/*
 * Lines gather in buffers, one being filled for each batch that has any; a buffer is written when
 * it is full, a second after its first line, when its batch is finished, or when no buffer is free
 * and it is the oldest. Each batch has at most one op in flight, so its lines stay in order.
 *
 *     buffer:  free -> batch.filling (in results.filling, oldest first) -> batch.full -> free
 *     batch:   in results.wanting while it has full buffers, or a sync to do, and no op in flight
 *
 * What cannot be opened or written now is tried again a second later, and the batch is in
 * results.stalled meanwhile; its lines stay in their buffers. A sync that fails is another thing:
 * asked again it would tell nothing (its pages may be clean, and lost). The file gets another name
 * by which the next start knows that it must be written anew, and the journal fails. Only when
 * people took the batch's directory away its lines are dropped. A directory's sync that fails is
 * the same: whether the file's name is there nobody knows, and an error is told once.
 *
 * A checkpoint takes the records away from which lost lines are made again, so it waits for the
 * lines: first all that were there at its begin are written (marked_count), then each file that
 * has unsynced ones is synced, and its directory when its name may be new, a few at a time. A batch
 * that is finished needs no look any more: both are synced at its end.
 *
 * Files stay open until few of files_max are left; then the least recently used are closed,
 * and those with unsynced lines are synced first: the kernel may forget a closed file, and that it
 * could not be written, and a later sync would tell nothing. Who finds no room is `crowded`.
 *
 * A large batch is synced as it grows, and writes down how far (journal_results_mark.c).
 *
 * People may move the file away, remove it or cut it, as they do with logs. That is looked at each
 * second, and whenever it was opened: then what follows begins a new file, or goes behind the new
 * end. Nothing is written at an old place of another file.
 */
enum { FLUSH_MS = 1000, AGAIN_MS = 1000, LOOK_MS = 1000, PATH_SIZE = JOURNAL_DIRECTORY_MAX + 32 };

int journal_results_init(struct journal_core *core, const struct journal_config *config)
{
    struct journal_results *results = &core->results;
    results->files_max =
        config->results_files_max != 0 ? config->results_files_max : JOURNAL_RESULT_FILES_MAX;
    results->sync_size =
        config->results_sync_size != 0 ? config->results_sync_size : JOURNAL_SYNC_SIZE;
    list_init(&results->filling);
    list_init(&results->wanting);
    list_init(&results->stalled);
    list_init(&results->open);
    list_init(&results->crowded);
    if (config->active == NULL) {
        return 0;
    }
    int error = slab_init(&results->buffers, "result_buffers", sizeof(struct result_buffer),
                          JOURNAL_RESULT_BUFFERS);
    if (error != 0) {
        return error;
    }
    results->active =
        disk_open(core->disk, DISK_ROOT, config->active, DISK_READONLY | DISK_DIRECTORY);
    return results->active < 0 ? results->active : 0;
}

static void directory_close(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->directory >= 0) {
        disk_close(core->disk, batch->directory);
        batch->directory = -1;
    }
}

static void file_close(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->fd >= 0) {
        ensure(!batch->io.is_busy);
        ensure(core->results.open_count > 0);
        disk_close(core->disk, batch->fd);
        batch->fd = -1;
        list_remove(&batch->open);
        core->results.open_count--;
    }
    if (batch->is_closing) {
        ensure(core->results.closings_count > 0);
        core->results.closings_count--;
        batch->is_closing = false;
    }
}

/* Only after a failure is anything left to drop here. */
void journal_results_deinit(struct journal_core *core)
{
    struct journal_results *results = &core->results;
    struct list *link;
    for (uint32_t i = 0; i < core->batches_room; i++) {
        struct journal_batch *batch = core->batches[i];
        while (batch != NULL && (link = list_take_first(&batch->full)) != NULL) {
            slab_give(&results->buffers, CONTAINER_OF(link, struct result_buffer, link));
        }
        if (batch != NULL) {
            file_close(core, batch);
            directory_close(core, batch);
        }
    }
    while (results->filling.next != NULL && (link = list_take_first(&results->filling)) != NULL) {
        slab_give(&results->buffers, CONTAINER_OF(link, struct result_buffer, link));
    }
    if (results->active >= 0) {
        disk_close(core->disk, results->active);
    }
    slab_deinit(&results->buffers);
}

static void batch_wants(struct journal_core *core, struct journal_batch *batch)
{
    if (!batch->io.is_busy && !list_is_linked(&batch->wants)) {
        list_add_last(&core->results.wanting, &batch->wants);
    }
}

/* Lines of a batch that cannot be written must not take the room of all others: nothing more of it
 * is sent until they can. What is under way comes all the same. */
static void hold_if_full(struct journal_core *core, struct journal_batch *batch)
{
    bool is_full = batch->buffers_count >= JOURNAL_RESULT_HOLD_BUFFERS ||
                   core->results.buffers.count_out > JOURNAL_RESULT_BUFFERS / 2;
    if (batch->is_stalled && is_full && !batch->is_held && !batch->is_finished) {
        batch->is_held = true;
        stat_set(&batch->batch->results_held, 1);
        stat_add(&core->journal->stats.results_held, 1);
    }
}

/* The batch's next op cannot be done now. */
static void batch_stall(struct journal_core *core, struct journal_batch *batch, int error)
{
    struct journal_stats *stats = &core->journal->stats;
    ensure(error < 0);
    ensure(!batch->io.is_busy);
    ensure(!list_is_linked(&batch->wants));
    stat_set(&stats->results_error, (uint64_t)-error);
    stat_add(&stats->results_waiting, batch->is_stalled ? 0 : 1);
    batch->is_stalled = true;
    batch->again_at = mono_add_ms(core->now, AGAIN_MS);
    list_add_last(&core->results.stalled, &batch->wants);
    hold_if_full(core, batch);
}

static void batch_recover(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->is_stalled) {
        batch->is_stalled = false;
        stat_sub(&core->journal->stats.results_waiting, 1);
    }
    if (batch->is_held) {
        batch->is_held = false;
        stat_set(&batch->batch->results_held, 0);
        stat_sub(&core->journal->stats.results_held, 1);
        struct stat_counter *releases = &core->journal->stats.results_releases;
        stat_publish(releases, stat_read_xcore(releases) + 1);
    }
}

/* The buffer being filled is filled no more. */
static void filling_end(struct journal_core *core, struct journal_batch *batch)
{
    struct result_buffer *buffer = batch->filling;
    if (buffer != NULL) {
        ensure(buffer->batch == batch);
        ensure(buffer->size > 0);
        batch->filling = NULL;
        list_remove(&buffer->link);
        list_add_last(&batch->full, &buffer->link);
        batch_wants(core, batch);
    }
}

static bool has_room(const struct result_buffer *buffer, size_t size)
{
    return buffer->size + size <= JOURNAL_RESULT_BUFFER_SIZE &&
           buffer->lines_count < JOURNAL_RESULT_LINES_MAX;
}

/* While a batch stalls each second would take one more buffer of it: the last one is filled on. */
static bool filling_resume(struct journal_core *core, struct journal_batch *batch, size_t size)
{
    if (!batch->is_stalled || list_is_empty(&batch->full)) {
        return false;
    }
    struct result_buffer *buffer = CONTAINER_OF(batch->full.prev, struct result_buffer, link);
    bool is_being_written = batch->io.is_busy && batch->full.next == &buffer->link;
    if (is_being_written || !has_room(buffer, size)) {
        return false;
    }
    list_remove(&buffer->link);
    buffer->since = core->now;
    batch->filling = buffer;
    list_add_last(&core->results.filling, &buffer->link);
    return true;
}

static bool filling_begin(struct journal_core *core, struct journal_batch *batch, size_t size)
{
    struct journal_results *results = &core->results;
    ensure(batch->filling == NULL);
    if (filling_resume(core, batch, size)) {
        return true;
    }
    struct result_buffer *buffer = slab_take(&results->buffers);
    if (buffer == NULL) {
        if (!list_is_empty(&results->filling)) {
            filling_end(core,
                        CONTAINER_OF(results->filling.next, struct result_buffer, link)->batch);
        }
        return false;
    }
    list_init(&buffer->link);
    buffer->batch = batch;
    buffer->size = 0;
    buffer->lines_count = 0;
    buffer->since = core->now;
    buffer->mark = results->mark;
    batch->filling = buffer;
    batch->buffers_count++;
    list_add_last(&results->filling, &buffer->link);
    hold_if_full(core, batch);
    return true;
}

bool journal_results_add(struct journal_core *core, struct journal_batch *batch, uint32_t ordinal,
                         struct span line)
{
    ensure(line.size <= JOURNAL_LINE_MAX);
    ensure(!batch->is_finishing);
    if (core->results.active < 0) {
        return true;
    }
    if (batch->filling != NULL && !has_room(batch->filling, line.size)) {
        filling_end(core, batch);
    }
    if (batch->filling == NULL && !filling_begin(core, batch, line.size)) {
        return false;
    }
    struct result_buffer *buffer = batch->filling;
    ensure(buffer->size + line.size <= JOURNAL_RESULT_BUFFER_SIZE);
    memcpy(buffer->bytes + buffer->size, line.at, line.size);
    buffer->size += (uint32_t)line.size;
    buffer->ordinals[buffer->lines_count++] = ordinal;
    return true;
}

/* On the first opening: where to go on, and behind a whole line. */
static int file_measure(struct journal_core *core, struct journal_batch *batch)
{
    struct disk_stat stat;
    char last = '\n';
    int64_t result = disk_stat_fd(core->disk, batch->fd, &stat);
    if (result == 0 && stat.kind != DISK_KIND_FILE) {
        result = -EINVAL;
    }
    if (result == 0 && stat.size > 0) {
        result = disk_read(core->disk, batch->fd, &last, 1, stat.size - 1);
    }
    if (result >= 0 && last != '\n') {
        result = disk_write(core->disk, batch->fd, "\n", 1, stat.size);
        stat.size++;
    }
    if (result < 0) {
        return (int)result;
    }
    batch->offset = stat.size;
    batch->inode = stat.inode;
    batch->has_results = true;
    journal_mark_begin(core, batch, stat.inode);
    return 0;
}

/* A file that is closed with lines that are not synced may be forgotten by the kernel, and with it
 * that they could not be written: so it is synced first, in front of the need for its room. */
static void closing_begin(struct journal_core *core, struct journal_batch *batch)
{
    batch->is_closing = true;
    core->results.closings_count++;
    list_remove(&batch->wants);
    batch_wants(core, batch);
}

/* True: one more may be opened. */
static bool files_make_room(struct journal_core *core)
{
    struct journal_results *results = &core->results;
    struct list *at = results->open.next;
    while (at != &results->open &&
           results->open_count + results->files_max / JOURNAL_RESULT_SPARE_SHARE >=
               results->files_max) {
        struct journal_batch *batch = CONTAINER_OF(at, struct journal_batch, open);
        at = at->next;
        if (batch->io.is_busy || batch->is_closing) {
            continue;
        }
        if (!batch->is_unsynced) {
            file_close(core, batch);
        } else if (results->closings_count < JOURNAL_RESULT_CLOSINGS_MAX) {
            closing_begin(core, batch);
        }
    }
    return results->open_count < results->files_max;
}

static void path_put(char *path, const struct journal_batch *batch, const char *name)
{
    struct writer writer = writer_of(path, PATH_SIZE);
    writer_put(&writer, span_of_text(batch->name));
    writer_put(&writer, span_of_text(name));
    writer_put_byte(&writer, '\0');
    ensure(!writer.is_full);
}

static int file_open(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->fd >= 0) {
        list_remove(&batch->open);
        list_add_last(&core->results.open, &batch->open);
        return 0;
    }
    char path[PATH_SIZE];
    path_put(path, batch, "/" JOURNAL_RESULTS_NAME);
    int fd = disk_open(core->disk, core->results.active, path, DISK_READWRITE | DISK_CREATE);
    if (fd < 0) {
        return fd;
    }
    batch->fd = fd;
    batch->look_at = core->now;
    list_add_last(&core->results.open, &batch->open);
    core->results.open_count++;
    int error = batch->has_results ? 0 : file_measure(core, batch);
    if (error != 0) {
        file_close(core, batch);
    }
    return error;
}

/* When the whole directory is gone the open file has gone with it. */
static bool file_is_ours(struct journal_core *core, struct journal_batch *batch)
{
    if (mono_before(core->now, batch->look_at)) {
        return true;
    }
    batch->look_at = mono_add_ms(core->now, LOOK_MS);
    char path[PATH_SIZE];
    path_put(path, batch, "/" JOURNAL_RESULTS_NAME);
    struct disk_stat stat;
    int error = disk_stat_at(core->disk, core->results.active, path, &stat);
    if (error == -ENOENT) {
        return disk_stat_at(core->disk, core->results.active, batch->name, &stat) != 0;
    }
    return error != 0 || (stat.inode == batch->inode && stat.size >= batch->offset);
}

/* It is synced, if it has to be, and closed; the next opening measures what is there then. The
 * index goes first, and durably: the inode may come again. Rare, so it may hold up a group. */
static void file_leave(struct journal_core *core, struct journal_batch *batch)
{
    if (batch->mark != NULL) {
        int directory = disk_open(core->disk, core->results.active, batch->name,
                                  DISK_READONLY | DISK_DIRECTORY);
        if (directory < 0) {
            batch_stall(core, batch, directory);
            return;
        }
        journal_mark_end(core, batch, true);
        int error = disk_sync(core->disk, directory);
        disk_close(core->disk, directory);
        if (error != 0) {
            journal_fail(core, JOURNAL_FAILURE_RESULTS, error, batch->number);
            return;
        }
    }
    batch->has_results = false;
    batch->is_name_durable = false;
    if (batch->is_unsynced) {
        closing_begin(core, batch);
    } else {
        file_close(core, batch);
        batch_wants(core, batch);
    }
}

static void full_drop(struct journal_core *core, struct journal_batch *batch)
{
    struct journal_results *results = &core->results;
    struct list *link = list_take_first(&batch->full);
    struct result_buffer *buffer = CONTAINER_OF(link, struct result_buffer, link);
    ensure(buffer->batch == batch);
    ensure(batch->buffers_count > 0);
    batch->buffers_count--;
    if (buffer->mark != results->mark) {
        ensure(results->marked_count > 0);
        results->marked_count--;
    }
    slab_give(&results->buffers, buffer);
}

static void sync_end(struct journal_core *core, struct journal_batch *batch)
{
    directory_close(core, batch);
    if (batch->is_syncing) {
        batch->is_syncing = false;
        ensure(core->results.syncs_count > 0);
        core->results.syncs_count--;
    }
}

static void batch_end(struct journal_core *core, struct journal_batch *batch)
{
    ensure(list_is_empty(&batch->full));
    ensure(!batch->is_unsynced);
    ensure(!batch->is_syncing);
    batch_recover(core, batch);
    file_close(core, batch);
    journal_mark_end(core, batch, true);
    ensure(core->results.unfinished_count > 0);
    core->results.unfinished_count--;
    journal_batch_finished(core, batch);
}

void journal_results_submit(struct journal_core *core, struct journal_batch *batch,
                            const struct disk_op *op)
{
    ensure(core->results.writes_count < JOURNAL_RESULT_WRITES_MAX);
    core->results.writes_count++;
    batch->io.op = *op;
    batch->io.batch = batch;
    journal_submit(core, &batch->io, JOURNAL_IO_RESULTS);
}

/* People took the batch's directory away: there is nobody to be told. */
static void batch_forsake(struct journal_core *core, struct journal_batch *batch)
{
    while (!list_is_empty(&batch->full)) {
        full_drop(core, batch);
        stat_add(&core->journal->stats.log_failures, 1);
    }
    file_close(core, batch);
    journal_mark_end(core, batch, false);
    batch->has_results = false;
    batch->is_unsynced = false;
    batch_recover(core, batch);
}

/* The next sync that a checkpoint or the batch's end waits for; false: there is none any more. */
static bool sync_go_on(struct journal_core *core, struct journal_batch *batch)
{
    int fd = batch->fd;
    if (!batch->has_results || (!batch->is_unsynced && batch->is_name_durable)) {
        sync_end(core, batch);
        return false;
    }
    if (!batch->is_unsynced) {
        fd = disk_open(core->disk, core->results.active, batch->name,
                       DISK_READONLY | DISK_DIRECTORY);
        if (fd == -ENOENT) {
            batch_forsake(core, batch);
            sync_end(core, batch);
            return false;
        }
        if (fd < 0) {
            batch_stall(core, batch, fd);
            return true;
        }
        batch->directory = fd;
    }
    enum disk_verb verb = batch->directory >= 0 ? DISK_SYNC : DISK_DATASYNC;
    journal_results_submit(core, batch, &(struct disk_op){.verb = verb, .fd = fd});
    return true;
}

static void write_submit(struct journal_core *core, struct journal_batch *batch)
{
    struct result_buffer *buffer = CONTAINER_OF(batch->full.next, struct result_buffer, link);
    journal_results_submit(core, batch,
                           &(struct disk_op){.verb = DISK_WRITE,
                                             .fd = batch->fd,
                                             .at = buffer->bytes,
                                             .size = buffer->size,
                                             .offset = batch->offset});
}

/* True: an op is under way in front of all others, to close the file or to tell how far it is
 * durable. */
static bool file_go_on(struct journal_core *core, struct journal_batch *batch)
{
    bool is_due = journal_mark_is_due(batch);
    if (batch->fd >= 0 && batch->is_unsynced && (batch->is_closing || is_due)) {
        journal_results_submit(core, batch,
                               &(struct disk_op){.verb = DISK_DATASYNC, .fd = batch->fd});
        return true;
    }
    if (batch->is_closing) {
        file_close(core, batch);
    }
    return is_due && journal_mark_go_on(core, batch);
}

/* The batch's next op. */
static void batch_go_on(struct journal_core *core, struct journal_batch *batch)
{
    ensure(!batch->io.is_busy);
    ensure(!batch->is_finished);
    if (file_go_on(core, batch)) {
        return;
    }
    bool is_needed = !list_is_empty(&batch->full) || batch->is_unsynced;
    if (is_needed && batch->fd < 0 && !files_make_room(core)) {
        list_add_last(&core->results.crowded, &batch->wants);
        return;
    }
    int error = is_needed ? file_open(core, batch) : 0;
    if (error == -ENOENT) {
        batch_forsake(core, batch);
    } else if (error != 0 && !PLANTED(RESULTS_DROPPED)) {
        batch_stall(core, batch, error);
        return;
    } else if (error != 0) {
        batch_forsake(core, batch);
    }
    if (batch->is_syncing && sync_go_on(core, batch)) {
        return;
    }
    if (!list_is_empty(&batch->full) && !file_is_ours(core, batch)) {
        file_leave(core, batch);
    } else if (!list_is_empty(&batch->full)) {
        write_submit(core, batch);
    } else if (batch->is_finishing && !sync_go_on(core, batch)) {
        batch_end(core, batch);
    }
}

/* What reads well may be lost all the same, for as long as the kernel keeps its pages: so long
 * lives the new name, too, which needs no sync of its own. */
static void sync_failed(struct journal_core *core, struct journal_batch *batch, int error)
{
    if (core->is_abandoned) {
        return;
    }
    char path[PATH_SIZE];
    char doubted[PATH_SIZE];
    path_put(path, batch, "/" JOURNAL_RESULTS_NAME);
    path_put(doubted, batch, "/" JOURNAL_RESULTS_DOUBTED_NAME);
    (void)disk_rename(core->disk, core->results.active, path, core->results.active, doubted);
    journal_fail(core, JOURNAL_FAILURE_RESULTS, error, batch->number);
}

static void io_failed(struct journal_core *core, struct journal_batch *batch)
{
    int error = (int)batch->io.op.result;
    if (batch->io.op.verb == DISK_DATASYNC || batch->io.op.verb == DISK_SYNC) {
        sync_failed(core, batch, error);
    } else {
        batch_stall(core, batch, error);
    }
}

static void op_done(struct journal_core *core, struct journal_batch *batch)
{
    const struct disk_op *op = &batch->io.op;
    if (op->verb == DISK_WRITE || list_is_empty(&batch->full)) {
        batch_recover(core, batch);
    }
    if (op->verb == DISK_WRITE) {
        struct list *first = batch->full.next;
        journal_mark_add(core, batch, CONTAINER_OF(first, struct result_buffer, link),
                         batch->offset);
        batch->offset += op->size;
        batch->is_unsynced = true;
        full_drop(core, batch);
    } else if (op->verb == DISK_DATASYNC) {
        batch->is_unsynced = false;
    } else {
        ensure(op->verb == DISK_SYNC);
        batch->is_name_durable = true;
    }
}

void journal_results_on_io(struct journal_core *core, struct journal_io *io)
{
    struct journal_batch *batch = io->batch;
    ensure(core->results.writes_count > 0);
    core->results.writes_count--;
    directory_close(core, batch);
    if (!journal_mark_on_io(core, batch)) {
        if (io->op.result < 0) {
            io_failed(core, batch);
            return;
        }
        op_done(core, batch);
    }
    if (!list_is_empty(&batch->full) || batch->is_finishing || batch->is_syncing ||
        batch->is_closing || journal_mark_is_due(batch)) {
        batch_wants(core, batch);
    }
}

void journal_results_finish(struct journal_core *core, struct journal_batch *batch)
{
    ensure(batch->is_finishing);
    ensure(!batch->is_finished);
    core->results.unfinished_count++;
    filling_end(core, batch);
    if (!batch->io.is_busy && list_is_empty(&batch->full) && !batch->has_results) {
        batch_end(core, batch);
    } else {
        batch_wants(core, batch);
    }
}

/* Its end may be syncing the name at this moment: that is waited for, too. */
static bool is_to_sync(const struct journal_batch *batch)
{
    return !batch->is_finished &&
           (batch->is_unsynced || (batch->has_results && !batch->is_name_durable));
}

/* A few more of the files that the last mark waits for. One may be syncing since an earlier mark:
 * each batch has one op in flight, so it is not done before all that is written is synced. */
static void syncs_begin(struct journal_core *core)
{
    struct journal_results *results = &core->results;
    while (results->marked_count == 0 && results->sync_next < results->sync_end &&
           results->syncs_count < JOURNAL_RESULT_SYNCS_MAX) {
        struct journal_batch *batch = core->batches[results->sync_next++];
        if (batch != NULL && is_to_sync(batch) && !batch->is_syncing) {
            batch->is_syncing = true;
            results->syncs_count++;
            batch_wants(core, batch);
        }
    }
}

/* Those that wait for room, as far as there is some by now. */
static void crowd_go_on(struct journal_core *core)
{
    struct journal_results *results = &core->results;
    if (list_is_empty(&results->crowded) || !files_make_room(core)) {
        return;
    }
    for (uint32_t i = results->open_count; i < results->files_max; i++) {
        struct list *link = list_take_first(&results->crowded);
        if (link == NULL) {
            return;
        }
        list_add_last(&results->wanting, link);
    }
}

void journal_results_step(struct journal_core *core, bool is_all)
{
    struct journal_results *results = &core->results;
    while (!list_is_empty(&results->filling)) {
        struct result_buffer *buffer =
            CONTAINER_OF(results->filling.next, struct result_buffer, link);
        if (!is_all && mono_before(core->now, mono_add_ms(buffer->since, FLUSH_MS))) {
            break;
        }
        filling_end(core, buffer->batch);
    }
    crowd_go_on(core);
    struct list *node = results->stalled.next;
    while (node != &results->stalled) {
        struct journal_batch *batch = CONTAINER_OF(node, struct journal_batch, wants);
        node = node->next;
        if (mono_before(core->now, batch->again_at)) {
            break;
        }
        list_remove(&batch->wants);
        list_add_last(&results->wanting, &batch->wants);
    }
    for (;;) {
        syncs_begin(core);
        bool has_room = results->writes_count < JOURNAL_RESULT_WRITES_MAX;
        struct list *link = has_room ? list_take_first(&results->wanting) : NULL;
        if (link == NULL) {
            break;
        }
        batch_go_on(core, CONTAINER_OF(link, struct journal_batch, wants));
    }
}

void journal_results_mark(struct journal_core *core)
{
    struct journal_results *results = &core->results;
    if (results->active < 0) {
        return;
    }
    results->mark++;
    results->marked_count = results->buffers.count_out;
    results->sync_next = 0;
    results->sync_end = core->batches_room;
    journal_results_step(core, true);
}

bool journal_results_is_past_mark(const struct journal_core *core)
{
    const struct journal_results *results = &core->results;
    return results->marked_count == 0 && results->sync_next == results->sync_end &&
           results->syncs_count == 0;
}

struct mono_time journal_results_deadline(const struct journal_core *core)
{
    const struct list *filling = &core->results.filling;
    const struct list *stalled = &core->results.stalled;
    struct mono_time deadline = MONO_NEVER;
    if (!list_is_empty(filling)) {
        const struct result_buffer *buffer =
            CONTAINER_OF(filling->next, struct result_buffer, link);
        deadline = mono_add_ms(buffer->since, FLUSH_MS);
    }
    if (!list_is_empty(stalled)) {
        deadline = mono_earlier(deadline,
                                CONTAINER_OF(stalled->next, struct journal_batch, wants)->again_at);
    }
    return deadline;
}

bool journal_results_are_written(const struct journal_core *core)
{
    return list_is_empty(&core->results.filling) && list_is_empty(&core->results.wanting) &&
           list_is_empty(&core->results.stalled) && list_is_empty(&core->results.crowded) &&
           core->results.unfinished_count == 0;
}
