/* SPDX-License-Identifier: Apache-2.0 */
/*
 * disk_suite: the contract of engine/base/disk.h as one suite that runs against every
 * implementation.
 *
 * Call disk_suite_run inside a CUnit test; failures point into disk_suite.c. What a disk cannot be
 * asked for through the seam (links, FIFOs) comes from the caller; NULL leaves the checks out that
 * need it. The suite makes its files in `dir`, which must be empty, and leaves them there.
 */
#pragma once

#include "engine/base/disk.h"

struct disk_suite {
    struct disk *disk;
    int dir; /* a directory that this disk has opened */
    /* Lets time pass until something completes or a watch fires; it may come back early. */
    void (*settle)(struct disk_suite *suite);
    /* Makes a symbolic link in `dir`: 0 or -errno. */
    int (*make_link)(struct disk_suite *suite, const char *target, const char *name);
    int (*make_fifo)(struct disk_suite *suite, const char *name);
    void *user; /* the caller's */
};

void disk_suite_run(struct disk_suite *suite);
