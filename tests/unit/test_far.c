/* Far records and their scores: how much four bits lose, how many bytes they take, and that every variant of the
 * scorer says the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "attention/far_score.h"
#include "attention/kernel.h"

static uint32_t state = 12345;

static float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *rows, int n)
{
    for (int i = 0; i < n; i++)
        rows[i] = noise();
}

enum { MOST = FAR_BLOCK * ATTN_MAX_DIM };

static void a_record_takes_less_than_three_tenths_of_bf16(void **unused)
{
    (void)unused;
    for (int dim = 64; dim <= ATTN_MAX_DIM; dim += 32)
        assert_true((double)far_record_bytes(dim) < 0.3 * 2 * FAR_BLOCK * dim * (double)sizeof(bf16));
}

static void four_bits_are_within_half_a_step(void **unused)
{
    static float k[MOST], v[MOST], k2[MOST], v2[MOST];
    static char record[1 << 16];
    (void)unused;
    for (int dim = 16; dim <= ATTN_MAX_DIM; dim += 48) {
        fill(k, FAR_BLOCK * dim);
        fill(v, FAR_BLOCK * dim);
        for (int i = 0; i < FAR_BLOCK * dim; i++)
            k[i] = k[i] * (1 + i % dim) + 3 * (i % dim); /* channels that differ */
        far_record_write(record, DTYPE_F32, dim, k, v);
        far_record_read(record, DTYPE_F32, dim, k2, v2);
        for (int i = 0; i < FAR_BLOCK * dim; i++) {
            const float width = 2.0f * (float)(1 + i % dim), low = 4.0f * (float)(1 + i % dim);
            /* half a step, and what bf16 makes of the lowest */
            assert_true(fabsf(k2[i] - k[i]) <= 0.51f * width / 15 * 1.02f + low / 256);
            assert_true(fabsf(v2[i] - v[i]) <= 0.51f * 1.0f / 7 * 1.02f + 1e-6f);
        }
    }
}

static void a_constant_block_is_kept_as_bf16_has_it(void **unused)
{
    static float rows[FAR_BLOCK * 64], k[FAR_BLOCK * 64], v[FAR_BLOCK * 64];
    static char record[1 << 14];
    (void)unused;
    for (int i = 0; i < FAR_BLOCK * 64; i++)
        rows[i] = 0.15625f;
    far_record_write(record, DTYPE_F32, 64, rows, rows);
    far_record_read(record, DTYPE_F32, 64, k, v);
    for (int i = 0; i < FAR_BLOCK * 64; i++) {
        assert_true(k[i] == 0.15625f);
        assert_true(fabsf(v[i] - 0.15625f) < 0.15625f / 64);
    }
}

/* A lane tile of queries, the keys of a record, and what f64 says of the largest products of its dequantised keys.
 */
static void scores_are_those_of_the_kept_keys(void **unused)
{
    static float k[MOST], v[MOST], q[FAR_LANES][ATTN_MAX_DIM];
    static _Alignas(64) int8_t lanes[FAR_LANES * (ATTN_MAX_DIM + 4)];
    static uint8_t k8[MOST];
    static char record[1 << 16];
    int n;
    const struct far_scorer *const *scorers = far_scorers(&n);
    (void)unused;
    for (int dim = 16; dim <= ATTN_MAX_DIM; dim += 16) {
        float scales[FAR_LANES];
        fill(k, FAR_BLOCK * dim);
        far_record_write(record, DTYPE_F32, dim, k, k);
        far_record_read(record, DTYPE_F32, dim, k, v);
        for (int l = 0; l < FAR_LANES; l++) {
            fill(q[l], dim);
            scales[l] = far_lanes_put(lanes, l, q[l], dim);
        }
        struct far_keys8 keys = {.k = k8, .dim = dim, .n = FAR_BLOCK};
        scorers[n - 1]->read(&keys, record);
        for (int s = 0; s < n; s++) {
            int32_t best[FAR_LANES];
            if (!scorers[s]->supported())
                continue;
            scorers[s]->best(lanes, 1, &keys, best);
            for (int l = 0; l < FAR_LANES; l++) {
                double most = -INFINITY;
                for (int t = 0; t < FAR_BLOCK; t++) {
                    double dot = 0;
                    for (int e = 0; e < dim; e++)
                        dot += (double)q[l][e] * (double)k[t * dim + e];
                    most = fmax(most, dot);
                }
                const double got = (double)best[l] * (double)scales[l] * (double)keys.scale;
                assert_true(fabs(got - most) < 0.01 * sqrt(dim));
            }
        }
    }
}

static void all_variants_give_the_same_products(void **unused)
{
    static float k[MOST], q[ATTN_MAX_DIM];
    static _Alignas(64) int8_t lanes[FAR_TILES * FAR_LANES * (ATTN_MAX_DIM + 4)];
    static uint8_t k8[MOST];
    static char record[1 << 16];
    int n;
    const struct far_scorer *const *scorers = far_scorers(&n);
    (void)unused;
    for (int dim = 16; dim <= ATTN_MAX_DIM; dim += 80) {
        int32_t expected[FAR_TILES][FAR_LANES], got[FAR_TILES][FAR_LANES];
        fill(k, FAR_BLOCK * dim);
        far_record_write(record, DTYPE_F32, dim, k, k);
        for (int row = 0; row < FAR_TILES * FAR_LANES; row++) {
            fill(q, dim);
            far_lanes_put(lanes + (size_t)(row / FAR_LANES) * far_lanes_bytes(dim), row % FAR_LANES, q, dim);
        }
        for (int tiles = 1; tiles <= FAR_TILES; tiles++)
            for (int some = 0; some < 2; some++) {
                struct far_keys8 keys = {.k = k8, .dim = dim, .n = some ? FAR_REPRESENTATIVES : FAR_BLOCK};
                scorers[n - 1]->read(&keys, record);
                scorers[n - 1]->best(lanes, tiles, &keys, expected[0]);
                for (int s = 0; s < n; s++)
                    if (scorers[s]->supported()) {
                        scorers[s]->best(lanes, tiles, &keys, got[0]);
                        assert_memory_equal(got, expected, (size_t)tiles * sizeof *got);
                    }
            }
    }
}

static void all_variants_read_the_same_keys(void **unused)
{
    static float k[MOST];
    static uint8_t expected[MOST], got[MOST];
    static char record[1 << 16];
    int n;
    const struct far_scorer *const *scorers = far_scorers(&n);
    (void)unused;
    for (int dim = 16; dim <= ATTN_MAX_DIM; dim += 80) {
        struct far_keys8 first = {.k = expected, .dim = dim, .n = FAR_BLOCK};
        fill(k, FAR_BLOCK * dim);
        far_record_write(record, DTYPE_F32, dim, k, k);
        scorers[n - 1]->read(&first, record);
        for (int s = 0; s < n; s++) {
            struct far_keys8 keys = {.k = got, .dim = dim, .n = FAR_BLOCK};
            if (!scorers[s]->supported())
                continue;
            scorers[s]->read(&keys, record);
            assert_true(keys.scale == first.scale);
            assert_memory_equal(got, expected, (size_t)(FAR_BLOCK * dim));
        }
    }
}

static double distance(const float *a, const float *b, int dim)
{
    double sum = 0;
    for (int e = 0; e < dim; e++)
        sum += pow((double)a[e] - (double)b[e], 2);
    return sum;
}

/* The distance of a key from the nearest of the first n representatives. */
static double from_nearest(const float *k, int dim, const uint8_t *representatives, int n, int t)
{
    double least = INFINITY;
    for (int i = 0; i < n; i++)
        least = fmin(least, distance(k + t * dim, k + representatives[i] * dim, dim));
    return least;
}

static void representatives_are_far_from_each_other(void **unused)
{
    enum { DIM = 48 };
    static float k[FAR_BLOCK * DIM];
    static uint8_t all[FAR_BLOCK * DIM], some[FAR_BLOCK * DIM];
    static char record[1 << 14];
    (void)unused;
    fill(k, FAR_BLOCK * DIM);
    far_record_write(record, DTYPE_F32, DIM, k, k);
    const uint8_t *chosen = far_record_parts(record, DIM).representatives;
    for (int i = 1; i < FAR_REPRESENTATIVES; i++)
        for (int t = 0; t < FAR_BLOCK; t++)
            assert_true(from_nearest(k, DIM, chosen, i, t) <= from_nearest(k, DIM, chosen, i, chosen[i]) + 1e-4);
    struct far_keys8 whole = {.k = all, .dim = DIM, .n = FAR_BLOCK};
    struct far_keys8 few = {.k = some, .dim = DIM, .n = FAR_REPRESENTATIVES};
    far_scorer_choose()->read(&whole, record);
    far_scorer_choose()->read(&few, record);
    for (int i = 0; i < FAR_REPRESENTATIVES; i++)
        assert_memory_equal(some + i * DIM, all + chosen[i] * DIM, DIM);
}

static void shares_are_those_of_the_scores(void **unused)
{
    enum { ROWS = 4 * FAR_LANES };
    int32_t best[ROWS];
    float scales[ROWS], most[ROWS], factors[ROWS];
    double sum = 0;
    int n;
    const struct far_scorer *const *scorers = far_scorers(&n);
    (void)unused;
    for (int i = 0; i < ROWS; i++) {
        best[i] = (int32_t)(1e5f * noise());
        scales[i] = 1e-3f * (1.5f + noise());
        most[i] = 40;
        factors[i] = i % 7 == 0 ? 0 : 1 + noise();
        const double score = (double)best[i] * (double)scales[i] * 0.5;
        sum += (double)factors[i] * exp2(fmin(0, score - (double)most[i]));
    }
    for (int s = 0; s < n; s++)
        if (scorers[s]->supported()) {
            const struct far_rows rows = {scales, most, factors};
            const double got = (double)scorers[s]->share(best, ROWS / FAR_LANES, 0.5f, &rows);
            assert_true(fabs(got - sum) < 1e-4 * sum);
        }
}

static void weights_are_powers_of_two_and_their_sums(void **unused)
{
    enum { N = 200 };
    static float scores[N * FAR_LANES], copy[N * FAR_LANES];
    int n;
    const struct far_scorer *const *scorers = far_scorers(&n);
    (void)unused;
    for (int s = 0; s < n; s++) {
        float most[FAR_LANES], factors[FAR_LANES];
        double sums[FAR_LANES], weights[N] = {0}, of_block = 0;
        if (!scorers[s]->supported())
            continue;
        for (int i = 0; i < N * FAR_LANES; i++)
            copy[i] = scores[i] = 30 * noise();
        for (int l = 0; l < FAR_LANES; l++)
            most[l] = 30;
        scorers[s]->weigh(scores, N, most, sums);
        for (int l = 0; l < FAR_LANES; l++) {
            double expected = 0;
            for (int i = 0; i < N; i++)
                expected += exp2((double)copy[i * FAR_LANES + l] - 30);
            assert_true(fabs(sums[l] - expected) < 1e-6 * expected);
            factors[l] = (float)l;
        }
        scorers[s]->mix(scores, N, factors, weights);
        for (int l = 0; l < FAR_LANES; l++)
            of_block += l * exp2((double)copy[7 * FAR_LANES + l] - 30);
        assert_true(fabs(weights[7] - of_block) < 1e-6 * of_block);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_takes_less_than_three_tenths_of_bf16),
        cmocka_unit_test(four_bits_are_within_half_a_step),
        cmocka_unit_test(a_constant_block_is_kept_as_bf16_has_it),
        cmocka_unit_test(scores_are_those_of_the_kept_keys),
        cmocka_unit_test(all_variants_give_the_same_products),
        cmocka_unit_test(all_variants_read_the_same_keys),
        cmocka_unit_test(representatives_are_far_from_each_other),
        cmocka_unit_test(shares_are_those_of_the_scores),
        cmocka_unit_test(weights_are_powers_of_two_and_their_sums),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
