/* snapkv: the last `window` tokens before a segment, and of all before these the `slots` that the segment's last 64
 * queries attend to most, in each kv head. Scores are averaged over 5 neighbours, so that a token is kept with what
 * stands around it, and over the query heads of a kv head. (SnapKV: Li et al. 2024, arXiv:2404.14469, section 4;
 * pooling is the mean, as kvpress has it, with zeros beyond the ends.) The paper prunes a prompt once; here what
 * leaves the window at the end of each segment is pruned together with what was kept before, by the newest queries.
 */
#include "attention/keep_best.h"

#include <stdlib.h>

#include "base/num.h"

enum { QUERIES = 64, POOLED = 5 };

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 384, QUERIES, INT64_C(1) << 40, "tokens before a segment",
     NULL},
    {"slots", offsetof(struct policy_spec, slots), 384, 1, INT64_C(1) << 24, "tokens kept", NULL},
    {0},
};

static int keep(struct keep *keep, struct error *err)
{
    const int64_t n = keep->slots + keep->leaving;
    double *pooled = calloc((size_t)(keep->kv_heads * n) + 1, sizeof *pooled);
    if (!pooled)
        return error_set(err, ERROR_RESOURCE, "no memory for the scores of %lld keys", (long long)n);
    for (int head = 0; head < keep->kv_heads; head++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t near = i64_max(0, i - POOLED / 2); near <= i64_min(n - 1, i + POOLED / 2); near++)
                pooled[head * n + i] += keep->scores[head * keep->stride + near] / POOLED;
    const int status = keep_best(keep, pooled, n, err);
    free(pooled);
    return status;
}

const struct policy policy_snapkv = {
    .name = "snapkv",
    .purpose = "the last tokens, and those that the last queries attend to",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, slots),
    .near = NEAR_SEGMENT,
    .positions = SLOTS_INDEXED,
    .observe = QUERIES,
    .keep = keep,
};
