/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_envelope: the envelope of one BSMTP record, and where its text is, without looking at the
 * text again.
 *
 * For a worker, over a record that intake has checked (scan_record_message) and put into wire form.
 * Pure function; spans point into the record. Cost is that of the envelope's lines, whatever the
 * text's size. A record that does not look like one any more (its file has changed) is a problem,
 * not a bug.
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"
#include "queue/scan.h"

struct scan_envelope {
    struct span sender; /* empty = null return path */
    struct span rcpts;  /* the lines of the RCPT commands */
    uint32_t rcpts_count;
    struct span body; /* dot-stuffed, CRLF, without the lone dot */
};

/* 0, or -EINVAL with the problem filled in. The text is not looked at. */
int scan_record_envelope(struct span record, struct scan_envelope *ret_envelope,
                         struct scan_problem *ret_problem) __attribute__((warn_unused_result));
/* Whether the text is still what may be written on the wire: whole lines that end in CRLF, no other
 * CR, LF or NUL, no lone dot, which would let what stands behind it speak to the server. */
bool scan_envelope_body_is_sound(const struct scan_envelope *envelope);
/* The address of RCPT number `index`; empty when there is none. */
struct span scan_envelope_rcpt(const struct scan_envelope *envelope, uint32_t index);
