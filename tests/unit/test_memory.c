/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "attention/memory.h"
#include "attention/span.h"

static struct error err;
static const struct memory_shape shape = {.layers = 2, .kv_heads = 3, .dim = 4, .dtype = DTYPE_F32, .capacity = 5};

static struct memory *make(enum dtype dtype)
{
    struct memory_shape s = shape;
    s.dtype = dtype;
    struct memory *memory = memory_create(&s, device_cpu(), &err);
    assert_non_null(memory);
    return memory;
}

static void a_token_is_found_in_its_layer_and_head(void **state)
{
    (void)state;
    struct memory *memory = make(DTYPE_F32);
    const int64_t positions[] = {3, 4};
    float k[12], v[12];
    for (int i = 0; i < 12; i++) {
        k[i] = (float)i;
        v[i] = (float)-i;
    }
    assert_int_equal(memory_extend(memory, positions, 2, &err), 0);
    memory_put(memory, 1, 1, k, v);
    for (int head = 0; head < 3; head++) {
        const float *keys = memory_keys(memory, 1, head), *values = memory_values(memory, 1, head);
        assert_memory_equal(keys + 4, k + 4 * head, 4 * sizeof *k);
        assert_memory_equal(values + 4, v + 4 * head, 4 * sizeof *v);
        assert_true(keys[0] == 0 && ((const float *)memory_keys(memory, 0, head))[4] == 0);
    }
    memory_free(memory);
}

static void bf16_rounds_to_nearest(void **state)
{
    (void)state;
    struct memory *memory = make(DTYPE_BF16);
    float k[12] = {1.00390625f, 1.01171875f, 1.005f}, v[12] = {-1.005f}; /* two ties, to even, and above a tie */
    assert_int_equal(memory_extend(memory, (const int64_t[]){0}, 1, &err), 0);
    memory_put(memory, 0, 0, k, v);
    const bf16 *keys = memory_keys(memory, 0, 0), *values = memory_values(memory, 0, 0);
    assert_int_equal(keys[0], 0x3f80);
    assert_int_equal(keys[1], 0x3f82);
    assert_int_equal(keys[2], 0x3f81);
    assert_int_equal(values[0], 0xbf81);
    memory_free(memory);
}

static void more_tokens_than_the_capacity_are_refused(void **state)
{
    (void)state;
    struct memory *memory = make(DTYPE_F32);
    const int64_t positions[] = {0, 1, 2, 3, 4, 5};
    assert_int_equal(memory_extend(memory, positions, 6, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_int_equal(memory->length, 0);
    assert_int_equal(memory_extend(memory, positions, 5, &err), 0);
    assert_int_equal(memory_extend(memory, positions + 5, 1, &err), -1);
    assert_int_equal(memory_extend(memory, NULL, 0, &err), 0);
    assert_int_equal(memory->length, 5);
    memory_free(memory);
}

static void positions_that_do_not_rise_are_refused(void **state)
{
    (void)state;
    struct memory *memory = make(DTYPE_F32);
    assert_int_equal(memory_extend(memory, (const int64_t[]){2, 7}, 2, &err), 0);
    assert_int_equal(memory_extend(memory, (const int64_t[]){7}, 1, &err), -1);
    assert_int_equal(memory_extend(memory, (const int64_t[]){8, 8}, 2, &err), -1);
    assert_int_equal(memory->length, 2);
    memory_reset(memory);
    assert_int_equal(memory_extend(memory, (const int64_t[]){0}, 1, &err), 0);
    assert_int_equal(memory->length, 1);
    memory_free(memory);
}

static void the_last_tokens_stay_in_every_layer(void **state)
{
    (void)state;
    struct memory *memory = memory_create(&shape, device_cpu(), &err);
    assert_non_null(memory);
    assert_int_equal(memory_extend(memory, (const int64_t[]){1, 4, 6, 7, 9}, 5, &err), 0);
    for (int layer = 0; layer < shape.layers; layer++)
        for (int64_t i = 0; i < 5; i++) {
            float k[12], v[12];
            for (int e = 0; e < 12; e++) {
                k[e] = (float)(100 * layer + 20 * i + e);
                v[e] = -k[e];
            }
            memory_put(memory, layer, i, k, v);
        }
    assert_int_equal(memory_keep_last(memory, 3, &err), -1); /* more than half */
    assert_int_equal(memory_keep_last(memory, 2, &err), 0);
    assert_int_equal(memory->length, 2);
    assert_true(memory->positions[0] == 7 && memory->positions[1] == 9);
    for (int layer = 0; layer < shape.layers; layer++)
        for (int head = 0; head < shape.kv_heads; head++)
            for (int i = 0; i < 2 * shape.dim; i++) {
                const int number = 100 * layer + 20 * (3 + i / shape.dim) + head * shape.dim + i % shape.dim;
                assert_true(((const float *)memory_keys(memory, layer, head))[i] == (float)number);
                assert_true(((const float *)memory_values(memory, layer, head))[i] == (float)-number);
            }
    assert_int_equal(memory_extend(memory, (const int64_t[]){10, 11, 12}, 3, &err), 0);
    memory_free(memory);
}

static void bytes_are_counted_and_overflow_is_an_error(void **state)
{
    (void)state;
    struct memory_shape s = shape;
    struct memory_sizes sizes = {0};
    assert_int_equal(memory_bytes(&s, &sizes, &err), 0);
    assert_int_equal(sizes.token, 2 * (2 * 3 * 4 * sizeof(float)));
    assert_int_equal(sizes.keys, 2 * (2 * 3 * 5 * 4 * sizeof(float)));
    assert_int_equal(sizes.positions, 5 * sizeof(int64_t));
    s.capacity = INT64_MAX / 8;
    assert_int_equal(memory_bytes(&s, &sizes, &err), -1);
    assert_int_equal(err.code, ERROR_RESOURCE);
    assert_null(memory_create(&s, device_cpu(), &err));
    assert_int_equal(err.code, ERROR_RESOURCE);
}

static void causal_span_sees_itself_and_all_before(void **state)
{
    (void)state;
    const int64_t positions[] = {0, 5, 6, 100};
    const struct {
        int64_t position, end;
    } cases[] = {{0, 1}, {4, 1}, {5, 2}, {6, 3}, {99, 3}, {100, 4}, {INT64_MAX, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct attn_span span = causal_span(cases[i].position, positions, 4);
        assert_int_equal(span.first, 0);
        assert_int_equal(span.end, cases[i].end);
    }
    assert_int_equal(causal_span(7, positions, 0).end, 0);
    assert_int_equal(causal_span(4, positions + 1, 3).end, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_found_in_its_layer_and_head),
        cmocka_unit_test(bf16_rounds_to_nearest),
        cmocka_unit_test(more_tokens_than_the_capacity_are_refused),
        cmocka_unit_test(positions_that_do_not_rise_are_refused),
        cmocka_unit_test(the_last_tokens_stay_in_every_layer),
        cmocka_unit_test(bytes_are_counted_and_overflow_is_an_error),
        cmocka_unit_test(causal_span_sees_itself_and_all_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
