/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dns_build: writes DNS answers for tests and simulated name servers (RFC 1035 4.1).
 *
 * Begin, put records section by section (answers, then authorities), end. Names that are the
 * question's are compressed to a pointer to it. The caller's buffer bounds the message; one that
 * does not fit is a bug of the test.
 */
#pragma once

#include "dns/dns_source.h"
#include "engine/base/bytes.h"

enum { DNS_BUILD_SERVFAIL = 2, DNS_BUILD_MESSAGE_MAX = 65535 };

enum dns_section { DNS_ANSWERS, DNS_AUTHORITIES };

struct dns_build {
    struct writer writer;
    struct span question;
    uint16_t counts[2];
};

void dns_build_begin(struct dns_build *build, void *memory, size_t size, struct span name,
                     enum dns_type type, unsigned rcode);
void dns_build_record(struct dns_build *build, enum dns_section section, struct span owner,
                      unsigned type, uint32_t ttl_s, struct span rdata);
void dns_build_mx(struct dns_build *build, struct span owner, uint32_t ttl_s, unsigned preference,
                  struct span target);
void dns_build_cname(struct dns_build *build, struct span owner, uint32_t ttl_s,
                     struct span target);
/* A or AAAA, by the text. */
void dns_build_addr(struct dns_build *build, struct span owner, uint32_t ttl_s, struct span text);
void dns_build_soa(struct dns_build *build, struct span owner, uint32_t ttl_s, uint32_t minimum_s);
struct span dns_build_end(struct dns_build *build);
/* A name in wire form, uncompressed. */
void dns_build_put_name(struct writer *writer, struct span name);
