/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/message/fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/harness.h"

static const struct template_options OPTIONS = {
    .batch_id = SPAN("spring-07"),
    .date = {.ns = INT64_C(1796112000) * NS_PER_S},
    .size_max = 1 << 24,
};

static struct span with_crlf(struct span text, char *memory)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] == '\n') {
            memory[size++] = '\r';
        }
        memory[size++] = text.at[i];
    }
    return span_of(memory, size);
}

/* Who asks for all that is wrong is told the same first, and nothing when it is good. */
static void check_all_problems(struct span file, bool is_wrong, const struct template_problem *want)
{
    struct template_problems all;
    struct template_problem first;
    struct template_options options = OPTIONS;
    options.problems = &all;
    struct template *template = template_compile(file, &options, &first);
    CU_ASSERT_EQUAL(template == NULL, is_wrong);
    CU_ASSERT_EQUAL(all.count > 0, is_wrong);
    CU_ASSERT(all.count <= TEMPLATE_PROBLEMS_MAX);
    for (uint32_t i = 0; i < all.count; i++) {
        CU_ASSERT(all.rows[i].text[0] != '\0');
    }
    if (is_wrong && all.count > 0) {
        CU_ASSERT_STRING_EQUAL(first.text, want->text);
        CU_ASSERT_STRING_EQUAL(all.rows[0].text, want->text);
        CU_ASSERT_EQUAL(all.rows[0].line, want->line);
    }
    template_destroy(template);
}

struct template *fixture_compile(struct span eml, unsigned flags, struct template_problem *problem)
{
    char *memory = malloc(2 * eml.size + 1);
    CU_ASSERT_FATAL(memory != NULL);
    struct span file = (flags & FIXTURE_CRLF) != 0 ? with_crlf(eml, memory) : eml;
    struct template *template = template_compile(file, &OPTIONS, problem);
    check_all_problems(file, template == NULL, problem);
    free(memory);
    return template;
}

void fixture_values(const struct template *template, const struct fixture_var *vars,
                    struct span *values)
{
    for (uint32_t i = 0; i < template_vars_count(template); i++) {
        values[i] = (struct span){0};
        for (size_t j = 0; j < FIXTURE_VARS_MAX && vars[j].name != NULL; j++) {
            bool is_this = span_equal(template_var_name(template, i), span_of_text(vars[j].name));
            if (is_this && vars[j].value != NULL) {
                values[i] = span_of_text(vars[j].value);
            }
        }
    }
}

struct render_input fixture_input(const struct span *values, unsigned flags)
{
    struct render_input input = {.values = values, .ordinal = FIXTURE_ORDINAL};
    input.missing = (flags & FIXTURE_EMPTY) != 0     ? TEMPLATE_MISSING_EMPTY
                    : (flags & FIXTURE_LITERAL) != 0 ? TEMPLATE_MISSING_LITERAL
                                                     : TEMPLATE_MISSING_REJECT;
    input.is_7bit = (flags & FIXTURE_7BIT) != 0;
    return input;
}

static char *join(const struct render_output *output)
{
    char *text = malloc(output->size + 1);
    CU_ASSERT_FATAL(text != NULL);
    size_t size = 0;
    for (uint32_t i = 0; i < output->pieces_count; i++) {
        CU_ASSERT_FATAL(size + output->pieces[i].size <= output->size);
        CU_ASSERT(output->pieces[i].size > 0);
        memcpy(text + size, output->pieces[i].at, output->pieces[i].size);
        size += output->pieces[i].size;
    }
    CU_ASSERT_EQUAL(size, output->size);
    text[size] = '\0';
    return text;
}

static void check_wire_form(const char *text, size_t size, const struct render_output *output)
{
    bool is_8bit = false;
    size_t line = 0;
    for (size_t i = 0; i < size; i++) {
        is_8bit |= (unsigned char)text[i] >= 128;
        CU_ASSERT(text[i] != '\0');
        if (text[i] == '\n') {
            CU_ASSERT(i > 0 && text[i - 1] == '\r');
            CU_ASSERT(line <= 998 + 1);
            line = 0;
        } else {
            CU_ASSERT(text[i] != '\r' || (i + 1 < size && text[i + 1] == '\n'));
            line++;
        }
    }
    CU_ASSERT(size >= 2 && text[size - 1] == '\n');
    CU_ASSERT_EQUAL(is_8bit, output->is_8bit);
    CU_ASSERT(!output->is_utf8 || output->is_8bit);
    CU_ASSERT(output->pieces_count <= TEMPLATE_PIECES_MAX);
}

static void check_again(const struct template *template, const struct render_input *input,
                        const char *text, size_t size)
{
    struct render_output output;
    struct template_problem problem;
    char *memory = malloc(FIXTURE_SCRATCH_SIZE);
    CU_ASSERT_FATAL(memory != NULL);
    output.scratch = writer_of(memory, FIXTURE_SCRATCH_SIZE);
    CU_ASSERT_EQUAL_FATAL(template_render(template, input, &output, &problem), 0);
    char *again = join(&output);
    CU_ASSERT(output.size == size && memcmp(again, text, size) == 0);
    free(again);
    free(memory);
}

struct fixture_output fixture_render(const struct template *template,
                                     const struct fixture_var *vars, unsigned flags)
{
    struct span values[TEMPLATE_VARS_MAX];
    fixture_values(template, vars, values);
    struct render_input input = fixture_input(values, flags);
    struct fixture_output result = {0};
    struct render_output output;
    struct template_problem check_problem = {0};
    char *memory = malloc(FIXTURE_SCRATCH_SIZE);
    CU_ASSERT_FATAL(memory != NULL);
    output.scratch = writer_of(memory, FIXTURE_SCRATCH_SIZE);
    result.error = template_render(template, &input, &output, &result.problem);
    int check = template_check(template, &input, &check_problem);
    CU_ASSERT_EQUAL(check, result.error);
    CU_ASSERT_STRING_EQUAL(check_problem.text, result.problem.text);
    if (result.error == 0) {
        char *text = join(&output);
        check_wire_form(text, output.size, &output);
        check_again(template, &input, text, output.size);
        for (size_t i = 0; i < output.size; i++) {
            if (text[i] != '\r') {
                text[result.size++] = text[i];
            }
        }
        text[result.size] = '\0';
        result.text = text;
        result.pieces_count = output.pieces_count;
        result.is_8bit = output.is_8bit;
        result.is_utf8 = output.is_utf8;
    }
    free(memory);
    return result;
}

void fixture_output_deinit(struct fixture_output *output)
{
    free(output->text);
    output->text = NULL;
}

bool fixture_row(const char *eml, const struct fixture_var *vars, unsigned flags, const char *want)
{
    struct template_problem problem;
    struct template *template = fixture_compile(span_of_text(eml), flags, &problem);
    if (template == NULL) {
        (void)fprintf(stderr, "line %llu: %s\n", (unsigned long long)problem.line, problem.text);
        return false;
    }
    struct fixture_output output = fixture_render(template, vars, flags);
    bool is_equal = output.error == 0 && strcmp(output.text, want) == 0;
    if (!is_equal) {
        (void)fprintf(stderr, "want:\n%s\ngot (%d %s):\n%s\n", want, output.error,
                      output.problem.text, output.text ? output.text : "");
    }
    fixture_output_deinit(&output);
    template_destroy(template);
    return is_equal;
}

bool fixture_row_fails(const char *eml, const struct fixture_var *vars, unsigned flags,
                       const char *want, uint64_t want_line)
{
    struct template_problem problem = {0};
    struct template *template = fixture_compile(span_of_text(eml), flags, &problem);
    int error = -EINVAL;
    if (template != NULL) {
        struct fixture_output output = fixture_render(template, vars, flags);
        error = output.error;
        problem = output.problem;
        fixture_output_deinit(&output);
    }
    bool is_equal =
        error == -EINVAL && strstr(problem.text, want) != NULL && problem.line == want_line;
    if (!is_equal) {
        (void)fprintf(stderr, "want line %llu: %s\ngot (%d) line %llu: %s\n",
                      (unsigned long long)want_line, want, error, (unsigned long long)problem.line,
                      problem.text);
    }
    template_destroy(template);
    return is_equal;
}
