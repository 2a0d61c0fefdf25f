#include "attention/attend_one_cuda.h"

#include <math.h>

#include "attention/rotate_cuda.cuh"
#include "base/gpu.h"

extern "C" {
#include "attention/kernel.h"
}

#define LN_2 0.69314718055994530942f

enum {
    WARPS = 4,
    THREADS = WARPS * GPU_WARP,
    LANES = 8,                    /* threads that multiply a key together */
    AT_ONCE = GPU_WARP / LANES,   /* keys that a warp multiplies at once */
    TILE = GPU_WARP,              /* keys that a warp weighs at once */
    EIGHT = 8,                    /* numbers of a value that a thread sums up */
    SUMS = THREADS * EIGHT,       /* of a head and block */
    PART_KEYS = 2 * WARPS * TILE, /* of a part at least: fewer are not worth its merging */
    BLOCKS_PER_SM = 4,            /* enough to keep the memory busy */
    MAX_PARTS = 512,
    MERGE_THREADS = 256
};

/* ---- a part: a block of threads sums its share of a kv head's keys, for up to GROUP query heads ---- */

/* What a block has in shared memory, for `most` heads, GROUP. The rows of heads that there are not are zeros. */
struct part {
    float *m, *l;  /* [WARPS][GROUP]: of each warp, in the end */
    float *q;      /* [GROUP][dim], rotated and scaled for base 2 */
    float *scores; /* [GROUP][TILE] of this warp */
    float *sums;   /* [WARPS * slices][GROUP][dim]: in the place of q and scores, when these are done with */
    int kv_head, first_head, heads;
};

/* The softmax of a warp so far: m of all its lanes, this lane's share of l and of the sums of values. */
template <int GROUP> struct sums {
    float m[GROUP], l[GROUP], o[GROUP][EIGHT];
};

static size_t part_floats(int most, int dim)
{
    const size_t before = (size_t)most * (size_t)(dim + WARPS * TILE), after = (size_t)most * SUMS;
    return 2 * (size_t)most * WARPS + (before > after ? before : after);
}

static __device__ int warp_of_thread()
{
    return threadIdx.x / GPU_WARP;
}

static __device__ struct part part_of(const struct attend_one_cuda &call, float *shared, int most)
{
    const int group = call.heads / call.kv_heads, first = blockIdx.z * most;
    struct part part;
    part.m = shared;
    part.l = part.m + most * WARPS;
    part.sums = part.q = part.l + most * WARPS;
    part.scores = part.q + most * (call.dim + warp_of_thread() * TILE);
    part.kv_head = blockIdx.y;
    part.first_head = part.kv_head * group + first;
    part.heads = min(most, group - first);
    return part;
}

template <int V, int GROUP>
static __device__ void begin_part(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                  const struct part &part)
{
    const float scale = call.scale * ATTN_LOG2_E;
    for (int i = threadIdx.x; i < GROUP * call.dim; i += THREADS) {
        const bool there = i < part.heads * call.dim, turns = i % call.dim < 2 * tables.half;
        part.q[i] = there && !turns ? call.q[(int64_t)part.first_head * call.dim + i] * scale : 0;
    }
    __syncthreads();
    const int units = tables.half / V;
    for (int u = threadIdx.x; u < part.heads * units; u += THREADS) {
        const int row = u / units, i = u % units * V;
        const float *raw = call.q + (int64_t)(part.first_head + row) * call.dim;
        const struct rotate_angles<V> angles = rotate_angles_at<V>(tables, call.position, i);
        rotate_store(tables, rotate_query<V>(tables, raw, scale, angles, i), part.q + row * call.dim, i);
    }
    __syncthreads();
}

/* This thread's share of the products of keys with all rows: of the keys first, first + AT_ONCE and so on, the last
 * of all again where there are no more. Many keys together, so that many loads are under way. */
template <int V, int KEYS, int GROUP>
static __device__ void multiply(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                const struct part &part, int64_t first, float (&dots)[KEYS][GROUP])
{
    const int lane = threadIdx.x % LANES;
    const __nv_bfloat16 *keys = (const __nv_bfloat16 *)call.keys + part.kv_head * call.capacity * call.dim;
    const float *offset = call.offset ? call.offset + (int64_t)part.kv_head * call.dim : NULL;
    for (int i = V * lane; i < tables.half; i += V * LANES) {
        struct rotate_pairs<V> q[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; g++)
            q[g] = rotate_load<V>(tables, part.q + g * call.dim, i);
#pragma unroll
        for (int k = 0; k < KEYS; k++) {
            const int64_t index = min(first + k * AT_ONCE, call.n - 1);
            const struct rotate_angles<V> angles = rotate_angles_at<V>(tables, call.positions[index], i);
            const struct rotate_pairs<V> x =
                rotate_key<V>(tables, keys + index * call.dim, offset, call.slow_cosine, angles, i);
#pragma unroll
            for (int g = 0; g < GROUP; g++)
#pragma unroll
                for (int e = 0; e < V; e++)
                    dots[k][g] += x.a[e] * q[g].a[e] + x.b[e] * q[g].b[e];
        }
    }
    for (int e = 2 * tables.half + lane; e < call.dim; e += LANES)
        for (int k = 0; k < KEYS; k++) {
            const int64_t index = min(first + k * AT_ONCE, call.n - 1);
            const float x = rotate_key_rest(keys + index * call.dim, offset, call.slow_cosine, e);
#pragma unroll
            for (int g = 0; g < GROUP; g++)
                dots[k][g] += x * part.q[g * call.dim + e];
        }
}

/* The scores of the tile of keys that begins at `first`; -inf behind the last. */
template <int V, int GROUP>
static __device__ void score_tile(const struct rope_tables &tables, const struct attend_one_cuda &call,
                                  const struct part &part, int64_t first)
{
    constexpr int KEYS = GROUP > 4 ? 4 : 8;
    for (int t = threadIdx.x % GPU_WARP / LANES; t < TILE; t += KEYS * AT_ONCE) {
        float dots[KEYS][GROUP] = {};
        multiply<V>(tables, call, part, first + t, dots);
#pragma unroll
        for (int k = 0; k < KEYS; k++)
#pragma unroll
            for (int g = 0; g < GROUP; g++) {
                for (int far = LANES / 2; far > 0; far /= 2)
                    dots[k][g] += __shfl_xor_sync(~0u, dots[k][g], far);
                if (threadIdx.x % LANES == 0)
                    part.scores[g * TILE + t + k * AT_ONCE] =
                        first + t + k * AT_ONCE < call.n ? dots[k][g] : -INFINITY;
            }
    }
    __syncwarp();
}

/* scores := 2^(scores - m), m raised to the largest. The first key of a tile is always there. */
template <int GROUP> static __device__ void weigh_tile(const struct part &part, struct sums<GROUP> &sums)
{
    static_assert((int)TILE == (int)GPU_WARP, "a lane has a score");
    const int lane = threadIdx.x % GPU_WARP;
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        const float score = part.scores[g * TILE + lane], high = gpu_warp_max(fmaxf(sums.m[g], score));
        const float factor = gpu_exp2(sums.m[g] - high), weight = gpu_exp2(score - high);
        part.scores[g * TILE + lane] = weight;
        sums.m[g] = high;
        sums.l[g] = sums.l[g] * factor + weight;
#pragma unroll
        for (int e = 0; e < EIGHT; e++)
            sums.o[g][e] *= factor;
    }
    __syncwarp();
}

/* Threads of a slice have eight elements each; slices share the keys of a tile. */
static __device__ int slices_of(int dim)
{
    return GPU_WARP / (dim / EIGHT);
}

template <int GROUP>
static __device__ void sum_tile(const struct attend_one_cuda &call, const struct part &part, int64_t first,
                                struct sums<GROUP> &sums)
{
    const int units = call.dim / EIGHT, lane = threadIdx.x % GPU_WARP, slice = lane / units;
    const int slices = slices_of(call.dim), n = (int)min((int64_t)TILE, call.n - first);
    const __nv_bfloat16 *values = (const __nv_bfloat16 *)call.values +
                                  (part.kv_head * call.capacity + first) * call.dim + lane % units * EIGHT;
#pragma unroll 8
    for (int t = slice; t < (slice < slices ? n : 0); t += slices) {
        float v[EIGHT];
        gpu_load(v, values + (int64_t)t * call.dim);
#pragma unroll
        for (int g = 0; g < GROUP; g++)
#pragma unroll
            for (int e = 0; e < EIGHT; e++)
                sums.o[g][e] += part.scores[g * TILE + t] * v[e];
    }
    __syncwarp(); /* the scores have been used */
}

/* This warp's state, to be put together with those of the others. */
template <int GROUP>
static __device__ void leave_sums(const struct attend_one_cuda &call, const struct part &part,
                                  const struct sums<GROUP> &sums)
{
    const int units = call.dim / EIGHT, lane = threadIdx.x % GPU_WARP, slice = lane / units;
    const int slices = slices_of(call.dim), warp = warp_of_thread();
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
        const float l = gpu_warp_sum(sums.l[g]);
        if (lane == 0) {
            part.m[warp * GROUP + g] = sums.m[g];
            part.l[warp * GROUP + g] = l;
        }
        if (slice < slices)
            gpu_store(part.sums + ((warp * slices + slice) * GROUP + g) * call.dim + lane % units * EIGHT,
                      sums.o[g]);
    }
}

/* The state of the block to its place: o [parts][heads][dim], then m and l [parts][heads]. */
template <int GROUP> static __device__ void store_part(const struct attend_one_cuda &call, const struct part &part)
{
    const int64_t states = (int64_t)gridDim.x * call.heads, state = blockIdx.x * call.heads + part.first_head;
    const int slices = slices_of(call.dim);
    float *m = call.parts + states * call.dim, *l = m + states;
    for (int i = threadIdx.x; i < part.heads * call.dim; i += THREADS) {
        const int g = i / call.dim;
        float high = -INFINITY, sum = 0, weights = 0;
        for (int w = 0; w < WARPS; w++)
            high = fmaxf(high, part.m[w * GROUP + g]);
        for (int w = 0; w < WARPS; w++) {
            const float factor = gpu_exp2(part.m[w * GROUP + g] - high);
            weights += part.l[w * GROUP + g] * factor;
            for (int slice = w * slices; slice < (w + 1) * slices; slice++)
                sum += part.sums[slice * GROUP * call.dim + i] * factor;
        }
        call.parts[state * call.dim + i] = sum;
        if (i % call.dim == 0) {
            m[state + g] = high;
            l[state + g] = weights;
        }
    }
}

template <int V, int GROUP>
static __global__ void part_kernel(const struct rope_tables tables, const struct attend_one_cuda call)
{
    GPU_SHARED(shared);
    const struct part part = part_of(call, (float *)shared, GROUP);
    const int64_t tiles = (call.n + TILE - 1) / TILE, end = tiles * (blockIdx.x + 1) / gridDim.x;
    struct sums<GROUP> sums {
    };
#pragma unroll
    for (int g = 0; g < GROUP; g++)
        sums.m[g] = -INFINITY;
    begin_part<V, GROUP>(tables, call, part);
    for (int64_t tile = tiles * blockIdx.x / gridDim.x + warp_of_thread(); tile < end; tile += WARPS) {
        score_tile<V, GROUP>(tables, call, part, tile * TILE);
        weigh_tile(part, sums);
        sum_tile(call, part, tile * TILE, sums);
    }
    __syncthreads(); /* q and all scores have been used */
    leave_sums(call, part, sums);
    __syncthreads();
    store_part<GROUP>(call, part);
}

/* ---- all parts: a block a head ---- */

/* Slices of threads share the parts, four numbers a thread. */
static __global__ void merge_kernel(const struct attend_one_cuda call, int parts)
{
    GPU_SHARED(shared);
    float *sums = (float *)shared; /* [slices][dim] */
    const int64_t head = blockIdx.x, states = (int64_t)parts * call.heads;
    const float *m = call.parts + states * call.dim, *l = m + states;
    const int units = call.dim / 4, slice = threadIdx.x / units, slices = blockDim.x / units;
    float high = -INFINITY, weights = 0, o[4] = {};
    for (int p = threadIdx.x % GPU_WARP; p < parts; p += GPU_WARP)
        high = fmaxf(high, m[p * call.heads + head]);
    high = gpu_warp_max(high);
    for (int p = threadIdx.x % GPU_WARP; p < parts; p += GPU_WARP)
        weights += l[p * call.heads + head] * gpu_exp2(m[p * call.heads + head] - high);
    weights = gpu_warp_sum(weights);
    for (int p = slice; p < (slice < slices ? parts : 0); p += slices) {
        const int64_t state = p * call.heads + head;
        float more[4];
        gpu_load(more, call.parts + state * call.dim + threadIdx.x % units * 4);
        for (int e = 0; e < 4; e++)
            o[e] += more[e] * gpu_exp2(m[state] - high);
    }
    if (slice < slices)
        gpu_store(sums + slice * call.dim + threadIdx.x % units * 4, o);
    __syncthreads();
    for (int e = threadIdx.x; e < call.dim; e += blockDim.x) {
        float sum = 0;
        for (int i = 0; i < slices; i++)
            sum += sums[i * call.dim + e];
        call.out[head * call.dim + e] = parts > 0 ? sum / weights : 0;
    }
    if (threadIdx.x == 0)
        call.lse[head] = parts > 0 ? high * LN_2 + logf(weights) : -INFINITY;
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
    return group == 1   ? launch_parts<V, 1>(tables, call, parts, stream, err)
           : group <= 4 ? launch_parts<V, 4>(tables, call, parts, stream, err)
                        : launch_parts<V, 8>(tables, call, parts, stream, err);
}

/* As many as fill the card, where the keys are enough. */
static int parts_of(const struct attend_one_cuda *call)
{
    const int64_t blocks = (int64_t)BLOCKS_PER_SM * gpu_multiprocessors();
    const int64_t most = i64_min(MAX_PARTS, i64_ceil_div(blocks, call->kv_heads));
    return (int)i64_min(most, i64_ceil_div(call->n, PART_KEYS));
}

int attend_one_cuda(const struct rope_cuda *rope, const struct attend_one_cuda *call, cudaStream_t stream,
                    struct error *err)
{
    const int parts = parts_of(call);
    const bool fours = rotate_in_fours(rope->tables, call->dim) && gpu_in_fours(call->q, call->dim) &&
                       gpu_in_fours((const __nv_bfloat16 *)call->keys, call->dim) &&
                       gpu_in_fours(call->offset, call->dim) && gpu_in_fours(call->slow_cosine, call->dim);
    if (parts > 0 && (fours ? launch<4> : launch<1>)(rope->tables, call, parts, stream, err) != 0)
        return -1;
    GPU_LAUNCH(merge_kernel, (unsigned)call->heads, MERGE_THREADS, 4 * MERGE_THREADS * sizeof(float), stream, *call,
               parts);
    return gpu_check_launch("attention of one token on the GPU", err);
}
