/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/template.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "engine/message/builder.h"
#include "engine/message/encode.h"
#include "engine/message/field.h"
#include "engine/message/layout.h"
#include "engine/message/parts.h"
#include "engine/message/template_priv.h"

enum { DATE_NAME_SIZE = sizeof("Date: ") - 1, ID_TIME_SIZE = 16 };

/* One line of the file into the wire form. The first line end of the file decides what the others
 * must be. */
static int put_line(struct builder *builder, struct writer *writer, struct span line, bool is_crlf,
                    bool is_ended, uint64_t number)
{
    bool has_cr = line.size > 0 && line.at[line.size - 1] == '\r';
    if (is_ended && is_crlf && !has_cr) {
        return builder_fail(builder, number, "a lone LF in a file with CRLF line ends");
    }
    if (is_ended && !is_crlf && has_cr) {
        return builder_fail(builder, number, "a CRLF in a file with LF line ends");
    }
    if (is_ended && is_crlf) {
        line.size--;
    }
    size_t at = span_find_break(line);
    if (at < line.size) {
        return builder_fail(builder, number, line.at[at] == '\0' ? "a NUL" : "a lone CR");
    }
    if (line.size > ENCODE_LINE_MAX) {
        return builder_fail(builder, number, "the line is longer than %d octets", ENCODE_LINE_MAX);
    }
    writer_put(writer, line);
    writer_put(writer, SPAN("\r\n"));
    return 0;
}

static int put_lines(struct builder *builder, struct writer *writer, struct span eml)
{
    struct cursor cursor = cursor_of(eml);
    size_t first = span_find(eml, '\n');
    bool is_crlf = first < eml.size && first > 0 && eml.at[first - 1] == '\r';
    uint64_t number = 0;
    while (cursor_left(&cursor) > 0) {
        struct span line = cursor_take_until(&cursor, '\n');
        /* A last line without its end is given one. */
        bool is_ended = cursor_take_byte(&cursor, '\n');
        int error = put_line(builder, writer, line, is_crlf, is_ended, ++number);
        if (error != 0 && !builder_goes_on(builder)) {
            return error;
        }
    }
    return builder_has_failed(builder) ? -EINVAL : 0;
}

static bool has_blank_line(struct span text)
{
    return span_starts(text, SPAN("\r\n")) || memmem(text.at, text.size, "\r\n\r\n", 4) != NULL;
}

/* The file in wire form: CRLF line ends, a blank line behind the header (also if there is no body).
 */
static int take_wire_form(struct builder *builder, struct span eml)
{
    size_t lines = 2;
    for (size_t i = 0; i < eml.size; i++) {
        lines += eml.at[i] == '\n';
    }
    size_t size_max = eml.size + 2 * lines;
    char *text = builder_keep(builder, size_max);
    if (text == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(text, size_max);
    int error = put_lines(builder, &writer, eml);
    if (error != 0) {
        return error;
    }
    if (!has_blank_line(writer_span(&writer))) {
        writer_put(&writer, SPAN("\r\n"));
    }
    ensure(!writer.is_full);
    builder->text = writer_span(&writer);
    return 0;
}

/*
 * A message without placeholders is the same for all: its Message-ID, the one segment that could
 * still differ, loses the recipient's number.
 */
static void settle_ordinal(struct template *template)
{
    for (uint32_t i = 0; i < template->headers_count && !template->is_varied; i++) {
        struct segment *segment = &template->segments[i];
        if (segment->kind == SEGMENT_ORDINAL) {
            *segment = (struct segment){.kind = SEGMENT_CONSTANT, .text = SPAN_NONE};
        }
    }
}

/* Where the text holds `start` at the start of a line, in the template's own memory; NULL: nowhere.
 */
static char *find_line(struct span text, struct span start)
{
    const char *at = text.size == 0 ? NULL : memmem(text.at, text.size, start.at, start.size);
    while (at != NULL && at != text.at && at[-1] != '\n') {
        size_t left = (size_t)(text.at + text.size - at) - 1;
        at = memmem(at + 1, left, start.at, start.size);
    }
    return (char *)(uintptr_t)at;
}

/* The layout has put it into a segment of the header, or into the one that ends the header. What is
 * to be written anew stands `offset` behind its start. */
static void note_places(struct template *template, struct span start, size_t offset,
                        char *ret_places[2])
{
    char *found[2] = {NULL, NULL};
    for (uint32_t i = 0; i < template->segments_count && found[0] == NULL; i++) {
        found[0] = find_line(template->segments[i].text, start);
        found[1] = find_line(template->segments[i].text_switched, start);
    }
    ensure(found[0] != NULL);
    for (size_t i = 0; i < COUNT_OF(found); i++) {
        ret_places[i] = found[i] == NULL ? NULL : found[i] + offset;
    }
}

static void note_times(struct builder *builder)
{
    struct template *template = builder->template;
    if (builder->date_line.size > 0) {
        note_places(template, builder->date_line, DATE_NAME_SIZE, template->dates);
    }
    if (builder->id_start.size > 0) {
        note_places(template, builder->id_start, builder->id_start.size - ID_TIME_SIZE,
                    template->id_times);
    }
}

/* Some editors put a byte order mark in front of UTF-8; it belongs to no field. */
static struct span without_mark(struct span eml)
{
    struct span mark = SPAN("\xef\xbb\xbf");
    return span_starts(eml, mark) ? span_of(eml.at + mark.size, eml.size - mark.size) : eml;
}

static bool is_utf16(struct span eml)
{
    return span_starts(eml, SPAN("\xff\xfe")) || span_starts(eml, SPAN("\xfe\xff"));
}

static int compile(struct builder *builder, struct span eml)
{
    const struct template_options *options = builder->options;
    if (options->size_max > 0 && eml.size > options->size_max) {
        return builder_fail(builder, 0, "the message is longer than %llu bytes",
                            (unsigned long long)options->size_max);
    }
    if (eml.size > UINT32_MAX / 4) {
        return builder_fail(builder, 0, "the message is longer than 1 GB");
    }
    if (is_utf16(eml)) {
        return builder_fail(builder, 1, "UTF-16: write the file in UTF-8");
    }
    size_t header_size = 0;
    if (take_wire_form(builder, without_mark(eml)) != 0 ||
        field_check_all(builder, &header_size) != 0) {
        return -EINVAL;
    }
    struct parts *parts = malloc(sizeof(*parts));
    if (parts == NULL) {
        return builder_no_memory(builder);
    }
    int error = parts_init(parts, builder, header_size);
    if (error == 0) {
        error = field_put_all(builder, parts, header_size);
    }
    if (error == 0) {
        error = parts_put_body(parts, builder, header_size);
    }
    parts_deinit(parts);
    free(parts);
    if (error != 0 || builder_has_failed(builder)) {
        return -EINVAL;
    }
    settle_ordinal(builder->template);
    error = layout_finish(builder);
    if (error == 0) {
        note_times(builder);
    }
    return error;
}

static struct template *create(struct template_problem *problem)
{
    problem->line = 0;
    problem->text[0] = '\0';
    struct template *template = calloc(1, sizeof(*template));
    problem->is_memory_short = template == NULL;
    if (template == NULL) {
        struct writer writer = writer_of(problem->text, sizeof(problem->text));
        writer_put(&writer, SPAN("out of memory\0"));
    }
    return template;
}

/* The last one is not noted yet. */
static void problems_end(struct builder *builder)
{
    struct template_problem *problem = builder->problem;
    struct template_problems *all = builder->options->problems;
    if (all != NULL && !problem->is_memory_short) {
        if (problem->text[0] != '\0') {
            all->rows[all->count++] = *problem;
        }
        *problem = all->rows[0];
    }
    ensure(problem->text[0] != '\0');
}

void template_problems_put(const struct template_problems *problems, const char *file,
                           struct writer *ret_words)
{
    for (uint32_t i = 0; i < problems->count; i++) {
        const struct template_problem *problem = &problems->rows[i];
        writer_put_format(ret_words, "%s%s", i == 0 ? "" : "\n", file);
        if (problem->line > 0) {
            writer_put_format(ret_words, ":%llu", (unsigned long long)problem->line);
        }
        writer_put_format(ret_words, ": %s", problem->text);
    }
    if (problems->count == TEMPLATE_PROBLEMS_MAX) {
        writer_put_format(ret_words, "\n%s: there may be more", file);
    }
}

struct template *template_compile(struct span eml, const struct template_options *options,
                                  struct template_problem *ret_problem)
{
    struct template *template = create(ret_problem);
    if (template == NULL) {
        return NULL;
    }
    template->size_max = options->size_max > 0 ? options->size_max : UINT64_MAX;
    struct builder builder = {.template = template, .problem = ret_problem, .options = options};
    if (options->problems != NULL) {
        options->problems->count = 0;
    }
    if (compile(&builder, eml) != 0) {
        problems_end(&builder);
        template_destroy(template);
        return NULL;
    }
    return template;
}

static int compile_line(struct builder *builder, struct span line)
{
    struct span copy;
    if (span_find_break(line) < line.size) {
        return builder_fail(builder, 1, "the text holds a line break or a NUL");
    }
    if (builder_copy(builder, line, &copy) != 0 ||
        builder_text(builder, copy, (struct builder_style){.context = VALUE_LINE}) != 0) {
        builder->problem->line = 1;
        return -EINVAL;
    }
    return layout_finish(builder);
}

struct template *template_compile_line(struct span line, struct template_problem *ret_problem)
{
    struct template *template = create(ret_problem);
    if (template == NULL) {
        return NULL;
    }
    template->is_line = true;
    template->size_max = UINT64_MAX;
    struct builder builder = {.template = template, .problem = ret_problem};
    if (compile_line(&builder, line) != 0) {
        template_destroy(template);
        return NULL;
    }
    return template;
}

static void write_places(char *const places[2], struct span text)
{
    for (size_t i = 0; i < 2; i++) {
        if (places[i] != NULL) {
            memcpy(places[i], text.at, text.size); /* always of one length */
        }
    }
}

void template_set_date(struct template *template, struct wall_time date)
{
    char text[64];
    struct writer writer = writer_of(text, sizeof(text));
    text_put_rfc5322(&writer, date);
    write_places(template->dates, writer_span(&writer));
    writer = writer_of(text, sizeof(text));
    text_put_hex64(&writer, (uint64_t)date.ns);
    ensure(writer_size(&writer) == ID_TIME_SIZE);
    write_places(template->id_times, writer_span(&writer));
}

void template_destroy(struct template *template)
{
    if (template == NULL) {
        return;
    }
    while (template->blocks != NULL) {
        struct template_block *block = template->blocks;
        template->blocks = block->next;
        free(block);
    }
    free(template->segments);
    free(template->vars);
    free(template->uses);
    free(template);
}

bool template_is_constant(const struct template *template)
{
    return !template->is_varied;
}

uint32_t template_vars_count(const struct template *template)
{
    return template->vars_count;
}

struct span template_var_name(const struct template *template, uint32_t index)
{
    ensure(index < template->vars_count);
    return template->vars[index].name;
}

bool template_var_has_default(const struct template *template, uint32_t index)
{
    ensure(index < template->vars_count);
    return template->vars[index].has_fallback;
}
