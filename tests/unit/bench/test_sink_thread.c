/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_thread.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/limit_load.h"
#include "tests/harness.h"

/* The real sink and the real blaster over loopback. */
static struct sink_config sink_config;
static struct sink_thread *sink;
static struct net_addr sink_addr;

static void sink_start(struct sink_config config)
{
    sink_config = config;
    sink_config.policy.name = SPAN("sink");
    sink_config.conns_max = 64;
    struct net_addr any = {.family = NET_IP4, .bytes = {127, 0, 0, 1}};
    int result = sink_thread_create(&sink_config, 0, &any, &sink);
    if (result == -ENOSYS || result == -EPERM || result == -EOPNOTSUPP) {
        test_skip("no io_uring here");
    }
    CU_ASSERT_EQUAL_FATAL(result, 0);
    CU_ASSERT_EQUAL_FATAL(sink_thread_start(sink, &sink_addr), 0);
    CU_ASSERT(sink_addr.port != 0);
}

static struct limit_part blast(bool is_raw, uint64_t messages_count, size_t message_size)
{
    static struct limit_config config;
    config.load = limit_load_render(message_size);
    config.to = sink_addr;
    config.connections_count = 8;
    config.deadline = mono_add_ms(clock_mono(clock_system()), 60 * 1000);
    ensure(pthread_barrier_init(&config.ready, NULL, 1) == 0);
    struct limit_part part = {.config = &config, .messages_count = messages_count};
    (void)(is_raw ? limit_raw_main(&part) : limit_net_main(&part));
    ensure(pthread_barrier_destroy(&config.ready) == 0);
    limit_load_deinit(&config.load);
    return part;
}

/* The sink publishes its totals at the end of a turn; its end is the end of its last turn. */
static void totals_check(uint64_t messages_count, uint64_t bytes)
{
    sink_thread_stop_xcore(sink);
    const struct sink_totals *totals = sink_thread_totals(sink);
    struct mono_time deadline = mono_add_ms(clock_mono(clock_system()), 60 * 1000);
    while (stat_read_xcore(&totals->messages) < messages_count &&
           mono_before(clock_mono(clock_system()), deadline)) {
    }
    CU_ASSERT_EQUAL(stat_read_xcore(&totals->messages), messages_count);
    CU_ASSERT_EQUAL(stat_read_xcore(&totals->bytes), bytes);
    CU_ASSERT_EQUAL(stat_read_xcore(&totals->bad), 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&totals->overruns), 0);
    sink_thread_destroy(sink);
}

static void test_blast(void)
{
    for (int run = 0; run < 4; run++) {
        bool is_raw = run % 2 == 1;
        sink_start((struct sink_config){.record_fd = -1, .is_blind = run >= 2});
        struct limit_part part = blast(is_raw, 500, 70000);
        CU_ASSERT_PTR_NULL(part.error);
        totals_check(500, 500 * 70003);
    }
}

/* Every message that got its 250 has its line by then. */
static void test_record(void)
{
    FILE *file = tmpfile();
    sink_start((struct sink_config){.record_fd = fileno(file), .latency_ms = 1});
    struct limit_part part = blast(false, 100, 300);
    CU_ASSERT_PTR_NULL(part.error);
    rewind(file);
    uint32_t lines_count = 0;
    char line[1024];
    while (fgets(line, sizeof(line), file)) {
        lines_count += strstr(line, "\"from\":\"news@bench.example\"") != NULL ? 1 : 0;
    }
    CU_ASSERT_EQUAL(lines_count, 100);
    totals_check(100, 100 * 303);
    (void)fclose(file);
}

static void test_refusal_ends_the_blast(void)
{
    struct sink_config config = {.record_fd = -1};
    CU_ASSERT(sink_share_parse(SPAN("rcpt=451:100%"), &config.policy.shares[0]));
    config.policy.shares_count = 1;
    sink_start(config);
    struct limit_part part = blast(false, 100, 300);
    CU_ASSERT_PTR_NOT_NULL(part.error);
    sink_thread_destroy(sink);
}

SUITE(sink_thread, test_blast, test_record, test_refusal_ends_the_blast)
