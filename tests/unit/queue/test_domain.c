/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/domain.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "tests/harness.h"

static struct domain_table *table_of(uint32_t domains_max)
{
    int error = 0;
    struct domain_table *table = domain_table_create(domains_max, 0x5eed, &error);
    ensure(table != NULL);
    return table;
}

static void test_same_name_same_number(void)
{
    struct domain_table *table = table_of(10);
    uint32_t first = domain_intern(table, SPAN("Example.ORG"));
    CU_ASSERT_EQUAL(domain_intern(table, SPAN("example.org")), first);
    CU_ASSERT_NOT_EQUAL(domain_intern(table, SPAN("example.com")), first);
    CU_ASSERT(span_equal(domain_name_xcore(table, first), SPAN("example.org")));
    CU_ASSERT_EQUAL(domain_table_count(table), 2);
    domain_table_check(table);
    domain_table_destroy(table);
}

/* Only ASCII letters fold; what stands next to them in the alphabet stays. */
static void test_folding_is_ascii_only(void)
{
    struct domain_table *table = table_of(10);
    uint32_t domain = domain_intern(table, SPAN("[@`{AZaz\xc3\x84]-_09"));
    CU_ASSERT(span_equal(domain_name_xcore(table, domain), SPAN("[@`{azaz\xc3\x84]-_09")));
    domain_table_destroy(table);
}

static void test_every_length(void)
{
    struct domain_table *table = table_of(DOMAIN_NAME_MAX);
    char text[DOMAIN_NAME_MAX];
    memset(text, 'x', sizeof(text));
    uint32_t numbers[DOMAIN_NAME_MAX + 1];
    for (size_t size = 1; size <= DOMAIN_NAME_MAX; size++) {
        numbers[size] = domain_intern(table, span_of(text, size));
    }
    domain_table_check(table);
    for (size_t size = 1; size <= DOMAIN_NAME_MAX; size++) {
        struct span name = domain_name_xcore(table, numbers[size]);
        CHECK_ROW(size, span_equal(name, span_of(text, size)));
        CHECK_ROW(size, domain_intern(table, name) == numbers[size]);
    }
    domain_table_destroy(table);
}

static void test_slot_is_used_again_with_new_generation(void)
{
    struct domain_table *table = table_of(1);
    uint32_t domain = domain_intern(table, SPAN("one.example"));
    uint32_t generation = domain_generation_xcore(table, domain);
    CU_ASSERT_NOT_EQUAL(generation, 0);
    domain_hold(table, domain);
    domain_drop(table, domain);
    CU_ASSERT_EQUAL(domain_intern(table, SPAN("two.example")), DOMAIN_NONE);
    domain_drop(table, domain);
    CU_ASSERT_EQUAL(domain_table_count(table), 0);
    CU_ASSERT_EQUAL(domain_intern(table, SPAN("two.example")), domain);
    CU_ASSERT_NOT_EQUAL(domain_generation_xcore(table, domain), generation);
    domain_table_destroy(table);
}

static void test_full_table_says_none(void)
{
    struct domain_table *table = table_of(100);
    char text[32];
    for (int i = 0; i < 100; i++) {
        int size = snprintf(text, sizeof(text), "d%d.example", i);
        CHECK_ROW((size_t)i, domain_intern(table, span_of(text, (size_t)size)) != DOMAIN_NONE);
    }
    CU_ASSERT_EQUAL(domain_intern(table, SPAN("one.more")), DOMAIN_NONE);
    CU_ASSERT_EQUAL(domain_intern(table, SPAN("d5.example")), 5);
    domain_table_check(table);
    domain_table_destroy(table);
}

/* Random interns and drops of few names in a tight table, against counts by name. */
enum { MODEL_NAMES = 300 };

static void test_against_model(void)
{
    struct domain_table *table = table_of(200);
    struct random random;
    random_init_seed(&random, 17);
    uint32_t holds[MODEL_NAMES] = {0};
    uint32_t numbers[MODEL_NAMES] = {0};
    uint32_t live = 0;
    for (int step = 0; step < 200000; step++) {
        uint32_t i = random_below(&random, MODEL_NAMES);
        char text[DOMAIN_NAME_MAX + 1];
        int size =
            snprintf(text, sizeof(text), "%.*sname%u.example", (int)(i % 7) * 30,
                     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                     "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                     i);
        if (random_below(&random, 2) == 0) {
            uint32_t domain = domain_intern(table, span_of(text, (size_t)size));
            if (domain == DOMAIN_NONE) {
                CHECK_ROW((size_t)step, live == 200 && holds[i] == 0);
                continue;
            }
            CHECK_ROW((size_t)step, holds[i] == 0 || numbers[i] == domain);
            live += holds[i] == 0;
            holds[i]++;
            numbers[i] = domain;
        } else if (holds[i] > 0) {
            CHECK_ROW((size_t)step, span_equal(domain_name_xcore(table, numbers[i]),
                                               span_of(text, (size_t)size)));
            domain_drop(table, numbers[i]);
            holds[i]--;
            live -= holds[i] == 0;
        }
        CHECK_ROW((size_t)step, domain_table_count(table) == live);
        if (step % 1000 == 0) {
            domain_table_check(table);
        }
    }
    domain_table_check(table);
    domain_table_destroy(table);
}

static void test_bugs_panic(void)
{
    struct domain_table *table = table_of(4);
    uint32_t domain = domain_intern(table, SPAN("a.example"));
    CHECK_PANICS((void)domain_intern(table, SPAN_NONE));
    CHECK_PANICS(domain_drop(table, domain + 1));
    domain_drop(table, domain);
    CHECK_PANICS(domain_drop(table, domain));
    CHECK_PANICS(domain_hold(table, domain));
    domain_table_destroy(table);
    domain_table_destroy(NULL);
}

SUITE(domain, test_same_name_same_number, test_folding_is_ascii_only, test_every_length,
      test_slot_is_used_again_with_new_generation, test_full_table_says_none, test_against_model,
      test_bugs_panic)
