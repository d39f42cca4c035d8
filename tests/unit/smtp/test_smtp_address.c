/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/smtp/smtp_address.h"

#include "engine/base/random.h"
#include "engine/smtp/smtp_command.h"
#include "tests/harness.h"

#define TEXT(text) text, sizeof(text) - 1
#define X10 "xxxxxxxxxx"
#define X60 X10 X10 X10 X10 X10 X10
#define LABEL_63 X60 "xxx"
#define DOMAIN_250 X60 "." X60 "." X60 "." X60 ".xxxxxx"

static const struct {
    const char *text;
    size_t size;
    enum smtp_address_reason reason;
} ROWS[] = {
    {TEXT("user@example.com"), SMTP_ADDRESS_OK},
    {TEXT("a@b"), SMTP_ADDRESS_OK},
    {TEXT("first.last+tag@sub.example.co.uk"), SMTP_ADDRESS_OK},
    {TEXT("!#$%&'*+-/=?^_`{|}~@x.test"), SMTP_ADDRESS_OK},
    {TEXT("a%b@c.test"), SMTP_ADDRESS_OK},
    {TEXT("1@2.test"), SMTP_ADDRESS_OK},
    {TEXT("u@xn--bcher-kva.example"), SMTP_ADDRESS_OK},
    {TEXT("u@_dmarc.my_host.test"), SMTP_ADDRESS_OK}, /* B10 */
    {TEXT("u@UPPER.Test"), SMTP_ADDRESS_OK},
    {TEXT("u@123.456.test"), SMTP_ADDRESS_OK},
    {TEXT("\"a b\"@x.test"), SMTP_ADDRESS_OK}, /* A35 */
    {TEXT("\"a.b\"@x.test"), SMTP_ADDRESS_OK},
    {TEXT("\"\"@x.test"), SMTP_ADDRESS_OK},
    {TEXT("\"a\\\"b\\\\\"@x.test"), SMTP_ADDRESS_OK},
    {TEXT("\"a@b\"@x.test"), SMTP_ADDRESS_OK},
    {TEXT("u@[192.0.2.1]"), SMTP_ADDRESS_OK}, /* B9 */
    {TEXT("u@[IPv6:2001:db8::1]"), SMTP_ADDRESS_OK},
    {TEXT("u@[ipv6:::ffff:192.0.2.1]"), SMTP_ADDRESS_OK},
    {TEXT(X60 "1234@x.test"), SMTP_ADDRESS_OK}, /* A24 */
    {TEXT("abc@" DOMAIN_250), SMTP_ADDRESS_OK},
    {TEXT("u@" LABEL_63 ".test"), SMTP_ADDRESS_OK},

    {TEXT(""), SMTP_ADDRESS_EMPTY},
    {TEXT("abcd@" DOMAIN_250), SMTP_ADDRESS_TOO_LONG},
    {TEXT("u@" DOMAIN_250 "abcd"), SMTP_ADDRESS_DOMAIN_TOO_LONG},
    {TEXT("u@" LABEL_63 "x.test"), SMTP_ADDRESS_LABEL_TOO_LONG},
    {TEXT(X60 "12345@x.test"), SMTP_ADDRESS_LOCAL_TOO_LONG},
    {TEXT("\"" X60 "123\"@x.test"), SMTP_ADDRESS_LOCAL_TOO_LONG},
    {TEXT("a\nb@x.test"), SMTP_ADDRESS_CONTROL},
    {TEXT("a@x.test\r\n"), SMTP_ADDRESS_CONTROL},
    {TEXT("a@x\0.test"), SMTP_ADDRESS_CONTROL},
    {TEXT("\"a\tb\"@x.test"), SMTP_ADDRESS_CONTROL},
    {TEXT("\"a\\\rb\"@x.test"), SMTP_ADDRESS_CONTROL},
    {TEXT("a\x7f@x.test"), SMTP_ADDRESS_CONTROL},
    {TEXT(" a@x.test"), SMTP_ADDRESS_BLANK},
    {TEXT("a @x.test"), SMTP_ADDRESS_BLANK},
    {TEXT("a@x.test "), SMTP_ADDRESS_BLANK},
    {TEXT("<a@x.test>"), SMTP_ADDRESS_BRACKETS},
    {TEXT("a@x.test>"), SMTP_ADDRESS_BRACKETS},
    {TEXT("<>"), SMTP_ADDRESS_BRACKETS},
    {TEXT("Ann <a@x.test>"), SMTP_ADDRESS_BLANK},
    {TEXT("a(note)@x.test"), SMTP_ADDRESS_COMMENT},
    {TEXT("a@(note)x.test"), SMTP_ADDRESS_COMMENT},
    {TEXT("@a.test,@b.test:u@c.test"), SMTP_ADDRESS_SOURCE_ROUTE}, /* A34 */
    {TEXT("@a.test:u@c.test"), SMTP_ADDRESS_SOURCE_ROUTE},
    {TEXT("@d.test"), SMTP_ADDRESS_NO_LOCAL},
    {TEXT("@"), SMTP_ADDRESS_NO_LOCAL},
    {TEXT(".a@d.test"), SMTP_ADDRESS_LOCAL_START_DOT},
    {TEXT("a.@d.test"), SMTP_ADDRESS_LOCAL_END_DOT},
    {TEXT("a..b@d.test"), SMTP_ADDRESS_LOCAL_DOTS},
    {TEXT("a,b@d.test"), SMTP_ADDRESS_LOCAL_BYTE},
    {TEXT("a\\b@d.test"), SMTP_ADDRESS_LOCAL_BYTE},
    {TEXT("mailto:a@d.test"), SMTP_ADDRESS_LOCAL_BYTE},
    {TEXT("j\xc3\xbcrgen@d.test"), SMTP_ADDRESS_LOCAL_UTF8},
    {TEXT("\"j\xc3\xbcrgen\"@d.test"), SMTP_ADDRESS_LOCAL_UTF8},
    {TEXT("a\xe2\x80\x8b@d.test"), SMTP_ADDRESS_LOCAL_UTF8}, /* zero-width space */
    {TEXT("\"a@d.test"), SMTP_ADDRESS_QUOTE_OPEN},
    {TEXT("\"\\\"@d.test"), SMTP_ADDRESS_QUOTE_OPEN},
    {TEXT("\""), SMTP_ADDRESS_QUOTE_OPEN},
    {TEXT("\"\\"), SMTP_ADDRESS_QUOTE_OPEN},
    {TEXT("a\"b\"@d.test"), SMTP_ADDRESS_QUOTE_PLACE},
    {TEXT("\"a\"b@d.test"), SMTP_ADDRESS_QUOTE_PLACE},
    {TEXT("user"), SMTP_ADDRESS_NO_DOMAIN},
    {TEXT("postmaster"), SMTP_ADDRESS_NO_DOMAIN}, /* 4.5.1: of the server that is asked: whose? */
    {TEXT("\"user\""), SMTP_ADDRESS_NO_DOMAIN},
    {TEXT("user@"), SMTP_ADDRESS_NO_DOMAIN},
    {TEXT("a@b@c.test"), SMTP_ADDRESS_TWO_ATS},
    {TEXT("a@@c.test"), SMTP_ADDRESS_TWO_ATS},
    {TEXT("a@.d.test"), SMTP_ADDRESS_DOMAIN_START_DOT},
    {TEXT("a@."), SMTP_ADDRESS_DOMAIN_START_DOT},
    {TEXT("a@d.test."), SMTP_ADDRESS_DOMAIN_END_DOT},
    {TEXT("a@d..test"), SMTP_ADDRESS_DOMAIN_DOTS},
    {TEXT("a@d,test"), SMTP_ADDRESS_DOMAIN_BYTE},
    {TEXT("a@d+e.test"), SMTP_ADDRESS_DOMAIN_BYTE},
    {TEXT("a@\"d\".test"), SMTP_ADDRESS_DOMAIN_BYTE},
    {TEXT("a@-d.test"), SMTP_ADDRESS_DOMAIN_HYPHEN},
    {TEXT("a@d-.test"), SMTP_ADDRESS_DOMAIN_HYPHEN},
    {TEXT("a@b\xc3\xbc"
          "cher.test"),
     SMTP_ADDRESS_DOMAIN_UTF8},
    {TEXT("a@192.0.2.1"), SMTP_ADDRESS_DOMAIN_NUMBER},
    {TEXT("a@1"), SMTP_ADDRESS_DOMAIN_NUMBER},
    {TEXT("a@x.90"), SMTP_ADDRESS_DOMAIN_NUMBER},
    {TEXT("u@d.test:25"), SMTP_ADDRESS_PORT},
    {TEXT("u@d.test:9"), SMTP_ADDRESS_PORT},
    {TEXT("u@d.test:x9"), SMTP_ADDRESS_DOMAIN_BYTE},
    {TEXT("u@d.test:"), SMTP_ADDRESS_DOMAIN_BYTE},
    {TEXT("u@[192.0.2.1]:25"), SMTP_ADDRESS_PORT},
    {TEXT("u@[192.0.2.1]:"), SMTP_ADDRESS_PORT},
    {TEXT("u@[192.0.2.256]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[192.0.2]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[192.0.2.1"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[192.0.2.1]x"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[192.0.2.1\0]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@["), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[2001:db8::1]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[IPv6:2001:db8::1::2]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[IPv6:" X60 "]"), SMTP_ADDRESS_LITERAL},
    {TEXT("u@[x-tag:y]"), SMTP_ADDRESS_LITERAL},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct smtp_address address = {.local = SPAN("untouched")};
        struct span text = span_of(ROWS[i].text, ROWS[i].size);
        enum smtp_address_reason reason = smtp_address_parse(text, &address);
        CHECK_ROW(i, reason == ROWS[i].reason);
        if (reason == SMTP_ADDRESS_OK) {
            CHECK_ROW(i, address.local.at == text.at);
            CHECK_ROW(i, address.local.size + 1 + address.domain.size == text.size);
            CHECK_ROW(i, address.domain.at + address.domain.size == text.at + text.size);
            CHECK_ROW(i, address.is_quoted == (text.at[0] == '"'));
            CHECK_ROW(i, address.is_literal == (text.at[text.size - 1] == ']'));
            CHECK_ROW(i, smtp_command_check_path(text) == 0);
        } else if (reason != SMTP_ADDRESS_DOMAIN_UTF8) {
            CHECK_ROW(i, span_equal(address.local, SPAN("untouched")));
        }
    }
}

static enum smtp_address_reason reason_of(const char *format, char c)
{
    char text[32];
    struct smtp_address address;
    struct writer writer = writer_of(text, sizeof(text));
    for (const char *at = format; *at != '\0'; at++) {
        writer_put_byte(&writer, *at == '?' ? c : *at);
    }
    ensure(!writer.is_full);
    return smtp_address_parse(writer_span(&writer), &address);
}

/* A byte that neither a local part nor a domain has, wherever it stands. */
static enum smtp_address_reason foreign(unsigned char c, enum smtp_address_reason utf8,
                                        enum smtp_address_reason other)
{
    if (c < 32 || c == 127) {
        return SMTP_ADDRESS_CONTROL;
    }
    if (c > 127) {
        return utf8;
    }
    switch (c) {
    case ' ':
        return SMTP_ADDRESS_BLANK;
    case '<':
    case '>':
        return SMTP_ADDRESS_BRACKETS;
    case '(':
    case ')':
        return SMTP_ADDRESS_COMMENT;
    case '@':
        return SMTP_ADDRESS_TWO_ATS;
    default:
        return other;
    }
}

/* A22, A24, A35: each byte there is, in an atom, in quotes, behind a backslash, in a domain. */
static void test_each_byte(void)
{
    for (unsigned i = 0; i < 256; i++) {
        char c = (char)i;
        bool is_letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool is_label = is_letter || (i != 0 && strchr("-_.", c) != NULL);
        bool is_atom = is_label || (i != 0 && strchr("!#$%&'*+/=?^`{|}~", c) != NULL);
        enum smtp_address_reason other =
            c == '"' ? SMTP_ADDRESS_QUOTE_PLACE : SMTP_ADDRESS_LOCAL_BYTE;
        enum smtp_address_reason want =
            is_atom ? SMTP_ADDRESS_OK : foreign((unsigned char)i, SMTP_ADDRESS_LOCAL_UTF8, other);
        CHECK_ROW(i, reason_of("a?b@x.test", c) == want);
        want = is_label
                   ? SMTP_ADDRESS_OK
                   : foreign((unsigned char)i, SMTP_ADDRESS_DOMAIN_UTF8, SMTP_ADDRESS_DOMAIN_BYTE);
        CHECK_ROW(i, reason_of("a@x?y.test", c) == want);
        want = i > 127              ? SMTP_ADDRESS_LOCAL_UTF8
               : i < 32 || i == 127 ? SMTP_ADDRESS_CONTROL
                                    : SMTP_ADDRESS_OK;
        CHECK_ROW(i, reason_of("\"a\\?b\"@x.test", c) == want);
        want = c == '"' ? SMTP_ADDRESS_QUOTE_PLACE : want;
        CHECK_ROW(i, reason_of("\"a?b\"@x.test", c) == want);
    }
}

/* The caller may turn the domain into A-labels: it gets both parts (F3). */
static void test_utf8_domain_is_told(void)
{
    struct smtp_address address;
    struct span text = SPAN("ann@b\xc3\xbc"
                            "cher.test");
    CU_ASSERT_EQUAL(smtp_address_parse(text, &address), SMTP_ADDRESS_DOMAIN_UTF8);
    CU_ASSERT(address.is_utf8);
    CU_ASSERT(span_equal(address.local, SPAN("ann")));
    CU_ASSERT(span_equal(address.domain, SPAN("b\xc3\xbc"
                                              "cher.test")));
    CU_ASSERT_EQUAL(smtp_address_check_domain(SPAN("xn--bcher-kva.test")), SMTP_ADDRESS_OK);
    CU_ASSERT_EQUAL(smtp_address_check_domain(SPAN_NONE), SMTP_ADDRESS_NO_DOMAIN);
    CU_ASSERT_EQUAL(smtp_address_check_domain(SPAN(DOMAIN_250 "abc")), SMTP_ADDRESS_OK); /* A24 */
    CU_ASSERT_EQUAL(smtp_address_check_domain(SPAN(DOMAIN_250 "abcd")),
                    SMTP_ADDRESS_DOMAIN_TOO_LONG);
    CU_ASSERT_EQUAL(smtp_address_check_domain(SPAN("[192.0.2.1]")), SMTP_ADDRESS_DOMAIN_BYTE);
}

static void test_every_reason_has_a_row_and_a_text(void)
{
    bool is_seen[SMTP_ADDRESS_REASONS_COUNT] = {false};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        is_seen[ROWS[i].reason] = true;
    }
    for (size_t i = 0; i < SMTP_ADDRESS_REASONS_COUNT; i++) {
        CHECK_ROW(i, is_seen[i]);
        CHECK_ROW(i, strlen(smtp_address_reason_text((enum smtp_address_reason)i)) > 5);
    }
    CHECK_PANICS(
        (void)smtp_address_reason_text((enum smtp_address_reason)SMTP_ADDRESS_REASONS_COUNT));
}

/* What is accepted can be written, and every prefix of an address is judged without looking behind
 * its end. */
static void test_accepted_can_be_written(void)
{
    static const char ALPHABET[] = "ab1.@\"\\-_[]: <>\r\n\0\x80";
    struct random random;
    random_init_seed(&random, 35);
    unsigned accepted = 0;
    for (unsigned round = 0; round < 200000; round++) {
        char text[12];
        size_t size = random_below(&random, sizeof(text) + 1);
        uint32_t alphabet_size = random_below(&random, 4) == 0 ? sizeof(ALPHABET) - 1 : 7;
        for (size_t i = 0; i < size; i++) {
            text[i] = ALPHABET[random_below(&random, alphabet_size)];
        }
        struct smtp_address address;
        if (smtp_address_parse(span_of(text, size), &address) == SMTP_ADDRESS_OK) {
            accepted++;
            CU_ASSERT_EQUAL(smtp_command_check_path(span_of(text, size)), 0);
        }
    }
    CU_ASSERT(accepted > 1000);
}

SUITE(smtp_address, test_rows, test_each_byte, test_utf8_domain_is_told,
      test_every_reason_has_a_row_and_a_text, test_accepted_can_be_written)
