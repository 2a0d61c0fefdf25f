/* model/ops_cuda.h against model/ops.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/ops_cuda.h"
#include "tests/unit/on_gpu.h"

enum { ROWS = 3, MOST = 4100, SEED = 20260301 };

#include "tests/unit/random_floats.h"

static const int64_t widths[] = {1, 7, 16, 17, 64, 576, 896, 1000, 4096};
enum { N_WIDTHS = sizeof widths / sizeof *widths };

/* Within a few roundings of f32, and of bf16 within one of its last places more. */
static void assert_near(const void *got, const float *expected, int64_t n, enum dtype dtype)
{
    for (int64_t i = 0; i < n; i++) {
        const float x = dtype == DTYPE_BF16 ? bf16_to_f32(((const bf16 *)got)[i]) : ((const float *)got)[i];
        const float limit = (dtype == DTYPE_BF16 ? 0x1p-8F : 0) + 4e-6F;
        if (!(fabsf(x - expected[i]) <= limit * fabsf(expected[i]) + 1e-30F))
            fail_msg("seed %d: element %lld of %lld: %.9g instead of %.9g", SEED, (long long)i, (long long)n,
                     (double)x, (double)expected[i]);
    }
}

/* Numbers on the GPU, not aligned to more than one of them if so wanted. */
static float *copy_floats(const float *x, int64_t n, bool aligned)
{
    if (aligned)
        return gpu_copy(x, (size_t)n * sizeof *x);
    float *room = gpu_room((size_t)(n + 1) * sizeof *x);
    gpu_must(on_gpu.device->copy(room + 1, x, (size_t)n * sizeof *x, DEVICE_FROM_HOST, NULL, &on_gpu.err));
    return room + 1;
}

static float x[ROWS * 2 * MOST], y[ROWS * 2 * MOST], weight[MOST], post[MOST], expected[ROWS * 2 * MOST],
    got[ROWS * 2 * MOST];

static void check_rms_norm(int64_t n, enum dtype dtype, bool aligned)
{
    const size_t bytes = (size_t)(ROWS * n) * dtype_size(dtype);
    const struct rms_norm norm = {weight, n, 1e-5F};
    fill(x, ROWS * n, 30);
    fill(weight, n, 2);
    ops_rms_norm(&norm, x, expected, DTYPE_F32, ROWS);
    float *const at = copy_floats(x, ROWS * n, aligned);
    const struct ops_cuda_rms_norm call = {.norm = {copy_floats(weight, n, true), n, 1e-5F},
                                           .x = at,
                                           .out = dtype == DTYPE_F32 ? at : gpu_room(bytes),
                                           .dtype = dtype,
                                           .rows = ROWS};
    gpu_must(ops_cuda_rms_norm(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(got, call.out, bytes);
    assert_near(got, expected, ROWS * n, dtype);
    gpu_forget();
}

static void rms_norm_is_that_of_the_cpu_in_place_and_in_bf16(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_WIDTHS; i++)
        check_rms_norm(widths[i / 4], i % 2 ? DTYPE_BF16 : DTYPE_F32, i / 2 % 2);
}

static void check_add_norm(int64_t n, bool with_post, bool with_norm)
{
    const struct rms_norm norm = {weight, n, 1e-6F}, post_norm = {post, n, 1e-6F};
    fill(x, ROWS * n, 20);
    fill(y, ROWS * n, 5);
    fill(weight, n, 2);
    fill(post, n, 2);
    struct ops_cuda_add_norm call = {.norm = {with_norm ? copy_floats(weight, n, true) : NULL, n, 1e-6F},
                                     .post_weight = with_post ? copy_floats(post, n, true) : NULL,
                                     .x = copy_floats(x, ROWS * n, true),
                                     .y = copy_floats(y, ROWS * n, n != 576),
                                     .out = gpu_room((size_t)(ROWS * n) * sizeof(bf16)),
                                     .dtype = DTYPE_BF16,
                                     .rows = ROWS};
    if (with_post)
        ops_rms_norm(&post_norm, y, y, DTYPE_F32, ROWS);
    ops_add(x, y, ROWS * n);
    gpu_must(ops_cuda_add_norm(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(got, call.x, (size_t)(ROWS * n) * sizeof *got);
    for (int64_t i = 0; i < ROWS * n; i++)
        assert_true(fabsf(got[i] - x[i]) <= 4e-6F * (fabsf(x[i]) + fabsf(y[i])));
    memset(expected, 0, sizeof expected);
    if (with_norm)
        ops_rms_norm(&norm, got, expected, DTYPE_F32, ROWS);
    gpu_fetch(got, call.out, (size_t)(ROWS * n) * sizeof(bf16));
    assert_near(got, expected, ROWS * n, DTYPE_BF16);
    gpu_forget();
}

static void a_sum_is_added_and_normed_with_and_without_a_norm_of_what_is_added(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_WIDTHS; i++)
        check_add_norm(widths[i / 4], i % 2, i / 2 % 2);
}

static void check_gate(int64_t ffn, enum dtype dtype, enum activation activation)
{
    const struct ops_gate gate = {activation, ffn};
    const size_t bytes = (size_t)(ROWS * ffn) * dtype_size(dtype);
    fill(x, ROWS * 2 * ffn, activation == ACTIVATION_SILU ? 40 : 3);
    ops_gate(&gate, x, expected, DTYPE_F32, ROWS);
    const struct ops_cuda_gate call = {.gate = gate,
                                       .gate_up = copy_floats(x, ROWS * 2 * ffn, true),
                                       .out = gpu_room(bytes),
                                       .dtype = dtype,
                                       .rows = ROWS};
    gpu_must(ops_cuda_gate(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(got, call.out, bytes);
    assert_near(got, expected, ROWS * ffn, dtype);
    gpu_forget();
}

static void gates_are_those_of_the_cpu(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_WIDTHS; i++)
        check_gate(widths[i / 4], i % 2 ? DTYPE_BF16 : DTYPE_F32,
                   i / 2 % 2 ? ACTIVATION_GELU_TANH : ACTIVATION_SILU);
}

static void huge_gates_saturate(void **state)
{
    (void)state;
    float gate_up[8] = {1e4F, -1e4F, 200, -200, 1, 1, 2, 2}, out[4];
    const struct ops_cuda_gate call = {.gate = {ACTIVATION_SILU, 4},
                                       .gate_up = gpu_copy(gate_up, sizeof gate_up),
                                       .out = gpu_room(sizeof out),
                                       .dtype = DTYPE_F32,
                                       .rows = 1};
    gpu_must(ops_cuda_gate(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(out, call.out, sizeof out);
    assert_true(out[0] == 1e4F && out[2] == 400);
    assert_true(fabsf(out[1]) < 1e-30F && fabsf(out[3]) < 1e-30F);
    gpu_forget();
}

static void check_head_norms(int dim, bool of_queries, bool of_keys)
{
    enum { HEADS = 5, KV_HEADS = 2 };
    const int64_t stride = (HEADS + 2 * KV_HEADS) * dim;
    const struct rms_norm queries = {weight, dim, 1e-5F}, keys = {post, dim, 1e-5F};
    fill(x, ROWS * stride, 9);
    fill(weight, dim, 2);
    fill(post, dim, 2);
    struct ops_cuda_head_norms call = {.qkv = copy_floats(x, ROWS * stride, true),
                                       .stride = stride,
                                       .heads = HEADS,
                                       .kv_heads = KV_HEADS,
                                       .dim = dim,
                                       .query_norm = of_queries ? copy_floats(weight, dim, true) : NULL,
                                       .key_norm = of_keys ? copy_floats(post, dim, true) : NULL,
                                       .eps = 1e-5F,
                                       .rows = ROWS};
    for (int64_t row = 0; row < ROWS; row++) {
        float *qkv = x + row * stride, *k = qkv + HEADS * dim;
        if (of_queries)
            ops_rms_norm(&queries, qkv, qkv, DTYPE_F32, HEADS);
        if (of_keys)
            ops_rms_norm(&keys, k, k, DTYPE_F32, KV_HEADS);
    }
    gpu_must(ops_cuda_head_norms(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(got, call.qkv, (size_t)(ROWS * stride) * sizeof *got);
    assert_near(got, x, ROWS * stride, DTYPE_F32);
    gpu_forget();
}

static void heads_are_normed_and_values_left_alone(void **state)
{
    (void)state;
    static const int dims[] = {64, 80, 128, 256, 33};
    for (int i = 0; i < 4 * 5; i++)
        check_head_norms(dims[i / 4], i % 2, i / 2 % 2);
}

static void log_softmax(int64_t vocab, const int32_t *ids, struct ops_logprob *out)
{
    const struct ops_cuda_log_softmax call = {.logits = copy_floats(x, ROWS * vocab, true),
                                              .vocab = vocab,
                                              .ids = gpu_copy(ids, ROWS * sizeof *ids),
                                              .out = gpu_room(ROWS * sizeof *out),
                                              .rows = ROWS};
    gpu_must(ops_cuda_log_softmax(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(out, call.out, ROWS * sizeof *out);
    gpu_forget();
}

static void log_softmax_is_that_of_the_cpu(void **state)
{
    (void)state;
    for (int w = 0; w < N_WIDTHS; w++) {
        const int64_t n = widths[w];
        const int32_t ids[ROWS] = {0, (int32_t)(n - 1), (int32_t)(n / 2)};
        struct ops_logprob out[ROWS];
        fill(x, ROWS * n, 12);
        for (int64_t i = 0; i < ROWS * n; i += 3)
            x[i] = roundf(x[i]); /* so that there are ties for the top */
        log_softmax(n, ids, out);
        for (int row = 0; row < ROWS; row++) {
            const struct ops_logprob same = ops_log_softmax(x + row * n, n, ids[row]);
            assert_true(fabsf(out[row].log_sum_exp - same.log_sum_exp) <= 4e-6F);
            assert_true(fabsf(out[row].logprob - same.logprob) <= 6e-6F);
            assert_int_equal(out[row].top, same.top);
        }
    }
}

static void the_lowest_of_equal_logits_is_the_top(void **state)
{
    (void)state;
    enum { VOCAB = 4096 };
    static const int32_t ids[ROWS] = {0, 1, 2}, first[ROWS] = {2049, 3, 4095};
    struct ops_logprob out[ROWS];
    for (int64_t i = 0; i < ROWS * VOCAB; i++)
        x[i] = -INFINITY;
    for (int row = 0; row < ROWS; row++)
        for (int i = first[row]; i < VOCAB; i += 37)
            x[row * VOCAB + i] = -500;
    log_softmax(VOCAB, ids, out);
    for (int row = 0; row < ROWS; row++) {
        assert_int_equal(out[row].top, first[row]);
        assert_true(isinf(out[row].logprob) && out[row].logprob < 0);
    }
}

static void a_nan_among_logits_shows(void **state)
{
    (void)state;
    enum { VOCAB = 1000 };
    static const int32_t ids[ROWS] = {0, 1, 2};
    struct ops_logprob out[ROWS];
    fill(x, ROWS * VOCAB, 3);
    x[VOCAB + 777] = NAN;
    log_softmax(VOCAB, ids, out);
    assert_false(isnan(out[0].log_sum_exp));
    assert_true(isnan(out[1].log_sum_exp) && isnan(out[1].logprob));
}

static void no_rows_are_no_work(void **state)
{
    (void)state;
    gpu_must(ops_cuda_rms_norm(&(struct ops_cuda_rms_norm){.norm = {NULL, 64, 1}}, gpu_stream, &on_gpu.err));
    gpu_must(ops_cuda_add_norm(&(struct ops_cuda_add_norm){.norm = {NULL, 64, 1}}, gpu_stream, &on_gpu.err));
    gpu_must(ops_cuda_gate(&(struct ops_cuda_gate){.gate = {ACTIVATION_SILU, 64}}, gpu_stream, &on_gpu.err));
    gpu_must(ops_cuda_log_softmax(&(struct ops_cuda_log_softmax){.vocab = 64}, gpu_stream, &on_gpu.err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rms_norm_is_that_of_the_cpu_in_place_and_in_bf16),
        cmocka_unit_test(a_sum_is_added_and_normed_with_and_without_a_norm_of_what_is_added),
        cmocka_unit_test(gates_are_those_of_the_cpu),
        cmocka_unit_test(huge_gates_saturate),
        cmocka_unit_test(heads_are_normed_and_values_left_alone),
        cmocka_unit_test(log_softmax_is_that_of_the_cpu),
        cmocka_unit_test(the_lowest_of_equal_logits_is_the_top),
        cmocka_unit_test(a_nan_among_logits_shows),
        cmocka_unit_test(no_rows_are_no_work),
    };
    return gpu_tests(tests);
}
