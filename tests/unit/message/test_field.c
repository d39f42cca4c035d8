/* SPDX-License-Identifier: Apache-2.0 */
/* The header of a message: what stays, goes, is added, and how values stand in it. */
#include "engine/message/field.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/unit/message/fixture.h"

#define ANN                                                                                        \
    {                                                                                              \
        {                                                                                          \
            "name", "Ann"                                                                          \
        }                                                                                          \
    }
#define JOERG                                                                                      \
    {                                                                                              \
        {                                                                                          \
            "name", "J\xc3\xb6rg"                                                                  \
        }                                                                                          \
    }
#define DATE "Date: Tue, 01 Dec 2026 08:00:00 +0000\n"
#define X10 "xxxxxxxxxx"
#define X50 X10 X10 X10 X10 X10
#define X200 X50 X50 X50 X50

static const struct {
    const char *eml;
    struct fixture_var vars[FIXTURE_VARS_MAX];
    unsigned flags;
    const char *want;
} ROWS[] = {
    /* What stays as it is. */
    {FIXTURE_HEAD "\n", {{0}}, 0, FIXTURE_HEAD "\n"},
    {FIXTURE_HEAD "Subject:  a\n\tb  \n\nx", {{0}}, 0, FIXTURE_HEAD "Subject:  a\n\tb  \n\nx\n"},
    {FIXTURE_HEAD "X-Empty:\nX-Blank: \n\n\n\n",
     {{0}},
     0,
     FIXTURE_HEAD "X-Empty:\nX-Blank: \n\n\n\n"},
    {FIXTURE_HEAD "Subject: =?iso-8859-1?q?=E4_?=\n =?utf-8?b?w6Q=?=\n\n",
     {{0}},
     0,
     FIXTURE_HEAD "Subject: =?iso-8859-1?q?=E4_?=\n =?utf-8?b?w6Q=?=\n\n"},
    {FIXTURE_HEAD "To: =?utf-8?q?=C3=A4?=\n  <a@b>  ,c@d\n\n",
     {{0}},
     0,
     FIXTURE_HEAD "To: =?utf-8?q?=C3=A4?=\n  <a@b>  ,c@d\n\n"},
    {FIXTURE_HEAD, {{0}}, 0, FIXTURE_HEAD "\n"},
    {FIXTURE_HEAD "\n", {{0}}, FIXTURE_CRLF, FIXTURE_HEAD "\n"},
    {FIXTURE_HEAD "X: y", {{0}}, 0, FIXTURE_HEAD "X: y\n\n"},

    /* What goes, what is added. */
    {"Bcc: a@b\nRETURN-PATH: <x>\ncontent-length: 5\nX-Sender: a\nX-Receiver: b\n c\n" FIXTURE_HEAD
     "X-Ramjet-Pool: p\nx-ramjet-: q\nResent-Bcc: z\nX-Ramjet: stays\n\nx\n",
     {{0}},
     0,
     FIXTURE_HEAD "X-Ramjet: stays\n\nx\n"},
    {"Bcc: {{gone}}\n" FIXTURE_HEAD "\n", {{0}}, 0, FIXTURE_HEAD "\n"},
    {"From: A <a@b.example>\n\nx\n",
     {{0}},
     0,
     "From: A <a@b.example>\n" DATE "Message-ID: <spring-07.18ed125908d10000@b.example>\n\nx\n"},
    {"From: a@b.example (A)\n\n{{name}}\n", ANN, 0,
     "From: a@b.example (A)\n" DATE
     "Message-ID: <spring-07.18ed125908d10000.7@b.example>\n\nAnn\n"},
    {"From: {{name}} <a@b.example>\n\nx\n", ANN, 0,
     "From: Ann <a@b.example>\n" DATE
     "Message-ID: <spring-07.18ed125908d10000.7@b.example>\n\nx\n"},
    {"From: \"a@x, y\"\n <{{name}}@b.example>, c@d\n\nx\n", ANN, 0,
     "From: \"a@x, y\" <Ann@b.example>, c@d\n" DATE
     "Message-ID: <spring-07.18ed125908d10000.7@b.example>\n\nx\n"},
    {"From: a@b.example\n\n{{_vid}}\n",
     {{0}},
     0,
     "From: a@b.example\n" DATE "Message-ID: <spring-07.18ed125908d10000.7@b.example>\n\n7\n"},
    {"From: a@b.example\n\n{{{{_vid}}\n",
     {{0}},
     0,
     "From: a@b.example\n" DATE "Message-ID: <spring-07.18ed125908d10000@b.example>\n\n{{_vid}}\n"},
    {FIXTURE_HEAD "Content-Type: text/plain\n\nx\n",
     {{0}},
     0,
     FIXTURE_HEAD "Content-Type: text/plain\nMIME-Version: 1.0\n\nx\n"},
    {FIXTURE_HEAD "mime-version: 1.0 (x)\nContent-Type: text/plain\n\nx\n",
     {{0}},
     0,
     FIXTURE_HEAD "mime-version: 1.0 (x)\nContent-Type: text/plain\n\nx\n"},

    /* Unstructured text. */
    {FIXTURE_HEAD "Subject: Hello {{name}}\n\n", ANN, 0, FIXTURE_HEAD "Subject: Hello Ann\n\n"},
    {FIXTURE_HEAD "Subject:{{name}}\n\n", ANN, 0, FIXTURE_HEAD "Subject:Ann\n\n"},
    {FIXTURE_HEAD "Subject: {{name}}\n\n", {{"name", ""}}, 0, FIXTURE_HEAD "Subject: \n\n"},
    {FIXTURE_HEAD "Subject: {{{name}}} {{&name}}\n\n",
     {{"name", "a&b"}},
     0,
     FIXTURE_HEAD "Subject: a&b a&b\n\n"},
    {FIXTURE_HEAD "Subject: {{name|you}}!\n\n", {{0}}, 0, FIXTURE_HEAD "Subject: you!\n\n"},
    {FIXTURE_HEAD "Subject: {{name|you}}!\n\n",
     {{"name", ""}},
     0,
     FIXTURE_HEAD "Subject: you!\n\n"},
    {FIXTURE_HEAD "Subject: {{name|you}}!\n\n", ANN, 0, FIXTURE_HEAD "Subject: Ann!\n\n"},
    {FIXTURE_HEAD "Subject: a {{name}} b\n\n",
     {{0}},
     FIXTURE_EMPTY,
     FIXTURE_HEAD "Subject: a  b\n\n"},
    {FIXTURE_HEAD "Subject: a {{ name }} b\n\n",
     {{0}},
     FIXTURE_LITERAL,
     FIXTURE_HEAD "Subject: a {{ name }} b\n\n"},
    {FIXTURE_HEAD "Subject: {{{{name}} {{name}}\n\n", ANN, 0,
     FIXTURE_HEAD "Subject: {{name}} Ann\n\n"},
    {FIXTURE_HEAD "Subject: Hello {{name}}\n\n", JOERG, 0,
     FIXTURE_HEAD "Subject: Hello =?UTF-8?B?SsO2cmc=?=\n\n"},
    {FIXTURE_HEAD "Subject: =?utf-8?q?Hello_{{name}}?=\n\n", ANN, 0,
     FIXTURE_HEAD "Subject: Hello Ann\n\n"},
    {FIXTURE_HEAD "Subject: =?utf-8?q?Hello_{{na?=\n =?utf-8?q?me}}?=\n\n", ANN, 0,
     FIXTURE_HEAD "Subject: Hello Ann\n\n"},
    {FIXTURE_HEAD "Subject: =?utf-8?b?R3LDvMOfZSB7e25hbWV9fQ==?=\n\n", ANN, 0,
     FIXTURE_HEAD "Subject: =?UTF-8?B?R3LDvMOfZQ==?= Ann\n\n"},
    {FIXTURE_HEAD "Subject: =?iso-8859-1?q?=E4?= {{name}}\n\n", ANN, 0,
     FIXTURE_HEAD "Subject: =?UTF-8?B?w6Q=?= Ann\n\n"},
    {FIXTURE_HEAD "Subject: {{name}}\n\n",
     {{"name", "=?utf-8?q?Fake?="}},
     0,
     FIXTURE_HEAD "Subject: =?UTF-8?B?PT91dGYtOD9xP0Zha2U/PQ==?=\n\n"},
    {FIXTURE_HEAD "Subject: {{name}}\n\n",
     {{"name", "%0d%0aBcc: x@y"}},
     0,
     FIXTURE_HEAD "Subject: %0d%0aBcc: x@y\n\n"},
    {FIXTURE_HEAD "Subject: {{name}}\n\n",
     {{"name", "a\xe2\x80\xa8"
               "b"}},
     0,
     FIXTURE_HEAD "Subject: =?UTF-8?B?YeKAqGI=?=\n\n"},
    {FIXTURE_HEAD "Subject: a\n {{name}}\n\n", ANN, 0, FIXTURE_HEAD "Subject: a Ann\n\n"},
    {FIXTURE_HEAD "Subject: {{name}} " X50 "\n\n",
     {{"name", X50}},
     0,
     FIXTURE_HEAD "Subject: " X50 "\n " X50 "\n\n"},
    {FIXTURE_HEAD "Subject: {{name}}\n\n",
     {{"name", X50 X50 " y"}},
     0,
     FIXTURE_HEAD "Subject: " X50 X50 "\n y\n\n"},
    {FIXTURE_HEAD "Subject: Gr\xc3\xbc\xc3\x9f\x65\n\n",
     {{0}},
     0,
     FIXTURE_HEAD "Subject: =?UTF-8?B?R3LDvMOfZQ==?=\n\n"},
    {FIXTURE_HEAD "X-Note: {{name}}\n\n", JOERG, 0,
     FIXTURE_HEAD "X-Note: =?UTF-8?B?SsO2cmc=?=\n\n"},

    /* Addresses. */
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "Ann Lee"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: Ann Lee <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "Lee, Ann"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"Lee, Ann\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "\"A\" \\"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"\\\"A\\\" \\\\\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "x <e@vil>,"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"x <e@vil>,\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", ""}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "J\xc3\xb6rg"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: =?UTF-8?B?SsO2cmc=?= <a@x>\n\n"},
    {FIXTURE_HEAD "To: \"Dr. {{name}}\" <{{_to}}>\n\n",
     {{"name", "Ann"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"Dr. Ann\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: \"{{name}} O'Hara\" <{{_to}}>\n\n",
     {{"name", "Ann"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: Ann O'Hara <a@x>\n\n"},
    {FIXTURE_HEAD "To: =?utf-8?q?Frau_{{name}}=2C?= <{{_to}}>\n\n",
     {{"name", "Ann"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"Frau Ann,\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: \"=?utf-8?q?Frau_{{name}}?=\" <{{_to}}>\n\n",
     {{"name", "Ann"}, {"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: Frau Ann <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{name|Dear, \"customer\" <}} <{{_to}}>\n\n",
     {{"_to", "a@x"}},
     0,
     FIXTURE_HEAD "To: \"Dear, \\\"customer\\\" <\" <a@x>\n\n"},
    {FIXTURE_HEAD "To: {{_to}}\n\n", {{"_to", "\"a b\"@x"}}, 0, FIXTURE_HEAD "To: \"a b\"@x\n\n"},
    {FIXTURE_HEAD "To: {{_to}}, b@c, Group {{name}}: {{_to}}, <b@c>;\n\n",
     {{"_to", "a@x"}, {"name", "z."}},
     0,
     FIXTURE_HEAD "To: a@x, b@c, \"Group z.\": a@x, <b@c>;\n\n"},
    {FIXTURE_HEAD "To: <{{{_to}}}>\n\n",
     {{"_to", "a@x>, <b@y"}},
     0,
     FIXTURE_HEAD "To: <a@x>, <b@y>\n\n"},
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{0}},
     FIXTURE_LITERAL,
     FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n"},
    {FIXTURE_HEAD "Reply-To: <r+{{_vid}}@x>\n\n", {{0}}, 0, FIXTURE_HEAD "Reply-To: <r+7@x>\n\n"},
    {FIXTURE_HEAD "Reply-To: J\xc3\xb6rg <r@x>\n\n",
     {{0}},
     0,
     FIXTURE_HEAD "Reply-To: =?UTF-8?B?SsO2cmc=?= <r@x>\n\n"},
    {FIXTURE_HEAD "Cc: {{name}} <a@x>, {{name}} <b@x>\n\n",
     {{"name", X10 X10 X10 " " X10}},
     0,
     FIXTURE_HEAD "Cc: " X10 X10 X10 " " X10 " <a@x>,\n " X10 X10 X10 " " X10 " <b@x>\n\n"},

    /* Structured text. */
    {FIXTURE_HEAD
     "List-Unsubscribe: <mailto:u-{{_vid}}@x>,\n <https://x/?u={{name}}&{{{name}}}>\n\n",
     {{"name", "a=b"}},
     0,
     FIXTURE_HEAD "List-Unsubscribe: <mailto:u-7@x>, <https://x/?u=a=b&a=b>\n\n"},
    {FIXTURE_HEAD "List-Unsubscribe: <https://x/{{name}}>\n\n",
     {{"name", "J\xc3\xb6 >,<"}},
     0,
     FIXTURE_HEAD "List-Unsubscribe: <https://x/J%C3%B6%20%3E,%3C>\n\n"},
    {FIXTURE_HEAD "Feedback-ID: {{name}}:x:y\n\n", ANN, 0, FIXTURE_HEAD "Feedback-ID: Ann:x:y\n\n"},
    {FIXTURE_HEAD "In-Reply-To: <{{name}}@x>\n\n", ANN, 0, FIXTURE_HEAD "In-Reply-To: <Ann@x>\n\n"},
    {"From: a@b\nDate: d\nMessage-ID: <{{name}}.{{_vid}}@b>\n\n", ANN, 0,
     "From: a@b\nDate: d\nMessage-ID: <Ann.7@b>\n\n"},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, fixture_row(ROWS[i].eml, ROWS[i].vars, ROWS[i].flags, ROWS[i].want));
        CHECK_ROW(
            i, fixture_row(ROWS[i].eml, ROWS[i].vars, ROWS[i].flags | FIXTURE_CRLF, ROWS[i].want));
    }
}

static const struct {
    const char *eml;
    struct fixture_var vars[FIXTURE_VARS_MAX];
    const char *want;
    uint64_t line;
} FAILURES[] = {
    {"", {{0}}, "no From", 0},
    {"\n", {{0}}, "no From", 0},
    {"x", {{0}}, "neither a header field", 1},
    {"Subject: x\n\n", {{0}}, "no From", 0},
    {FIXTURE_HEAD "no header\n", {{0}}, "neither a header field", 4},
    {FIXTURE_HEAD "Hello: \n\x01: y\n\n", {{0}}, "neither a header field", 5},
    {FIXTURE_HEAD ": y\n\n", {{0}}, "neither a header field", 4},
    {FIXTURE_HEAD "Bcc : x\n\n", {{0}}, "neither a header field", 4},
    {"From a@b Thu Jan  1 00:00:00 1970\n" FIXTURE_HEAD "\n", {{0}}, "neither a header field", 1},
    {" x\n" FIXTURE_HEAD "\n", {{0}}, "neither a header field", 1},
    {FIXTURE_HEAD "X: y\n \t\n\n", {{0}}, "blanks only", 5},
    {FIXTURE_HEAD "From: c@d\n\n", {{0}}, "a second From", 4},
    {FIXTURE_HEAD "date: x\n\n", {{0}}, "a second Date", 4},
    {FIXTURE_HEAD "Message-Id: x\n\n", {{0}}, "a second Message-ID", 4},
    {FIXTURE_HEAD "Subject: x\nSUBJECT: x\n\n", {{0}}, "a second Subject", 5},
    {"From: a\n\n", {{0}}, "give a Message-ID", 0},
    {"From: a@{{name}}\n\n", ANN, "give a Message-ID", 0},
    {"From: \n\n", {{0}}, "give a Message-ID", 0},
    {FIXTURE_HEAD "Subject: \xe4\n\n", {{0}}, "neither ASCII nor UTF-8", 4},
    {FIXTURE_HEAD "X: y\nSubject: {{x\n\n", {{0}}, "not closed", 5},
    {FIXTURE_HEAD "Subject: {{#if x}}\n\n", {{0}}, "not supported", 4},
    {FIXTURE_HEAD "Content-Type: text/{{x}}\n\n", {{0}}, "cannot stand in Content-Type", 4},
    {FIXTURE_HEAD "To: a@x (the {{name}})\n\n", {{"name", "x)"}}, "\"name\" is not an address", 0},
    {FIXTURE_HEAD "To: (the {{name}}) a@x\n\n", ANN, "comment", 4},
    {FIXTURE_HEAD "To: <{{_to|a b}}>\n\n", {{0}}, "the default of \"_to\" is not an address", 4},
    /* Conformance F1: what no encoded word can carry asks for SMTPUTF8. */
    {FIXTURE_HEAD "To: {{name}} <{{_to}}>\n\n",
     {{"name", "\xc3\xa4"}, {"_to", "\xc3\xa4@b"}},
     "\"_to\" is not ASCII, and stands in an address: that needs SMTPUTF8",
     0},
    {FIXTURE_HEAD "To: \xc3\xa4@b\n\n", {{0}}, "needs SMTPUTF8", 4},
    {FIXTURE_HEAD "To: a@b (\xc3\xa4)\n\n", {{0}}, "needs SMTPUTF8", 4},
    {FIXTURE_HEAD "References: <\xc3\xa4@b>\n\n", {{0}}, "needs SMTPUTF8", 4},
    {FIXTURE_HEAD "List-Help: <{{u|\xc3\xa4}}>\n\n", {{0}}, "needs SMTPUTF8", 4},
    {FIXTURE_HEAD "Content-Type: text/plain; name=\xc3\xa4\n\n", {{0}}, "needs SMTPUTF8", 4},
    {FIXTURE_HEAD "Feedback-ID: {{x|\x07}}\n\n",
     {{0}},
     "the default of \"x\" holds a character",
     4},
    /* Injection: no value ever ends a header line. */
    {FIXTURE_HEAD "Subject: {{name}}\n\n",
     {{"name", "a\r\nBcc: x@y"}},
     "\"name\" holds a line break",
     0},
    {FIXTURE_HEAD "Subject: {{{name}}}\n\n",
     {{"name", "a\nBcc: x@y"}},
     "\"name\" holds a line break",
     0},
    {FIXTURE_HEAD "Subject: {{name}}\n\n", {{"name", "a\r"}}, "\"name\" holds a line break", 0},
    {FIXTURE_HEAD "To: {{{name}}} <a@b>\n\n",
     {{"name", "a\n b"}},
     "\"name\" holds a line break",
     0},
    {FIXTURE_HEAD "List-Help: <{{name}}>\n\n",
     {{"name", "a\n b"}},
     "\"name\" holds a line break",
     0},
    {FIXTURE_HEAD "X-Any: {{name}}\n\n", {{"name", "\n"}}, "\"name\" holds a line break", 0},
    {FIXTURE_HEAD "Subject: {{name}}\n\n", {{"name", "\xff"}}, "\"name\" is not UTF-8", 0},
    {FIXTURE_HEAD "To: <{{_to}}>\n\n", {{"_to", "a@b>, <c@d"}}, "\"_to\" is not an address", 0},
    {FIXTURE_HEAD "To: {{_to}}\n\n", {{"_to", "a@b, c@d"}}, "\"_to\" is not an address", 0},
    {FIXTURE_HEAD "Feedback-ID: {{name}}\n\n", JOERG, "\"name\" holds a character", 0},
    {FIXTURE_HEAD "In-Reply-To: <{{name}}>\n\n",
     {{"name", "a> <b"}},
     "\"name\" holds a character",
     0},
    {FIXTURE_HEAD "List-Help: <{{{name}}}>\n\n",
     {{"name", "a> <b"}},
     "\"name\" holds a character",
     0},
    {FIXTURE_HEAD "Subject: {{name}}\n\n", {{0}}, "\"name\" is not given", 0},
    {FIXTURE_HEAD "Subject: {{name|x}} {{name}}\n\n", {{0}}, "\"name\" is not given", 0},
    {FIXTURE_HEAD "Feedback-ID: {{name}}\n\n",
     {{"name", X200 X200 X200 X200 X200}},
     "over 998 octets",
     0},
};

static void test_failures(void)
{
    for (size_t i = 0; i < COUNT_OF(FAILURES); i++) {
        CHECK_ROW(i, fixture_row_fails(FAILURES[i].eml, FAILURES[i].vars, 0, FAILURES[i].want,
                                       FAILURES[i].line));
        CHECK_ROW(i, fixture_row_fails(FAILURES[i].eml, FAILURES[i].vars, FIXTURE_CRLF,
                                       FAILURES[i].want, FAILURES[i].line));
    }
}

/* The header's bounds hold for the file and for the message. */
static void test_bounds(void)
{
    enum { FILE_SIZE = 1200 * 1000 };
    char *eml = malloc(FILE_SIZE + 1);
    CU_ASSERT_FATAL(eml != NULL);
    struct writer writer = writer_of(eml, FILE_SIZE);
    writer_put(&writer, span_of_text(FIXTURE_HEAD));
    while (writer_size(&writer) < 1000 * 1000) {
        writer_put(&writer, SPAN("X-Filler: " X200 X200 X50 "\n"));
    }
    writer_put(&writer, SPAN("X-Filler: {{name}}\n"));
    struct writer twice = writer;
    writer_put(&writer, SPAN("\n{{name}}\n"));
    struct template_problem problem = {0};
    struct template *template = fixture_compile(writer_span(&writer), 0, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    char *value = malloc(60001);
    CU_ASSERT_FATAL(value != NULL);
    memset(value, 'x', 60000);
    value[60000] = '\0';
    struct span values[1] = {span_of(value, 60000)};
    struct render_input input = fixture_input(values, 0);
    CU_ASSERT_EQUAL(template_check(template, &input, &problem), -22);
    CU_ASSERT_STRING_EQUAL(problem.text, "the header is longer than 1 MB");
    values[0] = span_of(value, 100);
    CU_ASSERT_EQUAL(template_check(template, &input, &problem), 0);
    template_destroy(template);
    while (writer_size(&twice) < 1100 * 1000) {
        writer_put(&twice, SPAN("X-Filler: " X200 X200 X50 "\n"));
    }
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&twice), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "the header is longer"));
    free(value);
    free(eml);
}

SUITE(field, test_rows, test_failures, test_bounds)
