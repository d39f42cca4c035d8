/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/uio.h>

#include "net/uring/uring_priv.h"

static struct uring_tx *block_take(struct uring *uring)
{
    struct uring_tx *tx = slab_take(&uring->txs);
    ensure(tx != NULL); /* there are enough for every connection's bound */
    tx->next = NULL;
    tx->last = tx;
    tx->segments_count = 0;
    tx->first = 0;
    tx->end = 0;
    tx->submitted_end = 0;
    tx->copies_size = 0;
    return tx;
}

void uring_tx_drop(struct uring *uring, struct uring_conn *conn)
{
    while (conn->tx != NULL) {
        struct uring_tx *tx = conn->tx;
        conn->tx = tx->next;
        slab_give(&uring->txs, tx);
    }
}

void uring_tx_mark_dirty(struct uring *uring, struct uring_conn *conn)
{
    if (!list_is_linked(&conn->dirty)) {
        list_add_last(&uring->dirty, &conn->dirty);
    }
}

/* The block that takes the segment: the last one, or a new one behind it. */
static struct uring_tx *block_for(struct uring *uring, struct uring_conn *conn,
                                  const struct net_segment *segment)
{
    if (conn->tx == NULL) {
        conn->tx = block_take(uring);
    }
    struct uring_tx *tx = conn->tx->last;
    bool has_room = tx->end < URING_TX_ENTRIES &&
                    (!segment->is_copied || tx->copies_size + segment->size <= URING_TX_COPIES);
    if (!has_room) {
        tx->next = block_take(uring);
        tx = tx->next;
        conn->tx->last = tx;
    }
    return tx;
}

static void queue_lent(struct uring_tx *tx, const struct net_segment *segment)
{
    tx->entries[tx->end] =
        (struct iovec){.iov_base = (void *)(uintptr_t)segment->at, .iov_len = segment->size};
    tx->segments[tx->end] = 1;
    tx->end++;
}

/* As a part of the last entry when that is a copy too: even of one on its way, whose operation then
 * leaves the rest of it. */
static void queue_copy(struct uring_tx *tx, const struct net_segment *segment)
{
    char *copy = tx->copies + tx->copies_size;
    memcpy(copy, segment->at, segment->size);
    tx->copies_size = (uint16_t)(tx->copies_size + segment->size);
    if (tx->end > tx->first) {
        struct iovec *last = &tx->entries[tx->end - 1];
        if ((char *)last->iov_base + last->iov_len == copy) {
            last->iov_len += segment->size;
            tx->segments[tx->end - 1]++;
            return;
        }
    }
    queue_lent(tx, &(struct net_segment){.at = copy, .size = segment->size});
}

static void queue(struct uring *uring, struct uring_conn *conn, const struct net_segment *segment)
{
    ensure(!segment->is_copied || segment->size <= NET_COPY_MAX);
    struct uring_tx *tx = block_for(uring, conn, segment);
    conn->tx->segments_count++;
    if (segment->is_copied) {
        queue_copy(tx, segment);
    } else {
        queue_lent(tx, segment);
    }
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
            queue(uring, conn, &segments[i]);
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

/* Several small entries become one copy: it costs less than what the kernel does for a vector. */
static void gather(struct uring_tx *tx, size_t size)
{
    char *copy = tx->copies + tx->copies_size;
    uint32_t segments_count = 0;
    for (uint32_t i = tx->first; i < tx->end; i++) {
        copy = mempcpy(copy, tx->entries[i].iov_base, tx->entries[i].iov_len);
        segments_count += tx->segments[i];
    }
    tx->entries[tx->first] =
        (struct iovec){.iov_base = tx->copies + tx->copies_size, .iov_len = size};
    tx->segments[tx->first] = (uint8_t)segments_count;
    tx->copies_size = (uint16_t)(tx->copies_size + size);
    tx->end = (uint8_t)(tx->first + 1);
}

/* How many entries the next operation takes: what the bound allows, but one at least. */
static uint32_t entries_for_one(const struct uring_tx *tx, size_t *ret_size)
{
    uint32_t count = 1;
    size_t size = tx->entries[tx->first].iov_len;
    while (tx->first + count < tx->end &&
           size + tx->entries[tx->first + count].iov_len <= URING_TX_SIZE_MAX) {
        size += tx->entries[tx->first + count].iov_len;
        count++;
    }
    *ret_size = size;
    return count;
}

/* MSG_WAITALL makes the kernel finish what did not fit at once. */
static void submit_send(struct uring *uring, struct uring_conn *conn)
{
    struct uring_tx *tx = conn->tx;
    ensure(tx->first < tx->end);
    size_t size;
    uint32_t count = entries_for_one(tx, &size);
    if (count > 1 && tx->first + count == tx->end &&
        size <= (size_t)URING_TX_COPIES - tx->copies_size) {
        gather(tx, size);
        count = 1;
    }
    struct iovec *entries = &tx->entries[tx->first];
    bool has_more = tx->first + count < tx->end || tx->next != NULL || size > URING_TX_SIZE_MAX;
    int flags = MSG_NOSIGNAL | MSG_WAITALL;
    flags |= has_more || (conn->flags & URING_TX_MORE) != 0 ? MSG_MORE : 0;
    struct io_uring_sqe *sqe = uring_sqe(uring, uring_user_data(conn, URING_OP_SEND));
    if (count == 1) {
        size = size < URING_TX_SIZE_MAX ? size : URING_TX_SIZE_MAX;
        io_uring_prep_send(sqe, conn->fd, entries->iov_base, size, flags);
    } else {
        tx->message = (struct msghdr){.msg_iov = entries, .msg_iovlen = count};
        io_uring_prep_sendmsg(sqe, conn->fd, &tx->message, (unsigned)flags);
    }
    tx->submitted_end = (uint8_t)(tx->first + count);
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

/* Takes `size` sent bytes off the block; returns how many segments were finished. */
static uint32_t consume(struct uring_tx *tx, size_t size)
{
    uint32_t finished_count = 0;
    while (size > 0) {
        ensure(tx->first < tx->submitted_end);
        struct iovec *entry = &tx->entries[tx->first];
        if (entry->iov_len > size) {
            entry->iov_base = (char *)entry->iov_base + size;
            entry->iov_len -= size;
            break;
        }
        size -= entry->iov_len;
        finished_count += tx->segments[tx->first];
        tx->first++;
    }
    tx->submitted_end = 0;
    return finished_count;
}

/* The oldest block is sent: what it kept for the chain goes to the next. */
static void block_give(struct uring *uring, struct uring_conn *conn)
{
    struct uring_tx *tx = conn->tx;
    conn->tx = tx->next;
    if (conn->tx != NULL) {
        conn->tx->last = tx->last;
        conn->tx->segments_count = tx->segments_count;
    } else {
        ensure(tx->segments_count == 0);
    }
    slab_give(&uring->txs, tx);
}

/* The peer is gone. What it had said before may still be on its way up (a "421" before the reset):
 * the receive is ended, tells what there is, and then CLOSED. */
static void send_failed(struct uring *uring, struct uring_conn *conn, int error)
{
    bool is_gone = error == EPIPE || error == ECONNRESET || error == ETIMEDOUT;
    bool hears = (conn->ops & 1u << URING_OP_RECV) != 0 && (conn->flags & URING_RX_STOPPED) == 0;
    if (!is_gone || !hears || conn->state != URING_OPEN) {
        uring_conn_end(uring, conn, uring_error_of(error));
        return;
    }
    conn->flags |= URING_BROKEN;
    conn->open.error = uring_error_of(error);
    uring_tx_drop(uring, conn);
    uring_rx_cancel(uring, conn);
}

static void sent(struct uring *uring, struct uring_conn *conn, size_t size)
{
    struct uring_tx *tx = conn->tx;
    tx->segments_count = (uint8_t)(tx->segments_count - consume(tx, size));
    if (tx->first == tx->end) {
        block_give(uring, conn);
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
        conn->tx->submitted_end = 0;
        uring_tx_mark_dirty(uring, conn);
    } else {
        ensure(result < 0);
        send_failed(uring, conn, -result);
    }
}
