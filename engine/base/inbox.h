/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inbox: the only way an object travels from one actor to another; and the waker that gets a
 * sleeping actor out of bed.
 *
 * A typed face of liburcu's wfcqueue (wait-free push from any thread, one consumer): the object
 * itself travels, by the node embedded in it, and ownership goes with it (LAW 7): after the push
 * the sender may not touch it. An inbox has no bound of its own: its bound is the sum of the slabs
 * whose objects can be pushed to it (LAW 8). Order is kept per producer.
 *
 * Waker: one per actor, shared by all its inboxes. The owner announces sleep with waker_sleep
 * (false: something came in meanwhile, do not sleep), and clears it with waker_awake. A producer
 * that finds the owner asleep writes the eventfd once. In the simulator there is no eventfd (-1);
 * waker_is_signalled tells the scheduler whom to step.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <urcu/wfcqueue.h>

/* Embed it, find the object with CONTAINER_OF. Also usable as a plain `next` link by whoever owns
 * the object. */
struct inbox_node {
    struct cds_wfcq_node link;
};

struct waker {
    _Atomic uint32_t state; /* 0 awake, 1 asleep, 2 signalled */
    int event_fd;           /* -1 in the simulator */
    bool is_abed;           /* owner only: slept since it was awake */
    uint64_t writes_owed;   /* owner only: to the eventfd, made or on their way, not yet read */
};

struct inbox {
    struct __cds_wfcq_head head; /* consumer's line */
    char pad[64 - sizeof(struct __cds_wfcq_head)];
    struct cds_wfcq_tail tail; /* producers' line */
    struct waker *waker;
};

/* A chain of nodes built by one actor, to be pushed with one exchange. It may not be copied: its
 * tail points into itself. */
struct inbox_chain {
    struct __cds_wfcq_head head;
    struct cds_wfcq_tail tail;
    uint32_t count;
};

/* `with_event_fd` false in the simulator. 0 or -errno. */
int waker_init(struct waker *waker, bool with_event_fd) __attribute__((warn_unused_result));
void waker_deinit(struct waker *waker);
/* Any thread. */
void waker_signal_xcore(struct waker *waker);
/* Owner only: true when the owner may sleep; false when a signal is pending (it is then consumed),
 * which asks for one more look at every inbox. */
bool waker_sleep(struct waker *waker);
/* Owner only: awake again; empties the eventfd's counter when it was written, and makes no system
 * call when it was not. */
void waker_awake(struct waker *waker);
/* True when a signal is pending; for the simulator's scheduler, which consumes it with waker_awake.
 */
bool waker_is_signalled(const struct waker *waker);

void inbox_init(struct inbox *inbox, struct waker *waker);
/* Any thread: ownership of the object goes to the inbox's actor, which is signalled. */
void inbox_push_xcore(struct inbox *inbox, struct inbox_node *node);
/* Owner only: the oldest node, or NULL when none is ready (a push that is half done counts as none:
 * next step). */
struct inbox_node *inbox_take(struct inbox *inbox);
/* Any thread: true: what the owner wrote before it took the last node is seen from here on. */
bool inbox_is_empty(const struct inbox *inbox);

void inbox_chain_init(struct inbox_chain *chain);
void inbox_chain_add(struct inbox_chain *chain, struct inbox_node *node);
/* The oldest node of a chain one owns, or NULL. */
struct inbox_node *inbox_chain_take(struct inbox_chain *chain);
/* Any thread: all nodes of the chain, in order, with one exchange; the chain is empty afterwards.
 * No-op on an empty chain. */
void inbox_push_chain_xcore(struct inbox *inbox, struct inbox_chain *chain);
/* Owner only: moves all that is ready in the inbox behind the chain's nodes, in one walk that
 * counts them; a half-done push and what came after it stay in the inbox, and its signal comes
 * later. */
void inbox_take_all(struct inbox *inbox, struct inbox_chain *chain);
