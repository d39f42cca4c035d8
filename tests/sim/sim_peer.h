/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_peer: the mail servers of the simulated world: hosts at addresses of the simulated network,
 * made of the sink's SMTP core (bench/sink_smtp.h), and a log of all mail they have accepted.
 *
 * All hosts share one net loop. What a host does is its policy: scripts in addresses
 * (bench/sink_script.h: replies, closes, resets and silence at each stage, a lost 250, lies,
 * delays), the same by share, no PIPELINING, and a delay of all its replies. The policy may be
 * changed at any time. Beside it stands how it speaks (sim_speech.h), and a few ways to be odd that
 * are not of one command (struct sim_peer).
 *
 * The log has one row a recipient of a message that a host took, written before it is answered,
 * with the code that is said to its end: a host may take it and say nothing, or no. A host that
 * answers before the message has come promises it: that is a row of its own, `is_promise`. A
 * recipient's number is the digits behind the last '-' of its local part; the message's token the
 * digits of its field "X-Token:".
 *
 * What a client may not do, the hosts count as wrong: several commands at once without PIPELINING,
 * bytes before the greeting, behind EHLO or DATA before its reply.
 *
 * Bounds: SIM_PEERS_MAX hosts, SIM_PEER_SESSIONS_MAX connections; memory is the heap's.
 */
#pragma once

#include "bench/sink_smtp.h"
#include "tests/sim/sim_net.h"
#include "tests/sim/sim_speech.h"

enum { SIM_PEERS_MAX = 64, SIM_PEER_SESSIONS_MAX = 4096 };

#define SIM_PEER_NONE UINT64_MAX

struct sim_mail {
    uint64_t number; /* of the recipient; SIM_PEER_NONE: its address has none */
    uint64_t token;  /* of the message; SIM_PEER_NONE: it has none */
    uint64_t hash;   /* of the content, dots taken out */
    uint64_t size;
    uint64_t session;
    int64_t at_ns;
    uint32_t host;
    uint16_t said; /* to the end of data; 0: nothing that is a reply */
    bool is_promise;
    char sender[96];
    char recipient[96];
};

/* A transaction that got a recipient accepted, whatever its message came to. */
struct sim_transaction {
    int64_t opened_ns;    /* when its connection came */
    int64_t asked_ns;     /* when its client began it; -1: not known (sim_net_asked_ns) */
    int64_t heard_ns;     /* when the host heard of its first recipient */
    uint64_t number;      /* of its first recipient; SIM_PEER_NONE: it has none */
    uint32_t rcpts_count; /* accepted */
    uint32_t host;
    char domain[64]; /* of its first recipient */
};

struct sim_peer {
    struct net_addr addr;
    struct sink_policy policy;
    char name[32];
    uint32_t delay_min_ms; /* of each group of replies */
    uint32_t delay_max_ms; /* 0: answered at once */
    enum sim_speech speech;
    uint32_t drip_ms;      /* between two bytes of replies; 0: groups are said at once */
    uint32_t drips_left;   /* so many bytes, then it has enough of it */
    uint32_t endless_size; /* of a reply without an end, at most */
    uint32_t fins_of_256;  /* sessions in which it stops speaking some day, and goes on to listen */
    bool is_moody;         /* each session is offered other capabilities ... */
    uint64_t size_low;     /* ... some of them this SIZE; 0: always the policy's */
    bool may_shift;        /* it says more or fewer replies than it is asked for */
    uint32_t sessions_count;
    uint32_t sessions_peak;
    uint64_t connects_count;
    uint64_t mails_count; /* messages accepted */
};

struct sim_peers;

/* Adds its loop to the net. */
struct sim_peers *sim_peers_create(struct sim_net *net, const struct clock *clock, uint64_t seed);
void sim_peers_destroy(struct sim_peers *peers); /* NULL-safe; before the net */
/* A host at "20.0.0.1", port 25; scripts in addresses are obeyed. Returns its number. */
uint32_t sim_peers_add(struct sim_peers *peers, const char *addr);
struct sim_peer *sim_peers_at(struct sim_peers *peers, uint32_t index);
/* Adds a share to the host's policy: "dot=451:10%". */
void sim_peers_share(struct sim_peers *peers, uint32_t index, const char *text);
void sim_peers_step(struct sim_peers *peers, struct mono_time now);
/* When it wants to be stepped. */
struct mono_time sim_peers_next(struct sim_peers *peers);
const struct sim_mail *sim_peers_log(const struct sim_peers *peers, size_t *ret_count);
/* In the order of their arrival. */
const struct sim_transaction *sim_peers_transactions(const struct sim_peers *peers,
                                                     size_t *ret_count);
/* What clients did wrong; the last of it in words. */
uint64_t sim_peers_wrongs(const struct sim_peers *peers, const char **ret_words);
