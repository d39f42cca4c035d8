/* SPDX-License-Identifier: Apache-2.0 */
/* What is submitted. */
#include "tests/sim/sim_book.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/base/text.h"

/* Text that grows, for the files of a batch. */
struct text {
    char *at;
    size_t size;
    size_t room;
};

static void put(struct text *text, struct span piece)
{
    if (text->size + piece.size > text->room) {
        text->room = 2 * (text->size + piece.size) + 1024;
        text->at = realloc(text->at, text->room);
        ensure(text->at != NULL);
    }
    if (piece.size > 0) {
        memcpy(text->at + text->size, piece.at, piece.size);
    }
    text->size += piece.size;
}

__attribute__((format(printf, 2, 3))) static void put_format(struct text *text, const char *format,
                                                             ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    ensure(size >= 0);
    ensure((size_t)size < sizeof(line));
    put(text, span_of(line, (size_t)size));
}

static struct span span_of_made(const struct text *text)
{
    return text->size == 0 ? SPAN_NONE : span_of(text->at, text->size);
}

void sim_book_init(struct sim_book *book, struct sim_engine *sim)
{
    *book = (struct sim_book){.sim = sim};
}

bool sim_book_is_told(const struct sim_book *book, const struct sim_submitted *batch)
{
    char words[96];
    (void)snprintf(words, sizeof(words), "batch %s", batch->id);
    return book->had_lines_damaged ||
           (book->told != NULL &&
            (strstr(book->told, words) != NULL || strstr(book->told, "any batch") != NULL ||
             strstr(book->told, "which has ended or is not known") != NULL ||
             strstr(book->told, "results-missing") != NULL));
}

void sim_book_told(struct sim_book *book, const char *words)
{
    size_t size = strlen(words);
    book->told = realloc(book->told, book->told_size + size + 1);
    ensure(book->told != NULL);
    memcpy(book->told + book->told_size, words, size + 1);
    book->told_size += size;
    for (uint32_t i = 0; i < book->batches_count; i++) {
        struct sim_submitted *batch = &book->batches[i];
        if (batch->told_ns == 0 && sim_book_is_told(book, batch)) {
            batch->told_ns = book->sim->clock.mono.ns;
        }
    }
}

void sim_book_deinit(struct sim_book *book)
{
    free(book->entries);
    free(book->deferrals);
    free(book->told);
    free(book->batches);
    *book = (struct sim_book){.sim = NULL};
}

static struct sim_entry *entry_add(struct sim_book *book)
{
    if (book->entries_count == book->entries_room) {
        book->entries_room = book->entries_room == 0 ? 256 : 2 * book->entries_room;
        book->entries = realloc(book->entries, book->entries_room * sizeof(*book->entries));
        ensure(book->entries != NULL);
    }
    struct sim_entry *entry = &book->entries[book->entries_count++];
    *entry = (struct sim_entry){.ends = SIM_ANY_END, .token = SIM_PEER_NONE};
    return entry;
}

/* The next recipient of the batch under way. */
static struct sim_entry *entry_choose(struct sim_book *book, const struct sim_plan *plan,
                                      uint32_t index)
{
    struct sim_choice choice = {.domain = ""};
    plan->choose(plan->context, index, &choice);
    uint32_t number = book->entries_count;
    struct sim_entry *entry = entry_add(book);
    entry->batch = book->batches_count - 1;
    entry->ordinal = index;
    entry->ends = choice.ends != 0 ? choice.ends : SIM_ANY_END;
    entry->is_bad = choice.is_bad && plan->kind != SIM_BSMTP;
    int size = snprintf(entry->address, sizeof(entry->address), "%s-%u%s%s",
                        choice.script == NULL ? "u" : choice.script, number,
                        entry->is_bad ? " and " : "@", choice.domain);
    ensure(size > 0);
    ensure((size_t)size < sizeof(entry->address));
    book->batches[entry->batch].bad_count += entry->is_bad ? 1 : 0;
    return entry;
}

/* Lines of a message, some of which begin with a dot. */
static void put_lines(struct text *text, uint32_t number, uint32_t size)
{
    static const char *const LINES[] = {
        "The quick brown fox jumps over the lazy dog.",
        ".",
        "..two dots, and",
        ".hidden file",
        "",
        "a line of words that is a little longer than the others are, but not by much",
    };
    size_t end = text->size + size;
    for (uint32_t i = number; text->size < end; i++) {
        const char *line = LINES[i % COUNT_OF(LINES)];
        put(text, span_of_text(line));
        put(text, SPAN("\r\n"));
    }
}

static void make_merge(struct sim_book *book, const struct sim_plan *plan, struct text *message,
                       struct text *rows)
{
    put(message, SPAN("From: News <news@sender.example>\r\nSubject: Simulated\r\n"));
    put(message, plan->is_same ? SPAN("X-Plain: yes\r\n") : SPAN("X-Token: {{n}}\r\n"));
    put(message, SPAN("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"));
    put(message, plan->is_same ? SPAN("Hello,\r\n") : SPAN("Hello {{n}},\r\n"));
    put_lines(message, 0, plan->body_size);
    put(rows, plan->kind == SIM_CSV ? SPAN("to,n\n") : SPAN_NONE);
    for (uint32_t i = 0; i < plan->count; i++) {
        uint32_t number = book->entries_count;
        struct sim_entry *entry = entry_choose(book, plan, i);
        entry->token = plan->is_same ? SIM_PEER_NONE : number;
        if (plan->kind == SIM_CSV) {
            put_format(rows, "%s,%u\n", entry->address, number);
        } else {
            put_format(rows, "{\"to\":\"%s\",\"vars\":{\"n\":\"%u\"}}\n", entry->address, number);
        }
    }
}

/* A message as it stands in the file: dots doubled, lines as the plan has them. */
static void put_record_lines(struct text *file, const struct sim_plan *plan, struct span content)
{
    struct cursor cursor = cursor_of(content);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        put(file, line.size > 0 && line.at[0] == '.' ? SPAN(".") : SPAN_NONE);
        put(file, line);
        put(file, plan->is_lf ? SPAN("\n") : SPAN("\r\n"));
    }
}

static void make_bsmtp(struct sim_book *book, const struct sim_plan *plan, struct text *file)
{
    const char *end = plan->is_lf ? "\n" : "\r\n";
    uint32_t per_record = plan->rcpts_per_record > 0 ? plan->rcpts_per_record : 1;
    for (uint32_t i = 0; i < plan->count;) {
        uint32_t first = book->entries_count;
        uint32_t count = per_record < plan->count - i ? per_record : plan->count - i;
        put_format(file, "MAIL FROM:<bounce@sender.example>%s", end);
        for (uint32_t j = 0; j < count; j++, i++) {
            put_format(file, "RCPT TO:<%s>%s", entry_choose(book, plan, i)->address, end);
        }
        struct text content = {.at = NULL};
        put_format(&content, "From: news@sender.example\r\nX-Token: %u\r\n", first);
        if (!plan->is_bare) {
            put_format(&content,
                       "Date: Mon, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <%u@sender>\r\n",
                       first);
        }
        put(&content, SPAN("\r\n"));
        put_lines(&content, first, plan->body_size);
        put_format(file, "DATA%s", end);
        put_record_lines(file, plan, span_of_made(&content));
        put_format(file, ".%s", end);
        uint64_t hash = plan->is_bare ? 0 : XXH3_64bits(content.at, content.size);
        for (uint32_t number = first; number < book->entries_count; number++) {
            book->entries[number].token = first;
            book->entries[number].hash = hash;
        }
        free(content.at);
    }
}

static void make_manifest(const struct sim_plan *plan, struct text *manifest)
{
    put_format(manifest, "{\"v\":1,\"id\":\"%s\",\"kind\":\"%s\"", plan->id,
               plan->kind == SIM_BSMTP ? "bsmtp" : "merge");
    if (plan->kind != SIM_BSMTP) {
        put_format(manifest,
                   ",\"from\":\"bounce@sender.example\",\"message\":\"message.eml\","
                   "\"recipients\":\"recipients.%s\"",
                   plan->kind == SIM_CSV ? "csv" : "ndjson");
    }
    if (plan->expires_s > 0) {
        char time[40];
        struct writer writer = writer_of(time, sizeof(time) - 1);
        text_put_rfc3339(&writer, (struct wall_time){.ns = (int64_t)plan->expires_s * NS_PER_S});
        *writer.at = '\0';
        put_format(manifest, ",\"expires\":\"%s\"", time);
    }
    put_format(manifest,
               ",\"max_reject\":1000000,\"results\":[\"delivered\",\"bounced\","
               "\"expired\",\"cancelled\"]%s}\n",
               plan->is_failing ? ",\"nonsense\":1" : "");
}

static void put_file(struct disk *disk, int dir, const char *name, struct text *text)
{
    int fd = disk_open(disk, dir, name, DISK_READWRITE | DISK_CREATE | DISK_EXCLUSIVE);
    ensure(fd >= 0);
    struct span content = span_of_made(text);
    ensure(disk_write(disk, fd, content.at, content.size, 0) == (int64_t)content.size);
    ensure(disk_datasync(disk, fd) == 0);
    disk_close(disk, fd);
    free(text->at);
}

static void sync_directory(struct disk *disk, const char *path)
{
    int fd = disk_open(disk, DISK_ROOT, path, DISK_READONLY | DISK_DIRECTORY);
    ensure(fd >= 0);
    ensure(disk_sync(disk, fd) == 0);
    disk_close(disk, fd);
}

uint32_t sim_book_submit(struct sim_book *book, const struct sim_plan *plan)
{
    if (book->batches_count == book->batches_room) {
        book->batches_room = book->batches_room == 0 ? 16 : 2 * book->batches_room;
        book->batches = realloc(book->batches, book->batches_room * sizeof(*book->batches));
        ensure(book->batches != NULL);
    }
    struct sim_submitted *batch = &book->batches[book->batches_count++];
    *batch = (struct sim_submitted){.kind = plan->kind,
                                    .is_failing = plan->is_failing,
                                    .at_ns = book->sim->clock.mono.ns,
                                    .first = book->entries_count,
                                    .count = plan->count};
    (void)snprintf(batch->id, sizeof(batch->id), "%s", plan->id);
    struct disk *disk = book->sim->view;
    char from[128];
    char to[128];
    (void)snprintf(from, sizeof(from), "/spool/in/tmp/%s", plan->id);
    (void)snprintf(to, sizeof(to), "/spool/in/new/%s.batch", plan->id);
    ensure(disk_mkdir(disk, DISK_ROOT, from) == 0);
    int dir = disk_open(disk, DISK_ROOT, from, DISK_READONLY | DISK_DIRECTORY);
    ensure(dir >= 0);
    struct text manifest = {.at = NULL};
    struct text content = {.at = NULL};
    struct text rows = {.at = NULL};
    make_manifest(plan, &manifest);
    put_file(disk, dir, "batch.json", &manifest);
    if (plan->kind == SIM_BSMTP) {
        make_bsmtp(book, plan, &content);
        put_file(disk, dir, "messages-1.bsmtp", &content);
    } else {
        make_merge(book, plan, &content, &rows);
        put_file(disk, dir, "message.eml", &content);
        put_file(disk, dir, plan->kind == SIM_CSV ? "recipients.csv" : "recipients.ndjson", &rows);
    }
    batch = &book->batches[book->batches_count - 1];
    batch->is_failing |= batch->bad_count == batch->count; /* nobody to send to */
    ensure(disk_sync(disk, dir) == 0);
    disk_close(disk, dir);
    ensure(disk_rename(disk, DISK_ROOT, from, DISK_ROOT, to) == 0);
    sync_directory(disk, "/spool/in/new");
    sync_directory(disk, "/spool/in/tmp");
    sim_trace(book->sim, "submitted %s: %u recipients", plan->id, plan->count);
    return book->batches_count - 1;
}

static void choose_alike(void *context, uint32_t index, struct sim_choice *ret_choice)
{
    (void)index;
    *ret_choice = *(const struct sim_choice *)context;
}

uint32_t sim_book_submit_simple(struct sim_book *book, const char *id, uint32_t count,
                                const char *script, const char *domain, unsigned ends)
{
    struct sim_choice choice = {.script = script, .domain = domain, .ends = ends};
    const struct sim_plan plan = {
        .id = id,
        .kind = SIM_NDJSON,
        .count = count,
        .body_size = 200,
        .choose = choose_alike,
        .context = &choice,
    };
    return sim_book_submit(book, &plan);
}

void sim_book_order(struct sim_book *book, uint32_t batch, const char *verb)
{
    ensure(batch < book->batches_count);
    char path[128];
    (void)snprintf(path, sizeof(path), "/spool/in/ctl/%s.%s", book->batches[batch].id, verb);
    int fd = disk_open(book->sim->view, DISK_ROOT, path, DISK_READWRITE | DISK_CREATE);
    ensure(fd >= 0);
    disk_close(book->sim->view, fd);
    sync_directory(book->sim->view, "/spool/in/ctl");
    book->batches[batch].is_retried |= strcmp(verb, "retry") == 0;
    sim_trace(book->sim, "ordered: %s %s", verb, book->batches[batch].id);
}

const struct sim_entry *sim_book_entry(const struct sim_book *book, uint32_t batch, uint32_t index)
{
    ensure(batch < book->batches_count);
    ensure(index < book->batches[batch].count);
    return &book->entries[book->batches[batch].first + index];
}
