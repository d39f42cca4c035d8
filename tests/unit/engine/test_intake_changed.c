/* SPDX-License-Identifier: Apache-2.0 */
/* Files that change under an accepted batch. */
#include "engine/intake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/engine/intake_broken.h"
#include "tests/unit/engine/intake_rig.h"

static void load_ask(struct rig *rig, struct load *load)
{
    *load = (struct load){.reply_to = &rig->worker->loads, .count = 4, .is_needed = true};
    for (uint32_t i = 0; i < 4; i++) {
        load->recipients[i] = rig->taken[i];
    }
    load->batch = &rig->engine.batches[rig->taken[0]->batch];
    inbox_push_xcore(&rig->intake.loads, &load->node);
    rig_run(rig);
    CU_ASSERT_PTR_EQUAL(inbox_take(&rig->worker->loads), &load->node);
}

static void block_give(struct rig *rig, struct load *load)
{
    CU_ASSERT_EQUAL_FATAL(load->result, 0);
    inbox_push_xcore(&rig->intake.blocks, &load->block->node);
    rig_run(rig);
}

static void touch(const struct rig *rig, const char *name, int64_t seconds)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    ensure(utimensat(AT_FDCWD, path, times, 0) == 0);
}

static bool has_words(struct span text, const char *words)
{
    return memmem(text.at, text.size, words, strlen(words)) != NULL;
}

/* What waits for control to carry it to people. */
static struct span told(const struct rig *rig)
{
    return writer_span(&rig->intake.core->words_waiting);
}

static bool is_paused(const struct rig *rig)
{
    return stat_read_xcore(&rig->engine.batches[rig->taken[0]->batch].orders) == BATCH_PAUSED;
}

/* The worker answers an order. False: there is none. */
static bool order_answer(struct rig *rig)
{
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    if (node != NULL) {
        inbox_push_xcore(&rig->intake.core->orders_back, node);
    }
    return node != NULL;
}

static void test_a_touched_file_does_not_stop_its_batch(void)
{
    struct rig *rig = rig_create();
    struct load load;
    rig_submit(rig, "one", 4);
    rig_run(rig);
    for (int i = 1; i <= 2; i++) {
        touch(rig, "active/one.batch/recipients.ndjson", i);
        load_ask(rig, &load);
        CU_ASSERT_EQUAL(load.result, -ENOBUFS);
        CU_ASSERT(order_answer(rig)); /* it was paused while it was looked at */
        CU_ASSERT_FALSE(is_paused(rig));
        load_ask(rig, &load);
        CU_ASSERT(span_starts(load.records[3], SPAN("{\"to\":\"u3@")));
        block_give(rig, &load);
    }
    CU_ASSERT_FALSE(order_answer(rig));
    CU_ASSERT_EQUAL(told(rig).size, 0);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

/* However long a look takes, the loads of its batch come back at once, as do those of others. */
static void test_who_is_looked_at_keeps_no_load(void)
{
    struct rig *rig = rig_create();
    struct load load;
    rig_submit(rig, "one", 4);
    rig_run(rig);
    touch(rig, "active/one.batch/recipients.ndjson", 1);
    break_disk(rig, DISK_READ, -ENOMEM);
    for (int i = 0; i < 3; i++) {
        load_ask(rig, &load);
        CHECK_ROW(i, load.result == -ENOBUFS && load.block == NULL && is_paused(rig));
    }
    CU_ASSERT_FALSE(order_answer(rig));
    broken.failing = -1;
    rig_run(rig);
    CU_ASSERT_FALSE(is_paused(rig));
    CU_ASSERT(order_answer(rig));
    load_ask(rig, &load);
    block_give(rig, &load);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* While it is looked at people order: their word counts, but for a resume, which waits. */
static void test_orders_while_a_file_is_looked_at(void)
{
    static const struct {
        const char *verb;
        uint64_t during, behind;
    } ROWS[] = {{"pause", BATCH_PAUSED, BATCH_PAUSED},
                {"resume", BATCH_PAUSED, 0},
                {"cancel", BATCH_CANCELLED, BATCH_CANCELLED}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_create();
        struct load load;
        char name[32];
        rig_submit(rig, "one", 4);
        rig_run(rig);
        const struct batch *batch = &rig->engine.batches[rig->taken[0]->batch];
        touch(rig, "active/one.batch/recipients.ndjson", 1);
        break_disk(rig, DISK_READ, -ENOMEM);
        load_ask(rig, &load);
        (void)snprintf(name, sizeof(name), "in/ctl/one.%s", ROWS[i].verb);
        rig_file_write(rig, name, "");
        rig_run(rig);
        (void)order_answer(rig);
        load_ask(rig, &load);
        CHECK_ROW(i, stat_read_xcore(&batch->orders) == ROWS[i].during);
        if (load.block != NULL) {
            inbox_push_xcore(&rig->intake.blocks, &load.block->node);
        }
        broken.failing = -1;
        rig_run(rig);
        CHECK_ROW(i, stat_read_xcore(&batch->orders) == ROWS[i].behind);
        CHECK_ROW(i, list_is_empty(&rig->intake.core->touched));
        (void)order_answer(rig);
        rig_end_rest(rig, 0);
        CHECK_ROW(i, rig_is_in(rig, "done", "one"));
        rig_destroy(rig);
    }
}

/* The last of it end while it is looked at: it leaves. */
static void test_a_batch_leaves_while_it_is_looked_at(void)
{
    struct rig *rig = rig_create();
    struct load load;
    rig_submit(rig, "one", 4);
    rig_run(rig);
    touch(rig, "active/one.batch/recipients.ndjson", 1);
    break_disk(rig, DISK_READ, -ENOMEM);
    load_ask(rig, &load);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    CU_ASSERT(list_is_empty(&rig->intake.core->touched));
    rig_destroy(rig);
}

/* Longer, shorter, or as long with another byte: nothing of it is lent, and people are told. */
static void test_a_changed_file_pauses_its_batch(void)
{
    static const char NAME[] = "active/one.batch/recipients.ndjson";
    for (int i = 0; i < 3; i++) {
        struct rig *rig = rig_create();
        struct load load;
        char before[4096], text[4096 + 2];
        rig_submit(rig, "one", 4);
        rig_run(rig);
        rig_file_read(rig, NAME, before, sizeof(before));
        size_t size = strlen(before);
        memcpy(text, before, size + 1);
        if (i == 0) {
            memcpy(text + size, "\n", 2);
        } else {
            text[size - 2] = i == 1 ? '\0' : ' ';
        }
        rig_file_write(rig, NAME, text);
        touch(rig, NAME, 1);
        load_ask(rig, &load);
        CHECK_ROW(i, load.result == -ENOBUFS && load.block == NULL);
        CHECK_ROW(i, is_paused(rig));
        struct span words = told(rig);
        CHECK_ROW(i, has_words(words, "/active/one.batch/recipients.ndjson: "));
        CHECK_ROW(i, has_words(words, "in/ctl/one.resume"));
        load_ask(rig, &load); /* of one that was on its way: not told again */
        CHECK_ROW(i, load.result == -ENOBUFS && told(rig).size == words.size);

        rig_file_write(rig, NAME, before);
        stat_set(&rig->engine.batches[rig->taken[0]->batch].orders, 0); /* resume */
        load_ask(rig, &load);
        CHECK_ROW(i, order_answer(rig) && !is_paused(rig));
        load_ask(rig, &load);
        block_give(rig, &load);
        rig_end_rest(rig, 0);
        CHECK_ROW(i, rig_is_in(rig, "done", "one"));
        rig_destroy(rig);
    }
}

/* Who is cancelled needs no bytes. */
static void test_a_changed_file_does_not_keep_from_cancelling(void)
{
    struct rig *rig = rig_create();
    struct load load;
    rig_submit(rig, "one", 4);
    rig_run(rig);
    rig_file_write(rig, "active/one.batch/recipients.ndjson", "");
    stat_set(&rig->engine.batches[rig->taken[0]->batch].orders, BATCH_CANCELLED);
    load_ask(rig, &load);
    CU_ASSERT_EQUAL(load.result, -ESTALE);
    CU_ASSERT_PTR_NOT_NULL_FATAL(load.block);
    inbox_push_xcore(&rig->intake.blocks, &load.block->node);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_destroy(rig);
}

SUITE(intake_changed, test_a_touched_file_does_not_stop_its_batch,
      test_who_is_looked_at_keeps_no_load, test_orders_while_a_file_is_looked_at,
      test_a_batch_leaves_while_it_is_looked_at, test_a_changed_file_pauses_its_batch,
      test_a_changed_file_does_not_keep_from_cancelling)
