/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/timer.h"

#include "engine/base/random.h"
#include "tests/harness.h"

enum { MODEL_TIMERS = 100 };

/* A timer with what the model knows of it: the tick in which it must fire. */
struct model_timer {
    struct timer timer;
    bool is_set;
    int64_t tick;
    uint32_t fired_count;
    struct timer_wheel *wheel;
    int64_t again_ns; /* > 0: sets itself again that much later */
};

static void on_fire(struct timer *timer, struct mono_time now)
{
    struct model_timer *self = CONTAINER_OF(timer, struct model_timer, timer);
    ensure(!timer_is_set(timer));
    self->is_set = false;
    self->fired_count++;
    if (self->again_ns > 0) {
        timer_set(self->wheel, timer, mono_add_ns(now, self->again_ns));
    }
}

static struct mono_time at_ms(int64_t ms)
{
    return (struct mono_time){.ns = ms * NS_PER_MS};
}

static void model_timer_init(struct model_timer *self, struct timer_wheel *wheel)
{
    *self = (struct model_timer){.wheel = wheel};
    timer_init(&self->timer, on_fire);
}

static void test_fires_once(void)
{
    struct timer_wheel wheel;
    struct model_timer self;
    timer_wheel_init(&wheel, at_ms(1000));
    model_timer_init(&self, &wheel);
    CU_ASSERT(!timer_is_set(&self.timer));
    CU_ASSERT_EQUAL(timer_wheel_next(&wheel).ns, INT64_MAX);
    timer_set(&wheel, &self.timer, at_ms(1005));
    CU_ASSERT(timer_is_set(&self.timer));
    CU_ASSERT_EQUAL(timer_wheel_next(&wheel).ns, at_ms(1005).ns);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(1004), 10), 0);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(1005), 10), 1);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(9999), 10), 0);
    CU_ASSERT_EQUAL(self.fired_count, 1);
    CU_ASSERT(!timer_is_set(&self.timer));
}

/* An expiry between two ticks waits for the later one. */
static void test_never_early(void)
{
    struct timer_wheel wheel;
    struct model_timer self;
    timer_wheel_init(&wheel, at_ms(0));
    model_timer_init(&self, &wheel);
    timer_set(&wheel, &self.timer, (struct mono_time){.ns = 5 * NS_PER_MS + 1});
    struct mono_time late = {.ns = 6 * NS_PER_MS - 1};
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, late, 10), 0);
    CU_ASSERT_EQUAL(timer_wheel_next(&wheel).ns, at_ms(6).ns);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(6), 10), 1);
}

/* What is due when it is set fires in the next tick: one that always does so cannot hold the step.
 */
static void test_due_when_set(void)
{
    struct timer_wheel wheel;
    struct model_timer self;
    timer_wheel_init(&wheel, at_ms(50));
    model_timer_init(&self, &wheel);
    self.again_ns = 1;
    timer_set(&wheel, &self.timer, at_ms(3));
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(50), 1000), 0);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(51), 1000), 1);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(51), 1000), 0);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(52), 1000), 1);
    timer_cancel(&wheel, &self.timer);
    timer_wheel_check(&wheel);
}

static void test_cancel_and_move(void)
{
    struct timer_wheel wheel;
    struct model_timer a;
    struct model_timer b;
    timer_wheel_init(&wheel, at_ms(0));
    model_timer_init(&a, &wheel);
    model_timer_init(&b, &wheel);
    timer_cancel(&wheel, &a.timer);
    timer_set(&wheel, &a.timer, at_ms(10));
    timer_set(&wheel, &b.timer, at_ms(10));
    timer_cancel(&wheel, &a.timer);
    timer_cancel(&wheel, &a.timer);
    timer_wheel_check(&wheel);
    CU_ASSERT_EQUAL(timer_wheel_next(&wheel).ns, at_ms(10).ns);
    timer_set(&wheel, &b.timer, at_ms(70000));
    timer_wheel_check(&wheel);
    CU_ASSERT_EQUAL(wheel.count, 1);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(69999), 10), 0);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(70000), 10), 1);
    CU_ASSERT_EQUAL(a.fired_count, 0);
    CU_ASSERT_EQUAL(b.fired_count, 1);
    CU_ASSERT_EQUAL(timer_wheel_next(&wheel).ns, INT64_MAX);
}

/* The budget cuts a slot in two; what is left fires first in the next call, or can be cancelled. */
static void test_budget(void)
{
    struct timer_wheel wheel;
    struct model_timer timers[10];
    timer_wheel_init(&wheel, at_ms(0));
    for (size_t i = 0; i < COUNT_OF(timers); i++) {
        model_timer_init(&timers[i], &wheel);
        timer_set(&wheel, &timers[i].timer, at_ms(7));
    }
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(20), 4), 4);
    timer_wheel_check(&wheel);
    CU_ASSERT(timer_wheel_next(&wheel).ns <= at_ms(20).ns);
    timer_cancel(&wheel, &timers[9].timer);
    timer_set(&wheel, &timers[8].timer, at_ms(30));
    timer_wheel_check(&wheel);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(20), 4), 4);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(20), 4), 0);
    CU_ASSERT_EQUAL(timer_wheel_expire(&wheel, at_ms(30), 4), 1);
    CU_ASSERT_EQUAL(timers[9].fired_count, 0);
    CU_ASSERT_EQUAL(wheel.count, 0);
    CHECK_PANICS(timer_wheel_expire(&wheel, at_ms(30), 0));
}

/* Beyond the last level a timer waits in the last slot and is put again; never is never. */
static void test_beyond_the_wheel(void)
{
    struct timer_wheel wheel;
    struct model_timer far;
    struct model_timer never;
    int64_t start_ms = 123456789;
    int64_t year_ms = INT64_C(365) * 86400 * 1000;
    timer_wheel_init(&wheel, at_ms(start_ms));
    model_timer_init(&far, &wheel);
    model_timer_init(&never, &wheel);
    timer_set(&wheel, &far.timer, at_ms(start_ms + year_ms));
    timer_set(&wheel, &never.timer, MONO_NEVER);
    int64_t now_ms = start_ms;
    while (far.fired_count == 0) {
        struct mono_time next = timer_wheel_next(&wheel);
        CU_ASSERT_FATAL(next.ns > at_ms(now_ms).ns);
        CU_ASSERT_FATAL(next.ns <= at_ms(start_ms + year_ms).ns);
        now_ms = next.ns / NS_PER_MS;
        (void)timer_wheel_expire(&wheel, next, 10);
        timer_wheel_check(&wheel);
    }
    CU_ASSERT_EQUAL(now_ms, start_ms + year_ms);
    (void)timer_wheel_expire(&wheel, at_ms(start_ms + 200 * year_ms), 10);
    timer_wheel_check(&wheel);
    CU_ASSERT_EQUAL(never.fired_count, 0);
    CU_ASSERT(timer_is_set(&never.timer));
}

/* From every position of the wheel's hand, near the edges of every level. */
static void test_edges(void)
{
    static const int64_t aheads[] = {
        1,     2,        254,      255,      256,        257,        65534,      65535,     65536,
        65537, 16777215, 16777216, 16777217, 4294967294, 4294967295, 4294967296, 4294967297};
    static const int64_t starts[] = {0,     1,        255,        256,       65535,
                                     65536, 16777215, 4294967295, 4294967296};
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        for (size_t k = 0; k < COUNT_OF(aheads); k++) {
            struct timer_wheel wheel;
            struct model_timer self;
            timer_wheel_init(&wheel, at_ms(starts[i]));
            model_timer_init(&self, &wheel);
            timer_set(&wheel, &self.timer, at_ms(starts[i] + aheads[k]));
            timer_wheel_check(&wheel);
            CHECK_ROW(k, timer_wheel_next(&wheel).ns <= at_ms(starts[i] + aheads[k]).ns);
            CHECK_ROW(k, timer_wheel_expire(&wheel, at_ms(starts[i] + aheads[k] - 1), 9) == 0);
            timer_wheel_check(&wheel);
            CHECK_ROW(k, timer_wheel_expire(&wheel, at_ms(starts[i] + aheads[k]), 9) == 1);
            CHECK_ROW(k, wheel.count == 0);
        }
    }
}

/* Mostly short steps, some long ones: every power of two is as likely as another. */
static int64_t random_span_ns(struct random *random)
{
    uint32_t bits = random_below(random, 53);
    return (int64_t)(random_u64(random) & ((UINT64_C(1) << bits) - 1));
}

static void model_set(struct timer_wheel *wheel, struct model_timer *self, int64_t now_tick,
                      struct mono_time expires)
{
    int64_t tick = expires.ns / NS_PER_MS + (expires.ns % NS_PER_MS > 0);
    timer_set(wheel, &self->timer, expires);
    self->is_set = true;
    self->tick = tick > now_tick ? tick : now_tick + 1;
}

/* All that the model has due has fired, nothing else has, and `next` is not behind the earliest. */
static void model_compare(const struct timer_wheel *wheel, const struct model_timer *timers,
                          int64_t now_tick)
{
    uint32_t set_count = 0;
    int64_t earliest = INT64_MAX / NS_PER_MS;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        CU_ASSERT_FATAL(timer_is_set(&timers[i].timer) == timers[i].is_set);
        if (timers[i].is_set) {
            CU_ASSERT_FATAL(timers[i].tick > now_tick);
            set_count++;
            earliest = timers[i].tick < earliest ? timers[i].tick : earliest;
        }
    }
    CU_ASSERT_FATAL(wheel->count == set_count);
    CU_ASSERT_FATAL(set_count == 0 || timer_wheel_next(wheel).ns <= at_ms(earliest).ns);
    timer_wheel_check(wheel);
}

static void model_expire(struct timer_wheel *wheel, struct model_timer *timers,
                         struct random *random, struct mono_time now)
{
    uint32_t due_count = 0;
    uint32_t fired_before = 0;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        due_count += timers[i].is_set && timers[i].tick <= now.ns / NS_PER_MS;
        fired_before += timers[i].fired_count;
    }
    uint32_t budget = 1 + random_below(random, 20);
    uint32_t fired = 0;
    uint32_t fired_now;
    do {
        fired_now = timer_wheel_expire(wheel, now, budget);
        CU_ASSERT_FATAL(fired_now <= budget);
        fired += fired_now;
    } while (fired_now == budget);
    CU_ASSERT_FATAL(fired == due_count);
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        fired_before -= timers[i].fired_count;
    }
    CU_ASSERT_FATAL(fired_before + fired == 0);
}

static void test_model(void)
{
    static struct model_timer timers[MODEL_TIMERS];
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct random random;
        struct timer_wheel wheel;
        random_init_seed(&random, seed);
        struct mono_time now = {.ns = random_span_ns(&random)};
        timer_wheel_init(&wheel, now);
        for (size_t i = 0; i < MODEL_TIMERS; i++) {
            model_timer_init(&timers[i], &wheel);
        }
        for (size_t step = 0; step < 2000; step++) {
            struct model_timer *self = &timers[random_below(&random, MODEL_TIMERS)];
            uint32_t dice = random_below(&random, 10);
            if (dice < 6) {
                struct mono_time expires = {.ns = now.ns + random_span_ns(&random)};
                model_set(&wheel, self, now.ns / NS_PER_MS, expires);
            } else if (dice < 8) {
                timer_cancel(&wheel, &self->timer);
                self->is_set = false;
            } else {
                now.ns += random_span_ns(&random) / 8;
                model_expire(&wheel, timers, &random, now);
            }
            model_compare(&wheel, timers, now.ns / NS_PER_MS);
        }
    }
}

/* Sleeping by `next` alone, as boot does: each wake-up is worth it, few are cascades. */
static void test_sleep_by_next(void)
{
    struct timer_wheel wheel;
    struct model_timer timers[50];
    struct random random;
    random_init_seed(&random, 9);
    timer_wheel_init(&wheel, at_ms(77));
    int64_t last_ms = 0;
    for (size_t i = 0; i < COUNT_OF(timers); i++) {
        int64_t ms = 78 + random_below(&random, 10000000);
        last_ms = ms > last_ms ? ms : last_ms;
        model_timer_init(&timers[i], &wheel);
        timer_set(&wheel, &timers[i].timer, at_ms(ms));
    }
    uint32_t wakes_count = 0;
    struct mono_time now = at_ms(77);
    while (wheel.count > 0) {
        struct mono_time next = timer_wheel_next(&wheel);
        CU_ASSERT_FATAL(mono_before(now, next));
        now = next;
        (void)timer_wheel_expire(&wheel, now, UINT32_MAX);
        wakes_count++;
    }
    CU_ASSERT_EQUAL(now.ns, at_ms(last_ms).ns);
    CU_ASSERT(wakes_count <= 4 * COUNT_OF(timers));
}

static void test_misuse_panics(void)
{
    struct timer_wheel wheel;
    struct timer timer;
    CHECK_PANICS(timer_init(&timer, NULL));
    timer_wheel_init(&wheel, at_ms(0));
    CHECK_PANICS(timer_wheel_expire(&wheel, (struct mono_time){.ns = -1}, 1));
    timer_init(&timer, on_fire);
    timer_set(&wheel, &timer, at_ms(5));
    wheel.count = 7;
    CHECK_PANICS(timer_wheel_check(&wheel));
    wheel.count = 1;
    wheel.occupied[0][0] = 0;
    CHECK_PANICS(timer_wheel_check(&wheel));
}

SUITE(timer, test_fires_once, test_never_early, test_due_when_set, test_cancel_and_move,
      test_budget, test_beyond_the_wheel, test_edges, test_model, test_sleep_by_next,
      test_misuse_panics)
