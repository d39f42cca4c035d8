/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dot: finds the end of a mail's data (CRLF "." CRLF, RFC 5321 4.1.1.4) and takes the dots away
 * that were put in for transparency (4.5.2), without copying and resumable at any byte.
 *
 * Owner: one session of a receiver in bench/. Only CRLF "." CRLF ends the data: a bare LF or CR is
 * content (4.1.1.4, "MUST NOT treat <LF>.<LF> as the end"). Cannot fail; constant memory.
 */
#pragma once

#include "engine/base/bytes.h"

enum dot_step {
    DOT_MORE,  /* all bytes taken, the end is not among them */
    DOT_PIECE, /* there may be more in the cursor: call again */
    DOT_END,   /* the cursor stands behind the final CRLF */
};

enum dot_state { DOT_TEXT, DOT_CR, DOT_LINE, DOT_DOT, DOT_DOT_CR };

struct dot_finder {
    enum dot_state state;
};

/* At the start of the data, which counts as the start of a line. */
void dot_finder_init(struct dot_finder *finder);
/* Takes bytes; `ret_piece` (may be empty, valid as long as the bytes) is what they hold of the
 * content, with whatever the result. The pieces of all calls together are the mail as it was before
 * the dots were put in, with the CRLF before the lone dot. */
enum dot_step dot_finder_next(struct dot_finder *finder, struct cursor *cursor,
                              struct span *ret_piece);
