/* SPDX-License-Identifier: Apache-2.0 */
/* The suite over the simulated network, and what is particular to it: virtual time, determinism,
 * faults. */
#include <errno.h>
#include <stdlib.h>

#include "tests/sim/sim_net.h"
#include "tests/unit/net/net_suite.h"

struct world {
    struct clock_manual clock;
    struct sim_net *net;
};

static const struct sim_net_config CALM = {
    .seed = 1,
    .delay_min_ns = 100 * NS_PER_US,
    .delay_max_ns = 20 * NS_PER_MS,
};

static const struct net_addr SERVER = {.family = NET_IP4, .bytes = {192, 0, 2, 1}};
static const struct net_addr SILENT = {.family = NET_IP4, .port = 25, .bytes = {192, 0, 2, 2}};
static const struct net_addr UNREACHABLE = {.family = NET_IP4, .bytes = {192, 0, 2, 3}};
static const struct net_addr FOREIGN = {.family = NET_IP4, .bytes = {192, 0, 2, 4}};

static struct world *world_with(const struct sim_net_config *config)
{
    struct world *world = calloc(1, sizeof(*world));
    ensure(world != NULL);
    clock_manual_init(&world->clock, (struct mono_time){.ns = NS_PER_S},
                      (struct wall_time){.ns = NS_PER_S});
    world->net = sim_net_create(config, &world->clock.clock);
    sim_net_rule_set(world->net, &SILENT, SIM_SILENT);
    sim_net_rule_set(world->net, &UNREACHABLE, SIM_UNREACHABLE);
    sim_net_rule_set(world->net, &FOREIGN, SIM_FOREIGN);
    return world;
}

static struct sim_net_config world_config;

static void *world_begin(void)
{
    return world_with(world_config.delay_max_ns > 0 ? &world_config : &CALM);
}

static void world_end(void *context)
{
    struct world *world = context;
    sim_net_destroy(world->net);
    free(world);
}

static const struct clock *world_clock(void *context)
{
    return &((struct world *)context)->clock.clock;
}

static struct net_loop *make_loop(void *context, const struct net_config *config)
{
    return sim_net_loop_create(((struct world *)context)->net, config);
}

static bool idle(void *context, struct net_loop *const *loops, size_t count)
{
    (void)loops;
    (void)count;
    struct world *world = context;
    struct mono_time now = clock_mono(&world->clock.clock);
    struct mono_time next = sim_net_next(world->net);
    if (next.ns == MONO_NEVER.ns) {
        return false;
    }
    if (mono_before(now, next)) {
        clock_manual_advance(&world->clock, next.ns - now.ns);
    }
    return true;
}

static struct net_addr local(void *context)
{
    (void)context;
    return SERVER;
}

static struct net_addr refusing(void *context)
{
    (void)context;
    struct net_addr addr = SERVER;
    addr.port = 1;
    return addr;
}

static struct net_addr silent(void *context)
{
    (void)context;
    return SILENT;
}

static struct net_addr unreachable(void *context)
{
    (void)context;
    struct net_addr addr = UNREACHABLE;
    addr.port = 25;
    return addr;
}

static struct net_addr foreign(void *context)
{
    (void)context;
    return FOREIGN;
}

const struct net_suite_factory net_suite_factory = {
    .begin = world_begin,
    .end = world_end,
    .clock = world_clock,
    .make_loop = make_loop,
    .idle = idle,
    .local = local,
    .refusing = refusing,
    .silent = silent,
    .unreachable = unreachable,
    .foreign = foreign,
};

static uint64_t trace;

static void hook_trace(struct suite_end *end, const struct net_event *event)
{
    const uint64_t values[] = {
        (uint64_t)event->kind, (uint64_t)event->error,
        event->conn.value,     event->rx.size,
        event->txdone_size,    (uint64_t)clock_mono(end->side->suite->clock).ns,
    };
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        trace = (trace ^ values[i]) * UINT64_C(0x100000001b3);
    }
    suite_hook_pump(end, event);
}

/* To the end of all time. */
static void run_out(struct suite *suite)
{
    suite->limit = MONO_NEVER;
    while (suite_step(suite)) {
    }
}

static struct sim_net_counts run_traced(const struct sim_net_config *config, uint32_t conns)
{
    struct suite suite;
    world_config = *config;
    suite_init(&suite, conns);
    trace = 1;
    suite.server->accepted_hook = hook_trace;
    for (uint32_t i = 0; i < conns; i++) {
        struct suite_end *end = suite_connect_to(&suite, NULL, NULL, 30000);
        end->hook = hook_trace;
        end->to_send = 100000;
        suite_pump(end);
        suite_limit_set(&suite);
        (void)suite_step(&suite);
    }
    run_out(&suite);
    struct sim_net_counts counts = sim_net_counts_of(((struct world *)suite.world)->net);
    for (uint32_t i = 0; i < suite.client->ends_count; i++) {
        const struct suite_end *end = &suite.client->ends[i];
        CHECK_ROW(i, end->is_closed || end->txdone_size == end->sent_size);
    }
    suite_deinit(&suite);
    world_config = (struct sim_net_config){0};
    return counts;
}

static struct sim_net_config stormy(uint64_t seed)
{
    enum { CHANCE = 6000 };
    struct sim_net_config config = CALM;
    config.seed = seed;
    config.refuse_chance = CHANCE;
    config.lose_chance = CHANCE;
    config.reset_chance = CHANCE;
    config.cut_chance = CHANCE;
    config.stall_chance = CHANCE;
    config.vanish_chance = CHANCE;
    return config;
}

static void test_same_seed_same_events(void)
{
    struct sim_net_config config = stormy(5);
    (void)run_traced(&config, 100);
    uint64_t first = trace;
    (void)run_traced(&config, 100);
    CU_ASSERT_EQUAL(trace, first);
    config.seed = 6;
    (void)run_traced(&config, 100);
    CU_ASSERT_NOT_EQUAL(trace, first);
}

/* In fifty storms each fault strikes, no end is told anything after its end, and no byte is wrong.
 */
static void test_faults_strike(void)
{
    struct sim_net_counts sum = {0};
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim_net_config config = stormy(seed);
        struct sim_net_counts counts = run_traced(&config, 40);
        sum.connects += counts.connects;
        sum.refused += counts.refused;
        sum.lost += counts.lost;
        sum.resets += counts.resets;
        sum.cuts += counts.cuts;
        sum.stalls += counts.stalls;
        sum.vanished += counts.vanished;
    }
    CU_ASSERT_EQUAL(sum.connects, 2000);
    const uint64_t strikes[] = {sum.refused, sum.lost,   sum.resets,
                                sum.cuts,    sum.stalls, sum.vanished};
    for (size_t i = 0; i < COUNT_OF(strikes); i++) {
        CHECK_ROW(i, strikes[i] > 50 && strikes[i] < 500);
    }
}

static enum net_error fate_of(struct sim_net_config config, uint64_t *ret_rx, bool *ret_has_fin)
{
    struct suite suite;
    world_config = config;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    client->to_send = 200000;
    client->hook = suite_hook_pump;
    suite_pump(client);
    run_out(&suite);
    CU_ASSERT(client->is_closed);
    enum net_error error = client->error;
    *ret_rx = server->rx_size;
    *ret_has_fin = server->has_fin;
    suite_deinit(&suite);
    world_config = (struct sim_net_config){0};
    return error;
}

/* Faults that are certain, one at a time: what each end is told. */
static void test_fault_kinds(void)
{
    uint64_t rx;
    bool has_fin;
    struct sim_net_config config = CALM;
    config.reset_chance = 65536;
    CU_ASSERT_EQUAL(fate_of(config, &rx, &has_fin), NET_RESET);
    CU_ASSERT(rx < 65536 && !has_fin);
    config = CALM;
    config.cut_chance = 65536;
    CU_ASSERT_EQUAL(fate_of(config, &rx, &has_fin), NET_RESET);
    CU_ASSERT(rx < 65536 && has_fin);
    config = CALM;
    config.vanish_chance = 65536;
    CU_ASSERT_EQUAL(fate_of(config, &rx, &has_fin), NET_TIMEOUT);
    CU_ASSERT(rx < 65536 && !has_fin);
}

/* The suite's own transfers once more in tiny pieces: every byte of a small stream on its own. */
static void test_dribble(void)
{
    struct suite suite;
    world_config = CALM;
    world_config.piece_max = 2;
    world_config.window_size = 3;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    client->to_send = 2000;
    client->hook = suite_hook_pump;
    suite_pump(client);
    run_out(&suite);
    CU_ASSERT_EQUAL(server->rx_size, 2000);
    CU_ASSERT(server->rx_count >= 1000);
    suite_deinit(&suite);
    world_config = (struct sim_net_config){0};
}

static void test_lent_memory_is_watched(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    char bytes[1000];
    memset(bytes, 'a', sizeof(bytes));
    struct net_segment segment = {.at = bytes, .size = sizeof(bytes)};
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, &segment, 1, 0), 0);
    client->sent_size = sizeof(bytes);
    server->side->stream_other = 0;
    bytes[500] = 'b';
    CHECK_PANICS({
        suite_limit_set(&suite);
        while (client->txdone_size < sizeof(bytes)) {
            (void)suite_step(&suite);
        }
    });
    CU_ASSERT_EQUAL(suite_close(client, true), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    server->has_wrong_byte = false;
    suite_deinit(&suite);
}

static void test_rules(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct world *world = suite.world;
    struct net_addr other = SERVER;
    other.port = 77;
    sim_net_rule_set(world->net, &other, SIM_SILENT);
    struct suite_end *end = suite_connect_to(&suite, NULL, NULL, 5000);
    SUITE_UNTIL(&suite, end->is_connected);
    sim_net_rule_set(world->net, &SERVER, SIM_REFUSING);
    end = suite_connect_to(&suite, NULL, NULL, 5000);
    SUITE_UNTIL(&suite, end->is_closed);
    CU_ASSERT_EQUAL(end->error, NET_REFUSED);
    sim_net_rule_set(world->net, &SERVER, SIM_NORMAL);
    end = suite_connect_to(&suite, NULL, NULL, 5000);
    SUITE_UNTIL(&suite, end->is_connected);
    struct net_addr bound;
    CU_ASSERT_EQUAL(net_listen(suite.server->loop, &suite.server->addr, 1, NULL, &bound),
                    -EADDRINUSE);
    CU_ASSERT_EQUAL(net_listen(suite.server->loop, &FOREIGN, 1, NULL, &bound), -EADDRNOTAVAIL);
    struct net_addr any = {.family = NET_IP4};
    CU_ASSERT_EQUAL(net_listen(suite.server->loop, &any, 1, suite.server, &bound), 0);
    bound.bytes[0] = 198;
    end = suite_connect_to(&suite, NULL, &bound, 5000);
    SUITE_UNTIL(&suite, end->is_connected);
    suite_deinit(&suite);
}

/* Nothing is left to travel to once all is over, whatever timeouts were set. */
static void test_next_forgets_what_is_over(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct world *world = suite.world;
    CU_ASSERT_EQUAL(sim_net_next(world->net).ns, MONO_NEVER.ns);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    SUITE_UNTIL(&suite, client->is_closed && server->has_fin);
    CU_ASSERT_EQUAL(suite_close(server, false), 0);
    CU_ASSERT_EQUAL(sim_net_loop_next(suite.server->loop).ns, clock_mono(suite.clock).ns);
    SUITE_UNTIL(&suite, server->is_closed);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(sim_net_next(world->net).ns, MONO_NEVER.ns);
    CU_ASSERT(clock_mono(suite.clock).ns < 5 * NS_PER_S);
    suite_deinit(&suite);
}

NET_SUITE(sim_net, NET_SUITE_TESTS, test_same_seed_same_events, test_faults_strike,
          test_fault_kinds, test_dribble, test_lent_memory_is_watched, test_rules,
          test_next_forgets_what_is_over)
