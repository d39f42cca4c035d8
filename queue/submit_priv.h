/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit_priv: a batch under construction in in/tmp; visible inside queue/ only.
 */
#pragma once

#include "queue/submit.h"

struct making {
    struct submit *submit;
    char name[64]; /* in in/tmp */
    int dir;
};

void submit_id_make(struct submit *submit, struct submit_id *ret_id);
/* The given id, checked, or one that is made. */
int submit_id_take(struct submit *submit, const char *id, struct submit_id *ret_id,
                   struct spool_problem *ret_problem) __attribute__((warn_unused_result));
/* After a begin that returned 0: end or abandon, once. End abandons by itself when it fails. */
int submit_making_begin(struct submit *submit, struct making *making,
                        struct spool_problem *ret_problem) __attribute__((warn_unused_result));
/* A new file of the batch, durable. */
int submit_making_write(struct making *making, const char *name, struct span content,
                        struct spool_problem *ret_problem) __attribute__((warn_unused_result));
/* `id`: for a batch.json without one. */
int submit_making_end(struct making *making, const char *id, struct submit_id *ret_id,
                      struct spool_problem *ret_problem) __attribute__((warn_unused_result));
void submit_making_abandon(struct making *making);
