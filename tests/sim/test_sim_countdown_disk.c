/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The countdown over the operations of the disk (T3, T6): the world ends behind each, or each
 * fails; and the engine that comes after a crash crashes too, somewhere in its recovery.
 */
#include <errno.h>

#include "tests/sim/sim_countdown.h"

enum { BOOTS_MAX = 8, SECOND_MAX = 151 };

enum fate {
    FATE_KILLED,
    FATE_POWER_LOSS,
    FATE_STOPPED,   /* killed, stopped in order, and then the power fails */
    FATE_RESTARTED, /* stopped in order, and then the power fails */
    FATE_ERROR,
    FATE_NO_SPACE,
    FATE_BROKEN,
};

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

/* The first n operations of the disk, an orderly stop, and a start with the power about to fail:
 * what the stop has left is on stable storage, or nobody looks for it. Returns whether there were
 * so many. */
static bool restart_behind(struct sim_book *book, uint64_t n)
{
    struct sim_engine *sim = book->sim;
    uint64_t end = sim_disk_ops_count(sim->disk) + n;
    while (sim_disk_ops_count(sim->disk) < end && !sim_engine_is_idle(sim)) {
        if (!sim_engine_turn(
                sim, mono_add_ns(sim->clock.mono, (int64_t)COUNTDOWN_LIFE_MAX_S * NS_PER_S))) {
            break;
        }
    }
    bool is_met = sim_disk_ops_count(sim->disk) >= end;
    countdown_stop(sim);
    meet(book, FATE_POWER_LOSS, 1 + n * 7 % SECOND_MAX);
    boot_again(sim);
    return is_met;
}

/* Behind everything: what was handed back is on stable storage, also of a file whose sync has
 * failed. */
static void lose_power_at_last(struct sim_book *book, int64_t end_ns)
{
    struct sim_engine *sim = book->sim;
    meet(book, FATE_POWER_LOSS, 1);
    (void)sim_engine_run_until(sim, countdown_is_down, end_ns - sim->clock.mono.ns);
    boot_again(sim);
    (void)sim_engine_run_until(sim, countdown_is_down_or_idle, end_ns - sim->clock.mono.ns);
}

/* Returns whether the fault was met. */
static bool live(const struct config *defaults, int kind, uint64_t n)
{
    enum fate fate = (enum fate)kind;
    struct sim_engine *sim = countdown_world(defaults);
    struct sim_book book;
    sim_book_init(&book, sim);
    countdown_submit(&book, "one", SIM_NDJSON);
    countdown_submit(&book, "two", SIM_NDJSON);
    bool is_met = false;
    if (fate == FATE_RESTARTED) {
        is_met = restart_behind(&book, n);
    } else {
        meet(&book, fate, n);
    }
    if (fate == FATE_BROKEN) {
        /* An engine that has nothing to write may wait for better times; they come. */
        (void)sim_engine_run_until(sim, countdown_is_down_or_idle, COUNTDOWN_WAIT_S * NS_PER_S);
        sim_disk_fail_at(sim->disk, 0, 0, false);
    }
    int64_t end_ns = sim->clock.mono.ns + (int64_t)COUNTDOWN_LIFE_MAX_S * NS_PER_S;
    uint32_t downs = 0;
    while (sim->clock.mono.ns < end_ns &&
           (!sim_engine_run_until(sim, countdown_is_down_or_idle, end_ns - sim->clock.mono.ns) ||
            !sim->is_up)) {
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
            countdown_stop(sim);
            meet(&book, FATE_POWER_LOSS, 200 + n % SECOND_MAX);
            boot_again(sim);
        }
    }
    CHECK_ROW(n, downs <= BOOTS_MAX);
    is_met = fate == FATE_RESTARTED ? is_met : downs > 0 || sim_disk_failures_count(sim->disk) > 0;
    sim_disk_fail_at(sim->disk, 0, 0, false);
    if (fate == FATE_ERROR || fate == FATE_BROKEN) {
        lose_power_at_last(&book, end_ns);
    }
    sim_disk_stop_at(sim->disk, 0);
    countdown_settle_up(&book, n);
    return is_met;
}

static void test_killed_behind_each_operation(void)
{
    countdown_run(live, FATE_KILLED, 1, 100);
}

static void test_power_lost_behind_each_operation(void)
{
    countdown_run(live, FATE_POWER_LOSS, 1, 100);
}

static void test_stopped_in_order_behind_each_crash(void)
{
    countdown_run(live, FATE_STOPPED, 3, 100);
}

static void test_restarted_in_order_behind_each_operation(void)
{
    countdown_run(live, FATE_RESTARTED, 2, 100);
}

static void test_each_operation_fails(void)
{
    countdown_run(live, FATE_ERROR, 2, 100);
}

static void test_no_space_for_each_operation(void)
{
    countdown_run(live, FATE_NO_SPACE, 2, 100);
}

static void test_everything_fails_from_each_operation_on(void)
{
    countdown_run(live, FATE_BROKEN, 5, 100);
}

SUITE(sim_countdown, test_killed_behind_each_operation, test_power_lost_behind_each_operation,
      test_stopped_in_order_behind_each_crash, test_restarted_in_order_behind_each_operation,
      test_each_operation_fails, test_no_space_for_each_operation,
      test_everything_fails_from_each_operation_on)
