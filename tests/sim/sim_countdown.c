/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_countdown.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

struct sim_engine *countdown_world(const struct config *defaults)
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

void countdown_submit(struct sim_book *book, const char *id, enum sim_kind kind)
{
    const struct sim_plan plan = {
        .id = id, .kind = kind, .count = COUNTDOWN_RECIPIENTS, .body_size = 200, .choose = choose};
    (void)sim_book_submit(book, &plan);
}

bool countdown_is_down_or_idle(struct sim_engine *sim)
{
    return !sim->is_up || sim_engine_is_idle(sim);
}

bool countdown_is_down(struct sim_engine *sim)
{
    return !sim->is_up;
}

void countdown_stop(struct sim_engine *sim)
{
    sim_engine_stop(sim);
    if (!sim_engine_run_until(sim, countdown_is_down, 3600 * NS_PER_S)) {
        sim_violation(sim, "the engine does not stop");
    }
}

void countdown_settle_up(struct sim_book *book, uint64_t n)
{
    struct sim_engine *sim = book->sim;
    sim_book_settle_up(book);
    CHECK_ROW(n, book->totals.results_missing == 0);
    CHECK_ROW(n, book->totals.results_twice == 0);
    sim_book_deinit(book);
    sim_engine_destroy(sim);
}

/* Sanitizers look for other things, and are slow. */
#ifdef __SANITIZE_ADDRESS__
enum { STEP_FACTOR = 3 };
#else
enum { STEP_FACTOR = 1 };
#endif

/* The life under way, for who looks for what was wrong with it. */
static char life_name[64];

static void on_abort(int signal_number)
{
    (void)signal_number;
    ssize_t written = write(STDERR_FILENO, life_name, strlen(life_name));
    (void)written;
}

void countdown_run(bool (*live)(const struct config *defaults, int kind, uint64_t n), int kind,
                   uint64_t step, uint64_t least)
{
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    struct config *defaults = config_read(NULL, &errors);
    CU_ASSERT_PTR_NOT_NULL_FATAL(defaults);
    const struct sigaction action = {.sa_handler = on_abort};
    CU_ASSERT_EQUAL(sigaction(SIGABRT, &action, NULL), 0);
    const char *wanted = getenv("SIM_COUNTDOWN");
    int only_kind = -1;
    unsigned long long only_n = 0;
    bool is_only = wanted != NULL && sscanf(wanted, "%d:%llu", &only_kind, &only_n) == 2;
    step = wanted != NULL && strcmp(wanted, "all") == 0 ? 1 : step * STEP_FACTOR;
    uint64_t n = is_only ? only_n : 1;
    bool is_met = !is_only || kind == only_kind;
    while (is_met) {
        (void)snprintf(life_name, sizeof(life_name), "replay: SIM_COUNTDOWN=%d:%llu SIM_TRACE=1\n",
                       kind, (unsigned long long)n);
        is_met = live(defaults, kind, n) && !is_only;
        n += step;
    }
    CU_ASSERT(is_only || n > least);
    config_destroy(defaults);
}
