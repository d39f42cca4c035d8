/* SPDX-License-Identifier: Apache-2.0 */
/*
 * field: the header of a message: split into fields, checked, compiled. For the compile side of
 * this folder only.
 *
 * Fields keep their bytes, unless they hold a placeholder (also one inside encoded words) or raw
 * UTF-8 where an encoded word can stand. Removed: Bcc, Resent-Bcc, Return-Path, Content-Length,
 * X-Sender, X-Receiver, X-Ramjet-*. Added behind the others when missing: Date, Message-ID,
 * MIME-Version. A problem: no From or more than one, two of any field that RFC 5322 3.6 wants once,
 * a line that is no field.
 *
 * Bounds: TEMPLATE_HEADERS_SIZE_MAX octets. Owned by one call of template_compile.
 */
#pragma once

#include "engine/message/builder.h"
#include "engine/message/parts.h"

/* Octets of the header with its blank line; every line in front of it was checked to be part of a
 * field. */
int field_check_all(struct builder *builder, size_t *ret_size) __attribute__((warn_unused_result));
/* Everything in front of the blank line; sets the template's headers_count. */
int field_put_all(struct builder *builder, const struct parts *parts, size_t header_size)
    __attribute__((warn_unused_result));
