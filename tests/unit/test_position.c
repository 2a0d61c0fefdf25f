/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/position.h"
#include "base/num.h"

enum { DIM = 80, MAX_POSITIONS = 2 * 1024 * 1024 };

static struct rope_options usual_options(void)
{
    return (struct rope_options){.dims = 64, .base = 1e6, .pairs = ROPE_HALVES, .max_positions = MAX_POSITIONS};
}

static struct rope *must_create(const struct rope_options *options)
{
    struct error err = {0};
    struct rope *rope = rope_create(options, &err);
    if (!rope)
        fail_msg("%s", err.text);
    return rope;
}

static double angle_of(const struct rope_options *options, int64_t position, int pair)
{
    double theta = pow(options->base, -2.0 * pair / options->dims);
    if (options->divisors)
        theta /= options->divisors[pair];
    return (double)position * theta;
}

static void check_angles(const struct rope_options *options)
{
    const int64_t positions[] = {0, 1, 1023, 1024, 1025, 65535, 1000003, MAX_POSITIONS - 1};
    struct rope *rope = must_create(options);
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        float cosines[DIM / 2], sines[DIM / 2];
        rope_angles(rope, positions[p], cosines, sines);
        for (int i = 0; i < options->dims / 2; i++) {
            double angle = angle_of(options, positions[p], i);
            assert_true(fabs(cosines[i] - cos(angle)) < 1e-6);
            assert_true(fabs(sines[i] - sin(angle)) < 1e-6);
        }
    }
    rope_free(rope);
}

static void angles_equal_fp64_up_to_two_million(void **state)
{
    (void)state;
    struct rope_options options = usual_options();
    check_angles(&options);
    options.base = 10000;
    options.dims = DIM;
    check_angles(&options);
}

static void divisors_slow_each_pair_down(void **state)
{
    (void)state;
    float divisors[32];
    for (int i = 0; i < 32; i++)
        divisors[i] = 1.0f + 0.25f * (float)i;
    struct rope_options options = usual_options();
    options.divisors = divisors;
    check_angles(&options);
}

static void check_rotation(enum rope_pairs pairs)
{
    struct rope_options options = usual_options();
    options.pairs = pairs;
    struct rope *rope = must_create(&options);
    const int64_t position = 123457;
    const float scale = 0.125f;
    int half = options.dims / 2;
    float x[DIM], out[DIM], cosines[32], sines[32];
    for (int i = 0; i < DIM; i++)
        x[i] = sinf((float)(3 * i + 1));
    rope_angles(rope, position, cosines, sines);
    rope_rotate(rope, cosines, sines, x, out, DIM, scale);
    for (int i = 0; i < half; i++) {
        int a = pairs == ROPE_HALVES ? i : 2 * i, b = pairs == ROPE_HALVES ? i + half : 2 * i + 1;
        double angle = angle_of(&options, position, i);
        assert_true(fabs(out[a] - (x[a] * cos(angle) - x[b] * sin(angle)) * scale) < 1e-6);
        assert_true(fabs(out[b] - (x[a] * sin(angle) + x[b] * cos(angle)) * scale) < 1e-6);
    }
    for (int i = options.dims; i < DIM; i++)
        assert_true(out[i] == x[i] * scale);
    rope_rotate(rope, cosines, sines, x, x, DIM, scale);
    assert_memory_equal(x, out, sizeof x);
    rope_free(rope);
}

static void neighbours_are_rotated_and_the_rest_passes_through(void **state)
{
    (void)state;
    check_rotation(ROPE_NEIGHBOURS);
}

static void halves_are_rotated_and_the_rest_passes_through(void **state)
{
    (void)state;
    check_rotation(ROPE_HALVES);
}

static void a_score_depends_on_the_distance_only(void **state)
{
    (void)state;
    struct rope_options options = usual_options();
    struct rope *rope = must_create(&options);
    double first = 0;
    for (int64_t shift = 0; shift < 2000000; shift += 199999) {
        float cosines[32], sines[32], q[64], k[64];
        for (int i = 0; i < 64; i++) {
            q[i] = sinf((float)i);
            k[i] = cosf((float)(5 * i));
        }
        rope_angles(rope, shift + 40, cosines, sines);
        rope_rotate(rope, cosines, sines, q, q, 64, 1.0f);
        rope_angles(rope, shift, cosines, sines);
        rope_rotate(rope, cosines, sines, k, k, 64, 1.0f);
        double score = 0;
        for (int i = 0; i < 64; i++)
            score += (double)q[i] * k[i];
        if (shift == 0)
            first = score;
        assert_true(fabs(score - first) < 1e-5);
    }
    rope_free(rope);
}

static void options_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    const float zero_divisors[32] = {0};
    struct rope_options bad[5];
    for (int i = 0; i < 5; i++)
        bad[i] = usual_options();
    bad[0].dims = 63;
    bad[1].dims = 0;
    bad[2].base = 0;
    bad[3].base = NAN;
    bad[4].divisors = zero_divisors;
    for (int i = 0; i < 5; i++) {
        struct error err = {0};
        assert_null(rope_create(&bad[i], &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
    rope_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(angles_equal_fp64_up_to_two_million),
        cmocka_unit_test(divisors_slow_each_pair_down),
        cmocka_unit_test(neighbours_are_rotated_and_the_rest_passes_through),
        cmocka_unit_test(halves_are_rotated_and_the_rest_passes_through),
        cmocka_unit_test(a_score_depends_on_the_distance_only),
        cmocka_unit_test(options_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
