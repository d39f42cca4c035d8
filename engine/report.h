/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report: one event as one line of JSON, with KumoMTA's field names plus batch and line
 * (docs/formats/LOG.md).
 *
 * Writes into the caller's buffer; of the worker only the cache of texts is changed. A line that
 * would not fit loses the server's words first, never a field that names the recipient.
 */
#pragma once

#include <stdint.h>

#include "engine/outcome.h"
#include "engine/worker.h"

/* Writes the line with its LF. `at`: when the outcome was decided. `attempts_count` includes this
 * one. */
void report_put_line(struct writer *writer, const struct engine *engine, struct report_cache *cache,
                     const struct attempt *attempt, const struct outcome *outcome,
                     uint32_t attempts_count, bool is_possible_duplicate, struct wall_time at);
