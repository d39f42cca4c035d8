/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/control.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "engine/control_http.h"
#include "engine/intake.h"
#include "engine/metrics.h"
#include "engine/trouble.h"
#include "queue/journal.h"

/* Sites that are looked at in a second: half of 2^20 take some 50 ms. */
enum { RECLAIM_SITES = 1 << 19 };
enum { TICK_MS = 1000, ANSWER_SIZE_MAX = 1 << 20, STATUS_TEXT_MAX = 160, WORDS_MAX = 8192 };

struct control_core {
    struct engine *engine;
    struct control_http on_socket;
    struct control_http on_tcp;
    int signal_fd;
    bool has_sockets;
    struct mono_time tick_at;
    struct mono_time drain_until;
    struct metrics_state metrics;
    struct trouble trouble;
    struct worker_report *reports; /* one a worker: the worker's while it is away */
    struct worker_report *shown;   /* as they came home last */
    bool *is_report_away;
    struct intake_words words; /* of intake while they are away */
    bool is_words_away;
    char *answer;
};

/* What is asked over HTTP. */

static struct control_reply answer(void *context, struct span method, struct span url)
{
    struct control *control = context;
    struct control_core *core = control->core;
    if (!span_equal(method, SPAN("GET"))) {
        return (struct control_reply){405, "text/plain", SPAN("GET only\n")};
    }
    struct writer writer = writer_of(core->answer, ANSWER_SIZE_MAX);
    if (span_equal(url, SPAN("/metrics"))) {
        metrics_put_text(&writer, core->engine, &core->metrics);
        return (struct control_reply){200, "text/plain; version=0.0.4", writer_span(&writer)};
    }
    if (span_equal(url, SPAN("/v1/status"))) {
        metrics_put_status(&writer, core->engine, &core->metrics, core->shown);
        return (struct control_reply){200, "application/json", writer_span(&writer)};
    }
    if (span_equal(url, SPAN("/healthz"))) {
        bool is_well = control->phase == CONTROL_RUNNING;
        return is_well ? (struct control_reply){200, "text/plain", SPAN("running\n")}
                       : (struct control_reply){503, "text/plain", SPAN("stopping\n")};
    }
    return (struct control_reply){404, "text/plain",
                                  SPAN("known are /v1/status, /metrics, /healthz\n")};
}

/* The port of metrics has no permissions: who reaches it is told numbers, no names of batches and
 * sites. */
static struct control_reply answer_metrics(void *context, struct span method, struct span url)
{
    bool is_status = span_equal(method, SPAN("GET")) && span_equal(url, SPAN("/v1/status"));
    return is_status ? (struct control_reply){403, "text/plain",
                                              SPAN("/v1/status is on the control socket only\n")}
                     : answer(context, method, url);
}

static int refuse(struct writer *errors, const char *what, const char *which, int error)
{
    writer_put_format(errors, "control: %s %s: %s\n", what, which, strerror(error));
    return -error;
}

static int open_http(struct control_core *core, struct writer *ret_errors)
{
    const struct config *config = core->engine->config;
    int result = control_http_open_path(&core->on_socket, config->control_socket, ret_errors);
    if (result == 0 && config->metrics_listen.family != NET_NONE) {
        result = control_http_open_addr(&core->on_tcp, &config->metrics_listen, ret_errors);
    }
    return result;
}

static int open_signals(struct control *control, struct writer *ret_errors)
{
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigaddset(&signals, SIGUSR1);
    control->core->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return control->core->signal_fd >= 0 ? 0 : refuse(ret_errors, "signals", "", errno);
}

/* The stop. */

static void wake_all(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->workers_count; i++) {
        waker_signal_xcore(&engine->workers[i]->actor.waker);
    }
    waker_signal_xcore(&engine->intake->actor.waker);
    waker_signal_xcore(&engine->journal->actor.waker);
}

void control_stop(struct control *control, struct mono_time now)
{
    struct engine *engine = control->core->engine;
    if (control->phase != CONTROL_RUNNING) {
        control->phase = CONTROL_STOPPED; /* asked twice: no more waiting */
        return;
    }
    control->phase = CONTROL_DRAINING;
    control->core->drain_until = mono_add_ms(now, engine->config->drain_timeout_ms);
    stat_set(&engine->is_draining, 1);
    wake_all(engine);
    if (control->core->has_sockets) {
        (void)sd_notify(0, "STOPPING=1\nSTATUS=waiting for messages whose end was sent");
    }
}

static void watch_drain(struct control *control, struct mono_time now)
{
    struct engine *engine = control->core->engine;
    bool is_drained = journal_is_idle(engine->journal);
    for (uint32_t i = 0; i < engine->workers_count; i++) {
        is_drained = is_drained && worker_is_drained(engine->workers[i]);
    }
    if (is_drained || !mono_before(now, control->core->drain_until)) {
        control->is_drained = is_drained;
        control->phase = CONTROL_STOPPED;
    }
}

static void say(struct writer *words)
{
    (void)fwrite(words->start, 1, writer_size(words), stderr);
}

static void watch_failure(struct control *control)
{
    struct engine *engine = control->core->engine;
    bool has_failed = stat_read_xcore(&engine->journal->stats.has_failed) != 0;
    if ((has_failed || stat_read_xcore(&engine->must_stop) != 0) &&
        control->phase != CONTROL_STOPPED) {
        if (control->core->has_sockets) {
            char text[WORDS_MAX];
            struct writer words = writer_of(text, sizeof(text));
            trouble_put_stop(&words, engine);
            say(&words);
        }
        control->exit_status = 1;
        control->phase = CONTROL_STOPPED;
    }
}

static void take_signals(struct control *control, struct mono_time now)
{
    struct signalfd_siginfo info;
    while (read(control->core->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        switch (info.ssi_signo) {
        case SIGTERM:
        case SIGINT:
            control_stop(control, now);
            break;
        case SIGUSR1:
            stat_add(&control->core->engine->journal->rotations_asked, 1);
            waker_signal_xcore(&control->core->engine->journal->actor.waker);
            break;
        default: /* a signal number, not an enum of ours */
            (void)fprintf(stderr, "ramjet: SIGHUP: a changed configuration needs a restart\n");
            break;
        }
    }
}

/* The actor. */

static void take_reports(struct control *control)
{
    struct control_core *core = control->core;
    struct inbox_node *node;
    while ((node = inbox_take(&control->reports)) != NULL) {
        struct worker_report *report = CONTAINER_OF(node, struct worker_report, node);
        size_t index = (size_t)(report - core->reports);
        ensure(core->is_report_away[index]);
        core->is_report_away[index] = false;
        core->shown[index] = *report;
    }
}

/* A report that has come back was filled in a step that began behind its asking: when all of the
 * last look are here, every worker has ended the step it was in then. */
static bool are_reports_home(const struct control_core *core)
{
    for (uint32_t i = 0; i < core->engine->workers_count; i++) {
        if (core->is_report_away[i]) {
            return false;
        }
    }
    return true;
}

static void take_words(struct control *control)
{
    struct control_core *core = control->core;
    if (inbox_take(&control->words) != NULL) {
        (void)fwrite(core->words.text, 1, core->words.size, stderr);
        core->is_words_away = false;
    }
}

/* Not before the next tick again: a bound on what is told in a second. */
static void lend_words(struct control *control)
{
    struct control_core *core = control->core;
    if (!core->is_words_away) {
        core->is_words_away = true;
        core->words.reply_to = &control->words;
        inbox_push_xcore(&core->engine->intake->words, &core->words.node);
    }
}

static void tick(struct control *control, struct mono_time now)
{
    struct control_core *core = control->core;
    struct engine *engine = core->engine;
    metrics_sample(&core->metrics, engine, now);
    if (are_reports_home(core)) {
        site_table_reclaim(engine->sites, RECLAIM_SITES, now);
    }
    for (uint32_t i = 0; i < engine->workers_count; i++) {
        if (!core->is_report_away[i]) {
            core->is_report_away[i] = true;
            core->reports[i].reply_to = &control->reports;
            inbox_push_xcore(&engine->workers[i]->reports, &core->reports[i].node);
        }
    }
    if (core->has_sockets) {
        char status[STATUS_TEXT_MAX];
        struct writer writer = writer_of(status, sizeof(status) - 1);
        metrics_put_line(&writer, &core->metrics);
        *writer.at = '\0';
        (void)sd_notifyf(0, "WATCHDOG=1\nSTATUS=%s", status);
        char text[WORDS_MAX];
        struct writer words = writer_of(text, sizeof(text));
        trouble_put_news(&core->trouble, &words, engine, now);
        say(&words);
        lend_words(control);
    }
}

static struct mono_time control_step(struct actor *actor, struct mono_time now)
{
    struct control *control = (struct control *)actor;
    struct control_core *core = control->core;
    if (core->has_sockets) {
        take_signals(control, now);
        control_http_run(&core->on_socket);
        control_http_run(&core->on_tcp);
    }
    take_reports(control);
    take_words(control);
    watch_failure(control);
    if (!mono_before(now, core->tick_at)) {
        core->tick_at = mono_add_ms(now, TICK_MS);
        tick(control, now);
    }
    if (control->phase == CONTROL_DRAINING) {
        watch_drain(control, now);
        return mono_earlier(core->tick_at, mono_add_ms(now, 10));
    }
    return control->phase == CONTROL_STOPPED ? now : core->tick_at;
}

static void control_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct control *control = (struct control *)actor;
    struct control_core *core = control->core;
    struct pollfd fds[] = {
        {.fd = actor->waker.event_fd, .events = POLLIN},
        {.fd = core->signal_fd, .events = POLLIN},
        {.fd = control_http_fd(&core->on_socket), .events = POLLIN},
        {.fd = control_http_fd(&core->on_tcp), .events = POLLIN},
    };
    int64_t ms = (deadline.ns - now.ns + NS_PER_MS - 1) / NS_PER_MS;
    (void)poll(fds, COUNT_OF(fds), ms > TICK_MS ? TICK_MS : (int)ms);
}

int control_init(struct control *control, struct engine *engine, bool with_sockets,
                 struct writer *ret_errors)
{
    memset(control, 0, sizeof(*control));
    control->actor = (struct actor){.name = "control", .step = control_step, .wait = control_wait};
    int result = waker_init(&control->actor.waker, with_sockets);
    if (result != 0) {
        return refuse(ret_errors, "waker", "", -result);
    }
    inbox_init(&control->reports, &control->actor.waker);
    inbox_init(&control->words, &control->actor.waker);
    struct control_core *core = calloc(1, sizeof(*core));
    control->core = core;
    if (core == NULL) {
        waker_deinit(&control->actor.waker);
        return refuse(ret_errors, "memory", "", ENOMEM);
    }
    core->engine = engine;
    core->signal_fd = -1;
    core->has_sockets = with_sockets;
    control_http_init(&core->on_socket, answer, control);
    control_http_init(&core->on_tcp, answer_metrics, control);
    core->answer = malloc(ANSWER_SIZE_MAX);
    core->reports = calloc(engine->workers_count, sizeof(*core->reports));
    core->shown = calloc(engine->workers_count, sizeof(*core->shown));
    core->is_report_away = calloc(engine->workers_count, sizeof(*core->is_report_away));
    if (core->answer == NULL || core->reports == NULL || core->shown == NULL ||
        core->is_report_away == NULL) {
        control_deinit(control);
        return refuse(ret_errors, "memory", "", ENOMEM);
    }
    if (with_sockets) {
        result = open_signals(control, ret_errors);
        result = result == 0 ? open_http(core, ret_errors) : result;
    }
    if (result != 0) {
        control_deinit(control);
    }
    return result;
}

void control_announce_ready(struct control *control)
{
    if (control->core->has_sockets) {
        (void)sd_notify(0, "READY=1");
    }
}

void control_deinit(struct control *control)
{
    if (control == NULL || control->core == NULL) {
        return;
    }
    struct control_core *core = control->core;
    control_http_close(&core->on_socket);
    control_http_close(&core->on_tcp);
    if (core->signal_fd >= 0) {
        (void)close(core->signal_fd);
    }
    free(core->answer);
    free(core->reports);
    free(core->shown);
    free(core->is_report_away);
    free(core);
    control->core = NULL;
    waker_deinit(&control->actor.waker);
}
