/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control: the control actor: signals, the admin socket (HTTP), metrics, systemd, and the orderly
 * stop.
 *
 * Runs in the process's first thread. Reads every actor's counters (one writer each, read from
 * here); asks the workers for their top lanes by a struct worker_report a second, which travels
 * there and back.
 *
 * HTTP on the UNIX socket config->control_socket (mode 0660), and on config->metrics_listen
 * (loopback unless the operator says otherwise):
 *   GET /v1/status   JSON: totals, rates (1 s, 1 min), top sites with backlog, sessions, last
 *                    errors, batches in progress
 *   GET /metrics     Prometheus text
 *   GET /healthz     200 while the engine runs, 503 while it stops
 *
 * Stopping (SIGTERM, SIGINT): is_draining is set, intake claims no more, workers begin no
 * transaction and end their sessions; what is past the end of data is waited for, at most
 * drain_timeout_ms; then everything stops and the journal is flushed. A second signal ends the
 * wait. The journal's has_failed or engine->must_stop stops at once with exit status 1. SIGHUP:
 * told in the log that a restart is needed (reload comes later). SIGUSR1: the event log is rotated.
 *
 * Bounds: those of control_http; requests are small and answered at once.
 */
#pragma once

#include <stdbool.h>

#include "engine/base/actor.h"
#include "engine/engine.h"
#include "engine/worker.h"

enum control_phase {
    CONTROL_RUNNING,
    CONTROL_DRAINING,
    CONTROL_STOPPED, /* boot.c stops all threads */
};

struct control {
    struct actor actor; /* first */
    struct inbox reports, words;
    enum control_phase phase;
    bool is_drained; /* it stopped in order: nothing was in flight any more */
    int exit_status;
    struct control_core *core; /* its own */
};

/* Signals are blocked in all threads by boot.c before; they come here through a signalfd.
 * `with_sockets` false in the simulator: no sockets, no signals, no systemd. 0 or -errno with the
 * reason in ret_errors. */
int control_init(struct control *control, struct engine *engine, bool with_sockets,
                 struct writer *ret_errors) __attribute__((warn_unused_result));
void control_deinit(struct control *control); /* NULL-safe, half-built safe */
/* What SIGTERM does: the orderly stop begins; asked a second time, its wait ends. By control's
 * thread. */
void control_stop(struct control *control, struct mono_time now);
/* All threads run: tells systemd (READY=1). */
void control_announce_ready(struct control *control);
