/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/backoff.h"

#include "engine/base/ensure.h"

/* The doubling stops here whatever the ceiling: a shift by 32 or more would be undefined. */
enum { BACKOFF_DOUBLINGS_MAX = 20, BACKOFF_JITTER_PERCENT_MAX = 50 };

static void schedule_check(const struct backoff_schedule *schedule)
{
    ensure(schedule->first_s > 0);
    ensure(schedule->first_s <= schedule->ceiling_s);
    ensure(schedule->ceiling_s <= schedule->expire_s);
    ensure(schedule->jitter_percent <= BACKOFF_JITTER_PERCENT_MAX);
}

static uint32_t delay_doubled_s(const struct backoff_schedule *schedule, uint32_t attempts_count)
{
    uint32_t doublings = attempts_count - 1;
    if (doublings > BACKOFF_DOUBLINGS_MAX) {
        doublings = BACKOFF_DOUBLINGS_MAX;
    }
    uint64_t delay_s = (uint64_t)schedule->first_s << doublings;
    return delay_s < schedule->ceiling_s ? (uint32_t)delay_s : schedule->ceiling_s;
}

/* Chance only takes away: `ceiling_s` stays a promise. The multiplication is 64 bits wide so that
 * no modulo bias creeps in. */
static uint32_t delay_jittered_s(uint32_t delay_s, uint32_t jitter_percent, uint32_t random)
{
    uint64_t span_s = (uint64_t)delay_s * jitter_percent / 100;
    return delay_s - (uint32_t)((span_s * random) >> 32);
}

uint32_t backoff_delay_s(const struct backoff_schedule *schedule, uint32_t attempts_count,
                         uint32_t age_s, uint32_t random)
{
    schedule_check(schedule);
    ensure(attempts_count > 0);

    if (age_s >= schedule->expire_s) {
        return 0;
    }
    uint32_t left_s = schedule->expire_s - age_s;
    uint32_t delay_s = delay_jittered_s(delay_doubled_s(schedule, attempts_count),
                                        schedule->jitter_percent, random);
    ensure(delay_s > 0);
    return delay_s < left_s ? delay_s : left_s;
}

uint32_t backoff_delay_ambiguous_s(const struct backoff_schedule *schedule, uint32_t attempts_count,
                                   uint32_t age_s)
{
    return backoff_delay_s(schedule, attempts_count, age_s, 0);
}
