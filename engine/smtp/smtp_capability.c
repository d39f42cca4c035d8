/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammar (RFC 5321 4.1.1.1): ehlo-line = keyword *( SP param ). Servers also send "=" and tabs
 * between keyword and parameter, and keywords in any case and more than once (3.2); the last one
 * counts.
 */
#include "engine/smtp/smtp_capability.h"

static const struct {
    struct span keyword;
    uint32_t bits;
} KEYWORDS[] = {
    {{"PIPELINING", 10}, SMTP_CAN_PIPELINE},
    {{"8BITMIME", 8}, SMTP_CAN_8BIT},
    {{"ENHANCEDSTATUSCODES", 19}, SMTP_CAN_ENHANCED},
    {{"STARTTLS", 8}, SMTP_CAN_STARTTLS},
    {{"CHUNKING", 8}, SMTP_CAN_CHUNK},
    {{"DSN", 3}, SMTP_CAN_DSN},
    /* Implies 8BITMIME, whether told or not (RFC 6531 3.6, F2). */
    {{"SMTPUTF8", 8}, SMTP_CAN_UTF8 | SMTP_CAN_8BIT},
};

static size_t keyword_size(struct span line)
{
    size_t size = 0;
    while (size < line.size && line.at[size] != ' ' && line.at[size] != '\t' &&
           line.at[size] != '=') {
        size++;
    }
    return size;
}

/* RFC 1870 4: no value and 0 both mean that no limit is told. What cannot be read as a number: as
 * if the keyword were not there (E1). */
static void take_size(struct smtp_capabilities *capabilities, struct span value)
{
    uint64_t size = 0;
    value = span_trim(value);
    if (value.size > 0) {
        struct cursor cursor = cursor_of(value);
        if (!cursor_take_uint(&cursor, UINT64_MAX, &size) || cursor_left(&cursor) > 0) {
            return;
        }
    }
    capabilities->bits |= SMTP_CAN_SIZE;
    capabilities->size_max = size;
}

void smtp_capability_take_line(struct smtp_capabilities *capabilities, struct span line)
{
    line = span_trim(line);
    struct span keyword = span_of(line.at, keyword_size(line));
    if (span_equal_nocase(keyword, SPAN("SIZE"))) {
        size_t skip = keyword.size < line.size ? keyword.size + 1 : keyword.size;
        take_size(capabilities, span_of(line.at + skip, line.size - skip));
        return;
    }
    for (size_t i = 0; i < COUNT_OF(KEYWORDS); i++) {
        if (span_equal_nocase(keyword, KEYWORDS[i].keyword)) {
            capabilities->bits |= KEYWORDS[i].bits;
            return;
        }
    }
}
