/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/bitmap.h"
#include "engine/intake_priv.h"
#include "engine/report.h"
#include "engine/results_file.h"

/* Move 4 of intake_results.c: the lines that are owed are added as the scan comes by. */
enum { LINES_SIZE = 64 * 1024 };

static void final_put(struct intake_core *core, const struct intake_batch *ib,
                      const struct intake_final *final, const struct intake_result *result,
                      struct writer *line)
{
    static const struct {
        enum outcome_class class;
        enum policy_reason reason;
    } ROWS[] = {
        [MANIFEST_RESULT_DELIVERED] = {OUTCOME_DELIVERED, REASON_DELIVERED},
        [MANIFEST_RESULT_BOUNCED] = {OUTCOME_BOUNCED, PERM_REPLY},
        [MANIFEST_RESULT_EXPIRED] = {OUTCOME_EXPIRED, PERM_EXPIRED},
        [MANIFEST_RESULT_CANCELLED] = {OUTCOME_CANCELLED, PERM_CANCELLED},
    };
    struct recipient recipient = {.ordinal = final->ordinal, .domain = result->domain};
    struct attempt attempt = {.recipient = &recipient, .batch = ib->batch};
    size_t size = result->address.size < sizeof(attempt.address) ? result->address.size
                                                                 : sizeof(attempt.address);
    memcpy(attempt.address, result->address.at, size);
    attempt.address_size = (uint16_t)size;
    size = result->id.size < ATTEMPT_ID_MAX ? result->id.size : ATTEMPT_ID_MAX;
    if (size > 0) {
        memcpy(attempt.id, result->id.at, size);
    }
    attempt.id_size = (uint8_t)size;
    unsigned row = intake_result_of(final->kind);
    struct policy_verdict verdict = policy_of_reason(ROWS[row].reason);
    struct outcome outcome = {
        .class = ROWS[row].class,
        .reason = ROWS[row].reason,
        .response = verdict.response,
        .place.sender = result->sender,
    };
    outcome.response.code = final->code != 0 ? final->code : outcome.response.code;
    outcome.response.content = SPAN("from the journal: the line was lost in a crash");
    struct report_cache cache = {.second = INT64_MIN};
    report_put_line(line, core->engine, &cache, &attempt, &outcome, final->attempts_count,
                    (final->flags & JOURNAL_FLAG_POSSIBLE_DUPLICATE) != 0,
                    (struct wall_time){.ns = (int64_t) final->at_s * NS_PER_S});
}

/* What is in the file is not known any more: the scan begins anew, with another look at it. */
static void lines_failed(struct intake_known *row, int error)
{
    ensure(error < 0);
    odd(results_not_completed);
    row->must_look = true;
    row->lines_error = error;
    row->lines_size = 0;
}

static void lines_flush(struct intake_core *core, struct intake_known *row)
{
    if (row->lines_size == 0) {
        return;
    }
    ensure(row->fd >= 0);
    int64_t result = disk_write(core->disk, row->fd, row->lines, row->lines_size, row->offset);
    if (result < 0) {
        lines_failed(row, (int)result);
        return;
    }
    row->offset += row->lines_size;
    row->lines_size = 0;
}

static void lines_open(struct intake_core *core, struct intake_batch *ib, struct intake_known *row)
{
    struct disk_stat stat;
    row->fd = disk_open(core->disk, ib->fd, JOURNAL_RESULTS_NAME, DISK_READWRITE | DISK_CREATE);
    int result = row->fd < 0 ? row->fd : disk_stat_fd(core->disk, row->fd, &stat);
    if (result != 0) {
        lines_failed(row, result);
        return;
    }
    row->offset = stat.size;
}

/* Of what is kept, those who have a line by now are left out. 0 or -errno. */
static int results_look_again(struct intake_core *core, struct intake_batch *ib,
                              struct intake_known *row)
{
    size_t words = (size_t)((ib->known->records_count + 63) / 64);
    uint64_t *missing = malloc((words + 1) * sizeof(*missing));
    if (missing == NULL) {
        return -ENOMEM;
    }
    memcpy(missing, ib->known->settled, words * sizeof(*missing));
    int result = results_file_read(core->disk, ib->fd, ib->known, missing);
    if (result == 0) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < row->finals_count; i++) {
            const struct intake_final final = row->finals[i];
            if (bitmap_has(missing, final.ordinal) &&
                (ib->batch->manifest->results & intake_result_of(final.kind)) != 0) {
                row->finals[count++] = final;
            }
        }
        row->finals_count = count;
        row->finals_next = 0;
        row->must_look = false;
    }
    free(missing);
    return result;
}

/* The batch is opened again and again until it is different; people are told of it, and may order
 * something meanwhile. */
static void results_wait(struct intake_core *core, const struct intake_batch *ib,
                         struct intake_known *row, int error)
{
    const struct batch *batch = ib->batch;
    char line[INTAKE_WORDS_SIZE / 2];
    if (row->waiting_id != NULL || (row->waiting_id = strdup(batch->manifest->id)) == NULL) {
        return;
    }
    stat_add(&core->intake->stats.results_unread, 1);
    (void)snprintf(line, sizeof(line),
                   "active/%s/" JOURNAL_RESULTS_NAME ": cannot be read, or completed: %s; nothing "
                   "of its batch is sent, and it is tried again. To go on without its lines move "
                   "the file away, or order in/ctl/%s.cancel",
                   batch->directory, strerror(-error), batch->manifest->id);
    intake_words_add(core, line);
    intake_words_send(core);
}

void intake_results_go_on(struct intake_core *core, struct intake_known *row)
{
    if (row->waiting_id != NULL) {
        free(row->waiting_id);
        row->waiting_id = NULL;
        stat_sub(&core->intake->stats.results_unread, 1);
    }
}

struct intake_batch *intake_results_find_waiting(struct intake_core *core, const char *id)
{
    for (struct list *at = core->opening.next; at != &core->opening; at = at->next) {
        struct intake_batch *ib = CONTAINER_OF(at, struct intake_batch, link);
        const struct intake_known *row = intake_known_of(core, ib);
        if (row != NULL && row->waiting_id != NULL && strcmp(row->waiting_id, id) == 0) {
            return ib;
        }
    }
    return NULL;
}

/* A cancelled batch does not wait for a file that the disk does not give: it is there for people
 * under another name, and what the journal's records say of its lines is written anew. */
static int results_look(struct intake_core *core, struct intake_batch *ib, struct intake_known *row)
{
    bool is_cancelled = (stat_read_xcore(&ib->batch->orders) & BATCH_CANCELLED) != 0;
    int result = results_look_again(core, ib, row);
    if (result == -EIO && is_cancelled && results_file_set_aside(core->disk, ib->fd) == 0) {
        odd(results_set_aside);
        result = results_look_again(core, ib, row);
    }
    if (result != 0 && result != -ENOMEM) {
        odd(results_not_read);
        results_wait(core, ib, row, result);
    }
    return result;
}

int intake_results_begin(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    int result = row != NULL && row->must_look ? results_look(core, ib, row) : 0;
    if (result != 0 || row == NULL || row->finals_next == row->finals_count) {
        return result;
    }
    ensure(row->lines == NULL);
    row->lines = malloc(LINES_SIZE);
    return row->lines == NULL ? -ENOMEM : 0;
}

void intake_result_complete(struct intake_core *core, struct intake_batch *ib, uint32_t ordinal,
                            const struct intake_result *result)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL || row->must_look) {
        return;
    }
    /* Of a damaged journal an ordinal may be that of a record that was rejected. */
    while (row->finals_next < row->finals_count &&
           row->finals[row->finals_next].ordinal < ordinal) {
        row->finals_next++;
    }
    if (row->finals_next == row->finals_count || row->finals[row->finals_next].ordinal != ordinal) {
        return;
    }
    if (row->fd < 0) {
        lines_open(core, ib, row);
    }
    if (LINES_SIZE - row->lines_size < JOURNAL_LINE_MAX) {
        lines_flush(core, row);
    }
    if (row->must_look) {
        return;
    }
    struct writer line = writer_of(row->lines + row->lines_size, JOURNAL_LINE_MAX);
    final_put(core, ib, &row->finals[row->finals_next++], result, &line);
    row->lines_size += writer_size(&line);
}

/* The name, too: it may be new. */
static void lines_sync(struct intake_core *core, const struct intake_batch *ib,
                       struct intake_known *row)
{
    int result = disk_datasync(core->disk, row->fd);
    if (result != 0) {
        results_file_doubt(core->disk, ib->fd);
    } else {
        result = disk_sync(core->disk, ib->fd);
    }
    if (result != 0) {
        lines_failed(row, result);
    }
}

int intake_results_end(struct intake_core *core, struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL || row->lines == NULL) {
        if (row != NULL && !row->must_look) {
            intake_results_go_on(core, row);
        }
        return 0;
    }
    ensure(row->finals_next <= row->finals_count);
    lines_flush(core, row);
    if (row->fd >= 0 && !row->must_look) {
        lines_sync(core, ib, row);
    }
    if (row->fd >= 0) {
        disk_close(core->disk, row->fd);
        row->fd = -1;
    }
    free(row->lines);
    row->lines = NULL;
    if (row->must_look) {
        results_wait(core, ib, row, row->lines_error);
        return -EAGAIN;
    }
    intake_results_go_on(core, row);
    return 0;
}
