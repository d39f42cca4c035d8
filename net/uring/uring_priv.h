/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uring_priv: what the files of net/uring share. uring.c turns the loop, uring_ring.c knows the
 * ring and its buffers, uring_conn.c the life of a connection, uring_in.c what comes, uring_out.c
 * what goes.
 *
 * Life of a connection:
 *
 *     net_connect                     accept
 *          |                            |
 *     CONNECTING --- established ---> OPEN --- net_close, something queued ---> FLUSHING
 *          |                            |                                          |
 *          | failed, timed out, closed  | reset, closed, nothing queued            | sent, reset
 *          +----------------------> CLOSING <--------------------------------------+
 *                                       |
 *                          all operations ended: CLOSED is told, the slot is given back
 *
 * In CLOSING the descriptor is already on its way to be closed and nobody may use it. A slot
 * outlives all operations that name it, so a completion never meets another connection; its
 * generation in the user data is there to prove that.
 */
#pragma once

#include <assert.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "engine/base/list.h"
#include "engine/base/slab.h"
#include "engine/base/timer.h"
#include "net/net.h"

enum {
    URING_SQ_ENTRIES = 1024,
    URING_CQ_ENTRIES = 8192,
    URING_EVENTS_BUDGET = 256, /* completions told in one run_once */
    URING_TIMERS_BUDGET = 1024,
    URING_LISTENERS_MAX = 16, /* further net_listen: -ENOBUFS */
    URING_CONNS_MAX = 1 << 24,
    URING_RX_SIZE = 16384,                    /* one receive buffer */
    URING_RX_STRIDE = URING_RX_SIZE + 5 * 64, /* their starts spread over the sets of the caches */
    URING_RX_STEP = 64, /* so many buffers at first, and more when they run out */
    URING_RX_COUNT_MAX = 2048,
    URING_RX_GROUP = 0,
    URING_ACCEPT_RETRY_MS = 50,
    URING_LATE_MS = 1000,  /* behind such a pause a turn brings all that has come: at most ... */
    URING_LATE_TURNS = 64, /* ... so many calls, and one more for each so many connections */
    URING_LATE_CONNS_A_TURN = 8,
};

enum uring_state { URING_CONNECTING, URING_OPEN, URING_FLUSHING, URING_CLOSING };
enum { URING_STATES_COUNT = URING_CLOSING + 1 };

/* What a completion belongs to. NONE: nobody waits for it (cancel, close). */
enum uring_op {
    URING_OP_NONE,
    URING_OP_CONNECT,
    URING_OP_RECV,
    URING_OP_SEND,
    URING_OP_ACCEPT,
    URING_OP_WAKER,
    URING_OP_WATCH,
};

/* User data: generation in the high half, then 4 bits of operation, then 28 bits of index: a conn
 * id with the operation in it. */
enum { URING_OP_SHIFT = 28 };
#define URING_INDEX_MASK ((UINT64_C(1) << URING_OP_SHIFT) - 1)

enum uring_flags {
    URING_RX_STOPPED = 1u << 0,
    URING_RX_CANCELLED = 1u << 1, /* a cancel of the receive is on its way */
    URING_RX_ENDED = 1u << 2,     /* the peer's FIN was seen */
    URING_FIN_HELD = 1u << 3,     /* ... but waits behind rx_stop */
    URING_FIN_WANTED = 1u << 4,   /* half close once all is sent */
    URING_FIN_SENT = 1u << 5,
    URING_BROKEN = 1u << 6, /* sending failed; the end comes when all that was received is told */
    URING_TX_MORE = 1u << 7,
    URING_WATCHED = 1u << 8,
};

/*
 * What is queued on one connection is a chain of blocks, taken from a slab only while something is
 * queued: small, so that thousands of connections that send at once stay in the caches. A block is
 * filled from its start to its end and given back when all of it is sent; one operation sends what
 * one block holds. Neighbouring copies become one entry.
 */
enum {
    URING_TX_ENTRIES = NET_SEND_SEGMENTS_MAX,
    URING_TX_COPIES = 4096,
    /* One operation, so that a slow peer's progress shows as TXDONE from time to time. */
    URING_TX_SIZE_MAX = 256 * 1024,
    /* Every block but the last is full: of entries, or of copies up to less than one segment. */
    URING_TX_BLOCKS_MAX = NET_SEND_SEGMENTS_MAX / (URING_TX_COPIES / NET_COPY_MAX) + 2,
};

struct uring_tx {
    struct uring_tx *next;
    struct uring_tx *last;  /* of the chain; kept in its oldest block */
    uint8_t segments_count; /* in the chain; kept in its oldest block */
    uint8_t first;          /* the oldest entry not wholly sent */
    uint8_t end;            /* behind the newest */
    uint8_t submitted_end;  /* behind the newest in the operation on its way; 0 = none is */
    uint16_t copies_size;
    uint8_t segments[URING_TX_ENTRIES]; /* how many an entry holds */
    struct iovec entries[URING_TX_ENTRIES];
    char copies[URING_TX_COPIES];
    struct msghdr message;
};

/* Bytes that came although the receive was stopped. */
struct uring_held {
    struct uring_held *next;
    uint32_t size;
    char bytes[URING_RX_SIZE];
};

struct uring;

union uring_address {
    struct sockaddr any;
    struct sockaddr_in ip4;
    struct sockaddr_in6 ip6;
};

/* The first cache line is all that the traffic of an open connection touches. */
struct uring_conn {
    alignas(64) uint64_t id; /* of the slab's handle */
    void *user;
    struct uring_tx *tx; /* NULL while nothing is queued */
    struct list dirty;   /* in uring.dirty: has something to submit */
    struct list pending; /* in uring.pending: has something to tell that no completion brings */
    int fd;              /* -1 in CLOSING */
    uint16_t flags;      /* enum uring_flags */
    uint8_t state;       /* enum uring_state; written by uring_conn_enter alone */
    uint8_t ops;         /* 1 << enum uring_op of the operations on their way */
    union {
        struct {
            struct uring *uring;
            struct timer timer;
            union uring_address address; /* read by the kernel when the connect is submitted */
        } connecting;
        struct {
            struct uring_held *held_first;
            struct uring_held *held_last;
            enum net_error error; /* of CLOSED, once that is known */
        } open;
    };
};
static_assert(offsetof(struct uring_conn, connecting) == 64, "one line");

struct uring_listener {
    int fd;
    bool is_armed;
    void *user;
};

struct uring {
    struct net_loop loop; /* first: a pointer to this is a pointer to the whole */
    struct net_config config;
    bool is_made;    /* the ring is, by uring_ring_make */
    bool is_started; /* its owner has enabled it */
    bool is_ring_registered;
    struct io_uring ring;
    struct io_uring_buf_ring *rx_ring;
    char *rx_memory;
    uint32_t rx_count;    /* a power of two: room for so many */
    uint32_t rx_live;     /* so many are in use */
    bool is_rx_short;     /* they have run out since the last call */
    uint32_t rx_returned; /* given back since the kernel was last told */
    int watch_fd;
    struct list dirty;
    struct list pending;
    struct slab conns;
    struct slab txs;
    struct slab helds;
    struct mono_time accept_at; /* when to try stalled listeners again; MONO_NEVER when none is */
    struct mono_time ran_at;    /* the turn before */
    uint32_t listeners_count;
    struct uring_listener listeners[URING_LISTENERS_MAX];
    struct timer_wheel wheel;
};

/* uring.c */
void uring_start_now(struct uring *uring);

/* At the first use, by the thread that owns the loop from then on. */
static inline void uring_start(struct uring *uring)
{
    if (!__builtin_expect(uring->is_started, 1)) {
        uring_start_now(uring);
    }
}

static inline struct uring *uring_of(struct net_loop *loop)
{
    return (struct uring *)loop;
}

/* uring_ring.c */
/* Ring and buffers with the best flags that this kernel takes; 0 or -errno. For net_uring_create.
 */
int uring_ring_make(struct uring *uring) __attribute__((warn_unused_result));
void uring_ring_enable(struct uring *uring);
void uring_ring_stop(struct uring *uring);
/* Never NULL: submits when the queue is full. Zeroed but for what io_uring_prep_* writes. */
struct io_uring_sqe *uring_sqe(struct uring *uring, uint64_t user_data);
/* One system call: submits, and reaps what is ready; `wait_ns` > 0: sleeps until something is, at
 * most that long (INT64_MAX: for good). */
void uring_ring_enter(struct uring *uring, int64_t wait_ns);
void uring_rx_give(struct uring *uring, uint32_t buffer);

static inline uint32_t uring_ring_ready(const struct uring *uring)
{
    return io_uring_cq_ready(&uring->ring);
}

/* True when an enter would do something without waiting. */
static inline bool uring_ring_wants_enter(const struct uring *uring)
{
    return io_uring_sq_ready(&uring->ring) > 0 ||
           (IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
            (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

static inline char *uring_rx_at(const struct uring *uring, uint32_t buffer)
{
    return uring->rx_memory + (size_t)buffer * URING_RX_STRIDE;
}

/* uring_conn.c */
int uring_connect(struct net_loop *loop, const struct net_addr *source,
                  const struct net_addr *destination, uint32_t timeout_ms, void *user,
                  struct net_conn_id *ret_conn);
int uring_close(struct net_loop *loop, struct net_conn_id conn, bool is_abort);
void uring_conn_enter(struct uring_conn *conn, enum uring_state state);
/* Takes a slot in state `state`; NULL when the table is full. */
struct uring_conn *uring_conn_take(struct uring *uring, enum uring_state state, int fd, void *user);
/* To CLOSING (no-op when already there): cancels and closes; CLOSED(error) follows. */
void uring_conn_end(struct uring *uring, struct uring_conn *conn, enum net_error error);
/* The same, once a graceful close has sent all there was. */
void uring_conn_end_flushed(struct uring *uring, struct uring_conn *conn);
void uring_conn_add_pending(struct uring *uring, struct uring_conn *conn);
void uring_conn_op_ended(struct uring *uring, struct uring_conn *conn, enum uring_op op);
/* Tells CLOSED and gives the slot back. */
void uring_conn_finish(struct uring *uring, struct uring_conn *conn);
void uring_conn_on_connect(struct uring *uring, struct uring_conn *conn, int result);
/* Without events, for destroy. */
void uring_conn_drop(struct uring *uring, struct uring_conn *conn);
/* The next close of the descriptor sends RST. */
void uring_set_reset(int fd);
enum net_error uring_error_of(int error);
socklen_t uring_address_of(const struct net_addr *addr, union uring_address *ret_address);

/* uring_in.c */
int uring_listen(struct net_loop *loop, const struct net_addr *local, uint32_t backlog, void *user,
                 struct net_addr *ret_bound);
int uring_rx_stop(struct net_loop *loop, struct net_conn_id conn, bool is_stopped);
/* Arms the receive when it is wanted and not armed; a stopped connection is watched instead. */
void uring_rx_arm(struct uring *uring, struct uring_conn *conn);
/* Cancels the receive that is on its way. */
void uring_rx_cancel(struct uring *uring, struct uring_conn *conn);
void uring_rx_on_recv(struct uring *uring, struct uring_conn *conn, int result, unsigned flags);
void uring_rx_tell_held(struct uring *uring, struct uring_conn *conn);
void uring_rx_drop_held(struct uring *uring, struct uring_conn *conn);
void uring_rx_on_accept(struct uring *uring, uint32_t listener, int result, unsigned flags);
void uring_rx_accept_again(struct uring *uring);
void uring_rx_on_watch(struct uring *uring);

/* uring_out.c */
int uring_send(struct net_loop *loop, struct net_conn_id conn, const struct net_segment *segments,
               size_t segments_count, unsigned flags);
/* Submits an operation for every connection that has something to send. */
void uring_tx_flush(struct uring *uring);
void uring_tx_mark_dirty(struct uring *uring, struct uring_conn *conn);
void uring_tx_on_send(struct uring *uring, struct uring_conn *conn, int result);
void uring_tx_drop(struct uring *uring, struct uring_conn *conn);

/* Shared helpers. */
static inline uint64_t uring_user_data(const struct uring_conn *conn, enum uring_op op)
{
    return conn->id | (uint64_t)op << URING_OP_SHIFT;
}

/* The connection, or NULL when the id is stale. */
static inline struct uring_conn *uring_conn_find(const struct uring *uring, struct net_conn_id id)
{
    return slab_at_handle(&uring->conns, handle_of_u64(id.value));
}

static inline void uring_tell(const struct uring *uring, const struct net_event *event)
{
    uring->config.on_event(uring->config.context, event);
}
