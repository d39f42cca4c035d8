/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delivery_priv: what the parts of delivery share: delivery.c (a session's life) and
 * delivery_transaction.c (the recipients and the body of the message under way). Visible inside
 * engine/ only.
 */
#pragma once

#include "engine/delivery.h"

/* The attempts of the transaction, each NULL once it is decided. */
static inline struct attempt **delivery_attempts(struct delivery *delivery)
{
    return delivery->rcpts != NULL ? delivery->rcpts->attempts : delivery->attempts_inline;
}

/* The machine has told what became of a recipient: settles its attempt, or puts it back. */
void delivery_on_recipient(struct delivery *delivery, const struct smtp_event *event,
                           struct mono_time now);
/* Hands the body, or as much of it as the transport takes, to the transport. */
void delivery_send_body(struct delivery *delivery, struct mono_time now);
