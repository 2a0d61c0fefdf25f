/* What the files of the forward pass on a GPU share: forward_cuda.c has the rows of a segment, forward_one_cuda.c
 * one token. One stream; each function of their tables waits for it, and polls meanwhile. Private to them. */
#ifndef LONGHAUL_MODEL_FORWARD_CUDA_PARTS_H
#define LONGHAUL_MODEL_FORWARD_CUDA_PARTS_H

#include <cuda_runtime_api.h>

#include "model/forward_state.h"

struct gpu_forward {
    struct device_stream *stream;
    struct device_event *over;
    int64_t chunk;            /* most rows of a chunk */
    int64_t scored;           /* the same where logits are asked */
    void *in;                 /* [chunk][widest input] bf16 */
    float *y;                 /* [chunk][widest output] */
    int32_t *ids;             /* [scored] */
    struct ops_logprob *said; /* [scored] */
    float *host_rows;         /* [chunk][widest of what goes to or from the host], pinned; or a token's vector */
    int32_t *host_ids;        /* [scored], pinned */
    struct ops_logprob *host_said; /* [scored], pinned */
    float *logits;                 /* [vocab] of one token */
};

static inline struct gpu_forward *gpu_of(const struct forward *forward)
{
    return forward->own;
}

static inline cudaStream_t stream_of(const struct forward *forward)
{
    return (cudaStream_t)gpu_of(forward)->stream;
}

static inline struct rms_norm norm_of(const struct forward *forward, const float *weight)
{
    return (struct rms_norm){weight, forward->model->shape.width, (float)forward->model->shape.norm_eps};
}

/* Until all that is queued is done. */
int forward_cuda_settle(struct forward *forward, struct error *err);

/* Queue a copy of that direction. */
int forward_cuda_copy(struct forward *forward, void *to, const void *from, size_t bytes, enum device_copy direction,
                      struct error *err);

extern const struct forward_one_arithmetic forward_one_on_cuda;

#endif
