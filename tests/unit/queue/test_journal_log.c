/* SPDX-License-Identifier: Apache-2.0 */
/* The event log beside the journal: failures, rotation, lines that a crash cut short. */
#include <errno.h>
#include <stdlib.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

static void fail_log(void *context, const struct disk_op *op, bool is_complete)
{
    struct rig *rig = context;
    struct disk_op *changed = (struct disk_op *)(uintptr_t)op;
    const struct crash_bytes *log = crash_disk_file(rig->disk, "log/events.ndjson");
    if (is_complete && op->verb == DISK_WRITE && rig->disk->fds[op->fd] != 0 &&
        &rig->disk->nodes[rig->disk->fds[op->fd] - 1].seen == log) {
        changed->result = -ENOSPC;
    }
}

/* The log on a full disk: counted, and mail goes on. */
static void test_log_failures_stop_nothing(void)
{
    struct rig *rig = rig_create(6);
    rig->has_log = true;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accepted(rig, 20);
    rig->disk->on_op = fail_log;
    rig->disk->context = rig;
    for (uint32_t i = 0; i < 20; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(rig_has_failed(rig), 0);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.log_failures) >= 1);
    rig->disk->on_op = NULL;
    rig_destroy(rig);
}

/* The line that a crash has cut short says so; rotated files keep whole lines. */
static void test_log_rotates_and_mends(void)
{
    struct rig *rig = rig_create(7);
    rig->has_log = true;
    crash_disk_put(rig->disk, "log/events.ndjson", SPAN("{\"torn\":"));
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accepted(rig, 1);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_settle_down(rig);
    CU_ASSERT(rig_file_is(rig, "log/events.ndjson",
                          "{\"type\":\"Torn\"}\n{\"batch\":1,\"ordinal\":0,\"what\":1}\n"));
    rig_stop(rig);
    char *big = malloc(99990);
    ensure(big != NULL);
    memset(big, '\n', 99990);
    crash_disk_put(rig->disk, "log/events.ndjson", span_of(big, 99990));
    crash_disk_put(rig->disk, "log/events-1800000000.ndjson", SPAN("older\n"));
    free(big);
    rig->clock.wall.ns = 1800000000 * NS_PER_S;
    ensure(rig_start(rig, NULL) == 0);
    batch = rig_accepted(rig, 1);
    rig->clock.wall.ns = 1800000000 * NS_PER_S;
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    CU_ASSERT(rig_file_is(rig, "log/events-1800000000.ndjson", "older\n"));
    CU_ASSERT_PTR_NOT_NULL(crash_disk_file(rig->disk, "log/events-1800000000-1.ndjson"));
    CU_ASSERT(rig_file_is(rig, "log/events.ndjson", "{\"batch\":2,\"ordinal\":0,\"what\":1}\n"));
    rig_destroy(rig);
}

/* However much there is of it, it becomes one whole line, and the file no shorter. */
static void test_a_torn_line_becomes_an_object(void)
{
    static const char WHOLE[] = "{\"whole\":1}\n";
    for (size_t torn = 0; torn < JOURNAL_LINE_MAX; torn = torn < 40 ? torn + 1 : torn * 5 / 4) {
        struct rig *rig = rig_create(7);
        rig->has_log = true;
        char text[sizeof(WHOLE) - 1 + JOURNAL_LINE_MAX];
        memcpy(text, WHOLE, sizeof(WHOLE) - 1);
        memset(text + sizeof(WHOLE) - 1, 'x', torn);
        crash_disk_put(rig->disk, "log/events.ndjson", span_of(text, sizeof(WHOLE) - 1 + torn));
        ensure(rig_start(rig, NULL) == 0);
        const struct crash_bytes *bytes = crash_disk_file(rig->disk, "log/events.ndjson");
        struct span added = span_of(bytes->at + sizeof(WHOLE) - 1, bytes->size + 1 - sizeof(WHOLE));
        CHECK_ROW(torn, memcmp(bytes->at, WHOLE, sizeof(WHOLE) - 1) == 0);
        CHECK_ROW(torn, (added.size == 0) == (torn == 0));
        CHECK_ROW(torn, torn == 0 || added.size >= torn);
        CHECK_ROW(torn, torn == 0 || span_starts(added, SPAN("{\"type\":\"Torn\"")));
        CHECK_ROW(torn, torn == 0 || span_find(added, '}') == added.size - 2);
        CHECK_ROW(torn, torn == 0 || span_find(added, '\n') == added.size - 1);
        CHECK_ROW(torn, span_find(added, 'x') == added.size);
        rig_destroy(rig);
    }
}

/* A power failure leaves NULs where the file was longer than what had reached it. */
static void test_unwritten_bytes_of_the_log(void)
{
    static const struct {
        struct span log;
        size_t kept;
    } ROWS[] = {
        {SPAN("{\"a\":1}\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"), 8},
        {SPAN("{\"a\":1}\n{\"b\":\0\0\0\0\0\0\0\0\n{\"c\":3}\n"), 8},
        {SPAN("\0\0\0\0\n{\"c\":3}\n"), 0},
        {SPAN("{\"a\":1}\n{\"b\":2}\n"), 16},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_create(7);
        rig->has_log = true;
        crash_disk_put(rig->disk, "log/events.ndjson", ROWS[i].log);
        ensure(rig_start(rig, NULL) == 0);
        const struct crash_bytes *bytes = crash_disk_file(rig->disk, "log/events.ndjson");
        struct span added = span_of(bytes->at + ROWS[i].kept, bytes->size - ROWS[i].kept);
        CHECK_ROW(i, memcmp(bytes->at, ROWS[i].log.at, ROWS[i].kept) == 0);
        CHECK_ROW(i, bytes->size >= ROWS[i].log.size);
        CHECK_ROW(i, memchr(bytes->at, '\0', bytes->size) == NULL);
        if (added.size > 0) {
            CHECK_ROW(i, span_starts(added, SPAN("{\"type\":\"Torn\"")));
            CHECK_ROW(i, span_find(added, '\n') == added.size - 1);
        }
        rig_destroy(rig);
    }
}

/* Lines went into a file without a name, unseen, until the next rotation. */
static void test_a_log_that_was_removed_is_made_anew(void)
{
    struct rig *rig = rig_create(8);
    rig->has_log = true;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accepted(rig, 3);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    int dir = disk_open(&rig->disk->disk, DISK_ROOT, "log", DISK_READONLY | DISK_DIRECTORY);
    ensure(dir >= 0);
    ensure(disk_unlink(&rig->disk->disk, dir, "events.ndjson") == 0);
    disk_close(&rig->disk->disk, dir);
    rig->clock.mono.ns += 2 * NS_PER_S;
    (void)rig_entry(rig, batch, 1, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    CU_ASSERT(rig_file_is(rig, "log/events.ndjson", "{\"batch\":1,\"ordinal\":1,\"what\":1}\n"));
    rig_destroy(rig);
}

SUITE(journal_log, test_log_failures_stop_nothing, test_log_rotates_and_mends,
      test_a_torn_line_becomes_an_object, test_unwritten_bytes_of_the_log,
      test_a_log_that_was_removed_is_made_anew)
