/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes that wait for something of the worker's own. Each thing has a list of its own, so that what
 * comes back calls just those who wait for it, in their order, and a thing that is long gone holds
 * up nobody who waits for another.
 *
 * A lane is on one list at a time: on that of what its first recipient needs. What more it may need
 * it finds out when it gets on.
 */
#include "engine/worker_priv.h"

#include "engine/delivery.h"

enum {
    FEED_LANES = 256,
    WHOLE_BEGIN_MS = 60 * 1000,
    WHOLE_BYTES_MS = 64,     /* the pace that is asked of a server: 64,000 bytes a second ... */
    WHOLE_DOUBLINGS_MAX = 4, /* ... at the first attempt, half of it at the second, and so on */
};

void worker_starved_init(struct worker *worker)
{
    for (size_t want = 0; want < WORKER_WANTS_COUNT; want++) {
        list_init(&worker->lanes_starved[want]);
    }
}

void worker_give(struct worker *worker, struct slab *slab, void *slot)
{
    bool had_none = slab_left(slab) == 0;
    bool is_of_attempts = slab == &worker->attempts || slab == &worker->entries_free;
    had_none |= is_of_attempts && !worker_may_attempt(worker);
    slab_give(slab, slot);
    worker->has_room |= had_none;
}

void worker_starve(struct lane *lane, enum worker_want want)
{
    ensure((unsigned)want < WORKER_WANTS_COUNT);
    list_remove(&lane->dirty);
    lane->is_starved = true;
    lane->is_held_up = want == WANT_ATTEMPT || want >= WANT_PLAN;
    list_add_last(&lane->worker->lanes_starved[want], &lane->dirty);
}

/* How much there is of it. */
static uint32_t left_of(const struct worker *worker, size_t want)
{
    switch ((enum worker_want)want) {
    case WANT_SESSION:
        return slab_left(&worker->deliveries);
    case WANT_ATTEMPT:
        return worker_may_attempt(worker) ? slab_left(&worker->attempts) : 0;
    case WANT_LOAD:
        return slab_left(&worker->loads_free);
    case WANT_QUERY:
        return slab_left(&worker->queries);
    case WANT_PLAN:
        return slab_left(&worker->plans);
    case WANT_BUF:
        break;
    }
    return slab_left(&worker->bufs[want - WANT_BUF]);
}

/* Before the lane that gave it back, which would take it again. */
void worker_starved_feed(struct worker *worker)
{
    if (!worker->has_room) {
        return;
    }
    worker->has_room = false;
    struct list fed;
    struct list *node;
    list_init(&fed);
    for (size_t want = 0; want < WORKER_WANTS_COUNT; want++) {
        struct list *lanes = &worker->lanes_starved[want];
        uint32_t left = list_is_empty(lanes) ? 0 : left_of(worker, want);
        uint32_t count = left < FEED_LANES ? left : FEED_LANES;
        for (uint32_t i = 0; i < count && (node = list_take_first(lanes)) != NULL; i++) {
            CONTAINER_OF(node, struct lane, dirty)->is_starved = false;
            list_add_first(&fed, node);
        }
        /* There may be more of it than they take: the next ones are looked at in the next step. */
        worker->has_room |= left > 0 && !list_is_empty(lanes);
    }
    while ((node = list_take_first(&fed)) != NULL) {
        list_add_first(&worker->lanes_dirty, node);
    }
}

void worker_whole_hold(struct worker *worker, struct delivery *delivery, uint64_t size,
                       uint32_t attempts_count)
{
    uint32_t doublings =
        attempts_count < WHOLE_DOUBLINGS_MAX ? attempts_count : WHOLE_DOUBLINGS_MAX;
    int64_t ms = (WHOLE_BEGIN_MS + (int64_t)(size / WHOLE_BYTES_MS)) << doublings;
    struct slab *slab = &worker->bufs[COMPOSE_BUF_CLASSES - 1];
    uint32_t index = slab_index(slab, delivery->buf);
    ensure(index < WORKER_BUFS_WHOLE);
    worker->wholes[index] = (struct worker_whole){
        .delivery = delivery,
        .until = mono_add_ms(worker->now, ms),
    };
}

struct mono_time worker_starved_hurry(struct worker *worker, struct mono_time now)
{
    struct mono_time next = MONO_NEVER;
    if (list_is_empty(&worker->lanes_starved[WANT_BUF_WHOLE])) {
        return next;
    }
    for (size_t i = 0; i < WORKER_BUFS_WHOLE; i++) {
        struct worker_whole *whole = &worker->wholes[i];
        if (whole->delivery == NULL) {
            continue;
        }
        if (mono_before(now, whole->until)) {
            next = mono_earlier(next, whole->until);
            continue;
        }
        delivery_give_up(whole->delivery);
        whole->until = MONO_NEVER; /* asked once */
    }
    return next;
}
