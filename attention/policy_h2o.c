/* h2o: the last `window` tokens before a segment, and of all before these the `slots` that have got most attention,
 * in each kv head: the heavy hitters. (H2O: Zhang et al. 2023, arXiv:2306.14048, algorithm 1: attention is summed
 * over all queries since the key came; a key that has left does not come back.) The sum is the mean over the query
 * heads of a kv head. Keys leave at the ends of segments, not at each token. Positions are counted inside what is
 * kept, as the reference's cache does it. */
#include "attention/keep_best.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 384, 1, INT64_C(1) << 40, "tokens before a segment", NULL},
    {"slots", offsetof(struct policy_spec, slots), 384, 1, INT64_C(1) << 24, "heavy hitters", NULL},
    {0},
};

static int keep(struct keep *keep, struct error *err)
{
    return keep_best(keep, keep->scores, keep->stride, err);
}

const struct policy policy_h2o = {
    .name = "h2o",
    .purpose = "the last tokens, and those that got most attention so far",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, slots),
    .near = NEAR_SEGMENT,
    .positions = SLOTS_INDEXED,
    .observe = INT64_MAX,
    .accumulates = true,
    .keep = keep,
};
