/* SPDX-License-Identifier: Apache-2.0 */
#include "net/addr.h"

#include <arpa/inet.h>
#include <sys/socket.h>

enum {
    TEXT_ADDR_MAX = 46, /* INET6_ADDRSTRLEN */
    PORT_MAX = 65535,
    PORT_DIGITS_MAX = 5,
};

/* The grammar of an address is the C library's (RFC 4291 2.2, four decimal octets without leading
 * zeros); zone ids are refused. */
static bool take_bare(struct span text, uint8_t family, struct net_addr *ret_addr)
{
    char copy[TEXT_ADDR_MAX];
    if (text.size == 0 || text.size >= sizeof(copy) || memchr(text.at, 0, text.size) != NULL) {
        return false;
    }
    memcpy(copy, text.at, text.size);
    copy[text.size] = 0;
    struct net_addr addr = {.family = family};
    if (inet_pton(family == NET_IP4 ? AF_INET : AF_INET6, copy, addr.bytes) != 1) {
        return false;
    }
    *ret_addr = addr;
    return true;
}

static bool take_port(struct span text, uint16_t *ret_port)
{
    struct cursor cursor = cursor_of(text);
    uint64_t port;
    if (text.size > PORT_DIGITS_MAX || !cursor_take_uint(&cursor, PORT_MAX, &port) ||
        cursor_left(&cursor) > 0) {
        return false;
    }
    *ret_port = (uint16_t)port;
    return true;
}

static bool take_bracketed(struct span text, struct net_addr *ret_addr)
{
    size_t end = span_find(text, ']');
    struct net_addr addr;
    if (end == text.size || !take_bare(span_of(text.at + 1, end - 1), NET_IP6, &addr)) {
        return false;
    }
    struct span rest = span_of(text.at + end + 1, text.size - end - 1);
    if (rest.size > 0 &&
        (rest.at[0] != ':' || !take_port(span_of(rest.at + 1, rest.size - 1), &addr.port))) {
        return false;
    }
    *ret_addr = addr;
    return true;
}

bool net_addr_parse(struct span text, struct net_addr *ret_addr)
{
    if (text.size == 0) {
        return false;
    }
    if (text.at[0] == '[') {
        return take_bracketed(text, ret_addr);
    }
    size_t colon = span_find(text, ':');
    if (colon == text.size) {
        return take_bare(text, NET_IP4, ret_addr);
    }
    /* A second colon: IPv6 without a port. */
    struct span rest = span_of(text.at + colon + 1, text.size - colon - 1);
    if (span_find(rest, ':') < rest.size) {
        return take_bare(text, NET_IP6, ret_addr);
    }
    struct net_addr addr;
    if (!take_bare(span_of(text.at, colon), NET_IP4, &addr) || !take_port(rest, &addr.port)) {
        return false;
    }
    *ret_addr = addr;
    return true;
}

void net_addr_put(struct writer *writer, const struct net_addr *addr)
{
    ensure(addr->family == NET_IP4 || addr->family == NET_IP6);
    char text[TEXT_ADDR_MAX];
    const char *put =
        inet_ntop(addr->family == NET_IP4 ? AF_INET : AF_INET6, addr->bytes, text, sizeof(text));
    ensure(put != NULL);
    writer_put(writer, span_of_text(text));
}

void net_addr_put_port(struct writer *writer, const struct net_addr *addr)
{
    char text[NET_ADDR_TEXT_MAX];
    struct writer whole = writer_of(text, sizeof(text));
    if (addr->family == NET_IP6) {
        writer_put_byte(&whole, '[');
    }
    net_addr_put(&whole, addr);
    if (addr->family == NET_IP6) {
        writer_put_byte(&whole, ']');
    }
    writer_put_byte(&whole, ':');
    writer_put_uint(&whole, addr->port);
    ensure(!whole.is_full);
    writer_put(writer, writer_span(&whole));
}

bool net_addr_equal(const struct net_addr *a, const struct net_addr *b)
{
    return a->family == b->family && a->port == b->port &&
           memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* ::ffff:a.b.c.d is judged by what it reaches: a.b.c.d (RFC 4291 2.5.5.2). */
static struct net_addr unmapped(const struct net_addr *addr)
{
    static const uint8_t MAPPED[12] = {[10] = 0xff, [11] = 0xff};
    if (addr->family != NET_IP6 || memcmp(addr->bytes, MAPPED, sizeof(MAPPED)) != 0) {
        return *addr;
    }
    struct net_addr inner = {.family = NET_IP4, .port = addr->port};
    memcpy(inner.bytes, addr->bytes + sizeof(MAPPED), 4);
    return inner;
}

static const uint8_t IP6_LOOPBACK[16] = {[15] = 1};

bool net_addr_is_loopback(const struct net_addr *addr)
{
    struct net_addr real = unmapped(addr);
    if (real.family == NET_IP4) {
        return real.bytes[0] == 127;
    }
    return real.family == NET_IP6 && memcmp(real.bytes, IP6_LOOPBACK, sizeof(IP6_LOOPBACK)) == 0;
}

/* A network, and whether an address in it is special: the first row that holds it tells. */
struct prefix {
    uint8_t bytes[16];
    uint8_t bits;
    bool is_special;
};

static bool prefix_holds(const struct prefix *prefix, const uint8_t *bytes)
{
    size_t whole = prefix->bits / 8;
    unsigned rest = prefix->bits % 8u;
    return memcmp(prefix->bytes, bytes, whole) == 0 &&
           (rest == 0 || (prefix->bytes[whole] ^ bytes[whole]) >> (8 - rest) == 0);
}

/* What the IANA IPv4 and IPv6 special-purpose address registries (RFC 6890) say is not globally
 * reachable, and multicast. Exceptions stand in front of the block that they are of. */
static const struct prefix SPECIAL_IP4[] = {
    {{0}, 8, true},               /* "this network", RFC 791 */
    {{10}, 8, true},              /* private, RFC 1918 */
    {{100, 64}, 10, true},        /* shared by carriers, RFC 6598 */
    {{127}, 8, true},             /* loopback */
    {{169, 254}, 16, true},       /* link-local, RFC 3927 */
    {{172, 16}, 12, true},        /* private */
    {{192, 0, 0, 9}, 32, false},  /* anycast of PCP, RFC 7723 */
    {{192, 0, 0, 10}, 32, false}, /* anycast of TURN, RFC 8155 */
    {{192, 0, 0}, 24, true},      /* of protocols, RFC 6890 */
    {{192, 0, 2}, 24, true},      /* documentation, RFC 5737 */
    {{192, 168}, 16, true},       /* private */
    {{198, 18}, 15, true},        /* benchmarks, RFC 2544 */
    {{198, 51, 100}, 24, true},   /* documentation */
    {{203, 0, 113}, 24, true},    /* documentation */
    {{224}, 4, true},             /* multicast, RFC 5771 */
    {{240}, 4, true},             /* reserved, and the limited broadcast */
};

/* Networks that carry an IPv4 address are judged before: judged_by. */
static const struct prefix SPECIAL_IP6[] = {
    {{0x00}, 8, true}, /* unspecified, loopback, IPv4-compatible, local NAT64 (64:ff9b:1::/48) */
    {{0x01, 0x00, 0, 0, 0, 0, 0, 0}, 64, true},        /* discard, RFC 6666 */
    {{0x01, 0x00, 0, 0, 0, 0, 0, 1}, 64, true},        /* dummy prefix, RFC 9780 */
    {{0x20, 0x01, 0x00, 0x01, [15] = 1}, 128, false},  /* PCP, RFC 7723 */
    {{0x20, 0x01, 0x00, 0x01, [15] = 2}, 128, false},  /* TURN, RFC 8155 */
    {{0x20, 0x01, 0x00, 0x01, [15] = 3}, 128, false},  /* DNS-SD SRP, RFC 9665 */
    {{0x20, 0x01, 0x00, 0x03}, 32, false},             /* AMT, RFC 7450 */
    {{0x20, 0x01, 0x00, 0x04, 0x01, 0x12}, 48, false}, /* AS112, RFC 7535 */
    {{0x20, 0x01, 0x00, 0x20}, 28, false},             /* ORCHIDv2, RFC 7343 */
    {{0x20, 0x01, 0x00, 0x30}, 28, false},             /* drone ids, RFC 9374 */
    {{0x20, 0x01, 0x00}, 23, true},                    /* of protocols, with Teredo, RFC 2928 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, true},              /* documentation, RFC 3849 */
    {{0x3f, 0xff, 0x00}, 20, true},                    /* documentation, RFC 9637 */
    {{0x5f, 0x00}, 16, true},                          /* segment routing, RFC 9602 */
    {{0xfc}, 7, true},                                 /* unique local, RFC 4193 */
    {{0xfe, 0x80}, 10, true},                          /* link-local */
    {{0xfe, 0xc0}, 10, true},                          /* site-local, deprecated by RFC 3879 */
    {{0xff}, 8, true},                                 /* multicast */
};

static bool is_special_in(const struct prefix *prefixes, size_t count, const uint8_t *bytes)
{
    for (size_t i = 0; i < count; i++) {
        if (prefix_holds(&prefixes[i], bytes)) {
            return prefixes[i].is_special;
        }
    }
    return false;
}

/* Where packets to the address go: a translator (64:ff9b::/96, RFC 6052) and a 6to4 router
 * (2002::/16, RFC 3056) take the IPv4 address out of it. */
static struct net_addr judged_by(const struct net_addr *addr)
{
    static const uint8_t NAT64[12] = {0x00, 0x64, 0xff, 0x9b};
    static const uint8_t SIX_TO_FOUR[2] = {0x20, 0x02};
    struct net_addr inner = {.family = NET_IP4, .port = addr->port};
    if (addr->family == NET_IP6 && memcmp(addr->bytes, NAT64, sizeof(NAT64)) == 0) {
        memcpy(inner.bytes, addr->bytes + sizeof(NAT64), 4);
        return inner;
    }
    if (addr->family == NET_IP6 && memcmp(addr->bytes, SIX_TO_FOUR, sizeof(SIX_TO_FOUR)) == 0) {
        memcpy(inner.bytes, addr->bytes + sizeof(SIX_TO_FOUR), 4);
        return inner;
    }
    return unmapped(addr);
}

bool net_addr_is_special(const struct net_addr *addr)
{
    struct net_addr real = judged_by(addr);
    if (real.family == NET_IP4) {
        return is_special_in(SPECIAL_IP4, COUNT_OF(SPECIAL_IP4), real.bytes);
    }
    ensure(real.family == NET_IP6);
    return is_special_in(SPECIAL_IP6, COUNT_OF(SPECIAL_IP6), real.bytes);
}
