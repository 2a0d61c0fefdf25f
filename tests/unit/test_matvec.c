/* model/matvec.h: every variant that this CPU can run, for every type, against sums in fp64 of the same weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/tensor.h"
#include "model/matvec.h"
#include "tests/unit/random_rows.h"
#include "tests/worse.h"

enum { MAX_N = 4096, ROWS = 7, SEED = 20240607 };

/* |computed - exact| <= TOLERANCE * sum of |w x|: some roundings of 2^-24 each, far below what 8-bit activations
 * would cost (about 4e-3). */
static const double TOLERANCE = 1e-6;

struct row_case {
    const struct matvec_kernel *kernel;
    enum tensor_type type;
    int64_t n;
};

/* The error relative to sum |w x| of one row. */
static double row_error(const struct row_case *c, const uint8_t *row, const float *x)
{
    static float w[MAX_N];
    double exact = 0, size = 0;
    tensor_row_to_f32(c->type, row, w, c->n);
    for (int64_t i = 0; i < c->n; i++) {
        exact += (double)w[i] * (double)x[i];
        size += fabs((double)w[i] * (double)x[i]);
    }
    double computed = (double)matvec_row(c->kernel, c->type, row, x, c->n);
    return size > 0 ? fabs(computed - exact) / size : fabs(computed);
}

/* The largest error seen. */
static double check_case(const struct row_case *c, uint32_t *state)
{
    double worst = 0;
    static float x[MAX_N];
    size_t bytes = tensor_row_bytes(c->type, c->n);
    uint8_t *row = malloc(bytes); /* no byte more: the address sanitizer sees a read beyond it */
    assert_non_null(row);
    for (int repeat = 0; repeat < 4; repeat++) {
        random_row(row, bytes, c->type, state);
        for (int64_t i = 0; i < c->n; i++)
            x[i] = (float)random_next(state) * 0x1p-22f - 2;
        double error = row_error(c, row, x);
        worst = worse(worst, error);
        if (!(error <= TOLERANCE))
            fail_msg("seed %d: %s, %s, n %lld: relative error %g", SEED, c->kernel->name, tensor_type_name(c->type),
                     (long long)c->n, error);
    }
    free(row);
    return worst;
}

static void every_variant_equals_fp64_for_every_type_and_length(void **state)
{
    (void)state;
    uint32_t random = SEED;
    int n_kernels;
    const struct matvec_kernel *const *kernels = matvec_kernels(&n_kernels);
    for (int k = 0; k < n_kernels; k++) {
        if (!kernels[k]->supported())
            continue;
        double worst = 0;
        for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
            static const int64_t blocks[] = {1, 2, 3, 5, 7, 15, 16, 17, 18, 31, 33, 63, 100, 127};
            for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
                struct row_case c = {kernels[k], (enum tensor_type)type, 0};
                c.n = blocks[i] * tensor_block_elements(c.type);
                if (c.n <= MAX_N)
                    worst = worse(worst, check_case(&c, &random));
            }
        }
        print_message("seed %d: %s: largest relative error %.2g\n", SEED, kernels[k]->name, worst);
    }
}

static void only_the_rows_asked_for_are_written(void **state)
{
    (void)state;
    uint32_t random = SEED;
    static uint8_t rows[ROWS * 20 * 2];
    float x[64], y[ROWS];
    for (int r = 0; r < ROWS; r++)
        random_row(rows + (size_t)r * 40, 40, TENSOR_Q4_1, &random);
    for (int i = 0; i < 64; i++)
        x[i] = (float)i - 31;
    for (int r = 0; r < ROWS; r++)
        y[r] = -12345;
    struct tensor w = {
        .type = TENSOR_Q4_1, .n_dims = 2, .dims = {64, ROWS, 1, 1}, .data = rows, .bytes = sizeof rows};
    matvec_rows(&w, x, y, 2, 5);
    for (int r = 0; r < ROWS; r++) {
        double exact = 0;
        float row[64];
        tensor_row_to_f32(TENSOR_Q4_1, rows + r * 40, row, 64);
        for (int i = 0; i < 64; i++)
            exact += (double)row[i] * (double)x[i];
        if (r >= 2 && r < 5)
            assert_true(fabs((double)y[r] - exact) < 1e-3 * (1 + fabs(exact)));
        else
            assert_true(y[r] == -12345);
    }
}

static void the_last_variant_runs_everywhere(void **state)
{
    (void)state;
    int n_kernels;
    const struct matvec_kernel *const *kernels = matvec_kernels(&n_kernels);
    assert_true(n_kernels > 0 && kernels[n_kernels - 1]->supported());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_variant_equals_fp64_for_every_type_and_length),
        cmocka_unit_test(only_the_rows_asked_for_are_written),
        cmocka_unit_test(the_last_variant_runs_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
