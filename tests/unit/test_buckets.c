#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pipeline/buckets.h"

static void buckets_are_as_narrow_as_sixteen_of_them_allow(void **state)
{
    (void)state;
    assert_int_equal(buckets_width(1), 1000);
    assert_int_equal(buckets_width(16 * 1000), 1000);
    assert_int_equal(buckets_width(16 * 1000 + 1), 2000);
    assert_int_equal(buckets_width(32 * 1000 + 1), 5000);
    assert_int_equal(buckets_width(80 * 1000 + 1), 10000);
    assert_int_equal(buckets_width(1100000), 100000);
    assert_int_equal(buckets_width(INT64_MAX / 2), 500000000000000000);
}

static void each_prediction_is_counted_in_the_bucket_of_its_position(void **state)
{
    (void)state;
    const int64_t position[] = {1, 999, 1000, 4000};
    const float logprob[] = {-1, -3, -0.5f, 0};
    const struct result_score score = {.count = 4, .position = position, .logprob = logprob};
    struct result_bucket buckets[BUCKETS_MOST];
    assert_int_equal(buckets_fill(&score, buckets), 3); /* no prediction lies in 2,000 .. 3,999 */
    assert_int_equal(buckets[0].first_position, 0);
    assert_int_equal(buckets[0].end_position, 1000);
    assert_int_equal(buckets[0].count, 2);
    assert_true(buckets[0].nll_sum == 4);
    assert_true(fabs(buckets[0].perplexity - exp(2)) < 1e-12);
    assert_int_equal(buckets[1].count, 1);
    assert_true(fabs(buckets[1].perplexity - exp(0.5)) < 1e-12);
    assert_int_equal(buckets[2].first_position, 4000);
    assert_int_equal(buckets[2].end_position, 4001);
    assert_true(buckets[2].perplexity == 1);
}

static void no_prediction_makes_no_bucket(void **state)
{
    (void)state;
    const struct result_score score = {0};
    struct result_bucket buckets[BUCKETS_MOST];
    assert_int_equal(buckets_fill(&score, buckets), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buckets_are_as_narrow_as_sixteen_of_them_allow),
        cmocka_unit_test(each_prediction_is_counted_in_the_bucket_of_its_position),
        cmocka_unit_test(no_prediction_makes_no_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
