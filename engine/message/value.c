/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/value.h"

#include "engine/base/text.h"

#define C VALUE_CONTROL
#define H VALUE_HIGH
#define S VALUE_SPECIAL
#define M VALUE_MARKUP
#define X16(class)                                                                                 \
    class, class, class, class, class, class, class, class, class, class, class, class, class,     \
        class, class, class

const uint16_t VALUE_CLASSES[256] = {
    /* clang-format off */
    VALUE_NUL, C, C, C, C, C, C, C, C, VALUE_BLANK, VALUE_BREAK, C, C, VALUE_BREAK, C, C,
    X16(C),
    /* space ! " # $ % & ' ( ) * + , - . / */
    VALUE_BLANK, 0, M | S, 0, 0, 0, M, M, S, S, 0, 0, S, 0, VALUE_DOT, 0,
    /* 0-9 : ; < = > ? */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, M | S, 0, M | S, VALUE_QUESTION,
    /* @ A-O, P-Z [ \ ] ^ _ */
    VALUE_AT, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, 0, 0,
    /* ` a-o, p-z { | } ~ DEL */
    X16(0),
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, C,
    X16(H), X16(H), X16(H), X16(H), X16(H), X16(H), X16(H), X16(H),
    /* clang-format on */
};

#undef C
#undef H
#undef S
#undef M
#undef X16

static bool has_angle(struct span value)
{
    return span_find(value, '<') < value.size || span_find(value, '>') < value.size;
}

/* The end of a quoted string that starts at `at`, or 0 when it does not end. */
static size_t quoted_end(struct span value, size_t at)
{
    for (size_t i = at + 1; i < value.size; i++) {
        if (value.at[i] == '\\') {
            i++;
        } else if (value.at[i] == '"') {
            return i + 1;
        }
    }
    return 0;
}

static bool has_one_at(struct span value)
{
    return memchr(value.at, '@', value.size) == memrchr(value.at, '@', value.size);
}

/*
 * RFC 5321 4.1.2 Mailbox, loosely: a quoted local part, then no specials but ".", one "@" and an
 * address literal behind it. It keeps a value from growing into a second address, a comment or a
 * route; whether the address exists is for others.
 */
static bool is_address(struct span value, unsigned classes)
{
    if ((classes & (VALUE_SPECIAL | VALUE_BLANK)) == 0) {
        return has_one_at(value);
    }
    if (value.at[0] == '"') {
        size_t quoted = quoted_end(value, 0);
        if (quoted == 0) {
            return false;
        }
        value = span_of(value.at + quoted, value.size - quoted);
    }
    size_t literal = span_find(value, '[');
    if (literal < value.size) {
        struct span rest = span_of(value.at + literal, value.size - literal);
        bool is_behind_at = literal > 0 && value.at[literal - 1] == '@';
        bool is_closed = span_find(rest, ']') == rest.size - 1;
        bool is_plain = (value_classes(rest) & VALUE_BLANK) == 0 && !has_angle(rest);
        if (!is_behind_at || !is_closed || !is_plain) {
            return false;
        }
        value.size = literal;
    }
    return (value_classes(value) & (VALUE_SPECIAL | VALUE_BLANK)) == 0 && has_one_at(value);
}

static const char *check_header(enum value_context context, bool is_raw, struct span value,
                                unsigned classes)
{
    static const char *const NOT_HERE = "holds a character that cannot stand in this header";
    bool is_plain = (classes & (VALUE_HIGH | VALUE_CONTROL)) == 0;
    switch (context) {
    case VALUE_TEXT:
    case VALUE_HTML:
    case VALUE_LINE:
    case VALUE_HEADER:
    case VALUE_PHRASE:
        return NULL;
    case VALUE_ADDRESS:
        if ((classes & VALUE_CONTROL) != 0) {
            return NOT_HERE;
        }
        if ((classes & VALUE_HIGH) != 0) { /* F1 */
            return "is not ASCII, and stands in an address: that needs SMTPUTF8, which this engine "
                   "does not speak";
        }
        return is_raw || is_address(value, classes) ? NULL : "is not an address";
    case VALUE_STRUCTURED:
        return is_plain ? NULL : NOT_HERE;
    case VALUE_ID:
        return is_plain && (classes & VALUE_BLANK) == 0 && !has_angle(value) ? NULL : NOT_HERE;
    case VALUE_URI:
        if (!is_raw) {
            return NULL;
        }
        return is_plain && (classes & VALUE_BLANK) == 0 && !has_angle(value) ? NULL : NOT_HERE;
    }
    ensure(false);
    return NULL;
}

const char *value_check(enum value_context context, bool is_raw, struct span value,
                        unsigned classes)
{
    bool is_body = context == VALUE_TEXT || context == VALUE_HTML;
    if ((classes & VALUE_NUL) != 0) {
        return "holds a NUL";
    }
    if (!is_body && (classes & VALUE_BREAK) != 0) {
        return context == VALUE_LINE ? "holds a line break"
                                     : "holds a line break, which cannot stand in a header";
    }
    if ((classes & VALUE_HIGH) != 0 && !text_is_utf8(value)) {
        return "is not UTF-8";
    }
    return is_body ? NULL : check_header(context, is_raw, value, classes);
}

struct span value_entity(char byte)
{
    switch (byte) {
    case '&':
        return SPAN("&amp;");
    case '<':
        return SPAN("&lt;");
    case '>':
        return SPAN("&gt;");
    case '"':
        return SPAN("&quot;");
    default:
        ensure(byte == '\'');
        return SPAN("&#39;");
    }
}

void value_put_uri(struct writer *writer, struct span value)
{
    static const char HEX[] = "0123456789ABCDEF";
    for (size_t i = 0; i < value.size; i++) {
        unsigned char byte = (unsigned char)value.at[i];
        bool is_kept = (VALUE_CLASSES[byte] & (VALUE_HIGH | VALUE_CONTROL | VALUE_BLANK)) == 0 &&
                       byte != '<' && byte != '>' && byte != '"';
        if (is_kept) {
            writer_put_byte(writer, (char)byte);
        } else {
            char escape[3] = {'%', HEX[byte >> 4], HEX[byte & 15]};
            writer_put(writer, span_of(escape, sizeof(escape)));
        }
    }
}

bool value_has_encoded_word(struct span value)
{
    return memmem(value.at, value.size, "=?", 2) != NULL;
}
