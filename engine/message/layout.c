/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/layout.h"

#include <errno.h>
#include <stdlib.h>

enum {
    /* Each borrowed constant may leave a piece of scratch before it; one more comes last. */
    BORROWED_MAX = (TEMPLATE_PIECES_MAX - 1) / 2,
    /* A shorter constant is cheaper to copy than to send as a piece of its own. */
    BORROWED_SIZE_MIN = 128,
    JOINED_SIZE_MAX = 4096,
};

static void measure_constant(struct segment *segment)
{
    ensure(segment->text.size <= UINT32_MAX);
    const char *first = memmem(segment->text.at, segment->text.size, "\r\n", 2);
    segment->classes = (uint16_t)value_classes(segment->text);
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
    header->column = (uint32_t)header->text.size;
    int error = template_render_header(template, header, &writer, builder->problem);
    ensure(error != -ENOSPC);
    if (error != 0) {
        return error;
    }
    /* The segments inside are taken out by join_constants. */
    header->kind = SEGMENT_CONSTANT;
    header->text = writer_span(&writer);
    return 0;
}

static int fix_headers(struct builder *builder)
{
    struct template *template = builder->template;
    for (uint32_t i = 0; i < template->headers_count; i++) {
        struct segment *segment = &template->segments[i];
        if (segment->kind == SEGMENT_HEADER && fix_header(builder, segment) != 0) {
            return -EINVAL;
        }
        i += segment->extent;
    }
    return 0;
}

static int concatenate(struct builder *builder, struct span a, struct span b, struct span *ret_text)
{
    char *memory = builder_keep(builder, a.size + b.size);
    if (memory == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(memory, a.size + b.size);
    writer_put(&writer, a);
    writer_put(&writer, b);
    ensure(!writer.is_full);
    *ret_text = writer_span(&writer);
    return 0;
}

/* A short constant in front of a segment that starts with a text of its own becomes part of that
 * text. */
static int absorb(struct builder *builder, struct span constant, struct segment *next)
{
    switch (next->kind) {
    case SEGMENT_CHOICE:
        if (concatenate(builder, constant, next->text_switched, &next->text_switched) != 0) {
            return -EINVAL;
        }
        break;
    case SEGMENT_CONSTANT:
    case SEGMENT_ORDINAL:
    case SEGMENT_HEADER:
        break;
    case SEGMENT_VALUE:
    case SEGMENT_PHRASE:
    case SEGMENT_PART:
        ensure(false);
    }
    return concatenate(builder, constant, next->text, &next->text);
}

static bool can_absorb(const struct segment *last, const struct segment *next)
{
    if (last->kind != SEGMENT_CONSTANT) {
        return false;
    }
    switch (next->kind) {
    case SEGMENT_CONSTANT:
        return last->text.size + next->text.size <= JOINED_SIZE_MAX;
    case SEGMENT_CHOICE:
    case SEGMENT_ORDINAL:
    case SEGMENT_HEADER:
        return last->text.size < BORROWED_SIZE_MIN;
    case SEGMENT_VALUE:
    case SEGMENT_PHRASE:
    case SEGMENT_PART:
        break;
    }
    return false;
}

/* The constant that a header field starts with goes into the text of its group. */
static int take_lead(struct builder *builder, struct segment *header)
{
    const struct segment *first = header + 1;
    if (header->extent == 0 || first->kind != SEGMENT_CONSTANT) {
        return 0;
    }
    header->lead = (uint32_t)first->text.size;
    header->classes = first->classes;
    if (concatenate(builder, header->text, first->text, &header->text) != 0) {
        return -EINVAL;
    }
    header->extent--;
    memmove(header + 1, header + 2, header->extent * sizeof(*header));
    return 0;
}

/*
 * Neighbours outside of groups that came from different places, such as the added fields, are put
 * together: fewer steps and copies a message. Only a bare blank line may move over the end of the
 * header, which is looked for by its index.
 */
static int join_neighbours(struct builder *builder)
{
    struct template *template = builder->template;
    struct segment *segments = template->segments;
    uint32_t headers_end = template->headers_count;
    uint32_t joinable = 0; /* the first segment that may be absorbed */
    uint32_t out = 0;
    for (uint32_t i = 0; i < template->segments_count;) {
        struct segment *next = &segments[i];
        uint32_t count = 1 + next->extent;
        if (i == headers_end) {
            template->headers_count = out;
            bool is_blank_line = span_equal(next->text, SPAN("\r\n"));
            joinable = is_blank_line ? joinable : out;
        }
        if (next->kind == SEGMENT_CONSTANT) {
            next->extent = 0; /* a header that was fixed */
        } else if (next->kind == SEGMENT_HEADER) {
            next->column = (uint32_t)next->text.size;
            if (take_lead(builder, next) != 0) {
                return -EINVAL;
            }
        }
        if (out > joinable && can_absorb(&segments[out - 1], next)) {
            if (absorb(builder, segments[out - 1].text, next) != 0) {
                return -EINVAL;
            }
            out--;
        }
        bool is_group = next->extent > 0;
        memmove(&segments[out], next, (1 + next->extent) * sizeof(*next));
        out += 1 + segments[out].extent;
        joinable = is_group ? out : joinable;
        i += count;
    }
    ensure(template->headers_count <= out || headers_end == template->segments_count);
    if (headers_end == template->segments_count) {
        template->headers_count = out;
    }
    template->segments_count = out;
    return 0;
}

static void measure_8bit(struct template *template, uint32_t at, const struct segment *group)
{
    if (group == NULL) {
        if (at < template->headers_count) {
            template->is_utf8_fixed = true;
        } else {
            template->is_8bit_fixed = true;
        }
    } else if (group->encoding == SEGMENT_7BIT || group->encoding == SEGMENT_8BIT) {
        template->parts_8bit |= UINT64_C(1) << group->index;
    }
}

/* Which octets are not ASCII whatever the values. Header groups look at theirs once they are put
 * together. */
static void measure_all_8bit(struct template *template)
{
    const struct segment *group = NULL;
    uint32_t group_end = 0;
    for (uint32_t i = 0; i < template->segments_count; i++) {
        const struct segment *segment = &template->segments[i];
        if (segment->kind == SEGMENT_HEADER || segment->extent > 0 || i > group_end) {
            group = segment->kind == SEGMENT_PART ? segment : NULL;
            group_end = i + segment->extent;
        }
        if (segment->kind != SEGMENT_PART && segment->extent > 0) {
            i = group_end;
        }
        unsigned classes = value_classes(segment->text) | value_classes(segment->text_switched);
        if (segment->kind != SEGMENT_HEADER && (classes & VALUE_HIGH) != 0) {
            measure_8bit(template, i, group);
        }
    }
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
        uint64_t size = header->column + header->lead;
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
        return builder_no_memory(builder);
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
        return builder_no_memory(builder);
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

static void measure_constants(struct template *template)
{
    template->constants_size = 0;
    for (uint32_t i = 0; i < template->segments_count; i++) {
        struct segment *segment = &template->segments[i];
        template->constants_size += segment->text.size + segment->text_switched.size;
        if (segment->kind == SEGMENT_CONSTANT) {
            measure_constant(segment);
        }
    }
}

/* Templates are many, and live long: what was made in advance goes back. That the memory cannot be
 * had for that is no failure. */
static void shrink(struct template *template)
{
    size_t segments_size = (template->segments_count + 1) * sizeof(*template->segments);
    size_t uses_size = (template->uses_count + 1) * sizeof(*template->uses);
    struct segment *segments = realloc(template->segments, segments_size);
    struct template_use *uses = realloc(template->uses, uses_size);
    template->segments = segments != NULL ? segments : template->segments;
    template->uses = uses != NULL ? uses : template->uses;
}

int layout_finish(struct builder *builder)
{
    struct template *template = builder->template;
    measure_constants(template);
    if (fix_headers(builder) != 0) {
        return -EINVAL;
    }
    measure_all_8bit(template);
    if (join_neighbours(builder) != 0) {
        return -EINVAL;
    }
    measure_constants(template);
    measure_headers(template);
    if (collect_uses(builder) != 0 || borrow_longest(builder) != 0) {
        return -EINVAL;
    }
    shrink(template);
    return 0;
}
