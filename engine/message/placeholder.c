/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/placeholder.h"

static struct placeholder bad(struct placeholder found, const char *reason)
{
    found.kind = PLACEHOLDER_BAD;
    found.reason = reason;
    return found;
}

static bool is_name_byte(char byte, bool is_first)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '_' ||
           (!is_first && (byte == '.' || byte == '-'));
}

static const char *name_problem(struct span name)
{
    if (name.size == 0) {
        return "a placeholder has no name";
    }
    if (memchr("#^/!>*.", name.at[0], 7) != NULL || span_equal(name, SPAN("else"))) {
        return "conditions, loops, comments and partials are not supported";
    }
    if (name.size > PLACEHOLDER_NAME_MAX) {
        return "a placeholder's name is longer than 64 bytes";
    }
    for (size_t i = 0; i < name.size; i++) {
        if (!is_name_byte(name.at[i], i == 0)) {
            return "a placeholder's name holds more than letters, digits, \"_\", \".\" and \"-\"; "
                   "a literal \"{{\" is written \"{{{{\"";
        }
    }
    return NULL;
}

/* Names of filters are kept free, so that a default of today does not change its meaning later. */
static const char *fallback_problem(struct span fallback)
{
    static const char *const FILTERS[] = {"url", "html", "upper", "lower", "date"};
    if (fallback.size > PLACEHOLDER_DEFAULT_MAX) {
        return "a placeholder's default is longer than 1024 bytes";
    }
    struct span word = {.at = fallback.at, .size = span_find(fallback, ':')};
    for (size_t i = 0; i < COUNT_OF(FILTERS); i++) {
        if (span_equal(word, span_of_text(FILTERS[i]))) {
            return "filters are not supported (url, html, upper, lower and date cannot be "
                   "defaults)";
        }
    }
    return NULL;
}

static struct placeholder value_read(struct span inner, struct placeholder found)
{
    size_t bar = span_find(inner, '|');
    found.name = span_trim(span_of(inner.at, bar));
    found.has_fallback = bar < inner.size;
    if (found.has_fallback) {
        found.fallback = span_trim(span_of(inner.at + bar + 1, inner.size - bar - 1));
    }
    const char *reason = name_problem(found.name);
    if (reason == NULL && found.has_fallback) {
        reason = fallback_problem(found.fallback);
    }
    return reason == NULL ? found : bad(found, reason);
}

static size_t text_find(struct span text, size_t from, struct span needle)
{
    const char *at = memmem(text.at + from, text.size - from, needle.at, needle.size);
    return at == NULL ? text.size : (size_t)(at - text.at);
}

struct placeholder placeholder_find(struct span text, size_t from)
{
    ensure(from <= text.size);
    struct placeholder found = {
        .at = text_find(text, from, SPAN("{{")), .name = SPAN_NONE, .fallback = SPAN_NONE};
    struct span rest = span_of(text.at + found.at, text.size - found.at);
    found.end = text.size;
    if (rest.size == 0) {
        return found;
    }
    if (span_starts(rest, SPAN("{{{{"))) {
        found.kind = PLACEHOLDER_LITERAL;
        found.end = found.at + 4;
        return found;
    }
    found.kind = PLACEHOLDER_VALUE;
    bool is_triple = span_starts(rest, SPAN("{{{"));
    size_t open = is_triple ? 3 : 2;
    struct span close = is_triple ? SPAN("}}}") : SPAN("}}");
    size_t closed = text_find(rest, open, close);
    struct span inner = span_of(rest.at + open, closed - open);
    if (closed == rest.size || span_find_break(inner) < inner.size) {
        return bad(found,
                   "a \"{{\" is not closed on its line; a literal \"{{\" is written \"{{{{\"");
    }
    found.end = found.at + closed + close.size;
    found.is_raw = is_triple;
    if (!is_triple && inner.size > 0 && inner.at[0] == '&') {
        found.is_raw = true;
        inner = span_of(inner.at + 1, inner.size - 1);
    }
    return value_read(inner, found);
}

bool placeholder_is_in(struct span text)
{
    return text_find(text, 0, SPAN("{{")) < text.size;
}
