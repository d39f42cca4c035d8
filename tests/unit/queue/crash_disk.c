/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/queue/crash_disk.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/base/ensure.h"

enum { SECTOR = 512 };

/* What a sync in flight will make stable: a copy, taken when it was submitted. */
struct flight {
    struct list link;
    struct disk_op *op;
    struct crash_bytes snapshot;
    struct crash_names *names;
    uint64_t submitted_at;
};

static struct crash_disk *crash_of(struct disk *disk)
{
    return CONTAINER_OF(disk, struct crash_disk, disk);
}

static void bytes_resize(struct crash_bytes *bytes, size_t size)
{
    if (size > bytes->room) {
        bytes->room = size * 2;
        bytes->at = realloc(bytes->at, bytes->room);
        ensure(bytes->at != NULL);
    }
    if (size > bytes->size) {
        memset(bytes->at + bytes->size, 0, size - bytes->size);
    }
    bytes->size = size;
}

static void bytes_set(struct crash_bytes *to, const struct crash_bytes *from)
{
    bytes_resize(to, from->size);
    if (from->size > 0) {
        memcpy(to->at, from->at, from->size);
    }
}

static void bytes_free(struct crash_bytes *bytes)
{
    free(bytes->at);
    *bytes = (struct crash_bytes){0};
}

static int node_take(struct crash_disk *disk, bool is_directory)
{
    for (int i = 0; i < CRASH_NODES_MAX; i++) {
        if (!disk->nodes[i].is_used) {
            disk->nodes[i] = (struct crash_node){.is_used = true, .is_directory = is_directory};
            return i;
        }
    }
    ensure(false);
    return -1;
}

static struct crash_name *name_find(struct crash_names *names, int directory, struct span text)
{
    for (size_t i = 0; i < names->count; i++) {
        struct crash_name *name = &names->rows[i];
        if (name->directory == directory && span_equal(span_of_text(name->text), text)) {
            return name;
        }
    }
    return NULL;
}

static void name_remove(struct crash_names *names, struct crash_name *name)
{
    names->count--;
    *name = names->rows[names->count];
}

static void name_set(struct crash_names *names, int directory, struct span text, int node)
{
    struct crash_name *name = name_find(names, directory, text);
    if (name == NULL) {
        ensure(names->count < CRASH_NAMES_MAX);
        ensure(text.size < CRASH_TEXT_SIZE);
        name = &names->rows[names->count++];
        *name = (struct crash_name){.directory = directory};
        memcpy(name->text, text.at, text.size);
    }
    name->node = node;
}

/* Nodes without a name and without a descriptor are gone. */
static void nodes_sweep(struct crash_disk *disk)
{
    for (int i = 1; i < CRASH_NODES_MAX; i++) {
        bool is_wanted = !disk->nodes[i].is_used;
        for (size_t at = 0; at < disk->seen.count && !is_wanted; at++) {
            is_wanted = disk->seen.rows[at].node == i;
        }
        for (size_t at = 0; at < disk->stable.count && !is_wanted; at++) {
            is_wanted = disk->stable.rows[at].node == i;
        }
        for (int at = 0; at < CRASH_FDS_MAX && !is_wanted; at++) {
            is_wanted = disk->fds[at] == i + 1;
        }
        if (!is_wanted) {
            bytes_free(&disk->nodes[i].seen);
            bytes_free(&disk->nodes[i].stable);
            disk->nodes[i].is_used = false;
        }
    }
}

static int fd_node(const struct crash_disk *disk, int fd)
{
    ensure(fd >= 0 && fd < CRASH_FDS_MAX && disk->fds[fd] != 0);
    return disk->fds[fd] - 1;
}

/* The directory of the path's last part, and that part. -1: a directory on the way is missing. */
static int path_parent(struct crash_disk *disk, int dir, const char *path, struct span *ret_last)
{
    int node = dir == DISK_ROOT ? CRASH_ROOT : fd_node(disk, dir);
    struct span rest = span_of_text(path);
    for (;;) {
        size_t slash = span_find(rest, '/');
        if (slash == rest.size) {
            *ret_last = rest;
            return node;
        }
        struct crash_name *name = name_find(&disk->seen, node, span_of(rest.at, slash));
        if (name == NULL || !disk->nodes[name->node].is_directory) {
            return -1;
        }
        node = name->node;
        rest = span_of(rest.at + slash + 1, rest.size - slash - 1);
    }
}

static int64_t run_open(struct crash_disk *disk, const struct disk_op *op)
{
    struct span last;
    int directory = path_parent(disk, op->dir, op->path, &last);
    if (directory < 0) {
        return -ENOENT;
    }
    struct crash_name *name = name_find(&disk->seen, directory, last);
    if (name == NULL && (op->flags & DISK_CREATE) == 0) {
        return -ENOENT;
    }
    if (name != NULL && (op->flags & DISK_EXCLUSIVE) != 0) {
        return -EEXIST;
    }
    int node;
    if (name == NULL) {
        nodes_sweep(disk);
        node = node_take(disk, false);
        name_set(&disk->seen, directory, last, node);
    } else {
        node = name->node;
    }
    if (((op->flags & DISK_DIRECTORY) != 0) != disk->nodes[node].is_directory) {
        return -ENOTDIR;
    }
    if ((op->flags & DISK_EMPTY) != 0) {
        disk->nodes[node].seen.size = 0;
    }
    for (int fd = 3; fd < CRASH_FDS_MAX; fd++) {
        if (disk->fds[fd] == 0) {
            disk->fds[fd] = node + 1;
            return fd;
        }
    }
    return -EMFILE;
}

static int64_t run_stat(struct crash_disk *disk, struct disk_op *op)
{
    int node;
    if (op->path == NULL || op->path[0] == '\0') {
        node = fd_node(disk, op->fd);
    } else {
        struct span last;
        int directory = path_parent(disk, op->dir, op->path, &last);
        struct crash_name *name = directory < 0 ? NULL : name_find(&disk->seen, directory, last);
        if (name == NULL) {
            return -ENOENT;
        }
        node = name->node;
    }
    op->stat = (struct disk_stat){.kind = disk->nodes[node].is_directory ? DISK_KIND_DIRECTORY
                                                                         : DISK_KIND_FILE,
                                  .size = disk->nodes[node].seen.size,
                                  .inode = (uint64_t)node,
                                  .links_count = 1};
    return 0;
}

static int64_t run_list(struct crash_disk *disk, const struct disk_op *op)
{
    int node = fd_node(disk, op->fd);
    for (size_t i = 0; i < disk->seen.count; i++) {
        const struct crash_name *name = &disk->seen.rows[i];
        if (name->directory == node) {
            op->on_name(op->context, name->text,
                        disk->nodes[name->node].is_directory ? DISK_KIND_DIRECTORY
                                                             : DISK_KIND_FILE);
        }
    }
    return 0;
}

static int64_t run_rename(struct crash_disk *disk, const struct disk_op *op)
{
    struct span last, last_to;
    int directory = path_parent(disk, op->dir, op->path, &last);
    int directory_to = path_parent(disk, op->dir_to, op->path_to, &last_to);
    struct crash_name *name = directory < 0 ? NULL : name_find(&disk->seen, directory, last);
    if (name == NULL || directory_to < 0) {
        return -ENOENT;
    }
    int node = name->node;
    name_remove(&disk->seen, name);
    name_set(&disk->seen, directory_to, last_to, node);
    return 0;
}

static int64_t run_unlink(struct crash_disk *disk, const struct disk_op *op)
{
    struct span last;
    int directory = path_parent(disk, op->dir, op->path, &last);
    struct crash_name *name = directory < 0 ? NULL : name_find(&disk->seen, directory, last);
    if (name == NULL) {
        return -ENOENT;
    }
    name_remove(&disk->seen, name);
    return 0;
}

static int64_t run_mkdir(struct crash_disk *disk, const struct disk_op *op)
{
    struct span last;
    int directory = path_parent(disk, op->dir, op->path, &last);
    if (directory < 0) {
        return -ENOENT;
    }
    if (name_find(&disk->seen, directory, last) != NULL) {
        return -EEXIST;
    }
    name_set(&disk->seen, directory, last, node_take(disk, true));
    return 0;
}

static int64_t run_read(struct crash_disk *disk, const struct disk_op *op)
{
    const struct crash_bytes *seen = &disk->nodes[fd_node(disk, op->fd)].seen;
    if (op->offset >= seen->size) {
        return 0;
    }
    size_t left = seen->size - (size_t)op->offset;
    size_t size = op->size < left ? op->size : left;
    memcpy(op->at, seen->at + op->offset, size);
    return (int64_t)size;
}

static int64_t run_write(struct crash_disk *disk, const struct disk_op *op)
{
    struct crash_bytes *seen = &disk->nodes[fd_node(disk, op->fd)].seen;
    if (op->offset + op->size > seen->size) {
        bytes_resize(seen, (size_t)op->offset + op->size);
    }
    memcpy(seen->at + op->offset, op->at, op->size);
    return (int64_t)op->size;
}

/* Of a directory: its names become stable; those that moved to or from another one too. */
static void names_sync(struct crash_disk *disk, const struct crash_names *seen, int directory)
{
    for (size_t i = disk->stable.count; i-- > 0;) {
        if (disk->stable.rows[i].directory == directory) {
            name_remove(&disk->stable, &disk->stable.rows[i]);
        }
    }
    for (size_t i = 0; i < seen->count; i++) {
        if (seen->rows[i].directory == directory) {
            name_set(&disk->stable, directory, span_of_text(seen->rows[i].text),
                     seen->rows[i].node);
        }
    }
}

/* An older sync that is late takes nothing back. */
static int64_t run_sync(struct crash_disk *disk, const struct disk_op *op, struct flight *flight)
{
    int index = fd_node(disk, op->fd);
    struct crash_node *node = &disk->nodes[index];
    uint64_t submitted_at = flight != NULL ? flight->submitted_at : ++disk->submits_count;
    if (submitted_at < node->stable_at) {
        return 0;
    }
    node->stable_at = submitted_at;
    if (node->is_directory) {
        names_sync(disk, flight != NULL ? flight->names : &disk->seen, index);
    } else {
        bytes_set(&node->stable, flight != NULL ? &flight->snapshot : &node->seen);
    }
    return 0;
}

static bool verb_changes(const struct disk_op *op)
{
    switch (op->verb) {
    case DISK_OPEN:
        return (op->flags & (DISK_CREATE | DISK_EMPTY)) != 0;
    case DISK_MKDIR:
    case DISK_RENAME:
    case DISK_UNLINK:
    case DISK_RMDIR:
    case DISK_WRITE:
    case DISK_DATASYNC:
    case DISK_SYNC:
    case DISK_TRUNCATE:
    case DISK_ALLOCATE:
        return true;
    case DISK_CLOSE:
    case DISK_STAT:
    case DISK_LIST:
    case DISK_READ:
    case DISK_LOCK:
    case DISK_FREE_SPACE:
        return false;
    }
    ensure(false);
    return false;
}

static int64_t run_verb(struct crash_disk *disk, struct disk_op *op, struct flight *flight)
{
    switch (op->verb) {
    case DISK_OPEN:
        return run_open(disk, op);
    case DISK_CLOSE:
        (void)fd_node(disk, op->fd);
        disk->fds[op->fd] = 0;
        return 0;
    case DISK_STAT:
        return run_stat(disk, op);
    case DISK_LIST:
        return run_list(disk, op);
    case DISK_MKDIR:
        return run_mkdir(disk, op);
    case DISK_RENAME:
        return run_rename(disk, op);
    case DISK_UNLINK:
        return run_unlink(disk, op);
    case DISK_READ:
        return run_read(disk, op);
    case DISK_WRITE:
        return run_write(disk, op);
    case DISK_DATASYNC:
    case DISK_SYNC:
        return run_sync(disk, op, flight);
    case DISK_TRUNCATE:
        bytes_resize(&disk->nodes[fd_node(disk, op->fd)].seen, op->size);
        return 0;
    case DISK_ALLOCATE:
        if (disk->nodes[fd_node(disk, op->fd)].seen.size < op->size) {
            bytes_resize(&disk->nodes[fd_node(disk, op->fd)].seen, op->size);
        }
        return 0;
    case DISK_RMDIR:
    case DISK_LOCK:
    case DISK_FREE_SPACE:
        break;
    }
    return -ENOSYS;
}

static void op_execute(struct crash_disk *disk, struct disk_op *op, struct flight *flight)
{
    bool is_failing = false;
    if (verb_changes(op)) {
        disk->ops_count++;
        is_failing = disk->fail_at != 0 && (disk->ops_count == disk->fail_at ||
                                            (disk->is_sticky && disk->ops_count > disk->fail_at));
    }
    op->result = is_failing ? disk->error : run_verb(disk, op, flight);
    if (disk->on_op != NULL) {
        disk->on_op(disk->context, op, true);
    }
}

static int64_t crash_run(struct disk *base, struct disk_op *op)
{
    op_execute(crash_of(base), op, NULL);
    return op->result;
}

static int crash_submit(struct disk *base, struct disk_op *op)
{
    struct crash_disk *disk = crash_of(base);
    if (disk->in_flight_count == DISK_OPS_MAX) {
        return -EAGAIN;
    }
    struct flight *flight = calloc(1, sizeof(*flight));
    ensure(flight != NULL);
    flight->op = op;
    flight->submitted_at = ++disk->submits_count;
    if (op->verb == DISK_DATASYNC || op->verb == DISK_SYNC) {
        const struct crash_node *node = &disk->nodes[fd_node(disk, op->fd)];
        if (node->is_directory) {
            flight->names = malloc(sizeof(*flight->names));
            ensure(flight->names != NULL);
            *flight->names = disk->seen;
        } else {
            bytes_set(&flight->snapshot, &node->seen);
        }
    }
    list_add_last(&disk->in_flight, &flight->link);
    disk->in_flight_count++;
    if (disk->on_op != NULL) {
        disk->on_op(disk->context, op, false);
    }
    return 0;
}

static void flight_free(struct crash_disk *disk, struct flight *flight)
{
    list_remove(&flight->link);
    disk->in_flight_count--;
    bytes_free(&flight->snapshot);
    free(flight->names);
    free(flight);
}

static struct disk_op *crash_reap(struct disk *base)
{
    struct crash_disk *disk = crash_of(base);
    if (disk->in_flight_count == 0 || disk->reaps_left == 0 ||
        (disk->is_shuffled && random_below(&disk->random, 3) == 0)) {
        return NULL;
    }
    uint32_t skip = disk->is_shuffled ? random_below(&disk->random, disk->in_flight_count) : 0;
    struct list *at = disk->in_flight.next;
    while (skip-- > 0) {
        at = at->next;
    }
    struct flight *flight = CONTAINER_OF(at, struct flight, link);
    struct disk_op *op = flight->op;
    disk->reaps_left -= disk->reaps_left == UINT32_MAX ? 0 : 1;
    op_execute(disk, op, flight);
    flight_free(disk, flight);
    return op;
}

static int crash_watch(struct disk *base, int dir_fd)
{
    (void)base;
    (void)dir_fd;
    return 0;
}

static bool crash_watch_fired(struct disk *base)
{
    (void)base;
    return false;
}

static void crash_wait(struct disk *base, int64_t timeout_ns)
{
    (void)base;
    (void)timeout_ns;
}

static void crash_destroy(struct disk *base)
{
    (void)base;
}

void crash_disk_init(struct crash_disk *disk, uint64_t seed)
{
    static const struct disk_ops ops = {
        .run = crash_run,
        .submit = crash_submit,
        .reap = crash_reap,
        .watch = crash_watch,
        .watch_fired = crash_watch_fired,
        .wait = crash_wait,
        .destroy = crash_destroy,
    };
    memset(disk, 0, sizeof(*disk));
    disk->disk.ops = &ops;
    disk->reaps_left = UINT32_MAX;
    random_init_seed(&disk->random, seed);
    list_init(&disk->in_flight);
    ensure(node_take(disk, true) == CRASH_ROOT);
}

static void flights_drop(struct crash_disk *disk)
{
    while (disk->in_flight_count > 0) {
        flight_free(disk, CONTAINER_OF(disk->in_flight.next, struct flight, link));
    }
}

void crash_disk_deinit(struct crash_disk *disk)
{
    flights_drop(disk);
    for (int i = 0; i < CRASH_NODES_MAX; i++) {
        bytes_free(&disk->nodes[i].seen);
        bytes_free(&disk->nodes[i].stable);
    }
}

static bool keeps(struct crash_disk *disk, uint32_t keep_percent)
{
    return random_below(&disk->random, 100) < keep_percent;
}

/* A write in flight may have reached the file in part. */
static void flights_tear(struct crash_disk *to, const struct crash_disk *from,
                         uint32_t keep_percent)
{
    const struct list *at;
    for (at = from->in_flight.next; at != &from->in_flight; at = at->next) {
        const struct disk_op *op = CONTAINER_OF(at, struct flight, link)->op;
        for (size_t done = 0; op->verb == DISK_WRITE && done < op->size; done += SECTOR) {
            struct disk_op part = *op;
            part.at = (char *)op->at + done;
            part.size = op->size - done < SECTOR ? op->size - done : SECTOR;
            part.offset = op->offset + done;
            if (keeps(to, keep_percent)) {
                (void)run_write(to, &part);
            }
        }
    }
}

static void node_crash(struct crash_disk *disk, struct crash_node *node, uint32_t keep_percent)
{
    struct crash_bytes after = {0};
    bytes_set(&after, &node->stable);
    for (size_t at = 0; at < node->seen.size; at += SECTOR) {
        size_t size = node->seen.size - at < SECTOR ? node->seen.size - at : SECTOR;
        if (keeps(disk, keep_percent)) {
            if (at + size > after.size) {
                bytes_resize(&after, at + size);
            }
            memcpy(after.at + at, node->seen.at + at, size);
        }
    }
    bytes_set(&node->seen, &after);
    bytes_set(&node->stable, &after);
    bytes_free(&after);
}

static void names_crash(struct crash_disk *disk, uint32_t keep_percent)
{
    struct crash_names *after = malloc(sizeof(*after));
    ensure(after != NULL);
    after->count = 0;
    for (size_t i = 0; i < disk->stable.count; i++) {
        const struct crash_name *name = &disk->stable.rows[i];
        const struct crash_name *seen =
            name_find(&disk->seen, name->directory, span_of_text(name->text));
        if (seen != NULL && seen->node == name->node) {
            after->rows[after->count++] = *name;
        } else if (!keeps(disk, keep_percent)) {
            after->rows[after->count++] = *name;
        } else if (seen != NULL) {
            after->rows[after->count++] = *seen;
        }
    }
    for (size_t i = 0; i < disk->seen.count; i++) {
        const struct crash_name *name = &disk->seen.rows[i];
        bool is_new = name_find(&disk->stable, name->directory, span_of_text(name->text)) == NULL;
        if (is_new && keeps(disk, keep_percent)) {
            after->rows[after->count++] = *name;
        }
    }
    disk->seen = *after;
    disk->stable = *after;
    free(after);
}

void crash_disk_crash(struct crash_disk *disk, uint32_t keep_percent)
{
    flights_tear(disk, disk, keep_percent);
    flights_drop(disk);
    memset(disk->fds, 0, sizeof(disk->fds));
    disk->fail_at = 0;
    disk->reaps_left = UINT32_MAX;
    if (keep_percent == CRASH_PROGRAM) {
        return;
    }
    for (int i = 0; i < CRASH_NODES_MAX; i++) {
        if (disk->nodes[i].is_used && !disk->nodes[i].is_directory) {
            node_crash(disk, &disk->nodes[i], keep_percent);
        }
    }
    names_crash(disk, keep_percent);
    nodes_sweep(disk);
}

struct crash_bytes *crash_disk_file(struct crash_disk *disk, const char *path)
{
    struct span last;
    int directory = path_parent(disk, DISK_ROOT, path, &last);
    struct crash_name *name = directory < 0 ? NULL : name_find(&disk->seen, directory, last);
    return name == NULL ? NULL : &disk->nodes[name->node].seen;
}

void crash_disk_put(struct crash_disk *disk, const char *path, struct span content)
{
    struct span last;
    int directory = path_parent(disk, DISK_ROOT, path, &last);
    ensure(directory >= 0);
    struct crash_name *name = name_find(&disk->seen, directory, last);
    int node = name != NULL ? name->node : node_take(disk, false);
    struct crash_bytes bytes = {.at = (char *)(uintptr_t)content.at, .size = content.size};
    bytes_set(&disk->nodes[node].seen, &bytes);
    bytes_set(&disk->nodes[node].stable, &bytes);
    name_set(&disk->seen, directory, last, node);
    name_set(&disk->stable, directory, last, node);
}

void crash_disk_remove(struct crash_disk *disk, const char *path)
{
    struct disk_op op = {.verb = DISK_UNLINK, .dir = DISK_ROOT, .path = path};
    ensure(run_unlink(disk, &op) == 0);
}

void crash_disk_crash_copy(struct crash_disk *to, const struct crash_disk *from, uint64_t seed,
                           uint32_t keep_percent)
{
    memcpy(to, from, sizeof(*to));
    random_init_seed(&to->random, seed);
    list_init(&to->in_flight);
    to->in_flight_count = 0;
    to->on_op = NULL;
    for (int i = 0; i < CRASH_NODES_MAX; i++) {
        to->nodes[i].seen = (struct crash_bytes){0};
        to->nodes[i].stable = (struct crash_bytes){0};
        bytes_set(&to->nodes[i].seen, &from->nodes[i].seen);
        bytes_set(&to->nodes[i].stable, &from->nodes[i].stable);
    }
    flights_tear(to, from, keep_percent);
    crash_disk_crash(to, keep_percent);
}
