/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp_vector: sixteen bytes at a time, in the compiler's own vectors: any machine it knows, no
 * intrinsics. For this folder's byte searches only. Pure functions.
 *
 * Loads need no alignment. Bytes are signed, because that comparison is one instruction everywhere:
 * an 8-bit byte is negative. Comparisons give 0 or -1 a byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef int8_t smtp_vector __attribute__((vector_size(16)));

enum { SMTP_VECTOR_SIZE = sizeof(smtp_vector) };

static inline smtp_vector smtp_vector_at(const char *at)
{
    smtp_vector vector;
    memcpy(&vector, at, sizeof(vector));
    return vector;
}

static inline smtp_vector smtp_vector_of(char byte)
{
    return (smtp_vector){0} + (int8_t)byte;
}

/* True when any byte is not 0. */
static inline bool smtp_vector_any(smtp_vector vector)
{
    uint64_t halves[2];
    memcpy(halves, &vector, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

/* Not 0 where a byte is no printable ASCII, or a blank when `least` is one above it. */
static inline smtp_vector smtp_vector_unprintable(smtp_vector bytes, char least)
{
    return (bytes < smtp_vector_of(least)) | (bytes == smtp_vector_of('\x7f'));
}
