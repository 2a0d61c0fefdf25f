/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attention/position.h"

enum { MAX_DIMS = 256, TRAINED = 8192 };

/* One of transformers' cases: see tests/reference/positions.py. */
struct reference {
    struct position_method method;
    struct position_base base;
    int64_t length;
    double attention_factor;
    double thetas[MAX_DIMS / 2];
};

static float short_factors[MAX_DIMS / 2], long_factors[MAX_DIMS / 2];

static enum position_kind kind_of(const char *name)
{
    int kind = 0;
    while (kind < POSITION_KINDS && strcmp(position_kind_name((enum position_kind)kind), name) != 0)
        kind++;
    assert_true(kind < POSITION_KINDS);
    return (enum position_kind)kind;
}

static bool read_reference(FILE *in, struct reference *out)
{
    char name[16];
    struct position_method read = {0}, *m = &out->method;
    int truncate;
    long long trained, length;
    const int found =
        fscanf(in, "%15s %d %lf %lld %lld %lf %lf %lf %d %lf %lf %lf %lf %lf", name, &out->base.dims,
               &out->base.base, &trained, &length, &read.factor, &read.beta_fast, &read.beta_slow, &truncate,
               &read.mscale, &read.mscale_all_dim, &read.attention_factor, &read.low_freq, &read.high_freq);
    if (found == EOF)
        return false;
    assert_int_equal(found, 14);
    assert_int_equal(fscanf(in, "%lf", &out->attention_factor), 1);
    assert_in_range(out->base.dims, 2, MAX_DIMS);
    for (int i = 0; i < out->base.dims / 2; i++)
        assert_int_equal(fscanf(in, "%lf", &out->thetas[i]), 1);
    *m = read;
    m->kind = kind_of(name);
    m->trained = trained;
    m->untruncated = !truncate;
    m->short_factors = short_factors;
    m->long_factors = long_factors;
    out->length = length;
    return true;
}

static void check_reference(const struct reference *reference)
{
    struct error err = {0};
    const char *name = position_kind_name(reference->method.kind);
    double thetas[MAX_DIMS / 2];
    if (position_method_check(&reference->method, reference->base.dims, &err) != 0)
        fail_msg("%s", err.text);
    const double factor = position_method_attention_factor(&reference->method);
    if (!(fabs(factor / reference->attention_factor - 1) <= 1e-6))
        fail_msg("%s: attention factor %g, wanted %g", name, factor, reference->attention_factor);
    position_method_thetas(&reference->method, &reference->base, reference->length, thetas);
    for (int i = 0; i < reference->base.dims / 2; i++)
        if (!(fabs(thetas[i] / reference->thetas[i] - 1) <= 1e-7))
            fail_msg("%s, %d dims, base %g, factor %g, length %lld: theta %d is %.9g, wanted %.9g (off by %.2g)",
                     name, reference->base.dims, reference->base.base, reference->method.factor,
                     (long long)reference->length, i, thetas[i], reference->thetas[i],
                     thetas[i] / reference->thetas[i] - 1);
}

static void frequencies_and_temperatures_equal_transformers(void **state)
{
    (void)state;
    struct reference reference = {0};
    int cases = 0;
    for (int i = 0; i < MAX_DIMS / 2; i++) {
        short_factors[i] = 1 + (float)i / 64;
        long_factors[i] = 1 + (float)i / 4;
    }
    FILE *in = fopen(TEST_DATA_DIR "/data/positions/methods.txt", "r");
    assert_non_null(in);
    for (; read_reference(in, &reference); cases++)
        check_reference(&reference);
    fclose(in);
    assert_true(cases > 100);
}

static void ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all(void **state)
{
    (void)state;
    struct position_method none, ntk;
    const struct position_base base = {64, 10000, NULL};
    double plain[32], slowed[32];
    position_method_defaults(&none, POSITION_NONE);
    position_method_defaults(&ntk, POSITION_NTK);
    ntk.factor = 5;
    position_method_thetas(&none, &base, 1, plain);
    position_method_thetas(&ntk, &base, 1, slowed);
    assert_true(fabs(plain[0] / slowed[0] - 1) < 1e-12);
    assert_true(fabs(plain[31] / slowed[31] - 5) < 1e-9);
}

static void divisors_of_the_file_stay_under_every_method(void **state)
{
    (void)state;
    float divisors[32];
    for (int i = 0; i < 32; i++)
        divisors[i] = 1 + (float)i / 8;
    const struct position_base plain = {64, 10000, NULL}, divided = {64, 10000, divisors};
    const enum position_kind kinds[] = {POSITION_NONE, POSITION_PI, POSITION_NTK, POSITION_DYNAMIC, POSITION_YARN};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct position_method method;
        double without[32], with[32];
        position_method_defaults(&method, kinds[k]);
        method.factor = 4;
        method.trained = TRAINED;
        position_method_thetas(&method, &plain, 2 * TRAINED, without);
        position_method_thetas(&method, &divided, 2 * TRAINED, with);
        for (int i = 0; i < 32; i++)
            assert_true(fabs(without[i] / with[i] / (double)divisors[i] - 1) < 1e-12);
    }
}

static struct rope *make_rope(const struct position_method *method)
{
    struct error err = {0};
    const struct rope_options options = {.dims = 64, .base = 10000, .max_positions = 65536, .method = *method};
    struct rope *rope = rope_create(&options, &err);
    if (!rope)
        fail_msg("%s", err.text);
    return rope;
}

/* The rope's angles are those of the method at `length`, times the attention factor. */
static void check_rope(const struct rope *rope, const struct position_method *method, int64_t length)
{
    const struct position_base base = {64, 10000, NULL};
    const double factor = position_method_attention_factor(method);
    const int64_t positions[] = {0, 1, 1025, 40000};
    double thetas[32];
    position_method_thetas(method, &base, length, thetas);
    for (size_t p = 0; p < sizeof positions / sizeof *positions; p++) {
        float cosines[32], sines[32];
        rope_angles(rope, positions[p], cosines, sines);
        for (int i = 0; i < 32; i++) {
            assert_true(fabs(cosines[i] - factor * cos((double)positions[p] * thetas[i])) < 1e-6);
            assert_true(fabs(sines[i] - factor * sin((double)positions[p] * thetas[i])) < 1e-6);
        }
    }
}

static void a_rope_of_a_dynamic_method_follows_the_length_and_comes_back(void **state)
{
    (void)state;
    struct position_method method;
    const int64_t lengths[] = {100, TRAINED, TRAINED + 1, 3 * TRAINED, 2 * TRAINED, 100};
    const int64_t revisions[] = {1, 1, 2, 3, 4, 5};
    position_method_defaults(&method, POSITION_DYNAMIC);
    method.trained = TRAINED;
    struct rope *rope = make_rope(&method);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        rope_set_length(rope, lengths[i]);
        check_rope(rope, &method, lengths[i]);
        assert_int_equal(rope_revision(rope), revisions[i]);
    }
    rope_free(rope);
}

static void longrope_has_one_list_within_the_trained_length_and_one_beyond(void **state)
{
    (void)state;
    struct position_method method;
    position_method_defaults(&method, POSITION_LONGROPE);
    for (int i = 0; i < 32; i++) {
        short_factors[i] = 1 + (float)i / 64;
        long_factors[i] = 1 + (float)i / 4;
    }
    method.trained = TRAINED;
    method.factor = 4;
    method.short_factors = short_factors;
    method.long_factors = long_factors;
    struct rope *rope = make_rope(&method);
    const int64_t lengths[] = {1, TRAINED, TRAINED + 1, 3 * TRAINED};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        rope_set_length(rope, lengths[i]);
        check_rope(rope, &method, lengths[i]);
    }
    assert_int_equal(rope_revision(rope), 2); /* one switch, however long the text */
    rope_free(rope);
}

static void other_methods_do_not_change_with_the_length(void **state)
{
    (void)state;
    struct position_method method;
    position_method_defaults(&method, POSITION_YARN);
    method.trained = TRAINED;
    method.factor = 4;
    struct rope *rope = make_rope(&method);
    rope_set_length(rope, 5 * TRAINED);
    assert_int_equal(rope_revision(rope), 1);
    check_rope(rope, &method, 1);
    rope_free(rope);
}

static void methods_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    struct error err = {0};
    struct position_method bad[8];
    const enum position_kind kinds[] = {POSITION_PI,   POSITION_NTK,  POSITION_DYNAMIC, POSITION_YARN,
                                        POSITION_YARN, POSITION_YARN, POSITION_LLAMA3,  POSITION_LONGROPE};
    for (int i = 0; i < 8; i++) {
        position_method_defaults(&bad[i], kinds[i]);
        bad[i].trained = TRAINED;
    }
    bad[0].factor = 0.5;
    bad[1].factor = NAN;
    bad[2].trained = 0;
    bad[3].beta_fast = 1;
    bad[4].attention_factor = -1;
    bad[5].mscale = -1;
    bad[6].high_freq = bad[6].low_freq;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(position_method_check(&bad[i], 64, &err), -1);
        assert_int_equal(err.code, ERROR_INPUT);
    }
    position_method_defaults(&bad[0], POSITION_NTK);
    assert_int_equal(position_method_check(&bad[0], 2, &err), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_and_temperatures_equal_transformers),
        cmocka_unit_test(ntk_slows_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all),
        cmocka_unit_test(divisors_of_the_file_stay_under_every_method),
        cmocka_unit_test(a_rope_of_a_dynamic_method_follows_the_length_and_comes_back),
        cmocka_unit_test(longrope_has_one_list_within_the_trained_length_and_one_beyond),
        cmocka_unit_test(other_methods_do_not_change_with_the_length),
        cmocka_unit_test(methods_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
