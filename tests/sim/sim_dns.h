/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_dns: name servers for the resolver actor: a table of rows (tests/unit/dns/fake_zone) behind
 * seeded delays and faults.
 *
 * One `struct sim_dns` is the name servers' side and lives as long as the test; sim_dns_source
 * makes a dns_source on it, one for each life of the engine. Rows may be added and changed at any
 * time: what is asked later is answered so. By chance (in 1/65536) a question fails (SERVFAIL), is
 * given up after `timeout_ns`, or, without a fault, is answered late. The chance may be changed at
 * any time too.
 *
 * A countdown (sim_dns_fail_at) lets the n-th question come to nothing in one of the ways there
 * are.
 *
 * Rows that were taken out are remembered, with the times in which they stood (sim_leads.h).
 *
 * Bounds: SIM_DNS_ROWS_MAX rows (a bug of the test beyond). One thread.
 */
#pragma once

#include "dns/dns_source.h"
#include "engine/base/random.h"
#include "tests/unit/dns/dns_build.h"
#include "tests/unit/dns/fake_zone.h"

enum { SIM_DNS_ROWS_MAX = 512, SIM_DNS_TEXT_MAX = 80 };

/* What becomes of a question. */
enum sim_dns_fate {
    SIM_DNS_ANSWER,
    SIM_DNS_FAIL, /* SERVFAIL */
    SIM_DNS_TIMEOUT,
    SIM_DNS_CUT,   /* half of the answer's bytes */
    SIM_DNS_OTHER, /* what another name, which does not exist, would be answered */
};
enum { SIM_DNS_FATES_COUNT = SIM_DNS_OTHER + 1 };

struct sim_dns_config {
    int64_t delay_min_ns;
    int64_t delay_max_ns;
    int64_t timeout_ns;
    uint32_t fail_chance;
    uint32_t timeout_chance;
};

struct sim_dns {
    const struct clock *clock;
    int64_t ahead_ns; /* of it is the clock of who asks; for the next source */
    struct random random;
    struct sim_dns_config config;
    uint32_t rows_count;
    struct fake_row rows[SIM_DNS_ROWS_MAX + 1];
    struct {
        char name[SIM_DNS_TEXT_MAX];
        char data[SIM_DNS_TEXT_MAX];
        int64_t from_ns;  /* the row has stood from then ... */
        int64_t until_ns; /* ... until then; INT64_MAX: it stands */
    } texts[SIM_DNS_ROWS_MAX];
    uint64_t questions_count;
    uint64_t fail_left;
    enum sim_dns_fate fail_fate;
    bool is_fail_sticky;
    uint64_t failures_count; /* by sim_dns_fail_at */
    char message[DNS_BUILD_MESSAGE_MAX];
};

void sim_dns_init(struct sim_dns *dns, const struct clock *clock, uint64_t seed,
                  const struct sim_dns_config *config);
/* The n-th question from now (n >= 1), when `is_sticky` all behind it too; n 0: none any more. */
void sim_dns_fail_at(struct sim_dns *dns, uint64_t n, enum sim_dns_fate fate, bool is_sticky);
/* `data` may be NULL, as in fake_zone.h. */
void sim_dns_add(struct sim_dns *dns, const char *name, int type, uint32_t ttl_s, const char *data);
/* Takes all rows of the name out. */
void sim_dns_remove(struct sim_dns *dns, const char *name);
struct dns_source *sim_dns_source(struct sim_dns *dns);
