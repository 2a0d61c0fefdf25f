/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/ops.c" /* not ops.h: the variants that this CPU would not choose are tested too */
#include "tests/worse.h"

static uint64_t seed = 20260201;

/* Uniform in -size .. size. */
static float random_float(float size)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (float)(int32_t)(seed >> 32) * 0x1p-31F * size;
}

static float *random_floats(int64_t n, float size)
{
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = random_float(size);
    return x;
}

static double relative_error(double got, double expected)
{
    return expected == 0 ? fabs(got) : fabs(got - expected) / fabs(expected);
}

/* ! (error <= limit) also catches NaN */
#define assert_relative(got, expected, limit)                                                                      \
    do {                                                                                                           \
        double error_ = relative_error((double)(got), (double)(expected));                                         \
        if (!(error_ <= (limit)))                                                                                  \
            fail_msg("%.9g instead of %.9g: relative error %g", (double)(got), (double)(expected), error_);        \
    } while (0)

static const int64_t widths[] = {1, 7, 15, 16, 17, 576, 896, 1000};
enum { N_WIDTHS = sizeof widths / sizeof *widths, ROWS = 3 };

static void rms_norm_matches_fp64(void **state)
{
    (void)state;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (int w = 0; w < N_WIDTHS; w++) {
        const int64_t n = widths[w];
        float *x = random_floats(ROWS * n, 30), *weight = random_floats(n, 2);
        float *out = malloc((size_t)(ROWS * n) * sizeof *out);
        const struct rms_norm norm = {weight, n, 1e-5F};
        ops_rms_norm(&norm, x, out, DTYPE_F32, ROWS);
        for (int64_t r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += (double)x[r * n + i] * (double)x[r * n + i];
            const double scale = 1 / sqrt(sum / (double)n + (double)norm.eps);
            for (int64_t i = 0; i < n; i++)
                assert_relative(out[r * n + i], (double)x[r * n + i] * scale * (double)weight[i], 1e-6);
        }
        free(x), free(weight), free(out);
    }
}

static void rms_norm_of_zeros_is_zero(void **state)
{
    (void)state;
    float x[20] = {0}, weight[20], out[20];
    for (int i = 0; i < 20; i++)
        weight[i] = 1;
    ops_rms_norm(&(struct rms_norm){weight, 20, 1e-6F}, x, out, DTYPE_F32, 1);
    for (int i = 0; i < 20; i++)
        assert_true(out[i] == 0.0F);
}

static void bf16_output_is_the_f32_output_rounded(void **state)
{
    (void)state;
    const int64_t n = 579;
    float *x = random_floats(ROWS * 2 * n, 8), *weight = random_floats(n, 2);
    float *full = malloc((size_t)(ROWS * n) * sizeof *full);
    bf16 *rounded = malloc((size_t)(ROWS * n) * sizeof *rounded);
    const struct rms_norm norm = {weight, n, 1e-5F};
    ops_rms_norm(&norm, x, full, DTYPE_F32, ROWS);
    ops_rms_norm(&norm, x, rounded, DTYPE_BF16, ROWS);
    for (int64_t i = 0; i < ROWS * n; i++)
        assert_int_equal(rounded[i], bf16_from_f32(full[i]));
    for (int activation = 0; activation < 2; activation++) {
        const struct ops_gate gate = {(enum activation)activation, n};
        ops_gate(&gate, x, full, DTYPE_F32, ROWS);
        ops_gate(&gate, x, rounded, DTYPE_BF16, ROWS);
        for (int64_t i = 0; i < ROWS * n; i++)
            assert_int_equal(rounded[i], bf16_from_f32(full[i]));
    }
    ops_store(x, rounded, DTYPE_BF16, ROWS * n);
    for (int64_t i = 0; i < ROWS * n; i++)
        assert_int_equal(rounded[i], bf16_from_f32(x[i]));
    free(x), free(weight), free(full), free(rounded);
}

static void stored_nans_and_infinities_stay_what_they_are(void **state)
{
    (void)state;
    float x[37];
    bf16 out[37];
    for (int i = 0; i < 37; i++)
        x[i] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY;
    ops_store(x, out, DTYPE_BF16, 37);
    for (int i = 0; i < 37; i++)
        assert_true(i % 3 == 0 ? isnan(bf16_to_f32(out[i])) : bf16_to_f32(out[i]) == x[i]);
}

/* Gates from -80 to 80 in steps finer than the exponential's pieces: this is the test of its accuracy. */
static void swiglu_matches_fp64_over_the_whole_range_of_gates(void **state)
{
    (void)state;
    enum { GATES = 400003 };
    float *gate_up = random_floats(2 * GATES, 4), *out = malloc(GATES * sizeof *out);
    for (int i = 0; i < GATES; i++)
        gate_up[i] = -80.0F + 160.0F * (float)i / GATES;
    ops_gate(&(struct ops_gate){ACTIVATION_SILU, GATES}, gate_up, out, DTYPE_F32, 1);
    double worst = 0;
    for (int i = 0; i < GATES; i++) {
        double g = (double)gate_up[i], expected = g / (1 + exp(-g)) * (double)gate_up[GATES + i];
        if (fabs(expected) < 1.2e-38) /* subnormal in f32 */
            continue;
        worst = worse(worst, relative_error((double)out[i], expected));
    }
    print_message("largest relative error %.2g\n", worst);
    assert_true(worst < 4e-7);
    free(gate_up), free(out);
}

/* x Phi(x) with its cubic: what transformers calls gelu_pytorch_tanh. */
static void gelu_tanh_matches_fp64(void **state)
{
    (void)state;
    enum { GATES = 400003 };
    float *gate_up = random_floats(2 * GATES, 4), *out = malloc(GATES * sizeof *out);
    for (int i = 0; i < GATES; i++) {
        gate_up[i] = -20.0F + 40.0F * (float)i / GATES;
        gate_up[GATES + i] = 1;
    }
    ops_gate(&(struct ops_gate){ACTIVATION_GELU_TANH, GATES}, gate_up, out, DTYPE_F32, 1);
    double relative = 0, absolute = 0;
    for (int i = 0; i < GATES; i++) {
        const double g = (double)gate_up[i], h = sqrt(8 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
        const double expected = g / (1 + exp(-h));
        if (g >= -3)
            relative = worse(relative, relative_error((double)out[i], expected));
        else
            absolute = worse(absolute, fabs((double)out[i] - expected));
    }
    print_message("largest relative error %.2g, absolute below -3 %.2g\n", relative, absolute);
    assert_true(relative < 2e-6 && absolute < 1e-8);
    free(gate_up), free(out);
}

static void gates_apart_are_gated_as_gates_in_rows(void **state)
{
    (void)state;
    enum { N = 77 };
    float *gate_up = random_floats(2 * N, 4), together[N];
    ops_gate(&(struct ops_gate){ACTIVATION_GELU_TANH, N}, gate_up, together, DTYPE_F32, 1);
    ops_gate_apart(ACTIVATION_GELU_TANH, gate_up, gate_up + N, N);
    assert_memory_equal(gate_up + N, together, sizeof together);
    free(gate_up);
}

static void swiglu_of_huge_gates_saturates(void **state)
{
    (void)state;
    float gate_up[8] = {1e4F, -1e4F, 200, -200, 1, 1, 2, 2}, out[4];
    ops_gate(&(struct ops_gate){ACTIVATION_SILU, 4}, gate_up, out, DTYPE_F32, 1);
    assert_true(out[0] == 1e4F && out[2] == 400);
    assert_true(fabsf(out[1]) < 1e-30F && fabsf(out[3]) < 1e-30F);
}

static void swiglu_rows_hold_gates_then_ups(void **state)
{
    (void)state;
    /* silu(1) = 0.731058578630004879 */
    float gate_up[8] = {1, 0, 2, 100, 0, 1, 100, 3}, out[4];
    ops_gate(&(struct ops_gate){ACTIVATION_SILU, 2}, gate_up, out, DTYPE_F32, 2);
    assert_relative(out[0], 2 * 0.731058578630004879, 1e-6);
    assert_true(out[1] == 0 && out[2] == 0);
    assert_relative(out[3], 3 * 0.731058578630004879, 1e-6);
}

static void add_adds(void **state)
{
    (void)state;
    float *x = random_floats(101, 1), *y = random_floats(101, 1), before[101];
    memcpy(before, x, sizeof before);
    ops_add(x, y, 101);
    for (int i = 0; i < 101; i++)
        assert_true(x[i] == before[i] + y[i]);
    free(x), free(y);
}

static void embed_copies_and_scales_the_rows_that_the_ids_name(void **state)
{
    (void)state;
    float table[5 * 8], out[3 * 8];
    for (int i = 0; i < 5 * 8; i++)
        table[i] = (float)i;
    const struct tensor embedding = {.name = "embedding",
                                     .type = TENSOR_F32,
                                     .n_dims = 2,
                                     .dims = {8, 5, 1, 1},
                                     .data = table,
                                     .bytes = sizeof table};
    ops_embed(&embedding, (const int32_t[]){4, 0, 4}, 3, 1, out);
    assert_memory_equal(out, table + 4 * 8, 8 * sizeof *out);
    assert_memory_equal(out + 8, table, 8 * sizeof *out);
    assert_memory_equal(out + 16, table + 4 * 8, 8 * sizeof *out);
    ops_embed(&embedding, (const int32_t[]){2}, 1, 3, out);
    for (int i = 0; i < 8; i++)
        assert_true(out[i] == 3 * table[2 * 8 + i]);
}

static void log_softmax_matches_fp64(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 2, 15, 16, 1023, 1024, 1025, 49152, 151936};
    const float spreads[] = {1, 20, 1e4F};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t k = 0; k < sizeof spreads / sizeof *spreads; k++) {
            const int64_t n = sizes[s], id = n / 2;
            float *x = random_floats(n, spreads[k]);
            int64_t top = 0;
            for (int64_t i = 1; i < n; i++)
                top = x[i] > x[top] ? i : top;
            double sum = 0;
            for (int64_t i = 0; i < n; i++)
                sum += exp((double)x[i] - (double)x[top]);
            const double lse = (double)x[top] + log(sum);
            struct ops_logprob got = ops_log_softmax(x, n, id);
            assert_int_equal(got.top, top);
            /* both are differences of numbers of the size of the logits: half an ulp of those, and the sum's error
             */
            const double limit = 3e-7 + 6e-8 * (fabs(lse) + fabs((double)x[id] - lse));
            assert_true(fabs((double)got.log_sum_exp - lse) <= limit);
            assert_true(fabs((double)got.logprob - ((double)x[id] - lse)) <= limit);
            free(x);
        }
}

static void equal_logits_give_the_lowest_id(void **state)
{
    (void)state;
    float x[3000];
    for (int i = 0; i < 3000; i++)
        x[i] = -2;
    struct ops_logprob got = ops_log_softmax(x, 3000, 2999);
    assert_int_equal(got.top, 0);
    assert_relative(got.logprob, -log(3000.0), 1e-6);
    x[77] = x[2998] = -1;
    assert_int_equal(ops_log_softmax(x, 3000, 0).top, 77);
}

static void a_nan_among_the_logits_shows_in_the_sum(void **state)
{
    (void)state;
    float x[100] = {0};
    x[63] = NAN;
    assert_true(isnan(ops_log_softmax(x, 100, 5).log_sum_exp));
    for (int i = 0; i < 100; i++)
        x[i] = NAN;
    assert_true(isnan(ops_log_softmax(x, 100, 5).logprob));
}

/* The narrower ones cannot be had otherwise on a CPU that has the wider ones. */
static void every_variant_gives_what_plain_c_gives(void **state)
{
    (void)state;
    const struct cpu_features features = cpu_features();
    const struct ops_variant *const variants[] = {features.avx2_fma ? &variant_avx2 : &variant_plain,
                                                  features.avx512 ? &variant_avx512 : &variant_plain};
    enum { N = 1733 };
    float *x = random_floats(2 * N, 10), plain[N], wide[N];
    bf16 plain_bf16[N], wide_bf16[N];
    const struct rms_norm norm = {x + N, N, 1e-5F};
    for (int v = 0; v < 2; v++) {
        const struct ops_variant *variant = variants[v];
        variant_plain.norm_row(&norm, x, plain, DTYPE_F32), variant->norm_row(&norm, x, wide, DTYPE_F32);
        for (int i = 0; i < N; i++)
            assert_relative(wide[i], plain[i], 1e-6);
        for (int a = 0; a < 2; a++) {
            variant_plain.gate_row[a](&(struct gate_row){x, x + N, plain, DTYPE_F32, N});
            variant->gate_row[a](&(struct gate_row){x, x + N, wide, DTYPE_F32, N});
            for (int i = 0; i < N; i++)
                assert_true(fabsf(wide[i] - plain[i]) <= 1e-6F * fabsf(plain[i]) + 1e-7F);
        }
        variant_plain.store_row(x, plain_bf16, N), variant->store_row(x, wide_bf16, N);
        assert_memory_equal(wide_bf16, plain_bf16, sizeof plain_bf16);
        const float top = variant->largest(x, N);
        assert_true(top == variant_plain.largest(x, N));
        assert_relative(variant->sum_of_exps(x, N, top), variant_plain.sum_of_exps(x, N, top), 1e-6);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_matches_fp64),
        cmocka_unit_test(rms_norm_of_zeros_is_zero),
        cmocka_unit_test(bf16_output_is_the_f32_output_rounded),
        cmocka_unit_test(stored_nans_and_infinities_stay_what_they_are),
        cmocka_unit_test(swiglu_matches_fp64_over_the_whole_range_of_gates),
        cmocka_unit_test(gelu_tanh_matches_fp64),
        cmocka_unit_test(gates_apart_are_gated_as_gates_in_rows),
        cmocka_unit_test(swiglu_of_huge_gates_saturates),
        cmocka_unit_test(swiglu_rows_hold_gates_then_ups),
        cmocka_unit_test(add_adds),
        cmocka_unit_test(embed_copies_and_scales_the_rows_that_the_ids_name),
        cmocka_unit_test(log_softmax_matches_fp64),
        cmocka_unit_test(equal_logits_give_the_lowest_id),
        cmocka_unit_test(a_nan_among_the_logits_shows_in_the_sum),
        cmocka_unit_test(every_variant_gives_what_plain_c_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
