/* Block attention on a GPU: what attention/kernel.h says of a tile, for all rows of a block at once.
 *
 * One call carries the online softmax of all query rows of a block over a run of keys, in fp32, and leaves it
 * un-normalised, so that calls follow each other over the pieces of a memory and the hops of a ring. Scores are in
 * base 2: the caller folds scale * log2(e) into q. All pointers are to the device's memory; calls are queued.
 *
 * Keys and values are bf16 rows, padded per kv head to whole tiles of ATTN_KEY_TILE rows whose padding is finite.
 * What a token sees is a span of key indices, rising with the token; keys outside add an exact zero, tiles before
 * the first and behind the last key that some row of a tile of queries sees are not read, and a row with an empty
 * span is left as it is. The query heads of a kv head share its keys: their rows are packed in one tile.
 *
 * Several kernels fill it: attend_cuda_plain (every card; the twin that the others are held against),
 * attend_cuda_sm80 (mma.sync, cp.async; Dao 2023, "FlashAttention-2"), attend_cuda_sm90 (wgmma, TMA; Shah et al.
 * 2024, "FlashAttention-3").
 */
#ifndef LONGHAUL_ATTENTION_ATTEND_CUDA_H
#define LONGHAUL_ATTENTION_ATTEND_CUDA_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"

enum { ATTEND_PAGE = 64 }; /* rows of a page of keys */

/* Keys first <= index < end are seen; first >= end: none. */
struct attend_span {
    int32_t first, end;
};

struct attend_cuda {
    int kv_heads, group, dim; /* group: query heads of a kv head; dim: see supported() */
    int64_t tokens;           /* queries */
    int64_t key_rows;         /* rows of k and v between one kv head and the next, a multiple of ATTN_KEY_TILE */
    const void *q;            /* [kv_heads][tokens][group][dim] bf16, rotated, times scale * log2(e) */
    const void *k, *v;        /* [kv_heads][key_rows][dim] bf16, keys rotated */
    const int32_t *pages; /* NULL: key i is row i. Else row ATTEND_PAGE * pages[i / ATTEND_PAGE] + i % ATTEND_PAGE
                             of its head */
    const float *bias;    /* NULL, or [keys]: added to all scores of a key, in base 2 (compressed memory) */
    const struct attend_span *spans; /* [tokens] */
    float *o, *m, *l;                /* [kv_heads][tokens][group][dim], and without dim: the state */
};

struct attend_cuda_kernel {
    const char *name; /* "cuda-sm80" */
    /* capability: 80, 90. Plain: dim a multiple of 16 up to 256; the others: 64, 80, 96, 128 or 256. */
    bool (*supported)(int capability, int dim);
    int (*attend)(const struct attend_cuda *call, cudaStream_t stream, struct error *err);
};

extern const struct attend_cuda_kernel attend_cuda_plain, attend_cuda_sm80, attend_cuda_sm90;

/* The fastest kernel for heads of that dimension on the card in use; NULL with ERROR_INPUT where none can. */
const struct attend_cuda_kernel *attend_cuda_choose(int dim, struct error *err);

#ifdef __cplusplus
}
#endif

#endif
