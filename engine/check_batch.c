/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/check_batch.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/check_batch_priv.h"
#include "engine/config.h"
#include "engine/record_check.h"
#include "engine/values.h"
#include "queue/recipient.h"

enum { BLOCK_SIZE = 1 << 20 };

static int fail(struct checking *checking, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int fail(struct checking *checking, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(checking->check->problem, sizeof(checking->check->problem), format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static int fail_template(struct checking *checking, const char *file,
                         const struct template_problem *problem)
{
    return problem->line > 0 ? fail(checking, "%s:%llu: %s", file,
                                    (unsigned long long)problem->line, problem->text)
                             : fail(checking, "%s: %s", file, problem->text);
}

/* A whole file of the batch; the caller frees it. */
static char *read_file(struct checking *checking, const char *name, uint64_t size_max,
                       struct span *ret_content)
{
    struct spool_problem problem = {.text = "out of memory"};
    struct spool_file file;
    int result = spool_file_open(&checking->spool, checking->dir, name, size_max, &file, &problem);
    char *bytes = result == 0 ? malloc(file.stat.size + 1) : NULL;
    if (bytes != NULL) {
        int64_t got = disk_read(checking->spool.disk, file.fd, bytes, file.stat.size, 0);
        if (got != (int64_t)file.stat.size) {
            (void)snprintf(problem.text, sizeof(problem.text), "%s: %s", name,
                           got < 0 ? strerror((int)-got) : "changed while it was read");
            free(bytes);
            bytes = NULL;
        }
        *ret_content = span_of(bytes, bytes == NULL ? 0 : file.stat.size);
    }
    if (result == 0) {
        spool_file_close(&checking->spool, &file);
    }
    if (bytes == NULL) {
        (void)fail(checking, "%s", problem.text);
    }
    return bytes;
}

/* The name of the directory without .batch: the id when batch.json has none. */
static struct span name_of(const char *path)
{
    struct span name = span_of_text(path);
    while (name.size > 1 && name.at[name.size - 1] == '/') {
        name.size--;
    }
    for (size_t i = name.size; i > 0; i--) {
        if (name.at[i - 1] == '/') {
            name = span_of(name.at + i, name.size - i);
            break;
        }
    }
    struct span end = SPAN(".batch");
    if (name.size > end.size &&
        span_equal(span_of(name.at + name.size - end.size, end.size), end)) {
        name.size -= end.size;
    }
    return name;
}

static int take_manifest(struct checking *checking, const char *path)
{
    struct check_batch *check = checking->check;
    struct span json;
    char *bytes = read_file(checking, "batch.json", MANIFEST_SIZE_MAX, &json);
    if (bytes == NULL) {
        return -EINVAL;
    }
    struct writer errors = writer_of(check->problem, sizeof(check->problem) - 1);
    checking->manifest = manifest_parse(json, name_of(path), &errors);
    if (checking->manifest == NULL && writer_size(&errors) == 0) {
        writer_put(&errors, SPAN("out of memory"));
    }
    *errors.at = '\0';
    free(bytes);
    if (checking->manifest == NULL) {
        return -EINVAL;
    }
    check->kind = checking->manifest->kind;
    (void)snprintf(check->id, sizeof(check->id), "%s", checking->manifest->id);
    return 0;
}

static int take_content(struct checking *checking)
{
    const struct manifest *manifest = checking->manifest;
    struct template_problem problem = {.line = 0};
    struct record_reject refused;
    struct span eml;
    struct template_problems problems;
    checking->sender = template_compile_line(span_of_text(manifest->from), &problem);
    if (checking->sender == NULL) {
        return fail_template(checking, "batch.json: from", &problem);
    }
    if (record_check_sender(checking->sender, &refused) != 0) {
        return fail(checking, "batch.json: %s: %s", refused.reason, refused.remedy);
    }
    uint64_t size_max = checking->config->message_size_max;
    char *bytes = read_file(checking, manifest->message, size_max, &eml);
    if (bytes == NULL) {
        return -EINVAL;
    }
    const struct template_options options = {
        .batch_id = span_of_text(manifest->id),
        .date = clock_wall(clock_system()),
        .size_max = size_max,
        .problems = &problems,
    };
    checking->template = template_compile(eml, &options, &problem);
    free(bytes);
    if (checking->template != NULL) {
        return 0;
    }
    if (problem.is_memory_short) {
        return fail_template(checking, manifest->message, &problem);
    }
    struct check_batch *check = checking->check;
    struct writer words = writer_of(check->problem, sizeof(check->problem) - 1);
    template_problems_put(&problems, manifest->message, &words);
    *words.at = '\0';
    return -EINVAL;
}

/* Records. */

static void reject(struct checking *checking, uint64_t line, const char *reason, const char *remedy)
{
    struct check_batch *check = checking->check;
    check->rejected_count++;
    if (check->rejects_count == CHECK_BATCH_REJECTS_MAX) {
        return;
    }
    struct check_batch_reject *row = &check->rejects[check->rejects_count++];
    row->line = line;
    row->remedy = remedy;
    (void)snprintf(row->file, sizeof(row->file), "%s", checking->file->name);
    (void)snprintf(row->reason, sizeof(row->reason), "%s", reason);
}

/* True when the recipient is the one to be shown. */
static bool accept(struct checking *checking)
{
    return ++checking->check->recipients_count == checking->sample;
}

static int take_merge(struct checking *checking, uint64_t line, struct span record)
{
    const struct manifest *manifest = checking->manifest;
    struct scan_problem problem;
    struct record_domain domain;
    struct record_reject refused;
    if (manifest->format == SCAN_CSV && checking->columns == NULL) {
        checking->columns = scan_columns_create(record, &problem);
        return checking->columns != NULL
                   ? 0
                   : fail(checking, "%s:%llu: %s", checking->file->name,
                          (unsigned long long)(line + problem.line_offset), problem.text);
    }
    uint32_t ordinal = checking->ordinal++;
    if (scan_record_recipient(checking->parser, manifest->format, checking->columns, record,
                              checking->record, &problem) != 0) {
        reject(checking, line + problem.line_offset, problem.text, "");
        return 0;
    }
    check_batch_count_names(checking);
    struct span to = span_trim(checking->record->to);
    if (record_check_address(to, &domain, &refused) != 0 ||
        record_check_values(checking->sender, checking->template, manifest, checking->record,
                            ordinal, checking->check_hints, &refused) != 0) {
        reject(checking, line, refused.reason, refused.remedy);
    } else if (accept(checking)) {
        char room[SMTP_ADDRESS_MAX];
        check_batch_render_sample(checking, values_address(to, domain.name, room), ordinal);
    }
    return 0;
}

static void take_bsmtp(struct checking *checking, uint64_t line, struct span record,
                       uint64_t offset, const struct scan_text *measured)
{
    const struct scan_message *message = checking->message;
    struct scan_problem problem;
    struct record_domain domain;
    struct record_reject refused;
    if (scan_record_message(record, measured, checking->message, &problem) != 0) {
        reject(checking, line + problem.line_offset, problem.text, "");
        return;
    }
    if (record_check_message(message, &refused) != 0) {
        reject(checking, line, refused.reason, refused.remedy);
        return;
    }
    for (uint32_t i = 0; i < message->rcpts_count; i++) {
        if (record_is_named_before(message, i)) {
            continue;
        }
        if (record_check_address(message->rcpts[i], &domain, &refused) != 0) {
            reject(checking, line + 1 + i, refused.reason, refused.remedy);
        } else if (accept(checking)) {
            check_batch_show_record(checking, record, offset);
        }
    }
}

/* What is in memory of the file under way. */
struct window {
    char *bytes;
    size_t room;
    size_t taken;
    size_t filled;
    uint64_t offset; /* of bytes[0] in the file */
    bool is_end;
};

static int window_fill(struct checking *checking, struct window *window)
{
    const struct spool_file *file = &checking->file->file;
    memmove(window->bytes, window->bytes + window->taken, window->filled - window->taken);
    window->offset += window->taken;
    window->filled -= window->taken;
    window->taken = 0;
    int64_t got = disk_read(checking->spool.disk, file->fd, window->bytes + window->filled,
                            window->room - window->filled, window->offset + window->filled);
    if (got < 0) {
        return fail(checking, "%s: %s", checking->file->name, strerror((int)-got));
    }
    window->filled += (size_t)got;
    window->is_end = window->offset + window->filled >= file->stat.size;
    return got > 0 || window->is_end
               ? 0
               : fail(checking, "%s: changed while it was read", checking->file->name);
}

/* One turn of the splitter; 1: the file is through. */
static int take_next(struct checking *checking, struct scan_splitter *splitter,
                     struct window *window)
{
    struct span bytes = span_of(window->bytes + window->taken, window->filled - window->taken);
    struct scan_problem problem;
    size_t skip = 0;
    size_t size = 0;
    uint64_t line = 0;
    int result = 0;
    enum scan_split split =
        scan_split_next(splitter, bytes, window->is_end, &skip, &size, &line, &problem);
    struct span record = span_of(bytes.at + skip, size);
    switch (split) {
    case SCAN_SPLIT_MORE:
        window->taken += skip;
        return window_fill(checking, window);
    case SCAN_SPLIT_RECORD:
        if (checking->manifest->kind == MANIFEST_BSMTP) {
            take_bsmtp(checking, line, record,
                       checking->file->start + window->offset + window->taken + skip,
                       &splitter->text);
        } else {
            result = take_merge(checking, line, record);
        }
        break;
    case SCAN_SPLIT_BAD:
        checking->ordinal++;
        reject(checking, line + problem.line_offset, problem.text, "");
        break;
    case SCAN_SPLIT_END:
        return 1;
    case SCAN_SPLIT_FATAL:
        return fail(checking, "%s:%llu: %s", checking->file->name,
                    (unsigned long long)(line + problem.line_offset), problem.text);
    }
    window->taken += skip + size;
    return result;
}

static int take_file(struct checking *checking, const struct spool_stream_file *file)
{
    uint64_t record_max = checking->manifest->kind == MANIFEST_BSMTP
                              ? checking->config->message_size_max
                              : SCAN_LINE_MAX;
    struct scan_splitter splitter;
    struct window window = {.room = SCAN_WINDOW(record_max) + BLOCK_SIZE};
    window.bytes = malloc(window.room);
    if (window.bytes == NULL) {
        return fail(checking, "out of memory");
    }
    checking->file = file;
    scan_splitter_init(&splitter, checking->manifest->format, record_max);
    int result = 0;
    while (result == 0) {
        result = take_next(checking, &splitter, &window);
    }
    free(window.bytes);
    return result > 0 ? 0 : result;
}

static int take_stream(struct checking *checking)
{
    struct spool_stream *stream = calloc(1, sizeof(*stream));
    struct spool_problem problem = {.text = "out of memory"};
    int result = stream == NULL
                     ? -ENOMEM
                     : spool_stream_open(&checking->spool, checking->dir, checking->manifest,
                                         SPOOL_STREAM_FILES_MAX, stream, &problem);
    if (result != 0) {
        free(stream);
        return fail(checking, "%s", problem.text);
    }
    for (uint32_t i = 0; i < stream->files_count && result == 0; i++) {
        result = take_file(checking, &stream->files[i]);
    }
    spool_stream_close(&checking->spool, stream);
    free(stream);
    return result;
}

static int take_all(struct checking *checking, const char *path)
{
    struct check_batch *check = checking->check;
    checking->dir =
        disk_open(checking->spool.disk, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    if (checking->dir < 0) {
        return fail(checking, "%s", strerror(-checking->dir));
    }
    int result = take_manifest(checking, path);
    if (result == 0 && check->kind == MANIFEST_MERGE) {
        result = take_content(checking);
        for (uint32_t i = 0; i < checking->manifest->vars_count && result == 0; i++) {
            check_batch_count_given(checking, span_of_text(checking->manifest->vars[i].name));
        }
    }
    result = result == 0 ? take_stream(checking) : result;
    if (result == 0) {
        struct writer words = writer_of(check->problem, sizeof(check->problem) - 1);
        result = record_check_batch(checking->manifest, check->recipients_count,
                                    check->rejected_count, "the list of rejects", &words);
        *words.at = '\0';
    }
    return result;
}

bool check_batch_run(struct check_batch *check, const struct config *config, const char *path,
                     uint64_t sample)
{
    int error = 0;
    struct checking checking = {
        .check = check,
        .config = config,
        .dir = -1,
        .sample = sample,
        .parser = scan_parser_create(),
        .record = malloc(sizeof(struct scan_recipient)),
        .message = malloc(sizeof(struct scan_message)),
    };
    memset(check, 0, sizeof(*check));
    checking.spool.disk = disk_plain_create(NULL, &error);
    checking.spool.config.file_size_max = UINT64_C(1) << RECIPIENT_OFFSET_BITS;
    checking.spool.config.message_size_max = config->message_size_max;
    int result = -ENOMEM;
    if (checking.spool.disk == NULL || checking.parser == NULL || checking.record == NULL ||
        checking.message == NULL) {
        (void)fail(&checking, "out of memory");
    } else {
        result = take_all(&checking, path);
    }
    if (checking.dir >= 0) {
        disk_close(checking.spool.disk, checking.dir);
    }
    template_destroy(checking.template);
    template_destroy(checking.sender);
    manifest_destroy(checking.manifest);
    scan_columns_destroy(checking.columns);
    scan_parser_destroy(checking.parser);
    free(checking.record);
    free(checking.message);
    disk_destroy(checking.spool.disk);
    return result == 0;
}

void check_batch_free(struct check_batch *check)
{
    free(check->sample);
    check->sample = NULL;
}
