/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/resolver.h"

#include <errno.h>
#include <stdlib.h>
#include <xxhash.h>

#include "dns/mx.h"
#include "dns/mx_cache_writer.h"
#include "engine/base/ensure.h"
#include "engine/base/list.h"
#include "engine/base/slab.h"

/*
 * A query is in one of three places: with a lookup of its name (one lookup for all who wait for
 * it), in `waiting` when no lookup can be started, or on its way back. A lookup is started only
 * when a question can be asked for it at once, and lookups that are under way get free questions
 * first
 * (`hungry`, in their order): so there are never more lookups than questions_max, and the oldest
 * are finished first.
 *
 * Answers come in while source->step runs; they only move their lookup to `hungry` or `done`.
 * Asking and answering follow in the same step, never from within the source.
 *
 * Deadlines need no timers: lookups are started in the order in which their first queries came, so
 * the first active lookup and the first waiting query have the earliest ones.
 */

enum { TRIM_BUDGET = 64, RECLAIM_INTERVAL_MS = 1000 };

struct resolver_lookup {
    struct list bucket_link;
    struct list active_link;
    struct list state_link; /* in `hungry` or `done`, or in none: all its questions are out */
    struct mono_time deadline;
    struct inbox_chain queries;
    enum mx_kind kind;
    uint16_t name_size;
    char name[MX_NAME_MAX + 1];
    struct mx_lookup mx;
};

struct resolver_question {
    struct dns_question question; /* first */
    struct list link;             /* in `asked` */
    struct resolver_core *core;
    struct handle lookup; /* stale when the lookup did not wait so long */
    struct mx_ask *ask;
};

struct resolver_core {
    struct resolver *resolver;
    struct resolver_config config;
    struct mx_rules rules;
    struct slab lookups;
    struct slab questions;
    struct list *buckets; /* lookups by (kind, name) */
    uint64_t buckets_mask;
    struct list active;
    struct list hungry;
    struct list done;
    struct list asked;
    struct mx_query *first_waiting; /* the head of `waiting`, taken out to look at */
    struct inbox_chain waiting;
    struct mono_time reclaimed_at;
    bool is_stepped; /* no thread of its own: the simulator */
    bool has_asked;  /* since the source's step */
    struct mx_result result;
};

static struct mono_time resolver_step(struct actor *actor, struct mono_time now);
static void resolver_wait(struct actor *actor, struct mono_time now, struct mono_time deadline);

static int core_init(struct resolver_core *core)
{
    uint64_t buckets_count = 64;
    while (buckets_count < core->config.questions_max) {
        buckets_count *= 2;
    }
    list_init(&core->active);
    list_init(&core->hungry);
    list_init(&core->done);
    list_init(&core->asked);
    inbox_chain_init(&core->waiting);
    core->buckets = malloc(buckets_count * sizeof(struct list));
    if (core->buckets == NULL) {
        return -ENOMEM;
    }
    core->buckets_mask = buckets_count - 1;
    for (uint64_t i = 0; i < buckets_count; i++) {
        list_init(&core->buckets[i]);
    }
    int error = slab_init(&core->lookups, "dns lookups", sizeof(struct resolver_lookup),
                          core->config.questions_max);
    if (error < 0) {
        return error;
    }
    return slab_init(&core->questions, "dns questions", sizeof(struct resolver_question),
                     core->config.questions_max);
}

static void check_config(const struct resolver_config *config)
{
    ensure(config->source != NULL);
    ensure(config->answers_max > 0);
    ensure(config->questions_max > 0);
    ensure(config->ttl_min_s <= config->ttl_max_s);
    ensure(config->use_ip4 || config->use_ip6);
}

int resolver_init(struct resolver *resolver, const struct resolver_config *config,
                  bool with_event_fd)
{
    check_config(config);
    *resolver = (struct resolver){.actor = {.name = "resolver",
                                            .step = resolver_step,
                                            .wait = resolver_wait,
                                            .waker = {.event_fd = -1}}};
    int error = 0;
    struct resolver_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        config->source->destroy(config->source);
        return -ENOMEM;
    }
    resolver->core = core;
    core->resolver = resolver;
    core->config = *config;
    core->is_stepped = !with_event_fd;
    core->rules = (struct mx_rules){.use_ip4 = config->use_ip4,
                                    .use_ip6 = config->use_ip6,
                                    .allow_special = config->allow_special,
                                    .own_names = config->own_names};
    if (core->config.timeout_ms == 0) {
        core->config.timeout_ms = RESOLVER_TIMEOUT_DEFAULT_MS;
    }
    error = core_init(core);
    if (error < 0) {
        goto fail;
    }
    resolver->cache =
        mx_cache_create(config->answers_max, config->stale_max_s, config->secret, &error);
    if (resolver->cache == NULL) {
        goto fail;
    }
    error = waker_init(&resolver->actor.waker, with_event_fd);
    if (error < 0) {
        goto fail;
    }
    inbox_init(&resolver->queries, &resolver->actor.waker);
    return 0;
fail:
    resolver_deinit(resolver);
    return error;
}

void resolver_deinit(struct resolver *resolver)
{
    if (resolver == NULL || resolver->core == NULL) {
        return;
    }
    struct resolver_core *core = resolver->core;
    struct list *link;
    core->config.source->destroy(core->config.source);
    while ((link = list_take_first(&core->asked)) != NULL) {
        slab_give(&core->questions, CONTAINER_OF(link, struct resolver_question, link));
    }
    while ((link = list_take_first(&core->active)) != NULL) {
        slab_give(&core->lookups, CONTAINER_OF(link, struct resolver_lookup, active_link));
    }
    slab_deinit(&core->questions);
    slab_deinit(&core->lookups);
    mx_cache_destroy(resolver->cache);
    waker_deinit(&resolver->actor.waker);
    free(core->buckets);
    free(core);
    resolver->cache = NULL;
    resolver->core = NULL;
}

static void reply(struct mx_query *query)
{
    inbox_push_xcore(query->reply_to, &query->node);
}

static struct mx_query *query_of(struct inbox_node *node)
{
    return node != NULL ? CONTAINER_OF(node, struct mx_query, node) : NULL;
}

static struct span query_name(const struct mx_query *query)
{
    return span_of(query->name, query->name_size);
}

static struct list *bucket_of(struct resolver_core *core, enum mx_kind kind, struct span name)
{
    uint64_t hash = XXH3_64bits_withSeed(name.at, name.size, core->config.secret + kind);
    return &core->buckets[hash & core->buckets_mask];
}

static struct resolver_lookup *find_lookup(struct resolver_core *core, enum mx_kind kind,
                                           struct span name)
{
    struct list *bucket = bucket_of(core, kind, name);
    for (struct list *link = bucket->next; link != bucket; link = link->next) {
        struct resolver_lookup *lookup = CONTAINER_OF(link, struct resolver_lookup, bucket_link);
        if (lookup->kind == kind && span_equal(span_of(lookup->name, lookup->name_size), name)) {
            return lookup;
        }
    }
    return NULL;
}

/* Into the list that its state asks for; into none while all its questions are out. */
static void sort_lookup(struct resolver_core *core, struct resolver_lookup *lookup)
{
    list_remove(&lookup->state_link);
    if (mx_lookup_is_done(&lookup->mx)) {
        list_add_last(&core->done, &lookup->state_link);
    } else if (mx_lookup_wants(&lookup->mx)) {
        list_add_last(&core->hungry, &lookup->state_link);
    }
}

static void start_lookup(struct resolver_core *core, struct mx_query *query)
{
    struct resolver_lookup *lookup = slab_take(&core->lookups);
    ensure(lookup != NULL);
    list_init(&lookup->bucket_link);
    list_init(&lookup->active_link);
    list_init(&lookup->state_link);
    inbox_chain_init(&lookup->queries);
    lookup->deadline = mono_add_ms(query->came, core->config.timeout_ms);
    lookup->kind = query->kind;
    lookup->name_size = query->name_size;
    memcpy(lookup->name, query->name, query->name_size);
    struct span name = span_of(lookup->name, lookup->name_size);
    list_add_last(bucket_of(core, query->kind, name), &lookup->bucket_link);
    list_add_last(&core->active, &lookup->active_link);
    inbox_chain_add(&lookup->queries, &query->node);
    mx_lookup_start(&lookup->mx, &core->rules, query->kind, name);
    sort_lookup(core, lookup);
}

/* The hungry have been fed before: if one is left, there is no free question. */
static bool may_start(const struct resolver_core *core)
{
    ensure(list_is_empty(&core->hungry) || slab_left(&core->questions) == 0);
    return slab_left(&core->questions) > 0 && slab_left(&core->lookups) > 0;
}

/* True when the query has been answered or has a lookup now. */
static bool place_query(struct resolver_core *core, struct mx_query *query, struct mono_time now,
                        bool is_first)
{
    const struct mx_answer *answer;
    if (mx_cache_find_xcore(core->resolver->cache, query->kind, query_name(query), now, &answer) ==
        MX_FRESH) {
        reply(query);
        return true;
    }
    struct resolver_lookup *lookup = find_lookup(core, query->kind, query_name(query));
    if (lookup != NULL) {
        inbox_chain_add(&lookup->queries, &query->node);
        return true;
    }
    if (!is_first || !may_start(core)) {
        return false;
    }
    start_lookup(core, query);
    return true;
}

static void on_answer(struct dns_question *dns_question, enum dns_status status,
                      struct span message)
{
    struct resolver_question *question =
        CONTAINER_OF(dns_question, struct resolver_question, question);
    struct resolver_core *core = question->core;
    struct resolver_lookup *lookup = slab_at_handle(&core->lookups, question->lookup);
    if (lookup != NULL) {
        mx_lookup_on_reply(&lookup->mx, question->ask, status, message);
        sort_lookup(core, lookup);
    } else {
        odd(dns_answer_too_late);
    }
    list_remove(&question->link);
    slab_give(&core->questions, question);
}

static void ask(struct resolver_core *core, struct resolver_lookup *lookup)
{
    struct mx_ask *ask = mx_lookup_next(&lookup->mx);
    struct resolver_question *question = slab_take(&core->questions);
    ensure(ask != NULL);
    ensure(question != NULL);
    ensure(dns_name_is_plain(ask->name));
    *question = (struct resolver_question){
        .question = {.type = ask->type, .on_answer = on_answer},
        .core = core,
        .lookup = slab_handle(&core->lookups, lookup),
        .ask = ask,
    };
    memcpy(question->question.name, ask->name.at, ask->name.size);
    list_init(&question->link);
    list_add_last(&core->asked, &question->link);
    core->has_asked = true;
    stat_add(&core->resolver->stats.questions, 1);
    core->config.source->ask(core->config.source, &question->question);
}

static void feed_hungry(struct resolver_core *core)
{
    while (!list_is_empty(&core->hungry) && slab_left(&core->questions) > 0) {
        struct resolver_lookup *lookup =
            CONTAINER_OF(core->hungry.next, struct resolver_lookup, state_link);
        ask(core, lookup);
        if (!mx_lookup_wants(&lookup->mx)) {
            list_remove(&lookup->state_link);
        }
    }
}

static uint32_t clamp(uint32_t value, uint32_t low, uint32_t high)
{
    value = value > low ? value : low;
    return value < high ? value : high;
}

static struct mono_time expiry(const struct resolver_config *config, const struct mx_result *result,
                               struct mono_time now)
{
    uint32_t life_s = clamp(result->ttl_s, config->ttl_min_s, config->ttl_max_s);
    switch (result->lifetime) {
    case MX_LIFE_POSITIVE:
        break;
    case MX_LIFE_PARTIAL:
    case MX_LIFE_NEGATIVE:
        life_s = clamp(life_s, 0, config->negative_ttl_max_s);
        break;
    case MX_LIFE_TEMPORARY:
        life_s = clamp(life_s, 0, config->temporary_ttl_s);
        break;
    }
    return mono_add_ms(now, (int64_t)clamp(life_s, 1, UINT32_MAX) * 1000);
}

static struct mono_time failure_expiry(const struct resolver_config *config, struct mono_time now)
{
    return mono_add_ms(now, (int64_t)clamp(config->temporary_ttl_s, 1, UINT32_MAX) * 1000);
}

/* Returns whether the cache has it now. */
static void store_result(struct resolver_core *core, const struct resolver_lookup *lookup,
                         struct mono_time now)
{
    struct resolver *resolver = core->resolver;
    struct span name = span_of(lookup->name, lookup->name_size);
    int error;
    mx_lookup_result(&lookup->mx, &core->result);
    if (core->result.outcome == MX_TEMPORARY) {
        error = mx_cache_put_failure(resolver->cache, lookup->kind, name, now,
                                     failure_expiry(&core->config, now));
    } else {
        error = mx_cache_put(resolver->cache, lookup->kind, name, &core->result, now,
                             expiry(&core->config, &core->result, now));
    }
    bool is_failure = error < 0 || core->result.outcome == MX_TEMPORARY;
    stat_add(is_failure ? &resolver->stats.failures : &resolver->stats.answers, 1);
    stat_set(&resolver->stats.is_failing, is_failure);
}

static bool finish_done(struct resolver_core *core, struct mono_time now)
{
    struct list *link = list_take_first(&core->done);
    if (link == NULL) {
        return false;
    }
    struct resolver_lookup *lookup = CONTAINER_OF(link, struct resolver_lookup, state_link);
    store_result(core, lookup, now);
    struct mx_query *query;
    while ((query = query_of(inbox_chain_take(&lookup->queries))) != NULL) {
        reply(query);
    }
    list_remove(&lookup->bucket_link);
    list_remove(&lookup->active_link);
    slab_give(&core->lookups, lookup);
    return true;
}

static struct mx_query *first_waiting(struct resolver_core *core)
{
    if (core->first_waiting == NULL) {
        core->first_waiting = query_of(inbox_chain_take(&core->waiting));
    }
    return core->first_waiting;
}

static bool start_waiting(struct resolver_core *core, struct mono_time now)
{
    struct mx_query *query = first_waiting(core);
    if (query == NULL || !place_query(core, query, now, true)) {
        return false;
    }
    core->first_waiting = NULL;
    return true;
}

static void take_queries(struct resolver_core *core, struct mono_time now)
{
    for (unsigned i = 0; i < RESOLVER_QUERIES_A_STEP; i++) {
        struct mx_query *query = query_of(inbox_take(&core->resolver->queries));
        if (query == NULL) {
            return;
        }
        ensure(query->reply_to != NULL);
        ensure(query->name_size <= MX_NAME_MAX);
        query->came = now;
        stat_add(&core->resolver->stats.queries, 1);
        if (!place_query(core, query, now, false)) {
            inbox_chain_add(&core->waiting, &query->node);
        }
    }
}

static void give_up_lookups(struct resolver_core *core, struct mono_time now)
{
    for (struct list *link = core->active.next; link != &core->active; link = link->next) {
        struct resolver_lookup *lookup = CONTAINER_OF(link, struct resolver_lookup, active_link);
        if (mono_before(now, lookup->deadline)) {
            return;
        }
        mx_lookup_give_up(&lookup->mx);
        sort_lookup(core, lookup);
    }
}

static void give_up_waiting(struct resolver_core *core, struct mono_time now)
{
    struct mx_query *query;
    while ((query = first_waiting(core)) != NULL &&
           !mono_before(now, mono_add_ms(query->came, core->config.timeout_ms))) {
        if (mx_cache_put_failure(core->resolver->cache, query->kind, query_name(query), now,
                                 failure_expiry(&core->config, now)) < 0) {
            odd(dns_no_memory);
        }
        stat_add(&core->resolver->stats.failures, 1);
        core->first_waiting = NULL;
        reply(query);
    }
}

static void tidy_cache(struct resolver_core *core, struct mono_time now)
{
    struct mx_cache *cache = core->resolver->cache;
    mx_cache_trim(cache, now, TRIM_BUDGET);
    stat_set(&core->resolver->stats.evictions, mx_cache_evictions_count(cache));
    if (core->is_stepped || mx_cache_retired_count(cache) >= MX_CACHE_RETIRED_MAX) {
        mx_cache_reclaim(cache);
    }
}

static struct mono_time next_deadline(struct resolver_core *core)
{
    struct mono_time next = MONO_NEVER;
    const struct mx_query *waiting = first_waiting(core);
    if (waiting != NULL) {
        next = mono_add_ms(waiting->came, core->config.timeout_ms);
    }
    if (!list_is_empty(&core->active)) {
        const struct resolver_lookup *lookup =
            CONTAINER_OF(core->active.next, struct resolver_lookup, active_link);
        next = mono_earlier(next, lookup->deadline);
    }
    return next;
}

/* What was asked after the source's step may have to be waited for until a time that only the
 * source's next step can tell: so that one follows at once. */
static struct mono_time resolver_step(struct actor *actor, struct mono_time now)
{
    struct resolver_core *core = CONTAINER_OF(actor, struct resolver, actor)->core;
    core->has_asked = false;
    struct mono_time source_next = core->config.source->step(core->config.source, now);
    give_up_lookups(core, now);
    take_queries(core, now);
    bool has_moved = true;
    while (has_moved) {
        has_moved = finish_done(core, now);
        feed_hungry(core);
        has_moved = start_waiting(core, now) || has_moved;
    }
    give_up_waiting(core, now);
    tidy_cache(core, now);
    ensure(list_is_empty(&core->done));
    if (core->has_asked || !inbox_is_empty(&core->resolver->queries)) {
        return now;
    }
    return mono_earlier(source_next, next_deadline(core));
}

/* The thread is about to sleep and offline for RCU: here it may as well wait for the others. */
static void resolver_wait(struct actor *actor, struct mono_time now, struct mono_time deadline)
{
    struct resolver_core *core = CONTAINER_OF(actor, struct resolver, actor)->core;
    if (mx_cache_retired_count(core->resolver->cache) > 0 &&
        !mono_before(now, mono_add_ms(core->reclaimed_at, RECLAIM_INTERVAL_MS))) {
        core->reclaimed_at = now;
        mx_cache_reclaim(core->resolver->cache);
    }
    ensure(core->config.source->wait != NULL);
    core->config.source->wait(core->config.source, now, deadline);
}
