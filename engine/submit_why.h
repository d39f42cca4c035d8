/* SPDX-License-Identifier: Apache-2.0 */
/*
 * submit_why: why a batch does not move, for `ramjet submit --wait`: asks the engine.
 *
 * Blocks as status_ask does. The words are a guess where several things may be the reason; they
 * name what the engine tells of itself, not of the batch.
 */
#pragma once

#include <stddef.h>

#include "queue/submit.h"

/* Words without line end; foreign bytes in them are shown as escapes. "" when nothing is known. */
void submit_why_find(const char *control_socket, enum submit_state state, char *ret_words,
                     size_t size);
