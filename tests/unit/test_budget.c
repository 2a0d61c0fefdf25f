/* cmocka.h wants these four first */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/blocks.h"
#include "attention/far_record.h"
#include "pipeline/budget.h"

enum { LAYERS = 3, HEADS = 8, KV_HEADS = 2, DIM = 64, BUDGET = 10 << 20 };

/* The policy's parameters under 10 MiB, in float32. */
static struct policy_spec under_budget(const char *policy)
{
    struct error err = {0};
    struct policy_spec spec;
    const struct options options = {.memory_budget = "10MiB", .dtype = DTYPE_CHOICE_F32};
    const struct model model = {
        .shape = {.layers = LAYERS, .heads = HEADS, .kv_heads = KV_HEADS, .dim = DIM, .global_every = 1}};
    if (policy_parse(policy, &spec, &err) != 0 || budget_apply(&options, &model, &spec, &err) != 0)
        fail_msg("%s", err.text);
    return spec;
}

/* So many tokens fit, and `more` beside them would not. */
static void assert_fits(int64_t tokens, int64_t more, double token_bytes)
{
    assert_true((double)tokens * token_bytes <= BUDGET);
    assert_true((double)(tokens + more) * token_bytes > BUDGET);
}

static const double RAW = 2.0 * LAYERS * KV_HEADS * DIM * sizeof(float);

static void bytes_become_tokens_that_are_held_whole_by_each_rank(void **state)
{
    (void)state;
    assert_fits(under_budget("window").window, 1, RAW);
    assert_fits(under_budget("sinks").window, 1, RAW);
    /* In whole blocks: the first of a window's may begin before it. */
    const int64_t window = under_budget("landmark:token=0,block=60").window;
    assert_fits(window + 59, 60, RAW);
    assert_int_equal((window + 59) % 60, 0);
}

static void bytes_become_tokens_that_all_ranks_hold_together(void **state)
{
    (void)state;
    assert_fits(under_budget("h2o").slots, 1, RAW);
    assert_fits(under_budget("memory").slots, 1, RAW);
    const double record = (double)LAYERS * KV_HEADS * (double)far_record_bytes(DIM) / FAR_BLOCK;
    const int64_t far = under_budget("retrieval").far;
    assert_fits(far, FAR_BLOCK, record);
    assert_int_equal(far % FAR_BLOCK, 0);
}

static void what_blocks_are_found_by_counts(void **state)
{
    (void)state;
    const double representatives = (double)LAYERS * HEADS * DIM * sizeof(float) / BLOCK_TOKENS;
    const int64_t blocks = under_budget("infllm:top=1").far;
    assert_fits(blocks, BLOCK_TOKENS, RAW + representatives);
    assert_int_equal(blocks % BLOCK_TOKENS, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_become_tokens_that_are_held_whole_by_each_rank),
        cmocka_unit_test(bytes_become_tokens_that_all_ranks_hold_together),
        cmocka_unit_test(what_blocks_are_found_by_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
