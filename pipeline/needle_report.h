/* What a needle run has found: tables of mean scores on the terminal, and the same as heat maps. */
#ifndef LONGHAUL_PIPELINE_NEEDLE_REPORT_H
#define LONGHAUL_PIPELINE_NEEDLE_REPORT_H

#include <stdio.h>

#include "base/error.h"
#include "pipeline/needle_run.h"

struct needle_report {
    const struct needle_grid *grid;
    const struct needle_run *run;
    const char *model;                      /* its name, UTF-8 */
    const char *described[NEEDLE_SETTINGS]; /* policy and positions of each setting */
};

/* Tasks by lengths where there are several tasks (or none with depths), and for each task with depths these by
 * lengths; under both settings where the untouched model was measured. Trials in different arithmetics are said. */
int needle_report_print(const struct needle_report *report, FILE *out, struct error *err);
/* The same as one SVG at path, published whole. */
int needle_report_draw(const struct needle_report *report, const char *path, struct error *err);

#endif
