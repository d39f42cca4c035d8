/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker: the worker actor: one a core; recipients in, mail out.
 *
 * Owns its net loop, lanes, sessions (struct delivery), attempts, timers. Every recipient that it
 * owns is in exactly one place (LAW 1), counted in `places`; worker_check proves LAW 3 at the end
 * of each step: received = in places + given away.
 *
 * What comes in (inbox)                           what goes out
 *   recipients  from intake, or other workers     loads to intake, settled recipients to intake
 *   loads       filled by intake                  mx queries to the resolver
 *   entries     durable records of the journal    journal entries to the journal
 *   answers     mx queries, answered              deferred recipients to the retry wheel
 *   kicks       lanes whose limit has room        recipients to a worker that holds a full site
 *   reports     requests of the control actor     the same, filled
 *   orders      resume, cancel or retry a batch   the same, to the next worker or back
 *
 * Bounds: sessions = config sessions_max / workers; attempts WORKER_ATTEMPTS_MAX (dispatch waits);
 * none is begun while WORKER_UNWRITTEN_MAX records of earlier ones are not durable (their lines are
 * the largest part of a worker's memory when the disk is slow); the rest follows from these, in
 * worker_tables.c.
 */
#pragma once

#include <stdint.h>

#include "engine/base/actor.h"
#include "engine/base/list.h"
#include "engine/base/random.h"
#include "engine/base/slab.h"
#include "engine/base/stat.h"
#include "engine/base/timer.h"
#include "engine/engine.h"
#include "engine/lane.h"
#include "engine/message/template.h"
#include "engine/outcome.h"
#include "net/net.h"
#include "queue/ready.h"
#include "queue/scan.h"

/* Memory for what is sent: a message takes a buf of the smallest class that holds it. */
enum { COMPOSE_BUF_CLASSES = 5 };

enum { WORKER_ATTEMPTS_MAX = 65536, WORKER_UNWRITTEN_MAX = 32768 };
enum { WORKER_LOADS_MAX = 4096, WORKER_QUERIES_MAX = 4096 };
enum { WORKER_QUERIES_OF_LANES = 256 }; /* of the queries: for hosts, not for domains */

/* Where a recipient can be while a worker owns it. */
enum worker_place {
    PLACE_DOMAIN,  /* waits for its domain's MX answer */
    PLACE_READY,   /* in a lane, may be tried */
    PLACE_LOADING, /* its bytes are being read, or were and it waits for a session */
    PLACE_FLIGHT,  /* in a transaction */
    PLACE_JOURNAL, /* outcome decided, record on its way to stable storage */
};
enum { WORKER_PLACES_COUNT = PLACE_JOURNAL + 1, PLACE_NONE = WORKER_PLACES_COUNT };

struct worker_stats {
    struct stat_counter places[WORKER_PLACES_COUNT];
    struct stat_counter received; /* from intake, other workers and the wheel */
    struct stat_counter returned; /* settled, to intake */
    struct stat_counter wheeled;  /* to the retry wheel */
    struct stat_counter handed;   /* to other workers */
    struct stat_counter classes[OUTCOME_CLASSES_COUNT];
    struct stat_counter possible_duplicates;
    struct stat_counter sessions, sessions_opened, connects_failed, transactions;
    struct stat_counter bytes_sent;
    struct stat_counter steps;
};

/* Of what a lane may have found none: it waits on the list of that, and no other thing coming back
 * calls it. */
enum worker_want {
    WANT_SESSION,
    WANT_ATTEMPT, /* worker_may_attempt */
    WANT_LOAD,
    WANT_QUERY,
    WANT_PLAN,
    WANT_BUF, /* of the first class; the others follow */
};
enum { WORKER_WANTS_COUNT = WANT_BUF + COMPOSE_BUF_CLASSES };

/* Of the largest bufs there are few: each may become as large as the largest message. */
enum { WORKER_BUFS_WHOLE = 2 };
enum { WANT_BUF_WHOLE = WORKER_WANTS_COUNT - 1 };

/* Who has one, by its number, and until when he may keep it while others wait. */
struct worker_whole {
    struct delivery *delivery; /* NULL: nobody */
    struct mono_time until;
};

/* Per domain, by domain index; valid for `generation`. */
struct worker_domain {
    uint32_t generation;
    uint32_t route; /* index + 1, 0 = not looked up yet */
    struct site *site;
    uint32_t site_generation;
    int64_t site_until_ns;
    int64_t siteless_since_ns;        /* a site or lane is waited for; 0: none is */
    struct inbox_node *pending_first; /* recipients waiting for the MX answer */
    struct inbox_node *pending_last;
    uint32_t pending_count;
    uint32_t release_left; /* of the pending ones: still to be placed again; > 0: in the queue of
                              domains that are released */
    uint32_t release_next; /* the next one there: index + 1 */
    uint32_t wait_next;    /* the next one that waits for a query: index + 1 ... */
    uint32_t wait_prev;    /* ... and the one before */
    bool is_waiting;       /* it waits for a query to be asked by */
    bool is_asked;
    bool is_siteless;          /* the last look found no site, or lane, free */
    bool is_answered;          /* while those who waited for the answer are placed again */
    bool is_release_whole;     /* all are looked at, else only until too many ... */
    uint8_t release_misses;    /* ... in a row found no place */
    uint8_t no_hosts;          /* enum mx_outcome: why the last look found none ... */
    int64_t no_hosts_until_ns; /* ... which decides until then, should the answer be gone */
};

/* One recipient on its way through one attempt. */
enum { ATTEMPT_ADDRESS_MAX = 320, ATTEMPT_ID_MAX = 127 };
struct attempt {
    struct recipient *recipient;
    const struct batch *batch;
    struct load *load;
    enum worker_place place;
    uint16_t address_size;
    uint8_t id_size;
    char address[ATTEMPT_ADDRESS_MAX];
    char id[ATTEMPT_ID_MAX + 1];
};

/* An order about one batch; owner: intake until pushed to the last worker, then each worker down to
 * the first, and intake again when it comes back. */
struct worker_order {
    struct inbox_node node;
    struct inbox *reply_to;
    const struct batch *batch;
    bool is_cancel;
    bool is_retry; /* neither: resume */
};

enum { WORKER_REPORT_ROWS = 32, WORKER_REPORT_TEXT = 200 };

struct worker_report_row {
    char site[SITE_NAME_MAX + 1];
    uint64_t backlog;
    uint32_t sessions;
    uint64_t delivered, deferred, bounced;
    int64_t suspended_ms;
    char last_error[WORKER_REPORT_TEXT];
};

/* The top lanes by backlog. Owner: control until pushed, and again when it comes back. */
struct worker_report {
    struct inbox_node node;
    struct inbox *reply_to;
    uint32_t rows_count;
    struct worker_report_row rows[WORKER_REPORT_ROWS];
};

/* Texts that most lines of a worker share (report.h). */
struct report_cache {
    int64_t second;       /* of second_text */
    char second_text[20]; /* 2026-12-01T08:00:00 */
    const struct batch *batch;
    uint32_t batch_number;
    char created_text[32];
    uint8_t created_size;
};

struct worker {
    struct actor actor; /* first */
    struct engine *engine;
    uint32_t index;
    uint32_t sessions_max;

    struct inbox recipients, loads, entries, answers, kicks, reports, orders;

    struct mono_time now; /* of this step */
    struct net_loop *net;
    struct timer_wheel timers;
    struct random random;
    struct scan_parser *parser;
    struct scan_recipient *record; /* what the parser found last */
    char *scratch;                 /* rendering, before it is copied to a buf of the right size */

    struct slab lanes, deliveries, attempts, entries_free, loads_free, queries, rcpts_blocks, plans;
    struct slab bufs[COMPOSE_BUF_CLASSES];
    const struct load *parsed_load; /* what `record` was parsed from, NULL = nothing */
    uint32_t parsed_index;
    uint8_t
        var_hints[TEMPLATE_VARS_MAX]; /* where the template's variables stood in the last record */
    struct ready_pool ready_pool;

    struct worker_domain *domains;
    uint32_t lanes_mask;
    struct lane **lanes_by_key;
    struct list lanes_all;
    struct list lanes_dirty;
    struct list lanes_starved[WORKER_WANTS_COUNT]; /* wait for something of this worker */
    struct list lanes_unused;                      /* linger, the longest unused first */
    struct list idle;           /* sessions of all lanes, the longest idle first */
    uint32_t ending_count;      /* sessions that are being closed */
    uint32_t sessionless_count; /* lanes without any session for which none was left */
    struct lane
        *nowhere; /* recipients whose domain has no hosts: settled, or routed when that changes */
    struct inbox_chain decided;     /* records for the journal, pushed at the end of the step */
    struct mono_time decided_since; /* of the oldest of them; ns 0: none */
    struct inbox_chain settled; /* durable, on their way back to intake at the end of the step */
    struct inbox_chain due;     /* taken from the retry wheel, not yet placed */
    uint32_t sweep_slot; /* next slot of the wheel to search for those whose batch was cancelled, or
                            is to be tried again; UINT32_MAX = no sweep */
    uint32_t rests_next; /* the next site whose rest an order to retry ends; UINT32_MAX: none */
    struct worker_order *retry_order; /* the first worker's: home it goes behind the sweep */
    struct inbox_chain retried; /* what was found for it: none is tried before the sweep's end, else
                                   who fails again would be met by it once more */
    bool is_draining;
    bool is_short_of_lanes; /* none was free since the last step */
    uint32_t wait_first,
        wait_last;      /* queue of domains that wait for a query: index + 1, 0 = none */
    bool is_last_next;  /* whose turn it was there: the last one, or the first */
    bool has_homeless;  /* recipients wait on a domain without a query: no lane, site or query was
                          free */
    bool has_cancelled; /* some of those who wait on a domain may be over at once */
    bool is_rehouse_whole; /* the look around is at all who wait on a domain, not at the homeless */
    struct mono_time rehouse_at;
    struct mono_time rehouse_whole_at;
    uint32_t rehouse_next; /* domain to be looked at; 0: no look around is under way */
    uint32_t release_first, release_last; /* queue of domains that are released: index + 1, 0 = none
                                           */
    struct worker_order *order;           /* under way over all lanes ... */
    struct list *order_next;              /* ... which is next */
    struct worker_report *reporting;
    struct list *reporting_next;
    bool has_room; /* something of which there was none came back: starved lanes may go on */
    enum worker_want lacking; /* what compose_message found none of last */
    struct worker_whole wholes[WORKER_BUFS_WHOLE];
    uint64_t sessions_next;        /* number of the next session, for the log */
    uint32_t deal_next;            /* worker who gets the next chunk of due recipients */
    struct mono_time retry_looked; /* when the wheel was last asked for its next due time ... */
    struct mono_time retry_due;    /* ... and what it said */
    struct report_cache report;

    struct worker_stats stats;
};

struct worker_config {
    struct engine *engine;
    uint32_t index;
    uint64_t seed; /* 0 = from the system */
    /* Makes the worker's transport: net_uring_create, or the simulator's. */
    struct net_loop *(*net_create)(void *context, const struct net_config *config, int *ret_error);
    void *net_context;
};

int worker_init(struct worker *worker, const struct worker_config *config, bool with_event_fd)
    __attribute__((warn_unused_result));
/* NULL-safe, half-built safe. Recipients still owned are abandoned: the journal knows them. */
void worker_deinit(struct worker *worker);
/* The engine stops: what has an outcome goes to the journal, before journal_deinit. */
void worker_end(struct worker *worker);
/* LAW 3 for this worker. */
void worker_check(const struct worker *worker);
/* Moves `count` recipients from one place to another, or in (from PLACE_NONE) and out (to
 * PLACE_NONE). */
void worker_move(struct worker *worker, unsigned from, unsigned to, uint64_t count);
/* Places a recipient: on its lane, or on its domain until the MX answer is there. It was counted as
 * received. */
void worker_place_recipient(struct worker *worker, struct recipient *recipient,
                            struct mono_time now);
/* Whether the recipient's domain waits for a site or a lane: all of them are in use. */
bool worker_is_siteless(struct worker *worker, const struct recipient *recipient);
/* The recipient's domain is looked up anew at its next placing. */
void worker_forget_site(struct worker *worker, const struct recipient *recipient);
/* Key of the site that the answer names, for mail on this route. */
uint64_t worker_site_key(const struct worker *worker, const struct mx_answer *answer,
                         const struct config_route *route);
/* True when it has no session, no recipient in flight, nothing on the way to the journal. */
bool worker_is_drained(const struct worker *worker);
/* Whether an expired answer serves at once: while name servers fail. Else the new one is waited
 * for, since most retries come behind a TTL, and a changed MX must be seen (B11). */
bool worker_may_use_stale(const struct worker *worker);
struct batch *worker_batch(const struct worker *worker, const struct recipient *recipient);
/* Whether one more attempt may be made: there is a slot, and a journal entry for its outcome (a
 * settle never waits). */
bool worker_may_attempt(const struct worker *worker);
/* Gives a slot back; when it was the only one, lanes that wait for such a one are looked at again.
 */
void worker_give(struct worker *worker, struct slab *slab, void *slot);
/* Puts the lane on the list of those that wait for this: there is none. */
void worker_starve(struct lane *lane, enum worker_want want);
/* The delivery has taken one of the largest bufs for a message of this size. It may keep it for as
 * long as a server of moderate pace would need, and longer for who was tried before; when others
 * wait for one then, its session is given up. */
void worker_whole_hold(struct worker *worker, struct delivery *delivery, uint64_t size,
                       uint32_t attempts_count);
