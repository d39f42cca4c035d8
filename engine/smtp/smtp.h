/* SPDX-License-Identifier: Apache-2.0 */
/*
 * smtp: the verbs the client speaks, with the properties the session machine asks for, and the
 * limits of RFC 5321 4.5.3.1.
 *
 * Const data only: no owner, no lifetime, any actor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum smtp_verb {
    SMTP_VERB_EHLO,
    SMTP_VERB_HELO,
    SMTP_VERB_MAIL,
    SMTP_VERB_RCPT,
    SMTP_VERB_DATA,
    SMTP_VERB_DOT, /* the end of data: a lone "." */
    SMTP_VERB_RSET,
    SMTP_VERB_QUIT,
};
enum { SMTP_VERBS_COUNT = SMTP_VERB_QUIT + 1 };

/* RFC 2920 3.1 (C1): only a verb that is no sync point may have another command behind it in the
 * same group. */
struct smtp_verb_properties {
    struct span text; /* on the wire, up to where its argument begins */
    bool is_sync_point;
};

static const struct smtp_verb_properties SMTP_VERBS[] = {
    [SMTP_VERB_EHLO] = {{"EHLO ", 5}, true},         [SMTP_VERB_HELO] = {{"HELO ", 5}, true},
    [SMTP_VERB_MAIL] = {{"MAIL FROM:<", 11}, false}, [SMTP_VERB_RCPT] = {{"RCPT TO:<", 9}, false},
    [SMTP_VERB_DATA] = {{"DATA", 4}, true},          [SMTP_VERB_DOT] = {{".", 1}, true},
    [SMTP_VERB_RSET] = {{"RSET", 4}, false},         [SMTP_VERB_QUIT] = {{"QUIT", 4}, true},
};
_Static_assert(COUNT_OF(SMTP_VERBS) == SMTP_VERBS_COUNT, "one row a verb");

/* RFC 5321 4.5.3.1 (A24); a path is counted with its angle brackets, a line with its CRLF. */
enum {
    SMTP_LOCAL_PART_MAX = 64,
    SMTP_DOMAIN_MAX = 255,
    SMTP_PATH_MAX = 256,
    SMTP_ADDRESS_MAX = SMTP_PATH_MAX - 2, /* a path without its brackets */
    SMTP_COMMAND_LINE_MAX = 512,
    SMTP_LABEL_MAX = 63,        /* RFC 1035 2.3.4 */
    SMTP_DOMAIN_NAME_MAX = 253, /* a domain as text: 255 octets in a query are 253 characters */
    /* Room for any one command: MAIL FROM:<path> SIZE=20 digits BODY=8BITMIME CRLF. */
    SMTP_COMMAND_SIZE_MAX = 11 + SMTP_ADDRESS_MAX + 1 + 6 + 20 + 14 + 2,
};
_Static_assert(SMTP_COMMAND_SIZE_MAX <= SMTP_COMMAND_LINE_MAX, "no command is too long a line");
_Static_assert(SMTP_COMMAND_SIZE_MAX >= 5 + SMTP_DOMAIN_MAX + 2, "EHLO with the longest name fits");
