/* SPDX-License-Identifier: Apache-2.0 */
/*
 * real_disk: what the tests of the two real disks share: a scratch directory that is gone
 * afterwards, the suite over it, and the disk's sleep with its three ends.
 *
 * Owner: one test. Bounds: none. Failures are CUnit's.
 */
#pragma once

#include "tests/unit/base/disk_suite.h"

struct real_disk {
    struct disk_suite suite;
    struct waker waker;
    char path[64];
};

typedef struct disk *(*disk_create)(struct waker *waker, int *ret_error);

/* Makes the scratch directory and opens it; false when the disk cannot be had here. */
bool real_disk_begin(struct real_disk *real, disk_create create);
/* Empties and removes the scratch directory, destroys the disk. */
void real_disk_end(struct real_disk *real);

/* The disk's wait ends by its deadline, by the waker, by a completion and by the watch. */
void real_disk_check_wait(struct real_disk *real);
