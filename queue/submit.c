/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/submit.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/spool_ids.h"
#include "queue/spool_priv.h"
#include "queue/submit_priv.h"

enum { COPY_SIZE = 256 * 1024, ENTRIES_MAX = SPOOL_STREAM_FILES_MAX + 8 };

static const char BATCH_FILE[] = "batch.json";
static const char MESSAGE_FILE[] = "message.eml";

static const char *words_of(int error)
{
    return error == -EACCES || error == -EPERM ? "you have not the right"
                                               : spool_errno_words(error);
}

/* What went wrong with `path`, in words, unless they are there already. */
static int told(struct spool_problem *ret_problem, const char *path, int result)
{
    if (result < 0 && result != -EINVAL) {
        spool_problem_set(ret_problem, "%s: %s", path, words_of(result));
    }
    return result;
}

int submit_open(struct submit *submit, struct disk *disk, const struct clock *clock,
                struct random *random, const char *root, struct spool_problem *ret_problem)
{
    *submit = (struct submit){
        .disk = disk, .clock = clock, .random = random, .root = -1, .tmp = -1, .fresh = -1};
    const char *below = "";
    int result = disk_open(disk, DISK_ROOT, root, DISK_PASSAGE | DISK_DIRECTORY);
    if (result >= 0) {
        submit->root = result;
        below = "/in/tmp";
        result = disk_open(disk, submit->root, "in/tmp", DISK_READONLY | DISK_DIRECTORY);
    }
    if (result >= 0) {
        submit->tmp = result;
        below = "/in/new";
        result = disk_open(disk, submit->root, "in/new", DISK_READONLY | DISK_DIRECTORY);
    }
    if (result < 0) {
        submit_close(submit);
        bool is_right = result == -EACCES || result == -EPERM;
        spool_problem_set(ret_problem, "%s%s: %s (%s)", root, below, words_of(result),
                          is_right ? "writers are in the group of in/tmp, ramjet-submit as it is "
                                     "installed: usermod -a -G GROUP USER, then log in anew"
                                   : "the engine makes the spool at its first start");
        return result;
    }
    submit->fresh = result;
    return 0;
}

void submit_close(struct submit *submit)
{
    int *fds[] = {&submit->tmp, &submit->fresh, &submit->root};
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        if (*fds[i] >= 0) {
            disk_close(submit->disk, *fds[i]);
            *fds[i] = -1;
        }
    }
}

void submit_id_make(struct submit *submit, struct submit_id *ret_id)
{
    struct writer writer = writer_of(ret_id->text, sizeof(ret_id->text) - 1);
    writer_put(&writer, SPAN("b-"));
    writer_put_uint(&writer, (uint64_t)(clock_wall(submit->clock).ns / NS_PER_MS));
    writer_put_byte(&writer, '-');
    text_put_hex64(&writer, random_u64(submit->random));
    *writer.at = '\0';
}

int submit_id_take(struct submit *submit, const char *id, struct submit_id *ret_id,
                   struct spool_problem *ret_problem)
{
    if (id == NULL) {
        submit_id_make(submit, ret_id);
        return 0;
    }
    if (!manifest_id_is_good(span_of_text(id))) {
        spool_problem_set(
            ret_problem, "the id \"%s\" is not 1 to %d letters, digits, . _ - (no . or - in front)",
            spool_show(id).text, MANIFEST_ID_MAX);
        return -EINVAL;
    }
    (void)snprintf(ret_id->text, sizeof(ret_id->text), "%s", id);
    return 0;
}

struct entries {
    uint32_t count;
    bool is_too_many;
    struct {
        char name[SPOOL_NAME_MAX + 1];
        enum disk_kind kind;
    } entries[ENTRIES_MAX];
};

static void on_entry(void *context, const char *name, enum disk_kind kind)
{
    struct entries *entries = context;
    if (entries->count == ENTRIES_MAX) {
        entries->is_too_many = true;
        return;
    }
    (void)snprintf(entries->entries[entries->count].name, SPOOL_NAME_MAX + 1, "%s", name);
    entries->entries[entries->count++].kind = kind;
}

void submit_making_abandon(struct making *making)
{
    struct disk *disk = making->submit->disk;
    struct entries *entries = calloc(1, sizeof(*entries));
    if (making->dir >= 0 && entries != NULL &&
        disk_list(disk, making->dir, on_entry, entries) == 0) {
        for (uint32_t i = 0; i < entries->count; i++) {
            (void)disk_unlink(disk, making->dir, entries->entries[i].name);
        }
    }
    free(entries);
    if (making->dir >= 0) {
        disk_close(disk, making->dir);
        making->dir = -1;
    }
    struct disk_op op = {.verb = DISK_RMDIR, .dir = making->submit->tmp, .path = making->name};
    (void)disk_run(disk, &op);
}

int submit_making_begin(struct submit *submit, struct making *making,
                        struct spool_problem *ret_problem)
{
    *making = (struct making){.submit = submit, .dir = -1};
    struct submit_id id;
    submit_id_make(submit, &id);
    (void)snprintf(making->name, sizeof(making->name), "%.60s", id.text);
    int result = disk_mkdir(submit->disk, submit->tmp, making->name);
    if (result == 0) {
        making->dir =
            disk_open(submit->disk, submit->tmp, making->name, DISK_READONLY | DISK_DIRECTORY);
        result = making->dir < 0 ? making->dir : 0;
        if (result != 0) {
            submit_making_abandon(making);
        }
    }
    return told(ret_problem, "in/tmp", result);
}

/* The manifest as the engine will see it, or NULL with its errors. */
static struct manifest *making_manifest(struct making *making, struct span id,
                                        struct spool_problem *ret_problem)
{
    struct disk *disk = making->submit->disk;
    struct disk_stat stat;
    char *bytes = malloc(MANIFEST_SIZE_MAX);
    int fd = disk_open(disk, making->dir, BATCH_FILE, DISK_READONLY);
    int result = fd < 0 ? fd : disk_stat_fd(disk, fd, &stat);
    if (result == 0) {
        result = stat.size > MANIFEST_SIZE_MAX ? -EFBIG : 0;
    }
    int64_t size = -ENOMEM;
    if (result == 0 && bytes != NULL) {
        size = disk_read(disk, fd, bytes, MANIFEST_SIZE_MAX, 0);
    }
    if (fd >= 0) {
        disk_close(disk, fd);
    }
    struct manifest *manifest = NULL;
    if (result != 0 || size < 0) {
        (void)told(ret_problem, BATCH_FILE, result != 0 ? result : (int)size);
    } else {
        struct writer errors = writer_of(ret_problem->text, sizeof(ret_problem->text) - 1);
        manifest = manifest_parse(span_of(bytes, (size_t)size), id, &errors);
        if (manifest == NULL && writer_size(&errors) == 0) {
            writer_put(&errors, SPAN("out of memory"));
        }
        *errors.at = '\0';
    }
    free(bytes);
    return manifest;
}

/* The engine would refuse it, and who waits would be told of the other one. What may not be read,
 * or was removed, is left to the engine. */
static int id_check(struct submit *submit, const char *id, struct spool_problem *ret_problem)
{
    struct submit_status there;
    if (submit_status_read(submit, id, &there) != 0) {
        return 0;
    }
    bool is_taken = there.state == SUBMIT_ACTIVE || there.state == SUBMIT_HELD;
    if (there.state == SUBMIT_DONE) {
        char text[32];
        struct wall_time day;
        (void)snprintf(text, sizeof(text), "%.10sT23:59:59Z", there.path + strlen("done/"));
        is_taken = text_take_rfc3339(span_of_text(text), &day) &&
                   clock_wall(submit->clock).ns - day.ns < (int64_t)SPOOL_IDS_AGE_S * NS_PER_S;
    }
    if (!is_taken) {
        return 0;
    }
    spool_problem_set(ret_problem,
                      "%s: a batch with the id %s, and an id is good for one batch in 30 days, so "
                      "that nothing is sent twice: give other mail another id",
                      there.path, id);
    return -EEXIST;
}

/* Checks batch.json, then: files are durable already, the directory, its new name. */
int submit_making_end(struct making *making, const char *id, struct submit_id *ret_id,
                      struct spool_problem *ret_problem)
{
    struct submit *submit = making->submit;
    struct manifest *manifest = making_manifest(making, span_of_text(id), ret_problem);
    if (manifest == NULL) {
        submit_making_abandon(making);
        return -EINVAL;
    }
    struct submit_id given;
    (void)snprintf(given.text, sizeof(given.text), "%s", manifest->id);
    manifest_destroy(manifest);
    char name[MANIFEST_ID_MAX + 16];
    (void)snprintf(name, sizeof(name), "%s.batch", given.text);
    int result = id_check(submit, given.text, ret_problem);
    if (result != 0) {
        submit_making_abandon(making);
        return result;
    }
    result = disk_sync(submit->disk, making->dir);
    if (result == 0) {
        result = disk_rename(submit->disk, submit->tmp, making->name, submit->fresh, name);
    }
    if (result != 0) {
        (void)told(ret_problem, "in/new", result);
        if (result == -EEXIST) {
            spool_problem_set(ret_problem, "in/new/%s: a batch of that id waits already", name);
        }
        submit_making_abandon(making);
        return result;
    }
    disk_close(submit->disk, making->dir);
    making->dir = -1;
    result = disk_sync(submit->disk, submit->fresh);
    if (result == 0) {
        *ret_id = given;
    }
    return told(ret_problem, "in/new", result);
}

int submit_making_write(struct making *making, const char *name, struct span content,
                        struct spool_problem *ret_problem)
{
    struct disk *disk = making->submit->disk;
    int fd = disk_open(disk, making->dir, name, DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
    int result = fd < 0 ? fd : 0;
    if (result == 0) {
        int64_t written = disk_write(disk, fd, content.at, content.size, 0);
        result = written < 0 ? (int)written : disk_datasync(disk, fd);
        disk_close(disk, fd);
    }
    return told(ret_problem, name, result);
}

static int copy_bytes(struct disk *disk, int from, int to)
{
    char *buffer = malloc(COPY_SIZE);
    int64_t got = buffer == NULL ? -ENOMEM : 1;
    for (uint64_t offset = 0; got > 0; offset += (uint64_t)got) {
        got = disk_read(disk, from, buffer, COPY_SIZE, offset);
        if (got > 0) {
            int64_t written = disk_write(disk, to, buffer, (size_t)got, offset);
            got = written < 0 ? written : got;
        }
    }
    free(buffer);
    return got < 0 ? (int)got : disk_datasync(disk, to);
}

/* `path` below `dir` as NAME of the batch; a regular file. */
static int making_copy(struct making *making, int dir, const char *path, const char *name,
                       struct spool_problem *ret_problem)
{
    struct disk *disk = making->submit->disk;
    struct disk_stat stat;
    int from = disk_open(disk, dir, path, DISK_READONLY);
    int result = from < 0 ? from : disk_stat_fd(disk, from, &stat);
    if (result == 0 && stat.kind != DISK_KIND_FILE) {
        result = -ENXIO;
    }
    if (result == 0) {
        int to = disk_open(disk, making->dir, name, DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
        result = to < 0 ? to : copy_bytes(disk, from, to);
        if (to >= 0) {
            disk_close(disk, to);
        }
    }
    if (from >= 0) {
        disk_close(disk, from);
    }
    return told(ret_problem, path, result);
}

static int copy_entries(struct making *making, int dir, const struct entries *entries,
                        struct spool_problem *ret_problem)
{
    int result = 0;
    for (uint32_t i = 0; i < entries->count && result == 0; i++) {
        const char *name = entries->entries[i].name;
        if (name[0] == '.') {
            continue;
        }
        if (entries->entries[i].kind != DISK_KIND_FILE ||
            (manifest_file_is_reserved(name) && strcmp(name, BATCH_FILE) != 0)) {
            spool_problem_set(ret_problem, "%s: not a file that a batch can hold: remove it",
                              spool_show(name).text);
            return -EINVAL;
        }
        result = making_copy(making, dir, name, name, ret_problem);
    }
    return result;
}

/* The name that stands for an id when batch.json has none: the path's last part without .batch. */
static void directory_id(const char *path, struct submit_id *ret_id)
{
    size_t size = strlen(path);
    while (size > 0 && path[size - 1] == '/') {
        size--;
    }
    size_t start = size;
    while (start > 0 && path[start - 1] != '/') {
        start--;
    }
    const size_t end_size = sizeof(".batch") - 1;
    if (size - start > end_size && memcmp(path + size - end_size, ".batch", end_size) == 0) {
        size -= end_size;
    }
    size_t length = size - start < MANIFEST_ID_MAX ? size - start : MANIFEST_ID_MAX;
    (void)snprintf(ret_id->text, sizeof(ret_id->text), "%.*s", (int)length, path + start);
}

int submit_directory(struct submit *submit, const char *path, struct submit_id *ret_id,
                     struct spool_problem *ret_problem)
{
    struct entries *entries = calloc(1, sizeof(*entries));
    if (entries == NULL) {
        return told(ret_problem, path, -ENOMEM);
    }
    int dir = disk_open(submit->disk, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    int result = dir < 0 ? dir : disk_list(submit->disk, dir, on_entry, entries);
    if (result == 0 && entries->is_too_many) {
        result = -E2BIG;
    }
    struct making making = {.dir = -1};
    struct submit_id id;
    directory_id(path, &id);
    if (told(ret_problem, path, result) == 0) {
        result = submit_making_begin(submit, &making, ret_problem);
        if (result == 0) {
            result = copy_entries(&making, dir, entries, ret_problem);
            if (result == 0) {
                result = submit_making_end(&making, id.text, ret_id, ret_problem);
            } else {
                submit_making_abandon(&making);
            }
        }
    }
    if (dir >= 0) {
        disk_close(submit->disk, dir);
    }
    free(entries);
    return result;
}

static int write_manifest(struct making *making, json_t *manifest,
                          struct spool_problem *ret_problem)
{
    char *text = manifest != NULL ? json_dumps(manifest, JSON_INDENT(1)) : NULL;
    int result = text == NULL
                     ? told(ret_problem, BATCH_FILE, -ENOMEM)
                     : submit_making_write(making, BATCH_FILE, span_of_text(text), ret_problem);
    free(text);
    return result;
}

/* What batch.json takes as a number or as a text. False: not UTF-8. */
static bool set_limit(json_t *manifest, const char *key, const char *text)
{
    struct cursor cursor = cursor_of(span_of_text(text));
    uint64_t number;
    bool is_number = cursor_take_uint(&cursor, UINT32_MAX, &number) && cursor_left(&cursor) == 0;
    return json_object_set_new(manifest, key,
                               is_number ? json_integer((json_int_t)number) : json_string(text)) ==
           0;
}

static bool set_choices(json_t *manifest, const struct submit_files *files)
{
    bool is_set = files->max_reject == NULL || set_limit(manifest, "max_reject", files->max_reject);
    return is_set && (files->missing == NULL ||
                      json_object_set_new(manifest, "missing", json_string(files->missing)) == 0);
}

/* batch.json of files; NULL when some text is not UTF-8. */
static json_t *files_manifest(const struct submit_files *files, const struct submit_id *id,
                              const char *list_name)
{
    json_t *manifest =
        json_pack("{s:i,s:s,s:s,s:s,s:s,s:s}", "v", 1, "id", id->text, "kind", "merge", "from",
                  files->from, "message", MESSAGE_FILE, "recipients", list_name);
    json_t *vars = json_object();
    for (size_t i = 0; i < files->vars_count && vars != NULL; i++) {
        if (json_object_set_new(vars, files->vars[i].name, json_string(files->vars[i].value)) !=
            0) {
            json_decref(vars);
            vars = NULL;
        }
    }
    if (manifest == NULL || vars == NULL || !set_choices(manifest, files)) {
        json_decref(manifest);
        json_decref(vars);
        return NULL;
    }
    if (files->vars_count == 0) {
        json_decref(vars);
    } else if (json_object_set_new(manifest, "vars", vars) != 0) {
        json_decref(manifest);
        return NULL;
    }
    return manifest;
}

int submit_files(struct submit *submit, const struct submit_files *files, struct submit_id *ret_id,
                 struct spool_problem *ret_problem)
{
    bool is_csv = spool_name_ends(files->recipients_path, ".csv");
    const char *list_name = is_csv ? "recipients.csv" : "recipients.ndjson";
    struct submit_id id;
    struct making making;
    int result = submit_id_take(submit, files->id, &id, ret_problem);
    if (result == 0) {
        result = submit_making_begin(submit, &making, ret_problem);
    }
    if (result != 0) {
        return result;
    }
    json_t *manifest = files_manifest(files, &id, list_name);
    if (manifest == NULL) {
        spool_problem_set(ret_problem, "the sender, or a variable, is not UTF-8");
        result = -EINVAL;
    } else {
        result = write_manifest(&making, manifest, ret_problem);
        json_decref(manifest);
    }
    if (result == 0) {
        result = making_copy(&making, DISK_ROOT, files->message_path, MESSAGE_FILE, ret_problem);
    }
    if (result == 0) {
        result = making_copy(&making, DISK_ROOT, files->recipients_path, list_name, ret_problem);
    }
    if (result != 0) {
        submit_making_abandon(&making);
        return result;
    }
    return submit_making_end(&making, id.text, ret_id, ret_problem);
}

int submit_stream_begin(struct submit *submit, struct submit_stream *stream,
                        struct spool_problem *ret_problem)
{
    struct making making;
    *stream = (struct submit_stream){.submit = submit, .dir = -1, .file = -1};
    int result = submit_making_begin(submit, &making, ret_problem);
    if (result == 0) {
        stream->dir = making.dir;
        (void)snprintf(stream->making, sizeof(stream->making), "%s", making.name);
    }
    return result;
}

static struct making stream_making(const struct submit_stream *stream)
{
    struct making making = {.submit = stream->submit, .dir = stream->dir};
    (void)snprintf(making.name, sizeof(making.name), "%s", stream->making);
    return making;
}

/* The first line is whole: the message goes into a file of its own, the rest becomes batch.json. */
static int stream_take_manifest(struct submit_stream *stream, struct span line,
                                struct spool_problem *ret_problem)
{
    struct making making = stream_making(stream);
    json_error_t error;
    json_t *root = json_loadb(line.at, line.size, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        spool_problem_set(ret_problem, "line 1: not the object that batch.json holds: %s",
                          spool_show(root == NULL ? error.text : "not an object").text);
        json_decref(root);
        return -EINVAL;
    }
    const char *kind = json_string_value(json_object_get(root, "kind"));
    bool is_bsmtp = kind != NULL && strcmp(kind, "bsmtp") == 0;
    json_t *message = json_object_get(root, "message");
    const char *list = json_string_value(json_object_get(root, "recipients"));
    bool is_csv = list != NULL && spool_name_ends(list, ".csv");
    int result = 0;
    if (!is_bsmtp && !json_is_string(message)) {
        spool_problem_set(ret_problem, "line 1: \"message\" is not the text of the message");
        result = -EINVAL;
    }
    if (result == 0 && !is_bsmtp) {
        struct span text = span_of(json_string_value(message), json_string_length(message));
        result = submit_making_write(&making, MESSAGE_FILE, text, ret_problem);
        (void)json_object_del(root, "message");
        (void)json_object_del(root, "recipients");
        (void)json_object_set_new(root, "recipients",
                                  json_string(is_csv ? "recipients.csv" : "recipients.ndjson"));
    }
    result = result == 0 ? write_manifest(&making, root, ret_problem) : result;
    json_decref(root);
    if (result == 0) {
        const char *name = is_bsmtp ? "messages-0.bsmtp"
                           : is_csv ? "recipients.csv"
                                    : "recipients.ndjson";
        stream->file = disk_open(stream->submit->disk, stream->dir, name,
                                 DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
        result = told(ret_problem, name, stream->file < 0 ? stream->file : 0);
    }
    return result;
}

/* Gathers the first line. *bytes is what is behind it, once it is whole. */
static int stream_gather(struct submit_stream *stream, struct span *bytes, bool is_last,
                         struct spool_problem *ret_problem)
{
    size_t line_end = span_find(*bytes, '\n');
    bool is_whole = line_end < bytes->size || is_last;
    size_t size = line_end < bytes->size ? line_end + 1 : line_end;
    if (stream->line_size + size > SUBMIT_FIRST_LINE_MAX) {
        spool_problem_set(ret_problem, "line 1: longer than %d bytes", SUBMIT_FIRST_LINE_MAX);
        return -EINVAL;
    }
    if (stream->line_size + size > stream->line_room) {
        size_t room = 2 * (stream->line_size + size);
        char *line = realloc(stream->line, room);
        if (line == NULL) {
            return told(ret_problem, "line 1", -ENOMEM);
        }
        stream->line = line;
        stream->line_room = room;
    }
    if (size > 0) {
        memcpy(stream->line + stream->line_size, bytes->at, size);
    }
    stream->line_size += size;
    *bytes = span_of(bytes->at + size, bytes->size - size);
    if (!is_whole) {
        return 0;
    }
    return stream_take_manifest(stream, span_of(stream->line, stream->line_size), ret_problem);
}

int submit_stream_feed(struct submit_stream *stream, struct span bytes,
                       struct spool_problem *ret_problem)
{
    if (stream->file < 0 && bytes.size > 0) {
        int result = stream_gather(stream, &bytes, false, ret_problem);
        if (result != 0) {
            return result;
        }
    }
    if (bytes.size == 0) {
        return 0;
    }
    int64_t written =
        disk_write(stream->submit->disk, stream->file, bytes.at, bytes.size, stream->size);
    if (written < 0) {
        return told(ret_problem, "in/tmp", (int)written);
    }
    stream->size += bytes.size;
    return 0;
}

static void stream_close(struct submit_stream *stream)
{
    free(stream->line);
    stream->line = NULL;
    if (stream->file >= 0) {
        disk_close(stream->submit->disk, stream->file);
        stream->file = -1;
    }
}

int submit_stream_end(struct submit_stream *stream, struct submit_id *ret_id,
                      struct spool_problem *ret_problem)
{
    int result = 0;
    if (stream->file < 0) {
        struct span nothing = SPAN_NONE;
        result = stream_gather(stream, &nothing, true, ret_problem);
    }
    if (result == 0) {
        result = told(ret_problem, "in/tmp", disk_datasync(stream->submit->disk, stream->file));
    }
    stream_close(stream);
    struct making making = stream_making(stream);
    if (result != 0) {
        submit_making_abandon(&making);
        return result;
    }
    struct submit_id id;
    submit_id_make(stream->submit, &id);
    return submit_making_end(&making, id.text, ret_id, ret_problem);
}

void submit_stream_abandon(struct submit_stream *stream)
{
    stream_close(stream);
    struct making making = stream_making(stream);
    submit_making_abandon(&making);
}
