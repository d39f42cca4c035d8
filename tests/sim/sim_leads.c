/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_leads.h"

#include <stdio.h>

/* From the answer of a name server to the packet that opens a connection: the other questions of
 * the lookup, steps that are late, the way. */
static const int64_t LATE_NS = 40 * NS_PER_S;
enum { ALIASES_MAX = 4 };

/* What is asked: whether a name led to the address in this time. */
struct way {
    const struct sim_engine *sim;
    const char *addr;
    int64_t submitted_ns;
    int64_t opened_ns; /* a connection, which serves who is led to its hosts later as well */
    int64_t heard_ns;
};

static int64_t kept_ns(const struct sim_engine *sim, uint32_t ttl_s)
{
    const struct config *config = &sim->config;
    uint32_t bounded_s = ttl_s < config->dns_ttl_max_s ? ttl_s : config->dns_ttl_max_s;
    bounded_s = bounded_s > config->dns_ttl_min_s ? bounded_s : config->dns_ttl_min_s;
    return ((int64_t)bounded_s + config->dns_stale_max_s) * NS_PER_S + LATE_NS;
}

/* Whether an answer with this row may have been in use between the two times. */
static bool is_in_use(const struct way *way, uint32_t row, int64_t from_ns, int64_t to_ns)
{
    const struct sim_dns *dns = way->sim->dns;
    int64_t until_ns = dns->texts[row].until_ns;
    return dns->texts[row].from_ns <= to_ns &&
           (until_ns == INT64_MAX || until_ns + kept_ns(way->sim, dns->rows[row].ttl_s) >= from_ns);
}

static bool is_host(const struct way *way, const char *name, unsigned aliases)
{
    const struct sim_dns *dns = way->sim->dns;
    for (uint32_t i = 0; i < dns->rows_count; i++) {
        if (strcmp(dns->texts[i].name, name) != 0 ||
            !is_in_use(way, i, way->opened_ns, way->opened_ns)) {
            continue;
        }
        int type = dns->rows[i].type;
        const char *data = dns->texts[i].data;
        if ((type == DNS_A && strcmp(data, way->addr) == 0) ||
            (type == DNS_CNAME && aliases > 0 && is_host(way, data, aliases - 1))) {
            return true;
        }
    }
    return false;
}

/* Of the many, only those with an address of their own. */
static bool is_one_of_many(const struct way *way)
{
    const struct sim_dns *dns = way->sim->dns;
    for (uint32_t i = 0; i < dns->rows_count; i++) {
        const char *name = dns->texts[i].name;
        if (strstr(name, ".many.example") != NULL && is_host(way, name, 0)) {
            return true;
        }
    }
    return false;
}

static bool is_lead(const struct way *way, const char *domain, unsigned aliases)
{
    const struct sim_dns *dns = way->sim->dns;
    for (uint32_t i = 0; i < dns->rows_count; i++) {
        if (strcmp(dns->texts[i].name, domain) != 0 ||
            !is_in_use(way, i, way->submitted_ns, way->heard_ns)) {
            continue;
        }
        int type = dns->rows[i].type;
        const char *data = dns->texts[i].data;
        const char *blank = strchr(data, ' ');
        if ((type == DNS_MX && blank != NULL && is_host(way, blank + 1, ALIASES_MAX)) ||
            (type == DNS_A && is_host(way, domain, 0)) ||
            (type == FAKE_MANY_MX && is_one_of_many(way)) ||
            (type == DNS_CNAME && aliases > 0 && is_lead(way, data, aliases - 1))) {
            return true;
        }
    }
    return false;
}

void sim_leads_check(const struct sim_book *book)
{
    const struct sim_engine *sim = book->sim;
    size_t count;
    const struct sim_transaction *all = sim_peers_transactions(sim->peers, &count);
    struct way way = {.sim = sim, .opened_ns = -1};
    for (size_t i = 0; i < count; i++) {
        const struct sim_transaction *row = &all[i];
        if (row->number >= book->entries_count) {
            sim_violation(sim, "a server was asked to take mail for somebody at %s", row->domain);
        }
        bool is_known = i > 0 && way.opened_ns == row->opened_ns && row->host == all[i - 1].host &&
                        strcmp(row->domain, all[i - 1].domain) == 0 &&
                        book->entries[row->number].batch == book->entries[all[i - 1].number].batch;
        if (is_known) {
            continue;
        }
        char addr[NET_ADDR_TEXT_MAX + 1];
        struct net_addr bare = sim_peers_at(sim->peers, row->host)->addr;
        struct writer writer = writer_of(addr, NET_ADDR_TEXT_MAX);
        net_addr_put(&writer, &bare);
        *writer.at = '\0';
        way.addr = addr;
        way.submitted_ns = book->batches[book->entries[row->number].batch].at_ns;
        way.opened_ns = row->opened_ns;
        way.heard_ns = row->heard_ns;
        if (!is_lead(&way, row->domain, ALIASES_MAX)) {
            sim_violation(sim,
                          "mail for %s, of %.3f s, went to %s at %.3f s: no answer in use says so",
                          row->domain, (double)way.submitted_ns / (double)NS_PER_S, addr,
                          (double)way.opened_ns / (double)NS_PER_S);
        }
    }
}
