/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Broken and hostile servers, by the numbers of conformance.md 3.
 */
#include "engine/smtp/smtp.h"
#include "engine/smtp/smtp_session.h"
#include "tests/harness.h"
#include "tests/unit/smtp/script.h"

static void test_3_1_greetings(void)
{
    CHECK_SCRIPT("S 220 **2**0***************0*00\nC HELO out.test\nS 250 mx\nE READY\n");
    CHECK_SCRIPT("S 220 *** ***\nC HELO out.test\n");
    CHECK_SCRIPT("S 220 **** ESMTP\nC EHLO out.test\n");
    CHECK_SCRIPT("S 220 ****x\nC EHLO out.test\n");
    CHECK_SCRIPT("S 220 **\nC EHLO out.test\n");
    CHECK_SCRIPT("S 220 2000 0002\nC EHLO out.test\n");
    CHECK_SCRIPT("S \nS 220 mx\nE OVER GREETING/protocol/0\n");
    CHECK_SCRIPT("S HTTP/1.1 400 Bad Request\nE OVER GREETING/protocol/0\n"
                 "V HTTP/1.1 400 Bad Request\n");
    CHECK_SCRIPT("s \\x15\\x03\\x01\\0\\x02\\x02\\x46\n|\nN\nX\nE OVER GREETING/lost/0\n"
                 "V ??????F\n");
    CHECK_SCRIPT("s 220 mx ESMTP\n|\nX\nE OVER GREETING/lost/0\nV 220 mx ESMTP\n");
    /* We never speak first. */
    CHECK_SCRIPT("N\nT 299999\nN\nS 554 you spoke\nE OVER GREETING/reply/554\nC QUIT\n");
}

static void test_3_2_ehlo(void)
{
    CHECK_SCRIPT(GREET "S 250-mx\nS 250=SIZE\nE OVER EHLO/protocol/0\nV mx 250=SIZE\n");
    CHECK_SCRIPT(GREET "S 250-mx\nS 250 -SIZE 5\nE READY\nB 1\nC MAIL FROM:<s@from.test>\n");
    CHECK_SCRIPT(GREET "S 250-mx\nS 250-size 1000\nS 250-8bitmime\nS 250-AUTH=LOGIN\n"
                       "S 250-PIPELINING\nS 250 pipelining\nE READY\nB 1 8bit\n"
                       "C MAIL FROM:<s@from.test> SIZE=100 BODY=8BITMIME\n"
                       "C RCPT TO:<r0@to.test>\nC DATA\n");
    CHECK_SCRIPT(GREET "S 554 go away\nC HELO out.test\nX\nE OVER EHLO/reply/554\n");
}

static void test_3_3_line_ends(void)
{
    CHECK_SCRIPT("s 220 mx\\n\nC EHLO out.test\ns 250-mx\\n250 SIZE\\r\\r\\n\nE READY\nB 1\n"
                 "C MAIL FROM:<s@from.test> SIZE=100\ns 250\\n\nC RCPT TO:<r0@to.test>\n"
                 "s 550\\n\nE R0 RCPT TO/reply/550\nC RSET\nS 250\nE DONE\n");
    CHECK_SCRIPT(
        "s 220 a\\rb\\0c\\x07\\xe4d\\x09e\\r\\n\nC EHLO out.test\nS 554 x\nC HELO out.test\n");
    CHECK_SCRIPT("s 554 a\\rb\\0c\\x07\\xe4d\\x09e\\r\\n\nE OVER GREETING/reply/554\nV a?b?c??d e\n"
                 "C QUIT\n");
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS IPTS04 go away\n"
                           "E R0 MAIL FROM/protocol/0\nV IPTS04 go away\n"
                           "E OVER MAIL FROM/protocol/0\n");
}

static void test_3_3_rset_refused(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 450\nE R0 MAIL FROM/reply/450\n"
                           "C RSET\nS 503 bad sequence\nE OVER RSET/reply/503\nC QUIT\n");
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 450\nE R0 MAIL FROM/reply/450\n"
                           "C RSET\nS 250 ok\nE DONE\nS 250 again\nE OVER RSET/protocol/250\n");
}

/* A tarpit: each answer just in time, all of them later than any limit; 251 is an acceptance; and
 * a server that drops who names a parameter it has not offered is named none. */
static void test_3_5_mail_and_rcpt(void)
{
    CHECK_SCRIPT(OPEN "B 4\n" GROUP_4
                      "t 299000\nS 250\n|\nt 299000\nS 250\n|\nt 299000\nS 251 moved\n"
                      "|\nt 299000\nS 550\n|\nE R2 RCPT TO/reply/550\nt 299000\nS 250\n|\n"
                      "t 119000\nS 354\nE BODY\nM\nS 250\nE R0 END OF DATA/reply/250\n"
                      "E R1 END OF DATA/reply/250\nE R3 END OF DATA/reply/250\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 421 4.7.0 slow down\nX\n"
                      "E R0 RCPT TO/reply/421\nE R1 RCPT TO/reply/421\nE OVER RCPT TO/reply/421\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 250\nS 550 no after all\n"
                      "E R0 DATA/reply/550\nE R1 DATA/reply/550\nC RSET\nS 250\nE DONE\n");
    CHECK_SCRIPT(GREET "S 250-mx\nS 250 PIPELINING\nE READY\nB 1\nC MAIL FROM:<s@from.test>\n"
                       "C RCPT TO:<r0@to.test>\nC DATA\n");
}

static void test_3_6_refused_in_mid_body(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "P\nS 550 5.7.1 spam\nE R0 BODY/reply/550\nV spam\n"
                                    "E OVER BODY/reply/550\nX\nN\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 550\nS 354\nE R1 RCPT TO/reply/550\nE BODY\n"
                      "S 451 full\nE R0 BODY/reply/451\nE OVER BODY/reply/451\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE
                 "S 250 early\nE R0 BODY/protocol/250\nE OVER BODY/protocol/250\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE
                 "S 354 more\nE R0 BODY/protocol/354\nE OVER BODY/protocol/354\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "S garbage\nE R0 BODY/protocol/0\nE OVER BODY/protocol/0\n");
}

static void test_3_6_late_354(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\n|\nT 119000\nS 354\nE BODY\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 503 no\nE R0 DATA/reply/503\nC RSET\n");
}

static void test_3_7_after_the_dot(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE
                 "M\nT 540000\nS 250 slow\nE R0 END OF DATA/reply/250\nE DONE\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 250 one\n|\nE R0 END OF DATA/reply/250\nE DONE\n"
                                    "S 250 two\nE OVER RSET/protocol/250\n");
    CHECK_SCRIPT("W\n" OPEN_BARE ONE_BARE "M\nS 250 one\nS 250 two\nE R0 END OF DATA/reply/250\n"
                 "E OVER RSET/protocol/250\n");
    CHECK_SCRIPT("W\n" OPEN_BARE ONE_BARE "M\nS 250 2.0.0\nS garbage\n"
                 "E R0 END OF DATA/reply/250\nE OVER RSET/protocol/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 354 go\nE R0 END OF DATA/protocol/354 ambiguous\n"
                                    "E OVER END OF DATA/protocol/354 ambiguous\n");
}

/* A second 250 that comes when the next transaction is on its way: all is shifted, nothing is
 * delivered. */
static void test_3_7_shifted_replies(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 354\nE BODY\nM\nS 250 a\n"
                      "E R0 END OF DATA/reply/250\nE DONE\nB 1\n" GROUP_1
                      "S 250 a again\nS 250 mail\nS 250 rcpt\nS 354 data\n"
                      "E R0 DATA/protocol/250\nE OVER DATA/protocol/250\n");
}

static void test_3_11_nothing_goes_on_behind_over(void)
{
    CHECK_SCRIPT(OPEN "|\nS garbage\nE OVER EHLO/protocol/0\nS 250 a\nS 421 b\nX\nT 99999999\nN\n");
}

static void test_3_11_reuse_behind_a_refused_recipient(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 451\nE R0 RCPT TO/reply/451\nS 503\nC RSET\nS 250\n"
                      "E DONE\nB 1\n" GROUP_1 "S 250\nS 250\nS 354\nE BODY\nM\nS 250\n"
                      "E R0 END OF DATA/reply/250\nE DONE\n");
}

static struct smtp_session_config CONFIG = {.ehlo_name = {"out.test", 8}};
static const struct mono_time NOW = {.ns = 7};

/* Says the text; returns the events as characters of their kinds. */
static const char *say(struct smtp_session *session, struct span text)
{
    static const char KINDS[] = {'r', 'B', 'R', 'D', 'O'};
    static char events[SMTP_RCPTS_MAX + 3];
    size_t count = 0;
    struct smtp_event event;
    while (smtp_session_on_bytes(session, &text, NOW, &event)) {
        ensure(count < sizeof(events) - 1);
        events[count++] = KINDS[event.kind];
        smtp_session_check(session);
    }
    events[count] = '\0';
    return events;
}

/* Room for MAIL or RCPT of these tests, not for one more command behind it. */
enum { SENDER_SIZE = 200, ROOM_SIZE = 270 };

/* Takes one command, which must start as told. */
static bool hear(struct smtp_session *session, const char *start)
{
    char room[ROOM_SIZE];
    struct writer writer = writer_of(room, sizeof(room));
    (void)smtp_session_output(session, &writer);
    return span_starts(writer_span(&writer), span_of_text(start));
}

static void open_session(struct smtp_session *session)
{
    smtp_timeouts_default(&CONFIG.timeouts);
    smtp_session_init(session, &CONFIG, NOW);
    smtp_session_on_connected(session, NOW);
    CU_ASSERT_STRING_EQUAL(say(session, SPAN("220 mx\r\n")), "");
    CU_ASSERT(hear(session, "EHLO "));
    CU_ASSERT_STRING_EQUAL(say(session, SPAN("250-mx\r\n250 PIPELINING\r\n")), "r");
}

static struct span RCPTS[SMTP_RCPTS_MAX];
static struct smtp_transaction FULL = {.rcpts = RCPTS, .rcpts_count = SMTP_RCPTS_MAX, .size = 1};

static void fill_recipients(void)
{
    static char texts[SMTP_RCPTS_MAX][SMTP_ADDRESS_MAX];
    for (size_t i = 0; i < SMTP_RCPTS_MAX; i++) {
        memset(texts[i], 'a' + (int)(i % 26), sizeof(texts[i]));
        RCPTS[i] = span_of(texts[i], sizeof(texts[i]));
    }
    FULL.sender = span_of(texts[0], SENDER_SIZE);
}

/* Replies of 100 KiB in all while the group leaves one command at a time: each makes its progress
 * alone. */
static void test_C10_replies_overtake_the_sending(void)
{
    struct smtp_session session;
    fill_recipients();
    open_session(&session);
    smtp_session_begin(&session, &FULL, NOW);
    CU_ASSERT(hear(&session, "MAIL "));
    static char reply[500];
    memset(reply, 'x', sizeof(reply));
    memcpy(reply, "250 ", 4);
    memcpy(reply + sizeof(reply) - 2, "\r\n", 2);
    for (unsigned i = 0; i < SMTP_RCPTS_MAX; i++) {
        CU_ASSERT_STRING_EQUAL(say(&session, span_of(reply, sizeof(reply))), "");
        CU_ASSERT(hear(&session, "RCPT "));
    }
    CU_ASSERT_STRING_EQUAL(say(&session, span_of(reply, sizeof(reply))), "");
    CU_ASSERT(hear(&session, "DATA\r\n"));
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("354 go\r\n")), "B");
    smtp_session_body_sent(&session, NOW);
    smtp_session_body_taken(&session, NOW);
    CU_ASSERT_EQUAL(strlen(say(&session, SPAN("250 ok\r\n"))), SMTP_RCPTS_MAX + 1);
}

/* What was not sent yet when MAIL is refused is never sent. */
static void test_C5_refused_while_sending(void)
{
    struct smtp_session session;
    fill_recipients();
    open_session(&session);
    smtp_session_begin(&session, &FULL, NOW);
    CU_ASSERT(hear(&session, "MAIL "));
    CU_ASSERT(hear(&session, "RCPT "));
    CU_ASSERT_EQUAL(strlen(say(&session, SPAN("550 no\r\n"))), SMTP_RCPTS_MAX);
    CU_ASSERT(!hear(&session, "RCPT "));
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("503 no\r\n")), "");
    CU_ASSERT(hear(&session, "RSET\r\n"));
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("250 ok\r\n")), "D");
}

static void test_C3_all_refused_before_data_is_sent(void)
{
    struct smtp_session session;
    fill_recipients();
    open_session(&session);
    smtp_session_begin(&session, &FULL, NOW);
    CU_ASSERT(hear(&session, "MAIL "));
    for (unsigned i = 0; i < SMTP_RCPTS_MAX; i++) {
        CU_ASSERT(hear(&session, "RCPT "));
    }
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("250 ok\r\n")), "");
    for (unsigned i = 0; i < SMTP_RCPTS_MAX; i++) {
        CU_ASSERT_STRING_EQUAL(say(&session, SPAN("550 no\r\n")), "R");
    }
    CU_ASSERT(hear(&session, "RSET\r\n"));
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("250 ok\r\n")), "D");
}

/* A8: a line without end; A9: lines without end. Bounded memory, and an end. */
static void test_A8_A9_endless_replies(void)
{
    static const char *const PIECES[] = {"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "250-x\r\n"};
    for (size_t i = 0; i < COUNT_OF(PIECES); i++) {
        struct smtp_session session;
        open_session(&session);
        smtp_session_begin(&session, &FULL, NOW);
        CU_ASSERT(hear(&session, "MAIL "));
        CU_ASSERT_STRING_EQUAL(say(&session, SPAN("250-")), "");
        size_t size = 0;
        size_t events = 0;
        while (events == 0 && size < 2 * SMTP_REPLY_SIZE_MAX) {
            size += strlen(PIECES[i]);
            events = strlen(say(&session, span_of_text(PIECES[i])));
        }
        CHECK_ROW(i, size > SMTP_REPLY_SIZE_MAX - 100);
        CHECK_ROW(i, events == SMTP_RCPTS_MAX + 1);
        CHECK_ROW(i, session.state == SMTP_STATE_OVER);
    }
}

/* 3.11: what ends a connection at MAIL means another thing behind the first message. */
static void test_3_11_a_used_connection_is_told(void)
{
    struct smtp_session session;
    struct span rcpt = SPAN("a@b.test");
    const struct smtp_transaction one = {.rcpts = &rcpt, .rcpts_count = 1};
    struct smtp_event event;
    open_session(&session);
    smtp_session_begin(&session, &one, NOW);
    struct span bytes = SPAN("451 no\r\n");
    CU_ASSERT(hear(&session, "MAIL "));
    CU_ASSERT(smtp_session_on_bytes(&session, &bytes, NOW, &event));
    CU_ASSERT(!event.result.is_reused);
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("503 no\r\n503 no\r\n")), "");
    CU_ASSERT(hear(&session, "RSET"));
    CU_ASSERT_STRING_EQUAL(say(&session, SPAN("250 ok\r\n")), "D");
    smtp_session_begin(&session, &one, NOW);
    CU_ASSERT(smtp_session_on_closed(&session, NOW, &event));
    CU_ASSERT_EQUAL(event.result.stage, SMTP_STAGE_MAIL);
    CU_ASSERT(event.result.is_reused);
}

static void test_to_text(void)
{
    struct smtp_session session;
    open_session(&session);
    char text[200];
    struct writer writer = writer_of(text, sizeof(text));
    smtp_session_to_text(&session, &writer);
    CU_ASSERT(span_starts(writer_span(&writer), SPAN("state=ready transactions=0 ")));
}

SUITE(smtp_broken, test_3_1_greetings, test_3_2_ehlo, test_3_3_line_ends, test_3_3_rset_refused,
      test_3_5_mail_and_rcpt, test_3_6_refused_in_mid_body, test_3_6_late_354,
      test_3_7_after_the_dot, test_3_7_shifted_replies, test_3_11_nothing_goes_on_behind_over,
      test_3_11_reuse_behind_a_refused_recipient, test_C10_replies_overtake_the_sending,
      test_C5_refused_while_sending, test_C3_all_refused_before_data_is_sent,
      test_A8_A9_endless_replies, test_3_11_a_used_connection_is_told, test_to_text)
