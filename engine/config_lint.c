/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config_lint.h"

#include <stdio.h>

/* A name is a guess at another when so many letters make the difference, at most. */
enum { GUESS_DISTANCE_MAX = 2, GUESS_NAME_MAX = 32 };

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_EQUAL, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_OTHER };

struct token {
    enum token_kind kind;
    size_t at;
    size_t end;
    int line;
};

/* One file under way. */
struct reading {
    struct config_lint *lint;
    const char *file;
    char *text;
    size_t size;
    size_t at;
    int line;
};

static struct span text_of(const struct reading *reading, const struct token *token)
{
    return span_of(reading->text + token->at, token->end - token->at);
}

/* Over what lies from `at` to `end`, counting lines. */
static void pass(struct reading *reading, size_t end)
{
    for (; reading->at < end; reading->at++) {
        reading->line += reading->text[reading->at] == '\n';
    }
}

static bool is_at(const struct reading *reading, const char *text)
{
    return span_starts(span_of(reading->text + reading->at, reading->size - reading->at),
                       span_of_text(text));
}

static size_t end_of_comment(const struct reading *reading)
{
    struct span rest = span_of(reading->text + reading->at, reading->size - reading->at);
    if (!is_at(reading, "/*")) {
        return reading->at + span_find(rest, '\n');
    }
    const char *end = rest.size > 2 ? memmem(rest.at + 2, rest.size - 2, "*/", 2) : NULL;
    return end == NULL ? reading->size : (size_t)(end - reading->text) + 2;
}

static void blank(const struct reading *reading, size_t at, size_t end)
{
    for (; at < end; at++) {
        if (reading->text[at] != '\n') {
            reading->text[at] = ' ';
        }
    }
}

/* Comments become blanks. */
static void pass_blanks(struct reading *reading)
{
    while (reading->at < reading->size) {
        char byte = reading->text[reading->at];
        if (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n') {
            pass(reading, reading->at + 1);
        } else if (byte == '#' || is_at(reading, "//") || is_at(reading, "/*")) {
            size_t end = end_of_comment(reading);
            blank(reading, reading->at, end);
            pass(reading, end);
        } else {
            return;
        }
    }
}

static size_t end_of_quoted(const struct reading *reading)
{
    char quote = reading->text[reading->at];
    size_t at = reading->at + 1;
    while (at < reading->size && reading->text[at] != quote) {
        at += reading->text[at] == '\\' ? 2 : 1;
    }
    return at < reading->size ? at + 1 : reading->size;
}

/* ${NAME} stands for a variable of the environment, braces and all. */
static size_t end_of_word(const struct reading *reading)
{
    size_t at = reading->at;
    while (at < reading->size) {
        struct span rest = span_of(reading->text + at, reading->size - at);
        if (span_starts(rest, SPAN("${"))) {
            size_t end = span_find(rest, '}');
            at += end < rest.size ? end + 1 : rest.size;
        } else if (strchr(" \t\r\n\"'{}(),=#", *rest.at) != NULL || span_starts(rest, SPAN("+="))) {
            break;
        } else {
            at++;
        }
    }
    return at;
}

static struct token next(struct reading *reading)
{
    pass_blanks(reading);
    struct token token = {.at = reading->at, .end = reading->at, .line = reading->line};
    if (reading->at == reading->size) {
        return token;
    }
    char byte = reading->text[reading->at];
    if (byte == '"' || byte == '\'') {
        token.kind = TOKEN_WORD;
        token.end = end_of_quoted(reading);
    } else if (is_at(reading, "+=")) {
        token.kind = TOKEN_EQUAL;
        token.end = reading->at + 2;
    } else if (end_of_word(reading) > reading->at) {
        token.kind = TOKEN_WORD;
        token.end = end_of_word(reading);
    } else {
        token.kind = byte == '='   ? TOKEN_EQUAL
                     : byte == '{' ? TOKEN_OPEN
                     : byte == '}' ? TOKEN_CLOSE
                                   : TOKEN_OTHER;
        token.end = reading->at + 1;
    }
    pass(reading, token.end);
    return token;
}

/* To the brace that closes the one that was taken; false: there is none. */
static bool pass_braces(struct reading *reading)
{
    for (uint32_t depth = 1; depth > 0;) {
        struct token token = next(reading);
        if (token.kind == TOKEN_END) {
            return false;
        }
        depth += token.kind == TOKEN_OPEN;
        depth -= token.kind == TOKEN_CLOSE;
    }
    return true;
}

/* How many letters must be put in, taken out or changed (Levenshtein). */
static unsigned distance(struct span a, struct span b)
{
    unsigned row[GUESS_NAME_MAX + 1];
    for (size_t i = 0; i <= b.size; i++) {
        row[i] = (unsigned)i;
    }
    for (size_t i = 0; i < a.size; i++) {
        unsigned corner = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t k = 0; k < b.size; k++) {
            unsigned other = corner + (a.at[i] != b.at[k]);
            corner = row[k + 1];
            unsigned least = row[k] < corner ? row[k] + 1 : corner + 1;
            row[k + 1] = other < least ? other : least;
        }
    }
    return row[b.size];
}

static void put_guess(struct writer *errors, struct span name, const char *const *names,
                      size_t count, size_t stride)
{
    const char *best = NULL;
    unsigned best_distance = GUESS_DISTANCE_MAX + 1;
    for (size_t i = 0; i < count && name.size <= GUESS_NAME_MAX; i++) {
        const char *other = *(const char *const *)(const void *)((const char *)names + i * stride);
        ensure(strlen(other) <= GUESS_NAME_MAX);
        unsigned letters = distance(name, span_of_text(other));
        if (letters < best_distance && letters < name.size) {
            best = other;
            best_distance = letters;
        }
    }
    if (best != NULL) {
        writer_put_format(errors, "; did you mean %s?\n", best);
    } else {
        writer_put_format(errors, "; see ramjet check --defaults\n");
    }
}

static void put_place(const struct reading *reading, const struct token *token)
{
    struct span name = text_of(reading, token);
    writer_put_format(reading->lint->errors, "%s:%d: %.*s: ", reading->file, token->line,
                      (int)(name.size < 64 ? name.size : 64), name.at);
}

static struct config_lint_section *section_find(struct config_lint *lint, struct span name)
{
    for (uint32_t i = 0; i < lint->sections_count; i++) {
        if (span_equal(span_of_text(lint->sections[i].name), name)) {
            return &lint->sections[i];
        }
    }
    return NULL;
}

/* A value behind its equal sign; a list may be empty. False: what comes is none, and the library
 * will say so. */
static bool pass_value(struct reading *reading, bool *ret_is_empty)
{
    struct token token = next(reading);
    if (token.kind == TOKEN_WORD) {
        *ret_is_empty = false;
        return true;
    }
    size_t at = reading->at;
    if (token.kind != TOKEN_OPEN || !pass_braces(reading)) {
        return false;
    }
    /* Comments are blanks by now. */
    size_t end = reading->at - 1;
    while (at < end && strchr(" \t\r\n", reading->text[at]) != NULL) {
        at++;
    }
    *ret_is_empty = at == end;
    return true;
}

/* KEY = VALUE; seen: the line of each key that was there. */
static bool take_key(struct reading *reading, const struct config_lint_section *section,
                     const struct token *key, int *seen)
{
    struct config_lint *lint = reading->lint;
    struct span name = text_of(reading, key);
    bool is_empty;
    if (!pass_value(reading, &is_empty)) {
        return false;
    }
    uint32_t index = 0;
    while (index < section->keys_count && !span_equal(span_of_text(section->keys[index]), name)) {
        index++;
    }
    if (index < section->keys_count && seen[index] == 0) {
        seen[index] = key->line;
        if (is_empty) {
            put_place(reading, key);
            writer_put_format(lint->errors, "the list is empty: write what stands in it, or leave "
                                            "the key out\n");
        }
        return true;
    }
    put_place(reading, key);
    if (index < section->keys_count) {
        writer_put_format(lint->errors, "given twice in one section, first in line %d\n",
                          seen[index]);
    } else {
        writer_put_format(lint->errors, "section %s has no such key", section->name);
        put_guess(lint->errors, name, section->keys, section->keys_count, sizeof(char *));
    }
    blank(reading, key->at, reading->at);
    return true;
}

/* Behind the section's open brace, to its end. False: no more can be said of this file. */
static bool take_section(struct reading *reading, const struct config_lint_section *section,
                         const struct token *start, bool *ret_is_empty)
{
    int seen[CONFIG_LINT_KEYS_MAX] = {0};
    for (*ret_is_empty = true;; *ret_is_empty = false) {
        struct token key = next(reading);
        if (key.kind == TOKEN_CLOSE) {
            return true;
        }
        if (key.kind == TOKEN_END) {
            put_place(reading, start);
            writer_put_format(reading->lint->errors, "the section is never closed: } is missing\n");
            return false;
        }
        if (key.kind != TOKEN_WORD) {
            return false;
        }
        struct token behind = next(reading);
        if (behind.kind != TOKEN_EQUAL || !take_key(reading, section, &key, seen)) {
            return false;
        }
    }
}

/* NAME or NAME "title", and its open brace was taken. */
static bool begin_section(struct reading *reading, const struct token *start)
{
    struct config_lint *lint = reading->lint;
    struct span name = text_of(reading, start);
    struct config_lint_section *section = section_find(lint, name);
    if (section == NULL) {
        put_place(reading, start);
        writer_put_format(lint->errors, "no such section");
        put_guess(lint->errors, name, &lint->sections[0].name, lint->sections_count,
                  sizeof(lint->sections[0]));
        bool is_closed = pass_braces(reading);
        blank(reading, start->at, reading->at);
        return is_closed;
    }
    bool is_empty;
    if (!take_section(reading, section, start, &is_empty)) {
        return false;
    }
    if (section->is_titled) {
        return true;
    }
    if (is_empty) { /* it says nothing: another file may */
        blank(reading, start->at, reading->at);
    } else if (section->first_place[0] != '\0') {
        put_place(reading, start);
        writer_put_format(lint->errors, "the section stands twice, first in %s\n",
                          section->first_place);
    } else {
        (void)snprintf(section->first_place, sizeof(section->first_place), "%s:%d", reading->file,
                       start->line);
    }
    return true;
}

void config_lint_file(struct config_lint *lint, const char *file, char *text, size_t size)
{
    struct reading reading = {
        .lint = lint,
        .file = file,
        .text = text,
        .size = size,
        .line = 1,
    };
    /* Comments go first, in the whole file: the library counts their lines wrongly. */
    while (next(&reading).kind != TOKEN_END) {
    }
    reading.at = 0;
    reading.line = 1;
    bool goes_on = true;
    while (goes_on) {
        struct token start = next(&reading);
        if (start.kind != TOKEN_WORD) {
            return;
        }
        struct token behind = next(&reading);
        if (behind.kind == TOKEN_EQUAL) {
            put_place(&reading, &start);
            writer_put_format(lint->errors, "stands in no section; see ramjet check --defaults\n");
            bool is_empty;
            goes_on = pass_value(&reading, &is_empty);
            blank(&reading, start.at, reading.at);
            continue;
        }
        if (behind.kind == TOKEN_WORD) {
            behind = next(&reading);
        }
        goes_on = behind.kind == TOKEN_OPEN && begin_section(&reading, &start);
    }
}
