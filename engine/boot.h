/* SPDX-License-Identifier: Apache-2.0 */
/*
 * boot: makes all actors of an engine in order, gives each a thread, and takes them down again. The
 * only file that knows threads (DESIGN 2).
 *
 * Order: spool lock and journal replay before anything may write; then journal, resolver, site
 * table, workers, intake, control; threads last. Down in reverse. Workers are pinned to the cores
 * of the configuration; intake, journal and resolver run where the system puts them.
 */
#pragma once

#include "engine/base/bytes.h"
#include "engine/config.h"

/* Runs an engine until it is stopped; returns the process's exit status. Errors of the start and of
 * the end go to `ret_errors`, one a line; the last line of an engine that ran says how it ended. */
int boot_run(const struct config *config, struct writer *ret_errors);
