/* SPDX-License-Identifier: Apache-2.0 */
/* One mail from flags: a batch of kind "bsmtp", because nothing in it is a template. */
#include <errno.h>
#include <stdlib.h>

#include "engine/base/text.h"
#include "queue/mailbox_list.h"
#include "queue/spool_priv.h"
#include "queue/submit_priv.h"

enum {
    HEADER_LINE_MAX = 76,
    TEXT_LINE_MAX = 998,
    BASE64_LINE_BYTES = 57, /* 76 characters */
    WORD_BYTES = 39,        /* of an encoded word: 52 characters and 12 around them */
    SUBJECT_MAX = 4096,
    ADDRESS_MAX = 320, /* RFC 5321 4.5.3.1 allows 254 */
    ADDRESSES_MAX = 256 * 1024,
};

struct composing {
    struct writer out;
    struct writer addresses; /* their bytes */
    struct span sender;
    uint32_t rcpts_count;
    struct span rcpts[SUBMIT_RCPTS_MAX];
};

/* The addresses of one argument, put behind those there are. */
static int take_addresses(struct composing *composing, const char *text, struct span *ret_addresses,
                          uint32_t max, uint32_t *count, struct spool_problem *ret_problem)
{
    struct cursor cursor = cursor_of(span_of_text(text));
    for (;;) {
        struct writer writer = writer_of(
            composing->addresses.at, (size_t)(composing->addresses.end - composing->addresses.at));
        enum mailbox_take take = mailbox_list_take(&cursor, &writer);
        if (take == MAILBOX_NONE) {
            return 0;
        }
        if (take == MAILBOX_BAD || *count == max || writer_size(&writer) > ADDRESS_MAX) {
            spool_problem_set(ret_problem, "\"%.200s\": %s", spool_show(text).text,
                              take == MAILBOX_BAD ? "not an address"
                                                  : "too many addresses, or one that is too long");
            return -EINVAL;
        }
        ret_addresses[(*count)++] = writer_span(&writer);
        composing->addresses.at = writer.at;
    }
}

static int take_envelope(struct composing *composing, const struct submit_mail *mail,
                         struct spool_problem *ret_problem)
{
    uint32_t senders_count = 0;
    int result =
        take_addresses(composing, mail->from, &composing->sender, 1, &senders_count, ret_problem);
    if (result == 0 && (senders_count != 1 || composing->sender.size == 0)) {
        spool_problem_set(ret_problem, "no sender");
        return -EINVAL;
    }
    for (size_t i = 0; i < mail->to_count && result == 0; i++) {
        result = take_addresses(composing, mail->to[i], composing->rcpts, SUBMIT_RCPTS_MAX,
                                &composing->rcpts_count, ret_problem);
    }
    if (result == 0 && composing->rcpts_count == 0) {
        spool_problem_set(ret_problem, "no recipient");
        return -EINVAL;
    }
    return result;
}

/* RFC 4648 4, without line ends. */
static void put_base64(struct writer *writer, struct span bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t word = (uint32_t)(unsigned char)bytes.at[i] << 16;
        word |= left > 1 ? (uint32_t)(unsigned char)bytes.at[i + 1] << 8 : 0;
        word |= left > 2 ? (uint32_t)(unsigned char)bytes.at[i + 2] : 0;
        char text[4] = {digits[word >> 18], digits[word >> 12 & 63],
                        left > 1 ? digits[word >> 6 & 63] : '=',
                        left > 2 ? digits[word & 63] : '='};
        writer_put(writer, span_of(text, sizeof(text)));
    }
}

static bool is_printable(struct span text)
{
    for (size_t i = 0; i < text.size; i++) {
        if ((unsigned char)text.at[i] < ' ' || text.at[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* RFC 2047 2 and 8: encoded words of whole characters, one a line, for anything but short ASCII
 * that does not look like one. */
static void put_subject(struct writer *writer, struct span subject)
{
    writer_put(writer, SPAN("Subject: "));
    bool has_word = false;
    for (size_t i = 0; i + 1 < subject.size; i++) {
        has_word |= subject.at[i] == '=' && subject.at[i + 1] == '?';
    }
    if (text_is_ascii(subject) && subject.size <= HEADER_LINE_MAX - 9 && !has_word) {
        writer_put(writer, subject);
        writer_put(writer, SPAN("\r\n"));
        return;
    }
    for (size_t at = 0; at < subject.size;) {
        size_t size = subject.size - at < WORD_BYTES ? subject.size - at : WORD_BYTES;
        while (at + size < subject.size && ((unsigned char)subject.at[at + size] & 0xc0) == 0x80) {
            size--;
        }
        writer_put(writer, at == 0 ? SPAN("=?UTF-8?B?") : SPAN(" =?UTF-8?B?"));
        put_base64(writer, span_of(subject.at + at, size));
        writer_put(writer, SPAN("?=\r\n"));
        at += size;
    }
}

/* One address a line, which needs no thought about length. */
static void put_to(struct composing *composing)
{
    struct writer *writer = &composing->out;
    writer_put(writer, SPAN("To: "));
    for (uint32_t i = 0; i < composing->rcpts_count; i++) {
        writer_put(writer, i == 0 ? SPAN("") : SPAN(",\r\n "));
        writer_put(writer, composing->rcpts[i]);
    }
    writer_put(writer, SPAN("\r\n"));
}

/* True when the text may go as it is: ASCII lines of at most 998 bytes. */
static bool text_is_plain(struct span text)
{
    struct cursor cursor = cursor_of(text);
    bool is_plain = text_is_ascii(text);
    while (is_plain && cursor_left(&cursor) > 0) {
        struct span line = cursor_take_until(&cursor, '\n');
        (void)cursor_take_byte(&cursor, '\n');
        line.size -= line.size > 0 && line.at[line.size - 1] == '\r';
        is_plain = line.size <= TEXT_LINE_MAX && span_find_break(line) == line.size;
    }
    return is_plain;
}

static void put_text(struct writer *writer, struct span text)
{
    struct cursor cursor = cursor_of(text);
    while (cursor_left(&cursor) > 0) {
        struct span line = cursor_take_until(&cursor, '\n');
        (void)cursor_take_byte(&cursor, '\n');
        line.size -= line.size > 0 && line.at[line.size - 1] == '\r';
        if (line.size > 0 && line.at[0] == '.') {
            writer_put_byte(writer, '.');
        }
        writer_put(writer, line);
        writer_put(writer, SPAN("\r\n"));
    }
}

/* RFC 2045 6.8. No line of base64 begins with a dot. */
static void put_text_encoded(struct writer *writer, struct span text)
{
    for (size_t at = 0; at < text.size; at += BASE64_LINE_BYTES) {
        size_t left = text.size - at;
        put_base64(writer,
                   span_of(text.at + at, left < BASE64_LINE_BYTES ? left : BASE64_LINE_BYTES));
        writer_put(writer, SPAN("\r\n"));
    }
}

static void put_record(struct composing *composing, const struct submit *submit,
                       const struct submit_mail *mail)
{
    struct writer *writer = &composing->out;
    writer_put(writer, SPAN("MAIL FROM:<"));
    writer_put(writer, composing->sender);
    writer_put(writer, SPAN(">\r\n"));
    for (uint32_t i = 0; i < composing->rcpts_count; i++) {
        writer_put(writer, SPAN("RCPT TO:<"));
        writer_put(writer, composing->rcpts[i]);
        writer_put(writer, SPAN(">\r\n"));
    }
    writer_put(writer, SPAN("DATA\r\nFrom: "));
    writer_put(writer, span_of_text(mail->from));
    writer_put(writer, SPAN("\r\n"));
    put_to(composing);
    put_subject(writer, span_of_text(mail->subject));
    writer_put(writer, SPAN("Date: "));
    text_put_rfc5322(writer, clock_wall(submit->clock));
    writer_put(writer,
               SPAN("\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"));
    if (text_is_plain(mail->text)) {
        writer_put(writer, SPAN("Content-Transfer-Encoding: 7bit\r\n\r\n"));
        put_text(writer, mail->text);
    } else {
        writer_put(writer, SPAN("Content-Transfer-Encoding: base64\r\n\r\n"));
        put_text_encoded(writer, mail->text);
    }
    writer_put(writer, SPAN(".\r\n"));
    ensure(!writer->is_full);
}

static int check_mail(const struct submit_mail *mail, struct spool_problem *ret_problem)
{
    struct span from = span_of_text(mail->from);
    struct span subject = span_of_text(mail->subject);
    const char *words = NULL;
    if (!is_printable(from) || !text_is_ascii(from) || from.size > TEXT_LINE_MAX - 6) {
        words = "the sender is not printable ASCII: write the name without accents";
    } else if (!is_printable(subject) || !text_is_utf8(subject) || subject.size > SUBJECT_MAX) {
        words = "the subject holds control characters, is not UTF-8, or is longer than 4096 bytes";
    } else if (!text_is_utf8(mail->text)) {
        words = "the text is not UTF-8";
    }
    if (words != NULL) {
        spool_problem_set(ret_problem, "%s", words);
        return -EINVAL;
    }
    return 0;
}

static int write_mail(struct submit *submit, const struct submit_mail *mail,
                      const struct composing *composing, struct submit_id *ret_id,
                      struct spool_problem *ret_problem)
{
    struct submit_id id;
    struct making making;
    int result = submit_id_take(submit, mail->id, &id, ret_problem);
    result = result == 0 ? submit_making_begin(submit, &making, ret_problem) : result;
    if (result != 0) {
        return result;
    }
    char manifest[MANIFEST_ID_MAX + 64];
    struct writer writer = writer_of(manifest, sizeof(manifest));
    writer_put_format(&writer, "{\"v\":1,\"id\":\"%s\",\"kind\":\"bsmtp\"}\n", id.text);
    result = submit_making_write(&making, "batch.json", writer_span(&writer), ret_problem);
    if (result == 0) {
        result = submit_making_write(&making, "messages-0.bsmtp", writer_span(&composing->out),
                                     ret_problem);
    }
    if (result != 0) {
        submit_making_abandon(&making);
        return result;
    }
    return submit_making_end(&making, id.text, ret_id, ret_problem);
}

int submit_mail(struct submit *submit, const struct submit_mail *mail, struct submit_id *ret_id,
                struct spool_problem *ret_problem)
{
    int result = check_mail(mail, ret_problem);
    if (result != 0) {
        return result;
    }
    /* Each byte of text takes at most four (a lone line end after a dot); addresses stand twice. */
    size_t room = 4 * mail->text.size + 4 * (size_t)ADDRESSES_MAX;
    struct composing *composing = calloc(1, sizeof(*composing));
    char *addresses = malloc(ADDRESSES_MAX);
    char *record = malloc(room);
    result = -ENOMEM;
    if (composing == NULL || addresses == NULL || record == NULL) {
        spool_problem_set(ret_problem, "out of memory");
    } else {
        composing->addresses = writer_of(addresses, ADDRESSES_MAX);
        composing->out = writer_of(record, room);
        result = take_envelope(composing, mail, ret_problem);
        if (result == 0) {
            put_record(composing, submit, mail);
            result = write_mail(submit, mail, composing, ret_id, ret_problem);
        }
    }
    free(record);
    free(addresses);
    free(composing);
    return result;
}
