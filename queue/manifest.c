/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/manifest.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/manifest_priv.h"

enum { PRIORITY_DEFAULT = 5, REJECT_PPM_DEFAULT = 10000 };

void manifest_complain(struct manifest_reading *reading, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    reading->errors_count++;
    writer_put_format(reading->errors, "batch.json: %s\n", text);
}

void manifest_keep_copy(struct manifest_reading *reading, const char *text, char **ret_copy)
{
    free(*ret_copy);
    *ret_copy = strdup(text);
    reading->is_memory_short |= *ret_copy == NULL;
}

static bool byte_is_name(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '.' || byte == '_' || byte == '-';
}

bool manifest_id_is_good(struct span id)
{
    if (id.size == 0 || id.size > MANIFEST_ID_MAX || id.at[0] == '.' || id.at[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < id.size; i++) {
        if (!byte_is_name(id.at[i])) {
            return false;
        }
    }
    return true;
}

bool manifest_file_is_reserved(const char *name)
{
    static const char *const ours[] = {"batch.json",   "progress.json", "rejects.ndjson",
                                       "summary.json", "reason.txt",    "sources.list",
                                       "order",        "retried"};
    static const char *const begins[] = {"results.ndjson", ".results"};
    for (size_t i = 0; i < COUNT_OF(ours); i++) {
        if (strcmp(name, ours[i]) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < COUNT_OF(begins); i++) {
        if (span_starts(span_of_text(name), span_of_text(begins[i]))) {
            return true;
        }
    }
    return false;
}

static bool text_ends(const char *text, const char *end)
{
    size_t size = strlen(text);
    size_t end_size = strlen(end);
    return size > end_size && strcmp(text + size - end_size, end) == 0;
}

static void judge_merge(struct manifest_reading *reading)
{
    struct manifest *manifest = reading->manifest;
    if (!reading->has_from) {
        manifest_complain(reading,
                          "\"from\" is missing: the envelope sender, \"\" for the null path");
    }
    if (manifest->message == NULL) {
        manifest_keep_copy(reading, "message.eml", &manifest->message);
    }
    if (manifest->recipients == NULL) {
        manifest_keep_copy(reading, "recipients.ndjson", &manifest->recipients);
    }
    const char *recipients = manifest->recipients != NULL ? manifest->recipients : "";
    if (text_ends(recipients, ".csv")) {
        manifest->format = SCAN_CSV;
    } else if (text_ends(recipients, ".zst")) {
        manifest_complain(reading,
                          "\"recipients\" is compressed: this version reads .ndjson and .csv");
    } else if (!text_ends(recipients, ".ndjson")) {
        manifest_complain(reading, "\"recipients\" ends neither in .ndjson nor in .csv");
    }
    if (strcmp(recipients, manifest->message != NULL ? manifest->message : "") == 0) {
        manifest_complain(reading, "\"message\" and \"recipients\" are one file");
    }
}

/* What no key alone can tell. */
static void judge(struct manifest_reading *reading, struct span name)
{
    struct manifest *manifest = reading->manifest;
    if (!reading->has_v) {
        manifest_complain(reading, "\"v\" is missing: write \"v\":1");
    }
    if (manifest->id[0] == '\0' && manifest_id_is_good(name)) {
        (void)snprintf(manifest->id, sizeof(manifest->id), "%.*s", (int)name.size, name.at);
    } else if (manifest->id[0] == '\0') {
        manifest_complain(reading,
                          "\"id\" is missing or bad, and the directory's name cannot stand for it");
    }
    if (manifest->kind == MANIFEST_MERGE) {
        judge_merge(reading);
    } else {
        manifest->format = SCAN_BSMTP;
        if (reading->merge_key != NULL) {
            manifest_complain(reading,
                              "\"%s\" has no meaning for kind \"bsmtp\": its messages bring "
                              "sender and text",
                              reading->merge_key);
        }
    }
    if (manifest->expires.ns != 0 && manifest->expires.ns <= manifest->not_before.ns) {
        manifest_complain(reading, "\"expires\" is not later than \"not_before\"");
    }
}

static struct manifest *manifest_create(void)
{
    struct manifest *manifest = calloc(1, sizeof(*manifest));
    if (manifest != NULL) {
        manifest->priority = PRIORITY_DEFAULT;
        manifest->max_reject_ppm = REJECT_PPM_DEFAULT;
        manifest->results = MANIFEST_RESULT_ALL;
    }
    return manifest;
}

/* A reader that was refused memory says nothing, or complains of the text ("invalid token"), or
 * goes on with part of a string: only whoever gives it memory can tell. */
static _Thread_local bool is_json_denied;

static void *json_take(size_t size)
{
    void *at = malloc(size);
    is_json_denied |= at == NULL;
    return at;
}

static void json_give(void *at)
{
    free(at);
}

/* Before there is any other thread: it counts for the whole program. */
__attribute__((constructor)) static void json_begin(void)
{
    json_set_alloc_funcs(json_take, json_give);
}

/* The root object, or NULL after a complaint. */
static json_t *load(struct manifest_reading *reading, struct span json)
{
    json_error_t error = {.line = 0};
    is_json_denied = false;
    if (json.size > MANIFEST_SIZE_MAX) {
        manifest_complain(reading, "longer than %d bytes", MANIFEST_SIZE_MAX);
        return NULL;
    }
    if (span_starts(json, SPAN("\xef\xbb\xbf"))) {
        json = span_of(json.at + 3, json.size - 3);
    }
    json_t *root = json_loadb(json.at, json.size, JSON_REJECT_DUPLICATES, &error);
    if (is_json_denied || (root == NULL && error.text[0] == '\0')) {
        json_decref(root);
        root = NULL;
        reading->is_memory_short = true;
    } else if (root == NULL) {
        char text[2 * JSON_ERROR_TEXT_LENGTH];
        struct writer writer = writer_of(text, sizeof(text) - 1);
        text_put_escaped(&writer, span_of_text(error.text));
        *writer.at = '\0';
        manifest_complain(reading, "line %d column %d: %s", error.line, error.column, text);
    } else if (!json_is_object(root)) {
        manifest_complain(reading, "not an object: write {\"v\":1, ...}");
        json_decref(root);
        root = NULL;
    }
    return root;
}

struct manifest *manifest_parse(struct span json, struct span name, struct writer *ret_errors)
{
    struct manifest_reading reading = {.manifest = manifest_create(), .errors = ret_errors};
    const struct writer before = *ret_errors;
    if (reading.manifest == NULL) {
        return NULL;
    }
    json_t *root = load(&reading, json);
    if (root != NULL) {
        const char *key;
        json_t *value;
        json_object_foreach(root, key, value)
        {
            manifest_read_key(&reading, key, value);
        }
        judge(&reading, name);
        json_decref(root);
    }
    if (reading.is_memory_short) {
        *ret_errors = before;
    }
    if (reading.is_memory_short || reading.errors_count > 0) {
        manifest_destroy(reading.manifest);
        return NULL;
    }
    return reading.manifest;
}

void manifest_destroy(struct manifest *manifest)
{
    if (manifest == NULL) {
        return;
    }
    for (uint32_t i = 0; i < manifest->vars_count; i++) {
        free(manifest->vars[i].name);
        free(manifest->vars[i].value);
    }
    free(manifest->vars);
    free(manifest->from);
    free(manifest->message);
    free(manifest->recipients);
    free(manifest->tenant);
    free(manifest->campaign);
    free(manifest);
}

bool manifest_allows_rejects(const struct manifest *manifest, uint64_t rejected_count,
                             uint64_t records_count)
{
    ensure(rejected_count <= records_count);
    if (manifest->max_reject_ppm == 0) {
        return rejected_count <= manifest->max_reject;
    }
    /* Bad lines may be of two bytes: beyond 2^32 the products need more than 64 bits. */
    return (unsigned __int128)rejected_count * MANIFEST_PPM <=
           (unsigned __int128)records_count * manifest->max_reject_ppm;
}
