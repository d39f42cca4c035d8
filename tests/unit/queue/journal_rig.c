/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/queue/journal_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "queue/journal_record.h"
#include "tests/harness.h"

struct rig *rig_create(uint64_t seed)
{
    struct rig *rig = calloc(1, sizeof(*rig));
    ensure(rig != NULL);
    rig->disk = malloc(sizeof(*rig->disk));
    ensure(rig->disk != NULL);
    crash_disk_init(rig->disk, seed);
    ensure(disk_mkdir(&rig->disk->disk, DISK_ROOT, "journal") == 0);
    ensure(disk_mkdir(&rig->disk->disk, DISK_ROOT, "active") == 0);
    ensure(disk_mkdir(&rig->disk->disk, DISK_ROOT, "log") == 0);
    crash_disk_put(rig->disk, "root-is-stable", SPAN("yes"));
    rig->disk->stable = rig->disk->seen;
    random_init_seed(&rig->random, seed ^ 0x5eed);
    clock_manual_init(&rig->clock, (struct mono_time){.ns = NS_PER_S},
                      (struct wall_time){.ns = 1800000000 * NS_PER_S});
    ensure(waker_init(&rig->waker, false) == 0);
    inbox_init(&rig->accepts, &rig->waker);
    inbox_init(&rig->ends, &rig->waker);
    inbox_init(&rig->settled, &rig->waker);
    for (size_t i = 0; i < RIG_WORKERS; i++) {
        inbox_init(&rig->workers[i], &rig->waker);
    }
    rig->segment_size = 8192;
    rig->segments_max = 3;
    rig->next_number = 1;
    rig->batches_max = 6;
    return rig;
}

int rig_start(struct rig *rig, const struct journal_known *known)
{
    const struct journal_config config = {
        .disk = &rig->disk->disk,
        .clock = &rig->clock.clock,
        .directory = "journal",
        .active = "active",
        .log_directory = rig->has_log ? "log" : NULL,
        .segment_size = rig->segment_size,
        .segments_max = rig->segments_max,
        .log_size_max = 100000,
        .results_files_max = rig->files_max,
        .results_sync_size = rig->results_sync_size,
        .settled = &rig->settled,
        .known = known,
    };
    int error = journal_init(&rig->journal, &config, false);
    rig->has_journal = error == 0;
    return error;
}

void rig_stop(struct rig *rig)
{
    if (rig->has_journal) {
        journal_deinit(&rig->journal);
        rig->has_journal = false;
    }
}

void rig_destroy(struct rig *rig)
{
    rig_stop(rig);
    crash_disk_deinit(rig->disk);
    free(rig->disk);
    free(rig);
}

static void inbox_drop(struct inbox *inbox)
{
    while (inbox_take(inbox) != NULL) {
    }
}

/* The journal's memory goes by way of its own deinit, on the old disk where everything fails by
 * then. */
void rig_crash(struct rig *rig, uint32_t keep_percent)
{
    struct crash_disk *after = malloc(sizeof(*after));
    ensure(after != NULL);
    crash_disk_crash_copy(after, rig->disk, random_u64(&rig->random), keep_percent);
    rig->disk->fail_at = 1;
    rig->disk->is_sticky = true;
    rig->disk->error = -EIO;
    rig->disk->on_op = NULL;
    rig->disk->reaps_left = UINT32_MAX;
    rig_stop(rig);
    crash_disk_deinit(rig->disk);
    free(rig->disk);
    rig->disk = after;
    inbox_drop(&rig->accepts);
    inbox_drop(&rig->ends);
    inbox_drop(&rig->settled);
    for (size_t i = 0; i < RIG_WORKERS; i++) {
        inbox_drop(&rig->workers[i]);
    }
    memset(rig->is_entry_used, 0, sizeof(rig->is_entry_used));
}

static struct rig_batch *batch_of(struct rig *rig, const struct batch *batch)
{
    return &rig->batches[batch->index];
}

static void on_accept(struct rig *rig, struct journal_accept *accept)
{
    ensure(accept->result == 0);
    batch_of(rig, accept->batch)->is_accept_acked = true;
}

static void on_end(struct rig *rig, struct journal_end *end)
{
    struct rig_batch *batch = batch_of(rig, end->batch);
    ensure(batch->is_end_submitted);
    *batch = (struct rig_batch){.is_used = false};
}

static void on_settled(struct rig *rig, struct inbox_node *node)
{
    struct rig_batch *batch = batch_of(rig, CONTAINER_OF(node, struct batch, node));
    ensure(batch->is_accept_acked);
    ensure(!batch->is_settled);
    for (size_t i = 0; i < batch->batch.records_count; i++) {
        ensure(batch->records[i].is_rejected || batch->records[i].settled_acked >= 0);
    }
    ensure(batch_settled_xcore(&batch->batch) == batch->batch.recipients_count);
    batch->is_settled = true;
}

static void on_entry(struct rig *rig, struct journal_entry *entry)
{
    struct rig_record *record = &batch_of(rig, entry->batch)->records[entry->ordinal];
    ensure(record->is_in_flight);
    record->is_in_flight = false;
    if (entry->what == JOURNAL_DEFERRED) {
        record->attempts_acked = entry->attempts_count;
    } else {
        record->settled_acked = entry->what;
    }
    rig->is_entry_used[entry - rig->entries] = false;
    rig->acked_count++;
}

static void replies_take(struct rig *rig)
{
    struct inbox_node *node;
    while ((node = inbox_take(&rig->accepts)) != NULL) {
        on_accept(rig, CONTAINER_OF(node, struct journal_accept, node));
    }
    for (size_t i = 0; i < RIG_WORKERS; i++) {
        while ((node = inbox_take(&rig->workers[i])) != NULL) {
            on_entry(rig, CONTAINER_OF(node, struct journal_entry, node));
        }
    }
    while ((node = inbox_take(&rig->settled)) != NULL) {
        on_settled(rig, node);
    }
    while ((node = inbox_take(&rig->ends)) != NULL) {
        on_end(rig, CONTAINER_OF(node, struct journal_end, node));
    }
}

void rig_step(struct rig *rig, int count)
{
    while (count-- > 0) {
        clock_manual_advance(&rig->clock, NS_PER_MS);
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
        replies_take(rig);
    }
}

void rig_settle_down(struct rig *rig)
{
    for (int i = 0; i < 100000 && stat_read_xcore(&rig->journal.stats.has_failed) == 0; i++) {
        rig_step(rig, 1);
        if (journal_is_idle(&rig->journal)) {
            return;
        }
        clock_manual_advance(&rig->clock, NS_PER_MS * 100);
    }
    ensure(stat_read_xcore(&rig->journal.stats.has_failed) == 1);
}

static struct rig_batch *batch_free_slot(struct rig *rig)
{
    uint32_t live = 0;
    struct rig_batch *found = NULL;
    for (uint32_t i = 0; i < RIG_BATCHES; i++) {
        live += rig->batches[i].is_used;
        if (!rig->batches[i].is_used && found == NULL) {
            found = &rig->batches[i];
        }
    }
    return live < rig->batches_max ? found : NULL;
}

struct rig_batch *rig_accept(struct rig *rig, uint32_t records_count)
{
    struct rig_batch *batch = batch_free_slot(rig);
    if (batch == NULL) {
        return NULL;
    }
    ensure(records_count <= RIG_RECORDS_MAX);
    *batch = (struct rig_batch){.is_used = true};
    struct batch *inner = &batch->batch;
    inner->index = (uint32_t)(batch - rig->batches);
    inner->number = rig->next_number++;
    (void)snprintf(inner->directory, sizeof(inner->directory), "batch-%u%.*s", inner->number,
                   (int)(inner->number % 100),
                   "------------------------------------------------"
                   "----------------------------------------------------");
    inner->records_count = records_count;
    inner->accepted_at = clock_wall(&rig->clock.clock);
    for (uint32_t i = 0; i < records_count; i++) {
        batch->records[i] = (struct rig_record){.settled_submitted = -1, .settled_acked = -1};
        batch->records[i].is_rejected = i % 7 == 3;
        inner->recipients_count += i % 7 != 3;
        inner->rejected_count += i % 7 == 3;
    }
    struct disk_op op = {.verb = DISK_MKDIR, .dir = DISK_ROOT};
    char path[256];
    (void)snprintf(path, sizeof(path), "active/%s", inner->directory);
    op.path = path;
    (void)disk_run(&rig->disk->disk, &op);
    batch->accept = (struct journal_accept){.reply_to = &rig->accepts,
                                            .batch = inner,
                                            .content_hash = inner->number * UINT64_C(0x9e3779b97f),
                                            .content_size = records_count * 100};
    inbox_push_xcore(&rig->journal.accepts, &batch->accept.node);
    return batch;
}

struct journal_entry *rig_entry(struct rig *rig, struct rig_batch *batch, uint32_t ordinal,
                                enum journal_what what)
{
    struct rig_record *record = &batch->records[ordinal];
    size_t slot = 0;
    while (slot < RIG_ENTRIES && rig->is_entry_used[slot]) {
        slot++;
    }
    if (slot == RIG_ENTRIES || !batch->is_accept_acked || record->is_rejected ||
        record->is_in_flight || record->settled_submitted >= 0) {
        return NULL;
    }
    rig->is_entry_used[slot] = true;
    record->is_in_flight = true;
    struct journal_entry *entry = &rig->entries[slot];
    entry->reply_to = &rig->workers[ordinal % RIG_WORKERS];
    entry->batch = &batch->batch;
    entry->ordinal = ordinal;
    entry->what = (uint8_t)what;
    entry->is_ambiguous = ordinal % 5 == 0;
    entry->is_possible_duplicate = record->is_ambiguous;
    entry->is_result = what != JOURNAL_DEFERRED;
    entry->code = what == JOURNAL_DELIVERED ? 250 : 451;
    entry->attempts_count = (uint16_t)(record->attempts_submitted + 1);
    entry->at_s = wall_seconds(clock_wall(&rig->clock.clock));
    entry->due_s = what == JOURNAL_DEFERRED ? entry->at_s + entry->attempts_count * 60u : 0;
    entry->line_size = (uint16_t)snprintf(entry->line, sizeof(entry->line),
                                          "{\"batch\":%u,\"ordinal\":%u,\"what\":%d}\n",
                                          batch->batch.number, ordinal, (int)what);
    record->is_ambiguous |= entry->is_ambiguous != 0;
    if (what == JOURNAL_DEFERRED) {
        record->attempts_submitted = entry->attempts_count;
    } else {
        record->settled_submitted = (int)what;
    }
    rig->submitted_count++;
    inbox_push_xcore(&rig->journal.entries, &entry->node);
    return entry;
}

void rig_end(struct rig *rig, struct rig_batch *batch)
{
    ensure(batch->is_settled && !batch->is_end_submitted);
    batch->is_end_submitted = true;
    batch->end = (struct journal_end){.reply_to = &rig->ends, .batch = &batch->batch};
    inbox_push_xcore(&rig->journal.ends, &batch->end.node);
}

static void act_entries(struct rig *rig, struct rig_batch *batch)
{
    for (uint32_t n = 1 + random_below(&rig->random, 30); n > 0; n--) {
        uint32_t ordinal = random_below(&rig->random, (uint32_t)batch->batch.records_count);
        uint32_t chance = random_below(&rig->random, 10);
        enum journal_what what = chance < 5   ? JOURNAL_DEFERRED
                                 : chance < 7 ? JOURNAL_DELIVERED
                                 : chance < 8 ? JOURNAL_BOUNCED
                                 : chance < 9 ? JOURNAL_EXPIRED
                                              : JOURNAL_CANCELLED;
        (void)rig_entry(rig, batch, ordinal, what);
    }
}

/* What is left of the batch is delivered, so that batches come to their end. */
static void act_finish(struct rig *rig, struct rig_batch *batch)
{
    for (uint32_t i = 0; i < batch->batch.records_count; i++) {
        (void)rig_entry(rig, batch, i, JOURNAL_DELIVERED);
    }
}

void rig_act(struct rig *rig)
{
    struct rig_batch *batch = &rig->batches[random_below(&rig->random, RIG_BATCHES)];
    uint32_t chance = random_below(&rig->random, 100);
    if (chance < 40) {
        rig_step(rig, 1 + (int)random_below(&rig->random, 3));
    } else if (chance < 45) {
        clock_manual_advance(&rig->clock, random_below(&rig->random, 1000) * NS_PER_MS);
    } else if (chance < 50) {
        uint32_t records_count =
            random_below(&rig->random, 10) == 0 ? 0 : random_below(&rig->random, RIG_RECORDS_MAX);
        (void)rig_accept(rig, records_count);
    } else if (batch->is_used && batch->is_settled && !batch->is_end_submitted) {
        if (chance < 80) {
            rig_end(rig, batch);
        }
    } else if (batch->is_used && batch->batch.records_count > 0) {
        if (chance < 95) {
            act_entries(rig, batch);
        } else {
            act_finish(rig, batch);
        }
    }
}

static bool bit_of(const uint64_t *bitmap, uint32_t ordinal)
{
    return (bitmap[ordinal / 64] >> ordinal % 64 & 1) != 0;
}

static const struct journal_deferral *deferral_find(const struct journal_known_batch *known,
                                                    uint32_t ordinal)
{
    for (uint32_t i = 0; i < known->deferrals_count; i++) {
        if (known->deferrals[i].ordinal == ordinal) {
            return &known->deferrals[i];
        }
    }
    return NULL;
}

static bool record_is_between(const struct rig_record *record,
                              const struct journal_known_batch *known, uint32_t ordinal)
{
    const struct journal_deferral *deferral = deferral_find(known, ordinal);
    bool is_settled = bit_of(known->settled, ordinal);
    if (is_settled) {
        return record->settled_submitted >= 0 && deferral == NULL;
    }
    if (record->settled_acked >= 0) {
        return false;
    }
    if (deferral == NULL) {
        return record->attempts_acked == 0;
    }
    return deferral->attempts_count >= record->attempts_acked &&
           deferral->attempts_count <= record->attempts_submitted && deferral->due_s != 0 &&
           (record->is_ambiguous || !deferral->is_ambiguous);
}

static bool facts_are_right(const struct batch *inner, const struct journal_known_batch *known)
{
    return known->number == inner->number && !known->is_damaged &&
           known->records_count == inner->records_count &&
           known->recipients_count == inner->recipients_count &&
           known->rejected_count == inner->rejected_count &&
           known->accepted_at.ns == inner->accepted_at.ns &&
           known->content_hash == inner->number * UINT64_C(0x9e3779b97f) &&
           known->content_size == inner->records_count * 100;
}

static bool batch_is_between(const struct rig_batch *batch, const struct journal_known_batch *known)
{
    const struct batch *inner = &batch->batch;
    uint64_t settled = 0, acked[BATCH_COUNTS_COUNT] = {0}, submitted[BATCH_COUNTS_COUNT] = {0};
    for (uint32_t i = 0; i < inner->records_count; i++) {
        const struct rig_record *record = &batch->records[i];
        if (!record_is_between(record, known, i)) {
            return false;
        }
        settled += bit_of(known->settled, i);
        if (record->settled_acked >= 0) {
            acked[record->settled_acked - JOURNAL_DELIVERED]++;
        }
        if (record->settled_submitted >= 0) {
            submitted[record->settled_submitted - JOURNAL_DELIVERED]++;
        }
    }
    for (size_t i = 0; i < BATCH_DEFERRALS; i++) {
        if (known->counts[i] < acked[i] || known->counts[i] > submitted[i]) {
            return false;
        }
        settled -= known->counts[i];
    }
    return settled == 0;
}

bool rig_known_is_right(const struct rig *rig, const struct journal_known *known)
{
    uint32_t found = 0;
    if (known->next_number > rig->next_number) {
        return false;
    }
    for (uint32_t i = 0; i < RIG_BATCHES; i++) {
        const struct rig_batch *batch = &rig->batches[i];
        if (!batch->is_used) {
            continue;
        }
        const struct journal_known_batch *is_known =
            journal_known_find((struct journal_known *)(uintptr_t)known, batch->batch.directory);
        if (is_known == NULL && batch->is_accept_acked && !batch->is_end_submitted) {
            return false;
        }
        if (is_known != NULL) {
            found++;
            if (known->next_number <= batch->batch.number ||
                !facts_are_right(&batch->batch, is_known) || !batch_is_between(batch, is_known)) {
                return false;
            }
        }
    }
    return found == known->batches_count;
}

void rig_check_known(const struct rig *rig, const struct journal_known *known, size_t row)
{
    CHECK_ROW(row, known->corrupt_records == 0);
    CHECK_ROW(row, rig_known_is_right(rig, known));
}

static void record_adopt(struct rig_record *record, const struct journal_known_batch *known,
                         uint32_t ordinal)
{
    const struct journal_deferral *deferral = deferral_find(known, ordinal);
    if (!bit_of(known->settled, ordinal)) {
        record->settled_submitted = -1;
    }
    record->is_in_flight = false;
    record->settled_acked = record->settled_submitted;
    record->attempts_submitted = deferral == NULL ? 0 : deferral->attempts_count;
    record->attempts_acked = record->attempts_submitted;
    record->is_ambiguous = deferral != NULL && deferral->is_ambiguous;
}

void rig_adopt(struct rig *rig, struct journal_known *known)
{
    rig->next_number = known->next_number;
    for (uint32_t i = 0; i < RIG_BATCHES; i++) {
        struct rig_batch *batch = &rig->batches[i];
        struct journal_known_batch *is_known =
            batch->is_used ? journal_known_find(known, batch->batch.directory) : NULL;
        if (is_known == NULL) {
            *batch = (struct rig_batch){.is_used = false};
            continue;
        }
        for (uint32_t at = 0; at < batch->batch.records_count; at++) {
            record_adopt(&batch->records[at], is_known, at);
        }
        for (size_t at = 0; at < BATCH_COUNTS_COUNT; at++) {
            stat_set(&batch->batch.counts[at], is_known->counts[at]);
        }
        batch->is_settled = false;
        batch->is_end_submitted = false;
        batch->is_accept_acked = false;
        batch->accept.is_recovered = true;
        batch->accept.settled = is_known->settled;
        batch->accept.result = -1;
        inbox_push_xcore(&rig->journal.accepts, &batch->accept.node);
    }
}

void rig_check_copy(struct rig *rig, uint32_t keep_percent, size_t row)
{
    struct crash_disk *copy = malloc(sizeof(*copy));
    ensure(copy != NULL);
    crash_disk_crash_copy(copy, rig->disk, random_u64(&rig->random), keep_percent);
    struct journal_known known = {0};
    int error = journal_replay(&copy->disk, "journal", NULL, &known);
    CHECK_ROW(row, error == 0);
    if (error == 0) {
        rig_check_known(rig, &known, row);
    }
    journal_known_free(&known);
    crash_disk_deinit(copy);
    free(copy);
}

struct rig *rig_aged(void)
{
    struct rig *rig = rig_create(4711);
    rig->segment_size = 4096;
    rig->segments_max = 3;
    ensure(rig_start(rig, NULL) == 0);
    struct journal_known known;
    for (int run = 0; run < 2; run++) {
        while (stat_read_xcore(&rig->journal.stats.checkpoints) < 2 ||
               stat_read_xcore(&rig->journal.stats.segments) < 3) {
            rig_act(rig);
        }
        rig_settle_down(rig);
        rig_crash(rig, 0);
        ensure(journal_replay(&rig->disk->disk, "journal", NULL, &known) == 0);
        rig_check_known(rig, &known, 0);
        ensure(rig_start(rig, &known) == 0);
        rig_adopt(rig, &known);
        rig_step(rig, 1);
        journal_known_free(&known);
    }
    for (int i = 0; i < 30; i++) {
        rig_act(rig);
    }
    rig_settle_down(rig);
    rig_crash(rig, 0);
    return rig;
}

size_t rig_last_group_at(struct rig *rig, char path[64])
{
    size_t at = 0;
    for (uint32_t number = 1; number < 100; number++) {
        char name[JOURNAL_NAME_SIZE], trial[64];
        journal_name_put(name, JOURNAL_FILE_SEGMENT, number);
        (void)snprintf(trial, sizeof(trial), "journal/%s", name);
        const struct crash_bytes *bytes = crash_disk_file(rig->disk, trial);
        for (size_t i = 512; bytes != NULL && i < bytes->size; i += 512) {
            struct journal_record record;
            uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, number) + i / 32;
            if (journal_record_get((const void *)(bytes->at + i), seed, &record) &&
                record.kind == JOURNAL_KIND_GROUP) {
                at = i;
                memcpy(path, trial, sizeof(trial));
            }
        }
    }
    return at;
}

bool rig_name_is_of_journal(const struct crash_name *name)
{
    enum journal_file file;
    uint32_t number;
    return journal_name_get(name->text, &file, &number);
}

uint64_t rig_has_failed(const struct rig *rig)
{
    return stat_read_xcore(&rig->journal.stats.has_failed);
}

struct rig *rig_started(uint64_t seed)
{
    struct rig *rig = rig_create(seed);
    ensure(rig_start(rig, NULL) == 0);
    return rig;
}

struct rig_batch *rig_accepted(struct rig *rig, uint32_t records_count)
{
    struct rig_batch *batch = rig_accept(rig, records_count);
    ensure(batch != NULL);
    rig_settle_down(rig);
    ensure(batch->is_accept_acked);
    return batch;
}

bool rig_file_is(struct rig *rig, const char *path, const char *want)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    return bytes != NULL && bytes->size == strlen(want) &&
           (bytes->size == 0 || memcmp(bytes->at, want, bytes->size) == 0);
}

size_t rig_lines_count(struct rig *rig, const char *path)
{
    const struct crash_bytes *bytes = crash_disk_file(rig->disk, path);
    size_t lines = 0;
    for (size_t i = 0; bytes != NULL && i < bytes->size; i++) {
        lines += bytes->at[i] == '\n';
    }
    return lines;
}
