/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status_ask: asks a running engine how it is, over its control socket.
 *
 * For the verbs, in processes of their own; blocks, at most some seconds for each part of the
 * answer. Bound: an answer of 1 MiB; a longer one is none.
 */
#pragma once

#include <jansson.h>

/* The object of GET /v1/status, the caller's; or -errno: nobody answers, or not that. */
int status_ask(const char *path, json_t **ret_status) __attribute__((warn_unused_result));
