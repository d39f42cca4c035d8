/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dns_probe: asks the real resolver, over c-ares and the network, where the mail of names goes.
 *
 * dns_probe SERVERS TIMEOUT_MS TRIES QUERY_TIMEOUT_MS NAME..., where "host:NAME" asks for the
 * addresses of a host. One line a name, in the order given:
 * NAME OUTCOME TTL_S SITE PREFERENCE,HOST,ADDRESS..., "-" for what there is none of.
 *
 * The resolver runs in a thread of its own, as under boot.c; this thread is the worker.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include "dns/resolver.h"
#include "engine/base/list.h"

enum { NAMES_MAX = 256, TTL_MAX_S = 86400 };

static struct resolver resolver;
static _Atomic bool is_over;

static void *run_resolver(void *argument)
{
    struct actor *actor = argument;
    urcu_qsbr_register_thread();
    while (!atomic_load(&is_over)) {
        struct mono_time now = clock_mono(clock_system());
        struct mono_time next = actor->step(actor, now);
        urcu_qsbr_quiescent_state();
        if (mono_before(now, next) && waker_sleep(&actor->waker)) {
            urcu_qsbr_thread_offline();
            actor->wait(actor, now, next);
            urcu_qsbr_thread_online();
            waker_awake(&actor->waker);
        }
    }
    urcu_qsbr_unregister_thread();
    return NULL;
}

static void print_answer(const struct mx_query *query, struct mono_time now)
{
    char line[8192];
    struct writer writer = writer_of(line, sizeof(line));
    const struct mx_answer *answer;
    struct span name = span_of(query->name, query->name_size);
    writer_put(&writer, query->kind == MX_KIND_HOST ? SPAN("host:") : SPAN_NONE);
    writer_put(&writer, name);
    if (mx_cache_find_xcore(resolver.cache, query->kind, name, now, &answer) == MX_MISSING) {
        writer_put(&writer, SPAN(" missing"));
    } else {
        writer_put_format(&writer, " %s %lld ", mx_outcome_name(answer->outcome),
                          (long long)((answer->expires.ns - now.ns + NS_PER_S - 1) / NS_PER_S));
        writer_put(&writer, answer->site_name_size > 0
                                ? span_of(answer->site_name, answer->site_name_size)
                                : SPAN("-"));
        for (unsigned i = 0; i < answer->hosts_count; i++) {
            const struct mx_host *host = &answer->hosts[i];
            writer_put_format(&writer, " %u,", host->preference);
            writer_put(&writer, mx_host_name(answer, host));
            writer_put_byte(&writer, ',');
            net_addr_put(&writer, &host->addr);
        }
        writer_put(&writer, answer->hosts_count > 0 ? SPAN_NONE : SPAN(" -"));
    }
    ensure(!writer.is_full);
    (void)printf("%.*s\n", (int)writer_size(&writer), line);
}

static void await_answers(struct inbox *inbox, struct waker *waker, unsigned count)
{
    while (count > 0) {
        while (inbox_take(inbox) != NULL) {
            count--;
        }
        if (count > 0 && waker_sleep(waker)) {
            struct pollfd pollfd = {.fd = waker->event_fd, .events = POLLIN};
            urcu_qsbr_thread_offline();
            (void)poll(&pollfd, 1, -1);
            urcu_qsbr_thread_online();
            waker_awake(waker);
        }
    }
}

static void ask(struct inbox *inbox, struct waker *waker, struct mx_query *queries, char **names,
                unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct span name = span_of_text(names[i]);
        queries[i] = (struct mx_query){.reply_to = inbox, .kind = MX_KIND_MAIL};
        if (span_starts(name, SPAN("host:"))) {
            name = span_of(name.at + 5, name.size - 5);
            queries[i].kind = MX_KIND_HOST;
        }
        ensure(name.size <= MX_NAME_MAX);
        queries[i].name_size = (uint16_t)name.size;
        memcpy(queries[i].name, name.at, name.size);
        inbox_push_xcore(&resolver.queries, &queries[i].node);
    }
    await_answers(inbox, waker, count);
}

static int start(const char *servers, uint32_t timeout_ms, uint32_t tries,
                 uint32_t query_timeout_ms)
{
    int error = 0;
    struct dns_source *source =
        dns_ares_create(servers, timeout_ms, tries, &resolver.actor.waker, &error);
    if (source == NULL) {
        return error;
    }
    struct resolver_config config = {
        .source = source,
        .clock = clock_system(),
        .secret = 1,
        .answers_max = 1000,
        .questions_max = 100,
        .ttl_min_s = 1,
        .ttl_max_s = TTL_MAX_S,
        .negative_ttl_max_s = 3600,
        .temporary_ttl_s = 60,
        .stale_max_s = 3600,
        .timeout_ms = query_timeout_ms,
        .use_ip4 = true,
        .use_ip6 = true,
    };
    return resolver_init(&resolver, &config, true);
}

int main(int argc, char **argv)
{
    static struct mx_query queries[NAMES_MAX];
    struct waker waker;
    struct inbox inbox;
    pthread_t thread;
    if (argc < 6 || argc - 5 > NAMES_MAX) {
        (void)fprintf(stderr,
                      "usage: dns_probe SERVERS TIMEOUT_MS TRIES QUERY_TIMEOUT_MS NAME...\n");
        return 2;
    }
    unsigned count = (unsigned)argc - 5;
    int error = start(argv[1], (uint32_t)strtoul(argv[2], NULL, 10),
                      (uint32_t)strtoul(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10));
    if (error < 0 || waker_init(&waker, true) < 0) {
        (void)fprintf(stderr, "dns_probe: %s\n", strerror(-error));
        return 1;
    }
    inbox_init(&inbox, &waker);
    urcu_qsbr_register_thread();
    ensure(pthread_create(&thread, NULL, run_resolver, &resolver.actor) == 0);
    ask(&inbox, &waker, queries, argv + 5, count);
    struct mono_time now = clock_mono(clock_system());
    for (unsigned i = 0; i < count; i++) {
        print_answer(&queries[i], now);
    }
    atomic_store(&is_over, true);
    waker_signal_xcore(&resolver.actor.waker);
    urcu_qsbr_thread_offline();
    ensure(pthread_join(thread, NULL) == 0);
    urcu_qsbr_thread_online();
    resolver_deinit(&resolver);
    waker_deinit(&waker);
    urcu_qsbr_unregister_thread();
    return 0;
}
