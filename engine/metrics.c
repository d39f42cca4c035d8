/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/metrics.h"

#include <jansson.h>
#include <stdlib.h>

#include "dns/resolver.h"
#include "engine/intake.h"
#include "queue/journal.h"

enum { STATUS_SITES_MAX = 32, STATUS_BATCHES_MAX = 100 };

/* All workers together. */
struct sums {
    uint64_t places[WORKER_PLACES_COUNT];
    uint64_t classes[OUTCOME_CLASSES_COUNT];
    uint64_t received, returned, wheeled, handed, possible_duplicates;
    uint64_t sessions, sessions_opened, connects_failed, transactions, bytes_sent;
};

static const char *const PLACE_NAMES[] = {"domain", "ready", "loading", "flight", "journal"};
_Static_assert(COUNT_OF(PLACE_NAMES) == WORKER_PLACES_COUNT, "a name for each place");

static const char *const CLASS_NAMES[] = {"delivered", "deferred", "bounced", "expired",
                                          "cancelled"};
_Static_assert(COUNT_OF(CLASS_NAMES) == OUTCOME_CLASSES_COUNT, "a name for each class");

static struct sums sum(const struct engine *engine)
{
    struct sums sums = {0};
    for (uint32_t i = 0; i < engine->workers_count; i++) {
        const struct worker_stats *stats = &engine->workers[i]->stats;
        for (unsigned place = 0; place < WORKER_PLACES_COUNT; place++) {
            sums.places[place] += stat_read_xcore(&stats->places[place]);
        }
        for (unsigned class = 0; class < OUTCOME_CLASSES_COUNT; class ++) {
            sums.classes[class] += stat_read_xcore(&stats->classes[class]);
        }
        sums.possible_duplicates += stat_read_xcore(&stats->possible_duplicates);
        sums.sessions += stat_read_xcore(&stats->sessions);
        sums.sessions_opened += stat_read_xcore(&stats->sessions_opened);
        sums.connects_failed += stat_read_xcore(&stats->connects_failed);
        sums.transactions += stat_read_xcore(&stats->transactions);
        sums.bytes_sent += stat_read_xcore(&stats->bytes_sent);
    }
    return sums;
}

void metrics_sample(struct metrics_state *state, const struct engine *engine, struct mono_time now)
{
    struct sums sums = sum(engine);
    struct metrics_sample *sample = &state->samples[state->samples_count++ % METRICS_SAMPLES_MAX];
    *sample = (struct metrics_sample){
        .at = now,
        .delivered = sums.classes[OUTCOME_DELIVERED],
        .deferred = sums.classes[OUTCOME_DEFERRED],
        .bounced = sums.classes[OUTCOME_BOUNCED],
        .accepted = stat_read_xcore(&engine->intake->stats.recipients_accepted),
    };
}

/* The newest sample, and the one `back` before it (or the oldest there is); false before the second
 * one. */
static bool samples_of(const struct metrics_state *state, uint32_t back,
                       const struct metrics_sample **ret_old, const struct metrics_sample **ret_new)
{
    if (state->samples_count < 2) {
        return false;
    }
    uint32_t last = state->samples_count - 1;
    uint32_t kept = last < METRICS_SAMPLES_MAX - 1 ? last : METRICS_SAMPLES_MAX - 1;
    back = back < kept ? back : kept;
    *ret_new = &state->samples[last % METRICS_SAMPLES_MAX];
    *ret_old = &state->samples[(last - back) % METRICS_SAMPLES_MAX];
    return true;
}

static double rate(uint64_t before, uint64_t after, const struct metrics_sample *old,
                   const struct metrics_sample *new)
{
    int64_t ns = new->at.ns - old->at.ns;
    return ns <= 0 ? 0 : (double)(after - before) * (double)NS_PER_S / (double)ns;
}

static json_t *rates_json(const struct metrics_state *state, uint32_t back)
{
    const struct metrics_sample *old;
    const struct metrics_sample *new;
    if (!samples_of(state, back, &old, &new)) {
        return json_object();
    }
    return json_pack("{s:f,s:f,s:f,s:f}", "accepted", rate(old->accepted, new->accepted, old, new),
                     "delivered", rate(old->delivered, new->delivered, old, new), "deferred",
                     rate(old->deferred, new->deferred, old, new), "bounced",
                     rate(old->bounced, new->bounced, old, new));
}

static void set_uint(json_t *object, const char *key, uint64_t value)
{
    (void)json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* Claimed, and neither done nor failed. What has ended is read first: one that ends meanwhile is
 * not taken off before it was counted. */
static uint64_t batches_count(const struct intake_stats *intake)
{
    uint64_t ended =
        stat_read_xcore(&intake->batches_done) + stat_read_xcore(&intake->batches_failed);
    uint64_t claimed = stat_read_xcore(&intake->batches_claimed);
    return claimed > ended ? claimed - ended : 0;
}

static json_t *totals_json(const struct engine *engine, const struct sums *sums)
{
    const struct intake_stats *intake = &engine->intake->stats;
    json_t *totals = json_object();
    set_uint(totals, "accepted", stat_read_xcore(&intake->recipients_accepted));
    set_uint(totals, "rejected", stat_read_xcore(&intake->recipients_rejected));
    for (unsigned class = 0; class < OUTCOME_CLASSES_COUNT; class ++) {
        set_uint(totals, CLASS_NAMES[class], sums->classes[class]);
    }
    set_uint(totals, "possible_duplicates", sums->possible_duplicates);
    set_uint(totals, "batches_done", stat_read_xcore(&intake->batches_done));
    set_uint(totals, "batches_failed", stat_read_xcore(&intake->batches_failed));
    set_uint(totals, "batches_held", stat_read_xcore(&intake->batches_held));
    set_uint(totals, "bytes_sent", sums->bytes_sent);
    return totals;
}

static json_t *queue_json(const struct engine *engine, const struct sums *sums)
{
    json_t *queue = json_object();
    for (unsigned place = 0; place < WORKER_PLACES_COUNT; place++) {
        set_uint(queue, PLACE_NAMES[place], sums->places[place]);
    }
    set_uint(queue, "retry", retry_count_xcore(engine->retry));
    return queue;
}

static int by_backlog(const void *a, const void *b)
{
    const struct worker_report_row *x = a;
    const struct worker_report_row *y = b;
    return x->backlog < y->backlog ? 1 : x->backlog > y->backlog ? -1 : 0;
}

/* One row a site out of the rows of the workers' lanes. */
static uint32_t merge_rows(const struct engine *engine, const struct worker_report *reports,
                           struct worker_report_row *ret_rows)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < engine->workers_count; i++) {
        for (uint32_t j = 0; j < reports[i].rows_count; j++) {
            const struct worker_report_row *row = &reports[i].rows[j];
            uint32_t at = 0;
            while (at < count && strcmp(ret_rows[at].site, row->site) != 0) {
                at++;
            }
            if (at == count) {
                ret_rows[count++] = *row;
                continue;
            }
            ret_rows[at].backlog += row->backlog;
            ret_rows[at].sessions += row->sessions;
            ret_rows[at].delivered += row->delivered;
            ret_rows[at].deferred += row->deferred;
            ret_rows[at].bounced += row->bounced;
            if (ret_rows[at].last_error[0] == '\0') {
                memcpy(ret_rows[at].last_error, row->last_error, sizeof(row->last_error));
            }
        }
    }
    qsort(ret_rows, count, sizeof(*ret_rows), by_backlog);
    return count;
}

static json_t *sites_json(const struct engine *engine, const struct worker_report *reports)
{
    json_t *sites = json_array();
    struct worker_report_row *rows =
        calloc((size_t)engine->workers_count * WORKER_REPORT_ROWS, sizeof(*rows));
    uint32_t count = rows == NULL ? 0 : merge_rows(engine, reports, rows);
    for (uint32_t i = 0; i < count && i < STATUS_SITES_MAX; i++) {
        json_t *site = json_object();
        (void)json_object_set_new(site, "site", json_string(rows[i].site));
        set_uint(site, "backlog", rows[i].backlog);
        set_uint(site, "sessions", rows[i].sessions);
        set_uint(site, "delivered", rows[i].delivered);
        set_uint(site, "deferred", rows[i].deferred);
        set_uint(site, "bounced", rows[i].bounced);
        set_uint(site, "suspended_ms", (uint64_t)rows[i].suspended_ms);
        (void)json_object_set_new(site, "last_error", json_string(rows[i].last_error));
        (void)json_array_append_new(sites, site);
    }
    free(rows);
    return sites;
}

static json_t *health_json(const struct engine *engine)
{
    json_t *health = json_object();
    (void)json_object_set_new(health, "journal_failed",
                              json_boolean(stat_read_xcore(&engine->journal->stats.has_failed)));
    set_uint(health, "journal_corrupt_records",
             stat_read_xcore(&engine->journal->stats.corrupt_records));
    (void)json_object_set_new(
        health, "short_of_space",
        json_boolean(stat_read_xcore(&engine->intake->stats.is_short_of_space)));
    (void)json_object_set_new(health, "draining",
                              json_boolean(stat_read_xcore(&engine->is_draining)));
    set_uint(health, "sites_unserved", site_table_unserved_xcore(engine->sites));
    set_uint(health, "results_waiting", stat_read_xcore(&engine->journal->stats.results_waiting));
    set_uint(health, "results_held", stat_read_xcore(&engine->journal->stats.results_held));
    set_uint(health, "results_unread", stat_read_xcore(&engine->intake->stats.results_unread));
    set_uint(health, "log_failures", stat_read_xcore(&engine->journal->stats.log_failures));
    const char *name;
    uint64_t value;
    json_t *odds = json_object();
    for (size_t i = 0; odd_row(i, &name, &value); i++) {
        set_uint(odds, name, value);
    }
    (void)json_object_set_new(health, "oddities", odds);
    return health;
}

void metrics_put_status(struct writer *writer, const struct engine *engine,
                        const struct metrics_state *state, const struct worker_report *reports)
{
    struct sums sums = sum(engine);
    json_t *status = json_object();
    (void)json_object_set_new(status, "v", json_integer(1));
    (void)json_object_set_new(status, "node", json_string(engine->config->hostname));
    (void)json_object_set_new(status, "totals", totals_json(engine, &sums));
    (void)json_object_set_new(status, "rate_1s", rates_json(state, 1));
    (void)json_object_set_new(status, "rate_1m", rates_json(state, METRICS_SAMPLES_MAX - 1));
    (void)json_object_set_new(status, "queue", queue_json(engine, &sums));
    set_uint(status, "batches", batches_count(&engine->intake->stats));
    set_uint(status, "sessions", sums.sessions);
    set_uint(status, "sessions_opened", sums.sessions_opened);
    set_uint(status, "connects_failed", sums.connects_failed);
    set_uint(status, "workers", engine->workers_count);
    set_uint(status, "uptime_s", state->samples_count); /* one a second */
    (void)json_object_set_new(status, "sites", sites_json(engine, reports));
    (void)json_object_set_new(status, "health", health_json(engine));
    char *text = json_dumps(status, JSON_COMPACT);
    if (text != NULL) {
        writer_put(writer, span_of_text(text));
        writer_put_byte(writer, '\n');
    }
    free(text);
    json_decref(status);
}

static void put_metric(struct writer *writer, const char *name, const char *type, const char *help,
                       uint64_t value)
{
    writer_put_format(writer, "# HELP ramjet_%s %s\n# TYPE ramjet_%s %s\nramjet_%s %llu\n", name,
                      help, name, type, name, (unsigned long long)value);
}

static void put_labelled(struct writer *writer, const char *name, const char *label,
                         const char *value_of_label, uint64_t value)
{
    writer_put_format(writer, "ramjet_%s{%s=\"%s\"} %llu\n", name, label, value_of_label,
                      (unsigned long long)value);
}

static void put_engine_metrics(struct writer *writer, const struct engine *engine,
                               const struct sums *sums)
{
    const struct intake_stats *intake = &engine->intake->stats;
    const struct journal_stats *journal = &engine->journal->stats;
    const struct resolver_stats *dns = &engine->resolver->stats;
    const struct {
        const char *name;
        const char *type;
        const char *help;
        uint64_t value;
    } rows[] = {
        {"accepted_total", "counter", "Recipients accepted.",
         stat_read_xcore(&intake->recipients_accepted)},
        {"rejected_total", "counter", "Recipient lines rejected.",
         stat_read_xcore(&intake->recipients_rejected)},
        {"batches_accepted_total", "counter", "Batches accepted.",
         stat_read_xcore(&intake->batches_accepted)},
        {"batches_done_total", "counter", "Batches that have left the spool.",
         stat_read_xcore(&intake->batches_done)},
        {"batches_failed_total", "counter", "Batches that could not run.",
         stat_read_xcore(&intake->batches_failed)},
        {"batches_held_total", "counter", "Of them, those that wait in hold/ for people.",
         stat_read_xcore(&intake->batches_held)},
        {"batches", "gauge", "Batches claimed, and neither done nor failed.",
         batches_count(intake)},
        {"connections", "gauge", "Open connections.", sums->sessions},
        {"connections_opened_total", "counter", "Connections opened.", sums->sessions_opened},
        {"connects_failed_total", "counter", "Connections that failed or were refused.",
         sums->connects_failed},
        {"transactions_total", "counter", "SMTP transactions ended.", sums->transactions},
        {"sent_bytes_total", "counter", "Message bytes sent.", sums->bytes_sent},
        {"possible_duplicates_total", "counter", "Attempts behind an ambiguous end.",
         sums->possible_duplicates},
        {"journal_records_total", "counter", "Journal records.",
         stat_read_xcore(&journal->records)},
        {"journal_syncs_total", "counter", "Journal syncs.", stat_read_xcore(&journal->syncs)},
        {"journal_corrupt_records", "gauge", "Journal records found corrupt, ever.",
         stat_read_xcore(&journal->corrupt_records)},
        {"journal_failed", "gauge", "1 when the journal cannot be written.",
         stat_read_xcore(&journal->has_failed)},
        {"results_waiting", "gauge", "Batches whose results.ndjson cannot be written now.",
         stat_read_xcore(&journal->results_waiting)},
        {"results_held", "gauge", "Of them, batches of which nothing more is sent.",
         stat_read_xcore(&journal->results_held)},
        {"results_unread", "gauge", "Batches that wait until their results.ndjson can be read.",
         stat_read_xcore(&engine->intake->stats.results_unread)},
        {"log_failures_total", "counter", "Writes of the event log that failed.",
         stat_read_xcore(&journal->log_failures)},
        {"dns_questions_total", "counter", "Questions to name servers.",
         stat_read_xcore(&dns->questions)},
        {"dns_failures_total", "counter", "Questions that failed.",
         stat_read_xcore(&dns->failures)},
        {"sites", "gauge", "Sites known.", site_table_used_xcore(engine->sites)},
        {"sites_unserved_total", "counter", "Recipients put off because all sites were in use.",
         site_table_unserved_xcore(engine->sites)},
        {"short_of_space", "gauge", "1 when nothing is claimed for lack of disk space.",
         stat_read_xcore(&intake->is_short_of_space)},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        put_metric(writer, rows[i].name, rows[i].type, rows[i].help, rows[i].value);
    }
}

void metrics_put_text(struct writer *writer, const struct engine *engine,
                      const struct metrics_state *state)
{
    (void)state;
    struct sums sums = sum(engine);
    put_engine_metrics(writer, engine, &sums);
    writer_put_format(writer, "# HELP ramjet_outcomes_total Attempts by outcome.\n"
                              "# TYPE ramjet_outcomes_total counter\n");
    for (unsigned class = 0; class < OUTCOME_CLASSES_COUNT; class ++) {
        put_labelled(writer, "outcomes_total", "outcome", CLASS_NAMES[class], sums.classes[class]);
    }
    writer_put_format(writer, "# HELP ramjet_queue_recipients Recipients by place.\n"
                              "# TYPE ramjet_queue_recipients gauge\n");
    for (unsigned place = 0; place < WORKER_PLACES_COUNT; place++) {
        put_labelled(writer, "queue_recipients", "state", PLACE_NAMES[place], sums.places[place]);
    }
    put_labelled(writer, "queue_recipients", "state", "retry", retry_count_xcore(engine->retry));
}

void metrics_put_line(struct writer *writer, const struct metrics_state *state)
{
    const struct metrics_sample *old;
    const struct metrics_sample *new;
    if (!samples_of(state, 1, &old, &new)) {
        writer_put(writer, SPAN("starting"));
        return;
    }
    writer_put_format(writer, "%.0f/s delivered, %llu delivered, %llu deferred, %llu bounced",
                      rate(old->delivered, new->delivered, old, new),
                      (unsigned long long)new->delivered, (unsigned long long)new->deferred,
                      (unsigned long long)new->bounced);
}
