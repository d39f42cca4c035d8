/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record_check: the engine's rules for one record of a batch, and for the batch as a whole.
 *
 * Used by intake when it scans a batch and by `ramjet check`: what the one says the other does. No
 * allocation but inside libidn2 (a domain in another script), no state but the caller's hints.
 *
 * Returns 0, or -EINVAL with the reject filled in: what is wrong, and what to do.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/message/template.h"
#include "queue/domain.h"
#include "queue/manifest.h"
#include "queue/scan.h"

struct record_reject {
    char reason[256];
    const char *remedy; /* a constant; may be empty */
};

/* Where the mail of an address goes: its domain as written, or its A-labels (F3). */
struct record_domain {
    struct span name; /* points into the address or into `ascii` */
    char ascii[DOMAIN_NAME_MAX + 1];
};

int record_check_address(struct span text, struct record_domain *ret_domain,
                         struct record_reject *ret_reject) __attribute__((warn_unused_result));
/* The values of a merge record: both templates can be filled, and the sender is an address then.
 * -ENOMEM: nothing is known of the record. hints: TEMPLATE_VARS_MAX (engine/values.h). */
int record_check_values(const struct template *sender, const struct template *template,
                        const struct manifest *manifest, const struct scan_recipient *record,
                        uint32_t ordinal, uint8_t *hints, struct record_reject *ret_reject)
    __attribute__((warn_unused_result));
/* A sender without variables; what depends on a recipient is checked with it. */
int record_check_sender(const struct template *sender, struct record_reject *ret_reject)
    __attribute__((warn_unused_result));
/* The envelope sender of a BSMTP message. */
int record_check_message(const struct scan_message *message, struct record_reject *ret_reject)
    __attribute__((warn_unused_result));
/* Of a BSMTP message's recipients: 8-bit, and which fields it lacks (RECIPIENT_8BIT, _ADD_..). */
uint16_t record_message_flags(const struct scan_message *message);
/* Whether the message names its recipient `index` before, written alike: such are one, the first
 * (conformance.md 4). */
bool record_is_named_before(const struct scan_message *message, uint32_t index);
/* All records are through: whether the batch may run. Words for people go into `ret_words`;
 * `rejects` is what they call the list of rejected records. */
int record_check_batch(const struct manifest *manifest, uint64_t recipients_count,
                       uint64_t rejected_count, const char *rejects, struct writer *ret_words)
    __attribute__((warn_unused_result));
