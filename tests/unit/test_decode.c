/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/decode.h"
#include "attention/rows.h"

enum { MAX_ROWS = 7, MAX_DIM = ATTN_MAX_DIM };

static const unsigned SEED = 20240917;

/* One stretch of raw keys: turned queries, angles, keys and values in the dtype, and fp64 of the same. */
struct keys_case {
    int n, rows, dim;
    uint8_t offsets[DECODE_STRETCH];
    float angles[DECODE_OFFSETS * 2 * MAX_DIM], q[MAX_ROWS * 2 * MAX_DIM];
    float keys[DECODE_STRETCH * MAX_DIM], values[DECODE_STRETCH * MAX_DIM]; /* rounded to the dtype */
    char raw_keys[DECODE_STRETCH * MAX_DIM * 4], raw_values[DECODE_STRETCH * MAX_DIM * 4];
    float scores[MAX_ROWS * DECODE_STRIDE];
    float o[MAX_ROWS * MAX_DIM], m[MAX_ROWS], l[MAX_ROWS];
};

static struct keys_case s;

static float uniform(void)
{
    return (float)rand() / (float)RAND_MAX * 2.0f - 1.0f;
}

static void fill(float *out, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        out[i] = uniform() * scale;
}

static void make(enum dtype dtype, int n, int rows, int dim, float scale)
{
    const int64_t elements = (int64_t)n * dim;
    s.n = n;
    s.rows = rows;
    s.dim = dim;
    for (int i = 0; i < n; i++)
        s.offsets[i] = (uint8_t)(rand() % DECODE_OFFSETS);
    fill(s.angles, sizeof s.angles / sizeof *s.angles, 1.0f);
    fill(s.q, sizeof s.q / sizeof *s.q, scale);
    fill(s.keys, (size_t)elements, 1.0f);
    fill(s.values, (size_t)elements, 1.0f);
    row_from_f32(dtype, s.keys, s.raw_keys, elements);
    row_from_f32(dtype, s.values, s.raw_values, elements);
    row_to_f32(dtype, s.raw_keys, s.keys, elements);
    row_to_f32(dtype, s.raw_values, s.values, elements);
}

/* The whole stretch by a variant, its keys in runs of at most `run` keys. */
static void compute(const struct decode_variant *variant, enum dtype dtype, int run)
{
    const size_t row_bytes = (size_t)s.dim * dtype_size(dtype);
    for (int at = 0; at < s.n; at += run)
        variant->scores[dtype](&(struct decode_run){.keys = s.raw_keys + (size_t)at * row_bytes,
                                                    .values = s.raw_values + (size_t)at * row_bytes,
                                                    .offsets = s.offsets + at,
                                                    .angles = s.angles,
                                                    .q = s.q,
                                                    .scores = s.scores + at,
                                                    .n = s.n - at < run ? s.n - at : run,
                                                    .rows = s.rows,
                                                    .dim = s.dim});
    variant->sums[dtype](&(struct decode_sums){.values = s.raw_values,
                                               .scores = s.scores,
                                               .state = {s.o, s.m, s.l},
                                               .n = s.n,
                                               .rows = s.rows,
                                               .dim = s.dim});
}

static double score_of(int row, int key)
{
    const float *angles = s.angles + s.offsets[key] * 2 * s.dim, *q = s.q + row * 2 * s.dim;
    double score = 0;
    for (int e = 0; e < s.dim; e++)
        score += (double)s.keys[key * s.dim + e] *
                 ((double)angles[e] * (double)q[e] + (double)angles[s.dim + e] * (double)q[s.dim + e]);
    return score;
}

/* Compare the normalised outputs and the log-sum-exp of every row with fp64. */
static void check(const char *name, double tolerance)
{
    for (int row = 0; row < s.rows; row++) {
        double scores[DECODE_STRETCH], largest = -INFINITY, l = 0;
        for (int key = 0; key < s.n; key++) {
            scores[key] = score_of(row, key);
            largest = fmax(largest, scores[key]);
        }
        for (int key = 0; key < s.n; key++)
            l += exp2(scores[key] - largest);
        assert_float_equal((double)s.m[row] + log2((double)s.l[row]), largest + log2(l), 10 * tolerance);
        for (int e = 0; e < s.dim; e++) {
            double o = 0;
            for (int key = 0; key < s.n; key++)
                o += exp2(scores[key] - largest) * (double)s.values[key * s.dim + e];
            double difference = fabs(o / l - (double)(s.o[row * s.dim + e] / s.l[row]));
            if (!(difference <= tolerance))
                fail_msg("%s: %d keys, row %d of %d, element %d of %d: off by %g (seed %u)", name, s.n, row, s.rows,
                         e, s.dim, difference, SEED);
        }
    }
}

static void for_all_variants(float scale, double tolerance)
{
    static const int ns[] = {1, 2, 15, 16, 17, 31, 100, 255, 256}, dims[] = {16, 48, 64, 80, 128, 256};
    int variants;
    const struct decode_variant *const *variant = decode_variants(&variants);
    for (int i = 0; i < variants; i++) {
        if (!variant[i]->supported())
            continue;
        srand(SEED);
        for (int rows = 1; rows <= MAX_ROWS; rows++)
            for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++)
                for (size_t n = 0; n < sizeof ns / sizeof ns[0]; n++) {
                    enum dtype dtype = rand() % 2 ? DTYPE_BF16 : DTYPE_F32;
                    make(dtype, ns[n], rows, dims[d], scale);
                    compute(variant[i], dtype, n % 2 ? DECODE_RUN : 5);
                    check(variant[i]->name, tolerance);
                }
    }
}

static void every_variant_equals_fp64_on_ugly_shapes(void **state)
{
    (void)state;
    for_all_variants(0.5f, 1e-5);
}

static void large_scores_stay_finite(void **state)
{
    (void)state;
    for_all_variants(1000.0f, 2e-2); /* scores of 10^4 are known to 10^-3 in fp32 */
}

static void a_query_is_turned_by_the_angles_of_its_elements(void **state)
{
    (void)state;
    enum { ROWS = 3, DIM = 80 };
    float q[ROWS * 2 * DIM], cosines[DIM], sines[DIM], out[ROWS * 2 * DIM];
    int variants;
    const struct decode_variant *const *variant = decode_variants(&variants);
    srand(SEED);
    fill(q, ROWS * 2 * DIM, 1.0f);
    fill(cosines, DIM, 1.0f);
    fill(sines, DIM, 1.0f);
    for (int i = 0; i < variants; i++) {
        if (!variant[i]->supported())
            continue;
        variant[i]->turn(&(struct decode_turn){q, cosines, sines, out, ROWS, DIM});
        for (int row = 0; row < ROWS; row++)
            for (int e = 0; e < DIM; e++) {
                float x = q[row * 2 * DIM + e], perp = q[row * 2 * DIM + DIM + e];
                assert_true(fabsf(out[row * 2 * DIM + e] - (x * cosines[e] + perp * sines[e])) <= 1e-6f);
                assert_true(fabsf(out[row * 2 * DIM + DIM + e] - (x * sines[e] - perp * cosines[e])) <= 1e-6f);
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_equals_fp64_on_ugly_shapes),
        cmocka_unit_test(large_scores_stay_finite),
        cmocka_unit_test(a_query_is_turned_by_the_angles_of_its_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
