/* A bed for tests of bounded attention: one layer under a policy on the ranks there are, fed by segments and then
 * token by token, each query's answer held against a definition that the test gives. */
#ifndef LONGHAUL_TESTS_BOUNDED_BED_H
#define LONGHAUL_TESTS_BOUNDED_BED_H

#include "tests/mpi/mpi_test.h"

#include "attention/blocks.h"
#include "attention/bounded.h"
#include "attention/far_record.h"
#include "attention/ring.h"
#include "tests/mpi/dense.h"

enum { BED_MOST_TOKENS = 4096, BED_GENERATED = 40 };

/* What a definition gives for all elements where it does not know the answer. */
#define BED_NOT_ASKED 1e9

struct bed {
    struct shape shape;
    struct policy_spec spec;
    const struct convolutions *convolutions; /* may be NULL */
    struct pool *pool;
    struct rope *rope;
    struct decoder *decoder;
    struct bounded *bounded;
    int64_t segment, end; /* tokens of a segment; tokens that came in segments */
    /* One head's answer to the query at `position`, [dim]; segments begin at multiples of bed->segment up to
     * bed->end, and a token alone is its own. */
    void (*define)(const struct bed *bed, int64_t position, int head, double *out);
    /* How many tokens before `position` are out of the reach of its query; or NULL: not asked. */
    int64_t (*forgotten)(const struct bed *bed, int64_t position);
    /* What queries, keys and values are made of, in place of number(); or NULL. */
    float (*number)(enum kind kind, int64_t token, int element);
};

/* Where the segment of the query at `position` begins. */
static inline int64_t bed_segment_first(const struct bed *bed, int64_t position)
{
    return position < bed->end ? position / bed->segment * bed->segment : bed->end;
}

static inline void bed_open(struct bed *bed, const char *policy)
{
    const struct shape *s = &bed->shape;
    if (policy_parse(policy, &bed->spec, &err) != 0)
        fail_msg("%s", err.text);
    const struct rope_options rope = {.dims = s->rotated,
                                      .base = s->base,
                                      .pairs = s->pairs,
                                      .max_positions = policy_positions(&bed->spec, bed->end + BED_GENERATED)};
    assert_non_null(bed->pool = pool_create(2, &err));
    assert_non_null(bed->rope = rope_create(&rope, &err));
    const struct decoder_options decoder = {.group = &world,
                                            .pool = bed->pool,
                                            .device = device_cpu(),
                                            .dtype = s->dtype,
                                            .heads = s->heads,
                                            .kv_heads = s->kv_heads,
                                            .dim = s->dim,
                                            .max_keys = BED_MOST_TOKENS};
    assert_non_null(bed->decoder = decoder_create(&decoder, &err));
    const struct bounded_options options = {.group = &world,
                                            .pool = bed->pool,
                                            .device = device_cpu(),
                                            .kernel = attn_kernel_choose(s->dtype, NULL, &err),
                                            .decoder = bed->decoder,
                                            .specs = &bed->spec,
                                            .convolutions = &bed->convolutions,
                                            .layers = 1,
                                            .heads = s->heads,
                                            .kv_heads = s->kv_heads,
                                            .dim = s->dim,
                                            .max_tokens = BED_MOST_TOKENS,
                                            .max_segment = bed->segment,
                                            .max_generated = BED_GENERATED};
    bed->bounded = bounded_create(&options, &err);
    if (!bed->bounded)
        fail_msg("%s", err.text);
}

static inline void bed_close(struct bed *bed)
{
    bounded_free(bed->bounded);
    decoder_free(bed->decoder);
    rope_free(bed->rope);
    pool_free(bed->pool);
}

static inline void bed_fill(const struct bed *bed, enum kind kind, int64_t token, float *out)
{
    for (int e = 0; e < (kind == QUERY ? bed->shape.heads : bed->shape.kv_heads) * bed->shape.dim; e++)
        out[e] = bed->number ? bed->number(kind, token, e) : number(kind, token, e);
}

static inline void bed_compare(const struct bed *bed, int64_t position, const float *row)
{
    double expected[ATTN_MAX_DIM];
    for (int head = 0; head < bed->shape.heads; head++) {
        bed->define(bed, position, head, expected);
        for (int e = 0; e < bed->shape.dim; e++) {
            const double got = (double)row[head * bed->shape.dim + e];
            if (expected[e] != BED_NOT_ASKED && !(fabs(got - expected[e]) < bed->shape.tolerance))
                fail_msg("token %d, head %d, element %d: %g, not %g", (int)position, head, e, got, expected[e]);
        }
    }
}

static inline void bed_put(struct bed *bed, int64_t token)
{
    float k[16 * ATTN_MAX_DIM], v[16 * ATTN_MAX_DIM];
    bed_fill(bed, KEY, token, k);
    bed_fill(bed, VALUE, token, v);
    bounded_put(bed->bounded, 0, token, k, v);
}

static inline void bed_run_segment(struct bed *bed, int64_t first, int64_t end)
{
    const struct zigzag block = zigzag_block(first, end, world.rank, world.size);
    const int64_t rows = block.end[0] - block.first[0] + block.end[1] - block.first[1];
    const int64_t width = (int64_t)bed->shape.heads * bed->shape.dim;
    float *q = calloc((size_t)(rows + 1) * (size_t)width, sizeof *q);
    float *out = calloc((size_t)(rows + 1) * (size_t)width, sizeof *out);
    assert_true(q && out);
    assert_int_equal(bounded_begin(bed->bounded, first, end, &err), 0);
    int64_t row = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = block.first[part]; p < block.end[part]; p++) {
            bed_fill(bed, QUERY, p, q + row++ * width);
            bed_put(bed, p);
        }
    const struct bounded_queries queries = {q, width, bed->shape.scale, bed->rope, out};
    if (bounded_attend(bed->bounded, 0, &queries, &err) != 0)
        fail_msg("%s", err.text);
    row = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = block.first[part]; p < block.end[part]; p++)
            bed_compare(bed, p, out + row++ * width);
    free(q);
    free(out);
}

static inline void bed_run_one(struct bed *bed, int64_t position)
{
    float q[32 * ATTN_MAX_DIM], out[32 * ATTN_MAX_DIM];
    bed_fill(bed, QUERY, position, q);
    assert_int_equal(bounded_begin_one(bed->bounded, &err), 0);
    bed_put(bed, position);
    const struct decoder_query query = {.q = q, .scale = bed->shape.scale, .rope = bed->rope, .out = out};
    if (bounded_attend_one(bed->bounded, 0, &query, &err) != 0)
        fail_msg("%s", err.text);
    bed_compare(bed, position, out);
}

/* Slots, or the blocks or records of all kv heads, that a policy keeps at most, and the bytes of one; none where it
 * is not bounded. */
struct bed_kept {
    int64_t most, bytes;
};

static inline struct bed_kept bed_kept(const struct bed *bed)
{
    const int64_t row = 2 * (int64_t)sizeof(float) * bed->shape.kv_heads * bed->shape.dim;
    if (policy_past(&bed->spec) == PAST_FAR)
        return (struct bed_kept){i64_ceil_div(bed->spec.far, FAR_BLOCK),
                                 bed->shape.kv_heads * (int64_t)far_record_bytes(bed->shape.dim)};
    if (policy_past(&bed->spec) == PAST_BLOCKS)
        return (struct bed_kept){i64_ceil_div(bed->spec.far, BLOCK_TOKENS), row * BLOCK_TOKENS};
    return (struct bed_kept){bed->spec.slots, row};
}

/* What a rank holds is bounded, however much came before, and is what others hold but for one slot, block or
 * record. Tokens that came one by one are a segment in hand. */
static inline void bed_check_resident(const struct bed *bed, int64_t next)
{
    const struct bed_kept kept = bed_kept(bed);
    const int64_t row = 2 * (int64_t)sizeof(float) * bed->shape.kv_heads * bed->shape.dim;
    const int64_t own = (int64_t)bounded_resident(bed->bounded);
    int64_t most, least;
    assert_int_equal(comm_max(&world, own, &most, &err), 0);
    assert_int_equal(comm_max(&world, -own, &least, &err), 0);
    assert_true(most + least <= kept.bytes);
    const int64_t end = i64_min(next, bed->end), near = next - policy_near_first(&bed->spec, end, end);
    if (bed->spec.far > 0 || policy_block_tokens(&bed->spec) == 0)
        assert_true(own <= row * (near + bed->spec.sinks) + kept.bytes * i64_ceil_div(kept.most, world.size));
}

static inline void bed_check_forgotten(const struct bed *bed, int64_t next)
{
    if (bed->forgotten)
        assert_int_equal(bounded_forgotten(bed->bounded), bed->forgotten(bed, next));
}

/* n tokens by segments, then BED_GENERATED one by one; twice, so that a reset is tried too. */
static inline void bed_check(struct bed *bed, const char *policy, int64_t n)
{
    bed->end = n;
    bed_open(bed, policy);
    for (int round = 0; round < 2; round++) {
        bounded_reset(bed->bounded);
        for (int64_t first = 0; first < n; first += bed->segment) {
            bed_run_segment(bed, first, i64_min(first + bed->segment, n));
            bed_check_forgotten(bed, i64_min(first + bed->segment, n));
            bed_check_resident(bed, i64_min(first + bed->segment, n));
        }
        for (int64_t p = n; p < n + BED_GENERATED; p++) {
            bed_run_one(bed, p);
            bed_check_forgotten(bed, p + 1);
            bed_check_resident(bed, p + 1);
        }
    }
    bed_close(bed);
}

#endif
