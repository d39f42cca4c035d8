/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lane.h"

#include <errno.h>

#include "engine/worker_priv.h"

static const uint64_t LANE_KEY_ASIDE = 1u << 16; /* above it the site, below it the source */

static uint64_t lane_key(const struct site *site, uint32_t source_index, bool is_aside)
{
    /* The lane to nowhere (no site) has a key of its own: sites count from 0. */
    return (site == NULL ? 0 : (uint64_t)site->index + 1) << 17 | (is_aside ? LANE_KEY_ASIDE : 0) |
           source_index;
}

static struct lane **lane_slot(struct worker *worker, uint64_t key)
{
    uint64_t mixed = key * UINT64_C(0x9e3779b97f4a7c15);
    return &worker->lanes_by_key[(mixed >> 32) & worker->lanes_mask];
}

static struct lane *find(struct worker *worker, uint64_t key)
{
    struct lane *lane = *lane_slot(worker, key);
    while (lane != NULL && lane->key != key) {
        lane = lane->hash_next;
    }
    return lane;
}

struct lane *lane_find_aside(const struct lane *lane)
{
    ensure(!lane->is_aside);
    return find(lane->worker, lane->key | LANE_KEY_ASIDE);
}

bool lane_may_retire(const struct lane *lane)
{
    bool is_unused = lane_backlog(lane) == 0 && lane->sessions_count == 0;
    bool is_waited_for = lane->loads_asked > 0 || lane->is_asked ||
                         lane->waits[LANE_LIMIT_SITE].is_away ||
                         lane->waits[LANE_LIMIT_SOURCE].is_away;
    return is_unused && !is_waited_for && lane->site != NULL;
}

static void on_timer(struct timer *timer, struct mono_time now)
{
    (void)now;
    struct lane *lane = CONTAINER_OF(timer, struct lane, timer);
    if (lane_may_retire(lane)) {
        lane_retire(lane);
        return;
    }
    lane_mark_dirty(lane);
}

void lane_init(struct lane *lane, struct worker *worker, struct site *site, uint32_t source_index,
               bool is_aside)
{
    memset(lane, 0, sizeof(*lane));
    lane->worker = worker;
    lane->site = site;
    lane->source = &worker->engine->config->sources[source_index];
    lane->source_limit = &worker->engine->source_limits[source_index];
    lane->key = lane_key(site, source_index, is_aside);
    lane->is_aside = is_aside;
    for (size_t i = 0; i < LANE_LIMITS_COUNT; i++) {
        lane->waits[i].waiter.home = &worker->kicks;
        lane->waits[i].lane = lane;
    }
    lane->failure = TEMP_NO_CONNECT;
    list_init(&lane->link);
    list_init(&lane->dirty);
    list_init(&lane->unused);
    list_init(&lane->loads);
    list_init(&lane->idle);
    list_init(&lane->sessions);
    inbox_chain_init(&lane->reviewed);
    ready_init(&lane->ready, &worker->ready_pool);
    timer_init(&lane->timer, on_timer);
}

int lane_obtain(struct worker *worker, struct site *site, uint32_t site_generation,
                uint32_t source_index, bool is_aside, struct lane **ret_lane)
{
    ensure(site != NULL);
    ensure(source_index < worker->engine->config->sources_count);
    uint64_t key = lane_key(site, source_index, is_aside);
    struct lane *lane = find(worker, key);
    if (lane != NULL) {
        /* It keeps the site, so its generation is the one there is. */
        if (lane->site_generation != site_generation) {
            return -ESTALE;
        }
        *ret_lane = lane;
        return 0;
    }
    if (slab_left(&worker->lanes) == 0 && !lane_spare_one(worker)) {
        return -ENOBUFS;
    }
    if (!site_keep_xcore(site, site_generation)) {
        return -ESTALE;
    }
    lane = slab_take(&worker->lanes);
    ensure(lane != NULL);
    struct lane **slot = lane_slot(worker, key);
    lane_init(lane, worker, site, source_index, is_aside);
    lane->site_generation = site_generation;
    lane->hash_next = *slot;
    *slot = lane;
    list_add_last(&worker->lanes_all, &lane->link);
    *ret_lane = lane;
    return 0;
}

void lane_retire(struct lane *lane)
{
    struct worker *worker = lane->worker;
    ensure(lane_backlog(lane) == 0);
    ensure(lane->sessions_count == 0);
    ensure(!lane->waits[LANE_LIMIT_SITE].is_away);
    ensure(!lane->waits[LANE_LIMIT_SOURCE].is_away);
    ensure(!lane->is_asked);
    ensure(lane->loads_asked == 0);
    ensure(lane->loads_filled == 0);
    ensure(list_is_empty(&lane->loads));
    ensure(list_is_empty(&lane->sessions));
    ensure(lane != worker->nowhere);
    ensure(list_is_empty(&lane->idle));
    ensure(lane->connecting_count == 0);
    ensure(lane->ending_count == 0);
    struct lane **slot = lane_slot(worker, lane->key);
    while (*slot != lane) {
        ensure(*slot != NULL);
        slot = &(*slot)->hash_next;
    }
    *slot = lane->hash_next;
    worker_walk_leave(worker, lane);
    list_remove(&lane->link);
    list_remove(&lane->dirty);
    timer_cancel(&worker->timers, &lane->timer);
    ready_deinit(&lane->ready);
    lane_set_busy(lane, false);
    lane_set_sessionless(lane, false);
    list_remove(&lane->unused);
    site_leave_xcore(lane->site, worker->now);
    slab_give(&worker->lanes, lane);
}

void lane_mark_dirty(struct lane *lane)
{
    if (lane->is_starved || !list_is_linked(&lane->dirty)) {
        lane->is_starved = false;
        list_remove(&lane->dirty);
        list_add_last(&lane->worker->lanes_dirty, &lane->dirty);
    }
}

void lane_wake_at(struct lane *lane, struct mono_time at)
{
    if (!timer_is_set(&lane->timer) || mono_before(at, lane->timer.expires)) {
        timer_set(&lane->worker->timers, &lane->timer, at);
    }
}

uint64_t lane_backlog(const struct lane *lane)
{
    return lane->ready.count + lane->reviewed.count + lane->loading_count + lane->loaded_count;
}

void lane_set_busy(struct lane *lane, bool is_busy)
{
    if (lane->site != NULL && lane->is_busy != is_busy) {
        lane->is_busy = is_busy;
        site_count_lane_xcore(lane->site, is_busy);
        list_remove(&lane->unused);
        if (!is_busy) {
            list_add_last(&lane->worker->lanes_unused, &lane->unused);
        }
    }
}

void lane_set_sessionless(struct lane *lane, bool is_sessionless)
{
    if (lane->is_sessionless != is_sessionless) {
        ensure(is_sessionless || lane->worker->sessionless_count > 0);
        lane->is_sessionless = is_sessionless;
        lane->worker->sessionless_count += is_sessionless ? 1 : -1;
    }
}

void lane_push(struct lane *lane, struct recipient *recipient)
{
    ensure(recipient->batch < lane->worker->engine->config->batches_max);
    if (!lane->is_busy) {
        lane->review_at = mono_add_ms(lane->worker->now, LANE_REVIEW_MS);
        lane_set_busy(lane, true);
    }
    ready_push(&lane->ready, recipient, worker_batch(lane->worker, recipient));
    if (!list_is_linked(&lane->dirty)) {
        list_add_last(&lane->worker->lanes_dirty, &lane->dirty);
    }
}

bool lane_is_reviewed(const struct lane *lane)
{
    return lane->site != NULL && lane->site->route->hosts_count == 0;
}

bool lane_is_in_review(const struct lane *lane)
{
    return lane->review_left > 0 || lane->reviewed.count > 0;
}

void lane_note_error(struct lane *lane, const struct policy_response *response)
{
    struct writer writer = writer_of(lane->error_text, sizeof(lane->error_text));
    writer_put_uint(&writer, response->code);
    writer_put_byte(&writer, ' ');
    size_t room = (size_t)(writer.end - writer.at);
    struct span words = response->content;
    writer_put(&writer, span_of(words.at, words.size < room ? words.size : room));
    lane->error_size = (uint16_t)writer_size(&writer);
}
