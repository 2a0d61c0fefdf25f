/* The least time that reading a text can take on this machine: its operations, counted, at the measured peaks. */
#ifndef LONGHAUL_BENCH_LIMIT_H
#define LONGHAUL_BENCH_LIMIT_H

#include <stdint.h>

#include "attention/policy.h"
#include "model/model.h"

/* Seconds of one core, and the peaks that they were counted at. */
struct limit {
    double linear;              /* linear layers and the head, of every token */
    double attended;            /* products of queries and keys, weights and values, of the keys that are seen */
    double searched;            /* products in eight bits, of the keys by which far blocks are chosen */
    double peak, peak_of_bytes; /* G operations/s, G multiply-adds/s */
};

/* For n tokens in segments of so many, the same policy in all layers; every token is scored. Not for `landmark` and
 * `memory:top=N`, where more is counted than is done. */
struct limit limit_of(const struct model *model, const struct policy_spec *spec, int64_t n, int64_t segment);

double limit_seconds(const struct limit *limit);

#endif
