/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/check_batch_priv.h"
#include "engine/values.h"

static bool is_wanted(const struct template *template, struct span name)
{
    for (uint32_t i = 0; i < template_vars_count(template); i++) {
        if (span_equal(template_var_name(template, i), name)) {
            return true;
        }
    }
    return false;
}

static struct check_batch_name *name_find(struct check_batch_name *names, uint32_t *count,
                                          struct span name)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (span_equal(span_of_text(names[i].name), name)) {
            return &names[i];
        }
    }
    if (*count == CHECK_BATCH_NAMES_MAX || name.size > SCAN_NAME_MAX) {
        return NULL;
    }
    struct check_batch_name *entry = &names[(*count)++];
    memcpy(entry->name, name.at, name.size);
    entry->name[name.size] = '\0';
    return entry;
}

void check_batch_count_given(struct checking *checking, struct span name)
{
    struct check_batch *check = checking->check;
    struct check_batch_name *entry = name_find(check->given, &check->given_count, name);
    if (entry != NULL) {
        entry->is_used =
            entry->is_used || (entry->count == 0 && (is_wanted(checking->template, name) ||
                                                     is_wanted(checking->sender, name)));
        entry->count++;
    }
}

static void count_missing(struct checking *checking, const struct template *template)
{
    struct check_batch *check = checking->check;
    struct span values[TEMPLATE_VARS_MAX];
    values_fill(template, checking->manifest, checking->record, checking->record->to,
                checking->count_hints, values);
    for (uint32_t i = 0; i < template_vars_count(template); i++) {
        if (values[i].at != NULL || template_var_has_default(template, i)) {
            continue;
        }
        struct check_batch_name *entry =
            name_find(check->wanted, &check->wanted_count, template_var_name(template, i));
        if (entry != NULL) {
            entry->count++;
        }
    }
}

void check_batch_count_names(struct checking *checking)
{
    const struct scan_recipient *record = checking->record;
    for (uint32_t i = 0; i < record->vars_count; i++) {
        check_batch_count_given(checking, record->vars[i].name);
    }
    count_missing(checking, checking->sender);
    count_missing(checking, checking->template);
}
