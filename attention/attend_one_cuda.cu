#include "attention/attend_one_cuda.h"

#include <math.h>

#include "attention/rotate_cuda.cuh"
#include "base/gpu.h"

extern "C" {
#include "attention/kernel.h"
}

#define LN_2 0.69314718055994530942f

enum {
    THREADS = 128,
    WARPS = THREADS / GPU_WARP,
    LANES = 8, /* threads that have a key together */
    TILE = 64, /* keys of a step */
    MAX_PARTS = 128,
    PART_KEYS = 4 * TILE /* of a part at least: fewer are not worth its merging */
};

/* ---- a part: a block of threads sums its share of a kv head's keys, for up to GROUP query heads ---- */

/* What a block has in shared memory, for `most` heads, GROUP. The rows of heads that there are not are zeros. */
struct part {
    float *m, *l, *factor; /* [GROUP]: the softmax so far, and what the last step multiplies the sums by */
    float *q;              /* [GROUP][dim], rotated and scaled for base 2 */
    float *scores;         /* [GROUP][TILE] */
    float *sums;           /* [slices][GROUP][dim]: in the place of q and scores, when these are done with */
    int kv_head, first_head, heads;
};

static size_t part_floats(int most, int dim)
{
    const size_t before = (size_t)most * (dim + TILE), after = (size_t)most * 4 * THREADS;
    return 3 * (size_t)most + (before > after ? before : after);
}

static __device__ struct part part_of(const struct attend_one_cuda &call, float *shared, int most)
{
    const int group = call.heads / call.kv_heads, first = blockIdx.z * most;
    struct part part;
    part.m = shared;
    part.l = part.m + most;
    part.factor = part.l + most;
    part.sums = part.q = part.factor + most;
    part.scores = part.q + most * call.dim;
    part.kv_head = blockIdx.y;
    part.first_head = part.kv_head * group + first;
    part.heads = min(most, group - first);
    return part;
}

template <int V, int GROUP>
static __device__ void begin_part(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                  const struct part &part)
{
    const float scale = call.scale * LOG2_E;
    for (int i = threadIdx.x; i < GROUP * call.dim; i += THREADS) {
        const bool there = i < part.heads * call.dim, turns = i % call.dim < 2 * tables.half;
        part.q[i] = there && !turns ? call.q[(int64_t)part.first_head * call.dim + i] * scale : 0;
    }
    if (threadIdx.x < GROUP) {
        part.m[threadIdx.x] = -INFINITY;
        part.l[threadIdx.x] = 0;
    }
    __syncthreads();
    const int units = tables.half / V;
    for (int u = threadIdx.x; u < part.heads * units; u += THREADS) {
        const int row = u / units, i = u % units * V;
        const float *raw = call.q + (int64_t)(part.first_head + row) * call.dim;
        const struct rotate_angles<V> angles = rotate_angles_at<V>(tables, call.position, i);
        rotate_store(tables, rotate_query<V>(tables, raw, scale, angles, i), part.q + row * call.dim, i);
    }
}

/* This thread's share of the products of a key with all rows. */
template <int V, int GROUP>
static __device__ void multiply(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                const struct part &part, int64_t index, float (&dots)[GROUP])
{
    const int lane = threadIdx.x % LANES;
    const __nv_bfloat16 *key = (const __nv_bfloat16 *)call.keys + (part.kv_head * call.capacity + index) * call.dim;
    const float *offset = call.offset ? call.offset + (int64_t)part.kv_head * call.dim : NULL;
    const int64_t position = call.positions[index];
    for (int i = V * lane; i < tables.half; i += V * LANES) {
        const struct rotate_angles<V> angles = rotate_angles_at<V>(tables, position, i);
        const struct rotate_pairs<V> x = rotate_key<V>(tables, key, offset, call.still, angles, i);
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            const struct rotate_pairs<V> q = rotate_load<V>(tables, part.q + g * call.dim, i);
            for (int k = 0; k < V; k++)
                dots[g] += x.a[k] * q.a[k] + x.b[k] * q.b[k];
        }
    }
    for (int e = 2 * tables.half + lane; e < call.dim; e += LANES) {
        const float x = rotate_key_rest(key, offset, call.still, e);
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            dots[g] += x * part.q[g * call.dim + e];
    }
}

/* The scores of n keys from index `first` on; -inf behind them. */
template <int V, int GROUP>
static __device__ void score_tile(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                  const struct part &part, int64_t first, int n)
{
    for (int t = threadIdx.x / LANES; t < TILE; t += THREADS / LANES) {
        float dots[GROUP] = {};
        if (t < n)
            multiply<V, GROUP>(tables, call, part, first + t, dots);
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
            for (int far = LANES / 2; far > 0; far /= 2)
                dots[g] += __shfl_xor_sync(~0u, dots[g], far);
            if (threadIdx.x % LANES == 0)
                part.scores[g * TILE + t] = t < n ? dots[g] : -INFINITY;
        }
    }
}

/* scores := 2^(scores - m), m raised to the largest: a warp a row. The first key of a tile is always there. */
template <int GROUP> static __device__ void weigh_tile(const struct part &part)
{
    static_assert(TILE == 2 * GPU_WARP, "a lane has two scores");
    const int lane = threadIdx.x % GPU_WARP;
    for (int g = threadIdx.x / GPU_WARP; g < GROUP; g += WARPS) {
        float *row = part.scores + g * TILE;
        const float m = part.m[g], high = gpu_warp_max(fmaxf(m, fmaxf(row[lane], row[lane + GPU_WARP])));
        float sum = 0;
        for (int t = lane; t < TILE; t += GPU_WARP) {
            row[t] = gpu_exp2(row[t] - high);
            sum += row[t];
        }
        sum = gpu_warp_sum(sum);
        if (lane == 0) {
            part.factor[g] = gpu_exp2(m - high);
            part.l[g] = part.l[g] * part.factor[g] + sum;
            part.m[g] = high;
        }
    }
}

/* Threads of a slice have four elements each; slices share the keys of a tile. */
static __device__ int slices_of(int dim)
{
    return THREADS / (dim / 4);
}

template <int GROUP>
static __device__ void sum_tile(const struct attend_one_cuda &call, const struct part &part, int64_t first, int n,
                                float (&sums)[GROUP][4])
{
    const int units = call.dim / 4, slice = threadIdx.x / units, slices = slices_of(call.dim);
    const __nv_bfloat16 *values = (const __nv_bfloat16 *)call.values +
                                  (part.kv_head * call.capacity + first) * call.dim + threadIdx.x % units * 4;
#pragma unroll
    for (int g = 0; g < GROUP; g++)
        for (int k = 0; k < 4; k++)
            sums[g][k] *= part.factor[g];
    for (int t = slice; slice < slices && t < n; t += slices) {
        float v[4];
        gpu_load(v, values + (int64_t)t * call.dim);
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            for (int k = 0; k < 4; k++)
                sums[g][k] += part.scores[g * TILE + t] * v[k];
    }
}

/* The sums of all slices, and m and l, to this part's place: o [parts][heads][dim], then m and l [parts][heads]. */
template <int GROUP>
static __device__ void store_part(const struct attend_one_cuda &call, const struct part &part,
                                  const float (&sums)[GROUP][4])
{
    const int units = call.dim / 4, slice = threadIdx.x / units, slices = slices_of(call.dim);
    const int64_t states = (int64_t)gridDim.x * call.heads, state = blockIdx.x * call.heads + part.first_head;
    if (slice < slices) {
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            gpu_store(part.sums + (slice * GROUP + g) * call.dim + threadIdx.x % units * 4, sums[g]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < part.heads * call.dim; i += THREADS) {
        float sum = 0;
        for (int s = 0; s < slices; s++)
            sum += part.sums[s * GROUP * call.dim + i];
        call.parts[state * call.dim + i] = sum;
    }
    if ((int)threadIdx.x < part.heads) {
        float *m = call.parts + states * call.dim;
        m[state + threadIdx.x] = part.m[threadIdx.x];
        m[states + state + threadIdx.x] = part.l[threadIdx.x];
    }
}

template <int V, int GROUP>
static __global__ void part_kernel(const struct rope_tables tables, const struct attend_one_cuda call)
{
    GPU_SHARED(shared);
    const struct part part = part_of(call, (float *)shared, GROUP);
    const int64_t tiles = (call.n + TILE - 1) / TILE, end = tiles * (blockIdx.x + 1) / gridDim.x;
    float sums[GROUP][4] = {};
    begin_part<V, GROUP>(tables, call, part);
    for (int64_t tile = tiles * blockIdx.x / gridDim.x; tile < end; tile++) {
        const int n = (int)min((int64_t)TILE, call.n - tile * TILE);
        __syncthreads(); /* the scores before have been used */
        score_tile<V, GROUP>(tables, call, part, tile * TILE, n);
        __syncthreads();
        weigh_tile<GROUP>(part);
        __syncthreads();
        sum_tile(call, part, tile * TILE, n, sums);
    }
    __syncthreads();
    store_part(call, part, sums);
}

/* ---- all parts: a block a head ---- */

static __global__ void merge_kernel(const struct attend_one_cuda call, int parts)
{
    const int64_t head = blockIdx.x, states = (int64_t)parts * call.heads;
    const float *m = call.parts + states * call.dim, *l = m + states;
    float high = -INFINITY, sum = 0;
    for (int64_t at = head; at < states; at += call.heads)
        high = fmaxf(high, m[at]);
    for (int64_t at = head; at < states; at += call.heads)
        sum += l[at] * gpu_exp2(m[at] - high);
    for (int e = threadIdx.x; e < call.dim; e += blockDim.x) {
        float o = 0;
        for (int64_t at = head; at < states; at += call.heads)
            o += call.parts[at * call.dim + e] * gpu_exp2(m[at] - high);
        call.out[head * call.dim + e] = parts > 0 ? o / sum : 0;
    }
    if (threadIdx.x == 0)
        call.lse[head] = parts > 0 ? high * LN_2 + logf(sum) : -INFINITY;
}

/* ---- the host's side ---- */

size_t attend_one_cuda_parts(int heads, int dim)
{
    return (size_t)MAX_PARTS * (size_t)heads * ((size_t)dim + 2);
}

template <int V, int GROUP>
static int launch_parts(const struct rope_tables &tables, const struct attend_one_cuda *call, int parts,
                        cudaStream_t stream, struct error *err)
{
    const int group = call->heads / call->kv_heads;
    const dim3 grid((unsigned)parts, (unsigned)call->kv_heads, (unsigned)((group + GROUP - 1) / GROUP));
    GPU_LAUNCH((part_kernel<V, GROUP>), grid, THREADS, part_floats(GROUP, call->dim) * sizeof(float), stream,
               tables, *call);
    return gpu_check_launch("attention of one token on the GPU", err);
}

template <int V>
static int launch(const struct rope_tables &tables, const struct attend_one_cuda *call, int parts,
                  cudaStream_t stream, struct error *err)
{
    const int group = call->heads / call->kv_heads;
    return group <= 4   ? launch_parts<V, 4>(tables, call, parts, stream, err)
           : group <= 8 ? launch_parts<V, 8>(tables, call, parts, stream, err)
                        : launch_parts<V, 16>(tables, call, parts, stream, err);
}

int attend_one_cuda(const struct rope_cuda *rope, const struct attend_one_cuda *call, cudaStream_t stream,
                    struct error *err)
{
    const int parts = (int)i64_min(MAX_PARTS, i64_ceil_div(call->n, PART_KEYS));
    const bool fours = rotate_in_fours(rope->tables, call->dim) && gpu_in_fours(call->q, call->dim) &&
                       gpu_in_fours((const __nv_bfloat16 *)call->keys, call->dim) &&
                       gpu_in_fours(call->offset, call->dim) && gpu_in_fours(call->still, call->dim);
    if (parts > 0 && (fours ? launch<4> : launch<1>)(rope->tables, call, parts, stream, err) != 0)
        return -1;
    GPU_LAUNCH(merge_kernel, (unsigned)call->heads, gpu_row_threads(call->dim), 0, stream, *call, parts);
    return gpu_check_launch("attention of one token on the GPU", err);
}
