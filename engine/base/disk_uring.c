/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>

#include "engine/base/clock.h"
#include "engine/base/disk_priv.h"

/*
 * One small ring a disk. The verbs that may take milliseconds go through it, all others run at
 * once.
 *
 * Nothing enters the kernel at submit: the entries are flushed by the next reap or wait, so that a
 * step that submits ten ops pays for one call. An op is its own progress report: `result` counts
 * the bytes done until it is complete, and a short read or write goes into the ring again for the
 * rest.
 *
 * One thread at a time uses the ring: boot makes the disk, so that a refusal shows at the start,
 * the actor's thread owns it, and who takes the engine down flushes and closes what is left.
 *
 * To sleep, the ring polls the waker's eventfd and the watch's inotify descriptor, each once per
 * arming: armed again they tell at once what is still there, so no edge can be missed.
 */
enum { TAG_WAKE = 1, TAG_WATCH = 2, TAGS_END = 16 };

/* Every op, both polls, and what liburing may add for a timeout fit at once: an entry is always to
 * be had, and the completion queue (twice as long) never overflows. */
enum { RING_ENTRIES = 2 * DISK_OPS_MAX, CHUNK_SIZE_MAX = 1 << 30 };

struct disk_uring {
    struct disk disk;
    struct waker *waker;
    struct disk_watch watch;
    struct io_uring ring;
    struct list done;
    uint32_t submitted_count; /* and not yet reaped: in the ring and in `done` */
    uint32_t ring_count;
    bool wake_is_armed;
    bool watch_is_armed;
    bool watch_is_ready; /* the poll told of something that was not read yet */
};

static struct disk_uring *uring_of(struct disk *disk)
{
    return CONTAINER_OF(disk, struct disk_uring, disk);
}

static struct io_uring_sqe *uring_entry(struct disk_uring *uring)
{
    struct io_uring_sqe *entry = io_uring_get_sqe(&uring->ring);
    ensure(entry != NULL);
    return entry;
}

/* Puts the op, or what is left of it, into the ring. */
static void uring_put(struct disk_uring *uring, struct disk_op *op)
{
    ensure(op->result >= 0);
    struct io_uring_sqe *entry = uring_entry(uring);
    size_t done = (size_t)op->result;
    size_t left = op->size - done;
    unsigned chunk = left < CHUNK_SIZE_MAX ? (unsigned)left : CHUNK_SIZE_MAX;
    if (op->verb == DISK_READ) {
        io_uring_prep_read(entry, op->fd, (char *)op->at + done, chunk, op->offset + done);
    } else if (op->verb == DISK_WRITE) {
        io_uring_prep_write(entry, op->fd, (char *)op->at + done, chunk, op->offset + done);
    } else {
        ensure(op->verb == DISK_DATASYNC || op->verb == DISK_SYNC);
        unsigned flags = op->verb == DISK_DATASYNC ? IORING_FSYNC_DATASYNC : 0;
        io_uring_prep_fsync(entry, op->fd, flags);
    }
    io_uring_sqe_set_data(entry, op);
    uring->ring_count++;
}

static void uring_complete(struct disk_uring *uring, struct disk_op *op)
{
    list_add_last(&uring->done, &op->link);
}

static void uring_on_op(struct disk_uring *uring, struct disk_op *op, int result)
{
    ensure(uring->ring_count > 0);
    uring->ring_count--;
    bool has_bytes = op->verb == DISK_READ || op->verb == DISK_WRITE;
    if (result == -EINTR) {
        uring_put(uring, op);
        return;
    }
    if (result == -EAGAIN) {
        /* A file system that cannot do it in the background: it is done here, from the start. */
        odd(disk_ring_would_block);
        (void)disk_priv_run(op);
    } else if (result < 0 || !has_bytes) {
        op->result = result;
    } else {
        op->result += result;
        ensure(op->result <= (int64_t)op->size);
        bool is_short = op->result < (int64_t)op->size;
        if (is_short && result > 0) {
            uring_put(uring, op);
            return;
        }
        if (is_short && op->verb == DISK_WRITE) {
            op->result = -EIO; /* no progress and no reason, as with the plain disk */
        }
    }
    uring_complete(uring, op);
}

static void uring_on_completion(struct disk_uring *uring, const struct io_uring_cqe *completion)
{
    uint64_t data = completion->user_data;
    if (data == LIBURING_UDATA_TIMEOUT) {
        return;
    }
    if (data == TAG_WAKE) {
        uring->wake_is_armed = false;
    } else if (data == TAG_WATCH) {
        uring->watch_is_armed = false;
        uring->watch_is_ready = true;
    } else {
        ensure(data > TAGS_END);
        uring_on_op(uring, io_uring_cqe_get_data(completion), completion->res);
    }
}

/* Takes from the completion queue all that is there, without a system call. */
static void uring_drain(struct disk_uring *uring)
{
    struct io_uring_cqe *completion;
    while (io_uring_peek_cqe(&uring->ring, &completion) == 0 && completion != NULL) {
        uring_on_completion(uring, completion);
        io_uring_cqe_seen(&uring->ring, completion);
    }
}

static void uring_arm(struct disk_uring *uring, int fd, uint64_t tag)
{
    struct io_uring_sqe *entry = uring_entry(uring);
    io_uring_prep_poll_add(entry, fd, POLLIN);
    io_uring_sqe_set_data64(entry, tag);
}

static void uring_arm_watch(struct disk_uring *uring)
{
    if (uring->watch.inotify_fd >= 0 && !uring->watch_is_armed && !uring->watch_is_ready) {
        uring_arm(uring, uring->watch.inotify_fd, TAG_WATCH);
        uring->watch_is_armed = true;
    }
}

static void uring_arm_wake(struct disk_uring *uring)
{
    if (uring->waker != NULL && uring->waker->event_fd >= 0 && !uring->wake_is_armed) {
        uring_arm(uring, uring->waker->event_fd, TAG_WAKE);
        uring->wake_is_armed = true;
    }
}

/* The entries that a failed or partial call leaves stay queued for the next one. */
static void ensure_entered(int result)
{
    ensure(result != -EBADF);
    ensure(result != -EFAULT);
    ensure(result != -EINVAL);
}

/* Flushes what is queued and takes what is complete; enters the kernel only when there is a reason.
 */
static void uring_turn(struct disk_uring *uring)
{
    uring_arm_watch(uring);
    unsigned flags = IO_URING_READ_ONCE(*uring->ring.sq.kflags);
    if (io_uring_sq_ready(&uring->ring) > 0) {
        ensure_entered(io_uring_submit_and_get_events(&uring->ring));
    } else if ((flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0) {
        ensure_entered(io_uring_get_events(&uring->ring));
    }
    uring_drain(uring);
}

static int64_t uring_run(struct disk *disk, struct disk_op *op)
{
    (void)disk;
    return disk_priv_run(op);
}

/* Completions of other ops that come meanwhile are kept for reap. */
static void uring_run_all(struct disk *disk, struct disk_op *ops, size_t count)
{
    struct disk_uring *uring = uring_of(disk);
    ensure(count <= DISK_FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        ensure(ops[i].verb == DISK_DATASYNC || ops[i].verb == DISK_SYNC);
        ops[i].result = 0;
        list_init(&ops[i].link);
        uring_put(uring, &ops[i]);
    }
    for (size_t i = 0; i < count; i++) {
        while (!list_is_linked(&ops[i].link)) {
            ensure_entered(io_uring_submit_and_wait(&uring->ring, 1));
            uring_drain(uring);
        }
        list_remove(&ops[i].link);
    }
}

static int uring_submit(struct disk *disk, struct disk_op *op)
{
    struct disk_uring *uring = uring_of(disk);
    ensure(uring->submitted_count <= DISK_OPS_MAX);
    ensure(uring->ring_count <= uring->submitted_count);
    if (uring->submitted_count == DISK_OPS_MAX) {
        return -EAGAIN;
    }
    uring->submitted_count++;
    switch (op->verb) {
    case DISK_READ:
    case DISK_WRITE:
    case DISK_DATASYNC:
    case DISK_SYNC:
        op->result = 0;
        uring_put(uring, op);
        return 0;
    case DISK_OPEN:
    case DISK_CLOSE:
    case DISK_STAT:
    case DISK_LIST:
    case DISK_MKDIR:
    case DISK_RENAME:
    case DISK_UNLINK:
    case DISK_RMDIR:
    case DISK_TRUNCATE:
    case DISK_ALLOCATE:
    case DISK_LOCK:
    case DISK_FREE_SPACE:
        (void)disk_priv_run(op);
        uring_complete(uring, op);
        return 0;
    }
    ensure(false);
    return -EINVAL;
}

static struct disk_op *uring_reap(struct disk *disk)
{
    struct disk_uring *uring = uring_of(disk);
    if (list_is_empty(&uring->done) && uring->submitted_count > 0) {
        uring_turn(uring);
    }
    struct list *node = list_take_first(&uring->done);
    if (node == NULL) {
        ensure(uring->ring_count == uring->submitted_count);
        return NULL;
    }
    ensure(uring->submitted_count > 0);
    uring->submitted_count--;
    return CONTAINER_OF(node, struct disk_op, link);
}

static int uring_watch(struct disk *disk, int dir_fd)
{
    struct disk_uring *uring = uring_of(disk);
    return disk_watch_set(&uring->watch, dir_fd);
}

static bool uring_watch_fired(struct disk *disk)
{
    struct disk_uring *uring = uring_of(disk);
    if (uring->watch.inotify_fd < 0) {
        return false;
    }
    uring_turn(uring);
    if (!uring->watch_is_ready) {
        return false;
    }
    uring->watch_is_ready = false;
    return disk_watch_drain(&uring->watch);
}

static void uring_wait(struct disk *disk, int64_t timeout_ns)
{
    struct disk_uring *uring = uring_of(disk);
    uring_turn(uring);
    if (!list_is_empty(&uring->done) || uring->watch_is_ready) {
        return;
    }
    uring_arm_wake(uring);
    ensure(timeout_ns >= 0 || uring->ring_count > 0 || uring->wake_is_armed ||
           uring->watch_is_armed); /* nothing would ever end the sleep */
    struct __kernel_timespec timeout = {.tv_sec = timeout_ns / NS_PER_S,
                                        .tv_nsec = timeout_ns % NS_PER_S};
    struct io_uring_cqe *completion;
    ensure_entered(io_uring_submit_and_wait_timeout(&uring->ring, &completion, 1,
                                                    timeout_ns < 0 ? NULL : &timeout, NULL));
    uring_drain(uring);
}

/* The buffers of ops in the ring are the callers': they must not be written after this returns. */
static void uring_destroy(struct disk *disk)
{
    struct disk_uring *uring = uring_of(disk);
    while (uring->ring_count > 0) {
        ensure_entered(io_uring_submit_and_wait(&uring->ring, 1));
        uring_drain(uring);
    }
    io_uring_queue_exit(&uring->ring);
    disk_watch_deinit(&uring->watch);
    free(uring);
}

/* Not bound to one thread (IORING_SETUP_SINGLE_ISSUER), see above; completions run when the owner
 * enters the kernel anyway (5.19), else whenever they like. */
static int uring_make(struct io_uring *ring)
{
    static const unsigned flags[] = {
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
        0,
    };
    int result = -EINVAL;
    for (size_t i = 0; i < COUNT_OF(flags) && result == -EINVAL; i++) {
        result = io_uring_queue_init(RING_ENTRIES, ring, flags[i]);
    }
    return result;
}

struct disk *disk_uring_create(struct waker *waker, int *ret_error)
{
    static const struct disk_ops ops = {
        .run = uring_run,
        .run_all = uring_run_all,
        .submit = uring_submit,
        .reap = uring_reap,
        .watch = uring_watch,
        .watch_fired = uring_watch_fired,
        .wait = uring_wait,
        .destroy = uring_destroy,
    };
    struct disk_uring *uring = calloc(1, sizeof(*uring));
    if (uring == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    int error = uring_make(&uring->ring);
    if (error != 0) {
        free(uring);
        *ret_error = error;
        return NULL;
    }
    uring->disk.ops = &ops;
    uring->waker = waker;
    disk_watch_init(&uring->watch);
    list_init(&uring->done);
    return &uring->disk;
}
