/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_disk_priv: what the files of the simulated disk share. sim_disk.c: the world, its views, the
 * ops. sim_disk_tree.c: names and paths. sim_disk_file.c: bytes.
 *
 * What programs see is changed at once. What is stable follows by logs of what was done since: one
 * of writes a file, one of changes of names for the whole world, each in order and numbered. A sync
 * applies to the stable side what its file or directory had in the log when it was submitted; a
 * crash applies what chance lets survive, and makes the stable side what is seen.
 *
 * A node lives while a name, a log, a descriptor or a watch speaks of it (`holds`).
 */
#pragma once

#include "engine/base/list.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_memory.h"

enum { SIM_SECTOR_SIZE = 512, SIM_WATCHES_MAX = 8, SIM_NAME_MAX = 255 };

struct sim_node;

struct sim_name {
    uint32_t hash;
    struct sim_node *node;
    char *text;
};

struct sim_names {
    struct sim_name *rows;
    uint32_t count;
    uint32_t room;
};

struct sim_bytes {
    char *at;
    size_t size;
    size_t room;
};

/* A write, or (with `is_size`) a change of the size to `offset`. */
struct sim_write {
    struct sim_write *next;
    uint64_t number;
    uint64_t offset;
    size_t size;
    bool is_size;
    char bytes[];
};

struct sim_node {
    enum disk_kind kind;
    uint32_t holds;
    uint32_t links_count; /* names that are seen */
    uint32_t stable_links_count;
    uint64_t inode;
    int64_t mtime_ns;
    struct list changes;    /* of where it is */
    struct list changes_in; /* of a directory: what comes and goes; struct sim_change_link */
    struct sim_bytes seen;
    struct sim_bytes stable;
    struct sim_write *log_first;
    struct sim_write *log_last;
    struct sim_names names;
    struct sim_names stable_names;
    const void *locked_by; /* a descriptor */
};

/* A change of names: `node` leaves (from, from_text) and comes to (to, to_text); either may be
 * missing (NULL). It is in four lists: all, those of its node, those of each directory. */
struct sim_change;
struct sim_change_link {
    struct list link;
    struct sim_change *change;
};
struct sim_change {
    struct list all;
    struct list of_node;
    struct sim_change_link of_from;
    struct sim_change_link of_to; /* unlinked when both directories are one */
    uint64_t number;
    struct sim_node *node;
    struct sim_node *from;
    struct sim_node *to;
    char *from_text;
    char *to_text;
};

struct sim_fd {
    struct sim_node *node; /* NULL: free */
    unsigned flags;
};

struct sim_flight {
    struct disk_op *op;
    int64_t due_ns;
    uint64_t number; /* of the log when it was submitted */
};

struct sim_view {
    struct disk disk; /* first: a pointer to this is a pointer to the whole */
    struct list link; /* in world->views */
    struct sim_disk *world;
    struct waker *waker;
    bool is_dead;
    bool has_fired;
    struct sim_fd *fds;
    int fds_room;
    struct sim_node *watches[SIM_WATCHES_MAX];
    uint32_t watches_count;
    struct sim_flight flights[DISK_OPS_MAX];
    uint32_t flights_count;
};

struct sim_disk {
    const struct clock *clock;
    struct random random;
    int64_t delay_max_ns;
    struct list views;
    struct sim_node *root;
    uint64_t inode_next;
    uint32_t nodes_count;
    uint64_t used; /* bytes of all files that are seen */
    uint64_t used_max;
    uint64_t number; /* of the last entry of any log */
    struct list changes;
    uint32_t changes_count;
    uint64_t ops_count;
    uint64_t failures_count;
    uint64_t fail_left; /* ops until one fails; 0: none */
    int fail_error;
    bool is_fail_sticky;
    uint64_t stop_left; /* ops until it stops; 0: it does not */
    bool is_stopped;
};

/* Where a path leads: the directory and the last name in it, and what stands there (NULL:
 * nothing). `text` is empty when the path names the directory `node` itself. */
struct sim_place {
    struct sim_node *dir;
    struct sim_node *node;
    char text[SIM_NAME_MAX + 1];
};

/* sim_disk_tree.c */
struct sim_node *sim_node_create(struct sim_disk *world, enum disk_kind kind);
void sim_node_hold(struct sim_node *node);
void sim_node_drop(struct sim_disk *world, struct sim_node *node);
/* 0 or -errno: what stands on the way there is wrong. `start` NULL: from the root, and `..` may go
 * up. */
int sim_place_find(struct sim_disk *world, struct sim_node *start, const char *path,
                   struct sim_place *ret_place);
/* Changes what is seen, and logs it. Either side may be missing. */
void sim_tree_move(struct sim_disk *world, struct sim_node *node, struct sim_node *from,
                   const char *from_text, struct sim_node *to, const char *to_text);
void sim_tree_sync(struct sim_disk *world, struct sim_node *dir, uint64_t number);
void sim_tree_crash(struct sim_disk *world);
void sim_tree_destroy(struct sim_disk *world);
bool sim_chance_of(struct sim_disk *world, uint32_t of_256);

/* sim_disk_file.c */
int64_t sim_file_read(const struct sim_node *node, void *at, size_t size, uint64_t offset);
int64_t sim_file_write(struct sim_disk *world, struct sim_node *node, const void *at, size_t size,
                       uint64_t offset);
int64_t sim_file_resize(struct sim_disk *world, struct sim_node *node, uint64_t size);
void sim_file_sync(struct sim_disk *world, struct sim_node *node, uint64_t number, bool has_failed);
/* What is stable, and what chance lets survive, becomes what is seen. */
void sim_file_crash(struct sim_disk *world, struct sim_node *node, uint32_t keep_of_256);
void sim_file_free(struct sim_node *node);
