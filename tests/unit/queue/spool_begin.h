/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_begin: an open spool on a checked disk below a base of its own, for each test anew. begin()
 * opens it, end() closes it and checks that the base can be removed; between them `check`, `spool`
 * and, where something was refused, `problem` are the test's.
 */
#pragma once

#include "tests/unit/queue/spool_check.h"
#include "tests/unit/queue/spool_one.h"

enum { NOW = 1796112000 }; /* 2026-12-01T08:00:00Z */

static struct check_disk check;
static struct spool spool;
static struct spool_problem problem;

static inline void begin(void)
{
    base_begin();
    check_disk_begin(&check, -1);
    struct spool_config config = spool_config_of(&check);
    CU_ASSERT_EQUAL_FATAL(spool_open(&spool, &config, &problem), 0);
}

static inline void end(void)
{
    spool_close(&spool);
    check_disk_end(&check);
    base_end();
}
