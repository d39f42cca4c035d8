/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One life of a session after the other, by the numbers of conformance.md 1.A, 1.E. What belongs to
 * pipelining and to broken servers is in the files beside this one.
 */
#include "engine/smtp/smtp_session.h"

#include "tests/harness.h"
#include "tests/unit/smtp/script.h"

static void test_one_message_command_by_command(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "N\nM\nS 250 2.0.0 queued as 1\nE R0 END OF DATA/reply/250\n"
                                    "V queued as 1\nE DONE\nD never\n"
                                    "Q\nC QUIT\nS 221 bye\nE OVER QUIT/reply/221\n");
}

static void test_one_message_as_one_group(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250 a\nS 250 b\nS 250 c\nS 354 d\nE BODY\nM\nS 250 e\n"
                      "E R0 END OF DATA/reply/250\nE R1 END OF DATA/reply/250\nE DONE\n");
}

static void test_A1_each_command_has_its_own_limit(void)
{
    CHECK_SCRIPT("t 299000\n" GREET "t 299000\nS 250 mx\nE READY\nB 1\nC MAIL FROM:<s@from.test>\n"
                 "t 299000\nS 250 a\nC RCPT TO:<r0@to.test>\nt 299000\nS 250 a\nC DATA\nt 119000\n"
                 "S 354 a\nE BODY\nt 179000\nP\nt 179000\nM\nt 599000\nS 250 a\n"
                 "E R0 END OF DATA/reply/250\nE DONE\n");
}

static void test_A1_each_command_of_a_group_has_its_own_limit(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "D 300000\nt 299000\nS 250 a\nD 300000\nt 299000\nS 250 a\n"
                      "D 120000\nt 119000\nS 354 a\nE BODY\nM\nS 250 a\n"
                      "E R0 END OF DATA/reply/250\nE DONE\n");
}

static void test_A2_limits(void)
{
    CHECK_SCRIPT("T 299999\nT 1\nE OVER GREETING/timeout/0\nN\n");
    CHECK_SCRIPT(GREET "T 299999\nT 1\nE OVER EHLO/timeout/0\n");
    CHECK_SCRIPT(GREET "S 500 x\nC HELO out.test\nT 299999\nT 1\nE OVER EHLO/timeout/0\n");
    CHECK_SCRIPT(OPEN_BARE "D never\nT 99999999\nB 1\nC MAIL FROM:<s@from.test>\nT 299999\nT 1\n"
                           "E R0 MAIL FROM/timeout/0\nE OVER MAIL FROM/timeout/0\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250 a\n|\nT 299999\nT 1\nE R0 RCPT TO/timeout/0\n"
                      "E OVER RCPT TO/timeout/0\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250 a\nS 250 a\n|\nT 119999\nT 1\nE R0 DATA/timeout/0\n"
                      "E OVER DATA/timeout/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "T 179999\nP\nT 179999\nT 1\nE R0 BODY/timeout/0\n"
                                    "E OVER BODY/timeout/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nT 599999\nT 1\nE R0 END OF DATA/timeout/0 ambiguous\n"
                                    "E OVER END OF DATA/timeout/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 550 a\nE R0 MAIL FROM/reply/550\n"
                           "C RSET\nT 19999\nT 1\nE OVER RSET/timeout/0\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nT 4999\nT 1\nE OVER QUIT/timeout/0\n");
}

/* Bytes that come do not move the limit: it is that of the whole reply. */
static void test_A3_the_limit_is_that_of_the_whole_reply(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nt 300000\ns 2\n|\nt 299999\ns 5\n|\nD 1\nT 1\n"
                                    "E R0 END OF DATA/timeout/0 ambiguous\nV 25\n"
                                    "E OVER END OF DATA/timeout/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "t 100000\ns 5\n|\nD 80000\n");
    CHECK_SCRIPT("S 220-a\n|\nt 200000\nS 220-b\n|\nt 99999\nS 220-c\n|\nD 1\nT 1\n"
                 "E OVER GREETING/timeout/0\n");
}

/* A large message to a slow server: what is limited is each progress, then the answer. */
static void test_A2_the_answer_is_awaited_from_the_last_byte_on(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nD 180000\nt 170000\nP\nD 180000\nt 170000\nA\n"
                                    "D 600000\nS 250 ok\nE R0 END OF DATA/reply/250\nE DONE\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nt 100000\nP\nD 500000\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nT 180000\nE R0 END OF DATA/timeout/0 ambiguous\n"
                                    "E OVER END OF DATA/timeout/0 ambiguous\nA\n");
}

/* LAW 5: an acceptance counts when the end of data is out, not before; a refusal counts at once. */
static void test_accepted_before_the_body_is_out(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 250 ok\n|\nN\nt 5\nP\nA\n"
                                    "E R0 END OF DATA/reply/250\nV ok\nE DONE\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 250 ok\n|\nX\n"
                                    "E R0 END OF DATA/lost/0 ambiguous\n"
                                    "E OVER END OF DATA/lost/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 250 ok\n|\nT 180000\n"
                                    "E R0 END OF DATA/timeout/0 ambiguous\n"
                                    "E OVER END OF DATA/timeout/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 250 ok\n|\ns 25\n|\nA\n"
                                    "E R0 END OF DATA/protocol/0 ambiguous\n"
                                    "E OVER END OF DATA/protocol/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 250 ok\n|\nS 421 bye\n|\n"
                                    "E R0 END OF DATA/protocol/421 ambiguous\n"
                                    "E OVER END OF DATA/protocol/421 ambiguous\nA\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M queued\nS 552 no\nE R0 END OF DATA/reply/552\nC RSET\n"
                                    "A\nS 250 ok\nE DONE\n");
}

static void test_A4_codes_without_text(void)
{
    CHECK_SCRIPT("S 220\nC EHLO out.test\nS 250\nE READY\nB 1\nC MAIL FROM:<s@from.test>\nS 250 \n"
                 "C RCPT TO:<r0@to.test>\nS 250\nC DATA\nS 354\nE BODY\nM\nS 250\n"
                 "E R0 END OF DATA/reply/250\nV \nE DONE\n");
}

static void test_A5_unknown_codes_by_first_digit(void)
{
    CHECK_SCRIPT("S 299 a\nC EHLO out.test\nS 288\nE READY\nB 1\nC MAIL FROM:<s@from.test>\nS 210\n"
                 "C RCPT TO:<r0@to.test>\nS 299\nC DATA\nS 399\nE BODY\nM\nS 266\n"
                 "E R0 END OF DATA/reply/266\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250 a\nS 499 b\nS 599 c\nE R0 RCPT TO/reply/499\n"
                      "E R1 RCPT TO/reply/599\nS 503 d\nC RSET\nS 250 e\nE DONE\n");
}

static void test_A6_codes_that_are_none(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 850 x\nE R0 END OF DATA/protocol/0 ambiguous\nV 850 x\n"
                                    "E OVER END OF DATA/protocol/0 ambiguous\n");
    CHECK_SCRIPT("S 666 x\nE OVER GREETING/protocol/0\n");
    CHECK_SCRIPT(GREET "S 199 x\nE OVER EHLO/protocol/0\n");
    CHECK_SCRIPT("S 2200 mox\nE OVER GREETING/protocol/0\n");
    CHECK_SCRIPT("S SSH-2.0-OpenSSH_9.2\nE OVER GREETING/protocol/0\nV SSH-2.0-OpenSSH_9.2\n");
}

static void test_A7_lines_that_differ(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 250-a\nS 550 b\n"
                                    "E R0 END OF DATA/protocol/0 ambiguous\n"
                                    "E OVER END OF DATA/protocol/0 ambiguous\n");
}

static void test_A10_helo(void)
{
    static const char *const CODES[] = {"500", "502", "504", "550", "554"};
    for (size_t i = 0; i < COUNT_OF(CODES); i++) {
        char script[200];
        snprintf(script, sizeof(script),
                 GREET "S %s no\nC HELO out.test\nS 250 mx\nE READY\nB 1\n"
                       "C MAIL FROM:<s@from.test>\nS 250\nC RCPT TO:<r0@to.test>\nX\n"
                       "E R0 RCPT TO/lost/0\nE OVER RCPT TO/lost/0\n",
                 CODES[i]);
        CHECK_ROW(i, script_run(__FILE__, __LINE__, script));
    }
    CHECK_SCRIPT(GREET "S 421 no\nE OVER EHLO/reply/421\nN\n");
    CHECK_SCRIPT(GREET "S 451 no\nE OVER EHLO/reply/451\nC QUIT\n");
    CHECK_SCRIPT(GREET "S 550 no\nC HELO out.test\nS 550 5.7.1 never\nE OVER EHLO/reply/550\n"
                       "V never\nC QUIT\n");
    /* What a refused EHLO seemed to offer is not offered. */
    CHECK_SCRIPT(GREET "S 550-a\nS 550-PIPELINING\nS 550 SIZE 10\nC HELO out.test\nS 250 mx\n"
                       "E READY\nB 1\nC MAIL FROM:<s@from.test>\nN\nX\nE R0 MAIL FROM/lost/0\n"
                       "E OVER MAIL FROM/lost/0\n");
    /* The refusal is the news when the server closes behind it, not behind the start of another. */
    CHECK_SCRIPT(GREET "S 550 blocked\nC HELO out.test\nS 550-no\nX\nE OVER EHLO/lost/0\nV no\n");
    CHECK_SCRIPT(GREET "S 500 what\nC HELO out.test\nX\nE OVER EHLO/reply/500\n");
    CHECK_SCRIPT(GREET "S 550 5.7.1 blocked\nC HELO out.test\nX\nE OVER EHLO/reply/550\n"
                       "V blocked\n");
}

static void test_A12_replies_to_the_end_of_data(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 250\nS 354\nE BODY\nM\nS 451 4.3.0 later\n"
                      "E R0 END OF DATA/reply/451\nE R1 END OF DATA/reply/451\nV later\n"
                      "C RSET\nS 250\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 250\nS 354\nE BODY\nM\nS 554 never\n"
                      "E R0 END OF DATA/reply/554\nE R1 END OF DATA/reply/554\n"
                      "C RSET\nS 250\nE DONE\n");
}

static void test_A13_lost_at_each_point(void)
{
    CHECK_SCRIPT("X\nE OVER GREETING/lost/0\n");
    CHECK_SCRIPT(GREET "X\nE OVER EHLO/lost/0\n");
    CHECK_SCRIPT(OPEN "X\nE OVER EHLO/lost/0\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "X\nE R0 MAIL FROM/lost/0\nE R1 MAIL FROM/lost/0\n"
                      "E OVER MAIL FROM/lost/0\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nX\nE R0 RCPT TO/lost/0\nE R1 RCPT TO/lost/0\n"
                      "E OVER RCPT TO/lost/0\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nX\nE R0 RCPT TO/lost/0\nE R1 RCPT TO/lost/0\n"
                      "E OVER RCPT TO/lost/0\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 250\nX\nE R0 DATA/lost/0\nE R1 DATA/lost/0\n"
                      "E OVER DATA/lost/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "P\nX\nE R0 BODY/lost/0\nE OVER BODY/lost/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nX\nE R0 END OF DATA/lost/0 ambiguous\n"
                                    "E OVER END OF DATA/lost/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 250 ok\nX\nE R0 END OF DATA/reply/250\nE DONE\n"
                                    "E OVER RSET/lost/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 250-ok\ns 250 o\nX\n"
                                    "E R0 END OF DATA/lost/0 ambiguous\nV ok 250 o\n"
                                    "E OVER END OF DATA/lost/0 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 450\nE R0 MAIL FROM/reply/450\n"
                           "C RSET\nX\nE OVER RSET/lost/0\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nX\nE OVER QUIT/lost/0\n");
}

static void test_A13_never_connected(void)
{
    struct smtp_session_config config = {.ehlo_name = SPAN("out.test")};
    struct smtp_session session;
    struct smtp_event event;
    struct mono_time now = {.ns = 5};
    smtp_timeouts_default(&config.timeouts);
    smtp_session_init(&session, &config, now);
    CU_ASSERT(!smtp_session_on_timeout(&session, now, &event));
    CU_ASSERT(smtp_session_on_closed(&session, now, &event));
    CU_ASSERT_EQUAL(event.kind, SMTP_EVENT_OVER);
    CU_ASSERT_EQUAL(event.result.stage, SMTP_STAGE_CONNECT);
    CU_ASSERT_EQUAL(event.result.cause, SMTP_CAUSE_LOST);
    CU_ASSERT(!smtp_session_on_closed(&session, now, &event));
    CU_ASSERT_EQUAL(smtp_session_deadline(&session).ns, INT64_MAX);
}

static void test_A14_421_as_answer(void)
{
    CHECK_SCRIPT("S 421 busy\nE OVER GREETING/reply/421\nN\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 421 4.7.0 slow\nE R0 MAIL FROM/reply/421\n"
                      "E R1 MAIL FROM/reply/421\nE OVER MAIL FROM/reply/421\nV slow\nN\n");
    /* Decided is who was refused before; who was accepted is deferred with the rest. */
    CHECK_SCRIPT(OPEN "B 4\n" GROUP_4 "S 250\nS 250\nS 550 no\nS 421 bye\nE R1 RCPT TO/reply/550\n"
                      "E R0 RCPT TO/reply/421\nE R2 RCPT TO/reply/421\nE R3 RCPT TO/reply/421\n"
                      "E OVER RCPT TO/reply/421\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 421 bye\nE R0 DATA/reply/421\n"
                      "E OVER DATA/reply/421\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 421 bye\nE R0 END OF DATA/reply/421\n"
                                    "E OVER END OF DATA/reply/421\n");
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 450\nE R0 MAIL FROM/reply/450\n"
                           "C RSET\nS 421 bye\nE OVER RSET/reply/421\nN\n");
}

static void test_A14_421_unsolicited(void)
{
    CHECK_SCRIPT(OPEN "|\nS 421 idle\nE OVER EHLO/reply/421\nN\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 250 ok\n|\nE R0 END OF DATA/reply/250\nE DONE\n"
                                    "S 421 enough\nE OVER RSET/reply/421\nV enough\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "S 421 bye\nE R0 BODY/reply/421\nE OVER BODY/reply/421\n");
    /* In the segment of the reply before it: that reply is honoured, nobody is invited to go on. */
    CHECK_SCRIPT("W\n" OPEN_BARE ONE_BARE "M\nS 250 ok\nS 421 enough\nE R0 END OF DATA/reply/250\n"
                 "E OVER RSET/reply/421\n");
    CHECK_SCRIPT("W\n" GREET "S 250 mx\nS 421 no\nE OVER EHLO/reply/421\n");
    CHECK_SCRIPT("W\nS 220 mx\nS 421 no\nE OVER EHLO/reply/421\nN\n");
}

/* The engine decides what 552, 452 and the 503 behind them mean; here they keep code and place. */
static void test_A15_A16_A17_too_many_recipients(void)
{
    CHECK_SCRIPT(OPEN "B 4\n" GROUP_4 "S 250\nS 250\nS 552 5.5.3 too many\nS 452 4.5.3 too many\n"
                      "S 452 4.2.2 full\nE R1 RCPT TO/reply/552\nE R2 RCPT TO/reply/452\n"
                      "E R3 RCPT TO/reply/452\nV full\nS 354\nE BODY\nM\nS 250\n"
                      "E R0 END OF DATA/reply/250\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 452\nS 452\nE R0 RCPT TO/reply/452\n"
                      "E R1 RCPT TO/reply/452\nS 503 no\nC RSET\nS 250\nE DONE\n");
}

static void test_A18_refused_mail_does_not_end_the_session(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 550 no\nE R0 MAIL FROM/reply/550\n"
                           "C RSET\nS 250\nE DONE\n" ONE_BARE
                           "M\nS 250\nE R0 END OF DATA/reply/250\nE DONE\n");
}

static void test_A20_null_return_path(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 1 null\nC MAIL FROM:<>\nX\nE R0 MAIL FROM/lost/0\n"
                           "E OVER MAIL FROM/lost/0\n");
}

static void test_A25_parameters_only_if_offered(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 1 size=77\nC MAIL FROM:<s@from.test>\nX\nE R0 MAIL FROM/lost/0\n"
                           "E OVER MAIL FROM/lost/0\n");
    CHECK_SCRIPT(OPEN "B 1 size=77 8bit\nC MAIL FROM:<s@from.test> SIZE=77 BODY=8BITMIME\n"
                      "C RCPT TO:<r0@to.test>\nC DATA\nX\nE R0 MAIL FROM/lost/0\n"
                      "E OVER MAIL FROM/lost/0\n");
}

/* A25, D1, E5, F2, G1, N9: what is offered and not needed is not asked for. */
static void test_A25_N9_nothing_is_used_because_it_is_there(void)
{
    static const char ALL[] =
        GREET "S 250-mx\nS 250-PIPELINING\nS 250-SIZE 1000\nS 250-8BITMIME\nS 250-SMTPUTF8\n"
              "S 250-DSN\nS 250-CHUNKING\nS 250-BINARYMIME\nS 250-STARTTLS\nS 250-REQUIRETLS\n"
              "S 250-AUTH PLAIN LOGIN\nS 250-DELIVERBY 3600\nS 250-FUTURERELEASE 3600 x\n"
              "S 250-MT-PRIORITY MIXER\nS 250-LIMITS RCPTMAX=1\nS 250-XCLIENT NAME ADDR\n"
              "S 250-XFORWARD NAME ADDR\nS 250-PRDR\nS 250-RRVS\nS 250-ETRN\nS 250 HELP\nE READY\n";
    char script[2000];
    snprintf(script, sizeof(script), "%s%s", ALL,
             "B 1\n" GROUP_1 "S 250\nS 250\nS 354\nE BODY\nM\nS 250\n"
             "E R0 END OF DATA/reply/250\nE DONE\n"
             "B 1 8bit null\nC MAIL FROM:<> SIZE=100 BODY=8BITMIME\nC RCPT TO:<r0@to.test>\n"
             "C DATA\nS 250\nS 250\nS 354\nE BODY\nM\nS 250\nE R0 END OF DATA/reply/250\n"
             "E DONE\nQ\nC QUIT\nS 221\nE OVER QUIT/reply/221\n");
    CU_ASSERT(script_run(__FILE__, __LINE__, script));
}

static void test_A27_greeted_by_own_name(void)
{
    CHECK_SCRIPT("S 220 OUT.test ESMTP\nE OVER GREETING/loop/220\nC QUIT\n");
    CHECK_SCRIPT("S 220  out.test ESMTP\nE OVER GREETING/loop/220\nC QUIT\n");
    CHECK_SCRIPT(GREET "S 250-out.test hello\nS 250 SIZE\nE OVER EHLO/loop/250\nC QUIT\n");
    CHECK_SCRIPT(GREET "S 500 no\nC HELO out.test\nS 250 out.test\nE OVER EHLO/loop/250\nC QUIT\n");
    CHECK_SCRIPT(
        "S 220 out.test.other ESMTP\nC EHLO out.test\nS 250-mx\nS 250 out.test\nE READY\n");
}

static void test_A28_quit(void)
{
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nS 500 what\nE OVER QUIT/reply/500\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nS 421 bye\nE OVER QUIT/reply/421\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nS 354 go on\nE OVER QUIT/reply/354\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nS garbage\nE OVER QUIT/protocol/0\n");
    CHECK_SCRIPT(OPEN_BARE "Q\nC QUIT\nD 5000\nT 5000\nE OVER QUIT/timeout/0\n");
}

static void test_A29_greetings(void)
{
    static const char *const CODES[] = {"554", "521", "451", "550"};
    for (size_t i = 0; i < COUNT_OF(CODES); i++) {
        char script[100];
        snprintf(script, sizeof(script), "S %s no\nE OVER GREETING/reply/%s\nC QUIT\n", CODES[i],
                 CODES[i]);
        CHECK_ROW(i, script_run(__FILE__, __LINE__, script));
    }
    CHECK_SCRIPT("s 220 m\\xfcx \\0 ESMTP\\r\\n\nC EHLO out.test\n");
    CHECK_SCRIPT("S 220-one\nS 220-two\nS 220 three\nC EHLO out.test\n");
    CHECK_SCRIPT("S 354 go\nE OVER GREETING/protocol/354\nN\n");
}

static void test_A30_251_and_551(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 251 forward\nS 551 gone\nE R1 RCPT TO/reply/551\n"
                      "S 354\nE BODY\nM\nS 250\nE R0 END OF DATA/reply/250\nE DONE\n");
}

static void test_A31_data_answered_by_250(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 250 really\nE R0 DATA/protocol/250\n"
                      "V really\nE OVER DATA/protocol/250\nN\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 350 go\nE BODY\nM\nS 250\n"
                      "E R0 END OF DATA/reply/250\nE DONE\n");
}

static void test_E1_size_told(void)
{
    CHECK_SCRIPT(GREET "S 250-mx\nS 250 SIZE\nE READY\nB 1 size=18446744073709551615\n"
                       "C MAIL FROM:<s@from.test> SIZE=18446744073709551615\nX\n"
                       "E R0 MAIL FROM/lost/0\nE OVER MAIL FROM/lost/0\n");
    CHECK_SCRIPT(GREET "S 250-mx\nS 250 SIZE abc\nE READY\nB 1\nC MAIL FROM:<s@from.test>\nX\n"
                       "E R0 MAIL FROM/lost/0\nE OVER MAIL FROM/lost/0\n");
}

static void test_E2_too_large(void)
{
    CHECK_SCRIPT(OPEN "B 2 size=1001\nE R0 MAIL FROM/size/0\nE R1 MAIL FROM/size/0\nE DONE\nN\n"
                      "D never\nB 1 size=1000\nC MAIL FROM:<s@from.test> SIZE=1000\n"
                      "C RCPT TO:<r0@to.test>\nC DATA\nS 552 5.3.4 large\n"
                      "E R0 MAIL FROM/reply/552\nS 503\nS 503\nC RSET\nS 250\nE DONE\n");
}

static void test_E4_8bit_without_8bitmime(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 1 8bit\nE R0 MAIL FROM/8bit/0\nE DONE\nN\n");
    CHECK_SCRIPT(GREET "S 250-mx\nS 250 SMTPUTF8\nE READY\nB 1 8bit\n"
                       "C MAIL FROM:<s@from.test> BODY=8BITMIME\nX\nE R0 MAIL FROM/lost/0\n"
                       "E OVER MAIL FROM/lost/0\n");
}

static void test_names(void)
{
    CU_ASSERT_STRING_EQUAL(smtp_stage_name(SMTP_STAGE_END_OF_DATA), "END OF DATA");
    CU_ASSERT_STRING_EQUAL(smtp_cause_name(SMTP_CAUSE_LOOP), "loop");
    CU_ASSERT_STRING_EQUAL(smtp_state_name(SMTP_STATE_OVER), "over");
    CHECK_PANICS((void)smtp_stage_name((enum smtp_stage)SMTP_STAGES_COUNT));
}

/* Calls out of their place are bugs of the caller. */
static void test_misuse_panics(void)
{
    struct smtp_session_config config = {.ehlo_name = SPAN("out.test")};
    struct smtp_session session;
    struct smtp_event event;
    struct mono_time now = {.ns = 5};
    struct span rcpt = SPAN("a@b.test");
    struct smtp_transaction transaction = {.rcpts = &rcpt, .rcpts_count = 1};
    struct span bytes = SPAN("220 mx\r\n");
    smtp_timeouts_default(&config.timeouts);
    smtp_session_init(&session, &config, now);
    CHECK_PANICS((void)smtp_session_on_bytes(&session, &bytes, now, &event));
    CHECK_PANICS(smtp_session_begin(&session, &transaction, now));
    CHECK_PANICS(smtp_session_body_sent(&session, now));
    CHECK_PANICS(smtp_session_quit(&session, now));
    smtp_session_on_connected(&session, now);
    CHECK_PANICS(smtp_session_on_connected(&session, now));
}

SUITE(smtp_session, test_one_message_command_by_command, test_one_message_as_one_group,
      test_A1_each_command_has_its_own_limit, test_A1_each_command_of_a_group_has_its_own_limit,
      test_A2_limits, test_A2_the_answer_is_awaited_from_the_last_byte_on,
      test_accepted_before_the_body_is_out, test_A3_the_limit_is_that_of_the_whole_reply,
      test_A4_codes_without_text, test_A5_unknown_codes_by_first_digit, test_A6_codes_that_are_none,
      test_A7_lines_that_differ, test_A10_helo, test_A12_replies_to_the_end_of_data,
      test_A13_lost_at_each_point, test_A13_never_connected, test_A14_421_as_answer,
      test_A14_421_unsolicited, test_A15_A16_A17_too_many_recipients,
      test_A18_refused_mail_does_not_end_the_session, test_A20_null_return_path,
      test_A25_parameters_only_if_offered, test_A25_N9_nothing_is_used_because_it_is_there,
      test_A27_greeted_by_own_name, test_A28_quit, test_A29_greetings, test_A30_251_and_551,
      test_A31_data_answered_by_250, test_E1_size_told, test_E2_too_large,
      test_E4_8bit_without_8bitmime, test_names, test_misuse_panics)
