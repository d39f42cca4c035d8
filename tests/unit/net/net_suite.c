/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/net/net_suite.h"

#include <errno.h>
#include <stdlib.h>

enum {
    PATTERN_SIZE =
        262147, /* a prime: no buffer size divides it, so a shifted stream never looks right */
    PIECE_MAX = 65536,
    LIMIT_MS = 60000,
    QUIET_TURNS = 12,
};

static char pattern[PATTERN_SIZE + PIECE_MAX];

static void pattern_fill(void)
{
    struct random random;
    random_init_seed(&random, 7);
    for (size_t i = 0; i < PATTERN_SIZE; i++) {
        pattern[i] = (char)random_u32(&random);
    }
    memcpy(pattern + PATTERN_SIZE, pattern, PIECE_MAX);
}

static const char *pattern_at(uint32_t stream, uint64_t position)
{
    return pattern + (stream + position) % PATTERN_SIZE;
}

static struct suite_end *end_new(struct suite_side *side, struct net_conn_id id)
{
    ensure(side->ends_count < SUITE_ENDS_MAX);
    struct suite_end *end = &side->ends[side->ends_count++];
    *end = (struct suite_end){.side = side, .id = id};
    return end;
}

static void received(struct suite_end *end, struct span rx)
{
    CU_ASSERT(rx.size > 0);
    end->rx_count++;
    for (size_t done = 0; done < rx.size;) {
        size_t size = rx.size - done < PIECE_MAX ? rx.size - done : PIECE_MAX;
        if (memcmp(rx.at + done, pattern_at(end->side->stream_other, end->rx_size), size) != 0) {
            end->has_wrong_byte = true;
        }
        end->rx_size += size;
        done += size;
    }
}

static void note_event(struct suite_end *end, const struct net_event *event)
{
    CU_ASSERT_FALSE(end->is_closed); /* nothing after CLOSED, not even another one */
    CU_ASSERT_EQUAL(event->conn.value, end->id.value);
    switch (event->kind) {
    case NET_CONNECTED:
        CU_ASSERT_FALSE(end->is_connected || end->is_accepted);
        end->is_connected = true;
        return;
    case NET_ACCEPTED:
        CU_ASSERT_FALSE(end->is_connected || end->is_accepted);
        end->is_accepted = true;
        return;
    case NET_RX:
        CU_ASSERT_FALSE(end->has_fin);
        received(end, event->rx);
        return;
    case NET_TXDONE:
        CU_ASSERT(event->txdone_size > 0);
        end->txdone_count++;
        end->txdone_size += event->txdone_size;
        CU_ASSERT(end->txdone_size <= end->sent_size);
        return;
    case NET_PEER_FIN:
        CU_ASSERT_FALSE(end->has_fin);
        end->has_fin = true;
        return;
    case NET_CLOSED:
        end->is_closed = true;
        end->error = event->error;
        end->side->closed_count++;
        return;
    }
    ensure(false);
}

static void on_event(void *context, const struct net_event *event)
{
    struct suite_side *side = context;
    CU_ASSERT(side->is_running);
    side->suite->events_count++;
    struct suite_end *end = event->user;
    if (event->kind == NET_ACCEPTED) {
        CU_ASSERT_PTR_EQUAL(event->user, side); /* the listener's */
        end = end_new(side, event->conn);
        CU_ASSERT_EQUAL(net_set_user(side->loop, event->conn, end), 0);
        end->hook = side->accepted_hook;
    }
    end->events_count++;
    note_event(end, event);
    if (end->hook != NULL) {
        end->hook(end, event);
    }
}

static struct suite_side *side_new(struct suite *suite, uint32_t conns_max, uint32_t stream,
                                   uint32_t stream_other)
{
    struct suite_side *side = calloc(1, sizeof(*side));
    ensure(side != NULL);
    side->suite = suite;
    side->stream = stream;
    side->stream_other = stream_other;
    struct net_config config = {
        .conns_max = conns_max,
        .clock = suite->clock,
        .on_event = on_event,
        .context = side,
    };
    side->loop = net_suite_factory.make_loop(suite->world, &config);
    ensure(side->loop != NULL);
    return side;
}

void suite_init(struct suite *suite, uint32_t conns_max)
{
    enum { CLIENT_STREAM = 1000, SERVER_STREAM = 50000, BACKLOG = 1024 };
    pattern_fill();
    *suite = (struct suite){.world = net_suite_factory.begin()};
    suite->clock = net_suite_factory.clock(suite->world);
    random_init_seed(&suite->random, 1);
    suite->client = side_new(suite, conns_max, CLIENT_STREAM, SERVER_STREAM);
    suite->server = side_new(suite, conns_max, SERVER_STREAM, CLIENT_STREAM);
    struct net_addr local = net_suite_factory.local(suite->world);
    CU_ASSERT_EQUAL_FATAL(
        net_listen(suite->server->loop, &local, BACKLOG, suite->server, &suite->server->addr), 0);
    CU_ASSERT(suite->server->addr.port != 0);
}

static void side_free(struct suite_side *side)
{
    for (uint32_t i = 0; i < side->ends_count; i++) {
        CHECK_ROW(i, !side->ends[i].has_wrong_byte);
    }
    net_loop_destroy(side->loop);
    free(side);
}

void suite_deinit(struct suite *suite)
{
    side_free(suite->client);
    side_free(suite->server);
    net_suite_factory.end(suite->world);
}

void suite_turn(struct suite_side *side)
{
    if (side->loop != NULL) {
        side->is_running = true;
        (void)net_run_once(side->loop, clock_mono(side->suite->clock));
        side->is_running = false;
    }
}

static bool idle(struct suite *suite)
{
    struct net_loop *loops[SUITE_LOOPS_MAX];
    size_t count = 0;
    if (suite->client->loop != NULL) {
        loops[count++] = suite->client->loop;
    }
    if (suite->server->loop != NULL) {
        loops[count++] = suite->server->loop;
    }
    return net_suite_factory.idle(suite->world, loops, count);
}

void suite_limit_set(struct suite *suite)
{
    suite->limit = mono_add_ms(clock_mono(suite->clock), LIMIT_MS);
}

bool suite_step(struct suite *suite)
{
    uint64_t before = suite->events_count;
    suite_turn(suite->client);
    suite_turn(suite->server);
    if (suite->events_count == before && !idle(suite)) {
        return false;
    }
    return mono_before(clock_mono(suite->clock), suite->limit);
}

void suite_quiet(struct suite *suite)
{
    suite_limit_set(suite);
    for (int turns = 0; turns < QUIET_TURNS; turns++) {
        uint64_t before = suite->events_count;
        if (!suite_step(suite)) {
            return;
        }
        turns = suite->events_count == before ? turns : 0;
    }
}

struct suite_end *suite_connect_to(struct suite *suite, const struct net_addr *source,
                                   const struct net_addr *destination, uint32_t timeout_ms)
{
    static const struct net_addr ANY;
    struct suite_side *side = suite->client;
    struct suite_end *end = end_new(side, (struct net_conn_id){0});
    int result = net_connect(side->loop, source != NULL ? source : &ANY,
                             destination != NULL ? destination : &suite->server->addr, timeout_ms,
                             end, &end->id);
    if (result != 0) {
        CU_ASSERT_EQUAL(result, -ENOBUFS);
        CU_ASSERT_EQUAL(end->id.value, 0);
        side->ends_count--;
        return NULL;
    }
    CU_ASSERT(end->id.value != 0);
    return end;
}

void suite_pair(struct suite *suite, struct suite_end **ret_client, struct suite_end **ret_server)
{
    uint32_t accepted_before = suite->server->ends_count;
    struct suite_end *client = suite_connect_to(suite, NULL, NULL, LIMIT_MS);
    CU_ASSERT_PTR_NOT_NULL_FATAL(client);
    SUITE_UNTIL(suite, client->is_connected && suite->server->ends_count > accepted_before);
    CU_ASSERT_FATAL(suite->server->ends_count == accepted_before + 1);
    *ret_client = client;
    *ret_server = &suite->server->ends[accepted_before];
}

int suite_send(struct suite_end *end, uint32_t size, bool is_copied, unsigned flags)
{
    ensure(size <= PIECE_MAX);
    struct net_segment segment = {
        .at = pattern_at(end->side->stream, end->sent_size),
        .size = size,
        .is_copied = is_copied,
    };
    int result = net_send(end->side->loop, end->id, &segment, size > 0 ? 1 : 0, flags);
    if (result == 0) {
        end->sent_size += size;
    }
    return result;
}

void suite_stream_copy(const struct suite_end *end, uint64_t position, uint32_t size,
                       char *ret_bytes)
{
    memcpy(ret_bytes, pattern_at(end->side->stream, position), size);
}

/* 1..5 segments of the end's stream in one call; returns what net_send says. */
static int send_random(struct suite_end *end)
{
    enum { SEGMENTS_MAX = 5 };
    struct random *random = &end->side->suite->random;
    struct net_segment segments[SEGMENTS_MAX];
    uint64_t position = end->sent_size;
    size_t count = 0;
    size_t want = 1 + random_below(random, SEGMENTS_MAX);
    while (count < want && position < end->to_send) {
        bool is_copied = random_below(random, 3) == 0;
        uint64_t size = 1 + random_below(random, is_copied ? NET_COPY_MAX : PIECE_MAX);
        uint64_t left = end->to_send - position;
        size = size < left ? size : left;
        segments[count++] = (struct net_segment){
            .at = pattern_at(end->side->stream, position),
            .size = (uint32_t)size,
            .is_copied = is_copied,
        };
        position += size;
    }
    unsigned flags = random_below(random, 8) == 0 ? NET_MORE : 0;
    int result = net_send(end->side->loop, end->id, segments, count, flags);
    if (result == 0) {
        end->sent_size = position;
    }
    return result;
}

void suite_pump(struct suite_end *end)
{
    int result = 0;
    while (result == 0 && end->sent_size < end->to_send) {
        result = send_random(end);
    }
    CU_ASSERT(result == 0 || result == -EAGAIN || result == -ESTALE);
}

void suite_hook_pump(struct suite_end *end, const struct net_event *event)
{
    if (event->kind == NET_TXDONE) {
        suite_pump(end);
    }
}

int suite_close(struct suite_end *end, bool is_abort)
{
    return net_close(end->side->loop, end->id, is_abort);
}

int suite_rx_stop(struct suite_end *end, bool is_stopped)
{
    return net_rx_stop(end->side->loop, end->id, is_stopped);
}
