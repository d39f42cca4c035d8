/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot path: once per message, on a worker. Long constants are handed out as they lie in the
 * template, everything else is copied once into the scratch memory.
 *
 * A part is first written in its own encoding. When a value shows that this cannot be (8-bit text
 * in a 7bit part, a line over 998 octets, a line that could be taken for a delimiter) the part is
 * marked as switched and the message is written again from the start, now with that part in
 * quoted-printable. So the common case pays nothing for the rare one; there are at most as many new
 * starts as parts.
 */
#include "engine/message/template.h"

#include <errno.h>
#include <stdio.h>

#include "engine/message/encode.h"
#include "engine/message/template_priv.h"

enum { ORDINAL_DIGITS_MAX = 10 };

struct render {
    const struct template *template;
    const struct render_input *input;
    struct render_output *output;
    struct writer *writer;
    struct template_problem *problem;
    char *run;         /* scratch octets from here on are in no piece yet */
    uint64_t size;     /* of the pieces so far */
    uint64_t switched; /* bit n: part n goes as quoted-printable */
    bool is_8bit;
    bool is_utf8;
    char ordinal[ORDINAL_DIGITS_MAX];
};

enum body_mode {
    BODY_PLAIN, /* as it is */
    BODY_QP,    /* constants were encoded by the compiler */
    BODY_QP_ALL,
    BODY_BASE64,
};

struct body {
    const struct segment *part;
    enum body_mode mode;
    bool is_long;  /* plain: a line passed the limit */
    size_t column; /* plain: octets of the current line */
    struct encode_qp qp;
    struct encode_base64 base64;
};

__attribute__((noinline, cold)) static int fail_value(const struct template *template,
                                                      const struct segment *segment,
                                                      struct template_problem *problem,
                                                      const char *reason)
{
    struct span name = template->vars[segment->index].name;
    problem->line = 0;
    (void)snprintf(problem->text, sizeof(problem->text), "\"%.*s\" %s", (int)name.size, name.at,
                   reason);
    return -EINVAL;
}

__attribute__((noinline, cold)) static int fail(struct template_problem *problem,
                                                const char *reason)
{
    problem->line = 0;
    (void)snprintf(problem->text, sizeof(problem->text), "%s", reason);
    return -EINVAL;
}

/* Neither given nor with a default. */
__attribute__((noinline)) static int value_missing(const struct template *template,
                                                   const struct segment *segment,
                                                   enum template_missing missing,
                                                   struct template_value *ret_value,
                                                   struct template_problem *ret_problem)
{
    switch (missing) {
    case TEMPLATE_MISSING_REJECT:
        return fail_value(template, segment, ret_problem, "is not given and has no default");
    case TEMPLATE_MISSING_EMPTY:
        *ret_value = (struct template_value){.text = SPAN_NONE, .is_author = true};
        return 0;
    case TEMPLATE_MISSING_LITERAL:
        *ret_value = (struct template_value){.text = segment->literal,
                                             .classes = value_classes(segment->literal),
                                             .is_author = true};
        return 0;
    }
    ensure(false);
    return -EINVAL;
}

int template_value_judge(const struct template *template, const struct segment *segment,
                         const struct render_input *input, struct template_value *ret_value,
                         struct template_problem *ret_problem)
{
    struct span text = input->values[segment->index];
    if (text.at == NULL || text.size == 0) {
        if (segment->has_fallback) {
            *ret_value = (struct template_value){.text = segment->fallback,
                                                 .classes = value_classes(segment->fallback),
                                                 .is_author = true};
            return 0;
        }
        if (text.at == NULL) {
            return value_missing(template, segment, input->missing, ret_value, ret_problem);
        }
    }
    unsigned classes = value_classes(text);
    const char *reason = value_check(segment->context, segment->is_raw, text, classes);
    if (reason != NULL) {
        return fail_value(template, segment, ret_problem, reason);
    }
    *ret_value = (struct template_value){.text = text, .classes = classes};
    return 0;
}

static int value_take(struct render *render, const struct segment *segment,
                      struct template_value *ret_value)
{
    return template_value_take(render->template, segment, render->input, ret_value,
                               render->problem);
}

static struct span ordinal_text(char digits[ORDINAL_DIGITS_MAX], uint32_t ordinal)
{
    char *at = digits + ORDINAL_DIGITS_MAX;
    do {
        *--at = (char)('0' + ordinal % 10);
        ordinal /= 10;
    } while (ordinal > 0);
    return span_of(at, (size_t)(digits + ORDINAL_DIGITS_MAX - at));
}

static void put_ordinal(struct render *render, const struct segment *segment)
{
    writer_put(render->writer, segment->text);
    writer_put(render->writer, ordinal_text(render->ordinal, render->input->ordinal));
}

static void close_run(struct render *render)
{
    size_t size = (size_t)(render->writer->at - render->run);
    if (size == 0) {
        return;
    }
    struct render_output *output = render->output;
    ensure(output->pieces_count < TEMPLATE_PIECES_MAX);
    output->pieces[output->pieces_count++] = span_of(render->run, size);
    render->size += size;
    render->run = render->writer->at;
}

__attribute__((noinline)) static void put_borrowed(struct render *render, struct span text)
{
    close_run(render);
    struct render_output *output = render->output;
    ensure(output->pieces_count < TEMPLATE_PIECES_MAX);
    output->pieces[output->pieces_count++] = text;
    render->size += text.size;
}

static inline void put_constant(struct render *render, const struct segment *segment)
{
    if (segment->is_borrowed) {
        put_borrowed(render, segment->text);
    } else {
        writer_put(render->writer, segment->text);
    }
}

/* Moves what was written behind `end` down to `start`. */
static void move_down(struct writer *writer, char *start, char *end)
{
    size_t size = (size_t)(writer->at - end);
    memmove(start, end, size);
    writer->at = start + size;
}

static int put_phrase(struct render *render, const struct segment *phrase)
{
    struct writer *writer = render->writer;
    char *start = writer->at;
    unsigned classes = 0;
    for (const struct segment *i = phrase + 1; i <= phrase + phrase->extent; i++) {
        struct template_value value;
        if (i->kind == SEGMENT_VALUE) {
            if (value_take(render, i, &value) != 0) {
                return -EINVAL;
            }
            writer_put(writer, value.text);
            classes |= value.classes;
        } else if (i->kind == SEGMENT_ORDINAL) {
            put_ordinal(render, i);
        } else {
            writer_put(writer, i->text);
            classes |= i->classes;
        }
    }
    struct span text = span_of(start, (size_t)(writer->at - start));
    if (!encode_phrase_is_atoms(text, classes)) {
        char *end = writer->at;
        encode_phrase(writer, text);
        move_down(writer, start, end);
    }
    return 0;
}

static int put_header_value(struct render *render, const struct segment *segment, unsigned *classes)
{
    struct template_value value;
    if (value_take(render, segment, &value) != 0) {
        return -EINVAL;
    }
    if (segment->context == VALUE_URI && !segment->is_raw && !value.is_author) {
        value_put_uri(render->writer, value.text);
        return 0;
    }
    writer_put(render->writer, value.text);
    *classes |= value.classes;
    return 0;
}

/* The field's text as it is before folding and encoding. */
static int put_header_text(struct render *render, const struct segment *header,
                           unsigned *ret_classes)
{
    struct writer *writer = render->writer;
    unsigned classes = 0;
    bool is_blank_due = true; /* an empty display name takes the blank behind it with it */
    for (const struct segment *i = header + 1; i <= header + header->extent; i++) {
        int error = 0;
        if (i->kind == SEGMENT_VALUE) {
            error = put_header_value(render, i, &classes);
        } else if (i->kind == SEGMENT_PHRASE) {
            char *start = writer->at;
            error = put_phrase(render, i);
            is_blank_due = writer->at > start;
            i += i->extent;
        } else if (i->kind == SEGMENT_ORDINAL) {
            put_ordinal(render, i);
        } else {
            struct span text = i->text;
            if (!is_blank_due && text.at[0] == ' ') {
                text = span_of(text.at + 1, text.size - 1);
            }
            is_blank_due = true;
            writer_put(writer, text);
            classes |= i->classes;
        }
        if (error != 0) {
            return error;
        }
    }
    *ret_classes |= classes;
    return 0;
}

/* Fold and encode: only when the field is long or not plain ASCII. */
__attribute__((noinline)) static int rewrite_header(struct render *render,
                                                    const struct segment *header, char *start)
{
    struct writer *writer = render->writer;
    char *end = writer->at;
    struct span text = span_of(start, (size_t)(end - start));
    int error = encode_header(writer, header->column, text, header->may_encode);
    if (writer->is_full) {
        return -ENOSPC;
    }
    if (error != 0) {
        return fail(render->problem, "a header field has a line over 998 octets");
    }
    move_down(writer, start, end);
    return 0;
}

static int put_header(struct render *render, const struct segment *header)
{
    struct writer *writer = render->writer;
    writer_put(writer, header->text);
    if (writer->is_full) {
        return -ENOSPC;
    }
    char *start = writer->at - header->lead;
    unsigned classes = header->classes;
    int error = put_header_text(render, header, &classes);
    if (error != 0) {
        return error;
    }
    if (writer->is_full) {
        return -ENOSPC;
    }
    struct span text = span_of(start, (size_t)(writer->at - start));
    const unsigned wild = VALUE_HIGH | VALUE_CONTROL | VALUE_BREAK | VALUE_NUL;
    bool is_wild =
        (classes & wild) != 0 || ((classes & VALUE_QUESTION) != 0 && value_has_encoded_word(text));
    if ((header->may_encode && is_wild) || header->column + text.size > ENCODE_WIDTH) {
        error = rewrite_header(render, header, start);
        if (error != 0) {
            return error;
        }
    }
    render->is_utf8 |= !header->may_encode && (classes & VALUE_HIGH) != 0;
    writer_put(writer, SPAN("\r\n"));
    return 0;
}

static void body_put(struct render *render, struct body *body, struct span text)
{
    switch (body->mode) {
    case BODY_PLAIN:
        writer_put(render->writer, text);
        body->column += text.size;
        body->is_long |= body->column > ENCODE_LINE_MAX;
        return;
    case BODY_QP:
    case BODY_QP_ALL:
        encode_qp_put(&body->qp, render->writer, text);
        return;
    case BODY_BASE64:
        encode_base64_put(&body->base64, render->writer, text);
        return;
    }
    ensure(false);
}

static void body_put_break(struct render *render, struct body *body)
{
    if (body->mode == BODY_PLAIN) {
        writer_put(render->writer, SPAN("\r\n"));
        body->column = 0;
    } else {
        body_put(render, body, SPAN("\r\n"));
    }
}

static void body_put_constant(struct render *render, struct body *body,
                              const struct segment *segment)
{
    if (body->mode == BODY_QP_ALL || body->mode == BODY_BASE64) {
        body_put(render, body, segment->text);
        return;
    }
    if (body->mode == BODY_QP) {
        struct encode_qp_piece piece = {.head = segment->head,
                                        .tail = segment->tail,
                                        .has_break = segment->has_break,
                                        .is_blank = segment->is_blank};
        encode_qp_join(&body->qp, render->writer, piece);
    }
    body->is_long |= body->column + segment->head > ENCODE_LINE_MAX;
    body->column = segment->has_break ? segment->tail : body->column + segment->tail;
    put_constant(render, segment);
}

/* Line breaks of any kind become CRLF; with `stops` holding VALUE_MARKUP, markup becomes entities.
 */
static void body_put_escaped(struct render *render, struct body *body, struct span text,
                             unsigned stops)
{
    size_t from = 0;
    for (size_t i = 0; i < text.size; i++) {
        if ((VALUE_CLASSES[(unsigned char)text.at[i]] & stops) == 0) {
            continue;
        }
        body_put(render, body, span_of(text.at + from, i - from));
        if (text.at[i] == '\r' || text.at[i] == '\n') {
            i += text.at[i] == '\r' && i + 1 < text.size && text.at[i + 1] == '\n';
            body_put_break(render, body);
        } else {
            body_put(render, body, value_entity(text.at[i]));
        }
        from = i + 1;
    }
    body_put(render, body, span_of(text.at + from, text.size - from));
}

static bool has_dash_line(struct span text)
{
    for (size_t i = 2; i < text.size; i++) {
        bool is_start = text.at[i - 2] == '\n' || text.at[i - 2] == '\r';
        if (is_start && text.at[i - 1] == '-' && text.at[i] == '-') {
            return true;
        }
    }
    return false;
}

/*
 * Whether a value may have made a line that starts with "--": it could be a delimiter of the
 * multipart around it (RFC 2046 5.1.1). When the value ends in the first two octets of a line, what
 * comes next decides.
 */
static bool may_delimit(const struct body *body, size_t column_before,
                        const struct template_value *value, const struct segment *next)
{
    struct span text = value->text;
    bool is_dash = text.size > 0 && text.at[0] == '-';
    if (is_dash &&
        (column_before == 1 || (column_before == 0 && text.size > 1 && text.at[1] == '-'))) {
        return true;
    }
    if (body->column <= 1 && next != NULL && next->kind == SEGMENT_CONSTANT &&
        next->text.at[0] == '-') {
        return true;
    }
    return (value->classes & VALUE_BREAK) != 0 && has_dash_line(text);
}

/* -EAGAIN: the part must be switched. */
static int body_put_value(struct render *render, struct body *body, const struct segment *segment,
                          const struct segment *next)
{
    struct template_value value;
    if (segment->kind == SEGMENT_ORDINAL) {
        value = (struct template_value){
            .text = ordinal_text(render->ordinal, render->input->ordinal), .is_author = true};
    } else if (value_take(render, segment, &value) != 0) {
        return -EINVAL;
    }
    bool is_high = (value.classes & VALUE_HIGH) != 0;
    if (is_high && body->mode == BODY_PLAIN) {
        if (body->part->encoding == SEGMENT_7BIT || render->input->is_7bit) {
            return -EAGAIN;
        }
        render->is_8bit = true;
    }
    unsigned stops = VALUE_BREAK;
    if (segment->context == VALUE_HTML && !segment->is_raw && !value.is_author) {
        stops |= VALUE_MARKUP;
    }
    size_t column_before = body->column;
    if ((value.classes & stops) == 0) {
        body_put(render, body, value.text);
    } else {
        body_put_escaped(render, body, value.text, stops);
    }
    if (body->mode == BODY_PLAIN && body->part->is_multipart &&
        may_delimit(body, column_before, &value, next)) {
        return -EAGAIN;
    }
    return 0;
}

static enum body_mode body_mode_of(const struct render *render, const struct segment *part)
{
    if ((render->switched >> part->index & 1) != 0) {
        return BODY_QP_ALL;
    }
    switch (part->encoding) {
    case SEGMENT_7BIT:
    case SEGMENT_8BIT:
        return BODY_PLAIN;
    case SEGMENT_QP:
        return BODY_QP;
    case SEGMENT_BASE64:
        return BODY_BASE64;
    }
    ensure(false);
    return BODY_PLAIN;
}

static void body_end(struct render *render, struct body *body)
{
    switch (body->mode) {
    case BODY_PLAIN:
        return;
    case BODY_QP:
    case BODY_QP_ALL:
        encode_qp_end(&body->qp, render->writer);
        break;
    case BODY_BASE64:
        encode_base64_end(&body->base64, render->writer);
        break;
    }
    writer_put(render->writer, body->part->text);
}

static int put_part(struct render *render, const struct segment *part)
{
    struct body body = {.part = part, .mode = body_mode_of(render, part)};
    uint64_t bit = UINT64_C(1) << part->index;
    render->is_8bit |= body.mode == BODY_PLAIN && (render->template->parts_8bit & bit) != 0;
    const struct segment *last = part + part->extent;
    int error = 0;
    for (const struct segment *i = part + 1; i <= last && error == 0; i++) {
        if (i->kind == SEGMENT_CONSTANT) {
            body_put_constant(render, &body, i);
        } else {
            error = body_put_value(render, &body, i, i < last ? i + 1 : NULL);
        }
    }
    if (error == 0 && body.is_long && body.mode == BODY_PLAIN) {
        error = -EAGAIN;
    }
    if (error == -EAGAIN) {
        ensure((render->switched & bit) == 0);
        render->switched |= bit;
    }
    if (error != 0) {
        return error;
    }
    body_end(render, &body);
    return 0;
}

static int put_segment(struct render *render, const struct segment *segment)
{
    switch (segment->kind) {
    case SEGMENT_CONSTANT:
        put_constant(render, segment);
        return 0;
    case SEGMENT_ORDINAL:
        put_ordinal(render, segment);
        return 0;
    case SEGMENT_CHOICE:
        writer_put(render->writer, (render->switched >> segment->index & 1) != 0
                                       ? segment->text_switched
                                       : segment->text);
        return 0;
    case SEGMENT_HEADER:
        return put_header(render, segment);
    case SEGMENT_PART:
        return put_part(render, segment);
    case SEGMENT_VALUE:
    case SEGMENT_PHRASE:
        break;
    }
    ensure(false); /* those stand inside groups */
    return -EINVAL;
}

static int put_range(struct render *render, uint32_t from, uint32_t to)
{
    const struct segment *end = render->template->segments + to;
    const struct segment *segment = render->template->segments + from;
    while (segment < end) {
        int error = put_segment(render, segment);
        if (error != 0) {
            return error;
        }
        segment += 1 + segment->extent;
    }
    return 0;
}

/* 0, -EINVAL, -ENOSPC; -EAGAIN: one more part was switched. */
static int put_message(struct render *render)
{
    const struct template *template = render->template;
    render->is_8bit = template->is_8bit_fixed || template->is_utf8_fixed;
    render->is_utf8 = template->is_utf8_fixed;
    int error = put_range(render, 0, template->headers_count);
    if (error != 0) {
        return error;
    }
    if (render->size + (size_t)(render->writer->at - render->run) > TEMPLATE_HEADERS_SIZE_MAX) {
        return fail(render->problem, "the header is longer than 1 MB");
    }
    error = put_range(render, template->headers_count, template->segments_count);
    if (error != 0) {
        return error;
    }
    close_run(render);
    render->is_8bit |= render->is_utf8;
    return render->writer->is_full ? -ENOSPC : 0;
}

/* What the whole message has to keep to. */
static int check_message(const struct render *render)
{
    if (render->size > render->template->size_max) {
        return fail(render->problem,
                    render->input->is_7bit && render->switched != 0
                        ? "the message is over the size limit once its 8-bit text is encoded for a "
                          "server without 8BITMIME"
                        : "the message with its values is over the size limit");
    }
    if (render->input->is_7bit && render->is_8bit) {
        return fail(render->problem, "the message holds 8-bit text that cannot be encoded");
    }
    return 0;
}

int template_render(const struct template *template, const struct render_input *input,
                    struct render_output *output, struct template_problem *ret_problem)
{
    ensure(!template->is_line);
    char *start = output->scratch.at;
    struct render render = {.template = template,
                            .input = input,
                            .output = output,
                            .writer = &output->scratch,
                            .problem = ret_problem,
                            .switched = input->is_7bit ? template->parts_8bit : 0};
    int error;
    do {
        output->scratch.at = start;
        output->scratch.is_full = false;
        output->pieces_count = 0;
        render.run = start;
        render.size = 0;
        error = put_message(&render);
    } while (error == -EAGAIN);
    if (error == 0) {
        error = check_message(&render);
    }
    if (error != 0) {
        output->scratch.at = start;
        output->pieces_count = 0;
        return error;
    }
    output->size = render.size;
    output->is_8bit = render.is_8bit;
    output->is_utf8 = render.is_utf8;
    return 0;
}

int template_render_header(const struct template *template, const struct segment *header,
                           struct writer *writer, struct template_problem *ret_problem)
{
    struct render render = {.template = template, .writer = writer, .problem = ret_problem};
    return put_header(&render, header);
}

int template_render_line(const struct template *template, const struct render_input *input,
                         struct writer *writer, struct template_problem *ret_problem)
{
    ensure(template->is_line);
    char digits[ORDINAL_DIGITS_MAX];
    for (uint32_t i = 0; i < template->segments_count; i++) {
        const struct segment *segment = &template->segments[i];
        struct template_value value = {.text = segment->text};
        if (segment->kind == SEGMENT_ORDINAL) {
            writer_put(writer, segment->text);
            value.text = ordinal_text(digits, input->ordinal);
        } else if (segment->kind == SEGMENT_VALUE &&
                   template_value_take(template, segment, input, &value, ret_problem) != 0) {
            return -EINVAL;
        }
        writer_put(writer, value.text);
    }
    return writer->is_full ? -ENOSPC : 0;
}
