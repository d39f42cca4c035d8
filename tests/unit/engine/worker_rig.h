/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_rig: real workers over the simulated network, with a mail server that does what the test
 * says; intake, journal and resolver are stubs: their inboxes, emptied by the rig.
 *
 * One thread, virtual time. Every delivery route leads to the one server, unless the test clears
 * config->routes[0].hosts_count and answers queries itself. Memory that intake lends is overwritten
 * when it comes back, and sim_net finds out when something of it was still to be sent. A recipient
 * that is settled or comes back twice is a failure at once, and so is an engine that keeps itself
 * busy while time stands still.
 *
 * How to use it: rig_create, change `config`, rig_start, rig_batch_*, rig_add, rig_deal, rig_run,
 * rig_destroy.
 */
#pragma once

#include "dns/resolver.h"
#include "engine/delivery.h"
#include "engine/intake.h"
#include "engine/worker.h"
#include "queue/journal.h"
#include "tests/harness.h"
#include "tests/sim/sim_net.h"

enum {
    RIG_WORKERS_MAX = 8,
    RIG_BATCHES_MAX = 8,
    RIG_CONNS_MAX = 512,
    RIG_LINE_MAX = 2048,
    RIG_BODY_KEPT = 8192,
    RIG_LINES_MAX = 256,
    RIG_RECIPIENTS_MAX = 1 << 18,
    RIG_SPINS_MAX = 20000,
};

enum rig_moment {
    RIG_GREETING,
    RIG_EHLO,
    RIG_MAIL,
    RIG_RCPT,
    RIG_DATA,
    RIG_BODY, /* bytes of a body have come; an answer here is an early one */
    RIG_DOT,
    RIG_RSET,
    RIG_QUIT,
    RIG_OTHER,
};

struct rig;

/* One connection, seen by the server. */
struct rig_conn {
    struct list link;
    struct rig *rig;
    struct net_conn_id conn;
    struct net_addr addr;
    bool is_other; /* it came to other_addr */
    bool is_data;
    bool is_closing;
    uint32_t messages;
    uint32_t rcpts;
    uint64_t body_size; /* of the message under way */
    size_t line_size;
    char line[RIG_LINE_MAX];
    size_t kept_size;
    char kept[RIG_BODY_KEPT]; /* the beginning of the last body, with its dot */
};

/* What the journal was told. */
struct rig_entry {
    uint32_t batch;
    uint32_t ordinal;
    uint8_t what;
    bool is_ambiguous;
    bool is_possible_duplicate;
    uint16_t code;
    uint32_t due_s;
    char *line; /* of the first RIG_LINES_MAX */
};

struct rig {
    struct clock_manual clock;
    struct mono_time reclaim_at; /* sites that nobody keeps come back, as by control */
    struct sim_net *net;
    struct net_loop *server;
    struct net_addr server_addr;
    struct net_addr other_addr; /* the server listens there, too */
    struct config *config;
    struct engine engine;
    struct waker waker; /* of the stubs */
    struct intake intake;
    struct journal journal;
    struct resolver resolver;
    struct mx_cache *mx_cache;
    struct worker *workers[RIG_WORKERS_MAX];
    struct batch batches[RIG_BATCHES_MAX];
    struct span streams[RIG_BATCHES_MAX]; /* records, one behind the other; owned */
    size_t rooms[RIG_BATCHES_MAX];
    uint32_t batches_count;
    struct inbox_chain waiting[RIG_BATCHES_MAX]; /* made, not dealt yet */
    uint8_t *settled[RIG_BATCHES_MAX];           /* by ordinal: 1 settled, 2 come back */
    struct recipient *recipients;
    uint32_t recipients_count;

    /* NULL: the ordinary answer; "": none at all; "!": the connection is reset. */
    const char *(*on_moment)(struct rig_conn *conn, enum rig_moment moment, struct span line);
    void *context;
    bool is_journal_held; /* entries stay with the journal */
    bool is_intake_held;  /* loads stay with intake */
    bool is_resolver_held;
    uint64_t queries_count;
    int load_result;
    uint32_t loads_asked;
    uint32_t blocks_out;
    struct list blocks; /* lent */
    struct list conns;
    uint32_t conns_count;
    uint32_t conns_peak;
    uint64_t messages;       /* accepted at the end of data */
    uint64_t other_messages; /* of these, at other_addr */
    uint64_t rcpts;          /* of these */
    uint64_t returned;
    struct rig_entry *entries;
    uint32_t entries_count;
    uint32_t entries_room;
    char last_body[RIG_BODY_KEPT]; /* of the last accepted message, NUL behind it */
};

struct rig *rig_create(void);
/* Makes the workers from what `config` says now. */
void rig_start(struct rig *rig);
void rig_destroy(struct rig *rig);
/* `json`: more members of the manifest, each with a comma in front. Returns the batch's index. */
/* Each recipient has its own. */
extern const char RIG_LETTER[];
uint32_t rig_batch_merge(struct rig *rig, const char *eml, const char *json);
uint32_t rig_batch_bsmtp(struct rig *rig, const char *json);
/* A recipient with a record of its own, or (`rcpt_index` > 0, BSMTP) of the last record. */
struct recipient *rig_add(struct rig *rig, uint32_t batch, const char *domain, struct span record,
                          uint16_t rcpt_index);
/* `count` recipients u0@domain .. of a merge batch. */
void rig_add_many(struct rig *rig, uint32_t batch, const char *domain, uint32_t count);
/* A batch with one short letter to `count` recipients of example.org, for the first worker. */
void rig_send_some(struct rig *rig, uint32_t count);
/* Hands what was added to the worker. */
void rig_deal(struct rig *rig, uint32_t batch, uint32_t worker);
/* Until nothing more happens now / for so long. */
void rig_settle(struct rig *rig);
void rig_run(struct rig *rig, int64_t ms);
/* Runs until so many recipients have come back, at most `ms`; whether they have. */
bool rig_run_until_returned(struct rig *rig, uint64_t count, int64_t ms);
/* Runs as long as `is_true` is, at most `ms`; whether it is so no more. */
bool rig_run_while(struct rig *rig, bool (*is_true)(struct rig *rig), int64_t ms);
/* An answer for the cache; `host` and `addr` of MX_OK. */
void rig_mx_put(struct rig *rig, const char *domain, enum mx_outcome outcome, const char *host,
                const struct net_addr *addr, int64_t ttl_ms);
/* To all workers; `orders` of the batch is set before. */
void rig_order(struct rig *rig, uint32_t batch, uint64_t orders);
uint32_t rig_entries_of(const struct rig *rig, uint8_t what);
uint64_t rig_place(const struct rig *rig, enum worker_place place);
uint64_t rig_sessions(const struct rig *rig);
void rig_say(struct rig_conn *conn, const char *text);
/* Nothing is under way, and all that is lent is back. */
void rig_check_quiet(struct rig *rig);
