/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ready: the recipients of one lane that may be tried now, fair between batches.
 *
 * Owner: one worker. One queue per batch that has something here, first in first out. Queues of one
 * priority take turns; among the priorities (9 first) the one that waits gains one level each
 * READY_AGEING_TURNS turns given to others, so that priority 0 cannot starve: against a busy
 * priority 9 it gets one turn in 73. (The priority ages, not each queue: otherwise ten thousand
 * waiting queues of priority 5 would all be older than a new one of priority 9 and go first.)
 *
 * A take hands out up to `count_max` recipients of ONE batch (so that their records lie close
 * together in its file). Orders of the batch (batch.h) are looked at when its turn comes: a PAUSED
 * queue is set aside until ready_resume and costs nothing meanwhile; CANCELLED ones are handed out
 * whether paused or not (they settle without an attempt), and ready_cancel brings one to the front.
 *
 * Costs: push and take are O(1), however many queues wait: the queue of a batch is found in one
 * hash of the worker (pool), keyed by lane and batch index.
 *
 * Bounds: the queues come from a slab of the worker (ready_pool). A queue has at least one
 * recipient, so with room for as many as there may be recipients one is always free; it is a bug
 * when none is. Memory is touched as it is used.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/list.h"
#include "engine/base/slab.h"
#include "queue/batch.h"
#include "queue/recipient.h"

enum { READY_AGEING_TURNS = 8, READY_PRIORITIES = 10, READY_PRIORITY_USUAL = 5 };

struct ready_queue;

struct ready_pool {
    struct slab queues;
    uint32_t *heads; /* the hash: slab index + 1 of the first queue of each chain, 0 = none */
    uint32_t heads_mask;
};

/* The recipients of one batch, linked through their nodes. */
struct ready_queue {
    struct list link; /* in a level, or among the paused or cancelled ones */
    struct ready *ready;
    const struct batch *batch;
    struct recipient *first;
    struct recipient *last;
    uint32_t batch_index;
    uint32_t chain_next; /* slab index + 1, 0 = none */
    uint8_t priority;
    bool is_paused; /* set aside */
    uint64_t count;
};

/* Queues of one priority. */
struct ready_level {
    struct list queues;
    uint64_t waits_since; /* turn */
};

struct ready {
    struct ready_pool *pool;
    struct ready_level levels[READY_PRIORITIES];
    struct list cancelled;
    struct list paused;
    uint64_t turn;
    uint64_t count; /* recipients, paused ones included */
};

/* 0 or -ENOMEM; 1 <= queues_max <= 2^30. */
int ready_pool_init(struct ready_pool *pool, uint32_t queues_max)
    __attribute__((warn_unused_result));
/* Safe on a zeroed pool. Ensures that no queue is out. */
void ready_pool_deinit(struct ready_pool *pool);
/* Like deinit, but recipients may still wait: for a stop in which the journal knows them. */
void ready_pool_abandon(struct ready_pool *pool);
/* A lane does not move in memory while it has recipients. */
void ready_init(struct ready *ready, struct ready_pool *pool);
/* Ensures emptiness. */
void ready_deinit(struct ready *ready);
/* Behind the others of its batch / in front of them (a recipient given back untried). */
void ready_push(struct ready *ready, struct recipient *recipient, const struct batch *batch);
void ready_push_front(struct ready *ready, struct recipient *recipient, const struct batch *batch);
/*
 * Up to count_max recipients of one batch; returns how many. 0: nothing may go now (empty, or all
 * paused). One turn.
 */
uint32_t ready_take(struct ready *ready, uint32_t count_max, struct recipient **ret_recipients,
                    const struct batch **ret_batch);
/* True when ready_take would return something. */
bool ready_has_work(const struct ready *ready);
/* Some batch is no longer paused (or was cancelled while paused): all queues that were set aside
 * join in again; those still paused are set aside when their turn comes. */
void ready_resume(struct ready *ready);
/* The batch was cancelled: its queue here, if any, is handed out next. */
void ready_cancel(struct ready *ready, const struct batch *batch);
/* Verifies links, counts, the hash. */
void ready_check(const struct ready *ready);
