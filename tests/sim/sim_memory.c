/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_memory.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/ensure.h"

struct sim_memory sim_memory;

void sim_memory_fail_at(uint64_t n, bool is_sticky)
{
    sim_memory.fail_left = n;
    sim_memory.is_sticky = is_sticky;
}

bool sim_memory_is_denied(void)
{
    if (!sim_memory.is_engine) {
        return false;
    }
    sim_memory.asked_count++;
    if (sim_memory.fail_left == 0 || --sim_memory.fail_left > 0) {
        return false;
    }
    sim_memory.fail_left = sim_memory.is_sticky ? 1 : 0;
    sim_memory.failures_count++;
    return true;
}

void *sim_world_alloc(size_t size)
{
    bool was_engine = sim_memory_enter(false);
    void *at = calloc(1, size);
    sim_memory.is_engine = was_engine;
    ensure(at != NULL);
    return at;
}

void *sim_world_realloc(void *at, size_t size)
{
    bool was_engine = sim_memory_enter(false);
    void *moved = realloc(at, size);
    sim_memory.is_engine = was_engine;
    ensure(moved != NULL);
    return moved;
}

char *sim_world_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = sim_world_alloc(size);
    memcpy(copy, text, size);
    return copy;
}
