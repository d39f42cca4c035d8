/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intake with a real spool and a real journal; the workers are an inbox. What is tested here is
 * what an earlier engine left behind, and who waits for whom at the end of a batch. A crash is an
 * end without the mark of an orderly stop, with what it takes taken from the files by the test.
 */
#include "engine/intake.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <urcu/urcu-qsbr.h>

#include "engine/intake_priv.h"
#include "tests/harness.h"

enum { RECIPIENTS_MAX = 256, ENTRIES_MAX = 256, PATH_SIZE = 320 };

struct rig {
    char path[64];
    struct clock_manual clock;
    struct config *config;
    struct engine engine;
    struct waker waker;
    struct disk *intake_disk;
    struct disk *journal_disk;
    struct journal journal;
    struct intake intake;
    struct worker *worker;
    struct worker *workers[1];
    struct journal_entry entries[ENTRIES_MAX];
    uint32_t entries_count;
    struct inbox entries_back;
    struct recipient *taken[RECIPIENTS_MAX]; /* by the worker, in the order of their coming */
    uint32_t taken_count;
    uint32_t fds_max;
    uint32_t segments_max; /* of the journal; 0 = 4 */
};

static void path_of(const struct rig *rig, const char *name, char path[PATH_SIZE])
{
    (void)snprintf(path, PATH_SIZE, "%s/%s", rig->path, name);
}

static void file_write(const struct rig *rig, const char *name, const char *text)
{
    char path[PATH_SIZE];
    path_of(rig, name, path);
    FILE *file = fopen(path, "w");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0);
    ensure(fclose(file) == 0);
}

static void file_read(const struct rig *rig, const char *name, char *text, size_t size)
{
    char path[PATH_SIZE];
    path_of(rig, name, path);
    FILE *file = fopen(path, "r");
    size_t got = file == NULL ? 0 : fread(text, 1, size - 1, file);
    text[got] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
}

static bool is_there(const struct rig *rig, const char *name)
{
    char path[PATH_SIZE];
    path_of(rig, name, path);
    return access(path, F_OK) == 0;
}

static void move(const struct rig *rig, const char *from, const char *to)
{
    char path_from[PATH_SIZE];
    char path_to[PATH_SIZE];
    path_of(rig, from, path_from);
    path_of(rig, to, path_to);
    ensure(rename(path_from, path_to) == 0);
}

/* A batch of so many recipients in in/new. */
static void submit(const struct rig *rig, const char *name, uint32_t count)
{
    char at[PATH_SIZE - 64];
    char path[PATH_SIZE];
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch", name);
    path_of(rig, at, path);
    ensure(mkdir(path, 0770) == 0);
    char text[RECIPIENTS_MAX * 64];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    for (uint32_t i = 0; i < count; i++) {
        writer_put_format(&writer, "{\"to\":\"u%u@d%u.example\",\"id\":\"n%u\"}\n", i, i % 3, i);
    }
    *writer.at = '\0';
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/recipients.ndjson", name);
    file_write(rig, at, text);
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/message.eml", name);
    file_write(rig, at, "From: <news@sender.example>\nSubject: News\n\nHello.\n");
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/batch.json", name);
    file_write(rig, at,
               "{\"v\":1,\"kind\":\"merge\",\"from\":\"news@sender.example\",\"results\":"
               "[\"delivered\",\"bounced\",\"expired\",\"cancelled\"]}");
    char to[PATH_SIZE - 64];
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch", name);
    (void)snprintf(to, sizeof(to), "in/new/%s.batch", name);
    move(rig, at, to);
}

/* Life. */

static void boot(struct rig *rig)
{
    int error = 0;
    struct engine *engine = &rig->engine;
    rig->taken_count = 0;
    rig->entries_count = 0;
    *engine = (struct engine){
        .config = rig->config, .clock = &rig->clock.clock, .secret = 1, .workers_count = 1};
    engine->batches = calloc(rig->config->batches_max, sizeof(struct batch));
    engine->domains = domain_table_create(rig->config->domains_max, 1, &error);
    engine->retry = retry_wheel_create(wall_seconds(clock_wall(engine->clock)));
    engine->journal = &rig->journal;
    engine->intake = &rig->intake;
    engine->workers = rig->workers;
    rig->worker = aligned_alloc(64, (sizeof(struct worker) + 63) & ~(size_t)63);
    ensure(engine->batches != NULL && engine->domains != NULL && engine->retry != NULL &&
           rig->worker != NULL);
    memset(rig->worker, 0, sizeof(*rig->worker));
    rig->workers[0] = rig->worker;
    ensure(waker_init(&rig->worker->actor.waker, false) == 0);
    inbox_init(&rig->worker->recipients, &rig->worker->actor.waker);
    inbox_init(&rig->worker->loads, &rig->worker->actor.waker);
    inbox_init(&rig->worker->orders, &rig->worker->actor.waker);
    inbox_init(&rig->entries_back, &rig->worker->actor.waker);
    rig->intake_disk = disk_plain_create(&rig->intake.actor.waker, &error);
    rig->journal_disk = disk_plain_create(&rig->journal.actor.waker, &error);
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    const struct intake_config intake = {
        .engine = engine, .disk = rig->intake_disk, .fds_max = rig->fds_max};
    ensure(intake_init(&rig->intake, &intake, false, &errors) == 0);
    char journal_path[PATH_SIZE];
    char active_path[PATH_SIZE];
    path_of(rig, "journal", journal_path);
    path_of(rig, "active", active_path);
    struct journal_known known;
    ensure(journal_replay(rig->journal_disk, journal_path, &known) == 0);
    const struct journal_config journal = {
        .disk = rig->journal_disk,
        .clock = engine->clock,
        .directory = journal_path,
        .active = active_path,
        .segment_size = 65536,
        .segments_max = rig->segments_max != 0 ? rig->segments_max : 4,
        .settled = &rig->intake.settled,
    };
    ensure(journal_init(&rig->journal, &journal, false) == 0);
    ensure(intake_recover(&rig->intake, &known) == 0);
}

static void down(struct rig *rig, bool is_clean)
{
    journal_deinit(&rig->journal);
    if (is_clean) {
        ensure(intake_mark_clean(&rig->intake) == 0);
    }
    intake_deinit(&rig->intake);
    disk_destroy(rig->intake_disk);
    disk_destroy(rig->journal_disk);
    retry_wheel_destroy(rig->engine.retry, true);
    domain_table_destroy(rig->engine.domains);
    free(rig->engine.batches);
    waker_deinit(&rig->worker->actor.waker);
    free(rig->worker);
}

static struct rig *rig_create(void)
{
    struct rig *rig = aligned_alloc(64, (sizeof(*rig) + 63) & ~(size_t)63);
    ensure(rig != NULL);
    memset(rig, 0, sizeof(*rig));
    memcpy(rig->path, "/tmp/ramjet-intake-XXXXXX", sizeof("/tmp/ramjet-intake-XXXXXX"));
    ensure(mkdtemp(rig->path) != NULL);
    clock_manual_init(&rig->clock, (struct mono_time){.ns = 1000 * NS_PER_S},
                      (struct wall_time){.ns = 1800000000 * NS_PER_S});
    char text[1024];
    struct writer errors = writer_of(text, sizeof(text));
    rig->config = config_read(NULL, &errors);
    ensure(rig->config != NULL);
    free(rig->config->spool);
    rig->config->spool = strdup(rig->path);
    rig->config->free_space_min = 0;
    rig->config->recipients_max = RECIPIENTS_MAX;
    rig->config->batches_max = 16;
    rig->config->domains_max = 64;
    rig->config->workers_count = 1;
    boot(rig);
    return rig;
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)type;
    (void)walk;
    return remove(path);
}

static void rig_destroy(struct rig *rig)
{
    down(rig, false);
    CU_ASSERT_EQUAL(nftw(rig->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    config_destroy(rig->config);
    free(rig);
}

/* Time, and what the worker does. */

static void take(struct rig *rig)
{
    struct inbox_node *node;
    while ((node = inbox_take(&rig->worker->recipients)) != NULL) {
        ensure(rig->taken_count < RECIPIENTS_MAX);
        rig->taken[rig->taken_count++] = CONTAINER_OF(node, struct recipient, node);
    }
    while ((node = inbox_take(&rig->entries_back)) != NULL) {
        struct journal_entry *entry = CONTAINER_OF(node, struct journal_entry, node);
        struct recipient *recipient = entry->user;
        if (entry->what != JOURNAL_DEFERRED) {
            inbox_push_xcore(&rig->intake.recipients, &recipient->node);
        }
    }
}

static void run(struct rig *rig)
{
    for (uint32_t i = 0; i < 60; i++) {
        (void)rig->intake.actor.step(&rig->intake.actor, clock_mono(&rig->clock.clock));
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
        take(rig);
        clock_manual_advance(&rig->clock, 100 * NS_PER_MS);
    }
}

/* The recipient in `taken[index]` has an outcome. */
static void end(struct rig *rig, uint32_t index, uint8_t what, uint32_t due_s)
{
    ensure(rig->entries_count < ENTRIES_MAX);
    struct journal_entry *entry = &rig->entries[rig->entries_count++];
    struct recipient *recipient = rig->taken[index];
    struct batch *batch = &rig->engine.batches[recipient->batch];
    *entry = (struct journal_entry){
        .reply_to = &rig->entries_back,
        .batch = batch,
        .ordinal = recipient->ordinal,
        .what = what,
        .is_possible_duplicate = (recipient->flags & RECIPIENT_AMBIGUOUS) != 0,
        .is_result = what != JOURNAL_DEFERRED,
        .code = what == JOURNAL_DELIVERED ? 250 : 550,
        .attempts_count = ++recipient->attempts_count,
        .at_s = wall_seconds(clock_wall(&rig->clock.clock)),
        .due_s = due_s,
        .user = recipient,
    };
    struct writer line = writer_of(entry->line, sizeof(entry->line));
    writer_put_format(&line, "{\"type\":\"%s\",\"id\":\"%u-%u\",\"batch\":\"x\"}\n",
                      what == JOURNAL_DELIVERED ? "Delivery" : "Bounce", batch->number,
                      recipient->ordinal);
    entry->line_size = (uint16_t)writer_size(&line);
    inbox_push_xcore(&rig->journal.entries, &entry->node);
}

static void end_rest(struct rig *rig, uint32_t from)
{
    for (uint32_t i = from; i < rig->taken_count; i++) {
        end(rig, i, JOURNAL_DELIVERED, 0);
    }
    run(rig);
}

static uint32_t marked_count(const struct rig *rig)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        count += (rig->taken[i]->flags & RECIPIENT_AMBIGUOUS) != 0 ? 1 : 0;
    }
    return count;
}

/* Where the batch is in done/ or failed/ on the rig's only day. */
static bool is_in(const struct rig *rig, const char *place, const char *name)
{
    char at[PATH_SIZE - 64];
    (void)snprintf(at, sizeof(at), "%s/2027-01-15/%s.batch", place, name);
    return is_there(rig, at);
}

static void test_a_batch_comes_and_goes(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(marked_count(rig), 0);
    end_rest(rig, 0);
    CU_ASSERT(is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 0);
    rig_destroy(rig);
}

/* The mark of an orderly stop, LAW 6. */

static void test_after_a_crash_all_who_may_have_been_in_flight_are_marked(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    uint32_t now_s = wall_seconds(clock_wall(&rig->clock.clock));
    for (uint32_t i = 0; i < 5; i++) {
        end(rig, i, JOURNAL_DELIVERED, 0);
        end(rig, 5 + i, JOURNAL_DEFERRED, now_s + 3600);
    }
    run(rig);
    down(rig, false);
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 10);
    CU_ASSERT_EQUAL(marked_count(rig), 10);
    CU_ASSERT_EQUAL(retry_count_xcore(rig->engine.retry), 5);
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    CU_ASSERT(retry_take_xcore(rig->engine.retry, now_s + 4000, &chain));
    struct inbox_node *node;
    while ((node = inbox_chain_take(&chain)) != NULL) {
        const struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        CU_ASSERT_EQUAL(recipient->flags & RECIPIENT_AMBIGUOUS, 0);
        CU_ASSERT_EQUAL(recipient->attempts_count, 1);
    }
    rig_destroy(rig);
}

static void test_after_an_orderly_stop_nobody_is_marked(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    down(rig, true);
    CU_ASSERT(is_there(rig, "clean"));
    boot(rig);
    CU_ASSERT_FALSE(is_there(rig, "clean"));
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(marked_count(rig), 0);
    rig_destroy(rig);
}

/* In doubt since the crash, and not tried before the orderly stop behind it. */
static void test_a_doubt_outlives_an_orderly_stop(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    submit(rig, "two", 5);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 25);
    down(rig, false);
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(marked_count(rig), 25);
    submit(rig, "three", 7);
    run(rig);
    CU_ASSERT_EQUAL(marked_count(rig), 25);
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        const struct batch *batch = &rig->engine.batches[rig->taken[i]->batch];
        if (strcmp(batch->manifest->id, "two") == 0) {
            end(rig, i, JOURNAL_DELIVERED, 0);
        }
    }
    run(rig);
    CU_ASSERT(is_in(rig, "done", "two"));
    down(rig, true);
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 27);
    CU_ASSERT_EQUAL(marked_count(rig), 20); /* "one" */
    rig_destroy(rig);
}

/* Tried before the crash, under way again at the crash, and not tried before an orderly stop behind
 * it: the earlier attempt was taken for one that had come since, and the doubt was gone. */
static void test_who_was_tried_before_a_crash_stays_in_doubt(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    uint32_t first_s = wall_seconds(clock_wall(&rig->clock.clock));
    for (uint32_t i = 0; i < 5; i++) {
        end(rig, i, JOURNAL_DEFERRED, first_s + 1);
        end(rig, 5 + i, JOURNAL_DEFERRED, first_s + 9);
    }
    run(rig);
    for (uint32_t stops = 0; stops < 3; stops++) {
        down(rig, stops > 0);
        boot(rig);
        run(rig); /* later, whoever was not due at the crash is, and was not in flight then */
    }
    CU_ASSERT_EQUAL(rig->taken_count, 10);
    CU_ASSERT_EQUAL(marked_count(rig), 10);
    struct inbox_chain chain;
    inbox_chain_init(&chain);
    CU_ASSERT(retry_take_xcore(rig->engine.retry, first_s + 1000, &chain));
    CU_ASSERT_EQUAL(chain.count, 10);
    struct inbox_node *node;
    while ((node = inbox_chain_take(&chain)) != NULL) {
        const struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        bool is_marked = (recipient->flags & RECIPIENT_AMBIGUOUS) != 0;
        CU_ASSERT_EQUAL(is_marked, recipient->due_s == first_s + 1);
    }
    rig_destroy(rig);
}

/* Results. */

static uint32_t lines_with(const char *text, const char *words)
{
    uint32_t count = 0;
    while ((text = strstr(text, words)) != NULL) {
        count++;
        text++;
    }
    return count;
}

/* Lines were lost, one was torn in the middle and one at the end. */
static void test_lost_results_are_made_from_the_journal(void)
{
    struct rig *rig = rig_create();
    char text[64 * 1024];
    submit(rig, "one", 20);
    run(rig);
    for (uint32_t i = 0; i < 12; i++) {
        end(rig, i, i % 4 == 0 ? JOURNAL_BOUNCED : JOURNAL_DELIVERED, 0);
    }
    run(rig);
    file_read(rig, "active/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), 12);
    down(rig, false);
    file_write(rig, "active/one.batch/results.ndjson",
               "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
               "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\"\n"
               "{\"type\":\"Delivery\",\"id\":\"1-6\",\"batch\":\"x\"}\n"
               "{\"type\":\"Delivery\",\"id\":\"1-7\",\"ba");
    boot(rig);
    run(rig);
    file_read(rig, "active/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), 12);
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), 12);
    CU_ASSERT_EQUAL(lines_with(text, "\"type\":\"Bounce\""), 3);
    CU_ASSERT_EQUAL(lines_with(text, "\"id\":\"1-7\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient\":\"u7@d1.example\""), 1);
    CU_ASSERT_EQUAL(lines_with(text, "\"recipient_id\":\"n7\""), 1);
    end_rest(rig, 0);
    CU_ASSERT(is_in(rig, "done", "one"));
    file_read(rig, "done/2027-01-15/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), 20);
    rig_destroy(rig);
}

static uint32_t results_count(const struct rig *rig, const char *name)
{
    char text[64 * 1024];
    file_read(rig, name, text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\n"), lines_with(text, "}\n"));
    return lines_with(text, "}\n");
}

/* A start that comes as far as the journal's checkpoint, and no further: no batch is scanned. */
static void boot_until_checkpoint(struct rig *rig)
{
    rig->segments_max = 1;
    boot(rig);
    for (uint32_t i = 0; i < 60; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
    }
    CU_ASSERT(stat_read_xcore(&rig->journal.stats.checkpoints) > 0);
}

/* Twelve of twenty are settled, and three of them have lines. */
static struct rig *rig_with_lost_results(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    for (uint32_t i = 0; i < 12; i++) {
        end(rig, i, i % 4 == 0 ? JOURNAL_BOUNCED : JOURNAL_DELIVERED, 0);
    }
    run(rig);
    down(rig, false);
    file_write(rig, "active/one.batch/results.ndjson",
               "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
               "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\":\"x\"}\n"
               "{\"type\":\"Bounce\",\"id\":\"1-8\",\"batch\":\"x\"}\n");
    return rig;
}

/* What the start after a crash had found was kept in memory only, and the journal's checkpoint took
 * the records: a second crash, or an orderly stop, in front of the scan lost the lines for good. */
static void test_found_results_outlive_what_comes_next(void)
{
    for (uint32_t row = 0; row < 8; row++) {
        struct rig *rig = rig_with_lost_results();
        for (uint32_t stops = 0; stops < 3; stops++) {
            boot_until_checkpoint(rig);
            CHECK_ROW(row, is_there(rig, "journal/results-missing"));
            CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 3);
            down(rig, (row >> stops & 1) != 0);
        }
        boot(rig);
        run(rig);
        CHECK_ROW(row, results_count(rig, "active/one.batch/results.ndjson") == 12);
        end_rest(rig, 0);
        CHECK_ROW(row, is_in(rig, "done", "one"));
        CHECK_ROW(row, results_count(rig, "done/2027-01-15/one.batch/results.ndjson") == 20);
        down(rig, true);
        boot(rig);
        CHECK_ROW(row, !is_there(rig, "journal/results-missing"));
        rig_destroy(rig);
    }
}

/* Those who have a line by the next start are not given another one. */
static void test_completed_results_are_not_completed_again(void)
{
    struct rig *rig = rig_with_lost_results();
    boot_until_checkpoint(rig);
    run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    CU_ASSERT(is_there(rig, "journal/results-missing"));
    down(rig, false);
    boot(rig);
    CU_ASSERT_FALSE(is_there(rig, "journal/results-missing"));
    run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_destroy(rig);
}

/* Crash upon crash, each with other lines lost: what was kept and what is new go together. */
static void test_kept_results_are_joined_by_new_ones(void)
{
    struct rig *rig = rig_with_lost_results();
    boot_until_checkpoint(rig);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 8);
    end_rest(rig, 4);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 16);
    down(rig, false);
    /* All but one line of the first run, and all of this one: their pages were never written. */
    file_write(rig, "active/one.batch/results.ndjson",
               "{\"type\":\"Delivery\",\"id\":\"1-3\",\"batch\":\"x\"}\n"
               "{\"type\":\"Delivery\",\"id\":\"1-5\",\"batch\":\"x\"}\n"
               "{\"type\":\"Bounce\",\"id\":\"1-8\",\"batch\":\"x\"}\n");
    for (uint32_t stops = 0; stops < 2; stops++) {
        boot_until_checkpoint(rig);
        down(rig, false);
    }
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 16);
    rig_destroy(rig);
}

/* A file of that name with other things in it stops nothing and makes no lines. */
static void test_a_strange_file_of_kept_results_is_passed_over(void)
{
    struct rig *rig = rig_with_lost_results();
    file_write(rig, "journal/results-missing", "RamjetJ\nis what this begins with, and no more.");
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    rig_destroy(rig);
}

/* Batches that the journal knows. */

static uint32_t journal_knows(struct rig *rig)
{
    char path[PATH_SIZE];
    struct journal_known known;
    path_of(rig, "journal", path);
    int error = 0;
    struct disk *disk = disk_plain_create(NULL, &error);
    ensure(disk != NULL);
    ensure(journal_replay(disk, path, &known) == 0);
    uint32_t count = known.batches_count;
    journal_known_free(&known);
    disk_destroy(disk);
    return count;
}

/* It went to done/, and the engine died before the journal was told. A new batch of the same name
 * was taken for the old one: none of its recipients was sent to. */
static void test_a_batch_that_left_is_not_taken_for_a_new_one(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 20);
    run(rig);
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        end(rig, i, JOURNAL_DELIVERED, 0);
    }
    /* Durable, but the folder is still in active/. */
    for (uint32_t i = 0; i < 10; i++) {
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
        clock_manual_advance(&rig->clock, 10 * NS_PER_MS);
    }
    down(rig, false);
    CU_ASSERT_EQUAL(journal_knows(rig), 1);
    move(rig, "active/one.batch", "done/one.batch");
    move(rig, "journal/ids-2027-01-15", "journal/forgotten"); /* as if it had been long ago */
    submit(rig, "one", 20);
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 20);
    CU_ASSERT_EQUAL(marked_count(rig), 0);
    end_rest(rig, 0);
    CU_ASSERT(is_in(rig, "done", "one"));
    down(rig, false);
    CU_ASSERT_EQUAL(journal_knows(rig), 0);
    boot(rig);
    rig_destroy(rig);
}

static void test_a_batch_on_hold_keeps_its_name(void)
{
    struct rig *rig = rig_create();
    char text[4096];
    submit(rig, "one", 20);
    run(rig);
    end(rig, 0, JOURNAL_DELIVERED, 0);
    run(rig);
    down(rig, true);
    file_read(rig, "active/one.batch/recipients.ndjson", text, sizeof(text));
    text[strlen(text) - 3] = ' ';
    file_write(rig, "active/one.batch/recipients.ndjson", text);
    boot(rig);
    run(rig);
    CU_ASSERT(is_there(rig, "hold/one.batch/reason.txt"));
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    submit(rig, "one", 3);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    CU_ASSERT(is_in(rig, "failed", "one"));
    /* The file is mended and the batch put back: it goes on where it was. */
    down(rig, true);
    CU_ASSERT_EQUAL(journal_knows(rig), 1);
    text[strlen(text) - 3] = '"';
    file_write(rig, "hold/one.batch/recipients.ndjson", text);
    move(rig, "hold/one.batch", "active/one.batch");
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 19);
    end_rest(rig, 0);
    CU_ASSERT(is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* What was accepted is sent with the bytes it was accepted with, or not at all. */
static void test_a_changed_file_holds_its_batch(void)
{
    static const char *const FILES[] = {"message.eml", "batch.json", "recipients.ndjson"};
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        struct rig *rig = rig_create();
        char name[64];
        char text[4096];
        submit(rig, "one", 20);
        run(rig);
        down(rig, true);
        (void)snprintf(name, sizeof(name), "active/one.batch/%s", FILES[i]);
        file_read(rig, name, text, sizeof(text));
        size_t size = strlen(text);
        ensure(size + 1 < sizeof(text));
        memcpy(text + size, "\n", 2);
        file_write(rig, name, text);
        rig->taken_count = 0;
        boot(rig);
        run(rig);
        CHECK_ROW(i, is_there(rig, "hold/one.batch/reason.txt"));
        CHECK_ROW(i, rig->taken_count == 0);
        rig_destroy(rig);
    }
}

/* Its lines were lost when it came to hold/, and the journal's records went while it lay there. */
static void test_a_batch_on_hold_keeps_its_missing_results(void)
{
    struct rig *rig = rig_with_lost_results();
    char text[4096];
    file_read(rig, "active/one.batch/recipients.ndjson", text, sizeof(text));
    text[strlen(text) - 3] = ' ';
    file_write(rig, "active/one.batch/recipients.ndjson", text);
    boot(rig);
    run(rig);
    CU_ASSERT(is_there(rig, "hold/one.batch/reason.txt"));
    down(rig, false);
    file_write(rig, "hold/one.batch/results.ndjson", "");
    for (uint32_t stops = 0; stops < 3; stops++) {
        boot_until_checkpoint(rig);
        run(rig);
        down(rig, stops == 1);
    }
    text[strlen(text) - 3] = '"';
    file_write(rig, "hold/one.batch/recipients.ndjson", text);
    move(rig, "hold/one.batch", "active/one.batch");
    boot(rig);
    run(rig);
    CU_ASSERT_EQUAL(results_count(rig, "active/one.batch/results.ndjson"), 12);
    end_rest(rig, 0);
    CU_ASSERT(is_in(rig, "done", "one"));
    rig_destroy(rig);
}

/* Bounds. */

static void test_descriptors_bound_what_is_claimed(void)
{
    struct rig *rig = rig_create();
    down(rig, false);
    rig->fds_max = 4;
    boot(rig);
    char name[16];
    for (uint32_t i = 0; i < 5; i++) {
        (void)snprintf(name, sizeof(name), "b%u", i);
        submit(rig, name, 3);
    }
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 6);
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 4);
    uint32_t ended = 0;
    while (ended < rig->taken_count) {
        uint32_t from = ended;
        ended = rig->taken_count;
        end_rest(rig, from);
    }
    CU_ASSERT_EQUAL(rig->taken_count, 15);
    CU_ASSERT(intake_is_idle(&rig->intake));
    CU_ASSERT_EQUAL(rig->intake.core->fds_open, 0);
    rig_destroy(rig);
}

/* No descriptor was free for a moment: that speaks against no batch, least of all an accepted one.
 */
static void test_want_of_descriptors_fails_no_batch(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 5);
    run(rig);
    down(rig, true);
    boot(rig);
    struct rlimit limit;
    ensure(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    int next = dup(0);
    ensure(next >= 0);
    ensure(close(next) == 0);
    /* Enough to list active/, too few for the batch's files. */
    const struct rlimit tight = {.rlim_cur = (rlim_t)next + 1, .rlim_max = limit.rlim_max};
    ensure(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 0);
    ensure(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 5);
    CU_ASSERT_FALSE(is_there(rig, "hold/one.batch"));
    rig_destroy(rig);
}

/* The end of a batch. */

static void test_a_batch_waits_for_what_it_has_lent(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 4);
    run(rig);
    CU_ASSERT_EQUAL(rig->taken_count, 4);
    struct load load = {.reply_to = &rig->worker->loads, .count = 4};
    for (uint32_t i = 0; i < 4; i++) {
        load.recipients[i] = rig->taken[i];
    }
    load.batch = &rig->engine.batches[rig->taken[0]->batch];
    inbox_push_xcore(&rig->intake.loads, &load.node);
    run(rig);
    CU_ASSERT_PTR_EQUAL(inbox_take(&rig->worker->loads), &load.node);
    CU_ASSERT_EQUAL(load.result, 0);
    CU_ASSERT(span_starts(load.records[3], SPAN("{\"to\":\"u3@")));
    end_rest(rig, 0);
    CU_ASSERT(is_there(rig, "active/one.batch"));
    inbox_push_xcore(&rig->intake.blocks, &load.block->node);
    run(rig);
    CU_ASSERT(is_in(rig, "done", "one"));
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

static void test_a_batch_waits_for_its_order(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 4);
    run(rig);
    file_write(rig, "in/ctl/one.cancel", "");
    run(rig);
    struct inbox_node *node = inbox_take(&rig->worker->orders);
    CU_ASSERT_PTR_NOT_NULL_FATAL(node);
    struct worker_order *order = CONTAINER_OF(node, struct worker_order, node);
    CU_ASSERT(order->is_cancel);
    end_rest(rig, 0);
    CU_ASSERT(is_there(rig, "active/one.batch"));
    inbox_push_xcore(order->reply_to, &order->node);
    run(rig);
    CU_ASSERT(is_in(rig, "done", "one"));
    rig_destroy(rig);
}

static void test_a_batch_that_people_took_away_is_no_burden(void)
{
    struct rig *rig = rig_create();
    submit(rig, "one", 4);
    run(rig);
    move(rig, "active/one.batch", "away.batch");
    end_rest(rig, 0);
    CU_ASSERT(intake_is_idle(&rig->intake));
    rig_destroy(rig);
}

SUITE(intake, test_a_batch_comes_and_goes,
      test_after_a_crash_all_who_may_have_been_in_flight_are_marked,
      test_after_an_orderly_stop_nobody_is_marked, test_a_doubt_outlives_an_orderly_stop,
      test_who_was_tried_before_a_crash_stays_in_doubt, test_lost_results_are_made_from_the_journal,
      test_found_results_outlive_what_comes_next, test_completed_results_are_not_completed_again,
      test_kept_results_are_joined_by_new_ones, test_a_strange_file_of_kept_results_is_passed_over,
      test_a_batch_that_left_is_not_taken_for_a_new_one, test_a_batch_on_hold_keeps_its_name,
      test_a_changed_file_holds_its_batch, test_a_batch_on_hold_keeps_its_missing_results,
      test_descriptors_bound_what_is_claimed, test_want_of_descriptors_fails_no_batch,
      test_a_batch_waits_for_what_it_has_lent, test_a_batch_waits_for_its_order,
      test_a_batch_that_people_took_away_is_no_burden)
