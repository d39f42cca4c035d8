/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/record.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/base/text.h"

enum { RECORD_LINE_MAX = RECORD_ENVELOPE_MAX + 256 };

void record_draft_init(struct record_draft *draft)
{
    draft->digest = NULL;
    draft->from_end = 0;
    draft->is_cut = false;
    draft->writer = writer_of(draft->envelope, sizeof(draft->envelope));
}

void record_draft_deinit(struct record_draft *draft)
{
    EVP_MD_CTX_free(draft->digest);
    draft->digest = NULL;
}

void record_draft_mail(struct record_draft *draft, struct span sender)
{
    draft->digest = draft->digest ? draft->digest : EVP_MD_CTX_new();
    ensure(draft->digest);
    ensure(EVP_DigestInit_ex(draft->digest, EVP_sha256(), NULL) == 1);
    draft->writer = writer_of(draft->envelope, sizeof(draft->envelope));
    text_put_json(&draft->writer, sender);
    draft->is_cut = draft->writer.is_full;
    draft->from_end = (uint32_t)writer_size(&draft->writer);
}

void record_draft_rcpt(struct record_draft *draft, struct span recipient)
{
    struct writer before = draft->writer;
    if (writer_size(&before) > draft->from_end) {
        writer_put_byte(&draft->writer, ',');
    }
    text_put_json(&draft->writer, recipient);
    if (draft->writer.is_full) {
        draft->is_cut = true;
        draft->writer = before;
    }
}

void record_draft_body(struct record_draft *draft, struct span piece)
{
    ensure(EVP_DigestUpdate(draft->digest, piece.at, piece.size) == 1);
}

int record_book_init(struct record_book *book, int fd, bool is_sync)
{
    book->bytes = malloc(RECORD_BOOK_MAX);
    if (!book->bytes) {
        return -ENOMEM;
    }
    book->fd = fd;
    book->is_sync = is_sync;
    book->writer = writer_of(book->bytes, RECORD_BOOK_MAX);
    return 0;
}

void record_book_deinit(struct record_book *book)
{
    free(book->bytes);
    book->bytes = NULL;
}

static void put_digest(struct writer *writer, struct record_draft *draft)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size;
    ensure(EVP_DigestFinal_ex(draft->digest, digest, &size) == 1);
    for (unsigned i = 0; i < size; i++) {
        writer_put_byte(writer, "0123456789abcdef"[digest[i] >> 4]);
        writer_put_byte(writer, "0123456789abcdef"[digest[i] & 15]);
    }
}

bool record_book_add(struct record_book *book, struct record_draft *draft, uint64_t size,
                     struct mono_time at)
{
    struct writer *writer = &book->writer;
    struct span envelope = writer_span(&draft->writer);
    if ((size_t)(writer->end - writer->at) < RECORD_LINE_MAX) {
        return false;
    }
    writer_put(writer, SPAN("{\"at_ns\":"));
    writer_put_uint(writer, (uint64_t)at.ns);
    writer_put(writer, SPAN(",\"from\":"));
    writer_put(writer, span_of(envelope.at, draft->from_end));
    writer_put(writer, SPAN(",\"to\":["));
    writer_put(writer, span_of(envelope.at + draft->from_end, envelope.size - draft->from_end));
    writer_put(writer, SPAN("],\"size\":"));
    writer_put_uint(writer, size);
    writer_put(writer,
               draft->is_cut ? SPAN(",\"cut\":true,\"sha256\":\"") : SPAN(",\"sha256\":\""));
    put_digest(writer, draft);
    writer_put(writer, SPAN("\"}\n"));
    ensure(!writer->is_full);
    return true;
}

int record_book_write(struct record_book *book)
{
    struct span lines = writer_span(&book->writer);
    while (lines.size > 0) {
        ssize_t size = write(book->fd, lines.at, lines.size);
        if (size < 0 && errno != EINTR) {
            return -errno;
        }
        lines.at += size > 0 ? size : 0;
        lines.size -= size > 0 ? (size_t)size : 0;
    }
    if (book->is_sync && fdatasync(book->fd) != 0) {
        return -errno;
    }
    book->writer = writer_of(book->bytes, RECORD_BOOK_MAX);
    return 0;
}
