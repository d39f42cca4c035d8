/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/random.h"

#include "tests/harness.h"

/* The numbers of the authors' own programs: splitmix64 from 0 fills the state, then xoshiro256**.
 */
static void test_known_numbers(void)
{
    struct random random;
    random_init_seed(&random, 0);
    CU_ASSERT_EQUAL(random.state[0], UINT64_C(0xe220a8397b1dcdaf));
    CU_ASSERT_EQUAL(random.state[1], UINT64_C(0x6e789e6aa1b965f4));
    CU_ASSERT_EQUAL(random.state[2], UINT64_C(0x06c45d188009454f));
    CU_ASSERT_EQUAL(random.state[3], UINT64_C(0xf88bb8a8724c81ec));

    random = (struct random){.state = {1, 2, 3, 4}};
    static const uint64_t want[] = {11520, 0, 1509978240, 1215971899390074240};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        CHECK_ROW(i, random_u64(&random) == want[i]);
    }
}

static void test_seeds(void)
{
    struct random a;
    struct random b;
    random_init_seed(&a, 42);
    random_init_seed(&b, 42);
    for (size_t i = 0; i < 100; i++) {
        CHECK_ROW(i, random_u64(&a) == random_u64(&b));
    }
    random_init_seed(&b, 43);
    CU_ASSERT_NOT_EQUAL(random_u64(&a), random_u64(&b));
    random_init_system(&a);
    random_init_system(&b);
    CU_ASSERT_NOT_EQUAL(random_u64(&a), random_u64(&b));
}

/* Each of ten values near its tenth: the seed is fixed, so this cannot fail by chance. */
static void test_below(void)
{
    enum { DRAWS = 100000, VALUES = 10 };
    uint32_t counts[VALUES] = {0};
    struct random random;
    random_init_seed(&random, 1);
    for (size_t i = 0; i < DRAWS; i++) {
        uint32_t value = random_below(&random, VALUES);
        CU_ASSERT_FATAL(value < VALUES);
        counts[value]++;
    }
    for (size_t i = 0; i < VALUES; i++) {
        CHECK_ROW(i,
                  counts[i] > DRAWS / VALUES * 95 / 100 && counts[i] < DRAWS / VALUES * 105 / 100);
    }
    CU_ASSERT_EQUAL(random_below(&random, 1), 0);
    CHECK_PANICS(random_below(&random, 0));
}

/* With a modulus, two thirds of the draws would fall into the lower half of this range. */
static void test_below_has_no_bias(void)
{
    enum { DRAWS = 100000 };
    uint32_t below = 3u << 30;
    uint32_t low_count = 0;
    struct random random;
    random_init_seed(&random, 2);
    for (size_t i = 0; i < DRAWS; i++) {
        uint32_t value = random_below(&random, below);
        CU_ASSERT_FATAL(value < below);
        low_count += value < below / 2;
    }
    CU_ASSERT(low_count > DRAWS * 49 / 100);
    CU_ASSERT(low_count < DRAWS * 51 / 100);
}

static void test_zero_state_panics(void)
{
    struct random random = {.state = {0}};
    CHECK_PANICS(random_u64(&random));
}

SUITE(random, test_known_numbers, test_seeds, test_below, test_below_has_no_bias,
      test_zero_state_panics)
