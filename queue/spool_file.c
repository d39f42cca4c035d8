/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a batch: opened with care, read, and the rejects that are written beside them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/recipient.h"
#include "queue/spool_priv.h"

/* Four clipped texts of which each byte takes six (\u001f), and the words between them. */
#define REJECT_LINE_MAX (4 * 6 * SPOOL_RECORD_SHOWN_MAX + 256)
_Static_assert(REJECT_LINE_MAX < (int)SPOOL_REJECTS_BUFFER, "an empty buffer takes any line");

/* Errors that the input is to blame for, not the disk. */
static bool errno_is_input(int error)
{
    return error == -ENOENT || error == -ELOOP || error == -EACCES || error == -EPERM ||
           error == -ENOTDIR || error == -ENXIO || error == -ENODEV || error == -EXDEV ||
           error == -EISDIR;
}

/* Whoever made the batch made its files: nobody gets another one's text sent by moving it there.
 * pickup/ is nobody's batch: who may write into it may submit. */
static int owner_check(struct spool *spool, int batch_fd, const struct disk_stat *stat,
                       const char *name, struct spool_problem *ret_problem)
{
    struct disk_stat directory;
    int result = disk_stat_fd(spool->disk, batch_fd, &directory);
    if (result == 0 && directory.owner_uid != stat->owner_uid) {
        spool_problem_set(ret_problem, "%s: belongs to user %u, and the batch to user %u", name,
                          (unsigned)stat->owner_uid, (unsigned)directory.owner_uid);
        result = -EINVAL;
    }
    return result;
}

int spool_file_open(struct spool *spool, int batch_fd, const char *name, uint64_t size_max,
                    struct spool_file *ret_file, struct spool_problem *ret_problem)
{
    struct spool_file file;
    file.fd = disk_open(spool->disk, batch_fd, name, DISK_READONLY);
    int result = file.fd;
    if (result >= 0) {
        result = disk_stat_fd(spool->disk, file.fd, &file.stat);
        if (result == 0) {
            result = spool_stat_check(spool, &file.stat, false, size_max, name, ret_problem);
        }
        if (result == 0 && batch_fd != spool->places[SPOOL_PICKUP]) {
            result = owner_check(spool, batch_fd, &file.stat, name, ret_problem);
        }
        if (result == 0) {
            *ret_file = file;
            return 0;
        }
        disk_close(spool->disk, file.fd);
        if (result == -EINVAL) {
            return result;
        }
    }
    spool_problem_set(ret_problem, "%s: %s", name, spool_errno_words(result));
    return errno_is_input(result) ? -EINVAL : result;
}

int spool_read_whole(struct spool *spool, int fd, uint64_t size, char **ret_bytes)
{
    char *bytes = malloc(size > 0 ? size : 1);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    int64_t got = disk_read(spool->disk, fd, bytes, size, 0);
    if (got != (int64_t)size) {
        free(bytes);
        return got < 0 ? (int)got : -ESTALE;
    }
    *ret_bytes = bytes;
    return 0;
}

int spool_file_read(struct spool *spool, int batch_fd, const char *name, uint64_t size_max,
                    struct writer *ret_content, struct spool_problem *ret_problem)
{
    ensure((uint64_t)(ret_content->end - ret_content->at) >= size_max);
    struct spool_file file;
    int result = spool_file_open(spool, batch_fd, name, size_max, &file, ret_problem);
    if (result != 0) {
        return result;
    }
    int64_t got = disk_read(spool->disk, file.fd, ret_content->at, file.stat.size, 0);
    spool_file_close(spool, &file);
    if (got != (int64_t)file.stat.size) {
        result = got < 0 ? (int)got : -EINVAL;
        spool_problem_set(ret_problem, "%s: %s", name,
                          got < 0 ? spool_errno_words(result) : "changed while it was read");
        return result;
    }
    ret_content->at += got;
    return 0;
}

int spool_file_check(struct spool *spool, const struct spool_file *file)
{
    struct disk_stat stat;
    int result = disk_stat_fd(spool->disk, file->fd, &stat);
    if (result != 0) {
        return result;
    }
    bool is_same = stat.inode == file->stat.inode && stat.size == file->stat.size &&
                   stat.mtime_ns == file->stat.mtime_ns;
    return is_same ? 0 : -ESTALE;
}

void spool_file_close(struct spool *spool, struct spool_file *file)
{
    if (file->fd >= 0) {
        disk_close(spool->disk, file->fd);
        file->fd = -1;
    }
}

struct stream_names {
    uint32_t count;
    uint64_t left_count;
    char names[SPOOL_STREAM_FILES_MAX][MANIFEST_FILE_NAME_MAX + 1];
};

static void on_stream_name(void *context, const char *name, enum disk_kind kind)
{
    struct stream_names *names = context;
    (void)kind;
    if (strncmp(name, "messages-", 9) != 0 || !spool_name_ends(name, ".bsmtp")) {
        return;
    }
    if (names->count == SPOOL_STREAM_FILES_MAX || strlen(name) > MANIFEST_FILE_NAME_MAX) {
        names->left_count++;
        return;
    }
    (void)snprintf(names->names[names->count++], sizeof(names->names[0]), "%s", name);
}

static int stream_name_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int stream_names(struct spool *spool, int batch_fd, const struct manifest *manifest,
                        struct stream_names *names, struct spool_problem *ret_problem)
{
    names->count = 0;
    names->left_count = 0;
    if (manifest->kind == MANIFEST_MERGE) {
        (void)snprintf(names->names[names->count++], sizeof(names->names[0]), "%s",
                       manifest->recipients);
        return 0;
    }
    int result = disk_list(spool->disk, batch_fd, on_stream_name, names);
    if (result == 0 && (names->count == 0 || names->left_count > 0)) {
        spool_problem_set(ret_problem,
                          names->count == 0
                              ? "no file messages-*.bsmtp, which kind \"bsmtp\" reads"
                              : "more than %d files messages-*.bsmtp, or names of more than %d "
                                "bytes: join them with cat",
                          SPOOL_STREAM_FILES_MAX, MANIFEST_FILE_NAME_MAX);
        result = -EINVAL;
    }
    qsort(names->names, names->count, sizeof(names->names[0]), stream_name_compare);
    return result;
}

static int stream_add(struct spool *spool, int batch_fd, const char *name,
                      struct spool_stream *stream, struct spool_problem *ret_problem)
{
    struct spool_stream_file *file = &stream->files[stream->files_count];
    int result = spool_file_open(spool, batch_fd, name, spool->config.file_size_max, &file->file,
                                 ret_problem);
    if (result != 0) {
        return result;
    }
    (void)snprintf(file->name, sizeof(file->name), "%s", name);
    file->start = stream->size;
    stream->files_count++;
    stream->size += file->file.stat.size;
    if (stream->size > UINT64_C(1) << RECIPIENT_OFFSET_BITS) {
        spool_problem_set(ret_problem, "%s: the batch has more than 256 GiB: split it", name);
        return -EINVAL;
    }
    return 0;
}

int spool_stream_open(struct spool *spool, int batch_fd, const struct manifest *manifest,
                      uint32_t files_max, struct spool_stream *ret_stream,
                      struct spool_problem *ret_problem)
{
    struct stream_names names;
    struct spool_stream stream = {.size = 0};
    int result = stream_names(spool, batch_fd, manifest, &names, ret_problem);
    if (result == 0 && names.count > files_max) {
        spool_problem_set(ret_problem, "%u files, and fewer descriptors are free",
                          (unsigned)names.count);
        result = -EMFILE;
    }
    if (result == 0) {
        stream.files = calloc(names.count, sizeof(stream.files[0]));
        result = stream.files == NULL ? -ENOMEM : 0;
    }
    for (uint32_t i = 0; i < names.count && result == 0; i++) {
        result = stream_add(spool, batch_fd, names.names[i], &stream, ret_problem);
    }
    if (result != 0) {
        spool_stream_close(spool, &stream);
        return result;
    }
    *ret_stream = stream;
    return 0;
}

const struct spool_stream_file *spool_stream_find(const struct spool_stream *stream,
                                                  uint64_t offset)
{
    ensure(offset < stream->size);
    uint32_t low = 0;
    uint32_t high = stream->files_count;
    while (high - low > 1) { /* files[low].start <= offset < files[high].start */
        uint32_t middle = low + (high - low) / 2;
        if (stream->files[middle].start <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    ensure(offset - stream->files[low].start < stream->files[low].file.stat.size);
    return &stream->files[low];
}

void spool_stream_close(struct spool *spool, struct spool_stream *stream)
{
    for (uint32_t i = 0; i < stream->files_count; i++) {
        spool_file_close(spool, &stream->files[i].file);
    }
    free(stream->files);
    stream->files = NULL;
    stream->files_count = 0;
    stream->size = 0;
}

int spool_rejects_open(struct spool *spool, int batch_fd, struct spool_rejects *rejects)
{
    rejects->disk = spool->disk;
    rejects->error = 0;
    rejects->offset = 0;
    rejects->count = 0;
    rejects->used = 0;
    rejects->fd = disk_open(spool->disk, batch_fd, "rejects.ndjson",
                            DISK_READWRITE | DISK_CREATE | DISK_EMPTY);
    return rejects->fd < 0 ? rejects->fd : 0;
}

static void rejects_flush(struct spool_rejects *rejects)
{
    if (rejects->error != 0 || rejects->used == 0) {
        return;
    }
    int64_t written =
        disk_write(rejects->disk, rejects->fd, rejects->buffer, rejects->used, rejects->offset);
    if (written < 0) {
        rejects->error = (int)written;
        return;
    }
    rejects->offset += rejects->used;
    rejects->used = 0;
}

static struct span clipped(struct span text)
{
    return span_of(text.at,
                   text.size < SPOOL_RECORD_SHOWN_MAX ? text.size : SPOOL_RECORD_SHOWN_MAX);
}

void spool_rejects_add(struct spool_rejects *rejects, const struct spool_reject *reject)
{
    bool is_clipped = reject->record.size > SPOOL_RECORD_SHOWN_MAX;
    if (sizeof(rejects->buffer) - rejects->used < REJECT_LINE_MAX) {
        rejects_flush(rejects);
        rejects->used = 0; /* after an error the lines are lost, and sync tells so */
    }
    struct writer writer = writer_of(rejects->buffer + rejects->used, REJECT_LINE_MAX);
    writer_put(&writer, SPAN("{\"file\":"));
    text_put_json(&writer, clipped(reject->file));
    writer_put_format(&writer, ",\"line\":%llu,\"reason\":", (unsigned long long)reject->line);
    text_put_json(&writer, clipped(reject->reason));
    if (reject->remedy.size > 0) {
        writer_put(&writer, SPAN(",\"remedy\":"));
        text_put_json(&writer, clipped(reject->remedy));
    }
    writer_put(&writer, SPAN(",\"record\":"));
    text_put_json(&writer, clipped(reject->record));
    writer_put(&writer, is_clipped ? SPAN(",\"is_clipped\":true}\n") : SPAN("}\n"));
    ensure(!writer.is_full);
    rejects->used += writer_size(&writer);
    rejects->count++;
}

int spool_rejects_sync(struct spool_rejects *rejects)
{
    rejects_flush(rejects);
    if (rejects->error == 0) {
        rejects->error = disk_datasync(rejects->disk, rejects->fd);
    }
    return rejects->error;
}

void spool_rejects_close(struct spool_rejects *rejects)
{
    if (rejects->fd >= 0) {
        disk_close(rejects->disk, rejects->fd);
        rejects->fd = -1;
    }
}
