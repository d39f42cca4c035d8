/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_reply: reads one reply of the server at a time (RFC 5321 4.2), resumable at any byte.
 *
 * Owner: one session. Bounded memory: of a line the first SMTP_REPLY_LINE_MAX bytes are kept, of
 * the lines together the last SMTP_REPLY_TEXT_MAX bytes, as one line (line breaks and tabs become
 * blanks, controls and 8-bit bytes '?'). The rest is skipped, up to SMTP_REPLY_SIZE_MAX in all;
 * beyond that it is a protocol error (A8, A9). Bare LF is taken as a line end, CRs before LF are
 * dropped (3.3).
 *
 * The code is checked: three digits, the first of 2..5 (A6), then blank, '-' or the line's end
 * (A4), the same on all lines (A7). What the last line says decides (G7). An enhanced code is
 * believed only when its class is the reply's first digit (G6); it is then taken out of the text,
 * except that the text keeps the codes when the lines differ in them (G7).
 *
 * A line is looked at when it is whole, so that it makes no difference how the transport cut it; a
 * line that never ends is bounded by the caller's deadline and by SMTP_REPLY_SIZE_MAX.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum { SMTP_REPLY_TEXT_MAX = 400, SMTP_REPLY_LINE_MAX = 512, SMTP_REPLY_SIZE_MAX = 64 * 1024 };

struct smtp_enhanced {
    uint8_t class; /* 0 = none */
    uint16_t subject;
    uint16_t detail;
};

struct smtp_reply {
    uint16_t code; /* 200..599; 0 = no reply, `text` then holds what could be read of one */
    struct smtp_enhanced enhanced;
    uint16_t text_size;
    char text[SMTP_REPLY_TEXT_MAX]; /* without codes, printable ASCII */
};

enum smtp_reply_step {
    SMTP_REPLY_MORE, /* all bytes taken, no whole reply yet */
    SMTP_REPLY_LINE, /* one line of a multi-line reply ended: its text is in parser->line (EHLO
                        keywords) */
    SMTP_REPLY_DONE, /* the reply is whole; the line's text as well */
    SMTP_REPLY_BAD,  /* not a reply, codes differ, too long: the connection is of no more use */
};

struct smtp_reply_parser {
    struct smtp_reply reply; /* the last whole one, until the first byte of the next */
    struct span line;     /* text behind the code of the line that ended last; valid until the next
                             take, may point into its bytes */
    uint32_t size;        /* bytes of the present reply so far; 0 = between replies */
    uint32_t lines_count; /* lines that ended, of the present reply */
    bool is_mixed;        /* lines with different enhanced codes: `text` keeps them */
    uint16_t held_size;
    char held[SMTP_REPLY_LINE_MAX]; /* start of a line whose end has not come yet */
};

void smtp_reply_init(struct smtp_reply_parser *parser);
/* Takes from the front of `*bytes` up to the end of one line. After BAD only smtp_reply_init may
 * follow. */
enum smtp_reply_step smtp_reply_take(struct smtp_reply_parser *parser, struct span *bytes);
/* No more will come of the present reply: it becomes code 0 with what was read as text. */
void smtp_reply_abandon(struct smtp_reply_parser *parser);

/* True when a reply has begun and is not whole. */
static inline bool smtp_reply_is_started(const struct smtp_reply_parser *parser)
{
    return parser->size > 0;
}

static inline struct span smtp_reply_text(const struct smtp_reply *reply)
{
    return span_of(reply->text, reply->text_size);
}
