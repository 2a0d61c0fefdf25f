/* A place: what the machines of a run give to each of its ranks.
 *
 * Asked for once, by all ranks together, before a set-up is chosen (pipeline/setup.h), which is alike on all of
 * them: so it is what the rank with least has.
 */
#ifndef LONGHAUL_PIPELINE_PLACE_H
#define LONGHAUL_PIPELINE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/comm.h"
#include "base/error.h"
#include "pipeline/options.h"

struct place {
    int ranks_on_node;
    int threads;       /* CPUs of a rank, at least 1 */
    bool gpus;         /* every rank has one */
    size_t gpu_memory; /* bytes that a rank can have on its GPU, what libraries take there left out; read only with
                          GPUs */
};

/* Collective over the world; node: this rank's. Rank 0 warns where its node's ranks are bound to few of its CPUs,
 * and where there is a driver for GPUs but none that can be taken. */
int place_survey(const struct options *options, const struct comm *world, const struct comm *node,
                 struct place *out, struct error *err);

/* What so many ranks would have on this node, which this process has to itself. */
struct place place_for_ranks(const struct options *options, int ranks);

/* A rank's part of the CPUs that it may use (mine [CPU_MOST], base/cpu.h), each of which ranks [CPU_MOST] ranks of
 * its node may use. At least 1. */
int place_threads(const int32_t *mine, const int32_t *ranks);

#endif
