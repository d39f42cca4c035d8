/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/ensure.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"

static uint64_t odd_count(const char *name)
{
    const char *row_name;
    uint64_t count;
    for (size_t i = 0; odd_row(i, &row_name, &count); i++) {
        if (strcmp(row_name, name) == 0) {
            return count;
        }
    }
    return 0;
}

static void test_ensure_passes(void)
{
    int calls_count = 0;
    ensure(++calls_count == 1);
    CU_ASSERT_EQUAL(calls_count, 1);
}

static void test_ensure_panics(void)
{
    CHECK_PANICS(ensure(1 + 1 == 3));
}

/* What a person sees: the place, the function and the expression, and then the abort. */
static void test_message(void)
{
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    (void)fflush(NULL);
    pid_t child = fork();
    CU_ASSERT_FATAL(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        ensure_fail("apples == pears", "fruit.c", 7, "compare");
    }
    (void)close(ends[1]);
    char text[256] = {0};
    ssize_t size = read(ends[0], text, sizeof(text) - 1);
    (void)close(ends[0]);
    int status;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    CU_ASSERT(size > 0);
    CU_ASSERT_STRING_EQUAL(text, "fruit.c:7: compare: ensure(apples == pears) failed\n");
    CU_ASSERT(WIFSIGNALED(status));
}

#ifdef RAMJET_SLOW_CHECKS
static void test_ensure_slow(void)
{
    CHECK_PANICS(ensure_slow(1 + 1 == 3));
}
#else
static void test_ensure_slow(void)
{
    int calls_count = 0;
    ensure_slow(++calls_count == 7);
    CU_ASSERT_EQUAL(calls_count, 0);
}
#endif

static void test_odd_counts_by_name(void)
{
    odd(stale_handle);
    odd(reply_unexpected);
    odd(stale_handle);
    CU_ASSERT_EQUAL(odd_count("stale_handle"), 2);
    CU_ASSERT_EQUAL(odd_count("reply_unexpected"), 1);
    CU_ASSERT_EQUAL(odd_count("never_seen"), 0);

    char same_name[] = "stale_handle"; /* equal text at another address */
    odd_count_xcore(same_name);
    CU_ASSERT_EQUAL(odd_count("stale_handle"), 3);
}

enum { COUNTS_PER_THREAD = 20000 };

static void *count_often(void *context)
{
    (void)context;
    for (int i = 0; i < COUNTS_PER_THREAD; i++) {
        odd(from_many_threads);
    }
    return NULL;
}

static void test_odd_from_threads(void)
{
    pthread_t threads[4];
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, count_often, NULL), 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        CU_ASSERT_EQUAL(pthread_join(threads[i], NULL), 0);
    }
    CU_ASSERT_EQUAL(odd_count("from_many_threads"), 4 * COUNTS_PER_THREAD);
}

/* Fills the table for good, therefore the last test. */
static void test_odd_table_full(void)
{
    static char names[2 * ODD_NAMES_MAX][16];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)snprintf(names[i], sizeof(names[i]), "name_%zu", i);
        odd_count_xcore(names[i]);
    }
    uint64_t sum = 0;
    size_t index = 0;
    const char *name;
    uint64_t count;
    while (odd_row(index, &name, &count)) {
        sum += count;
        index++;
    }
    CU_ASSERT_EQUAL(index, ODD_NAMES_MAX);
    CU_ASSERT_STRING_EQUAL(name, "other");
    CU_ASSERT_EQUAL(sum, COUNT_OF(names) + 4 + 4 * COUNTS_PER_THREAD);
    CU_ASSERT_EQUAL(odd_count("stale_handle"), 3);
    CU_ASSERT(odd_count("other") > ODD_NAMES_MAX);
}

SUITE(ensure, test_ensure_passes, test_ensure_panics, test_message, test_ensure_slow,
      test_odd_counts_by_name, test_odd_from_threads, test_odd_table_full)
