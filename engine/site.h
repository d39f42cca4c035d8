/* SPDX-License-Identifier: Apache-2.0 */
/*
 * site: all domains that share one set of mail hosts, shared by all workers; and the limits that
 * must be exact over all of them.
 *
 * A site is found by its key (the MX set's, or a route's) in a liburcu hash table of fixed size;
 * workers add what is missing, without a lock. The bound is sites_max.
 *
 * Life: each lane keeps its site (site_keep_xcore .. site_leave_xcore). One that nobody keeps stays
 * as it is, with what it has learned, until room is needed: control (site_table_reclaim) closes the
 * ones longest left, takes them out of the table, and gives their slots out again when every worker
 * has ended the step it was in: a lookup never spans two steps. A site whose rate is not paid off
 * yet is never closed: as a new one it could send a burst again. `generation` grows each time the
 * last lane leaves and each time the slot changes hands, so a remembered site is one only as long
 * as its generation is; that of a closed one is even.
 *
 * When all sites are kept: site_obtain_xcore returns NULL, workers let go of lanes that linger and
 * of idle sessions (site_table_need_xcore), and who still finds none is put off and counted.
 *
 * Limits: `struct limit` counts what is open against a maximum (connections of a site, of a
 * source). Taking is one compare-and-swap, exact. A lane that is refused may put itself on the
 * limit's stack of waiters (wait-free); whoever gives back next takes the whole stack and sends
 * each lane home through its worker's `kicks` inbox. Rate: GCRA (ITU-T I.371) as one 64-bit
 * compare-and-swap on the theoretical arrival time, exact over all workers. Suspension: a site none
 * of whose hosts could be reached rests until a time; each failure in a row doubles the rest.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <urcu/urcu-qsbr.h> /* a flavour, before the table */

#include <urcu/rculfhash.h>
#include <urcu/wfstack.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "engine/base/inbox.h"
#include "engine/base/random.h"

struct config_route;

/* A place in a limit's stack of waiters, embedded in a lane. It is the stack's while the lane
 * waits, then travels to `home`. */
struct limit_waiter {
    union {
        struct cds_wfs_node on_stack;
        struct inbox_node node;
    };
    struct inbox *home;
};

struct limit {
    _Atomic uint32_t count;
    uint32_t max;
    struct __cds_wfs_stack waiters;
};

void limit_init(struct limit *limit, uint32_t max);
/* Any worker: true when one more was taken. */
bool limit_take_xcore(struct limit *limit);
/* Any worker: gives one back and sends the waiters home. */
void limit_give_xcore(struct limit *limit);
/*
 * Any worker: waits for the limit. Ownership of `waiter` goes to the stack until it comes home. To
 * be followed by one more limit_take_xcore (something may have been given back in between); whether
 * that succeeds or not, the waiter comes home at the next give.
 */
void limit_wait_xcore(struct limit *limit, struct limit_waiter *waiter);
uint32_t limit_count_xcore(const struct limit *limit);
/* True when some lane waits: who holds more than its share then gives up a connection. */
bool limit_is_wanted_xcore(const struct limit *limit);

enum { SITE_NAME_MAX = 255 };

struct site {
    struct cds_lfht_node node;
    uint64_t key;
    uint32_t index;
    const struct config_route *route;
    uint16_t name_size;
    char name[SITE_NAME_MAX + 1];
    struct limit connections;
    _Atomic uint64_t kept;              /* generation << 32 | lanes that keep it */
    _Atomic int64_t left_ns;            /* monotonic: when it was made, or its last lane left it */
    uint32_t closed_next;               /* control's: index + 1 of the next one that is closed */
    _Atomic uint32_t lanes_count;       /* that have recipients or sessions, over all workers */
    _Atomic uint64_t holders;           /* bit per worker (modulo 64) that has a connection open */
    _Atomic int64_t arrival_ns;         /* GCRA: theoretical arrival time, monotonic */
    _Atomic uint32_t fresh_count;       /* of a rate: connections without a first message */
    _Atomic int64_t suspended_until_ns; /* monotonic; 0 = not suspended */
    _Atomic uint32_t suspensions_count; /* in a row */
};

struct site_table;

struct site_table *site_table_create(uint32_t sites_max, int *ret_error);
void site_table_destroy(struct site_table *table); /* NULL-safe */
/* Any worker, inside its step: the site of key, name and route, made when missing; NULL when the
 * table is full. It is remembered with its generation: site_keep_xcore tells whether it still is
 * one. The name is looked at because the key is no secret: who makes another domain's key with
 * other hosts gets a site of its own. */
struct site *site_obtain_xcore(struct site_table *table, uint64_t key, struct span name,
                               const struct config_route *route, struct mono_time now);
uint32_t site_generation_xcore(const struct site *site);
/* False: it is not the site any more that it was in that generation, and is to be obtained anew. */
bool site_keep_xcore(struct site *site, uint32_t generation) __attribute__((warn_unused_result));
/* What was kept is left. */
void site_leave_xcore(struct site *site, struct mono_time now);

/* What the table wants from the workers: nothing, lanes that linger, idle sessions as well. */
enum site_need { SITE_NEED_NONE, SITE_NEED_LANES, SITE_NEED_SESSIONS };
enum site_need site_table_need_xcore(const struct site_table *table);
/* Control only: looks at up to `scan_max` sites, from where it ended the last time, when slots run
 * short. Between two calls every worker must have ended the step it was in at the first. */
void site_table_reclaim(struct site_table *table, uint32_t scan_max, struct mono_time now);
/* Recipients were put off because all sites are kept; and how many ever were. */
void site_table_note_unserved_xcore(struct site_table *table, uint32_t count);
uint64_t site_table_unserved_xcore(const struct site_table *table);
/* Slots that are no free ones. */
uint32_t site_table_used_xcore(const struct site_table *table);
/* Slots that were handed out ever: below it are all sites there are. */
uint32_t site_table_count_xcore(const struct site_table *table);
/* Whether the site is that of key and name (on its route). */
bool site_is_of(const struct site *site, uint64_t key, struct span name);
/* Site number `index` below the count. */
struct site *site_at_xcore(const struct site_table *table, uint32_t index);

/* GCRA: true when `count` messages may go now (taken); else false and the time when one may. No
 * rate: always true. More than one go when the first may: a group can run ahead of the burst by its
 * own size, and is paid for afterwards. */
bool site_rate_take_xcore(struct site *site, uint32_t count, struct mono_time now,
                          struct mono_time *ret_next);
/* How many messages may go at the time `at` if none goes before; 0: from *ret_next on one may.
 * Nothing is taken. */
uint32_t site_rate_room_xcore(const struct site *site, struct mono_time at,
                              struct mono_time *ret_next);
/* Counts a connection that is opened for what the rate lets go next, until it has its first message
 * or ends; and tells how many are. */
void site_count_fresh_xcore(struct site *site, bool is_fresh);
uint32_t site_fresh_xcore(const struct site *site);
/* Time until which the site rests; ns 0 = it does not. */
struct mono_time site_suspended_until_xcore(const struct site *site, struct mono_time now);
/* None of the hosts could be used: rests suspend_first_s, doubling up to suspend_max_s, minus up to
 * 20 % by chance. Only the first of several workers that tell of the same failure lengthens the
 * rest. */
void site_suspend_xcore(struct site *site, struct mono_time now, struct random *random);
/* It rests no more; the next rest is longer all the same, until a session got through. */
void site_rest_end_xcore(struct site *site);
/* A session got through: no failures in a row any more. */
void site_reached_xcore(struct site *site);
/* Marks that this worker has (no longer) a connection of the site, other than of a lane aside. */
void site_hold_xcore(struct site *site, uint32_t worker, bool is_holding);
/* Counts a lane that gets busy, or is so no more; and tells how many are. */
void site_count_lane_xcore(struct site *site, bool is_busy);
uint32_t site_lanes_xcore(const struct site *site);
bool site_is_holder_xcore(const struct site *site, uint32_t worker);
/* A worker that has a connection of the site, other than `worker`; UINT32_MAX when none. */
uint32_t site_holder_xcore(const struct site *site, uint32_t worker);
