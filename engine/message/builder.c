/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/builder.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/message/encode.h"
#include "engine/message/placeholder.h"

enum { SEGMENTS_FIRST = 64, VARS_FIRST = 4 };

int builder_fail(struct builder *builder, uint64_t line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    builder->problem->line = line;
    (void)vsnprintf(builder->problem->text, sizeof(builder->problem->text), format, args);
    va_end(args);
    return -EINVAL;
}

int builder_no_memory(struct builder *builder)
{
    builder->problem->is_memory_short = true;
    return builder_fail(builder, 0, "out of memory");
}

bool builder_goes_on(struct builder *builder)
{
    struct template_problem *problem = builder->problem;
    struct template_problems *all = builder->options->problems;
    if (all == NULL || problem->is_memory_short || builder->is_over) {
        return false;
    }
    ensure(all->count < TEMPLATE_PROBLEMS_MAX);
    all->rows[all->count++] = *problem;
    *problem = (struct template_problem){.line = 0};
    return all->count < TEMPLATE_PROBLEMS_MAX;
}

bool builder_has_failed(const struct builder *builder)
{
    return builder->options->problems != NULL && builder->options->problems->count > 0;
}

uint64_t builder_line(const struct builder *builder, const char *at)
{
    ensure(at >= builder->text.at);
    ensure(at <= builder->text.at + builder->text.size);
    uint64_t line = 1;
    for (const char *i = builder->text.at; i < at; i++) {
        line += *i == '\n';
    }
    return line;
}

char *builder_keep(struct builder *builder, size_t size)
{
    struct template_block *block = malloc(sizeof(*block) + size + 1);
    if (block == NULL) {
        (void)builder_no_memory(builder);
        return NULL;
    }
    block->next = builder->template->blocks;
    builder->template->blocks = block;
    return block->bytes;
}

int builder_copy(struct builder *builder, struct span text, struct span *ret_copy)
{
    char *copy = builder_keep(builder, text.size);
    if (copy == NULL) {
        return -EINVAL;
    }
    memcpy(copy, text.at, text.size);
    *ret_copy = span_of(copy, text.size);
    return 0;
}

static int append(struct builder *builder, const struct segment *segment)
{
    struct template *template = builder->template;
    if (template->segments_count == TEMPLATE_SEGMENTS_MAX) {
        builder->is_over = true;
        return builder_fail(builder, 0, "the message has too many placeholders and parts");
    }
    if (template->segments_count == builder->segments_max) {
        uint32_t max = builder->segments_max ? 2 * builder->segments_max : SEGMENTS_FIRST;
        struct segment *segments = realloc(template->segments, max * sizeof(*segments));
        if (segments == NULL) {
            return builder_no_memory(builder);
        }
        template->segments = segments;
        builder->segments_max = max;
    }
    template->segments[template->segments_count++] = *segment;
    return 0;
}

int builder_constant(struct builder *builder, struct span text)
{
    struct template *template = builder->template;
    if (text.size == 0) {
        return 0;
    }
    if (template->segments_count > builder->merge_from) {
        struct segment *last = &template->segments[template->segments_count - 1];
        if (last->kind == SEGMENT_CONSTANT && last->text.at + last->text.size == text.at) {
            last->text.size += text.size;
            return 0;
        }
    }
    return append(builder, &(struct segment){.kind = SEGMENT_CONSTANT, .text = text});
}

int builder_choice(struct builder *builder, uint32_t part, struct span normal, struct span switched)
{
    return append(builder, &(struct segment){.kind = SEGMENT_CHOICE,
                                             .index = part,
                                             .text = normal,
                                             .text_switched = switched});
}

int builder_ordinal(struct builder *builder, struct span before)
{
    return append(builder, &(struct segment){.kind = SEGMENT_ORDINAL, .text = before});
}

int builder_open(struct builder *builder, const struct segment *group, uint32_t *ret_group)
{
    uint32_t index = builder->template->segments_count;
    int error = append(builder, group);
    if (error != 0) {
        return error;
    }
    if (group->kind != SEGMENT_PHRASE) {
        builder->merge_from_outer = builder->merge_from;
    }
    builder->merge_from = index + 1;
    *ret_group = index;
    return 0;
}

void builder_close(struct builder *builder, uint32_t group)
{
    struct template *template = builder->template;
    ensure(group < template->segments_count);
    template->segments[group].extent = template->segments_count - group - 1;
    builder->merge_from = template->segments_count;
}

void builder_cancel(struct builder *builder, uint32_t group)
{
    ensure(group < builder->template->segments_count);
    ensure(builder->template->segments[group].kind == SEGMENT_HEADER);
    builder->template->segments_count = group;
    builder->merge_from = builder->merge_from_outer;
}

struct builder_mark builder_mark(const struct builder *builder)
{
    return (struct builder_mark){.segments_count = builder->template->segments_count,
                                 .merge_from = builder->merge_from,
                                 .merge_from_outer = builder->merge_from_outer};
}

void builder_rewind(struct builder *builder, struct builder_mark mark)
{
    ensure(builder->template->segments_count >= mark.segments_count);
    builder->template->segments_count = mark.segments_count;
    builder->merge_from = mark.merge_from;
    builder->merge_from_outer = mark.merge_from_outer;
}

static int var_index(struct builder *builder, const struct placeholder *found, uint32_t *ret_index)
{
    struct template *template = builder->template;
    for (uint32_t i = 0; i < template->vars_count; i++) {
        if (span_equal(template->vars[i].name, found->name)) {
            template->vars[i].has_fallback &= found->has_fallback;
            *ret_index = i;
            return 0;
        }
    }
    if (template->vars_count == TEMPLATE_VARS_MAX) {
        builder->is_over = true;
        return builder_fail(builder, 0, "more than %d variables", TEMPLATE_VARS_MAX);
    }
    if (template->vars_count == builder->vars_max) {
        uint32_t max = builder->vars_max ? 2 * builder->vars_max : VARS_FIRST;
        struct template_var *vars = realloc(template->vars, max * sizeof(*vars));
        if (vars == NULL) {
            return builder_no_memory(builder);
        }
        template->vars = vars;
        builder->vars_max = max;
    }
    struct template_var *var = &template->vars[template->vars_count];
    var->has_fallback = found->has_fallback;
    if (builder_copy(builder, found->name, &var->name) != 0) {
        return -EINVAL;
    }
    *ret_index = template->vars_count++;
    return 0;
}

static int append_value(struct builder *builder, struct span text, const struct placeholder *found,
                        enum value_context context)
{
    builder->template->is_varied = true;
    if (span_equal(found->name, SPAN("_vid"))) {
        return builder_ordinal(builder, SPAN_NONE);
    }
    /* A default is written as it stands: in a URI no byte of it is escaped. */
    bool is_raw = found->is_raw || context == VALUE_URI;
    const char *reason =
        value_check(context, is_raw, found->fallback, value_classes(found->fallback));
    if (reason != NULL) {
        return builder_fail(builder, 0, "the default of \"%.*s\" %s", (int)found->name.size,
                            found->name.at, reason);
    }
    struct segment segment = {.kind = SEGMENT_VALUE,
                              .context = context,
                              .is_raw = found->is_raw,
                              .has_fallback = found->has_fallback};
    struct span written = span_of(text.at + found->at, found->end - found->at);
    if (var_index(builder, found, &segment.index) != 0 ||
        builder_copy(builder, found->fallback, &segment.fallback) != 0 ||
        builder_copy(builder, written, &segment.literal) != 0) {
        return -EINVAL;
    }
    return append(builder, &segment);
}

static int append_constant(struct builder *builder, struct span text, bool is_qp)
{
    if (!is_qp || text.size == 0) {
        return builder_constant(builder, text);
    }
    size_t size_max = 3 * text.size + 3 * (3 * text.size / (ENCODE_WIDTH - 4) + 1);
    char *encoded = builder_keep(builder, size_max);
    if (encoded == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(encoded, size_max);
    struct encode_qp state = {0};
    encode_qp_put(&state, &writer, text);
    ensure(!writer.is_full);
    return builder_constant(builder, writer_span(&writer));
}

int builder_text(struct builder *builder, struct span text, struct builder_style style)
{
    size_t at = 0;
    for (;;) {
        struct placeholder found = placeholder_find(text, at);
        struct span constant = span_of(text.at + at, found.at - at);
        builder->bad_at = found.at;
        int error = append_constant(builder, constant, style.is_qp);
        if (error != 0 || found.kind == PLACEHOLDER_NONE) {
            return error;
        }
        switch (found.kind) {
        case PLACEHOLDER_NONE:
            break;
        case PLACEHOLDER_LITERAL:
            /* The first two braces of the four stand for themselves. */
            error = append_constant(builder, span_of(text.at + found.at, 2), style.is_qp);
            break;
        case PLACEHOLDER_VALUE:
            error = append_value(builder, text, &found, style.context);
            break;
        case PLACEHOLDER_BAD:
            return builder_fail(builder, 0, "%s", found.reason);
        }
        if (error != 0) {
            return error;
        }
        at = found.end;
    }
}
