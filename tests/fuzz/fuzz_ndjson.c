/* SPDX-License-Identifier: Apache-2.0 */
/* NDJSON streams: splitter, and the two readers of a record, which must agree. */
#include "engine/record_check.h"
#include "tests/fuzz/fuzz_split.h"

static struct fuzz_records records;
static struct scan_recipient fast;
static struct scan_recipient slow;

static void check_same(void)
{
    ensure(span_equal(fast.to, slow.to) && span_equal(fast.id, slow.id));
    ensure(fast.vars_count == slow.vars_count && fast.vars_count <= SCAN_VARS_MAX);
    for (uint32_t i = 0; i < fast.vars_count; i++) {
        ensure(span_equal(fast.vars[i].name, slow.vars[i].name));
        ensure(span_equal(fast.vars[i].value, slow.vars[i].value));
        ensure(fast.vars[i].name.size <= SCAN_NAME_MAX);
    }
}

static void check_record(struct scan_parser *const parsers[2], struct span bytes)
{
    struct scan_problem problems[2];
    char *exact = fuzz_copy(bytes);
    struct span record = span_of(exact, bytes.size);
    int result = scan_record_recipient(parsers[0], SCAN_NDJSON, NULL, record, &fast, &problems[0]);
    ensure(result ==
           scan_record_recipient(parsers[1], SCAN_NDJSON, NULL, record, &slow, &problems[1]));
    if (result == 0) {
        check_same();
        struct record_domain domain;
        struct record_reject refused;
        ensure(record_check_address(fast.to, &domain, &refused) == 0 || refused.reason[0] != '\0');
    } else {
        ensure(strcmp(problems[0].text, problems[1].text) == 0);
    }
    free(exact);
}

void fuzz_one(struct span input)
{
    static struct scan_parser *parsers[2];
    if (parsers[0] == NULL) {
        parsers[0] = scan_parser_create();
        parsers[1] = scan_parser_create();
        ensure(parsers[0] != NULL && parsers[1] != NULL);
        scan_parser_set_fast_path(parsers[1], false);
    }
    struct cursor cursor = cursor_of(input);
    size_t step = 1 + fuzz_take(&cursor);
    struct span stream = fuzz_rest(&cursor);
    fuzz_split_both(SCAN_NDJSON, SCAN_LINE_MAX, stream, step, &records);
    for (uint32_t i = 0; i < records.count; i++) {
        const struct fuzz_record *row = &records.rows[i];
        if (row->split == SCAN_SPLIT_RECORD) {
            check_record(parsers, span_of(stream.at + row->start, row->size));
        }
    }
}
