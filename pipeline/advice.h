/* Advice: what a plan tells of documents that are longer than the model's positions reach.
 *
 * It goes by what was measured of models of 135 and 494 million weights (docs/measurements.md, "Reading further"):
 * the far memory that --strategy whole takes costs a few hundredths of a nat a token at any length; without
 * training dynamic NTK holds to about twice the trained length, and PI does harm at any.
 */
#ifndef LONGHAUL_PIPELINE_ADVICE_H
#define LONGHAUL_PIPELINE_ADVICE_H

#include <stdio.h>

#include "pipeline/plan.h"

/* Prints nothing where every document fits, or where the user has chosen a strategy, a policy or positions. */
void advice_print(const struct plan *plan, FILE *out);

#endif
