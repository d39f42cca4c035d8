/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx.h"

#include <errno.h>

#include "engine/base/ensure.h"

#define BIT(state) (1u << (state))

static const uint8_t ASK_NEXT[] = {
    [MX_ASK_OFF] = 0,
    [MX_ASK_WANTED] = BIT(MX_ASK_ASKED) | BIT(MX_ASK_FAILED),
    [MX_ASK_ASKED] = BIT(MX_ASK_WANTED) | BIT(MX_ASK_FOUND) | BIT(MX_ASK_NO_NAME) |
                     BIT(MX_ASK_NO_DATA) | BIT(MX_ASK_LOOP) | BIT(MX_ASK_FAILED),
    [MX_ASK_FOUND] = 0,
    [MX_ASK_NO_NAME] = 0,
    [MX_ASK_NO_DATA] = 0,
    [MX_ASK_LOOP] = 0,
    [MX_ASK_FAILED] = 0,
};
static_assert(COUNT_OF(ASK_NEXT) == MX_ASK_STATES_COUNT, "a row for every state");

static const uint8_t LOOKUP_NEXT[] = {
    [MX_LOOKUP_START] = BIT(MX_LOOKUP_MX) | BIT(MX_LOOKUP_HOSTS) | BIT(MX_LOOKUP_DONE),
    [MX_LOOKUP_MX] = BIT(MX_LOOKUP_HOSTS) | BIT(MX_LOOKUP_DONE),
    [MX_LOOKUP_HOSTS] = BIT(MX_LOOKUP_DONE),
    [MX_LOOKUP_DONE] = 0,
};
static_assert(COUNT_OF(LOOKUP_NEXT) == MX_LOOKUP_STATES_COUNT, "a row for every state");

static void ask_enter(struct mx_ask *ask, enum mx_ask_state state)
{
    ensure(ASK_NEXT[ask->state] & BIT(state));
    ask->state = state;
}

static void lookup_enter(struct mx_lookup *lookup, enum mx_lookup_state state)
{
    ensure(LOOKUP_NEXT[lookup->state] & BIT(state));
    lookup->state = state;
}

static void decide(struct mx_lookup *lookup, enum mx_outcome outcome)
{
    ensure(lookup->outcome == MX_OK);
    lookup->outcome = outcome;
    lookup_enter(lookup, MX_LOOKUP_DONE);
}

static void ask_init(struct mx_ask *ask, enum dns_type type, struct span name, bool is_wanted)
{
    ask->state = is_wanted ? MX_ASK_WANTED : MX_ASK_OFF;
    ask->type = (uint8_t)type;
    ask->aliases_count = 0;
    ask->addrs_count = 0;
    ask->ttl_s = UINT32_MAX;
    ask->name = name;
}

/* In the free slot `index`. */
static void target_init(struct mx_lookup *lookup, unsigned index, struct span name,
                        uint16_t preference, uint16_t order)
{
    ensure(index < MX_TARGETS_MAX);
    ensure(name.size <= DNS_NAME_TEXT_MAX);
    struct mx_target *target = &lookup->targets[index];
    target->preference = preference;
    target->order = order;
    target->name_size = (uint8_t)name.size;
    memcpy(target->name, name.at, name.size);
    target->name[name.size] = '\0';
}

static struct span target_name(const struct mx_target *target)
{
    return span_of(target->name, target->name_size);
}

/* Stable by construction: (preference, place in the answer) is unique. */
static void rank_targets(struct mx_lookup *lookup)
{
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        const struct mx_target *target = &lookup->targets[i];
        unsigned at = i;
        while (at > 0) {
            const struct mx_target *before = &lookup->targets[lookup->by_rank[at - 1]];
            if (before->preference < target->preference ||
                (before->preference == target->preference && before->order < target->order)) {
                break;
            }
            lookup->by_rank[at] = lookup->by_rank[at - 1];
            at--;
        }
        lookup->by_rank[at] = (uint8_t)i;
    }
}

static void ask_for_hosts(struct mx_lookup *lookup)
{
    ensure(lookup->targets_count > 0);
    rank_targets(lookup);
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        struct mx_target *target = &lookup->targets[i];
        struct span name = target_name(target);
        ask_init(&target->families[0], DNS_A, name, lookup->rules->use_ip4);
        ask_init(&target->families[1], DNS_AAAA, name, lookup->rules->use_ip6);
    }
    lookup_enter(lookup, MX_LOOKUP_HOSTS);
}

static void ask_for_name_itself(struct mx_lookup *lookup)
{
    target_init(lookup, 0, span_of(lookup->name, lookup->name_size), 0, 0);
    lookup->targets_count = 1;
    ask_for_hosts(lookup);
}

static bool is_own_name(const struct mx_rules *rules, struct span name)
{
    if (rules->own_names == NULL) {
        return false;
    }
    struct cursor cursor = cursor_of(span_of_text(rules->own_names));
    do {
        struct span own = span_trim(cursor_take_until(&cursor, ','));
        if (own.size > 0 && own.at[own.size - 1] == '.') {
            own.size--;
        }
        if (span_equal_nocase(own, name)) {
            return true;
        }
    } while (cursor_take_byte(&cursor, ','));
    return false;
}

static bool is_ip4_text(struct span text)
{
    struct net_addr addr;
    return span_find(text, ':') == text.size && net_addr_parse(text, &addr) &&
           addr.family == NET_IP4;
}

/* RFC 5321 4.1.3: "[192.0.2.1]", "[IPv6:2001:db8::1]" (B9). A route may name a bare address too. */
static bool parse_literal(enum mx_kind kind, struct span text, struct net_addr *ret_addr)
{
    bool is_bracketed = text.size >= 2 && text.at[0] == '[' && text.at[text.size - 1] == ']';
    if (!is_bracketed && kind != MX_KIND_HOST) {
        return false;
    }
    struct span inner = is_bracketed ? span_of(text.at + 1, text.size - 2) : text;
    bool is_tagged = is_bracketed && span_starts_nocase(inner, SPAN("IPv6:"));
    if (is_tagged) {
        inner = span_of(inner.at + 5, inner.size - 5);
    }
    struct net_addr addr;
    bool has_colon = span_find(inner, ':') < inner.size;
    if (span_find(inner, '[') < inner.size || !net_addr_parse(inner, &addr)) {
        return false;
    }
    bool is_sound =
        addr.family == NET_IP4 ? !has_colon && !is_tagged : is_tagged || kind == MX_KIND_HOST;
    if (is_sound) {
        *ret_addr = addr;
    }
    return is_sound;
}

/* ::ffff:a.b.c.d is a notation of IPv4 inside a host (RFC 4291 2.5.5.2); on the wire nobody has it,
 * and a socket that took it would leave through a source address that is not of the lane's family.
 */
static bool is_ip4_mapped(const struct net_addr *addr)
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    return addr->family == NET_IP6 && memcmp(addr->bytes, MAPPED, sizeof(MAPPED)) == 0;
}

static bool is_usable(const struct mx_lookup *lookup, const struct net_addr *addr)
{
    const struct mx_rules *rules = lookup->rules;
    if (is_ip4_mapped(addr) || (addr->family == NET_IP4 ? !rules->use_ip4 : !rules->use_ip6)) {
        return false;
    }
    return rules->allow_special || lookup->kind == MX_KIND_HOST || !net_addr_is_special(addr);
}

void mx_lookup_start(struct mx_lookup *lookup, const struct mx_rules *rules, enum mx_kind kind,
                     struct span name)
{
    ensure(rules->use_ip4 || rules->use_ip6);
    lookup->rules = rules;
    lookup->state = MX_LOOKUP_START;
    lookup->kind = kind;
    lookup->outcome = MX_OK;
    lookup->is_implicit = kind == MX_KIND_HOST;
    lookup->is_literal = parse_literal(kind, name, &lookup->literal);
    lookup->targets_count = 0;
    lookup->asked_count = 0;
    lookup->aliases_size = 0;
    lookup->name_size = 0;
    ask_init(&lookup->mx, DNS_MX, SPAN_NONE, false);
    if (lookup->is_literal) {
        decide(lookup, is_usable(lookup, &lookup->literal) ? MX_OK : MX_NO_ADDRESS);
        return;
    }
    if (name.size > 0 && name.at[name.size - 1] == '.') {
        name.size--;
    }
    if (!dns_name_is_plain(name) || is_ip4_text(name)) {
        decide(lookup, MX_BAD_NAME);
        return;
    }
    for (size_t i = 0; i < name.size; i++) {
        char byte = name.at[i];
        lookup->name[i] = byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
    }
    lookup->name_size = (uint16_t)name.size;
    lookup->name[name.size] = '\0';
    if (kind == MX_KIND_HOST) {
        ask_for_name_itself(lookup);
        return;
    }
    ask_init(&lookup->mx, DNS_MX, span_of(lookup->name, lookup->name_size), true);
    lookup_enter(lookup, MX_LOOKUP_MX);
}

static struct mx_ask *find_wanted(const struct mx_lookup *lookup)
{
    const struct mx_ask *wanted = NULL;
    if (lookup->state == MX_LOOKUP_MX && lookup->mx.state == MX_ASK_WANTED) {
        wanted = &lookup->mx;
    }
    if (lookup->state == MX_LOOKUP_HOSTS) {
        for (unsigned i = 0; i < lookup->targets_count && wanted == NULL; i++) {
            const struct mx_target *target = &lookup->targets[lookup->by_rank[i]];
            for (unsigned family = 0; family < MX_FAMILIES_COUNT && wanted == NULL; family++) {
                if (target->families[family].state == MX_ASK_WANTED) {
                    wanted = &target->families[family];
                }
            }
        }
    }
    return (struct mx_ask *)(uintptr_t)wanted;
}

bool mx_lookup_wants(const struct mx_lookup *lookup)
{
    return find_wanted(lookup) != NULL;
}

struct mx_ask *mx_lookup_next(struct mx_lookup *lookup)
{
    struct mx_ask *ask = find_wanted(lookup);
    if (ask != NULL) {
        ask_enter(ask, MX_ASK_ASKED);
        lookup->asked_count++;
    }
    return ask;
}

bool mx_lookup_is_done(const struct mx_lookup *lookup)
{
    return lookup->state == MX_LOOKUP_DONE;
}

static void lower_ttl(struct mx_ask *ask, uint32_t ttl_s)
{
    if (ttl_s < ask->ttl_s) {
        ask->ttl_s = ttl_s;
    }
}

/* The rest of the chain is asked for under the alias' target. */
static void ask_again(struct mx_lookup *lookup, struct mx_ask *ask, const struct dns_name *name)
{
    if (lookup->aliases_size + name->size > MX_ALIAS_SPACE) {
        ask_enter(ask, MX_ASK_FAILED);
        return;
    }
    char *copy = lookup->aliases + lookup->aliases_size;
    memcpy(copy, name->text, name->size);
    lookup->aliases_size = (uint16_t)(lookup->aliases_size + name->size);
    ask->name = span_of(copy, name->size);
    ask_enter(ask, MX_ASK_WANTED);
}

/* What one message means for one question, before its records are looked at. */
static void judge_reply(struct mx_lookup *lookup, struct mx_ask *ask, const struct dns_reply *reply)
{
    ask->aliases_count = (uint8_t)(ask->aliases_count + reply->aliases_count);
    ensure(ask->aliases_count <= DNS_ALIASES_MAX);
    lower_ttl(ask, reply->ttl_s);
    if (reply->rcode == DNS_RCODE_OK && reply->records_count > 0) {
        ask_enter(ask, MX_ASK_FOUND);
        return;
    }
    if (reply->rcode == DNS_RCODE_OK && reply->dropped_count > 0) {
        ask_enter(ask, MX_ASK_FAILED);
        return;
    }
    if (reply->rcode == DNS_RCODE_OK && reply->aliases_count > 0 && !reply->has_negative_ttl &&
        reply->name.is_plain && dns_name_is_plain(dns_name_span(&reply->name))) {
        ask_again(lookup, ask, &reply->name);
        return;
    }
    /* RFC 2308 5: without a SOA it should not be kept at all. */
    lower_ttl(ask, reply->has_negative_ttl ? reply->negative_ttl_s : 0);
    ask_enter(ask, reply->rcode == DNS_RCODE_OK ? MX_ASK_NO_DATA : MX_ASK_NO_NAME);
}

static bool is_worse(const struct mx_target *target, uint16_t preference, struct span name)
{
    if (target->preference != preference) {
        return target->preference > preference;
    }
    struct span own = target_name(target);
    int order = memcmp(own.at, name.at, own.size < name.size ? own.size : name.size);
    return order != 0 ? order > 0 : own.size > name.size;
}

/* Keeps the best MX_TARGETS_MAX names seen so far; of a name that comes twice, its better
 * preference (B8). */
static void offer_target(struct mx_lookup *lookup, struct span name, uint16_t preference,
                         uint16_t order)
{
    unsigned worst = 0;
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        struct mx_target *target = &lookup->targets[i];
        if (span_equal(target_name(target), name)) {
            if (preference < target->preference) {
                target->preference = preference;
                target->order = order;
            }
            return;
        }
        const struct mx_target *so_far = &lookup->targets[worst];
        if (is_worse(target, so_far->preference, target_name(so_far))) {
            worst = i;
        }
    }
    if (lookup->targets_count < MX_TARGETS_MAX) {
        target_init(lookup, lookup->targets_count++, name, preference, order);
    } else if (is_worse(&lookup->targets[worst], preference, name)) {
        target_init(lookup, worst, name, preference, order);
    }
}

/* RFC 5321 5.1: at our own preference and above, mail would come back to us or go round (B6). */
static void drop_from_preference(struct mx_lookup *lookup, uint32_t preference)
{
    unsigned kept_count = 0;
    for (unsigned i = 0; i < lookup->targets_count; i++) {
        struct mx_target target = lookup->targets[i];
        if (target.preference < preference) {
            target_init(lookup, kept_count++, target_name(&target), target.preference,
                        target.order);
        }
    }
    lookup->targets_count = (uint8_t)kept_count;
}

static void take_mx_records(struct mx_lookup *lookup, const struct dns_reply *reply,
                            struct span message)
{
    unsigned roots_count = 0;
    uint32_t own_preference = UINT32_MAX;
    for (unsigned i = 0; i < reply->records_count; i++) {
        uint16_t preference;
        struct dns_name name;
        if (!dns_mx_parse(message, reply->records[i], &preference, &name)) {
            continue;
        }
        if (name.size == 0) {
            roots_count++;
            continue;
        }
        /* An address in place of a name (B3), or a name that no host has. */
        if (!name.is_plain || is_ip4_text(dns_name_span(&name))) {
            continue;
        }
        if (is_own_name(lookup->rules, dns_name_span(&name)) && preference < own_preference) {
            own_preference = preference;
        }
        offer_target(lookup, dns_name_span(&name), preference, (uint16_t)i);
    }
    if (roots_count == reply->records_count) {
        decide(lookup, MX_NULL); /* RFC 7505 3 (B7) */
        return;
    }
    drop_from_preference(lookup, own_preference);
    if (lookup->targets_count > 0) {
        ask_for_hosts(lookup);
    } else {
        decide(lookup, own_preference < UINT32_MAX ? MX_LOOP : MX_NO_HOST);
    }
}

static void on_mx_reply(struct mx_lookup *lookup, const struct dns_reply *reply,
                        struct span message)
{
    switch (lookup->mx.state) {
    case MX_ASK_WANTED:
        return;
    case MX_ASK_FOUND:
        take_mx_records(lookup, reply, message);
        return;
    case MX_ASK_NO_NAME:
        decide(lookup, MX_NO_DOMAIN);
        return;
    case MX_ASK_NO_DATA:
        lookup->is_implicit = true;
        if (is_own_name(lookup->rules, span_of(lookup->name, lookup->name_size))) {
            decide(lookup, MX_LOOP);
            return;
        }
        ask_for_name_itself(lookup);
        return;
    case MX_ASK_LOOP:
        decide(lookup, MX_LOOP);
        return;
    case MX_ASK_FAILED:
        decide(lookup, MX_TEMPORARY);
        return;
    case MX_ASK_OFF:
    case MX_ASK_ASKED:
        break;
    }
    ensure(false);
}

/* Of more than there is room for each lookup keeps others, by the message's random id: so one that
 * works is met in time, also when the order of the records never changes. */
static void take_addrs(const struct mx_lookup *lookup, struct mx_ask *ask,
                       const struct dns_reply *reply)
{
    unsigned count = reply->records_count;
    unsigned first = count > MX_ADDRS_MAX ? reply->id % count : 0;
    for (unsigned i = 0; i < count && ask->addrs_count < MX_ADDRS_MAX; i++) {
        struct span record = reply->records[(first + i) % count];
        struct net_addr addr = {.family = ask->type == DNS_A ? NET_IP4 : NET_IP6};
        ensure(record.size == (ask->type == DNS_A ? 4u : 16u));
        memcpy(addr.bytes, record.at, record.size);
        if (is_usable(lookup, &addr)) {
            memcpy(ask->addrs[ask->addrs_count++], addr.bytes, sizeof(addr.bytes));
        }
    }
}

void mx_lookup_on_reply(struct mx_lookup *lookup, struct mx_ask *ask, enum dns_status status,
                        struct span message)
{
    ensure(ask->state == MX_ASK_ASKED);
    ensure(lookup->asked_count > 0);
    lookup->asked_count--;
    struct dns_reply reply;
    reply.records_count = 0; /* all that is looked at when nothing was parsed */
    bool is_negative = status == DNS_NO_NAME || status == DNS_NO_DATA;
    if (is_negative && message.size == 0) {
        lower_ttl(ask, 0);
        ask_enter(ask, status == DNS_NO_NAME ? MX_ASK_NO_NAME : MX_ASK_NO_DATA);
    } else if (!is_negative && status != DNS_OK) {
        ask_enter(ask, MX_ASK_FAILED);
    } else {
        int error = dns_reply_parse(message, ask->type, ask->name, ask->aliases_count, &reply);
        if (error == 0) {
            judge_reply(lookup, ask, &reply);
        } else {
            ask_enter(ask, error == -ELOOP ? MX_ASK_LOOP : MX_ASK_FAILED);
        }
    }
    if (lookup->state == MX_LOOKUP_MX) {
        ensure(ask == &lookup->mx);
        on_mx_reply(lookup, &reply, message);
        return;
    }
    ensure(lookup->state == MX_LOOKUP_HOSTS);
    if (ask->state == MX_ASK_FOUND) {
        take_addrs(lookup, ask, &reply);
    }
    if (lookup->asked_count == 0 && find_wanted(lookup) == NULL) {
        lookup_enter(lookup, MX_LOOKUP_DONE);
    }
}

static void ask_give_up(struct mx_ask *ask)
{
    if (ask->state == MX_ASK_WANTED || ask->state == MX_ASK_ASKED) {
        ask_enter(ask, MX_ASK_FAILED);
    }
}

void mx_lookup_give_up(struct mx_lookup *lookup)
{
    lookup->asked_count = 0;
    switch (lookup->state) {
    case MX_LOOKUP_START:
    case MX_LOOKUP_DONE:
        return;
    case MX_LOOKUP_MX:
        ask_give_up(&lookup->mx);
        decide(lookup, MX_TEMPORARY);
        return;
    case MX_LOOKUP_HOSTS:
        for (unsigned i = 0; i < lookup->targets_count; i++) {
            for (unsigned family = 0; family < MX_FAMILIES_COUNT; family++) {
                ask_give_up(&lookup->targets[i].families[family]);
            }
        }
        lookup_enter(lookup, MX_LOOKUP_DONE);
        return;
    }
    ensure(false);
}
