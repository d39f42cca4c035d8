/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit_show: how a batch goes, for the people and programs that wait for it (`ramjet submit`).
 *
 * Pure functions into the caller's writer. A bar never takes more columns than the terminal has;
 * ids hold nothing but letters, digits and . _ - (queue/manifest.h), so nothing needs escaping.
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"
#include "queue/submit.h"

enum { SUBMIT_SHOW_MAX = 4096, SUBMIT_SHOW_COLUMNS_MAX = 512 };

const char *submit_show_state_name(enum submit_state state);
/* One line with its LF: "spring-07: active: 12 of 100 settled, ...". */
void submit_show_put_line(struct writer *writer, const char *id,
                          const struct submit_status *status);
/* One line without LF, at most `columns` - 1 characters. */
void submit_show_put_bar(struct writer *writer, const char *id, const struct submit_status *status,
                         unsigned columns);
/* One JSON object with LF; members as in progress.json. */
void submit_show_put_json(struct writer *writer, const char *id,
                          const struct submit_status *status);

/* True when nothing more will happen to the batch without people. */
bool submit_show_is_end(enum submit_state state);
/* Exit statuses of `ramjet submit`. */
enum {
    SUBMIT_EXIT_DELIVERED = 0, /* or, without --wait, accepted into the spool */
    SUBMIT_EXIT_NOT_DONE = 1,  /* the batch did not get into the spool, or cannot be watched */
    SUBMIT_EXIT_USAGE = 2,
    SUBMIT_EXIT_FAILED = 3,  /* the engine could not run the batch */
    SUBMIT_EXIT_NOT_ALL = 4, /* ended, and some recipients did not get it */
    SUBMIT_EXIT_TIMEOUT = 5,
};
int submit_show_exit_status(const struct submit_status *status);
