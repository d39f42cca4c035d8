/* SPDX-License-Identifier: Apache-2.0 */
/*
 * harness: CUnit with less to type. A test program is one file: test functions, then SUITE(name,
 * tests...). Its exit status is 0 when all passed, 1 otherwise, 77 (meson: skip) when test_skip was
 * called. Every program ends with the line "N passed, N failed".
 */
#pragma once

#include <CUnit/CUnit.h>
#include <stdbool.h>
#include <stddef.h>

#include "engine/base/ensure.h"

/* Ends the program as skipped, with the reason printed. */
_Noreturn void test_skip(const char *reason);

/* A table's row: tells the row's index when it fails. */
#define CHECK_ROW(index, condition) check_row(__FILE__, __LINE__, #condition, (index), (condition))
void check_row(const char *file, int line, const char *text, size_t index, bool passed);

/* The statement must end in ensure_fail (run in a forked child). */
#define CHECK_PANICS(statement)                                                                    \
    do {                                                                                           \
        if (check_panics_begin()) {                                                                \
            statement;                                                                             \
            check_panics_survived();                                                               \
        }                                                                                          \
        check_panics_end(__FILE__, __LINE__, #statement);                                          \
    } while (0)
bool check_panics_begin(void);
_Noreturn void check_panics_survived(void);
void check_panics_end(const char *file, int line, const char *text);

/* SUITE(name, test_a, test_b): up to 64 tests. */
#define SUITE(suite, ...)                                                                          \
    int main(void)                                                                                 \
    {                                                                                              \
        static void (*const functions[])(void) = {__VA_ARGS__};                                    \
        return harness_run(#suite, #__VA_ARGS__, functions, COUNT_OF(functions));                  \
    }
int harness_run(const char *suite, const char *names, void (*const *functions)(void), size_t count);
