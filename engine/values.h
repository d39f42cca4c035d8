/* SPDX-License-Identifier: Apache-2.0 */
/*
 * values: the variables of one recipient, in the order a template wants them.
 *
 * Used twice with the same answer: by intake when a record is checked, by a worker when it is sent.
 * Pure but for `hints` (where the variables stood in the last record: the next one is mostly
 * alike), which belong to the caller's actor. First the engine's own names (_to, _id, _batch), then
 * the record's variables, then the batch's. _to is the address as it is sent, not as it was
 * written.
 */
#pragma once

#include <stdint.h>

#include "engine/message/template.h"
#include "engine/smtp/smtp.h"
#include "queue/manifest.h"
#include "queue/scan.h"

/* The address `to`, which was accepted, as it is sent: as written when it is ASCII (A35); a domain
 * in another script as the A-labels under which it was counted (F3), `domain`. May be written into
 * `room`. */
struct span values_address(struct span to, struct span domain, char room[SMTP_ADDRESS_MAX]);
/* ret_values: TEMPLATE_VARS_MAX; `at` NULL where nothing is given. hints: TEMPLATE_VARS_MAX. `to`:
 * from values_address. */
void values_fill(const struct template *template, const struct manifest *manifest,
                 const struct scan_recipient *record, struct span to, uint8_t *hints,
                 struct span *ret_values);
/* The fields that a BSMTP message lacks: `adds` of RECIPIENT_ADD_DATE, RECIPIENT_ADD_MESSAGE_ID.
 * `offset`: of its record in the stream, which tells it from the batch's others. */
void values_put_missing(struct writer *writer, unsigned adds, const struct manifest *manifest,
                        struct wall_time accepted_at, uint64_t offset, const char *hostname);
/* Values with what else a template wants to know. */
struct render_input values_input(const struct manifest *manifest, const struct span *values,
                                 uint32_t ordinal);
