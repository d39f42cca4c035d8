/* SPDX-License-Identifier: Apache-2.0 */
/* Limits, batches and faults of a world. */
#include <errno.h>
#include <stdio.h>

#include "tests/sim/sim_swarm_priv.h"

enum { PIECES_MAX = 2000, TRIES_MAX = 50 };

struct sim_engine_config swarm_draw_settings(struct swarm *swarm, const struct config *defaults)
{
    static const int64_t DISK_NS[] = {0, NS_PER_MS, 20 * NS_PER_MS, 300 * NS_PER_MS, 4 * NS_PER_S};
    static const int64_t STEP_NS[] = {0, 0, 50 * NS_PER_US, 2 * NS_PER_MS};
    bool has_net_faults = !swarm->is_calm && !one_in(swarm, 3);
    struct sim_engine_config config = {
        .seed = random_u64(&swarm->random),
        .net = {.delay_min_ns = 0, .delay_max_ns = (int64_t)skewed(swarm, 1, 400) * NS_PER_MS},
        .dns = {.delay_max_ns = (int64_t)skewed(swarm, 1, 4000) * NS_PER_MS,
                .timeout_ns = 9 * NS_PER_S},
        .disk_delay_max_ns = DISK_NS[below(swarm, COUNT_OF(DISK_NS))],
        .step_max_ns = STEP_NS[below(swarm, COUNT_OF(STEP_NS))],
        .lazy_max_ns = 300 * NS_PER_S,
        .defaults = defaults,
    };
    if (one_in(swarm, 2)) {
        config.net.piece_max = skewed(swarm, 1, 2000);
    }
    config.net.fault_at_max = between(swarm, 100, 6000);
    if (has_net_faults) {
        uint32_t *const chances[] = {
            &config.net.refuse_chance, &config.net.lose_chance,  &config.net.reset_chance,
            &config.net.cut_chance,    &config.net.stall_chance, &config.net.vanish_chance,
        };
        for (size_t i = 0; i < COUNT_OF(chances); i++) {
            *chances[i] = one_in(swarm, 2) ? skewed(swarm, 1, 12000) : 0;
        }
    }
    if (!swarm->is_calm && one_in(swarm, 2)) {
        config.dns.fail_chance = skewed(swarm, 1, 30000);
        config.dns.timeout_chance = skewed(swarm, 1, 20000);
    }
    return config;
}

static void draw_limits(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    struct config *config = &sim->config;
    struct config_route *route = &sim->routes[0];
    config->workers_count = between(swarm, 1, SIM_WORKERS_MAX);
    config->sessions_max = one_in(swarm, 3) ? skewed(swarm, 1, 16) : 64;
    /* Many borders, and few records that a checkpoint stands for. */
    config->journal_segment_size = one_in(swarm, 2) ? 4096 : 4096u << below(swarm, 5);
    config->journal_segments_max = one_in(swarm, 2) ? 6 : between(swarm, 2, 6);
    config->dns_questions_max = skewed(swarm, 1, 32);
    config->dns_answers_max = one_in(swarm, 4) ? 64 : 256;
    config->dns_stale_max_s = one_in(swarm, 4) ? 86400 : skewed(swarm, 0, 1800);
    config->dns_ttl_min_s = between(swarm, 1, 60);
    config->readahead_bytes_max = one_in(swarm, 4) ? 1 << 16 : 1 << 22;
    config->sites_max = one_in(swarm, 4) ? skewed(swarm, 1, 16) : 64;
    config->log_size_max = one_in(swarm, 4) ? 1 << 16 : 1 << 30;
    sim->sources[0].connections_max = one_in(swarm, 4) ? skewed(swarm, 1, 8) : 1000;
    route->connections_max = skewed(swarm, 1, 20);
    route->connection_messages_max = one_in(swarm, 2) ? skewed(swarm, 1, 20) : 100;
    route->connection_age_max_s = one_in(swarm, 4) ? skewed(swarm, 1, 60) : 300;
    route->connection_idle_ms = one_in(swarm, 2) ? 2000 : skewed(swarm, 0, 10000);
    route->backlog_per_connection = skewed(swarm, 1, 20);
    route->rcpts_max = skewed(swarm, 1, 100);
    route->connect_timeout_ms = 30000;
    if (one_in(swarm, 4)) {
        route->rate_per_hour = 3600u * between(swarm, 1, 100);
        route->rate_burst = skewed(swarm, 1, 50);
    }
    route->suspend_first_s = between(swarm, 1, 120);
    route->suspend_max_s = route->suspend_first_s * between(swarm, 1, 8);
    route->schedule.first_s = between(swarm, 10, 900);
    route->schedule.ceiling_s = route->schedule.first_s * between(swarm, 1, 8);
    route->schedule.expire_s = SWARM_WAKE_S + between(swarm, 3600, 40000);
    /* Hundreds of tries for nothing cost more steps than they teach. */
    uint32_t ceiling_s = route->schedule.expire_s / TRIES_MAX;
    if (route->schedule.ceiling_s < ceiling_s && !one_in(swarm, 16)) {
        route->schedule.ceiling_s = ceiling_s;
    }
}

void swarm_event_add(struct swarm *swarm, struct swarm_event event)
{
    if (swarm->events_count < SWARM_EVENTS_MAX) {
        swarm->events[swarm->events_count++] = event;
    }
}

static void draw_orders(struct swarm *swarm, uint32_t index, int64_t from_ns)
{
    struct swarm_batch *batch = &swarm->batches[index];
    int64_t at_ns = from_ns + within(swarm, 1200 * NS_PER_S);
    if (one_in(swarm, 4)) {
        swarm_event_add(swarm,
                        (struct swarm_event){
                            .at_ns = at_ns, .kind = EVENT_ORDER, .index = index, .verb = "pause"});
        swarm_event_add(swarm, (struct swarm_event){.at_ns = at_ns + within(swarm, 3000 * NS_PER_S),
                                                    .kind = EVENT_ORDER,
                                                    .index = index,
                                                    .verb = "resume"});
        swarm_event_add(swarm, (struct swarm_event){.at_ns = SWARM_WAKE_S * NS_PER_S,
                                                    .kind = EVENT_ORDER,
                                                    .index = index,
                                                    .verb = "resume"});
    }
    if (one_in(swarm, 6)) {
        batch->is_cancelled = true;
        swarm_event_add(swarm,
                        (struct swarm_event){.at_ns = from_ns + within(swarm, 2400 * NS_PER_S),
                                             .kind = EVENT_ORDER,
                                             .index = index,
                                             .verb = "cancel"});
    }
    if (one_in(swarm, 5)) {
        uint32_t count = 1 + below(swarm, 3);
        for (uint32_t i = 0; i < count; i++) {
            swarm_event_add(swarm,
                            (struct swarm_event){.at_ns = from_ns + within(swarm, 2400 * NS_PER_S),
                                                 .kind = EVENT_ORDER,
                                                 .index = index,
                                                 .verb = "retry"});
        }
    }
}

static void draw_batches(struct swarm *swarm)
{
    static const uint32_t COUNTS[] = {1, 5, 20, 60};
    swarm->batches_count = skewed(swarm, 1, SWARM_BATCHES_MAX);
    uint32_t most = COUNTS[below(swarm, COUNT_OF(COUNTS))];
    most = one_in(swarm, 32) ? 300 : one_in(swarm, 500) ? 2000 : most;
    uint32_t largest = 0;
    uint32_t count = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < swarm->batches_count; i++) {
        struct swarm_batch *batch = &swarm->batches[i];
        (void)snprintf(batch->id, sizeof(batch->id), "b%u", i);
        swarm_draw_scripts(swarm, batch);
        batch->plan = (struct sim_plan){
            .id = batch->id,
            .kind = (enum sim_kind)below(swarm, SIM_KINDS_COUNT),
            .count = skewed(swarm, 1, most),
            .body_size = skewed(swarm, 1, 1500),
            .rcpts_per_record = skewed(swarm, 1, 20),
            .is_same = one_in(swarm, 3),
            .is_lf = one_in(swarm, 3),
            .is_bare = one_in(swarm, 3),
            .is_failing = one_in(swarm, 20),
            .choose = swarm_choose,
            .context = swarm,
        };
        if (one_in(swarm, 16)) { /* a few large messages */
            batch->plan.body_size = skewed(swarm, 1, 200000);
            batch->plan.count = skewed(swarm, 1, 8);
        }
        bytes += (uint64_t)batch->plan.count * batch->plan.body_size;
        count += batch->plan.count;
        largest = batch->plan.count > largest ? batch->plan.count : largest;
        int64_t at_ns = one_in(swarm, 2) ? 0 : within(swarm, 1800 * NS_PER_S);
        swarm_event_add(swarm,
                        (struct swarm_event){.at_ns = at_ns, .kind = EVENT_SUBMIT, .index = i});
        draw_orders(swarm, i, at_ns);
        if (one_in(swarm, 5)) { /* while it is young much is under way */
            swarm_event_add(
                swarm, (struct swarm_event){.at_ns = at_ns + within(swarm, 15 * NS_PER_S),
                                            .kind = one_in(swarm, 2) ? EVENT_STOP : EVENT_CRASH,
                                            .is_power_loss = one_in(swarm, 2)});
        }
    }
    /* Tiny pieces of much mail cost more steps than they teach. */
    if (swarm->settings.net.piece_max > 0 && swarm->settings.net.piece_max < bytes / PIECES_MAX) {
        swarm->settings.net.piece_max = (uint32_t)(bytes / PIECES_MAX);
        sim_net_config_set(swarm->sim->net, &swarm->settings.net);
    }
    if (one_in(swarm, 4)) {
        swarm->sim->config.recipients_max = largest + below(swarm, 40);
    }
    swarm->is_cramped = count > swarm->sim->config.recipients_max;
}

/* Back by seconds or days; forward up to a month. Back by minutes is not drawn: what was
 * tried since the journal's last record cannot be told from what was not (docs/JOURNAL.md 6). */
static int64_t draw_wall(struct swarm *swarm)
{
    static const int64_t BACK_S[][2] = {{1, 50}, {2 * 86400, 5 * 86400}};
    static const int64_t AHEAD_S[][2] = {
        {1, 10}, {10, 7200}, {86400, 5 * 86400}, {6 * 86400, 31 * 86400}};
    bool is_back = one_in(swarm, 2);
    const int64_t *range =
        is_back ? BACK_S[below(swarm, COUNT_OF(BACK_S))] : AHEAD_S[below(swarm, COUNT_OF(AHEAD_S))];
    int64_t by_ns = range[0] * NS_PER_S + within(swarm, (range[1] - range[0]) * NS_PER_S);
    return is_back ? -by_ns : by_ns;
}

static void draw_walls(struct swarm *swarm)
{
    uint32_t count = one_in(swarm, 4) ? between(swarm, 1, 4) : 0;
    int64_t sum_ns = 0;
    for (uint32_t i = 0; i < count; i++) {
        /* Now and then somebody sees that it was wrong. */
        int64_t by_ns = i > 0 && one_in(swarm, 3) ? -sum_ns : draw_wall(swarm);
        sum_ns += by_ns;
        swarm_event_add(swarm, (struct swarm_event){
                                   .at_ns = within(swarm, SWARM_WAKE_S * NS_PER_S),
                                   .kind = EVENT_WALL,
                                   .by_ns = by_ns,
                                   .is_at_boot = one_in(swarm, 2),
                               });
    }
}

static void draw_damages(struct swarm *swarm)
{
    bool is_journal = one_in(swarm, 3);
    swarm->damage_place = is_journal ? SIM_DAMAGE_JOURNAL
                                     : (enum sim_damage_place)below(swarm, SIM_DAMAGE_PLACES_COUNT);
    uint32_t count = one_in(swarm, 6) ? between(swarm, 1, 3) : 0;
    for (uint32_t i = 0; i < count; i++) {
        int64_t at_ns = within(swarm, one_in(swarm, 2) ? 60 * NS_PER_S : 3600 * NS_PER_S);
        swarm_event_add(swarm, (struct swarm_event){.at_ns = at_ns,
                                                    .kind = EVENT_DAMAGE,
                                                    .ops = between(swarm, 1, 3)});
        swarm_event_add(swarm,
                        (struct swarm_event){.at_ns = at_ns + 1,
                                             .kind = one_in(swarm, 3) ? EVENT_STOP : EVENT_CRASH,
                                             .is_power_loss = one_in(swarm, 4)});
    }
}

static void draw_faults(struct swarm *swarm)
{
    static const enum swarm_event_kind KINDS[] = {EVENT_STOP, EVENT_CRASH, EVENT_CRASH_AT,
                                                  EVENT_CRASH_AT};
    uint32_t crashes = one_in(swarm, 2) ? 0 : between(swarm, 1, 4);
    for (uint32_t i = 0; i < crashes; i++) {
        int64_t most_ns = one_in(swarm, 2) ? 60 * NS_PER_S : 3600 * NS_PER_S;
        swarm_event_add(swarm, (struct swarm_event){
                                   .at_ns = within(swarm, most_ns),
                                   .kind = KINDS[below(swarm, COUNT_OF(KINDS))],
                                   .is_power_loss = one_in(swarm, 2),
                                   .ops = skewed(swarm, 1, 300),
                               });
    }
    for (uint32_t i = 0; i < swarm->hosts_count && !swarm->is_calm; i++) {
        if (one_in(swarm, 3)) {
            static const enum sim_net_rule RULES[] = {SIM_UNREACHABLE, SIM_SILENT, SIM_REFUSING};
            int64_t at_ns = within(swarm, 1800 * NS_PER_S);
            swarm_event_add(swarm,
                            (struct swarm_event){.at_ns = at_ns,
                                                 .kind = EVENT_HOST,
                                                 .index = i,
                                                 .rule = RULES[below(swarm, COUNT_OF(RULES))]});
            swarm_event_add(swarm,
                            (struct swarm_event){.at_ns = at_ns + within(swarm, 5000 * NS_PER_S),
                                                 .kind = EVENT_HOST,
                                                 .index = i,
                                                 .rule = SIM_NORMAL});
        }
    }
    for (uint32_t i = swarm->has_disk_faults ? between(swarm, 1, 3) : 0; i > 0; i--) {
        swarm_event_add(swarm, (struct swarm_event){.at_ns = within(swarm, 1800 * NS_PER_S),
                                                    .kind = EVENT_DISK,
                                                    .ops = skewed(swarm, 1, 400),
                                                    .error = one_in(swarm, 2) ? -EIO : -ENOSPC,
                                                    .is_sticky = one_in(swarm, 3)});
    }
    swarm_event_add(swarm,
                    (struct swarm_event){.at_ns = SWARM_WAKE_S * NS_PER_S, .kind = EVENT_HEAL});
}

void swarm_draw(struct swarm *swarm)
{
    draw_limits(swarm);
    swarm_draw_hosts(swarm);
    swarm_draw_domains(swarm);
    swarm_draw_changes(swarm);
    draw_batches(swarm);
    draw_faults(swarm);
    draw_walls(swarm);
    draw_damages(swarm);
}
