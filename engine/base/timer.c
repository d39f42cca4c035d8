/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/timer.h"

#include <assert.h>

#include "engine/base/ensure.h"

/*
 * A timer of tick T lies on the lowest level L with T - tick < 256^(L+1), in slot (T >> 8L) & 255.
 * The wheel visits a slot of level L when `tick` reaches a multiple of 256^L: level 0 becomes due,
 * higher levels are put again, nearer. The bit maps find the next visit, so a long sleep costs no
 * more than the visits that lie in it. What follows from that, and is checked by timer_wheel_check:
 *   W1  every timer in a slot has a tick later than the wheel's
 *   W2  a slot is visited no later than the tick of any timer in it
 *   W3  a slot's bit is set exactly when its list is not empty
 */
enum { SLOT_BITS = 8, SLOT_MASK = TIMER_SLOTS - 1, WORD_BITS = 64 };
#define TICKS_AHEAD_MAX ((INT64_C(1) << (SLOT_BITS * TIMER_LEVELS)) - 1)

static_assert(1 << SLOT_BITS == TIMER_SLOTS, "slots are picked by bits");
static_assert(TIMER_SLOTS % WORD_BITS == 0, "whole words of bits");

/* Rounded up, so that no timer fires early. */
static int64_t tick_of_expiry(struct mono_time expires)
{
    return expires.ns / NS_PER_MS + (expires.ns % NS_PER_MS > 0);
}

static int64_t tick_of_now(struct mono_time now)
{
    ensure(now.ns >= 0);
    return now.ns / NS_PER_MS;
}

void timer_wheel_init(struct timer_wheel *wheel, struct mono_time now)
{
    *wheel = (struct timer_wheel){.tick = tick_of_now(now)};
    list_init(&wheel->due);
    for (size_t level = 0; level < TIMER_LEVELS; level++) {
        for (size_t slot = 0; slot < TIMER_SLOTS; slot++) {
            list_init(&wheel->slots[level][slot]);
        }
    }
}

void timer_init(struct timer *timer, void (*on_fire)(struct timer *timer, struct mono_time now))
{
    ensure(on_fire != NULL);
    list_init(&timer->link);
    timer->expires = MONO_NEVER;
    timer->on_fire = on_fire;
}

bool timer_is_set(const struct timer *timer)
{
    return list_is_linked(&timer->link);
}

/* Puts an unlinked timer whose tick has not been reached into its slot. */
static void wheel_put(struct timer_wheel *wheel, struct timer *timer, int64_t tick)
{
    ensure(tick > wheel->tick);
    int64_t ahead = tick - wheel->tick;
    if (ahead > TICKS_AHEAD_MAX) {
        ahead = TICKS_AHEAD_MAX;
        tick = wheel->tick + ahead;
    }
    unsigned level = (unsigned)(WORD_BITS - 1 - __builtin_clzll((uint64_t)ahead)) / SLOT_BITS;
    ensure(level < TIMER_LEVELS);
    size_t slot = (size_t)(tick >> (SLOT_BITS * level)) & SLOT_MASK;
    list_add_last(&wheel->slots[level][slot], &timer->link);
    wheel->occupied[level][slot / WORD_BITS] |= UINT64_C(1) << slot % WORD_BITS;
}

void timer_set(struct timer_wheel *wheel, struct timer *timer, struct mono_time expires)
{
    ensure(timer->on_fire != NULL);
    timer_cancel(wheel, timer);
    timer->expires = expires;
    int64_t tick = tick_of_expiry(expires);
    wheel_put(wheel, timer, tick > wheel->tick ? tick : wheel->tick + 1);
    wheel->count++;
}

/* A timer does not know its slot. But the last one in a slot has only the slot's head as neighbour,
 * and the head's address tells whose bit to clear. */
void timer_cancel(struct timer_wheel *wheel, struct timer *timer)
{
    if (!timer_is_set(timer)) {
        return;
    }
    struct list *head = timer->link.next;
    bool was_alone = head == timer->link.prev;
    list_remove(&timer->link);
    ensure(wheel->count > 0);
    wheel->count--;
    struct list *first = &wheel->slots[0][0];
    if (was_alone && head >= first && head < first + TIMER_LEVELS * TIMER_SLOTS) {
        size_t index = (size_t)(head - first);
        wheel->occupied[index / TIMER_SLOTS][index % TIMER_SLOTS / WORD_BITS] &=
            ~(UINT64_C(1) << index % WORD_BITS);
    }
}

/* Steps from slot `current` on to the next occupied one, 1..256; 0 when the level is empty. */
static unsigned level_next_steps(const uint64_t *occupied, unsigned current)
{
    ensure(current < TIMER_SLOTS);
    unsigned start = (current + 1) & SLOT_MASK;
    /* The word of `start` comes twice: at first its upper part, at last its lower one. */
    for (unsigned i = 0; i <= TIMER_SLOTS / WORD_BITS; i++) {
        unsigned index = (start / WORD_BITS + i) % (TIMER_SLOTS / WORD_BITS);
        uint64_t word = occupied[index];
        if (i == 0) {
            word &= UINT64_MAX << start % WORD_BITS;
        }
        if (word != 0) {
            unsigned slot = index * WORD_BITS + (unsigned)__builtin_ctzll(word);
            return ((slot - start) & SLOT_MASK) + 1;
        }
    }
    return 0;
}

/* The next tick at which a slot has to be visited, INT64_MAX when all are empty. */
static int64_t wheel_next_visit(const struct timer_wheel *wheel)
{
    int64_t next = INT64_MAX;
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        unsigned shift = SLOT_BITS * level;
        int64_t position = wheel->tick >> shift;
        unsigned steps = level_next_steps(wheel->occupied[level], (unsigned)position & SLOT_MASK);
        if (steps > 0 && (position + steps) << shift < next) {
            next = (position + steps) << shift;
        }
    }
    return next;
}

/* Empties the slot of a level that `tick` stands on: what is due goes to `due`, the rest nearer. It
 * ends because nothing comes back into the slot: `tick` is a multiple of the level's unit, so what
 * is put again goes to a lower level or, beyond the last one, into the slot before this. */
static void wheel_visit(struct timer_wheel *wheel, unsigned level)
{
    size_t slot = (size_t)(wheel->tick >> (SLOT_BITS * level)) & SLOT_MASK;
    struct list *head = &wheel->slots[level][slot];
    ensure((wheel->tick & ((INT64_C(1) << (SLOT_BITS * level)) - 1)) == 0);
    wheel->occupied[level][slot / WORD_BITS] &= ~(UINT64_C(1) << slot % WORD_BITS);
    while (!list_is_empty(head)) {
        struct list *node = list_take_first(head);
        struct timer *timer = CONTAINER_OF(node, struct timer, link);
        int64_t tick = tick_of_expiry(timer->expires);
        if (tick <= wheel->tick) {
            list_add_last(&wheel->due, node);
        } else {
            wheel_put(wheel, timer, tick);
        }
    }
}

/* Moves on to the next visit up to `tick_now`; false when there is none. */
static bool wheel_advance(struct timer_wheel *wheel, int64_t tick_now)
{
    int64_t next = wheel_next_visit(wheel);
    if (next > tick_now) {
        if (tick_now > wheel->tick) {
            wheel->tick = tick_now;
        }
        return false;
    }
    ensure(next > wheel->tick);
    wheel->tick = next;
    for (unsigned level = TIMER_LEVELS; level-- > 0;) {
        if ((next & ((INT64_C(1) << (SLOT_BITS * level)) - 1)) == 0) {
            wheel_visit(wheel, level);
        }
    }
    return true;
}

uint32_t timer_wheel_expire(struct timer_wheel *wheel, struct mono_time now, uint32_t budget)
{
    ensure(budget > 0);
    int64_t tick_now = tick_of_now(now);
    uint32_t fired = 0;
    while (fired < budget) {
        struct list *node = list_take_first(&wheel->due);
        if (node == NULL) {
            if (!wheel_advance(wheel, tick_now)) {
                break;
            }
            continue;
        }
        struct timer *timer = CONTAINER_OF(node, struct timer, link);
        ensure(wheel->count > 0);
        wheel->count--;
        fired++;
        timer->on_fire(timer, now);
    }
    return fired;
}

struct mono_time timer_wheel_next(const struct timer_wheel *wheel)
{
    int64_t tick = list_is_empty(&wheel->due) ? wheel_next_visit(wheel) : wheel->tick;
    return tick > INT64_MAX / NS_PER_MS ? MONO_NEVER : (struct mono_time){.ns = tick * NS_PER_MS};
}

/* Verifies one slot's list against W1 and W2; returns its length. */
static uint32_t slot_check(const struct timer_wheel *wheel, unsigned level, unsigned slot)
{
    unsigned shift = SLOT_BITS * level;
    int64_t position = wheel->tick >> shift;
    int64_t steps = (int64_t)((slot - (uint64_t)position - 1) & SLOT_MASK) + 1;
    int64_t visit = (position + steps) << shift;
    const struct list *head = &wheel->slots[level][slot];
    uint32_t count = 0;
    for (const struct list *node = head->next; node != head; node = node->next) {
        const struct timer *timer = CONTAINER_OF(node, struct timer, link);
        int64_t tick = tick_of_expiry(timer->expires);
        ensure(node->next->prev == node);
        ensure(timer->on_fire != NULL);
        ensure(visit > wheel->tick);
        /* A timer that was late when it was set lies in the slot of the tick after. */
        ensure(visit <= tick || level == 0);
        count++;
    }
    return count;
}

void timer_wheel_check(const struct timer_wheel *wheel)
{
    uint32_t count = 0;
    for (unsigned level = 0; level < TIMER_LEVELS; level++) {
        for (unsigned slot = 0; slot < TIMER_SLOTS; slot++) {
            uint32_t length = slot_check(wheel, level, slot);
            uint64_t bit = wheel->occupied[level][slot / WORD_BITS] >> slot % WORD_BITS & 1;
            ensure(bit == (length > 0));
            count += length;
        }
    }
    for (const struct list *node = wheel->due.next; node != &wheel->due; node = node->next) {
        ensure(node->next->prev == node);
        count++;
    }
    ensure(count == wheel->count);
}
