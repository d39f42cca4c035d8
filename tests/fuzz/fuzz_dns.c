/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of name servers. */
#include "dns/dns_message.h"
#include "tests/fuzz/fuzz.h"

static void check_name(const struct dns_name *name)
{
    ensure(name->size <= DNS_NAME_TEXT_MAX);
    ensure(name->text[name->size] == '\0');
    ensure(!name->is_plain || name->size == 0 || dns_name_is_plain(dns_name_span(name)));
}

void fuzz_one(struct span input)
{
    static struct dns_reply reply;
    static const enum dns_type TYPES[] = {DNS_A, DNS_AAAA, DNS_MX};
    struct cursor cursor = cursor_of(input);
    enum dns_type type = TYPES[fuzz_take(&cursor) % COUNT_OF(TYPES)];
    struct span rest = fuzz_rest(&cursor);
    char *exact = fuzz_copy(rest);
    struct span message = span_of(exact, rest.size);
    if (dns_reply_parse(message, type, SPAN("example.org"), 0, &reply) == 0) {
        ensure(reply.records_count <= DNS_RECORDS_MAX);
        ensure(reply.aliases_count <= DNS_ALIASES_MAX);
        check_name(&reply.name);
        for (uint16_t i = 0; i < reply.records_count; i++) {
            uint16_t preference;
            struct dns_name name;
            ensure(reply.records[i].at >= message.at);
            ensure(reply.records[i].at + reply.records[i].size <= message.at + message.size);
            if (type == DNS_MX && dns_mx_parse(message, reply.records[i], &preference, &name)) {
                check_name(&name);
            }
        }
    }
    free(exact);
}
