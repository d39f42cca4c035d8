/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/dot.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/*
 * States by what was last seen:
 *
 *   TEXT --CR--> CR --LF--> LINE --"."--> DOT --CR--> DOT_CR --LF--> the end
 *
 * Any other byte leads back to TEXT (a CR to CR). The dot that leaves LINE is never content; the CR
 * that leads to DOT_CR is held back until the next byte tells whether it is.
 *
 * In TEXT only the pair LF "." is looked for, sixteen places at a time: lines that do not begin
 * with a dot need no state.
 */
void dot_finder_init(struct dot_finder *finder)
{
    finder->state = DOT_LINE;
}

/* The first LF followed by a dot, or NULL. */
static const char *pair_find(const char *at, const char *end)
{
#ifdef __SSE2__
    const __m128i lf = _mm_set1_epi8('\n');
    const __m128i dot = _mm_set1_epi8('.');
    for (; end - at > 16; at += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(at + 1));
        __m128i both = _mm_and_si128(_mm_cmpeq_epi8(here, lf), _mm_cmpeq_epi8(next, dot));
        unsigned mask = (unsigned)_mm_movemask_epi8(both);
        if (mask != 0) {
            return at + __builtin_ctz(mask);
        }
    }
#endif
    for (; end - at > 1; at++) {
        if (at[0] == '\n' && at[1] == '.') {
            return at;
        }
    }
    return NULL;
}

static enum dot_state tail_state(const char *start, const char *end)
{
    ensure(start < end);
    if (end[-1] == '\r') {
        return DOT_CR;
    }
    return end - start > 1 && end[-2] == '\r' && end[-1] == '\n' ? DOT_LINE : DOT_TEXT;
}

/* From TEXT to the next place that matters; returns where to go on. */
static const char *text_skip(struct dot_finder *finder, const char *at, const char *end)
{
    const char *pair = pair_find(at, end);
    if (!pair) {
        finder->state = tail_state(at, end);
        return end;
    }
    if (pair > at && pair[-1] == '\r') {
        finder->state = DOT_LINE;
        return pair + 1;
    }
    return pair + 2; /* a bare LF: its dot is text */
}

/* DOT and DOT_CR: at most two bytes that are content only if the end does not follow. */
static enum dot_step dot_resolve(struct dot_finder *finder, struct cursor *cursor,
                                 struct span *ret_piece)
{
    *ret_piece = SPAN_NONE;
    if (finder->state == DOT_DOT && cursor_peek(cursor) == '\r') {
        cursor->at++;
        finder->state = DOT_DOT_CR;
    }
    if (cursor->at == cursor->end) {
        return DOT_MORE;
    }
    if (finder->state == DOT_DOT) {
        finder->state = DOT_TEXT;
        return DOT_PIECE;
    }
    if (*cursor->at == '\n') {
        cursor->at++;
        dot_finder_init(finder);
        return DOT_END;
    }
    *ret_piece = SPAN("\r");
    finder->state = DOT_CR;
    return DOT_PIECE;
}

enum dot_step dot_finder_next(struct dot_finder *finder, struct cursor *cursor,
                              struct span *ret_piece)
{
    if (finder->state == DOT_DOT || finder->state == DOT_DOT_CR) {
        return dot_resolve(finder, cursor, ret_piece);
    }
    const char *start = cursor->at;
    const char *at = start;
    while (at < cursor->end) {
        if (finder->state == DOT_TEXT) {
            at = text_skip(finder, at, cursor->end);
            continue;
        }
        char byte = *at++;
        if (finder->state == DOT_LINE && byte == '.') {
            finder->state = DOT_DOT;
            *ret_piece = span_of(start, (size_t)(at - 1 - start));
            cursor->at = at;
            return DOT_PIECE;
        }
        bool is_line = finder->state == DOT_CR && byte == '\n';
        finder->state = is_line ? DOT_LINE : byte == '\r' ? DOT_CR : DOT_TEXT;
    }
    *ret_piece = span_of(start, (size_t)(at - start));
    cursor->at = at;
    return DOT_MORE;
}
