/* SPDX-License-Identifier: Apache-2.0 */
/* The suite over kernel sockets on loopback, and what is particular to io_uring: wait, waker,
 * threads, bounds. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/uring/uring_priv.h"
#include "tests/unit/net/net_suite.h"

enum { SILENT_BACKLOG_FILLERS = 4, WAIT_MS = 1 };

/* A listener that accepts nothing and whose backlog is full: the kernel drops what comes then, like
 * a black hole. */
struct world {
    struct net_addr silent;
    int silent_fd;
    int refusing_fd;            /* bound, and never listens: nobody else may get its port */
    uint32_t descriptors_count; /* before the test */
    int fillers[SILENT_BACKLOG_FILLERS];
};

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
}

static int socket_bound(uint16_t *ret_port)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ensure(fd >= 0);
    ensure(bind(fd, (struct sockaddr *)&address, size) == 0);
    ensure(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static struct net_addr local_port(uint16_t port)
{
    return (struct net_addr){.family = NET_IP4, .port = port, .bytes = {127, 0, 0, 1}};
}

static uint32_t descriptors_count(void)
{
    enum { FDS_MAX = 2048 };
    uint32_t count = 0;
    for (int fd = 0; fd < FDS_MAX; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void *world_begin(void)
{
    int error = 0;
    static const struct net_config PROBE = {.conns_max = 1};
    struct net_config config = PROBE;
    config.clock = clock_system();
    config.on_event = (void (*)(void *, const struct net_event *))abort;
    struct net_loop *loop = net_uring_create(&config, &error);
    if (loop == NULL) {
        test_skip("the kernel does not allow io_uring");
    }
    net_loop_destroy(loop);
    struct world *world = calloc(1, sizeof(*world));
    ensure(world != NULL);
    world->silent_fd = world->refusing_fd = -1;
    world->descriptors_count = descriptors_count();
    return world;
}

static void world_end(void *context)
{
    struct world *world = context;
    if (world->silent_fd >= 0) {
        for (size_t i = 0; i < COUNT_OF(world->fillers); i++) {
            ensure(close(world->fillers[i]) == 0);
        }
        ensure(close(world->silent_fd) == 0);
    }
    if (world->refusing_fd >= 0) {
        ensure(close(world->refusing_fd) == 0);
    }
    CU_ASSERT_EQUAL(descriptors_count(), world->descriptors_count);
    free(world);
}

static const struct clock *world_clock(void *context)
{
    (void)context;
    return clock_system();
}

static struct net_loop *make_loop(void *context, const struct net_config *config)
{
    (void)context;
    int error = 0;
    struct net_loop *loop = net_uring_create(config, &error);
    CU_ASSERT_EQUAL(error, 0);
    return loop;
}

static bool idle(void *context, struct net_loop *const *loops, size_t count)
{
    (void)context;
    for (size_t i = 0; i < count; i++) {
        struct mono_time now = clock_mono(clock_system());
        net_wait(loops[i], now, mono_add_ms(now, WAIT_MS));
    }
    return true;
}

static struct net_addr local(void *context)
{
    (void)context;
    return local_port(0);
}

static struct net_addr refusing(void *context)
{
    struct world *world = context;
    uint16_t port;
    ensure(world->refusing_fd < 0);
    world->refusing_fd = socket_bound(&port);
    return local_port(port);
}

static struct net_addr silent(void *context)
{
    struct world *world = context;
    if (world->silent_fd >= 0) {
        return world->silent;
    }
    uint16_t port;
    world->silent_fd = socket_bound(&port);
    world->silent = local_port(port);
    ensure(listen(world->silent_fd, 0) == 0);
    struct sockaddr_in address = loopback(port);
    for (size_t i = 0; i < COUNT_OF(world->fillers); i++) {
        world->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        ensure(world->fillers[i] >= 0);
        (void)connect(world->fillers[i], (struct sockaddr *)&address, sizeof(address));
    }
    /* One is established: there is room for no more. */
    struct pollfd full = {.fd = world->silent_fd, .events = POLLIN};
    ensure(poll(&full, 1, -1) == 1);
    return world->silent;
}

/* The broadcast address of the loopback network: refused by the kernel's routing, nothing leaves.
 */
static struct net_addr unreachable(void *context)
{
    (void)context;
    return (struct net_addr){.family = NET_IP4, .port = 25, .bytes = {127, 255, 255, 255}};
}

static struct net_addr foreign(void *context)
{
    (void)context;
    return (struct net_addr){.family = NET_IP4, .bytes = {203, 0, 113, 77}};
}

const struct net_suite_factory net_suite_factory = {
    .begin = world_begin,
    .end = world_end,
    .clock = world_clock,
    .make_loop = make_loop,
    .idle = idle,
    .local = local,
    .refusing = refusing,
    .silent = silent,
    .unreachable = unreachable,
    .foreign = foreign,
};

static void on_nothing(void *context, const struct net_event *event)
{
    (void)context;
    (void)event;
    CU_ASSERT(false);
}

static struct net_loop *loop_with(struct waker *waker, uint32_t conns_max)
{
    int error = 0;
    struct net_config config = {
        .conns_max = conns_max,
        .clock = clock_system(),
        .waker = waker,
        .on_event = on_nothing,
    };
    struct net_loop *loop = net_uring_create(&config, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(loop);
    return loop;
}

static void *signal_later(void *context)
{
    waker_signal_xcore(context);
    return NULL;
}

/* Without the wake-up this test would sleep for ten minutes. */
static void test_waker_wakes_wait(void)
{
    enum { ROUNDS = 20 };
    struct waker waker;
    CU_ASSERT_EQUAL_FATAL(waker_init(&waker, true), 0);
    struct net_loop *loop = loop_with(&waker, 4);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t thread;
        CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, signal_later, &waker), 0);
        bool is_woken = false;
        while (!is_woken) {
            is_woken = !waker_sleep(&waker);
            if (!is_woken) {
                struct mono_time now = clock_mono(clock_system());
                net_wait(loop, now, mono_add_ms(now, 600000));
                is_woken = waker_is_signalled(&waker);
                (void)net_run_once(loop, now);
            }
            waker_awake(&waker);
        }
        CU_ASSERT_EQUAL(pthread_join(thread, NULL), 0);
    }
    net_loop_destroy(loop);
    waker_deinit(&waker);
}

static void test_wait_ends_at_deadline(void)
{
    struct net_loop *loop = loop_with(NULL, 4);
    struct mono_time start = clock_mono(clock_system());
    struct mono_time deadline = mono_add_ms(start, 20);
    struct mono_time now = start;
    while (mono_before(now, deadline)) {
        CU_ASSERT_EQUAL(net_run_once(loop, now).ns, MONO_NEVER.ns);
        net_wait(loop, now, deadline);
        now = clock_mono(clock_system());
    }
    /* A deadline that has passed does not sleep at all. */
    net_wait(loop, now, start);
    net_loop_destroy(loop);
}

/* A connect's own timeout ends a wait without a deadline. */
static void test_wait_ends_at_connect_timeout(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct net_addr silent_addr = silent(suite.world);
    struct suite_end *end = suite_connect_to(&suite, NULL, &silent_addr, 50);
    struct mono_time next = MONO_NEVER;
    for (int turn = 0; turn < 1000 && !end->is_closed; turn++) {
        struct mono_time now = clock_mono(suite.clock);
        suite.client->is_running = true;
        next = net_run_once(suite.client->loop, now);
        suite.client->is_running = false;
        if (mono_before(now, next) && !end->is_closed) {
            net_wait(suite.client->loop, now, MONO_NEVER);
        }
    }
    CU_ASSERT(end->is_closed);
    CU_ASSERT_EQUAL(end->error, NET_TIMEOUT);
    suite_deinit(&suite);
}

/* The peer's kernel has acknowledged what was sent: it lies there to be received. */
static bool has_arrived(const struct suite_end *end, uint64_t size)
{
    struct uring *uring = CONTAINER_OF(end->side->loop, struct uring, loop);
    struct uring_conn *conn = slab_at_handle(&uring->conns, handle_of_u64(end->id.value));
    int unacknowledged = 1;
    ensure(conn != NULL);
    ensure(ioctl(conn->fd, SIOCOUTQ, &unacknowledged) == 0);
    return end->txdone_size == size && unacknowledged == 0;
}

/* Behind a standstill all that came meanwhile is told in one turn, before the caller asks what is
 * late. */
static void test_standstill(void)
{
    enum { CONNS = 300, SIZE = 10 };
    struct suite suite;
    suite_init(&suite, CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(suite_connect_to(&suite, NULL, NULL, 60000));
    }
    SUITE_UNTIL(&suite, suite.server->ends_count == CONNS);
    suite_quiet(&suite);
    for (size_t i = 0; i < CONNS; i++) {
        CU_ASSERT_EQUAL(suite_send(&suite.server->ends[i], SIZE, true, 0), 0);
    }
    suite_limit_set(&suite);
    for (size_t i = 0; i < CONNS; i++) {
        while (!has_arrived(&suite.server->ends[i], SIZE) &&
               mono_before(clock_mono(suite.clock), suite.limit)) {
            suite_turn(suite.server);
        }
    }
    suite.client->is_running = true;
    (void)net_run_once(suite.client->loop, mono_add_ms(clock_mono(suite.clock), 5000));
    suite.client->is_running = false;
    for (size_t i = 0; i < CONNS; i++) {
        CHECK_ROW(i, suite.client->ends[i].rx_size == SIZE);
    }
    suite_deinit(&suite);
}

/* The same for a connection that was up in time. */
static void test_standstill_in_connect(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *end = suite_connect_to(&suite, NULL, NULL, 1000);
    struct mono_time now = clock_mono(suite.clock);
    net_wait(suite.client->loop, now, now);
    /* The server has it: the client's kernel has the answer to its SYN. */
    suite_limit_set(&suite);
    while (suite.server->ends_count == 0 && mono_before(clock_mono(suite.clock), suite.limit)) {
        suite_turn(suite.server);
    }
    suite.client->is_running = true;
    (void)net_run_once(suite.client->loop, mono_add_ms(now, 5000));
    suite.client->is_running = false;
    CU_ASSERT(end->is_connected);
    CU_ASSERT_FALSE(end->is_closed);
    suite_deinit(&suite);
}

/* What the kernel says of a connect: of the host, of the way there, or of this machine. */
static void test_connect_errors(void)
{
    static const struct {
        int error;
        enum net_error want;
    } ROWS[] = {
        {0, NET_OK},
        {ECONNREFUSED, NET_REFUSED},
        {ECONNRESET, NET_RESET},
        {ETIMEDOUT, NET_TIMEOUT},
        {ENETUNREACH, NET_UNREACHABLE},
        {EHOSTUNREACH, NET_UNREACHABLE},
        {EADDRNOTAVAIL, NET_NO_PORT}, /* none of the range is left towards that host */
        {EADDRINUSE, NET_NO_PORT},
        {EACCES, NET_FORBIDDEN}, /* a route that prohibits */
        {EPERM, NET_FORBIDDEN},  /* a packet filter */
        {EIO, NET_FAILED},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, uring_error_of(ROWS[i].error) == ROWS[i].want);
    }
}

/* Made by one thread, used and left by another, destroyed by the first. */
static void *use_loop(void *context)
{
    static const struct net_addr ANY;
    struct net_loop *loop = context;
    struct net_addr to_self = local_port(0), bound;
    CU_ASSERT_EQUAL(net_listen(loop, &to_self, 8, NULL, &bound), 0);
    struct net_conn_id id;
    CU_ASSERT_EQUAL(net_connect(loop, &ANY, &bound, 1000, NULL, &id), 0);
    CU_ASSERT_EQUAL(net_close(loop, id, false), 0);
    return NULL;
}

static void test_threads(void)
{
    struct net_loop *unused = loop_with(NULL, 4);
    net_loop_destroy(unused);
    net_loop_destroy(NULL);
    struct net_loop *loop = loop_with(NULL, 4);
    pthread_t thread;
    CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, use_loop, loop), 0);
    CU_ASSERT_EQUAL(pthread_join(thread, NULL), 0);
    net_loop_destroy(loop);
}

static void test_listen_errors(void)
{
    struct net_loop *loop = loop_with(NULL, 4);
    struct net_addr bound = {.port = 7};
    struct net_addr away = foreign(NULL);
    CU_ASSERT_EQUAL(net_listen(loop, &away, 8, NULL, &bound), -EADDRNOTAVAIL);
    CU_ASSERT_EQUAL(bound.port, 7);
    /* Two loops may share a port (a sink with several threads); a third socket without the option
     * may not. */
    struct net_loop *second = loop_with(NULL, 4);
    struct net_addr any = local_port(0);
    CU_ASSERT_EQUAL(net_listen(loop, &any, 8, NULL, &bound), 0);
    struct net_addr same = bound;
    CU_ASSERT_EQUAL(net_listen(second, &same, 8, NULL, &bound), 0);
    CU_ASSERT_EQUAL(bound.port, same.port);
    net_loop_destroy(second);
    net_loop_destroy(loop);
}

/* More connections with bytes than receive buffers: none is lost, whatever the kernel does about
 * the shortage. */
static void test_receive_buffers_run_out(void)
{
    enum { CONNS = 300, ROUNDS = 3 };
    struct suite suite;
    suite_init(&suite, CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(suite_connect_to(&suite, NULL, NULL, 60000));
    }
    SUITE_UNTIL(&suite, suite.server->ends_count == CONNS);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (size_t i = 0; i < CONNS; i++) {
            CU_ASSERT_EQUAL(suite_send(&suite.client->ends[i], 60000, false, 0), 0);
        }
        for (size_t i = 0; i < CONNS; i++) {
            SUITE_UNTIL(&suite, suite.server->ends[i].rx_size == round * UINT64_C(60000));
        }
    }
    suite_deinit(&suite);
}

/* More is asked for in one turn than the submission queue holds. */
static void test_submission_queue_full(void)
{
    enum { CONNS = 1500, ROUNDS = 4 };
    struct suite suite;
    suite_init(&suite, CONNS);
    for (size_t i = 0; i < CONNS; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(suite_connect_to(&suite, NULL, NULL, 60000));
    }
    SUITE_UNTIL(&suite, suite.server->ends_count == CONNS);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < CONNS; i++) {
            CU_ASSERT_EQUAL(suite_rx_stop(&suite.client->ends[i], true), 0);
            CU_ASSERT_EQUAL(suite_rx_stop(&suite.client->ends[i], false), 0);
            CU_ASSERT_EQUAL(suite_send(&suite.client->ends[i], 10, true, 0), 0);
            CU_ASSERT_EQUAL(suite_send(&suite.server->ends[i], 10, true, 0), 0);
        }
        suite_quiet(&suite);
    }
    for (size_t i = 0; i < CONNS; i++) {
        SUITE_UNTIL(&suite, suite.server->ends[i].rx_size == 10 * ROUNDS);
        SUITE_UNTIL(&suite, suite.client->ends[i].rx_size == 10 * ROUNDS);
        CU_ASSERT_EQUAL(suite_close(&suite.client->ends[i], i % 2 == 0), 0);
    }
    SUITE_UNTIL(&suite, suite.client->closed_count == CONNS);
    suite_deinit(&suite);
}

/* A long segment is told done piece by piece: the sender's timers see a slow peer's progress. */
static void test_long_segment_shows_progress(void)
{
    enum { SIZE = 8 << 20 };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    char *bytes = malloc(SIZE);
    ensure(bytes != NULL);
    for (uint32_t at = 0; at < SIZE; at += 65536) {
        suite_stream_copy(client, at, 65536, bytes + at);
    }
    struct net_segment segments[2] = {{.at = bytes, .size = 100},
                                      {.at = bytes + 100, .size = SIZE - 100}};
    CU_ASSERT_EQUAL(net_send(suite.client->loop, client->id, segments, 2, 0), 0);
    client->sent_size = SIZE;
    SUITE_UNTIL(&suite, server->rx_size == SIZE && client->txdone_size == SIZE);
    CU_ASSERT(client->txdone_count >= 16);
    free(bytes);
    suite_deinit(&suite);
}

/* The limit under which `spare` more descriptors can be had. */
static rlim_t limit_for(int spare)
{
    int fd = 0;
    while (fcntl(fd, F_GETFD) >= 0 || spare-- > 0) {
        fd++;
    }
    return (rlim_t)fd;
}

/* No descriptor is left: connects are refused, accepts wait in the backlog, and both go on later.
 */
static void test_descriptors_run_out(void)
{
    enum { SPARE = 3 };
    struct suite suite;
    suite_init(&suite, 64);
    suite_limit_set(&suite);
    (void)suite_step(&suite);
    struct rlimit before;
    ensure(getrlimit(RLIMIT_NOFILE, &before) == 0);
    struct rlimit low = {.rlim_cur = limit_for(SPARE + 1), .rlim_max = before.rlim_max};
    ensure(setrlimit(RLIMIT_NOFILE, &low) == 0);
    /* The kernel notes the limit when an accept is submitted: this listener's comes after it. */
    struct net_addr any = local_port(0), bound;
    CU_ASSERT_EQUAL(net_listen(suite.server->loop, &any, 8, suite.server, &bound), 0);
    for (int i = 0; i < SPARE; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(suite_connect_to(&suite, NULL, &bound, 60000));
    }
    CU_ASSERT_PTR_NULL(suite_connect_to(&suite, NULL, NULL, 60000));
    SUITE_UNTIL(&suite, suite.client->ends[SPARE - 1].is_connected);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(suite.server->ends_count, 0);
    ensure(setrlimit(RLIMIT_NOFILE, &before) == 0);
    SUITE_UNTIL(&suite, suite.server->ends_count == SPARE);
    CU_ASSERT_PTR_NOT_NULL(suite_connect_to(&suite, NULL, NULL, 60000));
    SUITE_UNTIL(&suite, suite.server->ends_count == SPARE + 1);
    suite_deinit(&suite);
}

/* The receive is just being cancelled when a send finds the peer dead: what it had said is told all
 * the same. */
static void test_last_words_without_receive(void)
{
    enum { TURNS = 4 };
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    suite_quiet(&suite);
    CU_ASSERT_EQUAL(suite_send(server, 300, false, 0), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        suite_turn(suite.server);
    }
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        suite_turn(suite.server);
    }
    CU_ASSERT_EQUAL(suite_rx_stop(client, true), 0);
    CU_ASSERT_EQUAL(suite_rx_stop(client, false), 0);
    CU_ASSERT_EQUAL(suite_send(client, 10, true, 0), 0);
    SUITE_UNTIL(&suite, client->is_closed);
    CU_ASSERT_EQUAL(client->rx_size, 300);
    CU_ASSERT_EQUAL(client->error, NET_RESET);
    suite_deinit(&suite);
}

/* Destroyed while closes wait to be submitted, also those of connects that failed at once. */
static void test_destroy_leaks_no_descriptor(void)
{
    struct suite suite;
    suite_init(&suite, 8);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    CU_ASSERT_EQUAL(suite_close(client, false), 0);
    struct net_addr source = foreign(NULL);
    CU_ASSERT_PTR_NOT_NULL(suite_connect_to(&suite, &source, NULL, 5000));
    CU_ASSERT_PTR_NOT_NULL(suite_connect_to(&suite, NULL, NULL, 5000));
    CU_ASSERT_EQUAL(suite_close(server, true), 0);
    suite_deinit(&suite);
}

/* All there is to a connection has happened before the server looks: bytes, then the end. */
static void check_over_before_accepted(bool is_abort)
{
    enum { TURNS = 4 };
    struct suite suite;
    suite_init(&suite, 4);
    suite_turn(suite.server); /* submits the accept, so that the backlog takes what comes */
    struct suite_end *client = suite_connect_to(&suite, NULL, NULL, 5000);
    CU_ASSERT_EQUAL(suite_send(client, 300, false, 0), 0);
    suite_limit_set(&suite);
    while (client->txdone_size < 300) {
        suite_turn(suite.client);
    }
    CU_ASSERT_EQUAL(suite_close(client, is_abort), 0);
    for (int turn = 0; turn < TURNS; turn++) {
        suite_turn(suite.client);
    }
    SUITE_UNTIL(&suite, suite.server->ends_count == 1);
    struct suite_end *server = &suite.server->ends[0];
    SUITE_UNTIL(&suite, is_abort ? server->is_closed : server->has_fin);
    CU_ASSERT_EQUAL(server->error, is_abort ? NET_RESET : NET_OK);
    CU_ASSERT_EQUAL(server->rx_size, 300);
    suite_deinit(&suite);
}

static void test_over_before_accepted(void)
{
    check_over_before_accepted(true);
    check_over_before_accepted(false);
}

static void test_misuse_panics(void)
{
    struct suite suite;
    suite_init(&suite, 4);
    struct suite_end *client, *server;
    suite_pair(&suite, &client, &server);
    struct net_segment segments[NET_SEND_SEGMENTS_MAX + 1] = {{.size = 0}};
    CHECK_PANICS((void)net_send(suite.client->loop, client->id, segments, COUNT_OF(segments), 0));
    segments[0] = (struct net_segment){.at = segments, .size = NET_COPY_MAX + 1, .is_copied = true};
    CHECK_PANICS((void)net_send(suite.client->loop, client->id, segments, 1, 0));
    CU_ASSERT_EQUAL(suite_send(client, 1, true, NET_FIN), 0);
    CHECK_PANICS((void)suite_send(client, 1, true, 0));
    suite_deinit(&suite);
}

NET_SUITE(uring, NET_SUITE_TESTS, test_standstill, test_standstill_in_connect, test_connect_errors,
          test_waker_wakes_wait, test_wait_ends_at_deadline, test_wait_ends_at_connect_timeout,
          test_threads, test_listen_errors, test_receive_buffers_run_out,
          test_submission_queue_full, test_over_before_accepted, test_last_words_without_receive,
          test_destroy_leaks_no_descriptor, test_long_segment_shows_progress,
          test_descriptors_run_out, test_misuse_panics)
