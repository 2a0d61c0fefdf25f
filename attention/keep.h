/* Keeping: what a policy makes of the tokens that leave the near part. Between a policy and attention/bounded.h.
 *
 * After a segment the candidates of a kv head are its slots as they are, then the tokens that leave, in rising
 * order of position; sinks are not among them. keep() writes a recipe for every new slot: which candidates it is
 * made of. A recipe of one candidate keeps it as it is; of several tokens that leave, the spec's pooling makes one
 * key and one value. All ranks call keep() with the same numbers and get the same recipes.
 */
#ifndef LONGHAUL_ATTENTION_KEEP_H
#define LONGHAUL_ATTENTION_KEEP_H

#include "attention/policy.h"

/* Candidates first .. first + count - 1 become one slot. */
struct slot_recipe {
    int64_t first, count;
};

struct keep {
    const struct policy_spec *spec;
    int kv_heads;
    int64_t slots, leaving; /* candidates: slots there are, and tokens that leave */
    const double *scores;   /* [kv_heads][stride]: attention that each candidate has got, see policy.observe */
    int64_t stride;
    struct slot_recipe *recipes; /* [kv_heads][spec->slots], to be filled; rising */
    int64_t count;               /* to be set: slots from now on, of every head */
};

#endif
