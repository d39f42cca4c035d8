/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slab: a fixed number of equal slots, taken and given back in constant time.
 *
 * Owner: one actor, which alone takes and gives. The address range is reserved at init (mmap, no
 * memory until touched), slots are handed out last-given-first so that the touched part stays
 * small. When all are out, slab_take returns NULL: the caller's header names what happens then (LAW
 * 8). Slots are not zeroed. slab_deinit ensures that every slot is back.
 *
 * Handles: who only refers to a slot it does not own keeps a `struct handle`: index and generation.
 * The generation of a slot grows each time it is taken or given back (odd while it is out), so a
 * stale handle is found out (slab_at_handle returns NULL) instead of reaching another object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/ensure.h"

struct handle {
    uint32_t index;
    uint32_t generation; /* odd; 0 is never valid */
};

#define HANDLE_NONE ((struct handle){.index = 0, .generation = 0})

struct slab {
    const char *name;
    char *slots;
    uint32_t *generations;
    size_t slot_size; /* multiple of 8 */
    uint32_t count_max;
    uint32_t fresh;     /* slots below this index have been used at least once */
    uint32_t free_head; /* index + 1 of the first free slot, 0 = none */
    uint32_t count_out;
    uint32_t count_out_peak;
};

/* 0, or -ENOMEM when the address range cannot be had. `slot_size` >= 8 (rounded up to a multiple of
 * 8), `count_max` >= 1; slots of a multiple of 64 bytes are aligned to cache lines. `name` is kept.
 */
int slab_init(struct slab *slab, const char *name, size_t slot_size, uint32_t count_max)
    __attribute__((warn_unused_result));
/* NULL-safe and safe on a zeroed slab. Ensures count_out == 0. */
void slab_deinit(struct slab *slab);
/* Like deinit, but slots may still be out: for a stop in which their contents are known elsewhere.
 */
void slab_abandon(struct slab *slab);
void *slab_take(struct slab *slab);
/* `slot` must be out; it is a bug otherwise (range, alignment and double give are always checked).
 * Under AddressSanitizer a slot that is not out is poisoned. */
void slab_give(struct slab *slab, void *slot);

static inline uint32_t slab_index(const struct slab *slab, const void *slot)
{
    size_t index = (size_t)((const char *)slot - slab->slots) / slab->slot_size;
    ensure(index < slab->count_max);
    return (uint32_t)index;
}

static inline void *slab_at(const struct slab *slab, uint32_t index)
{
    ensure(index < slab->count_max);
    return slab->slots + (size_t)index * slab->slot_size;
}

static inline uint32_t slab_left(const struct slab *slab)
{
    ensure(slab->count_out <= slab->count_max);
    return slab->count_max - slab->count_out;
}

struct handle slab_handle(const struct slab *slab, const void *slot);
/* The slot, or NULL when the handle is stale. */
void *slab_at_handle(const struct slab *slab, struct handle handle);

static inline uint64_t handle_to_u64(struct handle handle)
{
    return (uint64_t)handle.generation << 32 | handle.index;
}

static inline struct handle handle_of_u64(uint64_t value)
{
    return (struct handle){.index = (uint32_t)value, .generation = (uint32_t)(value >> 32)};
}
