/* A model's weights on a GPU: its matrices in bf16, its norms and biases in f32, all resident. Private to model/.
 */
#ifndef LONGHAUL_MODEL_MODEL_CUDA_H
#define LONGHAUL_MODEL_MODEL_CUDA_H

#include "model/model.h"

struct model_cuda;

/* Bytes that model_cuda_create allocates on the GPU. */
int model_cuda_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                     struct error *err);

/* ERROR_INPUT names a weight that is NaN or infinite, ERROR_RESOURCE a GPU that is too small. */
struct model_cuda *model_cuda_create(const struct model *model, const struct model_pack_options *options,
                                     struct error *err);
void model_cuda_free(struct model_cuda *cuda);

#endif
