/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock: the clock seam. Monotonic time for deadlines, wall time for people and for what must
 * survive a restart.
 *
 * Production: clock_system() (the only caller of clock_gettime). Simulation: clock_manual_init and
 * clock_manual_advance on virtual time. Times are one-field structs so that two kinds cannot be
 * mixed by accident. A step of an actor gets `now` once and uses it throughout.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/ensure.h"

struct mono_time {
    int64_t ns; /* since an arbitrary start; MONO_NEVER is later than anything */
};

struct wall_time {
    int64_t ns; /* since 1970-01-01T00:00:00Z */
};

#define NS_PER_US INT64_C(1000)
#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)
#define MONO_NEVER ((struct mono_time){.ns = INT64_MAX})

struct clock {
    struct mono_time (*mono)(const struct clock *clock);
    struct wall_time (*wall)(const struct clock *clock);
};

/* A clock that stands still until it is set. */
struct clock_manual {
    struct clock clock; /* first: a pointer to this is a pointer to the whole */
    struct mono_time mono;
    struct wall_time wall;
};

const struct clock *clock_system(void);
void clock_manual_init(struct clock_manual *manual, struct mono_time mono, struct wall_time wall);
/* Moves both times forward by `ns` >= 0. */
void clock_manual_advance(struct clock_manual *manual, int64_t ns);

static inline struct mono_time clock_mono(const struct clock *clock)
{
    return clock->mono(clock);
}

static inline struct wall_time clock_wall(const struct clock *clock)
{
    return clock->wall(clock);
}

/* Saturates at MONO_NEVER, which stays what it is. */
static inline struct mono_time mono_add_ns(struct mono_time at, int64_t ns)
{
    struct mono_time sum;
    return at.ns == INT64_MAX || __builtin_add_overflow(at.ns, ns, &sum.ns) ? MONO_NEVER : sum;
}

static inline struct mono_time mono_add_ms(struct mono_time at, int64_t ms)
{
    int64_t ns;
    return __builtin_mul_overflow(ms, NS_PER_MS, &ns) ? MONO_NEVER : mono_add_ns(at, ns);
}

static inline bool mono_before(struct mono_time a, struct mono_time b)
{
    return a.ns < b.ns;
}

static inline struct mono_time mono_earlier(struct mono_time a, struct mono_time b)
{
    return a.ns < b.ns ? a : b;
}

/* The engine counts due times in 32 bits of seconds since 1970; the month in front of their end (in
 * 2106) is left free, so that a delay can be added to any of them. */
enum { WALL_SECONDS_ROOM = 31 * 86400 };
#define WALL_SECONDS_MAX (UINT32_MAX - (uint32_t)WALL_SECONDS_ROOM)

/* Whole seconds since 1970, 0 .. WALL_SECONDS_MAX: a clock that is wrong by an age is no bug. */
static inline uint32_t wall_seconds(struct wall_time at)
{
    if (at.ns < 0) {
        return 0;
    }
    int64_t seconds = at.ns / NS_PER_S;
    return seconds < (int64_t)WALL_SECONDS_MAX ? (uint32_t)seconds : WALL_SECONDS_MAX;
}
