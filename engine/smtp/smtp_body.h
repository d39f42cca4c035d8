/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_body: puts a message into the form it has behind DATA (RFC 5321 4.5.2), and checks that it
 * may go there (2.3.8, 4.5.3.1.6).
 *
 * Both work on a list of spans that are one logical text, wherever it is cut. Pure but for the
 * small state each caller owns; no allocation, nothing is copied: what comes out are spans of the
 * input and of static memory.
 *
 * Stuffing (A21): a "." at the start of a line gets a second one; the end is CRLF.CRLF, without its
 * first CRLF when the text is empty or ends in CRLF. A line starts behind LF: whether each LF has
 * its CR is for the check to say.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"

/* Where the stuffing stands. Zeroed is at the start of a text. */
struct smtp_body {
    size_t span_index;
    size_t offset; /* in that span */
    char last;     /* the byte before, when is_begun */
    char last_but_one;
    bool is_begun;
    bool is_dotted; /* the "." at `offset` has got its second */
    bool is_done;   /* the terminator was told */
};

/*
 * Up to `pieces_max` >= 1 more pieces of the SMTP form of the text. Call until is_done with the
 * same spans (or with as many more bodies as there are, each with a state of its own). Returns the
 * count; 0 only when is_done was set before. Empty spans are skipped.
 */
size_t smtp_body_stuff(struct smtp_body *body, const struct span *spans, size_t spans_count,
                       struct span *ret_pieces, size_t pieces_max);

enum smtp_body_flag {
    SMTP_BODY_BARE_CR = 1u << 0,
    SMTP_BODY_BARE_LF = 1u << 1,
    SMTP_BODY_NUL = 1u << 2,
    SMTP_BODY_LONG_LINE = 1u << 3, /* over 998 bytes without its CRLF (A23) */
    SMTP_BODY_8BIT = 1u << 4,      /* wants BODY=8BITMIME; not an error */
};
enum { SMTP_BODY_LINE_MAX = 998 };

/* Where the check stands. Zeroed is at the start of a text. */
struct smtp_body_checker {
    uint32_t flags;    /* of enum smtp_body_flag, so far */
    bool is_behind_cr; /* the last byte was a CR, not judged yet */
    size_t line_size;  /* of the line that has begun, without that CR */
};

/* The next span of the text. */
void smtp_body_check(struct smtp_body_checker *check, struct span piece);
/* The text is over; returns the flags. The last line may lack its CRLF: stuffing adds it. */
uint32_t smtp_body_check_end(struct smtp_body_checker *check);
