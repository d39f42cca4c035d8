/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx.h"

#include "engine/base/ensure.h"

/* What the addresses of one host came to. */
enum host_state { HOST_USABLE, HOST_FAILED, HOST_LOOP, HOST_NO_DATA, HOST_NO_NAME };

static void lower_ttl(struct mx_result *result, uint32_t ttl_s)
{
    if (ttl_s < result->ttl_s) {
        result->ttl_s = ttl_s;
    }
}

/* The most hopeful of the two families speaks for the host. */
static enum host_state judge_ask(const struct mx_ask *ask)
{
    switch (ask->state) {
    case MX_ASK_FOUND:
        return ask->addrs_count > 0 ? HOST_USABLE : HOST_NO_DATA;
    case MX_ASK_FAILED:
        return HOST_FAILED;
    case MX_ASK_LOOP:
        return HOST_LOOP;
    case MX_ASK_NO_DATA:
        return HOST_NO_DATA;
    case MX_ASK_NO_NAME:
    case MX_ASK_OFF:
        return HOST_NO_NAME;
    case MX_ASK_WANTED:
    case MX_ASK_ASKED:
        break;
    }
    ensure(false);
    return HOST_FAILED;
}

static enum host_state judge_host(const struct mx_target *target)
{
    enum host_state ip4 = judge_ask(&target->families[0]);
    enum host_state ip6 = judge_ask(&target->families[1]);
    return ip4 < ip6 ? ip4 : ip6;
}

static unsigned addrs_count(const struct mx_target *target)
{
    return (unsigned)target->families[0].addrs_count + target->families[1].addrs_count;
}

/* How many addresses each host may keep: one each in the order of rank, then a second one each, and
 * so on: a host with many addresses takes no place from the next host's first (B5). */
static void share_places(const struct mx_lookup *lookup, uint8_t *quotas)
{
    unsigned left = MX_HOSTS_MAX;
    bool has_given = true;
    memset(quotas, 0, MX_TARGETS_MAX);
    while (left > 0 && has_given) {
        has_given = false;
        for (unsigned rank = 0; rank < lookup->targets_count && left > 0; rank++) {
            if (quotas[rank] < addrs_count(&lookup->targets[lookup->by_rank[rank]])) {
                quotas[rank]++;
                left--;
                has_given = true;
            }
        }
    }
}

static void add_host(struct mx_result *result, const struct mx_ask *ask, unsigned index,
                     const struct mx_host *host)
{
    ensure(result->hosts_count < MX_HOSTS_MAX);
    ensure(index < ask->addrs_count);
    struct mx_host *slot = &result->hosts[result->hosts_count++];
    *slot = *host;
    slot->addr = (struct net_addr){.family = ask->type == DNS_A ? NET_IP4 : NET_IP6};
    memcpy(slot->addr.bytes, ask->addrs[index], sizeof(slot->addr.bytes));
    lower_ttl(result, ask->ttl_s);
}

/* A, AAAA, A, AAAA ...: as long as both families have one left (B5). IPv4 goes first: the larger
 * receivers are stricter with mail over IPv6. */
static void add_target(struct mx_result *result, const struct mx_target *target, unsigned rank,
                       unsigned quota)
{
    struct mx_host host = {
        .preference = target->preference,
        .name_at = result->names_size,
        .name_size = target->name_size,
        .rank = (uint8_t)rank,
    };
    ensure(result->names_size + target->name_size <= sizeof(result->names));
    memcpy(result->names + result->names_size, target->name, target->name_size);
    result->names_size = (uint16_t)(result->names_size + target->name_size);
    const struct mx_ask *ip4 = &target->families[0], *ip6 = &target->families[1];
    unsigned ip4_count = 0, ip6_count = 0;
    while (ip4_count + ip6_count < quota) {
        bool is_ip4_turn = ip4_count <= ip6_count;
        if (ip4_count < ip4->addrs_count && (is_ip4_turn || ip6_count == ip6->addrs_count)) {
            add_host(result, ip4, ip4_count++, &host);
        } else {
            add_host(result, ip6, ip6_count++, &host);
        }
    }
}

/* All names of the set take part, also those without an address today: the site must not change its
 * name when a host of it comes and goes. */
static void name_site(const struct mx_lookup *lookup, struct mx_site *ret_site)
{
    struct mx_site_host hosts[MX_TARGETS_MAX];
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        const struct mx_target *target = &lookup->targets[i];
        hosts[i].name = span_of(target->name, target->name_size);
        hosts[i].group = target->preference;
    }
    mx_site_build(hosts, lookup->targets_count, ret_site);
}

static void add_usable_hosts(const struct mx_lookup *lookup, struct mx_result *result)
{
    uint8_t quotas[MX_TARGETS_MAX];
    unsigned used_rank = 0;
    share_places(lookup, quotas);
    for (unsigned rank = 0; rank < lookup->targets_count; rank++) {
        const struct mx_target *target = &lookup->targets[lookup->by_rank[rank]];
        if (quotas[rank] > 0) {
            add_target(result, target, used_rank++, quotas[rank]);
        }
        bool has_failed = target->families[0].state == MX_ASK_FAILED ||
                          target->families[1].state == MX_ASK_FAILED;
        if (has_failed && addrs_count(target) == 0) {
            result->lifetime = MX_LIFE_TEMPORARY;
        } else if (has_failed && result->lifetime == MX_LIFE_POSITIVE) {
            result->lifetime = MX_LIFE_PARTIAL;
        }
    }
    ensure(result->hosts_count > 0);
    name_site(lookup, &result->site);
}

/* No host of the set has an address that we may use. */
static enum mx_outcome outcome_without_hosts(const struct mx_lookup *lookup, enum host_state best)
{
    switch (best) {
    case HOST_FAILED:
        return MX_TEMPORARY; /* B2 */
    case HOST_LOOP:
        return lookup->is_implicit ? MX_LOOP : MX_NO_HOST;
    case HOST_NO_DATA:
        return lookup->is_implicit ? MX_NO_ADDRESS : MX_NO_HOST; /* B3 */
    case HOST_NO_NAME:
        if (lookup->kind == MX_KIND_HOST) {
            return MX_NO_DOMAIN;
        }
        return lookup->is_implicit ? MX_NO_ADDRESS : MX_NO_HOST;
    case HOST_USABLE:
        break;
    }
    ensure(false);
    return MX_TEMPORARY;
}

static void conclude_hosts(const struct mx_lookup *lookup, struct mx_result *result)
{
    enum host_state best = HOST_NO_NAME;
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        enum host_state state = judge_host(&lookup->targets[i]);
        best = state < best ? state : best;
    }
    if (best == HOST_USABLE) {
        add_usable_hosts(lookup, result);
        return;
    }
    result->outcome = outcome_without_hosts(lookup, best);
    result->lifetime = result->outcome == MX_TEMPORARY ? MX_LIFE_TEMPORARY : MX_LIFE_NEGATIVE;
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        lower_ttl(result, lookup->targets[i].families[0].ttl_s);
        lower_ttl(result, lookup->targets[i].families[1].ttl_s);
    }
}

/* The text is made from the address, so that two spellings of one literal are one site. */
static void conclude_literal(const struct mx_lookup *lookup, struct mx_result *result)
{
    struct writer writer = writer_of(result->names, sizeof(result->names));
    writer_put(&writer, lookup->literal.family == NET_IP4 ? SPAN("[") : SPAN("[IPv6:"));
    net_addr_put(&writer, &lookup->literal);
    writer_put_byte(&writer, ']');
    ensure(!writer.is_full);
    result->names_size = (uint16_t)writer_size(&writer);
    result->hosts_count = 1;
    result->hosts[0] = (struct mx_host){
        .addr = lookup->literal,
        .name_size = (uint8_t)result->names_size,
    };
    struct mx_site_host host = {.name = writer_span(&writer)};
    mx_site_build(&host, 1, &result->site);
}

void mx_lookup_result(const struct mx_lookup *lookup, struct mx_result *ret_result)
{
    ensure(lookup->state == MX_LOOKUP_DONE);
    ret_result->outcome = lookup->outcome;
    ret_result->lifetime = MX_LIFE_POSITIVE;
    ret_result->ttl_s = lookup->mx.ttl_s;
    ret_result->hosts_count = 0;
    ret_result->names_size = 0;
    ret_result->site = (struct mx_site){.key = 0};
    switch (lookup->outcome) {
    case MX_OK:
        if (lookup->is_literal) {
            conclude_literal(lookup, ret_result);
        } else {
            conclude_hosts(lookup, ret_result);
        }
        return;
    case MX_NULL:
        return;
    case MX_TEMPORARY:
        ret_result->lifetime = MX_LIFE_TEMPORARY;
        return;
    case MX_NO_DOMAIN:
    case MX_NO_HOST:
    case MX_NO_ADDRESS:
    case MX_LOOP:
    case MX_BAD_NAME:
        ret_result->lifetime = MX_LIFE_NEGATIVE;
        return;
    }
    ensure(false);
}
