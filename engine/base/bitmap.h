/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bitmap: an array of 64-bit words as a set of small numbers; number n is bit n % 64 of word
 * n / 64. The array's owner sees to its length.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

static inline bool bitmap_has(const uint64_t *bitmap, uint64_t number)
{
    return (bitmap[number / 64] >> (number % 64) & 1) != 0;
}
