/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_priv.h"

/* Changes of names that nobody has synced: beyond so many the oldest is written back, as a file
 * system does in time. */
enum { CHANGES_MAX = 4096 };

bool sim_chance_of(struct sim_disk *world, uint32_t of_256)
{
    return of_256 >= 256 || (of_256 > 0 && random_below(&world->random, 256) < of_256);
}

struct sim_node *sim_node_create(struct sim_disk *world, enum disk_kind kind)
{
    ensure(world->nodes_count < SIM_DISK_NODES_MAX);
    struct sim_node *node = sim_world_alloc(sizeof(*node));
    world->nodes_count++;
    node->kind = kind;
    node->inode = ++world->inode_next;
    node->mtime_ns = clock_wall(world->clock).ns;
    list_init(&node->changes);
    list_init(&node->changes_in);
    return node;
}

void sim_node_hold(struct sim_node *node)
{
    node->holds++;
}

static void link_seen(struct sim_disk *world, struct sim_node *node)
{
    if (node->links_count++ == 0) {
        world->used += node->seen.size;
    }
}

static void unlink_seen(struct sim_disk *world, struct sim_node *node)
{
    if (--node->links_count == 0) {
        ensure(world->used >= node->seen.size);
        world->used -= node->seen.size;
    }
}

static void names_clear(struct sim_disk *world, struct sim_names *names)
{
    for (uint32_t i = 0; i < names->count; i++) {
        free(names->rows[i].text);
        sim_node_drop(world, names->rows[i].node);
    }
    free(names->rows);
    *names = (struct sim_names){.rows = NULL};
}

void sim_node_drop(struct sim_disk *world, struct sim_node *node)
{
    ensure(node->holds > 0);
    if (--node->holds > 0) {
        return;
    }
    for (uint32_t i = 0; i < node->names.count; i++) {
        unlink_seen(world, node->names.rows[i].node);
    }
    names_clear(world, &node->names);
    names_clear(world, &node->stable_names);
    sim_file_free(node);
    world->nodes_count--;
    free(node);
}

static uint32_t hash_of(const char *text)
{
    uint32_t hash = 2166136261u;
    for (; *text != '\0'; text++) {
        hash = (hash ^ (unsigned char)*text) * 16777619u;
    }
    return hash;
}

static struct sim_name *names_find(const struct sim_names *names, const char *text)
{
    uint32_t hash = hash_of(text);
    for (uint32_t i = 0; i < names->count; i++) {
        if (names->rows[i].hash == hash && strcmp(names->rows[i].text, text) == 0) {
            return &names->rows[i];
        }
    }
    return NULL;
}

/* In the order of their coming, as a directory's listing is. */
static void names_add(struct sim_names *names, const char *text, struct sim_node *node)
{
    if (names->count == names->room) {
        names->room = names->room == 0 ? 8 : names->room * 2;
        names->rows = sim_world_realloc(names->rows, names->room * sizeof(*names->rows));
    }
    char *copy = sim_world_strdup(text);
    names->rows[names->count++] =
        (struct sim_name){.hash = hash_of(text), .node = node, .text = copy};
    sim_node_hold(node);
}

static void names_remove(struct sim_disk *world, struct sim_names *names, struct sim_name *name)
{
    struct sim_node *node = name->node;
    free(name->text);
    size_t index = (size_t)(name - names->rows);
    memmove(name, name + 1, (names->count - index - 1) * sizeof(*name));
    names->count--;
    sim_node_drop(world, node);
}

/* What is seen, and what is stable, under one name. */
static void bind_seen(struct sim_disk *world, struct sim_node *dir, const char *text,
                      struct sim_node *node)
{
    struct sim_name *there = names_find(&dir->names, text);
    if (there != NULL) {
        unlink_seen(world, there->node);
        names_remove(world, &dir->names, there);
    }
    if (node != NULL) {
        link_seen(world, node);
        names_add(&dir->names, text, node);
    }
    dir->mtime_ns = clock_wall(world->clock).ns;
}

static void bind_stable(struct sim_disk *world, struct sim_node *dir, const char *text,
                        struct sim_node *node)
{
    struct sim_name *there = names_find(&dir->stable_names, text);
    if (there != NULL) {
        there->node->stable_links_count--;
        names_remove(world, &dir->stable_names, there);
    }
    if (node != NULL) {
        node->stable_links_count++;
        names_add(&dir->stable_names, text, node);
    }
}

static void change_free(struct sim_disk *world, struct sim_change *change)
{
    world->changes_count--;
    list_remove(&change->all);
    list_remove(&change->of_node);
    list_remove(&change->of_from.link);
    list_remove(&change->of_to.link);
    free(change->from_text);
    free(change->to_text);
    if (change->from != NULL) {
        sim_node_drop(world, change->from);
    }
    if (change->to != NULL) {
        sim_node_drop(world, change->to);
    }
    sim_node_drop(world, change->node);
    free(change);
}

static void change_apply(struct sim_disk *world, const struct sim_change *change)
{
    bool is_moved = change->from == NULL || change->node->stable_links_count == 0;
    if (change->from != NULL) {
        const struct sim_name *there = names_find(&change->from->stable_names, change->from_text);
        if (there != NULL && there->node == change->node) {
            bind_stable(world, change->from, change->from_text, NULL);
            is_moved = true;
        }
    }
    /* What never came to where it is moved from cannot be moved: an earlier move was lost. */
    if (change->to != NULL && is_moved) {
        bind_stable(world, change->to, change->to_text, change->node);
    }
}

/* The change becomes stable, after all earlier ones of its node. */
static void change_commit(struct sim_disk *world, struct sim_change *last)
{
    struct list *changes = &last->node->changes;
    bool is_last = false;
    while (!is_last) {
        struct sim_change *change = CONTAINER_OF(changes->next, struct sim_change, of_node);
        is_last = change == last;
        change_apply(world, change);
        change_free(world, change);
    }
}

void sim_tree_move(struct sim_disk *world, struct sim_node *node, struct sim_node *from,
                   const char *from_text, struct sim_node *to, const char *to_text)
{
    struct sim_change *change = sim_world_alloc(sizeof(*change));
    change->number = ++world->number;
    change->node = node;
    sim_node_hold(node);
    if (from != NULL) {
        change->from = from;
        change->from_text = sim_world_strdup(from_text);
        sim_node_hold(from);
        bind_seen(world, from, from_text, NULL);
    }
    if (to != NULL) {
        change->to = to;
        change->to_text = sim_world_strdup(to_text);
        sim_node_hold(to);
        bind_seen(world, to, to_text, node);
    }
    list_init(&change->all);
    list_init(&change->of_node);
    list_init(&change->of_from.link);
    list_init(&change->of_to.link);
    change->of_from.change = change->of_to.change = change;
    list_add_last(&world->changes, &change->all);
    world->changes_count++;
    list_add_last(&node->changes, &change->of_node);
    if (from != NULL) {
        list_add_last(&from->changes_in, &change->of_from.link);
    }
    if (to != NULL && to != from) {
        list_add_last(&to->changes_in, &change->of_to.link);
    }
    if (world->changes_count > CHANGES_MAX) {
        change_commit(world, CONTAINER_OF(world->changes.next, struct sim_change, all));
    }
}

void sim_tree_sync(struct sim_disk *world, struct sim_node *dir, uint64_t number)
{
    while (!list_is_empty(&dir->changes_in)) {
        const struct sim_change_link *first =
            CONTAINER_OF(dir->changes_in.next, struct sim_change_link, link);
        if (first->change->number > number) {
            return;
        }
        change_commit(world, first->change);
    }
}

/* What is stable below `dir` becomes what is seen. */
static void subtree_restore(struct sim_disk *world, struct sim_node *dir, uint32_t keep_of_256)
{
    for (uint32_t i = 0; i < dir->names.count; i++) {
        unlink_seen(world, dir->names.rows[i].node);
    }
    names_clear(world, &dir->names);
    for (uint32_t i = 0; i < dir->stable_names.count; i++) {
        const struct sim_name *name = &dir->stable_names.rows[i];
        names_add(&dir->names, name->text, name->node);
        link_seen(world, name->node);
        if (name->node->kind == DISK_KIND_DIRECTORY) {
            subtree_restore(world, name->node, keep_of_256);
        } else {
            sim_file_crash(world, name->node, keep_of_256);
        }
    }
}

void sim_tree_crash(struct sim_disk *world)
{
    static const uint32_t KEEPS[] = {0, 32, 128, 224, 256};
    uint32_t keep_names = KEEPS[random_below(&world->random, COUNT_OF(KEEPS))];
    uint32_t keep_bytes = KEEPS[random_below(&world->random, COUNT_OF(KEEPS))];
    bool is_in_order = random_below(&world->random, 2) == 0;
    bool is_lost = false;
    while (!list_is_empty(&world->changes)) {
        struct sim_change *change = CONTAINER_OF(world->changes.next, struct sim_change, all);
        bool is_kept = sim_chance_of(world, keep_names) && !(is_lost && is_in_order);
        is_lost |= !is_kept;
        if (is_kept) {
            change_apply(world, change);
        }
        change_free(world, change);
    }
    subtree_restore(world, world->root, keep_bytes);
}

void sim_tree_destroy(struct sim_disk *world)
{
    while (!list_is_empty(&world->changes)) {
        struct sim_change *change = CONTAINER_OF(world->changes.next, struct sim_change, all);
        change_free(world, change);
    }
    sim_node_drop(world, world->root);
    ensure(world->nodes_count == 0);
}

enum { DEPTH_MAX = 32 };

/* One part of a path below `dirs[*depth]`; `..` goes up as far as the walk has come down. */
static int walk_part(struct sim_node **dirs, unsigned *depth, const char *part, bool is_last,
                     bool is_from_root, struct sim_place *place)
{
    if (strcmp(part, ".") == 0) {
        place->node = dirs[*depth];
        place->text[0] = '\0';
        return 0;
    }
    if (strcmp(part, "..") == 0) {
        if (*depth == 0 && !is_from_root) {
            return -EXDEV;
        }
        *depth -= *depth > 0 ? 1 : 0;
        place->node = dirs[*depth];
        place->text[0] = '\0';
        return 0;
    }
    place->dir = dirs[*depth];
    const struct sim_name *name = names_find(&place->dir->names, part);
    place->node = name == NULL ? NULL : name->node;
    memcpy(place->text, part, strlen(part) + 1);
    if (is_last) {
        return 0;
    }
    if (place->node == NULL) {
        return -ENOENT;
    }
    if (place->node->kind == DISK_KIND_LINK) {
        return -ELOOP;
    }
    if (place->node->kind != DISK_KIND_DIRECTORY) {
        return -ENOTDIR;
    }
    ensure(*depth + 1 < DEPTH_MAX);
    dirs[++*depth] = place->node;
    return 0;
}

int sim_place_find(struct sim_disk *world, struct sim_node *start, const char *path,
                   struct sim_place *ret_place)
{
    struct sim_node *dirs[DEPTH_MAX] = {start != NULL ? start : world->root};
    struct sim_place place = {.node = dirs[0]};
    unsigned depth = 0;
    if (dirs[0]->kind != DISK_KIND_DIRECTORY) {
        return -ENOTDIR;
    }
    if (path[0] == '\0') {
        return -ENOENT;
    }
    if (path[0] == '/' && start != NULL) {
        return -EXDEV;
    }
    for (path += strspn(path, "/"); *path != '\0';) {
        char part[SIM_NAME_MAX + 1];
        size_t size = strcspn(path, "/");
        if (size > SIM_NAME_MAX) {
            return -ENAMETOOLONG;
        }
        memcpy(part, path, size);
        part[size] = '\0';
        path += size;
        path += strspn(path, "/");
        int result = walk_part(dirs, &depth, part, *path == '\0', start == NULL, &place);
        if (result != 0) {
            return result;
        }
    }
    *ret_place = place;
    return 0;
}
