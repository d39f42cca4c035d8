/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text: small encodings for people and logs, into a bounded writer. Pure functions, any actor.
 */
#pragma once

#include "engine/base/bytes.h"
#include "engine/base/clock.h"

/* A JSON string with its quotes. Invalid UTF-8 bytes become U+FFFD, so that a log line is always
 * valid JSON (RFC 8259 7, 8.1). */
void text_put_json(struct writer *writer, struct span value);
/* Printable ASCII as it is, anything else as \xNN: for messages that show foreign bytes to people.
 */
void text_put_escaped(struct writer *writer, struct span value);
/* RFC 3339 in UTC with milliseconds: 2026-12-01T08:00:00.123Z. */
void text_put_rfc3339(struct writer *writer, struct wall_time at);
/* RFC 5322 3.3 date-time in UTC: Tue, 01 Dec 2026 08:00:00 +0000. */
void text_put_rfc5322(struct writer *writer, struct wall_time at);
/* Lower-case hexadecimal of the value, 16 digits. */
void text_put_hex64(struct writer *writer, uint64_t value);
/* True when the whole span is well-formed UTF-8 (RFC 3629). */
bool text_is_utf8(struct span value);
/* True when every byte is below 128. */
bool text_is_ascii(struct span value);
/* Parses RFC 3339 (with Z or a numeric offset, optional fraction). */
bool text_take_rfc3339(struct span text, struct wall_time *ret_at);
