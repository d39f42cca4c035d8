/* SPDX-License-Identifier: Apache-2.0 */
/* A worker whose table of sites is full. */
#include <stdio.h>

#include "dns/mx_cache_writer.h"
#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { DAY_MS = 86400 * 1000 };

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

/* Few sites at once, many one after the other: they come back while those before them linger. */
static void test_sites_come_back(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->sites_max = 2;
    rig->config->workers_count = 2;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < 40; i++) {
        char domain[32];
        char host[32];
        (void)snprintf(domain, sizeof(domain), "d%u.example", i);
        (void)snprintf(host, sizeof(host), "mx%u.example", i);
        rig_mx_put(rig, domain, MX_OK, host, &rig->server_addr, INT64_C(30) * DAY_MS);
        rig_add_many(rig, batch, domain, 10);
        rig_deal(rig, batch, i % 2);
        CHECK_ROW(i, rig_run_until_returned(rig, 10 * (i + 1), 7000));
    }
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 400);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 0);
    CU_ASSERT_EQUAL(site_table_unserved_xcore(rig->engine.sites), 0);
    rig_destroy(rig);
}

/* Both sites owe to their rate for hours, so no other comes in their place: the mail for others is
 * put off and says why, and is sent when one has been paid for. */
static void test_who_finds_no_site_is_put_off(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->routes[0].rate_per_hour = 10;
    rig->config->routes[0].rate_burst = 10;
    rig->config->routes[0].schedule.expire_s = 7 * 86400;
    rig->config->routes[0].schedule.ceiling_s = 600;
    rig->config->routes[0].schedule.first_s = 60;
    rig->config->sites_max = 2;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < 5; i++) {
        char domain[32];
        char host[32];
        (void)snprintf(domain, sizeof(domain), "d%u.example", i);
        (void)snprintf(host, sizeof(host), "mx%u.example", i);
        rig_mx_put(rig, domain, MX_OK, host, &rig->server_addr, INT64_C(30) * DAY_MS);
        rig_add_many(rig, batch, domain, 10);
    }
    rig_deal(rig, batch, 0);
    rig_run(rig, 30 * 1000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 20);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 30);
    CU_ASSERT_EQUAL(site_table_unserved_xcore(rig->engine.sites), 30);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    rig_run(rig, 3000 * 1000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 20);
    CU_ASSERT(rig_run_until_returned(rig, 50, 6 * 3600 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 50);
    rig_destroy(rig);
}

static uint32_t suspended_count(struct rig *rig)
{
    struct mono_time now = clock_mono(&rig->clock.clock);
    uint32_t count = 0;
    for (uint32_t i = 0; i < site_table_count_xcore(rig->engine.sites); i++) {
        count += site_suspended_until_xcore(site_at_xcore(rig->engine.sites, i), now).ns != 0;
    }
    return count;
}

/* An order to retry is for all sites, of which there may be very many: a step ends the rest of some
 * of them only, the order goes home when all of it has ended. */
static void test_a_retry_ends_all_rests_in_parts(void)
{
    enum { SITES = 30000 };
    struct rig *rig = rig_create();
    rig->config->sites_max = SITES;
    rig_start(rig);
    struct mono_time now = clock_mono(&rig->clock.clock);
    for (uint32_t i = 0; i < SITES; i++) {
        struct site *site = site_obtain_xcore(rig->engine.sites, i + 1, SPAN("site.example"),
                                              &rig->config->routes[0], now);
        ensure(site != NULL);
        site_suspend_xcore(site, now, &rig->workers[0]->random);
    }
    CU_ASSERT_EQUAL(suspended_count(rig), SITES);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    struct inbox back;
    inbox_init(&back, &rig->waker);
    struct worker_order order = {
        .reply_to = &back, .batch = &rig->batches[batch], .is_retry = true};
    struct actor *actor = &rig->workers[0]->actor;
    inbox_push_xcore(&rig->workers[0]->orders, &order.node);
    (void)actor->step(actor, now);
    CU_ASSERT(suspended_count(rig) < SITES);
    CU_ASSERT(suspended_count(rig) > SITES / 2);
    CU_ASSERT_PTR_NULL(inbox_take(&back));
    rig_settle(rig);
    CU_ASSERT_EQUAL(suspended_count(rig), 0);
    CU_ASSERT_PTR_EQUAL(inbox_take(&back), &order.node);
    rig_destroy(rig);
}

SUITE(worker_sites, test_a_retry_ends_all_rests_in_parts, test_sites_come_back,
      test_who_finds_no_site_is_put_off)
