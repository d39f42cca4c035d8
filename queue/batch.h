/* SPDX-License-Identifier: Apache-2.0 */
/*
 * batch: one submission that was claimed: its files, its content, its counts.
 *
 * A slot of the batch table; owner: intake. Others hold its index through a recipient, and read
 * what is immutable from BATCH_ACTIVE on. Fields that more than one actor looks at have one writer
 * each, named below. A batch ends (slot given back) only when all its recipients are settled
 * durably, its folder has left active/ (LAW 4) and no worker holds anything of it. Bound:
 * batches_max; intake stops claiming.
 */
#pragma once

#include <stdint.h>

#include "engine/base/clock.h"
#include "engine/base/inbox.h"
#include "engine/base/stat.h"
#include "queue/manifest.h"

enum batch_state {
    BATCH_SCANNING,  /* claimed; its records are being checked */
    BATCH_ACCEPTING, /* scanned; waiting for its accept record to be durable */
    BATCH_ACTIVE,    /* accepted: recipients are with the workers */
    BATCH_SETTLED,   /* all settled durably; leaving the spool */
    BATCH_FAILED,    /* could not run; leaving the spool for failed/ */
};
enum { BATCH_STATES_COUNT = BATCH_FAILED + 1 };

/* In `orders`: written by intake, read by workers at dispatch and when a retry is due. */
enum batch_orders {
    BATCH_PAUSED = 1u << 0,
    BATCH_CANCELLED = 1u << 1,
};

/* What settled recipients became. */
enum batch_count {
    BATCH_DELIVERED,
    BATCH_BOUNCED,
    BATCH_EXPIRED,
    BATCH_CANCELLED_COUNT,
    BATCH_DEFERRALS,           /* attempts that ended in a deferral: not an end */
    BATCH_POSSIBLE_DUPLICATES, /* attempts after an ambiguous end */
};
enum { BATCH_COUNTS_COUNT = BATCH_POSSIBLE_DUPLICATES + 1 };

struct template;
struct scan_columns;

struct batch {
    uint32_t index;         /* slot in the table */
    uint32_t number;        /* in the journal; never used twice in the life of a spool */
    enum batch_state state; /* intake */
    char directory[MANIFEST_ID_MAX + 32]; /* its name in active/ */
    struct manifest *manifest;
    /* Content, immutable from BATCH_ACTIVE on; `template` and `sender` are NULL for kind bsmtp. */
    const struct template *template;
    const struct template *sender;
    const struct scan_columns *columns;
    /* That of the accept record, the same after a restart (of the claim until it is accepted): goes
     * into Date, expiry, log. */
    struct wall_time accepted_at;
    uint32_t start_s;          /* the engine's own second from which their age counts */
    uint64_t recipients_count; /* accepted */
    uint64_t rejected_count;
    uint64_t records_count;                         /* ordinals are 0 .. records_count - 1 */
    struct stat_counter orders;                     /* intake; enum batch_orders */
    struct stat_counter counts[BATCH_COUNTS_COUNT]; /* journal: durable facts only */
    struct stat_counter results_held; /* journal; 1: its lines cannot be written, send nothing */
    struct inbox_node node;           /* journal -> intake: all is settled durably */
};

/* Settled recipients, durable. Any actor. */
static inline uint64_t batch_settled_xcore(const struct batch *batch)
{
    return stat_read_xcore(&batch->counts[BATCH_DELIVERED]) +
           stat_read_xcore(&batch->counts[BATCH_BOUNCED]) +
           stat_read_xcore(&batch->counts[BATCH_EXPIRED]) +
           stat_read_xcore(&batch->counts[BATCH_CANCELLED_COUNT]);
}
