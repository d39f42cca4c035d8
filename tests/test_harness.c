/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void inner_pass(void)
{
    CU_ASSERT(true);
}

static void inner_fail(void)
{
    CU_ASSERT(true);
    CHECK_ROW(3, 1 + 1 == 3);
}

static void inner_survive(void)
{
    CHECK_PANICS(inner_pass());
}

static void inner_skip(void)
{
    test_skip("no reason");
}

/* What the outer tests run in a process of its own: CUnit does not run a suite inside a test. */
static const struct {
    const char *names;
    void (*functions[3])(void);
    size_t count;
} INNER_SUITES[] = {
    {"one, two", {inner_pass, inner_pass}, 2},
    {"one, two,\n three", {inner_pass, inner_fail, inner_survive}, 3},
    {"one, two", {inner_skip, inner_pass}, 2},
    {"one, two", {inner_fail, inner_skip}, 2},
};

struct outcome {
    int exit_status;
    char text[2048];
};

static struct outcome run_inner(size_t index)
{
    struct outcome outcome = {.exit_status = -1};
    int ends[2];
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    (void)fflush(NULL);
    pid_t child = fork();
    CU_ASSERT_FATAL(child >= 0);
    if (child == 0) {
        char number[] = {(char)('0' + index), '\0'};
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)execl("/proc/self/exe", "inner", number, NULL);
        _exit(EXIT_FAILURE);
    }
    (void)close(ends[1]);
    size_t size = 0;
    ssize_t got;
    while ((got = read(ends[0], outcome.text + size, sizeof(outcome.text) - 1 - size)) > 0) {
        size += (size_t)got;
    }
    (void)close(ends[0]);
    int status = 0;
    CU_ASSERT_EQUAL(waitpid(child, &status, 0), child);
    outcome.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return outcome;
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text);
    return size >= strlen(end) && strcmp(text + size - strlen(end), end) == 0;
}

static void test_all_pass(void)
{
    struct outcome outcome = run_inner(0);
    CU_ASSERT_EQUAL(outcome.exit_status, 0);
    CU_ASSERT(ends_with(outcome.text, "\n2 passed, 0 failed\n"));
}

static void test_failure_is_told(void)
{
    struct outcome outcome = run_inner(1);
    CU_ASSERT_EQUAL(outcome.exit_status, 1);
    CU_ASSERT(ends_with(outcome.text, "\n1 passed, 2 failed\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(outcome.text, "test_harness.c:"));
    CU_ASSERT_PTR_NOT_NULL(strstr(outcome.text, ": two: row 3: 1 + 1 == 3\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(outcome.text, ": three: CHECK_PANICS(inner_pass())\n"));
}

static void test_skipped(void)
{
    struct outcome outcome = run_inner(2);
    CU_ASSERT_EQUAL(outcome.exit_status, 77);
    CU_ASSERT_PTR_NOT_NULL(strstr(outcome.text, "skipped: no reason\n"));
}

/* A skip does not hide what failed before it. */
static void test_skipped_after_failure(void)
{
    struct outcome outcome = run_inner(3);
    CU_ASSERT_EQUAL(outcome.exit_status, 1);
}

static void test_panics(void)
{
    CHECK_PANICS(ensure(false));
    CHECK_PANICS(abort());
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        size_t index = (size_t)(argv[1][0] - '0');
        ensure(index < COUNT_OF(INNER_SUITES));
        return harness_run("inner", INNER_SUITES[index].names, INNER_SUITES[index].functions,
                           INNER_SUITES[index].count);
    }
    static void (*const functions[])(void) = {test_all_pass, test_failure_is_told, test_skipped,
                                              test_skipped_after_failure, test_panics};
    return harness_run("harness",
                       "test_all_pass, test_failure_is_told, test_skipped, "
                       "test_skipped_after_failure, test_panics",
                       functions, COUNT_OF(functions));
}
