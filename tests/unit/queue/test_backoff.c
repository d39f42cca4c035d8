/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/backoff.h"

#include "engine/base/random.h"
#include "tests/harness.h"

enum { MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR };

/* Rows are the promise of the header (A33), in order: doubling, ceiling, jitter's two ends, cut at
 * the expiry, expired. */
static const struct {
    uint32_t attempts_count, age_s, random, want_s;
} ROWS[] = {
    {1, 0, 0, 15 * MINUTE},
    {2, 15 * MINUTE, 0, 30 * MINUTE},
    {3, 45 * MINUTE, 0, HOUR},
    {4, 2 * HOUR, 0, 2 * HOUR},
    {5, 4 * HOUR, 0, 4 * HOUR},
    {6, 8 * HOUR, 0, 4 * HOUR},
    {4000, DAY, 0, 4 * HOUR},
    {UINT32_MAX, DAY, 0, 4 * HOUR},
    {1, 0, UINT32_MAX, 12 * MINUTE + 1},
    {1, 0, UINT32_MAX / 2, 13 * MINUTE + 31},
    {40, 5 * DAY - 7, 0, 7},
    {40, 5 * DAY - 7, UINT32_MAX, 7},
    {40, 5 * DAY, 0, 0},
    {40, UINT32_MAX, UINT32_MAX, 0},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        uint32_t got_s = backoff_delay_s(&BACKOFF_SCHEDULE_DEFAULT, ROWS[i].attempts_count,
                                         ROWS[i].age_s, ROWS[i].random);
        CHECK_ROW(i, got_s == ROWS[i].want_s);
    }
}

/* A recipient that always fails makes progress to its expiry, whatever chance says. */
static void test_ends(void)
{
    struct backoff_schedule schedule = BACKOFF_SCHEDULE_DEFAULT;
    struct random random;
    random_init_seed(&random, 7);
    for (int round = 0; round < 100; round++) {
        uint32_t age_s = 0, attempts_count = 0, delay_s;
        do {
            uint32_t chance = round == 0 ? UINT32_MAX : random_u32(&random);
            delay_s = backoff_delay_s(&schedule, ++attempts_count, age_s, chance);
            age_s += delay_s;
        } while (delay_s > 0 && attempts_count < 1000);
        CU_ASSERT_EQUAL(age_s, schedule.expire_s);
        CU_ASSERT(attempts_count < 60);
    }
}

/* Random schedules: inside the band, never beyond the ceiling or the expiry, never zero early. */
static void test_band(void)
{
    struct random random;
    random_init_seed(&random, 11);
    for (int i = 0; i < 100000; i++) {
        struct backoff_schedule schedule = {.first_s = 1 + random_below(&random, 100000)};
        schedule.ceiling_s = schedule.first_s + random_below(&random, 1000000);
        schedule.expire_s = schedule.ceiling_s + random_below(&random, 10000000);
        schedule.jitter_percent = random_below(&random, 51);
        uint32_t attempts_count = 1 + random_below(&random, 40);
        uint32_t age_s = random_below(&random, schedule.expire_s);
        uint32_t most_s = backoff_delay_ambiguous_s(&schedule, attempts_count, age_s);
        uint32_t got_s = backoff_delay_s(&schedule, attempts_count, age_s, random_u32(&random));
        if (got_s == 0 || got_s > most_s || most_s > schedule.ceiling_s ||
            (uint64_t)got_s * 2 + 1 < most_s || age_s + most_s > schedule.expire_s) {
            CHECK_ROW((size_t)i, false);
        }
    }
}

/* Chance does what it is for: the delays of one cohort fill the whole band. */
static void test_spreads(void)
{
    struct backoff_schedule schedule = BACKOFF_SCHEDULE_DEFAULT;
    struct random random;
    random_init_seed(&random, 13);
    uint32_t counts[18] = {0};
    for (int i = 0; i < 18000; i++) {
        uint32_t got_s = backoff_delay_s(&schedule, 1, 0, random_u32(&random));
        counts[(15 * MINUTE - got_s) / 10]++;
    }
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        CHECK_ROW(i, counts[i] > 800);
        CHECK_ROW(i, counts[i] < 1200);
    }
}

static void test_ambiguous_is_never_shorter(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        uint32_t normal_s = backoff_delay_s(&BACKOFF_SCHEDULE_DEFAULT, ROWS[i].attempts_count,
                                            ROWS[i].age_s, ROWS[i].random);
        uint32_t ambiguous_s = backoff_delay_ambiguous_s(&BACKOFF_SCHEDULE_DEFAULT,
                                                         ROWS[i].attempts_count, ROWS[i].age_s);
        CHECK_ROW(i, ambiguous_s >= normal_s);
    }
}

static void test_broken_schedules_panic(void)
{
    struct backoff_schedule broken = BACKOFF_SCHEDULE_DEFAULT;
    broken.first_s = 0;
    CHECK_PANICS(backoff_delay_s(&broken, 1, 0, 0));
    broken = BACKOFF_SCHEDULE_DEFAULT;
    broken.ceiling_s = broken.first_s - 1;
    CHECK_PANICS(backoff_delay_s(&broken, 1, 0, 0));
    broken = BACKOFF_SCHEDULE_DEFAULT;
    broken.expire_s = broken.ceiling_s - 1;
    CHECK_PANICS(backoff_delay_s(&broken, 1, 0, 0));
    broken = BACKOFF_SCHEDULE_DEFAULT;
    broken.jitter_percent = 51;
    CHECK_PANICS(backoff_delay_s(&broken, 1, 0, 0));
    broken = BACKOFF_SCHEDULE_DEFAULT;
    CHECK_PANICS(backoff_delay_s(&broken, 0, 0, 0));
}

SUITE(backoff, test_rows, test_ends, test_band, test_spreads, test_ambiguous_is_never_shorter,
      test_broken_schedules_panic)
