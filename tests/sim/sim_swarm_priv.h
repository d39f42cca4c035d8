/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_swarm_priv: the world of one seed, drawn in parts: hosts and what recipients bring
 * (sim_swarm_zoo.c), names (sim_swarm_names.c), limits, batches and faults (sim_swarm_draw.c); run
 * by sim_swarm.c.
 */
#pragma once

#include "engine/base/random.h"
#include "tests/sim/sim_book.h"
#include "tests/sim/sim_damage.h"

enum {
    SWARM_HOSTS_MAX = 6,
    SWARM_DOMAINS_MAX = 24,
    SWARM_BATCHES_MAX = 8,
    SWARM_EVENTS_MAX = 96,
    SWARM_CHANGES_MAX = 8,
    SWARM_CHANGE_ROWS_MAX = 3,
    SWARM_SCRIPTS_MAX = 4, /* of one batch */
    SWARM_WAKE_S = 7200,   /* all that is planned happens within so many seconds */
};

/* What the name servers say of a domain. */
enum swarm_kind {
    KIND_GOOD,
    KIND_IMPLICIT,
    KIND_NULL,
    KIND_MISSING,
    KIND_BROKEN,
    KIND_ALIAS,    /* another name for a domain */
    KIND_MX_ALIAS, /* its host is another name for one */
    KIND_HALF,     /* the first of its hosts are not there */
    KIND_MANY,     /* more hosts than anybody looks at, few of them there */
    KIND_LITERAL,  /* addresses where names must be */
    KIND_DANGLING, /* hosts without an address */
    KIND_DEAD,     /* a host where nobody listens */
    KIND_CUT,      /* answers that are cut short */
    KIND_CIRCLE,   /* names that lead in a circle */
};
enum { SWARM_KINDS_COUNT = KIND_CIRCLE + 1 };

enum swarm_event_kind {
    EVENT_SUBMIT,
    EVENT_ORDER,
    EVENT_CRASH,
    EVENT_CRASH_AT, /* behind an operation of the disk */
    EVENT_STOP,
    EVENT_HOST,   /* a host's rule changes */
    EVENT_DISK,   /* an operation of the disk will fail */
    EVENT_NAME,   /* the name servers say other things of a name */
    EVENT_DAMAGE, /* files are damaged at the next start behind a crash */
    EVENT_WALL,   /* somebody sets the wall clock */
    EVENT_HEAL,   /* no more faults by chance */
};

struct swarm_event {
    int64_t at_ns;
    enum swarm_event_kind kind;
    uint32_t index; /* batch, host, change */
    const char *verb;
    enum sim_net_rule rule;
    bool is_power_loss;
    uint32_t ops; /* until the disk fails, or the engine dies */
    int error;
    bool is_sticky;
    int64_t by_ns;   /* so much the wall clock is set ahead ... */
    bool is_at_boot; /* ... while no engine runs: at the next start */
};

struct swarm_batch {
    struct sim_plan plan;
    char id[32];
    uint32_t number; /* in the book, once submitted */
    bool is_submitted;
    bool is_cancelled;
    uint32_t scripts_of_256; /* how many recipients bring a script ... */
    uint32_t scripts_count;  /* ... one of these (sim_swarm_zoo.c) */
    uint32_t scripts[SWARM_SCRIPTS_MAX];
};

struct swarm_host {
    unsigned may;      /* enum sim_end: what may become of anybody there beside a delivery */
    bool may_shift;    /* the answer to one may be told of another */
    uint64_t size_low; /* messages from about this size on may be too large; 0: none is */
};

struct swarm_domain {
    char name[32];
    uint32_t names; /* a bit a host's name that its mail may go to ... */
    uint32_t addrs; /* ... or a host's address */
    uint32_t site;  /* one number a set of mail hosts; SIM_RATES_NO_SITE: there are several */
    unsigned ends;  /* enum sim_end: what its mail comes to when all works */
};

/* What the name servers say of a name from some time on. */
struct swarm_change {
    char name[40];
    uint32_t rows_count;
    struct swarm_row {
        int type;
        uint32_t ttl_s;
        char data[64];
    } rows[SWARM_CHANGE_ROWS_MAX];
};

struct swarm {
    struct sim_engine *sim;
    struct sim_book book;
    struct random random;
    uint32_t hosts_count;
    struct swarm_host hosts[SWARM_HOSTS_MAX];
    uint32_t reach[SWARM_HOSTS_MAX]; /* a bit a host whose address the name of this one may have */
    uint32_t changes_count;
    struct swarm_change changes[SWARM_CHANGES_MAX];
    uint32_t domains_count;
    struct swarm_domain domains[SWARM_DOMAINS_MAX];
    bool has_disk_faults;
    int64_t wall_due_ns;  /* the wall clock will be set by so much when the engine is down */
    uint32_t damages_due; /* so many files will be damaged when the engine has crashed */
    enum sim_damage_place damage_place;
    bool is_calm;         /* no fault that keeps good mail from its recipient */
    bool are_hosts_harsh; /* they refuse by share, and some lie */
    bool is_cramped;      /* a batch may wait for others to end, and its time runs meanwhile */
    uint32_t batches_count;
    struct swarm_batch batches[SWARM_BATCHES_MAX];
    const struct swarm_batch *making;
    uint32_t events_count;
    struct swarm_event events[SWARM_EVENTS_MAX];
    struct sim_engine_config settings;
};

static inline uint32_t below(struct swarm *swarm, uint32_t limit)
{
    return random_below(&swarm->random, limit);
}

static inline bool one_in(struct swarm *swarm, uint32_t n)
{
    return below(swarm, n) == 0;
}

static inline uint32_t between(struct swarm *swarm, uint32_t low, uint32_t high)
{
    return low + below(swarm, high - low + 1);
}

/* Small more often than large. */
static inline uint32_t skewed(struct swarm *swarm, uint32_t low, uint32_t high)
{
    return between(swarm, low, between(swarm, low, high));
}

static inline int64_t within(struct swarm *swarm, int64_t ns)
{
    return (int64_t)(random_u64(&swarm->random) % (uint64_t)ns);
}

/* Before the engine is made. */
struct sim_engine_config swarm_draw_settings(struct swarm *swarm, const struct config *defaults);
/* All of the world. */
void swarm_draw(struct swarm *swarm);
void swarm_draw_hosts(struct swarm *swarm);
void swarm_draw_domains(struct swarm *swarm);
void swarm_draw_changes(struct swarm *swarm);
void swarm_change_happens(struct swarm *swarm, const struct swarm_change *change);
/* A bit a host that mail for the domain may come to. */
uint32_t swarm_hosts_of(const struct swarm *swarm, const struct swarm_domain *domain);
void swarm_event_add(struct swarm *swarm, struct swarm_event event);
void swarm_draw_scripts(struct swarm *swarm, struct swarm_batch *batch);
/* Who the next recipient of `making` is; for struct sim_plan. */
void swarm_choose(void *context, uint32_t index, struct sim_choice *ret_choice);
