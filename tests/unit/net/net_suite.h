/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net_suite: what net/net.h promises, as tests over any implementation.
 *
 * A test program defines `net_suite_factory` and ends with NET_SUITE(name, NET_SUITE_TESTS, its own
 * tests). Each test makes a world with two loops, client and server, drives both by turns in one
 * thread, and records what each end of each connection is told. Bytes follow a pattern by position,
 * so that a lost, doubled or swapped byte is seen at once.
 */
#pragma once

#include "engine/base/random.h"
#include "net/net.h"
#include "tests/harness.h"

struct net_suite_factory {
    /* Made anew for each test. */
    void *(*begin)(void);
    void (*end)(void *world);
    const struct clock *(*clock)(void *world);
    struct net_loop *(*make_loop)(void *world, const struct net_config *config);
    /* Nothing happened in a turn: sleep until something may, or move the time; false when nothing
     * ever will. */
    bool (*idle)(void *world, struct net_loop *const *loops, size_t count);
    /* Addresses: to listen on (port 0), without a listener, that never answers, without a route,
     * and not bindable as a source. */
    struct net_addr (*local)(void *world);
    struct net_addr (*refusing)(void *world);
    struct net_addr (*silent)(void *world);
    struct net_addr (*unreachable)(void *world);
    struct net_addr (*foreign)(void *world);
};

extern const struct net_suite_factory net_suite_factory;

struct suite_end;
struct suite_side;

typedef void (*suite_hook)(struct suite_end *end, const struct net_event *event);

/* One end of one connection. */
struct suite_end {
    struct suite_side *side;
    struct net_conn_id id;
    bool is_connected;
    bool is_accepted;
    bool has_fin;
    bool is_closed;
    enum net_error error;
    bool has_wrong_byte;
    uint64_t rx_size;
    uint64_t sent_size; /* taken by net_send */
    uint64_t txdone_size;
    uint32_t txdone_count;
    uint32_t rx_count;
    uint32_t events_count;
    uint64_t to_send; /* what suite_pump sends up to */
    suite_hook hook;  /* told each event, after the records */
    uint64_t note;    /* free for the hook */
    bool is_stopped;  /* free for the test */
    bool has_sent_fin;
    bool is_closing;
};

enum { SUITE_ENDS_MAX = 2048, SUITE_LOOPS_MAX = 2 };

struct suite {
    void *world;
    const struct clock *clock;
    struct random random;
    struct mono_time limit;
    uint64_t events_count;
    struct suite_side *client;
    struct suite_side *server;
};

struct suite_side {
    struct suite *suite;
    struct net_loop *loop;
    struct net_addr addr;  /* of its listener */
    uint32_t stream;       /* where in the pattern its bytes start */
    uint32_t stream_other; /* and those it gets */
    bool is_running;       /* within net_run_once */
    suite_hook accepted_hook;
    uint32_t closed_count;
    uint32_t ends_count;
    struct suite_end ends[SUITE_ENDS_MAX];
};

/* A client without and a server with a listener. */
void suite_init(struct suite *suite, uint32_t conns_max);
/* Also checks for every end: CLOSED at most once and nothing after it, no wrong byte. */
void suite_deinit(struct suite *suite);
/* One turn of both loops, and idle when nothing came of it. False when it has taken too long, or
 * nothing will ever happen. */
bool suite_step(struct suite *suite);

/* One turn of one side alone: the other does not see step by step what happens. */
void suite_turn(struct suite_side *side);

/* Turns until the condition holds; a failed check when it never does. */
#define SUITE_UNTIL(suite, condition)                                                              \
    do {                                                                                           \
        suite_limit_set(suite);                                                                    \
        while (!(condition) && suite_step(suite)) {                                                \
        }                                                                                          \
        CU_ASSERT(condition);                                                                      \
    } while (0)
void suite_limit_set(struct suite *suite);
/* Turns until nothing has happened for a while. */
void suite_quiet(struct suite *suite);

/* Connects to `destination` (NULL: the server of the suite); the end's record. */
struct suite_end *suite_connect_to(struct suite *suite, const struct net_addr *source,
                                   const struct net_addr *destination, uint32_t timeout_ms);
/* Connects and waits until both ends know. */
void suite_pair(struct suite *suite, struct suite_end **ret_client, struct suite_end **ret_server);
/* The next `size` bytes of the end's stream as one segment: as net_send. */
int suite_send(struct suite_end *end, uint32_t size, bool is_copied, unsigned flags);
/* Copies the bytes at a position of the end's stream. */
void suite_stream_copy(const struct suite_end *end, uint64_t position, uint32_t size,
                       char *ret_bytes);
/* Sends in random pieces up to `to_send`, until net_send takes no more. */
void suite_pump(struct suite_end *end);
/* A hook that pumps on TXDONE. */
void suite_hook_pump(struct suite_end *end, const struct net_event *event);
int suite_close(struct suite_end *end, bool is_abort);
int suite_rx_stop(struct suite_end *end, bool is_stopped);

#define NET_SUITE_TESTS                                                                            \
    suite_connect_tells_both, suite_connect_ip6_or_other_source, suite_connect_refused,            \
        suite_connect_unreachable, suite_connect_foreign_source, suite_connect_times_out,          \
        suite_connect_closed_meanwhile, suite_connect_table_full, suite_connect_again_when_closed, \
        suite_accept_table_full, suite_stale_ids, suite_users, suite_hundreds,                     \
        suite_send_tells_done_in_order, suite_send_copies_at_once, suite_send_bound,               \
        suite_send_before_connected, suite_send_empty, suite_send_more, suite_send_big_both_ways,  \
        suite_rx_stop_stops, suite_rx_stop_within_event, suite_rx_stop_keeps_fin,                  \
        suite_rx_stop_toggled, suite_rx_stop_before_connected, suite_fin_flag,                     \
        suite_fin_then_peer_sends, suite_fin_alone, suite_close_sends_first, suite_close_twice,    \
        suite_close_then_abort, suite_abort_resets, suite_abort_drops_queue,                       \
        suite_close_within_events, suite_death_when_idle, suite_death_when_stopped,                \
        suite_death_when_half_closed, suite_death_when_sending, suite_last_words_before_reset,     \
        suite_bytes_and_reset_at_once, suite_bytes_and_fin_at_once, suite_close_with_unread_bytes, \
        suite_abort_forgets_new_sends, suite_destroy_resets, suite_chaos

#define NET_SUITE(name, ...) SUITE(name, __VA_ARGS__)

void suite_connect_tells_both(void);
void suite_connect_ip6_or_other_source(void);
void suite_connect_refused(void);
void suite_connect_unreachable(void);
void suite_connect_foreign_source(void);
void suite_connect_times_out(void);
void suite_connect_closed_meanwhile(void);
void suite_connect_table_full(void);
void suite_connect_again_when_closed(void);
void suite_accept_table_full(void);
void suite_stale_ids(void);
void suite_users(void);
void suite_hundreds(void);
void suite_send_tells_done_in_order(void);
void suite_send_copies_at_once(void);
void suite_send_bound(void);
void suite_send_before_connected(void);
void suite_send_empty(void);
void suite_send_more(void);
void suite_send_big_both_ways(void);
void suite_rx_stop_stops(void);
void suite_rx_stop_within_event(void);
void suite_rx_stop_keeps_fin(void);
void suite_rx_stop_toggled(void);
void suite_rx_stop_before_connected(void);
void suite_fin_flag(void);
void suite_fin_then_peer_sends(void);
void suite_fin_alone(void);
void suite_close_sends_first(void);
void suite_close_twice(void);
void suite_close_then_abort(void);
void suite_abort_resets(void);
void suite_abort_drops_queue(void);
void suite_close_within_events(void);
void suite_death_when_idle(void);
void suite_death_when_stopped(void);
void suite_death_when_half_closed(void);
void suite_death_when_sending(void);
void suite_last_words_before_reset(void);
void suite_bytes_and_reset_at_once(void);
void suite_bytes_and_fin_at_once(void);
void suite_close_with_unread_bytes(void);
void suite_abort_forgets_new_sends(void);
void suite_destroy_resets(void);
void suite_chaos(void);
