/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_rates: holds what the simulated hosts got against the rate of the route.
 *
 * A site may be given `rate_burst` messages at once and `rate_per_hour` in the long run (GCRA); a
 * group that shares a transaction counts as many as it has recipients, and begins when its first
 * may. What counts is the time at which the engine began a transaction, not its arrival: the
 * network delays each otherwise. Each start of the engine begins with a whole burst.
 *
 * Left out, which can only hide a breach: transactions whose time of beginning is not known
 * (sim_net_asked_ns), recipients that were refused, messages that never arrived.
 *
 * A breach is a sim_violation. Once, at the end; memory is the heap's.
 */
#pragma once

#include "tests/sim/sim_engine.h"

#define SIM_RATES_NO_SITE UINT32_MAX

/* `site_of` numbers a domain's set of mail hosts: no two sets have one number. SIM_RATES_NO_SITE:
 * it is not known, for the domain has moved; its mail is left out. */
void sim_rates_check(const struct sim_engine *sim, const struct config_route *route,
                     uint32_t (*site_of)(void *context, struct span domain), void *context);
