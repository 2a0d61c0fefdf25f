/* The parts of a needle run: what lies in OUT/part-NAME, each an output folder of its own, as the tasks of an array
 * (jobs/needle.sh) leave them. A run in OUT takes their trials over. */
#ifndef LONGHAUL_PIPELINE_NEEDLE_PARTS_H
#define LONGHAUL_PIPELINE_NEEDLE_PARTS_H

#include <stdio.h>

#include "base/error.h"
#include "pipeline/needle_log.h"

/* From all parts of `output`, in the order of their names, under the lock of `output`, whose log it is. What each
 * has is said in `said`, "part-1k: 4 trials, 4 of them new; part-2k: no trials"; nothing where there are no parts.
 */
int needle_parts_gather(struct needle_log *log, const char *output, FILE *said, struct error *err);

#endif
