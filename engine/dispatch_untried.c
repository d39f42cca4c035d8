/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/dispatch_priv.h"

#include "engine/compose.h"
#include "engine/steady.h"
#include "engine/worker_priv.h"

static bool is_cancelled(const struct batch *batch)
{
    return (stat_read_xcore(&batch->orders) & BATCH_CANCELLED) != 0;
}

static void settle_by(struct lane *lane, struct attempt *attempt, enum outcome_class class,
                      const struct policy_verdict *verdict, uint32_t delay_min_s,
                      struct mono_time now)
{
    ensure(class != OUTCOME_DELIVERED); /* LAW 5: nothing was sent */
    struct outcome outcome = {
        .class = class,
        .reason = verdict->reason,
        .response = verdict->response,
        .delay_min_s = delay_min_s,
        .place.source_name = span_of_text(lane->source->name),
    };
    if (lane->site != NULL) {
        outcome.place.site = span_of(lane->site->name, lane->site->name_size);
    }
    if (class == OUTCOME_DEFERRED) {
        stat_add(&lane->deferred, 1);
    } else if (class == OUTCOME_BOUNCED) {
        stat_add(&lane->bounced, 1);
    }
    outcome_settle(lane->worker, attempt, &outcome, now);
}

static void settle_reason(struct lane *lane, struct attempt *attempt, enum outcome_class class,
                          enum policy_reason reason, struct mono_time now)
{
    struct policy_verdict verdict = policy_of_reason(reason);
    settle_by(lane, attempt, class, &verdict, 0, now);
}

void dispatch_settle_problem(struct lane *lane, struct attempt *attempt, struct span words,
                             struct mono_time now)
{
    struct policy_verdict verdict = policy_of_reason(PERM_CONTENT);
    verdict.response.content = words;
    settle_by(lane, attempt, OUTCOME_BOUNCED, &verdict, 0, now);
}

void dispatch_settle_deferred(struct lane *lane, struct attempt *attempt,
                              const struct policy_verdict *verdict, struct mono_time now)
{
    settle_by(lane, attempt, OUTCOME_DEFERRED, verdict, 0, now);
}

static bool is_expired(const struct lane *lane, const struct load *load)
{
    const struct worker *worker = lane->worker;
    ensure(load->next < load->count);
    const struct config_route *route = outcome_route(worker, load->recipients[load->next]);
    return steady_now_s(worker->engine) > outcome_expiry_s(worker->engine, load->batch, route);
}

static enum outcome_class class_of(enum policy_action action)
{
    return action == POLICY_BOUNCE ? OUTCOME_BOUNCED : OUTCOME_DEFERRED;
}

/* Recipients of a domain without hosts: their domain's answer decides, as it is now. Or of one for
 * which no site was free. */
static void settle_nowhere(struct lane *lane, struct attempt *attempt, struct mono_time now)
{
    ensure(lane->site == NULL);
    struct worker *worker = lane->worker;
    struct span name = domain_name_xcore(worker->engine->domains, attempt->recipient->domain);
    const struct mx_answer *answer;
    enum mx_freshness freshness =
        mx_cache_find_xcore(worker->engine->mx_cache, MX_KIND_MAIL, name, now, &answer);
    enum mx_outcome outcome = freshness == MX_MISSING
                                  ? worker_no_hosts(worker, attempt->recipient, now)
                                  : answer->outcome;
    struct policy_verdict verdict = policy_of_mx(outcome == MX_OK ? MX_TEMPORARY : outcome);
    if (worker_is_siteless(worker, attempt->recipient) ||
        outcome_route(worker, attempt->recipient)->hosts_count > 0) {
        verdict = policy_of_reason(TEMP_NO_SITE);
    }
    settle_by(lane, attempt, class_of(verdict.action), &verdict, 0, now);
}

bool dispatch_settle_untried(struct lane *lane, struct load *load, struct mono_time now)
{
    const struct batch *batch = load->batch;
    bool cancelled = is_cancelled(batch);
    bool expired = !cancelled && is_expired(lane, load);
    bool unreadable = !cancelled && !expired && load->result != 0;
    bool nowhere = lane->site == NULL;
    bool no_mail = !nowhere && lane_is_no_mail(lane, now);
    struct mono_time until = {.ns = 0};
    if (!nowhere && lane->sessions_count == 0) {
        until = lane_rest_until(lane, now);
    }
    if (!cancelled && !expired && !unreadable && !nowhere && !no_mail && until.ns == 0) {
        return false;
    }
    struct attempt *attempt = dispatch_attempt_take(lane, load);
    if (attempt == NULL) {
        return true;
    }
    char words[256];
    struct writer problem = writer_of(words, sizeof(words));
    if (load->result == 0) {
        (void)compose_attempt(lane->worker, load, load->next - 1, attempt, &problem);
    }
    if (cancelled) {
        settle_reason(lane, attempt, OUTCOME_CANCELLED, PERM_CANCELLED, now);
    } else if (expired) {
        settle_reason(lane, attempt, OUTCOME_EXPIRED, PERM_EXPIRED, now);
    } else if (unreadable) {
        settle_reason(lane, attempt, OUTCOME_DEFERRED, TEMP_CONTENT, now);
    } else if (nowhere) {
        settle_nowhere(lane, attempt, now);
    } else if (no_mail) {
        struct policy_verdict verdict = lane_no_mail(lane);
        settle_by(lane, attempt, OUTCOME_BOUNCED, &verdict, 0, now);
    } else {
        struct policy_verdict verdict = lane_failure(lane);
        uint32_t rest_s = (uint32_t)((until.ns - now.ns) / NS_PER_S) + 1;
        settle_by(lane, attempt, OUTCOME_DEFERRED, &verdict, rest_s, now);
    }
    return true;
}
