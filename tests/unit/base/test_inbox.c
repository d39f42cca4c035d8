/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/inbox.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "engine/base/list.h"
#include "engine/base/random.h"
#include "tests/harness.h"

struct parcel {
    struct inbox_node node;
    uint32_t producer;
    uint32_t number;
};

static struct parcel *parcel_of(struct inbox_node *node)
{
    return node != NULL ? CONTAINER_OF(node, struct parcel, node) : NULL;
}

static void test_waker_without_fd(void)
{
    struct waker waker;
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, false), 0);
    CU_ASSERT(!waker_is_signalled(&waker));
    waker_signal_xcore(&waker);
    waker_signal_xcore(&waker);
    CU_ASSERT(waker_is_signalled(&waker));
    CU_ASSERT(!waker_sleep(&waker)); /* one signal, taken back once */
    CU_ASSERT(!waker_is_signalled(&waker));
    CU_ASSERT(waker_sleep(&waker));
    CHECK_PANICS(waker_sleep(&waker));
    waker_signal_xcore(&waker);
    CU_ASSERT(waker_is_signalled(&waker));
    waker_awake(&waker);
    CU_ASSERT(!waker_is_signalled(&waker));
    waker_deinit(&waker);
}

static bool fd_is_readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, timeout_ms) == 1;
}

/* The descriptor tells only of signals to one who sleeps, and is empty after waker_awake. */
static void test_waker_with_fd(void)
{
    struct waker waker;
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, true), 0);
    waker_signal_xcore(&waker);
    CU_ASSERT(!fd_is_readable(waker.event_fd, 0));
    CU_ASSERT(!waker_sleep(&waker));
    for (size_t i = 0; i < 3; i++) {
        CHECK_ROW(i, waker_sleep(&waker));
        CHECK_ROW(i, !fd_is_readable(waker.event_fd, 0));
        waker_signal_xcore(&waker);
        waker_signal_xcore(&waker);
        CHECK_ROW(i, fd_is_readable(waker.event_fd, 0));
        waker_awake(&waker);
        CHECK_ROW(i, !fd_is_readable(waker.event_fd, 0));
    }
    waker_awake(&waker);
    waker_deinit(&waker);
    CU_ASSERT_EQUAL(waker.event_fd, -1);
}

/* A producer that was put aside between its exchange and its write: what it writes behind the next
 * sleep is emptied all the same, else it would end every later sleep. */
static void test_waker_late_write(void)
{
    struct waker waker;
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, true), 0);
    struct waker aside = {.event_fd = -1};
    CU_ASSERT(waker_sleep(&waker));
    atomic_store(&aside.state, atomic_load(&waker.state));
    waker_signal_xcore(&aside); /* its exchange, without the write */
    atomic_store(&waker.state, atomic_load(&aside.state));
    waker_awake(&waker);
    CU_ASSERT_EQUAL(waker.writes_owed, 1);

    CU_ASSERT(waker_sleep(&waker));
    waker_signal_xcore(&waker);
    uint64_t late = 1;
    CU_ASSERT_EQUAL_FATAL(write(waker.event_fd, &late, sizeof(late)), (ssize_t)sizeof(late));
    CU_ASSERT(fd_is_readable(waker.event_fd, 0));
    waker_awake(&waker);
    CU_ASSERT_EQUAL(waker.writes_owed, 0);
    CU_ASSERT(!fd_is_readable(waker.event_fd, 0));

    CU_ASSERT_EQUAL_FATAL(write(waker.event_fd, &late, sizeof(late)), (ssize_t)sizeof(late));
    waker.writes_owed = 1;
    waker_awake(&waker); /* woken for another reason, not signalled: read because it is owed */
    CU_ASSERT(!fd_is_readable(waker.event_fd, 0));
    waker_deinit(&waker);
}

static void test_order(void)
{
    struct waker waker;
    struct inbox inbox;
    struct parcel parcels[5];
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, false), 0);
    inbox_init(&inbox, &waker);
    CU_ASSERT(inbox_is_empty(&inbox));
    CU_ASSERT_PTR_NULL(inbox_take(&inbox));
    for (size_t round = 0; round < 3; round++) {
        for (size_t i = 0; i < COUNT_OF(parcels); i++) {
            inbox_push_xcore(&inbox, &parcels[i].node);
        }
        CHECK_ROW(round, !inbox_is_empty(&inbox));
        CHECK_ROW(round, !waker_sleep(&waker));
        for (size_t i = 0; i < COUNT_OF(parcels); i++) {
            CHECK_ROW(i, parcel_of(inbox_take(&inbox)) == &parcels[i]);
        }
        CHECK_ROW(round, inbox_take(&inbox) == NULL);
        CHECK_ROW(round, inbox_is_empty(&inbox));
    }
    waker_deinit(&waker);
}

static void test_chains(void)
{
    struct waker waker;
    struct inbox inbox;
    struct inbox_chain chain;
    struct parcel parcels[6];
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, false), 0);
    inbox_init(&inbox, &waker);
    inbox_chain_init(&chain);
    CU_ASSERT_PTR_NULL(inbox_chain_take(&chain));
    inbox_push_chain_xcore(&inbox, &chain);
    CU_ASSERT(!waker_is_signalled(&waker));
    CU_ASSERT(inbox_is_empty(&inbox));

    inbox_push_xcore(&inbox, &parcels[0].node);
    CU_ASSERT(!waker_sleep(&waker));
    for (size_t i = 1; i < 4; i++) {
        inbox_chain_add(&chain, &parcels[i].node);
    }
    CU_ASSERT_EQUAL(chain.count, 3);
    inbox_push_chain_xcore(&inbox, &chain);
    CU_ASSERT(waker_is_signalled(&waker));
    CU_ASSERT_EQUAL(chain.count, 0);
    CU_ASSERT_PTR_NULL(inbox_chain_take(&chain));
    inbox_push_xcore(&inbox, &parcels[4].node);

    inbox_chain_add(&chain, &parcels[5].node); /* what comes in goes behind what is there */
    inbox_take_all(&inbox, &chain);
    CU_ASSERT(inbox_is_empty(&inbox));
    CU_ASSERT_EQUAL(chain.count, 6);
    static const size_t want[] = {5, 0, 1, 2, 3, 4};
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        CHECK_ROW(i, parcel_of(inbox_chain_take(&chain)) == &parcels[want[i]]);
    }
    CU_ASSERT_PTR_NULL(inbox_chain_take(&chain));
    inbox_take_all(&inbox, &chain);
    CU_ASSERT_EQUAL(chain.count, 0);
    waker_deinit(&waker);
}

/* Every push signals, also one into an inbox that the owner left half full: see inbox.c, and below.
 */
static void test_every_push_signals(void)
{
    struct waker waker;
    struct inbox inbox;
    struct parcel parcels[3];
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, false), 0);
    inbox_init(&inbox, &waker);
    for (size_t i = 0; i < COUNT_OF(parcels); i++) {
        inbox_push_xcore(&inbox, &parcels[i].node);
        CHECK_ROW(i, waker_is_signalled(&waker));
        waker_awake(&waker);
    }
    waker_deinit(&waker);
}

/*
 * A producer that stops in the middle of its push: it has exchanged the tail and not linked its
 * node. That hides the node in front of it too, which is complete; so the signal that comes when
 * the push is finished must come although the inbox was not empty.
 */
static void test_half_done_push(void)
{
    struct waker waker;
    struct inbox inbox;
    struct inbox_chain chain;
    struct parcel whole;
    struct parcel half;
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, false), 0);
    inbox_init(&inbox, &waker);
    inbox_chain_init(&chain);
    inbox_push_xcore(&inbox, &whole.node);
    CU_ASSERT(!waker_sleep(&waker));
    half.node.link.next = NULL;
    inbox.tail.p = &half.node.link;

    CU_ASSERT_PTR_NULL(inbox_take(&inbox));
    inbox_take_all(&inbox, &chain);
    CU_ASSERT_EQUAL(chain.count, 0);
    CU_ASSERT(!inbox_is_empty(&inbox));
    CU_ASSERT(waker_sleep(&waker));

    whole.node.link.next = &half.node.link;
    waker_signal_xcore(&waker);
    waker_awake(&waker);
    CU_ASSERT_PTR_EQUAL(parcel_of(inbox_take(&inbox)), &whole);
    CU_ASSERT_PTR_EQUAL(parcel_of(inbox_take(&inbox)), &half);
    CU_ASSERT_PTR_NULL(inbox_take(&inbox));
    waker_deinit(&waker);
}

enum { PRODUCERS = 3, PARCELS_PER_PRODUCER = 60000, PATIENCE_MS = 20000 };

struct producer {
    pthread_t thread;
    uint32_t index;
    struct inbox *inboxes; /* two, with one waker */
    struct parcel *parcels;
};

/* One by one, in chains, and now and then not at all for a while, so that the owner falls asleep.
 */
static void *produce(void *context)
{
    struct producer *producer = context;
    struct random random;
    random_init_seed(&random, producer->index);
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    for (uint32_t i = 0; i < PARCELS_PER_PRODUCER; i++) {
        struct parcel *parcel = &producer->parcels[i];
        parcel->producer = producer->index;
        parcel->number = i;
        struct inbox *inbox = &producer->inboxes[producer->index % 2];
        uint32_t dice = random_below(&random, 64);
        if (dice < 16) {
            inbox_chain_add(&chain, &parcel->node);
            continue;
        }
        inbox_push_chain_xcore(inbox, &chain);
        inbox_push_xcore(inbox, &parcel->node);
        if (dice == 16) {
            (void)sched_yield();
        }
    }
    inbox_push_chain_xcore(&producer->inboxes[producer->index % 2], &chain);
    return NULL;
}

struct consumer {
    struct inbox inboxes[2];
    struct waker waker;
    uint32_t next_number[PRODUCERS];
    uint32_t taken_count;
    uint32_t sleeps_count;
};

static void consume_one(struct consumer *consumer, struct inbox_node *node)
{
    struct parcel *parcel = parcel_of(node);
    CU_ASSERT_FATAL(parcel->producer < PRODUCERS);
    CU_ASSERT_FATAL(parcel->number == consumer->next_number[parcel->producer]);
    consumer->next_number[parcel->producer]++;
    consumer->taken_count++;
}

/* A step as an actor makes it: with a budget, one inbox node by node, the other all at once. True
 * when there may be more. */
static bool consume_step(struct consumer *consumer)
{
    struct inbox_node *node;
    uint32_t budget = 16;
    while (budget > 0 && (node = inbox_take(&consumer->inboxes[0])) != NULL) {
        consume_one(consumer, node);
        budget--;
    }
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    inbox_take_all(&consumer->inboxes[1], &chain);
    while ((node = inbox_chain_take(&chain)) != NULL) {
        consume_one(consumer, node);
    }
    return budget == 0;
}

/* The boot loop in small. Were a wake-up lost, the last parcels would lie there and the poll end by
 * its timeout. */
static void consume_all(struct consumer *consumer)
{
    while (consumer->taken_count < PRODUCERS * PARCELS_PER_PRODUCER) {
        if (consume_step(consumer)) {
            continue;
        }
        if (waker_sleep(&consumer->waker)) {
            consumer->sleeps_count++;
            if (consumer->taken_count < PRODUCERS * PARCELS_PER_PRODUCER) {
                CU_ASSERT_FATAL(fd_is_readable(consumer->waker.event_fd, PATIENCE_MS));
            }
            waker_awake(&consumer->waker);
        }
    }
}

static void test_threads(void)
{
    static struct parcel parcels[PRODUCERS][PARCELS_PER_PRODUCER];
    static struct consumer consumer;
    struct producer producers[PRODUCERS];
    CU_ASSERT_EQUAL_FATAL(waker_init(&consumer.waker, true), 0);
    inbox_init(&consumer.inboxes[0], &consumer.waker);
    inbox_init(&consumer.inboxes[1], &consumer.waker);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        producers[i] =
            (struct producer){.index = i, .inboxes = consumer.inboxes, .parcels = parcels[i]};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
                              0);
    }
    consume_all(&consumer);
    for (uint32_t i = 0; i < PRODUCERS; i++) {
        CU_ASSERT_EQUAL(pthread_join(producers[i].thread, NULL), 0);
        CHECK_ROW(i, consumer.next_number[i] == PARCELS_PER_PRODUCER);
    }
    CU_ASSERT(inbox_is_empty(&consumer.inboxes[0]));
    CU_ASSERT(inbox_is_empty(&consumer.inboxes[1]));
    waker_deinit(&consumer.waker);
}

/* Two who wake each other in turn, each asleep most of the time: every hand-over needs a wake-up.
 */
enum { ROUNDS = 20000 };

struct player {
    struct inbox inbox;
    struct waker waker;
    struct player *other;
    uint32_t received_count;
    bool has_waited_in_vain;
};

static void *play(void *context)
{
    struct player *self = context;
    while (self->received_count < ROUNDS && !self->has_waited_in_vain) {
        struct inbox_node *node = inbox_take(&self->inbox);
        if (node != NULL) {
            self->received_count++;
            inbox_push_xcore(&self->other->inbox, node);
        } else if (waker_sleep(&self->waker)) {
            self->has_waited_in_vain = !fd_is_readable(self->waker.event_fd, PATIENCE_MS);
            waker_awake(&self->waker);
        }
    }
    return NULL;
}

static void test_ping_pong(void)
{
    static struct player players[2];
    pthread_t threads[2];
    struct parcel ball;
    for (size_t i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL_FATAL(waker_init(&players[i].waker, true), 0);
        inbox_init(&players[i].inbox, &players[i].waker);
        players[i].other = &players[1 - i];
    }
    inbox_push_xcore(&players[0].inbox, &ball.node);
    for (size_t i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, play, &players[i]), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
        CHECK_ROW(i, players[i].received_count == ROUNDS);
        CHECK_ROW(i, !players[i].has_waited_in_vain);
    }
    CU_ASSERT_PTR_EQUAL(parcel_of(inbox_take(&players[0].inbox)), &ball);
    waker_deinit(&players[0].waker);
    waker_deinit(&players[1].waker);
}

static void test_misuse_panics(void)
{
    struct inbox inbox;
    CHECK_PANICS(inbox_init(&inbox, NULL));
}

SUITE(inbox, test_waker_without_fd, test_waker_with_fd, test_waker_late_write, test_order,
      test_chains, test_every_push_signals, test_half_done_push, test_threads, test_ping_pong,
      test_misuse_panics)
