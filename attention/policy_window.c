/* window: the last `window` tokens, the token itself counted, as Mistral 7B (Jiang et al. 2023) and the local
 * layers of Gemma 3 have it. */
#include "attention/policy.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 4096, 1, INT64_C(1) << 40, "tokens, the query itself counted",
     NULL},
    {0},
};

const struct policy policy_window = {
    .name = "window",
    .purpose = "the last tokens",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, window),
    .near = NEAR_SLIDING,
};
