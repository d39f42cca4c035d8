/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_net: the simulated network behind the transport seam (net/net.h): many loops in one world, on
 * virtual time.
 *
 * One thread owns the world, all its loops and the clock it was given (a clock_manual that the
 * caller moves). A loop made here is a `struct net_loop` like any other: the engine's workers get
 * one each, and so do the servers they talk to (net_listen). `wait` is absent. sim_net_next says
 * when the next event is due, sim_net_loop_next for which loop; the caller sets the clock there and
 * calls net_run_once.
 *
 * Bytes are copied when they leave a queue, travel in pieces of random size with random delays, in
 * order, at most `window_size` of them unread in one direction. TXDONE comes a way back later; lent
 * memory that has changed until then is a bug, found by a checksum. The same seed, configuration
 * and order of calls give the same events.
 *
 * Faults strike by chance, in 1/65536. Connects: refused, lost. Connections, at a random byte of
 * one direction: reset (both ends), cut (the receiver sees an early FIN, the sender a reset),
 * stalled for a while, vanished (nothing arrives any more either way; who has sent gets NET_TIMEOUT
 * after `give_up_ms`). Addresses follow rules set by sim_net_rule_set.
 *
 * A countdown (sim_net_fail_at) lets the n-th operation of loops with a waker, the engine's, fail:
 * a connect; a send (nothing of it goes out); a piece that arrives (nothing of it is told); a
 * graceful close. The connection ends with the error, its peer is reset.
 *
 * Bounds: SIM_LOOPS_MAX loops, SIM_RULES_MAX rules (a bug beyond), the loops' conns_max; memory is
 * the heap's, this is test code.
 */
#pragma once

#include "net/net.h"

enum { SIM_LOOPS_MAX = 1024, SIM_RULES_MAX = 256 };

struct sim_net_config {
    uint64_t seed;
    int64_t delay_min_ns; /* one way */
    int64_t delay_max_ns;
    uint32_t piece_max;   /* bytes of one RX at most; 0: 16384 */
    uint32_t window_size; /* 0: 262144 */
    uint32_t refuse_chance;
    uint32_t lose_chance;
    uint32_t reset_chance;
    uint32_t cut_chance;
    uint32_t stall_chance;
    uint32_t vanish_chance;
    uint32_t fault_at_max; /* the byte of a fault lies below this; 0: 65536 */
    uint32_t stall_max_ms; /* 0: 60000 */
    uint32_t give_up_ms;   /* 0: 900000 */
};

enum sim_net_rule {
    SIM_NORMAL,      /* takes back an earlier rule */
    SIM_UNREACHABLE, /* as destination: no route */
    SIM_SILENT,      /* as destination: never an answer */
    SIM_REFUSING,    /* as destination: refuses whoever listens there */
    SIM_FOREIGN,     /* as source: cannot be bound */
};

/* What chance has done so far. */
struct sim_net_counts {
    uint64_t connects;
    uint64_t refused;
    uint64_t lost;
    uint64_t resets;
    uint64_t cuts;
    uint64_t stalls;
    uint64_t vanished;
    uint64_t bytes; /* told as RX */
};

struct sim_net;

/* `clock` outlives the world. */
struct sim_net *sim_net_create(const struct sim_net_config *config, const struct clock *clock);
/* After all its loops. NULL-safe. */
void sim_net_destroy(struct sim_net *net);
struct net_loop *sim_net_loop_create(struct sim_net *net, const struct net_config *config);
/* The clock of the loop's owner is so far ahead of the world's: what net_run_once gets and says. */
void sim_net_loop_shift(struct net_loop *loop, int64_t ahead_ns);
/* Everything but the seed may change while it runs; what is already under way keeps its fate. */
void sim_net_config_set(struct sim_net *net, const struct sim_net_config *config);
/* The n-th operation from now (n >= 1) fails, when `is_sticky` all behind it too; n 0: none does
 * any more. */
void sim_net_fail_at(struct sim_net *net, uint64_t n, enum net_error error, bool is_sticky);
/* Operations that have failed so. */
uint64_t sim_net_failures_count(const struct sim_net *net);
/* Port 0 means every port. */
void sim_net_rule_set(struct sim_net *net, const struct net_addr *addr, enum sim_net_rule rule);
/* The earliest event of all loops, of one; MONO_NEVER when there is none. Not earlier than the
 * clock means: run it now. */
struct mono_time sim_net_next(struct sim_net *net);
struct mono_time sim_net_loop_next(struct net_loop *loop);
/* For the RX that is being told: when the peer's program wanted to say these bytes. -1: not known,
 * for it may have waited with them for the TXDONE of others. */
int64_t sim_net_asked_ns(const struct net_loop *loop);
struct sim_net_counts sim_net_counts_of(const struct sim_net *net);
