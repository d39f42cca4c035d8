/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vector: sixteen bytes at a time, in the compiler's own vectors: any machine it knows, no
 * intrinsics. For searches through long text. Pure functions, any actor.
 *
 * Loads need no alignment. Bytes are signed, because that comparison is one instruction everywhere:
 * an 8-bit byte is negative. The compiler's operators work byte by byte; comparisons give 0 or -1 a
 * byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef int8_t vector __attribute__((vector_size(16)));

enum { VECTOR_SIZE = sizeof(vector) };

/* The VECTOR_SIZE bytes at `at`. */
static inline vector vector_at(const char *at)
{
    vector bytes;
    memcpy(&bytes, at, sizeof(bytes));
    return bytes;
}

/* The byte in every place. */
static inline vector vector_of(char byte)
{
    return (vector){0} + (int8_t)byte;
}

/* True when any byte is not 0. */
static inline bool vector_any(vector bytes)
{
    uint64_t halves[2];
    memcpy(halves, &bytes, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

/* True when any byte is not ASCII. */
static inline bool vector_any_8bit(vector bytes)
{
    return vector_any(bytes & vector_of('\x80'));
}

/* Not 0 where a byte is no printable ASCII, or a blank when `least` is one above it. */
static inline vector vector_unprintable(vector bytes, char least)
{
    return (bytes < vector_of(least)) | (bytes == vector_of('\x7f'));
}
