/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

/* From acceptance to its end, with everything that is written on the way. */
static void test_life_of_a_batch(void)
{
    struct rig *rig = rig_create(1);
    rig->has_log = true;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = rig_accepted(rig, 3);
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
    CU_ASSERT(rig_file_is(rig, "log/events.ndjson",
                          "{\"batch\":1,\"ordinal\":0,\"what\":5}\n"
                          "{\"batch\":1,\"ordinal\":1,\"what\":2}\n"
                          "{\"batch\":1,\"ordinal\":0,\"what\":1}\n"
                          "{\"batch\":1,\"ordinal\":2,\"what\":3}\n"));
    CU_ASSERT(rig_file_is(rig, "active/batch-1-/results.ndjson",
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
    struct rig *rig = rig_started(2);
    struct rig_batch *batch = rig_accepted(rig, 0);
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
    struct rig *rig = rig_started(3);
    struct rig_batch *batch = rig_accepted(rig, 100);
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
    struct rig *rig = rig_started(17);
    struct rig_batch *batch = rig_accepted(rig, 100);
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
    for (int i = 0; i < 200 && rig_has_failed(rig) == 0 && !journal_is_idle(&rig->journal); i++) {
        rig_step(rig, 1);
        clock_manual_advance(&rig->clock, NS_PER_MS * 100);
    }
    if (rig_has_failed(rig) == 0 && !journal_is_idle(&rig->journal)) {
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
            failures += rig_has_failed(rig);
            if (rig_has_failed(rig) != 0) {
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
    struct rig *rig = rig_started(5);
    struct rig_batch *batch = rig_accepted(rig, 10);
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
    CU_ASSERT_EQUAL(rig_has_failed(rig), 1);
    rig->disk->on_op = NULL;
    (void)rig_entry(rig, batch, 2, JOURNAL_DELIVERED);
    rig_step(rig, 20);
    CU_ASSERT_EQUAL(rig->acked_count, 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&batch->batch.counts[BATCH_DELIVERED]), 0);
    rig_destroy(rig);
}

/* More inboxes than a group answers with one push each. */
static void test_many_reply_inboxes(void)
{
    struct rig *rig = rig_started(13);
    struct rig_batch *batch = rig_accepted(rig, 150);
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
    struct rig *rig = rig_started(14);
    struct rig_batch *batch = rig_accepted(rig, 100);
    for (uint32_t i = 0; i < 100; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
    CU_ASSERT_FALSE(journal_is_idle(&rig->journal));
    rig_stop(rig);
    struct journal_known known;
    crash_disk_crash(rig->disk, 0);
    ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
    CU_ASSERT_EQUAL(known.batches_count, 1);
    CU_ASSERT_EQUAL(known.batches[0].counts[BATCH_DELIVERED], batch->batch.recipients_count);
    journal_known_free(&known);
    journal_deinit(NULL);
    rig_destroy(rig);
}

/* An abandoned journal leaves everybody's objects alone, and the disk as it was. */
static void test_abandoned_journal_touches_nothing(void)
{
    struct rig *rig = rig_started(18);
    struct rig_batch *batch = rig_accepted(rig, 10);
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
    struct rig *rig = rig_started(15);
    struct rig_batch *batch = rig_accepted(rig, 5);
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
    struct rig *rig = rig_started(16);
    struct rig_batch *batch = rig_accepted(rig, 10);
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
    ensure(journal_replay(disk, paths[0], NULL, &known) == 0);
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
      test_failing_ops, test_failed_sync_is_final, test_many_reply_inboxes,
      test_stop_writes_what_is_pending, test_abandoned_journal_touches_nothing,
      test_unknown_batch_may_end, test_bugs_panic, test_real_disks)
