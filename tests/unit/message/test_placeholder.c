/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/message/placeholder.h"

#include "tests/harness.h"

#define N10 "nnnnnnnnnn"
#define N64 N10 N10 N10 N10 N10 N10 "nnnn"

static const struct {
    const char *text;
    enum placeholder_kind kind;
    size_t at, end;
    const char *name, *fallback; /* NULL = none */
    bool is_raw;
} ROWS[] = {
    {"", PLACEHOLDER_NONE, 0, 0, NULL, NULL, false},
    {"plain { text }} {a}", PLACEHOLDER_NONE, 19, 19, NULL, NULL, false},
    {"a{{b}}c", PLACEHOLDER_VALUE, 1, 6, "b", NULL, false},
    {"{{ b\t}}", PLACEHOLDER_VALUE, 0, 7, "b", NULL, false},
    {"{{user.city}}", PLACEHOLDER_VALUE, 0, 13, "user.city", NULL, false},
    {"{{items.0.sku-x}}", PLACEHOLDER_VALUE, 0, 17, "items.0.sku-x", NULL, false},
    {"{{_to}}", PLACEHOLDER_VALUE, 0, 7, "_to", NULL, false},
    {"{{0}}", PLACEHOLDER_VALUE, 0, 5, "0", NULL, false},
    {"{{{b}}}", PLACEHOLDER_VALUE, 0, 7, "b", NULL, true},
    {"{{&b}}", PLACEHOLDER_VALUE, 0, 6, "b", NULL, true},
    {"{{& b }}", PLACEHOLDER_VALUE, 0, 8, "b", NULL, true},
    {"{{b|there}}", PLACEHOLDER_VALUE, 0, 11, "b", "there", false},
    {"{{b | out there }}", PLACEHOLDER_VALUE, 0, 18, "b", "out there", false},
    {"{{b|}}", PLACEHOLDER_VALUE, 0, 6, "b", "", false},
    {"{{b|a|b}}", PLACEHOLDER_VALUE, 0, 9, "b", "a|b", false},
    {"{{b|{c}}}", PLACEHOLDER_VALUE, 0, 8, "b", "{c", false},
    {"{{{b|{c}}}}", PLACEHOLDER_VALUE, 0, 10, "b", "{c", true},
    {"{{b|dated}}", PLACEHOLDER_VALUE, 0, 11, "b", "dated", false},
    {"{{{{b}}", PLACEHOLDER_LITERAL, 0, 4, NULL, NULL, false},
    {"{{{{{{b}}", PLACEHOLDER_LITERAL, 0, 4, NULL, NULL, false},
    {"{{" N64 "}}", PLACEHOLDER_VALUE, 0, 68, N64, NULL, false},
    {"{{n" N64 "}}", PLACEHOLDER_BAD, 0, 69, NULL, NULL, false},
    {"{{b", PLACEHOLDER_BAD, 0, 3, NULL, NULL, false},
    {"x{{", PLACEHOLDER_BAD, 1, 3, NULL, NULL, false},
    {"{{{b}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{b\n}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{}}", PLACEHOLDER_BAD, 0, 4, NULL, NULL, false},
    {"{{|x}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{a b}}", PLACEHOLDER_BAD, 0, 7, NULL, NULL, false},
    {"{{-a}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{<b>a</b>}}", PLACEHOLDER_BAD, 0, 12, NULL, NULL, false},
    {"{{\xc3\xa4}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{#if a}}", PLACEHOLDER_BAD, 0, 9, NULL, NULL, false},
    {"{{^a}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{/a}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{else}}", PLACEHOLDER_BAD, 0, 8, NULL, NULL, false},
    {"{{.}}", PLACEHOLDER_BAD, 0, 5, NULL, NULL, false},
    {"{{!x}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{>x}}", PLACEHOLDER_BAD, 0, 6, NULL, NULL, false},
    {"{{b|url}}", PLACEHOLDER_BAD, 0, 9, NULL, NULL, false},
    {"{{b|date:%d}}", PLACEHOLDER_BAD, 0, 13, NULL, NULL, false},
};

static void test_rows(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct placeholder got = placeholder_find(span_of_text(ROWS[i].text), 0);
        CHECK_ROW(i, got.kind == ROWS[i].kind);
        CHECK_ROW(i, got.at == ROWS[i].at);
        CHECK_ROW(i, got.end == ROWS[i].end);
        CHECK_ROW(i, (got.kind == PLACEHOLDER_BAD) == (got.reason != NULL));
        if (got.kind != PLACEHOLDER_VALUE) {
            continue;
        }
        CHECK_ROW(i, span_equal(got.name, span_of_text(ROWS[i].name)));
        CHECK_ROW(i, got.has_fallback == (ROWS[i].fallback != NULL));
        CHECK_ROW(i, !got.has_fallback || span_equal(got.fallback, span_of_text(ROWS[i].fallback)));
        CHECK_ROW(i, got.is_raw == ROWS[i].is_raw);
    }
}

/* No prefix of any row makes the parser look behind its end, or find something that is not there.
 */
static void test_prefixes(void)
{
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        for (size_t size = 0; size <= strlen(ROWS[i].text); size++) {
            struct placeholder got = placeholder_find(span_of(ROWS[i].text, size), 0);
            CHECK_ROW(i, got.at <= got.end);
            CHECK_ROW(i, got.end <= size);
        }
    }
}

static void test_from(void)
{
    struct span text = SPAN("{{a}} {{b}}");
    CU_ASSERT_EQUAL(placeholder_find(text, 1).at, 6);
    CU_ASSERT_EQUAL(placeholder_find(text, 6).at, 6);
    CU_ASSERT_EQUAL(placeholder_find(text, 11).kind, PLACEHOLDER_NONE);
    CHECK_PANICS((void)placeholder_find(text, 12));
}

SUITE(placeholder, test_rows, test_prefixes, test_from)
