/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_address: a strict parser of mailboxes (RFC 5321 4.1.2), for every recipient line of a batch.
 *
 * Pure function, any actor, no allocation; one pass over the bytes, a few tens of nanoseconds for a
 * common address. It strips and changes nothing (A35): the spans point into the text. What it
 * accepts, smtp_command can write.
 *
 *   local part   dot-atom or quoted string, at most 64 bytes (A24)
 *   domain       labels of letters, digits, '-' and '_' (B10), at most 63 bytes each and 253 in
 *                all, no dot at the end; or an address literal, [192.0.2.1], [IPv6:2001:db8::1]
 * (B9) in all       at most 254 bytes: a path has 256 with its brackets
 *
 * Source routes are refused, not stripped (A34). A non-ASCII local part is refused: it needs
 * SMTPUTF8. So is a non-ASCII domain, with a reason of its own: the caller may turn it into
 * A-labels and parse again (F3).
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"

enum smtp_address_reason {
    SMTP_ADDRESS_OK,
    SMTP_ADDRESS_EMPTY,
    SMTP_ADDRESS_TOO_LONG,
    SMTP_ADDRESS_CONTROL,
    SMTP_ADDRESS_BLANK,
    SMTP_ADDRESS_BRACKETS,
    SMTP_ADDRESS_COMMENT,
    SMTP_ADDRESS_SOURCE_ROUTE,
    SMTP_ADDRESS_NO_LOCAL,
    SMTP_ADDRESS_LOCAL_TOO_LONG,
    SMTP_ADDRESS_LOCAL_START_DOT,
    SMTP_ADDRESS_LOCAL_END_DOT,
    SMTP_ADDRESS_LOCAL_DOTS,
    SMTP_ADDRESS_LOCAL_BYTE,
    SMTP_ADDRESS_LOCAL_UTF8,
    SMTP_ADDRESS_QUOTE_OPEN,
    SMTP_ADDRESS_QUOTE_PLACE,
    SMTP_ADDRESS_NO_DOMAIN,
    SMTP_ADDRESS_TWO_ATS,
    SMTP_ADDRESS_DOMAIN_TOO_LONG,
    SMTP_ADDRESS_DOMAIN_START_DOT,
    SMTP_ADDRESS_DOMAIN_END_DOT,
    SMTP_ADDRESS_DOMAIN_DOTS,
    SMTP_ADDRESS_DOMAIN_BYTE,
    SMTP_ADDRESS_DOMAIN_HYPHEN,
    SMTP_ADDRESS_DOMAIN_UTF8,
    SMTP_ADDRESS_DOMAIN_NUMBER,
    SMTP_ADDRESS_LABEL_TOO_LONG,
    SMTP_ADDRESS_PORT,
    SMTP_ADDRESS_LITERAL,
};
enum { SMTP_ADDRESS_REASONS_COUNT = SMTP_ADDRESS_LITERAL + 1 };

struct smtp_address {
    struct span local;  /* with its quotes */
    struct span domain; /* with its square brackets */
    bool is_quoted;
    bool is_literal;
    bool is_utf8; /* of a domain refused as SMTP_ADDRESS_DOMAIN_UTF8 */
};

/* SMTP_ADDRESS_OK and *ret, or the first reason found from the left; *ret is then untouched, but
 * for SMTP_ADDRESS_DOMAIN_UTF8, where local and domain are told. */
enum smtp_address_reason smtp_address_parse(struct span text, struct smtp_address *ret_address)
    __attribute__((warn_unused_result));
/* The same rules for a domain alone, at most 253 bytes, no literal (B10). */
enum smtp_address_reason smtp_address_check_domain(struct span domain)
    __attribute__((warn_unused_result));
/* For people: "two @ signs". */
const char *smtp_address_reason_text(enum smtp_address_reason reason);
