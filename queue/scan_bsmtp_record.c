/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of one BSMTP record, as scan_bsmtp.c has cut it off: envelope and text, and what is
 * wrong with which line.
 */
#include <errno.h>

#include "engine/base/vector.h"
#include "queue/scan_priv.h"
#include "queue/scan_text.h"

/* One line of the record in the message's form, without its end. */
struct bsmtp_reader {
    struct cursor cursor;
    bool is_lf;
    bool is_8bit;         /* the last line */
    uint64_t lines_count; /* taken */
};

static int bsmtp_problem(struct bsmtp_reader *reader, struct scan_problem *ret_problem,
                         const char *words)
{
    scan_problem_set(ret_problem, "%s", words);
    ret_problem->line_offset = reader->lines_count > 0 ? reader->lines_count - 1 : 0;
    return -EINVAL;
}

/* One pass over a line for all three questions: a large message is read at the speed of memory. */
struct line_traits {
    bool has_cr;
    bool has_nul;
    bool is_8bit;
};

struct line_marks {
    vector crs;
    vector nuls;
    vector bits;
};

static inline void line_mark(struct line_marks *marks, vector bytes)
{
    marks->crs |= bytes == vector_of('\r');
    marks->nuls |= bytes == vector_of('\0');
    marks->bits |= bytes;
}

static struct line_traits line_traits_of(struct span line)
{
    struct line_marks marks = {.crs = {0}};
    size_t at = 0;
    for (; at + VECTOR_SIZE <= line.size; at += VECTOR_SIZE) {
        line_mark(&marks, vector_at(line.at + at));
    }
    vector bytes;
    memset(&bytes, ' ', sizeof(bytes));
    memcpy(&bytes, line.at + at, line.size - at);
    line_mark(&marks, bytes);
    return (struct line_traits){.has_cr = vector_any(marks.crs),
                                .has_nul = vector_any(marks.nuls),
                                .is_8bit = vector_any_8bit(marks.bits)};
}

static int bsmtp_take_line(struct bsmtp_reader *reader, struct span *ret_line,
                           struct scan_problem *ret_problem)
{
    struct span line = cursor_take_until(&reader->cursor, '\n');
    reader->lines_count++;
    if (!cursor_take_byte(&reader->cursor, '\n')) {
        return bsmtp_problem(reader, ret_problem, "the line has no end");
    }
    bool is_lf = line.size == 0 || line.at[line.size - 1] != '\r';
    if (is_lf != reader->is_lf) {
        return bsmtp_problem(reader, ret_problem,
                             is_lf ? "ends in LF, where the message began with CRLF"
                                   : "ends in CRLF, where the message began with LF");
    }
    line.size -= !is_lf;
    struct line_traits traits = line_traits_of(line);
    if (traits.has_cr) {
        return bsmtp_problem(reader, ret_problem, "a carriage return inside the line");
    }
    if (traits.has_nul) {
        return bsmtp_problem(reader, ret_problem, "a NUL byte");
    }
    reader->is_8bit = traits.is_8bit;
    *ret_line = line;
    return 0;
}

/* SIZE=n and BODY=7BIT or 8BITMIME change nothing: both are found out from the text itself. */
static bool bsmtp_parameter_is_known(struct span parameter)
{
    if (span_starts_nocase(parameter, SPAN("SIZE="))) {
        struct cursor cursor = cursor_of(span_of(parameter.at + 5, parameter.size - 5));
        uint64_t size;
        return cursor_take_uint(&cursor, UINT64_MAX, &size) && cursor_left(&cursor) == 0;
    }
    return span_equal_nocase(parameter, SPAN("BODY=7BIT")) ||
           span_equal_nocase(parameter, SPAN("BODY=8BITMIME"));
}

static int bsmtp_take_parameters(struct bsmtp_reader *reader, struct cursor *cursor,
                                 struct scan_problem *ret_problem)
{
    while (cursor_left(cursor) > 0) {
        if (!cursor_take_byte(cursor, ' ')) {
            return bsmtp_problem(reader, ret_problem, "no blank between > and what follows");
        }
        struct span parameter = cursor_take_until(cursor, ' ');
        if (parameter.size > 0 && !bsmtp_parameter_is_known(parameter)) {
            (void)bsmtp_problem(reader, ret_problem, "");
            uint64_t line_offset = ret_problem->line_offset;
            scan_problem_set(ret_problem, "the parameter \"%s\" is not known here: remove it",
                             scan_show(parameter).text);
            ret_problem->line_offset = line_offset;
            return -EINVAL;
        }
    }
    return 0;
}

/* `line` is "MAIL .." or "RCPT ..": what stands between < and >. */
static int bsmtp_take_command(struct bsmtp_reader *reader, struct span line, struct span verb,
                              struct span word, struct span *ret_path,
                              struct scan_problem *ret_problem)
{
    struct cursor cursor = cursor_of(line);
    if (!scan_command_take(&cursor, verb, word)) {
        return bsmtp_problem(reader, ret_problem,
                             "write MAIL FROM:<ann@example.org> and RCPT TO:<bob@example.org>");
    }
    if (!scan_command_take_path(&cursor, ret_path)) {
        return bsmtp_problem(reader, ret_problem,
                             "no address between < and >, or one that is too long");
    }
    return bsmtp_take_parameters(reader, &cursor, ret_problem);
}

static int bsmtp_take_rcpt(struct bsmtp_reader *reader, struct span line,
                           struct scan_message *message, struct scan_problem *ret_problem)
{
    if (message->rcpts_count == SCAN_RCPTS_MAX) {
        return bsmtp_problem(reader, ret_problem, "more than 1000 RCPT: repeat the message");
    }
    struct span path;
    int result = bsmtp_take_command(reader, line, SPAN("RCPT"), SPAN("TO:"), &path, ret_problem);
    if (result != 0) {
        return result;
    }
    if (path.size == 0) {
        return bsmtp_problem(reader, ret_problem, "<> is no recipient");
    }
    message->rcpts[message->rcpts_count++] = path;
    return 0;
}

/* MAIL, RCPTs, DATA. */
static int bsmtp_take_envelope(struct bsmtp_reader *reader, struct scan_message *message,
                               struct scan_problem *ret_problem)
{
    struct span line;
    int result = bsmtp_take_line(reader, &line, ret_problem);
    if (result != 0) {
        return result;
    }
    if (scan_bsmtp_verb(line) != VERB_MAIL) {
        return bsmtp_problem(reader, ret_problem, "out of order: MAIL must come first");
    }
    result = bsmtp_take_command(reader, line, SPAN("MAIL"), SPAN("FROM:"), &message->sender,
                                ret_problem);
    message->rcpts_count = 0;
    while (result == 0) {
        result = bsmtp_take_line(reader, &line, ret_problem);
        enum bsmtp_verb verb = result == 0 ? scan_bsmtp_verb(line) : VERB_UNKNOWN;
        if (result == 0 && verb == VERB_DATA) {
            break;
        }
        if (result == 0 && verb != VERB_RCPT) {
            return bsmtp_problem(reader, ret_problem,
                                 "out of order: only RCPT may stand between MAIL and DATA");
        }
        if (result == 0) {
            result = bsmtp_take_rcpt(reader, line, message, ret_problem);
        }
    }
    if (result == 0 && line.size != 4) {
        return bsmtp_problem(reader, ret_problem, "DATA takes nothing behind it");
    }
    if (result == 0 && message->rcpts_count == 0) {
        return bsmtp_problem(reader, ret_problem, "no RCPT: nobody would get the message");
    }
    return result;
}

/* True: all that is left is the text that was measured, and a good one; taken as
 * bsmtp_take_text_lines would have done. False: nothing is taken. */
static bool bsmtp_take_text_whole(struct bsmtp_reader *reader, const struct scan_text *measured,
                                  struct scan_message *message)
{
    struct cursor cursor = reader->cursor;
    struct span text;
    ensure(cursor_take_span(&cursor, cursor_left(&cursor), &text));
    if (!scan_text_is_whole(measured, text)) {
        return false;
    }
    message->body = span_of(text.at, text.size - SCAN_TEXT_END_SIZE);
    message->is_8bit = measured->is_8bit;
    message->size = message->body.size - measured->dots_count;
    reader->cursor = cursor;
    reader->is_8bit = false; /* the lone dot */
    reader->lines_count += measured->lines_count + 1;
    return true;
}

/* Finds what is wrong with a text, and in which line. */
__attribute__((noinline)) static int bsmtp_take_text_lines(struct bsmtp_reader *reader,
                                                           struct scan_message *message,
                                                           struct scan_problem *ret_problem)
{
    const char *start = reader->cursor.at;
    message->size = 0;
    bool is_8bit = false;
    for (;;) {
        const char *line_start = reader->cursor.at;
        struct span line;
        int result = bsmtp_take_line(reader, &line, ret_problem);
        if (result != 0) {
            return result;
        }
        bool has_dot = line.size > 0 && line.at[0] == '.';
        if (has_dot && line.size == 1) {
            message->body = span_of(start, (size_t)(line_start - start));
            message->is_8bit = is_8bit;
            return 0;
        }
        if (has_dot && line.at[1] != '.') {
            return bsmtp_problem(reader, ret_problem,
                                 "begins with one dot: double dots at the start of a line");
        }
        if (line.size - has_dot > SCAN_TEXT_LINE_MAX) {
            return bsmtp_problem(reader, ret_problem,
                                 "longer than 998 bytes: use quoted-printable or base64");
        }
        is_8bit = is_8bit || reader->is_8bit;
        message->size += line.size - has_dot + 2;
    }
}

int scan_record_message(struct span record, const struct scan_text *measured,
                        struct scan_message *ret_message, struct scan_problem *ret_problem)
{
    size_t first_end = span_find(record, '\n');
    struct bsmtp_reader reader = {.cursor = cursor_of(record)};
    if (first_end == record.size) {
        return bsmtp_problem(&reader, ret_problem, "the line has no end");
    }
    reader.is_lf = first_end == 0 || record.at[first_end - 1] != '\r';
    int result = bsmtp_take_envelope(&reader, ret_message, ret_problem);
    if (result != 0) {
        return result;
    }
    ret_message->is_lf = reader.is_lf;
    if (measured == NULL || reader.is_lf ||
        !bsmtp_take_text_whole(&reader, measured, ret_message)) {
        result = bsmtp_take_text_lines(&reader, ret_message, ret_problem);
    }
    if (result == 0 && cursor_left(&reader.cursor) > 0) {
        reader.lines_count++;
        result = bsmtp_problem(&reader, ret_problem, "text behind the lone dot");
    }
    return result;
}
