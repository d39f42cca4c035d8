/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intake_broken: a disk of intake's that fails, for the tests of intake. One a program, from
 * break_disk until the rig is down.
 */
#pragma once

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/engine/intake_rig.h"

/* A disk of intake's that fails one verb, and counts how often a batch's stream is opened. */
static struct {
    const struct disk_ops *under;
    struct disk_ops ops;
    int failing; /* enum disk_verb; -1: none */
    int error;
    int fd; /* only of, or in, this one; -1: any */
    uint32_t failures_left;
    uint32_t streams_opened;
    struct clock_manual *slow; /* a read takes a second by it; NULL: none */
    int stream_fd;
    const char *growing; /* this path grows as the stream is read; NULL: none */
} broken;

static void file_grow(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    ensure(fd >= 0);
    ensure(write(fd, "\n", 1) == 1);
    (void)close(fd);
}

static int64_t broken_run(struct disk *disk, struct disk_op *op)
{
    bool is_stream = op->verb == DISK_OPEN && strcmp(op->path, "recipients.ndjson") == 0;
    broken.streams_opened += is_stream ? 1 : 0;
    if (is_stream) {
        broken.stream_fd = (int)broken.under->run(disk, op);
        return broken.stream_fd;
    }
    if (op->verb == DISK_READ && op->fd == broken.stream_fd && broken.growing != NULL) {
        file_grow(broken.growing);
    }
    if (op->verb == DISK_READ && broken.slow != NULL) {
        clock_manual_advance(broken.slow, NS_PER_S);
    }
    bool is_here = broken.fd < 0 || broken.fd == op->fd || broken.fd == op->dir;
    bool is_it = (int)op->verb == broken.failing && is_here;
    if (is_it && broken.failures_left > 0) {
        broken.failures_left--;
        op->result = broken.error;
        return op->result;
    }
    return broken.under->run(disk, op);
}

/* Until the rig is down. */
static void break_disk(struct rig *rig, int failing, int error)
{
    broken.under = rig->intake_disk->ops;
    broken.ops = *broken.under;
    broken.ops.run = broken_run;
    broken.ops.run_all = NULL;
    broken.failing = failing;
    broken.error = error;
    broken.fd = -1;
    broken.failures_left = UINT32_MAX;
    broken.streams_opened = 0;
    broken.slow = NULL;
    broken.growing = NULL;
    broken.stream_fd = -1;
    rig->intake_disk->ops = &broken.ops;
}
