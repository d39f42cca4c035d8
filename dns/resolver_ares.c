/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/dns_source.h"

#include <ares.h>
#include <arpa/nameser.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "engine/base/ensure.h"

/*
 * c-ares tells which descriptors it has (on_socket), an epoll set watches them together with the
 * waker, and ares_process_fd does the work. c-ares calls back from within ares_query too, when a
 * question cannot be sent; on_answer may be called from within `step` only, so such questions wait
 * in `failed` for the next one.
 *
 * c-ares reads its own clock; its timeouts are taken as durations from now, plus a millisecond
 * because it rounds down.
 */

enum { EVENTS_A_STEP = 64, EDNS_SIZE = 1232 };

/* Answers to all questions in flight come in through one socket per server. */
enum { RECEIVE_BUFFER_SIZE = 1 << 20 };

struct ares_source {
    struct dns_source source; /* first */
    ares_channel channel;
    struct waker *waker;
    int epoll_fd;
    bool is_waker_watched;
    bool is_in_step;
    bool is_ending;
    struct dns_question *failed;
    struct dns_question **failed_end;
};

static void on_socket(void *context, ares_socket_t fd, int is_readable, int is_writable)
{
    struct ares_source *self = context;
    struct epoll_event event = {
        .events = (is_readable ? EPOLLIN : 0u) | (is_writable ? EPOLLOUT : 0u),
        .data.fd = fd,
    };
    if (event.events == 0) {
        (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
        return;
    }
    if (epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
        epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        odd(dns_socket_not_watched); /* its questions end by timeout */
    }
}

static enum dns_status status_of(int ares_status)
{
    switch (ares_status) {
    case ARES_SUCCESS:
        return DNS_OK;
    case ARES_ENOTFOUND:
        return DNS_NO_NAME;
    case ARES_ENODATA:
        return DNS_NO_DATA;
    case ARES_ETIMEOUT:
        return DNS_TIMED_OUT;
    default:
        return DNS_FAILED;
    }
}

static void on_reply(void *context, int ares_status, int timeouts_count, unsigned char *message,
                     int message_size)
{
    struct dns_question *question = context;
    struct ares_source *self = (struct ares_source *)question->source;
    (void)timeouts_count;
    if (self->is_ending) {
        return;
    }
    enum dns_status status = status_of(ares_status);
    if (!self->is_in_step) {
        ensure(message == NULL);
        question->source_data = status;
        question->next = NULL;
        *self->failed_end = question;
        self->failed_end = &question->next;
        return;
    }
    bool has_message = message != NULL && message_size > 0 &&
                       (status == DNS_OK || status == DNS_NO_NAME || status == DNS_NO_DATA);
    question->on_answer(question, status,
                        has_message ? span_of(message, (size_t)message_size) : SPAN_NONE);
}

static void ares_ask(struct dns_source *source, struct dns_question *question)
{
    struct ares_source *self = (struct ares_source *)source;
    ensure(!self->is_in_step);
    question->source = source;
    ares_query(self->channel, question->name, ns_c_in, (int)question->type, on_reply, question);
}

static void answer_failed(struct ares_source *self)
{
    struct dns_question *question = self->failed;
    self->failed = NULL;
    self->failed_end = &self->failed;
    while (question != NULL) {
        struct dns_question *next = question->next;
        question->on_answer(question, (enum dns_status)question->source_data, SPAN_NONE);
        question = next;
    }
}

static struct mono_time ares_step(struct dns_source *source, struct mono_time now)
{
    struct ares_source *self = (struct ares_source *)source;
    struct epoll_event events[EVENTS_A_STEP];
    self->is_in_step = true;
    answer_failed(self);
    int count = epoll_wait(self->epoll_fd, events, EVENTS_A_STEP, 0);
    for (int i = 0; i < count; i++) {
        int fd = events[i].data.fd;
        if (self->waker != NULL && fd == self->waker->event_fd) {
            continue;
        }
        unsigned flags = events[i].events;
        ares_process_fd(self->channel, flags & ~(unsigned)EPOLLOUT ? fd : ARES_SOCKET_BAD,
                        flags & ~(unsigned)EPOLLIN ? fd : ARES_SOCKET_BAD);
    }
    ares_process_fd(self->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    self->is_in_step = false;
    if (count == EVENTS_A_STEP || self->failed != NULL) {
        return now;
    }
    struct timeval left;
    if (ares_timeout(self->channel, NULL, &left) == NULL) {
        return MONO_NEVER;
    }
    return mono_add_ns(now, left.tv_sec * NS_PER_S + left.tv_usec * NS_PER_US + NS_PER_MS);
}

/* The waker's descriptor is not known yet when the source is made. */
static void watch_waker(struct ares_source *self)
{
    if (self->is_waker_watched || self->waker == NULL || self->waker->event_fd < 0) {
        return;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = self->waker->event_fd};
    ensure(epoll_ctl(self->epoll_fd, EPOLL_CTL_ADD, self->waker->event_fd, &event) == 0);
    self->is_waker_watched = true;
}

static void ares_wait(struct dns_source *source, struct mono_time now, struct mono_time deadline)
{
    struct ares_source *self = (struct ares_source *)source;
    struct epoll_event event;
    watch_waker(self);
    int timeout_ms = -1;
    if (deadline.ns != MONO_NEVER.ns) {
        int64_t left_ms = (deadline.ns - now.ns + NS_PER_MS - 1) / NS_PER_MS;
        timeout_ms = left_ms < 0 ? 0 : left_ms > INT32_MAX ? INT32_MAX : (int)left_ms;
    }
    (void)epoll_wait(self->epoll_fd, &event, 1, timeout_ms); /* a signal is as good as an event */
}

static void ares_source_destroy(struct dns_source *source)
{
    struct ares_source *self = (struct ares_source *)source;
    if (self == NULL) {
        return;
    }
    self->is_ending = true;
    if (self->channel != NULL) {
        ares_destroy(self->channel);
    }
    if (self->epoll_fd >= 0) {
        (void)close(self->epoll_fd);
    }
    ares_library_cleanup();
    free(self);
}

static int error_of(int ares_status)
{
    switch (ares_status) {
    case ARES_ENOMEM:
        return -ENOMEM;
    case ARES_EFILE:
        return -EACCES;
    default:
        return -EINVAL;
    }
}

static int channel_init(struct ares_source *self, const char *servers, uint32_t timeout_ms,
                        uint32_t tries)
{
    struct ares_options options = {
        .flags = ARES_FLAG_NOSEARCH | ARES_FLAG_NOALIASES | ARES_FLAG_EDNS,
        .timeout = (int)timeout_ms,
        .tries = (int)tries,
        .ednspsz = EDNS_SIZE,
        .socket_receive_buffer_size = RECEIVE_BUFFER_SIZE,
        .sock_state_cb = on_socket,
        .sock_state_cb_data = self,
    };
    int mask = ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_EDNSPSZ |
               ARES_OPT_SOCK_RCVBUF | ARES_OPT_SOCK_STATE_CB;
    int status = ares_init_options(&self->channel, &options, mask);
    if (status == ARES_SUCCESS && servers != NULL) {
        status = ares_set_servers_ports_csv(self->channel, servers);
    }
    return status == ARES_SUCCESS ? 0 : error_of(status);
}

struct dns_source *dns_ares_create(const char *servers, uint32_t timeout_ms, uint32_t tries,
                                   struct waker *waker, int *ret_error)
{
    ensure(timeout_ms > 0);
    ensure(tries > 0);
    int status = ares_library_init(ARES_LIB_INIT_ALL);
    if (status != ARES_SUCCESS) {
        *ret_error = error_of(status);
        return NULL;
    }
    struct ares_source *self = calloc(1, sizeof(*self));
    if (self == NULL) {
        ares_library_cleanup();
        *ret_error = -ENOMEM;
        return NULL;
    }
    self->source = (struct dns_source){
        .ask = ares_ask, .step = ares_step, .wait = ares_wait, .destroy = ares_source_destroy};
    self->waker = waker;
    self->failed_end = &self->failed;
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int error = self->epoll_fd < 0 ? -errno : channel_init(self, servers, timeout_ms, tries);
    if (error < 0) {
        ares_source_destroy(&self->source);
        *ret_error = error;
        return NULL;
    }
    return &self->source;
}
