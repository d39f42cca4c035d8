/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The least that io_uring can do the work with: one ring a thread, fixed files, one multishot
 * receive a connection into shared buffers, sends that complete silently. It is here to judge the
 * engine's transport by. A send that fails is not seen; its connection then falls silent and the
 * deadline ends the run.
 */
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/limit_load.h"

enum {
    SQ_ENTRIES = 4096,
    CQ_ENTRIES = 32768,
    BUFFER_SIZE = 256,
    BUFFERS_COUNT = 8192,
    BUFFER_GROUP = 0,
    TURN_MAX_MS = 100,
};

enum raw_wait { WAIT_GREETING, WAIT_HELLO, WAIT_START, WAIT_ENVELOPE, WAIT_MESSAGE, WAIT_END };

struct raw_conn {
    enum raw_wait wait;
    uint32_t lines_left;
};

struct limit_raw {
    struct limit_part *part;
    struct io_uring ring;
    struct io_uring_buf_ring *buffer_ring;
    char *buffers;
    struct raw_conn *conns;
    int *fds;
    uint64_t ready_count;
    uint64_t sent_count;
    uint64_t taken_count;
};

static struct io_uring_sqe *sqe_take(struct limit_raw *limit)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&limit->ring);
    while (!sqe) {
        (void)io_uring_submit(&limit->ring);
        sqe = io_uring_get_sqe(&limit->ring);
    }
    return sqe;
}

static void receive(struct limit_raw *limit, uint32_t index)
{
    struct io_uring_sqe *sqe = sqe_take(limit);
    io_uring_prep_recv_multishot(sqe, (int)index, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    io_uring_sqe_set_data64(sqe, index);
}

static void conn_send(struct limit_raw *limit, struct raw_conn *conn, struct span bytes,
                      enum raw_wait wait, uint32_t lines)
{
    struct io_uring_sqe *sqe = sqe_take(limit);
    io_uring_prep_send(sqe, (int)(conn - limit->conns), bytes.at, bytes.size,
                       MSG_WAITALL | MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
    io_uring_sqe_set_data64(sqe, UINT64_MAX);
    conn->wait = wait;
    conn->lines_left = lines;
}

static void conn_send_envelope(struct limit_raw *limit, struct raw_conn *conn)
{
    if (limit->sent_count == limit->part->messages_count) {
        conn->wait = WAIT_END;
        return;
    }
    limit->sent_count++;
    conn_send(limit, conn, limit->part->config->load.envelope, WAIT_ENVELOPE, 3);
}

static void conn_step(struct limit_raw *limit, struct raw_conn *conn)
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

static void on_received(struct limit_raw *limit, const struct io_uring_cqe *cqe)
{
    uint32_t index = (uint32_t)cqe->user_data;
    struct raw_conn *conn = &limit->conns[index];
    if (cqe->res > 0) {
        uint16_t buffer = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        char *at = limit->buffers + (size_t)buffer * BUFFER_SIZE;
        uint32_t lines = limit_lines_count(span_of(at, (size_t)cqe->res));
        io_uring_buf_ring_add(limit->buffer_ring, at, BUFFER_SIZE, buffer,
                              io_uring_buf_ring_mask(BUFFERS_COUNT), 0);
        io_uring_buf_ring_advance(limit->buffer_ring, 1);
        if (lines > conn->lines_left) {
            limit->part->error = "the server said more than was asked";
            return;
        }
        conn->lines_left -= lines;
        if (lines > 0 && conn->lines_left == 0) {
            conn_step(limit, conn);
        }
    } else if (cqe->res != -ENOBUFS) {
        limit->part->error = "a connection was lost";
        return;
    }
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
        receive(limit, index);
    }
}

static void turn_until(struct limit_raw *limit, const uint64_t *count, uint64_t goal)
{
    struct limit_part *part = limit->part;
    struct __kernel_timespec turn_max = {.tv_nsec = TURN_MAX_MS * NS_PER_MS};
    while (*count < goal && !part->error) {
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        int result = io_uring_submit_and_wait_timeout(&limit->ring, &cqe, 1, &turn_max, NULL);
        if (result < 0 && result != -ETIME && result != -EINTR && result != -EBUSY) {
            part->error = "the ring failed";
        }
        io_uring_for_each_cqe(&limit->ring, head, cqe)
        {
            if (cqe->user_data != UINT64_MAX) {
                on_received(limit, cqe);
            }
            seen++;
        }
        io_uring_cq_advance(&limit->ring, seen);
        if (seen == 0 && !mono_before(clock_mono(clock_system()), part->config->deadline)) {
            part->error = "time is up";
        }
    }
}

static void ring_start(struct limit_raw *limit)
{
    struct io_uring_params params = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES,
    };
    int result = io_uring_queue_init_params(SQ_ENTRIES, &limit->ring, &params);
    if (result < 0) {
        program_die("no ring: %s", strerror(-result));
    }
    size_t ring_size = BUFFERS_COUNT * sizeof(struct io_uring_buf);
    limit->buffer_ring =
        mmap(NULL, ring_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    limit->buffers = malloc((size_t)BUFFERS_COUNT * BUFFER_SIZE);
    if (limit->buffer_ring == MAP_FAILED || !limit->buffers) {
        program_die("no memory");
    }
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)limit->buffer_ring,
        .ring_entries = BUFFERS_COUNT,
        .bgid = BUFFER_GROUP,
    };
    result = io_uring_register_buf_ring(&limit->ring, &registration, 0);
    if (result < 0) {
        program_die("no ring of buffers: %s", strerror(-result));
    }
    io_uring_buf_ring_init(limit->buffer_ring);
    for (uint16_t i = 0; i < BUFFERS_COUNT; i++) {
        io_uring_buf_ring_add(limit->buffer_ring, limit->buffers + (size_t)i * BUFFER_SIZE,
                              BUFFER_SIZE, i, io_uring_buf_ring_mask(BUFFERS_COUNT), i);
    }
    io_uring_buf_ring_advance(limit->buffer_ring, BUFFERS_COUNT);
    (void)io_uring_register_ring_fd(&limit->ring); /* faster, where the kernel can */
}

static int connect_one(const struct net_addr *to)
{
    struct sockaddr_in6 ip6 = {.sin6_family = AF_INET6, .sin6_port = htons(to->port)};
    struct sockaddr_in ip4 = {.sin_family = AF_INET, .sin_port = htons(to->port)};
    memcpy(&ip6.sin6_addr, to->bytes, 16);
    memcpy(&ip4.sin_addr, to->bytes, 4);
    bool is_ip6 = to->family == NET_IP6;
    const struct sockaddr *addr = is_ip6 ? (const struct sockaddr *)(const void *)&ip6
                                         : (const struct sockaddr *)(const void *)&ip4;
    int fd = socket(is_ip6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    int on = 1;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        connect(fd, addr, is_ip6 ? sizeof(ip6) : sizeof(ip4)) != 0) {
        program_die("a connection could not be made: %s", strerror(errno));
    }
    return fd;
}

static void connect_all(struct limit_raw *limit)
{
    uint32_t count = limit->part->config->connections_count;
    for (uint32_t i = 0; i < count; i++) {
        limit->fds[i] = connect_one(&limit->part->config->to);
        limit->conns[i] = (struct raw_conn){.wait = WAIT_GREETING, .lines_left = 1};
    }
    int result = io_uring_register_files(&limit->ring, limit->fds, count);
    if (result < 0) {
        program_die("no fixed files: %s", strerror(-result));
    }
    for (uint32_t i = 0; i < count; i++) {
        receive(limit, i);
    }
    turn_until(limit, &limit->ready_count, count);
}

void *limit_raw_main(void *context)
{
    struct limit_part *part = context;
    struct limit_config *config = part->config;
    struct limit_raw limit = {.part = part};
    program_pin(&config->cores, part->index);
    limit.conns = calloc(config->connections_count, sizeof(*limit.conns));
    limit.fds = calloc(config->connections_count, sizeof(*limit.fds));
    if (!limit.conns || !limit.fds) {
        program_die("no memory");
    }
    ring_start(&limit);
    connect_all(&limit);
    (void)pthread_barrier_wait(&config->ready);
    part->started = clock_mono(clock_system());
    for (uint32_t i = 0; i < config->connections_count; i++) {
        conn_send_envelope(&limit, &limit.conns[i]);
    }
    turn_until(&limit, &limit.taken_count, part->messages_count);
    part->ended = clock_mono(clock_system());
    io_uring_queue_exit(&limit.ring);
    for (uint32_t i = 0; i < config->connections_count; i++) {
        (void)close(limit.fds[i]);
    }
    free(limit.buffers);
    free(limit.conns);
    free(limit.fds);
    return NULL;
}
