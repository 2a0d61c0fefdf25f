/* A model's weights on a GPU: its matrices in bf16, quantised rows of those that single tokens are multiplied with,
 * its norms in f32; all resident, or the matrices streamed through the places of two layers. The embedding stays
 * the host's, which looks up a segment's tokens. Private to model/.
 */
#ifndef LONGHAUL_MODEL_MODEL_CUDA_H
#define LONGHAUL_MODEL_MODEL_CUDA_H

#include "model/model.h"

struct linear_cuda;

/* As struct layer: norms on the device, NULL where the layer has none. */
struct layer_cuda {
    struct linear_cuda *linears[LINEARS_PER_LAYER];
    const float *attention_norm, *ffn_norm, *attention_post_norm, *ffn_post_norm, *query_norm, *key_norm;
};

struct model_cuda {
    const struct device *device;         /* borrowed */
    struct linear_cuda_library *library; /* of all linears */
    int n_layers;
    struct layer_cuda *layers;
    struct linear_cuda *head; /* NULL unless packed with it */
    /* Where the layers' matrices are streamed: the places of even and of odd layers, each used by one layer at a
     * time. */
    struct places {
        void *matrices[LINEARS_PER_LAYER];
        struct device_event *there; /* what was brought last */
    } places[2];
    struct device_stream *bringing; /* NULL: all matrices are resident */
    const float *output_norm;
    float *norms; /* owns them */
    struct resident_rows {
        const void *host;
        void *device;
    } * rows; /* [n_rows], rising by host: of the tensors that were asked for */
    int64_t n_rows;
};

/* Bytes that model_cuda_create allocates on the GPU. */
int model_cuda_bytes(const struct model *model, const struct model_pack_options *options, size_t *out,
                     struct error *err);

/* ERROR_INPUT names a weight that is NaN or infinite, ERROR_RESOURCE a GPU that is too small. */
struct model_cuda *model_cuda_create(const struct model *model, const struct model_pack_options *options,
                                     struct error *err);
void model_cuda_free(struct model_cuda *cuda);

/* Where matrices are streamed: begin to bring a layer's, once those of the layer two before are of no more use; and
 * let what is queued in the stream from now on wait for them. Elsewhere they are there. */
int model_cuda_bring(const struct model_cuda *cuda, int layer, struct error *err);
int model_cuda_await(const struct model_cuda *cuda, int layer, struct device_stream *stream, struct error *err);

/* *out = the tensor with its rows on the device. ERROR_INTERNAL for one that was not asked for. */
int model_cuda_tensor(const struct model_cuda *cuda, const struct tensor *tensor, struct tensor *out,
                      struct error *err);

#endif
