/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/sink_blind.h"

void sink_blind_init(struct sink_blind *blind)
{
    blind->has_greeted = false;
    blind->is_body = false;
    blind->is_over = false;
    blind->tail_size = 0;
}

static void tail_keep(struct sink_blind *blind, struct span in)
{
    if (in.size >= SINK_BLIND_TAIL) {
        memcpy(blind->tail, in.at + in.size - SINK_BLIND_TAIL, SINK_BLIND_TAIL);
        blind->tail_size = SINK_BLIND_TAIL;
        return;
    }
    size_t room = SINK_BLIND_TAIL - in.size;
    size_t kept = blind->tail_size < room ? blind->tail_size : room;
    memmove(blind->tail, blind->tail + blind->tail_size - kept, kept);
    memcpy(blind->tail + kept, in.at, in.size);
    blind->tail_size = (uint8_t)(kept + in.size);
}

static bool tail_is(const struct sink_blind *blind, struct span end)
{
    return blind->tail_size >= end.size &&
           memcmp(blind->tail + blind->tail_size - end.size, end.at, end.size) == 0;
}

void sink_blind_take(struct sink_blind *blind, struct span in, struct sink_counts *counts,
                     struct writer *out)
{
    tail_keep(blind, in);
    if (blind->is_body) {
        counts->bytes += in.size;
        if (tail_is(blind, SPAN("\r\n.\r\n"))) {
            counts->messages++;
            counts->recipients++;
            blind->is_body = false;
            writer_put(out, SPAN("250 2.0.0 Ok\r\n"));
        }
    } else if (tail_is(blind, SPAN("DATA\r\n"))) {
        blind->is_body = true;
        writer_put(out, SPAN("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End with <CR><LF>.<CR><LF>\r\n"));
    } else if (tail_is(blind, SPAN("QUIT\r\n"))) {
        blind->is_over = true;
        writer_put(out, SPAN("221 2.0.0 Bye\r\n"));
    } else if (!blind->has_greeted && tail_is(blind, SPAN("\r\n"))) {
        blind->has_greeted = true;
        writer_put(out, SPAN("250 sink\r\n"));
    }
}
