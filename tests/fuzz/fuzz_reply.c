/* SPDX-License-Identifier: Apache-2.0 */
/* Replies and EHLO keywords: the same answers whatever the pieces in which they came. */
#include "engine/smtp/smtp_capability.h"
#include "engine/smtp/smtp_reply.h"
#include "tests/fuzz/fuzz.h"

enum { STEPS_MAX = 4096 };

struct answer {
    enum smtp_reply_step step;
    uint16_t code;
    uint16_t text_size;
    struct smtp_capabilities offered;
};

static uint32_t read_by(struct span bytes, size_t step, struct answer *ret_answers)
{
    struct smtp_reply_parser parser;
    smtp_reply_init(&parser);
    struct smtp_capabilities offered = {0};
    uint32_t count = 0;
    for (size_t at = 0; at < bytes.size && count < STEPS_MAX; at += step) {
        size_t size = bytes.size - at < step ? bytes.size - at : step;
        char *exact = fuzz_copy(span_of(bytes.at + at, size));
        struct span piece = span_of(exact, size);
        enum smtp_reply_step told = SMTP_REPLY_LINE;
        while (piece.size > 0 && told != SMTP_REPLY_BAD && count < STEPS_MAX) {
            told = smtp_reply_take(&parser, &piece);
            if (told == SMTP_REPLY_MORE) {
                break;
            }
            if (told != SMTP_REPLY_BAD && parser.lines_count > 1) {
                smtp_capability_take_line(&offered, parser.line);
            }
            ensure(parser.reply.text_size <= SMTP_REPLY_TEXT_MAX);
            for (uint16_t i = 0; told == SMTP_REPLY_DONE && i < parser.reply.text_size; i++) {
                ensure(parser.reply.text[i] >= ' ' && parser.reply.text[i] <= '~');
            }
            ret_answers[count++] =
                (struct answer){told, told == SMTP_REPLY_DONE ? parser.reply.code : 0,
                                told == SMTP_REPLY_DONE ? parser.reply.text_size : 0, offered};
        }
        free(exact);
        if (told == SMTP_REPLY_BAD) {
            break;
        }
    }
    return count;
}

void fuzz_one(struct span input)
{
    static struct answer whole[STEPS_MAX];
    static struct answer parts[STEPS_MAX];
    struct cursor cursor = cursor_of(input);
    size_t step = 1 + fuzz_take(&cursor);
    struct span bytes = fuzz_rest(&cursor);
    uint32_t count = read_by(bytes, bytes.size + 1, whole);
    ensure(read_by(bytes, step, parts) == count);
    for (uint32_t i = 0; i < count; i++) {
        ensure(whole[i].step == parts[i].step && whole[i].code == parts[i].code);
        ensure(whole[i].text_size == parts[i].text_size);
        ensure(whole[i].offered.bits == parts[i].offered.bits);
        ensure(whole[i].offered.size_max == parts[i].offered.size_max);
        ensure(whole[i].step != SMTP_REPLY_DONE || (whole[i].code >= 200 && whole[i].code < 600));
    }
}
