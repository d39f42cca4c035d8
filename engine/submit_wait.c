/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/submit_wait.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/submit_show.h"
#include "engine/submit_why.h"

enum {
    LOOK_MS = 1000,   /* without any event */
    LOOK_MIN_MS = 20, /* between two looks, however many events come */
    SHOW_BAR_MS = 100,
    SHOW_LINE_MS = 1000,
    QUIET_MS = 5000, /* without any change: why is asked for, and as often again */
    COLUMNS_DEFAULT = 80,
    EVENTS_SIZE = 16 * 1024,
};

enum show { SHOW_BAR, SHOW_LINES, SHOW_JSON };

struct waiting {
    struct submit *submit;
    const struct submit_wait *wait;
    const struct clock *clock;
    enum show show;
    int inotify; /* -1: none */
    struct mono_time started;
    struct mono_time looked;
    struct mono_time shown;
    bool has_shown;
    bool was_unknown;
    struct submit_status status;
    uint64_t moved_sum; /* of what changes when it moves */
    struct mono_time why_at;
    char why[512];              /* nothing moves, or "" */
    char line[SUBMIT_SHOW_MAX]; /* the last that was shown */
};

static void watch(const struct waiting *waiting, const char *path, uint32_t events)
{
    char whole[4096];
    int size = snprintf(whole, sizeof(whole), "%s/%s", waiting->wait->root, path);
    if (waiting->inotify >= 0 && size > 0 && (size_t)size < sizeof(whole)) {
        (void)inotify_add_watch(waiting->inotify, whole, events | IN_ONLYDIR);
    }
}

static void waiting_init(struct waiting *waiting, struct submit *submit,
                         const struct submit_wait *wait)
{
    const struct clock *clock = clock_system();
    *waiting = (struct waiting){
        .submit = submit,
        .wait = wait,
        .clock = clock,
        .show = wait->is_json                ? SHOW_JSON
                : isatty(STDOUT_FILENO) != 0 ? SHOW_BAR
                                             : SHOW_LINES,
        .inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK),
        .started = clock_mono(clock),
    };
    watch(waiting, "in/new", IN_MOVED_FROM);
    watch(waiting, "active", IN_MOVED_TO | IN_MOVED_FROM);
    watch(waiting, "hold", IN_MOVED_TO | IN_MOVED_FROM);
}

static bool is_ours(const struct waiting *waiting, const struct inotify_event *event)
{
    if ((event->mask & IN_Q_OVERFLOW) != 0 || event->len == 0) {
        return true;
    }
    const char *id = waiting->wait->id;
    return strncmp(event->name, id, strlen(id)) == 0 || strcmp(event->name, "progress.json") == 0;
}

/* Empties the queue of events; true when one of them is about our batch. */
static bool events_take(const struct waiting *waiting)
{
    _Alignas(struct inotify_event) char events[EVENTS_SIZE];
    bool has_ours = false;
    for (;;) {
        ssize_t size = read(waiting->inotify, events, sizeof(events));
        if (size <= 0) {
            return has_ours;
        }
        for (ssize_t at = 0; at < size;) {
            const struct inotify_event *event = (const void *)(events + at);
            has_ours = has_ours || is_ours(waiting, event);
            at += (ssize_t)(sizeof(*event) + event->len);
        }
    }
}

static int64_t ms_until(struct mono_time now, struct mono_time then)
{
    return then.ns <= now.ns ? 0 : (then.ns - now.ns + NS_PER_MS - 1) / NS_PER_MS;
}

static void pause_until(const struct waiting *waiting, struct mono_time then)
{
    struct mono_time now = clock_mono(waiting->clock);
    (void)poll(NULL, 0, (int)ms_until(now, then));
}

static struct mono_time deadline(const struct waiting *waiting)
{
    uint64_t timeout_ms = waiting->wait->timeout_ms;
    return timeout_ms == 0 ? MONO_NEVER : mono_add_ms(waiting->started, (int64_t)timeout_ms);
}

/* Until something may have changed. */
static void sleep_some(struct waiting *waiting)
{
    struct mono_time until = mono_earlier(mono_add_ms(waiting->looked, LOOK_MS), deadline(waiting));
    struct pollfd poll_fd = {.fd = waiting->inotify, .events = POLLIN};
    for (;;) {
        struct mono_time now = clock_mono(waiting->clock);
        if (!mono_before(now, until)) {
            return;
        }
        int ready = poll(&poll_fd, 1, (int)ms_until(now, until));
        if (ready > 0 && events_take(waiting)) {
            pause_until(waiting, mono_earlier(mono_add_ms(waiting->looked, LOOK_MIN_MS), until));
            return;
        }
        if (ready < 0 && errno != EINTR) {
            pause_until(waiting, until);
        }
    }
}

static unsigned columns(void)
{
    struct winsize size;
    bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return is_known ? size.ws_col : COLUMNS_DEFAULT;
}

static void show(struct waiting *waiting, bool is_last)
{
    struct mono_time now = clock_mono(waiting->clock);
    int64_t pause_ms = waiting->show == SHOW_BAR ? SHOW_BAR_MS : SHOW_LINE_MS;
    if (!is_last && waiting->has_shown && mono_before(now, mono_add_ms(waiting->shown, pause_ms))) {
        return;
    }
    waiting->has_shown = true;
    waiting->shown = now;
    char text[SUBMIT_SHOW_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    const char *id = waiting->wait->id;
    switch (waiting->show) {
    case SHOW_JSON:
        submit_show_put_json(&writer, id, &waiting->status);
        break;
    case SHOW_BAR:
        writer_put_byte(&writer, '\r');
        if (!is_last) {
            submit_show_put_bar(&writer, id, &waiting->status, columns());
        }
        writer_put(&writer, SPAN("\033[K"));
        if (is_last) {
            submit_show_put_line(&writer, id, &waiting->status);
        }
        break;
    case SHOW_LINES: /* read in a log: nothing is said twice */
        submit_show_put_line(&writer, id, &waiting->status);
        if (!is_last && span_equal(writer_span(&writer), span_of_text(waiting->line))) {
            return;
        }
        (void)snprintf(waiting->line, sizeof(waiting->line), "%.*s", (int)writer_size(&writer),
                       writer.start);
        break;
    }
    (void)fwrite(writer.start, 1, writer_size(&writer), stdout);
    (void)fflush(stdout);
}

/* A batch that goes its way needs no words. */
static void ask_why(struct waiting *waiting)
{
    struct submit_status *status = &waiting->status;
    uint64_t sum = (uint64_t)status->state + status->delivered + status->bounced + status->expired +
                   status->cancelled;
    if (sum != waiting->moved_sum || submit_show_is_end(status->state)) {
        waiting->moved_sum = sum;
        waiting->why_at = mono_add_ms(waiting->looked, QUIET_MS);
        waiting->why[0] = '\0';
        return;
    }
    if (!mono_before(waiting->looked, waiting->why_at)) {
        waiting->why_at = mono_add_ms(waiting->looked, QUIET_MS);
        submit_why_find(waiting->wait->control_socket, status->state, waiting->why,
                        sizeof(waiting->why));
    }
    (void)snprintf(status->reason, sizeof(status->reason), "%s", waiting->why);
}

/* True when the batch's way has ended; *ret_exit is then the exit status. */
static bool look(struct waiting *waiting, int *ret_exit)
{
    struct submit_status *status = &waiting->status;
    enum submit_state before = status->state;
    waiting->looked = clock_mono(waiting->clock);
    int result = submit_status_read(waiting->submit, waiting->wait->id, status);
    if (result != 0) {
        (void)fprintf(
            stderr, "ramjet: %s: the batch %s was submitted, and cannot be watched: %s%s\n",
            waiting->wait->root, waiting->wait->id, strerror(-result),
            result == -EACCES ? ": may your group read active/, hold/, done/, failed/?" : "");
        *ret_exit = SUBMIT_EXIT_NOT_DONE;
        return true;
    }
    if (status->state == SUBMIT_ACTIVE && before != SUBMIT_ACTIVE) {
        watch(waiting, status->path, IN_MOVED_TO);
    }
    if (status->state == SUBMIT_UNKNOWN && waiting->was_unknown) {
        (void)snprintf(status->reason, sizeof(status->reason),
                       "it is not in the spool any more: see badmail/ for a reason");
        show(waiting, true);
        *ret_exit = SUBMIT_EXIT_FAILED;
        return true;
    }
    waiting->was_unknown = status->state == SUBMIT_UNKNOWN;
    bool is_end = submit_show_is_end(status->state);
    ask_why(waiting);
    show(waiting, is_end);
    if (is_end && waiting->show != SHOW_JSON) {
        (void)printf("%s: see %s/%s\n", waiting->wait->id, waiting->wait->root, status->path);
    }
    *ret_exit = submit_show_exit_status(status);
    return is_end;
}

int submit_wait_run(struct submit *submit, const struct submit_wait *wait)
{
    struct waiting waiting;
    int status = SUBMIT_EXIT_NOT_DONE;
    waiting_init(&waiting, submit, wait);
    while (!look(&waiting, &status)) {
        if (!mono_before(clock_mono(waiting.clock), deadline(&waiting))) {
            show(&waiting, true);
            (void)fprintf(stderr, "ramjet: %s: still under way when the time was up\n", wait->id);
            status = SUBMIT_EXIT_TIMEOUT;
            break;
        }
        sleep_some(&waiting);
    }
    if (waiting.inotify >= 0) {
        (void)close(waiting.inotify);
    }
    return status;
}
