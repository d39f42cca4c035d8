/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/intake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/intake_priv.h"
#include "engine/steady.h"

static void take_accepts(struct intake_core *core)
{
    struct inbox_node *node;
    while ((node = inbox_take(&core->intake->accepts)) != NULL) {
        struct journal_accept *accept = CONTAINER_OF(node, struct journal_accept, node);
        struct intake_batch *ib = CONTAINER_OF(accept, struct intake_batch, accept);
        ib->is_accepted = accept->result == 0;
        intake_on_accepted(core, ib);
    }
}

static void take_settled(struct intake_core *core)
{
    struct inbox_node *node;
    while ((node = inbox_take(&core->intake->settled)) != NULL) {
        struct batch *batch = CONTAINER_OF(node, struct batch, node);
        intake_on_settled(core, intake_batch_of(core, batch->index));
    }
}

static void take_ends(struct intake_core *core)
{
    struct inbox_node *node;
    while ((node = inbox_take(&core->intake->ends)) != NULL) {
        struct journal_end *end = CONTAINER_OF(node, struct journal_end, node);
        intake_on_ended(core, CONTAINER_OF(end, struct intake_batch, end));
    }
}

/* Settled recipients: their entries are free again, their domains lose a hold. */
static bool take_recipients(struct intake_core *core)
{
    for (uint32_t i = 0; i < INTAKE_RECORDS_STEP_MAX; i++) {
        struct inbox_node *node = inbox_take(&core->intake->recipients);
        if (node == NULL) {
            return false;
        }
        struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
        struct intake_batch *ib = intake_batch_of(core, recipient->batch);
        ensure(ib->live_count > 0);
        ib->live_count--;
        domain_drop(core->engine->domains, recipient->domain);
        slab_give(&core->recipients, recipient);
        stat_add(&core->intake->stats.recipients_returned, 1);
    }
    return true;
}

/* The batch with the least left, of the first few: it can be sent while the others are scanned. */
static struct intake_batch *nearest_to_end(struct intake_core *core)
{
    struct intake_batch *best = NULL;
    struct list *node = core->scanning.next;
    for (uint32_t i = 0; i < INTAKE_SCANS_MAX && node != &core->scanning; i++) {
        struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
        if (best == NULL || intake_scan_left(ib) < intake_scan_left(best)) {
            best = ib;
        }
        node = node->next;
    }
    return best;
}

/* The batch nearest to its end finds no entry or domain free. Those that others took for a half
 * scanned batch help nobody: one of them gives its own back and begins anew. A batch for which all
 * there are is too few cannot run. */
static void make_room(struct intake_core *core, struct intake_batch *nearest)
{
    for (struct list *node = core->scanning.prev; node != &core->scanning; node = node->prev) {
        struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
        if (ib != nearest && ib->stage == INTAKE_SCANNING && ib->live_count > 0) {
            intake_scan_restart(core, ib);
            return;
        }
    }
    if (nearest->live_count == core->recipients.count_out) {
        intake_fail(core, nearest,
                    "more recipients, or domains, than the engine may hold at once: split the "
                    "batch, or raise recipients and domains in limits { }");
    }
}

/* A part of the step goes to the batch that is nearest to its end, a part to all in turn, so that
 * a huge one is not put off for ever. True: there is more to do at once. */
static bool scan(struct intake_core *core)
{
    struct intake_batch *nearest = nearest_to_end(core);
    if (nearest == NULL) {
        return false;
    }
    uint32_t taken = intake_scan_some(core, nearest, INTAKE_RECORDS_STEP_MAX / 4 * 3,
                                      INTAKE_BYTES_STEP_MAX / 4 * 3);
    if (nearest->stage == INTAKE_SCANNING && taken == 0) {
        make_room(core, nearest);
        return nearest->stage != INTAKE_SCANNING;
    }
    if (list_is_empty(&core->scanning)) {
        return true;
    }
    struct list *first = core->scanning.next;
    list_remove(first);
    list_add_last(&core->scanning, first);
    struct intake_batch *ib = CONTAINER_OF(first, struct intake_batch, link);
    taken += intake_scan_some(core, ib, INTAKE_RECORDS_STEP_MAX / 4, INTAKE_BYTES_STEP_MAX / 4);
    return taken > 0 || ib->stage != INTAKE_SCANNING;
}

static bool deal(struct intake_core *core, struct mono_time now)
{
    struct list *node = core->dealing.next;
    while (node != &core->dealing) {
        struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
        node = node->next;
        intake_deal(core, ib, now);
    }
    return !list_is_empty(&core->dealing);
}

/* The lists are in the order in which their batches are due, since one that was written goes to the
 * end. */
static void write_progress(struct intake_core *core, struct mono_time now)
{
    struct list *const lists[] = {&core->scanning, &core->active};
    if (mono_before(now, core->progress_at)) {
        return;
    }
    uint32_t count = 0;
    for (size_t i = 0; i < COUNT_OF(lists); i++) {
        for (; count < INTAKE_PROGRESS_STEP_MAX && !list_is_empty(lists[i]); count++) {
            struct list *node = lists[i]->next;
            struct intake_batch *ib = CONTAINER_OF(node, struct intake_batch, link);
            if (mono_before(now, ib->progress_at)) {
                break;
            }
            intake_write_progress(core, ib, now);
            list_remove(node);
            list_add_last(lists[i], node);
        }
    }
    if (count == INTAKE_PROGRESS_STEP_MAX) {
        core->progress_at = mono_add_ms(now, INTAKE_PROGRESS_REST_MS);
    }
}

/* When nothing is collected any more, and when it is again. */
static void tell_held(struct intake_core *core, const struct spool_collected *collected)
{
    if (collected->is_held != core->has_told_held) {
        intake_words_add(core, collected->is_held ? collected->held.text
                                                  : "pickup: files are collected again");
        intake_words_send(core);
    }
    core->has_told_held = collected->is_held;
}

static void collect_pickup(struct intake_core *core, struct mono_time now)
{
    core->pickup_at = mono_add_ms(now, INTAKE_PICKUP_RESCAN_MS);
    struct spool_collected collected;
    if (!intake_has_slot(core) || !intake_has_number(core) ||
        stat_read_xcore(&core->engine->is_draining) != 0) {
        return;
    }
    int result = spool_pickup_collect(&core->spool, clock_wall(core->engine->clock), now,
                                      SPOOL_PICKUP_FILES_MAX, &collected);
    if (result == -ENOTRECOVERABLE) {
        stat_set(&core->engine->must_stop, 1);
    }
    if (result != 0) {
        odd(pickup_not_collected); /* its files lie in pickup/ still, and are tried again */
        return;
    }
    tell_held(core, &collected);
    if (collected.unread_count > 0) {
        odd(pickup_file_not_read);
        intake_words_add(core, collected.unread.text);
        intake_words_send(core);
    }
    if (collected.files_count > 0) {
        intake_take_collected(core, collected.directory);
    }
    if (collected.has_more) {
        core->pickup_at = now;
    }
}

/* Age counts by whichever clock is behind: one that is ahead for a moment must take nothing from
 * under a writer's hands. */
static void sweep_tmp(struct intake_core *core, struct mono_time now)
{
    if (mono_before(now, core->sweep_at)) {
        return;
    }
    core->sweep_at = mono_add_ms(now, INTAKE_SWEEP_MS);
    struct wall_time wall = clock_wall(core->engine->clock);
    struct wall_time own = {.ns = (int64_t)steady_now_s(core->engine) * NS_PER_S};
    if (spool_sweep_tmp(&core->spool, own.ns < wall.ns ? own : wall) < 0) {
        odd(tmp_not_swept);
    }
}

static int watch_inputs(struct intake_core *core)
{
    static const enum spool_place WATCHED[] = {SPOOL_IN_NEW, SPOOL_IN_CTL, SPOOL_PICKUP};
    int result = 0;
    for (size_t i = 0; i < COUNT_OF(WATCHED) && result == 0; i++) {
        result = core->disk->ops->watch(core->disk, core->spool.places[WATCHED[i]]);
    }
    return result;
}

/* People may remove the directories that writers write to, or put others there, under the engine:
 * no order and no batch would be seen any more. */
static void renew_inputs(struct intake_core *core, struct mono_time now)
{
    if (mono_before(now, core->inputs_at)) {
        return;
    }
    core->inputs_at = mono_add_ms(now, INTAKE_RESCAN_MS);
    enum spool_place place;
    int count = spool_inputs_renew(&core->spool, &place);
    if (count > 0) {
        char line[256];
        (void)snprintf(line, sizeof(line),
                       "%s: was removed or replaced while the engine runs (%d such directories): "
                       "it is there again, and looked at; see to it that writers may write to it",
                       spool_place_name(place), count);
        intake_words_add(core, line);
        (void)core->disk->ops->watch(core->disk, -1);
        if (watch_inputs(core) != 0) {
            odd(inputs_not_watched); /* they are listed once a second */
        }
    } else if (count < 0 && !core->has_told_inputs) {
        char line[256];
        (void)snprintf(line, sizeof(line),
                       "%s: cannot be looked at, or made anew: %s; tried again each second",
                       spool_place_name(place), strerror(-count));
        intake_words_add(core, line);
    }
    core->has_told_inputs = count < 0;
}

/* What people and writers left in the spool: at each change, and once a second whatever the watch
 * says. */
static void look(struct intake_core *core, struct mono_time now)
{
    renew_inputs(core, now);
    bool has_changed = core->disk->ops->watch_fired(core->disk);
    if (!has_changed && mono_before(now, core->rescan_at)) {
        return;
    }
    core->rescan_at = mono_add_ms(now, INTAKE_RESCAN_MS);
    spool_ids_tidy(core->ids, clock_wall(core->engine->clock), steady_now_s(core->engine));
    sweep_tmp(core, now);
    intake_accept_again(core);
    if (!core->is_recovering) {
        intake_claim_new(core);
    }
    intake_take_orders(core);
}

static void take_orders_back(struct intake_core *core)
{
    while (inbox_take(&core->orders_back) != NULL) {
        ensure(core->orders_left > 0);
        core->orders_left--;
        intake_take_orders(core); /* there may be many: none waits for the next look */
    }
}

/* There is more in in/new, and nothing keeps us from it. A listing of which nobody could be claimed
 * is followed by a rest. */
static bool may_claim_more(const struct intake_core *core)
{
    bool has_names = core->names_next < core->names->count;
    return !core->is_recovering && core->has_more_new && (has_names || core->has_claimed) &&
           !stat_read_xcore(&core->intake->stats.is_short_of_space) &&
           !stat_read_xcore(&core->engine->is_draining) && intake_has_slot(core) &&
           slab_left(&core->recipients) > 0;
}

static struct mono_time intake_step(struct actor *actor, struct mono_time now)
{
    struct intake *intake = (struct intake *)actor;
    struct intake_core *core = intake->core;
    (void)intake_load_reap(core);
    intake_load_blocks(core);
    intake_load_take(core);
    bool is_more = intake_changed_some(core);
    take_accepts(core);
    take_settled(core);
    take_ends(core);
    is_more |= take_recipients(core);
    take_orders_back(core);
    intake_words_send(core);
    if (core->is_recovering) {
        intake_recover_some(core);
        is_more = is_more || !core->is_recovering || (!core->is_listed && intake_has_slot(core));
        core->rescan_at = core->is_recovering ? core->rescan_at : now;
        core->pickup_at = core->is_recovering ? MONO_NEVER : now;
    }
    is_more |= intake_open_waiting(core, now);
    look(core, now);
    is_more = is_more || may_claim_more(core);
    if (!core->is_recovering && !mono_before(now, core->pickup_at)) {
        collect_pickup(core, now);
    }
    is_more |= scan(core);
    is_more |= deal(core, now);
    is_more |= intake_leave_some(core, now);
    write_progress(core, now);
    if (is_more) {
        core->rescan_at = may_claim_more(core) ? now : core->rescan_at;
        return now;
    }
    return mono_earlier(core->rescan_at, core->pickup_at);
}

static void intake_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct intake *intake = (struct intake *)actor;
    struct disk *disk = intake->core->disk;
    disk->ops->wait(disk, deadline.ns == MONO_NEVER.ns ? -1 : deadline.ns - now.ns);
}

static int refuse(struct writer *errors, const char *what, int error)
{
    writer_put_format(errors, "intake: %s: %s\n", what, strerror(-error));
    return error;
}

static int core_init(struct intake_core *core, const struct intake_config *config)
{
    const struct config *settings = config->engine->config;
    uint32_t batches = settings->batches_max;
    core->names = calloc(1, sizeof(*core->names));
    core->orders = calloc(1, sizeof(*core->orders));
    core->batches = calloc(batches, sizeof(*core->batches));
    core->free_slots = calloc(batches, sizeof(*core->free_slots));
    core->by_id_mask = 1;
    while (core->by_id_mask < batches) {
        core->by_id_mask = core->by_id_mask << 1 | 1;
    }
    core->by_id = calloc(core->by_id_mask + 1u, sizeof(*core->by_id));
    core->parser = scan_parser_create();
    core->record = malloc(sizeof(*core->record));
    core->message = malloc(sizeof(*core->message));
    core->worker_orders = calloc(settings->workers_count, sizeof(*core->worker_orders));
    core->reason_text = malloc(INTAKE_REASON_MAX);
    bool is_whole = core->names != NULL && core->orders != NULL && core->batches != NULL &&
                    core->free_slots != NULL && core->by_id != NULL && core->parser != NULL &&
                    core->record != NULL && core->message != NULL && core->worker_orders != NULL &&
                    core->reason_text != NULL;
    if (!is_whole) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < batches; i++) {
        core->free_slots[core->free_count++] = batches - 1 - i;
    }
    int result = slab_init(&core->recipients, "recipients", sizeof(struct recipient),
                           settings->recipients_max);
    return result != 0 ? result
                       : slab_init(&core->reads, "reads", (sizeof(struct intake_read) + 7) & ~7ul,
                                   INTAKE_READS_MAX);
}

static int spool_start(struct intake_core *core, struct writer *ret_errors)
{
    const struct config *settings = core->engine->config;
    struct spool_problem problem;
    const struct spool_config spool = {
        .disk = core->disk,
        .root = settings->spool,
        .process_id = (uint32_t)getpid(),
        .file_size_max = UINT64_C(1) << RECIPIENT_OFFSET_BITS,
        .message_size_max = settings->message_size_max,
    };
    int result = spool_open(&core->spool, &spool, &problem);
    if (result != 0) {
        writer_put_format(ret_errors, "%s\n", problem.text);
        return result;
    }
    core->has_spool = true;
    core->ids =
        spool_ids_create(&core->spool, core->engine->secret, clock_wall(core->engine->clock));
    if (core->ids == NULL) {
        return refuse(ret_errors, "ids", -ENOMEM);
    }
    result = watch_inputs(core);
    result = result == 0 ? intake_marker_take(core) : result;
    result = result == 0 ? spool_pickup_recover(&core->spool) : result;
    return result == 0 ? 0 : refuse(ret_errors, settings->spool, result);
}

int intake_init(struct intake *intake, const struct intake_config *config, bool with_event_fd,
                struct writer *ret_errors)
{
    memset(intake, 0, sizeof(*intake));
    intake->actor = (struct actor){.name = "intake", .step = intake_step, .wait = intake_wait};
    int result = waker_init(&intake->actor.waker, with_event_fd);
    if (result != 0) {
        return refuse(ret_errors, "waker", result);
    }
    struct inbox *const inboxes[] = {&intake->accepts, &intake->settled, &intake->ends,
                                     &intake->loads,   &intake->blocks,  &intake->recipients,
                                     &intake->words};
    for (size_t i = 0; i < COUNT_OF(inboxes); i++) {
        inbox_init(inboxes[i], &intake->actor.waker);
    }
    struct intake_core *core = aligned_alloc(64, (sizeof(*core) + 63) & ~(size_t)63);
    if (core == NULL) {
        waker_deinit(&intake->actor.waker);
        return refuse(ret_errors, "memory", -ENOMEM);
    }
    memset(core, 0, sizeof(*core));
    intake->core = core;
    core->intake = intake;
    core->engine = config->engine;
    core->disk = config->disk;
    core->next_number = 1;
    core->fds_max = config->fds_max;
    core->sweep_at = mono_add_ms(clock_mono(core->engine->clock), INTAKE_SWEEP_MS);
    list_init(&core->opening);
    list_init(&core->refused);
    list_init(&core->scanning);
    list_init(&core->dealing);
    list_init(&core->active);
    list_init(&core->leaving);
    list_init(&core->blocks);
    list_init(&core->touched);
    inbox_init(&core->orders_back, &intake->actor.waker);
    inbox_init(&core->ghosts_back, &intake->actor.waker);
    inbox_chain_init(&core->loads_waiting);
    intake_words_begin(core);
    result = core_init(core, config);
    if (result != 0) {
        (void)refuse(ret_errors, "memory", result);
    } else {
        result = spool_start(core, ret_errors);
    }
    if (result != 0) {
        intake_deinit(intake);
    }
    return result;
}

bool intake_has_slots(const struct intake_core *core, uint32_t count)
{
    uint64_t fds = core->fds_open + (uint64_t)INTAKE_BATCH_FDS * count;
    return core->free_count >= count && (core->fds_max == 0 || fds <= core->fds_max);
}

bool intake_has_slot(const struct intake_core *core)
{
    return intake_has_slots(core, 1);
}

bool intake_is_idle(const struct intake *intake)
{
    const struct intake_core *core = intake->core;
    return !core->is_recovering && core->free_count == core->engine->config->batches_max &&
           core->loads_waiting.count == 0;
}

void intake_deinit(struct intake *intake)
{
    if (intake == NULL || intake->core == NULL) {
        return;
    }
    struct intake_core *core = intake->core;
    for (uint32_t i = 0; core->batches != NULL && i < core->engine->config->batches_max; i++) {
        struct intake_batch *ib = &core->batches[i];
        if (ib->stage != INTAKE_FREE) {
            intake_abandon(core, ib);
        }
    }
    intake_load_end(core);
    intake_known_free(core);
    spool_ids_destroy(core->ids);
    if (core->has_spool) {
        spool_close(&core->spool);
    }
    slab_abandon(&core->recipients);
    slab_abandon(&core->reads);
    scan_parser_destroy(core->parser);
    free(core->names);
    free(core->orders);
    free(core->batches);
    free(core->free_slots);
    free(core->by_id);
    free(core->record);
    free(core->message);
    free(core->worker_orders);
    free(core->reason_text);
    free(core);
    intake->core = NULL;
    waker_deinit(&intake->actor.waker);
}
