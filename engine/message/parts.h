/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parts: which parts of a message are templates, how their bodies will be written, and what that
 * changes in their headers. For the compile side of this folder only; works on the list of mime.h.
 *
 * A part is compiled when it is text, not an attachment, not inside an attached message or a signed
 * part, and holds a placeholder. A part with 8-bit text and no placeholder is compiled too, as one
 * constant, so that it can go to a server without 8BITMIME (conformance E4). Everything else keeps
 * its bytes.
 *
 * Bounds: TEMPLATE_PARTS_MAX compiled parts. Owned by one call of template_compile.
 */
#pragma once

#include "engine/message/builder.h"
#include "engine/message/mime.h"

/* A change in a header: [at, at + size) of the wire form is replaced. Two per part. */
struct parts_edit {
    size_t at;
    size_t size;
    uint32_t part;
    struct span normal;
    struct span switched;
};

struct parts_plan {
    uint32_t leaf;    /* in the list of mime.h */
    struct span text; /* decoded and in UTF-8; lives in the template */
    struct segment group;
    bool is_template; /* has placeholders */
    bool is_recoded;  /* the charset was changed: `text` is not in the wire form */
};

enum parts_version { PARTS_VERSION_KEEP, PARTS_VERSION_SWITCHED, PARTS_VERSION_ADD };

struct parts {
    struct mime *mime;
    struct parts_plan plans[TEMPLATE_PARTS_MAX];
    uint32_t plans_count;
    struct parts_edit edits[2 * TEMPLATE_PARTS_MAX]; /* in the order of the text */
    uint32_t edits_count;
    enum parts_version version; /* whether the message becomes MIME by these edits */
};

/* Parses builder->text, whose body starts at `body_at`. parts_deinit is due in any case. */
int parts_init(struct parts *parts, struct builder *builder, size_t body_at)
    __attribute__((warn_unused_result));
void parts_deinit(struct parts *parts);
/* The first edit at exactly `at`, from edits[from]; NULL = none. */
const struct parts_edit *parts_edit_at(const struct parts *parts, size_t at, uint32_t from);
int parts_put_edit(struct builder *builder, const struct parts_edit *edit)
    __attribute__((warn_unused_result));
/* All of the wire form from `body_at` on, the blank line behind the header included. */
int parts_put_body(const struct parts *parts, struct builder *builder, size_t body_at)
    __attribute__((warn_unused_result));
