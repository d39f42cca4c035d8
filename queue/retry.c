/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/retry.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <urcu/wfstack.h>

#include "engine/base/ensure.h"
#include "engine/base/order.h"
#include "engine/base/planted.h"

/*
 * The hand is the last second that was taken. With H = hand / RETRY_COARSE_S, a recipient due at d
 *
 *   d <= hand                       goes to `late`, which every take empties first;
 *   d / RETRY_COARSE_S <= H + 1     goes to the fine slot of d: at most RETRY_FINE_SLOTS - 1 ahead
 *                                   of the hand, so no two seconds in use share a slot;
 *   otherwise                       goes to the coarse slot of d, at most H + RETRY_COARSE_SLOTS
 * + 1.
 *
 * Coarse slot c is opened when the hand comes to (c - 1) * RETRY_COARSE_S; from then on d belongs
 * to the fine slots, by the same rule.
 *
 * Nothing is lost, and this is why. Who pushes: (P1) reads the hand, (P2) pushes by an exchange,
 * (P3) reads the hand again. Who takes: (T1) moves the hand by a compare-and-exchange, (T2) empties
 * every slot that the hand moved over. All four are sequentially consistent (liburcu's exchange is
 * a full barrier). If P3 finds the hand still before the slot, then P2 came before T1, so T2 finds
 * the node. If not, T2 may have missed it: the pusher empties the slot itself and leaves the list
 * as a rest. What belonged to the slot's next turn is pushed back by whoever takes the rest.
 *
 * A rest is a list that somebody emptied and could not or did not want to walk to its end: because
 * RETRY_TAKE_MAX was reached, or because the next node's push is half done (its link is not yet
 * written, and no other list can hold such a node). Rests are handed out first. There can be no
 * more half-done pushes than threads, so RETRY_RESTS_MAX cells suffice; when they are all full the
 * list is walked to its end by spinning over the few instructions that such a push still needs.
 *
 * A slot whose count is not 0 has its mark, so that who looks for the next due time need not look
 * at each slot. Who pushes counts (M1), then sets the mark if it is not there (M2); who brings the
 * count to 0 takes the mark away (M3), then looks at the count again (M4). All are sequentially
 * consistent: either M2 comes behind M3 and sets the mark, or M4 sees what M1 has counted. A mark
 * may be left over, and is then believed by nobody: the count decides.
 *
 * The hand may be set back (the clock was): slots between are empty, what lies ahead is then met
 * early and pushed again.
 */
enum { RETRY_RESTS_MAX = 128, LATE_SLOT = RETRY_SLOTS - 1 };

struct retry_slot {
    struct __cds_wfs_stack stack;
    _Atomic uint64_t count; /* pushed here and not yet handed out */
};

enum rest_state { REST_FREE, REST_BUSY, REST_FULL };

struct retry_rest {
    _Atomic uint32_t state;
    uint32_t slot; /* whose count the nodes are in */
    struct cds_wfs_node *first;
};

struct retry_wheel {
    _Atomic uint32_t hand_s;
    char pad[60];
    _Atomic uint32_t rests_count;
    struct retry_rest rests[RETRY_RESTS_MAX];
    _Atomic uint64_t marks[(RETRY_SLOTS + 63) / 64]; /* a bit a slot: may not be empty */
    struct retry_slot slots[RETRY_SLOTS];
};

/* A recipient begins with its node, a node with its link, and both kinds of link are one pointer.
 */
_Static_assert(offsetof(struct recipient, node) == 0, "node is first");
_Static_assert(sizeof(struct inbox_node) == sizeof(struct cds_wfs_node), "links are alike");

struct retry_wheel *retry_wheel_create(uint32_t now_s)
{
    size_t size = (sizeof(struct retry_wheel) + 63) & ~(size_t)63;
    struct retry_wheel *wheel = aligned_alloc(64, size);
    if (wheel == NULL) {
        return NULL;
    }
    atomic_init(&wheel->hand_s, now_s);
    atomic_init(&wheel->rests_count, 0);
    for (size_t i = 0; i < RETRY_RESTS_MAX; i++) {
        atomic_init(&wheel->rests[i].state, REST_FREE);
    }
    for (size_t i = 0; i < COUNT_OF(wheel->marks); i++) {
        atomic_init(&wheel->marks[i], 0);
    }
    for (size_t i = 0; i < RETRY_SLOTS; i++) {
        __cds_wfs_init(&wheel->slots[i].stack);
        atomic_init(&wheel->slots[i].count, 0);
    }
    return wheel;
}

void retry_wheel_destroy(struct retry_wheel *wheel, bool is_abandoned)
{
    if (wheel == NULL) {
        return;
    }
    ensure(is_abandoned || retry_count_xcore(wheel) == 0);
    free(wheel);
}

static uint32_t slot_fine(uint32_t second)
{
    return second % RETRY_FINE_SLOTS;
}

static uint32_t slot_coarse(uint32_t coarse)
{
    return RETRY_FINE_SLOTS + coarse % RETRY_COARSE_SLOTS;
}

/* By the count, which grows before the push: 0 means that no push was finished. Nodes in a rest
 * count too, so a slot may be empty all the same. */
static bool slot_is_empty(const struct retry_wheel *wheel, uint32_t slot)
{
    return atomic_load(&wheel->slots[slot].count) == 0;
}

/* The whole list, or NULL. */
static struct cds_wfs_node *slot_empty(struct retry_wheel *wheel, uint32_t slot)
{
    struct cds_wfs_head *head = __cds_wfs_pop_all(&wheel->slots[slot].stack);
    ORDER_ACQUIRE(&wheel->slots[slot]);
    return head == NULL ? NULL : cds_wfs_first(head);
}

static void slot_mark(struct retry_wheel *wheel, uint32_t slot)
{
    uint64_t bit = UINT64_C(1) << (slot % 64);
    if ((atomic_load(&wheel->marks[slot / 64]) & bit) == 0) {
        (void)atomic_fetch_or(&wheel->marks[slot / 64], bit);
    }
}

static void slot_push(struct retry_wheel *wheel, uint32_t slot, struct cds_wfs_node *node)
{
    (void)atomic_fetch_add(&wheel->slots[slot].count, 1); /* M1 */
    slot_mark(wheel, slot);                               /* M2 */
    node->next = NULL;
    ORDER_RELEASE(&wheel->slots[slot]);
    (void)cds_wfs_push(&wheel->slots[slot].stack, node);
}

static void slot_count_down(struct retry_wheel *wheel, uint32_t slot, uint64_t n)
{
    uint64_t before = atomic_fetch_sub(&wheel->slots[slot].count, n);
    ensure(before >= n);
    if (before == n) {
        (void)atomic_fetch_and(&wheel->marks[slot / 64], ~(UINT64_C(1) << (slot % 64))); /* M3 */
        if (!slot_is_empty(wheel, slot)) {                                               /* M4 */
            slot_mark(wheel, slot);
        }
    }
}

/* Every cell is taken: the nodes, one by one, become late. */
static __attribute__((noinline)) void rest_make_late(struct retry_wheel *wheel, uint32_t slot,
                                                     struct cds_wfs_node *node)
{
    odd(retry_rests_are_full);
    while (node != NULL) {
        struct cds_wfs_node *next;
        do {
            next = cds_wfs_next_nonblocking(node);
        } while (next == CDS_WFS_WOULDBLOCK);
        slot_count_down(wheel, slot, 1);
        slot_push(wheel, LATE_SLOT, node);
        node = next;
    }
}

/* R1: the state is released after the cell was written; pairs with R2. */
static void rest_put(struct retry_wheel *wheel, uint32_t slot, struct cds_wfs_node *first)
{
    for (size_t i = 0; i < RETRY_RESTS_MAX; i++) {
        struct retry_rest *rest = &wheel->rests[i];
        uint32_t state = REST_FREE;
        if (atomic_load_explicit(&rest->state, memory_order_relaxed) == REST_FREE &&
            atomic_compare_exchange_strong(&rest->state, &state, REST_BUSY)) {
            rest->slot = slot;
            rest->first = first;
            (void)atomic_fetch_add(&wheel->rests_count, 1);
            atomic_store_explicit(&rest->state, REST_FULL, memory_order_release); /* R1 */
            return;
        }
    }
    rest_make_late(wheel, slot, first);
}

/* Some rest, with the slot whose count it is in; NULL when there is none. */
static struct cds_wfs_node *rest_take(struct retry_wheel *wheel, uint32_t *ret_slot)
{
    if (atomic_load(&wheel->rests_count) == 0) {
        return NULL;
    }
    for (size_t i = 0; i < RETRY_RESTS_MAX; i++) {
        struct retry_rest *rest = &wheel->rests[i];
        uint32_t state = REST_FULL;
        if (atomic_load_explicit(&rest->state, memory_order_relaxed) == REST_FULL &&
            atomic_compare_exchange_strong(&rest->state, &state, REST_BUSY)) { /* R2 */
            struct cds_wfs_node *first = rest->first;
            *ret_slot = rest->slot;
            (void)atomic_fetch_sub(&wheel->rests_count, 1);
            atomic_store_explicit(&rest->state, REST_FREE, memory_order_release);
            return first;
        }
    }
    return NULL;
}

/* Up to `count_max` nodes of an emptied list go to the chain, what is left becomes a rest. False:
 * not one could be had yet. */
static bool list_hand_out(struct retry_wheel *wheel, uint32_t slot, struct cds_wfs_node *node,
                          uint64_t count_max, struct inbox_chain *chain)
{
    uint64_t count = 0;
    while (node != NULL && count < count_max) {
        struct cds_wfs_node *next = cds_wfs_next_nonblocking(node);
        if (next == CDS_WFS_WOULDBLOCK) {
            break;
        }
        inbox_chain_add(chain, (struct inbox_node *)(void *)node);
        count++;
        node = next;
    }
    slot_count_down(wheel, slot, count);
    if (node != NULL) {
        rest_put(wheel, slot, node);
    }
    return count > 0;
}

/* Where a recipient due at `due_s` belongs by this hand. `ret_opens_s`: the second at which the
 * hand reaches that slot. */
static uint32_t slot_of(uint32_t due_s, uint32_t hand_s, uint32_t *ret_opens_s)
{
    if (due_s <= hand_s) {
        *ret_opens_s = UINT32_MAX;
        return LATE_SLOT;
    }
    uint32_t coarse = due_s / RETRY_COARSE_S;
    uint32_t opened = hand_s / RETRY_COARSE_S + 1;
    if (coarse <= opened) {
        *ret_opens_s = due_s;
        return slot_fine(due_s);
    }
    if (coarse - opened > RETRY_COARSE_SLOTS) {
        coarse = opened + RETRY_COARSE_SLOTS;
    }
    coarse += PLANTED(WHEEL_LATE) ? 2 : 0;
    *ret_opens_s = (coarse - 1) * RETRY_COARSE_S;
    return slot_coarse(coarse);
}

void retry_push_xcore(struct retry_wheel *wheel, struct recipient *recipient)
{
    uint32_t opens_s;
    uint32_t slot = slot_of(recipient->due_s, atomic_load(&wheel->hand_s), &opens_s); /* P1 */
    slot_push(wheel, slot, (struct cds_wfs_node *)(void *)&recipient->node.link);     /* P2 */
    /* From here on the recipient may belong to a taker already. */
    if (__builtin_expect(atomic_load(&wheel->hand_s) >= opens_s, 0)) { /* P3 */
        struct cds_wfs_node *first = slot_empty(wheel, slot);
        if (first != NULL) {
            rest_put(wheel, slot, first);
        }
    }
}

/* The coarse slot that the hand opens at this second, or LATE_SLOT when it opens none. */
static uint32_t slot_opened_at(uint32_t second)
{
    return second % RETRY_COARSE_S == 0 ? slot_coarse(second / RETRY_COARSE_S + 1) : LATE_SLOT;
}

/* The first second behind the hand, up to now, where something lies; else the last one looked at.
 */
static uint32_t hand_target(const struct retry_wheel *wheel, uint32_t hand_s, uint32_t now_s)
{
    uint32_t last_s = now_s - hand_s > RETRY_FINE_SLOTS ? hand_s + RETRY_FINE_SLOTS : now_s;
    for (uint32_t at_s = hand_s + 1; at_s < last_s; at_s++) {
        uint32_t opened = slot_opened_at(at_s);
        if (!slot_is_empty(wheel, slot_fine(at_s)) ||
            (opened != LATE_SLOT && !slot_is_empty(wheel, opened))) {
            return at_s;
        }
    }
    return last_s;
}

/* T2 for a slot that looked empty when the target was chosen: somebody may have pushed meanwhile.
 */
static void slot_look_again(struct retry_wheel *wheel, uint32_t slot)
{
    if (!slot_is_empty(wheel, slot)) {
        struct cds_wfs_node *first = slot_empty(wheel, slot);
        if (first != NULL) {
            rest_put(wheel, slot, first);
        }
    }
}

/* The hand was moved from `from_s` to `to_s`: everything there is the caller's. */
static bool hand_moved(struct retry_wheel *wheel, uint32_t from_s, uint32_t to_s,
                       struct inbox_chain *chain)
{
    for (uint32_t at_s = from_s + 1; at_s <= to_s; at_s++) {
        uint32_t opened = slot_opened_at(at_s);
        if (opened != LATE_SLOT) {
            slot_look_again(wheel, opened);
        }
        if (at_s < to_s) {
            slot_look_again(wheel, slot_fine(at_s));
        }
    }
    struct cds_wfs_node *first = slot_empty(wheel, slot_fine(to_s));
    return first != NULL && list_hand_out(wheel, slot_fine(to_s), first, RETRY_TAKE_MAX, chain);
}

static bool rest_hand_out(struct retry_wheel *wheel, struct inbox_chain *chain)
{
    uint32_t slot;
    struct cds_wfs_node *first = rest_take(wheel, &slot);
    return first != NULL && list_hand_out(wheel, slot, first, RETRY_TAKE_MAX, chain);
}

static bool late_hand_out(struct retry_wheel *wheel, struct inbox_chain *chain)
{
    if (slot_is_empty(wheel, LATE_SLOT)) {
        return false;
    }
    struct cds_wfs_node *first = slot_empty(wheel, LATE_SLOT);
    return first != NULL && list_hand_out(wheel, LATE_SLOT, first, RETRY_TAKE_MAX, chain);
}

/* Each turn of the loop brings the hand nearer to now, by this worker or by another. */
bool retry_take_xcore(struct retry_wheel *wheel, uint32_t now_s, struct inbox_chain *chain)
{
    for (;;) {
        uint32_t hand_s = atomic_load(&wheel->hand_s);
        if (hand_s > now_s) {
            if (hand_s - now_s <= RETRY_CLOCK_SLACK_S) {
                return false;
            }
            odd(retry_clock_set_back);
            (void)atomic_compare_exchange_strong(&wheel->hand_s, &hand_s, now_s);
            continue;
        }
        if (rest_hand_out(wheel, chain) || late_hand_out(wheel, chain)) {
            return true;
        }
        if (hand_s == now_s) {
            return false;
        }
        uint32_t to_s = hand_target(wheel, hand_s, now_s);
        uint32_t from_s = hand_s;
        if (atomic_compare_exchange_strong(&wheel->hand_s, &hand_s, to_s) && /* T1 */
            hand_moved(wheel, from_s, to_s, chain)) {                        /* T2 */
            return true;
        }
    }
}

/* The first slot from `slot` on that is not empty, or `end`. */
static uint32_t slot_next(const struct retry_wheel *wheel, uint32_t slot, uint32_t end)
{
    while (slot < end) {
        uint64_t marks = atomic_load(&wheel->marks[slot / 64]) >> (slot % 64);
        if (marks == 0) {
            slot = (slot / 64 + 1) * 64;
            continue;
        }
        slot += (uint32_t)__builtin_ctzll(marks);
        if (slot < end && !slot_is_empty(wheel, slot)) {
            return slot;
        }
        slot++;
    }
    return end;
}

/* How far the first slot that is not empty lies behind the `at`-th, on a ring of `count` slots that
 * begins at `base`; `count` when all are empty. */
static uint32_t ring_next(const struct retry_wheel *wheel, uint32_t base, uint32_t count,
                          uint32_t at)
{
    uint32_t slot = slot_next(wheel, base + at, base + count);
    if (slot < base + count) {
        return slot - base - at;
    }
    slot = slot_next(wheel, base, base + at);
    return slot < base + at ? slot - base + count - at : count;
}

uint32_t retry_next_due_xcore(const struct retry_wheel *wheel, uint32_t now_s)
{
    if (atomic_load(&wheel->rests_count) > 0 || !slot_is_empty(wheel, LATE_SLOT)) {
        return now_s;
    }
    uint32_t hand_s = atomic_load(&wheel->hand_s);
    uint32_t due_s = UINT32_MAX;
    uint32_t ahead = ring_next(wheel, 0, RETRY_FINE_SLOTS, slot_fine(hand_s + 1));
    if (ahead < RETRY_FINE_SLOTS) {
        due_s = hand_s + 1 + ahead;
    }
    uint32_t opened = hand_s / RETRY_COARSE_S + 1;
    uint32_t at = (opened + 1) % RETRY_COARSE_SLOTS;
    ahead = ring_next(wheel, RETRY_FINE_SLOTS, RETRY_COARSE_SLOTS, at);
    uint32_t opens_s = (opened + ahead) * RETRY_COARSE_S;
    return ahead < RETRY_COARSE_SLOTS && opens_s < due_s ? opens_s : due_s;
}

uint64_t retry_count_xcore(const struct retry_wheel *wheel)
{
    uint64_t count = 0;
    for (size_t i = 0; i < RETRY_SLOTS; i++) {
        count += atomic_load_explicit(&wheel->slots[i].count, memory_order_relaxed);
    }
    return count;
}

bool retry_sweep_xcore(struct retry_wheel *wheel, uint32_t slot, struct inbox_chain *chain)
{
    ensure(slot < RETRY_SLOTS);
    bool has_any = false;
    struct cds_wfs_node *first = slot_empty(wheel, slot);
    if (first != NULL) {
        has_any = list_hand_out(wheel, slot, first, UINT64_MAX, chain);
    }
    uint32_t rest_slot;
    for (size_t i = 0; slot == LATE_SLOT && i < RETRY_RESTS_MAX; i++) {
        first = rest_take(wheel, &rest_slot);
        if (first == NULL) {
            break;
        }
        has_any = list_hand_out(wheel, rest_slot, first, UINT64_MAX, chain) || has_any;
    }
    return has_any;
}
