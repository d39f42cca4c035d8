/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mx_site: the identity of an MX set: domains whose mail goes to the same hosts in the same order
 * of preference are one site (DESIGN 3).
 *
 * The key is XXH3 over the names, sorted within each group of equal preference, the groups in their
 * order: so neither the order of the records nor the preference numbers as such matter, and a set
 * of one name is the same site whether it came from an MX record, from the address of the domain
 * itself (implicit MX) or from a route.
 *
 * The name is for people and metrics. The labels that all hosts end with are written once:
 * "(mx1|mx2).example.com"; "(alt1|alt2)?.gmail-smtp-in.l.google.com" when one host is the common
 * part itself; "(a.x.com|b.y.net)" when there is none. It is at most MX_SITE_NAME_MAX bytes; one
 * that would be longer is the first host, the number of the others and the key:
 * "mx1.example.com+31~00c0ffee00c0ffee". Two sites that differ in preferences only may have one
 * name; the key tells them apart.
 *
 * Pure functions, any actor.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"

enum { MX_SITE_NAME_MAX = 255, MX_SITE_HOSTS_MAX = 32 };

struct mx_site_host {
    struct span name; /* lower case */
    uint32_t group;   /* hosts of one preference share it; lower is preferred */
};

struct mx_site {
    uint64_t key; /* never 0 */
    uint16_t name_size;
    char name[MX_SITE_NAME_MAX];
};

/* 1..MX_SITE_HOSTS_MAX hosts with different names, in any order: they are sorted here. */
void mx_site_build(struct mx_site_host *hosts, size_t hosts_count, struct mx_site *ret_site);
