/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/planted.h"
#include "engine/base/text.h"
#include "engine/intake_priv.h"
#include "engine/record_check.h"

/* Opening: manifest, content, stream; each problem names its file. */

bool intake_is_want(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS;
}

/* Opened from the beginning when it has rested: the list is in the order in which they are due. */
static void rest(struct intake_core *core, struct intake_batch *ib, int64_t rest_ns)
{
    ensure(ib->stage == INTAKE_OPENING);
    const int64_t least_ns = INTAKE_RESCAN_MS * NS_PER_MS;
    ib->open_at =
        mono_add_ns(clock_mono(core->engine->clock), rest_ns > least_ns ? rest_ns : least_ns);
    list_remove(&ib->link);
    struct list *before = core->opening.prev;
    while (before != &core->opening &&
           mono_before(ib->open_at, CONTAINER_OF(before, struct intake_batch, link)->open_at)) {
        before = before->prev;
    }
    list_add_first(before, &ib->link);
}

/* For want of something it stays OPENING, and is opened from the beginning a little later. */
static bool fail_open(struct intake_core *core, struct intake_batch *ib, int error,
                      const char *words)
{
    ensure(error < 0);
    if (intake_is_want(error)) {
        odd(batch_open_waits);
        intake_batch_close(core, ib);
        rest(core, ib, 0);
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
    intake_id_remove(core, other);
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
    struct intake_batch *other = intake_id_find(core, batch->manifest->id);
    if (other != NULL && !id_take_from(core, ib, other)) {
        intake_fail(core, ib, SAME_ID_WORDS);
        return false;
    }
    intake_id_add(core, ib);
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

static bool fail_message(struct intake_core *core, struct intake_batch *ib,
                         const struct template_problems *problems)
{
    struct writer words = writer_of(core->reason_text, INTAKE_REASON_MAX - 1);
    template_problems_put(problems, ib->batch->manifest->message, &words);
    *words.at = '\0';
    intake_fail(core, ib, core->reason_text);
    return false;
}

static bool open_content(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    const struct manifest *manifest = batch->manifest;
    struct template_problems problems;
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
        .problems = &problems,
    };
    batch->template = template_compile(writer_span(&content), &options, &problem);
    ib->files_hash = XXH3_64bits_withSeed(eml, writer_size(&content), ib->files_hash);
    ib->message_size = writer_size(&content);
    free(eml);
    if (batch->template == NULL && problem.is_memory_short) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    return batch->template != NULL || fail_message(core, ib, &problems);
}

/* What is left of the descriptors for the files of its stream, when its directory is open. A batch
 * that is alone may have as many as it needs: there is nobody to wait for. */
static uint32_t files_max(const struct intake_core *core)
{
    bool is_alone = core->fds_open == 1;
    if (core->fds_max == 0 || is_alone) {
        return SPOOL_STREAM_FILES_MAX;
    }
    return core->fds_max > core->fds_open ? core->fds_max - core->fds_open : 1;
}

static bool open_stream(struct intake_core *core, struct intake_batch *ib)
{
    struct spool_problem problem;
    ib->stream = calloc(1, sizeof(*ib->stream));
    if (ib->stream == NULL) {
        return fail_open(core, ib, -ENOMEM, "");
    }
    int result = spool_stream_open(&core->spool, ib->fd, ib->batch->manifest, files_max(core),
                                   ib->stream, &problem);
    if (result != 0) {
        free(ib->stream);
        ib->stream = NULL;
        return fail_open(core, ib, result, problem.text);
    }
    core->fds_open += ib->stream->files_count;
    return true;
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
    if (!open_manifest(core, ib) || !open_content(core, ib) || !open_stream(core, ib)) {
        return;
    }
    enum spool_verb kept;
    if (spool_order_kept(&core->spool, ib->fd, &kept) != 0) {
        odd(order_not_read); /* it may say that nothing is to be sent */
        (void)fail_open(core, ib, -ENOBUFS, "");
        return;
    }
    static const uint64_t orders[SPOOL_VERBS_COUNT] = {
        [SPOOL_PAUSE] = BATCH_PAUSED, [SPOOL_RESUME] = 0, [SPOOL_CANCEL] = BATCH_CANCELLED};
    ensure(kept != SPOOL_RETRY);
    stat_set(&ib->batch->orders, orders[kept]); /* an earlier opening may have set another */
    if (intake_doubt_retried(core, ib) != 0) {
        odd(order_not_read); /* there may be more to be marked */
        (void)fail_open(core, ib, -ENOBUFS, "");
        return;
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
    int64_t busy_ns = 0;
    if (ib->scan != NULL) {
        struct mono_time now = clock_mono(core->engine->clock);
        busy_ns = ib->scan->busy_ns + (now.ns - ib->scan->turn_at.ns);
    }
    odd(batch_open_waits);
    intake_drop_recipients(core, ib);
    intake_batch_close(core, ib);
    batch->recipients_count = 0;
    batch->rejected_count = 0;
    ib->is_bsmtp_lf = false;
    intake_enter(core, ib, INTAKE_OPENING);
    rest(core, ib, INTAKE_REST_FACTOR * busy_ns);
}

void intake_open_soon(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_OPENING);
    ib->open_at = clock_mono(core->engine->clock);
    list_remove(&ib->link);
    list_add_first(&core->opening, &ib->link);
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
