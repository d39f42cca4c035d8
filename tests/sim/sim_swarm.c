/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_swarm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_rates.h"

enum {
    HOSTS_MAX = 6,
    DOMAINS_MAX = 24,
    BATCHES_MAX = 8,
    EVENTS_MAX = 64,
    PIECES_MAX = 2000,
    TRIES_MAX = 50,
    BOOTS_MAX = 4, /* tries to start; each fault and each crash spoils one */
    WAKE_S = 7200, /* all that is planned happens within so many seconds */
};

/* What a domain's mail comes to, when all works. */
enum domain_kind { DOMAIN_GOOD, DOMAIN_IMPLICIT, DOMAIN_NULL, DOMAIN_MISSING, DOMAIN_BROKEN };
enum { DOMAIN_KINDS_COUNT = DOMAIN_BROKEN + 1 };

enum event_kind {
    EVENT_SUBMIT,
    EVENT_ORDER,
    EVENT_CRASH,
    EVENT_CRASH_AT, /* behind an operation of the disk */
    EVENT_STOP,
    EVENT_HOST, /* a host's rule changes */
    EVENT_DISK, /* an operation of the disk will fail */
    EVENT_HEAL, /* no more faults by chance */
};

struct event {
    int64_t at_ns;
    enum event_kind kind;
    uint32_t index; /* batch, host */
    const char *verb;
    enum sim_net_rule rule;
    bool is_power_loss;
    uint32_t ops; /* until the disk fails, or the engine dies */
    int error;
    bool is_sticky;
};

struct batch_plan {
    struct sim_plan plan;
    char id[32];
    uint32_t number; /* in the book, once submitted */
    bool is_submitted;
    bool is_cancelled;
    uint32_t scripts_of_256; /* how many recipients bring a script */
};

struct swarm {
    struct sim_engine *sim;
    struct sim_book book;
    struct random random;
    uint32_t hosts_count;
    uint32_t domains_count;
    enum domain_kind domains[DOMAINS_MAX];
    char names[DOMAINS_MAX][32];
    uint32_t sites[DOMAINS_MAX]; /* one number a set of mail hosts */
    bool has_disk_faults;
    bool is_calm;         /* no fault that keeps good mail from its recipient */
    bool are_hosts_harsh; /* they refuse by share */
    bool is_cramped;      /* a batch may wait for others to end, and its time runs meanwhile */
    uint32_t batches_count;
    struct batch_plan batches[BATCHES_MAX];
    const struct batch_plan *making;
    uint32_t events_count;
    struct event events[EVENTS_MAX];
    struct sim_engine_config settings;
};

static uint32_t below(struct swarm *swarm, uint32_t limit)
{
    return random_below(&swarm->random, limit);
}

static bool one_in(struct swarm *swarm, uint32_t n)
{
    return below(swarm, n) == 0;
}

static uint32_t between(struct swarm *swarm, uint32_t low, uint32_t high)
{
    return low + below(swarm, high - low + 1);
}

/* Small more often than large. */
static uint32_t skewed(struct swarm *swarm, uint32_t low, uint32_t high)
{
    return between(swarm, low, between(swarm, low, high));
}

static int64_t within(struct swarm *swarm, int64_t ns)
{
    return (int64_t)(random_u64(&swarm->random) % (uint64_t)ns);
}

/* The world. */

static struct sim_engine_config draw_world(struct swarm *swarm, const struct config *defaults)
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

static void draw_hosts(struct swarm *swarm)
{
    static const char *const SHARES[] = {
        "connect=421:20%", "connect=drop:20%", "ehlo=drop:10%", "mail=451:10%", "mail=reset:5%",
        "rcpt=451:10%",    "data=451:10%",     "data=mute:2%",  "dot=451:10%",  "dot=lost:5%",
        "dot=reset:5%",    "dot=mute:2%",      "rcpt=550:5%",   "dot=554:5%",   "rcpt=452:20%"};
    struct sim_engine *sim = swarm->sim;
    swarm->hosts_count = between(swarm, 1, HOSTS_MAX);
    swarm->are_hosts_harsh = !swarm->is_calm && one_in(swarm, 3);
    for (uint32_t i = 0; i < swarm->hosts_count; i++) {
        char text[64];
        char addr[32];
        (void)snprintf(addr, sizeof(addr), "20.0.0.%u", i + 1);
        uint32_t index = sim_peers_add(sim->peers, addr);
        struct sim_peer *peer = sim_peers_at(sim->peers, index);
        (void)snprintf(text, sizeof(text), "h%u.mail.example", i);
        sim_dns_add(sim->dns, text, DNS_A, between(swarm, 0, 600), addr);
        peer->delay_max_ms = one_in(swarm, 3) ? skewed(swarm, 1, 3000) : 0;
        peer->policy.is_stepwise = one_in(swarm, 4);
        peer->policy.is_old = one_in(swarm, 6);
        for (uint32_t shares = swarm->are_hosts_harsh ? below(swarm, 4) : 0; shares > 0; shares--) {
            sim_peers_share(sim->peers, index, SHARES[below(swarm, COUNT_OF(SHARES))]);
        }
    }
}

static void draw_mx(struct swarm *swarm, uint32_t domain, uint32_t ttl_s)
{
    const char *name = swarm->names[domain];
    uint32_t sets[2] = {0, 0}; /* a bit a host: first choice, second choice */
    uint32_t count = between(swarm, 1, swarm->hosts_count < 3 ? swarm->hosts_count : 3);
    uint32_t first = below(swarm, swarm->hosts_count);
    for (uint32_t i = 0; i < count; i++) {
        char data[64];
        uint32_t preference = between(swarm, 1, 2);
        uint32_t host = (first + i) % swarm->hosts_count;
        (void)snprintf(data, sizeof(data), "%u h%u.mail.example", 10 * preference, host);
        sim_dns_add(swarm->sim->dns, name, DNS_MX, ttl_s, data);
        sets[preference - 1] |= 1u << host;
    }
    swarm->sites[domain] = sets[0] == 0 ? sets[1] : sets[0] | sets[1] << HOSTS_MAX;
}

static void draw_domains(struct swarm *swarm)
{
    struct sim_dns *dns = swarm->sim->dns;
    swarm->domains_count = skewed(swarm, 1, DOMAINS_MAX);
    for (uint32_t i = 0; i < swarm->domains_count; i++) {
        char *name = swarm->names[i];
        uint32_t ttl_s = between(swarm, 0, 3600);
        (void)snprintf(name, sizeof(swarm->names[i]), "d%u.example", i);
        enum domain_kind kind =
            one_in(swarm, 4) ? (enum domain_kind)below(swarm, DOMAIN_KINDS_COUNT) : DOMAIN_GOOD;
        swarm->domains[i] = kind;
        swarm->sites[i] = 1u << (2 * HOSTS_MAX) | i; /* its own */
        switch (kind) {
        case DOMAIN_GOOD:
            draw_mx(swarm, i, ttl_s);
            break;
        case DOMAIN_IMPLICIT: {
            char addr[32];
            (void)snprintf(addr, sizeof(addr), "20.0.0.%u", 1 + below(swarm, swarm->hosts_count));
            sim_dns_add(dns, name, DNS_A, ttl_s, addr);
            break;
        }
        case DOMAIN_NULL:
            sim_dns_add(dns, name, DNS_MX, ttl_s, "0 .");
            break;
        case DOMAIN_MISSING:
            break;
        case DOMAIN_BROKEN:
            sim_dns_add(dns, name, FAKE_SERVFAIL, 0, NULL);
            break;
        }
    }
}

static void draw_limits(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    struct config *config = &sim->config;
    struct config_route *route = &sim->routes[0];
    config->workers_count = between(swarm, 1, SIM_WORKERS_MAX);
    config->sessions_max = one_in(swarm, 3) ? skewed(swarm, 1, 16) : 64;
    config->journal_segment_size = 4096u << below(swarm, 5);
    config->journal_segments_max = between(swarm, 2, 6);
    config->dns_questions_max = skewed(swarm, 1, 32);
    config->dns_answers_max = one_in(swarm, 4) ? 64 : 256;
    config->readahead_bytes_max = one_in(swarm, 4) ? 1 << 16 : 1 << 22;
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
    route->schedule.expire_s = WAKE_S + between(swarm, 3600, 40000);
    /* Hundreds of tries for nothing cost more steps than they teach. */
    uint32_t ceiling_s = route->schedule.expire_s / TRIES_MAX;
    if (route->schedule.ceiling_s < ceiling_s && !one_in(swarm, 16)) {
        route->schedule.ceiling_s = ceiling_s;
    }
}

/* What is submitted. */

static unsigned ends_of_domain(const struct swarm *swarm, uint32_t domain)
{
    switch (swarm->domains[domain]) {
    case DOMAIN_GOOD:
    case DOMAIN_IMPLICIT:
        return SIM_DELIVERED;
    case DOMAIN_NULL:
    case DOMAIN_MISSING:
        return SIM_BOUNCED;
    case DOMAIN_BROKEN:
        return SIM_EXPIRED;
    }
    ensure(false);
    return SIM_ANY_END;
}

static void choose(void *context, uint32_t index, struct sim_choice *ret_choice)
{
    static const struct {
        const char *script;
        unsigned ends;
    } SCRIPTS[] = {
        {"rcpt550", SIM_BOUNCED},     {"rcpt451x1", SIM_DELIVERED}, {"rcpt451x3", SIM_DELIVERED},
        {"rcpt452x1", SIM_DELIVERED}, {"data451x1", SIM_DELIVERED}, {"data554", SIM_BOUNCED},
        {"dot451x2", SIM_DELIVERED},  {"dot554", SIM_BOUNCED},      {"slow700", SIM_DELIVERED},
        {"lost250", SIM_EXPIRED},     {"drop-rcpt", SIM_EXPIRED},   {"reset-dot", SIM_EXPIRED},
        {"mute-data", SIM_EXPIRED},   {"rcpt421", SIM_EXPIRED},
    };
    struct swarm *swarm = context;
    (void)index;
    uint32_t domain = below(swarm, swarm->domains_count);
    unsigned ends = ends_of_domain(swarm, domain);
    ret_choice->domain = swarm->names[domain];
    if (swarm->making->scripts_of_256 > below(swarm, 256)) {
        uint32_t script = below(swarm, COUNT_OF(SCRIPTS));
        ret_choice->script = SCRIPTS[script].script;
        /* In one transaction the script of one is felt by all. */
        ends |= SIM_ANY_END;
    }
    /* What others in the same transaction bring, and whatever the world does. */
    if (swarm->making->scripts_of_256 > 0 || swarm->are_hosts_harsh) {
        ends = SIM_ANY_END;
    } else if (!swarm->is_calm || swarm->has_disk_faults || swarm->is_cramped) {
        ends |= SIM_EXPIRED;
    }
    ret_choice->ends = ends | (swarm->making->is_cancelled ? SIM_CANCELLED : 0);
    ret_choice->is_bad = one_in(swarm, 40);
}

static void event_add(struct swarm *swarm, struct event event)
{
    if (swarm->events_count < EVENTS_MAX) {
        swarm->events[swarm->events_count++] = event;
    }
}

static void draw_orders(struct swarm *swarm, uint32_t index, int64_t from_ns)
{
    struct batch_plan *batch = &swarm->batches[index];
    int64_t at_ns = from_ns + within(swarm, 1200 * NS_PER_S);
    if (one_in(swarm, 4)) {
        event_add(swarm, (struct event){
                             .at_ns = at_ns, .kind = EVENT_ORDER, .index = index, .verb = "pause"});
        event_add(swarm, (struct event){.at_ns = at_ns + within(swarm, 3000 * NS_PER_S),
                                        .kind = EVENT_ORDER,
                                        .index = index,
                                        .verb = "resume"});
        event_add(swarm, (struct event){.at_ns = WAKE_S * NS_PER_S,
                                        .kind = EVENT_ORDER,
                                        .index = index,
                                        .verb = "resume"});
    }
    if (one_in(swarm, 6)) {
        batch->is_cancelled = true;
        event_add(swarm, (struct event){.at_ns = from_ns + within(swarm, 2400 * NS_PER_S),
                                        .kind = EVENT_ORDER,
                                        .index = index,
                                        .verb = "cancel"});
    }
}

static void draw_batches(struct swarm *swarm)
{
    static const uint32_t COUNTS[] = {1, 5, 20, 60};
    swarm->batches_count = skewed(swarm, 1, BATCHES_MAX);
    uint32_t most = COUNTS[below(swarm, COUNT_OF(COUNTS))];
    most = one_in(swarm, 32) ? 300 : one_in(swarm, 500) ? 2000 : most;
    uint32_t largest = 0;
    uint32_t count = 0;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < swarm->batches_count; i++) {
        struct batch_plan *batch = &swarm->batches[i];
        (void)snprintf(batch->id, sizeof(batch->id), "b%u", i);
        batch->scripts_of_256 = one_in(swarm, 2) ? skewed(swarm, 1, 64) : 0;
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
            .choose = choose,
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
        event_add(swarm, (struct event){.at_ns = at_ns, .kind = EVENT_SUBMIT, .index = i});
        draw_orders(swarm, i, at_ns);
        if (one_in(swarm, 8)) { /* while it is young much is under way */
            event_add(swarm, (struct event){.at_ns = at_ns + within(swarm, 15 * NS_PER_S),
                                            .kind = EVENT_CRASH,
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

static void draw_faults(struct swarm *swarm)
{
    static const enum event_kind KINDS[] = {EVENT_STOP, EVENT_CRASH, EVENT_CRASH_AT,
                                            EVENT_CRASH_AT};
    uint32_t crashes = one_in(swarm, 2) ? 0 : between(swarm, 1, 4);
    for (uint32_t i = 0; i < crashes; i++) {
        int64_t most_ns = one_in(swarm, 2) ? 60 * NS_PER_S : 3600 * NS_PER_S;
        event_add(swarm, (struct event){
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
            event_add(swarm, (struct event){.at_ns = at_ns,
                                            .kind = EVENT_HOST,
                                            .index = i,
                                            .rule = RULES[below(swarm, COUNT_OF(RULES))]});
            event_add(swarm, (struct event){.at_ns = at_ns + within(swarm, 5000 * NS_PER_S),
                                            .kind = EVENT_HOST,
                                            .index = i,
                                            .rule = SIM_NORMAL});
        }
    }
    for (uint32_t i = swarm->has_disk_faults ? between(swarm, 1, 3) : 0; i > 0; i--) {
        event_add(swarm, (struct event){.at_ns = within(swarm, 1800 * NS_PER_S),
                                        .kind = EVENT_DISK,
                                        .ops = skewed(swarm, 1, 400),
                                        .error = one_in(swarm, 2) ? -EIO : -ENOSPC,
                                        .is_sticky = one_in(swarm, 3)});
    }
    event_add(swarm, (struct event){.at_ns = WAKE_S * NS_PER_S, .kind = EVENT_HEAL});
}

/* The run. */

static int compare_events(const void *a, const void *b)
{
    const struct event *first = a;
    const struct event *second = b;
    if (first->at_ns != second->at_ns) {
        return first->at_ns < second->at_ns ? -1 : 1;
    }
    return first->kind != second->kind
               ? (first->kind < second->kind ? -1 : 1)
               : (first->index < second->index ? -1 : first->index > second->index);
}

/* A disk that fails may fail the start too; then it is mended. */
static void boot(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    int result = sim_engine_boot(sim);
    for (int tries = 1; tries < BOOTS_MAX && result != 0; tries++) {
        if (result != -EINTR && swarm->book.had_disk_faults) {
            sim_disk_fail_at(sim->disk, 0, 0, false);
        } else if (result != -EINTR) {
            break;
        }
        result = sim_engine_boot(sim);
    }
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

static void host_rule(struct swarm *swarm, const struct event *event)
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
        host_rule(swarm, &(struct event){.index = i, .rule = SIM_NORMAL});
    }
}

static void happen(struct swarm *swarm, const struct event *event)
{
    struct batch_plan *batch = &swarm->batches[event->index % BATCHES_MAX];
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
        if (span_equal(domain, span_of_text(swarm->names[i]))) {
            return swarm->sites[i];
        }
    }
    sim_violation(swarm->sim, "a server got mail for %.*s", (int)domain.size, domain.at);
}

static void run(struct swarm *swarm)
{
    struct sim_engine *sim = swarm->sim;
    int64_t start_ns = sim->clock.mono.ns;
    trace_limits(swarm);
    boot(swarm);
    qsort(swarm->events, swarm->events_count, sizeof(swarm->events[0]), compare_events);
    for (uint32_t i = 0; i < swarm->events_count; i++) {
        const struct event *event = &swarm->events[i];
        int64_t left_ns = start_ns + event->at_ns - sim->clock.mono.ns;
        if (left_ns > 0) {
            (void)run_up(swarm, is_down, left_ns);
        }
        happen(swarm, event);
    }
    int64_t most_ns = (int64_t)sim->routes[0].schedule.expire_s * 2 * NS_PER_S;
    if (!run_up(swarm, is_down_or_done, most_ns)) {
        sim_violation(sim, "not all batches come to their end: %llu recipients are left",
                      (unsigned long long)sim_engine_live(sim));
    }
    if (!run_up(swarm, is_down_or_idle, 7200 * NS_PER_S)) {
        sim_violation(sim, "all batches have ended, and the engine is not idle");
    }
    swarm->book.expire_s = sim->routes[0].schedule.expire_s;
    swarm->book.is_expiry_exact = swarm->is_calm && !swarm->is_cramped;
    sim_book_settle_up(&swarm->book);
    sim_rates_check(sim, &sim->routes[0], site_of, swarm);
}

struct sim_swarm_result sim_swarm_run(uint64_t seed, const struct config *defaults, bool is_traced)
{
    struct swarm *swarm = calloc(1, sizeof(*swarm));
    ensure(swarm != NULL);
    random_init_seed(&swarm->random, seed);
    swarm->is_calm = one_in(swarm, 4);
    swarm->has_disk_faults = one_in(swarm, 5);
    swarm->settings = draw_world(swarm, defaults);
    swarm->settings.is_traced = is_traced;
    swarm->sim = sim_engine_create(&swarm->settings);
    sim_book_init(&swarm->book, swarm->sim);
    draw_limits(swarm);
    draw_hosts(swarm);
    draw_domains(swarm);
    draw_batches(swarm);
    draw_faults(swarm);
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
