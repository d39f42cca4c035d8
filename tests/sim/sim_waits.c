/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_waits.h"

#include <stdlib.h>

static int compare(const void *left, const void *right)
{
    const struct sim_deferral *a = left;
    const struct sim_deferral *b = right;
    if (a->number != b->number) {
        return a->number < b->number ? -1 : 1;
    }
    return (a->attempts > b->attempts) - (a->attempts < b->attempts);
}

/* In either order: a life that has lost a record counts the same attempts once more. */
static bool is_start_between(const struct sim_engine *sim, int64_t one_ns, int64_t other_ns)
{
    int64_t from_ns = one_ns < other_ns ? one_ns : other_ns;
    int64_t to_ns = one_ns < other_ns ? other_ns : one_ns;
    for (uint64_t i = 0; i < sim->boots; i++) {
        if (sim->boots_ns[i] >= from_ns && sim->boots_ns[i] <= to_ns) {
            return true;
        }
    }
    return false;
}

static bool is_far_enough(const struct sim_engine *sim, struct wall_time from, struct wall_time to,
                          int64_t least_ns)
{
    int64_t from_ns;
    int64_t to_ns;
    bool is_known = false;
    for (uint32_t i = 0; sim_engine_wall_was(sim, from, i, &from_ns); i++) {
        for (uint32_t j = 0; sim_engine_wall_was(sim, to, j, &to_ns); j++) {
            is_known = true;
            if (to_ns - from_ns >= least_ns || is_start_between(sim, from_ns, to_ns)) {
                return true;
            }
        }
    }
    return !is_known;
}

void sim_waits_check(struct sim_book *book, const struct backoff_schedule *schedule)
{
    const struct sim_engine *sim = book->sim;
    struct sim_deferral *rows = book->deferrals;
    if (book->deferrals_count > 1) {
        qsort(rows, book->deferrals_count, sizeof(*rows), compare);
    }
    for (uint32_t i = 1; i < book->deferrals_count; i++) {
        const struct sim_deferral *row = &rows[i];
        const struct sim_deferral *before = &rows[i - 1];
        bool is_next = row->number == before->number && row->attempts == before->attempts + 1 &&
                       before->attempts > 0 && before->attempts < UINT16_MAX;
        if (!is_next || book->batches[book->entries[row->number].batch].is_retried) {
            continue;
        }
        uint32_t least_s = backoff_delay_s(schedule, (uint32_t)before->attempts, 0, UINT32_MAX);
        /* Due times are whole seconds. */
        int64_t least_ns = ((int64_t)least_s - 1) * NS_PER_S - NS_PER_MS;
        if (!is_far_enough(sim, before->at, row->at, least_ns)) {
            sim_violation(sim, "%s was tried again %.3f s behind its attempt %llu, not %u s",
                          book->entries[row->number].address,
                          (double)(row->at.ns - before->at.ns) / (double)NS_PER_S,
                          (unsigned long long)before->attempts, least_s);
        }
    }
}
