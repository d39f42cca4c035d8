/* SPDX-License-Identifier: Apache-2.0 */
/*
 * value: what a recipient's value may hold, by the place in the message where it stands.
 *
 * Pure functions, any actor; no memory of their own. The classes of all bytes of a value are
 * collected in one pass; the check and the escaping then look at the classes, and at the bytes only
 * when there is something to find.
 *
 * Safety (conformance 4): CR, LF and NUL never enter a header or an envelope line, whatever the
 * placeholder's form, and no value reaches the wire that is not UTF-8.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum value_context {
    VALUE_TEXT,       /* body, any text type but HTML */
    VALUE_HTML,       /* body, text/html */
    VALUE_HEADER,     /* unstructured header text: RFC 2047 when needed */
    VALUE_PHRASE,     /* display name of an address: quoted or RFC 2047 when needed */
    VALUE_ADDRESS,    /* addr-spec, or a piece of one */
    VALUE_STRUCTURED, /* any other header: printable ASCII */
    VALUE_ID,         /* between the < > of a structured header: no blanks, no < > either */
    VALUE_URI,        /* between the < > of a List- header: percent-encoded when needed */
    VALUE_LINE,       /* a line of its own, such as the envelope sender */
};

enum value_class {
    VALUE_HIGH = 1u << 0,  /* not ASCII */
    VALUE_BREAK = 1u << 1, /* CR, LF */
    VALUE_NUL = 1u << 2,
    VALUE_CONTROL = 1u << 3,  /* the other controls and DEL, without tab */
    VALUE_MARKUP = 1u << 4,   /* & < > " ' */
    VALUE_BLANK = 1u << 5,    /* space, tab */
    VALUE_SPECIAL = 1u << 6,  /* RFC 5322 3.2.3 specials but "." and "@": they end an atom */
    VALUE_QUESTION = 1u << 7, /* may be part of "=?" */
    VALUE_DOT = 1u << 8,      /* special everywhere but in an address */
    VALUE_AT = 1u << 9,
};

extern const uint16_t VALUE_CLASSES[256];

/* The classes of all bytes, ored; by fours, because every byte of every value passes here. */
static inline unsigned value_classes(struct span value)
{
    const unsigned char *at = (const unsigned char *)value.at;
    size_t left = value.size;
    unsigned classes = 0;
    for (; left >= 4; left -= 4, at += 4) {
        classes |= (unsigned)(VALUE_CLASSES[at[0]] | VALUE_CLASSES[at[1]] | VALUE_CLASSES[at[2]] |
                              VALUE_CLASSES[at[3]]);
    }
    for (; left > 0; left--, at++) {
        classes |= VALUE_CLASSES[*at];
    }
    return classes;
}

/* NULL when the value may stand there, else the reason in words: "holds a line break, ...". */
const char *value_check(enum value_context context, bool is_raw, struct span value,
                        unsigned classes);
/* The entity of a byte of class VALUE_MARKUP. */
struct span value_entity(char byte);
/* RFC 3987 3.1: what may not stand in a URI as %XX. */
void value_put_uri(struct writer *writer, struct span value);
/* Whether the text holds "=?", which a reader could take for an encoded word. */
bool value_has_encoded_word(struct span value);
