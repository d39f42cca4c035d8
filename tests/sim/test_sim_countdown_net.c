/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The countdown over the operations of the network, and over the questions to name servers: each
 * fails once, or from one on for a while. Nobody's mail comes to another end by it: what may be
 * tried again is, a lost answer makes a repeat that is told as one, and no name server's failure is
 * taken as its word that there is nobody.
 */
#include "tests/sim/sim_countdown.h"

enum { KILL_AT = 420 };

struct fault {
    enum net_error error;   /* NET_OK: none */
    enum sim_dns_fate fate; /* SIM_DNS_ANSWER: none */
    bool is_sticky;
    bool is_behind_kill;
};

/* By kind. */
static const struct fault FAULTS[] = {
    {.error = NET_RESET},
    {.error = NET_TIMEOUT},
    {.error = NET_RESET, .is_sticky = true},
    {.error = NET_RESET, .is_behind_kill = true},
    {.error = NET_RESET, .is_sticky = true, .is_behind_kill = true},
    {.fate = SIM_DNS_FAIL},
    {.fate = SIM_DNS_TIMEOUT},
    {.fate = SIM_DNS_CUT},
    {.fate = SIM_DNS_OTHER},
    {.fate = SIM_DNS_FAIL, .is_sticky = true},
    {.fate = SIM_DNS_TIMEOUT, .is_sticky = true},
    {.fate = SIM_DNS_CUT, .is_sticky = true},
    {.fate = SIM_DNS_OTHER, .is_sticky = true},
    {.fate = SIM_DNS_FAIL, .is_sticky = true, .is_behind_kill = true},
    {.fate = SIM_DNS_OTHER, .is_behind_kill = true},
};

static void fail_at(struct sim_engine *sim, const struct fault *fault, uint64_t n)
{
    if (fault->error != NET_OK) {
        sim_net_fail_at(sim->net, n, fault->error, fault->is_sticky);
    } else {
        sim_dns_fail_at(sim->dns, n, fault->fate, fault->is_sticky);
    }
}

/* Returns whether the fault was met. */
static bool live(const struct config *defaults, int kind, uint64_t n)
{
    const struct fault *fault = &FAULTS[kind];
    struct sim_engine *sim = countdown_world(defaults);
    struct sim_book book;
    sim_book_init(&book, sim);
    countdown_submit(&book, "one", SIM_NDJSON);
    countdown_submit(&book, "two", SIM_BSMTP);
    if (fault->is_behind_kill) {
        sim_engine_crash_at(sim, KILL_AT, false);
        CU_ASSERT_FATAL(
            sim_engine_run_until(sim, countdown_is_down, COUNTDOWN_LIFE_MAX_S * NS_PER_S));
        CU_ASSERT_EQUAL_FATAL(sim_engine_boot(sim), 0);
    }
    fail_at(sim, fault, n);
    if (fault->is_sticky) {
        (void)sim_engine_run_until(sim, countdown_is_down_or_idle, COUNTDOWN_WAIT_S * NS_PER_S);
        fail_at(sim, fault, 0);
    }
    bool is_over =
        sim_engine_run_until(sim, countdown_is_down_or_idle, COUNTDOWN_LIFE_MAX_S * NS_PER_S);
    if (!is_over || !sim->is_up) {
        sim_violation(sim, "not all comes to its end");
    }
    bool is_met = sim_net_failures_count(sim->net) > 0 || sim->dns->failures_count > 0;
    countdown_stop(sim);
    countdown_settle_up(&book, n);
    return is_met;
}

static void test_each_operation_of_the_network_fails(void)
{
    for (int kind = 0; FAULTS[kind].error != NET_OK; kind++) {
        countdown_run(live, kind, FAULTS[kind].is_sticky ? 3 : 1, FAULTS[kind].is_sticky ? 1 : 100);
    }
}

static void test_each_question_comes_to_nothing(void)
{
    for (int kind = 0; kind < (int)COUNT_OF(FAULTS); kind++) {
        if (FAULTS[kind].error == NET_OK) {
            countdown_run(live, kind, 1, 1);
        }
    }
}

SUITE(sim_countdown_net, test_each_operation_of_the_network_fails,
      test_each_question_comes_to_nothing)
