/* Landmark attention against its definition in fp64: weights of all tokens that are there, as training has them
 * (Mohtashami and Jaggi 2023, section 3.1), and the choice and positions of inference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/landmark.h"
#include "tests/mpi/dense.h"

enum { DIM = 16, MOST = 400 };

static const struct shape SHAPE = {1, 1, DIM, DIM, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5};

static struct error err;
static float q[DIM], keys[MOST * DIM], values[MOST * DIM];

static double score(int64_t query, int64_t query_position, int64_t token, int64_t position)
{
    double a[DIM], b[DIM];
    row_of(&SHAPE, QUERY, query, 0, a);
    row_of(&SHAPE, KEY, token, 0, b);
    rotate(&SHAPE, query_position, a);
    rotate(&SHAPE, position, b);
    return dot(a, b, DIM) * (double)SHAPE.scale;
}

/* weights [p + 1] of the grouped softmax over the blocks that `seen` shows, tokens at `positions`. */
static void grouped_softmax(int64_t p, int64_t block, const bool *seen, const int64_t *positions, double *weights)
{
    const int64_t own = p / (block + 1);
    double main = 0, e[MOST], groups[MOST] = {0};
    for (int64_t t = 0; t <= p; t++) {
        const int64_t of = t / (block + 1);
        e[t] = exp(score(p, positions[p], t, positions[t]));
        if (landmark_is(t, block) ? of != own && seen[of] : of == own)
            main += e[t];
        if (!landmark_is(t, block))
            groups[of] += e[t];
    }
    for (int64_t t = 0; t <= p; t++) {
        const int64_t of = t / (block + 1);
        weights[t] = 0;
        if (landmark_is(t, block) || (of != own && !seen[of]))
            continue;
        weights[t] = of == own ? e[t] / main : e[t] / groups[of] * e[of * (block + 1) + block] / main;
    }
}

/* Which blocks are seen, by a choice of the `top` best landmarks, and where their tokens then stand: one block
 * behind the other from the one before the last `top` on, those of the last `top` one further. */
static void look_up(int64_t p, int64_t block, int64_t top, bool *seen, int64_t *positions)
{
    const int64_t length = block + 1, blocks = p / length, last = blocks - i64_min(top, blocks);
    for (int64_t t = 0; t <= p; t++)
        positions[t] = t / length >= last ? t : (last - 1) * length + t % length;
    memset(seen, 0, MOST * sizeof *seen);
    for (int64_t i = 0; i < i64_min(top, blocks); i++) {
        int64_t best = -1;
        double most = -INFINITY;
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t mark = b * length + block;
            const double s = score(p, positions[p], mark, positions[mark]);
            if (!seen[b] && s > most) {
                best = b;
                most = s;
            }
        }
        seen[best] = true;
    }
    for (int64_t b = 0, i = 0; b < blocks; i += seen[b++])
        for (int64_t t = b * length; t < (b + 1) * length && seen[b]; t++)
            positions[t] = (last - 1 + i + (b >= last)) * length + t % length;
}

static void compare(const struct rope *rope, int64_t p, int64_t block, int64_t top)
{
    bool seen[MOST];
    int64_t positions[MOST], chosen[MOST];
    double weights[MOST], sum = 0, expected[DIM] = {0};
    float scratch[2 * MOST], out[DIM];
    look_up(p, block, top, seen, positions);
    grouped_softmax(p, block, seen, positions, weights);
    for (int64_t t = 0; t <= p; t++) {
        sum += weights[t];
        for (int e = 0; e < DIM; e++)
            expected[e] += weights[t] * (double)values[t * DIM + e];
    }
    assert_true(fabs(sum - 1) < 1e-12);
    for (int e = 0; e < DIM; e++)
        q[e] = number(QUERY, p, e);
    const struct landmark_rows rows = {DTYPE_F32, keys, values, NULL, p + 1, DIM, block};
    const struct landmark_query query = {q, SHAPE.scale, rope, top};
    const int64_t n = landmark_choose(&rows, &query, chosen, scratch);
    assert_int_equal(n, i64_min(top, p / (block + 1)));
    for (int64_t i = 0; i < n; i++)
        assert_true(seen[chosen[i]]);
    landmark_attend(&rows, &query, chosen, n, scratch, out);
    for (int e = 0; e < DIM; e++)
        assert_true(fabs((double)out[e] - expected[e]) < SHAPE.tolerance);
}

static void check(int64_t block, int64_t top)
{
    const struct rope_options options = {
        .dims = DIM, .base = SHAPE.base, .pairs = SHAPE.pairs, .max_positions = MOST};
    struct rope *rope = rope_create(&options, &err);
    assert_non_null(rope);
    for (int64_t p = 0; p < 200; p++)
        compare(rope, p, block, top);
    rope_free(rope);
}

static void all_blocks_seen_is_the_grouped_softmax_of_training(void **state)
{
    (void)state;
    check(7, 100);
    check(1, 200);
}

static void the_best_blocks_are_seen_and_old_ones_stand_before_the_last(void **state)
{
    (void)state;
    check(7, 3);
    check(10, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_blocks_seen_is_the_grouped_softmax_of_training),
        cmocka_unit_test(the_best_blocks_are_seen_and_old_ones_stand_before_the_last),
    };
    for (int64_t t = 0; t < MOST; t++)
        for (int e = 0; e < DIM; e++) {
            keys[t * DIM + e] = number(KEY, t, e);
            values[t * DIM + e] = number(VALUE, t, e);
        }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
