/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/planted.h"
#include "engine/intake_priv.h"
#include "engine/steady.h"

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
    list_init(&ib->touched);
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

struct intake_batch *intake_id_find(struct intake_core *core, const char *id)
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

void intake_id_add(struct intake_core *core, struct intake_batch *ib)
{
    ensure(!ib->has_id);
    uint32_t *bucket = id_bucket(core, ib->batch->manifest->id);
    ib->next_by_id = *bucket;
    *bucket = ib->batch->index + 1;
    ib->has_id = true;
}

void intake_id_remove(struct intake_core *core, struct intake_batch *ib)
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

void intake_stream_close(struct intake_core *core, struct intake_batch *ib)
{
    if (ib->stream != NULL) {
        intake_changed_drop(core, ib);
        ensure(core->fds_open >= ib->stream->files_count);
        core->fds_open -= ib->stream->files_count;
        spool_stream_close(&core->spool, ib->stream);
        free(ib->stream);
        ib->stream = NULL;
    }
}

void intake_directory_close(struct intake_core *core, struct intake_batch *ib)
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
        intake_id_remove(core, ib);
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
void intake_batch_close(struct intake_core *core, struct intake_batch *ib)
{
    intake_scan_end(core, ib);
    intake_stream_close(core, ib);
    intake_directory_close(core, ib);
    content_free(core, ib);
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

/* What reason.txt will hold. */
static char *reason_of(const char *words, bool is_known)
{
    static const char BEFORE[] = "it was accepted before, and cannot go on: ";
    static const char BEHIND[] = ". Who has no line in results.ndjson is still to be sent to: "
                                 "submit those anew, with another id";
    size_t words_size = strlen(words);
    while (words_size > 0 && words[words_size - 1] == '\n') {
        words_size--;
    }
    size_t size = sizeof(BEFORE) + words_size + sizeof(BEHIND) + 1;
    char *reason = malloc(size);
    if (reason != NULL) {
        (void)snprintf(reason, size, "%s%.*s%s\n", is_known ? BEFORE : "", (int)words_size, words,
                       is_known ? BEHIND : "");
    }
    return reason;
}

void intake_fail(struct intake_core *core, struct intake_batch *ib, const char *words)
{
    if (ib->stage == INTAKE_LEAVING) {
        return; /* it has failed already: the first reason stays */
    }
    char *copy = reason_of(words, ib->known != NULL);
    ib->reason = copy == NULL ? SPAN("its reason is lost: out of memory\n") : span_of_text(copy);
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

bool intake_has_number(const struct intake_core *core)
{
    bool has_number = core->next_number + INTAKE_CLAIMS_STEP_MAX <= JOURNAL_BATCH_NUMBER_MAX;
    if (!has_number) {
        odd(batch_numbers_used_up); /* four thousand million batches: a new spool is due */
    }
    return has_number;
}

static bool may_claim(struct intake_core *core)
{
    struct disk_op op = {.verb = DISK_FREE_SPACE, .fd = core->spool.root};
    bool is_short =
        disk_run(core->disk, &op) == 0 && op.stat.size < core->engine->config->free_space_min;
    stat_set(&core->intake->stats.is_short_of_space, is_short);
    return !is_short && stat_read_xcore(&core->engine->is_draining) == 0 && intake_has_slot(core) &&
           intake_has_number(core) && slab_left(&core->recipients) > 0;
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
        core->has_names_left = core->names->is_part;
        core->has_claimed = false;
    }
    struct spool_claimed claims[INTAKE_CLAIMS_STEP_MAX];
    uint32_t count = 0;
    while (count < INTAKE_CLAIMS_STEP_MAX && core->names_next < core->names->count &&
           intake_has_slots(core, count + 1)) {
        claims[count++].name = core->names->names[core->names_next++];
    }
    spool_claim_group(&core->spool, claims, count, wall);
    for (uint32_t i = 0; i < count; i++) {
        core->has_claimed |= claims[i].is_gone;
        if (claims[i].result == 0) {
            open_new(core, claims[i].directory, true);
        } else if (claims[i].result == -ENOTRECOVERABLE) {
            stat_set(&core->engine->must_stop, 1);
        } else if (claims[i].result != -EINVAL) {
            odd(batch_not_claimed); /* it lies in in/new still, and is tried again */
            if (claims[i].problem.text[0] != '\0') {
                intake_words_add(core, claims[i].problem.text);
            }
        }
    }
    intake_words_send(core);
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

/* Hours may lie between the claim and here: a full engine has no room for its recipients. Their age
 * counts from when the engine has taken them on, and so does the Date of the message, which must be
 * the same after a restart: it is the time in the accept record. */
void intake_accept(struct intake_core *core, struct intake_batch *ib)
{
    struct batch *batch = ib->batch;
    ensure(ib->stage == INTAKE_ACCEPTING);
    if (ib->known == NULL) {
        batch->accepted_at = clock_wall(core->engine->clock);
        if (batch->template != NULL) {
            template_set_date((struct template *)(uintptr_t)batch->template, batch->accepted_at);
        }
    }
    inbox_push_xcore(&core->engine->journal->accepts, &ib->accept.node);
}

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
        intake_accept(core, ib);
    }
}

void intake_deal(struct intake_core *core, struct intake_batch *ib, struct mono_time now)
{
    ensure(ib->stage == INTAKE_DEALING);
    (void)now;
    struct engine *engine = core->engine;
    bool is_cancelled = (stat_read_xcore(&ib->batch->orders) & BATCH_CANCELLED) != 0;
    if (ib->batch->start_s == 0) {
        ib->batch->start_s = steady_start_s(engine, ib->batch, ib->known == NULL);
    }
    for (uint32_t i = 0; i < INTAKE_DEALS_STEP_MAX && ib->recipients.count > 0; i++) {
        struct inbox_chain chain;
        inbox_chain_init(&chain);
        while (chain.count < INTAKE_CHUNK && ib->recipients.count > 0) {
            struct inbox_node *node = inbox_chain_take(&ib->recipients);
            struct recipient *recipient = CONTAINER_OF(node, struct recipient, node);
            if (recipient->due_s != 0) {
                recipient->due_s = steady_due_s(engine, ib->batch, recipient);
            }
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

void intake_batch_free(struct intake_core *core, struct intake_batch *ib)
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
    intake_batch_close(core, ib);
}
