/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that one host of a site cannot be given, and its other hosts. E2, E4 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/engine/worker_rig.h"

enum { LARGE = 3000, SMALL = 300 };

/* What the server's two addresses answer to EHLO; a second line, when there is one, at each second
 * connection. "!": the connection is reset. */
struct offers {
    const char *first[2], *other[2];
    uint32_t first_asked, other_asked;
    uint32_t larges; /* messages that were taken */
};

static const char *offer(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    struct offers *offers = conn->rig->context;
    (void)line;
    offers->larges += moment == RIG_DOT && conn->body_size > LARGE / 2;
    if (moment != RIG_EHLO) {
        return NULL;
    }
    const char *const *rows = conn->is_other ? offers->other : offers->first;
    uint32_t asked = conn->is_other ? offers->other_asked++ : offers->first_asked++;
    return rows[1] != NULL && asked % 2 == 1 ? rows[1] : rows[0];
}

/* A route to both addresses of the server, which are equals, and to hosts where nobody is. */
static struct rig *aside_rig_of(struct offers *offers, uint32_t dead, uint32_t connections_max,
                                uint32_t workers_count)
{
    struct rig *rig = rig_create();
    struct config_route *route = &rig->config->routes[0];
    route->connections_max = connections_max;
    rig->config->workers_count = workers_count;
    route->hosts[0] = (struct config_host){.addr = rig->server_addr, .port = 25};
    route->hosts[1] = (struct config_host){.addr = rig->other_addr, .port = 25};
    route->hosts_count = 2 + dead;
    for (uint32_t i = 0; i < dead; i++) {
        route->hosts[2 + i] = (struct config_host){
            .addr = {.family = NET_IP4, .bytes = {203, 0, 113, (uint8_t)(1 + i)}},
            .port = 25,
        };
    }
    rig->on_moment = offer;
    rig->context = offers;
    rig_start(rig);
    return rig;
}

static struct rig *aside_rig(struct offers *offers, uint32_t dead)
{
    return aside_rig_of(offers, dead, 16, 1);
}

static void add(struct rig *rig, uint32_t batch, size_t size, bool is_8bit, uint32_t count)
{
    char *text = malloc(size + 512);
    ensure(text != NULL);
    struct writer writer = writer_of(text, size + 512);
    writer_put(&writer, SPAN("MAIL FROM:<news@sender.example>\r\n"
                             "RCPT TO:<ann@example.org>\r\nDATA\r\n"
                             "From: <news@sender.example>\r\n\r\n"));
    writer_put(&writer, is_8bit ? SPAN("J\xc3\xbcrgen\r\n") : SPAN("Joe\r\n"));
    while (writer_size(&writer) < size) {
        writer_put(&writer, SPAN("one more line of the message\r\n"));
    }
    writer_put(&writer, SPAN(".\r\n"));
    ensure(!writer.is_full);
    for (uint32_t i = 0; i < count; i++) {
        struct recipient *recipient = rig_add(rig, batch, "example.org", writer_span(&writer), 0);
        recipient->flags |= is_8bit ? RECIPIENT_8BIT : 0;
    }
    free(text);
}

static const char TIGHT[] = "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 1000\r\n";
static const char WIDE[] = "250-x\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100000\r\n";
static const char WIDE_7[] = "250-x\r\n250-PIPELINING\r\n250 SIZE 100000\r\n";
static const char TIGHT_7[] = "250-x\r\n250 SIZE 1000\r\n";
static const char BUSY[] = "421 4.3.2 busy\r\n";

static void test_E2_E4_what_two_hosts_offer(void)
{
    static const struct {
        const char *first, *other;
        size_t size;
        bool is_8bit;
        uint32_t dead;
        uint8_t what;
        const char *words;
    } ROWS[] = {
        {TIGHT, WIDE, LARGE, false, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {WIDE, TIGHT, LARGE, false, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {TIGHT, WIDE, LARGE, false, 3, JOURNAL_DELIVERED, "DELIVERED"},
        {TIGHT, TIGHT, LARGE, false, 0, JOURNAL_BOUNCED, "PERM_SIZE"},
        {TIGHT, TIGHT, SMALL, false, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {TIGHT, BUSY, LARGE, false, 0, JOURNAL_DEFERRED, "TEMP_GREETING"},
        {TIGHT, "!", LARGE, false, 0, JOURNAL_DEFERRED, "TEMP_"},
        {TIGHT, TIGHT, LARGE, false, 1, JOURNAL_DEFERRED, "TEMP_NO_CONNECT"},
        {WIDE_7, TIGHT, SMALL, true, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {TIGHT, WIDE_7, SMALL, true, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {WIDE_7, TIGHT, LARGE, true, 0, JOURNAL_BOUNCED, "PERM_"},
        {WIDE_7, TIGHT_7, SMALL, true, 0, JOURNAL_BOUNCED, "PERM_8BIT"},
        {WIDE_7, WIDE, LARGE, true, 0, JOURNAL_DELIVERED, "DELIVERED"},
        {WIDE_7, "!", SMALL, true, 0, JOURNAL_DEFERRED, "TEMP_"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct offers offers = {.first = {ROWS[i].first}, .other = {ROWS[i].other}};
        struct rig *rig = aside_rig(&offers, ROWS[i].dead);
        uint32_t batch = rig_batch_bsmtp(rig, "");
        add(rig, batch, ROWS[i].size, ROWS[i].is_8bit, 3);
        rig_deal(rig, batch, 0);
        rig_run(rig, 200000);
        CHECK_ROW(i, rig_entries_of(rig, ROWS[i].what) == 3);
        CHECK_ROW(i, rig->entries_count == 3);
        for (uint32_t j = 0; j < rig->entries_count; j++) {
            CHECK_ROW(i, strstr(rig->entries[j].line, ROWS[i].words) != NULL);
        }
        rig_destroy(rig);
    }
}

/* A part's header in 8-bit text, which no encoding helps. */
static void test_E4_a_template_that_cannot_be_encoded(void)
{
    static const char LETTER_8[] =
        "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n"
        "--b\nX: \xc3\xa4\n\nx\n--b--\n";
    static const struct {
        const char *first, *other;
        uint8_t what;
        const char *words;
    } ROWS[] = {
        {WIDE_7, WIDE, JOURNAL_DELIVERED, "DELIVERED"},
        {WIDE, WIDE_7, JOURNAL_DELIVERED, "DELIVERED"},
        {WIDE_7, WIDE_7, JOURNAL_BOUNCED, "PERM_CONTENT"},
        {WIDE_7, "!", JOURNAL_DEFERRED, "TEMP_"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct offers offers = {.first = {ROWS[i].first}, .other = {ROWS[i].other}};
        struct rig *rig = aside_rig(&offers, 0);
        uint32_t batch = rig_batch_merge(rig, LETTER_8, "");
        rig_add_many(rig, batch, "example.org", 5);
        rig_deal(rig, batch, 0);
        rig_run(rig, 200000);
        CHECK_ROW(i, rig_entries_of(rig, ROWS[i].what) == 5);
        CHECK_ROW(i, rig->entries_count == 5);
        for (uint32_t j = 0; j < rig->entries_count; j++) {
            CHECK_ROW(i, strstr(rig->entries[j].line, ROWS[i].words) != NULL);
        }
        rig_destroy(rig);
    }
}

/* E2, E4: one message is too large for the one host, one too 8-bit for the other; all arrive,
 * however they alternate. */
static void test_each_host_declines_something_else(void)
{
    struct offers offers = {.first = {TIGHT}, .other = {WIDE_7}};
    struct rig *rig = aside_rig(&offers, 0);
    uint32_t batch = rig_batch_bsmtp(rig, "");
    for (uint32_t i = 0; i < 50; i++) {
        add(rig, batch, LARGE, false, 1);
        add(rig, batch, SMALL, true, 1);
        add(rig, batch, SMALL, false, 1);
    }
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 150, 3600 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 150);
    CU_ASSERT_EQUAL(rig->entries_count, 150);
    rig_destroy(rig);
}

/* What all decline costs few connections, however much of it there is. */
static void test_what_all_decline_is_few_connections(void)
{
    struct offers offers = {.first = {TIGHT}, .other = {TIGHT}};
    struct rig *rig = aside_rig_of(&offers, 0, 2, 1);
    rig->config->routes[0].connection_messages_max = 100000;
    uint32_t batch = rig_batch_bsmtp(rig, "");
    add(rig, batch, LARGE, false, 500);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 500, 60 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 500);
    CU_ASSERT(offers.first_asked + offers.other_asked <= 16);
    rig_destroy(rig);
}

/* Two hosts that offer now this and now that: each time the other one might take it. It ends. */
static void test_hosts_that_change_their_mind_are_no_circle(void)
{
    static const char *const CASES[][2] = {{TIGHT, WIDE_7}, {WIDE_7, TIGHT}};
    for (size_t i = 0; i < COUNT_OF(CASES); i++) {
        struct offers offers = {.first = {CASES[i][0], CASES[i][1]},
                                .other = {CASES[i][1], CASES[i][0]}};
        struct rig *rig = aside_rig(&offers, 0);
        uint32_t batch = rig_batch_bsmtp(rig, "");
        add(rig, batch, LARGE, true, 5); /* neither offer is enough */
        rig_deal(rig, batch, 0);
        rig_run(rig, 600 * 1000);
        CHECK_ROW(i, rig->entries_count == 5);
        CHECK_ROW(i, rig_entries_of(rig, JOURNAL_DELIVERED) == 0);
        CHECK_ROW(i, offers.first_asked + offers.other_asked <= 5 * 2 * LANE_BAD_HOSTS_MAX);
        rig_destroy(rig);
    }
}

/* The mail that all hosts take is not led away, nor held up. */
static void test_other_mail_stays_on_its_sessions(void)
{
    struct offers offers = {.first = {TIGHT}, .other = {TIGHT}};
    struct rig *rig = aside_rig_of(&offers, 0, 2, 1);
    uint32_t batch = rig_batch_bsmtp(rig, "");
    for (uint32_t i = 0; i < 20; i++) {
        add(rig, batch, SMALL, false, 20);
        add(rig, batch, LARGE, false, 1);
    }
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 420, 600 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 400);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 20);
    CU_ASSERT(offers.first_asked + offers.other_asked <= 32);
    rig_destroy(rig);
}

/* Few connections to the site in all, and ordinary mail for all of them: who waits aside gets his
 * turn. */
static void test_a_lane_aside_has_its_turn(void)
{
    enum { LARGES = 5, SMALLS = 3000 };
    for (uint32_t max = 1; max <= 3; max++) {
        struct offers offers = {.first = {TIGHT}, .other = {WIDE}};
        struct rig *rig = aside_rig_of(&offers, 0, max, 1);
        uint32_t batch = rig_batch_bsmtp(rig, "");
        add(rig, batch, LARGE, false, LARGES);
        add(rig, batch, SMALL, false, SMALLS);
        rig_deal(rig, batch, 0);
        while (offers.larges < LARGES && rig->returned < SMALLS) {
            rig_run(rig, 10);
        }
        CHECK_ROW(max, offers.larges == LARGES);
        CHECK_ROW(max, rig->returned < SMALLS / 2);
        rig_destroy(rig);
    }
}

/* One connection to the site in all, and several workers. */
static void test_one_connection_for_all_workers(void)
{
    enum { WORKERS = 3, EACH = 20 };
    struct offers offers = {.first = {TIGHT}, .other = {WIDE}};
    struct rig *rig = aside_rig_of(&offers, 0, 1, WORKERS);
    for (uint32_t i = 0; i < WORKERS; i++) {
        uint32_t batch = rig_batch_bsmtp(rig, "");
        for (uint32_t j = 0; j < EACH; j++) {
            add(rig, batch, j % 2 == 0 ? LARGE : SMALL, false, 1);
        }
        rig_deal(rig, batch, i);
    }
    CU_ASSERT(rig_run_until_returned(rig, WORKERS * EACH, 3600 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), WORKERS * EACH);
    rig_destroy(rig);
}

static const char *one_at_a_time(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    bool is_busy = moment == RIG_GREETING && conn->rig->conns_count > 1;
    return is_busy ? BUSY : offer(conn, moment, line);
}

/* The hosts bear one connection of ours, which goes on: what another one aside meets is no verdict
 * on the site. */
static void test_what_fails_aside_suspends_no_site(void)
{
    enum { LARGES = 3, SMALLS = 300 };
    struct offers offers = {.first = {TIGHT}, .other = {TIGHT}};
    struct rig *rig = aside_rig_of(&offers, 0, 2, 1);
    struct config_route *route = &rig->config->routes[0];
    route->connection_messages_max = 100000;
    route->backlog_per_connection = 100000;
    rig->on_moment = one_at_a_time;
    uint32_t batch = rig_batch_bsmtp(rig, "");
    add(rig, batch, SMALL, false, 1);
    add(rig, batch, LARGE, false, LARGES);
    add(rig, batch, SMALL, false, SMALLS - 1);
    rig_deal(rig, batch, 0);
    bool is_suspended = false;
    for (uint32_t i = 0; i < 60000 && rig->returned < SMALLS; i++) {
        rig_run(rig, 10);
        const struct site *site = site_at_xcore(rig->engine.sites, 0);
        is_suspended |= site_suspended_until_xcore(site, rig->clock.mono).ns != 0;
    }
    CU_ASSERT(!is_suspended);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), LARGES);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), SMALLS);
    rig_destroy(rig);
}

/* The rate is paid for what is begun, not for what a host cannot be given. */
static void test_what_is_declined_pays_no_rate(void)
{
    enum { LARGES = 10 };
    struct offers offers = {.first = {TIGHT}, .other = {TIGHT}};
    struct rig *rig = aside_rig(&offers, 0);
    rig->config->routes[0].rate_per_hour = 60;
    rig->config->routes[0].rate_burst = 1;
    uint32_t batch = rig_batch_bsmtp(rig, "");
    add(rig, batch, LARGE, false, LARGES);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, LARGES, 60 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), LARGES);
    rig_destroy(rig);
}

SUITE(worker_aside, test_E2_E4_what_two_hosts_offer, test_E4_a_template_that_cannot_be_encoded,
      test_each_host_declines_something_else, test_what_all_decline_is_few_connections,
      test_hosts_that_change_their_mind_are_no_circle, test_other_mail_stays_on_its_sessions,
      test_a_lane_aside_has_its_turn, test_one_connection_for_all_workers,
      test_what_fails_aside_suspends_no_site, test_what_is_declined_pays_no_rate)
