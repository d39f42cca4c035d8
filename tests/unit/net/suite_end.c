/* SPDX-License-Identifier: Apache-2.0 */
/* The suite's tests of half closing, closing, dying. */
#include <errno.h>

#include "tests/unit/net/net_suite.h"

enum { MIB = 1 << 20 };

/* The FIN comes behind all that was queued. */
void suite_fin_flag(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_send(client, 60000, false, 0), 0);
    CU_ASSERT_EQUAL(suite_send(client, 60000, false, 0), 0);
    CU_ASSERT_EQUAL(suite_send(client, 10, true, NET_FIN), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    CU_ASSERT_EQUAL(server->rx_size, 120010);
    suite_quiet(&suite);
    CU_ASSERT_FALSE(client->has_fin || client->is_closed || server->is_closed);
    suite_deinit(&suite);
}

void suite_fin_then_peer_sends(void)
{
    enum { SIZE = 4 * MIB };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_send(client, 10, true, NET_FIN), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    server->to_send = SIZE;
    server->hook = suite_hook_pump;
    suite_pump(server);
    SUITE_UNTIL(&suite, client->rx_size == SIZE);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    SUITE_UNTIL(&suite, client->has_fin && server->is_closed);
    CU_ASSERT_EQUAL(server->error, NET_OK);
    /* Both directions have ended; the end is ours to tell. */
    suite_quiet(&suite);
    CU_ASSERT_FALSE(client->is_closed);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_OK);
    suite_deinit(&suite);
}

/* Without bytes; while the other side's receive is also of no interest any more. */
void suite_fin_alone(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, NULL, 0, NET_FIN), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    CU_ASSERT_EQUAL(net_send(suite.server->loop, server->id, NULL, 0, NET_FIN), 0);
    SUITE_UNTIL(&suite, client->has_fin);
    CU_ASSERT_EQUAL(server->events_count, 2);
    CU_ASSERT_EQUAL(client->events_count, 2);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
    suite_deinit(&suite);
}

/* Graceful: the queue first, however long the peer takes, then the FIN. */
void suite_close_sends_first(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    client->to_send = 32 * MIB;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_quiet(&suite);
    client->hook = NULL;
    while (suite_send(client, 1, true, 0) == 0) {
    }
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    suite_quiet(&suite);
    CU_ASSERT_FALSE(client->is_closed);
    CU_ASSERT_EQUAL(suite_send(client, 1, true, 0), -ESTALE);
    CU_ASSERT_EQUAL(suite_rx_stop(client, true), -ESTALE);
    CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->has_fin);
    CU_ASSERT_EQUAL(client->error, NET_OK);
    CU_ASSERT_EQUAL(server->rx_size, client->sent_size);
    CU_ASSERT_EQUAL(client->txdone_size, client->sent_size);
    suite_deinit(&suite);
}

void suite_close_twice(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    CU_ASSERT_EQUAL(client->events_count, 1); /* never from within the call */
    SUITE_UNTIL(&suite, client->is_closed && server->has_fin);
    CU_ASSERT_EQUAL(client->error, NET_OK);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    SUITE_UNTIL(&suite, server->is_closed);
    CU_ASSERT_EQUAL(server->error, NET_ABORTED);
    suite_quiet(&suite);
    suite_deinit(&suite);
}

/* A graceful close that hangs can be cut short. */
void suite_close_then_abort(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    client->to_send = 32 * MIB;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    suite_quiet(&suite);
    CU_ASSERT_FALSE(client->is_closed);
    CU_ASSERT_EQUAL(suite_close(client, true), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_ABORTED);
    CU_ASSERT_EQUAL(server->error, NET_RESET);
    suite_deinit(&suite);
}

void suite_abort_resets(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_send(server, 1000, false, 0), 0);
    SUITE_UNTIL(&suite, client->rx_size == 1000);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    CU_ASSERT_FALSE(server->is_closed);
    SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    CU_ASSERT_EQUAL(server->error, NET_ABORTED);
    CU_ASSERT_FALSE(client->has_fin);
    suite_deinit(&suite);
}

/* With a full queue and a send on its way. */
void suite_abort_drops_queue(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    client->to_send = 64 * MIB;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_quiet(&suite);
    uint64_t txdone_before = client->txdone_size;
    CU_ASSERT_EQUAL(suite_close(client, true), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
    CU_ASSERT_EQUAL(client->txdone_size, txdone_before);
    CU_ASSERT_EQUAL(client->error, NET_ABORTED);
    CU_ASSERT_EQUAL(server->error, NET_RESET);
    suite_deinit(&suite);
}

/* note: which event closes, and with bit 8, how. */
static void hook_close_at(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == (enum net_event_kind)(end->note & 0xff)) {
        CU_ASSERT_EQUAL(suite_close(end, (end->note & 0x100) != 0),
                        event->kind == NET_CLOSED ? -ESTALE : 0);
    }
    if (event->kind == NET_CONNECTED || event->kind == NET_ACCEPTED) {
        int result = suite_send(end, 5000, false, 0);
        CU_ASSERT(result == 0 || result == -ESTALE);
    }
    if (event->kind == NET_TXDONE) {
        int result = net_send(end->side->loop, end->id, NULL, 0, NET_FIN);
        CU_ASSERT(result == 0 || result == -ESTALE);
    }
}

static void hook_close_at_fin(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_PEER_FIN) {
        CU_ASSERT_EQUAL(suite_close(end, false), 0);
    }
}

static void hook_accept_close_at(struct suite_end *end, const struct net_event *event)
{
    end->hook = hook_close_at;
    end->note = end->side->suite->random.state[0]; /* set by the test below */
    hook_close_at(end, event);
}

void suite_close_within_events(void)
{
    static const enum net_event_kind KINDS[] = {NET_CONNECTED, NET_ACCEPTED, NET_RX,
                                                NET_TXDONE,    NET_PEER_FIN, NET_CLOSED};
    for (size_t i = 0; i < 2 * COUNT_OF(KINDS); i++) {
        struct suite suite;
        suite_init(&suite, 4);
        uint64_t note = (uint64_t)KINDS[i / 2] | (i % 2 == 1 ? 0x100 : 0);
        suite.random.state[0] = note;
        suite.server->accepted_hook =
            KINDS[i / 2] == NET_CONNECTED ? hook_close_at_fin : hook_accept_close_at;
        struct suite_end *client = suite_connect_to(&suite, NULL, NULL, 5000);
        client->hook = KINDS[i / 2] == NET_ACCEPTED ? hook_close_at_fin : hook_close_at;
        client->note = note;
        if (KINDS[i / 2] == NET_CLOSED) {
            SUITE_UNTIL(&suite, client->has_fin && suite.server->ends_count == 1 &&
                                    suite.server->ends[0].has_fin);
            CU_ASSERT_EQUAL(suite_close(client, false), 0);
            CU_ASSERT_EQUAL(suite_close(&suite.server->ends[0], true), 0);
        }
        SUITE_UNTIL(&suite, client->is_closed);
        SUITE_UNTIL(&suite, suite.server->ends_count == 0 || suite.server->ends[0].is_closed);
        suite_quiet(&suite);
        suite_deinit(&suite);
    }
}

void suite_death_when_idle(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    SUITE_UNTIL(&suite, client->has_fin);
    CU_ASSERT_FALSE(client->is_closed);
    suite_deinit(&suite);
}

void suite_death_when_stopped(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
    CU_ASSERT_EQUAL(suite_send(server, 100, true, 0), 0);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    CU_ASSERT_EQUAL(client->rx_count, 0);
    suite_deinit(&suite);
}

/* The peer is gone for good: what is sent to it after its FIN meets a reset, which is told without
 * a further send. */
void suite_death_when_half_closed(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    SUITE_UNTIL(&suite, client->has_fin && server->is_closed);
    suite_quiet(&suite);
    CU_ASSERT_FALSE(client->is_closed);
    CU_ASSERT_EQUAL(suite_send(client, 100, true, 0), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    suite_deinit(&suite);
}

void suite_death_when_sending(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    for (int round = 0; round < 10; round++) {
        struct suite_end *client, *server;
        suite_pair(&suite, &client, &server);
        client->to_send = 64 * MIB;
        client->hook = suite_hook_pump;
        suite_pump(client);
        SUITE_UNTIL(&suite, server->rx_size > (uint64_t)round * MIB / 2);
        CU_ASSERT_EQUAL(suite_close(server, true), 0);
        SUITE_UNTIL(&suite, client->is_closed && server->is_closed);
        CU_ASSERT_EQUAL(client->error, NET_RESET);
        CU_ASSERT_EQUAL(server->error, NET_ABORTED);
    }
    suite_deinit(&suite);
}

static void hook_last_words(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_ACCEPTED) {
        CU_ASSERT_EQUAL(suite_send(end, 300, false, 0), 0);
        CU_ASSERT_EQUAL(suite_close(end, false), 0);
    }
}

/* Servers that say why and go while we talk into their faces ("421 too busy"): their words come
 * before CLOSED, however many do so at once. */
void suite_last_words_before_reset(void)
{
    enum { ROUNDS = 10, CONNS = 60 };
    struct suite suite;
    suite_init(&suite, CONNS);
    suite.server->accepted_hook = hook_last_words;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < CONNS; i++) {
            struct suite_end *client = suite_connect_to(&suite, NULL, NULL, 60000);
            CU_ASSERT_PTR_NOT_NULL_FATAL(client);
            client->to_send = 4 * MIB;
            client->hook = suite_hook_pump;
            suite_pump(client);
        }
        SUITE_UNTIL(&suite, suite.client->closed_count == (round + 1) * CONNS);
        suite_quiet(&suite);
    }
    for (size_t i = 0; i < ROUNDS * CONNS; i++) {
        CHECK_ROW(i, suite.client->ends[i].rx_size == 300);
        CHECK_ROW(i, suite.client->ends[i].error == NET_RESET);
    }
    suite_deinit(&suite);
}

/* What has come and how it ends reach the client in one turn: the end must not be lost behind the
 * bytes. */
static void check_at_once(bool is_abort, bool was_stopped)
{
    enum { TURNS = 4 };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    suite_quiet(&suite);
    if (was_stopped) {
        CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
        suite_quiet(&suite);
        CU_ASSERT_EQUAL(suite_rx_stop(client, false), 0);
        suite_quiet(&suite);
    }
    CU_ASSERT_EQUAL(suite_send(server, 300, false, 0), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        suite_turn(suite.server);
    }
    CU_ASSERT_EQUAL(suite_close(server, is_abort), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        suite_turn(suite.server);
    }
    SUITE_UNTIL(&suite, is_abort ? client->is_closed : client->has_fin);
    CU_ASSERT_EQUAL(client->error, is_abort ? NET_RESET : NET_OK);
    CU_ASSERT_EQUAL(client->rx_size, 300);
    suite_deinit(&suite);
}

void suite_bytes_and_reset_at_once(void)
{
    check_at_once(true, false);
    check_at_once(true, true);
}

void suite_bytes_and_fin_at_once(void)
{
    check_at_once(false, false);
    check_at_once(false, true);
}

/* Our own end, with bytes of the peer that nobody has read, does not take back what we had sent. */
void suite_close_with_unread_bytes(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
    CU_ASSERT_EQUAL(suite_send(server, 60000, false, 0), 0);
    SUITE_UNTIL(&suite, server->txdone_size == 60000);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(suite_send(client, 1000, false, 0), 0);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->has_fin);
    CU_ASSERT_FALSE(server->is_closed);
    CU_ASSERT_EQUAL(server->rx_size, 1000);
    CU_ASSERT_EQUAL(client->rx_count, 0);
    suite_deinit(&suite);
}

static void hook_send_and_abort_at_fin(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_PEER_FIN) {
        CU_ASSERT_EQUAL(suite_send(end, 10, true, 0), 0);
        CU_ASSERT_EQUAL(suite_close(end, true), 0);
    }
}

/* What was queued a moment before an abort is forgotten with its connection; the next ones in the
 * same slots send well. */
void suite_abort_forgets_new_sends(void)
{
    enum { CONNS = 5, ROUNDS = 4 };
    struct suite suite;
    suite_init(&suite, CONNS);
    for (int round = 0; round < ROUNDS; round++) {
        struct suite_end *clients[CONNS], *servers[CONNS];
        for (size_t i = 0; i < CONNS; i++) {
            suite_pair(&suite, &clients[i], &servers[i]);
            CU_ASSERT_EQUAL(suite_send(clients[i], 100, true, 0), 0);
            clients[i]->hook = hook_send_and_abort_at_fin;
        }
        for (size_t i = 0; i < CONNS; i++) {
            SUITE_UNTIL(&suite, servers[i]->rx_size == 100);
            CU_ASSERT_EQUAL(suite_close(servers[i], false), 0);
        }
        for (size_t i = 0; i < CONNS; i++) {
            SUITE_UNTIL(&suite, clients[i]->is_closed && servers[i]->is_closed);
            CU_ASSERT_EQUAL(clients[i]->error, NET_ABORTED);
        }
    }
    suite_deinit(&suite);
}

void suite_destroy_resets(void)
{
    enum { CONNS = 20 };
    struct suite suite;
    suite_init(&suite, CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        struct suite_end *client, *server;
        suite_pair(&suite, &client, &server);
        client->to_send = i % 3 * MIB;
        suite_pump(client);
        if (i % 4 == 1) {
            CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
            CU_ASSERT_EQUAL(suite_send(server, 1000, false, 0), 0);
        }
        if (i % 5 == 4) {
            CU_ASSERT_EQUAL(suite_close(client, false), 0);
        }
    }
    net_loop_destroy(suite.client->loop);
    suite.client->loop = NULL;
    SUITE_UNTIL(&suite, suite.server->ends_count == CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        SUITE_UNTIL(&suite, suite.server->ends[i].is_closed || suite.server->ends[i].has_fin);
    }
    suite_deinit(&suite);
}

static void chaos_act(struct suite_end *end)
{
    struct random *random = &end->side->suite->random;
    if (end->is_closed || end->is_closing) {
        return;
    }
    uint32_t choice = random_below(random, 100);
    int result = 0;
    if (choice < 60 && !end->has_sent_fin) {
        end->to_send = end->sent_size + random_below(random, 100000);
        suite_pump(end);
    } else if (choice < 80) {
        end->is_stopped = !end->is_stopped;
        result = suite_rx_stop(end, end->is_stopped);
    } else if (choice < 85 && !end->has_sent_fin) {
        result = net_send(end->side->loop, end->id, NULL, 0, NET_FIN);
        end->has_sent_fin = true;
    } else if (choice < 97) {
        end->is_closing = choice >= 94;
        result = end->is_closing ? suite_close(end, choice == 96) : 0;
    }
    CU_ASSERT(result == 0);
}

static bool all_closed(const struct suite_side *side)
{
    return side->closed_count == side->ends_count;
}

static void chaos_abort_all(struct suite_side *side)
{
    for (uint32_t i = 0; i < side->ends_count; i++) {
        if (!side->ends[i].is_closed) {
            CU_ASSERT_EQUAL(suite_close(&side->ends[i], true), 0);
        }
    }
}

/* Anything at any time, from a seed. The records check the order of events; here only the ends must
 * add up. */
void suite_chaos(void)
{
    enum { CONNS = 60, STEPS = 6000, ENDS = 1500 };
    struct suite suite;
    suite_init(&suite, CONNS);
    suite_limit_set(&suite);
    for (uint32_t step = 0; step < STEPS && suite.client->ends_count < ENDS; step++) {
        if (random_below(&suite.random, 8) == 0) {
            (void)suite_connect_to(&suite, NULL, NULL, 60000);
        }
        struct suite_side *side = random_below(&suite.random, 2) == 0 ? suite.client : suite.server;
        if (side->ends_count > 0) {
            uint32_t newest = side->ends_count < 2 * CONNS ? side->ends_count : 2 * CONNS;
            uint32_t back = 1 + random_below(&suite.random, newest);
            chaos_act(&side->ends[side->ends_count - back]);
        }
        if (random_below(&suite.random, 4) == 0) {
            (void)suite_step(&suite);
        }
    }
    chaos_abort_all(suite.client);
    SUITE_UNTIL(&suite, all_closed(suite.client));
    suite_quiet(&suite);
    chaos_abort_all(suite.server);
    SUITE_UNTIL(&suite, all_closed(suite.server));
    CU_ASSERT(suite.server->ends_count > CONNS);
    suite_deinit(&suite);
}
