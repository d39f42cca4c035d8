/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_speech.h"

#include <stdlib.h>

enum { CODE_SIZE = 3, LINES_MAX = 12, LONG_MAX = 4000, BITS_PIECE = 64 };

void sim_text_put(struct sim_text *text, struct span piece)
{
    if (text->size + piece.size > text->room) {
        text->room = 2 * (text->size + piece.size) + 256;
        text->at = realloc(text->at, text->room);
        ensure(text->at != NULL);
    }
    if (piece.size > 0) {
        memcpy(text->at + text->size, piece.at, piece.size);
    }
    text->size += piece.size;
}

/* In front of the last line, with its code. */
static void put_more_lines(struct sim_text *out, struct random *random, struct span line)
{
    for (uint32_t count = 1 + random_below(random, LINES_MAX); count > 0; count--) {
        sim_text_put(out, span_of(line.at, CODE_SIZE));
        sim_text_put(out, count % 2 == 0 ? SPAN("-Xmore and more\r\n") : SPAN("-\r\n"));
    }
}

static void put_tail(struct sim_text *out, struct random *random)
{
    static const char FILLER[] = "................................................................";
    sim_text_put(out, SPAN(" "));
    for (uint32_t left = random_below(random, LONG_MAX); left > BITS_PIECE; left -= BITS_PIECE) {
        sim_text_put(out, span_of(FILLER, BITS_PIECE));
    }
}

static void put_end(struct sim_text *out, enum sim_speech speech, struct random *random)
{
    static const struct span ENDS[] = {SPAN("\r\n"), SPAN("\n"), SPAN("\r\r\n")};
    uint32_t which = speech == SIM_SPEECH_ENDINGS ? random_below(random, COUNT_OF(ENDS)) : 0;
    sim_text_put(out, ENDS[which]);
}

static void put_line(struct sim_text *out, enum sim_speech speech, struct random *random,
                     struct span line, bool is_alone)
{
    bool is_last = line.size <= CODE_SIZE || line.at[CODE_SIZE] != '-';
    if (speech == SIM_SPEECH_LINES && is_last) {
        put_more_lines(out, random, line);
    }
    if (speech == SIM_SPEECH_TERSE && is_alone) {
        line.size = CODE_SIZE;
    }
    if (speech == SIM_SPEECH_STARS && is_alone && span_starts(line, SPAN("220"))) {
        line = SPAN("220 **2**0*****");
    }
    sim_text_put(out, line);
    if (speech == SIM_SPEECH_LONG && is_last) {
        put_tail(out, random);
    } else if (speech == SIM_SPEECH_DIRTY && is_last) {
        sim_text_put(out, SPAN(" \0\001\033[31m\t\"\\\x7f\xc3\xa4\xff\xfe\200 250 ok"));
    }
    put_end(out, speech, random);
}

void sim_speech_put(struct sim_text *out, enum sim_speech speech, struct random *random,
                    struct span reply)
{
    const char *first_end = memchr(reply.at, '\n', reply.size);
    bool is_alone = first_end != NULL && first_end + 1 == reply.at + reply.size;
    bool is_whole = reply.size > CODE_SIZE + 1 && reply.at[reply.size - 1] == '\n';
    if (speech == SIM_SPEECH_PLAIN || !is_whole || reply.at[0] < '1' || reply.at[0] > '9') {
        sim_text_put(out, reply);
        return;
    }
    struct cursor cursor = cursor_of(reply);
    struct span line;
    while (cursor_take_line(&cursor, &line)) {
        put_line(out, speech, random, line, is_alone);
    }
}
