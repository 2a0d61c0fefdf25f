/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "attention/convolution.h"

enum { DIM = 4, RATE = 3 };

static float number(int i)
{
    return sinf((float)(7 * i + 1));
}

static void offset_keys_give_the_slot_without_the_offset(void **unused)
{
    float weights[DIM * RATE * DIM], bias[DIM], rows[RATE * DIM], moved[RATE * DIM], offset[DIM];
    const struct convolution convolution = {RATE, DIM, weights, bias};
    float out[DIM], expected[DIM];
    (void)unused;
    for (int i = 0; i < DIM * RATE * DIM; i++)
        weights[i] = number(i);
    for (int e = 0; e < DIM; e++) {
        bias[e] = number(100 + e);
        offset[e] = number(200 + e);
    }
    for (int i = 0; i < RATE * DIM; i++) {
        rows[i] = number(300 + i);
        moved[i] = rows[i] + offset[i % DIM];
    }
    convolution_apply(&convolution, DTYPE_F32, rows, offset, out);
    convolution_apply(&convolution, DTYPE_F32, moved, NULL, expected);
    for (int e = 0; e < DIM; e++)
        assert_true(fabsf(out[e] + offset[e] - expected[e]) < 1e-5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offset_keys_give_the_slot_without_the_offset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
