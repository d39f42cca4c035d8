/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/manifest.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/scan_priv.h"

enum { VERSION = 1, PRIORITY_DEFAULT = 5, PRIORITY_MAX = 9, REJECT_PPM_DEFAULT = 10000 };

/* One parse: what is being made, and what was found wrong. */
struct reading {
    struct manifest *manifest;
    struct writer *errors;
    uint32_t errors_count;
    bool has_v, has_from;
    bool is_memory_short;
    const char *merge_key; /* a key that only kind merge may have, or NULL */
    size_t path_size;
    char path[SCAN_NAME_MAX + 1];
};

__attribute__((format(printf, 2, 3))) static void complain(struct reading *reading,
                                                           const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    reading->errors_count++;
    writer_put_format(reading->errors, "batch.json: %s\n", text);
}

/* Puts a copy in the place of what was there. */
static void keep_copy(struct reading *reading, const char *text, char **ret_copy)
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

/* A text without control characters, or NULL after a complaint. */
static const char *take_text(struct reading *reading, const char *key, json_t *value,
                             size_t size_max)
{
    if (!json_is_string(value)) {
        complain(reading, "\"%s\" is not a text", key);
        return NULL;
    }
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            complain(reading, "\"%s\" holds a control character", key);
            return NULL;
        }
    }
    if (size > size_max) {
        complain(reading, "\"%s\" is longer than %zu bytes", key, size_max);
        return NULL;
    }
    return text;
}

static void read_v(struct reading *reading, const char *key, json_t *value)
{
    reading->has_v = true;
    if (!json_is_integer(value) || json_integer_value(value) != VERSION) {
        complain(reading, "\"%s\" is not 1, the version of this format", key);
    }
}

static void read_id(struct reading *reading, const char *key, json_t *value)
{
    const char *text = take_text(reading, key, value, MANIFEST_SIZE_MAX);
    if (text != NULL && !manifest_id_is_good(span_of_text(text))) {
        complain(reading, "\"%s\" is not 1 to %d of A-Z a-z 0-9 . _ - (no . or - in front)", key,
                 MANIFEST_ID_MAX);
    } else if (text != NULL) {
        (void)snprintf(reading->manifest->id, sizeof(reading->manifest->id), "%s", text);
    }
}

/* The index of the text in `words`, or -1 after a complaint that lists them. */
static int take_word(struct reading *reading, const char *key, json_t *value,
                     const char *const *words, size_t words_count)
{
    char list[128];
    struct writer writer = writer_of(list, sizeof(list) - 1);
    for (size_t i = 0; i < words_count; i++) {
        if (json_is_string(value) && strcmp(json_string_value(value), words[i]) == 0) {
            return (int)i;
        }
        writer_put_format(&writer, "%s\"%s\"", i == 0 ? "" : ", ", words[i]);
    }
    *writer.at = '\0';
    complain(reading, "\"%s\" is none of %s", key, list);
    return -1;
}

static void read_kind(struct reading *reading, const char *key, json_t *value)
{
    static const char *const words[] = {"merge", "bsmtp"};
    _Static_assert(MANIFEST_MERGE == 0 && MANIFEST_BSMTP == 1, "words in the enum's order");
    int index = take_word(reading, key, value, words, COUNT_OF(words));
    if (index >= 0) {
        reading->manifest->kind = (enum manifest_kind)index;
    }
}

static void read_missing(struct reading *reading, const char *key, json_t *value)
{
    static const char *const words[] = {"reject", "empty", "literal"};
    _Static_assert(MANIFEST_MISSING_REJECT == 0 && MANIFEST_MISSING_LITERAL == 2,
                   "words in the enum's order");
    int index = take_word(reading, key, value, words, COUNT_OF(words));
    if (index >= 0) {
        reading->manifest->missing = (enum manifest_missing)index;
    }
    reading->merge_key = key;
}

static void read_template(struct reading *reading, const char *key, json_t *value)
{
    static const char *const words[] = {"mustache"};
    (void)take_word(reading, key, value, words, COUNT_OF(words));
    reading->merge_key = key;
}

static void keep_text(struct reading *reading, const char *key, json_t *value, size_t size_max,
                      char **ret_text)
{
    const char *text = take_text(reading, key, value, size_max);
    if (text != NULL) {
        keep_copy(reading, text, ret_text);
    }
}

static void read_from(struct reading *reading, const char *key, json_t *value)
{
    reading->has_from = true;
    reading->merge_key = key;
    keep_text(reading, key, value, MANIFEST_FROM_MAX, &reading->manifest->from);
}

bool manifest_file_is_reserved(const char *name)
{
    static const char *const ours[] = {"batch.json",     "progress.json", "results.ndjson",
                                       "rejects.ndjson", "summary.json",  "reason.txt",
                                       "sources.list",   "order"};
    for (size_t i = 0; i < COUNT_OF(ours); i++) {
        if (strcmp(name, ours[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void read_file_name(struct reading *reading, const char *key, json_t *value, char **ret_name)
{
    const char *text = take_text(reading, key, value, MANIFEST_FILE_NAME_MAX);
    reading->merge_key = key;
    if (text == NULL) {
        return;
    }
    if (text[0] == '\0' || text[0] == '.' || strchr(text, '/') != NULL) {
        complain(reading, "\"%s\" is not the name of a file in the batch's directory", key);
        return;
    }
    if (manifest_file_is_reserved(text)) {
        complain(reading, "\"%s\" names %s, which the engine keeps for itself", key, text);
        return;
    }
    keep_copy(reading, text, ret_name);
}

static void read_message(struct reading *reading, const char *key, json_t *value)
{
    read_file_name(reading, key, value, &reading->manifest->message);
}

static void read_recipients(struct reading *reading, const char *key, json_t *value)
{
    read_file_name(reading, key, value, &reading->manifest->recipients);
}

static void read_label(struct reading *reading, const char *key, json_t *value, char **ret_label)
{
    if (json_is_string(value) && json_string_length(value) == 0) {
        complain(reading, "\"%s\" is empty: leave it out", key);
        return;
    }
    keep_text(reading, key, value, MANIFEST_LABEL_MAX, ret_label);
}

static void read_tenant(struct reading *reading, const char *key, json_t *value)
{
    read_label(reading, key, value, &reading->manifest->tenant);
}

static void read_campaign(struct reading *reading, const char *key, json_t *value)
{
    read_label(reading, key, value, &reading->manifest->campaign);
}

static void read_pool(struct reading *reading, const char *key, json_t *value)
{
    read_label(reading, key, value, &reading->manifest->pool);
}

static bool take_number(struct reading *reading, const char *key, json_t *value, uint64_t max,
                        uint64_t *ret_number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max) {
        complain(reading, "\"%s\" is not a whole number from 0 to %llu", key,
                 (unsigned long long)max);
        return false;
    }
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

static void read_priority(struct reading *reading, const char *key, json_t *value)
{
    uint64_t number;
    if (take_number(reading, key, value, PRIORITY_MAX, &number)) {
        reading->manifest->priority = (uint8_t)number;
    }
}

static void read_count(struct reading *reading, const char *key, json_t *value)
{
    uint64_t number;
    if (take_number(reading, key, value, UINT32_MAX, &number)) {
        reading->manifest->count = number;
    }
}

/* "1%", "0.25%": up to four digits behind the point, so that it is whole in millionths. */
static bool take_percent(struct span text, uint32_t *ret_ppm)
{
    struct cursor cursor = cursor_of(text);
    uint64_t whole;
    if (!cursor_take_uint(&cursor, 100, &whole)) {
        return false;
    }
    uint64_t ppm = whole * (MANIFEST_PPM / 100);
    if (cursor_take_byte(&cursor, '.')) {
        const char *start = cursor.at;
        uint64_t part;
        if (!cursor_take_uint(&cursor, 9999, &part) || cursor.at - start > 4) {
            return false;
        }
        for (ptrdiff_t digits = cursor.at - start; digits < 4; digits++) {
            part *= 10;
        }
        ppm += part;
    }
    if (!cursor_take_byte(&cursor, '%') || cursor_left(&cursor) > 0 || ppm > MANIFEST_PPM) {
        return false;
    }
    *ret_ppm = (uint32_t)ppm;
    return true;
}

static void read_max_reject(struct reading *reading, const char *key, json_t *value)
{
    struct manifest *manifest = reading->manifest;
    if (json_is_integer(value)) {
        if (take_number(reading, key, value, UINT32_MAX, &manifest->max_reject)) {
            manifest->max_reject_ppm = 0;
        }
        return;
    }
    struct span text = json_is_string(value)
                           ? span_of(json_string_value(value), json_string_length(value))
                           : SPAN_NONE;
    if (!take_percent(text, &manifest->max_reject_ppm)) {
        complain(reading,
                 "\"%s\" is neither a number of recipients nor a share like \"1%%\" or "
                 "\"0.25%%\"",
                 key);
    }
}

static void read_time(struct reading *reading, const char *key, json_t *value,
                      struct wall_time *ret_at)
{
    struct wall_time at;
    if (!json_is_string(value) ||
        !text_take_rfc3339(span_of(json_string_value(value), json_string_length(value)), &at) ||
        at.ns <= 0) {
        complain(reading, "\"%s\" is not a time like \"2026-12-01T08:00:00Z\"", key);
        return;
    }
    *ret_at = at;
}

static void read_not_before(struct reading *reading, const char *key, json_t *value)
{
    read_time(reading, key, value, &reading->manifest->not_before);
}

static void read_expires(struct reading *reading, const char *key, json_t *value)
{
    read_time(reading, key, value, &reading->manifest->expires);
}

static void read_results(struct reading *reading, const char *key, json_t *value)
{
    /* Rejected lines are always told, in rejects.ndjson; the word is known because people write it
     * beside the others. */
    static const char *const words[] = {"delivered", "bounced", "expired", "cancelled", "rejected"};
    if (!json_is_array(value)) {
        complain(reading, "\"%s\" is not a list like [\"bounced\",\"expired\"]", key);
        return;
    }
    unsigned results = 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        int index = take_word(reading, key, json_array_get(value, i), words, COUNT_OF(words));
        if (index < 0) {
            return;
        }
        results |= 1u << index & MANIFEST_RESULT_ALL;
    }
    reading->manifest->results = results;
}

static void add_var(struct reading *reading, const char *value)
{
    struct manifest *manifest = reading->manifest;
    if (reading->is_memory_short) {
        return; /* the last one may lack its name */
    }
    for (uint32_t i = 0; i < manifest->vars_count; i++) {
        if (strcmp(manifest->vars[i].name, reading->path) == 0) {
            complain(reading, "\"vars\": \"%s\" is given twice",
                     scan_show(span_of_text(reading->path)).text);
            return;
        }
    }
    if (manifest->vars_count == SCAN_VARS_MAX) {
        complain(reading, "\"vars\": more than %d variables", SCAN_VARS_MAX);
        return;
    }
    struct manifest_var *var = &manifest->vars[manifest->vars_count++];
    keep_copy(reading, reading->path, &var->name);
    keep_copy(reading, value, &var->value);
}

/* Numbers stay as they are written only when they are whole: the JSON reader keeps no others. */
static void read_var_value(struct reading *reading, json_t *value)
{
    char number[32];
    switch (json_typeof(value)) {
    case JSON_STRING:
        add_var(reading, json_string_value(value));
        return;
    case JSON_INTEGER:
        (void)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value));
        add_var(reading, number);
        return;
    case JSON_TRUE:
    case JSON_FALSE:
        add_var(reading, json_is_true(value) ? "true" : "false");
        return;
    case JSON_NULL:
        add_var(reading, "");
        return;
    case JSON_REAL:
        complain(reading, "\"vars\": put the number \"%s\" in quotes, as it shall look",
                 scan_show(span_of_text(reading->path)).text);
        return;
    case JSON_OBJECT:
    case JSON_ARRAY:
        break;
    }
    ensure(false);
}

/* Adds ".name" (or "name" at the start) to the path. False after a complaint. */
static bool path_push(struct reading *reading, const char *name)
{
    struct writer writer = writer_of(reading->path, sizeof(reading->path) - 1);
    writer.at += reading->path_size;
    if (reading->path_size > 0) {
        writer_put_byte(&writer, '.');
    }
    writer_put(&writer, span_of_text(name));
    *writer.at = '\0';
    reading->path_size = writer_size(&writer);
    if (writer.is_full || name[0] == '\0') {
        complain(reading, "\"vars\": a name is empty or longer than %d bytes", SCAN_NAME_MAX);
        return false;
    }
    return true;
}

static void path_pop(struct reading *reading, size_t path_size)
{
    reading->path_size = path_size;
    reading->path[path_size] = '\0';
}

/* What must still be read: containers in which the reader is. */
struct var_level {
    json_t *container;
    void *next;        /* member of an object */
    size_t next_index; /* element of an array */
    size_t path_size;
};

/* The next value of the container, with its name on the path; NULL at the end. */
static json_t *level_take(struct reading *reading, struct var_level *level, bool *ret_is_named)
{
    path_pop(reading, level->path_size);
    if (json_is_array(level->container)) {
        if (level->next_index == json_array_size(level->container)) {
            return NULL;
        }
        char name[32];
        (void)snprintf(name, sizeof(name), "%zu", level->next_index);
        *ret_is_named = path_push(reading, name);
        return json_array_get(level->container, level->next_index++);
    }
    if (level->next == NULL) {
        return NULL;
    }
    *ret_is_named = path_push(reading, json_object_iter_key(level->next));
    json_t *value = json_object_iter_value(level->next);
    level->next = json_object_iter_next(level->container, level->next);
    return value;
}

static void level_enter(struct reading *reading, struct var_level *level, json_t *container)
{
    *level = (struct var_level){.container = container, .path_size = reading->path_size};
    level->next = json_is_object(container) ? json_object_iter(container) : NULL;
}

static void read_vars(struct reading *reading, const char *key, json_t *value)
{
    reading->merge_key = key;
    if (!json_is_object(value)) {
        complain(reading, "\"%s\" is not an object like {\"year\":\"2026\"}", key);
        return;
    }
    struct manifest *manifest = reading->manifest;
    manifest->vars = calloc(SCAN_VARS_MAX, sizeof(manifest->vars[0]));
    if (manifest->vars == NULL) {
        reading->is_memory_short = true;
        return;
    }
    struct var_level levels[SCAN_DEPTH_MAX];
    size_t depth = 1;
    level_enter(reading, &levels[0], value);
    while (depth > 0) {
        bool is_named = false;
        json_t *next = level_take(reading, &levels[depth - 1], &is_named);
        if (next == NULL) {
            depth--;
        } else if (is_named && !json_is_object(next) && !json_is_array(next)) {
            read_var_value(reading, next);
        } else if (is_named && depth == SCAN_DEPTH_MAX) {
            complain(reading, "\"%s\" is nested deeper than %d levels", key, SCAN_DEPTH_MAX);
        } else if (is_named) {
            level_enter(reading, &levels[depth++], next);
        }
    }
}

static void read_unsupported(struct reading *reading, const char *key, json_t *value)
{
    (void)value;
    complain(reading, "\"%s\" is not supported by this version: leave it out", key);
}

static const struct {
    const char *key;
    void (*read)(struct reading *reading, const char *key, json_t *value);
} KEYS[] = {
    {"v", read_v},
    {"id", read_id},
    {"kind", read_kind},
    {"from", read_from},
    {"message", read_message},
    {"recipients", read_recipients},
    {"missing", read_missing},
    {"template", read_template},
    {"tenant", read_tenant},
    {"campaign", read_campaign},
    {"pool", read_pool},
    {"priority", read_priority},
    {"count", read_count},
    {"max_reject", read_max_reject},
    {"not_before", read_not_before},
    {"expires", read_expires},
    {"results", read_results},
    {"vars", read_vars},
    {"max_rate", read_unsupported},
    {"windows", read_unsupported},
    {"notify", read_unsupported},
};

static void read_key(struct reading *reading, const char *key, json_t *value)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        if (strcmp(key, KEYS[i].key) == 0) {
            KEYS[i].read(reading, key, value);
            return;
        }
    }
    complain(reading, "unknown key \"%s\"", scan_show(span_of_text(key)).text);
}

static bool text_ends(const char *text, const char *end)
{
    size_t size = strlen(text);
    size_t end_size = strlen(end);
    return size > end_size && strcmp(text + size - end_size, end) == 0;
}

static void judge_merge(struct reading *reading)
{
    struct manifest *manifest = reading->manifest;
    if (!reading->has_from) {
        complain(reading, "\"from\" is missing: the envelope sender, \"\" for the null path");
    }
    if (manifest->message == NULL) {
        keep_copy(reading, "message.eml", &manifest->message);
    }
    if (manifest->recipients == NULL) {
        keep_copy(reading, "recipients.ndjson", &manifest->recipients);
    }
    const char *recipients = manifest->recipients != NULL ? manifest->recipients : "";
    if (text_ends(recipients, ".csv")) {
        manifest->format = SCAN_CSV;
    } else if (text_ends(recipients, ".zst")) {
        complain(reading, "\"recipients\" is compressed: this version reads .ndjson and .csv");
    } else if (!text_ends(recipients, ".ndjson")) {
        complain(reading, "\"recipients\" ends neither in .ndjson nor in .csv");
    }
    if (strcmp(recipients, manifest->message != NULL ? manifest->message : "") == 0) {
        complain(reading, "\"message\" and \"recipients\" are one file");
    }
}

/* What no key alone can tell. */
static void judge(struct reading *reading, struct span name)
{
    struct manifest *manifest = reading->manifest;
    if (!reading->has_v) {
        complain(reading, "\"v\" is missing: write \"v\":1");
    }
    if (manifest->id[0] == '\0' && manifest_id_is_good(name)) {
        (void)snprintf(manifest->id, sizeof(manifest->id), "%.*s", (int)name.size, name.at);
    } else if (manifest->id[0] == '\0') {
        complain(reading, "\"id\" is missing or bad, and the directory's name cannot stand for it");
    }
    if (manifest->kind == MANIFEST_MERGE) {
        judge_merge(reading);
    } else {
        manifest->format = SCAN_BSMTP;
        if (reading->merge_key != NULL) {
            complain(reading,
                     "\"%s\" has no meaning for kind \"bsmtp\": its messages bring "
                     "sender and text",
                     reading->merge_key);
        }
    }
    if (manifest->expires.ns != 0 && manifest->expires.ns <= manifest->not_before.ns) {
        complain(reading, "\"expires\" is not later than \"not_before\"");
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

/* The root object, or NULL after a complaint. */
static json_t *load(struct reading *reading, struct span json)
{
    json_error_t error;
    if (json.size > MANIFEST_SIZE_MAX) {
        complain(reading, "longer than %d bytes", MANIFEST_SIZE_MAX);
        return NULL;
    }
    if (span_starts(json, SPAN("\xef\xbb\xbf"))) {
        json = span_of(json.at + 3, json.size - 3);
    }
    json_t *root = json_loadb(json.at, json.size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory) {
        reading->is_memory_short = true;
    } else if (root == NULL) {
        char text[2 * JSON_ERROR_TEXT_LENGTH];
        struct writer writer = writer_of(text, sizeof(text) - 1);
        text_put_escaped(&writer, span_of_text(error.text));
        *writer.at = '\0';
        complain(reading, "line %d column %d: %s", error.line, error.column, text);
    } else if (!json_is_object(root)) {
        complain(reading, "not an object: write {\"v\":1, ...}");
        json_decref(root);
        root = NULL;
    }
    return root;
}

struct manifest *manifest_parse(struct span json, struct span name, struct writer *ret_errors)
{
    struct reading reading = {.manifest = manifest_create(), .errors = ret_errors};
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
            read_key(&reading, key, value);
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
    free(manifest->pool);
    free(manifest);
}

bool manifest_allows_rejects(const struct manifest *manifest, uint64_t rejected_count,
                             uint64_t records_count)
{
    ensure(rejected_count <= records_count);
    ensure(records_count <= UINT32_MAX); /* so that the products fit */
    if (manifest->max_reject_ppm == 0) {
        return rejected_count <= manifest->max_reject;
    }
    return rejected_count * MANIFEST_PPM <= records_count * manifest->max_reject_ppm;
}
