/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for an answer of the name servers, and what becomes of it. */
#include <stdio.h>

#include "dns/mx_cache_writer.h"
#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { DAY_MS = 86400 * 1000 };

static struct rig *dns_rig(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->sources[0].connections_max = 1;
    rig_start(rig);
    return rig;
}

/* A lane looked its hosts up under the name of some domain that waited there. When that domain's
 * owner changed its MX meanwhile, the mail of all other domains of the site went to the new one. */
static void test_a_domain_that_moves_does_not_take_others_along(void)
{
    struct rig *rig = dns_rig();
    rig_mx_put(rig, "good.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig_mx_put(rig, "evil.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "good.example", 8);
    rig_add_many(rig, batch, "evil.example", 1); /* the first of the second load */
    rig_add_many(rig, batch, "good.example", 22);
    rig->is_intake_held = true;
    CU_ASSERT(limit_take_xcore(&rig->engine.source_limits[0])); /* no connection yet */
    rig_deal(rig, batch, 0);
    rig_run(rig, 100);
    rig_mx_put(rig, "evil.example", MX_OK, "mx.evil.example", &rig->other_addr, DAY_MS);
    limit_give_xcore(&rig->engine.source_limits[0]);
    rig->is_intake_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 31, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 31);
    CU_ASSERT(rig->other_messages <= 1);
    rig_run(rig, 10000);
    rig_check_quiet(rig);
    rig_destroy(rig);
}

static void test_domains_that_moved_are_placed_anew(void)
{
    struct rig *rig = dns_rig();
    rig_mx_put(rig, "moved.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig_mx_put(rig, "dead.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "moved.example", 30);
    rig_add_many(rig, batch, "dead.example", 2);
    rig->is_intake_held = true;
    CU_ASSERT(limit_take_xcore(&rig->engine.source_limits[0])); /* no connection yet */
    rig_deal(rig, batch, 0);
    rig_run(rig, 100);
    rig_mx_put(rig, "moved.example", MX_OK, "mx.other.example", &rig->other_addr, DAY_MS);
    rig_mx_put(rig, "dead.example", MX_NO_DOMAIN, NULL, NULL, DAY_MS);
    limit_give_xcore(&rig->engine.source_limits[0]);
    rig->is_intake_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 32, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 30);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 2);
    CU_ASSERT_EQUAL(rig->other_messages, 30);
    rig_run(rig, 10000);
    rig_check_quiet(rig);
    rig_destroy(rig);
}

/* It says that the domain takes no mail, and is gone before the record comes from a slow disk. */
static void test_an_answer_that_is_gone_still_decides(void)
{
    static const struct {
        int64_t wait_ms;
        uint8_t what;
    } ROWS[] = {{4000, JOURNAL_BOUNCED}, {70 * 1000, JOURNAL_DEFERRED}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = dns_rig();
        rig_mx_put(rig, "null.example", MX_NULL, NULL, NULL, 1000);
        uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
        rig_add_many(rig, batch, "null.example", 1);
        rig->is_intake_held = true;
        rig_deal(rig, batch, 0);
        rig_run(rig, ROWS[i].wait_ms);
        rig->is_intake_held = false;
        rig_run(rig, 1000);
        CU_ASSERT_EQUAL(rig->entries_count, 1);
        CU_ASSERT_EQUAL(rig_entries_of(rig, ROWS[i].what), 1);
        rig_destroy(rig);
    }
}

/* More than a step's worth waits for one answer. */
static void test_many_wait_for_one_answer(void)
{
    struct rig *rig = dns_rig();
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "slow.example", 5000);
    rig->is_resolver_held = true;
    rig_deal(rig, batch, 0);
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 5000);
    rig_mx_put(rig, "slow.example", MX_OK, "mx.host.example", &rig->server_addr, DAY_MS);
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 5000, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 5000);
    CU_ASSERT_EQUAL(rig->queries_count, 1);
    rig_destroy(rig);
}

static struct rig *many_domains_rig(uint32_t domains_count, uint32_t *ret_batch)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->domains_max = domains_count + 1;
    rig_start(rig);
    *ret_batch = rig_batch_merge(rig, RIG_LETTER, "");
    for (uint32_t i = 0; i < domains_count; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "d%u.example", (unsigned)i);
        rig_add_many(rig, *ret_batch, name, 1);
    }
    rig->is_resolver_held = true;
    rig_deal(rig, *ret_batch, 0);
    rig_settle(rig);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), domains_count);
    return rig;
}

/* More domains than queries: each that comes back serves the next one, and nobody waits for the
 * next look around. The answers are not kept: all are put off. */
static void test_queries_that_come_back_ask_for_more_domains(void)
{
    enum { DOMAINS = 5 * WORKER_QUERIES_MAX };
    uint32_t batch;
    struct rig *rig = many_domains_rig(DOMAINS, &batch);
    rig->is_resolver_held = false;
    rig_run(rig, 100);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), 0);
    CU_ASSERT_EQUAL(rig->queries_count, DOMAINS);
    rig_run(rig, 10000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), DOMAINS);
    rig_destroy(rig);
}

/* Who waits for a query that never comes is settled when the batch is cancelled. */
static void test_who_waits_for_a_query_is_cancelled(void)
{
    enum { DOMAINS = 2 * WORKER_QUERIES_MAX };
    uint32_t batch;
    struct rig *rig = many_domains_rig(DOMAINS, &batch);
    rig_run(rig, 3000);
    rig_order(rig, batch, BATCH_CANCELLED);
    uint32_t asked = WORKER_QUERIES_MAX - WORKER_QUERIES_OF_LANES;
    CU_ASSERT(rig_run_until_returned(rig, DOMAINS - asked, 10000));
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, DOMAINS, 10000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), DOMAINS);
    rig_check_quiet(rig);
    rig_destroy(rig);
}

/* No query is free to ask whether an expired answer still holds: it is waited for, since the name
 * servers do not fail. */
static void test_an_expired_answer_is_not_used_unasked(void)
{
    enum { DOMAINS = WORKER_QUERIES_MAX };
    uint32_t batch;
    struct rig *rig = many_domains_rig(DOMAINS, &batch);
    int error = 0;
    mx_cache_destroy(rig->mx_cache);
    rig->engine.mx_cache = rig->mx_cache = mx_cache_create(1024, 3600, 1, &error);
    ensure(rig->mx_cache != NULL);
    rig_mx_put(rig, "moved.example", MX_OK, "mx.host.example", &rig->server_addr, 1000);
    rig_run(rig, 2000);
    rig_add_many(rig, batch, "moved.example", 3);
    rig_deal(rig, batch, 0);
    rig_run(rig, 5000);
    CU_ASSERT_EQUAL(rig->messages, 0);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_DOMAIN), DOMAINS + 3);
    rig_mx_put(rig, "moved.example", MX_OK, "mx.other.example", &rig->other_addr, DAY_MS);
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, 3, 10000));
    CU_ASSERT_EQUAL(rig->other_messages, 3);
    rig_destroy(rig);
}

/* Those who waited for a query are gone: their domains leave the queue a part a step. */
static void test_domains_that_wait_for_nobody_leave_in_parts(void)
{
    enum { DOMAINS = 2 * WORKER_QUERIES_MAX };
    uint32_t batch;
    struct rig *rig = many_domains_rig(DOMAINS, &batch);
    struct worker *worker = rig->workers[0];
    rig_order(rig, batch, BATCH_CANCELLED);
    uint32_t asked = WORKER_QUERIES_MAX - WORKER_QUERIES_OF_LANES;
    CU_ASSERT(rig_run_until_returned(rig, DOMAINS - asked, 10000));
    struct mx_query *query =
        CONTAINER_OF(inbox_take(&rig->resolver.queries), struct mx_query, node);
    struct mx_query kept = *query;
    slab_give(&worker->queries, query);
    uint32_t steps = 1;
    while (worker_domain_ask_step(worker)) {
        steps++;
    }
    CU_ASSERT(steps > 2);
    CU_ASSERT_EQUAL(worker->wait_first, 0);
    ensure(slab_take(&worker->queries) == query);
    *query = kept;
    inbox_push_xcore(&rig->resolver.queries, &query->node);
    rig->is_resolver_held = false;
    CU_ASSERT(rig_run_until_returned(rig, DOMAINS, 10000));
    rig_check_quiet(rig);
    rig_destroy(rig);
}

/* An answer that the cache did not keep: a deferral, no asking for ever. */
static void test_an_answer_that_is_not_kept_is_temporary(void)
{
    struct rig *rig = dns_rig();
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "lost.example", 3000);
    rig_deal(rig, batch, 0);
    rig_run(rig, 60000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 3000);
    CU_ASSERT(rig->queries_count < 10);
    rig_destroy(rig);
}

SUITE(worker_names, test_a_domain_that_moves_does_not_take_others_along,
      test_domains_that_moved_are_placed_anew, test_an_answer_that_is_gone_still_decides,
      test_many_wait_for_one_answer, test_queries_that_come_back_ask_for_more_domains,
      test_who_waits_for_a_query_is_cancelled, test_an_expired_answer_is_not_used_unasked,
      test_domains_that_wait_for_nobody_leave_in_parts,
      test_an_answer_that_is_not_kept_is_temporary)
