/* SPDX-License-Identifier: Apache-2.0 */
/* The worker and a site's hosts: which are asked, which are left out, and what becomes of the mail
 * when none of them serves. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/engine/worker_rig.h"

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

/* A greeting for each of the server's two addresses; NULL: the ordinary one. */
struct greetings {
    const char *first;
    const char *other;
    uint32_t asked;
    uint32_t other_asked;
};

static const char *greet(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    struct greetings *greetings = conn->rig->context;
    (void)line;
    if (moment != RIG_GREETING) {
        return NULL;
    }
    greetings->asked += !conn->is_other;
    greetings->other_asked += conn->is_other;
    return conn->is_other ? greetings->other : greetings->first;
}

/* A route to both addresses of the server; `more` hosts where nobody is. */
static struct rig *hosts_rig(struct greetings *greetings, uint32_t more)
{
    struct rig *rig = rig_create();
    struct config_route *route = &rig->config->routes[0];
    route->hosts[0] = (struct config_host){.addr = rig->server_addr, .port = 25};
    route->hosts[1] = (struct config_host){.addr = rig->other_addr, .port = 25};
    route->hosts_count = 2 + more;
    for (uint32_t i = 0; i < more; i++) {
        route->hosts[2 + i] = (struct config_host){
            .addr = {.family = NET_IP4, .bytes = {203, 0, 113, (uint8_t)(1 + i)}},
            .port = 25,
        };
    }
    rig->on_moment = greet;
    rig->context = greetings;
    rig_start(rig);
    return rig;
}

/* N2: what the greetings of the two hosts make of the mail. */
static void test_hosts_that_accept_no_mail(void)
{
    static const char NO_MAIL[] = "521 5.3.2 no mail here\r\n";
    static const struct {
        const char *first, *other;
        uint8_t what;
        uint16_t code;
        const char *line;
    } ROWS[] = {
        {NO_MAIL, NO_MAIL, JOURNAL_BOUNCED, 521, "no mail here"},
        {"521 go away\r\n", "521 go away\r\n", JOURNAL_BOUNCED, 521, "\"subject\":3,\"detail\":2"},
        {NO_MAIL, NULL, JOURNAL_DELIVERED, 250, "DELIVERED"},
        {NO_MAIL, "421 4.3.2 busy\r\n", JOURNAL_DEFERRED, 0, "TEMP_"},
        {NO_MAIL, "554 5.3.2 not now\r\n", JOURNAL_DEFERRED, 0, "TEMP_"},
        {NO_MAIL, "!", JOURNAL_DEFERRED, 0, "TEMP_"},
        {"554 no\r\n", "554 no\r\n", JOURNAL_DEFERRED, 554, "TEMP_GREETING"},
        {"421 no\r\n", "451 no\r\n", JOURNAL_DEFERRED, 0, "TEMP_GREETING"},
        /* Meant for us, not for all: a block list. */
        {"521 5.7.1 blocked\r\n", "521 5.7.1 blocked\r\n", JOURNAL_DEFERRED, 521, "TEMP_GREETING"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct greetings greetings = {.first = ROWS[i].first, .other = ROWS[i].other};
        struct rig *rig = hosts_rig(&greetings, 0);
        rig_send_some(rig, 50);
        rig_run(rig, 40000);
        CHECK_ROW(i, rig_entries_of(rig, ROWS[i].what) == 50);
        CHECK_ROW(i, rig->entries_count == 50);
        for (uint32_t j = 0; j < rig->entries_count; j++) {
            const struct rig_entry *entry = &rig->entries[j];
            CHECK_ROW(i, ROWS[i].code == 0 || entry->code == ROWS[i].code);
            CHECK_ROW(i, strstr(entry->line, ROWS[i].line) != NULL);
            bool is_bounce = ROWS[i].what == JOURNAL_BOUNCED;
            CHECK_ROW(i, (strstr(entry->line, "\"PERM_NO_MAIL\"") != NULL) == is_bounce);
        }
        bool is_settled = ROWS[i].what != JOURNAL_DEFERRED;
        CHECK_ROW(i, rig->returned == (is_settled ? 50 : 0));
        rig_destroy(rig);
    }
}

/* N2: a host that cannot be asked may be one that takes mail. */
static void test_a_dead_host_beside_one_without_mail_is_a_deferral(void)
{
    struct greetings greetings = {.first = "521 no\r\n", .other = "521 no\r\n"};
    struct rig *rig = hosts_rig(&greetings, 1);
    rig_send_some(rig, 10);
    rig_run(rig, 50000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 10);
    CU_ASSERT_EQUAL(rig->entries_count, 10);
    rig_destroy(rig);
}

/* A change of mind is seen. */
static void test_a_host_that_accepts_mail_again(void)
{
    struct greetings greetings = {.first = "521 no\r\n", .other = "521 no\r\n"};
    struct rig *rig = hosts_rig(&greetings, 0);
    rig_send_some(rig, 20);
    CU_ASSERT(rig_run_until_returned(rig, 20, 10000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 20);
    CU_ASSERT(greetings.asked + greetings.other_asked <= 20);
    greetings = (struct greetings){0};
    rig_run(rig, 300000);
    rig_send_some(rig, 20);
    CU_ASSERT(rig_run_until_returned(rig, 40, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 20);
    rig_destroy(rig);
}

/* Sixteen hosts, more than a lane once remembered, and all of them fail: the site rests. Each is
 * asked about once, and not the first ones again and again. A33 */
static void test_many_dead_hosts_are_few_connects(void)
{
    struct greetings greetings = {.first = "!", .other = "!"};
    struct rig *rig = hosts_rig(&greetings, 14);
    rig_send_some(rig, 200);
    rig_run(rig, 50000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 200);
    CU_ASSERT(stat_read_xcore(&rig->workers[0]->stats.connects_failed) <= 64);
    rig_destroy(rig);
}

/* Hosts that fail more slowly than one is left out: they do not take turns for ever. */
static void test_slow_failures_end_in_a_deferral(void)
{
    struct greetings greetings = {.first = "", .other = ""};
    struct rig *rig = hosts_rig(&greetings, 4);
    struct config_route *route = &rig->config->routes[0];
    for (uint32_t i = 2; i < route->hosts_count; i++) {
        sim_net_rule_set(rig->net, &route->hosts[i].addr, SIM_SILENT);
    }
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    rig_add_many(rig, batch, "example.org", 1);
    rig_deal(rig, batch, 0);
    rig_run(rig, 2 * (int64_t)route->timeouts.greeting_ms + 4 * (int64_t)route->connect_timeout_ms +
                     60000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 1);
    CU_ASSERT_EQUAL(greetings.asked, 1);
    CU_ASSERT_EQUAL(greetings.other_asked, 1);
    rig_destroy(rig);
}

/* A2: the words tell a host that is connected and says nothing from one that is not there. */
static void test_a_silent_greeting_is_told_as_such(void)
{
    struct greetings greetings = {.first = "", .other = ""};
    struct rig *rig = hosts_rig(&greetings, 0);
    rig_send_some(rig, 1);
    rig_run(rig, 2 * (int64_t)rig->config->routes[0].timeouts.greeting_ms + 60000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig->entries[0].line, "\"TEMP_TIMEOUT\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig->entries[0].line, "\"command\":\"GREETING\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(rig->entries[0].line, "no greeting came"));
    rig_destroy(rig);
}

/* No local port is free, for ten seconds and for an hour: nobody is put off, no attempt is counted,
 * the hosts are as good as before; and it is not asked for all the time. */
static void test_a_shortage_of_ports_is_waited_for(void)
{
    static const struct {
        int64_t ms;
        uint32_t connects_max;
    } ROWS[] = {{10 * 1000, 80}, {3600 * 1000, 2500}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct greetings greetings = {0};
        struct rig *rig = hosts_rig(&greetings, 0);
        sim_net_fail_at(rig->net, 1, NET_NO_PORT, true);
        rig_send_some(rig, 50);
        rig_run(rig, ROWS[i].ms);
        CHECK_ROW(i, rig->entries_count == 0);
        uint64_t failures = sim_net_failures_count(rig->net);
        CHECK_ROW(i, failures > 1);
        CHECK_ROW(i, failures <= ROWS[i].connects_max);
        sim_net_fail_at(rig->net, 0, NET_OK, false);
        CHECK_ROW(i, rig_run_until_returned(rig, 50, 2 * LANE_PORTS_MAX_MS));
        CHECK_ROW(i, rig_entries_of(rig, JOURNAL_DELIVERED) == 50);
        for (uint32_t j = 0; j < rig->entries_count; j++) {
            CHECK_ROW(i, strstr(rig->entries[j].line, "\"num_attempts\":1,") != NULL);
        }
        rig_destroy(rig);
    }
}

/* One host speaks IPv6, which this machine has not at all: it is left out, and the other one taken.
 */
static void test_no_address_is_no_shortage_of_ports(void)
{
    struct greetings greetings = {0};
    struct rig *rig = hosts_rig(&greetings, 0);
    struct config_route *route = &rig->config->routes[0];
    route->hosts[1].addr = (struct net_addr){.family = NET_IP6, .bytes = {0x20, 0x01, 0x0d, 0xb8}};
    route->hosts[0] = route->hosts[1];
    sim_net_fail_at(rig->net, 1, NET_NO_PORT, true);
    rig_send_some(rig, 5);
    rig_run(rig, 30 * 1000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 5);
    CU_ASSERT_PTR_NOT_NULL(strstr(rig->entries[0].line, "unreachable"));
    rig_destroy(rig);
}

SUITE(worker_hosts, test_a_silent_greeting_is_told_as_such, test_a_shortage_of_ports_is_waited_for,
      test_no_address_is_no_shortage_of_ports, test_hosts_that_accept_no_mail,
      test_a_dead_host_beside_one_without_mail_is_a_deferral, test_a_host_that_accepts_mail_again,
      test_many_dead_hosts_are_few_connects, test_slow_failures_end_in_a_deferral)
