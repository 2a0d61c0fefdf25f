/* retrieval: the first tokens, the last `window`, and of all that lies between the `top` blocks of FAR_BLOCK tokens
 * that each group of POLICY_GROUP queries looks for most, in each kv head, out of a far memory in four bits;
 * positions are counted inside what is seen. What the program does by itself with what is longer than a model's
 * context: measured, it is as good as full attention at a fraction of keys and bytes (docs/measurements.md).
 *
 * The choice is by the largest product of a block's keys, as attention/far_score.h has it. Kin of InfLLM (Xiao et
 * al. 2024, arXiv:2402.04617) and Quest (Tang et al. 2024, arXiv:2406.10774), which choose by representative keys
 * and by bounds. */
#include "attention/far_record.h"
#include "attention/policy.h"
#include "attention/retrieve.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 1020, 1, INT64_C(1) << 40, "tokens before a group of queries",
     NULL},
    {"sinks", offsetof(struct policy_spec, sinks), 4, 0, 4096, "first tokens of the chunk", NULL},
    {"top", offsetof(struct policy_spec, top), 12, 1, RETRIEVE_CANDIDATES, "blocks of 32 tokens", NULL},
    {"memory", offsetof(struct policy_spec, far), 0, 0, INT64_C(1) << 40, "tokens held, the last; 0: all", NULL},
    {0},
};

static int check(const struct policy_spec *spec, struct error *err)
{
    if (spec->far != 0 && spec->far < spec->top * FAR_BLOCK)
        return error_set(err, ERROR_USAGE, "policy retrieval: memory=%lld is less than the %lld tokens of top=%lld",
                         (long long)spec->far, (long long)(spec->top * FAR_BLOCK), (long long)spec->top);
    return 0;
}

const struct policy policy_retrieval = {
    .name = "retrieval",
    .purpose = "the first tokens, the last, and the blocks between that are looked for",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, far),
    .near = NEAR_GROUP,
    .positions = SLOTS_INDEXED,
    .past = PAST_FAR,
    .check = check,
};
