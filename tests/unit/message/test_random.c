/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random messages, values and mutations, from fixed seeds. What must hold for all of them: no
 * crash; what compiles renders the same twice, in wire form; template_check gives the same answer
 * as the render (fixture_render asserts all that); what GMime reads back from a random message is
 * what the values say.
 */
#include "engine/message/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "engine/message/mime.h"
#include "engine/message/placeholder.h"
#include "tests/harness.h"
#include "tests/unit/message/fixture.h"

#define X10 "xxxxxxxxxx"
#define X50 X10 X10 X10 X10 X10
#define X200 X50 X50 X50 X50

static const char *const VALUES[] = {
    NULL,
    "",
    "Ann",
    "J\xc3\xb6rg",
    "a & <b> \"c\" 'd'",
    "x\ny",
    "\r\n",
    "\n--b\nX: y\n\nz",
    "--b--",
    "-",
    " ",
    " x ",
    "\t",
    "=?utf-8?q?x?=",
    "a@b.example",
    "a@b, c@d",
    "\"q q\"@x",
    "Lee, Ann",
    "\xff",
    "\x01",
    "%0d%0a",
    "\xe2\x80\xa8",
    X50,
    X200 X200 X200 X200 X200,
    "x " X50 " \xf0\x9f\x98\x80 " X50,
    "{{name}}",
    ".",
    "..",
    "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3"
    "\xa4",
};
static const char *const NAMES[] = {"a", "b", "_to", "c.d"};

static const char *const FIELDS[] = {
    "Subject: {{a}}\n",
    "Subject: Hello {{a|you}}, {{b}}\n",
    "Subject: =?utf-8?q?=C3=A4_{{a}}?= {{{b}}}\n",
    "Subject: plain\n",
    "Subject: \xc3\xa4\n",
    "To: {{a}} <{{_to}}>\n",
    "To: \"{{a}} X.\" <{{_to}}>, {{b}} <{{{_to}}}>\n",
    "To: {{_to}}\n",
    "To: {{{a}}}\n",
    "Cc: Group {{a}}: <{{_to}}>, =?utf-8?q?=C3=A4?= <x@y>;\n",
    "Reply-To: \xc3\xa4 <{{_to}}>\n",
    "List-Unsubscribe: <mailto:{{_vid}}@x>, <https://x/{{a}}/{{{b}}}>\n",
    "Feedback-ID: {{a}}:{{b}}\n",
    "X-Any:{{a}}{{b}}\n",
    "In-Reply-To: <{{a}}@x>\n",
    "Bcc: {{a}}\n",
};
static const char *const TYPES[] = {
    "",
    "Content-Type: text/plain\n",
    "Content-Type: text/html; charset=us-ascii\n",
    "Content-Type: text/html; charset=utf-8\n",
    "Content-Type: text/plain; charset=iso-8859-1\n",
    "Content-Type: image/x\n",
    "Content-Type: text/plain;\n format=flowed\n",
};
static const char *const ENCODINGS[] = {
    "",
    "Content-Transfer-Encoding: 7bit\n",
    "Content-Transfer-Encoding: 8bit\n",
    "Content-Transfer-Encoding: quoted-printable\n",
    "Content-Transfer-Encoding: base64\n",
};
static const char *const TEXTS[] = {
    "Hello {{a}},\n",
    "{{b}}{{a}}",
    "{{{a}}} {{&b}}\n",
    "-{{a}}-\n",
    "{{a}}--b\n",
    " {{c.d|none}} \n",
    "x\n",
    "\n",
    X50 " {{a}} " X50 "\n",
    X200 "\n",
    X200 X200 X200 X200 X50 "{{b}}\n",
    "=3D{{=\na}}=\n",
    "e3thfX0g\n",
    "\xc3\xa4\n",
    "{{{{",
    "--\n",
    "{{_vid}}\n",
};

#define PICK(random, table) (table)[random_below(random, COUNT_OF(table))]

static void put_part(struct random *random, struct writer *writer)
{
    writer_put(writer, span_of_text(PICK(random, TYPES)));
    writer_put(writer, span_of_text(PICK(random, ENCODINGS)));
    writer_put(writer, SPAN("\n"));
    for (uint32_t i = random_below(random, 6); i > 0; i--) {
        writer_put(writer, span_of_text(PICK(random, TEXTS)));
    }
}

static struct span random_message(struct random *random, char *memory, size_t size)
{
    struct writer writer = writer_of(memory, size);
    writer_put(&writer,
               random_below(random, 2) == 0 ? SPAN(FIXTURE_HEAD) : SPAN("From: {{a|x}} <a@b>\n"));
    for (uint32_t i = random_below(random, 4); i > 0; i--) {
        writer_put(&writer, span_of_text(PICK(random, FIELDS)));
    }
    if (random_below(random, 2) == 0) {
        put_part(random, &writer);
        return writer_span(&writer);
    }
    writer_put(&writer, SPAN("Content-Type: multipart/alternative; boundary=b\n\n"));
    for (uint32_t i = 1 + random_below(random, 3); i > 0; i--) {
        writer_put(&writer, SPAN("--b\n"));
        put_part(random, &writer);
        writer_put(&writer, SPAN("\n"));
    }
    writer_put(&writer, SPAN("--b--\n"));
    CU_ASSERT(!writer.is_full);
    return writer_span(&writer);
}

static void random_vars(struct random *random, struct fixture_var vars[FIXTURE_VARS_MAX])
{
    memset(vars, 0, FIXTURE_VARS_MAX * sizeof(*vars));
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        vars[i] = (struct fixture_var){NAMES[i], PICK(random, VALUES)};
        /* Most runs should get to the end. */
        if (random_below(random, 3) != 0) {
            vars[i].value = i == 2 ? "a@b.example" : VALUES[2 + random_below(random, 3)];
        }
    }
}

static unsigned random_flags(struct random *random)
{
    static const unsigned FLAGS[] = {0,
                                     FIXTURE_CRLF,
                                     FIXTURE_EMPTY,
                                     FIXTURE_LITERAL,
                                     FIXTURE_7BIT,
                                     FIXTURE_LITERAL | FIXTURE_7BIT};
    return PICK(random, FLAGS);
}

/* Returns how often a render came to its end. */
static size_t run(struct random *random, struct span eml)
{
    struct template_problem problem = {0};
    unsigned flags = random_flags(random);
    struct template *template = fixture_compile(eml, flags, &problem);
    if (template == NULL) {
        CU_ASSERT(problem.text[0] != '\0');
        return 0;
    }
    size_t count = 0;
    for (int i = 0; i < 4; i++) {
        struct fixture_var vars[FIXTURE_VARS_MAX];
        random_vars(random, vars);
        struct fixture_output output = fixture_render(template, vars, flags);
        CU_ASSERT(output.error == 0 || output.error == -EINVAL);
        count += output.error == 0;
        fixture_output_deinit(&output);
    }
    template_destroy(template);
    return count;
}

static void test_messages(void)
{
    struct random random;
    random_init_seed(&random, 1);
    char memory[16384];
    size_t count = 0;
    for (int i = 0; i < 2000; i++) {
        count += run(&random, random_message(&random, memory, sizeof(memory)));
    }
    CU_ASSERT(count > 1500);
}

/* Bytes changed, taken out, doubled: anything may come, nothing may break. */
static void mutate(struct random *random, char *text, size_t *size, size_t size_max)
{
    static const char BYTES[] = {'\0', '\r', '\n', ' ',  '\t',   '{',    '}',    '|', '=',
                                 '?',  '-',  '"',  '<',  '>',    '(',    ')',    '[', ']',
                                 ',',  ';',  ':',  '\\', '\x80', '\xc3', '\xff', 'a', '&'};
    for (uint32_t i = 1 + random_below(random, 4); i > 0 && *size > 1; i--) {
        size_t at = random_below(random, (uint32_t)*size);
        size_t length = 1 + random_below(random, 8);
        length = at + length > *size ? *size - at : length;
        switch (random_below(random, 4)) {
        case 0:
            text[at] = PICK(random, BYTES);
            break;
        case 1:
            memmove(text + at, text + at + length, *size - at - length);
            *size -= length;
            break;
        case 2:
            if (*size + length <= size_max) {
                memmove(text + at + length, text + at, *size - at);
                *size += length;
            }
            break;
        default:
            text[at] = (char)random_below(random, 256);
            break;
        }
    }
}

static void test_mutations(void)
{
    struct random random;
    random_init_seed(&random, 2);
    char memory[16384];
    size_t count = 0;
    for (int i = 0; i < 6000; i++) {
        struct span eml = random_message(&random, memory, sizeof(memory) / 2);
        size_t size = eml.size;
        mutate(&random, memory, &size, sizeof(memory));
        count += run(&random, span_of(memory, size));
    }
    CU_ASSERT(count > 1000);
}

/* Every prefix of a message with everything in it. */
static void test_prefixes(void)
{
    static const char EML[] = FIXTURE_HEAD
        "To: \"{{a}} X.\" <{{_to}}>, =?utf-8?q?{{b}}?= <x@y>\nSubject: {{a|you}} =?utf-8?b?w6Q=?=\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; "
        "charset=iso-8859-1\n"
        "Content-Transfer-Encoding: quoted-printable\n\n=E4 "
        "{{=\na}}\n--b\nContent-Transfer-Encoding: base64\n\n"
        "e3thfX0g\n--b\n\n{{{a}}} {{{{\n--b--\n";
    struct random random;
    random_init_seed(&random, 3);
    for (size_t size = 0; size < sizeof(EML); size++) {
        (void)run(&random, span_of(EML, size));
    }
}

/* The value as a reader of the part gets it, put in with plain text search and the rules of the
 * header of template.h. */
static void put_expected(struct writer *writer, struct span text, const char *value)
{
    size_t at = 0;
    for (;;) {
        struct placeholder found = placeholder_find(text, at);
        writer_put(writer, span_of(text.at + at, found.at - at));
        if (found.kind == PLACEHOLDER_NONE) {
            return;
        }
        for (const char *i = value; *i != '\0'; i++) {
            if (*i == '\n') {
                writer_put_byte(writer, '\r');
            }
            writer_put_byte(writer, *i);
        }
        at = found.end;
    }
}

static struct span body_decoded(struct span message, char **ret_memory)
{
    const char *reason = NULL;
    struct mime *mime = mime_parse(message, &reason);
    CU_ASSERT_PTR_NOT_NULL_FATAL(mime);
    CU_ASSERT_EQUAL_FATAL(mime_parts_count(mime), 1);
    const struct mime_part *part = mime_part(mime, 0);
    struct span body = span_of(message.at + part->body_at, part->body_size);
    if (part->encoding == MIME_ENCODING_QP || part->encoding == MIME_ENCODING_BASE64) {
        *ret_memory = mime_decode_body(part->encoding, body, &body.size);
        CU_ASSERT_FATAL(*ret_memory != NULL);
        body.at = *ret_memory;
    }
    mime_destroy(mime);
    return body;
}

/* One text in each encoding: a reader must get exactly the text with the values in it. */
static void check_reading(struct span text, const char *encoding, struct span encoded,
                          const char *value)
{
    char memory[32768];
    char expected_memory[32768];
    char message_memory[32768];
    struct writer eml = writer_of(memory, sizeof(memory));
    writer_put_format(&eml,
                      "From: a@b\r\nContent-Type: text/plain; "
                      "charset=utf-8\r\nContent-Transfer-Encoding: %s\r\n\r\n",
                      encoding);
    writer_put(&eml, encoded);
    struct writer expected = writer_of(expected_memory, sizeof(expected_memory));
    put_expected(&expected, text, value);
    struct template_options options = {.batch_id = SPAN("b")};
    struct template_problem problem;
    struct template *template = template_compile(writer_span(&eml), &options, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    struct span values[1] = {span_of_text(value)};
    struct render_input input = fixture_input(values, 0);
    struct render_output output;
    char scratch[32768];
    output.scratch = writer_of(scratch, sizeof(scratch));
    CU_ASSERT_EQUAL_FATAL(template_render(template, &input, &output, &problem), 0);
    struct writer message = writer_of(message_memory, sizeof(message_memory));
    for (uint32_t i = 0; i < output.pieces_count; i++) {
        writer_put(&message, output.pieces[i]);
    }
    char *decoded = NULL;
    struct span got = body_decoded(writer_span(&message), &decoded);
    CU_ASSERT(span_equal(got, writer_span(&expected)));
    free(decoded);
    template_destroy(template);
}

static void test_readers(void)
{
    static const char *const WORDS[] = {"{{a}}", "{{a}}",    " ", "-", "=",  "\r\n",
                                        "word",  "\xc3\xa4", X50, ".", "\t", "--"};
    struct random random;
    random_init_seed(&random, 4);
    for (int row = 0; row < 1500; row++) {
        char text_memory[2048];
        char qp_memory[8192];
        struct writer text = writer_of(text_memory, sizeof(text_memory));
        for (uint32_t i = 1 + random_below(&random, 16); i > 0; i--) {
            writer_put(&text, span_of_text(PICK(&random, WORDS)));
        }
        writer_put(&text, SPAN("{{a}}\r\n"));
        struct writer qp = writer_of(qp_memory, sizeof(qp_memory));
        for (const char *i = text_memory; i < text.at; i++) {
            bool is_break = *i == '\r' || *i == '\n';
            if (is_break) {
                writer_put_byte(&qp, *i);
            } else {
                /* Every octet encoded, a soft break behind some: placeholders come apart. */
                writer_put_format(&qp, "=%02X%s", (unsigned char)*i,
                                  random_below(&random, 4) == 0 ? "=\r\n" : "");
            }
        }
        const char *value = PICK(&random, VALUES);
        bool is_usable =
            value != NULL && strchr(value, '\r') == NULL && strchr(value, '\xff') == NULL;
        value = is_usable ? value : "J\xc3\xb6rg \n x";
        check_reading(writer_span(&text), "8bit", writer_span(&text), value);
        check_reading(writer_span(&text), "7bit", writer_span(&text), value);
        check_reading(writer_span(&text), "quoted-printable", writer_span(&qp), value);
    }
}

SUITE(random, test_messages, test_mutations, test_prefixes, test_readers)
