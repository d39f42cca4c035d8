/* SPDX-License-Identifier: Apache-2.0 */
/*
 * encode: quoted-printable and base64 (RFC 2045 6.7, 6.8), encoded words (RFC 2047), phrases and
 * header folding (RFC 5322 2.2.3).
 *
 * Everything writes into a bounded writer and keeps no memory of its own; pure functions, any
 * actor. Quoted-printable can be written in pieces: the column is the caller's. What does not fit
 * leaves the writer full, to be looked at once at the end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/bytes.h"

enum {
    ENCODE_LINE_MAX = 998,  /* RFC 5322 2.1.1, without CRLF */
    ENCODE_WIDTH = 76,      /* RFC 2045 6.7, RFC 2047 2 */
    ENCODE_PHRASE_MAX = 200 /* longer ones become encoded words, which can be folded */
};

/* A quoted-printable body on its way; starts as all zero. */
struct encode_qp {
    size_t column; /* octets of the current line */
    bool is_blank; /* the last one is a blank, which must not end a line (RFC 2045 6.7 (3)) */
};

/*
 * Appends text. CR LF is a line break, each alone is encoded. "-" is encoded among the first two
 * octets of a line: no text can become the delimiter of a multipart.
 */
void encode_qp_put(struct encode_qp *state, struct writer *writer, struct span text);
/* Text that is encoded already, on lines of its own. */
struct encode_qp_piece {
    size_t head;    /* octets of its first line, */
    size_t tail;    /* and of its last, which has no line end */
    bool has_break; /* there is more than one line */
    bool is_blank;  /* it ends in a blank */
};
/* Makes ready for such a piece, which the caller appends (not empty). */
void encode_qp_join(struct encode_qp *state, struct writer *writer, struct encode_qp_piece piece);
/* A line break of the surroundings comes next. */
void encode_qp_end(struct encode_qp *state, struct writer *writer);

struct encode_base64 {
    unsigned char held[3];
    unsigned held_count;
    size_t column;
};

/* Starts as all zero. */
void encode_base64_put(struct encode_base64 *state, struct writer *writer, struct span bytes);
void encode_base64_end(struct encode_base64 *state, struct writer *writer);

/*
 * The rest of a header field behind `column` octets of its first line, folded at blanks so that
 * lines stay within the width where they can. UTF-8 without line breaks; with `may_encode` words
 * that are not plain ASCII become encoded words. 0; -EINVAL: a line would pass ENCODE_LINE_MAX.
 */
int encode_header(struct writer *writer, size_t column, struct span text, bool may_encode)
    __attribute__((warn_unused_result));
/* Whether a trimmed display name of these classes (value.h) can stand as it is: atoms with one
 * blank between them. */
bool encode_phrase_is_atoms(struct span text, unsigned classes);
/* A display name: atoms as they are, else a quoted string, else encoded words with one blank
 * between them. Empty gives nothing. */
void encode_phrase(struct writer *writer, struct span text);
