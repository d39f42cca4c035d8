/* SPDX-License-Identifier: Apache-2.0 */
/* The domains of a world, and what the name servers say of them. */
#include <stdio.h>

#include "tests/sim/sim_swarm_priv.h"

static void draw_mx(struct swarm *swarm, struct swarm_domain *domain, uint32_t ttl_s)
{
    uint32_t sets[2] = {0, 0}; /* a bit a host: first choice, second choice */
    uint32_t count = between(swarm, 1, swarm->hosts_count < 3 ? swarm->hosts_count : 3);
    uint32_t first = below(swarm, swarm->hosts_count);
    for (uint32_t i = 0; i < count; i++) {
        char data[64];
        uint32_t preference = between(swarm, 1, 2);
        uint32_t host = (first + i) % swarm->hosts_count;
        (void)snprintf(data, sizeof(data), "%u h%u.mail.example", 10 * preference, host);
        sim_dns_add(swarm->sim->dns, domain->name, DNS_MX, ttl_s, data);
        sets[preference - 1] |= 1u << host;
    }
    domain->hosts |= sets[0] | sets[1];
    domain->site = sets[0] == 0 ? sets[1] : sets[0] | sets[1] << SWARM_HOSTS_MAX;
}

static void draw_kind(struct swarm *swarm, struct swarm_domain *domain, enum swarm_kind kind)
{
    struct sim_dns *dns = swarm->sim->dns;
    uint32_t ttl_s = between(swarm, 0, 3600);
    switch (kind) {
    case KIND_GOOD:
        domain->ends |= SIM_DELIVERED;
        draw_mx(swarm, domain, ttl_s);
        return;
    case KIND_IMPLICIT: {
        char addr[32];
        uint32_t host = below(swarm, swarm->hosts_count);
        (void)snprintf(addr, sizeof(addr), "20.0.0.%u", 1 + host);
        sim_dns_add(dns, domain->name, DNS_A, ttl_s, addr);
        domain->hosts |= 1u << host;
        domain->ends |= SIM_DELIVERED;
        return;
    }
    case KIND_NULL:
        domain->ends |= SIM_BOUNCED;
        sim_dns_add(dns, domain->name, DNS_MX, ttl_s, "0 .");
        return;
    case KIND_MISSING:
        domain->ends |= SIM_BOUNCED;
        return;
    case KIND_BROKEN:
        domain->ends |= SIM_EXPIRED;
        sim_dns_add(dns, domain->name, FAKE_SERVFAIL, 0, NULL);
        return;
    }
    ensure(false);
}

void swarm_draw_domains(struct swarm *swarm)
{
    swarm->domains_count = skewed(swarm, 1, SWARM_DOMAINS_MAX);
    for (uint32_t i = 0; i < swarm->domains_count; i++) {
        struct swarm_domain *domain = &swarm->domains[i];
        (void)snprintf(domain->name, sizeof(domain->name), "d%u.example", i);
        domain->site = 1u << (2 * SWARM_HOSTS_MAX) | i; /* its own */
        draw_kind(swarm, domain,
                  one_in(swarm, 4) ? (enum swarm_kind)below(swarm, SWARM_KINDS_COUNT) : KIND_GOOD);
    }
}
