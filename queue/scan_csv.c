/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CSV after RFC 4180, in UTF-8, with LF or CRLF:
 *
 *   record = field *("," field) line-end
 *   field  = *(any but "," DQUOTE CR LF) / DQUOTE *(any but DQUOTE / DQUOTE DQUOTE) DQUOTE
 *
 * Stricter than spreadsheets where laxness could move a border: a quote opens a field only at its
 * start, and nothing but a comma or a line end may follow a closed one. A quote that was never
 * closed would swallow every record behind it as one "bad" record, which no share of rejects would
 * notice, so it is fatal to the stream.
 */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/scan_priv.h"

/*
 * The splitter's phase, from byte to byte:
 *
 *             quote              quote             comma, line end
 *   FIELD ------------> QUOTED <-------> CLOSED ---------------------> FIELD
 *     | other   comma     any but quote    | other: the line is broken up to its line end,
 *     +-----> PLAIN ----> FIELD            v        or fatal when the quote began on another line
 */
enum csv_phase { CSV_FIELD, CSV_PLAIN, CSV_QUOTED, CSV_CLOSED };

enum { CSV_COLUMN_NONE = -1 };

struct scan_columns {
    uint32_t count;
    int to_index;
    int id_index;
    struct span names[SCAN_COLUMNS_MAX];
    char *text; /* of all names */
};

static enum csv_phase csv_next_phase(enum csv_phase phase, char byte)
{
    switch (phase) {
    case CSV_FIELD:
        return byte == '"' ? CSV_QUOTED : byte == ',' ? CSV_FIELD : CSV_PLAIN;
    case CSV_PLAIN:
        return byte == ',' ? CSV_FIELD : CSV_PLAIN;
    case CSV_QUOTED:
        return byte == '"' ? CSV_CLOSED : CSV_QUOTED;
    case CSV_CLOSED:
        return byte == '"' ? CSV_QUOTED : byte == ',' ? CSV_FIELD : CSV_PLAIN;
    }
    ensure(false);
    return CSV_PLAIN;
}

/* Looks at more bytes of the record. True when its last line end was found: *end is behind it. */
static bool csv_advance(struct scan_splitter *splitter, struct span bytes, size_t *end,
                        bool *ret_is_lost)
{
    enum csv_phase phase = (enum csv_phase)splitter->phase;
    size_t at = *end;
    bool is_found = false;
    *ret_is_lost = false;
    while (at < bytes.size && !is_found) {
        char byte = bytes.at[at++];
        if (byte == '\n') {
            splitter->lines_inside++;
            is_found = phase != CSV_QUOTED || splitter->is_broken;
            continue;
        }
        enum csv_phase next = csv_next_phase(phase, byte);
        if (phase == CSV_CLOSED && next == CSV_PLAIN && byte != '\r') {
            *ret_is_lost |= splitter->quote_line != splitter->lines_inside;
            splitter->is_broken = true;
        }
        if (phase == CSV_FIELD && next == CSV_QUOTED) {
            splitter->quote_line = splitter->lines_inside;
        }
        phase = splitter->is_broken ? CSV_PLAIN : next;
    }
    splitter->phase = (int)phase;
    *end = at;
    return is_found;
}

static void csv_forget_record(struct scan_splitter *splitter)
{
    splitter->line += splitter->lines_inside;
    splitter->lines_inside = 0;
    splitter->scanned = 0;
    splitter->phase = CSV_FIELD;
    splitter->is_broken = false;
    splitter->is_too_long = false;
}

static enum scan_split csv_fatal(struct scan_splitter *splitter, size_t start, size_t *ret_skip,
                                 size_t *ret_size, uint64_t *ret_line,
                                 struct scan_problem *ret_problem)
{
    scan_problem_set(ret_problem,
                     "the quote opened on line %llu is not closed where a field ends: "
                     "double the quotes inside a field, and close it",
                     (unsigned long long)(splitter->line + splitter->quote_line));
    ret_problem->is_fatal = true;
    ret_problem->line_offset = splitter->quote_line;
    *ret_skip = start;
    *ret_size = 0;
    *ret_line = splitter->line;
    return SCAN_SPLIT_FATAL;
}

/* The record [start, end) is complete. False: it is blank. */
static bool csv_emit(struct scan_splitter *splitter, struct span record, uint64_t *ret_line,
                     struct scan_problem *ret_problem, enum scan_split *ret_split)
{
    uint64_t line = splitter->line;
    uint64_t line_offset = splitter->lines_inside > 0 ? splitter->lines_inside - 1 : 0;
    bool is_broken = splitter->is_broken;
    csv_forget_record(splitter);
    if (scan_line_is_blank(record)) {
        return false;
    }
    *ret_line = line;
    *ret_split = is_broken ? SCAN_SPLIT_BAD : SCAN_SPLIT_RECORD;
    if (is_broken) {
        scan_problem_set(ret_problem, "something stands between a closing quote and the comma: "
                                      "double the quotes inside a field");
        ret_problem->line_offset = line_offset;
    }
    return true;
}

enum scan_split scan_csv_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                               size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                               struct scan_problem *ret_problem)
{
    size_t start = 0;
    if (!splitter->is_begun && !scan_split_begin(splitter, bytes, is_last, &start)) {
        return scan_split_more(splitter, 0, 0, is_last, ret_skip);
    }
    for (;;) {
        bool is_rest = splitter->is_too_long;
        size_t left = bytes.size - start;
        bool is_over = !is_rest && left > splitter->record_size_max;
        size_t limit = is_over ? start + (size_t)splitter->record_size_max : bytes.size;
        size_t end = start + (size_t)splitter->scanned;
        bool is_lost;
        bool is_found = csv_advance(splitter, span_of(bytes.at, limit), &end, &is_lost);
        bool is_open = is_last && !is_found && !is_over && splitter->phase == CSV_QUOTED;
        if (is_lost || is_open) {
            return csv_fatal(splitter, start, ret_skip, ret_size, ret_line, ret_problem);
        }
        if (!is_found && is_over) {
            return scan_split_too_long(splitter, start, ret_skip, ret_size, ret_line, ret_problem);
        }
        if (!is_found && (!is_last || is_rest || left == 0)) {
            return scan_split_more(splitter, is_rest ? end : start, end, is_last, ret_skip);
        }
        enum scan_split split;
        if (is_rest) {
            csv_forget_record(splitter);
        } else if (csv_emit(splitter, span_of(bytes.at + start, end - start), ret_line, ret_problem,
                            &split)) {
            *ret_skip = start;
            *ret_size = end - start;
            return split;
        }
        start = end;
    }
}

/* A quoted field, the cursor behind its opening quote. */
static int csv_take_quoted(struct scan_parser *parser, struct cursor *cursor,
                           struct span *ret_field, struct scan_problem *ret_problem)
{
    const char *start = cursor->at;
    struct span copy = SPAN_NONE;
    bool is_copied = false;
    for (;;) {
        struct span piece = cursor_take_until(cursor, '"');
        if (!cursor_take_byte(cursor, '"')) {
            scan_problem_set(ret_problem, "a quote is not closed");
            return -EINVAL;
        }
        bool is_doubled = cursor_peek(cursor) == '"';
        if (!is_doubled && !is_copied) {
            *ret_field = piece;
            return 0;
        }
        /* Of a doubled quote the first one stays. The pieces of one field lie side by side. */
        struct span put = scan_scratch_put(parser, span_of(piece.at, piece.size + is_doubled));
        copy = is_copied ? span_of(copy.at, copy.size + put.size) : put;
        is_copied = true;
        if (!is_doubled) {
            *ret_field = copy;
            ensure(copy.size < (size_t)(cursor->at - start));
            return 0;
        }
        (void)cursor_take_byte(cursor, '"');
    }
}

static int csv_take_field(struct scan_parser *parser, struct cursor *cursor, struct span *ret_field,
                          struct scan_problem *ret_problem)
{
    if (cursor_take_byte(cursor, '"')) {
        int result = csv_take_quoted(parser, cursor, ret_field, ret_problem);
        if (result == 0 && cursor_left(cursor) > 0 && cursor_peek(cursor) != ',') {
            scan_problem_set(ret_problem, "something stands between a closing quote and the comma: "
                                          "double the quotes inside a field");
            result = -EINVAL;
        }
        return result;
    }
    struct span field = cursor_take_until(cursor, ',');
    if (span_find(field, '"') < field.size) {
        scan_problem_set(ret_problem, "a quote inside a field that does not begin with one: put "
                                      "the field in quotes and double those inside");
        return -EINVAL;
    }
    if (span_find(field, '\r') < field.size) {
        scan_problem_set(ret_problem, "a carriage return inside a field without quotes");
        return -EINVAL;
    }
    *ret_field = field;
    return 0;
}

/* All fields of a record. A field too many for `fields_max` is a problem. */
static int csv_take_fields(struct scan_parser *parser, struct span record, struct span *fields,
                           uint32_t fields_max, uint32_t *ret_count,
                           struct scan_problem *ret_problem)
{
    if (span_find(record, '\0') < record.size) {
        scan_problem_set(ret_problem, "a NUL byte: write the file in UTF-8, not in UTF-16");
        return -EINVAL;
    }
    if (!text_is_ascii(record) && !text_is_utf8(record)) {
        scan_problem_set(ret_problem, "not valid UTF-8: write the file in UTF-8");
        return -EINVAL;
    }
    struct cursor cursor = cursor_of(scan_line_chop(record));
    uint32_t count = 0;
    do {
        if (count == fields_max) {
            scan_problem_set(ret_problem, "more than %u fields", (unsigned)fields_max);
            return -EINVAL;
        }
        int result = csv_take_field(parser, &cursor, &fields[count], ret_problem);
        if (result != 0) {
            return result;
        }
        count++;
    } while (cursor_take_byte(&cursor, ','));
    ensure(cursor_left(&cursor) == 0);
    *ret_count = count;
    return 0;
}

int scan_csv_record(struct scan_parser *parser, const struct scan_columns *columns,
                    struct span record, struct scan_problem *ret_problem)
{
    struct span fields[SCAN_COLUMNS_MAX];
    uint32_t count;
    int result = csv_take_fields(parser, record, fields, SCAN_COLUMNS_MAX, &count, ret_problem);
    if (result != 0) {
        return result;
    }
    if (count != columns->count) {
        scan_problem_set(ret_problem, "%u fields, but the header row has %u", (unsigned)count,
                         (unsigned)columns->count);
        return -EINVAL;
    }
    struct scan_recipient *recipient = &parser->recipient;
    recipient->id = SPAN_NONE;
    recipient->vars_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        if ((int)i == columns->to_index) {
            recipient->to = fields[i];
        } else if ((int)i == columns->id_index) {
            recipient->id = fields[i];
        } else {
            recipient->vars[recipient->vars_count++] =
                (struct scan_var){.name = columns->names[i], .value = fields[i]};
        }
    }
    return 0;
}

static bool columns_take_role(struct scan_columns *columns, uint32_t index,
                              struct scan_problem *ret_problem)
{
    struct span name = columns->names[index];
    bool is_to = span_equal_nocase(name, SPAN("to")) || span_equal_nocase(name, SPAN("email"));
    bool is_id = span_equal_nocase(name, SPAN("id"));
    if (name.size == 0 || name.size > SCAN_NAME_MAX) {
        scan_problem_set(ret_problem, "column %u has %s name", (unsigned)index + 1,
                         name.size == 0 ? "an empty" : "too long a");
        return false;
    }
    if ((is_to && columns->to_index != CSV_COLUMN_NONE) ||
        (is_id && columns->id_index != CSV_COLUMN_NONE)) {
        scan_problem_set(ret_problem, "two columns for the %s: rename one",
                         is_to ? "address (to, email)" : "id");
        return false;
    }
    for (uint32_t i = 0; i < index; i++) {
        if (span_equal(columns->names[i], name)) {
            scan_problem_set(ret_problem, "two columns are named \"%s\"", scan_show(name).text);
            return false;
        }
    }
    columns->to_index = is_to ? (int)index : columns->to_index;
    columns->id_index = is_id ? (int)index : columns->id_index;
    return true;
}

static bool columns_fill(struct scan_columns *columns, struct scan_problem *ret_problem)
{
    columns->to_index = CSV_COLUMN_NONE;
    columns->id_index = CSV_COLUMN_NONE;
    for (uint32_t i = 0; i < columns->count; i++) {
        if (!columns_take_role(columns, i, ret_problem)) {
            return false;
        }
    }
    if (columns->to_index == CSV_COLUMN_NONE) {
        bool is_semicolon = span_find(columns->names[0], ';') < columns->names[0].size;
        scan_problem_set(ret_problem, "the header row has no column \"to\" or \"email\"%s",
                         is_semicolon ? ": put commas between columns, not semicolons" : "");
        return false;
    }
    return true;
}

/* The names outlive the header's bytes: they move to memory of their own. */
static bool columns_keep(struct scan_columns *columns)
{
    size_t size = 0;
    for (uint32_t i = 0; i < columns->count; i++) {
        size += columns->names[i].size;
    }
    columns->text = malloc(size > 0 ? size : 1);
    if (columns->text == NULL) {
        return false;
    }
    char *at = columns->text;
    for (uint32_t i = 0; i < columns->count; i++) {
        memcpy(at, columns->names[i].at, columns->names[i].size);
        columns->names[i].at = at;
        at += columns->names[i].size;
    }
    return true;
}

struct scan_columns *scan_columns_create(struct span header_record,
                                         struct scan_problem *ret_problem)
{
    if (header_record.size > SCAN_LINE_MAX) {
        scan_problem_set(ret_problem, "the header row is longer than %d bytes", SCAN_LINE_MAX);
        return NULL;
    }
    struct scan_parser *parser = scan_parser_create();
    struct scan_columns *columns = calloc(1, sizeof(*columns));
    bool is_good = false;
    if (parser == NULL || columns == NULL) {
        scan_problem_set(ret_problem, "out of memory");
        ret_problem->is_memory_short = true;
    } else if (csv_take_fields(parser, header_record, columns->names, SCAN_COLUMNS_MAX,
                               &columns->count, ret_problem) == 0 &&
               columns_fill(columns, ret_problem)) {
        is_good = columns_keep(columns);
        if (!is_good) {
            scan_problem_set(ret_problem, "out of memory");
            ret_problem->is_memory_short = true;
        }
    }
    scan_parser_destroy(parser);
    if (!is_good) {
        scan_columns_destroy(columns);
        columns = NULL;
    }
    return columns;
}

void scan_columns_destroy(struct scan_columns *columns)
{
    if (columns != NULL) {
        free(columns->text);
        free(columns);
    }
}
