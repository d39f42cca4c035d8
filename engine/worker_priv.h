/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_priv: what the parts of worker share: worker.c (places, inboxes, the step),
 * worker_domain.c (where a recipient goes: domain -> route -> site -> lane), worker_retry.c (what
 * comes out of the wheel), worker_starved.c (lanes that wait), worker_walk.c (orders and reports),
 * worker_report.c (rows for people), worker_tables.c (its memory). Visible inside engine/ only;
 * lane.c asks for hosts through it.
 */
#pragma once

#include "dns/mx_cache.h"
#include "engine/worker.h"

/* Marks a query whose `user` names a lane, by its handle; otherwise it names a domain. */
static const uint64_t WORKER_QUERY_OF_LANE = UINT64_C(1) << 63;

/* Asks the resolver; the answer comes to worker->answers with `user`. False: no query was free. */
bool worker_ask(struct worker *worker, enum mx_kind kind, struct span name, uint64_t user)
    __attribute__((warn_unused_result));

/* Lanes whose limit has room are dispatched. */
void worker_take_kicks(struct worker *worker);

/* worker_starved.c */

void worker_starved_init(struct worker *worker);
/* Something came back of which there was none: those who have waited for it longest are looked at
 * next, as many as there is some for. */
void worker_starved_feed(struct worker *worker);
/* Gives sessions up that have kept one of the largest bufs for too long while others wait for one.
 * Returns when it is to be called again. */
struct mono_time worker_starved_hurry(struct worker *worker, struct mono_time now);

/* worker_domain.c */

/* An answer for the domain that `user` names: those who wait for it are placed again. */
void worker_domain_on_answer(struct worker *worker, uint64_t user);
/* Queries have come back: the next domains that wait for one are asked for, a part a step. True
 * when there is more to do at once. */
bool worker_domain_ask_step(struct worker *worker);
/* Places some of those whose domain was released. True when there is more to do at once. */
bool worker_domain_release_step(struct worker *worker, struct mono_time now);
/* Recipients that found no lane or site free, once a second: all domains are looked at again, a
 * part a step. Behind a cancel, and once a minute, so is everybody who waits on a domain for what
 * ever: he may be over. True when there is more to do at once. */
bool worker_domain_rehouse_step(struct worker *worker, struct mono_time now);
/* Where the domain of one who has waited in a lane of the site for long leads by now. */
enum worker_lead {
    WORKER_LEAD_HERE,
    WORKER_LEAD_ASKED, /* here as far as is known; the answer is out of date, a new one is asked */
    WORKER_LEAD_UNASKED, /* the same, and no query was free */
    WORKER_LEAD_AWAY,    /* elsewhere, nowhere, or nothing is known: to be placed anew */
};
enum worker_lead worker_domain_lead(struct worker *worker, const struct recipient *recipient,
                                    struct site *site, struct mono_time now);
/* Why the recipient's domain had no hosts when he was placed lately, for when its answer is gone by
 * now: it may live shorter than a record's way from a slow disk. MX_TEMPORARY: that is not known,
 * or too long ago. */
enum mx_outcome worker_no_hosts(struct worker *worker, const struct recipient *recipient,
                                struct mono_time now);
/* When it is to be called again. */
struct mono_time worker_domain_wake(const struct worker *worker);

/* worker_retry.c */

/* The first worker only: all of the order's batch that wait in the wheel behind a failed attempt
 * are due, and no site rests; then the order goes home. */
void worker_retry_begin(struct worker *worker, struct worker_order *order);
/* Takes what is due, and what an order sweeps up. True when there is more to do at once. */
bool worker_retry_step(struct worker *worker, struct mono_time now);
/* When the wheel is to be looked at again. */
struct mono_time worker_retry_wake(struct worker *worker, struct mono_time now);

/* worker_walk.c: over all lanes, a part a step. True when there is more to do at once. */

bool worker_orders_step(struct worker *worker);
bool worker_reports_step(struct worker *worker, struct mono_time now);
/* The lane is about to leave the list of all: whoever would look at it next looks at the one behind
 * it. */
void worker_walk_leave(struct worker *worker, const struct lane *lane);

/* worker_report.c: one more lane, when it is of the top ones. */
void worker_report_add(struct worker_report *report, const struct lane *lane, struct mono_time now);

/* worker_tables.c: 0 or -ENOMEM; deinit is half-built safe, and abandons what was taken. */
int worker_tables_init(struct worker *worker) __attribute__((warn_unused_result));
void worker_tables_deinit(struct worker *worker);
