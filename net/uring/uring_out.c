/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/uio.h>

#include "net/uring/uring_priv.h"

static struct uring_tx *tx_take(struct uring *uring)
{
    struct uring_tx *tx = slab_take(&uring->txs);
    ensure(tx != NULL); /* there is one for every connection */
    tx->first = 0;
    tx->count = 0;
    tx->submitted_count = 0;
    tx->segments_count = 0;
    tx->copy_head = 0;
    tx->copy_tail = 0;
    return tx;
}

void uring_tx_drop(struct uring *uring, struct uring_conn *conn)
{
    if (conn->tx != NULL) {
        slab_give(&uring->txs, conn->tx);
        conn->tx = NULL;
    }
}

void uring_tx_mark_dirty(struct uring *uring, struct uring_conn *conn)
{
    if (!list_is_linked(&conn->dirty)) {
        list_add_last(&uring->dirty, &conn->dirty);
    }
}

static bool is_copy(const struct uring_tx *tx, const void *at)
{
    return (const char *)at >= tx->copies && (const char *)at < tx->copies + URING_TX_COPIES;
}

/* Room for `size` bytes in one piece. There always is: the segment bound and the spare NET_COPY_MAX
 * see to it. */
static char *copy_room(struct uring_tx *tx, uint32_t size)
{
    uint32_t at = tx->copy_tail;
    if (tx->copy_tail >= tx->copy_head && URING_TX_COPIES - tx->copy_tail < size) {
        at = 0;
        ensure(size < tx->copy_head);
    }
    ensure(tx->copy_tail >= tx->copy_head || size < tx->copy_head - tx->copy_tail);
    tx->copy_tail = at + size;
    return tx->copies + at;
}

static struct iovec *entry_at(struct uring_tx *tx, uint32_t offset)
{
    return &tx->entries[(tx->first + offset) & URING_TX_MASK];
}

/* Queues one segment, as a part of the last entry when it continues that. */
static void tx_add(struct uring_tx *tx, const struct net_segment *segment)
{
    const void *at = segment->at;
    if (segment->is_copied) {
        ensure(segment->size <= NET_COPY_MAX);
        at = memcpy(copy_room(tx, segment->size), segment->at, segment->size);
    }
    tx->segments_count++;
    if (segment->is_copied && tx->count > tx->submitted_count) {
        struct iovec *last = entry_at(tx, tx->count - 1);
        if ((char *)last->iov_base + last->iov_len == at && is_copy(tx, last->iov_base)) {
            last->iov_len += segment->size;
            tx->segments[(tx->first + tx->count - 1) & URING_TX_MASK]++;
            return;
        }
    }
    ensure(tx->count < NET_SEND_SEGMENTS_MAX);
    *entry_at(tx, tx->count) =
        (struct iovec){.iov_base = (void *)(uintptr_t)at, .iov_len = segment->size};
    tx->segments[(tx->first + tx->count) & URING_TX_MASK] = 1;
    tx->count++;
}

int uring_send(struct net_loop *loop, struct net_conn_id id, const struct net_segment *segments,
               size_t segments_count, unsigned flags)
{
    struct uring *uring = uring_of(loop);
    struct uring_conn *conn = uring_conn_find(uring, id);
    if (conn == NULL || conn->state > URING_OPEN) {
        return -ESTALE;
    }
    ensure(segments_count <= NET_SEND_SEGMENTS_MAX);
    ensure((conn->flags & URING_FIN_WANTED) == 0);
    if ((conn->flags & URING_BROKEN) != 0) {
        return 0; /* CLOSED is on its way */
    }
    if (conn->tx != NULL && conn->tx->segments_count + segments_count > NET_SEND_SEGMENTS_MAX) {
        return -EAGAIN;
    }
    for (size_t i = 0; i < segments_count; i++) {
        if (segments[i].size > 0) {
            conn->tx = conn->tx != NULL ? conn->tx : tx_take(uring);
            tx_add(conn->tx, &segments[i]);
        }
    }
    conn->flags &= (uint16_t)~URING_TX_MORE;
    conn->flags |= (flags & NET_MORE) != 0 ? URING_TX_MORE : 0;
    conn->flags |= (flags & NET_FIN) != 0 ? URING_FIN_WANTED : 0;
    if (conn->state == URING_OPEN) {
        uring_tx_mark_dirty(uring, conn);
    }
    return 0;
}

/* Entries up to the ring's end go into one operation; MSG_WAITALL makes the kernel finish what did
 * not fit at once. */
static void submit_send(struct uring *uring, struct uring_conn *conn)
{
    struct uring_tx *tx = conn->tx;
    uint32_t start = tx->first & URING_TX_MASK;
    uint32_t run = NET_SEND_SEGMENTS_MAX - start;
    run = tx->count < run ? tx->count : run;
    int flags = MSG_NOSIGNAL | MSG_WAITALL;
    flags |= run < tx->count || (conn->flags & URING_TX_MORE) != 0 ? MSG_MORE : 0;
    struct io_uring_sqe *sqe = uring_sqe(uring, uring_user_data(conn, URING_OP_SEND));
    if (run == 1) {
        io_uring_prep_send(sqe, conn->fd, tx->entries[start].iov_base, tx->entries[start].iov_len,
                           flags);
    } else {
        tx->message = (struct msghdr){.msg_iov = &tx->entries[start], .msg_iovlen = run};
        io_uring_prep_sendmsg(sqe, conn->fd, &tx->message, (unsigned)flags);
    }
    tx->submitted_count = run;
    conn->ops |= 1u << URING_OP_SEND;
}

/* Half closes when that is wanted and all is sent. */
static void fin_step(struct uring_conn *conn)
{
    if ((conn->flags & (URING_FIN_WANTED | URING_FIN_SENT)) == URING_FIN_WANTED) {
        conn->flags |= URING_FIN_SENT;
        (void)shutdown(conn->fd, SHUT_WR); /* a dead peer shows at the receive */
    }
}

void uring_tx_flush(struct uring *uring)
{
    struct list *node;
    while ((node = list_take_first(&uring->dirty)) != NULL) {
        struct uring_conn *conn = CONTAINER_OF(node, struct uring_conn, dirty);
        if (conn->state == URING_CLOSING || (conn->ops & 1u << URING_OP_SEND) != 0) {
            continue;
        }
        if (conn->tx != NULL) {
            submit_send(uring, conn);
        } else {
            fin_step(conn);
        }
    }
}

/* Takes `size` sent bytes off the queue. */
static void tx_consume(struct uring_tx *tx, size_t size)
{
    while (size > 0) {
        ensure(tx->count > 0);
        struct iovec *entry = entry_at(tx, 0);
        if (entry->iov_len > size) {
            entry->iov_base = (char *)entry->iov_base + size;
            entry->iov_len -= size;
            return;
        }
        size -= entry->iov_len;
        if (is_copy(tx, entry->iov_base)) {
            tx->copy_head = (uint32_t)((char *)entry->iov_base + entry->iov_len - tx->copies);
        }
        tx->segments_count -= tx->segments[tx->first & URING_TX_MASK];
        tx->first++;
        tx->count--;
    }
}

/* The peer is gone. What it had said before may still be on its way up (a "421" before the reset):
 * the receive, which ends by itself, brings it, and then CLOSED. */
static void send_failed(struct uring *uring, struct uring_conn *conn, int error)
{
    bool is_gone = error == EPIPE || error == ECONNRESET || error == ETIMEDOUT;
    bool hears = (conn->ops & 1u << URING_OP_RECV) != 0 &&
                 (conn->flags & (URING_RX_STOPPED | URING_RX_CANCELLED)) == 0;
    if (!is_gone || !hears || conn->state != URING_OPEN) {
        uring_conn_end(uring, conn, uring_error_of(error));
        return;
    }
    conn->flags |= URING_BROKEN;
    conn->open.error = uring_error_of(error);
    uring_tx_drop(uring, conn);
}

static void sent(struct uring *uring, struct uring_conn *conn, size_t size)
{
    struct uring_tx *tx = conn->tx;
    tx->submitted_count = 0;
    if (tx->count == 1 && tx->entries[tx->first & URING_TX_MASK].iov_len == size) {
        uring_tx_drop(uring, conn);
    } else {
        tx_consume(tx, size);
        if (tx->count == 0) {
            uring_tx_drop(uring, conn);
        }
    }
    if (conn->tx != NULL) {
        uring_tx_mark_dirty(uring, conn);
    } else {
        fin_step(conn);
    }
    uring_tell(uring, &(struct net_event){.kind = NET_TXDONE,
                                          .conn = {.value = conn->id},
                                          .user = conn->user,
                                          .txdone_size = size});
    if (conn->state == URING_FLUSHING && conn->tx == NULL) {
        uring_conn_end_flushed(uring, conn);
    }
}

void uring_tx_on_send(struct uring *uring, struct uring_conn *conn, int result)
{
    uring_conn_op_ended(uring, conn, URING_OP_SEND);
    if (conn->state == URING_CLOSING) {
        return;
    }
    ensure(conn->tx != NULL);
    if (result > 0) {
        sent(uring, conn, (size_t)result);
    } else if (result == -EAGAIN || result == -EINTR) {
        conn->tx->submitted_count = 0;
        uring_tx_mark_dirty(uring, conn);
    } else {
        ensure(result < 0);
        send_failed(uring, conn, -result);
    }
}
