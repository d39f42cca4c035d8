/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of commands and what servers make of them, by the numbers of conformance.md 1.C.
 */
#include "engine/smtp/smtp_session.h"
#include "tests/harness.h"
#include "tests/unit/smtp/script.h"

#define MAIL "C MAIL FROM:<s@from.test> SIZE=100\n"

static void test_C1_only_if_offered(void)
{
    CHECK_SCRIPT(OPEN_BARE "B 2\nC MAIL FROM:<s@from.test>\nN\nS 250\nC RCPT TO:<r0@to.test>\nN\n"
                           "S 250\nC RCPT TO:<r1@to.test>\nN\nS 250\nC DATA\nN\nX\n"
                           "E R0 DATA/lost/0\nE R1 DATA/lost/0\nE OVER DATA/lost/0\n");
    CHECK_SCRIPT("O pipelining\n" OPEN "B 1\n" MAIL "N\nX\nE R0 MAIL FROM/lost/0\n"
                 "E OVER MAIL FROM/lost/0\n");
}

static void test_C1_nothing_behind_a_sync_point(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "N\nS 250\nS 250\nN\nS 354\nE BODY\nN\nM\nN\nS 250\n"
                      "E R0 END OF DATA/reply/250\nE DONE\nN\n");
}

static void test_C2_replies_are_counted(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250-MAIL\nS 250-FROM\nS 250 ok\nS 250 RCPT\nS 250-354\n"
                      "S 250 DATA\nS 354-a\nS 354 b\nE BODY\nM\nS 250-x\nS 250 y\n"
                      "E R0 END OF DATA/reply/250\nE R1 END OF DATA/reply/250\nV x y\nE DONE\n");
    /* One reply is missing: no delivery comes of it. */
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 354\nE R0 RCPT TO/protocol/354\n"
                      "E OVER RCPT TO/protocol/354\n");
}

static void test_C3_lone_dot(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 550 a\nS 450 b\nE R0 RCPT TO/reply/550\n"
                      "E R1 RCPT TO/reply/450\nS 354 go\nC .\nN\nS 250 queued\nC RSET\nS 250\n"
                      "E DONE\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 550\nE R0 RCPT TO/reply/550\nS 354 go\nC .\n"
                      "S 554 no valid recipients\nC RSET\nS 250\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 550\nE R0 RCPT TO/reply/550\nS 354 go\nC .\nX\n"
                      "E OVER END OF DATA/lost/0\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 550\nE R0 RCPT TO/reply/550\nS 354 go\nC .\n"
                      "D 600000\nT 600000\nE OVER END OF DATA/timeout/0\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 550\nE R0 RCPT TO/reply/550\nS 354 go\nC .\n"
                      "S 354 again\nE OVER END OF DATA/protocol/354\n");
}

static void test_C3_mixed_sets_get_the_body(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 550\nS 250\nE R0 RCPT TO/reply/550\nS 354\nE BODY\n"
                      "N\nM\nS 250\nE R1 END OF DATA/reply/250\nE DONE\n");
}

static void test_C3_mail_refused_and_354(void)
{
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 550 no\nE R0 MAIL FROM/reply/550\nS 250\nS 354\nC .\n"
                      "S 250\nC RSET\nS 250\nE DONE\n");
}

static void test_C4_all_refused_then_data_refused(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 450 a\nS 450 b\nE R0 RCPT TO/reply/450\n"
                      "E R1 RCPT TO/reply/450\nV b\nS 550 no\nC RSET\nS 250\nE DONE\n"
                      "B 1\n" GROUP_1 "X\nE R0 MAIL FROM/lost/0\nE OVER MAIL FROM/lost/0\n");
    /* Without PIPELINING there is no DATA for nobody. */
    CHECK_SCRIPT(OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 250\nC RCPT TO:<r0@to.test>\nS 550\n"
                           "E R0 RCPT TO/reply/550\nC RSET\nS 250\nE DONE\n");
}

static void test_C5_mail_refused(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 451 4.7.1 later\nE R0 MAIL FROM/reply/451\n"
                      "E R1 MAIL FROM/reply/451\nV later\nS 503\nS 503\nS 503\nC RSET\nS 250\n"
                      "E DONE\n");
    CHECK_SCRIPT(OPEN
                 "B 2\n" GROUP_2 "S 550 5.7.1 never\nS 503 a\nS 503 b\nS 503 c\n"
                 "E R0 MAIL FROM/reply/550\nE R1 MAIL FROM/reply/550\nC RSET\nS 250\nE DONE\n");
    /* The next message's recipients have fates of their own. */
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 550 never\nE R0 MAIL FROM/reply/550\nS 503\nS 503\n"
                      "C RSET\nS 250\nE DONE\nB 2\n" GROUP_2 "S 250\nS 550 nobody\nS 250\nS 354\n"
                      "E R0 RCPT TO/reply/550\nE BODY\nM\nS 250\nE R1 END OF DATA/reply/250\n"
                      "E DONE\n");
    /* A careless server that accepts recipients of a refused sender delivers nothing to them. */
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 550\nS 250\nS 250\nE R0 MAIL FROM/reply/550\n"
                      "E OVER DATA/protocol/250\n");
}

static void test_C6_mixed_recipients(void)
{
    CHECK_SCRIPT(OPEN "B 4\n" GROUP_4 "S 250\nS 250\nS 451\nS 550\nS 250\nS 354\n"
                      "E R1 RCPT TO/reply/451\nE R2 RCPT TO/reply/550\nE BODY\nM\nS 250\n"
                      "E R0 END OF DATA/reply/250\nE R3 END OF DATA/reply/250\nE DONE\n");
}

static void test_C7_data_refused(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 250\nS 550 a\nS 451 b\nE R1 RCPT TO/reply/550\n"
                      "E R0 DATA/reply/451\nV b\nC RSET\nS 250\nE DONE\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 554\nE R0 DATA/reply/554\nC RSET\nS 250\n"
                      "E DONE\n");
}

static void test_C8_closed_behind_a_refusal(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 550 5.7.1 blocked\nE R0 MAIL FROM/reply/550\n"
                      "E R1 MAIL FROM/reply/550\nV blocked\nX\nE OVER RCPT TO/lost/0\n");
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 550 blocked\nX\nE R0 RCPT TO/reply/550\n"
                      "E R1 RCPT TO/lost/0\nE OVER RCPT TO/lost/0\n");
    CHECK_SCRIPT("S 554 blocked\nX\nE OVER GREETING/reply/554\nC QUIT\n");
}

static void test_C9_garbage_among_replies(void)
{
    CHECK_SCRIPT(OPEN "B 2\n" GROUP_2 "S 250\nS 550\nS \nE R0 RCPT TO/reply/550\n"
                      "E R1 RCPT TO/protocol/0\nE OVER RCPT TO/protocol/0\nS 250\nS 354\nN\n");
    CHECK_SCRIPT(OPEN "B 1\n" GROUP_1 "S ok\nS 250\nE R0 MAIL FROM/protocol/0\nV ok\n"
                      "E OVER MAIL FROM/protocol/0\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS \nS 250 ok\nE R0 END OF DATA/protocol/0 ambiguous\n"
                                    "E OVER END OF DATA/protocol/0 ambiguous\n");
}

/* Mail was lost where a shift of replies let 221 pass for the end of data. */
static void test_C9_221_and_220_out_of_their_place(void)
{
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 221 bye\nE R0 END OF DATA/protocol/221 ambiguous\n"
                                    "E OVER END OF DATA/protocol/221 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "M\nS 220 mx\nE R0 END OF DATA/protocol/220 ambiguous\n"
                                    "E OVER END OF DATA/protocol/220 ambiguous\n");
    CHECK_SCRIPT(GREET "S 220 mx\nE OVER EHLO/protocol/220\n");
    CHECK_SCRIPT("S 221 bye\nE OVER GREETING/protocol/221\n");
}

static void test_C11_early_replies(void)
{
    CHECK_SCRIPT("W\nS 220 mx\nS 250 mx\nE OVER EHLO/protocol/250\nN\n");
    CHECK_SCRIPT("W\n" GREET "S 250 mx\nS 250 again\nE OVER EHLO/protocol/250\nN\n");
    CHECK_SCRIPT(OPEN "|\nS 250 again\nE OVER EHLO/protocol/250\n");
    CHECK_SCRIPT(OPEN "|\nS 550 again\nE OVER EHLO/protocol/550\nN\n");
    CHECK_SCRIPT("W\n" OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 250\nS 250 early\n"
                 "E R0 RCPT TO/protocol/250\nE OVER RCPT TO/protocol/250\nN\n");
    CHECK_SCRIPT("W\n" OPEN_BARE "B 1\nC MAIL FROM:<s@from.test>\nS 250\nC RCPT TO:<r0@to.test>\n"
                 "S 250\nS 354 early\nE R0 DATA/protocol/354\nE OVER DATA/protocol/354\nN\n");
}

/* LAW 5: the final 250 behind 354 is no acceptance, even where all of the body leaves at once. */
static void test_C11_final_reply_with_354(void)
{
    CHECK_SCRIPT("W\n" OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 354 go\nS 250 queued\n"
                 "E R0 BODY/protocol/250\nE OVER BODY/protocol/250\n");
    CHECK_SCRIPT("W\n" OPEN "B 1\n" GROUP_1 "S 250\nS 250\nS 354 go\ns 25\n|\nN\n"
                 "S 0 queued\nE R0 BODY/protocol/250\nE OVER BODY/protocol/250\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "s 2\n|\nM\ns 50 queued\\r\\n\n"
                                    "E R0 END OF DATA/protocol/250 ambiguous\n"
                                    "E OVER END OF DATA/protocol/250 ambiguous\n");
    CHECK_SCRIPT(OPEN_BARE ONE_BARE "s 5\n|\nM\ns 50 no\\r\\n\nE R0 END OF DATA/reply/550\n"
                                    "E OVER END OF DATA/reply/550\n");
}

/* The start of something early holds READY and DONE back, and the output; its limit ends it. */
static void test_C11_early_bytes_hold_back(void)
{
    CHECK_SCRIPT("W\n" GREET
                 "S 250 mx\ns 42\n|\nN\nD 20000\nT 20000\nE OVER EHLO/timeout/0\nV 42\n");
    CHECK_SCRIPT("W\n" GREET "S 250 mx\ns 42\n|\nX\nE OVER EHLO/lost/0\nV 42\n");
    CHECK_SCRIPT("W\n" GREET "S 250 mx\ns 42\n|\nN\nS 1 bye\nE OVER EHLO/reply/421\n");
    CHECK_SCRIPT("W\nS 220 mx\ns 2\n|\nN\nS 50 mx\nE OVER EHLO/protocol/250\nN\n");
}

static void test_C11_server_begins_before_begin(void)
{
    CHECK_SCRIPT(OPEN_BARE "|\ns 2\n|\nD 20000\nB 1\nE R0 MAIL FROM/protocol/0\n"
                           "E OVER MAIL FROM/protocol/0\nN\n");
}

static void test_C12_timeout_in_a_group(void)
{
    CHECK_SCRIPT(OPEN "B 4\n" GROUP_4 "S 250\nS 250\nS 550 no\nE R1 RCPT TO/reply/550\nT 300000\n"
                      "E R0 RCPT TO/timeout/0\nE R2 RCPT TO/timeout/0\nE R3 RCPT TO/timeout/0\n"
                      "E OVER RCPT TO/timeout/0\n");
}

SUITE(smtp_pipelining, test_C1_only_if_offered, test_C1_nothing_behind_a_sync_point,
      test_C2_replies_are_counted, test_C3_lone_dot, test_C3_mixed_sets_get_the_body,
      test_C3_mail_refused_and_354, test_C4_all_refused_then_data_refused, test_C5_mail_refused,
      test_C6_mixed_recipients, test_C7_data_refused, test_C8_closed_behind_a_refusal,
      test_C9_garbage_among_replies, test_C9_221_and_220_out_of_their_place, test_C11_early_replies,
      test_C11_final_reply_with_354, test_C11_early_bytes_hold_back,
      test_C11_server_begins_before_begin, test_C12_timeout_in_a_group)
