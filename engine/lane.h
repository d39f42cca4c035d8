/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lane: one site through one source, on one worker: the recipients that wait for it and the
 * sessions that are open to it.
 *
 * Owner: its worker. Born when the first recipient of its site and source comes, ends
 * LANE_LINGER_MS after the last one has gone and the last session is closed; sooner, the longest
 * unused first, when lanes or sites run short (lane_spare.c). It keeps its site until then. Bound:
 * lanes_max of the worker; when none is left recipients stay on their domain.
 *
 * A recipient's way: ready -> load on its way to intake -> loaded -> dispatch (dispatch.h).
 *
 * Hosts: lane_pick_host chooses where the next connection goes: by preference, equal preference by
 * chance (B4; the hosts of a route are equals), hosts that failed lately are left out. When all
 * have failed, the site is suspended and what waits is deferred with the last failure (A33). When
 * all of them have said that they never accept mail (521 in the greeting), it bounces (N2). When
 * it is our own source that can reach none of them, only the lane rests. The hosts are those of a
 * domain that waits here, and only as long as its answer names this site: a domain may have moved
 * since its recipients came, and where it leads now is no place for the mail of the others.
 *
 * Aside: a message that one host cannot be given (larger than its SIZE, 8-bit without 8BITMIME) may
 * go to another host of the site. It waits for that in a second lane of the site and source, so
 * that the mail that all hosts take is not led away from the preferred ones. There hosts that have
 * declined a message are remembered with what they offered, and connections go to the host that did
 * so least lately; a message that all hosts decline bounces (E2, E4; dispatch_aside.c). A few that
 * wait for one of the worker's largest bufs do so there, too. When all hosts have failed there,
 * only that lane rests.
 *
 * Review: mail may wait here for days (a rate, a dead host, a pause). Every LANE_REVIEW_MS all of
 * it is looked at (dispatch_review.c), and placed anew when its domain leads elsewhere by now.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/list.h"
#include "engine/base/stat.h"
#include "engine/base/timer.h"
#include "engine/config.h"
#include "engine/policy.h"
#include "engine/site.h"
#include "net/addr.h"
#include "queue/ready.h"

struct delivery;
struct worker;

enum {
    LANE_BAD_HOSTS_MAX = MX_HOSTS_MAX, /* all of a domain: only when all failed the site rests */
    LANE_LINGER_MS = 60 * 1000,
    LANE_LOADS_MAX = 8,
    LANE_ERROR_MAX = 200,
    LANE_HOST_REST_MS = 60 * 1000, /* a host that failed is left out at most so long */
    /* No port was free to connect from: so long for the first time, doubled while it stays so. */
    LANE_PORTS_FIRST_MS = 1000,
    LANE_PORTS_MAX_MS = 30 * 1000,
    LANE_NO_MAIL_MS = 1000,            /* hosts that accept no mail are looked at again after it */
    LANE_DECLINED_MS = 10 * 60 * 1000, /* what a host that declined offered is remembered so long */
    LANE_HOST_NAME_MAX = 255,
    /* Who has waited so long is looked at: his domain may have moved ... */
    LANE_REVIEW_MS = 10 * 60 * 1000,
    LANE_REVIEW_AGAIN_MS = 60 * 1000, /* ... and once more when new answers were asked for */
};

/* A host that failed lately, or (aside) declined a message; its names by their hashes, because each
 * lane has room for many. */
struct lane_bad_host {
    uint64_t addr_hash;
    struct mono_time until; /* ns 0: no host here */
    uint32_t name_hash;
    bool is_no_mail;   /* it says that it never accepts any */
    bool is_declining; /* it takes other messages: */
    bool has_8bit;
    uint64_t size_max;
};

/* Where a lane waits: on the stack of the limit, or on its way home. */
struct lane_wait {
    struct limit_waiter waiter;
    struct lane *lane;
    bool is_away;
};

/* Who may refuse a connection. Each is waited for by itself: while a lane waits for one the other
 * may become the one that refuses. */
enum lane_limit { LANE_LIMIT_SITE, LANE_LIMIT_SOURCE };
enum { LANE_LIMITS_COUNT = LANE_LIMIT_SOURCE + 1 };

struct lane {
    struct list link;   /* in worker->lanes_all */
    struct list dirty;  /* in worker->lanes_dirty or a list of lanes_starved */
    struct list unused; /* in worker->lanes_unused: it lingers */
    struct lane *hash_next;
    uint64_t key;
    struct worker *worker;
    struct site *site; /* NULL: the worker's lane to nowhere */
    uint32_t site_generation;
    const struct config_source *source;
    struct limit *source_limit;
    struct ready ready;
    struct list loads;      /* filled, in the order of their return */
    uint32_t loads_asked;   /* with intake ... */
    uint32_t loading_count; /* ... and their recipients */
    uint32_t loads_filled;  /* in `loads` */
    uint32_t loaded_count;  /* recipients in `loads` not yet dispatched */
    struct list idle;       /* sessions that wait for work */
    struct list sessions;   /* all */
    uint32_t sessions_count;
    uint32_t connecting_count; /* of them, not READY yet */
    uint32_t ending_count;     /* of them, being closed */
    struct lane_wait waits[LANE_LIMITS_COUNT];
    bool is_aside;                  /* of messages that were put aside: see above */
    bool is_busy;                   /* it has recipients or sessions, and is counted by its site */
    bool is_load_same;              /* the recipients of the last load could share a transaction */
    bool is_sessionless;            /* it has no session, and the worker had none left */
    bool is_starved;                /* `dirty` is in a list of lanes_starved */
    bool is_held_up;                /* its first recipient waits for memory of the worker */
    bool is_asked;                  /* an MX query of it is away */
    bool is_answered;               /* one came back, and no host was picked since */
    struct mono_time rest_until;    /* our own source cannot be used; or (aside) no host */
    struct mono_time ports_at;      /* no port was free: no connection is opened before */
    uint32_t ports_rest_ms;         /* how long that rest is; 0: one was made since */
    struct mono_time ahead_at;      /* read-ahead was refused: not asked for again before */
    struct mono_time yielded_at;    /* the rate's next messages were left to others; ns 0: no */
    struct mono_time served_at;     /* some recipient left for a session, or one was opened */
    struct mono_time no_mail_until; /* no host accepts mail: what waits here bounces */
    struct mono_time review_at;
    uint64_t review_left;        /* of `ready`: not looked at yet in the review under way */
    struct inbox_chain reviewed; /* were looked at, and go back to `ready` */
    bool has_review_asked;       /* some answers were out of date */
    bool has_review_unasked;     /* ... and no query was free for some */
    bool is_review_second;       /* the next one looks at what came for these */
    struct timer timer;          /* rate, suspension, review, linger */
    struct lane_bad_host bad_hosts[LANE_BAD_HOSTS_MAX];
    uint8_t domain_size;
    char domain[MX_NAME_MAX + 1]; /* of some recipient here: where to look the hosts up */
    /* The last failure that speaks for the whole site. */
    enum policy_reason failure;
    const char *failure_command;
    uint16_t failure_code;
    struct smtp_enhanced failure_enhanced;
    uint16_t failure_size;
    char failure_text[LANE_ERROR_MAX];
    uint16_t error_size; /* the last failure of any recipient, for people */
    char error_text[LANE_ERROR_MAX];
    struct stat_counter delivered, deferred, bounced;
};

/* Where a connection may go. */
struct lane_host {
    struct net_addr addr; /* with port */
    uint8_t name_size;
    char name[LANE_HOST_NAME_MAX + 1];
};

enum lane_pick {
    LANE_PICK_HOST,    /* *ret_host is filled in */
    LANE_PICK_WAIT,    /* an MX query is on its way: the lane is marked dirty when it comes */
    LANE_PICK_NONE,    /* all hosts failed lately, or there are none: lane->failure says why */
    LANE_PICK_REST,    /* this source has an address of another family than all hosts */
    LANE_PICK_NO_MAIL, /* all hosts have said lately that they never accept mail */
    LANE_PICK_MOVED,   /* the domains of what is loaded belong to another site now */
};

/* The lane of the site (as remembered in that generation) and source, or the one aside of it, made
 * when missing. -ESTALE:
 * the site is to be obtained anew; -ENOBUFS: there is no slot. */
int lane_obtain(struct worker *worker, struct site *site, uint32_t site_generation,
                uint32_t source_index, bool is_aside, struct lane **ret_lane)
    __attribute__((warn_unused_result));
void lane_init(struct lane *lane, struct worker *worker, struct site *site, uint32_t source_index,
               bool is_aside);
/* The lane aside of it; NULL: there is none. */
struct lane *lane_find_aside(const struct lane *lane);
/* Whether it has nothing, and nothing of it is away. */
bool lane_may_retire(const struct lane *lane);
/* Ends a lane that may retire. */
void lane_retire(struct lane *lane);
/* Lanes have run out: true when one that lingered was ended. */
bool lane_spare_one(struct worker *worker);
/* Sites, or lanes, run short: some lanes that linger end, and if need be some idle sessions. */
void lane_spare_step(struct worker *worker, struct mono_time now);
/* Puts the lane on the worker's list of lanes to be dispatched. One that is there keeps its place:
 * with more lanes than a step dispatches, what happens to it in each would put it off for ever. */
void lane_mark_dirty(struct lane *lane);
/* The lane is dispatched at that time, if not before. */
void lane_wake_at(struct lane *lane, struct mono_time at);
void lane_push(struct lane *lane, struct recipient *recipient);
void lane_set_busy(struct lane *lane, bool is_busy);
void lane_set_sessionless(struct lane *lane, bool is_sessionless);
enum lane_pick lane_pick_host(struct lane *lane, struct mono_time now, struct lane_host *ret_host);
/*
 * The host could not be used: left out for LANE_HOST_REST_MS; the verdict (policy_of_host,
 * policy_of_connect) is kept as the lane's failure. `opened` is when it was begun to ask it: hosts
 * that were left out then stay so for as long as this one, else hosts that fail slowly would take
 * turns for ever, and none of the mail for them were ever deferred.
 */
void lane_host_failed(struct lane *lane, const struct lane_host *host, struct mono_time opened,
                      const struct policy_verdict *verdict, struct mono_time now);
/* What a message asks of a host. */
struct lane_need {
    uint64_t size;
    bool is_8bit;
};
/* What is known of the hosts of a site beside one that declines a message. */
enum lane_others {
    LANE_OTHERS_MAY_TAKE, /* one of them, for all that is known */
    LANE_OTHERS_FAILED,  /* all that could be asked decline; lane->failure says of some other why */
    LANE_OTHERS_DECLINE, /* all decline, or there are none that our source can reach */
};
/* Aside only: the host that offers this has declined a message, and stays one that may be used. */
void lane_host_declined(struct lane *lane, const struct lane_host *host,
                        const struct smtp_capabilities *offer, struct mono_time now);
/* Of a recipient of this domain, whose message the host declines. */
enum lane_others lane_others_of(const struct lane *lane, const struct lane_host *host,
                                struct span domain, const struct lane_need *need,
                                struct mono_time now);
/* No host accepts mail: what waits here is bounced with lane_no_mail until they are asked again. */
void lane_set_no_mail(struct lane *lane, struct mono_time now);
bool lane_is_no_mail(const struct lane *lane, struct mono_time now);
/* All hosts have failed, and no session is left: the site rests. Aside it is the lane that does,
 * for as long as the site would at first: the site's sessions go on meanwhile, and one more than a
 * host bears is no verdict on it. */
void lane_hosts_failed(struct lane *lane, struct mono_time now);
/* Our own source cannot be used: the lane rests for as long as the site would at first. */
void lane_source_failed(struct lane *lane, const struct policy_verdict *verdict,
                        struct mono_time now);
/* No local port was free for a connection: no more are opened for a moment, and what waits here
 * goes on waiting. It is nobody's failure: no attempt is counted. */
void lane_ports_missing(struct lane *lane, const struct policy_verdict *verdict,
                        struct mono_time now);
/* People want it tried now, whatever failed before. The site's own rest is not ended by it. */
void lane_rest_end(struct lane *lane);
/* Until when nobody is to be connected from here; ns 0 = there is no reason to wait. */
struct mono_time lane_rest_until(const struct lane *lane, struct mono_time now);
/* Recipients of all kinds that are here and not in flight. */
uint64_t lane_backlog(const struct lane *lane);
/* Whether its mail may come to belong elsewhere: not that of a route with hosts. */
bool lane_is_reviewed(const struct lane *lane);
bool lane_is_in_review(const struct lane *lane);
/* Remembers the words for `ramjet status`. */
void lane_note_error(struct lane *lane, const struct policy_response *response);
struct policy_verdict lane_failure(const struct lane *lane);
/* The bounce of what waits for hosts that accept no mail, with their words. */
struct policy_verdict lane_no_mail(const struct lane *lane);
