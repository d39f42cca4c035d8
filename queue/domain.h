/* SPDX-License-Identifier: Apache-2.0 */
/*
 * domain: the table of recipient domains: a name once, a number everywhere else.
 *
 * Owner: intake, which alone adds, counts and removes. Workers and the journal read the name of a
 * number that they hold through a recipient (published to them by the inbox push, and kept alive by
 * that recipient). Names are lower-case ASCII (A-labels), without a trailing dot, or an address
 * literal as written; 1..DOMAIN_NAME_MAX bytes, anything else is a bug of the caller.
 *
 * A domain lives while recipients of it live (domain_hold / domain_drop, by intake); then its slot
 * may be used again, with a new generation: per-worker state kept under the number is valid only
 * for the generation it was made for. Generations are never 0.
 *
 * Bound: domains_max; domain_intern returns DOMAIN_NONE: intake stops scanning until recipients
 * end. Address space for all is reserved at the start, memory is touched as names come: 84 bytes a
 * short name, 256 more for one of more than 52 bytes.
 * Keyed with XXH3 and a per-start secret: the names are chosen by strangers.
 */
#pragma once

#include <stdint.h>

#include "engine/base/bytes.h"

enum { DOMAIN_NONE = 0xffffffffu, DOMAIN_NAME_MAX = 255 };

struct domain_table;

/* 1 <= domains_max <= 2^28. NULL + *ret_error (-ENOMEM) on failure. */
struct domain_table *domain_table_create(uint32_t domains_max, uint64_t secret, int *ret_error);
/* Holds that are still out are forgotten. */
void domain_table_destroy(struct domain_table *table); /* NULL-safe */
/* The number of the name (any case is folded), with one hold taken for the caller's recipient. */
uint32_t domain_intern(struct domain_table *table, struct span name);
/* One more hold on a number that the caller holds already. */
void domain_hold(struct domain_table *table, uint32_t domain);
void domain_drop(struct domain_table *table, uint32_t domain);
/* Any actor that holds a recipient of the domain. */
struct span domain_name_xcore(const struct domain_table *table, uint32_t domain);
uint32_t domain_generation_xcore(const struct domain_table *table, uint32_t domain);
/* Names in the table. */
uint32_t domain_table_count(const struct domain_table *table);
/* Verifies that every name is found under its number and nothing else is there. */
void domain_table_check(const struct domain_table *table);
