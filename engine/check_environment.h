/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_environment: whether this machine lets the engine run as the configuration says
 * (`ramjet check`).
 *
 * Tries what the engine will do at its start, leaves nothing behind, and takes nothing from an
 * engine that runs: directories, sockets, source addresses, name servers, io_uring, descriptors,
 * cores, memory. Name servers are asked one question, when some route needs them. All findings in
 * one go: lines of text, each with its remedy. An error: the engine would not start. A warning: it
 * would, and some mail would wait, or people may be surprised.
 */
#pragma once

#include "engine/base/bytes.h"

struct config;

void check_environment(const struct config *config, struct writer *ret_errors,
                       struct writer *ret_warnings);
/* Those that are on no interface of this machine. The engine runs without them, and says so at its
 * start: one address that is lost must not stop the mail of all others. */
void check_source_addresses(const struct config *config, struct writer *ret_warnings);
