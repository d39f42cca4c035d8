/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session whose server says anything at any time. The input is steps: a byte that says what
 * happens next (see `step`), then what it needs. Whatever comes: each recipient is decided once,
 * nothing is delivered before its end of data was sent (LAW 5), OVER is told once and last, and
 * only lines of printable ASCII leave.
 */
#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_command.h"
#include "engine/smtp/smtp_session.h"
#include "tests/fuzz/fuzz.h"

enum { RCPTS_MAX = 8, STEPS_MAX = 400 };

struct life {
    struct smtp_session session;
    struct smtp_session_config config;
    struct smtp_transaction transaction;
    struct mono_time now;
    uint8_t decided[RCPTS_MAX];
    bool is_invited;
    bool is_body_due;
    bool is_body_sent;
    bool is_body_taken;
    bool is_in_transaction;
    bool is_over;
};

static const struct span RCPTS[RCPTS_MAX] = {
    SPAN("a@x.test"), SPAN("b@x.test"), SPAN("c@x.test"), SPAN("d@x.test"),
    SPAN("e@x.test"), SPAN("f@x.test"), SPAN("g@x.test"), SPAN("h@x.test"),
};

static void transaction_end(struct life *life)
{
    for (uint16_t i = 0; life->is_in_transaction && i < life->transaction.rcpts_count; i++) {
        ensure(life->decided[i] == 1);
    }
    life->is_in_transaction = false;
    life->is_body_due = false;
}

static void on_recipient(struct life *life, const struct smtp_event *event)
{
    const struct smtp_result *result = &event->result;
    ensure(life->is_in_transaction && event->index < life->transaction.rcpts_count);
    life->decided[event->index]++;
    if (result->cause == SMTP_CAUSE_REPLY && result->reply->code < 300) {
        ensure(life->is_body_taken && result->stage == SMTP_STAGE_END_OF_DATA);
    }
    ensure(!result->is_ambiguous || life->is_body_sent);
}

static void on_event(struct life *life, const struct smtp_event *event)
{
    ensure(!life->is_over);
    switch (event->kind) {
    case SMTP_EVENT_READY:
        ensure(!life->is_in_transaction);
        life->is_invited = true;
        return;
    case SMTP_EVENT_BODY:
        ensure(life->is_in_transaction && !life->is_body_sent);
        life->is_body_due = true;
        return;
    case SMTP_EVENT_RECIPIENT:
        on_recipient(life, event);
        return;
    case SMTP_EVENT_DONE:
        ensure(life->is_in_transaction);
        transaction_end(life);
        life->is_invited = true;
        return;
    case SMTP_EVENT_OVER:
        transaction_end(life);
        life->is_over = true;
        life->is_invited = false;
        return;
    }
}

static void flush(struct life *life)
{
    bool is_more = true;
    while (is_more) {
        char room[SMTP_COMMAND_SIZE_MAX];
        struct writer writer = writer_of(room, sizeof(room));
        is_more = smtp_session_output(&life->session, &writer);
        struct cursor cursor = cursor_of(writer_span(&writer));
        struct span line;
        while (cursor_take_line(&cursor, &line)) {
            for (size_t i = 0; i < line.size; i++) {
                ensure(line.at[i] >= ' ' && line.at[i] <= '~');
            }
        }
        ensure(cursor_left(&cursor) == 0);
    }
    smtp_session_check(&life->session);
}

static void say(struct life *life, struct span text)
{
    char *exact = fuzz_copy(text);
    struct span bytes = span_of(exact, text.size);
    struct smtp_event event;
    while (!life->is_over && smtp_session_on_bytes(&life->session, &bytes, life->now, &event)) {
        on_event(life, &event);
    }
    ensure(life->is_over || bytes.size == 0);
    free(exact);
}

static void begin(struct life *life, uint8_t how)
{
    life->transaction = (struct smtp_transaction){
        .sender = (how & 8) != 0 ? span_of(NULL, 0) : SPAN("s@from.test"),
        .rcpts = RCPTS,
        .rcpts_count = (uint16_t)(1 + how % RCPTS_MAX),
        .is_8bit = (how & 16) != 0,
        .size = 100,
    };
    memset(life->decided, 0, sizeof(life->decided));
    life->is_invited = false;
    life->is_body_sent = false;
    life->is_body_taken = false;
    life->is_in_transaction = true;
    smtp_session_begin(&life->session, &life->transaction, life->now);
    struct smtp_event event;
    while (!life->is_over && smtp_session_next(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
}

static void end_by(struct life *life,
                   bool (*tell)(struct smtp_session *, struct mono_time, struct smtp_event *))
{
    struct smtp_event event;
    while (!life->is_over && tell(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
}

/* One line of the server's is by far the most frequent step. */
static void step(struct life *life, struct cursor *cursor)
{
    uint8_t what = fuzz_take(cursor);
    switch (what) {
    case 1:
        life->now = mono_add_ms(life->now, 1000 * (int64_t)fuzz_take(cursor));
        if (!mono_before(life->now, smtp_session_deadline(&life->session))) {
            end_by(life, smtp_session_on_timeout);
        }
        return;
    case 2:
        end_by(life, smtp_session_on_closed);
        ensure(life->is_over);
        return;
    case 3:
        if (life->is_invited) {
            begin(life, fuzz_take(cursor));
        }
        return;
    case 4:
        if (life->is_body_due) {
            life->is_body_due = false;
            life->is_body_sent = true;
            smtp_session_body_sent(&life->session, life->now);
        } else if (life->is_body_sent && !life->is_body_taken) {
            life->is_body_taken = true;
            smtp_session_body_taken(&life->session, life->now);
            say(life, SPAN_NONE);
        }
        return;
    case 5:
        if (life->is_invited) {
            life->is_invited = false;
            smtp_session_quit(&life->session, life->now);
        }
        return;
    case 6:
        say(life, cursor_take_until(cursor, '\1'));
        return;
    default:
        cursor->at--; /* it is text already */
        say(life, cursor_take_until(cursor, '\n'));
        if (cursor_take_byte(cursor, '\n') && !life->is_over) {
            say(life, SPAN("\r\n"));
        }
        return;
    }
}

void fuzz_one(struct span input)
{
    struct life life = {.now = {.ns = 1000 * NS_PER_S}, .config = {.ehlo_name = SPAN("out.test")}};
    smtp_timeouts_default(&life.config.timeouts);
    smtp_session_init(&life.session, &life.config, life.now);
    smtp_session_on_connected(&life.session, life.now);
    struct cursor cursor = cursor_of(input);
    for (int i = 0; i < STEPS_MAX && cursor_left(&cursor) > 0 && !life.is_over; i++) {
        step(&life, &cursor);
        if (!life.is_over) {
            flush(&life);
        }
    }
    end_by(&life, smtp_session_on_closed);
    ensure(life.is_over);
}
