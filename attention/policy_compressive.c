/* compressive: the last `window` tokens before a segment, and `slots` compressed ones before these, each made of
 * `rate` consecutive tokens by taking the mean or the largest of their raw keys and values, element by element, the
 * one of them that has got most attention so far (form=used), or a convolution whose weights the model's file has
 * (form=conv, attention/convolution.h); the oldest slots leave first, and the memory reaches window + rate * slots
 * tokens back. (Compressive Transformer: Rae et al. 2019, arXiv:1911.05507,
 * section 3.1: pooling with kernel and stride `rate`, FIFO memories, one position to a slot.)
 *
 * weigh=1 adds ln(rate) to a slot's logit, so that it counts for the tokens it stands for; the paper has no such
 * term. With rate=1 nothing is compressed, and while the slots last it is full attention.
 *
 * A model that was not trained for it remembers nothing by it (docs/measurements.md): it is here as published. */
#include "attention/keep.h"
#include "base/num.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 380, 1, INT64_C(1) << 40, "tokens before a segment", NULL},
    {"slots", offsetof(struct policy_spec, slots), 384, 1, INT64_C(1) << 24, "compressed memory", NULL},
    {"rate", offsetof(struct policy_spec, rate), 4, 1, 4096, "tokens of a slot", NULL},
    {"form", offsetof(struct policy_spec, pool), POOL_MEAN, 0, POOL_CONVOLUTION, "how tokens become a slot",
     "mean|max|used|conv"},
    {"weigh", offsetof(struct policy_spec, weigh), 0, 0, 1, "1: count a slot for all its tokens", NULL},
    {0},
};

/* Of `n` candidates from `first` on the one that got most attention. */
static int64_t most_used(const struct keep *keep, int head, int64_t first, int64_t n)
{
    const double *scores = keep->scores + head * keep->stride;
    int64_t most = first;
    for (int64_t i = first + 1; i < first + n; i++)
        most = scores[i] > scores[most] ? i : most;
    return most;
}

static struct slot_recipe recipe_of(const struct keep *keep, int head, int64_t slot)
{
    const int64_t rate = keep->spec->rate, first = keep->slots + (slot - keep->slots) * rate;
    if (slot < keep->slots)
        return (struct slot_recipe){slot, 1};
    if (keep->spec->pool == POOL_USED)
        return (struct slot_recipe){most_used(keep, head, first, rate), 1};
    return (struct slot_recipe){first, rate};
}

/* FIFO: what is there and what comes, the last of it. */
static int keep(struct keep *keep, struct error *err)
{
    const struct policy_spec *spec = keep->spec;
    const int64_t all = keep->slots + keep->leaving / spec->rate, gone = i64_max(0, all - spec->slots);
    (void)err;
    keep->count = all - gone;
    for (int head = 0; head < keep->kv_heads; head++) {
        struct slot_recipe *recipes = keep->recipes + (size_t)head * (size_t)spec->slots;
        for (int64_t i = gone; i < all; i++)
            recipes[i - gone] = recipe_of(keep, head, i);
    }
    return 0;
}

const struct policy policy_compressive = {
    .name = "compressive",
    .purpose = "the last tokens, and those before them several to a slot",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, slots),
    .near = NEAR_SEGMENT,
    .positions = SLOTS_INDEXED,
    .observe = INT64_MAX,
    .accumulates = true,
    .keep = keep,
};
