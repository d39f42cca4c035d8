/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_damage.h"

#include <stdio.h>
#include <string.h>

#include "tests/sim/sim_disk_priv.h"

enum { FILES_MAX = 64 };

struct files {
    const char *dir;
    const char *const *prefixes; /* the names that count begin so; up to NULL */
    uint32_t count;
    char paths[FILES_MAX][512];
};

static const char *const JOURNAL[] = {"journal-0", "checkpoint-0", "results-missing", "ids-", NULL};
static const char *const RESULTS[] = {"results.ndjson", NULL};
static const char *const BATCH[] = {"recipients", "messages", "message", NULL};

static void on_file(void *context, const char *name, enum disk_kind kind)
{
    struct files *files = context;
    for (size_t i = 0; files->prefixes[i] != NULL; i++) {
        if (kind == DISK_KIND_FILE && files->count < FILES_MAX &&
            strncmp(name, files->prefixes[i], strlen(files->prefixes[i])) == 0) {
            (void)snprintf(files->paths[files->count++], sizeof(files->paths[0]), "%s/%s",
                           files->dir, name);
            return;
        }
    }
}

static void list(struct sim_engine *sim, struct files *files, const char *dir)
{
    int fd = disk_open(sim->view, DISK_ROOT, dir, DISK_READONLY | DISK_DIRECTORY);
    files->dir = dir;
    if (fd >= 0) {
        (void)disk_list(sim->view, fd, on_file, files);
        disk_close(sim->view, fd);
    }
}

/* Where something stands, if by chance it can be found: most of a segment is empty. */
static uint64_t offset_of_some(const struct sim_bytes *bytes, struct random *random)
{
    uint64_t offset = 0;
    for (int tries = 0; tries < 64; tries++) {
        offset = random_below(random, (uint32_t)bytes->size);
        if (bytes->at[offset] != 0) {
            break;
        }
    }
    return offset;
}

/* `first`: 1, where a bit that turns over cannot be seen. */
static void harm(struct sim_engine *sim, const char *path, uint32_t first, struct random *random)
{
    struct sim_disk *world = sim->disk;
    struct sim_place place;
    static const char ZEROS[SIM_SECTOR_SIZE];
    ensure(sim_place_find(world, NULL, path, &place) == 0);
    ensure(place.node != NULL);
    struct sim_node *node = place.node;
    uint32_t kind = node->seen.size == 0 ? 3 : first + random_below(random, 4 - first);
    if (first == 0 && kind != 3 && random_below(random, 2) == 0) {
        kind = 0; /* in small worlds the other kinds take most of a file */
    }
    uint64_t at = kind == 3 ? 0 : offset_of_some(&node->seen, random);
    uint64_t sector = at - at % SIM_SECTOR_SIZE;
    size_t left = node->seen.size - (size_t)sector;
    char byte = '\0';
    if (kind != 3) {
        byte = (char)(node->seen.at[at] ^ (1 << random_below(random, 8)));
    }
    sim_trace(sim, "damage %u at %llu of %s", kind, (unsigned long long)at, path);
    switch (kind) {
    case 0:
        (void)sim_file_write(world, node, &byte, 1, at);
        break;
    case 1:
        (void)sim_file_write(world, node, ZEROS, left < sizeof(ZEROS) ? left : sizeof(ZEROS),
                             sector);
        break;
    case 2:
        (void)sim_file_resize(world, node, at);
        break;
    default:
        sim_tree_move(world, node, place.dir, place.text, NULL, NULL);
        sim_tree_sync(world, place.dir, world->number);
        return;
    }
    sim_file_sync(world, node, world->number, false);
}

bool sim_damage_some(struct sim_engine *sim, enum sim_damage_place place, struct random *random)
{
    struct files files = {.prefixes = place == SIM_DAMAGE_JOURNAL   ? JOURNAL
                                      : place == SIM_DAMAGE_RESULTS ? RESULTS
                                                                    : BATCH};
    char dir[256] = "/spool/journal";
    if (place == SIM_DAMAGE_JOURNAL) {
        list(sim, &files, dir);
    }
    for (uint32_t i = 0; i < sim->accepted_count && place != SIM_DAMAGE_JOURNAL; i++) {
        (void)snprintf(dir, sizeof(dir), "/spool/active/%s", sim->accepted[i]);
        list(sim, &files, dir);
    }
    if (files.count > 0) {
        const char *path = files.paths[random_below(random, files.count)];
        bool has_sums = place != SIM_DAMAGE_RESULTS;
        harm(sim, path, has_sums ? 0 : 1, random);
    }
    return files.count > 0;
}
