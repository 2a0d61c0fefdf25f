/* sinks: the first tokens of the chunk and the last `window`, with positions counted inside what is kept, so that a
 * sequence of any length stays within the positions the model knows (StreamingLLM: Xiao et al. 2023,
 * arXiv:2309.17453, section 3.2). */
#include "attention/policy.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 1020, 1, INT64_C(1) << 40, "tokens, the query itself counted",
     NULL},
    {"sinks", offsetof(struct policy_spec, sinks), 4, 0, 4096, "first tokens of the chunk", NULL},
    {0},
};

const struct policy policy_sinks = {
    .name = "sinks",
    .purpose = "the first tokens and the last",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, window),
    .near = NEAR_SLIDING,
    .positions = SLOTS_INDEXED,
};
