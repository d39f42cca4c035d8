/* SPDX-License-Identifier: Apache-2.0 */
/*
 * builder: the row of segments of a template while it grows. For the compile side of this folder
 * only.
 *
 * Owned by one call of template_compile. Spans given to it must live in the template (builder_keep,
 * builder_copy) or be literals. A failure fills in the problem; all later results of the same
 * call are then of no use, but for the problems that are found where builder_goes_on. Everything
 * returns 0 or -EINVAL. Bounds: TEMPLATE_SEGMENTS_MAX
 * segments, TEMPLATE_VARS_MAX variables.
 */
#pragma once

#include "engine/message/template_priv.h"

struct builder {
    struct template *template;
    struct template_problem *problem;
    const struct template_options *options; /* NULL for a line */
    struct span text;                       /* the message in wire form */
    uint32_t segments_max;                  /* allocated */
    uint32_t vars_max;                      /* allocated */
    uint32_t merge_from;                    /* constants behind this segment may grow */
    uint32_t merge_from_outer;              /* so before the open group */
    bool is_over;                           /* a bound: nothing more is to be found */
    size_t bad_at;         /* builder_text: offset of the placeholder that failed */
    struct span date_line; /* the Date field that was added; empty: none */
    struct span id_start;  /* of the Message-ID that was added, up to the time in it */
};

struct builder_style {
    enum value_context context;
    bool is_qp; /* constants are encoded here and now */
};

__attribute__((format(printf, 3, 4))) int builder_fail(struct builder *builder, uint64_t line,
                                                       const char *format, ...);
/* Nothing speaks against the message. */
int builder_no_memory(struct builder *builder);
/* Behind a failure: it is noted, and others are to be looked for. */
bool builder_goes_on(struct builder *builder);
/* Whether some were noted. */
bool builder_has_failed(const struct builder *builder);
/* The number of the line of the wire form that holds `at`. */
uint64_t builder_line(const struct builder *builder, const char *at);
/* Memory that lives as long as the template; NULL with the problem filled in. */
char *builder_keep(struct builder *builder, size_t size);
int builder_copy(struct builder *builder, struct span text, struct span *ret_copy)
    __attribute__((warn_unused_result));

int builder_constant(struct builder *builder, struct span text) __attribute__((warn_unused_result));
int builder_choice(struct builder *builder, uint32_t part, struct span normal, struct span switched)
    __attribute__((warn_unused_result));
int builder_ordinal(struct builder *builder, struct span before)
    __attribute__((warn_unused_result));
int builder_open(struct builder *builder, const struct segment *group, uint32_t *ret_group)
    __attribute__((warn_unused_result));
void builder_close(struct builder *builder, uint32_t group);
/* Takes the open group back, with all that is in it. */
void builder_cancel(struct builder *builder, uint32_t group);
/* Where the row of segments stands; and back to there, behind a failure. */
struct builder_mark {
    uint32_t segments_count, merge_from, merge_from_outer;
};
struct builder_mark builder_mark(const struct builder *builder);
void builder_rewind(struct builder *builder, struct builder_mark mark);
/* Text with placeholders; a failure leaves the place in bad_at, for the caller to set the problem's
 * line. */
int builder_text(struct builder *builder, struct span text, struct builder_style style)
    __attribute__((warn_unused_result));
