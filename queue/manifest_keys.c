/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of batch.json, one by one: what each may be, and what is said when it is not.
 */
#include <jansson.h>
#include <stdio.h>

#include "engine/base/text.h"
#include "queue/manifest_priv.h"

enum { VERSION = 1, PRIORITY_MAX = 9 };

/* A text without control characters, or NULL after a complaint. */
static const char *take_text(struct manifest_reading *reading, const char *key, json_t *value,
                             size_t size_max)
{
    if (!json_is_string(value)) {
        manifest_complain(reading, "\"%s\" is not a text", key);
        return NULL;
    }
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            manifest_complain(reading, "\"%s\" holds a control character", key);
            return NULL;
        }
    }
    if (size > size_max) {
        manifest_complain(reading, "\"%s\" is longer than %zu bytes", key, size_max);
        return NULL;
    }
    return text;
}

static void read_v(struct manifest_reading *reading, const char *key, json_t *value)
{
    reading->has_v = true;
    if (!json_is_integer(value) || json_integer_value(value) != VERSION) {
        manifest_complain(reading, "\"%s\" is not 1, the version of this format", key);
    }
}

static void read_id(struct manifest_reading *reading, const char *key, json_t *value)
{
    const char *text = take_text(reading, key, value, MANIFEST_SIZE_MAX);
    if (text != NULL && !manifest_id_is_good(span_of_text(text))) {
        manifest_complain(reading,
                          "\"%s\" is not 1 to %d of A-Z a-z 0-9 . _ - (no . or - in front)", key,
                          MANIFEST_ID_MAX);
    } else if (text != NULL) {
        (void)snprintf(reading->manifest->id, sizeof(reading->manifest->id), "%s", text);
    }
}

/* The index of the text in `words`, or -1 after a complaint that lists them. */
static int take_word(struct manifest_reading *reading, const char *key, json_t *value,
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
    manifest_complain(reading, "\"%s\" is none of %s", key, list);
    return -1;
}

static void read_kind(struct manifest_reading *reading, const char *key, json_t *value)
{
    static const char *const words[] = {"merge", "bsmtp"};
    _Static_assert(MANIFEST_MERGE == 0 && MANIFEST_BSMTP == 1, "words in the enum's order");
    int index = take_word(reading, key, value, words, COUNT_OF(words));
    if (index >= 0) {
        reading->manifest->kind = (enum manifest_kind)index;
    }
}

static void read_missing(struct manifest_reading *reading, const char *key, json_t *value)
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

static void read_template(struct manifest_reading *reading, const char *key, json_t *value)
{
    static const char *const words[] = {"mustache"};
    (void)take_word(reading, key, value, words, COUNT_OF(words));
    reading->merge_key = key;
}

static void keep_text(struct manifest_reading *reading, const char *key, json_t *value,
                      size_t size_max, char **ret_text)
{
    const char *text = take_text(reading, key, value, size_max);
    if (text != NULL) {
        manifest_keep_copy(reading, text, ret_text);
    }
}

static void read_from(struct manifest_reading *reading, const char *key, json_t *value)
{
    reading->has_from = true;
    reading->merge_key = key;
    keep_text(reading, key, value, MANIFEST_FROM_MAX, &reading->manifest->from);
}

static void read_file_name(struct manifest_reading *reading, const char *key, json_t *value,
                           char **ret_name)
{
    const char *text = take_text(reading, key, value, MANIFEST_FILE_NAME_MAX);
    reading->merge_key = key;
    if (text == NULL) {
        return;
    }
    if (text[0] == '\0' || text[0] == '.' || strchr(text, '/') != NULL) {
        manifest_complain(reading, "\"%s\" is not the name of a file in the batch's directory",
                          key);
        return;
    }
    if (manifest_file_is_reserved(text)) {
        manifest_complain(reading, "\"%s\" names %s, which the engine keeps for itself", key, text);
        return;
    }
    manifest_keep_copy(reading, text, ret_name);
}

static void read_message(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_file_name(reading, key, value, &reading->manifest->message);
}

static void read_recipients(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_file_name(reading, key, value, &reading->manifest->recipients);
}

static void read_label(struct manifest_reading *reading, const char *key, json_t *value,
                       char **ret_label)
{
    if (json_is_string(value) && json_string_length(value) == 0) {
        manifest_complain(reading, "\"%s\" is empty: leave it out", key);
        return;
    }
    keep_text(reading, key, value, MANIFEST_LABEL_MAX, ret_label);
}

static void read_tenant(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_label(reading, key, value, &reading->manifest->tenant);
}

static void read_campaign(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_label(reading, key, value, &reading->manifest->campaign);
}

static bool take_number(struct manifest_reading *reading, const char *key, json_t *value,
                        uint64_t max, uint64_t *ret_number)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > max) {
        manifest_complain(reading, "\"%s\" is not a whole number from 0 to %llu", key,
                          (unsigned long long)max);
        return false;
    }
    *ret_number = (uint64_t)json_integer_value(value);
    return true;
}

static void read_priority(struct manifest_reading *reading, const char *key, json_t *value)
{
    uint64_t number;
    if (take_number(reading, key, value, PRIORITY_MAX, &number)) {
        reading->manifest->priority = (uint8_t)number;
    }
}

static void read_count(struct manifest_reading *reading, const char *key, json_t *value)
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

static void read_max_reject(struct manifest_reading *reading, const char *key, json_t *value)
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
        manifest_complain(reading,
                          "\"%s\" is neither a number of recipients nor a share like \"1%%\" or "
                          "\"0.25%%\"",
                          key);
    }
}

static void read_time(struct manifest_reading *reading, const char *key, json_t *value,
                      struct wall_time *ret_at)
{
    struct wall_time at;
    if (!json_is_string(value) ||
        !text_take_rfc3339(span_of(json_string_value(value), json_string_length(value)), &at) ||
        at.ns <= 0) {
        manifest_complain(reading, "\"%s\" is not a time like \"2026-12-01T08:00:00Z\"", key);
        return;
    }
    if (wall_seconds(at) == WALL_SECONDS_MAX) {
        manifest_complain(
            reading, "\"%s\" is a time behind 2105: leave it out, or name an earlier one", key);
        return;
    }
    *ret_at = at;
}

static void read_not_before(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_time(reading, key, value, &reading->manifest->not_before);
}

static void read_expires(struct manifest_reading *reading, const char *key, json_t *value)
{
    read_time(reading, key, value, &reading->manifest->expires);
}

static void read_results(struct manifest_reading *reading, const char *key, json_t *value)
{
    /* Rejected lines are always told, in rejects.ndjson; the word is known because people write it
     * beside the others. */
    static const char *const words[] = {"delivered", "bounced", "expired", "cancelled", "rejected"};
    if (!json_is_array(value)) {
        manifest_complain(reading, "\"%s\" is not a list like [\"bounced\",\"expired\"]", key);
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

static void read_unsupported(struct manifest_reading *reading, const char *key, json_t *value)
{
    (void)value;
    manifest_complain(reading, "\"%s\" is not supported by this version: leave it out", key);
}

static const struct {
    const char *key;
    void (*read)(struct manifest_reading *reading, const char *key, json_t *value);
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
    {"priority", read_priority},
    {"count", read_count},
    {"max_reject", read_max_reject},
    {"not_before", read_not_before},
    {"expires", read_expires},
    {"results", read_results},
    {"vars", manifest_read_vars},
    {"max_rate", read_unsupported},
    {"windows", read_unsupported},
    {"notify", read_unsupported},
    {"pool", read_unsupported},
};

void manifest_read_key(struct manifest_reading *reading, const char *key, json_t *value)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        if (strcmp(key, KEYS[i].key) == 0) {
            KEYS[i].read(reading, key, value);
            return;
        }
    }
    manifest_complain(reading, "unknown key \"%s\"", scan_show(span_of_text(key)).text);
}
