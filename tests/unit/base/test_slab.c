/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/slab.h"

#include <errno.h>
#include <string.h>

#include "engine/base/random.h"
#include "tests/harness.h"

static void test_take_and_give(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "test", 24, 3), 0);
    CU_ASSERT_EQUAL(slab_left(&slab), 3);
    void *a = slab_take(&slab);
    void *b = slab_take(&slab);
    void *c = slab_take(&slab);
    CU_ASSERT(a != NULL && b != NULL && c != NULL);
    CU_ASSERT(a != b && b != c && a != c);
    CU_ASSERT_PTR_NULL(slab_take(&slab));
    CU_ASSERT_EQUAL(slab_left(&slab), 0);
    memset(a, 1, 24);
    memset(b, 2, 24);
    memset(c, 3, 24);
    CU_ASSERT_EQUAL(((char *)b)[23], 2);

    slab_give(&slab, b);
    slab_give(&slab, a);
    CU_ASSERT_EQUAL(slab_left(&slab), 2);
    CU_ASSERT_PTR_EQUAL(slab_take(&slab), a);
    CU_ASSERT_PTR_EQUAL(slab_take(&slab), b);
    CU_ASSERT_PTR_NULL(slab_take(&slab));
    CU_ASSERT_EQUAL(slab.count_out_peak, 3);
    slab_give(&slab, a);
    slab_give(&slab, b);
    slab_give(&slab, c);
    slab_deinit(&slab);
    slab_deinit(&slab);
    slab_deinit(NULL);
}

static void test_index_and_alignment(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "test", 64, 100), 0);
    void *slots[100];
    for (uint32_t i = 0; i < 100; i++) {
        slots[i] = slab_take(&slab);
        CHECK_ROW(i, (uintptr_t)slots[i] % 64 == 0);
        CHECK_ROW(i, slab_at(&slab, slab_index(&slab, slots[i])) == slots[i]);
    }
    for (uint32_t i = 0; i < 100; i++) {
        slab_give(&slab, slots[i]);
    }
    slab_deinit(&slab);

    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "odd size", 9, 2), 0);
    CU_ASSERT_EQUAL(slab.slot_size, 16);
    slab_deinit(&slab);
}

static void test_handles(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "test", 8, 2), 0);
    CU_ASSERT_PTR_NULL(slab_at_handle(&slab, HANDLE_NONE));
    void *slot = slab_take(&slab);
    struct handle handle = slab_handle(&slab, slot);
    CU_ASSERT(handle.generation != 0);
    CU_ASSERT_PTR_EQUAL(slab_at_handle(&slab, handle), slot);
    struct handle same = handle_of_u64(handle_to_u64(handle));
    CU_ASSERT_EQUAL(same.index, handle.index);
    CU_ASSERT_EQUAL(same.generation, handle.generation);

    slab_give(&slab, slot);
    CU_ASSERT_PTR_NULL(slab_at_handle(&slab, handle));
    CU_ASSERT_PTR_EQUAL(slab_take(&slab), slot);
    CU_ASSERT_PTR_NULL(slab_at_handle(&slab, handle));
    CU_ASSERT_PTR_EQUAL(slab_at_handle(&slab, slab_handle(&slab, slot)), slot);
    CU_ASSERT_PTR_NULL(slab_at_handle(&slab, (struct handle){.index = 1, .generation = 1}));
    CU_ASSERT_PTR_NULL(slab_at_handle(&slab, (struct handle){.index = 9, .generation = 1}));
    slab_give(&slab, slot);
    slab_deinit(&slab);
}

static void test_misuse_panics(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "test", 16, 4), 0);
    char *slot = slab_take(&slab);
    char *other = slab_take(&slab);
    char elsewhere[16];
    CHECK_PANICS(slab_give(&slab, slot + 8));
    CHECK_PANICS(slab_give(&slab, slot - 16));
    CHECK_PANICS(slab_give(&slab, slot + 32)); /* never taken */
    CHECK_PANICS(slab_give(&slab, elsewhere));
    CHECK_PANICS(slab_deinit(&slab));
    slab_give(&slab, slot);
    CHECK_PANICS(slab_give(&slab, slot));
    CHECK_PANICS(slab_handle(&slab, slot));
    slab_give(&slab, other);
    slab_deinit(&slab);
    CHECK_PANICS(slab_take(&slab));
}

static void test_abandon(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "test", 16, 4), 0);
    CU_ASSERT_PTR_NOT_NULL(slab_take(&slab));
    slab_give(&slab, slab_take(&slab));
    slab_abandon(&slab);
    slab_abandon(&slab);
    slab_deinit(&slab);
    CU_ASSERT_PTR_NULL(slab.slots);
}

static void test_address_range_refused(void)
{
    struct slab slab = {.name = "untouched"};
    CU_ASSERT_EQUAL(slab_init(&slab, "huge", SIZE_MAX / 8 + 1, 1000), -ENOMEM);
    CU_ASSERT_EQUAL(slab_init(&slab, "huge", (size_t)1 << 46, 1000), -ENOMEM);
    CU_ASSERT_STRING_EQUAL(slab.name, "untouched");
}

/* Only what was touched costs memory: 64 GiB of slots is no more than an address range. */
static void test_reserve_is_free(void)
{
    struct slab slab;
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "wide", 4096, 1u << 24), 0);
    void *slot = slab_take(&slab);
    memset(slot, 7, 4096);
    slab_give(&slab, slot);
    slab_deinit(&slab);
}

/* Random takes and gives against a plain array of what is out. */
static void test_model(void)
{
    enum { SLOTS = 64, STEPS = 20000 };
    struct slab slab;
    struct random random;
    uint32_t *out[SLOTS];
    struct handle handles[SLOTS];
    uint32_t out_count = 0;
    random_init_seed(&random, 3);
    CU_ASSERT_EQUAL_FATAL(slab_init(&slab, "model", 40, SLOTS), 0);
    for (uint32_t i = 0; i < STEPS; i++) {
        if (random_below(&random, 2) == 0) {
            uint32_t *slot = slab_take(&slab);
            CU_ASSERT_FATAL((slot == NULL) == (out_count == SLOTS));
            if (slot != NULL) {
                *slot = i;
                handles[out_count] = slab_handle(&slab, slot);
                out[out_count++] = slot;
            }
        } else if (out_count > 0) {
            uint32_t pick = random_below(&random, out_count);
            CU_ASSERT_FATAL(slab_at_handle(&slab, handles[pick]) == out[pick]);
            slab_give(&slab, out[pick]);
            CU_ASSERT_FATAL(slab_at_handle(&slab, handles[pick]) == NULL);
            out_count--;
            out[pick] = out[out_count];
            handles[pick] = handles[out_count];
        }
        CU_ASSERT_FATAL(slab.count_out == out_count);
    }
    for (uint32_t i = 0; i < out_count; i++) {
        slab_give(&slab, out[i]);
    }
    slab_deinit(&slab);
}

SUITE(slab, test_abandon, test_take_and_give, test_index_and_alignment, test_handles,
      test_misuse_panics, test_address_range_refused, test_reserve_is_free, test_model)
