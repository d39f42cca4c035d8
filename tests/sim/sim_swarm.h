/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_swarm: one seed, one world: a configuration, hosts, domains, batches, orders and faults, all
 * drawn from the seed, run until every batch has left the spool and the engine is idle; then the
 * account (sim_book.h). Each kind of fault is on in some seeds and off in others, so that each is
 * also met alone.
 *
 * What a seed does is the same on every machine for one state of the sources. A breach aborts.
 */
#pragma once

#include "tests/sim/sim_book.h"

struct sim_swarm_result {
    struct sim_totals totals;
    uint64_t steps;
    uint64_t crashes;
    uint64_t boots;
    int64_t virtual_ns;
};

struct sim_swarm_result sim_swarm_run(uint64_t seed, const struct config *defaults, bool is_traced);
