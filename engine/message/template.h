/* SPDX-License-Identifier: Apache-2.0 */
/*
 * template: a message with {{placeholders}}, compiled once per batch; immutable afterwards and read
 * by all workers.
 *
 * The MIME tree is parsed once (GMime); text parts and header values are decoded, so that a
 * placeholder split by an encoding is found; each is compiled into segments. What does not depend
 * on the recipient is written once, at compile time, in wire form (CRLF). All bytes outside of
 * placeholders stay as they are in the file, but for what follows. A compilation allocates and is
 * for one actor at a time; check and render may run on any actor, render never allocates.
 *
 * Syntax: docs/formats/TEMPLATE.md. {{name}} escaped for where it stands (HTML in text/html, none
 * in other text, RFC 2047 or quotes in headers when needed), {{{name}}} or {{&name}} raw,
 * {{name|default}}: for a value that is missing or empty, written as it stands, not escaped for
 * HTML. Names: [A-Za-z0-9_][A-Za-z0-9_.-]*, at most 64 bytes. A literal "{{" is written {{{{.
 * {{_vid}} is the recipient's ordinal in decimal; it needs no value and is no variable of the list
 * below. All other names are ordinary here, also _to, _id, _batch.
 *
 * Header safety: a value with CR, LF or NUL never enters a header (render fails for that recipient:
 * bad input, conformance 4). Headers removed: Bcc, Resent-Bcc, Return-Path, Content-Length,
 * X-Sender, X-Receiver, X-Ramjet-*. Added when missing, behind the others: Date (the batch's accept
 * time), Message-ID (<batch-id.time.ordinal@domain of From>, time: the accept time in hexadecimal
 * nanoseconds, so that every repeat carries the same, LAW 6, and another batch of that id does
 * not), MIME-Version with MIME content, and the blank line behind the header. From must be there,
 * once, and so must the other fields that RFC 5322 3.6 allows once be at most. Lines over 998
 * octets, bare CR, NUL, lone LF in a CRLF file: a problem that names the line. A file with LF line
 * ends throughout is fine. Raw UTF-8 in a header becomes encoded words where these can stand, and
 * is a problem elsewhere.
 *
 * Bodies: line ends in a value become CRLF. A 7bit or 8bit part is sent as quoted-printable for one
 * recipient when the values leave no other way: 8-bit text in a 7bit part, a line over 998 octets,
 * a line that could be a delimiter of the multipart around it. A part with placeholders in another
 * charset than UTF-8 becomes UTF-8. Attachments, attached messages, signed and encrypted parts have
 * no placeholders: their bytes stay.
 *
 * Bounds: message size by the options (file and rendered message); TEMPLATE_VARS_MAX names;
 * TEMPLATE_SEGMENTS_MAX; 64 parts with placeholders or 8-bit text; a header of 1 MB. A bug: values
 * for fewer variables than the template has, render for a line template and the reverse.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "engine/base/clock.h"

enum { TEMPLATE_VARS_MAX = 128, TEMPLATE_SEGMENTS_MAX = 4096, TEMPLATE_PIECES_MAX = 48 };

struct template_problem {
    uint64_t line;        /* of message.eml, 0 = unknown */
    bool is_memory_short; /* nothing is wrong with the text: it may be compiled another time */
    char text[256];
};

/* What is wrong with one text, in the order of its being found. */
enum { TEMPLATE_PROBLEMS_MAX = 20 };
struct template_problems {
    uint32_t count;
    struct template_problem rows[TEMPLATE_PROBLEMS_MAX];
};
/* "FILE:LINE: text" each, in lines of their own, without the last one's end. */
void template_problems_put(const struct template_problems *problems, const char *file,
                           struct writer *ret_words);

struct template_options {
    struct span batch_id;
    struct wall_time date;
    uint64_t size_max; /* 0 = none */
    struct template_problems
        *problems; /* of a failure: all that are found; NULL: the first ends it */
};

struct template;

/* NULL with the first problem filled in. `eml` is borrowed during the call only. */
struct template *template_compile(struct span eml, const struct template_options *options,
                                  struct template_problem *ret_problem);
/* A text of one line with placeholders, such as the envelope sender. */
struct template *template_compile_line(struct span line, struct template_problem *ret_problem);
void template_destroy(struct template *template); /* NULL-safe */
/* Another date than that of the options, before anything was rendered: a batch is compiled to be
 * checked, and gets its date when it is accepted: that of its Date and the time in its Message-ID.
 * Fields of the file's own stay. */
void template_set_date(struct template *template, struct wall_time date);

/* True when every recipient gets the same bytes: there is no placeholder. A Message-ID that the
 * file lacks is then one for the batch. */
bool template_is_constant(const struct template *template);
uint32_t template_vars_count(const struct template *template);
struct span template_var_name(const struct template *template, uint32_t index);
/* Whether variable `index` has a default everywhere it is used. */
bool template_var_has_default(const struct template *template, uint32_t index);

enum template_missing { TEMPLATE_MISSING_REJECT, TEMPLATE_MISSING_EMPTY, TEMPLATE_MISSING_LITERAL };

/* The values of one recipient: `values[i]` belongs to template_var_name(i); `at` NULL = not given.
 * The caller fills _to, _id, ... as well: they are ordinary names here, except that _vid and
 * Message-ID are made from `ordinal`. */
struct render_input {
    const struct span *values;
    uint32_t ordinal;
    enum template_missing missing;
    bool is_7bit; /* for a server without 8BITMIME: 8-bit parts as quoted-printable, else -EINVAL */
};

/*
 * Pieces in order make the message in wire form before dot-stuffing: CRLF line ends, ends in CRLF.
 * A piece points into the template (valid while it lives) or into the scratch memory. Scratch that
 * always suffices: four times the file, and eight times the values, each as often as it is used;
 * usually it takes the size of the header. The other fields are set on success only.
 */
struct render_output {
    struct writer scratch; /* memory of the caller, used from `at` on */
    struct span pieces[TEMPLATE_PIECES_MAX];
    uint32_t pieces_count; /* too many segments: neighbours are joined in scratch */
    uint64_t size;         /* octets in all */
    bool is_8bit;          /* some octet is not ASCII: needs 8BITMIME */
    bool is_utf8;          /* so in the header of the message: needs SMTPUTF8 */
};

/* 0; -EINVAL: this recipient's values cannot be used (problem filled in); -ENOSPC: the scratch is
 * too small. */
int template_render(const struct template *template, const struct render_input *input,
                    struct render_output *output, struct template_problem *ret_problem)
    __attribute__((warn_unused_result));
/* For template_compile_line: into the writer, e.g. the envelope sender. Same returns. */
int template_render_line(const struct template *template, const struct render_input *input,
                         struct writer *writer, struct template_problem *ret_problem)
    __attribute__((warn_unused_result));
/* Scan time: 0, or -EINVAL naming the first missing or unusable variable; the same answer as
 * template_render would give. -ENOMEM: nothing is known of this recipient. */
int template_check(const struct template *template, const struct render_input *input,
                   struct template_problem *ret_problem) __attribute__((warn_unused_result));
