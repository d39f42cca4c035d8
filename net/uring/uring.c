/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of a turn. What callers ask for is only noted (sends) or written into the submission
 * queue (the rest). One system call then submits it all and reaps what is ready; it is made by
 * run_once when there is something to submit or to reap, or by wait. After telling, run_once makes
 * no second call: what the callbacks asked for goes out with the next one. So a busy worker that
 * calls run_once in every step, and one that sleeps in wait between steps, both make one call a
 * turn; an idle one makes none. But a call of the kernel brings the completions of few connections
 * (20, in Linux 6.18), and behind a standstill of the process there are many: see catch_up.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/uring/uring_priv.h"

/* A receive that is stopped has up to all buffers full of its bytes on their way up; of many that
 * are stopped, each a few. */
enum { HELDS_PER_CONN = 4, HELDS_BASE = 2 * URING_RX_COUNT_MAX };

static void waker_arm(struct uring *uring)
{
    if (uring->config.waker == NULL || uring->config.waker->event_fd < 0) {
        return;
    }
    struct io_uring_sqe *sqe = uring_sqe(uring, (uint64_t)URING_OP_WAKER << URING_OP_SHIFT);
    io_uring_prep_poll_multishot(sqe, uring->config.waker->event_fd, POLLIN);
}

static void watch_arm(struct uring *uring)
{
    if (uring->watch_fd >= 0) {
        struct io_uring_sqe *sqe = uring_sqe(uring, (uint64_t)URING_OP_WATCH << URING_OP_SHIFT);
        io_uring_prep_poll_multishot(sqe, uring->watch_fd, POLLIN);
    }
}

void uring_start_now(struct uring *uring)
{
    uring_ring_enable(uring);
    uring->ran_at = clock_mono(uring->config.clock);
    timer_wheel_init(&uring->wheel, uring->ran_at);
    uring->watch_fd = epoll_create1(EPOLL_CLOEXEC);
    uring->is_started = true;
    waker_arm(uring);
    watch_arm(uring);
}

static int uring_set_user(struct net_loop *loop, struct net_conn_id id, void *user)
{
    struct uring_conn *conn = uring_conn_find(uring_of(loop), id);
    if (conn == NULL) {
        return -ESTALE;
    }
    conn->user = user;
    return 0;
}

static struct uring_conn *conn_of(const struct uring *uring, uint64_t user_data)
{
    struct handle handle = {
        .index = (uint32_t)(user_data & URING_INDEX_MASK),
        .generation = (uint32_t)(user_data >> 32),
    };
    struct uring_conn *conn = slab_at_handle(&uring->conns, handle);
    ensure(conn != NULL); /* a slot outlives its operations */
    return conn;
}

static void on_completion(struct uring *uring, uint64_t user_data, int result, unsigned flags)
{
    enum uring_op op = user_data >> URING_OP_SHIFT & 0xf;
    switch (op) {
    case URING_OP_NONE:
        return;
    case URING_OP_CONNECT:
        uring_conn_on_connect(uring, conn_of(uring, user_data), result);
        return;
    case URING_OP_RECV:
        uring_rx_on_recv(uring, conn_of(uring, user_data), result, flags);
        return;
    case URING_OP_SEND:
        uring_tx_on_send(uring, conn_of(uring, user_data), result);
        return;
    case URING_OP_ACCEPT:
        uring_rx_on_accept(uring, (uint32_t)(user_data & URING_INDEX_MASK), result, flags);
        return;
    case URING_OP_WAKER:
        if ((flags & IORING_CQE_F_MORE) == 0) {
            waker_arm(uring);
        }
        return;
    case URING_OP_WATCH:
        if ((flags & IORING_CQE_F_MORE) == 0) {
            watch_arm(uring);
        }
        uring_rx_on_watch(uring);
        return;
    }
    ensure(false);
}

/* Callbacks may submit when the queue is full, so the tail is read anew each time; completions seen
 * are given back in one store. */
static void tell_completions(struct uring *uring)
{
    struct io_uring_cq *cq = &uring->ring.cq;
    unsigned head = *cq->khead;
    unsigned end = head + URING_EVENTS_BUDGET;
    while (head != end && head != io_uring_smp_load_acquire(cq->ktail)) {
        const struct io_uring_cqe *cqe = &cq->cqes[head & cq->ring_mask];
        uint64_t user_data = cqe->user_data;
        int result = cqe->res;
        unsigned flags = cqe->flags;
        head++;
        io_uring_smp_store_release(cq->khead, head);
        on_completion(uring, user_data, result, flags);
    }
}

/* What no completion tells: ends, and bytes held back. What callbacks add comes in the next turn.
 */
static void tell_pending(struct uring *uring)
{
    if (list_is_empty(&uring->pending)) {
        return;
    }
    struct list last;
    list_add_last(&uring->pending, &last);
    struct list *node;
    while ((node = list_take_first(&uring->pending)) != &last) {
        struct uring_conn *conn = CONTAINER_OF(node, struct uring_conn, pending);
        if (conn->state != URING_CLOSING) {
            uring_rx_tell_held(uring, conn);
        } else if (conn->ops == 0) {
            uring_conn_finish(uring, conn);
        }
    }
}

static struct mono_time next_at(const struct uring *uring)
{
    return mono_earlier(timer_wheel_next(&uring->wheel), uring->accept_at);
}

/* The process was stopped, or the machine suspended: answers that came meanwhile lie in the
 * sockets. They are told before anybody's timer says that they are late. */
static __attribute__((noinline)) void catch_up(struct uring *uring)
{
    uint32_t turns_max = URING_LATE_TURNS + uring->config.conns_max / URING_LATE_CONNS_A_TURN;
    for (uint32_t i = 0; i < turns_max; i++) {
        if (uring_ring_ready(uring) == 0 && !uring_ring_wants_enter(uring)) {
            return;
        }
        uring_ring_enter(uring, 0);
        tell_completions(uring);
    }
}

static struct mono_time uring_run_once(struct net_loop *loop, struct mono_time now)
{
    struct uring *uring = uring_of(loop);
    uring_start(uring);
    bool is_late = mono_before(mono_add_ms(uring->ran_at, URING_LATE_MS), now);
    uring->ran_at = now;
    if (!mono_before(now, uring->accept_at)) {
        uring_rx_accept_again(uring);
    }
    /* What the last turn wanted to send leaves now, not behind all that has come meanwhile: else
     * two busy ends hand each other ever larger heaps, and each message waits for a whole heap. */
    uring_tx_flush(uring);
    if (uring_ring_wants_enter(uring)) {
        uring_ring_enter(uring, 0);
    }
    tell_completions(uring);
    if (is_late) {
        catch_up(uring);
    }
    if (uring->wheel.count > 0) {
        (void)timer_wheel_expire(&uring->wheel, now, URING_TIMERS_BUDGET);
    }
    tell_pending(uring);
    bool has_more = uring_ring_ready(uring) > 0 || !list_is_empty(&uring->pending);
    return has_more ? now : next_at(uring);
}

static void uring_wait(struct net_loop *loop, struct mono_time now, struct mono_time deadline)
{
    struct uring *uring = uring_of(loop);
    uring_start(uring);
    if (uring_ring_ready(uring) > 0) {
        return;
    }
    uring_tx_flush(uring);
    deadline = mono_earlier(deadline, next_at(uring));
    int64_t wait_ns = deadline.ns == INT64_MAX ? INT64_MAX : deadline.ns - now.ns;
    if (wait_ns < 0 || !list_is_empty(&uring->pending)) {
        wait_ns = 0;
    }
    uring_ring_enter(uring, wait_ns);
}

static void drop_all(struct uring *uring)
{
    for (uint32_t i = 0; i < uring->conns.fresh; i++) {
        struct handle handle = {.index = i, .generation = uring->conns.generations[i]};
        struct uring_conn *conn = slab_at_handle(&uring->conns, handle);
        if (conn != NULL) {
            uring_conn_drop(uring, conn);
        }
    }
    for (uint32_t i = 0; i < uring->listeners_count; i++) {
        (void)close(uring->listeners[i].fd);
    }
    if (uring->watch_fd >= 0) {
        (void)close(uring->watch_fd);
    }
}

static void uring_destroy(struct net_loop *loop)
{
    struct uring *uring = uring_of(loop);
    if (uring->is_started) {
        drop_all(uring);
    }
    if (uring->is_made) {
        uring_ring_stop(uring);
    }
    slab_deinit(&uring->helds);
    slab_deinit(&uring->txs);
    slab_deinit(&uring->conns);
    free(uring);
}

static const struct net_ops OPS = {
    .connect = uring_connect,
    .listen = uring_listen,
    .send = uring_send,
    .rx_stop = uring_rx_stop,
    .close = uring_close,
    .set_user = uring_set_user,
    .run_once = uring_run_once,
    .wait = uring_wait,
    .destroy = uring_destroy,
};

static int slabs_init(struct uring *uring)
{
    uint32_t count = uring->config.conns_max;
    int result = slab_init(&uring->conns, "net connections", sizeof(struct uring_conn), count);
    if (result == 0) {
        result = slab_init(&uring->txs, "net sends", sizeof(struct uring_tx),
                           count * URING_TX_BLOCKS_MAX);
    }
    if (result == 0) {
        result = slab_init(&uring->helds, "net held bytes", sizeof(struct uring_held),
                           HELDS_BASE + count * HELDS_PER_CONN);
    }
    return result;
}

struct net_loop *net_uring_create(const struct net_config *config, int *ret_error)
{
    ensure(config->conns_max >= 1 && config->conns_max <= URING_CONNS_MAX);
    ensure(config->on_event != NULL);
    ensure(config->clock != NULL);
    struct uring *uring = calloc(1, sizeof(*uring));
    if (uring == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    uring->loop.ops = &OPS;
    uring->config = *config;
    uring->watch_fd = -1;
    uring->accept_at = MONO_NEVER;
    list_init(&uring->dirty);
    list_init(&uring->pending);
    int result = uring_ring_make(uring);
    if (result == 0) {
        result = slabs_init(uring);
    }
    if (result < 0) {
        uring_destroy(&uring->loop);
        *ret_error = result;
        return NULL;
    }
    return &uring->loop;
}
