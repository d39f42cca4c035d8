/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_text: the text of a BSMTP message with CRLF line ends, judged at one look over all of it
 * instead of line by line. The common case of a good message only: which line is wrong, and why,
 * is not told; who gets "false" reads the lines. Pure, any actor.
 *
 *   text  = *(line) "." CRLF        the whole text; nothing stands behind the lone dot
 *   line  = [".." / other] *octet CRLF
 *   octet = not CR, LF or NUL       other: an octet, but no dot
 *                                   at most SCAN_TEXT_LINE_MAX a line, a doubled dot being one
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum {
    SCAN_TEXT_LINE_MAX = 998, /* RFC 5322 2.1.1: without CRLF */
    SCAN_TEXT_END_SIZE = 3,   /* "." CRLF */
};

struct scan_text {
    uint64_t lines_count; /* with the lone dot's */
    uint64_t dots_count;  /* doubled dots: bytes that are not sent */
    bool is_8bit;
};

/* True, with *ret_text filled in, when `text` has exactly the form above. Bytes of any kind and
 * number are welcome. */
bool scan_text_measure(struct span text, struct scan_text *ret_text);
