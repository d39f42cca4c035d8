/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/bitmap.h"
#include "engine/base/planted.h"
#include "engine/intake_priv.h"
#include "engine/record_check.h"

static uint64_t record_size_max(const struct intake_core *core, const struct intake_batch *ib)
{
    return ib->batch->manifest->kind == MANIFEST_BSMTP ? core->engine->config->message_size_max
                                                       : SCAN_LINE_MAX;
}

int intake_scan_begin(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = calloc(1, sizeof(*scan));
    if (scan == NULL) {
        return -ENOMEM;
    }
    scan->rejects.fd = -1;
    scan->window_size = INTAKE_BLOCK_SIZE;
    scan->window = malloc(scan->window_size);
    scan->hash = XXH3_createState();
    ib->scan = scan;
    if (scan->window == NULL || scan->hash == NULL || intake_results_begin(core, ib) != 0) {
        intake_scan_end(core, ib);
        return -ENOMEM;
    }
    (void)XXH3_64bits_reset_withSeed(scan->hash, ib->files_hash);
    scan_splitter_init(&scan->splitter, ib->batch->manifest->format, record_size_max(core, ib));
    return 0;
}

void intake_scan_end(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = ib->scan;
    if (scan == NULL) {
        return;
    }
    (void)intake_results_end(core, ib); /* of a batch that goes to hold/: `results-missing` stays */
    if (scan->rejects.fd >= 0) {
        /* Of a batch that failed: its reason sends people there. */
        if (spool_rejects_sync(&scan->rejects) != 0) {
            odd(rejects_not_written);
        }
        spool_rejects_close(&scan->rejects);
        ensure(core->fds_open > 0);
        core->fds_open--;
    }
    (void)XXH3_freeState(scan->hash);
    free(scan->window);
    free(scan);
    ib->scan = NULL;
}

void intake_scan_restart(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_SCANNING);
    struct batch *batch = ib->batch;
    intake_drop_recipients(core, ib);
    intake_scan_end(core, ib);
    scan_columns_destroy((struct scan_columns *)(uintptr_t)batch->columns);
    batch->columns = NULL;
    batch->recipients_count = 0;
    batch->rejected_count = 0;
    ib->is_bsmtp_lf = false;
    if (intake_scan_begin(core, ib) != 0) {
        intake_open_again(core, ib);
    }
}

/* More of the file into the window; what is behind us makes room first. 0 or -errno. */
static int window_fill(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = ib->scan;
    const struct spool_stream_file *file = &ib->stream->files[scan->file_index];
    size_t left = scan->filled - scan->taken;
    memmove(scan->window, scan->window + scan->taken, left);
    scan->file_offset += scan->taken;
    scan->taken = 0;
    scan->filled = left;
    if (left > scan->window_size / 2) {
        size_t most = SCAN_WINDOW(record_size_max(core, ib)) + INTAKE_BLOCK_SIZE;
        size_t size = 2 * scan->window_size < most ? 2 * scan->window_size : most;
        char *window = realloc(scan->window, size);
        if (window == NULL) {
            return -ENOMEM;
        }
        scan->window = window;
        scan->window_size = size;
    }
    size_t wanted = scan->window_size - scan->filled;
    int64_t got = disk_read(core->disk, file->file.fd, scan->window + scan->filled, wanted,
                            scan->file_offset + scan->filled);
    if (got < 0) {
        return (int)got;
    }
    (void)XXH3_64bits_update(scan->hash, scan->window + scan->filled, (size_t)got);
    scan->filled += (size_t)got;
    scan->is_file_end = scan->file_offset + scan->filled >= file->file.stat.size;
    return scan->is_file_end || (size_t)got == wanted ? 0 : -ESTALE;
}

static void reject(struct intake_core *core, struct intake_batch *ib, uint64_t line,
                   const char *reason, const char *remedy, struct span record)
{
    struct intake_scan *scan = ib->scan;
    if (ib->batch->rejected_count++ == 0) {
        (void)snprintf(scan->first_reject, sizeof(scan->first_reject), "%.40s:%llu: %s",
                       ib->stream->files[scan->file_index].name, (unsigned long long)line, reason);
    }
    stat_add(&core->intake->stats.recipients_rejected, 1);
    if (ib->known != NULL) {
        return; /* the line was durable before the batch was accepted */
    }
    if (scan->rejects.fd < 0 && scan->rejects.error == 0) {
        int result = spool_rejects_open(&core->spool, ib->fd, &scan->rejects);
        scan->rejects.error = result;
        core->fds_open += result == 0;
    }
    if (scan->rejects.fd < 0) {
        return;
    }
    const struct spool_reject row = {
        .file = span_of_text(ib->stream->files[scan->file_index].name),
        .line = line,
        .reason = span_of_text(reason),
        .remedy = span_of_text(remedy),
        .record = record,
    };
    spool_rejects_add(&scan->rejects, &row);
}

/* True when the journal says that the ordinal is settled. */
static bool is_settled(const struct intake_batch *ib, uint32_t ordinal)
{
    return ib->known != NULL && ordinal < ib->known->records_count &&
           bitmap_has(ib->known->settled, ordinal);
}

/* What the journal knows of a recipient that was tried before. */
static void apply_deferral(struct intake_batch *ib, struct recipient *recipient)
{
    struct intake_scan *scan = ib->scan;
    if (ib->known == NULL) {
        return;
    }
    while (scan->next_deferral < ib->known->deferrals_count &&
           ib->known->deferrals[scan->next_deferral].ordinal < recipient->ordinal) {
        scan->next_deferral++;
    }
    if (scan->next_deferral < ib->known->deferrals_count) {
        const struct journal_deferral *deferral = &ib->known->deferrals[scan->next_deferral];
        if (deferral->ordinal == recipient->ordinal) {
            recipient->due_s = deferral->due_s;
            recipient->attempts_count = deferral->attempts_count;
            recipient->flags |= deferral->is_ambiguous ? RECIPIENT_AMBIGUOUS : 0;
        }
    }
}

struct where {
    uint64_t offset; /* in the stream */
    uint64_t line;
    struct span record;
};

/* An accepted recipient gets its entry; the caller has seen that one is free. One that is settled
 * may still lack its line in results.ndjson. */
static void accept(struct intake_core *core, struct intake_batch *ib, const struct where *where,
                   uint32_t ordinal, const struct intake_result *result, uint16_t rcpt_index,
                   uint16_t flags)
{
    uint32_t domain = result->domain;
    ib->batch->recipients_count++;
    if (is_settled(ib, ordinal)) {
        intake_result_complete(core, ib, ordinal, result);
        domain_drop(core->engine->domains, domain);
        return;
    }
    struct recipient *recipient = slab_take(&core->recipients);
    ensure(recipient != NULL);
    *recipient = (struct recipient){
        .batch = ib->batch->index,
        .ordinal = ordinal,
        .record_offset = where->offset & ((UINT64_C(1) << RECIPIENT_OFFSET_BITS) - 1),
        .record_size = where->record.size & ((1u << RECIPIENT_SIZE_BITS) - 1),
        .domain = domain,
        .due_s = wall_seconds(ib->batch->manifest->not_before),
        .flags = flags,
        .rcpt_index = rcpt_index,
    };
    apply_deferral(ib, recipient);
    if (intake_may_be_repeated(core, ib, recipient)) {
        recipient->flags |= RECIPIENT_AMBIGUOUS;
    }
    inbox_chain_add(&ib->recipients, &recipient->node);
    ib->live_count++;
}

enum taken { TAKEN, TAKEN_WAIT };

/* A mailbox as written: its domain's number, or rejected. TAKEN_WAIT: no room for another domain.
 */
static enum taken take_address(struct intake_core *core, struct intake_batch *ib,
                               const struct where *where, struct span text, uint32_t *ret_domain)
{
    struct record_domain domain;
    struct record_reject problem;
    *ret_domain = DOMAIN_NONE;
    if (record_check_address(text, &domain, &problem) != 0) {
        reject(core, ib, where->line, problem.reason, problem.remedy, where->record);
        return TAKEN;
    }
    *ret_domain = domain_intern(core->engine->domains, domain.name);
    return *ret_domain == DOMAIN_NONE ? TAKEN_WAIT : TAKEN;
}

static void fail_at(struct intake_core *core, struct intake_batch *ib, uint64_t line,
                    const char *reason)
{
    char words[512];
    (void)snprintf(words, sizeof(words), "%s:%llu: %s",
                   ib->stream->files[ib->scan->file_index].name, (unsigned long long)line, reason);
    intake_fail(core, ib, words);
}

static enum taken take_merge(struct intake_core *core, struct intake_batch *ib,
                             const struct where *where)
{
    struct intake_scan *scan = ib->scan;
    struct batch *batch = ib->batch;
    struct scan_problem problem;
    if (batch->manifest->format == SCAN_CSV && !scan->has_header) {
        batch->columns = scan_columns_create(where->record, &problem);
        scan->has_header = true;
        if (batch->columns == NULL && problem.is_memory_short) {
            intake_open_again(core, ib);
        } else if (batch->columns == NULL) {
            fail_at(core, ib, where->line + problem.line_offset, problem.text);
        }
        return TAKEN;
    }
    if (slab_left(&core->recipients) == 0) {
        return TAKEN_WAIT;
    }
    if (scan_record_recipient(core->parser, batch->manifest->format, batch->columns, where->record,
                              core->record, &problem) != 0) {
        if (problem.is_memory_short) {
            intake_open_again(core, ib);
            return TAKEN;
        }
        scan->ordinal++;
        reject(core, ib, where->line + problem.line_offset, problem.text, "", where->record);
        return TAKEN;
    }
    uint32_t domain;
    if (take_address(core, ib, where, span_trim(core->record->to), &domain) == TAKEN_WAIT) {
        return TAKEN_WAIT;
    }
    uint32_t ordinal = scan->ordinal++;
    if (domain == DOMAIN_NONE) {
        return TAKEN;
    }
    struct record_reject unusable;
    int result = record_check_values(batch->sender, batch->template, batch->manifest, core->record,
                                     ordinal, core->hints, &unusable);
    if (result != 0) {
        domain_drop(core->engine->domains, domain);
        if (result == -ENOMEM) {
            intake_open_again(core, ib);
        } else {
            reject(core, ib, where->line, unusable.reason, unusable.remedy, where->record);
        }
        return TAKEN;
    }
    const struct intake_result line = {
        .address = span_trim(core->record->to), .id = core->record->id, .domain = domain};
    accept(core, ib, where, ordinal, &line, 0, 0);
    return TAKEN;
}

static enum taken take_bsmtp(struct intake_core *core, struct intake_batch *ib,
                             const struct where *where)
{
    struct intake_scan *scan = ib->scan;
    const struct scan_message *message = core->message;
    struct scan_problem problem;
    struct record_reject refused;
    if (scan_record_message(where->record, &scan->splitter.text, core->message, &problem) != 0) {
        scan->ordinal++;
        reject(core, ib, where->line + problem.line_offset, problem.text, "", where->record);
        return TAKEN;
    }
    if (record_check_message(message, &refused) != 0) {
        scan->ordinal += message->rcpts_count;
        reject(core, ib, where->line, refused.reason, refused.remedy, where->record);
        return TAKEN;
    }
    /* A record is taken whole or not at all. */
    const struct engine *engine = core->engine;
    if (slab_left(&core->recipients) < message->rcpts_count ||
        domain_table_count(engine->domains) + message->rcpts_count > engine->config->domains_max) {
        return TAKEN_WAIT;
    }
    uint16_t flags = record_message_flags(message);
    ib->is_bsmtp_lf = ib->is_bsmtp_lf || message->is_lf;
    for (uint32_t i = 0; i < message->rcpts_count; i++) {
        uint32_t domain;
        uint32_t ordinal = scan->ordinal++;
        if (record_is_named_before(message, i)) {
            continue;
        }
        struct where rcpt = *where;
        rcpt.line += 1 + i; /* nothing else stands between MAIL and it */
        ensure(take_address(core, ib, &rcpt, message->rcpts[i], &domain) == TAKEN);
        if (domain != DOMAIN_NONE) {
            const struct intake_result result = {
                .sender = message->sender, .address = message->rcpts[i], .domain = domain};
            accept(core, ib, where, ordinal, &result, (uint16_t)i, flags);
        }
    }
    return TAKEN;
}

/* What the scan has written beside the stream is on stable storage; false: it is not, and the batch
 * has failed, or is opened again. What was accepted is not sent with less than it was told. */
static bool written_end(struct intake_core *core, struct intake_batch *ib)
{
    struct spool_rejects *rejects = &ib->scan->rejects;
    int error = rejects->error;
    if (rejects->fd >= 0) {
        error = spool_rejects_sync(rejects);
        error = error == 0 ? disk_sync(core->disk, ib->fd) : error; /* its name */
    }
    if (error != 0 && !intake_is_want(error)) {
        intake_fail(core, ib, "rejects.ndjson cannot be written: disk full?");
        return false;
    }
    if (error != 0 || intake_results_end(core, ib) != 0) {
        intake_open_again(core, ib);
        return false;
    }
    return true;
}

static const char CHANGED_WORDS[] =
    "changed while it was read: write a batch in in/tmp, and no more once it is in in/new";

static void fail_changed(struct intake_core *core, struct intake_batch *ib, const char *file)
{
    char words[256];
    (void)snprintf(words, sizeof(words), "%s: %s", file, CHANGED_WORDS);
    intake_fail(core, ib, words);
}

/* The file whose writer was not through when the batch was claimed; NULL: none is seen. What was
 * read of it is not what he means, and must not be accepted for it. */
static const char *unfinished_file(struct intake_core *core, const struct intake_batch *ib)
{
    struct disk_stat stat;
    const struct manifest *manifest = ib->batch->manifest;
    for (uint32_t i = 0; i < ib->stream->files_count; i++) {
        if (spool_file_check(&core->spool, &ib->stream->files[i].file) == -ESTALE) {
            return ib->stream->files[i].name;
        }
    }
    bool is_other = ib->batch->template != NULL &&
                    disk_stat_at(core->disk, ib->fd, manifest->message, &stat) == 0 &&
                    stat.size != ib->message_size;
    return is_other ? manifest->message : NULL;
}

/* The stream is through: judged as a whole. */
static void judge(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = ib->scan;
    struct batch *batch = ib->batch;
    char words[512];
    struct writer writer = writer_of(words, sizeof(words) - 1);
    batch->records_count = scan->ordinal;
    uint64_t hash = XXH3_64bits_digest(scan->hash);
    bool is_same = ib->known == NULL || ib->known->content_hash == hash;
    if (ib->known != NULL && (!(is_same || PLANTED(CONTENT_UNCHECKED)) ||
                              ib->known->recipients_count != batch->recipients_count ||
                              ib->known->records_count != batch->records_count)) {
        writer_put_format(&writer, "its files are not those that were accepted: some were "
                                   "changed in active/");
    }
    bool is_good =
        writer_size(&writer) == 0 &&
        (ib->known != NULL ||
         record_check_batch(batch->manifest, batch->recipients_count, batch->rejected_count,
                            "rejects.ndjson (beside reason.txt)", &writer) == 0);
    if (!is_good) {
        if (ib->known == NULL && batch->rejected_count > 0) {
            writer_put_format(&writer, "; the first: %s", scan->first_reject);
        }
        *writer.at = '\0';
        intake_fail(core, ib, words);
        return;
    }
    const char *unfinished = ib->known == NULL ? unfinished_file(core, ib) : NULL;
    if (unfinished != NULL) {
        fail_changed(core, ib, unfinished);
        return;
    }
    if (!written_end(core, ib)) {
        return;
    }
    ib->accept = (struct journal_accept){
        .reply_to = &core->intake->accepts,
        .batch = batch,
        .content_hash = hash,
        .content_size = ib->stream->size,
        .is_recovered = ib->known != NULL,
        .settled = ib->known != NULL ? ib->known->settled : NULL,
    };
    intake_scan_end(core, ib);
    intake_enter(core, ib, INTAKE_ACCEPTING);
    intake_accept(core, ib);
}

static void next_file(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = ib->scan;
    if (++scan->file_index == ib->stream->files_count) {
        judge(core, ib);
        return;
    }
    scan_splitter_init(&scan->splitter, ib->batch->manifest->format, record_size_max(core, ib));
    scan->file_offset = 0;
    scan->filled = 0;
    scan->taken = 0;
    scan->is_file_end = false;
}

/* One turn of the splitter. False: it has to wait for room, or the scan has ended. */
static bool scan_one(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_scan *scan = ib->scan;
    struct scan_splitter before = scan->splitter;
    struct span bytes = span_of(scan->window + scan->taken, scan->filled - scan->taken);
    struct scan_problem problem;
    size_t skip = 0;
    size_t size = 0;
    struct where where;
    enum scan_split split = scan_split_next(&scan->splitter, bytes, scan->is_file_end, &skip, &size,
                                            &where.line, &problem);
    where.offset =
        ib->stream->files[scan->file_index].start + scan->file_offset + scan->taken + skip;
    where.record = span_of(bytes.at + skip, size);
    enum taken taken = TAKEN;
    int result;
    switch (split) {
    case SCAN_SPLIT_MORE:
        scan->taken += skip;
        result = window_fill(core, ib);
        if (result == -ENOMEM) {
            intake_open_again(core, ib);
        } else if (result == -ESTALE) {
            fail_changed(core, ib, ib->stream->files[scan->file_index].name);
        } else if (result != 0) {
            char words[256];
            (void)snprintf(words, sizeof(words), "%s: cannot be read",
                           ib->stream->files[scan->file_index].name);
            intake_fail(core, ib, words);
        }
        return result == 0;
    case SCAN_SPLIT_RECORD:
        taken = ib->batch->manifest->kind == MANIFEST_BSMTP ? take_bsmtp(core, ib, &where)
                                                            : take_merge(core, ib, &where);
        break;
    case SCAN_SPLIT_BAD:
        scan->ordinal++;
        reject(core, ib, where.line + problem.line_offset, problem.text, "", where.record);
        break;
    case SCAN_SPLIT_END:
        next_file(core, ib);
        return ib->stage == INTAKE_SCANNING;
    case SCAN_SPLIT_FATAL:
        fail_at(core, ib, where.line + problem.line_offset, problem.text);
        return false;
    }
    if (taken == TAKEN_WAIT) {
        scan->splitter = before;
        return false;
    }
    if (ib->stage == INTAKE_SCANNING) {
        scan->taken += skip + size;
    }
    return ib->stage == INTAKE_SCANNING;
}

/* Bytes of the stream that are behind us. */
static uint64_t scan_position(const struct intake_batch *ib)
{
    const struct intake_scan *scan = ib->scan;
    return ib->stream->files[scan->file_index].start + scan->file_offset + scan->taken;
}

uint64_t intake_scan_left(const struct intake_batch *ib)
{
    return ib->stage == INTAKE_SCANNING ? ib->stream->size - scan_position(ib) : UINT64_MAX;
}

uint32_t intake_scan_some(struct intake_core *core, struct intake_batch *ib, uint32_t records_max,
                          uint64_t bytes_max)
{
    if (ib->stage != INTAKE_SCANNING) {
        return 0;
    }
    struct mono_time start = clock_mono(core->engine->clock);
    ib->scan->turn_at = start;
    uint64_t stop = scan_position(ib) + bytes_max;
    uint32_t count = 0;
    while (count < records_max && scan_one(core, ib)) {
        count++;
        if (scan_position(ib) >= stop) {
            break;
        }
    }
    struct mono_time end = clock_mono(core->engine->clock);
    if (ib->stage == INTAKE_SCANNING) {
        ib->scan->busy_ns += end.ns - start.ns;
    }
    stat_add(&core->intake->stats.scan_records, count);
    stat_add(&core->intake->stats.scan_ns, (uint64_t)(end.ns - start.ns));
    return count;
}
