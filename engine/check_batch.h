/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_batch: reads a batch as the engine would, and sends nothing (`ramjet check NAME.batch`).
 *
 * batch.json, the message and every record go through the code that intake uses (manifest,
 * template, spool_file_open, scan, record_check): a batch that is fine here is accepted there.
 * Beyond that it counts which variables records give and the message does not use, and which the
 * message uses and records do not give; and renders one recipient's mail as it would be sent.
 *
 * Blocking, in a process of its own. Memory does not depend on the number of records; the lists
 * below are bounded, the counts go on. What is wrong with the batch is data, in the struct.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "queue/manifest.h"
#include "queue/scan.h"

struct config;

enum {
    CHECK_BATCH_REJECTS_MAX = 20,
    CHECK_BATCH_NAMES_MAX = 256,
    CHECK_BATCH_PROBLEM_SIZE = 8 * 1024,
};

struct check_batch_reject {
    char file[MANIFEST_FILE_NAME_MAX + 1];
    uint64_t line;
    char reason[256];
    const char *remedy;
};

struct check_batch_name {
    char name[SCAN_NAME_MAX + 1];
    uint64_t count; /* records */
    bool is_used;   /* of a record's name: in the message or the sender */
};

struct check_batch {
    char id[MANIFEST_ID_MAX + 1];
    enum manifest_kind kind;
    /* Why the engine would not run it: lines of text; empty when it would. */
    char problem[CHECK_BATCH_PROBLEM_SIZE];
    uint64_t recipients_count; /* would be accepted */
    uint64_t rejected_count;
    uint32_t rejects_count; /* the first ones */
    struct check_batch_reject rejects[CHECK_BATCH_REJECTS_MAX];
    uint32_t given_count;
    struct check_batch_name given[CHECK_BATCH_NAMES_MAX]; /* by records or batch.json */
    uint32_t wanted_count;
    struct check_batch_name wanted[CHECK_BATCH_NAMES_MAX]; /* by the message; count: not given */
    char *sample; /* of the recipient that was asked for; NULL: there is none */
    size_t sample_size;
};

/* `sample`: number of the accepted recipient to be rendered, from 1; 0 = none. True: the engine
 * would run the batch. check_batch_free either way. */
bool check_batch_run(struct check_batch *check, const struct config *config, const char *path,
                     uint64_t sample);
void check_batch_free(struct check_batch *check);
