/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attention/kernel.h"

/* One head's queries and keys, and what a kernel makes of them. q, k, v hold numbers of the kernel's dtype. */
struct problem {
    const struct attn_kernel *kernel;
    int rows, dim;
    int64_t keys;
    float *q, *k, *v; /* [rows][dim], [keys][dim] twice */
    void *q_typed;    /* q in the kernel's dtype */
    struct attn_span *spans;
    unsigned char *packed;
    struct attn_state state;
    float *lse;
    void *scratch;
};

static uint64_t random_state;

static uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int64_t random_below(int64_t n)
{
    return (int64_t)(random_bits() % (uint64_t)n);
}

/* about normal, of variance 1 */
static float random_normal(void)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (double)(random_bits() >> 11) * 0x1p-53;
    return (float)(sum - 6);
}

static void seed_from(uint64_t seed)
{
    const char *given = getenv("LONGHAUL_TEST_SEED");
    random_state = given ? strtoull(given, NULL, 10) : seed;
    print_message("seed %llu\n", (unsigned long long)random_state);
    random_state = random_state * 0x9e3779b97f4a7c15u | 1;
}

static void *must_alloc(size_t bytes)
{
    void *memory = aligned_alloc(ATTN_ALIGN, (size_t)i64_round_up((int64_t)bytes + 1, ATTN_ALIGN));
    assert_non_null(memory);
    return memory;
}

static float *numbers(int64_t n, enum dtype dtype, float size)
{
    float *out = must_alloc((size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        out[i] = random_normal() * size;
        if (dtype == DTYPE_BF16)
            out[i] = bf16_to_f32(bf16_from_f32(out[i]));
    }
    return out;
}

static void *typed(const float *from, int64_t n, enum dtype dtype)
{
    bf16 *out = must_alloc((size_t)n * dtype_size(dtype));
    if (dtype == DTYPE_F32)
        return memcpy(out, from, (size_t)n * sizeof *from);
    for (int64_t i = 0; i < n; i++)
        out[i] = bf16_from_f32(from[i]);
    return out;
}

/* After a change of q, k or v. */
static void problem_pack(struct problem *p)
{
    enum dtype dtype = p->kernel->dtype;
    int64_t tiles = i64_ceil_div(p->keys, ATTN_KEY_TILE);
    free(p->packed);
    free(p->q_typed);
    p->q_typed = typed(p->q, (int64_t)p->rows * p->dim, dtype);
    p->packed = must_alloc((size_t)tiles * p->kernel->tile_bytes(p->dim));
    void *v = typed(p->v, p->keys * p->dim, dtype);
    for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * ATTN_KEY_TILE, n = i64_min(ATTN_KEY_TILE, p->keys - first);
        p->kernel->pack(p->packed + (size_t)t * p->kernel->tile_bytes(p->dim), p->k + first * p->dim,
                        (char *)v + (size_t)(first * p->dim) * dtype_size(dtype), (int)n, p->dim);
    }
    free(v);
}

/* Every row sees every key until the test says otherwise. `size` is that of the scores, about. */
static struct problem problem_make(const struct attn_kernel *kernel, int rows, int64_t keys, int dim, float size)
{
    struct problem p = {.kernel = kernel, .rows = rows, .dim = dim, .keys = keys};
    p.q = numbers((int64_t)rows * dim, kernel->dtype, size / sqrtf((float)dim));
    p.k = numbers(keys * dim, kernel->dtype, 1);
    p.v = numbers(keys * dim, kernel->dtype, 1);
    p.spans = must_alloc((size_t)rows * sizeof *p.spans);
    for (int r = 0; r < rows; r++)
        p.spans[r] = (struct attn_span){0, keys};
    p.state.o = must_alloc((size_t)rows * (size_t)dim * sizeof(float));
    p.state.m = must_alloc((size_t)rows * sizeof(float));
    p.state.l = must_alloc((size_t)rows * sizeof(float));
    p.lse = must_alloc((size_t)rows * sizeof(float));
    p.scratch = must_alloc(kernel->scratch_bytes(dim));
    problem_pack(&p);
    attn_state_reset(&p.state, rows, dim);
    return p;
}

static void problem_free(struct problem *p)
{
    void *all[] = {p->q,       p->k,       p->v,       p->q_typed, p->spans,  p->packed,
                   p->state.o, p->state.m, p->state.l, p->lse,     p->scratch};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* Attend rows [first, first + rows) under `spans`. */
static void attend_rows(struct problem *p, const struct attn_span *spans, int first, int rows)
{
    size_t at = (size_t)first * (size_t)p->dim;
    struct attn_state state = {p->state.o + at, p->state.m + first, p->state.l + first};
    struct attn_tile tile = {(char *)p->q_typed + at * dtype_size(p->kernel->dtype), spans, rows, p->dim};
    attn_attend(p->kernel, &tile, p->packed, &state, p->scratch);
}

static void attend_all(struct problem *p)
{
    attend_rows(p, p->spans, 0, p->rows);
}

static double dense_score(const struct problem *p, int r, int64_t j)
{
    double score = 0;
    for (int d = 0; d < p->dim; d++)
        score += (double)p->q[r * p->dim + d] * p->k[j * p->dim + d];
    return score;
}

/* o [dim] and the natural log-sum-exp of one row, in fp64. */
static double dense_row(const struct problem *p, int r, double *o)
{
    const double ln_2 = log(2);
    double sum = 0, high = -INFINITY;
    for (int d = 0; d < p->dim; d++)
        o[d] = 0;
    for (int64_t j = p->spans[r].first; j < p->spans[r].end; j++) {
        const double score = dense_score(p, r, j);
        if (score > high) {
            double factor = exp2(high - score);
            sum *= factor;
            for (int d = 0; d < p->dim; d++)
                o[d] *= factor;
            high = score;
        }
        double weight = exp2(score - high);
        sum += weight;
        for (int d = 0; d < p->dim; d++)
            o[d] += weight * p->v[j * p->dim + d];
    }
    for (int d = 0; d < p->dim; d++)
        o[d] /= sum > 0 ? sum : 1;
    return high * ln_2 + log(sum);
}

/* What a kernel may lose: fp32 rounding, or that of weights held in bf16. */
static double tolerance(const struct attn_kernel *kernel)
{
    return kernel->dtype == DTYPE_F32 ? 1e-5 : 8e-3;
}

/* |o - want| / |want| of every row, and the log-sum-exp, against fp64. */
static void finish_and_check(struct problem *p)
{
    attn_state_finish(&p->state, p->rows, p->dim, p->lse);
    for (int r = 0; r < p->rows; r++) {
        double want[ATTN_MAX_DIM], lse = dense_row(p, r, want), off = 0, size = 0;
        for (int d = 0; d < p->dim; d++) {
            double got = p->state.o[r * p->dim + d];
            assert_true(isfinite(got));
            off += (got - want[d]) * (got - want[d]);
            size += want[d] * want[d];
        }
        if (p->spans[r].first >= p->spans[r].end) {
            assert_true(off == 0 && p->lse[r] == -INFINITY);
            continue;
        }
        if (!(sqrt(off) <= tolerance(p->kernel) * sqrt(size)))
            fail_msg("%s: rows %d, keys %lld, dim %d: row %d (keys %lld to %lld) is off by %g", p->kernel->name,
                     p->rows, (long long)p->keys, p->dim, r, (long long)p->spans[r].first,
                     (long long)p->spans[r].end, sqrt(off / size));
        assert_true(fabs(p->lse[r] - lse) <= 1e-5 * fmax(1, fabs(lse)));
    }
}

static void for_each_kernel(void (*check)(const struct attn_kernel *kernel))
{
    int n;
    const struct attn_kernel *const *kernels = attn_kernels(&n);
    for (int i = 0; i < n; i++) {
        if (kernels[i]->supported())
            check(kernels[i]);
        else
            print_message("%s: this CPU lacks its instructions\n", kernels[i]->name);
    }
}

static const int dims[] = {16, 64, 80, 96, 128, 256};
enum { N_DIMS = sizeof dims / sizeof dims[0] };

/* Rising spans: causal, a window, or stretches of any length, empty ones among them. */
static void random_spans(struct problem *p)
{
    int group = 1 + (int)random_below(4);
    int64_t window = random_below(3) == 0 ? 1 + random_below(p->keys) : INT64_MAX / 2;
    int64_t end = random_below(p->keys + 1), first = 0;
    for (int r = 0; r < p->rows; r++) {
        if (r % group == 0 && r > 0)
            end = i64_min(p->keys, end + (random_below(2) ? 1 : random_below(40)));
        first = i64_max(first, end - window);
        p->spans[r] = (struct attn_span){first, random_below(10) == 0 ? first : end};
    }
}

static void check_random_shapes(const struct attn_kernel *kernel)
{
    for (int i = 0; i < 36; i++) {
        int rows = i % 3 ? 1 + (int)random_below(30) : 1 + (int)random_below(ATTN_QUERY_ROWS);
        struct problem p = problem_make(kernel, rows, 1 + random_below(i % 2 ? 600 : 100), dims[i % N_DIMS], 3);
        if (i % 4)
            random_spans(&p);
        attend_all(&p);
        finish_and_check(&p);
        problem_free(&p);
    }
}

static void every_kernel_equals_dense_fp64_over_random_shapes(void **state)
{
    (void)state;
    seed_from(1);
    for_each_kernel(check_random_shapes);
}

static void check_causal_groups(const struct attn_kernel *kernel)
{
    enum { GROUP = 7, TOKENS = 27, PAST = 301 };
    struct problem p = problem_make(kernel, GROUP * TOKENS, PAST + TOKENS, 64, 3);
    for (int r = 0; r < p.rows; r++)
        p.spans[r].end = PAST + r / GROUP + 1;
    attend_all(&p);
    finish_and_check(&p);
    problem_free(&p);
}

static void query_heads_of_a_group_share_their_spans(void **state)
{
    (void)state;
    seed_from(2);
    for_each_kernel(check_causal_groups);
}

/* The part of `span` within [first, end). */
static struct attn_span clip(struct attn_span span, int64_t first, int64_t end)
{
    return (struct attn_span){i64_max(span.first, first), i64_min(span.end, end)};
}

static void check_many_calls(const struct attn_kernel *kernel)
{
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct problem p =
            problem_make(kernel, 1 + (int)random_below(40), 400 + random_below(500), dims[i % N_DIMS], 6);
        random_spans(&p);
        attend_all(&p);
        size_t bytes = (size_t)p.rows * (size_t)p.dim * sizeof(float);
        float *once = memcpy(must_alloc(bytes), p.state.o, bytes);
        attn_state_reset(&p.state, p.rows, p.dim);
        for (int64_t first = 0, end; first < p.keys; first = end) {
            struct attn_span spans[ATTN_QUERY_ROWS];
            end = first + ATTN_KEY_TILE * (1 + random_below(3));
            for (int r = 0; r < p.rows; r++)
                spans[r] = clip(p.spans[r], first, end);
            attend_rows(&p, spans, 0, p.rows);
        }
        assert_memory_equal(once, p.state.o, bytes);
        finish_and_check(&p);
        free(once);
        problem_free(&p);
    }
}

static void many_calls_give_the_bits_of_one_call(void **state)
{
    (void)state;
    seed_from(3);
    for_each_kernel(check_many_calls);
}

static void check_rows_alone(const struct attn_kernel *kernel)
{
    for (int i = 0; i < N_DIMS; i++) {
        struct problem p = problem_make(kernel, 53, 700, dims[i], 6);
        random_spans(&p);
        attend_all(&p);
        size_t bytes = (size_t)p.rows * (size_t)p.dim * sizeof(float);
        float *together = memcpy(must_alloc(bytes), p.state.o, bytes);
        attn_state_reset(&p.state, p.rows, p.dim);
        for (int first = 0, rows; first < p.rows; first += rows) {
            rows = (int)i64_min(1 + random_below(i % 2 ? 1 : 13), p.rows - first);
            attend_rows(&p, p.spans + first, first, rows);
        }
        assert_memory_equal(together, p.state.o, bytes);
        finish_and_check(&p);
        free(together);
        problem_free(&p);
    }
}

static void rows_alone_give_the_bits_they_give_in_a_full_tile(void **state)
{
    (void)state;
    seed_from(4);
    for_each_kernel(check_rows_alone);
}

static void check_empty_spans(const struct attn_kernel *kernel)
{
    struct problem p = problem_make(kernel, 20, 130, 64, 3);
    for (int r = 0; r < p.rows; r++)
        p.spans[r] = (struct attn_span){r, r % 3 ? 70 : r};
    attend_all(&p);
    struct attn_span nothing[20];
    for (int r = 0; r < p.rows; r++)
        nothing[r] = (struct attn_span){r, r};
    size_t bytes = (size_t)p.rows * (size_t)p.dim * sizeof(float);
    float *before = memcpy(must_alloc(bytes), p.state.o, bytes);
    attend_rows(&p, nothing, 0, p.rows);
    assert_memory_equal(before, p.state.o, bytes);
    finish_and_check(&p);
    free(before);
    problem_free(&p);
}

static void rows_with_empty_spans_are_left_as_they_are(void **state)
{
    (void)state;
    seed_from(5);
    for_each_kernel(check_empty_spans);
}

/* Whole numbers, so that scores of +-1e4 are exact in every arithmetic. */
static void check_large_scores(const struct attn_kernel *kernel)
{
    struct problem p = problem_make(kernel, 13, 500, 64, 1);
    for (int i = 0; i < p.rows * p.dim; i++)
        p.q[i] = (float)(random_below(257) - 128);
    for (int64_t i = 0; i < p.keys * p.dim; i++)
        p.k[i] = (float)(random_below(31) - 15);
    for (int d = 0; d < p.dim; d++) /* row 0 meets its own likeness twice, with both signs */
        p.k[300 * p.dim + d] = -(p.k[77 * p.dim + d] = p.q[d] > 0 ? 2 : -2);
    problem_pack(&p);
    random_spans(&p);
    p.spans[0] = (struct attn_span){0, 0};
    p.spans[1] = (struct attn_span){0, p.keys};
    attend_all(&p);
    finish_and_check(&p);
    problem_free(&p);
}

static void scores_of_ten_thousand_stay_finite_and_right(void **state)
{
    (void)state;
    seed_from(6);
    for_each_kernel(check_large_scores);
}

static void check_rising_scores(const struct attn_kernel *kernel)
{
    struct problem p = problem_make(kernel, 5, 900, 16, 1);
    for (int i = 0; i < p.rows * p.dim; i++)
        p.q[i] = i % p.dim == 0 ? 16.0f : 0.0f;
    for (int64_t j = 0; j < p.keys; j++) /* every block's largest is far above, then far below the last one's */
        p.k[j * p.dim] = (float)(j < 450 ? j / 2 : 225 - j / 4) - 112.0f;
    problem_pack(&p);
    attend_all(&p);
    finish_and_check(&p);
    problem_free(&p);
}

static void the_reference_follows_scores_that_rise_and_fall(void **state)
{
    (void)state;
    seed_from(7);
    for_each_kernel(check_rising_scores);
}

static void check_one_key(const struct attn_kernel *kernel)
{
    for (int i = 0; i < N_DIMS; i++) {
        struct problem p = problem_make(kernel, 1 + i, 1, dims[i], 3);
        attend_all(&p);
        finish_and_check(&p);
        for (int n = 0; n < p.rows * p.dim; n++)
            assert_true(fabsf(p.state.o[n] - p.v[n % p.dim]) <= 4e-3f * fabsf(p.v[n % p.dim]));
        problem_free(&p);
    }
}

static void one_key_gives_its_value(void **state)
{
    (void)state;
    seed_from(8);
    for_each_kernel(check_one_key);
}

static void check_tiles_outside(const struct attn_kernel *kernel)
{
    struct problem p = problem_make(kernel, 12, 640, 64, 3);
    size_t bytes = kernel->tile_bytes(64);
    memset(p.packed, 0xff, 2 * bytes); /* not a number, in f32 and in bf16 */
    memset(p.packed + 8 * bytes, 0xff, 2 * bytes);
    for (int r = 0; r < p.rows; r++)
        p.spans[r] = (struct attn_span){128 + r, 500 + r};
    attend_all(&p);
    finish_and_check(&p);
    problem_free(&p);
}

static void tiles_that_no_row_sees_are_not_read(void **state)
{
    (void)state;
    seed_from(9);
    for_each_kernel(check_tiles_outside);
}

/* What the keys get from rows [first, first + rows), whose log-sum-exp is known, added to sums. */
static void observe_rows(struct problem *p, int first, int rows, const struct attn_received *received)
{
    const size_t at = (size_t)first * (size_t)p->dim * dtype_size(p->kernel->dtype);
    const struct attn_tile tile = {(char *)p->q_typed + at, p->spans + first, rows, p->dim};
    attn_observe(p->kernel, &tile, p->packed, received, p->scratch);
}

/* want [classes][keys], in fp64 */
static void dense_received(const struct problem *p, int classes, double *want)
{
    double o[ATTN_MAX_DIM];
    memset(want, 0, (size_t)(classes * p->keys) * sizeof *want);
    for (int r = 0; r < p->rows; r++) {
        const double lse = dense_row(p, r, o);
        for (int64_t j = p->spans[r].first; j < p->spans[r].end; j++)
            want[r % classes * p->keys + j] += exp(dense_score(p, r, j) * log(2) - lse);
    }
}

/* All rows at once against fp64, and the same whole numbers from rows a few at a time. */
static void check_received(const struct attn_kernel *kernel)
{
    for (int i = 0; i < 2 * N_DIMS; i++) {
        struct problem p = problem_make(kernel, 1 + (int)random_below(ATTN_QUERY_ROWS), 1 + random_below(700),
                                        dims[i % N_DIMS], 3);
        const int classes = i % 2 ? 1 : 1 + (int)random_below(7);
        const int64_t stride = i64_round_up(p.keys, ATTN_KEY_TILE);
        const size_t n = (size_t)(classes * stride);
        int64_t *sums = calloc(n, sizeof *sums), *by_parts = calloc(n, sizeof *by_parts);
        double *want = calloc((size_t)(classes * p.keys), sizeof *want);
        assert_true(sums && by_parts && want);
        random_spans(&p);
        attend_all(&p);
        attn_state_finish(&p.state, p.rows, p.dim, p.lse);
        observe_rows(&p, 0, p.rows, &(struct attn_received){p.lse, sums, stride, classes});
        for (int first = 0, rows; first < p.rows; first += rows) {
            rows = (int)i64_min(classes * (1 + random_below(5)), p.rows - first);
            observe_rows(&p, first, rows, &(struct attn_received){p.lse + first, by_parts, stride, classes});
        }
        assert_memory_equal(sums, by_parts, n * sizeof *sums);
        dense_received(&p, classes, want);
        for (int c = 0; c < classes; c++)
            for (int64_t j = 0; j < stride; j++) {
                const double got = (double)sums[c * stride + j] * ATTN_UNIT;
                if (fabs(got - (j < p.keys ? want[c * p.keys + j] : 0)) > 2e-5)
                    fail_msg("%s: dim %d, class %d of %d, key %lld got %g, not %g", kernel->name, p.dim, c, classes,
                             (long long)j, got, want[c * p.keys + j]);
            }
        free(sums);
        free(by_parts);
        free(want);
        problem_free(&p);
    }
}

static void keys_get_what_dense_fp64_says_in_whole_units(void **state)
{
    (void)state;
    seed_from(11);
    for_each_kernel(check_received);
}

static void merged_halves_equal_the_whole(void **state)
{
    (void)state;
    seed_from(10);
    struct error err;
    const struct attn_kernel *kernel = attn_kernel_choose(DTYPE_F32, "c-f32", &err);
    struct problem whole = problem_make(kernel, 9, 300, 64, 4), half = whole;
    half.state.o = must_alloc((size_t)half.rows * 64 * sizeof(float));
    half.lse = must_alloc((size_t)half.rows * sizeof(float));
    for (int part = 0; part < 2; part++) {
        struct problem *p = part ? &half : &whole;
        struct attn_span spans[9];
        for (int r = 0; r < p->rows; r++)
            spans[r] = part ? (struct attn_span){20 * r, 300} : (struct attn_span){0, 20 * r};
        attn_state_reset(&p->state, p->rows, p->dim);
        attend_rows(p, spans, 0, p->rows);
        attn_state_finish(&p->state, p->rows, p->dim, p->lse);
    }
    attn_merge(whole.state.o, whole.lse, half.state.o, half.lse, whole.rows, whole.dim);
    for (int r = 0; r < whole.rows; r++) {
        double want[ATTN_MAX_DIM], lse = dense_row(&whole, r, want);
        for (int d = 0; d < whole.dim; d++)
            assert_true(fabs(whole.state.o[r * whole.dim + d] - want[d]) < 1e-5);
        assert_true(fabs(whole.lse[r] - lse) < 1e-5);
    }
    free(half.state.o);
    free(half.lse);
    problem_free(&whole);
}

static void merging_empty_results_changes_nothing(void **state)
{
    (void)state;
    float o_a[4] = {0, 0, 3, 4}, lse_a[2] = {-INFINITY, 2.5f};
    const float empty_o[4] = {0}, empty[2] = {-INFINITY, -INFINITY};
    attn_merge(o_a, lse_a, empty_o, empty, 2, 2);
    assert_true(lse_a[0] == -INFINITY && lse_a[1] == 2.5f);
    assert_true(o_a[0] == 0 && o_a[1] == 0 && o_a[2] == 3 && o_a[3] == 4);
    const float o_b[4] = {5, 6, 0, 0}, lse_b[2] = {-7.25f, -INFINITY};
    attn_merge(o_a, lse_a, o_b, lse_b, 2, 2);
    assert_true(lse_a[0] == -7.25f && lse_a[1] == 2.5f);
    assert_true(o_a[0] == 5 && o_a[1] == 6 && o_a[2] == 3 && o_a[3] == 4);
}

static void merging_far_apart_results_does_not_overflow(void **state)
{
    (void)state;
    float o_a[3] = {1, 1, 1}, lse_a[3] = {-20000, 20000, 20000};
    const float o_b[3] = {2, 2, 2}, lse_b[3] = {20000, -20000, 20000};
    attn_merge(o_a, lse_a, o_b, lse_b, 3, 1);
    assert_true(lse_a[0] == 20000 && lse_a[1] == 20000 && fabsf(lse_a[2] - 20000.693f) < 0.01f);
    assert_true(o_a[0] == 2 && o_a[1] == 1 && fabsf(o_a[2] - 1.5f) < 1e-6f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_equals_dense_fp64_over_random_shapes),
        cmocka_unit_test(query_heads_of_a_group_share_their_spans),
        cmocka_unit_test(many_calls_give_the_bits_of_one_call),
        cmocka_unit_test(rows_alone_give_the_bits_they_give_in_a_full_tile),
        cmocka_unit_test(rows_with_empty_spans_are_left_as_they_are),
        cmocka_unit_test(scores_of_ten_thousand_stay_finite_and_right),
        cmocka_unit_test(the_reference_follows_scores_that_rise_and_fall),
        cmocka_unit_test(one_key_gives_its_value),
        cmocka_unit_test(tiles_that_no_row_sees_are_not_read),
        cmocka_unit_test(keys_get_what_dense_fp64_says_in_whole_units),
        cmocka_unit_test(merged_halves_equal_the_whole),
        cmocka_unit_test(merging_empty_results_changes_nothing),
        cmocka_unit_test(merging_far_apart_results_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
