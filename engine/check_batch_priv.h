/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_batch_priv: what the parts of check_batch share: check_batch.c (the batch's files, one
 * record after the other), check_batch_names.c (variables given and wanted), check_batch_sample.c
 * (one recipient's mail). Visible inside engine/ only.
 */
#pragma once

#include "engine/check_batch.h"
#include "engine/message/template.h"
#include "queue/spool.h"

/* One check under way. */
struct checking {
    struct check_batch *check;
    const struct config *config;
    struct spool spool; /* never opened: spool_file_open needs its disk and its limits only */
    int dir;
    struct manifest *manifest;
    struct template *sender;
    struct template *template;
    struct scan_columns *columns;
    struct scan_parser *parser;
    struct scan_recipient *record;
    struct scan_message *message;
    uint8_t check_hints[TEMPLATE_VARS_MAX];
    uint8_t count_hints[TEMPLATE_VARS_MAX];
    uint32_t ordinal;
    uint64_t sample;
    const struct spool_stream_file *file;
};

/* check_batch_names.c: a variable that a record or batch.json gives ... */
void check_batch_count_given(struct checking *checking, struct span name);
/* ... and all of the record under way: those it gives, and those that it leaves out. */
void check_batch_count_names(struct checking *checking);

/* check_batch_sample.c: the pieces, as the sample; none when there is no memory ... */
void check_batch_keep_sample(struct checking *checking, const struct span *pieces, uint32_t count);
/* ... the BSMTP record under way, with the fields that it lacks ... */
void check_batch_show_record(struct checking *checking, struct span record, uint64_t offset);
/* ... and the mail of the record under way, which was accepted, with its envelope. */
void check_batch_render_sample(struct checking *checking, struct span to, uint32_t ordinal);
