/* base/tensor.c and base/quant.c against tests/data/quant, which tests/reference/quant.py makes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/quant.h"
#include "base/tensor.h"

enum { MAX_ELEMENTS = 1024 };

struct vector {
    uint32_t n;
    uint8_t row[4 * MAX_ELEMENTS];
    float numbers[MAX_ELEMENTS];
};

static void vector_read(enum tensor_type type, struct vector *out)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data/quant/%s.bin", TEST_DATA_DIR, tensor_type_name(type));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(&out->n, sizeof out->n, 1, file), 1);
    assert_in_range(out->n, 1, MAX_ELEMENTS);
    size_t bytes = tensor_row_bytes(type, out->n);
    assert_int_equal(fread(out->row, 1, bytes, file), bytes);
    assert_int_equal(fread(out->numbers, sizeof(float), out->n, file), out->n);
    assert_int_equal(fgetc(file), EOF);
    fclose(file);
}

static void rows_of_every_type_equal_the_reference_bit_for_bit(void **state)
{
    (void)state;
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        struct vector vector;
        float ours[MAX_ELEMENTS];
        vector_read((enum tensor_type)type, &vector);
        tensor_row_to_f32((enum tensor_type)type, vector.row, ours, vector.n);
        for (uint32_t i = 0; i < vector.n; i++)
            if (memcmp(&ours[i], &vector.numbers[i], sizeof(float)) != 0)
                fail_msg("%s: element %u is %a, not %a", tensor_type_name((enum tensor_type)type), i,
                         (double)ours[i], (double)vector.numbers[i]);
    }
}

static void rows_need_no_alignment(void **state)
{
    (void)state;
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        struct vector vector;
        uint8_t shifted[4 * MAX_ELEMENTS + 1];
        float ours[MAX_ELEMENTS];
        vector_read((enum tensor_type)type, &vector);
        memcpy(shifted + 1, vector.row, tensor_row_bytes((enum tensor_type)type, vector.n));
        tensor_row_to_f32((enum tensor_type)type, shifted + 1, ours, vector.n);
        assert_memory_equal(ours, vector.numbers, vector.n * sizeof(float));
    }
}

static void every_half_becomes_its_float(void **state)
{
    (void)state;
    for (uint32_t half = 0; half <= 0xffff; half++) {
        int exponent = half >> 10 & 31;
        float fraction = (float)(half & 1023) / 1024, expected;
        if (exponent == 31)
            expected = (half & 1023) ? NAN : INFINITY;
        else
            expected = exponent ? ldexpf(1 + fraction, exponent - 15) : ldexpf(fraction, -14);
        if (half >> 15)
            expected = -expected;
        float ours = f16_to_f32((uint16_t)half);
        if (isnan(expected))
            assert_true(isnan(ours));
        else
            assert_memory_equal(&ours, &expected, sizeof ours);
    }
}

static void a_row_of_no_elements_writes_nothing(void **state)
{
    (void)state;
    float out = 7;
    for (int type = 0; type < TENSOR_TYPE_COUNT; type++) {
        assert_int_equal(tensor_row_bytes((enum tensor_type)type, 0), 0);
        tensor_row_to_f32((enum tensor_type)type, &out, &out, 0);
    }
    assert_true(out == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_every_type_equal_the_reference_bit_for_bit),
        cmocka_unit_test(rows_need_no_alignment),
        cmocka_unit_test(every_half_becomes_its_float),
        cmocka_unit_test(a_row_of_no_elements_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
