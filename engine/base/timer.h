/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timer: the hierarchical timing wheel of one actor (Varghese and Lauck 1987, scheme 7): set, move
 * and cancel in constant time.
 *
 * Owner: one actor. Ticks of 1 ms counted from the clock's zero, four levels of 256 slots (49
 * days); a later expiry waits in the last slot and is put again. A timer is embedded in the object
 * it serves; its bound is that of the object's slab. Timers fire in timer_wheel_expire, at most
 * `budget` a call, through `on_fire`, with the timer already unlinked (it may be set again or its
 * object given back inside the callback). A timer never fires early, and at most one tick late plus
 * the time until the next call.
 */
#pragma once

#include "engine/base/clock.h"
#include "engine/base/list.h"

struct timer {
    struct list link;
    struct mono_time expires;
    void (*on_fire)(struct timer *timer, struct mono_time now);
};

enum { TIMER_LEVELS = 4, TIMER_SLOTS = 256 };

struct timer_wheel {
    int64_t tick; /* the last tick that was reached; its timers are in `due` or have fired */
    uint32_t count;
    struct list due; /* reached, and left over by the budget */
    struct list slots[TIMER_LEVELS][TIMER_SLOTS];
    uint64_t occupied[TIMER_LEVELS][TIMER_SLOTS / 64];
};

void timer_wheel_init(struct timer_wheel *wheel, struct mono_time now);
void timer_init(struct timer *timer, void (*on_fire)(struct timer *timer, struct mono_time now));
bool timer_is_set(const struct timer *timer);
/* Sets or moves. */
void timer_set(struct timer_wheel *wheel, struct timer *timer, struct mono_time expires);
/* Idempotent. */
void timer_cancel(struct timer_wheel *wheel, struct timer *timer);
/* Fires what is due; returns how many fired (== budget: call again). */
uint32_t timer_wheel_expire(struct timer_wheel *wheel, struct mono_time now, uint32_t budget);
/* Not later than the tick in which the earliest timer fires, its expiry rounded up to whole
 * milliseconds (may be earlier by a cascade); MONO_NEVER when nothing is set. */
struct mono_time timer_wheel_next(const struct timer_wheel *wheel);
/* Verifies links, slots, counts. */
void timer_wheel_check(const struct timer_wheel *wheel);
