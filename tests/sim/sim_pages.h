/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_pages: large memory for engines that come and go by the hundred in one second.
 *
 * A life of an engine maps more than a hundred tables and touches a page or two of each; mapping
 * them, and giving them back one by one, is dearer than what the engine then does. Programs that
 * link this file with the linker's --wrap (meson.build) have mmap (of anonymous memory), munmap,
 * and malloc, calloc, realloc and free of SIM_PAGES_SIZE bytes and more, served from one large
 * range of addresses: what is given back stays until nothing of it is out any more, then all of it
 * is given to the kernel at once. Memory is zero when it is handed out, as theirs is. Not for
 * sanitizers, which have to see each allocation.
 *
 * What the engine takes (sim_memory.h), small pieces too, comes from places of its own, and its sum
 * is kept in sim_memory: so the checkers know what it holds.
 *
 * Bounds: SIM_PAGES_RANGE bytes of addresses; beyond that, or when these cannot be had, the
 * functions do what they always do. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { SIM_PAGES_SIZE = 65536 };

#define SIM_PAGES_RANGE (UINT64_C(1) << 40)

/* Bytes of addresses that are out, or wait for others to come back. */
size_t sim_pages_used(void);
