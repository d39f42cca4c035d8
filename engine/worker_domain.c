/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/worker_priv.h"

#include <errno.h>

#include "dns/resolver.h"
#include "engine/load.h"
#include "engine/steady.h"

/* Budgets of one step. */
enum { STEP_PENDING = 1024, STEP_WAITING = 1024, STEP_DOMAINS = 16384 };

enum {
    ASKED_LEAST = 8,
    RELEASE_TURN = 256,
    RELEASE_MISSES = 64,
    REHOUSE_MS = 1000,
    NO_HOSTS_MS = 60 * 1000,
    /* Who waits on a domain is looked at so often whether his time is over. */
    REHOUSE_WHOLE_MS = 60 * 1000,
    /* Who finds no site waits so long for one to be given back, before he is put off. */
    SITELESS_MS = 8 * 1000,
};

static struct worker_domain *domain_of(struct worker *worker, const struct recipient *recipient)
{
    struct worker_domain *domain = &worker->domains[recipient->domain];
    uint32_t generation = domain_generation_xcore(worker->engine->domains, recipient->domain);
    if (domain->generation != generation) {
        ensure(domain->pending_count == 0);
        /* The place in the queue stays: others stand behind it. */
        *domain = (struct worker_domain){.generation = generation,
                                         .wait_next = domain->wait_next,
                                         .wait_prev = domain->wait_prev,
                                         .is_waiting = domain->is_waiting};
    }
    return domain;
}

/* The same source for all attempts of a recipient (greylisting looks at it): by its place in the
 * batch. */
static uint32_t source_of(const struct worker *worker, const struct recipient *recipient)
{
    return (recipient->ordinal / LOAD_MIXED_MAX) % worker->engine->config->sources_count;
}

static void pend(struct worker_domain *domain, struct recipient *recipient)
{
    recipient->node.link.next = NULL;
    if (domain->pending_last == NULL) {
        domain->pending_first = &recipient->node;
    } else {
        domain->pending_last->link.next = &recipient->node.link;
    }
    domain->pending_last = &recipient->node;
    domain->pending_count++;
}

static struct recipient *unpend(struct worker_domain *domain)
{
    struct inbox_node *node = domain->pending_first;
    if (node == NULL) {
        return NULL;
    }
    domain->pending_first = (struct inbox_node *)(void *)node->link.next;
    if (domain->pending_first == NULL) {
        domain->pending_last = NULL;
    }
    domain->pending_count--;
    return CONTAINER_OF(node, struct recipient, node);
}

static bool has_query(const struct worker *worker)
{
    return slab_left(&worker->queries) > WORKER_QUERIES_OF_LANES;
}

/* No more queries are away, of all workers, than the resolver can have under way: those beyond
 * would wait there in their order, behind names whose servers are dead, until they were given up
 * without being asked for. Here they are chosen from as each comes back. */
static bool may_ask(const struct worker *worker)
{
    const struct config *config = worker->engine->config;
    uint32_t share = config->dns_questions_max / worker->engine->workers_count;
    share = share > ASKED_LEAST ? share : ASKED_LEAST;
    return worker->queries.count_out < share && has_query(worker);
}

static void domain_query(struct worker *worker, struct worker_domain *domain, uint32_t index)
{
    struct span name = domain_name_xcore(worker->engine->domains, index);
    uint64_t user = (uint64_t)(domain->generation & 0x7fffffffu) << 32 | index;
    domain->is_asked = worker_ask(worker, MX_KIND_MAIL, name, user);
}

static bool domain_ask(struct worker *worker, struct worker_domain *domain, uint32_t index)
{
    if (domain->is_asked) {
        return true;
    }
    if (!may_ask(worker)) {
        return false;
    }
    domain_query(worker, domain, index);
    return domain->is_asked;
}

/* No query is free: the domain is asked for when its turn comes. */
static void domain_wait(struct worker *worker, struct worker_domain *domain, uint32_t index)
{
    if (domain->is_waiting) {
        return;
    }
    odd(worker_queries_full);
    domain->is_waiting = true;
    domain->wait_next = 0;
    domain->wait_prev = worker->wait_last;
    if (worker->wait_last == 0) {
        worker->wait_first = index + 1;
    } else {
        worker->domains[worker->wait_last - 1].wait_next = index + 1;
    }
    worker->wait_last = index + 1;
}

static bool may_ask_next(const struct worker *worker)
{
    return worker->wait_first != 0 && may_ask(worker);
}

/* The domain that has waited longest and the one that came last, in turn: a name that can be
 * resolved does not wait for a million before it that cannot, nor is any of these passed for ever.
 */
static uint32_t wait_take(struct worker *worker)
{
    worker->is_last_next = !worker->is_last_next;
    uint32_t place = worker->is_last_next ? worker->wait_last : worker->wait_first;
    struct worker_domain *domain = &worker->domains[place - 1];
    ensure(domain->is_waiting);
    domain->is_waiting = false;
    if (domain->wait_prev == 0) {
        worker->wait_first = domain->wait_next;
    } else {
        worker->domains[domain->wait_prev - 1].wait_next = domain->wait_next;
    }
    if (domain->wait_next == 0) {
        worker->wait_last = domain->wait_prev;
    } else {
        worker->domains[domain->wait_next - 1].wait_prev = domain->wait_prev;
    }
    return place - 1;
}

bool worker_domain_ask_step(struct worker *worker)
{
    for (uint32_t i = 0; i < STEP_WAITING && may_ask_next(worker); i++) {
        uint32_t index = wait_take(worker);
        struct worker_domain *domain = &worker->domains[index];
        if (domain->pending_count > 0) {
            ensure(domain_ask(worker, domain, index));
        }
    }
    return may_ask_next(worker);
}

static const struct config_route *domain_route(struct worker *worker, struct worker_domain *domain,
                                               uint32_t index)
{
    const struct config *config = worker->engine->config;
    if (domain->route == 0) {
        uint32_t route;
        (void)config_route_of(config, domain_name_xcore(worker->engine->domains, index), &route);
        domain->route = route + 1;
    }
    return &config->routes[domain->route - 1];
}

/* The site of a route with hosts of its own: one for all its domains. */
static struct site *route_site(struct worker *worker, const struct config_route *route,
                               struct mono_time now)
{
    uint64_t number = (uint64_t)(route - worker->engine->config->routes);
    char name[SITE_NAME_MAX];
    struct writer writer = writer_of(name, sizeof(name));
    writer_put(&writer, SPAN("route:"));
    struct span pattern = span_of_text(route->pattern);
    writer_put(&writer, span_of(pattern.at, pattern.size < 200 ? pattern.size : 200));
    return site_obtain_xcore(worker->engine->sites, UINT64_C(0x7261726f75746500) + number,
                             writer_span(&writer), route, now);
}

static void remember_site(struct worker_domain *domain, struct site *site, int64_t until_ns)
{
    domain->site = site;
    domain->site_generation = site == NULL ? 0 : site_generation_xcore(site);
    domain->is_siteless = site == NULL;
    domain->site_until_ns = until_ns;
}

/* Two routes over the same MX set have limits of their own: they are two sites. */
uint64_t worker_site_key(const struct worker *worker, const struct mx_answer *answer,
                         const struct config_route *route)
{
    uint64_t number = (uint64_t)(route - worker->engine->config->routes) + 1;
    return answer->site_key ^ number << 48;
}

bool worker_may_use_stale(const struct worker *worker)
{
    return stat_read_xcore(&worker->engine->resolver->stats.is_failing) != 0;
}

/* The domain's site, from its route or the MX cache. NULL: not known yet (asked), or no room;
 * *ret_is_nowhere: it has no hosts. */
static struct site *domain_site(struct worker *worker, struct worker_domain *domain, uint32_t index,
                                struct mono_time now, bool *ret_is_nowhere)
{
    *ret_is_nowhere = false;
    if (domain->site != NULL && domain->site_until_ns > now.ns) {
        return domain->site;
    }
    const struct config_route *route = domain_route(worker, domain, index);
    if (route->hosts_count > 0) {
        remember_site(domain, route_site(worker, route, now), INT64_MAX);
        return domain->site;
    }
    const struct mx_answer *answer;
    struct span name = domain_name_xcore(worker->engine->domains, index);
    enum mx_freshness freshness =
        mx_cache_find_xcore(worker->engine->mx_cache, MX_KIND_MAIL, name, now, &answer);
    if (freshness == MX_MISSING && domain->is_answered) {
        *ret_is_nowhere = true;
        return NULL;
    }
    bool is_wanted = freshness == MX_MISSING || (freshness == MX_STALE && !domain->is_answered);
    if (is_wanted && !domain_ask(worker, domain, index)) {
        domain_wait(worker, domain, index);
    }
    if (freshness == MX_MISSING) {
        return NULL;
    }
    /* The new answer is waited for, or the query that will ask for it. */
    bool is_awaited = is_wanted || domain->is_asked;
    if (freshness == MX_STALE && is_awaited && !worker_may_use_stale(worker)) {
        return NULL;
    }
    if (answer->outcome != MX_OK) {
        domain->no_hosts = (uint8_t)answer->outcome;
        domain->no_hosts_until_ns = mono_add_ms(now, NO_HOSTS_MS).ns;
        *ret_is_nowhere = true;
        return NULL;
    }
    domain->no_hosts_until_ns = 0;
    remember_site(domain,
                  site_obtain_xcore(worker->engine->sites, worker_site_key(worker, answer, route),
                                    span_of(answer->site_name, answer->site_name_size), route, now),
                  freshness == MX_FRESH ? answer->expires.ns : 0);
    return domain->site;
}

void worker_forget_site(struct worker *worker, const struct recipient *recipient)
{
    domain_of(worker, recipient)->site_until_ns = 0;
}

enum worker_lead worker_domain_lead(struct worker *worker, const struct recipient *recipient,
                                    struct site *site, struct mono_time now)
{
    uint32_t index = recipient->domain;
    struct worker_domain *domain = domain_of(worker, recipient);
    bool is_same = domain->site == site && domain->site_generation == site_generation_xcore(site);
    if (domain->site != NULL && domain->site_until_ns > now.ns &&
        (is_same || domain->site != site)) {
        return is_same ? WORKER_LEAD_HERE : WORKER_LEAD_AWAY;
    }
    const struct config_route *route = domain_route(worker, domain, index);
    const struct mx_answer *answer;
    enum mx_freshness freshness =
        mx_cache_find_xcore(worker->engine->mx_cache, MX_KIND_MAIL,
                            domain_name_xcore(worker->engine->domains, index), now, &answer);
    if (freshness == MX_MISSING || answer->outcome != MX_OK || route != site->route ||
        !site_is_of(site, worker_site_key(worker, answer, route),
                    span_of(answer->site_name, answer->site_name_size))) {
        return WORKER_LEAD_AWAY;
    }
    if (freshness == MX_STALE) {
        /* It had hosts: not one of the dead, and there may be many at a review. */
        if (!domain->is_asked && has_query(worker)) {
            domain_query(worker, domain, index);
        }
        return domain->is_asked ? WORKER_LEAD_ASKED : WORKER_LEAD_UNASKED;
    }
    remember_site(domain, site, answer->expires.ns);
    return WORKER_LEAD_HERE;
}

/* Cancelled or expired: it needs no host to be settled. */
static bool is_over(struct worker *worker, const struct recipient *recipient,
                    struct worker_domain *domain)
{
    const struct batch *batch = worker_batch(worker, recipient);
    const struct config_route *route = domain_route(worker, domain, recipient->domain);
    return (stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0 ||
           steady_now_s(worker->engine) > outcome_expiry_s(worker->engine, batch, route);
}

bool worker_is_siteless(struct worker *worker, const struct recipient *recipient)
{
    return domain_of(worker, recipient)->is_siteless;
}

enum mx_outcome worker_no_hosts(struct worker *worker, const struct recipient *recipient,
                                struct mono_time now)
{
    const struct worker_domain *domain = domain_of(worker, recipient);
    return domain->no_hosts_until_ns > now.ns ? (enum mx_outcome)domain->no_hosts : MX_TEMPORARY;
}

/* The lane he belongs to; NULL: it is not known yet, or (domain->is_siteless) there is no room. */
static struct lane *lane_of(struct worker *worker, const struct recipient *recipient,
                            struct worker_domain *domain, struct mono_time now)
{
    /* The site that was remembered may have been given to others meanwhile; so, hardly ever, may
     * the one that was obtained in its place. */
    for (uint32_t tries = 0; tries < 2; tries++) {
        bool is_nowhere;
        domain->is_siteless = false;
        struct site *site = domain_site(worker, domain, recipient->domain, now, &is_nowhere);
        if (site == NULL) {
            return is_nowhere ? worker->nowhere : NULL;
        }
        struct lane *lane;
        int result = lane_obtain(worker, site, domain->site_generation,
                                 source_of(worker, recipient), recipient->asides_count > 0, &lane);
        if (result == 0) {
            domain->siteless_since_ns = 0;
            return lane;
        }
        domain->is_siteless = result == -ENOBUFS;
        if (domain->is_siteless) {
            return NULL;
        }
        domain->site = NULL;
    }
    return NULL;
}

/* All sites, or lanes, are in use: true when one has been waited for long enough. */
static bool is_unserved(struct worker *worker, struct worker_domain *domain, struct mono_time now)
{
    const int64_t wait_ns = (int64_t)SITELESS_MS * NS_PER_MS;
    int64_t waited_ns = now.ns - domain->siteless_since_ns;
    /* A wait that is long over was that of others. */
    if (domain->siteless_since_ns == 0 || waited_ns >= 2 * wait_ns) {
        domain->siteless_since_ns = now.ns;
        waited_ns = 0;
    }
    if (waited_ns < wait_ns) {
        return false;
    }
    odd(sites_in_use);
    site_table_note_unserved_xcore(worker->engine->sites, 1);
    return true;
}

/* Nobody will call those who wait there: no query of theirs is away, and none is waited for; or a
 * query would not help, for want of a lane or site. */
static bool is_homeless(const struct worker_domain *domain)
{
    return domain->is_siteless || (!domain->is_asked && !domain->is_waiting);
}

void worker_place_recipient(struct worker *worker, struct recipient *recipient,
                            struct mono_time now)
{
    ensure(recipient->domain != DOMAIN_NONE);
    struct worker_domain *domain = domain_of(worker, recipient);
    struct lane *lane = lane_of(worker, recipient, domain, now);
    if (lane == NULL && domain->is_siteless && is_unserved(worker, domain, now)) {
        lane = worker->nowhere; /* put off there */
    }
    if (lane == NULL && is_over(worker, recipient, domain)) {
        lane = worker->nowhere;
    }
    if (lane == NULL) {
        pend(domain, recipient);
        worker_move(worker, PLACE_NONE, PLACE_DOMAIN, 1);
        worker->has_homeless |= is_homeless(domain);
        return;
    }
    worker_move(worker, PLACE_NONE, PLACE_READY, 1);
    lane_push(lane, recipient);
}

static void release_enqueue(struct worker *worker, struct worker_domain *domain)
{
    uint32_t place = (uint32_t)(domain - worker->domains) + 1;
    domain->release_next = 0;
    if (worker->release_last == 0) {
        worker->release_first = place;
    } else {
        worker->domains[worker->release_last - 1].release_next = place;
    }
    worker->release_last = place;
}

/* What waits on a domain now is to be placed again: a part a step. The domain stays what it is
 * meanwhile: those who wait hold it. */
static void domain_release(struct worker *worker, struct worker_domain *domain, bool is_whole)
{
    if (domain->pending_count == 0) {
        return;
    }
    bool is_queued = domain->release_left > 0;
    /* Under way already: those who came back to it since are looked at once more. */
    domain->release_left = domain->pending_count;
    domain->is_release_whole = is_whole || (is_queued && domain->is_release_whole);
    domain->release_misses = 0;
    if (!is_queued) {
        release_enqueue(worker, domain);
    }
}

void worker_domain_on_answer(struct worker *worker, uint64_t user)
{
    ensure((user & WORKER_QUERY_OF_LANE) == 0);
    struct worker_domain *domain = &worker->domains[(uint32_t)user];
    if ((domain->generation & 0x7fffffffu) == user >> 32) {
        domain->is_asked = false;
        domain_release(worker, domain, false);
        /* An answer that is not in the cache now was not kept: no asking for ever. */
        domain->is_answered = domain->release_left > 0;
    }
}

/* The first of the domain's turn; true when he did not find a place again. */
static bool release_one(struct worker *worker, struct worker_domain *domain, struct mono_time now)
{
    ensure(domain->release_left > 0);
    ensure(domain->release_left <= domain->pending_count);
    struct recipient *recipient = unpend(domain);
    domain->release_left--;
    worker_move(worker, PLACE_DOMAIN, PLACE_NONE, 1);
    worker_place_recipient(worker, recipient, now);
    return domain->pending_last == &recipient->node;
}

/* A part of those who wait on the first domain of the queue; then it is the turn of the next one.
 * Where so many in a row find no lane or site, the others would not either. Returns how many were
 * looked at. */
static uint32_t release_turn(struct worker *worker, struct mono_time now)
{
    struct worker_domain *domain = &worker->domains[worker->release_first - 1];
    uint32_t count = 0;
    for (; count < RELEASE_TURN && domain->release_left > 0; count++) {
        bool is_miss = release_one(worker, domain, now);
        domain->release_misses =
            is_miss && !domain->is_release_whole ? (uint8_t)(domain->release_misses + 1) : 0;
        if (domain->release_misses == RELEASE_MISSES) {
            domain->release_left = 0;
        }
    }
    worker->release_first = domain->release_next;
    worker->release_last = worker->release_first == 0 ? 0 : worker->release_last;
    if (domain->release_left > 0) {
        release_enqueue(worker, domain);
    } else {
        domain->is_answered = false;
        domain->is_release_whole = false;
    }
    return count;
}

bool worker_domain_release_step(struct worker *worker, struct mono_time now)
{
    for (uint32_t i = 0; i < STEP_PENDING && worker->release_first != 0;) {
        i += release_turn(worker, now);
    }
    return worker->release_first != 0;
}

/* False: no look around is due. */
static bool rehouse_begin(struct worker *worker, struct mono_time now)
{
    bool is_whole = worker->has_cancelled || !mono_before(now, worker->rehouse_whole_at);
    if (stat_read_xcore(&worker->stats.places[PLACE_DOMAIN]) == 0) {
        worker->has_cancelled = false;
        worker->has_homeless = false;
        return false;
    }
    if (!is_whole && (!worker->has_homeless || mono_before(now, worker->rehouse_at))) {
        return false;
    }
    worker->is_rehouse_whole = is_whole;
    worker->has_cancelled = false;
    worker->has_homeless = false;
    worker->rehouse_at = mono_add_ms(now, REHOUSE_MS);
    if (is_whole) {
        worker->rehouse_whole_at = mono_add_ms(now, REHOUSE_WHOLE_MS);
    }
    return true;
}

bool worker_domain_rehouse_step(struct worker *worker, struct mono_time now)
{
    if (worker->rehouse_next == 0 && !rehouse_begin(worker, now)) {
        return false;
    }
    uint32_t domains_max = worker->engine->config->domains_max;
    for (uint32_t i = 0; i < STEP_DOMAINS && worker->rehouse_next < domains_max; i++) {
        struct worker_domain *domain = &worker->domains[worker->rehouse_next++];
        if (worker->is_rehouse_whole || is_homeless(domain)) {
            domain_release(worker, domain, worker->is_rehouse_whole);
        }
    }
    if (worker->rehouse_next < domains_max) {
        return true;
    }
    worker->rehouse_next = 0;
    return worker->has_cancelled;
}

struct mono_time worker_domain_wake(const struct worker *worker)
{
    if (stat_read_xcore(&worker->stats.places[PLACE_DOMAIN]) == 0) {
        return MONO_NEVER;
    }
    return worker->has_homeless ? mono_earlier(worker->rehouse_at, worker->rehouse_whole_at)
                                : worker->rehouse_whole_at;
}
