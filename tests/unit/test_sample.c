/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/sample.h"

static const struct sample_past NOTHING = {NULL, 0, 0};

/* How often each of four tokens is drawn in `draws` draws. */
static void count_draws(const struct sample_options *options, const float *logits, int draws, int *counts)
{
    struct error err;
    memset(counts, 0, 4 * sizeof *counts);
    for (int step = 0; step < draws; step++) {
        float copy[4];
        memcpy(copy, logits, sizeof copy);
        int32_t none[1] = {-1};
        struct sample_past past = {none, 0, (uint64_t)step};
        int32_t id = sample_token(options, copy, 4, &past, &err);
        assert_in_range(id, 0, 3);
        counts[id]++;
    }
}

static void the_default_is_the_most_likely_token_and_the_lowest_id_among_equals(void **state)
{
    (void)state;
    struct error err;
    struct sample_options options = sample_defaults();
    assert_int_equal(sample_token(&options, (float[]){0, 3, 3, -1}, 4, &NOTHING, &err), 1);
}

static void draws_follow_the_probabilities(void **state)
{
    (void)state;
    struct sample_options options = sample_defaults();
    options.temperature = 0.5f;
    options.seed = 11;
    float logits[4] = {0, 0.5f, 1, -INFINITY}; /* over 0.5: weights 1, e, e^2, 0 */
    double total = 1 + exp(1) + exp(2);
    int counts[4];
    count_draws(&options, logits, 40000, counts);
    for (int i = 0; i < 3; i++)
        assert_true(fabs(counts[i] / 40000.0 - exp(i) / total) < 0.01);
    assert_int_equal(counts[3], 0);
}

static void top_k_leaves_the_k_most_likely(void **state)
{
    (void)state;
    struct sample_options options = sample_defaults();
    options.temperature = 10;
    options.top_k = 2;
    int counts[4];
    count_draws(&options, (float[]){1, 4, 2, 3}, 1000, counts);
    assert_true(counts[1] > 0 && counts[3] > 0);
    assert_int_equal(counts[0] + counts[2], 0);
}

static void top_p_leaves_the_fewest_that_reach_p(void **state)
{
    (void)state;
    struct sample_options options = sample_defaults();
    options.temperature = 1;
    options.top_p = 0.75f; /* of 0.5, 0.3, 0.1, 0.1: the first two */
    int counts[4];
    count_draws(&options, (float[]){logf(0.1f), logf(0.3f), logf(0.5f), logf(0.1f)}, 1000, counts);
    assert_true(counts[1] > 0 && counts[2] > 0);
    assert_int_equal(counts[0] + counts[3], 0);
}

static void min_p_leaves_what_is_near_the_most_likely(void **state)
{
    (void)state;
    struct sample_options options = sample_defaults();
    options.temperature = 1;
    options.min_p = 0.3f;
    int counts[4];
    count_draws(&options, (float[]){logf(0.5f), logf(0.3f), logf(0.1f), logf(0.1f)}, 1000, counts);
    assert_true(counts[0] > 0 && counts[1] > 0);
    assert_int_equal(counts[2] + counts[3], 0);
}

static void what_was_written_becomes_less_likely_once_however_often(void **state)
{
    (void)state;
    struct error err;
    struct sample_options options = sample_defaults();
    options.repeat_penalty = 2;
    struct sample_past past = {(int32_t[]){1, 1, 2}, 3, 0};
    float logits[4] = {1, 3, -1, 0};
    assert_int_equal(sample_token(&options, logits, 4, &past, &err), 1); /* 1.5 is still most */
    assert_true(logits[1] == 1.5f && logits[2] == -2);
    options.repeat_window = 1;
    float again[4] = {1, 3, -1, 0};
    assert_int_equal(sample_token(&options, again, 4, &past, &err), 1);
    assert_true(again[1] == 3 && again[2] == -2);
}

static void the_draw_depends_on_seed_stream_and_step_alone(void **state)
{
    (void)state;
    double draw = sample_draw(1, 2, 3);
    assert_true(draw >= 0 && draw < 1);
    assert_true(draw == sample_draw(1, 2, 3));
    assert_true(draw != sample_draw(2, 2, 3));
    assert_true(draw != sample_draw(1, 3, 3));
    assert_true(draw != sample_draw(1, 2, 4));
    assert_true(draw != sample_draw(2, 1, 3));
}

static void logits_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct sample_options options = sample_defaults();
    assert_int_equal(sample_token(&options, (float[]){0, NAN}, 2, &NOTHING, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_int_equal(sample_token(&options, (float[]){INFINITY, 0}, 2, &NOTHING, &err), -1);
    assert_int_equal(sample_token(&options, (float[]){-INFINITY, -INFINITY}, 2, &NOTHING, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_default_is_the_most_likely_token_and_the_lowest_id_among_equals),
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(top_k_leaves_the_k_most_likely),
        cmocka_unit_test(top_p_leaves_the_fewest_that_reach_p),
        cmocka_unit_test(min_p_leaves_what_is_near_the_most_likely),
        cmocka_unit_test(what_was_written_becomes_less_likely_once_however_often),
        cmocka_unit_test(the_draw_depends_on_seed_stream_and_step_alone),
        cmocka_unit_test(logits_that_are_not_finite_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
