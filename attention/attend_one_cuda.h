/* Decode on a GPU: attention of one token's query over a shard of raw keys, all of which it sees.
 *
 * The keys are shared out over blocks of threads and the parts' softmaxes merged (Dao et al. 2023,
 * "Flash-Decoding"), for one query has too few rows to fill a card otherwise. Keys are rotated in registers as they
 * are read, so that nothing but the shard itself goes through the memory: 4 dim bytes a key and kv head, and its
 * position; once for every eight query heads of a kv head. All sums are in fp32. The numbers are those of
 * rotate_cuda.h and attend_cuda.h without their roundings to bf16.
 */
#ifndef LONGHAUL_ATTENTION_ATTEND_ONE_CUDA_H
#define LONGHAUL_ATTENTION_ATTEND_ONE_CUDA_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#include "attention/rotate_cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Every pointer is to the device's memory, borrowed until the call is over in its stream. */
struct attend_one_cuda {
    int heads, kv_heads, dim; /* dim: a multiple of 16 up to ATTN_MAX_DIM */
    const float *q;           /* [heads][dim], raw */
    int64_t position;         /* of the query */
    float scale;              /* of scores */
    int64_t n, capacity;
    const void *keys;         /* [kv_heads][capacity][dim] bf16, of which n, aligned to 16 bytes; not rotated */
    const void *values;       /* the same */
    const int64_t *positions; /* [n] */
    const float *offset;      /* as in rotate_cuda_keys: [kv_heads][dim] or NULL, ... */
    const float *slow_cosine; /* ... and [dim] */
    float *parts;             /* room of attend_one_cuda_parts() numbers */
    float *out;               /* [heads][dim]; 0 where there is no key */
    float *lse; /* [heads]: the natural log-sum-exp of the scaled scores, -inf where there is no key */
};

/* How many numbers the parts take at most. */
size_t attend_one_cuda_parts(int heads, int dim);

/* Queued; -1 with ERROR_CLUSTER where the launch is refused. */
int attend_one_cuda(const struct rope_cuda *rope, const struct attend_one_cuda *call, cudaStream_t stream,
                    struct error *err);

#ifdef __cplusplus
}
#endif

#endif
