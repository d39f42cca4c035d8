/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "net/uring/uring_priv.h"

#define BIT(state) (1u << (state))

static const uint8_t ALLOWED[] = {
    [URING_CONNECTING] = BIT(URING_OPEN) | BIT(URING_CLOSING),
    [URING_OPEN] = BIT(URING_FLUSHING) | BIT(URING_CLOSING),
    [URING_FLUSHING] = BIT(URING_CLOSING),
    [URING_CLOSING] = 0,
};
static_assert(COUNT_OF(ALLOWED) == URING_STATES_COUNT, "every state has its row");

void uring_conn_enter(struct uring_conn *conn, enum uring_state state)
{
    ensure((ALLOWED[conn->state] & BIT(state)) != 0);
    conn->state = (uint8_t)state;
}

enum net_error uring_error_of(int error)
{
    switch (error) {
    case 0:
        return NET_OK;
    case ECONNREFUSED:
        return NET_REFUSED;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return NET_RESET;
    case ETIMEDOUT:
        return NET_TIMEOUT;
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENONET:
        return NET_UNREACHABLE;
    case EADDRNOTAVAIL:
    case EADDRINUSE:
        return NET_NO_PORT; /* what bind says never comes here */
    case EACCES:
    case EPERM:
        return NET_FORBIDDEN;
    default:
        return NET_FAILED;
    }
}

socklen_t uring_address_of(const struct net_addr *addr, union uring_address *ret_address)
{
    *ret_address = (union uring_address){0};
    if (addr->family == NET_IP4) {
        ret_address->ip4.sin_family = AF_INET;
        ret_address->ip4.sin_port = htons(addr->port);
        memcpy(&ret_address->ip4.sin_addr, addr->bytes, 4);
        return sizeof(ret_address->ip4);
    }
    ensure(addr->family == NET_IP6);
    ret_address->ip6.sin6_family = AF_INET6;
    ret_address->ip6.sin6_port = htons(addr->port);
    memcpy(&ret_address->ip6.sin6_addr, addr->bytes, 16);
    return sizeof(ret_address->ip6);
}

struct uring_conn *uring_conn_take(struct uring *uring, enum uring_state state, int fd, void *user)
{
    struct uring_conn *conn = slab_take(&uring->conns);
    if (conn == NULL) {
        return NULL;
    }
    *conn = (struct uring_conn){
        .id = handle_to_u64(slab_handle(&uring->conns, conn)),
        .user = user,
        .fd = fd,
        .state = (uint8_t)state,
    };
    list_init(&conn->dirty);
    list_init(&conn->pending);
    return conn;
}

void uring_conn_add_pending(struct uring *uring, struct uring_conn *conn)
{
    if (!list_is_linked(&conn->pending)) {
        list_add_last(&uring->pending, &conn->pending);
    }
}

static void on_connect_timeout(struct timer *timer, struct mono_time now)
{
    (void)now;
    struct uring_conn *conn = CONTAINER_OF(timer, struct uring_conn, connecting.timer);
    ensure(conn->state == URING_CONNECTING);
    uring_conn_end(conn->connecting.uring, conn, NET_TIMEOUT);
}

/* 0, or -errno: the source cannot be bound. The port is chosen at connect, when the whole pair is
 * known: no port is used up by a bind. */
static int bind_source(int fd, const struct net_addr *source)
{
    if (source->family == NET_NONE) {
        return 0;
    }
    int on = 1;
    union uring_address address;
    socklen_t size = uring_address_of(source, &address);
    int level_result = setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    (void)level_result; /* without it the source has fewer ports, nothing else */
    return bind(fd, &address.any, size) == 0 ? 0 : -errno;
}

static void submit_connect(struct uring *uring, struct uring_conn *conn, socklen_t address_size)
{
    struct io_uring_sqe *sqe = uring_sqe(uring, uring_user_data(conn, URING_OP_CONNECT));
    io_uring_prep_connect(sqe, conn->fd, &conn->connecting.address.any, address_size);
    conn->ops |= 1u << URING_OP_CONNECT;
}

int uring_connect(struct net_loop *loop, const struct net_addr *source,
                  const struct net_addr *destination, uint32_t timeout_ms, void *user,
                  struct net_conn_id *ret_conn)
{
    struct uring *uring = uring_of(loop);
    ensure(destination->family == NET_IP4 || destination->family == NET_IP6);
    uring_start(uring);
    if (slab_left(&uring->conns) == 0) {
        return -ENOBUFS;
    }
    int family = destination->family == NET_IP4 ? AF_INET : AF_INET6;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) {
        odd(net_no_socket);
        return -ENOBUFS;
    }
    struct uring_conn *conn = uring_conn_take(uring, URING_CONNECTING, fd, user);
    ensure(conn != NULL);
    timer_init(&conn->connecting.timer, on_connect_timeout);
    conn->connecting.uring = uring;
    *ret_conn = (struct net_conn_id){.value = conn->id};
    if (bind_source(fd, source) < 0) {
        uring_conn_end(uring, conn, NET_NO_SOURCE);
        return 0;
    }
    int on = 1;
    ensure(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    submit_connect(uring, conn, uring_address_of(destination, &conn->connecting.address));
    timer_set(&uring->wheel, &conn->connecting.timer,
              mono_add_ms(clock_mono(uring->config.clock), timeout_ms));
    return 0;
}

void uring_conn_on_connect(struct uring *uring, struct uring_conn *conn, int result)
{
    if (conn->state == URING_CONNECTING && result == 0) {
        timer_cancel(&uring->wheel, &conn->connecting.timer);
        conn->open.held_first = NULL;
        conn->open.held_last = NULL;
        uring_conn_enter(conn, URING_OPEN);
        conn->ops &= (uint8_t) ~(1u << URING_OP_CONNECT);
        if (conn->tx != NULL || (conn->flags & URING_FIN_WANTED) != 0) {
            uring_tx_mark_dirty(uring, conn);
        }
        uring_tell(uring, &(struct net_event){.kind = NET_CONNECTED,
                                              .conn = {.value = conn->id},
                                              .user = conn->user});
        uring_rx_arm(uring, conn);
        return;
    }
    if (conn->state == URING_CONNECTING) {
        uring_conn_end(uring, conn, uring_error_of(-result));
    }
    uring_conn_op_ended(uring, conn, URING_OP_CONNECT);
}

static void cancel_op(struct uring *uring, struct uring_conn *conn, enum uring_op op)
{
    if ((conn->ops & 1u << op) != 0) {
        struct io_uring_sqe *sqe = uring_sqe(uring, 0);
        io_uring_prep_cancel64(sqe, uring_user_data(conn, op), 0);
        sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    }
}

/* The close may stand behind the cancels in the same submission: they run in order, and the socket
 * lives until the last operation on it lets go, which the cancels bring about. */
void uring_conn_end(struct uring *uring, struct uring_conn *conn, enum net_error error)
{
    if (conn->state == URING_CLOSING) {
        return;
    }
    if (conn->state == URING_CONNECTING) {
        timer_cancel(&uring->wheel, &conn->connecting.timer);
        conn->open.held_first = NULL;
        conn->open.held_last = NULL;
    }
    uring_conn_enter(conn, URING_CLOSING);
    conn->open.error = error;
    cancel_op(uring, conn, URING_OP_CONNECT);
    cancel_op(uring, conn, URING_OP_SEND);
    if ((conn->flags & URING_RX_CANCELLED) == 0) {
        cancel_op(uring, conn, URING_OP_RECV);
    }
    struct io_uring_sqe *sqe = uring_sqe(uring, 0);
    io_uring_prep_close(sqe, conn->fd);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    conn->fd = -1;
    if (conn->ops == 0) {
        uring_conn_add_pending(uring, conn);
    }
}

void uring_conn_op_ended(struct uring *uring, struct uring_conn *conn, enum uring_op op)
{
    ensure((conn->ops & 1u << op) != 0);
    conn->ops &= (uint8_t) ~(1u << op);
    if (conn->state == URING_CLOSING && conn->ops == 0) {
        uring_conn_add_pending(uring, conn);
    }
}

static void give(struct uring *uring, struct uring_conn *conn)
{
    list_remove(&conn->dirty);
    uring_tx_drop(uring, conn);
    uring_rx_drop_held(uring, conn);
    slab_give(&uring->conns, conn);
}

void uring_conn_finish(struct uring *uring, struct uring_conn *conn)
{
    ensure(conn->state == URING_CLOSING);
    ensure(conn->ops == 0);
    ensure(!list_is_linked(&conn->pending));
    struct net_event event = {
        .kind = NET_CLOSED,
        .error = conn->open.error,
        .conn = {.value = conn->id},
        .user = conn->user,
    };
    give(uring, conn);
    uring_tell(uring, &event);
}

void uring_conn_drop(struct uring *uring, struct uring_conn *conn)
{
    if (conn->state == URING_CONNECTING) {
        timer_cancel(&uring->wheel, &conn->connecting.timer);
        conn->open.held_first = NULL;
    }
    if (conn->fd >= 0) {
        uring_set_reset(conn->fd);
        (void)close(conn->fd);
    }
    list_remove(&conn->pending);
    give(uring, conn);
}

void uring_set_reset(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* A close with unread bytes makes the kernel send RST and forget what it has not yet delivered; so
 * they are thrown away first. Only a stopped receive leaves any. */
static void discard_unread(const struct uring_conn *conn)
{
    enum { ROUNDS_MAX = 64 };
    char bytes[4096];
    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (recv(conn->fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

void uring_conn_end_flushed(struct uring *uring, struct uring_conn *conn)
{
    if ((conn->flags & URING_RX_STOPPED) != 0) {
        discard_unread(conn);
    }
    uring_conn_end(uring, conn, NET_OK);
}

int uring_close(struct net_loop *loop, struct net_conn_id id, bool is_abort)
{
    struct uring *uring = uring_of(loop);
    struct uring_conn *conn = uring_conn_find(uring, id);
    if (conn == NULL) {
        return -ESTALE;
    }
    if (conn->state == URING_CLOSING) {
        return 0;
    }
    if (is_abort) {
        uring_set_reset(conn->fd);
        uring_conn_end(uring, conn, NET_ABORTED);
    } else if (conn->state == URING_CONNECTING) {
        uring_conn_end(uring, conn, NET_OK);
    } else if (conn->state == URING_OPEN && (conn->flags & URING_BROKEN) != 0) {
        uring_conn_end(uring, conn, conn->open.error);
    } else if (conn->state == URING_OPEN && conn->tx == NULL) {
        uring_conn_end_flushed(uring, conn);
    } else if (conn->state == URING_OPEN) {
        conn->flags &= (uint16_t)~URING_TX_MORE;
        uring_conn_enter(conn, URING_FLUSHING);
    }
    return 0;
}
