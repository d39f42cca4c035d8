/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grammar (RFC 5321 4.1.2):
 *
 *   mailbox         = local-part "@" ( domain / address-literal )
 *   local-part      = dot-string / quoted-string
 *   dot-string      = atom *( "." atom )          atom = 1*atext
 *   quoted-string   = DQUOTE *( 32-33 / 35-91 / 93-126 / "\" 32-126 ) DQUOTE
 *   domain          = label *( "." label )        label = letters, digits, "_", and "-" but not at
 * its ends address-literal = "[" ( IPv4 / "IPv6:" IPv6 ) "]"
 */
#include "engine/smtp/smtp_address.h"

#include <arpa/inet.h>

#include "engine/smtp/smtp.h"

enum { IS_ATOM = 1u << 0, IS_LABEL = 1u << 1 };

static const uint8_t KINDS[256] = {
    ['0' ... '9'] = IS_ATOM | IS_LABEL,
    ['A' ... 'Z'] = IS_ATOM | IS_LABEL,
    ['a' ... 'z'] = IS_ATOM | IS_LABEL,
    ['-'] = IS_ATOM | IS_LABEL,
    ['_'] = IS_ATOM | IS_LABEL,
    ['!'] = IS_ATOM,
    ['#'] = IS_ATOM,
    ['$'] = IS_ATOM,
    ['%'] = IS_ATOM,
    ['&'] = IS_ATOM,
    ['\''] = IS_ATOM,
    ['*'] = IS_ATOM,
    ['+'] = IS_ATOM,
    ['/'] = IS_ATOM,
    ['='] = IS_ATOM,
    ['?'] = IS_ATOM,
    ['^'] = IS_ATOM,
    ['`'] = IS_ATOM,
    ['{'] = IS_ATOM,
    ['|'] = IS_ATOM,
    ['}'] = IS_ATOM,
    ['~'] = IS_ATOM,
};

static const char *skip(const char *at, const char *end, uint8_t kind)
{
    while (at < end && (KINDS[(unsigned char)*at] & kind) != 0) {
        at++;
    }
    return at;
}

/* Why a byte stands neither in a local part nor in a domain; `otherwise` when it is no more than
 * out of place. */
static enum smtp_address_reason reason_of_byte(char c, enum smtp_address_reason otherwise)
{
    unsigned char byte = (unsigned char)c;
    if (byte < ' ' || byte == 127) {
        return SMTP_ADDRESS_CONTROL;
    }
    switch (c) {
    case ' ':
        return SMTP_ADDRESS_BLANK;
    case '<':
    case '>':
        return SMTP_ADDRESS_BRACKETS;
    case '(':
    case ')':
        return SMTP_ADDRESS_COMMENT;
    default:
        return otherwise;
    }
}

static enum smtp_address_reason reason_of_local_byte(char c)
{
    if ((unsigned char)c > 127) {
        return SMTP_ADDRESS_LOCAL_UTF8;
    }
    return reason_of_byte(c, c == '"' ? SMTP_ADDRESS_QUOTE_PLACE : SMTP_ADDRESS_LOCAL_BYTE);
}

/* "@" at the start: the source route of RFC 5321 appendix C is told from a missing local part by
 * the colon behind it (A34). */
static enum smtp_address_reason reason_of_first_at(const char *at, const char *end)
{
    size_t size = (size_t)(end - at);
    return memchr(at, ':', size) != NULL ? SMTP_ADDRESS_SOURCE_ROUTE : SMTP_ADDRESS_NO_LOCAL;
}

/* On success `*at` is on the "@". */
static enum smtp_address_reason take_dot_string(const char **at, const char *end)
{
    const char *start = *at;
    for (const char *atom = start;; atom++) {
        const char *stop = skip(atom, end, IS_ATOM);
        if (stop == end) {
            return SMTP_ADDRESS_NO_DOMAIN;
        }
        if (*stop != '@' && *stop != '.') {
            return reason_of_local_byte(*stop);
        }
        if (stop == atom && *stop == '.') {
            return atom == start ? SMTP_ADDRESS_LOCAL_START_DOT : SMTP_ADDRESS_LOCAL_DOTS;
        }
        if (stop == atom) {
            return atom == start ? reason_of_first_at(stop, end) : SMTP_ADDRESS_LOCAL_END_DOT;
        }
        if (*stop == '@') {
            *at = stop;
            return SMTP_ADDRESS_OK;
        }
        atom = stop;
    }
}

/* `*at` is on the first quote; on success on the "@". */
static enum smtp_address_reason take_quoted_string(const char **at, const char *end)
{
    for (const char *next = *at + 1; next < end; next++) {
        if (*next == '"') {
            if (++next == end) {
                return SMTP_ADDRESS_NO_DOMAIN;
            }
            *at = next;
            return *next == '@' ? SMTP_ADDRESS_OK : SMTP_ADDRESS_QUOTE_PLACE;
        }
        if (*next == '\\' && ++next == end) {
            break;
        }
        unsigned char byte = (unsigned char)*next;
        if (byte < ' ' || byte > '~') {
            return byte > 127 ? SMTP_ADDRESS_LOCAL_UTF8 : SMTP_ADDRESS_CONTROL;
        }
    }
    return SMTP_ADDRESS_QUOTE_OPEN;
}

static bool is_all_digits(const char *at, const char *end)
{
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return at == end;
}

static __attribute__((noinline)) enum smtp_address_reason reason_of_domain_byte(const char *at,
                                                                                const char *end)
{
    if (*at == '@') {
        return SMTP_ADDRESS_TWO_ATS;
    }
    if ((unsigned char)*at > 127) {
        return SMTP_ADDRESS_DOMAIN_UTF8;
    }
    if (*at == ':' && at + 1 < end && is_all_digits(at + 1, end)) {
        return SMTP_ADDRESS_PORT;
    }
    return reason_of_byte(*at, SMTP_ADDRESS_DOMAIN_BYTE);
}

enum smtp_address_reason smtp_address_check_domain(struct span domain)
{
    const char *start = domain.at;
    const char *end = start + domain.size;
    if (start == end) {
        return SMTP_ADDRESS_NO_DOMAIN;
    }
    for (const char *label = start;; label++) {
        const char *stop = skip(label, end, IS_LABEL);
        if (stop < end && *stop != '.') {
            return reason_of_domain_byte(stop, end);
        }
        if (stop == label) {
            if (label == start) {
                return SMTP_ADDRESS_DOMAIN_START_DOT;
            }
            return stop == end ? SMTP_ADDRESS_DOMAIN_END_DOT : SMTP_ADDRESS_DOMAIN_DOTS;
        }
        if (stop - label > SMTP_LABEL_MAX) {
            return SMTP_ADDRESS_LABEL_TOO_LONG;
        }
        if (label[0] == '-' || stop[-1] == '-') {
            return SMTP_ADDRESS_DOMAIN_HYPHEN;
        }
        if (stop == end) {
            /* No top-level domain is a number (RFC 3696 2): this is an address that lacks its
             * brackets. */
            if (is_all_digits(label, end)) {
                return SMTP_ADDRESS_DOMAIN_NUMBER;
            }
            break;
        }
        label = stop;
    }
    return domain.size > SMTP_DOMAIN_NAME_MAX ? SMTP_ADDRESS_DOMAIN_TOO_LONG : SMTP_ADDRESS_OK;
}

static __attribute__((noinline)) enum smtp_address_reason check_literal(struct span domain)
{
    size_t close = span_find(domain, ']');
    if (close + 1 != domain.size) {
        bool has_port = close + 1 < domain.size && domain.at[close + 1] == ':';
        return has_port ? SMTP_ADDRESS_PORT : SMTP_ADDRESS_LITERAL;
    }
    struct span inner = span_of(domain.at + 1, close - 1);
    int family = AF_INET;
    if (span_starts_nocase(inner, SPAN("IPv6:"))) {
        inner = span_of(inner.at + 5, inner.size - 5);
        family = AF_INET6;
    }
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (inner.size >= sizeof(text) || memchr(inner.at, '\0', inner.size) != NULL) {
        return SMTP_ADDRESS_LITERAL;
    }
    memcpy(text, inner.at, inner.size);
    text[inner.size] = '\0';
    return inet_pton(family, text, &address) == 1 ? SMTP_ADDRESS_OK : SMTP_ADDRESS_LITERAL;
}

enum smtp_address_reason smtp_address_parse(struct span text, struct smtp_address *ret_address)
{
    const char *at = text.at;
    const char *end = at + text.size;
    if (at == end) {
        return SMTP_ADDRESS_EMPTY;
    }
    struct smtp_address address = {.is_quoted = *at == '"'};
    enum smtp_address_reason reason =
        address.is_quoted ? take_quoted_string(&at, end) : take_dot_string(&at, end);
    if (reason != SMTP_ADDRESS_OK) {
        return reason;
    }
    address.local = span_of(text.at, (size_t)(at - text.at));
    if (address.local.size > SMTP_LOCAL_PART_MAX) {
        return SMTP_ADDRESS_LOCAL_TOO_LONG;
    }
    address.domain = span_of(at + 1, (size_t)(end - at) - 1);
    address.is_literal = address.domain.size > 0 && address.domain.at[0] == '[';
    reason = address.is_literal ? check_literal(address.domain)
                                : smtp_address_check_domain(address.domain);
    if (reason == SMTP_ADDRESS_OK && text.size > SMTP_ADDRESS_MAX) {
        reason = SMTP_ADDRESS_TOO_LONG;
    }
    address.is_utf8 = reason == SMTP_ADDRESS_DOMAIN_UTF8;
    if (reason == SMTP_ADDRESS_OK || address.is_utf8) {
        *ret_address = address;
    }
    return reason;
}

const char *smtp_address_reason_text(enum smtp_address_reason reason)
{
    static const char *const TEXTS[] = {
        [SMTP_ADDRESS_OK] = "valid address",
        [SMTP_ADDRESS_EMPTY] = "empty address",
        [SMTP_ADDRESS_TOO_LONG] = "address longer than 254 bytes",
        [SMTP_ADDRESS_CONTROL] = "control character in address",
        [SMTP_ADDRESS_BLANK] = "blank in address",
        [SMTP_ADDRESS_BRACKETS] = "angle bracket in address",
        [SMTP_ADDRESS_COMMENT] = "parenthesis in address",
        [SMTP_ADDRESS_SOURCE_ROUTE] = "source route in address",
        [SMTP_ADDRESS_NO_LOCAL] = "no local part",
        [SMTP_ADDRESS_LOCAL_TOO_LONG] = "local part longer than 64 bytes",
        [SMTP_ADDRESS_LOCAL_START_DOT] = "local part starts with a dot",
        [SMTP_ADDRESS_LOCAL_END_DOT] = "local part ends with a dot",
        [SMTP_ADDRESS_LOCAL_DOTS] = "consecutive dots in local part",
        [SMTP_ADDRESS_LOCAL_BYTE] = "character in local part that must be quoted",
        [SMTP_ADDRESS_LOCAL_UTF8] = "non-ASCII local part: SMTPUTF8 not supported yet",
        [SMTP_ADDRESS_QUOTE_OPEN] = "quote without end in local part",
        [SMTP_ADDRESS_QUOTE_PLACE] = "quote out of place in local part",
        [SMTP_ADDRESS_NO_DOMAIN] = "no domain",
        [SMTP_ADDRESS_TWO_ATS] = "two @ signs",
        [SMTP_ADDRESS_DOMAIN_TOO_LONG] = "domain longer than 253 bytes",
        [SMTP_ADDRESS_DOMAIN_START_DOT] = "domain starts with a dot",
        [SMTP_ADDRESS_DOMAIN_END_DOT] = "domain ends with a dot",
        [SMTP_ADDRESS_DOMAIN_DOTS] = "consecutive dots in domain",
        [SMTP_ADDRESS_DOMAIN_BYTE] = "character in domain that no domain has",
        [SMTP_ADDRESS_DOMAIN_HYPHEN] = "part of the domain starts or ends with a hyphen",
        [SMTP_ADDRESS_DOMAIN_UTF8] = "non-ASCII domain",
        [SMTP_ADDRESS_DOMAIN_NUMBER] = "domain ends in a number: an IP address needs brackets",
        [SMTP_ADDRESS_LABEL_TOO_LONG] = "part of the domain longer than 63 bytes",
        [SMTP_ADDRESS_PORT] = "port in address",
        [SMTP_ADDRESS_LITERAL] = "broken address literal",
    };
    _Static_assert(COUNT_OF(TEXTS) == SMTP_ADDRESS_REASONS_COUNT, "one text a reason");
    ensure((unsigned)reason < SMTP_ADDRESS_REASONS_COUNT);
    return TEXTS[reason];
}
