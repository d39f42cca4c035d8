/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit_wait: waits until a batch has left the engine, and shows how it goes on standard output.
 *
 * For `ramjet submit --wait`, in a process of its own; blocks. Woken by inotify on the spool when
 * it can be had (a batch that is claimed, a new progress.json, a batch that leaves), looks once a
 * second by itself in any case. On a terminal: a bar, redrawn; elsewhere a line a second; with
 * is_json one JSON object a second, the last one tells the end.
 *
 * A batch that is nowhere in the spool in two looks is told as failed: it was put aside (badmail/)
 * or removed by people.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "queue/submit.h"

struct submit_wait {
    const char *root; /* of the spool, for inotify */
    const char *id;
    const char *control_socket; /* of the engine, to ask why nothing moves */
    uint64_t timeout_ms; /* 0: for ever */
    bool is_json;
};

/* The exit status (submit_show.h). */
int submit_wait_run(struct submit *submit, const struct submit_wait *wait);
