/* --memory-budget: how much of a text's past a policy's memory may hold, in tokens ("65536") or bytes ("512MiB";
 * KiB, MiB, GiB). Bytes are those of all layers and all ranks of a ring together; they become tokens, alike in every
 * layer, and these the parameter of the policy that bounds its memory (struct policy, budget).
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
