/* SPDX-License-Identifier: Apache-2.0 */
/* Intake and what people order: none is hidden by others, and many are obeyed one behind the other.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/worker.h"
#include "tests/unit/engine/intake_rig.h"

enum { STRANGERS = 150 };

static void order_strangers(const struct rig *rig)
{
    for (uint32_t i = 0; i < STRANGERS; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "in/ctl/a-%03u.cancel", (unsigned)i);
        rig_file_write(rig, name, "");
    }
}

static uint32_t strangers_left(const struct rig *rig, const char *format)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < STRANGERS; i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), format, (unsigned)i);
        count += rig_is_there(rig, name);
    }
    return count;
}

/* Intake without time. */
static void step(struct rig *rig)
{
    for (uint32_t i = 0; i < 4; i++) {
        (void)rig->intake.actor.step(&rig->intake.actor, clock_mono(&rig->clock.clock));
    }
}

/* While batches wait in in/new, orders for ids that nobody knows wait with them; those for batches
 * that are here do not wait behind them. */
static void test_strangers_hide_no_order(void)
{
    struct rig *rig = rig_create();
    rig_down(rig, false);
    rig->fds_max = 4;
    rig_boot(rig);
    for (uint32_t i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "b%u", (unsigned)i);
        rig_submit(rig, name, 3);
    }
    rig_run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 6);
    const char *id = rig->engine.batches[rig->taken[0]->batch].manifest->id;
    char name[192];
    (void)snprintf(name, sizeof(name), "in/ctl/%s.cancel", id);
    order_strangers(rig);
    rig_file_write(rig, name, "");
    rig_run(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, name));
    CU_ASSERT_EQUAL(strangers_left(rig, "in/ctl/a-%03u.cancel"), STRANGERS);
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
    CU_ASSERT(order->is_cancel);
    inbox_push_xcore(order->reply_to, node);
    uint32_t ended = 0;
    while (ended < rig->taken_count) {
        uint32_t from = ended;
        ended = rig->taken_count;
        rig_end_rest(rig, from);
    }
    rig_run(rig);
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_EQUAL(strangers_left(rig, "in/ctl/a-%03u.cancel"), 0);
    CU_ASSERT_EQUAL(strangers_left(rig, "badmail/a-%03u.cancel.bad"), STRANGERS);
    CU_ASSERT_EQUAL(strangers_left(rig, "badmail/a-%03u.cancel.bad.reason"), STRANGERS);
    rig_destroy(rig);
}

/* For a batch that has ended: no matter for anybody. */
static void test_an_order_that_comes_late_is_removed(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "one", 3);
    rig_run(rig);
    rig_end_rest(rig, 0);
    CU_ASSERT(rig_is_in(rig, "done", "one"));
    rig_file_write(rig, "in/ctl/one.cancel", "");
    rig_run(rig);
    CU_ASSERT_FALSE(rig_is_there(rig, "in/ctl/one.cancel"));
    CU_ASSERT_FALSE(rig_is_there(rig, "badmail/one.cancel.bad"));
    rig_destroy(rig);
}

/* The next order goes out as soon as the one before is back. */
static void test_many_orders_wait_for_no_look(void)
{
    enum { BATCHES = 12 };
    struct rig *rig = rig_create();
    char name[64];
    for (uint32_t i = 0; i < BATCHES; i++) {
        (void)snprintf(name, sizeof(name), "b%02u", (unsigned)i);
        rig_submit(rig, name, 2);
    }
    rig_run(rig);
    for (uint32_t i = 0; i < BATCHES; i++) {
        (void)snprintf(name, sizeof(name), "in/ctl/b%02u.cancel", (unsigned)i);
        rig_file_write(rig, name, "");
    }
    rig_run(rig);
    for (uint32_t i = 0; i < BATCHES; i++) {
        struct inbox_node *node = inbox_take(&rig->worker->orders);
        CU_ASSERT_PTR_NOT_NULL_FATAL(node);
        struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
        (void)snprintf(name, sizeof(name), "b%02u", (unsigned)i);
        CHECK_ROW(i, strcmp(order->batch->manifest->id, name) == 0);
        inbox_push_xcore(order->reply_to, node);
        step(rig);
    }
    CU_ASSERT_PTR_NULL(inbox_take(&rig->worker->orders));
    rig_end_rest(rig, 0);
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

static const struct disk_ops *real_ops;

static int64_t refuse_to_unlink(struct disk *disk, struct disk_op *op)
{
    bool is_order = op->verb == DISK_UNLINK && strstr(op->path, ".retry") != NULL;
    return is_order ? -EROFS : real_ops->run(disk, op);
}

/* An order to try again whose file stays would be obeyed at each look, and people tried without a
 * pause. Before it goes out the mark for a start behind a kill is there (LAW 6). */
static void test_a_retry_is_obeyed_once(void)
{
    struct rig *rig = rig_create();
    rig_submit(rig, "again", 2);
    rig_run(rig);
    real_ops = rig->intake_disk->ops;
    struct disk_ops ops = *real_ops;
    ops.run = refuse_to_unlink;
    rig->intake_disk->ops = &ops;
    rig_file_write(rig, "in/ctl/again.retry", "");
    rig_run(rig);
    CU_ASSERT_PTR_NULL(inbox_take(&rig->worker->orders));
    CU_ASSERT(rig_is_there(rig, "in/ctl/again.retry"));
    rig->intake_disk->ops = real_ops;
    clock_manual_advance(&rig->clock, 2 * NS_PER_S);
    rig_run(rig);
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    const struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
    CU_ASSERT(order->is_retry);
    CU_ASSERT_FALSE(rig_is_there(rig, "in/ctl/again.retry"));
    CU_ASSERT(rig_is_there(rig, "active/again.batch/retried"));
    inbox_push_xcore(order->reply_to, node);
    rig_run(rig);
    CU_ASSERT_PTR_NULL(inbox_take(&rig->worker->orders));
    rig_end_rest(rig, 0);
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

SUITE(intake_orders, test_strangers_hide_no_order, test_an_order_that_comes_late_is_removed,
      test_many_orders_wait_for_no_look, test_a_retry_is_obeyed_once)
