/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/base/text.h"
#include "engine/intake_priv.h"

/*
 * A file of a batch that was accepted is not what it was: another time of change, another size. The
 * batch is paused, so that its recipients wait aside and keep nobody else's back, while its bytes
 * are held against the content's hash, a part a step, one batch at a time:
 *
 *   the same bytes     somebody touched it: the batch goes on, unless people have paused it
 *   other bytes        it stays paused, which stops its sending and its expiry, and people are
 *                      told. `resume` looks again
 *
 * Neither pause is kept on disk: another start scans the batch anew, and puts it into hold/ when it
 * is not what was accepted.
 */

struct intake_check {
    struct intake_batch *ib;
    uint32_t file_index;
    uint64_t offset;         /* in that file */
    struct disk_stat *stats; /* of all files as the look began */
    struct XXH3_state_s *hash;
    char *block;
};

static void check_free(struct intake_check *check)
{
    (void)XXH3_freeState(check->hash);
    free(check->stats);
    free(check->block);
    free(check);
}

static struct intake_check *check_make(struct intake_batch *ib)
{
    struct intake_check *check = calloc(1, sizeof(*check));
    if (check == NULL) {
        return NULL;
    }
    check->ib = ib;
    check->stats = calloc(ib->stream->files_count, sizeof(*check->stats));
    check->hash = XXH3_createState();
    check->block = malloc(INTAKE_BLOCK_SIZE);
    if (check->stats == NULL || check->hash == NULL || check->block == NULL) {
        check_free(check);
        return NULL;
    }
    (void)XXH3_64bits_reset_withSeed(check->hash, ib->files_hash);
    return check;
}

static bool is_same_stat(const struct disk_stat *one, const struct disk_stat *other)
{
    return one->inode == other->inode && one->size == other->size &&
           one->mtime_ns == other->mtime_ns;
}

/* ret_name: the first file that is no more as long as it was; NULL: none. */
static int sizes_take(struct intake_core *core, struct intake_check *check, const char **ret_name)
{
    const struct spool_stream *stream = check->ib->stream;
    *ret_name = NULL;
    for (uint32_t i = 0; i < stream->files_count; i++) {
        const struct spool_file *file = &stream->files[i].file;
        int result = disk_stat_fd(core->disk, file->fd, &check->stats[i]);
        if (result != 0) {
            return result;
        }
        if (check->stats[i].size != file->stat.size) {
            *ret_name = stream->files[i].name;
            return 0;
        }
    }
    return 0;
}

/* While they were read somebody went on writing. */
static const char *moved_since(struct intake_core *core, const struct intake_check *check)
{
    const struct spool_stream *stream = check->ib->stream;
    for (uint32_t i = 0; i < stream->files_count; i++) {
        struct disk_stat stat;
        if (disk_stat_fd(core->disk, stream->files[i].file.fd, &stat) == 0 &&
            !is_same_stat(&stat, &check->stats[i])) {
            return stream->files[i].name;
        }
    }
    return NULL;
}

static void tell(struct intake_core *core, const struct batch *batch, const char *file, int error)
{
    char line[INTAKE_WORDS_SIZE / 2];
    struct writer writer = writer_of(line, sizeof(line) - 1);
    odd(batch_changed);
    writer_put_format(&writer, "active/%s/", batch->directory);
    text_put_escaped(&writer, span_of_text(file));
    if (error != 0) {
        writer_put_format(&writer, ": it was touched, and cannot be read: %s. ", strerror(-error));
    } else {
        writer_put(&writer, SPAN(": it is not the file any more that was accepted. "));
    }
    writer_put_format(
        &writer,
        "Nothing more of the batch is sent, and none of it expires. Put the file back "
        "as it was and order in/ctl/%s.resume, or order %s.cancel; at the next start "
        "the batch goes to hold/ as long as the file is another",
        batch->manifest->id, batch->manifest->id);
    *writer.at = '\0';
    intake_words_add(core, line);
    intake_words_send(core);
}

static bool is_cancelled(const struct batch *batch)
{
    return (stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0;
}

static void check_drop(struct intake_core *core)
{
    if (core->check != NULL) {
        check_free(core->check);
        core->check = NULL;
    }
}

/* changed: the file to be put right; NULL: none. */
static void check_end(struct intake_core *core, const char *changed, int error)
{
    struct intake_batch *ib = core->check->ib;
    list_remove(&ib->touched);
    if (changed != NULL) {
        stat_set(&ib->batch->orders, BATCH_PAUSED);
        ib->is_pause_own = false;
        tell(core, ib->batch, changed, error);
        check_drop(core);
        return;
    }
    odd(batch_touched);
    for (uint32_t i = 0; i < ib->stream->files_count; i++) {
        ib->stream->files[i].file.stat = core->check->stats[i];
    }
    if (ib->is_pause_own) {
        ib->is_pause_own = false;
        stat_set(&ib->batch->orders, 0);
        intake_orders_resume(core);
    }
    check_drop(core);
}

/* For want of memory there is no verdict: another look a little later. */
static void look_again(struct intake_core *core)
{
    odd(batch_not_looked_at);
    core->changed_at = mono_add_ms(clock_mono(core->engine->clock), INTAKE_RESCAN_MS);
    check_drop(core);
}

static void check_begin(struct intake_core *core)
{
    struct intake_batch *ib = CONTAINER_OF(core->touched.next, struct intake_batch, touched);
    const char *changed;
    core->check = check_make(ib);
    if (core->check == NULL || sizes_take(core, core->check, &changed) != 0) {
        look_again(core);
    } else if (changed != NULL) {
        check_end(core, changed, 0);
    }
}

/* The one to be put right. */
static const char *changed_name(struct intake_core *core, const struct spool_stream *stream)
{
    for (uint32_t i = 0; i < stream->files_count; i++) {
        if (spool_file_check(&core->spool, &stream->files[i].file) == -ESTALE) {
            return stream->files[i].name;
        }
    }
    return stream->files[0].name;
}

/* A block of the stream; at its end the verdict. */
static uint64_t check_some(struct intake_core *core)
{
    struct intake_check *check = core->check;
    const struct spool_stream *stream = check->ib->stream;
    const struct spool_stream_file *file = &stream->files[check->file_index];
    uint64_t left = file->file.stat.size - check->offset;
    size_t size = left < INTAKE_BLOCK_SIZE ? (size_t)left : INTAKE_BLOCK_SIZE;
    if (size > 0) {
        int64_t got = disk_read(core->disk, file->file.fd, check->block, size, check->offset);
        if (got < 0) {
            if (intake_is_want((int)got)) {
                look_again(core);
            } else {
                check_end(core, file->name, (int)got);
            }
            return size;
        }
        if ((size_t)got != size) {
            check_end(core, file->name, 0);
            return size;
        }
        (void)XXH3_64bits_update(check->hash, check->block, size);
        check->offset += size;
        return size;
    }
    check->offset = 0;
    if (++check->file_index == stream->files_count) {
        bool is_same = XXH3_64bits_digest(check->hash) == check->ib->accept.content_hash;
        check_end(core, is_same ? moved_since(core, check) : changed_name(core, stream), 0);
    }
    return 0;
}

int intake_changed_check(struct intake_core *core, const struct intake_batch *ib)
{
    int result = 0;
    for (uint32_t i = 0; i < ib->stream->files_count && result == 0; i++) {
        result = spool_file_check(&core->spool, &ib->stream->files[i].file);
    }
    return result;
}

bool intake_changed_take(struct intake_core *core, struct intake_batch *ib, struct load *load)
{
    uint64_t orders = stat_read_xcore(&ib->batch->orders);
    if ((orders & BATCH_CANCELLED) != 0) {
        return false;
    }
    if ((orders & BATCH_PAUSED) == 0) {
        stat_set(&ib->batch->orders, BATCH_PAUSED);
        ib->is_pause_own = true;
        list_remove(&ib->touched); /* people may have resumed it while it waits here */
        list_add_last(&core->touched, &ib->touched);
    }
    load->result = -ENOBUFS;
    inbox_push_xcore(load->reply_to, &load->node);
    return true;
}

bool intake_changed_some(struct intake_core *core)
{
    bool is_resting = mono_before(clock_mono(core->engine->clock), core->changed_at);
    if (list_is_empty(&core->touched) || (core->check == NULL && is_resting)) {
        return false;
    }
    if (core->check == NULL) {
        check_begin(core);
    }
    for (uint64_t done = 0; core->check != NULL && done < INTAKE_BYTES_STEP_MAX;) {
        if (is_cancelled(core->check->ib->batch)) {
            intake_changed_drop(core, core->check->ib);
        } else {
            done += check_some(core);
        }
    }
    return true;
}

void intake_changed_drop(struct intake_core *core, struct intake_batch *ib)
{
    list_remove(&ib->touched);
    if (core->check != NULL && core->check->ib == ib) {
        check_drop(core);
    }
}
