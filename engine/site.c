/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/site.h"

#include <errno.h>
#include <stdlib.h>
#include <urcu/urcu-qsbr.h>

#include "engine/base/list.h"
#include "engine/base/order.h"
#include "engine/base/planted.h"
#include "engine/config.h"

/* What ORDER_ tells the sanitizer here: the node of a site that is added (release) and looked at
 * (acquire), and a limit's stack of waiters. */

/* One hour of nanoseconds over a rate per hour: the interval between two messages. */
static const int64_t HOUR_NS = 3600 * NS_PER_S;

struct site_table {
    struct cds_lfht *by_key;
    struct site *sites;
    uint32_t sites_max;
    _Atomic uint32_t taken; /* slots handed out; may run past sites_max */
};

void limit_init(struct limit *limit, uint32_t max)
{
    ensure(max > 0);
    atomic_init(&limit->count, 0);
    limit->max = max;
    __cds_wfs_init(&limit->waiters);
}

bool limit_take_xcore(struct limit *limit)
{
    ensure(limit->max > 0);
    uint32_t count = atomic_load_explicit(&limit->count, memory_order_relaxed);
    do {
        if (count >= limit->max) {
            return false;
        }
        /* Sequentially consistent: pairs with limit_give_xcore (L1), so that a lane which waits and
         * then tries again cannot miss a give. */
    } while (!atomic_compare_exchange_weak(&limit->count, &count, count + 1));
    return true;
}

void limit_give_xcore(struct limit *limit)
{
    uint32_t before = atomic_fetch_sub(&limit->count, 1); /* L1 */
    ensure(before > 0);
    if (cds_wfs_empty((cds_wfs_stack_ptr_t){._s = &limit->waiters})) {
        return;
    }
    struct cds_wfs_head *head = __cds_wfs_pop_all((cds_wfs_stack_ptr_t){._s = &limit->waiters});
    ORDER_ACQUIRE(&limit->waiters);
    struct cds_wfs_node *node = head == NULL ? NULL : cds_wfs_first(head);
    while (node != NULL) {
        struct cds_wfs_node *next = cds_wfs_next_blocking(node);
        struct limit_waiter *waiter = CONTAINER_OF(node, struct limit_waiter, on_stack);
        inbox_push_xcore(waiter->home, &waiter->node);
        node = next;
    }
}

void limit_wait_xcore(struct limit *limit, struct limit_waiter *waiter)
{
    ensure(waiter->home != NULL);
    cds_wfs_node_init(&waiter->on_stack);
    ORDER_RELEASE(&limit->waiters);
    (void)cds_wfs_push((cds_wfs_stack_ptr_t){._s = &limit->waiters}, &waiter->on_stack);
}

uint32_t limit_count_xcore(const struct limit *limit)
{
    return atomic_load_explicit(&limit->count, memory_order_relaxed);
}

bool limit_is_wanted_xcore(const struct limit *limit)
{
    return !cds_wfs_empty(
        (cds_wfs_stack_ptr_t){._s = (struct __cds_wfs_stack *)(uintptr_t)&limit->waiters});
}

struct site_table *site_table_create(uint32_t sites_max, int *ret_error)
{
    ensure(sites_max > 0);
    struct site_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        *ret_error = -ENOMEM;
        return NULL;
    }
    unsigned long buckets = 64;
    while (buckets < sites_max) {
        buckets *= 2;
    }
    table->sites_max = sites_max;
    table->sites = calloc(sites_max, sizeof(struct site));
    table->by_key = cds_lfht_new_flavor(buckets, buckets, buckets, 0, &urcu_qsbr_flavor, NULL);
    if (table->sites == NULL || table->by_key == NULL) {
        site_table_destroy(table);
        *ret_error = -ENOMEM;
        return NULL;
    }
    return table;
}

void site_table_destroy(struct site_table *table)
{
    if (table == NULL) {
        return;
    }
    if (table->by_key != NULL) {
        struct cds_lfht_iter iter;
        struct cds_lfht_node *node;
        cds_lfht_for_each(table->by_key, &iter, node)
        {
            (void)cds_lfht_del(table->by_key, node);
        }
        (void)cds_lfht_destroy(table->by_key, NULL);
    }
    free(table->sites);
    free(table);
}

struct site_key {
    uint64_t key;
    struct span name;
    const struct config_route *route;
};

static struct span name_clipped(struct span name)
{
    return span_of(name.at, name.size < SITE_NAME_MAX ? name.size : SITE_NAME_MAX);
}

bool site_is_of(const struct site *site, uint64_t key, struct span name)
{
    return site->key == key && span_equal(span_of(site->name, site->name_size), name_clipped(name));
}

static int site_matches(struct cds_lfht_node *node, const void *context)
{
    const struct site_key *key = context;
    struct site *site = CONTAINER_OF(node, struct site, node);
    ORDER_ACQUIRE(node);
    return site->route == key->route && site_is_of(site, key->key, key->name);
}

static struct site *site_find(struct site_table *table, const struct site_key *key)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(table->by_key, (unsigned long)key->key, site_matches, key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node == NULL ? NULL : CONTAINER_OF(node, struct site, node);
}

static void site_init(struct site *site, const struct site_key *key,
                      const struct config_route *route)
{
    ensure(route->connections_max > 0);
    struct span name = name_clipped(key->name);
    site->key = key->key;
    site->route = route;
    site->name_size = (uint16_t)name.size;
    memcpy(site->name, name.at, name.size);
    limit_init(&site->connections, route->connections_max);
    cds_lfht_node_init(&site->node);
}

struct site *site_obtain_xcore(struct site_table *table, uint64_t key, struct span name,
                               const struct config_route *route)
{
    ensure(route != NULL);
    const struct site_key whole = {.key = key, .name = name, .route = route};
    struct site *site = site_find(table, &whole);
    if (site != NULL || atomic_load(&table->taken) >= table->sites_max) {
        return site;
    }
    uint32_t index = atomic_fetch_add(&table->taken, 1);
    if (index >= table->sites_max) {
        return NULL;
    }
    site = &table->sites[index];
    site->index = index;
    site_init(site, &whole, route);
    ORDER_RELEASE(&site->node);
    struct cds_lfht_node *there =
        cds_lfht_add_unique(table->by_key, (unsigned long)key, site_matches, &whole, &site->node);
    /* Another worker was first: our slot stays unused, one of sites_max lost for good. It can
     * happen once per worker and site. */
    return CONTAINER_OF(there, struct site, node);
}

uint32_t site_table_count_xcore(const struct site_table *table)
{
    uint32_t taken = atomic_load(&table->taken);
    return taken < table->sites_max ? taken : table->sites_max;
}

struct site *site_at_xcore(const struct site_table *table, uint32_t index)
{
    ensure(index < table->sites_max);
    return &table->sites[index];
}

/* Between two messages; rounded up: rather a little below the rate than above it. */
static int64_t rate_interval_ns(const struct config_route *route)
{
    int64_t per_hour = (int64_t)route->rate_per_hour;
    return (HOUR_NS + per_hour - 1) / per_hour;
}

uint32_t site_rate_room_xcore(const struct site *site, struct mono_time at,
                              struct mono_time *ret_next)
{
    const struct config_route *route = site->route;
    if (route->rate_per_hour == 0) {
        return UINT32_MAX;
    }
    ensure(route->rate_burst > 0);
    int64_t interval_ns = rate_interval_ns(route);
    int64_t tolerance_ns = interval_ns * (route->rate_burst - 1);
    int64_t arrival_ns = atomic_load_explicit(&site->arrival_ns, memory_order_relaxed);
    int64_t room_ns = tolerance_ns - (arrival_ns > at.ns ? arrival_ns - at.ns : 0);
    if (room_ns < 0) {
        ret_next->ns = arrival_ns - tolerance_ns;
        return 0;
    }
    return (uint32_t)(room_ns / interval_ns) + 1;
}

bool site_rate_take_xcore(struct site *site, uint32_t count, struct mono_time now,
                          struct mono_time *ret_next)
{
    ensure(count > 0);
    const struct config_route *route = site->route;
    if (route->rate_per_hour == 0) {
        return true;
    }
    int64_t interval_ns = rate_interval_ns(route);
    uint32_t burst = route->rate_burst + (PLANTED(BURST_ONE_MORE) ? 1 : 0);
    int64_t tolerance_ns = interval_ns * (burst - 1);
    int64_t arrival_ns = atomic_load_explicit(&site->arrival_ns, memory_order_relaxed);
    int64_t next_ns;
    do {
        int64_t base_ns = arrival_ns > now.ns ? arrival_ns : now.ns;
        if (base_ns - now.ns > tolerance_ns) {
            ret_next->ns = base_ns - tolerance_ns;
            return false;
        }
        next_ns = base_ns + interval_ns * (PLANTED(RATE_BY_GROUP) ? 1 : count);
    } while (!atomic_compare_exchange_weak_explicit(&site->arrival_ns, &arrival_ns, next_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

struct mono_time site_suspended_until_xcore(const struct site *site, struct mono_time now)
{
    int64_t until_ns = atomic_load_explicit(&site->suspended_until_ns, memory_order_relaxed);
    return (struct mono_time){.ns = until_ns > now.ns ? until_ns : 0};
}

void site_suspend_xcore(struct site *site, struct mono_time now, struct random *random)
{
    ensure(site->route->suspend_first_s > 0);
    int64_t until_ns = atomic_load(&site->suspended_until_ns);
    if (until_ns > now.ns) {
        return;
    }
    uint32_t doublings = atomic_load(&site->suspensions_count);
    uint64_t rest_s = (uint64_t)site->route->suspend_first_s << (doublings < 20 ? doublings : 20);
    if (rest_s > site->route->suspend_max_s) {
        rest_s = site->route->suspend_max_s;
    }
    int64_t rest_ns = (int64_t)rest_s * NS_PER_S;
    rest_ns -= (int64_t)(((uint64_t)rest_ns / 5 >> 16) * random_below(random, 65536));
    if (atomic_compare_exchange_strong(&site->suspended_until_ns, &until_ns, now.ns + rest_ns)) {
        atomic_fetch_add(&site->suspensions_count, 1);
    }
}

void site_reached_xcore(struct site *site)
{
    if (atomic_load_explicit(&site->suspensions_count, memory_order_relaxed) != 0) {
        atomic_store(&site->suspensions_count, 0);
        atomic_store(&site->suspended_until_ns, 0);
    }
}

void site_hold_xcore(struct site *site, uint32_t worker, bool is_holding)
{
    uint64_t bit = UINT64_C(1) << (worker % 64);
    if (is_holding) {
        (void)atomic_fetch_or(&site->holders, bit);
    } else {
        (void)atomic_fetch_and(&site->holders, ~bit);
    }
}

uint32_t site_holder_xcore(const struct site *site, uint32_t worker)
{
    uint64_t holders = atomic_load(&site->holders) & ~(UINT64_C(1) << (worker % 64));
    return holders == 0 ? UINT32_MAX : (uint32_t)__builtin_ctzll(holders);
}

void site_count_lane_xcore(struct site *site, bool is_busy)
{
    if (is_busy) {
        (void)atomic_fetch_add(&site->lanes_count, 1);
    } else {
        ensure(atomic_fetch_sub(&site->lanes_count, 1) > 0);
    }
}

uint32_t site_lanes_xcore(const struct site *site)
{
    return atomic_load_explicit(&site->lanes_count, memory_order_relaxed);
}
