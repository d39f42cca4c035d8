/* SPDX-License-Identifier: Apache-2.0 */
#include "net/addr.h"

#include "tests/harness.h"

/* What is read and what is written back; NULL = refused. */
static const struct {
    const char *text, *bare, *with_port;
} ROWS[] = {
    {"192.0.2.1", "192.0.2.1", "192.0.2.1:0"},
    {"192.0.2.1:25", "192.0.2.1", "192.0.2.1:25"},
    {"0.0.0.0:65535", "0.0.0.0", "0.0.0.0:65535"},
    {"2001:db8::1", "2001:db8::1", "[2001:db8::1]:0"},
    {"[2001:db8::1]", "2001:db8::1", "[2001:db8::1]:0"},
    {"[2001:DB8:0:0:0:0:0:1]:25", "2001:db8::1", "[2001:db8::1]:25"},
    {"::", "::", "[::]:0"},
    {"::ffff:192.0.2.1", "::ffff:192.0.2.1", "[::ffff:192.0.2.1]:0"},
    {"2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666",
     "[2001:db8:1111:2222:3333:4444:5555:6666]:0"},
    {"", NULL, NULL},
    {"192.0.2", NULL, NULL},
    {"192.0.2.256", NULL, NULL},
    {"192.0.2.01", NULL, NULL},
    {" 192.0.2.1", NULL, NULL},
    {"192.0.2.1 ", NULL, NULL},
    {"192.0.2.1:", NULL, NULL},
    {"192.0.2.1:65536", NULL, NULL},
    {"192.0.2.1:000025", NULL, NULL},
    {"192.0.2.1:25x", NULL, NULL},
    {"192.0.2.1:-1", NULL, NULL},
    {":25", NULL, NULL},
    {"[192.0.2.1]:25", NULL, NULL},
    {"[::1", NULL, NULL},
    {"[]", NULL, NULL},
    {"[::1]25", NULL, NULL},
    {"[::1]:", NULL, NULL},
    {"::1::2", NULL, NULL},
    {"fe80::1%lo", NULL, NULL},
    {"localhost", NULL, NULL},
    {"2001:db8:1111:2222:3333:4444:5555:6666:7777:8888:9999", NULL, NULL},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct net_addr addr;
        bool is_taken = net_addr_parse(span_of_text(ROWS[i].text), &addr);
        CHECK_ROW(i, is_taken == (ROWS[i].bare != NULL));
        if (!is_taken || ROWS[i].bare == NULL) {
            continue;
        }
        char bare[NET_ADDR_TEXT_MAX], with_port[NET_ADDR_TEXT_MAX];
        struct writer writer = writer_of(bare, sizeof(bare));
        net_addr_put(&writer, &addr);
        CHECK_ROW(i, span_equal(writer_span(&writer), span_of_text(ROWS[i].bare)));
        writer = writer_of(with_port, sizeof(with_port));
        net_addr_put_port(&writer, &addr);
        CHECK_ROW(i, span_equal(writer_span(&writer), span_of_text(ROWS[i].with_port)));
        struct net_addr again;
        CHECK_ROW(i, net_addr_parse(writer_span(&writer), &again) && net_addr_equal(&addr, &again));
    }
}

static void test_refusal_leaves_result_alone(void)
{
    struct net_addr addr = {.family = NET_IP4, .port = 7, .bytes = {1, 2, 3, 4}};
    struct net_addr before = addr;
    CU_ASSERT_FALSE(net_addr_parse(SPAN("192.0.2.1:99999"), &addr));
    CU_ASSERT_FALSE(net_addr_parse(SPAN("[2001:db8::1]:x"), &addr));
    CU_ASSERT_FALSE(net_addr_parse(span_of("192.0.2.1\0", 10), &addr));
    CU_ASSERT(net_addr_equal(&addr, &before));
}

/* Every prefix of an address that has a port: no byte behind the span is read, and none crashes. */
static void test_prefixes(void)
{
    struct span whole = SPAN("[2001:db8::1]:2525");
    size_t taken_count = 0;
    for (size_t size = 0; size <= whole.size; size++) {
        char copy[32];
        memset(copy, '9', sizeof(copy));
        memcpy(copy, whole.at, size);
        struct net_addr addr;
        taken_count += net_addr_parse(span_of(copy, size), &addr);
    }
    CU_ASSERT_EQUAL(taken_count, 5); /* without the port, then with 1..4 digits */
}

static void test_put_is_whole_or_nothing(void)
{
    struct net_addr addr;
    CU_ASSERT_FATAL(net_addr_parse(SPAN("192.0.2.1:25"), &addr));
    char small[11];
    struct writer writer = writer_of(small, sizeof(small));
    net_addr_put_port(&writer, &addr);
    CU_ASSERT(writer.is_full);
    CU_ASSERT_EQUAL(writer_size(&writer), 0);
}

static const struct {
    const char *text;
    bool is_loopback, is_special;
} CLASSES[] = {
    {"0.0.0.0", false, true},
    {"9.255.255.255", false, false},
    {"10.0.0.1", false, true},
    {"11.0.0.0", false, false},
    {"100.63.255.255", false, false},
    {"100.64.0.0", false, true},
    {"100.127.255.255", false, true},
    {"100.128.0.0", false, false},
    {"127.0.0.1", true, true},
    {"127.255.255.255", true, true},
    {"128.0.0.1", false, false},
    {"169.254.1.1", false, true},
    {"169.253.1.1", false, false},
    {"172.15.0.1", false, false},
    {"172.16.0.1", false, true},
    {"172.31.255.255", false, true},
    {"172.32.0.1", false, false},
    {"191.255.255.255", false, false},
    {"192.0.0.1", false, true},
    {"192.0.0.8", false, true},
    {"192.0.0.9", false, false},
    {"192.0.0.10", false, false},
    {"192.0.0.255", false, true},
    {"192.0.1.1", false, false},
    {"192.0.2.1", false, true},
    {"192.0.3.1", false, false},
    {"192.167.1.1", false, false},
    {"192.168.1.1", false, true},
    {"198.17.255.255", false, false},
    {"198.18.0.1", false, true},
    {"198.19.255.255", false, true},
    {"198.20.0.0", false, false},
    {"198.51.99.255", false, false},
    {"198.51.100.7", false, true},
    {"203.0.112.255", false, false},
    {"203.0.113.9", false, true},
    {"203.0.114.0", false, false},
    {"223.255.255.255", false, false},
    {"224.0.0.1", false, true},
    {"239.255.255.255", false, true},
    {"240.0.0.1", false, true},
    {"255.255.255.255", false, true},
    {"::", false, true},
    {"::1", true, true},
    {"::2", false, true},
    {"::8.8.8.8", false, true},
    {"::127.0.0.1", false, true},
    {"::ffff:0:127.0.0.1", false, true},
    {"64:ff9b::7f00:1", false, true},
    {"64:ff9b::10.0.0.1", false, true},
    {"64:ff9b::8.8.8.8", false, false},
    {"64:ff9b:0:0:0:1:8.8.8.8", false, true},
    {"64:ff9b:1::8.8.8.8", false, true},
    {"100::1", false, true},
    {"100::ffff:ffff:ffff:ffff", false, true},
    {"100:0:0:1::1", false, true},
    {"100:0:0:2::1", false, false},
    {"2001::1", false, true},
    {"2001:1::1", false, false},
    {"2001:1::2", false, false},
    {"2001:1::3", false, false},
    {"2001:1::4", false, true},
    {"2001:2::1", false, true},
    {"2001:3::1", false, false},
    {"2001:4:112::1", false, false},
    {"2001:4:113::1", false, true},
    {"2001:10::1", false, true},
    {"2001:20::1", false, false},
    {"2001:30::1", false, false},
    {"2001:40::1", false, true},
    {"2001:1ff:ffff::1", false, true},
    {"2001:200::1", false, false},
    {"2001:db7:ffff::1", false, false},
    {"2001:db8::1", false, true},
    {"2001:db9::1", false, false},
    {"2002:7f00:1::1", false, true},
    {"2002:a00:1::1", false, true},
    {"2002:808:808::1", false, false},
    {"2a00::1", false, false},
    {"3ffe:ffff::1", false, false},
    {"3fff::1", false, true},
    {"3fff:fff::1", false, true},
    {"3fff:1000::1", false, false},
    {"5eff::1", false, false},
    {"5f00::1", false, true},
    {"5f01::1", false, false},
    {"fbff::1", false, false},
    {"fc00::1", false, true},
    {"fdff::1", false, true},
    {"fe00::1", false, false},
    {"fe80::1", false, true},
    {"febf::1", false, true},
    {"fec0::1", false, true},
    {"ff02::1", false, true},
    {"::ffff:127.0.0.1", true, true},
    {"::ffff:10.1.1.1", false, true},
    {"::ffff:8.8.8.8", false, false},
};

static void test_classes(void)
{
    for (size_t i = 0; i < COUNT_OF(CLASSES); i++) {
        struct net_addr addr;
        CHECK_ROW(i, net_addr_parse(span_of_text(CLASSES[i].text), &addr));
        CHECK_ROW(i, net_addr_is_loopback(&addr) == CLASSES[i].is_loopback);
        CHECK_ROW(i, net_addr_is_special(&addr) == CLASSES[i].is_special);
    }
}

static void test_equal_sees_every_field(void)
{
    struct net_addr a, b;
    CU_ASSERT_FATAL(net_addr_parse(SPAN("[2001:db8::1]:25"), &a));
    b = a;
    CU_ASSERT(net_addr_equal(&a, &b));
    b.port = 26;
    CU_ASSERT_FALSE(net_addr_equal(&a, &b));
    b = a;
    b.bytes[15] ^= 1;
    CU_ASSERT_FALSE(net_addr_equal(&a, &b));
    b = a;
    b.family = NET_IP4;
    CU_ASSERT_FALSE(net_addr_equal(&a, &b));
}

static void test_no_address_panics(void)
{
    struct net_addr none = {.family = NET_NONE};
    char text[NET_ADDR_TEXT_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    CHECK_PANICS(net_addr_put(&writer, &none));
}

SUITE(addr, test_rows, test_refusal_leaves_result_alone, test_prefixes,
      test_put_is_whole_or_nothing, test_classes, test_equal_sees_every_field,
      test_no_address_panics)
