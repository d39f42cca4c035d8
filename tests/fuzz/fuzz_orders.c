/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of people. The input is lines: the first is the text of a batch's file "order", each other
 * one a name in in/ctl, where all of the group may put what they like; one that ends in '/' is a
 * directory, in '@' a link. What is taken is an order that is removed by the name it came by; all
 * else is told as unknown, or is still being made. Both lists are bounded.
 */
#include <stdio.h>

#include "queue/spool.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/sim_disk.h"

enum { PATH_SIZE = 32 + SPOOL_NAME_MAX };

static const char *const VERBS[] = {[SPOOL_PAUSE] = "pause",
                                    [SPOOL_RESUME] = "resume",
                                    [SPOOL_CANCEL] = "cancel",
                                    [SPOOL_RETRY] = "retry"};
_Static_assert(COUNT_OF(VERBS) == SPOOL_VERBS_COUNT, "a word for every verb");

static void put_file(struct disk *disk, const char *path, struct span content)
{
    int fd = disk_open(disk, DISK_ROOT, path, DISK_READWRITE | DISK_CREATE);
    if (fd >= 0) {
        ensure(content.size == 0 ||
               disk_write(disk, fd, content.at, content.size, 0) == (int64_t)content.size);
        disk_close(disk, fd);
    }
}

/* False: no disk has such a name. */
static bool put_name(struct sim_disk *world, struct disk *disk, struct span name)
{
    char path[PATH_SIZE];
    char last = name.size > 0 ? name.at[name.size - 1] : '\0';
    bool is_odd = last == '/' || last == '@';
    name.size -= is_odd ? 1 : 0;
    bool is_name = name.size > 0 && name.size <= SPOOL_NAME_MAX &&
                   span_find(name, '/') == name.size && span_find(name, '\0') == name.size &&
                   !span_equal(name, SPAN(".")) && !span_equal(name, SPAN(".."));
    if (!is_name) {
        return false;
    }
    (void)snprintf(path, sizeof(path), "/spool/in/ctl/%.*s", (int)name.size, name.at);
    if (last == '/') {
        (void)disk_mkdir(disk, DISK_ROOT, path);
    } else if (last == '@') {
        (void)sim_disk_put_odd(world, path, DISK_KIND_LINK);
    } else {
        put_file(disk, path, SPAN("not looked at"));
    }
    return true;
}

static bool is_there(struct disk *disk, const struct spool_order *order)
{
    char path[PATH_SIZE];
    struct disk_stat stat;
    (void)snprintf(path, sizeof(path), "/spool/in/ctl/%s.%s", order->id, VERBS[order->verb]);
    return disk_stat_at(disk, DISK_ROOT, path, &stat) == 0 && stat.kind == DISK_KIND_FILE;
}

/* All orders are taken, call by call; nothing that could be moved is met twice. */
static void check_orders(struct spool *spool, struct disk *disk, uint32_t names_count)
{
    static struct spool_orders orders;
    const struct wall_time now = {.ns = 1000 * NS_PER_S};
    uint32_t met = 0;
    do {
        ensure(spool_list_orders(spool, now, NULL, &orders) == 0);
        ensure(orders.count <= SPOOL_ORDERS_MAX);
        ensure(orders.unknown_count == 0 || orders.unknown.text[0] != '\0');
        for (uint32_t i = 0; i < orders.count; i++) {
            const struct spool_order *order = &orders.orders[i];
            ensure((unsigned)order->verb < SPOOL_VERBS_COUNT);
            ensure(manifest_id_is_good(span_of_text(order->id)));
            ensure(is_there(disk, order));
            ensure(spool_order_remove(spool, order) == 0);
            ensure(!is_there(disk, order));
        }
        met += orders.count + orders.unknown_count;
        ensure(met <= names_count);
    } while (orders.count + orders.unknown_count > 0);
}

static void check_kept(struct spool *spool, struct disk *disk, struct span text)
{
    enum spool_verb verb;
    ensure(disk_mkdir(disk, DISK_ROOT, "/spool/active/a.batch") == 0);
    put_file(disk, "/spool/active/a.batch/order", text);
    int fd = disk_open(disk, DISK_ROOT, "/spool/active/a.batch", DISK_READONLY | DISK_DIRECTORY);
    ensure(fd >= 0);
    if (spool_order_kept(spool, fd, &verb) == 0) {
        ensure((unsigned)verb < SPOOL_VERBS_COUNT);
        ensure(span_equal(text, span_of_text(VERBS[verb])) || verb == SPOOL_PAUSE);
        ensure(spool_order_keep(spool, fd, verb) == 0);
    }
    disk_close(disk, fd);
}

void fuzz_one(struct span input)
{
    struct clock_manual clock;
    clock_manual_init(&clock, (struct mono_time){.ns = NS_PER_S},
                      (struct wall_time){.ns = 1000 * NS_PER_S});
    struct sim_disk *world = sim_disk_create(&clock.clock, 1, 0);
    struct disk *disk = sim_disk_view(world, NULL);
    const struct spool_config config = {
        .disk = disk, .root = "/spool", .file_size_max = 1 << 20, .message_size_max = 1 << 20};
    struct spool spool;
    struct spool_problem problem;
    ensure(disk_mkdir(disk, DISK_ROOT, "/spool") == 0);
    ensure(spool_open(&spool, &config, &problem) == 0);
    struct cursor cursor = cursor_of(input);
    struct span text = SPAN_NONE;
    struct span name;
    (void)cursor_take_line(&cursor, &text);
    uint32_t names_count = 0;
    while (cursor_take_line(&cursor, &name)) {
        names_count += put_name(world, disk, name) ? 1 : 0;
    }
    check_kept(&spool, disk, text);
    check_orders(&spool, disk, names_count);
    spool_close(&spool);
    disk_destroy(disk);
    sim_disk_destroy(world);
}
