/* SPDX-License-Identifier: Apache-2.0 */
/* Servers that keep a connection from closing: they answer, and read nothing. */
#include "tests/unit/engine/worker_rig.h"

static const char LETTER[] = "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\n"
                             "Hello.\n";

/* EHLO does not fit into the window of this network, so it stays queued; then comes a 421. */
static const char *greet_unread(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    CU_ASSERT_EQUAL(moment, RIG_GREETING);
    CU_ASSERT_EQUAL(net_rx_stop(conn->rig->server, conn->conn, true), 0);
    return "220 server.example\r\n";
}

static void say_to_all(struct rig *rig, const char *text)
{
    for (struct list *node = rig->conns.next; node != &rig->conns; node = node->next) {
        rig_say(CONTAINER_OF(node, struct rig_conn, link), text);
    }
}

static void test_commands_are_never_read(void)
{
    struct rig *rig = rig_create();
    sim_net_config_set(rig->net, &(struct sim_net_config){.delay_min_ns = NS_PER_MS,
                                                          .delay_max_ns = 2 * NS_PER_MS,
                                                          .window_size = 8});
    rig->on_moment = greet_unread;
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    rig_add_many(rig, batch, "example.org", 1);
    rig_deal(rig, batch, 0);
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_sessions(rig), 1);
    say_to_all(rig, "421 4.3.2 enough\r\n");
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_sessions(rig), 1); /* what is queued has its time */
    rig_run(rig, rig->config->routes[0].timeouts.quit_ms);
    CU_ASSERT_EQUAL(rig_sessions(rig), 0);
    rig_destroy(rig);
}

/* Behind an answer begins another one that never ends: it keeps no session from its end. */
static void test_an_idle_server_dribbles(void)
{
    struct rig *rig = rig_create();
    rig_start(rig);
    uint32_t batch = rig_batch_merge(rig, LETTER, "");
    rig_add_many(rig, batch, "example.org", 1);
    rig_deal(rig, batch, 0);
    CU_ASSERT(rig_run_until_returned(rig, 1, 60000));
    CU_ASSERT_EQUAL(rig_sessions(rig), 1);
    const struct config_route *route = &rig->config->routes[0];
    say_to_all(rig, "250-");
    for (uint32_t ms = 0; ms < route->timeouts.rset_ms + route->timeouts.quit_ms; ms += 1000) {
        rig_run(rig, 1000);
        say_to_all(rig, "x");
    }
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_sessions(rig), 0);
    rig_destroy(rig);
}

SUITE(worker_close, test_commands_are_never_read, test_an_idle_server_dribbles)
