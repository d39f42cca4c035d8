/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/planted.h"
#include "engine/base/text.h"
#include "engine/intake_priv.h"
#include "engine/record_check.h"

static const uint16_t ALLOWED[INTAKE_STAGES_COUNT] = {
    [INTAKE_FREE] = 1u << INTAKE_OPENING,
    [INTAKE_OPENING] = 1u << INTAKE_SCANNING | 1u << INTAKE_LEAVING,
    [INTAKE_SCANNING] = 1u << INTAKE_OPENING | 1u << INTAKE_ACCEPTING | 1u << INTAKE_LEAVING,
    [INTAKE_ACCEPTING] = 1u << INTAKE_DEALING | 1u << INTAKE_LEAVING,
    [INTAKE_DEALING] = 1u << INTAKE_ACTIVE,
    [INTAKE_ACTIVE] = 1u << INTAKE_LEAVING,
    [INTAKE_LEAVING] = 1u << INTAKE_ENDING | 1u << INTAKE_FREE,
    [INTAKE_ENDING] = 1u << INTAKE_FREE,
};

static struct list *list_of(struct intake_core *core, enum intake_stage stage)
{
    switch (stage) {
    case INTAKE_OPENING:
        return &core->opening;
    case INTAKE_SCANNING:
        return &core->scanning;
    case INTAKE_DEALING:
        return &core->dealing;
    case INTAKE_ACTIVE:
        return &core->active;
    case INTAKE_LEAVING:
        return &core->leaving;
    case INTAKE_FREE:
    case INTAKE_ACCEPTING:
    case INTAKE_ENDING:
        return NULL;
    }
    ensure(false);
    return NULL;
}

void intake_enter(struct intake_core *core, struct intake_batch *ib, enum intake_stage stage)
{
    static const enum batch_state STATES[INTAKE_STAGES_COUNT] = {
        [INTAKE_FREE] = BATCH_FAILED,       [INTAKE_OPENING] = BATCH_SCANNING,
        [INTAKE_SCANNING] = BATCH_SCANNING, [INTAKE_ACCEPTING] = BATCH_ACCEPTING,
        [INTAKE_DEALING] = BATCH_ACTIVE,    [INTAKE_ACTIVE] = BATCH_ACTIVE,
        [INTAKE_LEAVING] = BATCH_SETTLED,   [INTAKE_ENDING] = BATCH_SETTLED,
    };
    ensure((ALLOWED[ib->stage] >> stage & 1) != 0);
    list_remove(&ib->link);
    ib->stage = stage;
    ib->batch->state = STATES[stage];
    struct list *list = list_of(core, stage);
    if (list != NULL) {
        list_add_last(list, &ib->link);
    }
}

struct intake_batch *intake_batch_of(struct intake_core *core, uint32_t index)
{
    ensure(index < core->engine->config->batches_max);
    return &core->batches[index];
}

/* A free slot becomes a batch that lies in active/. `known`: what the journal has of it, or NULL.
 */
static struct intake_batch *batch_make(struct intake_core *core, const char *directory,
                                       struct journal_known_batch *known)
{
    ensure(core->free_count > 0);
    uint32_t index = core->free_slots[--core->free_count];
    struct intake_batch *ib = &core->batches[index];
    struct batch *batch = &core->engine->batches[index];
    ensure(ib->stage == INTAKE_FREE);
    *ib = (struct intake_batch){.batch = batch, .fd = -1};
    list_init(&ib->link);
    inbox_chain_init(&ib->recipients);
    memset(batch, 0, sizeof(*batch));
    batch->index = index;
    (void)snprintf(batch->directory, sizeof(batch->directory), "%s", directory);
    ib->known = known;
    if (known != NULL) {
        batch->number = ib->known->number;
        batch->accepted_at = ib->known->accepted_at;
        for (unsigned i = 0; i < BATCH_COUNTS_COUNT; i++) {
            stat_set(&batch->counts[i], ib->known->counts[i]);
        }
    } else {
        batch->number = core->next_number++;
        batch->accepted_at = clock_wall(core->engine->clock);
    }
    intake_enter(core, ib, INTAKE_OPENING);
    stat_add(&core->intake->stats.batches_claimed, 1);
    return ib;
}

/* Batches under way by id. */

static uint32_t *id_bucket(struct intake_core *core, const char *id)
{
    return &core->by_id[XXH3_64bits_withSeed(id, strlen(id), core->engine->secret) &
                        core->by_id_mask];
}

static struct intake_batch *id_find(struct intake_core *core, const char *id)
{
    for (uint32_t slot = *id_bucket(core, id); slot != 0;) {
        struct intake_batch *ib = &core->batches[slot - 1];
        if (strcmp(ib->batch->manifest->id, id) == 0) {
            return ib;
        }
        slot = ib->next_by_id;
    }
    return NULL;
}

static void id_add(struct intake_core *core, struct intake_batch *ib)
{
    ensure(!ib->has_id);
    uint32_t *bucket = id_bucket(core, ib->batch->manifest->id);
    ib->next_by_id = *bucket;
    *bucket = ib->batch->index + 1;
    ib->has_id = true;
}

static void id_remove(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->has_id);
    uint32_t *slot = id_bucket(core, ib->batch->manifest->id);
    while (*slot != ib->batch->index + 1) {
        ensure(*slot != 0);
        slot = &core->batches[*slot - 1].next_by_id;
    }
    *slot = ib->next_by_id;
    ib->has_id = false;
}

static void stream_close(struct intake_core *core, struct intake_batch *ib)
{
    if (ib->stream != NULL) {
        ensure(core->fds_open >= ib->stream->files_count);
        core->fds_open -= ib->stream->files_count;
        spool_stream_close(&core->spool, ib->stream);
        free(ib->stream);
        ib->stream = NULL;
    }
}

static void directory_close(struct intake_core *core, struct intake_batch *ib)
{
    if (ib->fd >= 0) {
        ensure(core->fds_open > 0);
        core->fds_open--;
        disk_close(core->disk, ib->fd);
        ib->fd = -1;
    }
}

static void content_free(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    if (ib->has_id) {
        id_remove(core, ib);
    }
    if (ib->has_reason) {
        free((void *)(uintptr_t)ib->reason.at);
        ib->has_reason = false;
    }
    template_destroy((struct template *)(uintptr_t)batch->template);
    if (!PLANTED(SENDER_LEAKS)) {
        template_destroy((struct template *)(uintptr_t)batch->sender);
    }
    scan_columns_destroy((struct scan_columns *)(uintptr_t)batch->columns);
    manifest_destroy(batch->manifest);
    batch->template = NULL;
    batch->sender = NULL;
    batch->columns = NULL;
    batch->manifest = NULL;
}

/* What opening has brought: everything but the slot. */
static void batch_close(struct intake_core *core, struct intake_batch *ib)
{
    intake_scan_end(core, ib);
    stream_close(core, ib);
    directory_close(core, ib);
    content_free(core, ib);
}

/* Opening: manifest, content, stream; each problem names its file. */

bool intake_is_want(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

/* Opened from the beginning when it has rested: the list is in the order in which they are due. */
static void rest(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_OPENING);
    ib->open_at = mono_add_ms(clock_mono(core->engine->clock), INTAKE_RESCAN_MS);
    list_remove(&ib->link);
    list_add_last(&core->opening, &ib->link);
}

/* For want of something it stays OPENING, and is opened from the beginning a little later. */
static bool fail_open(struct intake_core *core, struct intake_batch *ib, int error,
                      const char *words)
{
    ensure(error < 0);
    if (intake_is_want(error)) {
        odd(batch_open_waits);
        batch_close(core, ib);
        rest(core, ib);
    } else {
        intake_fail(core, ib, words);
    }
    return false;
}

static const char SAME_ID_WORDS[] =
    "a batch with the same id is under way: give each batch an id of its own";

static void fail_used_id(struct intake_core *core, struct intake_batch *ib, struct wall_time at)
{
    char words[MANIFEST_ID_MAX + 256];
    struct writer writer = writer_of(words, sizeof(words) - 1);
    writer_put_format(&writer, "a batch with the id %s was accepted at ", ib->batch->manifest->id);
    text_put_rfc3339(&writer, at);
    writer_put(&writer, SPAN(", and nothing is sent twice: when this is other mail, give it an id "
                             "that was not used for 30 days, in batch.json or as the directory's "
                             "name"));
    *writer.at = '\0';
    intake_fail(core, ib, words);
}

/* `at`: when its id was accepted; NULL: that is not known. */
static void fail_forgotten(struct intake_core *core, struct intake_batch *ib,
                           const struct wall_time *at)
{
    char words[MANIFEST_ID_MAX + 1024];
    struct writer writer = writer_of(words, sizeof(words) - 1);
    writer_put(&writer, SPAN("it was accepted before, and the journal does not know of it: "
                             "journal/ was damaged, or emptied"));
    if (at != NULL) {
        writer_put_format(&writer, "; or it repeats another one with the id %s, accepted at ",
                          ib->batch->manifest->id);
        text_put_rfc3339(&writer, *at);
        writer_put(&writer, SPAN(", and the engine was stopped before it could say so"));
    }
    writer_put(&writer,
               SPAN(". Nothing is sent, since nobody can say any more who has his mail already. "
                    "results.ndjson and the event log name those who have it: take them out of "
                    "the recipients, and submit the rest with another id"));
    *writer.at = '\0';
    ib->is_forgotten = true;
    intake_fail(core, ib, words);
}

/* A recovered batch has its id before one that was never accepted. */
static bool id_take_from(struct intake_core *core, const struct intake_batch *ib,
                         struct intake_batch *other)
{
    bool is_new = other->known == NULL && !other->is_accepted;
    bool can_fail = other->stage == INTAKE_SCANNING || other->stage == INTAKE_LEAVING;
    if (ib->known == NULL || !is_new || !can_fail) {
        return false;
    }
    id_remove(core, other);
    intake_fail(core, other, SAME_ID_WORDS);
    return true;
}

/* Lines are written of what was settled, and that only behind a durable accept record. */
static bool has_results(struct intake_core *core, const struct intake_batch *ib)
{
    struct disk_stat stat;
    return (disk_stat_at(core->disk, ib->fd, JOURNAL_RESULTS_NAME, &stat) == 0 && stat.size > 0) ||
           (disk_stat_at(core->disk, ib->fd, JOURNAL_RESULTS_DOUBTED_NAME, &stat) == 0 &&
            stat.size > 0);
}

static bool open_manifest(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    struct spool_problem problem;
    char *json = malloc(MANIFEST_SIZE_MAX);
    if (json == NULL) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    struct writer content = writer_of(json, MANIFEST_SIZE_MAX);
    int result =
        spool_file_read(&core->spool, ib->fd, "batch.json", MANIFEST_SIZE_MAX, &content, &problem);
    if (result != 0) {
        free(json);
        return fail_open(core, ib, result, problem.text);
    }
    struct span name = span_of_text(batch->directory);
    struct span end = SPAN(".batch");
    if (name.size > end.size) {
        name.size -= end.size;
    }
    struct writer errors = writer_of(core->reason_text, INTAKE_REASON_MAX - 1);
    batch->manifest = manifest_parse(writer_span(&content), name, &errors);
    ib->files_hash = XXH3_64bits(json, writer_size(&content));
    free(json);
    if (batch->manifest == NULL && writer_size(&errors) == 0) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    if (batch->manifest == NULL) {
        *errors.at = '\0';
        intake_fail(core, ib, core->reason_text);
        return false;
    }
    struct wall_time at;
    bool is_used =
        spool_ids_find(core->ids, batch->manifest->id, clock_wall(core->engine->clock), &at);
    if (ib->is_new && is_used) {
        fail_used_id(core, ib, at);
        return false;
    }
    if (!ib->is_new && ib->known == NULL && (is_used || has_results(core, ib))) {
        fail_forgotten(core, ib, is_used ? &at : NULL);
        return false;
    }
    struct intake_batch *other = id_find(core, batch->manifest->id);
    if (other != NULL && !id_take_from(core, ib, other)) {
        intake_fail(core, ib, SAME_ID_WORDS);
        return false;
    }
    id_add(core, ib);
    return true;
}

static bool fail_template(struct intake_core *core, struct intake_batch *ib, const char *file,
                          const struct template_problem *problem)
{
    char words[512];
    if (problem->is_memory_short) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    if (problem->line > 0) {
        (void)snprintf(words, sizeof(words), "%s:%llu: %s", file, (unsigned long long)problem->line,
                       problem->text);
    } else {
        (void)snprintf(words, sizeof(words), "%s: %s", file, problem->text);
    }
    intake_fail(core, ib, words);
    return false;
}

static bool open_content(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    const struct manifest *manifest = batch->manifest;
    if (manifest->kind != MANIFEST_MERGE) {
        return true;
    }
    struct template_problem problem = {.line = 0};
    batch->sender = template_compile_line(span_of_text(manifest->from), &problem);
    if (batch->sender == NULL) {
        return fail_template(core, ib, "batch.json: from", &problem);
    }
    struct record_reject refused;
    if (record_check_sender(batch->sender, &refused) != 0) {
        (void)snprintf(problem.text, sizeof(problem.text), "%.120s: %s", refused.reason,
                       refused.remedy);
        return fail_template(core, ib, "batch.json", &problem);
    }
    uint64_t size_max = core->engine->config->message_size_max;
    struct spool_file file;
    struct spool_problem spool_problem;
    int result =
        spool_file_open(&core->spool, ib->fd, manifest->message, size_max, &file, &spool_problem);
    if (result != 0) {
        return fail_open(core, ib, result, spool_problem.text);
    }
    uint64_t room = file.stat.size + 1;
    spool_file_close(&core->spool, &file);
    char *eml = malloc(room);
    if (eml == NULL) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    struct writer content = writer_of(eml, room);
    result =
        spool_file_read(&core->spool, ib->fd, manifest->message, room, &content, &spool_problem);
    if (result != 0) {
        free(eml);
        return fail_open(core, ib, result, spool_problem.text);
    }
    const struct template_options options = {
        .batch_id = span_of_text(manifest->id),
        .date = PLANTED(DATE_MOVES) ? clock_wall(core->engine->clock) : batch->accepted_at,
        .size_max = size_max,
    };
    batch->template = template_compile(writer_span(&content), &options, &problem);
    ib->files_hash = XXH3_64bits_withSeed(eml, writer_size(&content), ib->files_hash);
    free(eml);
    return batch->template != NULL || fail_template(core, ib, manifest->message, &problem);
}

void intake_open(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->fd < 0);
    ensure(ib->stream == NULL);
    int fd = spool_batch_open(&core->spool, ib->batch->directory);
    if (fd < 0) {
        (void)fail_open(core, ib, fd, "the batch's directory cannot be opened");
        return;
    }
    ib->fd = fd;
    core->fds_open++;
    if (!open_manifest(core, ib) || !open_content(core, ib)) {
        return;
    }
    struct spool_problem problem;
    ib->stream = calloc(1, sizeof(*ib->stream));
    if (ib->stream == NULL) {
        (void)fail_open(core, ib, -ENOMEM, "");
        return;
    }
    int result = spool_stream_open(&core->spool, ib->fd, ib->batch->manifest, ib->stream, &problem);
    if (result != 0) {
        free(ib->stream);
        ib->stream = NULL;
        (void)fail_open(core, ib, result, problem.text);
        return;
    }
    core->fds_open += ib->stream->files_count;
    enum spool_verb kept;
    if (spool_order_kept(&core->spool, ib->fd, &kept) != 0) {
        odd(order_not_read); /* it may say that nothing is to be sent */
        (void)fail_open(core, ib, -ENOBUFS, "");
        return;
    }
    if (kept != SPOOL_RESUME) {
        stat_set(&ib->batch->orders, kept == SPOOL_CANCEL ? BATCH_CANCELLED : BATCH_PAUSED);
    }
    if (intake_scan_begin(core, ib) != 0) {
        (void)fail_open(core, ib, -ENOMEM, "");
        return;
    }
    /* Small batches have ended by then, and never need one. */
    ib->progress_at = mono_add_ms(clock_mono(core->engine->clock), INTAKE_PROGRESS_MS);
    intake_enter(core, ib, INTAKE_SCANNING);
}

void intake_open_again(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    odd(batch_open_waits);
    intake_drop_recipients(core, ib);
    batch_close(core, ib);
    batch->recipients_count = 0;
    batch->rejected_count = 0;
    ib->is_bsmtp_lf = false;
    intake_enter(core, ib, INTAKE_OPENING);
    rest(core, ib);
}

bool intake_open_waiting(struct intake_core *core, struct mono_time now)
{
    for (uint32_t i = 0; i < INTAKE_OPENS_STEP_MAX && !list_is_empty(&core->opening); i++) {
        struct intake_batch *ib = CONTAINER_OF(core->opening.next, struct intake_batch, link);
        if (mono_before(now, ib->open_at)) {
            return false;
        }
        intake_open(core, ib);
    }
    return !list_is_empty(&core->opening);
}

/* Recipients that were made and will not be sent: their entries and domains come back at once. */
void intake_drop_recipients(struct intake_core *core, struct intake_batch *ib)
{
    struct inbox_node *node;
    while ((node = inbox_chain_take(&ib->recipients)) != NULL) {
        struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        domain_drop(core->engine->domains, recipient->domain);
        slab_give(&core->recipients, recipient);
        ensure(ib->live_count > 0);
        ib->live_count--;
    }
}

static char *reason_of_known(const char *words)
{
    static const char BEFORE[] = "it was accepted before, and cannot go on: ";
    static const char BEHIND[] = ". Who has no line in results.ndjson is still to be sent to: "
                                 "submit those anew, with another id";
    size_t size = sizeof(BEFORE) + strlen(words) + sizeof(BEHIND);
    char *reason = malloc(size);
    if (reason != NULL) {
        (void)snprintf(reason, size, "%s%s%s", BEFORE, words, BEHIND);
    }
    return reason;
}

void intake_fail(struct intake_core *core, struct intake_batch *ib, const char *words)
{
    if (ib->stage == INTAKE_LEAVING) {
        return; /* it has failed already: the first reason stays */
    }
    char *copy = ib->known != NULL ? reason_of_known(words) : strdup(words);
    ib->reason = copy == NULL ? SPAN("its reason is lost: out of memory") : span_of_text(copy);
    ib->has_reason = copy != NULL;
    /* What the journal holds of it must not be lost with it: people look into hold/. */
    bool is_held = ib->known != NULL || ib->is_forgotten;
    ib->leaving_to = is_held ? SPOOL_END_HELD : SPOOL_END_FAILED;
    if (ib->known != NULL) {
        intake_known_held(core, ib);
    }
    intake_drop_recipients(core, ib);
    intake_scan_end(core, ib);
    intake_enter(core, ib, INTAKE_LEAVING);
    stat_add(&core->intake->stats.batches_failed, 1);
    stat_add(&core->intake->stats.batches_held, is_held ? 1 : 0);
}

/* Claiming. */

static bool may_claim(struct intake_core *core)
{
    struct disk_op op = {.verb = DISK_FREE_SPACE, .fd = core->spool.root};
    bool is_short =
        disk_run(core->disk, &op) == 0 && op.stat.size < core->engine->config->free_space_min;
    stat_set(&core->intake->stats.is_short_of_space, is_short);
    return !is_short && stat_read_xcore(&core->engine->is_draining) == 0 && intake_has_slot(core) &&
           slab_left(&core->recipients) > 0;
}

/* A new batch. One of its name that was accepted may lie in hold/: nothing must take the one for
 * the other at the next start. */
static void open_new(struct intake_core *core, const char *directory, bool is_new)
{
    struct intake_batch *ib = batch_make(core, directory, NULL);
    ib->is_new = is_new;
    if (intake_is_name_held(core, directory)) {
        intake_fail(core, ib,
                    "a batch of the same name lies in hold/: give this one another name, or move "
                    "that one out of the spool and start the engine anew");
        return;
    }
    intake_open(core, ib);
}

/* Names that were listed are claimed before in/new is listed again, which costs with all that lies
 * there. */
void intake_claim_new(struct intake_core *core)
{
    struct wall_time wall = clock_wall(core->engine->clock);
    core->has_more_new = true;
    if (!may_claim(core)) {
        return;
    }
    if (core->names_next == core->names->count) {
        core->names_next = 0;
        if (spool_list_new(&core->spool, wall, core->names) != 0) {
            odd(new_not_listed);
            core->names->count = 0;
            core->has_more_new = false;
            return;
        }
        core->has_names_left = core->names->left_count > 0;
    }
    struct spool_claimed claims[INTAKE_CLAIMS_STEP_MAX];
    uint32_t count = 0;
    while (count < INTAKE_CLAIMS_STEP_MAX && core->names_next < core->names->count &&
           intake_has_slots(core, count + 1)) {
        claims[count++].name = core->names->names[core->names_next++];
    }
    spool_claim_group(&core->spool, claims, count, wall);
    for (uint32_t i = 0; i < count; i++) {
        if (claims[i].result == 0) {
            open_new(core, claims[i].directory, true);
        } else if (claims[i].result == -ENOTRECOVERABLE) {
            stat_set(&core->engine->must_stop, 1);
        } else if (claims[i].result != -EINVAL) {
            odd(batch_not_claimed); /* it lies in in/new still, and is tried again */
        }
    }
    core->has_more_new = core->has_names_left || core->names_next < core->names->count;
}

void intake_take_collected(struct intake_core *core, const char *directory)
{
    open_new(core, directory, true);
}

void intake_open_recovered(struct intake_core *core, const char *directory)
{
    struct journal_known_batch *known = intake_known_take(core, directory);
    if (known == NULL) {
        open_new(core, directory, false);
        return;
    }
    intake_open(core, batch_make(core, directory, known));
}

/* Accepted: the recipients go to the workers. */

void intake_on_accepted(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_ACCEPTING);
    struct intake_stats *stats = &core->intake->stats;
    if (ib->accept.result != 0) {
        ensure(ib->accept.result == -ENOMEM);
        odd(batch_accept_waits);
        list_add_last(&core->refused, &ib->link);
        return;
    }
    stat_add(&stats->batches_accepted, 1);
    stat_add(&stats->recipients_accepted, ib->batch->recipients_count);
    spool_ids_add(core->ids, ib->batch->manifest->id, clock_wall(core->engine->clock));
    if (spool_pickup_release(&core->spool, ib->batch->directory) != 0) {
        odd(pickup_release_failed);
    }
    intake_enter(core, ib, INTAKE_DEALING);
}

void intake_accept_again(struct intake_core *core)
{
    struct list *link;
    while ((link = list_take_first(&core->refused)) != NULL) {
        struct intake_batch *ib = CONTAINER_OF(link, struct intake_batch, link);
        ensure(ib->stage == INTAKE_ACCEPTING);
        inbox_push_xcore(&core->engine->journal->accepts, &ib->accept.node);
    }
}

void intake_deal(struct intake_core *core, struct intake_batch *ib, struct mono_time now)
{
    ensure(ib->stage == INTAKE_DEALING);
    (void)now;
    struct engine *engine = core->engine;
    bool is_cancelled = (stat_read_xcore(&ib->batch->orders) & BATCH_CANCELLED) != 0;
    for (uint32_t i = 0; i < INTAKE_DEALS_STEP_MAX && ib->recipients.count > 0; i++) {
        struct inbox_chain chain;
        inbox_chain_init(&chain);
        while (chain.count < INTAKE_CHUNK && ib->recipients.count > 0) {
            struct inbox_node *node = inbox_chain_take(&ib->recipients);
            struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
            if (recipient->due_s != 0 && !is_cancelled) {
                retry_push_xcore(engine->retry, recipient);
                continue;
            }
            inbox_chain_add(&chain, node);
        }
        uint32_t worker = core->deal_next++ % engine->workers_count;
        inbox_push_chain_xcore(&engine->workers[worker]->recipients, &chain);
    }
    if (ib->recipients.count == 0) {
        /* Workers sleep by the wheel's next due time as they last saw it: what was pushed here is
         * new to them. */
        if (ib->known != NULL || ib->batch->manifest->not_before.ns != 0) {
            for (uint32_t i = 0; i < engine->workers_count; i++) {
                waker_signal_xcore(&engine->workers[i]->actor.waker);
            }
        }
        intake_enter(core, ib, INTAKE_ACTIVE);
        if (ib->is_settled) {
            intake_on_settled(core, ib);
        }
    }
}

/* The end. */

void intake_on_settled(struct intake_core *core, struct intake_batch *ib)
{
    ib->is_settled = true;
    if (ib->stage != INTAKE_ACTIVE) {
        return; /* still dealing: a recovered batch may have nothing left to send */
    }
    ib->leaving_to = SPOOL_END_DONE;
    intake_enter(core, ib, INTAKE_LEAVING);
}

static struct spool_progress progress_of(struct intake_core *core, struct intake_batch *ib,
                                         const char *state)
{
    struct batch *batch = ib->batch;
    uint64_t settled = batch_settled_xcore(batch);
    struct spool_progress progress = {
        .id = batch->manifest != NULL ? batch->manifest->id : batch->directory,
        .state = state,
        .at = clock_wall(core->engine->clock),
        .records = batch->recipients_count + batch->rejected_count,
        .accepted = batch->recipients_count,
        .rejected = batch->rejected_count,
        .pending = batch->recipients_count > settled ? batch->recipients_count - settled : 0,
        .deferred = stat_read_xcore(&batch->counts[BATCH_DEFERRALS]),
        .delivered = stat_read_xcore(&batch->counts[BATCH_DELIVERED]),
        .bounced = stat_read_xcore(&batch->counts[BATCH_BOUNCED]),
        .expired = stat_read_xcore(&batch->counts[BATCH_EXPIRED]),
        .cancelled = stat_read_xcore(&batch->counts[BATCH_CANCELLED_COUNT]),
        .possible_duplicates = stat_read_xcore(&batch->counts[BATCH_POSSIBLE_DUPLICATES]),
        .eta_s = -1,
    };
    int64_t age_ns = progress.at.ns - batch->accepted_at.ns;
    if (age_ns > 0 && settled > 0 && ib->known == NULL) {
        progress.rate_1m = (double)settled * (double)NS_PER_S / (double)age_ns;
        progress.eta_s = (int64_t)((double)progress.pending / progress.rate_1m);
    }
    return progress;
}

static const char *state_of(const struct intake_batch *ib)
{
    uint64_t orders = stat_read_xcore(&ib->batch->orders);
    if ((orders & BATCH_CANCELLED) != 0) {
        return "cancelled";
    }
    if ((orders & BATCH_PAUSED) != 0) {
        return "paused";
    }
    return ib->stage == INTAKE_ACTIVE || ib->stage == INTAKE_DEALING ? "active" : "scanning";
}

void intake_write_progress(struct intake_core *core, struct intake_batch *ib, struct mono_time now)
{
    ensure(ib->fd >= 0);
    ib->progress_at = mono_add_ms(now, INTAKE_PROGRESS_MS);
    struct spool_progress progress = progress_of(core, ib, state_of(ib));
    uint64_t sum = progress.accepted + progress.rejected + progress.deferred +
                   batch_settled_xcore(ib->batch) + stat_read_xcore(&ib->batch->orders);
    if (sum == ib->progress_sum) {
        return;
    }
    ib->progress_sum = sum;
    if (spool_write_progress(&core->spool, ib->fd, &progress) != 0) {
        odd(progress_not_written);
    }
}

static void batch_free(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->live_count == 0);
    ensure(ib->blocks_count == 0);
    ensure(ib->recipients.count == 0);
    ensure(core->free_count < core->engine->config->batches_max);
    content_free(core, ib);
    intake_enter(core, ib, INTAKE_FREE);
    core->free_slots[core->free_count++] = ib->batch->index;
}

void intake_abandon(struct intake_core *core, struct intake_batch *ib)
{
    batch_close(core, ib);
}

/* A worker may still look at the batch by an order that is on its way. */
static bool has_order_away(const struct intake_core *core, const struct intake_batch *ib)
{
    return core->orders_left > 0 && core->worker_orders[0].batch == ib->batch;
}

/* Whether nothing of the batch is out any more. */
static bool may_leave(const struct intake_core *core, const struct intake_batch *ib,
                      struct mono_time now)
{
    ensure(ib->stage == INTAKE_LEAVING);
    bool is_failed = ib->leaving_to != SPOOL_END_DONE;
    ensure(is_failed || ib->is_settled);
    if (ib->live_count > 0 || ib->blocks_count > 0) {
        ensure(!is_failed);
        return false; /* entries are on their way back, or their last bytes are still being sent */
    }
    return !mono_before(now, ib->leave_at) && !has_order_away(core, ib);
}

/* Something is not there any more: the batch, taken away by people, or the place that it goes to,
 * which then is made anew for the next try. */
static bool was_taken_away(struct intake_core *core, const struct intake_batch *ib)
{
    struct disk_stat stat;
    int active = core->spool.places[SPOOL_ACTIVE];
    if (disk_stat_at(core->disk, active, ib->batch->directory, &stat) == -ENOENT) {
        return true;
    }
    if (spool_places_renew(&core->spool) != 0) {
        odd(places_not_renewed);
    }
    return false;
}

static void on_left(struct intake_core *core, struct intake_batch *ib, int result,
                    struct mono_time now)
{
    bool is_failed = ib->leaving_to != SPOOL_END_DONE;
    if (result == -ENOTRECOVERABLE) {
        stat_set(&core->engine->must_stop, 1);
    }
    if (result == -ENOENT && was_taken_away(core, ib)) {
        odd(batch_was_taken_away); /* by people: there is nothing to be moved any more */
    } else if (result != 0) {
        odd(batch_cannot_leave); /* disk full or broken, or its way was gone */
        ib->leave_at = mono_add_ms(now, INTAKE_LEAVE_AGAIN_MS);
        return;
    }
    directory_close(core, ib);
    if (is_failed && !ib->is_accepted) {
        batch_free(core, ib);
        return;
    }
    stat_add(&core->intake->stats.batches_done, is_failed ? 0 : 1);
    ib->end = (struct journal_end){.reply_to = &core->intake->ends, .batch = ib->batch};
    intake_enter(core, ib, INTAKE_ENDING);
    inbox_push_xcore(&core->engine->journal->ends, &ib->end.node);
}

bool intake_leave_some(struct intake_core *core, struct mono_time now)
{
    struct intake_batch *ready[SPOOL_GROUP_MAX];
    struct spool_progress summaries[SPOOL_GROUP_MAX];
    struct spool_leaving leavings[SPOOL_GROUP_MAX];
    uint32_t count = 0;
    struct list *node = core->leaving.next;
    for (; node != &core->leaving && count < SPOOL_GROUP_MAX; node = node->next) {
        struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
        if (!may_leave(core, ib, now)) {
            continue;
        }
        stream_close(core, ib);
        bool is_failed = ib->leaving_to != SPOOL_END_DONE;
        summaries[count] = progress_of(core, ib, is_failed ? "failed" : "done");
        leavings[count].directory = ib->batch->directory;
        leavings[count].end = ib->leaving_to;
        leavings[count].summary = ib->fd >= 0 ? &summaries[count] : NULL;
        leavings[count].reason = ib->reason;
        ready[count++] = ib;
    }
    if (count == 0) {
        return false;
    }
    /* Before the journal forgets the batches. */
    struct wall_time wall = clock_wall(core->engine->clock);
    bool is_kept = spool_ids_sync(core->ids, wall) == 0;
    if (is_kept) {
        spool_finish_group(&core->spool, leavings, count, wall);
    }
    for (uint32_t i = 0; i < count; i++) {
        on_left(core, ready[i], is_kept ? leavings[i].result : -EIO, now);
    }
    return count == SPOOL_GROUP_MAX;
}

void intake_on_ended(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_ENDING);
    intake_known_ended(core, ib);
    batch_free(core, ib);
}

/* Orders of people: files in in/ctl. */

/* False: it would be forgotten in a crash, and is to be obeyed again. */
static bool order_obey(struct intake_core *core, const struct spool_order *order,
                       struct intake_batch *ib)
{
    ensure(core->orders_left == 0);
    struct engine *engine = core->engine;
    uint64_t orders = stat_read_xcore(&ib->batch->orders);
    if ((orders & BATCH_CANCELLED) != 0) {
        /* For good; and the first time it may not have been kept. */
        return spool_order_keep(&core->spool, ib->fd, SPOOL_CANCEL) == 0;
    }
    static const uint64_t NEXT[SPOOL_VERBS_COUNT] = {
        [SPOOL_PAUSE] = BATCH_PAUSED, [SPOOL_RESUME] = 0, [SPOOL_CANCEL] = BATCH_CANCELLED};
    stat_set(&ib->batch->orders, NEXT[order->verb]);
    bool is_kept = spool_order_keep(&core->spool, ib->fd, order->verb) == 0;
    if (!is_kept) {
        odd(order_not_kept);
    }
    if (order->verb == SPOOL_PAUSE) {
        return is_kept; /* workers look at it at each turn */
    }
    core->worker_orders[0] = (struct worker_order){
        .reply_to = &core->orders_back,
        .batch = ib->batch,
        .is_cancel = order->verb == SPOOL_CANCEL,
    };
    core->orders_left++;
    inbox_push_xcore(&engine->workers[engine->workers_count - 1]->orders,
                     &core->worker_orders[0].node);
    return is_kept;
}

void intake_take_orders(struct intake_core *core)
{
    if (core->orders_left > 0) {
        return; /* one order at a time */
    }
    if (spool_list_orders(&core->spool, clock_wall(core->engine->clock), core->orders) != 0) {
        return;
    }
    for (uint32_t i = 0; i < core->orders->count && core->orders_left == 0; i++) {
        const struct spool_order *order = &core->orders->orders[i];
        struct intake_batch *ib = id_find(core, order->id);
        bool may_come = core->is_recovering || core->has_more_new || !list_is_empty(&core->opening);
        if (ib == NULL && may_come) {
            continue; /* its batch may not have been claimed, or opened, yet */
        }
        if (ib != NULL && ib->fd >= 0 && ib->stage != INTAKE_LEAVING &&
            !order_obey(core, order, ib)) {
            continue;
        }
        if (spool_order_remove(&core->spool, order) != 0) {
            odd(order_not_removed); /* obeyed again at the next look: orders are idempotent */
        }
    }
}
