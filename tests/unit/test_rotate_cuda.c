/* attention/rotate_cuda.h against what attention/position.h, memory.h and span.h say of single tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "attention/kernel.h"
#include "attention/rotate_cuda.h"
#include "attention/rows.h"
#include "attention/span.h"
#include "base/num.h"
#include "tests/unit/on_gpu.h"

enum { HEADS = 6, KV_HEADS = 2, GROUP = HEADS / KV_HEADS, TOKENS = 5, KEYS = 70, FIRST = 3, CAPACITY = 80 };
enum { KEY_ROWS = 192, POSITIONS = 5000, SEED = 20260302 };

#include "tests/unit/random_floats.h"

/* A head whose first `dims` elements turn. */
struct head {
    int dim, dims;
    enum rope_pairs pairs;
};

/* The last ones have pairs that are no multiple of four. */
static const struct head kinds[] = {{64, 64, ROPE_HALVES},  {64, 64, ROPE_NEIGHBOURS},  {80, 80, ROPE_HALVES},
                                    {128, 96, ROPE_HALVES}, {128, 96, ROPE_NEIGHBOURS}, {256, 256, ROPE_HALVES},
                                    {80, 20, ROPE_HALVES},  {80, 20, ROPE_NEIGHBOURS},  {96, 6, ROPE_NEIGHBOURS}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

struct fixture {
    struct head head;
    struct rope *rope;
    struct rope_cuda copy;
};

static void setup(struct fixture *f, const struct head *head)
{
    const struct rope_options options = {
        .dims = head->dims, .base = 10000, .pairs = head->pairs, .max_positions = POSITIONS};
    f->head = *head;
    f->rope = rope_create(&options, &on_gpu.err);
    assert_non_null(f->rope);
    gpu_must(rope_cuda_create(&f->copy, f->rope, on_gpu.device, &on_gpu.err));
}

static void teardown(struct fixture *f)
{
    rope_cuda_free(&f->copy);
    rope_free(f->rope);
    gpu_forget();
}

/* One head of a token rotated, as ring_block.c and ring_message.c have it. */
static void rotate(const struct fixture *f, int64_t position, const float *x, float *out, float scale)
{
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2];
    rope_angles(f->rope, position, cosines, sines);
    rope_rotate(f->rope, cosines, sines, x, out, f->head.dim, scale);
}

/* bf16 within one of its last places; `size` is that of the terms of which x is the sum. */
static void assert_rounded(bf16 got, float x, float size)
{
    const float error = fabsf(bf16_to_f32(got) - x);
    if (!(error <= 0x1p-8f * fabsf(x) + 1e-6f * size))
        fail_msg("seed %d: %.9g instead of %.9g", SEED, (double)bf16_to_f32(got), (double)x);
}

static float q[TOKENS * (HEADS * 256 + 8)], o[TOKENS * HEADS * 256];
static bf16 rotated[TOKENS * HEADS * 256];

static void check_queries(const struct fixture *f, int64_t stride)
{
    static const int64_t positions[TOKENS] = {0, 1, 1023, 1024, POSITIONS - 1};
    const int dim = f->head.dim;
    const size_t rows = TOKENS * HEADS, elements = rows * (size_t)dim;
    float m[TOKENS * HEADS], l[TOKENS * HEADS], expected[ATTN_MAX_DIM];
    fill(q, TOKENS * stride, 4);
    fill(o, (int64_t)elements, 1);
    const struct rotate_cuda_queries call = {.heads = HEADS,
                                             .kv_heads = KV_HEADS,
                                             .dim = dim,
                                             .tokens = TOKENS,
                                             .q = gpu_copy(q, (size_t)(TOKENS * stride) * sizeof *q),
                                             .stride = stride,
                                             .positions = gpu_copy(positions, sizeof positions),
                                             .scale = 0.125F,
                                             .out = gpu_room(elements * sizeof(bf16)),
                                             .o = gpu_copy(o, elements * sizeof *o),
                                             .m = gpu_room(sizeof m),
                                             .l = gpu_copy(o, sizeof l)};
    gpu_must(rotate_cuda_queries(&f->copy, &call, gpu_stream, &on_gpu.err));
    gpu_fetch(rotated, call.out, elements * sizeof *rotated);
    gpu_fetch(o, call.o, elements * sizeof *o);
    gpu_fetch(m, call.m, sizeof m);
    gpu_fetch(l, call.l, sizeof l);
    for (int i = 0; i < TOKENS * HEADS; i++) {
        const int token = i / HEADS, head = i % HEADS;
        const int row = (head / GROUP * TOKENS + token) * GROUP + head % GROUP;
        rotate(f, positions[token], q + token * stride + head * dim, expected, 0.125F * ATTN_LOG2_E);
        for (int e = 0; e < dim; e++) {
            assert_rounded(rotated[row * dim + e], expected[e], 1);
            assert_true(o[row * dim + e] == 0);
        }
        assert_true(m[row] == -INFINITY && l[row] == 0);
    }
}

static void queries_are_rotated_and_their_state_begun(void **state)
{
    (void)state;
    for (int i = 0; i < 3 * N_KINDS; i++) {
        struct fixture f;
        setup(&f, &kinds[i / 3]);
        check_queries(&f, HEADS * f.head.dim + (i % 3 == 2 ? 3 : 4 * (i % 3)));
        teardown(&f);
    }
}

/* A memory of one layer and what becomes of a piece of it. */
static bf16 raw_keys[KV_HEADS * CAPACITY * 256], raw_values[KV_HEADS * CAPACITY * 256];
static bf16 k[KV_HEADS * KEY_ROWS * 256], v[KV_HEADS * KEY_ROWS * 256];
static float offset[KV_HEADS * 256], slow_cosine[256];
static int64_t key_positions[KEYS];

static void fill_memory(int dim)
{
    for (int i = 0; i < KV_HEADS * CAPACITY * dim; i++) {
        raw_keys[i] = bf16_from_f32(random_float(2));
        raw_values[i] = bf16_from_f32(random_float(2));
    }
    fill(offset, KV_HEADS * dim, 100);
    for (int e = 0; e < dim; e++)
        slow_cosine[e] = e % 3 == 0 ? 1 : 0;
    for (int i = 0; i < KEYS; i++)
        key_positions[i] = i * 67;
}

static void check_key(const struct fixture *f, int head, int index, bool with_offset)
{
    const int dim = f->head.dim;
    const bf16 *key = k + (head * KEY_ROWS + index) * dim, *value = v + (head * KEY_ROWS + index) * dim;
    const size_t from = (size_t)(head * CAPACITY + FIRST + index) * (size_t)dim;
    float raw[ATTN_MAX_DIM], expected[ATTN_MAX_DIM];
    row_to_f32(DTYPE_BF16, raw_keys + from, raw, dim);
    for (int e = 0; with_offset && e < dim; e++)
        raw[e] += offset[head * dim + e];
    rotate(f, key_positions[index], raw, expected, 1);
    for (int e = 0; e < dim; e++) {
        if (with_offset)
            expected[e] -= offset[head * dim + e] * slow_cosine[e];
        assert_rounded(key[e], expected[e], with_offset ? 100 : 2);
    }
    assert_memory_equal(value, raw_values + from, (size_t)dim * sizeof *value);
}

static void check_keys(const struct fixture *f, int n, bool with_offset)
{
    const int dim = f->head.dim, padded = (int)i64_round_up(n, ATTN_KEY_TILE);
    const size_t memory_bytes = (size_t)(KV_HEADS * CAPACITY * dim) * sizeof(bf16),
                 bytes = (size_t)(KV_HEADS * KEY_ROWS * dim) * sizeof(bf16);
    fill_memory(dim);
    memset(k, 0x5a, bytes);
    memset(v, 0x5a, bytes);
    const struct rotate_cuda_keys call = {
        .kv_heads = KV_HEADS,
        .dim = dim,
        .capacity = CAPACITY,
        .first = FIRST,
        .n = n,
        .keys = gpu_copy(raw_keys, memory_bytes),
        .values = gpu_copy(raw_values, memory_bytes),
        .positions = gpu_copy(key_positions, sizeof key_positions),
        .offset = with_offset ? gpu_copy(offset, (size_t)(KV_HEADS * dim) * sizeof *offset) : NULL,
        .slow_cosine = with_offset ? gpu_copy(slow_cosine, (size_t)dim * sizeof *slow_cosine) : NULL,
        .key_rows = KEY_ROWS,
        .k = gpu_copy(k, bytes),
        .v = gpu_copy(v, bytes)};
    gpu_must(rotate_cuda_keys(&f->copy, &call, gpu_stream, &on_gpu.err));
    gpu_fetch(k, call.k, bytes);
    gpu_fetch(v, call.v, bytes);
    for (int head = 0; head < KV_HEADS; head++) {
        for (int i = 0; i < n; i++)
            check_key(f, head, i, with_offset);
        for (int i = n * dim; i < KEY_ROWS * dim; i++) {
            const bf16 untouched = i < padded * dim ? 0 : 0x5a5a;
            assert_int_equal(k[head * KEY_ROWS * dim + i], untouched);
            assert_int_equal(v[head * KEY_ROWS * dim + i], untouched);
        }
    }
}

static void keys_are_rotated_beside_their_values_and_tiles_padded(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_KINDS; i++) {
        struct fixture f;
        setup(&f, &kinds[i / 4]);
        check_keys(&f, i % 2 ? KEYS : 64, i / 2 % 2);
        teardown(&f);
    }
}

static void the_tables_follow_the_length_of_the_text(void **state)
{
    (void)state;
    struct rope_options options = {.dims = 64, .base = 10000, .pairs = ROPE_HALVES, .max_positions = POSITIONS};
    struct fixture f = {.head = {64, 64, ROPE_HALVES}};
    position_method_defaults(&options.method, POSITION_DYNAMIC);
    options.method.factor = 2;
    options.method.trained = 512;
    f.rope = rope_create(&options, &on_gpu.err);
    assert_non_null(f.rope);
    gpu_must(rope_cuda_create(&f.copy, f.rope, on_gpu.device, &on_gpu.err));
    check_queries(&f, HEADS * 64);
    const int64_t before = f.copy.revision;
    rope_set_length(f.rope, 4000);
    gpu_must(rope_cuda_update(&f.copy, f.rope, gpu_stream, &on_gpu.err));
    assert_true(f.copy.revision != before && f.copy.revision == rope_revision(f.rope));
    check_queries(&f, HEADS * 64);
    teardown(&f);
}

static void spans_are_those_of_the_cpu(void **state)
{
    (void)state;
    enum { QUERIES = 300 };
    int64_t queries[QUERIES];
    struct attend_span spans[QUERIES];
    fill_memory(64);
    for (int i = 0; i < QUERIES; i++) /* two stretches; keys at multiples of 67 */
        queries[i] = i < 100 ? i : 2000 + 13 * i;
    for (int i = 0; i < 6; i++) {
        const int keys = i % 3 * (KEYS / 2);
        const int64_t window = i < 3 ? 0 : 1000;
        const struct rotate_cuda_spans call = {.query_positions = gpu_copy(queries, sizeof queries),
                                               .tokens = QUERIES,
                                               .window = window,
                                               .key_positions = gpu_copy(key_positions, sizeof key_positions),
                                               .keys = keys,
                                               .spans = gpu_room(sizeof spans)};
        gpu_must(rotate_cuda_spans(&call, gpu_stream, &on_gpu.err));
        gpu_fetch(spans, call.spans, sizeof spans);
        for (int t = 0; t < QUERIES; t++) {
            const int64_t end = causal_span(queries[t], key_positions, keys).end;
            const int64_t before = causal_span(queries[t] - window, key_positions, keys).end;
            assert_true(spans[t].first == (window > 0 ? before : 0) && spans[t].end == end);
        }
    }
    gpu_forget();
}

static void check_finish(int dim)
{
    const size_t rows = TOKENS * HEADS, elements = rows * (size_t)dim;
    float m[TOKENS * HEADS] = {0}, l[TOKENS * HEADS], lse[TOKENS * HEADS];
    fill(o, (int64_t)elements, 3);
    for (size_t i = 0; i < rows; i++)
        l[i] = i % 7 == 2 ? 0 : 2 + random_float(1);
    struct rotate_cuda_finish call = {.heads = HEADS,
                                      .kv_heads = KV_HEADS,
                                      .dim = dim,
                                      .tokens = TOKENS,
                                      .o = gpu_copy(o, elements * sizeof *o),
                                      .l = gpu_copy(l, sizeof l),
                                      .out = gpu_room(elements * sizeof(bf16))};
    gpu_must(rotate_cuda_finish(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(rotated, call.out, elements * sizeof *rotated);
    attn_state_finish(&(struct attn_state){o, m, l}, (int)rows, dim, lse);
    for (int row = 0; row < (int)rows; row++) {
        const int kv_head = row / (TOKENS * GROUP), token = row / GROUP % TOKENS;
        const bf16 *out = rotated + (token * HEADS + kv_head * GROUP + row % GROUP) * dim;
        for (int e = 0; e < dim; e++)
            assert_rounded(out[e], l[row] == 0 ? 0 : o[row * dim + e], 0);
    }
    gpu_forget();
}

static void a_finished_state_is_that_of_the_cpu_heads_side_by_side(void **state)
{
    (void)state;
    static const int dims[] = {64, 80, 256};
    for (size_t i = 0; i < sizeof dims / sizeof *dims; i++)
        check_finish(dims[i]);
}

static void check_put(int dim, int64_t stride)
{
    const size_t bytes = (size_t)(KV_HEADS * CAPACITY * dim) * sizeof(bf16);
    fill(q, TOKENS * stride, 4);
    fill_memory(dim);
    const float *qkv = gpu_copy(q, (size_t)(TOKENS * stride) * sizeof *q);
    const struct memory_cuda_put call = {.kv_heads = KV_HEADS,
                                         .dim = dim,
                                         .rows = TOKENS,
                                         .k = qkv + dim,
                                         .v = qkv + dim + KV_HEADS * dim,
                                         .stride = stride,
                                         .capacity = CAPACITY,
                                         .first = CAPACITY - TOKENS,
                                         .keys = gpu_copy(raw_keys, bytes),
                                         .values = gpu_copy(raw_values, bytes)};
    gpu_must(memory_cuda_put(&call, gpu_stream, &on_gpu.err));
    gpu_fetch(k, call.keys, bytes);
    gpu_fetch(v, call.values, bytes);
    for (int i = 0; i < TOKENS * KV_HEADS; i++) { /* into the memory of before */
        const int token = i / KV_HEADS, head = i % KV_HEADS;
        const float *row = q + token * stride + (1 + head) * dim;
        const int at = (head * CAPACITY + CAPACITY - TOKENS + token) * dim;
        row_from_f32(DTYPE_BF16, row, raw_keys + at, dim);
        row_from_f32(DTYPE_BF16, row + KV_HEADS * dim, raw_values + at, dim);
    }
    assert_memory_equal(k, raw_keys, bytes);
    assert_memory_equal(v, raw_values, bytes);
    gpu_forget();
}

static void keys_and_values_are_kept_as_the_cpu_keeps_them(void **state)
{
    (void)state;
    check_put(64, 6 * 64);
    check_put(64, 6 * 64 + 1);
    check_put(80, 5 * 80);
    check_put(128, 5 * 128);
}

static void no_rows_are_no_work(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, &kinds[0]);
    gpu_must(rotate_cuda_queries(&f.copy, &(struct rotate_cuda_queries){.dim = 64}, gpu_stream, &on_gpu.err));
    gpu_must(rotate_cuda_keys(&f.copy, &(struct rotate_cuda_keys){.dim = 64}, gpu_stream, &on_gpu.err));
    gpu_must(rotate_cuda_spans(&(struct rotate_cuda_spans){.keys = 1}, gpu_stream, &on_gpu.err));
    gpu_must(rotate_cuda_finish(&(struct rotate_cuda_finish){.dim = 64}, gpu_stream, &on_gpu.err));
    gpu_must(memory_cuda_put(&(struct memory_cuda_put){.dim = 64}, gpu_stream, &on_gpu.err));
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_are_rotated_and_their_state_begun),
        cmocka_unit_test(keys_are_rotated_beside_their_values_and_tiles_padded),
        cmocka_unit_test(the_tables_follow_the_length_of_the_text),
        cmocka_unit_test(spans_are_those_of_the_cpu),
        cmocka_unit_test(a_finished_state_is_that_of_the_cpu_heads_side_by_side),
        cmocka_unit_test(keys_and_values_are_kept_as_the_cpu_keeps_them),
        cmocka_unit_test(no_rows_are_no_work),
    };
    return gpu_tests(tests);
}
