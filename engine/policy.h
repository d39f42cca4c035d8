/* SPDX-License-Identifier: Apache-2.0 */
/*
 * policy: what a result of SMTP, DNS or connecting means. One table, pure functions, any actor.
 *
 * (stage, cause, reply) -> action x scope, with a reason that has a name in code and log. Sources:
 * RFC 5321 4.2, 4.5.3.1.10; RFC 7504, 7505; conformance.md 1.A, 1.B, 3 (numbers in the code).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dns/mx_cache.h"
#include "engine/smtp/smtp_session.h"
#include "net/net.h"

enum policy_action {
    POLICY_DELIVERED,
    POLICY_DEFER,
    POLICY_BOUNCE,
    POLICY_AGAIN, /* in a new transaction at once: too many recipients in this one (A15, A16), or
                     its connection has done its work (A14) */
};

enum policy_reason {
    REASON_DELIVERED,
    TEMP_REPLY,          /* the server's 4xx to this recipient or message */
    PERM_REPLY,          /* the server's 5xx */
    TEMP_TOO_MANY_RCPTS, /* 452 or 552 on RCPT behind accepted ones */
    TEMP_USED_UP,        /* the server ended a connection that had carried other mail */
    TEMP_NO_CONNECT,     /* no host could be connected */
    TEMP_GREETING,       /* refused at greeting or EHLO by all hosts */
    PERM_NO_MAIL,        /* all hosts say in their greeting that they accept no mail (N2) */
    TEMP_CONNECTION_LOST,
    TEMP_TIMEOUT,
    TEMP_PROTOCOL,  /* the server broke the protocol */
    TEMP_AMBIGUOUS, /* end of data was sent, no answer (LAW 6) */
    PERM_SIZE,      /* larger than the server takes */
    PERM_8BIT,      /* needs 8BITMIME */
    TEMP_LOOP,      /* the server greets with our name */
    TEMP_DNS,
    PERM_NO_DOMAIN,
    PERM_NULL_MX,
    TEMP_NO_HOST,
    TEMP_NO_SITE, /* all sites there may be are in use */
    PERM_NO_ADDRESS,
    PERM_DNS_LOOP,
    PERM_BAD_NAME,
    PERM_CONTENT, /* this recipient's message cannot be rendered */
    TEMP_CONTENT, /* its bytes cannot be read now */
    PERM_EXPIRED,
    PERM_CANCELLED,
};
enum { POLICY_REASONS_COUNT = PERM_CANCELLED + 1 };

/* What goes into the log as "response": the server's words, or ours ("Ramjet: ..."). */
struct policy_response {
    uint16_t code;
    struct smtp_enhanced enhanced;
    const char *command; /* "RCPT TO", "" */
    struct span content;
};

struct policy_verdict {
    enum policy_action action;
    enum policy_reason reason;
    struct policy_response response; /* content may point into the result's reply */
};

const char *policy_reason_name(enum policy_reason reason);

/* Of a recipient's result in a transaction. `is_behind_accepted`: another RCPT of the same
 * transaction had been accepted before. */
struct policy_verdict policy_of_result(const struct smtp_result *result, bool is_behind_accepted);
/* Of a domain that has no usable hosts; not for MX_OK. */
struct policy_verdict policy_of_mx(enum mx_outcome outcome);
/* Of a connection that could not be made. */
struct policy_verdict policy_of_connect(enum net_error error);
/* Of a reason of our own, with its standard words. */
struct policy_verdict policy_of_reason(enum policy_reason reason);

/* What a session that ended before its first transaction says about its host: true = the host is to
 * be left alone for a while (NEXT), false = an accident of this connection only. A29, N2. */
bool policy_is_host_bad(const struct smtp_result *result);
/* The verdict on that host. PERM_NO_MAIL: it greets with 521, so it never takes mail, whoever asks
 * (RFC 7504 3); when all hosts of a site say so, what waits for it bounces. One that gives a reason
 * of policy (5.7.x) means us, and is as any other refusal. */
struct policy_verdict policy_of_host(const struct smtp_result *result);
