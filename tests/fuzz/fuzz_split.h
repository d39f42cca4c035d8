/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_split: a stream through the splitter, at once and in small windows: the records must be the
 * same, and must be the stream's bytes in their order.
 */
#pragma once

#include "queue/scan.h"
#include "tests/fuzz/fuzz.h"

enum { FUZZ_RECORDS_MAX = 4096 };

struct fuzz_record {
    enum scan_split split;
    size_t start;
    size_t size;
    uint64_t line;
    struct scan_text text; /* BSMTP */
};

struct fuzz_records {
    uint32_t count;
    struct fuzz_record rows[FUZZ_RECORDS_MAX];
};

/* `step` more bytes are shown each time the splitter asks; the window is memory of its own. */
static inline void fuzz_split(enum scan_format format, uint64_t record_size_max, struct span stream,
                              size_t step, struct fuzz_records *ret_records)
{
    struct scan_splitter splitter;
    scan_splitter_init(&splitter, format, record_size_max);
    ret_records->count = 0;
    size_t at = 0;
    size_t shown = step < stream.size ? step : stream.size;
    while (ret_records->count < FUZZ_RECORDS_MAX) {
        char *window = fuzz_copy(span_of(stream.at + at, shown - at));
        struct scan_problem problem;
        size_t skip = 0;
        size_t size = 0;
        uint64_t line = 0;
        enum scan_split split =
            scan_split_next(&splitter, span_of(window, shown - at), shown == stream.size, &skip,
                            &size, &line, &problem);
        free(window);
        at += split == SCAN_SPLIT_FATAL ? 0 : skip;
        if (split == SCAN_SPLIT_MORE) {
            ensure(shown < stream.size);
            shown = stream.size - shown < step ? stream.size : shown + step;
            continue;
        }
        ret_records->rows[ret_records->count++] =
            (struct fuzz_record){split, at, size, line, splitter.text};
        at += size;
        if (split == SCAN_SPLIT_END || split == SCAN_SPLIT_FATAL) {
            return;
        }
    }
}

static inline void fuzz_split_both(enum scan_format format, uint64_t record_size_max,
                                   struct span stream, size_t step,
                                   struct fuzz_records *ret_records)
{
    static struct fuzz_records parts;
    fuzz_split(format, record_size_max, stream, stream.size, ret_records);
    fuzz_split(format, record_size_max, stream, step, &parts);
    ensure(parts.count == ret_records->count);
    for (uint32_t i = 0; i < parts.count; i++) {
        const struct fuzz_record *one = &ret_records->rows[i];
        const struct fuzz_record *other = &parts.rows[i];
        ensure(one->split == other->split);
        ensure(one->line == other->line);
        /* Where a lost stream stands when it is seen to be lost depends on what was shown. */
        ensure(one->split == SCAN_SPLIT_FATAL ||
               (one->start == other->start && one->size == other->size));
    }
}
