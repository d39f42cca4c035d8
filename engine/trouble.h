/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trouble: what the disk does to the engine, and what it runs out of, in words for people: which
 * file, what happened, what to do. Control prints them on standard error.
 *
 * Owner: control; reads the other actors' counters. Nothing fails, nothing is allocated.
 */
#pragma once

#include "engine/engine.h"

/* What was told last, so that each thing is told when it begins and when it ends. */
struct trouble {
    bool is_short_of_space;
    bool has_results_waiting;
    bool has_results_held;
    bool has_results_unread;
    bool has_told_log;
    uint64_t log_failures;
    uint64_t log_removals;
    uint64_t batches_held;
    bool has_told_sites;
    uint64_t sites_unserved;
    struct mono_time sites_again_at;
    struct mono_time log_again_at; /* lines that are lost are told once a minute */
};

/* Why the engine stops itself: one line with its end. */
void trouble_put_stop(struct writer *writer, const struct engine *engine);
/* What has begun or ended since the last look: a line each; nothing: nothing is put. */
void trouble_put_news(struct trouble *trouble, struct writer *writer, const struct engine *engine,
                      struct mono_time now);
