/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_check: what the scan tests share: one run of a splitter over some bytes, written down as
 * text, so that runs with different windows can be compared.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#include "queue/scan.h"
#include "tests/harness.h"

enum { TOLD_MAX = 64 * 1024 };

/* One line an answer: what, line, offset, size, and the problem. */
struct told {
    size_t size;
    uint32_t answers_count;
    enum scan_split last;
    char text[TOLD_MAX];
};

static inline void tell(struct told *told, enum scan_split split, uint64_t line, size_t offset,
                        size_t size, const struct scan_problem *problem)
{
    static const char *const names[] = {"more", "record", "end", "bad", "fatal"};
    bool has_problem = split == SCAN_SPLIT_BAD || split == SCAN_SPLIT_FATAL;
    char *at = told->text + told->size;
    size_t left = sizeof(told->text) - told->size;
    int length = has_problem
                     ? snprintf(at, left, "%s line %llu+%llu at %zu size %zu: %s\n", names[split],
                                (unsigned long long)line, (unsigned long long)problem->line_offset,
                                offset, size, problem->text)
                     : snprintf(at, left, "%s line %llu at %zu size %zu\n", names[split],
                                (unsigned long long)line, offset, size);
    ensure(length > 0 && (size_t)length < left);
    told->size += (size_t)length;
    told->answers_count++;
    told->last = split;
}

/*
 * Splits `bytes`, shown in a window that first ends at `first` and then grows by `step` bytes each
 * time the splitter asks for more, up to `window_max` bytes: it may not ask for more than those.
 * Each window is memory of its own, so that a sanitizer sees every byte that is read beside it.
 */
static inline void split_in_window(struct scan_splitter *splitter, struct span bytes, size_t first,
                                   size_t step, size_t window_max, struct told *ret_told)
{
    ret_told->size = 0;
    ret_told->answers_count = 0;
    ret_told->text[0] = '\0';
    size_t at = 0;
    size_t shown = first < bytes.size ? first : bytes.size;
    for (;;) {
        char *window = malloc(shown > at ? shown - at : 1);
        ensure(window != NULL);
        if (shown > at) {
            memcpy(window, bytes.at + at, shown - at);
        }
        size_t skip = 0;
        size_t size = 0;
        uint64_t line = 0;
        struct scan_problem problem = {0};
        bool is_last = shown == bytes.size;
        enum scan_split split = scan_split_next(splitter, span_of(window, shown - at), is_last,
                                                &skip, &size, &line, &problem);
        free(window);
        ensure(skip + size <= shown - at);
        if (split == SCAN_SPLIT_MORE) {
            ensure(!is_last);
            at += skip;
            ensure(shown - at < window_max);
            shown = bytes.size - shown < step ? bytes.size : shown + step;
            shown = shown - at < window_max ? shown : at + window_max;
            continue;
        }
        bool has_place = split != SCAN_SPLIT_FATAL; /* the stream is lost, wherever it is */
        tell(ret_told, split, line, has_place ? at + skip : 0, size, &problem);
        if (split == SCAN_SPLIT_END || split == SCAN_SPLIT_FATAL) {
            return;
        }
        at += skip + size;
    }
}

static inline void split_all(struct scan_splitter *splitter, struct span bytes, size_t first,
                             size_t step, struct told *ret_told)
{
    split_in_window(splitter, bytes, first, step, SIZE_MAX, ret_told);
}

/* The same answers whatever the window: at once, byte by byte, in the least window that is promised
 * to do, and at every split point. */
static inline void check_dribble(size_t row, enum scan_format format, size_t record_size_max,
                                 struct span bytes)
{
    static struct told whole;
    static struct told parts;
    struct scan_splitter splitter;
    scan_splitter_init(&splitter, format, record_size_max);
    split_all(&splitter, bytes, bytes.size, 1, &whole);
    scan_splitter_init(&splitter, format, record_size_max);
    split_all(&splitter, bytes, 0, 1, &parts);
    CHECK_ROW(row, strcmp(whole.text, parts.text) == 0);
    scan_splitter_init(&splitter, format, record_size_max);
    split_in_window(&splitter, bytes, 0, 7, SCAN_WINDOW(record_size_max), &parts);
    CHECK_ROW(row, strcmp(whole.text, parts.text) == 0);
    for (size_t first = 0; first < bytes.size && bytes.size < 2000; first++) {
        scan_splitter_init(&splitter, format, record_size_max);
        split_all(&splitter, bytes, first, bytes.size, &parts);
        if (strcmp(whole.text, parts.text) != 0) {
            printf("row %zu split at %zu:\n%s--\n%s", row, first, whole.text, parts.text);
            CHECK_ROW(row, false);
            return;
        }
    }
}
