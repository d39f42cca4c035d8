/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pickup_begin: an open spool whose pickup/ was recovered, as the engine opens it; look() and
 * collect() by a second that both clocks show. What was collected last is in `collected`.
 */
#pragma once

#include "tests/unit/queue/spool_begin.h"

#define MAIL "x-sender: s@x\nx-receiver: a@b\n\nhi\n"

static struct spool_collected collected;

/* Again, behind a stop. */
static inline void start(void)
{
    struct spool_config config = spool_config_of(&check);
    CU_ASSERT_EQUAL_FATAL(spool_open(&spool, &config, &problem), 0);
    CU_ASSERT_EQUAL(spool_pickup_recover(&spool), 0);
}

static inline void pickup_begin(void)
{
    begin();
    CU_ASSERT_EQUAL(spool_pickup_recover(&spool), 0);
}

/* Both clocks show the same second. */
static inline int look(int64_t at_s, uint32_t files_max)
{
    struct mono_time mono = {.ns = at_s * NS_PER_S};
    return spool_pickup_collect(&spool, wall_s(at_s), mono, files_max, &collected);
}

/* Looks twice, far enough apart that what stands still is taken. */
static inline int collect(int64_t at_s)
{
    int result = look(at_s, 100);
    return result != 0 ? result : look(at_s + 2, 100);
}

static inline const char *messages(void)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "active/%s/messages-0.bsmtp", collected.directory);
    return text_of(path);
}
