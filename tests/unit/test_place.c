/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/cpu.h"
#include "pipeline/place.h"

static int32_t masks[4][CPU_MOST], ranks[CPU_MOST];

/* Rank r may use CPUs first[r] .. first[r] + n - 1. */
static void bind(const int *first, int n)
{
    memset(masks, 0, sizeof masks);
    memset(ranks, 0, sizeof ranks);
    for (int r = 0; r < 4; r++)
        for (int cpu = first[r]; cpu < first[r] + n; cpu++) {
            masks[r][cpu] = 1;
            ranks[cpu]++;
        }
}

static void ranks_with_cpus_of_their_own_use_them_all(void **state)
{
    (void)state;
    bind((int[]){0, 16, 32, 48}, 16);
    for (int r = 0; r < 4; r++)
        assert_int_equal(place_threads(masks[r], ranks), 16);
}

static void ranks_with_the_same_cpus_share_them(void **state)
{
    (void)state;
    bind((int[]){0, 0, 0, 0}, 64);
    assert_int_equal(place_threads(masks[3], ranks), 16);
    bind((int[]){0, 0, 0, 5000}, 30);
    assert_int_equal(place_threads(masks[0], ranks), 10);
    assert_int_equal(place_threads(masks[3], ranks), 30);
}

static void ranks_that_share_some_cpus_share_those(void **state)
{
    (void)state;
    bind((int[]){0, 0, 32, 32}, 32); /* two to a socket */
    assert_int_equal(place_threads(masks[0], ranks), 16);
    bind((int[]){0, 4, 100, 200}, 8);
    assert_int_equal(place_threads(masks[0], ranks), 6);
}

static void a_rank_has_one_thread_at_least(void **state)
{
    (void)state;
    bind((int[]){0, 0, 0, 0}, 2);
    assert_int_equal(place_threads(masks[0], ranks), 1);
    bind((int[]){0, 0, 0, 0}, 0); /* no mask was told */
    assert_int_equal(place_threads(masks[0], ranks), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_with_cpus_of_their_own_use_them_all),
        cmocka_unit_test(ranks_with_the_same_cpus_share_them),
        cmocka_unit_test(ranks_that_share_some_cpus_share_those),
        cmocka_unit_test(a_rank_has_one_thread_at_least),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
