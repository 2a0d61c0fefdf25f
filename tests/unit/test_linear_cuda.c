/* model/linear_cuda.h against sums in fp64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/linear_cuda.h"
#include "model/ops.h"
#include "tests/unit/on_gpu.h"

enum { SEED = 20260303, Q4_0_BYTES = 18 };

#include "tests/unit/random_floats.h"

/* Numbers that are exact in bf16, so that only sums are inexact. */
static float *random_floats(int64_t n)
{
    float *x = malloc((size_t)n * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = bf16_to_f32(bf16_from_f32(random_float(1)));
    return x;
}

/* A matrix of two tensors on the GPU, and what it was made of. */
struct fixture {
    struct linear_shape shape;
    float *weights, *bias;
    struct tensor tensors[2];
    const struct tensor *parts[2];
    struct linear_cuda *linear;
};

static void setup(struct fixture *f, struct linear_cuda_library *library, int64_t n_in, int64_t n_out, bool biased)
{
    const int64_t rows[2] = {n_out / 3, n_out - n_out / 3};
    f->weights = random_floats(n_in * n_out);
    f->bias = random_floats(n_out);
    f->shape = (struct linear_shape){n_in, n_out, DTYPE_BF16, biased ? f->bias : NULL};
    for (int i = 0; i < 2; i++) {
        f->tensors[i] = (struct tensor){.name = i == 0 ? "first" : "second",
                                        .type = TENSOR_F32,
                                        .n_dims = 2,
                                        .dims = {n_in, rows[i], 1, 1},
                                        .data = f->weights + i * rows[0] * n_in};
        f->parts[i] = &f->tensors[i];
    }
    f->linear = linear_cuda_create(library, &f->shape, NULL, &on_gpu.err);
    if (!f->linear)
        fail_msg("%s", on_gpu.err.text);
}

static void teardown(struct fixture *f)
{
    linear_cuda_free(f->linear);
    free(f->weights);
    free(f->bias);
    gpu_forget();
}

/* y [rows][n_out], of the caller to free. */
static float *apply(const struct fixture *f, const float *x, int64_t rows)
{
    const int64_t n = rows * f->shape.n_in;
    const size_t y_bytes = (size_t)(rows * f->shape.n_out) * sizeof(float);
    bf16 *rounded = malloc((size_t)n * sizeof *rounded);
    float *y = malloc(y_bytes);
    assert_true(rounded && y);
    ops_store(x, rounded, DTYPE_BF16, n);
    const struct linear_rows call = {gpu_copy(rounded, (size_t)n * sizeof *rounded), gpu_room(y_bytes), rows};
    gpu_must(linear_cuda_apply(f->linear, &call, gpu_stream, &on_gpu.err));
    gpu_fetch(y, call.y, y_bytes);
    free(rounded);
    return y;
}

/* The largest error in units of sum |x w|: f32 sums of some thousand terms stay below 2e-6. */
static void check_rows(const struct fixture *f, int64_t rows)
{
    const int64_t n_in = f->shape.n_in, n_out = f->shape.n_out;
    float *x = random_floats(rows * n_in), *y = apply(f, x, rows);
    for (int64_t i = 0; i < rows * n_out; i++) {
        const float *row = x + i / n_out * n_in, *w = f->weights + i % n_out * n_in;
        double sum = f->shape.bias ? (double)f->bias[i % n_out] : 0, size = fabs(sum);
        for (int64_t k = 0; k < n_in; k++) {
            sum += (double)row[k] * (double)w[k];
            size += fabs((double)row[k] * (double)w[k]);
        }
        if (!(fabs((double)y[i] - sum) <= 2e-6 * size))
            fail_msg("seed %d: %lld to %lld, %lld rows: %.9g instead of %.9g", SEED, (long long)n_in,
                     (long long)n_out, (long long)rows, (double)y[i], sum);
    }
    free(x);
    free(y);
}

static struct linear_cuda_library *open_library(void)
{
    struct linear_cuda_library *library = linear_cuda_open(on_gpu.device, &on_gpu.err);
    if (!library)
        fail_msg("%s", on_gpu.err.text);
    return library;
}

static void products_equal_fp64_with_and_without_bias(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{576, 960}, {96, 1152}, {1536, 192}, {64, 193}, {80, 512}, {8, 3}};
    static const int64_t rows[] = {1, 5, 16, 33};
    struct linear_cuda_library *library = open_library();
    for (size_t i = 0; i < 2 * sizeof shapes / sizeof *shapes; i++) {
        struct fixture f;
        setup(&f, library, shapes[i / 2][0], shapes[i / 2][1], i % 2);
        gpu_must(linear_cuda_load(f.linear, f.parts, 2, &on_gpu.err));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            check_rows(&f, rows[r]);
        teardown(&f);
    }
    linear_cuda_close(library);
}

/* More shapes than are remembered, and each of them twice; two linears of one shape with biases of their own. */
static void forgotten_and_shared_choices_do_no_harm(void **state)
{
    (void)state;
    struct linear_cuda_library *library = open_library();
    struct fixture f, g;
    setup(&f, library, 16, 24, true);
    setup(&g, library, 16, 24, true);
    gpu_must(linear_cuda_load(f.linear, f.parts, 2, &on_gpu.err));
    gpu_must(linear_cuda_load(g.linear, g.parts, 2, &on_gpu.err));
    for (int64_t rows = 1; rows <= 150; rows++) {
        check_rows(&f, rows);
        check_rows(&g, rows);
    }
    check_rows(&f, 1);
    linear_cuda_free(g.linear);
    free(g.weights);
    free(g.bias);
    teardown(&f);
    linear_cuda_close(library);
}

static void quantised_tensors_are_loaded_as_their_numbers(void **state)
{
    (void)state;
    enum { N_IN = 64, N_OUT = 600 };
    static uint8_t rows[N_OUT * N_IN / 32 * Q4_0_BYTES];
    static float numbers[N_OUT * N_IN];
    struct linear_cuda_library *library = open_library();
    struct fixture f;
    setup(&f, library, N_IN, N_OUT, false);
    for (size_t i = 0; i < sizeof rows; i++) /* scales of 1 to 1.25, which bf16 holds with their nibbles */
        rows[i] = i % Q4_0_BYTES == 0 ? 0 : i % Q4_0_BYTES == 1 ? 0x3c : (uint8_t)(random_float(1) * 127);
    for (int i = 0; i < 2; i++) {
        f.tensors[i].type = TENSOR_Q4_0;
        f.tensors[i].data = rows + i * tensor_rows(&f.tensors[0]) * (N_IN / 32 * Q4_0_BYTES);
    }
    for (int row = 0; row < N_OUT; row++)
        tensor_row_to_f32(TENSOR_Q4_0, rows + row * (N_IN / 32 * Q4_0_BYTES), numbers + row * N_IN, N_IN);
    memcpy(f.weights, numbers, sizeof numbers);
    gpu_must(linear_cuda_load(f.linear, f.parts, 2, &on_gpu.err));
    check_rows(&f, 7);
    teardown(&f);
    linear_cuda_close(library);
}

static void tensors_that_do_not_fit_and_weights_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct linear_cuda_library *library = open_library();
    struct fixture f;
    setup(&f, library, 64, 600, false);
    f.weights[(200 + 321) * 64 + 63] = 3.4e38F; /* the second tensor starts at row 200 */
    assert_int_equal(linear_cuda_load(f.linear, f.parts, 2, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.text, "tensor second: row 321 of 400 holds a weight that is not finite in bf16");
    f.tensors[1].dims[1] = 399;
    assert_int_equal(linear_cuda_load(f.linear, f.parts, 2, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    teardown(&f);
    linear_cuda_close(library);
}

static void a_linear_of_f32_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct linear_cuda_library *library = open_library();
    assert_null(linear_cuda_create(library, &(struct linear_shape){8, 8, DTYPE_F32, NULL}, NULL, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    linear_cuda_close(library);
}

/* Two linears share a place on the GPU: each is itself after it has been fetched. */
static void matrices_that_the_host_keeps_share_a_place(void **state)
{
    (void)state;
    struct linear_cuda_library *library = open_library();
    struct fixture f, g, *both[] = {&f, &g};
    setup(&f, library, 64, 96, true);
    setup(&g, library, 64, 96, true);
    void *place = gpu_room(linear_cuda_weight_bytes(&f.shape));
    for (int i = 0; i < 2; i++) {
        linear_cuda_free(both[i]->linear);
        both[i]->linear = linear_cuda_create(library, &both[i]->shape, place, &on_gpu.err);
        assert_non_null(both[i]->linear);
        gpu_must(linear_cuda_load(both[i]->linear, both[i]->parts, 2, &on_gpu.err));
    }
    for (int i = 0; i < 6; i++) {
        gpu_must(linear_cuda_fetch(both[i % 2]->linear, gpu_stream, &on_gpu.err));
        check_rows(both[i % 2], 9);
    }
    linear_cuda_free(g.linear);
    free(g.weights);
    free(g.bias);
    teardown(&f);
    linear_cuda_close(library);
}

static void no_rows_are_no_work(void **state)
{
    (void)state;
    struct linear_cuda_library *library = open_library();
    struct fixture f;
    setup(&f, library, 8, 8, true);
    gpu_must(linear_cuda_apply(f.linear, &(struct linear_rows){NULL, NULL, 0}, gpu_stream, &on_gpu.err));
    assert_int_equal(linear_cuda_weight_bytes(&f.shape), 8 * 8 * 2);
    assert_int_equal(linear_cuda_bias_bytes(&f.shape), 8 * 4);
    teardown(&f);
    linear_cuda_close(library);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_fp64_with_and_without_bias),
        cmocka_unit_test(forgotten_and_shared_choices_do_no_harm),
        cmocka_unit_test(quantised_tensors_are_loaded_as_their_numbers),
        cmocka_unit_test(tensors_that_do_not_fit_and_weights_that_are_not_finite_are_refused),
        cmocka_unit_test(a_linear_of_f32_is_refused),
        cmocka_unit_test(matrices_that_the_host_keeps_share_a_place),
        cmocka_unit_test(no_rows_are_no_work),
    };
    return gpu_tests(tests);
}
