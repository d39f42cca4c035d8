/* SPDX-License-Identifier: Apache-2.0 */
/* A site with a rate and many workers: how many connections are opened for it. */
#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

enum { WORKERS = 8, EACH = 8, HOUR_MS = 3600 * 1000 };

static uint64_t opened(const struct rig *rig)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < rig->engine.workers_count; i++) {
        count += stat_read_xcore(&rig->workers[i]->stats.sessions_opened);
    }
    return count;
}

/* A message a minute, and each of eight workers has some: no crowd of connections for each of
 * them, most of which would end without a message. */
static void test_a_rate_is_shared_by_few_connections(void)
{
    struct rig *rig = rig_create();
    rig->config->workers_count = WORKERS;
    rig->config->routes[0].rate_per_hour = 60;
    rig->config->routes[0].rate_burst = 1;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < WORKERS; i++) {
        rig_add_many(rig, batch, "example.org", EACH);
        rig_deal(rig, batch, i);
    }
    CU_ASSERT(rig_run_until_returned(rig, WORKERS * EACH, 2 * HOUR_MS));
    CU_ASSERT(opened(rig) <= WORKERS * EACH + WORKERS);
    CU_ASSERT(rig->conns_peak <= 2);
    rig_destroy(rig);
}

static const char *greet_late(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    bool *has_come = conn->rig->context;
    (void)line;
    if (moment != RIG_GREETING || *has_come) {
        return NULL;
    }
    *has_come = true;
    return "";
}

/* The connection that is on its way gets no greeting: the others do not wait for it. */
static void test_a_rate_is_not_left_to_who_hangs(void)
{
    bool has_come = false;
    struct rig *rig = rig_create();
    rig->config->workers_count = WORKERS;
    rig->config->routes[0].rate_per_hour = 60;
    rig->config->routes[0].rate_burst = 1;
    rig->on_moment = greet_late;
    rig->context = &has_come;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < WORKERS; i++) {
        rig_add_many(rig, batch, "example.org", 1);
        rig_deal(rig, batch, i);
    }
    CU_ASSERT(rig_run_until_returned(rig, 1, 3000));
    CU_ASSERT(has_come);
    CU_ASSERT(opened(rig) <= WORKERS);
    CU_ASSERT(rig_run_until_returned(rig, WORKERS, 2 * HOUR_MS));
    rig_destroy(rig);
}

SUITE(worker_rates, test_a_rate_is_shared_by_few_connections, test_a_rate_is_not_left_to_who_hangs)
