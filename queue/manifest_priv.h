/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest_priv: what the parts of manifest share: manifest.c (the parse, and what no key alone can
 * tell), manifest_keys.c (the keys), manifest_vars.c (the one key with a tree behind it). Visible
 * inside queue/ only.
 */
#pragma once

#include <jansson.h>

#include "queue/manifest.h"
#include "queue/scan_priv.h"

/* One parse: what is being made, and what was found wrong. */
struct manifest_reading {
    struct manifest *manifest;
    struct writer *errors;
    uint32_t errors_count;
    bool has_v, has_from;
    bool is_memory_short;
    const char *merge_key; /* a key that only kind merge may have, or NULL */
    size_t path_size;
    char path[SCAN_NAME_MAX + 1];
};

/* One line of the errors, without its end. */
__attribute__((format(printf, 2, 3))) void manifest_complain(struct manifest_reading *reading,
                                                             const char *format, ...);
/* Puts a copy in the place of what was there. */
void manifest_keep_copy(struct manifest_reading *reading, const char *text, char **ret_copy);

/* manifest_keys.c: one key of the root object, known or not. */
void manifest_read_key(struct manifest_reading *reading, const char *key, json_t *value);

/* manifest_vars.c: the key "vars". */
void manifest_read_vars(struct manifest_reading *reading, const char *key, json_t *value);
