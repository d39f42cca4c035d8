/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_lint: looks at a configuration file before libconfuse reads it.
 *
 * The library stops at the first key it does not know, says nothing of a section that is never
 * closed, and lets the last of two equal keys or sections win. All of these are found here, in one
 * pass, with a guess at what was meant; and what was complained of is overwritten with blanks, so
 * that the library goes on to the values behind it. Comments are overwritten too: each makes the
 * library lose count of the lines. What is no file of sections at all is left to the library to
 * tell.
 *
 * Pure but for the text, which is changed in place (its lines stay where they are), and for the
 * places of sections that were seen, over all files of one configuration. Used at start, by main.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum { CONFIG_LINT_KEYS_MAX = 40, CONFIG_LINT_SECTIONS_MAX = 16, CONFIG_LINT_PLACE_MAX = 512 };

struct config_lint_section {
    const char *name;
    bool is_titled; /* may stand more than once */
    uint32_t keys_count;
    const char *keys[CONFIG_LINT_KEYS_MAX];
    char first_place[CONFIG_LINT_PLACE_MAX]; /* file:line of the one that was seen; "" = none */
};

struct config_lint {
    struct writer *errors; /* lines of text */
    uint32_t sections_count;
    struct config_lint_section sections[CONFIG_LINT_SECTIONS_MAX];
};

void config_lint_file(struct config_lint *lint, const char *file, char *text, size_t size);
