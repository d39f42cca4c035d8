/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The countdown over the engine's allocations (T11), from its start to its orderly end: once, and
 * from one on for a while. A start without memory says so and leaves all as it was; an engine that
 * is up waits and goes on. Nobody's mail comes to another end by it, no batch is refused, no line
 * of results is missing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/config.h"
#include "engine/message/template.h"
#include "queue/manifest.h"
#include "tests/sim/sim_countdown.h"
#include "tests/sim/sim_memory.h"

enum { KILL_AT = 420, WAIT_FOR_OPS = 300 };

/* What the start that may fail finds. */
enum past { PAST_STOPPED_EARLY, PAST_STOPPED, PAST_KILLED };
enum { PASTS_COUNT = PAST_KILLED + 1 };

/* ... and whether memory stays short. */
static int kind_of(enum past past, bool is_sticky)
{
    return (int)past + (is_sticky ? PASTS_COUNT : 0);
}

static void live_before(struct sim_engine *sim, enum past past)
{
    uint64_t end = sim_disk_ops_count(sim->disk) + WAIT_FOR_OPS;
    struct mono_time limit = mono_add_ns(sim->clock.mono, COUNTDOWN_LIFE_MAX_S * NS_PER_S);
    switch (past) {
    case PAST_STOPPED_EARLY:
        break;
    case PAST_STOPPED:
        while (sim_disk_ops_count(sim->disk) < end && sim_engine_turn(sim, limit)) {
        }
        break;
    case PAST_KILLED:
        sim_engine_crash_at(sim, KILL_AT, false);
        CU_ASSERT_FATAL(
            sim_engine_run_until(sim, countdown_is_down, COUNTDOWN_LIFE_MAX_S * NS_PER_S));
        return;
    }
    countdown_stop(sim);
}

/* A start that memory is short for says so; the next one has enough of it. */
static void boot(struct sim_engine *sim, uint64_t n, bool is_sticky)
{
    sim_memory_fail_at(n, is_sticky);
    int result = sim_engine_boot(sim);
    if (result != 0 && (result != -ENOMEM || sim_memory.failures_count == 0)) {
        sim_violation(sim, "the start says %d %s", result, sim->errors);
    }
    if (result != 0) {
        sim_memory.fail_left = 0;
        CU_ASSERT_EQUAL_FATAL(sim_engine_boot(sim), 0);
    }
}

static void run_out(struct sim_engine *sim)
{
    if (sim_memory.is_sticky) {
        (void)sim_engine_run_until(sim, countdown_is_down_or_idle, COUNTDOWN_WAIT_S * NS_PER_S);
        sim_memory.fail_left = 0;
    }
    bool is_over =
        sim_engine_run_until(sim, countdown_is_down_or_idle, COUNTDOWN_LIFE_MAX_S * NS_PER_S);
    if (!sim->is_up) {
        sim_violation(sim, "the engine has stopped itself");
    }
    if (!is_over) {
        sim_violation(sim, "not all comes to its end");
    }
}

/* Returns whether the fault was met. */
static bool live(const struct config *defaults, int kind, uint64_t n)
{
    bool is_sticky = kind >= PASTS_COUNT;
    sim_memory.failures_count = 0;
    sim_memory_fail_at(0, false);
    struct sim_engine *sim = countdown_world(defaults);
    struct sim_book book;
    sim_book_init(&book, sim);
    countdown_submit(&book, "one", SIM_NDJSON);
    countdown_submit(&book, "two", SIM_CSV);
    countdown_submit(&book, "three", SIM_BSMTP);
    live_before(sim, (enum past)(kind % PASTS_COUNT));
    boot(sim, n, is_sticky);
    run_out(sim);
    countdown_stop(sim);
    sim_memory_fail_at(0, false);
    countdown_settle_up(&book, n);
    return sim_memory.failures_count > 0;
}

static void test_each_allocation_fails(void)
{
    countdown_run(live, kind_of(PAST_STOPPED_EARLY, false), 1, 100);
}

static void test_each_allocation_fails_behind_a_stop(void)
{
    countdown_run(live, kind_of(PAST_STOPPED, false), 2, 100);
}

static void test_each_allocation_fails_behind_a_crash(void)
{
    countdown_run(live, kind_of(PAST_KILLED, false), 1, 100);
}

static void test_memory_is_short_from_each_allocation_on(void)
{
    countdown_run(live, kind_of(PAST_STOPPED_EARLY, true), 3, 100);
}

static void test_memory_is_short_from_each_allocation_on_behind_a_crash(void)
{
    countdown_run(live, kind_of(PAST_KILLED, true), 5, 100);
}

/* Cancelled while it waits for memory to be opened: the order is not lost. */
static void test_cancelled_while_it_waits_for_memory(void)
{
    struct sim_engine *sim = countdown_world(NULL);
    struct sim_book book;
    sim_book_init(&book, sim);
    sim_memory_fail_at(1, true);
    uint32_t batch = sim_book_submit_simple(&book, "b", COUNTDOWN_RECIPIENTS, NULL, "one.example",
                                            SIM_CANCELLED);
    sim_engine_run(sim, 120 * NS_PER_S);
    sim_book_order(&book, batch, "cancel");
    sim_engine_run(sim, 120 * NS_PER_S);
    sim_memory_fail_at(0, false);
    run_out(sim);
    CU_ASSERT_EQUAL(sim_book_entry(&book, batch, 0)->deliveries, 0);
    countdown_settle_up(&book, 0);
}

/* What is compiled has failed for want of memory, and for nothing else. */

static const char MESSAGE[] =
    "From: =?utf-8?q?N=C3=A4mes?= <{{from}}@sender.example>\r\n"
    "Subject: =?iso-8859-1?q?=E4?= {{subject|none}}\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: multipart/alternative; boundary=b\r\n\r\n"
    "--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n\r\nHello {{n}} =E4=\r\n you\r\n"
    "--b\r\nContent-Type: text/html; charset=utf-8\r\n"
    "Content-Transfer-Encoding: base64\r\n\r\nPGI+e3tufX08L2I+\r\n--b--\r\n";

static bool compile(void)
{
    const struct template_options options = {.batch_id = SPAN("b")};
    struct template_problem problem = {.line = 0};
    (void)sim_memory_enter(true);
    struct template *template = template_compile(span_of_text(MESSAGE), &options, &problem);
    (void)sim_memory_enter(false);
    CU_ASSERT((template != NULL) != problem.is_memory_short);
    template_destroy(template);
    return template != NULL;
}

static bool compile_line(void)
{
    struct template_problem problem = {.line = 0};
    (void)sim_memory_enter(true);
    struct template *template = template_compile_line(SPAN("bounce-{{n}}@a.example"), &problem);
    (void)sim_memory_enter(false);
    CU_ASSERT((template != NULL) != problem.is_memory_short);
    template_destroy(template);
    return template != NULL;
}

static bool parse_manifest(void)
{
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    (void)sim_memory_enter(true);
    struct manifest *manifest =
        manifest_parse(SPAN("{\"v\":1,\"kind\":\"merge\",\"from\":\"a@b.example\",\"tenant\":\"t\","
                            "\"vars\":{\"year\":\"2026\",\"deep\":{\"list\":[1,\"two\"]}}}"),
                       SPAN("name"), &errors);
    (void)sim_memory_enter(false);
    CU_ASSERT_EQUAL(writer_size(&errors), 0);
    manifest_destroy(manifest);
    return manifest != NULL;
}

static bool read_columns(void)
{
    struct scan_problem problem = {.is_fatal = false};
    (void)sim_memory_enter(true);
    struct scan_columns *columns = scan_columns_create(SPAN("to,\"a b\",n\n"), &problem);
    (void)sim_memory_enter(false);
    CU_ASSERT((columns != NULL) != problem.is_memory_short);
    scan_columns_destroy(columns);
    return columns != NULL;
}

static bool read_config_at(const char *path)
{
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    (void)sim_memory_enter(true);
    struct config *config = config_read(path, &errors);
    (void)sim_memory_enter(false);
    CU_ASSERT((config != NULL) != (writer_size(&errors) > 0));
    config_destroy(config);
    return config != NULL;
}

static bool read_defaults(void)
{
    return read_config_at(NULL);
}

static bool read_config_file(void)
{
    static const char TEXT[] = "node { hostname = mx.sender.example }\n"
                               "source a { address = 192.0.2.1  ehlo = a.sender.example }\n"
                               "source b { address = 192.0.2.2 }\n"
                               "route Big.example { host = {\"h.example:2525\", \"192.0.2.3\"} }\n"
                               "route \"*.other.example\" { rate = 10/s }\n";
    char path[64];
    int fd = memfd_create("config", MFD_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0);
    CU_ASSERT_EQUAL_FATAL(write(fd, TEXT, strlen(TEXT)), (ssize_t)strlen(TEXT));
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    bool is_read = read_config_at(path);
    (void)close(fd);
    return is_read;
}

static void test_nothing_is_blamed_but_memory(void)
{
    static bool (*const MAKES[])(void) = {compile,      compile_line,  parse_manifest,
                                          read_columns, read_defaults, read_config_file};
    for (size_t i = 0; i < COUNT_OF(MAKES); i++) {
        bool is_made = false;
        sim_memory.failures_count = 0;
        for (uint64_t n = 1; sim_memory.failures_count == n - 1; n++) {
            sim_memory_fail_at(n, false);
            is_made = MAKES[i]();
        }
        sim_memory_fail_at(0, false);
        CHECK_ROW(i, is_made);
        CHECK_ROW(i, sim_memory.failures_count > 1);
    }
}

SUITE(sim_countdown_memory, test_nothing_is_blamed_but_memory,
      test_cancelled_while_it_waits_for_memory, test_each_allocation_fails,
      test_each_allocation_fails_behind_a_stop, test_each_allocation_fails_behind_a_crash,
      test_memory_is_short_from_each_allocation_on,
      test_memory_is_short_from_each_allocation_on_behind_a_crash)
