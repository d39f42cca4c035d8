/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "net/uring/uring_priv.h"

/* A connection that does not receive would never learn that its peer is dead. io_uring's own poll
 * cannot leave out the peer's FIN, so these few wait in an epoll set, which the ring polls as one.
 */
static void watch(struct uring *uring, struct uring_conn *conn)
{
    bool is_wanted = conn->state == URING_OPEN || conn->state == URING_FLUSHING;
    bool is_over = (conn->flags & URING_RX_ENDED) != 0 && (conn->flags & URING_FIN_SENT) != 0;
    if (!is_wanted || is_over || (conn->flags & URING_WATCHED) != 0) {
        return;
    }
    struct epoll_event event = {.events = EPOLLET, .data.u64 = conn->id};
    if (uring->watch_fd >= 0 && epoll_ctl(uring->watch_fd, EPOLL_CTL_ADD, conn->fd, &event) == 0) {
        conn->flags |= URING_WATCHED;
    } else {
        odd(net_watch_failed); /* such a peer's death shows at the next send only */
    }
}

/* Without IORING_RECVSEND_POLL_FIRST, though a first read mostly finds nothing: with it, bytes and
 * a reset that are both there already count as one wake-up, the read of the bytes uses it up, and
 * the reset is never told (seen on Linux 6.18). A read that comes first leaves the reset to the
 * poll. */
void uring_rx_arm(struct uring *uring, struct uring_conn *conn)
{
    bool is_wanted = conn->state == URING_OPEN || conn->state == URING_FLUSHING;
    if (!is_wanted || (conn->ops & 1u << URING_OP_RECV) != 0) {
        return;
    }
    if ((conn->flags & (URING_RX_STOPPED | URING_RX_ENDED)) != 0) {
        watch(uring, conn);
        return;
    }
    struct io_uring_sqe *sqe = uring_sqe(uring, uring_user_data(conn, URING_OP_RECV));
    io_uring_prep_recv_multishot(sqe, conn->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = URING_RX_GROUP;
    conn->ops |= 1u << URING_OP_RECV;
    conn->flags &= (uint16_t)~URING_RX_CANCELLED;
}

static void unwatch(struct uring *uring, struct uring_conn *conn)
{
    if ((conn->flags & URING_WATCHED) != 0) {
        (void)epoll_ctl(uring->watch_fd, EPOLL_CTL_DEL, conn->fd, NULL);
        conn->flags &= (uint16_t)~URING_WATCHED;
    }
}

void uring_rx_on_watch(struct uring *uring)
{
    enum { BATCH = 64 };
    struct epoll_event events[BATCH];
    int count;
    do {
        count = epoll_wait(uring->watch_fd, events, BATCH, 0);
        for (int i = 0; i < count; i++) {
            struct net_conn_id id = {.value = events[i].data.u64};
            struct uring_conn *conn = uring_conn_find(uring, id);
            int error = 0;
            socklen_t size = sizeof(error);
            if (conn == NULL || conn->state == URING_CLOSING ||
                getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error == 0) {
                continue;
            }
            uring_conn_end(uring, conn, uring_error_of(error));
        }
    } while (count == BATCH);
}

static void tell_fin(struct uring *uring, struct uring_conn *conn)
{
    conn->flags &= (uint16_t)~URING_FIN_HELD;
    if (conn->state == URING_OPEN) {
        uring_tell(uring, &(struct net_event){.kind = NET_PEER_FIN,
                                              .conn = {.value = conn->id},
                                              .user = conn->user});
    }
    watch(uring, conn);
}

static void tell_rx(struct uring *uring, struct uring_conn *conn, const char *at, size_t size)
{
    uring_tell(uring, &(struct net_event){.kind = NET_RX,
                                          .conn = {.value = conn->id},
                                          .user = conn->user,
                                          .rx = {.at = at, .size = size}});
}

static void hold(struct uring *uring, struct uring_conn *conn, const char *at, size_t size)
{
    struct uring_held *held = slab_take(&uring->helds);
    if (held == NULL) {
        odd(net_held_full);
        uring_conn_end(uring, conn, NET_FAILED);
        return;
    }
    ensure(size <= sizeof(held->bytes));
    memcpy(held->bytes, at, size);
    held->size = (uint32_t)size;
    held->next = NULL;
    if (conn->open.held_first == NULL) {
        conn->open.held_first = held;
    } else {
        conn->open.held_last->next = held;
    }
    conn->open.held_last = held;
}

static bool must_hold(const struct uring_conn *conn)
{
    return (conn->flags & URING_RX_STOPPED) != 0 || conn->open.held_first != NULL;
}

void uring_rx_tell_held(struct uring *uring, struct uring_conn *conn)
{
    while (conn->open.held_first != NULL && conn->state == URING_OPEN &&
           (conn->flags & URING_RX_STOPPED) == 0) {
        struct uring_held *held = conn->open.held_first;
        tell_rx(uring, conn, held->bytes, held->size);
        conn->open.held_first = held->next;
        slab_give(&uring->helds, held);
    }
    if (must_hold(conn)) {
        return;
    }
    if ((conn->flags & URING_FIN_HELD) != 0) {
        tell_fin(uring, conn);
    }
    uring_rx_arm(uring, conn);
}

void uring_rx_drop_held(struct uring *uring, struct uring_conn *conn)
{
    while (conn->open.held_first != NULL) {
        struct uring_held *held = conn->open.held_first;
        conn->open.held_first = held->next;
        slab_give(&uring->helds, held);
    }
}

static void received(struct uring *uring, struct uring_conn *conn, unsigned flags, size_t size)
{
    uint32_t buffer = flags >> IORING_CQE_BUFFER_SHIFT;
    if (conn->state == URING_OPEN && size > 0) {
        if (must_hold(conn)) {
            hold(uring, conn, uring_rx_at(uring, buffer), size);
        } else {
            tell_rx(uring, conn, uring_rx_at(uring, buffer), size);
        }
    }
    uring_rx_give(uring, buffer);
}

/* Of a peer that is gone: what the kernel still has. A multishot receive may wait for ever for the
 * news of a reset that the failed send was told first (seen on Linux 6.18), so nobody waits for it.
 */
static void tell_last_words(struct uring *uring, struct uring_conn *conn)
{
    enum { ROUNDS_MAX = 64 };
    char bytes[4096];
    for (int round = 0; round < ROUNDS_MAX; round++) {
        bool is_heard = conn->state == URING_OPEN && !must_hold(conn);
        ssize_t size = is_heard ? recv(conn->fd, bytes, sizeof(bytes), MSG_DONTWAIT) : 0;
        if (size <= 0) {
            return;
        }
        tell_rx(uring, conn, bytes, (size_t)size);
    }
}

/* The multishot receive has ended, for whatever reason. */
static void recv_ended(struct uring *uring, struct uring_conn *conn, int result)
{
    uring_conn_op_ended(uring, conn, URING_OP_RECV);
    conn->flags &= (uint16_t)~URING_RX_CANCELLED;
    uring->is_rx_short |= result == -ENOBUFS;
    bool is_passing = result > 0 || result == -ENOBUFS || result == -ECANCELED ||
                      result == -EAGAIN || result == -EINTR;
    if (conn->state == URING_CLOSING) {
        return;
    }
    if ((conn->flags & URING_BROKEN) != 0) {
        tell_last_words(uring, conn);
        uring_conn_end(uring, conn, conn->open.error);
    } else if (is_passing) {
        uring_rx_arm(uring, conn);
    } else if (result == 0) {
        conn->flags |= URING_RX_ENDED;
        if (must_hold(conn)) {
            conn->flags |= URING_FIN_HELD;
        } else {
            tell_fin(uring, conn);
        }
    } else {
        uring_conn_end(uring, conn, uring_error_of(-result));
    }
}

void uring_rx_on_recv(struct uring *uring, struct uring_conn *conn, int result, unsigned flags)
{
    if ((flags & IORING_CQE_F_BUFFER) != 0) {
        received(uring, conn, flags, result > 0 ? (size_t)result : 0);
    }
    if ((flags & IORING_CQE_F_MORE) == 0) {
        recv_ended(uring, conn, result);
    }
}

void uring_rx_cancel(struct uring *uring, struct uring_conn *conn)
{
    if ((conn->flags & URING_RX_CANCELLED) == 0) {
        struct io_uring_sqe *sqe = uring_sqe(uring, 0);
        io_uring_prep_cancel64(sqe, uring_user_data(conn, URING_OP_RECV), 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
        conn->flags |= URING_RX_CANCELLED;
    }
}

static void rx_stop(struct uring *uring, struct uring_conn *conn)
{
    conn->flags |= URING_RX_STOPPED;
    if ((conn->ops & 1u << URING_OP_RECV) != 0) {
        uring_rx_cancel(uring, conn);
    } else {
        watch(uring, conn);
    }
}

int uring_rx_stop(struct net_loop *loop, struct net_conn_id id, bool is_stopped)
{
    struct uring *uring = uring_of(loop);
    struct uring_conn *conn = uring_conn_find(uring, id);
    if (conn == NULL || conn->state > URING_OPEN) {
        return -ESTALE;
    }
    if (is_stopped == ((conn->flags & URING_RX_STOPPED) != 0)) {
        return 0;
    }
    if (conn->state == URING_CONNECTING) {
        conn->flags ^= URING_RX_STOPPED;
        return 0;
    }
    if (is_stopped) {
        rx_stop(uring, conn);
        return 0;
    }
    conn->flags &= (uint16_t)~URING_RX_STOPPED;
    unwatch(uring, conn);
    if (conn->open.held_first != NULL || (conn->flags & URING_FIN_HELD) != 0) {
        uring_conn_add_pending(uring, conn);
    } else {
        uring_rx_arm(uring, conn);
    }
    return 0;
}

static void accept_arm(struct uring *uring, uint32_t index)
{
    struct io_uring_sqe *sqe =
        uring_sqe(uring, (uint64_t)URING_OP_ACCEPT << URING_OP_SHIFT | index);
    io_uring_prep_multishot_accept(sqe, uring->listeners[index].fd, NULL, NULL, SOCK_CLOEXEC);
    uring->listeners[index].is_armed = true;
}

static int listener_open(const struct net_addr *local, uint32_t backlog, struct net_addr *ret_bound)
{
    int family = local->family == NET_IP6 ? AF_INET6 : AF_INET;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) {
        return -errno;
    }
    union uring_address address;
    socklen_t size = uring_address_of(local, &address);
    int on = 1;
    /* TCP_NODELAY is inherited by what is accepted. */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        (family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(fd, &address.any, size) != 0 || listen(fd, (int)backlog) != 0 ||
        getsockname(fd, &address.any, &size) != 0) {
        int error = errno;
        (void)close(fd);
        return -error;
    }
    *ret_bound = *local;
    ret_bound->port = ntohs(family == AF_INET ? address.ip4.sin_port : address.ip6.sin6_port);
    return fd;
}

int uring_listen(struct net_loop *loop, const struct net_addr *local, uint32_t backlog, void *user,
                 struct net_addr *ret_bound)
{
    struct uring *uring = uring_of(loop);
    uring_start(uring);
    if (uring->listeners_count == URING_LISTENERS_MAX) {
        return -ENOBUFS;
    }
    int fd = listener_open(local, backlog, ret_bound);
    if (fd < 0) {
        return fd;
    }
    uring->listeners[uring->listeners_count] = (struct uring_listener){.fd = fd, .user = user};
    accept_arm(uring, uring->listeners_count++);
    return 0;
}

void uring_rx_accept_again(struct uring *uring)
{
    uring->accept_at = MONO_NEVER;
    for (uint32_t i = 0; i < uring->listeners_count; i++) {
        if (!uring->listeners[i].is_armed) {
            accept_arm(uring, i);
        }
    }
}

static void accepted(struct uring *uring, const struct uring_listener *listener, int fd)
{
    struct uring_conn *conn = uring_conn_take(uring, URING_OPEN, fd, listener->user);
    if (conn == NULL) {
        odd(net_accept_table_full);
        uring_set_reset(fd);
        (void)close(fd);
        return;
    }
    uring_tell(uring, &(struct net_event){
                          .kind = NET_ACCEPTED, .conn = {.value = conn->id}, .user = conn->user});
    uring_rx_arm(uring, conn);
}

void uring_rx_on_accept(struct uring *uring, uint32_t index, int result, unsigned flags)
{
    ensure(index < uring->listeners_count);
    struct uring_listener *listener = &uring->listeners[index];
    if (result >= 0) {
        accepted(uring, listener, result);
    }
    if ((flags & IORING_CQE_F_MORE) != 0) {
        return;
    }
    listener->is_armed = false;
    if (result == -EMFILE || result == -ENFILE || result == -ENOBUFS || result == -ENOMEM) {
        /* Descriptors have run out: let some be closed first. The backlog holds what comes. */
        odd(net_accept_no_socket);
        uring->accept_at = mono_add_ms(clock_mono(uring->config.clock), URING_ACCEPT_RETRY_MS);
    } else {
        accept_arm(uring, index);
    }
}
