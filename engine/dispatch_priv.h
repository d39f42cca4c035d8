/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dispatch_priv: what the parts of dispatch share: dispatch.c (a lane's turn: groups of recipients
 * to idle sessions), dispatch_load.c (their bytes), dispatch_untried.c (those that are not to be
 * tried), dispatch_aside.c (messages for other hosts), dispatch_review.c (those whose domain has
 * moved), dispatch_connect.c (how many sessions, and whose). Visible inside engine/ only.
 */
#pragma once

#include "engine/dispatch.h"
#include "engine/load.h"

/* dispatch.c: nothing new is begun: the engine stops, or what would be sent could not be recorded.
 */
bool dispatch_is_draining(const struct lane *lane);

/* dispatch_load.c */

/* The load at the head of the lane, or NULL; one that is used up has left the list already. */
static inline struct load *dispatch_load_head(struct lane *lane)
{
    return list_is_empty(&lane->loads) ? NULL : CONTAINER_OF(lane->loads.next, struct load, link);
}

/* Asks intake for the bytes of what is ready, a few loads ahead; starved when no load is free.
 * Refused for a lane that has no session: asked again a while later. */
void dispatch_load_ask(struct lane *lane);
/* A lane has lost its sessions, and gets none now: bytes that were given to it for them go back,
 * for others that have some. The lane is dirty when there were any. */
void dispatch_load_give_back(struct lane *lane);
/* What is loaded of batches that were paused meanwhile goes back, and waits for the resume. */
void dispatch_load_set_aside(struct lane *lane);
/* All that is loaded goes back to `ready`, in its order. */
void dispatch_load_unload_all(struct lane *lane);
/* What is loaded belongs to other sites by now: it is placed anew. */
void dispatch_load_displace(struct lane *lane, struct mono_time now);
/* The next recipient of the load becomes an attempt; NULL, and the lane is starved, when the worker
 * has none free. */
struct attempt *dispatch_attempt_take(struct lane *lane, struct load *load);

/* dispatch_untried.c */

/* The reasons not to try the load's next recipient at all. False: it may be tried. True: it was
 * settled, or the lane is starved of attempts. */
bool dispatch_settle_untried(struct lane *lane, struct load *load, struct mono_time now);
/* Put off without a word of a server. Takes the attempt. */
void dispatch_settle_deferred(struct lane *lane, struct attempt *attempt,
                              const struct policy_verdict *verdict, struct mono_time now);
/* The recipient's text could not be used: its own bounce, in words. Takes the attempt. */
void dispatch_settle_problem(struct lane *lane, struct attempt *attempt, struct span words,
                             struct mono_time now);

/* dispatch_aside.c */

/* The group's message waits for memory. True: it does so aside, and the lane goes on with others:
 * takes the attempts. */
bool dispatch_let_pass(struct lane *lane, struct attempt *const *attempts, uint32_t count,
                       struct mono_time now);

/* dispatch_review.c */

/* A part of the review that is due or under way: who has waited long is placed anew when his domain
 * does not lead here any more. */
void dispatch_review(struct lane *lane, struct mono_time now);

/* dispatch_connect.c */

/* Idle sessions that nobody here needs while others wait; all of them when the engine stops. */
void dispatch_retire_idle(struct lane *lane, struct mono_time now);
/* A few recipients of a full site go to a worker that has connections of it. */
void dispatch_hand_over_few(struct lane *lane);
/* Opens more sessions, as backlog and limits allow. */
void dispatch_connect_more(struct lane *lane, struct mono_time now);
