/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/ready.h"

#include <errno.h>
#include <stdlib.h>

#include "queue/manifest.h"

/*
 * A queue exists while it has recipients, and is then in exactly one list: that of its priority's
 * level, `paused`, or `cancelled`.
 *
 * The hash has chains, and few heads: they are touched all over as soon as they are used. Nothing
 * here can be chosen by strangers, so a multiplication mixes well enough.
 */
enum { READY_QUEUES_MAX = 1 << 30, READY_HEADS_MAX = 1 << 20 };

static const uint64_t HASH_MULTIPLIER = UINT64_C(0x9e3779b97f4a7c15);

int ready_pool_init(struct ready_pool *pool, uint32_t queues_max)
{
    ensure(queues_max >= 1);
    ensure(queues_max <= READY_QUEUES_MAX);

    uint32_t heads_count = 2;
    while (heads_count < 2 * queues_max && heads_count < READY_HEADS_MAX) {
        heads_count *= 2;
    }
    *pool = (struct ready_pool){.heads_mask = heads_count - 1};
    pool->heads = calloc(heads_count, sizeof(uint32_t));
    if (pool->heads == NULL) {
        return -ENOMEM;
    }
    int error = slab_init(&pool->queues, "ready_queues", sizeof(struct ready_queue), queues_max);
    if (error != 0) {
        free(pool->heads);
        *pool = (struct ready_pool){0};
    }
    return error;
}

void ready_pool_deinit(struct ready_pool *pool)
{
    slab_deinit(&pool->queues);
    free(pool->heads);
    *pool = (struct ready_pool){0};
}

void ready_pool_abandon(struct ready_pool *pool)
{
    slab_abandon(&pool->queues);
    free(pool->heads);
    *pool = (struct ready_pool){0};
}

void ready_init(struct ready *ready, struct ready_pool *pool)
{
    *ready = (struct ready){.pool = pool};
    for (size_t i = 0; i < READY_PRIORITIES; i++) {
        list_init(&ready->levels[i].queues);
    }
    list_init(&ready->cancelled);
    list_init(&ready->paused);
}

void ready_deinit(struct ready *ready)
{
    ensure(ready->count == 0);
    *ready = (struct ready){0};
}

/* The head of the chain that a queue of the batch in this lane is in. */
static uint32_t *queue_head(const struct ready *ready, uint32_t batch_index)
{
    uint64_t key = (uint64_t)(uintptr_t)ready ^ ((uint64_t)batch_index << 32) ^ batch_index;
    key *= HASH_MULTIPLIER;
    key ^= key >> 29;
    uint32_t hash = (uint32_t)((key * HASH_MULTIPLIER) >> 32);
    return &ready->pool->heads[hash & ready->pool->heads_mask];
}

/* The queue of the batch in this lane, or NULL. */
static struct ready_queue *queue_find(const struct ready *ready, uint32_t batch_index)
{
    uint32_t place = *queue_head(ready, batch_index);
    while (place != 0) {
        struct ready_queue *queue = slab_at(&ready->pool->queues, place - 1);
        if (queue->ready == ready && queue->batch_index == batch_index) {
            return queue;
        }
        place = queue->chain_next;
    }
    return NULL;
}

static void chain_add(const struct ready *ready, struct ready_queue *queue)
{
    uint32_t *head = queue_head(ready, queue->batch_index);
    queue->chain_next = *head;
    *head = slab_index(&ready->pool->queues, queue) + 1;
}

static void chain_remove(const struct ready *ready, const struct ready_queue *queue)
{
    uint32_t own = slab_index(&ready->pool->queues, queue) + 1;
    uint32_t *place = queue_head(ready, queue->batch_index);
    while (*place != own) {
        ensure(*place != 0);
        struct ready_queue *before = slab_at(&ready->pool->queues, *place - 1);
        place = &before->chain_next;
    }
    *place = queue->chain_next;
}

static void level_add(struct ready *ready, struct ready_queue *queue)
{
    struct ready_level *level = &ready->levels[queue->priority];
    if (list_is_empty(&level->queues)) {
        level->waits_since = ready->turn;
    }
    list_add_last(&level->queues, &queue->link);
}

static uint8_t batch_priority(const struct batch *batch)
{
    if (batch->manifest == NULL) {
        return READY_PRIORITY_USUAL;
    }
    ensure(batch->manifest->priority < READY_PRIORITIES);
    return batch->manifest->priority;
}

static uint32_t queue_orders(const struct ready_queue *queue)
{
    return (uint32_t)stat_read_xcore(&queue->batch->orders);
}

/* Into the list where a queue waits that is not set aside. */
static void queue_enlist(struct ready *ready, struct ready_queue *queue)
{
    if ((queue_orders(queue) & BATCH_CANCELLED) != 0) {
        list_add_last(&ready->cancelled, &queue->link);
    } else {
        level_add(ready, queue);
    }
}

/* The queue for one more recipient of the batch. */
static struct ready_queue *queue_for(struct ready *ready, const struct batch *batch)
{
    struct ready_queue *queue = queue_find(ready, batch->index);
    if (queue != NULL) {
        ensure(queue->batch == batch);
        return queue;
    }
    queue = slab_take(&ready->pool->queues);
    ensure(queue != NULL); /* there is one for each recipient */
    *queue = (struct ready_queue){.ready = ready,
                                  .batch = batch,
                                  .batch_index = batch->index,
                                  .priority = batch_priority(batch)};
    chain_add(ready, queue);
    queue_enlist(ready, queue);
    return queue;
}

static struct recipient *recipient_next(const struct recipient *recipient)
{
    return (struct recipient *)(void *)recipient->node.link.next;
}

static void recipient_link(struct recipient *recipient, struct recipient *next)
{
    recipient->node.link.next = next == NULL ? NULL : &next->node.link;
}

void ready_push(struct ready *ready, struct recipient *recipient, const struct batch *batch)
{
    ensure(recipient->batch == batch->index);
    struct ready_queue *queue = queue_for(ready, batch);
    recipient_link(recipient, NULL);
    if (queue->first == NULL) {
        queue->first = recipient;
    } else {
        recipient_link(queue->last, recipient);
    }
    queue->last = recipient;
    queue->count++;
    ready->count++;
}

void ready_push_front(struct ready *ready, struct recipient *recipient, const struct batch *batch)
{
    ensure(recipient->batch == batch->index);
    struct ready_queue *queue = queue_for(ready, batch);
    recipient_link(recipient, queue->first);
    if (queue->first == NULL) {
        queue->last = recipient;
    }
    queue->first = recipient;
    queue->count++;
    ready->count++;
}

/* Its last recipient is gone; it is in no list. */
static void queue_end(struct ready *ready, struct ready_queue *queue)
{
    ensure(queue->count == 0);
    chain_remove(ready, queue);
    slab_give(&ready->pool->queues, queue);
}

/* While its outcomes cannot be written nothing of a batch goes, not even to be cancelled. */
static bool queue_may_go(const struct ready_queue *queue)
{
    uint32_t orders = queue_orders(queue);
    bool is_held = stat_read_xcore(&queue->batch->results_held) != 0;
    return !is_held && ((orders & BATCH_CANCELLED) != 0 || (orders & BATCH_PAUSED) == 0);
}

/* Priority with what waiting has added. */
static uint64_t level_rank(const struct ready *ready, size_t priority)
{
    const struct ready_level *level = &ready->levels[priority];
    ensure(level->waits_since <= ready->turn);
    return priority + (ready->turn - level->waits_since) / READY_AGEING_TURNS;
}

/* The level whose turn it is; of equals the one that waits longest, then the higher one. NULL: all
 * are empty. */
static struct ready_level *level_next(struct ready *ready)
{
    struct ready_level *best = NULL;
    uint64_t best_rank = 0;
    for (size_t i = READY_PRIORITIES; i-- > 0;) {
        struct ready_level *level = &ready->levels[i];
        if (list_is_empty(&level->queues)) {
            continue;
        }
        uint64_t rank = level_rank(ready, i);
        if (best == NULL || rank > best_rank ||
            (rank == best_rank && level->waits_since < best->waits_since)) {
            best = level;
            best_rank = rank;
        }
    }
    return best;
}

static void queue_set_aside(struct ready *ready, struct ready_queue *queue)
{
    list_remove(&queue->link);
    list_add_last(&ready->paused, &queue->link);
    queue->is_paused = true;
}

/* The queue whose turn it is, unlinked; paused ones on the way are set aside, each once until the
 * next resume. */
static struct ready_queue *queue_next(struct ready *ready)
{
    struct list *link;
    while ((link = list_take_first(&ready->cancelled)) != NULL) {
        struct ready_queue *queue = CONTAINER_OF(link, struct ready_queue, link);
        if (queue_may_go(queue)) {
            return queue;
        }
        queue_set_aside(ready, queue);
    }
    struct ready_level *level;
    while ((level = level_next(ready)) != NULL) {
        struct ready_queue *queue = CONTAINER_OF(level->queues.next, struct ready_queue, link);
        if (!queue_may_go(queue)) {
            queue_set_aside(ready, queue);
            continue;
        }
        list_remove(&queue->link);
        ready->turn++;
        level->waits_since = ready->turn;
        return queue;
    }
    return NULL;
}

/* Back where it was, behind the others: the turn is over. */
static void queue_put_back(struct ready *ready, struct ready_queue *queue)
{
    if ((queue_orders(queue) & BATCH_CANCELLED) != 0) {
        list_add_first(&ready->cancelled, &queue->link);
    } else {
        /* Not level_add: a level that just had its turn has begun to wait already. */
        list_add_last(&ready->levels[queue->priority].queues, &queue->link);
    }
}

uint32_t ready_take(struct ready *ready, uint32_t count_max, struct recipient **ret_recipients,
                    const struct batch **ret_batch)
{
    ensure(count_max > 0);
    struct ready_queue *queue = queue_next(ready);
    if (queue == NULL) {
        return 0;
    }
    ensure(queue->first != NULL);
    uint32_t count = 0;
    while (count < count_max && queue->first != NULL) {
        struct recipient *recipient = queue->first;
        queue->first = recipient_next(recipient);
        ret_recipients[count++] = recipient;
    }
    *ret_batch = queue->batch;
    ensure(queue->count >= count);
    queue->count -= count;
    ready->count -= count;
    if (queue->first == NULL) {
        queue->last = NULL;
        queue_end(ready, queue);
    } else {
        queue_put_back(ready, queue);
    }
    return count;
}

/* A walk only over queues that were paused since they last had a turn: a take sets them aside. */
bool ready_has_work(const struct ready *ready)
{
    for (const struct list *at = ready->cancelled.next; at != &ready->cancelled; at = at->next) {
        if (queue_may_go(CONTAINER_OF(at, struct ready_queue, link))) {
            return true;
        }
    }
    for (size_t i = 0; i < READY_PRIORITIES; i++) {
        const struct list *queues = &ready->levels[i].queues;
        for (const struct list *link = queues->next; link != queues; link = link->next) {
            if (queue_may_go(CONTAINER_OF(link, struct ready_queue, link))) {
                return true;
            }
        }
    }
    return false;
}

void ready_resume(struct ready *ready)
{
    struct list *link;
    while ((link = list_take_first(&ready->paused)) != NULL) {
        struct ready_queue *queue = CONTAINER_OF(link, struct ready_queue, link);
        queue->is_paused = false;
        queue_enlist(ready, queue);
    }
}

void ready_cancel(struct ready *ready, const struct batch *batch)
{
    ensure((stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0);
    struct ready_queue *queue = queue_find(ready, batch->index);
    if (queue == NULL) {
        return;
    }
    list_remove(&queue->link);
    queue->is_paused = false;
    list_add_last(&ready->cancelled, &queue->link);
}

static uint64_t queue_check(const struct ready *ready, const struct ready_queue *queue)
{
    ensure(queue->ready == ready);
    ensure(queue->count > 0);
    ensure(queue_find(ready, queue->batch_index) == queue);
    uint64_t count = 0;
    const struct recipient *last = NULL;
    for (const struct recipient *at = queue->first; at != NULL; at = recipient_next(at)) {
        ensure(at->batch == queue->batch_index);
        last = at;
        count++;
    }
    ensure(last == queue->last);
    ensure(count == queue->count);
    return count;
}

static uint64_t queues_check(const struct ready *ready, const struct list *queues, bool is_paused)
{
    uint64_t count = 0;
    for (const struct list *link = queues->next; link != queues; link = link->next) {
        const struct ready_queue *queue = CONTAINER_OF(link, struct ready_queue, link);
        ensure(link->next->prev == link);
        ensure(queue->is_paused == is_paused);
        count += queue_check(ready, queue);
    }
    return count;
}

void ready_check(const struct ready *ready)
{
    uint64_t count = queues_check(ready, &ready->cancelled, false);
    count += queues_check(ready, &ready->paused, true);
    for (size_t i = 0; i < READY_PRIORITIES; i++) {
        count += queues_check(ready, &ready->levels[i].queues, false);
    }
    ensure(count == ready->count);
}
