/* SPDX-License-Identifier: Apache-2.0 */
#include "net/uring/uring_priv.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Made by the thread that creates the loop, so that want of memory is told there and then; disabled
 * until its owner enables it, whose ring it is from then on (SINGLE_ISSUER).
 *
 * From the best to the least: completions run only when we ask for them; then at least without
 * interrupting the thread. */
static const unsigned FLAG_SETS[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
    0,
};

static int ring_open(struct io_uring *ring, unsigned entries, unsigned cq_entries)
{
    int result = -EINVAL;
    for (size_t i = 0; i < COUNT_OF(FLAG_SETS) && result == -EINVAL; i++) {
        struct io_uring_params params = {
            .flags = FLAG_SETS[i] | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL |
                     IORING_SETUP_R_DISABLED,
            .cq_entries = cq_entries,
        };
        result = io_uring_queue_init_params(entries, ring, &params);
    }
    return result;
}

/* Multishot receive has no feature bit of its own: it came in 6.0 together with this operation. */
static bool has_multishot(struct io_uring *ring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    if (probe == NULL) {
        return false;
    }
    bool has_it = io_uring_opcode_supported(probe, IORING_OP_SEND_ZC);
    io_uring_free_probe(probe);
    return has_it;
}

static size_t rx_ring_size(const struct uring *uring)
{
    return uring->rx_count * sizeof(struct io_uring_buf);
}

static size_t rx_memory_size(const struct uring *uring)
{
    return (size_t)uring->rx_count * URING_RX_STRIDE;
}

/* A burst beyond the count ends receives with -ENOBUFS; they are armed again, so a small count
 * costs time, never bytes. */
static uint32_t rx_count_of(uint32_t conns_max)
{
    uint32_t count = URING_RX_STEP;
    while (count < URING_RX_COUNT_MAX && count < conns_max / 8) {
        count *= 2;
    }
    return count;
}

/* The kernel uses the buffers in turn, all of them: the fewer there are, the more of them lie in
 * the caches. So there are few until they have run out. */
static void rx_grow(struct uring *uring)
{
    uint32_t end = uring->rx_live + URING_RX_STEP;
    while (uring->rx_live < end && uring->rx_live < uring->rx_count) {
        uring_rx_give(uring, uring->rx_live++);
    }
    uring->is_rx_short = false;
}

static void rx_stop(struct uring *uring)
{
    if (uring->rx_ring != MAP_FAILED) {
        munmap(uring->rx_ring, rx_ring_size(uring));
    }
    if (uring->rx_memory != MAP_FAILED) {
        munmap(uring->rx_memory, rx_memory_size(uring));
    }
}

static int rx_start(struct uring *uring)
{
    uring->rx_count = rx_count_of(uring->config.conns_max);
    uring->rx_ring =
        mmap(NULL, rx_ring_size(uring), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uring->rx_memory = mmap(NULL, rx_memory_size(uring), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (uring->rx_ring == MAP_FAILED || uring->rx_memory == MAP_FAILED) {
        rx_stop(uring);
        return -ENOMEM;
    }
    struct io_uring_buf_reg registration = {
        .ring_addr = (uint64_t)(uintptr_t)uring->rx_ring,
        .ring_entries = uring->rx_count,
        .bgid = URING_RX_GROUP,
    };
    int result = io_uring_register_buf_ring(&uring->ring, &registration, 0);
    if (result < 0) {
        rx_stop(uring);
        return result;
    }
    io_uring_buf_ring_init(uring->rx_ring);
    uring->rx_live = 0;
    rx_grow(uring);
    return 0;
}

void uring_rx_give(struct uring *uring, uint32_t buffer)
{
    ensure(buffer < uring->rx_count);
    io_uring_buf_ring_add(uring->rx_ring, uring_rx_at(uring, buffer), URING_RX_SIZE,
                          (unsigned short)buffer, io_uring_buf_ring_mask(uring->rx_count),
                          (int)uring->rx_returned);
    uring->rx_returned++;
}

int uring_ring_make(struct uring *uring)
{
    int result = ring_open(&uring->ring, URING_SQ_ENTRIES, URING_CQ_ENTRIES);
    if (result < 0) {
        return result;
    }
    if (!has_multishot(&uring->ring) || (uring->ring.features & IORING_FEAT_EXT_ARG) == 0 ||
        (uring->ring.features & IORING_FEAT_NODROP) == 0) {
        result = -EOPNOTSUPP;
    } else {
        result = rx_start(uring);
    }
    if (result < 0) {
        io_uring_queue_exit(&uring->ring);
        return result;
    }
    uring->is_made = true;
    return 0;
}

void uring_ring_enable(struct uring *uring)
{
    /* io_uring_enable_rings is declared, but liburing 2.3 does not export it. */
    ensure(io_uring_register((unsigned)uring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
                             0) == 0);
    uring->is_ring_registered = io_uring_register_ring_fd(&uring->ring) == 1;
}

/* A close that was asked for but not yet submitted must not leak its descriptor. The thread that
 * stops the ring may be another one than its owner (which has ended), so nothing can be submitted
 * any more. */
static void close_unsubmitted(struct uring *uring)
{
    const struct io_uring_sq *sq = &uring->ring.sq;
    for (unsigned at = *sq->khead; at != sq->sqe_tail; at++) {
        const struct io_uring_sqe *sqe = &sq->sqes[at & sq->ring_mask];
        if (sqe->opcode == IORING_OP_CLOSE) {
            (void)close(sqe->fd);
        }
    }
}

void uring_ring_stop(struct uring *uring)
{
    close_unsubmitted(uring);
    io_uring_queue_exit(&uring->ring);
    rx_stop(uring);
}

/* Makes queued entries and given back buffers visible to the kernel; returns how many entries are
 * to be submitted. */
static unsigned ring_publish(struct uring *uring)
{
    if (uring->is_rx_short) {
        rx_grow(uring);
    }
    if (uring->rx_returned > 0) {
        io_uring_buf_ring_advance(uring->rx_ring, (int)uring->rx_returned);
        uring->rx_returned = 0;
    }
    struct io_uring_sq *sq = &uring->ring.sq;
    sq->sqe_head = sq->sqe_tail;
    io_uring_smp_store_release(sq->ktail, sq->sqe_tail);
    return sq->sqe_tail - *sq->khead;
}

static int ring_call(struct uring *uring, unsigned complete_min, unsigned flags,
                     const struct __kernel_timespec *timeout)
{
    struct io_uring_getevents_arg arg = {.ts = (uint64_t)(uintptr_t)timeout};
    flags |= uring->is_ring_registered ? IORING_ENTER_REGISTERED_RING : 0;
    if (timeout == NULL) {
        return io_uring_enter2((unsigned)uring->ring.enter_ring_fd, ring_publish(uring),
                               complete_min, flags, NULL, 0);
    }
    return io_uring_enter2((unsigned)uring->ring.enter_ring_fd, ring_publish(uring), complete_min,
                           flags | IORING_ENTER_EXT_ARG, (sigset_t *)(void *)&arg, sizeof(arg));
}

/* Whatever was not submitted stays queued for the next call; anything but a passing shortage is a
 * bug of ours. */
static void ring_check(int result)
{
    ensure(result >= 0 || result == -EINTR || result == -ETIME || result == -EAGAIN ||
           result == -EBUSY || result == -ENOMEM);
}

void uring_ring_enter(struct uring *uring, int64_t wait_ns)
{
    struct __kernel_timespec timeout = {.tv_sec = wait_ns / NS_PER_S,
                                        .tv_nsec = wait_ns % NS_PER_S};
    bool has_timeout = wait_ns > 0 && wait_ns < INT64_MAX;
    ring_check(ring_call(uring, wait_ns > 0 ? 1 : 0, IORING_ENTER_GETEVENTS,
                         has_timeout ? &timeout : NULL));
}

static __attribute__((noinline)) struct io_uring_sqe *sqe_after_submit(struct uring *uring)
{
    struct io_uring_sqe *sqe = NULL;
    for (int tries = 0; sqe == NULL && tries < 1000; tries++) {
        ring_check(ring_call(uring, 0, tries == 0 ? 0 : IORING_ENTER_GETEVENTS, NULL));
        sqe = io_uring_get_sqe(&uring->ring);
    }
    return sqe;
}

struct io_uring_sqe *uring_sqe(struct uring *uring, uint64_t user_data)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    if (__builtin_expect(sqe == NULL, 0)) {
        sqe = sqe_after_submit(uring);
        ensure(sqe != NULL);
    }
    sqe->user_data = user_data;
    return sqe;
}
