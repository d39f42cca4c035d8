/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/random.h"

#include <errno.h>
#include <sys/random.h>
#include <sys/types.h>

#include "engine/base/ensure.h"

static uint64_t rotate_left(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

/* splitmix64 (Steele, Lea, Flood): spreads any seed, 0 included, over the whole state. */
static uint64_t splitmix_next(uint64_t *seed)
{
    *seed += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t value = *seed;
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* getrandom never gives less than asked for up to 256 bytes, once the kernel's pool is ready. */
void random_init_system(struct random *random)
{
    ssize_t size;
    do {
        size = getrandom(random->state, sizeof(random->state), 0);
    } while (size < 0 && errno == EINTR);
    ensure(size == (ssize_t)sizeof(random->state));
    random->state[0] |= 1; /* the all-zero state would stay zero */
}

void random_init_seed(struct random *random, uint64_t seed)
{
    for (size_t i = 0; i < COUNT_OF(random->state); i++) {
        random->state[i] = splitmix_next(&seed);
    }
}

uint64_t random_u64(struct random *random)
{
    uint64_t *state = random->state;
    ensure((state[0] | state[1] | state[2] | state[3]) != 0);

    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint32_t random_u32(struct random *random)
{
    return (uint32_t)(random_u64(random) >> 32);
}

/* Lemire 2019: the low half of the product tells whether this draw fell into the biased rest. */
uint32_t random_below(struct random *random, uint32_t below)
{
    ensure(below > 0);
    uint64_t product = (uint64_t)random_u32(random) * below;
    if ((uint32_t)product < below) {
        uint32_t rest = -below % below;
        while ((uint32_t)product < rest) {
            product = (uint64_t)random_u32(random) * below;
        }
    }
    return (uint32_t)(product >> 32);
}
