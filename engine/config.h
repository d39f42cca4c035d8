/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config: the configuration files as one immutable snapshot.
 *
 * Read by libconfuse: the named file, then every `*.conf` in its `conf.d/` (sorted). Every mistake
 * is told as `file:line: key: what is wrong; remedy`, all of them in one go as far as the library
 * lets us (one syntax error a file; every value error). Defining a source or route twice is an
 * error. Keys, types, defaults, bounds and help stand once, in config_keys.h: parser, manual page
 * and `ramjet check --defaults` are made from there.
 *
 * Lifetime: made at start by main, immutable, freed at the end of the process. Readers: any actor,
 * without waiting.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/smtp/smtp_session.h"
#include "net/addr.h"
#include "queue/backoff.h"

enum {
    CONFIG_WORKERS_MAX = 64,
    CONFIG_SOURCES_MAX = 256,
    CONFIG_ROUTES_MAX = 65536,
    CONFIG_HOSTS_MAX = 16,
};

struct config_source { /* egress address and the name said in EHLO */
    char *name;
    struct net_addr address;  /* family NET_NONE = the system chooses */
    struct net_addr address6; /* beside an IPv4 one; or NET_NONE */
    char *ehlo;
    uint32_t connections_max; /* of this source, all sites together, exact over all workers */
};

struct config_host {
    char *name; /* NULL when `addr` is given */
    struct net_addr addr;
    uint16_t port;
};

/* How mail to some domains goes: found by exact domain, then the longest "*.suffix", then "*". */
struct config_route {
    char *pattern;
    struct config_host hosts[CONFIG_HOSTS_MAX]; /* none: by DNS */
    uint32_t hosts_count;
    uint16_t port;                    /* default 25 */
    uint32_t connections_max;         /* per site, exact over all workers */
    uint32_t connection_messages_max; /* transactions on one connection */
    uint32_t connection_age_max_s;
    uint32_t connection_idle_ms;
    uint32_t backlog_per_connection; /* a further connection is opened for each so many waiting
                                        recipients */
    uint64_t rate_per_hour;          /* messages per site; 0 = no limit */
    uint32_t rate_burst;             /* messages that may go at once after a pause */
    uint32_t rcpts_max;              /* recipients in one transaction when the bytes are the same */
    uint32_t connect_timeout_ms;
    uint32_t suspend_first_s; /* a site none of whose hosts can be reached rests this long, doubling
                                 ... */
    uint32_t suspend_max_s;   /* ... up to this */
    struct backoff_schedule schedule;
    struct smtp_timeouts timeouts;
    uint32_t capabilities_off; /* EHLO keywords that are ignored (enum smtp_capability_bit) */
};

struct config {
    /* node */
    char *hostname; /* default: the system's; goes into EHLO of sources without a name of their own,
                       and Message-ID */
    uint32_t workers_count;
    int32_t cores[CONFIG_WORKERS_MAX]; /* core of worker i; -1 = not pinned */
    /* spool, log, control */
    char *spool;         /* directory */
    char *log_directory; /* NULL = <spool>/log */
    bool log_events;
    uint64_t log_size_max;
    uint64_t free_space_min;        /* below this the intake claims nothing more */
    char *control_socket;           /* NULL = <spool>/control.sock */
    struct net_addr metrics_listen; /* family NET_NONE = on the control socket only */
    uint32_t
        drain_timeout_ms; /* how long SIGTERM waits for sessions that are past the end of data */
    /* dns */
    char *dns_servers; /* NULL = resolv.conf */
    uint32_t dns_timeout_ms, dns_tries, dns_questions_max, dns_answers_max;
    uint32_t dns_ttl_min_s, dns_ttl_max_s, dns_negative_ttl_max_s, dns_temporary_ttl_s,
        dns_stale_max_s;
    bool use_ip4, use_ip6, allow_special;
    /* limits */
    uint32_t sessions_max; /* in all, shared out over the workers */
    uint32_t recipients_max;
    uint32_t batches_max;
    uint32_t domains_max;
    uint32_t sites_max;
    uint64_t message_size_max;
    uint64_t readahead_bytes_max;
    uint64_t journal_segment_size;
    uint32_t journal_segments_max;

    struct config_source *sources; /* at least one */
    uint32_t sources_count;
    struct config_route *routes; /* sorted by pattern, but the last one is "*" */
    uint32_t routes_count;
};

/* NULL with the errors, one a line, in `ret_errors`. path NULL: all defaults. */
/* What the source sends from to hosts of that family: of family NET_NONE when the system chooses,
 * NULL when it has none. */
static inline const struct net_addr *config_source_address(const struct config_source *source,
                                                           unsigned family)
{
    if (source->address6.family == family) {
        return &source->address6;
    }
    bool is_fine = source->address.family == NET_NONE || source->address.family == family;
    return is_fine ? &source->address : NULL;
}

struct config *config_read(const char *path, struct writer *ret_errors);
void config_destroy(struct config *config); /* NULL-safe */
/* Every key with its default and help, as a file that could be read. For `ramjet check --defaults`.
 */
void config_put_defaults(struct writer *writer);
/* The route of a domain (lower case); never NULL. `*ret_index` is its number. */
const struct config_route *config_route_of(const struct config *config, struct span domain,
                                           uint32_t *ret_index);
