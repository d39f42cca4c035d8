/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/value.h"

#include "tests/harness.h"

/* What each context takes: one letter per context in enum order (t h s p a r i u l), "." where it
 * refuses. */
static const struct {
    struct span value;
    const char *plain, *raw;
} ROWS[] = {
    {SPAN(""), "thspariul", "thspariul"},
    {SPAN("Ann"), "thspariul", "thspariul"},
    {SPAN("Ann Lee"), "thsp.r.ul", "thspar..l"},
    {SPAN("a\tb"), "thsp.r.ul", "thspar..l"},
    {SPAN("a\rb"), "th.......", "th......."},
    {SPAN("a\nb"), "th.......", "th......."},
    {SPAN("a\r\nBcc: x@y"), "th.......", "th......."},
    {SPAN("\n"), "th.......", "th......."},
    {SPAN("a\0b"), ".........", "........."},
    {SPAN("%0d%0aBcc: x"), "thsp.r.ul", "thspar..l"},
    {SPAN("a\x07"), "thsp...ul", "thsp....l"},
    {SPAN("\x7f"), "thsp...ul", "thsp....l"},
    {SPAN("\xc3\xa4"), "thsp...ul", "thsp....l"},
    {SPAN("\xe2\x80\xa8"), "thsp...ul", "thsp....l"}, /* U+2028 is no line break on the wire */
    {SPAN("\xc2\x85"), "thsp...ul", "thsp....l"},
    {SPAN("\xe4"), ".........", "........."},
    {SPAN("\xc3"), ".........", "........."},
    {SPAN("\xed\xa0\x80"), ".........", "........."},
    {SPAN("a@b.c"), "thspariul", "thspariul"},
    {SPAN("a@b@c"), "thsp.riul", "thspariul"},
    {SPAN("\"a b\"@c"), "thspar.ul", "thspar..l"},
    {SPAN("\"a\\\"b\"@c"), "thspariul", "thspariul"},
    {SPAN("\"a@c"), "thsp.riul", "thspariul"},
    {SPAN("\"a\\"), "thsp.riul", "thspariul"},
    {SPAN("a@[192.0.2.1]"), "thspariul", "thspariul"},
    {SPAN("a@[IPv6:2001:db8::1]"), "thspariul", "thspariul"},
    {SPAN("a@[1]x"), "thsp.riul", "thspariul"},
    {SPAN("[1]"), "thsp.riul", "thspariul"},
    {SPAN("a,b"), "thsp.riul", "thspariul"},
    {SPAN("a>,<b"), "thsp.r.ul", "thspar..l"},
    {SPAN("a(b)"), "thsp.riul", "thspariul"},
    {SPAN("a;b:c"), "thsp.riul", "thspariul"},
};

static void check_row_form(size_t i, const char *want, bool is_raw)
{
    static const char LETTERS[] = "thspariul";
    unsigned classes = value_classes(ROWS[i].value);
    for (size_t context = 0; LETTERS[context] != '\0'; context++) {
        const char *reason =
            value_check((enum value_context)context, is_raw, ROWS[i].value, classes);
        CHECK_ROW(i, (reason == NULL) == (want[context] == LETTERS[context]));
    }
}

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        check_row_form(i, ROWS[i].plain, false);
        check_row_form(i, ROWS[i].raw, true);
    }
}

/* No byte but these three may ever be taken for a line's end; none of them passes a header. */
static void test_every_byte(void)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[3] = {'a', (char)byte, 'b'};
        struct span value = span_of(text, sizeof(text));
        bool is_break = byte == '\r' || byte == '\n' || byte == '\0';
        CHECK_ROW(byte, (span_find_break(value) < value.size) == is_break);
        for (int context = VALUE_HEADER; context <= VALUE_LINE; context++) {
            const char *plain =
                value_check((enum value_context)context, false, value, value_classes(value));
            const char *raw =
                value_check((enum value_context)context, true, value, value_classes(value));
            CHECK_ROW(byte, !is_break || (plain != NULL && raw != NULL));
        }
    }
}

static void test_uri(void)
{
    char memory[64];
    struct writer writer = writer_of(memory, sizeof(memory));
    value_put_uri(&writer, SPAN("a b<c>\"\xc3\xa4\x01&?=%41/"));
    CU_ASSERT(span_equal(writer_span(&writer), SPAN("a%20b%3Cc%3E%22%C3%A4%01&?=%41/")));
}

static void test_entities(void)
{
    CU_ASSERT(span_equal(value_entity('&'), SPAN("&amp;")));
    CU_ASSERT(span_equal(value_entity('\''), SPAN("&#39;")));
    CHECK_PANICS((void)value_entity('a'));
}

SUITE(value, test_rows, test_every_byte, test_uri, test_entities)
