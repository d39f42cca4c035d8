/* SPDX-License-Identifier: Apache-2.0 */
/*
 * list: a circular doubly linked list with an embedded node, for objects that leave from the
 * middle. One owner, no allocation; the bound is that of the slab the objects come from. An
 * unlinked node points to itself, so list_is_linked can tell and list_remove is idempotent.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "engine/base/ensure.h"

struct list {
    struct list *next;
    struct list *prev;
};

#define CONTAINER_OF(pointer, type, member)                                                        \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

static inline void list_init(struct list *list)
{
    list->next = list;
    list->prev = list;
}

static inline bool list_is_empty(const struct list *list)
{
    return list->next == list;
}

static inline bool list_is_linked(const struct list *node)
{
    return node->next != node;
}

static inline void list_add_last(struct list *list, struct list *node)
{
    ensure(list->prev->next == list);
    node->prev = list->prev;
    node->next = list;
    list->prev->next = node;
    list->prev = node;
}

static inline void list_add_first(struct list *list, struct list *node)
{
    ensure(list->next->prev == list);
    node->next = list->next;
    node->prev = list;
    list->next->prev = node;
    list->next = node;
}

static inline void list_remove(struct list *node)
{
    ensure(node->prev->next == node);
    ensure(node->next->prev == node);
    node->prev->next = node->next;
    node->next->prev = node->prev;
    list_init(node);
}

/* The first node, unlinked; NULL when the list is empty. */
static inline struct list *list_take_first(struct list *list)
{
    struct list *node = list->next;
    if (node == list) {
        return NULL;
    }
    list_remove(node);
    return node;
}
