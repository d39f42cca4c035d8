/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan_envelope.h"

#include <errno.h>
#include <stdio.h>

/* What stands between the angle brackets of a command's line. */
static bool path_of(struct span line, struct span *ret_path)
{
    size_t open = span_find(line, '<');
    const char *close = memrchr(line.at, '>', line.size);
    if (open == line.size || close == NULL || close < line.at + open) {
        return false;
    }
    /* Parameters may follow the path, and may not hold brackets; a quoted local part may. */
    *ret_path = span_of(line.at + open + 1, (size_t)(close - line.at) - open - 1);
    return true;
}

static int refuse(struct scan_problem *ret_problem, const char *words)
{
    ret_problem->is_fatal = false;
    (void)snprintf(ret_problem->text, sizeof(ret_problem->text), "%s", words);
    return -EINVAL;
}

static bool take_envelope(struct cursor *cursor, struct scan_envelope *envelope)
{
    struct span line;
    bool has_sender = false;
    envelope->rcpts_count = 0;
    envelope->rcpts = span_of(cursor->at, 0);
    for (;;) {
        const char *start = cursor->at;
        if (!cursor_take_line(cursor, &line)) {
            return false;
        }
        if (span_starts_nocase(line, SPAN("MAIL FROM:"))) {
            has_sender = path_of(line, &envelope->sender);
            envelope->rcpts = span_of(cursor->at, 0);
        } else if (span_starts_nocase(line, SPAN("RCPT TO:"))) {
            envelope->rcpts_count++;
            envelope->rcpts.size = (size_t)(cursor->at - envelope->rcpts.at);
        } else if (span_equal_nocase(span_trim(line), SPAN("DATA"))) {
            return has_sender && envelope->rcpts_count > 0;
        } else if (start == cursor->at) {
            return false;
        }
    }
}

int scan_record_envelope(struct span record, struct scan_envelope *ret_envelope,
                         struct scan_problem *ret_problem)
{
    struct scan_envelope envelope = {.sender = SPAN_NONE};
    struct cursor cursor = cursor_of(record);
    if (!take_envelope(&cursor, &envelope)) {
        return refuse(ret_problem, "no MAIL, RCPT and DATA where they were: the file has changed");
    }
    struct span text = span_of(cursor.at, cursor_left(&cursor));
    struct span end = SPAN(".\r\n");
    if (text.size < end.size ||
        !span_equal(span_of(text.at + text.size - end.size, end.size), end)) {
        return refuse(ret_problem, "no lone dot at the end: the file has changed");
    }
    envelope.body = span_of(text.at, text.size - end.size);
    *ret_envelope = envelope;
    return 0;
}

struct span scan_envelope_rcpt(const struct scan_envelope *envelope, uint32_t index)
{
    struct cursor cursor = cursor_of(envelope->rcpts);
    struct span line;
    struct span path;
    for (uint32_t i = 0; cursor_take_line(&cursor, &line);) {
        if (!span_starts_nocase(line, SPAN("RCPT TO:"))) {
            continue;
        }
        if (i++ == index) {
            return path_of(line, &path) ? path : SPAN_NONE;
        }
    }
    return SPAN_NONE;
}
