/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "engine/intake_priv.h"

enum { LEAVE_FDS = 4 }; /* a day's directory, a file for people, sources.list, its directory */

static const char IDS_PROBLEM[] =
    "journal/: the ids of accepted batches cannot be written: make room there, and see dmesg";

/* What a batch says of itself, each second and at its end; and its way out of active/. */

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
        bool is_paused = (stat_read_xcore(&batch->orders) & BATCH_PAUSED) != 0;
        progress.eta_s = is_paused ? -1 : (int64_t)((double)progress.pending / progress.rate_1m);
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

static void words_add(struct intake_core *core, const char *what, const char *then)
{
    char line[sizeof(struct spool_problem) + 128];
    (void)snprintf(line, sizeof(line), "%s%s", what, then);
    intake_words_add(core, line);
    intake_words_send(core);
}

/* Once is nothing: a place is made anew, a descriptor was wanted. What stays is told once. */
static void leave_again(struct intake_core *core, struct intake_batch *ib, const char *problem,
                        struct mono_time now)
{
    odd(batch_cannot_leave); /* disk full or broken, or its way is barred */
    ib->leave_at = mono_add_ms(now, INTAKE_LEAVE_AGAIN_MS);
    if (ib->leave_failures < UINT32_MAX && ++ib->leave_failures == 2) {
        words_add(core, problem,
                  "; the batch stays in active/ until that is mended, and is tried again each "
                  "second");
    }
}

static void on_left(struct intake_core *core, struct intake_batch *ib, int result,
                    const char *problem, struct mono_time now)
{
    bool is_failed = ib->leaving_to != SPOOL_END_DONE;
    if (result == -ENOTRECOVERABLE) {
        stat_set(&core->engine->must_stop, 1);
    }
    if (result == -ENOENT && was_taken_away(core, ib)) {
        odd(batch_was_taken_away); /* by people: there is nothing to be moved any more */
    } else if (result != 0) {
        leave_again(core, ib, problem, now);
        return;
    }
    if (ib->leave_failures >= 2) {
        char name[SPOOL_DIRECTORY_MAX + sizeof("active/")];
        (void)snprintf(name, sizeof(name), "active/%s", ib->batch->directory);
        words_add(core, name, ": has left active/ now");
    }
    intake_directory_close(core, ib);
    if (is_failed && !ib->is_accepted) {
        intake_batch_free(core, ib);
        return;
    }
    stat_add(&core->intake->stats.batches_done, is_failed ? 0 : 1);
    ib->end = (struct journal_end){.reply_to = &core->intake->ends, .batch = ib->batch};
    intake_enter(core, ib, INTAKE_ENDING);
    inbox_push_xcore(&core->engine->journal->ends, &ib->end.node);
}

/* One more in the group: each writes its summary, and a few names are opened on the way. */
static bool has_descriptors(const struct intake_core *core, uint32_t count)
{
    uint64_t fds = core->fds_open + (uint64_t)count + 1 + LEAVE_FDS;
    return count == 0 || core->fds_max == 0 || fds <= core->fds_max;
}

bool intake_leave_some(struct intake_core *core, struct mono_time now)
{
    struct intake_batch *ready[SPOOL_GROUP_MAX];
    struct spool_progress summaries[SPOOL_GROUP_MAX];
    struct spool_leaving leavings[SPOOL_GROUP_MAX];
    uint32_t count = 0;
    bool is_full = false;
    struct list *node = core->leaving.next;
    for (; node != &core->leaving && !is_full; node = node->next) {
        struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
        if (!may_leave(core, ib, now)) {
            continue;
        }
        intake_stream_close(core, ib);
        if (!has_descriptors(core, count)) {
            is_full = true;
            break;
        }
        bool is_failed = ib->leaving_to != SPOOL_END_DONE;
        summaries[count] = progress_of(core, ib, is_failed ? "failed" : "done");
        leavings[count].directory = ib->batch->directory;
        leavings[count].batch_fd = ib->fd;
        leavings[count].end = ib->leaving_to;
        leavings[count].summary = ib->fd >= 0 ? &summaries[count] : NULL;
        leavings[count].reason = ib->reason;
        ready[count++] = ib;
        is_full = count == SPOOL_GROUP_MAX;
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
        on_left(core, ready[i], is_kept ? leavings[i].result : -EIO,
                is_kept ? leavings[i].problem.text : IDS_PROBLEM, now);
    }
    return is_full;
}

void intake_on_ended(struct intake_core *core, struct intake_batch *ib)
{
    ensure(ib->stage == INTAKE_ENDING);
    intake_known_ended(core, ib);
    intake_batch_free(core, ib);
}
