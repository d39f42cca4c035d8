/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ensure: what must be true, checked in every build.
 *
 * ensure(cond) is for bugs of ours only: a breach prints the expression with its place on standard
 * error and aborts. Operating failures are return codes, mail events are data (struct outcome);
 * neither ever reaches this file. The check stays on in release builds.
 *
 * ensure_slow(cond) is for walks over whole structures: on only when built with -Dslow_checks=true
 * (debug, simulation).
 *
 * odd(name) counts a survivable oddity by name (a stale handle, a reply nobody waits for). One
 * process-wide table, relaxed counters, at most ODD_NAMES_MAX names; later names share the last
 * slot "other". Any actor may call it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Never returns. Public only for the macros below. */
_Noreturn void ensure_fail(const char *expression, const char *file, int line,
                           const char *function);

#define ensure(condition)                                                                          \
    (__builtin_expect(!!(condition), 1) ? (void)0                                                  \
                                        : ensure_fail(#condition, __FILE__, __LINE__, __func__))

#ifdef RAMJET_SLOW_CHECKS
#define ensure_slow(condition) ensure(condition)
#else
#define ensure_slow(condition) ((void)sizeof(condition))
#endif

enum { ODD_NAMES_MAX = 64 };

#define odd(name) odd_count_xcore(#name)

/* `name` must be a string literal: it is kept. */
void odd_count_xcore(const char *name);

/* Row `index` of the table; false behind the last row. */
bool odd_row(size_t index, const char **ret_name, uint64_t *ret_count);
