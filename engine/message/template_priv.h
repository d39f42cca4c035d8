/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template_priv: what a compiled template is made of; for the files of this folder.
 *
 * A template is a row of segments. A group (header field, display name, part) is followed by the
 * segments inside it: `extent` of them. All texts live in the template's own blocks.
 *
 *   message = ( constant | choice | ordinal | header | part )*
 *   header  = ( constant | value | ordinal | phrase )*      assembled, then folded and encoded as a
 * whole when needed phrase  = ( constant | value | ordinal )* part    = ( constant | value |
 * ordinal )* line    = ( constant | value | ordinal )*
 */
#pragma once

#include "engine/message/template.h"
#include "engine/message/value.h"

enum { TEMPLATE_PARTS_MAX = 64, TEMPLATE_HEADERS_SIZE_MAX = 1 << 20 };

enum segment_kind {
    SEGMENT_CONSTANT, /* text */
    SEGMENT_VALUE,    /* of variable `index` */
    SEGMENT_ORDINAL,  /* text, then the recipient's number */
    SEGMENT_CHOICE,   /* text, or text_switched when part `index` is switched */
    SEGMENT_HEADER,
    SEGMENT_PHRASE,
    SEGMENT_PART, /* number `index`; text: what closes it */
};

/* How the body of a part is written. A plain part can be switched to quoted-printable for one
 * message. */
enum segment_encoding { SEGMENT_7BIT, SEGMENT_8BIT, SEGMENT_QP, SEGMENT_BASE64 };

struct segment {
    enum segment_kind kind;
    enum value_context context;     /* value */
    enum segment_encoding encoding; /* part */
    bool is_borrowed;               /* constant: sent from the template's memory, else copied */
    bool is_raw;                    /* value */
    bool has_fallback;              /* value */
    bool may_encode;                /* header: encoded words are allowed */
    bool is_multipart;              /* part: it stands between delimiters */
    bool has_break;                 /* constant: there is a CRLF in it */
    bool is_blank;                  /* constant: the last octet is a blank */
    uint16_t classes;               /* constant */
    uint32_t index;
    uint32_t extent;
    uint32_t
        column; /* header: octets of its name and what belongs to it, which end the text but for */
    uint32_t lead; /* the octets of its content that the text ends in */
    uint32_t head; /* constant: octets before the first CRLF, */
    uint32_t tail; /* and behind the last */
    struct span text;
    struct span text_switched;
    struct span fallback;
    struct span literal; /* value: the placeholder as written */
};

struct template_var {
    struct span name;
    bool has_fallback; /* wherever it is used */
};

/* One way in which a variable is used: what template_check has to look at. */
struct template_use {
    uint32_t segment;
};

struct template_block {
    struct template_block *next;
    char bytes[];
};

struct template
{
    struct template_block *blocks;
    struct segment *segments;
    uint32_t segments_count;
    uint32_t headers_count; /* segments before the blank line */
    bool is_line;
    bool is_varied;      /* some byte depends on the recipient */
    bool is_8bit_fixed;  /* 8-bit text that no encoding can help: part headers, signed parts */
    bool is_utf8_fixed;  /* header fields in raw UTF-8 */
    uint64_t parts_8bit; /* bit n: part n holds 8-bit constants */
    uint64_t size_max;
    struct template_var *vars;
    uint32_t vars_count;
    struct template_use *uses;
    uint32_t uses_count;
    uint64_t constants_size;    /* of all constants */
    uint64_t values_count;      /* value segments */
    uint64_t header_size_max;   /* constants of the longest header field with placeholders */
    uint64_t header_values_max; /* the most values in one of them */
    uint64_t headers_size;      /* of all constants before the blank line */
    char *dates[2]; /* of the Date that the file lacks: in the text, and the switched text, of the
                       segment that holds it; NULL: none */
    char *id_times[2]; /* so of the time in the Message-ID */
};

/* What a value segment stands for, for one recipient. */
struct template_value {
    struct span text;
    unsigned classes;
    bool is_author; /* the author's words: a default or the placeholder itself; not escaped */
};

/* 0, or -EINVAL with the problem filled in: missing, or not fit for where it stands. */
int template_value_judge(const struct template *template, const struct segment *segment,
                         const struct render_input *input, struct template_value *ret_value,
                         struct template_problem *ret_problem) __attribute__((warn_unused_result));

/* The same; decides at once on plain ASCII where plain ASCII is always fit. */
__attribute__((warn_unused_result)) static inline int
template_value_take(const struct template *template, const struct segment *segment,
                    const struct render_input *input, struct template_value *ret_value,
                    struct template_problem *ret_problem)
{
    struct span text = input->values[segment->index];
    bool is_strict = segment->context >= VALUE_ADDRESS && segment->context != VALUE_LINE;
    if (text.at != NULL && text.size > 0 && !is_strict) {
        unsigned classes = value_classes(text);
        if ((classes & (VALUE_HIGH | VALUE_BREAK | VALUE_NUL | VALUE_CONTROL)) == 0) {
            *ret_value = (struct template_value){.text = text, .classes = classes};
            return 0;
        }
    }
    return template_value_judge(template, segment, input, ret_value, ret_problem);
}

/* One header group without variables, at compile time. 0, -EINVAL, -ENOSPC. */
int template_render_header(const struct template *template, const struct segment *header,
                           struct writer *writer, struct template_problem *ret_problem)
    __attribute__((warn_unused_result));
