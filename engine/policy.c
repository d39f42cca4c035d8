/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/policy.h"

#include "engine/base/planted.h"

struct reason_row {
    const char *name;
    enum policy_action action;
    uint16_t code;
    struct smtp_enhanced enhanced;
    const char *words;
};

/* The standard words and codes of each reason, for when no server spoke. */
static const struct reason_row REASONS[] = {
    [REASON_DELIVERED] = {"DELIVERED", POLICY_DELIVERED, 250, {2, 0, 0}, "delivered"},
    [TEMP_REPLY] = {"TEMP_REPLY", POLICY_DEFER, 450, {4, 0, 0}, "the server asks to try later"},
    [PERM_REPLY] = {"PERM_REPLY", POLICY_BOUNCE, 550, {5, 0, 0}, "the server refuses"},
    [TEMP_TOO_MANY_RCPTS] =
        {"TEMP_TOO_MANY_RCPTS", POLICY_AGAIN, 452, {4, 5, 3}, "too many recipients"},
    [TEMP_USED_UP] = {"TEMP_USED_UP",
                      POLICY_AGAIN,
                      421,
                      {4, 3, 2},
                      "the server ended a connection that had carried other mail"},
    [TEMP_NO_CONNECT] =
        {"TEMP_NO_CONNECT", POLICY_DEFER, 451, {4, 4, 1}, "no host could be connected"},
    [TEMP_GREETING] =
        {"TEMP_GREETING", POLICY_DEFER, 451, {4, 3, 2}, "all hosts refuse the session"},
    [PERM_NO_MAIL] = {"PERM_NO_MAIL", POLICY_BOUNCE, 521, {5, 3, 2}, "no host accepts mail"},
    [TEMP_CONNECTION_LOST] =
        {"TEMP_CONNECTION_LOST", POLICY_DEFER, 451, {4, 4, 2}, "connection lost"},
    [TEMP_TIMEOUT] = {"TEMP_TIMEOUT", POLICY_DEFER, 451, {4, 4, 2}, "timeout"},
    [TEMP_PROTOCOL] =
        {"TEMP_PROTOCOL", POLICY_DEFER, 451, {4, 5, 0}, "the server broke the protocol"},
    [TEMP_AMBIGUOUS] =
        {"TEMP_AMBIGUOUS", POLICY_DEFER, 451, {4, 4, 2}, "no answer after the end of data"},
    [PERM_SIZE] = {"PERM_SIZE", POLICY_BOUNCE, 552, {5, 3, 4}, "larger than the server takes"},
    [PERM_8BIT] =
        {"PERM_8BIT", POLICY_BOUNCE, 554, {5, 6, 3}, "8-bit text, and the server has no 8BITMIME"},
    [TEMP_LOOP] =
        {"TEMP_LOOP", POLICY_DEFER, 451, {4, 4, 6}, "the server greets with our own name"},
    [TEMP_DNS] = {"TEMP_DNS", POLICY_DEFER, 451, {4, 4, 3}, "name servers do not answer"},
    [PERM_NO_DOMAIN] =
        {"PERM_NO_DOMAIN", POLICY_BOUNCE, 550, {5, 1, 2}, "the domain does not exist"},
    [PERM_NULL_MX] =
        {"PERM_NULL_MX", POLICY_BOUNCE, 556, {5, 1, 10}, "the domain takes no mail (null MX)"},
    [TEMP_NO_HOST] =
        {"TEMP_NO_HOST", POLICY_DEFER, 451, {4, 4, 4}, "none of the domain's MX hosts can be used"},
    [TEMP_NO_SITE] =
        {"TEMP_NO_SITE", POLICY_DEFER, 451, {4, 3, 1}, "all sites are in use (limits.sites)"},
    [PERM_NO_ADDRESS] = {"PERM_NO_ADDRESS",
                         POLICY_BOUNCE,
                         550,
                         {5, 1, 2},
                         "the domain has no mail host and no address"},
    [PERM_DNS_LOOP] = {"PERM_DNS_LOOP",
                       POLICY_BOUNCE,
                       550,
                       {5, 4, 6},
                       "the domain's names or mail hosts lead in a circle"},
    [PERM_BAD_NAME] = {"PERM_BAD_NAME", POLICY_BOUNCE, 550, {5, 1, 2}, "not a legal domain name"},
    [PERM_CONTENT] = {"PERM_CONTENT",
                      POLICY_BOUNCE,
                      554,
                      {5, 6, 0},
                      "the message cannot be made for this recipient"},
    [TEMP_CONTENT] =
        {"TEMP_CONTENT", POLICY_DEFER, 451, {4, 3, 0}, "the batch's files cannot be read"},
    [PERM_EXPIRED] = {"PERM_EXPIRED", POLICY_BOUNCE, 551, {5, 4, 7}, "expired in the queue"},
    [PERM_CANCELLED] = {"PERM_CANCELLED", POLICY_BOUNCE, 550, {5, 7, 0}, "cancelled"},
};
_Static_assert(COUNT_OF(REASONS) == POLICY_REASONS_COUNT, "a row for each reason");

const char *policy_reason_name(enum policy_reason reason)
{
    ensure((unsigned)reason < POLICY_REASONS_COUNT);
    return REASONS[reason].name;
}

struct policy_verdict policy_of_reason(enum policy_reason reason)
{
    ensure((unsigned)reason < POLICY_REASONS_COUNT);
    const struct reason_row *row = &REASONS[reason];
    return (struct policy_verdict){
        .action = row->action,
        .reason = reason,
        .response = {.code = row->code,
                     .enhanced = row->enhanced,
                     .command = "",
                     .content = span_of_text(row->words)},
    };
}

/* 5.1.1 and the like name a mailbox; 4.5.3, 5.5.3 and a bare 452 or 552 say "too many" (A15, A16).
 */
static bool is_too_many(const struct smtp_reply *reply)
{
    if (reply->code != 452 && reply->code != 552) {
        return false;
    }
    if (reply->enhanced.class == 0) {
        return true;
    }
    bool is_5_3 = reply->enhanced.subject == 5 && reply->enhanced.detail == 3;
    bool is_bare = reply->enhanced.subject == 0 && reply->enhanced.detail == 0;
    return is_5_3 || is_bare;
}

/* Behind some messages, or some time, a server ends a connection instead of taking one more (A14,
 * 3.11). Nothing of this one was answered: the end is none of its own. That the connection has
 * settled others before is what keeps this from going round; 4.7.x means us, on any connection. */
static bool is_used_up(const struct smtp_result *result)
{
    if (!result->is_reused || result->stage != SMTP_STAGE_MAIL) {
        return false;
    }
    return result->cause == SMTP_CAUSE_LOST ||
           (result->cause == SMTP_CAUSE_REPLY && result->reply->code == 421 &&
            result->reply->enhanced.subject != 7);
}

static enum policy_reason reason_of_reply(const struct smtp_result *result, bool is_behind_accepted)
{
    const struct smtp_reply *reply = result->reply;
    uint16_t limit = PLANTED(TEMP_IS_DELIVERED) ? 500 : PLANTED(WRONG_IS_DELIVERED) ? 400 : 300;
    if (result->stage == SMTP_STAGE_END_OF_DATA && reply->code >= 200 && reply->code < limit) {
        return REASON_DELIVERED; /* LAW 5: the only way to this reason */
    }
    if (result->stage == SMTP_STAGE_RCPT && is_behind_accepted && is_too_many(reply)) {
        return TEMP_TOO_MANY_RCPTS;
    }
    /* What refuses us rather than this recipient is no verdict on the address: try again later
     * (A29, 3.1). */
    if (result->stage == SMTP_STAGE_GREETING || result->stage == SMTP_STAGE_EHLO) {
        return TEMP_GREETING;
    }
    /* A17: so a server may say that it wants fewer recipients at once. */
    if (result->stage == SMTP_STAGE_DATA && reply->code == 503 && !PLANTED(DATA_503_BOUNCES)) {
        return TEMP_REPLY;
    }
    return reply->code >= 500 && reply->code < 600 ? PERM_REPLY : TEMP_REPLY;
}

static enum policy_reason reason_of_result(const struct smtp_result *result,
                                           bool is_behind_accepted)
{
    if (is_used_up(result)) {
        return TEMP_USED_UP;
    }
    switch (result->cause) {
    case SMTP_CAUSE_REPLY:
        return reason_of_reply(result, is_behind_accepted);
    case SMTP_CAUSE_LOST:
        if (PLANTED(LOST_IS_DELIVERED) && result->is_ambiguous) {
            return REASON_DELIVERED;
        }
        return result->is_ambiguous ? TEMP_AMBIGUOUS : TEMP_CONNECTION_LOST;
    case SMTP_CAUSE_TIMEOUT:
        return result->is_ambiguous ? TEMP_AMBIGUOUS : TEMP_TIMEOUT;
    case SMTP_CAUSE_PROTOCOL:
        return result->is_ambiguous ? TEMP_AMBIGUOUS : TEMP_PROTOCOL;
    case SMTP_CAUSE_SIZE:
        return PERM_SIZE;
    case SMTP_CAUSE_8BIT:
        return PERM_8BIT;
    case SMTP_CAUSE_LOOP:
        return TEMP_LOOP;
    }
    ensure(false);
    return TEMP_PROTOCOL;
}

/* The reason's verdict, in the server's words where it has spoken. */
static struct policy_verdict verdict_of(enum policy_reason reason, const struct smtp_result *result)
{
    struct policy_verdict verdict = policy_of_reason(reason);
    verdict.response.command = smtp_stage_name(result->stage);
    if (result->stage == SMTP_STAGE_GREETING && result->cause == SMTP_CAUSE_TIMEOUT) {
        verdict.response.content = SPAN("connected, but no greeting came in time");
    }
    if (result->reply != NULL && result->reply->code != 0) {
        verdict.response.code = result->reply->code;
        verdict.response.enhanced = result->reply->enhanced;
        verdict.response.content = span_of(result->reply->text, result->reply->text_size);
    }
    return verdict;
}

struct policy_verdict policy_of_result(const struct smtp_result *result, bool is_behind_accepted)
{
    return verdict_of(reason_of_result(result, is_behind_accepted), result);
}

struct policy_verdict policy_of_host(const struct smtp_result *result)
{
    ensure(policy_is_host_bad(result));
    bool is_greeting = result->stage == SMTP_STAGE_GREETING && result->cause == SMTP_CAUSE_REPLY;
    if (!is_greeting || result->reply->code != 521 || result->reply->enhanced.subject == 7) {
        return policy_of_result(result, false);
    }
    struct policy_verdict verdict = verdict_of(PERM_NO_MAIL, result);
    if (verdict.response.enhanced.class == 0) {
        verdict.response.enhanced = policy_of_reason(PERM_NO_MAIL).response.enhanced;
    }
    return verdict;
}

struct policy_verdict policy_of_mx(enum mx_outcome outcome)
{
    switch (outcome) {
    case MX_TEMPORARY:
        return policy_of_reason(TEMP_DNS);
    case MX_NO_DOMAIN:
        return policy_of_reason(PERM_NO_DOMAIN);
    case MX_NULL:
        return policy_of_reason(PERM_NULL_MX);
    case MX_NO_HOST:
        return policy_of_reason(TEMP_NO_HOST);
    case MX_NO_ADDRESS:
        return policy_of_reason(PERM_NO_ADDRESS);
    case MX_LOOP:
        return policy_of_reason(PERM_DNS_LOOP);
    case MX_BAD_NAME:
        return policy_of_reason(PERM_BAD_NAME);
    case MX_OK:
        break;
    }
    ensure(false);
    return policy_of_reason(TEMP_DNS);
}

struct policy_verdict policy_of_connect(enum net_error error)
{
    struct policy_verdict verdict = policy_of_reason(TEMP_NO_CONNECT);
    static const char *const WORDS[] = {
        [NET_OK] = "no host could be connected",
        [NET_REFUSED] = "connection refused",
        [NET_RESET] = "connection reset",
        [NET_TIMEOUT] = "connection timed out",
        [NET_UNREACHABLE] = "host or network unreachable",
        [NET_NO_SOURCE] = "the source address is not on this machine",
        [NET_NO_PORT] = "no local port is free to connect from",
        [NET_FORBIDDEN] = "forbidden by a firewall or a route of this machine",
        [NET_ABORTED] = "connection given up",
        [NET_FAILED] = "connection failed",
    };
    _Static_assert(COUNT_OF(WORDS) == NET_ERRORS_COUNT, "words for each error");
    ensure((unsigned)error < NET_ERRORS_COUNT);
    verdict.response.command = "CONNECT";
    verdict.response.content = span_of_text(WORDS[error]);
    return verdict;
}

bool policy_is_host_bad(const struct smtp_result *result)
{
    switch (result->stage) {
    case SMTP_STAGE_CONNECT:
    case SMTP_STAGE_GREETING:
    case SMTP_STAGE_EHLO:
        return true;
    case SMTP_STAGE_MAIL:
    case SMTP_STAGE_RCPT:
    case SMTP_STAGE_DATA:
    case SMTP_STAGE_BODY:
    case SMTP_STAGE_END_OF_DATA:
    case SMTP_STAGE_RSET:
    case SMTP_STAGE_QUIT:
        return false;
    }
    ensure(false);
    return false;
}
