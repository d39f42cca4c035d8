/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/limit_load.h"

#include <stdlib.h>

/* Lines of 72 bytes with their CRLF, none of which begins with a dot. */
enum { LINE_SIZE = 72 };

static struct span message_render(size_t size)
{
    char *bytes = malloc(size + 3);
    if (!bytes) {
        program_die("no memory");
    }
    struct writer writer = writer_of(bytes, size + 3);
    writer_put(&writer, SPAN("From: News <news@bench.example>\r\nTo: u00000000@d0000.bench.example"
                             "\r\nSubject: Bench\r\nMessage-ID: <0.0@bench.example>\r\n\r\n"));
    while (writer_size(&writer) + 2 < size) {
        size_t left = size - writer_size(&writer) - 2;
        size_t text_size = left < LINE_SIZE - 2 ? left : LINE_SIZE - 2;
        if (left > text_size && left - text_size < 3) {
            text_size -= 3; /* leaves room for a last line with its CRLF */
        }
        for (size_t i = 0; i < text_size; i++) {
            writer_put_byte(&writer, (char)('a' + i % 26));
        }
        writer_put(&writer, SPAN("\r\n"));
    }
    ensure(writer_size(&writer) == size);
    writer_put(&writer, SPAN(".\r\n"));
    ensure(!writer.is_full);
    return writer_span(&writer);
}

static struct span envelope_render(size_t message_size)
{
    enum { ENVELOPE_MAX = 512 };
    char *bytes = malloc(ENVELOPE_MAX);
    if (!bytes) {
        program_die("no memory");
    }
    struct writer writer = writer_of(bytes, ENVELOPE_MAX);
    writer_put(&writer, SPAN("MAIL FROM:<news@bench.example> SIZE="));
    writer_put_uint(&writer, message_size);
    writer_put(&writer, SPAN("\r\nRCPT TO:<u00000000@d0000.bench.example>\r\nDATA\r\n"));
    ensure(!writer.is_full);
    return writer_span(&writer);
}

struct limit_load limit_load_render(size_t message_size)
{
    ensure(message_size >= LIMIT_MESSAGE_MIN);
    return (struct limit_load){
        .hello = SPAN("HELO bench.example\r\n"),
        .envelope = envelope_render(message_size),
        .message = message_render(message_size),
    };
}

void limit_load_deinit(struct limit_load *load)
{
    free((char *)load->envelope.at);
    free((char *)load->message.at);
    *load = (struct limit_load){.hello = SPAN_NONE};
}
