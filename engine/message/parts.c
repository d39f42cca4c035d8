/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/parts.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "engine/message/placeholder.h"

#define FIELD_QP SPAN("Content-Transfer-Encoding: quoted-printable\r\n")
#define FIELD_8BIT SPAN("Content-Transfer-Encoding: 8bit\r\n")

static struct span body_of(const struct builder *builder, const struct mime_part *part)
{
    return span_of(builder->text.at + part->body_at, part->body_size);
}

static uint64_t line_of(const struct builder *builder, const struct mime_part *part)
{
    return builder_line(builder, builder->text.at + part->body_at);
}

static struct span field_of(const struct builder *builder, struct mime_field field)
{
    return span_of(builder->text.at + field.at, field.size);
}

static bool is_encoded(const struct mime_part *part)
{
    return part->encoding == MIME_ENCODING_QP || part->encoding == MIME_ENCODING_BASE64;
}

static bool charset_is_unicode(const struct mime_part *part)
{
    struct span charset = span_of_text(part->charset);
    return span_equal(charset, SPAN("utf-8")) || span_equal(charset, SPAN("utf8"));
}

static bool charset_is_ascii(const struct mime_part *part)
{
    struct span charset = span_of_text(part->charset);
    return charset.size == 0 || span_equal(charset, SPAN("us-ascii")) ||
           span_equal(charset, SPAN("ascii"));
}

/* Moves a text of malloc into the template. */
static int keep(struct builder *builder, char *text, size_t size, struct span *ret_text)
{
    if (text == NULL) {
        return builder_no_memory(builder);
    }
    int error = builder_copy(builder, span_of(text, size), ret_text);
    free(text);
    return error;
}

/* The part's text, decoded and in UTF-8. */
static int plan_text(struct builder *builder, const struct mime_part *part, struct parts_plan *plan)
{
    plan->text = body_of(builder, part);
    size_t size = 0;
    if (is_encoded(part)) {
        char *decoded = mime_decode_body(part->encoding, plan->text, &size);
        if (keep(builder, decoded, size, &plan->text) != 0) {
            return -EINVAL;
        }
    }
    if (charset_is_unicode(part) || charset_is_ascii(part)) {
        return 0;
    }
    char *utf8;
    int error = mime_to_utf8(part->charset, plan->text, &utf8, &size);
    if (error == -ENOMEM) {
        return builder_no_memory(builder);
    }
    if (error != 0) {
        /* Fails the message only if there is a placeholder to be seen. */
        return placeholder_is_in(plan->text)
                   ? builder_fail(builder, line_of(builder, part),
                                  "this part is not text in charset \"%s\"", part->charset)
                   : 0;
    }
    if (span_equal(span_of(utf8, size), plan->text)) {
        free(utf8);
        return 0;
    }
    plan->is_recoded = true;
    return keep(builder, utf8, size, &plan->text);
}

static enum segment_encoding plan_encoding(const struct mime_part *part,
                                           const struct parts_plan *plan)
{
    switch (part->encoding) {
    case MIME_ENCODING_NONE:
    case MIME_ENCODING_7BIT:
        if (plan->is_recoded) {
            return SEGMENT_QP;
        }
        return text_is_ascii(plan->text) ? SEGMENT_7BIT : SEGMENT_8BIT;
    case MIME_ENCODING_8BIT:
    case MIME_ENCODING_BINARY:
        return plan->is_recoded ? SEGMENT_QP : SEGMENT_8BIT;
    case MIME_ENCODING_QP:
        return SEGMENT_QP;
    case MIME_ENCODING_BASE64:
        return SEGMENT_BASE64;
    case MIME_ENCODING_OTHER:
        break;
    }
    ensure(false);
    return SEGMENT_7BIT;
}

static struct parts_edit *add_edit(struct parts *parts, const struct mime_part *part,
                                   struct mime_field field)
{
    ensure(parts->edits_count < COUNT_OF(parts->edits));
    struct parts_edit *edit = &parts->edits[parts->edits_count++];
    *edit = (struct parts_edit){.at = field.size > 0 ? field.at : part->header_end,
                                .size = field.size,
                                .part = parts->plans_count};
    return edit;
}

/* Values are UTF-8, so the part must say so, unless it is 7bit and stays ASCII. */
static int edit_type(struct parts *parts, struct builder *builder, const struct mime_part *part,
                     const struct parts_plan *plan)
{
    if (!plan->is_template || charset_is_unicode(part)) {
        return 0;
    }
    size_t size = 0;
    char *field = mime_type_field_utf8(parts->mime, plan->leaf, &size);
    struct parts_edit *edit = add_edit(parts, part, part->type_field);
    if (keep(builder, field, size, &edit->switched) != 0) {
        return -EINVAL;
    }
    struct span own = field_of(builder, part->type_field);
    bool is_kept = plan->group.encoding == SEGMENT_7BIT && text_is_ascii(own);
    edit->normal = is_kept ? own : edit->switched;
    return 0;
}

static void edit_encoding(struct parts *parts, struct builder *builder,
                          const struct mime_part *part, const struct parts_plan *plan)
{
    if (is_encoded(part)) {
        return;
    }
    struct parts_edit *edit = add_edit(parts, part, part->encoding_field);
    edit->normal = field_of(builder, part->encoding_field);
    edit->switched = FIELD_QP;
    if (plan->group.encoding == SEGMENT_QP) {
        edit->normal = FIELD_QP;
    } else if (plan->is_template && plan->group.encoding == SEGMENT_8BIT &&
               part->encoding != MIME_ENCODING_8BIT) {
        edit->normal = FIELD_8BIT;
    }
}

/* What must follow the last octet, when the encoding swallowed the line end that closes the body.
 */
static struct span plan_ending(const struct builder *builder, const struct mime_part *part,
                               const struct parts_plan *plan)
{
    struct span body = body_of(builder, part);
    bool is_closed = body.size >= 2 && memcmp(body.at + body.size - 2, "\r\n", 2) == 0;
    struct span text = plan->text;
    bool is_text_closed = text.size >= 2 && memcmp(text.at + text.size - 2, "\r\n", 2) == 0;
    if (is_closed && plan->group.encoding == SEGMENT_BASE64) {
        return SPAN("\r\n");
    }
    if (is_closed && !is_text_closed) {
        return SPAN("=\r\n");
    }
    return SPAN_NONE;
}

static void plan_version(struct parts *parts, const struct mime_part *part, uint32_t edits_from)
{
    if (!part->is_top || part->type_field.size > 0 || part->encoding_field.size > 0) {
        return;
    }
    parts->version = PARTS_VERSION_SWITCHED;
    for (uint32_t i = edits_from; i < parts->edits_count; i++) {
        if (parts->edits[i].normal.size > 0) {
            parts->version = PARTS_VERSION_ADD;
        }
    }
}

static int plan_add(struct parts *parts, struct builder *builder, const struct mime_part *part,
                    struct parts_plan *plan)
{
    if (parts->plans_count == TEMPLATE_PARTS_MAX) {
        return builder_fail(builder, line_of(builder, part),
                            "more than %d parts with placeholders or 8-bit text",
                            TEMPLATE_PARTS_MAX);
    }
    if (plan->is_template && charset_is_ascii(part) && !text_is_utf8(plan->text)) {
        return builder_fail(builder, line_of(builder, part),
                            "this part is neither ASCII nor UTF-8, and names no other charset");
    }
    plan->group =
        (struct segment){.kind = SEGMENT_PART,
                         .index = parts->plans_count,
                         .encoding = plan->is_template ? plan_encoding(part, plan) : SEGMENT_8BIT,
                         .is_multipart = !part->is_top};
    plan->group.text = plan_ending(builder, part, plan);
    uint32_t edits_from = parts->edits_count;
    if (edit_type(parts, builder, part, plan) != 0) {
        return -EINVAL;
    }
    edit_encoding(parts, builder, part, plan);
    struct parts_edit *edits = &parts->edits[edits_from];
    if (parts->edits_count - edits_from == 2 && edits[0].at > edits[1].at) {
        struct parts_edit first = edits[0];
        edits[0] = edits[1];
        edits[1] = first;
    }
    plan_version(parts, part, edits_from);
    parts->plans[parts->plans_count++] = *plan;
    return 0;
}

static int plan_leaf(struct parts *parts, struct builder *builder, uint32_t leaf)
{
    const struct mime_part *part = mime_part(parts->mime, leaf);
    struct parts_plan plan = {.leaf = leaf};
    if (!part->is_headed || part->is_signed || part->encoding == MIME_ENCODING_OTHER) {
        return 0;
    }
    if (part->is_text && !part->is_attachment && !part->is_foreign) {
        if (plan_text(builder, part, &plan) != 0) {
            return -EINVAL;
        }
        plan.is_template = placeholder_is_in(plan.text);
        if (plan.is_template) {
            return plan_add(parts, builder, part, &plan);
        }
    }
    if (is_encoded(part) || text_is_ascii(body_of(builder, part))) {
        return 0;
    }
    plan = (struct parts_plan){.leaf = leaf, .text = body_of(builder, part)};
    return plan_add(parts, builder, part, &plan);
}

int parts_init(struct parts *parts, struct builder *builder, size_t body_at)
{
    memset(parts, 0, sizeof(*parts));
    const char *reason = NULL;
    parts->mime = mime_parse(builder->text, &reason);
    if (parts->mime == NULL) {
        return reason == NULL ? builder_no_memory(builder) : builder_fail(builder, 0, "%s", reason);
    }
    struct span body = span_of(builder->text.at + body_at, builder->text.size - body_at);
    for (uint32_t i = 0; i < mime_parts_count(parts->mime); i++) {
        const struct mime_part *part = mime_part(parts->mime, i);
        if (part->header_end + 2 < body_at || (part->is_top && part->body_at != body_at)) {
            return builder_fail(builder, 0, "the header cannot be told from the body");
        }
        if (plan_leaf(parts, builder, i) != 0) {
            return -EINVAL;
        }
    }
    if (mime_parts_count(parts->mime) == 0 && placeholder_is_in(body)) {
        return builder_fail(builder, 0,
                            "the message is multipart but has no parts: the boundary of "
                            "its Content-Type is not in the text");
    }
    for (uint32_t i = 1; i < parts->edits_count; i++) {
        ensure(parts->edits[i - 1].at + parts->edits[i - 1].size <= parts->edits[i].at);
    }
    return 0;
}

void parts_deinit(struct parts *parts)
{
    mime_destroy(parts->mime);
    parts->mime = NULL;
}

const struct parts_edit *parts_edit_at(const struct parts *parts, size_t at, uint32_t from)
{
    for (uint32_t i = from; i < parts->edits_count && parts->edits[i].at <= at; i++) {
        if (parts->edits[i].at == at) {
            return &parts->edits[i];
        }
    }
    return NULL;
}

int parts_put_edit(struct builder *builder, const struct parts_edit *edit)
{
    if (span_equal(edit->normal, edit->switched)) {
        return builder_constant(builder, edit->normal);
    }
    return builder_choice(builder, edit->part, edit->normal, edit->switched);
}

/* Of what lies at that offset of the text. */
static uint64_t text_line(const struct builder *builder, const struct mime_part *part,
                          struct span text, size_t offset)
{
    struct span body = body_of(builder, part);
    uint64_t line = builder_line(builder, body.at);
    if (is_encoded(part)) {
        return line + mime_decoded_line(part->encoding, body, offset);
    }
    for (size_t i = 0; i < offset && i < text.size; i++) {
        line += text.at[i] == '\n';
    }
    return line;
}

static int put_text(struct builder *builder, const struct mime_part *part,
                    const struct parts_plan *plan)
{
    struct builder_style style = {
        .context = part->is_html ? VALUE_HTML : VALUE_TEXT,
        .is_qp = plan->group.encoding == SEGMENT_QP,
    };
    struct span text = plan->text;
    int error;
    while ((error = builder_text(builder, text, style)) != 0) {
        size_t bad_at = (size_t)(text.at - plan->text.at) + builder->bad_at;
        builder->problem->line = text_line(builder, part, plan->text, bad_at);
        if (!builder_goes_on(builder)) {
            return error;
        }
        size_t behind = builder->bad_at + strlen("{{");
        text = span_of(text.at + behind, text.size - behind);
    }
    return 0;
}

static int put_part(const struct parts *parts, struct builder *builder,
                    const struct parts_plan *plan)
{
    const struct mime_part *part = mime_part(parts->mime, plan->leaf);
    uint32_t group = 0;
    if (builder_open(builder, &plan->group, &group) != 0) {
        return -EINVAL;
    }
    int error =
        plan->is_template ? put_text(builder, part, plan) : builder_constant(builder, plan->text);
    builder_close(builder, group);
    return error;
}

/* The bytes between two bodies: delimiters and the headers of parts, with their edits. */
static int put_between(const struct parts *parts, struct builder *builder, size_t at, size_t end,
                       uint32_t *edit)
{
    while (*edit < parts->edits_count && parts->edits[*edit].at < end) {
        const struct parts_edit *next = &parts->edits[(*edit)++];
        ensure(next->at >= at);
        struct span before = span_of(builder->text.at + at, next->at - at);
        if (builder_constant(builder, before) != 0 || parts_put_edit(builder, next) != 0) {
            return -EINVAL;
        }
        at = next->at + next->size;
    }
    return builder_constant(builder, span_of(builder->text.at + at, end - at));
}

int parts_put_body(const struct parts *parts, struct builder *builder, size_t body_at)
{
    ensure(body_at >= 2);
    size_t at = body_at - 2;
    uint32_t edit = 0;
    while (edit < parts->edits_count && parts->edits[edit].at <= at) {
        edit++;
    }
    for (uint32_t i = 0; i < parts->plans_count; i++) {
        const struct mime_part *part = mime_part(parts->mime, parts->plans[i].leaf);
        if (put_between(parts, builder, at, part->body_at, &edit) != 0 ||
            put_part(parts, builder, &parts->plans[i]) != 0) {
            return -EINVAL;
        }
        at = part->body_at + part->body_size;
    }
    return put_between(parts, builder, at, builder->text.size, &edit);
}
