/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch.h"

#include "engine/compose.h"
#include "engine/delivery.h"
#include "engine/dispatch_priv.h"
#include "queue/journal.h"

bool dispatch_is_draining(const struct lane *lane)
{
    const struct engine *engine = lane->worker->engine;
    return stat_read_xcore(&engine->is_draining) != 0 || stat_read_xcore(&engine->must_stop) != 0 ||
           stat_read_xcore(&engine->journal->stats.has_failed) != 0;
}

static uint32_t group_size(const struct lane *lane, const struct load *load)
{
    ensure(load->next < load->count);
    uint32_t rcpts_max = lane->site->route->rcpts_max;
    rcpts_max = rcpts_max < SMTP_RCPTS_MAX ? rcpts_max : SMTP_RCPTS_MAX;
    uint32_t count = 1;
    while (count < rcpts_max && load->next + count < load->count &&
           compose_is_same(load, load->next, load->next + count)) {
        count++;
    }
    return count;
}

/* Attempts of the group, those that cannot be served settled; returns how many are left. The
 * message is made from the record of the first of them, `*ret_index`. */
static uint32_t group_take(struct lane *lane, struct load *load, uint32_t count,
                           struct attempt **ret_attempts, uint32_t *ret_index, struct mono_time now)
{
    ensure(count > 0);
    ensure(count <= SMTP_RCPTS_MAX);
    uint32_t taken = 0;
    *ret_index = load->next;
    for (uint32_t i = 0; i < count; i++) {
        struct attempt *attempt = dispatch_attempt_take(lane, load);
        if (attempt == NULL) {
            break;
        }
        char words[256];
        struct writer problem = writer_of(words, sizeof(words));
        if (compose_attempt(lane->worker, load, load->next - 1, attempt, &problem) != COMPOSE_OK) {
            dispatch_settle_problem(lane, attempt, writer_span(&problem), now);
            continue;
        }
        *ret_index = taken == 0 ? load->next - 1 : *ret_index;
        ret_attempts[taken++] = attempt;
    }
    return taken;
}

static void group_put_back(struct lane *lane, struct attempt *const *attempts, uint32_t count)
{
    for (uint32_t i = count; i > 0; i--) {
        dispatch_put_back(lane->worker, lane, attempts[i - 1]);
    }
}

/* The message is made: the rate is paid last, for what is begun and for nothing that is put back,
 * or that this server cannot be given. False: another worker was faster. */
static bool send_group(struct lane *lane, struct delivery *delivery, struct load *load,
                       struct attempt *const *attempts, uint32_t count, struct mono_time now)
{
    struct mono_time next;
    if (smtp_session_may_carry(&delivery->smtp, &delivery->transaction) &&
        !site_rate_take_xcore(lane->site, count, now, &next)) {
        delivery_release_message(delivery);
        group_put_back(lane, attempts, count);
        lane_wake_at(lane, next);
        return false;
    }
    delivery_begin(delivery, load, attempts, count, now);
    return true;
}

/* The message cannot be made for this recipient; or not for this host: then others are asked. */
static void settle_group(struct lane *lane, struct delivery *delivery,
                         struct attempt *const *attempts, uint32_t count, bool is_declined,
                         struct span words, struct mono_time now)
{
    const struct lane_need need = {.is_8bit = true};
    for (uint32_t i = 0; i < count; i++) {
        if (!is_declined || !dispatch_put_aside(delivery, attempts[i], &need, now)) {
            dispatch_settle_problem(lane, attempts[i], words, now);
        }
    }
    if (delivery->is_declined) {
        delivery_quit(delivery, now);
    }
}

/* False: nothing more can be begun now; the lane comes back by its timer or as a starved one. */
static bool begin_one(struct lane *lane, struct load *load, struct mono_time now)
{
    ensure(!list_is_empty(&lane->idle));
    if (!worker_may_attempt(lane->worker)) {
        worker_starve(lane, WANT_ATTEMPT);
        return false;
    }
    struct mono_time next;
    if (site_rate_room_xcore(lane->site, now, &next) == 0) {
        lane_wake_at(lane, next);
        return false;
    }
    struct attempt *attempts[SMTP_RCPTS_MAX];
    load->holds++; /* the message is composed from it below, whatever becomes of the attempts */
    uint32_t index;
    uint32_t taken = group_take(lane, load, group_size(lane, load), attempts, &index, now);
    struct delivery *delivery = CONTAINER_OF(lane->idle.next, struct delivery, idle);
    char words[256];
    struct writer problem = writer_of(words, sizeof(words));
    enum compose_result result =
        taken == 0 ? COMPOSE_OK : compose_message(delivery, load, index, &problem);
    bool is_begun = result != COMPOSE_WAIT;
    switch (result) {
    case COMPOSE_OK:
        is_begun = taken == 0 || send_group(lane, delivery, load, attempts, taken, now);
        break;
    case COMPOSE_BAD:
    case COMPOSE_DECLINED:
        settle_group(lane, delivery, attempts, taken, result == COMPOSE_DECLINED,
                     writer_span(&problem), now);
        break;
    case COMPOSE_WAIT:
        is_begun = dispatch_let_pass(lane, attempts, taken, now);
        if (!is_begun) {
            group_put_back(lane, attempts, taken);
            worker_starve(lane, lane->worker->lacking);
        }
        break;
    }
    dispatch_drop_load(lane->worker, load);
    return is_begun;
}

static void linger(struct lane *lane, struct mono_time now)
{
    bool is_unused = lane_backlog(lane) == 0 && lane->sessions_count == 0;
    lane_set_busy(lane, !is_unused);
    if (lane->site != NULL && is_unused) {
        lane_wake_at(lane, mono_add_ms(now, LANE_LINGER_MS));
    }
    if (lane_is_reviewed(lane) && lane_backlog(lane) > 0) {
        lane_wake_at(lane, lane->review_at);
    }
}

void dispatch_lane(struct lane *lane, struct mono_time now)
{
    lane->is_held_up = false;
    if (lane->site != NULL) {
        dispatch_retire_idle(lane, now);
    }
    if (dispatch_is_draining(lane)) {
        return;
    }
    lane_set_sessionless(lane, false);
    dispatch_hand_over_few(lane);
    dispatch_review(lane, now);
    dispatch_load_set_aside(lane);
    dispatch_load_ask(lane);
    uint32_t done = 0;
    struct load *load;
    while ((load = dispatch_load_head(lane)) != NULL && done < DISPATCH_STEP_MAX) {
        uint32_t before = load->next;
        if (dispatch_settle_untried(lane, load, now)) {
            if (dispatch_load_head(lane) == load && load->next == before) {
                return; /* starved of attempts */
            }
        } else if (list_is_empty(&lane->idle) || !begin_one(lane, load, now)) {
            break;
        }
        done++;
    }
    if (done > 0) {
        lane->served_at = now;
        dispatch_load_ask(lane);
    }
    if (done >= DISPATCH_STEP_MAX) {
        lane_mark_dirty(lane);
    }
    if (lane->site != NULL) {
        dispatch_connect_more(lane, now);
        /* Those that are not to be tried have been settled above. */
        if (lane->sessions_count == 0 && done < DISPATCH_STEP_MAX) {
            dispatch_load_give_back(lane);
        }
    }
    linger(lane, now);
}
