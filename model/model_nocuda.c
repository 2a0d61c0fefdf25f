#include "model/model_cuda.h"

int model_cuda_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                     struct error *err)
{
    (void)model, (void)options, (void)out;
    return error_set(err, ERROR_INTERNAL, "a model for a GPU in a program built without CUDA");
}

struct model_cuda *model_cuda_create(const struct model *model, const struct model_pack_options *options,
                                     struct error *err)
{
    size_t bytes;
    model_cuda_bytes(model, options, &bytes, err);
    return NULL;
}

void model_cuda_free(struct model_cuda *cuda)
{
    (void)cuda;
}
