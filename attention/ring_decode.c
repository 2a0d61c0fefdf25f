#include <math.h>

#include "attention/decode.h"
#include "attention/ring_parts.h"
#include "attention/span.h"

/* ---- angles by element ---------------------------------------------------------------------------------- */

static const float zeros[ATTN_MAX_DIM];
static const float ones[ATTN_MAX_DIM] = {[0 ... ATTN_MAX_DIM - 1] = 1.0f};

/* cosine, sine [dim] with R(position) x = x_e cosine_e + perp(x)_e sine_e for every element, whatever pairs the
 * rope turns: read off it by rotating ones. signs [dim]: -1 or 1 where perp takes it, 0 where nothing turns. */
static void element_angles(const struct ring *ring, int64_t position, const float *signs, float *cosine,
                           float *sine)
{
    const struct rope *rope = ring->options.rope;
    const int dim = ring->options.dim;
    float c[ATTN_MAX_DIM], s[ATTN_MAX_DIM];
    rope_angles(rope, position, c, s);
    rope_rotate(rope, c, zeros, ones, cosine, dim, 1.0f);
    rope_rotate(rope, zeros, s, ones, sine, dim, 1.0f);
    for (int e = 0; e < dim; e++)
        sine[e] *= signs[e];
}

static float *part(const struct ring *ring, size_t at)
{
    return (float *)(ring->block + at);
}

void ring_decode_prepare(struct ring *ring)
{
    const int dim = ring->options.dim;
    float *signs = part(ring, ring->plan.one_signs), *angles = part(ring, ring->plan.one_angles);
    float still[ATTN_MAX_DIM]; /* 1 where elements pass through, 0 where they turn */
    rope_rotate(ring->options.rope, zeros, ones, ones, signs, dim, 1.0f);
    rope_rotate(ring->options.rope, zeros, zeros, ones, still, dim, 1.0f);
    for (int e = 0; e < dim; e++)
        signs[e] -= still[e];
    for (int64_t offset = 0; offset < DECODE_OFFSETS; offset++, angles += 2 * dim)
        element_angles(ring, offset, signs, angles, angles + dim);
}

/* ---- one rank's shard ----------------------------------------------------------------------------------- */

/* One call of ring_attend_one, as its work items see it. */
struct one {
    struct ring *ring;
    const struct memory *memory;
    const struct ring_one *query;
    int layer;
    struct attn_span span; /* keys of the shard that the query sees */
    int64_t stretches;
    float *o, *lse; /* [heads][dim], [heads]: what this rank's shard says */
};

/* What a thread needs for a stretch. */
struct one_scratch {
    uint8_t offsets[DECODE_STRETCH];
    float cosine[ATTN_MAX_DIM], sine[ATTN_MAX_DIM];
    float scores[]; /* [heads][DECODE_STRIDE]; behind it a and b: [heads][2][dim] */
};

size_t ring_decode_scratch_bytes(const struct ring_options *options)
{
    size_t row = DECODE_STRIDE + 2 * (size_t)options->dim;
    return sizeof(struct one_scratch) + (size_t)options->heads * row * sizeof(float);
}

/* State of all heads over one stretch. */
static struct attn_state stretch_state(const struct ring *ring, int64_t stretch)
{
    const size_t heads = (size_t)ring->options.heads, dim = (size_t)ring->options.dim;
    float *o = part(ring, ring->plan.one_states) + (size_t)stretch * heads * (dim + 2);
    return (struct attn_state){.o = o, .m = o + heads * dim, .l = o + heads * (dim + 1)};
}

/* q and perp(q), scaled, of every head. Where nothing turns, perp is never used: the sine is 0 there. */
static void prepare_query(const struct one *one)
{
    const struct ring_options *o = &one->ring->options;
    const float scale = one->query->scale * RING_LOG2_E;
    float *q = part(one->ring, one->ring->plan.one_q);
    for (int head = 0; head < o->heads; head++, q += 2 * o->dim) {
        const float *raw = one->query->q + (size_t)head * (size_t)o->dim;
        rope_rotate(o->rope, ones, zeros, raw, q, o->dim, scale);
        rope_rotate(o->rope, zeros, ones, raw, q + o->dim, o->dim, scale);
    }
}

/* How many of the n keys at these positions are one run; their offsets from the first. */
static int run_length(const int64_t *positions, int n, uint8_t *offsets)
{
    int i = 0;
    for (; i < n && i < DECODE_RUN && positions[i] - positions[0] < DECODE_OFFSETS; i++)
        offsets[i] = (uint8_t)(positions[i] - positions[0]);
    return i;
}

/* Scores of all heads for a run of n keys that begins at `first` and is the `at`th of its stretch. */
static void score_run(const struct one *one, struct one_scratch *scratch, int64_t first, int at, int n)
{
    const struct ring *ring = one->ring;
    const struct ring_options *o = &ring->options;
    const enum dtype dtype = o->kernel->dtype;
    const size_t row_bytes = (size_t)o->dim * dtype_size(dtype);
    float *q = scratch->scores + (size_t)o->heads * DECODE_STRIDE;
    element_angles(ring, one->query->position - one->memory->positions[first], part(ring, ring->plan.one_signs),
                   scratch->cosine, scratch->sine);
    ring->decode->turn(&(struct decode_turn){.q = part(ring, ring->plan.one_q),
                                             .cosines = scratch->cosine,
                                             .sines = scratch->sine,
                                             .out = q,
                                             .rows = o->heads,
                                             .dim = o->dim});
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        const size_t row = (size_t)kv_head * (size_t)ring->group;
        const char *keys = memory_keys(one->memory, one->layer, kv_head);
        const char *values = memory_values(one->memory, one->layer, kv_head);
        ring->decode->scores[dtype](
            &(struct decode_run){.keys = keys + (size_t)first * row_bytes,
                                 .values = values + (size_t)first * row_bytes,
                                 .offsets = scratch->offsets,
                                 .angles = part(ring, ring->plan.one_angles),
                                 .key_offset = memory_key_offset(one->memory, one->layer, kv_head),
                                 .q = q + row * 2 * (size_t)o->dim,
                                 .scores = scratch->scores + row * DECODE_STRIDE + at,
                                 .n = n,
                                 .rows = ring->group,
                                 .dim = o->dim});
    }
}

static void sum_stretch(const struct one *one, struct one_scratch *scratch, int64_t stretch, int64_t first, int n)
{
    const struct ring *ring = one->ring;
    const struct ring_options *o = &ring->options;
    const enum dtype dtype = o->kernel->dtype;
    const struct attn_state state = stretch_state(ring, stretch);
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        const size_t row = (size_t)kv_head * (size_t)ring->group;
        const char *values = memory_values(one->memory, one->layer, kv_head);
        ring->decode->sums[dtype](
            &(struct decode_sums){.values = values + (size_t)first * (size_t)o->dim * dtype_size(dtype),
                                  .scores = scratch->scores + row * DECODE_STRIDE,
                                  .state = {state.o + row * (size_t)o->dim, state.m + row, state.l + row},
                                  .n = n,
                                  .rows = ring->group,
                                  .dim = o->dim});
    }
}

/* All heads over one stretch of the shard. */
static void stretch_item(void *context, int64_t item, int thread)
{
    const struct one *one = context;
    struct one_scratch *scratch = ring_scratch(one->ring, thread);
    const int64_t first = one->span.first + item * DECODE_STRETCH;
    const int n = (int)i64_min(DECODE_STRETCH, one->span.end - first);
    for (int at = 0, run; at < n; at += run) {
        run = run_length(one->memory->positions + first + at, n - at, scratch->offsets);
        score_run(one, scratch, first + at, at, run);
    }
    sum_stretch(one, scratch, item, first, n);
}

/* One head's states of all stretches, in their order, become its result. */
static void head_item(void *context, int64_t item, int thread)
{
    const struct one *one = context;
    const int dim = one->ring->options.dim;
    float *o = one->o + item * dim, m = -INFINITY, l = 0;
    (void)thread;
    for (int64_t s = 0; s < one->stretches; s++)
        m = fmaxf(m, stretch_state(one->ring, s).m[item]);
    memset(o, 0, (size_t)dim * sizeof *o);
    for (int64_t s = 0; s < one->stretches; s++) {
        const struct attn_state state = stretch_state(one->ring, s);
        const float *add = state.o + item * dim, weight = exp2f(state.m[item] - m);
        l += state.l[item] * weight;
        for (int e = 0; e < dim; e++)
            o[e] += add[e] * weight;
    }
    const struct attn_state total = {o, &m, &l};
    attn_state_finish(&total, 1, dim, &one->lse[item]);
}

/* ---- all shards ----------------------------------------------------------------------------------------- */

/* Every rank gets every rank's result and merges them in the order of ranks: the same bits everywhere. */
static int merge_ranks(struct ring *ring, float *results, size_t floats, struct error *err)
{
    const struct ring_options *o = &ring->options;
    const size_t o_floats = (size_t)o->heads * (size_t)o->dim;
    if (o->group->size == 1)
        return 0;
    int code = MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, results, (int)floats, MPI_FLOAT, o->group->mpi);
    if (comm_check(code, "merging one token's attention", err) < 0)
        return -1;
    for (int r = 1; r < o->group->size; r++) {
        const float *other = results + (size_t)r * floats;
        attn_merge(results, results + o_floats, other, other + o_floats, o->heads, o->dim);
    }
    return 0;
}

int ring_attend_one(struct ring *ring, const struct memory *memory, int layer, const struct ring_one *query,
                    struct error *err)
{
    const struct ring_options *o = &ring->options;
    const size_t o_floats = (size_t)o->heads * (size_t)o->dim, floats = o_floats + (size_t)o->heads;
    if (ring_check_memory(ring, memory, layer, err) < 0)
        return -1;
    float *results = part(ring, ring->plan.one_results);
    float *mine = results + (size_t)o->group->rank * floats;
    struct one one = {.ring = ring,
                      .memory = memory,
                      .query = query,
                      .layer = layer,
                      .span = causal_span(query->position, memory->positions, memory->length),
                      .o = mine,
                      .lse = mine + o_floats};
    one.stretches = i64_ceil_div(i64_max(0, one.span.end - one.span.first), DECODE_STRETCH);
    prepare_query(&one);
    ring_run(ring, one.stretches, stretch_item, &one);
    ring_run(ring, o->heads, head_item, &one);
    if (merge_ranks(ring, results, floats, err) < 0)
        return -1;
    memcpy(query->out, results, o_floats * sizeof *results);
    return 0;
}
