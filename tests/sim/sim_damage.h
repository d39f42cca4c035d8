/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_damage: what becomes of files while no engine runs, other than by a crash: a bit turns over,
 * a sector is zeroed, the end is cut off, a file is gone; in journal/, or in a batch of active/.
 *
 * Of a batch only files are taken whose content the journal's accept record vouches for: the batch
 * was accepted when the last engine ended. Lines of results.ndjson have no checksum: no bit turns
 * over there. What is damaged is stable.
 */
#pragma once

#include "tests/sim/sim_engine.h"

enum sim_damage_place { SIM_DAMAGE_JOURNAL, SIM_DAMAGE_RESULTS, SIM_DAMAGE_BATCH };
enum { SIM_DAMAGE_PLACES_COUNT = SIM_DAMAGE_BATCH + 1 };

/* One file of the place, by chance. False: there is none that could be damaged. */
bool sim_damage_some(struct sim_engine *sim, enum sim_damage_place place, struct random *random);
