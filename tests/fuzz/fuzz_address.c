/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, IP addresses, lists of addresses: what leaves is safe to be written into a command. */
#include "engine/record_check.h"
#include "engine/smtp/smtp_address.h"
#include "net/addr.h"
#include "queue/mailbox_list.h"
#include "tests/fuzz/fuzz.h"

static void check_address(struct span text)
{
    struct smtp_address address;
    if (smtp_address_parse(text, &address) == SMTP_ADDRESS_OK) {
        ensure(address.local.size > 0 && address.domain.size > 0);
        ensure(address.local.size + 1 + address.domain.size == text.size);
        for (size_t i = 0; i < text.size; i++) {
            ensure(text.at[i] >= ' ' && text.at[i] <= '~');
        }
    }
    struct record_domain domain;
    struct record_reject refused;
    if (record_check_address(text, &domain, &refused) == 0) {
        ensure(domain.name.size > 0 && domain.name.size <= DOMAIN_NAME_MAX);
    }
}

static void check_list(struct span text)
{
    struct cursor cursor = cursor_of(text);
    char room[512];
    size_t before = cursor_left(&cursor);
    for (;;) {
        struct writer writer = writer_of(room, sizeof(room));
        if (mailbox_list_take(&cursor, &writer) != MAILBOX_TAKEN) {
            return;
        }
        ensure(cursor_left(&cursor) < before);
        before = cursor_left(&cursor);
        check_address(writer_span(&writer));
    }
}

static void check_ip(struct span text)
{
    struct net_addr addr;
    struct net_addr again;
    char room[NET_ADDR_TEXT_MAX];
    if (net_addr_parse(text, &addr)) {
        struct writer writer = writer_of(room, sizeof(room));
        net_addr_put_port(&writer, &addr);
        ensure(!writer.is_full);
        ensure(net_addr_parse(writer_span(&writer), &again));
        ensure(net_addr_equal(&addr, &again));
    }
}

void fuzz_one(struct span input)
{
    check_address(input);
    check_list(input);
    check_ip(input);
}
