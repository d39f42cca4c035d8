/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/boot.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <urcu/urcu-qsbr.h>

#include "dns/resolver.h"
#include "engine/base/disk.h"
#include "engine/check_environment.h"
#include "engine/control.h"
#include "engine/damage.h"
#include "engine/engine.h"
#include "engine/intake.h"
#include "engine/steady.h"
#include "engine/worker.h"
#include "queue/journal.h"
#include "queue/journal_replay.h"

/* Descriptors beside those of sessions: rings, files, sockets of control. */
enum { DESCRIPTORS_SPARE = 1024, DESCRIPTORS_BATCH = 2, PATH_SIZE = 1024, WORDS_SIZE = 8192 };

struct boot_thread {
    struct boot *boot;
    struct actor *actor;
    int32_t core;
    pthread_t thread;
    bool is_running;
};

struct boot {
    const struct config *config;
    struct writer *errors;
    struct engine engine;
    struct disk *intake_disk;
    struct disk *journal_disk;
    struct journal_known known;
    struct journal journal;
    struct resolver resolver;
    struct intake intake;
    struct control control;
    struct worker *workers;
    struct worker *workers_by_index[CONFIG_WORKERS_MAX];
    struct boot_thread threads[CONFIG_WORKERS_MAX + 3];
    uint32_t threads_count;
    struct stat_counter is_stopping;
    char journal_path[PATH_SIZE];
    char active_path[PATH_SIZE];
    char log_path[PATH_SIZE];
    bool has_journal, has_resolver, has_intake, has_control;
    bool is_marked;      /* this stop, as an orderly one */
    bool has_end_failed; /* what was left at the end could not be written */
    uint32_t workers_made;
    uint32_t batches_known;
    struct mono_time started_at;
};

static int refuse(struct boot *boot, const char *what, int error)
{
    writer_put_format(boot->errors, "%s: %s\n", what, strerror(-error));
    return error;
}

/* One turn after another; RCU is told after each that nothing of it is held, and nothing is held in
 * sleep. */
static void actor_loop(struct boot *boot, struct actor *actor)
{
    const struct clock *clock = boot->engine.clock;
    urcu_qsbr_register_thread();
    while (stat_read_xcore(&boot->is_stopping) == 0) {
        waker_awake(&actor->waker);
        struct mono_time next = actor->step(actor, clock_mono(clock));
        urcu_qsbr_quiescent_state();
        struct mono_time now = clock_mono(clock);
        if (mono_before(now, next) && waker_sleep(&actor->waker)) {
            urcu_qsbr_thread_offline();
            actor->wait(actor, now, next);
            urcu_qsbr_thread_online();
        }
        if (actor == &boot->control.actor && boot->control.phase == CONTROL_STOPPED) {
            break;
        }
    }
    urcu_qsbr_unregister_thread();
}

static void *thread_main(void *argument)
{
    struct boot_thread *thread = argument;
    if (thread->core >= 0) {
        cpu_set_t cores;
        CPU_ZERO(&cores);
        CPU_SET((unsigned)thread->core, &cores);
        (void)pthread_setaffinity_np(pthread_self(), sizeof(cores), &cores);
    }
    (void)pthread_setname_np(pthread_self(), thread->actor->name);
    actor_loop(thread->boot, thread->actor);
    return NULL;
}

static int start_thread(struct boot *boot, struct actor *actor, int32_t core)
{
    ensure(boot->threads_count < COUNT_OF(boot->threads));
    struct boot_thread *thread = &boot->threads[boot->threads_count++];
    *thread = (struct boot_thread){.boot = boot, .actor = actor, .core = core};
    int result = pthread_create(&thread->thread, NULL, thread_main, thread);
    thread->is_running = result == 0;
    return result == 0 ? 0 : refuse(boot, "a thread cannot be started", -result);
}

static void stop_threads(struct boot *boot)
{
    stat_set(&boot->is_stopping, 1);
    for (uint32_t i = 0; i < boot->threads_count; i++) {
        if (boot->threads[i].is_running) {
            waker_signal_xcore(&boot->threads[i].actor->waker);
            (void)pthread_join(boot->threads[i].thread, NULL);
        }
    }
}

static struct disk *make_disk(struct boot *boot, struct waker *waker)
{
    int error = 0;
    struct disk *disk = disk_uring_create(waker, &error);
    if (disk == NULL) {
        disk = disk_plain_create(waker, &error);
    }
    if (disk == NULL) {
        (void)refuse(boot, "the disk interface cannot be made", error);
    }
    return disk;
}

static int put_path(struct boot *boot, char *path, const char *directory, const char *name)
{
    struct writer writer = writer_of(path, PATH_SIZE - 1);
    writer_put_format(&writer, "%s%s", directory, name);
    if (writer.is_full) {
        return refuse(boot, "spool: the path is too long", -ENAMETOOLONG);
    }
    *writer.at = '\0';
    return 0;
}

static int make_paths(struct boot *boot)
{
    const struct config *config = boot->config;
    int result = put_path(boot, boot->journal_path, config->spool, "/journal");
    if (result == 0) {
        result = put_path(boot, boot->active_path, config->spool, "/active");
    }
    if (result == 0) {
        result = config->log_directory != NULL
                     ? put_path(boot, boot->log_path, config->log_directory, "")
                     : put_path(boot, boot->log_path, config->spool, "/log");
    }
    return result;
}

static int make_tables(struct boot *boot)
{
    const struct config *config = boot->config;
    struct engine *engine = &boot->engine;
    int error = 0;
    struct random random;
    random_init_system(&random);
    engine->config = config;
    engine->clock = clock_system();
    steady_begin(engine);
    engine->secret = random_u64(&random);
    engine->batches = calloc(config->batches_max, sizeof(struct batch));
    engine->source_limits = calloc(config->sources_count, sizeof(struct limit));
    if (engine->batches == NULL || engine->source_limits == NULL) {
        return refuse(boot, "tables", -ENOMEM);
    }
    for (uint32_t i = 0; i < config->sources_count; i++) {
        limit_init(&engine->source_limits[i], config->sources[i].connections_max);
    }
    engine->domains = domain_table_create(config->domains_max, engine->secret, &error);
    engine->sites = engine->domains == NULL ? NULL : site_table_create(config->sites_max, &error);
    engine->retry = engine->sites == NULL ? NULL : retry_wheel_create(steady_now_s(engine));
    return engine->retry != NULL ? 0 : refuse(boot, "tables", error != 0 ? error : -ENOMEM);
}

static int make_journal(struct boot *boot)
{
    const struct config *config = boot->config;
    boot->journal_disk = make_disk(boot, &boot->journal.actor.waker);
    if (boot->journal_disk == NULL) {
        return -EIO;
    }
    int result = journal_replay(boot->journal_disk, boot->journal_path,
                                intake_journal_end(&boot->intake), &boot->known);
    if (result != 0) {
        return refuse(boot, boot->journal_path, result);
    }
    const struct journal_config journal = {
        .disk = boot->journal_disk,
        .clock = boot->engine.clock,
        .directory = boot->journal_path,
        .active = boot->active_path,
        .log_directory = config->log_events ? boot->log_path : NULL,
        .segment_size = config->journal_segment_size,
        .segments_max = config->journal_segments_max,
        .log_size_max = config->log_size_max,
        .settled = &boot->intake.settled,
        .known = &boot->known,
    };
    result = journal_init(&boot->journal, &journal, true);
    boot->has_journal = result == 0;
    boot->engine.journal = &boot->journal;
    return result == 0 ? 0 : refuse(boot, boot->journal_path, result);
}

static int make_resolver(struct boot *boot)
{
    const struct config *config = boot->config;
    int error = 0;
    struct dns_source *source =
        dns_ares_create(config->dns_servers, config->dns_timeout_ms, config->dns_tries,
                        &boot->resolver.actor.waker, &error);
    if (source == NULL) {
        return refuse(boot, "dns: servers cannot be used", error);
    }
    const struct resolver_config resolver = {
        .source = source,
        .clock = boot->engine.clock,
        .secret = boot->engine.secret,
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
    error = resolver_init(&boot->resolver, &resolver, true);
    boot->has_resolver = error == 0;
    boot->engine.resolver = &boot->resolver;
    boot->engine.mx_cache = boot->resolver.cache;
    return error == 0 ? 0 : refuse(boot, "dns", error);
}

static struct net_loop *make_net(void *context, const struct net_config *config, int *ret_error)
{
    (void)context;
    return net_uring_create(config, ret_error);
}

static int make_workers(struct boot *boot)
{
    uint32_t count = boot->config->workers_count;
    boot->engine.workers = boot->workers_by_index;
    boot->engine.workers_count = count;
    boot->workers = aligned_alloc(64, count * ((sizeof(struct worker) + 63) & ~(size_t)63));
    if (boot->workers == NULL) {
        return refuse(boot, "workers", -ENOMEM);
    }
    for (uint32_t i = 0; i < count; i++) {
        boot->workers_by_index[i] = &boot->workers[i];
        const struct worker_config worker = {
            .engine = &boot->engine,
            .index = i,
            .net_create = make_net,
        };
        int result = worker_init(&boot->workers[i], &worker, true);
        boot->workers_made = i + 1;
        if (result != 0) {
            return refuse(
                boot, "a worker cannot be made (is io_uring allowed, RLIMIT_MEMLOCK large enough?)",
                result);
        }
    }
    return 0;
}

/* What sessions leave of the descriptors is for batches; some must be, however many sessions there
 * may be. 0 = any number. */
static uint32_t batch_descriptors(const struct config *config)
{
    struct rlimit limit;
    rlim_t taken = (rlim_t)config->sessions_max + DESCRIPTORS_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= UINT32_MAX) {
        return 0;
    }
    rlim_t left = limit.rlim_cur > taken ? limit.rlim_cur - taken : 0;
    rlim_t least = limit.rlim_cur / 4;
    return (uint32_t)(left > least ? left : least);
}

/* The spool's lock comes before the journal is looked at: intake_init takes it. */
static int make_intake(struct boot *boot)
{
    boot->intake_disk = make_disk(boot, &boot->intake.actor.waker);
    if (boot->intake_disk == NULL) {
        return -EIO;
    }
    boot->engine.intake = &boot->intake;
    const struct intake_config intake = {
        .engine = &boot->engine,
        .disk = boot->intake_disk,
        .fds_max = batch_descriptors(boot->config),
    };
    int result = intake_init(&boot->intake, &intake, true, boot->errors);
    boot->has_intake = result == 0;
    return result;
}

/* One descriptor a session, two a batch, and the kernel's usual limit is low: as far as we may. */
static void raise_limits(const struct config *config)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)config->sessions_max + DESCRIPTORS_SPARE +
                    (rlim_t)DESCRIPTORS_BATCH * config->batches_max;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    const struct rlimit most = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    limit.rlim_cur = wanted;
    limit.rlim_max = wanted > limit.rlim_max ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        (void)setrlimit(RLIMIT_NOFILE, &most);
    }
}

/* What is damaged is told at once: people may be watching the start. Without memory the event log
 * and the status still say it. */
static int recover(struct boot *boot)
{
    char *text = malloc(DAMAGE_TEXT_SIZE);
    struct writer words = writer_of(text, text == NULL ? 0 : DAMAGE_TEXT_SIZE);
    damage_tell(&boot->engine, &boot->known, &words);
    int result = intake_recover(&boot->intake, &boot->known);
    if (result == 0) {
        intake_tell_damage(&boot->intake, &words);
    } else {
        /* A checkpoint now would cost the lines not yet kept. */
        journal_abandon(&boot->journal);
        (void)refuse(boot, "recovery", result);
    }
    if (text != NULL) {
        (void)fwrite(text, 1, writer_size(&words), stderr);
    }
    free(text);
    return result;
}

/* One line at the start, behind recovery, and at the end: the system's journal shows what state the
 * engine is in. */

static void say_start(const struct boot *boot)
{
    const struct config *config = boot->config;
    char text[WORDS_SIZE];
    struct writer words = writer_of(text, sizeof(text));
    (void)fprintf(stderr, "ramjet: starting: spool %s, %u worker%s\n", config->spool,
                  config->workers_count, config->workers_count == 1 ? "" : "s");
    check_source_addresses(config, &words);
    struct cursor cursor = cursor_of(writer_span(&words));
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        (void)fprintf(stderr, "ramjet: warning: %.*s\n", (int)line.size, line.at);
    }
}

static void say_ready(const struct boot *boot)
{
    double seconds = (double)(clock_mono(boot->engine.clock).ns - boot->started_at.ns) / 1e9;
    (void)fprintf(stderr, "ramjet: ready after %.1f s: %u accepted batches go on\n", seconds,
                  boot->batches_known);
}

/* The last line of all: in order is true only when it is on stable storage that it was. */
static void say_end(const struct boot *boot, int status)
{
    const char *how =
        ": not all servers had answered; some mail may go out twice, and the log says "
        "so";
    if (status != 0) {
        how = " with an error";
    } else if (boot->is_marked) {
        how = " in order";
    }
    writer_put_format(boot->errors, "ended%s\n", how);
}

static int make_all(struct boot *boot)
{
    int result = make_paths(boot);
    result = result == 0 ? make_tables(boot) : result;
    result = result == 0 ? make_intake(boot) : result;
    result = result == 0 ? make_journal(boot) : result;
    boot->batches_known = boot->known.batches_count;
    result = result == 0 ? recover(boot) : result;
    result = result == 0 ? make_resolver(boot) : result;
    result = result == 0 ? make_workers(boot) : result;
    if (result == 0) {
        result = control_init(&boot->control, &boot->engine, true, boot->errors);
        boot->has_control = result == 0;
    }
    return result;
}

static int start_all(struct boot *boot)
{
    int result = start_thread(boot, &boot->journal.actor, -1);
    result = result == 0 ? start_thread(boot, &boot->resolver.actor, -1) : result;
    for (uint32_t i = 0; i < boot->config->workers_count && result == 0; i++) {
        result = start_thread(boot, &boot->workers[i].actor, boot->config->cores[i]);
    }
    return result == 0 ? start_thread(boot, &boot->intake.actor, -1) : result;
}

/* Before the workers: its last group holds records that live in their slabs. */
static void end_journal(struct boot *boot)
{
    for (uint32_t i = 0; i < boot->workers_made; i++) {
        worker_end(&boot->workers[i]);
    }
    journal_deinit(&boot->journal);
    bool has_failed = stat_read_xcore(&boot->journal.stats.has_failed) != 0;
    if (has_failed && stat_read_xcore(&boot->journal.stats.failure) == JOURNAL_FAILURE_STOP) {
        writer_put_format(boot->errors,
                          "%s: results.ndjson of some batches could not be written: the next start "
                          "takes this stop for a crash and completes them\n",
                          boot->active_path);
    }
    boot->has_end_failed = has_failed;
    if (!boot->has_control || !boot->control.is_drained || has_failed) {
        return;
    }
    boot->is_marked = intake_mark_clean(&boot->intake) == 0;
    boot->has_end_failed = !boot->is_marked;
    if (!boot->is_marked) {
        writer_put_format(boot->errors, "spool: the mark of an orderly stop cannot be written: the "
                                        "next start will take this one for a crash\n");
    }
}

static void unmake_all(struct boot *boot)
{
    if (boot->has_control) {
        control_deinit(&boot->control);
    }
    if (boot->has_journal) {
        end_journal(boot);
    }
    for (uint32_t i = 0; i < boot->workers_made; i++) {
        worker_deinit(&boot->workers[i]);
    }
    free(boot->workers);
    if (boot->has_resolver) {
        resolver_deinit(&boot->resolver);
    }
    if (boot->has_intake) {
        intake_deinit(&boot->intake);
    }
    journal_known_free(&boot->known);
    disk_destroy(boot->journal_disk);
    disk_destroy(boot->intake_disk);
    retry_wheel_destroy(boot->engine.retry, true);
    site_table_destroy(boot->engine.sites);
    domain_table_destroy(boot->engine.domains);
    free(boot->engine.source_limits);
    free(boot->engine.batches);
}

int boot_run(const struct config *config, struct writer *ret_errors)
{
    struct boot *boot = aligned_alloc(64, (sizeof(*boot) + 63) & ~(size_t)63);
    if (boot == NULL) {
        writer_put_format(ret_errors, "out of memory\n");
        return 1;
    }
    memset(boot, 0, sizeof(*boot));
    boot->config = config;
    boot->errors = ret_errors;
    sigset_t signals;
    (void)sigfillset(&signals);
    (void)sigdelset(&signals, SIGABRT);
    (void)sigdelset(&signals, SIGSEGV);
    (void)sigdelset(&signals, SIGBUS);
    (void)sigdelset(&signals, SIGFPE);
    (void)sigdelset(&signals, SIGILL);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    raise_limits(config);
    boot->started_at = clock_mono(clock_system());
    say_start(boot);
    int status = 1;
    bool has_run = false;
    if (make_all(boot) == 0 && start_all(boot) == 0) {
        control_announce_ready(&boot->control);
        say_ready(boot);
        actor_loop(boot, &boot->control.actor);
        status = boot->control.exit_status;
        has_run = true;
    }
    stop_threads(boot);
    unmake_all(boot);
    if (has_run) {
        status = boot->has_end_failed ? 1 : status;
        say_end(boot, status);
    }
    free(boot);
    return status;
}
