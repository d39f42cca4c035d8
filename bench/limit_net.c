/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "bench/limit_load.h"
#include "net/net.h"

/* What a connection waits for. */
enum net_wait { WAIT_GREETING, WAIT_HELLO, WAIT_START, WAIT_ENVELOPE, WAIT_MESSAGE, WAIT_END };

struct limit_conn {
    struct net_conn_id id;
    enum net_wait wait;
    uint32_t lines_left;
    bool is_mid_line; /* what came last did not end a line */
};

struct limit_net {
    struct limit_part *part;
    struct net_loop *net;
    struct limit_conn *conns;
    uint64_t ready_count;
    uint64_t sent_count;
    uint64_t taken_count;
};

static void conn_send(struct limit_net *limit, struct limit_conn *conn, struct span bytes,
                      enum net_wait wait, uint32_t lines)
{
    struct net_segment segment = {.at = bytes.at, .size = (uint32_t)bytes.size};
    conn->wait = wait;
    conn->lines_left = lines;
    if (net_send(limit->net, conn->id, &segment, 1, 0) != 0) {
        limit->part->error = "a send was not taken";
    }
}

static void conn_send_envelope(struct limit_net *limit, struct limit_conn *conn)
{
    const struct limit_load *load = &limit->part->config->load;
    if (limit->sent_count == limit->part->messages_count) {
        conn->wait = WAIT_END;
        return;
    }
    limit->sent_count++;
    conn_send(limit, conn, load->envelope, WAIT_ENVELOPE, 3);
}

static void conn_step(struct limit_net *limit, struct limit_conn *conn)
{
    const struct limit_load *load = &limit->part->config->load;
    switch (conn->wait) {
    case WAIT_GREETING:
        conn_send(limit, conn, load->hello, WAIT_HELLO, 1);
        return;
    case WAIT_HELLO:
        conn->wait = WAIT_START;
        limit->ready_count++;
        return;
    case WAIT_ENVELOPE:
        conn_send(limit, conn, load->message, WAIT_MESSAGE, 1);
        return;
    case WAIT_MESSAGE:
        limit->taken_count++;
        conn_send_envelope(limit, conn);
        return;
    case WAIT_START:
    case WAIT_END:
        limit->part->error = "the server said more than was asked";
        return;
    }
    ensure(false);
}

/* Replies are only counted, but a line that begins with 4 or 5 ends the run. */
static bool has_refusal(struct limit_conn *conn, struct span rx)
{
    bool is_refused = false;
    for (size_t i = 0; i < rx.size && !is_refused; i++) {
        is_refused = !conn->is_mid_line && (rx.at[i] == '4' || rx.at[i] == '5');
        conn->is_mid_line = rx.at[i] != '\n';
    }
    return is_refused;
}

static void on_event(void *context, const struct net_event *event)
{
    struct limit_net *limit = context;
    struct limit_conn *conn = event->user;
    switch (event->kind) {
    case NET_CONNECTED:
    case NET_TXDONE:
        return;
    case NET_RX: {
        if (has_refusal(conn, event->rx)) {
            limit->part->error = "the server refused";
            return;
        }
        uint32_t lines = limit_lines_count(event->rx);
        if (lines > conn->lines_left) {
            limit->part->error = "the server said more than was asked";
            return;
        }
        conn->lines_left -= lines;
        if (lines > 0 && conn->lines_left == 0) {
            conn_step(limit, conn);
        }
        return;
    }
    case NET_PEER_FIN:
    case NET_CLOSED:
        limit->part->error = "a connection was lost";
        return;
    case NET_ACCEPTED:
        break;
    }
    ensure(false);
}

/* Turns the loop until `*count` has reached `goal`, an error or the deadline. */
static void turn_until(struct limit_net *limit, const uint64_t *count, uint64_t goal)
{
    const struct clock *clock = clock_system();
    struct limit_part *part = limit->part;
    while (*count < goal && !part->error) {
        struct mono_time now = clock_mono(clock);
        struct mono_time next = net_run_once(limit->net, now);
        if (!mono_before(now, part->config->deadline)) {
            part->error = "time is up";
        } else if (*count < goal && !part->error && mono_before(now, next)) {
            net_wait(limit->net, now, mono_earlier(next, part->config->deadline));
        }
    }
}

static void connect_all(struct limit_net *limit)
{
    enum { CONNECT_TIMEOUT_MS = 20000 };
    const struct limit_config *config = limit->part->config;
    const struct net_addr any = {.family = NET_NONE};
    for (uint32_t i = 0; i < config->connections_count; i++) {
        struct limit_conn *conn = &limit->conns[i];
        conn->wait = WAIT_GREETING;
        conn->lines_left = 1;
        if (net_connect(limit->net, &any, &config->to, CONNECT_TIMEOUT_MS, conn, &conn->id) != 0) {
            limit->part->error = "a connection could not be made";
        }
    }
    turn_until(limit, &limit->ready_count, config->connections_count);
}

void *limit_net_main(void *context)
{
    struct limit_part *part = context;
    struct limit_config *config = part->config;
    struct limit_net limit = {.part = part};
    struct net_config net_config = {
        .conns_max = config->connections_count,
        .clock = clock_system(),
        .on_event = on_event,
        .context = &limit,
    };
    int error = 0;
    program_pin(&config->cores, part->index);
    limit.net = net_uring_create(&net_config, &error);
    limit.conns = calloc(config->connections_count, sizeof(*limit.conns));
    if (!limit.net || !limit.conns) {
        program_die("no transport: %s", strerror(-error));
    }
    connect_all(&limit);
    (void)pthread_barrier_wait(&config->ready);
    part->started = clock_mono(clock_system());
    for (uint32_t i = 0; i < config->connections_count && !part->error; i++) {
        conn_send_envelope(&limit, &limit.conns[i]);
    }
    turn_until(&limit, &limit.taken_count, part->messages_count);
    part->ended = clock_mono(clock_system());
    net_loop_destroy(limit.net);
    free(limit.conns);
    return NULL;
}
