/* What the kernels on tensor cores share: a tile of query rows of one kv head, and the online softmax of the two
 * rows that a thread has in its accumulators.
 *
 * An accumulator of mma.m16n8 and of wgmma.m64n is blocks of 8 columns. Of each block, lane l = 4 g + t of a warp
 * has columns 2 t and 2 t + 1 of the warp's rows g (elements 0 and 1) and g + 8 (elements 2 and 3). The four lanes
 * of a row carry one m and each a share of l, put together at the end.
 */
#ifndef LONGHAUL_ATTENTION_ATTEND_TILE_CUH
#define LONGHAUL_ATTENTION_ATTEND_TILE_CUH

#include "attention/attend_cuda.h"

#include <math.h>

#include "base/gpu.cuh"
#include "base/gpu_rows.cuh"

/* The rows [first, first + its size) of a kv head's [tokens][group]. */
struct attend_tile {
    int head;
    int64_t first, rows; /* rows: of the whole head */
};

/* Two rows of a tile as one thread sees them. A row that is not there, or sees no key, has width 0: what is
 * computed for it is never stored. */
struct attend_rows {
    int64_t at; /* of the first row in m and l; the second is 8 further on */
    int first[2];
    unsigned width[2];      /* keys first <= key < first + width are seen */
    struct attend_span all; /* what all rows of the warp see, but those that see nothing */
    float m[2], l[2];
};

/* The tile of this block. Late rows see most under a causal mask, so their tiles, of all heads, begin first. */
static __device__ __forceinline__ struct attend_tile attend_tile_of(const struct attend_cuda &call, int tile_rows)
{
    const int tiles = gridDim.x / call.kv_heads, index = tiles - 1 - (int)(blockIdx.x / call.kv_heads);
    struct attend_tile tile;
    tile.head = (int)(blockIdx.x % call.kv_heads);
    tile.first = (int64_t)index * tile_rows;
    tile.rows = call.tokens * call.group;
    return tile;
}

static inline unsigned attend_grid(const struct attend_cuda *call, int tile_rows)
{
    const int64_t rows = call->tokens * call->group;
    return (unsigned)((rows + tile_rows - 1) / tile_rows * call->kv_heads);
}

/* From the first to the last key that some row of the tile sees. All threads of the block; found [2 * its warps].
 */
static __device__ __forceinline__ struct attend_span
attend_seen(const struct attend_cuda &call, const struct attend_tile &tile, int tile_rows, int *found)
{
    const int64_t end_row = min(tile.first + tile_rows, tile.rows), end = (end_row - 1) / call.group + 1;
    struct attend_span seen = {INT32_MAX, 0};
    for (int64_t token = tile.first / call.group + threadIdx.x; token < end; token += blockDim.x) {
        const struct attend_span span = call.spans[token];
        if (span.first < span.end)
            seen = {min(seen.first, span.first), max(seen.end, span.end)};
    }
    for (int step = GPU_WARP / 2; step > 0; step /= 2) {
        seen.first = min(seen.first, __shfl_xor_sync(~0u, seen.first, step));
        seen.end = max(seen.end, __shfl_xor_sync(~0u, seen.end, step));
    }
    found[threadIdx.x / GPU_WARP * 2] = seen.first;
    found[threadIdx.x / GPU_WARP * 2 + 1] = seen.end;
    __syncthreads();
    for (unsigned warp = 0; warp < blockDim.x / GPU_WARP; warp++)
        seen = {min(seen.first, found[2 * warp]), max(seen.end, found[2 * warp + 1])};
    return seen;
}

/* Which of n tiles of keys are for this block, where several share them (attend_split.h). */
static __device__ __forceinline__ struct attend_span attend_share(int n)
{
    return {(int)((int64_t)n * blockIdx.y / gridDim.y), (int)((int64_t)n * (blockIdx.y + 1) / gridDim.y)};
}

/* The row of k and v where that page of keys begins. */
static __device__ __forceinline__ int64_t attend_page_row(const struct attend_cuda &call, int page)
{
    return (int64_t)ATTEND_PAGE * (call.pages ? call.pages[page] : page);
}

/* This thread's rows: `row` and `row` + 8 of the tile. */
static __device__ __forceinline__ struct attend_rows attend_rows_load(const struct attend_cuda &call,
                                                                      const struct attend_tile &tile, int row)
{
    struct attend_rows rows;
    rows.at = ((int64_t)blockIdx.y * call.kv_heads + tile.head) * tile.rows + tile.first + row;
    rows.all = {0, INT32_MAX};
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int64_t index = tile.first + row + 8 * h;
        struct attend_span span = {0, 0};
        if (index < tile.rows)
            span = call.spans[index / call.group];
        rows.first[h] = span.first;
        rows.width[h] = (unsigned)max(0, span.end - span.first);
        if (span.first < span.end)
            rows.all = {max(rows.all.first, span.first), min(rows.all.end, span.end)};
        rows.m[h] = rows.width[h] ? call.m[rows.at + 8 * h] : -INFINITY;
        rows.l[h] = rows.width[h] && threadIdx.x % 4 == 0 ? call.l[rows.at + 8 * h] : 0.0f;
    }
    for (int step = 4; step < GPU_WARP; step *= 2) { /* four lanes have the same rows */
        rows.all.first = max(rows.all.first, __shfl_xor_sync(~0u, rows.all.first, step));
        rows.all.end = min(rows.all.end, __shfl_xor_sync(~0u, rows.all.end, step));
    }
    return rows;
}

/* o [8 * BLOCKS columns] of the rows; zeros where nothing was seen so far. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_values_load(const struct attend_cuda &call,
                                                          const struct attend_rows &rows, float (&o)[BLOCKS][4])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float *from = call.o + (rows.at + 8 * h) * (8 * BLOCKS) + threadIdx.x % 4 * 2;
#pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            float2 pair = {0.0f, 0.0f};
            if (rows.m[h] != -INFINITY)
                pair = *(const float2 *)(from + 8 * j);
            o[j][2 * h] = pair.x;
            o[j][2 * h + 1] = pair.y;
        }
    }
}

template <int BLOCKS>
static __device__ __forceinline__ void attend_store(const struct attend_cuda &call, const struct attend_rows &rows,
                                                    const float (&o)[BLOCKS][4])
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float l = rows.l[h];
        l += __shfl_xor_sync(~0u, l, 1);
        l += __shfl_xor_sync(~0u, l, 2);
        if (rows.width[h] == 0)
            continue;
        float *to = call.o + (rows.at + 8 * h) * (8 * BLOCKS) + threadIdx.x % 4 * 2;
#pragma unroll
        for (int j = 0; j < BLOCKS; j++)
            *(float2 *)(to + 8 * j) = float2{o[j][2 * h], o[j][2 * h + 1]};
        if (threadIdx.x % 4 == 0) {
            call.m[rows.at + 8 * h] = rows.m[h];
            call.l[rows.at + 8 * h] = l;
        }
    }
}

/* Does any row of the warp see any of the keys [key, key + n)? */
static __device__ __forceinline__ bool attend_sees_some(const struct attend_rows &rows, int key, int n)
{
    bool sees = false;
    for (int h = 0; h < 2; h++)
        sees |= rows.width[h] && rows.first[h] < key + n && key - rows.first[h] < (int)rows.width[h];
    return __any_sync(~0u, sees);
}

/* The scores of the keys from `key` on: -inf where a key is not seen. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_mask(float (&s)[BLOCKS][4], const struct attend_rows &rows, int key)
{
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int offset = key + 8 * j + (int)threadIdx.x % 4 * 2 + i % 2 - rows.first[i / 2];
            if ((unsigned)offset >= rows.width[i / 2])
                s[j][i] = -INFINITY;
        }
}

/* Adds the bias of the keys that are seen; that of others is not read. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_add_bias(float (&s)[BLOCKS][4], const struct attend_rows &rows,
                                                       int key, const float *bias)
{
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int index = key + 8 * j + (int)threadIdx.x % 4 * 2 + i % 2;
            if ((unsigned)(index - rows.first[i / 2]) < rows.width[i / 2])
                s[j][i] += __ldg(bias + index);
        }
}

/* All that may change the scores of the keys from `key` on before they are weighed. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_edit(float (&s)[BLOCKS][4], const struct attend_rows &rows, int key,
                                                   const float *bias)
{
    if (bias)
        attend_add_bias(s, rows, key, bias);
    if (key < rows.all.first || key + 8 * BLOCKS > rows.all.end)
        attend_mask(s, rows, key);
}

/* s := 2^(s - m), with m raised to the largest score; l follows, from the weights before they are rounded. What was
 * summed so far is to be multiplied by factor. A row that has seen nothing yet keeps m = -inf and weights of 0. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_weigh(float (&s)[BLOCKS][4], struct attend_rows &rows,
                                                    float (&factor)[2])
{
    float high[2] = {rows.m[0], rows.m[1]};
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            high[i / 2] = fmaxf(high[i / 2], s[j][i]);
#pragma unroll
    for (int step = 1; step <= 2; step++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            high[h] = fmaxf(high[h], __shfl_xor_sync(~0u, high[h], step));
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const float reference = high[h] == -INFINITY ? 0.0f : high[h]; /* -inf - -inf is not a number */
        factor[h] = gpu_exp2(rows.m[h] - reference);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < BLOCKS; j++)
#pragma unroll
            for (int i = 2 * h; i < 2 * h + 2; i++) {
                s[j][i] = gpu_exp2(s[j][i] - reference);
                sum += s[j][i];
            }
        rows.m[h] = high[h];
        rows.l[h] = rows.l[h] * factor[h] + sum;
    }
}

/* Most tiles raise no row's m any more, and then there is nothing to do. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_rescale(float (&o)[BLOCKS][4], const float (&factor)[2])
{
    if (!__any_sync(~0u, factor[0] != 1.0f || factor[1] != 1.0f))
        return;
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            o[j][i] *= factor[i / 2];
}

/* The weights of 16 keys, blocks 2 step and 2 step + 1 of s, as the A operand [16 x 16] of the next product. */
template <int BLOCKS>
static __device__ __forceinline__ void attend_weights_of(const float (&s)[BLOCKS][4], int step, uint32_t (&a)[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        a[i] = gpu_pack_bf16(s[2 * step + i / 2][i % 2 * 2], s[2 * step + i / 2][i % 2 * 2 + 1]);
}

#endif
