/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink_attempts: how often each scripted address was seen, by all threads of the sink together.
 *
 * One table of SINK_ATTEMPTS_MAX 64-bit hashes that are only ever added: scripts "xN" come here,
 * ordinary mail never does. An address that finds no place any more counts as seen often, so its
 * script ends.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"

enum { SINK_ATTEMPTS_MAX = 1 << 20 };

struct sink_attempts;

struct sink_attempts *sink_attempts_create(void); /* NULL: no memory */
void sink_attempts_destroy(struct sink_attempts *attempts);
/* Any thread: how often the address came before, and counts this time. */
uint32_t sink_attempts_count_xcore(struct sink_attempts *attempts, struct span address);
