/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/damage.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/bitmap.h"
#include "engine/base/text.h"
#include "queue/journal.h"
#include "queue/journal_record.h"

enum { WORDS_SIZE = 640, LINE_SIZE = 2 * WORDS_SIZE + 1024 };

/* Words for each kind; has_place: offset and size are told, has_count: how many. */
static const struct {
    const char *reason;
    const char *words;
    bool has_place;
    bool has_count;
} KINDS[] = {
    [JOURNAL_DAMAGE_HEADER] = {"DAMAGE_HEADER",
                               "the header is broken; the records were read without it", true,
                               false},
    [JOURNAL_DAMAGE_RECORDS] = {"DAMAGE_RECORDS", "broken records", true, true},
    [JOURNAL_DAMAGE_GROUPS] = {"DAMAGE_GROUPS", "groups of records are not there", true, true},
    [JOURNAL_DAMAGE_FILES] = {"DAMAGE_FILES", "files from this one on are not there", false, true},
    [JOURNAL_DAMAGE_SIZE] = {"DAMAGE_SIZE", "the file was cut short there", true, false},
    [JOURNAL_DAMAGE_CHECKPOINT] = {"DAMAGE_CHECKPOINT",
                                   "not whole, and no older one is there: believed as far as it "
                                   "goes",
                                   false, false},
    [JOURNAL_DAMAGE_PASSED] = {"DAMAGE_PASSED",
                               "not whole: an older one was read instead, and nothing is lost",
                               false, false},
    [JOURNAL_DAMAGE_STRANGE] = {"DAMAGE_STRANGE",
                                "whole records that make no sense here (the batch is not known, "
                                "or the recipient is settled already)",
                                true, true},
    [JOURNAL_DAMAGE_SUMS] = {"DAMAGE_SUMS",
                             "the records do not add up: who is settled stays so, and counts as "
                             "cancelled",
                             false, false},
};
_Static_assert(COUNT_OF(KINDS) == JOURNAL_DAMAGE_KINDS_COUNT, "words for each kind");

static const char REMEDY[] =
    "look for the cause (the disk, memory, somebody who writes into journal/) before it does more; "
    "the engine goes on by itself. Where a second mail is worse than none, cancel the batch "
    "(in/ctl/ID.cancel)";

/* What one line is about. */
struct topic {
    const char *reason;
    const char *file; /* "": none */
    uint64_t offset, size, count;
    struct span batch; /* its directory's name without .batch; empty: not known */
    uint32_t number;
    uint64_t line_first, line_last; /* from 1; 0: not known */
    struct span words;
};

static struct span name_of(const struct journal_known_batch *batch)
{
    struct span name = span_of_text(batch->directory), end = SPAN(".batch");
    name.size -= name.size > end.size ? end.size : 0;
    return name;
}

static struct span batch_name(const struct journal_known *known, uint32_t number)
{
    for (uint32_t i = 0; i < known->batches_count; i++) {
        if (known->batches[i].number == number) {
            return name_of(&known->batches[i]);
        }
    }
    return SPAN_NONE;
}

static void put_text(struct writer *line, struct span key, struct span value)
{
    writer_put(line, key);
    text_put_json(line, value);
}

static void put_number(struct writer *line, struct span key, uint64_t value)
{
    writer_put(line, key);
    writer_put_uint(line, value);
}

static void put_event(const struct engine *engine, const struct topic *topic)
{
    char memory[LINE_SIZE], at[40];
    struct writer line = writer_of(memory, sizeof(memory));
    struct writer time = writer_of(at, sizeof(at));
    text_put_rfc3339(&time, clock_wall(engine->clock));
    put_text(&line, SPAN("{\"type\":\"Damage\",\"event_time\":"), writer_span(&time));
    put_text(&line, SPAN(",\"reason\":"), span_of_text(topic->reason));
    if (topic->file[0] != '\0') {
        put_text(&line, SPAN(",\"file\":"), span_of_text(topic->file));
        put_number(&line, SPAN(",\"offset\":"), topic->offset);
        put_number(&line, SPAN(",\"size\":"), topic->size);
    }
    put_number(&line, SPAN(",\"count\":"), topic->count);
    if (topic->batch.size > 0) {
        put_text(&line, SPAN(",\"batch\":"), topic->batch);
    }
    if (topic->number > 0) {
        put_number(&line, SPAN(",\"batch_number\":"), topic->number);
    }
    if (topic->line_first > 0) {
        put_number(&line, SPAN(",\"line\":"), topic->line_first);
        put_number(&line, SPAN(",\"line_last\":"), topic->line_last);
    }
    put_text(&line, SPAN(",\"response\":{\"content\":"), topic->words);
    put_text(&line, SPAN("},\"nodeid\":"), span_of_text(engine->config->hostname));
    writer_put(&line, SPAN("}\n"));
    ensure(!line.is_full);
    journal_log_line(engine->journal, writer_span(&line));
}

static void put_who(struct writer *words, const struct topic *topic)
{
    if (topic->number == 0) {
        writer_put(words, SPAN("; it may concern any batch"));
        return;
    }
    writer_put(words, SPAN("; batch "));
    if (topic->batch.size > 0) {
        writer_put(words, topic->batch);
    } else {
        writer_put_format(words, "number %u, which has ended or is not known", topic->number);
    }
    if (topic->line_first == 0) {
        writer_put(words, SPAN(", anybody of it"));
    } else if (topic->line_first == topic->line_last) {
        writer_put_format(words, ", recipient %llu", (unsigned long long)topic->line_first);
    } else {
        writer_put_format(words, ", recipients %llu to %llu", (unsigned long long)topic->line_first,
                          (unsigned long long)topic->line_last);
    }
}

static void tell(const struct engine *engine, struct topic *topic, const struct writer *text,
                 struct writer *words)
{
    topic->words = writer_span(text);
    writer_put(words, SPAN("ramjet: damage: "));
    writer_put(words, topic->words);
    writer_put_byte(words, '\n');
    put_event(engine, topic);
}

static void tell_row(const struct engine *engine, const struct journal_known *known,
                     const struct journal_damage *row, struct writer *words)
{
    char memory[WORDS_SIZE], name[JOURNAL_NAME_SIZE] = "";
    struct writer text = writer_of(memory, sizeof(memory));
    bool has_lines = row->batch != 0 && row->ordinal_last >= row->ordinal_first;
    if (row->file != 0) {
        journal_name_put(name, row->file, row->number);
        writer_put_format(&text, "journal/%s", name);
    } else {
        writer_put(&text, SPAN("journal/"));
    }
    if (KINDS[row->kind].has_place) {
        writer_put_format(&text, ", at byte %llu", (unsigned long long)row->offset);
        if (row->size > 0) {
            writer_put_format(&text, " (%llu bytes)", (unsigned long long)row->size);
        }
    }
    writer_put(&text, SPAN(": "));
    if (KINDS[row->kind].has_count) {
        writer_put_format(&text, "%llu ", (unsigned long long)row->count);
    }
    writer_put(&text, span_of_text(KINDS[row->kind].words));
    struct topic topic = {
        .reason = KINDS[row->kind].reason,
        .file = name,
        .offset = row->offset,
        .size = row->size,
        .count = row->count,
        .batch = batch_name(known, row->batch),
        .number = row->batch,
        .line_first = has_lines ? (uint64_t)row->ordinal_first + 1 : 0,
        .line_last = has_lines ? (uint64_t)row->ordinal_last + 1 : 0,
    };
    if (row->kind != JOURNAL_DAMAGE_PASSED) {
        put_who(&text, &topic);
    }
    ensure(!text.is_full);
    tell(engine, &topic, &text, words);
}

/* What it comes to for the batch: who is not settled by what is left. */
static void tell_batch(const struct engine *engine, const struct journal_known_batch *batch,
                       struct writer *words)
{
    char memory[WORDS_SIZE];
    struct writer text = writer_of(memory, sizeof(memory));
    uint64_t settled = 0, first = 0, last = 0;
    for (uint64_t i = 0; i < batch->records_count; i++) {
        if (bitmap_has(batch->settled, i)) {
            settled++;
            continue;
        }
        first = first == 0 ? i + 1 : first;
        last = i + 1;
    }
    uint64_t left = batch->recipients_count > settled ? batch->recipients_count - settled : 0;
    struct topic topic = {
        .reason = "DAMAGED_BATCH",
        .file = "",
        .count = left,
        .batch = name_of(batch),
        .number = batch->number,
        .line_first = left == 0 ? 0 : first,
        .line_last = left == 0 ? 0 : last,
    };
    writer_put(&text, SPAN("batch "));
    writer_put(&text, topic.batch);
    writer_put_format(&text, ": %llu of %llu recipients are not settled by what is left",
                      (unsigned long long)left, (unsigned long long)batch->recipients_count);
    if (left > 0) {
        writer_put_format(&text,
                          " (between recipient %llu and %llu); they are sent to, and who of them "
                          "had the mail before gets it again, marked possible_duplicate",
                          (unsigned long long)first, (unsigned long long)last);
    }
    ensure(!text.is_full);
    tell(engine, &topic, &text, words);
}

void damage_tell_kept(const struct engine *engine, uint64_t count, struct writer *words)
{
    char memory[WORDS_SIZE];
    struct writer text = writer_of(memory, sizeof(memory));
    struct topic topic = {
        .reason = "DAMAGE_RESULTS_MISSING", .file = "results-missing", .count = count};
    writer_put_format(&text,
                      "journal/results-missing: %llu broken records; each is a line of a "
                      "results.ndjson, lost unless a segment has the record too",
                      (unsigned long long)count);
    tell(engine, &topic, &text, words);
}

void damage_tell_ids(const struct engine *engine, const char *file, int error, uint64_t lost_size,
                     struct writer *words)
{
    char memory[WORDS_SIZE];
    struct writer text = writer_of(memory, sizeof(memory));
    bool is_whole = lost_size == 0;
    struct topic topic = {
        .reason = "DAMAGE_IDS", .file = file, .size = lost_size, .count = is_whole ? 0 : lost_size};
    writer_put_format(&text, "journal/%s: ", file);
    if (is_whole) {
        writer_put(&text, SPAN("cannot be read"));
    } else {
        writer_put_format(&text, "%llu bytes %s, and all others were read",
                          (unsigned long long)lost_size,
                          error == -EBADMSG ? "are not what was written" : "cannot be read");
    }
    writer_put_format(
        &text,
        " (%s). Ids that stand there are not known: a batch that was accepted %s, and "
        "is submitted again within 30 days, would be sent again. See dmesg, put the "
        "file back from a copy, and start the engine anew",
        strerror(-error), file[0] == '\0' ? "before" : "on that day");
    ensure(!text.is_full);
    tell(engine, &topic, &text, words);
}

void damage_tell_lines(const struct engine *engine, const struct journal_known_batch *batch,
                       uint64_t count, uint32_t ordinal_first, uint32_t ordinal_last,
                       struct writer *words)
{
    char memory[WORDS_SIZE];
    struct writer text = writer_of(memory, sizeof(memory));
    struct topic topic = {
        .reason = "DAMAGED_RESULTS",
        .file = "",
        .count = count,
        .batch = name_of(batch),
        .number = batch->number,
        .line_first = (uint64_t)ordinal_first + 1,
        .line_last = (uint64_t)ordinal_last + 1,
    };
    writer_put(&text, SPAN("batch "));
    writer_put(&text, topic.batch);
    writer_put_format(&text,
                      ": %llu recipients (between recipient %llu and %llu) are settled, and no "
                      "line of results.ndjson says how, nor any record; nothing is sent to them "
                      "again, and the event log may know",
                      (unsigned long long)count, (unsigned long long)topic.line_first,
                      (unsigned long long)topic.line_last);
    ensure(!text.is_full);
    tell(engine, &topic, &text, words);
}

void damage_tell(const struct engine *engine, const struct journal_known *known,
                 struct writer *words)
{
    const struct journal_damages *damages = &known->damages;
    if (damages->count == 0) {
        return;
    }
    for (uint32_t i = 0; i < damages->count; i++) {
        tell_row(engine, known, &damages->rows[i], words);
    }
    if (damages->left_count > 0) {
        writer_put_format(words, "ramjet: damage: and %llu more places\n",
                          (unsigned long long)damages->left_count);
    }
    uint32_t told = 0;
    for (uint32_t i = 0; i < known->batches_count && told < DAMAGE_BATCHES_MAX; i++) {
        if (known->batches[i].is_damaged) {
            tell_batch(engine, &known->batches[i], words);
            told++;
        }
    }
    writer_put_format(words, "ramjet: damage: %s\n", REMEDY);
}
