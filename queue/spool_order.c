/* SPDX-License-Identifier: Apache-2.0 */
/* Orders: what people ask of a batch by creating an empty file, and what of it must outlive a stop.
 */
#include <errno.h>
#include <stdio.h>

#include "queue/spool_priv.h"

static const char *const VERBS[] = {
    [SPOOL_PAUSE] = "pause", [SPOOL_RESUME] = "resume", [SPOOL_CANCEL] = "cancel"};
_Static_assert(COUNT_OF(VERBS) == SPOOL_VERBS_COUNT, "a word for every verb");

static const char ORDER_FILE[] = "order";

/* ID.verb; the id may hold dots, so the verb is behind the last one. */
static bool order_parse(const char *name, struct spool_order *ret_order)
{
    const char *dot = strrchr(name, '.');
    if (dot == NULL || !manifest_id_is_good(span_of(name, (size_t)(dot - name)))) {
        return false;
    }
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        if (strcmp(dot + 1, VERBS[i]) == 0) {
            ret_order->verb = (enum spool_verb)i;
            (void)snprintf(ret_order->id, sizeof(ret_order->id), "%.*s", (int)(dot - name), name);
            return true;
        }
    }
    return false;
}

struct order_listing {
    struct spool *spool;
    struct wall_time now;
    struct spool_orders *orders;
    uint32_t strangers_count;
    char strangers[16][SPOOL_NAME_MAX + 1];
};

/* A name that begins with a dot is one that is still being made, by touch and rename. */
static void on_order_name(void *context, const char *name, enum disk_kind kind)
{
    struct order_listing *listing = context;
    struct spool_orders *orders = listing->orders;
    struct spool_order order;
    if (name[0] == '.' || spool_is_muted(listing->spool, SPOOL_IN_CTL, name, listing->now)) {
        return;
    }
    if (kind == DISK_KIND_FILE && order_parse(name, &order)) {
        if (orders->count < SPOOL_ORDERS_MAX) {
            orders->orders[orders->count++] = order;
        }
    } else if (listing->strangers_count < COUNT_OF(listing->strangers)) {
        (void)snprintf(listing->strangers[listing->strangers_count++], SPOOL_NAME_MAX + 1, "%s",
                       name);
    }
}

int spool_list_orders(struct spool *spool, struct wall_time now, struct spool_orders *ret_orders)
{
    struct order_listing listing = {.spool = spool, .now = now, .orders = ret_orders};
    ret_orders->count = 0;
    ret_orders->unknown_count = 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_IN_CTL], on_order_name, &listing);
    for (uint32_t i = 0; i < listing.strangers_count && result == 0; i++) {
        spool_problem_set(&ret_orders->unknown,
                          "in/ctl/%s: not an order: create an empty file ID.pause, ID.resume or "
                          "ID.cancel",
                          spool_show(listing.strangers[i]).text);
        (void)spool_refuse(spool, SPOOL_IN_CTL, listing.strangers[i], ret_orders->unknown.text,
                           now);
        ret_orders->unknown_count++;
    }
    return result;
}

int spool_order_remove(struct spool *spool, const struct spool_order *order)
{
    char name[MANIFEST_ID_MAX + 16];
    (void)snprintf(name, sizeof(name), "%s.%s", order->id, VERBS[order->verb]);
    int result = disk_unlink(spool->disk, spool->places[SPOOL_IN_CTL], name);
    return result == -ENOENT ? 0 : result;
}

int spool_order_keep(struct spool *spool, int batch_fd, enum spool_verb verb)
{
    if (verb != SPOOL_RESUME) {
        return disk_write_file(spool->disk, batch_fd, ORDER_FILE, span_of_text(VERBS[verb]), true);
    }
    int result = disk_unlink(spool->disk, batch_fd, ORDER_FILE);
    if (result != 0) {
        return result == -ENOENT ? 0 : result;
    }
    return disk_sync(spool->disk, batch_fd);
}

int spool_order_kept(struct spool *spool, int batch_fd, enum spool_verb *ret_verb)
{
    char text[16];
    int fd = disk_open(spool->disk, batch_fd, ORDER_FILE, DISK_READONLY);
    if (fd == -ENOENT) {
        *ret_verb = SPOOL_RESUME;
        return 0;
    }
    if (fd < 0) {
        return fd;
    }
    int64_t size = disk_read(spool->disk, fd, text, sizeof(text), 0);
    disk_close(spool->disk, fd);
    if (size < 0) {
        return (int)size;
    }
    for (size_t i = 0; i < COUNT_OF(VERBS); i++) {
        if (span_equal(span_of(text, (size_t)size), span_of_text(VERBS[i]))) {
            *ret_verb = (enum spool_verb)i;
            return 0;
        }
    }
    *ret_verb = SPOOL_PAUSE; /* it was damaged: people say what they want */
    return 0;
}
