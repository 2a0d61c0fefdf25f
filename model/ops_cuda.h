/* The operations of model/ops.h on a GPU: norms, gate, sums and log-softmax on the rows of a segment.
 *
 * Every pointer in the structs is to the device's memory, borrowed until the call is over in its stream. Calls are
 * queued in the stream; they return 0, or -1 with ERROR_CLUSTER where the launch is refused. A row is computed by
 * one block (of a head: one warp) in one order, whatever its neighbours. All are bound by memory: rows are read
 * four numbers at a time where their length is a multiple of 4 and they are aligned to 16 bytes (bf16: 8), else one
 * by one. Where there are no rows nothing is done.
 */
#ifndef LONGHAUL_MODEL_OPS_CUDA_H
#define LONGHAUL_MODEL_OPS_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"
#include "base/num.h"
#include "model/ops.h"

/* out [rows][n] = x [rows][n] normed, as ops_rms_norm; in f32, out may be x. */
struct ops_cuda_rms_norm {
    struct rms_norm norm;
    const float *x;
    void *out;
    enum dtype dtype; /* of out */
    int64_t rows;
};
int ops_cuda_rms_norm(const struct ops_cuda_rms_norm *call, cudaStream_t stream, struct error *err);

/* The end of one half of a layer and the beginning of the next: x += y, then out = x normed. */
struct ops_cuda_add_norm {
    struct rms_norm norm;     /* of the sum. weight NULL: it is not normed, and out not looked at */
    const float *post_weight; /* [n]: y is normed with it before it is added (the same eps); NULL: it is not */
    float *x;                 /* [rows][n] the residual stream */
    const float *y;           /* [rows][n] */
    void *out;                /* [rows][n] */
    enum dtype dtype;         /* of out */
    int64_t rows;
};
int ops_cuda_add_norm(const struct ops_cuda_add_norm *call, cudaStream_t stream, struct error *err);

/* out [rows][ffn] = activation(gate) * up, as ops_gate. */
struct ops_cuda_gate {
    struct ops_gate gate;
    const float *gate_up; /* [rows][2 ffn] */
    void *out;            /* [rows][ffn] */
    enum dtype dtype;     /* of out */
    int64_t rows;
};
int ops_cuda_gate(const struct ops_cuda_gate *call, cudaStream_t stream, struct error *err);

/* Norm every head of the queries and of the keys, in place: a row of qkv holds heads * dim numbers of queries, then
 * kv_heads * dim of keys, then what is left alone. */
struct ops_cuda_head_norms {
    float *qkv; /* [rows][stride] */
    int64_t stride;
    int heads, kv_heads, dim;
    const float *query_norm, *key_norm; /* [dim], or NULL: these heads are left as they are */
    float eps;
    int64_t rows;
};
int ops_cuda_head_norms(const struct ops_cuda_head_norms *call, cudaStream_t stream, struct error *err);

/* What ops_log_softmax says of each row's logits and the id of that row. */
struct ops_cuda_log_softmax {
    const float *logits; /* [rows][vocab] */
    int64_t vocab;
    const int32_t *ids;      /* [rows] */
    struct ops_logprob *out; /* [rows] */
    int64_t rows;
};
int ops_cuda_log_softmax(const struct ops_cuda_log_softmax *call, cudaStream_t stream, struct error *err);

#ifdef __cplusplus
}
#endif

#endif
