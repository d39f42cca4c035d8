/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/clock.h"

#include <time.h>

static int64_t system_ns(clockid_t id)
{
    struct timespec at;
    ensure(clock_gettime(id, &at) == 0);
    return (int64_t)at.tv_sec * NS_PER_S + at.tv_nsec;
}

static struct mono_time system_mono(const struct clock *clock)
{
    (void)clock;
    return (struct mono_time){.ns = system_ns(CLOCK_MONOTONIC)};
}

static struct wall_time system_wall(const struct clock *clock)
{
    (void)clock;
    return (struct wall_time){.ns = system_ns(CLOCK_REALTIME)};
}

const struct clock *clock_system(void)
{
    static const struct clock system = {.mono = system_mono, .wall = system_wall};
    return &system;
}

static struct mono_time manual_mono(const struct clock *clock)
{
    return ((const struct clock_manual *)(const void *)clock)->mono;
}

static struct wall_time manual_wall(const struct clock *clock)
{
    return ((const struct clock_manual *)(const void *)clock)->wall;
}

void clock_manual_init(struct clock_manual *manual, struct mono_time mono, struct wall_time wall)
{
    ensure(mono.ns >= 0);
    ensure(mono.ns < MONO_NEVER.ns);
    *manual = (struct clock_manual){
        .clock = {.mono = manual_mono, .wall = manual_wall}, .mono = mono, .wall = wall};
}

void clock_manual_advance(struct clock_manual *manual, int64_t ns)
{
    ensure(ns >= 0);
    ensure(!__builtin_add_overflow(manual->mono.ns, ns, &manual->mono.ns));
    ensure(!__builtin_add_overflow(manual->wall.ns, ns, &manual->wall.ns));
}
