/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/verbs.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/check_batch.h"
#include "engine/check_environment.h"
#include "engine/config.h"

enum { FINDINGS_SIZE = 64 * 1024, DEFAULTS_SIZE = 64 * 1024, BATCHES_MAX = 256 };

static const char HELP[] =
    "usage: ramjet check [-c FILE] [--json] [--sample N] [NAME.batch ...]\n"
    "       ramjet check --defaults\n"
    "\n"
    "Without a batch: is the configuration right, and does this machine let the engine run with\n"
    "it? With batches: would the engine accept them, and every record in them? Nothing is sent,\n"
    "nothing is written.\n"
    "\n"
    "  --defaults  prints every key of the configuration with its default and meaning\n"
    "  --sample N  prints the mail of the Nth accepted recipient as it would be sent\n"
    "\n"
    "exit status: 0 all is well (warnings are allowed), 1 something is wrong, 2 wrong words\n";

struct words {
    const char *config_path;
    bool is_json;
    bool is_defaults;
    uint64_t sample;
    uint32_t batches_count;
    const char *batches[BATCHES_MAX];
};

static int refuse(const char *what, const char *detail)
{
    (void)fprintf(stderr, "ramjet check: %s%s; see ramjet check --help\n", what, detail);
    return 2;
}

static int take_words(struct words *words, int count, char **list)
{
    for (int i = 0; i < count; i++) {
        bool has_value = i + 1 < count;
        if (strcmp(list[i], "--json") == 0) {
            words->is_json = true;
        } else if (strcmp(list[i], "--defaults") == 0) {
            words->is_defaults = true;
        } else if (strcmp(list[i], "-c") == 0 && has_value) {
            words->config_path = list[++i];
        } else if (strcmp(list[i], "--sample") == 0 && has_value) {
            struct cursor cursor = cursor_of(span_of_text(list[++i]));
            if (!cursor_take_uint(&cursor, UINT32_MAX, &words->sample) || words->sample == 0 ||
                cursor_left(&cursor) > 0) {
                return refuse("--sample wants a number from 1, not ", list[i]);
            }
        } else if (list[i][0] == '-') {
            return refuse("no such option, or nothing behind it: ", list[i]);
        } else if (words->batches_count == BATCHES_MAX) {
            return refuse("too many batches at once: ", list[i]);
        } else {
            words->batches[words->batches_count++] = list[i];
        }
    }
    if (words->sample > 0 && words->batches_count == 0) {
        return refuse("--sample is of a batch", "");
    }
    return 0;
}

static int print_defaults(void)
{
    char *text = malloc(DEFAULTS_SIZE);
    struct writer writer = writer_of(text, text == NULL ? 0 : DEFAULTS_SIZE);
    config_put_defaults(&writer);
    ensure(!writer.is_full);
    (void)fwrite(writer.start, 1, writer_size(&writer), stdout);
    free(text);
    return 0;
}

/* Lines of findings, as they go out. */

static void print_findings(const char *kind, const struct writer *findings)
{
    struct cursor cursor = cursor_of(writer_span(findings));
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        (void)printf("%s: %.*s\n", kind, (int)line.size, line.at);
    }
}

static json_t *json_of(struct span text)
{
    json_t *string = json_stringn(text.at, text.size);
    return string != NULL ? string : json_string("(not UTF-8)");
}

static json_t *json_lines(struct span text)
{
    json_t *array = json_array();
    struct cursor cursor = cursor_of(text);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        (void)json_array_append_new(array, json_of(line));
    }
    if (cursor_left(&cursor) > 0) {
        (void)json_array_append_new(array, json_of(span_of(cursor.at, cursor_left(&cursor))));
    }
    return array;
}

static void print_json(json_t *root)
{
    (void)json_dumpf(root, stdout, JSON_INDENT(2));
    (void)printf("\n");
    json_decref(root);
}

/* Batches. */

static bool is_fine(const struct check_batch *check)
{
    return check->problem[0] == '\0' && check->rejected_count == 0;
}

static void print_names(const struct check_batch *check)
{
    for (uint32_t i = 0; i < check->wanted_count; i++) {
        (void)printf("  missing: {{%s}} has no default, and %llu of the records do not give it\n",
                     check->wanted[i].name, (unsigned long long)check->wanted[i].count);
    }
    for (uint32_t i = 0; i < check->given_count; i++) {
        if (!check->given[i].is_used) {
            (void)printf("  unused: \"%s\" is given, and the message does not use it\n",
                         check->given[i].name);
        }
    }
}

static void print_batch(const struct check_batch *check, const char *path)
{
    (void)printf("%s: %llu recipients, %llu rejected%s\n", path,
                 (unsigned long long)check->recipients_count,
                 (unsigned long long)check->rejected_count,
                 check->problem[0] == '\0' ? "" : ": the engine would not run it");
    struct cursor cursor = cursor_of(span_of_text(check->problem));
    while (cursor_left(&cursor) > 0) {
        struct span line = cursor_take_until(&cursor, '\n');
        (void)cursor_take_byte(&cursor, '\n');
        (void)printf("  error: %.*s\n", (int)line.size, line.at);
    }
    for (uint32_t i = 0; i < check->rejects_count; i++) {
        const struct check_batch_reject *row = &check->rejects[i];
        (void)printf("  %s:%llu: %s%s%s\n", row->file, (unsigned long long)row->line, row->reason,
                     row->remedy[0] == '\0' ? "" : "; ", row->remedy);
    }
    if (check->rejected_count > check->rejects_count) {
        (void)printf("  ... and %llu more\n",
                     (unsigned long long)(check->rejected_count - check->rejects_count));
    }
    print_names(check);
    if (check->sample != NULL) {
        (void)printf("\n");
        for (size_t i = 0; i < check->sample_size; i++) {
            if (check->sample[i] != '\r') {
                (void)putchar(check->sample[i]);
            }
        }
    }
}

static json_t *json_names(const struct check_batch_name *names, uint32_t count, bool is_unused_only)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++) {
        if (!is_unused_only || !names[i].is_used) {
            (void)json_array_append_new(array, json_pack("{s:o,s:I}", "name",
                                                         json_of(span_of_text(names[i].name)),
                                                         "records", (json_int_t)names[i].count));
        }
    }
    return array;
}

static json_t *json_batch(const struct check_batch *check, const char *path)
{
    json_t *rejects = json_array();
    for (uint32_t i = 0; i < check->rejects_count; i++) {
        const struct check_batch_reject *row = &check->rejects[i];
        (void)json_array_append_new(
            rejects, json_pack("{s:o,s:I,s:o,s:s}", "file", json_of(span_of_text(row->file)),
                               "line", (json_int_t)row->line, "reason",
                               json_of(span_of_text(row->reason)), "remedy", row->remedy));
    }
    json_t *batch = json_pack("{s:o,s:s,s:b,s:o,s:I,s:I,s:o,s:o,s:o}", "path",
                              json_of(span_of_text(path)), "id", check->id, "ok", is_fine(check),
                              "errors", json_lines(span_of_text(check->problem)), "recipients",
                              (json_int_t)check->recipients_count, "rejected",
                              (json_int_t)check->rejected_count, "rejects", rejects, "missing",
                              json_names(check->wanted, check->wanted_count, false), "unused",
                              json_names(check->given, check->given_count, true));
    if (check->sample != NULL) {
        (void)json_object_set_new(batch, "sample",
                                  json_of(span_of(check->sample, check->sample_size)));
    }
    return batch;
}

static int check_batches(const struct words *words, const struct config *config)
{
    struct check_batch *check = malloc(sizeof(*check));
    json_t *batches = json_array();
    bool is_all_fine = check != NULL;
    for (uint32_t i = 0; i < words->batches_count && check != NULL; i++) {
        (void)check_batch_run(check, config, words->batches[i], words->sample);
        bool has_sample = words->sample == 0 || words->sample <= check->recipients_count;
        is_all_fine = is_all_fine && is_fine(check) && has_sample;
        if (!has_sample) {
            (void)fprintf(stderr, "ramjet: --sample %llu: %s has %llu recipients\n",
                          (unsigned long long)words->sample, words->batches[i],
                          (unsigned long long)check->recipients_count);
        }
        if (words->is_json) {
            (void)json_array_append_new(batches, json_batch(check, words->batches[i]));
        } else {
            print_batch(check, words->batches[i]);
        }
        check_batch_free(check);
    }
    free(check);
    if (words->is_json) {
        print_json(json_pack("{s:b,s:O}", "ok", is_all_fine, "batches", batches));
    }
    json_decref(batches);
    return is_all_fine ? 0 : 1;
}

/* The configuration and the machine. */

static int tell(const struct words *words, const char *path, const struct writer *errors,
                const struct writer *warnings)
{
    bool is_fine = writer_size(errors) == 0;
    const char *name = path != NULL ? path : "(defaults)";
    if (words->is_json) {
        print_json(json_pack("{s:b,s:o,s:o,s:o}", "ok", is_fine, "config",
                             json_of(span_of_text(name)), "errors", json_lines(writer_span(errors)),
                             "warnings", json_lines(writer_span(warnings))));
    } else {
        print_findings("error", errors);
        print_findings("warning", warnings);
        (void)printf("%s: %s\n", name, is_fine ? "ok" : "the engine would not run with this");
    }
    return is_fine ? 0 : 1;
}

static int check_all(const struct words *words, char *errors_text, char *warnings_text)
{
    struct writer errors = writer_of(errors_text, FINDINGS_SIZE);
    struct writer warnings = writer_of(warnings_text, FINDINGS_SIZE);
    const char *path = words->config_path;
    if (path == NULL && access(VERBS_CONFIG_PATH, F_OK) == 0) {
        path = VERBS_CONFIG_PATH;
    }
    struct config *config = config_read(path, &errors);
    int status;
    if (config != NULL && words->batches_count > 0) {
        status = check_batches(words, config);
    } else {
        if (config != NULL) {
            check_environment(config, &errors, &warnings);
        }
        status = tell(words, path, &errors, &warnings);
    }
    config_destroy(config);
    return status;
}

int verb_check(int count, char **list)
{
    struct words words = {.config_path = NULL};
    if (count > 0 && (strcmp(list[0], "--help") == 0 || strcmp(list[0], "-h") == 0)) {
        (void)fputs(HELP, stdout);
        return 0;
    }
    int status = take_words(&words, count, list);
    if (status != 0) {
        return status;
    }
    if (words.is_defaults) {
        return print_defaults();
    }
    char *texts = malloc(2 * FINDINGS_SIZE);
    if (texts == NULL) {
        (void)fprintf(stderr, "ramjet: out of memory\n");
        return 1;
    }
    status = check_all(&words, texts, texts + FINDINGS_SIZE);
    free(texts);
    return status;
}
