/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stat: counters with one writer and any number of readers.
 *
 * The writer adds with a relaxed load and store (no locked instruction); readers on other cores see
 * a recent value, never a torn one.
 *
 * One value says nothing about another: a reader may see two writes in any order. Where a value
 * tells that something else has been written it is published, and its reader observes it. Both are
 * plain loads and stores on x86; there only the compiler is kept from moving others around them.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "engine/base/ensure.h"

struct stat_counter {
    _Atomic uint64_t value;
};

/* Owner only. */
static inline void stat_add(struct stat_counter *counter, uint64_t n)
{
    uint64_t value = atomic_load_explicit(&counter->value, memory_order_relaxed);
    atomic_store_explicit(&counter->value, value + n, memory_order_relaxed);
}

static inline void stat_sub(struct stat_counter *counter, uint64_t n)
{
    uint64_t value = atomic_load_explicit(&counter->value, memory_order_relaxed);
    ensure(value >= n);
    atomic_store_explicit(&counter->value, value - n, memory_order_relaxed);
}

static inline void stat_set(struct stat_counter *counter, uint64_t value)
{
    atomic_store_explicit(&counter->value, value, memory_order_relaxed);
}

/* Owner only: as stat_set; who observes this value sees all that was written before it. */
static inline void stat_publish(struct stat_counter *counter, uint64_t value)
{
    atomic_store_explicit(&counter->value, value, memory_order_release);
}

/* Any thread. */
static inline uint64_t stat_read_xcore(const struct stat_counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/* Any thread: with what was written before the value was published. */
static inline uint64_t stat_observe_xcore(const struct stat_counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_acquire);
}
