/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"

#include "tests/harness.h"

static void test_system(void)
{
    const struct clock *clock = clock_system();
    struct mono_time before = clock_mono(clock);
    struct mono_time after = clock_mono(clock);
    CU_ASSERT(!mono_before(after, before));
    CU_ASSERT(after.ns > 0);
    CU_ASSERT(wall_seconds(clock_wall(clock)) > 1600000000);
}

static void test_manual(void)
{
    struct clock_manual manual;
    clock_manual_init(&manual, (struct mono_time){.ns = 5}, (struct wall_time){.ns = 7 * NS_PER_S});
    CU_ASSERT_EQUAL(clock_mono(&manual.clock).ns, 5);
    CU_ASSERT_EQUAL(wall_seconds(clock_wall(&manual.clock)), 7);
    clock_manual_advance(&manual, 2 * NS_PER_S);
    CU_ASSERT_EQUAL(clock_mono(&manual.clock).ns, 5 + 2 * NS_PER_S);
    CU_ASSERT_EQUAL(wall_seconds(clock_wall(&manual.clock)), 9);
    CHECK_PANICS(clock_manual_advance(&manual, -1));
    CHECK_PANICS(clock_manual_advance(&manual, INT64_MAX));
}

static void test_wall_seconds(void)
{
    static const struct {
        int64_t ns;
        uint32_t seconds;
    } rows[] = {
        {-1, 0},
        {INT64_MIN, 0},
        {NS_PER_S - 1, 0},
        {NS_PER_S, 1},
        {(int64_t)WALL_SECONDS_MAX * NS_PER_S - 1, WALL_SECONDS_MAX - 1},
        {(int64_t)WALL_SECONDS_MAX * NS_PER_S, WALL_SECONDS_MAX},
        {INT64_MAX, WALL_SECONDS_MAX},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        CHECK_ROW(i, wall_seconds((struct wall_time){.ns = rows[i].ns}) == rows[i].seconds);
    }
}

static void test_arithmetic(void)
{
    struct mono_time at = {.ns = 10};
    CU_ASSERT_EQUAL(mono_add_ns(at, 5).ns, 15);
    CU_ASSERT_EQUAL(mono_add_ns(at, -5).ns, 5);
    CU_ASSERT_EQUAL(mono_add_ms(at, 2).ns, 10 + 2 * NS_PER_MS);
    CU_ASSERT_EQUAL(mono_add_ns(at, INT64_MAX).ns, INT64_MAX);
    CU_ASSERT_EQUAL(mono_add_ms(at, INT64_MAX).ns, INT64_MAX);
    CU_ASSERT_EQUAL(mono_add_ns(MONO_NEVER, 1).ns, INT64_MAX);
    CU_ASSERT_EQUAL(mono_add_ns(MONO_NEVER, -1).ns, INT64_MAX);
    CU_ASSERT(mono_before(at, MONO_NEVER));
    CU_ASSERT(!mono_before(at, at));
    CU_ASSERT_EQUAL(mono_earlier(at, MONO_NEVER).ns, 10);
    CU_ASSERT_EQUAL(mono_earlier(MONO_NEVER, at).ns, 10);
}

SUITE(clock, test_system, test_manual, test_wall_seconds, test_arithmetic)
