/* The ring against dense attention in fp64 (tests/mpi/dense.h); a token's number is its position. */
#include "tests/mpi/mpi_test.h"

#include <unistd.h>

#include "attention/ring.h"
#include "tests/mpi/dense.h"
#include "tests/worse.h"

enum { LAYERS = 2, LAYER = 1, MAX_TOKENS = 8192, MAX_KV = 4 * ATTN_MAX_DIM };

/* Who holds which tokens of a segment. */
enum layout { ZIGZAG, ALL_ON_LAST, FIRST_IS_EMPTY, PIECES_OF_17, LAYOUTS };

struct trial {
    struct shape shape;
    enum layout layout;
};

static int owner(enum layout layout, int64_t first, int64_t end, int64_t position)
{
    switch (layout) {
    case ALL_ON_LAST:
        return world.size - 1;
    case FIRST_IS_EMPTY:
        return world.size == 1 ? 0 : 1 + (int)(position % (world.size - 1));
    case PIECES_OF_17:
        return (int)(position / 17 % world.size);
    default:
        break;
    }
    for (int r = 0; r < world.size; r++) {
        struct zigzag block = zigzag_block(first, end, r, world.size);
        for (int i = 0; i < 2; i++)
            if (position >= block.first[i] && position < block.end[i])
                return r;
    }
    fail_msg("position %d has no owner", (int)position);
    return -1;
}

/* ---- dense attention in fp64 ---------------------------------------------------------------------------- */

/* The rotated keys of one kv head, position by position: [n][dim]. */
static double *all_keys(const struct shape *shape, int kv_head, int64_t n)
{
    double *keys = malloc((size_t)n * (size_t)shape->dim * sizeof *keys);
    assert_non_null(keys);
    for (int64_t p = 0; p < n; p++) {
        row_of(shape, KEY, p, kv_head, keys + p * shape->dim);
        rotate(shape, p, keys + p * shape->dim);
    }
    return keys;
}

/* out [dim] = what the query at `position` gets from all tokens up to itself. */
static void dense(const struct shape *shape, const double *keys, int64_t position, int head, double *out)
{
    static double scores[MAX_TOKENS];
    double q[ATTN_MAX_DIM];
    row_of(shape, QUERY, position, head, q);
    rotate(shape, position, q);
    for (int64_t p = 0; p <= position; p++)
        scores[p] = (double)shape->scale * dot(q, keys + p * shape->dim, shape->dim);
    weigh(shape, head / (shape->heads / shape->kv_heads), scores, position + 1, out);
}

/* ---- the ring under test -------------------------------------------------------------------------------- */

/* The rings that every test asks: either way, in one piece and in several. */
static const struct {
    enum ring_way way;
    int64_t piece;
} WAYS[] = {{RING_PASS_KV, 0}, {RING_PASS_Q, 0}, {RING_PASS_KV, 200}, {RING_PASS_Q, 200}};

enum { N_WAYS = sizeof WAYS / sizeof WAYS[0] };

struct bed {
    const struct trial *trial;
    struct pool *pool;
    struct rope *rope;
    struct transport *transport;
    struct ring *rings[N_WAYS];
    struct memory *memory;
    float offset[MAX_KV]; /* what all keys of a layer have in common */
    const float *offsets[LAYERS];
    int64_t end;        /* positions 0 .. end-1 are in the memories */
    int64_t block;      /* this rank's tokens of the last segment */
    float *q;           /* [block][heads][dim] */
    char *outs[N_WAYS]; /* [block][heads * dim] */
    int64_t polls;
};

static void count_poll(void *context)
{
    ((struct bed *)context)->polls++;
}

static struct ring *make_ring(struct bed *bed, enum ring_way way, int64_t piece)
{
    const struct shape *shape = &bed->trial->shape;
    const struct ring_options options = {.group = &world,
                                         .pool = bed->pool,
                                         .device = device_cpu(),
                                         .kernel = attn_kernel_choose(shape->dtype, NULL, &err),
                                         .transport = bed->transport,
                                         .heads = shape->heads,
                                         .kv_heads = shape->kv_heads,
                                         .dim = shape->dim,
                                         .max_block = MAX_TOKENS,
                                         .max_shard = MAX_TOKENS,
                                         .max_piece = piece,
                                         .way = way,
                                         .poll = count_poll,
                                         .poll_context = bed};
    return ring_create(&options, &err);
}

static void bed_make(struct bed *bed, const struct trial *trial)
{
    const struct shape *shape = &trial->shape;
    const size_t row = (size_t)shape->heads * (size_t)shape->dim * sizeof(float);
    *bed = (struct bed){.trial = trial, .offsets = {bed->offset, bed->offset}};
    for (int e = 0; e < shape->kv_heads * shape->dim; e++)
        bed->offset[e] = common(shape, e);
    bed->pool = pool_create(2, &err);
    bed->rope = rope_create(
        &(struct rope_options){
            .dims = shape->rotated, .base = shape->base, .pairs = shape->pairs, .max_positions = MAX_TOKENS},
        &err);
    bed->transport = transport_mpi_create(&world, &err);
    bed->memory = memory_create(&(struct memory_shape){.layers = LAYERS,
                                                       .kv_heads = shape->kv_heads,
                                                       .dim = shape->dim,
                                                       .dtype = shape->dtype,
                                                       .capacity = MAX_TOKENS,
                                                       .key_offsets = shape->common != 0 ? bed->offsets : NULL},
                                device_cpu(), &err);
    bed->q = malloc(MAX_TOKENS * row);
    assert_true(bed->pool && bed->rope && bed->transport && bed->memory && bed->q);
    for (int way = 0; way < N_WAYS; way++) {
        bed->rings[way] = make_ring(bed, WAYS[way].way, WAYS[way].piece);
        bed->outs[way] = malloc(MAX_TOKENS * row);
        assert_true(bed->rings[way] && bed->outs[way]);
    }
}

static void bed_free(struct bed *bed)
{
    for (int way = 0; way < N_WAYS; way++) {
        free(bed->outs[way]);
        ring_free(bed->rings[way]);
    }
    free(bed->q);
    memory_free(bed->memory);
    bed->transport->free(bed->transport);
    rope_free(bed->rope);
    pool_free(bed->pool);
}

/* This rank takes up the token at `position`, in every layer; what is in the other layer must not matter. */
static void take(struct bed *bed, int64_t position)
{
    const struct shape *shape = &bed->trial->shape;
    float k[4096], v[4096], other[4096];
    assert_int_equal(memory_extend(bed->memory, &position, 1, &err), 0);
    for (int e = 0; e < shape->kv_heads * shape->dim; e++) {
        k[e] = number(KEY, position, e);
        v[e] = number(VALUE, position, e);
        other[e] = 3.0f;
    }
    memory_put(bed->memory, 1 - LAYER, bed->memory->length - 1, other, other);
    memory_put(bed->memory, LAYER, bed->memory->length - 1, k, v);
}

/* All ranks take up the next n positions as one segment. */
static void take_segment(struct bed *bed, int64_t n)
{
    const struct shape *shape = &bed->trial->shape;
    const int row = shape->heads * shape->dim;
    bed->block = 0;
    for (int64_t p = bed->end; p < bed->end + n; p++) {
        if (owner(bed->trial->layout, bed->end, bed->end + n, p) != world.rank)
            continue;
        take(bed, p);
        for (int e = 0; e < row; e++)
            bed->q[bed->block * row + e] = number(QUERY, p, e);
        bed->block++;
    }
    bed->end += n;
}

static void attend(struct bed *bed, struct ring *ring, void *out)
{
    const struct shape *shape = &bed->trial->shape;
    const struct ring_queries queries = {.q = bed->q,
                                         .stride = shape->heads * shape->dim,
                                         .tokens = bed->block,
                                         .scale = shape->scale,
                                         .rope = bed->rope,
                                         .out = out};
    if (ring_attend(ring, bed->memory, LAYER, &queries, &err) < 0)
        fail_msg("%s", err.text);
}

static void attend_segment(struct bed *bed, int64_t n)
{
    take_segment(bed, n);
    for (int way = 0; way < N_WAYS; way++)
        attend(bed, bed->rings[way], bed->outs[way]);
}

static double output(const struct bed *bed, int way, int64_t token, int element)
{
    const struct shape *shape = &bed->trial->shape;
    const int64_t at = token * shape->heads * shape->dim + element;
    return shape->dtype == DTYPE_BF16 ? (double)bf16_to_f32(((bf16 *)(void *)bed->outs[way])[at])
                                      : (double)((float *)(void *)bed->outs[way])[at];
}

/* Compare every `every`th token of the last segment, and the last, with the dense answer. */
static void check_segment(const struct bed *bed, int64_t every)
{
    const struct shape *shape = &bed->trial->shape;
    double expected[ATTN_MAX_DIM], worst[N_WAYS] = {0};
    for (int head = 0; head < shape->heads; head++) {
        double *keys = all_keys(shape, head / (shape->heads / shape->kv_heads), bed->end);
        for (int64_t t = 0; t < bed->block; t++) {
            if (t % every != 0 && t != bed->block - 1)
                continue;
            dense(shape, keys, bed->memory->positions[bed->memory->length - bed->block + t], head, expected);
            for (int way = 0; way < N_WAYS; way++)
                for (int e = 0; e < shape->dim; e++)
                    worst[way] = worse(worst[way], fabs(output(bed, way, t, head * shape->dim + e) - expected[e]));
        }
        free(keys);
    }
    for (int way = 0; way < N_WAYS; way++)
        if (!(worst[way] <= shape->tolerance))
            fail_msg("rank %d, way %d differs from dense by %g", world.rank, way, worst[way]);
}

static void segments_equal_dense(const struct trial *trial, const int64_t *lengths, int64_t every)
{
    struct bed bed;
    bed_make(&bed, trial);
    for (; *lengths >= 0; lengths++) {
        attend_segment(&bed, *lengths);
        check_segment(&bed, every);
    }
    bed_free(&bed);
}

/* ---- tests ---------------------------------------------------------------------------------------------- */

static const struct trial PLAIN = {.shape = SMALL_SHAPE, .layout = ZIGZAG};

#define SEGMENTS(...) ((const int64_t[]){__VA_ARGS__, -1})

static void one_token_equals_dense(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(1), 1);
}

static void fewer_tokens_than_ranks_equal_dense(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(i64_max(1, world.size - 1)), 1);
}

static void an_odd_length_equals_dense(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(333), 1);
}

static void a_long_segment_equals_dense(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(4097), 1);
}

static void several_segments_equal_dense(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(130, 1, 777, 64, 0, 512, 3), 1);
}

static void a_short_segment_after_a_long_one_equals_dense(void **state)
{
    (void)state;
    struct trial trial = PLAIN;
    trial.shape.heads = 3;
    segments_equal_dense(&trial, SEGMENTS(5000, 5, 70), 9);
}

static void an_empty_segment_is_no_trouble(void **state)
{
    (void)state;
    segments_equal_dense(&PLAIN, SEGMENTS(0, 0), 1);
}

static void a_ring_with_an_empty_shard_equals_dense(void **state)
{
    (void)state;
    const struct trial trial = {SMALL_SHAPE, FIRST_IS_EMPTY};
    segments_equal_dense(&trial, SEGMENTS(100, 200), 1);
}

static void a_ring_with_all_keys_on_one_rank_equals_dense(void **state)
{
    (void)state;
    const struct trial trial = {SMALL_SHAPE, ALL_ON_LAST};
    segments_equal_dense(&trial, SEGMENTS(300, 65), 1);
}

static void uneven_shards_in_pieces_equal_dense(void **state)
{
    (void)state;
    const struct trial trial = {SMALL_SHAPE, PIECES_OF_17};
    segments_equal_dense(&trial, SEGMENTS(250, 131), 1);
}

static void shapes_of_models_equal_dense(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++) {
        const struct trial trial = {MODELS[i], (enum layout)(i % LAYOUTS)};
        segments_equal_dense(&trial, SEGMENTS(300, 37, 130), 5);
    }
}

static void keys_kept_without_what_they_share_equal_dense(void **state)
{
    (void)state;
    for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        const struct trial trial = {keys_that_share(dtype), ZIGZAG};
        segments_equal_dense(&trial, SEGMENTS(300, 37, 130), 5);
    }
}

/* The order of fp32 sums is all that differs. */
static void all_ways_say_the_same(void **state)
{
    (void)state;
    const struct trial trial = {MODELS[0], ZIGZAG};
    struct bed bed;
    double worst = 0;
    bed_make(&bed, &trial);
    attend_segment(&bed, 1500);
    attend_segment(&bed, 300);
    for (int way = 1; way < N_WAYS; way++)
        for (int64_t t = 0; t < bed.block; t++)
            for (int e = 0; e < trial.shape.heads * trial.shape.dim; e++)
                worst = worse(worst, fabs(output(&bed, way, t, e) - output(&bed, 0, t, e)));
    if (!(worst <= 1e-6))
        fail_msg("rank %d: ways differ by %g", world.rank, worst);
    bed_free(&bed);
}

/* As Gemma 3, whose local and global layers rotate differently. */
static void calls_with_different_ropes_equal_dense(void **state)
{
    (void)state;
    struct trial trials[2] = {PLAIN, PLAIN};
    struct rope *ropes[2];
    struct bed bed;
    trials[1].shape.base = 1e6;
    bed_make(&bed, &trials[0]);
    ropes[0] = bed.rope;
    ropes[1] = rope_create(
        &(struct rope_options){.dims = 16, .base = 1e6, .pairs = ROPE_NEIGHBOURS, .max_positions = MAX_TOKENS},
        &err);
    assert_non_null(ropes[1]);
    for (int turn = 0; turn < 4; turn++) {
        bed.trial = &trials[turn % 2];
        bed.rope = ropes[turn % 2];
        attend_segment(&bed, 150);
        check_segment(&bed, 3);
    }
    bed.rope = ropes[0];
    rope_free(ropes[1]);
    bed_free(&bed);
}

static void scores_of_ten_thousand_stay_finite(void **state)
{
    (void)state;
    struct trial trial = PLAIN;
    trial.shape.scale = 4000.0f; /* fp32 keeps such a score to 1e-3: which key wins is all that can be asked */
    trial.shape.tolerance = 2e-2;
    segments_equal_dense(&trial, SEGMENTS(200, 100), 1);
}

static void a_second_chunk_knows_nothing_of_the_first(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, &PLAIN);
    attend_segment(&bed, 500);
    memory_reset(bed.memory);
    bed.end = 0;
    attend_segment(&bed, 100);
    check_segment(&bed, 1);
    bed_free(&bed);
}

static void the_ring_calls_poll_and_counts_what_it_does(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, &PLAIN);
    attend_segment(&bed, 1000);
    const struct ring_stats kv = ring_stats(bed.rings[0]), q = ring_stats(bed.rings[1]);
    const int64_t alone = world.size == 1;
    assert_int_equal(kv.hops, world.size - 1);
    assert_int_equal(q.hops, alone ? 0 : world.size);
    assert_int_equal(kv.passed_kv, !alone);
    assert_int_equal(q.passed_q, !alone);
    assert_true(alone || (kv.predicted_kv_seconds > 0 && kv.predicted_q_seconds > 0));
    assert_true(bed.polls > 0);
    assert_true(alone || kv.bytes_sent >= 1000 / 2 / (size_t)world.size * 16 * 2 * sizeof(float));
    assert_true(kv.wait_seconds <= kv.transfer_seconds);
    bed_free(&bed);
}

/* MPI after a while, as where what is sent must come from a device first. */
struct late {
    struct transport base, *mpi;
};
enum { LATE_MICROSECONDS = 20000 };

static int late_start(struct transport *self, const struct transport_hop *hop, struct error *error)
{
    struct transport *mpi = ((struct late *)self)->mpi;
    usleep(LATE_MICROSECONDS);
    return mpi->start(mpi, hop, error);
}

static int late_test(struct transport *self, bool *over, struct error *error)
{
    struct transport *mpi = ((struct late *)self)->mpi;
    return mpi->test(mpi, over, error);
}

static int late_finish(struct transport *self, struct error *error)
{
    struct transport *mpi = ((struct late *)self)->mpi;
    return mpi->finish(mpi, error);
}

static void what_beginning_a_hop_takes_is_waited_for(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, &PLAIN);
    struct late late = {{.start = late_start, .test = late_test, .finish = late_finish}, bed.transport};
    bed.transport = &late.base;
    struct ring *ring = make_ring(&bed, RING_PASS_KV, 0);
    assert_non_null(ring);
    take_segment(&bed, 200);
    attend(&bed, ring, bed.outs[0]);
    const struct ring_stats stats = ring_stats(ring);
    assert_true(stats.wait_seconds >= 1e-6 * LATE_MICROSECONDS * (world.size - 1));
    assert_true(stats.wait_seconds <= stats.transfer_seconds);
    ring_free(ring);
    bed.transport = late.mpi;
    bed_free(&bed);
}

static void the_cheaper_way_is_chosen_alike_on_all_ranks(void **state)
{
    (void)state;
    const struct trial trial = {MODELS[0], ZIGZAG};
    struct bed bed;
    bed_make(&bed, &trial);
    struct ring *ring = make_ring(&bed, RING_CHEAPER, 0);
    assert_non_null(ring);
    take_segment(&bed, 4000); /* all of it is new: keys are fewer bytes than queries with their sums */
    attend(&bed, ring, bed.outs[0]);
    struct ring_stats stats = ring_stats(ring);
    assert_int_equal(stats.passed_kv, world.size > 1);
    take_segment(&bed, 1); /* one query meets 4,000 keys */
    attend(&bed, ring, bed.outs[0]);
    stats = ring_stats(ring);
    assert_int_equal(stats.passed_q, world.size > 1);
    for (int i = 0; i < 20; i++) { /* near the border: whatever it is, all ranks agree, or they hang */
        take_segment(&bed, 20 * i);
        attend(&bed, ring, bed.outs[0]);
    }
    int64_t most, least;
    stats = ring_stats(ring);
    assert_int_equal(comm_max(&world, stats.passed_q, &most, &err), 0);
    assert_int_equal(comm_max(&world, -stats.passed_q, &least, &err), 0);
    assert_int_equal(most, -least);
    ring_free(ring);
    bed_free(&bed);
}

static void buffers_do_not_grow_with_the_shard(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1, &err);
    size_t bytes[2];
    struct ring_options options = {.group = &world,
                                   .pool = pool,
                                   .device = device_cpu(),
                                   .kernel = attn_kernel_choose(DTYPE_F32, NULL, &err),
                                   .heads = 9,
                                   .kv_heads = 3,
                                   .dim = 64,
                                   .max_block = 512,
                                   .max_shard = 1000000};
    assert_int_equal(ring_bytes(&options, &bytes[0], &err), 0);
    options.max_shard *= 100;
    assert_int_equal(ring_bytes(&options, &bytes[1], &err), 0);
    assert_int_equal(bytes[0], bytes[1]);
    pool_free(pool);
}

static void a_memory_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct bed bed;
    bed_make(&bed, &PLAIN);
    const struct ring_queries queries = {.q = bed.q, .tokens = 1, .scale = 1, .rope = bed.rope, .out = bed.outs[0]};
    assert_int_equal(ring_attend(bed.rings[0], bed.memory, LAYERS, &queries, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_int_equal(ring_attend(bed.rings[0], bed.memory, 0, &queries, &err), -1); /* a query, but no keys */
    assert_int_equal(err.code, ERROR_INTERNAL);
    bed_free(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(one_token_equals_dense),
        mpi_unit_test(fewer_tokens_than_ranks_equal_dense),
        mpi_unit_test(an_odd_length_equals_dense),
        mpi_unit_test(a_long_segment_equals_dense),
        mpi_unit_test(several_segments_equal_dense),
        mpi_unit_test(a_short_segment_after_a_long_one_equals_dense),
        mpi_unit_test(an_empty_segment_is_no_trouble),
        mpi_unit_test(a_ring_with_an_empty_shard_equals_dense),
        mpi_unit_test(a_ring_with_all_keys_on_one_rank_equals_dense),
        mpi_unit_test(uneven_shards_in_pieces_equal_dense),
        mpi_unit_test(shapes_of_models_equal_dense),
        mpi_unit_test(keys_kept_without_what_they_share_equal_dense),
        mpi_unit_test(all_ways_say_the_same),
        mpi_unit_test(calls_with_different_ropes_equal_dense),
        mpi_unit_test(scores_of_ten_thousand_stay_finite),
        mpi_unit_test(a_second_chunk_knows_nothing_of_the_first),
        mpi_unit_test(the_ring_calls_poll_and_counts_what_it_does),
        mpi_unit_test(what_beginning_a_hop_takes_is_waited_for),
        mpi_unit_test(the_cheaper_way_is_chosen_alike_on_all_ranks),
        mpi_unit_test(buffers_do_not_grow_with_the_shard),
        mpi_unit_test(a_memory_that_does_not_fit_is_refused),
    };
    return mpi_run_tests(tests);
}
