/* attention/attend_one_cuda.h against a dense fp64 answer over keys that attention/position.h has rotated. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "attention/attend_one_cuda.h"
#include "attention/kernel.h"
#include "base/num.h"
#include "tests/unit/on_gpu.h"
#include "tests/worse.h"

enum { KV_HEADS = 2, MOST_GROUP = 20, MOST_KEYS = 70000, SPARE = 3, SEED = 20261126 };

#include "tests/unit/random_floats.h"

struct problem {
    int dim, dims; /* dims: elements that turn */
    enum rope_pairs pairs;
    int group;
    int64_t n;
    bool offset;
};

/* Its arrays on the host, and the GPU's view of them. */
struct bed {
    const struct problem *problem;
    struct rope *rope;
    struct rope_cuda copy;
    float *q, *offset, *slow_cosine;
    bf16 *keys, *values;
    int64_t *positions;
    struct attend_one_cuda call;
};

static int64_t capacity_of(const struct problem *p)
{
    return p->n + SPARE;
}

static bf16 *random_rows(int64_t numbers)
{
    bf16 *rows = malloc((size_t)numbers * sizeof *rows);
    assert_non_null(rows);
    for (int64_t i = 0; i < numbers; i++)
        rows[i] = bf16_from_f32(random_float(2));
    return rows;
}

static float *random_numbers(int64_t numbers, float size)
{
    float *all = malloc((size_t)numbers * sizeof *all);
    assert_non_null(all);
    fill(all, numbers, size);
    return all;
}

static void make_host(struct bed *bed)
{
    const struct problem *p = bed->problem;
    const struct rope_options rope = {
        .dims = p->dims, .base = 10000, .pairs = p->pairs, .max_positions = 2 * MOST_KEYS};
    assert_non_null(bed->rope = rope_create(&rope, &on_gpu.err));
    bed->q = random_numbers(KV_HEADS * p->group * p->dim, 3);
    bed->offset = random_numbers(KV_HEADS * p->dim, 5);
    bed->slow_cosine = random_numbers(p->dim, 1);
    bed->keys = random_rows(KV_HEADS * capacity_of(p) * p->dim);
    bed->values = random_rows(KV_HEADS * capacity_of(p) * p->dim);
    assert_non_null(bed->positions = malloc((size_t)capacity_of(p) * sizeof *bed->positions));
    for (int64_t i = 0; i < capacity_of(p); i++)
        bed->positions[i] = 2 * i - i % 2;
}

static void make_device(struct bed *bed)
{
    const struct problem *p = bed->problem;
    const int heads = KV_HEADS * p->group;
    const size_t row = (size_t)p->dim * sizeof(float);
    const size_t key_bytes = (size_t)(KV_HEADS * capacity_of(p) * p->dim) * sizeof(bf16);
    gpu_must(rope_cuda_create(&bed->copy, bed->rope, on_gpu.device, &on_gpu.err));
    bed->call = (struct attend_one_cuda){
        .heads = heads,
        .kv_heads = KV_HEADS,
        .dim = p->dim,
        .q = gpu_copy(bed->q, (size_t)heads * row),
        .position = 2 * p->n,
        .scale = 1 / sqrtf((float)p->dim),
        .n = p->n,
        .capacity = capacity_of(p),
        .keys = gpu_copy(bed->keys, key_bytes),
        .values = gpu_copy(bed->values, key_bytes),
        .positions = gpu_copy(bed->positions, (size_t)capacity_of(p) * sizeof *bed->positions),
        .offset = p->offset ? gpu_copy(bed->offset, KV_HEADS * row) : NULL,
        .slow_cosine = gpu_copy(bed->slow_cosine, row),
        .parts = gpu_room(attend_one_cuda_parts(heads, p->dim) * sizeof(float)),
        .out = gpu_copy(bed->q, (size_t)heads * row), /* what is there before does not matter */
        .lse = gpu_room((size_t)heads * sizeof(float)),
    };
}

static void bed_free(struct bed *bed)
{
    free(bed->positions);
    free(bed->values);
    free(bed->keys);
    free(bed->slow_cosine);
    free(bed->offset);
    free(bed->q);
    rope_cuda_free(&bed->copy);
    rope_free(bed->rope);
    gpu_forget();
}

/* A key as attention sees it. */
static void dense_key(const struct bed *bed, int kv_head, int64_t index, float *out)
{
    const struct problem *p = bed->problem;
    const bf16 *raw = bed->keys + (kv_head * capacity_of(p) + index) * p->dim;
    const float *offset = bed->offset + kv_head * p->dim;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], key[ATTN_MAX_DIM];
    for (int e = 0; e < p->dim; e++)
        key[e] = bf16_to_f32(raw[e]) + (p->offset ? offset[e] : 0);
    rope_angles(bed->rope, bed->positions[index], cosines, sines);
    rope_rotate(bed->rope, cosines, sines, key, out, p->dim, 1);
    for (int e = 0; p->offset && e < p->dim; e++)
        out[e] -= offset[e] * bed->slow_cosine[e];
}

/* scores [n] of a head. */
static void dense_scores(const struct bed *bed, int head, double *scores)
{
    const struct problem *p = bed->problem;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], q[ATTN_MAX_DIM], key[ATTN_MAX_DIM];
    rope_angles(bed->rope, bed->call.position, cosines, sines);
    rope_rotate(bed->rope, cosines, sines, bed->q + head * p->dim, q, p->dim, 1);
    for (int64_t i = 0; i < p->n; i++) {
        dense_key(bed, head / p->group, i, key);
        scores[i] = 0;
        for (int e = 0; e < p->dim; e++)
            scores[i] += (double)q[e] * (double)key[e] * (double)bed->call.scale;
    }
}

/* out [dim]; returns the natural log-sum-exp. */
static double dense_head(const struct bed *bed, int head, double *out)
{
    static double scores[MOST_KEYS];
    const struct problem *p = bed->problem;
    const bf16 *values = bed->values + head / p->group * capacity_of(p) * p->dim;
    double high = -INFINITY, sum = 0;
    dense_scores(bed, head, scores);
    for (int64_t i = 0; i < p->n; i++)
        high = fmax(high, scores[i]);
    for (int e = 0; e < p->dim; e++)
        out[e] = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const double weight = exp(scores[i] - high);
        sum += weight;
        for (int e = 0; e < p->dim; e++)
            out[e] += weight * (double)bf16_to_f32(values[i * p->dim + e]);
    }
    for (int e = 0; e < p->dim; e++)
        out[e] = p->n > 0 ? out[e] / sum : 0;
    return high + log(sum);
}

static void check(const struct problem *p)
{
    enum { MOST_HEADS = KV_HEADS * MOST_GROUP };
    static float out[MOST_HEADS * ATTN_MAX_DIM], lse[MOST_HEADS];
    struct bed bed = {.problem = p};
    double expected[ATTN_MAX_DIM], worst = 0;
    make_host(&bed);
    make_device(&bed);
    gpu_must(attend_one_cuda(&bed.copy, &bed.call, gpu_stream, &on_gpu.err));
    gpu_fetch(out, bed.call.out, (size_t)(bed.call.heads * p->dim) * sizeof *out);
    gpu_fetch(lse, bed.call.lse, (size_t)bed.call.heads * sizeof *lse);
    for (int head = 0; head < bed.call.heads; head++) {
        const double log_sum = dense_head(&bed, head, expected);
        worst = worse(worst, p->n > 0 ? fabs((double)lse[head] - log_sum) : !isinf(lse[head]));
        for (int e = 0; e < p->dim; e++)
            worst = worse(worst, fabs((double)out[head * p->dim + e] - expected[e]));
    }
    if (!(worst <= 2e-5))
        fail_msg("dim %d of which %d turn, group %d, %d keys: off by %g", p->dim, p->dims, p->group, (int)p->n,
                 worst);
    bed_free(&bed);
}

static void heads_of_all_kinds_equal_dense(void **state)
{
    (void)state;
    static const struct problem problems[] = {
        {64, 64, ROPE_HALVES, 7, 300, true},      {64, 64, ROPE_NEIGHBOURS, 3, 300, false},
        {80, 80, ROPE_HALVES, 1, 300, false},     {128, 96, ROPE_HALVES, 4, 300, true},
        {128, 96, ROPE_NEIGHBOURS, 4, 300, true}, {256, 256, ROPE_HALVES, 4, 300, true},
        {80, 20, ROPE_HALVES, 2, 300, true},      {96, 6, ROPE_NEIGHBOURS, 2, 300, false},
        {112, 112, ROPE_HALVES, 8, 300, false},   {256, 256, ROPE_HALVES, 16, 300, false},
        {16, 16, ROPE_NEIGHBOURS, 1, 300, false}};
    for (size_t i = 0; i < sizeof problems / sizeof *problems; i++)
        check(&problems[i]);
}

static void any_number_of_query_heads_shares_a_key(void **state)
{
    (void)state;
    static const int groups[] = {5, 8, 9, 16, 17, MOST_GROUP};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        check(&(struct problem){64, 64, ROPE_HALVES, groups[i], 200, true});
}

static void keys_may_end_anywhere(void **state)
{
    (void)state;
    static const int64_t n[] = {0, 1, 31, 32, 33, 127, 128, 129, 256, 257, 1000};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        check(&(struct problem){64, 64, ROPE_HALVES, 3, n[i], false});
}

/* More keys than all parts have at the least, on cards of up to 136 multiprocessors. */
static void long_memories_are_shared_by_all_parts(void **state)
{
    (void)state;
    check(&(struct problem){64, 64, ROPE_HALVES, 1, MOST_KEYS, false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_of_all_kinds_equal_dense),
        cmocka_unit_test(any_number_of_query_heads_shares_a_key),
        cmocka_unit_test(keys_may_end_anywhere),
        cmocka_unit_test(long_memories_are_shared_by_all_parts),
    };
    return gpu_tests(tests);
}
