/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim: runs seeds of the simulator (conformance T12).
 *
 *   sim --seed N [--trace]           one seed, in this process
 *   sim --seeds N [--from M]         so many seeds
 *   sim --for TIME [--from M]        as many as there is time for ("90", "60s", "10m", "1h")
 *   sim --planted [--plant NAME]     whether each planted bug is found (engine/base/planted.h), by
 *                                    10,000 seeds or --seeds N
 *     --jobs N                       in so many processes
 *     --plant NAME                   with this planted bug; the build must have them
 *
 * Seeds run in children, so that a breach ends one seed and not the run; each that fails is told
 * with the command that replays it. The last line is JSON. Exit status 1 when a seed has failed.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_planted.h"

/* Tables from this size on are fresh pages each time: a life of an engine touches little of them.
 */
enum { FRESH_SIZE = 65536, PLANTED_SEEDS = 10000 };

struct options {
    struct sim_jobs jobs;
    uint64_t seed;
    bool has_seed, is_traced, is_planted;
};

static int usage(void)
{
    (void)fprintf(stderr, "sim --seed N [--trace]\n"
                          "sim --seeds N | --for 60s [--from M] [--jobs N]\n"
                          "sim --planted [--seeds N] [--from M] [--jobs N]\n"
                          "with --plant NAME: one planted bug\n");
    return 2;
}

/* A number; with a unit of time it is one of seconds. */
static bool read_number(const char *word, uint64_t *ret_number)
{
    static const struct {
        char unit;
        uint64_t seconds;
    } UNITS[] = {{'s', 1}, {'m', 60}, {'h', 3600}};
    struct cursor cursor = cursor_of(span_of_text(word));
    uint64_t number;
    if (!cursor_take_uint(&cursor, UINT64_MAX / 3600, &number)) {
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(UNITS); i++) {
        if (cursor_take_byte(&cursor, UNITS[i].unit)) {
            number *= UNITS[i].seconds;
            break;
        }
    }
    *ret_number = number;
    return cursor_left(&cursor) == 0;
}

static bool read_options(int count, char **words, struct options *options)
{
    struct sim_jobs *jobs = &options->jobs;
    for (int i = 1; i < count; i++) {
        uint64_t *numbers[] = {&options->seed, &jobs->seeds, &jobs->from, &jobs->seconds,
                               &jobs->jobs};
        static const char *const NAMES[] = {"--seed", "--seeds", "--from", "--for", "--jobs"};
        bool is_known = strcmp(words[i], "--trace") == 0;
        options->is_traced |= is_known;
        if (strcmp(words[i], "--planted") == 0) {
            is_known = options->is_planted = true;
        } else if (strcmp(words[i], "--plant") == 0 && i + 1 < count) {
            jobs->plant = sim_planted_of_name(words[++i]);
            is_known = jobs->plant != PLANT_NONE;
        }
        for (size_t name = 0; name < COUNT_OF(NAMES); name++) {
            if (strcmp(words[i], NAMES[name]) == 0 && i + 1 < count) {
                is_known = read_number(words[++i], numbers[name]);
                options->has_seed |= name == 0;
                break;
            }
        }
        if (!is_known) {
            return false;
        }
    }
    bool has_task =
        options->has_seed || options->is_planted || jobs->seeds > 0 || jobs->seconds > 0;
    return has_task && jobs->jobs > 0 && jobs->jobs <= SIM_JOBS_MAX;
}

static int run_one(const struct options *options)
{
    if (!planted_choose(options->jobs.plant)) {
        (void)fprintf(stderr, "this build has no planted bugs: meson setup -Dplanted=true\n");
        return 2;
    }
    struct config *defaults = sim_jobs_defaults();
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

static int run_many(const struct options *options)
{
    struct sim_jobs_result result;
    sim_jobs_run(&options->jobs, &result);
    printf("{\"seeds\":%llu,\"violations\":%llu,\"seeds_per_s\":%.1f,"
           "\"seeds_per_cpu_s\":%.1f,\"jobs\":%llu,\"small_seeds\":%llu,\"small_per_cpu_s\":%.1f,"
           "\"recipients\":%llu,\"delivered\":%llu,\"repeats\":%llu,\"crashes\":%llu,"
           "\"results_missing\":%llu,\"results_twice\":%llu,\"steps\":%llu}\n",
           (unsigned long long)result.seeds, (unsigned long long)result.violations,
           (double)result.seeds / result.seconds, (double)result.seeds / result.cpu_seconds,
           (unsigned long long)options->jobs.jobs, (unsigned long long)result.small_seeds,
           result.small_seeds > 0 ? (double)result.small_seeds / result.small_cpu_seconds : 0.0,
           (unsigned long long)result.recipients, (unsigned long long)result.delivered,
           (unsigned long long)result.repeats, (unsigned long long)result.crashes,
           (unsigned long long)result.missing, (unsigned long long)result.twice,
           (unsigned long long)result.steps);
    return result.violations > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int count, char **words)
{
    struct options options = {.jobs = {.program = words[0], .from = 1, .jobs = 1}};
    (void)mallopt(M_MMAP_THRESHOLD, FRESH_SIZE);
    if (!read_options(count, words, &options)) {
        return usage();
    }
    if (options.is_planted) {
        options.jobs.seeds = options.jobs.seeds > 0 ? options.jobs.seeds : PLANTED_SEEDS;
        return sim_planted_run(&options.jobs, options.jobs.plant);
    }
    return options.has_seed ? run_one(&options) : run_many(&options);
}
