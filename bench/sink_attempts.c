/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_attempts.h"

#include <pthread.h>
#include <stdlib.h>
#include <xxhash.h>

enum { PROBES_MAX = 64 };

struct attempt {
    uint64_t hash; /* 0 = free */
    uint32_t count;
};

struct sink_attempts {
    pthread_mutex_t mutex;
    struct attempt table[SINK_ATTEMPTS_MAX];
};

struct sink_attempts *sink_attempts_create(void)
{
    struct sink_attempts *attempts = calloc(1, sizeof(*attempts));
    if (attempts) {
        ensure(pthread_mutex_init(&attempts->mutex, NULL) == 0);
    }
    return attempts;
}

void sink_attempts_destroy(struct sink_attempts *attempts)
{
    if (attempts) {
        ensure(pthread_mutex_destroy(&attempts->mutex) == 0);
        free(attempts);
    }
}

static struct attempt *attempt_find(struct sink_attempts *attempts, uint64_t hash)
{
    for (uint32_t i = 0; i < PROBES_MAX; i++) {
        struct attempt *attempt = &attempts->table[(hash + i) % SINK_ATTEMPTS_MAX];
        if (attempt->hash == hash || attempt->hash == 0) {
            return attempt;
        }
    }
    return NULL;
}

uint32_t sink_attempts_count_xcore(struct sink_attempts *attempts, struct span address)
{
    uint64_t hash = XXH3_64bits(address.at, address.size);
    uint32_t count = UINT32_MAX;
    hash += hash == 0;
    ensure(pthread_mutex_lock(&attempts->mutex) == 0);
    struct attempt *attempt = attempt_find(attempts, hash);
    if (attempt) {
        attempt->hash = hash;
        count = attempt->count++;
    }
    ensure(pthread_mutex_unlock(&attempts->mutex) == 0);
    return count;
}
