/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_planted: whether the simulator finds the bugs of engine/base/planted.h: each is run with
 * seeds from `jobs->from` on until one fails, at most `jobs->seeds` of them.
 *
 * One line a bug on standard output: which seed found it and what it said; then
 * {"planted":N,"found":N}. A bug that no seed finds shows a checker that is blind.
 */
#pragma once

#include "tests/sim/sim_jobs.h"

/* The bug of this name; PLANT_NONE: there is none. */
enum plant sim_planted_of_name(const char *name);
/* EXIT_SUCCESS when all were found; `only`: just this one, PLANT_NONE: all. */
int sim_planted_run(const struct sim_jobs *jobs, enum plant only);
