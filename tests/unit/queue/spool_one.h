/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_one: one batch claimed, one that leaves: groups of one (queue/spool.h). ret_directory: of
 * SPOOL_DIRECTORY_MAX + 1 bytes. ret_path: where it is, below the root, of SPOOL_PATH_MAX bytes;
 * may be NULL.
 */
#pragma once

#include <string.h>

#include "queue/spool.h"

static inline int spool_one_claim(struct spool *spool, const char *name, struct wall_time now,
                                  char *ret_directory, struct spool_problem *ret_problem)
{
    struct spool_claimed claim = {.name = name};
    spool_claim_group(spool, &claim, 1, now);
    if (claim.result == 0) {
        memcpy(ret_directory, claim.directory, sizeof(claim.directory));
    } else {
        *ret_problem = claim.problem;
    }
    return claim.result;
}

static inline int spool_one_finish(struct spool *spool, const char *directory, enum spool_end end,
                                   const struct spool_progress *summary, struct span reason,
                                   struct wall_time now, char *ret_path)
{
    static const char *const PLACES[] = {"done", "failed", "hold"};
    struct spool_leaving leaving = {
        .directory = directory, .batch_fd = -1, .end = end, .summary = summary, .reason = reason};
    spool_finish_group(spool, &leaving, 1, now);
    if (leaving.result == 0 && ret_path != NULL) {
        const char *day = end == SPOOL_END_HELD ? "" : spool->days[end == SPOOL_END_FAILED];
        struct writer path = writer_of(ret_path, SPOOL_PATH_MAX - 1);
        writer_put_format(&path, "%s/%s%s%s", PLACES[end], day, end == SPOOL_END_HELD ? "" : "/",
                          leaving.name);
        *path.at = '\0';
    }
    return leaving.result;
}
