/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net: the transport seam: connect, send, receive, close. One contract for io_uring, our own TCP
 * and the simulated network.
 *
 * One `struct net_loop` belongs to one actor (a worker; in bench/ a thread). A connection is named
 * by a `struct net_conn_id` (index and generation): stale ids are rejected with -ESTALE. Everything
 * that happens is told by the one callback given at creation, and only from within net_run_once of
 * the owning thread.
 *
 * Events of one connection:
 *   CONNECTED      a connect of ours is established
 *   ACCEPTED       a listener got a new connection (`conn` is the new one, `user` the
 *                  listener's); name its user with net_set_user
 *   RX             bytes came; `rx` is lent until the callback returns
 *   TXDONE         the next `txdone_size` bytes of what was sent may be reused, in the order
 *                  of the sends
 *   PEER_FIN       the peer will send no more; sending is still allowed
 *   CLOSED         the end, with `error` (NET_OK after a graceful close of ours): always comes,
 *                  exactly once, and nothing after it. Memory of segments not yet told TXDONE
 *                  may be reused from here on.
 *
 * Sending never blocks: what is queued is bounded by NET_SEND_SEGMENTS_MAX segments a connection;
 * beyond that net_send takes nothing and returns -EAGAIN, and a TXDONE follows. A segment with
 * `is_copied` (at most NET_COPY_MAX bytes) is copied at once; any other memory must stay unchanged
 * until TXDONE or CLOSED. Each net_send is one piece on the wire where the transport can do so.
 *
 * A closed or reset peer shows as CLOSED(NET_RESET ..), never as a signal or as an error return of
 * send.
 *
 * What may be asked when: sends before CONNECTED wait for it. After net_close only TXDONE and
 * CLOSED come, and net_send and net_rx_stop return -ESTALE; a second close may turn a graceful one
 * into an abort. A close before CONNECTED gives the connect up, with what was queued. Two half
 * closes do not make a CLOSED: the end is asked for by net_close, or forced by an error. It is a
 * bug to send after NET_FIN, more than NET_SEND_SEGMENTS_MAX segments in one call, or a copied
 * segment longer than NET_COPY_MAX.
 *
 * Bounds: connections <= conns_max (net_connect returns -ENOBUFS), work per net_run_once bounded by
 * the implementation. One conformance suite (tests/unit/net/net_suite) runs against every
 * implementation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/inbox.h"
#include "net/addr.h"

struct net_conn_id {
    uint64_t value; /* 0 is never valid */
};

enum net_error {
    NET_OK,
    NET_REFUSED,
    NET_RESET,
    NET_TIMEOUT,     /* the connect's timeout, or TCP gave up */
    NET_UNREACHABLE, /* no route, host or network unreachable */
    NET_NO_SOURCE,   /* the source address cannot be bound here */
    NET_NO_PORT,     /* no local port, or address, is free to connect from */
    NET_FORBIDDEN,   /* by a firewall or a route of this machine */
    NET_ABORTED,     /* our own net_close with abort */
    NET_FAILED,      /* anything else */
};
enum { NET_ERRORS_COUNT = NET_FAILED + 1 };

enum net_event_kind {
    NET_CONNECTED,
    NET_ACCEPTED,
    NET_RX,
    NET_TXDONE,
    NET_PEER_FIN,
    NET_CLOSED,
};

struct net_event {
    enum net_event_kind kind;
    enum net_error error;
    struct net_conn_id conn;
    void *user;
    struct span rx;
    size_t txdone_size;
};

struct net_segment {
    const void *at;
    uint32_t size;
    bool is_copied;
};

enum {
    NET_SEND_SEGMENTS_MAX = 64, /* queued segments a connection, all sends together */
    NET_COPY_MAX = 256,
};

enum net_send_flags {
    NET_MORE = 1u << 0, /* more follows at once: the transport may wait for it */
    NET_FIN = 1u << 1,  /* and then no more: half close */
};

struct net_config {
    uint32_t conns_max;
    const struct clock *clock;
    struct waker *waker; /* of the owning actor; NULL in bench programs */
    void (*on_event)(void *context, const struct net_event *event);
    void *context;
};

struct net_loop;

struct net_ops {
    /* `source` with NET_NONE or port 0 lets the system choose. 0, or -ENOBUFS when the table is
     * full. CONNECTED or CLOSED follows, never from within this call. */
    int (*connect)(struct net_loop *loop, const struct net_addr *source,
                   const struct net_addr *destination, uint32_t timeout_ms, void *user,
                   struct net_conn_id *ret_conn);
    /* For servers of tests and bench. The port actually bound is in `ret_bound`. 0 or -errno. */
    int (*listen)(struct net_loop *loop, const struct net_addr *local, uint32_t backlog, void *user,
                  struct net_addr *ret_bound);
    /* 0, -EAGAIN (nothing taken), -ESTALE. */
    int (*send)(struct net_loop *loop, struct net_conn_id conn, const struct net_segment *segments,
                size_t segments_count, unsigned flags);
    /* No RX events while stopped; the peer feels it by the closing window. */
    int (*rx_stop)(struct net_loop *loop, struct net_conn_id conn, bool is_stopped);
    /* Graceful (what is queued is sent, then FIN) or abort (RST). CLOSED always follows, never from
     * within this call. Idempotent. */
    int (*close)(struct net_loop *loop, struct net_conn_id conn, bool is_abort);
    int (*set_user)(struct net_loop *loop, struct net_conn_id conn, void *user);
    /* Submits what was asked, dispatches events of what has come; returns when it wants to be
     * called again (MONO_NEVER: wait is enough). */
    struct mono_time (*run_once)(struct net_loop *loop, struct mono_time now);
    /* Sleeps until something came, the waker, or the deadline; also submits. Only the thread loop
     * calls it; absent (NULL) in the simulator. */
    void (*wait)(struct net_loop *loop, struct mono_time now, struct mono_time deadline);
    /* Destroys the loop; open connections are aborted without events. */
    void (*destroy)(struct net_loop *loop);
};

struct net_loop {
    const struct net_ops *ops;
};

/* The io_uring transport. NULL + *ret_error (-errno) when the kernel does not allow it, or has not
 * the memory (RLIMIT_MEMLOCK). To be used by one thread only, that of the first use; another one
 * may create the loop. */
struct net_loop *net_uring_create(const struct net_config *config, int *ret_error);

static inline int net_connect(struct net_loop *loop, const struct net_addr *source,
                              const struct net_addr *destination, uint32_t timeout_ms, void *user,
                              struct net_conn_id *ret_conn)
{
    return loop->ops->connect(loop, source, destination, timeout_ms, user, ret_conn);
}

static inline int net_listen(struct net_loop *loop, const struct net_addr *local, uint32_t backlog,
                             void *user, struct net_addr *ret_bound)
{
    return loop->ops->listen(loop, local, backlog, user, ret_bound);
}

static inline int net_send(struct net_loop *loop, struct net_conn_id conn,
                           const struct net_segment *segments, size_t segments_count,
                           unsigned flags)
{
    return loop->ops->send(loop, conn, segments, segments_count, flags);
}

static inline int net_rx_stop(struct net_loop *loop, struct net_conn_id conn, bool is_stopped)
{
    return loop->ops->rx_stop(loop, conn, is_stopped);
}

static inline int net_close(struct net_loop *loop, struct net_conn_id conn, bool is_abort)
{
    return loop->ops->close(loop, conn, is_abort);
}

static inline int net_set_user(struct net_loop *loop, struct net_conn_id conn, void *user)
{
    return loop->ops->set_user(loop, conn, user);
}

static inline struct mono_time net_run_once(struct net_loop *loop, struct mono_time now)
{
    return loop->ops->run_once(loop, now);
}

static inline void net_wait(struct net_loop *loop, struct mono_time now, struct mono_time deadline)
{
    loop->ops->wait(loop, now, deadline);
}

/* NULL-safe. */
void net_loop_destroy(struct net_loop *loop);
/* "refused", "reset", ... */
const char *net_error_name(enum net_error error);
