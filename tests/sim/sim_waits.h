/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_waits: whether each attempt has waited for its time, by the event log.
 *
 * Between two attempts of one recipient that are both deferred lies at least what the schedule
 * says, less its jitter, of time that goes by, whatever became of the wall clock. Not judged: two
 * attempts with a start of the engine between them, where the wall clock is all there is, and
 * batches that were ordered to be tried at once. Times of the log are of the wall clock; when it
 * has said the same more than once all of them count.
 */
#pragma once

#include "queue/backoff.h"
#include "tests/sim/sim_book.h"

/* Behind sim_book_settle_up. A breach is a sim_violation. */
void sim_waits_check(struct sim_book *book, const struct backoff_schedule *schedule);
