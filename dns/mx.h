/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mx: from a name to the hosts that take its mail (RFC 5321 5, RFC 7505), sans-I/O: questions out,
 * raw messages in, one result.
 *
 * Owner and actor: resolver. A lookup is a slot of the resolver's slab: mx_lookup_start, then
 * mx_lookup_next for every question it wants to have asked (all A and AAAA of all hosts at once),
 * mx_lookup_on_reply for every answer in any order, and when mx_lookup_is_done, mx_lookup_result.
 * Literals and bad names are done at once. A lookup may be dropped at any time.
 *
 * Conformance: B1 aliases are followed inside a message and, when a server answers with half a
 * chain, by another question; B2, B3, B6, B7, B9, B10; B5 addresses of one host alternate between
 * A and AAAA, and every host has its first address before any has a second one; the additional
 * section is never read (3.10).
 *
 * Bounds: MX_TARGETS_MAX host names (the best by preference, then by name, so that the choice does
 * not change with the order of the records), MX_ADDRS_MAX addresses per host and family (of more,
 * each lookup keeps others), MX_HOSTS_MAX addresses in all; what is beyond is left out. Question
 * names that half chains lead to share MX_ALIAS_SPACE bytes; beyond that the chain counts as
 * failed.
 */
#pragma once

#include "dns/dns_message.h"
#include "dns/dns_source.h"
#include "dns/mx_cache.h"
#include "dns/mx_site.h"

enum { MX_TARGETS_MAX = 32, MX_ADDRS_MAX = 8, MX_ALIAS_SPACE = 4096 };

static_assert(MX_TARGETS_MAX <= (int)MX_SITE_HOSTS_MAX, "a site names all targets");
static_assert(MX_TARGETS_MAX <= (int)MX_HOSTS_MAX,
              "every target has a place for its first address");

struct mx_rules {
    bool use_ip4, use_ip6;
    bool allow_special;
    const char *own_names; /* comma-separated; NULL: none */
};

/* One chain of questions about one name and type: the state changes in ask_enter alone.
 *
 *   OFF                               never asked (family not in use)
 *   WANTED -> ASKED -> FOUND | NO_NAME | NO_DATA | LOOP | FAILED
 *      ^--------'                     half an alias chain: asked again under `name`
 */
enum mx_ask_state {
    MX_ASK_OFF,
    MX_ASK_WANTED,
    MX_ASK_ASKED,
    MX_ASK_FOUND,
    MX_ASK_NO_NAME,
    MX_ASK_NO_DATA,
    MX_ASK_LOOP,
    MX_ASK_FAILED,
};
enum { MX_ASK_STATES_COUNT = MX_ASK_FAILED + 1 };

struct mx_ask {
    enum mx_ask_state state;
    uint8_t type; /* enum dns_type */
    uint8_t aliases_count;
    uint8_t addrs_count;
    uint32_t ttl_s;   /* of the answer, also of a negative one; UINT32_MAX: none was given */
    struct span name; /* of the next question: the target's, or in `aliases` of the lookup */
    uint8_t addrs[MX_ADDRS_MAX][16];
};

enum { MX_FAMILIES_COUNT = 2 }; /* A, AAAA */

struct mx_target {
    uint16_t preference;
    uint16_t order; /* place in the answer */
    uint8_t name_size;
    char name[DNS_NAME_TEXT_MAX + 1];
    struct mx_ask families[MX_FAMILIES_COUNT];
};

/*
 *   START -> MX -> HOSTS -> DONE
 *     |       |               ^
 *     |       '---------------|     MX says it all: null MX, no name, failure
 *     |---------> HOSTS       |     MX_KIND_HOST
 *     '-----------------------'     literal, bad name
 */
enum mx_lookup_state { MX_LOOKUP_START, MX_LOOKUP_MX, MX_LOOKUP_HOSTS, MX_LOOKUP_DONE };
enum { MX_LOOKUP_STATES_COUNT = MX_LOOKUP_DONE + 1 };

struct mx_lookup {
    const struct mx_rules *rules;
    enum mx_lookup_state state;
    enum mx_kind kind;
    enum mx_outcome outcome; /* decided before any address, unless MX_OK */
    bool is_implicit;        /* no MX: the name itself is the host */
    bool is_literal;
    uint8_t targets_count;
    uint16_t asked_count; /* questions out */
    uint16_t aliases_size;
    uint16_t name_size;
    char name[DNS_NAME_TEXT_MAX + 1]; /* as in questions: lower case, no trailing dot */
    struct net_addr literal;
    struct mx_ask mx;
    uint8_t by_rank[MX_TARGETS_MAX]; /* indices of targets by preference */
    struct mx_target targets[MX_TARGETS_MAX];
    char aliases[MX_ALIAS_SPACE];
};

/* Which clamp of the cache's times a result falls under. */
enum mx_lifetime {
    MX_LIFE_POSITIVE,
    MX_LIFE_PARTIAL, /* addresses, but one family of a host could not be asked */
    MX_LIFE_NEGATIVE,
    MX_LIFE_TEMPORARY, /* also: all addresses of a host could not be asked */
};

struct mx_result {
    enum mx_outcome outcome;
    enum mx_lifetime lifetime;
    uint32_t ttl_s; /* the least of all records it rests on (B11); UINT32_MAX: none was given */
    uint16_t hosts_count;
    uint16_t names_size;
    struct mx_site site; /* name_size 0 unless MX_OK */
    struct mx_host hosts[MX_HOSTS_MAX];
    char names[MX_TARGETS_MAX * DNS_NAME_TEXT_MAX];
};

/* `rules` must outlive the lookup; `name` is copied. */
void mx_lookup_start(struct mx_lookup *lookup, const struct mx_rules *rules, enum mx_kind kind,
                     struct span name);
/* The next question to ask, which counts as asked from here on; NULL when there is none now. */
struct mx_ask *mx_lookup_next(struct mx_lookup *lookup);
/* Whether mx_lookup_next has one to give. */
bool mx_lookup_wants(const struct mx_lookup *lookup);
/* `ask` is what mx_lookup_next gave; `message` is read only with DNS_OK, _NO_NAME and _NO_DATA, and
 * the last two may come without one (then without a TTL). */
void mx_lookup_on_reply(struct mx_lookup *lookup, struct mx_ask *ask, enum dns_status status,
                        struct span message);
bool mx_lookup_is_done(const struct mx_lookup *lookup);
/* Out of time: what is not answered counts as failed, and the lookup is done. Answers that still
 * come must not reach it. */
void mx_lookup_give_up(struct mx_lookup *lookup);
void mx_lookup_result(const struct mx_lookup *lookup, struct mx_result *ret_result);
