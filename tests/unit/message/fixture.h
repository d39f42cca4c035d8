/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixture: a message file and values in, the rendered message as text out, for the tests of this
 * room.
 *
 * Rows are written with LF line ends for the eye; FIXTURE_CRLF gives the template the same file
 * with CRLF. What a render gives is checked to be in wire form (CRLF only, ends in CRLF, no line
 * over 998 octets, sizes and flags true), then compared with LF line ends.
 */
#pragma once

#include "engine/message/template.h"

enum { FIXTURE_VARS_MAX = 8, FIXTURE_SCRATCH_SIZE = 1 << 18 };

struct fixture_var {
    const char *name;
    const char *value; /* NULL = not given */
};

struct fixture_output {
    int error;
    struct template_problem problem;
    char *text; /* LF line ends, NUL-terminated; free with fixture_output_deinit */
    size_t size;
    uint32_t pieces_count;
    bool is_8bit;
    bool is_utf8;
};

enum fixture_flags {
    FIXTURE_CRLF = 1u << 0,
    FIXTURE_EMPTY = 1u << 1,   /* TEMPLATE_MISSING_EMPTY */
    FIXTURE_LITERAL = 1u << 2, /* TEMPLATE_MISSING_LITERAL */
    FIXTURE_7BIT = 1u << 3,
};

/* From, Date and Message-ID: nothing is added to a message that starts with these. */
#define FIXTURE_HEAD "From: a@b.example\nDate: now\nMessage-ID: <i@b.example>\n"
#define FIXTURE_ORDINAL 7

struct template *fixture_compile(struct span eml, unsigned flags, struct template_problem *problem);
/* The values of the template's variables, in its order, into values[TEMPLATE_VARS_MAX]. */
void fixture_values(const struct template *template, const struct fixture_var *vars,
                    struct span *values);
struct render_input fixture_input(const struct span *values, unsigned flags);
/* Renders twice and checks that both give the same; checks that template_check agrees. */
struct fixture_output fixture_render(const struct template *template,
                                     const struct fixture_var *vars, unsigned flags);
void fixture_output_deinit(struct fixture_output *output);
/* Compiles, renders and compares; says on standard error what differs. */
bool fixture_row(const char *eml, const struct fixture_var *vars, unsigned flags, const char *want);
/* Compiles and renders; the render must fail with this text, or, when `is_compile`, the
 * compilation. */
bool fixture_row_fails(const char *eml, const struct fixture_var *vars, unsigned flags,
                       const char *want, uint64_t want_line);
