/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/list.h"

#include "tests/harness.h"

struct item {
    int number;
    struct list link;
};

static bool numbers_are(const struct list *list, const int *numbers, size_t count)
{
    size_t index = 0;
    for (const struct list *node = list->next; node != list; node = node->next) {
        if (node->next->prev != node || index == count ||
            CONTAINER_OF(node, struct item, link)->number != numbers[index]) {
            return false;
        }
        index++;
    }
    return index == count;
}

static void test_both_ends(void)
{
    struct list list;
    struct item items[4];
    list_init(&list);
    CU_ASSERT(list_is_empty(&list));
    CU_ASSERT_PTR_NULL(list_take_first(&list));
    for (int i = 0; i < 4; i++) {
        items[i].number = i;
        list_init(&items[i].link);
        CHECK_ROW((size_t)i, !list_is_linked(&items[i].link));
    }
    list_add_last(&list, &items[1].link);
    list_add_last(&list, &items[2].link);
    list_add_first(&list, &items[0].link);
    list_add_last(&list, &items[3].link);
    CU_ASSERT(numbers_are(&list, (const int[]){0, 1, 2, 3}, 4));
    CU_ASSERT(list_is_linked(&items[0].link));
    CU_ASSERT_PTR_EQUAL(list_take_first(&list), &items[0].link);
    CU_ASSERT(!list_is_linked(&items[0].link));
    CU_ASSERT(numbers_are(&list, (const int[]){1, 2, 3}, 3));
}

static void test_leaving_from_the_middle(void)
{
    struct list list;
    struct item items[3];
    list_init(&list);
    for (int i = 0; i < 3; i++) {
        items[i].number = i;
        list_add_last(&list, &items[i].link);
    }
    list_remove(&items[1].link);
    list_remove(&items[1].link); /* idempotent */
    CU_ASSERT(numbers_are(&list, (const int[]){0, 2}, 2));
    list_remove(&items[0].link);
    list_remove(&items[2].link);
    CU_ASSERT(list_is_empty(&list));
    list_add_first(&list, &items[1].link);
    CU_ASSERT(numbers_are(&list, (const int[]){1}, 1));
}

/* A node that was overwritten while it was linked is found when its neighbours are touched. */
static void test_corruption_panics(void)
{
    struct list list;
    struct item items[2];
    list_init(&list);
    list_add_last(&list, &items[0].link);
    list_add_last(&list, &items[1].link);
    list_init(&items[1].link);
    CHECK_PANICS(list_remove(&items[0].link));
    CHECK_PANICS(list_add_last(&list, &items[1].link));
}

SUITE(list, test_both_ends, test_leaving_from_the_middle, test_corruption_panics)
