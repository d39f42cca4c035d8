/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_thread.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "bench/record.h"
#include "bench/sink_blind.h"
#include "engine/base/list.h"
#include "engine/base/slab.h"
#include "engine/base/timer.h"
#include "net/net.h"

enum {
    BACKLOG = 4096,
    OUT_MAX = NET_SEND_SEGMENTS_MAX / 2 * NET_COPY_MAX,
    TIMERS_BUDGET = 256,
    TURN_MAX_MS = 50, /* how late a stop is seen */
};

struct sink_session {
    struct sink_thread *thread;
    struct net_conn_id conn;
    struct timer timer;
    struct list live;       /* in thread.live */
    struct list unrecorded; /* in thread.unrecorded: waits for the record to be written */
    bool is_fin;            /* the client says no more */
    bool is_closing;
    uint32_t held_size;
    union {
        struct sink_smtp smtp;
        struct sink_blind blind;
    };
    char held[SINK_HELD_MAX];
    struct record_draft draft; /* last: untouched without a record */
};

struct sink_thread {
    const struct sink_config *config;
    uint32_t index;
    struct net_addr listen;
    struct net_loop *net;
    struct timer_wheel wheel;
    struct slab sessions;
    struct list live;
    struct list unrecorded;
    struct record_book book;
    struct random random;
    struct mono_time now; /* start of this turn */
    struct sink_counts counts;
    uint64_t connections_count;
    uint64_t overruns_count;
    struct sink_totals totals;
    struct stat_counter stop; /* of whoever stops */
    pthread_t id;
    bool is_running;
    pthread_barrier_t listening; /* the result of listening is known */
    int listen_result;
    char out[OUT_MAX];
};

static bool session_is_holding(const struct sink_session *session)
{
    return timer_is_set(&session->timer) || list_is_linked(&session->unrecorded);
}

static void session_reset(struct sink_session *session)
{
    session->is_closing = true;
    (void)net_close(session->thread->net, session->conn, true);
}

static enum sink_end session_end(const struct sink_session *session)
{
    if (session->thread->config->is_blind) {
        return session->blind.is_over ? SINK_END_CLOSE : SINK_END_OPEN;
    }
    return sink_smtp_end(&session->smtp);
}

/* Sends copies: the bytes may be anywhere. */
static void session_send(struct sink_session *session, struct span bytes)
{
    struct net_segment segments[OUT_MAX / NET_COPY_MAX];
    size_t count = 0;
    ensure(bytes.size <= OUT_MAX);
    while (bytes.size > 0) {
        uint32_t size = bytes.size < NET_COPY_MAX ? (uint32_t)bytes.size : NET_COPY_MAX;
        segments[count++] = (struct net_segment){.at = bytes.at, .size = size, .is_copied = true};
        bytes.at += size;
        bytes.size -= size;
    }
    if (count > 0 && net_send(session->thread->net, session->conn, segments, count, 0) != 0) {
        session->thread->overruns_count++;
        session_reset(session);
    }
}

/* After all that was to be said is handed over. */
static void session_close_if_over(struct sink_session *session)
{
    enum sink_end end = session_end(session);
    if (session->is_closing || (end == SINK_END_OPEN && !session->is_fin)) {
        return;
    }
    session->is_closing = true;
    (void)net_close(session->thread->net, session->conn, end == SINK_END_RESET);
}

static void session_release(struct sink_session *session)
{
    session_send(session, span_of(session->held, session->held_size));
    session->held_size = 0;
    session_close_if_over(session);
}

static void on_timer(struct timer *timer, struct mono_time now)
{
    (void)now;
    session_release(CONTAINER_OF(timer, struct sink_session, timer));
}

static uint32_t session_take_delay_ms(struct sink_session *session)
{
    const struct sink_config *config = session->thread->config;
    uint32_t delay_ms = 0;
    if (!config->is_blind) {
        delay_ms = session->smtp.delay_ms;
        session->smtp.delay_ms = 0;
    }
    return delay_ms > config->latency_ms ? delay_ms : config->latency_ms;
}

/* One group of replies: at once, or held. The delay counts from the turn's start, when the bytes
 * had come, so that many sessions in one turn do not wait for each other's work on top. A group
 * that joins a held one is never said too early: the whole waits for the later. */
static void session_say(struct sink_session *session, struct span group)
{
    struct sink_thread *thread = session->thread;
    uint32_t delay_ms = session_take_delay_ms(session);
    if (delay_ms == 0 && !session_is_holding(session)) {
        session_send(session, group);
        session_close_if_over(session);
        return;
    }
    if (session->held_size + group.size > sizeof(session->held)) {
        thread->overruns_count++;
        session_reset(session);
        return;
    }
    memcpy(session->held + session->held_size, group.at, group.size);
    session->held_size += (uint32_t)group.size;
    if (delay_ms > 0) {
        list_remove(&session->unrecorded);
        timer_set(&thread->wheel, &session->timer, mono_add_ms(thread->now, delay_ms));
    }
}

static size_t session_take(struct sink_session *session, struct span in, struct writer *out)
{
    if (session->thread->config->is_blind) {
        sink_blind_take(&session->blind, in, &session->thread->counts, out);
        return in.size;
    }
    return sink_smtp_take(&session->smtp, in, out);
}

static void on_rx(struct sink_session *session, struct span in)
{
    struct sink_thread *thread = session->thread;
    while (in.size > 0 && !session->is_closing) {
        struct writer out = writer_of(thread->out, sizeof(thread->out));
        size_t size = session_take(session, in, &out);
        in.at += size;
        in.size -= size;
        if (writer_size(&out) > 0 || session_end(session) != SINK_END_OPEN) {
            session_say(session, writer_span(&out));
        }
    }
}

static void record_write(struct sink_thread *thread)
{
    int result = record_book_write(&thread->book);
    if (result != 0) {
        program_die("the record cannot be written: %s", strerror(-result));
    }
}

static void hook_mail(void *context, struct span sender)
{
    struct sink_session *session = context;
    record_draft_mail(&session->draft, sender);
}

static void hook_rcpt(void *context, struct span recipient)
{
    struct sink_session *session = context;
    record_draft_rcpt(&session->draft, recipient);
}

static void hook_body(void *context, struct span piece)
{
    struct sink_session *session = context;
    record_draft_body(&session->draft, piece);
}

static void hook_message(void *context, uint64_t size)
{
    struct sink_session *session = context;
    struct sink_thread *thread = session->thread;
    struct mono_time now = clock_mono(clock_system());
    if (!record_book_add(&thread->book, &session->draft, size, now)) {
        record_write(thread);
        ensure(record_book_add(&thread->book, &session->draft, size, now));
    }
    if (!session_is_holding(session)) {
        list_add_last(&thread->unrecorded, &session->unrecorded);
    }
}

static uint32_t hook_attempt(void *context, struct span address)
{
    struct sink_session *session = context;
    return sink_attempts_count_xcore(session->thread->config->attempts, address);
}

static const struct sink_hooks HOOKS_RECORD = {
    .on_mail = hook_mail,
    .on_rcpt = hook_rcpt,
    .on_body = hook_body,
    .on_message = hook_message,
    .on_attempt = hook_attempt,
};
static const struct sink_hooks HOOKS_PLAIN = {.on_attempt = hook_attempt};

static void on_accepted(struct sink_thread *thread, struct net_conn_id conn)
{
    struct sink_session *session = slab_take(&thread->sessions);
    bool is_recording = thread->config->record_fd >= 0;
    ensure(session); /* as many as the net loop has connections */
    session->thread = thread;
    session->conn = conn;
    session->is_fin = false;
    session->is_closing = false;
    session->held_size = 0;
    timer_init(&session->timer, on_timer);
    list_add_last(&thread->live, &session->live);
    list_init(&session->unrecorded);
    if (is_recording) {
        record_draft_init(&session->draft);
    }
    ensure(net_set_user(thread->net, conn, session) == 0);
    thread->connections_count++;
    if (thread->config->is_blind) {
        sink_blind_init(&session->blind);
        session_say(session, SPAN("220 sink ESMTP ready\r\n"));
        return;
    }
    struct writer out = writer_of(thread->out, sizeof(thread->out));
    sink_smtp_init(&session->smtp, &thread->config->policy,
                   is_recording ? &HOOKS_RECORD : &HOOKS_PLAIN, session, &thread->random,
                   &thread->counts);
    sink_smtp_open(&session->smtp, &out);
    session_say(session, writer_span(&out));
}

static void session_give(struct sink_session *session)
{
    struct sink_thread *thread = session->thread;
    timer_cancel(&thread->wheel, &session->timer);
    list_remove(&session->live);
    list_remove(&session->unrecorded);
    if (thread->config->record_fd >= 0) {
        record_draft_deinit(&session->draft);
    }
    slab_give(&thread->sessions, session);
}

static void on_event(void *context, const struct net_event *event)
{
    struct sink_thread *thread = context;
    struct sink_session *session = event->user;
    switch (event->kind) {
    case NET_ACCEPTED:
        on_accepted(thread, event->conn);
        return;
    case NET_RX:
        on_rx(session, event->rx);
        return;
    case NET_PEER_FIN:
        session->is_fin = true;
        if (!session_is_holding(session)) {
            session_close_if_over(session);
        }
        return;
    case NET_CLOSED:
        session_give(session);
        return;
    case NET_TXDONE:
        return;
    case NET_CONNECTED:
        break;
    }
    ensure(false);
}

/* All that was accepted in this turn is written, then acknowledged. */
static void record_flush(struct sink_thread *thread)
{
    if (thread->config->record_fd < 0 || record_book_is_empty(&thread->book)) {
        return;
    }
    record_write(thread);
    struct list *node;
    while ((node = list_take_first(&thread->unrecorded)) != NULL) {
        session_release(CONTAINER_OF(node, struct sink_session, unrecorded));
    }
}

static void totals_publish(struct sink_thread *thread, struct mono_time now)
{
    struct sink_totals *totals = &thread->totals;
    const struct sink_counts *counts = &thread->counts;
    if (counts->messages != stat_read_xcore(&totals->messages)) {
        if (stat_read_xcore(&totals->first_ns) == 0) {
            stat_set(&totals->first_ns, (uint64_t)now.ns);
        }
        stat_set(&totals->last_ns, (uint64_t)now.ns);
        stat_set(&totals->messages, counts->messages);
        stat_set(&totals->recipients, counts->recipients);
        stat_set(&totals->bytes, counts->bytes);
    }
    stat_set(&totals->refused, counts->refused);
    stat_set(&totals->bad, counts->bad);
    stat_set(&totals->connections, thread->connections_count);
    stat_set(&totals->open, thread->sessions.count_out);
    stat_set(&totals->open_peak, thread->sessions.count_out_peak);
    stat_set(&totals->overruns, thread->overruns_count);
}

static void thread_run(struct sink_thread *thread)
{
    const struct clock *clock = clock_system();
    int turns_left = 4; /* after a stop: what was said last still goes out */
    while (turns_left > 0) {
        struct mono_time now = clock_mono(clock);
        thread->now = now;
        bool has_more = timer_wheel_expire(&thread->wheel, now, TIMERS_BUDGET) == TIMERS_BUDGET;
        struct mono_time next = net_run_once(thread->net, now);
        record_flush(thread);
        totals_publish(thread, now);
        turns_left -= stat_read_xcore(&thread->stop) > 0 ? 1 : 0;
        if (!has_more && mono_before(now, next)) {
            next = mono_earlier(next, timer_wheel_next(&thread->wheel));
            uint32_t turn_max_ms = stat_read_xcore(&thread->stop) > 0 ? 1 : TURN_MAX_MS;
            net_wait(thread->net, now, mono_earlier(next, mono_add_ms(now, turn_max_ms)));
        }
    }
}

static void *thread_main(void *context)
{
    struct sink_thread *thread = context;
    program_pin(&thread->config->cores, thread->index);
    timer_wheel_init(&thread->wheel, clock_mono(clock_system()));
    thread->listen_result =
        net_listen(thread->net, &thread->listen, BACKLOG, NULL, &thread->listen);
    bool is_listening = thread->listen_result == 0;
    (void)pthread_barrier_wait(&thread->listening);
    if (is_listening) {
        thread_run(thread);
    }
    return NULL;
}

static int thread_init(struct sink_thread *thread)
{
    const struct sink_config *config = thread->config;
    int result = slab_init(&thread->sessions, "sink sessions", sizeof(struct sink_session),
                           config->conns_max);
    if (result != 0) {
        return result;
    }
    if (config->record_fd >= 0) {
        result = record_book_init(&thread->book, config->record_fd, config->is_record_sync);
        if (result != 0) {
            return result;
        }
    }
    struct net_config net_config = {
        .conns_max = config->conns_max,
        .clock = clock_system(),
        .on_event = on_event,
        .context = thread,
    };
    thread->net = net_uring_create(&net_config, &result);
    return thread->net ? 0 : result;
}

int sink_thread_create(const struct sink_config *config, uint32_t index,
                       const struct net_addr *listen, struct sink_thread **ret_thread)
{
    struct sink_thread *thread = calloc(1, sizeof(*thread));
    if (!thread) {
        return -ENOMEM;
    }
    thread->config = config;
    thread->index = index;
    thread->listen = *listen;
    list_init(&thread->live);
    list_init(&thread->unrecorded);
    random_init_seed(&thread->random, config->seed + index);
    ensure(pthread_barrier_init(&thread->listening, NULL, 2) == 0);
    int result = thread_init(thread);
    if (result != 0) {
        sink_thread_destroy(thread);
        return result;
    }
    *ret_thread = thread;
    return 0;
}

int sink_thread_start(struct sink_thread *thread, struct net_addr *ret_bound)
{
    int result = pthread_create(&thread->id, NULL, thread_main, thread);
    if (result != 0) {
        return -result;
    }
    thread->is_running = true;
    (void)pthread_barrier_wait(&thread->listening);
    if (thread->listen_result == 0) {
        *ret_bound = thread->listen;
    }
    return thread->listen_result;
}

void sink_thread_stop_xcore(struct sink_thread *thread)
{
    stat_set(&thread->stop, 1);
}

void sink_thread_destroy(struct sink_thread *thread)
{
    if (!thread) {
        return;
    }
    if (thread->is_running) {
        sink_thread_stop_xcore(thread);
        ensure(pthread_join(thread->id, NULL) == 0);
    }
    net_loop_destroy(thread->net);
    /* The loop dropped connections that were still open without a word. */
    while (!list_is_empty(&thread->live)) {
        session_give(CONTAINER_OF(thread->live.next, struct sink_session, live));
    }
    slab_deinit(&thread->sessions);
    record_book_deinit(&thread->book);
    ensure(pthread_barrier_destroy(&thread->listening) == 0);
    free(thread);
}

const struct sink_totals *sink_thread_totals(const struct sink_thread *thread)
{
    return &thread->totals;
}
