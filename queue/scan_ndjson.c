/* SPDX-License-Identifier: Apache-2.0 */
/*
 * NDJSON: one object a line (RFC 8259 in UTF-8, without line ends inside).
 *
 * One yajl handle is kept over all records (yajl_allow_multiple_values); after an error it is made
 * anew, because yajl has no way back from one. yajl is trusted with the grammar, not with the
 * text: it lets ill-formed UTF-8 through that its simple check does not see, and makes "?" of a
 * lone surrogate; both are checked here before it runs, so that what is accepted is faithful.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <yajl/yajl_parse.h>

#include "engine/base/text.h"
#include "queue/scan_priv.h"

enum json_target { /* what the value of the top-level key under way is */
                   TARGET_TO,
                   TARGET_ID,
                   TARGET_VARS,
                   TARGET_NAME,
                   TARGET_IGNORED,
};
enum { TARGETS_COUNT = TARGET_IGNORED + 1 };

enum json_kind { KIND_STRING, KIND_NUMBER, KIND_BOOLEAN, KIND_NULL };

struct json_level {
    bool is_array;
    uint32_t next_index; /* of an array */
    size_t path_size;    /* of the path up to this container */
};

struct scan_json {
    struct scan_parser *parser;
    yajl_handle handle;
    struct span record;
    struct scan_problem *problem; /* NULL: none yet */
    struct scan_problem *ret_problem;
    unsigned depth; /* containers open */
    bool is_done;   /* the object has ended */
    unsigned seen;  /* bit per enum json_target */
    enum json_target target;
    struct span name; /* top-level "name" */
    bool has_name;
    struct span key; /* the key whose value is next, when it needs no path */
    struct json_level levels[SCAN_DEPTH_MAX + 1];
    size_t path_size;
    char path[SCAN_NAME_MAX];
};

static const struct {
    struct span key;
    enum json_target target;
} KEYS[] = {
    {{"to", 2}, TARGET_TO},     {{"email", 5}, TARGET_TO},  {{"recipient", 9}, TARGET_TO},
    {{"id", 2}, TARGET_ID},     {{"vars", 4}, TARGET_VARS}, {{"substitutions", 13}, TARGET_VARS},
    {{"data", 4}, TARGET_VARS}, {{"name", 4}, TARGET_NAME}, {{"metadata", 8}, TARGET_IGNORED},
};

#define json_fail(json, ...)                                                                       \
    ((json)->problem = (json)->ret_problem, scan_problem_set((json)->problem, __VA_ARGS__), 0)

static struct span json_keep(struct scan_json *json, struct span piece)
{
    return scan_is_inside(json->record, piece) ? piece : scan_scratch_put(json->parser, piece);
}

/* The path of the value that comes now, below "vars". At the first level it is the key alone. */
static bool json_path(struct scan_json *json, struct span *ret_path)
{
    struct json_level *level = &json->levels[json->depth];
    if (!level->is_array && level->path_size == 0) {
        *ret_path = json->key;
        return true;
    }
    struct writer writer = writer_of(json->path, sizeof(json->path));
    writer.at += level->path_size;
    writer_put_byte(&writer, '.');
    if (level->is_array) {
        writer_put_uint(&writer, level->next_index++);
    } else {
        writer_put(&writer, json->key);
    }
    *ret_path = writer_span(&writer);
    return !writer.is_full;
}

static int json_path_fail(struct scan_json *json)
{
    return json_fail(json, "the name of a variable below \"%s\" is longer than %d bytes",
                     scan_show(span_of(json->path, json->levels[json->depth].path_size)).text,
                     SCAN_NAME_MAX);
}

static int json_var_add(struct scan_json *json, struct span value)
{
    struct scan_recipient *recipient = &json->parser->recipient;
    struct span path;
    if (!json_path(json, &path)) {
        return json_path_fail(json);
    }
    if (recipient->vars_count == SCAN_VARS_MAX) {
        return json_fail(json, "more than %d variables", SCAN_VARS_MAX);
    }
    if (scan_var_find(json->parser, path) != NULL) {
        return json_fail(json, "the variable \"%s\" is given twice", scan_show(path).text);
    }
    recipient->vars[recipient->vars_count++] =
        (struct scan_var){.name = json_keep(json, path), .value = json_keep(json, value)};
    return 1;
}

/* A value that is not a container, of a top-level key. */
static int json_top_value(struct scan_json *json, enum json_kind kind, struct span value)
{
    struct scan_recipient *recipient = &json->parser->recipient;
    switch (json->target) {
    case TARGET_TO:
        if (kind != KIND_STRING) {
            return json_fail(json, "the address is not a text: write \"to\":\"ann@example.org\"");
        }
        recipient->to = json_keep(json, value);
        return 1;
    case TARGET_ID:
        if (kind != KIND_STRING && kind != KIND_NUMBER) {
            return json_fail(json, "\"id\" is neither a text nor a number");
        }
        recipient->id = json_keep(json, value);
        return 1;
    case TARGET_NAME:
        if (kind != KIND_STRING && kind != KIND_NULL) {
            return json_fail(json, "\"name\" is not a text");
        }
        json->name = json_keep(json, value);
        json->has_name = true;
        return 1;
    case TARGET_VARS:
        return kind == KIND_NULL || json_fail(json, "the variables are not an object: write "
                                                    "\"vars\":{\"name\":\"Ann\"}");
    case TARGET_IGNORED:
        return 1;
    }
    ensure(false);
    return 0;
}

static int json_value(struct scan_json *json, enum json_kind kind, struct span value)
{
    if (json->depth == 0) {
        return json_fail(json, "not an object: write {\"to\":\"ann@example.org\"}");
    }
    if (json->depth == 1) {
        return json_top_value(json, kind, value);
    }
    return json->target == TARGET_VARS ? json_var_add(json, value) : 1;
}

static int on_null(void *context)
{
    return json_value(context, KIND_NULL, SPAN_NONE);
}

static int on_boolean(void *context, int value)
{
    return json_value(context, KIND_BOOLEAN, value ? SPAN("true") : SPAN("false"));
}

static int on_number(void *context, const char *text, size_t size)
{
    return json_value(context, KIND_NUMBER, span_of(text, size));
}

static int on_string(void *context, const unsigned char *text, size_t size)
{
    return json_value(context, KIND_STRING, span_of(text, size));
}

/* A container below "vars" extends the path of what is in it; the object of "vars" itself has none.
 */
static int json_enter(struct scan_json *json, bool is_array)
{
    if (json->depth == 0 && (is_array || json->is_done)) {
        return json_fail(json, json->is_done ? "more than one object on the line"
                                             : "not an object: write {\"to\":\"ann@example.org\"}");
    }
    if (json->depth == SCAN_DEPTH_MAX) {
        return json_fail(json, "nested deeper than %d levels", SCAN_DEPTH_MAX);
    }
    if (json->depth == 1 && json->target != TARGET_IGNORED &&
        (is_array || json->target != TARGET_VARS)) {
        return json_top_value(json, KIND_BOOLEAN, SPAN_NONE);
    }
    size_t path_size = 0;
    if (json->depth >= 2 && json->target == TARGET_VARS) {
        struct span path;
        if (!json_path(json, &path)) {
            return json_path_fail(json);
        }
        memmove(json->path, path.at, path.size);
        path_size = path.size;
    }
    json->depth++;
    json->levels[json->depth] = (struct json_level){.is_array = is_array, .path_size = path_size};
    return 1;
}

static int json_leave(struct scan_json *json)
{
    ensure(json->depth > 0);
    json->depth--;
    json->is_done = json->depth == 0;
    return 1;
}

static int on_start_map(void *context)
{
    return json_enter(context, false);
}

static int on_start_array(void *context)
{
    return json_enter(context, true);
}

static int on_end(void *context)
{
    return json_leave(context);
}

static int json_top_key(struct scan_json *json, struct span key)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        if (span_equal(key, KEYS[i].key)) {
            json->target = KEYS[i].target;
            if ((json->seen & 1u << json->target) != 0) {
                return json_fail(json, "\"%s\" is given twice, or under two names", KEYS[i].key.at);
            }
            json->seen |= 1u << json->target;
            return 1;
        }
    }
    return json_fail(json, "unknown key \"%s\": there are to, id, vars, name, metadata",
                     scan_show(key).text);
}

static int on_key(void *context, const unsigned char *text, size_t size)
{
    struct scan_json *json = context;
    struct span key = span_of(text, size);
    if (json->depth == 1) {
        return json_top_key(json, key);
    }
    if (json->target != TARGET_VARS) {
        return 1;
    }
    if (key.size == 0 || key.size > SCAN_NAME_MAX) {
        return json_fail(json, key.size == 0 ? "a variable has an empty name"
                                             : "a variable's name is longer than 255 bytes");
    }
    /* yajl decodes the value into the buffer in which an escaped key lies. */
    json->key = json_keep(json, key);
    return 1;
}

static const yajl_callbacks CALLBACKS = {
    .yajl_null = on_null,
    .yajl_boolean = on_boolean,
    .yajl_number = on_number,
    .yajl_string = on_string,
    .yajl_start_map = on_start_map,
    .yajl_map_key = on_key,
    .yajl_end_map = on_end,
    .yajl_start_array = on_start_array,
    .yajl_end_array = on_end,
};

static bool json_open(struct scan_json *json)
{
    json->handle = yajl_alloc(&CALLBACKS, NULL, json);
    return json->handle != NULL && yajl_config(json->handle, yajl_allow_multiple_values, 1) &&
           yajl_config(json->handle, yajl_dont_validate_strings, 1);
}

struct scan_json *scan_json_create(struct scan_parser *parser)
{
    struct scan_json *json = calloc(1, sizeof(*json));
    if (json == NULL) {
        return NULL;
    }
    json->parser = parser;
    if (!json_open(json)) {
        scan_json_destroy(json);
        return NULL;
    }
    return json;
}

void scan_json_destroy(struct scan_json *json)
{
    if (json != NULL) {
        if (json->handle != NULL) {
            yajl_free(json->handle);
        }
        free(json);
    }
}

/* Four hexadecimal digits, or -1. */
static int32_t json_hex4(struct cursor *cursor)
{
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char byte;
        if (!cursor_take(cursor, &byte)) {
            return -1;
        }
        int digit = byte >= '0' && byte <= '9'   ? byte - '0'
                    : byte >= 'a' && byte <= 'f' ? byte - 'a' + 10
                    : byte >= 'A' && byte <= 'F' ? byte - 'A' + 10
                                                 : -1;
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* RFC 8259 8.2: a surrogate stands in a pair or not at all. Escapes that are no escapes are left to
 * yajl. */
static bool json_has_lone_surrogate(struct span record)
{
    struct cursor cursor = cursor_of(record);
    for (;;) {
        (void)cursor_take_until(&cursor, '\\');
        if (!cursor_take_byte(&cursor, '\\')) {
            return false;
        }
        char byte;
        if (!cursor_take(&cursor, &byte) || byte != 'u') {
            continue;
        }
        int32_t first = json_hex4(&cursor);
        if (first < 0xd800 || first > 0xdfff) {
            continue;
        }
        if (first > 0xdbff || !cursor_take_text(&cursor, SPAN("\\u"))) {
            return true;
        }
        int32_t second = json_hex4(&cursor);
        if (second < 0xdc00 || second > 0xdfff) {
            return true;
        }
    }
}

static void json_reset(struct scan_json *json, struct span record, struct scan_problem *problem)
{
    struct scan_recipient *recipient = &json->parser->recipient;
    recipient->to = SPAN_NONE;
    recipient->id = SPAN_NONE;
    recipient->vars_count = 0;
    json->record = record;
    json->problem = NULL;
    json->ret_problem = problem;
    json->depth = 0;
    json->is_done = false;
    json->seen = 0;
    json->has_name = false;
}

/* yajl's words are used for the grammar's errors: "invalid char in json text" and the like. */
static void json_explain(struct scan_json *json, struct span record, size_t column)
{
    const unsigned char *at = (const unsigned char *)record.at;
    unsigned char *words = yajl_get_error(json->handle, 0, at, record.size);
    struct span line = words != NULL ? span_of_text((const char *)words) : SPAN("not JSON");
    line.size = span_find(line, '\n');
    (void)json_fail(json, "not one JSON object on one line: column %zu: %.*s", column,
                    (int)line.size, line.at);
    if (words != NULL) {
        yajl_free_error(json->handle, words);
    }
}

/* What can only be judged when the whole object was seen. */
static int json_finish(struct scan_json *json)
{
    if (!json->is_done) {
        return json_fail(json, "not one JSON object on one line: it is cut off");
    }
    if ((json->seen & 1u << TARGET_TO) == 0) {
        return json_fail(json, "no address: add \"to\":\"ann@example.org\"");
    }
    if (json->has_name && scan_var_find(json->parser, SPAN("name")) == NULL) {
        struct scan_recipient *recipient = &json->parser->recipient;
        if (recipient->vars_count == SCAN_VARS_MAX) {
            return json_fail(json, "more than %d variables", SCAN_VARS_MAX);
        }
        recipient->vars[recipient->vars_count++] =
            (struct scan_var){.name = SPAN("name"), .value = json->name};
    }
    return 1;
}

/*
 * Feeds the record and then a line end, which ends an open number or word and breaks an open
 * string. yajl_complete_parse would leave a string open: the next record would begin inside it.
 */
static bool json_feed(struct scan_json *json, struct span record)
{
    const unsigned char *at = (const unsigned char *)record.at;
    yajl_status status = yajl_parse(json->handle, at, record.size);
    size_t column = status != yajl_status_ok ? yajl_get_bytes_consumed(json->handle) : record.size;
    if (status == yajl_status_ok) {
        status = yajl_parse(json->handle, (const unsigned char *)"\n", 1);
    }
    if (status != yajl_status_ok && json->problem == NULL) {
        json_explain(json, record, column + 1);
    }
    return status == yajl_status_ok;
}

/* False, with the problem filled in, for text that yajl would not keep as it is. */
static bool json_text_is_good(struct span record, struct scan_problem *ret_problem)
{
    if (scan_line_is_blank(record)) {
        scan_problem_set(ret_problem, "not an object: write {\"to\":\"ann@example.org\"}");
        return false;
    }
    if (!text_is_ascii(record) && !text_is_utf8(record)) {
        scan_problem_set(ret_problem, "not valid UTF-8: write the file in UTF-8");
        return false;
    }
    if (json_has_lone_surrogate(record)) {
        scan_problem_set(ret_problem, "half of a \\ud800..\\udfff pair stands alone");
        return false;
    }
    return true;
}

int scan_json_record(struct scan_json *json, struct span record, struct scan_problem *ret_problem)
{
    record = scan_line_chop(record);
    json_reset(json, record, ret_problem);
    if (!json_text_is_good(record, ret_problem)) {
        return -EINVAL;
    }
    if (json->handle == NULL && !json_open(json)) {
        scan_problem_set(ret_problem, "out of memory");
        ret_problem->is_memory_short = true;
        return -EINVAL;
    }
    bool is_fed = json_feed(json, record);
    bool is_between = is_fed && json->is_done;
    if (is_fed && json_finish(json)) {
        return 0;
    }
    if (!is_between) {
        yajl_free(json->handle);
        json->handle = NULL;
        (void)json_open(json);
    }
    return -EINVAL;
}

/* Skips the rest of a record that was too long. True when its end was found. */
static bool ndjson_skip_rest(struct scan_splitter *splitter, struct span bytes, size_t *start)
{
    size_t end = *start + span_find(span_of(bytes.at + *start, bytes.size - *start), '\n');
    bool is_ended = end < bytes.size;
    *start = is_ended ? end + 1 : end;
    if (is_ended) {
        splitter->is_too_long = false;
        splitter->line++;
    }
    return is_ended;
}

enum scan_split scan_ndjson_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                  size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                  struct scan_problem *ret_problem)
{
    size_t start = 0;
    if (!splitter->is_begun && !scan_split_begin(splitter, bytes, is_last, &start)) {
        return scan_split_more(splitter, 0, 0, is_last, ret_skip);
    }
    if (splitter->is_too_long && !ndjson_skip_rest(splitter, bytes, &start)) {
        return scan_split_more(splitter, start, bytes.size, is_last, ret_skip);
    }
    for (;;) {
        size_t from = start + (size_t)splitter->scanned;
        ensure(from <= bytes.size);
        size_t end = from + span_find(span_of(bytes.at + from, bytes.size - from), '\n');
        bool is_ended = end < bytes.size;
        end += is_ended;
        if (end - start > splitter->record_size_max) {
            return scan_split_too_long(splitter, start, ret_skip, ret_size, ret_line, ret_problem);
        }
        if (start == bytes.size || (!is_ended && !is_last)) {
            return scan_split_more(splitter, start, bytes.size, is_last, ret_skip);
        }
        splitter->scanned = 0;
        uint64_t line = splitter->line;
        splitter->line += is_ended;
        if (!scan_line_is_blank(span_of(bytes.at + start, end - start))) {
            *ret_skip = start;
            *ret_size = end - start;
            *ret_line = line;
            return SCAN_SPLIT_RECORD;
        }
        start = end;
    }
}
