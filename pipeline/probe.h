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
    double search;    /* far keys/s that one head looks at, in groups of queries: those of one token take longer */
    double decode;    /* weights/s of the decode products  */
};

struct probe_options {
    const struct model *model; /* need not be packed */
    enum dtype dtype;
    int threads;
};

int probe_rates(const struct probe_options *options, struct probe_rates *out, struct error *err);

/* Keys of all layers together. */
struct probe_keys {
    double seen, searched; /* as layers_keys_seen and layers_keys_searched count them */
};

/* What is to be done: tokens read, with their keys, tokens whose log-probability is asked, and tokens written
 * behind them, with the keys of one. */
struct probe_work {
    const struct model *model;
    int64_t read;
    struct probe_keys keys;
    int64_t scored, written;
    struct probe_keys kept;
};

/* Seconds that one rank takes. */
double probe_seconds(const struct probe_rates *rates, const struct probe_work *work);

#endif
