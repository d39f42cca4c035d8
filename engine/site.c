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

/*
 * Free slots are a ring of their numbers: workers take at `taken`, control gives at `given`; both
 * only grow, so a number is never mistaken for an earlier one. At most sites_max are in it, so what
 * lies between the two is never written over; who reads a place while others take it fails to take.
 *
 * A site is kept by who makes it until it is in the hash table, so control does not close it
 * before. One that lost the race for its key was never there. It is marked SLOT_LOST for control,
 * who alone gives.
 */
struct site_table {
    struct cds_lfht *by_key;
    struct site *sites;
    uint32_t sites_max;
    _Atomic uint32_t *ring;
    _Atomic uint64_t taken;
    _Atomic uint64_t given;
    _Atomic uint64_t refused;  /* asked for when there was no slot */
    _Atomic uint64_t unserved; /* recipients that were put off for it */
    _Atomic int need;          /* enum site_need */
    /* Control's. */
    uint32_t closed_first; /* index + 1: to be given when the workers' steps have ended */
    uint32_t scan_next;    /* index: where the next part begins */
    uint64_t refused_seen;
    bool is_refused; /* somebody was, since the first part ... */
    bool has_spared; /* ... and some that could be closed were not wanted */
};

enum { SLOT_LOST = 1 }; /* in the low half of `kept`, under an even generation */

/* One slot in so many is to be free: for the sites of the next second. */
enum { FREE_SHARE = 8 };

/* Ages by their doublings, from a second on. */
enum { AGES_COUNT = 40 };

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
    table->ring = calloc(sites_max, sizeof(*table->ring));
    table->by_key = cds_lfht_new_flavor(buckets, buckets, buckets, 0, &urcu_qsbr_flavor, NULL);
    if (table->sites == NULL || table->ring == NULL || table->by_key == NULL) {
        site_table_destroy(table);
        *ret_error = -ENOMEM;
        return NULL;
    }
    for (uint32_t i = 0; i < sites_max; i++) {
        atomic_init(&table->ring[i], i);
    }
    atomic_init(&table->given, sites_max);
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
    free(table->ring);
    free(table->sites);
    free(table);
}

static uint64_t kept_of(uint32_t generation, uint32_t count)
{
    return (uint64_t)generation << 32 | count;
}

static bool is_open(uint64_t kept)
{
    return (kept >> 32) % 2 == 1;
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
    return is_open(atomic_load(&site->kept)) && site->route == key->route &&
           site_is_of(site, key->key, key->name);
}

static struct site *site_find(struct site_table *table, const struct site_key *key)
{
    struct cds_lfht_iter iter;
    cds_lfht_lookup(table->by_key, (unsigned long)key->key, site_matches, key, &iter);
    struct cds_lfht_node *node = cds_lfht_iter_get_node(&iter);
    return node == NULL ? NULL : CONTAINER_OF(node, struct site, node);
}

/* A free slot, or NULL. */
static struct site *slot_take(struct site_table *table)
{
    uint64_t taken = atomic_load(&table->taken);
    uint32_t index;
    do {
        if (taken == atomic_load(&table->given)) {
            atomic_fetch_add(&table->refused, 1);
            return NULL;
        }
        index = atomic_load(&table->ring[taken % table->sites_max]);
    } while (!atomic_compare_exchange_weak(&table->taken, &taken, taken + 1));
    ensure(index < table->sites_max);
    if (table->sites[index].index != index) { /* at its first use: later others may look at it */
        table->sites[index].index = index;
    }
    return &table->sites[index];
}

static void slot_give(struct site_table *table, uint32_t index)
{
    uint64_t given = atomic_load(&table->given);
    ensure(given - atomic_load(&table->taken) < table->sites_max);
    atomic_store(&table->ring[given % table->sites_max], index);
    atomic_store(&table->given, given + 1);
}

/* Nobody else looks at the slot, except for who remembers its `kept` of before. */
static void site_init(struct site *site, const struct site_key *key, struct mono_time now)
{
    ensure(key->route->connections_max > 0);
    struct span name = name_clipped(key->name);
    site->key = key->key;
    site->route = key->route;
    site->name_size = (uint16_t)name.size;
    memset(site->name, 0, sizeof(site->name));
    memcpy(site->name, name.at, name.size);
    limit_init(&site->connections, key->route->connections_max);
    atomic_store(&site->left_ns, now.ns);
    atomic_store(&site->lanes_count, 0);
    atomic_store(&site->holders, 0);
    atomic_store(&site->arrival_ns, 0);
    atomic_store(&site->fresh_count, 0);
    atomic_store(&site->suspended_until_ns, 0);
    atomic_store(&site->suspensions_count, 0);
    cds_lfht_node_init(&site->node);
    uint64_t kept = atomic_load(&site->kept);
    ensure(!is_open(kept));
    atomic_store(&site->kept, kept_of((uint32_t)(kept >> 32) + 1, 1));
}

struct site *site_obtain_xcore(struct site_table *table, uint64_t key, struct span name,
                               const struct config_route *route, struct mono_time now)
{
    ensure(route != NULL);
    const struct site_key whole = {.key = key, .name = name, .route = route};
    struct site *there = site_find(table, &whole);
    if (there != NULL) {
        return there;
    }
    struct site *site = slot_take(table);
    if (site == NULL) {
        return NULL;
    }
    site_init(site, &whole, now);
    ORDER_RELEASE(&site->node);
    there = CONTAINER_OF(
        cds_lfht_add_unique(table->by_key, (unsigned long)key, site_matches, &whole, &site->node),
        struct site, node);
    if (there == site) {
        ensure((uint32_t)atomic_fetch_sub(&site->kept, 1) > 0);
    } else {
        atomic_store(&site->kept, kept_of(site_generation_xcore(site) + 1, SLOT_LOST));
    }
    return there;
}

uint32_t site_generation_xcore(const struct site *site)
{
    return (uint32_t)(atomic_load(&site->kept) >> 32);
}

bool site_keep_xcore(struct site *site, uint32_t generation)
{
    uint64_t kept = atomic_load(&site->kept);
    do {
        if (kept >> 32 != generation || !is_open(kept)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&site->kept, &kept, kept + 1));
    return true;
}

void site_leave_xcore(struct site *site, struct mono_time now)
{
    atomic_store(&site->left_ns, now.ns);
    uint64_t kept = atomic_load(&site->kept);
    uint64_t left;
    do {
        ensure(is_open(kept));
        ensure((uint32_t)kept > 0);
        /* The last one: control, who may be looking at it, sees that it was in use meanwhile. */
        uint32_t generation = (uint32_t)(kept >> 32);
        left = (uint32_t)kept > 1 ? kept - 1 : kept_of(generation + 2, 0);
    } while (!atomic_compare_exchange_weak(&site->kept, &kept, left));
}

/* Room. */

/* How long nobody has kept the site, as a place among the ages; false: it cannot be closed now. */
static bool age_of(const struct site *site, uint64_t kept, struct mono_time now, uint32_t *ret_age)
{
    /* The clocks of two steps may differ by a little. */
    bool is_paid = atomic_load(&site->arrival_ns) <= now.ns - NS_PER_S;
    if (!is_open(kept) || (uint32_t)kept > 0 || !is_paid ||
        limit_count_xcore(&site->connections) > 0 || limit_is_wanted_xcore(&site->connections)) {
        return false;
    }
    int64_t until_ns = atomic_load(&site->suspended_until_ns);
    int64_t left_ns = atomic_load(&site->left_ns);
    int64_t age_ns = now.ns - (left_ns > until_ns ? left_ns : until_ns);
    uint64_t age_s = age_ns > 0 ? (uint64_t)(age_ns / NS_PER_S) : 0;
    uint32_t age = age_s == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(age_s);
    *ret_age = age < AGES_COUNT ? age : AGES_COUNT - 1;
    return true;
}

static void give_closed(struct site_table *table)
{
    while (table->closed_first != 0) {
        struct site *site = &table->sites[table->closed_first - 1];
        table->closed_first = site->closed_next;
        slot_give(table, site->index);
    }
}

static void give_lost(struct site_table *table, struct site *site)
{
    uint64_t kept = atomic_load(&site->kept);
    if (!is_open(kept) && (uint32_t)kept == SLOT_LOST) {
        atomic_store(&site->kept, kept - SLOT_LOST);
        slot_give(table, site->index);
    }
}

static uint32_t slots_free(const struct site_table *table)
{
    uint64_t taken = atomic_load(&table->taken);
    return (uint32_t)(atomic_load(&table->given) - taken);
}

/* Which are to be closed: all that are older than `age`, and so many of that age. */
struct closing {
    uint32_t age;
    uint32_t of_age;
    uint32_t closable; /* those that could be, in all */
};

/* The longest left of the part, `wanted` of them, or as many as can be. */
static struct closing closing_of(struct site_table *table, uint32_t begin, uint32_t end,
                                 uint32_t wanted, struct mono_time now)
{
    uint32_t counts[AGES_COUNT] = {0};
    struct closing closing = {.age = AGES_COUNT};
    for (uint32_t i = begin; i < end; i++) {
        struct site *site = &table->sites[i];
        uint32_t age;
        give_lost(table, site);
        if (age_of(site, atomic_load(&site->kept), now, &age)) {
            counts[age]++;
            closing.closable++;
        }
    }
    uint32_t left = wanted;
    while (closing.age > 0 && left > 0) {
        uint32_t count = counts[--closing.age];
        closing.of_age = count < left ? count : left;
        left -= closing.of_age;
    }
    return closing;
}

static bool close_one(struct site_table *table, struct site *site, struct closing *closing,
                      struct mono_time now)
{
    /* Read before the rate is looked at: who has used the site since has changed it. */
    uint64_t kept = atomic_load(&site->kept);
    uint32_t age;
    if (!age_of(site, kept, now, &age) || age < closing->age ||
        (age == closing->age && closing->of_age == 0)) {
        return false;
    }
    uint64_t closed = kept_of((uint32_t)(kept >> 32) + 1, 0);
    if (!atomic_compare_exchange_strong(&site->kept, &kept, closed)) {
        return false;
    }
    ensure(cds_lfht_del(table->by_key, &site->node) == 0);
    site->closed_next = table->closed_first;
    table->closed_first = site->index + 1;
    closing->of_age -= age == closing->age ? 1 : 0;
    return true;
}

/* The next part of the table; each closes its share of what is wanted, or all of it when somebody
 * has found no slot. Returns how many it has closed. */
static uint32_t close_part(struct site_table *table, uint32_t wanted, uint32_t scan_max,
                           struct mono_time now)
{
    uint32_t count = site_table_count_xcore(table);
    uint32_t begin = table->scan_next < count ? table->scan_next : 0;
    uint32_t end = count - begin < scan_max ? count : begin + scan_max;
    table->scan_next = end < count ? end : 0;
    if (!table->is_refused) {
        wanted = (uint32_t)(((uint64_t)wanted * (end - begin) + count - 1) / count);
    }
    struct closing closing = closing_of(table, begin, end, wanted, now);
    uint32_t closed = 0;
    for (uint32_t i = begin; i < end && closed < wanted; i++) {
        closed += close_one(table, &table->sites[i], &closing, now) ? 1 : 0;
    }
    table->has_spared |= closing.closable > closed;
    return closed;
}

void site_table_reclaim(struct site_table *table, uint32_t scan_max, struct mono_time now)
{
    ensure(scan_max > 0);
    give_closed(table);
    uint64_t refused = atomic_load(&table->refused);
    table->is_refused |= refused != table->refused_seen;
    table->refused_seen = refused;
    uint32_t reserve = table->sites_max / FREE_SHARE + 1;
    uint32_t slots = slots_free(table);
    enum site_need need = SITE_NEED_NONE;
    if (slots < reserve) {
        slots += close_part(table, reserve - slots, scan_max, now);
        if (table->scan_next != 0) {
            return; /* what the workers are to do is said behind the last part */
        }
        need = slots >= reserve || table->has_spared ? SITE_NEED_NONE
               : table->is_refused                   ? SITE_NEED_SESSIONS
                                                     : SITE_NEED_LANES;
    }
    table->is_refused = false;
    table->has_spared = false;
    atomic_store(&table->need, need);
}

enum site_need site_table_need_xcore(const struct site_table *table)
{
    return (enum site_need)atomic_load_explicit(&table->need, memory_order_relaxed);
}

void site_table_note_unserved_xcore(struct site_table *table, uint32_t count)
{
    atomic_fetch_add(&table->unserved, count);
}

uint64_t site_table_unserved_xcore(const struct site_table *table)
{
    return atomic_load(&table->unserved);
}

uint32_t site_table_used_xcore(const struct site_table *table)
{
    return table->sites_max - slots_free(table);
}

uint32_t site_table_count_xcore(const struct site_table *table)
{
    uint64_t taken = atomic_load(&table->taken);
    return taken < table->sites_max ? (uint32_t)taken : table->sites_max;
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

static int64_t rate_tolerance_ns(const struct config_route *route, int64_t interval_ns)
{
    ensure(route->rate_burst > 0);
    uint32_t burst = route->rate_burst + (PLANTED(BURST_ONE_MORE) ? 1 : 0);
    return interval_ns * (burst - 1);
}

uint32_t site_rate_room_xcore(const struct site *site, struct mono_time at,
                              struct mono_time *ret_next)
{
    const struct config_route *route = site->route;
    if (route->rate_per_hour == 0) {
        return UINT32_MAX;
    }
    int64_t interval_ns = rate_interval_ns(route);
    int64_t tolerance_ns = rate_tolerance_ns(route, interval_ns);
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
    int64_t tolerance_ns = rate_tolerance_ns(route, interval_ns);
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

void site_count_fresh_xcore(struct site *site, bool is_fresh)
{
    if (is_fresh) {
        (void)atomic_fetch_add(&site->fresh_count, 1);
    } else {
        ensure(atomic_fetch_sub(&site->fresh_count, 1) > 0);
    }
}

uint32_t site_fresh_xcore(const struct site *site)
{
    return atomic_load_explicit(&site->fresh_count, memory_order_relaxed);
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

void site_rest_end_xcore(struct site *site)
{
    atomic_store(&site->suspended_until_ns, 0);
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

bool site_is_holder_xcore(const struct site *site, uint32_t worker)
{
    return (atomic_load(&site->holders) & UINT64_C(1) << (worker % 64)) != 0;
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
