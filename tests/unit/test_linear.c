/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"
#include "model/linear.h"

static uint64_t seed = 20260131;

static float random_float(void)
{
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    return (float)(int32_t)(seed >> 32) * 0x1p-31F;
}

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(LINEAR_ALIGN, (bytes + LINEAR_ALIGN - 1) / LINEAR_ALIGN * LINEAR_ALIGN);
    assert_non_null(memory);
    memset(memory, 0xff, bytes); /* NaNs, so that padding left unwritten shows */
    return memory;
}

/* A matrix of one or two f32 tensors, packed, with rows of x to apply it to. */
struct fixture {
    struct linear_shape shape;
    float *weights, *bias;
    struct tensor tensors[2];
    const struct tensor *parts[2];
    int n_parts;
    void *packed, *scratch;
    struct linear *linear;
    int64_t rows;
    float *x, *y;
    void *x_typed;
};

static void tensors_fill(struct fixture *f)
{
    const int64_t first = f->n_parts == 2 ? f->shape.n_out / 3 : f->shape.n_out;
    const int64_t rows[2] = {first, f->shape.n_out - first};
    for (int i = 0; i < f->n_parts; i++) {
        const size_t elements = (size_t)(rows[i] * f->shape.n_in);
        f->tensors[i] = (struct tensor){.name = i == 0 ? "first" : "second",
                                        .type = TENSOR_F32,
                                        .n_dims = 2,
                                        .dims = {f->shape.n_in, rows[i], 1, 1},
                                        .data = f->weights + i * first * f->shape.n_in,
                                        .bytes = elements * sizeof(float)};
        f->parts[i] = &f->tensors[i];
    }
}

static void fill_random(float *x, int64_t n, enum dtype dtype)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = dtype == DTYPE_BF16 ? bf16_to_f32(bf16_from_f32(random_float())) : random_float();
}

/* 0, or -1 where this CPU lacks the dtype. Inputs are exact in the dtype, so that only sums are inexact. */
static int setup(struct fixture *f, struct linear_shape shape, int n_parts, int64_t rows)
{
    struct error err;
    size_t bytes;
    *f = (struct fixture){.shape = shape, .n_parts = n_parts, .rows = rows};
    if (linear_packed_bytes(&shape, &bytes, &err) != 0) {
        assert_int_equal(err.code, ERROR_USAGE);
        assert_int_equal(shape.dtype, DTYPE_BF16);
        print_message("%s\n", err.text);
        return -1;
    }
    assert_int_equal(bytes % LINEAR_ALIGN, 0);
    f->weights = aligned((size_t)(shape.n_in * shape.n_out) * sizeof(float));
    f->bias = aligned((size_t)shape.n_out * sizeof(float));
    f->x = aligned((size_t)(rows * shape.n_in) * sizeof(float));
    f->x_typed = aligned((size_t)(rows * shape.n_in) * sizeof(float));
    f->y = aligned((size_t)(rows * shape.n_out) * sizeof(float));
    fill_random(f->weights, shape.n_in * shape.n_out, shape.dtype);
    fill_random(f->x, rows * shape.n_in, shape.dtype);
    fill_random(f->bias, shape.n_out, DTYPE_F32);
    for (int64_t i = 0; i < rows * shape.n_in; i++)
        if (shape.dtype == DTYPE_BF16)
            ((bf16 *)f->x_typed)[i] = bf16_from_f32(f->x[i]);
        else
            ((float *)f->x_typed)[i] = f->x[i];
    tensors_fill(f);
    if (shape.bias)
        f->shape.bias = f->bias;
    f->packed = aligned(bytes);
    f->linear = linear_attach(&f->shape, f->packed, &err);
    assert_non_null(f->linear);
    f->scratch = aligned(linear_scratch_bytes(f->linear));
    return 0;
}

static void teardown(struct fixture *f)
{
    linear_free(f->linear);
    void *const all[] = {f->weights, f->bias, f->x, f->x_typed, f->y, f->packed, f->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

static void pack(struct fixture *f)
{
    struct error err;
    if (linear_pack(f->linear, f->parts, f->n_parts, &err) != 0)
        fail_msg("%s", err.text);
}

static void apply(const struct fixture *f, int64_t first, int64_t rows, float *y)
{
    struct error err;
    const size_t x_row = (size_t)f->shape.n_in * dtype_size(f->shape.dtype);
    const struct linear_rows some = {(const char *)f->x_typed + (size_t)first * x_row, y, rows};
    if (linear_apply(f->linear, &some, f->scratch, &err) != 0)
        fail_msg("%s", err.text);
}

/* The largest error of y in units of sum |x w|, against fp64. */
static double error_of(const struct fixture *f)
{
    double worst = 0;
    for (int64_t r = 0; r < f->rows; r++)
        for (int64_t o = 0; o < f->shape.n_out; o++) {
            double sum = f->shape.bias ? (double)f->bias[o] : 0, size = fabs(sum);
            for (int64_t i = 0; i < f->shape.n_in; i++) {
                double term = (double)f->x[r * f->shape.n_in + i] * (double)f->weights[o * f->shape.n_in + i];
                sum += term;
                size += fabs(term);
            }
            double error = fabs((double)f->y[r * f->shape.n_out + o] - sum) / size;
            worst = error > worst || isnan(error) ? error : worst;
        }
    return worst;
}

static const int64_t shapes[][2] = {{576, 960}, {96, 1152},  {1, 1},    {77, 131},
                                    {33, 7},    {1536, 192}, {64, 193}, {80, 512}};
static const int64_t row_counts[] = {1, 15, 16, 17, 63, LINEAR_TILE_ROWS, LINEAR_TILE_ROWS + 1};
static float some_bias; /* a bias is wanted; setup() puts the fixture's own there */

/* The sums are of f32 in both dtypes: 1e-6 of sum |x w| where the inputs are exact in the dtype. */
static void matches_dense_fp64(enum dtype dtype)
{
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t r = 0; r < sizeof row_counts / sizeof *row_counts; r++) {
            struct fixture f;
            struct linear_shape shape = {shapes[s][0], shapes[s][1], dtype, r % 2 ? &some_bias : NULL};
            if (setup(&f, shape, r % 2 && shape.n_out > 3 ? 2 : 1, row_counts[r]) != 0)
                skip();
            pack(&f);
            apply(&f, 0, f.rows, f.y);
            double error = error_of(&f);
            if (!(error < 1e-6))
                fail_msg("%lld -> %lld, %lld rows: error %g", (long long)shape.n_in, (long long)shape.n_out,
                         (long long)f.rows, error);
            teardown(&f);
        }
}

static void f32_matches_dense_fp64(void **state)
{
    (void)state;
    matches_dense_fp64(DTYPE_F32);
}

static void bf16_matches_dense_fp64(void **state)
{
    (void)state;
    matches_dense_fp64(DTYPE_BF16);
}

static void a_row_is_bit_equal_alone_and_among_others(enum dtype dtype)
{
    enum { ROWS = 2 * LINEAR_TILE_ROWS + 64 + 16 + 5 };
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct fixture f;
        if (setup(&f, (struct linear_shape){shapes[s][0], shapes[s][1], dtype, &some_bias}, 1, ROWS) != 0)
            skip();
        pack(&f);
        apply(&f, 0, ROWS, f.y);
        float *alone = aligned((size_t)(ROWS * f.shape.n_out) * sizeof(float));
        for (int64_t first = 0, rows = 1; first < ROWS; first += rows, rows = i64_min(rows * 2 + 1, ROWS - first))
            apply(&f, first, rows, alone + first * f.shape.n_out);
        assert_memory_equal(alone, f.y, (size_t)(ROWS * f.shape.n_out) * sizeof(float));
        free(alone);
        teardown(&f);
    }
}

static void a_row_of_f32_does_not_depend_on_the_rows_around_it(void **state)
{
    (void)state;
    a_row_is_bit_equal_alone_and_among_others(DTYPE_F32);
}

static void a_row_of_bf16_does_not_depend_on_the_rows_around_it(void **state)
{
    (void)state;
    a_row_is_bit_equal_alone_and_among_others(DTYPE_BF16);
}

static void nothing_is_written_behind_the_last_row(void **state)
{
    (void)state;
    struct fixture f;
    assert_int_equal(setup(&f, (struct linear_shape){64, 100, DTYPE_F32, NULL}, 1, 19), 0);
    pack(&f);
    memset(f.y, 0x5a, (size_t)(f.rows * 100) * sizeof(float));
    float guard = f.y[18 * 100];
    apply(&f, 0, 18, f.y);
    for (int i = 0; i < 100; i++)
        assert_memory_equal(&f.y[18 * 100 + i], &guard, sizeof guard);
    teardown(&f);
}

static void another_linear_over_the_same_memory_gives_the_same(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    assert_int_equal(setup(&f, (struct linear_shape){96, 200, DTYPE_F32, &some_bias}, 2, 40), 0);
    struct linear *other = linear_attach(&f.shape, f.packed, &err);
    assert_non_null(other);
    pack(&f);
    apply(&f, 0, f.rows, f.y);
    float *y = aligned((size_t)(f.rows * 200) * sizeof(float));
    assert_int_equal(linear_apply(other, &(struct linear_rows){f.x_typed, y, f.rows}, f.scratch, &err), 0);
    assert_memory_equal(y, f.y, (size_t)(f.rows * 200) * sizeof(float));
    free(y);
    linear_free(other);
    teardown(&f);
}

static void a_weight_that_is_not_finite_is_refused_by_tensor_and_row(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 4; i++) {
        struct error err;
        struct fixture f;
        assert_int_equal(setup(&f, (struct linear_shape){64, 600, DTYPE_F32, NULL}, 2, 1), 0);
        f.weights[(200 + 321) * 64 + 63] = bad[i]; /* the second tensor starts at row 200 */
        assert_int_equal(linear_pack(f.linear, f.parts, f.n_parts, &err), -1);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_string_equal(err.text, "tensor second: row 321 of 400 holds a weight that is not finite in f32");
        teardown(&f);
    }
}

static void a_weight_that_overflows_bf16_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    if (setup(&f, (struct linear_shape){64, 32, DTYPE_BF16, NULL}, 1, 1) != 0)
        skip();
    f.weights[5 * 64] = 3.4e38F;
    assert_int_equal(linear_pack(f.linear, f.parts, 1, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    assert_string_equal(err.text, "tensor first: row 5 of 32 holds a weight that is not finite in bf16");
    f.weights[5 * 64] = 3.38e38F;
    assert_int_equal(linear_pack(f.linear, f.parts, 1, &err), 0);
    teardown(&f);
}

static void tensors_of_the_wrong_size_are_refused(void **state)
{
    (void)state;
    struct error err;
    struct fixture f;
    assert_int_equal(setup(&f, (struct linear_shape){64, 32, DTYPE_F32, NULL}, 1, 1), 0);
    f.tensors[0].dims[1] = 31;
    assert_int_equal(linear_pack(f.linear, f.parts, 1, &err), -1);
    assert_int_equal(err.code, ERROR_INPUT);
    f.tensors[0].dims[1] = 32;
    f.tensors[0].dims[0] = 63;
    assert_int_equal(linear_pack(f.linear, f.parts, 1, &err), -1);
    assert_string_equal(err.text, "tensor first has rows of 63, not 64");
    teardown(&f);
}

/* Pool threads that pack and apply different linears, and apply the same one. */
enum { ITEMS = 24, THREADS = 4 };
struct shared_work {
    struct fixture *fixtures; /* [ITEMS] */
    const struct fixture *common;
    float *common_y; /* [ITEMS][rows][n_out] */
    int failed[ITEMS];
};

static void work_item(void *context, int64_t item, int thread)
{
    (void)thread;
    struct shared_work *work = context;
    const struct fixture *own = &work->fixtures[item], *common = work->common;
    struct error err;
    const struct linear_rows own_rows = {own->x_typed, own->y, own->rows};
    const struct linear_rows common_rows = {
        common->x_typed, work->common_y + item * common->rows * common->shape.n_out, common->rows};
    work->failed[item] = linear_pack(own->linear, own->parts, own->n_parts, &err) != 0 ||
                         linear_apply(own->linear, &own_rows, own->scratch, &err) != 0 ||
                         linear_apply(common->linear, &common_rows, own->scratch, &err) != 0;
}

static void many_threads_give_what_one_gives(void **state)
{
    (void)state;
    struct error err;
    struct fixture common, fixtures[ITEMS];
    const struct linear_shape shape = {160, 320, DTYPE_F32, &some_bias};
    assert_int_equal(setup(&common, shape, 1, 70), 0);
    pack(&common);
    apply(&common, 0, common.rows, common.y);
    for (int i = 0; i < ITEMS; i++)
        assert_int_equal(setup(&fixtures[i], shape, 2, 70), 0);
    const size_t y_bytes = 70 * 320 * sizeof(float);
    struct shared_work work = {.fixtures = fixtures, .common = &common, .common_y = aligned(ITEMS * y_bytes)};
    struct pool *pool = pool_create(THREADS, &err);
    assert_non_null(pool);
    pool_run(pool, &(struct pool_job){.n_items = ITEMS, .work = work_item, .context = &work});
    pool_free(pool);
    for (int i = 0; i < ITEMS; i++) {
        assert_false(work.failed[i]);
        assert_memory_equal(work.common_y + (size_t)i * 70 * 320, common.y, y_bytes);
        assert_true(error_of(&fixtures[i]) < 1e-6);
        teardown(&fixtures[i]);
    }
    free(work.common_y);
    teardown(&common);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_matches_dense_fp64),
        cmocka_unit_test(bf16_matches_dense_fp64),
        cmocka_unit_test(a_row_of_f32_does_not_depend_on_the_rows_around_it),
        cmocka_unit_test(a_row_of_bf16_does_not_depend_on_the_rows_around_it),
        cmocka_unit_test(nothing_is_written_behind_the_last_row),
        cmocka_unit_test(another_linear_over_the_same_memory_gives_the_same),
        cmocka_unit_test(a_weight_that_is_not_finite_is_refused_by_tensor_and_row),
        cmocka_unit_test(a_weight_that_overflows_bf16_is_refused),
        cmocka_unit_test(tensors_of_the_wrong_size_are_refused),
        cmocka_unit_test(many_threads_give_what_one_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
