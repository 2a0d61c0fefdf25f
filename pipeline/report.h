/* What a run tells its user of its documents once it is over. */
#ifndef LONGHAUL_PIPELINE_REPORT_H
#define LONGHAUL_PIPELINE_REPORT_H

#include <stdio.h>

#include "pipeline/plan.h"

/* The documents that this run has scored: a line each, with one for each bucket below it where there are several.
 */
void report_scores(const struct plan *plan, FILE *out);

#endif
