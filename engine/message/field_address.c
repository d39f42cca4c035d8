/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fields of addresses are cut into items: structure (commas, angle brackets, comments, blanks),
 * display names and addresses. Display names are decoded, and written anew as the values demand;
 * the others keep their bytes.
 *
 *   address-list = [mailbox / group] *("," [mailbox / group])      RFC 5322 3.4, loosely
 *   mailbox      = [phrase] "<" addr-spec ">" / addr-spec
 *   group        = phrase ":" *mailbox ";"
 */
#include "engine/message/field_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "engine/message/encode.h"
#include "engine/message/mime.h"
#include "engine/message/placeholder.h"

enum item_kind { ITEM_STRUCTURE, ITEM_PHRASE, ITEM_ADDRESS };

struct item {
    enum item_kind kind;
    struct span text;
};

struct lexer {
    struct span text;
    size_t at;
    bool is_angle; /* the next item stands between < and > */
};

/* RFC 2047 2: "=?" charset "?" encoding "?" text "?=" without blanks; 0 = none starts at `at`. */
static size_t encoded_word_end(struct span text, size_t at)
{
    if (!span_starts(span_of(text.at + at, text.size - at), SPAN("=?"))) {
        return 0;
    }
    unsigned marks = 1;
    for (size_t i = at + 2; i < text.size && text.at[i] != ' ' && text.at[i] != '\t'; i++) {
        marks += text.at[i] == '?';
        if (marks == 4) {
            return i + 1 < text.size && text.at[i + 1] == '=' ? i + 2 : 0;
        }
    }
    return 0;
}

/*
 * Behind the quoted string, comment, literal, encoded word or placeholder that starts at `at`, or
 * the next byte.
 */
static size_t token_end(struct span text, size_t at)
{
    char first = text.at[at];
    if (first == '=') {
        size_t end = encoded_word_end(text, at);
        return end > 0 ? end : at + 1;
    }
    if (first == '{' && at + 1 < text.size && text.at[at + 1] == '{') {
        struct placeholder found = placeholder_find(text, at);
        return found.at == at && found.end > at ? found.end : at + 1;
    }
    if (first != '"' && first != '(' && first != '[') {
        return at + 1;
    }
    char last = first == '(' ? ')' : first == '[' ? ']' : '"';
    unsigned depth = 1;
    size_t i = at + 1;
    while (i < text.size && depth > 0) {
        if (text.at[i] == '\\' && i + 1 < text.size) {
            i++;
        } else if (text.at[i] == last) {
            depth--;
        } else if (first == '(' && text.at[i] == '(') {
            depth++;
        }
        i++;
    }
    return i;
}

static size_t skip_until(struct span text, size_t at, const char *stops)
{
    while (at < text.size && (text.at[at] == '\0' || strchr(stops, text.at[at]) == NULL)) {
        at = token_end(text, at);
    }
    return at;
}

static struct span part_trimmed(struct span text, size_t at, size_t end)
{
    while (end > at && (text.at[end - 1] == ' ' || text.at[end - 1] == '\t')) {
        end--;
    }
    return span_of(text.at + at, end - at);
}

static bool item_next(struct lexer *lexer, struct item *ret_item)
{
    struct span text = lexer->text;
    size_t start = lexer->at;
    if (start == text.size) {
        return false;
    }
    if (lexer->is_angle) {
        lexer->is_angle = false;
        lexer->at = skip_until(text, start, ">");
        if (lexer->at > start) {
            *ret_item = (struct item){ITEM_ADDRESS, span_of(text.at + start, lexer->at - start)};
            return true;
        }
    }
    if (strchr(" \t,;:<>(", text.at[start]) != NULL) {
        lexer->at = text.at[start] == '(' ? token_end(text, start) : start + 1;
        lexer->is_angle = text.at[start] == '<';
        *ret_item = (struct item){ITEM_STRUCTURE, span_of(text.at + start, lexer->at - start)};
        return true;
    }
    size_t end = skip_until(text, start, ",;:<");
    struct item item = {ITEM_ADDRESS, part_trimmed(text, start, end)};
    if (end < text.size && (text.at[end] == '<' || text.at[end] == ':')) {
        item.kind = ITEM_PHRASE;
    }
    lexer->at = start + item.text.size;
    ensure(item.text.size > 0);
    *ret_item = item;
    return true;
}

/* Appends what a stretch of a phrase outside of placeholders stands for. */
static int phrase_decode(struct builder *builder, struct writer *writer, struct span text)
{
    if (text.size == 0) {
        return 0;
    }
    char *decoded = mime_decode_phrase(text);
    if (decoded == NULL) {
        return builder_no_memory(builder);
    }
    writer_put(writer, span_of_text(decoded));
    free(decoded);
    return 0;
}

/* A quoted string's content; clients decode encoded words even in there. */
static int quoted_decode(struct builder *builder, struct writer *writer, struct span text)
{
    size_t end = text.size > 1 && text.at[text.size - 1] == '"' ? text.size - 1 : text.size;
    if (memmem(text.at, text.size, "=?", 2) != NULL) {
        return phrase_decode(builder, writer, span_of(text.at + 1, end - 1));
    }
    for (size_t i = 1; i < end; i++) {
        if (text.at[i] == '\\' && i + 1 < end) {
            i++;
        }
        writer_put_byte(writer, text.at[i]);
    }
    return 0;
}

/* The display name in UTF-8, placeholders as they were written. */
static int phrase_text(struct builder *builder, struct span text, struct span *ret_text)
{
    /* A decoded charset can take more room than its encoded word: at most 4 octets for each. */
    size_t size_max = 4 * text.size + 16;
    char *memory = builder_keep(builder, size_max);
    if (memory == NULL) {
        return -EINVAL;
    }
    struct writer writer = writer_of(memory, size_max);
    size_t from = 0;
    size_t at = 0;
    while (at < text.size) {
        size_t end = token_end(text, at);
        bool is_quoted = text.at[at] == '"';
        bool is_placeholder = text.at[at] == '{' && end > at + 1;
        if (is_quoted || is_placeholder) {
            struct span token = span_of(text.at + at, end - at);
            if (phrase_decode(builder, &writer, span_of(text.at + from, at - from)) != 0) {
                return -EINVAL;
            }
            if (is_placeholder) {
                writer_put(&writer, token);
            } else if (quoted_decode(builder, &writer, token) != 0) {
                return -EINVAL;
            }
            from = end;
        }
        at = end;
    }
    if (phrase_decode(builder, &writer, span_of(text.at + from, text.size - from)) != 0) {
        return -EINVAL;
    }
    if (writer.is_full) {
        return builder_fail(builder, 0, "a display name is too long");
    }
    *ret_text = writer_span(&writer);
    return 0;
}

static int put_phrase(struct builder *builder, struct span raw)
{
    struct span text;
    if (phrase_text(builder, raw, &text) != 0) {
        return -EINVAL;
    }
    if (text_is_ascii(raw) && !placeholder_is_in(text)) {
        return builder_constant(builder, raw);
    }
    uint32_t group = 0;
    struct builder_style style = {.context = VALUE_PHRASE};
    if (builder_open(builder, &(struct segment){.kind = SEGMENT_PHRASE}, &group) != 0 ||
        builder_text(builder, text, style) != 0) {
        return -EINVAL;
    }
    builder_close(builder, group);
    return 0;
}

static int put_item(struct builder *builder, const struct item *item)
{
    if (item->kind != ITEM_PHRASE && field_check_ascii(builder, item->text) != 0) {
        return -EINVAL;
    }
    switch (item->kind) {
    case ITEM_STRUCTURE:
        if (placeholder_is_in(item->text)) {
            return builder_fail(builder, 0,
                                "a placeholder cannot stand in a comment of an "
                                "address field");
        }
        return builder_constant(builder, item->text);
    case ITEM_PHRASE:
        return put_phrase(builder, item->text);
    case ITEM_ADDRESS:
        return builder_text(builder, item->text, (struct builder_style){.context = VALUE_ADDRESS});
    }
    ensure(false);
    return -EINVAL;
}

int field_address_put(struct builder *builder, const struct field *field)
{
    struct segment header = {.kind = SEGMENT_HEADER, .text = field_prefix(field)};
    struct lexer lexer = {0};
    struct item item;
    uint32_t group = 0;
    if (field_unfold(builder, field, &lexer.text) != 0 ||
        builder_open(builder, &header, &group) != 0) {
        return -EINVAL;
    }
    bool is_changed = !text_is_ascii(field->value) || placeholder_is_in(field->value);
    while (item_next(&lexer, &item)) {
        uint32_t count = builder->template->segments_count;
        if (put_item(builder, &item) != 0) {
            return -EINVAL;
        }
        is_changed |= builder->template->segments_count > count &&
                      builder->template->segments[count].kind == SEGMENT_PHRASE;
    }
    if (!is_changed) {
        /* The encoded words hid no placeholder. */
        builder_cancel(builder, group);
        return builder_constant(builder, field->whole);
    }
    builder_close(builder, group);
    return 0;
}

struct span field_address_domain(const struct field *field)
{
    struct lexer lexer = {.text = field->value};
    struct item item;
    while (item_next(&lexer, &item)) {
        if (item.kind != ITEM_ADDRESS) {
            continue;
        }
        const char *at = memrchr(item.text.at, '@', item.text.size);
        if (at == NULL) {
            return SPAN_NONE;
        }
        struct span domain = {.at = at + 1, .size = 0};
        const char *end = item.text.at + item.text.size;
        while (domain.at + domain.size < end &&
               memchr(" \t\r\n(>", at[1 + domain.size], 6) == NULL) {
            domain.size++;
        }
        return placeholder_is_in(domain) ? SPAN_NONE : domain;
    }
    return SPAN_NONE;
}
