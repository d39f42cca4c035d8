/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compose: from an entry's record to what goes on the wire: address, sender, and the message in
 * SMTP form.
 *
 * Actor: worker. Two parts: compose_attempt reads the record of a recipient (address, id),
 * compose_message makes the message of a transaction in the delivery: small ones as one contiguous
 * buf (rendered, dot-stuffed, terminated), large ones as a plan of pieces, BSMTP ones straight from
 * the load.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/delivery.h"
#include "engine/load.h"
#include "engine/worker.h"

/* Rendered messages up to this size are copied into one buf; larger ones are sent in pieces. */
enum { COMPOSE_COPY_MAX = 16 * 1024, COMPOSE_SCRATCH_SIZE = 64 * 1024 };

/* Bytes of a buf of a class. One of the last holds any message that the limit lets pass, even when
 * all of it is encoded for a server without 8BITMIME. */
uint32_t compose_buf_size(const struct config *config, uint32_t class);

enum compose_result {
    COMPOSE_OK,
    COMPOSE_BAD,      /* this recipient cannot be served: *ret_problem in words (PERM_CONTENT) */
    COMPOSE_DECLINED, /* the same, by a server without 8BITMIME; another one may serve (E4) */
    COMPOSE_WAIT,     /* no buf or plan is free (worker->lacking): try again when one comes back */
};

/* Fills address and id of the attempt from record `index` of its load. */
enum compose_result compose_attempt(struct worker *worker, const struct load *load, uint32_t index,
                                    struct attempt *attempt, struct writer *ret_problem);
/* True when the recipients `a` and `b` of the load get the same bytes from the same sender: one
 * transaction. */
bool compose_is_same(const struct load *load, uint32_t a, uint32_t b);
/* Makes sender and message of record `index` in the delivery. */
enum compose_result compose_message(struct delivery *delivery, const struct load *load,
                                    uint32_t index, struct writer *ret_problem);
