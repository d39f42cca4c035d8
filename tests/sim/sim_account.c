/* SPDX-License-Identifier: Apache-2.0 */
/* The account at the end: what was submitted against what happened. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "tests/sim/sim_book.h"

/* Fields of our own lines, whose form is known: the value behind `key` up to `stop`. */
static bool field(struct span line, const char *key, char stop, struct span *ret_value)
{
    const char *at = memmem(line.at, line.size, key, strlen(key));
    if (at == NULL) {
        return false;
    }
    at += strlen(key);
    struct span rest = span_of(at, (size_t)(line.at + line.size - at));
    *ret_value = span_of(at, span_find(rest, stop));
    return true;
}

static uint64_t number_field(struct span line, const char *key)
{
    struct span value;
    uint64_t number;
    if (!field(line, key, '\n', &value)) {
        return UINT64_MAX;
    }
    struct cursor cursor = cursor_of(value);
    return cursor_take_uint(&cursor, UINT64_MAX, &number) ? number : UINT64_MAX;
}

static struct wall_time time_field(struct span line, const char *key)
{
    struct span value;
    struct wall_time at;
    return field(line, key, '"', &value) && text_take_rfc3339(value, &at)
               ? at
               : (struct wall_time){.ns = 0};
}

static bool has(struct span line, const char *text)
{
    return memmem(line.at, line.size, text, strlen(text)) != NULL;
}

/* The recipient that a line speaks of, NULL when it is none of ours. */
static struct sim_entry *entry_of_line(struct sim_book *book, struct span line)
{
    struct span address;
    if (!field(line, "\"recipient\":\"", '"', &address)) {
        return NULL;
    }
    const char *dash = memrchr(address.at, '-', span_find(address, '@'));
    uint64_t number;
    if (dash == NULL) {
        return NULL;
    }
    struct cursor cursor =
        cursor_of(span_of(dash + 1, (size_t)(address.at + address.size - dash - 1)));
    if (!cursor_take_uint(&cursor, book->entries_count - 1, &number)) {
        return NULL;
    }
    struct sim_entry *entry = &book->entries[number];
    return span_equal(address, span_of_text(entry->address)) ? entry : NULL;
}

/* The servers' logs. */

/* So long behind a delivery its record may not be durable: while the answer is waited for. And so
 * long behind a death what was on its way arrives. */
static const int64_t DOUBT_NS = 900 * NS_PER_S;
static const int64_t ARRIVAL_NS = 120 * NS_PER_S;

static bool is_excused(const struct sim_engine *sim, int64_t before_ns, int64_t again_ns)
{
    for (uint32_t i = 0; i < sim->deaths_count; i++) {
        int64_t death_ns = sim->deaths_ns[i];
        if (death_ns <= again_ns && before_ns - death_ns <= ARRIVAL_NS &&
            death_ns - before_ns <= DOUBT_NS) {
            return true;
        }
    }
    return false;
}

/* By its first digit, as clients are to read it (RFC 5321 4.2). */
static bool is_refusal(uint16_t said)
{
    return said >= 400 && said < 600;
}

/* 220 and 221 mean one thing only, and not this. */
static bool is_acceptance(uint16_t said)
{
    return said >= 200 && said < 300 && said != 220 && said != 221;
}

static void join_mail(struct sim_book *book, const struct sim_mail *mail)
{
    const struct sim_engine *sim = book->sim;
    if (mail->number >= book->entries_count ||
        strcmp(book->entries[mail->number].address, mail->recipient) != 0) {
        sim_violation(sim, "a server has mail for %s, which was not submitted", mail->recipient);
    }
    struct sim_entry *entry = &book->entries[mail->number];
    if (entry->is_bad) {
        sim_violation(sim, "a server has mail for %s, which is rejected", mail->recipient);
    }
    if (mail->is_promise) {
        entry->promised++;
        return;
    }
    if (mail->token != entry->token) {
        sim_violation(sim, "%s got the message of %llu", mail->recipient,
                      (unsigned long long)mail->token);
    }
    if (entry->hash != 0 && entry->hash != mail->hash) {
        sim_violation(sim, "%s got other bytes than were submitted", mail->recipient);
    }
    bool may_differ = book->had_damage && entry->hash == 0;
    if (entry->deliveries + entry->denied > 0 && entry->delivered_hash != mail->hash &&
        !may_differ) {
        sim_violation(sim, "LAW 6: %s got other bytes the second time", mail->recipient);
    }
    entry->delivered_hash = mail->hash;
    if (is_refusal(mail->said)) {
        entry->denied++;
        return;
    }
    entry->confirmed += is_acceptance(mail->said) ? 1 : 0;
    if (entry->deliveries++ == 0) {
        entry->first_ns = mail->at_ns;
    } else {
        entry->excused += is_excused(sim, entry->last_ns, mail->at_ns) ? 1 : 0;
    }
    entry->last_ns = mail->at_ns;
}

/* results.ndjson and the event log. */

static enum sim_end end_of_line(struct span line)
{
    static const struct {
        const char *type;
        enum sim_end end;
    } TYPES[] = {
        {"\"type\":\"Delivery\"", SIM_DELIVERED},
        {"\"type\":\"Bounce\"", SIM_BOUNCED},
        {"\"type\":\"Expiration\"", SIM_EXPIRED},
        {"\"type\":\"AdminBounce\"", SIM_CANCELLED},
    };
    for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
        if (has(line, TYPES[i].type)) {
            return TYPES[i].end;
        }
    }
    return 0;
}

/* Who is cancelled or expires while the disk does not give his bytes is told by his line alone. */
static struct sim_entry *entry_without_name(const struct sim_book *book,
                                            const struct sim_submitted *batch, struct span line)
{
    uint64_t number = number_field(line, "\"line\":");
    enum sim_end end = end_of_line(line);
    bool is_legal = book->had_disk_faults && has(line, "\"recipient\":\"\"") &&
                    (end == SIM_CANCELLED || end == SIM_EXPIRED);
    return is_legal && number >= 1 && number <= batch->count
               ? &book->entries[batch->first + number - 1]
               : NULL;
}

/* One object, of printable text: servers send what they like, and people read it in a terminal. */
static bool is_printable(struct span line)
{
    for (size_t i = 0; i < line.size; i++) {
        if ((unsigned char)line.at[i] < ' ' || line.at[i] == 0x7f) {
            return false;
        }
    }
    return line.size > 2 && line.at[0] == '{' && line.at[line.size - 1] == '}' &&
           text_is_utf8(line);
}

static void join_results(struct sim_book *book, const struct sim_submitted *batch,
                         struct span content)
{
    const struct sim_engine *sim = book->sim;
    struct cursor cursor = cursor_of(content);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        struct sim_entry *entry = entry_of_line(book, line);
        entry = entry != NULL ? entry : entry_without_name(book, batch, line);
        enum sim_end end = end_of_line(line);
        if (book->had_lines_damaged && (entry == NULL || end == 0 || !is_printable(line))) {
            continue;
        }
        if (entry == NULL || end == 0 || !is_printable(line)) {
            sim_violation(sim, "results of %s: a line that nobody can read: %.*s", batch->id,
                          (int)line.size, line.at);
        }
        if (entry->batch != (uint32_t)(batch - book->batches) ||
            number_field(line, "\"line\":") != entry->ordinal + 1u) {
            sim_violation(sim, "results of %s: not its recipient: %.*s", batch->id, (int)line.size,
                          line.at);
        }
        if (entry->ends_count > 0) {
            sim_violation(sim, "LAW 2: %s has ended twice", entry->address);
        }
        entry->ends_count++;
        entry->end = end;
        entry->attempts = number_field(line, "\"num_attempts\":");
        entry->accepted_at = time_field(line, "\"created_time\":\"");
        entry->ended_at = time_field(line, "\"event_time\":\"");
        entry->is_marked = has(line, "\"possible_duplicate\":true");
    }
}

static void deferral_add(struct sim_book *book, const struct sim_entry *entry, struct span line)
{
    if (book->deferrals_count == book->deferrals_room) {
        book->deferrals_room = book->deferrals_room == 0 ? 256 : 2 * book->deferrals_room;
        book->deferrals = realloc(book->deferrals, book->deferrals_room * sizeof(*book->deferrals));
        ensure(book->deferrals != NULL);
    }
    book->deferrals[book->deferrals_count++] = (struct sim_deferral){
        .number = (uint32_t)(entry - book->entries),
        .attempts = number_field(line, "\"num_attempts\":"),
        .at = time_field(line, "\"event_time\":\""),
    };
}

static void join_events(struct sim_book *book, struct span content)
{
    struct cursor cursor = cursor_of(content);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        struct sim_entry *entry = entry_of_line(book, line);
        if (!is_printable(line) && !book->had_power_loss && !book->had_disk_faults) {
            sim_violation(book->sim, "the log: a line that nobody can read: %.*s", (int)line.size,
                          line.at);
        }
        /* A sector that is lost leaves the start of one line in front of the end of another. */
        if (entry == NULL || !is_printable(line)) {
            continue;
        }
        entry->ambiguous += has(line, "\"TEMP_AMBIGUOUS\"") ? 1 : 0;
        entry->is_siteless |= has(line, "\"TEMP_NO_SITE\"");
        if (has(line, "\"type\":\"TransientFailure\"")) {
            deferral_add(book, entry, line);
            uint64_t attempts = number_field(line, "\"num_attempts\":");
            entry->deferrals++;
            entry->attempts_max = attempts > entry->attempts_max ? attempts : entry->attempts_max;
        }
    }
}

/* The spool. */

struct found {
    struct sim_book *book;
    const char *dir;
    const char *id;
    uint32_t count;
    char path[256];
};

static void each_name(struct sim_engine *sim, const char *path,
                      void (*on_name)(void *context, const char *name, enum disk_kind kind),
                      void *context)
{
    int fd = disk_open(sim->view, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    if (fd >= 0) {
        (void)disk_list(sim->view, fd, on_name, context);
        disk_close(sim->view, fd);
    }
}

/* Directories of days, in done/ and in failed/. */
static void on_day(void *context, const char *name, enum disk_kind kind)
{
    struct found *found = context;
    (void)kind;
    char path[sizeof(found->path)];
    (void)snprintf(path, sizeof(path), "%s/%s/%s.batch", found->dir, name, found->id);
    struct disk_stat stat;
    if (disk_stat_at(found->book->sim->view, DISK_ROOT, path, &stat) == 0) {
        found->count++;
        memcpy(found->path, path, sizeof(path));
    }
}

static struct found find_batch(struct sim_book *book, const struct sim_submitted *batch,
                               const char *dir)
{
    struct found found = {.book = book, .dir = dir, .id = batch->id};
    each_name(book->sim, dir, on_day, &found);
    return found;
}

static struct span peek(struct sim_book *book, const char *dir, const char *name)
{
    char path[300];
    struct span content;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return sim_disk_peek(book->sim->disk, path, &content) == 0 ? content : SPAN_NONE;
}

static void on_log(void *context, const char *name, enum disk_kind kind)
{
    struct sim_book *book = context;
    (void)kind;
    join_events(book, peek(book, "/spool/log", name));
}

/* One recipient. */

/* The last delivery's record went with a death, and the next life came to another end. */
static bool is_last_excused(const struct sim_engine *sim, const struct sim_entry *entry)
{
    int64_t ended_ns;
    bool is = false;
    for (uint32_t i = 0; sim_engine_wall_was(sim, entry->ended_at, i, &ended_ns); i++) {
        is = is || is_excused(sim, entry->last_ns, ended_ns + NS_PER_MS); /* lines tell those */
    }
    return is && entry->deliveries > 0 && entry->end != SIM_DELIVERED;
}

static void judge_repeats(struct sim_book *book, const struct sim_entry *entry)
{
    const struct sim_engine *sim = book->sim;
    uint32_t once = entry->end == SIM_DELIVERED || entry->ends_count == 0 ? 1 : 0;
    uint32_t excused = entry->excused + (is_last_excused(sim, entry) ? 1 : 0);
    uint32_t repeats = entry->deliveries > once ? entry->deliveries - once : 0;
    book->totals.repeats += repeats;
    if (repeats == 0 || entry->ends_count == 0) {
        return;
    }
    bool is_unknown =
        entry->is_marked && (book->had_power_loss || book->had_disk_faults || book->had_damage);
    int64_t told_ns = book->batches[entry->batch].told_ns;
    bool is_unseen = book->had_journal_damaged && (told_ns == 0 || told_ns > entry->last_ns);
    if (repeats > entry->ambiguous + excused && !is_unknown && !is_unseen) {
        sim_violation(sim,
                      "LAW 6: %s was delivered %u times, at %.6f s and %.6f s, with %u ambiguous "
                      "ends, %u excused by deaths",
                      entry->address, entry->deliveries, (double)entry->first_ns / (double)NS_PER_S,
                      (double)entry->last_ns / (double)NS_PER_S, entry->ambiguous, excused);
    }
    if (!entry->is_marked && !is_unseen) {
        sim_violation(sim,
                      "LAW 6: %s was delivered %u times, at %.6f s and %.6f s, not told as "
                      "possible_duplicate",
                      entry->address, entry->deliveries, (double)entry->first_ns / (double)NS_PER_S,
                      (double)entry->last_ns / (double)NS_PER_S);
    }
}

/* Slack for questions to name servers that wait for each other. */
static const int64_t EXPIRY_SLACK_NS = 600 * NS_PER_S;

/* Its age at that time: while an engine runs it grows by time that goes by, whatever the wall clock
 * says; what is older than the engine was as old at its start as the wall clock said. */
static int64_t age_ns(const struct sim_engine *sim, const struct sim_entry *entry, int64_t at_ns)
{
    uint64_t life = sim->boots;
    while (life > 1 && sim->boots_ns[life - 1] > at_ns + NS_PER_MS) {
        life--;
    }
    int64_t boot_ns = sim->boots_ns[life - 1];
    int64_t before_ns = sim->boots_at[life - 1].ns - entry->accepted_at.ns;
    int64_t since_ns = (before_ns > 0 ? before_ns : 0) + at_ns - boot_ns;
    int64_t most_ns = INT64_MIN;
    int64_t from_ns;
    for (uint32_t i = 0; sim_engine_wall_was(sim, entry->accepted_at, i, &from_ns); i++) {
        bool is_older = from_ns < boot_ns;
        int64_t ns = is_older ? since_ns : at_ns - from_ns;
        most_ns = ns > most_ns ? ns : most_ns;
    }
    return most_ns;
}

/* How long behind its time it has expired, at most: by a clock that was set there may be several
 * times when it said so. */
static int64_t late_most_ns(const struct sim_book *book, const struct sim_entry *entry)
{
    int64_t most_ns = INT64_MIN;
    int64_t at_ns;
    for (uint32_t i = 0; sim_engine_wall_was(book->sim, entry->ended_at, i, &at_ns); i++) {
        /* Lines that were made again from the journal tell whole seconds. */
        at_ns += entry->ended_at.ns % NS_PER_S == 0 ? NS_PER_S : 0;
        int64_t ns = age_ns(book->sim, entry, at_ns) - (int64_t)book->expire_s * NS_PER_S;
        most_ns = ns > most_ns ? ns : most_ns;
    }
    return most_ns;
}

/* Mail for hosts that would have taken it has grown old by the wall clock alone. */
static bool is_aged(const struct sim_book *book, const struct sim_entry *entry)
{
    return book->sim->walls_count > 1 && book->expire_s > 0 && entry->end == SIM_EXPIRED &&
           late_most_ns(book, entry) >= -NS_PER_S;
}

static void judge_expiry(const struct sim_book *book, const struct sim_entry *entry)
{
    const struct sim_engine *sim = book->sim;
    if (book->expire_s == 0 || entry->end != SIM_EXPIRED) {
        return;
    }
    int64_t late_ns = late_most_ns(book, entry);
    bool is_exact = book->is_expiry_exact && entry->ends == SIM_EXPIRED && sim->boots == 1;
    if (late_ns < -NS_PER_S || (is_exact && late_ns > EXPIRY_SLACK_NS)) {
        sim_violation(sim, "%s expired %.3f s behind its time", entry->address,
                      (double)late_ns / (double)NS_PER_S);
    }
}

/* What an orderly stop leaves behind knows all attempts, but for those that the next start misses.
 */
static void judge_attempts(const struct sim_book *book, const struct sim_entry *entry)
{
    const struct sim_engine *sim = book->sim;
    bool has_died = sim->crashes > 0 || sim->failures > 0;
    bool is_told = book->had_damage && sim_book_is_told(book, &book->batches[entry->batch]);
    if (has_died || is_told || book->had_disk_faults || entry->ends_count == 0) {
        return;
    }
    /* One that was cancelled, or grew too old, while it waited ends without an attempt. */
    bool is_untried = entry->end == SIM_EXPIRED || entry->end == SIM_CANCELLED;
    if (entry->attempts_max < entry->deferrals ||
        entry->attempts < entry->attempts_max + !is_untried) {
        sim_violation(sim, "%s was deferred %u times; the log counts %llu, its end %llu",
                      entry->address, entry->deferrals, (unsigned long long)entry->attempts_max,
                      (unsigned long long)entry->attempts);
    }
}

static void judge_entry(struct sim_book *book, const struct sim_entry *entry)
{
    const struct sim_engine *sim = book->sim;
    if (entry->is_bad) {
        return;
    }
    book->totals.recipients++;
    book->totals.results_missing += entry->ends_count == 0 ? 1 : 0;
    book->totals.results_twice += entry->ends_count > 1 ? 1 : 0;
    if (entry->ends_count == 0 && sim_book_is_told(book, &book->batches[entry->batch])) {
        return;
    }
    if (entry->ends_count == 0) {
        sim_violation(sim, "%s has no end", entry->address);
    }
    /* Few sites, all of them in use whenever this one's turn came: that was told each time. */
    bool is_aged_out = is_aged(book, entry) || (entry->end == SIM_EXPIRED && entry->is_siteless);
    if (entry->ends_count > 0 && (entry->end & entry->ends) == 0 && !is_aged_out) {
        sim_violation(sim, "%s may not end so: %u, only %u", entry->address, entry->end,
                      entry->ends);
    }
    /* What was promised early may be lost on its way, and nobody can know. */
    bool may_be_promised = entry->promised > 0 && (!book->has_safe_ways || sim->deaths_count > 0);
    if (entry->end == SIM_DELIVERED && entry->confirmed == 0 && !may_be_promised) {
        sim_violation(sim, "LAW 5: %s is told delivered, and no server %s", entry->address,
                      entry->deliveries + entry->denied > 0 ? "said so" : "has it");
    }
    if (entry->ends == SIM_DELIVERED && entry->deliveries == 0 && !is_aged_out) {
        sim_violation(sim, "%s was to be delivered, and no server has it", entry->address);
    }
    judge_expiry(book, entry);
    judge_attempts(book, entry);
    judge_repeats(book, entry);
}

/* One batch. */

struct counts {
    uint64_t delivered, bounced, expired, cancelled;
};

static struct counts count_ends(const struct sim_book *book, const struct sim_submitted *batch)
{
    struct counts counts = {0};
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct sim_entry *entry = &book->entries[batch->first + i];
        counts.delivered += entry->end == SIM_DELIVERED ? 1 : 0;
        counts.bounced += entry->end == SIM_BOUNCED ? 1 : 0;
        counts.expired += entry->end == SIM_EXPIRED ? 1 : 0;
        counts.cancelled += entry->end == SIM_CANCELLED ? 1 : 0;
    }
    return counts;
}

static void judge_summary(struct sim_book *book, const struct sim_submitted *batch,
                          struct span summary)
{
    const struct sim_engine *sim = book->sim;
    const struct counts told = {
        .delivered = number_field(summary, "\"delivered\":"),
        .bounced = number_field(summary, "\"bounced\":"),
        .expired = number_field(summary, "\"expired\":"),
        .cancelled = number_field(summary, "\"cancelled\":"),
    };
    uint64_t accepted = batch->count - batch->bad_count;
    if (number_field(summary, "\"accepted\":") != accepted ||
        number_field(summary, "\"rejected\":") != batch->bad_count ||
        told.delivered + told.bounced + told.expired + told.cancelled != accepted) {
        sim_violation(sim, "LAW 3: summary of %s does not add up to %llu: %.*s", batch->id,
                      (unsigned long long)accepted, (int)summary.size, summary.at);
    }
    const struct counts counted = count_ends(book, batch);
    bool is_same = memcmp(&counted, &told, sizeof(told)) == 0;
    if (!is_same && !sim_book_is_told(book, batch)) {
        sim_violation(sim, "summary of %s says other than results.ndjson: %.*s", batch->id,
                      (int)summary.size, summary.at);
    }
    uint64_t reached = 0;
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct sim_entry *entry = &book->entries[batch->first + i];
        reached += entry->confirmed + entry->promised > 0 ? 1 : 0;
    }
    if (told.delivered > reached) {
        sim_violation(sim, "LAW 5: summary of %s says %llu delivered, servers have %llu", batch->id,
                      (unsigned long long)told.delivered, (unsigned long long)reached);
    }
    book->totals.delivered += told.delivered;
    book->totals.bounced += told.bounced;
    book->totals.expired += told.expired;
    book->totals.cancelled += told.cancelled;
}

static uint32_t lines_count(struct span content)
{
    uint32_t count = 0;
    for (size_t i = 0; i < content.size; i++) {
        count += content.at[i] == '\n' ? 1 : 0;
    }
    return count;
}

/* It could not run, so nobody may have got it. */
static void settle_failed(struct sim_book *book, const struct sim_submitted *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        const struct sim_entry *entry = &book->entries[batch->first + i];
        if (entry->deliveries > 0) {
            sim_violation(book->sim, "%s failed, and %s got mail", batch->id, entry->address);
        }
    }
}

static bool is_held(struct sim_book *book, const struct sim_submitted *batch)
{
    char path[128];
    struct disk_stat stat;
    (void)snprintf(path, sizeof(path), "/spool/hold/%s.batch", batch->id);
    return disk_stat_at(book->sim->view, DISK_ROOT, path, &stat) == 0;
}

static void settle_batch(struct sim_book *book, const struct sim_submitted *batch)
{
    const struct sim_engine *sim = book->sim;
    struct found done = find_batch(book, batch, "/spool/done");
    struct found failed = find_batch(book, batch, "/spool/failed");
    uint32_t held_count = is_held(book, batch) ? 1 : 0;
    bool may_fail = batch->is_failing || book->had_disk_faults;
    may_fail |= book->had_damage && held_count == 1;
    bool is_legal = done.count + failed.count + held_count == 1 &&
                    (done.count == 1 ? !batch->is_failing : may_fail);
    if (!is_legal) {
        sim_violation(sim, "LAW 4: %s is %u times in done/, %u in failed/, %u in hold/", batch->id,
                      done.count, failed.count, held_count);
    }
    if (failed.count > 0) {
        settle_failed(book, batch);
    }
    if (done.count == 0) {
        return;
    }
    join_results(book, batch, peek(book, done.path, "results.ndjson"));
    if (lines_count(peek(book, done.path, "rejects.ndjson")) != batch->bad_count) {
        sim_violation(sim, "%s: rejects.ndjson does not have its %u lines", batch->id,
                      batch->bad_count);
    }
    for (uint32_t i = 0; i < batch->count; i++) {
        judge_entry(book, &book->entries[batch->first + i]);
    }
    judge_summary(book, batch, peek(book, done.path, "summary.json"));
}

void sim_book_settle_up(struct sim_book *book)
{
    size_t count;
    const struct sim_mail *log = sim_peers_log(book->sim->peers, &count);
    for (size_t i = 0; i < count; i++) {
        join_mail(book, &log[i]);
    }
    each_name(book->sim, "/spool/log", on_log, book);
    for (uint32_t i = 0; i < book->batches_count; i++) {
        settle_batch(book, &book->batches[i]);
    }
    const char *words;
    if (sim_peers_wrongs(book->sim->peers, &words) > 0) {
        sim_violation(book->sim, "the SMTP client does not keep the rules: %s", words);
    }
}
