/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that one host of a site cannot be given: the others are asked before they bounce
 * (E2, E4).
 *
 * The host of an ordinary session declines: the recipient goes into the lane aside (lane.h), while
 * the session goes on with what it takes. Aside, the host is remembered with what it offered; as
 * long as there is one that may take the message the recipient goes back to the front, alone in
 * front of all that is loaded, and the session makes room for one to the host that was asked least
 * lately. Where all that could be asked decline the message bounces; where some could not be asked
 * it is put off. Hosts that say now this and now that end in a deferral, too: PUTS_MAX.
 *
 * Where all hosts decline this costs one connection more for each, and again behind
 * LANE_DECLINED_MS: messages that come aside meanwhile bounce at the first that is asked.
 *
 * A few that wait for one of the largest bufs, of which there are few for all, do so aside, too:
 * the smaller mail of their site need not wait behind them. Beyond WAITING_MAX the lane waits.
 */
#include "engine/dispatch_priv.h"

#include "engine/delivery.h"
#include "engine/worker.h"

enum { PUTS_MAX = 2 * LANE_BAD_HOSTS_MAX, WAITING_MAX = 8 };

static void move_aside(struct lane *lane, struct attempt *attempt, struct mono_time now)
{
    struct worker *worker = lane->worker;
    ensure(attempt->place == PLACE_FLIGHT);
    ensure(!lane->is_aside);
    attempt->recipient->asides_count++;
    worker_move(worker, PLACE_FLIGHT, PLACE_NONE, 1);
    worker_place_recipient(worker, attempt->recipient, now);
    dispatch_drop_load(worker, attempt->load);
    worker_give(worker, &worker->attempts, attempt);
}

bool dispatch_put_aside(struct delivery *delivery, struct attempt *attempt,
                        const struct lane_need *need, struct mono_time now)
{
    struct lane *lane = delivery->lane;
    struct recipient *recipient = attempt->recipient;
    const struct smtp_capabilities *offer = smtp_session_capabilities(&delivery->smtp);
    struct span domain = domain_name_xcore(lane->worker->engine->domains, recipient->domain);
    if (lane->is_aside) {
        lane_host_declined(lane, &delivery->host, offer, now);
    }
    struct policy_verdict verdict = policy_of_reason(TEMP_NO_HOST);
    switch (lane_others_of(lane, &delivery->host, domain, need, now)) {
    case LANE_OTHERS_DECLINE:
        return false;
    case LANE_OTHERS_FAILED:
        verdict = lane_failure(lane);
        dispatch_settle_deferred(lane, attempt, &verdict, now);
        return true;
    case LANE_OTHERS_MAY_TAKE:
        break;
    }
    if (recipient->asides_count == PUTS_MAX) {
        verdict.response.content = SPAN("no host was found that takes such a message");
        dispatch_settle_deferred(lane, attempt, &verdict, now);
        return true;
    }
    if (!lane->is_aside) {
        move_aside(lane, attempt, now);
        return true;
    }
    recipient->asides_count++;
    delivery->is_declined = true;
    dispatch_load_unload_all(lane);
    dispatch_put_back(lane->worker, lane, attempt);
    return true;
}

bool dispatch_let_pass(struct lane *lane, struct attempt *const *attempts, uint32_t count,
                       struct mono_time now)
{
    if (lane->is_aside || (unsigned)lane->worker->lacking != WANT_BUF_WHOLE) {
        return false;
    }
    const struct lane *aside = lane_find_aside(lane);
    if (aside != NULL && lane_backlog(aside) >= WAITING_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        move_aside(lane, attempts[i], now);
    }
    return true;
}
