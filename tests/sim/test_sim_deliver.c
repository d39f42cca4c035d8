/* SPDX-License-Identifier: Apache-2.0 */
/* What an engine does when the world is well: from the spool to settled. */
#include <stdio.h>

#include "tests/harness.h"
#include "tests/sim/sim_book.h"

static struct sim_engine *world(void)
{
    const struct sim_engine_config config = {
        .seed = 1,
        .net = {.delay_min_ns = 5 * NS_PER_MS, .delay_max_ns = 20 * NS_PER_MS},
        .dns = {.delay_min_ns = NS_PER_MS, .delay_max_ns = 30 * NS_PER_MS, .timeout_ns = NS_PER_S},
        .disk_delay_max_ns = NS_PER_MS,
        .lazy_max_ns = 60 * NS_PER_S,
        .is_traced = getenv("SIM_TRACE") != NULL,
    };
    struct sim_engine *sim = sim_engine_create(&config);
    (void)sim_peers_add(sim->peers, "20.0.0.1");
    sim_dns_add(sim->dns, "one.example", DNS_MX, 300, "10 mx.one.example");
    sim_dns_add(sim->dns, "mx.one.example", DNS_A, 300, "20.0.0.1");
    CU_ASSERT_EQUAL_FATAL(sim_engine_boot(sim), 0);
    return sim;
}

static void test_one_message(void)
{
    struct sim_engine *sim = world();
    struct sim_book book;
    sim_book_init(&book, sim);
    (void)sim_book_submit_simple(&book, "one", 1, NULL, "one.example", SIM_DELIVERED);
    CU_ASSERT(sim_engine_run_until(sim, sim_engine_is_idle, 600 * NS_PER_S));
    sim_book_settle_up(&book);
    CU_ASSERT_EQUAL(sim_book_entry(&book, 0, 0)->deliveries, 1);
    CU_ASSERT_EQUAL(book.totals.delivered, 1);
    sim_book_deinit(&book);
    sim_engine_destroy(sim);
}

SUITE(sim_deliver, test_one_message)
