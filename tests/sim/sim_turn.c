/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler of the simulated engine, and what it checks on the way. */
#include <stdio.h>
#include <urcu/urcu-qsbr.h>

#include "tests/sim/sim_engine.h"
#include "tests/sim/sim_engine_priv.h"

enum {
    STEPS_AT_ONCE_MAX = 300000, /* without time moving: somebody keeps himself busy */
    IDLE_STEPS = 64,            /* one step in so many is of an actor that has no reason */
    SUM_CHECKS = 32,            /* one pause in so many LAW 3 is proved in sum */
};

static struct mono_time next_event(const struct sim_actor *actor)
{
    struct mono_time next = MONO_NEVER;
    if (actor->net != NULL) {
        next = sim_net_loop_next(actor->net);
    }
    if (actor->disk != NULL) {
        next = mono_earlier(next, sim_disk_view_next(actor->disk));
    }
    return next;
}

static bool is_ready(const struct sim_engine *sim, const struct sim_actor *actor)
{
    struct mono_time now = sim->clock.mono;
    return waker_is_signalled(&actor->actor->waker) || !mono_before(now, actor->deadline) ||
           !mono_before(now, next_event(actor));
}

/* Limits, conservation. */

static void check_limits(const struct sim_engine *sim)
{
    for (uint32_t i = 0; i < sim->config.sources_count; i++) {
        if (limit_count_xcore(&sim->engine.source_limits[i]) > sim->sources[i].connections_max) {
            sim_violation(sim, "source %u has more connections than it may", i);
        }
    }
    uint32_t count = site_table_count_xcore(sim->engine.sites);
    for (uint32_t i = 0; i < count; i++) {
        struct site *site = site_at_xcore(sim->engine.sites, i);
        if (site->route != NULL &&
            limit_count_xcore(&site->connections) > site->route->connections_max) {
            sim_violation(sim, "site %.*s has more connections than it may", (int)site->name_size,
                          site->name);
        }
    }
}

uint64_t sim_engine_live(const struct sim_engine *sim)
{
    uint64_t live = 0;
    for (uint32_t i = 0; i < sim->config.batches_max; i++) {
        const struct batch *batch = &sim->engine.batches[i];
        if (batch->number != 0 && batch->state == BATCH_ACTIVE) {
            live += batch->recipients_count - batch_settled_xcore(batch);
        }
    }
    return live;
}

/* LAW 3 in sum: all inboxes are empty, so who is not settled is with a worker or in the wheel. */
static void check_sum(const struct sim_engine *sim)
{
    uint64_t placed = retry_count_xcore(sim->engine.retry);
    for (uint32_t i = 0; i < sim->config.workers_count; i++) {
        const struct worker *worker = &sim->workers[i];
        for (unsigned place = 0; place < WORKER_PLACES_COUNT; place++) {
            placed += stat_read_xcore(&worker->stats.places[place]);
        }
        placed += worker->due.count;
    }
    uint64_t live = sim_engine_live(sim);
    if (live != placed) {
        sim_violation(sim, "LAW 3: %llu recipients are accepted and not settled, %llu are found",
                      (unsigned long long)live, (unsigned long long)placed);
    }
}

static bool has_failed(const struct sim_engine *sim)
{
    return stat_read_xcore(&sim->journal.stats.has_failed) != 0 ||
           stat_read_xcore(&sim->engine.must_stop) != 0;
}

/* Turns. */

static void step(struct sim_engine *sim, struct sim_actor *actor)
{
    sim->steps++;
    waker_awake(&actor->actor->waker);
    struct mono_time now = sim->clock.mono;
    int64_t ahead_ns = sim->own_clock.ahead_ns;
    (void)sim_memory_enter(true);
    actor->deadline = actor->actor->step(actor->actor, mono_add_ns(now, ahead_ns));
    (void)sim_memory_enter(false);
    actor->deadline = mono_add_ns(actor->deadline, -ahead_ns);
    urcu_qsbr_quiescent_state();
    if (sim_disk_is_stopped(sim->disk)) {
        sim_engine_crash_now(sim);
        return;
    }
    if (mono_before(now, actor->deadline) && !waker_sleep(&actor->actor->waker)) {
        actor->deadline = now;
    }
    for (uint32_t i = 0; i < sim->config.workers_count; i++) {
        worker_check(&sim->workers[i]);
    }
    if (actor->net != NULL) {
        check_limits(sim);
    }
    if (sim->settings.step_max_ns > 0) {
        int64_t ns = (int64_t)(random_u64(&sim->random) % (uint64_t)sim->settings.step_max_ns);
        clock_manual_advance(&sim->clock, ns);
    }
    if (sim->steps - sim->steps_at_advance > STEPS_AT_ONCE_MAX) {
        sim_violation(sim, "%s keeps itself busy", actor->actor->name);
    }
    if (sim->control.phase == CONTROL_STOPPED) {
        sim_engine_ended(sim);
    }
}

static struct mono_time next_time(struct sim_engine *sim)
{
    struct mono_time next = sim_peers_next(sim->peers);
    for (uint32_t i = 0; i < sim->actors_count; i++) {
        const struct sim_actor *actor = &sim->actors[i];
        struct mono_time deadline = actor->deadline;
        if (actor->is_lazy && sim->control.phase == CONTROL_RUNNING) {
            deadline = mono_add_ns(deadline, sim->settings.lazy_max_ns);
        }
        next = mono_earlier(next, mono_earlier(deadline, next_event(actor)));
    }
    return next;
}

static bool advance(struct sim_engine *sim, struct mono_time limit)
{
    if (sim->is_up && !has_failed(sim) && random_below(&sim->random, SUM_CHECKS) == 0) {
        check_sum(sim);
    }
    struct mono_time next = next_time(sim);
    bool is_inside = mono_before(next, limit);
    struct mono_time to = is_inside ? next : limit;
    if (to.ns > sim->clock.mono.ns) {
        clock_manual_advance(&sim->clock, to.ns - sim->clock.mono.ns);
        sim->steps_at_advance = sim->steps;
    }
    return is_inside;
}

bool sim_engine_turn(struct sim_engine *sim, struct mono_time limit)
{
    struct sim_actor *ready[SIM_ACTORS_MAX];
    uint32_t ready_count = 0;
    for (uint32_t i = 0; i < sim->actors_count; i++) {
        if (is_ready(sim, &sim->actors[i])) {
            ready[ready_count++] = &sim->actors[i];
        }
    }
    bool are_peers_ready = !mono_before(sim->clock.mono, sim_peers_next(sim->peers));
    if (ready_count == 0 && !are_peers_ready) {
        return advance(sim, limit);
    }
    if (!mono_before(sim->clock.mono, limit)) {
        return false;
    }
    uint32_t pick = random_below(&sim->random, ready_count + (are_peers_ready ? 1 : 0));
    if (pick == ready_count) {
        sim_peers_step(sim->peers, sim->clock.mono);
        return true;
    }
    if (random_below(&sim->random, IDLE_STEPS) == 0) {
        step(sim, &sim->actors[random_below(&sim->random, sim->actors_count)]);
    } else {
        step(sim, ready[pick]);
    }
    return true;
}

void sim_engine_run(struct sim_engine *sim, int64_t ns)
{
    struct mono_time limit = mono_add_ns(sim->clock.mono, ns);
    while (sim_engine_turn(sim, limit)) {
    }
}

bool sim_engine_run_until(struct sim_engine *sim, bool (*is_done)(struct sim_engine *sim),
                          int64_t ns)
{
    struct mono_time limit = mono_add_ns(sim->clock.mono, ns);
    uint64_t looked = UINT64_MAX;
    do {
        if (looked != sim->steps_at_advance || !sim->is_up) {
            looked = sim->steps_at_advance;
            if (is_done(sim)) {
                return true;
            }
        }
    } while (sim_engine_turn(sim, limit));
    return is_done(sim);
}

/* What is left. */

static void on_name(void *context, const char *name, enum disk_kind kind)
{
    (void)name;
    (void)kind;
    ++*(uint32_t *)context;
}

static uint32_t names_count(struct sim_engine *sim, const char *path)
{
    uint32_t count = 0;
    int fd = disk_open(sim->view, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    if (fd >= 0) {
        (void)disk_list(sim->view, fd, on_name, &count);
        disk_close(sim->view, fd);
    }
    return count;
}

bool sim_engine_is_done(struct sim_engine *sim)
{
    return sim->is_up && intake_is_idle(&sim->intake) && names_count(sim, "/spool/in/new") == 0 &&
           names_count(sim, "/spool/active") == 0;
}

static bool is_worker_idle(const struct worker *worker)
{
    const struct slab *const slabs[] = {
        &worker->deliveries, &worker->attempts, &worker->entries_free, &worker->loads_free,
        &worker->queries,    &worker->plans,    &worker->rcpts_blocks, &worker->bufs[0],
        &worker->bufs[1],    &worker->bufs[2],  &worker->bufs[3],      &worker->bufs[4],
    };
    for (size_t i = 0; i < COUNT_OF(slabs); i++) {
        if (slabs[i]->count_out > 0) {
            return false;
        }
    }
    return worker->lanes.count_out == 1 && worker->due.count == 0 && worker_is_drained(worker);
}

bool sim_engine_is_idle(struct sim_engine *sim)
{
    if (!sim_engine_is_done(sim) || !journal_is_idle(&sim->journal)) {
        return false;
    }
    for (uint32_t i = 0; i < sim->config.workers_count; i++) {
        if (!is_worker_idle(&sim->workers[i])) {
            return false;
        }
    }
    if (retry_count_xcore(sim->engine.retry) > 0 || domain_table_count(sim->engine.domains) > 0) {
        return false;
    }
    sim_engine_check_idle(sim);
    return true;
}

uint32_t sim_engine_sessions(const struct sim_engine *sim, const char *site)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < sim->config.workers_count; i++) {
        const struct list *lanes = &sim->workers[i].lanes_all;
        for (const struct list *link = lanes->next; link != lanes; link = link->next) {
            const struct lane *lane = CONTAINER_OF(link, struct lane, link);
            if (lane->site != NULL && strcmp(lane->site->name, site) == 0) {
                count += lane->sessions_count;
            }
        }
    }
    return count;
}
