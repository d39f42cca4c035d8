/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool_pickup_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "queue/mailbox_list.h"
#include "queue/scan_priv.h"
#include "queue/spool_priv.h"

enum { TEXT_LINE_MAX = 998, NAME_BYTE_MIN = 33, NAME_BYTE_MAX = 126 };

/* Where the sender comes from, the best first (conventions.md 1.2). */
enum sender_source { FROM_X_SENDER, FROM_RETURN_PATH, FROM_SENDER, FROM_FROM };
enum { SENDER_SOURCES_COUNT = FROM_FROM + 1 };

struct mail {
    struct span content;
    struct span text; /* from the blank line behind the header on */
    struct span senders[SENDER_SOURCES_COUNT];
    bool has_sender[SENDER_SOURCES_COUNT];
    bool has_x_receiver;
    struct writer addresses; /* their bytes */
    struct span sender;
    uint32_t rcpts_count;
    struct span rcpts[PICKUP_RCPTS_MAX];
};

struct field {
    struct span name;
    struct span body; /* with its folds */
    struct span whole;
};

enum field_take { FIELD_TAKEN, FIELD_NONE, FIELD_BAD };

static struct span take_raw_line(struct cursor *cursor)
{
    const char *start = cursor->at;
    (void)cursor_take_until(cursor, '\n');
    (void)cursor_take_byte(cursor, '\n');
    return span_of(start, (size_t)(cursor->at - start));
}

/* Folded lines belong to the field they follow (RFC 5322 2.2.3). */
static enum field_take take_field(struct cursor *cursor, struct field *ret_field)
{
    const char *start = cursor->at;
    struct cursor behind = *cursor;
    struct span line = scan_line_chop(take_raw_line(&behind));
    if (line.size == 0) {
        return FIELD_NONE;
    }
    size_t colon = span_find(line, ':');
    struct span name = span_trim(span_of(line.at, colon));
    bool is_good = colon < line.size && name.size > 0 && name.at == line.at;
    for (size_t i = 0; i < name.size; i++) {
        unsigned char byte = (unsigned char)name.at[i];
        is_good &= byte >= NAME_BYTE_MIN && byte <= NAME_BYTE_MAX;
    }
    if (!is_good) {
        return FIELD_BAD;
    }
    while (cursor_peek(&behind) == ' ' || cursor_peek(&behind) == '\t') {
        (void)take_raw_line(&behind);
    }
    *cursor = behind;
    ret_field->name = name;
    ret_field->whole = span_of(start, (size_t)(behind.at - start));
    ret_field->body = span_of(line.at + colon + 1, ret_field->whole.size - colon - 1);
    return FIELD_TAKEN;
}

static bool field_is(const struct field *field, const char *name)
{
    return span_equal_nocase(field->name, span_of_text(name));
}

static bool field_is_for_us(const struct field *field)
{
    return field_is(field, "x-sender") || field_is(field, "x-receiver") || field_is(field, "bcc") ||
           field_is(field, "resent-bcc") || field_is(field, "return-path");
}

/* The form that all lines must have, and what no line may hold (conformance.md 4). */
static int check_lines(struct span content, struct spool_problem *ret_problem)
{
    struct cursor cursor = cursor_of(content);
    size_t first = span_find(content, '\n');
    bool is_lf = first == 0 || first == content.size || content.at[first - 1] != '\r';
    const char *words = NULL;
    uint64_t line_number = 0;
    while (cursor_left(&cursor) > 0 && words == NULL) {
        struct span raw = take_raw_line(&cursor);
        struct span line = scan_line_chop(raw);
        size_t end_size = raw.size - line.size;
        line_number++;
        if (end_size > 0 && end_size != (is_lf ? 1 : 2)) {
            words = "line ends are mixed: write CRLF everywhere";
        } else if (span_find(line, '\r') < line.size) {
            words = "a carriage return inside the line";
        } else if (span_find(line, '\0') < line.size) {
            words = "a NUL byte";
        } else if (line.size > TEXT_LINE_MAX) {
            words = "longer than 998 bytes: use quoted-printable or base64";
        }
    }
    if (words != NULL) {
        spool_problem_set(ret_problem, "line %llu: %s", (unsigned long long)line_number, words);
        return -EINVAL;
    }
    return 0;
}

static bool has_rcpt(const struct mail *mail, struct span address)
{
    for (uint32_t i = 0; i < mail->rcpts_count; i++) {
        if (span_equal(mail->rcpts[i], address)) {
            return true;
        }
    }
    return false;
}

/* One address of a field. The arena is as large as the file and each byte of it is read once as an
 * address (x-sender apart), so it suffices. */
static enum mailbox_take take_address(struct mail *mail, struct cursor *cursor,
                                      struct span *ret_address)
{
    char text[SCAN_PATH_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    enum mailbox_take take = mailbox_list_take(cursor, &writer);
    if (take == MAILBOX_TAKEN) {
        const char *start = mail->addresses.at;
        writer_put(&mail->addresses, writer_span(&writer));
        ensure(!mail->addresses.is_full);
        *ret_address = span_of(start, writer_size(&writer));
    }
    return take;
}

static int add_rcpts(struct mail *mail, const struct field *field,
                     struct spool_problem *ret_problem)
{
    struct cursor cursor = cursor_of(field->body);
    for (;;) {
        struct span address;
        enum mailbox_take take = take_address(mail, &cursor, &address);
        if (take == MAILBOX_NONE) {
            return 0;
        }
        if (take == MAILBOX_BAD || address.size == 0) {
            spool_problem_set(ret_problem, "%.*s: not a list of addresses",
                              (int)(field->name.size < 32 ? field->name.size : 32), field->name.at);
            return -EINVAL;
        }
        if (has_rcpt(mail, address)) {
            continue;
        }
        if (mail->rcpts_count == PICKUP_RCPTS_MAX) {
            spool_problem_set(ret_problem, "more than %d recipients: submit a batch instead",
                              PICKUP_RCPTS_MAX);
            return -EINVAL;
        }
        mail->rcpts[mail->rcpts_count++] = address;
    }
}

static int keep_sender(struct mail *mail, const struct field *field,
                       struct spool_problem *ret_problem)
{
    static const char *const names[] = {"x-sender", "return-path", "sender", "from"};
    _Static_assert(COUNT_OF(names) == SENDER_SOURCES_COUNT, "a field for every source");
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (!field_is(field, names[i])) {
            continue;
        }
        if (mail->has_sender[i] && i != FROM_RETURN_PATH) {
            spool_problem_set(ret_problem, "two %s fields: leave one", names[i]);
            return -EINVAL;
        }
        if (!mail->has_sender[i]) {
            mail->has_sender[i] = true;
            mail->senders[i] = field->body;
        }
    }
    return 0;
}

/* The sender fields in a first round over the header, recipients in a second: whether To counts is
 * known when all x-receiver lines are. */
static int read_header(struct mail *mail, struct spool_problem *ret_problem)
{
    struct cursor cursor = cursor_of(mail->content);
    struct field field;
    enum field_take take;
    int result = 0;
    while ((take = take_field(&cursor, &field)) == FIELD_TAKEN && result == 0) {
        mail->has_x_receiver |= field_is(&field, "x-receiver");
        result = keep_sender(mail, &field, ret_problem);
    }
    mail->text = span_of(cursor.at, cursor_left(&cursor));
    size_t header_size = mail->content.size - mail->text.size;
    if (result == 0 && take == FIELD_BAD) {
        spool_problem_set(ret_problem,
                          "%s: not a header field, and no blank line before it: is it a mail?",
                          scan_show(span_of(cursor.at, span_find(mail->text, '\n'))).text);
        return -EINVAL;
    }
    if (result == 0 && header_size > PICKUP_HEADER_MAX) {
        spool_problem_set(ret_problem, "a header of more than %d bytes", PICKUP_HEADER_MAX);
        return -EINVAL;
    }
    cursor = cursor_of(span_of(mail->content.at, header_size));
    while (result == 0 && take_field(&cursor, &field) == FIELD_TAKEN) {
        bool is_list = field_is(&field, "to") || field_is(&field, "cc") || field_is(&field, "bcc");
        if (mail->has_x_receiver ? field_is(&field, "x-receiver") : is_list) {
            result = add_rcpts(mail, &field, ret_problem);
        }
    }
    return result;
}

static int choose_sender(struct mail *mail, struct spool_problem *ret_problem)
{
    for (size_t i = 0; i < SENDER_SOURCES_COUNT; i++) {
        if (!mail->has_sender[i]) {
            continue;
        }
        struct cursor cursor = cursor_of(mail->senders[i]);
        enum mailbox_take take = take_address(mail, &cursor, &mail->sender);
        bool may_be_null = i == FROM_X_SENDER || i == FROM_RETURN_PATH;
        if (take == MAILBOX_NONE && may_be_null) {
            mail->sender = SPAN_NONE;
            return 0;
        }
        if (take != MAILBOX_TAKEN || (mail->sender.size == 0 && !may_be_null)) {
            spool_problem_set(ret_problem, "the sender cannot be read: add x-sender: a@example.org "
                                           "as the first line");
            return -EINVAL;
        }
        return 0;
    }
    spool_problem_set(ret_problem, "no sender: add x-sender: a@example.org as the first line, or a "
                                   "From field");
    return -EINVAL;
}

static void put_lines(struct writer *writer, struct span lines)
{
    struct cursor cursor = cursor_of(lines);
    while (cursor_left(&cursor) > 0) {
        struct span line = scan_line_chop(take_raw_line(&cursor));
        if (line.size > 0 && line.at[0] == '.') {
            writer_put_byte(writer, '.');
        }
        writer_put(writer, line);
        writer_put(writer, SPAN("\r\n"));
    }
}

static void put_record(const struct mail *mail, struct writer *writer)
{
    writer_put(writer, SPAN("MAIL FROM:<"));
    writer_put(writer, mail->sender);
    writer_put(writer, SPAN(">\r\n"));
    for (uint32_t i = 0; i < mail->rcpts_count; i++) {
        writer_put(writer, SPAN("RCPT TO:<"));
        writer_put(writer, mail->rcpts[i]);
        writer_put(writer, SPAN(">\r\n"));
    }
    writer_put(writer, SPAN("DATA\r\n"));
    struct cursor cursor = cursor_of(mail->content);
    struct field field;
    while (take_field(&cursor, &field) == FIELD_TAKEN) {
        if (!field_is_for_us(&field)) {
            put_lines(writer, field.whole);
        }
    }
    put_lines(writer, mail->text);
    writer_put(writer, SPAN(".\r\n"));
    ensure(!writer->is_full);
}

int spool_pickup_convert(struct span content, struct writer *ret_record,
                         struct spool_problem *ret_problem)
{
    ensure((size_t)(ret_record->end - ret_record->at) >= PICKUP_RECORD_MAX(content.size));
    if (content.size == 0) {
        spool_problem_set(ret_problem, "the file is empty");
        return -EINVAL;
    }
    size_t arena_size = 2 * content.size;
    struct mail *mail = calloc(1, sizeof(*mail));
    char *arena = malloc(arena_size);
    int result = -ENOMEM;
    if (mail != NULL && arena != NULL) {
        mail->content = content;
        mail->addresses = writer_of(arena, arena_size);
        result = check_lines(content, ret_problem);
        result = result == 0 ? read_header(mail, ret_problem) : result;
        result = result == 0 ? choose_sender(mail, ret_problem) : result;
        if (result == 0 && mail->rcpts_count == 0) {
            spool_problem_set(ret_problem, "no recipient: add x-receiver: lines, or To, Cc, Bcc");
            result = -EINVAL;
        }
    }
    if (result == 0) {
        put_record(mail, ret_record);
    }
    free(arena);
    free(mail);
    return result;
}
