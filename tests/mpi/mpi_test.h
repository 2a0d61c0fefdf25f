/* Tests that run on several ranks at once, by cmocka on each of them.
 *
 * A rank whose test fails does not take part in what the others wait for next, so it ends the whole world
 * before its next test begins (cmocka has told what failed by then). Only rank 0 tells of successes.
 * List tests with mpi_unit_test(), end main() with `return mpi_run_tests(tests)`.
 */
#ifndef LONGHAUL_TESTS_MPI_TEST_H
#define LONGHAUL_TESTS_MPI_TEST_H

/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>

#include "base/comm.h"

static struct comm world;
static struct error err;
static bool last_test_passed = true;

static void end_the_world(const char *why)
{
    error_set(&err, ERROR_INTERNAL, "%s", why);
    comm_abort(&err);
}

static int go_on_if_the_last_test_passed(void **state)
{
    (void)state;
    if (!last_test_passed)
        end_the_world("the test before failed");
    last_test_passed = false;
    return 0;
}

static void call_test(void **state)
{
    (*(const CMUnitTestFunction *)*state)(NULL);
    last_test_passed = true;
}

/* There in builds with -fsanitize=address. MPI opens and closes plugins when it starts and when it ends, and what
 * these leak can no longer be told from what we leak: so leaks are looked for in between (see lsan.supp). */
void __lsan_disable(void) __attribute__((weak));
void __lsan_enable(void) __attribute__((weak));
void __lsan_do_leak_check(void) __attribute__((weak));

#define mpi_unit_test(function)                                                                                    \
    {                                                                                                              \
        .name = #function, .test_func = call_test, .setup_func = go_on_if_the_last_test_passed,                    \
        .initial_state = &(CMUnitTestFunction)                                                                     \
        {                                                                                                          \
            function                                                                                               \
        }                                                                                                          \
    }

static int mpi_run_tests_named(const char *name, const struct CMUnitTest *tests, size_t n)
{
    if (__lsan_disable)
        __lsan_disable();
    if (comm_init(&world, &err) < 0)
        comm_abort(&err);
    if (__lsan_enable)
        __lsan_enable();
    if (world.rank > 0 && !freopen("/dev/null", "w", stdout))
        end_the_world("cannot open /dev/null");
    if (_cmocka_run_group_tests(name, tests, n, NULL, NULL) != 0)
        end_the_world("tests failed");
    if (__lsan_do_leak_check)
        __lsan_do_leak_check();
    comm_finish(&world);
    return 0;
}

#define mpi_run_tests(tests) mpi_run_tests_named(#tests, tests, sizeof(tests) / sizeof((tests)[0]))

#endif
