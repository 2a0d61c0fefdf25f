/* memory: LongLLaMA's memory layers (Focused Transformer: Tworkowski et al. 2023, arXiv:2307.03170). The tokens of
 * the segment in hand and `window` before it are near; every token that leaves goes into a memory of at most
 * `memory` tokens, out of which the oldest go first, and every query's softmax runs over both; with top=K over the
 * K tokens of the memory that score most for that query and head, exactly, as the paper's kNN look-up has it (the
 * reference takes them all: top=0).
 *
 * Memory keys have no positions of their own: all of them stand where the near part begins. The reference
 * (CStanKonrad/long_llama, src/modeling_longllama.py) rotates them "as if first", and queries and local keys by
 * their places in the local context, so the query at p sees each at distance p - near_first. There the local
 * context is one whole context window and nothing before it: that is window=0 with segments of its length, 2,048.
 *
 * For models trained that way, in the few layers that were (8, 16 and 24 of LongLLaMA-Code 7B), which --layers
 * names; the others have no memory: `window`. */
#include "attention/keep.h"
#include "attention/nearest.h"
#include "attention/policy.h"
#include "base/num.h"

static const struct policy_parameter parameters[] = {
    {"window", offsetof(struct policy_spec, window), 0, 0, INT64_C(1) << 40, "tokens before a segment", NULL},
    {"memory", offsetof(struct policy_spec, slots), 65536, 1, INT64_C(1) << 31, "tokens kept, the last", NULL},
    {"top", offsetof(struct policy_spec, nearest), 0, 0, NEAREST_MOST, "tokens of it that a query sees; 0: all",
     NULL},
    {0},
};

static int keep(struct keep *keep, struct error *err)
{
    const int64_t candidates = keep->slots + keep->leaving, count = i64_min(candidates, keep->spec->slots);
    (void)err;
    for (int head = 0; head < keep->kv_heads; head++)
        for (int64_t i = 0; i < count; i++)
            keep->recipes[head * keep->spec->slots + i] = (struct slot_recipe){candidates - count + i, 1};
    keep->count = count;
    return 0;
}

const struct policy policy_memory = {
    .name = "memory",
    .purpose = "a memory of what has left the segment, without order: for models trained for it",
    .parameters = parameters,
    .budget = offsetof(struct policy_spec, slots),
    .near = NEAR_SEGMENT,
    .positions = SLOTS_AT_FIRST,
    .keep = keep,
};
