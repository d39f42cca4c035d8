/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_net_priv: what the files of the simulated network share. sim_net.c is the world: loops,
 * events in the order of their time, rules. sim_net_conn.c is the life of a connection,
 * sim_net_flow.c its bytes.
 *
 * An end never touches its peer's loop directly: it posts events to it, which find their end by
 * handle and may find it gone. What arrives at an end that is gone is answered with a reset, as a
 * kernel does.
 *
 *     net_connect                    SYN arrives
 *          |                              |
 *     CONNECTING --- answer arrives --> OPEN --- net_close, something unsent or unacknowledged --->
 * FLUSHING |                              | | | failed, closed               | reset, aborted,
 * closed with nothing left                   |
 *          +------------------------> CLOSING
 * <--------------------------------------------------------+ | its event: CLOSED is told, the slot
 * given back
 */
#pragma once

#include "engine/base/random.h"
#include "engine/base/slab.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_net.h"

enum sim_state { SIM_CONNECTING, SIM_OPEN, SIM_FLUSHING, SIM_CLOSING };
enum { SIM_STATES_COUNT = SIM_CLOSING + 1 };

enum sim_event_kind {
    SIM_SYN,       /* to a listener's loop */
    SIM_CONNECTED, /* the answer to it */
    SIM_FAILED,    /* the connect, with `error` */
    SIM_TIMEOUT,   /* of the connect */
    SIM_PIECE,
    SIM_FIN,
    SIM_RST,  /* the connection, with `error` */
    SIM_DONE, /* a piece was acknowledged */
    SIM_RESUMED,
    SIM_CLOSED,
};

/* An end by name, wherever it lives. */
struct sim_ref {
    uint32_t loop;
    struct handle handle;
};

struct sim_piece {
    struct sim_piece *next;
    const char *lent; /* NULL for a copied one */
    uint64_t sum;
    int64_t asked_ns; /* sim_net_asked_ns */
    uint32_t size;
    char bytes[];
};

struct sim_event {
    int64_t due_ns;
    uint64_t sequence;
    enum sim_event_kind kind;
    enum net_error error;
    struct sim_ref to;
    struct sim_ref from;
    uint32_t listener;
    struct sim_piece *piece;
};

struct sim_queued {
    const char *at; /* the lent memory, or `copy` */
    uint32_t size;
    bool is_copied;
    char copy[NET_COPY_MAX];
};

/* At which byte of what an end sends its fault strikes; UINT64_MAX: never. */
struct sim_fate {
    uint64_t reset_at;
    uint64_t cut_at;
    uint64_t stall_at;
    uint64_t vanish_at;
};

struct sim_end {
    struct sim_ref self;
    struct sim_ref peer;
    void *user;
    enum sim_state state;
    enum net_error error;
    bool is_rx_stopped;
    bool is_fin_wanted;
    bool is_fin_sent;
    bool is_fin_held;
    bool is_resuming;
    bool is_silent;        /* what it sends goes nowhere */
    bool is_giving_up;     /* and it will notice */
    uint32_t queued_first; /* the oldest segment that is not wholly told TXDONE */
    uint32_t queued_count;
    uint32_t done_offset; /* within the oldest */
    uint32_t sent_count;  /* of the queued: wholly sent */
    uint32_t sent_offset; /* within the next */
    uint64_t sent_size;
    uint64_t unread_size; /* sent and not yet told to the peer */
    uint64_t undone_size; /* sent and not yet told TXDONE */
    int64_t out_due_ns;   /* of the last event to the peer: they stay in order */
    int64_t done_due_ns;
    int64_t done_told_ns;
    struct sim_fate fate;
    struct sim_piece *held_first;
    struct sim_piece *held_last;
    struct sim_queued queued[NET_SEND_SEGMENTS_MAX];
};

struct sim_listener {
    struct net_addr addr;
    void *user;
};

enum { SIM_LISTENERS_MAX = 256 };

struct sim_loop {
    struct net_loop loop; /* first: a pointer to this is a pointer to the whole */
    struct sim_net *net;
    uint32_t index;
    struct net_config config;
    int64_t ahead_ns; /* of the world's clock is the one of who owns it */
    struct slab ends;
    struct sim_event *events; /* a heap by due time and sequence */
    size_t events_count;
    size_t events_room;
    int64_t asked_ns; /* of the piece that is being told */
    uint32_t listeners_count;
    struct sim_listener listeners[SIM_LISTENERS_MAX];
};

struct sim_rule {
    struct net_addr addr;
    enum sim_net_rule rule;
};

struct sim_net {
    struct sim_net_config config;
    const struct clock *clock;
    struct random random;
    uint64_t sequence;
    uint16_t port_next;
    uint32_t rules_count;
    struct sim_rule rules[SIM_RULES_MAX];
    uint32_t loops_count;
    struct sim_loop *loops[SIM_LOOPS_MAX]; /* NULL: destroyed */
    uint64_t fail_left;
    enum net_error fail_error;
    bool is_fail_sticky;
    uint64_t failures_count;
    struct sim_net_counts counts;
};

/* sim_net.c */
int64_t sim_now_ns(const struct sim_net *net);
int64_t sim_delay_ns(struct sim_net *net);
bool sim_chance(struct sim_net *net, uint32_t chance);
/* Whether this operation has to fail (sim_net_fail_at). */
bool sim_op_fails(const struct sim_loop *loop);
/* Takes the event's piece; a loop that is gone drops it. */
void sim_post(struct sim_net *net, struct sim_event event);
struct sim_end *sim_end_at(const struct sim_net *net, struct sim_ref ref);
enum sim_net_rule sim_rule_of(const struct sim_net *net, const struct net_addr *addr);
/* The listener's loop, or NULL. */
struct sim_loop *sim_listener_find(const struct sim_net *net, const struct net_addr *addr,
                                   uint32_t *ret_listener);

static inline struct sim_loop *sim_loop_of(struct net_loop *loop)
{
    return (struct sim_loop *)loop;
}

/* sim_net_conn.c */
int sim_connect(struct net_loop *loop, const struct net_addr *source,
                const struct net_addr *destination, uint32_t timeout_ms, void *user,
                struct net_conn_id *ret_conn);
int sim_close(struct net_loop *loop, struct net_conn_id conn, bool is_abort);
/* To CLOSING; the event that tells it follows. */
void sim_end_close(struct sim_net *net, struct sim_end *end, enum net_error error);
/* RST to the peer, behind what is on its way; `error` is what it is told. */
void sim_end_reset_peer(struct sim_net *net, struct sim_end *end, enum net_error error);
/* The connection fails under an operation, with the error of sim_net_fail_at. */
void sim_end_break(struct sim_net *net, struct sim_end *end);
/* Gives the slot back without a word. */
void sim_end_drop(struct sim_net *net, struct sim_end *end);
void sim_conn_on_syn(struct sim_loop *loop, const struct sim_event *event);
void sim_conn_on_event(struct sim_loop *loop, struct sim_end *end, const struct sim_event *event);
/* The event's end is gone. */
void sim_conn_on_nobody(struct sim_net *net, const struct sim_event *event);
void sim_tell(const struct sim_loop *loop, const struct sim_end *end, struct net_event event);

/* sim_net_flow.c */
int sim_send(struct net_loop *loop, struct net_conn_id conn, const struct net_segment *segments,
             size_t segments_count, unsigned flags);
int sim_rx_stop(struct net_loop *loop, struct net_conn_id conn, bool is_stopped);
struct sim_fate sim_fate_draw(struct sim_net *net);
/* Sends what the window allows, then the FIN when it is wanted. */
void sim_flow_pump(struct sim_net *net, struct sim_end *end);
void sim_flow_on_piece(struct sim_loop *loop, struct sim_end *end, struct sim_piece *piece);
void sim_flow_on_fin(struct sim_loop *loop, struct sim_end *end);
void sim_flow_on_done(struct sim_loop *loop, struct sim_end *end, struct sim_piece *piece);
void sim_flow_on_resumed(struct sim_loop *loop, struct sim_end *end);
void sim_flow_drop_held(struct sim_end *end);
