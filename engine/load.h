/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load: read-ahead. A worker asks intake for the bytes of the recipients it is about to try; intake
 * reads them and lends them.
 *
 * Born in the worker's slab; owner: the worker, between push to intake's `loads` and return to the
 * worker's `loads` inbox: intake. All recipients of a load are of one batch. The block that holds
 * the bytes belongs to intake: the worker pushes it back (`blocks` inbox) when the last attempt of
 * the load is over and no transport reads of it any more. It stands for the batch's template as
 * well: the batch does not end before its blocks are back.
 * Bounds: LOAD_RECIPIENTS_MAX recipients when they share transactions, LOAD_MIXED_MAX otherwise;
 * about LOAD_SIZE_MAX bytes (one larger record may come alone); blocks within readahead_bytes_max.
 * At that bound intake lets loads wait that are needed at once, because their lane has a session.
 * What is only wanted ahead, for a session still to come, has half of it and is refused beyond:
 * else lanes that wait for a connection could hold all the bytes that those which have one wait
 * for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/inbox.h"
#include "engine/base/list.h"
#include "queue/batch.h"
#include "queue/recipient.h"

/* A transaction never goes beyond its load: as many can share one (rcpts-max). */
enum { LOAD_RECIPIENTS_MAX = 128, LOAD_MIXED_MAX = 64, LOAD_SIZE_MAX = 256 * 1024 };

struct lane;

struct load_block {
    struct inbox_node node;
    struct list link; /* intake's: all that are out */
    uint32_t batch;   /* whose it is: the batch does not end before all its blocks are back */
    uint64_t size;    /* bytes that count against the budget */
    bool is_needed;   /* as its load's */
    char bytes[];
};

struct load {
    struct inbox_node node;
    struct inbox *reply_to;
    const struct batch *batch;
    uint32_t count;
    bool is_needed; /* it can be used as soon as it comes */
    int result; /* 0, or -errno: the bytes could not be read or have changed (`problem` says so);
                   -ENOBUFS, and no block: refused */
    struct recipient *recipients[LOAD_RECIPIENTS_MAX];
    /* Filled by intake: the record of each recipient. BSMTP records are in wire form already (CRLF,
     * dot-stuffed). */
    struct span records[LOAD_RECIPIENTS_MAX];
    struct load_block *block;
    /* The worker's own. */
    struct lane *lane;
    struct list link; /* in the lane, while some of it is not dispatched */
    uint32_t next;  /* first recipient not yet dispatched */
    uint32_t holds; /* attempts that still use the bytes */
};
