/* Forecasts: how long what is in a plan will take. */
#ifndef LONGHAUL_PIPELINE_FORECAST_H
#define LONGHAUL_PIPELINE_FORECAST_H

#include "pipeline/plan.h"
#include "pipeline/probe.h"

/* Seconds that one rank takes for a document, one node after the other, with answers of full length. */
double forecast_seconds(const struct plan *plan, const struct probe_rates *rates, const struct work *work);

/* What the later of n tokens that are read in one go under a setting take longer than its first, in tokens: 0 where
 * all take the same. Taken to rise with the square of the tokens read. */
double forecast_extra(const struct plan *plan, int setting, int64_t n);

#endif
