/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz: one driver a parser (docs/TESTING.md). A driver defines fuzz_one, which takes any bytes and
 * ends the program by ensure() when a promise of the parser's header is broken. The same driver is
 * linked twice: with libFuzzer (`./dev fuzz NAME`), and with fuzz_replay.c, which shows it the
 * files of corpus/NAME and small changes of them (the ordinary tests, under sanitizers as well).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/bytes.h"

void fuzz_one(struct span input);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy in memory of its own size, so that a sanitizer sees every byte that is read beside it; to
 * be freed. */
static inline char *fuzz_copy(struct span bytes)
{
    char *copy = malloc(bytes.size > 0 ? bytes.size : 1);
    ensure(copy != NULL);
    if (bytes.size > 0) {
        memcpy(copy, bytes.at, bytes.size);
    }
    return copy;
}

/* The next byte of what steers the driver, behind which its text stands; 0 when there is none. */
static inline uint8_t fuzz_take(struct cursor *cursor)
{
    char byte = 0;
    return cursor_take(cursor, &byte) ? (uint8_t)byte : 0;
}

static inline struct span fuzz_rest(struct cursor *cursor)
{
    struct span rest;
    ensure(cursor_take_span(cursor, cursor_left(cursor), &rest));
    return rest;
}
