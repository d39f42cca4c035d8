/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recipient: the entry that stands for one accepted recipient until it is settled; 48 bytes, the
 * text stays in the batch's file.
 *
 * Born in intake at scan (slab `recipients`), then always with exactly one owner (LAW 1, 7): a
 * worker (pending, in a lane, in flight), a slot of the retry wheel, or an inbox on the way; ends
 * when the worker gives it back to intake's inbox after its settle record is durable. Bound:
 * recipients_max of the configuration; when none is left intake stops scanning (the batch file is
 * the durable copy).
 */
#pragma once

#include <stdint.h>

#include "engine/base/inbox.h"

enum recipient_flags {
    RECIPIENT_AMBIGUOUS =
        1u << 0, /* an earlier attempt ended after end of data without an answer (LAW 6) */
    RECIPIENT_8BIT = 1u << 1,      /* BSMTP: its message holds bytes above 127 */
    RECIPIENT_ADD_DATE = 1u << 2,  /* BSMTP: its message lacks the field: added when it is sent */
    RECIPIENT_ADD_MESSAGE_ID = 1u << 3,
};

enum { RECIPIENT_SIZE_BITS = 26, RECIPIENT_OFFSET_BITS = 38 };

struct recipient {
    struct inbox_node node;
    uint32_t batch;   /* index in the batch table; stable while any recipient of it lives */
    uint32_t ordinal; /* number in the batch, from 0 in file order, rejected ones counted */
    uint64_t record_offset
        : RECIPIENT_OFFSET_BITS; /* of its record in the batch's recipient stream */
    uint64_t record_size : RECIPIENT_SIZE_BITS;
    uint32_t domain; /* index in the domain table */
    uint32_t due_s;  /* the engine's own second of the next attempt, 0 = at once */
    uint16_t attempts_count;
    uint16_t flags;
    uint16_t rcpt_index;   /* BSMTP: which RCPT of the record */
    uint16_t asides_count; /* since its last outcome: how often it was put aside (lane.h) */
};

_Static_assert(sizeof(struct recipient) <= 48, "DESIGN 3: 32..48 bytes an entry");
