/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/intake_rig.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/steady.h"

void rig_path(const struct rig *rig, const char *name, char path[RIG_PATH_SIZE])
{
    (void)snprintf(path, RIG_PATH_SIZE, "%s/%s", rig->path, name);
}

void rig_file_write(const struct rig *rig, const char *name, const char *text)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    FILE *file = fopen(path, "w");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0);
    ensure(fclose(file) == 0);
}

void rig_file_read(const struct rig *rig, const char *name, char *text, size_t size)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    FILE *file = fopen(path, "r");
    size_t got = file == NULL ? 0 : fread(text, 1, size - 1, file);
    text[got] = '\0';
    if (file != NULL) {
        (void)fclose(file);
    }
}

bool rig_is_there(const struct rig *rig, const char *name)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    return access(path, F_OK) == 0;
}

void rig_move(const struct rig *rig, const char *from, const char *to)
{
    char path_from[RIG_PATH_SIZE];
    char path_to[RIG_PATH_SIZE];
    rig_path(rig, from, path_from);
    rig_path(rig, to, path_to);
    ensure(rename(path_from, path_to) == 0);
}

void rig_submit(const struct rig *rig, const char *name, uint32_t count)
{
    char at[RIG_PATH_SIZE - 64];
    char path[RIG_PATH_SIZE];
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch", name);
    rig_path(rig, at, path);
    ensure(mkdir(path, 0770) == 0);
    char text[RIG_RECIPIENTS_MAX * 64];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    for (uint32_t i = 0; i < count; i++) {
        writer_put_format(&writer, "{\"to\":\"u%u@d%u.example\",\"id\":\"n%u\"}\n", i, i % 3, i);
    }
    *writer.at = '\0';
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/recipients.ndjson", name);
    rig_file_write(rig, at, text);
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/message.eml", name);
    rig_file_write(rig, at, "From: <news@sender.example>\nSubject: News\n\nHello.\n");
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch/batch.json", name);
    rig_file_write(rig, at,
                   "{\"v\":1,\"kind\":\"merge\",\"from\":\"news@sender.example\",\"results\":"
                   "[\"delivered\",\"bounced\",\"expired\",\"cancelled\"]}");
    char to[RIG_PATH_SIZE - 64];
    (void)snprintf(at, sizeof(at), "in/tmp/%s.batch", name);
    (void)snprintf(to, sizeof(to), "in/new/%s.batch", name);
    rig_move(rig, at, to);
}

void rig_boot(struct rig *rig)
{
    int error = 0;
    struct engine *engine = &rig->engine;
    rig->taken_count = 0;
    rig->entries_count = 0;
    *engine = (struct engine){
        .config = rig->config, .clock = &rig->clock.clock, .secret = 1, .workers_count = 1};
    steady_begin(engine);
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
    char journal_path[RIG_PATH_SIZE];
    char active_path[RIG_PATH_SIZE];
    rig_path(rig, "journal", journal_path);
    rig_path(rig, "active", active_path);
    struct journal_known known;
    ensure(journal_replay(rig->journal_disk, journal_path, NULL, &known) == 0);
    const struct journal_config journal = {
        .disk = rig->journal_disk,
        .clock = engine->clock,
        .directory = journal_path,
        .active = active_path,
        .segment_size = 65536,
        .segments_max = rig->segments_max != 0 ? rig->segments_max : 4,
        .results_sync_size = rig->results_sync_size,
        .settled = &rig->intake.settled,
    };
    ensure(journal_init(&rig->journal, &journal, false) == 0);
    ensure(intake_recover(&rig->intake, &known) == 0);
}

void rig_down(struct rig *rig, bool is_clean)
{
    journal_deinit(&rig->journal);
    if (is_clean) {
        ensure(intake_mark_clean(&rig->intake) == 0);
    } else {
        char path[RIG_PATH_SIZE];
        rig_path(rig, "clean", path);
        (void)unlink(path); /* also of a life without a step: what died was at work */
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

struct rig *rig_create(void)
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
    rig->config->recipients_max = RIG_RECIPIENTS_MAX;
    rig->config->batches_max = 16;
    rig->config->domains_max = 64;
    rig->config->workers_count = 1;
    rig_boot(rig);
    return rig;
}

static int remove_entry(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)type;
    (void)walk;
    return remove(path);
}

void rig_destroy(struct rig *rig)
{
    rig_down(rig, false);
    CU_ASSERT_EQUAL(nftw(rig->path, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
    config_destroy(rig->config);
    free(rig);
}

static void take(struct rig *rig)
{
    struct inbox_node *node;
    while ((node = inbox_take(&rig->worker->recipients)) != NULL) {
        ensure(rig->taken_count < RIG_RECIPIENTS_MAX);
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

void rig_run(struct rig *rig)
{
    for (uint32_t i = 0; i < 60; i++) {
        (void)rig->intake.actor.step(&rig->intake.actor, clock_mono(&rig->clock.clock));
        (void)rig->journal.actor.step(&rig->journal.actor, clock_mono(&rig->clock.clock));
        take(rig);
        clock_manual_advance(&rig->clock, 100 * NS_PER_MS);
    }
}

void rig_end(struct rig *rig, uint32_t index, uint8_t what, uint32_t due_s)
{
    ensure(rig->entries_count < RIG_ENTRIES_MAX);
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

void rig_end_rest(struct rig *rig, uint32_t from)
{
    for (uint32_t i = from; i < rig->taken_count; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
    }
    rig_run(rig);
}

uint32_t rig_marked_count(const struct rig *rig)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rig->taken_count; i++) {
        count += (rig->taken[i]->flags & RECIPIENT_AMBIGUOUS) != 0 ? 1 : 0;
    }
    return count;
}

bool rig_is_in(const struct rig *rig, const char *place, const char *name)
{
    char at[RIG_PATH_SIZE - 64];
    (void)snprintf(at, sizeof(at), "%s/2027-01-15/%s.batch", place, name);
    return rig_is_there(rig, at);
}
