/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random: the randomness seam. Each actor owns one generator (xoshiro256**, Blackman and Vigna),
 * seeded from getrandom in production and from the run's seed in simulation. Not for secrets of
 * cryptography; OpenSSL has its own.
 */
#pragma once

#include <stdint.h>

struct random {
    uint64_t state[4];
};

/* From getrandom(2); the only caller. */
void random_init_system(struct random *random);
/* The same seed gives the same numbers on every machine. */
void random_init_seed(struct random *random, uint64_t seed);
uint64_t random_u64(struct random *random);
uint32_t random_u32(struct random *random);
/* Uniform over 0..below-1, below > 0, without modulo bias. */
uint32_t random_below(struct random *random, uint32_t below);
