/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx_site.h"

#include "tests/harness.h"

/* "group name" pairs, in the order given. */
struct site_row {
    struct mx_site_host hosts[6];
    size_t hosts_count;
    const char *want_name;
};

#define HOST(group_number, literal)                                                                \
    {                                                                                              \
        .name = SPAN(literal), .group = (group_number)                                             \
    }

static const struct site_row ROWS[] = {
    {{HOST(10, "mx.example.com")}, 1, "mx.example.com"},
    {{HOST(10, "mx2.example.com"), HOST(10, "mx1.example.com")}, 2, "(mx1|mx2).example.com"},
    {{HOST(20, "a.example.com"), HOST(10, "b.example.com")}, 2, "(b|a).example.com"},
    {{HOST(10, "alt2.gmail-smtp-in.l.google.com"), HOST(5, "gmail-smtp-in.l.google.com"),
      HOST(10, "alt1.gmail-smtp-in.l.google.com")},
     3,
     "(alt1|alt2)?.gmail-smtp-in.l.google.com"},
    {{HOST(1, "aspmx.l.google.com"), HOST(5, "alt1.aspmx.l.google.com"),
      HOST(5, "alt2.aspmx.l.google.com")},
     3,
     "(alt1|alt2)?.aspmx.l.google.com"},
    {{HOST(10, "b.y.net"), HOST(10, "a.x.com")}, 2, "(a.x.com|b.y.net)"},
    {{HOST(10, "xmx.example"), HOST(10, "mx.example")}, 2, "(mx|xmx).example"},
    {{HOST(10, "mx-example"), HOST(10, "mx.example")}, 2, "(mx-example|mx.example)"},
    {{HOST(10, "com"), HOST(10, "x.com")}, 2, "(x)?.com"},
    {{HOST(0, "[192.5.2.1]")}, 1, "[192.5.2.1]"},
};

static struct mx_site build(const struct mx_site_host *hosts, size_t count)
{
    struct mx_site_host copy[MX_SITE_HOSTS_MAX];
    struct mx_site site;
    memcpy(copy, hosts, count * sizeof(copy[0]));
    mx_site_build(copy, count, &site);
    return site;
}

static void test_names(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct mx_site site = build(ROWS[i].hosts, ROWS[i].hosts_count);
        CHECK_ROW(i,
                  span_equal(span_of(site.name, site.name_size), span_of_text(ROWS[i].want_name)));
        CHECK_ROW(i, site.key != 0);
    }
}

/* Equal sets are one site, whatever the order of the records and the numbers of the preferences. */
static void test_keys(void)
{
    static const struct mx_site_host A[] = {HOST(10, "a.x"), HOST(10, "b.x"), HOST(20, "c.x")};
    static const struct mx_site_host A_SHUFFLED[] = {HOST(7, "c.x"), HOST(5, "b.x"),
                                                     HOST(5, "a.x")};
    static const struct mx_site_host REGROUPED[] = {HOST(10, "a.x"), HOST(20, "b.x"),
                                                    HOST(20, "c.x")};
    static const struct mx_site_host FLAT[] = {HOST(10, "a.x"), HOST(10, "b.x"), HOST(10, "c.x")};
    static const struct mx_site_host FEWER[] = {HOST(10, "a.x"), HOST(10, "b.x")};
    uint64_t key = build(A, 3).key;
    CU_ASSERT(build(A_SHUFFLED, 3).key == key);
    CU_ASSERT(build(REGROUPED, 3).key != key);
    CU_ASSERT(build(FLAT, 3).key != key);
    CU_ASSERT(build(FEWER, 2).key != key);
}

/* The key may be kept in files and in other nodes: it must not change with a build. */
static void test_key_is_stable(void)
{
    static const struct mx_site_host ONE[] = {HOST(10, "mx.example.com")};
    CU_ASSERT(build(ONE, 1).key == UINT64_C(0x0690d5c2472606fe));
}

static void test_long_names(void)
{
    static char text[MX_SITE_HOSTS_MAX][256];
    struct mx_site_host hosts[MX_SITE_HOSTS_MAX];
    for (unsigned i = 0; i < MX_SITE_HOSTS_MAX; i++) {
        memset(text[i], 'a' + (int)(i % 26), 253);
        text[i][0] = (char)('a' + i / 26);
        hosts[i] = (struct mx_site_host){.name = span_of(text[i], 253), .group = 10};
    }
    struct mx_site site = build(hosts, MX_SITE_HOSTS_MAX);
    CU_ASSERT(site.name_size <= MX_SITE_NAME_MAX);
    CU_ASSERT(site.name_size > 200);
    CU_ASSERT(memmem(site.name, site.name_size, "+31~", 4) != NULL);
    struct mx_site other = build(hosts, MX_SITE_HOSTS_MAX - 1);
    CU_ASSERT(other.key != site.key);
    for (unsigned i = 0; i < MX_SITE_HOSTS_MAX; i++) {
        hosts[i].name.size = 6;
        memcpy(text[i], "mx..xy", 6);
        text[i][2] = (char)('A' + i);
    }
    site = build(hosts, MX_SITE_HOSTS_MAX);
    CU_ASSERT(site.name_size <= MX_SITE_NAME_MAX);
    CU_ASSERT(span_starts(span_of(site.name, site.name_size), SPAN("(mxA|mxB|mxC|")));
}

static void test_bounds_panic(void)
{
    struct mx_site_host hosts[MX_SITE_HOSTS_MAX + 1] = {HOST(1, "a.x")};
    struct mx_site site;
    CHECK_PANICS(mx_site_build(hosts, 0, &site));
    CHECK_PANICS(mx_site_build(hosts, MX_SITE_HOSTS_MAX + 1, &site));
}

SUITE(mx_site, test_names, test_keys, test_key_is_stable, test_long_names, test_bounds_panic)
