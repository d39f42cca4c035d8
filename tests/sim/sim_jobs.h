/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_jobs: seeds by the thousand, in several processes.
 *
 * Each child takes the next seed that nobody has had. A seed that fails ends its child, which is
 * replaced; it is told on standard output with the command that replays it (not when `is_quiet`).
 *
 * Bounds: SIM_JOBS_MAX processes, SIM_JOBS_FAILURES_MAX failures (then no more seeds are run), two
 * minutes a seed (then it has failed).
 */
#pragma once

#include "engine/base/planted.h"
#include "tests/sim/sim_swarm.h"

enum { SIM_JOBS_MAX = 64, SIM_JOBS_FAILURES_MAX = 20 };
enum { SIM_SMALL_RECIPIENTS_MAX = 20 }; /* of a small world: its speed is told apart */

struct sim_jobs {
    const char *program;
    uint64_t from;
    uint64_t seeds;   /* 0: as many as there is time for */
    uint64_t seconds; /* 0: as long as it takes */
    uint64_t jobs;    /* 1..SIM_JOBS_MAX */
    bool is_quiet;
    bool is_first_enough; /* ends with the first failure */
    enum plant plant;
};

struct sim_jobs_result {
    uint64_t seeds;
    uint64_t violations;
    uint64_t failed_first;  /* the seed of the first failure */
    char failed_words[160]; /* what it said, when quiet */
    double seconds;
    double cpu_seconds; /* of all processes */
    uint64_t small_seeds;
    double small_cpu_seconds;
    uint64_t recipients, delivered, repeats, crashes, steps;
    uint64_t missing, twice; /* lines of results.ndjson, where they may be so */
};

struct config *sim_jobs_defaults(void);
void sim_jobs_run(const struct sim_jobs *jobs, struct sim_jobs_result *ret_result);
