/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/record_check.h"

#include <stdio.h>

#include "engine/smtp/smtp.h"
#include "tests/harness.h"

static const struct manifest MANIFEST = {.id = "b", .missing = MANIFEST_MISSING_REJECT};

static struct template *line_of(const char *text)
{
    struct template_problem problem;
    struct template *template = template_compile_line(span_of_text(text), &problem);
    ensure(template != NULL);
    return template;
}

static void test_addresses(void)
{
    static const struct {
        const char *text;
        const char *domain; /* NULL: rejected */
    } ROWS[] = {
        {"ann@example.org", "example.org"},
        {"Ann@EXAMPLE.org", "EXAMPLE.org"},
        {"\"a b\"@example.org", "example.org"},
        {"u@[192.0.2.1]", "[192.0.2.1]"},
        {"u@b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example"},
        {"u@B\xc3\x9c"
         "CHER.example",
         "xn--bcher-kva.example"},
        {"u@bu\xcc\x88"
         "cher.example",
         "xn--bcher-kva.example"}, /* brought to NFC */
        {"\xc3\xbc@example.org", NULL},
        {"", NULL},
        {"<>", NULL},
        {"ann", NULL},
        {"@example.org", NULL},
        {"a@b@c.example", NULL},
        {"a..b@example.org", NULL},
        {"<ann@example.org>", NULL},
        {"ann@example.org.", NULL},
        {"ann@example.org:25", NULL},
        {"ann@exa\nmple.org", NULL},
        {"ann@ex\xe2\x80\x8b"
         "ample.org",
         "example.org"}, /* UTS 46 maps it away */
        {"ann@\xff.example", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct record_domain domain;
        struct record_reject refused = {.reason = ""};
        int result = record_check_address(span_of_text(ROWS[i].text), &domain, &refused);
        CHECK_ROW(i, (result == 0) == (ROWS[i].domain != NULL));
        if (result == 0 && ROWS[i].domain != NULL) {
            CHECK_ROW(i, span_equal(domain.name, span_of_text(ROWS[i].domain)));
        } else {
            CHECK_ROW(i, refused.reason[0] != '\0' && refused.remedy != NULL);
        }
    }
}

/* What is short as written may be too long as A-labels: it would not fit a command line (A24). */
static void test_address_too_long_in_ascii(void)
{
    char text[512];
    struct record_domain domain;
    struct record_reject refused;
    for (size_t local = 1; local <= 64; local++) {
        struct writer writer = writer_of(text, sizeof(text));
        for (size_t i = 0; i < local; i++) {
            writer_put_byte(&writer, 'x');
        }
        writer_put_byte(&writer, '@');
        for (size_t i = 0; i < 8; i++) {
            writer_put(&writer, SPAN("\xc3\xbc"));
            writer_put(&writer, SPAN("aaaaaaaaaaaaaaaaaaa."));
        }
        writer_put(&writer, SPAN("example"));
        int result = record_check_address(writer_span(&writer), &domain, &refused);
        size_t wire = local + 1 + (result == 0 ? domain.name.size : 0);
        CHECK_ROW(local, result != 0 || wire <= SMTP_ADDRESS_MAX);
        CHECK_ROW(local, local > 1 || result == 0);
        CHECK_ROW(local, local < 64 || result != 0);
    }
}

static void test_senders_without_variables(void)
{
    static const struct {
        const char *from;
        bool is_good;
    } ROWS[] = {
        {"news@example.org", true},
        {"", true},
        {"b-{{_vid}}@example.org", true},
        {"news", false},
        {"<n@d.org>", false},
        {"n@d\xc3\xbc.org", false},
        {"{{who}}", true}, /* its time comes with the record */
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct template *sender = line_of(ROWS[i].from);
        struct record_reject refused;
        CHECK_ROW(i, (record_check_sender(sender, &refused) == 0) == ROWS[i].is_good);
        template_destroy(sender);
    }
}

static void test_values(void)
{
    static const struct {
        const char *from;
        const char *line; /* stands for the message */
        const char *value;
        const char *reason; /* NULL: good; else it holds this */
    } ROWS[] = {
        {"n@example.org", "Hi {{name}}", "Ann", NULL},
        {"n@example.org", "Hi {{name}}", "", NULL},
        {"n@example.org", "Hi {{other}}", "Ann", "other"},
        {"n@example.org", "Hi {{other|x}}", "Ann", NULL},
        {"n@example.org", "Hi {{name}}", "a\r\nBcc: x", "name"},
        {"{{name}}@example.org", "Hi", "ann", NULL},
        {"{{name}}@example.org", "Hi", "a b", "the sender"},
        {"{{name}}@example.org", "Hi", "", "the sender"},
        {"{{name}}", "Hi", "", NULL}, /* the null path */
        {"{{other}}@example.org", "Hi", "x", "other"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct template *sender = line_of(ROWS[i].from);
        struct template *template = line_of(ROWS[i].line);
        struct scan_recipient record = {.to = SPAN("ann@example.org"), .vars_count = 1};
        record.vars[0] = (struct scan_var){SPAN("name"), span_of_text(ROWS[i].value)};
        uint8_t hints[TEMPLATE_VARS_MAX] = {0};
        struct record_reject refused = {.reason = ""};
        int result = record_check_values(sender, template, &MANIFEST, &record, 0, hints, &refused);
        CHECK_ROW(i, (result == 0) == (ROWS[i].reason == NULL));
        bool is_told = ROWS[i].reason == NULL || strstr(refused.reason, ROWS[i].reason) != NULL;
        CHECK_ROW(i, is_told);
        template_destroy(sender);
        template_destroy(template);
    }
}

static void test_messages(void)
{
    static const struct {
        const char *sender;
        bool is_good;
    } ROWS[] = {{"", true}, {"a@example.org", true}, {"a", false}, {"a@b@c", false}};
    static struct scan_message message;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct record_reject refused;
        message.sender = span_of_text(ROWS[i].sender);
        CHECK_ROW(i, (record_check_message(&message, &refused) == 0) == ROWS[i].is_good);
    }
}

static void test_batches(void)
{
    static const struct {
        struct manifest manifest;
        uint64_t recipients, rejected;
        const char *words; /* NULL: good; else they hold this */
    } ROWS[] = {
        {{.max_reject_ppm = 10000}, 99, 1, NULL},
        {{.max_reject_ppm = 10000}, 98, 2, "mend what the list tells"},
        {{.max_reject = 2}, 1, 2, NULL},
        {{.max_reject = 2}, 100, 3, "max_reject"},
        {{.count = 7, .max_reject = 9}, 5, 2, NULL},
        {{.count = 7, .max_reject = 9}, 5, 1, "count says 7"},
        {{.max_reject = 9}, 0, 0, "no recipient"},
        {{.max_reject = 9}, 0, 9, "all were rejected, see the list"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char text[256];
        struct writer words = writer_of(text, sizeof(text) - 1);
        int result = record_check_batch(&ROWS[i].manifest, ROWS[i].recipients, ROWS[i].rejected,
                                        "the list", &words);
        *words.at = '\0';
        CHECK_ROW(i, (result == 0) == (ROWS[i].words == NULL));
        CHECK_ROW(i, ROWS[i].words == NULL ? text[0] == '\0' : strstr(text, ROWS[i].words) != NULL);
    }
}

SUITE(record_check, test_addresses, test_address_too_long_in_ascii, test_senders_without_variables,
      test_values, test_messages, test_batches)
