/* SPDX-License-Identifier: Apache-2.0 */
/* The suite's tests of connecting, accepting, ids and users. */
#include <errno.h>

#include "tests/unit/net/net_suite.h"

void suite_connect_tells_both(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(client->events_count, 1);
    CU_ASSERT_EQUAL(server->events_count, 1);
    suite_deinit(&suite);
}

void suite_connect_ip6_or_other_source(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct net_addr other = net_suite_factory.local(suite.world);
    if (other.family == NET_IP4) {
        other.bytes[3]++;
    }
    struct suite_end *end = suite_connect_to(&suite, &other, NULL, 5000);
    SUITE_UNTIL(&suite, end->is_connected);
    struct net_addr ip6 = {.family = NET_IP6, .bytes = {[15] = 1}};
    struct net_addr bound;
    CU_ASSERT_EQUAL(net_listen(suite.server->loop, &ip6, 8, suite.server, &bound), 0);
    CU_ASSERT(bound.port != 0);
    CU_ASSERT(bound.family == NET_IP6);
    struct suite_end *end6 = suite_connect_to(&suite, NULL, &bound, 5000);
    SUITE_UNTIL(&suite, end6->is_connected && suite.server->ends_count == 2);
    suite_deinit(&suite);
}

/* One end without a partner: nothing is told from within the call, then CLOSED alone. */
static void check_fails(struct suite *suite, struct net_addr source, struct net_addr destination,
                        enum net_error want)
{
    struct suite_end *end = suite_connect_to(suite, &source, &destination, 5000);
    CU_ASSERT_PTR_NOT_NULL_FATAL(end);
    CU_ASSERT_EQUAL(end->events_count, 0);
    SUITE_UNTIL(suite, end->is_closed);
    CU_ASSERT_EQUAL(end->error, want);
    CU_ASSERT_EQUAL(end->events_count, 1);
    suite_quiet(suite);
    CU_ASSERT_EQUAL(end->events_count, 1);
}

void suite_connect_refused(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    check_fails(&suite, (struct net_addr){0}, net_suite_factory.refusing(suite.world), NET_REFUSED);
    suite_deinit(&suite);
}

void suite_connect_unreachable(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    check_fails(&suite, (struct net_addr){0}, net_suite_factory.unreachable(suite.world),
                NET_UNREACHABLE);
    suite_deinit(&suite);
}

void suite_connect_foreign_source(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    check_fails(&suite, net_suite_factory.foreign(suite.world), suite.server->addr, NET_NO_SOURCE);
    struct net_addr ip6 = {.family = NET_IP6, .bytes = {[15] = 1}};
    if (suite.server->addr.family == NET_IP4) {
        check_fails(&suite, ip6, suite.server->addr, NET_NO_SOURCE);
    }
    CU_ASSERT_EQUAL(suite.server->ends_count, 0);
    suite_deinit(&suite);
}

void suite_connect_times_out(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct net_addr silent = net_suite_factory.silent(suite.world);
    struct mono_time start = clock_mono(suite.clock);
    struct suite_end *never = suite_connect_to(&suite, NULL, &silent, 3600000);
    struct suite_end *slow = suite_connect_to(&suite, NULL, &silent, 300);
    struct suite_end *fast = suite_connect_to(&suite, NULL, &silent, 100);
    SUITE_UNTIL(&suite, fast->is_closed);
    CU_ASSERT_FALSE(mono_before(clock_mono(suite.clock), mono_add_ms(start, 100)));
    SUITE_UNTIL(&suite, slow->is_closed);
    CU_ASSERT_FALSE(mono_before(clock_mono(suite.clock), mono_add_ms(start, 300)));
    CU_ASSERT_EQUAL(fast->error, NET_TIMEOUT);
    CU_ASSERT_EQUAL(slow->error, NET_TIMEOUT);
    CU_ASSERT_FALSE(never->is_closed);
    suite_deinit(&suite);
}

/* By our close, graceful or not, before anything is known. */
void suite_connect_closed_meanwhile(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct net_addr silent = net_suite_factory.silent(suite.world);
    struct suite_end *ends[4] = {
        suite_connect_to(&suite, NULL, &silent, 60000),
        suite_connect_to(&suite, NULL, &silent, 60000),
        suite_connect_to(&suite, NULL, NULL, 60000),
        suite_connect_to(&suite, NULL, NULL, 60000),
    };
    CU_ASSERT_EQUAL(suite_close(ends[2], false), 0);
    CU_ASSERT_EQUAL(suite_close(ends[3], true), 0);
    suite_limit_set(&suite);
    (void)suite_step(&suite);
    CU_ASSERT_EQUAL(suite_close(ends[0], false), 0);
    CU_ASSERT_EQUAL(suite_close(ends[1], true), 0);
    SUITE_UNTIL(&suite, suite.client->closed_count == 4);
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        CHECK_ROW(i, ends[i]->events_count == 1);
        CHECK_ROW(i, ends[i]->error == (i % 2 == 0 ? NET_OK : NET_ABORTED));
    }
    suite_deinit(&suite);
}

void suite_connect_table_full(void)
{
    enum { CONNS = 4 };
    struct suite suite;
    suite_init(&suite, CONNS);
    struct suite_end *ends[CONNS];
    for (size_t i = 0; i < CONNS; i++) {
        ends[i] = suite_connect_to(&suite, NULL, NULL, 5000);
        CU_ASSERT_PTR_NOT_NULL_FATAL(ends[i]);
    }
    CU_ASSERT_PTR_NULL(suite_connect_to(&suite, NULL, NULL, 5000));
    SUITE_UNTIL(&suite, ends[3]->is_connected);
    CU_ASSERT_PTR_NULL(suite_connect_to(&suite, NULL, NULL, 5000));
    CU_ASSERT_EQUAL(suite_close(ends[1], false), 0);
    SUITE_UNTIL(&suite, ends[1]->is_closed);
    struct suite_end *fifth = suite_connect_to(&suite, NULL, NULL, 5000);
    CU_ASSERT_PTR_NOT_NULL_FATAL(fifth);
    CU_ASSERT(fifth->id.value != ends[1]->id.value);
    SUITE_UNTIL(&suite, fifth->is_connected);
    CU_ASSERT_PTR_NULL(suite_connect_to(&suite, NULL, NULL, 5000));
    suite_deinit(&suite);
}

static void hook_connect_again(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_CLOSED && end->note > 0) {
        struct suite_end *next = suite_connect_to(end->side->suite, NULL, NULL, 5000);
        CU_ASSERT_PTR_NOT_NULL_FATAL(next);
        next->hook = hook_connect_again;
        next->note = end->note - 1;
    } else if (event->kind == NET_CONNECTED) {
        CU_ASSERT_EQUAL(suite_close(end, end->note % 2 == 0), 0);
    }
}

/* In a table of one, CLOSED already makes room for the next. */
void suite_connect_again_when_closed(void)
{
    enum { ROUNDS = 50 };
    struct suite suite;
    suite_init(&suite, 1);
    struct suite_end *first = suite_connect_to(&suite, NULL, NULL, 5000);
    first->hook = hook_connect_again;
    first->note = ROUNDS;
    SUITE_UNTIL(&suite, suite.client->closed_count == ROUNDS + 1);
    suite_deinit(&suite);
}

/* Who is accepted beyond the table is sent away; the others do not notice, and there is room again
 * later. */
void suite_accept_table_full(void)
{
    enum { EXTRA = 3 };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *held[4];
    for (size_t i = 0; i < 2; i++) {
        struct suite_end *server;
        suite_pair(&suite, &held[i], &server);
    }
    /* The server's own connections fill what is left of its table. */
    struct net_addr silent = net_suite_factory.silent(suite.world);
    static const struct net_addr ANY;
    struct suite_end own[2];
    for (size_t i = 0; i < 2; i++) {
        own[i] = (struct suite_end){.side = suite.server};
        CU_ASSERT_EQUAL(net_connect(suite.server->loop, &ANY, &silent, 60000, &own[i], &own[i].id),
                        0);
    }
    struct suite_end *away = suite_connect_to(&suite, NULL, NULL, 5000);
    SUITE_UNTIL(&suite, away->is_closed || away->has_fin);
    CU_ASSERT_EQUAL(suite.server->ends_count, 2);
    CU_ASSERT_FALSE(held[0]->is_closed || held[0]->has_fin);
    CU_ASSERT_EQUAL(suite_close(&own[0], true), 0);
    SUITE_UNTIL(&suite, own[0].is_closed);
    CU_ASSERT_PTR_NOT_NULL_FATAL(suite_connect_to(&suite, NULL, NULL, 5000));
    SUITE_UNTIL(&suite, suite.server->ends_count == 3);
    suite_deinit(&suite);
}

static void check_stale(struct suite_side *side, struct net_conn_id id)
{
    struct net_segment segment = {.at = "x", .size = 1, .is_copied = true};
    CU_ASSERT_EQUAL(net_send(side->loop, id, &segment, 1, 0), -ESTALE);
    CU_ASSERT_EQUAL(net_rx_stop(side->loop, id, true), -ESTALE);
    CU_ASSERT_EQUAL(net_rx_stop(side->loop, id, false), -ESTALE);
    CU_ASSERT_EQUAL(net_close(side->loop, id, false), -ESTALE);
    CU_ASSERT_EQUAL(net_close(side->loop, id, true), -ESTALE);
    CU_ASSERT_EQUAL(net_set_user(side->loop, id, NULL), -ESTALE);
}

static void hook_check_stale(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_CLOSED) {
        check_stale(end->side, end->id);
        end->note++;
    }
}

void suite_stale_ids(void)
{
    struct suite suite;
    suite_init(&suite, 1);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    client->hook = hook_check_stale;
    struct net_conn_id old = client->id;
    CU_ASSERT_EQUAL(suite_close(client, true), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
    CU_ASSERT_EQUAL(client->note, 1);
    /* The slot has a new tenant: the old name must not reach it. */
    suite_pair(&suite, &client, &server);
    CU_ASSERT(client->id.value != old.value);
    check_stale(suite.client, old);
    check_stale(suite.client, (struct net_conn_id){0});
    check_stale(suite.client, (struct net_conn_id){.value = UINT64_MAX});
    check_stale(suite.client, (struct net_conn_id){.value = old.value + 1});
    check_stale(suite.client, (struct net_conn_id){.value = old.value & UINT32_MAX});
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(client->events_count, 1);
    suite_deinit(&suite);
}

void suite_users(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    /* From now on the client's events reach another record. */
    struct suite_end other = *client;
    CU_ASSERT_EQUAL(net_set_user(suite.client->loop, client->id, &other), 0);
    CU_ASSERT_EQUAL(suite_send(server, 100, true, 0), 0);
    SUITE_UNTIL(&suite, other.rx_size == 100);
    CU_ASSERT_EQUAL(suite_close(&other, false), 0);
    SUITE_UNTIL(&suite, other.is_closed);
    CU_ASSERT_EQUAL(client->events_count, 1);
    suite_deinit(&suite);
}

static void hook_echo_counted(struct suite_end *end, const struct net_event *event)
{
    enum { BYTES = 100, ROUNDS = 5 };
    if (event->kind == NET_CONNECTED ||
        (event->kind == NET_RX && end->rx_size == end->sent_size && end->note < ROUNDS)) {
        end->note++;
        CU_ASSERT_EQUAL(suite_send(end, BYTES, true, 0), 0);
    } else if (event->kind == NET_RX && end->rx_size == BYTES * ROUNDS) {
        CU_ASSERT_EQUAL(suite_close(end, false), 0);
    }
}

static void hook_answer(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_RX) {
        CU_ASSERT_EQUAL(
            suite_send(end, (uint32_t)event->rx.size, event->rx.size <= NET_COPY_MAX, 0), 0);
    } else if (event->kind == NET_PEER_FIN) {
        CU_ASSERT_EQUAL(suite_close(end, false), 0);
    }
}

void suite_hundreds(void)
{
    enum { CONNS = 500 };
    struct suite suite;
    suite_init(&suite, CONNS);
    suite.server->accepted_hook = hook_answer;
    for (size_t i = 0; i < CONNS; i++) {
        struct suite_end *end = suite_connect_to(&suite, NULL, NULL, 60000);
        CU_ASSERT_PTR_NOT_NULL_FATAL(end);
        end->hook = hook_echo_counted;
    }
    SUITE_UNTIL(&suite, suite.client->closed_count == CONNS && suite.server->closed_count == CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        CHECK_ROW(i, suite.client->ends[i].error == NET_OK);
        CHECK_ROW(i, suite.client->ends[i].rx_size == 500);
        CHECK_ROW(i, suite.client->ends[i].txdone_size == 500);
    }
    suite_deinit(&suite);
}
