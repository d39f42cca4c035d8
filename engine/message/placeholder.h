/* SPDX-License-Identifier: Apache-2.0 */
/*
 * placeholder: finds {{placeholders}} in decoded text. The syntax is in docs/formats/TEMPLATE.md.
 * Pure functions, any actor; the spans of a result point into the text.
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"

enum { PLACEHOLDER_NAME_MAX = 64, PLACEHOLDER_DEFAULT_MAX = 1024 };

enum placeholder_kind {
    PLACEHOLDER_NONE,    /* no more; at = end = the text's size */
    PLACEHOLDER_VALUE,   /* name, default */
    PLACEHOLDER_LITERAL, /* {{{{, which stands for {{ */
    PLACEHOLDER_BAD,     /* reason */
};

struct placeholder {
    enum placeholder_kind kind;
    size_t at; /* [at, end) of the text is replaced */
    size_t end;
    struct span name;
    struct span fallback; /* the default */
    bool has_fallback;
    bool is_raw;
    const char *reason;
};

/* The first one at or behind `from`. */
struct placeholder placeholder_find(struct span text, size_t from);
/* Whether there is any "{{". */
bool placeholder_is_in(struct span text);
