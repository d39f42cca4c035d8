/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mailbox_list: the addresses in a To, Cc, Bcc, From, Sender or Return-Path field (RFC 5322 3.4),
 * one by one. For mail that comes without an envelope (queue/spool.h, pickup). Sans-I/O, any actor.
 *
 * Reads what is written: names, comments, folding, groups and source routes are passed over, local
 * parts and domains are given as they stand, joined by "@". Whether that is an address that can be
 * mailed is not decided here. Each byte is looked at once; nesting of comments is counted, not
 * recursed into.
 */
#pragma once

#include "engine/base/bytes.h"

enum mailbox_take {
    MAILBOX_TAKEN, /* one address was put into the writer */
    MAILBOX_NONE,  /* the list is at its end */
    MAILBOX_BAD,   /* not a list of addresses; the cursor stands where that shows */
};

/* The next address of the field's body. "<>" gives an empty one; one that does not fit is BAD. */
enum mailbox_take mailbox_list_take(struct cursor *cursor, struct writer *ret_address);
