/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/stat.h"

#include <pthread.h>

#include "tests/harness.h"

static void test_arithmetic(void)
{
    struct stat_counter counter = {0};
    stat_add(&counter, 5);
    stat_add(&counter, UINT64_C(1) << 40);
    stat_sub(&counter, 3);
    CU_ASSERT_EQUAL(stat_read_xcore(&counter), (UINT64_C(1) << 40) + 2);
    stat_set(&counter, 7);
    CU_ASSERT_EQUAL(stat_read_xcore(&counter), 7);
    CHECK_PANICS(stat_sub(&counter, 8));
}

enum { ADDS = 200000 };

/* Steps of 2^32 + 1: a torn read would show halves that differ. */
static void *add_often(void *context)
{
    for (size_t i = 0; i < ADDS; i++) {
        stat_add(context, (UINT64_C(1) << 32) + 1);
    }
    return NULL;
}

static void test_reader_beside_writer(void)
{
    static struct stat_counter counter;
    pthread_t writer;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&writer, NULL, add_often, &counter), 0);
    uint64_t last = 0;
    while (last < ADDS * ((UINT64_C(1) << 32) + 1)) {
        uint64_t now = stat_read_xcore(&counter);
        CU_ASSERT_FATAL(now >= last);
        CU_ASSERT_FATAL(now >> 32 == (uint32_t)now);
        last = now;
    }
    CU_ASSERT_EQUAL(pthread_join(writer, NULL), 0);
}

enum { NEWS_COUNT = 1000 };

struct news {
    uint64_t plain[NEWS_COUNT];
    struct stat_counter count;
};

static void *tell_news(void *context)
{
    struct news *news = context;
    for (uint64_t i = 0; i < NEWS_COUNT; i++) {
        news->plain[i] = i + 1;
        stat_publish(&news->count, i + 1);
    }
    return NULL;
}

/* The thread sanitizer holds this to the language's rules: x86 would keep the order anyway. */
static void test_published(void)
{
    static struct news news;
    pthread_t writer;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&writer, NULL, tell_news, &news), 0);
    uint64_t seen = 0;
    while (seen < NEWS_COUNT) {
        uint64_t count = stat_observe_xcore(&news.count);
        for (; seen < count; seen++) {
            CU_ASSERT_EQUAL_FATAL(news.plain[seen], seen + 1);
        }
    }
    CU_ASSERT_EQUAL(pthread_join(writer, NULL), 0);
}

SUITE(stat, test_arithmetic, test_reader_beside_writer, test_published)
