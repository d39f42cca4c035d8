/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/domain.h"

#include <errno.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "engine/base/slab.h"

/*
 * A name is a slot of one cache line; its number is the slot's index, its generation the slot's.
 * Longer names lie in a slot of a second slab, as many as there are names: address space is cheap,
 * and so there is no second bound that strangers could fill.
 *
 * The index is open addressing with linear probing over (hash, number) pairs, at most half full, so
 * a name that is there costs one line of the index and one of the slot. Removal shifts the
 * followers back instead of leaving tombstones: a table that lives for months stays as fast as on
 * its first day.
 */
enum { DOMAIN_TEXT_INLINE = 52, DOMAIN_TABLE_MAX = 1 << 28 };

struct domain_slot {
    uint32_t holds;
    uint32_t hash;
    union {
        char text[DOMAIN_TEXT_INLINE];
        uint32_t long_index;
    } name;
    uint8_t size;
};

_Static_assert(sizeof(struct domain_slot) == 64, "a name is one cache line");
_Static_assert(DOMAIN_NAME_MAX <= UINT8_MAX, "size is one byte");

struct domain_entry {
    uint32_t hash;
    uint32_t place; /* number + 1, 0 = empty */
};

struct domain_table {
    /* What other actors read stands apart from what intake writes. */
    const char *slots;
    const char *long_names;
    const uint32_t *generations;
    char pad[40];
    struct domain_entry *entries;
    uint32_t entries_mask;
    uint64_t secret;
    struct slab names;
    struct slab longs;
};

struct domain_table *domain_table_create(uint32_t domains_max, uint64_t secret, int *ret_error)
{
    ensure(domains_max >= 1);
    ensure(domains_max <= DOMAIN_TABLE_MAX);

    uint32_t entries_count = 2;
    while (entries_count < 2 * domains_max) {
        entries_count *= 2;
    }
    struct domain_table *table = aligned_alloc(64, (sizeof(*table) + 63) & ~(size_t)63);
    if (table == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    *table = (struct domain_table){.secret = secret, .entries_mask = entries_count - 1};
    table->entries = calloc(entries_count, sizeof(struct domain_entry));
    if (table->entries == NULL ||
        slab_init(&table->names, "domains", sizeof(struct domain_slot), domains_max) != 0 ||
        slab_init(&table->longs, "domain_names", DOMAIN_NAME_MAX + 1, domains_max) != 0) {
        domain_table_destroy(table);
        *ret_error = -ENOMEM;
        return NULL;
    }
    table->slots = table->names.slots;
    table->long_names = table->longs.slots;
    table->generations = table->names.generations;
    return table;
}

static const struct domain_slot *slot_at(const struct domain_table *table, uint32_t domain)
{
    return (const struct domain_slot *)(const void *)table->slots + domain;
}

static struct span slot_name(const struct domain_table *table, const struct domain_slot *slot)
{
    if (slot->size <= DOMAIN_TEXT_INLINE) {
        return span_of(slot->name.text, slot->size);
    }
    return span_of(table->long_names + (size_t)slot->name.long_index * (DOMAIN_NAME_MAX + 1),
                   slot->size);
}

static void slot_give(struct domain_table *table, struct domain_slot *slot)
{
    if (slot->size > DOMAIN_TEXT_INLINE) {
        slab_give(&table->longs, slab_at(&table->longs, slot->name.long_index));
    }
    slab_give(&table->names, slot);
}

void domain_table_destroy(struct domain_table *table)
{
    if (table == NULL) {
        return;
    }
    if (table->slots != NULL) {
        for (uint32_t i = 0; i <= table->entries_mask; i++) {
            if (table->entries[i].place != 0) {
                slot_give(table, slab_at(&table->names, table->entries[i].place - 1));
            }
        }
    }
    slab_deinit(&table->longs);
    slab_deinit(&table->names);
    free(table->entries);
    free(table);
}

/* ASCII only: what is not ASCII is no letter (RFC 4343 3.1). */
static void name_fold(char *folded, struct span name)
{
    for (size_t i = 0; i < name.size; i++) {
        unsigned char byte = (unsigned char)name.at[i];
        bool is_upper = (unsigned char)(byte - 'A') < 26;
        folded[i] = (char)(byte | (unsigned char)(is_upper << 5));
    }
}

static uint32_t slot_fill(struct domain_table *table, struct span name, uint32_t hash)
{
    struct domain_slot *slot = slab_take(&table->names);
    if (slot == NULL) {
        return DOMAIN_NONE;
    }
    *slot = (struct domain_slot){.holds = 1, .hash = hash, .size = (uint8_t)name.size};
    char *text = slot->name.text;
    if (name.size > DOMAIN_TEXT_INLINE) {
        /* There are as many long names as names: this cannot fail. */
        text = slab_take(&table->longs);
        ensure(text != NULL);
        slot->name.long_index = slab_index(&table->longs, text);
    }
    memcpy(text, name.at, name.size);
    return slab_index(&table->names, slot);
}

uint32_t domain_intern(struct domain_table *table, struct span name)
{
    ensure(name.size > 0);
    ensure(name.size <= DOMAIN_NAME_MAX);

    char folded[DOMAIN_NAME_MAX];
    name_fold(folded, name);
    name.at = folded;
    uint32_t hash = (uint32_t)XXH3_64bits_withSeed(folded, name.size, table->secret);

    /* Half of the entries are empty: the probe ends. */
    uint32_t at = hash & table->entries_mask;
    for (; table->entries[at].place != 0; at = (at + 1) & table->entries_mask) {
        if (table->entries[at].hash != hash) {
            continue;
        }
        uint32_t domain = table->entries[at].place - 1;
        struct domain_slot *slot = slab_at(&table->names, domain);
        if (span_equal(slot_name(table, slot), name)) {
            slot->holds++;
            ensure(slot->holds > 1);
            return domain;
        }
    }
    uint32_t domain = slot_fill(table, name, hash);
    if (domain != DOMAIN_NONE) {
        table->entries[at] = (struct domain_entry){.hash = hash, .place = domain + 1};
    }
    return domain;
}

static struct domain_slot *held_slot(struct domain_table *table, uint32_t domain)
{
    ensure(domain < table->names.fresh);
    ensure((table->generations[domain] & 1) != 0);
    struct domain_slot *slot = slab_at(&table->names, domain);
    ensure(slot->holds > 0);
    return slot;
}

void domain_hold(struct domain_table *table, uint32_t domain)
{
    struct domain_slot *slot = held_slot(table, domain);
    slot->holds++;
    ensure(slot->holds > 1);
}

/* Moves back each follower of the hole that may stand there: one whose home is not behind the hole.
 */
static void entry_remove(struct domain_table *table, uint32_t hole)
{
    uint32_t mask = table->entries_mask;
    for (uint32_t at = (hole + 1) & mask; table->entries[at].place != 0; at = (at + 1) & mask) {
        uint32_t home = table->entries[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            table->entries[hole] = table->entries[at];
            hole = at;
        }
    }
    table->entries[hole] = (struct domain_entry){0};
}

void domain_drop(struct domain_table *table, uint32_t domain)
{
    struct domain_slot *slot = held_slot(table, domain);
    slot->holds--;
    if (slot->holds > 0) {
        return;
    }
    uint32_t at = slot->hash & table->entries_mask;
    while (table->entries[at].place != domain + 1) {
        ensure(table->entries[at].place != 0);
        at = (at + 1) & table->entries_mask;
    }
    entry_remove(table, at);
    slot_give(table, slot);
}

struct span domain_name_xcore(const struct domain_table *table, uint32_t domain)
{
    return slot_name(table, slot_at(table, domain));
}

uint32_t domain_generation_xcore(const struct domain_table *table, uint32_t domain)
{
    return table->generations[domain];
}

uint32_t domain_table_count(const struct domain_table *table)
{
    return table->names.count_out;
}

void domain_table_check(const struct domain_table *table)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i <= table->entries_mask; i++) {
        struct domain_entry entry = table->entries[i];
        if (entry.place == 0) {
            continue;
        }
        count++;
        ensure((table->generations[entry.place - 1] & 1) != 0);
        const struct domain_slot *slot = slot_at(table, entry.place - 1);
        struct span name = slot_name(table, slot);
        ensure(slot->holds > 0);
        ensure(slot->hash == entry.hash);
        ensure(entry.hash == (uint32_t)XXH3_64bits_withSeed(name.at, name.size, table->secret));
        for (uint32_t at = entry.hash & table->entries_mask; at != i;
             at = (at + 1) & table->entries_mask) {
            ensure(table->entries[at].place != 0);
        }
    }
    ensure(count == table->names.count_out);
}
