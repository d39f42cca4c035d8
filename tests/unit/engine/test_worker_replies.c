/* SPDX-License-Identifier: Apache-2.0 */
/* What servers answer, and what becomes of the recipients in the journal: requirements that the
 * session machine alone cannot keep. */
#include <string.h>

#include "tests/unit/engine/worker_rig.h"

static struct rig *replies_rig(const char *(*on_moment)(struct rig_conn *conn,
                                                        enum rig_moment moment, struct span line),
                               void *context)
{
    struct rig *rig = rig_create();
    rig->on_moment = on_moment;
    rig->context = context;
    rig_start(rig);
    return rig;
}

static bool is_of(struct span line, const char *user)
{
    char text[RIG_LINE_MAX + 1];
    memcpy(text, line.at, line.size);
    text[line.size] = '\0';
    return strstr(text, user) != NULL;
}

struct helo {
    const char *answer;
    uint32_t helos;
};

static const char *answer_ehlo(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    struct helo *helo = conn->rig->context;
    if (moment != RIG_EHLO) {
        return NULL;
    }
    if (span_starts_nocase(line, SPAN("HELO"))) {
        helo->helos++;
        return "250 sink.example\r\n";
    }
    return helo->answer;
}

/* A10: HELO for a 5xx; what is temporary is put off, and not asked for in another way. */
static void test_A10_what_ehlo_is_answered(void)
{
    static const struct {
        const char *answer;
        bool is_delivered;
    } ROWS[] = {
        {"500 what?\r\n", true},    {"502 no\r\n", true},           {"504 no\r\n", true},
        {"550 5.5.1 no\r\n", true}, {"421 4.3.2 later\r\n", false}, {"451 4.3.0 later\r\n", false},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct helo helo = {.answer = ROWS[i].answer};
        struct rig *rig = replies_rig(answer_ehlo, &helo);
        rig_send_some(rig, 5);
        rig_run(rig, 40000);
        uint8_t what = ROWS[i].is_delivered ? JOURNAL_DELIVERED : JOURNAL_DEFERRED;
        CHECK_ROW(i, rig_entries_of(rig, what) == 5);
        CHECK_ROW(i, rig->entries_count == 5);
        CHECK_ROW(i, (helo.helos > 0) == ROWS[i].is_delivered);
        rig_destroy(rig);
    }
}

static const char *answer_quit(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    return moment == RIG_QUIT ? conn->rig->context : NULL;
}

/* A28: whatever QUIT is answered, nothing of it reaches those who were sent to, and the session
 * ends. */
static void test_A28_what_quit_is_answered(void)
{
    static const char *const ANSWERS[] = {"500 no\r\n", "421 bye\r\n", "354 go on\r\n", "", "!"};
    for (size_t i = 0; i < COUNT_OF(ANSWERS); i++) {
        struct rig *rig = replies_rig(answer_quit, (void *)(uintptr_t)ANSWERS[i]);
        rig_send_some(rig, 20);
        rig_run(rig, 600000);
        CHECK_ROW(i, rig_entries_of(rig, JOURNAL_DELIVERED) == 20);
        CHECK_ROW(i, rig->entries_count == 20);
        CHECK_ROW(i, rig->rcpts == 20);
        CHECK_ROW(i, rig_sessions(rig) == 0);
        rig_destroy(rig);
    }
}

static const char *refuse_for_now(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    bool is_first = conn->messages == 0 && *(bool *)conn->rig->context;
    if (is_first && moment == RIG_RCPT) {
        return "450 4.2.1 later\r\n";
    }
    return is_first && moment == RIG_DATA ? "550 5.5.1 no recipients\r\n" : NULL;
}

/* C4: the answer to DATA is no verdict on recipients that were put off; the session goes on. */
static void test_C4_all_are_put_off_and_data_is_refused(void)
{
    bool is_refusing = true;
    struct rig *rig = replies_rig(refuse_for_now, &is_refusing);
    rig_send_some(rig, 2);
    rig_run(rig, 1000);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DEFERRED), 2);
    CU_ASSERT_EQUAL(rig->entries[0].code, 450);
    CU_ASSERT_EQUAL(rig->entries[1].code, 450);
    is_refusing = false;
    rig_send_some(rig, 2);
    rig_run(rig, 500);
    CU_ASSERT_EQUAL(rig_entries_of(rig, JOURNAL_DELIVERED), 2);
    CU_ASSERT_EQUAL(stat_read_xcore(&rig->workers[0]->stats.sessions_opened), 1);
    rig_destroy(rig);
}

static const char *refuse_and_leave(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    (void)line;
    if (moment == *(enum rig_moment *)conn->rig->context && !conn->is_closing) {
        rig_say(conn, "550 5.7.1 blocked for good\r\n");
        conn->is_closing = true;
        (void)net_close(conn->rig->server, conn->conn, false);
        return "";
    }
    return NULL;
}

/* C8: the server says 550 and is gone, with more commands on their way: the 550 counts for whom it
 * was said. */
static void test_C8_gone_behind_a_refusal(void)
{
    static const enum rig_moment MOMENTS[] = {RIG_MAIL, RIG_RCPT};
    for (size_t i = 0; i < COUNT_OF(MOMENTS); i++) {
        enum rig_moment moment = MOMENTS[i];
        struct rig *rig = replies_rig(refuse_and_leave, &moment);
        rig_send_some(rig, 1);
        rig_run(rig, 60000);
        CHECK_ROW(i, rig_entries_of(rig, JOURNAL_BOUNCED) == 1);
        CHECK_ROW(i, rig->entries_count == 1);
        CHECK_ROW(i, rig->entries[0].code == 550);
        CHECK_ROW(i, strstr(rig->entries[0].line, "blocked for good") != NULL);
        rig_destroy(rig);
    }
}

static const char *fall_silent(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    bool *is_silent = conn->rig->context;
    if (moment == RIG_RCPT && is_of(line, "u0@")) {
        return "550 5.1.1 nobody\r\n";
    }
    if (moment == RIG_RCPT && is_of(line, "u2@")) {
        *is_silent = true;
    }
    return *is_silent ? "" : NULL;
}

/* C12: silence in the middle of a group. Who was refused is refused; all others are put off, who
 * was accepted as well. */
static void test_C12_silence_in_the_middle_of_a_group(void)
{
    bool is_silent = false;
    struct rig *rig = replies_rig(fall_silent, &is_silent);
    rig_send_some(rig, 4);
    rig_run(rig, 2 * (int64_t)rig->config->routes[0].timeouts.rcpt_ms);
    CU_ASSERT(is_silent);
    CU_ASSERT(rig->entries_count >= 4);
    for (uint32_t i = 0; i < 4; i++) {
        const struct rig_entry *entry = &rig->entries[i];
        CHECK_ROW(i, entry->what == (entry->ordinal == 0 ? JOURNAL_BOUNCED : JOURNAL_DEFERRED));
        CHECK_ROW(i, !entry->is_ambiguous);
    }
    CU_ASSERT_EQUAL(rig->messages, 0);
    rig_destroy(rig);
}

/* Each recipient has a transaction of its own. */
static const char EACH_LETTER[] =
    "From: News <news@sender.example>\nTo: {{_to}}\nSubject: News\n\nHello.\n";

struct reuse {
    const char *answer; /* to MAIL of the fourth message of a connection; NULL: it is closed */
    uint32_t refused;
};

static const char *end_behind_three(struct rig_conn *conn, enum rig_moment moment, struct span line)
{
    struct reuse *reuse = conn->rig->context;
    (void)line;
    if (moment != RIG_MAIL || conn->messages < 3) {
        return NULL;
    }
    reuse->refused++;
    if (reuse->answer == NULL || span_starts(span_of_text(reuse->answer), SPAN("421"))) {
        rig_say(conn, reuse->answer != NULL ? reuse->answer : "");
        conn->is_closing = true;
        (void)net_close(conn->rig->server, conn->conn, false);
        return "";
    }
    return reuse->answer;
}

/* A14, 3.11: the end of a connection that has carried mail before is none of the mail that comes
 * next: it goes over another one, at once. What is said of us holds. */
static void test_A14_the_end_of_a_used_connection(void)
{
    static const struct {
        const char *answer;
        bool is_again;
    } ROWS[] = {
        {"421 too many messages on this connection\r\n", true},
        {"421 4.3.2 enough\r\n", true},
        {"421 4.4.2 idle for too long\r\n", true},
        {NULL, true},
        {"!", true},
        {"421 4.7.28 unusual rate of mail\r\n", false},
        {"451 4.3.2 later\r\n", false},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct reuse reuse = {.answer = ROWS[i].answer};
        struct rig *rig = replies_rig(end_behind_three, &reuse);
        rig->config->routes[0].connections_max = 1;
        uint32_t batch = rig_batch_merge(rig, EACH_LETTER, "");
        rig_add_many(rig, batch, "example.org", 20);
        rig_deal(rig, batch, 0);
        rig_run(rig, 20000);
        CHECK_ROW(i, reuse.refused > 0);
        CHECK_ROW(i, (rig_entries_of(rig, JOURNAL_DEFERRED) == 0) == ROWS[i].is_again);
        CHECK_ROW(i, (rig_entries_of(rig, JOURNAL_DELIVERED) == 20) == ROWS[i].is_again);
        CHECK_ROW(i, rig->entries_count == 20);
        rig_destroy(rig);
    }
}

SUITE(worker_replies, test_A10_what_ehlo_is_answered, test_A14_the_end_of_a_used_connection,
      test_A28_what_quit_is_answered, test_C4_all_are_put_off_and_data_is_refused,
      test_C8_gone_behind_a_refusal, test_C12_silence_in_the_middle_of_a_group)
