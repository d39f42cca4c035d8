/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RFC 5322 3.4, with the laxness of 4.4 (empty list elements, blanks around dots, routes):
 *
 *   address-list = [address] *("," [address])
 *   address      = mailbox / [phrase] ":" [mailbox-list] ";"
 *   mailbox      = local "@" domain / [phrase] "<" [route ":"] [local "@" domain] ">"
 *   local        = word *("." word)        word = atom / quoted-string
 *   domain       = atom *("." atom) / "[" *dtext "]"
 *
 * Groups need no state: their name ends in ":", which begins a new address, and ";" ends one as ","
 * does.
 */
#include "queue/mailbox_list.h"

static bool byte_is_blank(int byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Any byte above 127 counts as a letter: RFC 6532. */
static bool byte_is_atom(int byte)
{
    return byte > ' ' && byte != 0x7f && strchr("()<>[]:;@\\,.\"", byte) == NULL;
}

/* "(" .. ")" with comments inside; false when it does not end. */
static bool skip_comment(struct cursor *cursor)
{
    size_t depth = 0;
    char byte;
    while (cursor_take(cursor, &byte)) {
        if (byte == '\\') {
            if (!cursor_take(cursor, &byte)) {
                return false;
            }
            continue;
        }
        depth += byte == '(';
        if (byte == ')' && --depth == 0) {
            return true;
        }
    }
    return false;
}

static bool skip_blanks(struct cursor *cursor)
{
    for (;;) {
        int byte = cursor_peek(cursor);
        if (byte == '(') {
            if (!skip_comment(cursor)) {
                return false;
            }
        } else if (byte_is_blank(byte)) {
            cursor->at++;
        } else {
            return true;
        }
    }
}

/* `open` .. `close`, as it stands but for line ends, which only fold. */
static bool take_enclosed(struct cursor *cursor, char open, char close, struct writer *writer)
{
    char byte;
    if (!cursor_take_byte(cursor, open)) {
        return false;
    }
    writer_put_byte(writer, open);
    while (cursor_take(cursor, &byte)) {
        if (byte == '\r' || byte == '\n') {
            continue;
        }
        bool is_end = byte == close;
        writer_put_byte(writer, byte);
        if (byte == '\\' && cursor_take(cursor, &byte)) {
            writer_put_byte(writer, byte);
        }
        if ((unsigned char)byte < ' ' && byte != '\t') {
            return false;
        }
        if (is_end) {
            return true;
        }
    }
    return false;
}

static bool take_atom(struct cursor *cursor, struct writer *writer)
{
    const char *start = cursor->at;
    while (byte_is_atom(cursor_peek(cursor))) {
        cursor->at++;
    }
    writer_put(writer, span_of(start, (size_t)(cursor->at - start)));
    return cursor->at > start;
}

/* Words joined by dots. An empty word beside a dot (a..b@x, .a@x) is kept for the address check. */
static bool take_dotted(struct cursor *cursor, struct writer *writer)
{
    bool has_any = false;
    for (;;) {
        if (cursor_peek(cursor) != '"') {
            has_any |= take_atom(cursor, writer);
        } else if (take_enclosed(cursor, '"', '"', writer)) {
            has_any = true;
        } else {
            return false;
        }
        if (!skip_blanks(cursor)) {
            return false;
        }
        if (!cursor_take_byte(cursor, '.')) {
            return has_any;
        }
        has_any = true;
        writer_put_byte(writer, '.');
        if (!skip_blanks(cursor)) {
            return false;
        }
    }
}

/* "@" domain, behind the local part. */
static bool take_domain(struct cursor *cursor, struct writer *writer)
{
    if (!cursor_take_byte(cursor, '@') || !skip_blanks(cursor)) {
        return false;
    }
    writer_put_byte(writer, '@');
    if (cursor_peek(cursor) == '[') {
        return take_enclosed(cursor, '[', ']', writer) && skip_blanks(cursor);
    }
    return take_dotted(cursor, writer);
}

/* "<" [route ":"] [local "@" domain] ">" */
static bool take_angle(struct cursor *cursor, struct writer *writer)
{
    if (!cursor_take_byte(cursor, '<') || !skip_blanks(cursor)) {
        return false;
    }
    if (cursor_peek(cursor) == '@') {
        (void)cursor_take_until(cursor, ':');
        if (!cursor_take_byte(cursor, ':') || !skip_blanks(cursor)) {
            return false;
        }
    }
    if (cursor_take_byte(cursor, '>')) {
        return true;
    }
    return take_dotted(cursor, writer) && take_domain(cursor, writer) &&
           cursor_take_byte(cursor, '>');
}

/* True at the end of one address. */
static bool at_border(struct cursor *cursor)
{
    int byte = cursor_peek(cursor);
    return byte < 0 || byte == ',' || byte == ';';
}

enum mailbox_take mailbox_list_take(struct cursor *cursor, struct writer *ret_address)
{
    struct writer start = *ret_address;
    for (;;) {
        *ret_address = start;
        if (!skip_blanks(cursor)) {
            return MAILBOX_BAD;
        }
        if (cursor_peek(cursor) < 0) {
            return MAILBOX_NONE;
        }
        if (cursor_take_byte(cursor, ',') || cursor_take_byte(cursor, ';')) {
            continue;
        }
        uint32_t words_count = 0; /* of a name, or the local part: what follows them tells */
        while (!at_border(cursor) && strchr("<@:", cursor_peek(cursor)) == NULL) {
            if (!take_dotted(cursor, ret_address)) {
                return MAILBOX_BAD;
            }
            words_count++;
        }
        bool is_good;
        if (cursor_take_byte(cursor, ':')) {
            continue;
        }
        if (cursor_peek(cursor) == '<') {
            *ret_address = start;
            is_good = take_angle(cursor, ret_address) && skip_blanks(cursor);
        } else {
            is_good = words_count == 1 && take_domain(cursor, ret_address);
        }
        bool is_whole = is_good && at_border(cursor) && !ret_address->is_full;
        return is_whole ? MAILBOX_TAKEN : MAILBOX_BAD;
    }
}
