/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/resolver.h"

#include "dns/mx_cache_writer.h"
#include "engine/base/list.h"
#include "engine/base/random.h"
#include "tests/harness.h"
#include "tests/unit/dns/fake_zone.h"

static const struct fake_row ZONE[] = {
    {"plain.example", DNS_MX, 3600, "10 mx1.example"},
    {"short.example", DNS_MX, 1, "10 mx1.example"},
    {"long.example", DNS_MX, 999999, "10 mx-long.example"},
    {"mx1.example", DNS_A, 600, "192.5.2.1"},
    {"mx-long.example", DNS_A, 999999, "192.5.2.2"},
    {"wide.example", DNS_MX, 3600, "10 mx1.example"},
    {"wide.example", DNS_MX, 3600, "20 mx2.example"},
    {"wide.example", DNS_MX, 3600, "30 mx3.example"},
    {"mx2.example", DNS_A, 600, "192.5.2.2"},
    {"mx3.example", DNS_A, 600, "192.5.2.3"},
    {"servfail.example", FAKE_SERVFAIL, 0, NULL},
    {"silent.example", FAKE_SILENT, 0, NULL},
    {"half-silent.example", DNS_MX, 3600, "10 mx1.example"},
    {"half-silent.example", DNS_MX, 3600, "20 silent.example"},
    {"null.example", DNS_MX, 3600, "0 ."},
    {NULL, 0, 0, NULL},
};

/* The same domains when their name servers are down. */
static const struct fake_row BROKEN_ZONE[] = {
    {"plain.example", FAKE_SERVFAIL, 0, NULL},
    {NULL, 0, 0, NULL},
};

enum { QUERIES = 64 };

static struct fake_zone zone;
static struct clock_manual manual;
static struct resolver resolver;
static struct waker waker;
static struct inbox inbox;
static struct mx_query queries[QUERIES];
static unsigned came_back[QUERIES];
static struct mono_time next_step;

static void start_with(const struct resolver_config *config)
{
    clock_manual_init(&manual, (struct mono_time){.ns = 1000 * NS_PER_S}, (struct wall_time){0});
    fake_zone_init(&zone, ZONE);
    CU_ASSERT_FATAL(resolver_init(&resolver, config, false) == 0);
    CU_ASSERT_FATAL(waker_init(&waker, false) == 0);
    inbox_init(&inbox, &waker);
    memset(came_back, 0, sizeof(came_back));
}

static const struct resolver_config CONFIG = {
    .source = &zone.source,
    .clock = &manual.clock,
    .secret = 5,
    .answers_max = 100,
    .questions_max = 100,
    .ttl_min_s = 30,
    .ttl_max_s = 86400,
    .negative_ttl_max_s = 300,
    .temporary_ttl_s = 20,
    .stale_max_s = 3600,
    .timeout_ms = 10000,
    .use_ip4 = true,
    .use_ip6 = true,
};

static void start(void)
{
    start_with(&CONFIG);
}

static void stop(void)
{
    resolver_deinit(&resolver);
    CU_ASSERT(zone.is_destroyed);
    CU_ASSERT(resolver.core == NULL);
    resolver_deinit(&resolver);
    waker_deinit(&waker);
}

static void send_kind(unsigned index, enum mx_kind kind, const char *name)
{
    struct mx_query *query = &queries[index];
    *query = (struct mx_query){
        .reply_to = &inbox, .kind = kind, .name_size = (uint16_t)strlen(name), .user = index};
    memcpy(query->name, name, query->name_size);
    inbox_push_xcore(&resolver.queries, &query->node);
}

static void send(unsigned index, const char *name)
{
    send_kind(index, MX_KIND_MAIL, name);
}

static unsigned collect(void)
{
    struct inbox_node *node;
    unsigned count = 0;
    while ((node = inbox_take(&inbox)) != NULL) {
        struct mx_query *query = CONTAINER_OF(node, struct mx_query, node);
        CU_ASSERT(query == &queries[query->user]);
        came_back[query->user]++;
        count++;
    }
    return count;
}

/* Steps until the resolver would sleep; returns how many queries came back. */
static unsigned run(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        next_step = resolver.actor.step(&resolver.actor, manual.mono);
        if (mono_before(manual.mono, next_step)) {
            return collect();
        }
    }
    CU_FAIL("the resolver does not come to rest");
    return 0;
}

static void pass_s(int64_t s)
{
    clock_manual_advance(&manual, s * NS_PER_S);
}

static enum mx_freshness find(const char *name, const struct mx_answer **ret_answer)
{
    return mx_cache_find_xcore(resolver.cache, MX_KIND_MAIL, span_of_text(name), manual.mono,
                               ret_answer);
}

static enum mx_outcome outcome_of(const char *name)
{
    const struct mx_answer *answer;
    CU_ASSERT_FATAL(find(name, &answer) == MX_FRESH);
    return answer->outcome;
}

static void test_simple(void)
{
    const struct mx_answer *answer;
    start();
    CU_ASSERT(run() == 0);
    CU_ASSERT(next_step.ns == MONO_NEVER.ns);
    send(0, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(find("plain.example", &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_OK);
    CU_ASSERT(answer->hosts_count == 1);
    CU_ASSERT(zone.questions_count == 3);
    CU_ASSERT(stat_read_xcore(&resolver.stats.questions) == 3);
    CU_ASSERT(stat_read_xcore(&resolver.stats.queries) == 1);
    CU_ASSERT(stat_read_xcore(&resolver.stats.answers) == 1);
    stop();
}

/* Bad names, literals and null MX come back with an outcome too. */
static void test_outcomes(void)
{
    start();
    send(0, "a..example");
    send(1, "[192.5.2.1]");
    send(2, "null.example");
    send(3, "nowhere.example");
    send(4, "servfail.example");
    CU_ASSERT(run() == 5);
    CU_ASSERT(outcome_of("a..example") == MX_BAD_NAME);
    CU_ASSERT(outcome_of("[192.5.2.1]") == MX_OK);
    CU_ASSERT(outcome_of("null.example") == MX_NULL);
    CU_ASSERT(outcome_of("nowhere.example") == MX_NO_DOMAIN);
    CU_ASSERT(outcome_of("servfail.example") == MX_TEMPORARY);
    CU_ASSERT(zone.questions_count == 3);
    stop();
}

/* One question however many wait: together, one after the other, and of both kinds. */
static void test_coalescing(void)
{
    start();
    zone.is_held = true;
    for (unsigned i = 0; i < 10; i++) {
        send(i, "plain.example");
    }
    CU_ASSERT(run() == 0);
    CU_ASSERT(zone.questions_count == 1);
    for (unsigned i = 10; i < 20; i++) {
        send(i, "plain.example");
    }
    send_kind(20, MX_KIND_HOST, "plain.example");
    CU_ASSERT(run() == 0);
    CU_ASSERT(zone.questions_count == 3);
    zone.is_held = false;
    CU_ASSERT(run() == 21);
    CU_ASSERT(zone.questions_count == 5);
    for (unsigned i = 0; i < 21; i++) {
        CHECK_ROW(i, came_back[i] == 1);
    }
    send(0, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(zone.questions_count == 5);
    stop();
}

/* The two kinds of one name are two lookups, also when they fall into one bucket (each secret
 * spreads them anew). */
static void test_kinds(void)
{
    for (uint64_t secret = 0; secret < 500; secret++) {
        struct resolver_config config = CONFIG;
        config.secret = secret;
        start_with(&config);
        send(0, "mx1.example");
        send_kind(1, MX_KIND_HOST, "mx1.example");
        CU_ASSERT(run() == 2);
        CU_ASSERT(zone.questions_count == 5);
        stop();
    }
}

static const char *numbered(unsigned number)
{
    static char names[QUERIES][16];
    struct writer writer = writer_of(names[number], sizeof(names[number]));
    writer_put_format(&writer, "d%u.example", number);
    writer_put_byte(&writer, '\0');
    return names[number];
}

/* Never more questions than allowed; the rest waits and comes in order; names that wait twice are
 * asked once. */
static void test_questions_max(void)
{
    struct resolver_config config = CONFIG;
    config.questions_max = 4;
    start_with(&config);
    zone.is_held = true;
    for (unsigned i = 0; i < 30; i++) {
        send(i, numbered(i % 15));
    }
    send(30, "wide.example");
    CU_ASSERT(run() == 0);
    CU_ASSERT(zone.questions_count == 4);
    zone.is_held = false;
    zone.is_backwards = true;
    CU_ASSERT(run() == 31);
    CU_ASSERT(zone.open_peak == 4);
    CU_ASSERT(zone.questions_count == 15 + 7);
    CU_ASSERT(outcome_of("wide.example") == MX_OK);
    stop();
}

/* Silence: the query is answered at its deadline, with what there is; the late answer is dropped.
 */
static void test_deadline(void)
{
    const struct mx_answer *answer;
    start();
    send(0, "silent.example");
    send(1, "half-silent.example");
    CU_ASSERT(run() == 0);
    CU_ASSERT(next_step.ns == manual.mono.ns + 10 * NS_PER_S);
    pass_s(9);
    send(2, "silent.example");
    CU_ASSERT(run() == 0);
    pass_s(1);
    CU_ASSERT(run() == 3);
    CU_ASSERT(outcome_of("silent.example") == MX_TEMPORARY);
    CU_ASSERT(find("half-silent.example", &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_OK);
    CU_ASSERT(answer->hosts_count == 1);
    CU_ASSERT(zone.open_count == 3);
    static const struct fake_row NOTHING[] = {{NULL, 0, 0, NULL}};
    zone.rows = NOTHING;
    CU_ASSERT(run() == 0);
    CU_ASSERT(zone.open_count == 0);
    CU_ASSERT(outcome_of("silent.example") == MX_TEMPORARY);
    stop();
}

/* Queries that never got a question are answered in time as well. */
static void test_deadline_waiting(void)
{
    struct resolver_config config = CONFIG;
    config.questions_max = 2;
    start_with(&config);
    zone.is_held = true;
    for (unsigned i = 0; i < 10; i++) {
        send(i, numbered(i));
    }
    CU_ASSERT(run() == 0);
    pass_s(5);
    send(10, numbered(10));
    CU_ASSERT(run() == 0);
    pass_s(5);
    CU_ASSERT(run() == 10);
    CU_ASSERT(outcome_of(numbered(9)) == MX_TEMPORARY);
    CU_ASSERT(next_step.ns == manual.mono.ns + 5 * NS_PER_S);
    CU_ASSERT(zone.questions_count == 2);
    pass_s(5);
    CU_ASSERT(run() == 1);
    CU_ASSERT(came_back[10] == 1);
    zone.is_held = false;
    CU_ASSERT(run() == 0);
    pass_s(30);
    send(11, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(outcome_of("plain.example") == MX_OK);
    stop();
}

/* B11, with its bounds: (name, seconds that it is fresh). */
static void test_lifetimes(void)
{
    static const struct {
        const char *name;
        int64_t fresh_s;
    } ROWS[] = {
        {"plain.example", 600},   {"short.example", 30},    {"long.example", 86400},
        {"nowhere.example", 300}, {"servfail.example", 20}, {"half-silent.example", 20},
        {"null.example", 3600},   {"a..example", 300},      {"[192.5.2.1]", 86400},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct mx_answer *answer;
        start();
        send(0, ROWS[i].name);
        (void)run();
        if (strcmp(ROWS[i].name, "half-silent.example") == 0) {
            pass_s(10);
            (void)run();
        }
        CHECK_ROW(i, came_back[0] == 1);
        pass_s(ROWS[i].fresh_s - 1);
        CHECK_ROW(i, find(ROWS[i].name, &answer) == MX_FRESH);
        pass_s(1);
        CHECK_ROW(i, find(ROWS[i].name, &answer) != MX_FRESH);
        stop();
    }
}

/* Stale answers serve while the servers are down, with one question per temporary_ttl_s, and are
 * replaced when they are back. */
static void test_stale(void)
{
    const struct mx_answer *answer;
    start();
    send(0, "plain.example");
    CU_ASSERT(run() == 1);
    pass_s(600);
    CU_ASSERT(find("plain.example", &answer) == MX_STALE);
    zone.rows = BROKEN_ZONE;
    send(1, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(zone.questions_count == 4);
    CU_ASSERT(find("plain.example", &answer) == MX_FRESH);
    CU_ASSERT(answer->outcome == MX_OK);
    CU_ASSERT(answer->hosts_count == 1);
    pass_s(19);
    send(2, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(zone.questions_count == 4);
    pass_s(1);
    CU_ASSERT(find("plain.example", &answer) == MX_STALE);
    zone.rows = ZONE;
    send(3, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(zone.questions_count == 7);
    pass_s(599);
    CU_ASSERT(find("plain.example", &answer) == MX_FRESH);
    pass_s(1 + 3600);
    CU_ASSERT(find("plain.example", &answer) == MX_MISSING);
    zone.rows = BROKEN_ZONE;
    send(4, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(outcome_of("plain.example") == MX_TEMPORARY);
    stop();
}

/* A domain that is gone is gone: the stale answer does not survive a clear negative. */
static void test_stale_then_gone(void)
{
    static const struct fake_row NOTHING[] = {{NULL, 0, 0, NULL}};
    start();
    send(0, "plain.example");
    CU_ASSERT(run() == 1);
    pass_s(700);
    zone.rows = NOTHING;
    send(1, "plain.example");
    CU_ASSERT(run() == 1);
    CU_ASSERT(outcome_of("plain.example") == MX_NO_DOMAIN);
    stop();
}

static void test_eviction(void)
{
    struct resolver_config config = CONFIG;
    config.answers_max = 5;
    start_with(&config);
    for (unsigned i = 0; i < 20; i++) {
        send(i, numbered(i));
    }
    CU_ASSERT(run() == 20);
    CU_ASSERT(mx_cache_count_xcore(resolver.cache) == 5);
    CU_ASSERT(stat_read_xcore(&resolver.stats.evictions) == 15);
    stop();
}

/* More queries than one step takes: it asks to be called again at once. */
static void test_step_budget(void)
{
    enum { MANY = RESOLVER_QUERIES_A_STEP + 10 };
    static struct mx_query many[MANY];
    start();
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = (struct mx_query){.reply_to = &inbox, .name_size = 1, .name = "x", .user = 0};
        inbox_push_xcore(&resolver.queries, &many[i].node);
    }
    struct mono_time next = resolver.actor.step(&resolver.actor, manual.mono);
    CU_ASSERT(next.ns == manual.mono.ns);
    CU_ASSERT(stat_read_xcore(&resolver.stats.queries) == RESOLVER_QUERIES_A_STEP);
    for (unsigned i = 0; i < 5; i++) {
        next = resolver.actor.step(&resolver.actor, manual.mono);
    }
    CU_ASSERT(next.ns == MONO_NEVER.ns);
    unsigned count = 0;
    while (inbox_take(&inbox) != NULL) {
        count++;
    }
    CU_ASSERT(count == MANY);
    stop();
}

/* With a thread of its own the actor waits for readers where it would sleep, once a second; in a
 * step only when very much has gathered. */
static void test_reclaim(void)
{
    struct resolver_config config = CONFIG;
    config.answers_max = 1;
    clock_manual_init(&manual, (struct mono_time){.ns = 1000 * NS_PER_S}, (struct wall_time){0});
    fake_zone_init(&zone, ZONE);
    CU_ASSERT_FATAL(resolver_init(&resolver, &config, true) == 0);
    CU_ASSERT_FATAL(waker_init(&waker, false) == 0);
    inbox_init(&inbox, &waker);
    for (unsigned i = 0; i < 3; i++) {
        send(i, numbered(i));
    }
    CU_ASSERT(run() == 3);
    CU_ASSERT(mx_cache_retired_count(resolver.cache) == 2);
    resolver.actor.wait(&resolver.actor, manual.mono, next_step);
    CU_ASSERT(zone.waits_count == 1);
    CU_ASSERT(mx_cache_retired_count(resolver.cache) == 0);
    send(3, numbered(3));
    CU_ASSERT(run() == 1);
    resolver.actor.wait(&resolver.actor, manual.mono, next_step);
    CU_ASSERT(mx_cache_retired_count(resolver.cache) == 1);
    pass_s(1);
    resolver.actor.wait(&resolver.actor, manual.mono, next_step);
    CU_ASSERT(zone.waits_count == 3);
    CU_ASSERT(mx_cache_retired_count(resolver.cache) == 0);
    for (unsigned i = 0; i < 2 * MX_CACHE_RETIRED_MAX; i++) {
        send(0, numbered(i % QUERIES));
        CU_ASSERT(run() == 1);
        CU_ASSERT(mx_cache_retired_count(resolver.cache) < MX_CACHE_RETIRED_MAX);
    }
    stop();
}

/* Names, delays, silences and clock at random: every query comes back once and in time, and no more
 * questions are open than allowed. */
static void play(uint64_t seed)
{
    enum { QUESTIONS_MAX = 5, ROUNDS = 400 };
    static const char *const NAMES[] = {"plain.example",       "short.example",   "wide.example",
                                        "servfail.example",    "silent.example",  "null.example",
                                        "half-silent.example", "nowhere.example", "a..example",
                                        "[192.5.2.1]"};
    struct mono_time sent[QUERIES];
    bool is_out[QUERIES] = {false};
    struct random random;
    struct resolver_config config = CONFIG;
    config.questions_max = QUESTIONS_MAX;
    config.answers_max = 8;
    start_with(&config);
    random_init_seed(&random, seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = random_below(&random, 8); i > 0; i--) {
            unsigned index = random_below(&random, QUERIES);
            if (!is_out[index]) {
                is_out[index] = true;
                sent[index] = manual.mono;
                send_kind(index, random_below(&random, 4) ? MX_KIND_MAIL : MX_KIND_HOST,
                          NAMES[random_below(&random, COUNT_OF(NAMES))]);
            }
        }
        zone.is_held = random_below(&random, 3) == 0;
        zone.is_backwards = random_below(&random, 2) == 0;
        zone.rows = random_below(&random, 5) ? ZONE : BROKEN_ZONE;
        (void)run();
        pass_s(random_below(&random, 3));
        (void)run();
        for (unsigned i = 0; i < QUERIES; i++) {
            ensure(came_back[i] <= is_out[i]);
            is_out[i] = is_out[i] && came_back[i] == 0;
            came_back[i] = 0;
            ensure(!is_out[i] || mono_before(manual.mono, mono_add_ms(sent[i], 10000)));
        }
    }
    ensure(zone.open_peak <= QUESTIONS_MAX);
    stop();
}

static void test_seeds(void)
{
    for (uint64_t seed = 0; seed < 100; seed++) {
        play(seed);
    }
}

/* Everything in every state is given back at the end: lookups, questions, waiting queries. */
static void test_deinit_busy(void)
{
    struct resolver_config config = CONFIG;
    config.questions_max = 3;
    start_with(&config);
    zone.is_held = true;
    for (unsigned i = 0; i < 10; i++) {
        send(i, numbered(i));
    }
    CU_ASSERT(run() == 0);
    send(11, "plain.example");
    stop();
    struct resolver zeroed = {.core = NULL};
    resolver_deinit(&zeroed);
    resolver_deinit(NULL);
}

static void test_config_panics(void)
{
    struct resolver_config config = CONFIG;
    config.use_ip4 = config.use_ip6 = false;
    CHECK_PANICS((void)!resolver_init(&resolver, &config, false));
}

SUITE(resolver, test_simple, test_outcomes, test_coalescing, test_kinds, test_questions_max,
      test_deadline, test_deadline_waiting, test_lifetimes, test_stale, test_stale_then_gone,
      test_eviction, test_step_budget, test_reclaim, test_seeds, test_deinit_busy,
      test_config_panics)
