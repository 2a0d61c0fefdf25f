/* A probe: how fast this machine does what a model asks of it, measured in a fraction of a second on parts of the
 * model itself, so that a plan can say how long a run will take. */
#ifndef LONGHAUL_PIPELINE_PROBE_H
#define LONGHAUL_PIPELINE_PROBE_H

#include "base/error.h"
#include "base/num.h"
#include "model/model.h"

/* Of one rank with all its threads. */
struct probe_rates {
    double linear;    /* flop/s of packed matrices         */
    double attention; /* flop/s of the attention kernel    */
    double decode;    /* weights/s of the decode products  */
};

struct probe_options {
    const struct model *model; /* need not be packed */
    enum dtype dtype;
    int threads;
};

int probe_rates(const struct probe_options *options, struct probe_rates *out, struct error *err);

/* What is to be done: tokens read, keys that all their queries see, tokens whose log-probability is asked, and
 * tokens written behind them. */
struct probe_work {
    const struct model *model;
    int64_t read;
    double keys_seen;
    int64_t scored, written;
    double keys_kept; /* that a written token sees, all layers together */
};

/* Seconds that one rank takes. */
double probe_seconds(const struct probe_rates *rates, const struct probe_work *work);

#endif
