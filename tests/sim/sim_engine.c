/* SPDX-License-Identifier: Apache-2.0 */
/* The lives of an engine, put together as engine/boot.c does it. */
#include "tests/sim/sim_engine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include "engine/steady.h"
#include "tests/sim/sim_engine_priv.h"

#define SPOOL "/spool"

enum { ORIGIN_MAX_S = 30000000 }; /* how long a machine has been up */
static const int64_t WALL_START_NS = 1800000000 * NS_PER_S;

void sim_trace(const struct sim_engine *sim, const char *format, ...)
{
    if (!sim->settings.is_traced) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr, "%14.6f %8llu ", (double)sim->clock.mono.ns / (double)NS_PER_S,
                  (unsigned long long)sim->steps);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
}

/* What lies in the spool, for who looks for a reason. */
struct dump {
    const struct sim_engine *sim;
    const char *path;
};

static void dump_directory(const struct sim_engine *sim, const char *path);

static void on_dumped(void *context, const char *name, enum disk_kind kind)
{
    const struct dump *dump = context;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/%s", dump->path, name);
    struct disk_stat stat = {.size = 0};
    (void)disk_stat_at(dump->sim->view, DISK_ROOT, path, &stat);
    (void)fprintf(stderr, "    %8llu %s\n", (unsigned long long)stat.size, path);
    struct span content;
    bool is_shown = strcmp(name, "reason.txt") == 0 || strncmp(name, "events", 6) == 0 ||
                    strcmp(name, "results.ndjson") == 0;
    if (is_shown && sim_disk_peek(dump->sim->disk, path, &content) == 0) {
        (void)fprintf(stderr, "             %.*s\n", (int)content.size, content.at);
    }
    if (kind == DISK_KIND_DIRECTORY) {
        dump_directory(dump->sim, path);
    }
}

static void dump_directory(const struct sim_engine *sim, const char *path)
{
    struct dump dump = {.sim = sim, .path = path};
    int fd = disk_open(sim->view, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    if (fd >= 0) {
        (void)disk_list(sim->view, fd, on_dumped, &dump);
        disk_close(sim->view, fd);
    }
}

void sim_violation(const struct sim_engine *sim, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)fprintf(stderr,
                  "violation at %.6f s, step %llu: ", (double)sim->clock.mono.ns / (double)NS_PER_S,
                  (unsigned long long)sim->steps);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    if (sim->settings.is_traced) {
        dump_directory(sim, SPOOL);
    }
    abort();
}

/* The configuration that tests begin with: small tables, so that a life costs little. */
static void config_begin(struct sim_engine *sim, const struct config *defaults)
{
    struct config *config = &sim->config;
    *config = *defaults;
    config->hostname = "out.sim.example";
    config->spool = SPOOL;
    config->log_directory = NULL;
    config->log_events = true;
    config->free_space_min = 0;
    config->workers_count = 1;
    config->sessions_max = 64;
    config->recipients_max = 4096;
    config->batches_max = 64;
    config->domains_max = 256;
    config->sites_max = 64;
    config->dns_answers_max = 256;
    config->dns_questions_max = 32;
    config->journal_segment_size = 65536;
    config->journal_segments_max = 4;
    config->readahead_bytes_max = 1 << 22;
    config->message_size_max = 1 << 20;
    sim->sources[0] = defaults->sources[0];
    sim->sources[0].ehlo = "out.sim.example";
    sim->routes[0] = defaults->routes[defaults->routes_count - 1];
    config->sources = sim->sources;
    config->sources_count = 1;
    config->routes = sim->routes;
    config->routes_count = 1;
}

struct config_route *sim_engine_route(struct sim_engine *sim, char *pattern)
{
    ensure(sim->config.routes_count < SIM_ROUTES_MAX);
    uint32_t last = sim->config.routes_count++;
    sim->routes[last] = sim->routes[last - 1];
    struct config_route *route = &sim->routes[last - 1];
    route->pattern = pattern;
    return route;
}

static struct mono_time own_mono(const struct clock *clock)
{
    const struct sim_own_clock *own = (const struct sim_own_clock *)(const void *)clock;
    return mono_add_ns(own->world->mono, own->ahead_ns);
}

static struct wall_time own_wall(const struct clock *clock)
{
    return ((const struct sim_own_clock *)(const void *)clock)->world->wall;
}

static void wall_note(struct sim_engine *sim)
{
    ensure(sim->walls_count < SIM_WALLS_MAX);
    sim->walls[sim->walls_count++] = (struct sim_wall){
        .from_ns = sim->clock.mono.ns, .ahead_ns = sim->clock.wall.ns - sim->clock.mono.ns};
}

void sim_engine_set_wall(struct sim_engine *sim, int64_t by_ns)
{
    sim_trace(sim, "the wall clock is set by %.3f s", (double)by_ns / (double)NS_PER_S);
    sim->clock.wall.ns += by_ns;
    wall_note(sim);
}

bool sim_engine_wall_was(const struct sim_engine *sim, struct wall_time at, uint32_t i,
                         int64_t *ret_ns)
{
    for (uint32_t wall = 0; wall < sim->walls_count; wall++) {
        int64_t ns = at.ns - sim->walls[wall].ahead_ns;
        int64_t until_ns =
            wall + 1 < sim->walls_count ? sim->walls[wall + 1].from_ns : sim->clock.mono.ns;
        /* Lines tell milliseconds, some of them seconds. */
        if (ns + NS_PER_S >= sim->walls[wall].from_ns && ns <= until_ns && i-- == 0) {
            *ret_ns = ns;
            return true;
        }
    }
    return false;
}

struct sim_engine *sim_engine_create(const struct sim_engine_config *config)
{
    struct sim_engine *sim = aligned_alloc(64, (sizeof(*sim) + 63) & ~(size_t)63);
    ensure(sim != NULL);
    memset(sim, 0, sizeof(*sim));
    urcu_qsbr_register_thread();
    sim->settings = *config;
    clock_manual_init(&sim->clock, (struct mono_time){.ns = NS_PER_S},
                      (struct wall_time){.ns = WALL_START_NS});
    wall_note(sim);
    sim->own_clock =
        (struct sim_own_clock){.clock = {.mono = own_mono, .wall = own_wall}, .world = &sim->clock};
    random_init_seed(&sim->random, config->seed);
    const struct clock *clock = &sim->clock.clock;
    sim->disk = sim_disk_create(clock, random_u64(&sim->random), config->disk_delay_max_ns);
    sim->view = sim_disk_view(sim->disk, NULL);
    ensure(disk_mkdir(sim->view, DISK_ROOT, SPOOL) == 0);
    int root = disk_open(sim->view, DISK_ROOT, "/", DISK_READONLY | DISK_DIRECTORY);
    ensure(disk_sync(sim->view, root) == 0);
    disk_close(sim->view, root);
    struct sim_net_config net = config->net;
    net.seed = random_u64(&sim->random);
    sim->net = sim_net_create(&net, clock);
    sim->peers = sim_peers_create(sim->net, clock, random_u64(&sim->random));
    sim->dns = malloc(sizeof(*sim->dns));
    ensure(sim->dns != NULL);
    sim_dns_init(sim->dns, clock, random_u64(&sim->random), &config->dns);
    if (config->defaults == NULL) {
        struct writer errors = writer_of(sim->errors, sizeof(sim->errors));
        sim->owned_defaults = config_read(NULL, &errors);
        ensure(sim->owned_defaults != NULL);
    }
    config_begin(sim, config->defaults != NULL ? config->defaults : sim->owned_defaults);
    return sim;
}

/* Making. */

static int make_tables(struct sim_engine *sim)
{
    const struct config *config = &sim->config;
    struct engine *engine = &sim->engine;
    int error = 0;
    memset(engine, 0, sizeof(*engine));
    engine->config = config;
    engine->clock = &sim->own_clock.clock;
    steady_begin(engine);
    engine->secret = random_u64(&sim->random);
    engine->batches = calloc(config->batches_max, sizeof(struct batch));
    engine->source_limits = calloc(config->sources_count, sizeof(struct limit));
    if (engine->batches == NULL || engine->source_limits == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < config->sources_count; i++) {
        limit_init(&engine->source_limits[i], config->sources[i].connections_max);
    }
    engine->domains = domain_table_create(config->domains_max, engine->secret, &error);
    engine->sites = engine->domains == NULL ? NULL : site_table_create(config->sites_max, &error);
    engine->retry = engine->sites == NULL ? NULL : retry_wheel_create(steady_now_s(engine));
    return engine->retry != NULL ? 0 : -ENOMEM;
}

static int make_intake(struct sim_engine *sim)
{
    struct writer errors = writer_of(sim->errors, sizeof(sim->errors) - 1);
    sim->intake_disk = sim_disk_view(sim->disk, &sim->intake.actor.waker);
    sim->engine.intake = &sim->intake;
    const struct intake_config intake = {.engine = &sim->engine, .disk = sim->intake_disk};
    int result = intake_init(&sim->intake, &intake, false, &errors);
    *errors.at = '\0';
    return result;
}

static int make_journal(struct sim_engine *sim)
{
    const struct config *config = &sim->config;
    sim->journal_disk = sim_disk_view(sim->disk, &sim->journal.actor.waker);
    sim->engine.journal = &sim->journal;
    int result = journal_replay(sim->journal_disk, SPOOL "/journal",
                                intake_journal_end(&sim->intake), &sim->known);
    if (result != 0) {
        return result;
    }
    const struct journal_config journal = {
        .disk = sim->journal_disk,
        .clock = sim->engine.clock,
        .directory = SPOOL "/journal",
        .active = SPOOL "/active",
        .log_directory = config->log_events ? SPOOL "/log" : NULL,
        .segment_size = config->journal_segment_size,
        .segments_max = config->journal_segments_max,
        .log_size_max = config->log_size_max,
        .results_files_max = 4,
        .results_sync_size = 2048,
        .settled = &sim->intake.settled,
        .known = &sim->known,
    };
    return journal_init(&sim->journal, &journal, false);
}

static int make_resolver(struct sim_engine *sim)
{
    const struct config *config = &sim->config;
    sim->dns->ahead_ns = sim->own_clock.ahead_ns;
    const struct resolver_config resolver = {
        .source = sim_dns_source(sim->dns),
        .clock = sim->engine.clock,
        .secret = sim->engine.secret,
        .answers_max = config->dns_answers_max,
        .questions_max = config->dns_questions_max,
        .ttl_min_s = config->dns_ttl_min_s,
        .ttl_max_s = config->dns_ttl_max_s,
        .negative_ttl_max_s = config->dns_negative_ttl_max_s,
        .temporary_ttl_s = config->dns_temporary_ttl_s,
        .stale_max_s = config->dns_stale_max_s,
        .use_ip4 = config->use_ip4,
        .use_ip6 = config->use_ip6,
        .allow_special = config->allow_special,
        .own_names = config->hostname,
    };
    int result = resolver_init(&sim->resolver, &resolver, false);
    sim->engine.resolver = &sim->resolver;
    sim->engine.mx_cache = sim->resolver.cache;
    return result;
}

static struct net_loop *make_net(void *context, const struct net_config *config, int *ret_error)
{
    (void)ret_error;
    const struct sim_engine *sim = context;
    struct net_loop *loop = sim_net_loop_create(sim->net, config);
    if (loop != NULL) {
        sim_net_loop_shift(loop, sim->own_clock.ahead_ns);
    }
    return loop;
}

static int make_workers(struct sim_engine *sim)
{
    uint32_t count = sim->config.workers_count;
    ensure(count <= SIM_WORKERS_MAX);
    sim->engine.workers = sim->workers_by_index;
    sim->engine.workers_count = count;
    sim->workers = aligned_alloc(64, (count * sizeof(struct worker) + 63) & ~(size_t)63);
    int result = sim->workers == NULL ? -ENOMEM : 0;
    for (uint32_t i = 0; i < count && result == 0; i++) {
        sim->workers_by_index[i] = &sim->workers[i];
        const struct worker_config worker = {
            .engine = &sim->engine,
            .index = i,
            .seed = random_u64(&sim->random) | 1,
            .net_create = make_net,
            .net_context = sim,
        };
        result = worker_init(&sim->workers[i], &worker, false);
        sim->workers_made = i + 1;
    }
    return result;
}

static void actor_add(struct sim_engine *sim, struct sim_actor actor)
{
    ensure(sim->actors_count < SIM_ACTORS_MAX);
    actor.deadline = sim->clock.mono;
    sim->actors[sim->actors_count++] = actor;
}

static void actors_gather(struct sim_engine *sim)
{
    sim->actors_count = 0;
    actor_add(sim, (struct sim_actor){.actor = &sim->journal.actor, .disk = sim->journal_disk});
    actor_add(sim, (struct sim_actor){.actor = &sim->resolver.actor});
    for (uint32_t i = 0; i < sim->config.workers_count; i++) {
        actor_add(sim,
                  (struct sim_actor){.actor = &sim->workers[i].actor, .net = sim->workers[i].net});
    }
    actor_add(sim, (struct sim_actor){
                       .actor = &sim->intake.actor, .disk = sim->intake_disk, .is_lazy = true});
    actor_add(sim, (struct sim_actor){.actor = &sim->control.actor, .is_lazy = true});
}

/* Bounded memory. */

enum {
    ANSWER_SIZE_MAX = sizeof(struct mx_answer) + 1024, /* of our domains: few hosts, short names */
    TEMPLATE_GROWTH = 16,   /* a message's wire form, parts, segments, while it is compiled */
    BATCH_SIZE = 4 << 20,   /* manifest, variables, columns, stream, scan, results */
    JOURNAL_SIZE = 4 << 20, /* a checkpoint under way */
    RECORD_COPIES = 4,      /* a record with LF, made longer, and its CRLF form */
};

/* What the engine may have besides what it was made of: a bound from the configuration. */
static uint64_t heap_size_max(const struct sim_engine *sim)
{
    const struct config *config = &sim->config;
    uint64_t message = config->message_size_max;
    return config->readahead_bytes_max + RECORD_COPIES * message +
           config->batches_max * (BATCH_SIZE + TEMPLATE_GROWTH * message) +
           (uint64_t)config->dns_answers_max * ANSWER_SIZE_MAX + JOURNAL_SIZE;
}

void sim_engine_check_idle(const struct sim_engine *sim)
{
    if (!sim_memory.is_summed) {
        return;
    }
    /* The resolver's answers, and the journal's places for batches. */
    uint64_t kept_max = mx_cache_count_xcore(sim->resolver.cache) * ANSWER_SIZE_MAX +
                        2 * sim->config.batches_max * sizeof(void *);
    if (sim_memory.heap_size > sim->memory.made + kept_max) {
        sim_violation(sim, "the engine is idle and holds %llu bytes more than when it was made",
                      (unsigned long long)(sim_memory.heap_size - sim->memory.made));
    }
}

static void check_gone(const struct sim_engine *sim)
{
    if (!sim_memory.is_summed) {
        return;
    }
    if (sim_memory.heap_size != sim->memory.before ||
        sim_memory.mapped_size != sim->memory.mapped_before) {
        sim_violation(sim, "the engine is gone and has left %lld bytes, and %lld of maps",
                      (long long)(sim_memory.heap_size - sim->memory.before),
                      (long long)(sim_memory.mapped_size - sim->memory.mapped_before));
    }
    if (sim_memory.heap_peak > sim->memory.made + heap_size_max(sim)) {
        sim_violation(sim,
                      "the engine has had %llu bytes more than when it was made, may have %llu",
                      (unsigned long long)(sim_memory.heap_peak - sim->memory.made),
                      (unsigned long long)heap_size_max(sim));
    }
}

static void accepted_note(struct sim_engine *sim)
{
    sim->accepted_count = 0;
    for (uint32_t i = 0; sim->engine.batches != NULL && i < sim->config.batches_max; i++) {
        const struct batch *batch = &sim->engine.batches[i];
        if (batch->number != 0 && batch->state == BATCH_ACTIVE &&
            sim->accepted_count < SIM_ACCEPTED_MAX) {
            (void)snprintf(sim->accepted[sim->accepted_count++], sizeof(sim->accepted[0]), "%s",
                           batch->directory);
        }
    }
}

/* Unmaking, in the order of engine/boot.c; half-built safe. */
static void take_down(struct sim_engine *sim)
{
    accepted_note(sim);
    (void)sim_memory_enter(true);
    sim->checkpoints += stat_read_xcore(&sim->journal.stats.checkpoints);
    control_deinit(&sim->control);
    journal_deinit(&sim->journal);
    for (uint32_t i = 0; i < sim->workers_made; i++) {
        worker_deinit(&sim->workers[i]);
    }
    free(sim->workers);
    sim->workers = NULL;
    sim->workers_made = 0;
    resolver_deinit(&sim->resolver);
    intake_deinit(&sim->intake);
    journal_known_free(&sim->known);
    disk_destroy(sim->journal_disk);
    disk_destroy(sim->intake_disk);
    sim->journal_disk = NULL;
    sim->intake_disk = NULL;
    retry_wheel_destroy(sim->engine.retry, true);
    site_table_destroy(sim->engine.sites);
    domain_table_destroy(sim->engine.domains);
    free(sim->engine.source_limits);
    free(sim->engine.batches);
    memset(&sim->engine, 0, sizeof(sim->engine));
    sim->actors_count = 0;
    sim->is_up = false;
    (void)sim_memory_enter(false);
    check_gone(sim);
}

static void note_death(struct sim_engine *sim)
{
    ensure(sim->deaths_count < SIM_DEATHS_MAX);
    sim->deaths_ns[sim->deaths_count++] = sim->clock.mono.ns;
}

static void crash(struct sim_engine *sim, bool is_power_loss)
{
    note_death(sim);
    sim_trace(sim, "crash: %s", is_power_loss ? "power loss" : "killed");
    sim->crashes++;
    sim->is_marked = false;
    if (is_power_loss) {
        sim_disk_crash(sim->disk);
    } else {
        sim_disk_kill(sim->disk);
    }
    take_down(sim);
}

static int recover(struct sim_engine *sim)
{
    struct writer words = writer_of(sim->damage, sizeof(sim->damage) - 1);
    damage_tell(&sim->engine, &sim->known, &words);
    int result = intake_recover(&sim->intake, &sim->known);
    if (result == 0) {
        intake_tell_damage(&sim->intake, &words);
    } else {
        journal_abandon(&sim->journal);
    }
    *words.at = '\0';
    return result;
}

static int make_all(struct sim_engine *sim)
{
    int result = make_tables(sim);
    result = result == 0 ? make_intake(sim) : result;
    result = result == 0 ? make_journal(sim) : result;
    result = result == 0 ? recover(sim) : result;
    result = result == 0 ? make_resolver(sim) : result;
    result = result == 0 ? make_workers(sim) : result;
    if (result == 0) {
        struct writer errors = writer_of(sim->errors, sizeof(sim->errors) - 1);
        result = control_init(&sim->control, &sim->engine, false, &errors);
    }
    return result;
}

int sim_engine_boot(struct sim_engine *sim)
{
    ensure(!sim->is_up);
    memset(&sim->control, 0, sizeof(sim->control));
    memset(&sim->resolver, 0, sizeof(sim->resolver));
    memset(&sim->journal, 0, sizeof(sim->journal));
    memset(&sim->intake, 0, sizeof(sim->intake));
    memset(&sim->known, 0, sizeof(sim->known));
    ensure(sim->boots < SIM_BOOTS_MAX);
    sim->boots_at[sim->boots] = sim->clock.wall;
    sim->boots_ns[sim->boots++] = sim->clock.mono.ns;
    int64_t origin_ns = NS_PER_S * (1 + random_below(&sim->random, ORIGIN_MAX_S));
    sim->own_clock.ahead_ns = origin_ns - sim->clock.mono.ns;
    sim->errors[0] = '\0';
    sim->damage[0] = '\0';
    sim->memory.before = sim_memory.heap_size;
    sim->memory.mapped_before = sim_memory.mapped_size;
    (void)sim_memory_enter(true);
    int result = make_all(sim);
    (void)sim_memory_enter(false);
    sim->memory.made = sim_memory.heap_peak = sim_memory.heap_size;
    sim_trace(sim, "boot %llu: %d %s", (unsigned long long)sim->boots, result, sim->errors);
    if (sim_disk_is_stopped(sim->disk)) {
        crash(sim, sim->is_power_loss_due);
        return -EINTR;
    }
    if (result != 0) {
        take_down(sim);
        return result;
    }
    actors_gather(sim);
    sim->is_up = true;
    return 0;
}

void sim_engine_crash(struct sim_engine *sim, bool is_power_loss)
{
    ensure(sim->is_up);
    crash(sim, is_power_loss);
}

void sim_engine_crash_at(struct sim_engine *sim, uint64_t n, bool is_power_loss)
{
    sim->is_power_loss_due = is_power_loss;
    sim_disk_stop_at(sim->disk, n);
}

void sim_engine_crash_now(struct sim_engine *sim)
{
    crash(sim, sim->is_power_loss_due);
}

void sim_engine_stop(struct sim_engine *sim)
{
    ensure(sim->is_up);
    sim_trace(sim, "stop asked");
    control_stop(&sim->control, clock_mono(sim->engine.clock));
    waker_signal_xcore(&sim->control.actor.waker);
}

void sim_engine_ended(struct sim_engine *sim)
{
    sim->exit_status = sim->control.exit_status;
    sim->failures += sim->exit_status != 0 ? 1 : 0;
    /* A server that does not answer within drain-timeout: what it took is not recorded. */
    if (sim->exit_status != 0 || !sim->control.is_drained) {
        note_death(sim);
    }
    sim_trace(sim, "stopped with status %d", sim->exit_status);
    (void)sim_memory_enter(true);
    for (uint32_t i = 0; i < sim->workers_made; i++) {
        worker_end(&sim->workers[i]);
    }
    journal_deinit(&sim->journal);
    bool has_failed = stat_read_xcore(&sim->journal.stats.has_failed) != 0;
    bool may_mark = sim->control.is_drained && !has_failed;
    sim->is_marked = may_mark && intake_mark_clean(&sim->intake) == 0;
    (void)sim_memory_enter(false);
    sim_trace(sim, "mark of an orderly stop: %s", sim->is_marked ? "yes" : "no");
    take_down(sim);
}

void sim_engine_destroy(struct sim_engine *sim)
{
    if (sim == NULL) {
        return;
    }
    if (sim->is_up) {
        take_down(sim);
    }
    sim_peers_destroy(sim->peers);
    sim_net_destroy(sim->net);
    disk_destroy(sim->view);
    sim_disk_destroy(sim->disk);
    free(sim->dns);
    config_destroy(sim->owned_defaults);
    urcu_qsbr_unregister_thread();
    free(sim);
}
