/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_swarm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_leads.h"
#include "tests/sim/sim_rates.h"
#include "tests/sim/sim_swarm_priv.h"
#include "tests/sim/sim_waits.h"

enum { BOOTS_MAX = 4 }; /* tries to start; each fault and each crash spoils one */

static int compare_events(const void *a, const void *b)
{
    const struct swarm_event *first = a;
    const struct swarm_event *second = b;
    if (first->at_ns != second->at_ns) {
        return first->at_ns < second->at_ns ? -1 : 1;
    }
    return first->kind != second->kind
               ? (first->kind < second->kind ? -1 : 1)
               : (first->index < second->index ? -1 : first->index > second->index);
}

/* Behind a stop that was no orderly one the loss of the journal's last group cannot be seen
 * (docs/JOURNAL.md 7). */
static void damage(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    bool has_damaged = false;
    for (; swarm->damages_due > 0; swarm->damages_due--) {
        has_damaged |= sim_damage_some(sim, swarm->damage_place, &swarm->random);
    }
    bool is_of_journal = has_damaged && swarm->damage_place == SIM_DAMAGE_JOURNAL;
    swarm->book.had_damage |= has_damaged;
    swarm->book.had_journal_damaged |= is_of_journal && !sim->is_marked;
    swarm->book.had_lines_damaged |= has_damaged && swarm->damage_place == SIM_DAMAGE_RESULTS;
}

/* A crash, a file that is used again and a disk that is full are no damage: who is told of some in
 * vain looks for a cause that is not there. A disk that does not give its bytes is told, too. */
static void take_words(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    bool is_unread = swarm->book.had_disk_faults && strstr(sim->damage, "cannot be read") != NULL;
    if (sim->damage[0] != '\0' && !swarm->book.had_damage && !is_unread) {
        sim_violation(sim, "a start tells of damage, and there is none: %s", sim->damage);
    }
    sim_book_told(&swarm->book, sim->damage);
}

/* A disk that fails may fail the start too; then it is mended. */
static void boot(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    if (swarm->wall_due_ns != 0) {
        sim_engine_set_wall(sim, swarm->wall_due_ns);
        swarm->wall_due_ns = 0;
    }
    damage(swarm);
    int result = sim_engine_boot(sim);
    for (int tries = 1; tries < BOOTS_MAX && result != 0; tries++) {
        if (result != -EINTR && swarm->book.had_disk_faults) {
            sim_disk_fail_at(sim->disk, 0, 0, false);
        } else if (result != -EINTR) {
            break;
        }
        take_words(swarm);
        result = sim_engine_boot(sim);
    }
    take_words(swarm);
    if (result != 0) {
        sim_violation(sim, "the engine does not start: %d %s", result, sim->errors);
    }
}

static bool is_down(struct sim_engine *sim)
{
    return !sim->is_up;
}

static void stop(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    uint64_t crashes = sim->crashes;
    sim_engine_stop(sim);
    if (!sim_engine_run_until(sim, is_down, 3600 * NS_PER_S)) {
        sim_violation(sim, "the engine does not stop");
    }
    if (sim->crashes == crashes && sim->exit_status != 0 && !swarm->book.had_disk_faults) {
        sim_violation(sim, "the engine stopped with status %d", sim->exit_status);
    }
}

/* Runs for so long; an engine that stops itself, as it must when its journal fails, is started
 * again on a disk that works. */
static bool run_up(struct swarm *swarm, bool (*is_done)(struct sim_engine *sim), int64_t ns)
{
    struct sim_engine *sim = swarm->sim;
    int64_t end_ns = sim->clock.mono.ns + ns;
    while (sim->clock.mono.ns < end_ns) {
        uint64_t crashes = sim->crashes;
        if (sim_engine_run_until(sim, is_done, end_ns - sim->clock.mono.ns)) {
            if (sim->is_up) {
                return true;
            }
            if (sim->crashes == crashes && !swarm->book.had_disk_faults) {
                sim_violation(sim, "the engine stopped itself with status %d", sim->exit_status);
            }
            sim_disk_fail_at(sim->disk, 0, 0, false);
            sim_engine_run(sim, (int64_t)between(swarm, 1, 30) * NS_PER_S);
            boot(swarm);
        }
    }
    return false;
}

static bool is_down_or_done(struct sim_engine *sim)
{
    return !sim->is_up || sim_engine_is_done(sim);
}

static bool is_down_or_idle(struct sim_engine *sim)
{
    return !sim->is_up || sim_engine_is_idle(sim);
}

static void host_rule(struct swarm *swarm, const struct swarm_event *event)
{
    struct net_addr addr = sim_peers_at(swarm->sim->peers, event->index)->addr;
    addr.port = 0;
    sim_net_rule_set(swarm->sim->net, &addr, event->rule);
    sim_trace(swarm->sim, "host %u: rule %d", event->index, (int)event->rule);
}

static void heal(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    struct sim_net_config net = swarm->settings.net;
    net.refuse_chance = net.lose_chance = net.reset_chance = 0;
    net.cut_chance = net.stall_chance = net.vanish_chance = 0;
    sim_net_config_set(sim->net, &net);
    sim_disk_fail_at(sim->disk, 0, 0, false);
    sim_disk_stop_at(sim->disk, 0);
    sim->dns->config.fail_chance = 0;
    sim->dns->config.timeout_chance = 0;
    for (uint32_t i = 0; i < swarm->hosts_count; i++) {
        host_rule(swarm, &(struct swarm_event){.index = i, .rule = SIM_NORMAL});
    }
}

static void happen(struct swarm *swarm, const struct swarm_event *event)
{
    struct swarm_batch *batch = &swarm->batches[event->index % SWARM_BATCHES_MAX];
    switch (event->kind) {
    case EVENT_SUBMIT:
        swarm->making = batch;
        batch->number = sim_book_submit(&swarm->book, &batch->plan);
        batch->is_submitted = true;
        return;
    case EVENT_ORDER:
        if (batch->is_submitted) {
            sim_book_order(&swarm->book, batch->number, event->verb);
        }
        return;
    case EVENT_CRASH:
        swarm->book.had_power_loss |= event->is_power_loss;
        if (!swarm->sim->is_up) {
            boot(swarm);
        }
        sim_engine_crash(swarm->sim, event->is_power_loss);
        boot(swarm);
        return;
    case EVENT_CRASH_AT:
        sim_trace(swarm->sim, "a crash is due after %u operations", event->ops);
        swarm->book.had_power_loss |= event->is_power_loss;
        sim_engine_crash_at(swarm->sim, event->ops, event->is_power_loss);
        return;
    case EVENT_STOP:
        if (swarm->sim->is_up) {
            stop(swarm);
        }
        boot(swarm);
        return;
    case EVENT_HOST:
        host_rule(swarm, event);
        return;
    case EVENT_DISK:
        sim_trace(swarm->sim, "disk: error %d after %u operations%s", event->error, event->ops,
                  event->is_sticky ? ", and from then on" : "");
        swarm->book.had_disk_faults = true;
        sim_disk_fail_at(swarm->sim->disk, event->ops, event->error, event->is_sticky);
        return;
    case EVENT_NAME:
        swarm_change_happens(swarm, &swarm->changes[event->index]);
        return;
    case EVENT_DAMAGE:
        swarm->damages_due = event->ops;
        return;
    case EVENT_WALL:
        if (event->is_at_boot) {
            swarm->wall_due_ns += event->by_ns;
        } else {
            sim_engine_set_wall(swarm->sim, event->by_ns);
        }
        return;
    case EVENT_HEAL:
        heal(swarm);
        return;
    }
    ensure(false);
}

static void trace_limits(const struct swarm *swarm)
{
    const struct sim_engine *sim = swarm->sim;
    const struct config *config = &sim->config;
    const struct config_route *route = &sim->routes[0];
    sim_trace(sim,
              "%s, %u workers, %u sessions (%u a site, %u the source), %u messages a connection, "
              "%u s, idle %u ms, %llu an hour, burst %u, %u recipients, suspended %u to %u s",
              swarm->is_calm ? "calm" : "rough", config->workers_count, config->sessions_max,
              route->connections_max, sim->sources[0].connections_max,
              route->connection_messages_max, route->connection_age_max_s,
              route->connection_idle_ms, (unsigned long long)route->rate_per_hour,
              route->rate_burst, config->recipients_max, route->suspend_first_s,
              route->suspend_max_s);
    sim_trace(sim, "net %lld ms, disk %lld ms, step %lld us, retry after %u to %u s, %u s in all",
              (long long)(swarm->settings.net.delay_max_ns / NS_PER_MS),
              (long long)(swarm->settings.disk_delay_max_ns / NS_PER_MS),
              (long long)(swarm->settings.step_max_ns / NS_PER_US), route->schedule.first_s,
              route->schedule.ceiling_s, route->schedule.expire_s);
}

static uint32_t site_of(void *context, struct span domain)
{
    const struct swarm *swarm = context;
    for (uint32_t i = 0; i < swarm->domains_count; i++) {
        if (span_equal(domain, span_of_text(swarm->domains[i].name))) {
            return swarm->domains[i].site;
        }
    }
    sim_violation(swarm->sim, "a server got mail for %.*s", (int)domain.size, domain.at);
}

static bool are_ways_safe(const struct sim_net_config *net)
{
    return (net->reset_chance | net->cut_chance | net->stall_chance | net->vanish_chance) == 0;
}

static void run(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    int64_t start_ns = sim->clock.mono.ns;
    trace_limits(swarm);
    boot(swarm);
    qsort(swarm->events, swarm->events_count, sizeof(swarm->events[0]), compare_events);
    for (uint32_t i = 0; i < swarm->events_count; i++) {
        const struct swarm_event *event = &swarm->events[i];
        int64_t left_ns = start_ns + event->at_ns - sim->clock.mono.ns;
        if (left_ns > 0) {
            (void)run_up(swarm, is_down, left_ns);
        }
        happen(swarm, event);
    }
    /* One after the other, where each has to wait for the one before it. */
    uint32_t lives = swarm->is_cramped ? 1 + swarm->batches_count : 2;
    int64_t most_ns = (int64_t)sim->routes[0].schedule.expire_s * lives * NS_PER_S;
    if (!run_up(swarm, is_down_or_done, most_ns)) {
        sim_violation(sim, "not all batches come to their end: %llu recipients are left",
                      (unsigned long long)sim_engine_live(sim));
    }
    if (!run_up(swarm, is_down_or_idle, 7200 * NS_PER_S)) {
        sim_violation(sim, "all batches have ended, and the engine is not idle");
    }
    swarm->book.expire_s = sim->routes[0].schedule.expire_s;
    swarm->book.has_safe_ways = are_ways_safe(&swarm->settings.net);
    swarm->book.is_expiry_exact = swarm->is_calm && !swarm->is_cramped;
    sim_book_settle_up(&swarm->book);
    sim_leads_check(&swarm->book);
    sim_waits_check(&swarm->book, &sim->routes[0].schedule);
    sim_rates_check(sim, &sim->routes[0], site_of, swarm);
}

struct sim_swarm_result sim_swarm_run(uint64_t seed, const struct config *defaults, bool is_traced)
{
    struct swarm *swarm = calloc(1, sizeof(*swarm));
    ensure(swarm != NULL);
    random_init_seed(&swarm->random, seed);
    swarm->is_calm = one_in(swarm, 4);
    swarm->has_disk_faults = one_in(swarm, 5);
    swarm->settings = swarm_draw_settings(swarm, defaults);
    swarm->settings.is_traced = is_traced;
    swarm->sim = sim_engine_create(&swarm->settings);
    sim_book_init(&swarm->book, swarm->sim);
    swarm_draw(swarm);
    run(swarm);
    struct sim_swarm_result result = {
        .totals = swarm->book.totals,
        .steps = swarm->sim->steps,
        .crashes = swarm->sim->crashes,
        .boots = swarm->sim->boots,
        .virtual_ns = swarm->sim->clock.mono.ns,
    };
    sim_book_deinit(&swarm->book);
    sim_engine_destroy(swarm->sim);
    free(swarm);
    return result;
}
