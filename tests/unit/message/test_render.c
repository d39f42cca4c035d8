/* SPDX-License-Identifier: Apache-2.0 */
/* What a render gives back besides the bytes: pieces, scratch, flags; line templates; the list of
 * variables. */
#include "engine/message/template.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"
#include "tests/unit/message/fixture.h"

#define X10 "xxxxxxxxxx"
#define X50 X10 X10 X10 X10 X10
#define X200 X50 X50 X50 X50
#define HEAD FIXTURE_HEAD "MIME-Version: 1.0\n"

static struct template *compile(const char *eml)
{
    struct template_problem problem;
    struct template *template = fixture_compile(span_of_text(eml), 0, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    return template;
}

/* Every kind of segment, slow paths included. */
static const char EVERYTHING[] = HEAD
    "Subject: {{name}} {{text}}\nTo: {{name}} <{{_to}}>\n"
    "Content-Type: multipart/mixed; boundary=b\n\n"
    "--b\n\nHello {{name}} " X200 "\n" X200 "\n{{text}}\n"
    "--b\nContent-Type: text/html\nContent-Transfer-Encoding: quoted-printable\n\n{{name}} " X50
    "=\n" X50 "\n"
    "--b\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\ne3tuYW1lfX0=\n"
    "--b\nContent-Type: image/x\n\n" X200 "\n" X200 "\n" X200 "\n" X200 "\n--b--\n";

static const struct fixture_var VARS[FIXTURE_VARS_MAX] = {{"name", "J\xc3\xb6rg & \"Co\""},
                                                          {"text", X50 " " X50 " \xe2\x82\xac"},
                                                          {"_to", "j@x.example"}};

/* Whatever the room, nothing is written behind it; too little is told, enough is used to the last
 * octet. */
static void test_scratch_sizes(void)
{
    struct template *template = compile(EVERYTHING);
    struct span values[TEMPLATE_VARS_MAX];
    fixture_values(template, VARS, values);
    struct render_input input = fixture_input(values, 0);
    struct render_output output;
    struct template_problem problem;
    int error = -ENOSPC;
    size_t room = 0;
    for (; error == -ENOSPC && room < 8192; room++) {
        char *memory = malloc(room + 1);
        CU_ASSERT_FATAL(memory != NULL);
        memory[room] = '#';
        output.scratch = writer_of(memory, room);
        error = template_render(template, &input, &output, &problem);
        CHECK_ROW(room, error == 0 || error == -ENOSPC);
        CHECK_ROW(room, memory[room] == '#');
        CHECK_ROW(room, error == 0 || output.pieces_count == 0);
        CHECK_ROW(room, error == 0 || output.scratch.at == output.scratch.start);
        free(memory);
    }
    CU_ASSERT_EQUAL(error, 0);
    CU_ASSERT(room > 100);
    template_destroy(template);
}

/* The caller may keep other things in front in the same memory. */
static void test_scratch_in_use(void)
{
    struct template *template = compile(FIXTURE_HEAD "\n{{name}}\n");
    struct span values[1] = {SPAN("Ann")};
    struct render_input input = fixture_input(values, 0);
    struct render_output output;
    struct template_problem problem;
    char memory[256];
    output.scratch = writer_of(memory, sizeof(memory));
    writer_put(&output.scratch, SPAN("kept"));
    CU_ASSERT_EQUAL_FATAL(template_render(template, &input, &output, &problem), 0);
    CU_ASSERT_EQUAL(memcmp(memory, "keptFrom:", 9), 0);
    CU_ASSERT_EQUAL(writer_size(&output.scratch), 4 + output.size);
    template_destroy(template);
}

/* Long constants are lent, not copied. */
static void test_lent_constants(void)
{
    struct template *template =
        compile(FIXTURE_HEAD "\n" X200 "\n" X200 "{{name}}" X200 "\n" X200 "\n" X200 "\n");
    struct span values[1] = {SPAN("Ann")};
    struct render_input input = fixture_input(values, 0);
    struct render_output output;
    struct template_problem problem;
    char memory[256];
    output.scratch = writer_of(memory, sizeof(memory));
    CU_ASSERT_EQUAL_FATAL(template_render(template, &input, &output, &problem), 0);
    CU_ASSERT(output.size > 1000);
    CU_ASSERT(writer_size(&output.scratch) < 100);
    CU_ASSERT(output.pieces_count <= 5);
    template_destroy(template);
}

/* More long constants than pieces: the longest stay lent, the others are joined in the scratch. */
static void test_many_segments(void)
{
    enum { EML_SIZE = 1 << 18 };
    char *eml = malloc(EML_SIZE);
    CU_ASSERT_FATAL(eml != NULL);
    struct writer writer = writer_of(eml, EML_SIZE);
    writer_put(&writer, span_of_text(FIXTURE_HEAD "\n"));
    for (int i = 0; i < 300; i++) {
        writer_put(&writer, i % 10 == 0 ? SPAN(X200 X200 X200) : SPAN(X200));
        writer_put(&writer, SPAN("{{name}}\n"));
    }
    writer_put_byte(&writer, '\0');
    CU_ASSERT(!writer.is_full);
    struct template *template = compile(eml);
    struct fixture_var vars[FIXTURE_VARS_MAX] = {{"name", "Ann"}};
    struct fixture_output output = fixture_render(template, vars, 0);
    CU_ASSERT_EQUAL_FATAL(output.error, 0);
    CU_ASSERT(output.pieces_count > TEMPLATE_PIECES_MAX - 4);
    CU_ASSERT_EQUAL(output.size, strlen(FIXTURE_HEAD) + 1 + 300 * (200 + 3 + 1) + 30 * 400);
    fixture_output_deinit(&output);
    template_destroy(template);
    free(eml);
}

static void test_too_many(void)
{
    enum { EML_SIZE = 1 << 18 };
    char *eml = malloc(EML_SIZE);
    CU_ASSERT_FATAL(eml != NULL);
    struct template_problem problem;
    struct writer writer = writer_of(eml, EML_SIZE);
    writer_put(&writer, span_of_text(FIXTURE_HEAD "\n"));
    for (int i = 0; i < 4100; i++) {
        writer_put(&writer, SPAN("{{name}}\n"));
    }
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&writer), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "too many placeholders"));
    writer = writer_of(eml, EML_SIZE);
    writer_put(&writer, span_of_text(FIXTURE_HEAD "\n"));
    for (int i = 0; i <= TEMPLATE_VARS_MAX; i++) {
        writer_put_format(&writer, "{{v%d}}\n", i);
    }
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&writer), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "more than 128 variables"));
    CU_ASSERT_EQUAL(problem.line, 5 + TEMPLATE_VARS_MAX);
    writer = writer_of(eml, EML_SIZE);
    writer_put(&writer, span_of_text(HEAD "Content-Type: multipart/mixed; boundary=b\n\n"));
    for (int i = 0; i < 65; i++) {
        writer_put(&writer, SPAN("--b\n\n{{name}}\n"));
    }
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&writer), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "more than 64 parts"));
    while (writer_size(&writer) < EML_SIZE - 8) {
        writer_put(&writer, SPAN("\n--b\n"));
    }
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&writer), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "too many lines start with"));
    free(eml);
}

static void test_nested_too_deep(void)
{
    enum { EML_SIZE = 1 << 16 };
    char *eml = malloc(EML_SIZE);
    CU_ASSERT_FATAL(eml != NULL);
    struct template_problem problem;
    struct writer writer = writer_of(eml, EML_SIZE);
    writer_put(&writer, span_of_text(HEAD));
    for (int i = 0; i < 40; i++) {
        writer_put_format(&writer, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i);
    }
    writer_put(&writer, SPAN("\nx\n"));
    CU_ASSERT_PTR_NULL(fixture_compile(writer_span(&writer), 0, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "nested too deep"));
    free(eml);
}

static void test_size_limit(void)
{
    struct template_options options = {.batch_id = SPAN("b"), .size_max = 200};
    struct template_problem problem;
    char memory[1024];
    CU_ASSERT_PTR_NULL(template_compile(SPAN(FIXTURE_HEAD "\n" X200), &options, &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "longer than 200 bytes"));
    struct template *template =
        template_compile(SPAN(FIXTURE_HEAD "\n{{name}}"), &options, &problem);
    CU_ASSERT_PTR_NOT_NULL_FATAL(template);
    struct render_output output;
    struct span values[1] = {SPAN(X50 X50)};
    struct render_input input = fixture_input(values, 0);
    for (size_t i = 0; i < 2; i++) {
        output.scratch = writer_of(memory, sizeof(memory));
        int want = i == 0 ? 0 : -EINVAL;
        CU_ASSERT_EQUAL(template_render(template, &input, &output, &problem), want);
        CU_ASSERT_EQUAL(template_check(template, &input, &problem), want);
        values[0] = SPAN(X200);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "over the size limit"));
    template_destroy(template);
}

static void test_line(void)
{
    static const struct {
        const char *line;
        struct fixture_var vars[FIXTURE_VARS_MAX];
        const char *want;    /* NULL = the render fails ... */
        const char *problem; /* ... with this */
    } ROWS[] = {
        {"", {{0}}, "", NULL},
        {"a@b", {{0}}, "a@b", NULL},
        {"b-{{_vid}}.{{_batch}}@x", {{"_batch", "spring"}}, "b-7.spring@x", NULL},
        {"{{name|none}}@x", {{0}}, "none@x", NULL},
        {"{{{{x}}@x", {{0}}, "{{x}}@x", NULL},
        {"{{name}}", {{"name", "<&>\xc3\xa4"}}, "<&>\xc3\xa4", NULL},
        {"{{name}}@x", {{0}}, NULL, "\"name\" is not given and has no default"},
        {"{{name}}@x", {{"name", "a\nb"}}, NULL, "\"name\" holds a line break"},
        {"{{name}}@x", {{"name", "\xff"}}, NULL, "\"name\" is not UTF-8"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct template_problem problem;
        struct template *template = template_compile_line(span_of_text(ROWS[i].line), &problem);
        CU_ASSERT_PTR_NOT_NULL_FATAL(template);
        struct span values[TEMPLATE_VARS_MAX];
        fixture_values(template, ROWS[i].vars, values);
        struct render_input input = fixture_input(values, 0);
        char memory[64];
        struct writer writer = writer_of(memory, sizeof(memory));
        int want = ROWS[i].want != NULL ? 0 : -EINVAL;
        CHECK_ROW(i, template_render_line(template, &input, &writer, &problem) == want);
        CHECK_ROW(i, want != 0 || span_equal(writer_span(&writer), span_of_text(ROWS[i].want)));
        CHECK_ROW(i, want == 0 || strcmp(problem.text, ROWS[i].problem) == 0);
        CHECK_ROW(i, template_check(template, &input, &problem) == want);
        if (want == 0 && ROWS[i].want[0] != '\0') {
            writer = writer_of(memory, strlen(ROWS[i].want) - 1);
            CHECK_ROW(i, template_render_line(template, &input, &writer, &problem) == -ENOSPC);
        }
        template_destroy(template);
    }
    struct template_problem problem = {0};
    CU_ASSERT_PTR_NULL(template_compile_line(SPAN("a\nb"), &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "line break"));
    CU_ASSERT_PTR_NULL(template_compile_line(SPAN("{{a"), &problem));
    CU_ASSERT_PTR_NOT_NULL(strstr(problem.text, "not closed"));
    template_destroy(NULL);
}

static void test_vars(void)
{
    struct template *template =
        compile(HEAD "Subject: {{b|x}} {{a}}\nContent-Type: text/html\n\n{{{a|}}} {{b|y}} {{c}} "
                     "{{_vid}} {{_to}}\n");
    static const struct {
        const char *name;
        bool has_default;
    } WANT[] = {{"b", true}, {"a", false}, {"c", false}, {"_to", false}};
    CU_ASSERT_EQUAL_FATAL(template_vars_count(template), COUNT_OF(WANT));
    for (uint32_t i = 0; i < COUNT_OF(WANT); i++) {
        CHECK_ROW(i, span_equal(template_var_name(template, i), span_of_text(WANT[i].name)));
        CHECK_ROW(i, template_var_has_default(template, i) == WANT[i].has_default);
    }
    CHECK_PANICS((void)template_var_name(template, COUNT_OF(WANT)));
    CHECK_PANICS((void)template_var_has_default(template, COUNT_OF(WANT)));
    template_destroy(template);
}

static void test_constant(void)
{
    static const struct {
        const char *eml;
        bool is_constant;
    } ROWS[] = {
        {FIXTURE_HEAD "\nx\n", true},
        {"From: a@b\n\nx\n", true},
        {FIXTURE_HEAD "Subject: \xc3\xa4\n\n{{{{x\n", true},
        {FIXTURE_HEAD "\n{{x}}\n", false},
        {FIXTURE_HEAD "\n{{x|default}}\n", false},
        {FIXTURE_HEAD "\n{{_vid}}\n", false},
        {FIXTURE_HEAD "Bcc: {{x}}\n\n", true},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct template *template = compile(ROWS[i].eml);
        CHECK_ROW(i, template_is_constant(template) == ROWS[i].is_constant);
        template_destroy(template);
    }
}

/* A batch id that is no dot-atom still makes a valid Message-ID. */
static void test_message_id(void)
{
    static const struct {
        struct span batch_id;
        const char *want;
    } ROWS[] = {
        {SPAN("spring-07"), "<spring-07.0000000000000000@b>"},
        {SPAN("a.b"), "<a.b.0000000000000000@b>"},
        {SPAN(".a..b."), "<-a.-b-.0000000000000000@b>"},
        {SPAN("a b@c\r\n"), "<a-b-c--.0000000000000000@b>"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct template_options options = {.batch_id = ROWS[i].batch_id};
        struct template_problem problem;
        struct template *template = template_compile(SPAN("From: a@b\n\nx"), &options, &problem);
        CU_ASSERT_PTR_NOT_NULL_FATAL(template);
        struct fixture_var none[FIXTURE_VARS_MAX] = {{0}};
        struct fixture_output output = fixture_render(template, none, 0);
        CHECK_ROW(i, strstr(output.text, ROWS[i].want) != NULL);
        fixture_output_deinit(&output);
        template_destroy(template);
    }
}

/* The right function for the kind of template. */
static void test_misuse_panics(void)
{
    struct template_problem problem;
    struct template *line = template_compile_line(SPAN("x"), &problem);
    struct template *message = compile(FIXTURE_HEAD "\n");
    struct render_input input = fixture_input(NULL, 0);
    struct render_output output = {0};
    struct writer writer = {0};
    CHECK_PANICS((void)!template_render(line, &input, &output, &problem));
    CHECK_PANICS((void)!template_render_line(message, &input, &writer, &problem));
    template_destroy(line);
    template_destroy(message);
}

SUITE(render, test_scratch_sizes, test_scratch_in_use, test_lent_constants, test_many_segments,
      test_too_many, test_nested_too_deep, test_size_limit, test_line, test_vars, test_constant,
      test_message_id, test_misuse_panics)
