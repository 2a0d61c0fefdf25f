/* In what two runs differ that may not share a folder of results. */
#ifndef LONGHAUL_PIPELINE_DIFFERENCE_H
#define LONGHAUL_PIPELINE_DIFFERENCE_H

#include <stddef.h>

#include "io/results.h"

/* "another model", or "max-new 200 there, 400 here": the first option that differs; else what their records do not
 * tell apart: files that options name, and the segment. */
enum { DIFFERENCE = 160 };
void difference_find(const struct results_run *there, const struct results_run *here, char *out, size_t size);

#endif
