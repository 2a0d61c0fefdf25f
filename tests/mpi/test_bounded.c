/* Bounded attention against its definition, dense and in fp64, on 1 to 4 ranks: what each query sees, and at which
 * positions. Queries, keys and values are functions of the position, so every rank can compute what any token is.
 */
#include "tests/mpi/mpi_test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/bounded.h"
#include "attention/far_record.h"
#include "attention/ring.h"

enum { HEADS = 4, KV_HEADS = 2, DIM = 32, MAX_TOKENS = 4096, GENERATED = 40 };

static const double BASE = 10000.0;
static const float SCALE = 0.6f;

/* ---- tokens --------------------------------------------------------------------------------------------- */

enum kind { QUERY, KEY, VALUE };

/* A number in -1 .. 1 that only depends on its place. */
static float number(enum kind kind, int64_t position, int element)
{
    uint64_t x = (uint64_t)position * 3 + kind;
    x = (x * 100003 + (uint64_t)element + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(x >> 40) / 8388608.0f - 1.0f;
}

static void fill(enum kind kind, int64_t position, int n, float *out)
{
    for (int e = 0; e < n; e++)
        out[e] = number(kind, position, e);
}

/* Whether the token has left the near part of the query at p, and has been kept in four bits. */
static bool is_far(const struct policy_spec *spec, int64_t token, int64_t p)
{
    return policy_past(spec) == PAST_FAR && token >= spec->sinks && token < policy_near_first(spec, p, 0);
}

/* What four bits make of a token, with those of its block. */
static const float *from_far(const struct policy_spec *spec, enum kind kind, int64_t token, int kv_head)
{
    static float rows[2][FAR_BLOCK * DIM], held[2][FAR_BLOCK * DIM];
    static char record[4096];
    static int64_t of = -1;
    const int64_t first = spec->sinks + (token - spec->sinks) / FAR_BLOCK * FAR_BLOCK;
    assert_true(far_record_bytes(DIM) <= sizeof record);
    if (of != first * KV_HEADS + kv_head) {
        for (int64_t i = 0; i < FAR_BLOCK * DIM; i++) {
            rows[0][i] = number(KEY, first + i / DIM, kv_head * DIM + (int)(i % DIM));
            rows[1][i] = number(VALUE, first + i / DIM, kv_head * DIM + (int)(i % DIM));
        }
        far_record_write(record, DTYPE_F32, DIM, rows[0], rows[1]);
        far_record_read(record, DTYPE_F32, DIM, held[0], held[1]);
        of = first * KV_HEADS + kv_head;
    }
    return held[kind == VALUE] + (token - first) * DIM;
}

/* ---- the definition ------------------------------------------------------------------------------------- */

static double cosines[MAX_TOKENS][DIM / 2], sines[MAX_TOKENS][DIM / 2];

static void fill_angles(void)
{
    for (int64_t position = 0; position < MAX_TOKENS; position++)
        for (int i = 0; i < DIM / 2; i++) {
            const double angle = (double)position * pow(BASE, -2.0 * i / DIM);
            cosines[position][i] = cos(angle);
            sines[position][i] = sin(angle);
        }
}

/* x turned to `position` (neighbours form pairs). */
static void turn(const float *from, int64_t position, double *out)
{
    for (int i = 0; i < DIM / 2; i++) {
        const double x = from[2 * i], y = from[2 * i + 1];
        out[2 * i] = x * cosines[position][i] - y * sines[position][i];
        out[2 * i + 1] = x * sines[position][i] + y * cosines[position][i];
    }
}

/* The first token behind the sinks that the query at p sees. A retrieval that may choose all blocks there are sees
 * all that its memory holds: the blocks of the last `memory` tokens before the near part, of whatever segment. */
static int64_t first_behind_sinks(const struct policy_spec *spec, int64_t p)
{
    const int64_t near = policy_near_first(spec, p, 0);
    if (policy_past(spec) != PAST_FAR)
        return i64_max(0, p - spec->window + 1);
    return spec->far == 0 || near == 0 ? 0 : i64_max(spec->sinks, near - i64_round_up(spec->far, FAR_BLOCK));
}

/* The tokens that the query at p sees, in order; returns how many. Positions are their indices in this list, the
 * query's is the last: relative positions are the same for window, and are those of StreamingLLM for sinks. */
static int64_t visible_tokens(const struct policy_spec *spec, int64_t p, int64_t *tokens)
{
    const int64_t near = first_behind_sinks(spec, p);
    int64_t n = 0;
    for (int64_t t = 0; t < i64_min(near, spec->sinks); t++)
        tokens[n++] = t;
    for (int64_t t = near; t <= p; t++)
        tokens[n++] = t;
    return n;
}

/* A kv head of a token as the query at p sees it. */
static void seen_row(const struct policy_spec *spec, enum kind kind, int64_t token, int kv_head, int64_t p,
                     float *out)
{
    if (is_far(spec, token, p))
        memcpy(out, from_far(spec, kind, token, kv_head), DIM * sizeof *out);
    else
        for (int e = 0; e < DIM; e++)
            out[e] = number(kind, token, kv_head * DIM + e);
}

static void dense(const struct policy_spec *spec, int64_t p, int head, double *out)
{
    static int64_t tokens[MAX_TOKENS];
    static double scores[MAX_TOKENS];
    const int64_t n = visible_tokens(spec, p, tokens);
    const int kv_head = head / (HEADS / KV_HEADS);
    double q[DIM], k[DIM], largest = -INFINITY, sum = 0;
    float row[DIM];
    for (int e = 0; e < DIM; e++)
        row[e] = number(QUERY, p, head * DIM + e);
    turn(row, n - 1, q);
    for (int64_t i = 0; i < n; i++) {
        seen_row(spec, KEY, tokens[i], kv_head, p, row);
        turn(row, i, k);
        scores[i] = 0;
        for (int e = 0; e < DIM; e++)
            scores[i] += q[e] * k[e] * (double)SCALE;
        largest = fmax(largest, scores[i]);
    }
    memset(out, 0, DIM * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        const double weight = exp(scores[i] - largest);
        sum += weight;
        seen_row(spec, VALUE, tokens[i], kv_head, p, row);
        for (int e = 0; e < DIM; e++)
            out[e] += weight * (double)row[e];
    }
    for (int e = 0; e < DIM; e++)
        out[e] /= sum;
}

static void compare(const struct policy_spec *spec, int64_t p, const float *row)
{
    for (int head = 0; head < HEADS; head++) {
        double expected[DIM];
        dense(spec, p, head, expected);
        for (int e = 0; e < DIM; e++)
            if (!(fabs((double)row[head * DIM + e] - expected[e]) < 2e-5))
                fail_msg("token %d, head %d, element %d: %g, not %g", (int)p, head, e, (double)row[head * DIM + e],
                         expected[e]);
    }
}

/* ---- the program's way ---------------------------------------------------------------------------------- */

struct fixture {
    struct pool *pool;
    struct rope *rope;
    struct decoder *decoder;
    struct bounded *bounded;
    struct policy_spec spec;
    float *answers; /* [position][HEADS * DIM]: where answers go that have no definition; or NULL */
};

static void open_fixture(struct fixture *f, const char *policy, int64_t segment)
{
    *f = (struct fixture){0};
    assert_int_equal(policy_parse(policy, &f->spec, &err), 0);
    const struct rope_options rope = {
        .dims = DIM, .base = BASE, .pairs = ROPE_NEIGHBOURS, .max_positions = MAX_TOKENS};
    assert_non_null(f->pool = pool_create(2, &err));
    assert_non_null(f->rope = rope_create(&rope, &err));
    const struct decoder_options decoder = {.group = &world,
                                            .pool = f->pool,
                                            .device = device_cpu(),
                                            .dtype = DTYPE_F32,
                                            .heads = HEADS,
                                            .kv_heads = KV_HEADS,
                                            .dim = DIM,
                                            .max_keys = MAX_TOKENS};
    assert_non_null(f->decoder = decoder_create(&decoder, &err));
    const struct bounded_options options = {.group = &world,
                                            .pool = f->pool,
                                            .device = device_cpu(),
                                            .kernel = attn_kernel_choose(DTYPE_F32, NULL, &err),
                                            .decoder = f->decoder,
                                            .specs = &f->spec,
                                            .layers = 1,
                                            .heads = HEADS,
                                            .kv_heads = KV_HEADS,
                                            .dim = DIM,
                                            .max_tokens = MAX_TOKENS,
                                            .max_segment = segment,
                                            .max_generated = GENERATED};
    f->bounded = bounded_create(&options, &err);
    if (!f->bounded)
        fail_msg("%s", err.text);
}

static void close_fixture(struct fixture *f)
{
    bounded_free(f->bounded);
    decoder_free(f->decoder);
    rope_free(f->rope);
    pool_free(f->pool);
}

static void take(struct fixture *f, int64_t position, const float *row)
{
    if (f->answers)
        memcpy(f->answers + position * HEADS * DIM, row, HEADS * DIM * sizeof *row);
    else
        compare(&f->spec, position, row);
}

static void run_segment(struct fixture *f, int64_t first, int64_t end)
{
    const struct zigzag block = zigzag_block(first, end, world.rank, world.size);
    const int64_t rows = block.end[0] - block.first[0] + block.end[1] - block.first[1];
    float *q = calloc((size_t)(rows + 1) * HEADS * DIM, sizeof *q),
          *out = calloc((size_t)(rows + 1) * HEADS * DIM, sizeof *out);
    float k[KV_HEADS * DIM], v[KV_HEADS * DIM];
    assert_int_equal(bounded_begin(f->bounded, first, end, &err), 0);
    int64_t row = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = block.first[part]; p < block.end[part]; p++) {
            fill(QUERY, p, HEADS * DIM, q + row++ * HEADS * DIM);
            fill(KEY, p, KV_HEADS * DIM, k);
            fill(VALUE, p, KV_HEADS * DIM, v);
            bounded_put(f->bounded, 0, p, k, v);
        }
    const struct bounded_queries queries = {q, HEADS * DIM, SCALE, f->rope, out};
    if (bounded_attend(f->bounded, 0, &queries, &err) != 0)
        fail_msg("%s", err.text);
    row = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = block.first[part]; p < block.end[part]; p++)
            take(f, p, out + row++ * HEADS * DIM);
    free(q);
    free(out);
}

static void run_one(struct fixture *f, int64_t position)
{
    float q[HEADS * DIM], k[KV_HEADS * DIM], v[KV_HEADS * DIM], out[HEADS * DIM];
    fill(QUERY, position, HEADS * DIM, q);
    fill(KEY, position, KV_HEADS * DIM, k);
    fill(VALUE, position, KV_HEADS * DIM, v);
    assert_int_equal(bounded_begin_one(f->bounded, &err), 0);
    bounded_put(f->bounded, 0, position, k, v);
    const struct decoder_query query = {.q = q, .scale = SCALE, .rope = f->rope, .out = out};
    if (bounded_attend_one(f->bounded, 0, &query, &err) != 0)
        fail_msg("%s", err.text);
    compare(&f->spec, position, out);
}

/* What the query at `next` does not see, of all before it. */
static void check_forgotten(const struct fixture *f, int64_t next)
{
    static int64_t tokens[MAX_TOKENS];
    assert_int_equal(bounded_forgotten(f->bounded), next + 1 - visible_tokens(&f->spec, next, tokens));
}

/* What a rank holds at most where a segment has ended: the near part, the first tokens, and its share of the
 * blocks, in four bits, that a query may see. */
static size_t most_resident(const struct policy_spec *spec, int64_t end)
{
    const int64_t near = policy_near_first(spec, end, end);
    const size_t raw = 2 * sizeof(float) * KV_HEADS * DIM * (size_t)(end - near + i64_min(end, spec->sinks));
    if (policy_past(spec) != PAST_FAR)
        return raw;
    const int64_t left = i64_max(0, near - spec->sinks) / FAR_BLOCK;
    const int64_t blocks = spec->far > 0 ? i64_min(left, i64_ceil_div(spec->far, FAR_BLOCK)) : left;
    return raw + KV_HEADS * far_record_bytes(DIM) * (size_t)i64_ceil_div(blocks, world.size);
}

/* n tokens by segments, then GENERATED one by one; twice, so that a reset is tried too. */
static void check(const char *policy, int64_t n, int64_t segment)
{
    struct fixture f;
    open_fixture(&f, policy, segment);
    for (int round = 0; round < 2; round++) {
        bounded_reset(f.bounded);
        for (int64_t first = 0; first < n; first += segment) {
            const int64_t end = i64_min(first + segment, n);
            run_segment(&f, first, end);
            check_forgotten(&f, end);
            assert_true(bounded_resident(f.bounded) <= most_resident(&f.spec, end));
        }
        for (int64_t p = n; p < n + GENERATED; p++) {
            run_one(&f, p);
            check_forgotten(&f, p + 1);
        }
    }
    close_fixture(&f);
}

static void a_window_equals_its_definition(void **state)
{
    (void)state;
    check("window:window=100", 700, 256);
    check("window:window=1", 40, 16);
}

static void a_window_wider_than_blocks_and_segments_equals_its_definition(void **state)
{
    (void)state;
    check("window:window=500", 900, 128);
    check("window:window=3000", 900, 300);
}

/* Tokens that this rank has sent to others. */
static int64_t tokens_sent;

int MPI_Sendrecv(const void *send, int send_count, MPI_Datatype send_type, int to, int send_tag, void *receive,
                 int receive_count, MPI_Datatype receive_type, int from, int receive_tag, MPI_Comm comm,
                 MPI_Status *status)
{
    tokens_sent += send_count;
    return PMPI_Sendrecv(send, send_count, send_type, to, send_tag, receive, receive_count, receive_type, from,
                         receive_tag, comm, status);
}

/* A rank has two blocks of a segment, and needs what is before each of them and before the next segment. */
static void ranks_exchange_no_more_than_a_window_wants(void **state)
{
    enum { HALO = 19, SEGMENT = 512 };
    struct fixture f;
    int64_t sent = 0;
    (void)state;
    open_fixture(&f, "window:window=20", SEGMENT);
    bounded_reset(f.bounded);
    tokens_sent = 0;
    run_segment(&f, 0, SEGMENT);
    assert_int_equal(comm_sum(&world, tokens_sent, &sent, &err), 0);
    assert_true(sent <= 3 * HALO * world.size && (sent > 0) == (world.size > 1));
    close_fixture(&f);
}

static void sinks_stand_at_their_index_inside_the_cache(void **state)
{
    (void)state;
    check("sinks:window=60,sinks=4", 600, 256);
    check("sinks:window=200,sinks=7", 700, 128);
}

static void sinks_without_sinks_are_a_window(void **state)
{
    (void)state;
    check("sinks:window=64,sinks=0", 300, 128);
}

static void tokens_come_in_segments_of_any_length(void **state)
{
    (void)state;
    check("sinks:window=50,sinks=10", 233, 7);
    check("sinks:window=3,sinks=10", 100, 33);
}

static void a_retrieval_that_may_choose_all_sees_all_of_it_in_four_bits(void **state)
{
    (void)state;
    check("retrieval:window=60,sinks=4,top=24", 600, 256);
    check("retrieval:window=200,sinks=0,top=24", 600, 128);
    check("retrieval:window=33,sinks=9,top=14", 350, 77);
}

static void a_bounded_retrieval_sees_the_last_of_it_in_segments_of_any_length(void **state)
{
    (void)state;
    const int64_t segments[] = {77, 256, 512};
    for (size_t i = 0; i < sizeof segments / sizeof *segments; i++) {
        check("retrieval:window=60,sinks=4,top=6,memory=192", 500, segments[i]);
        check("retrieval:window=33,sinks=0,top=2,memory=64", 300, segments[i]);
    }
}

/* ---- choices -------------------------------------------------------------------------------------------- */

/* This rank's answers to the segments' queries, at their positions; 0 for those of others. */
static void answers_to(const char *policy, int64_t n, int64_t segment, float *answers)
{
    struct fixture f;
    open_fixture(&f, policy, segment);
    f.answers = answers;
    bounded_reset(f.bounded);
    for (int64_t first = 0; first < n; first += segment)
        run_segment(&f, first, i64_min(first + segment, n));
    close_fixture(&f);
}

/* Where a few of the blocks are chosen, the same groups of queries choose the same ones. */
static void choices_do_not_depend_on_the_segment(void **state)
{
    enum { N = 1500, ALL = N * HEADS * DIM };
    static float expected[ALL], got[ALL];
    (void)state;
    for (int64_t segment = 128; segment <= 2048; segment *= 2) {
        float *answers = segment == 128 ? expected : got;
        memset(answers, 0, sizeof got);
        answers_to("retrieval:window=70,sinks=4,top=3,memory=384", N, segment, answers);
        MPI_Allreduce(MPI_IN_PLACE, answers, ALL, MPI_FLOAT, MPI_SUM, world.mpi);
        for (int i = 0; i < ALL && segment > 128; i++)
            if (!(fabsf(got[i] - expected[i]) < 1e-5f))
                fail_msg("token %d in a segment of %d: %g, not %g", i / (HEADS * DIM), (int)segment, (double)got[i],
                         (double)expected[i]);
    }
}

static void first_tokens_may_be_more_than_a_window_and_a_block(void **state)
{
    (void)state;
    check("retrieval:window=60,sinks=300,top=24", 700, 300);
}

static void heads_that_the_kernels_cannot_do_are_refused(void **state)
{
    static const struct policy_spec spec = {.kind = POLICY_WINDOW, .window = 10};
    const int bad[][3] = {{ATTN_QUERY_ROWS + 1, 1, 16}, {4, 3, 16}, {4, 2, 24}, {4, 2, 2 * ATTN_MAX_DIM}};
    struct pool *pool = pool_create(1, &err);
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const struct bounded_options options = {.group = &world,
                                                .pool = pool,
                                                .device = device_cpu(),
                                                .kernel = attn_kernel_choose(DTYPE_F32, NULL, &err),
                                                .specs = &spec,
                                                .layers = 1,
                                                .heads = bad[i][0],
                                                .kv_heads = bad[i][1],
                                                .dim = bad[i][2],
                                                .max_tokens = 100,
                                                .max_segment = 10};
        size_t bytes;
        assert_int_equal(bounded_bytes(&options, &bytes, &err), -1);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_null(bounded_create(&options, &err));
        err = (struct error){0};
    }
    pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(a_bounded_retrieval_sees_the_last_of_it_in_segments_of_any_length),
        mpi_unit_test(choices_do_not_depend_on_the_segment),
        mpi_unit_test(a_retrieval_that_may_choose_all_sees_all_of_it_in_four_bits),
        mpi_unit_test(first_tokens_may_be_more_than_a_window_and_a_block),
        mpi_unit_test(a_window_equals_its_definition),
        mpi_unit_test(a_window_wider_than_blocks_and_segments_equals_its_definition),
        mpi_unit_test(ranks_exchange_no_more_than_a_window_wants),
        mpi_unit_test(sinks_stand_at_their_index_inside_the_cache),
        mpi_unit_test(sinks_without_sinks_are_a_window),
        mpi_unit_test(tokens_come_in_segments_of_any_length),
        mpi_unit_test(heads_that_the_kernels_cannot_do_are_refused),
    };
    fill_angles();
    return mpi_run_tests(tests);
}
