/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scan time asks this for every recipient, so it looks at each way of using a variable once instead
 * of writing the message. Lengths are judged by bounds that no message can pass; when a bound is
 * not enough the message is written for real, which is rare.
 */
#include "engine/message/template.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/message/encode.h"
#include "engine/message/template_priv.h"

enum {
    /* A byte becomes at most an entity of 6 octets, or "%XX", or twice two of "=XX" for a break;
       soft breaks add a fraction. */
    GROWTH_MAX = 8,
    /* Frames of encoded words and folds: per value and per field. */
    FRAME_MAX = 256,
    SCRATCH_FIRST = 256 * 1024,
};

/* The last word: the same code that will send it, into memory of its own. */
__attribute__((noinline)) static int check_by_render(const struct template *template,
                                                     const struct render_input *input,
                                                     struct template_problem *ret_problem)
{
    for (size_t size = SCRATCH_FIRST;; size *= 2) {
        char *memory = malloc(size);
        struct render_output *output = malloc(sizeof(*output));
        int error = -ENOMEM;
        if (memory != NULL && output != NULL) {
            output->scratch = writer_of(memory, size);
            error = template_render(template, input, output, ret_problem);
        } else {
            struct writer writer = writer_of(ret_problem->text, sizeof(ret_problem->text));
            writer_put(&writer, SPAN("out of memory\0"));
        }
        free(memory);
        free(output);
        if (error != -ENOSPC) {
            return error == -ENOMEM || error == 0 ? error : -EINVAL;
        }
    }
}

/* True when no header line, no header and no message can get too long by values of at most
 * `longest` bytes. */
static bool lengths_are_safe(const struct template *template, uint64_t longest)
{
    uint64_t value_max = GROWTH_MAX * longest + FRAME_MAX;
    uint64_t line =
        2 * template->header_size_max + template->header_values_max * (3 * longest + 16);
    uint64_t headers = template->headers_size + template->values_count * value_max;
    uint64_t message = 4 * template->constants_size + template->values_count * value_max;
    return line <= ENCODE_LINE_MAX && headers <= TEMPLATE_HEADERS_SIZE_MAX &&
           message <= template->size_max;
}

int template_check(const struct template *template, const struct render_input *input,
                   struct template_problem *ret_problem)
{
    uint64_t longest = 0;
    for (uint32_t i = 0; i < template->uses_count; i++) {
        const struct segment *segment = &template->segments[template->uses[i].segment];
        struct span text = input->values[segment->index];
        size_t own = text.at != NULL ? text.size : 0;
        size_t others = segment->fallback.size + segment->literal.size;
        uint64_t size = own > others ? own : others;
        longest = size > longest ? size : longest;
    }
    bool needs_render = input->is_7bit || !lengths_are_safe(template, longest);
    if (!template->is_line && needs_render) {
        return check_by_render(template, input, ret_problem);
    }
    for (uint32_t i = 0; i < template->uses_count; i++) {
        struct template_value value;
        const struct segment *segment = &template->segments[template->uses[i].segment];
        if (template_value_take(template, segment, input, &value, ret_problem) != 0) {
            return -EINVAL;
        }
    }
    return 0;
}
