/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mime: where the parts of a message are, and what they say about themselves. The only file that
 * knows GMime.
 *
 * mime_parse reads a message in wire form and lists its leaf parts in file order as byte ranges of
 * that same text; nothing is copied or rewritten, so that whoever uses the list can leave all other
 * bytes as they are. The decoders turn encoded text into UTF-8.
 *
 * Used while a batch is compiled, by one actor at a time (GMime has global tables); it allocates.
 * Lifetime: `struct mime` owns the list; texts that decoders return are the caller's, to be freed
 * with free(). Bounds: MIME_PARTS_MAX leaf parts, MIME_DEPTH_MAX levels, MIME_DELIMITERS_MAX lines
 * that start with "--", MIME_PARAMS_MAX parameters of a Content-Type; a message beyond is refused.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum {
    MIME_PARTS_MAX = 1024,
    MIME_DEPTH_MAX = 32,
    MIME_DELIMITERS_MAX = 16384,
    MIME_PARAMS_MAX = 256,
    MIME_CHARSET_MAX = 63,
};

enum mime_encoding {
    MIME_ENCODING_NONE, /* not declared: 7bit by RFC 2045 6.1 */
    MIME_ENCODING_7BIT,
    MIME_ENCODING_8BIT,
    MIME_ENCODING_BINARY,
    MIME_ENCODING_QP,
    MIME_ENCODING_BASE64,
    MIME_ENCODING_OTHER,
};

/* A header field with its folded lines and their CRLFs; size 0 = the part has none. */
struct mime_field {
    size_t at;
    size_t size;
};

struct mime_part {
    enum mime_encoding encoding;
    bool is_text;
    bool is_html;
    bool is_attachment;
    bool is_top;     /* the message itself is this part */
    bool is_foreign; /* inside an attached message */
    bool is_signed;  /* inside multipart/signed or multipart/encrypted: a change would break it */
    bool is_headed;  /* its header ends in a blank line: fields can be added at header_end */
    char charset[MIME_CHARSET_MAX + 1]; /* lower case; "" = none */
    struct mime_field type_field;
    struct mime_field encoding_field;
    size_t header_end; /* of the blank line */
    size_t body_at;
    size_t body_size; /* without the CRLF that belongs to the delimiter */
};

struct mime;

/* NULL with the reason in `ret_reason`; a NULL there: out of memory. `text`: CRLF line ends, with a
 * blank line behind the header; must outlive the result. */
struct mime *mime_parse(struct span text, const char **ret_reason);
void mime_destroy(struct mime *mime); /* NULL-safe */
uint32_t mime_parts_count(const struct mime *mime);
const struct mime_part *mime_part(const struct mime *mime, uint32_t index);

/* The part's Content-Type field with charset=utf-8, with CRLF; NULL when out of memory. */
char *mime_type_field_utf8(const struct mime *mime, uint32_t index, size_t *ret_size);
/* The bytes that a quoted-printable or base64 body stands for. NULL when out of memory. */
char *mime_decode_body(enum mime_encoding encoding, struct span body, size_t *ret_size);
/* How many line ends of the body come before the byte that decodes to number `offset`. */
uint64_t mime_decoded_line(enum mime_encoding encoding, struct span body, size_t offset);
/* Text of a charset as UTF-8; -EINVAL: charset unknown, or text broken; -ENOMEM. */
int mime_to_utf8(const char *charset, struct span text, char **ret_utf8, size_t *ret_size)
    __attribute__((warn_unused_result));
/* Header text with its encoded words decoded, UTF-8; unstructured text, or a phrase without quotes.
 */
char *mime_decode_header(struct span text);
char *mime_decode_phrase(struct span text);
