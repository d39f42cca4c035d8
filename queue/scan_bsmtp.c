/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BSMTP (RFC 2442): the client's side of SMTP sessions, as a file.
 *
 *   stream  = *(skipped / message)         skipped = HELO / EHLO / RSET / NOOP / QUIT / blank line
 *   message = "MAIL FROM:<" path ">" params eol 1*("RCPT TO:<" path ">" params eol)
 *             "DATA" eol *(text-line eol) "." eol
 *   eol     = CRLF throughout the message, or LF throughout (the file's form)
 *
 * Where a message ends decides who gets what, so nothing is guessed: a message ends at a lone dot
 * whose own line end and the one before it are of the message's form, and a line that is no command
 * where a command must stand is fatal to the stream. A generator that forgot to double a dot, or
 * smuggles "LF . LF" into a CRLF text, thus cannot make commands of text (conformance.md 4).
 */
#include "queue/scan_priv.h"
#include "queue/scan_text.h"

/*
 * The splitter's phase, from line to line:
 *
 *              MAIL (RCPT: bad)               DATA              lone dot: record
 *   BETWEEN -------------------> ENVELOPE -----------> TEXT -------------------> BETWEEN
 *      |      DATA: bad             | MAIL, HELO, EHLO, RSET, QUIT, lone dot: the record is bad,
 *      +-----------------> TEXT     v                                   BETWEEN
 */
enum bsmtp_phase { BSMTP_BETWEEN, BSMTP_ENVELOPE, BSMTP_TEXT };

enum bsmtp_step { STEP_SKIP, STEP_INSIDE, STEP_ENDS, STEP_ENDS_BEFORE, STEP_LOST };

/* A fragment of up to so many bytes may still become a lone dot with its line end. */
enum { DOT_LINE_MAX = 3 };

static const struct {
    struct span name;
    enum bsmtp_verb verb;
} VERBS[] = {
    {{"MAIL", 4}, VERB_MAIL},  {{"RCPT", 4}, VERB_RCPT},  {{"DATA", 4}, VERB_DATA},
    {{"NOOP", 4}, VERB_NOOP},  {{"RSET", 4}, VERB_RESET}, {{"HELO", 4}, VERB_RESET},
    {{"EHLO", 4}, VERB_RESET}, {{"QUIT", 4}, VERB_RESET},
};

static const char BSMTP_LOST_WORDS[] = "not an SMTP command: is a dot at the start of a line in "
                                       "the text above not doubled, or DATA missing?";
static const char BSMTP_ENDLESS_WORDS[] = "a command line without end: is this a BSMTP file?";

enum bsmtp_verb scan_bsmtp_verb(struct span line)
{
    if (scan_line_is_blank(line)) {
        return VERB_BLANK;
    }
    if (span_equal(line, SPAN("."))) {
        return VERB_DOT;
    }
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        size_t size = VERBS[i].name.size;
        if (span_starts_nocase(line, VERBS[i].name) &&
            (line.size == size || line.at[size] == ' ' || line.at[size] == '\t')) {
            return VERBS[i].verb;
        }
    }
    return VERB_UNKNOWN;
}

static bool bsmtp_line_is_lf(struct span line)
{
    ensure(line.size > 0 && line.at[line.size - 1] == '\n');
    return line.size < 2 || line.at[line.size - 2] != '\r';
}

static void bsmtp_begin_text(struct scan_splitter *splitter)
{
    splitter->phase = BSMTP_TEXT;
    splitter->text = (struct scan_text){.size = 0};
}

static enum bsmtp_step bsmtp_between(struct scan_splitter *splitter, struct span line)
{
    switch (scan_bsmtp_verb(scan_line_chop(line))) {
    case VERB_NOOP:
    case VERB_RESET:
    case VERB_BLANK:
        return STEP_SKIP;
    case VERB_MAIL:
    case VERB_RCPT:
        splitter->is_lf = bsmtp_line_is_lf(line);
        splitter->phase = BSMTP_ENVELOPE;
        return STEP_INSIDE;
    case VERB_DATA:
        splitter->is_lf = bsmtp_line_is_lf(line);
        splitter->is_edge = true;
        bsmtp_begin_text(splitter);
        return STEP_INSIDE;
    case VERB_DOT:
    case VERB_UNKNOWN:
        return STEP_LOST;
    }
    ensure(false);
    return STEP_LOST;
}

static enum bsmtp_step bsmtp_envelope(struct scan_splitter *splitter, struct span line)
{
    switch (scan_bsmtp_verb(scan_line_chop(line))) {
    case VERB_RCPT:
    case VERB_NOOP:
    case VERB_BLANK:
        return STEP_INSIDE;
    case VERB_DATA:
        splitter->is_edge = splitter->is_lf == bsmtp_line_is_lf(line);
        bsmtp_begin_text(splitter);
        return STEP_INSIDE;
    case VERB_MAIL:
    case VERB_RESET:
        return STEP_ENDS_BEFORE;
    case VERB_DOT:
        return STEP_ENDS;
    case VERB_UNKNOWN:
        return STEP_LOST;
    }
    ensure(false);
    return STEP_LOST;
}

static enum bsmtp_step bsmtp_text(struct scan_splitter *splitter, struct span line)
{
    bool was_edge = splitter->is_edge;
    bool is_whole = !splitter->is_mid_line;
    splitter->is_edge = splitter->is_lf == bsmtp_line_is_lf(line);
    splitter->is_mid_line = false;
    bool is_dot =
        is_whole && was_edge && splitter->is_edge && span_equal(scan_line_chop(line), SPAN("."));
    return is_dot ? STEP_ENDS : STEP_INSIDE;
}

static enum bsmtp_step bsmtp_step(struct scan_splitter *splitter, struct span line)
{
    switch ((enum bsmtp_phase)splitter->phase) {
    case BSMTP_BETWEEN:
        return bsmtp_between(splitter, line);
    case BSMTP_ENVELOPE:
        return bsmtp_envelope(splitter, line);
    case BSMTP_TEXT:
        return bsmtp_text(splitter, line);
    }
    ensure(false);
    return STEP_LOST;
}

/* The record is over; `lines` more line ends belong to it than those counted. */
static void bsmtp_forget_record(struct scan_splitter *splitter, uint64_t lines)
{
    splitter->line += splitter->lines_inside + lines;
    splitter->lines_inside = 0;
    splitter->scanned = 0;
    splitter->line_start = 0;
    splitter->phase = BSMTP_BETWEEN;
    splitter->is_too_long = false;
    splitter->is_mid_line = false;
}

static enum scan_split bsmtp_fatal(struct scan_splitter *splitter, const char *words,
                                   size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                   struct scan_problem *ret_problem)
{
    scan_problem_set(ret_problem, "%s", words);
    ret_problem->is_fatal = true;
    ret_problem->line_offset = splitter->lines_inside;
    *ret_skip = 0;
    *ret_size = 0;
    *ret_line = splitter->line;
    return SCAN_SPLIT_FATAL;
}

/* The next whole line; false when its end is not there. */
static bool bsmtp_line(struct scan_splitter *splitter, struct span bytes, size_t start,
                       struct span *ret_line)
{
    size_t from = start + (size_t)splitter->scanned;
    ensure(from <= bytes.size);
    size_t end = from + span_find(span_of(bytes.at + from, bytes.size - from), '\n');
    if (end == bytes.size) {
        return false;
    }
    size_t line_start = start + (size_t)splitter->line_start;
    *ret_line = span_of(bytes.at + line_start, end + 1 - line_start);
    return true;
}

/* Text lines that need no closer look, many at once. A line that was looked at in part is left to
 * bsmtp_line; so is one that makes the record too long. */
static void bsmtp_take_lines(struct scan_splitter *splitter, struct span bytes, size_t start)
{
    if (splitter->phase != BSMTP_TEXT || splitter->is_too_long ||
        splitter->scanned != splitter->line_start) {
        return;
    }
    ensure(splitter->scanned <= splitter->record_size_max);
    size_t at = start + (size_t)splitter->scanned;
    size_t room = (size_t)(splitter->record_size_max - splitter->scanned);
    size_t size = bytes.size - at < room ? bytes.size - at : room;
    uint64_t lines_count = splitter->text.lines_count;
    size_t taken = scan_text_take(&splitter->text, span_of(bytes.at + at, size));
    if (taken > 0) {
        size_t last = taken < 2 ? 0 : taken - 2;
        splitter->is_edge =
            splitter->is_lf == bsmtp_line_is_lf(span_of(bytes.at + at + last, taken - last));
        splitter->lines_inside += splitter->text.lines_count - lines_count;
        splitter->scanned += taken;
        splitter->line_start = splitter->scanned;
    }
}

/* No line end is left in the bytes. Of a record that is being skipped all goes but what may become
 * a lone dot, and the last byte, which may be the CR of a line end. */
static enum scan_split bsmtp_more(struct scan_splitter *splitter, struct span bytes, size_t start,
                                  bool is_last, size_t *ret_skip, size_t *ret_size,
                                  uint64_t *ret_line, struct scan_problem *ret_problem)
{
    struct span rest = span_of(bytes.at + start, bytes.size - start);
    bool is_between = splitter->phase == BSMTP_BETWEEN;
    if (is_last && is_between) {
        enum bsmtp_verb verb = scan_bsmtp_verb(rest);
        if (verb == VERB_BLANK || verb == VERB_RESET || verb == VERB_NOOP) {
            *ret_skip = bytes.size;
            return SCAN_SPLIT_END;
        }
    }
    if (is_last) {
        return bsmtp_fatal(splitter,
                           is_between ? "the last line has no end: the file is cut off"
                                      : "the file is cut off: the last message does not "
                                        "end in a line with one dot",
                           ret_skip, ret_size, ret_line, ret_problem);
    }
    if (splitter->phase != BSMTP_TEXT && rest.size > splitter->record_size_max) {
        return bsmtp_fatal(splitter, BSMTP_ENDLESS_WORDS, ret_skip, ret_size, ret_line,
                           ret_problem);
    }
    *ret_skip = start;
    /* A short piece of a line is looked at again, together with its end. */
    bool is_short = rest.size - splitter->line_start <= SCAN_TEXT_LINE_MAX;
    splitter->scanned = is_short ? splitter->line_start : rest.size;
    if (splitter->is_too_long && splitter->phase == BSMTP_TEXT &&
        (splitter->is_mid_line || rest.size > DOT_LINE_MAX)) {
        splitter->is_mid_line = true;
        splitter->scanned = rest.size > 0;
        *ret_skip = bytes.size - (size_t)splitter->scanned;
    }
    return SCAN_SPLIT_MORE;
}

/* The record is longer than it may be; `end` is behind what was seen of it. It is cut at a line's
 * start, so that its lone dot is found whole. */
static enum scan_split bsmtp_too_long(struct scan_splitter *splitter, size_t start,
                                      size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                      struct scan_problem *ret_problem)
{
    if (splitter->line_start == 0) {
        return bsmtp_fatal(splitter, BSMTP_ENDLESS_WORDS, ret_skip, ret_size, ret_line,
                           ret_problem);
    }
    size_t size = (size_t)splitter->line_start;
    splitter->line_start = 0;
    enum scan_split split =
        scan_split_too_long(splitter, start, ret_skip, ret_size, ret_line, ret_problem);
    *ret_size = size;
    return split;
}

/* The record ends with (or before) the line under way. */
static enum scan_split bsmtp_emit(struct scan_splitter *splitter, size_t size, bool is_before,
                                  size_t *ret_size, uint64_t *ret_line,
                                  struct scan_problem *ret_problem)
{
    bool is_whole = splitter->phase == BSMTP_TEXT;
    *ret_size = size;
    *ret_line = splitter->line;
    if (!is_whole) {
        scan_problem_set(ret_problem, "a message without DATA");
        ret_problem->line_offset = splitter->lines_inside;
    }
    bsmtp_forget_record(splitter, !is_before);
    return is_whole ? SCAN_SPLIT_RECORD : SCAN_SPLIT_BAD;
}

enum scan_split scan_bsmtp_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                 size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                 struct scan_problem *ret_problem)
{
    size_t start = 0;
    for (;;) {
        struct span line;
        bsmtp_take_lines(splitter, bytes, start);
        bool has_line = bsmtp_line(splitter, bytes, start, &line);
        size_t end = has_line ? (size_t)(line.at - bytes.at) + line.size : bytes.size;
        if (!splitter->is_too_long && end - start > splitter->record_size_max) {
            return bsmtp_too_long(splitter, start, ret_skip, ret_size, ret_line, ret_problem);
        }
        if (!has_line) {
            return bsmtp_more(splitter, bytes, start, is_last, ret_skip, ret_size, ret_line,
                              ret_problem);
        }
        if (splitter->phase != BSMTP_TEXT && line.size > splitter->record_size_max) {
            return bsmtp_fatal(splitter, BSMTP_ENDLESS_WORDS, ret_skip, ret_size, ret_line,
                               ret_problem);
        }
        enum bsmtp_step step = bsmtp_step(splitter, line);
        bool is_over = step == STEP_ENDS || step == STEP_ENDS_BEFORE;
        if (step == STEP_LOST) {
            return bsmtp_fatal(splitter, BSMTP_LOST_WORDS, ret_skip, ret_size, ret_line,
                               ret_problem);
        }
        if (step == STEP_ENDS_BEFORE) {
            end = (size_t)(line.at - bytes.at);
        }
        if (is_over && !splitter->is_too_long) {
            *ret_skip = start;
            return bsmtp_emit(splitter, end - start, step == STEP_ENDS_BEFORE, ret_size, ret_line,
                              ret_problem);
        }
        if (is_over || step == STEP_SKIP) {
            bsmtp_forget_record(splitter, step != STEP_ENDS_BEFORE);
            start = end;
            continue;
        }
        splitter->lines_inside++;
        start = splitter->is_too_long ? end : start;
        splitter->scanned = end - start;
        splitter->line_start = splitter->scanned;
    }
}
