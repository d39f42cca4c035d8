/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim: runs seeds of the simulator.
 *
 *   sim --seed N [--trace]         one seed, in this process
 *   sim --seeds N [--from M]       so many seeds
 *   sim --for SECONDS [--from M]   as many as there is time for
 *
 * Seeds run in a child, so that a breach ends one seed and not the run; each that fails is told
 * with the command that replays it. The last line is JSON. Exit status 1 when a seed has failed.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim_swarm.h"

/* Tables from this size on are fresh pages each time: a life of an engine touches little of them.
 */
enum { FAILURES_MAX = 20, SEED_LIMIT_S = 120, FRESH_SIZE = 65536 };

struct options {
    uint64_t seed, seeds, from, seconds;
    bool has_seed, is_traced;
};

/* What parent and child both see. */
struct shared {
    _Atomic uint64_t seed; /* under way */
    _Atomic uint64_t done;
    _Atomic uint64_t recipients, delivered, repeats, missing, twice, crashes, steps;
};

static int usage(void)
{
    (void)fprintf(stderr, "sim --seed N [--trace] | --seeds N [--from M] | --for SECONDS "
                          "[--from M]\n");
    return 2;
}

static bool read_options(int count, char **words, struct options *options)
{
    for (int i = 1; i < count; i++) {
        uint64_t *numbers[] = {&options->seed, &options->seeds, &options->from, &options->seconds};
        static const char *const NAMES[] = {"--seed", "--seeds", "--from", "--for"};
        bool is_known = strcmp(words[i], "--trace") == 0;
        options->is_traced |= is_known;
        for (size_t name = 0; name < COUNT_OF(NAMES); name++) {
            if (strcmp(words[i], NAMES[name]) == 0 && i + 1 < count) {
                struct cursor cursor = cursor_of(span_of_text(words[++i]));
                is_known = cursor_take_uint(&cursor, UINT64_MAX, numbers[name]);
                options->has_seed |= name == 0;
                break;
            }
        }
        if (!is_known) {
            return false;
        }
    }
    return options->has_seed || options->seeds > 0 || options->seconds > 0;
}

static struct config *read_defaults(void)
{
    char words[1024];
    struct writer errors = writer_of(words, sizeof(words));
    struct config *defaults = config_read(NULL, &errors);
    ensure(defaults != NULL);
    return defaults;
}

static int run_one(const struct options *options)
{
    struct config *defaults = read_defaults();
    struct sim_swarm_result result = sim_swarm_run(options->seed, defaults, options->is_traced);
    config_destroy(defaults);
    printf("seed %llu: %llu recipients, %llu delivered, %llu bounced, %llu expired, %llu "
           "cancelled, %llu repeats, %llu crashes, %llu boots, %llu steps, %.0f s\n",
           (unsigned long long)options->seed, (unsigned long long)result.totals.recipients,
           (unsigned long long)result.totals.delivered, (unsigned long long)result.totals.bounced,
           (unsigned long long)result.totals.expired, (unsigned long long)result.totals.cancelled,
           (unsigned long long)result.totals.repeats, (unsigned long long)result.crashes,
           (unsigned long long)result.boots, (unsigned long long)result.steps,
           (double)result.virtual_ns / (double)NS_PER_S);
    return 0;
}

static bool is_time_over(const struct options *options, struct mono_time start)
{
    struct mono_time now = clock_mono(clock_system());
    return options->seconds > 0 && now.ns - start.ns >= (int64_t)options->seconds * NS_PER_S;
}

static _Noreturn void run_child(const struct options *options, struct shared *shared,
                                uint64_t first, struct mono_time start)
{
    struct config *defaults = read_defaults();
    for (uint64_t seed = first; !is_time_over(options, start); seed++) {
        if (options->seeds > 0 && seed >= options->from + options->seeds) {
            break;
        }
        atomic_store(&shared->seed, seed);
        (void)alarm(SEED_LIMIT_S);
        struct sim_swarm_result result = sim_swarm_run(seed, defaults, false);
        atomic_fetch_add(&shared->done, 1);
        atomic_fetch_add(&shared->recipients, result.totals.recipients);
        atomic_fetch_add(&shared->delivered, result.totals.delivered);
        atomic_fetch_add(&shared->repeats, result.totals.repeats);
        atomic_fetch_add(&shared->missing, result.totals.results_missing);
        atomic_fetch_add(&shared->twice, result.totals.results_twice);
        atomic_fetch_add(&shared->crashes, result.crashes);
        atomic_fetch_add(&shared->steps, result.steps);
    }
    config_destroy(defaults);
    exit(EXIT_SUCCESS);
}

static int run_many(const struct options *options, const char *program)
{
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ensure(shared != MAP_FAILED);
    struct mono_time start = clock_mono(clock_system());
    uint64_t first = options->from;
    unsigned violations = 0;
    for (;;) {
        (void)fflush(NULL);
        pid_t child = fork();
        ensure(child >= 0);
        if (child == 0) {
            run_child(options, shared, first, start);
        }
        int status;
        while (waitpid(child, &status, 0) < 0) {
            ensure(errno == EINTR);
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS) {
            break;
        }
        uint64_t seed = atomic_load(&shared->seed);
        violations++;
        first = seed + 1;
        printf("seed %llu fails (%s): %s --seed %llu --trace\n", (unsigned long long)seed,
               WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "exit", program,
               (unsigned long long)seed);
        if (violations == FAILURES_MAX) {
            printf("too many failures: no more seeds are run\n");
            break;
        }
    }
    double seconds = (double)(clock_mono(clock_system()).ns - start.ns) / (double)NS_PER_S;
    uint64_t seeds = atomic_load(&shared->done) + violations;
    printf("{\"seeds\":%llu,\"violations\":%u,\"seeds_per_s\":%.1f,\"recipients\":%llu,"
           "\"delivered\":%llu,\"repeats\":%llu,\"crashes\":%llu,"
           "\"results_missing\":%llu,\"results_twice\":%llu,\"steps\":%llu}\n",
           (unsigned long long)seeds, violations, (double)seeds / seconds,
           (unsigned long long)atomic_load(&shared->recipients),
           (unsigned long long)atomic_load(&shared->delivered),
           (unsigned long long)atomic_load(&shared->repeats),
           (unsigned long long)atomic_load(&shared->crashes),
           (unsigned long long)atomic_load(&shared->missing),
           (unsigned long long)atomic_load(&shared->twice),
           (unsigned long long)atomic_load(&shared->steps));
    return violations > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int count, char **words)
{
    struct options options = {.from = 1};
    (void)mallopt(M_MMAP_THRESHOLD, FRESH_SIZE);
    if (!read_options(count, words, &options)) {
        return usage();
    }
    return options.has_seed ? run_one(&options) : run_many(&options, words[0]);
}
