/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim_disk_priv.h"

/* Bytes between the old and the new size read as zero. */
static void bytes_resize(struct sim_bytes *bytes, size_t size)
{
    if (size > bytes->room) {
        size_t room = bytes->room == 0 ? SIM_SECTOR_SIZE : bytes->room;
        while (room < size) {
            room *= 2;
        }
        bytes->at = sim_world_realloc(bytes->at, room);
        bytes->room = room;
    }
    if (size > bytes->size) {
        memset(bytes->at + bytes->size, 0, size - bytes->size);
    }
    bytes->size = size;
}

static void bytes_put(struct sim_bytes *bytes, const char *at, size_t size, uint64_t offset)
{
    if (offset + size > bytes->size) {
        bytes_resize(bytes, (size_t)offset + size);
    }
    if (size > 0) {
        memcpy(bytes->at + offset, at, size);
    }
}

static void log_add(struct sim_disk *world, struct sim_node *node, const void *at, size_t size,
                    uint64_t offset, bool is_size)
{
    struct sim_write *write = sim_world_realloc(NULL, sizeof(*write) + size);
    *write = (struct sim_write){
        .number = ++world->number, .offset = offset, .size = size, .is_size = is_size};
    if (size > 0) {
        memcpy(write->bytes, at, size);
    }
    if (node->log_last == NULL) {
        node->log_first = write;
    } else {
        node->log_last->next = write;
    }
    node->log_last = write;
}

static struct sim_write *log_take(struct sim_node *node)
{
    struct sim_write *write = node->log_first;
    node->log_first = write->next;
    if (node->log_first == NULL) {
        node->log_last = NULL;
    }
    return write;
}

int64_t sim_file_read(const struct sim_node *node, void *at, size_t size, uint64_t offset)
{
    if (offset >= node->seen.size) {
        return 0;
    }
    size_t left = node->seen.size - (size_t)offset;
    size_t taken = size < left ? size : left;
    if (taken > 0) {
        memcpy(at, node->seen.at + offset, taken);
    }
    return (int64_t)taken;
}

/* Only files that have a name take up space. */
static bool has_room(const struct sim_disk *world, const struct sim_node *node, uint64_t size)
{
    return size <= node->seen.size || node->links_count == 0 ||
           world->used + (size - node->seen.size) <= world->used_max;
}

static void count_size(struct sim_disk *world, const struct sim_node *node, size_t before)
{
    if (node->links_count > 0) {
        ensure(world->used >= before);
        world->used += node->seen.size - before;
    }
}

int64_t sim_file_write(struct sim_disk *world, struct sim_node *node, const void *at, size_t size,
                       uint64_t offset)
{
    if (size == 0) {
        return 0;
    }
    if (!has_room(world, node, offset + size)) {
        return -ENOSPC;
    }
    size_t before = node->seen.size;
    bytes_put(&node->seen, at, size, offset);
    count_size(world, node, before);
    node->mtime_ns = clock_wall(world->clock).ns;
    log_add(world, node, at, size, offset, false);
    return (int64_t)size;
}

int64_t sim_file_resize(struct sim_disk *world, struct sim_node *node, uint64_t size)
{
    if (!has_room(world, node, size)) {
        return -ENOSPC;
    }
    size_t before = node->seen.size;
    bytes_resize(&node->seen, (size_t)size);
    count_size(world, node, before);
    node->mtime_ns = clock_wall(world->clock).ns;
    log_add(world, node, NULL, 0, size, true);
    return 0;
}

static void apply_whole(struct sim_node *node, const struct sim_write *write)
{
    if (write->is_size) {
        bytes_resize(&node->stable, (size_t)write->offset);
    } else {
        bytes_put(&node->stable, write->bytes, write->size, write->offset);
    }
}

void sim_file_sync(struct sim_disk *world, struct sim_node *node, uint64_t number, bool has_failed)
{
    while (node->log_first != NULL && node->log_first->number <= number) {
        struct sim_write *write = log_take(node);
        if (!has_failed || sim_chance_of(world, 128)) {
            apply_whole(node, write);
        }
        free(write);
    }
}

/* Sectors are those of the file, not of the write. */
static void apply_by_chance(struct sim_disk *world, struct sim_node *node,
                            const struct sim_write *write, uint32_t keep_of_256)
{
    if (write->is_size) {
        if (sim_chance_of(world, keep_of_256)) {
            bytes_resize(&node->stable, (size_t)write->offset);
        }
        return;
    }
    size_t done = 0;
    while (done < write->size) {
        uint64_t at = write->offset + done;
        size_t piece = SIM_SECTOR_SIZE - (size_t)(at % SIM_SECTOR_SIZE);
        piece = piece < write->size - done ? piece : write->size - done;
        if (sim_chance_of(world, keep_of_256)) {
            bytes_put(&node->stable, write->bytes + done, piece, at);
        }
        done += piece;
    }
}

void sim_file_crash(struct sim_disk *world, struct sim_node *node, uint32_t keep_of_256)
{
    while (node->log_first != NULL) {
        struct sim_write *write = log_take(node);
        apply_by_chance(world, node, write, keep_of_256);
        free(write);
    }
    size_t before = node->seen.size;
    bytes_resize(&node->seen, 0);
    bytes_put(&node->seen, node->stable.at, node->stable.size, 0);
    count_size(world, node, before);
}

void sim_file_free(struct sim_node *node)
{
    while (node->log_first != NULL) {
        free(log_take(node));
    }
    free(node->seen.at);
    free(node->stable.at);
}
