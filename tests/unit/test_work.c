#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "pipeline/work.h"

enum { TOKENS = 40, CHUNK = 16 };

static struct error err;

/* The plan of a document of TOKENS tokens of a byte each, to be scored in chunks of CHUNK. */
static void plan_score(struct work *work, const struct work_limits *limits)
{
    char bytes[TOKENS];
    int64_t ends[TOKENS];
    int32_t *tokens = malloc(sizeof(int32_t[TOKENS]));
    for (int t = 0; t < TOKENS; t++) {
        bytes[t] = 'x';
        ends[t] = t + 1;
        tokens[t] = t;
    }
    work_init(work, tokens, TOKENS);
    assert_int_equal(work_plan(work, &task_score, limits, &(struct chunk_text){bytes, TOKENS, ends}, &err), 0);
    assert_false(work->failed);
    assert_true(work->n_nodes > 2);
}

static struct work_limits limits_of(int64_t overlap, int64_t bos)
{
    return (struct work_limits){.context = CHUNK + bos,
                                .overlap = overlap,
                                .overlap_asked = true,
                                .compares = true,
                                .bos = bos,
                                .room = {[ROLE_WHOLE] = CHUNK}};
}

/* What a ring group would send for a node: predictions that tell the token they are of. What is before the arrays
 * is of no token. */
static void give_score(struct work *work, int64_t node, const struct work_limits *limits)
{
    const struct chunk *chunk = &work->chunks.items[work->nodes[node].chunk];
    const int64_t first = chunk->first_token + 1 - limits->bos, count = chunk->end_token - first;
    float logprob[CHUNK + 1] = {999}, reference[CHUNK + 1] = {999};
    int32_t top1[CHUNK + 1] = {-999};
    for (int64_t i = 0; i < count; i++) {
        logprob[i + 1] = -(float)(first + i);
        reference[i + 1] = -2 * (float)(first + i);
        top1[i + 1] = (int32_t)(first + i);
    }
    struct job_result result = {.kind = JOB_SCORE,
                                .count = count,
                                .logprob = logprob + 1,
                                .top1 = top1 + 1,
                                .reference_logprob = reference + 1};
    work->nodes[node].state = NODE_RUNNING;
    assert_int_equal(work_give(work, node, limits, &result, &err), 0);
}

static void every_token_but_the_first_is_predicted_once(void **state)
{
    (void)state;
    for (int64_t bos = 0; bos < 2; bos++)
        for (int64_t overlap = 0; overlap < 4; overlap++) {
            const struct work_limits limits = limits_of(overlap, bos);
            struct work work;
            plan_score(&work, &limits);
            for (int64_t node = 0; node < work.n_nodes; node++)
                give_score(&work, node, &limits);
            assert_true(work_over(&work));
            assert_int_equal(work.score_first, 1 - bos);
            assert_int_equal(work.score_end, TOKENS);
            for (int64_t t = work.score_first; t < work.score_end; t++) {
                assert_true(work.logprob[t] == -(float)t);
                assert_true(work.reference_logprob[t] == -2 * (float)t);
                assert_int_equal(work.top1[t], t);
            }
            work_clear(&work);
        }
}

/* Sums that depend on the order in the last bits, and divergences that are as bad as each other. */
static struct receipt receipt_of(int64_t chunk)
{
    static const double sums[] = {1e-17, 1, 1e-16, 1.0 / 3, 0.1};
    return (struct receipt){.divergence = {.count = 3, .sum = sums[chunk % 5], .worst = 7, .worst_position = 2},
                            .memory = {.tokens = CHUNK, .bytes = chunk + 1, .reference_bytes = 10}};
}

/* The work of a document whose chunks came back from the first on, or from the last; from `fails` on they failed.
 */
static void come_back(struct work *work, bool backwards, int64_t fails)
{
    const struct work_limits limits = limits_of(0, 1);
    plan_score(work, &limits);
    for (int64_t i = 0; i < work->n_nodes; i++)
        work->nodes[i].state = NODE_RUNNING;
    for (int64_t i = 0; i < work->n_nodes; i++) {
        const int64_t node = backwards ? work->n_nodes - 1 - i : i;
        float none[CHUNK] = {0};
        int32_t top1[CHUNK] = {0};
        struct job_result result = {.kind = JOB_SCORE,
                                    .count =
                                        work->chunks.items[node].end_token - work->chunks.items[node].first_token,
                                    .logprob = none,
                                    .top1 = top1,
                                    .reference_logprob = none,
                                    .receipt = receipt_of(node)};
        if (node >= fails)
            error_set(&result.failure, ERROR_INTERNAL, "node %d", (int)node);
        assert_int_equal(work_give(work, node, &limits, &result, &err), 0);
    }
    assert_true(work_over(work));
}

static void a_receipt_is_the_same_in_whatever_order_chunks_come_back(void **state)
{
    (void)state;
    struct work one, other;
    come_back(&one, false, INT64_MAX);
    come_back(&other, true, INT64_MAX);
    assert_int_equal(one.receipt.divergence.count, 3 * one.chunks.count);
    assert_int_equal(one.receipt.divergence.worst_position, 2);
    assert_memory_equal(&one.receipt, &other.receipt, sizeof one.receipt);
    work_clear(&one);
    work_clear(&other);
}

static void of_several_failures_the_first_nodes_is_told(void **state)
{
    (void)state;
    for (int backwards = 0; backwards < 2; backwards++) {
        struct work work;
        come_back(&work, backwards, 1);
        assert_true(work.failed);
        assert_string_equal(work.failure.text, "node 1");
        work_clear(&work);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_token_but_the_first_is_predicted_once),
        cmocka_unit_test(a_receipt_is_the_same_in_whatever_order_chunks_come_back),
        cmocka_unit_test(of_several_failures_the_first_nodes_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
