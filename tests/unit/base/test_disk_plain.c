/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/disk.h"

#include "tests/harness.h"
#include "tests/unit/base/real_disk.h"

static void test_suite(void)
{
    struct real_disk real;
    CU_ASSERT_FATAL(real_disk_begin(&real, disk_plain_create));
    disk_suite_run(&real.suite);
    real_disk_end(&real);
}

static void test_wait(void)
{
    struct real_disk real;
    CU_ASSERT_FATAL(real_disk_begin(&real, disk_plain_create));
    real_disk_check_wait(&real);
    real_disk_end(&real);
}

static void test_wait_for_nothing_panics(void)
{
    int error;
    struct disk *disk = disk_plain_create(NULL, &error);
    CU_ASSERT_PTR_NOT_NULL_FATAL(disk);
    CHECK_PANICS(disk->ops->wait(disk, -1));
    disk_destroy(disk);
    disk_destroy(NULL);
}

SUITE(disk_plain, test_suite, test_wait, test_wait_for_nothing_panics)
