/* From a document's work to its record in the results. */
#ifndef LONGHAUL_PIPELINE_RECORD_H
#define LONGHAUL_PIPELINE_RECORD_H

#include "base/error.h"
#include "io/results.h"
#include "pipeline/plan.h"

/* Add document `index` of the plan, as far as it has come, to the next part of the store; of a scored one, also
 * note the perplexity in the plan. */
int record_document(struct plan *plan, int64_t index, double wall_seconds, struct results *results,
                    struct error *err);

#endif
