/* SPDX-License-Identifier: Apache-2.0 */
/*
 * script: a scripted SMTP server for tests of the session machine, under virtual time.
 *
 * One line a step; the first character is the step, the rest behind one blank its argument:
 *   S text    the server says the line and CRLF; neighbouring S and s lines are one segment
 *   s text    the server says exactly these bytes, with \r \n \0 \xNN as escapes
 *   |         ends the segment
 *   C text    the client's next line
 *   N         the client has nothing more to say
 *   E text    the next event: "READY", "BODY", "DONE", "R1 RCPT TO/reply/550",
 *             "OVER END OF DATA/lost/0 ambiguous"
 *   V text    the text of the reply of the last event
 *   B n ...   begin a transaction with n recipients r0@to.test, r1@to.test ... from s@from.test;
 *             then "size=N", "8bit", "null" (null return path)
 *   M  P  Q   the body was sent, and the transport has taken it; it made progress; quit
 *   M queued  the body was sent, the transport holds some of it still
 *   A         the transport has taken all of it
 *   X         the connection is closed
 *   t ms      time passes; all events before it must have been named
 *   T ms      time passes, and the timer is heard
 *   D ms      the deadline is that far away ("D never")
 *   O name    the name of the server's capabilities to ignore: "pipelining"
 *   W         first line: whole segments only, what is tested is the border of a segment
 *
 * Each script is run with whole segments, byte by byte, and with seeded cuts. At the end all events
 * and all output must have been named by the script.
 */
#pragma once

#include <stdbool.h>

/* False, with the reason on standard error, when a run differs from the script. */
bool script_run(const char *file, int line, const char *script);

#define CHECK_SCRIPT(script) CU_ASSERT(script_run(__FILE__, __LINE__, script))

#define GREET "S 220 mx.test ESMTP\nC EHLO out.test\n"
#define OPEN_BARE GREET "S 250 mx.test\nE READY\n"
#define OPEN GREET "S 250-mx.test\nS 250-SIZE 1000\nS 250-8BITMIME\nS 250 PIPELINING\nE READY\n"
/* MAIL, RCPT, DATA of one recipient, each answered on its own; the body is out. */
#define ONE_BARE                                                                                   \
    "B 1\nC MAIL FROM:<s@from.test>\nS 250 ok\nC RCPT TO:<r0@to.test>\nS 250 ok\n"                 \
    "C DATA\nS 354 go\nE BODY\n"
#define GROUP_1 "C MAIL FROM:<s@from.test> SIZE=100\nC RCPT TO:<r0@to.test>\nC DATA\n"
#define GROUP_2                                                                                    \
    "C MAIL FROM:<s@from.test> SIZE=100\nC RCPT TO:<r0@to.test>\nC RCPT TO:<r1@to.test>\nC DATA\n"
#define GROUP_4                                                                                    \
    "C MAIL FROM:<s@from.test> SIZE=100\nC RCPT TO:<r0@to.test>\nC RCPT TO:<r1@to.test>\n"         \
    "C RCPT TO:<r2@to.test>\nC RCPT TO:<r3@to.test>\nC DATA\n"
