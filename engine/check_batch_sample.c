/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "engine/check_batch_priv.h"
#include "engine/config.h"
#include "engine/record_check.h"
#include "engine/values.h"

enum { MISSING_FIELDS_SIZE = 512, SCRATCH_FIRST = 64 * 1024, SCRATCH_MAX = 1 << 30 };

void check_batch_keep_sample(struct checking *checking, const struct span *pieces, uint32_t count)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        size += pieces[i].size;
    }
    char *sample = malloc(size + 1);
    if (sample == NULL) {
        return;
    }
    struct writer writer = writer_of(sample, size);
    for (uint32_t i = 0; i < count; i++) {
        writer_put(&writer, pieces[i]);
    }
    checking->check->sample = sample;
    checking->check->sample_size = size;
}

void check_batch_show_record(struct checking *checking, struct span record, uint64_t offset)
{
    char fields[MISSING_FIELDS_SIZE];
    struct writer writer = writer_of(fields, sizeof(fields));
    struct span body = checking->message->body;
    values_put_missing(&writer, record_message_flags(checking->message), checking->manifest,
                       clock_wall(clock_system()), offset, checking->config->hostname);
    size_t head = (size_t)(body.at - record.at);
    const struct span pieces[] = {
        span_of(record.at, head),
        writer_span(&writer),
        span_of(body.at, record.size - head),
    };
    check_batch_keep_sample(checking, pieces, COUNT_OF(pieces));
}

void check_batch_render_sample(struct checking *checking, struct span to, uint32_t ordinal)
{
    struct span values[TEMPLATE_VARS_MAX];
    char envelope[MANIFEST_FROM_MAX + 512];
    struct writer head = writer_of(envelope, sizeof(envelope));
    struct template_problem problem;
    values_fill(checking->sender, checking->manifest, checking->record, to, checking->count_hints,
                values);
    struct render_input input = values_input(checking->manifest, values, ordinal);
    writer_put(&head, SPAN("MAIL FROM:<"));
    int result = template_render_line(checking->sender, &input, &head, &problem);
    ensure(result == 0); /* the record was accepted */
    writer_put(&head, SPAN(">\r\nRCPT TO:<"));
    writer_put(&head, to);
    writer_put(&head, SPAN(">\r\nDATA\r\n"));
    values_fill(checking->template, checking->manifest, checking->record, to, checking->count_hints,
                values);
    result = -ENOSPC;
    for (size_t room = SCRATCH_FIRST; result == -ENOSPC && room <= SCRATCH_MAX; room *= 4) {
        char *scratch = malloc(room);
        struct render_output output = {.scratch = writer_of(scratch, scratch == NULL ? 0 : room)};
        result = template_render(checking->template, &input, &output, &problem);
        if (result == 0) {
            struct span pieces[TEMPLATE_PIECES_MAX + 1];
            pieces[0] = writer_span(&head);
            memcpy(&pieces[1], output.pieces, output.pieces_count * sizeof(pieces[0]));
            check_batch_keep_sample(checking, pieces, output.pieces_count + 1);
        }
        free(scratch);
    }
}
