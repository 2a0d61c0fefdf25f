#include "pipeline/opened_model.h"

#include "io/gguf.h"
#include "pipeline/positions.h"

int opened_model_open(struct opened_model *out, const struct options *options, struct error *err)
{
    const char *path = options->model;
    *out = (struct opened_model){0};
    if (!(out->gguf = gguf_open(path, err)) || !(out->model = model_open(gguf_bundle(out->gguf), err)) ||
        !(out->tokenizer = tokenizer_create(gguf_bundle(out->gguf), err)))
        goto fail;
    for (int64_t i = 0; i < gguf_bundle(out->gguf)->n_tensors; i++)
        out->model_bytes += gguf_bundle(out->gguf)->tensors[i].bytes;
    if (tokenizer_size(out->tokenizer) != out->model->shape.vocab) {
        error_set(err, ERROR_INPUT, "%s: the tokenizer has %lld tokens, the embedding %d rows", path,
                  (long long)tokenizer_size(out->tokenizer), out->model->shape.vocab);
        goto fail;
    }
    if (positions_choose(options, out->model, err) != 0)
        goto fail;
    return 0;
fail:
    opened_model_close(out);
    return -1;
}

void opened_model_close(struct opened_model *opened)
{
    tokenizer_free(opened->tokenizer);
    model_free(opened->model);
    gguf_free(opened->gguf);
    *opened = (struct opened_model){0};
}
