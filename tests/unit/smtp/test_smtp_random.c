/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeded lives against servers that mostly answer in good order and sometimes do anything at all.
 * Whatever they do: every recipient is decided exactly once, OVER is told exactly once and last,
 * nothing is called delivered before its end of data was sent (LAW 5), what is ambiguous is called
 * so, and only lines of printable ASCII leave (A22).
 */
#include <stdio.h>

#include "engine/base/random.h"
#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_session.h"
#include "tests/harness.h"

enum { LIVES_COUNT = 60000, STEPS_MAX = 120, RCPTS_MAX = 70, PENDING_MAX = 300 };

struct life {
    struct smtp_session session;
    struct smtp_session_config config;
    struct smtp_transaction transaction;
    struct span rcpts[RCPTS_MAX];
    uint8_t decided[RCPTS_MAX];
    struct random random;
    struct mono_time now;
    bool is_invited;   /* READY or DONE was the last word */
    bool is_body_due;  /* BODY was told, the body is not sent */
    bool is_body_sent; /* in this transaction */
    bool is_body_taken;
    bool is_in_transaction;
    unsigned overs_count;
    char pending[PENDING_MAX]; /* first letters of the commands not answered */
    unsigned pending_count;
};

static struct {
    unsigned delivered;
    unsigned refused;
    unsigned ambiguous;
    unsigned before_taken;
    unsigned lone_dots;
    unsigned states[SMTP_STATES_COUNT];
    unsigned causes[SMTP_CAUSES_COUNT];
} SEEN;

static bool chance(struct life *life, uint32_t percent)
{
    return random_below(&life->random, 100) < percent;
}

static void on_result(const struct life *life, const struct smtp_event *event)
{
    const struct smtp_result *result = &event->result;
    SEEN.causes[result->cause]++;
    bool is_dot = result->stage == SMTP_STAGE_END_OF_DATA && life->is_body_sent;
    CU_ASSERT_EQUAL(result->is_ambiguous, is_dot && result->cause != SMTP_CAUSE_REPLY);
    bool is_out = life->is_body_taken || result->cause != SMTP_CAUSE_REPLY;
    CU_ASSERT(!is_dot || is_out || result->reply->code >= 300);
    SEEN.before_taken += is_dot && !life->is_body_taken;
    SEEN.ambiguous += result->is_ambiguous;
    if (result->cause != SMTP_CAUSE_REPLY) {
        return;
    }
    CU_ASSERT(result->reply->code >= 200 && result->reply->code <= 599);
    if (event->kind == SMTP_EVENT_RECIPIENT && result->reply->code < 300) {
        CU_ASSERT(is_dot);
        SEEN.delivered++;
    } else {
        SEEN.refused++;
    }
}

static void end_transaction(struct life *life)
{
    for (unsigned i = 0; life->is_in_transaction && i < life->transaction.rcpts_count; i++) {
        CU_ASSERT_EQUAL(life->decided[i], 1);
    }
    life->is_in_transaction = false;
    life->is_body_due = false;
}

static void on_event(struct life *life, const struct smtp_event *event)
{
    smtp_session_check(&life->session);
    CU_ASSERT_EQUAL(life->overs_count, 0);
    switch (event->kind) {
    case SMTP_EVENT_READY:
        CU_ASSERT(!life->is_invited && !life->is_in_transaction);
        life->is_invited = true;
        break;
    case SMTP_EVENT_BODY:
        CU_ASSERT(life->is_in_transaction && !life->is_body_due && !life->is_body_sent);
        life->is_body_due = true;
        break;
    case SMTP_EVENT_RECIPIENT:
        CU_ASSERT(life->is_in_transaction);
        CU_ASSERT(event->index < life->transaction.rcpts_count);
        life->decided[event->index]++;
        on_result(life, event);
        break;
    case SMTP_EVENT_DONE:
        CU_ASSERT(life->is_in_transaction);
        end_transaction(life);
        life->is_invited = true;
        break;
    case SMTP_EVENT_OVER:
        life->overs_count++;
        life->is_invited = false;
        on_result(life, event);
        end_transaction(life);
        break;
    }
}

/* Lines end in CRLF and are printable in between; their first letters become what the server owes.
 */
static void on_output(struct life *life, struct span output)
{
    struct cursor cursor = cursor_of(output);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        CU_ASSERT(line.size > 0);
        CU_ASSERT(line.at[line.size] == '\r');
        for (size_t i = 0; i < line.size; i++) {
            CU_ASSERT(line.at[i] >= ' ' && line.at[i] <= '~');
        }
        SEEN.lone_dots += line.at[0] == '.';
        ensure(life->pending_count < PENDING_MAX);
        life->pending[life->pending_count++] = line.at[0];
    }
    CU_ASSERT_EQUAL(cursor_left(&cursor), 0);
}

static void flush(struct life *life)
{
    bool is_more = true;
    while (is_more && chance(life, 90)) {
        char room[SMTP_COMMAND_SIZE_MAX + 200];
        struct writer writer = writer_of(room, sizeof(room));
        is_more = smtp_session_output(&life->session, &writer);
        on_output(life, writer_span(&writer));
    }
    smtp_session_check(&life->session);
}

static void say(struct life *life, struct span text)
{
    struct smtp_event event;
    while (text.size > 0) {
        struct span piece = text;
        if (chance(life, 20)) {
            piece.size = 1 + random_below(&life->random, (uint32_t)text.size);
        }
        text = span_of(text.at + piece.size, text.size - piece.size);
        while (smtp_session_on_bytes(&life->session, &piece, life->now, &event)) {
            on_event(life, &event);
        }
        CU_ASSERT_EQUAL(piece.size, 0);
        if (chance(life, 50)) {
            flush(life);
        }
    }
}

static void put_reply(struct life *life, struct writer *writer, unsigned code)
{
    static const char *const TEXTS[] = {"", " ok", " 2.1.0 ok", " 5.1.1 no", " 4.2.2 full", "-"};
    unsigned lines = chance(life, 10) ? random_below(&life->random, 4) : 0;
    for (unsigned i = 0; i < lines; i++) {
        writer_put_format(writer, "%u-PIPELINING\r\n", code);
    }
    const char *text = TEXTS[random_below(&life->random, COUNT_OF(TEXTS) - (chance(life, 95)))];
    writer_put_format(writer, "%u%s\r\n", code, text);
}

static unsigned code_for(struct life *life, char verb)
{
    static const unsigned ANY[] = {220, 221, 250, 251, 334, 354, 421, 450, 452, 500, 503, 550, 599};
    if (chance(life, 2)) {
        return ANY[random_below(&life->random, COUNT_OF(ANY))];
    }
    if (chance(life, verb == 'R' ? 30 : 8)) {
        return chance(life, 50) ? 450 : 550;
    }
    return verb == 'D' ? 354 : 250;
}

/* Answers one to all of what is owed, in order. */
static void answer(struct life *life)
{
    char room[1 << 14];
    struct writer writer = writer_of(room, sizeof(room));
    unsigned count = life->pending_count;
    if (count > 0 && chance(life, 40)) {
        count = 1 + random_below(&life->random, count);
    }
    for (unsigned i = 0; i < count; i++) {
        put_reply(life, &writer, code_for(life, life->pending[i]));
    }
    life->pending_count -= count;
    memmove(life->pending, life->pending + count, life->pending_count);
    say(life, writer_span(&writer));
}

static void say_anything(struct life *life)
{
    static const char ALPHABET[] = "2255500041 -.\r\n\r\n\0\xffx";
    char text[40];
    size_t size = 1 + random_below(&life->random, sizeof(text));
    for (size_t i = 0; i < size; i++) {
        text[i] = ALPHABET[random_below(&life->random, sizeof(ALPHABET) - 1)];
    }
    say(life, span_of(text, size));
}

static void begin(struct life *life)
{
    struct smtp_event event;
    life->is_invited = false;
    if (chance(life, 10)) {
        smtp_session_quit(&life->session, life->now);
        return;
    }
    life->transaction.sender = chance(life, 50) ? SPAN("s@from.test") : SPAN_NONE;
    life->transaction.rcpts = life->rcpts;
    life->transaction.rcpts_count = (uint16_t)(1 + random_below(&life->random, 4));
    if (chance(life, 10)) {
        life->transaction.rcpts_count = (uint16_t)(1 + random_below(&life->random, RCPTS_MAX));
    }
    life->transaction.is_8bit = chance(life, 10);
    life->transaction.size = random_below(&life->random, 1100);
    memset(life->decided, 0, sizeof(life->decided));
    life->is_in_transaction = true;
    life->is_body_sent = false;
    life->is_body_taken = false;
    smtp_session_begin(&life->session, &life->transaction, life->now);
    while (smtp_session_next(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
}

static void send_body(struct life *life)
{
    if (chance(life, 30)) {
        smtp_session_body_progress(&life->session, life->now);
        return;
    }
    life->is_body_due = false;
    life->is_body_sent = true;
    smtp_session_body_sent(&life->session, life->now);
    ensure(life->pending_count < PENDING_MAX);
    life->pending[life->pending_count++] = 'B';
}

static void take_body(struct life *life)
{
    struct smtp_event event;
    life->is_body_taken = true;
    smtp_session_body_taken(&life->session, life->now);
    while (smtp_session_next(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
}

static void lose(struct life *life)
{
    struct smtp_event event;
    while (smtp_session_on_closed(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
    CU_ASSERT_EQUAL(life->overs_count, 1);
}

static void pass_time(struct life *life)
{
    struct smtp_event event;
    life->now = mono_add_ms(life->now, random_below(&life->random, 400000));
    bool is_late = !mono_before(life->now, smtp_session_deadline(&life->session));
    unsigned overs_count = life->overs_count;
    while (smtp_session_on_timeout(&life->session, life->now, &event)) {
        on_event(life, &event);
    }
    CU_ASSERT_EQUAL(life->overs_count > overs_count, is_late);
}

static void step(struct life *life)
{
    SEEN.states[life->session.state]++;
    if (life->is_invited && chance(life, 70)) {
        begin(life);
    } else if (life->is_body_due && chance(life, 70)) {
        send_body(life);
    } else if (life->is_body_sent && !life->is_body_taken && chance(life, 60)) {
        take_body(life);
    } else if (chance(life, 90)) {
        answer(life);
    } else if (chance(life, 30)) {
        pass_time(life);
    } else if (chance(life, 60)) {
        say_anything(life);
    } else if (chance(life, 20)) {
        lose(life);
    }
    flush(life);
}

static void live(struct life *life, uint64_t seed)
{
    memset(life, 0, sizeof(*life));
    random_init_seed(&life->random, seed);
    life->config.ehlo_name = SPAN("out.test");
    smtp_timeouts_default(&life->config.timeouts);
    for (unsigned i = 0; i < RCPTS_MAX; i++) {
        life->rcpts[i] = SPAN("r@to.test");
    }
    smtp_session_init(&life->session, &life->config, life->now);
    smtp_session_on_connected(&life->session, life->now);
    say(life, SPAN("220 mx.test ESMTP\r\n"));
    flush(life);
    if (chance(life, 90) && life->pending_count == 1) {
        life->pending_count = 0;
        say(life, chance(life, 70)
                      ? SPAN("250-mx\r\n250-SIZE 1000\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
                      : SPAN("250 mx\r\n"));
    }
    for (unsigned i = 0; i < STEPS_MAX && life->overs_count == 0; i++) {
        step(life);
    }
    lose(life);
    say(life, SPAN("250 late\r\n"));
}

static void test_random_lives(void)
{
    static struct life life;
    for (uint64_t seed = 0; seed < LIVES_COUNT; seed++) {
        unsigned failures = CU_get_number_of_failures();
        live(&life, seed);
        if (CU_get_number_of_failures() > failures) {
            fprintf(stderr, "seed %llu\n", (unsigned long long)seed);
            return;
        }
    }
}

/* The lives went everywhere: otherwise they prove nothing. */
static void test_lives_reached_everything(void)
{
    CU_ASSERT(SEEN.delivered > 1000);
    CU_ASSERT(SEEN.refused > 1000);
    CU_ASSERT(SEEN.ambiguous > 100);
    CU_ASSERT(SEEN.before_taken > 100);
    CU_ASSERT(SEEN.lone_dots > 100);
    for (size_t i = SMTP_STATE_GREETING; i < SMTP_STATE_OVER; i++) {
        CHECK_ROW(i, SEEN.states[i] > 100 || i == SMTP_STATE_GREETING);
    }
    for (size_t i = 0; i < SMTP_CAUSE_LOOP; i++) {
        CHECK_ROW(i, SEEN.causes[i] > 100);
    }
}

SUITE(smtp_random, test_random_lives, test_lives_reached_everything)
