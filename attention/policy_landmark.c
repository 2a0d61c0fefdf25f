/* landmark: blocks of tokens, each ended by a landmark token, of which each query of each head sees its own and the
 * `top` whose landmarks' keys score most; see attention/landmark.h for definition, positions and source. The
 * forward pass carries a landmark (token=, its id in the model's vocabulary) after every block - 1 tokens by
 * itself, in all layers alike. What is held, on every rank of a ring: the last `memory` tokens before a segment, in
 * whole blocks.
 *
 * For models trained with landmarks; for any other the landmark is a token like others that says nothing. */
#include "attention/policy.h"

static const struct policy_parameter parameters[] = {
    {"token", offsetof(struct policy_spec, token), -1, 0, INT32_MAX, "id of the landmark token; must be given",
     NULL},
    {"block", offsetof(struct policy_spec, rate), 64, 2, 4096, "tokens of a block, the landmark one of them", NULL},
    {"top", offsetof(struct policy_spec, top), 5, 1, 1024, "blocks that a query sees beside its own", NULL},
    {"memory", offsetof(struct policy_spec, window), 16384, 1, INT64_C(1) << 40, "tokens held before a segment",
     NULL},
    {0},
};

static int check(const struct policy_spec *spec, struct error *err)
{
    return spec->token >= 0 ? 0
                            : error_set(err, ERROR_USAGE,
                                        "policy landmark: token=ID is missing, the id of the landmark token in the "
                                        "model's vocabulary");
}

const struct policy policy_landmark = {
    .name = "landmark",
    .purpose = "blocks found by the landmark tokens behind them",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, window),
    .near = NEAR_SEGMENT,
    .past = PAST_LANDMARKS,
    .check = check,
};
