/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_countdown: what the fault countdowns share (style 3.12): one life of an engine, from batches
 * in the spool to done/, over and over; each time something fails an operation later, until a life
 * is untouched. Segments are so small that checkpoints are written all the time.
 *
 * The environment's SIM_COUNTDOWN=all makes every step 1 (`./dev sim --countdown`); ordinary tests
 * leave some operations out where there are many. SIM_COUNTDOWN=KIND:N lives just that life, as a
 * failed one says; SIM_TRACE=1 traces it.
 */
#pragma once

#include "tests/harness.h"
#include "tests/sim/sim_book.h"

enum { COUNTDOWN_RECIPIENTS = 16, COUNTDOWN_LIFE_MAX_S = 6 * 86400, COUNTDOWN_WAIT_S = 400 };

/* A new world with one host; the engine is up. */
struct sim_engine *countdown_world(const struct config *defaults);
/* Batches of COUNTDOWN_RECIPIENTS, of which some are deferred and some bounce. */
void countdown_submit(struct sim_book *book, const char *id, enum sim_kind kind);
bool countdown_is_down(struct sim_engine *sim);
bool countdown_is_down_or_idle(struct sim_engine *sim);
/* A violation when it does not stop within an hour. */
void countdown_stop(struct sim_engine *sim);
/* The book's account, and no line of results missing or twice but where the disk has failed; the
 * world is gone behind it. `n`: for people. */
void countdown_settle_up(struct sim_book *book, uint64_t n);
/* Lives of this kind until one says that it was untouched, `step` operations apart; there must be
 * more than `least`. */
void countdown_run(bool (*live)(const struct config *defaults, int kind, uint64_t n), int kind,
                   uint64_t step, uint64_t least);
