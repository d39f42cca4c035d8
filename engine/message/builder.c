/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/builder.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/message/encode.h"
#include "engine/message/placeholder.h"

enum {
    SEGMENTS_FIRST = 64,
    /* Each borrowed constant may leave a piece of scratch before it; one more comes last. */
    BORROWED_MAX = (TEMPLATE_PIECES_MAX - 1) / 2,
    /* A shorter constant is cheaper to copy than to send as a piece of its own. */
    BORROWED_SIZE_MIN = 128,
};

int builder_fail(struct builder *builder, uint64_t line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    builder->problem->line = line;
    (void)vsnprintf(builder->problem->text, sizeof(builder->problem->text), format, args);
    va_end(args);
    return -EINVAL;
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
        (void)builder_fail(builder, 0, "out of memory");
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
        return builder_fail(builder, 0, "the message has too many placeholders and parts");
    }
    if (template->segments_count == builder->segments_max) {
        uint32_t max = builder->segments_max ? 2 * builder->segments_max : SEGMENTS_FIRST;
        struct segment *segments = realloc(template->segments, max * sizeof(*segments));
        if (segments == NULL) {
            return builder_fail(builder, 0, "out of memory");
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
        return builder_fail(builder, 0, "more than %d variables", TEMPLATE_VARS_MAX);
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
    const char *reason =
        value_check(context, found->is_raw, found->fallback, value_classes(found->fallback));
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

static void measure_constant(struct segment *segment)
{
    ensure(segment->text.size <= UINT32_MAX);
    const char *first = memmem(segment->text.at, segment->text.size, "\r\n", 2);
    segment->classes = (uint8_t)value_classes(segment->text);
    segment->has_break = first != NULL;
    char last_byte = segment->text.size > 0 ? segment->text.at[segment->text.size - 1] : '\0';
    segment->is_blank = last_byte == ' ' || last_byte == '\t';
    segment->head = (uint32_t)segment->text.size;
    segment->tail = (uint32_t)segment->text.size;
    if (first != NULL) {
        const char *last = memrchr(segment->text.at, '\n', segment->text.size);
        segment->head = (uint32_t)(first - segment->text.at);
        segment->tail = (uint32_t)(segment->text.at + segment->text.size - last - 1);
    }
}

static int size_descending(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return (left < right) - (left > right);
}

/* Whether this group's constants reach the wire as they are. */
static bool group_is_borrowable(const struct segment *group)
{
    return group->kind == SEGMENT_PART && group->encoding != SEGMENT_BASE64;
}

/*
 * Visits each constant that could be sent from the template's memory and has a size in [size_min,
 * size_max]: notes its size, or, without `sizes`, marks it while `budget` lasts. Returns how many
 * there are.
 */
static uint32_t borrow(struct template *template, uint32_t *sizes, size_t size_min, size_t size_max,
                       uint32_t budget)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < template->segments_count; i++) {
        struct segment *segment = &template->segments[i];
        if (segment->extent > 0 && !group_is_borrowable(segment)) {
            i += segment->extent;
            continue;
        }
        size_t size = segment->text.size;
        if (segment->kind != SEGMENT_CONSTANT || size < size_min || size > size_max) {
            continue;
        }
        if (sizes != NULL) {
            sizes[count] = (uint32_t)size;
        } else if (count < budget) {
            segment->is_borrowed = true;
        }
        count++;
    }
    return count;
}

/* The longest constants are borrowed, so that the pieces of a message have a bound and copies stay
 * short. */
static int borrow_longest(struct builder *builder)
{
    struct template *template = builder->template;
    uint32_t *sizes = malloc((template->segments_count + 1) * sizeof(*sizes));
    if (sizes == NULL) {
        return builder_fail(builder, 0, "out of memory");
    }
    uint32_t count = borrow(template, sizes, BORROWED_SIZE_MIN, SIZE_MAX, 0);
    size_t size_min = BORROWED_SIZE_MIN;
    if (count > BORROWED_MAX) {
        qsort(sizes, count, sizeof(*sizes), size_descending);
        size_min = sizes[BORROWED_MAX - 1];
    }
    free(sizes);
    uint32_t longer = borrow(template, NULL, size_min + 1, SIZE_MAX, BORROWED_MAX);
    ensure(longer <= BORROWED_MAX);
    (void)borrow(template, NULL, size_min, size_min, BORROWED_MAX - longer);
    return 0;
}

static bool use_is_known(const struct template *template, const struct segment *segment)
{
    for (uint32_t i = 0; i < template->uses_count; i++) {
        const struct segment *known = &template->segments[template->uses[i].segment];
        if (known->index == segment->index && known->context == segment->context &&
            known->is_raw == segment->is_raw && known->has_fallback == segment->has_fallback) {
            return true;
        }
    }
    return false;
}

/* Each way of use once, in the order of the first: then template_check finds the same first failure
 * as a render. */
static int collect_uses(struct builder *builder)
{
    struct template *template = builder->template;
    template->uses = calloc(template->segments_count + 1, sizeof(*template->uses));
    if (template->uses == NULL) {
        return builder_fail(builder, 0, "out of memory");
    }
    for (uint32_t i = 0; i < template->segments_count; i++) {
        const struct segment *segment = &template->segments[i];
        if (segment->kind == SEGMENT_VALUE) {
            template->values_count++;
            if (!use_is_known(template, segment)) {
                template->uses[template->uses_count++].segment = i;
            }
        }
    }
    return 0;
}

/* Sums from which template_check tells that no length can be a problem. */
static void measure_headers(struct template *template)
{
    for (uint32_t i = 0; i < template->headers_count; i++) {
        const struct segment *header = &template->segments[i];
        template->headers_size += header->text.size + header->text_switched.size;
        if (header->kind != SEGMENT_HEADER) {
            continue;
        }
        uint64_t size = header->text.size;
        uint64_t values = 0;
        for (uint32_t j = i + 1; j <= i + header->extent; j++) {
            enum segment_kind kind = template->segments[j].kind;
            size += template->segments[j].text.size;
            values += kind == SEGMENT_VALUE || kind == SEGMENT_ORDINAL;
        }
        if (size > template->header_size_max) {
            template->header_size_max = size;
        }
        if (values > template->header_values_max) {
            template->header_values_max = values;
        }
    }
}

static void measure_8bit(struct template *template, const struct segment *segment, uint32_t at,
                         const struct segment *part)
{
    if (part == NULL) {
        if (at < template->headers_count) {
            template->is_utf8_fixed = true;
        } else {
            template->is_8bit_fixed = true;
        }
    } else if (part->encoding == SEGMENT_7BIT || part->encoding == SEGMENT_8BIT) {
        ensure(segment->kind == SEGMENT_CONSTANT);
        template->parts_8bit |= UINT64_C(1) << part->index;
    }
}

static void measure_all(struct template *template)
{
    const struct segment *group = NULL;
    uint32_t group_end = 0;
    for (uint32_t i = 0; i < template->segments_count; i++) {
        struct segment *segment = &template->segments[i];
        template->constants_size += segment->text.size + segment->text_switched.size;
        if (segment->kind == SEGMENT_PART || segment->kind == SEGMENT_HEADER) {
            group = segment;
            group_end = i + segment->extent;
            continue;
        }
        if (i > group_end) {
            group = NULL;
        }
        if (segment->kind == SEGMENT_CONSTANT) {
            measure_constant(segment);
        }
        /* Header groups look at their bytes once they are put together. */
        bool is_fixed = group == NULL || group->kind == SEGMENT_PART;
        unsigned classes = value_classes(segment->text) | value_classes(segment->text_switched);
        if (is_fixed && (classes & VALUE_HIGH) != 0) {
            measure_8bit(template, segment, i, group);
        }
    }
}

/* A header group without variables, there because of raw UTF-8, is written once and becomes a
 * constant. */
static int fix_header(struct builder *builder, struct segment *header)
{
    struct template *template = builder->template;
    for (uint32_t i = 1; i <= header->extent; i++) {
        if (header[i].kind == SEGMENT_VALUE || header[i].kind == SEGMENT_ORDINAL) {
            return 0;
        }
    }
    size_t size = header->text.size;
    for (uint32_t i = 1; i <= header->extent; i++) {
        size += header[i].text.size;
    }
    /* Three copies: the text, its encoded phrases, and the field folded and encoded. */
    size_t size_max = 16 * size + 1024;
    char *memory = builder_keep(builder, size_max);
    if (memory == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(memory, size_max);
    int error = template_render_header(template, header, &writer, builder->problem);
    ensure(error != -ENOSPC);
    if (error != 0) {
        return error;
    }
    /* The segments inside stay behind, skipped by the extent. */
    header->kind = SEGMENT_CONSTANT;
    header->text = writer_span(&writer);
    measure_constant(header);
    template->is_utf8_fixed |= (header->classes & VALUE_HIGH) != 0;
    return 0;
}

int builder_finish(struct builder *builder)
{
    struct template *template = builder->template;
    measure_all(template);
    for (uint32_t i = 0; i < template->headers_count; i++) {
        struct segment *segment = &template->segments[i];
        if (segment->kind == SEGMENT_HEADER && fix_header(builder, segment) != 0) {
            return -EINVAL;
        }
        i += segment->extent;
    }
    measure_headers(template);
    return collect_uses(builder) != 0 ? -EINVAL : borrow_longest(builder);
}
