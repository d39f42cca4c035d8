/* SPDX-License-Identifier: Apache-2.0 */
/* CSV streams: splitter, header, records. */
#include "tests/fuzz/fuzz_split.h"

static struct fuzz_records records;
static struct scan_recipient recipient;

static void check_record(struct scan_parser *parser, const struct scan_columns *columns,
                         struct span bytes)
{
    struct scan_problem problem;
    char *exact = fuzz_copy(bytes);
    if (scan_record_recipient(parser, SCAN_CSV, columns, span_of(exact, bytes.size), &recipient,
                              &problem) == 0) {
        ensure(recipient.vars_count <= SCAN_VARS_MAX);
        for (uint32_t i = 0; i < recipient.vars_count; i++) {
            ensure(recipient.vars[i].name.size <= SCAN_NAME_MAX);
            ensure(recipient.vars[i].value.size <= bytes.size);
        }
    }
    free(exact);
}

void fuzz_one(struct span input)
{
    static struct scan_parser *parser;
    if (parser == NULL) {
        parser = scan_parser_create();
        ensure(parser != NULL);
    }
    struct cursor cursor = cursor_of(input);
    size_t step = 1 + fuzz_take(&cursor);
    struct span stream = fuzz_rest(&cursor);
    struct scan_columns *columns = NULL;
    fuzz_split_both(SCAN_CSV, SCAN_LINE_MAX, stream, step, &records);
    for (uint32_t i = 0; i < records.count; i++) {
        struct span record = span_of(stream.at + records.rows[i].start, records.rows[i].size);
        struct scan_problem problem;
        if (records.rows[i].split != SCAN_SPLIT_RECORD) {
            continue;
        }
        if (columns != NULL) {
            check_record(parser, columns, record);
            continue;
        }
        columns = scan_columns_create(record, &problem);
        if (columns == NULL) {
            break;
        }
    }
    scan_columns_destroy(columns);
}
