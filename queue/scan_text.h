/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_text: the text of a BSMTP message, judged while it goes by at the speed of memory: many
 * lines at one look. Serves the splitter, which looks for the lone dot, and the reader of records,
 * which must know that every line is good: both questions are answered by the same look. Which line
 * is wrong, and why, is not told; who finds `is_bad` reads the lines one by one. Pure, any actor.
 *
 *   text  = *(line) "." CRLF        the whole text; nothing stands behind the lone dot
 *   line  = [".." / other] *octet CRLF
 *   octet = not CR, LF or NUL       other: an octet, but no dot
 *                                   at most SCAN_TEXT_LINE_MAX a line, a doubled dot being one
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum {
    SCAN_TEXT_LINE_MAX = 998, /* RFC 5322 2.1.1: without CRLF */
    SCAN_TEXT_END_SIZE = 3,   /* "." CRLF */
};

/* The lines that were taken so far, without the lone dot. All 0: none yet. */
struct scan_text {
    uint64_t size; /* bytes */
    uint64_t lines_count;
    uint64_t dots_count; /* doubled dots: bytes that are not sent */
    bool is_8bit;
    bool is_bad; /* one of them, or the one under way, has not the form above */
};

/*
 * Takes lines from `bytes`, which begin at a line's start, and returns how many bytes they are.
 * It stops before a line that begins with a dot which is not doubled, be it the lone dot or a wrong
 * line, and before the last two bytes: what comes then is seen with the next piece, which begins
 * where this one ended, or is the caller's to read. Bytes of any kind and number are welcome; line
 * ends are LF or CRLF, but only with CRLF the lines are good.
 */
size_t scan_text_take(struct scan_text *text, struct span bytes);
/* True when `whole` is the text that the lines were taken from, has exactly the form above, and
 * every line of it was taken. */
bool scan_text_is_whole(const struct scan_text *text, struct span whole);
