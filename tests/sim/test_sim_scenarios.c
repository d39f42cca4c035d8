/* SPDX-License-Identifier: Apache-2.0 */
/* One promise of the engine a test, in a world where nothing happens by chance but delays. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/sim/sim_book.h"

enum { MINUTE_S = 60, HOUR_S = 3600, DAY_S = 24 * HOUR_S };

/* An engine, not booted yet, with one host for one.example and one for two.example. */
struct world {
    struct sim_engine *sim;
    struct sim_book book;
    struct sim_peer *host;  /* 20.0.0.1 */
    struct sim_peer *other; /* 20.0.0.2 */
};

static void domain_add(struct world *world, const char *name, const char *host, const char *addr)
{
    char mx[64];
    (void)snprintf(mx, sizeof(mx), "10 %s", host);
    sim_dns_add(world->sim->dns, name, DNS_MX, 300, mx);
    sim_dns_add(world->sim->dns, host, DNS_A, 300, addr);
}

static void world_make(struct world *world)
{
    const struct sim_engine_config config = {
        .seed = 1,
        .net = {.delay_min_ns = 5 * NS_PER_MS, .delay_max_ns = 5 * NS_PER_MS},
        .dns = {.delay_min_ns = NS_PER_MS, .delay_max_ns = 30 * NS_PER_MS, .timeout_ns = NS_PER_S},
        .disk_delay_max_ns = NS_PER_MS,
        .lazy_max_ns = 60 * NS_PER_S,
        .is_traced = getenv("SIM_TRACE") != NULL,
    };
    *world = (struct world){.sim = sim_engine_create(&config)};
    sim_book_init(&world->book, world->sim);
    uint32_t first = sim_peers_add(world->sim->peers, "20.0.0.1");
    uint32_t second = sim_peers_add(world->sim->peers, "20.0.0.2");
    world->host = sim_peers_at(world->sim->peers, first);
    world->other = sim_peers_at(world->sim->peers, second);
    domain_add(world, "one.example", "mx.one.example", "20.0.0.1");
    domain_add(world, "two.example", "mx.two.example", "20.0.0.2");
}

static void world_boot(struct world *world)
{
    CU_ASSERT_EQUAL_FATAL(sim_engine_boot(world->sim), 0);
}

static void run_s(struct world *world, int64_t seconds)
{
    sim_engine_run(world->sim, seconds * NS_PER_S);
}

static int64_t now_ns(const struct world *world)
{
    return world->sim->clock.mono.ns;
}

/* All that was submitted has ended, within so many seconds; the account is made. */
static void world_end(struct world *world, int64_t seconds)
{
    CU_ASSERT(sim_engine_run_until(world->sim, sim_engine_is_idle, seconds * NS_PER_S));
    sim_book_settle_up(&world->book);
    sim_book_deinit(&world->book);
    sim_engine_destroy(world->sim);
}

static size_t mails_count(const struct world *world)
{
    size_t count;
    (void)sim_peers_log(world->sim->peers, &count);
    return count;
}

static void host_rule(struct world *world, const struct sim_peer *host, enum sim_net_rule rule)
{
    struct net_addr addr = host->addr;
    addr.port = 0;
    sim_net_rule_set(world->sim->net, &addr, rule);
}

/* Time. */

static void test_a_deferred_one_is_tried_again_when_it_is_due(void)
{
    struct world world;
    world_make(&world);
    struct config_route *route = &world.sim->routes[0];
    route->schedule.first_s = 15 * MINUTE_S;
    route->schedule.jitter_percent = 20;
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "late", 20, "dot451x1", "one.example", SIM_DELIVERED);
    while (world.host->connects_count == 0) {
        run_s(&world, 1);
    }
    run_s(&world, 12 * MINUTE_S - 2); /* what chance may take away: 20 % */
    CU_ASSERT_EQUAL(mails_count(&world), 0);
    run_s(&world, 3 * MINUTE_S + 10);
    CU_ASSERT_EQUAL(mails_count(&world), 20);
    world_end(&world, 600);
}

static void test_who_cannot_be_reached_expires_to_the_second(void)
{
    struct world world;
    world_make(&world);
    sim_dns_add(world.sim->dns, "broken.example", FAKE_SERVFAIL, 0, NULL);
    world.sim->routes[0].schedule.expire_s = 5 * DAY_S;
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "old", 10, NULL, "broken.example", SIM_EXPIRED);
    run_s(&world, 5 * DAY_S - 60);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 10);
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_idle, 600 * NS_PER_S));
    sim_book_settle_up(&world.book);
    for (uint32_t i = 0; i < 10; i++) {
        const struct sim_entry *entry = sim_book_entry(&world.book, batch, i);
        int64_t age_ns = entry->ended_at.ns - entry->accepted_at.ns;
        CHECK_ROW(i, entry->end == SIM_EXPIRED);
        CHECK_ROW(i, age_ns >= 5 * DAY_S * NS_PER_S - NS_PER_S);
        CHECK_ROW(i, age_ns <= (5 * DAY_S + 5) * NS_PER_S);
    }
    sim_book_deinit(&world.book);
    sim_engine_destroy(world.sim);
}

/* Orders. */

static void test_a_pause_holds_until_a_resume(void)
{
    struct world world;
    world_make(&world);
    world.sim->routes[0].rate_per_hour = 3600;
    world.sim->routes[0].rate_burst = 1;
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "held", 60, NULL, "one.example", SIM_DELIVERED);
    run_s(&world, 10);
    sim_book_order(&world.book, batch, "pause");
    run_s(&world, 90); /* the order is seen, and what was loaded goes on */
    size_t before = mails_count(&world);
    CU_ASSERT(before < 60);
    run_s(&world, 2 * HOUR_S);
    CU_ASSERT_EQUAL(mails_count(&world), before);
    sim_book_order(&world.book, batch, "resume");
    world_end(&world, HOUR_S);
}

static void test_a_cancel_ends_all_that_wait(void)
{
    struct world world;
    world_make(&world);
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "gone", 200, "rcpt451", "one.example", SIM_CANCELLED);
    (void)sim_book_submit_simple(&world.book, "stays", 20, "dot451x1", "one.example",
                                 SIM_DELIVERED);
    run_s(&world, 120); /* all are in the retry wheel */
    sim_book_order(&world.book, batch, "cancel");
    run_s(&world, 120);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 20);
    world_end(&world, 2 * HOUR_S);
}

/* Whoever was put off for an hour, and a site that rests for one, are tried within seconds. */
static void test_a_retry_waits_for_nothing(void)
{
    struct world world;
    world_make(&world);
    world.sim->config.workers_count = 3;
    struct config_route *route = &world.sim->routes[0];
    route->suspend_first_s = HOUR_S;
    route->suspend_max_s = HOUR_S;
    route->schedule.first_s = HOUR_S;
    world_boot(&world);
    uint32_t later = sim_book_submit_simple(&world.book, "later", 200, "rcpt451x1", "one.example",
                                            SIM_DELIVERED);
    run_s(&world, 90); /* it is seen by then, as each order is */
    host_rule(&world, world.host, SIM_REFUSING);
    uint32_t unreached =
        sim_book_submit_simple(&world.book, "unreached", 200, NULL, "one.example", SIM_DELIVERED);
    run_s(&world, 90);
    sim_book_order(&world.book, unreached, "retry"); /* in vain: all of it fails and waits again */
    run_s(&world, 90);
    CU_ASSERT_EQUAL(mails_count(&world), 0);
    host_rule(&world, world.host, SIM_NORMAL);
    run_s(&world, 600);
    CU_ASSERT_EQUAL(mails_count(&world), 0);
    sim_book_order(&world.book, unreached, "retry");
    run_s(&world, 90);
    CU_ASSERT_EQUAL(mails_count(&world), 200);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 200);
    sim_book_order(&world.book, later, "retry");
    world_end(&world, 300);
}

static bool has_mail(struct sim_engine *sim)
{
    size_t count;
    (void)sim_peers_log(sim->peers, &count);
    return count > 0;
}

/* LAW 6: who is not due may have been tried all the same. */
static void test_a_kill_behind_a_retry_is_told(void)
{
    struct world world;
    world_make(&world);
    world.sim->routes[0].schedule.first_s = 4 * HOUR_S;
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "again", 20, "rcpt451x1", "one.example", SIM_DELIVERED);
    run_s(&world, 60);
    sim_book_order(&world.book, batch, "retry");
    CU_ASSERT(sim_engine_run_until(world.sim, has_mail, HOUR_S * NS_PER_S));
    sim_engine_crash(world.sim, false);
    world_boot(&world);
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_idle, 6 * HOUR_S * NS_PER_S));
    sim_book_settle_up(&world.book);
    CU_ASSERT_EQUAL(world.book.totals.delivered, 20);
    CU_ASSERT(world.book.totals.repeats > 0);
    sim_book_deinit(&world.book);
    sim_engine_destroy(world.sim);
}

/* Sites. */

static void test_a_site_that_refuses_is_left_alone_and_comes_back(void)
{
    struct world world;
    world_make(&world);
    world.sim->config.workers_count = 3;
    struct config_route *route = &world.sim->routes[0];
    route->suspend_first_s = 60;
    route->suspend_max_s = 600;
    route->schedule.first_s = 300;
    route->schedule.ceiling_s = 600;
    host_rule(&world, world.host, SIM_REFUSING);
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "wait", 500, NULL, "one.example", SIM_DELIVERED);
    (void)sim_book_submit_simple(&world.book, "go", 50, NULL, "two.example", SIM_DELIVERED);
    run_s(&world, 2 * HOUR_S);
    CU_ASSERT_EQUAL(mails_count(&world), 50);
    /* A33: a suspension after each heap of connects, not one connect a recipient and retry. */
    uint64_t refused = sim_net_counts_of(world.sim->net).connects - world.other->connects_count;
    CU_ASSERT(refused >= 5);
    CU_ASSERT(refused <= 200);
    host_rule(&world, world.host, SIM_NORMAL);
    run_s(&world, 1300); /* a suspension, and a delay */
    CU_ASSERT_EQUAL(mails_count(&world), 550);
    world_end(&world, HOUR_S);
}

/* N2; nothing spins while what is to bounce is still being loaded. */
static void test_what_no_host_ever_takes_bounces(void)
{
    struct world world;
    world_make(&world);
    sim_peers_share(world.sim->peers, 0, "connect=521:100%");
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "never", 300, NULL, "one.example", SIM_BOUNCED);
    run_s(&world, 300);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 0);
    CU_ASSERT(world.host->connects_count <= 100);
    world_end(&world, 600);
}

static void test_the_rate_of_two_workers_is_that_of_the_site(void)
{
    enum { COUNT = 200, BURST = 5 };
    struct world world;
    world_make(&world);
    world.sim->config.workers_count = 2;
    struct config_route *route = &world.sim->routes[0];
    route->rate_per_hour = 3600;
    route->rate_burst = BURST;
    route->rcpts_max = 1;
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "even", COUNT, NULL, "one.example", SIM_DELIVERED);
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_done, HOUR_S * NS_PER_S));
    size_t count;
    const struct sim_mail *log = sim_peers_log(world.sim->peers, &count);
    CU_ASSERT_EQUAL_FATAL(count, COUNT);
    /* All messages take the same way, so the distances are those of their beginnings. */
    for (size_t i = 0; i + BURST < count; i++) {
        CHECK_ROW(i, log[i + BURST].at_ns - log[i].at_ns >= NS_PER_S - 30 * NS_PER_MS);
    }
    int64_t whole_ns = log[count - 1].at_ns - log[0].at_ns;
    CU_ASSERT(whole_ns >= (COUNT - BURST - 1) * NS_PER_S);
    CU_ASSERT(whole_ns <= (COUNT - BURST + 10) * NS_PER_S);
    world_end(&world, HOUR_S);
}

static void choose_domain(void *context, uint32_t index, struct sim_choice *ret_choice)
{
    (void)index;
    *ret_choice = (struct sim_choice){.domain = context, .ends = SIM_DELIVERED};
}

/* Who waits for the only connection must not hold the bytes that its holder waits for. */
static void test_two_sites_share_one_connection_and_little_memory(void)
{
    static char *const DOMAINS[] = {"one.example", "two.example"};
    static const char *const IDS[] = {"first", "second"};
    struct world world;
    world_make(&world);
    world.sim->config.workers_count = 1;
    world.sim->config.readahead_bytes_max = 1 << 16;
    world.sim->sources[0].connections_max = 1;
    world_boot(&world);
    for (size_t i = 0; i < COUNT_OF(DOMAINS); i++) {
        const struct sim_plan plan = {.id = IDS[i],
                                      .kind = SIM_BSMTP,
                                      .count = 60,
                                      .body_size = 30000,
                                      .rcpts_per_record = 1,
                                      .choose = choose_domain,
                                      .context = DOMAINS[i]};
        (void)sim_book_submit(&world.book, &plan);
    }
    run_s(&world, 600);
    CU_ASSERT_EQUAL(mails_count(&world), 120);
    world_end(&world, HOUR_S);
}

static void test_a_throttled_batch_does_not_starve_a_small_one(void)
{
    struct world world;
    world_make(&world);
    world.sim->config.sessions_max = 16;
    struct config_route *route = sim_engine_route(world.sim, "one.example");
    route->rate_per_hour = 3600;
    route->rate_burst = 1;
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "huge", 3000, NULL, "one.example", SIM_DELIVERED);
    run_s(&world, 60);
    uint64_t before = world.other->mails_count;
    (void)sim_book_submit_simple(&world.book, "small", 20, NULL, "two.example", SIM_DELIVERED);
    run_s(&world, 70); /* intake looks at the spool up to a minute late here */
    CU_ASSERT_EQUAL(world.other->mails_count - before, 20);
    CU_ASSERT(world.host->mails_count < 200);
    world_end(&world, 2 * HOUR_S);
}

/* Doubt. */

static void test_a_lost_250_is_repeated_with_the_same_bytes_and_told(void)
{
    struct world world;
    world_make(&world);
    sim_peers_share(world.sim->peers, 0, "dot=lost:100%");
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "lost", 1, NULL, "one.example", SIM_DELIVERED);
    run_s(&world, 120);
    CU_ASSERT_EQUAL(mails_count(&world), 1);
    world.host->policy.shares_count = 0;
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_idle, DAY_S * NS_PER_S));
    sim_book_settle_up(&world.book);
    const struct sim_entry *entry = sim_book_entry(&world.book, batch, 0);
    size_t count;
    const struct sim_mail *log = sim_peers_log(world.sim->peers, &count);
    CU_ASSERT_EQUAL_FATAL(count, 2);
    CU_ASSERT_EQUAL(log[0].hash, log[1].hash);
    CU_ASSERT_EQUAL(log[0].size, log[1].size);
    CU_ASSERT(entry->is_marked);
    CU_ASSERT_EQUAL(entry->ambiguous, 1);
    sim_book_deinit(&world.book);
    sim_engine_destroy(world.sim);
}

static bool is_down(struct sim_engine *sim)
{
    return !sim->is_up;
}

/* The mail is with the server, its answer not yet here: the stop waits for it. */
static void test_a_stop_waits_for_the_answer_behind_the_end_of_data(void)
{
    struct world world;
    world_make(&world);
    sim_peers_share(world.sim->peers, 0, "dot=slow20000:100%");
    world_boot(&world);
    uint32_t batch =
        sim_book_submit_simple(&world.book, "slow", 3, NULL, "one.example", SIM_DELIVERED);
    while (mails_count(&world) == 0) {
        run_s(&world, 1);
    }
    size_t count = mails_count(&world);
    int64_t asked_ns = now_ns(&world);
    sim_engine_stop(world.sim);
    CU_ASSERT(sim_engine_run_until(world.sim, is_down, 120 * NS_PER_S));
    CU_ASSERT(now_ns(&world) - asked_ns > 5 * NS_PER_S);
    CU_ASSERT_EQUAL(world.sim->exit_status, 0);
    CU_ASSERT_EQUAL(mails_count(&world), count); /* nothing was begun behind the order */
    world.host->policy.shares_count = 0;
    world_boot(&world);
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_idle, HOUR_S * NS_PER_S));
    sim_book_settle_up(&world.book);
    for (uint32_t i = 0; i < 3; i++) {
        const struct sim_entry *entry = sim_book_entry(&world.book, batch, i);
        CHECK_ROW(i, entry->deliveries == 1);
        CHECK_ROW(i, !entry->is_marked);
    }
    sim_book_deinit(&world.book);
    sim_engine_destroy(world.sim);
}

/* Names. */

static void test_domains_without_mail_bounce_at_once(void)
{
    struct world world;
    world_make(&world);
    sim_dns_add(world.sim->dns, "null.example", DNS_MX, 300, "0 .");
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "null", 5, NULL, "null.example", SIM_BOUNCED);
    (void)sim_book_submit_simple(&world.book, "none", 5, NULL, "missing.example", SIM_BOUNCED);
    run_s(&world, 90);
    CU_ASSERT_EQUAL(sim_net_counts_of(world.sim->net).connects, 0);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 0);
    world_end(&world, 600);
}

static void test_name_servers_that_fail_are_asked_again(void)
{
    struct world world;
    world_make(&world);
    sim_dns_add(world.sim->dns, "ill.example", FAKE_SERVFAIL, 0, NULL);
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "ill", 5, NULL, "ill.example", SIM_DELIVERED);
    run_s(&world, 600);
    CU_ASSERT_EQUAL(sim_engine_live(world.sim), 5);
    sim_dns_remove(world.sim->dns, "ill.example");
    sim_dns_add(world.sim->dns, "ill.example", DNS_MX, 300, "10 mx.one.example");
    run_s(&world, 20 * MINUTE_S);
    CU_ASSERT_EQUAL(mails_count(&world), 5);
    world_end(&world, 600);
}

/* The wall clock. */

static void clock_is_set(int64_t by_s)
{
    struct world world;
    world_make(&world);
    struct config_route *route = &world.sim->routes[0];
    route->schedule.first_s = 15 * MINUTE_S;
    route->schedule.expire_s = DAY_S;
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "late", 20, "dot451x2", "one.example", SIM_DELIVERED);
    run_s(&world, MINUTE_S);
    sim_engine_set_wall(world.sim, by_s * NS_PER_S);
    run_s(&world, 10 * MINUTE_S);
    CU_ASSERT_EQUAL(mails_count(&world), 0);
    run_s(&world, HOUR_S);
    CU_ASSERT_EQUAL(mails_count(&world), 20);
    world_end(&world, 600);
}

static void test_a_clock_set_back_makes_nobody_wait_longer(void)
{
    clock_is_set(-7 * DAY_S);
}

static void test_a_clock_set_forward_makes_nothing_expire(void)
{
    clock_is_set(40 * DAY_S);
}

/* Behind a restart the wall clock is all there is: a wait is no longer than any that is made. */
static void test_a_clock_set_back_over_a_restart_holds_nobody(void)
{
    struct world world;
    world_make(&world);
    struct config_route *route = &world.sim->routes[0];
    route->schedule.first_s = 15 * MINUTE_S;
    route->schedule.ceiling_s = HOUR_S;
    world_boot(&world);
    (void)sim_book_submit_simple(&world.book, "late", 20, "dot451x1", "one.example", SIM_DELIVERED);
    run_s(&world, MINUTE_S);
    sim_engine_crash(world.sim, false);
    sim_engine_set_wall(world.sim, -7 * DAY_S * NS_PER_S);
    world_boot(&world);
    run_s(&world, HOUR_S + MINUTE_S);
    CU_ASSERT_EQUAL(mails_count(&world), 20);
    world_end(&world, 600);
}

/* Disks. */

static void test_a_full_disk_loses_nothing_and_goes_on_with_room(void)
{
    struct world world;
    world_make(&world);
    world_boot(&world);
    run_s(&world, 5);
    for (uint32_t i = 0; i < 4; i++) {
        char id[16];
        (void)snprintf(id, sizeof(id), "full%u", i);
        (void)sim_book_submit_simple(&world.book, id, 100, NULL, "one.example", SIM_DELIVERED);
    }
    sim_disk_set_free(world.sim->disk, 0);
    run_s(&world, HOUR_S);
    sim_disk_set_free(world.sim->disk, UINT64_C(1) << 30);
    if (!world.sim->is_up) { /* the journal found no room: it may not go on in this life */
        world_boot(&world);
    }
    CU_ASSERT(sim_engine_run_until(world.sim, sim_engine_is_idle, 4 * HOUR_S * NS_PER_S));
    sim_book_settle_up(&world.book);
    CU_ASSERT_EQUAL(world.book.totals.delivered, 400);
    CU_ASSERT_EQUAL(world.book.totals.repeats, 0);
    sim_book_deinit(&world.book);
    sim_engine_destroy(world.sim);
}

SUITE(sim_scenarios, test_a_deferred_one_is_tried_again_when_it_is_due,
      test_who_cannot_be_reached_expires_to_the_second, test_a_pause_holds_until_a_resume,
      test_a_cancel_ends_all_that_wait, test_a_retry_waits_for_nothing,
      test_a_kill_behind_a_retry_is_told, test_a_site_that_refuses_is_left_alone_and_comes_back,
      test_what_no_host_ever_takes_bounces, test_the_rate_of_two_workers_is_that_of_the_site,
      test_two_sites_share_one_connection_and_little_memory,
      test_a_throttled_batch_does_not_starve_a_small_one,
      test_a_lost_250_is_repeated_with_the_same_bytes_and_told,
      test_a_stop_waits_for_the_answer_behind_the_end_of_data,
      test_domains_without_mail_bounce_at_once, test_name_servers_that_fail_are_asked_again,
      test_a_clock_set_back_makes_nobody_wait_longer, test_a_clock_set_forward_makes_nothing_expire,
      test_a_clock_set_back_over_a_restart_holds_nobody,
      test_a_full_disk_loses_nothing_and_goes_on_with_room)
