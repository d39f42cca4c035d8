/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink_script: what the sink is told to do other than to say yes, by address or by share.
 *
 * By address: the local part of a sender or recipient begins with one word, and ends there or goes
 * on with "-" and anything that makes the address unique:
 *
 *   VERB CODE [_ENHANCED] [xN]   rcpt550-17  rcpt451_4.2.1-a  dot451x2-9  mail421
 *                                answer VERB with CODE; with xN only the first N times that this
 *                                very address is seen (the sink remembers by hash)
 *   drop-VERB                    close without a reply
 *   reset-VERB                   close with RST
 *   mute-VERB                    say nothing more and wait
 *   lost250                      take the message (count and record it), then close without the 250
 *   tookCODE                     take the message, then answer its end with CODE all the same
 *   earlyCODE                    answer the end of data at once behind the 354; from CODE 400 on it
 *                                closes then, and does not read what comes
 *   slowMS                       delay the group of replies that this command is in: slow200-x
 *   MANNER-VERB                  answer VERB as usual, but in this manner (enum sink_act):
 *     shut-VERB                  ... and close then
 *     twice-VERB                 ... twice
 *     skip-VERB                  ... in mind: the reply is left out
 *     junk-VERB                  ... with a line that is no reply
 *     endless-VERB               ... with a line that never ends
 *
 * VERB is mail (only in senders), rcpt, data or dot (the end of data). Codes are 100..999; 421
 * closes after the reply. For data and dot the first recipient of a transaction that says something
 * wins.
 *
 * By share: "VERB=ACTION:SHARE%" where VERB may also be connect, ehlo, rset or quit, ACTION is CODE
 * [_ENHANCED], drop, reset, mute, lost, tookCODE, earlyCODE, a manner or slowMS, and SHARE has up
 * to four decimals: rcpt=451:2% dot=lost:0.01% dot=twice:5%
 *
 * Pure functions; anything that is not a script is not an error but no script.
 */
#pragma once

#include "engine/base/bytes.h"

enum sink_verb {
    SINK_VERB_CONNECT,
    SINK_VERB_EHLO,
    SINK_VERB_MAIL,
    SINK_VERB_RCPT,
    SINK_VERB_DATA,
    SINK_VERB_DOT,
    SINK_VERB_RSET,
    SINK_VERB_QUIT,
};
enum { SINK_VERBS_COUNT = SINK_VERB_QUIT + 1 };

enum sink_act {
    SINK_ACT_NONE,
    SINK_ACT_REPLY,
    SINK_ACT_DROP,
    SINK_ACT_RESET,
    SINK_ACT_MUTE,
    SINK_ACT_LOST,
    SINK_ACT_TOOK,
    SINK_ACT_EARLY,
    SINK_ACT_SLOW,
    SINK_ACT_SHUT,
    SINK_ACT_TWICE,
    SINK_ACT_SKIP,
    SINK_ACT_JUNK,
    SINK_ACT_ENDLESS,
};

struct sink_script {
    enum sink_act act;
    enum sink_verb verb;
    uint16_t code;
    uint16_t subject, detail; /* of the enhanced code; its class is the code's first digit */
    uint16_t times;           /* 0 = always */
    uint32_t delay_ms;        /* SINK_ACT_SLOW */
};

struct sink_share {
    struct sink_script script;
    uint32_t share_ppm;
};

/* The script of an address; act NONE when it has none. */
struct sink_script sink_script_of_address(struct span address);
bool sink_share_parse(struct span text, struct sink_share *ret_share);
/* "451 4.2.1 Scripted" CRLF. */
void sink_script_put_reply(struct writer *writer, const struct sink_script *script);
