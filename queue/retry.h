/* SPDX-License-Identifier: Apache-2.0 */
/*
 * retry: the retry wheel shared by all workers (DESIGN 4): deferred recipients wait here for their
 * due second.
 *
 * A hashed timing wheel (Varghese and Lauck 1987) of two levels: RETRY_FINE_SLOTS slots of one
 * second, RETRY_COARSE_SLOTS slots of RETRY_COARSE_S seconds (out to 12 days; a later due time is
 * put in the last slot and again from there). A coarse slot is opened one turn of RETRY_COARSE_S
 * before its first second, so that it is spread over the fine slots long before anything in it is
 * due. Each slot is a wait-free stack (liburcu wfstack): a deferral is one push, a due slot is
 * emptied with one exchange by whichever worker gets there first. Cost is O(1), whatever is queued.
 *
 * Ownership: push gives the recipient to its slot; retry_take gives recipients to the caller. The
 * second hand is one atomic: the worker that moves it owns the slots it moved over. A push for a
 * second that is already past is handed out by the next take: never lost, at most one second late.
 * What take hands out may not be due yet (a coarse slot was opened, a push met the moving hand):
 * the caller pushes such recipients again, so nothing is tried early.
 *
 * The clock is the caller's, of whole seconds (engine/steady.h). When it is set back by more than
 * RETRY_CLOCK_SLACK_S the hand follows it; by less, takes find nothing until it has caught up.
 *
 * Bound: that of the recipients' slab; the wheel itself is 16 bytes a slot. A take hands out at
 * most RETRY_TAKE_MAX recipients; what is left of the slot is handed out by the next takes, of any
 * worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "queue/recipient.h"

enum {
    RETRY_COARSE_S = 1024,
    RETRY_FINE_SLOTS = 2 * RETRY_COARSE_S,
    RETRY_COARSE_SLOTS = 1024,
    RETRY_SLOTS = RETRY_FINE_SLOTS + RETRY_COARSE_SLOTS + 1, /* the last: due, not yet taken */
    RETRY_TAKE_MAX = 1024,
    RETRY_CLOCK_SLACK_S = 2,
};

struct retry_wheel;

/* NULL: no memory. */
struct retry_wheel *retry_wheel_create(uint32_t now_s);
/* Ensures that it is empty, unless `is_abandoned` (a stop with recipients still deferred: the
 * journal knows them). */
void retry_wheel_destroy(struct retry_wheel *wheel, bool is_abandoned); /* NULL-safe */

/* Any worker. recipient->due_s must be set. */
void retry_push_xcore(struct retry_wheel *wheel, struct recipient *recipient);
/* Any worker: recipients whose second has come (or that are not due after all: due_s > now_s, push
 * them again), behind what is in `chain`, linked through node; at most RETRY_TAKE_MAX. False:
 * nothing is due. */
bool retry_take_xcore(struct retry_wheel *wheel, uint32_t now_s, struct inbox_chain *chain);
/* Earliest second at which take may find something (now_s or before it: at once); UINT32_MAX when
 * the wheel is empty. Never later than the earliest due time, earlier by the opening of a coarse
 * slot. Looks at up to RETRY_SLOTS slots: ask before a sleep, not after every push. */
uint32_t retry_next_due_xcore(const struct retry_wheel *wheel, uint32_t now_s);
/* Recipients in the wheel; exact when all workers stand still. Looks at all slots. */
uint64_t retry_count_xcore(const struct retry_wheel *wheel);
/* Takes ALL recipients of one slot, due or not, for a sweep (cancel): slot 0 .. RETRY_SLOTS - 1.
 * The caller settles or pushes again. False: nothing was there. A recipient whose push is half done
 * at this moment goes to the next take instead. */
bool retry_sweep_xcore(struct retry_wheel *wheel, uint32_t slot, struct inbox_chain *chain);
