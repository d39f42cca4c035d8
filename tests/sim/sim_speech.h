/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_speech: how a simulated mail server puts its replies into words. All of these are odd and
 * legal, or wrong in a way that says the same: a client that cannot bear them is too strict.
 *
 * Bounds: the heap's.
 */
#pragma once

#include "engine/base/bytes.h"
#include "engine/base/random.h"

enum sim_speech {
    SIM_SPEECH_PLAIN,
    SIM_SPEECH_LINES,   /* replies of many lines */
    SIM_SPEECH_LONG,    /* lines of thousands of bytes */
    SIM_SPEECH_DIRTY,   /* NULs, control characters and 8-bit text behind the code */
    SIM_SPEECH_ENDINGS, /* lines that end in LF alone, or in CR CR LF */
    SIM_SPEECH_TERSE,   /* the code alone, unless it is a reply of more lines than one */
    SIM_SPEECH_STARS,   /* a greeting of stars, as of a firewall that hides it */
};
enum { SIM_SPEECHES_COUNT = SIM_SPEECH_STARS + 1 };

/* Text that grows; all zero is the empty one; `at` to be freed. */
struct sim_text {
    char *at;
    size_t size;
    size_t room;
};

void sim_text_put(struct sim_text *text, struct span piece);
/* Puts whole lines, each with its code and CRLF, as they are said. */
void sim_speech_put(struct sim_text *out, enum sim_speech speech, struct random *random,
                    struct span reply);
