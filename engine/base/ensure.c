/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/base/ensure.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * A row is taken by the exchange of its name and never given back. Two actors may count the same
 * new name at once: the loser of the exchange looks at the winner's name again, so no name has two
 * rows.
 */
static struct odd_entry {
    _Atomic(const char *) name;
    _Atomic uint64_t count;
} odd_table[ODD_NAMES_MAX];

/* One write, without stdio's buffers and locks: the process may be in any state. */
void ensure_fail(const char *expression, const char *file, int line, const char *function)
{
    char text[512];
    int size = snprintf(text, sizeof(text), "%s:%d: %s: ensure(%s) failed\n", file, line, function,
                        expression);
    if (size > 0) {
        size_t shown = (size_t)size < sizeof(text) ? (size_t)size : sizeof(text) - 1;
        ssize_t ignored = write(STDERR_FILENO, text, shown);
        (void)ignored;
    }
    abort();
}

static bool entry_is_for(struct odd_entry *entry, const char *name)
{
    const char *taken = atomic_load_explicit(&entry->name, memory_order_relaxed);
    if (taken == NULL && atomic_compare_exchange_strong(&entry->name, &taken, name)) {
        return true;
    }
    return taken == name || strcmp(taken, name) == 0;
}

void odd_count_xcore(const char *name)
{
    ensure(name != NULL);
    size_t index = 0;
    while (index < ODD_NAMES_MAX - 1 && !entry_is_for(&odd_table[index], name)) {
        index++;
    }
    if (index == ODD_NAMES_MAX - 1) {
        atomic_store_explicit(&odd_table[index].name, "other", memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&odd_table[index].count, 1, memory_order_relaxed);
}

bool odd_row(size_t index, const char **ret_name, uint64_t *ret_count)
{
    if (index >= ODD_NAMES_MAX) {
        return false;
    }
    const char *name = atomic_load_explicit(&odd_table[index].name, memory_order_relaxed);
    if (name == NULL) {
        return false;
    }
    *ret_name = name;
    *ret_count = atomic_load_explicit(&odd_table[index].count, memory_order_relaxed);
    return true;
}
