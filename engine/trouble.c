/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/trouble.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/intake.h"
#include "queue/journal.h"

enum { LOG_AGAIN_MS = 60 * 1000 };

static const char *remedy_of(uint64_t error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
        return "the disk is full: make room there (df -h, df -i)";
    case EROFS:
        return "the file system is mounted read-only: see dmesg, mount it for writing";
    case EMFILE:
    case ENFILE:
        return "too few descriptors: raise LimitNOFILE";
    case EIO:
        return "the disk failed: see dmesg";
    default:
        return "see dmesg and the permissions";
    }
}

static void put_error(struct writer *writer, uint64_t error)
{
    if (error != 0) {
        writer_put_format(writer, ": %s: %s", strerror((int)error), remedy_of(error));
    }
}

static void put_segment(struct writer *writer, const struct engine *engine, uint64_t number)
{
    writer_put_format(writer, "%s/journal/journal-%08llu.log", engine->config->spool,
                      (unsigned long long)number);
}

static void put_failure(struct writer *writer, const struct engine *engine)
{
    const struct journal_stats *stats = &engine->journal->stats;
    uint64_t number = stat_read_xcore(&stats->failure_number);
    switch ((enum journal_failure)stat_read_xcore(&stats->failure)) {
    case JOURNAL_FAILURE_WRITE:
        put_segment(writer, engine, number);
        writer_put(writer, SPAN(": cannot be written"));
        break;
    case JOURNAL_FAILURE_SYNC:
        put_segment(writer, engine, number);
        writer_put(writer, SPAN(": fdatasync failed, and what is on the disk is not known"));
        break;
    case JOURNAL_FAILURE_SEGMENT:
        put_segment(writer, engine, number);
        writer_put(writer, SPAN(": cannot be made"));
        break;
    case JOURNAL_FAILURE_CHECKPOINT:
        writer_put_format(writer,
                          "%s/journal: no checkpoint can be written, and the journal would "
                          "grow without bound: disk full or broken?",
                          engine->config->spool);
        break;
    case JOURNAL_FAILURE_RESULTS:
        writer_put_format(writer,
                          "%s/active: fdatasync of the results.ndjson of batch number %llu failed",
                          engine->config->spool, (unsigned long long)number);
        break;
    case JOURNAL_FAILURE_NONE:
    case JOURNAL_FAILURE_STOP:
    case JOURNAL_FAILURE_ABANDONED:
        writer_put(writer, SPAN("the journal has failed"));
        break;
    }
    put_error(writer, stat_read_xcore(&stats->failure_error));
}

void trouble_put_stop(struct writer *writer, const struct engine *engine)
{
    writer_put(writer, SPAN("ramjet: "));
    if (stat_observe_xcore(&engine->journal->stats.has_failed) != 0) {
        put_failure(writer, engine);
    } else {
        writer_put_format(writer,
                          "%s: a directory cannot be read, or a sync of one failed and "
                          "what was moved could not be moved back: see dmesg",
                          engine->config->spool);
    }
    writer_put(writer, SPAN("; stopping: what is not settled is taken up again at the next "
                            "start\n"));
}

static void put_space(struct trouble *trouble, struct writer *writer, const struct engine *engine)
{
    bool is_short = stat_read_xcore(&engine->intake->stats.is_short_of_space) != 0;
    if (is_short && !trouble->is_short_of_space) {
        writer_put_format(writer,
                          "ramjet: %s: less space is free than free-space-min: no batch is "
                          "claimed until there is more; what was accepted is sent\n",
                          engine->config->spool);
    } else if (!is_short && trouble->is_short_of_space) {
        writer_put_format(writer, "ramjet: %s: there is space again: batches are claimed\n",
                          engine->config->spool);
    }
    trouble->is_short_of_space = is_short;
}

static void put_results(struct trouble *trouble, struct writer *writer, const struct engine *engine)
{
    const struct journal_stats *stats = &engine->journal->stats;
    uint64_t count = stat_read_xcore(&stats->results_waiting);
    if (count > 0 && !trouble->has_results_waiting) {
        writer_put_format(writer,
                          "ramjet: %s/active: results.ndjson cannot be written, of %llu "
                          "batches",
                          engine->config->spool, (unsigned long long)count);
        put_error(writer, stat_read_xcore(&stats->results_error));
        writer_put(writer, SPAN("; tried again each second, and no batch leaves active/ without "
                                "its results\n"));
    } else if (count == 0 && trouble->has_results_waiting) {
        writer_put_format(writer, "ramjet: %s/active: results.ndjson is written again\n",
                          engine->config->spool);
    }
    trouble->has_results_waiting = count > 0;
}

static void put_results_held(struct trouble *trouble, struct writer *writer,
                             const struct engine *engine)
{
    uint64_t count = stat_read_xcore(&engine->journal->stats.results_held);
    if (count > 0 && !trouble->has_results_held) {
        writer_put_format(writer,
                          "ramjet: %s/active: so many lines of results wait that nothing more is "
                          "sent of %llu batches that cannot write them; all others go on\n",
                          engine->config->spool, (unsigned long long)count);
    } else if (count == 0 && trouble->has_results_held) {
        writer_put_format(writer, "ramjet: %s/active: all batches are sent again\n",
                          engine->config->spool);
    }
    trouble->has_results_held = count > 0;
}

/* Intake has told of each (intake_words). */
static void put_results_unread(struct trouble *trouble, struct writer *writer,
                               const struct engine *engine)
{
    bool has_some = stat_read_xcore(&engine->intake->stats.results_unread) > 0;
    if (!has_some && trouble->has_results_unread) {
        writer_put_format(writer, "ramjet: %s/active: all results.ndjson are read again\n",
                          engine->config->spool);
    }
    trouble->has_results_unread = has_some;
}

static void put_log_removed(struct trouble *trouble, struct writer *writer,
                            const struct engine *engine)
{
    uint64_t removals = stat_read_xcore(&engine->journal->stats.log_removals);
    if (removals != trouble->log_removals) {
        const char *directory = engine->config->log_directory;
        writer_put_format(writer,
                          "ramjet: %s%s/events.ndjson: was removed while it was written, and its "
                          "lines with it; a new one is made\n",
                          directory != NULL ? directory : engine->config->spool,
                          directory != NULL ? "" : "/log");
    }
    trouble->log_removals = removals;
}

static void put_log(struct trouble *trouble, struct writer *writer, const struct engine *engine,
                    struct mono_time now)
{
    uint64_t failures = stat_read_xcore(&engine->journal->stats.log_failures);
    bool is_quiet = trouble->has_told_log && mono_before(now, trouble->log_again_at);
    if (failures == trouble->log_failures || is_quiet) {
        return;
    }
    const char *directory = engine->config->log_directory;
    writer_put_format(
        writer,
        "ramjet: %s%s/events.ndjson: lines are lost, %llu writes failed: is "
        "the disk full or broken, or its directory gone? Mail and results are not touched by it\n",
        directory != NULL ? directory : engine->config->spool, directory != NULL ? "" : "/log",
        (unsigned long long)failures);
    trouble->log_failures = failures;
    trouble->has_told_log = true;
    trouble->log_again_at = mono_add_ms(now, LOG_AGAIN_MS);
}

static void put_held(struct trouble *trouble, struct writer *writer, const struct engine *engine)
{
    uint64_t held = stat_read_xcore(&engine->intake->stats.batches_held);
    if (held != trouble->batches_held) {
        writer_put_format(writer,
                          "ramjet: %s/hold: %llu more batches that were accepted before cannot go "
                          "on, and wait there: reason.txt of each says why and what to do\n",
                          engine->config->spool,
                          (unsigned long long)(held - trouble->batches_held));
    }
    trouble->batches_held = held;
}

static void put_sites(struct trouble *trouble, struct writer *writer, const struct engine *engine,
                      struct mono_time now)
{
    uint64_t unserved = site_table_unserved_xcore(engine->sites);
    bool is_quiet = trouble->has_told_sites && mono_before(now, trouble->sites_again_at);
    if (unserved == trouble->sites_unserved || is_quiet) {
        return;
    }
    writer_put_format(writer,
                      "ramjet: all %u sites are in use: %llu recipients of others were put off; "
                      "raise limits { sites } if there is memory\n",
                      engine->config->sites_max,
                      (unsigned long long)(unserved - trouble->sites_unserved));
    trouble->sites_unserved = unserved;
    trouble->has_told_sites = true;
    trouble->sites_again_at = mono_add_ms(now, LOG_AGAIN_MS);
}

void trouble_put_news(struct trouble *trouble, struct writer *writer, const struct engine *engine,
                      struct mono_time now)
{
    put_space(trouble, writer, engine);
    put_results(trouble, writer, engine);
    put_results_held(trouble, writer, engine);
    put_results_unread(trouble, writer, engine);
    put_held(trouble, writer, engine);
    put_sites(trouble, writer, engine, now);
    put_log_removed(trouble, writer, engine);
    put_log(trouble, writer, engine, now);
}
