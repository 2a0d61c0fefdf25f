/* The ring on GPUs against dense attention in fp64 (tests/mpi/dense.h): either way round, in one piece and in
 * several, and one token's query over each rank's shard; with a memory on the GPU and one beside it. The ranks may
 * share one GPU. */
#include "tests/mpi/mpi_test.h"

#include "attention/ring.h"
#include "attention/rows.h"
#include "tests/mpi/dense.h"
#include "tests/worse.h"

enum { LAYERS = 2, LAYER = 1, MAX_TOKENS = 512, NO_GPU = 77 };

static const struct device *gpu;

static const struct {
    enum ring_way way;
    int64_t piece;
    bool on_host; /* the memory */
    int64_t window;
} WAYS[] = {{RING_PASS_KV, 0, false, 0},  {RING_PASS_Q, 0, true, 0},    {RING_PASS_KV, 100, true, 0},
            {RING_PASS_Q, 100, false, 0}, {RING_PASS_KV, 0, false, 50}, {RING_PASS_Q, 50, true, 33}};

enum { N_WAYS = sizeof WAYS / sizeof WAYS[0] };

struct bed {
    const struct shape *shape;
    int64_t window;
    struct pool *pool;
    struct rope *rope;
    struct transport *transport;
    struct ring *ring;
    struct memory *memory;
    float offset[4 * ATTN_MAX_DIM];
    const float *offsets[LAYERS];
    int64_t end, block;  /* tokens so far; this rank's of the last segment */
    float *q, *device_q; /* [block][heads][dim] */
    bf16 *out;           /* [block][heads * dim] */
    void *device_out;
};

static void must(int status)
{
    if (status != 0)
        fail_msg("%s", err.text);
}

static int row_of_all(const struct bed *bed)
{
    return bed->shape->heads * bed->shape->dim;
}

static void bed_make_ring(struct bed *bed, int way)
{
    const struct shape *shape = bed->shape;
    struct ring_options options = {.group = &world,
                                   .pool = bed->pool,
                                   .device = gpu,
                                   .kernel = attn_kernel_cuda(),
                                   .heads = shape->heads,
                                   .kv_heads = shape->kv_heads,
                                   .dim = shape->dim,
                                   .max_block = MAX_TOKENS,
                                   .max_shard = MAX_TOKENS,
                                   .max_piece = WAYS[way].piece,
                                   .way = WAYS[way].way};
    size_t most;
    must(ring_hop_bytes(&options, &most, &err));
    assert_non_null(bed->transport = transport_create(&world, gpu, most, &err));
    options.transport = bed->transport;
    if (!(bed->ring = ring_create(&options, &err)))
        fail_msg("%s", err.text);
}

static void bed_make(struct bed *bed, const struct shape *shape, int way)
{
    assert_non_null(gpu = device_cuda(world.rank, &err)); /* one each, where there are as many: then by NCCL */
    *bed = (struct bed){.shape = shape, .window = WAYS[way].window, .offsets = {bed->offset, bed->offset}};
    const size_t numbers = (size_t)MAX_TOKENS * (size_t)row_of_all(bed);
    for (int e = 0; e < shape->kv_heads * shape->dim; e++)
        bed->offset[e] = common(shape, e);
    const struct rope_options rope = {
        .dims = shape->rotated, .base = shape->base, .pairs = shape->pairs, .max_positions = MAX_TOKENS};
    const struct memory_shape memory = {.layers = LAYERS,
                                        .kv_heads = shape->kv_heads,
                                        .dim = shape->dim,
                                        .dtype = DTYPE_BF16,
                                        .capacity = MAX_TOKENS,
                                        .on_host = WAYS[way].on_host,
                                        .key_offsets = shape->common != 0 ? bed->offsets : NULL};
    bed->pool = pool_create(1, &err);
    bed->rope = rope_create(&rope, &err);
    bed->memory = memory_create(&memory, gpu, &err);
    bed->q = malloc(numbers * sizeof *bed->q);
    bed->out = malloc(numbers * sizeof *bed->out);
    bed->device_q = gpu->alloc(numbers * sizeof *bed->q, "queries", &err);
    bed->device_out = gpu->alloc(numbers * sizeof *bed->out, "outputs", &err);
    assert_true(bed->pool && bed->rope && bed->memory && bed->q && bed->out && bed->device_q && bed->device_out);
    bed_make_ring(bed, way);
}

static void bed_free(struct bed *bed)
{
    ring_free(bed->ring);
    bed->transport->free(bed->transport);
    gpu->free(bed->device_out);
    gpu->free(bed->device_q);
    free(bed->out);
    free(bed->q);
    memory_free(bed->memory);
    rope_free(bed->rope);
    pool_free(bed->pool);
}

/* The rows [kv_heads][dim] of one token into a layer of the memory, wherever it is. */
static void put(struct bed *bed, int layer, const float *k, const float *v)
{
    const int kv_heads = bed->shape->kv_heads, dim = bed->shape->dim;
    const int64_t index = bed->memory->length - 1;
    if (bed->memory->shape.on_host) {
        memory_put(bed->memory, layer, index, k, v);
        return;
    }
    for (int head = 0; head < kv_heads; head++) {
        bf16 key[ATTN_MAX_DIM], value[ATTN_MAX_DIM];
        const size_t bytes = (size_t)dim * sizeof *key;
        row_from_f32(DTYPE_BF16, k + head * dim, key, dim);
        row_from_f32(DTYPE_BF16, v + head * dim, value, dim);
        must(gpu->copy((bf16 *)memory_keys(bed->memory, layer, head) + index * dim, key, bytes, DEVICE_FROM_HOST,
                       NULL, &err));
        must(gpu->copy((bf16 *)memory_values(bed->memory, layer, head) + index * dim, value, bytes,
                       DEVICE_FROM_HOST, NULL, &err));
        must(gpu->stream_wait(NULL, &err));
    }
}

/* This rank takes up the token at `position`, in every layer; what is in the other layer must not matter. */
static void take(struct bed *bed, int64_t position)
{
    const int n = bed->shape->kv_heads * bed->shape->dim;
    float k[4 * ATTN_MAX_DIM], v[4 * ATTN_MAX_DIM], other[4 * ATTN_MAX_DIM];
    must(memory_extend(bed->memory, &position, 1, &err));
    for (int e = 0; e < n; e++) {
        k[e] = number(KEY, position, e);
        v[e] = number(VALUE, position, e);
        other[e] = 3.0f;
    }
    put(bed, 1 - LAYER, other, other);
    put(bed, LAYER, k, v);
    for (int e = 0; e < row_of_all(bed); e++)
        bed->q[bed->block * row_of_all(bed) + e] = number(QUERY, position, e);
    bed->block++;
}

static void take_segment(struct bed *bed, int64_t n)
{
    const struct zigzag z = zigzag_block(bed->end, bed->end + n, world.rank, world.size);
    bed->block = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = z.first[part]; p < z.end[part]; p++)
            take(bed, p);
    bed->end += n;
}

static void attend(struct bed *bed)
{
    const size_t numbers = (size_t)(bed->block * row_of_all(bed));
    const struct ring_queries queries = {.q = bed->device_q,
                                         .stride = row_of_all(bed),
                                         .tokens = bed->block,
                                         .scale = bed->shape->scale,
                                         .rope = bed->rope,
                                         .window = bed->window,
                                         .out = bed->device_out};
    must(gpu->copy(bed->device_q, bed->q, numbers * sizeof *bed->q, DEVICE_FROM_HOST, NULL, &err));
    must(gpu->stream_wait(NULL, &err));
    must(ring_attend(bed->ring, bed->memory, LAYER, &queries, &err));
    must(gpu->copy(bed->out, bed->device_out, numbers * sizeof *bed->out, DEVICE_TO_HOST, NULL, &err));
    must(gpu->stream_wait(NULL, &err));
}

/* out [dim] = what the query at `position` gets from the tokens that memory has up to it; returns the natural
 * log-sum-exp. tokens [n]. */
static double dense(const struct shape *shape, int64_t position, int head, const int64_t *tokens, int64_t n,
                    double *out)
{
    static double scores[MAX_TOKENS];
    const int kv_head = head / (shape->heads / shape->kv_heads);
    double q[ATTN_MAX_DIM], k[ATTN_MAX_DIM], sum = 0;
    row_of(shape, QUERY, position, head, q);
    rotate(shape, position, q);
    memset(out, 0, (size_t)shape->dim * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        row_of(shape, KEY, tokens[i], kv_head, k);
        rotate(shape, tokens[i], k);
        scores[i] = (double)shape->scale * dot(q, k, shape->dim);
        sum += exp(scores[i]);
    }
    for (int64_t i = 0; i < n; i++)
        for (int e = 0; e < shape->dim; e++)
            out[e] += exp(scores[i]) / sum * kept(shape, VALUE, tokens[i], kv_head * shape->dim + e);
    return log(sum);
}

/* The first position in the query's window. */
static int64_t first_seen(const struct bed *bed, int64_t position)
{
    return bed->window > 0 ? i64_max(0, position - bed->window + 1) : 0;
}

static void check(const struct bed *bed)
{
    static int64_t all[MAX_TOKENS];
    double expected[ATTN_MAX_DIM], worst = 0;
    for (int64_t p = 0; p < bed->end; p++)
        all[p] = p;
    for (int64_t t = 0; t < bed->block; t++) {
        const int64_t position = bed->memory->positions[bed->memory->length - bed->block + t];
        for (int head = 0; head < bed->shape->heads; head++) {
            const bf16 *out = bed->out + t * row_of_all(bed) + head * bed->shape->dim;
            const int64_t first = first_seen(bed, position);
            dense(bed->shape, position, head, all + first, position + 1 - first, expected);
            for (int e = 0; e < bed->shape->dim; e++)
                worst = worse(worst, fabs((double)bf16_to_f32(out[e]) - expected[e]));
        }
    }
    if (!(worst <= bed->shape->tolerance))
        fail_msg("rank %d differs from dense by %g", world.rank, worst);
}

/* One token's sums are in fp32; what keys share is added to them and taken off again. */
static double tolerance_of_one(const struct shape *shape)
{
    return shape->common == 0 ? 1e-5 : 1e-3;
}

/* What the ring says of the token behind all, which one rank takes up: o [heads][dim] and lse [heads] behind it. */
static void ask_one(struct bed *bed, float *o)
{
    const struct shape *shape = bed->shape;
    const int q_numbers = row_of_all(bed), kv_numbers = shape->kv_heads * shape->dim;
    const bool owned = bed->end % world.size == world.rank;
    float q[24 * ATTN_MAX_DIM], *const k = q + q_numbers, *const v = k + kv_numbers; /* one behind the other */
    for (int e = 0; e < q_numbers; e++)
        q[e] = number(QUERY, bed->end, e);
    for (int e = 0; e < kv_numbers; e++) {
        k[e] = number(KEY, bed->end, e);
        v[e] = number(VALUE, bed->end, e);
    }
    const size_t q_bytes = (size_t)(q_numbers + 2 * kv_numbers) * sizeof *q;
    const size_t o_bytes = (size_t)(q_numbers + shape->heads) * sizeof *o;
    float *device_q = gpu->alloc(q_bytes, "a token", &err), *device_o = gpu->alloc(o_bytes, "its attention", &err);
    assert_true(device_q && device_o);
    must(gpu->copy(device_q, q, q_bytes, DEVICE_FROM_HOST, NULL, &err));
    must(gpu->stream_wait(NULL, &err));
    must(memory_extend(bed->memory, &bed->end, owned, &err));
    const struct ring_one one = {.q = device_q,
                                 .k = owned ? device_q + q_numbers : NULL,
                                 .v = owned ? device_q + q_numbers + kv_numbers : NULL,
                                 .position = bed->end,
                                 .window = bed->window,
                                 .scale = shape->scale,
                                 .rope = bed->rope,
                                 .o = device_o,
                                 .lse = device_o + q_numbers};
    must(ring_attend_one(bed->ring, bed->memory, LAYER, &one, &err));
    must(gpu->copy(o, device_o, o_bytes, DEVICE_TO_HOST, NULL, &err));
    must(gpu->stream_wait(NULL, &err));
    gpu->free(device_o);
    gpu->free(device_q);
}

static void same_rows(const struct bed *bed, const void *of_gpu, const void *of_cpu)
{
    static bf16 rows[MAX_TOKENS * ATTN_MAX_DIM];
    const size_t bytes = (size_t)(bed->memory->length * bed->shape->dim) * sizeof *rows;
    if (!bed->memory->shape.on_host) {
        must(gpu->copy(rows, of_gpu, bytes, DEVICE_TO_HOST, NULL, &err));
        must(gpu->stream_wait(NULL, &err));
        of_gpu = rows;
    }
    assert_memory_equal(of_gpu, of_cpu, bytes);
}

/* What a GPU holds, the token that it put there itself among it, is what a CPU holds of the same tokens, byte for
 * byte: either can go on with the other's memory. */
static void check_kept(const struct bed *bed)
{
    struct memory_shape shape = bed->memory->shape;
    shape.on_host = false;
    struct memory *cpu = memory_create(&shape, device_cpu(), &err);
    assert_non_null(cpu);
    must(memory_extend(cpu, bed->memory->positions, bed->memory->length, &err));
    for (int64_t i = 0; i < cpu->length; i++) {
        float k[4 * ATTN_MAX_DIM], v[4 * ATTN_MAX_DIM];
        for (int e = 0; e < shape.kv_heads * shape.dim; e++) {
            k[e] = number(KEY, cpu->positions[i], e);
            v[e] = number(VALUE, cpu->positions[i], e);
        }
        memory_put(cpu, LAYER, i, k, v);
    }
    for (int head = 0; head < shape.kv_heads; head++) {
        same_rows(bed, memory_keys(bed->memory, LAYER, head), memory_keys(cpu, LAYER, head));
        same_rows(bed, memory_values(bed->memory, LAYER, head), memory_values(cpu, LAYER, head));
    }
    memory_free(cpu);
}

/* Its query over this rank's shard. */
static void check_one(struct bed *bed)
{
    const struct shape *shape = bed->shape;
    const int dim = shape->dim;
    float o[16 * ATTN_MAX_DIM + 16], *const lse = o + row_of_all(bed);
    double expected[ATTN_MAX_DIM], worst = 0;
    ask_one(bed, o);
    const int64_t *seen = bed->memory->positions, *const behind = seen + bed->memory->length;
    while (seen < behind && *seen < first_seen(bed, bed->end))
        seen++;
    for (int head = 0; head < shape->heads; head++) {
        const double log_sum = dense(shape, bed->end, head, seen, behind - seen, expected);
        if (seen == behind) {
            assert_true(isinf(lse[head]));
            continue;
        }
        if (shape->common == 0)
            worst = worse(worst, fabs((double)lse[head] - log_sum));
        for (int e = 0; e < dim; e++)
            worst = worse(worst, fabs((double)o[head * dim + e] - expected[e]));
    }
    if (!(worst <= tolerance_of_one(shape)))
        fail_msg("rank %d: one token differs from dense by %g", world.rank, worst);
}

static void segments_equal_dense(const struct shape *shape, int way)
{
    static const int64_t lengths[] = {130, 1, 37};
    struct bed bed;
    bed_make(&bed, shape, way);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        take_segment(&bed, lengths[i]);
        attend(&bed);
        check(&bed);
    }
    check_one(&bed);
    check_kept(&bed);
    bed_free(&bed);
}

/* ---- tests ---------------------------------------------------------------------------------------------- */

static void all_ways_equal_dense(void **state)
{
    (void)state;
    const struct shape shape = {4, 2, 64, 64, 10000.0, DTYPE_BF16, ROPE_NEIGHBOURS, 0.125f, 0, 4e-3};
    for (int way = 0; way < N_WAYS; way++)
        segments_equal_dense(&shape, way);
}

static void shapes_of_models_equal_dense(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++)
        if (MODELS[i].dtype == DTYPE_BF16)
            segments_equal_dense(&MODELS[i], i % N_WAYS);
}

static void keys_kept_without_what_they_share_equal_dense(void **state)
{
    (void)state;
    const struct shape shape = keys_that_share(DTYPE_BF16);
    segments_equal_dense(&shape, 0);
}

static void a_ring_with_empty_shards_equals_dense(void **state)
{
    (void)state;
    const struct shape shape = {2, 1, 64, 64, 10000.0, DTYPE_BF16, ROPE_HALVES, 0.125f, 0, 4e-3};
    for (int way = 0; way < 2; way++) {
        struct bed bed;
        bed_make(&bed, &shape, way);
        take_segment(&bed, 1); /* one rank has it */
        attend(&bed);
        check(&bed);
        check_one(&bed);
        bed_free(&bed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(all_ways_equal_dense),
        mpi_unit_test(shapes_of_models_equal_dense),
        mpi_unit_test(keys_kept_without_what_they_share_equal_dense),
        mpi_unit_test(a_ring_with_empty_shards_equals_dense),
    };
    gpu = device_cuda(0, &err);
    if (!gpu) {
        fprintf(stderr, "skipped: %s\n", err.text);
        return NO_GPU;
    }
    return mpi_run_tests(tests);
}
