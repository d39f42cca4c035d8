/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_planted.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLANT_ROW(name, words) {#name, words},

static const struct {
    const char *name;
    const char *words;
} ROWS[] = {PLANTS(PLANT_ROW)};
_Static_assert(COUNT_OF(ROWS) == PLANTS_COUNT, "a row for each bug");

enum plant sim_planted_of_name(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        if (strcmp(ROWS[i].name, name) == 0) {
            return (enum plant)(i + 1);
        }
    }
    return PLANT_NONE;
}

static bool run_one(const struct sim_jobs *jobs, enum plant plant)
{
    struct sim_jobs one = *jobs;
    one.plant = plant;
    one.is_quiet = true;
    one.is_first_enough = true;
    struct sim_jobs_result result;
    sim_jobs_run(&one, &result);
    bool is_found = result.violations > 0;
    printf("%-20s %s: ", ROWS[plant - 1].name, ROWS[plant - 1].words);
    if (is_found) {
        printf("seed %llu, %.1f s: %s\n", (unsigned long long)result.failed_first, result.seconds,
               result.failed_words);
    } else {
        printf("NOT FOUND by %llu seeds\n", (unsigned long long)result.seeds);
    }
    (void)fflush(stdout);
    return is_found;
}

int sim_planted_run(const struct sim_jobs *jobs, enum plant only)
{
    if (!planted_choose(PLANT_SYNC_SKIPPED)) {
        printf("this build has no planted bugs: meson setup -Dplanted=true\n");
        return 2;
    }
    (void)planted_choose(PLANT_NONE);
    unsigned planted = 0;
    unsigned found = 0;
    for (unsigned plant = 1; plant <= PLANTS_COUNT; plant++) {
        if (only == PLANT_NONE || only == plant) {
            planted++;
            found += run_one(jobs, (enum plant)plant) ? 1 : 0;
        }
    }
    printf("{\"planted\":%u,\"found\":%u}\n", planted, found);
    return found == planted ? EXIT_SUCCESS : EXIT_FAILURE;
}
