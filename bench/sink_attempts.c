/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_attempts.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <xxhash.h>

enum { PROBES_MAX = 64 };

/* A hash is written once, by whoever finds the place free first; nothing else depends on it, so all
 * accesses are relaxed. */
struct attempt {
    _Atomic uint64_t hash; /* 0 = free */
    _Atomic uint32_t count;
};

struct sink_attempts {
    struct attempt table[SINK_ATTEMPTS_MAX];
};

struct sink_attempts *sink_attempts_create(void)
{
    return calloc(1, sizeof(struct sink_attempts));
}

void sink_attempts_destroy(struct sink_attempts *attempts)
{
    free(attempts);
}

static struct attempt *attempt_find(struct sink_attempts *attempts, uint64_t hash)
{
    for (uint32_t i = 0; i < PROBES_MAX; i++) {
        struct attempt *attempt = &attempts->table[(hash + i) % SINK_ATTEMPTS_MAX];
        uint64_t found = 0;
        if (atomic_compare_exchange_strong_explicit(&attempt->hash, &found, hash,
                                                    memory_order_relaxed, memory_order_relaxed) ||
            found == hash) {
            return attempt;
        }
    }
    return NULL;
}

uint32_t sink_attempts_count_xcore(struct sink_attempts *attempts, struct span address)
{
    uint64_t hash = XXH3_64bits(address.at, address.size);
    hash += hash == 0 ? 1 : 0;
    struct attempt *attempt = attempt_find(attempts, hash);
    return attempt ? atomic_fetch_add_explicit(&attempt->count, 1, memory_order_relaxed)
                   : UINT32_MAX;
}
