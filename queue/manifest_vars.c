/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The variables of batch.json: whatever is nested in "vars", by names with dots.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/manifest_priv.h"

static void add_var(struct manifest_reading *reading, const char *value)
{
    struct manifest *manifest = reading->manifest;
    if (reading->is_memory_short) {
        return; /* the last one may lack its name */
    }
    for (uint32_t i = 0; i < manifest->vars_count; i++) {
        if (strcmp(manifest->vars[i].name, reading->path) == 0) {
            manifest_complain(reading, "\"vars\": \"%s\" is given twice",
                              scan_show(span_of_text(reading->path)).text);
            return;
        }
    }
    if (manifest->vars_count == SCAN_VARS_MAX) {
        manifest_complain(reading, "\"vars\": more than %d variables", SCAN_VARS_MAX);
        return;
    }
    struct manifest_var *var = &manifest->vars[manifest->vars_count++];
    manifest_keep_copy(reading, reading->path, &var->name);
    manifest_keep_copy(reading, value, &var->value);
}

/* Numbers stay as they are written only when they are whole: the JSON reader keeps no others. */
static void read_var_value(struct manifest_reading *reading, json_t *value)
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
        manifest_complain(reading, "\"vars\": put the number \"%s\" in quotes, as it shall look",
                          scan_show(span_of_text(reading->path)).text);
        return;
    case JSON_OBJECT:
    case JSON_ARRAY:
        break;
    }
    ensure(false);
}

/* Adds ".name" (or "name" at the start) to the path. False after a complaint. */
static bool path_push(struct manifest_reading *reading, const char *name)
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
        manifest_complain(reading, "\"vars\": a name is empty or longer than %d bytes",
                          SCAN_NAME_MAX);
        return false;
    }
    return true;
}

static void path_pop(struct manifest_reading *reading, size_t path_size)
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
static json_t *level_take(struct manifest_reading *reading, struct var_level *level,
                          bool *ret_is_named)
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

static void level_enter(struct manifest_reading *reading, struct var_level *level,
                        json_t *container)
{
    *level = (struct var_level){.container = container, .path_size = reading->path_size};
    level->next = json_is_object(container) ? json_object_iter(container) : NULL;
}

void manifest_read_vars(struct manifest_reading *reading, const char *key, json_t *value)
{
    reading->merge_key = key;
    if (!json_is_object(value)) {
        manifest_complain(reading, "\"%s\" is not an object like {\"year\":\"2026\"}", key);
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
            manifest_complain(reading, "\"%s\" is nested deeper than %d levels", key,
                              SCAN_DEPTH_MAX);
        } else if (is_named) {
            level_enter(reading, &levels[depth++], next);
        }
    }
}
