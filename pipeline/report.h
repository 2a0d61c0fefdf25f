/* What a run tells its user of its documents once it is over. */
#ifndef LONGHAUL_PIPELINE_REPORT_H
#define LONGHAUL_PIPELINE_REPORT_H

#include <stdio.h>

#include "pipeline/plan.h"

/* The line that closes a document: "ok", "failed: why"; what its policies have cost, where that was measured; what
 * they have let go. The document's work is still there. */
enum { REPORT_OUTCOME = 512 };
void report_outcome(const struct plan_document *document, char *out, size_t size);

/* The documents that this run has scored: a line each, with one for each bucket below it where there are several.
 */
void report_scores(const struct plan *plan, FILE *out);

#endif
