/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: message, NUL, then values with a NUL behind each. What is rendered may always go
 * behind DATA, and check says what render does.
 */
#include <errno.h>

#include "engine/message/template.h"
#include "engine/smtp/smtp_body.h"
#include "tests/fuzz/fuzz.h"

enum { MESSAGE_MAX = 64 * 1024, SCRATCH_MAX = 4 * 1024 * 1024 };

static struct span take_text(struct cursor *cursor)
{
    struct span text = cursor_take_until(cursor, '\0');
    (void)cursor_take_byte(cursor, '\0');
    return text;
}

static void check_output(const struct render_output *output)
{
    struct smtp_body_checker checker = {0};
    uint64_t size = 0;
    for (uint32_t i = 0; i < output->pieces_count; i++) {
        smtp_body_check(&checker, output->pieces[i]);
        size += output->pieces[i].size;
    }
    uint32_t flags = smtp_body_check_end(&checker);
    ensure(size == output->size);
    ensure((flags & ~(uint32_t)SMTP_BODY_8BIT) == 0);
    ensure(output->is_8bit || (flags & SMTP_BODY_8BIT) == 0);
}

static void check_render(const struct template *template, struct cursor *cursor, uint8_t flags)
{
    static char scratch[SCRATCH_MAX];
    struct span values[TEMPLATE_VARS_MAX] = {0};
    uint32_t count = template_vars_count(template);
    ensure(count <= TEMPLATE_VARS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        values[i] = cursor_left(cursor) > 0 ? take_text(cursor) : span_of(NULL, 0);
    }
    struct render_input input = {.values = values,
                                 .ordinal = 7,
                                 .missing = (enum template_missing)((flags >> 1) % 3),
                                 .is_7bit = (flags & 1) != 0};
    struct render_output output = {.scratch = writer_of(scratch, sizeof(scratch))};
    struct template_problem problems[2];
    int result = template_render(template, &input, &output, &problems[0]);
    int checked = template_check(template, &input, &problems[1]);
    ensure(result != -ENOSPC);
    /* What a server can take is not known at scan time. */
    ensure(input.is_7bit ? result != 0 || checked == 0 : result == checked);
    if (result == 0) {
        check_output(&output);
    }
}

void fuzz_one(struct span input)
{
    struct cursor cursor = cursor_of(input);
    uint8_t flags = fuzz_take(&cursor);
    struct span message = take_text(&cursor);
    struct template_options options = {
        .batch_id = SPAN("fuzz"), .date = {.ns = 1800000000 * NS_PER_S}, .size_max = MESSAGE_MAX};
    struct template_problem problem;
    struct template *template = (flags & 0x80) != 0 ? template_compile_line(message, &problem)
                                                    : template_compile(message, &options, &problem);
    if (template == NULL) {
        ensure(problem.text[0] != '\0');
        return;
    }
    if ((flags & 0x80) == 0) {
        check_render(template, &cursor, flags);
    }
    template_destroy(template);
}
