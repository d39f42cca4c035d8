/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/slab.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_feature) && !defined(__SANITIZE_ADDRESS__) /* clang's way to say it */
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define SLOT_POISON(at, size) __asan_poison_memory_region(at, size)
#define SLOT_UNPOISON(at, size) __asan_unpoison_memory_region(at, size)
#else
#define SLOT_POISON(at, size) ((void)0)
#define SLOT_UNPOISON(at, size) ((void)0)
#endif

/*
 * A free slot keeps, in its first four bytes, index + 1 of the next free one. The generation of a
 * slot is even while it is free (0: never used) and odd while it is out, so a double give and a
 * stale handle are both found by one look at it.
 */
enum { GENERATION_OUT = 1, SLOT_SIZE_STEP = 8, SLOT_FILL_GIVEN = 0xa5 };

static int range_map(size_t size, void **ret_at)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (at == MAP_FAILED) {
        return -ENOMEM;
    }
    *ret_at = at;
    return 0;
}

int slab_init(struct slab *slab, const char *name, size_t slot_size, uint32_t count_max)
{
    ensure(slot_size >= SLOT_SIZE_STEP);
    ensure(count_max >= 1);
    ensure(count_max < UINT32_MAX);

    slot_size = (slot_size + SLOT_SIZE_STEP - 1) & ~(size_t)(SLOT_SIZE_STEP - 1);
    void *slots;
    void *generations;
    if (__builtin_mul_overflow(slot_size, (size_t)count_max, &(size_t){0}) ||
        range_map(slot_size * count_max, &slots) != 0) {
        return -ENOMEM;
    }
    if (range_map(sizeof(uint32_t) * count_max, &generations) != 0) {
        ensure(munmap(slots, slot_size * count_max) == 0);
        return -ENOMEM;
    }
    *slab = (struct slab){.name = name,
                          .slots = slots,
                          .generations = generations,
                          .slot_size = slot_size,
                          .count_max = count_max};
    return 0;
}

void slab_deinit(struct slab *slab)
{
    if (slab != NULL) {
        ensure(slab->count_out == 0);
        slab_abandon(slab);
    }
}

void slab_abandon(struct slab *slab)
{
    if (slab == NULL || slab->slots == NULL) {
        return;
    }
    SLOT_UNPOISON(slab->slots, slab->slot_size * slab->fresh);
    ensure(munmap(slab->slots, slab->slot_size * slab->count_max) == 0);
    ensure(munmap(slab->generations, sizeof(uint32_t) * slab->count_max) == 0);
    *slab = (struct slab){0};
}

void *slab_take(struct slab *slab)
{
    ensure(slab->slots != NULL);
    uint32_t index;
    if (slab->free_head != 0) {
        index = slab->free_head - 1;
        SLOT_UNPOISON(slab_at(slab, index), slab->slot_size);
        memcpy(&slab->free_head, slab_at(slab, index), sizeof(slab->free_head));
        if (slab->free_head != 0) {
            /* Read by the next take: given by another turn, it is seldom in the cache. */
            __builtin_prefetch(slab_at(slab, slab->free_head - 1), 1);
        }
    } else if (slab->fresh < slab->count_max) {
        index = slab->fresh++;
    } else {
        return NULL;
    }
    ensure((slab->generations[index] & GENERATION_OUT) == 0);
    slab->generations[index]++;
    slab->count_out++;
    if (slab->count_out > slab->count_out_peak) {
        slab->count_out_peak = slab->count_out;
    }
    return slab_at(slab, index);
}

/* The index of a slot that is out; anything else is a bug. */
static uint32_t index_of_out(const struct slab *slab, const void *slot)
{
    ensure((const char *)slot >= slab->slots);
    size_t offset = (size_t)((const char *)slot - slab->slots);
    ensure(offset % slab->slot_size == 0);
    ensure(offset / slab->slot_size < slab->fresh);
    uint32_t index = (uint32_t)(offset / slab->slot_size);
    ensure((slab->generations[index] & GENERATION_OUT) != 0);
    return index;
}

void slab_give(struct slab *slab, void *slot)
{
    uint32_t index = index_of_out(slab, slot);
    ensure(slab->count_out > 0);
#ifdef RAMJET_SLOW_CHECKS
    memset(slot, SLOT_FILL_GIVEN, slab->slot_size);
#endif
    memcpy(slot, &slab->free_head, sizeof(slab->free_head));
    SLOT_POISON(slot, slab->slot_size);
    slab->generations[index]++;
    slab->free_head = index + 1;
    slab->count_out--;
}

struct handle slab_handle(const struct slab *slab, const void *slot)
{
    uint32_t index = index_of_out(slab, slot);
    return (struct handle){.index = index, .generation = slab->generations[index]};
}

void *slab_at_handle(const struct slab *slab, struct handle handle)
{
    if ((handle.generation & GENERATION_OUT) == 0 || handle.index >= slab->fresh ||
        slab->generations[handle.index] != handle.generation) {
        return NULL;
    }
    return slab_at(slab, handle.index);
}
