/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_command.h"

#include <errno.h>

#include "engine/base/vector.h"

/* Bytes of a path that are not simply fit to be written. */
enum { PLAIN = 0, QUOTE, BACKSLASH, OUTSIDE_NEVER, NEVER };

static const uint8_t PATH_BYTES[256] = {
    [0 ... 31] = NEVER,    [' '] = OUTSIDE_NEVER, ['"'] = QUOTE,         ['<'] = OUTSIDE_NEVER,
    ['>'] = OUTSIDE_NEVER, ['\\'] = BACKSLASH,    [127 ... 255] = NEVER,
};

static bool is_plain_bytes(struct span text)
{
    unsigned found = 0;
    for (size_t i = 0; i < text.size; i++) {
        found |= PATH_BYTES[(unsigned char)text.at[i]];
    }
    return found == PLAIN;
}

/* Not 0 where PATH_BYTES is not PLAIN. */
static vector not_plain_at(const char *at)
{
    vector bytes = vector_at(at);
    return vector_unprintable(bytes, ' ' + 1) | (bytes == vector_of('"')) |
           (bytes == vector_of('<')) | (bytes == vector_of('>')) | (bytes == vector_of('\\'));
}

/* The last vector may overlap the one before it. */
static bool is_plain(struct span text)
{
    if (text.size < VECTOR_SIZE) {
        return is_plain_bytes(text);
    }
    vector found = not_plain_at(text.at + text.size - VECTOR_SIZE);
    for (size_t i = 0; i + VECTOR_SIZE < text.size; i += VECTOR_SIZE) {
        found |= not_plain_at(text.at + i);
    }
    return !vector_any(found);
}

/* A backslash makes the next byte plain, in a quoted string only; that byte must still be
 * printable. */
static __attribute__((noinline)) bool is_plain_but_quoted(struct span text)
{
    bool is_quoted = false;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t kind = PATH_BYTES[(unsigned char)text.at[i]];
        if (kind == NEVER || (kind == OUTSIDE_NEVER && !is_quoted)) {
            return false;
        }
        if (kind == QUOTE) {
            is_quoted = !is_quoted;
        }
        if (kind == BACKSLASH) {
            i++;
            if (!is_quoted || i == text.size || PATH_BYTES[(unsigned char)text.at[i]] == NEVER) {
                return false;
            }
        }
    }
    return !is_quoted;
}

int smtp_command_check_path(struct span path)
{
    if (path.size > SMTP_ADDRESS_MAX) {
        return -EMSGSIZE;
    }
    return is_plain(path) || is_plain_but_quoted(path) ? 0 : -EINVAL;
}

static bool has_room(const struct writer *writer, size_t size)
{
    return (size_t)(writer->end - writer->at) >= size;
}

int smtp_command_greeting(struct writer *writer, enum smtp_verb verb, struct span name)
{
    ensure(verb == SMTP_VERB_EHLO || verb == SMTP_VERB_HELO);
    if (name.size > SMTP_DOMAIN_MAX) {
        return -EMSGSIZE;
    }
    if (name.size == 0 || !is_plain(name)) {
        return -EINVAL;
    }
    struct span text = SMTP_VERBS[verb].text;
    if (!has_room(writer, text.size + name.size + 2)) {
        return -ENOBUFS;
    }
    writer_put(writer, text);
    writer_put(writer, name);
    writer_put(writer, SPAN("\r\n"));
    return 0;
}

int smtp_command_mail(struct writer *writer, struct span path,
                      const struct smtp_mail_parameters *parameters)
{
    int error = smtp_command_check_path(path);
    if (error != 0) {
        return error;
    }
    if (!has_room(writer, SMTP_COMMAND_SIZE_MAX - SMTP_ADDRESS_MAX + path.size)) {
        return -ENOBUFS;
    }
    writer_put(writer, SMTP_VERBS[SMTP_VERB_MAIL].text);
    writer_put(writer, path);
    writer_put_byte(writer, '>');
    if (parameters->has_size) {
        writer_put(writer, SPAN(" SIZE="));
        writer_put_uint(writer, parameters->size);
    }
    if (parameters->is_8bit) {
        writer_put(writer, SPAN(" BODY=8BITMIME"));
    }
    writer_put(writer, SPAN("\r\n"));
    ensure(!writer->is_full);
    return 0;
}

int smtp_command_rcpt(struct writer *writer, struct span path)
{
    int error = path.size > 0 ? smtp_command_check_path(path) : -EINVAL;
    if (error != 0) {
        return error;
    }
    if (!has_room(writer, SMTP_VERBS[SMTP_VERB_RCPT].text.size + path.size + 3)) {
        return -ENOBUFS;
    }
    writer_put(writer, SMTP_VERBS[SMTP_VERB_RCPT].text);
    writer_put(writer, path);
    writer_put(writer, SPAN(">\r\n"));
    ensure(!writer->is_full);
    return 0;
}

int smtp_command_plain(struct writer *writer, enum smtp_verb verb)
{
    ensure(verb == SMTP_VERB_DATA || verb == SMTP_VERB_DOT || verb == SMTP_VERB_RSET ||
           verb == SMTP_VERB_QUIT);
    struct span text = SMTP_VERBS[verb].text;
    if (!has_room(writer, text.size + 2)) {
        return -ENOBUFS;
    }
    writer_put(writer, text);
    writer_put(writer, SPAN("\r\n"));
    return 0;
}
