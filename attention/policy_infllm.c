/* infllm: the first tokens, the last `window`, and of what lies between the `top` blocks of BLOCK_TOKENS tokens
 * whose representative keys a group of queries asks for most; no training is needed (InfLLM: Xiao et al. 2024,
 * arXiv:2402.04617). The first tokens and what is retrieved stand at one distance from every query, `window`.
 *
 * As in the authors' code (thunlp/InfLLM, inf_llm/attention/context_manager.py): a block's representative is the
 * mean of the 4 un-rotated keys with most attention within the local windows, for each query head; all heads choose
 * together, by the sum over heads of the mean query, rotated to the one distance, times the representative; tokens
 * beyond the window of a query that are in no block yet are seen at the one distance, too. There a chunk of 512
 * queries chooses together and blocks are cut after each chunk; here POLICY_GROUP = 128 queries choose together,
 * and blocks are cut after each segment. In decode every token chooses. The code has the one distance at window -
 * 1, the paper at `window`, and so have we. The code's mask shows tokens that leave the window during a chunk to
 * all of its queries, twice where they are still in a query's window; here, as in the paper, every token is seen
 * once. With these two as the code has them, a restatement in Python of the definition in tests/mpi/test_infllm.c
 * gave its answers, for chunks of 128. Blocks are kept raw, at most `memory` tokens of them, the last. */
#include "attention/blocks.h"
#include "attention/policy.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 4096, 1, INT64_C(1) << 40, "tokens, the query itself counted",
     NULL},
    {"sinks", offsetof(struct policy_spec, sinks), 128, 0, 4096, "first tokens of the chunk", NULL},
    {"top", offsetof(struct policy_spec, top), 16, 1, 1024, "blocks of 128 tokens", NULL},
    {"memory", offsetof(struct policy_spec, far), 0, 0, INT64_C(1) << 40, "tokens held, the last; 0: all", NULL},
    {0},
};

static int check(const struct policy_spec *spec, struct error *err)
{
    if (spec->far != 0 && spec->far < spec->top * BLOCK_TOKENS)
        return error_set(err, ERROR_USAGE, "policy infllm: memory=%lld is less than the %lld tokens of top=%lld",
                         (long long)spec->far, (long long)(spec->top * BLOCK_TOKENS), (long long)spec->top);
    return 0;
}

const struct policy policy_infllm = {
    .name = "infllm",
    .purpose = "the first tokens, the last, and blocks between by their representative keys",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, far),
    .near = NEAR_SEGMENT,
    .positions = SLOTS_AT_ONE,
    .past = PAST_BLOCKS,
    .observe = INT64_MAX,
    .accumulates = true,
    .check = check,
};
