/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_damage.h"

static bool is_one_piece(const struct journal_damage *row, const struct journal_damage *damage)
{
    if (row->kind != damage->kind || row->batch != damage->batch) {
        return false;
    }
    /* Of records that came to nothing the first place is enough. */
    if (row->kind == JOURNAL_DAMAGE_STRANGE) {
        return true;
    }
    bool has_place = row->size > 0 && damage->size > 0;
    return has_place && row->file == damage->file && row->number == damage->number &&
           row->offset + row->size == damage->offset;
}

static void row_add(struct journal_damage *row, const struct journal_damage *damage)
{
    row->count += damage->count;
    if (row->kind != JOURNAL_DAMAGE_STRANGE) {
        row->size += damage->size;
    }
    if (row->ordinal_last < row->ordinal_first || damage->ordinal_last < damage->ordinal_first) {
        row->ordinal_first = 1; /* one of them is not known */
        row->ordinal_last = 0;
        return;
    }
    if (damage->ordinal_first < row->ordinal_first) {
        row->ordinal_first = damage->ordinal_first;
    }
    if (damage->ordinal_last > row->ordinal_last) {
        row->ordinal_last = damage->ordinal_last;
    }
}

void journal_damages_put(struct journal_damages *damages, const struct journal_damage *damage)
{
    for (uint32_t i = damages->count; i-- > 0;) {
        if (is_one_piece(&damages->rows[i], damage)) {
            row_add(&damages->rows[i], damage);
            return;
        }
    }
    if (damages->count == JOURNAL_DAMAGES_MAX) {
        damages->left_count++;
        return;
    }
    damages->rows[damages->count++] = *damage;
}
