/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/steady.h"

#include "engine/base/planted.h"
#include "engine/config.h"
#include "queue/batch.h"
#include "queue/manifest.h"
#include "queue/recipient.h"

/* Who waits for a moment of the wall clock is looked at so often whether it was set meanwhile. */
enum { LOOK_S = 600 };

static uint32_t wall_now_s(const struct engine *engine)
{
    return wall_seconds(clock_wall(engine->clock));
}

void steady_begin(struct engine *engine)
{
    engine->steady_ahead_ns = clock_wall(engine->clock).ns - clock_mono(engine->clock).ns;
}

uint32_t steady_now_s(const struct engine *engine)
{
    if (PLANTED(WAIT_BY_WALL)) {
        return wall_now_s(engine);
    }
    return wall_seconds(
        (struct wall_time){.ns = clock_mono(engine->clock).ns + engine->steady_ahead_ns});
}

uint32_t steady_of_wall_s(const struct engine *engine, uint64_t wall_s)
{
    int64_t second = (int64_t)steady_now_s(engine) + (int64_t)wall_s - wall_now_s(engine);
    second = second > 0 ? second : 0;
    return second < UINT32_MAX ? (uint32_t)second : UINT32_MAX;
}

/* What was accepted by an engine before this one was so by the wall clock, and may seem to be to
 * come. */
uint32_t steady_start_s(const struct engine *engine, const struct batch *batch, bool is_new)
{
    uint32_t now_s = steady_now_s(engine);
    uint32_t accepted_s = wall_seconds(batch->accepted_at);
    uint32_t start_s = is_new || accepted_s > now_s ? now_s : accepted_s;
    uint32_t not_before_s = wall_seconds(batch->manifest->not_before);
    uint32_t earliest_s = not_before_s == 0 ? 0 : steady_of_wall_s(engine, not_before_s);
    return earliest_s > start_s ? earliest_s : start_s;
}

static uint32_t wait_max_s(const struct config *config)
{
    uint32_t most_s = 0;
    for (uint32_t i = 0; i < config->routes_count; i++) {
        uint32_t ceiling_s = config->routes[i].schedule.ceiling_s;
        most_s = ceiling_s > most_s ? ceiling_s : most_s;
    }
    return most_s;
}

uint32_t steady_due_s(const struct engine *engine, const struct batch *batch,
                      const struct recipient *recipient)
{
    uint32_t now_s = steady_now_s(engine);
    if (recipient->attempts_count > 0) {
        uint32_t last_s = now_s + wait_max_s(engine->config);
        return recipient->due_s < last_s ? recipient->due_s : last_s;
    }
    uint32_t not_before_s = wall_seconds(batch->manifest->not_before);
    uint32_t wall_s = wall_now_s(engine);
    if (not_before_s <= wall_s) {
        return 0;
    }
    uint32_t left_s = not_before_s - wall_s;
    return now_s + (left_s < LOOK_S ? left_s : LOOK_S);
}
