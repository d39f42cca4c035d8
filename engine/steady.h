/* SPDX-License-Identifier: Apache-2.0 */
/*
 * steady: the engine's own seconds, for waiting and for growing old.
 *
 * They begin with the wall clock of the start and go on by the monotonic one. So whoever sets the
 * wall clock while an engine runs, forward or back, makes no host be asked too soon, no recipient
 * wait longer, no mail expire. The wall clock counts for people (Date, the log), for moments that
 * people name (not_before, expires), and over a restart, where there is nothing else: the journal's
 * times are of it.
 *
 * Any actor; nothing is kept but the origin, which never changes. Nothing fails.
 */
#pragma once

#include "engine/engine.h"

/* At the start, once engine->clock is set, before all others. */
void steady_begin(struct engine *engine);
uint32_t steady_now_s(const struct engine *engine);
/* The own second of a wall second, as the wall clock is set now. */
uint32_t steady_of_wall_s(const struct engine *engine, uint64_t wall_s);
/* From where the age of the batch counts: its acceptance, not_before. */
uint32_t steady_start_s(const struct engine *engine, const struct batch *batch, bool is_new);
/* When a recipient may be tried who comes from intake with a wall second or 0; 0: at once. A wait
 * that is longer than any route makes them was stored by a clock that was set back since. */
uint32_t steady_due_s(const struct engine *engine, const struct batch *batch,
                      const struct recipient *recipient);
