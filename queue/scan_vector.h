/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_vector: sixteen bytes at a time, in the compiler's own vectors: any machine it knows, no
 * intrinsics. For the files that read BSMTP text. Pure functions.
 *
 * Loads need no alignment. Comparisons give 0 or 0xff a byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t scan_vector __attribute__((vector_size(16)));

enum { SCAN_VECTOR_SIZE = sizeof(scan_vector) };

static inline scan_vector scan_vector_at(const char *at)
{
    scan_vector vector;
    memcpy(&vector, at, sizeof(vector));
    return vector;
}

static inline scan_vector scan_vector_equal(scan_vector bytes, char byte)
{
    return (scan_vector)(bytes == (uint8_t)byte);
}

/* True when any byte is not 0. */
static inline bool scan_vector_any(scan_vector vector)
{
    uint64_t halves[2];
    memcpy(halves, &vector, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

/* True when any byte is not ASCII. */
static inline bool scan_vector_any_8bit(scan_vector vector)
{
    return scan_vector_any(vector & (uint8_t)0x80);
}
