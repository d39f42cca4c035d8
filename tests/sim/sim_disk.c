/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_priv.h"

static struct sim_view *view_of(struct disk *disk)
{
    return (struct sim_view *)disk;
}

/* Descriptors. */

static int fd_open(struct sim_view *view, struct sim_node *node, unsigned flags)
{
    int fd = 0;
    while (fd < view->fds_room && view->fds[fd].node != NULL) {
        fd++;
    }
    if (fd == view->fds_room) {
        view->fds_room = view->fds_room == 0 ? 32 : view->fds_room * 2;
        ensure(view->fds_room <= SIM_DISK_FDS_MAX);
        view->fds = sim_world_realloc(view->fds, (size_t)view->fds_room * sizeof(*view->fds));
        memset(view->fds + fd, 0, (size_t)(view->fds_room - fd) * sizeof(*view->fds));
    }
    view->fds[fd] = (struct sim_fd){.node = node, .flags = flags};
    sim_node_hold(node);
    return fd;
}

static struct sim_fd *fd_find(struct sim_view *view, int fd)
{
    if (view->is_dead || fd < 0 || fd >= view->fds_room || view->fds[fd].node == NULL) {
        return NULL;
    }
    return &view->fds[fd];
}

/* A lock belongs to its descriptor; the table moves when it grows, so its name is (view, number).
 */
static const void *lock_name(const struct sim_view *view, int fd)
{
    return (const char *)view + 1 + fd;
}

static void fd_close(struct sim_view *view, int fd)
{
    struct sim_node *node = view->fds[fd].node;
    if (node->locked_by == lock_name(view, fd)) {
        node->locked_by = NULL;
    }
    view->fds[fd].node = NULL;
    sim_node_drop(view->world, node);
}

/* Changes of names and contents are told to who watches the directory. */
static void fire(struct sim_disk *world, const struct sim_node *dir)
{
    for (struct list *link = world->views.next; link != &world->views; link = link->next) {
        struct sim_view *view = CONTAINER_OF(link, struct sim_view, link);
        for (uint32_t i = 0; i < view->watches_count; i++) {
            if (view->watches[i] == dir) {
                view->has_fired = true;
                if (view->waker != NULL) {
                    waker_signal_xcore(view->waker);
                }
            }
        }
    }
}

static void fire_above(struct sim_disk *world, const struct sim_node *node)
{
    for (struct list *link = world->views.next; link != &world->views; link = link->next) {
        const struct sim_view *view = CONTAINER_OF(link, struct sim_view, link);
        for (uint32_t i = 0; i < view->watches_count; i++) {
            const struct sim_names *names = &view->watches[i]->names;
            for (uint32_t at = 0; at < names->count; at++) {
                if (names->rows[at].node == node) {
                    fire(world, view->watches[i]);
                }
            }
        }
    }
}

/* Ops on names. */

static int find(struct sim_view *view, int dir, const char *path, struct sim_place *ret_place)
{
    if (dir == DISK_ROOT) {
        return sim_place_find(view->world, NULL, path, ret_place);
    }
    const struct sim_fd *fd = fd_find(view, dir);
    return fd == NULL ? -EBADF : sim_place_find(view->world, fd->node, path, ret_place);
}

static int64_t do_open(struct sim_view *view, const struct disk_op *op)
{
    struct sim_disk *world = view->world;
    struct sim_place place;
    int result = find(view, op->dir, op->path, &place);
    if (result != 0) {
        return result;
    }
    bool is_write = (op->flags & DISK_READWRITE) != 0;
    if (place.node == NULL) {
        if ((op->flags & DISK_CREATE) == 0) {
            return -ENOENT;
        }
        struct sim_node *node = sim_node_create(world, DISK_KIND_FILE);
        sim_tree_move(world, node, NULL, NULL, place.dir, place.text);
        fire(world, place.dir);
        return fd_open(view, node, op->flags);
    }
    if ((op->flags & DISK_EXCLUSIVE) != 0) {
        return -EEXIST;
    }
    if (place.node->kind == DISK_KIND_LINK) {
        return -ELOOP;
    }
    bool is_directory = place.node->kind == DISK_KIND_DIRECTORY;
    if ((op->flags & DISK_DIRECTORY) != 0 && !is_directory) {
        return -ENOTDIR;
    }
    if (is_write && is_directory) {
        return -EISDIR;
    }
    if ((op->flags & DISK_EMPTY) != 0 && place.node->seen.size > 0) {
        (void)sim_file_resize(world, place.node, 0);
        fire_above(world, place.node);
    }
    return fd_open(view, place.node, op->flags);
}

static int64_t do_stat(struct sim_view *view, struct disk_op *op)
{
    const struct sim_node *node;
    if (op->path == NULL || op->path[0] == '\0') {
        const struct sim_fd *fd = fd_find(view, op->fd);
        if (fd == NULL) {
            return -EBADF;
        }
        node = fd->node;
    } else {
        struct sim_place place;
        int result = find(view, op->dir, op->path, &place);
        if (result != 0) {
            return result;
        }
        if (place.node == NULL) {
            return -ENOENT;
        }
        node = place.node;
    }
    bool is_directory = node->kind == DISK_KIND_DIRECTORY;
    op->stat = (struct disk_stat){.kind = node->kind,
                                  .size = node->seen.size,
                                  .mtime_ns = node->mtime_ns,
                                  .inode = node->inode,
                                  .links_count = is_directory ? 2 : node->links_count,
                                  .mode = is_directory ? 0770 : 0660};
    return 0;
}

static int64_t do_list(struct sim_view *view, const struct disk_op *op)
{
    const struct sim_fd *fd = fd_find(view, op->fd);
    if (fd == NULL) {
        return -EBADF;
    }
    if (fd->node->kind != DISK_KIND_DIRECTORY) {
        return -ENOTDIR;
    }
    const struct sim_names *names = &fd->node->names;
    for (uint32_t i = 0; i < names->count; i++) {
        op->on_name(op->context, names->rows[i].text, names->rows[i].node->kind);
    }
    return 0;
}

static int64_t do_mkdir(struct sim_view *view, const struct disk_op *op)
{
    struct sim_place place;
    int result = find(view, op->dir, op->path, &place);
    if (result != 0) {
        return result;
    }
    if (place.node != NULL) {
        return -EEXIST;
    }
    struct sim_node *node = sim_node_create(view->world, DISK_KIND_DIRECTORY);
    sim_tree_move(view->world, node, NULL, NULL, place.dir, place.text);
    fire(view->world, place.dir);
    return 0;
}

static bool is_inside(const struct sim_node *outer, const struct sim_node *node)
{
    for (uint32_t i = 0; outer != node && i < outer->names.count; i++) {
        if (outer->names.rows[i].node->kind == DISK_KIND_DIRECTORY &&
            is_inside(outer->names.rows[i].node, node)) {
            return true;
        }
    }
    return outer == node;
}

static int64_t do_rename(struct sim_view *view, const struct disk_op *op)
{
    struct sim_place from;
    struct sim_place to;
    int result = find(view, op->dir, op->path, &from);
    result = result == 0 ? find(view, op->dir_to, op->path_to, &to) : result;
    if (result != 0) {
        return result;
    }
    if (from.node == NULL) {
        return -ENOENT;
    }
    if (from.text[0] == '\0' || to.text[0] == '\0') {
        return -EBUSY;
    }
    if (to.node == from.node) {
        return 0;
    }
    if (to.node != NULL && to.node->kind == DISK_KIND_DIRECTORY) {
        return -EEXIST;
    }
    bool is_directory = from.node->kind == DISK_KIND_DIRECTORY;
    if (to.node != NULL && is_directory) {
        return -ENOTDIR;
    }
    if (is_directory && is_inside(from.node, to.dir)) {
        return -EINVAL;
    }
    sim_tree_move(view->world, from.node, from.dir, from.text, to.dir, to.text);
    fire(view->world, to.dir);
    return 0;
}

static int64_t do_remove(struct sim_view *view, const struct disk_op *op)
{
    struct sim_place place;
    int result = find(view, op->dir, op->path, &place);
    if (result != 0) {
        return result;
    }
    if (place.node == NULL) {
        return -ENOENT;
    }
    if (place.text[0] == '\0') {
        return -EBUSY;
    }
    bool is_directory = place.node->kind == DISK_KIND_DIRECTORY;
    if (op->verb == DISK_UNLINK && is_directory) {
        return -EISDIR;
    }
    if (op->verb == DISK_RMDIR && !is_directory) {
        return -ENOTDIR;
    }
    if (is_directory && place.node->names.count > 0) {
        return -ENOTEMPTY;
    }
    sim_tree_move(view->world, place.node, place.dir, place.text, NULL, NULL);
    return 0;
}

/* Ops on descriptors. */

static int64_t do_transfer(struct sim_view *view, const struct disk_op *op)
{
    const struct sim_fd *fd = fd_find(view, op->fd);
    if (fd == NULL) {
        return -EBADF;
    }
    if (op->verb == DISK_READ) {
        return fd->node->kind == DISK_KIND_DIRECTORY
                   ? -EISDIR
                   : sim_file_read(fd->node, op->at, op->size, op->offset);
    }
    if ((fd->flags & DISK_READWRITE) == 0) {
        return -EBADF;
    }
    int64_t result = op->verb == DISK_WRITE
                         ? sim_file_write(view->world, fd->node, op->at, op->size, op->offset)
                         : 0;
    if (op->verb == DISK_TRUNCATE ||
        (op->verb == DISK_ALLOCATE && op->size > fd->node->seen.size)) {
        result = sim_file_resize(view->world, fd->node, op->size);
    }
    fire_above(view->world, fd->node);
    return result;
}

static int64_t do_sync(struct sim_view *view, const struct disk_op *op, uint64_t number,
                       bool has_failed)
{
    const struct sim_fd *fd = fd_find(view, op->fd);
    if (fd == NULL) {
        return -EBADF;
    }
    if (fd->node->kind == DISK_KIND_DIRECTORY) {
        if (!has_failed || sim_chance_of(view->world, 128)) {
            sim_tree_sync(view->world, fd->node, number);
        }
    } else {
        sim_file_sync(view->world, fd->node, number, has_failed);
    }
    return 0;
}

static int64_t do_lock(struct sim_view *view, const struct disk_op *op)
{
    const struct sim_fd *fd = fd_find(view, op->fd);
    if (fd == NULL) {
        return -EBADF;
    }
    const void *name = lock_name(view, op->fd);
    if (fd->node->locked_by != NULL && fd->node->locked_by != name) {
        return -EWOULDBLOCK;
    }
    fd->node->locked_by = name;
    return 0;
}

static int64_t do_free_space(struct sim_view *view, struct disk_op *op)
{
    const struct sim_disk *world = view->world;
    if (fd_find(view, op->fd) == NULL) {
        return -EBADF;
    }
    op->stat.size = world->used_max > world->used ? world->used_max - world->used : 0;
    return 0;
}

static int64_t do_close(struct sim_view *view, const struct disk_op *op)
{
    if (fd_find(view, op->fd) == NULL) {
        return -EBADF;
    }
    fd_close(view, op->fd);
    return 0;
}

static int64_t execute(struct sim_view *view, struct disk_op *op, uint64_t number)
{
    switch (op->verb) {
    case DISK_OPEN:
        return do_open(view, op);
    case DISK_CLOSE:
        return do_close(view, op);
    case DISK_STAT:
        return do_stat(view, op);
    case DISK_LIST:
        return do_list(view, op);
    case DISK_MKDIR:
        return do_mkdir(view, op);
    case DISK_RENAME:
        return do_rename(view, op);
    case DISK_UNLINK:
    case DISK_RMDIR:
        return do_remove(view, op);
    case DISK_READ:
    case DISK_WRITE:
    case DISK_TRUNCATE:
    case DISK_ALLOCATE:
        return do_transfer(view, op);
    case DISK_DATASYNC:
    case DISK_SYNC:
        return do_sync(view, op, number, false);
    case DISK_LOCK:
        return do_lock(view, op);
    case DISK_FREE_SPACE:
        return do_free_space(view, op);
    }
    ensure(false);
    return -EINVAL;
}

/* Faults. */

static bool needs_space(const struct disk_op *op)
{
    return op->verb == DISK_WRITE || op->verb == DISK_MKDIR || op->verb == DISK_ALLOCATE ||
           (op->verb == DISK_OPEN && (op->flags & DISK_CREATE) != 0);
}

static bool is_to_fail(struct sim_view *view, const struct disk_op *op)
{
    struct sim_disk *world = view->world;
    if (view->waker == NULL || op->verb == DISK_CLOSE) {
        return false;
    }
    world->ops_count++;
    if (world->fail_left == 0) {
        return false;
    }
    if (world->fail_left > 1) {
        world->fail_left--;
        return false;
    }
    if (world->fail_error == -ENOSPC && !needs_space(op)) {
        return false;
    }
    world->fail_left = world->is_fail_sticky ? 1 : 0;
    world->failures_count++;
    return true;
}

/* What a failed op may have done all the same. */
static void fail(struct sim_view *view, struct disk_op *op, uint64_t number)
{
    if (op->verb == DISK_WRITE && op->size > 0) {
        struct disk_op part = *op;
        part.size = random_below(&view->world->random, (uint32_t)op->size);
        (void)do_transfer(view, &part);
    } else if (op->verb == DISK_DATASYNC || op->verb == DISK_SYNC) {
        (void)do_sync(view, op, number, true);
    }
    op->result = view->world->fail_error;
}

static void perform(struct sim_view *view, struct disk_op *op, uint64_t number)
{
    struct sim_disk *world = view->world;
    bool is_stopped = view->waker != NULL && world->is_stopped;
    if (view->waker != NULL && world->stop_left > 0) {
        world->is_stopped = --world->stop_left == 0;
    }
    if (view->is_dead || is_stopped) {
        op->result = -EIO;
    } else if (is_to_fail(view, op)) {
        fail(view, op, number);
    } else {
        op->result = execute(view, op, number);
    }
}

/* The seam. */

static int64_t sim_run(struct disk *disk, struct disk_op *op)
{
    struct sim_view *view = view_of(disk);
    perform(view, op, view->world->number);
    return op->result;
}

static int sim_submit(struct disk *disk, struct disk_op *op)
{
    struct sim_view *view = view_of(disk);
    struct sim_disk *world = view->world;
    if (view->flights_count == DISK_OPS_MAX) {
        return -EAGAIN;
    }
    int64_t delay_ns = 0;
    if (world->delay_max_ns > 0) {
        delay_ns = (int64_t)(random_u64(&world->random) % ((uint64_t)world->delay_max_ns + 1));
    }
    view->flights[view->flights_count++] = (struct sim_flight){
        .op = op, .due_ns = clock_mono(world->clock).ns + delay_ns, .number = world->number};
    return 0;
}

static struct disk_op *sim_reap(struct disk *disk)
{
    struct sim_view *view = view_of(disk);
    int64_t now_ns = clock_mono(view->world->clock).ns;
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < view->flights_count; i++) {
        bool is_due = view->flights[i].due_ns <= now_ns || view->is_dead;
        if (is_due &&
            (best == UINT32_MAX || view->flights[i].due_ns < view->flights[best].due_ns)) {
            best = i;
        }
    }
    if (best == UINT32_MAX) {
        return NULL;
    }
    struct sim_flight flight = view->flights[best];
    view->flights[best] = view->flights[--view->flights_count];
    perform(view, flight.op, flight.number);
    return flight.op;
}

static void watches_clear(struct sim_view *view)
{
    while (view->watches_count > 0) {
        sim_node_drop(view->world, view->watches[--view->watches_count]);
    }
}

static int sim_watch(struct disk *disk, int dir_fd)
{
    struct sim_view *view = view_of(disk);
    if (dir_fd < 0) {
        watches_clear(view);
        view->has_fired = false;
        return 0;
    }
    const struct sim_fd *fd = fd_find(view, dir_fd);
    if (fd == NULL) {
        return -EBADF;
    }
    ensure(view->watches_count < SIM_WATCHES_MAX);
    view->watches[view->watches_count++] = fd->node;
    sim_node_hold(fd->node);
    return 0;
}

static bool sim_watch_fired(struct disk *disk)
{
    struct sim_view *view = view_of(disk);
    bool has_fired = view->has_fired;
    view->has_fired = false;
    return has_fired;
}

static void sim_wait(struct disk *disk, int64_t timeout_ns)
{
    struct sim_view *view = view_of(disk);
    (void)timeout_ns;
    for (uint32_t i = 0; i < view->flights_count; i++) {
        int64_t now_ns = clock_mono(view->world->clock).ns;
        view->flights[i].due_ns =
            view->flights[i].due_ns < now_ns ? view->flights[i].due_ns : now_ns;
    }
}

static void view_release(struct sim_view *view)
{
    watches_clear(view);
    for (int fd = 0; fd < view->fds_room; fd++) {
        if (view->fds[fd].node != NULL) {
            fd_close(view, fd);
        }
    }
    free(view->fds);
    view->fds = NULL;
    view->fds_room = 0;
}

/* Ops still under way belong to living memory: a caller that freed them is found out here. */
static void view_destroy(struct disk *disk)
{
    struct sim_view *view = view_of(disk);
    while (view->flights_count > 0) {
        const struct sim_flight *flight = &view->flights[--view->flights_count];
        perform(view, flight->op, flight->number);
    }
    view_release(view);
    list_remove(&view->link);
    free(view);
}

static const struct disk_ops OPS = {
    .run = sim_run,
    .submit = sim_submit,
    .reap = sim_reap,
    .watch = sim_watch,
    .watch_fired = sim_watch_fired,
    .wait = sim_wait,
    .destroy = view_destroy,
};

struct disk *sim_disk_view(struct sim_disk *world, struct waker *waker)
{
    struct sim_view *view = sim_world_alloc(sizeof(*view));
    view->disk.ops = &OPS;
    view->world = world;
    view->waker = waker;
    list_init(&view->link);
    list_add_last(&world->views, &view->link);
    return &view->disk;
}

/* The world. */

struct sim_disk *sim_disk_create(const struct clock *clock, uint64_t seed, int64_t delay_max_ns)
{
    struct sim_disk *world = sim_world_alloc(sizeof(*world));
    world->clock = clock;
    world->delay_max_ns = delay_max_ns;
    world->used_max = UINT64_C(1) << 40;
    random_init_seed(&world->random, seed);
    list_init(&world->views);
    list_init(&world->changes);
    world->root = sim_node_create(world, DISK_KIND_DIRECTORY);
    sim_node_hold(world->root);
    return world;
}

void sim_disk_destroy(struct sim_disk *world)
{
    if (world == NULL) {
        return;
    }
    ensure(list_is_empty(&world->views));
    sim_tree_destroy(world);
    free(world);
}

/* The tests' own views live on: they hold nothing that a crash could take. */
static void views_die(struct sim_disk *world)
{
    for (struct list *link = world->views.next; link != &world->views; link = link->next) {
        struct sim_view *view = CONTAINER_OF(link, struct sim_view, link);
        if (view->waker != NULL) {
            view_release(view);
            view->is_dead = true;
        }
    }
}

/* What was under way may have got there: in part when the power fails, whole when only the program
 * dies. */
static void flights_land(struct sim_disk *world, bool is_power_loss)
{
    for (struct list *link = world->views.next; link != &world->views; link = link->next) {
        struct sim_view *view = CONTAINER_OF(link, struct sim_view, link);
        for (uint32_t i = 0; i < view->flights_count && !view->is_dead; i++) {
            struct disk_op op = *view->flights[i].op;
            if (op.verb == DISK_WRITE && sim_chance_of(world, 128)) {
                (void)do_transfer(view, &op);
            } else if (op.verb == DISK_DATASYNC && sim_chance_of(world, 128)) {
                (void)do_sync(view, &op, view->flights[i].number, is_power_loss);
            }
        }
    }
}

static void end_views(struct sim_disk *world, bool is_power_loss)
{
    flights_land(world, is_power_loss);
    views_die(world);
    sim_disk_stop_at(world, 0);
}

void sim_disk_crash(struct sim_disk *world)
{
    end_views(world, true);
    sim_tree_crash(world);
}

void sim_disk_kill(struct sim_disk *world)
{
    end_views(world, false);
}

void sim_disk_stop_at(struct sim_disk *world, uint64_t n)
{
    world->stop_left = n;
    world->is_stopped = false;
}

bool sim_disk_is_stopped(const struct sim_disk *world)
{
    return world->is_stopped;
}

void sim_disk_fail_at(struct sim_disk *world, uint64_t n, int error, bool is_sticky)
{
    ensure(n == 0 || error < 0);
    world->fail_left = n;
    world->fail_error = error;
    world->is_fail_sticky = is_sticky;
}

uint64_t sim_disk_ops_count(const struct sim_disk *world)
{
    return world->ops_count;
}

uint64_t sim_disk_failures_count(const struct sim_disk *world)
{
    return world->failures_count;
}

struct mono_time sim_disk_view_next(const struct disk *disk)
{
    const struct sim_view *view = (const struct sim_view *)disk;
    struct mono_time next = MONO_NEVER;
    for (uint32_t i = 0; i < view->flights_count; i++) {
        next = mono_earlier(next, (struct mono_time){.ns = view->flights[i].due_ns});
    }
    return next;
}

struct mono_time sim_disk_next(const struct sim_disk *world)
{
    struct mono_time next = MONO_NEVER;
    for (struct list *link = world->views.next; link != &world->views; link = link->next) {
        const struct sim_view *view = CONTAINER_OF(link, struct sim_view, link);
        next = mono_earlier(next, sim_disk_view_next(&view->disk));
    }
    return next;
}

void sim_disk_set_free(struct sim_disk *world, uint64_t bytes)
{
    world->used_max = world->used + bytes;
}

int sim_disk_peek(struct sim_disk *world, const char *path, struct span *ret_content)
{
    struct sim_place place;
    int result = sim_place_find(world, NULL, path, &place);
    if (result != 0) {
        return result;
    }
    if (place.node == NULL) {
        return -ENOENT;
    }
    if (place.node->kind != DISK_KIND_FILE) {
        return -EISDIR;
    }
    *ret_content = place.node->seen.size == 0 ? SPAN_NONE
                                              : span_of(place.node->seen.at, place.node->seen.size);
    return 0;
}

int sim_disk_put_odd(struct sim_disk *world, const char *path, enum disk_kind kind)
{
    ensure(kind == DISK_KIND_LINK || kind == DISK_KIND_OTHER);
    struct sim_place place;
    int result = sim_place_find(world, NULL, path, &place);
    if (result != 0 || place.node != NULL) {
        return result != 0 ? result : -EEXIST;
    }
    struct sim_node *node = sim_node_create(world, kind);
    sim_tree_move(world, node, NULL, NULL, place.dir, place.text);
    sim_tree_sync(world, place.dir, world->number);
    fire(world, place.dir);
    return 0;
}
