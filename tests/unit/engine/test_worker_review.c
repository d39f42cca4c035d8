/* SPDX-License-Identifier: Apache-2.0 */
/* The worker and mail that waits in a lane for long, while domains move: it goes where its domain
 * leads by then; who stays keeps his turn. */
#include <stdio.h>
#include <string.h>

#include "dns/mx_cache_writer.h"
#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

enum { MINUTE_MS = 60 * 1000, DAY_MS = 1440 * MINUTE_MS, TTL_MS = 5 * MINUTE_MS };

/* One message a minute for a site; expired answers are kept for `stale_s`. */
static struct rig *slow_rig(uint32_t stale_s)
{
    struct rig *rig = rig_create();
    struct config_route *route = &rig->config->routes[0];
    route->hosts_count = 0;
    route->rate_per_hour = 60;
    route->rate_burst = 1;
    rig_start(rig);
    int error = 0;
    mx_cache_destroy(rig->mx_cache);
    rig->engine.mx_cache = rig->mx_cache = mx_cache_create(4096, stale_s, 1, &error);
    ensure(rig->mx_cache != NULL);
    return rig;
}

static void put(struct rig *rig, const char *domain, bool is_other, int64_t ttl_ms)
{
    rig_mx_put(rig, domain, MX_OK, is_other ? "mx.other.example" : "mx.host.example",
               is_other ? &rig->other_addr : &rig->server_addr, ttl_ms);
}

static uint32_t add_two_domains(struct rig *rig)
{
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    put(rig, "stays.example", false, DAY_MS);
    put(rig, "moves.example", false, TTL_MS);
    rig_add_many(rig, batch, "stays.example", 100);
    rig_add_many(rig, batch, "moves.example", 100);
    rig_deal(rig, batch, 0);
    return batch;
}

/* The answer ends while the mail waits; a new one is there already. */
static void test_mail_follows_its_domain(void)
{
    struct rig *rig = slow_rig(0);
    (void)add_two_domains(rig);
    rig_run(rig, 2 * MINUTE_MS);
    put(rig, "moves.example", true, DAY_MS);
    rig_run(rig, 11 * MINUTE_MS);
    CU_ASSERT(rig->other_messages >= 1);
    CU_ASSERT(rig_run_until_returned(rig, 200, 110 * MINUTE_MS));
    CU_ASSERT_EQUAL(rig->other_messages, 100);
    CU_ASSERT_EQUAL(rig->messages, 200);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 200);
    rig_destroy(rig);
}

/* Nobody asks for the domain but the mail that waits: the review does, and the next one sees it. */
static void test_a_review_asks(void)
{
    for (uint32_t stale_s = 0; stale_s <= 86400; stale_s += 86400) {
        struct rig *rig = slow_rig(stale_s);
        (void)add_two_domains(rig);
        rig->is_resolver_held = true;
        rig_run(rig, 10 * MINUTE_MS + 1000);
        CU_ASSERT(slab_left(&rig->workers[0]->queries) == WORKER_QUERIES_MAX - 1);
        CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), stale_s == 0 ? 100 : 0);
        put(rig, "moves.example", true, DAY_MS);
        rig->is_resolver_held = false;
        rig_run(rig, 2 * MINUTE_MS);
        CU_ASSERT(rig->other_messages >= 1);
        CU_ASSERT(rig_run_until_returned(rig, 200, 110 * MINUTE_MS));
        CU_ASSERT_EQUAL(rig->other_messages, 100);
        CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 200);
        CU_ASSERT_EQUAL(rig->queries_count, 1);
        rig_destroy(rig);
    }
}

/* A domain that is gone: its mail bounces, the other goes on. */
static void test_mail_of_a_domain_that_ended(void)
{
    struct rig *rig = slow_rig(0);
    (void)add_two_domains(rig);
    rig_run(rig, 2 * MINUTE_MS);
    rig_mx_put(rig, "moves.example", MX_NO_DOMAIN, NULL, NULL, DAY_MS);
    rig_run(rig, 10 * MINUTE_MS);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 100);
    CU_ASSERT(rig_run_until_returned(rig, 200, 110 * MINUTE_MS));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 100);
    CU_ASSERT_EQUAL(rig->messages, 100);
    rig_destroy(rig);
}

/* More than a step's worth, through five reviews: each keeps his turn, and none is sent twice. */
static void test_a_review_changes_no_order(void)
{
    struct rig *rig = slow_rig(86400);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    put(rig, "stays.example", false, TTL_MS);
    rig_add_many(rig, batch, "stays.example", 20000);
    rig_deal(rig, batch, 0);
    rig_run(rig, 40 * MINUTE_MS);
    CU_ASSERT(rig->entries_count >= 40);
    for (uint32_t i = 0; i < rig->entries_count; i++) {
        CHECK_ROW(i, rig->entries[i].ordinal == i);
    }
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    rig_destroy(rig);
}

/* Many domains wait at one site, and all answers are out of date: each is asked about once or twice
 * in a review, and nobody leaves his place for it. */
static void test_a_review_is_no_storm(void)
{
    enum { DOMAINS = 1000 };
    struct rig *rig = slow_rig(86400);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < DOMAINS; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "d%u.example", (unsigned)i);
        put(rig, name, false, TTL_MS);
        rig_add_many(rig, batch, name, 2);
    }
    rig_deal(rig, batch, 0);
    rig_run(rig, 30 * MINUTE_MS);
    CU_ASSERT(rig->queries_count >= 2 * DOMAINS - 60);
    CU_ASSERT(rig->queries_count <= 6 * DOMAINS);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    CU_ASSERT(rig->entries_count >= 29);
    CU_ASSERT(stat_read_xcore(&rig->workers[0]->stats.steps) < 20000);
    CU_ASSERT(stat_read_xcore(&rig->workers[0]->stats.sessions_opened) <= 40);
    rig_destroy(rig);
}

static void test_a_resume_is_a_review(void)
{
    struct rig *rig = slow_rig(0);
    uint32_t batch = add_two_domains(rig);
    rig_run(rig, 1000);
    rig_order(rig, batch, BATCH_PAUSED);
    rig_run(rig, 30 * MINUTE_MS);
    put(rig, "moves.example", true, DAY_MS);
    uint64_t before = rig->messages;
    rig_order(rig, batch, 0);
    rig_run(rig, 30 * 1000);
    CU_ASSERT(rig->other_messages >= 1);
    CU_ASSERT(rig->messages > before);
    CU_ASSERT(rig_run_until_returned(rig, 200, 110 * MINUTE_MS));
    CU_ASSERT(rig->other_messages >= 98);
    CU_ASSERT_EQUAL(rig->messages, 200);
    rig_destroy(rig);
}

/* A cancel finds those who are being looked at. */
static void test_a_cancel_in_a_review(void)
{
    for (uint32_t row = 0; row < 2; row++) {
        struct rig *rig = slow_rig(0);
        uint32_t batch = rig_batch_merge(rig, LETTER, "");
        put(rig, "stays.example", false, DAY_MS);
        rig_add_many(rig, batch, "stays.example", 60000);
        rig_deal(rig, batch, 0);
        rig_run(rig, 1000);
        struct worker *worker = rig->workers[0];
        struct lane *lane = CONTAINER_OF(worker->lanes_all.prev, struct lane, link);
        CU_ASSERT_PTR_NOT_NULL_FATAL(lane->site);
        lane->review_at = worker->now;
        lane_mark_dirty(lane);
        for (uint32_t i = 0; i < 1 + 4 * row; i++) {
            (void)worker->actor.step(&worker->actor, clock_mono(&rig->clock.clock));
        }
        CHECK_ROW(row, lane->reviewed.count > 0);
        CHECK_ROW(row, (lane->review_left > 0) == (row == 0));
        rig_order(rig, batch, BATCH_CANCELLED);
        CU_ASSERT(rig_run_until_returned(rig, 60000, MINUTE_MS));
        CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED) + rig->messages, 60000);
        rig_destroy(rig);
    }
}

SUITE(worker_review, test_mail_follows_its_domain, test_a_review_asks,
      test_mail_of_a_domain_that_ended, test_a_review_changes_no_order, test_a_review_is_no_storm,
      test_a_resume_is_a_review, test_a_cancel_in_a_review)
