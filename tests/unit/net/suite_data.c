/* SPDX-License-Identifier: Apache-2.0 */
/* The suite's tests of sending, receiving and stopping. */
#include <errno.h>

#include "tests/unit/net/net_suite.h"

enum { MIB = 1 << 20 };

void suite_send_tells_done_in_order(void)
{
    static const uint32_t SIZES[] = {1, 200, 65536, 3, 256, 10000};
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        CU_ASSERT_EQUAL(suite_send(client, SIZES[i], SIZES[i] <= NET_COPY_MAX, 0), 0);
        CU_ASSERT_EQUAL(client->txdone_count, 0); /* never from within the call */
    }
    SUITE_UNTIL(&suite, client->txdone_size == client->sent_size);
    SUITE_UNTIL(&suite, server->rx_size == client->sent_size);
    /* One at a time, each is told on its own. */
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        uint64_t before = client->txdone_size;
        CU_ASSERT_EQUAL(suite_send(client, SIZES[i], false, 0), 0);
        SUITE_UNTIL(&suite, client->txdone_size == before + SIZES[i]);
    }
    SUITE_UNTIL(&suite, server->rx_size == client->sent_size);
    suite_deinit(&suite);
}

/* Both a lent and a copied segment; the copy's memory changes before anything could go out. */
void suite_send_copies_at_once(void)
{
    enum { ROUNDS = 100, SEGMENTS = 5, SIZE = 251 };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    for (int round = 0; round < ROUNDS; round++) {
        char bytes[SEGMENTS][NET_COPY_MAX];
        struct net_segment segments[SEGMENTS];
        for (size_t i = 0; i < SEGMENTS; i++) {
            suite_stream_copy(client, client->sent_size + i * SIZE, SIZE, bytes[i]);
            segments[i] = (struct net_segment){.at = bytes[i], .size = SIZE, .is_copied = true};
        }
        int result = net_send(suite.client->loop, client->id, segments, SEGMENTS, 0);
        memset(bytes, 0, sizeof(bytes));
        client->sent_size += result == 0 ? SEGMENTS * SIZE : 0;
        if (result == -EAGAIN) {
            uint32_t before = client->txdone_count;
            SUITE_UNTIL(&suite, client->txdone_count > before);
        } else if (round % 7 == 6) {
            suite_limit_set(&suite);
            (void)suite_step(&suite);
        }
    }
    SUITE_UNTIL(&suite, server->rx_size == client->sent_size);
    CU_ASSERT(client->sent_size >= 2 * NET_SEND_SEGMENTS_MAX * SIZE);
    SUITE_UNTIL(&suite, client->txdone_size == client->sent_size);
    suite_deinit(&suite);
}

void suite_send_bound(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    for (uint32_t round = 0; round < 3; round++) {
        uint64_t before = client->txdone_size;
        for (uint32_t i = 0; i < NET_SEND_SEGMENTS_MAX; i++) {
            CU_ASSERT_EQUAL(suite_send(client, 10 + i, round == 1 || (round == 2 && i % 2), 0), 0);
        }
        CU_ASSERT_EQUAL(suite_send(client, 10, true, 0), -EAGAIN);
        CU_ASSERT_EQUAL(suite_send(client, 10, false, 0), -EAGAIN);
        SUITE_UNTIL(&suite, client->txdone_size > before);
        CU_ASSERT_EQUAL(suite_send(client, 10, true, 0), 0);
        SUITE_UNTIL(&suite, server->rx_size == client->sent_size);
        SUITE_UNTIL(&suite, client->txdone_size == client->sent_size);
    }
    /* All or nothing: two where there is room for one. */
    for (uint32_t i = 0; i + 1 < NET_SEND_SEGMENTS_MAX; i++) {
        CU_ASSERT_EQUAL(suite_send(client, NET_COPY_MAX, true, 0), 0);
    }
    struct net_segment two[2] = {{.at = "x", .size = 1}, {.at = "y", .size = 1}};
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, two, 2, 0), -EAGAIN);
    CU_ASSERT_EQUAL(suite_send(client, NET_COPY_MAX, true, 0), 0);
    CU_ASSERT_EQUAL(suite_send(client, 1, true, 0), -EAGAIN);
    SUITE_UNTIL(&suite, server->rx_size == client->sent_size);
    suite_deinit(&suite);
}

void suite_send_before_connected(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client = suite_connect_to(&suite, NULL, NULL, 5000);
    CU_ASSERT_EQUAL(suite_send(client, 100, true, 0), 0);
    CU_ASSERT_EQUAL(suite_send(client, 5000, false, NET_FIN), 0);
    SUITE_UNTIL(&suite, suite.server->ends_count == 1 && suite.server->ends[0].has_fin);
    CU_ASSERT_EQUAL(suite.server->ends[0].rx_size, 5100);
    SUITE_UNTIL(&suite, client->txdone_size == 5100);
    CU_ASSERT(client->is_connected);
    /* And when nothing comes of it: CLOSED alone. */
    struct net_addr refusing = net_suite_factory.refusing(suite.world);
    struct suite_end *refused = suite_connect_to(&suite, NULL, &refusing, 5000);
    CU_ASSERT_EQUAL(suite_send(refused, 100, true, 0), 0);
    SUITE_UNTIL(&suite, refused->is_closed);
    CU_ASSERT_EQUAL(refused->events_count, 1);
    suite_deinit(&suite);
}

void suite_send_empty(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    struct net_segment empty[2] = {{.at = NULL, .size = 0},
                                   {.at = "", .size = 0, .is_copied = true}};
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, NULL, 0, 0), 0);
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, empty, 2, 0), 0);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(client->events_count, 1);
    CU_ASSERT_EQUAL(suite_send(client, 10, true, 0), 0);
    SUITE_UNTIL(&suite, server->rx_size == 10);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    suite_deinit(&suite);
}

/* MORE may delay, never lose: neither before more nor before the end. */
void suite_send_more(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_send(client, 100, true, NET_MORE), 0);
    CU_ASSERT_EQUAL(suite_send(client, 3000, false, NET_MORE), 0);
    CU_ASSERT_EQUAL(suite_send(client, 10, true, 0), 0);
    SUITE_UNTIL(&suite, server->rx_size == 3110);
    CU_ASSERT_EQUAL(suite_send(client, 7, true, NET_MORE), 0);
    SUITE_UNTIL(&suite, client->txdone_size == 3117);
    CU_ASSERT_EQUAL(suite_send(client, 7, true, NET_MORE | NET_FIN), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    CU_ASSERT_EQUAL(server->rx_size, 3124);
    CU_ASSERT_EQUAL(suite_send(server, 7, true, NET_MORE), 0);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    SUITE_UNTIL(&suite, client->has_fin);
    CU_ASSERT_EQUAL(client->rx_size, 7);
    suite_deinit(&suite);
}

void suite_send_big_both_ways(void)
{
    enum { SIZE = 20 * MIB };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    client->to_send = SIZE;
    server->to_send = SIZE;
    client->hook = suite_hook_pump;
    server->hook = suite_hook_pump;
    suite_pump(client);
    CU_ASSERT(client->sent_size < SIZE);
    suite_pump(server);
    SUITE_UNTIL(&suite, client->rx_size == SIZE && server->rx_size == SIZE);
    SUITE_UNTIL(&suite, client->txdone_size == SIZE && server->txdone_size == SIZE);
    suite_deinit(&suite);
}

/* The sender feels it: it cannot get rid of all of 32 MiB. */
void suite_rx_stop_stops(void)
{
    enum { SIZE = 32 * MIB };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    client->to_send = SIZE;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(server->rx_count, 0);
    CU_ASSERT(client->txdone_size < SIZE);
    /* The other direction is not stopped. */
    CU_ASSERT_EQUAL(suite_send(server, 1000, false, 0), 0);
    SUITE_UNTIL(&suite, client->rx_size == 1000);
    CU_ASSERT_EQUAL(server->rx_count, 0);
    CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
    CU_ASSERT_EQUAL(server->rx_count, 0); /* never from within the call */
    SUITE_UNTIL(&suite, server->rx_size == SIZE);
    SUITE_UNTIL(&suite, client->txdone_size == SIZE);
    suite_deinit(&suite);
}

static void hook_stop_at_rx(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_RX) {
        CU_ASSERT_FALSE(end->is_stopped);
        end->is_stopped = true;
        CU_ASSERT_EQUAL(suite_rx_stop(end, true), 0);
    }
}

/* Each RX stops the next one, until the test lets it come. */
void suite_rx_stop_within_event(void)
{
    enum { SIZE = 2 * MIB };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    server->hook = hook_stop_at_rx;
    client->to_send = SIZE;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_limit_set(&suite);
    while (server->rx_size < SIZE && suite_step(&suite)) {
        if (server->is_stopped) {
            server->is_stopped = false;
            CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
        }
    }
    CU_ASSERT_EQUAL(server->rx_size, SIZE);
    suite_deinit(&suite);
}

void suite_rx_stop_keeps_fin(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
    CU_ASSERT_EQUAL(suite_send(client, 1000, false, NET_FIN), 0);
    SUITE_UNTIL(&suite, client->txdone_size == 1000);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(server->rx_count, 0);
    CU_ASSERT_FALSE(server->has_fin);
    CU_ASSERT_FALSE(server->is_closed);
    CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
    SUITE_UNTIL(&suite, server->has_fin);
    CU_ASSERT_EQUAL(server->rx_size, 1000);
    suite_deinit(&suite);
}

/* Stopped and let go at every step of a stream, also twice within one. */
void suite_rx_stop_toggled(void)
{
    enum { SIZE = 8 * MIB };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    client->to_send = SIZE;
    client->hook = suite_hook_pump;
    suite_pump(client);
    suite_limit_set(&suite);
    while (server->rx_size < SIZE && suite_step(&suite)) {
        uint64_t before = server->rx_size;
        switch (random_below(&suite.random, 4)) {
        case 0:
            CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
            (void)suite_step(&suite);
            CU_ASSERT_EQUAL(server->rx_size, before);
            CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
            break;
        case 1:
            CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
            CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
            CU_ASSERT_EQUAL(suite_rx_stop(server, true), 0);
            CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
            break;
        case 2:
            CU_ASSERT_EQUAL(suite_rx_stop(server, false), 0);
            break;
        }
    }
    CU_ASSERT_EQUAL(server->rx_size, SIZE);
    suite_deinit(&suite);
}

/* Stopped from the start: nothing is told but the end, and only what came before a resume. */
void suite_rx_stop_before_connected(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client = suite_connect_to(&suite, NULL, NULL, 5000);
    struct suite_end *resumed = suite_connect_to(&suite, NULL, NULL, 5000);
    CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
    CU_ASSERT_EQUAL(suite_rx_stop(resumed, true), 0);
    SUITE_UNTIL(&suite, suite.server->ends_count == 2);
    SUITE_UNTIL(&suite, client->is_connected && resumed->is_connected);
    for (size_t i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(suite_send(&suite.server->ends[i], 100, true, 0), 0);
    }
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(client->rx_count + resumed->rx_count, 0);
    CU_ASSERT_EQUAL(suite_rx_stop(resumed, false), 0);
    SUITE_UNTIL(&suite, resumed->rx_size == 100);
    for (size_t i = 0; i < 2; i++) {
        CU_ASSERT_EQUAL(suite_close(&suite.server->ends[i], true), 0);
    }
    SUITE_UNTIL(&suite, client->is_closed && resumed->is_closed);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    CU_ASSERT_EQUAL(resumed->error, NET_RESET);
    CU_ASSERT_EQUAL(client->rx_count, 0);
    suite_deinit(&suite);
}
