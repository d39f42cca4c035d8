/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spool_pickup_priv: one pickup file as a BSMTP message. Sans-I/O; visible inside queue/ only.
 */
#pragma once

#include "queue/spool.h"

enum { PICKUP_RCPTS_MAX = SCAN_RCPTS_MAX, PICKUP_HEADER_MAX = 256 * 1024 };

/* Room that spool_pickup_convert needs at most for a file of that size. */
#define PICKUP_RECORD_MAX(size) (4 * (size_t)(size) + 64 * 1024)

/*
 * The envelope from x-sender / x-receiver lines, else from the header; those lines, Bcc and
 * Return-Path are left out; dots doubled, line ends CRLF. -EINVAL with the problem (without the
 * file's name) when nobody could rightly mail it.
 */
int spool_pickup_convert(struct span content, struct writer *ret_record,
                         struct spool_problem *ret_problem) __attribute__((warn_unused_result));
