/* SPDX-License-Identifier: Apache-2.0 */
/* The worker with lanes, dispatch and deliveries, against a server that does what a test says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/worker_priv.h"
#include "tests/unit/engine/worker_rig.h"

enum { DAY_MS = 86400 * 1000 };

static void test_delivers_all(void)
{
    struct rig *rig = rig_create();
    rig->config->workers_count = 2;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 300);
    rig_deal(rig, batch, 0);
    rig_add_many(rig, batch, "example.net", 200);
    rig_deal(rig, batch, 1);
    CU_ASSERT(rig_run_until_returned(rig, 500, 60000));
    CU_ASSERT_EQUAL(rig->messages, 500);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 500);
    rig_run(rig, 120000);
    rig_check_quiet(rig);
    CU_ASSERT_EQUAL(rig->workers[0]->lanes.count_out, 1); /* the one to nowhere */
    rig_destroy(rig);
}

/* Bodies that outlive their answer. */

static const char *refuse_in_the_body(struct rig_conn *conn, enum rig_moment moment,
                                      struct span line)
{
    (void)line;
    if (moment == RIG_BODY && conn->body_size < 200) {
        return "552 5.3.4 too large for me\r\n";
    }
    return moment == RIG_BODY || moment == RIG_DOT ? "" : NULL;
}

/* One message of `size` octets, each line of it beginning with a dot. */
static struct span bsmtp_record(const char *domain, size_t size)
{
    char *text = malloc(size + 512);
    ensure(text != NULL);
    struct writer writer = writer_of(text, size + 512);
    writer_put_format(&writer,
                      "MAIL FROM:<news@sender.example>\r\nRCPT TO:<ann@%s>\r\n"
                      "RCPT TO:<bob@%s>\r\nDATA\r\nFrom: <news@sender.example>\r\n\r\n",
                      domain, domain);
    while (writer_size(&writer) < size) {
        writer_put(&writer, SPAN("..this line of the message begins with a dot\r\n"));
    }
    writer_put(&writer, SPAN(".\r\n"));
    ensure(!writer.is_full);
    return writer_span(&writer);
}

/* The recipients were settled, their load given back and its memory used again, while the transport
 * still sent from it. */
static void test_a_refusal_before_the_body_is_out_leaves_its_memory_alone(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = refuse_in_the_body;
    rig_start(rig);
    uint32_t batch = rig_batch_bsmtp(rig, "");
    struct span record = bsmtp_record("example.org", 2000000);
    (void)rig_add(rig, batch, "example.org", record, 0);
    (void)rig_add(rig, batch, "example.org", record, 1);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 2, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 2);
    rig_run(rig, 600000);
    rig_check_quiet(rig);
    free((void *)(uintptr_t)record.at);
    rig_destroy(rig);
}

/* A letter of so many lines that begin with a dot that the transport does not take it at once. */
static char *dotted_letter(size_t size)
{
    char *text = malloc(size + 256);
    ensure(text != NULL);
    struct writer writer = writer_of(text, size + 255);
    writer_put(&writer, SPAN("From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"));
    while (writer_size(&writer) < size) {
        writer_put(&writer, SPAN("a line without a dot in front of it\n.and one with a dot\n"));
    }
    *writer.at = '\0';
    return text;
}

static void test_a_refusal_in_the_middle_of_a_body_ends_it(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = refuse_in_the_body;
    rig_start(rig);
    char *letter = dotted_letter(400000);
    uint32_t batch = rig_batch_merge(rig, letter, "");
    rig_add_many(rig, batch, "example.org", 3);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 3, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 3);
    rig_run(rig, 600000);
    rig_check_quiet(rig);
    free(letter);
    rig_destroy(rig);
}

static const char *reset_in_the_body(struct rig_conn *conn, enum rig_moment moment,
                                     struct span line)
{
    (void)conn;
    (void)line;
    return moment == RIG_BODY ? "!" : NULL;
}

static void test_a_reset_in_the_middle_of_a_body_is_a_deferral(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = reset_in_the_body;
    rig_start(rig);
    char *letter = dotted_letter(400000);
    uint32_t batch = rig_batch_merge(rig, letter, "");
    rig_add_many(rig, batch, "example.org", 3);
    rig_deal(rig, batch, 0);
    rig_run(rig, 60000);
    CU_ASSERT(rig_entries_of(rig, JOURNAL_DEFERRED) >= 3);
    CU_ASSERT_EQUAL(rig->returned, 0);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 3);
    rig_check_quiet(rig);
    free(letter);
    rig_destroy(rig);
}

/* Bounds. */

/* More were settled than there are journal entries, while the journal was busy: the engine stopped
 * with a breach. */
static void test_a_slow_journal_holds_the_workers(void)
{
    struct rig *rig = rig_create();
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    enum { MANY = WORKER_ATTEMPTS_MAX + WORKER_UNWRITTEN_MAX + 10000 };
    rig_add_many(rig, batch, "example.org", MANY);
    stat_set(&rig->batches[batch].orders, BATCH_CANCELLED);
    rig_deal(rig, batch, 0);
    rig->is_journal_held = true;
    rig_run(rig, 1000);
    CU_ASSERT(rig_place(rig, PLACE_JOURNAL) >= WORKER_UNWRITTEN_MAX);
    CU_ASSERT(rig_place(rig, PLACE_JOURNAL) <= WORKER_UNWRITTEN_MAX + WORKER_ATTEMPTS_MAX);
    rig->is_journal_held = false;
    CU_ASSERT(rig_run_until_returned(rig, MANY, 60000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_CANCELLED), MANY);
    rig_run(rig, 10000);
    rig_check_quiet(rig);
    rig_destroy(rig);
}

/* Nothing was left to be sent of the group, and the lane was left alone with the rest. */
static void test_a_bad_record_does_not_hold_up_the_next(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].connection_idle_ms = 600000;
    rig->config->routes[0].connections_max = 1;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    for (uint32_t i = 0; i < 20; i++) {
        (void)rig_add(rig, batch, "example.org",
                      i % 2 == 0 ? SPAN("{\"to\":\"no address\"}\n")
                                 : SPAN("{\"to\":\"ann@example.org\"}\n"),
                      0);
    }
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 20, 5000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 10);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 10);
    rig_destroy(rig);
}

/* Of the recipients that share a message the first one's record is bad. */
static void test_a_bad_record_does_not_spoil_its_group(void)
{
    struct rig *rig = rig_create();
    rig_start(rig);
    uint32_t batch =
        rig_batch_merge(rig, "From: News <news@sender.example>\nSubject: News\n\nHello.\n", "");
    (void)rig_add(rig, batch, "example.org", SPAN("{\"to\":\"ann@exam\n"), 0);
    rig_add_many(rig, batch, "example.org", 5);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 6, 5000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 1);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 5);
    CU_ASSERT_EQUAL(rig->messages, 1);
    rig_destroy(rig);
}

/* More large messages at once than there are bufs for: lanes wait for one, and do not ask for their
 * bytes again and again meanwhile. */
static void test_large_messages_wait_for_memory(void)
{
    struct rig *rig = rig_create();
    rig->config->sessions_max = 48;
    rig->config->routes[0].connections_max = 48;
    rig->config->routes[0].backlog_per_connection = 1;
    rig_start(rig);
    enum { MANY = 200, VALUE_SIZE = 60000, RECORD_SIZE = VALUE_SIZE + 100 };
    uint32_t batch = rig_batch_merge(rig,
                                     "From: News <news@sender.example>\nSubject: News\n"
                                     "Content-Type: text/plain; charset=utf-8\n\n"
                                     "{{a}}\n{{a}}\n{{a}}\n{{a}}\n",
                                     "");
    char *text = malloc(RECORD_SIZE);
    ensure(text != NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        struct writer record = writer_of(text, RECORD_SIZE);
        writer_put_format(&record, "{\"to\":\"u%u@example.org\",\"vars\":{\"a\":\"", i);
        for (size_t size = 0; size < VALUE_SIZE; size++) {
            writer_put_byte(&record, size % 60 == 59 ? ' ' : 'x');
        }
        writer_put(&record, SPAN("\"}}\n"));
        ensure(!record.is_full);
        (void)rig_add(rig, batch, "example.org", writer_span(&record), 0);
    }
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, MANY, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), MANY);
    CU_ASSERT_EQUAL(rig->workers[0]->bufs[3].count_out_peak, rig->workers[0]->bufs[3].count_max);
    CU_ASSERT(rig->loads_asked < 10 * MANY);
    rig_run(rig, 10000);
    rig_check_quiet(rig);
    free(text);
    rig_destroy(rig);
}

/* A15: the server takes one recipient at a time; each transaction settles at least one. */
static const char *take_one(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    return moment == RIG_RCPT && conn->rcpts > 0 ? "452 4.5.3 too many recipients\r\n" : NULL;
}

static void test_one_recipient_at_a_time_gets_on(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = take_one;
    rig_start(rig);
    uint32_t batch =
        rig_batch_merge(rig, "From: News <news@sender.example>\nSubject: News\n\nHello.\n", "");
    rig_add_many(rig, batch, "example.org", 60);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 60, 600000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 60);
    CU_ASSERT_EQUAL(rig->rcpts, 60);
    rig_run(rig, 10000);
    rig_check_quiet(rig);
    rig_destroy(rig);
}

/* Sources. */

/* One source cannot be used here: the mail of the others goes on, and their site is not suspended.
 */
static void test_a_source_that_cannot_be_bound_harms_its_own_mail_only(void)
{
    struct rig *rig = rig_create();
    struct config_source *sources = calloc(2, sizeof(*sources));
    ensure(sources != NULL);
    for (uint8_t i = 0; i < 2; i++) {
        sources[i] = rig->config->sources[0];
        sources[i].name = strdup("source");
        sources[i].ehlo = strdup("client.example");
        sources[i].address = (struct net_addr){.family = NET_IP4, .bytes = {198, 51, 100, i}};
    }
    free(rig->config->sources[0].name);
    free(rig->config->sources[0].ehlo);
    free(rig->config->sources);
    rig->config->sources = sources;
    rig->config->sources_count = 2;
    rig_start(rig);
    sim_net_rule_set(rig->net, &sources[1].address, SIM_FOREIGN);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 6400);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 3200, 120000));
    rig_run(rig, 10000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 3200);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 3200);
    rig_destroy(rig);
}

/* Ends. */

static void test_nothing_is_begun_when_the_journal_has_failed(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].rate_per_hour = 3600 * 10;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 1000);
    rig_deal(rig, batch, 0);
    rig_run(rig, 5000);
    CU_ASSERT(rig->messages > 10);
    stat_set(&rig->journal.stats.has_failed, 1);
    uint64_t before = rig->messages;
    rig_run(rig, 20000);
    CU_ASSERT(rig->messages <= before + 1);
    CU_ASSERT_EQUAL(rig_sessions(rig), 0);
    rig_destroy(rig);
}

static const char *slow_dot(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    if (moment == RIG_DOT && conn->rig->context == NULL) {
        conn->rcpts = 0;
        return "";
    }
    return NULL;
}

/* Transactions that are past their end are waited for, others are not begun. */
static void test_a_stop_waits_for_what_is_in_flight(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = slow_dot;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 100);
    rig_deal(rig, batch, 0);
    rig_run(rig, 5000);
    uint64_t flight = rig_place(rig, PLACE_FLIGHT);
    CU_ASSERT(flight > 0);
    stat_set(&rig->engine.is_draining, 1);
    rig_run(rig, 10000);
    CU_ASSERT_FALSE(worker_is_drained(rig->workers[0]));
    CU_ASSERT_EQUAL(rig_place(rig, PLACE_FLIGHT), flight);
    rig_run(rig, rig->config->routes[0].timeouts.end_of_data_ms);
    CU_ASSERT(worker_is_drained(rig->workers[0]));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), flight);
    for (uint32_t i = 0; i < rig->entries_count; i++) {
        CHECK_ROW(i, rig->entries[i].is_ambiguous);
    }
    rig_destroy(rig);
}

/* One session for many sites: every lane gets its turn. */
static void test_few_sessions_serve_many_sites(void)
{
    struct rig *rig = rig_create();
    rig->config->routes[0].hosts_count = 0;
    rig->config->sessions_max = 2;
    rig->config->sites_max = 600;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    for (uint32_t i = 0; i < 500; i++) {
        char domain[32];
        char host[32];
        (void)snprintf(domain, sizeof(domain), "d%u.example", i);
        (void)snprintf(host, sizeof(host), "mx%u.example", i);
        rig_mx_put(rig, domain, MX_OK, host, &rig->server_addr, INT64_C(30) * DAY_MS);
        rig_add_many(rig, batch, domain, 5);
    }
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 2500, 3600 * 1000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 2500);
    rig_run(rig, 120000);
    rig_check_quiet(rig);
    CU_ASSERT_EQUAL(rig->workers[0]->lanes.count_out, 1);
    rig_destroy(rig);
}

/* F1: nobody is told a header that needs SMTPUTF8; the log says why. */
static void test_an_address_that_needs_smtputf8_bounces(void)
{
    struct rig *rig = rig_create();
    rig_start(rig);
    uint32_t batch =
        rig_batch_merge(rig,
                        "From: News <news@sender.example>\nTo: <{{local}}@example.org>\n"
                        "Subject: {{local}}\n\nHello.\n",
                        "");
    (void)rig_add(rig, batch, "example.org",
                  SPAN("{\"to\":\"a@example.org\",\"vars\":{\"local\":\"\xc3\xbcnal\"}}\n"), 0);
    (void)rig_add(rig, batch, "example.org",
                  SPAN("{\"to\":\"b@example.org\",\"vars\":{\"local\":\"unal\"}}\n"), 0);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 2, 10000));
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_BOUNCED), 1);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 1);
    const struct rig_entry *bounce = &rig->entries[rig->entries[0].ordinal == 0 ? 0 : 1];
    CU_ASSERT_EQUAL(bounce->what, JOURNAL_BOUNCED);
    CU_ASSERT_PTR_NOT_NULL(strstr(bounce->line, "SMTPUTF8"));
    rig_destroy(rig);
}

static const char *wait_with_the_greeting(struct rig_conn *conn, enum rig_moment moment,
                                          struct span line)
{
    (void)conn;
    (void)line;
    return moment == RIG_GREETING ? "" : NULL;
}

/* Each of its connections was too old for mail by the time it was up. */
static void test_who_greets_late_gets_mail(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = wait_with_the_greeting;
    rig->config->routes[0].connection_age_max_s = 1;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 1);
    rig_deal(rig, batch, 0);
    rig_run(rig, 5000);
    CU_ASSERT_EQUAL_FATAL(rig->conns_count, 1);
    rig_say(CONTAINER_OF(rig->conns.next, struct rig_conn, link), "220 at last\r\n");
    CU_ASSERT(rig_run_until_returned(rig, 1, 10000));
    CU_ASSERT_EQUAL(rig->messages, 1);
    rig_destroy(rig);
}

static const char *keep_the_first_waiting(struct rig_conn *conn, enum rig_moment moment,
                                          struct span line)
{
    (void)line;
    bool is_first = conn == CONTAINER_OF(conn->rig->conns.next, struct rig_conn, link);
    return is_first && moment == RIG_DOT ? "" : NULL;
}

/* RFC 5321 gives a server ten minutes for that answer: who comes meanwhile does not wait for it. */
static void test_a_stalled_session_is_relieved(void)
{
    struct rig *rig = rig_create();
    rig->on_moment = keep_the_first_waiting;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, RIG_LETTER, "");
    rig_add_many(rig, batch, "example.org", 1);
    rig_deal(rig, batch, 0);
    rig_run(rig, 500);
    CU_ASSERT_EQUAL(rig->conns_count, 1);
    rig_add_many(rig, batch, "example.org", 3);
    rig_deal(rig, batch, 0);
    rig_run(rig, 100);
    CU_ASSERT_EQUAL(rig->conns_count, 1);
    CU_ASSERT(rig_run_until_returned(rig, 3, 5000));
    CU_ASSERT_EQUAL(rig->messages, 3);
    CU_ASSERT_EQUAL(rig->conns_count, 2);
    rig_destroy(rig);
}

SUITE(worker, test_delivers_all, test_a_refusal_before_the_body_is_out_leaves_its_memory_alone,
      test_a_refusal_in_the_middle_of_a_body_ends_it,
      test_a_reset_in_the_middle_of_a_body_is_a_deferral, test_a_slow_journal_holds_the_workers,
      test_a_bad_record_does_not_hold_up_the_next, test_a_bad_record_does_not_spoil_its_group,
      test_large_messages_wait_for_memory, test_one_recipient_at_a_time_gets_on,
      test_a_source_that_cannot_be_bound_harms_its_own_mail_only,
      test_nothing_is_begun_when_the_journal_has_failed, test_a_stop_waits_for_what_is_in_flight,
      test_few_sessions_serve_many_sites, test_an_address_that_needs_smtputf8_bounces,
      test_who_greets_late_gets_mail, test_a_stalled_session_is_relieved)
