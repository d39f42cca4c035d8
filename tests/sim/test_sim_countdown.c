/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault countdown (style 3.12): one life of an engine, from a batch in the spool to done/, over and
 * over; each time the world ends, or the disk fails, an operation later, until a life is
 * untouched. Segments are so small that checkpoints are written all the time, and the engine that
 * comes after a crash crashes too, somewhere in its recovery. The book's account holds each life to
 * the law, and no line of results may be missing but where the disk has failed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/sim/sim_book.h"

enum { BOOTS_MAX = 8, RECIPIENTS = 16, SECOND_MAX = 151, LIFE_MAX_S = 6 * 86400, WAIT_S = 400 };

enum fate {
    FATE_KILLED,
    FATE_POWER_LOSS,
    FATE_STOPPED,   /* killed, stopped in order, and then the power fails */
    FATE_RESTARTED, /* stopped in order, and then the power fails */
    FATE_ERROR,
    FATE_NO_SPACE,
    FATE_BROKEN,
};

static void choose(void *context, uint32_t index, struct sim_choice *ret_choice)
{
    (void)context;
    static const struct sim_choice CHOICES[] = {
        {.script = NULL, .ends = SIM_DELIVERED},
        {.script = "rcpt451x2", .ends = SIM_DELIVERED},
        {.script = NULL, .ends = SIM_DELIVERED},
        {.script = "rcpt550", .ends = SIM_BOUNCED},
        {.script = "dot451x1", .ends = SIM_DELIVERED},
    };
    *ret_choice = CHOICES[index % COUNT_OF(CHOICES)];
    ret_choice->domain = "one.example";
}

static struct sim_engine *world(const struct config *defaults)
{
    const struct sim_engine_config config = {
        .seed = 1,
        .net = {.delay_min_ns = 5 * NS_PER_MS, .delay_max_ns = 20 * NS_PER_MS},
        .dns = {.delay_min_ns = NS_PER_MS, .delay_max_ns = 30 * NS_PER_MS, .timeout_ns = NS_PER_S},
        .disk_delay_max_ns = NS_PER_MS,
        .lazy_max_ns = 60 * NS_PER_S,
        .defaults = defaults,
        .is_traced = getenv("SIM_TRACE") != NULL,
    };
    struct sim_engine *sim = sim_engine_create(&config);
    (void)sim_peers_add(sim->peers, "20.0.0.1");
    sim_dns_add(sim->dns, "one.example", DNS_MX, 300, "10 mx.one.example");
    sim_dns_add(sim->dns, "mx.one.example", DNS_A, 300, "20.0.0.1");
    sim->config.journal_segment_size = JOURNAL_SEGMENT_SIZE_MIN;
    sim->config.journal_segments_max = 1;
    CU_ASSERT_EQUAL_FATAL(sim_engine_boot(sim), 0);
    return sim;
}

static void submit(struct sim_book *book, const char *id)
{
    const struct sim_plan plan = {
        .id = id, .kind = SIM_NDJSON, .count = RECIPIENTS, .body_size = 200, .choose = choose};
    (void)sim_book_submit(book, &plan);
}

static bool is_down_or_idle(struct sim_engine *sim)
{
    return !sim->is_up || sim_engine_is_idle(sim);
}

static bool is_down(struct sim_engine *sim)
{
    return !sim->is_up;
}

static void boot_again(struct sim_engine *sim)
{
    int result = -EINTR;
    for (int tries = 0; tries < BOOTS_MAX && result != 0; tries++) {
        result = sim_engine_boot(sim);
        sim_disk_fail_at(sim->disk, 0, 0, false); /* an error fails one start, and is mended */
    }
    if (result != 0) {
        sim_violation(sim, "the engine does not start: %d %s", result, sim->errors);
    }
}

static void meet(struct sim_book *book, enum fate fate, uint64_t n)
{
    struct sim_engine *sim = book->sim;
    switch (fate) {
    case FATE_KILLED:
    case FATE_STOPPED:
        sim_engine_crash_at(sim, n, false);
        return;
    case FATE_POWER_LOSS:
        book->had_power_loss = true;
        sim_engine_crash_at(sim, n, true);
        return;
    case FATE_ERROR:
    case FATE_NO_SPACE:
    case FATE_BROKEN:
        book->had_disk_faults = true;
        sim_disk_fail_at(sim->disk, n, fate == FATE_NO_SPACE ? -ENOSPC : -EIO, fate == FATE_BROKEN);
        return;
    case FATE_RESTARTED:
        break; /* restart_behind */
    }
    ensure(false);
}

/* A stop and a start behind the crash, so that what recovery had begun goes through them. */
static void stop_in_order(struct sim_engine *sim)
{
    sim_engine_stop(sim);
    if (!sim_engine_run_until(sim, is_down, 3600 * NS_PER_S)) {
        sim_violation(sim, "the engine does not stop");
    }
}

/* The first n operations of the disk, an orderly stop, and a start with the power about to fail:
 * what the stop has left is on stable storage, or nobody looks for it. Returns whether there were
 * so many. */
static bool restart_behind(struct sim_book *book, uint64_t n)
{
    struct sim_engine *sim = book->sim;
    uint64_t end = sim_disk_ops_count(sim->disk) + n;
    while (sim_disk_ops_count(sim->disk) < end && !sim_engine_is_idle(sim)) {
        if (!sim_engine_turn(sim, mono_add_ns(sim->clock.mono, (int64_t)LIFE_MAX_S * NS_PER_S))) {
            break;
        }
    }
    bool is_met = sim_disk_ops_count(sim->disk) >= end;
    stop_in_order(sim);
    meet(book, FATE_POWER_LOSS, 1 + n * 7 % SECOND_MAX);
    boot_again(sim);
    return is_met;
}

/* Returns whether the fault was met. */
static bool live(const struct config *defaults, enum fate fate, uint64_t n)
{
    struct sim_engine *sim = world(defaults);
    struct sim_book book;
    sim_book_init(&book, sim);
    submit(&book, "one");
    submit(&book, "two");
    bool is_met = false;
    if (fate == FATE_RESTARTED) {
        is_met = restart_behind(&book, n);
    } else {
        meet(&book, fate, n);
    }
    if (fate == FATE_BROKEN) {
        /* An engine that has nothing to write may wait for better times; they come. */
        (void)sim_engine_run_until(sim, is_down_or_idle, WAIT_S * NS_PER_S);
        sim_disk_fail_at(sim->disk, 0, 0, false);
    }
    int64_t end_ns = sim->clock.mono.ns + (int64_t)LIFE_MAX_S * NS_PER_S;
    uint32_t downs = 0;
    while (
        sim->clock.mono.ns < end_ns &&
        (!sim_engine_run_until(sim, is_down_or_idle, end_ns - sim->clock.mono.ns) || !sim->is_up)) {
        if (sim->is_up) {
            sim_violation(sim, "fate %d, operation %llu: not all comes to its end", (int)fate,
                          (unsigned long long)n);
        }
        downs++;
        if (downs == 1 && fate <= FATE_STOPPED) {
            meet(&book, fate, 1 + n * 7 % SECOND_MAX);
        }
        boot_again(sim);
        if (downs == 2 && fate == FATE_STOPPED) {
            stop_in_order(sim);
            meet(&book, FATE_POWER_LOSS, 200 + n % SECOND_MAX);
            boot_again(sim);
        }
    }
    CHECK_ROW(n, downs <= BOOTS_MAX);
    is_met = fate == FATE_RESTARTED ? is_met : downs > 0 || sim_disk_failures_count(sim->disk) > 0;
    sim_disk_fail_at(sim->disk, 0, 0, false);
    sim_disk_stop_at(sim->disk, 0);
    sim_book_settle_up(&book);
    CHECK_ROW(n, book.had_disk_faults || book.totals.results_missing == 0);
    CHECK_ROW(n, book.totals.results_twice == 0);
    sim_book_deinit(&book);
    sim_engine_destroy(sim);
    return is_met;
}

static void count_down(enum fate fate, uint64_t stride)
{
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    struct config *defaults = config_read(NULL, &errors);
    CU_ASSERT_PTR_NOT_NULL_FATAL(defaults);
    uint64_t n = 1;
    while (live(defaults, fate, n)) {
        n += stride;
    }
    CU_ASSERT(n > 100);
    config_destroy(defaults);
}

static void test_killed_behind_each_operation(void)
{
    count_down(FATE_KILLED, 1);
}

static void test_power_lost_behind_each_operation(void)
{
    count_down(FATE_POWER_LOSS, 1);
}

static void test_stopped_in_order_behind_each_crash(void)
{
    count_down(FATE_STOPPED, 3);
}

static void test_restarted_in_order_behind_each_operation(void)
{
    count_down(FATE_RESTARTED, 2);
}

static void test_each_operation_fails(void)
{
    count_down(FATE_ERROR, 2);
}

static void test_no_space_for_each_operation(void)
{
    count_down(FATE_NO_SPACE, 2);
}

static void test_everything_fails_from_each_operation_on(void)
{
    count_down(FATE_BROKEN, 5);
}

SUITE(sim_countdown, test_killed_behind_each_operation, test_power_lost_behind_each_operation,
      test_stopped_in_order_behind_each_crash, test_restarted_in_order_behind_each_operation,
      test_each_operation_fails, test_no_space_for_each_operation,
      test_everything_fails_from_each_operation_on)
