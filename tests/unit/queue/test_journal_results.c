/* SPDX-License-Identifier: Apache-2.0 */
/* results.ndjson while the disk says no: no batch is handed back without its lines. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/journal_priv.h"
#include "tests/harness.h"
#include "tests/unit/queue/journal_rig.h"

enum { RECORDS = 10 };

static const char PATH[] = "active/batch-1-/" JOURNAL_RESULTS_NAME;
static const char DOUBTED[] = "active/batch-1-/" JOURNAL_RESULTS_DOUBTED_NAME;

/* Which ops on which file fail, and how often they did. */
struct refusal {
    struct rig *rig;
    enum disk_verb verb;
    const char *path; /* of OPEN: a part of it; else the file's own */
    int error;
    uint64_t count;
};

static bool is_its_file(const struct refusal *refusal, const struct disk_op *op)
{
    const struct crash_disk *disk = refusal->rig->disk;
    if (op->verb == DISK_OPEN) {
        return strstr(op->path, refusal->path) != NULL;
    }
    const struct crash_node *node = &disk->nodes[disk->fds[op->fd] - 1];
    if (op->verb == DISK_SYNC) {
        return node->is_directory;
    }
    return &node->seen == crash_disk_file(refusal->rig->disk, refusal->path);
}

static void refuse(void *context, const struct disk_op *op, bool is_complete)
{
    struct refusal *refusal = context;
    if (is_complete && op->verb == refusal->verb && is_its_file(refusal, op)) {
        ((struct disk_op *)(uintptr_t)op)->result = refusal->error;
        refusal->count++;
    }
}

/* Its directory's name is durable, as intake makes it. */
static struct rig_batch *accepted(struct rig *rig, uint32_t records_count)
{
    struct disk *disk = &rig->disk->disk;
    struct rig_batch *batch = rig_accept(rig, records_count);
    int active = disk_open(disk, DISK_ROOT, "active", DISK_READONLY | DISK_DIRECTORY);
    ensure(disk_sync(disk, active) == 0);
    disk_close(disk, active);
    rig_settle_down(rig);
    return batch;
}

static void begin_refusing(struct rig *rig, struct refusal *refusal)
{
    refusal->rig = rig;
    rig->disk->on_op = refuse;
    rig->disk->context = refusal;
}

/* Seconds in which nothing may come back. */
static void run_s(struct rig *rig, int seconds)
{
    for (int i = 0; i < seconds * 10; i++) {
        rig_step(rig, 1);
        clock_manual_advance(&rig->clock, NS_PER_MS * 100);
    }
}

static size_t lines_count(struct rig *rig)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, PATH);
    size_t lines = 0;
    for (size_t i = 0; bytes != NULL && i < bytes->size; i++) {
        lines += bytes->at[i] == '\n';
    }
    return lines;
}

static size_t settle_all(struct rig *rig, struct rig_batch *batch)
{
    size_t sent = 0;
    for (uint32_t i = 0; i < RECORDS; i++) {
        sent += rig_entry(rig, batch, i, JOURNAL_DELIVERED) != NULL;
    }
    return sent;
}

/* Opening and writing: tried again each second, and the batch waits for it. */
static void test_a_batch_waits_for_its_lines(void)
{
    static const struct {
        enum disk_verb verb;
        const char *path;
        int error;
    } ROWS[] = {
        {DISK_OPEN, "/" JOURNAL_RESULTS_NAME, -ENOSPC},
        {DISK_OPEN, "/" JOURNAL_RESULTS_NAME, -EMFILE},
        {DISK_WRITE, PATH, -ENOSPC},
        {DISK_WRITE, PATH, -EIO},
        {DISK_OPEN, "batch-1-", -EMFILE},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_started(6);
        struct rig_batch *batch = accepted(rig, RECORDS);
        struct refusal refusal = {
            .verb = ROWS[i].verb, .path = ROWS[i].path, .error = ROWS[i].error};
        begin_refusing(rig, &refusal);
        size_t sent = settle_all(rig, batch);
        run_s(rig, 10);
        const struct journal_stats *stats = &rig->journal.stats;
        CHECK_ROW(i, rig->acked_count == sent); /* the records are durable, and mail goes on */
        CHECK_ROW(i, !batch->is_settled);
        CHECK_ROW(i, !journal_is_idle(&rig->journal));
        CHECK_ROW(i, stat_read_xcore(&stats->results_waiting) == 1);
        CHECK_ROW(i, stat_read_xcore(&stats->results_error) == (uint64_t)-ROWS[i].error);
        CHECK_ROW(i, refusal.count >= 5 && refusal.count <= 12);
        rig->disk->on_op = NULL;
        rig_settle_down(rig);
        CHECK_ROW(i, batch->is_settled);
        CHECK_ROW(i, stat_read_xcore(&stats->results_waiting) == 0);
        CHECK_ROW(i, stat_read_xcore(&stats->has_failed) == 0);
        rig_crash(rig, 0);
        CHECK_ROW(i, lines_count(rig) == sent);
        rig_destroy(rig);
    }
}

/* What a failed sync leaves nobody knows: the journal ends, the batch is not handed back, and the
 * file has a name by which the next start knows. That of the directory, too: asked again it might
 * tell nothing. */
static void test_a_failed_sync_of_results_is_final(void)
{
    static const enum disk_verb VERBS[] = {DISK_DATASYNC, DISK_SYNC};
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        struct rig *rig = rig_started(6);
        struct rig_batch *batch = accepted(rig, RECORDS);
        struct refusal refusal = {.verb = VERBS[i], .path = PATH, .error = -EIO};
        begin_refusing(rig, &refusal);
        (void)settle_all(rig, batch);
        run_s(rig, 3);
        const struct journal_stats *stats = &rig->journal.stats;
        CHECK_ROW(i, stat_read_xcore(&stats->has_failed) == 1);
        CHECK_ROW(i, stat_read_xcore(&stats->failure) == JOURNAL_FAILURE_RESULTS);
        CHECK_ROW(i, stat_read_xcore(&stats->failure_error) == EIO);
        CHECK_ROW(i, stat_read_xcore(&stats->failure_number) == batch->batch.number);
        CHECK_ROW(i, refusal.count == 1);
        CHECK_ROW(i, !batch->is_settled);
        CHECK_ROW(i, crash_disk_file(rig->disk, PATH) == NULL);
        CHECK_ROW(i, crash_disk_file(rig->disk, DOUBTED) != NULL);
        rig->disk->on_op = NULL;
        run_s(rig, 3);
        CHECK_ROW(i, !batch->is_settled);
        rig_destroy(rig);
    }
}

/* Lines that cannot be written keep a checkpoint from taking their records away. */
static void test_no_checkpoint_over_lines_that_wait(void)
{
    struct rig *rig = rig_create(9);
    rig->segments_max = 1;
    rig->segment_size = 8192;
    ensure(rig_start(rig, NULL) == 0);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct rig_batch *other = accepted(rig, 100);
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -ENOSPC};
    begin_refusing(rig, &refusal);
    size_t sent = settle_all(rig, batch);
    run_s(rig, 2);
    uint64_t before = stat_read_xcore(&rig->journal.stats.checkpoints);
    for (int i = 0; i < 300; i++) {
        (void)rig_entry(rig, other, 0, JOURNAL_DEFERRED);
        rig_step(rig, 4);
    }
    run_s(rig, 2);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.checkpoints), before);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.segments) > 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 0);
    rig->disk->on_op = NULL;
    rig_settle_down(rig);
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > before);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(lines_count(rig), sent);
    rig_destroy(rig);
}

/* An end with lines that cannot be written is not in order: the next start must look for them. */
static void test_a_stop_with_lines_left_is_no_clean_one(void)
{
    struct rig *rig = rig_started(6);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -ENOSPC};
    begin_refusing(rig, &refusal);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    run_s(rig, 3);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 0);
    journal_deinit(&rig->journal);
    rig->has_journal = false;
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.has_failed), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.failure), JOURNAL_FAILURE_STOP);
    rig->disk->on_op = NULL;
    rig_destroy(rig);
}

/* People took the batch away: there is nobody to be told, and nothing waits for it. */
static void test_a_batch_that_is_gone_holds_nothing(void)
{
    struct rig *rig = rig_started(6);
    struct rig_batch *batch = accepted(rig, RECORDS);
    struct refusal refusal = {.verb = DISK_OPEN, .path = "batch-1-", .error = -ENOENT};
    begin_refusing(rig, &refusal);
    (void)settle_all(rig, batch);
    rig_settle_down(rig);
    CU_ASSERT(batch->is_settled);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->journal.stats.results_waiting), 0);
    rig->disk->on_op = NULL;
    rig_destroy(rig);
}

enum taking { TAKING_MOVED, TAKING_REMOVED, TAKING_CUT };

static void take_file(struct rig *rig, enum taking taking, const char *to)
{
    struct disk *disk = &rig->disk->disk;
    switch (taking) {
    case TAKING_MOVED:
        ensure(disk_rename(disk, DISK_ROOT, PATH, DISK_ROOT, to) == 0);
        return;
    case TAKING_REMOVED:
        ensure(disk_unlink(disk, DISK_ROOT, PATH) == 0);
        return;
    case TAKING_CUT:
        crash_disk_file(rig->disk, PATH)->size = 0;
        return;
    }
}

/* People take the file away as they rotate logs: what follows begins a new one, behind no hole, and
 * what was moved is durable. */
static void test_a_file_that_is_taken_away(void)
{
    static const struct {
        enum taking taking;
        bool is_closed;
    } ROWS[] = {
        {TAKING_MOVED, false}, {TAKING_REMOVED, false}, {TAKING_CUT, false},
        {TAKING_MOVED, true},  {TAKING_REMOVED, true},  {TAKING_CUT, true},
    };
    static const char TAKEN[] = "active/batch-1-/taken";
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct rig *rig = rig_create(12);
        rig->files_max = 1;
        rig->results_sync_size = 1; /* with an index */
        ensure(rig_start(rig, NULL) == 0);
        struct rig_batch *batch = accepted(rig, RECORDS);
        struct rig_batch *other = accepted(rig, RECORDS);
        size_t before = 0, behind = 0;
        for (uint32_t at = 0; at < RECORDS / 2; at++) {
            before += rig_entry(rig, batch, at, JOURNAL_DELIVERED) != NULL;
        }
        run_s(rig, 3);
        CHECK_ROW(i, before > 0 && lines_count(rig) == before);
        for (uint32_t at = 0; at < RECORDS && ROWS[i].is_closed; at++) {
            (void)rig_entry(rig, other, at, JOURNAL_DELIVERED); /* its file needs the room */
        }
        run_s(rig, 3);
        take_file(rig, ROWS[i].taking, TAKEN);
        for (uint32_t at = RECORDS / 2; at < RECORDS; at++) {
            behind += rig_entry(rig, batch, at, JOURNAL_DELIVERED) != NULL;
        }
        rig_settle_down(rig);
        CHECK_ROW(i, batch->is_settled);
        rig_crash(rig, 0);
        CHECK_ROW(i, behind > 0 && lines_count(rig) == behind);
        const struct crash_bytes *bytes = crash_disk_file(rig->disk, PATH);
        CHECK_ROW(i, bytes != NULL && bytes->size > 0 && bytes->at[0] == '{');
        CHECK_ROW(i, ROWS[i].taking != TAKING_MOVED || rig_lines_count(rig, TAKEN) == before);
        rig_destroy(rig);
    }
}

/* Results are there a second after their event, not only at the batch's end. */
static void test_results_each_second(void)
{
    struct rig *rig = rig_started(8);
    struct rig_batch *batch = rig_accepted(rig, 10);
    (void)rig_entry(rig, batch, 0, JOURNAL_DELIVERED);
    rig_step(rig, 5);
    const char *path = "active/batch-1-/results.ndjson";
    CU_ASSERT_PTR_NULL(crash_disk_file(rig->disk, path));
    struct mono_time next =
        rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
    CU_ASSERT(next.ns <= rig->clock.mono.ns + NS_PER_S);
    clock_manual_advance(&rig->clock, next.ns - rig->clock.mono.ns);
    rig_step(rig, 3);
    CU_ASSERT(rig_file_is(rig, path, "{\"batch\":1,\"ordinal\":0,\"what\":1}\n"));
    CU_ASSERT_FALSE(batch->is_settled);
    rig_destroy(rig);
}

/* The start behind an orderly stop does not look for lines that are missing; power that failed much
 * later took them all the same, when a checkpoint had come in between. */
static void test_stop_syncs_results(void)
{
    struct rig *rig = rig_started(8);
    struct rig_batch *batch = rig_accepted(rig, 10);
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
    CU_ASSERT_EQUAL(rig_lines_count(rig, "active/batch-1-/results.ndjson"), sent);
    rig_destroy(rig);
}

/* Who is told that a batch is settled finds its results whatever happens: the file's name was lost
 * when the power failed before the batch left active/, and a checkpoint had taken the records. */
static void test_results_of_settled_batches_are_durable(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct rig *rig = rig_create(seed);
        rig->disk->is_shuffled = seed % 2 == 0;
        ensure(rig_start(rig, NULL) == 0);
        struct rig_batch *batch = rig_accepted(rig, 10);
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
        CHECK_ROW(seed, rig_lines_count(rig, "active/batch-1-/results.ndjson") == sent);
        rig_destroy(rig);
    }
}

/* Closed files: the kernel may forget them, and what it could not write of them. */
struct closings {
    const struct crash_disk *disk;
    int nodes[CRASH_FDS_MAX];
    uint32_t closed_count;
    uint32_t unsynced_count;
    uint32_t open_count, open_most;
};

static void see_closing(void *context, const struct disk_op *op, bool is_complete)
{
    struct closings *closings = context;
    if (is_complete && op->verb == DISK_OPEN && op->result >= 0) {
        bool is_one = strstr(op->path, "/" JOURNAL_RESULTS_NAME) != NULL;
        closings->nodes[op->result] = is_one ? closings->disk->fds[op->result] : 0;
        closings->open_count += is_one;
        if (closings->open_count > closings->open_most) {
            closings->open_most = closings->open_count;
        }
    }
    if (is_complete && op->verb == DISK_CLOSE && closings->nodes[op->fd] != 0) {
        const struct crash_node *node = &closings->disk->nodes[closings->nodes[op->fd] - 1];
        closings->nodes[op->fd] = 0;
        closings->open_count--;
        closings->closed_count++;
        closings->unsynced_count += node->seen.size != node->stable.size;
    }
}

/* More batches with results than files may be open and than writes may be in flight; none is closed
 * with lines that are not synced. */
static void test_many_results_files(void)
{
    struct rig *rig = rig_create(11);
    rig->disk->is_shuffled = true;
    rig->segment_size = 65536;
    rig->files_max = 16;
    ensure(rig_start(rig, NULL) == 0);
    enum { MANY = 200, LINES = 3 };
    struct closings closings = {.disk = rig->disk};
    rig->disk->on_op = see_closing;
    rig->disk->context = &closings;
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
    CU_ASSERT(closings.closed_count >= MANY);
    CU_ASSERT_EQUAL(closings.unsynced_count, 0);
    CU_ASSERT(closings.open_most <= 16);
    for (uint32_t i = 0; i < MANY; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "active/many-%u/results.ndjson", i);
        CHECK_ROW(i, rig_file_is(rig, path, "0\n1\n2\n"));
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

/* Workers that send what they may: of each of two batches, for some time. */
struct senders {
    struct rig *rig;
    struct batch batches[2];
    struct journal_accept accepts[2];
    uint32_t next[2]; /* ordinals */
    uint32_t back;    /* entries that came back */
    struct journal_entry entries[64];
    bool is_out[64];
};

static void send_some(struct senders *senders, size_t which, uint32_t count, uint32_t until)
{
    struct batch *batch = &senders->batches[which];
    for (size_t i = 0; i < COUNT_OF(senders->entries) && count > 0; i++) {
        struct journal_entry *entry = &senders->entries[i];
        if (senders->is_out[i] || senders->next[which] == until ||
            stat_read_xcore(&batch->results_held) != 0) {
            continue;
        }
        entry->reply_to = &senders->rig->workers[0];
        entry->batch = batch;
        entry->ordinal = senders->next[which]++;
        entry->what = JOURNAL_DELIVERED;
        entry->is_result = true;
        entry->line_size = JOURNAL_LINE_MAX;
        memset(entry->line, 'x', JOURNAL_LINE_MAX - 1);
        entry->line[JOURNAL_LINE_MAX - 1] = '\n';
        senders->is_out[i] = true;
        count--;
        inbox_push_xcore(&senders->rig->journal.entries, &entry->node);
    }
}

static void send_step(struct senders *senders, int count)
{
    struct rig *rig = senders->rig;
    for (int i = 0; i < count; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, rig->clock.mono);
        clock_manual_advance(&rig->clock, NS_PER_MS * 5);
        struct inbox_node *node;
        while ((node = inbox_take(&rig->workers[0])) != NULL) {
            size_t at = (size_t)(CONTAINER_OF(node, struct journal_entry, node) - senders->entries);
            senders->is_out[at] = false;
            senders->back++;
        }
    }
}

static struct senders *senders_of(struct rig *rig, uint32_t large, uint32_t small)
{
    struct senders *senders = calloc(1, sizeof(*senders));
    ensure(senders != NULL);
    senders->rig = rig;
    for (uint32_t i = 0; i < 2; i++) {
        struct batch *batch = &senders->batches[i];
        batch->index = 100 + i;
        batch->number = 1 + i;
        batch->records_count = batch->recipients_count = i == 0 ? large : small;
        (void)snprintf(batch->directory, sizeof(batch->directory), "batch-%u-", i + 1);
        char path[64];
        (void)snprintf(path, sizeof(path), "active/batch-%u-", i + 1);
        ensure(disk_mkdir(&rig->disk->disk, DISK_ROOT, path) == 0);
        senders->accepts[i] = (struct journal_accept){.reply_to = &rig->accepts, .batch = batch};
        inbox_push_xcore(&rig->journal.accepts, &senders->accepts[i].node);
    }
    send_step(senders, 20);
    return senders;
}

/* One batch cannot write: its lines took all buffers, and no outcome of any batch was taken. */
static void test_who_cannot_write_holds_nobody_else(void)
{
    enum { LARGE = 40000, SMALL = 500 };
    struct rig *rig = rig_create(6);
    rig->segment_size = 1 << 18;
    ensure(rig_start(rig, NULL) == 0);
    struct senders *senders = senders_of(rig, LARGE, SMALL);
    const struct journal_stats *stats = &rig->journal.stats;
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -EIO};
    begin_refusing(rig, &refusal);
    for (int i = 0; i < SMALL; i++) {
        send_some(senders, 0, 60, LARGE);
        send_some(senders, 1, 1, SMALL);
        send_step(senders, 1);
    }
    send_step(senders, 400);
    CU_ASSERT_EQUAL(senders->next[1], SMALL);
    CU_ASSERT_EQUAL(senders->back, senders->next[0] + SMALL); /* nobody waits */
    CU_ASSERT_EQUAL(stat_read_xcore(&stats->results_held), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&senders->batches[0].results_held), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&senders->batches[1].results_held), 0);
    CU_ASSERT(senders->next[0] < 64 * 1024 * 80 / JOURNAL_LINE_MAX);
    CU_ASSERT_EQUAL(inbox_take(&rig->settled), &senders->batches[1].node);
    rig->disk->on_op = NULL;
    send_step(senders, 400);
    CU_ASSERT_EQUAL(stat_read_xcore(&stats->results_held), 0);
    CU_ASSERT_EQUAL(stat_read_xcore(&stats->results_releases), 1);
    CU_ASSERT_EQUAL(stat_read_xcore(&senders->batches[0].results_held), 0);
    CU_ASSERT_EQUAL(rig_lines_count(rig, PATH), senders->next[0]);
    send_some(senders, 0, 10, LARGE);
    send_step(senders, 400);
    CU_ASSERT_EQUAL(rig_lines_count(rig, PATH), senders->next[0]);
    rig_destroy(rig);
    free(senders);
}

/* A batch that stalls with a few lines each second fills one buffer, not one each second. */
static void test_a_batch_that_stalls_takes_few_buffers(void)
{
    struct rig *rig = rig_create(6);
    ensure(rig_start(rig, NULL) == 0);
    struct senders *senders = senders_of(rig, 200, 10);
    struct refusal refusal = {.verb = DISK_WRITE, .path = PATH, .error = -ENOSPC};
    begin_refusing(rig, &refusal);
    for (int i = 0; i < 40; i++) {
        send_some(senders, 0, 1, 200);
        send_step(senders, 300);
    }
    CU_ASSERT(rig->journal.core->results.buffers.count_out <= 4);
    rig->disk->on_op = NULL;
    send_step(senders, 600);
    CU_ASSERT_EQUAL(rig_lines_count(rig, PATH), 40);
    CU_ASSERT_EQUAL(rig->journal.core->results.buffers.count_out, 0);
    rig_destroy(rig);
    free(senders);
}

SUITE(journal_results, test_a_batch_waits_for_its_lines, test_a_failed_sync_of_results_is_final,
      test_no_checkpoint_over_lines_that_wait, test_a_stop_with_lines_left_is_no_clean_one,
      test_a_batch_that_is_gone_holds_nothing, test_a_file_that_is_taken_away,
      test_results_each_second, test_stop_syncs_results,
      test_results_of_settled_batches_are_durable, test_many_results_files,
      test_results_buffers_run_out, test_who_cannot_write_holds_nobody_else,
      test_a_batch_that_stalls_takes_few_buffers)
