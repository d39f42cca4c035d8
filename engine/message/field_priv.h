/* SPDX-License-Identifier: Apache-2.0 */
/*
 * field_priv: between field.c and field_address.c.
 */
#pragma once

#include "engine/message/builder.h"

struct field {
    struct span whole; /* with its line ends */
    struct span name;
    struct span value; /* from behind the colon, folds included, without the last line end */
};

/* The prefix of a header group: name, colon and the blanks behind it. */
struct span field_prefix(const struct field *field);
/* The value in the template's memory, without line ends. */
int field_unfold(struct builder *builder, const struct field *field, struct span *ret_text)
    __attribute__((warn_unused_result));
/* Sets the problem's line, passes the error on. */
int field_failed(struct builder *builder, const struct field *field, int error)
    __attribute__((warn_unused_result));

/* F1: what no encoded word can carry, an address for one, would need SMTPUTF8. */
int field_check_ascii(struct builder *builder, struct span text)
    __attribute__((warn_unused_result));

/* A field of addresses (RFC 5322 3.4) with placeholders or raw UTF-8, as a header group. */
int field_address_put(struct builder *builder, const struct field *field)
    __attribute__((warn_unused_result));
/* The domain of the first address; size 0 = none, or not constant. Points into the field. */
struct span field_address_domain(const struct field *field);
