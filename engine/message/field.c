/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/field.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "engine/message/encode.h"
#include "engine/message/field_priv.h"
#include "engine/message/placeholder.h"

enum field_kind { FIELD_TEXT, FIELD_ADDRESSES, FIELD_STRUCTURED, FIELD_LIST, FIELD_MIME };

enum field_rule {
    FIELD_ONCE = 1u << 0, /* RFC 5322 3.6: at most one */
    FIELD_REMOVED = 1u << 1,
    FIELD_PREFIX = 1u << 2, /* the name is the start of a family of names */
};

static const struct field_name {
    const char *name;
    enum field_kind kind;
    unsigned rules;
} NAMES[] = {
    {"From", FIELD_ADDRESSES, FIELD_ONCE},
    {"Sender", FIELD_ADDRESSES, FIELD_ONCE},
    {"Reply-To", FIELD_ADDRESSES, FIELD_ONCE},
    {"To", FIELD_ADDRESSES, FIELD_ONCE},
    {"Cc", FIELD_ADDRESSES, FIELD_ONCE},
    {"Subject", FIELD_TEXT, FIELD_ONCE},
    {"Date", FIELD_STRUCTURED, FIELD_ONCE},
    {"Message-ID", FIELD_STRUCTURED, FIELD_ONCE},
    {"In-Reply-To", FIELD_STRUCTURED, FIELD_ONCE},
    {"References", FIELD_STRUCTURED, FIELD_ONCE},
    {"MIME-Version", FIELD_MIME, FIELD_ONCE},
    {"Content-Type", FIELD_MIME, FIELD_ONCE},
    {"Content-Transfer-Encoding", FIELD_MIME, FIELD_ONCE},
    {"Bcc", FIELD_ADDRESSES, FIELD_REMOVED},
    {"Resent-Bcc", FIELD_ADDRESSES, FIELD_REMOVED},
    {"Return-Path", FIELD_STRUCTURED, FIELD_REMOVED},
    {"Content-Length", FIELD_STRUCTURED, FIELD_REMOVED},
    {"X-Sender", FIELD_TEXT, FIELD_REMOVED},
    {"X-Receiver", FIELD_TEXT, FIELD_REMOVED},
    {"X-Ramjet-", FIELD_TEXT, FIELD_REMOVED | FIELD_PREFIX},
    {"Resent-From", FIELD_ADDRESSES, 0},
    {"Resent-Sender", FIELD_ADDRESSES, 0},
    {"Resent-To", FIELD_ADDRESSES, 0},
    {"Resent-Cc", FIELD_ADDRESSES, 0},
    {"Resent-", FIELD_STRUCTURED, FIELD_PREFIX},
    {"Errors-To", FIELD_ADDRESSES, 0},
    {"Disposition-Notification-To", FIELD_ADDRESSES, 0},
    {"Return-Receipt-To", FIELD_ADDRESSES, 0},
    {"List-", FIELD_LIST, FIELD_PREFIX},
    {"Content-", FIELD_MIME, FIELD_PREFIX},
    {"Received", FIELD_STRUCTURED, 0},
    {"DKIM-Signature", FIELD_STRUCTURED, 0},
    {"ARC-", FIELD_STRUCTURED, FIELD_PREFIX},
    {"Authentication-Results", FIELD_STRUCTURED, 0},
    {"Auto-Submitted", FIELD_STRUCTURED, 0},
    {"Feedback-ID", FIELD_STRUCTURED, 0},
    {"Precedence", FIELD_STRUCTURED, 0},
    {"Expires", FIELD_STRUCTURED, 0},
};

static const struct field_name OTHER_NAME = {"", FIELD_TEXT, 0};

static const struct field_name *field_name_of(struct span name)
{
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        struct span known = span_of_text(NAMES[i].name);
        bool is_prefix = (NAMES[i].rules & FIELD_PREFIX) != 0;
        if (is_prefix ? span_starts_nocase(name, known) : span_equal_nocase(name, known)) {
            return &NAMES[i];
        }
    }
    return &OTHER_NAME;
}

/* RFC 5322 2.2: the name is printable ASCII without a colon; no blank before the colon
 * (obsolete, 4.5). */
static size_t name_size(struct span line)
{
    size_t size = 0;
    while (size < line.size && line.at[size] > 32 && line.at[size] < 127 && line.at[size] != ':') {
        size++;
    }
    return size < line.size && line.at[size] == ':' ? size : 0;
}

static bool is_fold(const struct cursor *cursor)
{
    return cursor_peek(cursor) == ' ' || cursor_peek(cursor) == '\t';
}

/* The next field; false at the blank line. All lines were checked by field_check_all. */
static bool field_next(struct cursor *cursor, struct field *ret_field)
{
    const char *start = cursor->at;
    struct span line;
    bool is_line = cursor_take_line(cursor, &line);
    ensure(is_line);
    if (line.size == 0) {
        return false;
    }
    size_t name = name_size(line);
    ensure(name > 0);
    while (is_fold(cursor)) {
        is_line = cursor_take_line(cursor, &line);
        ensure(is_line);
    }
    struct span whole = span_of(start, (size_t)(cursor->at - start));
    *ret_field = (struct field){
        .whole = whole,
        .name = span_of(start, name),
        .value = span_of(start + name + 1, whole.size - name - 3),
    };
    return true;
}

static int check_line(struct builder *builder, struct span line, uint64_t number)
{
    bool is_folded = line.at[0] == ' ' || line.at[0] == '\t';
    if (is_folded && span_trim(line).size == 0) {
        return builder_fail(builder, number, "a header line of blanks only");
    }
    if (is_folded ? number == 1 : name_size(line) == 0) {
        return builder_fail(builder, number,
                            "neither a header field nor the blank line behind the header");
    }
    return 0;
}

int field_check_all(struct builder *builder, size_t *ret_size)
{
    struct cursor cursor = cursor_of(builder->text);
    struct span line;
    uint64_t number = 0;
    for (;;) {
        bool is_line = cursor_take_line(&cursor, &line);
        ensure(is_line);
        number++;
        if (line.size == 0) {
            break;
        }
        int error = check_line(builder, line, number);
        if (error != 0 && !builder_goes_on(builder)) {
            return error;
        }
    }
    if (builder_has_failed(builder)) {
        return -EINVAL;
    }
    size_t size = (size_t)(cursor.at - builder->text.at);
    if (size > TEMPLATE_HEADERS_SIZE_MAX) {
        return builder_fail(builder, 0, "the header is longer than %d bytes",
                            TEMPLATE_HEADERS_SIZE_MAX);
    }
    *ret_size = size;
    return 0;
}

struct span field_prefix(const struct field *field)
{
    size_t blanks = 0;
    while (blanks < field->value.size &&
           (field->value.at[blanks] == ' ' || field->value.at[blanks] == '\t')) {
        blanks++;
    }
    return span_of(field->whole.at, field->name.size + 1 + blanks);
}

int field_unfold(struct builder *builder, const struct field *field, struct span *ret_text)
{
    char *text = builder_keep(builder, field->value.size);
    if (text == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(text, field->value.size);
    struct span rest = span_of(field->whole.at + field_prefix(field).size,
                               field->whole.size - field_prefix(field).size - 2);
    for (size_t i = 0; i < rest.size; i++) {
        if (rest.at[i] != '\r' && rest.at[i] != '\n') {
            writer_put_byte(&writer, rest.at[i]);
        }
    }
    ensure(!writer.is_full);
    *ret_text = writer_span(&writer);
    return 0;
}

int field_failed(struct builder *builder, const struct field *field, int error)
{
    if (error != 0 && builder->problem->line == 0) {
        builder->problem->line = builder_line(builder, field->whole.at);
    }
    return error;
}

int field_check_ascii(struct builder *builder, struct span text)
{
    return text_is_ascii(text)
               ? 0
               : builder_fail(builder, 0,
                              "the field holds text that is not ASCII where it cannot be encoded, "
                              "such as an address: that needs SMTPUTF8, which this engine does not "
                              "speak");
}

static int put_group(struct builder *builder, const struct field *field, struct span text,
                     enum value_context context)
{
    struct segment header = {
        .kind = SEGMENT_HEADER, .may_encode = context == VALUE_HEADER, .text = field_prefix(field)};
    uint32_t group = 0;
    if (builder_open(builder, &header, &group) != 0 ||
        builder_text(builder, text, (struct builder_style){.context = context}) != 0) {
        return -EINVAL;
    }
    builder_close(builder, group);
    return 0;
}

/* Unstructured text: what encoded words hide comes to light first. */
static int put_text(struct builder *builder, const struct field *field)
{
    bool is_ascii = text_is_ascii(field->value);
    if (is_ascii && !placeholder_is_in(field->value) && !value_has_encoded_word(field->value)) {
        return builder_constant(builder, field->whole);
    }
    struct span text;
    if (field_unfold(builder, field, &text) != 0) {
        return -EINVAL;
    }
    char *decoded = mime_decode_header(text);
    if (decoded == NULL) {
        return builder_no_memory(builder);
    }
    int error = builder_copy(builder, span_of_text(decoded), &text);
    free(decoded);
    if (error != 0) {
        return error;
    }
    if (is_ascii && !placeholder_is_in(text)) {
        return builder_constant(builder, field->whole);
    }
    return put_group(builder, field, text, VALUE_HEADER);
}

/* Structured text; what stands between < and > has rules of its own. */
static int put_structured(struct builder *builder, const struct field *field,
                          enum value_context angle_context)
{
    if (field_check_ascii(builder, field->value) != 0) {
        return -EINVAL;
    }
    if (!placeholder_is_in(field->value)) {
        return builder_constant(builder, field->whole);
    }
    struct span text;
    struct segment header = {.kind = SEGMENT_HEADER, .text = field_prefix(field)};
    uint32_t group = 0;
    if (field_unfold(builder, field, &text) != 0 || builder_open(builder, &header, &group) != 0) {
        return -EINVAL;
    }
    bool is_angle = false;
    while (text.size > 0) {
        size_t size = 0;
        while (size < text.size && text.at[size] != (is_angle ? '>' : '<')) {
            bool is_open = span_starts(span_of(text.at + size, text.size - size), SPAN("{{"));
            size = is_open ? placeholder_find(text, size).end : size + 1;
        }
        struct builder_style style = {.context = is_angle ? angle_context : VALUE_STRUCTURED};
        if (builder_text(builder, span_of(text.at, size), style) != 0) {
            return -EINVAL;
        }
        text = span_of(text.at + size, text.size - size);
        if (text.size > 0) {
            if (builder_constant(builder, span_of(text.at, 1)) != 0) {
                return -EINVAL;
            }
            text = span_of(text.at + 1, text.size - 1);
            is_angle = !is_angle;
        }
    }
    builder_close(builder, group);
    return 0;
}

static int put_addresses(struct builder *builder, const struct field *field)
{
    if (text_is_ascii(field->value) && !placeholder_is_in(field->value) &&
        !value_has_encoded_word(field->value)) {
        return builder_constant(builder, field->whole);
    }
    return field_address_put(builder, field);
}

static int put_field(struct builder *builder, const struct parts *parts, const struct field *field)
{
    const struct field_name *name = field_name_of(field->name);
    if ((name->rules & FIELD_REMOVED) != 0) {
        return 0;
    }
    if (!text_is_utf8(field->value)) {
        return builder_fail(builder, 0, "the header field is neither ASCII nor UTF-8");
    }
    switch (name->kind) {
    case FIELD_TEXT:
        return put_text(builder, field);
    case FIELD_ADDRESSES:
        return put_addresses(builder, field);
    case FIELD_STRUCTURED:
        return put_structured(builder, field, VALUE_ID);
    case FIELD_LIST:
        return put_structured(builder, field, VALUE_URI);
    case FIELD_MIME:
        if (placeholder_is_in(field->value)) {
            return builder_fail(builder, 0, "a placeholder cannot stand in %.*s",
                                (int)field->name.size, field->name.at);
        }
        break;
    }
    size_t at = (size_t)(field->whole.at - builder->text.at);
    const struct parts_edit *edit = parts_edit_at(parts, at, 0);
    if (edit != NULL) {
        return parts_put_edit(builder, edit);
    }
    int error = field_check_ascii(builder, field->value);
    return error == 0 ? builder_constant(builder, field->whole) : error;
}

static int put_date(struct builder *builder)
{
    char text[64];
    struct writer writer = writer_of(text, sizeof(text));
    writer_put(&writer, SPAN("Date: "));
    text_put_rfc5322(&writer, builder->options->date);
    writer_put(&writer, SPAN("\r\n"));
    ensure(!writer.is_full);
    struct span line;
    if (builder_copy(builder, writer_span(&writer), &line) != 0) {
        return -EINVAL;
    }
    builder->date_line = line;
    return builder_constant(builder, line);
}

/* RFC 5322 3.6.4: the left side is a dot-atom. What does not fit in one becomes "-". */
static void put_dot_atom(struct writer *writer, struct span text)
{
    for (size_t i = 0; i < text.size; i++) {
        unsigned classes = VALUE_CLASSES[(unsigned char)text.at[i]];
        bool is_inner_dot =
            text.at[i] == '.' && i > 0 && i + 1 < text.size && text.at[i - 1] != '.';
        unsigned wrong = VALUE_HIGH | VALUE_BREAK | VALUE_NUL | VALUE_CONTROL | VALUE_BLANK |
                         VALUE_SPECIAL | VALUE_DOT | VALUE_AT;
        writer_put_byte(writer, is_inner_dot || (classes & wrong) == 0 ? text.at[i] : '-');
    }
}

/* Every repeat for a recipient carries the same Message-ID (LAW 6): batch, time of acceptance,
 * recipient's number, domain of From. The time tells it from a batch of the same id, on another
 * engine or after a month. */
static int put_message_id(struct builder *builder, struct span domain)
{
    struct span batch = builder->options->batch_id;
    size_t size_max = batch.size + domain.size + 48;
    char *text = builder_keep(builder, size_max);
    if (text == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(text, size_max);
    writer_put(&writer, SPAN("Message-ID: <"));
    put_dot_atom(&writer, batch);
    writer_put_byte(&writer, '.');
    text_put_hex64(&writer, (uint64_t)builder->options->date.ns);
    struct span before = writer_span(&writer);
    builder->id_start = before;
    writer_put_byte(&writer, '@');
    writer_put(&writer, domain);
    writer_put(&writer, SPAN(">\r\n"));
    ensure(!writer.is_full);
    struct span after = span_of(before.at + before.size, writer_size(&writer) - before.size);
    if (writer_size(&writer) + 16 > ENCODE_LINE_MAX) {
        return builder_fail(builder, 0, "From's domain is too long for a Message-ID");
    }
    if (builder_constant(builder, before) != 0 || builder_ordinal(builder, SPAN(".")) != 0 ||
        builder_constant(builder, after) != 0) {
        return -EINVAL;
    }
    return 0;
}

struct seen {
    unsigned counts[COUNT_OF(NAMES)];
    struct span domain; /* of From */
};

static bool seen_has(const struct seen *seen, const char *name)
{
    const struct field_name *known = field_name_of(span_of_text(name));
    ensure(known != &OTHER_NAME);
    return seen->counts[known - NAMES] > 0;
}

static int see(struct builder *builder, const struct field *field, struct seen *seen)
{
    const struct field_name *name = field_name_of(field->name);
    if (name == &OTHER_NAME) {
        return 0;
    }
    if (++seen->counts[name - NAMES] > 1 && (name->rules & FIELD_ONCE) != 0) {
        return builder_fail(builder, 0, "a second %s field", name->name);
    }
    if (span_equal_nocase(field->name, SPAN("From"))) {
        seen->domain = field_address_domain(field);
    }
    return 0;
}

static int put_missing(struct builder *builder, const struct parts *parts, const struct seen *seen,
                       size_t header_end)
{
    if (!seen_has(seen, "Date") && put_date(builder) != 0) {
        return -EINVAL;
    }
    if (!seen_has(seen, "Message-ID")) {
        if (seen->domain.size == 0) {
            return builder_fail(builder, 0,
                                "From has no constant domain to make a Message-ID of: "
                                "give a Message-ID field");
        }
        if (put_message_id(builder, seen->domain) != 0) {
            return -EINVAL;
        }
    }
    bool is_mime = seen_has(seen, "Content-Type") || seen_has(seen, "Content-Transfer-Encoding");
    if (!seen_has(seen, "MIME-Version")) {
        struct span line = SPAN("MIME-Version: 1.0\r\n");
        if (is_mime || parts->version == PARTS_VERSION_ADD) {
            if (builder_constant(builder, line) != 0) {
                return -EINVAL;
            }
        } else if (parts->version == PARTS_VERSION_SWITCHED &&
                   builder_choice(builder, 0, SPAN_NONE, line) != 0) {
            return -EINVAL;
        }
    }
    for (uint32_t i = 0; i < parts->edits_count && parts->edits[i].at <= header_end; i++) {
        if (parts->edits[i].at == header_end && parts_put_edit(builder, &parts->edits[i]) != 0) {
            return -EINVAL;
        }
    }
    return 0;
}

int field_put_all(struct builder *builder, const struct parts *parts, size_t header_size)
{
    struct cursor cursor = cursor_of(span_of(builder->text.at, header_size));
    struct seen seen = {.domain = SPAN_NONE};
    struct field field;
    while (field_next(&cursor, &field)) {
        struct builder_mark mark = builder_mark(builder);
        int error = see(builder, &field, &seen);
        if (error == 0) {
            error = put_field(builder, parts, &field);
        }
        if (error != 0) {
            error = field_failed(builder, &field, error);
            if (!builder_goes_on(builder)) {
                return error;
            }
            builder_rewind(builder, mark);
        }
    }
    int error = seen_has(&seen, "From") ? put_missing(builder, parts, &seen, header_size - 2)
                                        : builder_fail(builder, 0, "there is no From field");
    if (error != 0 && !builder_goes_on(builder)) {
        return error;
    }
    builder->template->headers_count = builder->template->segments_count;
    builder->merge_from = builder->template->segments_count;
    return 0;
}
