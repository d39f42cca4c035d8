/* SPDX-License-Identifier: Apache-2.0 */
/* The domains of a world, and what the name servers say of them, now and later. */
#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/sim_rates.h"
#include "tests/sim/sim_swarm_priv.h"

static const char NOBODY[] = "20.0.9.9"; /* where no host is */

/* Where rows go: to the name servers, or into a change. */
__attribute__((format(printf, 5, 6))) static void put_row(struct swarm *swarm,
                                                          struct swarm_change *change,
                                                          const char *name, int type,
                                                          const char *format, ...)
{
    char data[64];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(data, sizeof(data), format, arguments);
    va_end(arguments);
    uint32_t ttl_s = one_in(swarm, 4) ? 0 : between(swarm, 0, 3600);
    if (change == NULL) {
        sim_dns_add(swarm->sim->dns, name, type, ttl_s, type == FAKE_SERVFAIL ? NULL : data);
        return;
    }
    ensure(change->rows_count < SWARM_CHANGE_ROWS_MAX);
    struct swarm_row *row = &change->rows[change->rows_count++];
    row->type = type;
    row->ttl_s = ttl_s;
    (void)snprintf(row->data, sizeof(row->data), "%s", data);
}

static uint32_t host_draw(struct swarm *swarm, struct swarm_domain *domain)
{
    uint32_t host = below(swarm, swarm->hosts_count);
    domain->names |= 1u << host;
    return host;
}

static void draw_mx(struct swarm *swarm, struct swarm_domain *domain, struct swarm_change *change,
                    const char *name)
{
    uint32_t sets[2] = {0, 0}; /* a bit a host: first choice, second choice */
    uint32_t count = between(swarm, 1, swarm->hosts_count < 3 ? swarm->hosts_count : 3);
    uint32_t first = below(swarm, swarm->hosts_count);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t preference = between(swarm, 1, 2);
        uint32_t host = (first + i) % swarm->hosts_count;
        put_row(swarm, change, name, DNS_MX, "%u h%u.mail.example", 10 * preference, host);
        sets[preference - 1] |= 1u << host;
    }
    domain->names |= sets[0] | sets[1];
    domain->site = sets[0] == 0 ? sets[1] : sets[0] | sets[1] << SWARM_HOSTS_MAX;
}

/* Domains that mail can be brought to. */
static void draw_open(struct swarm *swarm, struct swarm_domain *domain, struct swarm_change *change,
                      enum swarm_kind kind)
{
    const char *name = domain->name;
    char other[40];
    domain->ends |= SIM_DELIVERED;
    if (kind == KIND_IMPLICIT) {
        uint32_t host = below(swarm, swarm->hosts_count);
        domain->addrs |= 1u << host;
        put_row(swarm, change, name, DNS_A, "20.0.0.%u", 1 + host);
    } else if (kind == KIND_ALIAS) {
        (void)snprintf(other, sizeof(other), "a%u.%s", swarm->sim->dns->rows_count, name);
        put_row(swarm, change, name, DNS_CNAME, "%s", other);
        draw_mx(swarm, domain, NULL, other);
    } else if (kind == KIND_MX_ALIAS) {
        (void)snprintf(other, sizeof(other), "m%u.%s", swarm->sim->dns->rows_count, name);
        put_row(swarm, change, name, DNS_MX, "10 %s", other);
        put_row(swarm, NULL, other, DNS_CNAME, "h%u.mail.example", host_draw(swarm, domain));
    } else if (kind == KIND_HALF) {
        put_row(swarm, change, name, DNS_MX, "5 gone.example");
        put_row(swarm, change, name, DNS_MX, "6 dead.example");
        put_row(swarm, change, name, DNS_MX, "10 h%u.mail.example", host_draw(swarm, domain));
    } else if (kind == KIND_MANY) {
        domain->addrs |= 1;
        domain->ends |= SIM_EXPIRED; /* slow name servers do not get through them in time */
        put_row(swarm, change, name, FAKE_MANY_MX, "%u", between(swarm, 8, 60));
    } else {
        draw_mx(swarm, domain, change, name);
    }
}

/* And those that it cannot. */
static void draw_closed(struct swarm *swarm, struct swarm_domain *domain,
                        struct swarm_change *change, enum swarm_kind kind)
{
    const char *name = domain->name;
    bool is_final = kind == KIND_NULL || kind == KIND_MISSING || kind == KIND_CIRCLE;
    domain->ends |= is_final ? SIM_BOUNCED : SIM_EXPIRED;
    if (kind == KIND_NULL) {
        put_row(swarm, change, name, DNS_MX, "0 .");
    } else if (kind == KIND_BROKEN) {
        put_row(swarm, change, name, FAKE_SERVFAIL, "-");
    } else if (kind == KIND_LITERAL) {
        put_row(swarm, change, name, DNS_MX, "10 20.0.0.1");
    } else if (kind == KIND_DANGLING) {
        put_row(swarm, change, name, DNS_MX, "10 gone.example");
    } else if (kind == KIND_DEAD) {
        put_row(swarm, change, name, DNS_MX, "10 dead.example");
    } else if (kind == KIND_CUT) {
        put_row(swarm, change, name, FAKE_RAW_MX, "000a");
    } else if (kind == KIND_CIRCLE) {
        put_row(swarm, change, name, DNS_CNAME, "%s", name);
    } else {
        ensure(kind == KIND_MISSING);
    }
}

static void draw_kind(struct swarm *swarm, struct swarm_domain *domain, struct swarm_change *change,
                      enum swarm_kind kind)
{
    bool is_open =
        kind == KIND_GOOD || kind == KIND_IMPLICIT || (kind >= KIND_ALIAS && kind <= KIND_MANY);
    if (is_open) {
        draw_open(swarm, domain, change, kind);
    } else {
        draw_closed(swarm, domain, change, kind);
    }
}

static enum swarm_kind kind_draw(struct swarm *swarm)
{
    return one_in(swarm, 4) ? (enum swarm_kind)below(swarm, SWARM_KINDS_COUNT) : KIND_GOOD;
}

void swarm_draw_domains(struct swarm *swarm)
{
    struct sim_dns *dns = swarm->sim->dns;
    sim_dns_add(dns, "dead.example", DNS_A, 300, NOBODY);
    sim_dns_add(dns, "mx0001.many.example", DNS_A, 300, NOBODY);
    sim_dns_add(dns, "mx0003.many.example", DNS_A, 300, "20.0.0.1");
    swarm->domains_count = skewed(swarm, 1, SWARM_DOMAINS_MAX);
    for (uint32_t i = 0; i < swarm->domains_count; i++) {
        struct swarm_domain *domain = &swarm->domains[i];
        (void)snprintf(domain->name, sizeof(domain->name), "d%u.example", i);
        domain->site = 1u << (2 * SWARM_HOSTS_MAX) | i; /* its own */
        draw_kind(swarm, domain, NULL, kind_draw(swarm));
    }
}

/* The name of a host gets the address of another one, or that of nobody. */
static void draw_move(struct swarm *swarm, struct swarm_change *change)
{
    uint32_t host = below(swarm, swarm->hosts_count);
    uint32_t other = below(swarm, swarm->hosts_count);
    (void)snprintf(change->name, sizeof(change->name), "h%u.mail.example", host);
    if (!swarm->is_calm && one_in(swarm, 4)) {
        put_row(swarm, change, change->name, DNS_A, "%s", NOBODY);
        return;
    }
    swarm->reach[host] |= 1u << other;
    put_row(swarm, change, change->name, DNS_A, "20.0.0.%u", 1 + other);
}

void swarm_draw_changes(struct swarm *swarm)
{
    uint32_t count = one_in(swarm, 3) ? skewed(swarm, 1, SWARM_CHANGES_MAX) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct swarm_change *change = &swarm->changes[swarm->changes_count];
        if (one_in(swarm, 3)) {
            draw_move(swarm, change);
        } else {
            struct swarm_domain *domain = &swarm->domains[below(swarm, swarm->domains_count)];
            _Static_assert(sizeof(change->name) >= sizeof(domain->name), "room for any");
            memcpy(change->name, domain->name, sizeof(domain->name));
            draw_kind(swarm, domain, change, kind_draw(swarm));
            domain->site = SIM_RATES_NO_SITE;
        }
        swarm_event_add(swarm, (struct swarm_event){.at_ns = within(swarm, 5000 * NS_PER_S),
                                                    .kind = EVENT_NAME,
                                                    .index = swarm->changes_count++});
    }
}

void swarm_change_happens(struct swarm *swarm, const struct swarm_change *change)
{
    struct sim_dns *dns = swarm->sim->dns;
    sim_dns_remove(dns, change->name);
    for (uint32_t i = 0; i < change->rows_count; i++) {
        const struct swarm_row *row = &change->rows[i];
        sim_dns_add(dns, change->name, row->type, row->ttl_s,
                    row->type == FAKE_SERVFAIL ? NULL : row->data);
        sim_trace(swarm->sim, "names: %s is now %s", change->name, row->data);
    }
}

uint32_t swarm_hosts_of(const struct swarm *swarm, const struct swarm_domain *domain)
{
    uint32_t hosts = domain->addrs;
    for (uint32_t i = 0; i < swarm->hosts_count; i++) {
        hosts |= (domain->names & 1u << i) != 0 ? swarm->reach[i] : 0;
    }
    return hosts;
}
