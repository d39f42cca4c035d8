/* SPDX-License-Identifier: Apache-2.0 */
/* The worker and those who wait for their domain's answer: whose time is over leaves soon, whoever
 * stands in front of him. */
#include <stdio.h>
#include <string.h>

#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

enum { DAY_MS = 86400 * 1000, ASKED = WORKER_QUERIES_MAX - WORKER_QUERIES_OF_LANES };

/* All queries are away: who comes now waits for one. Returns the batch of those who hold them. */
static struct rig *crowded_rig(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->domains_max = ASKED + 64;
    rig->config->dns_questions_max = ASKED;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < ASKED; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "d%u.example", (unsigned)i);
        rig_add_many(rig, batch, name, 1);
    }
    rig->is_resolver_held = true;
    rig_deal(rig, batch, 0);
    rig_settle(rig);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), ASKED);
    CU_ASSERT(slab_left(&rig->workers[0]->queries) <= WORKER_QUERIES_OF_LANES);
    return rig;
}

static uint32_t add_batch(struct rig *rig, const char *json, uint32_t count)
{
    uint32_t batch = rig_batch_merge(rig, LETTER, json);
    rig_add_many(rig, batch, "wait.example", count);
    rig_deal(rig, batch, 0);
    rig_settle(rig);
    return batch;
}

/* The first who waits on a domain is not over; those behind him are. */
static void test_a_cancel_passes_who_stands_in_front(void)
{
    struct rig *rig = crowded_rig();
    (void)add_batch(rig, "", 3);
    uint32_t cancelled = add_batch(rig, "", 5000);
    (void)add_batch(rig, "", 3);
    rig_run(rig, 5000);
    rig_order(rig, cancelled, BATCH_CANCELLED);
    CU_ASSERT(rig_run_until_returned(rig, 5000, 2000));
    rig_run(rig, 120000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), 5000);
    CU_ASSERT_EQUAL(rig->entries_count, 5000);
    rig_mx_put(rig, "wait.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 5006, 60000));
    CU_ASSERT_EQUAL(rig->rcpts, 6);
    rig_destroy(rig);
}

/* The domain was asked for, and its answer takes long. */
static void test_a_cancel_waits_for_no_answer(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig_start(rig);
    rig->is_resolver_held = true;
    (void)add_batch(rig, "", 3);
    uint32_t cancelled = add_batch(rig, "", 3000);
    rig_order(rig, cancelled, BATCH_CANCELLED);
    CU_ASSERT(rig_run_until_returned(rig, 3000, 2000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), 3000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 3);
    rig_mx_put(rig, "wait.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 3003, 60000));
    CU_ASSERT_EQUAL(rig->queries_count, 1);
    rig_destroy(rig);
}

static void test_an_expiry_passes_who_stands_in_front(void)
{
    struct rig *rig = crowded_rig();
    (void)add_batch(rig, "", 3);
    /* The rig's clock begins at 2027-01-15T08:00:00Z. */
    (void)add_batch(rig, ",\"expires\":\"2027-01-15T08:10:00Z\"", 5000);
    (void)add_batch(rig, "", 3);
    rig_run(rig, 590 * 1000);
    CU_ASSERT_EQUAL(rig->returned, 0);
    CU_ASSERT(rig_run_until_returned(rig, 5000, 90 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_EXPIRED), 5000);
    rig_destroy(rig);
}

/* A look around moves nobody who has nowhere to go, and costs a few of a domain, not all of it. The
 * only site stays: it owes to its rate. Those who wait for one are put off in the end. */
static void test_a_look_around_is_short(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->routes[0].rate_per_hour = 1;
    rig->config->routes[0].rate_burst = 1;
    rig->config->sites_max = 1;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    rig_mx_put(rig, "first.example", MX_OK, "mx.first.example", &rig->server_addr, DAY_MS);
    rig_mx_put(rig, "late.example", MX_OK, "mx.late.example", &rig->server_addr, DAY_MS);
    rig_add_many(rig, batch, "first.example", 1);
    rig_add_many(rig, batch, "late.example", 100000);
    rig_deal(rig, batch, 0);
    rig_run(rig, 2500);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 100000);
    struct worker *worker = rig->workers[0];
    uint64_t steps = stat_read_xcore(&worker->stats.steps);
    rig_run(rig, 5000);
    CU_ASSERT(stat_read_xcore(&worker->stats.steps) - steps < 100);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 100000);
    rig_run(rig, 5000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 100000);
    CU_ASSERT_EQUAL(rig->rcpts, 1);
    rig_destroy(rig);
}

/* Many wait on one domain, and their look around is long: an answer for another is not behind it.
 */
static void test_domains_are_released_in_turn(void)
{
    struct rig *rig = crowded_rig();
    (void)add_batch(rig, "", 200000);
    struct worker *worker = rig->workers[0];
    rig_mx_put(rig, "d7.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig_run(rig, 61000);
    worker->rehouse_whole_at = clock_mono(&rig->clock.clock); /* a look around begins */
    struct mono_time now = clock_mono(&rig->clock.clock);
    (void)worker_domain_rehouse_step(worker, now);
    CU_ASSERT(worker->release_first != 0);
    rig->is_resolver_held = false;
    uint64_t steps = stat_read_xcore(&worker->stats.steps);
    CU_ASSERT(rig_run_until_returned(rig, 1, 10));
    CU_ASSERT(stat_read_xcore(&worker->stats.steps) - steps < 150);
    rig_destroy(rig);
}

/* One query comes back, in the order in which they were asked: its name could not be resolved. */
static void answer_one(struct rig *rig)
{
    struct inbox_node *node = inbox_take(&rig->resolver.queries);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    inbox_push_xcore(CONTAINER_OF(node, struct mx_query, node)->reply_to, node);
    rig_settle(rig);
}

/* Names that cannot be resolved, and one behind them that can: it waits for a few of them, not for
 * all. And of them, the one that came first is not passed by all others. */
static void test_dead_names_hold_up_no_other(void)
{
    enum { DEAD = 5000 };
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->domains_max = DEAD + 64;
    rig_start(rig);
    uint32_t dead = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < DEAD; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "d%u.example", (unsigned)i);
        rig_add_many(rig, dead, name, 1);
    }
    rig->is_resolver_held = true;
    rig_deal(rig, dead, 0);
    rig_settle(rig);
    uint32_t asked = rig->workers[0]->queries.count_out;
    CU_ASSERT_EQUAL(asked, rig->config->dns_questions_max);
    (void)add_batch(rig, "", 3);
    rig_mx_put(rig, "wait.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    for (uint32_t i = 0; i < asked + 4; i++) {
        answer_one(rig);
    }
    CU_ASSERT(rig_run_until_returned(rig, 3, 1000));
    CU_ASSERT_EQUAL(rig->rcpts, 3);
    for (uint32_t i = 0; i < asked; i++) {
        answer_one(rig);
    }
    rig_run(rig, 100);
    bool is_settled[DEAD] = {false};
    for (uint32_t i = 0; i < rig->entries_count; i++) {
        if (rig->entries[i].batch == dead) {
            is_settled[rig->entries[i].ordinal] = true;
        }
    }
    for (uint32_t i = 0; i < asked + asked / 2 - 4; i++) {
        CHECK_ROW(i, is_settled[i]);
    }
    rig->is_resolver_held = false;
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), DEAD);
    rig_destroy(rig);
}

/* However many workers there are: what they have asked is under way, not in a queue behind dead
 * names. */
static void test_workers_ask_no_more_than_can_be_asked(void)
{
    enum { WORKERS = 8, EACH = 500 };
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->workers_count = WORKERS;
    rig->config->domains_max = WORKERS * EACH + 64;
    rig_start(rig);
    rig->is_resolver_held = true;
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    for (uint32_t i = 0; i < WORKERS * EACH; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "d%u.example", (unsigned)i);
        rig_add_many(rig, batch, name, 1);
        rig_deal(rig, batch, i % WORKERS);
    }
    rig_settle(rig);
    uint32_t asked = 0;
    for (uint32_t i = 0; i < WORKERS; i++) {
        asked += rig->workers[i]->queries.count_out;
    }
    CU_ASSERT_EQUAL(asked, rig->config->dns_questions_max);
    rig->is_resolver_held = false;
    rig_run(rig, 5000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), WORKERS * EACH);
    rig_destroy(rig);
}

SUITE(worker_domains, test_a_cancel_passes_who_stands_in_front, test_a_cancel_waits_for_no_answer,
      test_an_expiry_passes_who_stands_in_front, test_a_look_around_is_short,
      test_domains_are_released_in_turn, test_dead_names_hold_up_no_other,
      test_workers_ask_no_more_than_can_be_asked)
