/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/journal_priv.h"
#include "queue/journal_record.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

static uint64_t failed(const struct rig *rig)
{
    return stat_read_xcore(&rig->journal.stats.has_failed);
}

static struct rig *started(uint64_t seed)
{
    struct rig *rig = rig_create(seed);
    ensure(rig_start(rig, NULL) == 0);
    return rig;
}

/* A batch that is accepted durably. */
static struct rig_batch *accepted(struct rig *rig, uint32_t records_count)
{
    struct rig_batch *batch = rig_accept(rig, records_count);
    ensure(batch != NULL);
    rig_settle_down(rig);
    ensure(batch->is_accept_acked);
    return batch;
}

static bool file_is(struct rig *rig, const char *path, const char *want)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    return bytes != NULL && bytes->size == strlen(want) &&
           (bytes->size == 0 || memcmp(bytes->at, want, bytes->size) == 0);
}

/* From acceptance to its end, with everything that is written on the way. */
static void test_life_of_a_batch(void)
{
    struct rig *rig = rig_create(1);
    rig->has_log = true;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = accepted(rig, 3);
    CU_ASSERT_FALSE(batch->is_settled);
    (void)rig_entry(rig, batch, 0, JOURNAL_DEFERRED);
    (void)rig_entry(rig, batch, 1, JOURNAL_BOUNCED);
    rig_settle_down(rig);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DEFERRALS]), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_BOUNCED]), 1);
    CU_ASSERT_FALSE(batch->is_settled);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    (void)rig_entry(rig, batch, 2, JOURNAL_EXPIRED);
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(batch_settled_xcore(&batch->batch), 3);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_POSSIBLE_DUPLICATES]), 1);
    CU_ASSERT(file_is(rig, "log/events.ndjson",
                      "{\"batch\":1,\"ordinal\":0,\"what\":5}\n"
                      "{\"batch\":1,\"ordinal\":1,\"what\":2}\n"
                      "{\"batch\":1,\"ordinal\":0,\"what\":1}\n"
                      "{\"batch\":1,\"ordinal\":2,\"what\":3}\n"));
    CU_ASSERT(file_is(rig, "active/batch-1-/results.ndjson",
                      "{\"batch\":1,\"ordinal\":1,\"what\":2}\n"
                      "{\"batch\":1,\"ordinal\":0,\"what\":1}\n"
                      "{\"batch\":1,\"ordinal\":2,\"what\":3}\n"));
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.records), 5);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.log_lines), 4);
    rig_end(rig, batch);
    rig_settle_down(rig);
    CU_ASSERT_FALSE(batch->is_used);
    rig_check_copy(rig, 0, 0);
    rig_destroy(rig);
}

static void test_batch_without_recipients(void)
{
    struct rig *rig = started(2);
    struct rig_batch *batch = accepted(rig, 0);
    CU_ASSERT(batch->is_settled);
    rig_end(rig, batch);
    rig_settle_down(rig);
    CU_ASSERT_FALSE(batch->is_used);
    rig_destroy(rig);
}

/* T8: at every moment, a crash that loses all that was not synced leaves what was acknowledged; ops
 * complete late and in any order. */
static void test_nothing_returns_before_its_sync(void)
{
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct rig *rig = rig_create(seed);
        rig->disk->is_shuffled = true;
        ensure(rig_start(rig, NULL) == 0);
        for (int i = 0; i < 200; i++) {
            uint64_t acked = rig->acked_count;
            rig_act(rig);
            if (rig->acked_count != acked) {
                rig_check_copy(rig, 0, seed);
            }
        }
        CHECK_ROW(seed, rig->acked_count > 0);
        rig_destroy(rig);
    }
}

/* One sync for all that waits; an idle journal syncs at once. */
static void test_groups_gather(void)
{
    struct rig *rig = started(3);
    struct rig_batch *batch = accepted(rig, 100);
    uint64_t syncs = stat_read_xcore(&rig->journal.stats.syncs);
    for (uint32_t i = 0; i < 100; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DEFERRED);
    }
    rig_settle_down(rig);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.syncs), syncs + 1);
    clock_manual_advance(&rig->clock, NS_PER_S);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.syncs), syncs + 2);
    rig_destroy(rig);
}

/* Behind a large group the next one gathers for a moment; a step tells when it goes. */
static void test_busy_groups_wait_for_company(void)
{
    struct rig *rig = started(17);
    struct rig_batch *batch = accepted(rig, 100);
    for (uint32_t i = 0; i < 100; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DEFERRED);
    }
    rig_step(rig, 1);
    uint64_t syncs = stat_read_xcore(&rig->journal.stats.syncs);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    struct mono_time now = clock_mono(&rig->clock.clock);
    struct mono_time next = rig->journal.actor.step(&rig->journal.actor, now);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.syncs), syncs);
    CU_ASSERT(mono_before(now, next) && next.ns - now.ns <= 5 * NS_PER_MS);
    CU_ASSERT_FALSE(journal_is_idle(&rig->journal));
    (void)rig->journal.actor.step(&rig->journal.actor, next);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.syncs), syncs + 1);
    (void)rig_entry(rig, batch, 1, JOURNAL_DELIVERED);
    rig_stop(rig);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DELIVERED]), 2);
    rig_destroy(rig);
}

/* Results alone do not end the journal: they wait until the disk is whole again. */
static void settle_or_heal(struct rig *rig)
{
    for (int i = 0; i < 200 && failed(rig) == 0 && !journal_is_idle(&rig->journal); i++) {
        rig_step(rig, 1);
        clock_manual_advance(&rig->clock, NS_PER_MS * 100);
    }
    if (failed(rig) == 0 && !journal_is_idle(&rig->journal)) {
        rig->disk->fail_at = 0;
    }
    rig_settle_down(rig);
}

/* T6: the n-th op fails, once or from then on, for every n until a run is untouched. Whatever the
 * journal does then, what came back is durable. */
static void fail_runs(int error, bool is_sticky)
{
    bool is_untouched = false;
    uint64_t failures = 0;
    for (uint64_t n = 1; !is_untouched; n++) {
        struct rig *rig = rig_create(77);
        rig->segments_max = 1;
        rig->has_log = true;
        rig->disk->fail_at = n;
        rig->disk->is_sticky = is_sticky;
        rig->disk->error = error;
        if (rig_start(rig, NULL) == 0) {
            for (int i = 0; i < 250; i++) {
                rig_act(rig);
            }
            settle_or_heal(rig);
            failures += failed(rig);
            if (failed(rig) != 0) {
                uint64_t acked = rig->acked_count;
                rig_step(rig, 10);
                CHECK_ROW(n, rig->acked_count == acked);
                CHECK_ROW(n, !journal_is_idle(&rig->journal));
            }
        }
        is_untouched = rig->disk->ops_count < n;
        /* Behind the fault the disk is whole again, but for what was not synced. */
        rig_check_copy(rig, 0, n);
        rig_check_copy(rig, 50, n);
        rig->disk->fail_at = 0;
        rig_destroy(rig);
    }
    CU_ASSERT(failures > 0);
}

static void test_failing_ops(void)
{
    fail_runs(-EIO, false);
    fail_runs(-EIO, true);
    fail_runs(-ENOSPC, true);
}

static void fail_syncs(void *context, const struct disk_op *op, bool is_complete)
{
    const int *fd = context;
    if (is_complete && op->verb == DISK_DATASYNC && op->fd == *fd) {
        ((struct disk_op *)(uintptr_t)op)->result = -EIO;
    }
}

/* After a sync failed nothing is ever acknowledged again, although later syncs would succeed. */
static void test_failed_sync_is_final(void)
{
    struct rig *rig = started(5);
    struct rig_batch *batch = accepted(rig, 10);
    int fd = 0;
    for (int i = 3; i < CRASH_FDS_MAX; i++) {
        if (rig->disk->fds[i] != 0 &&
            &rig->disk->nodes[rig->disk->fds[i] - 1].seen ==
                crash_disk_file(rig->disk, "journal/journal-00000001.log")) {
            fd = i;
        }
    }
    rig->disk->on_op = fail_syncs;
    rig->disk->context = &fd;
    (void)rig_entry(rig, batch, 1, JOURNAL_DELIVERED);
    rig_step(rig, 3);
    CU_ASSERT_EQUAL(failed(rig), 1);
    rig->disk->on_op = NULL;
    (void)rig_entry(rig, batch, 2, JOURNAL_DELIVERED);
    rig_step(rig, 20);
    CU_ASSERT_EQUAL(rig->acked_count, 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DELIVERED]), 0);
    rig_destroy(rig);
}

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
    struct rig_batch *batch = accepted(rig, 20);
    rig->disk->on_op = fail_log;
    rig->disk->context = rig;
    for (uint32_t i = 0; i < 20; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(failed(rig), 0);
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
    struct rig_batch *batch = accepted(rig, 1);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_settle_down(rig);
    CU_ASSERT(file_is(rig, "log/events.ndjson",
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
    batch = accepted(rig, 1);
    rig->clock.wall.ns = 1800000000 * NS_PER_S;
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    CU_ASSERT(file_is(rig, "log/events-1800000000.ndjson", "older\n"));
    CU_ASSERT_PTR_NOT_NULL(crash_disk_file(rig->disk, "log/events-1800000000-1.ndjson"));
    CU_ASSERT(file_is(rig, "log/events.ndjson", "{\"batch\":2,\"ordinal\":0,\"what\":1}\n"));
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

/* Results are there a second after their event, not only at the batch's end. */
static void test_results_each_second(void)
{
    struct rig *rig = started(8);
    struct rig_batch *batch = accepted(rig, 10);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    const char *path = "active/batch-1-/results.ndjson";
    CU_ASSERT_PTR_NULL(crash_disk_file(rig->disk, path));
    struct mono_time next =
        rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
    CU_ASSERT(next.ns <= rig->clock.mono.ns + NS_PER_S);
    clock_manual_advance(&rig->clock, next.ns - rig->clock.mono.ns);
    rig_step(rig, 3);
    CU_ASSERT(file_is(rig, path, "{\"batch\":1,\"ordinal\":0,\"what\":1}\n"));
    CU_ASSERT_FALSE(batch->is_settled);
    rig_destroy(rig);
}

static size_t lines_count(struct rig *rig, const char *path)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    size_t lines = 0;
    for (size_t i = 0; bytes != NULL && i < bytes->size; i++) {
        lines += bytes->at[i] == '\n';
    }
    return lines;
}

/* The start behind an orderly stop does not look for lines that are missing; power that failed much
 * later took them all the same, when a checkpoint had come in between. */
static void test_stop_syncs_results(void)
{
    struct rig *rig = started(8);
    struct rig_batch *batch = accepted(rig, 10);
    int active = disk_open(&rig->disk->disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
    ensure(disk_sync(&rig->disk->disk, active) == 0); /* as intake does */
    size_t sent = 0;
    for (uint32_t i = 0; i < 9; i++) {
        sent += rig_entry(rig, batch, i, JOURNAL_DELIVERED) != NULL;
    }
    rig_step(rig, 20);
    rig_stop(rig);
    rig_crash(rig, 0);
    CU_ASSERT(sent > 0);
    CU_ASSERT_EQUAL(lines_count(rig, "active/batch-1-/results.ndjson"), sent);
    rig_destroy(rig);
}

/* A checkpoint took the records of lines that were written and not synced: after a loss of power
 * nobody could make them again. */
static void test_checkpoints_wait_for_results(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig *rig = rig_create(seed);
        rig->disk->is_shuffled = seed % 2 == 0;
        rig->segments_max = 1;
        rig->segment_size = 4096;
        ensure(rig_start(rig, NULL) == 0);
        struct rig_batch *first = accepted(rig, 40);
        int active =
            disk_open(&rig->disk->disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
        ensure(disk_sync(&rig->disk->disk, active) == 0); /* as intake does */
        size_t sent = 0;
        for (uint32_t i = 0; i < 39; i++) {
            sent += rig_entry(rig, first, i, JOURNAL_DELIVERED) != NULL; /* some were rejected */
            rig_step(rig, i % 3 == 0 ? 4 : 0);
        }
        rig_settle_down(rig);
        uint64_t before = stat_read_xcore(&rig->journal.stats.checkpoints);
        while (stat_read_xcore(&rig->journal.stats.checkpoints) < before + 2) {
            struct rig_batch *batch = accepted(rig, 20);
            for (uint32_t i = 0; i < 20; i++) {
                (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
            }
            rig_settle_down(rig);
            rig_end(rig, batch);
            rig_settle_down(rig);
        }
        rig_crash(rig, 0);
        CHECK_ROW(seed, sent > 0);
        CHECK_ROW(seed, lines_count(rig, "active/batch-1-/results.ndjson") == sent);
        rig_destroy(rig);
    }
}

/* Who is told that a batch is settled finds its results whatever happens: the file's name was lost
 * when the power failed before the batch left active/, and a checkpoint had taken the records. */
static void test_results_of_settled_batches_are_durable(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig *rig = rig_create(seed);
        rig->disk->is_shuffled = seed % 2 == 0;
        ensure(rig_start(rig, NULL) == 0);
        struct rig_batch *batch = accepted(rig, 10);
        int active =
            disk_open(&rig->disk->disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
        ensure(disk_sync(&rig->disk->disk, active) == 0); /* as intake does */
        size_t sent = 0;
        for (uint32_t i = 0; i < 10; i++) {
            sent += rig_entry(rig, batch, i, JOURNAL_DELIVERED) != NULL;
        }
        for (int i = 0; i < 1000 && !batch->is_settled; i++) {
            rig_step(rig, 1);
        }
        CHECK_ROW(seed, batch->is_settled);
        rig_crash(rig, 0);
        CHECK_ROW(seed, sent > 0);
        CHECK_ROW(seed, lines_count(rig, "active/batch-1-/results.ndjson") == sent);
        rig_destroy(rig);
    }
}

/* Lines that are synced in a file whose name is not: a batch's end may be about to sync it. */
static void test_checkpoints_wait_for_names(void)
{
    struct rig *rig = started(8);
    struct rig_batch *batch = accepted(rig, 10);
    for (uint32_t i = 0; i < 9; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig_settle_down(rig);
    struct journal_core *core = rig->journal.core;
    struct journal_batch *known = core->batches[batch->batch.index];
    journal_results_mark(core);
    rig_settle_down(rig);
    CU_ASSERT(journal_results_is_past_mark(core));
    CU_ASSERT_FALSE(known->is_unsynced);
    CU_ASSERT(known->is_name_durable);
    known->is_name_durable = false;
    journal_results_mark(core);
    CU_ASSERT_FALSE(journal_results_is_past_mark(core));
    rig_settle_down(rig);
    CU_ASSERT(journal_results_is_past_mark(core));
    CU_ASSERT(known->is_name_durable);
    rig_destroy(rig);
}

/* The bound of segments holds however long it runs, and what was deferred long ago is known. */
static void test_checkpoints_bound_the_journal(void)
{
    struct rig *rig = rig_create(9);
    rig->segments_max = 2;
    rig->segment_size = 4096;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *old = accepted(rig, 100);
    for (uint32_t i = 0; i < 50; i++) {
        (void)rig_entry(rig, old, i, i % 2 == 0 ? JOURNAL_DEFERRED : JOURNAL_BOUNCED);
    }
    for (int round = 0; round < 200; round++) {
        struct rig_batch *batch = accepted(rig, 20);
        for (uint32_t i = 0; i < 20; i++) {
            (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
        }
        rig_settle_down(rig);
        rig_end(rig, batch);
        rig_settle_down(rig);
        CHECK_ROW((size_t)round, stat_read_xcore(&rig->journal.stats.segments) <= 8);
    }
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 10);
    size_t files = 0;
    for (size_t i = 0; i < rig->disk->seen.count; i++) {
        enum journal_file file;
        uint32_t number;
        files += journal_name_get(rig->disk->seen.rows[i].text, &file, &number);
    }
    CU_ASSERT(files <= 12);
    rig_check_copy(rig, 0, 0);
    rig_check_copy(rig, CRASH_PROGRAM, 0);
    rig_destroy(rig);
}

static void fail_checkpoints(void *context, const struct disk_op *op, bool is_complete)
{
    (void)context;
    if (is_complete && op->verb == DISK_OPEN && strcmp(op->path, "checkpoint-spare") == 0) {
        ((struct disk_op *)(uintptr_t)op)->result = -EIO;
    }
}

/* The last checkpoint was long, and so many segments may live; the one behind it is short, and
 * there are at once too many. The journal took that for a checkpoint that cannot be written. */
static void test_a_bound_that_shrinks_is_no_failure(void)
{
    struct rig *rig = rig_create(31);
    rig->segments_max = 1;
    rig->segment_size = JOURNAL_SEGMENT_SIZE_MIN;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = accepted(rig, 100);
    struct journal_core *core = rig->journal.core;
    core->checkpoint.last_size = 20 * JOURNAL_SEGMENT_SIZE_MIN;
    while (core->segments.live_count < 8 ||
           core->segments.cells_max - core->segments.next_cell >= 2 * JOURNAL_SECTOR_CELLS) {
        (void)rig_entry(rig, batch, 0, JOURNAL_DEFERRED);
        rig_settle_down(rig);
    }
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.checkpoints), 0);
    core->checkpoint.last_size = 0;
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_settle_down(rig);
    CU_ASSERT_EQUAL(failed(rig), 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DELIVERED]), 1);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 0);
    rig_destroy(rig);
}

/* No checkpoint can be written: it is tried again and again, and in the end the journal stops
 * rather than grow without bound. */
static void test_no_checkpoint_is_a_failure(void)
{
    struct rig *rig = rig_create(10);
    rig->segments_max = 2;
    rig->segment_size = 4096;
    ensure(rig_start(rig, NULL) == 0);
    rig->disk->on_op = fail_checkpoints;
    struct rig_batch *batch = accepted(rig, 100);
    for (int round = 0; round < 1000 && failed(rig) == 0; round++) {
        (void)rig_entry(rig, batch, 0, JOURNAL_DEFERRED);
        rig_settle_down(rig);
    }
    CU_ASSERT_EQUAL(failed(rig), 1);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoint_failures) >= 5);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.segments) <= 9);
    rig->disk->on_op = NULL;
    rig_check_copy(rig, 0, 0);
    rig_destroy(rig);
}

/* More batches with results than files may be open and than writes may be in flight. */
static void test_many_results_files(void)
{
    struct rig *rig = rig_create(11);
    rig->disk->is_shuffled = true;
    rig->segment_size = 65536;
    ensure(rig_start(rig, NULL) == 0);
    enum { MANY = 200, LINES = 3 };
    struct batch *batches = calloc(MANY, sizeof(*batches));
    struct journal_accept *accepts = calloc(MANY, sizeof(*accepts));
    ensure(batches != NULL && accepts != NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        batches[i].index = 1000 + i;
        batches[i].number = 1 + i;
        batches[i].records_count = batches[i].recipients_count = LINES;
        (void)snprintf(batches[i].directory, sizeof(batches[i].directory), "many-%u", i);
        char path[64];
        (void)snprintf(path, sizeof(path), "active/many-%u", i);
        ensure(disk_mkdir(&rig->disk->disk, DISK_ROOT, path) == 0);
        accepts[i] = (struct journal_accept){.reply_to = &rig->accepts, .batch = &batches[i]};
        inbox_push_xcore(&rig->journal.accepts, &accepts[i].node);
    }
    uint32_t taken = 0, ended = 0;
    for (uint32_t line = 0; line < LINES; line++) {
        for (uint32_t i = 0; i < MANY; i++) {
            struct journal_entry *entry = &rig->entries[i];
            entry->reply_to = &rig->workers[0];
            entry->batch = &batches[i];
            entry->ordinal = line;
            entry->what = JOURNAL_DELIVERED;
            entry->is_result = true;
            entry->line_size = (uint16_t)snprintf(entry->line, sizeof(entry->line), "%u\n", line);
            inbox_push_xcore(&rig->journal.entries, &entry->node);
        }
        for (int i = 0; i < 100000 && taken < (line + 1) * MANY; i++) {
            (void)rig->journal.actor.step(&rig->journal.actor, rig->clock.mono);
            clock_manual_advance(&rig->clock, NS_PER_MS * 10);
            while (inbox_take(&rig->workers[0]) != NULL) {
                taken++;
            }
        }
    }
    for (int i = 0; i < 100000 && ended < MANY; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, rig->clock.mono);
        while (inbox_take(&rig->settled) != NULL) {
            ended++;
        }
    }
    CU_ASSERT_EQUAL(taken, MANY * LINES);
    CU_ASSERT_EQUAL(ended, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "active/many-%u/results.ndjson", i);
        CHECK_ROW(i, file_is(rig, path, "0\n1\n2\n"));
    }
    int open_fds = 0;
    for (int i = 0; i < CRASH_FDS_MAX; i++) {
        open_fds += rig->disk->fds[i] != 0;
    }
    CU_ASSERT(open_fds < 10);
    rig_destroy(rig);
    free(batches);
    free(accepts);
}

/* More batches with a line each than there are buffers: some entries are held until the oldest
 * lines are written (here: lost, for want of a folder, and counted), and all come back. */
static void test_results_buffers_run_out(void)
{
    enum { MANY = 2500 };
    struct rig *rig = rig_create(12);
    rig->segment_size = 1 << 20;
    ensure(rig_start(rig, NULL) == 0);
    struct batch *batches = calloc(MANY, sizeof(*batches));
    struct journal_accept *accepts = calloc(MANY, sizeof(*accepts));
    struct journal_entry *entries = calloc(MANY, sizeof(*entries));
    ensure(batches != NULL && accepts != NULL && entries != NULL);
    for (uint32_t i = 0; i < MANY; i++) {
        batches[i].index = i;
        batches[i].number = 1 + i;
        batches[i].records_count = batches[i].recipients_count = 1;
        (void)snprintf(batches[i].directory, sizeof(batches[i].directory), "none-%u", i);
        accepts[i] = (struct journal_accept){.reply_to = &rig->workers[1], .batch = &batches[i]};
        entries[i].reply_to = &rig->workers[0];
        entries[i].batch = &batches[i];
        entries[i].what = JOURNAL_BOUNCED;
        entries[i].is_result = true;
        entries[i].line_size = 100;
        memset(entries[i].line, '\n', 100);
        inbox_push_xcore(&rig->journal.accepts, &accepts[i].node);
    }
    uint32_t accepted_count = 0, taken = 0, settled = 0;
    for (int i = 0; i < 10000 && settled < MANY; i++) {
        clock_manual_advance(&rig->clock, NS_PER_MS);
        (void)rig->journal.actor.step(&rig->journal.actor, rig->clock.mono);
        while (inbox_take(&rig->workers[1]) != NULL) {
            accepted_count++;
        }
        for (uint32_t at = 0; accepted_count == MANY && at < MANY; at++) {
            inbox_push_xcore(&rig->journal.entries, &entries[at].node);
            accepted_count += at == MANY - 1;
        }
        while (inbox_take(&rig->workers[0]) != NULL) {
            taken++;
        }
        while (inbox_take(&rig->settled) != NULL) {
            settled++;
        }
    }
    CU_ASSERT_EQUAL(taken, MANY);
    CU_ASSERT_EQUAL(settled, MANY);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.log_failures), MANY);
    rig_destroy(rig);
    free(batches);
    free(accepts);
    free(entries);
}

/* More inboxes than a group answers with one push each. */
static void test_many_reply_inboxes(void)
{
    struct rig *rig = started(13);
    struct rig_batch *batch = accepted(rig, 150);
    struct inbox inboxes[100];
    for (uint32_t i = 0; i < COUNT_OF(inboxes); i++) {
        inbox_init(&inboxes[i], &rig->waker);
    }
    for (uint32_t i = 0; i < 150; i++) {
        struct journal_entry *entry = &rig->entries[i];
        *entry = (struct journal_entry){.reply_to = &inboxes[i % COUNT_OF(inboxes)],
                                        .batch = &batch->batch,
                                        .ordinal = i,
                                        .what = JOURNAL_DEFERRED,
                                        .due_s = 1};
        inbox_push_xcore(&rig->journal.entries, &entry->node);
    }
    rig_settle_down(rig);
    for (uint32_t i = 0; i < COUNT_OF(inboxes); i++) {
        for (uint32_t want = i; want < 150; want += COUNT_OF(inboxes)) {
            CHECK_ROW(want, inbox_take(&inboxes[i]) == &rig->entries[want].node);
        }
        CHECK_ROW(i, inbox_take(&inboxes[i]) == NULL);
    }
    rig_destroy(rig);
}

/* Everything that was handed over before a stop in order is on disk after it. */
static void test_stop_writes_what_is_pending(void)
{
    struct rig *rig = started(14);
    struct rig_batch *batch = accepted(rig, 100);
    for (uint32_t i = 0; i < 100; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    CU_ASSERT_FALSE(journal_is_idle(&rig->journal));
    rig_stop(rig);
    struct journal_known known;
    crash_disk_crash(rig->disk, 0);
    ensure(journal_replay(&rig->disk->disk, "journal", &known) == 0);
    CU_ASSERT_EQUAL(known.batches_count, 1);
    CU_ASSERT_EQUAL(known.batches[0].counts[BATCH_DELIVERED], batch->batch.recipients_count);
    journal_known_free(&known);
    journal_deinit(NULL);
    rig_destroy(rig);
}

/* An abandoned journal leaves everybody's objects alone, and the disk as it was. */
static void test_abandoned_journal_touches_nothing(void)
{
    struct rig *rig = started(18);
    struct rig_batch *batch = accepted(rig, 10);
    for (uint32_t i = 0; i < 10; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    rig->disk->reaps_left = 0;
    rig_step(rig, 1);
    journal_abandon(&rig->journal);
    rig->disk->reaps_left = UINT32_MAX;
    memset(rig->entries, 0xff, sizeof(rig->entries));
    uint64_t ops_count = rig->disk->ops_count;
    rig_stop(rig);
    CU_ASSERT(rig->disk->ops_count <= ops_count + 1); /* the write that was in flight */
    CU_ASSERT_EQUAL(batch_settled_xcore(&batch->batch), 0);
    for (size_t i = 0; i < RIG_WORKERS; i++) {
        CHECK_ROW(i, inbox_take(&rig->workers[i]) == NULL);
    }
    rig_destroy(rig);
}

/* A batch whose folder is gone is ended without being accepted again. */
static void test_unknown_batch_may_end(void)
{
    struct rig *rig = started(15);
    struct rig_batch *batch = accepted(rig, 5);
    rig_crash(rig, 0);
    ensure(rig_start(rig, NULL) == 0);
    batch->end = (struct journal_end){.reply_to = &rig->ends, .batch = &batch->batch};
    batch->is_end_submitted = true;
    inbox_push_xcore(&rig->journal.ends, &batch->end.node);
    rig_settle_down(rig);
    CU_ASSERT_FALSE(batch->is_used);
    rig_check_copy(rig, 0, 0);
    rig_destroy(rig);
}

static void test_bugs_panic(void)
{
    struct rig *rig = started(16);
    struct rig_batch *batch = accepted(rig, 10);
    struct journal_entry *entry = rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_settle_down(rig);
    entry->reply_to = &rig->workers[0];
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    entry->what = JOURNAL_DEFERRED;
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    entry->what = JOURNAL_ACCEPTED;
    entry->ordinal = 1;
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    entry->what = JOURNAL_DELIVERED;
    entry->ordinal = 10;
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    entry->ordinal = 1;
    entry->line_size = JOURNAL_LINE_MAX + 1;
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    struct batch stranger = {.index = 5, .number = 99};
    entry->line_size = 0;
    entry->batch = &stranger;
    CHECK_PANICS((inbox_push_xcore(&rig->journal.entries, &entry->node), rig_step(rig, 1)));
    batch->end = (struct journal_end){.reply_to = &rig->ends, .batch = &batch->batch};
    CHECK_PANICS((inbox_push_xcore(&rig->journal.ends, &batch->end.node), rig_step(rig, 1)));
    rig_destroy(rig);
}

/* The same on a real file system, with each of the disks that are there. */
enum { REAL_RECORDS = 20000, REAL_ENTRIES = 500 };

struct real {
    struct journal *journal;
    struct inbox replies, settled;
    struct batch batch;
    struct journal_accept accept;
    struct journal_entry entries[REAL_ENTRIES];
    uint32_t sent, back;
    bool is_accepted;
};

static void real_push(struct real *real)
{
    uint32_t room = REAL_ENTRIES - (real->sent - real->back);
    for (; real->is_accepted && room > 0 && real->sent < REAL_RECORDS; room--) {
        struct journal_entry *entry = &real->entries[real->sent % REAL_ENTRIES];
        entry->reply_to = &real->replies;
        entry->batch = &real->batch;
        entry->ordinal = real->sent;
        entry->what = JOURNAL_DELIVERED;
        entry->is_result = true;
        entry->line_size =
            (uint16_t)snprintf(entry->line, sizeof(entry->line), "line %u\n", real->sent);
        inbox_push_xcore(&real->journal->entries, &entry->node);
        real->sent++;
    }
}

/* As boot.c does it: step, wait, step. */
static void real_deliver(struct real *real)
{
    struct journal *journal = real->journal;
    inbox_push_xcore(&journal->accepts, &real->accept.node);
    while (inbox_is_empty(&real->settled) && stat_read_xcore(&journal->stats.has_failed) == 0) {
        struct mono_time now = clock_mono(clock_system());
        struct mono_time next = journal->actor.step(&journal->actor, now);
        if (mono_before(now, next) && waker_sleep(&journal->actor.waker)) {
            journal->actor.wait(&journal->actor, now, mono_earlier(next, mono_add_ms(now, 10)));
            waker_awake(&journal->actor.waker);
        }
        while (inbox_take(&real->replies) != NULL) {
            real->back += real->is_accepted;
            real->is_accepted = true;
        }
        real_push(real);
    }
    CU_ASSERT_EQUAL(stat_read_xcore(&journal->stats.has_failed), 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&journal->stats.log_failures), 0);
    CU_ASSERT_EQUAL(batch_settled_xcore(&real->batch), REAL_RECORDS);
    CU_ASSERT(stat_read_xcore(&journal->stats.checkpoints) > 0);
}

static void real_disk_run(struct disk *disk, const char *base, struct journal *journal)
{
    static const char *const NAMES[] = {"journal", "active", "log", "active/real"};
    char paths[COUNT_OF(NAMES)][64];
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        (void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", base, NAMES[i]);
        ensure(disk_mkdir(disk, DISK_ROOT, paths[i]) == 0);
    }
    struct waker waker;
    ensure(waker_init(&waker, false) == 0);
    struct real *real = calloc(1, sizeof(*real));
    ensure(real != NULL);
    real->journal = journal;
    inbox_init(&real->replies, &waker);
    inbox_init(&real->settled, &waker);
    real->batch.number = 1;
    real->batch.records_count = real->batch.recipients_count = REAL_RECORDS;
    (void)snprintf(real->batch.directory, sizeof(real->batch.directory), "real");
    real->accept = (struct journal_accept){.reply_to = &real->replies, .batch = &real->batch};
    const struct journal_config config = {.disk = disk,
                                          .clock = clock_system(),
                                          .directory = paths[0],
                                          .active = paths[1],
                                          .log_directory = paths[2],
                                          .segment_size = 32768,
                                          .segments_max = 2,
                                          .log_size_max = 50000,
                                          .settled = &real->settled};
    ensure(journal_init(journal, &config, true) == 0);
    real_deliver(real);
    journal_deinit(journal);
    free(real);
    struct journal_known known;
    ensure(journal_replay(disk, paths[0], &known) == 0);
    CU_ASSERT_EQUAL(known.batches_count, 1);
    CU_ASSERT_EQUAL(known.batches[0].counts[BATCH_DELIVERED], REAL_RECORDS);
    CU_ASSERT_EQUAL(known.corrupt_records, 0);
    journal_known_free(&known);
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *place)
{
    (void)stat;
    (void)kind;
    (void)place;
    return remove(path);
}

static void remove_tree(const char *base)
{
    CU_ASSERT_EQUAL(nftw(base, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void test_real_disks(void)
{
    for (int kind = 0; kind < 2; kind++) {
        char base[] = "/tmp/test-journal-XXXXXX";
        ensure(mkdtemp(base) != NULL);
        struct journal journal;
        int error = 0;
        struct disk *disk = kind == 0 ? disk_plain_create(&journal.actor.waker, &error)
                                      : disk_uring_create(&journal.actor.waker, &error);
        if (disk != NULL) {
            real_disk_run(disk, base, &journal);
            disk_destroy(disk);
        } else {
            CU_ASSERT_EQUAL(kind, 1);
        }
        remove_tree(base);
    }
}

SUITE(journal, test_life_of_a_batch, test_batch_without_recipients,
      test_nothing_returns_before_its_sync, test_groups_gather, test_busy_groups_wait_for_company,
      test_failing_ops, test_failed_sync_is_final, test_log_failures_stop_nothing,
      test_log_rotates_and_mends, test_a_torn_line_becomes_an_object,
      test_unwritten_bytes_of_the_log, test_results_each_second, test_checkpoints_wait_for_results,
      test_stop_syncs_results, test_results_of_settled_batches_are_durable,
      test_checkpoints_wait_for_names, test_checkpoints_bound_the_journal,
      test_a_bound_that_shrinks_is_no_failure, test_no_checkpoint_is_a_failure,
      test_many_results_files, test_results_buffers_run_out, test_many_reply_inboxes,
      test_stop_writes_what_is_pending, test_abandoned_journal_touches_nothing,
      test_unknown_batch_may_end, test_bugs_panic, test_real_disks)
