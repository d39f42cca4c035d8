/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_memory: whose memory it is that is taken, the engine's or the simulated world's; and the
 * fault countdown over the engine's allocations.
 *
 * sim_engine says when an engine is made, steps or is unmade; whatever is taken then is the
 * engine's, but for what the world takes by the sim_world_ functions (disk, network and name
 * servers do their work within the engine's steps). Programs that link sim_denial.c or sim_pages.c
 * with the linker's --wrap (meson.build) have each allocation of our own objects come by here: in
 * all others nothing is counted and nothing fails. What libraries take inside is theirs.
 *
 * With sim_pages.c the sum of what the engine has out is known as well (is_summed): what its slabs
 * and tables map, and what it has from malloc and its like. Libraries' own, strdup's for them and
 * aligned_alloc's are not in it.
 *
 * State of the process; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_memory {
    volatile bool is_engine; /* compilers know malloc as a function that looks at nothing */
    uint64_t asked_count;    /* allocations of the engine */
    uint64_t failures_count;
    uint64_t fail_left;
    bool is_sticky;
    bool is_summed;
    uint64_t heap_size; /* of the engine */
    uint64_t heap_peak; /* the most since somebody set it */
    uint64_t mapped_size;
};

extern struct sim_memory sim_memory;

/* The engine's n-th allocation from now (n >= 1) fails, when `is_sticky` all behind it too; n 0:
 * none does any more. */
void sim_memory_fail_at(uint64_t n, bool is_sticky);
/* Of the wraps, before each allocation: counts the engine's; whether this one has to fail. */
bool sim_memory_is_denied(void);

static inline void sim_memory_took(uint64_t size)
{
    sim_memory.heap_size += size;
    if (sim_memory.heap_size > sim_memory.heap_peak) {
        sim_memory.heap_peak = sim_memory.heap_size;
    }
}

/* From here on it is the engine's, or not; returns whose it was. */
static inline bool sim_memory_enter(bool is_engine)
{
    bool was_engine = sim_memory.is_engine;
    sim_memory.is_engine = is_engine;
    return was_engine;
}

/* The world's own memory, given back by free; never NULL. */
void *sim_world_alloc(size_t size); /* zero */
void *sim_world_realloc(void *at, size_t size);
char *sim_world_strdup(const char *text);
