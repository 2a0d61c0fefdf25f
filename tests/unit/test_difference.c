/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/difference.h"

static const char *found(const struct results_run *there, const struct results_run *here)
{
    static char what[DIFFERENCE];
    difference_find(there, here, what, sizeof what);
    return what;
}

static void the_first_option_that_differs_is_named_with_both_values(void **state)
{
    (void)state;
    const struct results_run there = {.options = "{\"dtype\":\"auto\",\"max-new\":200,\"seed\":0}",
                                      .model_sha256 = "a"};
    const struct results_run here = {.options = "{\"dtype\":\"auto\",\"max-new\":400,\"seed\":1}",
                                     .model_sha256 = "a"};
    assert_string_equal(found(&there, &here), "max-new 200 there, 400 here");
}

static void an_option_on_one_side_only_is_not_given_on_the_other(void **state)
{
    (void)state;
    const struct results_run there = {.options = "{\"policy\":\"\"}", .model_sha256 = "a"};
    const struct results_run here = {.options = "{\"policy\":\"sinks\"}", .model_sha256 = "a"};
    assert_string_equal(found(&there, &here), "policy not given there, \"sinks\" here");
    assert_string_equal(found(&here, &there), "policy \"sinks\" there, not given here");
}

static void another_model_is_said_before_any_option(void **state)
{
    (void)state;
    const struct results_run there = {.options = "{\"seed\":0}", .model_sha256 = "a"};
    const struct results_run here = {.options = "{\"seed\":1}", .model_sha256 = "b"};
    assert_string_equal(found(&there, &here), "another model");
}

static void like_options_and_models_leave_files_and_the_segment(void **state)
{
    (void)state;
    const struct results_run run = {.options = "{\"seed\":0}", .model_sha256 = "a"};
    assert_string_equal(found(&run, &run), "another --segment, or other words in a file that an option names");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_option_that_differs_is_named_with_both_values),
        cmocka_unit_test(an_option_on_one_side_only_is_not_given_on_the_other),
        cmocka_unit_test(another_model_is_said_before_any_option),
        cmocka_unit_test(like_options_and_models_leave_files_and_the_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
