/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_engine_priv: what the files of the simulated engine share. sim_engine.c: its lives;
 * sim_turn.c: the scheduler.
 */
#pragma once

#include "tests/sim/sim_engine.h"
#include "tests/sim/sim_memory.h"

/* An engine that is idle holds what it had when it was made, and what its caches may keep; a
 * violation otherwise. */
void sim_engine_check_idle(const struct sim_engine *sim);
/* Control has come to its end: the engine is taken down in order. */
void sim_engine_ended(struct sim_engine *sim);
/* The disk has stopped where sim_engine_crash_at said. */
void sim_engine_crash_now(struct sim_engine *sim);
