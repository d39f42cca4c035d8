/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast reader of NDJSON records of the plain shape (docs/decisions/0002-ndjson-fast-path.md):
 * known keys, each once, strings without escapes, variables without nesting. It never judges:
 * whatever is not plain is "unusual" and goes to yajl, which accepts it or says what is wrong.
 *
 *   record = "{" member *("," member) "}"        member = string ":" value
 *   value  = string / number / "true" / "false" / "null"          (RFC 8259, no "\" in strings)
 */
#include <endian.h>

#include "engine/base/text.h"
#include "queue/scan_priv.h"

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "string_end counts from the low end of a word");

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

struct fast {
    struct scan_parser *parser;
    const char *at;
    const char *end;
    uint64_t high_bits; /* bit 7 of some byte is set when a string has a byte above 127 */
    unsigned seen;
    struct span name;
};

enum fast_seen {
    SEEN_TO = 1u << 0,
    SEEN_ID = 1u << 1,
    SEEN_VARS = 1u << 2,
    SEEN_NAME = 1u << 3,
};

static void skip_blanks(struct fast *fast)
{
    while (fast->at < fast->end && (*fast->at == ' ' || *fast->at == '\t')) {
        fast->at++;
    }
}

static bool take(struct fast *fast, char want)
{
    skip_blanks(fast);
    if (fast->at < fast->end && *fast->at == want) {
        fast->at++;
        return true;
    }
    return false;
}

/* 0x80 in each byte that is zero. Exact up to and including the lowest one, which is all we use. */
static uint64_t word_zeros(uint64_t word)
{
    return (word - EACH_BYTE(0x01)) & ~word & EACH_BYTE(0x80);
}

/* Takes a string up to its closing quote, eight bytes at a time; false at an escape or a control
 * character. */
static bool take_string(struct fast *fast, struct span *ret_text)
{
    if (!take(fast, '"')) {
        return false;
    }
    const char *start = fast->at;
    const char *at = start;
    while (fast->end - at >= (ptrdiff_t)sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        uint64_t stops = word_zeros(word ^ EACH_BYTE('"')) | word_zeros(word ^ EACH_BYTE('\\')) |
                         ((word - EACH_BYTE(0x20)) & ~word & EACH_BYTE(0x80));
        if (stops != 0) {
            uint64_t in_front = (stops & -stops) - 1;
            fast->high_bits |= word & in_front;
            at += __builtin_ctzll(stops) / 8;
            break;
        }
        fast->high_bits |= word;
        at += sizeof(word);
    }
    while (at < fast->end && *at != '"' && *at != '\\' && (unsigned char)*at >= 0x20) {
        fast->high_bits |= (unsigned char)*at;
        at++;
    }
    if (at == fast->end || *at != '"') {
        return false;
    }
    fast->at = at + 1;
    *ret_text = span_of(start, (size_t)(at - start));
    return true;
}

static bool byte_is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static const char *digits_end(const char *at, const char *end)
{
    while (byte_is_digit(at, end)) {
        at++;
    }
    return at;
}

/* number = ["-"] ("0" / digit1-9 *digit) ["." 1*digit] [("e" / "E") ["-" / "+"] 1*digit] */
static bool take_number(struct fast *fast, struct span *ret_text)
{
    const char *end = fast->end;
    const char *at = fast->at;
    at += at < end && *at == '-';
    if (!byte_is_digit(at, end)) {
        return false;
    }
    at = *at == '0' ? at + 1 : digits_end(at, end);
    if (at < end && *at == '.') {
        if (!byte_is_digit(at + 1, end)) {
            return false;
        }
        at = digits_end(at + 1, end);
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        at += at < end && (*at == '-' || *at == '+');
        if (!byte_is_digit(at, end)) {
            return false;
        }
        at = digits_end(at, end);
    }
    *ret_text = span_of(fast->at, (size_t)(at - fast->at));
    fast->at = at;
    return true;
}

static bool take_word(struct fast *fast, struct span word)
{
    if ((size_t)(fast->end - fast->at) < word.size || memcmp(fast->at, word.at, word.size) != 0) {
        return false;
    }
    fast->at += word.size;
    return true;
}

/* A letter or digit behind a word or number makes the next take fail, as it must. */
static bool take_value(struct fast *fast, struct span *ret_text)
{
    skip_blanks(fast);
    if (fast->at == fast->end) {
        return false;
    }
    switch (*fast->at) {
    case '"':
        return take_string(fast, ret_text);
    case 't':
        *ret_text = SPAN("true");
        return take_word(fast, *ret_text);
    case 'f':
        *ret_text = SPAN("false");
        return take_word(fast, *ret_text);
    case 'n':
        *ret_text = SPAN_NONE;
        return take_word(fast, SPAN("null"));
    default:
        return take_number(fast, ret_text);
    }
}

static bool take_vars(struct fast *fast)
{
    struct scan_recipient *recipient = &fast->parser->recipient;
    if (!take(fast, '{')) {
        return false;
    }
    if (take(fast, '}')) {
        return true;
    }
    do {
        struct span name;
        struct span value;
        if (!take_string(fast, &name) || !take(fast, ':') || !take_value(fast, &value)) {
            return false;
        }
        if (name.size == 0 || name.size > SCAN_NAME_MAX || recipient->vars_count == SCAN_VARS_MAX ||
            scan_var_find(fast->parser, name) != NULL) {
            return false;
        }
        recipient->vars[recipient->vars_count++] = (struct scan_var){.name = name, .value = value};
    } while (take(fast, ','));
    return take(fast, '}');
}

static bool key_is(struct span key, const char *text, size_t size)
{
    return key.size == size && memcmp(key.at, text, size) == 0;
}

static bool take_member(struct fast *fast)
{
    struct scan_recipient *recipient = &fast->parser->recipient;
    struct span key;
    if (!take_string(fast, &key) || !take(fast, ':')) {
        return false;
    }
    unsigned seen = fast->seen;
    if (key_is(key, "to", 2) || key_is(key, "email", 5)) {
        fast->seen |= SEEN_TO;
        return seen != fast->seen && take_string(fast, &recipient->to);
    }
    if (key_is(key, "id", 2)) {
        fast->seen |= SEEN_ID;
        return seen != fast->seen && take_string(fast, &recipient->id);
    }
    if (key_is(key, "vars", 4)) {
        fast->seen |= SEEN_VARS;
        return seen != fast->seen && take_vars(fast);
    }
    if (key_is(key, "name", 4)) {
        fast->seen |= SEEN_NAME;
        return seen != fast->seen && take_string(fast, &fast->name);
    }
    return false;
}

/* "name" is the last variable, unless "vars" has one of that name. */
static bool put_name(struct fast *fast)
{
    struct scan_recipient *recipient = &fast->parser->recipient;
    if ((fast->seen & SEEN_NAME) == 0 || scan_var_find(fast->parser, SPAN("name")) != NULL) {
        return true;
    }
    if (recipient->vars_count == SCAN_VARS_MAX) {
        return false;
    }
    recipient->vars[recipient->vars_count++] =
        (struct scan_var){.name = SPAN("name"), .value = fast->name};
    return true;
}

bool scan_ndjson_fast(struct scan_parser *parser, struct span record)
{
    struct scan_recipient *recipient = &parser->recipient;
    record = scan_line_chop(record);
    recipient->id = SPAN_NONE;
    recipient->vars_count = 0;
    struct fast fast = {.parser = parser, .at = record.at, .end = record.at + record.size};
    if (!take(&fast, '{')) {
        return false;
    }
    do {
        if (!take_member(&fast)) {
            return false;
        }
    } while (take(&fast, ','));
    if (!take(&fast, '}') || (fast.seen & SEEN_TO) == 0 || !put_name(&fast)) {
        return false;
    }
    skip_blanks(&fast);
    bool is_plain = (fast.high_bits & EACH_BYTE(0x80)) == 0;
    return fast.at == fast.end && (is_plain || text_is_utf8(record));
}
