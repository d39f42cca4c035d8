/* SPDX-License-Identifier: Apache-2.0 */
/* BSMTP streams: splitter, reader (with the splitter's measure and without), envelope. */
#include "engine/record_check.h"
#include "queue/scan_envelope.h"
#include "tests/fuzz/fuzz_split.h"

static struct fuzz_records records;
static struct scan_message measured;
static struct scan_message message;

/* What a worker sees of a record that intake took. */
static void check_envelope(struct span record)
{
    struct scan_envelope envelope;
    struct scan_problem problem;
    ensure(scan_record_envelope(record, &envelope, &problem) == 0);
    ensure(span_equal(envelope.sender, message.sender));
    ensure(envelope.rcpts_count == message.rcpts_count);
    ensure(envelope.body.at == message.body.at && envelope.body.size == message.body.size);
    for (uint32_t i = 0; i < message.rcpts_count; i++) {
        ensure(span_equal(scan_envelope_rcpt(&envelope, i), message.rcpts[i]));
    }
}

static void check_record(struct span bytes, const struct scan_text *text)
{
    struct scan_problem problems[2];
    char *exact = fuzz_copy(bytes);
    struct span record = span_of(exact, bytes.size);
    int result = scan_record_message(record, text, &measured, &problems[0]);
    ensure(result == scan_record_message(record, NULL, &message, &problems[1]));
    if (result != 0) {
        ensure(problems[0].line_offset == problems[1].line_offset);
        ensure(strcmp(problems[0].text, problems[1].text) == 0);
        free(exact);
        return;
    }
    ensure(measured.size == message.size && measured.is_8bit == message.is_8bit);
    ensure(measured.body.at == message.body.at && measured.body.size == message.body.size);
    ensure(message.size <= 2 * message.body.size);
    struct record_reject refused;
    ensure(record_check_message(&message, &refused) == 0 || refused.reason[0] != '\0');
    if (!message.is_lf) {
        check_envelope(record);
    }
    free(exact);
}

void fuzz_one(struct span input)
{
    struct cursor cursor = cursor_of(input);
    size_t step = 1 + fuzz_take(&cursor);
    uint64_t record_size_max = 16 + 16 * (uint64_t)fuzz_take(&cursor);
    struct span stream = fuzz_rest(&cursor);
    fuzz_split_both(SCAN_BSMTP, record_size_max, stream, step, &records);
    for (uint32_t i = 0; i < records.count; i++) {
        const struct fuzz_record *row = &records.rows[i];
        if (row->split == SCAN_SPLIT_RECORD) {
            check_record(span_of(stream.at + row->start, row->size), &row->text);
        }
    }
}
