/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_dns.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/ensure.h"
#include "tests/sim/sim_memory.h"

enum { CHANCE_WHOLE = 65536 };

/* What becomes of a question is drawn when it is asked, and kept in question->source_data: the time
 * of its end, with the fate in the lowest bits. */
enum { FATE_BITS = 3 };
_Static_assert(SIM_DNS_FATES_COUNT <= 1 << FATE_BITS, "a fate fits");

struct sim_source {
    struct dns_source source; /* first */
    struct sim_dns *dns;
    int64_t ahead_ns;
    struct dns_question *open;
};

static bool chance(struct sim_dns *dns, uint32_t of_whole)
{
    return of_whole > 0 && random_below(&dns->random, CHANCE_WHOLE) < of_whole;
}

static int64_t delay_ns(struct sim_dns *dns)
{
    int64_t spread_ns = dns->config.delay_max_ns - dns->config.delay_min_ns;
    ensure(spread_ns >= 0);
    return dns->config.delay_min_ns +
           (int64_t)(random_u64(&dns->random) % ((uint64_t)spread_ns + 1));
}

static int64_t due_ns(const struct dns_question *question)
{
    return (int64_t)(question->source_data >> FATE_BITS);
}

static bool is_to_fail(struct sim_dns *dns)
{
    if (dns->fail_left == 0 || --dns->fail_left > 0) {
        return false;
    }
    dns->fail_left = dns->is_fail_sticky ? 1 : 0;
    dns->failures_count++;
    return true;
}

static void source_ask(struct dns_source *source, struct dns_question *question)
{
    struct sim_source *sim = (struct sim_source *)source;
    struct sim_dns *dns = sim->dns;
    enum sim_dns_fate fate = SIM_DNS_ANSWER;
    if (chance(dns, dns->config.fail_chance)) {
        fate = SIM_DNS_FAIL;
    } else if (chance(dns, dns->config.timeout_chance) ||
               fake_zone_is_silent(dns->rows, span_of_text(question->name), question->type)) {
        fate = SIM_DNS_TIMEOUT;
    }
    if (is_to_fail(dns)) {
        fate = dns->fail_fate;
    }
    int64_t wait_ns = fate == SIM_DNS_TIMEOUT ? dns->config.timeout_ns : delay_ns(dns);
    uint64_t due = (uint64_t)(clock_mono(dns->clock).ns + wait_ns);
    question->source = source;
    question->source_data = due << FATE_BITS | fate;
    question->next = sim->open;
    sim->open = question;
    dns->questions_count++;
}

static void answer(struct sim_dns *dns, struct dns_question *question)
{
    enum sim_dns_fate fate = (enum sim_dns_fate)(question->source_data & ((1u << FATE_BITS) - 1));
    struct span message = SPAN_NONE;
    enum dns_status status = fate == SIM_DNS_FAIL ? DNS_FAILED : DNS_TIMED_OUT;
    if (fate != SIM_DNS_FAIL && fate != SIM_DNS_TIMEOUT) {
        const char *name = fate == SIM_DNS_OTHER ? "nowhere.example" : question->name;
        status =
            fake_zone_answer(dns->rows, span_of_text(name), question->type, dns->message, &message);
    }
    if (fate == SIM_DNS_CUT) {
        message.size /= 2;
    }
    question->on_answer(question, status, message);
}

static struct mono_time source_step(struct dns_source *source, struct mono_time now)
{
    struct sim_source *sim = (struct sim_source *)source;
    now.ns -= sim->ahead_ns;
    struct mono_time next = MONO_NEVER;
    struct dns_question **at = &sim->open;
    while (*at != NULL) {
        struct dns_question *question = *at;
        if (due_ns(question) > now.ns) {
            next = mono_earlier(next, (struct mono_time){.ns = due_ns(question)});
            at = &question->next;
            continue;
        }
        *at = question->next;
        answer(sim->dns, question);
    }
    return mono_add_ns(next, sim->ahead_ns);
}

static void source_destroy(struct dns_source *source)
{
    free(source);
}

struct dns_source *sim_dns_source(struct sim_dns *dns)
{
    struct sim_source *sim = sim_world_alloc(sizeof(*sim));
    sim->source =
        (struct dns_source){.ask = source_ask, .step = source_step, .destroy = source_destroy};
    sim->dns = dns;
    sim->ahead_ns = dns->ahead_ns;
    return &sim->source;
}

void sim_dns_init(struct sim_dns *dns, const struct clock *clock, uint64_t seed,
                  const struct sim_dns_config *config)
{
    dns->clock = clock;
    dns->config = *config;
    dns->rows_count = 0;
    dns->rows[0] = (struct fake_row){.name = NULL};
    dns->questions_count = 0;
    dns->failures_count = 0;
    sim_dns_fail_at(dns, 0, SIM_DNS_ANSWER, false);
    random_init_seed(&dns->random, seed);
}

void sim_dns_fail_at(struct sim_dns *dns, uint64_t n, enum sim_dns_fate fate, bool is_sticky)
{
    dns->fail_left = n;
    dns->fail_fate = fate;
    dns->is_fail_sticky = is_sticky;
}

void sim_dns_add(struct sim_dns *dns, const char *name, int type, uint32_t ttl_s, const char *data)
{
    ensure(dns->rows_count < SIM_DNS_ROWS_MAX);
    uint32_t at = dns->rows_count++;
    ensure(strlen(name) < SIM_DNS_TEXT_MAX);
    ensure(data == NULL || strlen(data) < SIM_DNS_TEXT_MAX);
    (void)snprintf(dns->texts[at].name, SIM_DNS_TEXT_MAX, "%s", name);
    (void)snprintf(dns->texts[at].data, SIM_DNS_TEXT_MAX, "%s", data == NULL ? "" : data);
    dns->rows[at] = (struct fake_row){.name = dns->texts[at].name,
                                      .type = type,
                                      .ttl_s = ttl_s,
                                      .data = data == NULL ? NULL : dns->texts[at].data};
    dns->texts[at].from_ns = clock_mono(dns->clock).ns;
    dns->texts[at].until_ns = INT64_MAX;
    dns->rows[at + 1] = (struct fake_row){.name = NULL};
}

/* Nobody asks for the empty name. */
void sim_dns_remove(struct sim_dns *dns, const char *name)
{
    for (uint32_t i = 0; i < dns->rows_count; i++) {
        if (strcmp(dns->rows[i].name, name) == 0) {
            dns->rows[i].name = "";
            dns->texts[i].until_ns = clock_mono(dns->clock).ns;
        }
    }
}
