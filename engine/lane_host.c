/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which host of a lane's site is tried next, which are left out, and what is said when none is
 * left: the contracts are in lane.h.
 */
#include "engine/lane.h"

#include <stddef.h>
#include <xxhash.h>

#include "engine/load.h"
#include "engine/worker_priv.h"

static uint64_t addr_hash(const struct net_addr *addr)
{
    struct net_addr whole;
    memset(&whole, 0, sizeof(whole)); /* its gaps, too */
    whole.family = addr->family;
    whole.port = addr->port;
    memcpy(whole.bytes, addr->bytes, addr->family == NET_IP4 ? 4 : sizeof(whole.bytes));
    return XXH3_64bits(&whole, sizeof(whole));
}

static uint32_t name_hash(struct span name)
{
    return (uint32_t)XXH3_64bits(name.at, name.size);
}

static const struct lane_bad_host *bad_find(const struct lane *lane, const struct net_addr *addr,
                                            struct mono_time now)
{
    uint64_t hash = addr_hash(addr);
    for (uint32_t i = 0; i < LANE_BAD_HOSTS_MAX; i++) {
        const struct lane_bad_host *bad = &lane->bad_hosts[i];
        if (bad->addr_hash == hash && mono_before(now, bad->until)) {
            return bad;
        }
    }
    return NULL;
}

/* Whether a host of this name has said that it accepts no mail, at whichever of its addresses. */
static bool is_no_mail_name(const struct lane *lane, struct span name, struct mono_time now)
{
    uint32_t hash = name_hash(name);
    for (uint32_t i = 0; i < LANE_BAD_HOSTS_MAX; i++) {
        const struct lane_bad_host *bad = &lane->bad_hosts[i];
        if (bad->is_no_mail && bad->name_hash == hash && mono_before(now, bad->until)) {
            return true;
        }
    }
    return false;
}

static void note_failure(struct lane *lane, const struct policy_verdict *verdict)
{
    const struct policy_response *response = &verdict->response;
    size_t size = response->content.size < LANE_ERROR_MAX ? response->content.size : LANE_ERROR_MAX;
    /* One host that accepts no mail is no verdict on the site. */
    lane->failure = verdict->action == POLICY_DEFER ? verdict->reason : TEMP_GREETING;
    lane->failure_command = response->command;
    lane->failure_code = response->code;
    lane->failure_enhanced = response->enhanced;
    lane->failure_size = (uint16_t)size;
    memcpy(lane->failure_text, response->content.at, size);
    lane_note_error(lane, response);
}

static void rest(struct lane *lane, struct mono_time now)
{
    lane->rest_until = mono_add_ms(now, (int64_t)lane->site->route->suspend_first_s * 1000);
}

void lane_source_failed(struct lane *lane, const struct policy_verdict *verdict,
                        struct mono_time now)
{
    ensure(verdict->action == POLICY_DEFER); /* no word of any server */
    note_failure(lane, verdict);
    rest(lane, now);
}

void lane_hosts_failed(struct lane *lane, struct mono_time now)
{
    ensure(lane->sessions_count == 0);
    if (lane->is_aside) {
        rest(lane, now);
    } else {
        site_suspend_xcore(lane->site, now, &lane->worker->random);
    }
}

void lane_ports_missing(struct lane *lane, const struct policy_verdict *verdict,
                        struct mono_time now)
{
    odd(lane_no_port);
    lane_note_error(lane, &verdict->response);
    if (mono_before(now, lane->ports_at)) {
        return; /* several connects have met the same shortage */
    }
    uint32_t rest_ms = 2 * lane->ports_rest_ms;
    rest_ms = rest_ms == 0 ? LANE_PORTS_FIRST_MS : rest_ms;
    lane->ports_rest_ms = rest_ms < LANE_PORTS_MAX_MS ? rest_ms : LANE_PORTS_MAX_MS;
    lane->ports_at = mono_add_ms(now, lane->ports_rest_ms);
}

void lane_rest_end(struct lane *lane)
{
    lane->ports_at = (struct mono_time){.ns = 0};
    lane->rest_until = (struct mono_time){.ns = 0};
    for (uint32_t i = 0; i < LANE_BAD_HOSTS_MAX; i++) {
        lane->bad_hosts[i].until = (struct mono_time){.ns = 0};
    }
}

struct mono_time lane_rest_until(const struct lane *lane, struct mono_time now)
{
    ensure(lane->site != NULL);
    struct mono_time until = site_suspended_until_xcore(lane->site, now);
    if (mono_before(now, lane->rest_until) && mono_before(until, lane->rest_until)) {
        return lane->rest_until;
    }
    return until;
}

/* Where the host stands, so that one whose many connections fail together does not push the others
 * out; else the place whose time is over first. */
static struct lane_bad_host *bad_place(struct lane *lane, uint64_t hash)
{
    struct lane_bad_host *first = &lane->bad_hosts[0];
    for (uint32_t i = 0; i < LANE_BAD_HOSTS_MAX; i++) {
        struct lane_bad_host *bad = &lane->bad_hosts[i];
        if (bad->addr_hash == hash) {
            return bad;
        }
        first = mono_before(bad->until, first->until) ? bad : first;
    }
    return first;
}

void lane_host_failed(struct lane *lane, const struct lane_host *host, struct mono_time opened,
                      const struct policy_verdict *verdict, struct mono_time now)
{
    ensure(lane->site != NULL);
    ensure(verdict->action != POLICY_DELIVERED);
    ensure(!mono_before(now, opened));
    /* Shorter than any suspension of the site, so that behind one all hosts are tried again. */
    int64_t rest_ms = (int64_t)lane->site->route->suspend_first_s * 750;
    struct mono_time until =
        mono_add_ms(now, rest_ms < LANE_HOST_REST_MS ? rest_ms : LANE_HOST_REST_MS);
    for (uint32_t i = 0; i < LANE_BAD_HOSTS_MAX; i++) {
        struct lane_bad_host *bad = &lane->bad_hosts[i];
        if (!bad->is_declining && mono_before(opened, bad->until)) {
            bad->until = until;
        }
    }
    uint64_t hash = addr_hash(&host->addr);
    *bad_place(lane, hash) = (struct lane_bad_host){
        .addr_hash = hash,
        .until = until,
        .name_hash = name_hash(span_of(host->name, host->name_size)),
        .is_no_mail = verdict->reason == PERM_NO_MAIL,
    };
    note_failure(lane, verdict);
}

void lane_host_declined(struct lane *lane, const struct lane_host *host,
                        const struct smtp_capabilities *offer, struct mono_time now)
{
    ensure(lane->is_aside);
    uint64_t hash = addr_hash(&host->addr);
    bool has_size = (offer->bits & SMTP_CAN_SIZE) != 0 && offer->size_max > 0;
    *bad_place(lane, hash) = (struct lane_bad_host){
        .addr_hash = hash,
        .until = mono_add_ms(now, LANE_DECLINED_MS),
        .name_hash = name_hash(span_of(host->name, host->name_size)),
        .is_declining = true,
        .has_8bit = (offer->bits & SMTP_CAN_8BIT) != 0,
        .size_max = has_size ? offer->size_max : UINT64_MAX,
    };
}

void lane_set_no_mail(struct lane *lane, struct mono_time now)
{
    ensure(lane->sessions_count == 0);
    lane->no_mail_until = mono_add_ms(now, LANE_NO_MAIL_MS);
}

bool lane_is_no_mail(const struct lane *lane, struct mono_time now)
{
    return lane->sessions_count == 0 && mono_before(now, lane->no_mail_until);
}

struct policy_verdict lane_no_mail(const struct lane *lane)
{
    struct policy_verdict verdict = policy_of_reason(PERM_NO_MAIL);
    if (lane->failure_code == verdict.response.code && lane->failure_size > 0) {
        verdict.response.content = span_of(lane->failure_text, lane->failure_size);
        verdict.response.enhanced = lane->failure_enhanced;
    }
    verdict.response.command = smtp_stage_name(SMTP_STAGE_GREETING);
    return verdict;
}

struct policy_verdict lane_failure(const struct lane *lane)
{
    struct policy_verdict verdict = policy_of_reason(lane->failure);
    if (lane->failure_size > 0) {
        verdict.response.content = span_of(lane->failure_text, lane->failure_size);
        verdict.response.code = lane->failure_code;
        verdict.response.enhanced = lane->failure_enhanced;
    }
    ensure(verdict.action == POLICY_DEFER); /* no host of a site speaks for all */
    verdict.response.command = lane->failure_size > 0 ? lane->failure_command : "CONNECT";
    return verdict;
}

/* One candidate out of those of the best preference that have not failed lately, by chance
 * (reservoir of one). */
struct choice {
    bool has_one;
    bool has_foreign;    /* one of a family that our source is not of was left out */
    bool has_failed;     /* one that failed lately was left out ... */
    bool has_no_mail;    /* ... or one that never accepts mail */
    int64_t declined_ns; /* 0: it has not, lately; the one that did so least lately comes first */
    uint16_t preference;
    uint32_t seen;
    struct lane_host host;
};

/* Whether the one comes before the one chosen: below 0; as good: 0. */
static int rank(const struct choice *choice, int64_t declined_ns, uint16_t preference)
{
    if (!choice->has_one || declined_ns < choice->declined_ns) {
        return -1;
    }
    return declined_ns > choice->declined_ns ? 1 : preference - choice->preference;
}

static void choose(struct lane *lane, struct choice *choice, const struct net_addr *addr,
                   uint16_t port, uint16_t preference, struct span name, struct mono_time now)
{
    struct net_addr with_port = *addr;
    with_port.port = with_port.port != 0 ? with_port.port : port;
    if (config_source_address(lane->source, addr->family) == NULL) {
        choice->has_foreign |= !is_no_mail_name(lane, name, now);
        return;
    }
    const struct lane_bad_host *bad = bad_find(lane, &with_port, now);
    if (bad != NULL && !bad->is_declining) {
        choice->has_no_mail |= bad->is_no_mail;
        choice->has_failed |= !bad->is_no_mail;
        return;
    }
    int64_t declined_ns = bad != NULL ? bad->until.ns : 0;
    int order = rank(choice, declined_ns, preference);
    if (order > 0) {
        return;
    }
    if (order < 0) {
        choice->seen = 0;
    }
    choice->has_one = true;
    choice->declined_ns = declined_ns;
    choice->preference = preference;
    choice->seen++;
    if (random_below(&lane->worker->random, choice->seen) != 0) {
        return;
    }
    choice->host.addr = with_port;
    choice->host.name_size =
        (uint8_t)(name.size < LANE_HOST_NAME_MAX ? name.size : LANE_HOST_NAME_MAX);
    memcpy(choice->host.name, name.at, choice->host.name_size);
}

static void ask(struct lane *lane, enum mx_kind kind, struct span name)
{
    struct worker *worker = lane->worker;
    if (lane->is_asked) {
        return;
    }
    uint64_t user = handle_to_u64(slab_handle(&worker->lanes, lane)) | WORKER_QUERY_OF_LANE;
    lane->is_asked = worker_ask(worker, kind, name, user);
    if (!lane->is_asked) {
        worker_starve(lane, WANT_QUERY);
    }
}

/* True when the answer is there; asks otherwise. An expired one serves beside the question while
 * name servers fail, and when nothing better came (no asking for ever). */
static bool find_answer(struct lane *lane, enum mx_kind kind, struct span name,
                        struct mono_time now, const struct mx_answer **ret_answer)
{
    enum mx_freshness freshness =
        mx_cache_find_xcore(lane->worker->engine->mx_cache, kind, name, now, ret_answer);
    if (freshness == MX_MISSING || (freshness == MX_STALE && !lane->is_answered)) {
        ask(lane, kind, name);
    }
    return freshness == MX_FRESH ||
           (freshness == MX_STALE && (lane->is_answered || worker_may_use_stale(lane->worker)));
}

static void choose_from_answer(struct lane *lane, struct choice *choice,
                               const struct mx_answer *answer, uint16_t port, struct mono_time now)
{
    if (answer->outcome != MX_OK) {
        struct policy_verdict verdict = policy_of_mx(answer->outcome);
        lane->failure = verdict.action == POLICY_DEFER ? verdict.reason : TEMP_NO_HOST;
        lane->failure_size = 0;
        choice->has_failed = true;
        return;
    }
    for (uint32_t i = 0; i < answer->hosts_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        struct span name = span_of(answer->names + host->name_at, host->name_size);
        choose(lane, choice, &host->addr, port, host->preference, name, now);
    }
}

static bool choose_from_route(struct lane *lane, struct choice *choice,
                              const struct config_route *route, struct mono_time now)
{
    bool is_all_known = true;
    for (uint32_t i = 0; i < route->hosts_count; i++) {
        const struct config_host *host = &route->hosts[i];
        uint16_t port = host->port != 0 ? host->port : route->port;
        if (host->name == NULL) {
            char text[NET_ADDR_TEXT_MAX];
            struct writer writer = writer_of(text, sizeof(text));
            net_addr_put(&writer, &host->addr);
            choose(lane, choice, &host->addr, port, 0, writer_span(&writer), now);
            continue;
        }
        const struct mx_answer *answer;
        if (find_answer(lane, MX_KIND_HOST, span_of_text(host->name), now, &answer)) {
            choose_from_answer(lane, choice, answer, port, now);
        } else {
            is_all_known = false;
        }
    }
    return is_all_known;
}

/* Whether the answer leads to this lane's site. */
static bool is_of_site(const struct lane *lane, const struct mx_answer *answer)
{
    const struct site *site = lane->site;
    return answer->outcome == MX_OK &&
           site_is_of(site, worker_site_key(lane->worker, answer, site->route),
                      span_of(answer->site_name, answer->site_name_size));
}

/* Hosts from the answer for the domain, when it is of this site; false: it is not known yet. */
static bool choose_from_domain(struct lane *lane, struct choice *choice, struct span name,
                               struct mono_time now, bool *ret_is_here)
{
    const struct mx_answer *answer;
    *ret_is_here = false;
    if (!find_answer(lane, MX_KIND_MAIL, name, now, &answer)) {
        return false;
    }
    *ret_is_here = is_of_site(lane, answer);
    if (*ret_is_here) {
        choose_from_answer(lane, choice, answer, lane->site->route->port, now);
    }
    return true;
}

/* The domains of what is loaded, until one is of this site. */
static enum lane_pick choose_from_loads(struct lane *lane, struct choice *choice,
                                        struct mono_time now)
{
    bool is_known = true;
    uint32_t last = DOMAIN_NONE;
    for (struct list *link = lane->loads.next; link != &lane->loads; link = link->next) {
        const struct load *load = CONTAINER_OF(link, struct load, link);
        for (uint32_t i = load->next; i < load->count; i++) {
            uint32_t domain = load->recipients[i]->domain;
            bool is_here;
            if (domain == last) {
                continue;
            }
            last = domain;
            struct span name = domain_name_xcore(lane->worker->engine->domains, domain);
            is_known &= choose_from_domain(lane, choice, name, now, &is_here);
            if (is_here) {
                return LANE_PICK_NONE;
            }
        }
    }
    return is_known ? LANE_PICK_MOVED : LANE_PICK_WAIT;
}

/* NONE: the hosts were looked at, `choice` says what there was. */
static enum lane_pick choose_by_dns(struct lane *lane, struct choice *choice, struct mono_time now)
{
    bool is_here;
    struct span name = span_of(lane->domain, lane->domain_size);
    if (name.size > 0 && choose_from_domain(lane, choice, name, now, &is_here) && is_here) {
        return LANE_PICK_NONE;
    }
    /* Without a load one is on its way: the lane is marked dirty when it comes. */
    return list_is_empty(&lane->loads) ? LANE_PICK_WAIT : choose_from_loads(lane, choice, now);
}

enum lane_pick lane_pick_host(struct lane *lane, struct mono_time now, struct lane_host *ret_host)
{
    ensure(lane->site != NULL);
    const struct config_route *route = lane->site->route;
    struct choice choice;
    memset(&choice, 0, offsetof(struct choice, host));
    enum lane_pick pick = LANE_PICK_NONE;
    if (route->hosts_count == 0) {
        pick = choose_by_dns(lane, &choice, now);
    } else if (!choose_from_route(lane, &choice, route, now)) {
        pick = LANE_PICK_WAIT;
    }
    lane->is_answered = lane->is_answered && pick == LANE_PICK_WAIT;
    if (choice.has_one) {
        *ret_host = choice.host;
        return LANE_PICK_HOST;
    }
    if (pick == LANE_PICK_NONE && choice.has_foreign) {
        return LANE_PICK_REST;
    }
    /* To the letter: all of them. One that could not be asked may be one that takes it. */
    bool is_no_mail = choice.has_no_mail && !choice.has_failed;
    return pick == LANE_PICK_NONE && is_no_mail ? LANE_PICK_NO_MAIL : pick;
}

/* What is known of the hosts beside `self`, one after the other. */
struct others {
    const struct lane_need *need;
    uint64_t self_hash;
    bool may_take;
    bool has_failed;
};

static void look_at(const struct lane *lane, struct others *others, const struct net_addr *addr,
                    uint16_t port, struct mono_time now)
{
    struct net_addr with_port = *addr;
    with_port.port = with_port.port != 0 ? with_port.port : port;
    if (config_source_address(lane->source, addr->family) == NULL ||
        addr_hash(&with_port) == others->self_hash) {
        return;
    }
    const struct lane_bad_host *bad = bad_find(lane, &with_port, now);
    if (bad == NULL) {
        others->may_take = true;
    } else if (bad->is_declining) {
        bool is_fit = others->need->size <= bad->size_max;
        others->may_take |= is_fit && (bad->has_8bit || !others->need->is_8bit);
    } else {
        others->has_failed |= !bad->is_no_mail;
    }
}

static void look_at_answer(const struct lane *lane, struct others *others, enum mx_kind kind,
                           struct span name, uint16_t port, struct mono_time now)
{
    const struct mx_answer *answer;
    enum mx_freshness freshness =
        mx_cache_find_xcore(lane->worker->engine->mx_cache, kind, name, now, &answer);
    if (freshness == MX_MISSING || answer->outcome != MX_OK) {
        others->has_failed = true;
        return;
    }
    if (kind == MX_KIND_MAIL && !is_of_site(lane, answer)) {
        others->may_take = true; /* he is placed anew */
        return;
    }
    for (uint32_t i = 0; i < answer->hosts_count; i++) {
        look_at(lane, others, &answer->hosts[i].addr, port, now);
    }
}

enum lane_others lane_others_of(const struct lane *lane, const struct lane_host *host,
                                struct span domain, const struct lane_need *need,
                                struct mono_time now)
{
    const struct config_route *route = lane->site->route;
    struct others others = {.need = need, .self_hash = addr_hash(&host->addr)};
    if (route->hosts_count == 0) {
        look_at_answer(lane, &others, MX_KIND_MAIL, domain, route->port, now);
    }
    for (uint32_t i = 0; i < route->hosts_count; i++) {
        const struct config_host *other = &route->hosts[i];
        uint16_t port = other->port != 0 ? other->port : route->port;
        if (other->name == NULL) {
            look_at(lane, &others, &other->addr, port, now);
        } else {
            look_at_answer(lane, &others, MX_KIND_HOST, span_of_text(other->name), port, now);
        }
    }
    if (others.may_take) {
        return LANE_OTHERS_MAY_TAKE;
    }
    return others.has_failed ? LANE_OTHERS_FAILED : LANE_OTHERS_DECLINE;
}
