/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/dns_message.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "tests/harness.h"
#include "tests/unit/dns/dns_build.h"

#define QUESTION SPAN("example.com")

static char memory[DNS_BUILD_MESSAGE_MAX];

static void begin(struct dns_build *build, enum dns_type type)
{
    dns_build_begin(build, memory, sizeof(memory), QUESTION, type, 0);
}

/* Two aliases, two MX, a SOA behind them, and a foreign record in between. */
static struct span build_rich(void)
{
    struct dns_build build;
    begin(&build, DNS_MX);
    dns_build_cname(&build, QUESTION, 300, SPAN("alias.example"));
    dns_build_addr(&build, SPAN("other.example"), 5, SPAN("192.5.2.9"));
    dns_build_cname(&build, SPAN("alias.example"), 200, SPAN("Mail.Example.NET"));
    dns_build_mx(&build, SPAN("mail.example.net"), 400, 10, SPAN("MX1.example.net"));
    dns_build_mx(&build, SPAN("other.example"), 1, 1, SPAN("wrong.example.net"));
    dns_build_mx(&build, SPAN("mail.example.net"), 250, 20, SPAN("mx2.example.net"));
    dns_build_soa(&build, SPAN("example.net"), 900, 60);
    return dns_build_end(&build);
}

static void test_reply(void)
{
    struct dns_reply reply;
    struct span message = build_rich();
    CU_ASSERT_FATAL(dns_reply_parse(message, DNS_MX, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.rcode == DNS_RCODE_OK);
    CU_ASSERT(reply.aliases_count == 2);
    CU_ASSERT(span_equal(dns_name_span(&reply.name), SPAN("mail.example.net")));
    CU_ASSERT(reply.ttl_s == 200);
    CU_ASSERT(reply.has_negative_ttl);
    CU_ASSERT(reply.negative_ttl_s == 60);
    CU_ASSERT_FATAL(reply.records_count == 2);
    uint16_t preference;
    struct dns_name name;
    CU_ASSERT(dns_mx_parse(message, reply.records[0], &preference, &name));
    CU_ASSERT(preference == 10);
    CU_ASSERT(span_equal(dns_name_span(&name), SPAN("mx1.example.net")));
    CU_ASSERT(dns_mx_parse(message, reply.records[1], &preference, &name));
    CU_ASSERT(preference == 20);
}

/* The aliases of a chain may come in any order. */
static void test_aliases_backwards(void)
{
    struct dns_build build;
    struct dns_reply reply;
    begin(&build, DNS_A);
    dns_build_addr(&build, SPAN("c.example"), 60, SPAN("192.5.2.1"));
    dns_build_cname(&build, SPAN("b.example"), 60, SPAN("c.example"));
    dns_build_cname(&build, SPAN("a.example"), 60, SPAN("b.example"));
    dns_build_cname(&build, QUESTION, 60, SPAN("a.example"));
    CU_ASSERT_FATAL(dns_reply_parse(dns_build_end(&build), DNS_A, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.aliases_count == 3);
    CU_ASSERT(reply.records_count == 1);
}

static int parse_chain(unsigned links_count, unsigned before)
{
    struct dns_build build;
    struct dns_reply reply;
    char from[64] = "example.com", to[64];
    begin(&build, DNS_A);
    for (unsigned i = 0; i < links_count; i++) {
        struct writer writer = writer_of(to, sizeof(to));
        writer_put_format(&writer, "a%u.example", i);
        to[writer_size(&writer)] = '\0';
        dns_build_cname(&build, span_of_text(from), 60, span_of_text(to));
        memcpy(from, to, sizeof(to));
    }
    return dns_reply_parse(dns_build_end(&build), DNS_A, QUESTION, before, &reply);
}

static void test_alias_limits(void)
{
    CU_ASSERT(parse_chain(DNS_ALIASES_MAX, 0) == 0);
    CU_ASSERT(parse_chain(DNS_ALIASES_MAX + 1, 0) == -ELOOP);
    CU_ASSERT(parse_chain(1, DNS_ALIASES_MAX - 1) == 0);
    CU_ASSERT(parse_chain(1, DNS_ALIASES_MAX) == -ELOOP);
    struct dns_build build;
    struct dns_reply reply;
    begin(&build, DNS_A);
    dns_build_cname(&build, QUESTION, 60, QUESTION);
    CU_ASSERT(dns_reply_parse(dns_build_end(&build), DNS_A, QUESTION, 0, &reply) == -ELOOP);
    begin(&build, DNS_A);
    dns_build_cname(&build, QUESTION, 60, SPAN("b.example"));
    dns_build_cname(&build, SPAN("b.example"), 60, QUESTION);
    CU_ASSERT(dns_reply_parse(dns_build_end(&build), DNS_A, QUESTION, 0, &reply) == -ELOOP);
}

/* Offsets into the header: 2, 3 flags; 5 questions; 12 question. */
static const struct {
    size_t at;
    unsigned char bits;
} SPOILT[] = {
    {2, 0x80},  /* a query */
    {2, 0x02},  /* truncated */
    {2, 0x08},  /* another opcode */
    {3, 0x02},  /* SERVFAIL */
    {3, 0x05},  /* REFUSED */
    {5, 0x03},  /* two questions */
    {13, 0x01}, /* another name */
};

static void test_header(void)
{
    for (size_t i = 0; i < COUNT_OF(SPOILT); i++) {
        struct dns_reply reply;
        struct span message = build_rich();
        memory[SPOILT[i].at] = (char)(memory[SPOILT[i].at] ^ SPOILT[i].bits);
        CHECK_ROW(i, dns_reply_parse(message, DNS_MX, QUESTION, 0, &reply) == -EBADMSG);
    }
    struct dns_reply reply;
    CU_ASSERT(dns_reply_parse(build_rich(), DNS_A, QUESTION, 0, &reply) == -EBADMSG);
    CU_ASSERT(dns_reply_parse(SPAN_NONE, DNS_A, QUESTION, 0, &reply) == -EBADMSG);
}

/* Every prefix fails as a whole or, when only the authority section is cut, loses its TTL. The copy
 * has no byte to spare, for the address sanitizer. */
static void test_truncated(void)
{
    struct span message = build_rich();
    struct dns_reply whole;
    CU_ASSERT_FATAL(dns_reply_parse(message, DNS_MX, QUESTION, 0, &whole) == 0);
    for (size_t size = 0; size < message.size; size++) {
        char *copy = malloc(size + (size == 0));
        struct dns_reply reply;
        memcpy(copy, message.at, size);
        int error = dns_reply_parse(span_of(copy, size), DNS_MX, QUESTION, 0, &reply);
        CHECK_ROW(size, error == -EBADMSG || (!reply.has_negative_ttl && reply.records_count == 2));
        free(copy);
    }
}

static void test_mx_rdata(void)
{
    /* Too short in every way, and one byte too long. */
    static const char *const BROKEN[] = {"", "\0", "\0\12", "\0\12\1", "\0\12\3mx", "\0\12\2mx\0x"};
    static const size_t SIZES[] = {0, 1, 2, 3, 5, 7};
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        struct dns_build build;
        struct dns_reply reply;
        uint16_t preference;
        struct dns_name name;
        begin(&build, DNS_MX);
        dns_build_record(&build, DNS_ANSWERS, QUESTION, DNS_MX, 60, span_of(BROKEN[i], SIZES[i]));
        struct span message = dns_build_end(&build);
        CHECK_ROW(i, dns_reply_parse(message, DNS_MX, QUESTION, 0, &reply) == 0);
        CHECK_ROW(i, reply.records_count + reply.dropped_count == 1);
        CHECK_ROW(i, reply.records_count == (SIZES[i] >= 3));
        CHECK_ROW(i, reply.records_count == 0 ||
                         !dns_mx_parse(message, reply.records[0], &preference, &name));
    }
}

static void test_address_sizes(void)
{
    static const struct {
        enum dns_type type;
        size_t size;
        unsigned want_count;
    } SIZES[] = {{DNS_A, 0, 0},    {DNS_A, 3, 0},     {DNS_A, 4, 1},     {DNS_A, 5, 0},
                 {DNS_AAAA, 4, 0}, {DNS_AAAA, 15, 0}, {DNS_AAAA, 16, 1}, {DNS_AAAA, 17, 0}};
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        struct dns_build build;
        struct dns_reply reply;
        begin(&build, SIZES[i].type);
        dns_build_record(&build, DNS_ANSWERS, QUESTION, SIZES[i].type, 60,
                         span_of("0123456789abcdefg", SIZES[i].size));
        CHECK_ROW(i,
                  dns_reply_parse(dns_build_end(&build), SIZES[i].type, QUESTION, 0, &reply) == 0);
        CHECK_ROW(i, reply.records_count == SIZES[i].want_count);
    }
}

static void test_record_limits(void)
{
    struct dns_build build;
    struct dns_reply reply;
    begin(&build, DNS_MX);
    for (unsigned i = 0; i < 150; i++) {
        dns_build_mx(&build, QUESTION, 60, i, SPAN("mx.example"));
    }
    CU_ASSERT(dns_reply_parse(dns_build_end(&build), DNS_MX, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.records_count == DNS_RECORDS_MAX);
    CU_ASSERT(reply.dropped_count == 50);
    begin(&build, DNS_MX);
    for (unsigned i = 0; i < 2000; i++) {
        dns_build_mx(&build, QUESTION, 60, i, SPAN("mx.example"));
    }
    CU_ASSERT(dns_reply_parse(dns_build_end(&build), DNS_MX, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.records_count == DNS_RECORDS_MAX);
    CU_ASSERT(reply.dropped_count == 1900);
}

/* RFC 2181 8: a TTL with the top bit is 0. */
static void test_ttl(void)
{
    struct dns_build build;
    struct dns_reply reply;
    begin(&build, DNS_A);
    dns_build_addr(&build, QUESTION, 0x80000000u, SPAN("192.5.2.1"));
    CU_ASSERT(dns_reply_parse(dns_build_end(&build), DNS_A, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.ttl_s == 0);
}

#define NAME_ROW(literal, at_byte, want)                                                           \
    {                                                                                              \
        .bytes = SPAN(literal), .at = (at_byte), .want_text = (want)                               \
    }

static const struct {
    struct span bytes;
    size_t at;
    const char *want_text; /* NULL: refused */
} NAMES[] = {
    NAME_ROW("\0", 0, ""),
    NAME_ROW("\2mx\7EXAMPLE\0", 0, "mx.example"),
    NAME_ROW("\7example\0\2mx\300\0", 9, "mx.example"),
    NAME_ROW("\3com\0\1a\300\0\1b\300\5", 9, "b.a.com"),
    NAME_ROW("\300\0", 0, NULL),       /* to itself */
    NAME_ROW("\300\2\300\0", 2, NULL), /* to a pointer that leads forwards */
    NAME_ROW("\1a\300\0", 0, NULL),    /* to its own start */
    NAME_ROW("\1a\1b\300\2", 0, NULL), /* into its own labels */
    NAME_ROW("\300\7", 0, NULL),       /* behind the end */
    NAME_ROW("\300", 0, NULL),         /* half a pointer */
    NAME_ROW("\100a\0", 0, NULL),      /* reserved label types */
    NAME_ROW("\200a\0", 0, NULL),
    NAME_ROW("\3co", 0, NULL),  /* cut */
    NAME_ROW("\3com", 0, NULL), /* without an end */
    NAME_ROW("", 0, NULL),
};

static void test_names(void)
{
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        struct span message = NAMES[i].bytes;
        struct cursor cursor = {.at = message.at + NAMES[i].at, .end = message.at + message.size};
        const char *before = cursor.at;
        struct dns_name name;
        bool is_taken = dns_name_take(message, &cursor, &name);
        CHECK_ROW(i, is_taken == (NAMES[i].want_text != NULL));
        CHECK_ROW(i, cursor.at == (is_taken ? cursor.end : before));
        CHECK_ROW(i, !is_taken || strcmp(name.text, NAMES[i].want_text) == 0);
    }
}

static void test_name_limits(void)
{
    char wire[600];
    struct dns_name name;
    struct writer writer = writer_of(wire, sizeof(wire));
    for (unsigned i = 0; i < 127; i++) {
        writer_put(&writer, SPAN("\1a"));
    }
    writer_put_byte(&writer, 0);
    struct cursor cursor = cursor_of(writer_span(&writer));
    CU_ASSERT(dns_name_take(writer_span(&writer), &cursor, &name));
    CU_ASSERT(name.size == DNS_NAME_TEXT_MAX);
    writer.at--;
    writer_put(&writer, SPAN("\1a\0"));
    cursor = cursor_of(writer_span(&writer));
    CU_ASSERT(!dns_name_take(writer_span(&writer), &cursor, &name));
}

/* A ladder of pointers, each to the one before. */
static void test_name_jumps(void)
{
    char wire[2 * DNS_JUMPS_MAX + 8];
    struct writer writer = writer_of(wire, sizeof(wire));
    writer_put(&writer, SPAN("\0\0"));
    for (unsigned i = 0; i <= DNS_JUMPS_MAX; i++) {
        writer_put_byte(&writer, (char)0xc0);
        writer_put_byte(&writer, (char)(2 * i));
        struct cursor cursor = {.at = writer.at - 2, .end = writer.at};
        struct dns_name name;
        CHECK_ROW(i, dns_name_take(writer_span(&writer), &cursor, &name) == (i < DNS_JUMPS_MAX));
    }
}

static void test_plain(void)
{
    static const struct {
        const char *text;
        bool want;
    } ROWS[] = {
        {"example.com", true}, {"_dmarc.Example", true},
        {"1.2", true},         {"xn--p1ai", true},
        {"", false},           {".", false},
        {"a..b", false},       {".a", false},
        {"a.", false},         {"a b", false},
        {"a\\.b", false},      {"m\xc3\xbc.de", false},
        {"a/b", false},        {"[192.5.2.1]", false},
        {"a@b", false},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, dns_name_is_plain(span_of_text(ROWS[i].text)) == ROWS[i].want);
    }
    char label[64 + 1];
    memset(label, 'a', sizeof(label));
    CU_ASSERT(dns_name_is_plain(span_of(label, 63)));
    CU_ASSERT(!dns_name_is_plain(span_of(label, 64)));
    char name[256];
    for (size_t i = 0; i < sizeof(name); i++) {
        name[i] = i % 2 ? '.' : 'a';
    }
    CU_ASSERT(dns_name_is_plain(span_of(name, 253)));
    CU_ASSERT(!dns_name_is_plain(span_of(name, 255)));
}

/* A label that holds a dot is not two labels: its records are not those of the plain name. */
static void test_odd_labels(void)
{
    struct dns_build build;
    struct dns_reply reply;
    begin(&build, DNS_A);
    dns_build_addr(&build, SPAN("aexample.com"), 60, SPAN("192.5.2.1"));
    struct span message = dns_build_end(&build);
    CU_ASSERT(dns_reply_parse(message, DNS_A, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.records_count == 0);
    char *owner = memmem(memory, message.size, "\10aexample\3com", 13);
    CU_ASSERT_FATAL(owner != NULL);
    memcpy(owner, "\13example.com", 12); /* one label of 11 bytes, then the end */
    owner[12] = 0;
    struct cursor cursor = {.at = owner, .end = message.at + message.size};
    struct dns_name name;
    CU_ASSERT(dns_name_take(message, &cursor, &name));
    CU_ASSERT(strcmp(name.text, "example.com") == 0);
    CU_ASSERT(!name.is_plain);
    /* The record starts a byte earlier now; cut the spare one out. */
    memmove(owner + 13, owner + 14, (size_t)(message.at + message.size - (owner + 14)));
    message.size--;
    CU_ASSERT(dns_reply_parse(message, DNS_A, QUESTION, 0, &reply) == 0);
    CU_ASSERT(reply.records_count == 0);
}

/* Seeded: flips, cuts and copies of a good message. No result is asked for, only that it ends and
 * that what is said to be there can be read. */
static void test_mutations(void)
{
    struct random random;
    random_init_seed(&random, 1);
    for (unsigned round = 0; round < 20000; round++) {
        struct span message = build_rich();
        size_t size =
            random_below(&random, 4) ? message.size : random_below(&random, (uint32_t)message.size);
        char *copy = malloc(size + 1);
        memcpy(copy, message.at, size);
        for (unsigned flips = random_below(&random, 8); flips > 0 && size > 0; flips--) {
            size_t at = random_below(&random, (uint32_t)size);
            copy[at] = random_below(&random, 3) ? (char)random_u32(&random) : (char)0xc0;
        }
        struct dns_reply reply;
        if (dns_reply_parse(span_of(copy, size), DNS_MX, QUESTION, 0, &reply) == 0) {
            for (unsigned i = 0; i < reply.records_count; i++) {
                uint16_t preference;
                struct dns_name name = {.size = 0};
                (void)dns_mx_parse(span_of(copy, size), reply.records[i], &preference, &name);
                ensure(strlen(name.text) <= DNS_NAME_TEXT_MAX);
            }
            ensure(reply.aliases_count <= DNS_ALIASES_MAX);
        }
        free(copy);
    }
}

SUITE(dns_message, test_reply, test_aliases_backwards, test_alias_limits, test_header,
      test_truncated, test_mx_rdata, test_address_sizes, test_record_limits, test_ttl, test_names,
      test_name_limits, test_name_jumps, test_plain, test_odd_labels, test_mutations)
