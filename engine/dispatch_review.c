/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch_priv.h"

#include "engine/worker_priv.h"

/*
 * A review goes over all that waits in the lane, a part a turn: it is taken out of `ready`, and
 * either placed anew or kept aside in `reviewed`; when the last one was looked at they all come
 * back, in their order. What was read ahead is given back first: else it would be left out. Nothing
 * more is asked for meanwhile: those in the middle would pass those in front in each review.
 *
 * Nobody leaves the lane only because his domain's answer is old: he would lose his turn each time.
 * A new answer is asked for, and a second review, soon after, sees what it says.
 */

enum { REVIEW_STEP = 64, REVIEW_EACH = 64 };

static void review_one(struct lane *lane, struct recipient *recipient, struct mono_time now)
{
    struct worker *worker = lane->worker;
    switch (worker_domain_lead(worker, recipient, lane->site, now)) {
    case WORKER_LEAD_ASKED:
        lane->has_review_asked = true;
        inbox_chain_add(&lane->reviewed, &recipient->node);
        return;
    case WORKER_LEAD_UNASKED:
        lane->has_review_unasked = true;
        inbox_chain_add(&lane->reviewed, &recipient->node);
        return;
    case WORKER_LEAD_HERE:
        inbox_chain_add(&lane->reviewed, &recipient->node);
        return;
    case WORKER_LEAD_AWAY:
        worker_move(worker, PLACE_READY, PLACE_NONE, 1);
        worker_place_recipient(worker, recipient, now);
        return;
    }
}

/* Batches that are paused stay where they are: their resume begins a review. */
static void look(struct lane *lane, struct mono_time now)
{
    struct recipient *recipients[REVIEW_EACH];
    const struct batch *batch;
    for (uint32_t done = 0; done < REVIEW_STEP && lane->review_left > 0;) {
        uint32_t max = lane->review_left < REVIEW_EACH ? (uint32_t)lane->review_left : REVIEW_EACH;
        uint32_t taken = ready_take(&lane->ready, max, recipients, &batch);
        for (uint32_t i = 0; i < taken; i++) {
            review_one(lane, recipients[i], now);
        }
        lane->review_left = taken == 0 ? 0 : lane->review_left - taken;
        done += taken;
    }
}

static void put_back(struct lane *lane)
{
    for (uint32_t i = 0; i < REVIEW_STEP && lane->reviewed.count > 0; i++) {
        struct inbox_node *node = inbox_chain_take(&lane->reviewed);
        struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        ready_push(&lane->ready, recipient, worker_batch(lane->worker, recipient));
    }
}

static void review_begin(struct lane *lane)
{
    dispatch_load_unload_all(lane);
    lane->has_review_asked = false;
    lane->has_review_unasked = false;
    lane->review_at = MONO_NEVER;
    lane->review_left = lane->ready.count;
}

static void review_end(struct lane *lane, struct mono_time now)
{
    bool has_unasked = lane->has_review_unasked;
    lane->is_review_second = lane->has_review_asked && !has_unasked && !lane->is_review_second;
    bool is_wanted = lane->review_at.ns != MONO_NEVER.ns; /* by a resume, meanwhile */
    if (!is_wanted) {
        lane->review_at = mono_add_ms(now, lane->is_review_second ? LANE_REVIEW_AGAIN_MS
                                           : has_unasked          ? LANE_REVIEW_MS / 2
                                                                  : LANE_REVIEW_MS);
    }
}

void dispatch_review(struct lane *lane, struct mono_time now)
{
    if (!lane_is_in_review(lane)) {
        if (!lane_is_reviewed(lane) || lane_backlog(lane) == 0 ||
            mono_before(now, lane->review_at)) {
            return;
        }
        review_begin(lane);
    }
    if (lane->review_left > 0) {
        look(lane, now);
    } else {
        put_back(lane);
    }
    if (lane_is_in_review(lane)) {
        lane_mark_dirty(lane);
        return;
    }
    review_end(lane, now);
}
