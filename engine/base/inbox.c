/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/inbox.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/base/ensure.h"
#include "engine/base/order.h"

/*
 * No wake-up is lost, and this is why. A producer links its node, then (fence W1) looks at the
 * waker's state and makes it SIGNALLED unless it is so already. The owner takes a SIGNALLED back by
 * an exchange, then (fence W2) looks into its inboxes. A producer that found SIGNALLED and went
 * away was before the owner's exchange, so by W1 and W2 the owner sees its node. A producer that
 * came later leaves SIGNALLED behind: the next waker_sleep sees it, or, when the owner slept
 * already, the one who made ASLEEP into SIGNALLED writes the eventfd.
 *
 * The signal is sent for every push, not only for the first one into an empty inbox: a push that is
 * half done hides the nodes in front of it too (the last linked node cannot be taken before its
 * successor is known), so "the inbox was not empty" does not mean that the owner will look again.
 */
enum { WAKER_AWAKE, WAKER_ASLEEP, WAKER_SIGNALLED };

#if defined(ORDER_IS_WATCHED) && !defined(__clang__)
/* The sanitizer does not know fences; they only order the waker, whose accesses are all atomic. */
#pragma GCC diagnostic ignored "-Wtsan"
#endif

int waker_init(struct waker *waker, bool with_event_fd)
{
    int fd = -1;
    if (with_event_fd) {
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0) {
            return -errno;
        }
    }
    *waker = (struct waker){.event_fd = fd};
    atomic_init(&waker->state, WAKER_AWAKE);
    return 0;
}

void waker_deinit(struct waker *waker)
{
    ensure(waker->event_fd >= -1);
    if (waker->event_fd >= 0) {
        (void)close(waker->event_fd);
    }
    waker->event_fd = -1;
}

void waker_signal_xcore(struct waker *waker)
{
    atomic_thread_fence(memory_order_seq_cst); /* W1 */
    if (atomic_load_explicit(&waker->state, memory_order_relaxed) == WAKER_SIGNALLED) {
        return;
    }
    uint32_t before = atomic_exchange(&waker->state, WAKER_SIGNALLED);
    ensure(before <= WAKER_SIGNALLED);
    if (before == WAKER_ASLEEP && waker->event_fd >= 0) {
        uint64_t one = 1;
        ssize_t size;
        do {
            size = write(waker->event_fd, &one, sizeof(one));
        } while (size < 0 && errno == EINTR);
        ensure(size == (ssize_t)sizeof(one));
    }
}

bool waker_sleep(struct waker *waker)
{
    uint32_t state = WAKER_AWAKE;
    if (atomic_compare_exchange_strong(&waker->state, &state, WAKER_ASLEEP)) {
        waker->is_abed = true;
        return true;
    }
    ensure(state == WAKER_SIGNALLED);
    (void)atomic_exchange(&waker->state, WAKER_AWAKE);
    atomic_thread_fence(memory_order_seq_cst); /* W2 */
    return false;
}

/* Each sleep that a signal ended brings one write; it may come late (the producer was put aside
 * between its exchange and the write), behind a sleep that something else ended. So the writes are
 * counted: one that was forgotten would keep the descriptor readable and end every sleep at once.
 */
static void writes_read(struct waker *waker)
{
    uint64_t count = 0;
    ssize_t size;
    do {
        size = read(waker->event_fd, &count, sizeof(count));
    } while (size < 0 && errno == EINTR);
    ensure(size == (ssize_t)sizeof(count) || errno == EAGAIN);
    ensure(count <= waker->writes_owed);
    waker->writes_owed -= count;
}

void waker_awake(struct waker *waker)
{
    uint32_t before = atomic_exchange(&waker->state, WAKER_AWAKE);
    atomic_thread_fence(memory_order_seq_cst); /* W2 */
    if (waker->is_abed && before == WAKER_SIGNALLED && waker->event_fd >= 0) {
        waker->writes_owed++;
    }
    waker->is_abed = false;
    if (waker->writes_owed > 0) {
        writes_read(waker);
    }
}

bool waker_is_signalled(const struct waker *waker)
{
    return atomic_load_explicit(&waker->state, memory_order_relaxed) == WAKER_SIGNALLED;
}

void inbox_init(struct inbox *inbox, struct waker *waker)
{
    ensure(waker != NULL);
    __cds_wfcq_init(&inbox->head, &inbox->tail);
    inbox->waker = waker;
}

void inbox_push_xcore(struct inbox *inbox, struct inbox_node *node)
{
    ensure(node != NULL);
    ensure(inbox->waker != NULL);
    cds_wfcq_node_init(&node->link);
    ORDER_RELEASE(inbox);
    (void)cds_wfcq_enqueue(&inbox->head, &inbox->tail, &node->link);
    waker_signal_xcore(inbox->waker);
}

/* The link is the node's first and only member. */
struct inbox_node *inbox_take(struct inbox *inbox)
{
    struct cds_wfcq_node *link = __cds_wfcq_dequeue_nonblocking(&inbox->head, &inbox->tail);
    if (link == NULL || link == CDS_WFCQ_WOULDBLOCK) {
        return NULL;
    }
    ORDER_ACQUIRE(inbox);
    return (struct inbox_node *)(void *)link;
}

/* The functions of liburcu that only read take pointers to non-const all the same. */
bool inbox_is_empty(const struct inbox *inbox)
{
    struct inbox *readable = (struct inbox *)(uintptr_t)inbox;
    bool is_empty = cds_wfcq_empty(&readable->head, &readable->tail);
    atomic_thread_fence(memory_order_acquire); /* partner: the exchange that takes the last node */
    return is_empty;
}

/* A chain has one owner and needs no atomic operation; only the shape is that of a wfcqueue, so
 * that it can be spliced into one. */
void inbox_chain_init(struct inbox_chain *chain)
{
    __cds_wfcq_init(&chain->head, &chain->tail);
    chain->count = 0;
}

void inbox_chain_add(struct inbox_chain *chain, struct inbox_node *node)
{
    ensure(chain->tail.p->next == NULL);
    ensure(chain->count < UINT32_MAX);
    node->link.next = NULL;
    chain->tail.p->next = &node->link;
    chain->tail.p = &node->link;
    chain->count++;
}

struct inbox_node *inbox_chain_take(struct inbox_chain *chain)
{
    struct cds_wfcq_node *link = chain->head.node.next;
    if (link == NULL) {
        ensure(chain->count == 0);
        return NULL;
    }
    ensure(chain->count > 0);
    chain->count--;
    chain->head.node.next = link->next;
    if (link->next == NULL) {
        ensure(chain->tail.p == link);
        ensure(chain->count == 0);
        chain->tail.p = &chain->head.node;
    }
    return (struct inbox_node *)(void *)link;
}

void inbox_push_chain_xcore(struct inbox *inbox, struct inbox_chain *chain)
{
    if (chain->count == 0) {
        return;
    }
    ORDER_RELEASE(inbox);
    enum cds_wfcq_ret spliced =
        __cds_wfcq_splice_nonblocking(&inbox->head, &inbox->tail, &chain->head, &chain->tail);
    ensure(spliced == CDS_WFCQ_RET_DEST_EMPTY || spliced == CDS_WFCQ_RET_DEST_NON_EMPTY);
    ensure(chain->tail.p == &chain->head.node);
    chain->count = 0;
    waker_signal_xcore(inbox->waker);
}

/* Not spliced: a splice would bring the half-done pushes along, and then the chain's owner could
 * meet a gap in the middle of what it owns. */
void inbox_take_all(struct inbox *inbox, struct inbox_chain *chain)
{
    struct inbox_node *node;
    while ((node = inbox_take(inbox)) != NULL) {
        inbox_chain_add(chain, node);
    }
}
