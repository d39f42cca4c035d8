/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch: pairs what waits in a lane with sessions: the reasons not to send, and the reasons not
 * to connect, as a list.
 *
 * Actor: worker. dispatch_lane does a bounded amount of work (DISPATCH_STEP_MAX recipients) and
 * leaves the lane dirty when there is more.
 *
 *   1 review      who has waited long: whether his domain still leads here
 *   2 bytes       ask intake for the bytes of what is ready, a few loads ahead
 *   3 no attempt  cancelled, expired, unreachable: settled at once
 *   4 sessions    give what is loaded to idle sessions, as the site's rate allows
 *   5 connect     open more, as backlog and limits allow
 */
#pragma once

#include <stdint.h>

#include "engine/lane.h"
#include "engine/worker.h"

enum { DISPATCH_STEP_MAX = 256, DISPATCH_CONNECTS_STEP_MAX = 64 };

struct delivery;

void dispatch_lane(struct lane *lane, struct mono_time now);
/* Whether a session that has just become free is to end rather than to be used again: its messages,
 * its age, others who wait. */
bool dispatch_is_session_spent(const struct lane *lane, const struct delivery *delivery,
                               struct mono_time now);
/* Whether a session that has been idle for long is to stay all the same: its lane is held up, and
 * would open another one at once. */
bool dispatch_may_session_idle(const struct lane *lane, const struct delivery *delivery,
                               struct mono_time now);
/* A load has come back from intake. */
void dispatch_on_load(struct worker *worker, struct load *load);
/* An attempt of the load is over, or one was never made: gives the bytes back with the last one. */
void dispatch_drop_load(struct worker *worker, struct load *load);
/* The session's host cannot be given the attempt's message. False: nor can any other of the site.
 * True: others are to be asked, or were not to be reached: takes the attempt. (dispatch_aside.c) */
bool dispatch_put_aside(struct delivery *delivery, struct attempt *attempt,
                        const struct lane_need *need, struct mono_time now);
/* Untried: back to the front of its lane. Takes the attempt. */
void dispatch_put_back(struct worker *worker, struct lane *lane, struct attempt *attempt);
