/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record: what the sink accepted, one line of JSON a message, in the file before the 250 is said.
 *
 *   {"at_ns":1234,"from":"a@b","to":["c@d","e@f"],"size":1042,"sha256":"..."}
 *
 * `at_ns` is monotonic time at the end of data; `size` counts the bytes on the wire with the lone
 * dot; the hash is that of the content without the transparency dots.
 *
 * A record_draft belongs to one session and gathers one message. A record_book belongs to one
 * thread of the sink and gathers lines until record_book_write, which puts them behind what other
 * threads wrote (O_APPEND, one write each). An envelope of more than RECORD_ENVELOPE_MAX bytes is
 * cut, and the line says "cut":true.
 *
 * Errors: record_book_write returns -errno; what of the lines is in the file is then unknown and
 * the book is of no more use.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"

enum { RECORD_ENVELOPE_MAX = 32 * 1024, RECORD_BOOK_MAX = 4 * 1024 * 1024 };

struct record_draft {
    void *digest;      /* NULL until the first message */
    uint32_t from_end; /* envelope: the sender as JSON up to here, then ","-separated recipients */
    bool is_cut;
    struct writer writer;
    char envelope[RECORD_ENVELOPE_MAX];
};

struct record_book {
    int fd;
    bool is_sync;
    struct writer writer;
    char *bytes;
};

void record_draft_init(struct record_draft *draft);
void record_draft_deinit(struct record_draft *draft);
void record_draft_mail(struct record_draft *draft, struct span sender);
void record_draft_rcpt(struct record_draft *draft, struct span recipient);
void record_draft_body(struct record_draft *draft, struct span piece);

/* `fd` is open for appending and kept; `is_sync`: every write is followed by fdatasync. -ENOMEM. */
int record_book_init(struct record_book *book, int fd, bool is_sync)
    __attribute__((warn_unused_result));
void record_book_deinit(struct record_book *book);
/* Ends the draft's message as a line. False: the book is full, write it first. */
bool record_book_add(struct record_book *book, struct record_draft *draft, uint64_t size,
                     struct mono_time at) __attribute__((warn_unused_result));
static inline bool record_book_is_empty(const struct record_book *book)
{
    return writer_size(&book->writer) == 0;
}
int record_book_write(struct record_book *book) __attribute__((warn_unused_result));
