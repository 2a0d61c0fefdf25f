/* Keeping the candidates with the highest scores, for the policies that keep by attention. */
#ifndef LONGHAUL_ATTENTION_KEEP_BEST_H
#define LONGHAUL_ATTENTION_KEEP_BEST_H

#include "attention/keep.h"
#include "base/error.h"

/* The spec's slots become, in each kv head, the candidates with the highest scores [kv_heads][stride]; of equal
 * ones the earlier. ERROR_RESOURCE without memory. */
int keep_best(struct keep *keep, const double *scores, int64_t stride, struct error *err);

#endif
