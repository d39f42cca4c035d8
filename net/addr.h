/* SPDX-License-Identifier: Apache-2.0 */
/*
 * addr: an IP address with a port. Plain values; the only header of net/ that dns/ may include.
 * Pure functions, any actor.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum net_family { NET_NONE, NET_IP4, NET_IP6 };

struct net_addr {
    uint8_t family; /* enum net_family; NET_NONE = "any", no address given */
    uint8_t pad;
    uint16_t port;     /* host order */
    uint8_t bytes[16]; /* network order; IPv4 in the first 4, the rest zero */
};

enum { NET_ADDR_TEXT_MAX = 64 };

/* "192.0.2.1", "2001:db8::1", "[2001:db8::1]:25", "192.0.2.1:25"; port 0 when none is given. Hosts
 * by name are not taken. */
bool net_addr_parse(struct span text, struct net_addr *ret_addr);
/* The address without its port / with it ("192.0.2.1:25", "[::1]:25"). */
void net_addr_put(struct writer *writer, const struct net_addr *addr);
void net_addr_put_port(struct writer *writer, const struct net_addr *addr);
bool net_addr_equal(const struct net_addr *a, const struct net_addr *b);
bool net_addr_is_loopback(const struct net_addr *addr);
/* What a public MX must not point to (conformance 3.10): loopback, private, link-local, multicast,
 * and whatever else the IANA special-purpose registries do not call globally reachable. Addresses
 * that carry an IPv4 address (mapped, 64:ff9b::/96, 2002::/16) are judged by that one. */
bool net_addr_is_special(const struct net_addr *addr);
