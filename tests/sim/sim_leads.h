/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_leads: holds where mail went against what the name servers have said (sim_dns.h).
 *
 * A connection is opened only to an address that a name of its domain's mail hosts has had not
 * longer ago than an answer may be kept: its time to live, within the bounds of the configuration,
 * and `dns_stale_max_s` for when name servers fail. And that name was one of the domain's since its
 * mail was submitted, or was not longer ago than that. So mail in flight goes where either answer
 * says, and later mail only where the new one does.
 *
 * A breach is a sim_violation. Once, at the end.
 */
#pragma once

#include "tests/sim/sim_book.h"

void sim_leads_check(const struct sim_book *book);
