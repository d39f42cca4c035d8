/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_rates.h"

#include <stdlib.h>

static const int64_t HOUR_NS = 3600 * NS_PER_S;

struct begun {
    uint32_t site;
    uint32_t life;
    uint32_t rcpts_count;
    int64_t at_ns;
};

/* Number of the start of the engine before this time; 0: not known. */
static uint32_t life_at(const struct sim_engine *sim, int64_t at_ns)
{
    uint32_t life = 0;
    while (life < sim->boots && sim->boots_ns[life] < at_ns) {
        life++;
    }
    return life < sim->boots && sim->boots_ns[life] == at_ns ? 0 : life;
}

/* Of those that began at one time the largest may have been the last: this way round all are legal
 * when they are in any. */
static int compare(const void *left, const void *right)
{
    const struct begun *a = left;
    const struct begun *b = right;
    if (a->site != b->site) {
        return a->site < b->site ? -1 : 1;
    }
    if (a->at_ns != b->at_ns) {
        return a->at_ns < b->at_ns ? -1 : 1;
    }
    return (a->rcpts_count > b->rcpts_count) - (a->rcpts_count < b->rcpts_count);
}

static void judge(const struct sim_engine *sim, const struct config_route *route,
                  const struct begun *rows, size_t count)
{
    int64_t interval_ns = HOUR_NS / (int64_t)route->rate_per_hour;
    int64_t tolerance_ns = interval_ns * (route->rate_burst - 1);
    int64_t arrival_ns = 0;
    for (size_t i = 0; i < count; i++) {
        const struct begun *row = &rows[i];
        bool is_first = i == 0 || row->site != rows[i - 1].site || row->life != rows[i - 1].life;
        if (is_first || arrival_ns < row->at_ns) {
            arrival_ns = row->at_ns;
        }
        if (arrival_ns - row->at_ns > tolerance_ns) {
            sim_violation(sim,
                          "a site has got more than %llu messages an hour, burst %u: %u began at "
                          "%.6f s, %.6f s before they might",
                          (unsigned long long)route->rate_per_hour, route->rate_burst,
                          row->rcpts_count, (double)row->at_ns / (double)NS_PER_S,
                          (double)(arrival_ns - row->at_ns - tolerance_ns) / (double)NS_PER_S);
        }
        arrival_ns += interval_ns * row->rcpts_count;
    }
}

void sim_rates_check(const struct sim_engine *sim, const struct config_route *route,
                     uint32_t (*site_of)(void *context, struct span domain), void *context)
{
    if (route->rate_per_hour == 0) {
        return;
    }
    size_t count;
    const struct sim_transaction *all = sim_peers_transactions(sim->peers, &count);
    struct begun *rows = calloc(count + 1, sizeof(*rows));
    ensure(rows != NULL);
    size_t known_count = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t life = all[i].asked_ns < 0 ? 0 : life_at(sim, all[i].asked_ns);
        uint32_t site = site_of(context, span_of_text(all[i].domain));
        if (life > 0 && site != SIM_RATES_NO_SITE) {
            rows[known_count++] = (struct begun){
                .site = site,
                .life = life,
                .rcpts_count = all[i].rcpts_count,
                .at_ns = all[i].asked_ns,
            };
        }
    }
    qsort(rows, known_count, sizeof(*rows), compare);
    judge(sim, route, rows, known_count);
    free(rows);
}
