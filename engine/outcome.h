/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outcome: what became of one attempt, as data; and the only place where a recipient is settled
 * (LAW 2).
 *
 * Actor: worker. outcome_settle turns (attempt, outcome) into one journal record with its event
 * line and pushes it to the journal; the recipient stays with that record until it is durable, then
 * outcome_on_durable gives a settled recipient back to intake, and a deferred one to the retry
 * wheel. In between it counts as settled or deferred, never as pending: it cannot be sent again.
 *
 * Bound: journal entries are taken from the worker's slab, which has one for each attempt beside
 * those under way, for no attempt is begun while WORKER_UNWRITTEN_MAX are (worker_may_attempt): a
 * settle never waits, however slow the journal is.
 */
#pragma once

#include <stdint.h>

#include "engine/base/clock.h"
#include "engine/policy.h"
#include "engine/smtp/smtp_session.h"
#include "net/addr.h"

struct attempt;
struct journal_entry;
struct worker;

enum outcome_class {
    OUTCOME_DELIVERED,
    OUTCOME_DEFERRED,
    OUTCOME_BOUNCED,
    OUTCOME_EXPIRED,
    OUTCOME_CANCELLED,
};
enum { OUTCOME_CLASSES_COUNT = OUTCOME_CANCELLED + 1 };

/* Where the attempt went, for the log; all may be empty. */
struct outcome_place {
    struct span site;
    struct span source_name;
    struct net_addr source;
    struct span peer_name;
    struct span peer_addr; /* text; empty: no connection was made */
    uint64_t session;
    uint64_t size;
    struct span sender;
};

struct outcome {
    enum outcome_class class;
    enum policy_reason reason;
    struct policy_response response;
    bool is_ambiguous;    /* end of data was sent, no answer was read */
    uint32_t delay_min_s; /* of a deferral: not before this many seconds */
    struct outcome_place place;
};

/* Takes the attempt: it may not be used afterwards. A deferral that would pass the recipient's
 * expiry becomes EXPIRED here. */
void outcome_settle(struct worker *worker, struct attempt *attempt, const struct outcome *outcome,
                    struct mono_time now);
/* The record is durable. Takes the entry. */
void outcome_on_durable(struct worker *worker, struct journal_entry *entry);
/* The engine's own second (steady.h) at which the recipients of the batch expire on this route. */
struct batch;
struct config_route;
struct engine;
uint64_t outcome_expiry_s(const struct engine *engine, const struct batch *batch,
                          const struct config_route *route);
/* The route of the recipient's domain, as the worker knows it. */
struct recipient;
const struct config_route *outcome_route(const struct worker *worker,
                                         const struct recipient *recipient);
