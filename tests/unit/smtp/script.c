/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/smtp/script.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_session.h"

enum {
    SEGMENT_MAX = 1 << 18,
    OUTPUT_MAX = 1 << 17,
    EVENTS_MAX = 600,
    EVENT_SIZE = 80,
    LINE_SIZE = 4096,
    CUTS_COUNT = 8, /* runs with seeded cuts */
};

struct play {
    struct smtp_session session;
    struct smtp_session_config config;
    struct smtp_transaction transaction;
    struct span rcpts[SMTP_RCPTS_MAX];
    char rcpt_texts[SMTP_RCPTS_MAX][24];
    struct mono_time now;
    struct random random;
    int mode; /* 0 = whole, 1 = byte by byte, above = seeded cuts */
    char segment[SEGMENT_MAX];
    size_t segment_size;
    char output[OUTPUT_MAX];
    size_t output_size;
    size_t output_at;
    char events[EVENTS_MAX][EVENT_SIZE];
    unsigned events_count;
    unsigned events_at;
    char text[SMTP_REPLY_TEXT_MAX + 1];
};

static void note_event(struct play *play, const struct smtp_event *event)
{
    static const char *const KINDS[] = {"READY", "BODY", "R", "DONE", "OVER"};
    if (play->events_count == EVENTS_MAX) {
        fprintf(stderr, "too many events\n");
        abort();
    }
    char *at = play->events[play->events_count++];
    const struct smtp_result *result = &event->result;
    size_t text_size = result->reply->text_size;
    memcpy(play->text, result->reply->text, text_size);
    play->text[text_size] = '\0';
    char index[8] = "";
    if (event->kind == SMTP_EVENT_RECIPIENT) {
        snprintf(index, sizeof(index), "%u", event->index);
    }
    if (event->kind != SMTP_EVENT_RECIPIENT && event->kind != SMTP_EVENT_OVER) {
        snprintf(at, EVENT_SIZE, "%s", KINDS[event->kind]);
        return;
    }
    snprintf(at, EVENT_SIZE, "%s%s %s/%s/%u%s", KINDS[event->kind], index,
             smtp_stage_name(result->stage), smtp_cause_name(result->cause), result->reply->code,
             result->is_ambiguous ? " ambiguous" : "");
}

/* Through a writer that often has room for one command only; nothing may be written in halves. */
static void flush(struct play *play)
{
    bool is_more = true;
    while (is_more) {
        char room[SMTP_COMMAND_SIZE_MAX * 4];
        size_t size = play->mode > 1 ? SMTP_COMMAND_SIZE_MAX : sizeof(room);
        struct writer writer = writer_of(room, size);
        is_more = smtp_session_output(&play->session, &writer);
        ensure(!writer.is_full);
        size_t written = writer_size(&writer);
        ensure(written > 0 || !is_more);
        ensure(play->output_size + written <= OUTPUT_MAX);
        memcpy(play->output + play->output_size, room, written);
        play->output_size += written;
    }
    smtp_session_check(&play->session);
}

static void feed(struct play *play, struct span piece)
{
    struct smtp_event event;
    while (smtp_session_on_bytes(&play->session, &piece, play->now, &event)) {
        note_event(play, &event);
        smtp_session_check(&play->session);
    }
    ensure(piece.size == 0);
    flush(play);
}

static void end_segment(struct play *play)
{
    size_t at = 0;
    while (at < play->segment_size) {
        size_t left = play->segment_size - at;
        size_t size = left;
        if (play->mode == 1) {
            size = 1;
        } else if (play->mode > 1) {
            size = 1 + random_below(&play->random, (uint32_t)(left < 40 ? left : 40));
        }
        feed(play, span_of(play->segment + at, size));
        at += size;
    }
    play->segment_size = 0;
}

static size_t unescape(const char *text, char *to)
{
    size_t size = 0;
    for (const char *at = text; *at != '\0'; at++) {
        if (*at != '\\') {
            to[size++] = *at;
            continue;
        }
        at++;
        if (*at == 'x') {
            char digits[3] = {at[1], at[2], '\0'};
            to[size++] = (char)strtoul(digits, NULL, 16);
            at += 2;
        } else {
            to[size++] = *at == 'r' ? '\r' : (*at == 'n' ? '\n' : '\0');
        }
    }
    return size;
}

static void say(struct play *play, char step, const char *text)
{
    ensure(play->segment_size + strlen(text) + 2 <= SEGMENT_MAX);
    char *to = play->segment + play->segment_size;
    if (step == 's') {
        play->segment_size += unescape(text, to);
        return;
    }
    size_t size = strlen(text);
    memcpy(to, text, size);
    memcpy(to + size, "\r\n", 2);
    play->segment_size += size + 2;
}

static void begin(struct play *play, const char *text)
{
    struct smtp_transaction *transaction = &play->transaction;
    *transaction = (struct smtp_transaction){
        .sender = strstr(text, "null") != NULL ? SPAN_NONE : SPAN("s@from.test"),
        .rcpts = play->rcpts,
        .rcpts_count = (uint16_t)strtoul(text, NULL, 10),
        .is_8bit = strstr(text, "8bit") != NULL,
        .size = 100,
    };
    const char *size = strstr(text, "size=");
    if (size != NULL) {
        transaction->size = strtoull(size + 5, NULL, 10);
    }
    for (unsigned i = 0; i < transaction->rcpts_count; i++) {
        snprintf(play->rcpt_texts[i], sizeof(play->rcpt_texts[i]), "r%u@to.test", i);
        play->rcpts[i] = span_of_text(play->rcpt_texts[i]);
    }
    smtp_session_begin(&play->session, transaction, play->now);
    struct smtp_event event;
    while (smtp_session_next(&play->session, play->now, &event)) {
        note_event(play, &event);
        smtp_session_check(&play->session);
    }
}

static void take_body(struct play *play)
{
    smtp_session_body_taken(&play->session, play->now);
    struct smtp_event event;
    while (smtp_session_next(&play->session, play->now, &event)) {
        note_event(play, &event);
        smtp_session_check(&play->session);
    }
}

/* What happened before must have been named: else it may have happened too early. */
static bool pass_time(struct play *play, const char *text, bool is_heard, const char **ret_got)
{
    if (play->events_at != play->events_count) {
        *ret_got = play->events[play->events_at];
        return false;
    }
    play->now = mono_add_ms(play->now, strtoll(text, NULL, 10));
    struct smtp_event event;
    while (is_heard && smtp_session_on_timeout(&play->session, play->now, &event)) {
        note_event(play, &event);
    }
    flush(play);
    return true;
}

static void lose(struct play *play)
{
    struct smtp_event event;
    while (smtp_session_on_closed(&play->session, play->now, &event)) {
        note_event(play, &event);
        smtp_session_check(&play->session);
    }
}

static bool expect_line(struct play *play, const char *text, const char **ret_got)
{
    char *at = play->output + play->output_at;
    char *end = memchr(at, '\n', play->output_size - play->output_at);
    if (end == NULL) {
        *ret_got = "nothing";
        return false;
    }
    play->output_at = (size_t)(end - play->output) + 1;
    *end = '\0';
    *ret_got = at;
    if (end == at || end[-1] != '\r') {
        return false;
    }
    end[-1] = '\0';
    return strcmp(at, text) == 0;
}

static bool expect_event(struct play *play, const char *text, const char **ret_got)
{
    if (play->events_at == play->events_count) {
        *ret_got = "no event";
        return false;
    }
    *ret_got = play->events[play->events_at++];
    return strcmp(*ret_got, text) == 0;
}

static bool expect_deadline(struct play *play, const char *text, const char **ret_got)
{
    static char got[32];
    int64_t deadline_ns = smtp_session_deadline(&play->session).ns;
    if (deadline_ns == INT64_MAX) {
        snprintf(got, sizeof(got), "never");
    } else {
        snprintf(got, sizeof(got), "%lld", (long long)((deadline_ns - play->now.ns) / NS_PER_MS));
    }
    *ret_got = got;
    return strcmp(got, text) == 0;
}

static bool expect_silence(const struct play *play, const char **ret_got)
{
    *ret_got = play->output + play->output_at;
    return play->output_at == play->output_size;
}

static void act(struct play *play, char step, const char *text)
{
    if (step == 'B') {
        begin(play, text);
    } else if (step == 'M') {
        smtp_session_body_sent(&play->session, play->now);
        if (strcmp(text, "queued") != 0) {
            take_body(play);
        }
    } else if (step == 'A') {
        take_body(play);
    } else if (step == 'P') {
        smtp_session_body_progress(&play->session, play->now);
    } else if (step == 'Q') {
        smtp_session_quit(&play->session, play->now);
    } else if (step == 'X') {
        lose(play);
    } else if (step == 'O') {
        play->config.capabilities_off = SMTP_CAN_PIPELINE;
    } else {
        ensure(step == 'W' || step == '|');
    }
    flush(play);
}

static bool play_line(struct play *play, const char *line, const char **ret_got)
{
    char step = line[0];
    const char *text = line[0] != '\0' && line[1] == ' ' ? line + 2 : "";
    if (step == 'S' || step == 's') {
        say(play, step, text);
        return true;
    }
    end_segment(play);
    switch (step) {
    case 'C':
        return expect_line(play, text, ret_got);
    case 'N':
        return expect_silence(play, ret_got);
    case 'E':
        return expect_event(play, text, ret_got);
    case 'V':
        *ret_got = play->text;
        return strcmp(play->text, text) == 0;
    case 'D':
        return expect_deadline(play, text, ret_got);
    case 't':
    case 'T':
        return pass_time(play, text, step == 'T', ret_got);
    default:
        act(play, step, text);
        return true;
    }
}

static void play_init(struct play *play, int mode)
{
    memset(play, 0, sizeof(*play));
    play->config.ehlo_name = SPAN("out.test");
    smtp_timeouts_default(&play->config.timeouts);
    play->now = (struct mono_time){.ns = NS_PER_S};
    play->mode = mode;
    random_init_seed(&play->random, (uint64_t)mode);
    memset(&play->session, 0xa5, sizeof(play->session)); /* the memory of another one's life */
    smtp_session_init(&play->session, &play->config, play->now);
    smtp_session_check(&play->session);
    smtp_session_on_connected(&play->session, play->now);
    flush(play);
}

static bool play_script(struct play *play, const char *script, char *line, const char **ret_got)
{
    const char *at = script;
    while (*at != '\0') {
        const char *end = strchr(at, '\n');
        ensure(end != NULL && (size_t)(end - at) < LINE_SIZE);
        memcpy(line, at, (size_t)(end - at));
        line[end - at] = '\0';
        at = end + 1;
        if (!play_line(play, line, ret_got)) {
            return false;
        }
    }
    snprintf(line, LINE_SIZE, "end of script");
    end_segment(play);
    if (play->events_at != play->events_count) {
        *ret_got = play->events[play->events_at];
        return false;
    }
    return expect_silence(play, ret_got);
}

bool script_run(const char *file, int line_number, const char *script)
{
    static struct play play;
    bool is_whole_only = strncmp(script, "W\n", 2) == 0;
    for (int mode = 0; mode < (is_whole_only ? 1 : 2 + CUTS_COUNT); mode++) {
        char line[LINE_SIZE] = "";
        const char *got = "";
        play_init(&play, mode);
        if (!play_script(&play, script, line, &got)) {
            fprintf(stderr, "%s:%d: mode %d: at \"%s\": got \"%s\"\n", file, line_number, mode,
                    line, got);
            return false;
        }
    }
    return true;
}
