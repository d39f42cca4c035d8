/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/harness.h"

#include <CUnit/TestRun.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TESTS_MAX = 64, NAME_SIZE = 80, TEXT_SIZE = 512, EXIT_SKIPPED = 77 };

static pid_t panicking_child;

void test_skip(const char *reason)
{
    printf("skipped: %s\n", reason);
    (void)fflush(stdout);
    exit(CU_get_number_of_failures() > 0 ? EXIT_FAILURE : EXIT_SKIPPED);
}

void check_row(const char *file, int line, const char *text, size_t index, bool passed)
{
    char row[TEXT_SIZE];
    (void)snprintf(row, sizeof(row), "row %zu: %s", index, text);
    (void)CU_assertImplementation(passed, (unsigned)line, row, file, "", CU_FALSE);
}

/* The child must not say what its parent has still in its buffers, and its last words are expected.
 */
bool check_panics_begin(void)
{
    (void)fflush(NULL);
    panicking_child = fork();
    ensure(panicking_child >= 0);
    if (panicking_child > 0) {
        return false;
    }
    struct rlimit no_core = {0};
    (void)setrlimit(RLIMIT_CORE, &no_core);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    ensure(null >= 0);
    ensure(dup2(null, STDERR_FILENO) == STDERR_FILENO);
    return true;
}

void check_panics_survived(void)
{
    _exit(EXIT_SUCCESS);
}

void check_panics_end(const char *file, int line, const char *text)
{
    int status;
    ensure(waitpid(panicking_child, &status, 0) == panicking_child);
    char condition[TEXT_SIZE];
    (void)snprintf(condition, sizeof(condition), "CHECK_PANICS(%s)", text);
    bool has_panicked = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    (void)CU_assertImplementation(has_panicked, (unsigned)line, condition, file, "", CU_FALSE);
}

/* Copies the first name of "a, b, c" and returns where the next one starts. */
static const char *name_take(const char *names, char *ret_name)
{
    names += strspn(names, ", \n\t");
    size_t size = strcspn(names, ", \n\t");
    (void)snprintf(ret_name, NAME_SIZE, "%.*s", (int)size, names);
    return names + size;
}

static void failures_print(void)
{
    for (CU_pFailureRecord failure = CU_get_failure_list(); failure != NULL;
         failure = failure->pNext) {
        printf("%s:%u: %s: %s\n", failure->strFileName != NULL ? failure->strFileName : "?",
               failure->uiLineNumber, failure->pTest != NULL ? failure->pTest->pName : "?",
               failure->strCondition != NULL ? failure->strCondition : "?");
    }
}

int harness_run(const char *suite, const char *names, void (*const *functions)(void), size_t count)
{
    ensure(count > 0);
    ensure(count <= TESTS_MAX);
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    ensure(CU_initialize_registry() == CUE_SUCCESS);
    CU_pSuite registered = CU_add_suite(suite, NULL, NULL);
    ensure(registered != NULL);
    for (size_t i = 0; i < count; i++) {
        char name[NAME_SIZE];
        names = name_take(names, name);
        CU_pTest test = CU_add_test(registered, name, functions[i]);
        ensure(test != NULL);
    }
    ensure(CU_run_all_tests() == CUE_SUCCESS);
    failures_print();
    unsigned failed = CU_get_number_of_tests_failed();
    printf("%s: %u assertions\n", suite, CU_get_number_of_asserts());
    printf("%u passed, %u failed\n", CU_get_number_of_tests_run() - failed, failed);
    CU_cleanup_registry();
    return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
