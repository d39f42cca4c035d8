/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch_priv.h"

#include <errno.h>

#include "engine/compose.h"
#include "engine/intake.h"

enum { LOAD_EACH = 8, REFUSED_MS = 5000 };

/* Recipients for one session where they share transactions: whole ones. */
static uint32_t same_count(const struct lane *lane)
{
    uint32_t rcpts_max = lane->site == NULL ? LOAD_EACH : lane->site->route->rcpts_max;
    return rcpts_max < LOAD_EACH ? LOAD_EACH / rcpts_max * rcpts_max : rcpts_max;
}

static uint32_t load_take(struct lane *lane, struct load *load)
{
    ensure(load->count == 0);
    uint32_t sessions = lane->sessions_count > 0 ? lane->sessions_count : 1;
    uint32_t each = lane->is_load_same ? same_count(lane) : LOAD_EACH;
    uint32_t most = lane->is_load_same ? LOAD_RECIPIENTS_MAX / each * each : LOAD_MIXED_MAX;
    uint32_t count_max = sessions * each < most ? sessions * each : most;
    const struct batch *batch;
    uint32_t taken = ready_take(&lane->ready, count_max, load->recipients, &batch);
    if (taken == 0) {
        return 0;
    }
    load->batch = batch;
    uint64_t size = 0;
    uint64_t last_offset = UINT64_MAX;
    while (load->count < taken && size < LOAD_SIZE_MAX) {
        const struct recipient *recipient = load->recipients[load->count++];
        size += recipient->record_offset == last_offset ? 0 : recipient->record_size;
        last_offset = recipient->record_offset;
    }
    while (taken > load->count) {
        ready_push_front(&lane->ready, load->recipients[--taken], load->batch);
    }
    ensure(load->count > 0);
    ensure(load->count <= LOAD_RECIPIENTS_MAX);
    lane->is_load_same = load->count > 1 && compose_is_same(load, 0, load->count - 1);
    return load->count;
}

/* Whether what comes can be used, or settled, as soon as it is here. */
static bool is_needed(const struct lane *lane)
{
    struct mono_time now = lane->worker->now;
    return lane->sessions_count > 0 || lane->site == NULL || lane_is_no_mail(lane, now) ||
           lane_rest_until(lane, now).ns != 0;
}

/* Recipients that wait for a session without their bytes may be cancelled, or expire, meanwhile:
 * they are asked for again. */
static bool is_refused(struct lane *lane)
{
    if (!mono_before(lane->worker->now, lane->ahead_at)) {
        return false;
    }
    lane_wake_at(lane, lane->ahead_at);
    return true;
}

void dispatch_load_ask(struct lane *lane)
{
    struct worker *worker = lane->worker;
    if (lane_is_in_review(lane)) {
        return;
    }
    bool is_now = is_needed(lane);
    if (ready_has_work(&lane->ready) && !is_now && is_refused(lane)) {
        return;
    }
    uint32_t loads_max = 1 + lane->sessions_count / 8;
    loads_max = loads_max < 2 ? 2 : loads_max > LANE_LOADS_MAX ? LANE_LOADS_MAX : loads_max;
    if (lane->is_aside) {
        loads_max = 1; /* so that who is put back is the next one */
    }
    while (lane->loads_asked + lane->loads_filled < loads_max && ready_has_work(&lane->ready)) {
        struct load *load = slab_take(&worker->loads_free);
        if (load == NULL) {
            /* What its first recipient waits for comes first. */
            if (!list_is_linked(&lane->dirty)) {
                worker_starve(lane, WANT_LOAD);
            }
            return;
        }
        *load = (struct load){.reply_to = &worker->loads, .lane = lane, .is_needed = is_now};
        if (load_take(lane, load) == 0) {
            slab_give(&worker->loads_free, load);
            return;
        }
        struct span name = domain_name_xcore(worker->engine->domains, load->recipients[0]->domain);
        lane->domain_size = (uint8_t)name.size;
        memcpy(lane->domain, name.at, name.size);
        lane->loads_asked++;
        lane->loading_count += load->count;
        worker_move(worker, PLACE_READY, PLACE_LOADING, load->count);
        inbox_push_xcore(&worker->engine->intake->loads, &load->node);
    }
}

/* Those who are not dispatched yet are ready again, in front. */
static void load_unload(struct lane *lane, struct load *load)
{
    worker_move(lane->worker, PLACE_LOADING, PLACE_READY, load->count - load->next);
    for (uint32_t i = load->count; i > load->next; i--) {
        ready_push_front(&lane->ready, load->recipients[i - 1], load->batch);
    }
    load->next = load->count;
}

static void load_give_back(struct lane *lane, struct load *load)
{
    ensure(lane->loaded_count >= load->count - load->next);
    lane->loaded_count -= load->count - load->next;
    lane->loads_filled--;
    list_remove(&load->link);
    load->holds++;
    load_unload(lane, load);
    dispatch_drop_load(lane->worker, load);
}

void dispatch_load_give_back(struct lane *lane)
{
    ensure(lane->sessions_count == 0);
    struct list *node = lane->loads.prev;
    while (node != &lane->loads) {
        struct load *load = CONTAINER_OF(node, struct load, link);
        node = node->prev;
        if (load->is_needed) {
            load_give_back(lane, load);
            lane_mark_dirty(lane);
        }
    }
}

static bool is_paused(const struct batch *batch)
{
    return stat_read_xcore(&batch->orders) == BATCH_PAUSED;
}

void dispatch_load_set_aside(struct lane *lane)
{
    struct list *node = lane->loads.prev;
    while (node != &lane->loads) {
        struct load *load = CONTAINER_OF(node, struct load, link);
        node = node->prev;
        if (is_paused(load->batch)) {
            load_give_back(lane, load);
        }
    }
}

void dispatch_load_unload_all(struct lane *lane)
{
    while (!list_is_empty(&lane->loads)) {
        load_give_back(lane, CONTAINER_OF(lane->loads.prev, struct load, link));
    }
    ensure(lane->loaded_count == 0);
    ensure(lane->loads_filled == 0);
}

void dispatch_on_load(struct worker *worker, struct load *load)
{
    ensure(load->next == 0);
    ensure(load->count > 0);
    struct lane *lane = load->lane;
    ensure(lane->loads_asked > 0);
    ensure(lane->loading_count >= load->count);
    lane->loads_asked--;
    lane->loading_count -= load->count;
    /* More bytes are no help to who is held up: he was put back, and would ask for his own again.
     */
    if (!lane->is_held_up) {
        lane_mark_dirty(lane);
    }
    if (load->block == NULL) {
        ensure(load->result == -ENOBUFS);
        lane->ahead_at = mono_add_ms(worker->now, REFUSED_MS);
        load_unload(lane, load);
        worker_give(worker, &worker->loads_free, load);
        return;
    }
    lane->loads_filled++;
    lane->loaded_count += load->count;
    list_add_last(&lane->loads, &load->link);
}

void dispatch_drop_load(struct worker *worker, struct load *load)
{
    ensure(load->holds > 0);
    if (--load->holds > 0 || load->next < load->count) {
        return;
    }
    if (worker->parsed_load == load) {
        worker->parsed_load = NULL;
    }
    if (load->block != NULL) {
        inbox_push_xcore(&worker->engine->intake->blocks, &load->block->node);
    }
    worker_give(worker, &worker->loads_free, load);
}

struct attempt *dispatch_attempt_take(struct lane *lane, struct load *load)
{
    struct worker *worker = lane->worker;
    struct attempt *attempt = worker_may_attempt(worker) ? slab_take(&worker->attempts) : NULL;
    if (attempt == NULL) {
        worker_starve(lane, WANT_ATTEMPT);
        return NULL;
    }
    ensure(load->next < load->count);
    ensure(lane->loaded_count > 0);
    attempt->recipient = load->recipients[load->next++];
    attempt->batch = load->batch;
    attempt->load = load;
    attempt->place = PLACE_FLIGHT;
    attempt->address_size = 0;
    attempt->id_size = 0;
    load->holds++;
    lane->loaded_count--;
    worker_move(worker, PLACE_LOADING, PLACE_FLIGHT, 1);
    if (load->next == load->count) {
        lane->loads_filled--;
        list_remove(&load->link);
    }
    return attempt;
}

void dispatch_put_back(struct worker *worker, struct lane *lane, struct attempt *attempt)
{
    ensure(attempt->place == PLACE_FLIGHT);
    ensure(attempt->load != NULL);
    worker_move(worker, PLACE_FLIGHT, PLACE_READY, 1);
    ready_push_front(&lane->ready, attempt->recipient, attempt->batch);
    dispatch_drop_load(worker, attempt->load);
    worker_give(worker, &worker->attempts, attempt);
    lane_mark_dirty(lane);
}

void dispatch_load_displace(struct lane *lane, struct mono_time now)
{
    ensure(lane->loads_asked == 0 || lane->loading_count > 0);
    struct worker *worker = lane->worker;
    struct load *load;
    while ((load = dispatch_load_head(lane)) != NULL) {
        load->holds++;
        while (load->next < load->count) {
            struct recipient *recipient = load->recipients[load->next++];
            ensure(lane->loaded_count > 0);
            lane->loaded_count--;
            worker_move(worker, PLACE_LOADING, PLACE_NONE, 1);
            worker_forget_site(worker, recipient);
            worker_place_recipient(worker, recipient, now);
        }
        lane->loads_filled--;
        list_remove(&load->link);
        dispatch_drop_load(worker, load);
    }
    ensure(lane->loaded_count == 0);
    lane_mark_dirty(lane);
}
