/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics: sums the actors' counters into what people and machines read: /v1/status, /metrics, one
 * line for systemd.
 *
 * Owner: control. Reads only counters made for it (stat.h, one writer each) and the workers'
 * reports that have come back. Rates come from samples a second apart; the last METRICS_SAMPLES_MAX
 * are kept.
 */
#pragma once

#include <stdint.h>

#include "engine/engine.h"
#include "engine/worker.h"

enum { METRICS_SAMPLES_MAX = 61 };

struct metrics_sample {
    struct mono_time at;
    uint64_t delivered, deferred, bounced, accepted;
};

struct metrics_state {
    struct metrics_sample samples[METRICS_SAMPLES_MAX];
    uint32_t samples_count; /* in all */
};

void metrics_sample(struct metrics_state *state, const struct engine *engine, struct mono_time now);
/* Prometheus text, names ramjet_<thing>_<unit>_total. */
void metrics_put_text(struct writer *writer, const struct engine *engine,
                      const struct metrics_state *state);
/* One JSON object; reports: one a worker. */
void metrics_put_status(struct writer *writer, const struct engine *engine,
                        const struct metrics_state *state, const struct worker_report *reports);
/* "1234/s delivered, 10 deferred ..." */
void metrics_put_line(struct writer *writer, const struct metrics_state *state);
