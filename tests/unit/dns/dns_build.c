/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/dns/dns_build.h"

#include "engine/base/ensure.h"
#include "net/addr.h"

enum { ID = 0x4711, ANSWER_FLAGS = 0x8180, HEADER_SIZE = 12, QUESTION_POINTER = 0xc00c };

static void put_be16(struct writer *writer, unsigned value)
{
    writer_put_byte(writer, (char)(value >> 8));
    writer_put_byte(writer, (char)value);
}

static void put_be32(struct writer *writer, uint32_t value)
{
    put_be16(writer, value >> 16);
    put_be16(writer, value & 0xffff);
}

void dns_build_put_name(struct writer *writer, struct span name)
{
    struct cursor cursor = cursor_of(name);
    while (cursor_left(&cursor) > 0) {
        struct span label = cursor_take_until(&cursor, '.');
        writer_put_byte(writer, (char)label.size);
        writer_put(writer, label);
        (void)cursor_take_byte(&cursor, '.');
    }
    writer_put_byte(writer, 0);
}

void dns_build_begin(struct dns_build *build, void *memory, size_t size, struct span name,
                     enum dns_type type, unsigned rcode)
{
    *build = (struct dns_build){.writer = writer_of(memory, size), .question = name};
    put_be16(&build->writer, ID);
    put_be16(&build->writer, ANSWER_FLAGS | rcode);
    put_be16(&build->writer, 1);
    put_be16(&build->writer, 0);
    put_be32(&build->writer, 0);
    ensure(writer_size(&build->writer) == HEADER_SIZE);
    dns_build_put_name(&build->writer, name);
    put_be16(&build->writer, type);
    put_be16(&build->writer, 1);
}

void dns_build_record(struct dns_build *build, enum dns_section section, struct span owner,
                      unsigned type, uint32_t ttl_s, struct span rdata)
{
    ensure(section == DNS_AUTHORITIES || build->counts[DNS_AUTHORITIES] == 0);
    if (span_equal_nocase(owner, build->question)) {
        put_be16(&build->writer, QUESTION_POINTER);
    } else {
        dns_build_put_name(&build->writer, owner);
    }
    put_be16(&build->writer, type);
    put_be16(&build->writer, 1);
    put_be32(&build->writer, ttl_s);
    put_be16(&build->writer, (unsigned)rdata.size);
    writer_put(&build->writer, rdata);
    build->counts[section]++;
}

void dns_build_mx(struct dns_build *build, struct span owner, uint32_t ttl_s, unsigned preference,
                  struct span target)
{
    char rdata[300];
    struct writer writer = writer_of(rdata, sizeof(rdata));
    put_be16(&writer, preference);
    dns_build_put_name(&writer, target);
    ensure(!writer.is_full);
    dns_build_record(build, DNS_ANSWERS, owner, DNS_MX, ttl_s, writer_span(&writer));
}

void dns_build_cname(struct dns_build *build, struct span owner, uint32_t ttl_s, struct span target)
{
    char rdata[300];
    struct writer writer = writer_of(rdata, sizeof(rdata));
    dns_build_put_name(&writer, target);
    ensure(!writer.is_full);
    dns_build_record(build, DNS_ANSWERS, owner, DNS_CNAME, ttl_s, writer_span(&writer));
}

void dns_build_addr(struct dns_build *build, struct span owner, uint32_t ttl_s, struct span text)
{
    struct net_addr addr;
    ensure(net_addr_parse(text, &addr));
    bool is_ip4 = addr.family == NET_IP4;
    dns_build_record(build, DNS_ANSWERS, owner, is_ip4 ? DNS_A : DNS_AAAA, ttl_s,
                     span_of(addr.bytes, is_ip4 ? 4 : 16));
}

void dns_build_soa(struct dns_build *build, struct span owner, uint32_t ttl_s, uint32_t minimum_s)
{
    char rdata[300];
    struct writer writer = writer_of(rdata, sizeof(rdata));
    dns_build_put_name(&writer, SPAN("ns.example"));
    dns_build_put_name(&writer, SPAN("hostmaster.example"));
    put_be32(&writer, 1);
    put_be32(&writer, 7200);
    put_be32(&writer, 900);
    put_be32(&writer, 1209600);
    put_be32(&writer, minimum_s);
    ensure(!writer.is_full);
    dns_build_record(build, DNS_AUTHORITIES, owner, DNS_SOA, ttl_s, writer_span(&writer));
}

struct span dns_build_end(struct dns_build *build)
{
    ensure(!build->writer.is_full);
    struct writer counts = writer_of(build->writer.start + 6, 4);
    put_be16(&counts, build->counts[DNS_ANSWERS]);
    put_be16(&counts, build->counts[DNS_AUTHORITIES]);
    return writer_span(&build->writer);
}
