/* A model as every rank opens it: the mapped file, the weights in it by name with the positions that the options
 * ask for, the tokenizer. */
#ifndef LONGHAUL_PIPELINE_OPENED_MODEL_H
#define LONGHAUL_PIPELINE_OPENED_MODEL_H

#include <stddef.h>

#include "base/error.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "pipeline/options.h"

struct opened_model {
    struct gguf *gguf;
    struct model *model;
    struct tokenizer *tokenizer;
    size_t model_bytes; /* of its tensors, in the mapped file */
};

/* Close also an empty one; after a failure to open it is empty. */
int opened_model_open(struct opened_model *out, const struct options *options, struct error *err);
void opened_model_close(struct opened_model *opened);

#endif
