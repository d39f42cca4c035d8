/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sink_blind: a server that does not parse, the measure for the sink's own cost.
 *
 * It plays one fixed dialogue: greeting; one reply to the first line; then, again and again, three
 * replies to a read that ends in "DATA" CRLF and one to a read that ends in CRLF "." CRLF. It looks
 * at the last bytes of what comes and at nothing else, so a client that pipelines differently, or a
 * mail that has such bytes where a read happens to end, makes nonsense of it. For bench/limit only.
 *
 * Owner: one connection of the sink. Cannot fail; constant memory.
 */
#pragma once

#include "bench/sink_smtp.h"

enum { SINK_BLIND_TAIL = 6 };

struct sink_blind {
    bool has_greeted;
    bool is_body;
    bool is_over;
    uint8_t tail_size;
    char tail[SINK_BLIND_TAIL]; /* the last bytes that came */
};

void sink_blind_init(struct sink_blind *blind);
/* Takes all of `in`. */
void sink_blind_take(struct sink_blind *blind, struct span in, struct sink_counts *counts,
                     struct writer *out);
