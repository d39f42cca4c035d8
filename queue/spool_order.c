/* SPDX-License-Identifier: Apache-2.0 */
/* Orders: what people ask of a batch by creating an empty file, and what of it must outlive a stop.
 */
#include <errno.h>
#include <stdio.h>

#include "queue/spool_priv.h"

static const char *const VERBS[] = {[SPOOL_PAUSE] = "pause",
                                    [SPOOL_RESUME] = "resume",
                                    [SPOOL_CANCEL] = "cancel",
                                    [SPOOL_RETRY] = "retry"};
_Static_assert(COUNT_OF(VERBS) == SPOOL_VERBS_COUNT, "a word for every verb");

static const char ORDER_FILE[] = "order";
static const char RETRIED_FILE[] = "retried";

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
    const struct spool_order_judge *judge;
    struct spool_orders *orders;
    uint32_t ended_count;
    struct spool_order ended[SPOOL_ORDERS_MAX];
    uint32_t nobodys_count;
    struct spool_order nobodys[SPOOL_ORDERS_MAX];
    uint32_t strangers_count;
    char strangers[16][SPOOL_NAME_MAX + 1];
};

static int order_compare(const struct spool_order *a, const struct spool_order *b)
{
    int result = strcmp(a->id, b->id);
    return result != 0 ? result : (int)a->verb - (int)b->verb;
}

/* Among the least of those behind `after`, in order. */
static void order_take(struct spool_orders *orders, const struct spool_order *order)
{
    uint32_t at = orders->count;
    bool is_full = at == SPOOL_ORDERS_MAX;
    if (order_compare(order, &orders->after) <= 0 ||
        (is_full && order_compare(order, &orders->orders[at - 1]) >= 0)) {
        return;
    }
    at -= is_full ? 1 : 0;
    orders->count = at + 1;
    for (; at > 0 && order_compare(order, &orders->orders[at - 1]) < 0; at--) {
        orders->orders[at] = orders->orders[at - 1];
    }
    orders->orders[at] = *order;
}

static void order_sort(struct order_listing *listing, const struct spool_order *order)
{
    const struct spool_order_judge *judge = listing->judge;
    switch (judge == NULL ? SPOOL_ORDER_TAKE : judge->fate(judge->context, order->id)) {
    case SPOOL_ORDER_TAKE:
        order_take(listing->orders, order);
        return;
    case SPOOL_ORDER_LEAVE:
        return;
    case SPOOL_ORDER_ENDED:
        if (listing->ended_count < SPOOL_ORDERS_MAX) {
            listing->ended[listing->ended_count++] = *order;
        }
        return;
    case SPOOL_ORDER_NOBODY:
        if (listing->nobodys_count < SPOOL_ORDERS_MAX) {
            listing->nobodys[listing->nobodys_count++] = *order;
        }
        return;
    }
}

/* A name that begins with a dot is one that is still being made, by touch and rename. */
static void on_order_name(void *context, const char *name, enum disk_kind kind)
{
    struct order_listing *listing = context;
    struct spool_order order;
    if (name[0] == '.' || spool_is_muted(listing->spool, SPOOL_IN_CTL, name, listing->now)) {
        return;
    }
    if (kind == DISK_KIND_FILE && order_parse(name, &order)) {
        order_sort(listing, &order);
    } else if (listing->strangers_count < COUNT_OF(listing->strangers)) {
        (void)snprintf(listing->strangers[listing->strangers_count++], SPOOL_NAME_MAX + 1, "%s",
                       name);
    }
}

static void refuse_order(struct order_listing *listing, const char *name, const char *words)
{
    struct spool_orders *orders = listing->orders;
    spool_problem_set(&orders->unknown, "in/ctl/%s: %s", spool_show(name).text, words);
    (void)spool_refuse(listing->spool, SPOOL_IN_CTL, name, orders->unknown.text, listing->now);
    orders->unknown_count++;
}

static void order_name(const struct spool_order *order, char name[MANIFEST_ID_MAX + 16])
{
    (void)snprintf(name, MANIFEST_ID_MAX + 16, "%s.%s", order->id, VERBS[order->verb]);
}

/* An order that is made right behind its batch may be listed when the batch was not there yet. One
 * from the future was made by another clock. */
static bool may_be_early(const struct order_listing *listing, const char *name)
{
    struct spool *spool = listing->spool;
    struct disk_stat stat;
    if (disk_stat_at(spool->disk, spool->places[SPOOL_IN_CTL], name, &stat) != 0) {
        return true; /* looked at again at the next listing */
    }
    int64_t age_ns = listing->now.ns - stat.mtime_ns;
    return age_ns >= 0 && age_ns < SPOOL_ORDER_WAIT_S * NS_PER_S;
}

static void drop_some(struct order_listing *listing)
{
    char name[MANIFEST_ID_MAX + 16];
    for (uint32_t i = 0; i < listing->strangers_count; i++) {
        refuse_order(listing, listing->strangers[i],
                     "not an order: create an empty file ID.pause, ID.resume, ID.cancel or "
                     "ID.retry");
    }
    for (uint32_t i = 0; i < listing->nobodys_count; i++) {
        order_name(&listing->nobodys[i], name);
        if (may_be_early(listing, name)) {
            continue;
        }
        refuse_order(listing, name,
                     "no batch of this id is here, or was accepted lately; the id is the one that "
                     "ramjet submit printed, without .batch, and the case of letters counts");
    }
    for (uint32_t i = 0; i < listing->ended_count; i++) {
        if (spool_order_remove(listing->spool, &listing->ended[i]) != 0) {
            order_name(&listing->ended[i], name);
            spool_mute(listing->spool, SPOOL_IN_CTL, name, listing->now);
        }
    }
}

int spool_list_orders(struct spool *spool, struct wall_time now,
                      const struct spool_order_judge *judge, struct spool_orders *orders)
{
    struct order_listing listing = {.spool = spool, .now = now, .judge = judge, .orders = orders};
    orders->count = 0;
    orders->next = 0;
    orders->unknown_count = 0;
    int result = disk_list(spool->disk, spool->places[SPOOL_IN_CTL], on_order_name, &listing);
    if (result != 0) {
        return result;
    }
    bool is_full = orders->count == SPOOL_ORDERS_MAX;
    orders->after = is_full ? orders->orders[SPOOL_ORDERS_MAX - 1] : (struct spool_order){0};
    drop_some(&listing);
    return 0;
}

int spool_order_remove(struct spool *spool, const struct spool_order *order)
{
    char name[MANIFEST_ID_MAX + 16];
    order_name(order, name);
    int result = disk_unlink(spool->disk, spool->places[SPOOL_IN_CTL], name);
    return result == -ENOENT ? 0 : result;
}

int spool_order_keep(struct spool *spool, int batch_fd, enum spool_verb verb)
{
    if (verb == SPOOL_RETRY) {
        return disk_write_file(spool->disk, batch_fd, RETRIED_FILE, SPAN(""), true);
    }
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
        bool is_kept_here = i != SPOOL_RETRY;
        if (is_kept_here && span_equal(span_of(text, (size_t)size), span_of_text(VERBS[i]))) {
            *ret_verb = (enum spool_verb)i;
            return 0;
        }
    }
    *ret_verb = SPOOL_PAUSE; /* it was damaged: people say what they want */
    return 0;
}

int spool_order_was_retried(struct spool *spool, int batch_fd)
{
    struct disk_stat stat;
    int result = disk_stat_at(spool->disk, batch_fd, RETRIED_FILE, &stat);
    return result == 0 ? 1 : result == -ENOENT ? 0 : result;
}
