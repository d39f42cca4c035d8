/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEED_LIMIT_S = 120 };

/* What parent and children see. */
struct shared {
    _Atomic uint64_t next;
    _Atomic bool is_over;
    _Atomic uint64_t under_way[SIM_JOBS_MAX]; /* seed */
    _Atomic uint64_t done, small_done, small_cpu_us;
    _Atomic uint64_t recipients, delivered, repeats, missing, twice, crashes, steps;
};

struct run {
    const struct sim_jobs *jobs;
    struct shared *shared;
    struct mono_time start;
    pid_t pids[SIM_JOBS_MAX];
    int words[SIM_JOBS_MAX]; /* what each child says on standard error, when quiet */
};

struct config *sim_jobs_defaults(void)
{
    char words[1024];
    struct writer errors = writer_of(words, sizeof(words));
    struct config *defaults = config_read(NULL, &errors);
    ensure(defaults != NULL);
    return defaults;
}

static bool is_time_over(const struct run *run)
{
    struct mono_time now = clock_mono(clock_system());
    return run->jobs->seconds > 0 &&
           now.ns - run->start.ns >= (int64_t)run->jobs->seconds * NS_PER_S;
}

static uint64_t usage_us(int who)
{
    struct rusage usage;
    ensure(getrusage(who, &usage) == 0);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void add_up(struct shared *shared, const struct sim_swarm_result *result, uint64_t cpu_us)
{
    atomic_fetch_add(&shared->done, 1);
    if (result->totals.recipients <= SIM_SMALL_RECIPIENTS_MAX) {
        atomic_fetch_add(&shared->small_done, 1);
        atomic_fetch_add(&shared->small_cpu_us, cpu_us);
    }
    atomic_fetch_add(&shared->recipients, result->totals.recipients);
    atomic_fetch_add(&shared->delivered, result->totals.delivered);
    atomic_fetch_add(&shared->repeats, result->totals.repeats);
    atomic_fetch_add(&shared->missing, result->totals.results_missing);
    atomic_fetch_add(&shared->twice, result->totals.results_twice);
    atomic_fetch_add(&shared->crashes, result->crashes);
    atomic_fetch_add(&shared->steps, result->steps);
}

static _Noreturn void run_child(const struct run *run, uint64_t job)
{
    struct shared *shared = run->shared;
    const struct sim_jobs *jobs = run->jobs;
    if (jobs->is_quiet) {
        ensure(dup2(run->words[job], STDERR_FILENO) >= 0);
    }
    ensure(planted_choose(jobs->plant));
    struct config *defaults = sim_jobs_defaults();
    while (!is_time_over(run) && !atomic_load(&shared->is_over)) {
        uint64_t seed = atomic_fetch_add(&shared->next, 1);
        if (jobs->seeds > 0 && seed >= jobs->from + jobs->seeds) {
            break;
        }
        atomic_store(&shared->under_way[job], seed);
        (void)alarm(SEED_LIMIT_S);
        uint64_t before_us = usage_us(RUSAGE_SELF);
        struct sim_swarm_result result = sim_swarm_run(seed, defaults, false);
        add_up(shared, &result, usage_us(RUSAGE_SELF) - before_us);
    }
    config_destroy(defaults);
    exit(EXIT_SUCCESS);
}

static void spawn(struct run *run, uint64_t job)
{
    if (run->jobs->is_quiet) {
        if (run->words[job] >= 0) {
            (void)close(run->words[job]);
        }
        run->words[job] = memfd_create("sim", MFD_CLOEXEC);
        ensure(run->words[job] >= 0);
    }
    (void)fflush(NULL);
    pid_t child = fork();
    ensure(child >= 0);
    if (child == 0) {
        run_child(run, job);
    }
    run->pids[job] = child;
}

static void note_failure(const struct run *run, uint64_t job, int status,
                         struct sim_jobs_result *result)
{
    uint64_t seed = atomic_load(&run->shared->under_way[job]);
    const char *end = WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit";
    result->violations++;
    if (!run->jobs->is_quiet) {
        printf("seed %llu fails (%s): %s --seed %llu --trace\n", (unsigned long long)seed, end,
               run->jobs->program, (unsigned long long)seed);
    }
    if (result->violations > 1 && seed >= result->failed_first) {
        return;
    }
    result->failed_first = seed;
    (void)snprintf(result->failed_words, sizeof(result->failed_words), "%s", end);
    if (run->jobs->is_quiet) {
        char *words = result->failed_words;
        ssize_t got = pread(run->words[job], words, sizeof(result->failed_words) - 1, 0);
        words[got > 0 ? got : 0] = '\0';
        words[strcspn(words, "\n")] = '\0';
    }
}

/* A child has ended; true: another takes its place. */
static bool reap(struct run *run, uint64_t job, int status, struct sim_jobs_result *result)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
        return false;
    }
    note_failure(run, job, status, result);
    if (run->jobs->is_first_enough || result->violations >= SIM_JOBS_FAILURES_MAX) {
        atomic_store(&run->shared->is_over, true);
    }
    return !atomic_load(&run->shared->is_over);
}

static void run_all(struct run *run, struct sim_jobs_result *result)
{
    uint64_t running = run->jobs->jobs;
    for (uint64_t job = 0; job < running; job++) {
        run->words[job] = -1;
        spawn(run, job);
    }
    while (running > 0) {
        int status;
        pid_t pid = wait(&status);
        ensure(pid > 0 || errno == EINTR);
        for (uint64_t job = 0; job < run->jobs->jobs && pid > 0; job++) {
            if (run->pids[job] != pid) {
                continue;
            }
            run->pids[job] = 0;
            if (reap(run, job, status, result)) {
                spawn(run, job);
            } else {
                running--;
            }
            break;
        }
    }
    for (uint64_t job = 0; job < run->jobs->jobs; job++) {
        if (run->words[job] >= 0) {
            (void)close(run->words[job]);
        }
    }
}

void sim_jobs_run(const struct sim_jobs *jobs, struct sim_jobs_result *ret_result)
{
    ensure(jobs->jobs >= 1);
    ensure(jobs->jobs <= SIM_JOBS_MAX);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ensure(shared != MAP_FAILED);
    atomic_init(&shared->next, jobs->from);
    struct run run = {.jobs = jobs, .shared = shared, .start = clock_mono(clock_system())};
    struct sim_jobs_result result = {.seeds = 0};
    uint64_t cpu_before_us = usage_us(RUSAGE_CHILDREN); /* of those that have ended */
    run_all(&run, &result);
    result.seconds = (double)(clock_mono(clock_system()).ns - run.start.ns) / (double)NS_PER_S;
    result.cpu_seconds = (double)(usage_us(RUSAGE_CHILDREN) - cpu_before_us) / 1e6;
    result.small_seeds = atomic_load(&shared->small_done);
    result.small_cpu_seconds = (double)atomic_load(&shared->small_cpu_us) / 1e6;
    result.seeds = atomic_load(&shared->done) + result.violations;
    result.recipients = atomic_load(&shared->recipients);
    result.delivered = atomic_load(&shared->delivered);
    result.repeats = atomic_load(&shared->repeats);
    result.crashes = atomic_load(&shared->crashes);
    result.steps = atomic_load(&shared->steps);
    result.missing = atomic_load(&shared->missing);
    result.twice = atomic_load(&shared->twice);
    ensure(munmap(shared, sizeof(*shared)) == 0);
    *ret_result = result;
}
