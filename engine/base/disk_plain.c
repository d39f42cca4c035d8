/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#include "engine/base/clock.h"
#include "engine/base/disk_priv.h"

/* Every op runs to its end when it is submitted and waits in `done` to be reaped. */
struct disk_plain {
    struct disk disk;
    struct waker *waker;
    struct disk_watch watch;
    struct list done;
    uint32_t done_count;
};

static struct disk_plain *plain_of(struct disk *disk)
{
    return CONTAINER_OF(disk, struct disk_plain, disk);
}

static int64_t plain_run(struct disk *disk, struct disk_op *op)
{
    (void)disk;
    return disk_priv_run(op);
}

static int plain_submit(struct disk *disk, struct disk_op *op)
{
    struct disk_plain *plain = plain_of(disk);
    ensure(plain->done_count <= DISK_OPS_MAX);
    if (plain->done_count == DISK_OPS_MAX) {
        return -EAGAIN;
    }
    (void)disk_priv_run(op);
    list_add_last(&plain->done, &op->link);
    plain->done_count++;
    return 0;
}

static struct disk_op *plain_reap(struct disk *disk)
{
    struct disk_plain *plain = plain_of(disk);
    struct list *node = list_take_first(&plain->done);
    if (node == NULL) {
        ensure(plain->done_count == 0);
        return NULL;
    }
    ensure(plain->done_count > 0);
    plain->done_count--;
    return CONTAINER_OF(node, struct disk_op, link);
}

static int plain_watch(struct disk *disk, int dir_fd)
{
    return disk_watch_set(&plain_of(disk)->watch, dir_fd);
}

static bool plain_watch_fired(struct disk *disk)
{
    return disk_watch_drain(&plain_of(disk)->watch);
}

static void plain_wait(struct disk *disk, int64_t timeout_ns)
{
    struct disk_plain *plain = plain_of(disk);
    if (plain->done_count > 0) {
        return;
    }
    struct pollfd fds[2];
    nfds_t count = 0;
    if (plain->waker != NULL && plain->waker->event_fd >= 0) {
        fds[count++] = (struct pollfd){.fd = plain->waker->event_fd, .events = POLLIN};
    }
    if (plain->watch.inotify_fd >= 0) {
        fds[count++] = (struct pollfd){.fd = plain->watch.inotify_fd, .events = POLLIN};
    }
    ensure(count > 0 || timeout_ns >= 0); /* nothing would ever end the sleep */
    struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S};
    int result = ppoll(fds, count, timeout_ns < 0 ? NULL : &timeout, NULL);
    ensure(result >= 0 || errno == EINTR || errno == ENOMEM);
}

static void plain_destroy(struct disk *disk)
{
    struct disk_plain *plain = plain_of(disk);
    disk_watch_deinit(&plain->watch);
    free(plain);
}

struct disk *disk_plain_create(struct waker *waker, int *ret_error)
{
    static const struct disk_ops ops = {
        .run = plain_run,
        .submit = plain_submit,
        .reap = plain_reap,
        .watch = plain_watch,
        .watch_fired = plain_watch_fired,
        .wait = plain_wait,
        .destroy = plain_destroy,
    };
    struct disk_plain *plain = calloc(1, sizeof(*plain));
    if (plain == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    plain->disk.ops = &ops;
    plain->waker = waker;
    disk_watch_init(&plain->watch);
    list_init(&plain->done);
    return &plain->disk;
}
