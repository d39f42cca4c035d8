/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_attempts.h"

#include <pthread.h>

#include "tests/harness.h"

static void test_counts(void)
{
    struct sink_attempts *attempts = sink_attempts_create();
    CU_ASSERT_PTR_NOT_NULL_FATAL(attempts);
    for (uint32_t i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(sink_attempts_count_xcore(attempts, SPAN("a@b")), i);
        CU_ASSERT_EQUAL(sink_attempts_count_xcore(attempts, SPAN("c@d")), i);
    }
    sink_attempts_destroy(attempts);
}

/* Far more addresses than places: what finds none counts as seen often, and nothing else breaks. */
static void test_full(void)
{
    struct sink_attempts *attempts = sink_attempts_create();
    CU_ASSERT_PTR_NOT_NULL_FATAL(attempts);
    uint32_t refused_count = 0;
    for (uint32_t i = 0; i < 2 * SINK_ATTEMPTS_MAX; i++) {
        uint32_t count = sink_attempts_count_xcore(attempts, span_of(&i, sizeof(i)));
        CU_ASSERT(count == 0 || count == UINT32_MAX);
        refused_count += count == UINT32_MAX ? 1 : 0;
    }
    CU_ASSERT(refused_count >= SINK_ATTEMPTS_MAX);
    uint32_t first = 0;
    CU_ASSERT_EQUAL(sink_attempts_count_xcore(attempts, span_of(&first, sizeof(first))), 1);
    sink_attempts_destroy(attempts);
}

enum { RACE_TURNS = 20000 };

static void *race_main(void *attempts)
{
    for (uint32_t i = 0; i < RACE_TURNS; i++) {
        (void)sink_attempts_count_xcore(attempts, SPAN("a@b"));
        (void)sink_attempts_count_xcore(attempts, span_of(&i, sizeof(i)));
    }
    return NULL;
}

/* No count is lost between threads, and no address gets two places. */
static void test_race(void)
{
    struct sink_attempts *attempts = sink_attempts_create();
    pthread_t other;
    CU_ASSERT_PTR_NOT_NULL_FATAL(attempts);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&other, NULL, race_main, attempts), 0);
    (void)race_main(attempts);
    CU_ASSERT_EQUAL(pthread_join(other, NULL), 0);
    CU_ASSERT_EQUAL(sink_attempts_count_xcore(attempts, SPAN("a@b")), 2 * RACE_TURNS);
    for (uint32_t i = 0; i < RACE_TURNS; i++) {
        CU_ASSERT_EQUAL(sink_attempts_count_xcore(attempts, span_of(&i, sizeof(i))), 2);
    }
    sink_attempts_destroy(attempts);
}

SUITE(sink_attempts, test_counts, test_full, test_race)
