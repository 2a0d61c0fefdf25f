/* model/matvec_cuda.h against the plain C variant of model/matvec.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "model/matvec.h"
#include "model/matvec_cuda.h"
#include "tests/unit/on_gpu.h"
#include "tests/unit/random_rows.h"

enum { SEED = 20260304, MAX_N = 4096 };

/* |computed - plain| <= TOLERANCE * sum of |w x|: both are f32 sums. */
static const double TOLERANCE = 2e-6;

struct matrix {
    enum tensor_type type;
    int64_t n, n_rows;
};

/* The largest error of any row. */
static double worst_error(const struct matrix *m, const uint8_t *rows, const float *x, const float *y)
{
    static float w[MAX_N];
    double worst = 0;
    for (int64_t r = 0; r < m->n_rows; r++) {
        const uint8_t *row = rows + (size_t)r * tensor_row_bytes(m->type, m->n);
        double size = 1e-30;
        tensor_row_to_f32(m->type, row, w, m->n);
        for (int64_t i = 0; i < m->n; i++)
            size += fabs((double)w[i] * (double)x[i]);
        const double error =
            fabs((double)y[r] - (double)matvec_row(&matvec_kernel_c, m->type, row, x, m->n)) / size;
        worst = error > worst || isnan(error) ? error : worst;
    }
    return worst;
}

static void check(const struct matrix *m, uint32_t *random)
{
    static float x[MAX_N];
    const size_t bytes = tensor_row_bytes(m->type, m->n) * (size_t)m->n_rows,
                 y_bytes = (size_t)m->n_rows * sizeof *x;
    uint8_t *rows = malloc(bytes);
    float *y = malloc(y_bytes + sizeof *y);
    assert_true(rows && y);
    random_row(rows, bytes, m->type, random);
    for (int64_t i = 0; i < m->n; i++)
        x[i] = (float)random_next(random) * 0x1p-22f - 2;
    y[m->n_rows] = -12345;
    const struct tensor w = {.name = "w",
                             .type = m->type,
                             .n_dims = 2,
                             .dims = {m->n, m->n_rows, 1, 1},
                             .data = gpu_copy(rows, bytes),
                             .bytes = bytes};
    const struct matvec_cuda_vector vector = {gpu_copy(x, (size_t)m->n * sizeof *x),
                                              gpu_copy(y, y_bytes + sizeof *y)};
    gpu_must(matvec_cuda(&w, &vector, gpu_stream, &on_gpu.err));
    gpu_fetch(y, vector.y, y_bytes + sizeof *y);
    const double worst = worst_error(m, rows, x, y);
    if (!(worst <= TOLERANCE))
        fail_msg("seed %d: %s, %lld rows of %lld: relative error %g", SEED, tensor_type_name(m->type),
                 (long long)m->n_rows, (long long)m->n, worst);
    assert_true(y[m->n_rows] == -12345);
    free(rows);
    free(y);
    gpu_forget();
}

static void every_type_and_length_equals_plain_c(void **state)
{
    (void)state;
    static const int64_t blocks[] = {1, 2, 3, 7, 15, 16, 17, 31, 33, 63, 100, 127};
    uint32_t random = SEED;
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++)
        for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
            const struct matrix m = {(enum tensor_type)type,
                                     blocks[i] * tensor_block_elements((enum tensor_type)type), 5};
            if (m.n <= MAX_N)
                check(&m, &random);
        }
}

/* Plain rows of whole units are read otherwise than uneven ones. */
static void long_plain_rows_equal_plain_c(void **state)
{
    (void)state;
    uint32_t random = SEED;
    for (int type = TENSOR_F32; type <= TENSOR_BF16; type++) {
        check(&(struct matrix){(enum tensor_type)type, 8, 3}, &random);
        check(&(struct matrix){(enum tensor_type)type, 576, 9}, &random);
        check(&(struct matrix){(enum tensor_type)type, 4096, 2}, &random);
    }
}

/* A warp has several rows there, of which the last are not all there. */
static void tall_matrices_equal_plain_c(void **state)
{
    (void)state;
    static const int64_t rows[] = {4096 + 1, 16384 + 3};
    uint32_t random = SEED;
    for (size_t i = 0; i < 2; i++) {
        check(&(struct matrix){TENSOR_Q4_1, 64, rows[i]}, &random);
        check(&(struct matrix){TENSOR_Q6_K, 256, rows[i]}, &random);
        check(&(struct matrix){TENSOR_F16, 24, rows[i]}, &random);
        check(&(struct matrix){TENSOR_BF16, 9, rows[i]}, &random);
    }
}

static void what_is_not_aligned_is_refused(void **state)
{
    (void)state;
    struct error err;
    const float *x = gpu_room(80 * sizeof *x);
    const struct tensor w = {.name = "w", .type = TENSOR_F32, .n_dims = 2, .dims = {64, 1, 1, 1}, .data = x};
    const struct matvec_cuda_vector vector = {x + 1, gpu_room(sizeof *x)};
    assert_int_equal(matvec_cuda(&w, &vector, gpu_stream, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    gpu_forget();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_length_equals_plain_c),
        cmocka_unit_test(long_plain_rows_equal_plain_c),
        cmocka_unit_test(tall_matrices_equal_plain_c),
        cmocka_unit_test(what_is_not_aligned_is_refused),
    };
    return gpu_tests(tests);
}
