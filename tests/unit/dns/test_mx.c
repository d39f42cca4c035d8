/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx.h"

#include <stdlib.h>

#include "engine/base/random.h"
#include "tests/harness.h"
#include "tests/unit/dns/dns_build.h"
#include "tests/unit/dns/fake_zone.h"

static const struct fake_row ZONE[] = {
    /* B1: aliases */
    {"alias.example", DNS_CNAME, 300, "plain.example"},
    {"alias2.example", DNS_CNAME, 30, "alias.example"},
    {"dangling-alias.example", DNS_CNAME, 300, "nowhere.example"},
    {"loop1.example", DNS_CNAME, 300, "loop2.example"},
    {"loop2.example", DNS_CNAME, 300, "loop1.example"},
    {"half.example", FAKE_HALF_CNAME, 300, "plain.example"},
    {"half2.example", FAKE_HALF_CNAME, 200, "half.example"},
    {"half3.example", FAKE_HALF_CNAME, 300, "half2.example"},
    {"half-a.example", FAKE_HALF_CNAME, 300, "mx1.example"},
    {"half-b.example", FAKE_HALF_CNAME, 300, "mx2.example"},
    {"two-halves.example", DNS_MX, 3600, "10 half-a.example"},
    {"two-halves.example", DNS_MX, 3600, "20 half-b.example"},
    {"halfloop1.example", FAKE_HALF_CNAME, 300, "halfloop2.example"},
    {"halfloop2.example", FAKE_HALF_CNAME, 300, "halfloop1.example"},
    {"alias-to-implicit.example", DNS_CNAME, 300, "implicit.example"},
    /* the common cases */
    {"plain.example", DNS_MX, 3600, "10 mx1.example"},
    {"two.example", DNS_MX, 3600, "20 mx2.example"},
    {"two.example", DNS_MX, 1800, "10 mx1.example"},
    {"equal.example", DNS_MX, 3600, "10 mx2.example"},
    {"equal.example", DNS_MX, 3600, "10 mx1.example"},
    {"mx1.example", DNS_A, 600, "192.5.2.1"},
    {"mx2.example", DNS_A, 700, "192.5.2.2"},
    {"mx2.example", DNS_AAAA, 500, "2a00:db8::2"},
    {"under_score.example", DNS_A, 600, "192.5.2.5"},
    {"underscore.example", DNS_MX, 600, "10 under_score.example"},
    /* B2 */
    {"servfail.example", FAKE_SERVFAIL, 0, NULL},
    {"servfail.example", DNS_A, 60, "192.5.2.9"},
    {"timeout.example", FAKE_TIMEOUT, 0, NULL},
    {"mxfail.example", FAKE_SERVFAIL, 0, "MX"},
    {"mxfail.example", DNS_A, 60, "192.5.2.9"},
    {"implicit.example", DNS_A, 1200, "192.5.2.10"},
    {"implicit.example", DNS_AAAA, 1300, "2a00:db8::10"},
    {"aaaa-only.example", DNS_AAAA, 1300, "2a00:db8::11"},
    {"empty.example", FAKE_EMPTY, 0, NULL},
    {"implicit-fail.example", FAKE_SERVFAIL, 0, "A"},
    {"implicit-half-fail.example", FAKE_SERVFAIL, 0, "AAAA"},
    {"implicit-half-fail.example", DNS_A, 1200, "192.5.2.12"},
    /* B3 */
    {"dangling-mx.example", DNS_MX, 3600, "10 nowhere.example"},
    {"dangling-mx.example", DNS_A, 3600, "192.5.2.9"},
    {"mx-ip.example", DNS_MX, 3600, "5 127.0.0.1"},
    {"mx-ip.example", DNS_A, 3600, "192.5.2.9"},
    {"mx-ip-and-good.example", DNS_MX, 3600, "5 192.5.2.9"},
    {"mx-ip-and-good.example", DNS_MX, 3600, "50 mx1.example"},
    {"mx-empty.example", DNS_MX, 3600, "10 empty.example"},
    {"mx-cname.example", DNS_MX, 3600, "10 mx-alias.example"},
    {"mx-alias.example", DNS_CNAME, 50, "mx1.example"},
    {"mx-loop.example", DNS_MX, 3600, "10 loop1.example"},
    {"mixed.example", DNS_MX, 3600, "10 nowhere.example"},
    {"mixed.example", DNS_MX, 3600, "20 servfail.example"},
    {"mixed.example", DNS_MX, 3600, "30 mx1.example"},
    {"mx-allfail.example", DNS_MX, 3600, "10 nowhere.example"},
    {"mx-allfail.example", DNS_MX, 3600, "20 servfail.example"},
    {"mx-aaaafail.example", DNS_MX, 3600, "10 aaaafail.example"},
    {"aaaafail.example", DNS_A, 3600, "192.5.2.13"},
    {"aaaafail.example", FAKE_SERVFAIL, 0, "AAAA"},
    /* B6 */
    {"own-best.example", DNS_MX, 3600, "10 me.example"},
    {"own-best.example", DNS_MX, 3600, "20 mx2.example"},
    {"own-middle.example", DNS_MX, 3600, "10 mx1.example"},
    {"own-middle.example", DNS_MX, 3600, "20 ME.example"},
    {"own-middle.example", DNS_MX, 3600, "20 mx2.example"},
    {"own-middle.example", DNS_MX, 3600, "30 mx3.example"},
    {"me.example", DNS_A, 60, "192.5.2.66"},
    {"me2.example", DNS_A, 60, "192.5.2.67"},
    /* B7 */
    {"null.example", DNS_MX, 3600, "0 ."},
    {"null.example", DNS_A, 3600, "192.5.2.9"},
    {"null-and-real.example", DNS_MX, 3600, "0 ."},
    {"null-and-real.example", DNS_MX, 3600, "10 mx1.example"},
    /* B8 */
    {"twice.example", DNS_MX, 3600, "20 mx1.example"},
    {"twice.example", DNS_MX, 3600, "10 MX1.example"},
    {"raw0.example", FAKE_RAW_MX, 3600, ""},
    {"raw0.example", DNS_A, 3600, "192.5.2.9"},
    {"raw3.example", FAKE_RAW_MX, 3600, "000a05"},
    {"raw3.example", DNS_A, 3600, "192.5.2.9"},
    {"raw-and-good.example", FAKE_RAW_MX, 3600, "00"},
    {"raw-and-good.example", DNS_MX, 3600, "10 mx1.example"},
    {"raw-space.example", FAKE_RAW_MX, 3600, "000a03612062076578616d706c6500"},
    {"many.example", FAKE_MANY_MX, 3600, "150"},
    {"mx0060.many.example", DNS_A, 60, "192.5.2.77"},
    {"mx0140.many.example", DNS_A, 60, "192.5.2.99"},
    /* 3.10 */
    {"special.example", DNS_MX, 3600, "10 localhost"},
    {"localhost", DNS_A, 3600, "127.0.0.1"},
    {"localhost", DNS_AAAA, 3600, "::1"},
    {"special-and-good.example", DNS_MX, 3600, "10 private.example"},
    {"special-and-good.example", DNS_MX, 3600, "20 mx1.example"},
    {"mapped.example", DNS_AAAA, 3600, "::ffff:192.5.2.1"},
    {"private.example", DNS_A, 3600, "10.1.2.3"},
    {"private.example", DNS_AAAA, 3600, "fe80::1"},
    {NULL, 0, 0, NULL},
};

static const struct mx_rules RULES = {
    .use_ip4 = true, .use_ip6 = true, .own_names = "me.example., me2.example"};

static struct mx_lookup lookup;
static struct mx_result result;
static char message_memory[DNS_BUILD_MESSAGE_MAX];

/* Answers in the order of the questions, or always the last one first. Returns the questions. */
static unsigned drive(const struct fake_row *rows, bool is_backwards)
{
    struct mx_ask *asked[2 * MX_TARGETS_MAX];
    unsigned count = 0, first = 0, total = 0;
    while (!mx_lookup_is_done(&lookup)) {
        struct mx_ask *ask;
        struct span message;
        while ((ask = mx_lookup_next(&lookup)) != NULL) {
            if (first == count) {
                first = count = 0;
            }
            ensure(count < COUNT_OF(asked));
            asked[count++] = ask;
            total++;
        }
        ensure(first < count);
        ask = is_backwards ? asked[--count] : asked[first++];
        enum dns_status status =
            fake_zone_answer(rows, ask->name, ask->type, message_memory, &message);
        mx_lookup_on_reply(&lookup, ask, status, message);
    }
    CU_ASSERT(!mx_lookup_wants(&lookup));
    return total;
}

static unsigned look_up(const struct mx_rules *rules, enum mx_kind kind, const char *name)
{
    memset(&lookup, 0xa5, sizeof(lookup)); /* as the lookup before has left it */
    mx_lookup_start(&lookup, rules, kind, span_of_text(name));
    unsigned total = drive(ZONE, false);
    mx_lookup_result(&lookup, &result);
    return total;
}

/* "rank/preference name address ..." */
static const char *hosts_text(void)
{
    static char text[4096];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    for (unsigned i = 0; i < result.hosts_count; i++) {
        const struct mx_host *host = &result.hosts[i];
        if (i > 0) {
            writer_put(&writer, SPAN(", "));
        }
        writer_put_uint(&writer, host->rank);
        writer_put_byte(&writer, '/');
        writer_put_uint(&writer, host->preference);
        writer_put_byte(&writer, ' ');
        writer_put(&writer, span_of(result.names + host->name_at, host->name_size));
        writer_put_byte(&writer, ' ');
        net_addr_put(&writer, &host->addr);
        ensure(host->addr.port == 0);
    }
    ensure(!writer.is_full);
    text[writer_size(&writer)] = '\0';
    return text;
}

#define MX1 "mx1.example 192.5.2.1"

static const struct {
    const char *name;
    enum mx_outcome outcome;
    enum mx_lifetime lifetime;
    uint32_t ttl_s;
    const char *hosts;
    const char *site;
} ROWS[] = {
    {"plain.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    {"two.example", MX_OK, MX_LIFE_POSITIVE, 500,
     "0/10 " MX1 ", 1/20 mx2.example 192.5.2.2, 1/20 mx2.example 2a00:db8::2", "(mx1|mx2).example"},
    {"equal.example", MX_OK, MX_LIFE_POSITIVE, 500,
     "0/10 mx2.example 192.5.2.2, 0/10 mx2.example 2a00:db8::2, 1/10 " MX1, "(mx1|mx2).example"},
    {"underscore.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 under_score.example 192.5.2.5",
     "under_score.example"},
    /* B1 */
    {"alias.example", MX_OK, MX_LIFE_POSITIVE, 300, "0/10 " MX1, "mx1.example"},
    {"alias2.example", MX_OK, MX_LIFE_POSITIVE, 30, "0/10 " MX1, "mx1.example"},
    {"dangling-alias.example", MX_NO_DOMAIN, MX_LIFE_NEGATIVE, 300, "", ""},
    {"loop1.example", MX_LOOP, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"half.example", MX_OK, MX_LIFE_POSITIVE, 300, "0/10 " MX1, "mx1.example"},
    {"half3.example", MX_OK, MX_LIFE_POSITIVE, 200, "0/10 " MX1, "mx1.example"},
    {"two-halves.example", MX_OK, MX_LIFE_POSITIVE, 300,
     "0/10 half-a.example 192.5.2.1, 1/20 half-b.example 192.5.2.2, "
     "1/20 half-b.example 2a00:db8::2",
     "(half-a|half-b).example"},
    {"halfloop1.example", MX_LOOP, MX_LIFE_NEGATIVE, 300, "", ""},
    {"alias-to-implicit.example", MX_OK, MX_LIFE_POSITIVE, 300,
     "0/0 alias-to-implicit.example 192.5.2.10, 0/0 alias-to-implicit.example 2a00:db8::10",
     "alias-to-implicit.example"},
    /* B2 */
    {"nxdomain.example", MX_NO_DOMAIN, MX_LIFE_NEGATIVE, 600, "", ""},
    {"servfail.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, UINT32_MAX, "", ""},
    {"timeout.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, UINT32_MAX, "", ""},
    {"mxfail.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, UINT32_MAX, "", ""},
    {"implicit.example", MX_OK, MX_LIFE_POSITIVE, 600,
     "0/0 implicit.example 192.5.2.10, 0/0 implicit.example 2a00:db8::10", "implicit.example"},
    {"aaaa-only.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/0 aaaa-only.example 2a00:db8::11",
     "aaaa-only.example"},
    {"empty.example", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, 600, "", ""},
    {"implicit-fail.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, 600, "", ""},
    {"implicit-half-fail.example", MX_OK, MX_LIFE_PARTIAL, 600,
     "0/0 implicit-half-fail.example 192.5.2.12", "implicit-half-fail.example"},
    /* B3 */
    {"dangling-mx.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 600, "", ""},
    {"mx-ip.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 3600, "", ""},
    {"mx-ip-and-good.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/50 " MX1, "mx1.example"},
    {"mx-empty.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 600, "", ""},
    {"mx-cname.example", MX_OK, MX_LIFE_POSITIVE, 50, "0/10 mx-alias.example 192.5.2.1",
     "mx-alias.example"},
    {"mx-loop.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 3600, "", ""},
    {"mixed.example", MX_OK, MX_LIFE_TEMPORARY, 600, "0/30 " MX1, "(nowhere|servfail|mx1).example"},
    {"mx-allfail.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, 600, "", ""},
    {"mx-aaaafail.example", MX_OK, MX_LIFE_PARTIAL, 3600, "0/10 aaaafail.example 192.5.2.13",
     "aaaafail.example"},
    /* B6 */
    {"own-best.example", MX_LOOP, MX_LIFE_NEGATIVE, 3600, "", ""},
    {"own-middle.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    {"me2.example", MX_LOOP, MX_LIFE_NEGATIVE, 600, "", ""},
    /* B7 */
    {"null.example", MX_NULL, MX_LIFE_POSITIVE, 3600, "", ""},
    {"null-and-real.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    /* B8 */
    {"twice.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    {"raw0.example", MX_TEMPORARY, MX_LIFE_TEMPORARY, UINT32_MAX, "", ""},
    {"raw3.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 3600, "", ""},
    {"raw-and-good.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    {"raw-space.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 3600, "", ""},
    /* 3.10 */
    {"special.example", MX_NO_HOST, MX_LIFE_NEGATIVE, 3600, "", ""},
    {"special-and-good.example", MX_OK, MX_LIFE_POSITIVE, 600, "0/20 " MX1,
     "(private|mx1).example"},
    {"localhost", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, 600, "", ""},
    {"private.example", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, 600, "", ""},
    {"mapped.example", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, 600, "", ""},
    /* B9 */
    {"[192.5.2.1]", MX_OK, MX_LIFE_POSITIVE, UINT32_MAX, "0/0 [192.5.2.1] 192.5.2.1",
     "[192.5.2.1]"},
    {"[IPv6:2A00:DB8:0::1]", MX_OK, MX_LIFE_POSITIVE, UINT32_MAX,
     "0/0 [IPv6:2a00:db8::1] 2a00:db8::1", "[IPv6:2a00:db8::1]"},
    {"[ipv6:2a00:db8::1]", MX_OK, MX_LIFE_POSITIVE, UINT32_MAX,
     "0/0 [IPv6:2a00:db8::1] 2a00:db8::1", "[IPv6:2a00:db8::1]"},
    {"[127.0.0.1]", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[IPv6:::1]", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[10.0.0.1]", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[203.0.113.1]", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[IPv6:64:ff9b::7f00:1]", MX_NO_ADDRESS, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[192.5.2.1]:25", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[192.5.2.1:25]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[192.5.2.256]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[2a00:db8::1]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[IPv6:192.5.2.1]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[IPv6:[2a00:db8::1]]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"192.5.2.1]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[]", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"[", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"192.5.2.1", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    /* B10 */
    {"PLAIN.example.", MX_OK, MX_LIFE_POSITIVE, 600, "0/10 " MX1, "mx1.example"},
    {"", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {".", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"a..example", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"a b.example", MX_BAD_NAME, MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
    {"0123456789012345678901234567890123456789012345678901234567890123.example", MX_BAD_NAME,
     MX_LIFE_NEGATIVE, UINT32_MAX, "", ""},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        look_up(&RULES, MX_KIND_MAIL, ROWS[i].name);
        CHECK_ROW(i, result.outcome == ROWS[i].outcome);
        CHECK_ROW(i, result.lifetime == ROWS[i].lifetime);
        CHECK_ROW(i, result.ttl_s == ROWS[i].ttl_s);
        CHECK_ROW(i, strcmp(hosts_text(), ROWS[i].hosts) == 0);
        CHECK_ROW(i, span_equal(span_of(result.site.name, result.site.name_size),
                                span_of_text(ROWS[i].site)));
        CHECK_ROW(i, (result.site.key != 0) == (result.outcome == MX_OK));
        if (strcmp(hosts_text(), ROWS[i].hosts) != 0 || result.ttl_s != ROWS[i].ttl_s) {
            (void)printf("row %zu: ttl %u, %s\n", i, result.ttl_s, hosts_text());
        }
    }
}

/* The order in which answers come changes nothing. */
static void test_order_of_answers(void)
{
    static struct mx_result forwards;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        look_up(&RULES, MX_KIND_MAIL, ROWS[i].name);
        forwards = result;
        mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL, span_of_text(ROWS[i].name));
        drive(ZONE, true);
        mx_lookup_result(&lookup, &result);
        CHECK_ROW(i, result.outcome == forwards.outcome);
        CHECK_ROW(i, result.ttl_s == forwards.ttl_s);
        CHECK_ROW(i, result.hosts_count == forwards.hosts_count);
        CHECK_ROW(i, memcmp(result.hosts, forwards.hosts,
                            result.hosts_count * sizeof(result.hosts[0])) == 0);
        CHECK_ROW(i, result.site.key == forwards.site.key);
    }
}

/* What needs no question asks none (B7, B9, B10); and A of the domain is never asked when it has MX
 * records or the MX question failed (B1, B2, B3). */
static void test_questions_counts(void)
{
    static const struct {
        const char *name;
        unsigned want_count;
    } COUNTS[] = {
        {"null.example", 1},     {"mxfail.example", 1},      {"nxdomain.example", 1},
        {"mx-ip.example", 1},    {"dangling-mx.example", 3}, {"implicit.example", 3},
        {"plain.example", 3},    {"two.example", 5},         {"half.example", 4},
        {"[192.5.2.1]", 0},      {"[127.0.0.1]", 0},         {"a..example", 0},
        {"own-best.example", 1}, {"raw0.example", 1},        {"alias-to-implicit.example", 3},
    };
    for (size_t i = 0; i < COUNT_OF(COUNTS); i++) {
        CHECK_ROW(i, look_up(&RULES, MX_KIND_MAIL, COUNTS[i].name) == COUNTS[i].want_count);
    }
}

static const struct {
    const char *name;
    enum mx_outcome outcome;
    const char *hosts;
} HOST_ROWS[] = {
    {"mx2.example", MX_OK, "0/0 mx2.example 192.5.2.2, 0/0 mx2.example 2a00:db8::2"},
    {"mx-alias.example", MX_OK, "0/0 mx-alias.example 192.5.2.1"},
    {"nxdomain.example", MX_NO_DOMAIN, ""},
    {"null-and-real.example", MX_NO_ADDRESS, ""},
    {"servfail.example", MX_TEMPORARY, ""},
    {"loop1.example", MX_LOOP, ""},
    {"me.example", MX_OK, "0/0 me.example 192.5.2.66"},
    {"localhost", MX_OK, "0/0 localhost 127.0.0.1, 0/0 localhost ::1"},
    {"127.0.0.1", MX_OK, "0/0 [127.0.0.1] 127.0.0.1"},
    {"[127.0.0.1]", MX_OK, "0/0 [127.0.0.1] 127.0.0.1"},
    {"::1", MX_OK, "0/0 [IPv6:::1] ::1"},
    {"[::1]", MX_OK, "0/0 [IPv6:::1] ::1"},
    {"127.0.0.1:25", MX_BAD_NAME, ""},
    {"a..b", MX_BAD_NAME, ""},
};

static void test_hosts(void)
{
    for (size_t i = 0; i < COUNT_OF(HOST_ROWS); i++) {
        look_up(&RULES, MX_KIND_HOST, HOST_ROWS[i].name);
        CHECK_ROW(i, result.outcome == HOST_ROWS[i].outcome);
        CHECK_ROW(i, strcmp(hosts_text(), HOST_ROWS[i].hosts) == 0);
    }
}

/* One host name is one site, however it was found. */
static void test_one_site(void)
{
    look_up(&RULES, MX_KIND_MAIL, "plain.example");
    uint64_t key = result.site.key;
    look_up(&RULES, MX_KIND_MAIL, "mx1.example");
    CU_ASSERT(result.site.key == key);
    look_up(&RULES, MX_KIND_HOST, "mx1.example");
    CU_ASSERT(result.site.key == key);
    look_up(&RULES, MX_KIND_MAIL, "equal.example");
    key = result.site.key;
    look_up(&RULES, MX_KIND_MAIL, "two.example");
    CU_ASSERT(result.site.key != key);
}

static void test_families(void)
{
    struct mx_rules ip4 = RULES, ip6 = RULES;
    ip4.use_ip6 = false;
    ip6.use_ip4 = false;
    CU_ASSERT(look_up(&ip4, MX_KIND_MAIL, "two.example") == 3);
    CU_ASSERT(strcmp(hosts_text(), "0/10 " MX1 ", 1/20 mx2.example 192.5.2.2") == 0);
    CU_ASSERT(look_up(&ip6, MX_KIND_MAIL, "two.example") == 3);
    CU_ASSERT(strcmp(hosts_text(), "0/20 mx2.example 2a00:db8::2") == 0);
    look_up(&ip6, MX_KIND_MAIL, "[192.5.2.1]");
    CU_ASSERT(result.outcome == MX_NO_ADDRESS);
    look_up(&ip4, MX_KIND_MAIL, "aaaa-only.example");
    CU_ASSERT(result.outcome == MX_NO_ADDRESS);
}

/* B6: who has no name of his own is no MX of anybody. */
static void test_without_a_name(void)
{
    struct mx_rules rules = RULES;
    rules.own_names = NULL;
    look_up(&rules, MX_KIND_MAIL, "own-best.example");
    CU_ASSERT(result.outcome == MX_OK);
    CU_ASSERT(result.hosts_count == 3);
    rules.own_names = "";
    look_up(&rules, MX_KIND_MAIL, "own-best.example");
    CU_ASSERT(result.hosts_count == 3);
}

static void test_special_allowed(void)
{
    struct mx_rules rules = RULES;
    rules.allow_special = true;
    look_up(&rules, MX_KIND_MAIL, "special.example");
    CU_ASSERT(strcmp(hosts_text(), "0/10 localhost 127.0.0.1, 0/10 localhost ::1") == 0);
    look_up(&rules, MX_KIND_MAIL, "[127.0.0.1]");
    CU_ASSERT(result.outcome == MX_OK);
}

/* B8: 150 records of one preference, the last name first: the first 100 records count, and the
 * choice of 32 of them does not depend on their order. */
static void test_many_mx(void)
{
    CU_ASSERT(look_up(&RULES, MX_KIND_MAIL, "many.example") == 1 + 2 * MX_TARGETS_MAX);
    CU_ASSERT(result.outcome == MX_OK);
    CU_ASSERT(strcmp(hosts_text(), "0/10 mx0060.many.example 192.5.2.77") == 0);
}

static unsigned count_rank(unsigned rank, enum net_family family)
{
    unsigned count = 0;
    for (unsigned i = 0; i < result.hosts_count; i++) {
        count += result.hosts[i].rank == rank && result.hosts[i].addr.family == family;
    }
    return count;
}

/* B5: two hosts with many addresses and one with few: everyone gets a fair share of the places, A
 * and AAAA alternate, and a dead family cannot eat a limit of 2. */
static void test_shares(void)
{
    static char names[48][32];
    static struct fake_row rows[80];
    size_t count = 0;
    for (unsigned i = 0; i < 48; i++) {
        struct writer writer = writer_of(names[i], sizeof(names[i]));
        writer_put_format(&writer, i % 2 ? "2a00:db8::%u" : "192.5.2.%u", i + 1);
        const char *owner = i < 20 ? "big1.example" : i < 40 ? "big2.example" : "small.example";
        if (i < 40 || i == 41) {
            rows[count++] = (struct fake_row){owner, i % 2 ? DNS_AAAA : DNS_A, 60, names[i]};
        }
    }
    rows[count++] = (struct fake_row){"example", DNS_MX, 60, "10 big1.example"};
    rows[count++] = (struct fake_row){"example", DNS_MX, 60, "10 big2.example"};
    rows[count++] = (struct fake_row){"example", DNS_MX, 60, "20 small.example"};
    mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL, SPAN("example"));
    drive(rows, false);
    mx_lookup_result(&lookup, &result);
    CU_ASSERT(result.hosts_count == MX_HOSTS_MAX);
    CU_ASSERT(count_rank(0, NET_IP4) == 8);
    CU_ASSERT(count_rank(0, NET_IP6) == 8);
    CU_ASSERT(count_rank(1, NET_IP4) + count_rank(1, NET_IP6) == 15);
    CU_ASSERT(count_rank(2, NET_IP6) == 1);
    CU_ASSERT(result.hosts[0].addr.family == NET_IP4);
    CU_ASSERT(result.hosts[1].addr.family == NET_IP6);
    CU_ASSERT(result.hosts[2].addr.family == NET_IP4);
}

/* Of 30 addresses, always in the same order, each is kept by some lookup. */
static void test_addresses_take_turns(void)
{
    enum { ADDRS = 30 };
    static char names[ADDRS][32];
    static struct fake_row rows[ADDRS + 1];
    for (unsigned i = 0; i < ADDRS; i++) {
        struct writer writer = writer_of(names[i], sizeof(names[i]));
        writer_put_format(&writer, "192.5.2.%u", i + 1);
        rows[i] = (struct fake_row){"example", DNS_A, 60, names[i]};
    }
    uint32_t seen = 0;
    for (unsigned id = 0; id < ADDRS; id++) {
        mx_lookup_start(&lookup, &RULES, MX_KIND_HOST, SPAN("example"));
        struct mx_ask *ask;
        while ((ask = mx_lookup_next(&lookup)) != NULL) {
            struct span message;
            enum dns_status status =
                fake_zone_answer(rows, ask->name, ask->type, message_memory, &message);
            message_memory[0] = 1;
            message_memory[1] = (char)id;
            mx_lookup_on_reply(&lookup, ask, status, message);
        }
        mx_lookup_result(&lookup, &result);
        CHECK_ROW(id, result.hosts_count == MX_ADDRS_MAX);
        for (unsigned i = 0; i < result.hosts_count; i++) {
            seen |= 1u << result.hosts[i].addr.bytes[3];
        }
    }
    CU_ASSERT(seen == 0x7ffffffe);
}

/* Out of time before MX: temporary; after it, with some addresses: they are used, and asked again
 * soon. */
static void test_give_up(void)
{
    struct span message;
    mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL, SPAN("two.example"));
    struct mx_ask *mx = mx_lookup_next(&lookup);
    CU_ASSERT(mx_lookup_next(&lookup) == NULL);
    mx_lookup_give_up(&lookup);
    mx_lookup_result(&lookup, &result);
    CU_ASSERT(result.outcome == MX_TEMPORARY);

    mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL, SPAN("two.example"));
    mx = mx_lookup_next(&lookup);
    enum dns_status status = fake_zone_answer(ZONE, mx->name, mx->type, message_memory, &message);
    mx_lookup_on_reply(&lookup, mx, status, message);
    struct mx_ask *a = mx_lookup_next(&lookup);
    CU_ASSERT(a->type == DNS_A);
    CU_ASSERT(span_equal(a->name, SPAN("mx1.example")));
    status = fake_zone_answer(ZONE, a->name, a->type, message_memory, &message);
    mx_lookup_on_reply(&lookup, a, status, message);
    CU_ASSERT(mx_lookup_wants(&lookup));
    mx_lookup_give_up(&lookup);
    CU_ASSERT(mx_lookup_is_done(&lookup));
    mx_lookup_result(&lookup, &result);
    CU_ASSERT(result.outcome == MX_OK);
    CU_ASSERT(result.lifetime == MX_LIFE_TEMPORARY);
    CU_ASSERT(strcmp(hosts_text(), "0/10 " MX1) == 0);
}

static void test_bugs_panic(void)
{
    mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL, SPAN("two.example"));
    CHECK_PANICS(mx_lookup_result(&lookup, &result));
    CHECK_PANICS(mx_lookup_on_reply(&lookup, &lookup.mx, DNS_FAILED, SPAN_NONE));
    struct mx_rules rules = {.allow_special = true};
    CHECK_PANICS(mx_lookup_start(&lookup, &rules, MX_KIND_MAIL, SPAN("two.example")));
}

static void mutate(struct random *random, char *bytes, size_t *size)
{
    uint32_t rest_from = 12; /* the header is damaged less often than the records */
    if (random_below(random, 3) > 0) {
        return;
    }
    if (random_below(random, 8) == 0) {
        *size = random_below(random, (uint32_t)*size + 1);
    }
    if (random_below(random, 8) == 0) {
        rest_from = 0;
    }
    for (unsigned flips = random_below(random, 6); flips > 0 && *size > rest_from; flips--) {
        uint32_t at = rest_from + random_below(random, (uint32_t)*size - rest_from);
        bytes[at] = (char)random_u32(random);
    }
}

/* Seeded: whole lookups over damaged messages end, with something that can be stored. */
static void test_mutations(void)
{
    struct random random;
    random_init_seed(&random, 2);
    unsigned usable_count = 0;
    for (unsigned round = 0; round < 20000; round++) {
        mx_lookup_start(&lookup, &RULES, MX_KIND_MAIL,
                        span_of_text(ROWS[round % COUNT_OF(ROWS)].name));
        struct mx_ask *ask;
        while ((ask = mx_lookup_next(&lookup)) != NULL) {
            struct span message;
            enum dns_status status =
                fake_zone_answer(ZONE, ask->name, ask->type, message_memory, &message);
            size_t size = message.size;
            char *copy = malloc(size + 1);
            memcpy(copy, message.at, size);
            mutate(&random, copy, &size);
            mx_lookup_on_reply(&lookup, ask, status, span_of(copy, size));
            free(copy);
        }
        ensure(mx_lookup_is_done(&lookup));
        mx_lookup_result(&lookup, &result);
        ensure(result.hosts_count <= MX_HOSTS_MAX);
        ensure((result.outcome == MX_OK) == (result.hosts_count > 0));
        usable_count += result.outcome == MX_OK;
    }
    CU_ASSERT(usable_count > 2000);
    CU_ASSERT(usable_count < 10000);
}

SUITE(mx, test_rows, test_order_of_answers, test_questions_counts, test_hosts, test_one_site,
      test_families, test_without_a_name, test_special_allowed, test_many_mx, test_shares,
      test_addresses_take_turns, test_give_up, test_bugs_panic, test_mutations)
