/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes that wait for something of their worker: who is called when it comes back, how long others
 * may keep it, and what was not sent for want of it costs nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { DAY_MS = 86400 * 1000, HOUR_MS = 3600 * 1000, LARGE = 1200000 };

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

static bool is_of(struct span line, const char *words)
{
    char text[RIG_LINE_MAX + 1];
    memcpy(text, line.at, line.size);
    text[line.size] = '\0';
    return strstr(text, words) != NULL;
}

/* Without 8BITMIME. A domain with "slow" in its name is silent at the moment of the context. */
static const char *old_server(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    enum rig_moment silent = *(const enum rig_moment *)conn->rig->context;
    if (moment == RIG_EHLO) {
        return "250 sink.example\r\n";
    }
    if (moment == RIG_RCPT) {
        conn->is_other = is_of(line, "slow");
    }
    return moment == silent && conn->is_other ? "" : NULL;
}

static struct rig *wants_rig(const enum rig_moment *silent)
{
    struct rig *rig = rig_create();
    struct config_route *route = &rig->config->routes[0];
    route->hosts_count = 0;
    route->timeouts.rcpt_ms = 10 * HOUR_MS;
    route->timeouts.end_of_data_ms = 10 * HOUR_MS;
    rig->on_moment = old_server;
    rig->context = (void *)(uintptr_t)silent;
    return rig;
}

/* 8-bit text that takes one of the largest bufs when it is encoded. */
static uint32_t large_batch(struct rig *rig)
{
    char *text = malloc(LARGE + 512);
    ensure(text != NULL);
    struct writer writer = writer_of(text, LARGE + 511);
    writer_put(&writer, SPAN("From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n"
                             "Content-Type: text/plain; charset=utf-8\n"
                             "Content-Transfer-Encoding: 8bit\n\n"));
    while (writer_size(&writer) < LARGE) {
        writer_put(&writer, SPAN("\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\n"));
    }
    *writer.at = '\0';
    uint32_t batch = rig_batch_merge(rig, text, "");
    free(text);
    return batch;
}

static void add_to_own_site(struct rig *rig, uint32_t batch, const char *domain)
{
    char host[64];
    (void)snprintf(host, sizeof(host), "mx.%s", domain);
    rig_mx_put(rig, domain, MX_OK, host, &rig->server_addr, INT64_C(30) * DAY_MS);
    rig_add_many(rig, batch, domain, 1);
    rig_deal(rig, batch, 0);
}

/* Two servers that drip have a large message each. */
static struct rig *dripping_rig(const enum rig_moment *silent, uint32_t *ret_batch)
{
    struct rig *rig = wants_rig(silent);
    rig_start(rig);
    *ret_batch = large_batch(rig);
    add_to_own_site(rig, *ret_batch, "slow1.example");
    add_to_own_site(rig, *ret_batch, "slow2.example");
    return rig;
}

/* Two servers that drip have all there is of the largest bufs; they lose them to others who wait,
 * in minutes, and say why. */
static void test_the_slow_make_room_for_others(void)
{
    const enum rig_moment silent = RIG_RCPT;
    uint32_t batch;
    struct rig *rig = dripping_rig(&silent, &batch);
    rig_run(rig, HOUR_MS); /* nobody waits */
    CU_ASSERT_EQUAL(rig->workers[0]->bufs[COMPOSE_BUF_CLASSES - 1].count_out, 2);
    CU_ASSERT_EQUAL(rig->entries_count, 0);
    add_to_own_site(rig, batch, "fast.example");
    CU_ASSERT(rig_run_until_returned(rig, 1, 5000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 1);
    CU_ASSERT(rig_entries_of(rig, JOURNAL_DEFERRED) >= 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig->entries[0].line, "too slow while others wait"));
    CU_ASSERT(!rig->entries[0].is_ambiguous);
    rig_destroy(rig);
}

/* Who has just begun has his time. */
static void test_who_has_just_begun_has_his_time(void)
{
    const enum rig_moment silent = RIG_RCPT;
    uint32_t batch;
    struct rig *rig = dripping_rig(&silent, &batch);
    rig_run(rig, 1000);
    add_to_own_site(rig, batch, "fast.example");
    rig_run(rig, 60 * 1000);
    CU_ASSERT_EQUAL(rig->entries_count, 0);
    CU_ASSERT(rig_run_until_returned(rig, 1, 120 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 1);
    rig_destroy(rig);
}

/* Nothing of a body is kept while its answer is awaited. */
static void test_an_answer_is_awaited_without_a_body(void)
{
    const enum rig_moment silent = RIG_DOT;
    uint32_t batch;
    struct rig *rig = dripping_rig(&silent, &batch);
    rig_run(rig, 30 * 1000);
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_FLIGHT), 2);
    for (size_t class = 0; class < COMPOSE_BUF_CLASSES; class ++) {
        CHECK_ROW(class, rig->workers[0]->bufs[class].count_out == 0);
    }
    CU_ASSERT_EQUAL(rig->workers[0]->plans.count_out, 0);
    add_to_own_site(rig, batch, "fast.example");
    CU_ASSERT(rig_run_until_returned(rig, 1, 30 * 1000));
    CU_ASSERT_EQUAL(rig->entries_count, 1);
    rig_destroy(rig);
}

static void take_wholes(struct rig *rig, void **ret_bufs)
{
    for (size_t i = 0; i < WORKER_BUFS_WHOLE; i++) {
        ret_bufs[i] = slab_take(&rig->workers[0]->bufs[COMPOSE_BUF_CLASSES - 1]);
        ensure(ret_bufs[i] != NULL);
    }
}

static void give_wholes(struct rig *rig, void *const *bufs)
{
    for (size_t i = 0; i < WORKER_BUFS_WHOLE; i++) {
        worker_give(rig->workers[0], &rig->workers[0]->bufs[COMPOSE_BUF_CLASSES - 1], bufs[i]);
    }
}

static bool is_settled(const struct rig *rig, uint32_t batch)
{
    for (uint32_t i = 0; i < rig->entries_count; i++) {
        if (rig->entries[i].batch == batch) {
            return true;
        }
    }
    return false;
}

/* A message an hour, and one that finds no memory at first. */
static void test_what_is_not_sent_is_not_paid_for(void)
{
    const enum rig_moment silent = RIG_OTHER;
    struct rig *rig = wants_rig(&silent);
    rig->config->routes[0].rate_per_hour = 1;
    rig->config->routes[0].rate_burst = 1;
    rig_start(rig);
    uint32_t batch = large_batch(rig);
    void *bufs[WORKER_BUFS_WHOLE];
    take_wholes(rig, bufs);
    add_to_own_site(rig, batch, "fast.example");
    rig_run(rig, 10 * 1000);
    CU_ASSERT_EQUAL(rig->entries_count, 0);
    give_wholes(rig, bufs);
    CU_ASSERT(rig_run_until_returned(rig, 1, 10 * 1000));
    rig_destroy(rig);
}

/* Bytes that are read ahead again and again, and connections that are opened and left, are no way
 * to wait. */
static void test_who_waits_for_memory_is_quiet(void)
{
    const enum rig_moment silent = RIG_OTHER;
    struct rig *rig = wants_rig(&silent);
    rig_start(rig);
    uint32_t batch = large_batch(rig);
    void *bufs[WORKER_BUFS_WHOLE];
    take_wholes(rig, bufs);
    rig_mx_put(rig, "fast.example", MX_OK, "mx.fast.example", &rig->server_addr, DAY_MS);
    rig_add_many(rig, batch, "fast.example", 10);
    rig_deal(rig, batch, 0);
    rig_run(rig, 60 * 1000);
    uint32_t asked = rig->loads_asked;
    rig_run(rig, 60 * 1000);
    CU_ASSERT(rig->loads_asked - asked < 50);
    CU_ASSERT(stat_read_xcore(&rig->workers[0]->stats.sessions_opened) < 10);
    give_wholes(rig, bufs);
    CU_ASSERT(rig_run_until_returned(rig, 10, 60 * 1000));
    rig_destroy(rig);
}

/* All sessions end in one step, more than are looked at in one, while something else is long gone.
 * Those who wait for a session come to one all the same, without anything that would bring them
 * back. */
static void test_what_is_gone_holds_up_no_others(void)
{
    enum { SESSIONS = 300 };
    static const struct sim_net_config even = {
        .seed = 5,
        .delay_min_ns = NS_PER_MS,
        .delay_max_ns = NS_PER_MS,
    };
    const enum rig_moment silent = RIG_RCPT;
    struct rig *rig = wants_rig(&silent);
    sim_net_config_set(rig->net, &even);
    rig->config->routes[0].timeouts.rcpt_ms = HOUR_MS;
    rig->config->sessions_max = SESSIONS;
    rig->config->sites_max = 1024;
    rig_start(rig);
    void *bufs[WORKER_BUFS_WHOLE];
    take_wholes(rig, bufs);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    char domain[32];
    for (uint32_t i = 0; i < SESSIONS; i++) {
        (void)snprintf(domain, sizeof(domain), "slow%u.example", i);
        add_to_own_site(rig, batch, domain);
    }
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_sessions(rig), SESSIONS);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        (void)snprintf(domain, sizeof(domain), "slow%u.other.example", i);
        add_to_own_site(rig, batch, domain);
    }
    rig_run(rig, 1000);
    for (struct list *link = rig->conns.next; link != &rig->conns; link = link->next) {
        (void)net_close(rig->server, CONTAINER_OF(link, struct rig_conn, link)->conn, true);
    }
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), SESSIONS);
    CU_ASSERT_EQUAL(rig_sessions(rig), SESSIONS);
    give_wholes(rig, bufs);
    rig_destroy(rig);
}

/* One large message waits for memory that is long gone; what comes behind it for the same site does
 * not, and the large one goes when its memory is back, whatever comes for the site meanwhile. */
static void test_who_waits_for_memory_holds_up_no_small_mail(void)
{
    const enum rig_moment silent = RIG_OTHER;
    for (uint32_t max = 1; max <= 4; max++) {
        struct rig *rig = wants_rig(&silent);
        rig->config->routes[0].connections_max = max;
        rig_start(rig);
        uint32_t large = large_batch(rig);
        uint32_t small = rig_batch_merge(rig, LETTER, "");
        void *bufs[WORKER_BUFS_WHOLE];
        take_wholes(rig, bufs);
        add_to_own_site(rig, large, "fast.example");
        rig_run(rig, 1000);
        rig_add_many(rig, small, "fast.example", 100);
        rig_deal(rig, small, 0);
        CHECK_ROW(max, rig_run_until_returned(rig, 100, 10 * 60 * 1000));
        CHECK_ROW(max, rig_place(rig, PLACE_FLIGHT) == 0);
        rig_add_many(rig, small, "fast.example", 3000);
        rig_deal(rig, small, 0);
        give_wholes(rig, bufs);
        while (rig->returned < 3000 && !is_settled(rig, large)) {
            rig_run(rig, 10);
        }
        CHECK_ROW(max, rig->returned < 2000);
        rig_destroy(rig);
    }
}

SUITE(worker_wants, test_the_slow_make_room_for_others, test_who_has_just_begun_has_his_time,
      test_an_answer_is_awaited_without_a_body, test_what_is_not_sent_is_not_paid_for,
      test_who_waits_for_memory_is_quiet, test_what_is_gone_holds_up_no_others,
      test_who_waits_for_memory_holds_up_no_small_mail)
