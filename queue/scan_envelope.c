/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/scan_envelope.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "queue/scan_priv.h"

static void skip_blanks(struct cursor *cursor)
{
    while (cursor_take_byte(cursor, ' ')) {
    }
}

bool scan_command_take(struct cursor *cursor, struct span verb, struct span word)
{
    struct span name;
    struct cursor at = *cursor;
    if (!cursor_take_span(&at, verb.size, &name) || !span_equal_nocase(name, verb)) {
        return false;
    }
    skip_blanks(&at);
    if (!cursor_take_span(&at, word.size, &name) || !span_equal_nocase(name, word)) {
        return false;
    }
    skip_blanks(&at);
    *cursor = at;
    return true;
}

bool scan_command_take_path(struct cursor *cursor, struct span *ret_path)
{
    if (!cursor_take_byte(cursor, '<')) {
        return false;
    }
    const char *start = cursor->at;
    bool is_quoted = false;
    char byte;
    while (cursor_take(cursor, &byte)) {
        if (byte == '\\' && is_quoted) {
            (void)cursor_take(cursor, &byte);
        } else if (byte == '"') {
            is_quoted = !is_quoted;
        } else if (byte == '>' && !is_quoted) {
            *ret_path = span_of(start, (size_t)(cursor->at - start) - 1);
            return ret_path->size <= SCAN_PATH_MAX;
        }
    }
    return false;
}

static bool take_command(struct span line, struct span verb, struct span word,
                         struct span *ret_path)
{
    struct cursor cursor = cursor_of(line);
    return scan_command_take(&cursor, verb, word) && scan_command_take_path(&cursor, ret_path);
}

static int refuse(struct scan_problem *ret_problem, const char *words)
{
    ret_problem->is_fatal = false;
    (void)snprintf(ret_problem->text, sizeof(ret_problem->text), "%s", words);
    return -EINVAL;
}

/* MAIL, RCPTs, DATA: a line that is anything else was not there when the record was checked. */
static bool take_envelope(struct cursor *cursor, struct scan_envelope *envelope)
{
    struct span line;
    struct span path;
    if (!cursor_take_line(cursor, &line) ||
        !take_command(line, SPAN("MAIL"), SPAN("FROM:"), &envelope->sender)) {
        return false;
    }
    envelope->rcpts_count = 0;
    envelope->rcpts = span_of(cursor->at, 0);
    while (cursor_take_line(cursor, &line)) {
        if (take_command(line, SPAN("RCPT"), SPAN("TO:"), &path)) {
            envelope->rcpts_count++;
            envelope->rcpts.size = (size_t)(cursor->at - envelope->rcpts.at);
        } else {
            return span_equal_nocase(line, SPAN("DATA")) && envelope->rcpts_count > 0;
        }
    }
    return false;
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

bool scan_envelope_body_is_sound(const struct scan_envelope *envelope)
{
    const char *at = envelope->body.at;
    const char *end = at + envelope->body.size;
    if (memchr(at, '\0', envelope->body.size) != NULL) {
        return false;
    }
    while (at < end) {
        const char *cr = memchr(at, '\r', (size_t)(end - at));
        bool is_sound = cr != NULL && cr + 1 < end && cr[1] == '\n' &&
                        memchr(at, '\n', (size_t)(cr - at)) == NULL &&
                        !(cr == at + 1 && *at == '.');
        if (!is_sound) {
            return false;
        }
        at = cr + 2;
    }
    return true;
}

struct span scan_envelope_rcpt(const struct scan_envelope *envelope, uint32_t index)
{
    struct cursor cursor = cursor_of(envelope->rcpts);
    struct span line;
    struct span path;
    for (uint32_t i = 0; cursor_take_line(&cursor, &line); i++) {
        if (i == index) {
            return take_command(line, SPAN("RCPT"), SPAN("TO:"), &path) ? path : SPAN_NONE;
        }
    }
    return SPAN_NONE;
}
