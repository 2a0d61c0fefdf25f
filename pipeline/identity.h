/* Who made the results: model, options, machines, as recorded with every run, and the hash that tells whether two
 * runs may share a folder. */
#ifndef LONGHAUL_PIPELINE_IDENTITY_H
#define LONGHAUL_PIPELINE_IDENTITY_H

#include "base/error.h"
#include "io/digest.h"
#include "io/results.h"
#include "pipeline/plan.h"

/* The record of a run and the strings it points to. */
struct identity {
    struct results_run run;
    char *options; /* JSON */
    char model_sha256[DIGEST_HEX_BYTES], tokenizer_hash[DIGEST_HEX_BYTES], config_hash[DIGEST_HEX_BYTES];
    char architecture[64], started[32];
};

/* All that is known before the plan; ring_size, ranks, hosts and dtype follow through identity_complete. Reads the
 * whole model file once. Free with identity_clear also after a failure. */
int identity_make(struct identity *identity, const struct options *options, const struct opened_model *opened,
                  struct error *err);
void identity_complete(struct identity *identity, const struct plan *plan, const char *hosts);
void identity_clear(struct identity *identity);

#endif
