/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/scan_priv.h"

enum { SHOWN_BYTES_MAX = 40 };

void scan_splitter_init(struct scan_splitter *splitter, enum scan_format format,
                        uint64_t record_size_max)
{
    ensure(record_size_max > 0);
    *splitter =
        (struct scan_splitter){.format = format, .record_size_max = record_size_max, .line = 1};
}

static enum scan_split split_by_format(struct scan_splitter *splitter, struct span bytes,
                                       bool is_last, size_t *ret_skip, size_t *ret_size,
                                       uint64_t *ret_line, struct scan_problem *ret_problem)
{
    switch (splitter->format) {
    case SCAN_NDJSON:
        return scan_ndjson_split(splitter, bytes, is_last, ret_skip, ret_size, ret_line,
                                 ret_problem);
    case SCAN_CSV:
        return scan_csv_split(splitter, bytes, is_last, ret_skip, ret_size, ret_line, ret_problem);
    case SCAN_BSMTP:
        return scan_bsmtp_split(splitter, bytes, is_last, ret_skip, ret_size, ret_line,
                                ret_problem);
    }
    ensure(false);
    return SCAN_SPLIT_FATAL;
}

enum scan_split scan_split_next(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                struct scan_problem *ret_problem)
{
    ensure(splitter->scanned <= bytes.size);
    enum scan_split split =
        split_by_format(splitter, bytes, is_last, ret_skip, ret_size, ret_line, ret_problem);
    /* What the caller will do pointer arithmetic with. */
    if (split == SCAN_SPLIT_RECORD || split == SCAN_SPLIT_BAD) {
        ensure(*ret_size > 0);
        ensure(*ret_size <= splitter->record_size_max);
        ensure(*ret_skip <= bytes.size);
        ensure(*ret_size <= bytes.size - *ret_skip);
        ensure(*ret_line > 0);
    }
    if (split == SCAN_SPLIT_MORE) {
        ensure(!is_last);
        ensure(*ret_skip <= bytes.size);
        ensure(splitter->scanned <= bytes.size - *ret_skip);
    }
    return split;
}

bool scan_split_begin(struct scan_splitter *splitter, struct span bytes, bool is_last,
                      size_t *start)
{
    const struct span mark = SPAN("\xef\xbb\xbf");
    if (bytes.size < mark.size && !is_last && span_equal(bytes, span_of(mark.at, bytes.size))) {
        return false;
    }
    *start = span_starts(bytes, mark) ? mark.size : 0;
    splitter->is_begun = true;
    return true;
}

enum scan_split scan_split_more(struct scan_splitter *splitter, size_t start, size_t end,
                                bool is_last, size_t *ret_skip)
{
    *ret_skip = start;
    if (is_last) {
        ensure(start == end);
        return SCAN_SPLIT_END;
    }
    splitter->scanned = end - start;
    return SCAN_SPLIT_MORE;
}

enum scan_split scan_split_too_long(struct scan_splitter *splitter, size_t start, size_t *ret_skip,
                                    size_t *ret_size, uint64_t *ret_line,
                                    struct scan_problem *ret_problem)
{
    scan_problem_set(ret_problem, "longer than %llu bytes",
                     (unsigned long long)splitter->record_size_max);
    splitter->is_too_long = true;
    splitter->scanned = 0;
    *ret_skip = start;
    *ret_size = (size_t)splitter->record_size_max;
    *ret_line = splitter->line;
    return SCAN_SPLIT_BAD;
}

struct scan_parser *scan_parser_create(void)
{
    struct scan_parser *parser = calloc(1, sizeof(*parser));
    if (parser == NULL) {
        return NULL;
    }
    parser->has_fast_path = true;
    parser->json = scan_json_create(parser);
    if (parser->json == NULL) {
        free(parser);
        return NULL;
    }
    return parser;
}

void scan_parser_destroy(struct scan_parser *parser)
{
    if (parser != NULL) {
        scan_json_destroy(parser->json);
        free(parser);
    }
}

void scan_parser_set_fast_path(struct scan_parser *parser, bool is_on)
{
    parser->has_fast_path = is_on;
}

/* Only what is filled in is copied: the whole struct is 4 KiB. */
static void recipient_copy(const struct scan_recipient *from, struct scan_recipient *ret_recipient)
{
    ensure(from->vars_count <= SCAN_VARS_MAX);
    ret_recipient->to = from->to;
    ret_recipient->id = from->id;
    ret_recipient->vars_count = from->vars_count;
    memcpy(ret_recipient->vars, from->vars, from->vars_count * sizeof(from->vars[0]));
}

int scan_record_recipient(struct scan_parser *parser, enum scan_format format,
                          const struct scan_columns *columns, struct span record,
                          struct scan_recipient *ret_recipient, struct scan_problem *ret_problem)
{
    ensure(format != SCAN_BSMTP);
    ensure((format == SCAN_CSV) == (columns != NULL));
    if (record.size > SCAN_LINE_MAX) {
        scan_problem_set(ret_problem, "longer than %d bytes", SCAN_LINE_MAX);
        return -EINVAL;
    }
    parser->scratch_used = 0;
    int result = 0;
    if (format == SCAN_CSV) {
        result = scan_csv_record(parser, columns, record, ret_problem);
    } else if (!parser->has_fast_path || !scan_ndjson_fast(parser, record)) {
        result = scan_json_record(parser->json, record, ret_problem);
    }
    if (result == 0) {
        recipient_copy(&parser->recipient, ret_recipient);
    }
    return result;
}

void scan_problem_set(struct scan_problem *problem, const char *format, ...)
{
    problem->is_fatal = false;
    problem->is_memory_short = false;
    problem->line_offset = 0;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(problem->text, sizeof(problem->text), format, arguments);
    va_end(arguments);
}

struct scan_shown scan_show(struct span foreign)
{
    struct scan_shown shown;
    struct writer writer = writer_of(shown.text, sizeof(shown.text) - sizeof("..."));
    size_t index = 0;
    while (index < foreign.size && index < SHOWN_BYTES_MAX && !writer.is_full) {
        text_put_escaped(&writer, span_of(foreign.at + index, 1));
        index += !writer.is_full;
    }
    size_t size = writer_size(&writer);
    (void)snprintf(shown.text + size, sizeof(shown.text) - size, "%s",
                   index < foreign.size ? "..." : "");
    return shown;
}

struct span scan_scratch_put(struct scan_parser *parser, struct span piece)
{
    ensure(piece.size <= sizeof(parser->scratch) - parser->scratch_used);
    char *at = parser->scratch + parser->scratch_used;
    if (piece.size > 0) {
        memcpy(at, piece.at, piece.size);
    }
    parser->scratch_used += piece.size;
    return span_of(at, piece.size);
}

bool scan_is_inside(struct span record, struct span piece)
{
    uintptr_t start = (uintptr_t)record.at;
    uintptr_t at = (uintptr_t)piece.at;
    return at >= start && at - start <= record.size && piece.size <= record.size - (at - start);
}

struct scan_var *scan_var_find(struct scan_parser *parser, struct span name)
{
    struct scan_recipient *recipient = &parser->recipient;
    for (uint32_t i = 0; i < recipient->vars_count; i++) {
        if (span_equal(recipient->vars[i].name, name)) {
            return &recipient->vars[i];
        }
    }
    return NULL;
}

struct span scan_line_chop(struct span line)
{
    if (line.size > 0 && line.at[line.size - 1] == '\n') {
        line.size--;
        if (line.size > 0 && line.at[line.size - 1] == '\r') {
            line.size--;
        }
    }
    return line;
}

bool scan_line_is_blank(struct span line)
{
    for (size_t i = 0; i < line.size; i++) {
        char byte = line.at[i];
        if (byte != ' ' && byte != '\t' && byte != '\r' && byte != '\n') {
            return false;
        }
    }
    return true;
}
