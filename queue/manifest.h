/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest: batch.json, checked (docs/formats/SPOOL.md). At most MANIFEST_SIZE_MAX bytes. Owned by
 * the batch, immutable after the parse.
 *
 * Unknown keys, wrong types and impossible combinations are errors that name the key, one line of
 * text each; all errors found are listed, up to the text's bound. A syntax error is told with its
 * line and column. Nothing is guessed: a key that this version cannot honour is an error too.
 *
 * A program that holds this module gives jansson its memory through it (from before main on): only
 * so is a text that is bad told from a reader that found no memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"
#include "queue/scan.h"

enum {
    MANIFEST_SIZE_MAX = 64 * 1024,
    MANIFEST_ID_MAX = 128,
    MANIFEST_FILE_NAME_MAX = 128,
    MANIFEST_LABEL_MAX = 128, /* tenant, campaign */
    MANIFEST_FROM_MAX = 1024,
    MANIFEST_PPM = 1000000,
};

enum manifest_kind { MANIFEST_MERGE, MANIFEST_BSMTP };
enum manifest_missing { MANIFEST_MISSING_REJECT, MANIFEST_MISSING_EMPTY, MANIFEST_MISSING_LITERAL };
enum manifest_results { /* which final outcomes go to results.ndjson */
                        MANIFEST_RESULT_DELIVERED = 1u << 0,
                        MANIFEST_RESULT_BOUNCED = 1u << 1,
                        MANIFEST_RESULT_EXPIRED = 1u << 2,
                        MANIFEST_RESULT_CANCELLED = 1u << 3,
                        MANIFEST_RESULT_ALL = 15u,
};

struct manifest_var {
    char *name;
    char *value;
};

struct manifest {
    char
        id[MANIFEST_ID_MAX + 1]; /* [A-Za-z0-9._-]+; default: the directory's name without .batch */
    enum manifest_kind kind;
    enum scan_format format; /* by the recipients' file name, or BSMTP */
    char *from;              /* merge: envelope sender, may hold placeholders; "" = null path */
    char *message;           /* merge: file name, default message.eml; no slash */
    char *recipients;        /* merge: file name, default recipients.ndjson; .ndjson or .csv */
    enum manifest_missing missing;
    char *tenant, *campaign; /* NULL when not given */
    uint8_t priority;               /* 0..9, default 5, higher first */
    uint64_t count;          /* told number of recipients, 0 = not told; another number fails the
                                batch */
    uint64_t max_reject;     /* absolute number, when max_reject_ppm is 0 ... */
    uint32_t max_reject_ppm; /* ... or a share in millionths; default 1 % */
    struct wall_time not_before; /* ns 0 = at once */
    struct wall_time expires;    /* ns 0 = by the route's schedule */
    unsigned results;            /* enum manifest_results */
    struct manifest_var *vars; /* defaults for all recipients; nested ones flattened as in scan.h */
    uint32_t vars_count;
};

/* NULL with the errors in `ret_errors` (lines of text for people); none: out of memory, nothing
 * speaks against the batch. `name`: the directory's name without .batch. */
struct manifest *manifest_parse(struct span json, struct span name, struct writer *ret_errors);
void manifest_destroy(struct manifest *manifest); /* NULL-safe */
/* True when so many rejected of so many records are within max_reject. */
bool manifest_allows_rejects(const struct manifest *manifest, uint64_t rejected_count,
                             uint64_t records_count);
/* 1..MANIFEST_ID_MAX of [A-Za-z0-9._-], not beginning with a dot or a hyphen. */
bool manifest_id_is_good(struct span id);
/* Names that the engine writes into a batch's directory or reads for itself, batch.json among them.
 */
bool manifest_file_is_reserved(const char *name);
