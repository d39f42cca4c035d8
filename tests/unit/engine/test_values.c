/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/values.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/harness.h"

static struct template *line_of(const char *text)
{
    struct template_problem problem;
    struct template *template = template_compile_line(span_of_text(text), &problem);
    ensure(template != NULL);
    return template;
}

static char BATCH_NAMES[][8] = {"year", "name", "_own"};
static char BATCH_VALUES[][8] = {"2026", "reader", "mine"};

static struct manifest_var batch_vars[] = {
    {BATCH_NAMES[0], BATCH_VALUES[0]},
    {BATCH_NAMES[1], BATCH_VALUES[1]},
    {BATCH_NAMES[2], BATCH_VALUES[2]},
};

static const struct manifest MANIFEST = {
    .id = "spring-07",
    .vars = batch_vars,
    .vars_count = COUNT_OF(batch_vars),
    .missing = MANIFEST_MISSING_REJECT,
};

static struct scan_recipient record_of(const struct scan_var *vars, uint32_t count)
{
    struct scan_recipient record = {
        .to = SPAN("  ann@example.org "), .id = SPAN("u1"), .vars_count = count};
    for (uint32_t i = 0; i < count; i++) {
        record.vars[i] = vars[i];
    }
    return record;
}

static struct span value_of(const struct template *template, const struct scan_recipient *record,
                            uint8_t *hints, const char *name)
{
    struct span values[TEMPLATE_VARS_MAX];
    values_fill(template, &MANIFEST, record, span_trim(record->to), hints, values);
    for (uint32_t i = 0; i < template_vars_count(template); i++) {
        if (span_equal(template_var_name(template, i), span_of_text(name))) {
            return values[i];
        }
    }
    ensure(false);
    return SPAN_NONE;
}

/* The engine's own names, then the record's, then the batch's. */
static void test_order_of_sources(void)
{
    static const struct scan_var VARS[] = {
        {SPAN("name"), SPAN("Ann")},      {SPAN("empty"), SPAN("")},
        {SPAN("_to"), SPAN("forged")},    {SPAN("_id"), SPAN("forged")},
        {SPAN("_batch"), SPAN("forged")}, {SPAN("_mine"), SPAN("kept")},
    };
    static const struct {
        const char *name;
        const char *value; /* NULL: not given */
    } ROWS[] = {
        {"name", "Ann"},  {"year", "2026"},        {"empty", ""},     {"_to", "ann@example.org"},
        {"_id", "u1"},    {"_batch", "spring-07"}, {"_mine", "kept"}, {"_own", "mine"},
        {"absent", NULL},
    };
    struct template *template = line_of("{{name}}{{year}}{{empty}}{{_to}}{{_id}}{{_batch}}"
                                        "{{_mine}}{{_own}}{{absent}}");
    struct scan_recipient record = record_of(VARS, COUNT_OF(VARS));
    uint8_t hints[TEMPLATE_VARS_MAX] = {0};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct span value = value_of(template, &record, hints, ROWS[i].name);
        CHECK_ROW(i, (value.at == NULL) == (ROWS[i].value == NULL));
        CHECK_ROW(i, ROWS[i].value == NULL || span_equal(value, span_of_text(ROWS[i].value)));
    }
    template_destroy(template);
}

/* An id that was not given is empty, which is not missing. */
static void test_id_not_given(void)
{
    struct template *template = line_of("{{_id}}");
    struct scan_recipient record = record_of(NULL, 0);
    record.id = SPAN_NONE;
    uint8_t hints[TEMPLATE_VARS_MAX] = {0};
    struct span value = value_of(template, &record, hints, "_id");
    CU_ASSERT(value.at != NULL && value.size == 0);
    template_destroy(template);
}

/* Whatever the hints say, the values are the record's own: records of any order in any order. */
static void test_hints_never_lie(void)
{
    static const struct scan_var VARS[] = {
        {SPAN("a"), SPAN("1")}, {SPAN("b"), SPAN("2")}, {SPAN("c"), SPAN("3")},
        {SPAN("b"), SPAN("9")}, {SPAN("d"), SPAN("4")},
    };
    static const uint8_t ORDERS[][4] = {{0, 1, 2, 4}, {4, 2, 1, 0}, {2, 0, 4, 1}, {1, 4, 0, 2}};
    struct template *template = line_of("{{a}}{{b}}{{c}}{{d}}");
    uint8_t hints[TEMPLATE_VARS_MAX];
    memset(hints, 0xff, sizeof(hints));
    for (size_t round = 0; round < 64; round++) {
        const uint8_t *order = ORDERS[(round * 7 + round / 3) % COUNT_OF(ORDERS)];
        uint32_t count = (uint32_t)(round % 5);
        struct scan_recipient record = record_of(NULL, 0);
        for (uint32_t i = 0; i < count; i++) {
            record.vars[i] = VARS[order[i]];
        }
        record.vars_count = count;
        for (uint32_t i = 0; i < 4; i++) {
            const struct scan_var *var = &VARS[order[i]];
            char name[2] = {var->name.at[0], '\0'};
            struct span value = value_of(template, &record, hints, name);
            CHECK_ROW(round, i < count ? span_equal(value, var->value) : value.at == NULL);
        }
    }
    template_destroy(template);
}

/* Intake's check and the worker's rendering agree, whatever hints each has. */
static void test_check_and_render_agree(void)
{
    static const struct scan_var ROWS[] = {
        {SPAN("who"), SPAN("ann@example.net")},
        {SPAN("other"), SPAN("x")},
        {SPAN("who"), SPAN("a\r\nb")},
        {SPAN("who"), SPAN("")},
    };
    struct template *template = line_of("b-{{who}}");
    uint8_t scan_hints[TEMPLATE_VARS_MAX] = {0}, worker_hints[TEMPLATE_VARS_MAX] = {7, 7};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct scan_recipient record = record_of(&ROWS[i], 1);
        struct span values[TEMPLATE_VARS_MAX], again[TEMPLATE_VARS_MAX];
        struct template_problem problem;
        char text[256];
        struct writer writer = writer_of(text, sizeof(text));
        values_fill(template, &MANIFEST, &record, record.to, scan_hints, values);
        values_fill(template, &MANIFEST, &record, record.to, worker_hints, again);
        struct render_input check = values_input(&MANIFEST, values, 3);
        struct render_input render = values_input(&MANIFEST, again, 3);
        int checked = template_check(template, &check, &problem);
        int rendered = template_render_line(template, &render, &writer, &problem);
        CHECK_ROW(i, checked == rendered);
        CHECK_ROW(i, (checked == 0) == (i == 0 || i == 3));
    }
    template_destroy(template);
}

static void test_input(void)
{
    static const struct {
        enum manifest_missing manifest;
        enum template_missing template;
    } ROWS[] = {
        {MANIFEST_MISSING_REJECT, TEMPLATE_MISSING_REJECT},
        {MANIFEST_MISSING_EMPTY, TEMPLATE_MISSING_EMPTY},
        {MANIFEST_MISSING_LITERAL, TEMPLATE_MISSING_LITERAL},
    };
    struct span value = SPAN("x");
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct manifest manifest = MANIFEST;
        manifest.missing = ROWS[i].manifest;
        struct render_input input = values_input(&manifest, &value, 17);
        CHECK_ROW(i, input.missing == ROWS[i].template);
        CHECK_ROW(i, input.ordinal == 17);
        CHECK_ROW(i, input.values == &value);
        CHECK_ROW(i, !input.is_7bit);
    }
}

/* F3: a domain in another script goes out as its A-labels, in the text as in the envelope. */
static void test_address_as_sent(void)
{
    static const struct {
        const char *to;
        const char *sent;
    } ROWS[] = {
        {"ann@Example.org", "ann@Example.org"},
        {"a@m\xc3\xbcnchen.test", "a@xn--mnchen-3ya.test"},
        {"\"a@b\"@m\xc3\xbcnchen.test", "\"a@b\"@xn--mnchen-3ya.test"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char room[SMTP_ADDRESS_MAX];
        struct span sent =
            values_address(span_of_text(ROWS[i].to), SPAN("xn--mnchen-3ya.test"), room);
        CHECK_ROW(i, span_equal(sent, span_of_text(ROWS[i].sent)));
    }
}

SUITE(values, test_address_as_sent, test_order_of_sources, test_id_not_given, test_hints_never_lie,
      test_check_and_render_agree, test_input)
