/* Decode against dense attention in fp64 (tests/mpi/dense.h). */
#include "tests/mpi/mpi_test.h"

#include "attention/decoder.h"
#include "attention/rows.h"
#include "tests/mpi/dense.h"

enum { MAX_TOKENS = 1200, MAX_ROW = 14 * 64, MAX_POSITIONS = 1 << 20, QUERY_TOKEN = 1 << 20 };

/* Tokens 0 .. n-1 in order, in up to DECODER_PARTS groups; how the query sees each. */
struct seen {
    int64_t position, query_position;
    int group, rank; /* the group of keys it belongs to, the rank that holds it */
    float weight;
};

struct bed {
    const struct shape *shape;
    struct pool *pool;
    struct rope *rope;
    struct decoder *decoder;
    struct seen seen[MAX_TOKENS];
    int64_t n;
    float offset[MAX_ROW];
    char *keys, *values;        /* [kv_heads][MAX_TOKENS][dim]: this rank's, group behind group */
    int64_t places[MAX_TOKENS]; /* positions of those */
    float out[MAX_ROW];
    int64_t polls;
};

static struct bed bed;

static void count_poll(void *context)
{
    ((struct bed *)context)->polls++;
}

static void bed_make(const struct shape *shape)
{
    const size_t bytes = (size_t)shape->kv_heads * MAX_TOKENS * (size_t)shape->dim * sizeof(float);
    bed = (struct bed){.shape = shape};
    for (int e = 0; e < shape->kv_heads * shape->dim; e++)
        bed.offset[e] = common(shape, e);
    bed.pool = pool_create(2, &err);
    bed.rope = rope_create(
        &(struct rope_options){
            .dims = shape->rotated, .base = shape->base, .pairs = shape->pairs, .max_positions = MAX_POSITIONS},
        &err);
    bed.decoder = decoder_create(&(struct decoder_options){.group = &world,
                                                           .pool = bed.pool,
                                                           .device = device_cpu(),
                                                           .dtype = shape->dtype,
                                                           .heads = shape->heads,
                                                           .kv_heads = shape->kv_heads,
                                                           .dim = shape->dim,
                                                           .max_keys = MAX_TOKENS,
                                                           .poll = count_poll,
                                                           .poll_context = &bed},
                                 &err);
    bed.keys = malloc(bytes);
    bed.values = malloc(bytes);
    assert_true(bed.pool && bed.rope && bed.decoder && bed.keys && bed.values);
}

static void bed_free(void)
{
    free(bed.values);
    free(bed.keys);
    decoder_free(bed.decoder);
    rope_free(bed.rope);
    pool_free(bed.pool);
}

static size_t head_stride(void)
{
    return (size_t)MAX_TOKENS * (size_t)bed.shape->dim * dtype_size(bed.shape->dtype);
}

/* Put the token where row `index` of this rank is. */
static void put(int64_t token, int64_t index)
{
    const struct shape *shape = bed.shape;
    const size_t row_bytes = (size_t)shape->dim * dtype_size(shape->dtype);
    for (int head = 0; head < shape->kv_heads; head++) {
        const size_t at = (size_t)head * head_stride() + (size_t)index * row_bytes;
        float k[ATTN_MAX_DIM], v[ATTN_MAX_DIM];
        for (int e = 0; e < shape->dim; e++) {
            k[e] = number(KEY, token, head * shape->dim + e);
            v[e] = number(VALUE, token, head * shape->dim + e);
        }
        row_from_f32(shape->dtype, k, bed.keys + at, shape->dim);
        row_from_f32(shape->dtype, v, bed.values + at, shape->dim);
    }
}

/* This rank's tokens of a group, from row `first` on; returns the row behind them. */
static int64_t fill_part(int group, int64_t first, struct decoder_part *part)
{
    const size_t row_bytes = (size_t)bed.shape->dim * dtype_size(bed.shape->dtype);
    int64_t end = first;
    *part = (struct decoder_part){.keys = bed.keys + (size_t)first * row_bytes,
                                  .values = bed.values + (size_t)first * row_bytes,
                                  .head_stride_bytes = head_stride(),
                                  .positions = bed.places + first,
                                  .key_offset = bed.shape->common != 0 ? bed.offset : NULL};
    for (int64_t t = 0; t < bed.n; t++) {
        if (bed.seen[t].group != group || bed.seen[t].rank != world.rank)
            continue;
        bed.places[end] = bed.seen[t].position;
        part->query_position = bed.seen[t].query_position;
        part->weight = bed.seen[t].weight;
        put(t, end++);
    }
    part->n = end - first;
    return end;
}

static void expected_of(int head, double *out)
{
    static double scores[MAX_TOKENS];
    const struct shape *shape = bed.shape;
    const int kv_head = head / (shape->heads / shape->kv_heads);
    for (int64_t t = 0; t < bed.n; t++) {
        const struct seen *seen = &bed.seen[t];
        double q[ATTN_MAX_DIM], k[ATTN_MAX_DIM];
        row_of(shape, QUERY, QUERY_TOKEN, head, q);
        rotate(shape, seen->query_position - seen->position, q);
        row_of(shape, KEY, t, kv_head, k);
        scores[t] = (double)shape->scale * dot(q, k, shape->dim) + log((double)seen->weight);
    }
    weigh(shape, kv_head, scores, bed.n, out);
}

static void attend(int n_parts)
{
    const struct shape *shape = bed.shape;
    struct decoder_part parts[DECODER_PARTS] = {0};
    float q[MAX_ROW];
    for (int64_t i = 0, at = 0; i < n_parts; i++)
        at = fill_part((int)i, at, &parts[i]);
    for (int e = 0; e < shape->heads * shape->dim; e++)
        q[e] = number(QUERY, QUERY_TOKEN, e);
    const struct decoder_query query = {.q = q, .scale = shape->scale, .rope = bed.rope, .out = bed.out};
    if (decoder_attend(bed.decoder, &query, parts, n_parts, &err) < 0)
        fail_msg("%s", err.text);
}

/* The right answer, and the same bits on every rank. */
static void check(void)
{
    const struct shape *shape = bed.shape;
    const size_t bytes = (size_t)(shape->heads * shape->dim) * sizeof(float);
    float first[MAX_ROW];
    memcpy(first, bed.out, bytes);
    assert_int_equal(comm_broadcast(&world, first, bytes, 0, &err), 0);
    assert_memory_equal(first, bed.out, bytes);
    for (int head = 0; head < shape->heads; head++) {
        double expected[ATTN_MAX_DIM];
        expected_of(head, expected);
        for (int e = 0; e < shape->dim; e++) {
            const double difference = fabs((double)bed.out[head * shape->dim + e] - expected[e]);
            if (!(difference <= shape->tolerance))
                fail_msg("head %d, element %d differs from dense by %g", head, e, difference);
        }
    }
}

/* One part of n tokens in a row, dealt to the ranks in turns of `run`. */
static void dealt_tokens_equal_dense(const struct shape *shape, int64_t n, int64_t run)
{
    bed_make(shape);
    bed.n = n;
    for (int64_t t = 0; t < n; t++)
        bed.seen[t] = (struct seen){t, n, 0, (int)(t / run % world.size), 1};
    attend(1);
    check();
    bed_free();
}

static const struct shape SMALL = SMALL_SHAPE;

static void shapes_of_models_equal_dense(void **state)
{
    (void)state;
    for (int i = 0; i < N_MODELS; i++)
        dealt_tokens_equal_dense(&MODELS[i], 300, 7);
}

static void any_number_of_keys_equals_dense(void **state)
{
    (void)state;
    const int64_t lengths[] = {0, 1, 2, 3, 31, 32, 33, 255, 256, 257, 600, MAX_TOKENS};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
        dealt_tokens_equal_dense(&SMALL, lengths[i], 1);
}

static void keys_kept_without_what_they_share_equal_dense(void **state)
{
    (void)state;
    for (enum dtype dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        const struct shape shape = keys_that_share(dtype);
        dealt_tokens_equal_dense(&shape, 300, 5);
    }
}

static void scores_of_ten_thousand_stay_finite(void **state)
{
    (void)state;
    struct shape shape = SMALL;
    shape.scale = 4000.0f; /* fp32 keeps such a score to 1e-3: which key wins is all that can be asked */
    shape.tolerance = 2e-2;
    dealt_tokens_equal_dense(&shape, 200, 3);
}

static void all_keys_on_one_rank_equal_dense(void **state)
{
    (void)state;
    for (int rank = 0; rank < world.size; rank++) {
        bed_make(&SMALL);
        bed.n = 300;
        for (int64_t t = 0; t < bed.n; t++)
            bed.seen[t] = (struct seen){t, bed.n, 0, rank, 1};
        attend(1);
        check();
        bed_free();
    }
}

static void keys_far_apart_equal_dense(void **state)
{
    (void)state;
    bed_make(&SMALL);
    bed.n = 200;
    for (int64_t t = 0; t < bed.n; t++)
        bed.seen[t] = (struct seen){t * t * 25, bed.n * bed.n * 25, 0, (int)(t % world.size), 1};
    attend(1);
    check();
    bed_free();
}

/* As bounded attention asks: pooled slots at indices, recent keys at their own positions, and nothing else. */
static void parts_with_positions_and_weights_of_their_own_equal_dense(void **state)
{
    (void)state;
    struct shape shape = MODELS[0];
    bed_make(&shape);
    bed.n = 500;
    for (int64_t t = 0; t < bed.n; t++)
        bed.seen[t] = t < 100   ? (struct seen){0, 128, 0, (int)(t % world.size), 1}
                      : t < 170 ? (struct seen){t - 100, 300, 1, (int)(t % world.size), 4}
                                : (struct seen){9000 + t, 9500, 3, (int)(t / 100 % world.size), 1};
    attend(DECODER_PARTS);
    check();
    bed_free();
}

static void positions_in_a_row_need_no_list(void **state)
{
    (void)state;
    bed_make(&SMALL);
    bed.n = 100;
    for (int64_t t = 0; t < bed.n; t++)
        bed.seen[t] = (struct seen){5000 + t, 5100, 0, world.size - 1, 1};
    struct decoder_part part;
    float q[MAX_ROW];
    fill_part(0, 0, &part);
    part.positions = NULL;
    part.first_position = 5000;
    part.step = 1;
    for (int e = 0; e < SMALL.dim; e++)
        q[e] = number(QUERY, QUERY_TOKEN, e);
    const struct decoder_query query = {.q = q, .scale = SMALL.scale, .rope = bed.rope, .out = bed.out};
    assert_int_equal(decoder_attend(bed.decoder, &query, &part, 1, &err), 0);
    check();
    bed_free();
}

static void another_rope_gives_another_answer(void **state)
{
    (void)state;
    struct shape local = SMALL, global = SMALL;
    global.base = 1e6;
    struct rope *ropes[2];
    bed_make(&local);
    ropes[0] = bed.rope;
    ropes[1] = rope_create(
        &(struct rope_options){.dims = 16, .base = 1e6, .pairs = ROPE_NEIGHBOURS, .max_positions = MAX_POSITIONS},
        &err);
    assert_non_null(ropes[1]);
    bed.n = 300;
    for (int64_t t = 0; t < bed.n; t++)
        bed.seen[t] = (struct seen){t, bed.n, 0, (int)(t % world.size), 1};
    for (int turn = 0; turn < 4; turn++) {
        bed.shape = turn % 2 ? &global : &local;
        bed.rope = ropes[turn % 2];
        attend(1);
        check();
    }
    bed.rope = ropes[0];
    rope_free(ropes[1]);
    bed_free();
}

static void poll_is_called(void **state)
{
    (void)state;
    bed_make(&SMALL);
    attend(0);
    assert_true(bed.polls > 0);
    bed_free();
}

static void more_keys_than_it_was_made_for_are_refused(void **state)
{
    (void)state;
    bed_make(&SMALL);
    const struct decoder_part part = {.n = MAX_TOKENS + 1};
    const struct decoder_query query = {.q = bed.out, .scale = 1, .rope = bed.rope, .out = bed.out};
    assert_int_equal(decoder_attend(bed.decoder, &query, &part, 1, &err), -1);
    assert_int_equal(err.code, ERROR_INTERNAL);
    bed_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(shapes_of_models_equal_dense),
        mpi_unit_test(any_number_of_keys_equals_dense),
        mpi_unit_test(keys_kept_without_what_they_share_equal_dense),
        mpi_unit_test(scores_of_ten_thousand_stay_finite),
        mpi_unit_test(all_keys_on_one_rank_equal_dense),
        mpi_unit_test(keys_far_apart_equal_dense),
        mpi_unit_test(parts_with_positions_and_weights_of_their_own_equal_dense),
        mpi_unit_test(positions_in_a_row_need_no_list),
        mpi_unit_test(another_rope_gives_another_answer),
        mpi_unit_test(poll_is_called),
        mpi_unit_test(more_keys_than_it_was_made_for_are_refused),
    };
    return mpi_run_tests(tests);
}
