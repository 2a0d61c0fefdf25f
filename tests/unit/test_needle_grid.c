/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "pipeline/needle_grid.h"

static const struct needle_limits limits = {.asked = 8192, .untouched = 4096};

static int parse(struct needle_grid *grid, const struct options *options, struct error *err)
{
    *err = (struct error){0};
    return needle_grid_parse(grid, options, &limits, 4096, err);
}

static void lists_are_sorted_and_each_item_is_once(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const struct options options = {
        .tasks = "vt,passkey,vt", .lengths = "4k,1024,2k,4096", .depths = "100,0", .trials = 3};
    assert_int_equal(parse(&grid, &options, &err), 0);
    assert_int_equal(grid.n_tasks, 2);
    assert_int_equal(grid.tasks[0], NEEDLE_VT);
    assert_int_equal(grid.lengths.n, 3);
    assert_int_equal(grid.lengths.items[0], 1024);
    assert_int_equal(grid.lengths.items[2], 4096);
    assert_int_equal(grid.depths.items[0], 0);
}

static void default_lengths_end_at_the_limit(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const struct options options = {.trials = 1};
    assert_int_equal(parse(&grid, &options, &err), 0);
    assert_int_equal(grid.lengths.n, 4);
    assert_int_equal(grid.lengths.items[3], 8192);
    assert_int_equal(grid.depths.n, 5);
}

static void a_length_beyond_the_limit_is_refused_by_name(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const struct options options = {.lengths = "1k,9000", .trials = 1};
    assert_int_equal(parse(&grid, &options, &err), -1);
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.text, "8192"));
}

static void what_cannot_be_read_is_refused(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const char *const wrong[] = {"", "1k,", ",1k", "1.5", "x", "0", "-4", "1k 2k", "nan", "1e99"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const struct options options = {.lengths = wrong[i], .trials = 1};
        assert_int_equal(parse(&grid, &options, &err), -1);
        assert_int_equal(err.code, ERROR_USAGE);
    }
    const struct options depth = {.depths = "101", .trials = 1}, task = {.tasks = "niah,,vt", .trials = 1};
    assert_int_equal(parse(&grid, &depth, &err), -1);
    assert_int_equal(parse(&grid, &task, &err), -1);
    for (int i = 0; i < NEEDLE_TASKS; i++)
        assert_non_null(strstr(err.text, needle_task_name((enum needle_task)i)));
}

static void a_place_is_found_again(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const struct options options = {.tasks = "vt,niah", .lengths = "1k,2k,8k", .depths = "0,50", .trials = 2};
    assert_int_equal(parse(&grid, &options, &err), 0);
    int64_t trials = 0;
    for (int64_t i = 0; i < needle_grid_size(&grid); i++) {
        const struct needle_place place = needle_grid_place(&grid, i);
        assert_int_equal(needle_grid_index(&grid, &place), i);
        if (!needle_grid_has(&grid, &place))
            continue;
        const struct needle_cell cell = needle_grid_cell(&grid, &place);
        assert_int_equal(needle_grid_find(&grid, &cell, place.setting), i);
        trials++;
    }
    /* A length: two of vt, which has no depth, and four of niah; 8k is beyond the untouched model. */
    assert_int_equal(trials, 6 * (3 + 2));
}

static void what_is_not_of_the_grid_is_not_found(void **state)
{
    (void)state;
    struct needle_grid grid;
    struct error err;
    const struct options options = {.tasks = "niah", .lengths = "1k,8k", .depths = "0,50", .trials = 2};
    assert_int_equal(parse(&grid, &options, &err), 0);
    const struct needle_cell cells[] = {
        {NEEDLE_VT, 1024, 0, 0}, {NEEDLE_NIAH, 2048, 0, 0}, {NEEDLE_NIAH, 1024, 25, 0}, {NEEDLE_NIAH, 1024, 0, 2}};
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        assert_int_equal(needle_grid_find(&grid, &cells[i], NEEDLE_ASKED), -1);
    const struct needle_cell beyond = {NEEDLE_NIAH, 8192, 0, 0};
    assert_int_equal(needle_grid_find(&grid, &beyond, NEEDLE_UNTOUCHED), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_sorted_and_each_item_is_once),
        cmocka_unit_test(default_lengths_end_at_the_limit),
        cmocka_unit_test(a_length_beyond_the_limit_is_refused_by_name),
        cmocka_unit_test(what_cannot_be_read_is_refused),
        cmocka_unit_test(a_place_is_found_again),
        cmocka_unit_test(what_is_not_of_the_grid_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
