/* --memory-budget: how much of a text's past a policy's memory may hold, in tokens ("65536") or bytes ("512MiB";
 * KiB, MiB, GiB). Bytes are those of the keys and values of all layers and of what blocks are found by; they become
 * tokens, alike in every layer, and these the parameter of the policy that bounds its memory (struct policy,
 * budget).
 *
 * No rank holds more between two segments, whatever the ring. Where the memory is shared out (far memory, blocks,
 * slots) all ranks of a ring together hold no more; where any query may need all of it (`window`, `sinks`,
 * `landmark`) each rank holds the whole, and together they hold as many times the bytes as they are. The size of
 * the ring does not count: a text is read alike on any number of ranks. What is there beside the memory is not in
 * it: the segment or answer in hand and what leaves with it, first tokens, and the window before a segment where
 * slots are bounded.
 * On a GPU a `window` is the ring's: it is shared out as it falls, and there is room for two of them.
 */
#ifndef LONGHAUL_PIPELINE_BUDGET_H
#define LONGHAUL_PIPELINE_BUDGET_H

#include "attention/policy.h"
#include "base/error.h"
#include "model/model.h"
#include "pipeline/options.h"

/* Put options->memory_budget into a policy that goes for all layers of the model but those with a window of their
 * own. ERROR_USAGE where it cannot be read, where it is less than the policy needs, where the policy says it too,
 * and for `full`. */
int budget_apply(const struct options *options, const struct model *model, struct policy_spec *spec,
                 struct error *err);

#endif
