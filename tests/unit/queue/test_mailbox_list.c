/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/mailbox_list.h"

#include <stdlib.h>

#include "engine/base/random.h"
#include "queue/scan.h"
#include "tests/harness.h"

/* Fields of To and the like, and the addresses in them; "!" where it is no list. */
static const struct {
    const char *field, *want;
} LISTS[] = {
    {"a@b", "a@b;"},
    {" a@b , c@d ", "a@b;c@d;"},
    {"", ""},
    {" , ,a@b,,", "a@b;"},
    {"<a@b>", "a@b;"},
    {"Ann <a@b>", "a@b;"},
    {"Ann Bea X. <a@b>, \"Doe, John\" <c@d>", "a@b;c@d;"},
    {"=?UTF-8?B?w4k=?= <a@b>", "a@b;"},
    {"J\xc3\xb6rg <a@b>", "a@b;"},
    {"a@b (comment, with (nested) \\) comma), c@d", "a@b;c@d;"},
    {"(before) a . b (in) @ (of) c . d (after)", "a.b@c.d;"},
    {"\"a b\"@c", "\"a b\"@c;"},
    {"\"a\\\"@\"@c", "\"a\\\"@\"@c;"},
    {"Pete <\"p q\".r@s>", "\"p q\".r@s;"},
    {"a@[192.0.2.1], b@[IPv6:::1]", "a@[192.0.2.1];b@[IPv6:::1];"},
    {"<@x,@y:a@b>", "a@b;"},
    {"<>", ";"},
    {"undisclosed-recipients:;", ""},
    {"Team: a@b, Bea <c@d>; , e@f", "a@b;c@d;e@f;"},
    {"a@b,\r\n c@d,\r\n\tE\r\n <e@f>\r\n", "a@b;c@d;e@f;"},
    {"a..b@c, .d@e", "a..b@c;.d@e;"},
    {"a@b.", "a@b.;"},
    {"a", "!"},
    {"Ann Bea", "!"},
    {"a b@c", "!"},
    {"a@b c@d", "!"},
    {"a@b@c", "!"},
    {"a@", "!"},
    {"@b", "!"},
    {"<a@b", "!"},
    {"<a@b> c", "!"},
    {"<a>", "!"},
    {"a@b, (open", "a@b;!"},
    {"\"open@b", "!"},
    {"a@[1.2", "!"},
    {"a\\@b", "!"},
    {"a@b>", "!"},
    {"a\x01@b", "!"},
    {"\"a\x01\"@b", "!"},
};

static const char *addresses_of(struct span field)
{
    static char text[4096];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    struct cursor cursor = cursor_of(field);
    for (;;) {
        char address[SCAN_PATH_MAX];
        struct writer one = writer_of(address, sizeof(address));
        enum mailbox_take take = mailbox_list_take(&cursor, &one);
        if (take == MAILBOX_TAKEN) {
            writer_put(&writer, writer_span(&one));
            writer_put_byte(&writer, ';');
            continue;
        }
        writer_put(&writer, take == MAILBOX_BAD ? SPAN("!") : SPAN(""));
        *writer.at = '\0';
        return text;
    }
}

static void test_mailbox_lists(void)
{
    for (size_t i = 0; i < COUNT_OF(LISTS); i++) {
        const char *got = addresses_of(span_of_text(LISTS[i].field));
        if (strcmp(got, LISTS[i].want) != 0) {
            printf("row %zu: %s\n", i, got);
            CHECK_ROW(i, false);
        }
    }
    char text[SCAN_PATH_MAX + 16];
    memset(text, 'a', sizeof(text));
    memcpy(text + SCAN_PATH_MAX - 2, "@b,c", 4);
    struct span field = span_of(text, SCAN_PATH_MAX);
    CU_ASSERT_EQUAL(strlen(addresses_of(field)), SCAN_PATH_MAX + 1);
    text[SCAN_PATH_MAX] = 'b';
    field.size++;
    CU_ASSERT_STRING_EQUAL(addresses_of(field), "!");
}

/* Any bytes: it ends, stays inside, and gives no control characters. */
static void test_mailbox_mutations(void)
{
    static const char alphabet[] = "ab@@<>(),;:.\"\\[] \t\r\n\x01\x80";
    struct random random;
    random_init_seed(&random, 5322);
    for (uint32_t round = 0; round < 50000; round++) {
        uint32_t size = random_below(&random, 24);
        char *field = malloc(size > 0 ? size : 1);
        for (uint32_t i = 0; i < size; i++) {
            field[i] = alphabet[random_below(&random, sizeof(alphabet) - 1)];
        }
        const char *got = addresses_of(span_of(field, size));
        CHECK_ROW(round, strpbrk(got, "\r\n\x01") == NULL);
        CHECK_ROW(round, strlen(got) <= 2 * size + 1);
        free(field);
    }
}

SUITE(mailbox_list, test_mailbox_lists, test_mailbox_mutations)
