/* SPDX-License-Identifier: Apache-2.0 */
/*
 * program: what the programs of bench/ share: reading of options, cores, limits of the process.
 *
 * For main functions and their threads at start. Wrong options and a system that refuses end the
 * program with status 2 and one line that says what was wrong and what is expected.
 */
#pragma once

#include <stdint.h>

#include "net/addr.h"

enum { PROGRAM_CORES_MAX = 256 };

struct program_cores {
    uint32_t count; /* 0: no pinning */
    uint16_t ids[PROGRAM_CORES_MAX];
};

__attribute__((noreturn, format(printf, 1, 2))) void program_die(const char *format, ...);
/* Decimal, lowest <= value <= highest. */
uint64_t program_uint(const char *option, const char *text, uint64_t lowest, uint64_t highest);
/* Decimal with a fraction, 0 <= value <= highest. */
double program_real(const char *option, const char *text, double highest);
/* With a port; port 0 only where `may_choose`. */
struct net_addr program_addr(const char *option, const char *text, bool may_choose);
/* "0,2,4-7" */
struct program_cores program_cores(const char *option, const char *text);
/* Thread `index` of a program goes to cores[index modulo count]; no-op without cores. */
void program_pin(const struct program_cores *cores, uint32_t index);
/* As many open files as the system lets us have. */
void program_raise_files(void);
