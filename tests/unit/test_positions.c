/* What the user's position method stands in place of is told, down to the factor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/positions.h"

static struct model model_with(enum position_kind of_file, double file_factor, enum position_kind now,
                               double factor)
{
    struct model model = {0};
    position_method_defaults(&model.file_positions, of_file);
    position_method_defaults(&model.positions, now);
    model.file_positions.factor = file_factor;
    model.positions.factor = factor;
    return model;
}

static void another_factor_of_the_same_method_replaces_the_files(void **state)
{
    (void)state;
    char out[POSITIONS_DESCRIPTION];
    const struct model model = model_with(POSITION_YARN, 4, POSITION_YARN, 2);
    assert_true(positions_replace(&model, out, sizeof out));
    assert_string_equal(out, "yarn, factor 2, in place of the file's yarn, factor 4");
}

static void another_method_replaces_the_files(void **state)
{
    (void)state;
    char out[POSITIONS_DESCRIPTION];
    const struct model model = model_with(POSITION_YARN, 4, POSITION_NONE, 1);
    assert_true(positions_replace(&model, out, sizeof out));
    assert_string_equal(out, "none, in place of the file's yarn, factor 4");
}

static void what_the_file_asks_for_or_nothing_is_not_replaced(void **state)
{
    (void)state;
    char out[POSITIONS_DESCRIPTION];
    const struct model same = model_with(POSITION_YARN, 4, POSITION_YARN, 4);
    const struct model first = model_with(POSITION_NONE, 1, POSITION_YARN, 2);
    assert_false(positions_replace(&same, out, sizeof out));
    assert_false(positions_replace(&first, out, sizeof out));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_factor_of_the_same_method_replaces_the_files),
        cmocka_unit_test(another_method_replaces_the_files),
        cmocka_unit_test(what_the_file_asks_for_or_nothing_is_not_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
