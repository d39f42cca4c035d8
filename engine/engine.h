/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine: what all actors of one engine share (DESIGN 2), in one place. Made by boot.c (or the
 * simulator), constant while actors run; what the pointers lead to has the owners that its own
 * header names.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dns/mx_cache.h"
#include "engine/base/clock.h"
#include "engine/base/inbox.h"
#include "engine/base/slab.h"
#include "engine/config.h"
#include "engine/site.h"
#include "queue/batch.h"
#include "queue/domain.h"
#include "queue/retry.h"

struct worker;
struct intake;
struct journal;
struct resolver;

struct engine {
    const struct config *config;
    const struct clock *clock;
    int64_t steady_ahead_ns; /* engine/steady.h */
    uint64_t secret;         /* keys hash tables; per start */

    struct batch *batches; /* table of config->batches_max slots; by recipient->batch */
    struct domain_table *domains;
    struct retry_wheel *retry;
    struct mx_cache *mx_cache;
    struct site_table *sites;
    struct limit *source_limits; /* by index of config->sources */

    struct worker **workers;
    uint32_t workers_count;
    struct intake *intake;
    struct journal *journal;
    struct resolver *resolver;

    /* Any actor may set it once: the engine cannot go on (the journal has failed); control stops
     * the process. */
    struct stat_counter must_stop;
    /* Set by control: no new transactions; sessions end; what is past the end of data is waited
     * for. */
    struct stat_counter is_draining;
};
