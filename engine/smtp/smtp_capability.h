/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_capability: what the EHLO reply offers, as bits and numbers. Filled line by line; unknown
 * keywords are ignored.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"

enum smtp_capability_bit {
    SMTP_CAN_PIPELINE = 1u << 0,
    SMTP_CAN_8BIT = 1u << 1,
    SMTP_CAN_SIZE = 1u << 2,
    SMTP_CAN_ENHANCED = 1u << 3,
    SMTP_CAN_STARTTLS = 1u << 4,
    SMTP_CAN_CHUNK = 1u << 5,
    SMTP_CAN_DSN = 1u << 6,
    SMTP_CAN_UTF8 = 1u << 7,
};

struct smtp_capabilities {
    uint32_t bits;
    uint64_t size_max; /* 0 = no limit told */
};

/* One line after the first of an EHLO reply, without its code. */
void smtp_capability_take_line(struct smtp_capabilities *capabilities, struct span line);
